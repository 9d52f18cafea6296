"""Kernels for TensorFlow: fused batch normalisation. Its graphs and XLA see to the rest."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import keras
import tensorflow as tf
from keras import layers

from semseg.backend.kernels.base import Kernel, Update, class_sums, counts, total  # noqa: F401


def swap(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """See `semseg.backend.kernels.swap`."""
    return tf.transpose(x, axes)


def apply_updates(updates: list[Update]) -> None:
    """See `semseg.backend.kernels.apply_updates`."""
    for variable, value, share in updates:
        variable.assign_add((value - variable.value) * share)


def _batch_normalization(layer: layers.BatchNormalization, dtype: str) -> Kernel | None:
    if layer.renorm or layer.synchronized or layer.input_spec.ndim != 4 or layer.axis not in (-1, 3):
        return None
    share, full = 1 - layer.momentum, "float64" if dtype == "float64" else "float32"

    def run(x: tf.Tensor, *, training: bool | None) -> tuple[tf.Tensor, tuple[Update, ...]]:
        x = tf.cast(x, dtype)
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        gamma = layer.gamma.value if layer.scale else tf.ones_like(variance)
        beta = layer.beta.value if layer.center else tf.zeros_like(mean)
        learning = bool(training) and layer.trainable
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=gamma,
            offset=beta,
            mean=tf.constant([]) if learning else mean,
            variance=tf.constant([]) if learning else variance,
            epsilon=layer.epsilon,
            is_training=learning,
        )
        if not learning:
            return outputs.y, ()
        # The kernel gives the unbiased variance; Keras' moving variance averages the biased one.
        count = tf.cast(tf.size(x) // tf.shape(x)[-1], "float32")
        biased = outputs.batch_variance * ((count - 1) / count)
        return outputs.y, ((layer.moving_mean, outputs.batch_mean, share), (layer.moving_variance, biased, share))

    def normalise_together(parts: tuple[tf.Tensor, ...], *, training: bool | None) -> tuple[tuple, tuple[Update, ...]]:
        mean, variance, updates = layer.moving_mean.value, layer.moving_variance.value, ()
        if training and layer.trainable:
            mean, variance = _moments([tf.cast(x, full) for x in parts])
            updates = ((layer.moving_mean, mean, share), (layer.moving_variance, variance, share))
        factor = tf.math.rsqrt(variance + layer.epsilon) * (layer.gamma.value if layer.scale else 1.0)
        shift = (layer.beta.value if layer.center else 0.0) - mean * factor
        results = []
        for number, x in enumerate(parts):
            with device(number):
                results.append(tf.cast(tf.cast(x, full) * factor + shift, dtype))
        return tuple(results), updates

    def normalise(x: tf.Tensor, *, training: bool | None) -> tuple[tf.Tensor, tuple[Update, ...]]:
        (y,), updates = normalise_together((x,), training=training)
        return y, updates

    fused = full == "float32"  # TensorFlow's own kernel takes no other
    return Kernel(run if fused else normalise, divided=normalise_together)


def _moments(parts: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of each channel over parts `(n, H, W, C)`, some of which may be empty."""
    pixels = tf.cast(tf.add_n([tf.size(x) // x.shape[-1] for x in parts]), parts[0].dtype)

    def mean_of(function: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        sums = []
        for number, x in enumerate(parts):
            with device(number):
                sums.append(tf.reduce_sum(function(x), (0, 1, 2)))
        return tf.add_n(sums) / pixels

    mean = mean_of(tf.identity)
    return mean, mean_of(lambda x: tf.square(x - mean))


def divide(x: tf.Tensor, parts: int) -> tuple[tf.Tensor, ...]:
    """See `semseg.backend.kernels.divide`."""
    sizes = (tf.shape(x)[0] + tf.range(parts)[::-1]) // parts
    divided = []
    for number, part in enumerate(tf.split(x, sizes, num=parts)):
        with device(number):
            divided.append(tf.identity(part))
    return tuple(divided)


def unite(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """See `semseg.backend.kernels.unite`."""
    with device(0):
        return tf.concat(parts, 0)


def device(number: int) -> AbstractContextManager:
    """See `semseg.backend.kernels.device`."""
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return tf.device(f"{kind}:{number}")


def compiled(graph: Callable, examples: Sequence[tf.Tensor]) -> Callable:
    """See `semseg.backend.kernels.compiled`: only tried, as Keras compiles the whole step."""

    @tf.function(jit_compile=True)
    def gradients(*tensors: tf.Tensor) -> list:
        with tf.GradientTape() as tape:
            outputs, _ = graph(*tensors, training=True)
            total = sum(tf.reduce_mean(x) for x in outputs)
        return tape.gradient(total, tape.watched_variables())

    gradients(*examples)
    return graph


def softmax_statistics(logits: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> None:
    """See `semseg.backend.kernels.softmax_statistics`."""


ADAMW = keras.optimizers.AdamW
KERNELS: dict[type, Callable[[layers.Layer, str], Kernel | None]] = {layers.BatchNormalization: _batch_normalization}
