"""Calibration: is a network right as often as it is sure?"""

import numpy as np

from semseg import IGNORE
from semseg.errors import SemsegError
from semseg.metrics.confusion import divide

NUM_BINS = 15  # of confidence


def calibration_bins(
    truth: np.ndarray, prediction: np.ndarray, confidence: np.ndarray, bins: int = NUM_BINS
) -> np.ndarray:
    """Counts by confidence, to hold what the network claims against how often it is right; images add up.

    Bin b of B holds confidences above b / B up to and including (b + 1) / B; 0 stands in the first.

    Args:
        truth: Integer class ids of any shape, 255 to leave a pixel out.
        prediction: Integer class ids of the same shape.
        confidence: Float probability of the predicted class, 0 to 1, of the same shape.
        bins: B.

    Returns:
        float64 `(3, B)`: pixels, those of them that are right, and the sum of their confidences.

    Raises:
        SemsegError: The shapes differ, there is no bin, or a confidence is not within 0 to 1.

    Example:
        >>> truth, prediction = np.array([0, 1, 1, 255]), np.array([0, 1, 0, 0])
        >>> calibration_bins(truth, prediction, np.array([0.5, 0.9, 0.6, 0.8]), bins=2)
        array([[1. , 2. ],
               [1. , 1. ],
               [0.5, 1.5]])

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.
    """
    if not truth.shape == prediction.shape == confidence.shape or bins < 1:
        raise SemsegError(
            f"calibration_bins: got {truth.shape}, {prediction.shape}, {confidence.shape} and {bins} bins; "
            "expected three arrays of one shape and at least one bin"
        )
    counted = truth != IGNORE
    values = confidence[counted].astype(np.float64)
    if values.size and not -1e-5 <= values.min() <= values.max() <= 1 + 1e-5:  # float32's softmax may exceed 1
        raise SemsegError(
            f"calibration_bins: got confidences {values.min():g} to {values.max():g}; expected 0 to 1: give "
            "probabilities, not logits"
        )
    index = np.clip(np.ceil(values * bins).astype(np.intp) - 1, 0, bins - 1)
    hits = truth[counted] == prediction[counted]
    return np.stack([np.bincount(index, weights, bins) for weights in (None, hits, values)])


def expected_calibration_error(bins: np.ndarray) -> float:
    """Mean over the pixels of |accuracy - mean confidence| of a pixel's bin.

    Args:
        bins: `(3, B)` from `calibration_bins`, or a sum of such.

    Returns:
        The error, 0 to 1; NaN without pixels.

    Example:
        >>> expected_calibration_error(np.array([[1, 2], [1, 1], [0.5, 1.5]]))  # (|1 - .5| + |1 - 1.5|) / 3
        0.3333333333333333

    Reference: Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    pixels, hits, confidence = bins
    return float(divide(np.abs(hits - confidence).sum(), pixels.sum()))
