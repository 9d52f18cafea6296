"""Keras model files, opened only when nothing in them could do harm."""

from pathlib import Path

import keras

from semseg.backend.keras_graph import gives_probabilities
from semseg.errors import ModelFileError, first_line
from semseg.inference.model_file import check_model_file, weights_limited


def open_keras_model(path: Path, gives: str = "logits") -> keras.Model:
    """The model in a `.keras` or `.h5` file, which is looked through before Keras loads it.

    Args:
        path: The file.
        gives: What is known of its output: `"logits"`, `"probabilities"` or `"ids"`.

    Returns:
        A model from photos `(N, H, W, 3)` to `(N, H, W, K)`, or to ids `(N, H, W)`.

    Raises:
        ModelFileError: The file is no such model, or could do harm.
    """
    weights = check_model_file(path)
    try:
        with weights_limited(path, weights):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the file makes it meet
        raise ModelFileError(
            f"{path}: cannot be opened ({first_line(error)}); expected a model that Keras saved"
        ) from error
    _check_shapes(path, model, gives)
    if gives == "logits" and gives_probabilities(model):
        raise ModelFileError(f"{path}: ends in a softmax or sigmoid; expected logits, as the networks here give them")
    return model


def _check_shapes(path: Path, model: keras.Model, gives: str) -> None:
    tensors = (*(getattr(model, "inputs", None) or ()), *(getattr(model, "outputs", None) or ()))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    ranks = [4, 3 if gives == "ids" else 4]
    if [len(shape) for shape in shapes] == ranks:
        photos, answers = shapes
        if photos[1:3] == answers[1:3] and photos[3] == 3:
            return
    listed = " to ".join(map(str, shapes))
    raise ModelFileError(f"{path}: goes from {listed}; expected photos (N, H, W, 3) to logits (N, H, W, K)")
