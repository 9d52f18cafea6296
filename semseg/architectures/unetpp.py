"""U-Net++: a U-Net whose skip connections are U-Nets of every smaller depth."""

import keras
from keras import layers

from semseg.segmentation_model import (
    check_arguments,
    convolutions,
    full_precision,
    logits_head,
    max_pool,
    scaled_input,
    upsample_and_concatenate,
)


def UnetPP(
    input_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    num_classes: int = 19,
    *,
    filters: int = 16,
    depth: int = 4,
    normalization: str = "batch",
    dropout: float = 0.0,
    deep_supervision: bool = False,
    name: str = "unetpp",
) -> keras.Model:
    """A U-Net++: the features of a step go up from every depth, and each sees all that were made at its size before.

    Args:
        input_shape: `(H, W, C)`; H and W multiples of `2 ** depth`, or None for any such size.
        num_classes: K, the channels of the logits; 1 for the binary task, a single logit.
        filters: Channels of the first block; they double with each step down.
        depth: Number of poolings, and of steps up, at least 1.
        normalization: `"batch"`, `"group"` (8 groups, fewer where 8 do not divide the channels) or `"none"`.
        dropout: Share of whole channels dropped in the bottleneck while training, 0 to 1.
        deep_supervision: Whether every depth has logits of its own, to be trained together, so that the network can be
            cut to a smaller depth afterwards.
        name: Name of the model.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`, float32. With `deep_supervision` to a
        list of such: first the mean of all logits, then those of depth 1, 2 ...

    Raises:
        SemsegError: The size does not fit the depth, or an argument is out of its range.

    Example:
        >>> UnetPP((32, 48, 3), num_classes=5, filters=4, depth=2).output_shape
        (None, 32, 48, 5)

    Reference: Zhou et al. 2018, https://arxiv.org/abs/1807.10165, with batch normalisation. The mean of the logits
        is the paper's accurate mode.
    """
    check_arguments(name, input_shape, num_classes, filters, depth)

    inputs = keras.Input(input_shape, name="photo")
    x = scaled_input(inputs)
    nodes: list[list[keras.KerasTensor]] = []  # nodes[i][j]: at 1 / 2^i of the size, behind j steps up
    for i in range(depth + 1):
        drop = dropout if i == depth else 0.0
        x = convolutions(x, filters * 2**i, normalization=normalization, dropout=drop, name=f"down{i + 1}")
        nodes.append([x])
        x = max_pool(x, name=f"down{i + 1}_pool") if i < depth else x
    for j in range(1, depth + 1):
        for i in range(depth + 1 - j):
            part, width = f"up{i + 1}_{j}", filters * 2**i
            x = upsample_and_concatenate(nodes[i + 1][j - 1], *nodes[i], filters=width, name=part)
            nodes[i].append(convolutions(x, width, normalization=normalization, name=part))
    if not deep_supervision:
        return keras.Model(inputs, logits_head(nodes[0][-1], num_classes), name=name)
    heads = [logits_head(x, num_classes, name=f"logits{j}") for j, x in enumerate(nodes[0][1:], 1)]
    mean = layers.Average(dtype=full_precision(), name="logits")(heads) if depth > 1 else heads[0]
    return keras.Model(inputs, [mean, *heads], name=name)
