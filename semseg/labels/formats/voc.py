"""Pascal VOC's XML, one file per photo, which holds boxes; and LabelMe's, the old web tool's, which holds polygons."""

from collections.abc import Iterable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from semseg.labels.drawings import Shape
from semseg.labels.formats.common import Annotations, as_number, as_points, as_size, box, load_xml, outline


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the objects of one photo: polygons, where the file has any, and boxes, whose pixels count nowhere.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for XML of another kind.

    Raises:
        DataError: It is cut or damaged.
    """
    tree = load_xml(path)
    if tree.tag != "annotation":
        return None
    annotations, shapes = Annotations(path), []
    for number, entry in enumerate(tree.iter("object"), start=1):
        if (entry.findtext("deleted") or "0").strip() != "1":
            shapes += _shapes(annotations, entry, f"{path}: object {number}")
    sizes = [tree.findtext(f"size/{name}") or tree.findtext(f"imagesize/{rows}") for name, rows in _SIZES]
    size = as_size(*(text and int(as_number(text, f"{path}: size")) for text in sizes), str(path))
    annotations.add((tree.findtext("filename") or path.stem).strip(), shapes, size)
    return annotations


_SIZES = (("height", "nrows"), ("width", "ncols"))


def _shapes(annotations: Annotations, entry: Element, place: str) -> Iterable[Shape]:
    polygon = entry.find("polygon")
    label = annotations.label((entry.findtext("name") or "").strip(), place)
    if polygon is not None:
        return outline(annotations, label, _points(polygon, place))
    bounds = entry.find("bndbox")
    if bounds is None:
        annotations.left_out["objects that draw nothing"] += 1
        return []
    x0, y0, x1, y1 = (as_number(bounds.findtext(name), f"{place}: {name}") for name in ("xmin", "ymin", "xmax", "ymax"))
    return [box(annotations, x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1)]  # counted from 1


def _points(polygon: Element, place: str) -> np.ndarray:
    """Points as LabelMe writes them, `<pt><x>`, or as Roboflow does, `<x1>`, `<y1>`, `<x2>` and so on."""
    points = [(point.findtext("x"), point.findtext("y")) for point in polygon.iter("pt")]
    if not points:
        texts = {child.tag: child.text for child in polygon}
        points = [(texts.get(f"x{i}"), texts.get(f"y{i}")) for i in range(1, len(texts) // 2 + 1)]
    return as_points([list(point) for point in points], place)
