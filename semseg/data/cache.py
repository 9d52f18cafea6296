"""Decoded, quantised and resized samples in one file: later epochs, and runs, decode nothing.

The file is read, and not mapped into memory: a mapped file that somebody cuts ends the process without a word (SIGBUS).
"""

import math
import os
import time
import weakref
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from stat import S_ISREG
from threading import Lock

import cv2
import numpy as np
import PIL

from semseg.data.base import Sample
from semseg.files import MAX_AGE, remove_older, reserve
from semseg.images.bands import RGB, Bands
from semseg.images.mirrors import is_mirrored, present
from semseg.images.resizing import scaled_size

_SUFFIX, RECORDS_SUFFIX = ".semsegcache", ".semsegrecords"
_MAX_FILE_BYTES = 2**28  # what is larger is judged by its header before anybody reads it all
_RECORD = 36  # bytes: digest of the source files (16), their state (16), CRC-32 of both and of the slot (4)
_NO_STATE = bytes(16)  # of files whose state says nothing
_MIN_AGE = 2  # seconds since a file changed: a second change in the same tick of its clock would leave no trace
_TILE = 128  # pixels of the side of a slot that holds a part of a sample


class Cache:
    """A file of a record per slot, then the slots: photo, then ids, H * W * 4 bytes for 8-bit RGB.

    A slot holds a sample that was resized to `image_size`; or a tile of one at its own size times `scale`, so that a
    part of a large photo is read without the rest.

    A slot's source files are compared once per run with the bytes that it was made from; from then on they are not
    looked at, and only the slot itself is checked whenever it is read. Files need not be read for that where the system
    vouches for them: it notes size, inode and the times of the last changes, of which no program can set the last one.
    Threads may share a cache, and processes the file: they write the same bytes to the same place.

    Args:
        samples: All samples of the data set, whatever their split.
        image_size: (height, width) of what is stored.
        meaning: Text that changes whenever the ids would, such as the palette as JSON.
        folder: Where the caches lie; None for no cache, in which nothing is ever found.
        bands: What the photos hold.
        scale: Pixels of what is stored for one of the photo's, for samples in tiles; None for whole ones.
        sizes: (H, W) of each sample's files, where there is a scale.
        most_bytes: Samples that would make the file larger are left out.

    Attributes:
        note: Why there is no cache although one was asked for, or what it does not hold, in one sentence; else empty.
        path: The file; None for no cache.
        size: Bytes of the file; 0 for no cache.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: tuple[int, int],
        meaning: str,
        folder: Path | None,
        bands: Bands = RGB,
        *,
        scale: float | None = None,
        sizes: Mapping[Sample, tuple[int, int]] | None = None,
        most_bytes: float = math.inf,
    ):
        self.note, self.path, self.scale, self.size = "", None, scale, 0
        self.image_size = tuple(image_size) if scale is None else (_TILE, _TILE)
        self._photo_shape, self._dtype = (*self.image_size, bands.count), bands.array_dtype
        self._sizes = {sample: scaled_size(size, scale) for sample, size in (sizes or {}).items()} if scale else {}
        self._most_bytes = most_bytes
        self._slots: dict[Sample, int] = {}  # a sample's first one
        self._digests: dict[Sample, bytes] = {}
        self._states: dict[Sample, bytes] = {}
        self._trusted: dict[int, bytes] = {}  # the records of slots whose sources were compared
        self._lock = Lock()
        if folder is None:
            return
        ordered = sorted(set(samples), key=str)
        files = [_digest([_way_to_read(s), *(str(path.absolute()) for path in s.files)]) for s in ordered]
        of_bands = [] if bands.are_rgb else [f"{bands} {bands.mean}"]
        # Where sizes differ, slots do, and a slot would vouch for another tile of its sample.
        of_tiles = [] if scale is None else [str([self._sizes[sample] for sample in ordered])]
        name = _digest([code_digest(), str(self.image_size), meaning, *of_bands, *of_tiles, *files]).hex()
        try:
            self._open(folder / f"{name}{_SUFFIX}", ordered)
        except OSError as error:
            self.note = f"no cache of decoded samples in {folder}: {error.strerror or error}; every epoch decodes anew"

    def _open(self, path: Path, samples: list[Sample]) -> None:
        pixel_bytes = self._photo_shape[2] * self._dtype.itemsize + 1
        slot_bytes = self.image_size[0] * self.image_size[1] * pixel_bytes
        self._slot_bytes = -(-slot_bytes // 4) * 4  # so that numbers of 2 and 4 bytes are aligned
        first = np.cumsum([0, *(math.prod(self._grid(sample)) for sample in samples)])
        sizes, there = first * (_RECORD + self._slot_bytes), path.stat().st_size if path.is_file() else -1
        kept = int(np.searchsorted(sizes, self._most_bytes, "right")) - 1
        if math.isfinite(self._most_bytes) and there in sizes[1:]:  # what a run before had room for
            kept = int(np.searchsorted(sizes, there))
        if kept < len(samples):
            self.note = (
                f"the cache in {path.parent} holds {kept} of {len(samples)} photos, as there is room for no more "
                "(`cache` names another folder); the others are decoded for every crop"
            )
        slots = int(first[kept])
        self._start = slots * _RECORD
        size = self._start + slots * self._slot_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            reserve(path, size)
        self._file = path.open("r+b", buffering=0)
        weakref.finalize(self, self._file.close)
        os.utime(path)
        for suffix in (_SUFFIX, RECORDS_SUFFIX):
            remove_older(path.parent.glob(f"*{suffix}"), MAX_AGE)
        self._slots = {sample: int(slot) for slot, sample in zip(first, samples[:kept], strict=False)}
        self.path, self.size = path, size

    def _grid(self, sample: Sample) -> tuple[int, int]:
        """How many slots hold a sample, in rows and columns."""
        if self.scale is None:
            return 1, 1
        height, width = self._sizes[sample]
        return -(-height // _TILE), -(-width // _TILE)

    def find(self, sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
        """Looks up what was stored for a sample, unless it was nothing, is damaged, or was made from other bytes.

        Args:
            sample: One of the cache's samples.

        Returns:
            Photo, `(H, W, C)` as the bands say, and ids, uint8 `(H, W)`, both read-only; or None.
        """
        slot = self._slots.get(sample)
        return None if slot is None else self._find(slot, sample)

    def find_part(
        self, sample: Sample, top: int, left: int, bottom: int, right: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Looks up a part of what was stored for a sample in tiles: see `find`.

        Args:
            sample: One of the cache's samples.
            top: First row, at least 0; so is `left` the first column.
            left: See `top`.
            bottom: The row after the last, at most the height; so is `right`.
            right: See `bottom`.

        Returns:
            Photo `(bottom - top, right - left, C)` and ids of the same height and width; or None.
        """
        first, columns = self._slots.get(sample), self._grid(sample)[1]
        if first is None:
            return None
        photo = np.empty((bottom - top, right - left, self._photo_shape[2]), self._dtype)
        ids = np.empty(photo.shape[:2], np.uint8)
        for row in range(top // _TILE, -(-bottom // _TILE)):
            for column in range(left // _TILE, -(-right // _TILE)):
                found = self._find(first + row * columns + column, sample)
                if found is None:
                    return None
                rows, inner_rows = _overlap(row * _TILE, top, bottom)
                across, inner_across = _overlap(column * _TILE, left, right)
                for part, tile in zip((photo, ids), found, strict=True):
                    part[rows, across] = tile[inner_rows, inner_across]
        return photo, ids

    def _find(self, slot: int, sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
        pixels = self._pixels(slot)
        if not (self._is_whole(slot, pixels) or self._verify(slot, sample, pixels)):
            return None
        array, area = np.frombuffer(pixels, np.uint8), self.image_size[0] * self.image_size[1]
        split = area * self._photo_shape[2] * self._dtype.itemsize
        photo = array[:split].view(self._dtype).reshape(self._photo_shape)
        return photo, array[split : split + area].reshape(self.image_size)

    def _is_whole(self, slot: int, pixels: bytes) -> bool:
        """Whether a slot that was believed before holds the same still."""
        record = self._trusted.get(slot)
        return record is not None and len(pixels) == self._slot_bytes and record[32:] == _crc(record[:32], pixels)

    def _pixels(self, slot: int) -> bytes:
        return self._read(self._start + slot * self._slot_bytes, self._slot_bytes)

    def _read(self, start: int, size: int) -> bytes:
        """What the file holds there; less where it was cut, or cannot be read."""
        with suppress(OSError, ValueError):  # a closed file
            if hasattr(os, "pread"):
                return os.pread(self._file.fileno(), size, start)
            with self._lock:  # Windows has one position for all threads
                self._file.seek(start)
                return self._file.read(size)
        return b""

    def digest(self, sample: Sample, *, of_any_size: bool = False) -> bytes | None:
        """16 bytes that tell a sample's files from any others, as they were at the first look.

        Args:
            sample: Any sample.
            of_any_size: Also of files of 256 MB and more.

        Returns:
            BLAKE2b of the files' bytes; None if they cannot be read or are too large.
        """
        if sample not in self._digests:
            try:
                self._states[sample] = _state(sample)
                if not of_any_size and any(path.stat().st_size >= _MAX_FILE_BYTES for path in sample.files):
                    return None
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
        self._trusted[slot] = record
        return True

    def _record(self, slot: int) -> bytes:
        return self._read(slot * _RECORD, _RECORD)

    def _verify(self, slot: int, sample: Sample, pixels: bytes) -> bool:
        digest = self.digest(sample)
        if digest is None or self._is_whole(slot, pixels):
            return digest is not None
        record = self._record(slot)
        if record[:16] != digest or record[32:] != _crc(record[:32], pixels):
            return False
        with self._lock, suppress(OSError):  # the files are older now, or were copied: next time their state vouches
            self._write_record(slot, sample, pixels)
        self._trusted.setdefault(slot, record)
        return True

    def store(self, sample: Sample, photo: np.ndarray, mask: np.ndarray) -> None:
        """Keeps the pixels of a sample that `find` did not find; what cannot be written is left out.

        Args:
            sample: One of the cache's samples.
            photo: `(H, W, C)` as the bands say, of the cache's `image_size`, or of the sample's size times `scale`.
            mask: uint8 ids `(H, W)`.
        """
        first = self._slots.get(sample)
        if first is None or sample not in self._digests:
            return
        height, width = self.image_size
        rows, columns = self._grid(sample)
        for number in range(rows * columns):
            top, left = number // columns * height, number % columns * width
            part = (slice(top, top + height), slice(left, left + width))
            self._store(
                first + number, sample, _padded(photo[part], self.image_size), _padded(mask[part], self.image_size)
            )

    def _store(self, slot: int, sample: Sample, photo: np.ndarray, mask: np.ndarray) -> None:
        pixels = (photo.tobytes() + mask.tobytes()).ljust(self._slot_bytes, b"\0")
        with self._lock, suppress(OSError):  # what could not be written is not believed later
            self._file.seek(self._start + slot * self._slot_bytes)
            self._file.write(pixels)
            self._write_record(slot, sample, pixels)  # last: it vouches for the pixels

    def _write_record(self, slot: int, sample: Sample, pixels: bytes) -> None:
        record = self._digests[sample] + self._states[sample]
        record += _crc(record, pixels)
        self._trusted.pop(slot, None)
        self._file.seek(slot * _RECORD)
        self._file.write(record)
        self._trusted[slot] = record


def _overlap(start: int, first: int, end: int) -> tuple[slice, slice]:
    """Where a tile from `start` on and the part from `first` to `end` lie on each other: in the part, in the tile."""
    begin, stop = max(start, first), min(start + _TILE, end)
    return slice(begin - first, stop - first), slice(begin - start, stop - start)


def _padded(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Zeros below and to the right, up to (height, width)."""
    if array.shape[:2] == size:
        return array
    full = np.zeros((*size, *array.shape[2:]), array.dtype)
    full[: array.shape[0], : array.shape[1]] = array
    return full


def _digest_of(sample: Sample) -> bytes:
    parts: list[str | bytes] = [_way_to_read(sample)]
    if sample.drawing:
        parts.append(sample.drawing.digest)
    return _digest_of_digests([*map(_digest_of_part, parts), *map(_digest_of_file, sample.files)])


def _digest_of_file(path: Path) -> bytes:
    with present(path), path.open("rb") as file:
        return file_digest(file, blake2b).digest()


def _way_to_read(sample: Sample) -> str:
    """What besides the bytes of its files makes a sample: the page, and what its parts stand for."""
    way = (sample.page, len(sample.parts), sample.part_numbers, sample.view is not None)
    drawn, bands = ("drawn",) if sample.drawing else (), (len(sample.bands),) if sample.bands else ()
    corrected = ("corrected",) if sample.correction else ()
    return str((*way, *drawn, *bands, *corrected))


def _state(sample: Sample) -> bytes:
    """16 bytes that change whenever the system notes a change of a sample's files; `_NO_STATE` where it may note none.

    Windows notes no change of a file but its date, which programs set, and clocks tick at up to two seconds.

    Raises:
        OSError: A file is none that can be digested: missing, or a pipe that would never end.
    """
    noted: list[str | bytes] = [sample.drawing.digest] if sample.drawing else []
    newest = 0
    for path in sample.files:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise OSError(f"{path}: no file")
        if is_mirrored(path):  # its date stands for its version
            noted.append(f"{status.st_size} {status.st_mtime_ns}")
            continue
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


@lru_cache(maxsize=1)
def code_digest() -> bytes:
    """16 bytes that change whenever the code that reads, understands and resizes does, or a library it stands on."""
    package = Path(__file__).parents[1]
    files = sorted(file for room in ("images", "labels", "data") for file in (package / room).rglob("*.py"))
    return _digest([*(file.read_bytes() for file in files), cv2.__version__, PIL.__version__, np.__version__])


def _digest(parts: Sequence[str | bytes]) -> bytes:
    """16 bytes that tell any two lists of parts apart."""
    return _digest_of_digests([_digest_of_part(part) for part in parts])


def _digest_of_part(part: str | bytes) -> bytes:
    return blake2b(os.fsencode(part)).digest()


def _digest_of_digests(digests: Sequence[bytes]) -> bytes:
    return blake2b(b"".join(digests), digest_size=16).digest()


def _crc(record: bytes, pixels: bytes) -> bytes:
    crc = zlib.crc32(pixels, zlib.crc32(record))
    return crc.to_bytes(4, "little")
