"""Temperature and threshold: chosen on validation photos, noted, and kept to on every way from a photo to its mask."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import run_async
from PIL import Image

from semseg.cli import commands, main
from semseg.data import open_dataset
from semseg.errors import ModelFileError, SemsegError
from semseg.evaluation.calibrating import calibrate, choose
from semseg.evaluation.evaluate import evaluate_split
from semseg.evaluation.opening import open_run
from semseg.export import formats
from semseg.inference.answers import Answers
from semseg.inference.card import ModelCard
from semseg.inference.files import write_masks
from semseg.inference.logits import confidence_of_logits, ids_of_logits
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.metrics.calibration import best_threshold, fit_temperature, threshold_counts
from semseg.runs.calibration import AS_LEARNT, Calibration
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.serve.answering import Answerer

pytestmark = pytest.mark.plain

SIZE, TEMPERATURE = 32, 3.0
BACKEND = keras.backend.backend()


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, float)))


def draw(seed, size=SIZE):
    """A photo whose red gives the logit of the network, three times too large, and a mask drawn by its probability."""
    rng = np.random.default_rng(seed)
    red = rng.integers(0, 256, (size, size)).astype(np.uint8)
    mask = rng.random(red.shape) < sigmoid(logits_of(red) / TEMPERATURE)
    return np.stack([red, red, red], axis=-1), mask.astype(np.uint8)


def logits_of(red):
    return (red - 128.0) / 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose network is three times surer than it is right, calibrated by `evaluate`."""
    folder = tmp_path_factory.mktemp("calibrated")
    for split, first, count in (("train", 0, 2), ("val", 10, 12), ("test", 30, 6)):
        for part in ("images", "masks"):
            (folder / "data" / split / part).mkdir(parents=True)
        for i in range(first, first + count):
            photo, mask = draw(i)
            Image.fromarray(photo).save(folder / "data" / split / "images" / f"{i}.png")
            Image.fromarray(mask).save(folder / "data" / split / "masks" / f"{i}.png")
    inputs = keras.Input((SIZE, SIZE, 3))
    last = keras.layers.Conv2D(1, 1)
    model = keras.Model(inputs, last(keras.layers.Rescaling(1 / 48)(inputs)))
    last.set_weights([np.ones((1, 1, 3, 1)), np.array([-8.0])])
    (folder / "out").mkdir()
    model.save(folder / "out" / "unet_model.keras")
    dataset = open_dataset(folder / "data")
    Run(folder / "out").write_classes(dataset.palette)
    Run(folder / "out").write_config(RunConfig(data=str(folder / "data"), image_size=(SIZE, SIZE)), {}, {})
    assert commands(["evaluate", str(folder / "out"), "--calibrate"]) == 0
    return folder


@pytest.fixture(scope="module")
def calibration(run):
    return ModelCard.read(run / "out").calibration


# ------------------------------------------------------------------------------------------------------ the choice


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_the_temperature_makes_the_likelihood_highest(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 6, (4000, classes))
    both = np.concatenate([np.zeros_like(logits), logits], axis=-1) if classes == 1 else logits
    truth = (both / 2.5 + rng.gumbel(size=both.shape)).argmax(axis=-1)  # drawn by the softmax of the logits over 2.5

    def nll(temperature):
        scaled = both / temperature
        return (np.log(np.exp(scaled).sum(axis=-1)) - np.take_along_axis(scaled, truth[:, None], 1)[:, 0]).mean()

    found = fit_temperature(logits, truth)
    assert found == pytest.approx(2.5, rel=0.1)
    assert all(nll(found) <= nll(found * factor) for factor in (0.98, 1.02))


def test_a_network_that_is_never_wrong_gets_the_limit():
    assert fit_temperature(np.array([[9.0], [-9.0]]), np.array([1, 0])) == pytest.approx(0.05)
    assert fit_temperature(np.array([[9.0], [-9.0]]), np.array([0, 1])) == pytest.approx(20)


def test_the_threshold_is_the_best_where_there_are_photos_enough_and_else_near_the_middle():
    rng = np.random.default_rng(0)

    def draw_photos(count):
        for _ in range(count):
            probabilities = rng.random(500).round(2)
            yield probabilities, (rng.random(500) < probabilities**2).astype(int)

    def dice(photos, threshold):
        probabilities, truth = map(np.concatenate, zip(*photos, strict=True))
        chosen = probabilities > threshold
        return 2 * (chosen & (truth == 1)).sum() / (chosen.sum() + truth.sum())

    for count in (1, 3, 200):
        photos = list(draw_photos(count))
        found = best_threshold(np.stack([threshold_counts(*photo) for photo in photos]))
        of_all = {step / 100: dice(photos, step / 100) for step in range(1, 100)}
        best = max(of_all, key=of_all.get)
        if count == 1:  # its standard error is not known
            assert of_all[found] == of_all[best]
        else:
            assert abs(found - 0.5) <= abs(best - 0.5) and of_all[found] > of_all[best] - 0.03
    assert of_all[found] > of_all[best] - 0.002
    assert best_threshold(np.stack([threshold_counts(photos[0][0], np.zeros(500, int))])) == 0.5


def test_more_than_two_classes_get_a_temperature_alone():
    found = choose([(np.array([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]]), np.array([0, 1, 2, 1]))])
    assert found.threshold == 0.5 and found.temperature > 1
    with pytest.raises(SemsegError, match="`threshold`: is for two classes, and there are 3"):
        ids_of_logits(np.zeros((1, 3)), 0.4)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_one_logit_and_two_agree_and_the_certainty_is_that_of_the_chosen_class(threshold):
    one = np.linspace(-4, 4, 41)[:, None]
    two = np.concatenate([np.full_like(one, 0.7), one + 0.7], axis=-1)
    ids = sigmoid(one[:, 0]) > threshold
    certainty = np.where(ids, sigmoid(one[:, 0]), 1 - sigmoid(one[:, 0]))
    for logits in (one, two):
        np.testing.assert_array_equal(ids_of_logits(logits, threshold), ids)
        np.testing.assert_allclose(confidence_of_logits(logits, threshold), certainty, atol=1e-6)


@pytest.mark.parametrize("values", [{"temperature": 0, "threshold": 0.5}, {"temperature": 1, "threshold": 1}, {}])
def test_numbers_that_make_no_sense_are_refused(values):
    with pytest.raises(ValueError, match=r"temperature|threshold"):
        Calibration.from_dict(values)


# --------------------------------------------------------------------------------------------------- chosen on a run


def test_a_network_that_is_too_sure_is_found_out(run, calibration):
    """With the true probabilities known, the best threshold for Dice is half of the Dice that it gives."""
    assert calibration.temperature == pytest.approx(TEMPERATURE, rel=0.05)
    probabilities = sigmoid(logits_of(np.arange(256)) / TEMPERATURE)
    dice = max(
        2 * probabilities[probabilities > t].sum() / ((probabilities > t).sum() + probabilities.sum())
        for t in np.arange(0.1, 0.9, 0.01)
    )
    assert calibration.threshold == pytest.approx(dice / 2, abs=0.06)


def test_the_scores_tell_what_it_was_worth_on_photos_that_chose_nothing(run, calibration):
    found = json.loads((run / "out" / "evaluation" / "metrics.json").read_text())
    assert found["split"] == "test" and found["calibration"] == calibration.to_dict()
    assert found["calibration_error"] < 0.03 < 0.1 < found["as_learnt"]["calibration_error"]
    matrix = np.zeros((2, 2))
    for i in range(30, 36):
        photo, mask = draw(i)
        np.add.at(matrix, (mask, (logits_of(photo[..., 0]) > 0).astype(int)), 1)
    assert found["as_learnt"]["accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-6)
    _, of_second = found["per_class"].values()
    assert of_second["dice"] > 2 * matrix[1, 1] / (matrix[1].sum() + matrix[:, 1].sum())


def test_the_note_says_what_was_measured_and_the_report_and_the_terminal_repeat_it(run, capsys):
    values = json.loads((run / "out" / "calibration.json").read_text())
    assert values["model"] == "unet_model.keras" and values["split"] == "val" and values["photos"] == 12
    before, after = values["calibration_error"]
    assert after < before
    assert Run(run / "out").calibration_note.endswith(f"error of {before:.3f} before, {after:.3f} after")
    assert commands(["evaluate", str(run / "out"), "--output", str(run / "again")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "certainty temperature " in text and "without calibration: accuracy" in text
    assert not list((run / "again").glob("calibration.json"))
    again = json.loads((run / "again" / "metrics.json").read_text())
    assert again["calibration"] == ModelCard.read(run / "out").calibration.to_dict()


def test_a_photo_is_judged_the_same_whole_in_tiles_in_files_and_on_the_page(run, calibration, tmp_path):
    photo, _ = draw(99)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    probabilities = sigmoid(logits_of(photo[..., 0]) / calibration.temperature)
    expected = probabilities > calibration.threshold
    assert (expected != (probabilities > 0.5)).any()
    for name, flags in {
        "whole": [], "tiles": ["--tile", "16x16"], "flips": ["--flips", "both"], "scales": ["--scales", "1"],
    }.items():  # fmt: skip
        assert commands(["predict", str(run / "out"), str(tmp_path / "photo.png"), "--no-overlays", "--probabilities",
                         "--objects", "all", "--output", str(tmp_path / name), *flags]) == 0  # fmt: skip
        with Image.open(tmp_path / name / "masks" / "photo.png") as mask:
            found = np.asarray(mask)
        if name == "tiles":  # seen twice as large, so that pixels are blends of their neighbours
            continue
        np.testing.assert_array_equal(found, expected, err_msg=name)
        stored = np.load(tmp_path / name / "probabilities" / "photo.npy")
        np.testing.assert_allclose(stored[..., 1], probabilities, atol=1e-3)
    segmenter, _ = open_run(run / "out")
    np.testing.assert_array_equal(segmenter.ids(photo), expected)
    answerer = Answerer(segmenter, lambda photos: None)
    try:
        shutil.copy(tmp_path / "photo.png", tmp_path / "asked")
        answer = run_async(answerer.answer(tmp_path / "asked"))
        assert answer.counts.tolist() == np.bincount(expected.ravel()).tolist()
    finally:
        answerer.close()


def test_tiles_decide_by_the_threshold(tmp_path):
    photo = np.full((48, 40, 3), 128, np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for threshold, share in ((0.3, 1), (0.5, 0)):
        segmenter = Segmenter(lambda photos: photos[..., :1] * 0.0 - 1.2, (16, 16), Palette.numbered(2), scale=1.0)
        segmenter = segmenter.calibrated(Calibration(2.0, threshold))  # .35 of the second class
        assert segmenter.ids(photo).mean() == share
        assert segmenter.probabilities(photo)[..., 1] == pytest.approx(sigmoid(-0.6))


def test_objects_are_as_certain_as_the_calibrated_network(tmp_path):
    logits = np.full((8, 8, 1), -0.2, np.float32)
    answers = Answers(("background", "cell"), (1,), table=True)
    files = {"masks": tmp_path / "m.png", "objects": tmp_path / "o.csv"}
    write_masks([logits], (8, 8), files, Palette.numbered(2), threshold=0.4, answers=answers)
    row = (tmp_path / "o.csv").read_text().splitlines()[1].split(",")
    assert float(row[-2]) == pytest.approx(sigmoid(-0.2), abs=0.003)


@pytest.mark.skipif(BACKEND not in formats.FORMATS["onnx"].packages, reason=f"{BACKEND} writes no ONNX")
@pytest.mark.parametrize("name", ["onnx", "keras"])
@pytest.mark.parametrize("gives", ["logits", "probabilities", "ids"])
def test_exported_files_say_the_same_with_semseg_and_without(run, calibration, tmp_path, name, gives):
    target = tmp_path / f"x{formats.FORMATS[name].suffix}"
    assert commands(["export", str(run / "out"), "--format", name, "--gives", gives, "--output", str(target)]) == 0
    photo, _ = draw(99)
    probabilities = sigmoid(logits_of(photo[..., 0]) / calibration.temperature)
    segmenter = ModelCard.read(target).load()
    np.testing.assert_array_equal(segmenter.ids(photo), probabilities > calibration.threshold)
    if gives != "ids":
        np.testing.assert_allclose(segmenter.probabilities(photo)[..., 1], probabilities, atol=1e-5)
    described = json.loads((tmp_path / "export.json").read_text())[target.name]["calibration"]
    assert described == calibration.to_dict()
    if name == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        (found,) = onnxruntime.InferenceSession(target).run(None, {"photos": photo[None]})
        expected = {"logits": logits_of(photo[..., 0]), "probabilities": probabilities,
                    "ids": probabilities > calibration.threshold}  # fmt: skip
        np.testing.assert_allclose(found.reshape(SIZE, SIZE), expected[gives], atol=1e-4)


# ----------------------------------------------------------------------------------------------------- bad input


def test_a_note_of_other_weights_is_not_believed(run, tmp_path, capsys):
    shutil.copytree(run / "out", tmp_path / "out")
    model = keras.saving.load_model(tmp_path / "out" / "unet_model.keras")
    model.layers[-1].set_weights([np.ones((1, 1, 3, 1)), np.array([-7.0])])
    model.save(tmp_path / "out" / "unet_model.keras")
    with pytest.raises(ModelFileError, match=r"calibration.json: is of other weights than unet_model.keras holds"):
        ModelCard.read(tmp_path / "out")
    (tmp_path / "out" / "calibration.json").write_text("{")
    assert commands(["predict", str(tmp_path / "out"), str(run / "data" / "val"), "--output", str(tmp_path / "p")]) == 5
    assert "calibration.json: cannot be understood" in capsys.readouterr().err
    model.save(tmp_path / "out" / "unet_last.keras")
    shutil.copy(run / "out" / "calibration.json", tmp_path / "out")
    assert ModelCard.read(tmp_path / "out" / "unet_last.keras").calibration == AS_LEARNT


def test_what_cannot_be_calibrated_is_refused_in_one_line(run, tmp_path, capsys):
    dataset = open_dataset(run / "data")
    segmenter = Segmenter(lambda photos: photos[..., :1] * 1.0, (SIZE, SIZE), dataset.palette)
    dataset.splits.pop("val")
    with pytest.raises(SemsegError, match=r"`calibrate`: .* has no validation photos"):
        calibrate(segmenter, dataset)
    (tmp_path / "x.onnx").write_bytes(b"")
    assert commands(["evaluate", str(tmp_path / "x.onnx"), "--data", str(run / "data"), "--calibrate"]) == 2
    assert "--calibrate: " in capsys.readouterr().err


def test_a_training_may_end_with_it(run, tmp_path):
    flags = ["--image-size", "32", "--filters", "2", "--epochs", "1", "--model", "unet", "--calibrate"]
    assert main(["--data", str(run / "data"), "--output", str(tmp_path / "out"), *flags]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["calibration"] == ModelCard.read(tmp_path / "out").calibration.to_dict()
    assert found["calibration_error"] <= found["as_learnt"]["calibration_error"] + 0.02
    assert "temperature" in (tmp_path / "out" / "report.html").read_text()


def test_an_evaluation_in_python_takes_a_calibration(run):
    dataset = open_dataset(run / "data")
    segmenter = Segmenter(lambda photos: logits_of(photos[..., :1]), (SIZE, SIZE), dataset.palette)
    segmenter = segmenter.calibrated(Calibration(TEMPERATURE, 0.4))
    found = evaluate_split(
        segmenter.predict_batch, dataset, "test", image_size=(SIZE, SIZE), calibration=segmenter.calibration
    )
    assert found.scores["calibration_error"] < found.scores_as_learnt["calibration_error"]
    plain = evaluate_split(segmenter.predict_batch, dataset, "test", image_size=(SIZE, SIZE))
    assert plain.scores_as_learnt is None
