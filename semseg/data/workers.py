"""Processes that do one task for many arguments; threads would wait for each other wherever Python itself is busy."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import cv2

_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import sys; sys.path[:] = {path!r}; "
    "from semseg.data.workers import serve; serve()"
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",  # the processes share the cores
    # glibc gives the memory of every larger array back and takes it anew, which takes as long as the work on it.
    "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824",
}  # fmt: skip


class Workers:
    """Processes that each do a task for one argument at a time, asked by as many threads.

    They are no pool of `multiprocessing`: that runs the user's script again in each of them, unless it is guarded, and
    breaks as a whole when one dies, without a word at which argument. None is started before it is needed.

    Args:
        task: Takes an argument and gives what is wanted. All three are pickled, as is what it raises.
        count: How many processes; 0 to do the task in the thread that asks, as is done where none can be started.
    """

    def __init__(self, task: Callable[[Any], Any], count: int):
        self._task, self._pickled = task, _pickled(task) if count and _is_python(sys.executable) else None
        self._lock, self._is_closed = Lock(), False
        self._started: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)

    def run(self, argument: Any) -> Any:
        """Does the task, and waits for it.

        Args:
            argument: What the task takes.

        Returns:
            What the task gives.

        Raises:
            ChildProcessError: The process ended in the middle; the next call starts another one.
            Exception: What the task raises.
        """
        if self._pickled is None:
            return self._task(argument)
        process = self._idle.get()
        try:
            if process is None:
                process = self._start()
            if process is not None:
                result, error = _ask(process, argument)
                if error is not None:
                    raise error
                return result
        except ChildProcessError:
            process = None
            raise
        finally:
            self._idle.put(process)
        return self._task(argument)

    def close(self) -> None:
        """Ends the processes, whatever they are doing."""
        with self._lock:
            self._is_closed = True
        for process in self._started:
            process.kill()
            _end(process)

    def _start(self) -> subprocess.Popen[bytes] | None:
        """A new process that has understood the task; None, from then on, where there can be none."""
        with self._lock:
            if self._is_closed:
                raise ChildProcessError("closed")
            program = _PROGRAM.format(path=sys.path)
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    env={**os.environ, **_ENVIRONMENT},
                )  # fmt: skip
            except OSError:  # no memory or no rights for more processes
                self._pickled = None
                return None
            self._started.append(process)
        with suppress(ChildProcessError):
            if _ask(process, self._pickled):
                return process
        self._pickled = None
        return None


def serve() -> None:
    """What such a process runs: reads the pickled task and then its arguments, and writes what it gives for each."""
    cv2.setNumThreads(1)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the replies
    task = None
    with suppress(EOFError, BrokenPipeError):  # whoever asked is gone
        while True:
            argument = pickle.load(sys.stdin.buffer)
            if task is None:
                task = _unpickled(argument)
                reply = task is not None
            else:
                reply = _done(task, argument)
            pickle.dump(reply, replies)
            replies.flush()


def _done(task: Callable[[Any], Any], argument: Any) -> tuple[Any, Exception | None]:
    try:
        return task(argument), None
    except Exception as error:  # for whoever asked
        return None, error


def _ask(process: subprocess.Popen[bytes], argument: Any) -> Any:
    try:
        pickle.dump(argument, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)
    except (OSError, EOFError, ValueError, pickle.UnpicklingError):
        _end(process)
        raise ChildProcessError(_words(process.returncode)) from None


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError, ValueError):
            pipe.close()
    process.wait()


def _words(code: int) -> str:
    """How a process ended, for people."""
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"


def _pickled(task: Callable[[Any], Any]) -> bytes | None:
    with suppress(pickle.PicklingError, AttributeError, TypeError):
        return pickle.dumps(task)
    return None


def _unpickled(task: bytes) -> Callable[[Any], Any] | None:
    with suppress(Exception):  # its class may be one of the user's script
        return pickle.loads(task)
    return None


def _is_python(executable: str | None) -> bool:
    """Whether this is no program that embeds Python, which would do something else with our arguments."""
    return bool(executable) and Path(executable).name.lower().startswith("python")
