"""Objects of a mask: connected pieces of chosen classes, measured and outlined."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semseg import IGNORE
from semseg.labels.borders import outlines_of
from semseg.labels.cleaning import bands_of
from semseg.labels.pieces import Pieces, find_pieces

TOLERANCE = 0.4  # pixels: by .5, a class of thin poles (CamVid) overlaps itself by .95, by .4 by more than .99


@dataclass(frozen=True, eq=False)
class Object:
    """One connected piece of a mask.

    Coordinates are (x, y) in pixels; the first pixel of the mask covers 0 to 1.

    Attributes:
        class_id: Its class.
        area: Its pixels.
        box: (left, top, width, height).
        centroid: The mean of its pixels' centres.
        circumference: Length of its outer outline, in pixels, simplified as by default.
        probability: The mean over its pixels of what was given as their certainty; NaN where nothing was.
        touches_border: Whether a pixel of it lies at the border of the mask, so that it may go on beyond.
        rings: Its outlines, float64 `(M, 2)` each: the outer one, clockwise as one sees it, then its holes.
    """

    class_id: int
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    circumference: float
    probability: float
    touches_border: bool
    rings: tuple[np.ndarray, ...]


def find_objects(
    mask: np.ndarray,
    classes: Sequence[int] | None = None,
    *,
    certainty: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> list[Object]:
    """Finds the objects of a mask: pieces of one class whose pixels share edges.

    Args:
        mask: uint8 ids `(H, W)`; 255 is no class.
        classes: Ids of the classes that are wanted; None for all but 0.
        certainty: The probability of each pixel's class, float `(H, W)`, for the mean over each object.
        tolerance: Pixels by which outlines may be simplified; 0 for the borders of pixels as they are. Outlines neither
            cross nor touch themselves, and those of two objects do not overlap.

    Returns:
        The objects, in the order in which one meets them row by row.

    Example:
        >>> mask = np.zeros((4, 6), np.uint8)
        >>> mask[1:3, 1:4] = 1
        >>> [found] = find_objects(mask, tolerance=0)
        >>> found.area, found.box, found.centroid, found.touches_border
        (6, (1, 1, 3, 2), (2.5, 2.0), False)
        >>> found.rings[0].tolist()
        [[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]]
    """
    weights = None if certainty is None else bands_of(certainty)
    pieces = find_pieces(bands_of(mask), mask.shape[1], weights)
    wanted = range(1, IGNORE) if classes is None else classes
    return objects_of(pieces, wanted, tolerance=tolerance, with_certainty=certainty is not None)


def objects_of(
    pieces: Pieces, classes: Sequence[int], *, tolerance: float = TOLERANCE, with_certainty: bool = True
) -> list[Object]:
    """The objects among the pieces of a mask; as `find_objects`, for masks that are read band by band.

    Args:
        pieces: Of the mask, their weights being the certainty of each pixel.
        classes: Ids of the classes that are wanted.
        tolerance: Pixels by which outlines may be simplified.
        with_certainty: Whether the weights say something.
    """
    wanted = np.isin(pieces.classes, classes)
    outlines = outlines_of(pieces, wanted, tolerance)
    usual = outlines if tolerance == TOLERANCE else outlines_of(pieces, wanted, TOLERANCE)
    boxes = pieces.boxes[wanted]
    boxes[:, 2:] -= boxes[:, :2]
    certainty = pieces.mean_weights[wanted] if with_certainty else np.full(len(boxes), np.nan)
    columns = zip(
        pieces.classes[wanted].tolist(), pieces.areas[wanted].tolist(), boxes.tolist(),
        pieces.centroids[wanted].tolist(), usual, certainty.tolist(), pieces.touch_border[wanted].tolist(), outlines,
        strict=True,
    )  # fmt: skip
    return [
        Object(i, area, tuple(box), tuple(centroid), _length(smooth[0]), probability, touches, tuple(rings))
        for i, area, box, centroid, smooth, probability, touches, rings in columns
    ]


def _length(ring: np.ndarray) -> float:
    return float(np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).sum())
