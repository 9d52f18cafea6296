"""Text files that list the photos of a split, such as `ImageSets/Segmentation/train.txt`."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath

from semseg.data.base import SPLITS, Sample
from semseg.data.finding.class_files import read_text
from semseg.errors import DataError
from semseg.images.reading import IMAGE_SUFFIXES, list_images

_WORDS = {word: split for split, words in SPLITS.items() for word in words} | {"trainval": "trainval"}
_ADDED = r"list|lists|ids?|files?|filenames|names?|images?|imgs?|set|split"
_NAME = re.compile(rf"(?:(?:{_ADDED})[_-]?)?({'|'.join(_WORDS)})(?:[_-]?(?:{_ADDED}))?", re.IGNORECASE)
_GAP = r"[\s,;]+"
_HEADER_WORDS = {"image", "images", "img", "photo", "mask", "label", "name", "filename", "file", "id", "annotation"}
_SUFFIXES = (".txt", ".lst")
_MIN_SHARE = 0.1  # of the lines of a list that must name photos, for it to be one of photos
_PARTS = {"trainval": "train"} | {split: split for split in SPLITS}
_MAX_SHOWN = 3  # names in a message
_NOWHERE = ""  # the split of samples that are left out

Splits = dict[str, list[Sample]]


@dataclass(frozen=True)
class SplitList:
    """A list of the photos of one split.

    Attributes:
        path: The file.
        split: `"train"`, `"val"`, `"test"`, or `"trainval"` for the first two together.
        names: Its lines: names of photos, perhaps with folders before and other words after them.
        fold: Which of several divisions the file tells, in words; else empty.
    """

    path: Path
    split: str
    names: tuple[str, ...]
    fold: str = ""


def names_split(path: Path) -> bool:
    """Whether a file is called like a list of a split; what it holds may be something else."""
    if path.name.lower() in ("splits_final.json", "splits.json", "split.json"):
        return True
    return path.suffix.lower() in _SUFFIXES and _NAME.fullmatch(path.stem) is not None


def read_split_lists(path: Path) -> list[SplitList]:
    """Reads the list in a text file, or those of nnU-Net's first fold.

    Args:
        path: A file for which `names_split` holds.

    Returns:
        Lists that are not empty; none where the file holds something else.
    """
    text = read_text(path)
    if path.suffix.lower() == ".json":
        return _lists_of_json(path, text)
    match = _NAME.fullmatch(path.stem)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and set(re.split(_GAP, lines[0].lower())) <= _HEADER_WORDS:
        lines = lines[1:]
    return [SplitList(path, _WORDS[match[1].lower()], tuple(lines))] if match and lines else []


def _lists_of_json(path: Path, text: str) -> list[SplitList]:
    """The lists in `{"train": [...], "val": [...]}`, or in the first of several of these."""
    try:
        data, fold = json.loads(text), ""
        if isinstance(data, list):
            data, fold = data[0], f"fold 0 of {len(data)}"
        splits = {_WORDS[key.lower()]: names for key, names in data.items() if key.lower() in _WORDS}
    except (ValueError, AttributeError, IndexError, RecursionError):
        return []
    return [SplitList(path, split, tuple(names), fold) for split, names in splits.items() if _are_names(names)]


def _are_names(names: object) -> bool:
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)


def apply_lists(
    splits: Mapping[str, Sequence[Sample]], lists: Sequence[SplitList], root: Path, unpaired: Sequence[Path] = ()
) -> tuple[Splits | None, list[str]]:
    """Divides the samples as lists beside them say.

    Samples that no list names are left out where their split has a list; those that lie in the folder of another split
    stay. Where there is no list for training, what the others do not name is for training. A list named `trainval`
    without `train` or `val` is for training. Of the lists of several folders, all that name samples count; those in a
    folder called after segmentation replace those beside it. Photos without a mask may be listed, or not.

    Args:
        splits: All samples, as folders divide them; those without a split are in `"train"`.
        lists: From `read_side_files`.
        root: The data folder; photos that lists name are looked for there.
        unpaired: Photos that have no mask, to be counted.

    Returns:
        The samples by split, in their order, and sentences that say what was done; None where no list is one of these
        photos.

    Raises:
        DataError: A list names photos that are not there, or twice, or that another list or folder puts in another
            split; or no sample is left for training.
    """
    index = _Index([sample for samples in splits.values() for sample in samples], root, unpaired)
    matched, notes = _choose([_Matched(entry, index) for entry in lists])
    if not matched:
        return None, notes
    for entry in matched:
        entry.refuse_faults()
    assigned = _assign(matched, notes)
    listed = {split for split, _ in assigned.values()} | {_PARTS[entry.entry.split] for entry in matched}
    divided = _divide(splits, assigned, listed)
    total = sum(map(len, splits.values()))
    return divided, [_sentence(matched, divided, total, unpaired, root), *notes]


# ------------------------------------------------------------------------------------------- what the lines stand for


class _Index:
    """Samples by the names that lists may give them: those of photo and mask, and what both begin with."""

    def __init__(self, samples: Iterable[Sample], root: Path, unpaired: Iterable[Path]):
        self.root, self.unpaired = root, unpaired
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        common: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            for name in dict.fromkeys((*_names(sample.photo), *_names(sample.mask))):
                self._samples[name].append(sample)
            common[_shared_start(sample.photo.stem, sample.mask.stem)].append(sample)
        for name, found in common.items():
            if name and len(found) == 1:
                self._samples.setdefault(name, found)

    def samples(self, line: str, split: str) -> list[Sample]:
        """The samples that a line may mean, those whose folders agree best with its own."""
        for text in _readings(line):
            path = PurePath(text)
            found = self._samples.get(path.name) or self._samples.get(_stem(path))
            if found:
                words = {part.lower() for part in path.parts[:-1]} | set(SPLITS.get(split, ()))
                return self._nearest(found, words)
        return []

    def _nearest(self, samples: Sequence[Sample], words: set[str]) -> list[Sample]:
        if len(samples) == 1:
            return list(samples)
        agreeing = [sum(part.lower() in words for part in self._folders(sample)) for sample in samples]
        return [s for s, count in zip(samples, agreeing, strict=True) if count == max(agreeing)]

    def _folders(self, sample: Sample) -> tuple[str, ...]:
        photo = sample.photo
        return (photo.relative_to(self.root) if photo.is_relative_to(self.root) else photo).parts[:-1]

    def is_crossed(self, line: str) -> bool:
        """Whether a line names two files of different samples."""
        files = [PurePath(text) for text in re.split(_GAP, line.replace("\\", "/"))]
        found = [self._samples.get(path.name, ()) for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        return len(found) == 2 and all(found) and not set(found[0]) & set(found[1])

    def has_photo(self, line: str) -> bool:
        """Whether a line names a picture that is there, though in no sample."""
        return any(name in self._pictures for text in _readings(line) for name in _names(PurePath(text)))

    @cached_property
    def _pictures(self) -> set[str]:
        return {name for path in (*list_images(self.root), *self.unpaired) for name in _names(path)}


def _shared_start(name: str, other: str) -> str:
    """What two names begin with, such as the `7` of `7_sat` and `7_mask`."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
    return "".join(letter for letter, _ in pairs).rstrip("_-. ")


def _names(path: PurePath) -> tuple[str, str]:
    return path.name, _stem(path)


def _stem(path: PurePath) -> str:
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def _readings(line: str) -> Iterable[str]:
    """A line as a whole, and what stands before a gap: masks, classes or flags may follow."""
    line = line.replace("\\", "/")
    return dict.fromkeys((line, re.split(_GAP, line)[0].strip("\"'")))


@dataclass
class _Matched:
    """A list and what its lines stand for.

    Attributes:
        entry: The list.
        index: Of the samples.
        lines: The samples that each line may mean.
    """

    entry: SplitList
    index: _Index
    lines: dict[str, list[Sample]] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = {line: self.index.samples(line, self.entry.split) for line in self.entry.names}

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples that it names."""
        return list(dict.fromkeys(found[0] for found in self.lines.values() if found))

    @cached_property
    def absent(self) -> list[str]:
        """Lines that name neither a sample nor another picture."""
        return [line for line, found in self.lines.items() if not found and not self.index.has_photo(line)]

    @property
    def is_of_photos(self) -> bool:
        """Whether enough lines name pictures, so that it is no text of something else."""
        return bool(self.samples) and len(self.absent) <= (1 - _MIN_SHARE) * len(self.lines)

    def refuse_faults(self) -> None:
        """Raises a `DataError` for lines that name nothing, more than one photo, or one that another line names."""
        faults = (
            (self.absent, "that cannot be found; add them, or take them out of the list"),
            (self._unclear(), "of which there are several; write their folders before the names"),
            (self._twice(), "more than once; expected each once"),
            (self._crossed(), "with the masks of other photos; rename these, or list photos and masks in a CSV"),
        )
        for names, text in faults:
            if names:
                raise DataError(f"{self.entry.path}: names {_counted(names)} {text}, or {_MEND}")

    def _unclear(self) -> list[str]:
        return [line for line, found in self.lines.items() if len(found) > 1]

    def _twice(self) -> list[str]:
        counts = Counter(found[0] for line in self.entry.names if (found := self.lines[line]))
        return [_name(sample) for sample, count in counts.items() if count > 1]

    def _crossed(self) -> list[str]:
        return [line for line in self.lines if self.index.is_crossed(line)]


_MEND = "remove the list"


def _name(sample: Sample) -> str:
    return sample.photo.name


def _counted(names: Sequence[str]) -> str:
    """Such as `4 photos (a, b, c ...)`."""
    shown = ", ".join(names[:_MAX_SHOWN]) + (" ..." if len(names) > _MAX_SHOWN else "")
    return f"{len(names)} photo{'s' * (len(names) > 1)} ({shown})"


# ------------------------------------------------------------------------------------------------- which lists count


def _choose(lists: Sequence[_Matched]) -> tuple[list[_Matched], list[str]]:
    """The lists that divide the samples, and sentences on the others."""
    used = _folders_of_photos(lists)
    chosen, notes = [], []
    for matched in lists:
        path = matched.entry.path
        if path.parent in used and (matched.samples or matched.entry.split != "test"):
            chosen.append(matched)
        elif path.parent in used:
            notes.append(f"{path}: no photo that it names has a mask; left out")
        elif all(folder.parent != path.parent.parent for folder in used):
            notes.append(f"{path}: names no photo that has a mask; not read as a list of a split")
    return chosen, notes


def _folders_of_photos(lists: Sequence[_Matched]) -> set[Path]:
    """The folders whose lists name photos with masks; of those side by side the ones for segmentation, if any."""
    folders = {matched.entry.path.parent for matched in lists if matched.is_of_photos}
    preferred = {folder for folder in folders if "segm" in folder.name.lower()}
    parents = {folder.parent for folder in preferred}
    return {folder for folder in folders if folder in preferred or folder.parent not in parents}


def _assign(lists: Sequence[_Matched], notes: list[str]) -> dict[Sample, tuple[str, Path]]:
    """The split of every listed sample, and the file that says it."""
    assigned: dict[Sample, tuple[str, Path]] = {}
    for group in _by_folder(lists).values():
        for split, (path, samples) in _without_trainval(group, notes).items():
            conflicts = [sample for sample in samples if assigned.get(sample, (split, path))[0] != split]
            if conflicts:
                other = assigned[conflicts[0]][1]
                count = _counted([_name(sample) for sample in conflicts])
                raise DataError(
                    f"{path}: names {count} that {other} names too; expected each photo in one split: take them out of "
                    f"one, or {_MEND}"
                )
            assigned |= dict.fromkeys(samples, (split, path))
    return assigned


def _by_folder(lists: Sequence[_Matched]) -> dict[Path, dict[str, _Matched]]:
    """The lists of each folder by split.

    Raises:
        DataError: Two lists of a folder are of one split, and differ.
    """
    groups: dict[Path, dict[str, _Matched]] = defaultdict(dict)
    for entry in lists:
        path, split = entry.entry.path, entry.entry.split
        other = groups[path.parent].setdefault(split, entry)
        if set(other.samples) != set(entry.samples):
            raise DataError(
                f"{other.entry.path}: lists other photos for {split} than {path.name} beside it; remove one of them"
            )
    return groups


def _without_trainval(group: Mapping[str, _Matched], notes: list[str]) -> dict[str, tuple[Path, list[Sample]]]:
    """The samples of train, val and test, where one list may name the first two together.

    Raises:
        DataError: That list names others than the two do.
    """
    parts = {split: (matched.entry.path, matched.samples) for split, matched in group.items()}
    if "trainval" not in parts:
        return parts
    path, both = parts.pop("trainval")
    single, test = _samples_in(parts, "train", "val"), _samples_in(parts, "test")
    _refuse_other_union(path, set(both), single, test, parts.keys())
    shared = [_name(sample) for sample in both if sample in test]
    if shared:
        notes.append(f"{path}: names {_counted(shared)} that {parts['test'][0].name} names too; kept for test only")
    rest = [sample for sample in both if sample not in single | test]
    if rest:
        parts["val" if "train" in parts else "train"] = path, rest
    return parts


def _samples_in(parts: Mapping[str, tuple[Path, list[Sample]]], *splits: str) -> set[Sample]:
    return {sample for split in splits if split in parts for sample in parts[split][1]}


def _refuse_other_union(
    path: Path, both: set[Sample], single: set[Sample], test: set[Sample], splits: Collection[str]
) -> None:
    """Raises a `DataError` where a list of training and validation is not the two lists together."""
    faults = {"in train or val and not in it": single - both}
    if "train" in splits and "val" in splits:
        faults["in it and neither in train nor in val"] = both - single - test
    for where, samples in faults.items():
        if samples:
            names = _counted(sorted(_name(sample) for sample in samples))
            raise DataError(f"{path}: {names} {where}; expected both together: mend the lists, or {_MEND}")


def _divide(
    splits: Mapping[str, Sequence[Sample]], assigned: Mapping[Sample, tuple[str, Path]], listed: Collection[str]
) -> Splits:
    """The samples by split; those of a split that is listed, and in no list, are left out.

    Raises:
        DataError: A list contradicts the folders, or nothing is left for training.
    """
    divided: Splits = {split: [] for split in (*SPLITS, _NOWHERE)}
    for folder_split, samples in splits.items():
        _refuse_other_folder(samples, folder_split, splits, assigned)
        own = (folder_split if folder_split not in listed else _NOWHERE, None)
        for sample in samples:
            divided[assigned.get(sample, own)[0]].append(sample)
    del divided[_NOWHERE]
    if not divided["train"]:
        raise DataError(f"{next(iter(assigned.values()))[1].parent}: the lists leave no photo with a mask for training")
    return {split: samples for split, samples in divided.items() if samples}


def _refuse_other_folder(
    samples: Iterable[Sample], split: str, splits: Iterable[str], assigned: Mapping[Sample, tuple[str, Path]]
) -> None:
    """Raises a `DataError` where a list puts samples in the folder of a split in another; one may divide training."""
    for folder_split, path in dict.fromkeys(assigned.values()):
        names = [str(sample.photo) for sample in samples if assigned.get(sample) == (folder_split, path)]
        divides_train = split == "train" and folder_split not in splits
        if names and folder_split != split and not divides_train:
            raise DataError(
                f"{path}: names {_counted(names)} in the folder of {split}; expected lists and folders to agree: "
                f"move them, or {_MEND}"
            )


def _sentence(lists: Sequence[_Matched], divided: Splits, total: int, unpaired: Sequence[Path], root: Path) -> str:
    """What is said aloud of lists that were used."""
    folds = sorted({matched.entry.fold for matched in lists} - {""})
    counts = ", ".join(f"{len(samples)} {split}" for split, samples in divided.items())
    listed = _listed_without_mask(lists, unpaired)
    extra = {
        "with a mask in no list, left out": total - sum(map(len, divided.values())),
        "without a mask in a list": listed,
        "without a mask in no list": len(unpaired) - listed,
    }
    source = f"{_places(lists, root)}{' (' + ', '.join(folds) + ')' if folds else ''}"
    return "; ".join(
        [f"splits from {source}: {counts}", *(f"{n} photo{'s' * (n > 1)} {what}" for what, n in extra.items() if n)]
    )


def _places(lists: Sequence[_Matched], root: Path) -> str:
    """The folders of lists, or their names where they lie in the data folder itself or tell several splits."""
    places: dict[str, None] = {}
    for matched in lists:
        path = matched.entry.path
        place = path if path.suffix == ".json" or path.parent == root else path.parent
        places[str(place.relative_to(root) if place.is_relative_to(root) else place)] = None
    return ", ".join(places)


def _listed_without_mask(lists: Sequence[_Matched], unpaired: Sequence[Path]) -> int:
    lines = [line for matched in lists for line, found in matched.lines.items() if not found]
    names = {name for line in lines for text in _readings(line) for name in _names(PurePath(text))}
    return sum(not names.isdisjoint(_names(path)) for path in unpaired)
