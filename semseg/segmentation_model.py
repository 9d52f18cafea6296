"""The U-Net and the blocks it is made of: tensor in, tensor out, for Keras models of one's own as well.

Every block takes and gives channels-last Keras tensors `(N, H, W, C)`. A `name` becomes the prefix of the block's
layers, so that a block can stand in a model twice; without one Keras numbers the layers itself.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import KerasTensor, layers

from semseg.errors import SemsegError

# Keras' .99 needs hundreds of steps before the moving averages can be trusted; short runs end before that.
BATCH_NORM_MOMENTUM = 0.9
GROUPS = 8
CHANNELS_LAST = "channels_last"  # whatever keras.json says

NORMALIZATIONS: dict[str, Callable[[int, str | None], layers.Layer] | None] = {
    "batch": lambda filters, name: layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=name),
    "group": lambda filters, name: layers.GroupNormalization(groups=math.gcd(GROUPS, filters), name=name),
    "none": None,
}


def convolution(
    x: KerasTensor,
    filters: int,
    kernel_size: int = 3,
    padding: str = "same",
    strides: int = 1,
    *,
    dilation: int = 1,
    normalization: str = "batch",
    activation: bool = True,
    name: str | None = None,
    step: int | str = "",
) -> KerasTensor:
    """Convolution, normalisation and ReLU.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        kernel_size: Side of the kernel in pixels.
        padding: `"same"` keeps H and W at stride 1; `"valid"` takes `kernel_size - 1` from each.
        strides: Distance in pixels between the kernel's places.
        dilation: Distance in pixels of the kernel's neighbouring weights; not together with strides.
        normalization: `"batch"`, `"group"` or `"none"`; only without one has the convolution a bias.
        activation: False leaves the ReLU out.
        name: Prefix of the layer names.
        step: Ends the layers' names, where a block has several of them.

    Returns:
        `(N, H, W, F)`, with `"same"` padding and stride 1.

    Raises:
        SemsegError: `normalization` is unknown.

    Example:
        >>> convolution(keras.Input((8, 8, 4)), 16, dilation=2).shape
        (None, 8, 8, 16)
    """
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        use_bias=normalization == "none",
        kernel_initializer="he_normal",
        data_format=CHANNELS_LAST,
        name=_layer_name(name, f"conv{step}"),
    )(x)
    x = normalize(x, normalization, name=_layer_name(name, f"norm{step}"))
    return layers.ReLU(name=_layer_name(name, f"relu{step}"))(x) if activation else x


def convolutions(
    x: KerasTensor,
    filters: int,
    kernel_size: int = 3,
    padding: str = "same",
    strides: int = 1,
    *,
    count: int = 2,
    dilation: int = 1,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str | None = None,
) -> KerasTensor:
    """`count` times `convolution`, only the first with `strides`, then dropout of whole channels.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of every convolution.
        kernel_size: Side of the kernels in pixels.
        padding: `"same"` or `"valid"`.
        strides: Stride of the first convolution.
        count: Number of convolutions.
        dilation: Of every convolution; see `convolution`.
        normalization: `"batch"`, `"group"` or `"none"`.
        dropout: Share of whole channels dropped at the end while training, 0 to 1.
        name: Prefix of the layer names.

    Returns:
        `(N, H, W, F)`, with `"same"` padding and stride 1.

    Example:
        >>> convolutions(keras.Input((8, 8, 4)), 16, count=3, strides=2).shape
        (None, 4, 4, 16)
    """
    for step in range(1, count + 1):
        x = convolution(
            x, filters, kernel_size, padding, strides if step == 1 else 1,
            dilation=dilation, normalization=normalization, name=name, step=step,
        )  # fmt: skip
    if dropout:
        x = layers.SpatialDropout2D(dropout, data_format=CHANNELS_LAST, name=_layer_name(name, "dropout"))(x)
    return x


def normalize(x: KerasTensor, normalization: str, *, name: str | None = None) -> KerasTensor:
    """`x` behind a layer of `NORMALIZATIONS`, or `x` itself for `"none"`.

    Args:
        x: `(N, H, W, C)`.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide C) or `"none"`.
        name: Name of the layer.

    Returns:
        `(N, H, W, C)`.

    Raises:
        SemsegError: `normalization` is unknown.
    """
    if normalization not in NORMALIZATIONS:
        raise SemsegError(f"`normalization`: got {normalization!r}; expected one of {', '.join(NORMALIZATIONS)}")
    new_layer = NORMALIZATIONS[normalization]
    return x if new_layer is None else new_layer(x.shape[-1], name)(x)


def projection(x: KerasTensor, filters: int, *, strides: int = 1, name: str | None = None) -> KerasTensor:
    """A 1x1 convolution without bias, normalisation or activation: another number of channels.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        strides: Distance in pixels between those that are taken.
        name: Name of the layer.

    Returns:
        `(N, H / strides, W / strides, F)`, rounded up.
    """
    return layers.Conv2D(
        filters,
        1,
        strides=strides,
        use_bias=False,
        kernel_initializer="he_normal",
        data_format=CHANNELS_LAST,
        name=name,
    )(x)


def max_pool(x: KerasTensor, size: int = 2, *, name: str | None = None) -> KerasTensor:
    """The largest value of each `size` x `size` square.

    Args:
        x: `(N, H, W, C)`.
        size: Side of the squares in pixels.
        name: Name of the layer.

    Returns:
        `(N, H / size, W / size, C)`, rounded down.
    """
    return layers.MaxPooling2D(size, data_format=CHANNELS_LAST, name=name)(x)


def upsample_and_concatenate(x: KerasTensor, *skips: KerasTensor, filters: int, name: str | None = None) -> KerasTensor:
    """`x` at twice its size, by a 2x2 transposed convolution, behind skip connections.

    Args:
        x: `(N, H, W, C)`.
        skips: Features `(N, 2H, 2W, S)`; larger ones are cropped around the centre.
        filters: Channels F of the transposed convolution.
        name: Prefix of the layer names.

    Returns:
        `(N, 2H, 2W, S + ... + F)`, the skip connections first.

    Raises:
        SemsegError: A skip connection is smaller than twice `x`.

    Example:
        >>> upsample_and_concatenate(keras.Input((8, 8, 32)), keras.Input((16, 16, 16)), filters=8).shape
        (None, 16, 16, 24)
    """
    x = layers.Conv2DTranspose(filters, 2, strides=2, data_format=CHANNELS_LAST, name=_layer_name(name, "up"))(x)
    cropped = [_crop_to(skip, x, name) for skip in skips]
    return layers.Concatenate(name=_layer_name(name, "concatenate"))([*cropped, x])


def upsample(x: KerasTensor, filters: int, *, normalization: str = "batch", name: str | None = None) -> KerasTensor:
    """`x` at twice its size, by a 2x2 transposed convolution, normalisation and ReLU.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, 2H, 2W, F)`.

    Raises:
        SemsegError: The normalisation is not one of these.

    Example:
        >>> upsample(keras.Input((8, 8, 32)), 16).shape
        (None, 16, 16, 16)
    """
    use_bias = normalization == "none"
    x = layers.Conv2DTranspose(
        filters, 2, strides=2, use_bias=use_bias, data_format=CHANNELS_LAST, name=_layer_name(name, "up")
    )(x)
    x = normalize(x, normalization, name=_layer_name(name, "norm"))
    return layers.ReLU(name=_layer_name(name, "relu"))(x)


def down_block(
    x: KerasTensor,
    filters: int,
    kernel_size: int = 3,
    padding: str = "same",
    strides: int = 1,
    *,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str | None = None,
) -> tuple[KerasTensor, KerasTensor]:
    """One step down the U: two convolutions, then 2x2 max pooling.

    Args:
        x: `(N, H, W, C)`; H and W even, or one row or column is lost in pooling.
        filters: Channels F of both convolutions.
        kernel_size: Side of the convolutions in pixels.
        padding: `"same"` keeps H and W; `"valid"` takes `kernel_size - 1` from each at each convolution.
        strides: Stride of the first convolution.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the filters) or `"none"`, between
            convolution and ReLU. With a normalisation the convolutions have no bias, which it would cancel.
        dropout: Share of whole channels dropped after the convolutions while training, 0 to 1.
        name: Prefix of the layer names.

    Returns:
        The features `(N, H, W, F)`, for the skip connection, and the pooled features `(N, H/2, W/2, F)`.

    Raises:
        SemsegError: `normalization` is unknown.

    Example:
        >>> features, pooled = down_block(keras.Input((32, 32, 3)), 8)
        >>> features.shape, pooled.shape
        ((None, 32, 32, 8), (None, 16, 16, 8))

    Reference: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, with batch normalisation (Ioffe and Szegedy
        2015, https://arxiv.org/abs/1502.03167).
    """
    features = convolutions(
        x, filters, kernel_size, padding, strides, normalization=normalization, dropout=dropout, name=name
    )
    return features, max_pool(features, name=_layer_name(name, "pool"))


def bottleneck(
    x: KerasTensor,
    filters: int,
    kernel_size: int = 3,
    padding: str = "same",
    strides: int = 1,
    *,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str | None = None,
) -> KerasTensor:
    """The bottom of the U: two convolutions.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of both convolutions.
        kernel_size: Side of the convolutions in pixels.
        padding: `"same"` keeps H and W; `"valid"` takes `kernel_size - 1` from each at each convolution.
        strides: Stride of the first convolution.
        normalization: `"batch"`, `"group"` or `"none"`, between convolution and ReLU; see `down_block`.
        dropout: Share of whole channels dropped after the convolutions while training, 0 to 1.
        name: Prefix of the layer names.

    Returns:
        `(N, H, W, F)`, with `"same"` padding and stride 1.

    Raises:
        SemsegError: `normalization` is unknown.

    Example:
        >>> bottleneck(keras.Input((8, 8, 4)), 16).shape
        (None, 8, 8, 16)
    """
    return convolutions(
        x, filters, kernel_size, padding, strides, normalization=normalization, dropout=dropout, name=name
    )


def up_block(
    x: KerasTensor,
    skip: KerasTensor,
    filters: int,
    kernel_size: int = 3,
    padding: str = "same",
    strides: int = 1,
    *,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str | None = None,
) -> KerasTensor:
    """One step up the U: 2x2 transposed convolution, concatenation with the skip connection, two convolutions.

    Args:
        x: `(N, H, W, C)` from below.
        skip: Features of the way down, `(N, 2H, 2W, S)`. Larger ones, as blocks with `"valid"` padding leave them, are
            cropped around the centre.
        filters: Channels F of the transposed convolution and of both convolutions.
        kernel_size: Side of the convolutions in pixels.
        padding: `"same"` keeps the size; `"valid"` takes `kernel_size - 1` from height and width at each convolution.
        strides: Stride of the first convolution.
        normalization: `"batch"`, `"group"` or `"none"`, between convolution and ReLU; see `down_block`.
        dropout: Share of whole channels dropped after the convolutions while training, 0 to 1.
        name: Prefix of the layer names.

    Returns:
        `(N, 2H, 2W, F)`, with `"same"` padding and stride 1.

    Raises:
        SemsegError: `skip` is smaller than twice `x`, or `normalization` is unknown.

    Example:
        >>> up_block(keras.Input((8, 8, 32)), keras.Input((16, 16, 16)), 16).shape
        (None, 16, 16, 16)
    """
    x = upsample_and_concatenate(x, skip, filters=filters, name=name)
    return convolutions(
        x, filters, kernel_size, padding, strides, normalization=normalization, dropout=dropout, name=name
    )


def Unet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    kernel_size: int = 3,
    normalization: str = "batch",
    dropout: float = 0.0,
    output_activation: str | None = None,
    name: str = "unet",
) -> keras.Model:
    """A U-Net that takes photos as they are and gives logits.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K. For the binary task 1: a single logit.
        filters: Channels of the first block; they double with each step down.
        depth: Number of down blocks, and of up blocks.
        kernel_size: Side of the convolutions in pixels.
        normalization: `"batch"`, `"group"` or `"none"`.
        dropout: Share of channels dropped in the bottleneck while training, 0 to 1.
        output_activation: `"softmax"` or `"sigmoid"` for probabilities; the losses of this package want logits.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> Unet((64, 96, 3), num_classes=5, filters=8).output_shape
        (None, 64, 96, 5)

    Reference: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597. Differs by "same" padding, batch normalisation
        and input scaling. With 64 filters and one class it has 31,037,633 weights to train.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    if output_activation == "softmax" and num_classes == 1:
        raise SemsegError("Unet: softmax over a single class is always 1; use output_activation='sigmoid'")
    block: dict[str, Any] = {"kernel_size": kernel_size, "normalization": normalization}

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    skips = []
    for step in range(depth):
        features, x = down_block(x, filters * 2**step, name=f"down{step + 1}", **block)
        skips.append(features)
    x = bottleneck(x, filters * 2**depth, dropout=dropout, name="bottleneck", **block)
    for step in reversed(range(depth)):
        x = up_block(x, skips[step], filters * 2**step, name=f"up{step + 1}", **block)
    return keras.Model(inputs, logits_head(x, num_classes, output_activation), name=name)


def check_arguments(
    name: str, input_shape: tuple[int | None, int | None, int], num_classes: int, filters: int, depth: int
) -> None:
    """Checks what every network of this package takes: see `Unet` for the arguments.

    Args:
        name: Of the network, for the message.
        input_shape: `(H, W, C)`.
        num_classes: K.
        filters: Channels of the first block.
        depth: Number of poolings.

    Raises:
        SemsegError: A size does not fit the depth, or a number is below 1.
    """
    if num_classes < 1 or filters < 1 or depth < 1:
        raise SemsegError(f"{name}: got {num_classes=}, {filters=}, {depth=}; expected at least 1 of each")
    check_size(input_shape, depth)


def check_size(input_shape: tuple[int | None, int | None, int], depth: int) -> None:
    """Checks that H and W, where given, are multiples of `2 ** depth`.

    Args:
        input_shape: `(H, W, C)`.
        depth: Number of poolings.

    Raises:
        SemsegError: They are not; the message names sizes that fit.

    Example:
        >>> check_size((96, None, 3), depth=5)
    """
    step = 2**depth
    for side, length in zip(("height", "width"), input_shape, strict=False):
        if length is not None and (length < step or length % step):
            below = length // step * step
            fits = f"{below} or {below + step}" if below else str(step)
            raise SemsegError(
                f"image size: {side} {length} does not fit a network with {depth} poolings, which needs a multiple of "
                f"{step}; use {fits}"
            )


def scaled_input(inputs: KerasTensor) -> KerasTensor:
    """Photos as the network computes with them, inside the model, so that a saved model takes plain photos.

    Args:
        inputs: `(N, H, W, C)`, 0 to 255.

    Returns:
        The same shape, -1 to 1.
    """
    return layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs)


def logits_head(
    x: KerasTensor, num_classes: int, activation: str | None = None, *, name: str = "logits"
) -> KerasTensor:
    """The 1x1 convolution that gives each pixel its class scores.

    Of `full_precision()` whatever the precision policy, because softmax and the loss need it.

    Args:
        x: `(N, H, W, C)`.
        num_classes: K, or 1 for the binary task.
        activation: `"softmax"` or `"sigmoid"` for probabilities; None for logits.
        name: Name of the convolution.

    Returns:
        `(N, H, W, K)`.
    """
    full = full_precision()
    x = layers.Conv2D(num_classes, 1, data_format=CHANNELS_LAST, dtype=full, name=name)(x)
    return x if activation is None else layers.Activation(activation, dtype=full, name="probabilities")(x)


def full_precision() -> str:
    """The dtype of what may not be rounded further: `"float64"` where Keras is set to it, else `"float32"`."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _crop_to(skip: KerasTensor, x: KerasTensor, name: str | None) -> KerasTensor:
    if None in (*skip.shape[1:3], *x.shape[1:3]) or skip.shape[1:3] == x.shape[1:3]:
        return skip
    surplus = [large - small for large, small in zip(skip.shape[1:3], x.shape[1:3], strict=True)]
    if min(surplus) < 0:
        raise SemsegError(
            f"up_block: got a skip connection {skip.shape} for upsampled features {x.shape}; expected one at least as "
            "high and wide (was it taken one block too deep?)"
        )
    margins = tuple((extra // 2, extra - extra // 2) for extra in surplus)
    return layers.Cropping2D(margins, data_format=CHANNELS_LAST, name=_layer_name(name, "crop"))(skip)


def _layer_name(prefix: str | None, part: str) -> str | None:
    return None if prefix is None else f"{prefix}_{part}"
