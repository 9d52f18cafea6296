"""What a run's photos were like: looked at once the training is over, so that unlike ones are known later."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from semseg.data.base import Dataset, Sample, spread
from semseg.errors import DataError
from semseg.inference.learnt import LearntPhotos, Look, Watch, look_at
from semseg.inference.segmenter import Segmenter, no_features
from semseg.inference.tiling import OVERLAP_OF_CROPS

MAX_TRAIN, MAX_VAL = 96, 48  # tiles, or photos seen whole, that the network is asked about
_MAX_TILES = 16  # of a photo: of larger ones too few could be looked at to compare what the network makes of them
_MAX_PIXELS = 4e8  # that are read of a split


class ValidationLooks:
    """Looks at validation photos while they are judged, so that the network need not be asked about them again.

    Args:
        segmenter: The network that is judged.
        dataset: Its data.
        split: That it is judged on; another one than `"val"`, and photos seen in tiles, are not looked at.

    Attributes:
        segmenter: The network, to be judged in place of the one that was given.
        found: The looks that `learnt_photos` wants.
    """

    def __init__(self, segmenter: Segmenter, dataset: Dataset, split: str):
        self.found: dict[Sample, Look] = {}
        self._wanted: set[Sample] = set()
        self._watch, self.segmenter = None, segmenter
        if split == "val" and segmenter.tile is None:
            self._wanted = {*spread(dataset.splits[split], MAX_VAL)}
            self._watch = Watch(segmenter)
            self.segmenter = replace(segmenter, predict_batch=self._watch.predict_batch)

    def note(self, sample: Sample, size: tuple[int, int]) -> None:
        """Keeps what the next photo is like, of (H, W) pixels; to be called for each, in order."""
        if self._watch is not None:
            look = self._watch.next(size)
            if sample in self._wanted:
                self.found[sample] = look


def learnt_photos(
    segmenter: Segmenter, dataset: Dataset, seen: Mapping[Sample, Look] | None = None
) -> LearntPhotos | None:
    """What training photos are like, and how far from them validation photos are, by some of them, spread evenly.

    Args:
        segmenter: The network that learnt from them.
        dataset: Its data.
        seen: Looks at validation photos that were taken before: see `ValidationLooks`.

    Returns:
        None where no training photo can be read. Nothing is known of what the network makes of photos that are so large
        that it sees them in many tiles.
    """
    known = [dataset.sizes[sample] for sample in dataset.splits["train"] if sample in dataset.sizes]
    height, width = np.median(known or [dataset.size_of(dataset.splits["train"][0])], axis=0)
    tiles = _count_tiles(segmenter, (height, width))
    if tiles > _MAX_TILES:
        segmenter, tiles = _blind(segmenter), 1

    def photos(samples: Sequence[Sample], most: int) -> Iterator[np.ndarray]:
        for sample in spread(samples, max(1, min(most // tiles, int(_MAX_PIXELS / (height * width))))):
            with suppress(DataError):
                yield dataset.load_photo(sample)

    train = look_at(segmenter, photos(dataset.splits["train"], MAX_TRAIN))
    held_out = [*seen.values()] if seen else look_at(segmenter, photos(dataset.splits.get("val", []), MAX_VAL))
    return LearntPhotos.of(train, held_out, known) if train else None


def _count_tiles(segmenter: Segmenter, size: tuple[float, float]) -> int:
    """In how many tiles a photo is seen, about."""
    if segmenter.tile is None:
        return 1
    return math.prod(
        math.ceil(side / (of_tile * (1 - OVERLAP_OF_CROPS))) for side, of_tile in zip(size, segmenter.tile, strict=True)
    )


def _blind(segmenter: Segmenter) -> Segmenter:
    """One that cuts the same tiles, and is not asked what the network makes of them."""
    k = segmenter.palette.num_classes
    return replace(
        segmenter, predict_batch=lambda photos: np.zeros((*photos.shape[:3], k), np.float32), features=no_features
    )
