"""A folder of predictions: which photos go into which files, what is done already, and the table of shares."""

import csv
import hashlib
import io
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import IO, Any, NamedTuple

import numpy as np

from semseg.errors import DataError, FolderInUseError, RunFolderError, pip_install
from semseg.files import create_json, csv_cell, csv_text, read_json, remove_older, replacing, sha256_of, write_json
from semseg.images.georeference import read_georeference
from semseg.images.geotiff_writer import can_write_geotiff
from semseg.images.ground import ground_of
from semseg.images.mirrors import is_mirrored, present
from semseg.inference.files import KINDS, LAID, Job, Result, map_ahead, shares_of
from semseg.inference.listing import Naming, Photos, Shard
from semseg.inference.object_files import COCO_FILE, COUNTS_FILE, OBJECTS_FILE
from semseg.inference.object_files import SUFFIXES as POLYGON_SUFFIXES
from semseg.runs import names
from semseg.runs.lock import one_writer, writer_of

SETTINGS_FILE, SHARES_FILE = "predictions.json", "shares.csv"
PHOTO_COLUMNS, FRAME_COLUMNS = ("photo", "width", "height", "sha256"), ("frame", "seconds")
UNSURE = "unsure"  # the column of the share that got no class, where that is wanted
UNLIKE = "unlike"  # and of what is unlike the photos that the network learnt from, where it knows them
_SHA256 = PHOTO_COLUMNS.index("sha256")
_UNFINISHED = 60  # seconds without a change, after which a file is nobody's work any more
_FETCHED_AHEAD = 8  # photos at addresses that are on their way beside those that are worked on
RUNTIME = "runtime"  # the setting of what computed them: answers of two runtimes differ in their last digits
_SHARDS = "shards"  # the setting of how many parts are predicted apart, until they are merged
_NAMED = 5  # photos of which it is kept what is unlike in them
_ANY_NAME = {"encoding": "utf-8", "errors": "backslashreplace"}  # the name of a file may be no text


@contextmanager
def take_folder(
    output: Path, settings: Mapping[str, Any], shard: Shard | None = None, *, merges: bool = False
) -> Iterator[None]:
    """Takes the folder for as long as the block lasts: a new one, or one where the same command was stopped.

    Shards of one command work in it side by side; each is there once, and none while the whole is predicted.

    Args:
        output: The folder of predictions.
        settings: All that the files depend on, as plain values.
        shard: The part that is predicted; None for the whole.
        merges: Whether all parts are finished, and are merged: their processes may be about to end.

    Raises:
        RunFolderError: It holds something else.
        FolderInUseError: Another process predicts into it.
    """
    file = output / SETTINGS_FILE
    held = [name for name in (*KINDS, SHARES_FILE, OBJECTS_FILE, COUNTS_FILE, COCO_FILE) if (output / name).exists()]
    if held and not file.exists():
        raise RunFolderError(f"{output}: holds {', '.join(held)} that no prediction wrote; choose another `output`")
    output.mkdir(parents=True, exist_ok=True)
    own = names.LOCK if shard is None else f"{names.LOCK}.{shard.number}-of-{shard.count}"
    settings = {**settings, **({} if shard is None else {_SHARDS: shard.count})}
    with one_writer(output, own):  # first its own, then a look at the others': of two, one at least sees the other
        others = [(path.name, who) for path in output.glob(f"{names.LOCK}*") if (who := writer_of(output, path.name))]
        if shard is not None or merges:
            others = [other for other in others if other[0] != names.SUPERVISOR]
        for name, who in others:
            if (shard is None and not merges) or name == names.LOCK:
                raise FolderInUseError(
                    f"{output}: {who} is writing there; wait for its end, or choose another `output`"
                )
        if not create_json(file, settings) and not merges:
            _compare(output, settings, shard)
        if not others:
            remove_older(_temporaries(output), 0 if merges else _UNFINISHED)
        yield


@contextmanager
def supervise(output: Path) -> Iterator[tuple[str, int]]:
    """Holds a folder into which other processes, perhaps on other computers, predict a part each.

    Args:
        output: The folder of predictions.

    Yields:
        A text by which `sees_supervisor` knows the folder, and in how many parts it is being predicted; 0 for none.

    Raises:
        FolderInUseError: Somebody else predicts into it, or has it predicted.
    """
    with one_writer(output, names.SUPERVISOR):
        if who := writer_of(output):
            raise FolderInUseError(f"{output}: {who} is writing there; wait for its end, or choose another `output`")
        count = (read_settings(output) or {}).get(_SHARDS)
        yield (output / names.SUPERVISOR).read_text(encoding="utf-8"), count if isinstance(count, int) else 0


def sees_supervisor(output: Path, text: str) -> bool:
    """Whether this process sees the very folder that another holds by `supervise`, and not one of the same name."""
    with suppress(OSError):
        return (output / names.SUPERVISOR).read_text(encoding="utf-8") == text
    return False


def read_settings(output: Path) -> dict[str, Any] | None:
    """All that the files in a folder of predictions depend on; None where nothing that can be read says it."""
    with suppress(OSError, ValueError):
        settings = read_json(output / SETTINGS_FILE)
        return settings if isinstance(settings, dict) else None
    return None


def _compare(output: Path, settings: Mapping[str, Any], shard: Shard | None) -> None:
    """Refuses what was predicted otherwise."""
    file, before = output / SETTINGS_FILE, read_settings(output)
    if before is None:
        raise RunFolderError(f"{file}: cannot be read; remove it, or choose another `output`")
    differing = [name for name, value in settings.items() if name != _SHARDS and before.get(name) != value]
    if differing:
        raise RunFolderError(
            f"{output}: holds predictions with another setting ({', '.join(differing)}); choose another `output`"
        )
    count = before.get(_SHARDS)
    if shard is not None and count not in (None, shard.count):
        raise RunFolderError(
            f"{output}: is predicted in {count} parts, and got `shard` {shard}; give one of {count}, or "
            "leave it out when none of them works any more"
        )
    if shard is not None and count is None:
        write_json(file, dict(settings))


def _temporaries(output: Path) -> Iterator[Path]:
    for kind in KINDS:
        for folder, _, files in os.walk(output / kind):
            yield from (Path(folder, name) for name in files if name.startswith(".") and ".tmp" in name)


def table_of(shard: Shard | None, finished: bool = False) -> str:
    """The name of the table of shares: of all photos, or of a part of them, which has another one when it is finished.

    Example:
        >>> table_of(None), table_of(Shard(2, 3)), table_of(Shard(2, 3), finished=True)
        ('shares.csv', 'shares.2-of-3.unfinished.csv', 'shares.2-of-3.csv')
    """
    if shard is None:
        return SHARES_FILE
    return f"shares.{shard.number}-of-{shard.count}{'' if finished else '.unfinished'}.csv"


def begin_shard(output: Path, shard: Shard) -> Path:
    """The table of a part, which is unfinished from now on."""
    table, finished = output / table_of(shard), output / table_of(shard, finished=True)
    if finished.exists() and not table.exists():
        finished.replace(table)
    return table


def end_shard(output: Path, shard: Shard) -> None:
    """Says that a part is finished."""
    (output / table_of(shard)).replace(output / table_of(shard, finished=True))


def unfinished_shards(output: Path, count: int) -> list[Shard]:
    """Which of so many parts are not finished; whoever finds none may merge them."""
    shards = [Shard(number, count) for number in range(1, count + 1)]
    return [shard for shard in shards if not (output / table_of(shard, finished=True)).exists()]


def gather(output: Path) -> None:
    """Brings the rows of all parts into the one table; to be called by whoever has taken the whole folder."""
    parts = sorted(path for path in output.glob("shares.*-of-*.csv"))
    if parts:
        table = output / SHARES_FILE
        with replacing(table) as temporary, temporary.open("wb") as file:
            for path in [table, *parts] if table.exists() else parts:
                with path.open("rb") as part:
                    for row in _records(part):
                        if row.offset or not file.tell():
                            file.write(row.raw)
        for path in parts:
            path.unlink()
    file, settings = output / SETTINGS_FILE, read_json(output / SETTINGS_FILE)
    if settings.pop(_SHARDS, None):
        write_json(file, settings)


class _Record(NamedTuple):
    """A row of a CSV file: its cells, its bytes, and where these begin."""

    cells: list[str]
    raw: bytes
    offset: int


def _records(file: IO[bytes], start: int = 0) -> Iterator[_Record]:
    """The rows of a file that are whole; a cell may hold line ends."""
    lines: list[bytes] = []

    def texts() -> Iterator[str]:
        while (line := file.readline()).endswith(b"\n"):
            lines.append(line)
            yield line.decode(**_ANY_NAME)

    file.seek(start)
    for cells in csv.reader(texts()):
        raw = b"".join(lines)
        lines.clear()
        yield _Record([csv_text(cell) for cell in cells], raw, start)
        start += len(raw)


class _Index:
    """Where the rows of files are, by the hash of their first cell: 16 bytes a row."""

    def __init__(self) -> None:
        self._hashes, self._places = array("q"), array("q")
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, name: str, place: int) -> None:
        self._hashes.append(hash(name))
        self._places.append(place)

    def __len__(self) -> int:
        return len(self._hashes)

    def sort(self) -> None:
        hashes, places = (np.array(values, np.int64) for values in (self._hashes, self._places))
        order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[order], places[order]

    def places(self, name: str) -> list[int]:
        """Of rows that may be of that name, the last first; of those added before `sort`."""
        hashes, places = self._sorted
        number = hash(name)
        first, last = np.searchsorted(hashes, number, "left"), np.searchsorted(hashes, number, "right")
        return places[first:last][::-1].tolist()


class SharesTable:
    """A row for each photo or frame with the classes' shares, added when all of its files are there.

    The rows stay in the file; where they are is known.

    Args:
        path: The CSV file; rows that an earlier call finished are kept.
        columns: Names of the first cells of a row.
        class_names: In the order of the ids.
        earlier: Another table, whose rows are looked up, too.

    Attributes:
        unlike: What is unlike in photos, by their names, of the first few in the order of the finished table.
        num_unlike: In how many there is something.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], class_names: Sequence[str], earlier: Path | None = None
    ):  # fmt: skip
        self._path, self._columns, self._header = path, list(columns), [*columns, *class_names]
        self._num_rows, self._index = 0, _Index()
        self.unlike: dict[str, str] = {}
        self.num_unlike = 0
        self._pixels, self._sums = 0.0, np.zeros(len(class_names) + 1)
        if not path.exists():
            with replacing(path) as temporary, temporary.open("w", newline="", **_ANY_NAME) as file:
                csv.writer(file).writerow(map(csv_cell, self._header))
        self._reader, self._reading = path.open("rb"), Lock()
        self._end = self._read()
        self._index.sort()
        self._earlier = None
        if earlier is not None and earlier.exists():
            self._earlier = SharesTable(earlier, columns, class_names)
        os.truncate(path, self._end)  # a row that was not finished
        self._file = path.open("ab")

    def _read(self) -> int:
        """Notes where rows are; returns where the whole ones end."""
        end = 0
        for record in _records(self._reader):
            if record.offset and len(record.cells) == len(self._header):
                self._index.add(record.cells[0], record.offset)
                self._num_rows += 1
            end = record.offset + len(record.raw)
        return end

    def __len__(self) -> int:
        """The number of rows; when it is finished, of photos."""
        return self._num_rows

    def row_of(self, name: str) -> list[str] | None:
        """The cells of a photo's row that an earlier call wrote; None where it has none."""
        record = self._record_of(printable_name(name))
        if record is None:
            return self._earlier.row_of(name) if self._earlier else None
        return record.cells

    def _record_of(self, name: str) -> _Record | None:
        for place in self._index.places(name):
            with self._reading:
                record = next(_records(self._reader, place))
            if record.cells[0] == name and len(record.cells) == len(self._header):
                return record
        return None

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
        text = io.StringIO(newline="")
        csv.writer(text).writerow(map(csv_cell, row))
        raw = text.getvalue().encode(**_ANY_NAME)
        self._file.write(raw)
        self._file.flush()
        self._index.add(row[0], self._end)
        self._num_rows += 1
        self._end += len(raw)

    def finish(self, order: Iterable[str]) -> None:
        """Puts the rows into order, and leaves out those of photos that are gone."""
        self._file.close()
        self._index.sort()
        index = _Index()
        with replacing(self._path) as temporary, temporary.open("wb") as file:
            file.write(next(_records(self._reader)).raw)
            for name in map(printable_name, order):
                record = self._record_of(name)
                if record is not None:
                    index.add(name, file.tell())
                    file.write(record.raw)
                    self._sum(record.cells)
            self._reader.close()  # before the file is replaced, which Windows refuses while it is open
        self._index, self._num_rows = index, len(index)
        index.sort()
        self._reader = self._path.open("rb")

    def _sum(self, row: list[str]) -> None:
        pixels = int(row[1]) * int(row[2])
        unsure = float(row[self._columns.index(UNSURE)]) if UNSURE in self._columns else 0.0
        self._pixels += pixels
        self._sums += pixels * np.array([*map(float, row[len(self._columns) :]), unsure])
        if UNLIKE in self._columns and (doubt := row[self._columns.index(UNLIKE)]):
            self.num_unlike += 1
            if len(self.unlike) < _NAMED:
                self.unlike[row[0]] = doubt

    def __contains__(self, name: str) -> bool:
        """Whether a photo has a row."""
        return self._record_of(printable_name(name)) is not None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self._reader.close()
        if self._earlier:
            self._earlier.close()

    def total_shares(self) -> np.ndarray:
        """The classes' shares of the pixels of all photos, float `(K,)`, when it is finished."""
        return self._sums[:-1] / self._pixels

    def total_unsure(self) -> float:
        """The share of the pixels of all photos that got no class, when it is finished."""
        return float(self._sums[-1] / self._pixels)


def printable_name(name: Any) -> str:
    """A file's name as text, whatever its bytes."""
    return str(name).encode(**_ANY_NAME).decode("utf-8")


class Jobs:
    """What to do for each photo.

    Masks of photos that know where on Earth they lie are GeoTIFF files where rasterio is installed, else PNG files with
    a world file.

    Args:
        stem_of: From a photo's name to that of its files, see `Naming`.
        output: The folder of predictions.
        kinds: Of files, some of `KINDS`.
        polygons: The format of outlines, where these are among the kinds.
    """

    def __init__(
        self, stem_of: Callable[[str], str], output: Path, kinds: Sequence[str], polygons: str | None = None
    ):  # fmt: skip
        self._stem_of, self._output, self._kinds = stem_of, output, kinds
        self._suffixes = {**KINDS, "polygons": POLYGON_SUFFIXES.get(polygons, "")}
        self._as_geotiff = can_write_geotiff()

    def files_of(self, name: str, lies: bool = False) -> dict[str, Path]:
        """A photo's files by their kind.

        Args:
            name: The photo's.
            lies: Whether it is known where on Earth the photo lies.
        """
        suffixes = {**self._suffixes, **(dict.fromkeys(LAID, ".tif") if lies and self._as_geotiff else {})}
        return {kind: self._output / kind / (self._stem_of(name) + suffixes[kind]) for kind in self._kinds}

    def job_of(self, name: str, photo: Sequence[Path]) -> Job:
        """What to do for a photo, whose header is read.

        Args:
            name: The photo's.
            photo: Its files.
        """
        place = read_georeference(photo[0])
        files = self.files_of(name, lies=place is not None)
        return Job(photo[0], files, None if self._as_geotiff else place, tuple(photo) if len(photo) > 1 else ())


def jobs_of(
    photos: Mapping[str, Sequence[Path]], output: Path, kinds: Sequence[str], polygons: str | None = None
) -> dict[str, Job]:
    """What to do for each of a few photos, see `Jobs`.

    Args:
        photos: The files of each by its name.
        output: The folder of predictions.
        kinds: Of files, some of `KINDS`.
        polygons: The format of outlines, where these are among the kinds.
    """
    jobs = Jobs(Naming(lambda: photos).stem_of, output, kinds, polygons)
    return {name: jobs.job_of(name, files) for name, files in photos.items()}


def notes_on_places(suffixes: Mapping[str, int], total: int) -> list[str]:
    """Says how masks tell where on Earth they lie, where their photos do.

    Args:
        suffixes: Of the masks of photos that do, how many have each.
        total: The number of all photos.
    """
    notes = {
        ".tif": "know where on Earth they lie; their masks are GeoTIFF files at the same place",
        ".png": "know where on Earth they lie; their masks get a world file each, without the coordinate system: run "
        f"{pip_install('geo')}, for GeoTIFF files",
    }
    return [f"{count} of {total} photos {notes[suffix]}" for suffix, count in suffixes.items()]


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


def is_done(name: str, job: Job, table: SharesTable, is_there: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether a photo has its row, made from the bytes that it has now, and all of its files."""
    row = table.row_of(name)
    with suppress(OSError):
        return row is not None and all(map(is_there, job.files.values())) and row[_SHA256] == _sha256_of(job)
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


class _Looked(NamedTuple):
    """A photo that was looked at: its state, and what holds its files, where they were fetched, until it is done."""

    name: str
    job: Job
    state: tuple[int, ...]
    held: ExitStack
    is_done: bool = False
    error: DataError | None = None


class Work:
    """The photos that wait for their masks, one after the other, and how far this is.

    Args:
        photos: All of them.
        jobs: What to do for each.
        table: What is done.
        shard: The part that is to be done; None for all.
        polygons: The format of outlines.
        is_there: Tells whether a file of a photo is there.

    Attributes:
        number: Photos of the part that were met.
        done: How many of them needed nothing.
        skipped: How many could not be used; for whoever finds that out.
        expected: About how many there are.
    """

    def __init__(
        self, photos: Photos, jobs: Jobs, table: SharesTable, shard: Shard | None, polygons: str | None,
        is_there: Callable[[Path], bool] = Path.exists,
    ):  # fmt: skip
        self._photos, self._jobs, self._table, self._shard, self._is_there = photos, jobs, table, shard, is_there
        self.number = self.done = self.skipped = 0
        self.expected = len(photos) // (shard.count if shard else 1)
        self._waiting: dict[int, _Looked] = {}  # by the job's id
        self._suffixes: Counter[str] = Counter()
        self._polygons, self._first_on_ground = polygons, None

    @property
    def predicted(self) -> int:
        """How many have got their mask."""
        return max(0, self.number - self.done - self.skipped - len(self._waiting))

    def __iter__(self) -> Iterator[Job]:
        photos = (photo for photo in self._photos if not self._shard or self._shard.holds(photo[0]))
        with ThreadPoolExecutor(_FETCHED_AHEAD) as pool, closing(self._look_ahead(photos, pool)) as looked:
            for one in looked:
                job = one.job
                self.number += 1
                if lies(job):
                    self._suffixes[job.files["masks"].suffix] += 1
                    self._first_on_ground = self._first_on_ground or job
                if one.is_done:
                    self.done += 1
                    continue
                self._waiting[id(job)] = one
                yield job

    def _look_ahead(self, photos: Iterable[tuple[str, tuple[Path, ...]]], pool: Executor) -> Iterator["_Looked"]:
        """Looks at photos when they are asked for; at those of addresses ahead, as they have to come first."""
        for is_far, some in groupby(photos, lambda photo: is_mirrored(photo[1][0])):
            if is_far:
                yield from (looked for _, looked in map_ahead(pool, self._look, some, _FETCHED_AHEAD))
            else:
                yield from map(self._look, some)

    def _look(self, photo: tuple[str, tuple[Path, ...]]) -> "_Looked":
        name, files = photo
        held = ExitStack()
        try:
            held.enter_context(present(*files))
        except DataError as error:
            return _Looked(name, Job(files[0], self._jobs.files_of(name)), (), held, error=error)
        try:
            job = self._jobs.job_of(name, files)
            if is_done(name, job, self._table, self._is_there):
                held.close()
                return _Looked(name, job, (), held, is_done=True)
            return _Looked(name, job, state_of(job), held)
        except BaseException:
            held.close()
            raise

    def cells_of(self, job: Job, result: Result | DataError) -> dict[str, Any]:
        """What a table says of a photo beside its classes.

        Args:
            job: Just done.
            result: What came of it.

        Raises:
            DataError: Its photo cannot be used, or changed meanwhile.
        """
        looked = self._waiting.pop(id(job))
        with looked.held:
            if isinstance(result, DataError):
                raise looked.error or result
            values = (looked.name, *result.size[::-1], digest_of_photo(job, looked.state))
        return {**dict(zip(PHOTO_COLUMNS, values, strict=True)), UNLIKE: "; ".join(result.unlike)}

    def notes(self) -> list[tuple[str, str]]:
        """Topics and what is to be said of them: of where photos lie."""
        notes = [("place", note) for note in notes_on_places(self._suffixes, self.number)]
        if self._polygons == "geojson" and self._first_on_ground:
            with present(self._first_on_ground.photo):
                notes.append(("outlines", note_on_ground(self._first_on_ground)))
        return notes
