"""A plain folder: photos in one folder and masks in another, or a list of both in a CSV file."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from semseg.data.base import SPLITS, Found, Sample, subfolder
from semseg.errors import DataError
from semseg.images.reading import IMAGE_SUFFIXES, list_images

PHOTO_FOLDERS = ("images", "image", "imgs", "img", "photos", "JPEGImages", "inputs")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "SegmentationClass", "targets", "gt")
_MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_l", "-mask", "-label")
_BESIDE = ("{}_masks", "{}_mask", "{}_labels", "{}_label", "{}annot", "{}_gt")
_PHOTO_WORDS = r"image|img|photo|picture|original|input|jpeg|rgb"
_MASK_WORDS = r"mask|label|annot|^ann|segm|ground|target|(^|[^a-z])gt"
_MAX_SHOWN = 4  # problems in a message
_COLUMN_WORDS = {  # masks first: a column called image_mask holds masks
    "mask": ("mask", "label", "annotation"),
    "photo": ("image", "photo", "img"),
    "split": ("split", "fold", "subset"),
}


def find_folder(folder: Path) -> Found | None:
    """Looks for `images/` with `masks/`, the same in each split, `train/` with `train_masks/`, and for CSV lists.

    Args:
        folder: Where these may lie.

    Returns:
        The samples; None if there are no such folders and lists.

    Raises:
        DataError: There are such folders, but no file of one has a partner in the other; or a list makes no sense.
    """
    found = _in_folders(folder)
    if found.problems and not found.splits:
        shown = "; ".join(found.problems[:_MAX_SHOWN])
        raise DataError(f"{folder}: no photo and mask have the same name: {shown}; rename them, or list them in a CSV")
    if not found.splits.get("train"):
        found = _listed_in_csv(folder)
    return found if found and found.splits.get("train") else None


def _in_folders(folder: Path) -> Found:
    splits, problems = {}, []
    for split, pair in _folders_of_splits(folder).items():
        splits[split], wrong = pair_up(*pair)
        problems += wrong
    return Found(folder, {split: samples for split, samples in splits.items() if samples}, problems=problems)


def _folders_of_splits(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of photos and masks of each split."""
    whole = _photos_and_masks(folder)
    pairs = {}
    for split, names in SPLITS.items():
        pair = tuple(subfolder(part, names) for part in whole) if whole else _pair_of_split(folder, names)
        if pair and all(pair):
            pairs[split] = pair
    if whole and not pairs:
        return {"train": whole}
    return pairs


def _pair_of_split(folder: Path, names: Sequence[str]) -> tuple[Path, Path | None] | None:
    """The folders of photos and masks of a split that may be called by these names."""
    inside = subfolder(folder, names)
    if inside is None:  # train_images with train_masks
        return _photos_and_masks_among(path for path in _folders(folder) if _has_any(names, path.name.lower()))
    beside = subfolder(folder, [name.format(inside.name) for name in _BESIDE])
    return _photos_and_masks(inside) or (inside, beside)  # train/images with train/masks, or train with train_masks


def _photos_and_masks(folder: Path) -> tuple[Path, Path] | None:
    """The folder inside that is called after photos and the one after masks; None if that is not clear."""
    pair = subfolder(folder, PHOTO_FOLDERS), subfolder(folder, MASK_FOLDERS)
    return pair if all(pair) else _photos_and_masks_among(_folders(folder))


def _photos_and_masks_among(folders: Iterable[Path]) -> tuple[Path, Path] | None:
    """The one of these folders whose name tells of photos and the one whose name tells of masks."""
    photos, masks = [], []
    for path in folders:
        name = path.name.lower()
        if re.search(_MASK_WORDS, name):
            masks.append(path)
        elif re.search(_PHOTO_WORDS, name):
            photos.append(path)
    return (photos[0], masks[0]) if len(photos) == len(masks) == 1 else None


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir()]


def _has_any(words: Iterable[str], text: str) -> bool:
    return any(word in text for word in words)


def pair_up(photos: Path, masks: Path) -> tuple[list[Sample], list[str]]:
    """Pairs photos with masks of the same name, a mask's ending such as `_mask` not counted.

    Args:
        photos: Folder of the photos, searched with all folders below.
        masks: Folder of the masks, likewise.

    Returns:
        The samples in natural order, and a line for every file whose partner is missing or not clear.
    """
    photos_by_name: dict[str, list[Path]] = defaultdict(list)
    for path in list_images(photos):
        photos_by_name[_key(path, photos)].append(path)
    names = set(photos_by_name)
    masks_by_name: dict[str, list[Path]] = defaultdict(list)
    for path in list_images(masks):
        masks_by_name[_mask_key(_key(path, masks), names)].append(path)
    samples, problems = [], []
    for name, files in photos_by_name.items():
        partners = masks_by_name.pop(name, [])
        if len(files) == len(partners) == 1:
            samples.append(Sample(files[0], partners[0]))
        elif not partners:
            problems += [f"{path}: has no mask in {masks}" for path in files]
        else:
            problems.append(f"{', '.join(map(str, files + partners))}: not clear which belong together")
    problems += [f"{path}: has no photo in {photos}" for paths in masks_by_name.values() for path in paths]
    return samples, problems


def _key(path: Path, base: Path) -> str:
    return str(path.relative_to(base).with_suffix(""))


def _mask_key(key: str, photo_keys: set[str]) -> str:
    """The photo's key that a mask's stands for; the mask's own where there is no such photo."""
    if key in photo_keys:
        return key
    shorter = (key[: -len(ending)] for ending in _MASK_ENDINGS if key.lower().endswith(ending))
    return next((name for name in shorter if name in photo_keys), key)


# ------------------------------------------------------------------------------------------------------ CSV lists


def _listed_in_csv(folder: Path) -> Found | None:
    """Samples from `train.csv` and its like, or from the only list in the folder."""
    lists = _lists_of_splits(folder)
    if list_images(folder) and not all(_names_columns(path) for path in lists.values()):
        return None  # a list of something else, beside the data
    splits: dict[str, list[Sample]] = defaultdict(list)
    for split, path in lists.items():
        for row_split, sample in _rows(path):
            splits[row_split or split].append(sample)
    return Found(folder, dict(splits)) if splits else None


def _lists_of_splits(folder: Path) -> dict[str, Path]:
    """The CSV file of each split; the only one in the folder is taken for training."""
    lists = {}
    for split, names in SPLITS.items():
        for name in names:
            path = folder / f"{name}.csv"
            if path.is_file():
                lists[split] = path
    every_list = sorted(folder.glob("*.csv"))
    if not lists and len(every_list) == 1:
        return {"train": every_list[0]}
    return lists


def _rows(path: Path) -> list[tuple[str, Sample]]:
    """Split (empty where no column says it) and sample of every row."""
    rows = _read_rows(path)
    columns = _columns(path, rows)
    samples = []
    for number, row in enumerate(rows[columns["first"] :], start=columns["first"] + 1):
        if len(row) <= max(columns["photo"], columns["mask"]):
            raise DataError(f"{path}: row {number} has {len(row)} cells; expected a photo and a mask")
        photo, mask = (path.parent / row[columns[name]].strip() for name in ("photo", "mask"))
        column = columns.get("split", len(row))
        text = row[column].strip().lower() if column < len(row) else ""
        split = next((name for name, names in SPLITS.items() if text in names), "")
        if text and not split:
            raise DataError(f"{path}: row {number} has the split {text!r}; expected train, val or test")
        samples.append((split, Sample(photo, mask)))
    return samples


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it as a CSV in UTF-8") from None


def _names_columns(path: Path) -> bool:
    try:
        return bool(_columns(path, _read_rows(path)))
    except DataError:
        return False


def _columns(path: Path, rows: list[list[str]]) -> dict[str, int]:
    """Where photo, mask and split stand, and the first row that holds data: a header is not required."""
    if not rows:
        raise DataError(f"{path}: is empty; expected a photo and a mask in each row")
    header = [cell.strip().lower() for cell in rows[0]]
    if Path(header[0]).suffix in IMAGE_SUFFIXES:
        return {"photo": 0, "mask": 1, "first": 0}
    columns: dict[str, int] = {}
    for name, words in _COLUMN_WORDS.items():
        for index, cell in enumerate(header):
            if index not in columns.values() and _has_any(words, cell):
                columns[name] = index
                break
    if not {"photo", "mask"} <= columns.keys():
        raise DataError(f"{path}: has the columns {', '.join(header)}; expected one named image and one named mask")
    return {**columns, "first": 1}
