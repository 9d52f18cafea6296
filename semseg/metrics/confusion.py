"""Scores from one confusion matrix over a whole split: rows truth, columns prediction, ignored pixels left out."""

from collections.abc import Sequence

import numpy as np

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

    result: dict[str, float | np.ndarray] = {"accuracy": float(divide(true_positive.sum(), truth.sum()))}
    per_class, micro = _scores_of_counts(*counts), _scores_of_counts(*counts.sum(axis=1))
    for name in PER_CLASS_SCORES:
        result[name] = per_class[name]
        result[f"macro_{name}"] = float(mean_of_numbers(per_class[name]))
        result[f"micro_{name}"] = float(micro[name])
        result[f"weighted_{name}"] = float(mean_of_numbers(per_class[name], truth))
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
    membership = np.eye(max(groups) + 1, dtype=np.int64)[list(groups)]  # (K, G): 1 where a class is in a group
    return membership.T @ matrix @ membership


def _scores_of_counts(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, tn: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "sensitivity": divide(tp, tp + fn),
        "specificity": divide(tn, tn + fp),
        "precision": divide(tp, tp + fp),
        "dice": divide(2 * tp, 2 * tp + fp + fn),
        "iou": divide(tp, tp + fp + fn),
    }


def mean_of_numbers(values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Weighted mean over the last axis of the values that are numbers, not NaN.

    Args:
        values: Float `(..., K)`, with NaN where there is no value.
        weights: Floats of at least 0 that broadcast against `values`.

    Returns:
        float64 `(...)`; NaN where there is no number, or all of them weigh 0.

    Example:
        >>> mean_of_numbers(np.array([0.5, np.nan, 1.0])).item()
        0.75
    """
    weights = np.where(np.isnan(values), 0.0, weights)
    return divide((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient as float64; NaN where the denominator is 0.

    Args:
        numerator: Of the shape of `denominator`, or broadcast to it.
        denominator: At least 0.

    Example:
        >>> divide(np.array([1, 0]), np.array([2, 0]))
        array([0.5, nan])
    """
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full_like(denominator, np.nan), where=denominator > 0)
