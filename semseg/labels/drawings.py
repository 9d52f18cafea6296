"""What annotation tools store in place of masks: outlines and run lengths, each with the name of its class.

Coordinates are (x, y) in pixels from the photo's upper left corner, so that the first pixel covers 0 to 1. Outlines are
filled as pycocotools does it: their points lie on a grid of a fifth of a pixel, and a pixel belongs to the inside if
its centre does, by the even-odd rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from semseg import IGNORE
from semseg.errors import DataError

MAX_COORDINATE = 1e9  # pixels from the photo's corner; what lies farther away is a slip
_GRID = 5  # points per pixel, as pycocotools has it
_BLOCK = 1 << 18  # crossings at a time
_MAX_CROSSINGS = 1 << 25  # of the outlines of a photo with the middles of its columns
_MAX_OUTSIDE = 0.25  # of a photo's areas: fewer are slips, which draw nothing
_MAX_AREA = 1 << 35  # pixels of the rectangles around all shapes of a photo, together


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask by the lengths of its runs, column after column from the top as COCO has them, or row after row.

    Attributes:
        counts: Lengths of runs, int64 `(M,)`: of pixels outside, inside, outside ... What follows the last is outside.
        size: (height, width) of the rectangle that they run through; None for the whole photo.
        origin: (row, column) of the rectangle's upper left pixel in the photo.
        by_rows: Whether they go row after row.
    """

    counts: np.ndarray
    size: tuple[int, int] | None = None
    origin: tuple[int, int] = (0, 0)
    by_rows: bool = False


@dataclass(frozen=True, eq=False)
class Shape:
    """One area of a photo.

    Attributes:
        label: The name of its class; None where its pixels count nowhere.
        rings: Closed outlines, float64 `(P, 2)` of (x, y), filled together by the even-odd rule: a second one inside
            the first is a hole.
        runs: In place of outlines.
    """

    label: str | None
    rings: tuple[np.ndarray, ...] = ()
    runs: Runs | None = None


@dataclass(frozen=True, eq=False)
class Drawing:
    """All areas of one photo.

    Attributes:
        shapes: In the order in which they are drawn: later ones lie on earlier ones.
        ground: The class of the pixels that no shape covers; None where they count nowhere.
        size: (height, width) of the photo, where the file says it.
        in_shares: Whether coordinates are shares of the photo's width and height, not pixels.
        place: The file, and the photo in it, for messages.
    """

    shapes: tuple[Shape, ...]
    ground: str | None = "background"
    size: tuple[int, int] | None = None
    in_shares: bool = False
    place: str = ""

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that tell what is drawn from any other drawing."""
        digest = blake2b(repr((self.ground, self.size, self.in_shares)).encode(), digest_size=16)
        for shape in self.shapes:
            runs = shape.runs or Runs(np.zeros(0, np.int64))
            arrays = [*shape.rings, runs.counts]
            head = (shape.label, runs.size, runs.origin, runs.by_rows, [len(array) for array in arrays])
            digest.update(repr(head).encode("utf-8", "surrogatepass"))
            for array in arrays:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()

    @property
    def labels(self) -> set[str]:
        """The names of the classes that it may show."""
        return {shape.label for shape in self.shapes if shape.label is not None} | ({self.ground} - {None})


def rasterise(drawing: Drawing, size: tuple[int, int], ids: Mapping[str, int]) -> np.ndarray:
    """The mask that a drawing means.

    Args:
        drawing: What is drawn.
        size: (height, width) of the photo.
        ids: The id of each class by its name, 0 to 254.

    Returns:
        uint8 `(H, W)`: ids, and 255 where nothing counts.

    Raises:
        DataError: A class is not among `ids`, run lengths do not fit, or there is more to draw than can be meant.

    Example:
        >>> square = Shape("car", (np.array([[1.0, 0], [3, 0], [3, 2], [1, 2]]),))
        >>> rasterise(Drawing((square,)), (2, 4), {"background": 0, "car": 1})
        array([[0, 1, 1, 0],
               [0, 1, 1, 0]], dtype=uint8)
    """
    unknown = drawing.labels - ids.keys()
    if unknown:
        raise DataError(
            f"{drawing.place}: shows {min(unknown)!r}, which is none of the classes {', '.join(list(ids)[:8])}; give "
            "the class that name, or read the photos by the classes of their own file"
        )
    _refuse_outside(drawing, size)
    mask = np.full(size, _id_of(drawing.ground, ids), np.uint8)
    crossings = area = 0
    for shape in drawing.shapes:
        (top, left), inside, crossed = _inside(shape, size, drawing)
        height, width = inside.shape
        mask[top : top + height, left : left + width][inside] = _id_of(shape.label, ids)
        crossings, area = crossings + crossed, area + inside.size
        if crossings > _MAX_CROSSINGS or area > _MAX_AREA:
            raise DataError(f"{drawing.place}: holds more to draw than a photo can show; simplify its outlines")
    return mask


def extents_of(shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest (x, y) of each shape that has an outline, `(M, 2)` both."""
    outer = [shape.rings[0] for shape in shapes if shape.rings and len(shape.rings[0])]
    if not outer:
        return np.zeros((0, 2)), np.zeros((0, 2))
    points = np.concatenate(outer)
    starts = np.cumsum([0, *(len(ring) for ring in outer[:-1])])
    return np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)


def count_outside(low: np.ndarray, high: np.ndarray, width_height: tuple[float, float]) -> int:
    """How many areas between these corners (x, y) have their middle outside of a photo of this size."""
    middles = (low + high) / 2
    return int(((middles < 0) | (middles > width_height)).any(axis=1).sum())


def _refuse_outside(drawing: Drawing, size: tuple[int, int]) -> None:
    """Raises a `DataError` where so many areas lie outside that they must be of another photo, or of another size."""
    outside = count_outside(*extents_of(drawing.shapes), (1, 1) if drawing.in_shares else size[::-1])
    total = len(drawing.shapes)
    if outside > _MAX_OUTSIDE * total:
        raise DataError(
            f"{drawing.place}: {outside} of {total} areas lie outside of the photo's {size[1]}x{size[0]} pixels; was "
            "it resized, or are they of another photo? Mend or remove them"
        )


def _id_of(label: str | None, ids: Mapping[str, int]) -> int:
    return IGNORE if label is None else ids[label]


def _inside(shape: Shape, size: tuple[int, int], drawing: Drawing) -> tuple[tuple[int, int], np.ndarray, int]:
    """A rectangle by its (row, column), the pixels in it that the shape covers, bool, and its crossings."""
    if shape.runs is not None:
        return *_inside_of_runs(shape.runs, size, drawing.place), 0
    scale = np.array(size[::-1], float) if drawing.in_shares else 1.0
    return fill_rings([ring * scale for ring in shape.rings], size, drawing.place)


# ------------------------------------------------------------------------------------------------------- run lengths


def _inside_of_runs(runs: Runs, size: tuple[int, int], place: str) -> tuple[tuple[int, int], np.ndarray]:
    height, width = runs.size or size
    ends = np.cumsum(runs.counts, dtype=np.int64)
    if len(ends) and (ends[-1] > height * width or runs.counts.min() < 0):
        raise DataError(
            f"{place}: has run lengths for {ends[-1]} pixels, in {width}x{height} pixels; expected {height * width}: "
            "the photo may have been resized"
        )
    lines, inside = _filled_lines(ends, width if runs.by_rows else height)
    if runs.by_rows:
        return _clip((runs.origin[0] + lines, runs.origin[1]), inside, size)
    return _clip((runs.origin[0], runs.origin[1] + lines), inside.T, size)


def _filled_lines(ends: np.ndarray, length: int) -> tuple[int, np.ndarray]:
    """The first line that is filled somewhere, and the lines from it to the last such one, bool `(lines, length)`.

    Args:
        ends: Where the runs end, outside and inside in turn, rising.
        length: Pixels in a line.
    """
    ends = ends[: len(ends) // 2 * 2]
    starts, stops = ends[0::2], ends[1::2]
    filled = starts < stops
    starts, stops = starts[filled], stops[filled]
    if not len(starts):
        return 0, np.zeros((0, length), bool)
    first, last = int(starts[0]) // length, int(stops[-1] - 1) // length + 1
    changes = np.zeros((last - first) * length + 1, np.int8)
    np.add.at(changes, starts - first * length, 1)
    np.add.at(changes, stops - first * length, -1)
    return first, np.cumsum(changes[:-1], dtype=np.int8).astype(bool).reshape(last - first, length)


def _clip(origin: tuple[int, int], inside: np.ndarray, size: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
    """The part of a rectangle that lies in the photo."""
    top, left = max(origin[0], 0), max(origin[1], 0)
    bottom, right = min(origin[0] + inside.shape[0], size[0]), min(origin[1] + inside.shape[1], size[1])
    if top >= bottom or left >= right:
        return (0, 0), inside[:0, :0]
    return (top, left), inside[top - origin[0] : bottom - origin[0], left - origin[1] : right - origin[1]]


# ---------------------------------------------------------------------------------------------------------- outlines


def fill_rings(
    rings: Sequence[np.ndarray], size: tuple[int, int], place: str = ""
) -> tuple[tuple[int, int], np.ndarray, int]:
    """The pixels inside of closed outlines, by the even-odd rule.

    Args:
        rings: float `(P, 2)` of (x, y) in pixels.
        size: (height, width) of the photo.
        place: For the message.

    Returns:
        The (row, column) of a rectangle in the photo, its pixels, bool `(h, w)`, True inside; and how often they
        cross the middles of columns, which is what drawing costs.

    Raises:
        DataError: They do so more often than any outline that was drawn.
    """
    begin = np.concatenate([np.zeros((0, 2)), *rings])
    if not len(begin):
        return (0, 0), np.zeros((0, 0), bool), 0
    left, top = np.clip(np.floor(begin.min(axis=0)) - 1, 0, size[::-1]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(begin.max(axis=0)) + 1, 0, size[::-1]).astype(int).tolist()
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    begin, end = np.trunc(_GRID * begin + 0.5), np.trunc(_GRID * end + 0.5)
    first, count = _columns_crossed(begin[:, 0], end[:, 0], left, right)
    crossed = int(count.sum())
    if crossed > _MAX_CROSSINGS:
        raise DataError(f"{place}: has an outline that crosses the photo too often to be meant; redraw it")
    parity = np.zeros((right - left, bottom - top + 1), np.uint8)
    for edge, column in _crossings(first, count):
        row = _rows_at(begin[edge], end[edge], _GRID * column + 2)
        cell = (column - left) * parity.shape[1] + np.clip(row, top, bottom) - top
        np.add.at(parity.reshape(-1), cell.astype(np.int64), 1)
    inside = (np.cumsum(parity[:, :-1], axis=1, dtype=np.uint8) & 1).astype(bool).T
    return (top, left), inside, crossed


def _columns_crossed(x0: np.ndarray, x1: np.ndarray, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of the columns from `left` to `right` whose middle each edge crosses, and how many it crosses."""
    low, high = np.minimum(x0, x1), np.maximum(x0, x1)
    first = np.maximum(np.ceil((low - 2) / _GRID), left)
    last = np.minimum(np.floor((high - 3) / _GRID), right - 1)
    return first, np.maximum(last - first + 1, 0).astype(np.int64)


def _crossings(first: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The edge and the column, float, of each crossing, both `(M,)`, some at a time."""
    edges, total = np.flatnonzero(count), np.cumsum(count)
    while len(edges):
        done = total[edges[0]] - count[edges[0]]
        taken = max(1, int(np.searchsorted(total[edges], done + _BLOCK, "right")))
        some, edges = edges[:taken], edges[taken:]
        edge = np.repeat(some, count[some])
        yield edge, first[edge] + np.arange(len(edge)) - np.repeat(total[some] - count[some] - done, count[some])


def _rows_at(begin: np.ndarray, end: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The first row below the point at which each edge passes from x to x + 1 on the fine grid, float `(M,)`.

    Edges are walked as pycocotools walks them, in steps of one along their longer direction.
    """
    delta = np.abs(end - begin)
    steep = delta[:, 0] < delta[:, 1]
    along = steep.astype(int)  # the coordinate in which they are longer
    rows = np.arange(len(x))
    flipped = begin[rows, along] > end[rows, along]
    (x0, y0), (x1, y1) = np.where(flipped[:, None], end, begin).T, np.where(flipped[:, None], begin, end).T
    slope = np.where(steep, x1 - x0, y1 - y0) / delta[rows, along]
    step = x - x0
    y = np.minimum(np.trunc(y0 + slope * step + 0.5), np.trunc(y0 + slope * (step + 1) + 0.5))
    y[steep] = y0[steep] + _step_before(x0[steep], slope[steep], x[steep])
    return np.ceil((y + 0.5) / _GRID - 0.5)


def _step_before(x0: np.ndarray, slope: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The last step of steep edges on the one side of the line between x and x + 1."""

    def is_past(step: np.ndarray) -> np.ndarray:
        return (np.trunc(x0 + slope * step + 0.5) > x) == (slope > 0)

    step = np.ceil((x + 0.5 - x0) / slope)  # to be corrected by what rounding did
    return np.where(is_past(step - 1), step - 1, np.where(is_past(step), step, step + 1)) - 1
