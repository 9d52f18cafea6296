"""Bands of any depth in front of a network that takes photos from 0 to 255: the scaling is a part of the model."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from semseg.backend.keras_graph import functional_graph, run_through

PREFIX = "bands_"  # of the layer's name; the type of the files' numbers follows


def scale_bands(model: keras.Model, low: Sequence[float], high: Sequence[float], dtype: str) -> keras.Model:
    """A model that takes the files' own numbers, in front of one that takes 0 to 255; it shares the layers.

    Args:
        model: From photos `(N, H, W, C)`, 0 to 255.
        low: Of each band what becomes 0, `(C,)`.
        high: What becomes 255, larger.
        dtype: NumPy's name of the files' numbers, which the layer is called after.

    Returns:
        A model of the same outputs from photos float32 `(N, H, W, C)`. What lies outside of the range is not cut off.

    Example:
        >>> inputs = keras.Input((1, 1, 2))
        >>> scaled = scale_bands(keras.Model(inputs, layers.Identity()(inputs)), [100, 0], [355, 1], "uint16")
        >>> keras.ops.convert_to_numpy(scaled(np.float32([[[[101, 1]]]]))).round(3).tolist()
        [[[[1.0, 255.0]]]]
    """
    photo = keras.Input(model.input_shape[1:], name="photo")
    spread = (np.array(high, float) - np.array(low, float)) / 255
    scale = layers.Normalization(
        axis=-1, mean=list(map(float, low)), variance=(spread**2).tolist(), name=f"{PREFIX}{dtype}", dtype="float32"
    )
    graph = functional_graph(model)
    outputs = model(scale(photo)) if graph is None else run_through(graph, scale(photo), lambda operation: operation)
    return keras.Model(photo, outputs, name=model.name)
