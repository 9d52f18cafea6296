"""A Keras model as a plain function from photos to logits."""

import keras
import numpy as np

from semseg.backend import PredictBatch
from semseg.backend.fast_model import fastest


def predictor(model: keras.Model, batch_size: int = 8) -> PredictBatch:
    """The `predict_batch` of a Keras model, on the fastest kernels of the backend.

    Args:
        model: A Keras model from photos `(N, H, W, C)` to logits `(N, H, W, K)`.
        batch_size: Smaller batches are filled up on backends that compile, so that they see one shape only.

    Returns:
        A function from photos `(N, H, W, C)`, N at most `batch_size`, to logits float32 `(N, H, W, K)`.
    """
    fast, compiles = fastest(model), keras.backend.backend() != "torch"

    def predict_batch(photos: np.ndarray) -> np.ndarray:
        photos = photos if photos.dtype == np.uint8 else photos.astype(np.float32)  # few backends know uint16
        missing = batch_size - len(photos) if compiles else 0
        filled = np.concatenate([photos, np.repeat(photos[-1:], missing, axis=0)]) if missing > 0 else photos
        return np.asarray(fast.predict_on_batch(filled))[: len(photos)]

    return predict_batch
