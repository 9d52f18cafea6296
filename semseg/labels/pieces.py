"""Connected pieces of a mask, found from its rows as they come.

A mask is held as the runs of equal ids in its rows, which for masks of large photos takes a few per cent of the mask's
own memory. Pixels are connected that share an edge, not only a corner, so that each piece has one outline.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_BAND_BYTES = 1 << 24  # of a mask that is worked on at once


@dataclass(frozen=True, eq=False)
class Pieces:
    """Connected pieces of equal ids; together they cover the mask.

    Attributes:
        size: (H, W) of the mask.
        starts: Where each run of equal ids begins, counted along the rows from the upper left pixel; int64 `(R,)`, in
            order. A run ends where the next begins, or with its row.
        ids: Of each run, uint8 `(R,)`.
        of_run: The piece of each run, int64 `(R,)`, from 0 on, numbered as one reads: by their first pixels.
        weights: The sum of what each pixel weighs, over each run, float64 `(R,)`.
    """

    size: tuple[int, int]
    starts: np.ndarray
    ids: np.ndarray
    of_run: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Pixels of each run, int64 `(R,)`."""
        return np.diff(self.starts, append=self.size[0] * self.size[1])

    @cached_property
    def classes(self) -> np.ndarray:
        """The id of each piece, uint8 `(P,)`."""
        classes = np.zeros(len(self), np.uint8)
        classes[self.of_run] = self.ids
        return classes

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each piece, int64 `(P,)`."""
        return np.bincount(self.of_run, self.lengths).astype(np.int64)

    @cached_property
    def mean_weights(self) -> np.ndarray:
        """What the pixels of each piece weigh on average, float64 `(P,)`."""
        return np.bincount(self.of_run, self.weights) / self.areas

    @cached_property
    def centroids(self) -> np.ndarray:
        """The mean (x, y) of the pixels of each piece, float64 `(P, 2)`; the first pixel's centre lies at .5, .5."""
        rows, columns = np.divmod(self.starts, self.size[1])
        sums = [self.lengths * (columns + self.lengths / 2), self.lengths * (rows + 0.5)]
        return np.stack([np.bincount(self.of_run, total) / self.areas for total in sums], axis=1)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(left, top, right, bottom) of each piece, int64 `(P, 4)`: first column and row, and those after the last."""
        rows, columns = np.divmod(self.starts, self.size[1])
        boxes = np.tile(np.array([*self.size[::-1], 0, 0], np.int64), (len(self), 1))
        for axis, (low, high) in enumerate(((columns, columns + self.lengths), (rows, rows + 1))):
            np.minimum.at(boxes[:, axis], self.of_run, low)
            np.maximum.at(boxes[:, 2 + axis], self.of_run, high)
        return boxes

    @cached_property
    def touch_border(self) -> np.ndarray:
        """Whether a pixel of each piece lies at the photo's border, bool `(P,)`."""
        return ((self.boxes[:, :2] == 0) | (self.boxes[:, 2:] == self.size[::-1])).any(axis=1)

    def borders(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which pieces lie beside each other.

        Returns:
            Two pieces, the lower number first, and the edges of pixels between them, int64 `(B,)` each.
        """
        above, below, first, last = self._overlaps()
        beside = np.flatnonzero(self.starts[1:] % self.size[1])
        one = np.concatenate([self.of_run[above], self.of_run[beside]])
        other = np.concatenate([self.of_run[below], self.of_run[beside + 1]])
        edges = np.concatenate([last - first, np.ones(len(beside), np.int64)])
        differ = one != other
        low, high = np.minimum(one, other)[differ], np.maximum(one, other)[differ]
        pairs, index = np.unique(low * len(self) + high, return_inverse=True)
        return pairs // len(self), pairs % len(self), np.bincount(index, edges[differ], len(pairs)).astype(np.int64)

    def bands(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """A picture of the mask's size from top to bottom, `(n, W)` each, from the value of each piece, `(P,)`."""
        height, width = self.size
        step = max(1, _BAND_BYTES // (width * values.itemsize))
        for row in range(0, height, step):
            end = min(row + step, height)
            runs = slice(*np.searchsorted(self.starts, (row * width, end * width)))
            yield np.repeat(values[self.of_run[runs]], self.lengths[runs]).reshape(end - row, width)

    def _overlaps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Runs above and below each other, and the first column that they share and the one after the last."""
        return overlaps(self.starts, self.size)


def find_pieces(bands: Iterable[np.ndarray], width: int, weights: Iterable[np.ndarray] | None = None) -> Pieces:
    """Finds the connected pieces of a mask.

    Args:
        bands: The mask from top to bottom, uint8 `(n, W)` each.
        width: W.
        weights: What each pixel weighs, in bands of the same heights; None for 0.

    Returns:
        Its pieces, those of id 255 among them.

    Example:
        >>> mask = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 1]], np.uint8)
        >>> pieces = find_pieces([mask], 3)
        >>> pieces.classes.tolist(), pieces.areas.tolist()
        ([0, 1, 1], [4, 4, 1])
    """
    starts, ids, sums, height = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], [np.zeros(0)], 0
    weights = iter(weights) if weights is not None else None
    for whole in bands:
        weighed = None if weights is None else next(weights)
        for row in range(0, len(whole), step := max(1, _BAND_BYTES // (8 * width))):
            band = whole[row : row + step]
            begins = np.ones(band.shape, bool)
            np.not_equal(band[:, 1:], band[:, :-1], out=begins[:, 1:])
            begins = np.flatnonzero(begins)
            starts.append(begins + height * width)
            ids.append(band.ravel()[begins])
            sums.append(
                np.zeros(len(begins)) if weighed is None
                else np.add.reduceat(weighed[row : row + step].ravel(), begins, dtype=np.float64)
            )  # fmt: skip
            height += len(band)
    return _connected((height, width), *map(np.concatenate, (starts, ids, sums)))


def _connected(size: tuple[int, int], starts: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> Pieces:
    above, below, _, _ = overlaps(starts, size)
    same = ids[above] == ids[below]
    roots = _roots(len(starts), above[same], below[same])
    return Pieces(size, starts, ids, np.unique(roots, return_inverse=True)[1], weights)


def overlaps(starts: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which runs of neighbouring rows lie above each other.

    Args:
        starts: Of the runs, as in `Pieces`.
        size: (H, W).

    Returns:
        The upper run, the lower run, the first column that they share and the one after the last, int64 `(M,)` each,
        row after row and from left to right.
    """
    total, width = size[0] * size[1], size[1]
    # Runs above each other share columns from where one of them begins to where the next one of them does.
    begins = np.union1d(starts[starts >= width], starts[starts + width < total] + width)
    upper = np.searchsorted(starts, begins - width, "right") - 1
    lower = np.searchsorted(starts, begins, "right") - 1
    ends = np.append(begins[1:], total)[: len(begins)]
    first = begins % width
    return upper, lower, first, first + ends - begins


def _roots(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each of so many things the least that it is connected with, by the pairs that are; int64 `(count,)`."""
    parents = np.arange(count)
    while len(one):
        one, other = parents[one], parents[other]
        differ = one != other
        one, other = np.minimum(one, other)[differ], np.maximum(one, other)[differ]
        np.minimum.at(parents, other, one)
        while not np.array_equal(grandparents := parents[parents], parents):
            parents = grandparents
    return parents
