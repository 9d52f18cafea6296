"""Calibration: is a network right as often as it is sure?"""

import numpy as np

from semseg import IGNORE
from semseg.errors import SemsegError
from semseg.metrics.confusion import divide

NUM_BINS = 15  # of confidence
THRESHOLDS = np.arange(1, 100) / 100  # of the probability of the second of two classes, to choose from
MAX_TEMPERATURE = 20.0  # and its inverse the least


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


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The number that logits are to be divided by, so that the negative log likelihood of the truth is least.

    It is convex in the inverse of the temperature, whose slope, the mean of sum_k p_k z_k - z_truth, is 0 at the
    minimum.

    Args:
        logits: Float `(N, K)`, or `(N, 1)` of two classes.
        truth: Integer class ids `(N,)`, 0 to K-1; at least one.

    Returns:
        0.05 to 20: the limits where more would be still better, as of a network that is never wrong.

    Example:
        >>> logits = np.array([[3.0], [3.0], [3.0], [3.0]])  # sure by 95 %, and right three times of four
        >>> temperature = fit_temperature(logits, np.array([1, 1, 1, 0]))
        >>> bool(np.isclose(1 / (1 + np.exp(-3 / temperature)), 0.75))
        True

    Reference: Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2.
    """
    scores = np.asarray(logits, np.float64)
    if scores.shape[-1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=-1)
    scores = scores - scores.max(axis=-1, keepdims=True)
    of_truth = np.take_along_axis(scores, np.asarray(truth, np.intp)[:, None], axis=-1).mean()

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * scores)
        return float(((weights * scores).sum(axis=-1) / weights.sum(axis=-1)).mean() - of_truth)

    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)  # of the inverse
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(np.exp(middle)) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def threshold_counts(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What `best_threshold` needs of one photo.

    Args:
        probabilities: Float `(N,)` of the second of two classes, 0 to 1.
        truth: Integer class ids `(N,)`, 0 or 1.

    Returns:
        float64 `(3, 99)`: for each of `THRESHOLDS` the pixels of the second class above it, all pixels above it, and
        those of the second class.
    """
    above = np.searchsorted(THRESHOLDS, probabilities, side="left")  # of how many thresholds each is above
    hits, positives = (
        np.bincount(above, weights, 1 + len(THRESHOLDS))[:0:-1].cumsum()[::-1] for weights in (truth == 1, None)
    )
    return np.stack([hits, positives, np.full(len(THRESHOLDS), np.count_nonzero(truth == 1))])


def best_threshold(counts: np.ndarray, seed: int = 0) -> float:
    """The threshold nearest to 0.5 whose Dice of the second class, and so its IoU, is as good as the highest.

    As good: within one standard error of the difference, by drawing the photos anew. Few photos prefer one threshold
    by chance, and others pay for it.

    Args:
        counts: Of each photo `threshold_counts`, `(n, 3, 99)`.
        seed: Of the draws.

    Returns:
        One of `THRESHOLDS`; 0.5 where no pixel is of the second class.

    Example:
        >>> probabilities, truth = np.array([0.1, 0.33, 0.38, 0.9]), np.array([0, 1, 1, 1])
        >>> best_threshold(np.stack([threshold_counts(probabilities, truth)]))
        0.32

    Reference: Breiman et al. 1984, Classification and Regression Trees, section 3.4.3: the rule of one standard error.
    """
    dice = _dice(counts.sum(axis=0))
    if np.isnan(dice).all() or not counts[:, 2].any():
        return 0.5
    best = int(np.nanargmax(dice))
    drawn = np.random.default_rng(seed).integers(0, len(counts), (500, len(counts)))
    differences = np.stack([dice_of[best] - dice_of for dice_of in (_dice(counts[i].sum(axis=0)) for i in drawn)])
    as_good = np.flatnonzero(dice[best] - dice <= np.nanstd(differences, axis=0) + 1e-12)
    return float(THRESHOLDS[as_good[np.abs(THRESHOLDS[as_good] - 0.5).argmin()]])


def _dice(counts: np.ndarray) -> np.ndarray:
    """`(3, 99)` to the Dice at each threshold, NaN without such pixels."""
    hits, positives, there = counts
    return divide(2 * hits, positives + there)
