"""What resizing does to thin things: how wide the classes of masks are, and in how many pieces before and after."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from semseg.images.resizing import resize_mask

_MAX_THIN = 3.0  # pixels: what stays wider than this is not torn
_MAX_COUNTED = 6.0  # pixels: of what is nowhere narrower than this the pieces are not counted
_KEPT = 2.0  # pixels: a class as wide stays in its pieces, also where it is thinner than on average
_TORN = 1.0  # pixels
_MIN_GROWTH = 1.5  # times as many pieces: those of wider classes grow by at most 3 % in real sets
_HOLLOW, _MIN_HOLE = 0.5, 20  # share of what a closed line encloses that is not drawn; pixels
_MIN_LOOPS, _LOOPS = 8, 0.7  # pieces, and the share of them that are closed lines, of a class that is drawn as outlines
_MULTIPLE = 32  # networks take sides that are multiples of it


def measure_thinness(ids: np.ndarray, num_classes: int, image_size: tuple[int, int]) -> dict[str, list]:
    """Measures how wide classes are, and into how many pieces resizing tears those that become thin.

    Args:
        ids: uint8 `(H, W)`, 0 to K-1 or 255.
        num_classes: K.
        image_size: (height, width) that the network sees.

    Returns:
        Lists of length K. `"widths"`: mean width in pixels of the mask, area over half the outline; that of a long
        strip is its width, that of a disc half its diameter; 0 where the class is absent. `"seen_widths"`: the same in
        pixels of the resized mask, along its more strongly shrunk side. `"pieces"` and `"seen_pieces"`: connected
        components (8 neighbours) in the mask and in the resized one, 0 for classes that are absent or far from thin.
        `"loops"`: those in the mask that are closed lines round one area.

    Example:
        >>> ids = np.zeros((8, 8), np.uint8)
        >>> ids[:, 2] = 1  # a line of one pixel, which falls between the four columns that are left
        >>> thinness = measure_thinness(ids, 2, (4, 4))
        >>> thinness["pieces"], thinness["seen_pieces"]
        ([2, 1], [1, 0])
    """
    widths = mean_widths(ids)[:num_classes]
    seen_widths = widths * min(new / old for new, old in zip(image_size, ids.shape, strict=True))
    small = resize_mask(ids, image_size)
    pieces, loops, seen_pieces = ([0] * num_classes for _ in range(3))
    for k in np.flatnonzero((widths > 0) & (np.minimum(widths, seen_widths) < _MAX_COUNTED)):
        pieces[k], loops[k] = _count_pieces_and_loops(ids == k)
        seen_pieces[k] = _count_pieces(small == k)
    return {"widths": widths.round(3).tolist(), "seen_widths": seen_widths.round(3).tolist(),
            "pieces": pieces, "loops": loops, "seen_pieces": seen_pieces}  # fmt: skip


@dataclass(frozen=True)
class ClassWidth:
    """How wide a class is in all masks that were measured, each pixel of it counting the same.

    Attributes:
        width: In pixels of the masks; 0 where no mask holds the class.
        seen_width: In pixels of what the network sees.
        pieces: Connected components in those masks in which it is not far from thin.
        seen_pieces: The same in the resized masks.
        loops: Pieces that are closed lines round one area, as outlines of objects are.
    """

    width: float
    seen_width: float
    pieces: int
    seen_pieces: int
    loops: int = 0

    @property
    def is_outline(self) -> bool:
        """Whether the class is drawn round things, not on them. A net of roads or membranes has no such pieces."""
        return self.pieces >= _MIN_LOOPS and self.loops > _LOOPS * self.pieces

    @property
    def is_torn(self) -> bool:
        """Whether resizing makes the class thinner than a pixel, or makes many pieces of what is thin."""
        is_broken = self.seen_width < _MAX_THIN and self.seen_pieces > _MIN_GROWTH * self.pieces
        return self.width > 0 and (self.seen_width < _TORN or is_broken) and self.seen_width < self.width

    def kept_by(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """The smallest (height, width) for a network at which the class is two pixels wide, in the photos' proportions.

        Args:
            size: (height, width) of the photos.

        Returns:
            Multiples of 32; None where that would be no smaller than the photos.

        Example:
            >>> ClassWidth(width=4.0, seen_width=0.85, pieces=12, seen_pieces=57).kept_by((600, 900))
            (320, 480)
        """
        enough = tuple(_MULTIPLE * math.ceil(side * _KEPT / self.width / _MULTIPLE) for side in size)
        return (enough[0], enough[1]) if enough[0] < size[0] and enough[1] < size[1] else None


def class_widths(counts: np.ndarray, measured: Sequence[dict[str, list]]) -> list[ClassWidth]:
    """Sums up what was measured of single masks.

    Args:
        counts: Pixels of each class in each of the masks, integers `(N, K)`.
        measured: What `measure_thinness` returned for each.
    """
    columns = {name: np.array([values[name] for values in measured]) for name in measured[0]}  # (N, K) each
    held = columns["widths"] > 0
    area = np.where(held, counts, 0)
    # Area over half the outline, of all masks together.
    lengths, seen_lengths = (
        np.divide(area, columns[name], where=held, out=np.zeros(area.shape)).sum(axis=0)
        for name in ("widths", "seen_widths")
    )
    widths, seen_widths = (area.sum(axis=0) / np.maximum(length, 1e-9) for length in (lengths, seen_lengths))
    counted = zip(*(columns[name].sum(axis=0).tolist() for name in ("pieces", "seen_pieces", "loops")), strict=True)
    return [
        ClassWidth(float(width), float(seen), *numbers)
        for width, seen, numbers in zip(widths, seen_widths, counted, strict=True)
    ]


def _count_pieces_and_loops(members: np.ndarray) -> tuple[int, int]:
    contours, tree = cv2.findContours(members.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    areas = [cv2.contourArea(contour) for contour in contours]
    holes: dict[int, list[float]] = {i: [] for i, (_, _, _, parent) in enumerate(tree[0]) if parent < 0}
    for i, (_, _, _, parent) in enumerate(tree[0]):
        if parent >= 0:
            holes[parent].append(areas[i])
    loops = [len(found) == 1 and found[0] > max(_HOLLOW * areas[i], _MIN_HOLE) for i, found in holes.items()]
    return len(holes), sum(loops)


def _count_pieces(members: np.ndarray) -> int:
    return int(cv2.connectedComponents(members.view(np.uint8))[0]) - 1


def mean_widths(ids: np.ndarray) -> np.ndarray:
    """Area over half the outline of each id in a mask, uint8 `(H, W)`: float `(256,)`, 0 for ids that are absent.

    Lines across the mask in four directions meet outlines the more often the longer these are (Crofton's formula).
    """
    meetings = np.zeros(256)
    neighbours = {1.0: ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])),
                  0.5**0.5: ((ids[1:, 1:], ids[:-1, :-1]), (ids[1:, :-1], ids[:-1, 1:]))}  # fmt: skip
    for spacing, pairs in neighbours.items():
        for one, other in pairs:
            differs = one != other
            for side in (one, other):
                meetings += spacing * np.bincount(side[differs], minlength=256)
    area = np.bincount(ids.ravel(), minlength=256)
    outline = np.maximum(np.pi / 8 * meetings, 2 * area / max(ids.shape))  # nothing is wider than the mask
    return np.divide(2 * area, outline, out=np.zeros(256), where=area > 0)
