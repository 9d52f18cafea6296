"""Keras model files, opened only when nothing in them could do harm."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from semseg.backend.devices import leave_tensorflow_out
from semseg.backend.keras_graph import functional_graph, gives_probabilities, run_through
from semseg.errors import ModelFileError, first_line
from semseg.images.bands import RGB, Bands, suited_view
from semseg.inference.model_file import check_model_file, weights_limited

_SCALING = "bands_"  # what `scale_bands` calls its layer; the type of the files' numbers follows
_PROBE_SIZE = 256  # pixels of the sides of a photo, where the network takes any
_MAX_INPUT = 100_000_000  # pixels of a photo
_LEAST = 1e-30  # a probability whose logarithm float32 holds
_MAX_PER_PIXEL, _MAX_IN_ALL = 2048, 1 << 15  # numbers that one layer, and all, may give for each pixel of a photo,
_SMALL, _SMALL_IN_ALL = 1 << 26, 1 << 28  # unless there are no more than so many


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
    leave_tensorflow_out()
    weights = check_model_file(path)
    try:
        with weights_limited(path, weights):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the file makes it meet
        raise ModelFileError(
            f"{path}: cannot be opened ({first_line(error)}); expected a model that Keras saved"
        ) from error
    _check_shapes(path, model, gives)
    _check_size_of_features(path, model)
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


def _check_size_of_features(path: Path, model: keras.Model) -> None:
    """Refuses layers that make far more of a photo than networks do, such as gigabytes of a pixel; computes nothing."""
    height, width = (side or _PROBE_SIZE for side in model.inputs[0].shape[1:3])
    pixels, total = height * width, 0
    most, most_in_all = max(_SMALL, _MAX_PER_PIXEL * pixels), max(_SMALL_IN_ALL, _MAX_IN_ALL * pixels)
    if pixels > _MAX_INPUT:
        raise ModelFileError(f"{path}: sees photos of {width}x{height} pixels; expected at most {_MAX_INPUT:,} pixels")

    def visit(operation: keras.Operation) -> Callable[..., Any]:
        def spec(*args: Any, **kwargs: Any) -> Any:
            nonlocal total
            inner = functional_graph(operation, plain=True)
            if inner is not None and len(args) == 1:
                return run_through(inner, args[0], visit)
            outputs = operation.compute_output_spec(*args, **kwargs)
            made = sum(math.prod(tensor.shape) for tensor in keras.tree.flatten(outputs))
            total += made
            if made > most or total > most_in_all:
                raise ModelFileError(
                    f"{path}: the layer {operation.name} makes {max(made, total) / 1e9:.1f} billion numbers of a photo "
                    f"of {width}x{height} pixels, more than networks for photos need; it is not used"
                )
            return outputs

        return spec

    run_through(functional_graph(model), keras.KerasTensor((1, height, width, 3)), visit)


def mean_model(models: Sequence[keras.Model], name: str) -> keras.Model:
    """One Keras model of several, whose softmax, or sigmoid, is the mean of theirs.

    Args:
        models: From photos `(N, H, W, C)` to logits `(N, H, W, K)` or `(N, H, W, 1)`, all of one shape. Their layers
            are shared, not copied, and are not to be trained on.
        name: What to call it.

    Returns:
        A model that gives the logarithm of the mean probability; of a single logit, that of its odds.
    """
    ops = keras.ops
    shape, dtype = models[0].inputs[0].shape[1:], models[0].inputs[0].dtype
    photos = keras.Input(shape, dtype=dtype, name="photos")
    logits = [_named(model, f"member_{number}")(photos) for number, model in enumerate(models, start=1)]
    activation = "softmax" if logits[0].shape[-1] > 1 else "sigmoid"

    def log_mean(views: list, of: str) -> keras.KerasTensor:
        activated = [keras.layers.Activation(activation, name=f"{of}_{i}")(view) for i, view in enumerate(views, 1)]
        total = activated[0]
        for other in activated[1:]:
            total = ops.add(total, other)
        return ops.log(ops.maximum(ops.multiply(total, 1 / len(views)), _LEAST))

    mean = log_mean(logits, "probabilities")
    if activation == "sigmoid":  # 1 - p, from -x: where p rounds to 1 nothing would be left
        mean = ops.subtract(mean, log_mean([ops.negative(view) for view in logits], "others"))
    model = keras.Model(photos, mean, name=name)
    model.trainable = False  # PyTorch's exporter takes the weights of models in models for constants
    return model


def _named(model: keras.Model, name: str) -> keras.Model:
    return keras.Model(model.inputs[0], model.outputs[0], name=name)
