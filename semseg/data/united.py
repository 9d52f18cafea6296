"""One mask from several files: one object or one class in each."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from semseg.errors import DataError
from semseg.images.reading import Picture, read_mask
from semseg.labels.palettes import color_codes

OVERLAP = 255  # in a mask of several classes, where files contradict each other
_OBJECT = 255  # the number of objects of one class
_MIN_WHITE = 128  # the brightest of a smoothed mask, at least
_NOISE = 16  # what JPEG may leave on black
_MAX_BETWEEN = 0.1  # share of the pixels that are far from black and white in a smoothed mask; photos have more


def unite_masks(parts: Sequence[Path], numbers: Sequence[int] = ()) -> Picture:
    """Reads the several mask files of one photo as one mask.

    Each file shows one object or one class: black and one other value, or transparent and one colour. Files that were
    smoothed or saved as JPEG are parted at half of their range.

    Args:
        parts: The files.
        numbers: The number of each file's class, 1 to 254; empty where all files show objects of one class.

    Returns:
        Numbers `(H, W)`, uint8: 0 where no file shows anything. Else 255, or with `numbers` the class' number, and 255
        where files of different classes overlap, because a mask gives a pixel one class.

    Raises:
        DataError: A file cannot be read, holds more than two values, or has another size than the first.
    """
    united: np.ndarray | None = None
    for path, number in zip(parts, numbers or [_OBJECT] * len(parts), strict=True):
        shown = foreground(path)
        if united is None:
            united = np.zeros(shown.shape, np.uint8)
        if shown.shape != united.shape:
            raise DataError(
                f"{path}: is {_size(shown)} pixels, {parts[0]} {_size(united)}; the masks of one photo must be of one "
                "size: mend or remove them"
            )
        united[shown] = np.where(np.isin(united[shown], (0, number)), number, OVERLAP)
    return Picture(united, united.shape)


def count_contested(parts: Sequence[Path], numbers: Sequence[int]) -> dict[int, int]:
    """Counts the pixels that files of several classes claim.

    Args:
        parts: The files, as for `unite_masks`.
        numbers: The number of each file's class.

    Returns:
        By number, rising, how many of these pixels the class claims; classes that claim none of them are left out.

    Raises:
        DataError: As `unite_masks`.
    """
    shown: dict[int, np.ndarray] = {}
    for path, number in zip(parts, numbers, strict=True):
        shown[number] = shown.get(number, False) | foreground(path)
    contested = sum(places.astype(np.uint8) for places in shown.values()) > 1
    counts = {number: int(np.count_nonzero(shown[number] & contested)) for number in sorted(shown)}
    return {number: count for number, count in counts.items() if count}


def foreground(path: Path) -> np.ndarray:
    """Where a mask of black and one other value shows something.

    Args:
        path: The file; what was smoothed or saved as JPEG is parted at half of its range.

    Returns:
        bool `(H, W)`.

    Raises:
        DataError: It cannot be read, or holds more values.
    """
    picture = read_mask(path)
    codes = _codes(picture)
    if picture.transparent is not None and len(np.unique(codes[~picture.transparent])) <= 1:
        return ~picture.transparent
    values = np.unique(codes)
    if np.count_nonzero(values) <= 1:
        return codes > 0
    return _part_at_half(path, picture, len(values))


def _codes(picture: Picture) -> np.ndarray:
    """A number for each colour, or the numbers themselves; 0 for black."""
    pixels = picture.pixels
    if picture.colors is not None and picture.colors[np.unique(pixels)].any():
        pixels = picture.colors[pixels]
        if picture.transparent is not None:
            pixels[picture.transparent] = 0
    return pixels if pixels.ndim == 2 else color_codes(pixels)


def _part_at_half(path: Path, picture: Picture, levels: int) -> np.ndarray:
    """The brighter part of a file that holds black and white with values between: smoothed, or saved as JPEG."""
    brightness = picture.pixels if picture.pixels.ndim == 2 else picture.pixels.max(axis=2)
    most = int(brightness.max())
    if brightness.dtype != np.uint8 or not _is_smoothed(brightness, most, picture.form == "JPEG"):
        kind = "numbers" if picture.pixels.ndim == 2 else "colours"
        raise DataError(
            f"{path}: holds {levels} {kind}; the several masks of one photo must each be one object or one class: "
            "black and one other value"
        )
    return brightness > max(most / 2, _NOISE)


def _is_smoothed(brightness: np.ndarray, most: int, lossy: bool) -> bool:
    """Whether values between black and the brightest come from smoothing: they are few and fill no area."""
    if lossy and most <= _NOISE:
        return True
    kernel = np.ones((3, 3), np.uint8)
    flat = cv2.erode(brightness, kernel) == cv2.dilate(brightness, kernel)
    black, white = (most // 4, most - most // 4) if lossy else (0, most)
    with_area = flat & (brightness > black) & (brightness < white)
    between = np.mean((brightness > most // 4) & (brightness < most - most // 4))
    return most >= _MIN_WHITE and not with_area.any() and bool(between <= _MAX_BETWEEN)


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[1]}x{mask.shape[0]}"
