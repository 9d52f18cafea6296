"""A folder of predictions: which photos go into which files, what is done already, and the table of shares."""

import csv
import glob
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import DataError, RunFolderError, pip_install
from semseg.files import csv_cell, csv_text, read_json, remove_older, replacing, sha256_of, write_json
from semseg.images.band_files import group_band_files
from semseg.images.bands import Bands
from semseg.images.georeference import read_georeference
from semseg.images.geotiff_writer import can_write_geotiff
from semseg.images.ground import ground_of
from semseg.images.reading import list_images
from semseg.inference.files import KINDS, LAID, Job, shares_of
from semseg.inference.object_files import COCO_FILE, COUNTS_FILE, OBJECTS_FILE
from semseg.inference.object_files import SUFFIXES as POLYGON_SUFFIXES
from semseg.runs import names
from semseg.runs.lock import one_writer

SETTINGS_FILE, SHARES_FILE = "predictions.json", "shares.csv"
PHOTO_COLUMNS, FRAME_COLUMNS = ("photo", "width", "height", "sha256"), ("frame", "seconds")
UNSURE = "unsure"  # the column of the share that got no class, where that is wanted
UNLIKE = "unlike"  # and of what is unlike the photos that the network learnt from, where it knows them
_SHA256 = PHOTO_COLUMNS.index("sha256")
_UNFINISHED = 60  # seconds without a change, after which a file is nobody's work any more
_EXPECTED = "give a photo, a folder, a pattern, a video or a camera's number"
_ANY_NAME = {"encoding": "utf-8", "errors": "backslashreplace"}  # the name of a file may be no text


def photos_of(what: str, output: Path) -> dict[str, Path]:
    """The photos by the name that they go by: their path below the folder that was named.

    Args:
        what: A photo, a folder, or a pattern.
        output: The folder of predictions, whose own files are no photos; nor are other results of semseg.

    Raises:
        DataError: There are none.
    """
    place = Path(what)
    if place.is_dir():
        root, photos = place, list_images(place)
    elif glob.has_magic(what) and not place.exists():
        root = _fixed_part(place)
        photos = [path for path in sorted(root.glob(str(place.relative_to(root)))) if path.is_file()]
    elif place.exists():
        return {place.name: place}
    else:
        raise DataError(f"{what}: no such file; {_EXPECTED}")
    own = {(output / kind).resolve() for kind in KINDS}
    own |= {folder for folder in _folders_between(root, photos) if _holds_results(folder)}
    # os.path.realpath, because Path.resolve raises on links in a loop
    photos = [path for path in photos if own.isdisjoint({*path.parents, *Path(os.path.realpath(path)).parents})]
    if not photos:
        raise DataError(f"{what}: holds no photos; {_EXPECTED}")
    return {path.relative_to(root).as_posix(): path for path in photos}


def _holds_results(folder: Path) -> bool:
    return names.holds_results([path.name for path in folder.iterdir()])


def _folders_between(root: Path, photos: Iterable[Path]) -> set[Path]:
    """The folders that photos lie in, below the root."""
    return {folder for path in photos for folder in path.parents if root in folder.parents}


def join_bands(photos: Mapping[str, Path], bands: Bands) -> dict[str, tuple[Path, ...]]:
    """The files of each photo by its name: one, or where the network's photos have a file for each band, all of them.

    Args:
        photos: From `photos_of`; of a single file those beside it count, too.
        bands: What the network takes.

    Raises:
        DataError: There is no photo with such files.
    """
    if not bands.file_per_band:
        return {name: (path,) for name, path in photos.items()}
    paths, root = list(photos.values()), Path(os.path.commonpath([path.parent for path in photos.values()]))
    groups, _ = group_band_files(list_images(root) if len(paths) == 1 else paths, root, bands.names)
    wanted = {first: files for first, files in groups.items() if not set(files).isdisjoint(paths)}
    if not wanted:
        raise DataError(f"{paths[0]}: the network takes a file for each band ({', '.join(bands.names)}); give them all")
    names = {path: name for name, path in photos.items()}
    return {names.get(first, first.name): files for first, files in wanted.items()}


def _fixed_part(pattern: Path) -> Path:
    """The folder that all matches lie in."""
    parts = pattern.parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


@contextmanager
def take_folder(output: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Takes the folder for as long as the block lasts: a new one, or one where the same command was stopped.

    Args:
        output: The folder of predictions.
        settings: All that the files depend on, as plain values.

    Raises:
        RunFolderError: It holds something else, or another process predicts into it.
    """
    file = output / SETTINGS_FILE
    held = [name for name in (*KINDS, SHARES_FILE, OBJECTS_FILE, COUNTS_FILE, COCO_FILE) if (output / name).exists()]
    if held and not file.exists():
        raise RunFolderError(f"{output}: holds {', '.join(held)} that no prediction wrote; choose another `output`")
    output.mkdir(parents=True, exist_ok=True)
    with one_writer(output):
        if file.exists():
            _go_on(output, settings)
        else:
            write_json(file, dict(settings))
        yield


def _go_on(output: Path, settings: Mapping[str, Any]) -> None:
    file, before = output / SETTINGS_FILE, None
    with suppress(OSError, ValueError):
        before = read_json(file)
    if not isinstance(before, dict):
        raise RunFolderError(f"{file}: cannot be read; remove it, or choose another `output`")
    differing = [name for name, value in settings.items() if before.get(name) != value]
    if differing:
        raise RunFolderError(
            f"{output}: holds predictions with another setting ({', '.join(differing)}); choose another `output`"
        )
    remove_older((path for kind in KINDS for path in (output / kind).rglob(".*.tmp*")), _UNFINISHED)


class SharesTable:
    """A row for each photo or frame with the classes' shares, added when all of its files are there.

    Args:
        path: The CSV file; rows that an earlier call finished are kept.
        columns: Names of the first cells of a row.
        class_names: In the order of the ids.

    Attributes:
        rows: All rows by their first cell.
    """

    def __init__(self, path: Path, columns: Sequence[str], class_names: Sequence[str]):
        self._path, self._columns, self._header = path, list(columns), [*columns, *class_names]
        self.rows = self._rows_before()
        self._write()
        self._file = path.open("a", newline="", **_ANY_NAME)

    def _rows_before(self) -> dict[str, list[str]]:
        """What an earlier call wrote, without a row that it did not finish."""
        if not self._path.exists():
            return {}
        text = self._path.read_text(**_ANY_NAME)
        whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
        rows = [[csv_text(cell) for cell in row] for row in csv.reader(whole)]
        return {row[0]: row for row in rows[1:] if len(row) == len(self._header)}

    def add(self, cells: Mapping[str, Any], counts: np.ndarray, unsure: int) -> None:
        """Adds a row.

        Args:
            cells: By column, what is known beside the classes.
            counts: Pixels of each class, `(K,)`.
            unsure: Pixels that got none.
        """
        cells = {UNSURE: f"{unsure / max(1, int(counts.sum()) + unsure):.6f}", **cells}
        row = [printable_name(cells[name]) for name in self._columns]
        row += [f"{share:.6f}" for share in shares_of(counts, unsure)]
        self.rows[row[0]] = row
        csv.writer(self._file).writerow(map(csv_cell, row))
        self._file.flush()

    def finish(self, order: Iterable[str]) -> None:
        """Puts the rows into order, and leaves out those of photos that are gone."""
        self._file.close()
        self.rows = {name: self.rows[name] for name in map(printable_name, order) if name in self.rows}
        self._write()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def total_shares(self) -> np.ndarray:
        """The classes' shares of the pixels of all photos, float `(K,)`."""
        return self._mean_of(slice(len(self._columns), None))

    def total_unsure(self) -> float:
        """The share of the pixels of all photos that got no class, where the table has it."""
        place = self._columns.index(UNSURE)
        return float(self._mean_of(slice(place, place + 1))[0])

    def unlike(self) -> dict[str, str]:
        """What is unlike in photos, by their names, where the table has it."""
        if UNLIKE not in self._columns:
            return {}
        place = self._columns.index(UNLIKE)
        return {name: row[place] for name, row in self.rows.items() if row[place]}

    def _mean_of(self, columns: slice) -> np.ndarray:
        """The means of columns over all photos, each by its size."""
        sizes = np.array([int(width) * int(height) for _, width, height, *_ in self.rows.values()], float)
        return sizes @ np.array([row[columns] for row in self.rows.values()], float) / sizes.sum()

    def _write(self) -> None:
        with replacing(self._path) as temporary, temporary.open("w", newline="", **_ANY_NAME) as file:
            csv.writer(file).writerows(map(csv_cell, row) for row in [self._header, *self.rows.values()])


def printable_name(name: Any) -> str:
    """A file's name as text, whatever its bytes."""
    return str(name).encode(**_ANY_NAME).decode("utf-8")


def jobs_of(
    photos: Mapping[str, Sequence[Path]], output: Path, kinds: Sequence[str], polygons: str | None = None
) -> dict[str, Job]:
    """What to do for each photo; files go by its name without the suffix, unless another's would be the same.

    Masks of photos that know where on Earth they lie are GeoTIFF files where rasterio is installed, else PNG files with
    a world file.

    Args:
        photos: From `join_bands`.
        output: The folder of predictions.
        kinds: Of files, some of `KINDS`.
        polygons: The format of outlines, where these are among the kinds.
    """
    times = Counter(_stem(name).lower() for name in photos)
    stems = {name: name if times[_stem(name).lower()] > 1 else _stem(name) for name in photos}
    if len({stem.lower() for stem in stems.values()}) < len(stems):
        stems = {name: name for name in photos}
    as_geotiff = can_write_geotiff()
    jobs = {}
    for name, (path, *further) in photos.items():
        place = read_georeference(path)
        suffixes = {**KINDS, **(dict.fromkeys(LAID, ".tif") if place and as_geotiff else {})}
        suffixes["polygons"] = POLYGON_SUFFIXES.get(polygons, "")
        files = {kind: output / kind / (stems[name] + suffixes[kind]) for kind in kinds}
        jobs[name] = Job(path, files, None if as_geotiff else place, (path, *further) if further else ())
    return jobs


def notes_on_places(jobs: Iterable[Job]) -> list[str]:
    """Says how masks tell where on Earth they lie, where their photos do.

    Args:
        jobs: From `jobs_of`.
    """
    jobs = list(jobs)
    suffixes = Counter(job.files["masks"].suffix for job in jobs if lies(job))
    notes = {
        ".tif": "know where on Earth they lie; their masks are GeoTIFF files at the same place",
        ".png": "know where on Earth they lie; their masks get a world file each, without the coordinate system: run "
        f"{pip_install('geo')}, for GeoTIFF files",
    }
    return [f"{count} of {len(jobs)} photos {notes[suffix]}" for suffix, count in suffixes.items()]


def note_on_ground(job: Job) -> str:
    """Says in what coordinates outlines on the ground are, and whether their areas are in square metres.

    Args:
        job: One whose photo lies somewhere on Earth, with GeoJSON among its files.
    """
    ground = ground_of(job.photo)
    if ground is None:
        return "coordinates are pixels"
    if ground.crs is not None:
        system = "longitude and latitude (WGS 84), as RFC 7946 has it"
    elif ground.system:
        system = f"the photo's own coordinates, {ground.system}, which QGIS reads; run {pip_install('geo')}, for "
        system += "longitude and latitude, as RFC 7946 has it"
    else:
        system = "the photo's own coordinates, of which nothing tells the system"
    metres = "in square metres, too" if ground.square_metres else "in pixels alone: coordinates are no true metres"
    return f"GeoJSON is in {system}; areas are {metres}"


def lies(job: Job) -> bool:
    """Whether something says where on Earth a photo lies."""
    return job.place is not None or job.files["masks"].suffix == ".tif"


def _stem(name: str) -> str:
    return name.removesuffix(Path(name).suffix)


def is_done(name: str, job: Job, table: SharesTable) -> bool:
    """Whether a photo has its row, made from the bytes that it has now, and all of its files."""
    row = table.rows.get(printable_name(name))
    with suppress(OSError):
        return row is not None and all(map(Path.exists, job.files.values())) and row[_SHA256] == _sha256_of(job)
    return False


def state_of(job: Job) -> tuple[int, ...]:
    """What the system notes of changes of a photo's files; nothing where one of them is missing."""
    with suppress(OSError):
        notes = [path.stat() for path in job.sources]
        return tuple(number for one in notes for number in (one.st_size, one.st_ino, one.st_mtime_ns, one.st_ctime_ns))
    return ()


def digest_of_photo(job: Job, state: tuple[int, ...]) -> str:
    """SHA-256 of a photo that is still as it was when it was about to be read.

    Args:
        job: The photo's.
        state: From `state_of`, before it was read.

    Raises:
        DataError: It changed since; nobody knows what its mask shows.
    """
    with suppress(OSError):
        digest = _sha256_of(job)
        if state_of(job) == state:
            return digest
    raise DataError(f"{job.photo}: changed while it was predicted; run the same command again")


def _sha256_of(job: Job) -> str:
    """Of the photo's file; of several files that of their digests."""
    digests = [sha256_of(path) for path in job.sources]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
