"""Networks that learned crops: every way to use them sees photos at their scale, wherever the file lies."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import draw_pair, make_pairs, run_async
from PIL import Image

from semseg.backend.crop_scale import scale_of, with_scale
from semseg.backend.predictor import predictor
from semseg.cli import commands
from semseg.data import open_dataset
from semseg.data.splits import splits_of
from semseg.images.reading import read_mask, read_photo
from semseg.images.resizing import resize_photo
from semseg.inference.card import ModelCard, open_model
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.metrics.confusion import confusion_matrix
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.segmentation_model import Unet

SIZE, SCALE = 16, 0.5
PHOTOS = {"small": 9, "large": 70}  # pixels of their sides


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an untrained network of 16x16 that learned crops at half the photos' size, and two photos."""
    folder = tmp_path_factory.mktemp("crops")
    dataset = open_dataset(make_pairs(folder / "data", train=2, val=3, size=48))
    keras.utils.set_random_seed(0)
    model = with_scale(Unet((SIZE, SIZE, 3), dataset.num_logits, filters=2, depth=1), SCALE)
    out = Run(folder / "out")
    out.folder.mkdir()
    model.save(out.folder / "unet_model.keras")
    (out.folder / "classes.json").write_text(json.dumps(dataset.palette.to_dict()))
    out.write_splits(splits_of(dataset))
    out.write_config(
        RunConfig(data=str(folder / "data")), {}, {"image_size": (SIZE, SIZE), "scale": SCALE, "task": "multiclass"}
    )
    (folder / "photos").mkdir()
    for name, size in PHOTOS.items():
        Image.fromarray(draw_pair(7, size)[0]).save(folder / "photos" / f"{name}.png")
    assert predict(out.folder, folder) == 0
    return folder


def predict(model, run, output="predicted", *flags):
    return commands(["predict", str(model), str(run / "photos"), "--output", str(run / output), *flags])


def masks(run, output="predicted"):
    return {name: (run / output / "masks" / f"{name}.png").read_bytes() for name in PHOTOS}


def test_photos_are_seen_in_tiles_at_the_scale(run):
    """The middle of a tile is what the network says of the photo at that scale, its edges matter no more there."""
    segmenter = ModelCard.read(run / "out").load()
    assert (segmenter.scale, segmenter.tile) == (SCALE, (32, 32))
    seen = []

    def predict_batch(photos):
        seen.append(photos.shape)
        return photos[..., :2].astype(np.float32)

    photo = read_photo(run / "photos" / "large.png").pixels
    logits = Segmenter(predict_batch, (SIZE, SIZE), Palette.numbered(2), scale=SCALE).logits(photo)
    assert {shape[1:] for shape in seen} == {(SIZE, SIZE, 3)}
    half = resize_photo(photo, (35, 35)).astype(float)
    expected = resize_photo(half.astype(np.float32)[..., :2], (70, 70))
    assert np.abs(logits - expected).max() < 1e-3


def test_tiles_give_what_one_pass_gives():
    """A network that looks about ten pixels far; the tiles' edges count nothing for twelve."""
    keras.utils.set_random_seed(1)
    network, size = Unet((128, 128, 3), 2, filters=2, depth=1), (210, 300)
    one_pass = Unet((*size, 3), 2, filters=2, depth=1)
    one_pass.set_weights(network.get_weights())
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    expected = predictor(one_pass, 1)(photo[None])[0]
    logits = Segmenter(predictor(network, 1), (128, 128), Palette.numbered(2), batch_size=1, scale=1.0).logits(photo)
    inside = slice(12, -12)  # beyond the photo's edge tiles see its mirror image, one pass sees zeros
    np.testing.assert_allclose(logits[inside, inside], expected[inside, inside], atol=1e-3)
    assert np.abs(expected).max() > 0.1


def test_masks_are_the_argmax_at_the_photos_own_size(run):
    segmenter = ModelCard.read(run / "out").load()
    for name, size in PHOTOS.items():
        found = read_mask(run / "predicted" / "masks" / f"{name}.png").pixels
        assert found.shape == (size, size)
        photo = read_photo(run / "photos" / f"{name}.png").pixels
        np.testing.assert_array_equal(found, segmenter.logits(photo).argmax(axis=-1))


def test_a_file_that_lies_alone_knows_its_scale(run, tmp_path):
    alone = tmp_path / "moved.keras"
    shutil.copy(run / "out" / "unet_model.keras", alone)
    assert scale_of(open_model(alone)) == SCALE
    assert predict(alone, run, "of the moved file") == 0
    for name in PHOTOS:
        found, expected = (
            read_mask(run / o / "masks" / f"{name}.png").pixels for o in ("of the moved file", "predicted")
        )
        np.testing.assert_array_equal(found, expected)


def test_exported_files_give_the_same_masks(run):
    if keras.backend.backend() != "torch":
        pytest.skip("one backend that writes ONNX is enough")
    pytest.importorskip("onnxruntime")
    assert commands(["export", str(run / "out"), "--format", "onnx"]) == 0
    assert predict(run / "out" / "unet_model.onnx", run, "of the exported file") == 0
    assert masks(run, "of the exported file") == masks(run)


def test_the_page_gives_the_same_masks(run, tmp_path):
    from semseg.serve.answering import Answerer

    answerer = Answerer(ModelCard.read(run / "out").load(batch_size=1), lambda photos: None)
    try:
        for name, mask in masks(run).items():
            photo = tmp_path / f"{name}.png"
            shutil.copy(run / "photos" / photo.name, photo)
            assert run_async(answerer.answer(photo)).mask == mask
    finally:
        answerer.close()


def test_scores_are_those_of_the_predicted_masks(run):
    assert commands(["evaluate", str(run / "out")]) == 0
    dataset = open_dataset(run / "data")
    segmenter = ModelCard.read(run / "out").load()
    matrix = 0
    for sample in dataset.splits["val"]:
        photo, truth = dataset.load(sample)
        matrix = matrix + confusion_matrix(truth, segmenter.logits(photo).argmax(axis=-1).astype(np.uint8), 19)
    found = Run(run / "out").evaluation.read_matrix(19)
    np.testing.assert_array_equal(found, matrix)
    described = json.loads((run / "out" / "evaluation" / "metrics.json").read_text())
    assert described["images"] == 3


def test_tiles_of_another_size_are_refused(run, capsys):
    assert predict(run / "out", run, "tiles", "--tile", "64") == 2
    assert "--tile" in (said := capsys.readouterr().err) and "learned crops" in said
    assert not (run / "tiles" / "masks").exists()


def test_a_scale_that_makes_no_sense_is_refused(run, tmp_path, capsys):
    shutil.copytree(run / "out", tmp_path / "out")
    config = tmp_path / "out" / "config.json"
    config.write_text(config.read_text().replace('"scale": 0.5', '"scale": -3'))
    assert predict(tmp_path / "out", run, "of a damaged run") == 5
    assert "a scale of -3" in capsys.readouterr().err
