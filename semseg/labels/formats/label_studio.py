"""Label Studio's JSON, whole and short (JSON-MIN): one file for many photos."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from semseg.errors import DataError
from semseg.labels.drawings import Runs, Shape
from semseg.labels.formats.common import (
    Annotations,
    as_dict,
    as_list,
    as_number,
    as_points,
    as_size,
    get,
    load_json,
    outline,
)
from semseg.labels.outlines import ellipse_ring

_KINDS = ("polygon", "brush", "ellipse", "rectangle")
_MAX_PIXELS = 1 << 28


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the regions of all tasks; later ones lie on earlier ones.

    Polygons, brushes, ellipses and rectangles are areas, whose coordinates are percents of the photo's size; key points
    have none and are left out. Of several annotations of a task the one that is marked as the truth counts, or the
    last. A task without annotations, or only skipped ones, is not labelled yet.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for JSON of another kind.

    Raises:
        DataError: It is cut or damaged.
    """
    data = load_json(path)
    tasks = [data] if isinstance(data, dict) and "data" in data else data
    if not isinstance(tasks, list) or not any(_is_task(task) for task in tasks):
        return None
    annotations = Annotations(path)
    for number, task in enumerate(tasks, start=1):
        place = f"{path}: task {as_dict(task, f'{path}: task {number}').get('id', number)}"
        regions = _regions(annotations, task, place)
        if regions is None:
            annotations.left_out["tasks that are not labelled yet, left out"] += 1
            continue
        annotations.add(_photo(task, place), *_drawn(annotations, regions, place))
    return annotations


def _is_task(task: Any) -> bool:
    if not isinstance(task, dict):
        return False
    if isinstance(task.get("data"), dict):
        return isinstance(task.get("annotations", task.get("completions")), list)
    return any(isinstance(value, list) and value and _is_short_region(value[0]) for value in task.values())


def _is_short_region(value: Any) -> bool:
    return isinstance(value, dict) and "original_width" in value


def _photo(task: Mapping[str, Any], place: str) -> str:
    """The name of the photo, from the first value that looks like a path or an address."""
    values = task["data"] if isinstance(task.get("data"), dict) else task
    for value in values.values():
        if isinstance(value, str) and ("/" in value or "." in value):
            address = urlsplit(value)
            return parse_qs(address.query).get("d", [address.path])[0]
    raise DataError(f"{place}: names no photo; expected its path or address")


def _regions(annotations: Annotations, task: Mapping[str, Any], place: str) -> list[dict[str, Any]] | None:
    """The regions of the annotation that counts; None where there is none."""
    if not isinstance(task.get("data"), dict):
        return [{"value": region, **region} for value in task.values() if isinstance(value, list) for region in value
                if _is_short_region(region)]  # fmt: skip
    every = as_list(task.get("annotations", task.get("completions")), place)
    finished = [entry for entry in every if isinstance(entry, dict) and not entry.get("was_cancelled")]
    if not finished:
        return None
    if len(finished) > 1:
        annotations.left_out["tasks with several annotations, of which one counts"] += 1
    best = next((entry for entry in finished if entry.get("ground_truth")), finished[-1])
    return [as_dict(region, place) for region in as_list(get(best, "result", place), place)]


def _drawn(
    annotations: Annotations, regions: list[dict[str, Any]], place: str
) -> tuple[list[Shape], tuple[int, int] | None]:
    """The shapes of a photo, and its size."""
    labels: dict[Any, str] = {}  # of regions whose label is a result of its own
    for region in regions:
        names = _names(as_dict(region.get("value") or {}, place))
        if names:
            labels.setdefault(region.get("id"), names[0])
    shapes: list[Shape] = []
    size = None
    for region in regions:
        size = as_size(region.get("original_height"), region.get("original_width"), place) or size
        shapes += _shapes(annotations, region, labels, f"{place}: region {region.get('id', len(shapes) + 1)}")
    return shapes, size


def _names(value: Mapping[str, Any]) -> list[str]:
    found = [value[key] for key in value if key.endswith("labels") and isinstance(value[key], list)]
    return [str(name) for names in found for name in names]


def _shapes(
    annotations: Annotations, region: Mapping[str, Any], labels: Mapping[Any, str], place: str
) -> Iterable[Shape]:
    value = as_dict(region.get("value") or {}, place)
    kind = _kind(value)
    if kind is None:
        if any(key in value for key in ("x", "points", "vertices")):
            annotations.left_out["shapes without an area, left out"] += 1
        return []
    names = _names(value)
    label = annotations.label(names[0] if names else labels.get(region.get("id"), "foreground"), place)
    size = as_size(region.get("original_height"), region.get("original_width"), place)
    if size is None or as_number(region.get("image_rotation") or 0, place) % 360:
        raise DataError(f"{place}: is of a photo that was turned, or of no size; turn it back and label it again")
    annotations.rectangles += kind == "rectangle"
    if kind == "polygon":
        return outline(annotations, label, as_points(value["points"], place) * (np.array(size[::-1]) / 100))
    annotations.outlines += kind != "rectangle"
    if kind == "brush":
        return [Shape(label, runs=_brush(value["rle"], size, place))]
    return [Shape(label, (_ring(kind, value, size, place),))]


def _kind(value: Mapping[str, Any]) -> str | None:
    if "rle" in value:
        return "brush"
    if "radiusX" in value:
        return "ellipse"
    if isinstance(value.get("points"), list):
        return "polygon"
    return "rectangle" if {"x", "y", "width", "height"} <= value.keys() and "keypointlabels" not in value else None


def _ring(kind: str, value: Mapping[str, Any], size: tuple[int, int], place: str) -> np.ndarray:
    """The outline of an ellipse around its middle, or of a rectangle that is turned around its upper left corner."""
    across = ("radiusX", "radiusY") if kind == "ellipse" else ("width", "height")
    x, y, a, b = (as_number(get(value, name, place), f"{place}: {name}") / 100 for name in ("x", "y", *across))
    x, y, a, b = x * size[1], y * size[0], a * size[1], b * size[0]
    degrees = as_number(value.get("rotation") or 0, f"{place}: rotation")
    if kind == "ellipse":
        return ellipse_ring((x, y), (a, b), degrees)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[0, 0], [a, 0], [a, b], [0, b]]) @ np.array([[cos, sin], [-sin, cos]]) + np.array([x, y])


# ------------------------------------------------------------------------------------------------------------ brushes


class _Bits:
    """Bytes, read some bits at a time."""

    def __init__(self, data: bytes):
        self._bits, self.at = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def read(self, count: int) -> int:
        """The next bits as a number; raises a `ValueError` at the end."""
        bits = self.take(count)
        return int.from_bytes(np.packbits(np.concatenate([np.zeros(-count % 8, np.uint8), bits])).tobytes(), "big")

    def take(self, count: int) -> np.ndarray:
        """The next bits themselves."""
        bits = self._bits[self.at : self.at + count]
        if len(bits) < count:
            raise ValueError("cut")
        self.at += count
        return bits


def _brush(rle: Any, size: tuple[int, int], place: str) -> Runs:
    """What a brush painted: four values per pixel, of which the last is above 0 where there is paint."""
    pixels = size[0] * size[1]
    try:
        values = decode_brush(bytes(as_list(rle, place)), 4 * min(pixels, _MAX_PIXELS))
    except (TypeError, ValueError):
        raise DataError(
            f"{place}: has run lengths that are cut, or not those of {size[1]}x{size[0]} pixels; export it again"
        ) from None
    inside = np.concatenate([[False], values[3::4] > 0, [False]])
    changes = np.flatnonzero(inside[1:] != inside[:-1])
    return Runs(np.diff(changes, prepend=0), size, by_rows=True)


def decode_brush(data: bytes, count: int) -> np.ndarray:
    """Unpacks the run lengths of thi.ng's rle-pack, by which Label Studio stores what brushes paint.

    Args:
        data: The packed bytes: a head of 32 bits for the number of values, 5 for their bits, four times 4 for the bits
            of run lengths; then runs of one value, or of several.
        count: How many values are expected.

    Returns:
        uint8 `(count,)`.

    Raises:
        ValueError: It is cut, or of another number.
    """
    bits = _Bits(data)
    if bits.read(32) != count:
        raise ValueError("another number of values")
    word = bits.read(5) + 1
    lengths = [bits.read(4) + 1 for _ in range(4)]
    if word != 8:
        raise ValueError("values of other than 8 bits")
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        is_run = bits.read(1)
        stop = at + 1 + bits.read(lengths[bits.read(2)])
        if stop > count:
            raise ValueError("more values")
        values[at:stop] = bits.read(word) if is_run else np.packbits(bits.take(word * (stop - at)))
        at = stop
    return values
