"""Losses on logits, with class ids as truth and ignored pixels left out.

In every function `y_true` is an integer `(N, H, W)` tensor of class ids, 255 where a pixel counts nowhere, and `logits`
is a float `(N, H, W, K)` tensor, or `(N, H, W, 1)` for the binary task with classes 0 and 1. The value is a scalar; a
batch with every pixel ignored gives 0.
"""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from semseg import IGNORE
from semseg.errors import SemsegError


def cross_entropy(y_true: KerasTensor, logits: KerasTensor) -> KerasTensor:
    """Mean over the counted pixels of -log p(true class); for a single logit, `binary_cross_entropy`.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[[1, 255]]])
        >>> round(float(cross_entropy(truth, np.zeros((1, 1, 2, 4), "float32"))), 4)  # log 4
        1.3863
    """
    if logits.shape[-1] == 1:
        return binary_cross_entropy(y_true, logits)
    truth, counted = _truth_and_weight(y_true)
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return _mean(-ops.squeeze(ops.take_along_axis(log_p, truth[..., None], axis=-1), -1), counted)


def binary_cross_entropy(y_true: KerasTensor, logits: KerasTensor) -> KerasTensor:
    """Mean over the counted pixels of -log p(true class), p(1) = sigmoid of the single logit.

    Raises:
        SemsegError: `logits` has more than one channel.

    Example:
        >>> import numpy as np
        >>> round(float(binary_cross_entropy(np.array([[[1]]]), np.zeros((1, 1, 1, 1), "float32"))), 4)  # log 2
        0.6931
    """
    if logits.shape[-1] != 1:
        raise SemsegError(
            f"binary_cross_entropy: got {logits.shape[-1]} logits per pixel; expected 1 (two classes). "
            "For more classes use cross_entropy"
        )
    truth, counted = _truth_and_weight(y_true)
    logit = ops.cast(logits, "float32")[..., 0]
    return _mean(ops.softplus(logit) - ops.cast(truth, "float32") * logit, counted)


def dice(y_true: KerasTensor, logits: KerasTensor) -> KerasTensor:
    """1 - mean over the classes present of the soft Dice coefficient 2 |Y P| / (|Y| + |P|), over the whole batch.

    A class counts when the batch's truth holds it; with a single logit only class 1 does. Without any such class the
    loss is 0.

    Reference: Milletari et al. 2016, https://arxiv.org/abs/1606.04797.
    """
    overlap, truth_sum, p_sum = _soft_counts(y_true, logits)
    return _mean(1 - 2 * overlap / ops.maximum(truth_sum + p_sum, 1e-6), _present(truth_sum))


def iou(y_true: KerasTensor, logits: KerasTensor) -> KerasTensor:
    """1 - mean over the classes present of the soft IoU |Y P| / (|Y| + |P| - |Y P|), over the whole batch.

    Which classes count: see `dice`.

    Reference: Rahman and Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation.
    """
    overlap, truth_sum, p_sum = _soft_counts(y_true, logits)
    return _mean(1 - overlap / ops.maximum(truth_sum + p_sum - overlap, 1e-6), _present(truth_sum))


LOSSES: dict[str, Callable[[KerasTensor, KerasTensor], KerasTensor]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "dice": dice,
    "iou": iou,
}


class SegmentationLoss(keras.losses.Loss):
    """A sum of losses, as Keras wants it: `SegmentationLoss("cross_entropy+dice")`.

    Args:
        names: Keys of `LOSSES`, joined by `+`.
        name: Name of the loss.

    Raises:
        SemsegError: A name is unknown.
    """

    def __init__(self, names: str, name: str = "loss"):
        super().__init__(name=name)
        self.names = names
        unknown = [part for part in names.split("+") if part not in LOSSES]
        if unknown:
            raise SemsegError(f"--loss: there is no loss {unknown[0]!r}; choose from {', '.join(LOSSES)}, joined by +")
        self._parts = [LOSSES[part] for part in names.split("+")]

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Returns the sum, a scalar."""
        return sum(part(y_true, y_pred) for part in self._parts)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"names": self.names, "name": self.name}


def _truth_and_weight(y_true: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """Ids with ignored pixels set to 0, and 1.0 where a pixel counts, 0.0 where it does not."""
    truth = ops.cast(y_true, "int32")
    counted = truth != IGNORE
    return ops.where(counted, truth, 0), ops.cast(counted, "float32")


def _soft_counts(y_true: KerasTensor, logits: KerasTensor) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Soft |Y P|, |Y| and |P| per class, each `(K,)`; for a single logit `(1,)`, of class 1."""
    truth, counted = _truth_and_weight(y_true)
    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:
        p, y = ops.sigmoid(logits), ops.cast(truth, "float32")[..., None]
    else:
        p, y = ops.softmax(logits, axis=-1), ops.one_hot(truth, logits.shape[-1], dtype="float32")
    counted, pixels = counted[..., None], (0, 1, 2)
    return ops.sum(y * p * counted, pixels), ops.sum(y * counted, pixels), ops.sum(p * counted, pixels)


def _present(truth_sum: KerasTensor) -> KerasTensor:
    return ops.cast(truth_sum > 0, "float32")


def _mean(values: KerasTensor, weights: KerasTensor) -> KerasTensor:
    """Weighted mean, 0 where every weight is 0."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)
