"""How Keras' own layers are computed fastest on each backend; networks stay made of plain Keras layers.

A kernel does what one layer of a graph does in `fit`, with the layer's own weights. It has no side effects: what a
layer would change, such as moving averages, it returns.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

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
    """

    run: Callable[..., tuple[Tensor, tuple[Update, ...]]]
    channels_first: bool | None = None
    fresh: bool = False
    overwriting: Callable[..., tuple[Tensor, tuple[Update, ...]]] | None = None


def kernel_of(layer: keras.Operation, dtype: str) -> Kernel | None:
    """The backend's kernel for `layer` with its results in `dtype`, or None where the layer itself does best."""
    make = _room().KERNELS.get(type(layer))
    return make(layer, dtype) if make else None


def apply_updates(updates: list[Update]) -> None:
    """Moves each variable by its share towards its value: v + share * (value - v)."""
    _room().apply_updates(updates)


def swap(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`x` with its axes in another order; a view where the backend has views."""
    return _room().swap(x, axes)


def softmax_statistics(logits: Tensor, truth: Tensor, counted: Tensor) -> tuple[Tensor, Tensor] | None:
    """What losses want of a softmax, with less memory and time than its parts; None where these do as well.

    Args:
        logits: float32 `(N, H, W, K)`.
        truth: Class ids `(N, H, W)`, 0 to K-1.
        counted: float32 `(N, H, W)`, 0 or 1.

    Returns:
        -log p of the true class `(N, H, W)`, and the sums of p over the counted pixels `(K,)`.
    """
    return _room().softmax_statistics(logits, truth, counted)


def adamw(*arguments: Any, **options: Any) -> keras.optimizers.AdamW:
    """Keras' AdamW, with the backend's fused kernel where it has one."""
    return _room().ADAMW(*arguments, **options)


def _room() -> Any:
    return importlib.import_module(f"semseg.kernels.on_{keras.backend.backend()}")
