"""labelme's JSON: one file beside each photo."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.errors import DataError
from semseg.labels.drawings import Shape
from semseg.labels.formats.common import (
    Annotations,
    as_dict,
    as_list,
    as_points,
    as_size,
    decode_bitmap,
    get,
    load_json,
    outline,
)
from semseg.labels.outlines import ellipse_ring, line_rings, pieces_of, rectangle_ring, runs_of_mask

_VERSION = "5.5.0"  # of labelme, whose form is written
IGNORED_LABEL = "__ignore__"  # of what counts nowhere
_LINE_WIDTH, _POINT_RADIUS = 10, 5  # pixels, as labelme draws them into masks


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the shapes of one photo; later ones lie on earlier ones.

    Polygons, rectangles, circles and bitmaps are areas; lines are 10 pixels wide and points discs of 5 pixels' radius,
    as where labelme makes masks of them.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None where it is something else.

    Raises:
        DataError: It is cut or damaged.
    """
    data = load_json(path)
    if not isinstance(data, dict) or "shapes" not in data:
        return None
    annotations = Annotations(path)
    shapes: list[Shape] = []
    for number, entry in enumerate(as_list(data["shapes"], f"{path}: shapes"), start=1):
        place = f"{path}: shape {number}"
        entry = as_dict(entry, place)
        label = annotations.label(get(entry, "label", place), place)
        shapes += _shapes(annotations, label, entry, place)
    name = data.get("imagePath")
    photo = PureWindowsPath(name).as_posix() if isinstance(name, str) and name else path.stem
    annotations.holds_photo = bool(data.get("imageData"))
    annotations.add(photo, shapes, as_size(data.get("imageHeight"), data.get("imageWidth"), str(path)))
    return annotations


def _shapes(annotations: Annotations, label: str | None, entry: dict[str, Any], place: str) -> list[Shape]:
    kind = entry.get("shape_type") or "polygon"
    if kind not in _POINTS:
        raise DataError(f"{place}: is a {kind!r}; expected one of {', '.join(_POINTS)}")
    points = as_points(get(entry, "points", place), place)
    fewest, most = _POINTS[kind]
    if not fewest <= len(points) <= most:
        raise DataError(f"{place}: is a {kind} of {len(points)} points; expected {fewest}: redraw it")
    if kind in ("polygon", "oriented_rectangle"):
        return outline(annotations, label, points)
    if kind == "rectangle":
        annotations.rectangles += 1
        return [Shape(label, (rectangle_ring(points[0], points[1]),))]
    annotations.outlines += 1
    if kind == "mask":
        return [_bitmap(label, points, entry, place)]
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        return [Shape(label, (ellipse_ring(points[0], (radius, radius)),))]
    if kind in ("point", "points"):
        return [Shape(label, (ellipse_ring(point, (_POINT_RADIUS, _POINT_RADIUS)),)) for point in points]
    return [Shape(label, (ring,)) for ring in line_rings(points, _LINE_WIDTH)]


def write(folder: Path, split: str, masks: Iterable[tuple[str, np.ndarray]], classes: Mapping[int, str]) -> None:
    """Writes a file beside each photo of a split, in the folder called after it.

    Each connected piece of a class becomes a polygon along the borders of its pixels; where it has holes, the outline
    runs to them and back. What counts nowhere is called `__ignore__`.

    Args:
        folder: Where to; the photos lie in `SPLIT/`.
        split: Its name.
        masks: The name of each photo and its mask, uint8 `(H, W)`: ids, and 255 for what counts nowhere.
        classes: Names of those ids that are drawn.
    """
    for name, ids in masks:
        outlines = [
            (label, piece, {})
            for i, label in {**classes, IGNORE: IGNORED_LABEL}.items()
            for piece in pieces_of(ids == i)
        ]
        write_photo(folder / split / Path(name).with_suffix(".json"), name, ids.shape, outlines)


def write_photo(
    path: Path,
    name: str,
    size: tuple[int, int],
    outlines: Iterable[tuple[str, np.ndarray, Mapping[str, Any]]],
) -> None:
    """Writes the file of one photo.

    Args:
        path: The file.
        name: The photo's, as seen from the file.
        size: (H, W) of the photo.
        outlines: The label of each polygon, its points, float64 `(P, 2)` of (x, y), and what else is said of it.
    """
    shapes = [
        {"label": label, "points": points.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}, **more}
        for label, points, more in outlines
    ]
    values = {"version": _VERSION, "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
              "imageHeight": size[0], "imageWidth": size[1]}  # fmt: skip
    path.write_text(json.dumps(values), encoding="utf-8")


_MANY = 1 << 40
_POINTS = {  # the fewest and the most points of each kind of shape
    "polygon": (0, _MANY), "oriented_rectangle": (4, 4), "rectangle": (2, 2), "circle": (2, 2), "line": (2, 2),
    "linestrip": (2, _MANY), "point": (1, 1), "points": (1, _MANY), "mask": (2, 2),
}  # fmt: skip


def _bitmap(label: str | None, points: np.ndarray, entry: dict[str, Any], place: str) -> Shape:
    """A picture of the part of the photo that lies between two points."""
    pixels = decode_bitmap(get(entry, "mask", place), f"{place}: mask")
    left, top = np.rint(points.min(axis=0)).astype(int).tolist()
    inside = pixels > 0 if pixels.ndim == 2 else pixels.any(axis=2)
    return Shape(label, runs=runs_of_mask(inside, (top, left)))
