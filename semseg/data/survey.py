"""A first look at a few training samples, before all of them are read: how large photos are, how thin their classes."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from semseg.data.base import Dataset, spread
from semseg.data.thinness import mean_widths
from semseg.errors import DataError

_MOST_SAMPLES, _MOST_PIXELS = 16, 1 << 26  # that are looked at
_MIN_SHARE = 1e-3  # of the counted pixels: a class with fewer decides nothing
_MIN_SAMPLES = 2  # that hold a class, or all if there are fewer


@dataclass(frozen=True)
class Survey:
    """What a few training samples showed.

    Attributes:
        size: (H, W), the median of each.
        pixels: Mean of the photos' areas.
        samples: Training samples in all.
        widths: Mean width of each class in pixels of the masks, float `(K,)`: area over half the outline; 0 for a class
            that too few samples hold, or too few pixels.
        largest: The class of most pixels, as the ground between things is.
    """

    size: tuple[int, int]
    pixels: float
    samples: int
    widths: np.ndarray
    largest: int

    @property
    def thinnest(self) -> int | None:
        """The class of the smallest width; None where none was measured."""
        return int(np.where(self.widths > 0, self.widths, np.inf).argmin()) if self.widths.any() else None

    def loses_most(self, least: float) -> bool:
        """Whether half of the classes or more, the largest one left aside, are thinner than that.

        Args:
            least: In pixels of the masks.
        """
        others = np.delete(self.widths, self.largest)
        return bool(2 * (others[others > 0] < least).sum() >= max(1, (others > 0).sum()))


def survey_of(dataset: Dataset) -> Survey | None:
    """Looks at a few training samples, the same for the same data; a second call gives what the first found.

    Args:
        dataset: From `open_dataset`.

    Returns:
        None where none of them can be read, which the check then tells.
    """
    if dataset.survey is None:
        dataset.survey = _survey(dataset)
    return dataset.survey


def _survey(dataset: Dataset) -> Survey | None:
    k, sizes, pixels = dataset.palette.num_classes, [], 0
    areas, lengths, held = np.zeros(k), np.zeros(k), np.zeros(k, int)
    for sample in spread(dataset.splits["train"], _MOST_SAMPLES):
        with suppress(DataError):
            ids = dataset.inspect(sample, (1, 1)).ids
            of_classes, counts = mean_widths(ids)[:k], np.bincount(ids.ravel(), minlength=256)[:k]
            there = of_classes > 0
            areas, held = areas + counts, held + there
            lengths += np.divide(counts, of_classes, where=there, out=np.zeros(k))
            sizes.append(ids.shape)
            pixels += ids.size
        if pixels > _MOST_PIXELS:
            break
    if not sizes:
        return None
    counts = (held >= min(_MIN_SAMPLES, len(sizes))) & (areas >= _MIN_SHARE * areas.sum()) & (areas > 0)
    widths = np.where(counts, areas / np.maximum(lengths, 1e-9), 0.0)
    height, width = (int(side) for side in np.median(sizes, axis=0))
    return Survey((height, width), pixels / len(sizes), len(dataset.splits["train"]), widths, int(areas.argmax()))
