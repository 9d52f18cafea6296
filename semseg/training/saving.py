"""The state of a training: saved while it goes on, and restored, so that the rest is what it would have been."""

import errno
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from semseg.backend.optimizer import build_optimizer
from semseg.backend.state import arrays_of, assign, is_whole_after_error, random_state, set_random_state, synchronise
from semseg.errors import ResourceError, RunFolderError, SemsegError
from semseg.files import DISK_FULL
from semseg.runs.checkpoints import Checkpoint, Checkpoints, Position
from semseg.runs.stalling import DaemonPool, StalledError, result_of
from semseg.training.callbacks import KeepBest, Recorder

MAX_SHARE = 0.01  # of the time that saving may cost, where no minutes are given; the ends of epochs go before
NOT_WRITABLE = (*DISK_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT)  # or the folder is gone
_WEIGHTS, _OPTIMIZER, _METRICS, _RANDOM = "weights", "optimizer", "metrics", "random."


def never() -> None:
    """The default of `Saving.stop`: nobody asks the training to end."""


@dataclass(frozen=True)
class Saving:
    """Where and when a training saves its state, and what it goes on from.

    Args:
        checkpoints: The states of the run; None to save none.
        identity: What a state belongs to: plain values, see `resuming.identity_of`.
        start: The state to go on from; None to begin.
        minutes: Between two states; None for as often as costs 1 % of the time. One is saved after each epoch, too.
        stop: Gives the exception that the training is to end with after this batch, or None.
    """

    checkpoints: Checkpoints | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    start: Checkpoint | None = None
    minutes: float | None = None
    stop: Callable[[], BaseException | None] = never

    @property
    def position(self) -> Position:
        """Where the training begins."""
        return self.start.position if self.start else Position(0)


class SaveState(keras.callbacks.Callback):
    """Saves everything that the rest of a training depends on, and ends it between two batches when asked to.

    Arrays are copied between two batches, and written by a thread while the training goes on.

    Args:
        saving: Where, when, and what from.
        recorder: Keeps the history.
        keeper: Knows the best epoch.
    """

    def __init__(self, saving: Saving, recorder: Recorder, keeper: KeepBest):
        super().__init__()
        self.saving, self.recorder, self.keeper = saving, recorder, keeper
        self.position = saving.position
        self._writer, self._pending = DaemonPool(1, "semseg-save"), _nothing()
        self._write = saving.checkpoints and saving.checkpoints.write
        self._last = saving.start and saving.start.position  # of the last state that was handed to the writer
        self._metrics: dict[str, np.ndarray] | None = None  # of the training batches, while the validation goes on
        self._began = time.perf_counter() - (saving.start.facts["elapsed"] if saving.start else 0)
        self._next, self._first = time.perf_counter(), 0
        self._cost, self._last_cost = saving.start.facts["saving"] if saving.start else 0.0, 0.0

    def restore(self, model: keras.Model) -> None:
        """Gives a compiled model and the history the state to go on from.

        Raises:
            RunFolderError: It is a state of another network.
        """
        start = self.saving.start
        if start is None:
            return
        build_optimizer(model)
        try:
            assign(model.variables, _WEIGHTS, start.arrays)
            assign(model.optimizer.variables, _OPTIMIZER, start.arrays)
        except ValueError as error:
            raise RunFolderError(f"the state is of another network: {error}; `restart` to train anew") from None
        prefix = len(_RANDOM)
        set_random_state({k[prefix:]: array for k, array in start.arrays.items() if k.startswith(_RANDOM)})
        columns = start.facts["history"]
        rows = start.arrays["history"].tolist()
        self.recorder.restore(
            [dict(zip(columns, row, strict=True)) for row in rows], start.facts["seconds"], start.facts["waiting"]
        )
        self.keeper.restore(self.recorder.history, start.best_model)

    def on_epoch_begin(self, epoch, logs=None):
        """Goes on with the metrics of the batches before, in the rest of an epoch."""
        start, self._metrics = self.saving.start, None
        self._first = 0
        if start and epoch == start.position.epoch and start.position.batch:
            assign(self.model.metrics_variables, _METRICS, start.arrays)
            self._first = start.position.batch
        self.position = Position(epoch, self._first)

    def on_train_batch_end(self, batch, logs=None):
        """Saves if it is time to, and ends the training if that is wanted."""
        self.position = Position(self.position.epoch, self._first + batch + 1)
        self.stop_if_asked()
        if self._is_time():
            self.wait()  # what writing the last one took may put this one off
            if self._is_time():
                self.save()

    def on_test_begin(self, logs=None):
        """Keeps the metrics of the training, which the validation resets."""
        self._metrics = arrays_of(self.model.metrics_variables, _METRICS)
        self.wait()  # a copy of the best weights is written before better ones take their place

    def on_test_batch_end(self, batch, logs=None):
        """Ends the training if that is wanted."""
        self.stop_if_asked()

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        self._metrics, self.position = None, Position(epoch + 1)
        self.save()
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Ends the training if that is wanted, with its state saved."""
        request = self.saving.stop()
        if request is None:
            return
        if self.position != self._last:
            self.save()
        self.wait()
        raise request

    def save(self) -> None:
        """Copies the state and has it written, after the one before is.

        Raises:
            ResourceError: The disk is full.
            RunFolderError: It cannot be written for another reason.
        """
        if self._write is None:
            return
        synchronise(self.model)  # what is left of the step is no part of saving
        began = time.perf_counter()
        self.wait()
        best = self.keeper.path if self.keeper.epoch else None
        state = self.position, self._arrays(), self._facts(), best
        self._last = self.position
        self._pending = self._writer.submit(_timed, self._write, *state)
        now = time.perf_counter()
        self._last_cost = now - began
        self._cost += self._last_cost
        self._next = now + 60 * (self.saving.minutes or 0)

    def _is_time(self) -> bool:
        """Whether the minutes are over; without them, whether this state and that of the epoch's end fit."""
        now = time.perf_counter()
        if self.saving.minutes is not None:
            return now >= self._next
        return self._cost + 2 * self._last_cost <= MAX_SHARE * (now - self._began)

    def wait(self) -> None:
        """Waits until the last state is written; raises as `save` does."""
        try:
            written = result_of(self._pending)
        except OSError as error:
            raise self.in_words(error) from error
        self._pending = _nothing()
        self._cost += written
        self._last_cost += written

    def in_words(self, error: OSError) -> SemsegError:
        """What to end with when a file cannot be written, with the state that stands."""
        checkpoints = self.saving.checkpoints
        where = error.filename or self.keeper.path.parent
        stands = checkpoints.note() if checkpoints else "no state was saved"
        way_out = "make room there" if error.errno in DISK_FULL else "see that it can be written again"
        kind = ResourceError if error.errno in (*DISK_FULL, errno.EIO) else RunFolderError
        return kind(f"{where}: {error.strerror or error}; {way_out}; {stands}")

    def save_if_possible(self, error: StalledError) -> StalledError:
        """Saves the state between two batches of which the second does not come; returns what to end with."""
        with suppress(SemsegError):
            if self.position != self._last and is_whole_after_error():
                self.save()
            self.wait()
        checkpoints = self.saving.checkpoints
        return StalledError(f"{error}; {checkpoints.note()}" if checkpoints else str(error))

    def close(self) -> None:
        """Ends the writing thread, after what it is writing."""
        with suppress(OSError, SemsegError):
            result_of(self._pending)
        self._writer.close()

    def _arrays(self) -> dict[str, np.ndarray]:
        metrics = self._metrics or arrays_of(self.model.metrics_variables, _METRICS)
        history = [list(row.values()) for row in self.recorder.history]
        return {
            **arrays_of(self.model.variables, _WEIGHTS),
            **arrays_of(self.model.optimizer.variables, _OPTIMIZER),
            **metrics,
            **{_RANDOM + name: array for name, array in random_state().items()},
            "history": np.array(history, np.float64),
        }

    def _facts(self) -> dict[str, Any]:
        history = self.recorder.history
        seconds, waiting = self.recorder.so_far() if self.position.batch else (0.0, 0.0)
        return {
            "best_epoch": self.keeper.epoch,
            "history": list(history[0]) if history else [],
            "seconds": seconds,
            "waiting": waiting,
            "elapsed": time.perf_counter() - self._began,
            "saving": self._cost,
            "identity": dict(self.saving.identity),
        }


def _timed(write: Callable[..., None], *state: Any) -> float:
    """Writes a state; returns the seconds of computing that it took."""
    began = time.thread_time()
    write(*state)
    return time.thread_time() - began


def _nothing() -> "Future[float]":
    """Of a state that cost nothing, as there is none."""
    future: Future[float] = Future()
    future.set_result(0.0)
    return future
