"""Run lengths in CSV files, as Kaggle's competitions have them: a row per object or per class of a photo."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from semseg.errors import DataError
from semseg.labels.drawings import Runs, Shape
from semseg.labels.formats.common import Annotations, as_size, load_text

_RUNS = ("encodedpixels", "rle", "rlemask", "rlemasks", "segmentation", "annotation", "maskrle", "rleencoding")
_PHOTOS = ("imageid", "image", "img", "id", "imagelabel", "imageidclassid", "filename", "imagename", "name")
_CLASSES = ("classid", "class", "celltype", "label", "category", "classname", "defecttype")
_NONE = {"", "-1", "nan", "none", "null"}
_CLASS_AT_END = re.compile(r"(.+)_([A-Za-z]+|\d)")  # 0002cc93b.jpg_1, 0011165.jpg_Fish


def is_header(line: str) -> bool:
    """Whether the first line of a CSV file names a column of run lengths and one of photos."""
    columns = _columns(line.split(","))
    return columns is not None and _plain(line.split(",")[columns[1]]) not in ("segmentation", "annotation")


def read(path: Path, root: Path) -> Annotations | None:
    """Reads pairs of a start, counted from 1, and a length, down the columns; later rows lie on earlier ones.

    In the forms of UW-Madison's, Sartorius' and Carvana's competitions they go along the rows. A row without run
    lengths is a photo of background.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for a CSV file of another kind, or a sample of how to hand in results.

    Raises:
        DataError: A row makes no sense.
    """
    text = load_text(path, 1 << 30)
    columns = _columns(next(csv.reader(text.splitlines()[:1]), []))
    if columns is None or "submission" in path.stem.lower():
        return None
    csv.field_size_limit(1 << 28)
    annotations = Annotations(path)
    shapes: dict[str, list[Shape]] = defaultdict(list)
    sizes: dict[str, tuple[int, int] | None] = {}
    rows = csv.DictReader(text.splitlines())
    names = {_plain(name): name for name in rows.fieldnames or () if name}
    for row in rows:
        place = f"{path}: line {rows.line_num}"
        photo, label = _photo_and_class(annotations, row, names, place)
        sizes[photo] = as_size(row.get(names.get("height", "")), row.get(names.get("width", "")), place)
        pairs = (row[names[next(name for name in _RUNS if name in names)]] or "").strip()
        if pairs.lower() in _NONE:
            shapes[photo] += []
            continue
        annotations.outlines += 1
        annotations.classes.setdefault(label or "background")
        shapes[photo].append(Shape(label, runs=Runs(_counts(pairs, place), by_rows=_go_by_rows(names))))
    for photo, drawn in shapes.items():
        annotations.add(photo, drawn, sizes[photo])
    annotations.classes = dict(sorted(annotations.classes.items()))
    return annotations


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _columns(header: list[str]) -> tuple[int, int] | None:
    """Which columns hold photos and run lengths; None where there are no such."""
    names = [_plain(name) for name in header]
    photos = [names.index(name) for name in _PHOTOS if name in names]
    runs = [names.index(name) for name in _RUNS if name in names]
    return (photos[0], runs[0]) if photos and runs else None


def _go_by_rows(names: dict[str, str]) -> bool:
    return "celltype" in names or {"class", "segmentation"} <= names.keys() or {"img", "rlemask"} <= names.keys()


def _photo_and_class(
    annotations: Annotations, row: dict[str, str], names: dict[str, str], place: str
) -> tuple[str, str | None]:
    column = next(name for name in _PHOTOS if name in names)
    photo = (row[names[column]] or "").strip()
    name = next((row[names[name]] for name in _CLASSES if name in names), None)
    match = _CLASS_AT_END.fullmatch(photo)
    if name is None and match and (column in ("imagelabel", "imageidclassid") or "." in match[1]):
        photo, name = match[1], match[2]
    if not photo:
        raise DataError(f"{place}: names no photo; expected one in the column {names[column]}")
    name = "foreground" if name is None else name.strip()
    return photo, annotations.label(f"class_{name}" if name.isdecimal() else name, place)


def _counts(pairs: str, place: str) -> np.ndarray:
    """Lengths of runs outside and inside in turn, from starts and lengths."""
    try:
        values = np.array([int(text) for text in pairs.split()], np.int64)
    except (ValueError, OverflowError):
        raise DataError(
            f"{place}: has run lengths that are no numbers; expected a start and a length in turn"
        ) from None
    if len(values) % 2:
        raise DataError(f"{place}: has {len(values)} numbers; expected a start and a length in turn, an even number")
    starts, lengths = values[0::2] - 1, values[1::2]
    stops = starts + lengths
    if starts.min() < 0 or lengths.min() < 0 or (starts[1:] < stops[:-1]).any():
        raise DataError(f"{place}: has runs that overlap, or start before 1; expected rising ones, counted from 1")
    between = starts - np.concatenate([[0], stops[:-1]])
    return np.stack([between, lengths], axis=1).ravel()
