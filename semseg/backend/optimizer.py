"""AdamW for a part of the weights: what an optimiser of one's own builds on, free of Keras' private names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from semseg.backend.kernels import ADAMW


class PartialAdamW(ADAMW):
    """AdamW for all weights but those whose steps a subclass computes itself, with a learning rate for each weight.

    A subclass defines `takes` and `own_steps`. Weight decay is that of AdamW for all weights; only the backend's fused
    kernel, where there is one, does not see what a subclass takes.

    Args:
        learning_rate: Float or schedule.
        rates: By what the learning rate is multiplied for variables, by their paths; 1 for all that are not there.
        options: Of `keras.optimizers.AdamW`.
    """

    def __init__(self, learning_rate: Any = 0.001, *, rates: Mapping[str, float] | None = None, **options: Any):
        super().__init__(learning_rate, **options)
        self.rates = dict(rates or {})

    def takes(self, variable: keras.Variable) -> bool:
        """Whether the steps of a variable are computed by `own_steps`."""
        raise NotImplementedError

    def own_steps(self, pairs: Sequence[tuple[KerasTensor, keras.Variable]], learning_rate: Any) -> None:
        """Changes variables that the class takes; their weights have been decayed before.

        Args:
            pairs: Gradients with their variables, to be changed by `assign_sub` and the like of the optimiser.
            learning_rate: Scalar, of this step.
        """
        raise NotImplementedError

    def momentum_of(self, variable: keras.Variable) -> keras.Variable:
        """The variable's first slot, of its shape, 0 before the first step: saved and loaded with the optimiser."""
        return self._momentums[self._get_variable_index(variable)]

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Leaves the weights as they are, where Keras puts their averages (`use_ema`) at the end of each `fit`."""

    def rate_of(self, variable: keras.Variable) -> float:
        """By what the learning rate is multiplied for a variable."""
        if not self.rates:
            return 1.0
        known = self._trainable_variables[self._get_variable_index(variable)]  # TensorFlow gives its own variables
        return self.rates.get(known.path, 1.0)

    def update_step(self, gradient: KerasTensor, variable: keras.Variable, learning_rate: KerasTensor) -> None:
        """Changes one variable."""
        learning_rate = self.rate_of(variable) * learning_rate
        if self.takes(variable):
            self.own_steps([(gradient, variable)], ops.cast(learning_rate, variable.dtype))
        else:
            super().update_step(gradient, variable, learning_rate)

    def _parallel_update_step(self, grads: list, variables: list[keras.Variable], learning_rate: Any) -> None:
        """PyTorch's way in, for all variables at once."""
        for rate, places in self._by_rate(variables):
            pairs = [(grads[i], variables[i]) for i in places]
            taken = [pair for pair in pairs if self.takes(pair[1])]
            others = [pair for pair in pairs if not self.takes(pair[1])]
            if taken:
                self.own_steps(taken, rate * learning_rate)
            if others:
                super()._parallel_update_step(*map(list, zip(*others, strict=True)), rate * learning_rate)

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        """Decays what the class takes as Keras does; AdamW has its own way with the other variables."""
        decay = self.weight_decay
        for rate, places in self._by_rate(variables):
            of_rate = [variables[i] for i in places]
            taken = [variable for variable in of_rate if self.takes(variable)]
            self.weight_decay = decay and rate * decay  # Keras multiplies it with the learning rate
            if any(map(self._use_weight_decay, taken)):  # Keras on PyTorch stumbles over none
                keras.optimizers.Optimizer._apply_weight_decay(self, taken)
            super()._apply_weight_decay([variable for variable in of_rate if not self.takes(variable)])
        self.weight_decay = decay

    def _by_rate(self, variables: Sequence[keras.Variable]) -> Iterator[tuple[float, list[int]]]:
        """The places of the variables that have one rate, for each rate."""
        rates = [self.rate_of(variable) for variable in variables]
        for rate in dict.fromkeys(rates):
            yield rate, [i for i, own in enumerate(rates) if own == rate]

    def get_config(self) -> dict:
        """Returns what `from_config` needs."""
        return {**super().get_config(), "rates": self.rates}


def build_optimizer(model: keras.Model) -> None:
    """Makes the variables of a compiled model's optimiser, unless they are there.

    TensorFlow then traces the step once, and not again with them; made twice, loss scaling would hold two of its own.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def averages_of(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The moving averages of the weights that an optimiser keeps with `use_ema`, in the order of the weights.

    Args:
        optimizer: One that was built, or the loss scaling around it.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(inner._model_variables_moving_average)
