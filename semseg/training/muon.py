"""The optimiser: steps of equal length in every direction for the convolutions, AdamW for the rest."""

import math
from typing import Any

import keras
from keras import KerasTensor, ops

from semseg.backend.optimizer import PartialAdamW

POLYNOMIALS = (  # a x + b x^3 + c x^5, one a round: of all, those that bring singular values of .003 to 1 nearest to 1
    (8.3837, -24.7659, 18.3571),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
)
FEWEST_CHANNELS = 5  # on both sides; layers that see the photo itself, or give a logit, are not between features
STEP = 0.2  # root mean square of a step's entries over the learning rate, as AdamW has it (Liu et al.)


@keras.saving.register_keras_serializable("semseg")
class Muon(PartialAdamW):
    """Muon for the kernels between features, AdamW for all other weights; one learning rate and decay suit both.

    A kernel is taken as the matrix that maps what lies under it to its output, and a step is the orthogonal matrix
    nearest to the sum of its gradients: it goes equally far in all directions, also in those in which gradients are
    small because only rare classes need them.

    Args:
        learning_rate: Float or schedule.
        momentum: Share that is kept of the sum of the kernels' gradients, 0 to below 1.
        precision: `"float32"`, or `"bfloat16"` to look for the orthogonal matrices in less time where the device
            computes in it; weights and sums stay as they are.
        options: Of `keras.optimizers.AdamW`.

    Reference: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
        https://arxiv.org/abs/2502.16982 (the scale that lets AdamW's learning rate hold); Amsel et al. 2025,
        https://arxiv.org/abs/2505.16932 (the polynomials, here for fewer rounds).
    """

    def __init__(
        self,
        learning_rate: Any = 0.005,
        *,
        momentum: float = 0.95,
        precision: str = "float32",
        name: str = "muon",
        **options: Any,
    ):
        super().__init__(learning_rate, name=name, **options)
        self.momentum, self.precision = momentum, precision

    def takes(self, variable: keras.Variable) -> bool:
        """Whether it is a kernel between features."""
        return is_between_features(variable)

    def own_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        """Changes a kernel between features."""
        gathered = self.momentum_of(variable)
        self.assign(gathered, self.momentum * gathered + gradient)
        ahead = gradient + self.momentum * gathered  # Nesterov's
        rows = math.prod(variable.shape[:-1])
        step = orthogonal(ops.reshape(ahead, (rows, variable.shape[-1])), self.precision)
        length = STEP * math.sqrt(max(rows, variable.shape[-1]))
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * length * ops.reshape(step, variable.shape))

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "momentum": self.momentum, "precision": self.precision}


def is_between_features(variable: keras.Variable) -> bool:
    """Whether it is the kernel of a convolution from several channels to several."""
    return len(variable.shape) == 4 and min(variable.shape[-2:]) >= FEWEST_CHANNELS


def orthogonal(matrix: KerasTensor, precision: str = "float32") -> KerasTensor:
    """About U V' of a matrix U S V': its singular values become about .35 to 1.65.

    Those below .003 of the root of the sum of their squares grow 120 times. Newton-Schulz iteration
    X <- (a + b X X' + c (X X')^2) X; the polynomials are multiplied up in the smaller of the two squares, which the
    large matrix meets only twice.

    Args:
        matrix: Float `(R, C)`.
        precision: In which the products are computed.

    Returns:
        The same shape and dtype.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return ops.transpose(orthogonal(ops.transpose(matrix), precision))
    x = ops.cast(matrix / (ops.sqrt(ops.sum(ops.square(matrix))) + 1e-7), precision)
    square = ops.matmul(ops.transpose(x), x)
    one, product = ops.eye(matrix.shape[1], dtype=precision), None
    for left, (a, b, c) in zip(reversed(range(len(POLYNOMIALS))), POLYNOMIALS, strict=True):
        polynomial = a * one + b * square + c * ops.matmul(square, square)
        product = polynomial if product is None else ops.matmul(product, polynomial)
        if left:
            square = ops.matmul(polynomial, ops.matmul(square, polynomial))
    return ops.cast(ops.matmul(x, product), matrix.dtype)
