"""Scores from one confusion matrix over a whole split: rows truth, columns prediction, ignored pixels left out."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import KerasTensor, ops

from semseg import IGNORE
from semseg.errors import SemsegError
from semseg.kernels import counts


def confusion_matrix(y_true: np.ndarray, y_pred: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each true class was predicted as each class.

    Args:
        y_true: Integer class ids of any shape, 0 to K-1, or 255 to leave a pixel out.
        y_pred: Integer class ids of the same shape, 0 to K-1.
        num_classes: K.

    Returns:
        int64 `(K, K)`; entry `[t, p]` counts the pixels of class t predicted as p.

    Raises:
        SemsegError: The shapes differ, or an id is out of range.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1, 255]), np.array([0, 1, 1, 0]), 2)
        array([[1, 1],
               [0, 1]])
    """
    if y_true.shape != y_pred.shape:
        raise SemsegError(f"confusion_matrix: got {y_true.shape} and {y_pred.shape}; expected two arrays of one shape")
    counted = y_true != IGNORE
    truth, prediction = y_true[counted].astype(np.int64), y_pred[counted].astype(np.int64)
    for what, ids in (("truth", truth), ("prediction", prediction)):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise SemsegError(
                f"confusion_matrix: the {what} holds ids {ids.min()} to {ids.max()}; expected 0 to {num_classes - 1}"
            )
    return np.bincount(truth * num_classes + prediction, minlength=num_classes**2).reshape(num_classes, num_classes)


PER_CLASS_SCORES = ("sensitivity", "specificity", "precision", "dice", "iou")


def scores(matrix: np.ndarray) -> dict[str, float | np.ndarray]:
    """All scores of a confusion matrix.

    With TP, FP, FN, TN counted for each class against all others: sensitivity TP / (TP + FN), specificity
    TN / (TN + FP), precision TP / (TP + FP), Dice 2 TP / (2 TP + FP + FN), IoU TP / (TP + FP + FN). Macro is the mean
    over the classes, micro the score of the summed counts, weighted the mean over the classes with the pixels of truth
    as weights; accuracy is the share of counted pixels that are right.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction.

    Returns:
        `accuracy`; for each name in `PER_CLASS_SCORES` the array `name` `(K,)` and the numbers `macro_name`,
        `micro_name` and `weighted_name`. A score that would be 0 / 0 is NaN and left out of the means: a class absent
        from truth and prediction has no Dice and no IoU, one that is never predicted no precision.

    Example:
        >>> result = scores(np.array([[3, 1], [0, 4]]))
        >>> result["accuracy"], result["iou"]
        (0.875, array([0.75, 0.8 ]))
    """
    true_positive, truth, predicted = class_counts(matrix).astype(np.float64)
    false_negative, false_positive = truth - true_positive, predicted - true_positive
    true_negative = truth.sum() - true_positive - false_negative - false_positive
    counts = np.stack([true_positive, false_positive, false_negative, true_negative])

    result: dict[str, float | np.ndarray] = {"accuracy": float(_divide(true_positive.sum(), truth.sum()))}
    per_class, micro = _scores_of_counts(*counts), _scores_of_counts(*counts.sum(axis=1))
    for name in PER_CLASS_SCORES:
        result[name] = per_class[name]
        result[f"macro_{name}"] = float(_mean(per_class[name]))
        result[f"micro_{name}"] = float(micro[name])
        result[f"weighted_{name}"] = float(_mean(per_class[name], truth))
    return result


def class_counts(matrix: np.ndarray) -> np.ndarray:
    """Per class true positives, pixels of truth and pixels predicted: all that accuracy, IoU and Dice need.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction.

    Returns:
        int64 `(3, K)`.

    Example:
        >>> class_counts(np.array([[3, 1], [0, 4]]))
        array([[3, 4],
               [4, 4],
               [3, 5]])
    """
    return np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])


def merge_classes(matrix: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """The confusion matrix of coarser classes: confusion within a group counts as right.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction.
        groups: For each of the K classes the number of its group, 0 to G-1.

    Returns:
        int64 `(G, G)`, with G one more than the largest number.

    Raises:
        SemsegError: Not one group of at least 0 per class.

    Example:
        >>> merge_classes(np.array([[5, 1, 0], [2, 6, 1], [0, 3, 7]]), [0, 0, 1])
        array([[14,  1],
               [ 3,  7]])
    """
    if len(groups) != len(matrix) or min(groups) < 0:
        raise SemsegError(f"merge_classes: got groups {list(groups)}; expected {len(matrix)} numbers of at least 0")
    belongs = np.eye(max(groups) + 1, dtype=np.int64)[list(groups)]
    return belongs.T @ matrix @ belongs


def bootstrap_intervals(
    counts: np.ndarray, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """How far the headline scores of a split may be off because it holds these images and not others.

    The percentile bootstrap: as many images as there are are drawn with replacement, their counts summed and scored,
    `draws` times; the interval runs between the quantiles that leave out (1 - level) / 2 on either side. Images count
    as independent draws, so frames of one video make it too narrow, and it says nothing of another training run.

    Args:
        counts: int `(N, 3, K)`, `class_counts` of every image.
        draws: How often to draw.
        level: Share of the draws inside the interval, above 0 and below 1.
        seed: Of the draws: the same seed gives the same intervals.

    Returns:
        For `accuracy`, `macro_iou`, `macro_dice` and `weighted_iou`, as in `scores`, the ends (low, high); NaN where
        no pixel counts. A single image gives its own score twice.

    Raises:
        SemsegError: No images, another shape, or draws or a level out of range.

    Example:
        >>> images = np.array([class_counts(np.array(m)) for m in ([[9, 1], [0, 4]], [[3, 3], [1, 2]])])
        >>> low, high = bootstrap_intervals(images)["accuracy"]
        >>> round(low, 3), round(high, 3)  # the worse image twice, the better one twice
        (0.556, 0.929)

    Reference: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    if counts.ndim != 3 or counts.shape[1] != 3 or not len(counts):
        raise SemsegError(f"bootstrap_intervals: got counts of shape {counts.shape}; expected (images, 3, classes)")
    if draws < 1 or not 0 < level < 1:
        raise SemsegError(f"bootstrap_intervals: got {draws=}, {level=}; expected at least 1, and between 0 and 1")
    rng = np.random.default_rng(seed)
    per_image = counts.reshape(len(counts), -1).astype(np.float64)  # sums are exact to 2^53
    chances = np.full(len(counts), 1 / len(counts))
    drawn = np.stack([rng.multinomial(len(counts), chances) @ per_image for _ in range(draws)])
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {
        name: tuple(float(end) for end in _quantiles(values, tails))
        for name, values in _headline_scores(drawn.reshape(draws, 3, -1)).items()
    }


def _headline_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores `(draws,)` of counts `(draws, 3, K)`."""
    hits, truth, predicted = np.moveaxis(counts, 1, 0)
    iou = _divide(hits, truth + predicted - hits)
    return {
        "accuracy": _divide(hits.sum(axis=-1), truth.sum(axis=-1)),
        "macro_iou": _mean(iou),
        "macro_dice": _mean(_divide(2 * hits, truth + predicted)),
        "weighted_iou": _mean(iou, truth),
    }


def _quantiles(values: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    known = values[~np.isnan(values)]
    return np.quantile(known, shares) if known.size else np.full(len(shares), np.nan)


def calibration_bins(truth: np.ndarray, prediction: np.ndarray, confidence: np.ndarray, bins: int = 15) -> np.ndarray:
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
    claimed = confidence[counted].astype(np.float64)
    if claimed.size and not -1e-5 <= claimed.min() <= claimed.max() <= 1 + 1e-5:  # float32's softmax may exceed 1
        raise SemsegError(
            f"calibration_bins: got confidences {claimed.min():g} to {claimed.max():g}; expected 0 to 1: give "
            "probabilities, not logits"
        )
    index = np.clip(np.ceil(claimed * bins).astype(np.intp) - 1, 0, bins - 1)
    hits = truth[counted] == prediction[counted]
    return np.stack([np.bincount(index, weights, bins) for weights in (None, hits, claimed)])


def expected_calibration_error(bins: np.ndarray) -> float:
    """Mean over the pixels of |accuracy - mean confidence| of a pixel's bin, 0 to 1; NaN without pixels.

    Args:
        bins: `(3, B)` from `calibration_bins`, or a sum of such.

    Example:
        >>> expected_calibration_error(np.array([[1, 2], [1, 1], [0.5, 1.5]]))  # (|1 - .5| + |1 - 1.5|) / 3
        0.3333333333333333

    Reference: Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    pixels, hits, confidence = bins
    return float(_divide(np.abs(hits - confidence).sum(), pixels.sum()))


def _scores_of_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "sensitivity": _divide(tp, tp + fn),
        "specificity": _divide(tn, tn + fp),
        "precision": _divide(tp, tp + fp),
        "dice": _divide(2 * tp, 2 * tp + fp + fn),
        "iou": _divide(tp, tp + fp + fn),
    }


def _mean(values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Weighted mean over the last axis of the values that are numbers; NaN without any."""
    weights = np.where(np.isnan(values), 0.0, weights)
    return _divide((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full_like(denominator, np.nan), where=denominator > 0)


class ConfusionMatrix(keras.metrics.Metric):
    """Gathers the confusion matrix on the device during `fit`; its results are accuracy and mean IoU.

    `update_state` takes class ids `(N, H, W)`, 255 ignored, and logits `(N, H, W, K)`, or `(N, H, W, 1)` for the binary
    task. Ids out of range would vanish silently on some backends: the data are checked before training.

    Args:
        num_classes: K; 2 for the binary task.
        name: Name of the metric.
    """

    # float32 stops counting at 2^24, int32 at 2^31, and JAX has no int64: two int32 halves count exactly to 2^61.
    _HALF = 30

    def __init__(self, num_classes: int, name: str = "confusion_matrix"):
        super().__init__(name=name)
        self.num_classes = num_classes
        shape = (num_classes, num_classes)
        self.low = self.add_weight(shape=shape, initializer="zeros", dtype="int32", name="low")
        self.high = self.add_weight(shape=shape, initializer="zeros", dtype="int32", name="high")

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: None = None) -> None:
        """Adds one batch."""
        k = self.num_classes
        truth = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        prediction = ops.reshape(class_ids(y_pred), (-1,))
        cells = counts(truth * k + prediction, k * k)  # IGNORE is above all ids: ignored pixels count nowhere
        low = self.low + ops.reshape(cells, (k, k))
        carry = ops.right_shift(low, self._HALF)
        self.high.assign(self.high + carry)
        self.low.assign(low - ops.left_shift(carry, self._HALF))

    def result(self) -> dict[str, KerasTensor]:
        """Returns accuracy and mean IoU (over the classes present) so far, 0 to 1; NaN before any pixel counted."""
        matrix = ops.cast(self.high, "float32") * 2.0**self._HALF + ops.cast(self.low, "float32")
        hits = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - hits
        absent = ops.cast(union == 0, "float32")
        iou = hits / (union + absent)  # 0 of absent classes
        return {"accuracy": ops.sum(hits) / ops.sum(matrix), "mean_iou": ops.sum(iou) / ops.sum(1 - absent)}

    def matrix(self) -> np.ndarray:
        """Returns the matrix itself, int64 `(K, K)`."""
        low, high = (ops.convert_to_numpy(half).astype(np.int64) for half in (self.low, self.high))
        return (high << self._HALF) + low


def class_ids(logits: KerasTensor) -> KerasTensor:
    """Class ids, int32 `(N, H, W)`: the largest of K logits, or whether the single logit is above 0."""
    if logits.shape[-1] == 1:
        return ops.cast(logits[..., 0] > 0, "int32")
    return ops.cast(ops.argmax(logits, axis=-1), "int32")
