"""Which device a process of its own gets, when several run side by side: a GPU each, or a share of the CPU."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras

from semseg.errors import SemsegError

if keras.backend.backend() == "torch":
    import torch

GPUS = "CUDA_VISIBLE_DEVICES"  # all three backends look there, those for AMD's GPUs, too
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")  # the last is JAX's
_COUNTS = {  # in a process of its own: JAX takes memory on all of them to look, TensorFlow looks once
    "jax": "import jax; print('gpus', sum(device.platform != 'cpu' for device in jax.local_devices()))",
    "tensorflow": "import tensorflow as tf; print('gpus', len(tf.config.list_physical_devices('GPU')))",
}


@dataclass(frozen=True)
class Device:
    """What one process computes on.

    Attributes:
        name: For people; empty for a computer's only one.
        environment: Variables for the process, which then sees this device alone.
    """

    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpu(self) -> dict[str, str]:
        """The variable that names its GPU; none without one."""
        return {name: value for name, value in self.environment.items() if name == GPUS}


def chosen_devices(asked: str | None) -> list[Device]:
    """The devices that somebody asks for.

    Args:
        asked: `"all"` GPUs; how many, as `"4"`; the numbers of some, as `"0,1,3"` or `"2,"`; None for no choice.
            Without a GPU, how many shares of the CPU.

    Raises:
        SemsegError: It is none of these, or this computer has no such devices.

    Example:
        >>> chosen_devices(None)
        [Device(name='', environment={})]
    """
    if asked is None:
        return [Device()]
    if not re.fullmatch(r"all|\d+|\d+(,\d+)*,?", asked):
        raise SemsegError(f"`devices`: got {asked!r}; expected all, how many, or the numbers of GPUs such as 0,1,3")
    gpus = count_gpus()
    devices = _gpus(asked, _numbers(asked, gpus), gpus) if gpus else _shares(asked, _numbers(asked, gpus))
    if len(devices) < 2:
        return devices
    threads = str(max(1, cores() // len(devices)))
    shared = {name: threads for name in _THREADS if name not in os.environ}
    return [Device(device.name, {**shared, **device.environment}) for device in devices]


def _numbers(asked: str, gpus: int) -> list[int]:
    if asked == "all":
        return list(range(max(1, gpus)))
    return [int(number) for number in asked.split(",") if number] if "," in asked else list(range(int(asked)))


def _gpus(asked: str, numbers: list[int], gpus: int) -> list[Device]:
    if not numbers or max(numbers) >= gpus or len(set(numbers)) < len(numbers):
        have = "one GPU, number 0" if gpus == 1 else f"{gpus} GPUs, numbers 0 to {gpus - 1}"
        raise SemsegError(f"`devices`: got {asked}; this computer has {have}: expected all, 1 to {gpus} of them, or "
                          "their numbers such as 0,1, each once")  # fmt: skip
    return [Device(f"GPU {number}", {GPUS: _visible_gpus(gpus)[number]}) for number in numbers]


def _shares(asked: str, numbers: list[int]) -> list[Device]:
    if "," in asked or not 1 <= len(numbers) <= cores():
        raise SemsegError(
            f"`devices`: got {asked}; {keras.backend.backend()} sees no GPU here: expected a number of trainings side "
            f"by side on the CPU, 1 to {cores()} for as many cores"
        )
    return [Device(f"CPU, share {1 + number}" if numbers[1:] else "") for number in numbers]


def cores() -> int:
    """Of the CPU, those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_gpus() -> int:
    """How many GPUs the backend sees; no memory is taken on any, and this process may still choose among them."""
    if keras.backend.backend() == "torch":
        return torch.cuda.device_count() or int(torch.backends.mps.is_available())
    command = [sys.executable, "-c", _COUNTS[keras.backend.backend()]]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return int(told[-1]) if told[-2:-1] == ["gpus"] else 0


def _visible_gpus(count: int) -> list[str]:
    """What names each of the GPUs that this process sees: a scheduler may have chosen some."""
    visible = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    return visible if len(visible) >= count else [str(number) for number in range(count)]
