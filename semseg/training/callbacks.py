"""What happens between the steps and epochs of a training."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from semseg.data.batches import Batches
from semseg.errors import NonFiniteLossError
from semseg.files import replacing, write_csv

BEST_BY = "val_mean_iou"
MAX_LISTED = 8  # photos that a message lists


class CountEpochs(keras.callbacks.Callback):
    """Tells the batches which epoch it is: adapters of some backends look at batches before the first one.

    Args:
        batches: Of the training split.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        """Passes the number on."""
        self.batches.start_epoch(epoch)


class Recorder(keras.callbacks.Callback):
    """Keeps one row per epoch in `history` and writes all of them to a CSV file.

    Args:
        path: The file.
        batches: Whose waiting counts.
    """

    def __init__(self, path: Path, batches: Sequence[Batches]):
        super().__init__()
        self.path, self.batches = path, batches
        self.history: list[dict[str, float]] = []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start, self._waited = time.perf_counter(), self._waiting()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's row."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["learning_rate"] = _learning_rate(self.model)
        row["seconds"] = time.perf_counter() - self._start
        row["waiting"] = self._waiting() - self._waited
        self.history.append(row)
        write_csv(self.path, self.history)

    def _waiting(self) -> float:
        return sum(sum(batches.waited.values()) for batches in self.batches)


class KeepBest(keras.callbacks.Callback):
    """Saves the plain model whenever the validation's mean IoU is higher than ever before.

    Args:
        plain_model: What is saved; shares its layers with the model that is trained.
        path: The `.keras` file.
    """

    def __init__(self, plain_model: keras.Model, path: Path):
        super().__init__()
        self.plain_model, self.path = plain_model, path
        self.best, self.epoch = -math.inf, 0  # the epoch counts from 1; 0 before the first

    def on_epoch_end(self, epoch, logs=None):
        """Saves if this epoch is the best."""
        if logs[BEST_BY] > self.best:
            self.best, self.epoch = logs[BEST_BY], epoch + 1
            with replacing(self.path) as temporary:
                self.plain_model.save(temporary)


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run when the loss is no number any more, instead of training on garbage.

    Args:
        batches: Of the training split.
        keeper: Knows which weights are safe.
    """

    def __init__(self, batches: Batches, keeper: KeepBest):
        super().__init__()
        self.batches, self.keeper = batches, keeper

    def on_train_batch_end(self, batch, logs=None):
        """Raises a `NonFiniteLossError` if the mean loss so far is not finite."""
        if math.isfinite(logs["loss"]):
            return
        photos = self.batches.photos(batch)
        listed = ", ".join(map(str, photos[:MAX_LISTED]))
        if len(photos) > MAX_LISTED:
            listed += f" and {len(photos) - MAX_LISTED} more"
        kept = f"the best weights until then, of epoch {self.keeper.epoch}, are in {self.keeper.path}"
        raise NonFiniteLossError(
            f"epoch {self.batches.epoch + 1}, step {batch + 1}: the loss is {float(logs['loss'])}, at a learning rate "
            f"of {_learning_rate(self.model):.2g}, for the photos {listed}; "
            f"{kept if self.keeper.epoch else 'no epoch was over yet'}. "
            "Use a smaller `learning_rate`; if these photos come up again, look at them"
        )


def _learning_rate(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
