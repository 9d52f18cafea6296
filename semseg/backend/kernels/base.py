"""What a kernel is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

Tensor = Any  # of the backend
Update = tuple[keras.Variable, Tensor, float]  # variable, what it moves towards, and how far: 0 to 1


@dataclass(frozen=True)
class Kernel:
    """One layer of a graph.

    Attributes:
        run: From the layer's inputs and `training` to its output and a tuple of updates.
        channels_first: Inputs and output are views with the axes (N, C, H, W) of tensors that the graph has as
            (N, H, W, C); None: either way.
        fresh: The output is a new tensor whose values no gradient needs, so that the next kernel may overwrite it.
        overwriting: As `run`, but the output may take the input's place in memory.
    """

    run: Callable[..., tuple[Tensor, tuple[Update, ...]]]
    channels_first: bool | None = None
    fresh: bool = False
    overwriting: Callable[..., tuple[Tensor, tuple[Update, ...]]] | None = None
