"""From masks to answers: cleaner masks, and the objects in them, written beside the masks."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from semseg import IGNORE
from semseg.errors import SemsegError
from semseg.files import replacing
from semseg.images.ground import ground_of
from semseg.inference.object_files import (
    COCO_FILE,
    COUNTS_FILE,
    KEEPS_IGNORED,
    OBJECTS_FILE,
    SUFFIXES,
    PhotoObjects,
    Wanted,
    merge_coco,
    merge_tables,
    write_outlines,
    write_table,
)
from semseg.labels.cleaning import bands_of, clean_in_place
from semseg.labels.formats import yolo
from semseg.labels.formats.common import GROUND
from semseg.labels.objects import TOLERANCE, objects_of
from semseg.labels.pieces import find_pieces

_IN_MEMORY = 128 << 20  # bytes of a photo's ids, and as many of certainty; more lie in scratch files
_BAND_BYTES = 1 << 24


@dataclass(frozen=True)
class Answers:
    """What is wanted of the objects in masks: connected pieces of some classes, whose pixels share edges.

    Attributes:
        names: Of all classes, in the order of their ids.
        classes: Ids of the classes whose objects are wanted.
        polygons: The format of outlines, one of `SUFFIXES`; None for none.
        table: Whether objects are measured.
        tolerance: Pixels by which outlines are simplified.
        min_area: Pixels below which objects are no objects; they join what is around them, in masks, too.
        fill_holes: Whether holes in objects become part of them, in masks, too.
        watershed: Whether objects that touch are parted, in masks, too.

    Raises:
        SemsegError: A value makes no sense.
    """

    names: Sequence[str]
    classes: Sequence[int]
    polygons: str | None = None
    table: bool = False
    tolerance: float = TOLERANCE
    min_area: int = 0
    fill_holes: bool = False
    watershed: bool = False

    def __post_init__(self) -> None:
        if self.polygons is not None and self.polygons not in SUFFIXES:
            raise SemsegError(f"`polygons`: got {self.polygons!r}; expected one of {', '.join(SUFFIXES)}")
        if self.min_area < 0:
            raise SemsegError(f"`min_area`: got {self.min_area}; expected pixels, 0 for objects of any size")
        if not 0 <= self.tolerance <= 1000:
            raise SemsegError(f"`tolerance`: got {self.tolerance}; expected pixels, from 0 (borders of pixels) to 1000")

    @property
    def cleans(self) -> bool:
        """Whether masks change."""
        return self.fill_holes or self.watershed or self.min_area > 1

    @property
    def kinds(self) -> list[str]:
        """The kinds of files that are written of each photo."""
        return [kind for kind, wanted in (("polygons", self.polygons), ("objects", self.table)) if wanted]

    @property
    def wanted(self) -> Wanted:
        """The classes whose objects are written."""
        return Wanted(self.names, self.classes)

    def apply(
        self,
        bands: Iterable[tuple[np.ndarray, np.ndarray]],
        size: tuple[int, int],
        files: Mapping[str, Path],
        photo: Path | None,
    ) -> Iterator[np.ndarray]:
        """Cleans a mask, and writes what its objects are.

        Args:
            bands: From top to bottom, uint8 ids `(n, W)` and the probability of each pixel's class, float `(n, W)`.
            size: (H, W).
            files: Where outlines and measures go, by their kind.
            photo: The photo's file, which tells its name and its place on Earth; None for a frame of a video.

        Yields:
            The ids of the cleaned mask from top to bottom, uint8 `(n, W)`, when all has been written.
        """
        with _Scratch(next(iter(files.values())).parent, size[1]) as scratch:
            for ids, certainty in bands:
                scratch.add(ids, certainty)
            yield from self._answer(scratch, size, files, photo)

    def _answer(
        self, scratch: "_Scratch", size: tuple[int, int], files: Mapping[str, Path], photo: Path | None
    ) -> Iterator[np.ndarray]:
        mask = None
        if self.cleans:
            mask = scratch.mask(size)
            clean_in_place(mask, self.classes, self.min_area, self.fill_holes, self.watershed)
        if self.kinds:
            self._write(scratch.ids() if mask is None else bands_of(mask), scratch.certainty(), size, files, photo)
        yield from scratch.ids() if mask is None else bands_of(mask)

    def _write(
        self,
        ids: Iterable[np.ndarray],
        certainty: Iterable[np.ndarray],
        size: tuple[int, int],
        files: Mapping[str, Path],
        photo: Path | None,
    ) -> None:
        pieces = find_pieces(ids, size[1], certainty)
        wanted = [*self.classes, *([IGNORE] if self.polygons in KEEPS_IGNORED else [])]
        objects = objects_of(pieces, wanted, tolerance=self.tolerance)
        ground = ground_of(photo) if photo is not None else None
        name = photo.name if photo is not None else next(iter(files.values())).stem
        of_photo = PhotoObjects(name, size, objects, ground)
        if "objects" in files:
            with _new(files["objects"]) as path:
                write_table(path, of_photo, self.wanted)
        if self.polygons:
            with _new(files["polygons"]) as path:
                write_outlines(self.polygons, path, of_photo, self.wanted)


class _Scratch:
    """A mask and its certainty, kept in memory while they are small, else in files that nobody sees."""

    def __init__(self, folder: Path, width: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._width = folder, width
        self._stack = ExitStack()

    def __enter__(self) -> "_Scratch":
        self._ids, self._certainty = self._file(), self._file()
        return self

    def _file(self) -> IO[bytes]:
        file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=self._folder)  # noqa: SIM115
        return self._stack.enter_context(file)

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, ids: np.ndarray, certainty: np.ndarray) -> None:
        """Adds rows; the certainty is kept to 1 in 255."""
        self._ids.write(np.ascontiguousarray(ids).tobytes())
        self._certainty.write(np.rint(255 * certainty).astype(np.uint8).tobytes())

    def ids(self) -> Iterator[np.ndarray]:
        """The mask from top to bottom, uint8 `(n, W)`."""
        return self._bands(self._ids)

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """The whole of it, uint8 `(H, W)`."""
        mask, row = np.empty(size, np.uint8), 0
        for band in self.ids():
            mask[row : row + len(band)] = band
            row += len(band)
        return mask

    def certainty(self) -> Iterator[np.ndarray]:
        """The certainty in bands of the same heights, float32 `(n, W)`."""
        return (band.astype(np.float32) / 255 for band in self._bands(self._certainty))

    def _bands(self, file: IO[bytes]) -> Iterator[np.ndarray]:
        size, offset = max(1, _BAND_BYTES // self._width) * self._width, 0
        while True:
            file.seek(offset)
            data = file.read(size)
            if not data:
                return
            offset += len(data)
            yield np.frombuffer(data, np.uint8).reshape(-1, self._width)


def wanted_answers(
    names: Sequence[str], *, polygons: str | None = None, tolerance: float | None = None, objects: str | None = None,
    min_area: int | None = None, fill_holes: bool = False, watershed: bool = False,
) -> Answers | None:  # fmt: skip
    """What a user asks of the objects in masks.

    Args:
        names: Of all classes, in the order of their ids.
        polygons: A format of outlines.
        tolerance: Pixels by which outlines are simplified; None for the default.
        objects: Classes whose objects are measured, see `classes_of`; it chooses those of outlines, too.
        min_area: As in `Answers`.
        fill_holes: As in `Answers`.
        watershed: As in `Answers`.

    Returns:
        None where nothing is asked.

    Raises:
        SemsegError: A value makes no sense.
    """
    if tolerance is not None and polygons is None:
        raise SemsegError("`tolerance`: simplifies outlines, and none are asked for; give `polygons`, or leave it out")
    answers = Answers(
        tuple(names), tuple(classes_of(objects, names)), polygons, objects is not None,
        TOLERANCE if tolerance is None else tolerance, min_area or 0, fill_holes, watershed,
    )  # fmt: skip
    return answers if answers.kinds or answers.cleans else None


def classes_of(text: str | None, names: Sequence[str]) -> list[int]:
    """The ids of classes that are named.

    Args:
        text: Names, separated by commas; `"all"` or None for all classes but the background.
        names: Of all classes, in the order of their ids.

    Raises:
        SemsegError: There is no class of such a name.

    Example:
        >>> classes_of("all", ["background", "cell", "debris"]), classes_of("debris", ["background", "cell", "debris"])
        ([1, 2], [2])
    """
    if text in (None, "all"):
        return [i for i, name in enumerate(names) if name.lower() not in GROUND]
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise SemsegError(f"`objects`: {unknown[0]!r} is no class; expected some of {', '.join(names)}, or all")
    return sorted({list(names).index(name) for name in wanted})


def finish(
    parts: Callable[[], Iterable[tuple[str, Mapping[str, Path]]]], answers: Answers, folder: Path, *,
    first: str = "photo",
) -> list[str]:  # fmt: skip
    """Writes what is said of all photos together, when the files of each are there.

    Args:
        parts: Gives the name of each photo, or the number of a frame, and its files by their kind, each time anew.
        answers: What they were written by.
        folder: Where the files go.
        first: What the first column of tables is called.

    Returns:
        The names of the files.
    """
    names = [answers.names[i] for i in answers.classes]
    written = []
    if answers.table:
        merge_tables(((name, files["objects"]) for name, files in parts()), names, folder, first)
        written += [OBJECTS_FILE, COUNTS_FILE]
    if answers.polygons == "coco":
        merge_coco(((name, files["polygons"]) for name, files in parts()), answers.wanted, folder / COCO_FILE)
        written.append(COCO_FILE)
    if answers.polygons == "yolo" and (folder / "polygons").is_dir():
        yolo.write_names(folder / "polygons", names, {})
    return written


def _new(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return replacing(path)
