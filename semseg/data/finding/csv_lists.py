"""Lists of photos and masks in CSV files: `train.csv` and its like, or one list with a column for the split."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from semseg.data.base import SPLITS, Found, Sample
from semseg.data.finding.contents import Contents
from semseg.errors import DataError
from semseg.images.reading import IMAGE_SUFFIXES

_COLUMN_WORDS = {  # masks first: a column called image_mask holds masks
    "mask": ("mask", "label", "annotation"),
    "photo": ("image", "photo", "img"),
    "split": ("split", "fold", "subset"),
}


def find_in_lists(contents: Contents) -> Found | None:
    """Looks for `train.csv` and its like with a photo and a mask in each row, or for one such list.

    Args:
        contents: Of the data set's folder, in which, or one level down, the lists lie.

    Returns:
        The samples; None if there are no lists, or lists of something else beside pictures.

    Raises:
        DataError: A list makes no sense.
    """
    for folder in dict.fromkeys((contents.root, *(path.parent for path in contents.others))):
        lists = _lists_of_splits(folder)
        if contents.pictures and not all(_names_pictures(path) for path in lists.values()):
            continue  # lists of something else, beside the data
        splits: dict[str, list[Sample]] = defaultdict(list)
        for split, path in lists.items():
            for row_split, sample in _rows(path):
                splits[row_split or split].append(sample)
        if splits.get("train"):
            return Found(folder, dict(splits), notes=[f"photos and masks as {_listed(lists)} pairs them"])
    return None


def _listed(lists: dict[str, Path]) -> str:
    return ", ".join(path.name for path in lists.values())


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


def _names_pictures(path: Path) -> bool:
    """Whether the first row of a list names two pictures."""
    try:
        rows = _read_rows(path)
        columns = _columns(path, rows)
        cells = [rows[columns["first"]][columns[name]].strip() for name in ("photo", "mask")]
    except (DataError, IndexError):
        return False
    return all(Path(cell).suffix.lower() in IMAGE_SUFFIXES for cell in cells)


def _has_any(words: Iterable[str], text: str) -> bool:
    return any(word in text for word in words)


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
