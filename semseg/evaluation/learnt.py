"""What a run's photos were like: looked at once the training is over, so that unlike ones are known later."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from semseg.data.base import Dataset, spread
from semseg.errors import DataError
from semseg.inference.learnt import MAX_TRAIN, MAX_VAL, LearntPhotos, look_at
from semseg.inference.segmenter import Segmenter


def learnt_photos(segmenter: Segmenter, dataset: Dataset) -> LearntPhotos | None:
    """What training photos are like, at most 256, and how far from them up to 128 validation photos are.

    Args:
        segmenter: The network that learnt from them.
        dataset: Its data.

    Returns:
        None where no training photo can be read.
    """

    def photos(split: str, count: int) -> Iterator[np.ndarray]:
        for sample in spread(dataset.splits.get(split, []), count):
            with suppress(DataError):
                yield dataset.load(sample)[0]

    train = look_at(segmenter, photos("train", MAX_TRAIN))
    return LearntPhotos.of(train, look_at(segmenter, photos("val", MAX_VAL))) if train else None
