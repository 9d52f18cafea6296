from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from test_model_graph import unet

from semseg.architectures import drawing as model_arch
from semseg.architectures.drawing import get_model_arch
from semseg.architectures.graph import read_architecture

pytestmark = pytest.mark.plain  # Keras builds the same graph on every backend


def classifier():
    stack = [
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((16, 16, 3)), *stack], name="classifier")


@pytest.fixture
def no_dot(monkeypatch):
    monkeypatch.setattr(model_arch.shutil, "which", lambda name: None)


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


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
    colors = model_arch._colors(read_architecture(unet()))
    assert list(colors) == [
        "Conv 3x3 + BN + ReLU",
        "Max pool 2x2",
        "Transposed conv 2x2",
        "Conv 1x1",
        "Skip connection: concatenate",
    ]
    assert len(set(colors.values())) == len(colors)


def test_a_model_that_cannot_be_read_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="which has no graph"):
        get_model_arch(keras.Sequential(), tmp_path / "new folder" / "arch.png")
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
