"""Which backend Keras runs on: decided before Keras is imported."""

import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from semseg.errors import SemsegError, pip_install

BACKENDS = ("torch", "tensorflow", "jax")


def choose_backend(name: str | None) -> str:
    """Decides the Keras backend: the argument, else KERAS_BACKEND, else what is installed.

    Args:
        name: What was asked for by flag.

    Raises:
        SemsegError: The name is unknown, the backend is not installed, or Keras runs on another one already.
    """
    installed = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    wanted = name or os.environ.get("KERAS_BACKEND") or next(iter(installed), None)
    source = "`backend`" if name else "KERAS_BACKEND"
    if wanted is None:
        raise SemsegError(f"no backend is installed for Keras; run {pip_install(BACKENDS[0])}, or {_others()}")
    if wanted not in BACKENDS:
        raise SemsegError(f"{source}: there is no backend {wanted!r}; choose one of {', '.join(BACKENDS)}")
    if wanted not in installed:
        others = f", or use {' or '.join(installed)}" if installed else ""
        raise SemsegError(f"{source}: {wanted} is not installed; run {pip_install(wanted)}{others}")
    _refuse_another_running(wanted, source)
    os.environ["KERAS_BACKEND"] = wanted
    return wanted


def refuse_processes(command: str) -> None:
    """Refuses what only one process can do, where several were started to work together.

    Raises:
        SemsegError: They were.
    """
    from semseg.backend.launchers import launched  # it loads NumPy, which --help can do without

    launch = launched()
    if launch.launcher in ("torchrun", "JAX"):
        how = "torchrun" if launch.launcher == "torchrun" else "JAX_NUM_PROCESSES"
        raise SemsegError(
            f"{command}: got {launch.count} processes; only train spreads over several: start it without {how}"
        )


def refuse_devices(count: int | None, words: Sequence[str]) -> None:
    """Refuses several devices for one process of PyTorch, which has a launcher for them.

    Args:
        count: What was asked for.
        words: The program and its arguments, which the message repeats as they are to be.

    Raises:
        SemsegError: More than one.
    """
    if count in (None, 1) or os.environ.get("KERAS_BACKEND") != "torch":
        return
    program = ["-m", "semseg"] if Path(words[0]).name == "__main__.py" else [words[0]]
    others = [word for word, before in zip(words[1:], words, strict=False)
              if not word.startswith("--devices") and before != "--devices"]  # fmt: skip
    one = [] if len(others) < len(words) - 1 else ["--devices", "1"]  # a configuration has it
    command = shlex.join(["torchrun", "--standalone", "--nproc-per-node", str(count), *program, *others, *one])
    raise SemsegError(f"`devices`: got {count} with torch, which has a launcher for them: {command}")


def _refuse_another_running(wanted: str, source: str) -> None:
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if running != wanted:
            raise SemsegError(f"{source}: Keras runs on {running} already; choose {wanted} before Keras is imported")


def _others() -> str:
    return " or ".join(f"[{backend}]" for backend in BACKENDS[1:])
