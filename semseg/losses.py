"""Losses on logits, with class ids as truth and ignored pixels left out.

In every function `y_true` is an integer `(N, H, W)` tensor of class ids, 255 where a pixel counts nowhere, and `logits`
is a float `(N, H, W, K)` tensor, or `(N, H, W, 1)` for the binary task with classes 0 and 1. The value is a float32
scalar, also for half-precision logits, and float64 for float64; a batch with every pixel ignored gives 0.
`class_weights` are K floats of at least 0, two for the binary task; None weighs all alike.

There are two kinds. The pixels' losses (cross-entropy, focal) are a mean over the counted pixels, each with the weight
of its true class. The classes' losses (Dice, IoU, Tversky, Lovasz, clDice) look at the pixels of the whole batch
together and are a mean over the classes, each with its weight, that the batch's truth holds; with a single logit only
class 1 counts, whatever its weight, and a batch without it gives 0.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import keras
import numpy as np
from keras import KerasTensor, ops

from semseg import IGNORE
from semseg.backend.kernels import class_sums, softmax_statistics, total
from semseg.errors import SemsegError

_Weights = Sequence[float] | np.ndarray | None


def cross_entropy(
    y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None, label_smoothing: float = 0.0
) -> KerasTensor:
    """Mean over the counted pixels of -log p_t, where p_t is the probability of the true class.

    p is the softmax of the logits, or the sigmoid of a single one. With class weights the weighted sum is divided by
    the sum of the weights.

    Label smoothing s takes (1 - s) of the pixel's value and s of the mean over all classes of -log p: the truth holds
    1 - s + s/K of the true class and s/K of each other. Even the best prediction then costs the entropy of that truth,
    not 0.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.
        label_smoothing: s, at least 0 and below 1.

    Returns:
        Float32 scalar, at least 0; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, or there is not one weight per class.

    Reference: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7 (label smoothing).

    Example:
        >>> import numpy as np
        >>> truth = np.array([[[1, 255]]])
        >>> round(float(cross_entropy(truth, np.zeros((1, 1, 2, 4), "float32"))), 4)  # log 4
        1.3863
    """
    batch = _Batch.from_logits(y_true, logits, class_weights)
    values = batch.nll
    if label_smoothing:
        values = (1 - label_smoothing) * values + label_smoothing * batch.mean_nll
    return batch.mean_over_pixels(values)


def binary_cross_entropy(
    y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None, label_smoothing: float = 0.0
) -> KerasTensor:
    """`cross_entropy` for a single logit, p(1) = sigmoid(logit), and for nothing else.

    Args:
        y_true: Integer class ids `(N, H, W)`, 0 or 1, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, 1)`.
        class_weights: Two floats of at least 0; None weighs both classes alike.
        label_smoothing: As in `cross_entropy`.

    Returns:
        Float32 scalar, at least 0.

    Raises:
        SemsegError: `logits` has more than one channel, or is refused by `cross_entropy`.

    Example:
        >>> import numpy as np
        >>> round(float(binary_cross_entropy(np.array([[[1]]]), np.zeros((1, 1, 1, 1), "float32"))), 4)  # log 2
        0.6931
    """
    batch = _Batch.from_logits(y_true, logits, class_weights)
    if not batch.binary:
        raise SemsegError(
            f"binary_cross_entropy: got {batch.logits.shape[-1]} logits per pixel; expected 1 (two classes). "
            "For more classes use cross_entropy"
        )
    return cross_entropy(y_true, batch, label_smoothing=label_smoothing)


def focal(
    y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None, gamma: float = 2.0
) -> KerasTensor:
    """Mean over the counted pixels of -(1 - p_t)^gamma log p_t: pixels that are right already count less.

    p_t is the probability of the true class, as in `cross_entropy`, which this is with a gamma of 0. Class weights
    stand where the paper has its alpha.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.
        gamma: At least 0; the higher, the less count pixels that are right already.

    Returns:
        Float32 scalar, at least 0; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, there is not one weight per class, or `gamma` is out of range.

    Reference: Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    Example:
        >>> import numpy as np
        >>> round(float(focal(np.array([[[1]]]), np.zeros((1, 1, 1, 1), "float32"))), 4)  # log 2 / 4
        0.1733
    """
    _check_at_least("focal", 0, gamma=gamma)
    batch = _Batch.from_logits(y_true, logits, class_weights)
    nll = ops.minimum(batch.nll, _MAX_NLL)
    p_wrong = ops.maximum(-ops.expm1(-nll), _TINY)  # 1 - p_t, without the rounding of p_t
    values = ops.where(batch.nll < _MAX_NLL, ops.power(p_wrong, gamma) * nll, batch.nll)
    return batch.mean_over_pixels(values)


def tversky(
    y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None, alpha: float = 0.3, beta: float = 0.7
) -> KerasTensor:
    """Mean over the classes present of 1 - TP / (TP + alpha FP + beta FN), counted with probabilities.

    With Y the pixels of the class and P its probability, over the whole batch: TP = sum of P in Y, the false positives
    FP = sum of P outside Y, the false negatives FN = sum of 1 - P in Y. `alpha` >= 0 weighs what is predicted and not
    there, `beta` >= 0 what is there and not predicted; beta above alpha favours sensitivity.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0.

    Returns:
        Float32 scalar, 0 to 1; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, there is not one weight per class, or `alpha` or `beta` is out of range.

    Reference: Salehi et al. 2017, https://arxiv.org/abs/1706.05721, with its alpha and beta.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.array([[[1, 0]]]), np.zeros((1, 1, 2, 1), "float32")  # TP = FP = FN = .5
        >>> round(float(tversky(truth, logits, alpha=1, beta=2)), 4)  # 1 - .5 / (.5 + .5 + 2 * .5)
        0.75
    """
    batch = _Batch.from_logits(y_true, logits, class_weights)
    return _mean(_tversky_per_class("tversky", batch, alpha, beta), batch.weights_of_present)


def focal_tversky(
    y_true: KerasTensor,
    logits: KerasTensor,
    *,
    class_weights: _Weights = None,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
) -> KerasTensor:
    """Mean over the classes present of T^(1/gamma), with T the class' value in `tversky`.

    The root lifts the classes that are nearly right, whose small structures are still wrong. Alpha and beta are as in
    `tversky`: the paper has the same values under swapped names, and sums over the classes. Where T is 0 the gradient,
    infinite by the formula, is 0.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0.
        gamma: At least 1, which gives `tversky`.

    Returns:
        Float32 scalar, 0 to 1; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, there is not one weight per class, or `alpha`, `beta` or `gamma` is
            out of range.

    Reference: Abraham and Khan 2018, https://arxiv.org/abs/1810.07842; gamma from 1 to 3.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.array([[[1, 0]]]), np.zeros((1, 1, 2, 1), "float32")
        >>> round(float(focal_tversky(truth, logits, gamma=2)), 4)  # the root of .5
        0.7071
    """
    _check_at_least("focal_tversky", 1, gamma=gamma)
    batch = _Batch.from_logits(y_true, logits, class_weights)
    values = ops.maximum(_tversky_per_class("focal_tversky", batch, alpha, beta), _TINY)
    return _mean(ops.power(values, 1 / gamma), batch.weights_of_present)


def dice(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """1 - mean over the classes present of the soft Dice coefficient 2 |Y P| / (|Y| + |P|), over the whole batch.

    Y is 1 in the pixels of the class, P its probability. It is `tversky` with alpha = beta = 1/2.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.

    Returns:
        Float32 scalar, 0 to 1; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, or there is not one weight per class.

    Reference: Milletari et al. 2016, https://arxiv.org/abs/1606.04797.

    Example:
        >>> import numpy as np
        >>> round(float(dice(np.array([[[1, 0]]]), np.zeros((1, 1, 2, 1), "float32"))), 4)  # 1 - 2 * .5 / (1 + 1)
        0.5
    """
    return tversky(y_true, logits, class_weights=class_weights, alpha=0.5, beta=0.5)


def iou(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """1 - mean over the classes present of the soft IoU |Y P| / (|Y| + |P| - |Y P|), over the whole batch.

    Y and P are as in `dice`. It is `tversky` with alpha = beta = 1.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.

    Returns:
        Float32 scalar, 0 to 1; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, or there is not one weight per class.

    Reference: Rahman and Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation.

    Example:
        >>> import numpy as np
        >>> round(float(iou(np.array([[[1, 0]]]), np.zeros((1, 1, 2, 1), "float32"))), 4)  # 1 - .5 / (1 + 1 - .5)
        0.6667
    """
    return tversky(y_true, logits, class_weights=class_weights, alpha=1.0, beta=1.0)


def lovasz(y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None) -> KerasTensor:
    """Mean over the classes present of the Lovasz extension of 1 - IoU, over the whole batch.

    For a class with the error m_i >= 0 of pixel i, sorted so that m_1 >= m_2 >= ..., it is sum over i of
    m_i (J_i - J_(i-1)), where J_i is 1 - IoU of the class when just the first i pixels are wrong. For K logits m is
    1 - p in the pixels of the class and p, its probability, elsewhere (Lovasz-Softmax); for a single logit z it is
    max(0, 1 - z) in class 1 and max(0, 1 + z) in class 0 (Lovasz hinge).

    It sorts all pixels once per class: on a CPU some 15 times the time of `dice`, and 20 times with JAX.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.

    Returns:
        Float32 scalar, 0 to 1, or at least 0 for a single logit; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, or there is not one weight per class.

    Reference: Berman et al. 2018, https://arxiv.org/abs/1705.08790; its Lovasz hinge also counts batches without
    class 1.

    Example:
        >>> import numpy as np
        >>> truth, logits = np.array([[[1, 0]]]), np.array([0.5, -0.8], "float32").reshape(1, 1, 2, 1)
        >>> round(float(lovasz(truth, logits)), 4)  # errors .5 and .2; J_1 = J_2 = 1
        0.5
    """
    batch = _Batch.from_logits(y_true, logits, class_weights)
    y, errors = batch.errors
    order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
    y = ops.cast(ops.take_along_axis(y, order, axis=-1), "int32")
    # If the first i pixels are wrong, those of the class among them are missed and the others are false positives.
    rank, missed = ops.cumsum(ops.ones_like(y), axis=-1), ops.cumsum(y, axis=-1)
    class_size = missed[:, -1:]
    overlap, union = (ops.cast(count, batch.dtype) for count in (class_size - missed, class_size + rank - missed))
    # J_i - J_(i-1), written without the difference: that of two nearly equal numbers would be mostly rounding.
    increments = ops.where(y == 1, 1 / union, overlap / (union * ops.maximum(union - 1, 1)))
    values = ops.sum(increments * ops.relu(ops.take_along_axis(errors, order, axis=-1)), axis=-1)
    return _mean(values, batch.weights_of_present)


def cl_dice(
    y_true: KerasTensor, logits: KerasTensor, *, class_weights: _Weights = None, iterations: int = 5
) -> KerasTensor:
    """1 - mean over the classes present of the soft clDice, for things that are lines: vessels, cracks, roads.

    With Y and P as in `dice`, and S() the soft skeleton, clDice is the harmonic mean of two shares: |S(P) Y| / |S(P)|,
    how much of the predicted middle lines lies in the class, and |S(Y) P| / |S(Y)|, how much of the true ones is
    predicted. So a gap in a line costs as much as the line is long there, however thin it is.

    The skeleton is what openings take away from the map, from those that erosions leave of it, and what is left after
    the last, which the paper drops: a class that is thicker than two pixels an iteration has the rest of it for its
    middle. A minimum over the four neighbours erodes, a maximum over all eight grows; nothing erodes from the border
    of the picture, and ignored pixels are of no class.

    It says little of how thick a line is: add it to another, as in `ce+dice+cl_dice`. That takes 20 times as long as
    `ce+dice` for a single logit on a CPU, and 60 times for 19 classes, where it outweighs the network.

    Args:
        y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        class_weights: One float of at least 0 per class, two for the binary task; None weighs all alike.
        iterations: Erosions, at least 1: half of the width in pixels of the thickest line.

    Returns:
        Float32 scalar, 0 to 1; 0 for a batch without a counted pixel.

    Raises:
        SemsegError: The shapes do not match, there is not one weight per class, or `iterations` is below 1.

    Reference: Shit et al. 2021, https://arxiv.org/abs/2003.07311.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[[0] * 9, [1] * 9, [0] * 9]])
        >>> logits = np.where(truth[..., None] == 1, 20, -20).astype("float32")
        >>> logits[0, 1, 4] = -20  # a gap: 8 of 9 pixels of the middle line are found
        >>> round(float(cl_dice(truth, logits)), 4)  # 1 - 2 * 8/9 / (1 + 8/9)
        0.0588
    """
    _check_at_least("cl_dice", 1, iterations=iterations)
    batch = _Batch.from_logits(y_true, logits, class_weights)
    y, p = batch.maps
    y_lines, p_lines = _soft_skeleton(ops.stop_gradient(y), iterations), _soft_skeleton(p, iterations)
    precision, sensitivity = (
        total(_sum_of_maps(lines * other)) / ops.maximum(total(_sum_of_maps(lines)), _MIN_OVERLAP)
        for lines, other in ((p_lines, y), (y_lines, p))
    )
    values = 1 - 2 * precision * sensitivity / ops.maximum(precision + sensitivity, _MIN_OVERLAP)
    return _mean(values, batch.weights_of_present)


def _soft_skeleton(maps: KerasTensor, iterations: int) -> KerasTensor:
    """Of maps `(N, H, W, K)`, 0 to 1; see `cl_dice`."""

    def grown(x: KerasTensor, size: tuple[int, int]) -> KerasTensor:
        return ops.max_pool(x, size, 1, padding="same", data_format="channels_last")

    def eroded(x: KerasTensor) -> KerasTensor:
        return ops.minimum(-grown(-x, (3, 1)), -grown(-x, (1, 3)))

    skeleton = ops.zeros_like(maps)
    for _ in range(iterations):
        smaller = eroded(maps)
        skeleton = skeleton + (1 - skeleton) * ops.relu(maps - grown(grown(smaller, (3, 1)), (1, 3)))
        maps = smaller
    return skeleton + (1 - skeleton) * maps


def _sum_of_maps(maps: KerasTensor) -> KerasTensor:
    return ops.sum(ops.sum(maps, axis=2), axis=(0, 1))


LOSSES: dict[str, Callable[..., KerasTensor]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "dice": dice,
    "iou": iou,
    "tversky": tversky,
    "focal": focal,
    "focal_tversky": focal_tversky,
    "lovasz": lovasz,
    "cl_dice": cl_dice,
}
ALIASES = {"ce": "cross_entropy", "bce": "binary_cross_entropy", "jaccard": "iou", "cldice": "cl_dice"}
SMOOTHED = ("cross_entropy", "binary_cross_entropy")  # the losses that know label smoothing


class SegmentationLoss(keras.losses.Loss):
    """A sum of losses, as Keras wants it: `SegmentationLoss("ce+dice")`. The parts share one softmax.

    Args:
        names: Keys of `LOSSES` or `ALIASES`, joined by `+`; kept without aliases.
        class_weights: One float of at least 0 per class, for every part of the sum; None weighs all classes alike. See
            `inverse_frequency_weights` and `effective_number_weights`.
        label_smoothing: At least 0, below 1; for the parts in `SMOOTHED`. The others have no use for it: overlap with a
            blurred truth is best elsewhere than at the truth, and `focal` already spares what is right.
        name: Name of the loss.

    Raises:
        SemsegError: A name is unknown, the weights are not finite, negative or all 0, or there is label smoothing out
            of range or without a part that knows it.

    Example:
        >>> SegmentationLoss("ce+jaccard", [1, 2], label_smoothing=0.1).names
        'cross_entropy+iou'
    """

    def __init__(self, names: str, class_weights: _Weights = None, label_smoothing: float = 0.0, name: str = "loss"):
        super().__init__(name=name)
        parts = [ALIASES.get(part, part) for part in names.split("+")]
        _check_names(parts)
        _check_smoothing(parts, label_smoothing)
        if class_weights is not None:
            _check_weights(class_weights)
        self.names = "+".join(parts)
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]
        self.label_smoothing = label_smoothing
        smoothing = {"label_smoothing": label_smoothing}
        self._parts = [(LOSSES[part], smoothing if part in SMOOTHED else {}) for part in parts]

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Returns the sum, a scalar.

        Args:
            y_true: Integer class ids `(N, H, W)`, 255 where a pixel counts nowhere.
            y_pred: Logits, float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
        """
        batch = _Batch.from_logits(y_true, y_pred, self.class_weights)
        return sum(part(y_true, batch, **options) for part, options in self._parts)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {name: getattr(self, name) for name in ("names", "class_weights", "label_smoothing", "name")}


_MIN_SHARE = 1e-3  # share of the pixels below which a class is weighted no higher


def inverse_frequency_weights(shares: Sequence[float] | np.ndarray) -> np.ndarray:
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
    _check_weights(shares)
    shares = np.asarray(shares, float)
    return _scale_to_mean_1(1 / np.sqrt(np.maximum(shares, _MIN_SHARE)), shares > 0)


def effective_number_weights(counts: Sequence[float] | np.ndarray, *, beta: float | None = None) -> np.ndarray:
    """Class weights by the effective number of samples: (1 - beta) / (1 - beta^n) for a class of n pixels.

    Classes of many more than 1 / (1 - beta) pixels weigh alike; below that, weights go like 1 / n. The paper's .9 to
    .9999 count photos: nearly every class has more than 10 000 pixels, and no fixed beta suits a number that grows with
    the masks' size while what there is to learn does not. So None takes 1 / (1 - beta) = a hundredth of all counted
    pixels: classes below some percent are lifted. Shares below .001 are taken for .001: at most a factor of 10.5.

    Args:
        counts: Pixels of each class, `(K,)`, at least 0.
        beta: At least 0 and below 1: 0 weighs all alike, and towards 1 weights go like 1 / n.

    Returns:
        Float `(K,)`: mean 1 over the classes that are there; 0 for those without a pixel.

    Raises:
        SemsegError: A count is negative or not finite, all are 0, or beta is out of range.

    Reference: Cui et al. 2019, https://arxiv.org/abs/1901.05555.

    Example:
        >>> effective_number_weights([2, 1, 0], beta=0.5).round(3).tolist()  # .5 / .75 and .5 / .5
        [0.8, 1.2, 0.0]
    """
    _check_weights(counts)
    counts = np.asarray(counts, float)
    beta = max(0.0, 1 - 100 / counts.sum()) if beta is None else beta
    if not 0 <= beta < 1:
        raise SemsegError(f"effective_number_weights: got beta={beta}; expected at least 0 and below 1")
    return _scale_to_mean_1((1 - beta) / (1 - beta ** np.maximum(counts, _MIN_SHARE * counts.sum())), counts > 0)


def _scale_to_mean_1(weights: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Scales weights `(K,)` to a mean of 1 over the classes present; 0 for the others."""
    return np.where(present, weights, 0.0) / weights[present].mean()


def _check_names(parts: Sequence[str]) -> None:
    unknown = [part for part in parts if part not in LOSSES]
    if unknown:
        short = {name: alias for alias, name in ALIASES.items()}
        known = ", ".join(f"{name} ({short[name]})" if name in short else name for name in LOSSES)
        raise SemsegError(f"there is no loss {unknown[0]!r}; choose from {known}, joined by +")


def _check_smoothing(parts: Sequence[str], label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise SemsegError(f"`label_smoothing`: got {label_smoothing}; expected at least 0 and below 1, such as 0.1")
    if label_smoothing and not set(parts) & set(SMOOTHED):
        raise SemsegError(
            f"`label_smoothing`: got {label_smoothing} with the loss {'+'.join(parts)}, which has no use for it; "
            f"expected a sum with one of {', '.join(SMOOTHED)}"
        )


def _check_weights(weights: Sequence[float] | np.ndarray) -> None:
    values = np.asarray(weights, float)
    if values.ndim != 1 or not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) == 0:
        raise SemsegError(
            f"class weights: got {np.array2string(values, threshold=20)}; expected a finite number of at least 0 for "
            "each class, one of them above 0"
        )


def _check_at_least(where: str, least: float, **numbers: float) -> None:
    for name, value in numbers.items():
        if not least <= value < float("inf"):
            raise SemsegError(f"{where}: got {name}={value}; expected a finite number of at least {least}")


_TINY = 1e-12  # keeps powers below 1 from an infinite gradient at 0
_MIN_OVERLAP = 1e-6  # pixels that an overlap is divided by
_MAX_NLL = 50.0  # -log p_t from which 1 - p_t is 1 in float32


class _Batch:
    """What the losses of a batch are made of, each quantity computed when it is first asked for.

    A sum of losses hands one of these to its parts in place of the logits.
    """

    def __init__(self, y_true: KerasTensor, logits: KerasTensor, class_weights: _Weights):
        logits = ops.convert_to_tensor(logits)
        truth = _drop_channel(ops.cast(y_true, "int32"), logits)
        counted = truth != IGNORE
        self.dtype = "float64" if keras.backend.standardize_dtype(logits.dtype) == "float64" else "float32"
        self.logits = ops.cast(logits, self.dtype)
        self.binary = logits.shape[-1] == 1
        self.truth = truth * ops.cast(counted, "int32")  # (N, H, W): 0 where ignored
        self.counted = ops.cast(counted, self.dtype)  # (N, H, W): 1.0, and 0.0 where ignored
        self.class_weights = _weights_tensor(class_weights, max(2, logits.shape[-1]), self.dtype)

    @classmethod
    def from_logits(cls, y_true: KerasTensor, logits: "KerasTensor | _Batch", class_weights: _Weights) -> "_Batch":
        """The batch, which may come in place of the logits; it has its own weights then."""
        return logits if isinstance(logits, cls) else cls(y_true, logits, class_weights)

    @cached_property
    def pixel_weights(self) -> KerasTensor:
        """Of each pixel `(N, H, W)`: 1.0 or its true class', and 0.0 where ignored."""
        return self.counted if self.class_weights is None else self.counted * ops.take(self.class_weights, self.truth)

    def mean_over_pixels(self, values: KerasTensor) -> KerasTensor:
        """Weighted mean of `(N, H, W)` over the pixels of all processes that train together; 0 without a weight."""
        return total(_mean(values, self.pixel_weights, total(ops.sum(self.pixel_weights))))

    @cached_property
    def _statistics(self) -> tuple[KerasTensor, KerasTensor] | None:
        """`nll` and the sums of `p` of several logits, where the backend computes them faster together."""
        return softmax_statistics(self.logits, self.truth, self.counted)

    @cached_property
    def log_p(self) -> KerasTensor:
        """Log-probabilities `(N, H, W, K)`, for several logits."""
        return ops.log_softmax(self.logits, axis=-1)

    @cached_property
    def p(self) -> KerasTensor:
        """Probabilities of the classes `(N, H, W, K)`, or `(N, H, W, 1)` of class 1."""
        return ops.sigmoid(self.logits) if self.binary else ops.exp(self.log_p)

    @cached_property
    def nll(self) -> KerasTensor:
        """Negative log-likelihood: -log p of the true class, `(N, H, W)`."""
        if self.binary:
            logit = self.logits[..., 0]
            return ops.softplus(ops.where(self.truth == 1, -logit, logit))
        if self._statistics:
            return self._statistics[0]
        return -ops.squeeze(ops.take_along_axis(self.log_p, self.truth[..., None], axis=-1), -1)

    @cached_property
    def mean_nll(self) -> KerasTensor:
        """Mean over all classes of -log p, `(N, H, W)`."""
        if self.binary:
            logit = self.logits[..., 0]
            return (ops.softplus(logit) + ops.softplus(-logit)) / 2
        return -ops.sum(self.log_p / self.logits.shape[-1], axis=-1)  # divided first: a sum might overflow

    @cached_property
    def soft_counts(self) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
        """|Y P|, |Y| and |P| of each class, `(K,)` each, or `(1,)` of class 1; see `dice`.

        Over the pixels of all processes that train together, as `mean_over_pixels`.
        """
        if self.binary:
            y = self.counted * ops.cast(self.truth, self.dtype)
            overlap, truth_sum = ops.sum(y * self.p[..., 0])[None], ops.sum(y)[None]
        else:
            overlap, truth_sum = self._sum_by_class(self.counted * ops.exp(-self.nll)), self._sum_by_class(self.counted)
        return total(overlap), total(truth_sum), total(self._p_sum)

    @cached_property
    def _p_sum(self) -> KerasTensor:
        """Sums of `p` over the counted pixels, `(K,)` or `(1,)`."""
        if not self.binary and self._statistics:
            return self._statistics[1]
        return ops.sum(ops.sum(self.p * self.counted[..., None], axis=2), axis=(0, 1))

    def _sum_by_class(self, values: KerasTensor) -> KerasTensor:
        """Sums `(N, H, W)` over the pixels of each true class, `(K,)`."""
        return class_sums(values, self.truth, self.logits.shape[-1])

    @cached_property
    def maps(self) -> tuple[KerasTensor, KerasTensor]:
        """Is each pixel of the class, and how probably: 0 to 1, `(N, H, W, K)` or `(N, H, W, 1)`; 0 where ignored."""
        y = self.truth[..., None] if self.binary else ops.one_hot(self.truth, self.logits.shape[-1], dtype=self.dtype)
        counted = self.counted[..., None]
        return counted * ops.cast(y, self.dtype), counted * self.p

    @cached_property
    def errors(self) -> tuple[KerasTensor, KerasTensor]:
        """Is each pixel of the class, bool, and how wrong is it: `(K, N H W)`, or `(1, N H W)`; see `lovasz`.

        An ignored pixel is of no class and has an error below 0.
        """
        truth, counted = ops.reshape(self.truth, (1, -1)), ops.reshape(self.counted, (1, -1)) > 0
        if self.binary:
            y, logit = truth == 1, ops.reshape(self.logits, (1, -1))
            errors = 1 - ops.where(y, logit, -logit)
        else:
            y = truth == ops.arange(self.logits.shape[-1], dtype="int32")[:, None]
            p = ops.transpose(ops.reshape(self.p, (-1, self.logits.shape[-1])))
            errors = ops.where(y, 1 - p, p)
        return ops.logical_and(y, counted), ops.where(counted, errors, -1.0)

    @cached_property
    def weights_of_present(self) -> KerasTensor:
        """The weight, 1.0 or its own, of each class that the truth holds and 0.0 of the others, `(K,)` or `(1,)`."""
        present = ops.cast(self.soft_counts[1] > 0, self.dtype)
        return present if self.class_weights is None or self.binary else present * self.class_weights


def _drop_channel(truth: KerasTensor, logits: KerasTensor) -> KerasTensor:
    """Ids `(N, H, W)`, also from `(N, H, W, 1)`, which Keras' own losses expect; anything else would broadcast."""
    if len(truth.shape) == len(logits.shape) and truth.shape[-1] == 1:
        truth = ops.squeeze(truth, -1)
    pairs = zip(truth.shape, logits.shape[:-1], strict=False)
    differ = any(None not in pair and pair[0] != pair[1] for pair in pairs)  # None is a size that is not known yet
    if len(truth.shape) != len(logits.shape) - 1 or differ:
        raise SemsegError(
            f"loss: got truth {tuple(truth.shape)} for logits {tuple(logits.shape)}; expected class ids (N, H, W) for "
            "logits (N, H, W, K)"
        )
    return truth


def _weights_tensor(class_weights: _Weights, num_classes: int, dtype: str) -> KerasTensor | None:
    """The weights as a tensor `(K,)`."""
    if class_weights is None:
        return None
    if len(class_weights) != num_classes:
        raise SemsegError(f"class weights: got {len(class_weights)} of them; expected {num_classes}, one per class")
    return ops.convert_to_tensor(class_weights, dtype)


def _tversky_per_class(where: str, batch: _Batch, alpha: float, beta: float) -> KerasTensor:
    """1 - TP / (TP + alpha FP + beta FN) of each class; see `tversky`."""
    _check_at_least(where, 0, alpha=alpha, beta=beta)
    true_positive, truth_sum, p_sum = batch.soft_counts
    whole = true_positive + alpha * (p_sum - true_positive) + beta * (truth_sum - true_positive)
    return 1 - true_positive / (ops.relu(whole - _MIN_OVERLAP) + _MIN_OVERLAP)


def _mean(values: KerasTensor, weights: KerasTensor, weight_sum: KerasTensor | None = None) -> KerasTensor:
    """Weighted mean, 0 where every weight is 0; weighted before it is summed, since a sum might overflow."""
    weight_sum = ops.sum(weights) if weight_sum is None else weight_sum
    return ops.sum(values * (weights / (weight_sum + ops.cast(weight_sum == 0, weight_sum.dtype))))
