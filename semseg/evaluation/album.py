"""Which photos of an evaluation are worth keeping: some of everything, the worst, the best, the least certain."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from semseg.data.base import spread
from semseg.images.resizing import resize_mask, resize_photo, size_within
from semseg.runs.pictures import BEST, GROUPS, SPREAD, UNSURE, WORST, Picture

LONGEST = 512  # pixels of a side: as wide as a page shows them


class Album:
    """Collects the pictures while a split is judged: never more than `GROUPS` ask for, whatever its size.

    Args:
        total: How many photos will come.
    """

    def __init__(self, total: int):
        self._spread = list(spread(range(total), GROUPS[SPREAD]))
        self._seen, self._kept = 0, {}

    def add(
        self, name: str, scores: Mapping[str, float], photo: np.ndarray, truth: np.ndarray, prediction: np.ndarray
    ) -> None:
        """Looks at the next photo; keeps it as long as it belongs to a group."""
        number, self._seen = self._seen, self._seen + 1
        ranks = self._ranks({**{i: picture.scores for i, picture in self._kept.items()}, number: scores})
        if number in ranks:
            size = size_within(truth.shape, LONGEST)
            images = (resize_photo(photo, size), resize_mask(truth, size), resize_mask(prediction, size))
            self._kept[number] = Picture(name, dict(scores), {}, *images)
        self._kept = {i: picture for i, picture in self._kept.items() if i in ranks}

    @property
    def pictures(self) -> list[Picture]:
        """What is kept, in the order of the split."""
        ranks = self._ranks({i: picture.scores for i, picture in self._kept.items()})
        return [replace(picture, ranks=ranks[i]) for i, picture in sorted(self._kept.items())]

    def _ranks(self, scores: Mapping[int, Mapping[str, float]]) -> dict[int, dict[str, int]]:
        """The groups that each photo belongs to, with its place; photos of none are left out."""
        worst = _ordered(scores, "iou")
        orders = {
            SPREAD: [i for i in self._spread if i in scores],
            WORST: worst,
            BEST: worst[::-1],
            UNSURE: _ordered(scores, "confidence"),
        }
        ranks: dict[int, dict[str, int]] = {}
        for group, most in GROUPS.items():
            for place, i in enumerate(orders[group][:most], start=1):
                ranks.setdefault(i, {})[group] = place
        return ranks


def _ordered(scores: Mapping[int, Mapping[str, float]], name: str) -> list[int]:
    """Numbers by rising score, those without one left out."""
    return sorted((i for i in scores if not np.isnan(scores[i][name])), key=lambda i: (scores[i][name], i))
