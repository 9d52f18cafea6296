"""Photo and colour mask side by side in one picture, as Kaggle's "Cityscapes image pairs" comes."""

from pathlib import Path

import cv2
import numpy as np

from semseg.data.base import SPLITS, Found, Sample, subfolder
from semseg.errors import DataError
from semseg.images.reading import list_images, load_images

_LOOKED_AT = 5  # pictures
_MASK_SHARE, _DIFFERENT = 0.5, 0.1


def find_pairs(folder: Path) -> Found | None:
    """`train/` (and `val/`, `test/`) with one picture per pair, or the pairs themselves; None if it is not so."""
    splits = {}
    for split, names in SPLITS.items():
        inside = subfolder(folder, names)
        splits[split] = _samples(inside) if inside else []
    if not splits["train"] and len(here := _samples(folder, below=False)) > 1:  # one may lie there by chance
        splits["train"] = here
    splits = {split: samples for split, samples in splits.items() if samples}
    return Found(folder, splits) if "train" in splits and _look_like_pairs(splits["train"]) else None


def _samples(folder: Path, below: bool = True) -> list[Sample]:
    return [Sample(path, path) for path in list_images(folder) if below or path.parent == folder]


def _look_like_pairs(samples: list[Sample]) -> bool:
    """Whether the left halves look like photos, not like masks: in areas of one colour lie most pixels of a mask."""
    shares = np.array([share for sample in samples[:_LOOKED_AT] if (share := _even_shares(sample.photo)) is not None])
    if not len(shares):
        return True  # the check says what is wrong with all of them
    left, right = np.median(shares, axis=0)
    return left < _MASK_SHARE or abs(right - left) > _DIFFERENT  # halves that are swapped are told of later


def _even_shares(path: Path) -> tuple[float, float] | None:
    """The share of both halves that lies in areas of one colour; None if the picture cannot be read as a pair."""
    try:
        halves = load_images(path)
    except DataError:
        return None
    kernel = np.ones((3, 3), np.uint8)
    return tuple(float((cv2.dilate(half, kernel) == cv2.erode(half, kernel)).all(axis=2).mean()) for half in halves)
