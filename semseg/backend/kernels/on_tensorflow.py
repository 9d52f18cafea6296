"""Kernels for TensorFlow: fused batch normalisation. Its graphs and XLA see to the rest."""

from collections.abc import Callable, Sequence

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
    if dtype == "float64":
        return None
    share = 1 - layer.momentum

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

    return Kernel(run)


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
