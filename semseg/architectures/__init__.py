"""The networks by name. To add one: a file with its builder here, and a line in `ARCHITECTURES`."""

import importlib
import inspect
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import keras

from semseg.architectures.attention_unet import AttentionUnet
from semseg.architectures.ddunet import DDUnet
from semseg.architectures.encoder_unet import EncoderUnet
from semseg.architectures.fast_unet import FastUnet
from semseg.architectures.hybrid_unet import HybridUnet
from semseg.architectures.r2unet import R2Unet
from semseg.architectures.resunet import ResUnet
from semseg.architectures.unet3plus import Unet3Plus
from semseg.architectures.unetpp import UnetPP
from semseg.backend.devices import free_bytes
from semseg.backend.keras_graph import gives_probabilities
from semseg.errors import ResourceError, SemsegError, first_line
from semseg.segmentation_model import Unet

ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {
    "unet": Unet,
    "fast_unet": FastUnet,
    "r2unet": R2Unet,
    "ddunet": DDUnet,
    "hybrid_unet": HybridUnet,
    "attention_unet": AttentionUnet,
    "unetpp": UnetPP,
    "resunet": ResUnet,
    "unet3plus": Unet3Plus,
    "encoder_unet": EncoderUnet,
}


_BYTES_PER_WEIGHT = 12  # itself, its gradient and its momentum, in float32
_USUAL_FILTERS = 256
MAX_SECONDS = 600  # that a user's function may take to build a network


def build_model(
    name: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    filters: int,
    encoder: str | None = None,
    encoder_weights: str | None = None,
) -> keras.Model:
    """Builds the network called `name`.

    Args:
        name: A key of `ARCHITECTURES`, or `module:function` for one of the user's own, whose module lies in the current
            folder or is installed; called as `function(input_shape, num_classes, filters=filters)`.
        input_shape: `(H, W, C)`.
        num_classes: Channels of the logits: K, or 1 for the binary task.
        filters: Channels of the first block.
        encoder: For `encoder_unet`: the name of its image network; None for its default.
        encoder_weights: For `encoder_unet`: `"imagenet"`, `"none"` or a file; None for `"imagenet"`.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`.

    Raises:
        SemsegError: No such network, a size that does not fit it, an encoder for a network without one, or a function
            of the user's that cannot be imported or called, takes more than 10 minutes, or gives something else.
        ResourceError: Its weights do not fit into memory.

    Example:
        >>> build_model("unet", (64, 96, 3), 5, filters=4).output_shape
        (None, 64, 96, 5)
    """
    if name not in ARCHITECTURES and ":" not in name:
        raise SemsegError(
            f"`model`: there is no network {name!r}; choose one of {', '.join(ARCHITECTURES)}, or module:function"
        )
    for parameter, value in (("encoder", encoder), ("encoder_weights", encoder_weights)):
        if value is not None and name != "encoder_unet":
            raise SemsegError(
                f"`{parameter}`: got {value}, but {name} has no encoder to choose; use `model` encoder_unet"
            )
    if ":" in name:
        with _weights_that_fit(filters):
            return _own_model(name, tuple(input_shape), num_classes, filters)
    options: dict[str, str | None] = {} if encoder is None else {"encoder": encoder}
    if encoder_weights is not None:
        options["weights"] = None if encoder_weights == "none" else encoder_weights
    _check_memory_of(name, input_shape, num_classes, filters, options)
    with _weights_that_fit(filters):
        return ARCHITECTURES[name](input_shape, num_classes, filters=filters, **options)


def _check_memory_of(name: str, input_shape: Any, num_classes: int, filters: int, options: dict[str, Any]) -> None:
    """Refuses far too many filters before the first layer is made; weights grow with the square of their number."""
    free = free_bytes()
    if filters <= _USUAL_FILTERS or not free:
        return
    few, twice = (
        ARCHITECTURES[name](input_shape, num_classes, filters=count, **{**options, "weights": None} if options else {})
        for count in (16, 32)
    )
    growth = (twice.count_params() - few.count_params()) / (32**2 - 16**2)
    need = _BYTES_PER_WEIGHT * growth * filters**2
    if need / 2 > free:
        raise ResourceError(
            f"`filters`: got {filters}; training their weights takes about {need / 1e9:.0f} GB, and {free / 1e9:.1f} "
            "GB are free; use fewer"
        )


@contextmanager
def _weights_that_fit(filters: int) -> Iterator[None]:
    """Within it, a network whose training cannot fit into memory is refused before its weights take any."""
    free, add_weight, held = free_bytes(), keras.Layer.add_weight, 0
    refused: ResourceError | None = None

    def counted(layer: keras.Layer, shape: Any = None, *arguments: Any, **options: Any) -> Any:
        nonlocal held, refused
        held += _BYTES_PER_WEIGHT * math.prod(shape or ())
        if free and held > free:
            refused = ResourceError(
                f"`filters`: got {filters}; training the weights up to the layer {layer.name} alone takes "
                f"{held / 1e9:.0f} GB, and {free / 1e9:.1f} GB are free; use fewer `filters`"
            )
            raise refused
        return add_weight(layer, shape, *arguments, **options)

    keras.Layer.add_weight = counted
    try:
        yield
    except Exception:
        if refused is not None:  # what Keras or the user's function made of it
            raise refused from None
        raise
    finally:
        keras.Layer.add_weight = add_weight


def model_name(name: str) -> str:
    """What stands for a network in the names of files.

    Args:
        name: As for `build_model`, or `"auto"`: what the plan chooses is a U-Net in any case.

    Example:
        >>> model_name("auto"), model_name("hybrid_unet"), model_name("package.module:fn")
        ('unet', 'hybrid_unet', 'fn')
    """
    if name == "auto":
        return "unet"
    return re.sub(r"\W", "_", name.rpartition(":")[-1])


def _own_model(name: str, input_shape: tuple[int, ...], num_classes: int, filters: int) -> keras.Model:
    function = _own_function(name)
    try:
        inspect.signature(function).bind(input_shape, num_classes, filters=filters)
    except TypeError as error:
        raise SemsegError(
            f"`model`: {name} cannot be called ({error}); expected function(input_shape, num_classes, *, filters)"
        ) from error
    try:
        with _ended_by_nothing():
            model = function(input_shape, num_classes, filters=filters)
    except SemsegError:
        raise
    except (Exception, SystemExit, TookTooLong) as error:
        raise SemsegError(
            f"`model`: {name} failed with {type(error).__name__}: {first_line(error)}; mend the function"
        ) from error
    _check_own_model(name, model, input_shape, num_classes)
    return model


def _own_function(name: str) -> Callable[..., keras.Model]:
    module_name, _, function_name = name.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        with _ended_by_nothing():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit, TookTooLong) as error:  # whatever the user's module does
        raise SemsegError(
            f"`model`: module {module_name!r} of {name} cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); expected module:function, the module in this folder or installed"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise SemsegError(
            f"`model`: there is no function {function_name!r} in {module_name}; it has {', '.join(own) or 'none'}"
        )
    return function


class TookTooLong(BaseException):
    """The user's code took too long; no `except Exception` of its own holds this up."""


@contextmanager
def _ended_by_nothing() -> Iterator[None]:
    """Within it, code of the user's neither ends the process, perhaps as if all were well, nor goes on for ever."""

    def refuse_exit(status: int) -> NoReturn:
        raise SystemExit(f"os._exit({status})")

    def refuse_more(number: int, frame: object) -> NoReturn:
        raise TookTooLong(f"it did not come to an end in {MAX_SECONDS} seconds")

    exit_now, os._exit = os._exit, refuse_exit
    timed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, refuse_more) if timed else None
    try:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
        yield
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        os._exit = exit_now


def _check_own_model(name: str, model: object, input_shape: tuple[int, ...], num_classes: int) -> None:
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or ()) != 1:
        raise SemsegError(
            f"`model`: {name} gave a {type(model).__name__} without a known input; expected "
            "keras.Model(inputs, outputs)"
        )
    if not model.trainable_weights:
        raise SemsegError(f"`model`: {name} gave a model without a weight to train; let a layer be trainable")
    if gives_probabilities(model):
        raise SemsegError(f"`model`: {name} ends in a softmax or sigmoid; expected logits: the losses apply it")
    try:
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer makes it meet
        raise SemsegError(
            f"`model`: {name}'s model could be saved, but not opened again ({first_line(error)}); use Keras' own "
            "layers, no Lambda, or give yours a get_config"
        ) from error
    expected = (1, *input_shape[:2], num_classes)
    try:
        shape = model.compute_output_shape((1, *input_shape))
    except Exception as error:
        raise SemsegError(
            f"`model`: {name}'s model does not take photos (1, {', '.join(map(str, input_shape))}) ({error}); build it "
            "for the input_shape that is given"
        ) from error
    shape = shape[0] if isinstance(shape, list) else shape  # of several outputs the first is judged
    if shape != expected:
        raise SemsegError(f"`model`: {name} gives {shape} for one photo; expected logits {expected}")
