"""How a run learns: learning rate over the steps, optimiser, memory of batch normalisation, first bias.

All of it follows from the size of the run. The ablation in `benchmarks/recipe.py` measures what each part is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import CosineDecay

from semseg.architectures.levels import encoder_levels
from semseg.backend.keras_graph import all_layers, producer
from semseg.runs.config import RunConfig
from semseg.segmentation_model import BATCH_NORM_MOMENTUM
from semseg.training.muon import Muon

WEIGHT_DECAY = 0.1
LEFT_AFTER_AN_EPOCH = 0.01  # share of their first values that moving averages may still hold then
AVERAGED_SHARE = 0.1  # of the steps: what averaged weights look back on
ENCODER_RATE = 0.1  # of the learning rate, for an encoder that has learnt before
MIN_SHARE = 1e-4  # of the pixels: a class with fewer starts no less likely


@dataclass(frozen=True)
class Recipe:
    """How a run of so many steps learns.

    Args:
        steps: Batches in all.
        learning_rate: In the first step; it falls along half a cosine.
        weight_decay: Of the kernels; biases and normalisations have none.
        accumulate: Batches whose gradients are averaged for one change of the weights.
        batch_norm_momentum: The most that moving averages keep of themselves at a step.
        precision: In which Muon looks for its steps: `"bfloat16"` where the network computes in it, else `"float32"`.
        average: Whether a moving average of the weights is kept beside them.
        encoder_rate: By what the learning rate is multiplied in the encoder.
        encoder_norms_fixed: Whether batch normalisation in the encoder stays as it is: averages, scale and shift.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    accumulate: int
    batch_norm_momentum: float
    precision: str
    average: bool = False
    encoder_rate: float = 1.0
    encoder_norms_fixed: bool = False

    @classmethod
    def suited(cls, config: RunConfig, steps_per_epoch: int) -> "Recipe":
        """The recipe for a run.

        Args:
            config: Epochs, learning rate, accumulate, precision and average are read.
            steps_per_epoch: Batches of an epoch.
        """
        return cls(
            steps=config.epochs * steps_per_epoch,
            learning_rate=config.learning_rate,
            weight_decay=WEIGHT_DECAY,
            accumulate=config.accumulate,
            batch_norm_momentum=min(BATCH_NORM_MOMENTUM, LEFT_AFTER_AN_EPOCH ** (1 / steps_per_epoch)),
            precision="bfloat16" if config.precision == "mixed_bfloat16" else "float32",
            average=config.average,
            encoder_rate=ENCODER_RATE if config.encoder_is_learnt else 1.0,
            encoder_norms_fixed=config.encoder_is_learnt,
        )

    def schedule(self) -> CosineDecay:
        """The learning rate at each step.

        Reference: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.
        """
        return CosineDecay(self.learning_rate, self.steps)

    def optimizer(self, model: keras.Model) -> keras.optimizers.Optimizer:
        """Muon, without weight decay for biases and normalisations.

        Args:
            model: Whose encoder has a learning rate of its own.
        """
        encoder = encoder_levels(model) if self.encoder_rate != 1 else []
        weights = [weight for level in encoder for layer in level for weight in layer.weights]
        optimizer = Muon(
            self.schedule(),
            rates={weight.path: self.encoder_rate for weight in weights},
            weight_decay=self.weight_decay,
            precision=self.precision,
            gradient_accumulation_steps=self.accumulate if self.accumulate > 1 else None,
            use_ema=self.average,
            ema_momentum=1 - 1 / max(1.0, AVERAGED_SHARE * self.steps),
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer


def prepare(model: keras.Model, recipe: Recipe, shares: Sequence[float] | None = None) -> None:
    """Makes a new network ready for its first step.

    Args:
        model: From `build_model`, not trained yet.
        recipe: Its `batch_norm_momentum` is the most that layers may have.
        shares: Of the classes among the counted pixels, `(K,)`; the last bias then starts where a network that sees
            nothing gives just these probabilities. None leaves it as it is, and so does a bias that has been learnt.
    """
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, recipe.batch_norm_momentum)
    fix_norms(model, recipe)
    if shares is not None:
        shares = np.maximum(np.asarray(shares, float), MIN_SHARE)
        for output in model.outputs:
            _start_from(producer(output), np.log(shares))


def fix_norms(model: keras.Model, recipe: Recipe) -> None:
    """Lets batch normalisation in the encoder stay as it is, where the recipe says so."""
    for layer in (layer for level in encoder_levels(model) for layer in level) if recipe.encoder_norms_fixed else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _start_from(layer: keras.layers.Layer, log_shares: np.ndarray) -> None:
    """Sets the bias of a layer that gives logits, if it is still 0; what is no such layer is left as it is."""
    bias = getattr(layer, "bias", None)
    logits = log_shares[1:] - log_shares[:1] if len(log_shares) == 2 else log_shares - log_shares.mean()
    if bias is not None and tuple(bias.shape) == logits.shape and not ops.convert_to_numpy(bias).any():
        bias.assign(logits)
