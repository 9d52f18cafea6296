"""What a process of several begins with, of `serve` or on a cluster: its backend first, then all that imports Keras."""

import argparse
import importlib
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from semseg.cli import import_backend, words_of
from semseg.cli.console import noting, say_error
from semseg.errors import FolderInUseError, RunFolderError, SemsegError
from semseg.inference.predictions import sees_supervisor
from semseg.runs.lock import HEARTBEAT, MAX_SILENCE

_THREADS = (  # of what computes: NumPy and PyTorch, TensorFlow, JAX
    "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC",
)  # fmt: skip
_WAIT = 2.0  # seconds between two looks whether a dead process' lock is free
_opened: dict[str, Any] = {}  # the photos and the network, for the next part


def app_of_worker(backend: str | None, token: str | None, counts: Path, options: dict[str, Any]) -> Any:
    """The application in a process of its own; ends it where that cannot be made, as it could not the next time.

    Args:
        backend: Of Keras; None for a file that runs without.
        token: As of `make_app`.
        counts: As of `make_app`.
        options: What the command was asked for: `model`, `image_size`, `show` and `runtime`.
    """
    try:
        if backend:
            from semseg.backend.importing import import_keras

            import_keras(backend)
        from semseg.cli.serve import make_worker
        from semseg.serve.running import START_FAILURE

        return make_worker(**options, token=token, counts=counts)
    except SemsegError as error:
        say_error(str(error))
    except Exception:
        traceback.print_exc()
    sys.exit(START_FAILURE)


class Part(NamedTuple):
    """What came of a part of the photos.

    Attributes:
        host: Where it was predicted.
        lines: Topics and what there is to say of them.
        message: What went wrong; empty for nothing.
        code: The exit code of that.
    """

    host: str
    lines: list[tuple[str, str]]
    message: str = ""
    code: int = 0


def part_of_worker(options: dict[str, Any], shard: str, token: str, cores: int) -> Part:
    """Predicts a part of the photos in a process of a cluster, which keeps its network for the next one.

    Args:
        options: Of `predict`, with paths from the root on.
        shard: The part, such as `"1/8"`.
        token: From `supervise`.
        cores: Of the CPU, for this process.
    """
    lines: list[tuple[str, str]] = []
    arguments = argparse.Namespace(**{**options, "shard": shard})
    try:
        for name in _THREADS:
            os.environ.setdefault(name, str(cores))
        _look(arguments, token)
        with noting(lines):
            import_backend(arguments)
            predict = importlib.import_module("semseg.cli.predict")
            if not _opened:
                _opened["all"] = predict.open_all(arguments)
            _wait_and_run(predict, arguments)
    except Exception as error:
        message, code = words_of(error, arguments)
        if not code:
            raise
        return Part(socket.gethostname(), lines, message, code)
    return Part(socket.gethostname(), lines)


def _look(arguments: argparse.Namespace, token: str) -> None:
    """Refuses to work where the folders are others than those of whoever asks."""
    output = Path(arguments.output)
    seen = {"output": sees_supervisor(output, token), "model": Path(arguments.model).exists()}
    for name, is_seen in seen.items():
        if not is_seen:
            raise RunFolderError(
                f"`{name}`: this worker does not see {getattr(arguments, name)}; photos, model and output must lie "
                "where all nodes see them, at the same path"
            )


def _wait_and_run(predict: Any, arguments: argparse.Namespace) -> None:
    """Predicts, once the lock of a process that died on another node is given up."""
    end = time.monotonic() + MAX_SILENCE + 2 * HEARTBEAT
    while True:
        try:
            predict.run(arguments, _opened["all"])
            return
        except FolderInUseError:
            if time.monotonic() > end:
                raise
        time.sleep(_WAIT)
