"""Kernels for JAX: XLA compiles the whole step, and needs none for speed; one without side effects for `remat`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import keras
from keras import layers

from semseg.kernels.base import Kernel, Update


def swap(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """See `semseg.kernels.swap`."""
    return jnp.transpose(x, axes)


def apply_updates(updates: list[Update]) -> None:
    """See `semseg.kernels.apply_updates`."""
    for variable, value, share in updates:
        variable.assign(variable.value + (value - variable.value) * share)


def compiled(graph: Callable, examples: Sequence[jax.Array]) -> Callable:
    """See `semseg.kernels.compiled`: Keras does it, for the whole step."""
    return graph


def softmax_statistics(logits: jax.Array, truth: jax.Array, counted: jax.Array) -> None:
    """See `semseg.kernels.softmax_statistics`."""


def _batch_normalization(layer: layers.BatchNormalization, dtype: str) -> Kernel | None:
    if layer.renorm or layer.synchronized or not isinstance(layer.axis, int):
        return None
    share, axis = 1 - layer.momentum, layer.axis % layer.input_spec.ndim
    others = tuple(k for k in range(layer.input_spec.ndim) if k != axis)

    def run(x: jax.Array, *, training: bool | None) -> tuple[jax.Array, tuple[Update, ...]]:
        x = x.astype("float32")
        learning = bool(training) and layer.trainable
        if learning:
            mean, variance = keras.ops.moments(x, others)
        else:
            mean, variance = layer.moving_mean.value, layer.moving_variance.value
        y = keras.ops.batch_normalization(
            x, mean, variance, axis, layer.beta if layer.center else None, layer.gamma if layer.scale else None,
            layer.epsilon,
        )  # fmt: skip
        updates = ((layer.moving_mean, mean, share), (layer.moving_variance, variance, share)) if learning else ()
        return y.astype(dtype), updates

    return Kernel(run)


ADAMW = keras.optimizers.AdamW
KERNELS: dict[type, Callable[[layers.Layer, str], Kernel | None]] = {layers.BatchNormalization: _batch_normalization}
