"""Devices and backends: what computes, and what stays out of the way."""

import os

import keras


def device_name() -> str:
    """Returns the device that the backend will use, as people call it: a GPU's name, or the CPU with its cores."""
    return _DEVICE_OF_BACKEND[keras.backend.backend()]() or f"CPU ({os.cpu_count()} cores)"


def peak_device_bytes() -> int | None:
    """The most memory that the backend had in use on its GPU so far; None without a GPU, or where it does not tell."""
    return _PEAK_OF_BACKEND[keras.backend.backend()]()


def leave_tensorflow_out() -> None:
    """Keeps Keras from importing TensorFlow beside another backend, for the rest of the process.

    Keras 3.15 asks whether TensorFlow is there whenever it saves a model, by importing it: some seconds, hundreds of
    megabytes and start-up notes in the middle of a run that has no use for it.
    """
    if keras.backend.backend() != "tensorflow":
        from keras.src.utils import module_utils

        module_utils.tensorflow._available = False


def _torch_device() -> str | None:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else None


def _tensorflow_device() -> str | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else None


def _jax_device() -> str | None:
    import jax

    device = jax.devices()[0]
    return None if device.platform == "cpu" else device.device_kind


_DEVICE_OF_BACKEND = {"torch": _torch_device, "tensorflow": _tensorflow_device, "jax": _jax_device}


def _torch_peak() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _tensorflow_peak() -> int | None:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if gpus else None


def _jax_peak() -> int | None:
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


_PEAK_OF_BACKEND = {"torch": _torch_peak, "tensorflow": _tensorflow_peak, "jax": _jax_peak}
