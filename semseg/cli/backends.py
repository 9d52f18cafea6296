"""Which backend Keras runs on: decided before Keras is imported."""

import importlib.util
import os
import sys

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
    """Refuses what only one process can do, where `torchrun` started several.

    Raises:
        SemsegError: It did.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and "RANK" in os.environ:
        raise SemsegError(
            f"{command}: got {count} processes; only train spreads over several: start it without torchrun"
        )


def _refuse_another_running(wanted: str, source: str) -> None:
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if running != wanted:
            raise SemsegError(f"{source}: Keras runs on {running} already; choose {wanted} before Keras is imported")


def _others() -> str:
    return " or ".join(f"[{backend}]" for backend in BACKENDS[1:])
