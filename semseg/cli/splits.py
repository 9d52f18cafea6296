"""Which photo was in which split of a run: kept beside its model, so that nobody mistakes known photos for new ones."""

import csv
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from semseg.files import replacing

if TYPE_CHECKING:  # loads OpenCV
    from semseg.data.base import Dataset, Sample

SPLITS_FILE = "splits.csv"
NEW = "new"  # photos that were not there when the run was

Known = dict[tuple[str, int], str]  # the split of each photo, by its name in the data set and its bytes


def splits_of(dataset: "Dataset") -> Known:
    """The split of every photo."""
    return {_key(sample, dataset.root): split for split, samples in dataset.splits.items() for sample in samples}


def write_splits(path: Path, known: Known) -> None:
    """Writes a row per photo: split, photo, bytes."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "photo", "bytes"])
        writer.writerows((split, name, size) for (name, size), split in known.items())


def read_splits(path: Path) -> Known:
    """What `write_splits` wrote; nothing where there is no such file, or one that cannot be read."""
    known: Known = {}
    with suppress(OSError, ValueError, KeyError, TypeError), path.open(newline="", encoding="utf-8") as file:
        known = {(row["photo"], int(row["bytes"])): row["split"] for row in csv.DictReader(file)}
    return known


def restore_splits(dataset: "Dataset", known: Known) -> bool:
    """Gives a data set without splits of its own those that the run drew; photos that came later are `"new"`.

    Returns:
        Whether it was done: the run trained on some of the photos, and validated on others.
    """
    parts: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        parts.setdefault(known.get(_key(sample, dataset.root), NEW), []).append(sample)
    if "val" in dataset.splits or not {"train", "val"} <= parts.keys():
        return False
    dataset.splits = {split: parts[split] for split in ("train", "val", "test", NEW) if split in parts}
    return True


def split_note(samples: "Sequence[Sample]", root: Path, known: Known) -> str:
    """What photos have to do with the model of a run."""
    if not known:
        return "whether it was trained on them is not known"
    total, counts = len(samples), Counter(known.get(_key(sample, root)) for sample in samples)
    if counts["train"]:
        return f"{counts['train']} of {total} photos were trained on"
    if counts["val"]:
        which = "the same split" if counts["val"] == total else f"{counts['val']} of {total} photos"
        return f"{which} chose the best epoch"
    held_out = "held out: another split chose the best epoch"
    return held_out if counts["test"] == total else "none of the photos was in its run"


def photo_name(sample: "Sample", root: Path) -> str:
    """The photo's path inside the data set, with slashes."""
    photo = sample.photo
    return (photo.relative_to(root) if photo.is_relative_to(root) else photo).as_posix()


def _key(sample: "Sample", root: Path) -> tuple[str, int]:
    name = photo_name(sample, root).encode("utf-8", "replace").decode()  # as the file can hold it
    return name, sample.photo.stat().st_size
