"""What the readers of annotation files have in common: the files, made safe to open, and checks of what is in them."""

import base64
import binascii
import gc
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from semseg.errors import DataError, first_line
from semseg.labels.drawings import MAX_COORDINATE, Drawing, Shape, count_outside, extents_of
from semseg.labels.outlines import rectangle_ring
from semseg.labels.palettes import Color

MAX_BYTES = 2 << 30  # of a file: COCO's largest has .5 GB
_MAX_LIST_BYTES = 64 << 20  # of one list of numbers: some four million points
_STEP, _LOOK = 32 << 20, 1 << 16  # bytes between looks into a file, and of each
_MAX_TEXT_BYTES = 256 << 20  # of an XML file, which needs many times its size in memory
_MAX_BITMAP_PIXELS = 1 << 28
IGNORED = {"__ignore__", "ignore", "ignored", "void"}  # names of areas that count nowhere, in every format
_NO_CLASS = re.compile(r"(^|_|:)(id|fid|gid|uuid|objectid|area|length|perimeter|score|confidence|color)$")
_CLASS_WORDS = (
    "class",
    "classification",
    "label",
    "category",
    "type",
    "object",
    "name",
)  # what the attribute of the class is called
GROUND = {"_background_", "__background__", "background"}  # names of what lies below all others


@dataclass
class Annotations:
    """What one annotation file says.

    Attributes:
        path: The file.
        drawings: By the photo's name, as the file has it.
        classes: Names of the classes that it declares, in their order, with a colour where it gives one.
        left_out: What was left out or is unusual, in words, and how often.
        splits: The split of those photos for which the file says one.
        outlines: How many areas have an outline or run lengths.
        rectangles: How many are plain rectangles that somebody drew.
        holds_photo: Whether the file holds its photo's picture, too.
        boxes: How many objects have a box around them, and nothing that says which pixels in it are theirs.
    """

    path: Path
    drawings: dict[str, Drawing] = field(default_factory=dict)
    classes: dict[str, Color | None] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    splits: dict[str, str] = field(default_factory=dict)
    outlines: int = 0
    rectangles: int = 0
    boxes: int = 0
    holds_photo: bool = False

    def add(self, photo: str, shapes: Iterable[Shape], size: tuple[int, int] | None, **options: Any) -> None:
        """Adds what is drawn on a photo.

        Args:
            photo: Its name in the file.
            shapes: In the order of drawing.
            size: (height, width), where it is known.
            **options: Further attributes of the `Drawing`.

        Raises:
            DataError: The file has said something of this photo before.
        """
        if photo in self.drawings:
            raise DataError(f"{self.path}: names {photo!r} twice; expected each photo once: remove one entry")
        place = f"{self.path} ({photo})" if Path(photo).stem != self.path.stem else str(self.path)
        drawing = Drawing(tuple(shapes), size=size, place=place, **options)
        self._look_at_extents(drawing)
        self.drawings[photo] = drawing

    def _look_at_extents(self, drawing: Drawing) -> None:
        """Counts areas outside of their photo.

        Raises:
            DataError: Coordinates are shares where pixels are expected.
        """
        low, high = extents_of(drawing.shapes)
        if drawing.in_shares or not len(low):
            return
        if low.min() >= 0 and high.max() <= 1 and drawing.size != (1, 1):
            raise DataError(
                f"{drawing.place}: all coordinates lie from 0 to 1, like shares of the photo's size; expected pixels: "
                "multiply them by its width and height"
            )
        outside = count_outside(low, high, drawing.size[::-1]) if drawing.size else 0
        if outside:
            self.left_out["areas outside of their photo, left out"] += outside

    def label_or_none(self, name: Any, place: str) -> str | None:
        """As `label`; None, which is counted, where nobody has named the class yet."""
        if name is None or name == "":
            self.left_out["areas without a class count nowhere"] += 1
            return None
        return self.label(name, place)

    def label(self, name: Any, place: str) -> str | None:
        """The name of a class as it is meant: None where its pixels count nowhere.

        Raises:
            DataError: It is no text, or empty.
        """
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{place}: got {name!r} as the name of a class; expected some text")
        name = name.strip()
        if name.lower() in IGNORED:
            self.left_out[f"areas called {name} count nowhere"] += 1
            return None
        return "background" if name.lower() in GROUND else name


# --------------------------------------------------------------------------------------------------- files as values


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """A whole file, unless it is larger than any that was meant.

    Raises:
        DataError: It is, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > most:
            raise DataError(f"{path}: has {size >> 20} MB; expected at most {most >> 20}: split it by photos")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); mend or remove it") from None


def load_text(path: Path, most: int = _MAX_TEXT_BYTES) -> str:
    """A text file; errors as of `read_bytes`, and for bytes that are no UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 (byte {error.start}); save it as such") from None


def load_json(path: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The values in a JSON file.

    Args:
        path: The file.
        change: Called with each object, and gives what takes its place, to save memory.

    Raises:
        DataError: It is cut or damaged, too large, or holds lists without end.
    """
    data = read_bytes(path)
    _refuse_long_lists(path, data)
    was_collecting = gc.isenabled()
    gc.disable()  # it would look at all values again and again, of which none is garbage
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant, object_hook=change)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 (byte {error.start}); save it as such") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: {error.msg}; is it cut? Export it again") from None
    except RecursionError:
        raise DataError(f"{path}: nests lists or objects deeper than any annotation; export it again") from None
    except ValueError as error:
        raise DataError(f"{path}: {first_line(error)}; export it again") from None
    finally:
        if was_collecting:
            gc.enable()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"holds {name}, which is no number")


def _refuse_long_lists(path: Path, data: bytes) -> None:
    """Raises a `DataError` for more numbers in a row than an outline can have: in memory they take much more."""
    for start in range(0, len(data), _STEP):
        look = data[start : start + _LOOK]
        if b'"' in look or b"," not in look:
            continue
        begin, end = data.rfind(b'"', 0, start), data.find(b'"', start)
        if (end if end >= 0 else len(data)) - begin > _MAX_LIST_BYTES:
            line = data.count(b"\n", 0, max(begin, 0)) + 1
            raise DataError(f"{path}: line {line}: holds an outline of millions of points; simplify it")


def load_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        DataError: It is cut or damaged, too large, or defines entities, which may unpack to gigabytes.
    """
    data = read_bytes(path, _MAX_TEXT_BYTES)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data or b"\x00" in data[:4]:
        raise DataError(f"{path}: defines a document type or entities, which no annotation needs; export it again")
    if _depth_of_xml(data) > 64:
        raise DataError(f"{path}: nests elements deeper than any annotation; export it again")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: {first_line(error)}; is it cut? Export it again") from None


def _depth_of_xml(data: bytes) -> int:
    depth = deepest = 0
    for tag in re.finditer(rb"<(/?)[A-Za-z][^<>]*?(/?)>", data):
        depth += 0 if tag[2] else -1 if tag[1] else 1
        deepest = max(deepest, depth)
    return deepest


# -------------------------------------------------------------------------------------------------- checks of values


def as_dict(value: Any, place: str) -> dict[str, Any]:
    """The value itself; a `DataError` unless it is a JSON object."""
    if not isinstance(value, dict):
        raise DataError(f"{place}: got {_shown(value)}; expected an object with names and values")
    return value


def as_list(value: Any, place: str) -> list[Any]:
    """The value itself; a `DataError` unless it is a list."""
    if not isinstance(value, list):
        raise DataError(f"{place}: got {_shown(value)}; expected a list")
    return value


def get_key(values: Mapping[str, Any], name: str, place: str) -> str | int:
    """A number or text by its name; a `DataError` for anything else."""
    key = get(values, name, place)
    if not isinstance(key, str | int):
        raise DataError(f"{place}: got {_shown(key)} as {name!r}; expected a number or text")
    return key


def get(values: Mapping[str, Any], name: str, place: str) -> Any:
    """A value by its name; a `DataError` where it is missing."""
    if name not in values:
        raise DataError(f"{place}: has no {name!r}; is it of another format or version? Export it again")
    return values[name]


def as_size(height: Any, width: Any, place: str) -> tuple[int, int] | None:
    """(height, width) of a photo; None where both are missing or 0.

    Raises:
        DataError: They are no whole numbers from 1 on.
    """
    if not height and not width:
        return None
    try:
        size = int(height), int(width)
        if size == (float(height), float(width)) and min(size) > 0 and max(size) < MAX_COORDINATE:
            return size
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{place}: got the size {_shown(width)} x {_shown(height)}; expected whole numbers of pixels")


def as_points(values: Any, place: str) -> np.ndarray:
    """(x, y) of points, float64 `(P, 2)`, from a list of pairs or of numbers in turn.

    Raises:
        DataError: They are no numbers, no pairs, or beyond any photo.
    """
    try:
        points = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{place}: got {_shown(values)}; expected coordinates x and y in turn") from None
    if points.ndim == 0:
        raise DataError(f"{place}: got {_shown(values)}; expected coordinates x and y in turn")
    if points.ndim == 1 and len(points) % 2:
        raise DataError(f"{place}: has {len(points)} coordinates; expected x and y in turn, an even number")
    if points.size and points.ndim > 1 and points.shape[1:] != (2,):
        raise DataError(f"{place}: got {_shown(values)}; expected a pair of x and y for each point")
    points = points.reshape(-1, 2)
    if points.size and not np.abs(points).max() <= MAX_COORDINATE:
        raise DataError(f"{place}: has coordinates that are no finite number, or beyond any photo; redraw it")
    return points


def hex_color(text: Any) -> Color | None:
    """A colour such as `#fa3253`; None for anything else."""
    try:
        red, green, blue = bytes.fromhex(str(text or "").removeprefix("#"))
    except ValueError:
        return None
    return red, green, blue


def as_number(value: Any, place: str) -> float:
    """A finite number within the range of coordinates; a `DataError` for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not abs(number) <= MAX_COORDINATE:
        raise DataError(f"{place}: got {_shown(value)}; expected a number")
    return number


def attribute_of_class(regions: Sequence[Mapping[str, Any]], path: Path) -> str | None:
    """Which of the attributes that people gave to regions tells the class.

    Args:
        regions: The attributes of each region.
        path: The file, for the message.

    Returns:
        The only one, or the first of several that is called as classes are; None where there are none.

    Raises:
        DataError: There are several, none of which is called so.
    """
    given = [(name, value) for attributes in regions for name, value in attributes.items()]
    names = [name for name in dict.fromkeys(name for name, _ in given) if not _NO_CLASS.search(name.lower())]
    measures = {name for name, value in given if isinstance(value, float)}
    names = [name for name in names if name not in measures]
    if len(names) <= 1 or _agree(regions, names):
        return names[0] if names else None
    for word in _CLASS_WORDS:
        for name in names:
            if word in re.split(r"[^a-z]+", name.lower()):
                return name
    raise DataError(
        f"{path}: gives its regions the attributes {', '.join(names[:8])}; call the one that is the class `class`"
    )


def _agree(regions: Iterable[Mapping[str, Any]], names: Sequence[str]) -> bool:
    """Whether attributes say the same of every region that has any of them."""
    return all(len({str(region.get(name)) for name in names}) == 1 for region in regions if region.keys() & set(names))


def outline(annotations: Annotations, label: str | None, points: np.ndarray) -> list[Shape]:
    """The shape with this outline; none, which is counted, where it has fewer than three points."""
    if len(points) < 3 or (len(points) < 5 and len(set(map(tuple, points.tolist()))) < 3):
        annotations.left_out["outlines of fewer than 3 points, left out"] += 1
        return []
    annotations.outlines += 1
    return [Shape(label, (points,))]


def box(annotations: Annotations, x: float, y: float, width: float, height: float) -> Shape:
    """The area in which an object lies of which only the box is known: its pixels count nowhere."""
    annotations.boxes += 1
    annotations.left_out["boxes without an outline count nowhere"] += 1
    return Shape(None, (rectangle_ring((x, y), (x + width, y + height)),))


def decode_bitmap(text: Any, place: str) -> np.ndarray:
    """The picture in base64 that a file holds, as Pillow's array.

    Raises:
        DataError: It is none, or unreasonably large.
    """
    try:
        return open_bitmap(base64.b64decode(text, validate=False), place)
    except (TypeError, ValueError, binascii.Error):
        raise DataError(f"{place}: holds no picture in base64; export it again") from None


def open_bitmap(data: bytes, place: str) -> np.ndarray:
    """The pixels of a picture in memory; errors as of `decode_bitmap`."""
    try:
        with Image.open(BytesIO(data), formats=("PNG", "BMP", "JPEG")) as image:
            if image.width * image.height > _MAX_BITMAP_PIXELS:
                raise DataError(f"{place}: holds a picture of {image.width}x{image.height} pixels; export it again")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place}: holds a picture that cannot be read ({first_line(error)})") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:40]} ..." if len(text) > 44 else text
