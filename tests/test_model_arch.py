import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from semseg import model_arch
from semseg.model_arch import get_model_arch, read_architecture


def block(x, filters, residual=False):
    start = x
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return layers.Add()([x, layers.Conv2D(filters, 1)(start)]) if residual else x


def gated(skip, signal, filters):
    weight = layers.Add()([layers.Conv2D(filters, 1)(skip), layers.Conv2D(filters, 1)(signal)])
    weight = layers.Conv2D(1, 1, activation="sigmoid")(layers.ReLU()(weight))
    return layers.Multiply()([skip, weight])


def unet(shape=(32, 48, 3), classes=5, depth=2, filters=4, residual=False, attention=False):
    inputs = keras.Input(shape)
    x, skips = layers.Rescaling(1 / 255)(inputs), []
    for level in range(depth):
        x = block(x, filters * 2**level, residual)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, filters * 2**depth, residual)
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2)(x)
        skip = gated(skips[level], x, filters) if attention else skips[level]
        x = block(layers.Concatenate()([skip, x]), filters * 2**level, residual)
    return keras.Model(inputs, layers.Conv2D(classes, 1)(x), name="unet")


def classifier():
    stack = [
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((16, 16, 3)), *stack], name="classifier")


def links(model):
    return [(link.source, link.target, link.kind, link.label) for link in read_architecture(model).links]


@pytest.fixture
def no_dot(monkeypatch):
    monkeypatch.setattr(model_arch.shutil, "which", lambda name: None)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


CONV = "Conv 3x3 + BN + ReLU"


def test_reads_a_small_unet_as_worked_out_by_hand():
    arch = read_architecture(unet())
    assert [(m.channels, m.size, int(m.scale), m.label) for m in arch.maps] == [
        (3, (32, 48), 1, "Input + Rescaling"),
        (4, (32, 48), 1, CONV),
        (4, (32, 48), 1, CONV),
        (4, (16, 24), 2, "Max pool 2x2"),
        (8, (16, 24), 2, CONV),
        (8, (16, 24), 2, CONV),
        (8, (8, 12), 4, "Max pool 2x2"),
        (16, (8, 12), 4, CONV),
        (16, (8, 12), 4, CONV),
        (16, (16, 24), 2, "Transposed conv 2x2"),
        (8, (16, 24), 2, CONV),
        (8, (16, 24), 2, CONV),
        (8, (32, 48), 1, "Transposed conv 2x2"),
        (4, (32, 48), 1, CONV),
        (4, (32, 48), 1, CONV),
        (5, (32, 48), 1, "Conv 1x1"),
    ]
    assert arch.stages == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14, 15]]
    assert [m.parts for m in arch.maps if m.parts] == [(8, 8), (4, 4)]
    assert (arch.name, arch.parameters, arch.hidden) == ("unet", unet().count_params(), 0)


def test_skip_connections_join_equal_resolutions_across_the_bottom():
    label = "Skip connection: concatenate"
    assert links(unet()) == [(5, 9, "skip", label), (2, 12, "skip", label)]


def test_residual_blocks_are_shortcuts():
    found = [link for link in links(unet(depth=1, residual=True)) if link[2] == "shortcut"]
    assert found == [(a, b, "shortcut", "Shortcut: conv 1x1, add") for a, b in ((0, 2), (3, 5), (6, 8))]


def test_attention_gates_lie_on_the_skip_connections():
    assert len(read_architecture(unet(attention=True)).maps) == len(read_architecture(unet()).maps)
    label = "Skip connection: attention gate, concatenate"
    assert links(unet(attention=True)) == [(5, 9, "skip", label), (2, 12, "skip", label)]


def test_labels_have_the_real_numbers():
    stack = [
        layers.Conv2D(4, 5, strides=2, padding="same"),
        layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
        layers.GroupNormalization(2),
        layers.Activation("gelu"),
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.UpSampling2D(4, interpolation="bilinear"),
        layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
    ]
    maps = read_architecture(keras.Sequential([keras.Input((32, 32, 3)), *stack])).maps
    assert [(m.label, m.kind) for m in maps[1:]] == [
        ("Conv 5x5, stride 2", "down"),
        ("Conv 3x3, dilation 2 + GN + GELU", "dilated"),
        ("Average pool 3x3, stride 2", "down"),
        ("Upsampling 4x4 (bilinear)", "up"),
        ("Transposed conv 3x3, stride 2", "up"),
    ]


def test_parallel_branches_do_not_hide_the_main_path():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    pooled = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    branches = [layers.Conv2D(4, 3, dilation_rate=d, padding="same")(x) for d in (2, 4)]
    x = layers.Concatenate()([layers.UpSampling2D(16)(pooled), *branches])
    arch = read_architecture(keras.Model(inputs, x))
    assert [(m.channels, m.size) for m in arch.maps] == [(3, (16, 16)), (4, (16, 16)), (12, (16, 16))]
    assert [(link.source, link.target, link.label) for link in arch.links] == [(1, 2, "2 more branches: concatenate")]


def test_squeeze_and_excite_is_a_gate_on_its_own_map():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3)(inputs)
    weight = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    arch = read_architecture(keras.Model(inputs, layers.Multiply()([x, weight])))
    assert [m.label for m in arch.maps] == ["Input", "Conv 3x3 + gate"]
    assert arch.links == []


def test_nested_models_are_read_through():
    inputs = keras.Input((32, 48, 3))
    nested = read_architecture(keras.Model(inputs, unet()(inputs)))
    assert nested.maps == read_architecture(unet()).maps
    assert nested.links == read_architecture(unet()).links


def test_channels_first():
    options = {"data_format": "channels_first"}
    inputs = keras.Input((3, 16, 24))
    skip = layers.Conv2D(4, 3, padding="same", **options)(inputs)
    x = layers.Conv2DTranspose(4, 2, strides=2, **options)(layers.MaxPooling2D(**options)(skip))
    arch = read_architecture(keras.Model(inputs, layers.Concatenate(axis=1)([skip, x])))
    assert [(m.channels, m.size) for m in arch.maps] == [(3, (16, 24)), (4, (16, 24)), (4, (8, 12)), (8, (16, 24))]
    assert [(link.source, link.target) for link in arch.links] == [(1, 3)]


def test_free_height_and_width_are_relative():
    arch = read_architecture(unet((None, None, 3)))
    sizes = [model_arch._size_text(arch.maps[stage[0]]) for stage in arch.stages]
    assert sizes == ["HxW", "H/2xW/2", "H/4xW/4", "H/2xW/2", "HxW"]


@pytest.mark.parametrize(
    "model",
    [
        lambda: unet(),
        lambda: unet((128, 128, 1), classes=1, depth=5, filters=64),
        lambda: unet((None, None, 3), depth=3),
        lambda: unet(residual=True),
        lambda: unet(attention=True),
        lambda: classifier(),
        lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2)]),
        lambda: keras.Sequential([keras.Input((None, 4)), layers.Conv1D(2, 3)]),
        lambda: keras.Sequential([keras.Input((32, 32, 3)), *(layers.Conv2D(4, 3) for _ in range(12))]),
    ],
    ids=["unet", "deep", "free", "residual", "attention", "classifier", "vector", "series", "long"],
)
def test_draws_a_png_of_sensible_size_with_a_white_edge(model, tmp_path, no_dot):
    target = tmp_path / "new folder" / "arch.png"
    assert get_model_arch(model(), target) == [target]
    image = pixels(target)
    height, width, _ = image.shape
    assert 1600 <= width <= 2200
    assert 300 <= height <= 1500
    inner = image[20:-20, 20:-20]
    assert (inner != 255).any(axis=2).mean() > 0.005
    assert (image != 255).sum() == (inner != 255).sum()  # nothing is clipped
    assert [path.name for path in target.parent.iterdir()] == ["arch.png"]


def test_the_drawing_follows_the_model(tmp_path, no_dot):
    drawings = []
    for number, options in enumerate([{}, {}, {"depth": 3}, {"filters": 8}]):
        get_model_arch(unet(**options), tmp_path / f"{number}.png")
        drawings.append((tmp_path / f"{number}.png").read_bytes())
    assert drawings[0] == drawings[1]
    assert len(set(drawings)) == 3


def test_the_legend_lists_what_occurs():
    entries = model_arch._entries(read_architecture(unet()))
    assert [label for label, _ in entries] == [
        CONV,
        "Max pool 2x2",
        "Transposed conv 2x2",
        "Conv 1x1",
        "Skip connection: concatenate",
    ]
    assert len({color for _, color in entries}) == len(entries)


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(("model", "name"), [(Subclassed(), "Subclassed"), (keras.Sequential(), "Sequential")])
def test_a_model_without_a_graph_is_refused(model, name, tmp_path):
    with pytest.raises(ValueError, match=rf"got {name} '.*which has no graph.*expected a functional.*keras\.Model\("):
        get_model_arch(model, tmp_path / "arch.png")
    assert list(tmp_path.iterdir()) == []


def with_dot(monkeypatch, plot):
    monkeypatch.setattr(model_arch.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(model_arch.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(keras.utils, "plot_model", plot)


def test_keras_own_diagram_where_graphviz_is(tmp_path, monkeypatch):
    def plot(model, to_file, show_shapes):
        assert show_shapes
        Path(to_file).write_bytes(b"diagram")

    with_dot(monkeypatch, plot)
    assert get_model_arch(unet(), tmp_path / "a.png") == [tmp_path / "a.png", tmp_path / "a_layers.png"]
    assert (tmp_path / "a_layers.png").read_bytes() == b"diagram"


def broken(*args, **options):
    raise ImportError("You must install graphviz")


@pytest.mark.parametrize("plot", [broken, lambda *args, **options: None], ids=["raises", "only prints"])
def test_a_graphviz_that_does_not_run_is_skipped(plot, tmp_path, monkeypatch):
    with_dot(monkeypatch, plot)
    assert get_model_arch(unet(), tmp_path / "a.png") == [tmp_path / "a.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_no_partial_file_when_drawing_fails(tmp_path, monkeypatch, no_dot):
    def save(canvas, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    (tmp_path / "arch.png").write_bytes(b"before")
    monkeypatch.setattr(model_arch._Canvas, "save", save)
    with pytest.raises(OSError, match="disk full"):
        get_model_arch(unet(), tmp_path / "arch.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("arch.png", b"before")]


def test_the_module_loads_neither_keras_nor_matplotlib():
    code = "import sys, semseg.model_arch; sys.exit(bool({'keras', 'matplotlib'} & set(sys.modules)))"
    root = Path(model_arch.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
