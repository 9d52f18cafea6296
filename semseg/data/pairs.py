"""Photo and colour mask side by side in one picture, as Kaggle's "Cityscapes image pairs" comes."""

from pathlib import Path

import cv2
import numpy as np

from semseg.data.base import SPLITS, Found, Sample, subfolder
from semseg.errors import DataError
from semseg.images.reading import list_images, load_images

_MAX_PICTURES = 5  # that are looked at to tell pairs from other pictures
_MIN_EVEN_SHARE = 0.5  # of a mask's pixels that lie in areas of one colour
_MIN_DIFFERENCE = 0.1  # between these shares of a mask and of a photo


def find_pairs(folder: Path) -> Found | None:
    """Looks for `train/` (and `val/`, `test/`) with one picture per pair, or for the pairs themselves.

    Args:
        folder: Where these may lie.

    Returns:
        The samples; None if the folder holds no such pictures, or they do not look like pairs.
    """
    pictures = _pictures_of_splits(folder)
    splits = {split: [Sample(path, path) for path in paths] for split, paths in pictures.items() if paths}
    return Found(folder, splits) if "train" in splits and _look_like_pairs(splits["train"]) else None


def _pictures_of_splits(folder: Path) -> dict[str, list[Path]]:
    """The images inside the folder of each split; without a training folder, those that lie in `folder` itself."""
    pictures = {}
    for split, names in SPLITS.items():
        inside = subfolder(folder, names)
        pictures[split] = list_images(inside) if inside else []
    if not pictures["train"]:
        here = [path for path in list_images(folder) if path.parent == folder]
        pictures["train"] = here if len(here) > 1 else []  # one may lie there by chance
    return pictures


def _look_like_pairs(samples: list[Sample]) -> bool:
    """Whether the left halves look like photos, not like masks: in areas of one colour lie most pixels of a mask."""
    shares = [_even_shares(sample.photo) for sample in samples[:_MAX_PICTURES]]
    readable = [share for share in shares if share is not None]
    if not readable:
        return True  # the check says what is wrong with all of them
    left, right = np.median(readable, axis=0)
    return left < _MIN_EVEN_SHARE or abs(right - left) > _MIN_DIFFERENCE  # halves that are swapped are told of later


def _even_shares(path: Path) -> tuple[float, float] | None:
    """The share of both halves that lies in areas of one colour; None if the picture cannot be read as a pair."""
    try:
        halves = load_images(path)
    except DataError:
        return None
    kernel = np.ones((3, 3), np.uint8)
    left, right = (cv2.dilate(half, kernel) == cv2.erode(half, kernel) for half in halves)
    return float(left.all(axis=2).mean()), float(right.all(axis=2).mean())
