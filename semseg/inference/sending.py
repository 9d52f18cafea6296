"""Predictions that go to an address: each photo's files when it is done, the tables now and then and at the end."""

import os
import re
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import DataError, RunFolderError
from semseg.files import check_output, default_folder, read_json
from semseg.images.addresses import ask, checked_address, is_address, open_address, walk
from semseg.images.mirrors import begin_mirror, own_mirror
from semseg.inference.files import Job, Result, map_ahead
from semseg.inference.listing import Shard
from semseg.inference.predictions import SETTINGS_FILE

_PAUSE, _TIMES = 10.0, 20  # seconds between tables that are sent, and at least so many times as sending one takes
_AT_ONCE = 4  # photos whose files are sent at the same time
_OURS = re.compile(r"shares(\..*)?\.csv|objects\.csv|counts\.csv|coco\.json|predictions\.json")
_PUT: dict[str, dict[str, Any]] = {"az": {"overwrite": True}}


class Place:
    """Where predictions go: a local folder.

    Args:
        folder: As it is, or will be.

    Attributes:
        folder: In which they are made.
        name: What users call the place.
    """

    def __init__(self, folder: Path):
        self.folder, self.name = folder, str(folder)

    def claim(self) -> None:
        """Makes it known with what is predicted."""

    def has(self, path: Path) -> bool:
        """Whether a photo's file was there when this began."""
        return path.exists()

    def as_done(self, results: Iterable[tuple[Job, Result | DataError]]) -> Iterable[tuple[Job, Result | DataError]]:
        """The results, each when its files are there."""
        return results

    def bring_tables(self) -> None:
        """Looks for what other parts finished meanwhile."""

    def close(self) -> None:
        """Ends the work there."""

    def send_tables(self, *, ends: bool = False) -> None:
        """Brings the tables to their place.

        Args:
            ends: Whether all is done, and no file is written to any more.
        """


def place_of(output: str, shard: Shard | None) -> Place:
    """The place of a path or an address.

    Args:
        output: What the user gave.
        shard: The part that is predicted; None for all.

    Raises:
        SemsegError: See `AddressedPlace`.
    """
    return AddressedPlace(output, shard) if is_address(output) else Place(Path(output))


class AddressedPlace(Place):
    """A folder of predictions at an address, and the local one in which they are made.

    What is at the address alone says what is done: the local folder begins with its tables, and files of photos stay in
    it only until they are sent. An object of a store is whole or not there.

    Args:
        address: Of the folder.
        shard: The part that is predicted; None for all. Each has a local folder of its own.

    Raises:
        DataError: An address that cannot be written to.
        RunFolderError: Another process of this machine is writing there.
        ResourceError: See `ask`.
    """

    def __init__(self, address: str, shard: Shard | None):
        address = checked_address(address)
        scheme = address.partition("://")[0]
        if scheme == "https":
            raise DataError(f"{address}: is read, and not written to; give `output` a bucket or a folder")
        self._system, self._remote = open_address(address)
        self._options = _PUT.get(scheme, {})
        super().__init__(begin_mirror(address, default_folder(), f"results {shard or ''}"))
        self.name, self._owner = address, own_mirror(self.folder)
        if self._owner is None:
            raise RunFolderError(
                f"{address}: another process of this machine is writing there; wait for its end, or choose another "
                "`output`"
            )
        check_output(self.folder.parent)  # on the disk, before anything takes time
        self._next, self._sent = 0.0, dict[str, tuple[int, int]]()
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._there = self._bring_tables(looks_for_all=True)

    def _bring_tables(self, *, looks_for_all: bool = False) -> np.ndarray:
        """Fetches what lies at the top of the folder; returns the sorted hashes of the names of all files."""
        hashes = array("q")
        with suppress(DataError):  # of a folder that is not there yet
            for name, _ in walk(self.name, is_deep=looks_for_all):
                hashes.append(hash(name))
                kind, slash, _ = name.partition("/")
                if slash:
                    (self.folder / kind).mkdir(exist_ok=True)
                elif _OURS.fullmatch(name):
                    self._bring(name)
        return np.sort(np.frombuffer(hashes, np.int64))

    def _bring(self, name: str) -> None:
        path = self.folder / name
        with suppress(DataError):  # whoever merged it removed it meanwhile
            ask(self._at(name), self._system.get_file, f"{self._remote}/{name}", str(path))
            self._sent[name] = _stamp(path)

    def claim(self) -> None:
        """Writes down with what is predicted, unless somebody did at the same moment; refuses other settings.

        Raises:
            RunFolderError: The folder holds predictions with other settings.
        """
        file = self.folder / SETTINGS_FILE
        if SETTINGS_FILE in self._sent:
            if self._sent[SETTINGS_FILE] != _stamp(file):  # by now it says how many parts there are
                self._send(SETTINGS_FILE)
                self._sent[SETTINGS_FILE] = _stamp(file)
            return
        try:
            ask(self._at(SETTINGS_FILE), self._system.pipe_file, f"{self._remote}/{SETTINGS_FILE}",
                file.read_bytes(), mode="create")  # fmt: skip
        except FileExistsError:
            own = read_json(file)
            self._bring(SETTINGS_FILE)
            if read_json(file) != own:
                raise RunFolderError(
                    f"{self.name}: another process began predictions with other settings there; choose another `output`"
                ) from None
        self._sent[SETTINGS_FILE] = _stamp(file)

    def _at(self, name: str) -> str:
        return f"{self.name}/{name}"

    def has(self, path: Path) -> bool:
        """Whether a photo's file was at the address when this began."""
        number = hash(path.relative_to(self.folder).as_posix())
        place = np.searchsorted(self._there, number)
        return bool(place < len(self._there) and self._there[place] == number)

    def as_done(self, results: Iterable[tuple[Job, Result | DataError]]) -> Iterator[tuple[Job, Result | DataError]]:
        """Hands results on when their files are sent; a few are on their way at once."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for (job, result), _ in map_ahead(pool, self._send_files, results, 2 * _AT_ONCE):
                yield job, result
                if time.monotonic() > self._next:
                    self.send_tables()

    def _send_files(self, item: tuple[Job, Result | DataError]) -> None:
        job, result = item
        for path in job.files.values() if isinstance(result, Result) else ():
            beside = path.with_suffix(f"{path.suffix[:2]}{path.suffix[-1:]}w") if job.place else path
            for one in {path, beside}:
                if one.exists():
                    self._send(one.relative_to(self.folder).as_posix())
                    one.unlink()

    def _send(self, name: str) -> None:
        path = self.folder / name
        ask(self._at(name), self._system.put_file, str(path), f"{self._remote}/{name}", **self._options)

    def send_tables(self, *, ends: bool = False) -> None:
        """Sends what lies at the top of the folder and changed, and removes what is not there any more.

        Args:
            ends: Whether all is done, and nothing is in files that are written.
        """
        start = time.monotonic()
        files = self.folder.rglob("*") if ends else self.folder.glob("*.csv")  # others may be written to now
        found = [path for path in files if path.is_file() and not path.name.startswith(".")]
        for path in sorted(found, key=lambda path: (path.name == SETTINGS_FILE, path)):
            name, stamp = path.relative_to(self.folder).as_posix(), _stamp(path)
            if self._sent.get(name) != stamp:
                self._send(name)
                self._sent[name] = stamp
        for name in [name for name in self._sent if not (self.folder / name).exists()] if ends else ():
            with suppress(DataError):
                ask(self._at(name), self._system.rm_file, f"{self._remote}/{name}")
            del self._sent[name]
        self._next = time.monotonic() + max(_PAUSE, _TIMES * (time.monotonic() - start))

    def bring_tables(self) -> None:
        """Fetches what other parts finished meanwhile, and forgets what they were before."""
        for path in self.folder.glob("shares*.csv"):
            path.unlink()
            self._sent.pop(path.name, None)
        self._bring_tables()

    def close(self) -> None:
        """Lets other processes write there."""
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
