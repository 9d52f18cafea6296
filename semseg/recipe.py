"""How a run learns: learning rate over the steps, optimiser, memory of batch normalisation, first bias.

All of it follows from the size of the run. `benchmarks/recipe.py --ablation` measures what each part is worth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import KerasTensor, ops

from semseg.config import RunConfig
from semseg.muon import Muon
from semseg.segmentation_model import BATCH_NORM_MOMENTUM

WARM_UP = 0.1  # share of all steps in which the learning rate rises
WEIGHT_DECAY = 0.1
FORGOTTEN = 0.01  # share of their first values that moving averages may still hold after an epoch
RAREST = 1e-4  # share of the pixels below which a class starts no less likely


@dataclass(frozen=True)
class Recipe:
    """How a run of so many steps learns.

    Attributes:
        steps: Batches in all.
        warm_up: Of these, those in which the learning rate rises.
        learning_rate: Its peak.
        weight_decay: Of the kernels; biases and normalisations have none.
        accumulate: Batches whose gradients are averaged for one change of the weights.
        batch_norm_momentum: The most that moving averages keep of themselves at a step.
        precision: In which Muon looks for its steps: `"bfloat16"` where the network computes in it, else `"float32"`.
    """

    steps: int
    warm_up: int
    learning_rate: float
    weight_decay: float
    accumulate: int
    batch_norm_momentum: float
    precision: str

    @classmethod
    def suited(cls, config: RunConfig, steps_per_epoch: int) -> "Recipe":
        """The recipe for a run.

        Args:
            config: Epochs, learning rate and accumulate are read.
            steps_per_epoch: Batches of an epoch.
        """
        steps = config.epochs * steps_per_epoch
        return cls(
            steps=steps,
            warm_up=int(WARM_UP * steps),
            learning_rate=config.learning_rate,
            weight_decay=WEIGHT_DECAY,
            accumulate=config.accumulate,
            batch_norm_momentum=min(BATCH_NORM_MOMENTUM, FORGOTTEN ** (1 / steps_per_epoch)),
            precision="bfloat16" if config.precision == "mixed_bfloat16" else "float32",
        )

    def __str__(self) -> str:
        """What was chosen and why, for people."""
        rate = f"Muon, learning rate {self.learning_rate:g}, falling along a cosine"
        if self.warm_up:
            rate = (
                f"Muon, learning rate rising to {self.learning_rate:g} in the first {self.warm_up} of {self.steps} "
                "steps, then falling along a cosine"
            )
        rate += "; starts from the classes' shares"
        if self.batch_norm_momentum == BATCH_NORM_MOMENTUM:
            return rate
        return f"{rate}; few steps per epoch, so batch norm forgets faster (momentum {self.batch_norm_momentum:.2f})"

    def schedule(self) -> "OneCycle":
        """The learning rate at each step."""
        return OneCycle(self.learning_rate, self.steps, self.warm_up)

    def optimizer(self) -> keras.optimizers.Optimizer:
        """Muon, without weight decay for biases and normalisations."""
        accumulated = self.accumulate if self.accumulate > 1 else None
        optimizer = Muon(
            self.schedule(),
            weight_decay=self.weight_decay,
            precision=self.precision,
            gradient_accumulation_steps=accumulated,
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer


@keras.saving.register_keras_serializable("semseg")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in a line and falls along half a cosine; it is above 0 in every step of the run.

    Step s, from 0, has (s + 1) / (warm_up + 1) of the peak while s is below `warm_up`, and from there on
    (1 + cos(pi r)) / 2 of it, with r = (s - warm_up) / (steps - warm_up).

    Args:
        peak: The highest learning rate.
        steps: Steps of the run, at least 1; later ones have 0.
        warm_up: Steps before the peak; at least 0, below `steps`.

    Reference: Smith and Topin 2018, https://arxiv.org/abs/1708.07120 (one cycle); Loshchilov and Hutter 2017,
        https://arxiv.org/abs/1608.03983 (cosine).

    Example:
        >>> schedule = OneCycle(0.01, steps=3, warm_up=1)
        >>> [round(float(schedule(step)), 4) for step in range(4)]
        [0.005, 0.01, 0.005, 0.0]
    """

    def __init__(self, peak: float, steps: int, warm_up: int):
        if not 0 <= warm_up < steps:
            raise ValueError(
                f"OneCycle: got {warm_up=} of {steps=}; expected at least 0, and below the steps of the run"
            )
        self.peak, self.steps, self.warm_up = peak, steps, warm_up

    def __call__(self, step: KerasTensor) -> KerasTensor:
        """The learning rate at `step`, a float32 scalar."""
        step = ops.cast(step, "float32")
        rising = (step + 1) / (self.warm_up + 1)
        done = ops.clip((step - self.warm_up) / (self.steps - self.warm_up), 0.0, 1.0)
        falling = ops.square(ops.cos(math.pi / 2 * done))  # the same, without the rounding of 1 + cos near -1
        return self.peak * ops.where(step < self.warm_up, rising, falling)

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {"peak": self.peak, "steps": self.steps, "warm_up": self.warm_up}


def prepare(model: keras.Model, recipe: Recipe, shares: Sequence[float] | None = None) -> None:
    """Makes a new network ready for its first step.

    Args:
        model: From `build_model`, not trained yet.
        recipe: Its `batch_norm_momentum` is the most that layers may have.
        shares: Of the classes among the counted pixels, `(K,)`; the last bias then starts where a network that sees
            nothing gives just these probabilities. None leaves it as it is, and so does a bias that has been learnt.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, recipe.batch_norm_momentum)
    if shares is not None:
        shares = np.maximum(np.asarray(shares, float), RAREST)
        for output in model.outputs:
            _start_from(output._keras_history.operation, np.log(shares))


def _start_from(layer: keras.layers.Layer, log_shares: np.ndarray) -> None:
    """Sets the bias of a layer that gives logits, if it is still 0; what is no such layer is left as it is."""
    bias = getattr(layer, "bias", None)
    logits = log_shares[1:] - log_shares[:1] if len(log_shares) == 2 else log_shares - log_shares.mean()
    if bias is not None and tuple(bias.shape) == logits.shape and not ops.convert_to_numpy(bias).any():
        bias.assign(logits)
