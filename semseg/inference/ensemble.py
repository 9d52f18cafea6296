"""Several networks as one: the mean of their probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semseg.backend import PredictBatch
from semseg.errors import ModelFileError
from semseg.inference.logits import mean_of_views
from semseg.runs.run import Run


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
