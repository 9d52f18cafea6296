"""Gives the classes that were found in masks the names that a file beside them tells."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from semseg import IGNORE
from semseg.data.finding.class_files import ClassFile, NamedClass, same_name
from semseg.errors import DataError
from semseg.labels.palettes import Color, Label, Palette, squared_distances

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_VOC_BORDER = (224, 224, 192)
_NEAR = 12.0  # levels: masks that were compressed or resized hold colours about the file's
_CODES = ("cityscapes", "camvid", "voc", "ade20k", "binary")  # palettes that also hold what no mask shows
_BACKGROUNDS = ("background", "backgroud", "bg", "back ground")
_UNLABELED = ("unlabeled", "unlabelled", "void")
_RESTS = (*_UNLABELED, "ignore", "other", "others", "none", "unknown", "clutter", "negative")
_MAX_SHOWN = 8
_SETTLE = "or give `palette`, and files beside the masks are not asked"

Names = dict[int, NamedClass]  # by the class ids of a palette


def apply_names(palette: Palette, files: Sequence[ClassFile]) -> tuple[Palette, list[str]]:
    """Names the classes of masks after a file that lies beside them.

    A file that gives colours goes by these where masks hold colours; one that gives numbers goes by these where masks
    hold numbers. A list of bare names counts from 0 if it names a background first or what is not labelled, or has
    exactly as many names as there are numbers; from 1 if its last name is that of the highest number then, so that 0 is
    the background; else it is not used.
    What a file lists and no mask holds is no class; what masks hold must be listed, black and 0 (then the background)
    and the border of Pascal VOC (then ignored) left aside.

    Args:
        palette: What was found in the masks of all splits.
        files: From `read_side_files`.

    Returns:
        The palette with other names, in colour masks in the order of the file with the background first, and sentences
        that say what was done.

    Raises:
        DataError: No file fits and one contradicts the masks, or two fit and contradict each other.

    Example:
        >>> from pathlib import Path
        >>> file = ClassFile(Path("classes.txt"), (NamedClass("background"), NamedClass("bolt")))
        >>> palette, notes = apply_names(Palette.numbered(2), [file])
        >>> palette.names, notes
        (('background', 'bolt'), ['class names from classes.txt: 0 background, 1 bolt'])
    """
    masks, readings, unused, faults = _Masks(palette), [], [], []
    for file in files:
        try:
            readings.append(_read(masks, file))
        except _UnusedError as reason:
            unused.append(f"{file.path}: not used for names: {reason}")
        except DataError as error:
            faults.append(error)
    exact = [reading for reading in readings if not reading.is_bare] or readings
    if not exact:
        if faults:
            raise faults[0]
        return palette, unused
    _refuse_contradictions(masks, exact)
    ignored = [str(error).split("; ")[0] + "; not used for names" for error in faults]
    named = _renamed(masks, exact[0])
    return named, [exact[0].sentence(masks, named), *unused, *ignored]


class _UnusedError(Exception):
    """Why a file that contradicts nothing says nothing about these masks."""


class _Masks:
    """The classes that masks hold.

    Attributes:
        palette: As it was found.
        labels: The first label of every class, by id.
        numbers: What a file may call the number of a class, by id; empty where masks hold colours.
        is_code: Whether the palette is a well-known one, so that masks may lack some of its classes.
    """

    def __init__(self, palette: Palette):
        self.palette, self.labels = palette, _classes_of(palette)
        self.is_code = palette.source in _CODES
        self.numbers = {}
        if palette.source == "binary" or _unites_values(palette):
            self.numbers = {label_id: label_id for label_id in self.labels}
        elif palette.holds_values:
            self.numbers = {label_id: int(label.value or 0) for label_id, label in self.labels.items()}

    @property
    def is_binary(self) -> bool:
        """Whether they hold 0 and 1, or 0 and 255, which say the same."""
        return sorted(self.numbers.values()) in ([0, 1], [0, IGNORE])

    def shown(self, ids: Iterable[int]) -> str:
        """The numbers or colours of classes, for messages."""
        ids = list(ids)
        by_number = bool(self.numbers) and self.palette.source != "binary"
        items = [str(self.numbers[i]) if by_number else str(self.labels[i].color).replace(" ", "") for i in ids]
        return f"{'number' if by_number else 'colour'}{'s' * (len(items) > 1)} {_joined(items)}"


def _classes_of(palette: Palette) -> dict[int, Label]:
    """The first label of every class, by rising id."""
    firsts = {label.id: label for label in reversed(palette.labels) if label.id != IGNORE}
    return dict(sorted(firsts.items()))


def _unites_values(palette: Palette) -> bool:
    """Whether several numbers are one class, as where each object has its own."""
    classes = [label for label in palette.labels if label.id != IGNORE]
    return palette.holds_values and len(classes) > palette.num_classes


@dataclass
class _Reading:
    """What a file says of the masks.

    Attributes:
        file: The file.
        names: What it calls the classes.
        remarks: What was added to it, for the note.
    """

    file: ClassFile
    names: Names
    remarks: list[str] = field(default_factory=list)

    @property
    def is_bare(self) -> bool:
        """Whether only the order of names tells what they belong to."""
        return not self.file.tells_values and not self.file.tells_colors

    def sentence(self, masks: _Masks, named: Palette) -> str:
        """What is said aloud of the palette that got its names."""
        labels = _classes_of(named).values()
        shown = [label.name if label.value is None else f"{label.value} {label.name}" for label in labels]
        parts = [f"class names from {self.file.path.name}: {_joined(shown, 3 * _MAX_SHOWN)}", *self.remarks]
        outside = _named_outside(masks.palette, self.file)
        ignored = [entry.name for entry in self.names.values() if entry.ignored] + [entry.name for entry in outside]
        if ignored:
            parts.append(f"{_joined(ignored)} {_are(ignored)} ignored")
        absent = self._absent({*self.names.values(), *outside})
        if absent and not masks.is_code:
            parts.append(f"{_joined(absent)} {_are(absent)} in no mask")
        return "; ".join(parts)

    def _absent(self, held: set[NamedClass]) -> list[str]:
        return [entry.name for entry in self.file.classes if entry not in held and not entry.ignored]


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _named_outside(palette: Palette, file: ClassFile) -> list[NamedClass]:
    """What a file calls things that are no class in any case, such as 255."""
    return [entry for label in palette.labels if (entry := _ignored_name(label, file))]


def _joined(names: Sequence[str], max_shown: int = _MAX_SHOWN) -> str:
    rest = f" and {len(names) - max_shown} more" if len(names) > max_shown else ""
    return ", ".join(names[:max_shown]) + rest


def _listed(file: ClassFile) -> str:
    return _joined([entry.name for entry in file.classes])


def _read(masks: _Masks, file: ClassFile) -> _Reading:
    """Says which entry of a file each class is.

    Raises:
        DataError: The file contradicts the masks.
        _UnusedError: It says nothing about them.
    """
    reading = _Reading(file, _by_what_it_tells(masks, file))
    _add_unlisted(masks, reading)
    if sum(not entry.ignored for entry in reading.names.values()) < 2:  # a background that is called "void"
        reading.names = {i: replace(entry, ignored=False) for i, entry in reading.names.items()}
    if len(set(reading.names.values())) < 2:
        raise _UnusedError("fewer than two of its classes are in the masks")
    return reading


def _by_what_it_tells(masks: _Masks, file: ClassFile) -> Names:
    if file.tells_colors and not masks.palette.holds_values:
        return _by_color(masks, file)
    if not masks.numbers:
        raise _UnusedError("it tells no colours, and the masks hold colours")
    if file.tells_colors and not file.tells_values:
        return _by_shown_color(masks, file)
    if masks.palette.source == "cityscapes":
        raise _UnusedError("the masks hold the numbers of Cityscapes, whose names are known")
    return _by_number(masks, file) if file.tells_values else _by_order(masks, file)


# --------------------------------------------------------------------------------------------------------- by number


def _by_number(masks: _Masks, file: ClassFile) -> Names:
    table = {entry.value: entry for entry in file.classes if entry.value is not None}
    numbers = masks.numbers
    if masks.is_binary and len(table) <= 2:
        high = IGNORE if IGNORE in table else 1
        numbers = {i: high * number for i, number in _as_0_and_1(masks).items()}
    return {i: table[number] for i, number in numbers.items() if number in table}


def _by_order(masks: _Masks, file: ClassFile) -> Names:
    names, numbers = file.classes, _as_0_and_1(masks) if len(file.classes) <= 2 else masks.numbers
    held = sorted(numbers.values())
    if held[-1] < len(names) and _counts_from_0(file, held):
        return {i: names[number] for i, number in numbers.items()}
    if held[-1] == len(names) and not _names_rest(names[0]):
        return {i: names[number - 1] for i, number in numbers.items() if number}
    text = masks.shown(masks.labels)
    if _are_too_few(names, held):
        raise DataError(f"{file.path}: lists {_listed(file)}, and the masks hold the {text}; list all, {_SETTLE}")
    raise _UnusedError(
        f"it lists {len(names)} names, and the masks hold the {text}: which is which is not clear; write the number "
        "before each name to use it"
    )


def _as_0_and_1(masks: _Masks) -> dict[int, int]:
    """The numbers of classes, where 255 stands for 1 beside 0."""
    return {i: min(number, 1) for i, number in masks.numbers.items()} if masks.is_binary else masks.numbers


def _are_too_few(names: Sequence[NamedClass], held: Sequence[int]) -> bool:
    """Whether some numbers have no name, however these are counted."""
    counts_on = list(held) == list(range(len(held)))
    return len(held) > len(names) + 1 or (counts_on and len(held) > len(names))


def _counts_from_0(file: ClassFile, numbers: Sequence[int]) -> bool:
    """Whether a list of names has one for number 0."""
    names = file.classes
    if any(_is_any_of(entry, _BACKGROUNDS) for entry in names[1:]):
        return False  # by the alphabet, perhaps
    if _names_rest(names[0]) or any(_is_any_of(entry, _UNLABELED) for entry in names):
        return True
    return not file.lists_objects and len(names) > 2 and numbers == list(range(len(names)))


def _names_rest(entry: NamedClass) -> bool:
    """Whether a name is that of a background, or of what nobody labelled."""
    negated = re.match(r"(no|non|not)[\s_-]", entry.name, re.IGNORECASE)
    return _is_any_of(entry, (*_BACKGROUNDS, *_RESTS)) or negated is not None


def _is_any_of(entry: NamedClass, names: Iterable[str]) -> bool:
    return any(same_name(entry.name.strip("_"), name) for name in names)


# --------------------------------------------------------------------------------------------------------- by colour


def _by_color(masks: _Masks, file: ClassFile) -> Names:
    limit = _NEAR if masks.palette.blended else 0.0
    return _nearest(file, {i: label.color for i, label in masks.labels.items()}, limit)


def _by_shown_color(masks: _Masks, file: ClassFile) -> Names:
    """Masks of numbers and a file of colours: those that palette images show, or greys that stand for numbers."""
    shown = _nearest(file, {i: label.color for i, label in masks.labels.items()}, 0)
    if any(len(set(entry.color or ())) > 1 for entry in shown.values()):
        return shown
    greys = _nearest(file, _greys_of_numbers(masks, file), 0)
    for names in (shown, greys):
        unnamed = [number for i, number in masks.numbers.items() if i not in names]
        if not any(unnamed):  # 0 may be a background that is not listed
            return names
    raise _UnusedError("it tells colours only, and the masks hold numbers")


def _greys_of_numbers(masks: _Masks, file: ClassFile) -> dict[int, Color]:
    if masks.is_binary and {entry.color for entry in file.classes} <= {_BLACK, _WHITE}:
        return {i: _WHITE if number else _BLACK for i, number in masks.numbers.items()}
    return {i: (number, number, number) for i, number in masks.numbers.items()}


def _nearest(file: ClassFile, colors: Mapping[int, Color], limit: float) -> Names:
    """The entry whose colour is nearest to each of these, if it is as near as `limit` levels."""
    entries = [entry for entry in file.classes if entry.color is not None]
    listed = np.array([entry.color for entry in entries])
    names: Names = {}
    for i, color in colors.items():
        squared = squared_distances(np.array([color]), listed)[0]
        fitting = [entries[j] for j in np.flatnonzero(squared == squared.min())]
        if squared.min() > limit**2:
            continue
        if len(fitting) > 1:
            text = " and ".join(entry.name for entry in fitting)
            raise DataError(f"{file.path}: {text} have one colour, {fitting[0].color}; give each its own, {_SETTLE}")
        names[i] = fitting[0]
    return names


# ----------------------------------------------------------------------------------------- what the file leaves open


def _add_unlisted(masks: _Masks, reading: _Reading) -> None:
    """Names what masks hold and the file does not list, where that can only be one thing."""
    refused = []
    for i in masks.labels.keys() - reading.names.keys():
        entry = _implied(masks, reading.file, i)
        if entry is None:
            refused.append(i)
            continue
        reading.names[i] = entry
        if not masks.is_code:
            reading.remarks.append(f"the {masks.shown([i])}, not listed there, is {entry.name}")
    reading.names = dict(sorted(reading.names.items()))
    may_lack_some = masks.is_code and not masks.palette.holds_values
    if refused and not (may_lack_some and len(reading.names) > 1):
        _refuse_unlisted(masks, reading.file, sorted(refused))


def _implied(masks: _Masks, file: ClassFile, label_id: int) -> NamedClass | None:
    """What a class can only be that a file does not list; None if that is open, or the name is taken."""
    entry = _unlisted_name(masks, label_id)
    taken = entry is not None and any(same_name(entry.name, listed.name) for listed in file.classes)
    return None if taken else entry


def _unlisted_name(masks: _Masks, label_id: int) -> NamedClass | None:
    label, number = masks.labels[label_id], masks.numbers.get(label_id)
    if number == 0 or (number is None and label.color == _BLACK):
        return NamedClass("background")
    if number is None and label.color == _VOC_BORDER:
        return NamedClass("border", ignored=True)
    if masks.is_code and masks.palette.holds_values:
        return NamedClass(label.name)
    return None


def _refuse_unlisted(masks: _Masks, file: ClassFile, unlisted: Sequence[int]) -> None:
    swapped = ""
    if not masks.palette.holds_values:
        colors = {i: masks.labels[i].color[::-1] for i in unlisted}
        if len(_nearest(file, colors, 0)) == len(unlisted):
            swapped = " (they fit with red and blue swapped)"
    what, them = masks.shown(unlisted), "them" if len(unlisted) > 1 else "it"
    raise DataError(
        f"{file.path}: lists {_listed(file)}, and not the {what} that the masks hold{swapped}; list {them} there, "
        f"{_SETTLE}"
    )


def _refuse_contradictions(masks: _Masks, readings: Sequence[_Reading]) -> None:
    first = readings[0]
    for other in readings[1:]:
        for i in first.names.keys() & other.names.keys():
            names = first.names[i].name, other.names[i].name
            if not same_name(*names):
                raise DataError(
                    f"{first.file.path}: calls the {masks.shown([i])} {names[0]}, and {other.file.path} calls it "
                    f"{names[1]}; mend or remove one of them, {_SETTLE}"
                )


# -------------------------------------------------------------------------------------------------------- the result


def _renamed(masks: _Masks, reading: _Reading) -> Palette:
    palette, names = masks.palette, reading.names
    classes = list(dict.fromkeys(names[i] for i in _order(masks, reading)))
    use_colors = _can_show_colors(masks, reading)
    labels: dict[tuple[int | None, Color | None], Label] = {}  # clusters that are near one listed colour are one
    for label in palette.labels:
        entry = names.get(label.id, _ignored_name(label, reading.file))
        if entry is not None:
            new_id = classes.index(entry) if entry in classes else IGNORE
            color = entry.color if use_colors and entry.color else label.color
            label = replace(label, name=entry.name, id=new_id, color=color)
        if entry is not None or label.id == IGNORE:
            labels.setdefault((label.value, label.color if label.value is None else None), label)
    ordered = sorted(labels.values(), key=lambda label: label.id)
    return replace(palette, labels=tuple(ordered), source=_source(palette, ordered))


def _order(masks: _Masks, reading: _Reading) -> list[int]:
    """The ids of the classes that stay, in their new order: by number, or in the file's with the background first."""
    ids = [i for i, entry in reading.names.items() if not entry.ignored]
    if masks.numbers:
        return ids
    entries = list(reading.file.classes)

    def place(i: int) -> tuple[bool, int]:
        entry = reading.names[i]
        is_background = _is_any_of(entry, _BACKGROUNDS) or _BLACK in (entry.color, masks.labels[i].color)
        return not is_background, entries.index(entry) if entry in entries else -1

    return sorted(ids, key=place)


def _ignored_name(label: Label, file: ClassFile) -> NamedClass | None:
    """What a file calls something that is ignored in any case; None for classes."""
    if label.id != IGNORE:
        return None
    if label.value is not None:
        return next((entry for entry in file.classes if entry.value == label.value), None)
    return next((entry for entry in file.classes if entry.color == label.color), None)


def _can_show_colors(masks: _Masks, reading: _Reading) -> bool:
    """Whether pictures can show the file's colours: all different, and not black and white, which hide the photo."""
    colors = [entry.color for entry in reading.names.values() if entry.color is not None]
    if not masks.palette.holds_values:
        return True
    grey = all(len(set(color)) == 1 for color in colors)
    return len(set(colors)) == len(colors) == len(reading.names) and not grey


def _source(palette: Palette, labels: Sequence[Label]) -> str:
    """The name of a well-known code stays only while its classes do."""
    names = [label.name for label in labels if label.id != IGNORE]
    same = len(names) == palette.num_classes and all(map(same_name, names, palette.names))
    if same or palette.holds_values or palette.source not in _CODES:
        return palette.source
    return "k-means" if palette.blended else "exact"
