"""What the names of files and folders tell: which part a file plays, in which split, and of which picture.

Nothing here opens a file. `semseg.data.finding.families` looks at what the files hold.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PHOTO, MASK = "photo", "mask"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_TOKEN = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z\d]+")
_MASK_TEXT = re.compile(r"mask|label|annot|segm|truth|trimap|manual|target|matte")
_PHOTO_TEXT = re.compile(r"image|img|photo|picture|jpeg|rgb|input|origin|frame")
_MASK_WORDS = {"gt", "gts", "seg", "segs", "ann", "anns", "anno", "annos", "lbl", "lbls", "y"}
_PHOTO_WORDS = {"sat", "raw", "pic", "pics", "x", "src", "source", "im", "ims", "jpg", "scan", "scans"}
_SECOND_CHOICE = {  # what is made of masks, or stands beside them
    "color", "colors", "colour", "colours", "vis", "viz", "overlay", "overlays", "instance", "instances", "object",
    "objects", "panoptic", "preview", "previews", "thumb", "thumbs", "edge", "edges", "boundary", "boundaries",
    "contour", "contours", "pred", "preds", "prediction", "predictions", "output", "outputs", "depth", "weight",
    "weights", "fov", "roi",
}  # fmt: skip
_SPLIT_OF_WORD = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_JOINED_SPLIT = re.compile(r"(train|val|test)(?=annot|mask|label|image|img|gt)")  # trainannot
_SPLIT_AT_END = re.compile(r"(?<=s)(Tr|Va|Ts)$")  # imagesTr, labelsTs
_COUNTER = re.compile(r"[ _\-]?\(?\d+\)?$")
_SEPARATOR = re.compile(r"[ _.\-]+")
_MAX_CUTS = 3  # separators from each end of a name at which what tells the role may begin
_MIN_AFFIX_SHARE = 0.05  # of the files of a folder that have an affix which tells a role
_MIN_NUMBERED_SHARE = 0.3  # the same for one with a number in it, as _1stHO
_MAX_STRIPPED = 6  # constant tokens at each end of a name that may be left out of the comparison
_COMMON_SHARE = 0.9  # of the names that have a constant token


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters.

    Example:
        >>> words_of("leftImg8bit"), words_of("1st_manual")
        (['left', 'img', '8', 'bit'], ['1', 'st', 'manual'])
    """
    return [word.lower() for word in _WORD.findall(name)]


@lru_cache(maxsize=4096)
def role_of(name: str) -> str | None:
    """Whether a name speaks of photos or of masks; None if of neither.

    Example:
        >>> role_of("JPEGImages"), role_of("image_masks"), role_of("Tile 1")
        ('photo', 'mask', None)
    """
    words, text = set(words_of(name)), name.lower()
    if words & _MASK_WORDS or _MASK_TEXT.search(text):
        return MASK
    return PHOTO if words & _PHOTO_WORDS or _PHOTO_TEXT.search(text) else None


def is_second_choice(name: str) -> bool:
    """Whether a name speaks of what is made of masks: colours to look at, objects, outlines, predictions."""
    return not _SECOND_CHOICE.isdisjoint(words_of(name))


@lru_cache(maxsize=4096)
def split_of(name: str) -> str | None:
    """The split that a name speaks of: `"train"`, `"val"` or `"test"`; None if of none.

    Example:
        >>> split_of("valid"), split_of("imagesTr"), split_of("trainannot"), split_of("contest")
        ('val', 'train', 'train', None)
    """
    joined = _JOINED_SPLIT.match(name.lower())
    at_end = _SPLIT_AT_END.search(name)
    if at_end:
        return {"Tr": "train", "Va": "val", "Ts": "test"}[at_end[0]]
    found = [_SPLIT_OF_WORD[word] for word in words_of(name) if word in _SPLIT_OF_WORD]
    return found[0] if found else joined[0] if joined else None


def _without_split(name: str) -> str:
    """`"train_labels"` and `"val_labels"` both as `"labels"`."""
    name = _SPLIT_AT_END.sub("", name)
    words = [_JOINED_SPLIT.sub("", word) for word in words_of(name) if word not in _SPLIT_OF_WORD]
    return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Place:
    """What the folders above a file tell.

    Attributes:
        role: The names that speak of photos or masks, without what they say of a split.
        split: The split that one of them names, or None.
        others: The other names: of patients, tiles, cities.
    """

    role: tuple[str, ...]
    split: str | None
    others: tuple[str, ...]

    def may_be_of(self, other: "Place") -> bool:
        """Whether files of both places may be of one picture: neither in two splits nor of two patients."""
        if self.split and other.split and self.split != other.split:
            return False
        return _is_within(self.others, other.others) or _is_within(other.others, self.others)


def _is_within(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether all names of the first stand in the second, in their order."""
    rest = iter(many)
    return all(name in rest for name in few)


@lru_cache(maxsize=65536)
def place_of(folders: tuple[str, ...]) -> Place:
    """What folders tell.

    Args:
        folders: Their names, from the data set's root downwards.

    Example:
        >>> place_of(("Tile 1", "train_masks"))
        Place(role=('masks',), split='train', others=('Tile 1',))
    """
    role, others, split = [], [], None
    for name in folders:
        split = split_of(name) or split
        rest = _without_split(name)
        if role_of(name):
            role.append(rest)
        elif rest:  # more than the name of a split
            others.append(name)
    return Place(tuple(role), split, tuple(others))


@dataclass(frozen=True)
class Item:
    """A file, and what its name tells.

    Attributes:
        path: The file.
        place: What the folders above it tell.
        key: Its name without what tells the role, in small letters: of one picture's photo and mask it is the same.
    """

    path: Path
    place: Place
    key: str


Affix = tuple[str, str, str]  # what a name begins with, ends with, and its file's suffix where that tells the role


def _cuts(stem: str) -> Iterable[tuple[str, str, str]]:
    """Ways to part a name into (beginning, key, ending), where a role may be told by beginning or ending."""
    yield "", stem, ""
    marks = [match.span() for match in _SEPARATOR.finditer(stem)]
    for start, _ in marks[-_MAX_CUTS:]:
        yield "", stem[:start], stem[start:]
    for _, end in marks[:_MAX_CUTS]:
        yield stem[:end], stem[end:], ""
    tokens = _TOKEN.findall(stem)
    if len(tokens) > 1 and tokens[-2].isdigit() and tokens[-1].isalpha():  # 12mask
        yield "", stem[: -len(tokens[-1])], tokens[-1]
    if len(tokens) > 1 and tokens[0].isalpha() and tokens[1].isdigit():  # mask12
        yield tokens[0], stem[len(tokens[0]) :], ""


def _named_cuts(item: Item, with_suffix: bool) -> Iterable[tuple[str, Affix]]:
    """(key, affix) for every way to part the name in which the affix is a word."""
    suffix = item.path.suffix.lower() if with_suffix else ""
    for beginning, key, ending in _cuts(item.path.stem):
        affix = beginning + ending
        if key and (not affix or any(letter.isalpha() for letter in affix)):
            yield key.lower(), (beginning.lower(), _COUNTER.sub("", ending.lower()), suffix)


def split_by_affix(items: Sequence[Item]) -> dict[Affix, list[Item]]:
    """Parts the files of a folder by what their names begin or end with, as in `1.jpg` beside `1_mask.png`.

    Args:
        items: Files of one folder, or of folders of one form.

    Returns:
        The files by affix, their keys without it; one entry where the names do not differ in this way.
    """
    groups: dict[tuple[Place, str], dict[Affix, set[Path]]] = defaultdict(lambda: defaultdict(set))
    with_suffix = _suffixes_tell_roles(items)
    for item in items:
        for key, affix in _named_cuts(item, with_suffix):
            groups[item.place, key][affix].add(item.path)
    counts = Counter(affix for group in groups.values() if len(group) > 1 for affix in group)
    frequent = {affix: count for affix, count in counts.items() if count >= _count_needed(affix, len(items))}
    if len(frequent) < 2:
        return {("", "", ""): list(items)}
    parts: dict[Affix, list[Item]] = defaultdict(list)
    for item in items:
        key, affix = _best_cut(item, frequent, groups, with_suffix)
        parts[affix].append(Item(item.path, item.place, key))
    return dict(parts)


def _count_needed(affix: Affix, files: int) -> float:
    """How many of the files must have an affix that tells a role; one with a number may be a part of the name."""
    has_number = any(letter.isdigit() for letter in affix[0] + affix[1])
    return max(2 if files > 5 else 1, (_MIN_NUMBERED_SHARE if has_number else _MIN_AFFIX_SHARE) * files)


def _suffixes_tell_roles(items: Sequence[Item]) -> bool:
    """Whether most names occur with two suffixes in one folder: `1.jpg` and `1.png`."""
    suffixes: dict[tuple[Place, str], set[str]] = defaultdict(set)
    for item in items:
        suffixes[item.place, item.path.stem.lower()].add(item.path.suffix.lower())
    return 2 * sum(len(found) > 1 for found in suffixes.values()) >= len(suffixes)


def _best_cut(item: Item, frequent: dict[Affix, int], groups: dict, with_suffix: bool) -> tuple[str, Affix]:
    """The way to part a name that gives it a partner, by the most frequent affix; else by the longest."""
    plain = (item.path.stem.lower(), ("", "", item.path.suffix.lower() if with_suffix else ""))
    cuts = [(key, affix) for key, affix in _named_cuts(item, with_suffix) if affix in frequent]
    with_partner = [(key, affix) for key, affix in cuts if len(groups[item.place, key].keys() & frequent.keys()) > 1]
    if with_partner:
        return max(with_partner, key=lambda cut: (frequent[cut[1]], len("".join(cut[1]))))
    return max(cuts, key=lambda cut: len("".join(cut[1]))) if cuts else plain


@dataclass(frozen=True)
class Stripped:
    """What the names of photos and of masks are compared without: constant beginnings and endings of either."""

    photo: tuple[str, str] = ("", "")
    mask: tuple[str, str] = ("", "")

    def describe(self) -> str:
        """In words, such as `"*_sat = *_mask"`; empty where the names are equal as they are."""
        if self == Stripped():
            return ""
        photo, mask = (f"{beginning}*{ending}" for beginning, ending in (self.photo, self.mask))
        return f"{photo} = {mask}"


def best_stripping(photos: Iterable[str], masks: Iterable[str]) -> Stripped:
    """Finds the constant beginnings and endings without which most names of photos and masks agree.

    Args:
        photos: Keys of the photos.
        masks: Keys of the masks.

    Returns:
        The stripping under which the most keys agree; of several, the one that takes away the least.

    Example:
        >>> best_stripping(["21_training", "22_training"], ["21_manual1", "22_manual1"]).describe()
        '*training = *manual1'
    """
    photo_keys, mask_keys = set(photos), set(masks)
    most = min(len(photo_keys), len(mask_keys))
    best, agreeing = Stripped(), len(photo_keys & mask_keys)
    if agreeing >= _COMMON_SHARE * most:
        return best
    stripped_masks = [(ends, _strip_all(mask_keys, ends)) for ends in _constant_ends(mask_keys)]
    for photo_ends in _constant_ends(photo_keys):
        stripped_photos = _strip_all(photo_keys, photo_ends)
        for mask_ends, stripped in stripped_masks:
            found = len(stripped_photos & stripped)
            if found > agreeing or (found == agreeing > 0 and _length(photo_ends, mask_ends) < _length(*_ends(best))):
                best, agreeing = Stripped(photo_ends, mask_ends), found
    return best


def _ends(stripped: Stripped) -> tuple[tuple[str, str], tuple[str, str]]:
    return stripped.photo, stripped.mask


def _length(*ends: tuple[str, str]) -> int:
    return sum(len(text) for pair in ends for text in pair)


def strip(key: str, ends: tuple[str, str]) -> str:
    """A key without a beginning and an ending that it may have."""
    beginning, ending = ends
    return key.removeprefix(beginning).removesuffix(ending) or key


def _strip_all(keys: Iterable[str], ends: tuple[str, str]) -> set[str]:
    return {strip(key, ends) for key in keys}


def _constant_ends(keys: set[str]) -> list[tuple[str, str]]:
    """The beginnings and endings, in whole words and numbers, that nearly all keys share."""
    tokens = [_TOKEN.findall(key) for key in keys]
    beginnings = _constant_starts(tokens)
    endings = ["".join(reversed(_TOKEN.findall(text))) for text in _constant_starts([row[::-1] for row in tokens])]
    return [(beginning, ending) for beginning in beginnings for ending in endings]


def _constant_starts(rows: Sequence[Sequence[str]]) -> list[str]:
    """`""`, and every row of first tokens that nearly all rows share, joined."""
    starts, text = [""], ""
    for length in range(_MAX_STRIPPED):
        heads = Counter(row[length] for row in rows if len(row) > length + 1 and "".join(row[:length]) == text)
        if not heads or heads.most_common(1)[0][1] < _COMMON_SHARE * len(rows):
            break
        text += heads.most_common(1)[0][0]
        starts.append(text)
    return starts
