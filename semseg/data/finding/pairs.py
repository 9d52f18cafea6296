"""Photo and colour mask side by side in one picture, as Kaggle's "Cityscapes image pairs" comes."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semseg.data.base import Found, Sample, spread
from semseg.data.finding.contents import Contents
from semseg.data.finding.families import evenness
from semseg.data.finding.folder import root_of
from semseg.data.finding.names import place_of
from semseg.errors import DataError
from semseg.images.reading import load_images

_MAX_PICTURES = 8  # that are looked at to tell pairs from other pictures
_MIN_GAIN = 0.1  # of the mask's share of pixels in areas of one colour over the photo's
_MIN_SHARE = 0.6  # of the pictures that must look like pairs


def find_pairs(contents: Contents) -> Found | None:
    """Looks for `train/` (and `val/`, `test/`) with one picture per pair, or for the pairs themselves.

    Args:
        contents: Of the data set's folder.

    Returns:
        The samples; None if the folder holds no such pictures, or most do not look like pairs.
    """
    split_of = {path: place_of(path.parent.relative_to(contents.root).parts).split for path in contents.pictures}
    has_train = "train" in split_of.values()  # then what lies outside of the splits is something else
    splits: dict[str, list[Sample]] = defaultdict(list)
    for path, split in split_of.items():
        if split or not has_train:
            splits[split or "train"].append(Sample(path, path))
    if not splits["train"]:
        splits = {"train": [sample for samples in splits.values() for sample in samples]}
    only_one = len(contents.pictures) == 1 and contents.pictures[0].parent == contents.root  # may lie there by chance
    if not splits["train"] or only_one or not _look_like_pairs(splits["train"]):
        return None
    note = "photo and mask side by side in each picture"
    photos = [sample.photo for samples in splits.values() for sample in samples]
    return Found(root_of(contents.root, photos), dict(splits), notes=[note])


def _look_like_pairs(samples: Sequence[Sample]) -> bool:
    """Whether the right halves look like masks and the left ones like photos, or all of them the other way round."""
    gains = [gain for sample in spread(list(samples), _MAX_PICTURES) if (gain := _gain(sample.photo)) is not None]
    if not gains:
        return True  # the check says what is wrong with all of them
    swapped = np.array(gains) < -_MIN_GAIN  # told of when the masks are understood
    return float(max((np.array(gains) > _MIN_GAIN).mean(), swapped.mean())) >= _MIN_SHARE


def _gain(path: Path) -> float | None:
    """By how much the right half is more even than the left; None if the picture cannot be read as a pair."""
    try:
        left, right = load_images(path)
    except DataError:
        return None
    return evenness(right) - evenness(left)
