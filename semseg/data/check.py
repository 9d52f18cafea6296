"""One look at every file before the first step: what is in there, and what is wrong with it."""

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset, Look, Sample
from semseg.data.cache import Cache
from semseg.data.fit import duplicates, fingerprint, judge_misfits, misfit
from semseg.data.masks import count_values
from semseg.errors import DataError
from semseg.files import replacing
from semseg.palettes import color_codes, colors_of_codes
from semseg.utils_func import resize_mask, resize_photo

_VERSION = "semseg check 1"  # another number whenever a record's content changes
_NAMED = 3  # files named in a message; the others are counted
_STRANGE = 3  # unknown numbers or colours remembered of a mask
_MOST_UNKNOWN = 0.3  # of the training pixels; real pairs have .05
_MORE_UNKNOWN = 0.15  # of another split's pixels, beyond the share in the training split
_LOOKED_AT = (256, 256)  # pixels that are enough to compare photos with each other and with their masks


@dataclass(frozen=True)
class Record:
    """What was seen of one sample; plain values, kept beside the cache.

    Attributes:
        size: (H, W), upright.
        form: What the photo was converted from, or empty.
        orientation: Its EXIF orientation, 1 to 8.
        turned: Whether the mask was turned with it.
        counts: Pixels per class, the ignored ones last.
        tops: Pixels per class in the upper half.
        unknown: Pixels that are ignored because they could not be understood.
        strange: The most frequent unknown numbers or colours, with their pixels, of masks that hold exact ones.
        print: The photo's fingerprint, float32, in base 64.
        misfit: Evidence for a mask that does not lie on its photo.
    """

    size: tuple[int, int]
    form: str
    orientation: int
    turned: bool
    counts: list[int]
    tops: list[int]
    unknown: int
    strange: dict[str, int]
    print: str
    misfit: dict[str, float]


@dataclass
class Findings:
    """What a check found.

    Attributes:
        records: For each split its samples, those that can be used, with what was seen of them.
        errors: What must be mended before training, a line per kind.
        warnings: What should be known or looked at, a line per kind.
    """

    records: dict[str, list[tuple[Sample, Record]]]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def pixels(self, split: str) -> np.ndarray:
        """Pixels per class, ignored ones last, int64 `(K + 1,)`."""
        return self.counts(split).sum(axis=0)

    def counts(self, split: str) -> np.ndarray:
        """Pixels per class, ignored ones last, of each sample: int64 `(samples, K + 1)`."""
        return np.array([record.counts for _, record in self.records[split]], np.int64)

    def tops(self, split: str) -> np.ndarray:
        """Pixels per class in the upper half of each sample: int64 `(samples, K)`."""
        return np.array([record.tops for _, record in self.records[split]], np.int64)

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """(height, width) of the photos with the number of files of that size, the most frequent first."""
        return dict(Counter(tuple(record.size) for _, record in self.all).most_common())

    @property
    def all(self) -> list[tuple[Sample, Record]]:
        """Samples and records of all splits."""
        return [entry for entries in self.records.values() for entry in entries]

    def shares(self, split: str) -> np.ndarray:
        """Share of each class among the counted pixels, float `(K,)`."""
        counts = self.pixels(split)[:-1]
        return counts / max(counts.sum(), 1)

    def ignored_shares(self, split: str) -> tuple[float, float]:
        """Shares among all pixels: of what is no class, and of what could not be understood."""
        total, unknown = self.pixels(split).sum(), sum(record.unknown for _, record in self.records[split])
        return float((self.pixels(split)[-1] - unknown) / total), float(unknown / total)

    def refuse(self, command: str) -> None:
        """Raises a `DataError` with the first error; `command` is where the others can be seen."""
        if self.errors:
            more = len(self.errors) - 1
            rest = f" ({more} more problem{'s' if more > 1 else ''}: see {command})" if more else ""
            raise DataError(self.errors[0] + rest)


def check_dataset(
    dataset: Dataset,
    *,
    cache: Cache | None = None,
    image_size: tuple[int, int] = (128, 128),
    workers: int = 2,
    skip_bad: bool = False,
    allow_leaks: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Looks at every sample once.

    What it decodes goes into the cache, and what it saw is kept beside it, so that a second check of the same files
    only compares their bytes. Where the validation split was drawn by seed, copies of training photos in it are moved
    to the training split; `dataset.splits` changes then, and also when files are left out.

    Args:
        dataset: From `open_dataset`.
        cache: Of all its samples at `image_size`; None keeps nothing.
        image_size: (height, width) of what goes into the cache.
        workers: Threads that load.
        skip_bad: Leave files out that cannot be used, with a warning, in place of an error.
        allow_leaks: Only warn of photos that are in two splits.
        on_progress: Called with (files done, files in all).
    """
    found: dict[str, list[tuple[Sample, Record]]] = {split: [] for split in dataset.splits}
    broken: list[tuple[Sample, str]] = []
    total = len(dataset.samples)
    todo = [(split, sample) for split, samples in dataset.splits.items() for sample in samples]
    results = _look_at_all(dataset, cache or Cache((), image_size, "", None), image_size, workers)
    for done, ((split, sample), result) in enumerate(zip(todo, results, strict=True), start=1):
        if isinstance(result, DataError):
            broken.append((sample, str(result)))
        else:
            found[split].append((sample, result))
        if on_progress:
            on_progress(done, total)
    findings = Findings(found)
    _leave_out(dataset, findings, broken, skip_bad)
    if all(found.values()):
        _keep_apart(dataset, findings, allow_leaks)
        _check_labels(dataset, findings, skip_bad)
        _check_fit(findings)
    _remark(dataset, findings)
    return findings


# -------------------------------------------------------------------------------------------------- a single file


def _look_at_all(
    dataset: Dataset, cache: Cache, image_size: tuple[int, int], workers: int
) -> Iterator[Record | DataError]:
    """What is seen of every sample, in order; whoever stops asking, or is interrupted, waits for no queue."""
    kept = _Kept(dataset, cache)
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        yield from pool.map(lambda sample: _look_at(dataset, sample, cache, kept, image_size), dataset.samples)
        kept.save()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Kept:
    """Records of earlier checks by the digest of the files, in a JSON file beside the cache."""

    def __init__(self, dataset: Dataset, cache: Cache):
        self._path = cache.path and cache.path.with_suffix(".json")
        self._meaning = f"{_VERSION} {json.dumps(dataset.palette.to_dict())}"
        self.records: dict[str, Record] = {}
        self._known: dict[str, Record] = {}
        if self._path and self._path.is_file():
            with suppress(OSError, ValueError, TypeError, KeyError):  # a damaged file is a missing one
                stored = json.loads(self._path.read_text(encoding="utf-8"))
                if stored["meaning"] == self._meaning:
                    self._known = {digest: Record(**values) for digest, values in stored["records"].items()}

    def get(self, digest: str) -> Record | None:
        """The record of files with this digest."""
        record = self._known.get(digest)
        if record is not None:
            self.records[digest] = record
        return record

    def save(self) -> None:
        """Writes the records of this check, if any is new; without room or rights for it, the next check looks anew."""
        if self._path is None or self.records.keys() <= self._known.keys():
            return
        values = {digest: asdict(record) for digest, record in self.records.items()}
        with suppress(OSError), replacing(self._path) as temporary:
            temporary.write_text(json.dumps({"meaning": self._meaning, "records": values}), encoding="utf-8")


def _look_at(
    dataset: Dataset, sample: Sample, cache: Cache, kept: _Kept, image_size: tuple[int, int]
) -> Record | DataError:
    try:
        digest = cache.digest(sample)
        record = digest and kept.get(digest.hex())
        if record is None or (cache.path and cache.find(sample) is None):
            look = dataset.inspect(sample, tuple(np.maximum(image_size, _LOOKED_AT)))
            cache.store(sample, resize_photo(look.photo, image_size), resize_mask(look.ids, image_size))
            record = _record(dataset, look)
            if digest:
                kept.records[digest.hex()] = record
        return record
    except DataError as error:
        return error


def _record(dataset: Dataset, look: Look) -> Record:
    k, half = dataset.palette.num_classes, look.ids.shape[0] // 2
    counts = np.bincount(look.ids.ravel(), minlength=256)
    unknown = int(np.count_nonzero(look.unknown))
    exact = unknown and not dataset.palette.blended
    return Record(
        size=look.ids.shape,
        form=look.picture.form,
        orientation=look.picture.orientation,
        turned=look.turned,
        counts=[*counts[:k].tolist(), int(counts[IGNORE])],
        tops=np.bincount(look.ids[:half].ravel(), minlength=256)[:k].tolist(),
        unknown=unknown,
        strange=_strange(look.mask[look.unknown]) if exact else {},
        print=b64encode(fingerprint(look.photo).astype('<f4').tobytes()).decode(),
        misfit=misfit(look.photo, look.ids),
    )


def _strange(unknown: np.ndarray) -> dict[str, int]:
    """The most frequent numbers `(M,)` or colours `(M, 3)`, as text, with how often they occur."""
    counted = Counter(count_values(unknown if unknown.ndim == 1 else color_codes(unknown)))
    return {
        str(value if unknown.ndim == 1 else tuple(colors_of_codes(np.int32(value)).tolist())): count
        for value, count in counted.most_common(_STRANGE)
    }


# ------------------------------------------------------------------------------------------------------ all files


def _leave_out(dataset: Dataset, findings: Findings, broken: list[tuple[Sample, str]], skip_bad: bool) -> None:
    """Tells of files that cannot be used; they are no longer part of the data set."""
    lines = dataset.problems + [text for _, text in broken]
    if not lines:
        return
    total = len(dataset.samples) + len(dataset.problems)
    if skip_bad:
        findings.warnings.append(f"{len(lines)} of {total} files are left out: {_named(lines)}")
    else:
        text = lines[0] if len(lines) == 1 else f"{len(lines)} of {total} files cannot be used: {_named(lines)}"
        findings.errors.append(f"{text}; or train without them by --skip-bad")
    for split, entries in findings.records.items():
        dataset.splits[split] = [sample for sample, _ in entries]
        if not entries:
            findings.errors.append(f"{dataset.root}: no file of the {split} split can be used; mend or replace them")


def _keep_apart(dataset: Dataset, findings: Findings, allow_leaks: bool) -> None:
    """Looks for photos of one split that are in an earlier one, too."""
    names = list(findings.records)
    for i, second in enumerate(names[1:], start=1):
        for first in names[:i]:
            pairs = _copies(findings, first, second)
            if pairs and dataset.drawn and (first, second) == ("train", "val"):
                _move_to_training(dataset, findings, {j for _, j in pairs})
            elif pairs:
                _tell_of_leaks(findings, first, second, pairs, allow_leaks)


def _copies(findings: Findings, first: str, second: str) -> list[tuple[int, int]]:
    """Of each photo of the second split that is in the first, too, one pair of positions."""
    prints = [
        np.stack([np.frombuffer(b64decode(record.print), "<f4") for _, record in findings.records[split]])
        for split in (first, second)
    ]
    return duplicates(*prints)


def _move_to_training(dataset: Dataset, findings: Findings, moved: set[int]) -> None:
    entries = findings.records["val"]
    if len(moved) == len(entries):
        findings.errors.append(f"{dataset.root}: every photo drawn for validation is a copy of a training photo")
        return
    findings.records["train"] += [entries[j] for j in sorted(moved)]
    findings.records["val"] = [entry for j, entry in enumerate(entries) if j not in moved]
    for split in ("train", "val"):
        dataset.splits[split] = [sample for sample, _ in findings.records[split]]
    findings.warnings.append(
        f"{len(moved)} photos drawn for validation are copies of training photos; they were moved to the training split"
    )


def _tell_of_leaks(
    findings: Findings, first: str, second: str, pairs: list[tuple[int, int]], allow_leaks: bool
) -> None:
    lines = [f"{findings.records[first][i][0].photo} = {findings.records[second][j][0].photo}" for i, j in pairs]
    text = (
        f"{len(pairs)} photos of the {second} split are in the {first} split, too, so that its scores would be too good: "
        f"{_named(lines)}"
    )
    if allow_leaks:
        findings.warnings.append(text)
    else:
        findings.errors.append(f"{text}; remove one of each, or go on by --allow-leaks")


def _check_labels(dataset: Dataset, findings: Findings, skip_bad: bool) -> None:
    strange = [(sample, record) for sample, record in findings.all if record.strange]
    if strange:
        _tell_of_strange_labels(dataset, findings, strange, skip_bad)
    for split, entries in findings.records.items():
        _check_split(dataset, findings, split)
        empty = [str(sample.mask) for sample, record in entries if not sum(record.counts[:-1])]
        if empty:
            findings.warnings.append(f"{len(empty)} masks of {split} hold no class at all: {_named(empty)}")
    present = {split: findings.shares(split) > 0 for split in findings.records}
    for split in list(findings.records)[1:]:
        missing = [name for k, name in enumerate(dataset.palette.names) if present["train"][k] and not present[split][k]]
        unseen = [name for k, name in enumerate(dataset.palette.names) if present[split][k] and not present["train"][k]]
        if missing:
            findings.warnings.append(f"not in the {split} masks, so not scored there: {', '.join(missing)}")
        if unseen:
            findings.warnings.append(f"in the {split} masks but not in training, so never learnt: {', '.join(unseen)}")


def _tell_of_strange_labels(
    dataset: Dataset, findings: Findings, strange: Sequence[tuple[Sample, Record]], skip_bad: bool
) -> None:
    lines = [
        f"{sample.mask}: " + ", ".join(f"{value} at {count} pixels" for value, count in record.strange.items())
        for sample, record in strange
    ]
    kind = "numbers" if dataset.palette.holds_values else "colours"
    text = f"{len(lines)} masks hold {kind} that are no class: {_named(lines)}"
    if skip_bad:
        findings.warnings.append(f"{text}; these pixels are ignored")
    else:
        findings.errors.append(
            f"{text}; mend them, or list the {kind} under ignored in a classes.json for --classes, or ignore such pixels "
            "by --skip-bad"
        )


def _check_split(dataset: Dataset, findings: Findings, split: str) -> None:
    """Refuses a split without a counted pixel, or with too many pixels that could not be understood."""
    share = findings.ignored_shares(split)[1]
    if split == "train":
        wrong = share > _MOST_UNKNOWN
        mend = "are these masks? If they are, --classes must be the number of their colours"
    else:
        wrong = share > findings.ignored_shares("train")[1] + _MORE_UNKNOWN
        mend = f"give the masks of {split}/ the colours of train/"
    palette = dataset.palette
    if wrong:
        worst = sorted(findings.records[split], key=lambda entry: -entry[1].unknown)[:_NAMED]
        findings.errors.append(
            f"{', '.join(str(sample.mask) for sample, _ in worst)}: {share:.0%} of the pixels in the {split} masks, most "
            f"in these, fit none of the {palette.num_classes} classes ({palette.source}) found in train/; {mend}"
        )
    elif not findings.pixels(split)[:-1].any():
        findings.errors.append(f"{dataset.root}: no pixel of the {split} masks belongs to a class; check the masks")


def _check_fit(findings: Findings) -> None:
    """Warns of masks that seem to belong to another photo, or to the same one turned or shifted."""


def _remark(dataset: Dataset, findings: Findings) -> None:
    """Counts what was converted, and what is unusual without being wrong."""
    records = [record for _, record in findings.all]
    for form, count in Counter(record.form for record in records if record.form).items():
        findings.warnings.append(f"{count} photos are stored as {form}; read as RGB")
    tagged = sum(record.orientation != 1 for record in records)
    if tagged:
        turned = sum(record.turned for record in records)
        findings.warnings.append(
            f"{tagged} photos are turned upright by their EXIF orientation; {turned} masks were stored as the unturned "
            "photo is, and turned with it"
        )
    if len(findings.sizes) > 1:
        shapes = {round(width / height, 2) for height, width in findings.sizes}
        if len(shapes) > 1:
            findings.warnings.append(f"photos of {len(findings.sizes)} sizes and {len(shapes)} shapes: all are stretched "
                                     "to the size that the network sees")  # fmt: skip


def _named(lines: Sequence[str]) -> str:
    rest = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    return "; ".join(lines[:_NAMED]) + rest


def to_json(dataset: Dataset, findings: Findings) -> dict[str, Any]:
    """All that was found, as plain values for data.json."""
    return {
        "root": str(dataset.root),
        "task": dataset.task,
        "notes": dataset.notes,
        "errors": findings.errors,
        "warnings": findings.warnings,
        "sizes": [{"height": h, "width": w, "photos": count} for (h, w), count in findings.sizes.items()],
        "splits": {
            split: {
                "samples": len(entries),
                "class_shares": dict(zip(dataset.palette.names, findings.shares(split).round(6).tolist(), strict=True)),
                "masks_with_class": dict(
                    zip(dataset.palette.names, (findings.counts(split)[:, :-1] > 0).sum(axis=0).tolist(), strict=True)
                ),
                "ignored_share": round(findings.ignored_shares(split)[0], 6),
                "unknown_share": round(findings.ignored_shares(split)[1], 6),
            }
            for split, entries in findings.records.items()
            if entries
        },
        "files": [
            {"photo": str(sample.photo), "mask": str(sample.mask), "size": list(record.size), "unknown": record.unknown}
            for sample, record in findings.all
        ],
    }
