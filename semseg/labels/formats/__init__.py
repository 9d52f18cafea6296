"""Formats of annotation files. To add one: a module with `read`, and a line in `FORMATS`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semseg.labels.formats import coco, cvat, geojson, label_studio, labelme, run_lengths, supervisely, via, voc, yolo
from semseg.labels.formats.common import Annotations

_READ_BYTES = 1 << 16  # of a file's start and of its end; enough to see what it is
_OBJECT = re.compile(r"\s*\d+(\s+[-+.\de]+){4,}\s*$")  # a class and coordinates
_NUMBERS = re.compile(r"[-+.\de\s]+")


@dataclass(frozen=True)
class Format:
    """One way to store annotations.

    Attributes:
        described: What such files hold, in words.
        suffixes: Of its files.
        is_of: Whether a file is one, by its start and its end; it need not be right about files of no photos.
        read: Takes a file and the data set's root; None for a file of another kind.
        only_boxes: Whether it hardly ever holds outlines, so that it is not read where there are masks.
    """

    described: str
    suffixes: tuple[str, ...]
    is_of: Callable[[str], bool]
    read: Callable[[Path, Path], Annotations | None]
    only_boxes: bool = False


def _keys(text: str) -> set[str]:
    return set(re.findall(r'"(\w+)"\s*:', text))


def _is_coco(text: str) -> bool:
    keys = _keys(text)
    is_header = "images" in keys and bool(keys & {"annotations", "categories", "file_name"})
    return is_header or {"segmentation", "category_id"} <= keys


def _is_labelme(text: str) -> bool:
    keys = _keys(text)
    return "shapes" in keys and bool(keys & {"imagePath", "shape_type", "imageData"})


def _is_via(text: str) -> bool:
    keys = _keys(text)
    return {"filename", "regions"} <= keys or all(column in text.partition("\n")[0] for column in via.CSV_COLUMNS)


def _is_supervisely(text: str) -> bool:
    keys = _keys(text)
    return {"objects", "size"} <= keys or {"objects", "classTitle"} <= keys


def _is_label_studio(text: str) -> bool:
    keys = _keys(text)
    return "original_width" in keys or ("data" in keys and bool(keys & {"annotations", "completions"}))


def _is_cvat(text: str) -> bool:
    return "<annotations>" in text and re.search(r"<(image|track)\b", text) is not None


def _is_yolo(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()][:50]
    return bool(lines) and _OBJECT.match(lines[0]) is not None and all(_NUMBERS.fullmatch(line) for line in lines)


FORMATS: dict[str, Format] = {
    "coco": Format("polygons or run lengths in COCO's JSON", (".json",), _is_coco, coco.read),
    "yolo": Format("outlines or boxes in YOLO's text files", (".txt",), _is_yolo, yolo.read),
    "labelme": Format("polygons in labelme's JSON", (".json",), _is_labelme, labelme.read),
    "cvat": Format("outlines in CVAT's XML", (".xml",), _is_cvat, cvat.read),
    "run-lengths": Format(
        "run lengths in a CSV file", (".csv",), lambda text: run_lengths.is_header(text.partition("\n")[0]),
        run_lengths.read,
    ),
    "via": Format("regions in VIA's JSON or CSV", (".json", ".csv"), _is_via, via.read),
    "supervisely": Format("objects in Supervisely's JSON", (".json",), _is_supervisely, supervisely.read),
    "label-studio": Format("regions in Label Studio's JSON", (".json",), _is_label_studio, label_studio.read),
    "geojson": Format(
        "areas in GeoJSON", (".geojson", ".json"), lambda text: '"FeatureCollection"' in text, geojson.read,
    ),
    "voc": Format(
        "boxes in Pascal VOC's XML, or polygons in LabelMe's", (".xml",), lambda text: "<annotation" in text
        and "<object>" in text, voc.read, only_boxes=True,
    ),
}  # fmt: skip


def format_of(path: Path) -> str | None:
    """The name of a file's format, by its suffix, its start and its end; None where it is none of `FORMATS`."""
    candidates = [name for name, kind in FORMATS.items() if path.suffix.lower() in kind.suffixes]
    if not candidates:
        return None
    text = _ends_of(path)
    return next((name for name in candidates if FORMATS[name].is_of(text)), None)


def _ends_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(_READ_BYTES)
            file.seek(max(len(start), path.stat().st_size - _READ_BYTES))
            return (start + file.read(_READ_BYTES)).decode("utf-8-sig", "replace")
    except OSError:
        return ""
