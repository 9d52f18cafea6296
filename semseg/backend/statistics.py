"""Means and variances of batch normalisation, counted anew for weights that were not trained with them."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

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
    momenta = [layer.momentum for layer in layers]
    variables = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    counted = []
    try:
        for layer in layers:
            layer.momentum = 0.0  # what is left of a moving average is the batch
        for photos in batches:
            with _without_gradients():
                model(photos, training=True)
            counted.append([keras.ops.convert_to_numpy(variable).astype(np.float64) for variable in variables])
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for variable, values in zip(variables, zip(*counted, strict=True), strict=True):
        variable.assign(np.mean(values, axis=0).astype(np.float32))


def _without_gradients() -> AbstractContextManager:
    return torch.no_grad() if keras.backend.backend() == "torch" else nullcontext()
