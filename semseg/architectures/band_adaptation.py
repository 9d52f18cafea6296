"""An image network that has learnt to see colours, for photos of another number of bands."""

import keras
import numpy as np
from keras import layers

from semseg.backend.keras_graph import all_layers, functional_graph, nodes_in_order

PROBE_SIZE = 96  # of a photo, in pixels, where the network takes any


def take_over(learnt: keras.Model, bare: keras.Model) -> None:
    """Gives a network for bands the weights of one for colours.

    Its first convolution takes the mean over the colours for each band, times 3 / C: it answers to a photo whose bands
    are all alike as before to a grey one. Which band is red is often not known, and infrared is none of the three, so
    that no band is preferred.

    Args:
        learnt: From photos `(N, H, W, 3)`.
        bare: The same layers for `(N, H, W, C)`; changed in place. Scalings of the photo are left as they are.
    """
    first = True
    for source, target in zip(_with_weights(learnt), _with_weights(bare), strict=True):
        weights = source.get_weights()
        if first and isinstance(target, layers.Conv2D):
            weights[0], first = _over_bands(weights[0], target.kernel.shape[2]), False
        target.set_weights(weights)


def _with_weights(network: keras.Model) -> list[keras.Layer]:
    inside = (layer for layer in all_layers(network) if not isinstance(layer, keras.Model | layers.Normalization))
    return [layer for layer in inside if layer.weights]


def _over_bands(kernel: np.ndarray, bands: int) -> np.ndarray:
    return np.repeat(kernel.mean(axis=2, keepdims=True), bands, axis=2) * (kernel.shape[2] / bands)


def scaling_before_convolutions(network: keras.Model) -> tuple[float, float]:
    """What photos are multiplied with before the first convolution, and what is added then: means over the channels.

    Args:
        network: From photos `(N, H, W, C)`; it scales each channel for itself.
    """
    nodes = nodes_in_order(functional_graph(network))
    before = next(node.input_tensors[0] for node in nodes if not node.is_input and _convolves(node.operation))
    photos = np.zeros((2, *(length or PROBE_SIZE for length in network.inputs[0].shape[1:])), "float32")
    photos[1] = 255
    seen = keras.ops.convert_to_numpy(keras.Model(network.inputs[0], before)(photos))
    black, white = seen[:, seen.shape[1] // 2, seen.shape[2] // 2].mean(axis=-1).astype(float)  # no rim of zeros
    return (white - black) / 255, black


def _convolves(operation: keras.Operation) -> bool:
    inside = all_layers(operation) if isinstance(operation, keras.Model) else [operation]
    return any(isinstance(layer, layers.Conv2D) for layer in inside)
