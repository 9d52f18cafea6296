"""What monitoring asks: how many requests, how fast, how many photos wait; in the text format of Prometheus, 0.0.4."""

import os
import time
from pathlib import Path

import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semseg.files import is_running

TEXT = "text/plain; version=0.0.4; charset=utf-8"
_STATUSES = (200, 204, 400, 401, 403, 404, 405, 408, 412, 413, 422, 428, 500, 503, 507)
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds, at most
_SECONDS = len(_STATUSES) + 1  # behind the statuses, and one for all others, stand the buckets,
_SUM = _SECONDS + len(_BUCKETS) + 1  # one for longer times,
_BATCHES, _BATCHED, _WAITING, _LENGTH = (_SUM + i for i in range(1, 5))
_PHOTOS = ("/segment", "/mask")  # the addresses that compute one
_ENDING = ".numbers"


class Meter:
    """Counts in a file of each process's own, so that any of them can tell of all.

    Args:
        folder: Of the files, made for this server alone; those of processes that ended keep their counts. None for a
            process that serves alone.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._numbers: np.ndarray = np.zeros(_LENGTH)
        if folder is None:
            return
        path = folder / f"{os.getpid()}{_ENDING}"
        if not path.exists():
            path.write_bytes(bytes(8 * _LENGTH))
        self._numbers = np.memmap(path, np.float64, "r+", shape=_LENGTH)

    def add_request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request; those that were answered with a photo's classes by their time, too."""
        place = _STATUSES.index(status) if status in _STATUSES else len(_STATUSES)
        self._numbers[place] += 1
        if path in _PHOTOS and status == 200:
            self._numbers[_SECONDS + int(np.searchsorted(_BUCKETS, seconds))] += 1
            self._numbers[_SUM] += seconds

    def add_batch(self, photos: int) -> None:
        """Counts a batch that the network computed."""
        self._numbers[_BATCHES] += 1
        self._numbers[_BATCHED] += photos

    def set_waiting(self, photos: int) -> None:
        """Notes how many photos wait or are computed."""
        self._numbers[_WAITING] = photos

    def text(self) -> str:
        """The metrics of all processes, one a line."""
        if self._folder is None:
            return _as_text(self._numbers, 1)
        total, living = np.zeros(_LENGTH), 0
        for path in self._folder.glob(f"*{_ENDING}"):
            numbers = np.fromfile(path, np.float64, _LENGTH)
            if len(numbers) < _LENGTH:  # one that begins
                continue
            lives = is_running(int(path.stem))
            living += lives
            numbers[_WAITING] *= lives
            total += numbers
        return _as_text(total, living)


def _as_text(numbers: np.ndarray, processes: int) -> str:
    statuses = zip((*map(str, _STATUSES), "other"), numbers, strict=False)
    requests = [(f'{{status="{status}"}}', count) for status, count in statuses if count]
    upto = np.cumsum(numbers[_SECONDS:_SUM])
    edges = (*(f"{edge:g}" for edge in _BUCKETS), "+Inf")
    seconds = [(f'_bucket{{le="{edge}"}}', count) for edge, count in zip(edges, upto, strict=True)]
    seconds += [("_sum", numbers[_SUM]), ("_count", upto[-1])]
    metrics = [
        ("requests_total", "counter", "Requests by the status of their answer.", requests),
        ("photo_seconds", "histogram", "From a request to the classes of its photo.", seconds),
        ("batches_total", "counter", "Batches that networks computed.", [("", numbers[_BATCHES])]),
        ("photos_total", "counter", "Photos in these batches.", [("", numbers[_BATCHED])]),
        ("photos_waiting", "gauge", "Photos that wait or are computed.", [("", numbers[_WAITING])]),
        ("processes", "gauge", "Processes that answer.", [("", processes)]),
    ]
    lines = []
    for name, kind, meaning, values in metrics:
        lines += [f"# HELP semseg_{name} {meaning}", f"# TYPE semseg_{name} {kind}"]
        lines += [f"semseg_{name}{label} {value:.10g}" for label, value in values]
    return "\n".join(lines) + "\n"


class Measured:
    """Counts the requests of an application, refused ones too."""

    def __init__(self, app: ASGIApp, meter: Meter):
        self._app, self._meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and counts it once it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        finally:
            self._meter.add_request(scope["path"], status, time.perf_counter() - start)
