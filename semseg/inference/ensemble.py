"""Several networks as one: the mean of their probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semseg.backend import PredictBatch
from semseg.errors import ModelFileError
from semseg.inference.logits import mean_of_views
from semseg.runs.run import Run

if TYPE_CHECKING:
    import keras

_LEAST = 1e-30  # a probability whose logarithm float32 holds


def check_alike(folder: Path, runs: Sequence[Run]) -> None:
    """Refuses runs whose networks do not see the same and tell the same apart.

    Args:
        folder: That holds them, for the message.
        runs: From `runs_in`, at least one.

    Raises:
        ModelFileError: They differ; the message names in what.
    """
    first, *others = runs
    for run in others:
        for what, has, had in zip(_ASPECTS, _aspects(run), _aspects(first), strict=True):
            if has != had:
                raise ModelFileError(
                    f"{folder}: {run.folder.name} has {what} {has}, and {first.folder.name} {had}; the mean is of "
                    "networks that see and tell apart the same: give a folder of such runs, or a single run"
                )


_ASPECTS = ("the classes", "a view of", "crops at the scale", "the bands", "the task")


def _aspects(run: Run) -> tuple[str, ...]:
    """What must be the same, in words, in the order of `_ASPECTS`."""
    height, width = run.image_size
    bands = run.facts.get("bands")
    return (
        ", ".join(run.palette.names),
        f"{width}x{height}",
        str(run.facts.get("scale")),
        f"{bands['count']} of {bands['dtype']}" if bands else "RGB",
        str(run.facts.get("task")),
    )


def mean_of_networks(networks: Sequence[PredictBatch]) -> PredictBatch:
    """A `predict_batch` whose softmax, or sigmoid, is the mean over several.

    Args:
        networks: Each from photos `(N, h, w, C)` to logits `(N, h, w, K)` or `(N, h, w, 1)`.
    """

    def predict_batch(photos: np.ndarray) -> np.ndarray:
        return mean_of_views([network(photos) for network in networks]).astype(np.float32)

    return predict_batch


def mean_model(models: "Sequence[keras.Model]", name: str) -> "keras.Model":
    """One Keras model of several, whose softmax, or sigmoid, is the mean of theirs.

    Args:
        models: From photos `(N, H, W, C)` to logits `(N, H, W, K)` or `(N, H, W, 1)`, all of one shape. Their layers
            are shared, not copied, and are not to be trained on.
        name: What to call it.

    Returns:
        A model that gives the logarithm of the mean probability; of a single logit, that of its odds.
    """
    import keras  # exported files do without Keras

    ops = keras.ops
    shape, dtype = models[0].inputs[0].shape[1:], models[0].inputs[0].dtype
    photos = keras.Input(shape, dtype=dtype, name="photos")
    logits = [_named(model, f"member_{number}")(photos) for number, model in enumerate(models, start=1)]
    activation = "softmax" if logits[0].shape[-1] > 1 else "sigmoid"

    def log_mean(views: list, of: str) -> "keras.KerasTensor":
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


def _named(model: "keras.Model", name: str) -> "keras.Model":
    import keras  # exported files do without Keras

    return keras.Model(model.inputs[0], model.outputs[0], name=name)
