"""Which of the readings of a folder is taken: masks in one of several layouts, or outlines in annotation files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from semseg.data.bands import name_volumes
from semseg.data.base import Found
from semseg.data.finding.annotations import find_annotated, formats_in
from semseg.data.finding.carvana import find_carvana
from semseg.data.finding.cityscapes import find_cityscapes
from semseg.data.finding.contents import Contents
from semseg.data.finding.csv_lists import find_in_lists
from semseg.data.finding.folder import find_folder
from semseg.data.finding.names import is_second_choice
from semseg.data.finding.pairs import find_pairs
from semseg.data.finding.rasters import find_rasters
from semseg.errors import DataError
from semseg.labels.formats import FORMATS

_OF_MASKS: dict[str, Callable[[Contents], Found | None]] = {  # from the most particular form to the least
    "cityscapes": find_cityscapes,
    "carvana": find_carvana,
    "lists": find_in_lists,
    "folder": find_folder,
    "rasters": find_rasters,
    "pairs": find_pairs,
}
DATASETS: dict[str, Callable[[Contents], Found | None]] = {
    **_OF_MASKS, **{kind: partial(find_annotated, kind=kind, asked=True) for kind in FORMATS},
}  # fmt: skip
_WITH_OUTLINES = ("cityscapes", "carvana")  # whose outlines say what their masks say
_MUCH_MORE = 1.5  # times the photos that have masks: outlines of so many are read in place of these
EXPECTED = {
    "cityscapes": "leftImg8bit/ and gtFine/",
    "carvana": "train/*.jpg and train_masks/*_mask.gif",
    "folder": "photos and masks of matching names, in images/ and masks/ or side by side",
    "rasters": "GeoTIFF photos within a GeoTIFF mask of a larger area",
    "lists": "train.csv with a photo and a mask in each row",
    "pairs": "train/ (and val/) with pictures of photo | colour mask",
    **{kind: f"photos with {FORMATS[kind].described}" for kind in FORMATS},
}


def choose_reading(contents: Contents, name: str | None, photos: str | None, masks: str | None) -> tuple[str, Found]:
    """Reads a folder as what it most likely is.

    Args:
        contents: Of the data set's folder.
        name: Of `DATASETS`, where the user says it.
        photos: The folder of the photos, or a pattern of their paths, where the user says it.
        masks: The same for the masks or annotation files.

    Returns:
        The name of the reading, and what it found.

    Raises:
        DataError: It can be read as nothing, as a fault keeps it from being read, or as two things equally well.
        SemsegError: Nothing is where the user says.
    """
    root = contents.root
    files = contents.others_like(masks) if masks else []
    if files:
        contents = replace(contents, others=tuple(files))
    elif photos or masks:
        rasters = find_rasters(contents, masks) if masks and not photos else None
        found = find_folder(contents, photos, masks)
        if rasters and (found is None or _count(rasters) > _count(found)):
            return "rasters", rasters
        if found is None:
            given = " and ".join(f"`{key}` {value}" for key, value in (("photos", photos), ("masks", masks)) if value)
            raise DataError(f"{root}: with {given} no names of photos and masks match; list the pairs in a CSV file")
        return "folder", found
    if name:
        found = DATASETS[name](contents)
        if found is None:
            raise DataError(f"{root}: holds no photos with masks; expected {EXPECTED[name]}")
        return name, found
    formats = formats_in(contents)
    reading = _find_outlines(contents, formats) if formats else None
    reading = reading or _find_masks(contents)
    if reading is None:
        expected = "; or ".join(EXPECTED[kind] for kind in _OF_MASKS)
        told = name_volumes(contents.others)
        raise DataError(told or f"{root}: holds no photos with masks or outlines; expected {expected}")
    return reading


def _find_masks(contents: Contents, kinds: Iterable[str] = tuple(_OF_MASKS)) -> tuple[str, Found] | None:
    """The first kind of masks that the folder can be read as; None if there is none."""
    for kind in kinds:
        found = _OF_MASKS[kind](contents)
        if found is not None:
            return kind, found
    return None


def _find_outlines(contents: Contents, formats: Iterable[str]) -> tuple[str, Found] | None:
    """What annotation files say, unless there are masks for as many photos; None if they say nothing.

    Raises:
        DataError: They cannot be read, nor can masks.
    """
    faults: list[DataError] = []
    masks: tuple[str, Found] | None = None
    readings: list[tuple[str, Found]] = []
    try:
        masks = _find_masks(contents, [kind for kind in _OF_MASKS if kind != "pairs"])  # any photo can be cut in two
    except DataError as error:
        faults.append(error)
    if masks and masks[0] in _WITH_OUTLINES:
        return masks
    for kind in formats:
        if masks and FORMATS[kind].only_boxes:
            continue
        try:
            found = find_annotated(contents, kind)
        except DataError as error:
            faults.append(error)
            continue
        readings += [(kind, found)] if found else []
    readings.sort(key=lambda reading: -_count(reading[1]))
    if masks:
        readings.insert(int(bool(readings) and _are_better(readings[0][1], masks[1])), masks)
    if not readings and faults:
        raise faults[0]
    return _with_rivals(readings) if readings else None


def _are_better(outlines: Found, masks: Found) -> bool:
    """Whether outlines say more than masks: of far more photos, or beside pictures of single objects and the like."""
    if _count(outlines) > _MUCH_MORE * _count(masks):
        return True
    shown = [sample.mask for samples in masks.splits.values() for sample in samples]
    seconds = sum(is_second_choice(path.parent.name) or is_second_choice(path.stem) for path in shown)
    return 2 * seconds > len(shown) and _count(outlines) >= len(shown)


def _with_rivals(readings: Sequence[tuple[str, Found]]) -> tuple[str, Found]:
    """The first of several readings, with a sentence that names the others."""
    kind, found = readings[0]
    others = [f"{other} ({_count(rival)} photos)" for other, rival in readings[1:]]
    if others:
        found.notes.append(f"could be read as {' or '.join(others)}, too; choose by `dataset`")
    return kind, found


def _count(found: Found) -> int:
    return sum(map(len, found.splits.values()))
