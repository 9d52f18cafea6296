"""Photos unlike those that a network learnt from: what is noted of these, and who is warned of what."""

import csv
import json
import shutil
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
from helpers import draw_pair, make_pairs
from PIL import Image

from semseg.architectures import build_model
from semseg.backend.predictor import predictor
from semseg.cli import commands, main
from semseg.evaluation.learnt import ValidationLooks, learnt_photos
from semseg.evaluation.opening import own_data
from semseg.evaluation.tables import evaluate_to_files
from semseg.images.bands import RGB, Bands
from semseg.inference.card import ModelCard
from semseg.inference.files import Job, predict_files
from semseg.inference.learnt import LearntPhotos, Look, Watch, look_at
from semseg.inference.segmenter import Segmenter, with_flips
from semseg.inference.tiling import OVERLAP_OF_CROPS, tiled_logits
from semseg.labels.palettes import Palette
from semseg.runs.scores import ScoreFolder
from semseg.segmentation_model import Unet

SIZE = 32


def look(size=(100, 200), means=(0.4, 0.5, 0.6), contrast=0.2, features=(1.0, 0.0)):
    return Look(size, np.array(means), contrast, None if features is None else np.array(features))


@pytest.fixture
def learnt():
    """Of photos between two, whose held-out ones are 0.1 away."""
    train = [look(), look((120, 150), (0.5, 0.6, 0.7), 0.3, (0.0, 2.0))]
    return LearntPhotos.of(train, [look(features=(1.0, 0.1))])


@pytest.mark.parametrize(
    ("photo", "doubts"),
    [
        (look(), []),
        (look((399, 210)), []),
        (look((401, 210)), ["larger than any photo learnt from (their sides are 200 at most)"]),
        (look((49, 150)), ["smaller than any photo learnt from (their sides are 100 at least)"]),
        (look(means=(0.36, 0.46, 0.56)), []),
        (look(means=(0.2, 0.3, 0.4)), ["darker than any photo learnt from"]),
        (look(means=(0.8, 0.8, 0.8)), ["brighter than any photo learnt from"]),
        (look(means=(0.3, 0.5, 0.8)), ["with less of band red than any photo learnt from",
                                       "with more of band blue than any photo learnt from"]),
        (look(contrast=0.36), ["of more contrast than any photo learnt from"]),
        (look(contrast=0.1), ["flatter than any photo learnt from"]),
        (look(features=(3.0, 0.3)), []),  # directions are compared
        (look(features=(1.0, 1.0)), ["unlike in what the network sees"]),
        (look(features=None), []),
        (look(features=(1.0, 1.0, 1.0)), []),
        (look(means=(0.5,)), []),
    ],
)  # fmt: skip
def test_what_is_said_of_a_photo(learnt, photo, doubts):
    assert learnt.doubts(photo, RGB) == doubts


def test_the_distance_is_that_to_the_nearest_with_a_tenth_to_spare(learnt):
    away = np.array([1.0, 0.1]) / np.hypot(1, 0.1) - [1, 0]
    assert learnt.limit == pytest.approx(1.1 * np.hypot(*away), rel=1e-6)


def test_dark_photos_have_a_limit_below_too():
    dark = LearntPhotos.of([look(means=(0.01, 0.01, 0.01), contrast=0.01)], [])
    assert dark.doubts(look(means=(0.008, 0.008, 0.008), contrast=0.008), RGB) == []
    assert dark.doubts(look(means=(0.004, 0.004, 0.004), contrast=0.01), RGB) == ["darker than any photo learnt from"]
    assert dark.features is None  # no photo was held out


def test_it_is_kept_whole_in_a_file_and_without_features_in_json(learnt, tmp_path):
    learnt.write(tmp_path / "photos.npz", "abc")
    strange = look(features=(1.0, 1.0))
    assert LearntPhotos.read(tmp_path / "photos.npz", "abc").doubts(strange, RGB) == learnt.doubts(strange, RGB) != []
    assert LearntPhotos.read(tmp_path / "photos.npz", "of other weights").doubts(strange, RGB) == []
    values = json.loads(json.dumps(learnt.to_dict()))
    dark = look(means=(0.1, 0.1, 0.1), features=(1.0, 1.0))
    assert LearntPhotos.from_dict(values).doubts(dark, RGB) == ["darker than any photo learnt from"]
    (tmp_path / "photos.npz").write_bytes(b"PK")
    assert LearntPhotos.read(tmp_path / "photos.npz", "abc") is None
    for wrong in ({}, {**values, "contrast": [0, None]}, {**values, "sides": [1, 2, 3]}):
        with pytest.raises(ValueError, match="its description of photos holds"):
            LearntPhotos.from_dict(wrong)


def test_a_watch_tells_photos_apart_and_joins_tiles():
    segmenter = Segmenter(
        lambda photos: photos[..., :1] * 1.0, (8, 8), Palette.numbered(2), features=lambda: np.array([[1.0], [3.0]])
    )
    photos = np.stack([np.full((8, 8, 3), 51, np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    photos[1, ::4] = 0
    watch = Watch(segmenter)
    watch.predict_batch(photos)
    first, second = watch.next((8, 8)), watch.next((9, 9))
    np.testing.assert_allclose(first.means, 0.2, atol=1e-6)
    assert first.contrast == 0 and second.contrast == pytest.approx(0.5)  # of every second row half is black
    assert (first.features, second.features, second.size) == ([1.0], [3.0], (9, 9))
    watch.predict_batch(photos)
    both = watch.next((16, 8), tiles=None)
    np.testing.assert_allclose(both.means, 0.35, atol=1e-6)
    assert both.features == [2.0]
    blind = Watch(segmenter, with_features=False)
    blind.predict_batch(photos)
    assert blind.next((8, 8)).features is None


def test_bands_are_measured_from_black_to_white():
    bands = Bands(2, "uint16", low=(100.0, 0.0), high=(300.0, 1000.0), mean=(200.0, 500.0), shown=(0,))
    segmenter = Segmenter(lambda photos: photos[..., :1] * 1.0, (8, 8), Palette.numbered(2), bands=bands)
    (seen,) = look_at(segmenter, [np.full((8, 8, 2), (200, 250), np.uint16)])
    np.testing.assert_allclose(seen.means, [0.5, 0.25])


@pytest.mark.parametrize("build", ["unet", "attention_unet", "fast_unet"])
def test_features_are_the_means_of_the_deepest_layer_and_logits_stay_the_same(build):
    model = build_model(build, (SIZE, SIZE, 3), 4, filters=2)
    photos = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    predict = predictor(model, 4)
    assert predict.features() is None
    logits = predict(photos)
    np.testing.assert_allclose(logits, np.asarray(model.predict_on_batch(photos)), atol=1e-4)
    features = predict.features()
    assert len(features) == 3 and features.shape[1] >= 16
    predict(photos[1:2])
    np.testing.assert_allclose(predict.features(), features[1:2], atol=1e-4)


def test_features_with_flips_are_those_of_the_photo_as_it_is():
    predict = predictor(Unet((SIZE, SIZE, 3), 4, filters=2, depth=2), 2)
    photos = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    predict(photos)
    expected = predict.features()
    for flips in ("horizontal", "both"):
        with_flips(predict, flips)(photos)
        np.testing.assert_allclose(predict.features(), expected, atol=1e-5)


def test_a_network_without_smaller_layers_has_no_features():
    inputs = keras.Input((8, 8, 3))
    predict = predictor(keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs)))
    predict(np.zeros((1, 8, 8, 3), np.uint8))
    assert predict.features() is None


# ------------------------------------------------------------------------------------------------ from end to end


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on drawn streets."""
    folder = tmp_path_factory.mktemp("learnt")
    make_pairs(folder / "data", train=16, val=6)
    flags = ["--image-size", "32", "--filters", "4", "--model", "unet", "--epochs", "1"]
    assert main(["--data", str(folder / "data"), "--output", str(folder / "out"), *flags]) == 0
    for number in range(6):
        photo = draw_pair(2000 + number)[0]
        for name, pixels in (("like", photo), ("dark", photo // 8), ("inverted", 255 - photo)):
            (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    return folder


def predict(run, model, output, *flags):
    assert commands(["predict", str(model), str(run / "photos"), "--output", str(output), "--no-overlays",
                     *map(str, flags)]) == 0  # fmt: skip
    with (output / "shares.csv").open(newline="") as file:
        return {row["photo"]: row["unlike"] for row in csv.DictReader(file)}


@pytest.mark.plain
def test_a_prediction_names_unlike_photos_and_the_same_command_names_them_again(run, tmp_path, capsys):
    found = predict(run, run / "out", tmp_path / "out")
    assert not any(doubt for name, doubt in found.items() if name.startswith("like"))
    assert all("darker than any photo learnt from" in found[f"dark/{i}.png"] for i in range(6))
    assert all(found[f"inverted/{i}.png"] for i in range(6))
    text = " ".join(capsys.readouterr().out.split())
    assert "unlike 12 of 18 photos are unlike those that the network learnt from" in text
    assert "dark/0.png: darker than any photo learnt from" in text and "and 7 others" in text
    assert predict(run, run / "out", tmp_path / "out") == found
    assert "12 of 18 photos are unlike" in " ".join(capsys.readouterr().out.split())


@pytest.mark.plain
def test_tiles_and_scales_look_at_light_alone(run, tmp_path):
    for flags in (("--tile", 16), ("--scales", "0.75,1")):
        found = predict(run, run / "out", tmp_path / str(flags[1]), *flags)
        assert all("darker" in found[f"dark/{i}.png"] for i in range(6))
        assert not any("network sees" in doubt for doubt in found.values())


@pytest.mark.plain
def test_frames_of_a_video_are_judged_as_photos(run, tmp_path, capsys):
    photo = draw_pair(2000)[0]
    height, width = photo.shape[:2]
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (width, height))
    for pixels in (photo, photo, photo // 8, photo // 8, photo // 8):
        writer.write(np.ascontiguousarray(pixels[..., ::-1]))
    writer.release()
    command = ["predict", str(run / "out"), str(tmp_path / "v.avi"), "--output", str(tmp_path / "out")]
    assert commands([*command, "--batch-size", "2"]) == 0
    with (tmp_path / "out" / "shares.csv").open(newline="") as file:
        found = [row["unlike"] for row in csv.DictReader(file)]
    assert found[:2] == ["", ""] and all("darker than any photo learnt from" in doubt for doubt in found[2:])
    text = " ".join(capsys.readouterr().out.split())
    assert "unlike 3 of 5 frames are unlike the photos that the network learnt from" in text
    assert "frame 2: darker than any photo learnt from" in text


@pytest.mark.plain
def test_an_evaluation_warns_of_them_too(run, tmp_path, capsys):
    assert commands(["evaluate", str(run / "out"), "--output", str(tmp_path / "own")]) == 0
    assert "unlike" not in capsys.readouterr().out
    shutil.copytree(run / "data", tmp_path / "dark")
    for path in (tmp_path / "dark" / "val").iterdir():
        pair = np.array(Image.open(path))
        pair[:, :SIZE] //= 8
        Image.fromarray(pair).save(path)
    assert commands(["evaluate", str(run / "out"), "--data", str(tmp_path / "dark"), "--test-split", "val",
                     "--output", str(tmp_path / "other")]) == 0  # fmt: skip
    assert "unlike 6 of 6 photos are unlike those" in " ".join(capsys.readouterr().out.split())


@pytest.mark.plain
def test_exported_files_know_light_and_size_and_damaged_notes_stop_nothing(run, tmp_path):
    target = tmp_path / "x.onnx"
    pytest.importorskip("onnxruntime")
    if keras.backend.backend() != "jax":
        assert commands(["export", str(run / "out"), "--format", "onnx", "--output", str(target)]) == 0
        found = predict(run, target, tmp_path / "exported")
        assert "darker" in found["dark/0.png"] and not found["like/0.png"]
        assert not any("network sees" in doubt for doubt in found.values())
    shutil.copytree(run / "out", tmp_path / "out")
    (tmp_path / "out" / "photos.npz").write_bytes(b"nothing")
    assert ModelCard.read(tmp_path / "out").learnt is None
    assert commands(["predict", str(tmp_path / "out"), str(run / "photos"), "--output", str(tmp_path / "p")]) == 0


def test_looks_taken_while_judging_are_those_that_would_be_taken_later(run, tmp_path):
    card = ModelCard.read(run / "out")
    segmenter, dataset = card.load(), own_data(card.run, RGB)
    looks = ValidationLooks(segmenter, dataset, "val")
    evaluate_to_files(
        looks.segmenter, dataset, "val", ScoreFolder(tmp_path), facts={},
        on_image=lambda image, photo, *masks: looks.note(image.sample, photo.shape[:2]),
    )  # fmt: skip
    assert set(looks.found) == set(dataset.splits["val"])
    asked = []

    def predict_batch(photos):
        asked.append(len(photos))
        return segmenter.predict_batch(photos)

    counted = replace(segmenter, predict_batch=predict_batch)
    before, now = (learnt_photos(counted, dataset, seen).to_dict() for seen in (None, looks.found))
    assert sum(asked) == 2 * len(dataset.splits["train"]) + len(dataset.splits["val"])
    assert before.keys() == now.keys()
    for name, value in before.items():
        np.testing.assert_allclose(now[name], value, rtol=1e-5)
    other = ValidationLooks(segmenter, dataset, "train")
    assert other.segmenter is segmenter and not other.found


def test_photos_in_tiles_of_their_own_are_compared_by_all_of_these(tmp_path):
    """A network that learnt crops: a photo is the mean over its tiles, the same for training and prediction."""
    model = Unet((SIZE, SIZE, 3), 1, filters=2, depth=2)
    predict_batch = predictor(model, 4)
    segmenter = Segmenter(
        predict_batch, (SIZE, SIZE), Palette.numbered(2), batch_size=4, scale=1.0, features=predict_batch.features
    )
    photos = [np.random.default_rng(i).integers(0, 256, (50, 70, 3)).astype(np.uint8) for i in range(3)]
    seen = look_at(segmenter, photos)
    tiles = []

    def note(batch):
        tiles.extend(batch)
        return predict_batch(batch)

    list(tiled_logits(note, [photos[0]], (50, 70), image_size=(SIZE, SIZE), tile=(SIZE, SIZE), batch_size=1,
                      overlap=OVERLAP_OF_CROPS))  # fmt: skip
    np.testing.assert_allclose(seen[0].means, np.stack(tiles)[:, ::2, ::2].mean(axis=(0, 1, 2)) / 255, atol=1e-5)
    Image.fromarray(photos[0]).save(tmp_path / "a.png")
    Image.fromarray(photos[0] // 9).save(tmp_path / "b.png")
    segmenter = Segmenter(**{**vars(segmenter), "learnt": LearntPhotos.of(seen[:2], seen[2:])})
    jobs = [Job(tmp_path / f"{name}.png", {"masks": tmp_path / f"m{name}.png"}) for name in "ab"]
    (_, like), (_, dark) = predict_files(segmenter, jobs)
    assert like.unlike == () and "darker than any photo learnt from" in dark.unlike
