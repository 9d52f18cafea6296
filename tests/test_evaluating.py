"""`python -m semseg evaluate`, on one tiny run."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
from helpers import make_folder, make_pairs, save_pair

from semseg.cli import commands, main
from semseg.data import open_dataset
from semseg.metrics import confusion_matrix, scores
from semseg.predict import predict_ids, predictor
from semseg.utils_func import read_image

SMALL = ["--image-size", "32", "--filters", "4", "--batch-size", "4", "--learning-rate", "0.01", "--epochs", "1"]
WRITTEN = {
    "metrics.json", "per_class.csv", "per_image.csv", "confusion_matrix.png", "cityscapes.json", "worst.png",
    "best.png", "reliability.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of one epoch on pairs of its own, which have a test split."""
    folder = tmp_path_factory.mktemp("judged")
    make_pairs(folder / "data", train=8, val=3)
    for number, name in enumerate(("2.png", "first.png")):
        save_pair(folder / "data" / "test" / name, 9000 + 7 * number)
    assert main(["--data", str(folder / "data"), "--output", str(folder / "out"), *SMALL]) == 0
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def evaluate(*arguments):
    return commands(["evaluate", *map(str, arguments)])


def test_a_run_reports_the_test_split_where_there_is_one(run):
    found = json.loads((run / "out" / "metrics.json").read_text())
    assert found["split"] == "test" and found["images"] == 2
    assert found["note"].startswith("held out: another split chose the best epoch")
    assert found["peak_memory_mb"] > 0
    assert [row["photo"] for row in table(run / "out" / "per_image.csv")] == ["test/2.png", "test/first.png"]


@pytest.mark.plain
def test_the_runs_own_data_are_judged_without_further_flags(run, capsys):
    assert evaluate(run / "out", "--test-split", "val") == 0
    output = run / "out" / "evaluation"
    assert {path.name for path in output.iterdir()} == WRITTEN
    text = capsys.readouterr().out
    for part in ("Scores on val (the same split chose the best epoch), seen at 32x32", "weighted", "boundary IoU"):
        assert part in text
    for path in output.glob("*.png"):
        assert read_image(path).std() > 5, path


def test_the_figures_are_those_of_the_saved_model(run):
    assert evaluate(run / "out" / "unet_model.keras", "--data", run / "data", "--output", run / "figures") == 0
    model = keras.saving.load_model(run / "out" / "unet_model.keras")
    dataset = open_dataset(run / "data")
    photos, truths = zip(*(dataset.load(sample) for sample in dataset.splits["test"]), strict=True)
    matrices = [
        confusion_matrix(truth, ids, 19)
        for truth, ids in zip(truths, predict_ids(predictor(model), photos, image_size=(32, 32)), strict=True)
    ]
    expected, found = scores(sum(matrices)), json.loads((run / "figures" / "metrics.json").read_text())
    for name in ("accuracy", "macro_iou", "micro_dice", "weighted_precision"):
        assert found[name] == pytest.approx(expected[name], abs=2e-6)
    per_class = table(run / "figures" / "per_class.csv")
    assert [row["class"] for row in per_class] == list(dataset.palette.names)
    ious = [float(row["iou"]) if row["iou"] else np.nan for row in per_class]
    np.testing.assert_allclose(ious, expected["iou"], atol=2e-6)
    per_image = [float(row["accuracy"]) for row in table(run / "figures" / "per_image.csv")]
    np.testing.assert_allclose(per_image, [scores(matrix)["accuracy"] for matrix in matrices], atol=2e-6)
    cityscapes = json.loads((run / "figures" / "cityscapes.json").read_text())
    assert cityscapes["averageScoreClasses"] == pytest.approx(expected["macro_iou"])


@pytest.mark.plain
def test_flips_are_noted_and_an_earlier_evaluation_is_kept(run, capsys):
    output = run / "flipped"
    for flips in ("horizontal", "both"):
        assert evaluate(run / "out", "--flips", flips, "--output", output) == 0
    assert json.loads((output / "metrics.json").read_text())["flips"] == "both"
    (before,) = (output / "archive").iterdir()
    assert json.loads((before / "metrics.json").read_text())["flips"] == "horizontal"
    assert "with flips" in capsys.readouterr().out


@pytest.mark.plain
def test_other_data_without_splits_are_judged_whole(run, tmp_path, capsys):
    make_pairs(tmp_path / "new", train=3, val=0)
    assert evaluate(run / "out", "--data", tmp_path / "new", "--output", tmp_path / "found") == 0
    found = json.loads((tmp_path / "found" / "metrics.json").read_text())
    assert found["split"] == "all" and found["images"] == 3
    assert found["note"] == "not the data that it was trained on"


@pytest.mark.plain
class TestBadInput:
    @pytest.fixture()
    def fails(self, capsys, tmp_path):
        def check(code, *parts, arguments):
            assert evaluate(*arguments, "--output", tmp_path / "found") == code
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1, error
            for part in parts:
                assert part in error, error
            assert not (tmp_path / "found").exists()

        return check

    def test_no_model_there(self, fails, tmp_path):
        fails(4, "nowhere: no such file", arguments=[tmp_path / "nowhere"])
        fails(4, "holds no *_model.keras", "one finished run", arguments=[tmp_path])

    def test_a_file_that_is_no_model(self, fails, tmp_path):
        (tmp_path / "x.keras").write_text("x")
        fails(5, "x.keras: cannot be opened", "that Keras saved", arguments=[tmp_path / "x.keras", "--data", tmp_path])

    def test_a_model_that_gives_no_map(self, fails, tmp_path):
        inputs = keras.Input((8, 8, 3))
        keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(tmp_path / "x.keras")
        fails(5, "(None, 8, 8, 3) to (None, 3)", "to logits (N, H, W, K)", arguments=[tmp_path / "x.keras"])

    def test_other_classes_than_the_models(self, fails, run, tmp_path):
        make_folder(tmp_path / "four")
        shutil.copy(run / "out" / "unet_model.keras", tmp_path / "alone.keras")
        arguments = [tmp_path / "alone.keras", "--data", tmp_path / "four"]
        fails(5, "alone.keras: tells 19 classes apart", "four hold 4 (", arguments=arguments)
        fails(2, "the masks hold numbers", arguments=[run / "out", "--data", tmp_path / "four"])

    def test_no_data_named_anywhere(self, fails, run, tmp_path):
        shutil.copy(run / "out" / "unet_model.keras", tmp_path / "alone.keras")
        fails(2, "--data:", "holds no config.json", "give a folder", arguments=[tmp_path / "alone.keras"])

    def test_a_split_that_is_not_there(self, fails, run):
        fails(
            2, "has no split 'dev'; choose one of train, val, test, all", arguments=[run / "out", "--test-split", "dev"]
        )

    def test_a_size_that_it_was_not_built_for(self, fails, run):
        fails(2, "was built for 32x32 pixels", arguments=[run / "out", "--image-size", "64"])

    def test_a_configuration_that_is_none(self, fails, run, tmp_path):
        shutil.copy(run / "out" / "unet_model.keras", tmp_path / "unet_model.keras")
        (tmp_path / "config.json").write_text("[]")
        fails(4, "config.json: cannot be read", "what a run writes", arguments=[tmp_path])
