"""What a kernel is, and what `keras.ops` does well enough on more than one backend."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

Tensor = Any  # of the backend
Update = tuple[keras.Variable, Tensor, float]  # variable, what it moves towards, and how far: 0 to 1


@dataclass(frozen=True)
class Kernel:
    """One layer of a graph.

    Attributes:
        run: From the layer's inputs and `training` to its output and a tuple of updates.
        channels_first: Inputs and output are views with the axes (N, C, H, W) of tensors that the graph has as
            (N, H, W, C); None: either way.
        fresh: The output is a new tensor whose values no gradient needs, so that the next kernel may overwrite it.
        overwriting: As `run`, but the output may take the input's place in memory.
        divided: As `run`, for a batch in parts on several devices: from tuples of tensors to such a tuple; None where
            each part can go by itself.
    """

    run: Callable[..., tuple[Tensor, tuple[Update, ...]]]
    channels_first: bool | None = None
    fresh: bool = False
    overwriting: Callable[..., tuple[Tensor, tuple[Update, ...]]] | None = None
    divided: Callable[..., tuple[tuple[Tensor, ...], tuple[Update, ...]]] | None = None


def counts(numbers: Tensor, length: int) -> Tensor:
    """See `semseg.backend.kernels.counts`: `ops.bincount` does not compile on JAX."""
    cells = ops.minimum(numbers, length)
    return ops.scatter_update(ops.zeros(length + 1, "int32"), cells[:, None], ops.ones_like(cells), "add")[:length]


def total(x: Tensor) -> Tensor:
    """See `semseg.backend.kernels.total`: here is but one process."""
    return x


def class_sums(values: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """See `semseg.backend.kernels.class_sums`."""
    n, height = ops.shape(truth)[:2]
    rows = ops.reshape(ops.arange(n * height, dtype="int32"), (n, height, 1))
    ids = ops.reshape(rows * num_classes + truth, (-1,))
    sums = ops.segment_sum(ops.reshape(values, (-1,)), ids, n * height * num_classes)
    return ops.sum(ops.reshape(sums, (-1, num_classes)), axis=0)
