"""Means and variances of batch normalisation, counted anew for weights that were not trained with them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np

from semseg.backend.keras_graph import all_layers

if keras.backend.backend() == "torch":
    import torch


def count_statistics(model: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """Gives each batch normalisation the mean over batches of the means and variances of what it sees.

    Args:
        model: Any Keras model; layers that are not `trainable` keep their own.
        batches: Photos `(N, H, W, C)` as the model takes them, at least one batch.

    Example:
        >>> model = keras.Sequential([keras.Input((1, 1, 1)), keras.layers.BatchNormalization()])
        >>> count_statistics(model, [np.float32([0, 2]).reshape(2, 1, 1, 1), np.float32([4, 8]).reshape(2, 1, 1, 1)])
        >>> [float(np.ravel(weight)[0]) for weight in model.get_weights()[2:]]
        [3.5, 2.5]
    """
    layers = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    layers = [layer for layer in layers if layer.trainable]
    with _remembering_nothing(layers), _without_gradients():
        counted = [_statistics_in(model, layers, photos) for photos in batches]
    for layer, values in zip(layers, zip(*counted, strict=True), strict=True):
        mean, variance = np.mean(values, axis=0)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def _statistics_in(model: keras.Model, layers: Sequence[Any], photos: np.ndarray) -> list[np.ndarray]:
    """Mean and variance of what each layer sees, `(2, C)`."""
    model(photos, training=True)
    both = ((layer.moving_mean, layer.moving_variance) for layer in layers)
    return [np.array([keras.ops.convert_to_numpy(variable) for variable in pair], np.float64) for pair in both]


@contextmanager
def _remembering_nothing(layers: Sequence[Any]) -> Iterator[None]:
    """Within it, the moving averages are those of the last batch alone."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _without_gradients() -> AbstractContextManager:
    return torch.no_grad() if keras.backend.backend() == "torch" else nullcontext()
