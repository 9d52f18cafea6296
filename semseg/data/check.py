"""One look at every file before the first step: what is in there, and what is wrong with it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset, Sample
from semseg.errors import DataError

_NAMED = 3  # files named in a message; the others are counted
_STRANGE_SHARE = 0.5  # of an image's pixels that are no known colour: more makes the image suspicious
_STRANGE_IMAGES = 0.2  # of a split's images suspicious: more makes the split wrong


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Attributes:
        pixels: For each split int64 `(K + 1,)`: pixels per class, ignored ones last.
        unknown: For each split the number of pixels that are ignored because their colour is none of the palette's.
        sizes: (height, width) of the photos, with the number of files of that size.
    """

    pixels: dict[str, np.ndarray]
    unknown: dict[str, int]
    sizes: dict[tuple[int, int], int]

    def shares(self, split: str) -> np.ndarray:
        """Share of each class among the counted pixels, float `(K,)`."""
        counts = self.pixels[split][:-1]
        return counts / max(counts.sum(), 1)

    def ignored_shares(self, split: str) -> tuple[float, float]:
        """Shares among all pixels: of colours that are no class, and of colours that are unknown."""
        total, unknown = self.pixels[split].sum(), self.unknown[split]
        return float((self.pixels[split][-1] - unknown) / total), float(unknown / total)


def check_dataset(
    dataset: Dataset, *, workers: int = 2, on_progress: Callable[[int, int], None] | None = None
) -> Findings:
    """Loads every sample once and counts its pixels.

    Args:
        dataset: From `open_dataset`.
        workers: Threads that load.
        on_progress: Called with (files done, files in all).

    Raises:
        DataError: Files that cannot be read, all counted and the first named; or a split whose masks hold colours
            that are not in the palette.
    """
    todo = [(split, sample) for split, samples in dataset.splits.items() for sample in samples]
    pixels = {split: np.zeros(dataset.palette.num_classes + 1, np.int64) for split in dataset.splits}
    unknown = dict.fromkeys(dataset.splits, 0)
    strange: dict[str, list[Sample]] = {split: [] for split in dataset.splits}
    sizes: dict[tuple[int, int], int] = {}
    broken: list[DataError] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(lambda item: _count(dataset, item[1]), todo)
        for done, ((split, sample), result) in enumerate(zip(todo, results, strict=True), start=1):
            if isinstance(result, DataError):
                broken.append(result)
            else:
                size, counts, num_unknown = result
                sizes[size] = sizes.get(size, 0) + 1
                pixels[split] += counts
                unknown[split] += num_unknown
                if num_unknown > _STRANGE_SHARE * counts.sum():
                    strange[split].append(sample)
            if on_progress:
                on_progress(done, len(todo))
    if broken:
        raise DataError(_all_broken(broken, len(todo)))
    for split, samples in strange.items():
        _check_colors(dataset, split, samples)
    return Findings(pixels, unknown, sizes)


def _count(dataset: Dataset, sample: Sample) -> tuple[tuple[int, int], np.ndarray, int] | DataError:
    """Size of the photo, pixels per class with the ignored ones last, pixels of unknown colour."""
    try:
        photo, mask, unknown = dataset.inspect(sample)
    except DataError as error:
        return error
    k = dataset.palette.num_classes
    counts = np.bincount(mask.ravel(), minlength=256)
    return photo.shape[:2], np.append(counts[:k], counts[IGNORE]), unknown


def _all_broken(broken: list[DataError], total: int) -> str:
    if len(broken) == 1:
        return str(broken[0])
    named = "; ".join(str(error) for error in broken[:_NAMED])
    rest = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return f"{len(broken)} of {total} files cannot be used: {named}{rest}"


def _check_colors(dataset: Dataset, split: str, strange: list[Sample]) -> None:
    total = len(dataset.splits[split])
    if len(strange) <= _STRANGE_IMAGES * total:
        return
    names = ", ".join(str(sample.mask) for sample in strange[:_NAMED])
    if split == "train":
        mend = "are these colour masks? --classes gives their number of colours"
    else:
        mend = f"give the masks of {split}/ the colours of train/"
    raise DataError(
        f"{names}: more than half of the mask is far from each of the {dataset.palette.num_classes} "
        f"{dataset.palette.source} colours found in train/ ({len(strange)} of {total} {split} masks alike); {mend}"
    )
