"""Masks of a data set, or of predictions, in the form of an annotation tool."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from semseg import IGNORE
from semseg.data.base import Dataset, Sample
from semseg.errors import DataError, RunFolderError, SemsegError
from semseg.files import move_into_place
from semseg.images.reading import list_images, read_mask
from semseg.labels.formats import coco, labelme, png_masks, yolo
from semseg.labels.formats.common import GROUND
from semseg.labels.palettes import Palette

PREDICTIONS = "predictions.json"  # describes a folder of predictions
Write = Callable[[Path, str, Iterable[tuple[str, np.ndarray]], Mapping[int, str]], None]


@dataclass(frozen=True)
class Labelled:
    """A photo and its mask.

    Attributes:
        photo: The photo's file.
        split: `"train"`, `"val"` or `"test"`.
        load: Gives its mask, uint8 ids `(H, W)`, and its pixels, uint8 RGB `(H, W, 3)`, where these are no file of
            their own; else None.
    """

    photo: Path
    split: str
    load: Callable[[], tuple[np.ndarray, np.ndarray | None]]


FORMS: dict[str, tuple[str, Write]] = {  # where the photos of a split lie, and what writes its masks
    "coco": ("images/{}", coco.write),
    "yolo": ("images/{}", yolo.write),
    "labelme": ("{}", labelme.write),
    "masks": ("images/{}", png_masks.write),
}


def of_dataset(dataset: Dataset) -> list[Labelled]:
    """The photos and masks of a data set, in its splits."""

    def loader(sample: Sample) -> Callable[[], tuple[np.ndarray, np.ndarray | None]]:
        def load() -> tuple[np.ndarray, np.ndarray | None]:
            look = dataset.inspect(sample)
            if sample.page is None and sample.photo != sample.mask and not sample.bands:
                return look.ids, None  # its file is copied as it is
            if look.photo.dtype != np.uint8 or look.photo.shape[2] != 3:
                raise DataError(
                    f"{sample.photo}: shares its file, or has several, and is no RGB of 8 bits; save it alone"
                )
            return look.ids, look.photo

        return load

    return [Labelled(s.photo, split, loader(s)) for split, samples in dataset.splits.items() for s in samples]


def of_predictions(folder: Path) -> tuple[list[Labelled], Palette] | None:
    """The photos and masks that a prediction wrote, and what its ids mean.

    Args:
        folder: Of the predictions.

    Returns:
        All in the training split; None where the folder holds no predictions.

    Raises:
        DataError: Its description is damaged, or the photos are no longer there.
    """
    file = folder / PREDICTIONS
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        what, palette = Path(values["what"]), Palette.from_dict({"classes": values["classes"]})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: cannot be understood ({error!r}); predict anew") from None
    photos: dict[str, Path] = {}
    for path in list_images(what) if what.is_dir() else [what]:
        name = path.relative_to(what) if what.is_dir() else Path(path.name)
        photos |= {name.as_posix(): path, name.with_suffix("").as_posix(): path}
    masks = folder / "masks"
    labelled = []
    for mask in list_images(masks) if masks.is_dir() else []:
        photo = photos.get(mask.relative_to(masks).with_suffix("").as_posix())
        if photo is None or not photo.is_file():
            raise DataError(f"{mask}: its photo is not in {what}; put it back, or predict anew")
        labelled.append(Labelled(photo, "train", partial(_read_ids, mask)))
    if not labelled:
        raise DataError(f"{folder}: holds no masks; predict anew")
    return labelled, palette


def _read_ids(mask: Path) -> tuple[np.ndarray, None]:
    return read_mask(mask).pixels, None


def convert(
    labelled: Sequence[Labelled],
    palette: Palette,
    form: str,
    output: Path,
    *,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Writes photos and masks into a new folder, in the form of an annotation tool.

    Args:
        labelled: From `of_dataset` or `of_predictions`.
        palette: What the ids mean. The class called background is what nothing is drawn on.
        form: One of `FORMS`.
        output: The folder, which must not be there; it is, whole, when all is written.
        skip_bad: Leave files out that cannot be used, in place of an error.
        on_progress: Called with (photos done, photos in all).

    Returns:
        What should be known of the files, a sentence each.

    Raises:
        SemsegError: There is no such form.
        RunFolderError: The folder is there.
        DataError: A photo or mask cannot be used.
    """
    if form not in FORMS:
        raise SemsegError(f"`to`: got {form!r}; expected one of {', '.join(FORMS)}")
    if output.exists():
        raise RunFolderError(f"{output}: is there already; choose another `output`, or remove it")
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        job = _Conversion(temporary, palette, form, len(labelled), skip_bad, on_progress or (lambda done, total: None))
        for split in dict.fromkeys(entry.split for entry in labelled):
            job.write(split, [entry for entry in labelled if entry.split == split])
        move_into_place(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return job.notes()


class _Conversion:
    """What is written, split by split."""

    def __init__(
        self, folder: Path, palette: Palette, form: str, total: int, skip_bad: bool, tell: Callable[[int, int], None]
    ):
        self._folder, self._form, self._total, self._skip_bad, self._tell = folder, form, total, skip_bad, tell
        ground = next((i for i, name in enumerate(palette.names) if name.lower() in GROUND), None)
        self._classes = {i: name for i, name in enumerate(palette.names) if i != ground or form == "masks"}
        self._done, self._ignored = 0, 0
        self._bad: list[str] = []

    def write(self, split: str, entries: Sequence[Labelled]) -> None:
        """Writes the photos and masks of a split."""
        photos, write = FORMS[self._form]
        folder = self._folder / photos.format(split)
        folder.mkdir(parents=True)
        write(self._folder, split, self._masks(entries, folder), self._classes)

    def _masks(self, entries: Sequence[Labelled], folder: Path) -> Iterator[tuple[str, np.ndarray]]:
        """Names and masks, each when its photo is written."""
        for entry, stem in zip(entries, _stems([entry.photo for entry in entries]), strict=True):
            self._done += 1
            self._tell(self._done, self._total)
            try:
                ids, pixels = entry.load()
            except DataError as error:
                if not self._skip_bad:
                    raise
                self._bad.append(str(error))
                continue
            name = f"{stem}{entry.photo.suffix}" if pixels is None else f"{stem}.png"
            if pixels is None:
                shutil.copyfile(entry.photo, folder / name)
            else:
                Image.fromarray(pixels).save(folder / name)
            self._ignored += int(np.count_nonzero(ids == IGNORE))
            yield name, ids

    def notes(self) -> list[str]:
        """What should be known, a sentence each."""
        notes = [f"{len(self._bad)} files are left out: {self._bad[0]}"] if self._bad else []
        if self._ignored and self._form == "yolo":
            notes.append(f"{self._ignored} pixels that count nowhere become background: YOLO has nothing for them")
        return notes


def _stems(photos: Sequence[Path]) -> list[str]:
    """A name for each photo, without suffix and different from all others: its own, or with its folders before."""
    root = Path(os.path.commonpath([photo.parent for photo in photos]))
    counts = Counter(photo.stem for photo in photos)
    names = [photo.stem if counts[photo.stem] == 1 else _with_folders(photo.relative_to(root)) for photo in photos]
    counts, seen = Counter(names), Counter()
    for i, name in enumerate(names):  # pages of one stack
        seen[name] += 1
        names[i] = f"{name}_{seen[name]}" if counts[name] > 1 else name
    return names


def _with_folders(path: Path) -> str:
    """`site/images/1.png` as `site_images_1_png`."""
    return "_".join((*path.parent.parts, path.name.replace(".", "_")))
