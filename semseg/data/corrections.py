"""Masks that people drew or mended in a browser: a folder of their own beside the data, which keeps its files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset, Sample
from semseg.errors import SemsegError
from semseg.files import read_json, replacing, sha256_of, write_json
from semseg.images.png_writer import PngWriter
from semseg.labels.palettes import Label, Palette
from semseg.runs.classes import read_classes, write_classes

INDEX, CLASSES, MASKS = "corrections.json", "classes.json", "masks"
_FORMAT = 1
_GREY = (205, 205, 205)  # of what is no class, where viewers show the ids in colours


@dataclass(frozen=True)
class Corrections:
    """A folder of corrected masks.

    It holds `corrections.json`, which says where the photos lie; `classes.json`, which says what the ids mean; and
    `masks/`, a PNG file of ids for each photo at its own size: that of `images/a.jpg` is `masks/images/a.jpg.png`.

    Attributes:
        folder: The folder.
        photos: The folder that the names of photos start from.
        class_names: In the order of the ids; 255 is no class.
    """

    folder: Path
    photos: Path
    class_names: tuple[str, ...]

    @classmethod
    def open(cls, folder: str | Path) -> "Corrections":
        """Reads what a folder of corrections says of itself.

        Args:
            folder: As `start` made it; it and the photos may have moved together.

        Raises:
            SemsegError: It is no such folder, or a file in it cannot be read.
        """
        folder = Path(folder)
        index = folder / INDEX
        try:
            values = read_json(index)
            if values["format"] != _FORMAT:
                raise SemsegError(
                    f"{index}: is of form {values['format']}, which this semseg does not read; get a later"
                )
            photos = folder / str(values["photos"])
        except FileNotFoundError:
            raise SemsegError(
                f"`corrections`: {folder} holds no {INDEX}; expected a folder that the labelling desk wrote"
            ) from None
        except SemsegError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SemsegError(f"{index}: cannot be read ({error!r}); expected what the labelling desk wrote") from None
        return cls(folder, Path(os.path.normpath(photos)), read_classes(folder / CLASSES).names)

    @classmethod
    def start(cls, folder: Path, photos: Path, palette: Palette) -> "Corrections":
        """Opens a folder of corrections to write into, and makes it where it is not there.

        Args:
            folder: The folder.
            photos: The folder that the names of photos start from.
            palette: Names and colours of the classes.

        Raises:
            SemsegError: The folder holds corrections of other photos or classes, or something else.
        """
        if (folder / INDEX).exists():
            there = cls.open(folder)
            if there.photos.resolve() != photos.resolve():
                raise SemsegError(
                    f"`corrections`: {folder} holds those of the photos in {there.photos}, and these lie in {photos}; "
                    "choose another folder"
                )
            there.refuse_other_classes(palette.names, "the network knows")
            return there
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise SemsegError(f"`corrections`: {folder} holds other files; choose a folder that is empty or not there")
        folder.mkdir(parents=True, exist_ok=True)
        write_classes(folder / CLASSES, _of_ids(palette))
        write_json(folder / INDEX, {"format": _FORMAT, "photos": os.path.relpath(photos.resolve(), folder.resolve())})
        return cls(folder, photos, palette.names)

    def refuse_other_classes(self, names: Sequence[str], whose: str) -> None:
        """Raises a `SemsegError` unless the classes are these, in this order; `whose` tells in words where they are."""
        if tuple(names) != self.class_names:
            raise SemsegError(
                f"`corrections`: {self.folder} holds the classes {_listed(self.class_names)}, and {whose} "
                f"{_listed(names)}; they must be the same, in the same order"
            )

    def path(self, name: str) -> Path:
        """The file of a photo's mask; there may be none yet."""
        return self.folder / MASKS / f"{name}.png"

    def names(self) -> list[str]:
        """The photos that have a mask, by their paths inside `photos`."""
        masks = self.folder / MASKS
        return sorted(path.relative_to(masks).as_posix().removesuffix(".png") for path in masks.rglob("[!.]*.png"))

    def version(self, name: str) -> str | None:
        """Hexadecimal digits that change with a photo's mask; None where it has none."""
        path = self.path(name)
        return sha256_of(path)[:32] if path.is_file() else None

    def save(self, name: str, ids: np.ndarray, palette: Palette) -> None:
        """Writes a photo's mask, whole or not at all.

        Args:
            name: The photo's path inside `photos`.
            ids: uint8 `(H, W)`, 0 to K-1 or 255.
            palette: The colours that viewers show the ids in.
        """
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = np.zeros((256, 3), np.uint8)
        colors[: palette.num_classes], colors[IGNORE] = palette.colors, _GREY
        with replacing(path) as temporary, PngWriter(temporary, ids.shape, colors=colors) as png:
            png.write(ids)


def apply_corrections(dataset: Dataset, corrections: Corrections) -> None:
    """Gives a data set the masks of its photos that were corrected; photos without a mask join those for training.

    Photos of its folder that it does not use, as those beyond a limit, stay out: they may be for validation.

    Args:
        dataset: From `open_dataset`; its samples, problems and notes change.
        corrections: Of its photos, with its classes.

    Raises:
        SemsegError: The classes differ, or a photo is not there.
    """
    corrections.refuse_other_classes(dataset.palette.names, f"the masks of {dataset.root} hold")
    known = {(os.path.realpath(sample.photo), sample.page): sample for sample in dataset.samples}
    folder, unlabelled = os.path.realpath(dataset.root), {os.path.realpath(path) for path in dataset.unlabelled}
    new, added, left_out = {}, [], 0
    for name in corrections.names():
        (photo, page), mask = _photo_of(name, corrections, dataset), corrections.path(name)
        sample = known.get((os.path.realpath(photo), page))
        if sample is not None:
            new[sample] = replace(sample, correction=mask)
        elif os.path.realpath(photo) in unlabelled or not Path(os.path.realpath(photo)).is_relative_to(folder):
            added.append(Sample(photo, mask, page=page, correction=mask))
        else:
            left_out += 1
    dataset.splits = {split: [new.get(each, each) for each in samples] for split, samples in dataset.splits.items()}
    dataset.splits["train"] += added
    labelled = {os.path.realpath(sample.photo) for sample in added}
    dataset.problems = [line for line in dataset.problems if _unlabelled(line) not in labelled]
    counts = ", ".join(
        f"{sum(each in new.values() for each in samples)} in {split}" for split, samples in dataset.splits.items()
    )
    dataset.notes.append(
        f"{corrections.folder}: its masks take the place of {len(new)} ({counts}), and {len(added)} photos that had "
        "none are trained on" + (f"; {left_out} of photos that are not used are left out" if left_out else "")
    )


def _photo_of(name: str, corrections: Corrections, dataset: Dataset) -> tuple[Path, int | None]:
    """The photo's file, and which picture of it, that a name stands for."""
    path, _, page = name.rpartition("#")
    numbered = bool(path) and page.isdecimal()
    for root in (corrections.photos, dataset.root):
        if (root / name).is_file():
            return root / name, None
        if numbered and (root / path).is_file():
            return root / path, int(page) - 1
    raise SemsegError(
        f"`corrections`: {corrections.path(name)} is of {name}, which is not in {corrections.photos} any more; put the "
        "photo back, or remove the mask"
    )


def _unlabelled(problem: str) -> str | None:
    """The photo that a problem says has no mask; None for other problems."""
    path = problem.removesuffix(": has no mask")
    return None if path == problem else os.path.realpath(path)


def _of_ids(palette: Palette) -> Palette:
    """The same classes, in masks of ids."""
    entries = enumerate(zip(palette.names, palette.colors, strict=True))
    labels = [Label(name, i, color, i) for i, (name, color) in entries]
    return Palette((*labels, Label("no class", IGNORE, _GREY, IGNORE)), "values")


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")
