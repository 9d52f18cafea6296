"""YOLO's text files for segmentation: a line per object, its class by number, then x and y as shares of the size."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from semseg.errors import DataError, first_line
from semseg.labels.drawings import Shape
from semseg.labels.formats.common import Annotations, box, load_text, outline
from semseg.labels.outlines import pieces_of

_CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAME_FILES = ("classes.txt", "obj.names")
NOT_LABELS = {"classes.txt", "readme.txt", "requirements.txt", "notes.txt", "license.txt"}
_SLACK = 0.01  # by which shares may lie outside of 0 to 1, as in YOLO itself
_MAX_BYTES, _MAX_YAML_BYTES = 64 << 20, 1 << 20  # of the objects of a photo, and of `data.yaml`
_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the objects of one photo; later ones lie on earlier ones.

    A line of four numbers after the class is a box, whose pixels count nowhere. An empty file is a photo of background.

    Args:
        path: The file.
        root: Of the data set, in which, or between it and the file, `data.yaml` names the classes.

    Returns:
        What it says; None for a text file of another kind.

    Raises:
        DataError: A line makes no sense.
    """
    if path.name.lower() in NOT_LABELS:
        return None
    annotations, shapes = Annotations(path), []
    names = class_names(path.parent, root)
    annotations.classes = dict.fromkeys(
        "background" if name in ("__background__",) else name for name in names.values()
    )
    for number, line in enumerate(load_text(path, _MAX_BYTES).splitlines(), start=1):
        if line.strip():
            shapes += _shapes(annotations, line.split(), names, f"{path}: line {number}")
    annotations.add(path.stem, shapes, None, in_shares=True)
    split = _split_of(path, root)
    annotations.splits = {path.stem: split} if split else {}
    return annotations


def _shapes(annotations: Annotations, words: list[str], names: Mapping[int, str], place: str) -> list[Shape]:
    try:
        values = np.array(words, np.float64)
    except ValueError:
        raise DataError(f"{place}: holds text; expected the number of a class and then coordinates") from None
    if len(values) < 5 or len(values) % 2 == 0:
        raise DataError(f"{place}: has {len(values)} numbers; expected a class and then x and y in turn, an odd number")
    shares = values[1:]
    if not (np.isfinite(shares).all() and shares.min() >= -_SLACK and shares.max() <= 1 + _SLACK):
        raise DataError(
            f"{place}: has coordinates from {shares.min():g} to {shares.max():g}; expected shares of the photo's size, "
            "0 to 1: divide pixels by its width and height"
        )
    label = annotations.label(_name(values[0], names, place), place)
    if len(values) == 5:
        x, y, width, height = shares
        return [box(annotations, x - width / 2, y - height / 2, width, height)]
    return outline(annotations, label, shares.reshape(-1, 2))


def _name(value: float, names: Mapping[int, str], place: str) -> str:
    if value != int(value) or value < 0 or (names and int(value) not in names):
        raise DataError(
            f"{place}: is of class {value:g}; expected one of {min(names, default=0)} to {max(names, default='...')}"
        )
    return names.get(int(value), f"class_{int(value)}")


def write(folder: Path, split: str, masks: Iterable[tuple[str, np.ndarray]], classes: Mapping[int, str]) -> None:
    """Writes the masks of a split into `labels/SPLIT/`, and `data.yaml`.

    Each connected piece of a class becomes an outline along the borders of its pixels; where it has holes, the outline
    runs to them and back. YOLO has nothing for pixels that count nowhere: they become background.

    Args:
        folder: Where to; the photos lie in `images/SPLIT/`.
        split: Its name.
        masks: The name of each photo and its mask, uint8 `(H, W)`: ids, and 255 for what counts nowhere.
        classes: Names of those ids that are drawn.
    """
    labels = folder / "labels" / split
    labels.mkdir(parents=True)
    for name, ids in masks:
        lines = []
        for number, i in enumerate(classes):
            for piece in pieces_of(ids == i):
                lines.append(line_of(number, piece, ids.shape))
        (labels / Path(name).with_suffix(".txt")).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    splits = {path.name: f"images/{path.name}" for path in sorted((folder / "labels").iterdir())}
    write_names(folder, list(classes.values()), splits)


def line_of(number: int, outline: np.ndarray, size: tuple[int, int]) -> str:
    """The line of one object.

    Args:
        number: Of its class.
        outline: float64 `(P, 2)` of (x, y) in pixels.
        size: (H, W) of the photo.
    """
    shares = outline / np.array(size[::-1])
    return " ".join([str(number), *(f"{share:.10g}" for share in shares.ravel())])


def write_names(folder: Path, names: Sequence[str], splits: Mapping[str, str]) -> None:
    """Writes `data.yaml`: the folders of photos by their split, and the names of classes in order."""
    values = {**splits, "names": dict(enumerate(names))}
    (folder / "data.yaml").write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- classes


def class_names(folder: Path, root: Path) -> dict[int, str]:
    """The names of classes by number, from the nearest `data.yaml`, `classes.txt` or `obj.names`.

    Args:
        folder: That of the text files; those above it are searched, too.
        root: The last folder that is.

    Returns:
        Names; nothing where no file tells them.

    Raises:
        DataError: The file is damaged.
    """
    path = _find(folder, root, (*_CLASS_FILES, *_NAME_FILES))
    if path is None:
        return {}
    if path.name in _NAME_FILES:
        return dict(enumerate(line.strip() for line in load_text(path).splitlines() if line.strip()))
    names = _yaml(path).get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise DataError(f"{path}: has no names of classes under `names`; expected a list, or a name for each number")
    texts = [str(name).strip() for name in names.values()]
    if len(set(texts)) < len(texts):
        twice = next(name for name in texts if texts.count(name) > 1)
        raise DataError(f"{path}: names two classes {twice!r}; give each its own name")
    return dict(zip(names, texts, strict=True))


@lru_cache(maxsize=256)
def _find(folder: Path, root: Path, names: tuple[str, ...]) -> Path | None:
    for place in (folder, *folder.parents):
        for name in names:
            if (place / name).is_file():
                return place / name
        if place == root:
            return None
    return None


@lru_cache(maxsize=8)
def _yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(load_text(path, _MAX_YAML_BYTES))
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: is no YAML ({first_line(error)}); mend it") from None
    return values if isinstance(values, dict) else {}


def _split_of(path: Path, root: Path) -> str:
    """The split whose folder of photos `data.yaml` names; empty where none is that of this file."""
    file = _find(path.parent, root, _CLASS_FILES)
    if file is None:
        return ""
    folder = "/".join("images" if part == "labels" else part for part in path.parent.relative_to(root).parts)
    for key, split in _SPLITS.items():
        value = _yaml(file).get(key)
        for entry in value if isinstance(value, list) else [value]:
            text = str(entry or "").replace("\\", "/").replace("../", "").strip("./")
            if text and (folder == text or folder.endswith(f"/{text}") or f"{folder}/".startswith(f"{text}/")):
                return split
    return ""
