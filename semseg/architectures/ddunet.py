"""DDU-Net: a U-Net with dilated convolutions around its bottom."""

import keras

from semseg.segmentation_model import (
    check_arguments,
    convolutions,
    logits_head,
    max_pool,
    scaled_input,
    upsample_and_concatenate,
)

DILATION = 3


def DDUnet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 3,
    normalization: str = "batch",
    dropout: float = 0.0,
    name: str = "ddunet",
) -> keras.Model:
    """A dilated U-Net: one pooling less than U-Net's four, and convolutions that reach further instead.

    The lowest block on the way down, the bottom and the lowest block on the way up have dilation 3, the others 1:
    1 1 3, 3, 3 1 1 with three poolings. Blocks have three convolutions down to the bottom, two on the way up.

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
        >>> DDUnet((32, 48, 3), num_classes=5, filters=4).output_shape
        (None, 32, 48, 5)

    Reference: dilated convolutions are those of Yu and Koltun 2016, https://arxiv.org/abs/1511.07122. The network is
        an unpublished one; "same" padding makes it fit any size, and three and two convolutions are what gives it the
        10.8 million weights that it is known to have with 64 filters.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    dilations = [1] * (depth - 1) + [DILATION]

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    skips = []
    for step, dilation in enumerate(dilations):
        x = convolutions(
            x, filters * 2**step, count=3, dilation=dilation, normalization=normalization, name=f"down{step + 1}"
        )
        skips.append(x)
        x = max_pool(x, name=f"down{step + 1}_pool")
    x = convolutions(
        x, filters * 2**depth, count=3, dilation=DILATION,
        normalization=normalization, dropout=dropout, name="bottleneck",
    )  # fmt: skip
    for step, dilation in reversed(list(enumerate(dilations))):
        x = upsample_and_concatenate(x, skips[step], filters=filters * 2**step, name=f"up{step + 1}")
        x = convolutions(x, filters * 2**step, dilation=dilation, normalization=normalization, name=f"up{step + 1}")
    return keras.Model(inputs, logits_head(x, num_classes), name=name)
