import sys

import keras
import numpy as np
import pytest
from keras import ops

from semseg import architectures
from semseg.architectures import ARCHITECTURES, build_model, model_name
from semseg.architectures.cost import peak_memory_mb
from semseg.architectures.encoder_unet import EncoderUnet, encoder_names
from semseg.architectures.r2unet import R2Unet
from semseg.errors import ResourceError, SemsegError
from semseg.losses import SegmentationLoss

SMALL = {name: {"filters": 4, "depth": 2} for name in ARCHITECTURES}
SMALL["encoder_unet"] |= {"encoder": "VGG16", "weights": None}
SMALL["resunet"] |= {"filters": 8}  # PyTorch may abort with fewer: see _MIN_STRIDED_CHANNELS in its kernels


def small(name, channels=3, classes=3, **options):
    return ARCHITECTURES[name]((None, None, channels), classes, **{**SMALL[name], **options})


def photos_of(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


def logits(model, photos):
    if keras.backend.backend() == "jax":  # which would compile every operation on its own
        return model.predict_on_batch(photos)
    return keras.tree.map_structure(ops.convert_to_numpy, model(photos, training=False))


def values(weights):
    return [ops.convert_to_numpy(weight).copy() for weight in weights]


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def fill_averages(model):
    """Moving averages that are not 0 and 1, different in every channel."""
    rng = np.random.default_rng(5)
    for weight in model.weights:
        if "moving_mean" in weight.path:
            weight.assign(rng.normal(0, 0.1, weight.shape))
        elif "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


# Between them these hold every layer of all networks; the others run once.
ON_EVERY_BACKEND = ("unet", "unet3plus", "attention_unet", "hybrid_unet")


@pytest.mark.parametrize(
    "name",
    [name if name in ON_EVERY_BACKEND else pytest.param(name, marks=pytest.mark.plain) for name in ARCHITECTURES],
)
def test_a_network_learns_in_every_weight_is_saved_whole_and_stands_twice_in_a_model(name, tmp_path):
    keras.utils.set_random_seed(0)
    photos = photos_of(4, 16, 32, 4).astype("float32")
    model = small(name, channels=4)
    trained = keras.Model(model.input, model.output)
    trained.compile(
        keras.optimizers.SGD(1e-2), SegmentationLoss("cross_entropy"), jit_compile=keras.backend.backend() == "jax"
    )
    before = values(model.trainable_weights)
    losses = [float(trained.train_on_batch(photos, (photos[..., 0] // 86).astype("uint8"))) for _ in range(2)]
    assert losses[1] < losses[0]
    for weight, now, old in zip(model.trainable_weights, values(model.trainable_weights), before, strict=True):
        assert np.isfinite(now).all() and (now != old).any(), f"no gradient reached {weight.path}"

    found = logits(model, photos)
    assert found.shape == (4, 16, 32, 3) and found.dtype == np.float32
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)

    loaded.name = "other"  # in a model: one instance twice, and a second one
    photo = keras.Input((16, 32, 4))
    twice = keras.Model(photo, [model(keras.layers.Rescaling(0.5)(photo)), model(photo), loaded(photo)])
    parts = logits(twice, photos)
    np.testing.assert_allclose(parts[1], found, atol=1e-5)
    np.testing.assert_allclose(parts[2], found, atol=1e-5)
    np.testing.assert_allclose(parts[0], logits(model, photos * 0.5), atol=1e-5)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_takes_other_sizes_and_numbers_of_channels(name):
    model = small(name, channels=1, classes=1)
    found = logits(model, photos_of(2, 24, 16, 1))
    assert found.shape == (2, 24, 16, 1) and np.isfinite(found).all() and found.std() > 0


@pytest.mark.plain
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_depth_and_width_are_the_users_and_sizes_are_checked(name):
    assert ARCHITECTURES[name]((32, 64, 3), 5, **{**SMALL[name], "filters": 2, "depth": 3}).output_shape[1:] == (
        32,
        64,
        5,
    )
    with pytest.raises(SemsegError, match=r"height 42 .* multiple of 4; use 40 or 44"):
        ARCHITECTURES[name]((42, 64, 3), 5, **SMALL[name])
    with pytest.raises(SemsegError, match=rf"{name}: got num_classes=0, filters=\d, depth=2; expected at least 1"):
        ARCHITECTURES[name]((32, 64, 3), 0, **SMALL[name])


@pytest.mark.plain
@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("ddunet", {"filters": 64}, 10.8e6),  # the project that it comes from
        ("unetpp", {"filters": 32, "normalization": "none"}, 9.04e6),  # the paper, which has no normalisation
        ("unet3plus", {"filters": 64, "normalization": "none"}, 26.97e6),  # the paper
    ],
)
def test_weights_are_as_many_as_published(name, options, published):
    assert trainable(ARCHITECTURES[name]((64, 64, 3), 19, **options)) == pytest.approx(published, rel=4e-3)


def conv(inputs, outputs, size=3, norm=True):
    """Weights of a convolution with batch normalisation, or with a bias."""
    return inputs * outputs * size**2 + (2 if norm else 1) * outputs


@pytest.mark.plain
def test_weights_counted_by_hand():
    f, k, c = 4, 5, 3
    widths = [(c, f), (f, 2 * f), (2 * f, 4 * f), (4 * f, 2 * f), (2 * f, f)]  # of the blocks; 2 down, bottom, 2 up
    ends = conv(4 * f, 2 * f, 2, False) + conv(2 * f, f, 2, False) + conv(f, k, 1, False)  # up twice, head
    unet = sum(conv(i, o) + conv(o, o) for i, o in widths) + ends

    def count(name):
        return trainable(ARCHITECTURES[name]((32, 32, c), k, filters=f, depth=2))

    gate = lambda w: conv(w, w // 2, 2) + conv(2 * w, w // 2, 1) + conv(w // 2, 1, 1, False)  # noqa: E731
    assert count("unet") == unet
    assert count("attention_unet") == unet + gate(2 * f) + gate(f)
    # R2U-Net: 1x1 without bias, two shared convolutions, each with a normalisation for each of two steps
    assert count("r2unet") == sum(i * o + 2 * (9 * o * o + 2 * 2 * o) for i, o in widths) + ends
    assert count("ddunet") == unet + conv(f, f) + conv(2 * f, 2 * f) + conv(4 * f, 4 * f)
    a, b = 6, 12  # channels at half the size and below; at the bottom 8 * f = 32 would bound them, and 24 are fewer
    fast = [(c, a), (a, a), (a, a), (a, b), (b, b), (b, 2 * b), (2 * b, 2 * b), (2 * b, b), (b, b), (b, a), (a, a)]
    ends_of_fast = conv(2 * b, b, 2, False) + conv(b, a, 2, False) + conv(a, f, 2) + conv(f, k, 1, False)
    assert count("fast_unet") == sum(conv(i, o) for i, o in fast) + ends_of_fast
    widest = max(w.shape[-1] for w in ARCHITECTURES["fast_unet"]((64, 64, c), k, filters=f).weights)
    assert widest == 8 * f  # at depth 4, where the channels would double to 24 times the filters
    residual = sum(conv(i, o) + conv(o, o) + i * o for i, o in widths if (i, o) != (2 * f, 4 * f))
    bottom = 3 * conv(2 * f, 2 * f) + conv(6 * f, 4 * f, 1) + 2 * 2 * f * 4 * f
    gates = 3 * 2 * f * 4 + 4 + 4 * 2 * f + 2 * f + 3 * f * 4 + 4 + 4 * f + f  # 4 channels in the middle of each
    assert count("hybrid_unet") == residual + bottom + gates + ends
    kernels = [w for w in ARCHITECTURES["resunet"]((64, 64, 3), 1, filters=64).weights if w.shape[:2] == (3, 3)]
    assert sum(np.prod(w.shape) for w in kernels) == pytest.approx(7.8e6, rel=4e-3)  # the paper leaves shortcuts out


@pytest.mark.plain
def test_r2unet_applies_a_shared_convolution_as_often_as_asked():
    few, many = (R2Unet((16, 16, 3), 2, filters=4, depth=1, recurrences=n, normalization="none") for n in (1, 3))
    assert trainable(few) == trainable(many)
    many.set_weights(few.get_weights())
    assert np.abs(logits(many, photos_of(1, 16, 16, 3)) - logits(few, photos_of(1, 16, 16, 3))).max() > 1e-3


@pytest.mark.plain
def test_unetpp_with_deep_supervision_gives_the_mean_and_every_depth():
    model = small("unetpp", deep_supervision=True, depth=3)
    mean, *heads = logits(model, photos_of(2, 16, 16, 3))
    assert len(heads) == 3
    np.testing.assert_allclose(mean, np.mean(heads, axis=0), atol=1e-5)
    assert np.abs(heads[0] - heads[2]).max() > 1e-3


@pytest.mark.plain
@pytest.mark.parametrize(
    ("encoder", "channels"),  # of the skip connections from half size down, and of the bottom
    [
        ("MobileNetV3Small", [16, 72, 96, 288, 576]),
        ("EfficientNetV2B0", [16, 32, 192, 672, 1280]),
        ("ResNet50", [64, 256, 512, 1024, 2048]),
        ("ConvNeXtTiny", [3, 96, 192, 384, 768]),  # has nothing at half size
        ("DenseNet121", [64, 128, 256, 512, 1024]),
        ("VGG16", [128, 256, 512, 512, 512]),
        ("InceptionV3", [64, 192, 288, 768, 2048]),  # its "valid" padding leaves 47 of 48 pixels, and so on
    ],
)
def test_an_encoder_gives_its_last_features_at_each_scale(encoder, channels):
    model = EncoderUnet((96, 160, 3), 5, filters=2, encoder=encoder, weights=None)
    assert model.output_shape == (None, 96, 160, 5)
    skips = [model.get_layer(f"up{step}_concatenate").input[0].shape for step in range(2, 6)]
    assert skips == [(None, 96 >> i, 160 >> i, c) for i, c in enumerate(channels[:-1], start=1)]
    assert model.get_layer("up5_up").input.shape == (None, 3, 5, channels[-1])


@pytest.mark.plain
@pytest.mark.parametrize("encoder", ["VGG16", "ResNet50V2", "DenseNet121", "MobileNet"])
def test_the_input_is_scaled_as_the_encoder_wants_it(encoder):
    photos = photos_of(2, 32, 32, 3).astype("float32")
    model = EncoderUnet((32, 32, 3), 2, filters=2, depth=2, encoder=encoder, weights=None)
    found = logits(keras.Model(model.input, model.get_layer("scale").output), photos)
    family = sys.modules[getattr(keras.applications, encoder).__module__]
    expected = family.preprocess_input(photos.copy())
    if encoder == "VGG16":  # wants BGR: the order is that of the photo, and the convolution is turned around
        expected = expected[..., ::-1]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.plain
def test_every_family_has_the_scaling_of_its_preprocess_input():
    from semseg.architectures.encoder_unet import encoder_constructor, input_scaling

    photos = photos_of(1, 8, 8, 3).astype("float32")
    for name in encoder_names():
        constructor = encoder_constructor(name)
        order, scale, offset = input_scaling(constructor)
        expected = sys.modules[constructor.__module__].preprocess_input(photos.copy())
        np.testing.assert_allclose((photos * scale + offset)[..., order], expected, atol=1e-4)
    assert len(encoder_names()) > 30


@pytest.mark.plain
@pytest.mark.parametrize("encoder", ["VGG16", "MobileNetV3Small"])
def test_weights_from_a_file_give_the_features_of_the_original(encoder, tmp_path):
    keras.utils.set_random_seed(0)
    constructor = getattr(keras.applications, encoder)
    original = constructor(include_top=False, weights=None, input_shape=(32, 32, 3))
    fill_averages(original)
    path = tmp_path / "file.weights.h5"
    original.save_weights(path)
    model = EncoderUnet((32, 32, 3), 2, filters=2, encoder=encoder, weights=str(path))
    features = keras.Model(model.input, model.get_layer("up5_up").input)
    photos = photos_of(2, 32, 32, 3).astype("float32")
    expected = logits(original, sys.modules[constructor.__module__].preprocess_input(photos.copy()))
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(logits(features, photos), expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.plain
def test_efficientnet_from_a_file_divides_as_keras_does_for_its_download(tmp_path):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    original = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    own = next(layer for layer in original.layers if isinstance(layer, keras.layers.Normalization))
    own.adapt_mean.assign(mean)
    own.adapt_variance.assign(std**2)
    original.save_weights(tmp_path / "b0.weights.h5")
    model = EncoderUnet((32, 32, 3), 2, filters=2, encoder="EfficientNetB0", weights=str(tmp_path / "b0.weights.h5"))
    photos = photos_of(1, 32, 32, 3).astype("float32")
    found = logits(keras.Model(model.input, model.get_layer("stem_conv_pad").input), photos)
    np.testing.assert_allclose(found, (photos / 255 - mean) / std / std**0.5, atol=1e-4)


def refused(match, **options):
    with pytest.raises(SemsegError, match=match):
        EncoderUnet(**{"input_shape": (64, 64, 3), "encoder": "MobileNetV3Small", "weights": None, **options})


@pytest.mark.plain
def test_an_encoder_that_cannot_serve_is_refused_in_a_line(tmp_path, monkeypatch):
    refused("no network 'Resnet50'; choose one of ResNet50, .*", encoder="Resnet50")
    refused("no network 'q'; choose one of ConvNeXtBase, .*Xception", encoder="q")
    refused("there is no file x.h5", weights="x.h5")
    refused("got depth=6; expected one of MobileNetV3Small's: 1, 2, 3, 4, 5", depth=6)
    refused("got depth=1; expected one of ConvNeXtTiny's: 2, 3, 4, 5", encoder="ConvNeXtTiny", depth=1)
    refused("InceptionV3 needs photos of a fixed size", encoder="InceptionV3", input_shape=(None, None, 3))
    refused("InceptionV3 cannot be built for photos of 64x64x3 .*75", encoder="InceptionV3")
    wrong = tmp_path / "wrong.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(wrong)
    refused("wrong.weights.h5 does not hold weights of MobileNetV3Small .*not .* another arch", weights=str(wrong))
    wrong.write_text("<html>")
    refused("wrong.weights.h5 does not hold weights of MobileNetV3Small", weights=str(wrong))

    def offline(*_, **__):
        raise Exception("URL fetch failure on https://x: None -- no such host")

    def changed(*_, **__):
        raise ValueError("Incomplete or corrupted file detected.\nThe md5 file hash does not match")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", changed)
    refused("ImageNet weights of MobileNetV3Small cannot be had .Incomplete or corr.*none", weights="imagenet")
    for encoder in ("MobileNet", "MobileNetV2"):
        refused(f"ImageNet weights of {encoder} cannot be had .Keras knows no ch", encoder=encoder, weights="imagenet")
    refused("InceptionV3 cannot be built for photos of 64x64x3", encoder="InceptionV3", weights="imagenet")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    refused("ImageNet weights of MobileNetV3Small cannot be had .URL fetch.* use `enc.* none", weights="imagenet")


USERS = """
import os, sys, time
import keras

def good(input_shape, num_classes, *, filters):
    photo = keras.Input(input_shape)
    return keras.Model(photo, keras.layers.Conv2D(num_classes, 3, padding="same")(photo))

def without_filters(input_shape, num_classes): pass
def broken(input_shape, num_classes, filters): return 1 / 0
def none(input_shape, num_classes, filters): pass
def smaller(input_shape, num_classes, filters):
    photo = keras.Input(input_shape)
    return keras.Model(photo, keras.layers.Conv2D(num_classes, 3)(photo))
def sure(input_shape, num_classes, filters):
    photo = keras.Input(input_shape)
    return keras.Model(photo, keras.layers.Conv2D(num_classes, 1, activation="softmax")(photo))
def lazy(input_shape, num_classes, filters): return keras.Sequential([keras.layers.Conv2D(num_classes, 1)])
def odd(input_shape, num_classes, filters):
    photo = keras.Input(input_shape)
    return keras.Model(photo, keras.layers.Conv2D(num_classes, 1)(keras.layers.Lambda(lambda x: x * 2)(photo)))
def several(input_shape, num_classes, filters):
    photo = keras.Input(input_shape)
    return keras.Model(photo, [keras.layers.Conv2D(num_classes, 1)(photo) for _ in range(2)])
def frozen(input_shape, num_classes, filters):
    model = good(input_shape, num_classes, filters=filters)
    model.trainable = False
    return model
def leaves(input_shape, num_classes, filters): sys.exit(0)
def leaves_at_once(input_shape, num_classes, filters): os._exit(0)
def endless(input_shape, num_classes, filters):
    while True:
        try: time.sleep(0.01)
        except Exception: pass
def talks(input_shape, num_classes, filters):
    raise ValueError("first line\\nsecond line")
def fixed(input_shape, num_classes, filters): return good((8, 8, 3), num_classes, filters=filters)
"""


def test_a_network_of_the_users_own_is_called_and_checked(tmp_path, monkeypatch):
    (tmp_path / "users_net.py").write_text(USERS)
    (tmp_path / "users_slip.py").write_text("import nothing_such")
    (tmp_path / "users_exits.py").write_text("import sys; sys.exit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert build_model("users_net:good", (16, 24, 3), 5, filters=4).output_shape == (None, 16, 24, 5)
    assert len(build_model("users_net:several", (16, 24, 3), 5, filters=4).outputs) == 2
    for name, message in {
        "users_net:godo": "no function 'godo' in users_net; it has good, without_filters",
        "nowhere:net": "module 'nowhere' of nowhere:net cannot be imported .*No module named 'nowhere'",
        "users_slip:net": "cannot be imported .*nothing_such",
        "users_net:without_filters": r"cannot be called .*filters.*expected function\(input_shape, num_classes, \*,",
        "users_net:none": r"gave a NoneType without a known input; expected keras.Model\(inputs, outputs\)",
        "users_net:lazy": "gave a Sequential without a known input",
        "users_net:sure": "ends in a softmax or sigmoid; expected logits",
        "users_net:odd": "could be saved, but not opened again .*use Keras' own layers, no Lambda",
        "users_net:smaller": r"gives \(1, 14, 22, 5\) for one photo; expected logits \(1, 16, 24, 5\)",
        "users_net:frozen": "gave a model without a weight to train; let a layer be trainable",
        "users_net:leaves": "users_net:leaves failed with SystemExit: 0; mend the function",
        "users_net:leaves_at_once": r"failed with SystemExit: os\._exit\(0\); mend",
        "users_net:endless": r"failed with TookTooLong: it did not come to an end in 0\.5 seconds",
        "users_net:talks": "failed with ValueError: first line; mend",
        "users_exits:net": r"module 'users_exits' of users_exits:net cannot be imported \(SystemExit: 3\)",
        "users_net:fixed": r"does not take photos \(1, 16, 24, 3\)",
    }.items():
        monkeypatch.setattr(architectures, "MAX_SECONDS", 0.5 if name == "users_net:endless" else 60)
        with pytest.raises(SemsegError, match=message):
            build_model(name, (16, 24, 3), 5, filters=4)
    with pytest.raises(SemsegError, match="users_net:broken failed with ZeroDivisionError: division by zero") as caught:
        build_model("users_net:broken", (16, 24, 3), 5, filters=4)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.plain
@pytest.mark.parametrize("name", ["unet", "encoder_unet"])
def test_weights_beyond_the_memory_are_refused_before_they_take_any(name):
    held = peak_memory_mb()
    options = {"encoder": "MobileNetV3Small", "encoder_weights": "none"} if name == "encoder_unet" else {}
    with pytest.raises(ResourceError, match=r"`filters`: got 8192; training their weights takes about \d+ GB, and"):
        build_model(name, (32, 32, 3), 3, filters=8192, **options)
    assert peak_memory_mb() < held + 200


@pytest.mark.plain
def test_a_network_of_the_users_own_is_refused_at_the_layer_that_does_not_fit(tmp_path, monkeypatch):
    (tmp_path / "users_wide.py").write_text(
        "import keras\n"
        "def net(input_shape, num_classes, filters):\n"
        "    photo = keras.Input(input_shape)\n"
        "    x = keras.layers.Conv2D(1000, 1)(photo)\n"
        "    return keras.Model(photo, keras.layers.Conv2D(num_classes, 1)(keras.layers.Dense(10**9, name='wide')(x)))"
    )
    monkeypatch.chdir(tmp_path)
    before = keras.Layer.add_weight
    with pytest.raises(ResourceError, match=r"`filters`: got 4; training the weights up to the layer wide"):
        build_model("users_wide:net", (32, 32, 3), 3, filters=4)
    assert keras.Layer.add_weight is before


@pytest.mark.plain
def test_names_and_flags_of_encoders():
    assert [model_name(name) for name in ("unet", "pkg.mod:fn")] == ["unet", "fn"]
    for flags in ({"encoder": "VGG16"}, {"encoder_weights": "none"}):
        with pytest.raises(SemsegError, match=f"got {next(iter(flags.values()))}, but unet has no encoder"):
            build_model("unet", (32, 32, 3), 3, filters=4, **flags)
    model = build_model("encoder_unet", (32, 32, 3), 3, filters=2, encoder="VGG16", encoder_weights="none")
    assert "block1_conv1" in [layer.name for layer in model.layers]
