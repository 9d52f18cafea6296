"""The photos of a data set and the splits of a run: which photo did the run know, and as what?"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from semseg.data.base import Dataset, Sample
from semseg.errors import SemsegError
from semseg.runs.splits import PhotoKey, Splits

NEW = "new"  # photos that were not there when the run was
ALL = "all"  # the splits of a data set together


def samples_of(dataset: Dataset, split: str) -> Sequence[Sample]:
    """The samples of a split, or of all of them for `"all"`.

    Raises:
        SemsegError: There is no such split.
    """
    if split == ALL:
        return dataset.samples
    if split not in dataset.splits:
        raise SemsegError(
            f"`test_split`: {dataset.root} has no split {split!r}; choose one of {', '.join([*dataset.splits, ALL])}"
        )
    return dataset.splits[split]


def splits_of(dataset: Dataset) -> Splits:
    """The split of every photo."""
    return {_key(sample, dataset.root): split for split, samples in dataset.splits.items() for sample in samples}


def restore_splits(dataset: Dataset, known: Splits) -> bool:
    """Gives a data set without splits of its own those that a run drew; photos that came later are `"new"`.

    Args:
        dataset: Opened whole; its splits are replaced where that can be done.
        known: The splits of the run.

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


def split_note(samples: Sequence[Sample], root: Path, known: Splits) -> str:
    """What photos have to do with the model of a run, in words.

    Args:
        samples: The photos.
        root: Of their data set.
        known: The splits of the run; {} where they are not known.
    """
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


def photo_name(sample: Sample, root: Path) -> str:
    """The photo's path inside the data set, with slashes; `stack.tif#3` for the third picture of a stack."""
    photo = sample.photo
    name = (photo.relative_to(root) if photo.is_relative_to(root) else photo).as_posix()
    return name if sample.page is None else f"{name}#{sample.page + 1}"


def _key(sample: Sample, root: Path) -> PhotoKey:
    name = photo_name(sample, root).encode("utf-8", "replace").decode()  # as the file can hold it
    return name, sample.photo.stat().st_size
