"""Is anything wrong with a data set? One look at every file, and then at all of them together."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from semseg import IGNORE, __version__
from semseg.data.bands import remarks_on_bands
from semseg.data.base import Dataset, Sample
from semseg.data.cache import Cache
from semseg.data.centres import centres_of, rare_classes
from semseg.data.fit import duplicates, judge_misfits, turned_duplicates
from semseg.data.polarity import find_swapped
from semseg.data.records import Record, look_at_all
from semseg.data.thinness import ClassWidth, class_widths
from semseg.errors import DataError, SemsegError

_MAX_NAMED = 3  # files named in a message; the others are counted
_MAX_UNKNOWN_SHARE = 0.3  # of the training pixels; real pairs have .05
_MAX_EXTRA_UNKNOWN_SHARE = 0.15  # of another split's pixels, beyond the share in the training split


@dataclass
class Findings:
    """What a check found.

    Attributes:
        records: For each split its samples, those that can be used, with what was seen of them.
        errors: What must be mended before training, a line per kind.
        warnings: What should be known or looked at, a line per kind.
        named: A line for each file that these name, also for those that they only count.
    """

    records: dict[str, list[tuple[Sample, Record]]]
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)

    def pixels(self, split: str) -> np.ndarray:
        """Pixels per class, ignored ones last, int64 `(K + 1,)`.

        Args:
            split: A key of `records`.
        """
        return self.counts(split).sum(axis=0)

    def counts(self, split: str) -> np.ndarray:
        """Pixels per class, ignored ones last, of each sample: int64 `(samples, K + 1)`.

        Args:
            split: A key of `records`.
        """
        return np.array([record.counts for _, record in self.records[split]], np.int64)

    def tops(self, split: str) -> np.ndarray:
        """Pixels per class in the upper half of each sample: int64 `(samples, K)`.

        Args:
            split: A key of `records`.
        """
        return np.array([record.tops for _, record in self.records[split]], np.int64)

    def poses(self, split: str) -> list[list[list[float]]]:
        """How the classes lie in each sample that was measured; see `measure_poses`.

        Args:
            split: A key of `records`.
        """
        return [record.poses for _, record in self.records[split] if record.poses]

    def centres(self, split: str) -> list[list[np.ndarray]]:
        """Where each sample shows classes that are rare in the training split: see `centres_of`.

        Args:
            split: A key of `records`.

        Raises:
            SemsegError: The check saw photos whole, and kept no pixels.
        """
        if not all(record.pixels for _, record in self.records[split]):
            raise SemsegError("check_dataset: saw photos whole; crops around rare classes need it with `scale`")
        rare = rare_classes(self.shares("train"))
        return [centres_of(record.pixels, record.size, rare) for _, record in self.records[split]]

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """(height, width) of the photos with the number of files of that size, the most frequent first."""
        return dict(Counter((record.size[0], record.size[1]) for _, record in self.all).most_common())

    @property
    def all(self) -> list[tuple[Sample, Record]]:
        """Samples and records of all splits."""
        return [entry for entries in self.records.values() for entry in entries]

    def shares(self, split: str) -> np.ndarray:
        """Share of each class among the counted pixels, float `(K,)`.

        Args:
            split: A key of `records`.
        """
        counts = self.pixels(split)[:-1]
        return counts / max(counts.sum(), 1)

    @property
    def class_widths(self) -> list[ClassWidth]:
        """How wide each class is in the masks and in what the network sees, of K; empty where no mask was measured."""
        entries = [(record.counts[:-1], record.thinness) for _, record in self.all if record.thinness]
        if not entries:
            return []
        return class_widths(np.array([counts for counts, _ in entries]), [thinness for _, thinness in entries])

    def ignored_shares(self, split: str) -> tuple[float, float]:
        """Shares among all pixels: of what is no class, and of what could not be understood.

        Args:
            split: A key of `records`, with at least one sample.

        Returns:
            Both shares, 0 to 1.
        """
        total, unknown = self.pixels(split).sum(), sum(record.unknown for _, record in self.records[split])
        return float((self.pixels(split)[-1] - unknown) / total), float(unknown / total)

    def refuse(self, command: str) -> None:
        """Raises a `DataError` with the first error, if there is any.

        Args:
            command: Where the other errors can be seen.

        Raises:
            DataError: There is an error.
        """
        if self.errors:
            more = len(self.errors) - 1
            rest = f" ({more} more problem{'s' if more > 1 else ''}: see {command})" if more else ""
            raise DataError(self.errors[0] + rest)


def check_dataset(
    dataset: Dataset,
    *,
    cache: Cache | None = None,
    image_size: tuple[int, int] = (128, 128),
    scale: float | None = None,
    workers: int = 2,
    skip_bad: bool = False,
    allow_leaks: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Findings:
    """Looks at every sample once.

    What it decodes goes into the cache, and what it saw is kept beside it, so that a second check of the same files
    looks at those only that changed. Where the validation split was drawn by seed, copies of training photos in it are
    moved to the training split; `dataset.splits` changes then, and also when files are left out.

    Args:
        dataset: From `open_dataset`.
        cache: Of all its samples at `image_size`; None keeps nothing.
        image_size: (height, width) that the network sees, of what goes into the cache.
        scale: At which the network sees crops of photos; None where it sees them whole, at `image_size`.
        workers: Processes that look at files; threads where there are few.
        skip_bad: Leave files out that cannot be used, with a warning, in place of an error.
        allow_leaks: Only warn of photos that are in two splits.
        on_progress: Called with (files done, files in all).

    Returns:
        What was found. Nothing is raised for bad data: see `Findings.errors` and `Findings.refuse`.
    """
    records: dict[str, list[tuple[Sample, Record]]] = {split: [] for split in dataset.splits}
    problems: list[str] = []
    total = len(dataset.samples)
    todo = [(split, sample) for split, samples in dataset.splits.items() for sample in samples]
    results = look_at_all(dataset, cache or Cache((), image_size, "", None), image_size, workers, scale)
    for done, ((split, sample), result) in enumerate(zip(todo, results, strict=True), start=1):
        if isinstance(result, DataError):
            problems.append(str(result))
        else:
            records[split].append((sample, result))
            dataset.sizes[sample] = (result.size[0], result.size[1])
        if on_progress:
            on_progress(done, total)
    findings = Findings(records)
    _leave_out(dataset, findings, problems, skip_bad)
    if all(records.values()):  # each split left has a sample to compare with
        _keep_apart(dataset, findings, allow_leaks)
        _check_labels(dataset, findings, skip_bad)
        _check_fit(findings)
        _check_polarity(dataset, findings)
        _check_widths(dataset, findings, image_size, scale)
    _remark(findings, in_crops=scale is not None)
    _remark_on_masks(dataset, findings)
    if not dataset.bands.are_rgb:
        findings.warnings += remarks_on_bands(dataset.bands, findings.all)
    return findings


def _leave_out(dataset: Dataset, findings: Findings, problems: list[str], skip_bad: bool) -> None:
    """Tells of files that cannot be used; they are no longer part of the data set."""
    lines = dataset.problems + problems
    if not lines:
        return
    total = len(dataset.samples) + len(dataset.problems)
    named = _named(findings, lines)
    if skip_bad:
        findings.warnings.append(f"{len(lines)} of {total} files are left out: {named}")
    else:
        text = named if len(lines) == 1 else f"{len(lines)} of {total} files cannot be used: {named}"
        findings.errors.append(f"{text}; or train without them by `skip_bad`")
    _keep_usable(dataset, findings, skip_bad)


def _keep_usable(dataset: Dataset, findings: Findings, skip_bad: bool) -> None:
    """Takes the samples without a record out of the data set; a test split without any left may go."""
    for split, entries in list(findings.records.items()):
        dataset.splits[split] = [sample for sample, _ in entries]
        if entries:
            continue
        if split == "test" and skip_bad:
            del dataset.splits[split], findings.records[split]
        else:
            findings.errors.append(f"{dataset.root}: no file of the {split} split can be used; mend or replace them")


def _keep_apart(dataset: Dataset, findings: Findings, allow_leaks: bool) -> None:
    """Looks for photos of one split that are in an earlier one, too."""
    names = list(findings.records)
    for i, second in enumerate(names[1:], start=1):
        for first in names[:i]:
            prints = [
                np.stack([record.fingerprint for _, record in findings.records[name]]) for name in (first, second)
            ]
            pairs, turned = duplicates(*prints), turned_duplicates(*prints)
            if dataset.drawn and (first, second) == ("train", "val"):
                _move_to_training(dataset, findings, {j for _, j in pairs + turned})
                continue
            if pairs:
                _tell_of_leaks(findings, first, second, pairs, allow_leaks)
            if turned:
                findings.warnings.append(
                    f"{_leak(findings, first, second, turned)}; these are mirrored or turned: keep all that come from "
                    "one photo in one split"
                )


def _move_to_training(dataset: Dataset, findings: Findings, copies: set[int]) -> None:
    """Moves the samples at these places of the drawn validation split, and their groups, to the training split."""
    if not copies:
        return
    entries = findings.records["val"]
    moved = copies if dataset.group is None else _members_of_groups(entries, copies, dataset.group)
    if len(moved) == len(entries):
        findings.errors.append(f"{dataset.root}: every photo drawn for validation is a copy of a training photo")
        return
    findings.records["train"] += [entries[j] for j in sorted(moved)]
    findings.records["val"] = [entry for j, entry in enumerate(entries) if j not in moved]
    for split in ("train", "val"):
        dataset.splits[split] = [sample for sample, _ in findings.records[split]]
    findings.warnings.append(
        f"moved to training, because they are copies of photos there: {_some(len(moved), 'photo')} drawn for validation"
    )


def _members_of_groups(
    entries: Sequence[tuple[Sample, Record]], chosen: set[int], group: Callable[[Sample], str]
) -> set[int]:
    """The places of all entries that share a group with one of the chosen."""
    groups = {group(entries[j][0]) for j in chosen}
    return {j for j, (sample, _) in enumerate(entries) if group(sample) in groups}


def _tell_of_leaks(
    findings: Findings, first: str, second: str, pairs: list[tuple[int, int]], allow_leaks: bool
) -> None:
    text = _leak(findings, first, second, pairs)
    if allow_leaks:
        findings.warnings.append(text)
    else:
        findings.errors.append(f"{text}; remove one of each, or go on by `allow_leaks`")


def _leak(findings: Findings, first: str, second: str, pairs: list[tuple[int, int]]) -> str:
    lines = [f"{findings.records[first][i][0].photo} = {findings.records[second][j][0].photo}" for i, j in pairs]
    return (
        f"{_some(len(pairs), 'photo')} of the {second} split, also in the {first} split, would make its scores too "
        f"good: {_named(findings, lines)}"
    )


def _check_labels(dataset: Dataset, findings: Findings, skip_bad: bool) -> None:
    """Looks for masks whose labels are unknown, that hold no class, or whose classes differ from those in training."""
    strange: list[tuple[Sample, Record]] = []
    for split, entries in findings.records.items():
        if not _is_refused(dataset, findings, split):
            strange += [(sample, record) for sample, record in entries if record.strange]
        empty = [sample.mask_place for sample, record in entries if not sum(record.counts[:-1])]
        if empty:
            findings.warnings.append(
                f"without any class: {_some(len(empty), 'mask')} of {split}: {_named(findings, empty)}"
            )
    if strange:
        _tell_of_strange_labels(dataset, findings, strange, skip_bad)
    _compare_classes(dataset, findings)


def _compare_classes(dataset: Dataset, findings: Findings) -> None:
    """Warns of classes that only the training split holds, or only another one."""
    names = np.array(dataset.palette.names)
    in_training = findings.shares("train") > 0
    for split in list(findings.records)[1:]:
        present = findings.shares(split) > 0
        missing, unseen = names[in_training & ~present], names[present & ~in_training]
        if len(missing):
            findings.warnings.append(f"not in the {split} masks, so not scored there: {', '.join(missing)}")
        if len(unseen):
            findings.warnings.append(f"in the {split} masks but not in training, so never learnt: {', '.join(unseen)}")


def _tell_of_strange_labels(
    dataset: Dataset, findings: Findings, strange: Sequence[tuple[Sample, Record]], skip_bad: bool
) -> None:
    lines = [
        f"{sample.mask_place}: " + ", ".join(f"{value} at {count} pixels" for value, count in record.strange.items())
        for sample, record in strange
    ]
    kind = "numbers" if dataset.palette.holds_values else "colours"
    text = f"{kind} that are no class in {_some(len(lines), 'mask')}: {_named(findings, lines)}"
    if skip_bad:
        findings.warnings.append(f"{text}; these pixels are ignored")
    else:
        findings.errors.append(
            f"{text}; mend them, or list the {kind} under ignored in a classes.json and give it as `palette`, or "
            "ignore such pixels by `skip_bad`"
        )


def _is_refused(dataset: Dataset, findings: Findings, split: str) -> bool:
    """Whether a split has no counted pixel, or too many that could not be understood; tells of it."""
    share = findings.ignored_shares(split)[1]
    if split == "train":
        refused = share > _MAX_UNKNOWN_SHARE
        mend = "are these masks? If they are, `num_classes` must be the number of their colours"
    else:
        refused = share > findings.ignored_shares("train")[1] + _MAX_EXTRA_UNKNOWN_SHARE
        mend = f"give the masks of {split}/ the colours of train/"
    palette = dataset.palette
    if refused:
        worst = sorted(findings.records[split], key=lambda entry: -entry[1].unknown)[:_MAX_NAMED]
        findings.errors.append(
            f"{', '.join(sample.mask_place for sample, _ in worst)}: {share:.0%} of the pixels in the {split} masks, "
            f"most in these, fit none of the {palette.num_classes} classes ({palette.source}) found in train/; {mend}"
        )
        return True
    if findings.pixels(split)[:-1].any():
        return False
    findings.errors.append(f"{dataset.root}: no pixel of the {split} masks belongs to a class; check the masks")
    return True


def _check_fit(findings: Findings) -> None:
    """Warns of masks that would fit their photos better if they were turned or shifted."""
    for split, entries in findings.records.items():
        verdict = judge_misfits([record.misfit for _, record in entries])
        if verdict["all"]:
            findings.warnings.append(
                f"most masks of {split} seem {_fault(verdict['all'])} against their photos: look at them first"
            )
        elif verdict["files"]:
            lines = [f"{entries[fault['index']][0].mask_place} ({_fault(fault)})" for fault in verdict["files"]]
            findings.warnings.append(
                f"{_some(len(lines), 'mask')} of {split} may not lie on the photo: {_named(findings, lines)}"
            )


def _check_polarity(dataset: Dataset, findings: Findings) -> None:
    """Warns of masks in which the two classes seem to have changed places."""
    entries = findings.all
    swapped = find_swapped([record.contrast for _, record in entries])
    if swapped:
        first, second = dataset.palette.names
        named = _named(findings, [entries[i][0].mask_place for i in swapped])
        findings.warnings.append(
            f"the two classes seem swapped in {len(swapped)} of {len(entries)} masks, where {second} looks like "
            f"{first} in the others; invert these, or those: {named}"
        )


def _fault(fault: dict[str, Any]) -> str:
    """A fault from `judge_misfits` in words; it holds the move that mends a shift, words tell where the mask lies."""
    if fault["fault"] != "shift":
        return f"turned ({fault['fault']})"
    right, down = fault["right"], fault["down"]
    moves = []
    if round(right, 2):
        moves.append(f"{abs(right):.0%} too far {'left' if right > 0 else 'right'}")
    if round(down, 2):
        moves.append(f"{abs(down):.0%} too far {'up' if down > 0 else 'down'}")
    return f"shifted ({' and '.join(moves)})"


def _check_widths(dataset: Dataset, findings: Findings, image_size: tuple[int, int], scale: float | None) -> None:
    """Warns of classes that are too thin for what the network sees."""
    size, lines = next(iter(findings.sizes)), []
    for name, thin in zip(dataset.palette.names, findings.class_widths, strict=False):
        if thin.is_torn:
            lines.append(
                f"{name} ({thin.width:.2g} pixels wide in the masks, {thin.seen_width:.2g} there; "
                f"{_some(thin.pieces, 'piece')} become {thin.seen_pieces}; {_keeping(thin, size)})"
            )
    if lines:
        height, width = image_size
        seen = f"{width}x{height} pixels" if scale is None else f"{scale:.3g} of the photos' size"
        findings.warnings.append(f"too thin for {seen}, torn or lost there: {_named(findings, lines)}")
    outlines = [
        f"{name} ({thin.loops} of {_some(thin.pieces, 'piece')} are closed lines, {thin.width:.2g} pixels wide)"
        for name, thin in zip(dataset.palette.names, findings.class_widths, strict=False)
        if thin.is_outline
    ]
    if outlines:
        findings.warnings.append(
            f"drawn round things, not on them: {_named(findings, outlines)}; if what is inside is meant, fill the lines"
        )


def _keeping(thin: ClassWidth, size: tuple[int, int]) -> str:
    """What a network would have to see to keep a class."""
    enough = thin.kept_by(size)
    if enough is None:
        return f"only the photos' own {size[1]}x{size[0]} keep it"
    return f"`image_size` {enough[0] if enough[0] == enough[1] else f'{enough[0]}x{enough[1]}'} keeps it"


def _remark(findings: Findings, *, in_crops: bool) -> None:
    """Counts what was converted, and what is unusual without being wrong."""
    records = [record for _, record in findings.all]
    for form, count in Counter(record.form for record in records if record.form).items():
        findings.warnings.append(f"stored as {form} and read as RGB: {_some(count, 'photo')}")
    tagged = sum(record.orientation != 1 for record in records)
    if tagged:
        turned = sum(record.turned for record in records)
        findings.warnings.append(
            f"turned upright by an EXIF orientation: {_some(tagged, 'photo')}, and with them {_some(turned, 'mask')}"
        )
    aspect_ratios = {round(width / height, 2) for height, width in findings.sizes}
    if len(aspect_ratios) > 1 and not in_crops:
        findings.warnings.append(
            f"photos of {len(findings.sizes)} sizes and {len(aspect_ratios)} shapes are stretched to what the network "
            "sees"
        )


def _remark_on_masks(dataset: Dataset, findings: Findings) -> None:
    """Tells of pixels that masks leave open, and of those that several files of a mask claim for different classes."""
    transparent = [(sample, record.transparent) for sample, record in findings.all if record.transparent]
    if transparent and dataset.palette.transparent == IGNORE:
        share = sum(count for _, count in transparent) / sum(sum(record.counts) for _, record in findings.all)
        lines = [f"{sample.mask_place}: {count} pixels" for sample, count in transparent]
        findings.warnings.append(
            f"left transparent or without data, so ignored: {share:.2%} of the pixels, in {_some(len(lines), 'mask')}: "
            f"{_named(findings, lines)}"
        )
    lines = [
        f"{sample.photo}: " + ", ".join(f"{name} at {count}" for name, count in record.contested.items())
        for sample, record in findings.all
        if record.contested
    ]
    if lines:
        classes = dict.fromkeys(name for _, record in findings.all for name in record.contested)
        findings.warnings.append(
            f"pixels that files of different classes claim ({', '.join(classes)}) are ignored, in the masks of "
            f"{_some(len(lines), 'photo')}: {_named(findings, lines)}"
        )


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _named(findings: Findings, lines: Sequence[str]) -> str:
    """The first few lines and the number of the others; all of them are kept in `findings.named`."""
    findings.named += lines
    rest = f"; and {len(lines) - _MAX_NAMED} more" if len(lines) > _MAX_NAMED else ""
    return "; ".join(lines[:_MAX_NAMED]) + rest


def to_json(dataset: Dataset, findings: Findings) -> dict[str, Any]:
    """All that a check found, as plain values for JSON.

    Args:
        dataset: The data set, as the check left it.
        findings: From `check_dataset`.

    Returns:
        `root`, `task`, `bands` and `notes` of the data set; `errors`, `warnings` and `named` as in `Findings`; `sizes`
        with the number of photos of each; for each split with samples their number, each class' share of the counted
        pixels and the number of masks that hold it, and the shares of ignored and of unknown pixels, 0 to 1; `widths`,
        by class what `ClassWidth` says of those that are there, and whether it is torn; every file, with the digest
        of photo and mask where a cache keeps it, else None; and by which program and with which `palette`.
    """
    return {
        "program": __version__,
        "root": str(dataset.root),
        "task": dataset.task,
        "bands": dataset.bands.to_dict(),
        "palette": dataset.palette.to_dict(),
        "notes": dataset.notes,
        "errors": findings.errors,
        "warnings": findings.warnings,
        "named": findings.named,
        "sizes": [{"height": h, "width": w, "photos": count} for (h, w), count in findings.sizes.items()],
        "splits": {
            split: _split_to_json(dataset, findings, split) for split, entries in findings.records.items() if entries
        },
        "widths": {
            name: {**asdict(width), "is_torn": width.is_torn}
            for name, width in zip(dataset.palette.names, findings.class_widths, strict=False)
            if width.width
        },
        "files": [
            {
                "photo": str(sample.photo),
                "mask": str(sample.correction or sample.mask),
                "size": list(record.size),
                "unknown": record.unknown,
                "digest": dataset.digests.get(sample),
            }
            for sample, record in findings.all
        ],
    }


def _split_to_json(dataset: Dataset, findings: Findings, split: str) -> dict[str, Any]:
    names = dataset.palette.names
    shares = findings.shares(split).round(6).tolist()
    masks_with_class = (findings.counts(split)[:, :-1] > 0).sum(axis=0).tolist()
    ignored, unknown = findings.ignored_shares(split)
    return {
        "samples": len(findings.records[split]),
        "class_shares": dict(zip(names, shares, strict=True)),
        "masks_with_class": dict(zip(names, masks_with_class, strict=True)),
        "ignored_share": round(ignored, 6),
        "unknown_share": round(unknown, 6),
    }
