"""One writer at a time: a lock in a folder, with its owner's process, host and start."""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from semseg.errors import FolderInUseError
from semseg.files import is_running
from semseg.runs import names

if os.name == "nt":
    import msvcrt
else:
    import fcntl

HEARTBEAT = 15.0  # seconds between two signs of life, for other hosts: only its own sees whether a process lives
MAX_SILENCE = 120.0  # seconds after which another host's owner counts as dead
_FAR = 2**30  # the byte that Windows locks: far behind the text, which stays readable


@contextmanager
def one_writer(folder: Path, name: str = names.LOCK) -> Iterator[None]:
    """Keeps all other processes that ask from writing into a folder.

    The system takes the lock from a process that dies. Where hosts share a folder but not its locks, an owner counts as
    dead after two minutes without a sign of life.

    Args:
        folder: Made if need be, and removed again if nothing was written.
        name: Of the lock's file; locks of other names keep nobody away.

    Raises:
        FolderInUseError: Another process writes there.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / name
    descriptor = _taken(path)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, ended), name="semseg-lock", daemon=True)
    try:
        _write_owner(descriptor)
        heart.start()
        yield
    finally:
        ended.set()
        with suppress(OSError):  # before it is given back, so that nobody removes the next owner's
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):
            if os.name == "nt":
                path.unlink()
            for path_made in made:
                path_made.rmdir()


def _taken(path: Path) -> int:
    """Opens the lock file and locks it; one that its owner removed meanwhile, or its folder, is made anew."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            _refuse_if_owned(path, descriptor)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def writer_of(folder: Path, name: str = names.LOCK) -> str | None:
    """Which other process writes into a folder now, in words; None for none. Nothing is taken, nor written.

    Args:
        folder: Need not exist.
        name: Of the lock's file.
    """
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        owner = _read_owner(descriptor)
        is_own = (owner.get("pid"), owner.get("host")) == (os.getpid(), socket.gethostname())
        return None if is_own else _living_owner(path, descriptor)
    finally:
        os.close(descriptor)


def _refuse_if_owned(path: Path, descriptor: int) -> None:
    if who := _living_owner(path, descriptor):
        raise FolderInUseError(f"{path.parent}: {who} is writing there; wait for its end, or choose another `output`")


def _living_owner(path: Path, descriptor: int) -> str | None:
    locked, owner = _lock(descriptor), _read_owner(descriptor)
    if _is_free(path, locked, owner):
        return None
    if not owner:
        return "another process"
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('started', '?')},"


def _is_free(path: Path, locked: bool | None, owner: Mapping[str, Any]) -> bool:
    """Whether nobody holds the lock any more, by the system if it is of this host, and else by signs of life."""
    here = owner.get("host") == socket.gethostname()
    if owner and not here:
        return locked is not False and _seconds_since_beat(path) > MAX_SILENCE
    return locked or (locked is None and not (owner and is_running(owner.get("pid", 0))))


def _lock(descriptor: int) -> bool | None:
    """Locks a file for this process; False if another one has, None where the disk knows no locks."""
    try:
        if os.name == "nt":
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _read_owner(descriptor: int) -> dict[str, Any]:
    """Who wrote the lock file; nothing where nobody did, or just begins to."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with suppress(ValueError):
        owner = json.loads(os.read(descriptor, 4096))
        return owner if isinstance(owner, dict) else {}
    return {}


def _write_owner(descriptor: int) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(owner).encode("utf-8"))


def _beat(path: Path, ended: threading.Event) -> None:
    """Renews the file's date until the end, by the clock of its disk."""
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(path)


def _seconds_since_beat(path: Path) -> float:
    """By the clock of the disk, as those of hosts may differ."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=path.parent, prefix=".semseg-") as probe:
        return Path(probe.name).stat().st_mtime - path.stat().st_mtime
    return 0.0
