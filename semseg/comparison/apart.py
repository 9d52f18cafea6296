"""Trainings in processes of their own, side by side: one at a time on each device."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path

from semseg.backend.placing import Device
from semseg.comparison.trainings import Outcome
from semseg.errors import SemsegError, StopRequest
from semseg.files import last_lines
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.runs.stopping import SAVING_PATIENCE, STOPPED, Stopping

COMMAND = (sys.executable, "-m", "semseg", "train")
_PAUSE = 0.1  # seconds between two looks at the processes
_UNDER_WAY = b"\nmodel  "  # begins the line of the log that is written once the data were read


class Training:
    """A run in a process of its own: each starts alike, and its peak of memory is its own.

    Args:
        config: The run.
        label: What to call it.
        flags: Of `train`, that ask for it.
        device: What it is to compute on.
    """

    def __init__(self, config: RunConfig, label: str, flags: Sequence[str], device: Device):
        self.config, self.label, self.device, self.folder = config, label, device, Run(Path(config.output))
        self.folder.folder.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **device.environment}
        environment.pop("SLURM_PROCID", None)  # it trains alone, whoever else srun started
        with self.folder.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *flags], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,  # a terminal's Ctrl-C would reach it twice, and twice means at once
            )  # fmt: skip

    @property
    def is_over(self) -> bool:
        """Whether its process has ended."""
        return self.process.poll() is not None

    @property
    def is_under_way(self) -> bool:
        """Whether it has read its data, or ended: what others would need, too, has been unpacked and looked at."""
        return self.is_over or _UNDER_WAY in self.folder.log_path.read_bytes()

    @property
    def last_line(self) -> str:
        """What it said last."""
        return " ".join((last_lines(self.folder.log_path) or ["starting"])[-1].split())

    @property
    def epochs(self) -> int:
        """How many of its epochs are over, as far as its last line says."""
        done = self.last_line.split("/")[0].strip()
        return int(done) if done.isdecimal() else 0

    def outcome(self) -> SemsegError | None:
        """What it failed with, with its own exit code, once it is over; None where all went well.

        Raises:
            StopRequest: Somebody stopped it.
        """
        code = self.process.returncode if self.process.returncode >= 0 else 128 - self.process.returncode
        if code in STOPPED:
            raise StopRequest(STOPPED[code], code)
        return self._failure(code) if code else None

    def _failure(self, code: int) -> SemsegError:
        kept = self.folder.log_path.replace(self.folder.failed_log_path)
        lines = last_lines(kept) or ["it said nothing"]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        last = (errors or lines)[-1]
        how = f"ended with code {code}" if self.process.returncode > 0 else f"was killed ({code - 128})"
        error = SemsegError(f"{self.folder.folder}: {how}: {last}; see {kept.name} there; the same command tries again")
        error.exit_code = code
        return error

    def ask_to_end(self, number: int) -> None:
        """Sends it a signal, after which it saves its state."""
        self.process.terminate() if os.name == "nt" else self.process.send_signal(number)


def train_apart(
    runs: Sequence[tuple[str, RunConfig]], flags: Callable[[RunConfig], Sequence[str]], devices: Sequence[Device],
    show: Callable[[Sequence[Training]], None] = lambda running: None, stopping: Stopping | None = None,
) -> Generator[Outcome]:  # fmt: skip
    """Trains, or goes on with what was stopped, and gives each run as it ends; whatever interrupts it ends them all.

    A run begins once the one before it has read its data, so that no two of them draw, unpack or look at the same.

    Args:
        runs: What to call each, and the run.
        flags: Gives the flags of `train` that ask for a run.
        devices: Each trains one run at a time.
        show: Called with those that are running, again and again.
        stopping: Told when the runs save their state before they end.

    Returns:
        Of each run its name, itself, and what it failed with, or None.

    Raises:
        StopRequest: One of the runs was stopped.
    """
    waiting, running = deque(runs), list[Training]()
    try:
        while waiting or running:
            device = _free(devices, running)
            if waiting and device:
                label, config = waiting.popleft()
                running.append(Training(config, label, flags(config), device))
            show(running)
            time.sleep(_PAUSE)
            yield from _ended(running)
    except BaseException as error:
        _end(running, error, stopping)
        raise
    finally:
        for training in running:
            training.process.kill()


def _free(devices: Sequence[Device], running: Sequence[Training]) -> Device | None:
    """The device of the next run, once all others have read their data."""
    if not all(training.is_under_way for training in running):
        return None
    taken = [training.device for training in running]
    return next((device for device in devices if device not in taken), None)


def _ended(running: list[Training]) -> Generator[Outcome]:
    """Takes those that are over out of the list."""
    for training in [each for each in running if each.is_over]:
        running.remove(training)
        yield training.label, training.config, training.outcome()


def _end(running: Sequence[Training], error: BaseException, stopping: Stopping | None) -> None:
    """Has the runs save their state, as they were asked to, or since another one of them failed."""
    _ = stopping and stopping.request  # who reads it has the time that they need
    number = error.exit_code - 128 if isinstance(error, StopRequest) and error.exit_code > 128 else signal.SIGINT
    for training in running:
        training.ask_to_end(number)
    until = time.monotonic() + SAVING_PATIENCE
    for training in running:
        with suppress(subprocess.TimeoutExpired):
            training.process.wait(max(0.0, until - time.monotonic()))
