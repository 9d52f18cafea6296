"""How Keras' own layers are computed fastest on each backend; networks stay made of plain Keras layers.

A kernel does what one layer of a graph does in `fit`, with the layer's own weights. It has no side effects: what a
layer would change, such as moving averages, it returns.
"""

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import keras

from semseg.backend.kernels.base import Kernel, Tensor, Update

_room = importlib.import_module(f"semseg.backend.kernels.on_{keras.backend.backend()}")


def kernel_of(layer: keras.Operation, dtype: str) -> Kernel | None:
    """The backend's kernel for a layer.

    Args:
        layer: Of a graph; its weights are used as they are at each call.
        dtype: Of the result: `"float32"`, `"bfloat16"` or `"float16"`.

    Returns:
        The kernel, or None where the layer itself does best.
    """
    make = _room.KERNELS.get(type(layer))
    return make(layer, dtype) if make else None


def apply_updates(updates: list[Update]) -> None:
    """Moves variables by a share of the way towards a value: v + share * (value - v).

    Args:
        updates: Variable, value of its shape, and share, 0 to 1, each.
    """
    _room.apply_updates(updates)


def swap(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`x` with its axes in another order; a view where the backend has views."""
    return _room.swap(x, axes)


def compiled(graph: Callable, examples: Sequence[Tensor]) -> Callable:
    """The function `graph`, compiled for the examples' shapes where Keras does not do it.

    It is tried, forwards and backwards, also where Keras does it when asked to; gradients may be left in the weights.

    Args:
        graph: Takes tensors and `training`.
        examples: A tensor for each that it takes.

    Raises:
        Exception: What the compiler raised.
    """
    return _room.compiled(graph, examples)


def softmax_statistics(logits: Tensor, truth: Tensor, counted: Tensor) -> tuple[Tensor, Tensor] | None:
    """What losses want of a softmax, with less memory and time than its parts; None where these do as well.

    Args:
        logits: float32 `(N, H, W, K)`.
        truth: Class ids `(N, H, W)`, 0 to K-1.
        counted: float32 `(N, H, W)`, 0 or 1.

    Returns:
        -log p of the true class `(N, H, W)`, and the sums of p over the counted pixels `(K,)`.
    """
    return _room.softmax_statistics(logits, truth, counted)


def counts(numbers: Tensor, length: int) -> Tensor:
    """How often each of 0 to `length` - 1 occurs, int32 `(length,)`; others count nowhere.

    Args:
        numbers: int32 `(M,)`, at least 0.
        length: Of the result.
    """
    return _room.counts(numbers, length)


def class_sums(values: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Sums of float32 values `(N, H, W)` over the pixels of each true class, `(K,)`; see `softmax_statistics`.

    Rows are summed first: one long sum in float32 loses digits.
    """
    return _room.class_sums(values, truth, num_classes)


def divide(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """A batch in parts that are as even as can be, each on the device of its number; TensorFlow alone needs it."""
    return _room.divide(x, parts)


def unite(parts: Sequence[Tensor]) -> Tensor:
    """What `divide` divided, on the first device."""
    return _room.unite(parts)


def device(number: int) -> AbstractContextManager:
    """Within it, what part `number` of a batch needs is computed on its device."""
    return _room.device(number)


def total(x: Tensor) -> Tensor:
    """The sum of `x` over all processes that train together, for what is summed over the pixels of a batch.

    The mean over the processes of their gradients is then the gradient of what is computed from the sum.

    Args:
        x: Of the photos that this process sees; integers may come back as wider ones.
    """
    return _room.total(x)


ADAMW: type[keras.optimizers.AdamW] = _room.ADAMW  # by the backend's fused kernel where it has one
