"""What the masks of a data set hold: numbers or colours, and which."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from semseg.data.base import Sample, is_grey, raw_mask, read_mask_of, spread
from semseg.errors import DataError, SemsegError
from semseg.images.reading import Picture, load_images
from semseg.labels.palettes import MAX_UNSMOOTHED, Palette, find_palette, palette_of_folder, palette_of_values

COLOR_MASKS = 500  # of the training split, evenly spread, that colours are looked for in
VALUE_MASKS = 4000  # the same for numbers: a class may be in a few masks only
_READ_AHEAD = 16  # masks that are decoded at a time


def find_meaning(samples: list[Sample], num_classes: int | None, root: Path) -> Palette:
    """Finds out what the masks of the training split hold, from the files that can be read.

    Args:
        samples: The training split.
        num_classes: The number of classes, when it is known.
        root: The data set's folder; its name may say whose numbers the masks hold.

    Returns:
        A well-known palette, or one made from the numbers or colours that are there.

    Raises:
        DataError: No mask can be read, or what they hold is no set of classes.
    """
    lossy = any(sample.mask.suffix.lower() in (".jpg", ".jpeg") for sample in samples)
    if samples[0].photo == samples[0].mask:
        return find_palette(_colors(spread(samples, COLOR_MASKS)), num_classes, lossy=lossy)
    survey = _Survey()
    for mask in _read(spread(samples, COLOR_MASKS)):
        survey.add(mask)
    if not survey.shows_numbers:
        return find_palette(_colors(spread(samples, COLOR_MASKS)), num_classes, lossy=lossy)
    if len(survey.pixels) > 2 and len(samples) > COLOR_MASKS:
        survey = _Survey()
        for mask in _read(spread(samples, VALUE_MASKS)):
            survey.add(mask)
    survey.refuse_two_scales()
    if num_classes is None:
        well_known = palette_of_folder("/".join(root.absolute().parts[-2:]), survey.pixels)
        if well_known is not None:
            return well_known
    return palette_of_values(survey.pixels, survey.masks, survey.colors, num_classes)


def check_meaning(samples: list[Sample], palette: Palette) -> None:
    """Checks that a palette describes what the masks hold, numbers or colours, by a few of them.

    Args:
        samples: The training split.
        palette: The one that a user gave.

    Raises:
        SemsegError: The masks hold numbers and the palette describes colours, or the other way round.
        DataError: No mask can be read.
    """
    if samples[0].photo == samples[0].mask and not palette.holds_values:
        return  # pairs are read as colours even where these are grey
    survey = _Survey()
    for mask in _read(spread(samples, _READ_AHEAD)):
        survey.add(mask)
    # Palette images (with `colors`) hold both: numbers, and the colours that they show.
    fits = survey.shows_numbers if palette.holds_values else not survey.shows_numbers or survey.colors
    if not fits:
        held, described = ("colours", "values") if palette.holds_values else ("numbers", "colours")
        raise SemsegError(f"`palette`: describes {described}, and the masks hold {held}; start from their classes.json")


class _Survey:
    """Counts what masks hold.

    Attributes:
        pixels: How many pixels hold each number.
        masks: How many masks hold it.
        colors: What palette images show for it.
    """

    def __init__(self):
        self.pixels, self.masks, self.colors = Counter(), Counter(), {}
        self._kinds, self._with_area, self._consistent = set(), set(), True
        self._sets_of_values: set[frozenset[int]] = set()  # what single masks hold

    def add(self, mask: Picture) -> None:
        """Takes a mask into account."""
        numbers, kind = mask.pixels, "grey"
        if mask.colors is not None:
            kind = "index"
        elif numbers.ndim == 3:
            if mask.form == "JPEG" or not is_grey(numbers):
                self._kinds.add("color")
                return
            numbers = numbers[..., 0]
        self._kinds.add(kind)
        counts = count_values(numbers)
        self.pixels.update(counts)
        self.masks.update(counts.keys())
        self._sets_of_values.add(frozenset(counts))
        self._with_area.update(_values_with_area(numbers))
        if kind == "index":
            for value in counts:
                color = tuple(mask.colors[value].tolist())
                self._consistent &= self.colors.setdefault(value, color) == color

    @property
    def shows_numbers(self) -> bool:
        """Whether what is stored are class numbers: not colours, not palettes that differ, not smoothed greys."""
        smoothed = len(self.pixels) > MAX_UNSMOOTHED and 2 * len(self._with_area) < len(self.pixels)
        return self._kinds <= {"grey", "index"} and self._consistent and not smoothed

    def refuse_two_scales(self) -> None:
        """Raises a `DataError` where some masks hold 0 and 1 and others 0 and 255, which says two things of 255."""
        both = {frozenset({0, 1}), frozenset({0, 255})}
        single = {frozenset({value}) for value in (0, 1, 255)}
        if both <= self._sets_of_values <= both | single:
            raise DataError("masks: some hold 0 and 1, others 0 and 255; save all of them in the same way")


def count_values(numbers: np.ndarray) -> dict[int, int]:
    """How many elements of an integer array hold each number, by rising number.

    Args:
        numbers: Integers of any shape.
    """
    if np.issubdtype(numbers.dtype, np.unsignedinteger):  # much faster than sorting
        counts = np.bincount(numbers.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _values_with_area(numbers: np.ndarray) -> Iterable[int]:
    """The numbers that fill a 3x3 square somewhere."""
    plain = numbers if numbers.dtype in (np.uint8, np.uint16) else numbers.astype(np.float32)  # OpenCV has no int32
    kernel = np.ones((3, 3), np.uint8)
    return count_values(numbers[cv2.dilate(plain, kernel) == cv2.erode(plain, kernel)])


def _read(samples: list[Sample]) -> Iterator[Picture]:
    """The masks that can be read, in order; the check reports the others, unless there are only such."""
    first_error, readable = None, 0
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(samples), _READ_AHEAD):  # all at once would pile up in memory
            for mask in pool.map(_mask_or_error, samples[start : start + _READ_AHEAD]):
                if isinstance(mask, DataError):
                    first_error = first_error or mask
                    continue
                readable += 1
                yield mask
    if first_error and not readable:
        raise DataError(f"none of {len(samples)} masks can be used; the first: {first_error}")


def _mask_or_error(sample: Sample) -> Picture | DataError:
    try:
        if sample.photo == sample.mask:
            colors = load_images(sample.mask)[1]
            return Picture(colors, colors.shape[:2])
        return read_mask_of(sample)
    except DataError as error:
        return error


def _colors(samples: list[Sample]) -> Iterator[np.ndarray]:
    for mask in _read(samples):
        yield raw_mask(mask, False, Path("masks"))


def rename_classes(palette: Palette, names: tuple[str, ...]) -> Palette:
    """The palette with other names for its classes, if there are as many.

    Args:
        palette: Any palette.
        names: One per class, in the order of the ids; if there are more or fewer, the palette stays as it is.
    """
    if len(names) != palette.num_classes:
        return palette
    labels = [
        replace(label, name=names[label.id]) if label.id < palette.num_classes else label for label in palette.labels
    ]
    return replace(palette, labels=tuple(labels))
