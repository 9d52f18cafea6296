"""What a network costs: parameters, multiplications and additions, time per photo, memory."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
from keras import layers

from semseg.backend.devices import peak_device_bytes
from semseg.backend.keras_graph import functional_graph, run_through
from semseg.backend.predictor import predictor

ROUNDS = 15


def count_parameters(model: keras.Model) -> int:
    """All weights of a model, the averages of its normalisation layers among them.

    Args:
        model: Any model that was built.

    Example:
        >>> count_parameters(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))  # 4 * 3 + 3
        15
    """
    return model.count_params()


def count_flops(model: keras.Model, image_size: tuple[int, int] | None = None) -> int | None:
    """Multiplications and additions of all convolutions and dense layers for one photo.

    A multiply-add counts as two. A layer that is applied several times counts each time, models inside the model count
    too. Normalisation, activations, pooling and resizing are left out, as is what layers of one's own do inside.

    Args:
        model: A functional model from photos `(N, H, W, C)`.
        image_size: (H, W); None for the size that the model was built for.

    Returns:
        The count, or None for a model without a graph or without a known size.

    Example:
        >>> inputs = keras.Input((8, 8, 3))
        >>> count_flops(keras.Model(inputs, layers.Conv2D(4, 3, padding="same")(inputs)))  # 8 * 8 * 4 * 3 * 3 * 3 * 2
        13824
    """
    size = tuple(image_size or model.inputs[0].shape[1:3])
    if functional_graph(model) is None or None in size:
        return None
    photos = [keras.KerasTensor((1, *size, *tensor.shape[3:]), tensor.dtype) for tensor in model.inputs]
    costs: list[int] = []
    _note_costs(model, photos, costs)
    return sum(costs)


def _note_costs(model: keras.Model, inputs: object, costs: list[int]) -> object:
    """Passes shapes through the graph, in the order in which data would go, and notes the cost of each layer."""

    def visit(operation: keras.Operation) -> Callable[..., object]:
        def spec(*args: object, **kwargs: object) -> object:
            if functional_graph(operation) is not None:
                return _note_costs(operation, args[0], costs)
            outputs = operation.compute_output_spec(*args, **kwargs)
            costs.append(_flops(operation, args, outputs))
            return outputs

        return spec

    return run_through(functional_graph(model), inputs, visit)


def _flops(layer: keras.Operation, args: tuple, outputs: keras.KerasTensor) -> int:
    """Multiplications and additions of one application of a layer to inputs of known shapes.

    Each position of a convolution's output (of its input where transposed) meets every weight of the kernel once.
    """
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"

    def positions(tensor: keras.KerasTensor) -> int:
        return math.prod(tensor.shape[1:-1] if channels_last else tensor.shape[2:])

    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return 2 * positions(outputs) * kernels
    if isinstance(layer, layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose):
        return 2 * positions(args[0]) * math.prod(layer.kernel.shape)
    if isinstance(layer, _CONVOLUTIONS):
        return 2 * positions(outputs) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.Dense):
        return 2 * math.prod(outputs.shape[1:-1]) * math.prod(layer.kernel.shape)
    return 0


def training_bytes(model: keras.Model, batch_size: int, image_size: tuple[int, int]) -> int | None:
    """About how much memory a training step holds: what each layer gives, and the weights three times.

    Measured peaks of the networks of this package are 1 to 1.3 times as high on PyTorch, 1.7 times on TensorFlow and
    JAX; of an encoder of `keras.applications` .65 times. ReLUs count nothing, as they overwrite their input.

    Args:
        model: A model from photos `(N, H, W, C)`.
        batch_size: Photos of a step.
        image_size: (H, W) of these, in pixels.

    Returns:
        The bytes, in float32, or None for a model without a graph.

    Example:
        >>> inputs = keras.Input((None, None, 3))
        >>> model = keras.Model(inputs, layers.Conv2D(4, 1, use_bias=False)(inputs))
        >>> training_bytes(model, 2, (8, 8))  # 4 bytes * (2 * 8 * 8 * 4 features + 3 * 12 weights)
        2192
    """
    if functional_graph(model) is None:
        return None
    elements = 0

    def visit(operation: keras.Operation) -> Callable[..., object]:
        def spec(*args: object, **kwargs: object) -> object:
            nonlocal elements
            outputs = operation.compute_output_spec(*args, **kwargs)
            if not isinstance(operation, layers.ReLU | layers.Activation | layers.Reshape):
                elements += sum(math.prod(tensor.shape) for tensor in keras.tree.flatten(outputs))
            return outputs

        return spec

    photos = [keras.KerasTensor((batch_size, *image_size, x.shape[-1]), x.dtype) for x in model.inputs]
    run_through(functional_graph(model), photos, visit)
    return 4 * (elements + 3 * model.count_params())


_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.DepthwiseConv1D, layers.DepthwiseConv2D)


def interleaved_medians(functions: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Seconds of each function: the median over rounds in which each is called once, after one call that warms up.

    In turn, so that a machine that slows down or is shared slows all of them alike.

    Args:
        functions: What is timed; results are dropped.
        rounds: How often each is called.

    Returns:
        A number for each function.
    """
    seconds = np.zeros((rounds + 1, len(functions)))
    for row in seconds:
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            row[i] = time.perf_counter() - start
    return np.median(seconds[1:], axis=0).tolist()


def time_per_image(models: Sequence[keras.Model], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds from one photo, uint8 at the size that the model was built for, to its logits, for each model.

    Args:
        models: Models from photos `(N, H, W, C)`; where H and W are open, 256x256 is taken.
        rounds: Of which the median counts; the models are called in turn.
    """

    def call(model: keras.Model) -> Callable[[], np.ndarray]:
        shape = [side or 256 for side in model.inputs[0].shape[1:3]] + [model.inputs[0].shape[3]]
        photo = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype(np.uint8)
        predict_batch = predictor(model, batch_size=1)
        return lambda: predict_batch(photo)

    return [1000 * seconds for seconds in interleaved_medians([call(model) for model in models], rounds)]


def peak_memory_mb() -> float | None:
    """The most memory that this process had so far, in MB (10^6 bytes): on its GPU, or, without one, in all.

    Returns:
        None where the system does not tell (Windows without a GPU).
    """
    peak = peak_device_bytes() or _peak_resident_bytes()
    return None if peak is None else round(peak / 1e6, 1)


def _peak_resident_bytes() -> int | None:
    """Linux keeps the parent's peak in a child's `ru_maxrss`; /proc tells that of the process alone."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None
