"""What the numbers in masks mean: ids of classes, grey levels, slips of the pen, and the well-known codes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from semseg import IGNORE
from semseg.errors import DataError
from semseg.labels.known_palettes import ADE20K, CAMVID_11
from semseg.labels.palettes import (
    MAX_CLASSES,
    MAX_VALUE,
    MIN_MATCHES,
    Color,
    Label,
    Palette,
    distinct_color,
    known_palettes,
    listed,
    suffices,
)

_BLACK_AND_WHITE = {(0, 0, 0), (255, 255, 255)}
MIN_GREY_LEVEL = 64  # numbers below this are taken for ids; 128 or 200 are grey levels that somebody chose to see
_MIN_STEP = 5  # grey levels lie farther apart than this in the mean, ids do not


def palette_of_values(
    held: Iterable[int],
    colors: Mapping[int, Color] | None = None,
    num_classes: int | None = None,
) -> Palette:
    """Says what the numbers in a set of masks mean.

    255 is ignored beside ids such as 0, 1, 2; it is a class where the others are grey levels, as in 0 and 255, or in
    0, 32, 64 ... 255.

    Args:
        held: Every number that they hold, those that are slips of the pen left out.
        colors: What palette images show for a number; well-known colours name their classes.
        num_classes: How many classes there are, also such as these masks do not hold; None to go by the masks.

    Returns:
        The palette, with classes by rising number, or in the order of the well-known code.

    Raises:
        DataError: Fewer than two classes, more than 253, or another number than was given.

    Example:
        >>> palette = palette_of_values([0, 1, 255])
        >>> palette.names, palette.labels[-1].name, palette.labels[-1].value
        (('background', 'foreground'), 'ignored', 255)
    """
    values = _class_values(set(held), num_classes)
    if len(values) < 2:
        raise DataError(
            f"masks: hold {listed(sorted(set(held)))} only; two classes or more are needed: check the masks"
        )
    if len(values) > MAX_CLASSES:
        raise DataError(
            f"masks: hold {len(values)} different numbers, {listed(values)}; at most {MAX_CLASSES} classes can be "
            "told apart; if the numbers count objects, pass `instances` to read all above 0 as one class"
        )
    labels = _labels_of_values(values, _usable_colors(values, colors or {}))
    if IGNORE not in values:
        labels.append(Label("ignored", IGNORE, (0, 0, 0), IGNORE))
    return Palette(tuple(labels), "values")


def _class_values(held: set[int], num_classes: int | None) -> list[int]:
    """The numbers that are classes, rising: without 255 where it means ignored."""
    values = sorted(held - {IGNORE})
    in_row = {IGNORE - 1, IGNORE + 1} <= held
    if IGNORE in held and (len(values) < 2 or in_row or _are_grey_levels(values)):
        values = sorted([*values, IGNORE])
    if values and not 0 <= values[0] <= values[-1] < MAX_VALUE:
        raise DataError(f"masks: hold {listed(values)}; expected numbers of classes, 0 to {MAX_VALUE - 1}")
    return _as_many_as(num_classes, values) if num_classes else values


def _are_grey_levels(values: Sequence[int]) -> bool:
    """Whether rising numbers were chosen to be seen: large ones, and far apart."""
    return values[-1] >= MIN_GREY_LEVEL and values[-1] >= _MIN_STEP * len(values)


def _usable_colors(values: Sequence[int], colors: Mapping[int, Color]) -> Mapping[int, Color]:
    """What palette images show for numbers; nothing where two of these share a colour, or have none."""
    return colors if len({colors.get(value) for value in values}) == len(values) else {}


def _labels_of_values(values: Sequence[int], shown: Mapping[int, Color]) -> list[Label]:
    """A label for each number, named and coloured by the colours `shown` for them, where these are well known."""
    names = ("background", "foreground") if len(values) == 2 else [f"class_{value}" for value in values]
    known = _labels_of_colors(shown.get(value) for value in values)
    if known:  # the order of the code, so that black is the background
        values = sorted(values, key=lambda value: (known[shown[value]].id, value))
    labels: list[Label] = []
    next_id = 0
    for value, name in zip(values, names, strict=True):
        color = shown.get(value)
        label = known.get(color, Label(name, 0, color or distinct_color(next_id)))
        if set(shown.values()) == _BLACK_AND_WHITE:  # which would hide the photo
            label = replace(label, color=distinct_color(next_id))
        is_class = label.id != IGNORE
        labels.append(replace(label, id=next_id if is_class else IGNORE, value=value))
        next_id += is_class
    return labels


def _as_many_as(num_classes: int, values: list[int]) -> list[int]:
    """The numbers of that many classes: 0 to K-1, also those that no mask holds, or the K numbers that are there."""
    if all(0 <= value < num_classes for value in values):
        return list(range(num_classes))
    if len(values) == num_classes:
        return values
    raise DataError(f"masks: hold {listed(values)}; these are not the {num_classes} classes that `num_classes` says")


def _labels_of_colors(colors: Iterable[Color | None]) -> dict[Color | None, Label]:
    """The labels of a well-known palette that has all of these colours, by colour."""
    wanted = set(colors)
    for palette in known_palettes():
        table: dict[Color | None, Label] = {label.color: label for label in reversed(palette.labels)}
        if wanted <= table.keys() and suffices(palette, {table[color].id for color in wanted}):
            return table
    return {}


def palette_of_folder(folder: str, values: Iterable[int]) -> Palette | None:
    """What numbers mean in a data set that its folder's name gives away.

    Args:
        folder: The folder's name.
        values: The numbers that the masks hold.

    Returns:
        SegNet's CamVid (0 to 10, 11 for void) or ADE20K (1 to 150, 0 for void), if the masks hold no other numbers;
        else None.
    """
    numbers, folder = set(values) - {IGNORE}, folder.lower()
    if len(numbers) < MIN_MATCHES:
        return None
    if "camvid" in folder and numbers <= set(range(12)):
        return _with_values(CAMVID_11, range(12), "camvid")
    if ("ade20k" in folder or "adechallenge" in folder) and numbers <= set(range(151)):
        return _with_values((*ADE20K, ("void", (0, 0, 0))), (*range(1, 151), 0), "ade20k")
    return None


def _with_values(table: Sequence[tuple[str, Color]], values: Iterable[int], source: str) -> Palette:
    labels = [
        Label(name, IGNORE if name == "void" else i, color, value)
        for i, ((name, color), value) in enumerate(zip(table, values, strict=True))
    ]
    return Palette((*labels, Label("ignored", IGNORE, (0, 0, 0), IGNORE)), source)


def numbers_in(colors: np.ndarray) -> np.ndarray | None:
    """The numbers that a picture with three channels holds: one in all of them, or small ones in a single channel.

    CARLA and other simulators write the number of a class to the red channel and leave the others at 0.

    Args:
        colors: uint8 `(H, W, 3)`.

    Returns:
        uint8 `(H, W)`; None where the channels hold colours.

    Example:
        >>> numbers_in(np.array([[[0, 0, 0], [7, 0, 0], [10, 0, 0]]], np.uint8))
        array([[ 0,  7, 10]], dtype=uint8)
    """
    channel = channel_of_numbers(colors)
    return None if channel is None else colors[..., channel]


def channel_of_numbers(colors: np.ndarray) -> int | None:
    """Which channel holds the numbers that `numbers_in` returns; 0 where all are equal.

    Args:
        colors: uint8 `(H, W, 3)`.
    """
    if (colors == colors[..., :1]).all():
        return 0
    filled = np.flatnonzero(colors.any(axis=(0, 1)))
    if len(filled) == 1 and colors.max() < MIN_GREY_LEVEL:
        return int(filled[0])
    return None


def palette_of_object_numbers(held: set[int]) -> Palette:
    """The palette of masks that number objects: 0 is the background, every number above it an object.

    Args:
        held: Numbers that the masks hold, so far as they are known.

    Returns:
        Two classes; with 255 ignored where it stands far above the other numbers, as a border between objects.

    Raises:
        DataError: No number above 0 is there, or no 0.
    """
    others = held - {0, IGNORE}
    if 0 not in held or not held - {0}:
        raise DataError(
            f"masks: hold {listed(sorted(held))}; `instances` expects 0 for the background and numbers above"
        )
    apart = IGNORE in held and others and max(others) < IGNORE - 1
    border = [Label("ignored", IGNORE, (0, 0, 0), IGNORE)] if apart else []
    first = min(others, default=IGNORE)
    labels = (Label("background", 0, distinct_color(0), 0), Label("object", 1, distinct_color(1), first), *border)
    return Palette(labels, "values", instances=True)
