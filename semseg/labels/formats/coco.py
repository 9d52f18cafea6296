"""COCO's JSON: polygons, run lengths as lists and as compressed text, one file for many photos."""

import json
import operator
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.errors import DataError
from semseg.labels.drawings import Runs, Shape
from semseg.labels.formats.common import (
    Annotations,
    as_dict,
    as_list,
    as_points,
    as_size,
    box,
    get,
    get_key,
    load_json,
    outline,
)
from semseg.labels.outlines import pieces_of, runs_of_mask


def read(path: Path, root: Path) -> Annotations | None:
    """Reads a file of photos, categories and annotations.

    The polygons of an annotation are united. Annotations lie on each other in the order of the file. Crowds
    (`iscrowd`), and the boxes of annotations without an outline, count nowhere; where most annotations are crowds, the
    program that wrote the file means run lengths by that, and they are areas like others.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None where it holds no outlines at all, such as captions or predictions.

    Raises:
        DataError: It is cut, damaged or contradicts itself.
    """
    data = load_json(path, _with_arrays)
    if not isinstance(data, dict) or not {"images", "annotations"} <= data.keys():
        return None
    if "categories" not in data:
        if any(isinstance(entry, dict) and entry.get("segmentation") for entry in data["annotations"] or ()):
            raise DataError(
                f"{path}: has annotations, and no categories to say what they are; export it again with them"
            )
        return None
    annotations = Annotations(path)
    names = _categories(annotations, data["categories"])
    of_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for number, entry in enumerate(as_list(data["annotations"], str(path))):
        place = f"{path}: annotation {as_dict(entry, f'{path}: annotation {number}').get('id', number)}"
        of_image[get_key(entry, "image_id", place)].append(entry)
    entries = [entry for entries in of_image.values() for entry in entries]
    if entries and not any(entry.get("segmentation") or entry.get("bbox") for entry in entries):
        return None
    named = [entry for entry in entries if names.get(get_key(entry, "category_id", str(path))) is not None]
    crowds = sum(bool(entry.get("iscrowd")) for entry in named)
    reader = _Reader(annotations, names, crowds_count=2 * crowds > len(named))
    for image in as_list(data["images"], str(path)):
        reader.add(as_dict(image, f"{path}: images"), of_image)
    if of_image:
        raise DataError(
            f"{path}: annotates the image {next(iter(of_image))!r}, which it does not list; export it again"
        )
    return annotations


def _with_arrays(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation with its polygons as arrays, which take a quarter of the memory, where they make any."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list) and segmentation and all(isinstance(polygon, list) for polygon in segmentation):
        with suppress(TypeError, ValueError, OverflowError):
            entry["segmentation"] = [np.array(polygon, np.float64) for polygon in segmentation]
    return entry


def _categories(annotations: Annotations, categories: Any) -> dict[Any, str | None]:
    """The name of each category by its id."""
    names: dict[Any, str | None] = {}
    for category in as_list(categories, f"{annotations.path}: categories"):
        place = f"{annotations.path}: categories"
        category_id = get_key(as_dict(category, place), "id", place)
        if category_id in names:
            raise DataError(f"{place}: give the id {category_id!r} twice; expected each once: mend the file")
        names[category_id] = annotations.label(get(category, "name", place), place)
        color = category.get("color")
        if names[category_id] is not None:
            is_color = isinstance(color, list) and len(color) == 3 and all(isinstance(level, int) for level in color)
            annotations.classes.setdefault(names[category_id], tuple(color) if is_color else None)
    return names


class _Reader:
    """Reads the annotations of one image after the other."""

    def __init__(self, annotations: Annotations, names: Mapping[Any, str | None], crowds_count: bool):
        self.annotations, self.names, self.crowds_count = annotations, names, crowds_count

    def add(self, image: dict[str, Any], of_image: dict[Any, list[dict[str, Any]]]) -> None:
        """Adds the drawing of an image, and takes its annotations away."""
        place = f"{self.annotations.path}: images"
        name = get(image, "file_name", place)
        image_id = get_key(image, "id", place)
        size = as_size(image.get("height"), image.get("width"), f"{self.annotations.path}: image {name!r}")
        shapes: list[Shape] = []
        for number, entry in enumerate(of_image.pop(image_id, ())):
            place = f"{self.annotations.path}: annotation {entry.get('id', number)} of {name}"
            shapes += self.shapes(entry, size, place)
        self.annotations.add(str(name), shapes, size)

    def shapes(self, entry: dict[str, Any], size: tuple[int, int] | None, place: str) -> list[Shape]:
        """What an annotation draws."""
        category = get_key(entry, "category_id", place)
        if category not in self.names:
            raise DataError(f"{place}: is of the category {category!r}, which is not in the file's list; mend the file")
        label, left_out = self.names[category], self.annotations.left_out
        if entry.get("iscrowd") and not self.crowds_count:
            left_out["crowds (iscrowd) count nowhere"] += 1
            label = None
        segmentation = entry.get("segmentation")
        if isinstance(segmentation, dict):
            self.annotations.outlines += 1
            return [Shape(label, runs=_runs(segmentation, size, place))]
        if segmentation:
            polygons = _polygons(segmentation, place)
            return [shape for points in polygons for shape in outline(self.annotations, label, points)]
        if entry.get("bbox"):
            corner, size_of_box = as_points(as_list(entry["bbox"], place)[:4], f"{place}: bbox")
            return [box(self.annotations, *corner, *size_of_box)]
        left_out["annotations that draw nothing"] += 1
        return []


def _polygons(segmentation: Any, place: str) -> Iterable[np.ndarray]:
    """The points of each polygon; a single one may stand without a list around it."""
    is_flat = isinstance(as_list(segmentation, place)[0], int | float)
    for polygon in [segmentation] if is_flat else segmentation:
        if isinstance(polygon, dict):
            raise DataError(f"{place}: mixes polygons and run lengths; expected one of them")
        yield as_points(polygon, f"{place}: segmentation")


def write(folder: Path, split: str, masks: Iterable[tuple[str, np.ndarray]], classes: Mapping[int, str]) -> None:
    """Writes the masks of a split into `annotations/instances_SPLIT.json`.

    Each connected piece of a class becomes a polygon along the borders of its pixels, so that filling it gives back the
    mask exactly; what counts nowhere becomes a crowd of run lengths, called ignore.

    Args:
        folder: Where to.
        split: Its name.
        masks: The name of each photo and its mask, uint8 `(H, W)`: ids, and 255 for what counts nowhere.
        classes: Names of those ids that are drawn.
    """
    categories = categories_of(classes.values())
    number_of = dict(zip(classes, range(1, len(classes) + 1), strict=True))
    images: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for name, ids in masks:
        image = {"id": len(images) + 1, "file_name": name, "height": ids.shape[0], "width": ids.shape[1]}
        images.append(image)
        drawn = [(number_of[i], outlined(piece)) for i in classes for piece in pieces_of(ids == i)]
        if (ids == IGNORE).any():
            drawn.append((len(classes) + 1, _crowd(ids == IGNORE)))
        entries += [
            {"id": len(entries) + i, "image_id": image["id"], "category_id": category, **entry}
            for i, (category, entry) in enumerate(drawn, start=1)
        ]
    if any(entry["iscrowd"] for entry in entries):
        categories.append({"id": len(classes) + 1, "name": "ignore", "supercategory": ""})
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}), encoding="utf-8")


def categories_of(names: Iterable[str]) -> list[dict[str, Any]]:
    """The entries of classes, numbered from 1 on."""
    return [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names, start=1)]


def outlined(outline: np.ndarray) -> dict[str, Any]:
    """What an annotation says of its area, by the closed outline of this, float64 `(P, 2)` of (x, y)."""
    return {"segmentation": [outline.ravel().tolist()], "iscrowd": 0, **_extent(outline)}


def _extent(piece: np.ndarray) -> dict[str, Any]:
    """Box and area of a closed outline."""
    low, high = piece.min(axis=0), piece.max(axis=0)
    x, y = piece.T
    area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    return {"bbox": [*low.tolist(), *(high - low).tolist()], "area": area}


def _crowd(inside: np.ndarray) -> dict[str, Any]:
    runs = runs_of_mask(inside)
    rows, columns = np.nonzero(inside)
    top, left = int(rows.min()), int(columns.min())
    bbox = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
    counts = np.append(runs.counts, inside.size - runs.counts.sum()) if runs.counts.sum() < inside.size else runs.counts
    segmentation = {"size": list(inside.shape), "counts": encode_counts(counts)}
    return {"segmentation": segmentation, "iscrowd": 1, "bbox": bbox, "area": len(rows)}


# ------------------------------------------------------------------------------------------------------- run lengths


def _runs(segmentation: Mapping[str, Any], size: tuple[int, int] | None, place: str) -> Runs:
    """Run lengths as a list, or as compressed text."""
    height_width = as_points(get(segmentation, "size", place), f"{place}: size").ravel().astype(int).tolist()
    stated = as_size(*height_width, place) if len(height_width) == 2 else None
    if stated is None or (size is not None and stated != size):
        raise DataError(f"{place}: has run lengths of the size {height_width}; expected that of the photo, {size}")
    counts = get(segmentation, "counts", place)
    lengths = decode_counts(counts, place) if isinstance(counts, str) else _list_of_counts(counts, place)
    if lengths.sum() != stated[0] * stated[1] or (lengths < 0).any():
        raise DataError(f"{place}: has run lengths for {lengths.sum()} pixels; expected {stated[0] * stated[1]}")
    return Runs(lengths, stated)


def _list_of_counts(counts: Any, place: str) -> np.ndarray:
    try:
        return np.array([operator.index(count) for count in as_list(counts, place)], np.int64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{place}: has run lengths that are no numbers; export it again") from None


def decode_counts(text: str, place: str = "counts") -> np.ndarray:
    """Run lengths from COCO's compressed text: five bits in a letter, each length less the last but one.

    Args:
        text: Letters from `0` to `o`.
        place: For the message.

    Returns:
        int64 `(M,)`.

    Raises:
        DataError: It is no such text, or cut.

    Example:
        >>> decode_counts(encode_counts(np.array([5, 3, 1000, 2]))).tolist()
        [5, 3, 1000, 2]
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise DataError(f"{place}: has compressed run lengths with {letter!r} in them; export it again")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift or max(map(abs, counts), default=0) >= 1 << 40:
        raise DataError(f"{place}: has compressed run lengths that are cut or too large; export it again")
    return np.array(counts, np.int64)


def encode_counts(counts: np.ndarray) -> str:
    """The compressed text of run lengths, from which `decode_counts` makes them again.

    Args:
        counts: int64 `(M,)`.
    """
    letters = []
    values = counts.tolist()
    for i, count in enumerate(values):
        rest = count - (values[i - 2] if i > 2 else 0)
        while True:
            code, rest = rest & 31, rest >> 5
            is_last = rest == (-1 if code & 16 else 0)
            letters.append(chr(48 + code + (0 if is_last else 32)))
            if is_last:
                break
    return "".join(letters)
