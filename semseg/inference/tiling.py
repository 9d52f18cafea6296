"""Photos larger than what a network sees: overlapping tiles, blended band by band, in memory that stays bounded."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import cv2
import numpy as np

from semseg.backend import PredictBatch
from semseg.errors import SemsegError
from semseg.images.resizing import resize_photo
from semseg.inference.logits import mean_of_views

OVERLAP = 0.5  # of a tile's side, with the next tile
OVERLAP_OF_CROPS = 0.25  # where the network learned crops: tiles look to it as all it has seen
_UNUSED = 3 / 8  # of the overlap: what a tile says so near to its edge counts nothing
_MAX_STRIDE = 32  # pixels of the photo for one of a network's deepest layer, at most
_BAND_BYTES = 1 << 20  # of logits at the photo's size that are made at once: as much as a core has at hand


@dataclass(frozen=True)
class _Axis:
    """Where tiles lie along one side of a photo.

    Attributes:
        length: Of the photo's side, in its own pixels.
        tile: Side of a tile, in the photo's pixels.
        seen_tile: The same, in the pixels that the network sees; so are all the other lengths.
        overlap: Share of a tile's side that lies in the next tile, too, about.
    """

    length: int
    tile: int
    seen_tile: int
    overlap: float = OVERLAP

    @property
    def scale(self) -> float:
        """Pixels of the photo for one that the network sees."""
        return self.tile / self.seen_tile

    @property
    def seen_length(self) -> int:
        """Length of the photo's side, in the pixels that the network sees."""
        return math.ceil(self.length / self.scale)

    @property
    def stride(self) -> int:
        """From the start of a tile to that of the next."""
        return max(1, round((1 - self.overlap) * self.seen_tile / self._grid)) * self._grid

    @property
    def unused(self) -> int:
        """Length of a tile's edge that counts nothing."""
        return 0 if self.seen_length <= self.seen_tile else round(_UNUSED * (self.seen_tile - self.stride))

    @property
    def margin(self) -> int:
        """What the first tile sees before the photo's edge: its mirror image."""
        return math.ceil(self.unused / self._grid) * self._grid

    @property
    def _grid(self) -> int:
        """What tiles' starts are multiples of.

        A network that pools gives other logits for a photo that is shifted by less than a pixel of its deepest layer,
        so all tiles should lie on one grid of these. They divide the tile's side.
        """
        return min(math.gcd(self.seen_tile, _MAX_STRIDE), 1 << max(0, (self.seen_tile // 4).bit_length() - 1))

    @property
    def count(self) -> int:
        """How many tiles lie side by side."""
        used = self.seen_tile - self.margin - self.unused
        return 1 + max(0, math.ceil((self.seen_length - used) / self.stride))

    @property
    def padded_length(self) -> int:
        """From the start of the first tile to the end of the last."""
        return (self.count - 1) * self.stride + self.seen_tile

    def pixels(self, place: int) -> tuple[int, int]:
        """Start and end of a tile in the photo's pixels, where they may lie outside."""
        start = round((place * self.stride - self.margin) * self.scale)
        return start, start + self.tile

    @cached_property
    def weights(self) -> np.ndarray:
        """float32 `(count, seen_tile)`: how much each pixel of each tile counts; the sum over the tiles is 1."""
        centred = (np.arange(self.seen_tile) - (self.seen_tile - 1) / 2) / (self.seen_tile / 8)
        window = np.exp(-(centred**2) / 2)
        # Shifted down to 0 near the edge, so that what a tile says there counts nothing, without a step.
        window = (window - (window[self.unused - 1] if self.unused else 0)).clip(min=0)
        total = np.zeros(self.padded_length)
        for place in range(self.count):
            total[place * self.stride :][: self.seen_tile] += window
        total[total == 0] = 1  # only in the margins
        weights = [window / total[place * self.stride :][: self.seen_tile] for place in range(self.count)]
        return np.stack(weights).astype(np.float32)


def tile_of_crops(image_size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) in a photo's pixels of what a network that learned crops sees at once.

    Args:
        image_size: (h, w) that it sees.
        scale: Pixels that it sees for one of the photo's, along each side.

    Example:
        >>> tile_of_crops((256, 256), 0.5)
        (512, 512)
    """
    return max(1, round(image_size[0] / scale)), max(1, round(image_size[1] / scale))


def tile_count(size: tuple[int, int], image_size: tuple[int, int], tile: tuple[int, int]) -> int:
    """How many tiles a photo is seen in.

    Args:
        size: (H, W) of the photo.
        image_size: (h, w) that the network sees.
        tile: (height, width) of the tiles in the photo's pixels.

    Example:
        >>> tile_count((256, 256), (64, 64), (64, 64)), tile_count((60, 1), (64, 64), (64, 64))
        (64, 1)
    """
    return math.prod(_Axis(*sides).count for sides in zip(size, tile, image_size, strict=True))


def tiled_logits(
    predict_batch: PredictBatch,
    bands: Iterable[np.ndarray],
    size: tuple[int, int],
    *,
    image_size: tuple[int, int],
    tile: tuple[int, int],
    batch_size: int = 8,
    overlap: float = OVERLAP,
) -> Iterator[np.ndarray]:
    """Logits of a photo that is seen in overlapping tiles.

    Each tile counts by a Gaussian window around its centre, and nothing near its edge, where the network lacks what
    lies beyond: where `image_size` equals `tile` and the network looks no farther than 3/8 of the overlap, the result
    is that of the whole photo at once, but for the photo's own edge, beyond which its mirror image is seen. To this end
    all tiles start at multiples of 32 pixels, or of the power of 2 that divides their side, where networks pool.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits `(N, h, w, K)`, or `(N, h, w, 1)`.
        bands: The photo from top to bottom, uint8 RGB `(n, W, 3)` of any heights; `[photo]` for one in memory.
        size: (H, W) of the photo, from 1x1.
        image_size: (h, w) that the network sees, and that each tile is resized to.
        tile: (height, width) of the tiles in the photo's pixels.
        batch_size: Tiles per call.
        overlap: Share of a tile's side that lies in the next tile, too, 0 to .5; rounded so that tiles start there.

    Yields:
        float32 `(n, W, K)`, or `(n, W, 1)`, from top to bottom. A tile's height of the photo and of the logits that the
        network sees is held in memory.

    Example:
        >>> brightness = lambda photos: photos[..., :1] / np.float32(255)
        >>> photo = np.full((50, 90, 3), 51, np.uint8)
        >>> bands = tiled_logits(brightness, [photo], (50, 90), image_size=(32, 32), tile=(32, 32))
        >>> logits = np.concatenate(list(bands))
        >>> logits.shape, bool(np.allclose(logits, 0.2))
        ((50, 90, 1), True)
    """
    rows, columns = (_Axis(*sides, overlap) for sides in zip(size, tile, image_size, strict=True))
    blended = _blend(predict_batch, bands, rows, columns, batch_size)
    yield from resize_bands(blended, size, (rows.seen_length, columns.seen_length), (rows.scale, columns.scale))


def _blend(
    predict_batch: PredictBatch, bands: Iterable[np.ndarray], rows: _Axis, columns: _Axis, batch_size: int
) -> Iterator[np.ndarray]:
    """Finished rows of logits as the network sees them, float32 `(n, seen_length of the columns, K)`."""
    photo, sums = _Rows(bands), None
    for row in range(rows.count):
        tiles = _tiles(photo, row, rows, columns)
        for first in range(0, columns.count, batch_size):
            logits = predict_batch(np.stack(list(islice(tiles, batch_size))))
            if sums is None:
                sums = np.zeros((rows.seen_tile, columns.padded_length, logits.shape[-1]), np.float32)
            for place, tile_logits in enumerate(logits, start=first):
                weights = rows.weights[row][:, None] * columns.weights[place]
                sums[:, place * columns.stride :][:, : columns.seen_tile] += tile_logits * weights[..., None]
        # The first `stride` rows of the sums are finished, as no later tile reaches them; at the end all are.
        start = row * rows.stride - rows.margin
        done = rows.seen_tile if row == rows.count - 1 else rows.stride
        finished = slice(max(0, -start), max(0, min(done, rows.seen_length - start)))
        inside = slice(columns.margin, columns.margin + columns.seen_length)
        for part in _split_rows(sums[finished, inside]):
            yield part.copy()
        # The next row of tiles begins `stride` rows further down.
        sums[: -rows.stride or None] = sums[rows.stride :] if rows.stride < rows.seen_tile else 0
        sums[-rows.stride :] = 0


class _Rows:
    """Rows of a photo that comes in bands; those before what was asked for last are forgotten."""

    def __init__(self, bands: Iterable[np.ndarray]):
        self._bands, self._held, self._first = iter(bands), [], 0

    def between(self, start: int, end: int) -> np.ndarray:
        held = sum(map(len, self._held))
        while self._first + held < end:
            self._held.append(next(self._bands))
            held += len(self._held[-1])
        rows = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held, self._first = [rows[start - self._first :]], start
        return self._held[0][: end - start]


def _tiles(photo: _Rows, row: int, rows: _Axis, columns: _Axis) -> Iterator[np.ndarray]:
    """The tiles of one row at the size that the network sees; outside the photo lies its mirror image."""
    top, bottom = rows.pixels(row)
    band = photo.between(max(0, top), min(rows.length, bottom))
    for place in range(columns.count):
        left, right = columns.pixels(place)
        part = band[:, max(0, left) : min(columns.length, right)]
        missing = (-min(0, top), max(0, bottom - rows.length), -min(0, left), max(0, right - columns.length))
        if any(missing):
            part = cv2.copyMakeBorder(part, *missing, cv2.BORDER_REFLECT_101)
        yield resize_photo(part, (rows.seen_tile, columns.seen_tile))


def resize_bands(
    blocks: Iterable[np.ndarray],
    size: tuple[int, int],
    seen: tuple[int, int],
    scales: tuple[float, float] | None = None,
) -> Iterator[np.ndarray]:
    """Logits at a photo's own size, by linear interpolation, a band at a time.

    Args:
        blocks: Logits as the network sees them, from top to bottom: float `(n, w, K)`.
        size: (H, W) of the photo.
        seen: (h, w): sum of the blocks' heights, and their width.
        scales: Pixels of the photo for one of the logits, in height and width; None for H / h and W / w.

    Yields:
        float32 `(n, W, K)`, together of height H.

    Example:
        >>> bands = resize_bands([np.float32([[[0], [8]]])], (1, 4), (1, 2))
        >>> next(bands)[0, :, 0].tolist()
        [0.0, 2.0, 6.0, 8.0]
    """
    scales = scales or (size[0] / seen[0], size[1] / seen[1])
    if scales == (1, 1):
        for block in blocks:
            yield from _split_rows(block)
        return
    above, below, shares = _neighbours(size[0], seen[0], scales[0])
    left, right, across = _neighbours(size[1], seen[1], scales[1])
    across = across[:, None]
    held, first, row = None, 0, 0
    width = size[1] / seen[1]
    for thin in (part for block in blocks for part in _split_rows(block, width)):
        # First along the rows: the value to the left, and so much of the difference to the one on the right.
        wide = thin[:, left]
        wide += across * (thin[:, right] - wide)
        held = wide if held is None else np.concatenate([held, wide])
        # Then along the columns, for all rows of the photo whose two neighbours are held.
        end = np.searchsorted(below, first + len(held))
        step = max(1, _BAND_BYTES // wide[0].nbytes)
        for start in range(row, end, step):
            part = slice(start, min(end, start + step))
            band = held[below[part] - first]
            band -= held[above[part] - first]
            band *= shares[part, None, None]
            band += held[above[part] - first]
            yield band
        row = max(row, end)
        forgotten = min(len(held), above[row] - first) if row < size[0] else len(held)
        held, first = held[forgotten:], first + forgotten


def _split_rows(block: np.ndarray, times: float = 1) -> Iterator[np.ndarray]:
    """The rows of a block, few at a time: so many that they take 1 MB when they are `times` as wide."""
    step = max(1, int(_BAND_BYTES / (times * block[:1].nbytes))) if len(block) else 1
    for start in range(0, len(block), step):
        yield block[start : start + step]


def _neighbours(length: int, seen: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of a photo's side the two seen pixels that it lies between, and its way to the second, 0 to 1."""
    places = ((np.arange(length) + 0.5) / scale - 0.5).clip(0, seen - 1)
    before = places.astype(np.int64)
    return before, np.minimum(before + 1, seen - 1), (places - before).astype(np.float32)


def with_scales(predict_batch: PredictBatch, scales: Sequence[float]) -> PredictBatch:
    """A `predict_batch` that sees each photo also larger and smaller, and gives the mean of the probabilities.

    A larger photo is seen in tiles of the usual size, a smaller one with its mirror image around it.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits `(N, h, w, K)`, or `(N, h, w, 1)`.
        scales: Factors, 0.25 to 4, such as 0.75, 1 and 1.25.

    Returns:
        A function that gives logits whose softmax, or sigmoid, is the mean over the scales.

    Raises:
        SemsegError: There are no scales, or some make no sense.
    """
    if not scales or not all(0.25 <= scale <= 4 for scale in scales):
        raise SemsegError(f"`scales`: got {', '.join(map(str, scales))}; expected factors from 0.25 to 4: 0.75,1,1.25")

    def at_scale(photos: np.ndarray, scale: float) -> np.ndarray:
        seen = photos.shape[1:3]
        if scale == 1:
            return predict_batch(photos)
        size = tuple(max(1, round(scale * side)) for side in seen)
        resized = []
        for photo in photos:
            bands = tiled_logits(
                predict_batch, [resize_photo(photo, size)], size, image_size=seen, tile=seen, batch_size=len(photos)
            )
            resized.append(np.concatenate(list(resize_bands(bands, seen, size))))
        return np.stack(resized)

    return lambda photos: mean_of_views([at_scale(photos, scale) for scale in scales])
