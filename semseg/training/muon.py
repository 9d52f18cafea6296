"""The optimiser: steps of equal length in every direction for the convolutions, AdamW for the rest."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from semseg.backend.optimizer import PartialAdamW

POLYNOMIALS = (  # a x + b x^3 + c x^5, one a round: of all, those that bring singular values of .003 to 1 nearest to 1
    (8.3837, -24.7659, 18.3571),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
)
MIN_CHANNELS = 5  # on both sides; layers that see the photo itself, or give a logit, are not between features
_MIN_SQUARES = 1e-14  # a sum of squares that is taken for none
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
            computes in it; weights and sums stay as they are. `"float64"` for weights in float64.
        options: Of `PartialAdamW`.

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

    def own_steps(self, pairs: Sequence[tuple[KerasTensor, keras.Variable]], learning_rate: Any) -> None:
        """Changes kernels between features."""
        steps = orthogonal_all([self._ahead(*pair) for pair in pairs], self.precision)
        for (_, variable), step in zip(pairs, steps, strict=True):
            length = STEP * math.sqrt(max(step.shape))
            self.assign_sub(variable, learning_rate * length * ops.reshape(step, variable.shape))

    def _ahead(self, gradient: KerasTensor, variable: keras.Variable) -> KerasTensor:
        """Adds to a kernel's sum of gradients, and gives Nesterov's look beyond it as a matrix `(R, C)`."""
        momentum = self.momentum_of(variable)
        self.assign(momentum, self.momentum * momentum.value + gradient)  # a variable would make a tensor of the number
        ahead = gradient + self.momentum * momentum.value
        return ops.reshape(ahead, (math.prod(variable.shape[:-1]), variable.shape[-1]))

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "momentum": self.momentum, "precision": self.precision}


def is_between_features(variable: keras.Variable) -> bool:
    """Whether it is the kernel of a convolution from several channels to several."""
    return len(variable.shape) == 4 and min(variable.shape[-2:]) >= MIN_CHANNELS


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
    return orthogonal_all([matrix], precision)[0]


def orthogonal_all(matrices: Sequence[KerasTensor], precision: str = "float32") -> list[KerasTensor]:
    """`orthogonal` of each; those of one width go together, as a GPU takes as long for one small matrix as for many."""
    tall = [matrix if matrix.shape[0] >= matrix.shape[1] else ops.transpose(matrix) for matrix in matrices]
    results: dict[int, KerasTensor] = {}
    for width in {matrix.shape[1] for matrix in tall}:
        places = [i for i, matrix in enumerate(tall) if matrix.shape[1] == width]
        lowered = [ops.cast(tall[i], precision) for i in places]
        products = _products(ops.stack([ops.matmul(ops.transpose(x), x) for x in lowered]), precision)
        for number, (i, x) in enumerate(zip(places, lowered, strict=True)):  # TensorFlow iterates over no tensor
            step = ops.cast(ops.matmul(x, products[number]), tall[i].dtype)
            results[i] = step if tall[i] is matrices[i] else ops.transpose(step)
    return [results[i] for i in range(len(tall))]


def _products(squares: KerasTensor, precision: str) -> KerasTensor:
    """What matrices X are to be multiplied with, from their X'X: `(M, C, C)` each."""
    full = "float64" if precision == "float64" else "float32"
    squares = ops.cast(squares, full)
    traces = ops.sum(ops.diagonal(squares, axis1=1, axis2=2), axis=-1)[:, None, None]
    square = ops.cast(squares / (traces + _MIN_SQUARES), precision)
    one, product = ops.eye(squares.shape[1], dtype=precision), None
    for left, (a, b, c) in zip(reversed(range(len(POLYNOMIALS))), POLYNOMIALS, strict=True):
        polynomial = a * one + b * square + c * ops.matmul(square, square)
        product = polynomial if product is None else ops.matmul(product, polynomial)
        if left:
            square = ops.matmul(polynomial, ops.matmul(square, polynomial))
    return ops.cast(ops.cast(product, full) / ops.sqrt(traces + _MIN_SQUARES), precision)
