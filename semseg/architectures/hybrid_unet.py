"""Hybrid U-Net: this project's own changes to the U-Net."""

import keras
from keras import KerasTensor, layers

from semseg.segmentation_model import (
    CHANNELS_LAST,
    check_arguments,
    convolution,
    logits_head,
    max_pool,
    projection,
    scaled_input,
    upsample_and_concatenate,
)

DILATIONS = (1, 2, 4)


def residual_block(x: KerasTensor, filters: int, *, normalization: str, name: str) -> KerasTensor:
    """Two convolutions and a shortcut around both, then ReLU.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        normalization: `"batch"`, `"group"` or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, H, W, F)`.
    """
    y = convolution(x, filters, normalization=normalization, name=name, step=1)
    y = convolution(y, filters, normalization=normalization, activation=False, name=name, step=2)
    y = layers.Add(name=f"{name}_add")([projection(x, filters, name=f"{name}_shortcut"), y])
    return layers.ReLU(name=f"{name}_relu2")(y)


def context_block(x: KerasTensor, filters: int, *, normalization: str, name: str) -> KerasTensor:
    """Near, further and the whole picture at once: dilated convolutions side by side, plus the mean over all pixels.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result; each of the dilated convolutions has half of them.
        normalization: `"batch"`, `"group"` or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, H, W, F)`.
    """
    width = max(1, filters // 2)
    branches = [
        convolution(x, width, dilation=rate, normalization=normalization, name=name, step=f"_{rate}")
        for rate in DILATIONS
    ]
    y = layers.Concatenate(name=f"{name}_concatenate")(branches)
    y = convolution(y, filters, 1, normalization=normalization, activation=False, name=name, step="_join")
    whole = layers.GlobalAveragePooling2D(keepdims=True, data_format=CHANNELS_LAST, name=f"{name}_mean")(x)
    parts = [projection(x, filters, name=f"{name}_shortcut"), y, projection(whole, filters, name=f"{name}_whole")]
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")(parts))


def channel_gate(x: KerasTensor, skip: KerasTensor, *, name: str) -> KerasTensor:
    """The skip connection, each channel times a number from 0 to 1 that is found from the means of all channels.

    Args:
        x: Features from below, `(N, H, W, C)`.
        skip: Features of the way down, `(N, 2H, 2W, S)`.
        name: Prefix of the layer names.

    Returns:
        `(N, 2H, 2W, S)`.
    """
    channels = skip.shape[-1]
    means = [
        layers.GlobalAveragePooling2D(keepdims=True, data_format=CHANNELS_LAST, name=f"{name}_mean_{part}")(features)
        for part, features in (("skip", skip), ("x", x))
    ]
    weights = layers.Concatenate(name=f"{name}_means")(means)
    for width, activation in ((max(4, channels // 4), "relu"), (channels, "sigmoid")):
        weights = layers.Conv2D(
            width, 1, activation=activation, data_format=CHANNELS_LAST, name=f"{name}_{activation}"
        )(weights)
    return layers.Multiply(name=f"{name}_gate")([skip, weights])


def HybridUnet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    normalization: str = "batch",
    name: str = "hybrid_unet",
) -> keras.Model:
    """A U-Net that learns faster for about the same work; this project's own design.

    Three things differ from the U-Net. Blocks are residual, so that gradients reach the first ones from the first step
    on. The bottom has dilated convolutions side by side, and the mean over the whole photo, in place of two
    convolutions of full width: it sees further, with two thirds of the weights. And skip connections are gated, channel
    by channel, by what they and the features from below hold on the whole.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels of the first block; they double with each step down.
        depth: Number of poolings, and of steps up, at least 1.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> HybridUnet((32, 48, 3), num_classes=5, filters=4, depth=2).output_shape
        (None, 32, 48, 5)

    Reference: its parts are those of He et al. 2016, https://arxiv.org/abs/1512.03385 (residual blocks), Chen et al.
        2017, https://arxiv.org/abs/1706.05587 (dilations and the mean), and Hu et al. 2018,
        https://arxiv.org/abs/1709.01507 (gates).
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    block = {"normalization": normalization}

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    skips = []
    for step in range(depth):
        skips.append(residual_block(x, filters * 2**step, name=f"down{step + 1}", **block))
        x = max_pool(skips[-1], name=f"down{step + 1}_pool")
    x = context_block(x, filters * 2**depth, name="bottleneck", **block)
    for step in reversed(range(depth)):
        part = f"up{step + 1}"
        skip = channel_gate(x, skips[step], name=f"{part}_attention")
        x = upsample_and_concatenate(x, skip, filters=filters * 2**step, name=part)
        x = residual_block(x, filters * 2**step, name=part, **block)
    return keras.Model(inputs, logits_head(x, num_classes), name=name)
