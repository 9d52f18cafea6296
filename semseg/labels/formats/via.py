"""VIA's JSON, as a project, as exported, and as CSV: one file for many photos."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import DataError
from semseg.labels.drawings import Shape
from semseg.labels.formats.common import (
    Annotations,
    as_dict,
    as_list,
    as_number,
    as_points,
    attribute_of_class,
    get,
    load_json,
    load_text,
    outline,
)
from semseg.labels.outlines import ellipse_ring, rectangle_ring

CSV_COLUMNS = {"filename", "region_shape_attributes", "region_attributes"}
_NUMBERS = {
    "rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry"),
}  # fmt: skip


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the regions of all photos; later ones lie on earlier ones.

    Polygons, rectangles, circles and ellipses are areas; points and lines have none and are left out. The class is what
    the only attribute of the regions says, or that of several which is called class, label, type, category or name;
    without attributes all regions are of one class, foreground.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for JSON or CSV of another kind.

    Raises:
        DataError: It is cut or damaged, or several attributes may be the class.
    """
    photos = _of_csv(path) if path.suffix.lower() == ".csv" else _of_json(path)
    if photos is None:
        return None
    annotations = Annotations(path)
    attribute = attribute_of_class([attributes for regions in photos.values() for _, attributes in regions], path)
    for name, regions in photos.items():
        shapes: list[Shape] = []
        for number, (shape, attributes) in enumerate(regions, start=1):
            place = f"{path}: {name}: region {number}"
            label = annotations.label_or_none(_value(attributes.get(attribute)) if attribute else "foreground", place)
            shapes += _shapes(annotations, label, shape, place)
        annotations.add(name, shapes, None)
    return annotations


Regions = list[tuple[dict[str, Any], dict[str, Any]]]  # shape and attributes of each


def _of_json(path: Path) -> dict[str, Regions] | None:
    """The regions of each photo."""
    data = load_json(path)
    entries = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
    if not isinstance(entries, dict) or not any(isinstance(e, dict) and "regions" in e for e in entries.values()):
        return None
    photos: dict[str, Regions] = {}
    for key, entry in entries.items():
        place = f"{path}: {key}"
        regions = get(as_dict(entry, place), "regions", place)
        regions = list(regions.values()) if isinstance(regions, dict) else as_list(regions or [], place)
        name = str(get(entry, "filename", place))
        if name in photos:
            raise DataError(f"{path}: names {name!r} twice; expected each photo once: remove one entry")
        photos[name] = [
            (as_dict(region.get("shape_attributes"), place), as_dict(region.get("region_attributes") or {}, place))
            for region in (as_dict(region, place) for region in regions)
        ]
    return photos


def _of_csv(path: Path) -> dict[str, Regions] | None:
    rows = csv.DictReader(load_text(path).splitlines())
    if not set(rows.fieldnames or ()) >= CSV_COLUMNS:
        return None
    photos: dict[str, Regions] = {}
    for row in rows:
        place = f"{path}: line {rows.line_num}"
        try:
            shape = as_dict(json.loads(row["region_shape_attributes"]), place)
            attributes = as_dict(json.loads(row["region_attributes"]), place)
        except (ValueError, TypeError, RecursionError):
            raise DataError(f"{place}: holds no JSON where the shape should be; is it cut? Export it again") from None
        regions = photos.setdefault(row["filename"], [])
        regions += [(shape, attributes)] if shape else []
    return photos


def _value(value: Any) -> Any:
    """What an attribute says; of checkboxes the one that is ticked."""
    if isinstance(value, Mapping):
        ticked = [name for name, is_ticked in value.items() if is_ticked]
        return ticked[0] if len(ticked) == 1 else ""
    return value


def _shapes(annotations: Annotations, label: str | None, shape: Mapping[str, Any], place: str) -> Iterable[Shape]:
    kind = shape.get("name")
    if kind == "polygon":
        x, y = (get(shape, f"all_points_{axis}", place) for axis in "xy")
        if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y)):
            raise DataError(f"{place}: has not as many x as y; redraw it")
        return outline(annotations, label, as_points([list(pair) for pair in zip(x, y, strict=True)], place))
    if kind not in _NUMBERS:
        annotations.left_out[f"shapes without an area ({kind}), left out"] += 1
        return []
    numbers = [as_number(get(shape, name, place), f"{place}: {name}") for name in _NUMBERS[kind]]
    annotations.rectangles += kind == "rect"
    annotations.outlines += kind != "rect"
    if kind == "rect":
        x, y, width, height = numbers
        return [Shape(label, (rectangle_ring((x, y), (x + width, y + height)),))]
    radii = (numbers[2], numbers[-1])
    turned = float(np.degrees(as_number(shape.get("theta") or 0, f"{place}: theta")))
    return [Shape(label, (ellipse_ring((numbers[0], numbers[1]), radii, turned),))]
