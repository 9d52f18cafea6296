"""Masks to outlines and run lengths, and the outlines of circles and lines."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np

from semseg.labels.drawings import Runs

_MAX_ERROR = 0.02  # pixels between a circle and the polygon that stands for it
_MAX_CORNERS = 4096  # of such a polygon


def ellipse_ring(center: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> np.ndarray:
    """The outline of an ellipse.

    Args:
        center: (x, y).
        radii: Along its own two axes, in pixels.
        degrees: By how much it is turned, clockwise as one sees it.

    Returns:
        float64 `(P, 2)` of (x, y).
    """
    corners = np.pi * np.sqrt(max(*np.abs(radii), 1.0) / _MAX_ERROR)
    angles = np.linspace(0, 2 * np.pi, min(int(corners) + 1, _MAX_CORNERS), endpoint=False)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.stack([center[0] + x * cos - y * sin, center[1] + x * sin + y * cos], axis=1)


def rectangle_ring(corner: tuple[float, float], opposite: tuple[float, float]) -> np.ndarray:
    """The outline of an upright rectangle between two opposite corners (x, y): float64 `(4, 2)`."""
    (x0, y0), (x1, y1) = corner, opposite
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def line_rings(points: np.ndarray, width: float) -> list[np.ndarray]:
    """Outlines that together cover a thick line with round ends.

    Args:
        points: (x, y), float `(P, 2)`.
        width: In pixels.

    Returns:
        float64 `(M, 2)` each, to be filled one after the other.
    """
    rings = [ellipse_ring((x, y), (width / 2, width / 2)) for x, y in points.tolist()]
    for start, end in pairwise(points):
        length = float(np.hypot(*(end - start)))
        if length:
            side = np.array([start[1] - end[1], end[0] - start[0]]) * (width / 2 / length)
            rings.append(np.array([start + side, end + side, end - side, start - side]))
    return rings


def runs_of_mask(inside: np.ndarray, origin: tuple[int, int] | None = None) -> Runs:
    """The run lengths of a mask.

    Args:
        inside: bool `(h, w)`.
        origin: (row, column) of its upper left pixel in the photo; None where it is a mask of the whole photo.

    Example:
        >>> runs_of_mask(np.array([[0, 1], [1, 1]], bool)).counts
        array([1, 3])
    """
    flat = np.concatenate([[False], inside.T.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [inside.size]]))
    counts = counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts
    return Runs(counts.astype(np.int64), inside.shape, origin or (0, 0))


def pieces_of(inside: np.ndarray) -> Iterator[np.ndarray]:
    """The outline of each connected piece of a mask, along the borders of its pixels.

    Where a piece has holes, its outline runs to each of them and back along one straight line. By the even-odd rule
    that line encloses nothing, so that formats without holes can hold it, and filling gives back the piece exactly.

    Args:
        inside: bool `(H, W)`.

    Yields:
        Whole numbers as float64 `(P, 2)` of (x, y).
    """
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=4)
    for number, (left, top, width, height, _) in enumerate(boxes.tolist()[1:], start=1):
        piece = labels[top : top + height, left : left + width] == number
        loops = list(_loops(piece))
        start = loops[0][:1]
        closed = [part for loop in loops[1:] for part in (loop, loop[:1], start)]
        yield np.concatenate([loops[0], *([start, *closed[:-1]] if closed else [])]) + np.array([left, top], float)


def with_bridges(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One outline in place of an outer one and holes, which runs to each hole and back along the same straight line.

    Args:
        rings: float64 `(M, 2)` each, the outer one first.

    Returns:
        float64 `(P, 2)`; by the even-odd rule it encloses what the rings do.
    """
    joined = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: float(ring[:, 0].min())):
        hole = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)
        at = int(np.square(joined - hole[0]).sum(axis=1).argmin())
        joined = np.concatenate([joined[: at + 1], hole, hole[:1], joined[at:]])
    return joined


def _loops(piece: np.ndarray) -> Iterator[np.ndarray]:
    """The closed lines around a mask and its holes, by their corners."""
    padded = np.pad(piece, 1).astype(np.int8)
    around = padded[:-1, :-1] + padded[:-1, 1:] + padded[1:, :-1] + padded[1:, 1:]
    diagonal = (around == 2) & (padded[:-1, :-1] == padded[1:, 1:])
    rows, columns = np.nonzero((around % 2 == 1) | diagonal)
    repeats = np.where(diagonal[rows, columns], 2, 1)  # two corners meet where pixels touch at a point
    corners = np.stack([columns, rows], axis=1).repeat(repeats, axis=0)
    beside, above = _partners(corners, 1), _partners(corners, 0)
    unseen = np.ones(len(corners), bool)
    for first in range(len(corners)):
        loop, at = [], first
        while unseen[at]:
            loop += [at, beside[at]]
            unseen[[at, beside[at]]] = False
            at = above[beside[at]]
        if loop:
            yield corners[loop].astype(float)


def _partners(corners: np.ndarray, axis: int) -> np.ndarray:
    """Of each corner the one at the other end of its straight line, along which the other coordinate is the same."""
    order = np.lexsort((corners[:, 1 - axis], corners[:, axis]))
    partners = np.empty(len(corners), np.int64)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners
