"""CVAT's XML, for images and for videos: one file for many photos."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from semseg.errors import DataError
from semseg.labels.drawings import Runs, Shape
from semseg.labels.formats.common import (
    Annotations,
    as_number,
    as_points,
    as_size,
    hex_color,
    load_xml,
    outline,
)
from semseg.labels.outlines import ellipse_ring, rectangle_ring


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the shapes of all photos, those with a higher `z_order` above others, and then the later ones.

    Polygons, boxes, ellipses and masks are areas, as where CVAT exports masks. Lines and points have no width there
    and are left out, as are cuboids and skeletons.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for XML of another kind.

    Raises:
        DataError: It is cut or damaged.
    """
    tree = load_xml(path)
    if tree.tag != "annotations":
        return None
    annotations = Annotations(path)
    for entry in tree.iter("label"):
        name = entry.findtext("name")
        if name and annotations.classes.get(name) is None and (label := annotations.label(name, str(path))):
            annotations.classes[label] = hex_color(entry.findtext("color"))
    annotations.left_out.clear()
    for image in tree.iter("image"):
        name, subset = image.get("name") or "", image.get("subset") or ""
        photo = f"{subset}/{name}" if subset and subset != "default" else name
        size = as_size(image.get("height"), image.get("width"), f"{path}: image {name!r}")
        annotations.add(photo, _in_order(annotations, list(image), f"{path}: {name}"), size)
    _read_tracks(annotations, tree)
    return annotations


def _read_tracks(annotations: Annotations, tree: Element) -> None:
    """Adds the frames of a video."""
    frames: dict[int, list[Element]] = defaultdict(list)
    for track in tree.iter("track"):
        for entry in track:
            entry.set("label", track.get("label") or "")
            if entry.get("outside") != "1" and entry.get("frame"):
                frames[int(as_number(entry.get("frame"), f"{annotations.path}: frame"))].append(entry)
    task = tree.find(".//original_size")
    size = None
    if task is not None:
        size = as_size(task.findtext("height"), task.findtext("width"), str(annotations.path))
    for frame, entries in sorted(frames.items()):
        name = f"frame_{frame:06d}"
        annotations.add(name, _in_order(annotations, entries, f"{annotations.path}: {name}"), size)


def _in_order(annotations: Annotations, entries: list[Element], place: str) -> list[Shape]:
    """The shapes from the lowest to the highest."""
    entries.sort(key=lambda entry: as_number(entry.get("z_order") or 0, f"{place}: z_order"))
    return [shape for entry in entries for shape in _shapes(annotations, entry, place)]


def _shapes(annotations: Annotations, entry: Element, place: str) -> Iterator[Shape]:
    if entry.tag not in ("polygon", "box", "ellipse", "mask"):
        if entry.tag != "tag":
            annotations.left_out[f"shapes without an area ({entry.tag}), left out"] += 1
        return
    place = f"{place}: {entry.tag}"
    label = annotations.label(entry.get("label"), place)
    if entry.tag == "polygon":
        yield from outline(annotations, label, _points(entry.get("points") or "", place))
        return
    annotations.rectangles += entry.tag == "box"
    annotations.outlines += entry.tag != "box"
    if entry.tag == "mask":
        yield Shape(label, runs=_runs(entry, place))
    elif entry.tag == "ellipse":
        x, y, rx, ry = (as_number(entry.get(name), f"{place}: {name}") for name in ("cx", "cy", "rx", "ry"))
        yield Shape(label, (ellipse_ring((x, y), (rx, ry), _degrees(entry, place)),))
    else:
        corners = [as_number(entry.get(name), f"{place}: {name}") for name in ("xtl", "ytl", "xbr", "ybr")]
        yield Shape(label, (_turned(rectangle_ring(corners[:2], corners[2:]), _degrees(entry, place)),))


def _points(text: str, place: str) -> np.ndarray:
    return as_points([pair.split(",") for pair in text.split(";") if pair.strip()], place)


def _degrees(entry: Element, place: str) -> float:
    return as_number(entry.get("rotation") or 0, f"{place}: rotation")


def _turned(ring: np.ndarray, degrees: float) -> np.ndarray:
    """A rectangle turned clockwise around its middle."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    middle = ring.mean(axis=0)
    return (ring - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle


def _runs(entry: Element, place: str) -> Runs:
    """Run lengths row after row in a rectangle, outside first."""
    left, top, width, height = (
        int(as_number(entry.get(name), f"{place}: {name}")) for name in ("left", "top", "width", "height")
    )
    try:
        lengths = np.array([int(text) for text in (entry.get("rle") or "").replace(",", " ").split()], np.int64)
    except (ValueError, OverflowError):
        raise DataError(f"{place}: has run lengths that are no numbers; export it again") from None
    if (lengths < 0).any() or lengths.sum() != width * height:
        raise DataError(f"{place}: has run lengths for {lengths.sum()} pixels; expected {width}x{height} of them")
    return Runs(lengths, (height, width), (top, left), by_rows=True)
