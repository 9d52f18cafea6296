"""U-Net++: a U-Net whose skip connections are U-Nets of every smaller depth."""

import keras
from keras import layers

from semseg.segmentation_model import check_arguments, convolutions, joined, logits_head, pooled, scaled_input


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

    Args, result and errors are those of `Unet`. With `deep_supervision` every depth has logits, to be trained together
    and pruned at will: the model then gives a list, first the mean of all logits, then those of depth 1, 2 ...

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
        x = pooled(x, name=f"down{i + 1}_pool") if i < depth else x
    for j in range(1, depth + 1):
        for i in range(depth + 1 - j):
            part, width = f"up{i + 1}_{j}", filters * 2**i
            x = joined(nodes[i + 1][j - 1], *nodes[i], filters=width, name=part)
            nodes[i].append(convolutions(x, width, normalization=normalization, name=part))
    if not deep_supervision:
        return keras.Model(inputs, logits_head(nodes[0][-1], num_classes), name=name)
    heads = [logits_head(x, num_classes, name=f"logits{j}") for j, x in enumerate(nodes[0][1:], 1)]
    mean = layers.Average(dtype="float32", name="logits")(heads) if depth > 1 else heads[0]
    return keras.Model(inputs, [mean, *heads], name=name)
