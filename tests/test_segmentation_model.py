import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from semseg.architectures import ARCHITECTURES, build_model
from semseg.errors import SemsegError
from semseg.segmentation_model import Unet, bottleneck, down_block, up_block


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def convolution(inputs, outputs, size, bias):
    return inputs * outputs * size**2 + (outputs if bias else 0)


@pytest.mark.plain
def test_unet_with_64_filters_has_the_known_number_of_weights():
    assert trainable(Unet((64, 64, 3), 1, filters=64)) == 31_037_633


def test_weights_of_a_small_unet_counted_by_hand():
    f, k = 4, 5
    block = lambda c, o: convolution(c, o, 3, False) + 2 * o + convolution(o, o, 3, False) + 2 * o  # noqa: E731
    expected = block(3, f) + block(f, 2 * f) + block(2 * f, 4 * f)
    expected += (
        convolution(4 * f, 2 * f, 2, True) + block(4 * f, 2 * f) + convolution(2 * f, f, 2, True) + block(2 * f, f)
    )
    expected += convolution(f, k, 1, True)
    assert trainable(Unet((32, 32, 3), k, filters=f, depth=2)) == expected


def test_without_normalisation_the_convolutions_have_a_bias():
    model = Unet((32, 32, 3), 2, filters=4, depth=1, normalization="none")
    assert not [layer for layer in model.layers if "norm" in layer.name]
    assert all(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 48, 3), (64, 32, 1), (None, None, 4)])
def test_output_is_float32_logits_at_the_input_size(height, width, channels):
    model = Unet((height, width, channels), 5, filters=4, depth=3, dropout=0.1)
    photos = np.random.default_rng(0).integers(0, 256, (2, height or 24, width or 40, channels)).astype("uint8")
    logits = model.predict_on_batch(photos)
    assert logits.shape == (*photos.shape[:3], 5)
    assert logits.dtype == np.float32
    assert (logits < 0).any()


def test_the_model_scales_its_input_itself():
    model = Unet((16, 16, 3), 2, filters=4, depth=1)
    scaled = keras.Model(model.input, model.get_layer("scale").output)
    values = ops.convert_to_numpy(
        scaled(np.array([0, 127.5, 255], "float32").reshape(1, 1, 1, 3) * np.ones((1, 16, 16, 1)))
    )
    np.testing.assert_allclose(values[0, 0, 0], [-1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(("activation", "classes"), [("softmax", 4), ("sigmoid", 1)])
def test_probabilities_on_request(activation, classes):
    model = Unet((16, 16, 3), classes, filters=4, depth=2, output_activation=activation)
    p = model.predict_on_batch(np.zeros((1, 16, 16, 3), "uint8"))
    assert (p >= 0).all() and (p <= 1).all()
    if classes > 1:
        np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((100, 128, 3), "height 100 .* multiple of 16; use 96 or 112"),
        ((128, 250, 3), "width 250 .* use 240 or 256"),
        ((8, 128, 3), "height 8 .* use 16"),
    ],
)
def test_a_size_that_does_not_fit_names_those_that_do(shape, message):
    with pytest.raises(SemsegError, match=message):
        Unet(shape, 3)


def test_few_filters_get_fewer_groups():
    assert Unet((16, 16, 3), 2, filters=4, depth=1, normalization="group").get_layer("down1_norm1").groups == 4


def test_softmax_over_one_class_is_refused():
    with pytest.raises(SemsegError, match="softmax over a single class is always 1"):
        Unet((16, 16, 3), 1, output_activation="softmax")


def test_the_layout_of_the_axes_does_not_depend_on_keras_configuration():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = Unet((16, 32, 3), 5, filters=4, depth=2, dropout=0.1)
    finally:
        keras.config.set_image_data_format(before)
    assert model.output_shape == (None, 16, 32, 5)


def test_an_unknown_normalisation_lists_the_known():
    with pytest.raises(SemsegError, match="got 'bach'; expected one of batch, group, none"):
        Unet((32, 32, 3), 3, normalization="bach")


def test_an_unknown_network_lists_the_known():
    with pytest.raises(SemsegError, match="no network 'u-net'; choose one of unet"):
        build_model("u-net", (32, 32, 3), 3, filters=4)


def test_blocks_stand_twice_in_a_model_of_the_users_own():
    inputs = keras.Input((32, 32, 6))
    skip, x = down_block(inputs, 4, name="first")
    skip2, x = down_block(x, 8, kernel_size=5, normalization="group", name="second")
    x = bottleneck(x, 8, dropout=0.2, name="bottom")
    x = up_block(x, skip2, 8, name="second_up")
    x = up_block(x, skip, 4, name="first_up")
    y = bottleneck(x, 4)
    y = bottleneck(y, 4)
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1)(y))
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    assert {"first_conv1", "second_norm2", "bottom_dropout", "first_up_concatenate"} <= set(names)
    assert model.predict_on_batch(np.zeros((1, 32, 32, 6), "float32")).shape == (1, 32, 32, 1)


def test_valid_padding_crops_the_skip_connection_as_the_paper_does():
    inputs = keras.Input((44, 44, 1))
    skip, x = down_block(inputs, 4, padding="valid")  # 44 -> 40 -> 20
    x = bottleneck(x, 8, padding="valid")  # 20 -> 16
    x = up_block(x, skip, 4, padding="valid")  # 32 + cropped 40 -> 28
    assert skip.shape == (None, 40, 40, 4)
    assert x.shape == (None, 28, 28, 4)


def test_a_skip_connection_that_is_too_small_is_refused():
    with pytest.raises(SemsegError, match=r"got a skip connection \(None, 8, 8, 4\)"):
        up_block(keras.Input((8, 8, 4)), keras.Input((8, 8, 4)), 4)


@pytest.mark.parametrize("classes", [1, pytest.param(3, marks=pytest.mark.plain)])
def test_one_training_step_lowers_the_loss_and_a_saved_file_is_equal(classes, tmp_path):
    from semseg.losses import SegmentationLoss

    keras.utils.set_random_seed(0)
    model = build_model("unet", (32, 32, 3), classes, filters=4)
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    masks = (photos[..., 0] > 127).astype("uint8")
    trained = keras.Model(model.input, model.output)
    trained.compile(keras.optimizers.Adam(1e-2), SegmentationLoss("cross_entropy"))
    losses = [float(trained.train_on_batch(photos, masks)) for _ in range(6)]
    assert losses[-1] < losses[0]

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(loaded.predict_on_batch(photos), model.predict_on_batch(photos), atol=1e-5)


LOAD = """
import sys
sys.modules["sklearn"] = sys.modules["matplotlib"] = None  # which Keras imports where it finds them
import keras, numpy as np
photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
found = []
for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{name}.keras", safe_mode=True)
    found.append(np.asarray(model.predict_on_batch(photos)))
np.save(sys.argv[1], found)
assert not [name for name in sys.modules if name.startswith("semseg")]
print(keras.backend.backend())
"""


@pytest.mark.plain  # starts every backend itself
def test_saved_files_give_equal_logits_on_every_backend_without_semseg(tmp_path):
    keras.utils.set_random_seed(1)
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    names, expected = ["unet", "r2unet", "hybrid_unet", "attention_unet"], []
    for name in names:
        model = ARCHITECTURES[name]((32, 32, 3), 7, filters=4, depth=1)
        for weight in model.weights:  # moving averages that are not 0 and 1
            if "moving_mean" in weight.path:
                weight.assign(keras.random.normal(weight.shape, 0, 0.1))
            elif "moving_variance" in weight.path:
                weight.assign(keras.random.uniform(weight.shape, 0.5, 1.5))
        model.save(tmp_path / f"{name}.keras")
        expected.append(model.predict_on_batch(photos))
        assert np.abs(expected[-1]).max() > 0.1
    for backend in ("torch", "tensorflow", "jax"):
        done = subprocess.run(
            [sys.executable, "-c", LOAD, f"{backend}.npy", *names],
            env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == backend
        for name, found, wanted in zip(names, np.load(tmp_path / f"{backend}.npy"), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max(), err_msg=name)
