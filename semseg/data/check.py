"""One look at every file before the first step: what is in there, and what is wrong with it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset, Sample
from semseg.errors import DataError

_NAMED = 3  # files named in a message; the others are counted
_MOST_UNKNOWN = 0.3  # of the training pixels; real pairs have .05
_MORE_UNKNOWN = 0.15  # of another split's pixels, beyond the share in the training split


_Counts = tuple[tuple[int, int], np.ndarray, int]


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
    unknown: dict[str, list[int]] = {split: [] for split in dataset.splits}
    sizes: dict[tuple[int, int], int] = {}
    broken: list[DataError] = []
    for done, ((split, _), result) in enumerate(zip(todo, _count_all(dataset, todo, workers), strict=True), start=1):
        if isinstance(result, DataError):
            broken.append(result)
        else:
            size, counts, num_unknown = result
            sizes[size] = sizes.get(size, 0) + 1
            pixels[split] += counts
            unknown[split].append(num_unknown)
        if on_progress:
            on_progress(done, len(todo))
    if broken:
        raise DataError(_all_broken(broken, len(todo)))
    findings = Findings(pixels, {split: sum(counts) for split, counts in unknown.items()}, sizes)
    for split, counts in unknown.items():
        _check_split(dataset, findings, split, counts)
    return findings


def _count_all(dataset: Dataset, todo: list[tuple[str, Sample]], workers: int) -> Iterator[_Counts | DataError]:
    """The counts of every sample in order; whoever stops asking, or is interrupted, waits for no queue."""
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        yield from pool.map(lambda item: _count(dataset, item[1]), todo)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _count(dataset: Dataset, sample: Sample) -> _Counts | DataError:
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


def _check_split(dataset: Dataset, findings: Findings, split: str, unknown: list[int]) -> None:
    """Refuses a split without a counted pixel, or with too many pixels of unknown colour."""
    share = findings.ignored_shares(split)[1]
    if split == "train":
        wrong = share > _MOST_UNKNOWN
        mend = "are these colour masks? If they are, --classes must be the number of their colours"
    else:
        wrong = share > findings.ignored_shares("train")[1] + _MORE_UNKNOWN
        mend = f"give the masks of {split}/ the colours of train/"
    palette = dataset.palette
    if wrong:
        worst = np.argsort(-np.array(unknown), kind="stable")[:_NAMED]
        names = ", ".join(str(dataset.splits[split][i].mask) for i in worst)
        raise DataError(
            f"{names}: {share:.0%} of the pixels in the {split} masks, most in these, are far from each of the "
            f"{palette.num_classes} colours ({palette.source}) found in train/; {mend}"
        )
    if not findings.pixels[split][:-1].any():
        raise DataError(f"{dataset.root}: no pixel of the {split} masks belongs to a class; check the masks")
