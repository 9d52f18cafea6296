"""Which photo was in which split of a run, and with which bytes, so that nobody mistakes known photos for new ones."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from semseg.files import read_csv, write_csv

PhotoKey = tuple[str, int]  # a photo's path in its data set, with slashes, and its bytes


class SplitEntry(NamedTuple):
    """What a run notes of a photo.

    Args:
        split: That it was in.
        digest: Of the bytes of the photo and its masks, hexadecimal; empty where nobody noted it.
    """

    split: str
    digest: str = ""


Splits = dict[PhotoKey, SplitEntry]


def write_splits(path: Path, splits: Splits) -> None:
    """Writes a row per photo: split, photo, bytes, digest.

    Args:
        path: The CSV file.
        splits: What is known of each photo.
    """
    rows = [
        {"split": entry.split, "photo": name, "bytes": size, "digest": entry.digest}
        for (name, size), entry in splits.items()
    ]
    write_csv(path, rows)


def read_splits(path: Path) -> Splits:
    """What `write_splits` wrote; nothing where there is no such file, or one that cannot be read."""
    splits: Splits = {}
    with suppress(OSError, ValueError, KeyError, TypeError), path.open(newline="", encoding="utf-8") as file:
        splits = {
            (row["photo"], int(row["bytes"])): SplitEntry(row["split"], row.get("digest") or "")
            for row in read_csv(file)[1]
        }
    return splits
