"""How well the borders between classes are met: Boundary IoU and boundary F, from counts that add up over images.

Distances are chessboard distances in pixels: the eight neighbours of a pixel are at distance 1. A pixel is near the
border, to a distance d, when a counted pixel of another class lies at most d away from it. The edge of the image is no
border, and nor is that of an ignored region: nobody knows what lies beyond. There the published code of Boundary IoU
differs, which takes the edge of the image for a border; away from it and from ignored pixels the bands are the same.
"""

import math

import cv2
import numpy as np

from semseg import IGNORE
from semseg.errors import SemsegError

_SHARE_OF_DIAGONAL = 0.0075

NUM_BOUNDARY_COUNTS = 6  # rows of `boundary_counts`


def boundary_distance(size: tuple[int, int]) -> int:
    """The usual distance for an image of this size: .75 % of its diagonal, rounded, at least 1 pixel.

    That is Csurka's tolerance; the DAVIS benchmark takes .8 %, Boundary IoU 2 %, and .5 % for Cityscapes.

    Args:
        size: (height, width) in pixels.

    Returns:
        Chessboard distance in pixels.

    Example:
        >>> boundary_distance((256, 256)), boundary_distance((1024, 2048)), boundary_distance((20, 20))
        (3, 17, 1)

    Reference: Csurka et al. 2013, What is a good evaluation measure for semantic segmentation?, BMVC.
    """
    return max(1, round(_SHARE_OF_DIAGONAL * math.hypot(*size)))


def boundary_counts(truth: np.ndarray, prediction: np.ndarray, num_classes: int, distance: int) -> np.ndarray:
    """Counts the pixels near borders, and those on them, in truth and prediction; images add up.

    Args:
        truth: Integer class ids `(H, W)`, 0 to K-1, or 255 to leave a pixel out, in both maps.
        prediction: Integer class ids `(H, W)`, 0 to K-1.
        num_classes: K, at most 255.
        distance: Chessboard distance d in pixels, at least 1: see `boundary_distance`.

    Returns:
        int64 `(6, K)`, for each class: pixels of it that are within d of a border in truth and in prediction; in either
        of them; pixels on its border (within 1) in truth that have one of its border in prediction within d; all those
        on its border in truth; and the last two with truth and prediction swapped.

    Raises:
        SemsegError: The shapes differ or are not `(H, W)`, an id is out of range, or the distance is below 1.

    Example:
        >>> truth, prediction = np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 1, 1, 1, 1]])
        >>> boundary_counts(truth, prediction, 2, distance=1).T
        array([[0, 2, 1, 1, 1, 1],
               [0, 2, 1, 1, 1, 1]])
    """
    maps = _as_uint8(truth, prediction, num_classes, distance)
    truth, prediction = maps
    bands = [_near_border(ids, distance) for ids in maps]
    both = _count(truth, bands[0] & bands[1] & (truth == prediction), num_classes)
    truth_band, prediction_band = (_count(ids, band, num_classes) for ids, band in zip(maps, bands, strict=True))
    truth_line, prediction_line = (np.where(_near_border(ids, 1), ids, IGNORE) for ids in maps)
    matched, on_border = _match_lines(truth_line, prediction_line, num_classes, distance)
    return np.stack([both, truth_band + prediction_band - both, matched[0], on_border[0], matched[1], on_border[1]])


def boundary_scores(counts: np.ndarray) -> dict[str, float | np.ndarray]:
    """Boundary IoU and boundary F of each class, and their means over the classes.

    Boundary IoU is the IoU of the inner bands along the borders. Boundary F is the harmonic mean of the share of the
    predicted border that lies within d of the true one, and of the true border that lies within d of the predicted one.

    Args:
        counts: `(6, K)` from `boundary_counts`, or a sum of such.

    Returns:
        `boundary_iou` and `boundary_f`, float64 `(K,)`, 0 to 1, NaN where a class has no border in truth and
        prediction; `macro_boundary_iou` and `macro_boundary_f`, their means over the other classes, NaN without any.

    Example:
        >>> scores = boundary_scores(np.array([[3, 0], [4, 0], [2, 0], [4, 0], [3, 0], [3, 0]]))
        >>> scores["boundary_iou"], round(scores["macro_boundary_f"], 3)  # precision 1, recall .5
        (array([0.75,  nan]), 0.667)

    References: Cheng et al. 2021, Boundary IoU, https://arxiv.org/abs/2103.16562. Csurka et al. 2013, BMVC. Perazzi et
        al. 2016, A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR. Both of the latter
        score each image alone and take the mean; here a class' counts over all images give its score.
    """
    both, either, matched_truth, on_truth, matched_prediction, on_prediction = np.asarray(counts, np.float64)
    recall = matched_truth / np.maximum(on_truth, 1)
    precision = matched_prediction / np.maximum(on_prediction, 1)
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    per_class = {
        "boundary_iou": np.where(either > 0, both / np.maximum(either, 1), np.nan),
        "boundary_f": np.where(on_truth + on_prediction > 0, f, np.nan),
    }
    result: dict[str, float | np.ndarray] = {**per_class}
    for name, values in per_class.items():
        numbers = values[~np.isnan(values)]
        result[f"macro_{name}"] = float(numbers.mean()) if numbers.size else float("nan")
    return result


def _as_uint8(truth: np.ndarray, prediction: np.ndarray, num_classes: int, distance: int) -> tuple[np.ndarray, ...]:
    """Both maps as uint8, with the ignored pixels 255 in both."""
    if truth.ndim != 2 or truth.shape != prediction.shape:
        raise SemsegError(f"boundary_counts: got {truth.shape} and {prediction.shape}; expected (H, W) twice")
    if distance < 1 or not 1 <= num_classes <= IGNORE:
        raise SemsegError(f"boundary_counts: got {distance=}, {num_classes=}; expected at least 1, and 1 to {IGNORE}")
    counted = truth != IGNORE
    maps = [np.where(counted, ids, IGNORE) for ids in (truth, prediction)]
    for what, ids in zip(("truth", "prediction"), maps, strict=True):
        wrong = ids[((ids < 0) | (ids >= num_classes)) & counted]
        if wrong.size:
            raise SemsegError(f"boundary_counts: the {what} holds the id {wrong[0]}; expected 0 to {num_classes - 1}")
    return tuple(np.ascontiguousarray(ids, np.uint8) for ids in maps)


def _near_border(ids: np.ndarray, distance: int) -> np.ndarray:
    """Bool `(H, W)`: counted pixels with a counted one of another class, so of a higher or lower id, within reach."""
    square = _square(distance)
    higher = cv2.dilate(np.where(ids == IGNORE, np.uint8(0), ids), square) > ids
    lower = cv2.erode(ids, square) < ids  # 255 is never the lower one
    return (higher | lower) & (ids != IGNORE)


def _square(distance: int) -> np.ndarray:
    return np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)


def _count(ids: np.ndarray, chosen: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(ids[chosen], minlength=num_classes)


def _match_lines(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Per class, of the lines of truth and prediction: pixels with one of the other line within reach, and all."""
    on_border = np.stack([_count(line, line != IGNORE, num_classes) for line in (truth, prediction)])
    matched, square = np.zeros_like(on_border), _square(distance)
    for k in np.flatnonzero(on_border.all(axis=0)):
        lines = [(line == k).view(np.uint8) for line in (truth, prediction)]
        for row in (0, 1):
            matched[row, k] = cv2.countNonZero(lines[row] & cv2.dilate(lines[1 - row], square))
    return matched, on_border
