"""Folders of photos and masks in whatever layout: read as a person would who looks at the names and at the pictures."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from semseg.data.base import Found, Sample
from semseg.data.finding.contents import Contents
from semseg.data.finding.families import Family, Match, called_as_its_folder, evidence, families_of, match
from semseg.data.finding.names import MASK, PHOTO, Item, Place, place_of
from semseg.data.united import foreground
from semseg.errors import DataError
from semseg.images.tiff_headers import count_pages

_MIN_SHARE = 0.9  # of masks that find their photos in a reading that is taken at once
_MIN_POOR_SHARE = 0.5  # of those that do in a reading whose other files are told one by one
_MAX_FAMILIES = 24  # that are compared with each other, the largest
_MUCH_MORE = 2  # times the photos: the reading that covers them wins
_LOOKED_AT = 5  # photos whose several masks are compared
_MAX_OVERLAP = 0.3  # of masks of different objects or classes, as a share of the smaller one
_MIN_GROUPS = 5  # folders, or names before a number, that make groups
_MANY_GROUPS = 10  # folders with folders in them: patients with visits, but not a few sites
_MAX_SHOWN = 4
_STEM_OF_GROUP = re.compile(r"(.*\d.*?)[ _.\-]+(?:[a-z]*[ _\-]?)\d+", re.IGNORECASE)  # scene3_frame12: scene3
_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9a-f]{16,}")  # one photo changed in several ways


def find_folder(contents: Contents, photos: str | None = None, masks: str | None = None) -> Found | None:
    """Looks for photos and masks that belong together by their names, at any depth.

    Args:
        contents: Of the data set's folder.
        photos: The folder of the photos, or a pattern of their paths, where the user says it.
        masks: The same for the masks.

    Returns:
        The samples; None if there are none.

    Raises:
        DataError: Two readings are equally good; the message names both, and what settles it.
        SemsegError: Nothing is where the user says.
    """
    found = _matches(contents, photos, masks)
    if not found:
        _refuse_strangers(contents)
        return None
    best = found[0]
    _refuse_no_masks(contents.root, best, given=masks is not None)
    rivals = _rivals(best, found[1:])
    classes = _class_names([best, *rivals])
    if rivals and not classes:
        raise DataError(_ambiguous(contents.root, best, rivals))
    joined = [best, *rivals] if classes else [best, *_of_the_same_form(best, found[1:])]
    return _as_found(contents, joined, classes)


def _refuse_no_masks(root: Path, best: Match, given: bool) -> None:
    """Raises a `DataError` where the best that there is shows one shape throughout, or photos among the masks."""
    appearance = best.masks.appearance
    if appearance and appearance.same_shape and not given:
        raise DataError(
            f"{root}: {best.masks.name} shows nearly the same shape for every photo, as a camera's field of view does; "
            "if this is what should be learnt, say so by `masks`, else name the folder of the masks there"
        )
    if appearance and appearance.few_colors and appearance.photo_like:
        listed = ", ".join(path.name for path in appearance.photo_like[:_MAX_SHOWN])
        raise DataError(
            f"{root}: some files in {best.masks.name} look like photos, the others like masks: {listed}; move the "
            "photos elsewhere, or say by `masks` which files are masks"
        )


def _refuse_strangers(contents: Contents) -> None:
    """Raises a `DataError` where folders are called after photos and masks, and the names in them do not match."""
    plain = next(families_of(contents.root, contents.pictures))
    photos, masks = ([f for f in plain if f.role == role and not f.second_choice] for role in (PHOTO, MASK))
    if photos and masks:
        examples = [f"{family.name}{family.items[0].path.name}" for family in (photos[0], masks[0])]
        raise DataError(
            f"{contents.root}: the names of photos and masks do not match, as {examples[0]} and {examples[1]}; rename "
            "them, or list the pairs in a CSV file with the columns image and mask"
        )


def _matches(contents: Contents, photos: str | None, masks: str | None) -> list[Match]:
    """Readings of the folder, the best first: those that leave next to no mask over, else those that leave some."""
    poor: list[Match] = []
    for families in _families(contents, photos, masks):
        families = sorted(families, key=lambda family: -len(family.items))[:_MAX_FAMILIES]
        found = [match(first, second) for first, second in _pairs(families)]
        found = [reading for reading in found if reading.share >= _MIN_POOR_SHARE and (masks or evidence(reading) > 0)]
        found.sort(key=_rank, reverse=True)
        good = [reading for reading in found if reading.share_of_masks >= _MIN_SHARE]
        if good:
            return good
        poor += found
    return sorted(poor, key=_rank, reverse=True)[:1]


def _families(contents: Contents, photos: str | None, masks: str | None) -> Iterable[list[Family]]:
    """The families that the user names, or all that are there, from the plainest to the finest parting."""
    if masks is None and photos is None:
        return families_of(contents.root, contents.pictures)
    chosen_masks = set(contents.select(masks, "masks")) if masks else set()
    chosen_photos = set(contents.select(photos, "photos")) if photos else set()
    rest = [path for path in contents.pictures if path not in chosen_masks | chosen_photos]
    named = _named(contents.root, chosen_photos, photos, PHOTO) + _named(contents.root, chosen_masks, masks, MASK)
    if photos and masks:
        return [named]
    left, other = (MASK, PHOTO) if photos else (PHOTO, MASK)
    return (
        [*named, *(replace(family, role=left) for family in families if family.role != other)]
        for families in families_of(contents.root, rest)
    )


def _named(root: Path, paths: Collection[Path], pattern: str | None, role: str) -> list[Family]:
    if len(paths) > 1 and len({path.stem.lower() for path in paths}) == 1:
        items = [called_as_its_folder(root, path) for path in sorted(paths)]
    else:
        items = [Item(path, _place_as_given(root, path), path.stem.lower()) for path in sorted(paths)]
    return [Family(str(pattern), items, role, second_choice=False)] if items else []


def _place_as_given(root: Path, path: Path) -> Place:
    """The place of a file in a folder that the user names: its last folder plays the role, whatever it is called."""
    folders = path.parent.relative_to(root).parts
    place = place_of(folders)
    if place.role or not place.others:
        return place
    return Place(place.others[-1:], place.split, place.others[:-1])


def _pairs(families: Sequence[Family]) -> Iterable[tuple[Family, Family]]:
    for first in families:
        for second in families:
            if first is not second and first.role != MASK and second.role != PHOTO:
                yield first, second


def _rank(reading: Match) -> tuple[float, ...]:
    return evidence(reading), round(reading.share, 1), len(reading.partners)


# ------------------------------------------------------------------------------------------- rivals and companions


def _rivals(best: Match, others: Sequence[Match]) -> list[Match]:
    """Readings that are as good as the best, of the same photos or the same masks."""
    rivals = []
    for other in others:
        shared = other.photos is best.photos or other.masks is best.masks
        if shared and evidence(other) >= evidence(best) and _MUCH_MORE * len(other.partners) > len(best.partners):
            rivals.append(other)
    return rivals


def _of_the_same_form(best: Match, others: Sequence[Match]) -> list[Match]:
    """Readings of other files that are as good as the best: the other splits, sites or formats of the same set."""
    joined: list[Match] = []
    used = {item.path for item in (*best.photos.items, *best.masks.items)}
    for other in others:
        files = {item.path for item in (*other.photos.items, *other.masks.items)}
        if evidence(other) >= evidence(best) and not files & used:
            joined.append(other)
            used |= files
    return joined


def _ambiguous(root: Path, best: Match, rivals: Sequence[Match]) -> str:
    if any(rival.masks is not best.masks for rival in rivals):
        names, what, parameter = [best.masks.name, *(rival.masks.name for rival in rivals)], "the masks of", "masks"
        whose = best.photos.name
    else:
        names, what, parameter = [best.photos.name, *(rival.photos.name for rival in rivals)], "the photos of", "photos"
        whose = best.masks.name
    listed = " and ".join(dict.fromkeys(names))
    return f"{root}: {listed} both fit as {what} {whose}; say which by `{parameter}`"


def _class_names(readings: Sequence[Match]) -> list[str]:
    """The classes where each reading, or each folder of masks in one, shows one of them; else nothing.

    Different classes hardly overlap; two drawings of the same thing do.
    """
    if len(readings) > 1:
        if any(reading.photos is not readings[0].photos or reading.masks.second_choice for reading in readings):
            return []
        masks_of = [{photo.path: masks for photo, masks in reading.partners.items()} for reading in readings]
        several = [[masks[photo][0] for masks in masks_of if photo in masks] for photo in masks_of[0]]
        names = _distinct_parts([reading.masks.name for reading in readings])
    else:
        several = [masks for masks in readings[0].partners.values() if len(masks) > 1]
        names = _folders_that_repeat(readings[0])
    return names if names and _hardly_overlap(several) else []


def _distinct_parts(names: Sequence[str]) -> list[str]:
    """`"*_crack.png in masks/"` and `"*_rust.png in masks/"` as `"crack"` and `"rust"`."""
    files = [name.partition(" in ")[0] for name in names]
    words = [re.findall(r"[A-Za-z]+", name) for name in (files if len(set(files)) == len(names) else names)]
    common = set(words[0]).intersection(*words[1:])
    return [" ".join(word for word in row if word not in common) for row in words]


def _folders_that_repeat(reading: Match) -> list[str]:
    """The last folders of the masks, where these are the same few for most photos: `masks/crack/7.png`."""
    photos_of: dict[str, set[Path]] = defaultdict(set)
    for photo, masks in reading.partners.items():
        for mask in masks:
            if len(mask.place.others) <= len(photo.place.others):
                return []
            photos_of[mask.place.others[-1]].add(photo.path)
    repeated = sum(len(photos) > 1 for photos in photos_of.values())
    return list(photos_of) if len(photos_of) > 1 and 2 * repeated > len(photos_of) else []


def _hardly_overlap(several: Sequence[Sequence[Item]]) -> bool:
    """Whether the masks of one photo are two-valued and show different things, by a few photos."""
    try:
        overlaps = [
            overlap
            for masks in [masks for masks in several if len(masks) > 1][:_LOOKED_AT]
            for overlap in _overlaps([foreground(mask.path) for mask in masks])
        ]
    except DataError:  # more than two values
        return False
    return bool(overlaps) and float(np.mean(overlaps)) < _MAX_OVERLAP


def _overlaps(foregrounds: Sequence[np.ndarray]) -> list[float]:
    """For each pair of masks, the share of the smaller one that the other covers."""
    pairs = [(a, b) for i, a in enumerate(foregrounds) for b in foregrounds[:i] if a.shape == b.shape]
    return [float((a & b).sum() / max(1, min(a.sum(), b.sum()))) for a, b in pairs]


# -------------------------------------------------------------------------------------------------- as a data set


def _as_found(contents: Contents, readings: Sequence[Match], classes: Sequence[str]) -> Found | None:
    masks_of: dict[Item, list[tuple[Item, int]]] = defaultdict(list)
    for number, reading in enumerate(readings, start=1):
        for photo, masks in reading.partners.items():
            masks_of[photo] += [(mask, _class_of(mask, number, readings, classes)) for mask in masks]
    several = [[mask for mask, _ in entries] for entries in masks_of.values() if len(entries) > 1]
    if several and not classes and not _hardly_overlap(several):
        raise DataError(_several_masks(several[0]))
    splits = _splits_of(contents, masks_of, bool(several), bool(classes))
    if "train" not in splits:
        return None
    unpaired, of_other_splits = _photos_without_mask(readings, set(splits))
    left_out = Counter(item.place.split for item in of_other_splits)
    places = {photo.path: photo.place for photo in masks_of}
    return Found(
        root_of(contents.root, places),
        splits,
        class_names=("background", *(re.sub(r"^\d+[ ._-]+", "", name) for name in classes)) if classes else (),
        problems=_lonely_masks(readings),
        unpaired=[item.path for item in unpaired],
        left_out=[item.path for item in of_other_splits],
        group=_groups_of_pages(splits["train"]) or groups_by_name(places),
        notes=[
            _describe(readings, several, classes),
            *(f"left out: {count} photos of {split}, as they have no masks" for split, count in left_out.items()),
        ],
    )


def _class_of(mask: Item, number: int, readings: Sequence[Match], classes: Sequence[str]) -> int:
    """The class, from 1 on, whose pixels a mask shows where it is one of several of its photo."""
    if not classes:
        return 1
    return number if len(readings) > 1 else 1 + classes.index(mask.place.others[-1])


def _splits_of(
    contents: Contents, masks_of: dict[Item, list[tuple[Item, int]]], in_parts: bool, in_classes: bool
) -> dict[str, list[Sample]]:
    """Samples by split, in natural order; all for training where only one split is named."""
    splits: dict[str, list[Sample]] = defaultdict(list)
    for photo in sorted(masks_of, key=lambda item: contents.order[item.path]):
        entries = sorted(masks_of[photo], key=lambda entry: contents.order[entry[0].path])
        parts = tuple(mask.path for mask, _ in entries) if in_parts else ()
        numbers = tuple(number for _, number in entries) if in_classes else ()
        split = photo.place.split or entries[0][0].place.split or "train"
        splits[split] += _in_pages(Sample(photo.path, entries[0][0].path, parts, numbers))
    return dict(splits) if len(splits) > 1 else {"train": next(iter(splits.values()))}


def _in_pages(sample: Sample) -> list[Sample]:
    """A sample for each page where photo and mask are stacks of as many; else the sample itself."""
    count = count_pages(sample.photo)
    if count == 1 or sample.parts or count_pages(sample.mask) != count:
        return [sample]  # a stack with another number of masks is told of when it is read
    return [replace(sample, page=page) for page in range(count)]


def _several_masks(masks: Sequence[Item]) -> str:
    listed = ", ".join(mask.path.name for mask in masks[:_MAX_SHOWN])
    return (
        f"{masks[0].path.parent}: {len(masks)} masks of one photo ({listed}) show nearly the same, or more than "
        "one class each; say by `masks` which of them count, for example with a pattern of their names"
    )


def _lonely_masks(readings: Sequence[Match]) -> list[str]:
    problems = [f"{item.path}: may be the mask of several photos" for r in readings for item in r.unclear]
    return problems + [f"{item.path}: has no photo in {r.photos.name}" for r in readings for item in r.lonely]


def _photos_without_mask(readings: Sequence[Match], splits: set[str]) -> tuple[list[Item], list[Item]]:
    """The photos that lack a mask, and those of splits in which none has one."""
    with_mask = {photo for reading in readings for photo in reading.partners}
    photos = dict.fromkeys(item for reading in readings for item in reading.photos.items)
    without = [item for item in photos if item not in with_mask]
    of_other_splits = [item for item in without if item.place.split and item.place.split not in splits]
    others = set(of_other_splits)
    return [item for item in without if item not in others], of_other_splits


def _describe(readings: Sequence[Match], several: Sequence[object], classes: Sequence[str]) -> str:
    best = readings[0]
    masks = " and ".join(dict.fromkeys(reading.masks.name for reading in readings))
    text = f"photos in {best.photos.name}, masks in {masks}"
    if best.names:
        text += f", by names {best.names}"
    if classes:
        return f"{text}; a mask per class: {', '.join(classes)}"
    return f"{text}; the several masks of a photo are united, as each shows an object" if several else text


def add_views(found: Found, contents: Contents, pattern: str) -> None:
    """Gives each sample the picture that tells where its pixels count.

    Args:
        found: Its samples are replaced.
        contents: Of the data set's folder.
        pattern: The folder of these pictures, or a pattern of their paths.

    Raises:
        SemsegError: There are no such pictures.
        DataError: A photo has none.
    """
    photos = {sample.photo for samples in found.splits.values() for sample in samples}
    views = _named(contents.root, contents.select(pattern, "ignore_outside"), pattern, MASK)[0]
    matched = match(_named(contents.root, photos, None, PHOTO)[0], views)
    view_of = {photo.path: items[0].path for photo, items in matched.partners.items()}
    missing = sorted(photos - view_of.keys())
    if missing:
        raise DataError(
            f"{missing[0]}: has no picture in {pattern} of where its pixels count, as {len(missing)} of {len(photos)} "
            "photos; add them, or leave `ignore_outside` away"
        )
    for split, samples in found.splits.items():
        found.splits[split] = [replace(sample, view=view_of[sample.photo]) for sample in samples]
    found.notes.append(f"pixels outside of what {views.name} shows count nowhere")


def root_of(root: Path, photos: Iterable[Path]) -> Path:
    """The folder that a data set is: the lowest that holds all photos and is not named after a part of one.

    Args:
        root: The folder that was looked at.
        photos: Inside it.
    """
    common = Path(os.path.commonpath([path.parent for path in photos]))
    while common != root:
        place = place_of((common.name,))
        if not place.role and not place.split:
            break
        common = common.parent
    return common


def groups_by_name(places: dict[Path, Place]) -> Callable[[Sample], str] | None:
    """What keeps photos together that are of one patient, scene or film, where names or folders tell that.

    Args:
        places: Of each photo.

    Returns:
        The name of a sample's group; None where each photo stands for itself.
    """
    depth = max((len(place.others) for place in places.values()), default=0)
    ways: list[tuple[Callable[[Path, Place], str], int]] = [(_original_of_roboflow, _MIN_GROUPS)]
    ways += [(partial(_folder_of_group, level), _MANY_GROUPS) for level in range(1, depth)]
    ways += [(partial(_folder_of_group, depth), _MIN_GROUPS), (_start_of_name, _MIN_GROUPS)]
    for name_of, fewest in ways:
        names = {path: name_of(path, place) for path, place in places.items()}
        counts = Counter(names.values())
        in_groups = sum(count for count in counts.values() if count > 1)
        if "" not in counts and len(counts) >= fewest and 2 * in_groups >= len(names):
            return partial(_group_of, names)
    return None


def _group_of(names: dict[Path, str], sample: Sample) -> str:
    return names[sample.photo]


def _groups_of_pages(samples: Sequence[Sample]) -> Callable[[Sample], str] | None:
    """Keeps neighbouring pages of stacks together, which are nearly copies: whole stacks, or blocks of pages of few."""
    pages = Counter(sample.photo for sample in samples if sample.page is not None)
    if not pages:
        return None
    blocks = 1 if len(pages) >= _MIN_GROUPS else _MIN_GROUPS
    return partial(_block_of_pages, pages, blocks)


def _block_of_pages(pages: Mapping[Path, int], blocks: int, sample: Sample) -> str:
    count = pages[sample.photo]
    if sample.page is None or blocks == 1 or not count:
        return str(sample.photo)
    size = -(-count // blocks)
    first = sample.page // size * size
    return f"pages {first + 1} to {min(first + size, count)} of {sample.photo}"


def _original_of_roboflow(path: Path, place: Place) -> str:
    found = _ROBOFLOW.fullmatch(path.stem)
    return found[1] if found else ""


def _folder_of_group(depth: int, path: Path, place: Place) -> str:
    return "/".join(place.others[:depth])


def _start_of_name(path: Path, place: Place) -> str:
    found = _STEM_OF_GROUP.fullmatch(path.stem)
    return "/".join((*place.others, found[1])) if found else ""
