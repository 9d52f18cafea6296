"""What every data set is: samples in splits, a palette, and a way to load a sample."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semseg.errors import DataError
from semseg.utils_func import Palette

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Sample:
    """One photo with its mask; `photo` and `mask` are the same file where a pair lies in one picture."""

    photo: Path
    mask: Path


class Dataset(ABC):
    """Photos and masks of one folder.

    Attributes:
        root: The folder that holds the splits.
        splits: Samples of `"train"` and `"val"`.
        palette: Classes and their colours.
        notes: What was decided while opening, a sentence each, to be said aloud.
    """

    def __init__(self, root: Path, splits: dict[str, list[Sample]], palette: Palette, notes: list[str]):
        self.root, self.splits, self.palette, self.notes = root, splits, palette, notes

    @property
    def task(self) -> str:
        """`"binary"` for two classes, `"multiclass"` for more."""
        return "binary" if self.palette.num_classes == 2 else "multiclass"

    @property
    def num_logits(self) -> int:
        """Channels of the model's output: 1 for the binary task, K otherwise."""
        return 1 if self.task == "binary" else self.palette.num_classes

    @abstractmethod
    def inspect(self, sample: Sample) -> tuple[np.ndarray, np.ndarray, int]:
        """Loads a sample and counts the pixels of its mask that could not be understood.

        Returns:
            Photo, uint8 RGB `(H, W, 3)`; class ids, uint8 `(H, W)`; the number of pixels that are ignored because their
            value or colour is none of the data set's.

        Raises:
            DataError: The file cannot be used; the message names it.
        """

    def load(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Returns photo, uint8 RGB `(H, W, 3)`, and class ids, uint8 `(H, W)`; raises a `DataError` naming the file."""
        return self.inspect(sample)[:2]


def list_images(folder: Path) -> list[Path]:
    """The image files in `folder`, in natural order (2.jpg before 10.jpg), hidden files left out."""
    files = [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(files, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Digits by their value, other text as it stands; the name itself breaks ties such as 1 and 01."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], path.name


def spread(samples: list[Sample], count: int | None) -> list[Sample]:
    """At most `count` of the samples, evenly spread over the list, in their order."""
    if count is None or count >= len(samples):
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def seeded_split(samples: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Splits off a share of the samples, drawn by seed, at least one; both parts keep their order.

    Raises:
        DataError: Fewer than two samples.
    """
    if len(samples) < 2:
        raise DataError(f"{samples[0].photo.parent}: holds one pair only; training and validation need one each")
    count = max(1, round(share * len(samples)))
    drawn = set(np.random.default_rng(seed).choice(len(samples), count, replace=False).tolist())
    kept = [sample for i, sample in enumerate(samples) if i not in drawn]
    return kept, [samples[i] for i in sorted(drawn)]
