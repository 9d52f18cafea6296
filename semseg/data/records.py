"""What a check needs to know of each file of a data set, remembered until the file changes."""

import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset, Look, Sample, spread
from semseg.data.cache import RECORDS_SUFFIX, Cache, code_digest
from semseg.data.centres import some_pixels
from semseg.data.exchanges import measure_poses
from semseg.data.fit import fingerprint, misfit
from semseg.data.masks import count_values
from semseg.data.polarity import contrast_of_classes
from semseg.data.thinness import measure_thinness
from semseg.data.united import count_contested
from semseg.data.workers import Workers
from semseg.errors import DataError
from semseg.files import in_hand, replacing
from semseg.images.resizing import enough_for, resize_mask, resize_photo, scaled_size
from semseg.labels.palettes import color_codes, colors_of_codes

_MIN_SAMPLES_OF_PROCESS = 64  # a process takes as long to start as it takes to look at so many
_MAX_MEASURED = 200  # samples whose classes' widths and poses are measured, evenly spread
_MAX_STRANGE = 3  # unknown numbers or colours remembered of a mask
_MIN_SIZE = (256, 256)  # (height, width), enough to compare photos with each other and with their masks


@dataclass(frozen=True)
class Record:
    """What a check needs to know of one sample; plain values, kept beside the cache.

    Attributes:
        size: (H, W), upright.
        form: What the photo was converted from, or empty.
        orientation: Its EXIF orientation, 1 to 8.
        turned: Whether the mask was turned with it.
        counts: Pixels per class, the ignored ones last.
        tops: Pixels per class in the upper half.
        unknown: Pixels that are ignored because they could not be understood.
        strange: The most frequent unknown numbers or colours, with their pixels, of masks that hold exact ones.
        fingerprint_base64: The photo's fingerprint, float32, as text.
        misfit: Evidence for a mask that does not lie on its photo.
        thinness: How wide its classes are, from `measure_thinness`; None for samples that were not measured.
        ranges: The smallest and the largest number of each band; None for 8-bit RGB.
        without_data: Pixels that are ignored because the photo has no data there.
        transparent: Pixels that the mask leaves transparent.
        contrast: Of two classes, what `contrast_of_classes` measured; else empty.
        contested: Of pixels that files of several classes claim, and that are ignored, how many each class claims.
        poses: How its classes lie, from `measure_poses`; empty for samples that were not measured.
        pixels: Some pixels of each class, from `some_pixels`; empty where photos are seen whole.
    """

    size: tuple[int, int]
    form: str
    orientation: int
    turned: bool
    counts: list[int]
    tops: list[int]
    unknown: int
    strange: dict[str, int]
    fingerprint_base64: str
    misfit: dict[str, float]
    thinness: dict[str, list] | None = None
    ranges: list[list[float]] | None = None
    without_data: int = 0
    transparent: int = 0
    contrast: list[float] = field(default_factory=list)
    contested: dict[str, int] = field(default_factory=dict)
    poses: list[list[float]] = field(default_factory=list)
    pixels: list[list[int]] = field(default_factory=list)

    @property
    def fingerprint(self) -> np.ndarray:
        """The photo's fingerprint, float32 `(401,)`; see `fit.fingerprint`."""
        return np.frombuffer(b64decode(self.fingerprint_base64), "<f4")


def look_at_all(
    dataset: Dataset, cache: Cache, image_size: tuple[int, int], workers: int, scale: float | None = None
) -> Iterator[Record | DataError]:
    """Makes the record of every sample. Who stops asking waits for no queue.

    Args:
        dataset: From `open_dataset`.
        cache: What is decoded goes into it, and the records into a file beside it.
        image_size: (height, width) of what goes into the cache.
        workers: Processes that look; threads where there are few samples.
        scale: At which the network sees photos; None where it sees them at `image_size`.

    Yields:
        For each of `dataset.samples`, in order, its record, or what is wrong with it.
    """
    kept = _RecordFile(dataset, cache)
    task = partial(_look, _without_samples(dataset), image_size, scale, cache.path is not None)
    measured = set(spread(dataset.samples, _MAX_MEASURED))
    count = min(workers, len(dataset.samples) // _MIN_SAMPLES_OF_PROCESS)
    processes = Workers(task, count if count > 1 else 0)
    # A thread more than processes, so that none of these waits while what another one found is stored.
    pool = ThreadPoolExecutor(count + 1 if count > 1 else max(1, workers))
    try:
        yield from pool.map(partial(_look_once, cache, kept, processes, measured), dataset.samples)
        kept.save()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        processes.close()


def _without_samples(dataset: Dataset) -> Dataset:
    """The data set as it is needed to load samples: little to send to other processes."""
    lean = copy(dataset)
    lean.splits, lean.problems, lean.group = {}, [], None
    lean.digests, lean.sizes, lean.has_changed = {}, {}, None
    return lean


class _RecordFile:
    """Records of earlier checks by the digest of the files, in a JSON file beside the cache."""

    def __init__(self, dataset: Dataset, cache: Cache):
        self._path = cache.path and cache.path.with_suffix(RECORDS_SUFFIX)
        self._meaning = f"{code_digest().hex()} {json.dumps(dataset.palette.to_dict())}"
        if not dataset.bands.are_rgb:
            self._meaning += f" {json.dumps(dataset.bands.to_dict())}"
        self.records: dict[str, Record] = {}  # of this check
        self._stored: dict[str, Record] = {}  # of earlier ones
        if self._path and self._path.is_file():
            with suppress(OSError, ValueError, TypeError, KeyError):  # a damaged file is a missing one
                digest, _, text = self._path.read_text(encoding="utf-8").partition("\n")
                stored = json.loads(text) if digest == _digest(text) else {"meaning": None}
                os.utime(self._path)
                if stored["meaning"] == self._meaning:
                    self._stored = {digest: Record(**values) for digest, values in stored["records"].items()}

    def get(self, digest: str) -> Record | None:
        """The record of files with this digest."""
        record = self._stored.get(digest)
        if record is not None:
            self.records[digest] = record
        return record

    def save(self) -> None:
        """Writes the records of this check, if any is new; without room or rights for it, the next check looks anew."""
        if self._path is None or self.records.keys() <= self._stored.keys():
            return
        values = {digest: vars(record) for digest, record in self.records.items()}
        with suppress(OSError), replacing(self._path) as temporary:
            text = json.dumps({"meaning": self._meaning, "records": values})
            temporary.write_text(f"{_digest(text)}\n{text}", encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _look_once(
    cache: Cache, kept: _RecordFile, processes: Workers, measured: set[Sample], sample: Sample
) -> Record | DataError:
    """Makes the record of a sample and stores its pixels, unless an earlier check did and its files are the same."""
    digest = cache.digest(sample) if cache.path else None
    record = digest and kept.get(digest.hex())
    if record and cache.find(sample):
        return record
    with in_hand(sample.photo):
        result = _look_safely(processes, sample, sample in measured)
    if isinstance(result, DataError):
        return result
    record, *pixels = result
    if pixels:
        cache.store(sample, *pixels)
    if digest:
        kept.records[digest.hex()] = record
    return record


def _look_safely(processes: Workers, sample: Sample, measure: bool) -> Any:
    """What `_look` returns; a file at which two processes in a row die is what kills them."""
    with suppress(ChildProcessError):
        return processes.run((sample, measure))
    try:
        return processes.run((sample, measure))
    except ChildProcessError as error:
        return DataError(f"{sample.photo}: ends the process that reads it ({error}); replace or leave it out")


def _look(
    dataset: Dataset,
    image_size: tuple[int, int],
    scale: float | None,
    with_pixels: bool,
    chosen: tuple[Sample, bool],
) -> Any:
    """The record of a sample, with photo and ids at `image_size` if they are wanted; or what is wrong with it."""
    sample, measure = chosen
    try:
        look = dataset.inspect(sample, tuple(np.maximum(enough_for(image_size), _MIN_SIZE)))
        seen = image_size if scale is None else scaled_size(look.ids.shape, scale)
        record = _record(dataset, sample, look, seen if measure else None, in_crops=scale is not None)
        if not with_pixels:
            return (record,)
        return record, resize_photo(look.photo, image_size), resize_mask(look.ids, image_size)
    except DataError as error:
        return error
    except Exception as error:  # ours, but the user should know at which file
        return DataError(f"{sample.photo}: cannot be looked at ({type(error).__name__}: {error}); leave it out")


def _record(
    dataset: Dataset, sample: Sample, look: Look, measured_at: tuple[int, int] | None, *, in_crops: bool
) -> Record:
    k, half = dataset.palette.num_classes, look.ids.shape[0] // 2
    top, bottom = (np.bincount(part.ravel(), minlength=256) for part in (look.ids[:half], look.ids[half:]))
    counts = top + bottom
    unknown = int(np.count_nonzero(look.unknown))
    exact = unknown and not dataset.palette.blended
    visible = dataset.bands.view(look.photo)
    return Record(
        size=look.ids.shape,
        form=look.picture.form,
        orientation=look.picture.orientation,
        turned=look.turned,
        counts=[*counts[:k].tolist(), int(counts[IGNORE])],
        tops=top[:k].tolist(),
        unknown=unknown,
        strange=_strange(look.mask[look.unknown]) if exact else {},
        fingerprint_base64=b64encode(fingerprint(visible).astype("<f4").tobytes()).decode(),
        misfit=misfit(visible, look.ids),
        thinness=measure_thinness(look.ids, k, measured_at) if measured_at else None,
        ranges=None if dataset.bands.are_rgb else _ranges(look),
        without_data=look.without_data,
        transparent=look.transparent,
        contrast=contrast_of_classes(visible, look.ids) if k == 2 else [],
        contested=_contested(dataset, sample) if look.overlapping else {},
        poses=measure_poses(look.ids, visible, k) if measured_at else [],
        pixels=some_pixels(look.ids, counts[:k].tolist()) if in_crops else [],
    )


def _ranges(look: Look) -> list[list[float]]:
    """The smallest and the largest number of each band, where the photo has data."""
    absent = look.picture.without_data
    pixels = look.photo.reshape(-1, look.photo.shape[2]) if absent is None else look.photo[~absent]
    return np.stack([pixels.min(axis=0), pixels.max(axis=0)], axis=1).astype(float).tolist()


def _contested(dataset: Dataset, sample: Sample) -> dict[str, int]:
    """How many of the pixels that files of several classes claim each class claims, by its name."""
    names = {label.value: label.name for label in dataset.palette.labels}
    counts = count_contested(sample.parts, sample.part_numbers)
    return {names.get(number, str(number)): count for number, count in counts.items()}


def _strange(unknown: np.ndarray) -> dict[str, int]:
    """The most frequent numbers `(M,)` or colours `(M, 3)`, as text, with how often they occur."""
    if unknown.ndim == 1:
        return {str(value): count for value, count in Counter(count_values(unknown)).most_common(_MAX_STRANGE)}
    frequent = Counter(count_values(color_codes(unknown))).most_common(_MAX_STRANGE)
    return {str(tuple(colors_of_codes(np.int32(code)).tolist())): count for code, count in frequent}
