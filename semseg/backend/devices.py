"""Devices and backends: what computes, and what stays out of the way."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras

from semseg.backend.keras_graph import hide_tensorflow

if keras.backend.backend() == "torch":  # the one that computes has been imported by Keras; the others may be missing
    import torch
elif keras.backend.backend() == "tensorflow":
    import tensorflow as tf
elif keras.backend.backend() == "jax":
    import jax


def device_name() -> str:
    """Returns the device that the backend will use, as people call it: a GPU's name, or the CPU with its cores."""
    return _DEVICE_OF_BACKEND[keras.backend.backend()]() or f"CPU ({os.cpu_count()} cores)"


def peak_device_bytes() -> int | None:
    """The most memory that the backend had in use on its GPU so far; None without a GPU, or where it does not tell."""
    return _PEAK_OF_BACKEND[keras.backend.backend()]()


def gpu_joules() -> float | None:
    """The energy that the GPU of this process took since its driver was loaded, whoever used it.

    Returns:
        Joules; None without a GPU, without nvidia-ml-py, or where the driver does not tell.
    """
    if not on_gpu():
        return None
    with suppress(Exception):  # the package and the driver have errors of their own
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        try:
            name = _gpu_of_driver()
            by_name = name.startswith(("GPU-", "MIG-"))
            gpu = nvml.nvmlDeviceGetHandleByUUID(name) if by_name else nvml.nvmlDeviceGetHandleByIndex(int(name))
            return nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000
        finally:
            nvml.nvmlShutdown()
    return None


def _gpu_of_driver() -> str:
    """The number or UUID by which the driver knows the GPU of this process."""
    number = torch.cuda.current_device() if keras.backend.backend() == "torch" else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return visible[number].strip() if visible != [""] else str(number)


def leave_tensorflow_out() -> None:
    """Keeps Keras from importing TensorFlow beside another backend, for the rest of the process.

    Keras would import it only to ask whether it is there: some seconds, hundreds of megabytes and start-up notes in the
    middle of a run that has no use for it.
    """
    if keras.backend.backend() != "tensorflow":
        hide_tensorflow()


@contextmanager
def sparing_a_core() -> Iterator[None]:
    """Leaves a core of the CPU to another process, as far as PyTorch has several.

    Its threads wait for each other: where one has no core to itself, all take twice as long.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def keras_compiles(asked: bool) -> bool:
    """Whether Keras is to compile the whole step (`jit_compile`): on JAX always, on TensorFlow (XLA) when asked to.

    On PyTorch Keras' own way compiles Keras along with the network, in pieces; `FastModel.compile_graph` does better.

    Args:
        asked: Whether the user wants compiled steps.
    """
    return {"jax": True, "tensorflow": asked}.get(keras.backend.backend(), False)


def usable_precision(precision: str) -> tuple[str, str]:
    """The precision to train in, and why it is another than what was asked for, or an empty text.

    Args:
        precision: One of `semseg.runs.config.PRECISIONS`.
    """
    if precision == "mixed_float16" and not on_gpu():
        return "float32", "mixed_float16 needs a GPU; training in float32"
    if precision == "mixed_bfloat16" and not _BFLOAT16_OF_BACKEND[keras.backend.backend()]():
        way_out = "mixed_float16 would work" if on_gpu() else "it would be slow"
        return "float32", f"{device_name()} has no arithmetic for bfloat16; training in float32, {way_out}"
    return precision, ""


def on_gpu() -> bool:
    """Whether the backend computes on a GPU."""
    return _DEVICE_OF_BACKEND[keras.backend.backend()]() is not None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of any backend says that memory is short.

    Example:
        >>> out_of_memory(RuntimeError("CUDA out of memory")), out_of_memory(ValueError("no such layer"))
        (True, False)
    """
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS_OF_MEMORY)


_SIGNS_OF_MEMORY = (
    "out of memory", "outofmemory", "resource_exhausted", "resourceexhausted", "can't allocate memory",
    "cannot allocate memory", "not enough memory", "oom when allocating", "status_alloc_failed",
)  # fmt: skip


def free_bytes() -> int | None:
    """Memory that can still be had where the network computes: the GPU's, or the machine's; None if unknown."""
    if keras.backend.backend() == "torch" and torch.cuda.is_available():
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # from before, and used again
        return torch.cuda.mem_get_info()[0] + kept
    return None if on_gpu() else _free_main_memory()


def _free_main_memory() -> int | None:
    """On Linux, and within what a container may have."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        with suppress(OSError, ValueError, KeyError):
            folder = Path("/sys/fs/cgroup")
            limit = int((folder / "memory.max").read_text(encoding="ascii"))
            lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            free = min(free, limit - int(dict(line.split() for line in lines)["anon"]))
        return free
    return None


def _torch_device() -> str | None:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else None


def _tensorflow_device() -> str | None:
    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None


def _jax_device() -> str | None:
    device = jax.local_devices()[0]
    return None if device.platform == "cpu" else device.device_kind


_DEVICE_OF_BACKEND = {"torch": _torch_device, "tensorflow": _tensorflow_device, "jax": _jax_device}


def _torch_bfloat16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mps.is_available() or _cpu_bfloat16()


def _tensorflow_bfloat16() -> bool:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0)) >= (8, 0)
    return _cpu_bfloat16()


def _jax_bfloat16() -> bool:
    device = jax.local_devices()[0]
    if device.platform in ("gpu", "cuda"):
        return float(getattr(device, "compute_capability", 0)) >= 8
    return device.platform != "cpu" or _cpu_bfloat16()


def _cpu_bfloat16() -> bool:
    """Only Linux tells; elsewhere it is taken for given."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return True
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


_BFLOAT16_OF_BACKEND = {"torch": _torch_bfloat16, "tensorflow": _tensorflow_bfloat16, "jax": _jax_bfloat16}


def _torch_peak() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _tensorflow_peak() -> int | None:
    gpus = tf.config.list_logical_devices("GPU")
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else None


def _jax_peak() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


_PEAK_OF_BACKEND = {"torch": _torch_peak, "tensorflow": _tensorflow_peak, "jax": _jax_peak}
