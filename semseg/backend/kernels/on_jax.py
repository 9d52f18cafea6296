"""Kernels for JAX: what XLA is slow at on a CPU, and batch normalisation without side effects for `remat`.

The gradients of XLA's own pooling and transposed convolution take 5 and 10 times as long there as those written here.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import keras
from keras import layers

from semseg.backend.kernels.base import Kernel, Update, class_sums, counts, total  # noqa: F401


def swap(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """See `semseg.backend.kernels.swap`."""
    return jnp.transpose(x, axes)


def apply_updates(updates: list[Update]) -> None:
    """See `semseg.backend.kernels.apply_updates`."""
    for variable, value, share in updates:
        variable.assign(variable.value + (value - variable.value) * share)


def compiled(graph: Callable, examples: Sequence[jax.Array]) -> Callable:
    """See `semseg.backend.kernels.compiled`: Keras does it, for the whole step."""
    return graph


def softmax_statistics(logits: jax.Array, truth: jax.Array, counted: jax.Array) -> None:
    """See `semseg.backend.kernels.softmax_statistics`."""


def _batch_normalization(layer: layers.BatchNormalization, dtype: str) -> Kernel | None:
    if layer.renorm or layer.synchronized or not isinstance(layer.axis, int):
        return None
    full = "float64" if dtype == "float64" else "float32"  # Keras' own layer takes no more than float32 here
    share, axis = 1 - layer.momentum, layer.axis % layer.input_spec.ndim
    others = tuple(k for k in range(layer.input_spec.ndim) if k != axis)

    def run(x: jax.Array, *, training: bool | None) -> tuple[jax.Array, tuple[Update, ...]]:
        x = x.astype(full)
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


def _max_pooling(layer: layers.MaxPooling2D, dtype: str) -> Kernel | None:
    """Of squares that do not overlap: they become axes of their own, and the first largest value is picked."""
    rows, columns = layer.pool_size
    apart = layer.padding == "valid" and layer.pool_size == layer.strides
    if layer.data_format != "channels_last" or not apart or rows * columns > 9:  # each place is a step of its own
        return None

    def run(x: jax.Array, *, training: bool | None) -> tuple[jax.Array, tuple]:
        n, height, width, channels = x.shape
        height, width = height // rows, width // columns
        x = x[:, : height * rows, : width * columns].astype(dtype)
        x = x.reshape(n, height, rows, width, columns, channels)
        largest = x[:, :, 0, :, 0]
        for place in range(1, rows * columns):
            other = x[:, :, place // columns, :, place % columns]
            largest = jnp.where((other > largest) | jnp.isnan(other), other, largest)
        return largest, ()

    return Kernel(run)


def _transposed_convolution(layer: layers.Conv2DTranspose, dtype: str) -> Kernel | None:
    """Of squares that do not overlap: a matrix product, whose columns become the squares."""
    usual = layer.data_format == "channels_last" and layer.kernel_size == layer.strides and not layer.output_padding
    if not usual or max(layer.dilation_rate) > 1 or getattr(layer, "quantization_mode", None):
        return None
    rows, columns = layer.kernel_size

    def run(x: jax.Array, *, training: bool | None) -> tuple[jax.Array, tuple]:
        n, height, width, _ = x.shape
        y = jnp.einsum("nhwi,rcoi->nhrwco", x.astype(dtype), layer.kernel.value.astype(dtype))
        y = y.reshape(n, height * rows, width * columns, -1)
        return layer.activation(y if layer.bias is None else y + layer.bias.value.astype(dtype)), ()

    return Kernel(run)


ADAMW = keras.optimizers.AdamW
KERNELS: dict[type, Callable[[layers.Layer, str], Kernel | None]] = {
    layers.BatchNormalization: _batch_normalization,
    layers.MaxPooling2D: _max_pooling,
    layers.Conv2DTranspose: _transposed_convolution,
}
