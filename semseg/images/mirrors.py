"""Local copies of files at addresses, in bounded room: what reads pictures sees a folder, and files come when read.

A folder at an address is mirrored by placeholders: files of zeros of the true size, which take no room and which no
reader takes for a picture, and whose date stands for the version (see `Entry`). `present` puts the file itself in its
place for as long as it is read. Files are kept while there is room; once the room is full, others pass: they become
placeholders again, as an order at random, which training has, finds as much in a room that stays as it is as in any
other. Locks of the system on the files keep processes and threads from taking a file away from each other.
"""

import atexit
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from stat import S_IWUSR
from typing import Any

from semseg.errors import DataError, ResourceError, SemsegError
from semseg.files import (
    DISK_FULL,
    MAX_AGE,
    SPACE_NEEDED,
    in_hand,
    read_json,
    remove_temporaries,
    write_json,
)
from semseg.images.addresses import Entry, ask, checked_address, entry_of, look_at, moving_file, open_address, walk

if os.name != "nt":
    import fcntl

ROOM = "SEMSEG_CLOUD_CACHE_GB"  # in the environment, so that all processes of a run have the same
_FOLDER, _SUFFIX, _ABOUT = "addresses", ".semsegmirror", "about.json"
_IN_USE, _LISTING, _OWNER, _KEPT_BYTES = "used", "listing", "owner", "kept"  # files to lock
_ABSENT, _PASSES, _KEPT = 0o400, 0o700, 0o644  # modes of placeholders, of files that pass, and of those that stay
_LARGEST_ROOM, _OF_FREE = 40e9, 0.5  # bytes, and the share of the free disk, where nobody says how much
_AT_ONCE = 8  # files that are fetched while a folder is mirrored
_LINGERING = 8  # files that passed last and are there still: a sample is digested, then read
_SMALL = 1 << 20  # bytes up to which a file of an unknown kind is fetched with the listing
_TEXTS = {".json", ".jsonl", ".geojson", ".csv", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".names"}
_ROOTS: dict[str, str] = {}  # addresses by the paths that stand for them, for messages
_USED: dict[str, int] = {}  # descriptors of locks on mirrors that this process uses
Say = Callable[[str], None]


def readable(text: str) -> str:
    """A message with addresses in the place of the paths of their local copies."""
    for root, address in _ROOTS.items() if _SUFFIX in text else ():
        text = text.replace(root, address)
    return text


def is_mirrored(path: Path | str) -> bool:
    """Whether a path stands for a file at an address."""
    return f"{_SUFFIX}{os.sep}" in str(path)


def name_of(path: Path | str) -> str:
    """What a file of `path_of` goes by: the bucket or server, and its path there."""
    return str(path).partition(f"{_SUFFIX}{os.sep}")[2].replace(os.sep, "/")


def path_of(address: str, cache: Path) -> Path:
    """The path that stands for a file at an address, which is there only inside of `present`, and takes no listing.

    Args:
        address: Of the file, or of a folder, paths below which stand for its files.
        cache: Copies lie below `cache / "addresses"`.

    Raises:
        DataError: See `checked_address`.

    Example:
        >>> import tempfile
        >>> path_of("s3://bucket/photos/a.jpg", Path(tempfile.mkdtemp())).parts[-3:]
        ('bucket', 'photos', 'a.jpg')
    """
    scheme, _, rest = checked_address(address).partition("://")
    host, _, inside = rest.partition("/")
    root = _root(f"{scheme}://{host}", str(cache))
    return root / inside if inside else root


@lru_cache(maxsize=1024)
def _root(server: str, cache: str) -> Path:
    return begin_mirror(server, Path(cache), "passing")


def begin_mirror(address: str, cache: Path, purpose: str, *, is_listed: bool = False) -> Path:
    """A folder whose files stand for those below an address; empty, or as an earlier call left it.

    Args:
        address: From `checked_address`.
        cache: See `path_of`.
        purpose: Other purposes have other folders.
        is_listed: Whether the folder knows of all files.

    Raises:
        DataError: On Windows, whose files know no such locks.
    """
    if os.name == "nt":
        raise DataError(f"{address}: addresses are read on Linux and macOS alone; copy the files to a disk")
    digest = hashlib.blake2b(f"{address} {purpose}".encode(), digest_size=8).hexdigest()
    base = cache.absolute() / _FOLDER / f"{digest}{_SUFFIX}"
    root = base / address.rpartition("/")[2]
    try:
        root.mkdir(parents=True, exist_ok=True)
        _use(base)
        if not (is_listed and (base / _ABOUT).exists()):  # else another process may be reading the room in it
            write_json(base / _ABOUT, {"address": address, "is_listed": is_listed, "room": 0})
    except OSError as error:
        raise DataError(f"{base}: {address} cannot be copied there ({error.strerror}); free the way to it") from None
    _ROOTS[str(root)] = address
    if not is_listed:
        _clear(root)
    return root


def _use(base: Path) -> None:
    """Says for as long as this process lives that it uses a mirror."""
    if str(base) not in _USED:
        descriptor = os.open(base / _IN_USE, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _USED[str(base)] = descriptor


def own_mirror(root: Path) -> int | None:
    """A descriptor that keeps other processes from owning a mirror until it is closed; None where one does.

    Args:
        root: From `begin_mirror`.
    """
    descriptor = os.open(root.parent / _OWNER, os.O_RDWR | os.O_CREAT, 0o644)
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    return None


def _clear(root: Path) -> None:
    """Removes what passed when a process was killed."""
    for folder, _, files in os.walk(root):
        remove_temporaries(Path(folder))
        for name in files:
            path = Path(folder, name)
            with suppress(OSError):
                if not _stays(path.stat()) and (descriptor := _lock(path)) is not None:
                    path.unlink()
                    os.close(descriptor)


def _is_absent(status: os.stat_result) -> bool:
    return not status.st_mode & S_IWUSR


def _passes(status: os.stat_result) -> bool:
    return status.st_mode & 0o777 == _PASSES


def _stays(status: os.stat_result) -> bool:
    return not (_is_absent(status) or _passes(status))


def _lock(path: Path) -> int | None:
    """A descriptor of a file that nobody reads, locked; None where somebody does, or it is another one by now."""
    descriptor = os.open(path, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, descriptor):
            return descriptor
    os.close(descriptor)
    return None


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(OSError):
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    return False


# -------------------------------------------------------------------------------------------------------- presence


@contextmanager
def present(*paths: Path) -> Iterator[None]:
    """Has files at their paths for as long as the block lasts; nothing for paths that stand for no address.

    Raises:
        DataError: One is gone at its address, or changed since it was listed.
        ResourceError: See `ask`; or the disk is full.
    """
    if not any(map(is_mirrored, paths)):
        yield
        return
    with ExitStack() as stack:
        for path in paths:
            if is_mirrored(path):
                mirror = _mirror_at(path)
                stack.callback(mirror.leave, path, mirror.hold(path))
        yield


def _mirror_at(path: Path) -> "_Mirror":
    return _mirror_of(str(path).partition(f"{_SUFFIX}{os.sep}")[0], os.getpid())


@lru_cache(maxsize=64)
def _mirror_of(base: str, process: int) -> "_Mirror":
    return _Mirror(Path(base + _SUFFIX))


class _Mirror:
    """One mirror as a process sees it: file systems of fsspec are for one process."""

    def __init__(self, base: Path):
        about = read_json(base / _ABOUT)
        self.address, self.is_listed, self._room = about["address"], about["is_listed"], about["room"]
        self._system, self._remote = open_address(self.address)
        self._root, self._kept_bytes = base / self.address.rpartition("/")[2], base.parent / _KEPT_BYTES

    def hold(self, path: Path, *, stays: bool = False) -> int:
        """Fetches a file unless it is there; returns a descriptor by which it is held.

        Args:
            path: Of the file.
            stays: Whether it is kept whatever room there is.
        """
        while True:
            descriptor = self._opened(path)
            try:
                status = os.fstat(descriptor)
                if _is_absent(status):
                    _wait_for(descriptor, fcntl.LOCK_EX, path)
                    if _is_at(path, descriptor):
                        return self._fetch(path, Entry(status.st_size, status.st_mtime_ns), stays)
                else:
                    _wait_for(descriptor, fcntl.LOCK_SH, path)
                    if _is_at(path, descriptor):
                        kept, descriptor = descriptor, -1
                        return kept
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _opened(self, path: Path) -> int:
        if self.is_listed:
            try:
                return os.open(path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}); replace or remove it") from None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDONLY | os.O_CREAT, _ABSENT)
        except OSError as error:
            raise DataError(f"{path}: cannot be copied to the disk ({error.strerror}); rename it") from None

    def _fetch(self, path: Path, wanted: Entry, stays: bool) -> int:
        inside = path.relative_to(self._root).as_posix()
        address, remote = f"{self.address}/{inside}", f"{self._remote}/{inside}"
        room, listed_size = None if stays else self._room, wanted.size
        is_kept = (self.is_listed or stays) and _account(self._kept_bytes, listed_size, room)
        temporary = _temporary(path)
        try:
            if not self.is_listed:
                wanted = entry_of(ask(address, self._system.info, remote), address)
            _refuse_full_disk(self._kept_bytes.parent, wanted.size)
            ask(address, self._system.get_file, remote, str(temporary), callback=moving_file())
            found = entry_of(ask(address, self._system.info, remote), address)  # after it, so that it vouches for it
            if found != wanted or temporary.stat().st_size != wanted.size:
                raise DataError(f"{address}: changed after it was listed or while it was read; run the same again")
            os.utime(temporary, ns=(wanted.version, wanted.version))
            temporary.chmod(_KEPT if is_kept else _PASSES)
            descriptor = os.open(temporary, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            temporary.replace(path)
            return descriptor
        except BaseException as error:
            if is_kept:
                _account(self._kept_bytes, -listed_size)
            if not self.is_listed:
                path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise ResourceError(f"{self._kept_bytes.parent}: no space left for {address}; free some") from None
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def leave(self, path: Path, descriptor: int) -> None:
        """Lets a file go that was held.

        One that passes becomes a placeholder again when others passed after it; where nothing is listed it goes at
        once, as it may change at its address before it is read again.
        """
        if not _passes(os.fstat(descriptor)):
            os.close(descriptor)
        elif self.is_listed:
            _PASSED.append((self, path, descriptor))
            while len(_PASSED) > _LINGERING:
                _let_go()
        else:
            self.drop(path, descriptor)

    def drop(self, path: Path, descriptor: int) -> None:
        """Makes a placeholder of a file that passes, unless somebody else reads it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                if self.is_listed:
                    status = os.fstat(descriptor)
                    _place(path, Entry(status.st_size, status.st_mtime_ns))
                else:
                    path.unlink()
        except OSError:
            pass
        finally:
            os.close(descriptor)


_PASSED: deque[tuple[_Mirror, Path, int]] = deque()


def _let_go() -> None:
    with suppress(IndexError):
        mirror, path, descriptor = _PASSED.popleft()
        mirror.drop(path, descriptor)


@atexit.register
def _let_all_go() -> None:
    while _PASSED:
        _let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PASSED.clear)  # the locks are the parent's


def _wait_for(descriptor: int, kind: int, path: Path) -> None:
    """Takes a lock; whoever has it fetches the file, and is watched."""
    while True:
        with in_hand(path), suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        time.sleep(0.02)


def _refuse_full_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + SPACE_NEEDED > free:
        raise ResourceError(
            f"{folder}: {free / 1e9:.1f} GB left on the disk, {(size + SPACE_NEEDED) / 1e9:.1f} GB needed; free "
            f"some, or give {ROOM} less"
        )


def _temporary(path: Path) -> Path:
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    return path.with_name(f".{digest}.{os.getpid()}.tmp")


def _place(path: Path, entry: Entry) -> None:
    """Puts a placeholder at a path."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.truncate(entry.size)
        os.utime(temporary, ns=(entry.version, entry.version))
        temporary.chmod(_ABSENT)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------------- room


def _account(file: Path, change: int, room: float | None = None) -> bool:
    """Adds to the bytes that are kept of all mirrors, unless there would be more than may be."""
    with file.open("a+", encoding="ascii") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.seek(0)
        total = int(kept.read() or 0) + change
        if room is not None and total > room:
            return False
        kept.seek(0)
        kept.truncate()
        kept.write(str(max(0, total)))
    return True


def _room(folder: Path, held: int) -> float:
    """Bytes that all mirrors together may take."""
    given = os.environ.get(ROOM)
    if given is None:
        return min(_LARGEST_ROOM, _OF_FREE * (shutil.disk_usage(folder).free + held))
    try:
        room = float(given)
    except ValueError:
        room = -1.0
    if not room >= 0:
        raise SemsegError(f"{ROOM}: got {given!r}; expected how many GB of files at addresses are kept, such as 20")
    return room * 1e9


def _kept_in(base: Path) -> int:
    total = 0
    for folder, _, files in os.walk(base):
        for name in files if folder != str(base) else ():
            with suppress(OSError):
                status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118  there may be a million
                total += status.st_size if _stays(status) else 0
    return total


def _make_room(own: Path, needed: float) -> float:
    """Removes mirrors that nobody uses where there is no room, the oldest first; counts what is kept anew.

    Returns:
        Bytes that all mirrors may take.
    """
    folder = own.parent
    others = sorted((base for base in folder.glob(f"*{_SUFFIX}") if base != own), key=_last_use)
    sizes = {base: _kept_in(base) for base in (own, *others)}
    room = _room(folder, sum(sizes.values()))
    for base in others:
        is_old = time.time() - _last_use(base) > MAX_AGE
        if is_old or (sizes[base] and needed + sum(sizes[other] for other in others if other in sizes) > room):
            with suppress(OSError):
                descriptor = _lock(base / _IN_USE)
                if descriptor is not None:
                    shutil.rmtree(base, ignore_errors=True)
                    os.close(descriptor)
                    del sizes[base]
    with (folder / _KEPT_BYTES).open("a+", encoding="ascii") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.truncate(0)
        kept.write(str(sum(sizes.values())))
    return room


def _last_use(base: Path) -> float:
    with suppress(OSError):
        return (base / _ABOUT).stat().st_mtime
    return 0.0


# --------------------------------------------------------------------------------------------------- whole folders


def mirrored(address: str, cache: Path, is_picture: Callable[[str], bool], say: Say = lambda _: None) -> Path:
    """What stands for a folder or a file at an address; of a folder all files are listed, and what is small is there.

    Args:
        address: Of the data.
        cache: See `path_of`.
        is_picture: Tells by a file's name whether it comes when it is read; others come now, but for large ones of
            unknown kinds.
        say: Is told what takes time, and what a room costs that is too small.

    Returns:
        The folder; or the path of a file as of `path_of`.

    Raises:
        DataError: Nothing is there.
        ResourceError: See `ask`.
    """
    address = checked_address(address)
    if look_at(address) is not None:
        return path_of(address, cache)
    root = begin_mirror(address, cache, "listed", is_listed=True)
    with (root.parent / _LISTING).open("a", encoding="ascii") as listing:
        _wait_for(listing.fileno(), fcntl.LOCK_EX, root)
        say(f"listing {address}")
        entries = _list(address)
        if not entries:
            raise DataError(f"{address}: holds no files; look after the name")
        texts = [name for name, entry in entries.items() if not is_picture(name) and _comes_now(name, entry)]
        needed = sum(entry.size for entry in entries.values())
        _update(root, entries)
        room = _make_room(root.parent, needed)
        write_json(root.parent / _ABOUT, {"address": address, "is_listed": True, "room": room})
        _mirror_of.cache_clear()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: bring(root / name), texts))
    if needed > room:
        say(
            f"{room / 1e9:.3g} GB are kept of the {needed / 1e9:.3g} GB at {address}; the other "
            f"{(needed - room) / 1e9:.3g} GB are fetched anew each time that they are read, unless their decoded "
            f"pixels are kept ({ROOM} in the environment gives more room)"
        )
    return root


def _comes_now(name: str, entry: Entry) -> bool:
    return entry.size <= _SMALL or os.path.splitext(name)[1].lower() in _TEXTS  # noqa: PTH122


def bring(path: Path) -> None:
    """Fetches a file to stay: what reads it does not know of mirrors.

    Args:
        path: Of a mirror. Where nothing is listed, what an earlier call fetched is fetched anew.

    Raises:
        DataError, ResourceError: As of `present`.
    """
    mirror = _mirror_at(path)
    if not mirror.is_listed:
        path.unlink(missing_ok=True)
    os.close(mirror.hold(path, stays=True))


def _list(address: str) -> dict[str, Entry]:
    """All files; a page of links tells no sizes, which are then asked for one by one."""
    system, remote = open_address(address)

    def entry(one: tuple[str, dict[str, Any]]) -> tuple[str, Entry]:
        name, info = one
        where = f"{address}/{name}"
        if info.get("size") is None:
            info = ask(where, system.info, f"{remote}/{name}")
        return name, entry_of(info, where)

    if address.startswith("https:"):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(pool.map(entry, walk(address)))
    return dict(map(entry, walk(address)))


def _update(root: Path, entries: dict[str, Entry]) -> None:
    """Makes a folder one of placeholders of just these files; what is there in the same version stays."""
    left = dict(entries)
    for folder, _, files in os.walk(root, topdown=False):
        remove_temporaries(Path(folder))
        for file in files:
            if file.startswith("."):  # of a process that fetches
                continue
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            status = path.stat()
            known = left.get(name)
            is_same = known == Entry(status.st_size, status.st_mtime_ns)
            if is_same and (not _passes(status) or _is_read(path)):
                del left[name]
            elif known is None:
                path.unlink()
        with suppress(OSError):
            if Path(folder) != root:
                Path(folder).rmdir()
    for name, entry in left.items():
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _place(path, entry)
        except OSError as error:
            raise DataError(f"{path}: cannot be mirrored ({error.strerror}); rename it at its address") from None


def _is_read(path: Path) -> bool:
    with suppress(OSError):
        if (descriptor := _lock(path)) is None:
            return True
        os.close(descriptor)
    return False
