"""Attention U-Net: gates on the skip connections."""

import keras
from keras import KerasTensor, layers

from semseg.segmentation_model import (
    CHANNELS_LAST,
    bottleneck,
    check_arguments,
    convolution,
    down_block,
    logits_head,
    scaled_input,
    up_block,
)


def attention_gate(x: KerasTensor, skip: KerasTensor, filters: int, *, normalization: str, name: str) -> KerasTensor:
    """The skip connection, each pixel times a number from 0 to 1 that is found from it and from the features below.

    Args:
        x: Features from below, `(N, H, W, C)`.
        skip: Features of the way down, `(N, 2H, 2W, S)`.
        filters: Channels in which the two are compared.
        normalization: `"batch"`, `"group"` or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, 2H, 2W, S)`.
    """
    block = {"normalization": normalization, "activation": False, "name": name}
    from_skip = convolution(skip, filters, 2, strides=2, step="_skip", **block)  # (N, H, W, filters)
    from_below = convolution(x, filters, 1, step="_x", **block)
    gate = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([from_skip, from_below]))
    gate = layers.Conv2D(1, 1, activation="sigmoid", data_format=CHANNELS_LAST, name=f"{name}_weight")(gate)
    gate = layers.UpSampling2D(2, data_format=CHANNELS_LAST, interpolation="bilinear", name=f"{name}_grow")(gate)
    return layers.Multiply(name=f"{name}_gate")([skip, gate])  # (N, 2H, 2W, S)


def AttentionUnet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str = "attention_unet",
) -> keras.Model:
    """An Attention U-Net: before each concatenation, what comes from below decides which pixels of the skip count.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels of the first block; they double with each step down.
        depth: Number of poolings, and of steps up, at least 1.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        dropout: Share of whole channels dropped in the bottleneck while training, 0 to 1.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> AttentionUnet((32, 48, 3), num_classes=5, filters=4, depth=2).output_shape
        (None, 32, 48, 5)

    Reference: Oktay et al. 2018, https://arxiv.org/abs/1804.03999, in two dimensions. All skip connections are gated;
        each gate is found at the size of `x`, in half the channels of the skip, and enlarged bilinearly.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    skips = []
    for step in range(depth):
        features, x = down_block(x, filters * 2**step, normalization=normalization, name=f"down{step + 1}")
        skips.append(features)
    x = bottleneck(x, filters * 2**depth, normalization=normalization, dropout=dropout, name="bottleneck")
    for step in reversed(range(depth)):
        width, part = filters * 2**step, f"up{step + 1}"
        skip = attention_gate(x, skips[step], max(1, width // 2), normalization=normalization, name=f"{part}_attention")
        x = up_block(x, skip, width, normalization=normalization, name=part)
    return keras.Model(inputs, logits_head(x, num_classes), name=name)
