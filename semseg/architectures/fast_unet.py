"""A U-Net that does less where photos are large: it starts at half their size, and bounds its channels."""

import keras

from semseg.segmentation_model import (
    bottleneck,
    check_arguments,
    check_size,
    convolution,
    down_block,
    logits_head,
    scaled_input,
    up_block,
    upsample,
)

MOST_TIMES_FILTERS = 8  # channels, at the bottom


def FastUnet(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    normalization: str = "batch",
    name: str = "fast_unet",
) -> keras.Model:
    """A U-Net at half the photo's size, for more epochs in the same time.

    The first convolution goes in steps of two pixels, and only the last, thin layers work at the photo's own size. The
    channels double on the way down as far as 8 times `filters`, as wider kernels cost the optimiser more than they
    bring.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** (depth + 1)`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels at the photo's own size; at half of it there are half as many again.
        depth: Number of down blocks below half the size, and of up blocks.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32.

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> FastUnet((64, 96, 3), num_classes=5, filters=4).output_shape
        (None, 64, 96, 5)
    """
    check_arguments(name, input_shape, num_classes, filters, depth)
    check_size(input_shape, depth + 1)
    widths = [min(filters * 3 // 2 * 2**step, MOST_TIMES_FILTERS * filters) for step in range(depth + 1)]

    inputs = keras.Input(input_shape, name="photo")
    x = convolution(scaled_input(inputs), widths[0], strides=2, normalization=normalization, name="down0")
    skips = []
    for step in range(depth):
        features, x = down_block(x, widths[step], normalization=normalization, name=f"down{step + 1}")
        skips.append(features)
    x = bottleneck(x, widths[depth], normalization=normalization, name="bottleneck")
    for step in reversed(range(depth)):
        x = up_block(x, skips[step], widths[step], normalization=normalization, name=f"up{step + 1}")
    x = upsample(x, filters, normalization=normalization, name="up0")
    return keras.Model(inputs, logits_head(x, num_classes), name=name)
