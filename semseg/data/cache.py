"""Decoded, quantised and resized samples in one memory-mapped file: later epochs, and runs, decode nothing."""

import os
import sys
import tempfile
import time
import weakref
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from threading import Lock

import cv2
import numpy as np
import PIL

from semseg.data.base import Sample
from semseg.files import remove_older, reserve

_SUFFIX, RECORDS_SUFFIX = ".semsegcache", ".semsegrecords"
_MAX_FILE_BYTES = 2**28  # what is larger is judged by its header, and not kept
_RECORD = 36  # bytes: digest of the source files (16), their state (16), CRC-32 of both and of the slot (4)
_NO_STATE = bytes(16)  # of files whose state says nothing
_MIN_AGE = 2  # seconds since a file changed: a second change in the same tick of its clock would leave no trace
MAX_AGE = 30 * 24 * 3600  # seconds that an unused cache is kept


class Cache:
    """A file of a record per sample, then a slot per sample: photo, then ids, H * W * 4 bytes.

    What a slot holds is believed once per run, when the source files still have the bytes that it was made from and the
    slot is whole; from then on no file is looked at. Files need not be read for that where the system vouches for them:
    it notes size, inode and the times of the last changes, of which no program can set the last one. Threads may share
    a cache, and processes the file: they write the same bytes to the same place.

    Args:
        samples: All samples of the data set, whatever their split.
        image_size: (height, width) of what is stored.
        meaning: Text that changes whenever the ids would, such as the palette as JSON.
        folder: Where the caches lie; None for no cache, in which nothing is ever found.

    Attributes:
        note: Why there is no cache although one was asked for, in one sentence; else empty.
        path: The file; None for no cache.
    """

    def __init__(self, samples: Sequence[Sample], image_size: tuple[int, int], meaning: str, folder: Path | None):
        self.note, self.path, self.image_size = "", None, tuple(image_size)
        self._slots: dict[Sample, int] = {}
        self._digests: dict[Sample, bytes] = {}
        self._states: dict[Sample, bytes] = {}
        self._trusted: set[int] = set()
        self._lock = Lock()
        if folder is None:
            return
        ordered = sorted(set(samples), key=str)
        files = [_digest([_way_to_read(s), *(str(path.absolute()) for path in s.files)]) for s in ordered]
        name = _digest([code_digest(), str(self.image_size), meaning, *files]).hex()
        try:
            self._open(folder / f"{name}{_SUFFIX}", ordered)
        except OSError as error:
            self.note = f"no cache of decoded samples in {folder}: {error.strerror or error}; every epoch decodes anew"

    def _open(self, path: Path, samples: list[Sample]) -> None:
        self._slot_bytes = self.image_size[0] * self.image_size[1] * 4
        self._start = len(samples) * _RECORD
        size = self._start + len(samples) * self._slot_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            reserve(path, size)
        self._file = path.open("r+b", buffering=0)
        weakref.finalize(self, self._file.close)
        self._bytes = np.asarray(np.memmap(self._file, np.uint8, "r"))
        os.utime(path)
        for suffix in (_SUFFIX, RECORDS_SUFFIX):
            remove_older(path.parent.glob(f"*{suffix}"), MAX_AGE)
        self._slots = {sample: slot for slot, sample in enumerate(samples)}
        self.path = path

    def find(self, sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
        """Looks up what was stored for a sample, unless it was nothing, is damaged, or was made from other bytes.

        Args:
            sample: One of the cache's samples.

        Returns:
            Photo, uint8 RGB `(H, W, 3)`, and ids, uint8 `(H, W)`, both read-only; or None.
        """
        slot = self._slots.get(sample)
        if slot is None or not (slot in self._trusted or self._verify(slot, sample)):
            return None
        pixels, split = self._pixels(slot), 3 * self.image_size[0] * self.image_size[1]
        return pixels[:split].reshape(*self.image_size, 3), pixels[split:].reshape(self.image_size)

    def _pixels(self, slot: int) -> np.ndarray:
        start = self._start + slot * self._slot_bytes
        return self._bytes[start : start + self._slot_bytes]

    def digest(self, sample: Sample) -> bytes | None:
        """16 bytes that tell a sample's files from any others, as they were at the first look.

        Args:
            sample: Any sample.

        Returns:
            BLAKE2b of the files' bytes; None if they cannot be read or are too large.
        """
        if sample not in self._digests:
            try:
                self._states[sample] = _state(sample)
                if not self._is_unchanged(sample):
                    self._digests[sample] = _digest_of(sample)
            except OSError:
                return None  # loading the sample will say what is wrong
        return self._digests[sample]

    def has_changed(self, sample: Sample) -> bool:
        """Whether a sample's files have other bytes than at the first look; False where nobody looked.

        Args:
            sample: Any sample.
        """
        if sample not in self._digests:
            return False
        try:
            state = _state(sample)
            if state == self._states[sample] != _NO_STATE:
                return False
            if _digest_of(sample) != self._digests[sample]:
                return True
        except OSError:
            return True
        self._states[sample] = state  # copied back, or only touched
        return False

    def _is_unchanged(self, sample: Sample) -> bool:
        """Whether the files are in the state in which the sample was stored; believes its whole record then."""
        slot, state = self._slots.get(sample), self._states[sample]
        if slot is None or state == _NO_STATE:
            return False
        record = self._record(slot)
        if record[16:32] != state or record[32:] != _crc(record[:32], self._pixels(slot)):
            return False
        self._digests[sample] = record[:16]
        self._trusted.add(slot)
        return True

    def _record(self, slot: int) -> bytes:
        return self._bytes[slot * _RECORD : (slot + 1) * _RECORD].tobytes()

    def _verify(self, slot: int, sample: Sample) -> bool:
        digest = self.digest(sample)
        if digest is None or slot in self._trusted:
            return digest is not None
        record, pixels = self._record(slot), self._pixels(slot)
        if record[:16] != digest or record[32:] != _crc(record[:32], pixels):
            return False
        with self._lock, suppress(OSError):  # the files are older now, or were copied: next time their state vouches
            self._write_record(slot, sample, pixels)
        self._trusted.add(slot)
        return True

    def store(self, sample: Sample, photo: np.ndarray, mask: np.ndarray) -> None:
        """Keeps the pixels of a sample that `find` did not find; what cannot be written is left out.

        Args:
            sample: One of the cache's samples.
            photo: uint8 RGB `(H, W, 3)`, of the cache's `image_size`.
            mask: uint8 ids `(H, W)`.
        """
        slot = self._slots.get(sample)
        if slot is None or sample not in self._digests:
            return
        pixels = photo.tobytes() + mask.tobytes()
        with self._lock, suppress(OSError):  # what could not be written is not believed later
            self._file.seek(self._start + slot * self._slot_bytes)
            self._file.write(pixels)
            self._write_record(slot, sample, pixels)  # last: it vouches for the pixels
            self._trusted.add(slot)

    def _write_record(self, slot: int, sample: Sample, pixels: bytes | np.ndarray) -> None:
        record = self._digests[sample] + self._states[sample]
        self._file.seek(slot * _RECORD)
        self._file.write(record + _crc(record, pixels))


def _digest_of(sample: Sample) -> bytes:
    drawn = [sample.drawing.digest] if sample.drawing else []
    return _digest([_way_to_read(sample), *drawn, *(path.read_bytes() for path in sample.files)])


def _way_to_read(sample: Sample) -> str:
    """What besides the bytes of its files makes a sample: the page, and what its parts stand for."""
    way = (sample.page, len(sample.parts), sample.part_numbers, sample.view is not None)
    return str((*way, "drawn") if sample.drawing else way)


def _state(sample: Sample) -> bytes:
    """16 bytes that change whenever the system notes a change of a sample's files; `_NO_STATE` where it may note none.

    Windows notes no change of a file but its date, which programs set, and clocks tick at up to two seconds.

    Raises:
        OSError: A file is none that can be digested: missing, a pipe that would never end, or too large.
    """
    noted: list[str | bytes] = [sample.drawing.digest] if sample.drawing else []
    newest = 0
    for path in sample.files:
        status = path.stat()
        if not S_ISREG(status.st_mode) or status.st_size >= _MAX_FILE_BYTES:
            raise OSError(f"{path}: no file, or too large")
        noted.append(f"{status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}")
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
    is_settled = time.time_ns() - newest > _MIN_AGE * 10**9
    return _digest(noted) if is_settled and os.name != "nt" else _NO_STATE


def key_of(splits: Mapping[str, Sequence[Sample]], settings: str) -> str | None:
    """A name for what is found out about the samples of all splits, other than before once a file or the code changes.

    Args:
        splits: Samples by the name of their split.
        settings: Text that changes whenever something else does that it depends on.

    Returns:
        Hexadecimal digits; None where the system vouches for the state of no or not all files.
    """
    parts: list[str | bytes] = [code_digest(), settings]
    for split, samples in splits.items():
        for sample in samples:
            try:
                state = _state(sample)
            except OSError:
                return None
            if state == _NO_STATE:
                return None
            parts += [split, _way_to_read(sample), *(str(path.absolute()) for path in sample.files), state]
    return _digest(parts).hex()


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


@lru_cache(maxsize=1)
def code_digest() -> bytes:
    """16 bytes that change whenever the code that reads, understands and resizes does, or a library it stands on."""
    package = Path(__file__).parents[1]
    files = sorted(file for room in ("images", "labels", "data") for file in (package / room).rglob("*.py"))
    return _digest([*(file.read_bytes() for file in files), cv2.__version__, PIL.__version__, np.__version__])


def _digest(parts: Sequence[str | bytes]) -> bytes:
    """16 bytes that tell any two lists of parts apart."""
    return blake2b(b"".join(blake2b(os.fsencode(part)).digest() for part in parts), digest_size=16).digest()


def _crc(record: bytes, pixels: bytes | np.ndarray) -> bytes:
    crc = zlib.crc32(pixels, zlib.crc32(record))  # type: ignore[arg-type]  # NumPy has Buffer from Python 3.12 on
    return crc.to_bytes(4, "little")
