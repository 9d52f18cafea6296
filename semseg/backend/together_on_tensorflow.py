"""Training on several devices with TensorFlow: the network goes part by part, and all else sees the whole batch.

Keras' way, a strategy of `tf.distribute`, sums what each device made of photos of its own: neither Dice nor batch
normalisation is such a sum. Here the layers take the parts of a batch in step, each on its device; batch normalisation
sums over all of them. The logits come together again before the loss, so that all after them is as on one device.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def count_devices() -> int:
    """Devices that this process may compute on."""
    return len(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))


def describe_devices() -> str:
    """What they are: `"GPU"`, or `"CPU"`."""
    return "GPU" if tf.config.list_logical_devices("GPU") else "CPU"


def train_together(model: Any, devices: int, processes: int, photos: Callable[[], int]) -> None:
    """Has a `FastModel` divide each batch among devices.

    Args:
        model: Its variables stay on the first device.
        devices: How many.
        processes: One.
        photos: Not used.
    """
    model.parts = devices


def train_apart(model: Any) -> None:
    """Has a model compute on one device again."""
    model.parts = 1
    model.make_train_function(force=True)
    model.make_test_function(force=True)
