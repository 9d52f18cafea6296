"""Data sets by name. To add one: a file with its `Dataset` here, and a line in `DATASETS`."""

from collections.abc import Callable
from pathlib import Path

from semseg.data.base import Dataset
from semseg.data.demo import make_demo
from semseg.data.pairs import Pairs, holds_pairs
from semseg.errors import DataError

DATASETS: dict[str, Callable[..., Dataset]] = {
    "pairs": Pairs,
}


def open_dataset(
    root: str | Path, *, num_classes: int | None = None, seed: int = 0, limit: int | None = None
) -> Dataset:
    """Finds the samples and the classes in a folder.

    Args:
        root: The folder.
        num_classes: The number of classes, when it should not be found from the masks.
        seed: Draws the validation split where the folder has none.
        limit: At most this many samples of each split, evenly spread.

    Raises:
        DataError: No such folder, or nothing in it that can be trained on.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; give --data a folder with train/ and val/ in it")
    try:
        return DATASETS["pairs"](root, num_classes=num_classes, seed=seed, limit=limit)
    except PermissionError as error:
        raise DataError(f"{error.filename}: may not be read; change its permissions") from None


def ensure_demo(root: Path, seed: int = 0) -> bool:
    """Makes the built-in demo set in `root` unless pairs are there already; returns whether it was made."""
    if root.is_dir() and holds_pairs(root):
        return False
    make_demo(root, seed=seed)
    return True
