"""Files that do not come: a disk that stalls, a share that has gone away, a loader that hangs."""

import atexit
import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from io import UnsupportedOperation
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from semseg.errors import ResourceError
from semseg.files import FILES_IN_HAND

LIMIT = 120.0  # seconds in which no file that somebody waits for moves
GRACE = 10.0  # and then, to save what can be saved
_TICK = 1.0
_NOISE = 4096  # bytes that a process moves in a tick without reading or writing a file of ours
_MAX_JOIN_SECONDS = 2.0  # that a thread gets to end in


class StalledError(ResourceError):
    """A file could not be read or written for too long (exit code 6)."""


class Watch:
    """Looks once a second whether the files move that are in hand: one begun or done with, or bytes of it.

    Seconds in which nothing moves are counted, and not taken from a clock, so that a computer that sleeps or a process
    that is stopped does not count as a disk that stalls. Where no file is in hand, as while a compiler works or a batch
    is computed, nothing is counted. After `LIMIT` of them the stacks of all threads go to standard error, and
    `result_of` raises a `StalledError`; if the process does not end by itself then, it is ended with exit code 6.

    Args:
        say_last: Called with the message if the process must be ended.
        limit: In seconds; None for `LIMIT`.
    """

    _current: "Watch | None" = None

    def __init__(self, say_last: Callable[[str], None], limit: float | None = None):
        self._say_last, self.limit = say_last, LIMIT if limit is None else limit
        self.error: StalledError | None = None  # while nothing moves
        self._quiet, self._last = 0.0, _moves()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="semseg-stall", daemon=True)

    def __enter__(self) -> "Watch":
        Watch._current = self
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        Watch._current = None
        self._ended.set()
        self._thread.join()

    def allow_to_save(self) -> StalledError | None:
        """What to raise, if nothing moves; from then on, a second halt is waited for only as long as `GRACE`."""
        error = self.error
        if error is not None:
            self.limit, self._quiet = min(self.limit, GRACE), 0.0
        return error

    def _look(self) -> None:
        while not self._ended.wait(min(_TICK, self.limit / 4)):
            in_hand, moved = _moves()
            before, moved_before = self._last
            self._last = in_hand, moved
            if not in_hand or in_hand != before or moved - moved_before > _NOISE:
                self._quiet, self.error = 0.0, None
                continue
            self._quiet += min(_TICK, self.limit / 4)
            if self._quiet >= self.limit:
                self._halt(threading.main_thread().ident in in_hand)

    def _halt(self, ends_now: bool) -> None:
        if self.error is None:
            _write_stacks()
            self._last = self._last[0], _moves()[1]  # which moved bytes, too
            paths = sorted({str(path) for _, path in self._last[0].values()})
            more = f" (nor {len(paths) - 1} other files)" if len(paths) > 1 else ""
            self.error = StalledError(
                f"{paths[0]}: not read or written in {self.limit:g} s{more}; look after its disk or network share"
            )
        if ends_now or self._quiet >= self.limit + GRACE:
            self._say_last(str(self.error))
            os._exit(StalledError.exit_code)


def result_of(future: "Future[Any]") -> Any:
    """Waits for a future, as `Future.result` does.

    Raises:
        StalledError: The program's `Watch` saw that no file moves.
    """
    while True:
        try:
            return future.result(_TICK)
        except TimeoutError:
            if future.done():  # it is what the work raised
                raise
        watch = Watch._current
        if watch is not None and (error := watch.allow_to_save()):
            raise error


class DaemonPool:
    """Threads that do what is submitted; one that hangs at a file holds up no end of the program.

    `ThreadPoolExecutor` waits for its threads without limit when the interpreter ends. Daemon threads that are left
    inside OpenCV at that moment abort the process, so those that can end in time are waited for.

    Args:
        count: How many threads.
        name: What debuggers call them.
    """

    def __init__(self, count: int, name: str):
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Has a thread call the function."""
        future: Future[Any] = Future()
        self._jobs.put((future, function, arguments))
        return future

    def close(self) -> None:
        """Ends the threads; drops what none has begun."""
        atexit.unregister(self.close)
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(_MAX_JOIN_SECONDS)


def _work(jobs: "SimpleQueue[Any]") -> None:
    while (job := jobs.get()) is not None:
        future, function, arguments = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)


def _moves() -> tuple[dict[int, tuple[int, Path]], int]:
    """The file that each thread has in hand, and the bytes that the process moved so far where the system tells."""
    moved = 0
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        moved = sum(int(line.split()[1]) for line in lines[:2])  # what was read and written, also through caches
    return dict(FILES_IN_HAND), moved


def _write_stacks() -> None:
    """Says of all threads where they are; not where standard error is no file."""
    with suppress(OSError, ValueError, AttributeError, UnsupportedOperation):
        faulthandler.dump_traceback(sys.stderr)
