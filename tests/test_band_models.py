"""Networks that take bands: the scaling inside the model, and one run from photos to the browser."""

import base64
import io
import json
import urllib.request

import keras
import numpy as np
import pytest
from PIL import Image
from test_serve import running

from semseg.architectures.band_scaling import scale_bands
from semseg.backend.fast_model import FastModel
from semseg.backend.predictor import predictor
from semseg.cli import commands
from semseg.errors import ModelFileError
from semseg.images.bands import Bands
from semseg.inference.card import ModelCard
from semseg.inference.keras_model import bands_of_model
from semseg.runs.run import Run
from semseg.segmentation_model import logits_head, scaled_input
from semseg.serve.app import make_app

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: no TIFF of several bands")
torch_alone = pytest.mark.skipif(keras.backend.backend() != "torch", reason="one backend is enough for all commands")

LOW, HIGH = (1000.0, 0.0, -5.0), (3000.0, 0.5, 5.0)
SIZE = 32


def small_network():
    inputs = keras.Input((4, 4, 3))
    return keras.Model(inputs, keras.layers.Identity(name="seen")(inputs))


def network(count):
    """Of two convolutions, as quick as there can be one."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, count))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(scaled_input(inputs))
    return keras.Model(inputs, logits_head(x, 2))


def test_each_band_goes_from_its_range_to_0_to_255_and_beyond():
    model = scale_bands(small_network(), LOW, HIGH, "float32")
    photos = np.broadcast_to(np.float32([LOW, HIGH, [5000, 0.25, -15]])[:, None, None], (3, 4, 4, 3))
    seen = keras.ops.convert_to_numpy(model(np.array(photos)))[:, 0, 0]
    np.testing.assert_allclose(seen, [[0, 0, 0], [255] * 3, [510, 127.5, -255]], atol=1e-3)


def test_a_saved_network_of_bands_opens_in_plain_keras_and_says_what_it_takes(tmp_path):
    model = scale_bands(network(3), LOW, HIGH, "int16")
    photos = np.random.default_rng(0).uniform(LOW, HIGH, (2, 16, 16, 3)).astype(np.float32)
    model.save(tmp_path / "bands_model.keras")
    opened = keras.saving.load_model(tmp_path / "bands_model.keras")
    before, after = (keras.ops.convert_to_numpy(one(photos, training=False)) for one in (model, opened))
    np.testing.assert_allclose(after, before, atol=1e-6)
    bands = bands_of_model(opened)
    assert (bands.count, bands.dtype, bands.shown) == (3, "int16", (0, 1, 2))
    np.testing.assert_allclose([bands.low, bands.high], [LOW, HIGH], rtol=1e-5)
    np.testing.assert_allclose(predictor(model, 2)(photos), before, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_16_bits_are_scaled_before_low_precision_rounds_them(precision):
    """In bfloat16 20000 and 20060 are the same number."""
    model = scale_bands(network(1), [20000], [20060], "uint16")
    fast = FastModel(model.inputs[0], model.outputs[0], precision=precision)
    photos = np.where(np.arange(16)[:, None, None] < 8, 20000, 20060) * np.ones((1, 16, 16, 1))
    logits = keras.ops.convert_to_numpy(fast(photos.astype(np.float32)))
    flat = keras.ops.convert_to_numpy(fast(np.full_like(photos, 20000, np.float32)))
    expected = keras.ops.convert_to_numpy(model(photos.astype(np.float32)))
    assert np.abs(logits - flat).max() > 0.01
    np.testing.assert_allclose(logits, expected, atol=0.1 * np.abs(expected).max())


# -------------------------------------------------------------------------------------------- from photos to pages


def draw(seed):
    """A square that all bands show, class 2, and one that only the fourth shows, class 1; two rows without data."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((SIZE, SIZE), np.uint8)
    top, left = rng.integers(3, SIZE - 15, 2)
    ids[top : top + 12, left : left + 12] = 1
    top, left = rng.integers(3, SIZE - 9, 2)
    ids[top : top + 7, left : left + 7] = 2
    photo = rng.normal(1200, 60, (SIZE, SIZE, 4))
    photo[ids == 2, :3] += 1500
    photo[ids == 1, 3] += 2500
    photo[:2, :5] = 0
    return photo.clip(0, 65535).astype(np.uint16), ids


def write_photo(path, photo):
    names = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
        for i, name in enumerate(("B02", "B03", "B04", "B08"))
    )
    tags = [(42112, "s", 0, f"<GDALMetadata>{names}</GDALMetadata>", True), (42113, "s", 0, "0", True)]
    tifffile.imwrite(path, photo, photometric="minisblack", planarconfig="contig", extratags=tags)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the photos, and of the run."""
    root = tmp_path_factory.mktemp("bands")
    for folder in ("images", "masks"):
        (root / "data" / folder).mkdir(parents=True)
    for i in range(12):
        photo, ids = draw(i)
        write_photo(root / "data" / "images" / f"{i}.tif", photo)
        Image.fromarray(ids).save(root / "data" / "masks" / f"{i}.png")
    arguments = ["--data", str(root / "data"), "--image-size", str(SIZE), "--filters", "8", "--epochs", "8"]
    assert commands(["train", *arguments, "--augment", "none", "--output", str(root / "run")]) == 0
    return root / "data", root / "run"


def masks_in(folder):
    return [np.asarray(Image.open(path)) for path in sorted((folder / "masks").iterdir())]


@torch_alone
class TestARunOnFourBands:
    def test_it_notes_what_the_photos_hold(self, trained):
        _, folder = trained
        run = Run(folder)
        bands = Bands.from_dict(run.facts["bands"])
        assert (bands.count, bands.dtype, bands.names) == (4, "uint16", ("B02", "B03", "B04", "B08"))
        assert bands.shown == (2, 1, 0)
        assert run.plan["view"]["bands"]["text"].startswith("4 bands of 16 bits")
        assert ModelCard.read(folder).bands == bands
        assert run.metrics["ignored_share"] == pytest.approx(10 / SIZE**2, abs=1e-6)

    def test_the_class_that_only_band_4_shows_is_learnt(self, trained):
        _, folder = trained
        assert Run(folder).metrics["per_class"]["class_1"]["iou"] > 0.5

    def test_evaluation_prediction_onnx_and_server_agree(self, trained, tmp_path):
        pytest.importorskip("onnxruntime")
        data, folder = trained
        assert commands(["evaluate", str(folder), "--output", str(tmp_path / "scores")]) == 0
        scores = json.loads((tmp_path / "scores" / "metrics.json").read_text())
        assert scores["macro_iou"] == Run(folder).metrics["macro_iou"]
        assert commands(["export", str(folder), "--format", "onnx"]) == 0
        for model, name in ((folder, "keras"), (folder / "unet_model.onnx", "onnx")):
            arguments = [str(model), str(data / "images"), "--output", str(tmp_path / name)]
            assert commands(["predict", *arguments]) == 0
        by_keras, by_onnx = masks_in(tmp_path / "keras"), masks_in(tmp_path / "onnx")
        np.testing.assert_array_equal(by_keras, by_onnx)
        assert all((mask[:2, :5] == 255).all() and (mask[2:] < 3).all() for mask in by_keras)

        example = draw(0)
        app = make_app(ModelCard.read(folder).load(batch_size=1), examples=[lambda: example])
        with running(app) as port:
            assert json.loads(got(port, "model"))["photo_form"] == "photo.npy"
            assert got(port, "examples/0/small.jpg")[:2] == b"\xff\xd8"
            np.testing.assert_array_equal(asked(port, got(port, "examples/0/photo.npy"))[2:], by_keras[0][2:])
            paths = sorted((data / "images").iterdir())[:3]
            for path, mask in zip(paths, by_keras, strict=False):
                answer = asked(port, path.read_bytes())
                np.testing.assert_array_equal(answer, mask)

    def test_the_exported_file_takes_the_files_own_numbers(self, trained):
        onnxruntime = pytest.importorskip("onnxruntime")
        _, folder = trained
        photo = draw(3)[0].astype(np.float32)[None]
        session = onnxruntime.InferenceSession(folder / "unet_model.onnx", providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"photos": photo})
        expected = ModelCard.read(folder).load().predict_batch(photo)
        np.testing.assert_allclose(logits, expected, atol=1e-3)

    def test_a_model_away_from_its_run_still_refuses_other_photos(self, trained, tmp_path):
        _, folder = trained
        alone = tmp_path / "alone_model.keras"
        alone.write_bytes((folder / "unet_model.keras").read_bytes())
        bands = ModelCard.read(alone).load().bands
        assert (bands.count, bands.dtype) == (4, "uint16")
        photo = tmp_path / "photo.png"
        Image.new("RGB", (SIZE, SIZE)).save(photo)
        assert commands(["predict", str(alone), str(photo), "--output", str(tmp_path / "out")]) == 3

    def test_another_number_of_bands_in_the_runs_notes_is_refused(self, trained, tmp_path):
        _, folder = trained
        config = json.loads((folder / "config.json").read_text())
        other = Bands(3, "uint16", (), (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)
        config["facts"]["bands"] = other.to_dict()
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "unet_model.keras").write_bytes((folder / "unet_model.keras").read_bytes())
        with pytest.raises(ModelFileError, match=r"takes 4 bands, and the configuration of its run describes 3"):
            ModelCard.read(tmp_path).load()


def got(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as response:
        return response.read()


def asked(port, body):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/segment?photo", body, method="POST")
    with urllib.request.urlopen(request) as response:
        values = json.loads(response.read())
    assert base64.b64decode(values["photo"])[:2] == b"\xff\xd8"  # a JPEG of the shown bands
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(values["mask"]))))
