"""The average of a network's weights over the end of a training, tried against the best single epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from semseg.backend.optimizer import averages_of
from semseg.backend.statistics import count_statistics
from semseg.data.batches import Batches
from semseg.training.callbacks import BEST_BY, KeepBest

MAX_BATCHES = 64  # that the statistics of batch normalisation are counted over


@dataclass
class Averaged:
    """What became of the averaged weights.

    Args:
        score: Their mean IoU on validation; None where they were not tried.
        best: The highest of a single epoch.
    """

    score: float | None = None
    best: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether they are better than those of any epoch."""
        return self.score is not None and self.score > self.best

    def __str__(self) -> str:
        """In words."""
        if self.score is None:
            return "not tried"
        kept = "better than any epoch's, and kept" if self.is_kept else "no better than the best epoch's, and not kept"
        return f"mean IoU {self.score:.4f} on validation, {kept} ({self.best:.4f})"


def try_average(
    trained: keras.Model, keeper: KeepBest, batches: tuple[Batches, Batches], epoch: int, look: Callable[[], None]
) -> Averaged:
    """Gives a network its averaged weights, judges them, and saves them if no epoch was as good.

    Args:
        trained: The network after its last epoch, compiled with an optimiser that averages; it has the averages then.
        keeper: Knows the best epoch, and saves.
        batches: Of training, over which the statistics of batch normalisation are counted anew, and of validation.
        epoch: Of the training batches, from 0.
        look: Called between batches; may raise.
    """
    train_batches, val_batches = batches
    for variable, average in zip(trained.trainable_variables, averages_of(trained.optimizer), strict=True):
        variable.assign(average)
    train_batches.start_epoch(epoch)
    count_statistics(keeper.plain_model, _photos(train_batches, look))
    watch = keras.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: look())
    scores = trained.evaluate(val_batches, callbacks=[watch], return_dict=True, verbose=0)
    averaged = Averaged(float(scores[BEST_BY.removeprefix("val_")]), keeper.best)
    if averaged.is_kept:
        keeper.save()
    return averaged


def _photos(batches: Batches, look: Callable[[], None]) -> Iterator[np.ndarray]:
    for index in range(min(len(batches), MAX_BATCHES)):
        look()
        yield batches[index][0].astype(np.float32)
