"""Files that play one part in a data set, what they look like, and which photos and masks belong together."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np

from semseg.data.base import spread
from semseg.data.finding.names import (
    MASK,
    PHOTO,
    Item,
    Place,
    best_stripping,
    is_second_choice,
    place_of,
    role_of,
    split_by_affix,
    split_of,
    strip,
)  # fmt: skip
from semseg.errors import DataError
from semseg.images.reading import read_mask
from semseg.images.tiff_headers import count_pages
from semseg.labels.signs import nearly_the_same

_LOOKED_AT = 12  # files of a family, evenly spread
_MIN_EVENNESS_GAIN = 0.1  # of masks over photos: the share of pixels that lie in areas of one colour
_EVEN_RANGE = 3  # levels: what JPEG leaves in an area of one colour
_EVENNESS_OF_PHOTOS = 0.3
_FEW_NUMBERS = 256
_NUMBER_AT_END = re.compile(r"[ _.\-]\(?\d+\)?$")
_MIN_SHARE = 0.9  # of masks that find their photos, for names that are compared as those of one folder


@dataclass(frozen=True)
class Appearance:
    """What some files of a family look like.

    Attributes:
        evenness: Median share of the pixels that lie in areas of one colour, 0 to 1.
        few_colors: Whether most of them hold no more than 256 colours or numbers.
        same_shape: Whether all of them show nearly the same two-valued shape, as a camera's field of view.
        photo_like: Those that look like photos.
    """

    evenness: float
    few_colors: bool
    same_shape: bool
    photo_like: tuple[Path, ...]


@dataclass
class Family:
    """Files that play one part: the photos, the masks, another kind of masks.

    Attributes:
        name: How people would call it: `images/`, `*_mask.png`.
        items: The files.
        role: `"photo"` or `"mask"` where the names say so, else None.
        second_choice: Whether the names say that it is made of masks, not for learning.
    """

    name: str
    items: list[Item]
    role: str | None
    second_choice: bool

    @cached_property
    def appearance(self) -> Appearance | None:
        """What it looks like; None where no file that was looked at can be read."""
        paths = [item.path for item in spread(self.items, _LOOKED_AT)]
        pictures = {path: pixels for path in paths if (pixels := _pixels(path)) is not None}
        if not pictures:
            return None
        evennesses = {path: evenness(picture) for path, picture in pictures.items()}
        counts = {path: _count_colors(picture) for path, picture in pictures.items()}
        many = {path for path, count in counts.items() if count > _FEW_NUMBERS}
        return Appearance(
            evenness=float(np.median(list(evennesses.values()))),
            few_colors=2 * len(many) <= len(pictures),
            same_shape=max(counts.values()) == 2 and nearly_the_same(list(pictures.values())),
            photo_like=tuple(path for path in pictures if path in many and evennesses[path] < _EVENNESS_OF_PHOTOS),
        )


def _pixels(path: Path) -> np.ndarray | None:
    """Numbers `(H, W)` or colours `(H, W, 3)`, as stored; None where they cannot be read."""
    try:
        return read_mask(path, page=0 if count_pages(path) > 1 else None).pixels
    except DataError:
        return None


def evenness(picture: np.ndarray) -> float:
    """The share of a picture that lies in areas of one colour.

    Args:
        picture: uint8 or uint16 `(H, W)` or `(H, W, 3)`.

    Returns:
        0 to 1: high in masks, low in photos.
    """
    plain = picture if picture.dtype in (np.uint8, np.uint16) else picture.astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    varies = cv2.dilate(plain, kernel).astype(np.float32) - cv2.erode(plain, kernel)
    return float((varies.reshape(*picture.shape[:2], -1).max(axis=2) <= _EVEN_RANGE * (picture.ndim == 3)).mean())


def _count_colors(picture: np.ndarray) -> int:
    if picture.ndim == 3:
        picture = picture.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    return len(np.unique(picture))


# ------------------------------------------------------------------------------------------- which files are alike


def families_of(root: Path, files: Sequence[Path]) -> Iterator[list[Family]]:
    """The ways to part the files of a data set by the part that they play, from the plainest to the finest.

    Args:
        root: The data set's folder.
        files: Pictures inside, at any depth.

    Yields:
        By the names of folders; by these and by what file names begin or end with; by every folder; unless folders
        tell photos from masks, by whole names of files that most folders hold: these first where each is another word.
    """
    items = [Item(path, place_of(path.parent.relative_to(root).parts), path.stem.lower()) for path in files]
    by_role: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    by_folder: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in items:
        by_role[item.place.role].append(item)
        place = Place((*item.place.others, *item.place.role), item.place.split, ())
        by_folder[place.role].append(Item(item.path, place, item.key))
    told = {role_of(name) for role in by_role for name in role}
    alike = [] if {PHOTO, MASK} <= told else _named_alike(root, items)
    if _are_words(alike, items):
        yield alike
    yield [_family(role, ("", "", ""), group) for role, group in by_role.items()]
    yield _parted(by_role)
    yield _parted(by_folder)
    yield alike


def _parted(groups: dict[tuple[str, ...], list[Item]]) -> list[Family]:
    return [
        _family(role, affix, items) for role, group in groups.items() for affix, items in split_by_affix(group).items()
    ]


def _named_alike(root: Path, items: Sequence[Item]) -> list[Family]:
    """A family for each name that most folders hold, as in `7/photo.png` with `7/mask.png`; none where it is chance."""
    by_name: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_name[item.path.stem.lower()].append(called_as_its_folder(root, item.path))
    folders = {item.path.parent for item in items}
    alike = [
        Family(f"{group[0].path.name} of each folder", group, role_of(name), is_second_choice(name))
        for name, group in by_name.items()
        if 2 * len(group) > len(folders) > 1 and all(item.place.others for item in group)
    ]
    return alike if len(alike) < len(folders) and (_are_words(alike, items) or _are_photo_and_mask(alike)) else []


def _are_words(alike: Sequence[Family], items: Sequence[Item]) -> bool:
    """Whether these names are all that there are, and differ by more than numbers, as those of many pictures do."""
    words = {"".join(filter(str.isalpha, family.items[0].path.stem.lower())) for family in alike}
    complete = sum(len(family.items) for family in alike) >= _MIN_SHARE * len(items)
    return complete and len(alike) > 1 and len(words) == len(alike)


def _are_photo_and_mask(alike: Sequence[Family]) -> bool:
    """Whether the names say so, or there are two: of pictures with few colours and of pictures with many."""
    if {PHOTO, MASK} <= {family.role for family in alike}:
        return True
    looks = [family.appearance for family in alike]
    return len(looks) == 2 and {look.few_colors for look in looks if look} == {True, False}


def called_as_its_folder(root: Path, path: Path) -> Item:
    """A file whose folder tells which picture it is of, and whose name which part it plays."""
    folder = path.parent.relative_to(root)
    others = tuple(name for name in folder.parts if split_of(name) is None)
    return Item(path, Place((), place_of(folder.parts).split, others), folder.as_posix())


def _family(role: tuple[str, ...], affix: tuple[str, str, str], items: list[Item]) -> Family:
    beginning, ending, suffix = affix
    pattern = f"{beginning}*{ending}{suffix}"
    parents = dict.fromkeys(item.path.parent for item in items)
    folders = list(dict.fromkeys(_folder_called(parent, role) for parent in parents))
    folder = ", ".join(f"{folder}/" for folder in folders[:3]) + (" ..." if len(folders) > 3 else "")
    name = folder if pattern == "*" else f"{pattern} in {folder}"
    told = [beginning + ending, *reversed(role)]
    told_role = next((found for text in told if (found := role_of(text) or _role_of_short(text))), None)
    if told_role == PHOTO and told[0] and not role_of(told[0]):
        told_role = None  # 7_1stHO.png beside 7.png in images/ need be no photo
    return Family(name, items, told_role, any(map(is_second_choice, told)))


def _role_of_short(affix: str) -> str | None:
    return MASK if affix in ("_l", "_m") else None  # CamVid's labels are called x_L.png


def _folder_called(folder: Path, role: tuple[str, ...]) -> str:
    """The name of the folder, or of one above it, that told the role, as it is written; else of the folder itself."""
    names = [path.name for path in (folder, *folder.parents)]
    return next((name for name in names if role and role[-1] in place_of((name,)).role), names[0])


# ----------------------------------------------------------------------------------- which photos and masks match


@dataclass
class Match:
    """Photos and masks that belong together by their names.

    Attributes:
        photos: The family of the photos.
        masks: The family of the masks.
        partners: For each photo with a mask, its masks.
        unclear: Masks that may be of several photos.
        lonely: Masks of no photo.
        names: How the names differ, such as `"*_sat = *_mask"`, or empty.
    """

    photos: Family
    masks: Family
    partners: dict[Item, list[Item]] = field(default_factory=dict)
    unclear: list[Item] = field(default_factory=list)
    lonely: list[Item] = field(default_factory=list)
    names: str = ""

    @property
    def share_of_masks(self) -> float:
        """The share of the masks that found their photo, 0 to 1."""
        return sum(map(len, self.partners.values())) / len(self.masks.items)

    @property
    def share_of_photos(self) -> float:
        """The share of the photos that found a mask, 0 to 1."""
        return len(self.partners) / len(self.photos.items)

    @property
    def share(self) -> float:
        """The larger of both shares."""
        return max(self.share_of_masks, self.share_of_photos)


def match(photos: Family, masks: Family) -> Match:
    """Matches photos and masks: by their names, by the folder of one photo, or by a folder named after the photo.

    Args:
        photos: The photos.
        masks: What may be their masks.
    """
    ways = (_match_by_name, _match_by_folder, _match_by_named_folder, _match_numbered, _match_unpadded)
    return max((way(photos, masks) for way in ways), key=lambda found: found.share_of_masks + found.share_of_photos)


def _match_by_name(photos: Family, masks: Family) -> Match:
    """Of all masks of a split, whose names may tell it (`21_training`), or of every folder by itself: `1_rust`."""
    found = _match_parts(photos, masks, lambda place: place.split)
    if found.share_of_masks >= _MIN_SHARE:
        return found
    by_folder = _match_parts(photos, masks, lambda place: place)
    return by_folder if by_folder.share_of_masks >= _MIN_SHARE else found


def _match_parts(photos: Family, masks: Family, part_of: Callable[[Place], object]) -> Match:
    """Matches the names of each part of the masks by itself."""
    result, names = Match(photos, masks), []
    parts: dict[object, list[Item]] = defaultdict(list)
    for item in masks.items:
        parts[part_of(item.place)].append(item)
    for part in parts.values():
        split = part[0].place.split
        chosen = [item for item in photos.items if split is None or item.place.split in (split, None)]
        names.append(_match_names(result, chosen, part))
    result.names = " and ".join(dict.fromkeys(filter(None, names)))
    return result


def _match_names(result: Match, photos: Sequence[Item], masks: Sequence[Item]) -> str:
    """Adds the photos and masks whose names agree; says how they differ."""
    stripped = best_stripping((item.key for item in photos), (item.key for item in masks))
    by_key: dict[str, list[Item]] = defaultdict(list)
    for item in photos:
        by_key[strip(item.key, stripped.photo)].append(item)
    for mask in masks:
        candidates = by_key.get(strip(mask.key, stripped.mask), [])
        _give(result, mask, [photo for photo in candidates if photo.place.may_be_of(mask.place)])
    return stripped.describe()


def _give(result: Match, mask: Item, candidates: Sequence[Item]) -> None:
    """Gives a mask to the photo of its own place, or to the only one there is."""
    near = [photo for photo in candidates if _is_near(photo.place, mask.place)] or candidates
    if len(near) == 1:
        result.partners.setdefault(near[0], []).append(mask)
    else:
        (result.unclear if near else result.lonely).append(mask)


def _is_near(photo: Place, mask: Place) -> bool:
    return photo.split == mask.split and photo.others == mask.others


def _match_by_folder(photos: Family, masks: Family) -> Match:
    """Masks of any names beside the only photo of a folder: `<id>/images/<id>.png` and `<id>/masks/<number>.png`."""
    by_place: dict[tuple, list[Item]] = defaultdict(list)
    for item in photos.items:
        by_place[item.place.split, item.place.others].append(item)
    result = Match(photos, masks)
    if max(map(len, by_place.values())) > 1 or len(by_place) < 2:
        return result
    for mask in masks.items:
        _give(result, mask, by_place.get((mask.place.split, mask.place.others), []))
    return result


def _match_by_named_folder(photos: Family, masks: Family) -> Match:
    """Masks in a folder that is called as their photo is: `images/7.png` and `masks/7/1.png`."""
    by_key: dict[str, list[Item]] = defaultdict(list)
    for item in photos.items:
        by_key[item.key].append(item)
    result = Match(photos, masks)
    for mask in masks.items:
        name = mask.place.others[-1].lower() if mask.place.others else ""
        _give(result, mask, by_key.get(name, []))
    return result


def _match_numbered(photos: Family, masks: Family) -> Match:
    """Masks that are called as their photo and numbered: `images/7.png` and `masks/7_1.png`."""
    return _match_by_key(photos, masks, lambda key: key, lambda key: _NUMBER_AT_END.sub("", key))


def _match_unpadded(photos: Family, masks: Family) -> Match:
    """Numbers with and without zeros before them: `images/img7.png` and `masks/img007.png`."""
    unpad = partial(re.compile(r"(?<!\d)0+(?=\d)").sub, "")
    return _match_by_key(photos, masks, unpad, unpad)


def _match_by_key(photos: Family, masks: Family, key: Callable[[str], str], mask_key: Callable[[str], str]) -> Match:
    """Matches names after a change of both."""
    by_key: dict[str, list[Item]] = defaultdict(list)
    for item in photos.items:
        by_key[key(item.key)].append(item)
    result = Match(photos, masks)
    for mask in masks.items:
        candidates = by_key.get(mask_key(mask.key), [])
        _give(result, mask, [photo for photo in candidates if photo.place.may_be_of(mask.place)])
    return result


def evidence(found: Match) -> int:
    """How much speaks for it that these are photos with their masks, besides that the names match.

    Returns:
        The sum of what the names say and of what the pictures look like; below 0 for what is none.
    """
    photos, masks = found.photos, found.masks
    points = {PHOTO: -2, None: 0, MASK: 2}[masks.role] + {PHOTO: 1, None: 0, MASK: -2}[photos.role]
    points -= masks.second_choice
    if photos.appearance and masks.appearance:
        gain = masks.appearance.evenness - photos.appearance.evenness
        named = photos.role == PHOTO and masks.role == MASK  # flat drawings may be photos, and JPEG blurs masks
        points += 2 * (gain > _MIN_EVENNESS_GAIN) - (1 if named else 3) * (gain < -_MIN_EVENNESS_GAIN)
        points -= 3 * masks.appearance.same_shape
    return points
