"""Photos of a folder in, files out: loading, computing and writing overlap."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from semseg import IGNORE
from semseg.backend import PredictBatch
from semseg.errors import DataError, SemsegError, TooManyPixelsError
from semseg.files import in_hand, replacing
from semseg.images.georeference import Georeference, write_world_file
from semseg.images.geotiff_writer import GeoTiffWriter
from semseg.images.large import BigPicture
from semseg.images.png_writer import PngWriter
from semseg.images.reading import read_photo
from semseg.images.resizing import enough_for, resize_photo, size_within
from semseg.inference.answers import Answers
from semseg.inference.learnt import Look, Watch
from semseg.inference.logits import confidence_of_logits, ids_of_logits, probabilities_of_logits
from semseg.inference.segmenter import Item, Segmenter, in_batches
from semseg.inference.tiling import OVERLAP, OVERLAP_OF_CROPS, resize_bands, tiled_logits
from semseg.labels.legend import add_strip_below, legend, visible_classes
from semseg.labels.painting import overlay
from semseg.labels.palettes import Palette

KINDS = {
    "masks": ".png", "values": ".png", "colors": ".png", "overlays": ".jpg", "probabilities": ".npy",
    "certainty": ".png", "polygons": ".json", "objects": ".csv",
}  # fmt: skip
MASKS = ("masks", "values", "colors")  # those that show the classes pixel by pixel
LAID = (*MASKS, "certainty")  # those that lie where their photo does
SHOWN = 2048  # pixels of an overlay's longer side, at most
_LEAST_TILE = 1024  # pixels of the shorter side, where nobody said how large tiles are
_JPEG_QUALITY = 90
_IGNORED_GREY = 205
OPACITY = 0.5  # of the classes over the photo

Output = TypeVar("Output")


@dataclass(frozen=True)
class Job:
    """A photo, and what is to be made of it.

    Attributes:
        photo: Its file.
        files: By their kind, one of `KINDS`; those that end in `.tif` are written as GeoTIFF, at the photo's place.
        place: Where the photo lies, for world files beside masks of other kinds; None for no such files.
        bands: All files of the photo, where each of its bands has its own; else empty.
    """

    photo: Path
    files: Mapping[str, Path]
    place: Georeference | None = None
    bands: tuple[Path, ...] = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files of the photo."""
        return self.bands or (self.photo,)


@dataclass(frozen=True)
class Result:
    """What is known of a photo afterwards.

    Attributes:
        size: (H, W) of the photo, upright.
        counts: int64 `(K,)`: pixels of each class.
        unsure: Pixels that got no class, as the network was not sure enough.
        tile: (height, width) of the tiles that it was seen in, in its own pixels; None: seen whole.
        unlike: What is unlike in it to the photos that the network learnt from, in words; else nothing.
    """

    size: tuple[int, int]
    counts: np.ndarray
    unsure: int
    tile: tuple[int, int] | None
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Loaded:
    """A photo on its way to the network and to its files.

    Attributes:
        size: (H, W) of the photo, upright.
        network_input: `(h, w, C)`, the whole photo as the network sees it; None where it is seen in tiles.
        bands: Gives the photo from top to bottom, where it is seen in tiles.
        tile: (height, width) of these.
        picture: What lies under the overlay, uint8 RGB; None without an overlay.
        without_data: Where the photo has no data, bool `(H, W)`; None where it has data everywhere.
    """

    size: tuple[int, int]
    network_input: np.ndarray | None = None
    bands: Callable[[], Iterable[np.ndarray]] | None = None
    tile: tuple[int, int] | None = None
    picture: "np.ndarray | _ShrinkingPicture | None" = None
    without_data: np.ndarray | None = None


def predict_files(
    segmenter: Segmenter,
    jobs: Iterable[Job],
    *,
    tile: tuple[int, int] | None = None,
    workers: int = 2,
    unsure: float = 0.0,
    answers: Answers | None = None,
) -> Iterator[tuple[Job, Result | DataError]]:
    """Predicts photos and writes what is wanted of each.

    Args:
        segmenter: The network.
        jobs: Photos and the files to make; their folders are made, too.
        tile: (height, width) of tiles in a photo's pixels, to see photos in these; None to see them whole, or in
            tiles where the network learned crops. Photos of more than 89 million pixels are seen in tiles in any case:
            see `automatic_tile`.
        workers: Threads that load, and as many that write.
        unsure: As in `write_masks`.
        answers: What is wanted of the objects in masks; None for nothing.

    Yields:
        Each job, in order, with its result, or with a `DataError` that says what is wrong with its photo; files of that
        photo are not there then.

    Raises:
        SemsegError: A kind of file cannot be made of this palette's classes, see `mask_values`.
        OSError: A file cannot be written.

    Example:
        >>> import tempfile
        >>> photo = Path(tempfile.mkdtemp()) / "photo.png"
        >>> _ = cv2.imwrite(str(photo), np.full((30, 40, 3), 200, np.uint8))
        >>> segmenter = Segmenter(lambda photos: photos[..., :1] - 100.0, (16, 16), Palette.numbered(2))
        >>> job = Job(photo, {"masks": photo.with_name("mask.png")})
        >>> [(_, result)] = predict_files(segmenter, [job])
        >>> result.size, result.counts.tolist()
        ((30, 40), [0, 1200])
    """
    # Photos in memory; fewer where they are seen in tiles, as they are large then.
    max_ahead = workers if tile or segmenter.tile else segmenter.batch_size + workers
    stopped, large_photos = threading.Event(), threading.Lock()
    serialized = replace(segmenter, predict_batch=_serialized(segmenter.predict_batch))
    watch = Watch(serialized)

    def load(job: Job) -> _Loaded | DataError:
        try:
            with in_hand(job.photo):
                return _load(job, segmenter, tile or segmenter.tile)
        except DataError as error:
            return error

    write = partial(_finish, serialized, stopped, large_photos, unsure=unsure, answers=answers)
    loaders, writers = ThreadPoolExecutor(workers), ThreadPoolExecutor(workers)
    try:
        loaded = map_ahead(loaders, load, jobs, max_ahead)
        computed = in_batches(watch.predict_batch, loaded, _network_input, segmenter.batch_size)
        for ((job, _), _, _), result in map_ahead(writers, write, _with_looks(computed, watch), max_ahead):
            yield job, result
    finally:
        stopped.set()  # a large photo that is being written ends with its next band
        for pool in (loaders, writers):
            pool.shutdown(cancel_futures=True)


def _with_looks(
    computed: Iterable[tuple[Any, np.ndarray | None]], watch: Watch
) -> Iterator[tuple[Any, np.ndarray | None, Look | None]]:
    """What was computed, with what each photo is like that was seen whole."""
    for (job, loaded), logits in computed:
        seen_whole = logits is not None and isinstance(loaded, _Loaded)
        yield (job, loaded), logits, watch.next(loaded.size) if seen_whole else None


def _finish(
    segmenter: Segmenter,
    stopped: threading.Event,
    large_photos: threading.Lock,
    item: tuple[Any, np.ndarray | None, Look | None],
    *,
    unsure: float,
    answers: Answers | None,
) -> Result | DataError:
    """Writes the files of a photo; one that is seen in tiles is computed on the way."""
    (job, loaded), logits, look = item
    if isinstance(loaded, DataError):
        return loaded
    watch = Watch(segmenter, with_features=loaded.tile == segmenter.tile)
    with ExitStack() as stack:
        if logits is None:
            stack.enter_context(large_photos)  # one large photo at a time
        try:
            bands = _stoppable(stopped, _logits_of(segmenter, watch.predict_batch, loaded, logits))
            result = _write(job, loaded, bands, segmenter, unsure, answers)
        except DataError as error:  # a large photo that is cut shows it late
            return error
    if segmenter.learnt is None:
        return result
    doubts = segmenter.learnt.doubts(look or watch.next(loaded.size, tiles=None), segmenter.bands)
    return replace(result, unlike=tuple(doubts))


def _serialized(predict_batch: PredictBatch) -> PredictBatch:
    """One call at a time: the main thread calls the network and, for photos in tiles, one that writes."""
    lock = threading.Lock()

    def predict_in_turn(photos: np.ndarray) -> np.ndarray:
        with lock:
            return predict_batch(photos)

    return predict_in_turn


def map_ahead(
    pool: Executor, function: Callable[[Item], Output], items: Iterable[Item], max_ahead: int
) -> Iterator[tuple[Item, Output]]:
    """Applies a function to items in a pool, and keeps their order.

    Args:
        pool: What works.
        function: Takes an item.
        items: They are asked for only as far as they are worked on.
        max_ahead: How many are worked on beside the one that is waited for.

    Yields:
        Each item with what the function makes of it.

    Example:
        >>> with ThreadPoolExecutor(2) as pool:
        ...     list(map_ahead(pool, abs, [-1, 2, -3], max_ahead=1))
        [(-1, 1), (2, 2), (-3, 3)]
    """
    waiting: deque = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > max_ahead or waiting[0][1].done():
            done, future = waiting.popleft()
            yield done, future.result()
    for item, future in waiting:
        yield item, future.result()


def automatic_tile(image_size: tuple[int, int]) -> tuple[int, int]:
    """Size of the tiles where nobody said it.

    Args:
        image_size: (h, w) that the network sees.

    Returns:
        (height, width) in a photo's pixels: `image_size`, or so many times that the shorter side has 1024 at least.

    Example:
        >>> automatic_tile((128, 192)), automatic_tile((2000, 2000))
        ((1024, 1536), (2000, 2000))
    """
    times = math.ceil(_LEAST_TILE / min(image_size))
    return image_size[0] * times, image_size[1] * times


def enough_to_show(image_size: tuple[int, int]) -> tuple[int, int]:
    """The size to which a photo may be decoded smaller; the same with and without overlays, for equal masks.

    Args:
        image_size: (h, w) that the network sees.

    Returns:
        (height, width) in pixels, at least those of an overlay.

    Example:
        >>> enough_to_show((128, 4096))
        (2048, 8192)
    """
    return tuple(max(side, SHOWN) for side in enough_for(image_size))


def _load(job: Job, segmenter: Segmenter, tile: tuple[int, int] | None) -> _Loaded:
    image_size, bands = segmenter.image_size, segmenter.bands
    with_overlay = "overlays" in job.files
    try:
        photo = read_photo(job.photo, None if tile else enough_to_show(image_size), bands=bands, files=job.bands)
    except TooManyPixelsError:
        folder = next(iter(job.files.values())).parent
        folder.mkdir(parents=True, exist_ok=True)
        big = BigPicture(job.photo, folder)
        picture = _ShrinkingPicture(big.size) if with_overlay else None
        return _Loaded(big.size, bands=big.bands, tile=tile or automatic_tile(image_size), picture=picture)
    picture = bands.view(resize_photo(photo.pixels, size_within(photo.size, SHOWN))) if with_overlay else None
    loaded = _Loaded(photo.size, tile=tile, picture=picture, without_data=photo.without_data)
    if tile:
        return replace(loaded, bands=lambda: [photo.pixels])
    return replace(loaded, network_input=resize_photo(photo.pixels, image_size))


def _network_input(loaded: tuple[Job, _Loaded | DataError]) -> np.ndarray | None:
    return loaded[1].network_input if isinstance(loaded[1], _Loaded) else None


def _logits_of(
    segmenter: Segmenter, predict_batch: PredictBatch, loaded: _Loaded, logits: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Logits at the photo's own size, from top to bottom."""
    if logits is not None:
        return resize_bands([logits], loaded.size, logits.shape[:2])
    bands = loaded.bands()
    if isinstance(loaded.picture, _ShrinkingPicture):
        bands = loaded.picture.watch(bands)
    return tiled_logits(
        predict_batch,
        bands,
        loaded.size,
        image_size=segmenter.image_size,
        tile=loaded.tile,
        batch_size=segmenter.batch_size,
        overlap=OVERLAP if segmenter.tile is None else OVERLAP_OF_CROPS,
    )


class _Stopped(Exception):  # noqa: N818
    """Nobody waits for the result any more."""


def _stoppable(stopped: threading.Event, bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for band in bands:
        if stopped.is_set():
            raise _Stopped
        yield band


class _ShrinkingPicture:
    """A large photo as small as its overlay, made while it passes by."""

    def __init__(self, size: tuple[int, int]):
        self._factor = math.ceil(max(size) / SHOWN)
        self.size = max(1, size[0] // self._factor), max(1, size[1] // self._factor)
        self._parts: list[np.ndarray] = []

    def watch(self, bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        rest: np.ndarray | None = None  # rows that are too few for one of the picture's
        for band in bands:
            rows = band if rest is None else np.concatenate([rest, band])
            whole = len(rows) // self._factor
            if whole:
                shrunk = cv2.resize(rows[: whole * self._factor], (self.size[1], whole), interpolation=cv2.INTER_AREA)
                self._parts.append(shrunk)
            rest = rows[whole * self._factor :].copy()
            yield band

    def pixels(self) -> np.ndarray:
        return np.concatenate(self._parts)[: self.size[0]]


def _write(
    job: Job,
    loaded: _Loaded,
    bands: Iterable[np.ndarray],
    segmenter: Segmenter,
    unsure: float,
    answers: Answers | None,
) -> Result:
    picture, palette = loaded.picture, segmenter.palette
    size = None if picture is None else _size_of(picture)
    written = write_masks(
        bands, loaded.size, job.files, palette, threshold=segmenter.calibration.threshold, unsure=unsure, shown=size,
        photo=job.photo, without_data=loaded.without_data, answers=answers,
    )  # fmt: skip
    if job.place:
        for kind in (kind for kind in job.files if kind in LAID):
            write_world_file(job.files[kind], job.place)
    if picture is not None:
        pixels = picture.pixels() if isinstance(picture, _ShrinkingPicture) else picture
        _write_overlay(job.files["overlays"], pixels, written, palette)
    return Result(loaded.size, written.counts, written.unsure, loaded.tile)


def _size_of(picture: "np.ndarray | _ShrinkingPicture") -> tuple[int, int]:
    return picture.size if isinstance(picture, _ShrinkingPicture) else picture.shape[:2]


class Written(NamedTuple):
    """What is known of a photo's masks when they are written.

    Attributes:
        counts: int64 `(K,)`: pixels of each class.
        unsure: Pixels that got no class, as the network was not sure enough; those without data are in neither.
        shown: uint8 ids `(h, w)` at the size that was asked for; None where none was.
    """

    counts: np.ndarray
    unsure: int
    shown: np.ndarray | None

    @property
    def shares(self) -> np.ndarray:
        """Of each class among the pixels with data, 0 to 1, `(K,)`."""
        return shares_of(self.counts, self.unsure)


def shares_of(counts: np.ndarray, unsure: int) -> np.ndarray:
    """Shares of classes, 0 to 1, `(K,)`, from their pixels and those that got no class.

    Example:
        >>> shares_of(np.array([30, 50]), 20).tolist()
        [0.3, 0.5]
    """
    return counts / max(1, int(counts.sum()) + unsure)


def write_masks(
    bands: Iterable[np.ndarray],
    size: tuple[int, int],
    files: Mapping[str, Path],
    palette: Palette,
    *,
    threshold: float = 0.5,
    unsure: float = 0.0,
    shown: tuple[int, int] | None = None,
    photo: Path | None = None,
    without_data: np.ndarray | None = None,
    answers: Answers | None = None,
) -> Written:
    """Writes all kinds of files but the overlay, as the logits come, each whole or not at all.

    Args:
        bands: Logits from top to bottom, float `(n, W, K)` or `(n, W, 1)`.
        size: (H, W) of the photo.
        files: By their kind: `"masks"` of ids, which viewers show in the classes' colours; `"values"` as the user's
            masks had them; `"colors"`; `"probabilities"`, float16 `(H, W, K)`; `"certainty"`, the probability of each
            pixel's class in 255ths, 1 at least, and 0 where there is no data.
        palette: What the ids mean.
        threshold: As in `ids_of_logits`.
        unsure: Pixels whose class has a lower probability get none, 0 to 1: masks are as where there is no data.
        shown: (h, w) at which the ids are wanted as an array, too.
        photo: The photo's file, which tells the place of masks that end in `.tif`.
        without_data: Where the photo has no data, bool `(H, W)`: masks are 255 there, as what is ignored in training,
            black in colours, and in values the number that the user's masks ignore, else the largest up to 255 that
            stands for no class. None where it has data everywhere.
        answers: What is wanted of the objects in the mask, and whether it is cleaned; None for nothing.
    """
    counts = np.zeros(256, np.int64)
    preview = _Preview(size, shown) if shown else None
    with ExitStack() as stack:
        is_whole = without_data is None and not unsure
        masks = [
            _mask(stack, kind, path, size, palette, photo, is_whole) for kind, path in files.items() if kind in MASKS
        ]
        probabilities = _npy(stack, files.get("probabilities"), (*size, palette.num_classes))
        certainty = _picture(stack, files["certainty"], size, photo, nodata=0) if "certainty" in files else None
        decisions = _Decisions(threshold, unsure, without_data, probabilities, certainty, answers is not None)
        decided = decisions.of(bands)
        final = (ids for ids, _ in decided) if answers is None else answers.apply(decided, size, files, photo)
        for ids in final:
            counts += np.bincount(ids.ravel(), minlength=len(counts))
            for table, mask in masks:
                mask.write(ids if table is None else table[ids])
            if preview:
                preview.add(ids)
    return Written(counts[: palette.num_classes], decisions.unsure_pixels, preview.ids if preview else None)


class _Decisions:
    """From logits to ids and their certainty, band by band; writes probabilities and certainty on the way.

    Attributes:
        unsure_pixels: How many got no class until now, as their certainty was below `unsure`.
    """

    def __init__(
        self,
        threshold: float,
        unsure: float,
        without_data: np.ndarray | None,
        probabilities: Any,
        certainty: PngWriter | GeoTiffWriter | None,
        is_asked: bool,
    ):
        self._threshold, self._unsure, self._without_data = threshold, unsure, without_data
        self._probabilities, self._certainty = probabilities, certainty
        self._is_certainty_needed = is_asked or bool(unsure) or certainty is not None
        self.unsure_pixels = 0

    def of(self, bands: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids, uint8 `(n, W)`, 255 where there is no data or too little certainty, and this certainty, 0 to 1.

        The certainty is float `(n, W)`, and empty where nobody needs it.
        """
        row, certainty = 0, np.empty(0, np.float32)
        for band in bands:
            ids = ids_of_logits(band, self._threshold)
            empty = None if self._without_data is None else self._without_data[row : row + len(ids)]
            row += len(ids)
            if self._is_certainty_needed:
                certainty = confidence_of_logits(band, self._threshold)
            if self._unsure:
                low = certainty < self._unsure
                self.unsure_pixels += int(np.count_nonzero(low if empty is None else low & ~empty))
                ids[low] = IGNORE
            if empty is not None:
                ids[empty] = IGNORE
            if self._probabilities:
                self._probabilities.write(probabilities_of_logits(band).astype("<f2").tobytes())
            if self._certainty:
                shown = np.rint(255 * certainty).clip(1, 255).astype(np.uint8)
                self._certainty.write(shown if empty is None else np.where(empty, np.uint8(0), shown))
            yield ids, certainty


class _Preview:
    """Ids at a smaller size, each the nearest of the photo's, picked while these pass by in bands.

    Attributes:
        ids: uint8 `(h, w)`.
    """

    def __init__(self, size: tuple[int, int], shown: tuple[int, int]):
        self._rows, self._columns = (
            ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(shown, size, strict=True)
        )
        self.ids = np.zeros(shown, np.uint8)
        self._first = 0  # row of the photo that the next band begins with

    def add(self, band: np.ndarray) -> None:
        end = self._first + len(band)
        inside = np.flatnonzero((self._rows >= self._first) & (self._rows < end))
        self.ids[inside] = band[self._rows[inside] - self._first][:, self._columns]
        self._first = end


def _mask(
    stack: ExitStack,
    kind: str,
    path: Path,
    size: tuple[int, int],
    palette: Palette,
    photo: Path | None,
    is_whole: bool,
) -> tuple[np.ndarray | None, PngWriter | GeoTiffWriter]:
    """A file of a mask, and the table from ids to what it holds; None for the ids themselves."""
    colors = np.array(palette.colors, np.uint8)
    table, options = None, {"colors": colors if is_whole else _with_ignored(colors, _IGNORED_GREY)}
    if kind == "colors":
        table, options = colors if is_whole else _with_ignored(colors, 0), {"channels": 3}
    elif kind == "values":
        table = mask_values(palette)
        table = table if is_whole else _with_ignored(table, _ignored_value(palette))
        options = {"dtype": table.dtype}
    return table, _picture(stack, path, size, photo, nodata=IGNORE if kind == "masks" else None, **options)


def _picture(
    stack: ExitStack, path: Path, size: tuple[int, int], photo: Path | None, *, nodata: int | None, **options: Any
) -> PngWriter | GeoTiffWriter:
    """A new file that is written by rows: GeoTIFF at the photo's place where its name says so, else PNG."""
    temporary = stack.enter_context(_new_file(path))
    if path.suffix != ".tif" or photo is None:
        return stack.enter_context(PngWriter(temporary, size, **options))
    return stack.enter_context(GeoTiffWriter(temporary, size, photo, nodata=nodata, **options))


def _with_ignored(table: np.ndarray, ignored: int) -> np.ndarray:
    """What ids stand for, `(K, ...)`, as a table of 256 that holds a number for ignored pixels, too."""
    full = np.zeros((256, *table.shape[1:]), table.dtype)
    full[: len(table)], full[IGNORE] = table, ignored
    return full


def _ignored_value(palette: Palette) -> int:
    """The number for ignored pixels: that of the user's masks, else the largest up to 255 that stands for no class."""
    used = {label.value for label in palette.labels if label.id != IGNORE}
    ignored = [label.value for label in palette.labels if label.id == IGNORE]
    return ignored[0] if ignored else max(set(range(256)) - used)


def _new_file(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return replacing(path)


def mask_values(palette: Palette) -> np.ndarray:
    """The number that the user's masks hold for each class, the first where they hold several.

    Args:
        palette: Of a network that learnt from masks of numbers.

    Returns:
        uint8 `(K,)`, or uint16 where a number is larger than 255.

    Raises:
        SemsegError: The masks hold colours.
    """
    if not palette.holds_values:
        raise SemsegError("`values`: the masks that it learnt from held colours, not numbers; use `colors`")
    first = {label.id: label.value for label in reversed(palette.labels)}
    values = np.array([first[i] for i in range(palette.num_classes)])
    return values.astype(np.uint8 if values.max() < 256 else np.uint16)


def _npy(stack: ExitStack, path: Path | None, shape: tuple[int, ...]) -> Any:
    """A file of NumPy's own form, open behind its header."""
    if path is None:
        return None
    file = stack.enter_context(stack.enter_context(_new_file(path)).open("wb"))
    np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
    return file


def _write_overlay(path: Path, photo: np.ndarray, written: Written, palette: Palette) -> None:
    strip = legend(visible_classes(written.counts), palette, photo.shape[1], written.shares)
    picture = add_strip_below(overlay(photo, written.shown, palette, OPACITY), strip)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1]
    with _new_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
