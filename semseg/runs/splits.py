"""Which photo was in which split of a run: kept beside its model, so that nobody mistakes known photos for new ones."""

import csv
from contextlib import suppress
from pathlib import Path

from semseg.files import write_csv

PhotoKey = tuple[str, int]  # a photo's path in its data set, with slashes, and its bytes
Splits = dict[PhotoKey, str]


def write_splits(path: Path, splits: Splits) -> None:
    """Writes a row per photo: split, photo, bytes.

    Args:
        path: The CSV file.
        splits: The split of each photo.
    """
    write_csv(path, [{"split": split, "photo": name, "bytes": size} for (name, size), split in splits.items()])


def read_splits(path: Path) -> Splits:
    """What `write_splits` wrote; nothing where there is no such file, or one that cannot be read."""
    splits: Splits = {}
    with suppress(OSError, ValueError, KeyError, TypeError), path.open(newline="", encoding="utf-8") as file:
        splits = {(row["photo"], int(row["bytes"])): row["split"] for row in csv.DictReader(file)}
    return splits
