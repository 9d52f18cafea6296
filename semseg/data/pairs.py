"""Photo and colour mask side by side in one picture, as Kaggle's "Cityscapes image pairs" comes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from semseg.data.base import Dataset, Sample, list_images, seeded_split, spread
from semseg.errors import DataError
from semseg.utils_func import find_palette, load_images, quantise

VAL_SHARE = 0.2
PALETTE_MASKS = 500  # masks of the training split that the palette is fitted on, evenly spread


class Pairs(Dataset):
    """`train/` and `val/` with one picture per pair; without `val/`, a seeded fifth of the training pairs.

    Args:
        root: A folder with `train/` (and `val/`), also one level down, or with the pairs themselves.
        num_classes: The number of classes, when it should not be found from the colours.
        seed: Draws the split where there is no `val/`.
        limit: At most this many pairs of each split, evenly spread.

    Raises:
        DataError: No pairs, or masks without a palette.
    """

    def __init__(self, root: Path, *, num_classes: int | None = None, seed: int = 0, limit: int | None = None):
        base = _find_base(root)
        splits, notes = _find_splits(base, seed)
        splits = {name: spread(samples, limit) for name, samples in splits.items()}
        masks = _readable_masks(spread(splits["train"], PALETTE_MASKS))
        super().__init__(base, splits, find_palette(masks, num_classes), notes)

    def inspect(self, sample: Sample) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns photo, class ids, and how many pixels lie too far from every colour."""
        photo, mask = load_images(sample.photo)
        return photo, *quantise(mask, self.palette)


def holds_pairs(root: Path) -> bool:
    """Whether `root` looks like a folder of pairs."""
    try:
        _find_base(root)
    except DataError:
        return False
    return True


def _find_base(root: Path) -> Path:
    inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    for folder in (root, *inside):
        if (folder / "train").is_dir() and list_images(folder / "train"):
            return folder
    if list_images(root):
        return root
    raise DataError(
        f"{root}: holds no pairs; expected {root / 'train'} (and {root / 'val'}) with pictures that show the photo on "
        "the left and its colour mask on the right"
    )


def _find_splits(base: Path, seed: int) -> tuple[dict[str, list[Sample]], list[str]]:
    train, val = _samples(base / "train") or _samples(base), _samples(base / "val")
    if val:
        return {"train": train, "val": val}, []
    train, val = seeded_split(train, VAL_SHARE, seed)
    drawn = f"{len(val)} of {len(train) + len(val)} pairs are set apart for validation (seed {seed})"
    return {"train": train, "val": val}, [f"no val/ in {base}: {drawn}"]


def _samples(folder: Path) -> list[Sample]:
    return [Sample(path, path) for path in list_images(folder)] if folder.is_dir() else []


def _readable_masks(samples: list[Sample]) -> Iterator[np.ndarray]:
    """The colour masks that can be read; the check reports the others all at once, unless there are only such."""
    first_error, readable = None, 0
    for sample in samples:
        try:
            mask = load_images(sample.mask)[1]
        except DataError as error:
            first_error = first_error or error
            continue
        readable += 1
        yield mask
    if first_error and not readable:
        raise DataError(f"none of {len(samples)} pairs can be used; the first: {first_error}")
