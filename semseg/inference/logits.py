"""Logits: their classes, probabilities and certainty, and their mean over several views."""

import math
from collections.abc import Sequence

import numpy as np

from semseg.errors import SemsegError


def mean_of_views(views: Sequence[np.ndarray]) -> np.ndarray:
    """Logits whose softmax, or sigmoid, is the mean over several logits of one shape, `(..., K)` or `(..., 1)`.

    Example:
        >>> mean_of_views([np.array([[2.0]]), np.array([[-2.0]])])
        array([[0.]])
    """
    mean = np.logaddexp.reduce([_log_probabilities(logits) for logits in views]) - np.log(len(views))
    return mean if views[0].shape[-1] > 1 else mean[..., 1:] - mean[..., :1]


def probabilities_of_logits(logits: np.ndarray) -> np.ndarray:
    """`(..., K)`, or `(..., 1)` of two classes, to the probabilities of all classes, float32 `(..., K)`."""
    return np.exp(_log_probabilities(logits)).astype(np.float32)


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """`(..., K)` to log p `(..., K)`; of a single logit both classes', `(..., 2)`."""
    if logits.shape[-1] == 1:
        return np.concatenate([-np.logaddexp(0, logits), -np.logaddexp(0, -logits)], axis=-1)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ids_of_logits(logits: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The class of each pixel: that of the largest logit.

    Args:
        logits: `(..., K)`, or `(..., 1)` of two classes.
        threshold: Of two classes, the probability above which a pixel is of the second one, between 0 and 1.

    Returns:
        uint8 `(...)`, 0 to K-1.

    Raises:
        SemsegError: A threshold other than 0.5 is given for more classes than two.

    Example:
        >>> logits = np.array([[-0.1], [0.1]])
        >>> ids_of_logits(logits).tolist(), ids_of_logits(logits, threshold=0.45).tolist()
        ([0, 1], [1, 1])
    """
    classes = logits.shape[-1]
    if threshold == 0.5:
        return (logits[..., 0] > 0 if classes == 1 else logits.argmax(axis=-1)).astype(np.uint8)
    if classes > 2:
        raise SemsegError(f"`threshold`: is for two classes, and there are {classes}; leave it out")
    second = logits[..., 0] if classes == 1 else logits[..., 1] - logits[..., 0]
    return (second > math.log(threshold / (1 - threshold))).astype(np.uint8)


def confidence_of_logits(logits: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The probability of the class that `ids_of_logits` gives.

    Args:
        logits: `(..., K)`, or `(..., 1)` of two classes.
        threshold: As in `ids_of_logits`; a class that is chosen by another one than 0.5 may have less than half.

    Returns:
        float32 `(...)`, 0 to 1.

    Example:
        >>> round(float(confidence_of_logits(np.array([-0.1]), threshold=0.45)), 3)
        0.475
    """
    if logits.shape[-1] == 1:
        chosen = np.abs(logits[..., 0])
        if threshold != 0.5:
            chosen = np.where(ids_of_logits(logits, threshold), logits[..., 0], -logits[..., 0])
        return (1 / (1 + np.exp(-chosen))).astype(np.float32)
    if threshold != 0.5:
        return confidence_of_logits(logits[..., 1:] - logits[..., :1], threshold)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return (1 / np.exp(shifted).sum(axis=-1)).astype(np.float32)


_ID_LOGIT = 20.0  # the logit of a class that a file of ids names


def as_logits(values: np.ndarray, gives: str, num_classes: int) -> np.ndarray:
    """Logits with the same argmax, and of probabilities the same softmax or sigmoid.

    Args:
        values: `(..., K)` or `(..., 1)` logits or probabilities, or ids `(...)`.
        gives: What they are: `"logits"`, `"probabilities"` or `"ids"`.
        num_classes: K.

    Returns:
        float32 `(..., K)`, or `(..., 1)` for two classes that came so.

    Example:
        >>> as_logits(np.array([[0.5], [0.9]]), "probabilities", 2).round(2).tolist()
        [[0.0], [2.200000047683716]]
    """
    if gives == "logits":
        return np.asarray(values, np.float32)
    if gives == "ids":  # one hot, with a logit that is as good as certain
        return (_ID_LOGIT * (values[..., None] == np.arange(num_classes))).astype(np.float32)
    probabilities = np.clip(np.asarray(values, np.float32), np.finfo(np.float32).tiny, 1)
    if probabilities.shape[-1] > 1:
        return np.log(probabilities)
    # log(p / (1 - p)), p at most the largest float32 below 1
    return np.log(probabilities) - np.log1p(-np.minimum(probabilities, np.float32(1 - 2**-24)))
