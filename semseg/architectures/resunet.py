"""ResUNet: a U-Net of residual units."""

import keras
from keras import KerasTensor, layers

from semseg.segmentation_model import (
    CHANNELS_LAST,
    check_arguments,
    convolution,
    logits_head,
    normalize,
    projection,
    scaled_input,
)


def preactivated(x: KerasTensor, filters: int, *, strides: int = 1, normalization: str, name: str) -> KerasTensor:
    """Normalisation, ReLU, 3x3 convolution.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        strides: Stride of the convolution.
        normalization: `"batch"`, `"group"` or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, H / strides, W / strides, F)`.
    """
    x = layers.ReLU(name=f"{name}_relu")(normalize(x, normalization, name=f"{name}_norm"))
    return convolution(x, filters, strides=strides, normalization="none", activation=False, name=name)


def residual_unit(x: KerasTensor, filters: int, *, strides: int = 1, normalization: str, name: str) -> KerasTensor:
    """`x` by a 1x1 convolution, plus two pre-activated convolutions of it.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        strides: Stride of the first convolution and of the shortcut.
        normalization: `"batch"`, `"group"` or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, H / strides, W / strides, F)`.
    """
    y = preactivated(x, filters, strides=strides, normalization=normalization, name=f"{name}_1")
    y = preactivated(y, filters, normalization=normalization, name=f"{name}_2")
    return layers.Add(name=f"{name}_add")([projection(x, filters, strides=strides, name=f"{name}_shortcut"), y])


def ResUnet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 3,
    normalization: str = "batch",
    name: str = "resunet",
) -> keras.Model:
    """A deep residual U-Net: pre-activated residual units, strides in place of pooling, nearest pixels in place of
    transposed convolutions.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels of the first block; they double with each step down.
        depth: Number of times that the size is halved, and of steps up, at least 1.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> ResUnet((32, 48, 3), num_classes=5, filters=4).output_shape
        (None, 32, 48, 5)

    Reference: Zhang, Liu and Wang 2018, https://arxiv.org/abs/1711.10684. The shortcuts' 1x1 convolutions are not
        normalised.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    y = convolution(x, filters, normalization=normalization, name="down1_1")
    y = convolution(y, filters, normalization="none", activation=False, name="down1_2")
    x = layers.Add(name="down1_add")([projection(x, filters, name="down1_shortcut"), y])
    skips = [x]
    for step in range(1, depth + 1):
        part = f"down{step + 1}" if step < depth else "bottleneck"
        x = residual_unit(x, filters * 2**step, strides=2, normalization=normalization, name=part)
        skips.append(x)
    for step in reversed(range(depth)):
        part = f"up{step + 1}"
        x = layers.UpSampling2D(2, data_format=CHANNELS_LAST, name=f"{part}_up")(x)
        x = layers.Concatenate(name=f"{part}_concatenate")([skips[step], x])
        x = residual_unit(x, filters * 2**step, normalization=normalization, name=part)
    return keras.Model(inputs, logits_head(x, num_classes), name=name)
