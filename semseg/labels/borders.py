"""Outlines with holes of the pieces of a mask, which fit together: what two pieces share is drawn once.

The border between two pieces is a chain of edges of pixels. A chain runs on through the middles of these edges, which
turns the stairs of a slanting border into a straight line, and ends where three pieces meet, or four. Each chain is
simplified once, for both pieces beside it, so that no gap and no overlap comes between them.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from semseg.labels.pieces import Pieces, overlaps
from semseg.labels.simplifying import simplify_chains

_SMALL = 16  # pixels: a piece of fewer keeps its outline, of which simplifying would leave little that is right
_OTHER, _OUTSIDE = -1, -2  # in place of a piece's number: pieces that are not wanted, and what is beyond the photo
_RIGHT, _DOWN, _LEFT, _UP = range(4)


def outlines_of(pieces: Pieces, wanted: np.ndarray, tolerance: float) -> list[list[np.ndarray]]:
    """The outlines of pieces of a mask.

    No outline crosses or touches itself, and those of different pieces touch but do not overlap, whatever the
    tolerance: where simplifying would do so, the border keeps more of its points.

    Args:
        pieces: Of the mask.
        wanted: Which of them, bool `(P,)`.
        tolerance: Pixels by which an outline may be off the line through the middles of the edges of pixels, which
            halves their corners; 0 for outlines along all edges of pixels, as pieces of a few pixels have in any case.

    Returns:
        For each piece that is wanted its rings, float64 `(M, 2)` of (x, y), clockwise as one sees them: the outer one
        first, then its holes, anticlockwise. The first pixel of the mask covers 0 to 1.

    Example:
        >>> from semseg.labels.pieces import find_pieces
        >>> mask = np.array([[0, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1]], np.uint8)
        >>> pieces = find_pieces([mask], 4)
        >>> [[outer, hole]] = outlines_of(pieces, pieces.classes == 1, tolerance=0)
        >>> sorted(outer.tolist()), len(hole)
        ([[1.0, 0.0], [1.0, 3.0], [4.0, 0.0], [4.0, 3.0]], 4)
    """
    if not wanted.any():
        return []
    loops = _loops(_edges(pieces, np.where(wanted, np.arange(len(pieces)), _OTHER).astype(np.int32), tolerance))
    rings = _simplified(_points(loops), tolerance)
    found: dict[int, list[np.ndarray]] = {piece: [] for piece in np.flatnonzero(wanted).tolist()}
    for piece, ring in zip(loops.pieces.tolist(), rings, strict=True):
        # The outer ring is the one that runs clockwise.
        found[piece].insert(0 if signed_area(ring) > 0 else len(found[piece]), ring)
    return list(found.values())


def signed_area(ring: np.ndarray) -> float:
    """What a ring `(M, 2)` of (x, y) encloses, y downwards: above 0 where it runs clockwise as one sees it."""
    return cv2.contourArea((ring - ring[0]).astype(np.float32), oriented=True)


# ------------------------------------------------------------------------------------------------- edges of the pixels


@dataclass(frozen=True, eq=False)
class _Edges:
    """Straight parts of the outlines, each with its piece on the right-hand side.

    Attributes:
        pieces: int32 `(E,)`.
        begins: (x, y) of the corner of a pixel where each begins, int32 `(E, 2)`.
        ends: Where it ends.
        directions: int8 `(E,)`, clockwise from 0 for rightwards.
        size: (H, W) of the mask.
        is_node: Whether more than two borders meet where an edge ends, or the photo has a corner there; bool `(E,)`.
        is_exact: Whether it stays where it is, as the piece on either side is small; bool `(E,)`.
    """

    pieces: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    directions: np.ndarray
    size: tuple[int, int]
    is_node: np.ndarray
    is_exact: np.ndarray

    def take(self, order: np.ndarray) -> "_Edges":
        names = ("pieces", "begins", "ends", "directions", "is_node", "is_exact")
        return replace(self, **{name: getattr(self, name)[order] for name in names})

    def codes(self, points: np.ndarray) -> np.ndarray:
        """A number for each corner of a pixel, int64."""
        return _codes(points, self.size[1])


def _codes(points: np.ndarray, width: int) -> np.ndarray:
    return points[:, 1] * np.int64(width + 1) + points[:, 0]


def _edges(pieces: Pieces, numbers: np.ndarray, tolerance: float) -> _Edges:
    (height, width), of_run = pieces.size, numbers[pieces.of_run]
    # A side's number, -1 and -2 from the end, tells whether it is a small piece.
    small = np.append(pieces.areas < _SMALL if tolerance else np.ones(len(pieces), bool), [False, False])
    level = _level_borders(pieces, of_run)
    upright = _upright_borders(pieces, of_run)
    ends = np.concatenate([level[0], level[1], upright[0], upright[1]])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.int32)
    places, counts = np.unique(_codes(np.concatenate([ends, corners, corners]), width), return_counts=True)
    # Each border is walked twice, once for the piece on either side.
    walked = [(level, _RIGHT, 3), (level, _LEFT, 2), (upright, _DOWN, 2), (upright, _UP, 3)]
    columns = []
    for (low, high, *sides), direction, side in walked:
        inside = sides[side - 2] >= 0
        begin, end = (low, high) if direction in (_RIGHT, _DOWN) else (high, low)
        exact = small[sides[0]] | small[sides[1]]
        of_edges = (sides[side - 2], begin, end, np.full(len(inside), direction, np.int8), exact)
        columns.append([column[inside] for column in of_edges])
    piece, begin, end, direction, exact = map(np.concatenate, zip(*columns, strict=True))
    nodes = counts[np.searchsorted(places, _codes(end, width))] > 2
    return _Edges(piece, begin, end, direction, pieces.size, nodes, exact)


def _level_borders(pieces: Pieces, of_run: np.ndarray) -> tuple[np.ndarray, ...]:
    """Borders between rows: their left and right ends (x, y), and the numbers of the pieces above and below."""
    height, width = pieces.size
    upper, lower, first, last = overlaps(pieces.starts, pieces.size)
    y = pieces.starts[lower] // width
    rows, columns = np.divmod(pieces.starts, width)
    frames = []
    for row, at in ((0, 0), (height - 1, height)):
        runs = np.flatnonzero(rows == row)
        beyond = np.full(len(runs), _OUTSIDE, np.int32)
        sides = (beyond, of_run[runs]) if at == 0 else (of_run[runs], beyond)
        frames.append((columns[runs], columns[runs] + pieces.lengths[runs], np.full(len(runs), at), *sides))
    within = (first, last, y, of_run[upper], of_run[lower])
    x0, x1, y, above, below = map(np.concatenate, zip(within, *frames, strict=True))
    real = above != below
    x0, x1, y, above, below = x0[real], x1[real], y[real], above[real], below[real]
    y = y.astype(np.int32)
    return np.stack([x0.astype(np.int32), y], axis=1), np.stack([x1.astype(np.int32), y], axis=1), above, below


def _upright_borders(pieces: Pieces, of_run: np.ndarray) -> tuple[np.ndarray, ...]:
    """Borders in a row: their upper and lower ends (x, y), and the numbers of the pieces to the left and right."""
    height, width = pieces.size
    rows, columns = np.divmod(pieces.starts, width)
    left = np.where(columns > 0, np.roll(of_run, 1), np.int32(_OUTSIDE))
    last = np.append(np.flatnonzero(columns == 0)[1:], len(columns)) - 1  # run of each row
    x = np.concatenate([columns, np.full(height, width)])
    y = np.concatenate([rows, np.arange(height)])
    left = np.concatenate([left, of_run[last]])
    right = np.concatenate([of_run, np.full(height, _OUTSIDE, np.int32)])
    real = left != right
    low = np.stack([x[real].astype(np.int32), y[real].astype(np.int32)], axis=1)
    return low, low + np.array([0, 1], np.int32), left[real], right[real]


# ---------------------------------------------------------------------------------------------- closed lines of edges


@dataclass(frozen=True, eq=False)
class _Loops:
    """Edges in the order in which closed lines run through them.

    Attributes:
        edges: Those of a line follow each other.
        starts: The first edge of each line, int64 `(L,)`.
        touches: Whether the line's own piece also lies diagonally opposite, where an edge ends; bool `(E,)`.
    """

    edges: _Edges
    starts: np.ndarray
    touches: np.ndarray

    @property
    def pieces(self) -> np.ndarray:
        """The piece that each line is of."""
        return self.edges.pieces[self.starts]


def _loops(edges: _Edges) -> _Loops:
    places = np.int64((edges.size[0] + 1) * (edges.size[1] + 1))
    begins = edges.pieces * places + edges.codes(edges.begins)
    order = np.lexsort((edges.directions, begins))
    edges, begins = edges.take(order), begins[order]
    ends = edges.pieces * places + edges.codes(edges.ends)
    after = np.searchsorted(begins, ends, "left")
    twice = np.searchsorted(begins, ends, "right") - after > 1
    # Where a piece touches itself at a corner, its outline turns right, so that it stays at the same pixel.
    after[twice] += edges.directions[after[twice]] != (edges.directions[twice] + 1) % 4
    order, starts = _cycles(after)
    return _Loops(edges.take(order), starts, _at_crossings(edges, twice)[order])


def _at_crossings(edges: _Edges, twice: np.ndarray) -> np.ndarray:
    """Whether an edge ends where any piece touches itself."""
    codes = edges.codes(edges.ends)
    return np.isin(codes, codes[twice])


def _cycles(after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order in which things follow each other in circles, and where in it each circle begins."""
    following, order = memoryview(after), np.empty_like(after)
    filled, unseen, starts, count = memoryview(order), bytearray(b"\1") * len(after), [], 0
    first = unseen.find(1)
    while first >= 0:
        starts.append(count)
        at = first
        while unseen[at]:
            unseen[at] = 0
            filled[count] = at
            count += 1
            at = following[at]
        first = unseen.find(1, first)
    return order, np.array(starts, np.int64)


@dataclass(frozen=True, eq=False)
class _Lines:
    """Closed lines by their points.

    Attributes:
        points: (x, y) in half pixels, int32 `(M, 2)`.
        fixed: Which of them stay, bool `(M,)`.
        exact: Which lie on an edge that stays where it is, bool `(M,)`.
        starts: The first point of each line, int64 `(L,)`.
    """

    points: np.ndarray
    fixed: np.ndarray
    exact: np.ndarray
    starts: np.ndarray


def _points(loops: _Loops) -> _Lines:
    """The points that lines run through: of each edge the middles of its first and last pixel, and where it ends."""
    edges = loops.edges
    step = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.int32)[edges.directions]
    long = np.abs(edges.ends - edges.begins).sum(axis=1) > 1
    before = np.empty_like(loops.touches)  # the same where the edge begins
    before[1:] = loops.touches[:-1]
    before[loops.starts] = loops.touches[np.append(loops.starts[1:], len(before)) - 1]
    points = np.stack([2 * edges.begins + step, 2 * edges.ends - step, 2 * edges.ends], axis=1)
    # Where a piece touches itself, its outline cuts the corner, so that it does not.
    fixed = np.stack([before | (loops.touches & ~long), loops.touches, edges.is_node], axis=1)
    taken = np.ones_like(fixed)
    taken[:, 1] = long
    taken[:, 2] = edges.is_node & ~loops.touches
    exact = edges.is_exact
    taken[exact, 0] &= fixed[exact, 0]
    taken[exact, 1] &= loops.touches[exact]
    taken[exact, 2] = ~loops.touches[exact]
    times = taken.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(times)])
    return _Lines(points[taken], fixed[taken], np.repeat(exact, times), offsets[loops.starts])


# ----------------------------------------------------------------------------------------------------------- chains


def _simplified(lines: _Lines, tolerance: float) -> list[np.ndarray]:
    """Each line with as few of its points as suffice, in pixels."""
    order, of_line, is_end = _from_fixed_points(lines)
    points, ends = lines.points[order], np.flatnonzero(is_end)
    begin, end = ends[:-1], ends[1:]
    inside = of_line[begin] == of_line[end]
    begin, end = begin[inside], end[inside]
    keys, backward = _keys(points, begin, end)
    _, first, chain = np.unique(keys, return_index=True, return_inverse=True)
    chains = [
        points[start : stop + 1][:: -1 if is_backward else 1]
        for start, stop, is_backward in zip(begin[first], end[first], backward[first], strict=True)
    ]
    tolerances = np.where(lines.exact[order][end[first]], 0.0, 2 * tolerance)
    simple = [points / 2 for points in simplify_chains(chains, tolerances)]
    parts = [
        (simple[number][::-1] if is_backward else simple[number])[:-1]
        for number, is_backward in zip(chain.tolist(), backward.tolist(), strict=True)
    ]
    bounds = np.flatnonzero(np.diff(of_line[begin], prepend=-1)).tolist()
    return [np.concatenate(parts[low:high]) for low, high in zip(bounds, [*bounds[1:], len(parts)], strict=True)]


def _from_fixed_points(lines: _Lines) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each line from one of its fixed points on and back to it.

    A line without one takes the least of its points, which is the same for the pieces on either side.

    Returns:
        Numbers of points, int64 `(M + L,)`; the line of each; and whether it is fixed.
    """
    count = len(lines.points)
    lengths = np.diff(lines.starts, append=count)
    codes = lines.points @ [1, 2 * int(lines.points.max()) + 1]
    least = np.minimum.reduceat(np.where(lines.fixed, -1, codes), lines.starts)
    is_start = np.where(lines.fixed, -1, codes) == np.repeat(least, lengths)
    shift = np.minimum.reduceat(np.where(is_start, np.arange(count), count), lines.starts) - lines.starts
    of_line = np.repeat(np.arange(len(lengths)), lengths + 1)
    local = np.arange(len(of_line)) - (lines.starts + np.arange(len(lengths)))[of_line]
    order = lines.starts[of_line] + (local + shift[of_line]) % lengths[of_line]
    return order, of_line, lines.fixed[order] | (local == 0) | (local == lengths[of_line])


def _keys(points: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each chain, the same from either side, and whether it is walked backwards by that number."""
    code = np.array([1, 4 * int(points.max()) + 1])
    first = (points[begin] + points[begin + 1]) @ code
    last = (points[end] + points[end - 1]) @ code
    backward = (last < first) | ((last == first) & (points[end] @ code < points[begin] @ code))
    return np.minimum(first, last), backward
