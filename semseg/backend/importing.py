"""Keras imported without what no command uses, which takes as long as all the rest of it."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Keras imports these where it finds them: for its wrappers of scikit-learn, for galleries, and to mend old JAX.
_UNUSED = {"sklearn", "matplotlib", "jax"}
_DYNAMO = "torch._dynamo"  # which Keras' torch backend imports to mark two functions as not to be compiled
_DRIVERS = ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")  # of GPUs, NVIDIA's, AMD's and under Windows
_marked: list[Callable] = []


def import_keras(backend: str) -> None:
    """Imports Keras, faster than `import keras` does by itself; what is left out can be imported afterwards.

    Args:
        backend: `"torch"`, `"tensorflow"` or `"jax"`, as the environment's KERAS_BACKEND says.
    """
    if "keras" in sys.modules:
        return
    if backend == "tensorflow":  # it tells of the CPU's instructions, and as an error that there is no GPU
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if any(map(os.path.exists, _DRIVERS)) else "3")
    others: dict[str, ModuleType | None] = dict.fromkeys(_UNUSED - {backend})
    with _in_place_of({**others, _DYNAMO: _marking_module()} if backend == "torch" else others):
        importlib.import_module("keras")


def mark_uncompiled() -> None:
    """Tells PyTorch's compiler of the functions that Keras keeps out of compiled code; call it before compiling."""
    dynamo = importlib.import_module(_DYNAMO)
    while _marked:
        function = _marked.pop()
        setattr(sys.modules[function.__module__], function.__name__, dynamo.disable(function))


def _marking_module() -> ModuleType:
    module: Any = ModuleType(_DYNAMO)
    module.disable = lambda: _mark
    return module


def _mark(function: Callable) -> Callable:
    _marked.append(function)
    return function


@contextmanager
def _in_place_of(modules: dict[str, ModuleType | None]) -> Iterator[None]:
    """Puts modules, or the word that there is none (None), where nothing is imported yet."""
    put = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(put)  # type: ignore[arg-type]  # None is what Python itself takes for a module that is not there
    try:
        yield
    finally:
        for name in put:
            sys.modules.pop(name, None)
