"""Losses on logits, with class ids as truth and ignored pixels left out.

In every function `y_true` is an integer `(N, H, W)` tensor of class ids, 255 where a pixel counts nowhere, and `logits`
is a float `(N, H, W, K)` tensor, or `(N, H, W, 1)` for the binary task with classes 0 and 1. The value is a scalar; a
batch with every pixel ignored gives 0. `class_weights` are K floats of at least 0, two for the binary task; None weighs
all alike.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import KerasTensor, ops

from semseg import IGNORE
from semseg.errors import SemsegError

_Weights = Sequence[float] | None


def cross_entropy(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """Mean over the counted pixels of -log p(true class); for a single logit, `binary_cross_entropy`.

    With class weights each pixel has the weight of its true class, and the weighted sum is divided by the sum of the
    weights.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[[1, 255]]])
        >>> round(float(cross_entropy(truth, np.zeros((1, 1, 2, 4), "float32"))), 4)  # log 4
        1.3863
    """
    if logits.shape[-1] == 1:
        return binary_cross_entropy(y_true, logits, class_weights=class_weights)
    truth, counted = _truth_and_weight(y_true, _checked(class_weights, logits))
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    return _mean(-ops.squeeze(ops.take_along_axis(log_p, truth[..., None], axis=-1), -1), counted)


def binary_cross_entropy(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """Mean over the counted pixels of -log p(true class), p(1) = sigmoid of the single logit.

    Class weights act as in `cross_entropy`.

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
    truth, counted = _truth_and_weight(y_true, _checked(class_weights, logits))
    logit = ops.cast(logits, "float32")[..., 0]
    return _mean(ops.softplus(logit) - ops.cast(truth, "float32") * logit, counted)


def dice(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """1 - mean over the classes present of the soft Dice coefficient 2 |Y P| / (|Y| + |P|), over the whole batch.

    A class counts when the batch's truth holds it; with a single logit only class 1 does, whatever its weight. Without
    any such class the loss is 0. Class weights make it a weighted mean over the classes.

    Reference: Milletari et al. 2016, https://arxiv.org/abs/1606.04797.
    """
    overlap, truth_sum, p_sum = _soft_counts(y_true, logits)
    weights = _present(truth_sum, _checked(class_weights, logits))
    return _mean(1 - 2 * overlap / ops.maximum(truth_sum + p_sum, 1e-6), weights)


def iou(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """1 - mean over the classes present of the soft IoU |Y P| / (|Y| + |P| - |Y P|), over the whole batch.

    Which classes count, and how: see `dice`.

    Reference: Rahman and Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation.
    """
    overlap, truth_sum, p_sum = _soft_counts(y_true, logits)
    weights = _present(truth_sum, _checked(class_weights, logits))
    return _mean(1 - overlap / ops.maximum(truth_sum + p_sum - overlap, 1e-6), weights)


LOSSES: dict[str, Callable[..., KerasTensor]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "dice": dice,
    "iou": iou,
}


class SegmentationLoss(keras.losses.Loss):
    """A sum of losses, as Keras wants it: `SegmentationLoss("cross_entropy+dice")`.

    Args:
        names: Keys of `LOSSES`, joined by `+`.
        class_weights: One float of at least 0 per class, for every part of the sum; None weighs all classes alike. See
            `inverse_frequency_weights`.
        name: Name of the loss.

    Raises:
        SemsegError: A name is unknown, or the weights are not finite, negative or all 0.
    """

    def __init__(self, names: str, class_weights: _Weights = None, name: str = "loss"):
        super().__init__(name=name)
        self.names = names
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        unknown = [part for part in names.split("+") if part not in LOSSES]
        if unknown:
            raise SemsegError(f"--loss: there is no loss {unknown[0]!r}; choose from {', '.join(LOSSES)}, joined by +")
        self._parts = [LOSSES[part] for part in names.split("+")]
        if class_weights is not None:
            _refuse_senseless(self.class_weights)

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Returns the sum, a scalar."""
        return sum(part(y_true, y_pred, class_weights=self.class_weights) for part in self._parts)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"names": self.names, "class_weights": self.class_weights, "name": self.name}


_RAREST = 1e-3  # share of the pixels below which a class is weighted no higher


def inverse_frequency_weights(shares: Sequence[float]) -> np.ndarray:
    """Class weights that lift rare classes: 1 / sqrt(share), with shares below .001 taken for .001.

    The plain inverse would give a class of 1e-5 of the pixels 30 000 times the weight of one of .3, and the loss would
    jump with each of its few pixels. The root and the floor leave at most a factor of 32.

    Args:
        shares: Of each class among the counted pixels, `(K,)`, at least 0.

    Returns:
        Float `(K,)`: mean 1 over the classes that are there; 0 for those with a share of 0.

    Raises:
        SemsegError: A share is negative or not finite, or all are 0.

    Example:
        >>> inverse_frequency_weights([0.64, 0.36, 0.0]).round(3).tolist()  # 1 / .8 and 1 / .6
        [0.857, 1.143, 0.0]
    """
    _refuse_senseless(shares)
    shares = np.asarray(shares, float)
    present = shares > 0
    weights = np.where(present, 1 / np.sqrt(np.maximum(shares, _RAREST)), 0.0)
    return weights / weights[present].mean()


def _refuse_senseless(weights: Sequence[float]) -> None:
    values = np.asarray(weights, float)
    if values.ndim != 1 or not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) == 0:
        raise SemsegError(
            f"class weights: got {np.array2string(values, threshold=20)}; expected a finite number of at least 0 for "
            "each class, one of them above 0"
        )


def _checked(class_weights: _Weights, logits: KerasTensor) -> KerasTensor | None:
    """The weights as a float32 tensor `(K,)`."""
    if class_weights is None:
        return None
    num_classes = max(2, logits.shape[-1])
    if len(class_weights) != num_classes:
        raise SemsegError(f"class weights: got {len(class_weights)} of them; expected {num_classes}, one per class")
    return ops.convert_to_tensor(class_weights, "float32")


def _truth_and_weight(y_true: KerasTensor, class_weights: KerasTensor | None) -> tuple[KerasTensor, KerasTensor]:
    """Ids with ignored pixels set to 0; the weight, 1.0 or its class', where a pixel counts and 0.0 elsewhere."""
    truth = ops.cast(y_true, "int32")
    counted = truth != IGNORE
    truth, weight = ops.where(counted, truth, 0), ops.cast(counted, "float32")
    return truth, weight if class_weights is None else weight * ops.take(class_weights, truth)


def _soft_counts(y_true: KerasTensor, logits: KerasTensor) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Soft |Y P|, |Y| and |P| per class, each `(K,)`; for a single logit `(1,)`, of class 1."""
    truth, counted = _truth_and_weight(y_true, None)
    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:
        p, y = ops.sigmoid(logits), ops.cast(truth, "float32")[..., None]
    else:
        p, y = ops.softmax(logits, axis=-1), ops.one_hot(truth, logits.shape[-1], dtype="float32")
    counted, pixels = counted[..., None], (0, 1, 2)
    return ops.sum(y * p * counted, pixels), ops.sum(y * counted, pixels), ops.sum(p * counted, pixels)


def _present(truth_sum: KerasTensor, class_weights: KerasTensor | None) -> KerasTensor:
    """The weight, 1.0 or its own, of each class that the truth holds and 0.0 of the others, `(K,)` or `(1,)`."""
    present = ops.cast(truth_sum > 0, "float32")
    return present if class_weights is None or present.shape[0] == 1 else present * class_weights


def _mean(values: KerasTensor, weights: KerasTensor) -> KerasTensor:
    """Weighted mean, 0 where every weight is 0."""
    total = ops.sum(weights)
    return ops.sum(values * weights) / ops.where(total > 0, total, 1.0)
