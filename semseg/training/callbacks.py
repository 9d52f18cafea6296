"""What happens between the steps and epochs of a training."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from semseg.backend.devices import gpu_joules
from semseg.backend.processes import Processes
from semseg.backend.state import seed_batch
from semseg.data.batches import Batches
from semseg.errors import NonFiniteLossError
from semseg.files import replacing, write_csv
from semseg.runs.checkpoints import Position
from semseg.runs.spent import Spent

BEST_BY = "val_mean_iou"
MAX_LISTED = 8  # photos that a message lists


class CountEpochs(keras.callbacks.Callback):
    """Tells the batches which epoch it is: adapters of some backends look at batches before the first one.

    Layers without a seed of their own draw as (seed, epoch, batch) says.

    Args:
        batches: Of the training split.
        seed: Of the run.
        start: Where the training begins.
    """

    def __init__(self, batches: Batches, seed: int, start: Position):
        super().__init__()
        self.batches, self.seed, self.start = batches, seed, start

    def on_epoch_begin(self, epoch, logs=None):
        """Passes the number on, and of the first one the batches that are over."""
        self.epoch, self.first = epoch, self.start.batch if epoch == self.start.epoch else 0
        self.batches.start_epoch(epoch, self.first)

    def on_train_batch_begin(self, batch, logs=None):
        """Seeds the batch."""
        seed_batch(self.seed, self.epoch, self.first + batch)

    def on_test_begin(self, logs=None):
        """Seeds what comes after the training batches, of which a run that goes on may have none left."""
        seed_batch(self.seed, self.epoch, self.batches.per_epoch)


class CountPhotos(keras.callbacks.Callback):
    """Tells the processes that train together how many photos the batch in hand holds, here and in all.

    Args:
        batches: Of the training and the validation split.
        processes: Those that this one belongs to.
    """

    def __init__(self, batches: tuple[Batches, Batches], processes: Processes):
        super().__init__()
        self.batches, self.processes = batches, processes

    def on_train_batch_begin(self, batch, logs=None):
        """Counts a batch for training; Keras gives its number, a first look at the shapes has none."""
        self.processes.own_photos, self.processes.photos = self.batches[0].photo_counts(batch)

    def on_test_batch_begin(self, batch, logs=None):
        """Counts a batch for validation."""
        self.processes.own_photos, self.processes.photos = self.batches[1].photo_counts(batch)


class Meter(keras.callbacks.Callback):
    """Measures what a training takes, from its first batch in this process to the end of its last epoch.

    Args:
        processes: Those that this one belongs to, of which `CountPhotos` tells how many photos a batch holds.
        goes_on: Whether it was begun before.
    """

    def __init__(self, processes: Processes, goes_on: bool):
        super().__init__()
        self.processes, self.goes_on, self.photos = processes, goes_on, 0
        self._start = self._end = self._read()

    def on_train_begin(self, logs=None):
        """Starts; the rest of an epoch that was begun before is a training of its own, after which nothing starts."""
        if not self.photos:
            self._start = self._end = self._read()

    def on_train_batch_end(self, batch, logs=None):
        """Counts the photos of all processes."""
        self.photos += self.processes.photos

    def on_epoch_end(self, epoch, logs=None):
        """Reads clocks and meter."""
        self._end = self._read()

    @property
    def spent(self) -> Spent | None:
        """Until the end of the last epoch; None where nothing was left to learn."""
        if not self.photos:
            return None
        (seconds, cpu, joules), (end, cpu_end, joules_end) = self._start, self._end
        energy = None if joules is None or joules_end is None else (joules_end - joules) / 3600
        return Spent(self.photos, end - seconds, cpu_end - cpu, energy, self.goes_on)

    @staticmethod
    def _read() -> tuple[float, float, float | None]:
        return time.perf_counter(), time.process_time(), gpu_joules()


class Recorder(keras.callbacks.Callback):
    """Keeps one row per epoch in `history` and writes all of them to a CSV file.

    Args:
        path: The file.
        batches: Whose waiting counts.
        writes: Whether the file is this process' to write.
    """

    def __init__(self, path: Path, batches: Sequence[Batches], writes: bool = True):
        super().__init__()
        self.path, self.batches, self.writes = path, batches, writes
        self.history: list[dict[str, float]] = []
        self._before = 0.0, 0.0  # seconds, and waiting of these, of an epoch that was begun by another process
        self._start, self._waited = time.perf_counter(), 0.0

    def restore(self, history: list[dict[str, float]], seconds: float, waiting: float) -> None:
        """Goes on after these rows, and after so many seconds, with those of waiting, of the epoch after them."""
        self.history = [{**row, "epoch": int(row["epoch"])} for row in history]
        self._before = seconds, waiting
        if history:
            self._write()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start, self._waited = time.perf_counter(), self._waiting()

    def so_far(self) -> tuple[float, float]:
        """Seconds of the epoch until now, and those of them that went by waiting for data."""
        seconds, waiting = self._before
        return seconds + time.perf_counter() - self._start, waiting + self._waiting() - self._waited

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's row."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["learning_rate"] = _learning_rate(self.model)
        row["seconds"], row["waiting"] = self.so_far()
        self._before = 0.0, 0.0
        self.history.append(row)
        self._write()

    def _write(self) -> None:
        if self.writes:
            write_csv(self.path, self.history)

    def _waiting(self) -> float:
        return sum(sum(batches.waited.values()) for batches in self.batches)


class KeepBest(keras.callbacks.Callback):
    """Saves the plain model whenever the validation's mean IoU is higher than ever before.

    Args:
        plain_model: What is saved; shares its layers with the model that is trained.
        path: The `.keras` file.
        writes: Whether it is this process' to write.
    """

    def __init__(self, plain_model: keras.Model, path: Path, writes: bool = True):
        super().__init__()
        self.plain_model, self.path, self.writes = plain_model, path, writes
        self.best, self.epoch = -math.inf, 0  # the epoch counts from 1; 0 before the first

    def restore(self, history: Sequence[dict[str, float]], model: Path | None) -> None:
        """Goes on after these rows, with the best weights until then."""
        for row in history:
            if row[BEST_BY] > self.best:
                self.best, self.epoch = row[BEST_BY], int(row["epoch"])
        if self.writes and model is not None and model != self.path:
            with replacing(self.path) as temporary:
                shutil.copyfile(model, temporary)

    def on_epoch_end(self, epoch, logs=None):
        """Saves if this epoch is the best."""
        if logs[BEST_BY] > self.best:
            self.best, self.epoch = logs[BEST_BY], epoch + 1
            self.save()

    def save(self) -> None:
        """Writes the weights as they are now."""
        if self.writes:
            with replacing(self.path) as temporary:
                self.plain_model.save(temporary)

    def load(self) -> None:
        """Gives the model the weights of its best epoch, where they were written."""
        if self.writes:
            self.plain_model.load_weights(self.path)


class StopEarly(keras.callbacks.Callback):
    """Ends a training when the validation has not become better for some epochs.

    Args:
        keeper: Knows the best epoch.
        patience: So many epochs; None for no end.
    """

    def __init__(self, keeper: KeepBest, patience: int | None):
        super().__init__()
        self.keeper, self.patience = keeper, patience

    def ends_after(self, epochs: int) -> bool:
        """Whether the training is over after so many epochs."""
        return self.patience is not None and epochs - self.keeper.epoch >= self.patience

    def on_epoch_end(self, epoch, logs=None):
        """Ends the training if it is over."""
        if self.ends_after(epoch + 1):
            self.model.stop_training = True


class KeepEpochs(keras.callbacks.Callback):
    """Saves the plain model after each epoch.

    Args:
        plain_model: What is saved; shares its layers with the model that is trained.
        path: Gives the `.keras` file of an epoch, from 1, or without one that of the last.
        keep: `"every"`, or `"last"` to write one file over and over.
    """

    def __init__(self, plain_model: keras.Model, path: Callable[..., Path], keep: str):
        super().__init__()
        self.plain_model, self.path, self.keep = plain_model, path, keep

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        path = self.path(epoch + 1) if self.keep == "every" else self.path()
        with replacing(path) as temporary:
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
            f"epoch {self.batches.epoch + 1}, step {self.batches.first + batch + 1}: the loss is "
            f"{float(logs['loss'])}, at a learning rate of {_learning_rate(self.model):.2g}, for the photos {listed}; "
            f"{kept if self.keeper.epoch else 'no epoch was over yet'}. "
            "Use a smaller `learning_rate`; if these photos come up again, look at them"
        )


def _learning_rate(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
