"""Text files beside photos and masks that name the classes: one parser per form, chosen by the file's name."""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from semseg.errors import DataError
from semseg.labels.palettes import Color

_MAX_BYTES = 5_000_000  # of a file that names classes; nnU-Net's also lists every case
_MAX_NAMES = 1000
_MAX_LENGTH = 200  # of a line
_NO_CLASS = {"ignore", "ignored", "ignore region", "void", "dontcare", "dont care", "don't care"}


@dataclass(frozen=True)
class NamedClass:
    """What a file tells of one class.

    Attributes:
        name: As written, without blanks and quotes around it.
        value: The number in masks; None where the file tells none.
        color: RGB, 0 to 255; None where the file tells none.
        ignored: Whether it stands for pixels that are no class, such as nnU-Net's "ignore" and CamVid's "Void".
    """

    name: str
    value: int | None = None
    color: Color | None = None
    ignored: bool = False


@dataclass(frozen=True)
class ClassFile:
    """A file that names classes.

    Attributes:
        path: The file; of several copies the first.
        classes: In the order of the file, at least one.
        lists_objects: Whether such files name objects only, as those for boxes do, and never a background.
    """

    path: Path
    classes: tuple[NamedClass, ...]
    lists_objects: bool = False

    @property
    def tells_values(self) -> bool:
        """Whether it gives numbers."""
        return any(entry.value is not None for entry in self.classes)

    @property
    def tells_colors(self) -> bool:
        """Whether it gives colours."""
        return any(entry.color is not None for entry in self.classes)


class _BrokenError(ValueError):
    """A file that is meant to name classes, and has a slip."""


def names_classes(path: Path) -> bool:
    """Whether a file is called like one that names classes; what it holds may be something else."""
    return _parser(path) is not None


def read_class_file(path: Path) -> ClassFile | None:
    """Reads the classes of a file.

    Args:
        path: A file for which `names_classes` holds.

    Returns:
        None where it holds something else, such as prose in a `classes.txt`.

    Raises:
        DataError: It is meant to name classes, but a colour or number in it is none, or a name stands twice.
    """
    parser, text = _parser(path), read_text(path)
    if parser is None or not text:
        return None
    try:
        classes = parser(text)
        _refuse_duplicates(classes)
    except _BrokenError as error:
        raise DataError(f"{path}: {error}; mend or remove the file") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, csv.Error):
        return None
    classes = [replace(entry, ignored=entry.ignored or _plain(entry.name) in _NO_CLASS) for entry in classes]
    lists_objects = any(fnmatch(path.name.lower(), pattern) for pattern in _OBJECTS_ONLY)
    return ClassFile(path, tuple(classes), lists_objects) if 0 < len(classes) <= _MAX_NAMES else None


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or Latin-1; empty where it is long or no text.

    Args:
        path: Any file.
    """
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return ""
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        return ""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def same_name(name: str, other: str) -> bool:
    """Whether two names of classes are one, capitals and kinds of gaps not counted.

    Example:
        >>> same_name("Ignore_Region", "ignore region")
        True
    """
    return _plain(name) == _plain(other)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _refuse_duplicates(classes: Sequence[NamedClass]) -> None:
    names = Counter(entry.name for entry in classes)
    values = Counter(entry.value for entry in classes if entry.value is not None)
    for what, counts in (("name", names), ("number", values)):
        twice = [item for item, count in counts.items() if count > 1]
        if twice:
            raise _BrokenError(f"has the {what} {twice[0]!r} more than once; expected each class once")


# ---------------------------------------------------------------------------------------------------- lines of text

_GAP = r"[\s,;:=|]+"
_LINE = re.compile(rf"(?P<before>(?:\d+{_GAP}){{0,4}})(?P<name>.*?)(?P<after>(?:[\s,;:=|(\[]+\d+){{0,4}})\s*[)\]]*\s*")
_HEX = re.compile(r"(?:#|\b0x)([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\b")
_FILE_NAME = re.compile(r"\.(jpe?g|png|tiff?|bmp|gif|webp|txt|xml|json|csv|py)\b", re.IGNORECASE)
_HEADER_WORDS = {"id", "index", "value", "name", "class", "label", "r", "g", "b", "red", "green", "blue", "color"}
_MAX_WORDS = 6  # of a name in a list that holds nothing but names: longer lines are prose


def _from_lines(text: str) -> list[NamedClass]:
    """`name`, `0 name`, `name 0`, `r g b name`, `name: r, g, b` or `0 name r g b` in each line."""
    lines = _without_header([_Line(number, line, *_split_line(line)) for number, line in _lines(text)])
    shape = _common_shape(lines)
    odd = [line for line in lines if line.shape != shape or not line.name]
    if sum(shape) == 0 or (sum(shape) == 1 and odd):
        return _bare_names(lines)  # some of which may end in a number
    if odd:
        raise _BrokenError(f"line {odd[0].number} is {odd[0].text!r}; expected a name and a colour, as in other lines")
    return [_entry(line.name, (*line.before, *line.after), f"line {line.number}") for line in lines]


def _without_header(lines: list["_Line"]) -> list["_Line"]:
    words = re.split(_GAP, lines[0].text.lower())
    return lines[1:] if len(words) > 1 and len(lines) > 1 and set(words) <= _HEADER_WORDS else lines


def _common_shape(lines: Sequence["_Line"]) -> tuple[int, int]:
    """How many numbers stand before and after the name in most lines; (0, 0) where they are parts of names."""
    shape, count = Counter(line.shape for line in lines).most_common(1)[0]
    are_distinct = len({line.name for line in lines}) == len(lines)  # unlike "class 1" and "class 2"
    return shape if sum(shape) in (1, 3, 4) and 2 * count > len(lines) and are_distinct else (0, 0)


@dataclass(frozen=True)
class _Line:
    """A line of text, with the numbers before and after the name in it."""

    number: int
    text: str
    before: tuple[int, ...]
    name: str
    after: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """How many numbers stand before and after."""
        return len(self.before), len(self.after)


def _lines(text: str) -> list[tuple[int, str]]:
    """Number and text of every line that is neither empty nor a comment."""
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    lines = [(number, line) for number, line in stripped if line and (line[0] != "#" or _HEX.match(line))]
    foreign = any(len(line) > _MAX_LENGTH or _FILE_NAME.search(line) for _, line in lines)
    if foreign or not 0 < len(lines) <= _MAX_NAMES:
        raise ValueError
    return lines


def _split_line(line: str) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    """The numbers before a name, the name, and the numbers after it."""
    line = _HEX.sub(lambda match: " ".join(str(int(level, 16)) for level in match.groups()), line)
    match = _LINE.fullmatch(line)
    if match is None:
        return (), line, ()
    before, after = (tuple(map(int, re.findall(r"\d+", match[part]))) for part in ("before", "after"))
    return before, _clean(match["name"]), after


def _entry(name: str, numbers: Sequence[int], where: str) -> NamedClass:
    """A class of one number, the three of a colour, or both."""
    value = numbers[0] if len(numbers) in (1, 4) else None
    color = numbers[-3:] if len(numbers) >= 3 else None
    return NamedClass(name, value, _color(color, where) if color else None)


def _bare_names(lines: Iterable[_Line]) -> list[NamedClass]:
    names = [_clean(line.text) for line in lines]
    repeated = 2 * len(set(names)) <= len(names) > 1  # a label for each picture
    return [NamedClass(name) for name in names] if all(map(_may_be_name, names)) and not repeated else []


def _may_be_name(text: str) -> bool:
    is_short = len(text) <= 64 and len(text.split()) <= _MAX_WORDS
    is_prose = text.endswith((".", "{", "}")) or re.match(r"-?\d+\.\d", text)
    return is_short and not is_prose and re.search(r"[^\W\d_]", text) is not None


def _clean(name: str) -> str:
    return str(name).strip().strip(",;").strip("\"'").strip()


def _color(levels: Iterable[Any], where: str) -> Color:
    levels = list(levels)
    if len(levels) != 3 or not all(isinstance(level, int) and 0 <= level <= 255 for level in levels):
        shown = ", ".join(map(str, levels)) or "nothing"
        raise _BrokenError(f"{where} has the colour {shown}; expected three numbers from 0 to 255")
    return levels[0], levels[1], levels[2]


def _color_of_text(text: str, where: str) -> Color:
    """The colour in `#FF8000`, `255,128,0` or `(255, 128, 0)`."""
    match = _HEX.fullmatch(text.strip()) or _HEX.fullmatch("#" + text.strip())
    if match:
        return _color([int(level, 16) for level in match.groups()], where)
    cells = [cell for cell in re.split(r"[\s,;()\[\]]+", text) if cell]
    return _color([int(cell) if cell.isdigit() else cell for cell in cells], where)


# ------------------------------------------------------------------------------------------------------------ tables

_COLUMNS = {  # the words that head them; the first that is there counts
    "name": ("name", "class name", "label name", "category name", "class", "label", "category", "classes", "labels"),
    "value": ("value", "pixel value", "mask value", "id", "class id", "label id", "index", "class index", "number"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
    "color": ("color", "colour", "rgb", "hex", "color rgb", "rgb color", "color hex", "hex color", "hex code"),
}


def _from_table(text: str) -> list[NamedClass]:
    """A CSV file with names and numbers or colours, its columns in any order."""
    (_, header), *rows = _rows(text)
    columns = {key: index for key, words in _COLUMNS.items() if (index := _column(header, words)) is not None}
    if "name" not in columns or len(columns) == 1:
        return _from_lines(text)
    return [_from_row(row, columns, f"line {number}") for number, row in rows]


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Number and cells of every line that is not empty."""
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    return [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(cell.strip() for cell in row)]


def _column(header: Sequence[str], words: Iterable[str]) -> int | None:
    header = [_plain(cell) for cell in header]
    return next((header.index(word) for word in words if word in header), None)


def _from_row(row: Sequence[str], columns: Mapping[str, int], where: str) -> NamedClass:
    if len(row) <= max(columns.values()):
        raise _BrokenError(f"{where} has {len(row)} cells; expected {max(columns.values()) + 1}, as in the first line")
    cells = {key: row[index] for key, index in columns.items()}
    value, color = cells.get("value"), cells.get("color")
    if {"r", "g", "b"} <= cells.keys():
        color = ",".join(cells[key] for key in "rgb")
    if value is not None and not value.isdigit():
        raise _BrokenError(f"{where} has the number {value!r}; expected a whole number from 0")
    if not cells["name"]:
        raise _BrokenError(f"{where} has no name; expected one")
    return NamedClass(
        _clean(cells["name"]), None if value is None else int(value),
        _color_of_text(color, where) if color else None,
    )  # fmt: skip


def _from_labelmap(text: str) -> list[NamedClass]:
    """CVAT's `label:color_rgb:parts:actions`; other programs' files of this name list names."""
    if not re.search(r"^# *label:color|^[^:\n]+:[^:\n]*:[^:\n]*:", text, re.MULTILINE):
        return _from_lines(text)
    classes = []
    for number, line in _lines(text):
        parts = line.rsplit(":", 3) if line.count(":") >= 3 else line.split(":")
        if len(parts) < 2 or not parts[0].strip():
            raise _BrokenError(f"line {number} is {line!r}; expected label:r,g,b:parts:actions")
        color = _color_of_text(parts[1], f"line {number}") if parts[1].strip() else None
        classes.append(NamedClass(_clean(parts[0]), None, color))
    return classes


# ----------------------------------------------------------------------------------------------------- JSON and YAML


def _from_mapping(mapping: Mapping[Any, Any]) -> list[NamedClass]:
    """`{"0": "wall"}`, `{"wall": 0}`, `{"wall": [120, 120, 120]}` or `{"wall": "#787878"}`."""
    return [_from_item(str(key), value) for key, value in mapping.items()]


def _from_item(key: str, value: Any) -> NamedClass:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return NamedClass(_clean(key), value)
    if isinstance(value, list):
        return NamedClass(_clean(key), None, _color(value, repr(key)))
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    if key.isdigit():
        return NamedClass(_clean(value), int(key))
    return NamedClass(_clean(key), None, _color_of_text(value, repr(key)))


def _from_nnunet(text: str) -> list[NamedClass]:
    """The labels of nnU-Net and the Medical Segmentation Decathlon; regions, which overlap, are no classes."""
    labels = json.loads(text)["labels"]
    if any(isinstance(value, list) for value in labels.values()):
        return []
    return _from_mapping(labels)


def _from_json_mapping(text: str) -> list[NamedClass]:
    return _from_mapping(json.loads(text))


def _from_supervisely(text: str) -> list[NamedClass]:
    """`{"classes": [{"title": "wall", "color": "#787878"}]}`."""
    entries = json.loads(text)["classes"]
    return [NamedClass(_clean(e["title"]), None, _color_of_text(e["color"], repr(e["title"]))) for e in entries]


def _from_classes_json(text: str) -> list[NamedClass]:
    """Supervisely's form, a list of names, entries with `name` and `id` or `color`, or a mapping."""
    data = json.loads(text)
    if isinstance(data, dict) and "source" in data and "ignored" in data:
        return []  # our own: given as a palette
    if isinstance(data, dict):
        data = data.get("classes", data)
    if isinstance(data, dict):
        return _from_mapping(data)
    return [NamedClass(_clean(e)) if isinstance(e, str) else _from_json_entry(e) for e in data]


def _from_json_entry(entry: Mapping[str, Any]) -> NamedClass:
    name = entry.get("title") or entry["name"]
    color = entry.get("color")
    if isinstance(color, list):
        color = ",".join(map(str, color))
    value = entry.get("id", entry.get("value")) if "name" in entry else None  # Supervisely's are those of its database
    return NamedClass(_clean(name), value, _color_of_text(color, repr(name)) if color else None)


def _from_label_studio(text: str) -> list[NamedClass]:
    """`{"categories": [{"id": 0, "name": "wall"}]}`; the ids count objects, without a background."""
    entries = sorted(json.loads(text)["categories"], key=lambda entry: entry["id"])
    return [NamedClass(_clean(entry["name"])) for entry in entries]


def _from_yolo(text: str) -> list[NamedClass]:
    """`names: [wall, door]` or `names: {0: wall, 1: door}`."""
    import yaml  # few folders have such a file

    try:
        names = yaml.safe_load(text)["names"]
    except yaml.YAMLError:
        return []
    if isinstance(names, dict):
        names = [names[number] for number in range(len(names))]
    return [NamedClass(_clean(name)) for name in names]


# What files that name classes are called, in small letters, the particular before the general.
_PARSERS: dict[str, Callable[[str], list[NamedClass]]] = {
    "_classes.csv": _from_table,  # Roboflow
    "*class*dict*.csv": _from_table,
    "*class*color*.csv": _from_table,
    "*label*color*.csv": _from_table,
    "classes.csv": _from_table,
    "labelmap.txt": _from_labelmap,  # CVAT, Datumaro
    "label_colo*.txt": _from_lines,  # CamVid
    "label_names.txt": _from_lines,  # labelme
    "class_names.txt": _from_lines,
    "classes.txt": _from_lines,
    "labels.txt": _from_lines,
    "codes.txt": _from_lines,  # fastai's CamVid
    "*.names": _from_lines,  # darknet
    "data.yaml": _from_yolo,
    "data.yml": _from_yolo,
    "dataset.json": _from_nnunet,
    "notes.json": _from_label_studio,
    "meta.json": _from_supervisely,
    "classes.json": _from_classes_json,
    "obj_class_to_machine_color.json": _from_json_mapping,  # Supervisely
    "id2label.json": _from_json_mapping,  # Hugging Face
    "label2id.json": _from_json_mapping,
}
_OBJECTS_ONLY = ("*.names", "data.y*ml", "notes.json")


def _parser(path: Path) -> Callable[[str], list[NamedClass]] | None:
    name = path.name.lower()
    return next((parser for pattern, parser in _PARSERS.items() if fnmatch(name, pattern)), None)
