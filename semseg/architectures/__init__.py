"""The networks by name. To add one: a file with its builder here, and a line in `ARCHITECTURES`."""

from collections.abc import Callable

import keras

from semseg.architectures.attention_unet import AttentionUnet
from semseg.architectures.ddunet import DDUnet
from semseg.architectures.hybrid_unet import HybridUnet
from semseg.architectures.r2unet import R2Unet
from semseg.architectures.resunet import ResUnet
from semseg.architectures.unet3plus import Unet3Plus
from semseg.architectures.unetpp import UnetPP
from semseg.errors import SemsegError
from semseg.segmentation_model import Unet

ARCHITECTURES: dict[str, Callable[..., keras.Model]] = {
    "unet": Unet,
    "r2unet": R2Unet,
    "ddunet": DDUnet,
    "hybrid_unet": HybridUnet,
    "attention_unet": AttentionUnet,
    "unetpp": UnetPP,
    "resunet": ResUnet,
    "unet3plus": Unet3Plus,
}


def build_model(name: str, input_shape: tuple[int, int, int], num_classes: int, *, filters: int) -> keras.Model:
    """Builds the network called `name`.

    Args:
        name: A key of `ARCHITECTURES`.
        input_shape: `(H, W, C)`.
        num_classes: Channels of the logits: K, or 1 for the binary task.
        filters: Channels of the first block.

    Returns:
        A model from photos `(N, H, W, C)`, 0 to 255, to logits `(N, H, W, K)`.

    Raises:
        SemsegError: No such network, or the size does not fit it.
    """
    if name not in ARCHITECTURES:
        raise SemsegError(f"--model: there is no network {name!r}; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](input_shape, num_classes, filters=filters)
