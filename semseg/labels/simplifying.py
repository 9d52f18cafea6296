"""Lines with fewer points, which cross each other no more than before."""

from collections.abc import Iterator, Sequence
from itertools import count, pairwise, product

import cv2
import numpy as np

_LONGEST = 128  # points that are simplified together: a line that would cross another is drawn anew so far alone
_FINEST = 0.25  # half the tolerance would be no simplification any more
_AT_ONCE = 1 << 16  # segments that are worked on at once
_CELL = 16.0  # side of the squares in which lines are looked for that may cross


def simplify_chains(chains: Sequence[np.ndarray], tolerances: Sequence[float]) -> list[np.ndarray]:
    """Leaves points out of lines by the algorithm of Ramer, Douglas and Peucker, as far as no lines cross.

    Args:
        chains: Whole numbers, int32 `(M, 2)`, M at least 2. The first and the last point stay; they may be the same.
            Lines have no points in common but these, and do not cross.
        tolerances: How far a point that is left out of each may lie from the line; 0 for points on it alone.

    Returns:
        The lines, int32 `(m, 2)`. None crosses or touches another or itself, but at its ends.

    Example:
        >>> [line] = simplify_chains([np.array([[0, 0], [2, 1], [4, 0]])], [1])
        >>> line.tolist()
        [[0, 0], [4, 0]]
    """
    cut = [list(_cut(chain)) for chain in chains]
    parts = [part for some in cut for part in some]
    tolerances = np.repeat(np.asarray(tolerances, float), list(map(len, cut)))
    simple = [_simplify(part, tolerance) for part, tolerance in zip(parts, tolerances.tolist(), strict=True)]
    crossing = np.flatnonzero(_crossing(simple))
    while len(crossing) and tolerances[crossing].any():
        tolerances[crossing] /= 2
        tolerances[tolerances < _FINEST] = 0
        for i in crossing.tolist():
            simple[i] = _simplify(parts[i], tolerances[i]) if tolerances[i] else parts[i]
        crossing = np.flatnonzero(_crossing(simple))
    bounds = np.cumsum([0, *map(len, cut)]).tolist()
    return [_joined(simple[low:high]) for low, high in pairwise(bounds)]


def _cut(chain: np.ndarray) -> Iterator[np.ndarray]:
    """Parts that begin with the point that the one before ends with; none is closed."""
    closed = (chain[0] == chain[-1]).all()
    middle = int(np.abs(chain - chain[0]).sum(axis=1).argmax()) if closed else len(chain) - 1
    for low, high in ((0, middle), (middle, len(chain) - 1)):
        for start in range(low, high, _LONGEST):
            yield chain[start : min(start + _LONGEST, high) + 1]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([*(part[:-1] for part in parts), parts[-1][-1:]])


def _simplify(chain: np.ndarray, tolerance: float) -> np.ndarray:
    if len(chain) < 3:
        return chain
    return cv2.approxPolyDP(chain.astype(np.int32, copy=False), tolerance, False)[:, 0]


def _crossing(chains: Sequence[np.ndarray]) -> np.ndarray:
    """Which chains cross or touch another or themselves, but at their ends: bool `(n,)`."""
    begin = np.concatenate([chain[:-1] for chain in chains]).astype(np.int64)  # products of them follow
    end = np.concatenate([chain[1:] for chain in chains]).astype(np.int64)
    of_chain = np.repeat(np.arange(len(chains)), [len(chain) - 1 for chain in chains])
    crossing = np.zeros(len(chains), bool)
    for one, other in _near_pairs(begin, end):
        meet = _meet(begin[one], end[one], begin[other], end[other])
        crossing[of_chain[one[meet]]] = crossing[of_chain[other[meet]]] = True
    return crossing


def _near_pairs(begin: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of segments that pass through the same small square; every pair that meets is among them."""
    squares, segments = [], []
    for first in range(0, len(begin), _AT_ONCE):
        square, segment = _squares(begin[first : first + _AT_ONCE], end[first : first + _AT_ONCE])
        squares.append(square)
        segments.append((segment + first).astype(np.int32))
    square, segment = np.concatenate(squares), np.concatenate(segments)
    order = np.argsort(square, kind="stable")
    square, segment = square[order], segment[order]
    for apart in count(1):
        together = np.flatnonzero(square[apart:] == square[:-apart])
        if not len(together):
            return
        one, other = segment[together], segment[together + apart]
        yield one[one != other], other[one != other]


def _squares(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The small squares that segments pass through, a number each, and the segment of each."""
    times = np.ceil(np.abs(end - begin).max(axis=1) / (_CELL - 1)).astype(np.int64)
    segment = np.repeat(np.arange(len(begin)), times)
    step = np.arange(len(segment)) - np.repeat(np.cumsum(times) - times, times)
    along = (end - begin)[segment] / times[segment, None]
    start = begin[segment] + along * step[:, None]
    low = np.floor((np.minimum(start, start + along) - 1e-3) / _CELL).astype(np.int64)
    high = np.floor((np.maximum(start, start + along) + 1e-3) / _CELL).astype(np.int64)
    squares, segments = [], []
    for shift in product((0, 1), repeat=2):
        inside = (low + shift <= high).all(axis=1)
        squares.append((low[inside] + shift) @ [1, 1 << 31])
        segments.append(segment[inside])
    return np.concatenate(squares), np.concatenate(segments)


def _meet(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether the segments from a to b and from c to d, whole numbers `(M, 2)`, meet in more than a common end."""
    boxes = (np.minimum(a, b) <= np.maximum(c, d)) & (np.minimum(c, d) <= np.maximum(a, b))
    meet = boxes.all(axis=1)
    meet &= _side(a, b, c) * _side(a, b, d) <= 0
    meet &= _side(c, d, a) * _side(c, d, b) <= 0
    for shared, u, v in ((a == c, b, d), (a == d, b, c), (b == c, a, d), (b == d, a, c)):
        common = shared.all(axis=1)
        corner = np.where(shared, a, 0) if u is b else np.where(shared, b, 0)
        ahead = ((u - corner) * (v - corner)).sum(axis=1) > 0
        meet[common] &= (_side(corner, u, v) == 0)[common] & ahead[common]
    return meet


def _side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """On which side of the line from a to b the points c lie: -1, 0 or 1."""
    (x, y), (u, v) = (b - a).T, (c - a).T
    return np.sign(x * v - y * u)
