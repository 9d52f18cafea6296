"""Signs that the numbers or colours of masks are no classes: they count objects, or differ from file to file."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from semseg import IGNORE
from semseg.errors import DataError
from semseg.labels.colormaps import find_colormap
from semseg.labels.contents import MaskContents, lies_in_pieces
from semseg.labels.palettes import colors_of_codes, listed

_BLACK = 0  # by its code, and the background among numbers
_VOC_BORDER = 0xE0E0C0  # the code of the cream colour around Pascal VOC's objects


# ------------------------------------------------------------------------------------------------ objects, counted

_MIN_WHOLE_SHARE = 0.9  # of the keys in masks that lie in one piece; of CamVid's classes .5 do, of cells nearly all
_MIN_CHAINED_SHARE = 0.9  # of the masks that hold the first n keys and no others
_MANY_OBJECTS = 6  # in a mask: so many classes with one piece each, without a gap, are no accident
_MIN_COUNTS = 4  # different numbers of objects in a mask
_MANY_KEYS = 32  # different numbers, without order
_SOME_KEYS = 10  # the same, to be mentioned
_MIN_OWN_SHARE = 0.8  # of the colours that only one mask holds
_LONG_ROW = 20  # numbers: of so many, some may be missing where small objects were taken out
_CODES = (1000, 256)  # class * 1000 + object: Cityscapes; class * 256 + object: KITTI, Mapillary


@dataclass(frozen=True)
class ObjectSigns:
    """What speaks for objects.

    Attributes:
        counts: Numbers or colours, background and borders apart, in each mask that holds any.
        richest: The mask that holds the most.
        distinct: Different ones in all masks.
        whole: Share of them, over all masks, that lie in one piece.
        chained: Share of the masks that hold the first n of them and no others, whatever n.
        own: Share of them that only one mask holds.
    """

    counts: tuple[int, ...]
    richest: MaskContents
    distinct: int
    whole: float
    chained: float
    own: float

    @property
    def in_words(self) -> str:
        """How many there are, and where the most."""
        fewest, most = min(self.counts), max(self.counts)
        number = str(most) if fewest == most else f"{fewest} to {most}"
        return f"{number} in a mask, {self.distinct} in all, nearly every one in one piece; most in {self.richest.path}"


def object_signs(masks: Sequence[MaskContents], background: int, ordered: bool) -> ObjectSigns | None:
    """Measures what would tell objects from classes.

    Args:
        masks: Contents of all masks, some with thumbs.
        background: The key that is no object.
        ordered: Whether keys are numbers, so that objects are counted 1, 2, 3.

    Returns:
        The signs; None where there are fewer than two masks with anything but background.
    """
    apart = {background} | _borders(masks, ordered)
    groups = [(mask, mask.keys - apart) for mask in masks if mask.keys - apart]
    if len(groups) < 2:
        return None
    holders = Counter(key for _, keys in groups for key in keys)
    sets = [keys for _, keys in groups]
    return ObjectSigns(
        counts=tuple(map(len, sets)),
        richest=max(groups, key=lambda group: len(group[1]))[0],
        distinct=len(holders),
        whole=_whole_share(masks, apart),
        chained=float(np.mean([_is_row(keys) if ordered else _is_most_frequent(keys, holders) for keys in sets])),
        own=float(np.mean([count == 1 for count in holders.values()])),
    )


def _borders(masks: Sequence[MaskContents], ordered: bool) -> set[int]:
    """The key of borders between objects, if there is one: 255 far above the other numbers, or VOC's cream."""
    held = set().union(*(mask.keys for mask in masks))
    if not ordered:
        return {_VOC_BORDER}
    others = held - {_BLACK, IGNORE}
    return {IGNORE} if others and max(others) < IGNORE - 1 else set()


def _whole_share(masks: Sequence[MaskContents], apart: set[int]) -> float:
    whole = [
        not in_pieces
        for mask in masks
        if mask.thumb is not None
        for key, in_pieces in lies_in_pieces(mask.thumb).items()
        if key in mask.keys - apart
    ]
    return float(np.mean(whole)) if whole else 0.0


def _is_row(numbers: Collection[int]) -> bool:
    """Whether these are 1 to n; of a long row a fifth may be missing."""
    missing_share = 0.2 if len(numbers) >= _LONG_ROW else 0.0
    return min(numbers) >= 1 and max(numbers) * (1 - missing_share) <= len(numbers)


def _is_most_frequent(keys: Collection[int], holders: Mapping[int, int]) -> bool:
    """Whether no key outside is in more masks than one of these."""
    outside = [count for key, count in holders.items() if key not in keys]
    return not outside or min(holders[key] for key in keys) >= max(outside)


def _are_coded(sets: Sequence[Collection[int]], base: int) -> bool:
    """Whether numbers from `base` on are a class times the base plus an object, counted from 0 or 1 in each mask."""
    gapless, counted = [], False
    for numbers in sets:
        objects = defaultdict(set)
        for number in numbers:
            objects[number // base].add(number % base)
        gapless += [min(found) <= 1 and max(found) <= len(found) for code, found in objects.items() if code]
        counted |= any(max(found) > 0 for code, found in objects.items() if code)
    return counted and float(np.mean(gapless)) >= _MIN_CHAINED_SHARE


def are_objects(signs: ObjectSigns, ordered: bool) -> bool:
    """Whether the keys count objects beyond doubt.

    Args:
        signs: From `object_signs`.
        ordered: Whether keys are numbers.
    """
    if signs.whole < _MIN_WHOLE_SHARE or not _vary(signs):
        return False
    many = max(signs.counts) >= _MANY_OBJECTS
    chained = many and signs.chained >= _MIN_CHAINED_SHARE
    if ordered:
        return chained or (many and signs.distinct >= _MANY_KEYS and signs.whole > 0.95)
    own = signs.own >= _MIN_OWN_SHARE and signs.distinct >= max(_MANY_OBJECTS, len(signs.counts))
    return chained or own


def may_be_objects(signs: ObjectSigns) -> bool:
    """Whether the keys look like counted objects, and might as well be classes.

    Args:
        signs: From `object_signs`.
    """
    if signs.whole < _MIN_WHOLE_SHARE:
        return False
    chained = signs.chained > 0.95 and len(set(signs.counts)) >= 3
    return chained or (signs.distinct >= _SOME_KEYS and signs.whole > 0.97 and _vary(signs))


def _vary(signs: ObjectSigns) -> bool:
    """Whether masks hold different numbers of them, as objects come, or always new ones."""
    return len(set(signs.counts)) >= min(_MIN_COUNTS, len(signs.counts)) or signs.own >= _MIN_OWN_SHARE


def refuse_objects(masks: Sequence[MaskContents], background: int, ordered: bool) -> str | None:
    """Looks whether numbers or colours count objects.

    Args:
        masks: Contents of all masks, some with thumbs.
        background: The key that is no object.
        ordered: Whether keys are numbers.

    Returns:
        A sentence where it is not clear; None where nothing speaks for it.

    Raises:
        DataError: They do; they are no classes.
    """
    signs = object_signs(masks, background, ordered)
    if signs is None:
        return None
    if ordered:
        refuse_coded_objects(masks)
    what, rest = ("numbers", "above 0") if ordered else ("colours", "but the background")
    if are_objects(signs, ordered):
        raise DataError(
            f"masks: their {what} count objects, they are no classes ({signs.in_words}); pass `instances` to read all "
            f"{rest} as one class, or `num_classes` if each stands for a class of its own"
        )
    if may_be_objects(signs):
        return f"read as classes: the {what} of the masks ({signs.in_words}); if they count objects, pass `instances`"
    return None


def refuse_coded_objects(masks: Sequence[MaskContents]) -> None:
    """Raises a `DataError` for numbers that hold class and object in one, as Cityscapes' `_instanceIds` do.

    Args:
        masks: Contents of all masks, with numbers as keys.
    """
    sets = [mask.keys - {_BLACK} for mask in masks if mask.keys - {_BLACK}]
    base = next((base for base in _CODES if _are_coded(sets, base)), None)
    if base is None or np.mean([_is_row(numbers) for numbers in sets]) >= _MIN_CHAINED_SHARE:
        return
    richest = max(masks, key=lambda mask: len(mask.keys))
    raise DataError(
        f"masks: hold {listed(sorted(richest.keys))} in {richest.path}, a class times {base} plus the number of an "
        f"object; expected classes: give the masks of classes (Cityscapes: _labelIds), or save number // {base}"
    )


def background_color(masks: Sequence[MaskContents]) -> int:
    """The code of the colour that is no object: black where most masks hold it, else what most of them end in.

    Args:
        masks: Contents of all masks, with colours as keys.
    """
    if 2 * sum(_BLACK in mask.keys for mask in masks) >= len(masks):
        return _BLACK
    return Counter(mask.rim for mask in masks).most_common(1)[0][0]


# -------------------------------------------------------------------------------------------- scales that differ

_MAX_STEPS = 20  # classes between 0 and 255: with more, any number lies on the grid
_MIN_FILLED = 0.6  # of the levels of a grid that a mask must hold
_MIN_STRETCHED = 3  # masks with two numbers or more: fewer tell nothing
_MIN_SHARE_OF_COUNT = 0.1  # of the masks that must hold as many numbers


def refuse_two_scales(masks: Sequence[MaskContents]) -> None:
    """Refuses a set in which some masks hold ids and others the same ids spread over the grey levels to 255.

    Args:
        masks: Contents of all masks of a set, with numbers as keys.

    Raises:
        DataError: There are such masks: 0 and 1 in some, 0 and 255 in others.
    """
    filled = [mask for mask in masks if mask.keys - {0}]
    ids = [mask for mask in filled if max(mask.keys) <= _MAX_STEPS]
    spread = _of_spread_ids(filled, set().union(*(mask.keys for mask in ids)))
    if ids and spread and len(ids) + len(spread) == len(filled):
        low, high = (max(found, key=lambda mask: len(mask.keys)) for found in (ids, spread))
        raise DataError(
            f"masks: some hold {_joined(low.keys)}, others {_joined(high.keys)}, such as {low.path} and {high.path}; "
            "save all of them in the same way"
        )


def _of_spread_ids(masks: Sequence[MaskContents], ids: set[int]) -> list[MaskContents]:
    """The masks that hold ids as grey levels up to 255, however these were rounded."""
    largest = max(ids, default=1)
    levels = {0} | {round(IGNORE * i / largest) + off for i in range(1, largest + 1) for off in (-1, 0, 1)}
    return [mask for mask in masks if mask.keys <= levels and max(mask.keys) == IGNORE]


def _joined(keys: Collection[int]) -> str:
    *first, last = sorted(keys)
    return f"{listed(first)} and {last}" if first else str(last)


def refuse_stretched(masks: Sequence[MaskContents]) -> str | None:
    """Refuses a set whose numbers were stretched to 0 to 255 in each file, or coloured by a map stretched so.

    Args:
        masks: Contents of all masks, some with thumbs; numbers or colours.

    Returns:
        A sentence where the masks look like that, and might be right; else None.

    Raises:
        DataError: They were stretched: one number or colour means different classes.
    """
    several = [mask for mask in masks if len(mask.keys) > 1]
    if not several:
        return None
    name, levels, tolerance = _levels(several)
    what = f"colours of the map {name}" if name else "grey levels"
    verdict = _judge_levels(levels, tolerance)
    if verdict == "likely" and _are_trimaps(several):
        verdict = ""
    if verdict in ("stretched", "likely"):
        raise DataError(
            f"masks: hold {what} that were stretched to each file's own numbers ({_counts_in_words(several)}), so that "
            "the last one means different classes; save the class numbers themselves, or pass `num_classes` if each "
            "does mean one class"
        )
    if verdict == "perhaps" or name:
        return (
            f"read as a class each: {what} in the masks; if they were stretched to each file's own numbers, as imsave "
            "does, they mean different classes in different files: then save the class numbers themselves"
        )
    return None


def _counts_in_words(masks: Sequence[MaskContents]) -> str:
    """The masks that hold the fewest and the most keys, and how many."""
    few, many = (chosen(masks, key=lambda mask: len(mask.keys)) for chosen in (min, max))
    return f"{few.path}: {len(few.keys)} of them, {many.path}: {len(many.keys)}"


def _levels(masks: Sequence[MaskContents]) -> tuple[str, list[frozenset[int]], float]:
    """The numbers in each mask, or the places 0 to 255 of its colours on a colour map; its name, how exact they are.

    Colours that lie on no such map give nothing.
    """
    if masks[0].kind != "color":
        return "", [mask.keys for mask in masks], 1.0
    codes = sorted(set().union(*(mask.keys for mask in masks)))
    found = find_colormap(colors_of_codes(np.array(codes)))
    if found is None:
        return "", [], 0.0
    name, places, tolerance = found
    place_of = dict(zip(codes, places.tolist(), strict=True))
    return name, [frozenset(place_of[code] for code in mask.keys) for mask in masks], tolerance


def _judge_levels(masks: Sequence[frozenset[int]], tolerance: float) -> str:
    """Whether the levels that each mask holds were `"stretched"` to 255, `"likely"` so, `"perhaps"` so, or not: `""`.

    Classes 0 to n become the levels 0, 255 / n, 2 * 255 / n ... 255. Where masks of different n were
    stretched, 255 is in every one, and together they need steps that are finer than those of any of them.
    """
    steps = [_steps(levels, tolerance) for levels in masks]
    if len(masks) < _MIN_STRETCHED or 0 in steps or len(set(steps)) < 2:
        return ""
    if min(map(max, masks)) < IGNORE - tolerance:
        return ""
    if _steps(frozenset().union(*masks), tolerance) not in steps:
        return "stretched"
    frequent = Counter(steps).most_common(2)[1][1] >= max(2, _MIN_SHARE_OF_COUNT * len(masks))
    gapless = list(map(len, masks)) == [count + 1 for count in steps]
    return "likely" if frequent and gapless else "perhaps"


def _steps(levels: Collection[int], tolerance: float) -> int:
    """The smallest number of even steps from 0 to 255 that meet the levels and are mostly there; 0 if none."""
    found = np.array(sorted(levels))
    for count in range(1, _MAX_STEPS + 1):
        step = IGNORE / count
        off = np.abs(found - step * np.round(found / step)).max()
        if off <= tolerance and len(found) >= _MIN_FILLED * (count + 1):
            return count
    return 0


def _are_trimaps(masks: Sequence[MaskContents]) -> bool:
    """Whether all keys but two are borders between others."""
    keys = set().union(*(mask.keys for mask in masks))
    return len(keys - border_keys(masks).keys()) == 2


# --------------------------------------------------------------------------------- borders, and masks that are alike

_MAX_BORDER_SHARE = 0.03  # of the longer side: a border is up to twice as wide
_MIN_BORDER_SHARE = 0.9  # of its pixels that lie between the same two classes, and of the masks where they do
_MAX_TOUCH_SHARE = 0.1  # of the border's length along which these two may touch


def border_keys(masks: Sequence[MaskContents]) -> dict[int, tuple[int, int]]:
    """Keys that are borders: thin wherever they are, and always between the same two others, which they keep apart.

    Args:
        masks: Contents of all masks; those with thumbs are looked at.

    Returns:
        By key, the two that lie on its sides.
    """
    held = set().union(*(mask.keys for mask in masks))
    if not 3 <= len(held) <= _MAX_STEPS:
        return {}
    sides = defaultdict(list)
    for mask in masks:
        if mask.thumb is not None:
            contacts = _contacts(mask.thumb)
            for key in mask.keys:
                sides[key].append(_sides(mask.thumb, key, contacts))
    found = {}
    for key, pairs in sides.items():
        pair, count = Counter(pairs).most_common(1)[0]
        if pair is not None and count >= max(_MIN_STRETCHED, _MIN_BORDER_SHARE * len(pairs)):
            found[key] = pair
    return found


def _contacts(thumb: np.ndarray) -> Counter[tuple[int, int]]:
    """How many pixels of a key have one of another key below or on the right of them, both ways, by the two keys."""
    contacts: Counter[tuple[int, int]] = Counter()
    for one, other in ((thumb[1:], thumb[:-1]), (thumb[:, 1:], thumb[:, :-1])):
        differ = one != other
        pairs, counts = np.unique(np.stack([one[differ], other[differ]]), axis=1, return_counts=True)
        for (first, second), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            contacts[first, second] += count
            contacts[second, first] += count
    return contacts


def _sides(thumb: np.ndarray, key: int, contacts: Mapping[tuple[int, int], int]) -> tuple[int, int] | None:
    """The two keys that a thin one keeps apart in a mask; None if it is no such border."""
    beside = {second: count for (first, second), count in contacts.items() if first == key}
    if len(beside) < 2:
        return None
    one, other = sorted(sorted(beside, key=lambda second: -beside[second])[:2])
    if contacts.get((one, other), 0) > _MAX_TOUCH_SHARE * (beside[one] + beside[other]):
        return None
    radius = max(2, round(_MAX_BORDER_SHARE * max(thumb.shape)))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    near = [cv2.dilate((thumb == side).astype(np.uint8), kernel) > 0 for side in (one, other)]
    between = (near[0] & near[1])[thumb == key].mean()
    return (one, other) if between >= _MIN_BORDER_SHARE else None


_COMMON_SIZE = 64  # pixels a side, at which the shapes in masks are compared
_MIN_OVERLAP = 0.95  # intersection over union of what is nearly the same
_MIN_ALIKE = 4  # masks: fewer may be alike by chance


def nearly_the_same(masks: Sequence[np.ndarray]) -> bool:
    """Whether masks all show nearly the same shape, as the field of view of a camera does, and no truth.

    Args:
        masks: Numbers `(H, W)` or colours `(H, W, 3)`, of any sizes; what is above the smallest number is the shape.

    Returns:
        False for fewer than four masks, and where one shows a single number.

    Example:
        >>> view = np.zeros((64, 64), np.uint8)
        >>> view[8:56, 8:56] = 255
        >>> nearly_the_same([view, view, view, view]), nearly_the_same([view, view, view, view.T[::2] // 2])
        (True, True)
    """
    shapes = [_shape(mask) for mask in masks]
    if len(shapes) < _MIN_ALIKE or not all(0 < shape.mean() < 1 for shape in shapes):
        return False
    usual = np.mean(shapes, axis=0) >= 0.5
    return all((shape & usual).sum() >= _MIN_OVERLAP * (shape | usual).sum() for shape in shapes)


def _shape(mask: np.ndarray) -> np.ndarray:
    """What stands out from the smallest number, bool, at a common size."""
    levels = mask if mask.ndim == 2 else mask.max(axis=2)
    filled = (levels > levels.min()).astype(np.uint8)
    return cv2.resize(filled, (_COMMON_SIZE, _COMMON_SIZE), interpolation=cv2.INTER_NEAREST) > 0
