"""Pictures drawn by another process, while this one computes."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from semseg import report
from semseg.data.workers import Workers

PROCESSES = int((os.cpu_count() or 1) > 1)  # on a single core there is nothing to gain

_Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Drawing:
    """Draws pictures one after the other, in a process of its own that ends with the block.

    Where there is none, or it dies, a picture is drawn by this one.
    """

    def __init__(self) -> None:
        self._workers, self._thread = Workers(_draw, PROCESSES), ThreadPoolExecutor(1)
        self._pictures: list[Future[None]] = []

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for the picture that is being drawn, so that no half of it is left; the others are given up."""
        self._thread.shutdown(cancel_futures=True)
        self._workers.close()

    def draw(self, name: str, *arguments: Any, **named: Any) -> None:
        """Has a picture drawn.

        Args:
            name: Of a function of `semseg.report`.
            arguments: What it takes by place.
            named: What it takes by name.
        """
        self._pictures.append(self._thread.submit(self._run, (name, arguments, named)))

    def finish(self) -> None:
        """Waits for all pictures, raises what went wrong with one, and ends the process."""
        while self._pictures:
            self._pictures.pop(0).result()
        self._workers.close()

    def _run(self, call: _Call) -> None:
        try:
            self._workers.run(call)
        except ChildProcessError:
            _draw(call)


def _draw(call: _Call) -> None:
    name, arguments, named = call
    getattr(report, name)(*arguments, **named)
