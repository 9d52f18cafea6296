"""Annotations that are no pictures: recognised and named, so that nothing else is made of the photos beside them."""

import re
from collections.abc import Callable
from pathlib import Path

from semseg.data.finding.contents import Contents

_READ_BYTES = 65536  # of a file's start; enough to see what it is
_MAX_LOOKED_AT = 20  # files of each suffix
_BOX_OR_OUTLINE = re.compile(r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}")
_MENDS = {
    "coco": "polygons in COCO's JSON",
    "labelme": "polygons in labelme's JSON",
    "supervisely": "objects in Supervisely's JSON",
    "geojson": "outlines in GeoJSON",
    "yolo": "outlines or boxes in YOLO's text files",
    "voc": "boxes in Pascal VOC's XML",
    "cvat": "outlines in CVAT's XML",
    "runs": "run lengths in a CSV file",
}


def name_annotations(contents: Contents) -> str:
    """What annotation files there are, as a message that says what to do with them; empty if there are none.

    Args:
        contents: Of the data set's folder.
    """
    found = find_annotations(contents)
    if not found:
        return ""
    kind, path = found
    return (
        f"{path}: {_MENDS[kind]}, not masks; semseg learns from pictures: export masks from the program that wrote it "
        "(one PNG per photo, a number or colour per class) and put them beside the photos"
    )


def find_annotations(contents: Contents) -> tuple[str, Path] | None:
    """The first file that holds annotations, and its kind; None if there is none.

    Args:
        contents: Of the data set's folder.
    """
    for suffix, kind_of in _KIND_OF_TEXT.items():
        files = [path for path in contents.others if path.suffix.lower() == suffix]
        for path in files[:_MAX_LOOKED_AT]:
            kind = kind_of(_start_of(path))
            if kind:
                return kind, path
    return None


def _start_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _kind_of_json(text: str) -> str | None:
    keys = set(re.findall(r'"(\w+)"\s*:', text))
    is_header = "images" in keys and keys & {"annotations", "categories", "file_name"}
    if is_header or {"segmentation", "category_id"} <= keys:
        return "coco"
    if {"shapes", "imagePath"} <= keys:
        return "labelme"
    if {"objects", "classTitle"} <= keys:
        return "supervisely"
    return "geojson" if '"FeatureCollection"' in text else None


def _kind_of_xml(text: str) -> str | None:
    if "<annotations>" in text and ("<polygon" in text or "<mask" in text or "<box" in text):
        return "cvat"
    return "voc" if "<annotation" in text and "<bndbox>" in text else None


def _kind_of_csv(text: str) -> str | None:
    header = text.partition("\n")[0].lower().replace("_", "")
    return "runs" if "encodedpixels" in header or re.search(r"\brle", header) else None


def _kind_of_txt(text: str) -> str | None:
    lines = [line.strip() for line in text.splitlines()[:-1] or text.splitlines()]
    return "yolo" if lines and all(_BOX_OR_OUTLINE.fullmatch(line) for line in lines) else None


_KIND_OF_TEXT: dict[str, Callable[[str], str | None]] = {
    ".json": _kind_of_json,
    ".geojson": _kind_of_json,
    ".xml": _kind_of_xml,
    ".csv": _kind_of_csv,
    ".txt": _kind_of_txt,
}
