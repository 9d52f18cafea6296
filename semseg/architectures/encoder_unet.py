"""A U-Net whose way down is an image network, with ImageNet weights where they can be had."""

import difflib
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers

from semseg.architectures import efficientnet_lite
from semseg.architectures.band_adaptation import scaling_before_convolutions, take_over
from semseg.backend.keras_graph import producer
from semseg.errors import SemsegError, first_line
from semseg.segmentation_model import (
    BATCH_NORM_MOMENTUM,
    CHANNELS_LAST,
    check_arguments,
    logits_head,
    scaled_input,
    up_block,
    upsample,
)

MOST_TIMES_FILTERS = 6  # channels of the up blocks
PROBE_SIZE = 1024  # of a photo, in pixels, to see what becomes of its size
NO_FEATURES = 99  # stands for the halvings of what has lost height and width
# These scale photos by layers of their own, which can be left out.
WITH_OPTIONAL_SCALING = ("ConvNeXt", "EfficientNetV2", "MobileNetV3")
OWN_ENCODERS = {name: getattr(efficientnet_lite, name) for name in efficientnet_lite.PACKAGES}
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


def EncoderUnet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 5,
    encoder: str = "EfficientNetV2B0",
    weights: str | None = "imagenet",
    normalization: str = "batch",
    name: str = "encoder_unet",
) -> keras.Model:
    """A U-Net with an image network for its way down, and light up blocks: less to learn, and more steps in a time.

    The skip connections are the network's last features at each scale below the photo's own, and where it has none,
    the scaled photo. The last step up has no skip connection.
    Networks without padding lose a few pixels at the edges; their features get a rim of zeros. The photo is scaled as
    the network's own `preprocess_input` does it (networks that want blue first have their first convolution turned
    around instead). Moving averages follow as fast as in the other networks.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None. For other than 3 channels, the first
            convolution of `weights` is adapted: see `take_over`.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels at the photo's own size; they double with each step down, as far as 6 times as many.
        depth: Steps of the encoder that are used; most have 5.
        encoder: Name of a function of `keras.applications`, or `EfficientNetLite0` or `2`; `encoder_names()` lists all.
        weights: `"imagenet"`, for the EfficientNetLites from an installed package, for all others as a download, if
            Keras' cache has none and Keras knows their checksum; the path of a file of weights; None for random ones.
        normalization: Of the up blocks: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or
            `"none"`.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: No such encoder, weights that cannot be had or are another network's, or a size, depth or number of
            channels that does not fit.

    Example:
        >>> EncoderUnet((64, 96, 3), num_classes=5, encoder="MobileNetV3Small", weights=None).output_shape
        (None, 64, 96, 5)

    Reference: the form is Iglovikov and Shvets 2018, https://arxiv.org/abs/1801.05746; encoders: https://keras.io/api/applications.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    inputs = keras.Input(input_shape, name="photo")
    network = _encoder(encoder, inputs, weights)
    skips = _features_by_size(network, encoder, depth)
    if None in input_shape:
        _check_any_size(network, skips, encoder)
    else:
        skips = [_pad_to(x, [length >> step for length in input_shape[:2]]) for step, x in enumerate(skips)]
    x = skips.pop()
    for step in reversed(range(1, depth)):
        channels = filters * min(2**step, MOST_TIMES_FILTERS)
        x = up_block(x, skips[step], channels, normalization=normalization, name=f"up{step + 1}")
    x = upsample(x, filters, normalization=normalization, name="up1")
    return keras.Model(inputs, logits_head(x, num_classes), name=name)


def encoder_names() -> list[str]:
    """The image networks, by the names that `EncoderUnet` takes.

    Example:
        >>> encoder_names()[:2]
        ['ConvNeXtBase', 'ConvNeXtLarge']
    """
    return sorted([*OWN_ENCODERS, *(name for name in dir(keras.applications) if name[0].isupper())])


def encoder_constructor(name: str) -> Callable[..., keras.Model]:
    """The function that builds an image network; `preprocess_input` in its module scales photos for it.

    Example:
        >>> encoder_constructor("VGG16").__name__
        'VGG16'
    """
    return OWN_ENCODERS.get(name) or getattr(keras.applications, name)


def _encoder(name: str, inputs: KerasTensor, weights: str | None) -> keras.Model:
    """The image network without its classifier, from `inputs`, its weights loaded."""
    _check_encoder(name, weights)
    if weights is not None and inputs.shape[-1] != 3:
        network = _encoder_of_bands(name, inputs, weights)
    else:
        network = _encoder_of_colors(name, inputs, weights)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return network


def _encoder_of_colors(name: str, inputs: KerasTensor, weights: str | None) -> keras.Model:
    """As `_encoder`; without weights for any bands."""
    constructor = encoder_constructor(name)
    order, scale, offset = input_scaling(constructor)
    from_file = weights not in (None, "imagenet")
    options = _options(name, inputs, None if from_file else weights)
    network = _build(constructor, _scaled_for(name, inputs, scale, offset), options)
    if from_file:
        _load(network, weights, name)
    if weights is not None:
        _reorder_colors(network, order)
    return network


def _encoder_of_bands(name: str, inputs: KerasTensor, weights: str) -> keras.Model:
    """As `_encoder`, from bands that are scaled as all colours are in the mean."""
    learnt = _encoder_of_colors(name, keras.Input((*inputs.shape[1:3], 3)), weights)
    scale, offset = scaling_before_convolutions(learnt)
    factor = scale * 255 if name.startswith("EfficientNetB") else scale  # which divide by 255 themselves
    scaled = layers.Normalization(mean=-offset / scale, variance=factor**-2, name="scale")(inputs)
    network = _build(encoder_constructor(name), scaled, _options(name, inputs, None))
    take_over(learnt, network)
    return network


def _options(name: str, inputs: KerasTensor, weights: str | None) -> dict[str, Any]:
    scales_colors = inputs.shape[-1] != 3 and name.startswith(WITH_OPTIONAL_SCALING)
    return {"include_top": False, "weights": weights} | ({"include_preprocessing": False} if scales_colors else {})


def _check_encoder(name: str, weights: str | None) -> None:
    if name not in encoder_names():
        close = difflib.get_close_matches(name, encoder_names(), n=3, cutoff=0.5)
        raise SemsegError(
            f"`encoder`: there is no network {name!r}; choose one of {', '.join(close or encoder_names())}"
        )
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise SemsegError(
            f"`encoder_weights`: there is no file {weights}; expected imagenet, none or a file of weights"
        )


def _scaled_for(name: str, inputs: KerasTensor, scale: np.ndarray, offset: np.ndarray) -> KerasTensor:
    """Photos as the network wants them; of other than 3 channels as this package's own networks have them."""
    if inputs.shape[-1] != 3:
        # EfficientNetB0 to B7 have a Rescaling of their own, for any number of channels.
        return inputs if name.startswith("EfficientNetB") else scaled_input(inputs)
    if (scale == 1).all() and not offset.any():
        return inputs
    return layers.Normalization(mean=-offset / scale, variance=scale**-2.0, name="scale")(inputs)


def _reorder_colors(network: keras.Model, order: np.ndarray) -> None:
    """Lets the first convolution take red first, where its weights were learnt on photos with blue first."""
    if (order == [0, 1, 2]).all():
        return
    first = next(layer for layer in network.layers if isinstance(layer, layers.Conv2D))
    first.kernel.assign(keras.ops.take(first.kernel, np.argsort(order), axis=2))


def input_scaling(constructor: Callable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How a network's `preprocess_input` changes photos, found by using it on black and on the three pure colours.

    Args:
        constructor: From `encoder_constructor`.

    Returns:
        Order, scale and offset, `(3,)` each: which colour of the photo becomes channel 0, 1, 2 of the network; and by
        what each colour, 0 to 255, is multiplied, and what is added then, in the order of the photo.

    Example:
        >>> order, scale, offset = input_scaling(keras.applications.VGG16)  # blue first, minus ImageNet's means
        >>> order.tolist(), scale.tolist(), offset.round(1).tolist()
        ([2, 1, 0], [1.0, 1.0, 1.0], [-123.7, -116.8, -103.9])
    """
    colors = np.concatenate([np.zeros((1, 3)), 255 * np.eye(3)]).reshape(4, 1, 1, 3)
    preprocess_input = sys.modules[constructor.__module__].preprocess_input
    black, *bright = preprocess_input(colors, data_format=CHANNELS_LAST).reshape(4, 3)
    matrix = (np.array(bright) - black) / 255  # (from, to)
    order = matrix.argmax(axis=0)
    back = np.argsort(order)
    return order, matrix.max(axis=1), black[back]


def _build(constructor: Callable, x: KerasTensor, options: dict) -> keras.Model:
    layout = keras.config.image_data_format()
    keras.config.set_image_data_format(CHANNELS_LAST)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers of channels and sizes that ImageNet does not have
            with _checked_downloads():
                return constructor(input_tensor=x, input_shape=x.shape[1:], **options)
    except SemsegError:
        raise
    except Exception as error:
        _refuse_size(constructor, x, options)
        raise SemsegError(
            f"`encoder_weights`: the ImageNet weights of {constructor.__name__} cannot be had ({first_line(error)}); "
            "use `encoder_weights` none, or FILE with weights that were downloaded elsewhere"
        ) from error
    finally:
        keras.config.set_image_data_format(layout)


@contextmanager
def _checked_downloads() -> Iterator[None]:
    """Within it, Keras takes only weights whose checksum it knows, from its cache or, as it says then, the network."""
    file_utils: Any = sys.modules[keras.utils.get_file.__module__]  # which all constructors ask for their weights
    get_file = file_utils.get_file

    def checked(*arguments: Any, **options: Any) -> str:
        if not options.get("file_hash"):
            raise LookupError("Keras knows no checksum of them, so that anybody could have changed them")
        return get_file(*arguments, **options)

    file_utils.get_file = checked
    try:
        yield
    finally:
        file_utils.get_file = get_file


def _refuse_size(constructor: Callable, x: KerasTensor, options: dict) -> None:
    """Raises a `SemsegError` where a network cannot be built for photos of this size, whatever its weights."""
    try:
        constructor(input_tensor=x, input_shape=x.shape[1:], **{**options, "weights": None})
    except ValueError as error:
        raise SemsegError(
            f"`encoder`: {constructor.__name__} cannot be built for photos of {_size_text(x.shape[1:])} "
            f"({first_line(error)}); use another size or another encoder"
        ) from error


def _load(network: keras.Model, path: str, name: str) -> None:
    try:
        network.load_weights(path)
    except Exception as error:  # h5py, zipfile and Keras each have their own
        raise SemsegError(
            f"`encoder_weights`: {path} does not hold weights of {name} ({first_line(error)}); expected those of "
            f"{name} without its classifier (from Keras: ..._notop.h5), not weights of another architecture"
        ) from error
    own = next((layer for layer in network.layers if isinstance(layer, layers.Normalization)), None)
    if name.startswith("EfficientNetB") and np.allclose(
        keras.ops.convert_to_numpy(own.adapt_variance), IMAGENET_STD**2, rtol=0.05
    ):
        # ImageNet's weights want another division, which Keras makes by a layer that only its own download brings
        own.adapt_variance.assign(keras.ops.convert_to_numpy(own.adapt_variance) * IMAGENET_STD)
        own.finalize_state()


def _features_by_size(network: keras.Model, name: str, depth: int) -> list[KerasTensor]:
    """The last features of `network` at 1, 1/2, 1/4 ... of the photo's size, `depth + 1` of them.

    Where branches run side by side, that is the last point through which everything passes, if there is one of that
    size. At a size at which the network has no features, the scaled photo is averaged down to it.
    """
    features = _last_features(network)
    if depth not in features:
        there = ", ".join(str(step) for step in sorted(features) if 0 < step < NO_FEATURES)
        raise SemsegError(f"encoder_unet: got {depth=}; expected one of {name}'s: {there}")
    return [features[step] if step in features else _shrink(features[0], 2**step) for step in range(depth + 1)]


def _last_features(network: keras.Model) -> dict[int, KerasTensor]:
    """By the number of halvings of the photo's size, the last features of that size.

    A point through which everything passes goes before one on a branch that others run beside, and what the network
    gives itself before all.
    """
    parents = {  # in the order of work
        operation: [producer(x) for x in keras.tree.flatten(operation.input)] for operation in network.operations
    }
    last_use = {parent: place for place, before in enumerate(parents.values()) for parent in before}
    steps = _halvings(parents)
    last, last_alone = {}, {}
    branches_end = 0  # the place of the last use of what was made so far: before it, branches are open
    for place, operation in enumerate(parents):
        if not isinstance(operation, layers.ZeroPadding2D | layers.Cropping2D):
            last[steps[operation]] = operation.output
            if branches_end <= place:
                last_alone[steps[operation]] = operation.output
        branches_end = max(branches_end, last_use.get(operation, place))
    return {**last, **last_alone, **{steps[producer(x)]: x for x in network.outputs}}


def _halvings(parents: dict[keras.Operation, list[keras.Operation]]) -> dict[keras.Operation, int]:
    """How often the photo's size was halved before each operation's result; `NO_FEATURES` of what has no size."""
    steps: dict[keras.Operation, int] = {}
    for operation, before in parents.items():
        step = min((steps[parent] for parent in before if parent in steps), default=0)
        step += _stride(operation).bit_length() - 1
        steps[operation] = NO_FEATURES if "Global" in type(operation).__name__ else step
    return steps


def _stride(operation: keras.Operation) -> int:
    if isinstance(operation, keras.Model):
        return math.prod(_stride(layer) for layer in operation.layers)
    return getattr(operation, "strides", (1,))[0]


def _shrink(photo: KerasTensor, size: int) -> KerasTensor:
    return layers.AveragePooling2D(size, data_format=CHANNELS_LAST, name=f"photo_by_{size}")(photo)


def _check_any_size(network: keras.Model, skips: list[KerasTensor], name: str) -> None:
    """Only with known sizes can be said how much is missing at the edges of a network without padding."""
    photo_shape = (1, PROBE_SIZE, PROBE_SIZE, network.inputs[0].shape[-1])
    shapes = keras.Model(network.inputs, skips).compute_output_shape(photo_shape)
    if [shape[1] for shape in shapes] != [PROBE_SIZE >> step for step in range(len(skips))]:
        raise SemsegError(f"encoder_unet: {name} needs photos of a fixed size, got an input of any; give (H, W, C)")


def _pad_to(features: KerasTensor, size: list[int]) -> KerasTensor:
    rims = [wanted - given for wanted, given in zip(size, features.shape[1:3], strict=True)]
    if not any(rims):
        return features
    margins = tuple((rim // 2, rim - rim // 2) for rim in rims)
    return layers.ZeroPadding2D(margins, data_format=CHANNELS_LAST)(features)


def _size_text(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if length is None else str(length) for length in shape)
