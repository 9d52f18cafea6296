"""Scores from one confusion matrix over a whole split: rows truth, columns prediction, ignored pixels left out."""

import keras
import numpy as np
from keras import KerasTensor, ops

from semseg import IGNORE
from semseg.errors import SemsegError


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


PER_CLASS_SCORES = ("sensitivity", "specificity", "dice", "iou")


def scores(matrix: np.ndarray) -> dict[str, float | np.ndarray]:
    """All scores of a confusion matrix.

    With TP, FP, FN, TN counted for each class against all others: sensitivity TP / (TP + FN), specificity
    TN / (TN + FP), Dice 2 TP / (2 TP + FP + FN), IoU TP / (TP + FP + FN). Macro is the mean over the classes, micro the
    score of the summed counts; accuracy is the share of counted pixels that are right.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction.

    Returns:
        `accuracy`; for each name in `PER_CLASS_SCORES` the array `name` `(K,)` and the numbers `macro_name` and
        `micro_name`. A score that would be 0 / 0 is NaN and left out of the macro mean: a class absent from truth and
        prediction has no Dice and no IoU.

    Example:
        >>> result = scores(np.array([[3, 1], [0, 4]]))
        >>> result["accuracy"], result["iou"]
        (0.875, array([0.75, 0.8 ]))
    """
    true_positive = np.diag(matrix).astype(np.float64)
    false_negative = matrix.sum(axis=1) - true_positive
    false_positive = matrix.sum(axis=0) - true_positive
    true_negative = matrix.sum() - true_positive - false_negative - false_positive
    counts = np.stack([true_positive, false_positive, false_negative, true_negative])

    result: dict[str, float | np.ndarray] = {"accuracy": float(_divide(true_positive.sum(), matrix.sum()))}
    per_class, micro = _scores_of_counts(*counts), _scores_of_counts(*counts.sum(axis=1))
    for name in PER_CLASS_SCORES:
        values = per_class[name]
        result[name] = values
        result[f"macro_{name}"] = float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        result[f"micro_{name}"] = float(micro[name])
    return result


def _scores_of_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "sensitivity": _divide(tp, tp + fn),
        "specificity": _divide(tn, tn + fp),
        "dice": _divide(2 * tp, 2 * tp + fp + fn),
        "iou": _divide(tp, tp + fp + fn),
    }


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
        cell = ops.where(truth == IGNORE, k * k, truth * k + prediction)
        counts = ops.segment_sum(ops.ones_like(cell), cell, num_segments=k * k + 1)[: k * k]
        low = self.low + ops.reshape(counts, (k, k))
        carry = ops.right_shift(low, self._HALF)
        self.high.assign(self.high + carry)
        self.low.assign(low - ops.left_shift(carry, self._HALF))

    def result(self) -> dict[str, KerasTensor]:
        """Returns accuracy and mean IoU (over the classes present) so far, 0 to 1; NaN before any pixel counted."""
        matrix = ops.cast(self.high, "float32") * 2.0**self._HALF + ops.cast(self.low, "float32")
        hits = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - hits
        iou = hits / ops.maximum(union, 1.0)
        present = ops.cast(union > 0, "float32")
        counted = ops.sum(matrix)
        accuracy = ops.sum(hits) / ops.maximum(counted, 1.0)
        mean_iou = ops.sum(iou * present) / ops.maximum(ops.sum(present), 1.0)
        return {
            "accuracy": ops.where(counted > 0, accuracy, float("nan")),
            "mean_iou": ops.where(counted > 0, mean_iou, float("nan")),
        }

    def matrix(self) -> np.ndarray:
        """Returns the matrix itself, int64 `(K, K)`."""
        low, high = (ops.convert_to_numpy(half).astype(np.int64) for half in (self.low, self.high))
        return (high << self._HALF) + low


def class_ids(logits: KerasTensor) -> KerasTensor:
    """Class ids, int32 `(N, H, W)`: the largest of K logits, or whether the single logit is above 0."""
    if logits.shape[-1] == 1:
        return ops.cast(logits[..., 0] > 0, "int32")
    return ops.cast(ops.argmax(logits, axis=-1), "int32")
