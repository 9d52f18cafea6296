"""UNet 3+: skip connections from every scale to every scale."""

import keras
from keras import KerasTensor, layers

from semseg.segmentation_model import (
    CHANNELS_LAST,
    check_arguments,
    convolution,
    convolutions,
    logits_head,
    max_pool,
    scaled_input,
)


def at_scale(x: KerasTensor, scale: int, target: int, *, name: str) -> KerasTensor:
    """Features brought to another scale: pooled, or enlarged bilinearly.

    Args:
        x: Features at 1 / 2^`scale` of the photo's size.
        scale: See `x`.
        target: The result has 1 / 2^`target` of the photo's size.
        name: Prefix of the layer names.
    """
    if scale < target:
        return max_pool(x, 2 ** (target - scale), name=f"{name}_pool")
    if scale > target:
        size = 2 ** (scale - target)
        return layers.UpSampling2D(size, data_format=CHANNELS_LAST, interpolation="bilinear", name=f"{name}_up")(x)
    return x


def Unet3Plus(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str = "unet3plus",
) -> keras.Model:
    """A UNet 3+: each step up joins features of all scales, the same number of channels from each.

    These are the larger and equal ones of the way down, and the smaller ones of the way up, the bottom among them.
    Fewer weights than U-Net has, but much more work, most of it at full size.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels of the first block, which double with each step down, and what each scale gives to a step
            up.
        depth: Number of poolings, and of steps up, at least 1.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        dropout: Share of whole channels dropped in the bottleneck while training, 0 to 1.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> Unet3Plus((32, 48, 3), num_classes=5, filters=4, depth=2).output_shape
        (None, 32, 48, 5)

    Reference: Huang et al. 2020, https://arxiv.org/abs/2004.08790, without deep supervision and
        classification guidance.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    block = {"normalization": normalization}

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    scales = []  # the latest features at each scale
    for step in range(depth):
        scales.append(convolutions(x, filters * 2**step, name=f"down{step + 1}", **block))
        x = max_pool(scales[-1], name=f"down{step + 1}_pool")
    scales.append(convolutions(x, filters * 2**depth, dropout=dropout, name="bottleneck", **block))
    for target in reversed(range(depth)):
        parts = []
        for scale, features in enumerate(scales):
            part = f"up{target + 1}_from{scale + 1}"
            parts.append(convolution(at_scale(features, scale, target, name=part), filters, name=part, **block))
        x = layers.Concatenate(name=f"up{target + 1}_concatenate")(parts)
        scales[target] = convolution(x, filters * len(scales), name=f"up{target + 1}", **block)
    return keras.Model(inputs, logits_head(scales[0], num_classes), name=name)
