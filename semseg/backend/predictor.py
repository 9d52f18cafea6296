"""A Keras model as a plain function from photos to logits."""

import math
import threading

import keras
import numpy as np

from semseg.backend.fast_model import FastModel, fastest
from semseg.backend.keras_graph import functional_graph, nodes_in_order


class Predictor:
    """The `predict_batch` of a Keras model, which keeps what the network's deepest layer made of the last photos.

    Args:
        model: A Keras model from photos `(N, H, W, C)` to logits `(N, H, W, K)`.
        batch_size: Smaller batches are filled up on backends that compile, so that they see one shape only.
    """

    def __init__(self, model: keras.Model, batch_size: int):
        self._model = _with_features(model) or fastest(model)
        self._batch_size = batch_size if keras.backend.backend() != "torch" else 0
        self._last = threading.local()

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """From photos `(N, H, W, C)`, N at most the batch size, to logits float32 `(N, H, W, K)`."""
        photos = photos if photos.dtype == np.uint8 else photos.astype(np.float32)  # few backends know uint16
        missing = self._batch_size - len(photos)
        filled = np.concatenate([photos, np.repeat(photos[-1:], missing, axis=0)]) if missing > 0 else photos
        results = self._model.predict_on_batch(filled)
        self._last.features = None
        if isinstance(results, list):
            results, features = results
            self._last.features = np.asarray(features, np.float32)[: len(photos)]
        return np.asarray(results)[: len(photos)]

    def features(self) -> np.ndarray | None:
        """What the network made of the photos of this thread's last call, before it goes back to their size.

        Returns:
            float32 `(N, F)`: the means over the smallest of its layers; None of a network that has no such layer.
        """
        return getattr(self._last, "features", None)


def predictor(model: keras.Model, batch_size: int = 8) -> Predictor:
    """The `predict_batch` of a Keras model, on the fastest kernels of the backend.

    Args:
        model: A Keras model from photos `(N, H, W, C)` to logits `(N, H, W, K)`.
        batch_size: Smaller batches are filled up on backends that compile, so that they see one shape only.

    Returns:
        A function from photos `(N, H, W, C)`, N at most `batch_size`, to logits float32 `(N, H, W, K)`.
    """
    return Predictor(model, batch_size)


def _with_features(model: keras.Model) -> keras.Model | None:
    """The model with the means of its smallest layer as a second output; None where it has none."""
    graph = functional_graph(model, plain=True)
    if graph is None or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    tensors = [tensor for node in nodes_in_order(graph) for tensor in node.outputs]
    small = [tensor for tensor in tensors if 1 < _area(tensor) < _area(graph.inputs[0])]
    if not small:
        return None
    smallest = min(reversed(small), key=lambda tensor: (_area(tensor), -tensor.shape[3]))
    return FastModel(graph.inputs[0], [graph.outputs[0], keras.layers.GlobalAveragePooling2D()(smallest)])


def _area(tensor: keras.KerasTensor) -> float:
    """Height times width; infinite where these are free, or there are none."""
    sides = tensor.shape[1:3]
    return math.inf if len(tensor.shape) != 4 or None in sides else math.prod(sides)
