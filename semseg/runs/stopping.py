"""Ends a run well when the system, a clock or a user asks for it: noted at once, obeyed between two batches."""

import _thread
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from semseg.errors import SemsegError, StopRequest

PATIENCE = 4.0  # seconds that a run may take to end by itself: who asks often kills after 5
SAVING_PATIENCE = 30.0  # once it has seen that it is to end, and writes its state
AT_ONCE = 0.5  # and after a second signal
MAX_RESERVE = 10.0  # seconds of a time limit that are left for ending
OUT_OF_TIME = 75  # exit code: EX_TEMPFAIL of sysexits.h, "try again"
_SIGNALS = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_WORDS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}
STOPPED = {128 + getattr(signal, name): _WORDS[name] for name in _SIGNALS}  # what asked, by the exit code


def seconds_of(text: str | None) -> float | None:
    """Seconds from a time such as `90m`, `2h`, `1h30m`, `45s` or `1:30:00`; None for none.

    Raises:
        SemsegError: It is no time above 0.

    Example:
        >>> seconds_of("1h30m"), seconds_of("0:01:30")
        (5400.0, 90.0)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text) or re.fullmatch(r"(\d+):(\d\d):(\d\d)", text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not (total := 3600.0 * hours + 60 * minutes + seconds):
        raise SemsegError(f"`time_limit`: got {text!r}; expected a time above 0, such as 90m, 2h, 1h30m or 1:30:00")
    return total


class Stopping:
    """Notes signals and the end of a time limit.

    A signal raises a `StopRequest` at once, but within `between_batches`, where the work itself looks at `request`. A
    second one raises in any case. Python runs no handler while a compiler works or a batch is computed, so that a
    thread ends the process after some seconds, or at once for a second signal.

    Args:
        say_last: Called with the message and the exit code if the thread must end the process.
        seconds: Time limit for the process; None for none.

    """

    def __init__(self, say_last: Callable[[str], None], seconds: float | None = None):
        self._say_last, self._began = say_last, time.monotonic()
        self._reserve = 0.0 if seconds is None else min(MAX_RESERVE, seconds / 4)
        self._seconds = seconds
        self._request: StopRequest | None = None
        self._seen = False
        self._patient, self._count = False, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may listen to signals
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        for name in _SIGNALS:
            number = getattr(signal, name)
            if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started by nohup
            self._before[number] = signal.signal(number, self._note)
        self._wakeup_before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="semseg-stop", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._mouth.close()
        self._watcher.join()
        self._ear.close()

    @property
    def request(self) -> StopRequest | None:
        """What to end with; None while nobody asked. Who reads it has half a minute to save its work."""
        self._seen = self._request is not None
        return self._request

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """Within, a request is only noted, as long as it is the only one."""
        self._patient = True
        try:
            yield
            if self._request is not None:  # after the last batch, when nobody looked any more
                raise self._request
        finally:
            self._patient = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._request is None:
            self._request = _request_of(number)
        if self._count > 1 or not self._patient:
            raise self._request

    def _watch(self) -> None:
        """Waits for a signal or the end of the time, and then for the end of the process."""
        if self._seconds is not None and not self._hears(self._seconds - self._reserve - self._passed()):
            self._request = StopRequest("the time limit", OUT_OF_TIME)
            _interrupt_main_thread()
        number = self._ear.recv(1)
        if not number:
            return  # the run is over
        again = self._hears(PATIENCE) or (self._seen and self._hears(SAVING_PATIENCE))
        if again and (not self._ear.recv(1) or (self._hears(AT_ONCE) and not self._ear.recv(1))):
            return
        request = self._request or _request_of(number[0])
        self._say_last(f"{request.text}; {'asked twice' if again else 'it was busy'}, so nothing more was saved")
        os._exit(request.exit_code)

    def _passed(self) -> float:
        return time.monotonic() - self._began

    def _hears(self, seconds: float) -> bool:
        return bool(select.select([self._ear], [], [], max(0.0, seconds))[0])


def _request_of(number: int) -> StopRequest:
    return StopRequest(STOPPED[128 + number], 128 + number)


def _interrupt_main_thread() -> None:
    """As Ctrl-C does; a signal from the system also wakes it where it sleeps or reads."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
