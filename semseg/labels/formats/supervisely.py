"""Supervisely's JSON: one file per photo, in a folder `ann` beside that of the photos, and `meta.json` above both."""

import base64
import binascii
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from semseg.errors import DataError
from semseg.labels.drawings import Shape
from semseg.labels.formats.common import (
    Annotations,
    as_dict,
    as_list,
    as_points,
    as_size,
    get,
    hex_color,
    load_json,
    open_bitmap,
    outline,
)
from semseg.labels.outlines import rectangle_ring, runs_of_mask
from semseg.labels.palettes import Color

_MAX_UNPACKED = 1 << 28  # bytes of a bitmap, once unpacked


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the objects of one photo; later ones lie on earlier ones.

    Polygons with their holes, bitmaps and rectangles are areas; lines and points have none and are left out. Points are
    pixels, whose centres the outlines join; the last row and column of a rectangle belong to it.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for JSON of another kind, such as `meta.json`.

    Raises:
        DataError: It is cut or damaged.
    """
    data = load_json(path)
    if not isinstance(data, dict) or not {"objects", "size"} <= data.keys():
        return None
    annotations = Annotations(path, classes=dict(_classes(path.parent, root)))
    size = as_dict(data["size"], f"{path}: size")
    shapes: list[Shape] = []
    for number, entry in enumerate(as_list(data["objects"], f"{path}: objects"), start=1):
        place = f"{path}: object {number}"
        label = annotations.label(get(as_dict(entry, place), "classTitle", place), place)
        shapes += _shapes(annotations, label, entry, place)
    annotations.add(path.stem, shapes, as_size(size.get("height"), size.get("width"), f"{path}: size"))
    return annotations


def _shapes(annotations: Annotations, label: str | None, entry: dict[str, Any], place: str) -> list[Shape]:
    kind = entry.get("geometryType") or ("bitmap" if entry.get("bitmap") else "polygon")
    if kind == "bitmap":
        annotations.outlines += 1
        return [_bitmap(label, as_dict(get(entry, "bitmap", place), place), place)]
    if kind not in ("polygon", "rectangle"):
        annotations.left_out[f"shapes without an area ({kind}), left out"] += 1
        return []
    points = as_dict(get(entry, "points", place), place)
    exterior = as_points(get(points, "exterior", place), place)
    if kind == "rectangle":
        if len(exterior) != 2:
            raise DataError(f"{place}: is a rectangle of {len(exterior)} points; expected 2: redraw it")
        annotations.rectangles += 1
        return [Shape(label, (rectangle_ring(exterior.min(axis=0), exterior.max(axis=0) + 1),))]
    holes = [as_points(hole, f"{place}: interior") + 0.5 for hole in as_list(points.get("interior") or [], place)]
    outer = outline(annotations, label, exterior + 0.5)
    return [Shape(label, (*shape.rings, *holes)) for shape in outer]


def _bitmap(label: str | None, bitmap: dict[str, Any], place: str) -> Shape:
    """A PNG, packed by zlib and then in base64; what is opaque in it, or not black, is inside."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(get(bitmap, "data", place)), _MAX_UNPACKED)
    except (TypeError, ValueError, binascii.Error, zlib.error):
        raise DataError(f"{place}: holds a bitmap that cannot be unpacked; is it cut? Export it again") from None
    pixels = open_bitmap(data, place)
    left, top = as_points(get(bitmap, "origin", place), f"{place}: origin")[0].astype(int).tolist()
    inside = pixels > 0 if pixels.ndim == 2 else pixels[..., -1] > 0
    return Shape(label, runs=runs_of_mask(inside, (top, left)))


@lru_cache(maxsize=8)
def _classes(folder: Path, root: Path) -> tuple[tuple[str, Color | None], ...]:
    """Names and colours in the nearest `meta.json`."""
    for place in (folder, *folder.parents):
        path = place / "meta.json"
        if path.is_file():
            entries = as_list(as_dict(load_json(path), str(path)).get("classes") or [], f"{path}: classes")
            return tuple(
                (str(entry["title"]), hex_color(entry.get("color")))
                for entry in entries
                if "title" in as_dict(entry, str(path))
            )
        if place == root:
            break
    return ()
