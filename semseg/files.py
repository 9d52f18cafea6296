"""Files that are either whole or not there, and run folders that lose nothing."""

import csv
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from semseg.errors import ResourceError, RunFolderError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SPACE_NEEDED = 100 * 2**20  # bytes: a model, its successor while it is written, and the pictures
MAX_AGE = 30 * 24 * 3600  # seconds that what nobody uses is kept in the user's cache folder
_MAX_JSON_BYTES = 100_000_000
_LIKE_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also full-width
_TEMPORARY = re.compile(r"\..*\.(\d+)\.tmp(\.[^.]*)?", re.DOTALL)
_LONG_NAME = 200  # bytes; most disks take 255
FILES_IN_HAND: dict[int, tuple[int, Path]] = {}  # by thread what it waits for now, with a number of its own
_COUNT = itertools.count()


@contextmanager
def in_hand(path: Path) -> Iterator[None]:
    """Notes for as long as the block lasts that this thread waits for a file, which a disk that stalls may not give.

    Args:
        path: The file.
    """
    thread = threading.get_ident()
    around = FILES_IN_HAND.get(thread)
    FILES_IN_HAND[thread] = next(_COUNT), path
    try:
        yield
    finally:
        del FILES_IN_HAND[thread]
        if around:
            FILES_IN_HAND[thread] = around


def renew_in_hand(thread: int) -> None:
    """Notes that what a thread waits for moves.

    Args:
        thread: Its number.
    """
    if around := FILES_IN_HAND.get(thread):
        FILES_IN_HAND[thread] = next(_COUNT), around[1]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes the place of `path` when the block ends well.

    The new file is synced before it is renamed and its folder after, so that a crash leaves the old file or the new
    one, never a part of one. When the block raises, the temporary file is removed and `path` stays as it was.

    Args:
        path: The file to write. Its suffix is kept, for writers that choose the format by it.

    Example:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    name = os.fsencode(path.stem)  # a file's name may be as long as the disk takes, and the temporary one is longer
    stem = path.stem if len(name) < _LONG_NAME else hashlib.sha256(name).hexdigest()
    temporary = path.with_name(f".{stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        with in_hand(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, values: Any) -> None:
    """Writes a JSON file, indented by 2 and ended by a newline, as `replacing` does: whole or not at all.

    Args:
        path: The file to write or to replace.
        values: What `json.dumps` takes: dicts, lists, strings, numbers, booleans, None.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not have; write None instead.
        TypeError: A value is of another type, such as a NumPy array.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.json"
        >>> write_json(path, {"iou": 0.5})
        >>> path.read_text().splitlines()
        ['{', '  "iou": 0.5', '}']
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def create_json(path: Path, values: Any) -> bool:
    """Writes a JSON file, whole, where there is none; of several processes that do so at once, one does.

    Args:
        path: The file to write.
        values: As of `write_json`.

    Returns:
        Whether this process wrote it.
    """
    if path.exists():
        return False
    whole = path.with_name(f".{path.stem}.{socket.gethostname()}-{os.getpid()}.tmp{path.suffix}")
    write_json(whole, values)
    try:
        os.link(whole, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without links
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)
    return True


def read_json(path: str | Path) -> Any:
    """Reads a JSON file that anybody may have edited or sent.

    Args:
        path: The file, UTF-8.

    Returns:
        What `json.loads` gives.

    Raises:
        ValueError: It is no JSON, is larger than 100 MB, nests deeper than Python reads, names a thing twice, or holds
            NaN or an infinity, which JSON does not have; the message tells where, as far as that is known.
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.json"
        >>> _ = path.write_text('{"iou": NaN}')
        >>> read_json(path)
        Traceback (most recent call last):
        ValueError: NaN in line 1 is no number
    """
    path = Path(path)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"{path.stat().st_size / 1e6:.0f} MB of JSON, more than {_MAX_JSON_BYTES / 1e6:.0f}")
    text = path.read_text(encoding="utf-8-sig")

    def refuse_constant(name: str) -> None:
        found = re.search(rf"(?<![\w\"]){name}\b", text)
        line = text.count("\n", 0, found.start() if found else 0) + 1
        raise ValueError(f"{name} in line {line} is no number")

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nests too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice[:60]!r} is there twice")
    return values


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file with a header, in UTF-8, as `replacing` does: whole or not at all.

    Args:
        path: The file to write or to replace.
        rows: At least one row, by column name. The columns stand in the order in which the rows first name them; a row
            that lacks one leaves it empty. Characters that UTF-8 does not have (in names of files) become `?`, and
            text that a spreadsheet would compute gets an apostrophe before it: see `csv_cell`.

    Raises:
        ValueError: There are no rows, so that nothing names the columns.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
        >>> write_csv(path, [{"class": "road", "iou": 0.5}, {"class": "sky", "iou": 0.75}])
        >>> path.read_text().splitlines()
        ['class,iou', 'road,0.5', 'sky,0.75']
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        raise ValueError(f"{path}: got no rows to write; expected at least one, whose names become the header")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        writer.writerows(map(csv_cell, map(row.get, columns)) for row in rows)


def csv_cell(value: Any) -> Any:
    """What stands for a value in a CSV file: spreadsheets take text that begins as a formula does for one.

    Args:
        value: Text that begins with `=`, `+`, `-`, `@`, a tab or a line's end, or with an apostrophe, gets an
            apostrophe before it, which spreadsheets do not show; numbers and other text stay as they are.

    Example:
        >>> csv_cell("=1+1"), csv_cell(-0.5), csv_cell("road")
        ("'=1+1", -0.5, 'road')
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_LIKE_FORMULAS) else value


def csv_text(cell: str) -> str:
    """The text that `csv_cell` made a cell of.

    Example:
        >>> csv_text("'=1+1"), csv_text("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_LIKE_FORMULAS) else cell


def read_csv(file: Iterable[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the rows of what `write_csv` wrote, by column; a row that was cut lacks its last ones.

    Args:
        file: Its lines.
    """
    columns, *rows = [[csv_text(cell) for cell in row] for row in csv.reader(file)] or [[]]
    return columns, [dict(zip(columns, row, strict=False)) for row in rows if row]


def move_into_place(source: Path, target: Path) -> None:
    """Gives a whole file or folder, written elsewhere on the same disk, its final name; what had it goes.

    Args:
        source: The file or folder as it was written.
        target: Its final path. What had it stays there until the new one is whole.
    """
    if source.is_file():
        with replacing(target) as temporary:
            source.replace(temporary)
        return
    before = target.with_name(f".{target.name}.{os.getpid()}.before")
    if target.exists():
        target.replace(before)
    source.replace(target)
    _sync(target.parent)
    shutil.rmtree(before, ignore_errors=True)


_KEPT_FREE = 500_000_000  # bytes of a disk left to others


def reserve(path: Path, size: int) -> None:
    """Makes a file of `size` zeros with all of its space taken, so that writing into it later meets no full disk.

    Args:
        path: The file to make or to replace.
        size: In bytes.

    Raises:
        OSError: Not permitted, or less than 500 MB would be left on the disk.
    """
    free = shutil.disk_usage(path.parent).free
    if size + _KEPT_FREE > free:
        raise OSError(f"{(size + _KEPT_FREE) / 1e9:.1f} GB of disk space are needed, {free / 1e9:.1f} GB are free")
    with replacing(path) as temporary, temporary.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))


def remove_older(paths: Iterable[Path], seconds: float) -> None:
    """Removes those of the files that were changed too long ago; one that may not be removed stays.

    Args:
        paths: Files; folders among them stay, as do files that are gone.
        seconds: Age from which on a file is removed.
    """
    for path in paths:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with in_hand(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written again; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def remove_temporaries(folder: Path) -> None:
    """Removes what `replacing` left in a folder where a process was killed; those of living processes stay.

    Args:
        folder: Need not exist. Folders inside it are not looked at.
    """
    for path in folder.glob(".*.tmp*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not is_running(int(match[1])):
            with suppress(OSError):
                path.unlink()


def clear_temporaries(folder: Path) -> None:
    """Removes what killed processes left in a folder and in those inside it, but for hidden ones."""
    remove_temporaries(folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            remove_temporaries(path)


def is_running(pid: int) -> bool:
    """Whether a process of this machine has the number; True where that cannot be told."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder for syncing
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def default_folder() -> Path:
    """The folder `semseg` where this system's user keeps what programs can make again."""
    try:
        home = Path.home()
    except RuntimeError:  # a container's user may have none
        home = Path(tempfile.gettempdir())
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "semseg"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "semseg"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "semseg"


def check_output(output: Path) -> None:
    """Tries to write where results will go, before anything takes time; leaves nothing behind.

    Args:
        output: The folder; need not exist yet.

    Raises:
        RunFolderError: It cannot be written.
        ResourceError: There is too little space on its disk.
    """
    try:
        existing = _existing_part(output)
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(f"{output}: no space left; free some or choose another `output`") from None
        raise RunFolderError(f"{output}: cannot be written ({error.strerror}); choose another `output`") from None
    free = shutil.disk_usage(existing).free
    if free < SPACE_NEEDED:
        raise ResourceError(
            f"{output}: {free // 2**20} MB left on the disk, {SPACE_NEEDED // 2**20} MB needed; free some or choose "
            "another `output`"
        )


def _existing_part(output: Path) -> Path:
    """What is there of a path; raises an `OSError` for a name that no disk takes, or a link to nowhere."""
    for path in (output, *output.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
            if not path.exists():
                raise OSError(errno.ELOOP, "a link to nothing that is there")
            if path.is_file():
                raise OSError(errno.EEXIST, "a file is in its place")
            return path
    return Path(output.anchor)


def last_lines(path: Path, size: int = 4000) -> list[str]:
    """The last lines of a text file that hold something.

    Args:
        path: The file; what is no UTF-8 in it is replaced.
        size: Bytes from its end that are read.
    """
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        text = file.read().decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()]


def archive(folder: Path, patterns: Iterable[str]) -> Path | None:
    """Moves the files in `folder` that match any of the glob `patterns` to `folder/archive/<date-time>/`.

    Those in folders inside stay in folders of the same names.

    Args:
        folder: Where the files lie.
        patterns: As for `Path.glob`, relative to `folder`.

    Returns:
        The new folder, or None when there was nothing to move.
    """
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    if not found:
        return None
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    target, count = folder / "archive" / stamp, 1
    while target.exists():
        count += 1
        target = folder / "archive" / f"{stamp}-{count}"
    for path in found:
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    return target
