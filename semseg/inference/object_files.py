"""Files of the objects in masks: tables, and outlines in four formats; of each photo, and of all together."""

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semseg import IGNORE
from semseg.files import csv_cell, replacing
from semseg.images.ground import Ground
from semseg.labels.formats import coco, geojson, labelme, yolo
from semseg.labels.objects import Object
from semseg.labels.outlines import with_bridges

OBJECTS_FILE, COUNTS_FILE, COCO_FILE = "objects.csv", "counts.csv", "coco.json"
SUFFIXES = {"geojson": ".geojson", "coco": ".json", "yolo": ".txt", "labelme": ".json"}  # of a photo's outlines
KEEPS_IGNORED = ("coco", "labelme")  # formats that tell where nothing counts
OBJECT_COLUMNS = (
    "object", "class", "area", "area_m2", "left", "top", "width", "height", "x", "y", "circumference", "probability",
    "touches_border",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """The classes whose objects are written.

    Attributes:
        names: Of all classes, in the order of their ids.
        ids: Of those that are wanted.
    """

    names: Sequence[str]
    ids: Sequence[int]


@dataclass(frozen=True, eq=False)
class PhotoObjects:
    """A photo whose objects are to be written.

    Attributes:
        name: Of its file.
        size: (H, W).
        objects: Those of the classes that are wanted, and areas of id 255 for formats that have them.
        ground: Where it lies; None where nothing says it.
    """

    name: str
    size: tuple[int, int]
    objects: Sequence[Object]
    ground: Ground | None


# ------------------------------------------------------------------------------------------------------------- tables


def write_table(path: Path, photo: PhotoObjects, wanted: Wanted) -> None:
    """Writes what is measured of a photo's objects, a row each.

    Args:
        path: The file.
        photo: The objects; areas of id 255 are none.
        wanted: The classes that they are of.
    """
    metres = photo.ground.square_metres if photo.ground else None
    objects = (one for one in photo.objects if one.class_id != IGNORE)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(OBJECT_COLUMNS)
        for number, one in enumerate(objects, start=1):
            area = "" if metres is None else f"{one.area * metres:.10g}"
            x, y = (f"{value:.2f}" for value in one.centroid)
            class_name, around = csv_cell(wanted.names[one.class_id]), f"{one.circumference:.2f}"
            touches = "yes" if one.touches_border else "no"
            writer.writerow(
                (number, class_name, one.area, area, *one.box, x, y, around, f"{one.probability:.4f}", touches)
            )


def merge_tables(parts: Iterable[tuple[str, Path]], names: Sequence[str], folder: Path, first: str) -> int:
    """Writes `objects.csv`, all objects of all photos, and `counts.csv`, how many of each class there are in each.

    Args:
        parts: The name of each photo, or the number of a frame, and the table of its objects.
        names: Of the classes that are wanted.
        folder: Where the tables go.
        first: What their first column is called.

    Returns:
        The number of objects.
    """
    total = 0
    cells = {csv_cell(name): name for name in names}
    with replacing(folder / OBJECTS_FILE) as one, replacing(folder / COUNTS_FILE) as other, ExitStack() as stack:
        objects, counts = (
            csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8", errors="backslashreplace")))
            for path in (one, other)
        )
        objects.writerow((first, *OBJECT_COLUMNS))
        counts.writerow((first, *cells))
        for name, path in parts:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            objects.writerows([csv_cell(name), *row] for row in rows)
            classes = [row[OBJECT_COLUMNS.index("class")] for row in rows]
            counts.writerow([csv_cell(name), *map(classes.count, cells)])
            total += len(rows)
    return total


# ----------------------------------------------------------------------------------------------------------- outlines


def _write_geojson(path: Path, photo: PhotoObjects, wanted: Wanted) -> None:
    metres = photo.ground.square_metres if photo.ground else None

    def properties(one: Object) -> dict[str, Any]:
        area = {} if metres is None else {"area_m2": float(f"{one.area * metres:.10g}")}
        return {"class": wanted.names[one.class_id], "area": float(one.area), **area,
                "probability": round(one.probability, 4), "touches_border": one.touches_border}  # fmt: skip

    geojson.write_photo(path, ((one.rings, properties(one)) for one in photo.objects), photo.ground)


def _write_labelme(path: Path, photo: PhotoObjects, wanted: Wanted) -> None:
    def label(one: Object) -> str:
        return labelme.IGNORED_LABEL if one.class_id == IGNORE else wanted.names[one.class_id]

    outlines = [
        (label(one), with_bridges(one.rings), {"area": one.area, "probability": round(one.probability, 4)})
        for one in photo.objects
    ]
    labelme.write_photo(path, photo.name, photo.size, outlines)


def _write_yolo(path: Path, photo: PhotoObjects, wanted: Wanted) -> None:
    number = {i: n for n, i in enumerate(wanted.ids)}
    lines = [yolo.line_of(number[one.class_id], with_bridges(one.rings), photo.size) for one in photo.objects]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_coco(path: Path, photo: PhotoObjects, wanted: Wanted) -> None:
    number = {i: n for n, i in enumerate([*wanted.ids, IGNORE], start=1)}
    image = {"id": 1, "file_name": photo.name, "height": photo.size[0], "width": photo.size[1]}
    with path.open("w", encoding="utf-8") as file:
        head = {"images": [image], "categories": _categories(wanted)}
        file.write(f'{json.dumps(head)[:-1]}, "annotations": [')
        for i, one in enumerate(photo.objects, start=1):
            entry = {
                "id": i, "image_id": 1, "category_id": number[one.class_id], **coco.outlined(with_bridges(one.rings)),
                "area": one.area, "score": round(one.probability, 4), "iscrowd": int(one.class_id == IGNORE),
            }  # fmt: skip
            file.write(f"{',' if i > 1 else ''}\n{json.dumps(entry)}")
        file.write("\n]}\n")


def _categories(wanted: Wanted) -> list[dict[str, Any]]:
    return coco.categories_of([*(wanted.names[i] for i in wanted.ids), "ignore"])


_WRITERS = {"geojson": _write_geojson, "labelme": _write_labelme, "yolo": _write_yolo, "coco": _write_coco}


def write_outlines(form: str, path: Path, photo: PhotoObjects, wanted: Wanted) -> None:
    """Writes the outlines of a photo's objects.

    Args:
        form: One of `SUFFIXES`.
        path: The file.
        photo: The objects.
        wanted: The classes that they are of.
    """
    _WRITERS[form](path, photo, wanted)


def merge_coco(parts: Iterable[tuple[str, Path]], wanted: Wanted, file: Path) -> None:
    """Writes one COCO file of those of several photos.

    Args:
        parts: The name of each photo and its file, one after the other; each is read alone.
        wanted: The classes that they were written of.
        file: The file to write.
    """
    number = 0
    with (
        replacing(file) as temporary, temporary.open("w", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as images,
    ):  # fmt: skip
        out.write('{"annotations": [')
        for image, (name, path) in enumerate(parts, start=1):
            values = json.loads(path.read_text(encoding="utf-8"))
            images.write(
                ("" if image == 1 else ", ") + json.dumps({**values["images"][0], "id": image, "file_name": name})
            )
            for entry in values["annotations"]:
                number += 1
                out.write(f"{',' if number > 1 else ''}\n{json.dumps({**entry, 'id': number, 'image_id': image})}")
        images.seek(0)
        out.write('\n], "images": [')
        shutil.copyfileobj(images, out)
        out.write(f'], "categories": {json.dumps(_categories(wanted))}}}\n')
