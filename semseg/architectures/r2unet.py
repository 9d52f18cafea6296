"""R2U-Net: a U-Net of recurrent residual units."""

import keras
from keras import KerasTensor, layers

from semseg.segmentation_model import (
    CHANNELS_LAST,
    check_arguments,
    logits_head,
    max_pool,
    normalize,
    projection,
    scaled_input,
    upsample_and_concatenate,
)


def recurrent_unit(
    x: KerasTensor, filters: int, *, recurrences: int = 2, normalization: str = "batch", name: str
) -> KerasTensor:
    """A 1x1 convolution, and the sum of its result and of two recurrent blocks behind it.

    A recurrent block applies one convolution `recurrences` times, first to its input, then each time to the sum of its
    input and the last result. The convolution is shared; the normalisations are not, since features of different
    steps have different means, and one moving average of them all would fit none when the network is used.

    Args:
        x: `(N, H, W, C)`.
        filters: Channels F of the result.
        recurrences: How often each shared convolution is applied, at least 1.
        normalization: `"batch"`, `"group"` or `"none"`.
        name: Prefix of the layer names.

    Returns:
        `(N, H, W, F)`.
    """
    x = projection(x, filters, name=f"{name}_in")
    y = x
    for block in ("a", "b"):
        shared = layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=normalization == "none",
            kernel_initializer="he_normal",
            data_format=CHANNELS_LAST,
            name=f"{name}_{block}_conv",
        )
        block_input = y
        for step in range(1, recurrences + 1):
            if step > 1:
                y = layers.Add(name=f"{name}_{block}_sum{step}")([block_input, y])
            y = normalize(shared(y), normalization, name=f"{name}_{block}_norm{step}")
            y = layers.ReLU(name=f"{name}_{block}_relu{step}")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def R2Unet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    recurrences: int = 2,
    normalization: str = "batch",
    name: str = "r2unet",
) -> keras.Model:
    """An R2U-Net: each pair of convolutions of the U-Net is a `recurrent_unit`.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels of the first block; they double with each step down.
        depth: Number of poolings, and of steps up, at least 1.
        recurrences: How often each shared convolution is applied, at least 1. The paper counts the times after the
            first: its t = 2 is 3 here.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> R2Unet((32, 48, 3), num_classes=5, filters=4, depth=2).output_shape
        (None, 32, 48, 5)

    Reference: Alom et al. 2018, https://arxiv.org/abs/1802.06955. Differs by batch normalisation, one for each step.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    unit = {"recurrences": recurrences, "normalization": normalization}

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    skips = []
    for step in range(depth):
        skips.append(recurrent_unit(x, filters * 2**step, name=f"down{step + 1}", **unit))
        x = max_pool(skips[-1], name=f"down{step + 1}_pool")
    x = recurrent_unit(x, filters * 2**depth, name="bottleneck", **unit)
    for step in reversed(range(depth)):
        x = upsample_and_concatenate(x, skips[step], filters=filters * 2**step, name=f"up{step + 1}")
        x = recurrent_unit(x, filters * 2**step, name=f"up{step + 1}", **unit)
    return keras.Model(inputs, logits_head(x, num_classes), name=name)
