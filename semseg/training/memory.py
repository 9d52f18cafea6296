"""Does a run fit into memory, and if not, what would?"""

import keras

from semseg.architectures.cost import training_bytes
from semseg.backend.devices import free_bytes
from semseg.backend.processes import here
from semseg.errors import ResourceError
from semseg.runs.config import RunConfig

PEAK_PER_ESTIMATE = 1.3  # what runs take at most of what `training_bytes` gives, on PyTorch
LEAST_PER_ESTIMATE = 0.6  # what they take at the very least


def check_memory(model: keras.Model, config: RunConfig) -> None:
    """Refuses a run that cannot fit; Linux would kill it without a word.

    Args:
        model: The network.
        config: With its batch size.

    Raises:
        ResourceError: There is less memory than a step needs.
    """
    free, need = free_bytes(), _needed(model, config, config.batch_size)
    if free and need and not config.remat and need * LEAST_PER_ESTIMATE > free:
        raise ResourceError(memory_advice(model, config, free))


def _needed(model: keras.Model, config: RunConfig, batch_size: int) -> float | None:
    need = training_bytes(model, -(-batch_size // here().parts), config.seen_size)
    return need if need is None or config.precision == "float32" else need / 2


def memory_advice(model: keras.Model, config: RunConfig, free: int | None) -> str:
    """What went wrong in words of the settings, and which batch size would fit.

    Args:
        model: The network.
        config: With the batch size that was too much.
        free: Bytes that were free before; None if not known.
    """
    height, width = config.seen_size
    message = f"out of memory: `batch_size` {config.batch_size} with photos of {height}x{width}"
    ways_out = ("" if config.remat else "`remat`, ") + "a smaller `image_size` or `filters`"
    if config.batch_size == 1:
        return f"{message}; use {ways_out}"
    one, need = (_needed(model, config, size) for size in (1, config.batch_size))
    fitting = config.batch_size // 2
    if free and one and need and PEAK_PER_ESTIMATE * need > free:
        message += f" needs about {PEAK_PER_ESTIMATE * need / 1e9:.1f} GB, and {free / 1e9:.1f} GB were free"
        each = (need - one) / (config.batch_size - 1)
        fitting = min(fitting, int(1 + (free / PEAK_PER_ESTIMATE - one) / each))
    if fitting < 1:
        return f"{message}; not even one photo fits: use {ways_out}"
    steps = -(-config.batch_size * config.accumulate // fitting)
    return f"{message}; use `batch_size` {fitting} and `accumulate` {steps} for as many photos per step, or {ways_out}"
