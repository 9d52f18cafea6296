"""The photos of a data set and the splits of a run: which photo did the run know, and as what?"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from semseg.data.base import Dataset, Sample
from semseg.errors import SemsegError
from semseg.runs.splits import PhotoKey, SplitEntry, Splits

NEW = "new"  # photos that were not there when the run was
_PAGE = re.compile(r"#\d+$")  # that ends the name of a picture of a stack
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
    """The split of every photo, and what a check noted of its bytes and those of its masks."""
    return {
        _key(sample, dataset.root): SplitEntry(split, dataset.digests.get(sample, ""))
        for split, samples in dataset.splits.items()
        for sample in samples
    }


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
        parts.setdefault(_split_in(known, sample, dataset.root) or NEW, []).append(sample)
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
    total, counts = len(samples), Counter(_split_in(known, sample, root) for sample in samples)
    if counts["train"]:
        return f"{counts['train']} of {total} photos were trained on"
    if counts["val"]:
        which = "the same split" if counts["val"] == total else f"{counts['val']} of {total} photos"
        return f"{which} chose the best epoch"
    held_out = "held out: another split chose the best epoch"
    return held_out if counts["test"] == total else "none of the photos was in its run"


def changes_since(dataset: Dataset, known: Splits) -> str:
    """What became of the photos of a run, and of their masks, since it noted them; a clause, empty where nothing did.

    Args:
        dataset: The data of the run, checked, so that the bytes of its files are known.
        known: The splits of the run.
    """
    before = {name: (size, entry.digest) for (name, size), entry in known.items()}
    now = {photo_name(sample, dataset.root): sample for sample in dataset.samples}
    changed = [name for name, sample in now.items() if name in before and _has_changed(dataset, sample, *before[name])]
    gone = [name for name in before if name not in now and not (dataset.root / _PAGE.sub("", name)).exists()]
    told = [f"{_named(changed)} or its masks changed" if changed else "", f"{_named(gone)} is gone" if gone else ""]
    return ", ".join(filter(None, told)) + " since the run" if any(told) else ""


def _has_changed(dataset: Dataset, sample: Sample, size: int, digest: str) -> bool:
    now = dataset.digests.get(sample, "")
    return _key(sample, dataset.root)[1] != size or bool(now and digest and now != digest)


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"each of {len(names)} photos ({', '.join(names[:3])}, ...)"


def photo_name(sample: Sample, root: Path) -> str:
    """The photo's path inside the data set, with slashes; `stack.tif#3` for the third picture of a stack."""
    photo = sample.photo
    name = (photo.relative_to(root) if photo.is_relative_to(root) else photo).as_posix()
    return name if sample.page is None else f"{name}#{sample.page + 1}"


def _split_in(known: Splits, sample: Sample, root: Path) -> str | None:
    entry = known.get(_key(sample, root))
    return entry.split if entry else None


def _key(sample: Sample, root: Path) -> PhotoKey:
    name = photo_name(sample, root).encode("utf-8", "replace").decode()  # as the file can hold it
    return name, sample.photo.stat().st_size
