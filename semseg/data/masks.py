"""What the masks of a data set hold: numbers or colours, and which."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.data.base import Sample, raw_mask, read_mask_of, spread
from semseg.errors import DataError, SemsegError
from semseg.images.reading import Picture, load_images
from semseg.labels.contents import MaskContents, are_smoothed, contents_of, hold_numbers, with_color_keys, without_slips
from semseg.labels.contents import count_values as count_values
from semseg.labels.numbers import palette_of_folder, palette_of_object_numbers, palette_of_values
from semseg.labels.palettes import (
    MAX_EXACT_COLORS,
    Color,
    Label,
    Palette,
    color_codes,
    find_palette,
    palette_of_colors,
    palette_of_drawing,
    palette_of_object_colors,
)
from semseg.labels.signs import (
    background_color,
    border_keys,
    refuse_coded_objects,
    refuse_objects,
    refuse_stretched,
    refuse_two_scales,
)

FEW_MASKS = 500  # of all splits, evenly spread, that are looked at first
MANY_MASKS = 4000  # the same where they hold numbers or few colours: a class may be in a few masks only
_THUMBS = 48  # masks whose pieces and borders are looked at
_READ_AHEAD = 16  # masks that are decoded at a time
_MAX_UNSEEN_SHARE = 0.5  # of a split's pixels in classes that training lacks; with more, its masks mean other things
_ENOUGH_SMOOTHED = 32  # masks: when most of so many are smoothed, the others need not be looked at
_MAX_SMOOTHED_SHARE = 0.1  # of the masks: fewer are slips that the check names, and do not make the set a smoothed one
_DRAWN = "the masks show one thing, drawn in one colour; what they leave transparent is read as background"


def find_meaning(
    splits: Mapping[str, Sequence[Sample]], num_classes: int | None, root: Path, *, instances: bool = False
) -> tuple[Palette, list[str]]:
    """Finds out what the masks of all splits hold, from the files that can be read.

    Args:
        splits: Samples by the name of their split, one of which is `"train"`.
        num_classes: The number of classes, when it is known. Numbers or colours of which there are no more are then
            classes, even where they look like objects, or like levels that were stretched in each file.
        root: The data set's folder; its name may say whose numbers the masks hold.
        instances: The masks number or colour single objects, which are to be read as one class.

    Returns:
        A well-known palette, or one made from the numbers or colours that are there; and what was decided or is in
        doubt, a sentence each, to be said aloud.

    Raises:
        DataError: No mask can be read, or what they hold is no set of classes: objects are counted, levels were
            stretched in each file, or two scales are mixed.
        SemsegError: `instances` with another number of classes than two.
    """
    if instances and num_classes not in (None, 2):
        raise SemsegError(f"`instances`: gives two classes, background and object; got `num_classes` {num_classes}")
    entries = _entries(splits)
    masks = _survey(entries)
    if instances:
        return _palette_of_objects(masks), []
    kept = without_slips(masks, _by_number(masks))
    held = _held(kept)
    if len(held) == 1 and num_classes in (None, 2) and any(mask.transparent for mask in masks):
        return palette_of_drawing(held.pop(), _by_number(masks)), [_DRAWN]
    notes = _refuse_what_is_no_class(masks, kept, num_classes)
    kept = _without_foreign_splits(kept)
    if not _are_exact(kept, num_classes):
        return find_palette(_colors(spread(entries, FEW_MASKS)), num_classes, lossy=_are_lossy(entries)), notes
    palette = _known_palette(masks, kept, root) if num_classes is None else None
    palette = palette or _new_palette(kept, num_classes)
    notes += _notes_on_borders(kept, palette)
    return palette, notes


def _entries(splits: Mapping[str, Sequence[Sample]]) -> list[tuple[str, Sample]]:
    return [(split, sample) for split, samples in splits.items() for sample in samples]


def _by_number(masks: Sequence[MaskContents]) -> bool:
    """Whether the keys of what `_survey` returns are numbers, not colours."""
    return bool(masks) and masks[0].kind != "color"


def _refuse_what_is_no_class(
    masks: Sequence[MaskContents], kept: Sequence[MaskContents], num_classes: int | None
) -> list[str]:
    """Raises a `DataError` for masks that hold no classes; returns what may be wrong, a sentence each.

    Args:
        masks: The contents of all masks; none where they are blended.
        kept: The same without slips.
        num_classes: Where the user knows it, and the masks hold no more, two scales alone are refused.
    """
    by_number = _by_number(masks)
    if by_number:
        refuse_two_scales(kept)
    if not masks or (num_classes and len(_held(kept) - {IGNORE}) <= num_classes):
        return []
    notes = [refuse_objects(masks, 0 if by_number else background_color(masks), by_number)]
    if len(_held(kept)) <= MAX_EXACT_COLORS:
        notes.append(refuse_stretched(kept))
    return [note for note in notes if note]


def _without_foreign_splits(masks: Sequence[MaskContents]) -> list[MaskContents]:
    """The masks without those of splits that hold mostly what the training split does not; the check names these."""
    trained = _held([mask for mask in masks if mask.split == "train"])
    splits = {mask.split for mask in masks} if trained else set()
    foreign = {split for split in splits if _share_beyond(trained, masks, split) > _MAX_UNSEEN_SHARE}
    return [mask for mask in masks if mask.split not in foreign]


def _share_beyond(keys: set[int], masks: Sequence[MaskContents], split: str) -> float:
    """The share of a split's pixels that hold other keys than these."""
    pixels = _pixels([mask for mask in masks if mask.split == split])
    return sum(count for key, count in pixels.items() if key not in keys) / max(sum(pixels.values()), 1)


def _are_exact(masks: Sequence[MaskContents], num_classes: int | None) -> bool:
    """Whether masks, slips left out, are taken at their word."""
    if not masks or _by_number(masks):
        return bool(masks)
    count = len(_held(masks))
    return count <= MAX_EXACT_COLORS and num_classes in (None, count)


def _known_palette(masks: Sequence[MaskContents], kept: Sequence[MaskContents], root: Path) -> Palette | None:
    """The well-known palette that all of the masks hold, or would hold without slips, or those for training do."""
    for candidates in (masks, kept, [mask for mask in kept if mask.split == "train"]):
        if _by_number(masks):
            known = palette_of_folder("/".join(root.absolute().parts[-2:]), _held(candidates))
        else:
            palette = palette_of_colors(_pixels(candidates))
            known = palette if palette.source != "exact" else None
        if known is not None:
            return known
    return None


def _new_palette(masks: Sequence[MaskContents], num_classes: int | None) -> Palette:
    if not _by_number(masks):
        return palette_of_colors(_pixels(masks), num_classes)
    shown: dict[int, Color] = {}
    for mask in masks:
        shown |= mask.shown
    return palette_of_values(_held(masks), shown, num_classes)


def _palette_of_objects(masks: Sequence[MaskContents]) -> Palette:
    """Two classes, for masks whose numbers or colours stand for single objects."""
    if not masks:
        raise DataError(
            "`instances`: the colours of the masks are blended, by smoothing or JPEG, so that objects cannot be told "
            "from their borders; expected exact ones: save the masks as PNG, without smoothing"
        )
    if _by_number(masks):
        refuse_coded_objects(masks)
        return palette_of_object_numbers(_held(masks))
    return palette_of_object_colors(background_color(masks))


def _held(masks: Sequence[MaskContents]) -> set[int]:
    return set().union(*(mask.keys for mask in masks))


def _pixels(masks: Sequence[MaskContents]) -> dict[int, int]:
    """How many pixels of all masks hold each number or colour."""
    pixels: dict[int, int] = {}
    for mask in masks:
        for key, count in mask.pixels.items():
            pixels[key] = pixels.get(key, 0) + count
    return pixels


# --------------------------------------------------------------------------------------------- what is said aloud


def _labels_by_key(palette: Palette) -> dict[int, Label]:
    """What the numbers, or the codes of colours, stand for, ignored ones left out."""
    labels = [label for label in reversed(palette.labels) if label.id != IGNORE]
    if palette.holds_values:
        return {label.value: label for label in labels}
    codes = color_codes(np.array([label.color for label in labels], np.uint8))
    return dict(zip(codes.tolist(), labels, strict=True))


def _notes_on_borders(masks: Sequence[MaskContents], palette: Palette) -> list[str]:
    """Says which classes look like the border between two others."""
    labels = _labels_by_key(palette)
    return [
        f"{labels[key].name} looks like a border, always thin and between {labels[one].name} and {labels[other].name}; "
        "it stays a class unless you move it to ignored in a classes.json and give that as `palette`"
        for key, (one, other) in border_keys(masks).items()
        if {key, one, other} <= labels.keys()
    ]


# ---------------------------------------------------------------------------------------------------- a given palette


def check_meaning(samples: list[Sample], palette: Palette) -> None:
    """Checks that a palette describes what the masks hold, numbers or colours, by a few of them.

    Args:
        samples: The training split.
        palette: The one that a user gave.

    Raises:
        SemsegError: The masks hold numbers and the palette describes colours, or the other way round.
        DataError: No mask can be read.
    """
    if samples[0].drawing is not None:
        return  # names of classes tell what is drawn, whatever numbers or colours stand for them
    if _is_pair(samples[0]) and not palette.holds_values:
        return  # pairs are read as colours even where these are grey
    masks = list(_contents([("train", sample) for sample in spread(samples, _READ_AHEAD)]))
    shows_numbers = hold_numbers(masks) and not are_smoothed(masks)
    # Palette images hold both: numbers, and the colours that they show; so do numbers in one channel.
    shows_colors = not shows_numbers or any(mask.kind != "grey" for mask in masks)
    fits = shows_numbers if palette.holds_values else shows_colors
    if not fits:
        held, described = ("colours", "values") if palette.holds_values else ("numbers", "colours")
        raise SemsegError(f"`palette`: describes {described}, and the masks hold {held}; start from their classes.json")


def rename_classes(palette: Palette, names: tuple[str, ...]) -> Palette:
    """The palette with other names for its classes, if there are as many, or where the masks' numbers tell which.

    Args:
        palette: Any palette.
        names: One per class, in the order of the ids; if there are more, one per number, some of which no mask holds.
            If there are fewer, the palette stays as it is.
    """
    if len(names) > palette.num_classes and palette.holds_values:
        held = {label.id: label.value for label in palette.labels if label.id < palette.num_classes}
        if all(value < len(names) for value in held.values()):
            names = tuple(names[held[number]] for number in range(palette.num_classes))
    if len(names) != palette.num_classes:
        return palette
    labels = [
        replace(label, name=names[label.id]) if label.id < palette.num_classes else label for label in palette.labels
    ]
    return replace(palette, labels=tuple(labels))


# ------------------------------------------------------------------------------------------------------- reading them


def _survey(entries: list[tuple[str, Sample]]) -> list[MaskContents]:
    """Contents of the masks of samples and their splits, all by numbers or all by colours; none if they are blended.

    Of a large set a part is looked at, and a larger part where a class may be in a few masks only. A few masks with
    blended borders are left out, for the check to name.
    """
    if _are_lossy(entries):
        return []
    first = spread(entries, FEW_MASKS)
    masks = _in_one_form(list(_until_smoothed(first)), _is_pair(entries[0][1]))
    if len(_held(masks)) > 2 and len(entries) > len(first):
        others = set(spread(entries, MANY_MASKS)) - set(first)
        more = [entry for entry in entries if entry in others]
        masks = _in_one_form([*masks, *_contents(more)], _is_pair(entries[0][1]))
    return masks


def _until_smoothed(entries: list[tuple[str, Sample]]) -> Iterator[MaskContents]:
    smoothed = 0
    for count, mask in enumerate(_contents(entries, _THUMBS), start=1):
        yield mask
        smoothed += mask.smoothed
        if count == _ENOUGH_SMOOTHED and 2 * smoothed > count:
            return


def _in_one_form(masks: list[MaskContents], are_pairs: bool) -> list[MaskContents]:
    """All by numbers, or all by colours; none if most are blends."""
    exact = [mask for mask in masks if not mask.smoothed]
    left_out = len(masks) - len(exact)
    if left_out > max(len(masks) > 3, _MAX_SMOOTHED_SHARE * len(masks)) or any(mask.kind == "JPEG" for mask in masks):
        return []
    as_numbers = not are_pairs and hold_numbers(exact)
    if not as_numbers:
        exact = [with_color_keys(mask) for mask in exact]
    return [] if are_smoothed(without_slips(exact, as_numbers)) else exact


def _are_lossy(entries: Sequence[tuple[str, Sample]]) -> bool:
    return any(sample.mask.suffix.lower() in (".jpg", ".jpeg") for _, sample in entries)


def _is_pair(sample: Sample) -> bool:
    return sample.photo == sample.mask


def _contents(entries: Sequence[tuple[str, Sample]], thumbs: int = 0) -> Iterator[MaskContents]:
    """What the masks of samples, with their splits, hold; about so many of them with thumbs."""
    step = max(1, len(entries) // thumbs) if thumbs else len(entries) + 1
    jobs = [(*entry, bool(thumbs) and i % step == 0) for i, entry in enumerate(entries)]
    return _map_readable(lambda job: contents_of(_read_mask(job[1]), job[1].mask, job[0], with_thumb=job[2]), jobs)


def _colors(entries: Sequence[tuple[str, Sample]]) -> Iterator[np.ndarray]:
    """Colours `(H, W, 3)` of masks; of those with transparent pixels the others, in one row."""
    for mask in _map_readable(_read_mask, [sample for _, sample in entries]):
        colors = raw_mask(mask, False, Path("masks"))
        opaque = colors if mask.transparent is None else colors[~mask.transparent][None]
        if opaque.size:
            yield opaque


def _map_readable(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """What a function makes of each item, in order; what cannot be read is left out, unless nothing can be."""
    first_error, readable = None, 0
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(items), _READ_AHEAD):  # all at once would pile up in memory
            for result in pool.map(_or_error(function), items[start : start + _READ_AHEAD]):
                if isinstance(result, DataError):
                    first_error = first_error or result
                    continue
                readable += 1
                yield result
    if first_error and not readable:
        raise DataError(f"none of {len(items)} masks can be used; the first: {first_error}")


def _or_error(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(item: Any) -> Any:
        try:
            return function(item)
        except DataError as error:
            return error

    return call


def _read_mask(sample: Sample) -> Picture:
    if _is_pair(sample):
        colors = load_images(sample.mask)[1]
        return Picture(colors, colors.shape[:2])
    return read_mask_of(sample)
