"""Keras model files, opened only when nothing in them could do harm."""

from pathlib import Path

import keras
import numpy as np

from semseg.backend.keras_graph import gives_probabilities
from semseg.errors import ModelFileError, first_line
from semseg.images.bands import RGB, Bands, suited_view
from semseg.inference.model_file import check_model_file, weights_limited

_SCALING = "bands_"  # what `scale_bands` calls its layer; the type of the files' numbers follows


def open_keras_model(path: Path, gives: str = "logits") -> keras.Model:
    """The model in a `.keras` or `.h5` file, which is looked through before Keras loads it.

    Args:
        path: The file.
        gives: What is known of its output: `"logits"`, `"probabilities"` or `"ids"`.

    Returns:
        A model from photos `(N, H, W, C)` to `(N, H, W, K)`, or to ids `(N, H, W)`.

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


def bands_of_model(model: keras.Model) -> Bands:
    """What a model that was trained on bands says of them by its layer that scales them; RGB where it has none.

    Args:
        model: Any functional Keras model.
    """
    layer = next((layer for layer in model.layers if layer.name.startswith(_SCALING)), None)
    if not isinstance(layer, keras.layers.Normalization) or layer.input_mean is None:
        return RGB
    low, spread = np.ravel(layer.input_mean), 255 * np.sqrt(np.ravel(layer.input_variance))
    count, high = len(low), low + spread
    return Bands(
        count, layer.name.removeprefix(_SCALING), (), tuple(low.tolist()), tuple(high.tolist()),
        tuple(((low + high) / 2).tolist()), suited_view(count, ()),
    )  # fmt: skip


def _check_shapes(path: Path, model: keras.Model, gives: str) -> None:
    tensors = (*(getattr(model, "inputs", None) or ()), *(getattr(model, "outputs", None) or ()))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    ranks = [4, 3 if gives == "ids" else 4]
    if [len(shape) for shape in shapes] == ranks:
        photos, answers = shapes
        if photos[1:3] == answers[1:3] and photos[3] == bands_of_model(model).count:
            return
    listed = " to ".join(map(str, shapes))
    raise ModelFileError(f"{path}: goes from {listed}; expected photos (N, H, W, 3) to logits (N, H, W, K)")
