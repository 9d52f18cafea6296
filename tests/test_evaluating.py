"""`python -m semseg evaluate`, on one tiny run."""

import csv
import json
import shutil
import weakref

import keras
import numpy as np
import pytest
from helpers import make_folder, make_pairs, save_pair
from PIL import Image

from semseg.backend.predictor import predictor
from semseg.cli import commands, looking, main
from semseg.cli import evaluate as cli_evaluate
from semseg.data import open_dataset
from semseg.data.opening import check_data, open_data
from semseg.data.splits import splits_of
from semseg.errors import SemsegError
from semseg.evaluation.opening import open_run
from semseg.images.reading import read_image
from semseg.inference.segmenter import predict_ids
from semseg.metrics.confusion import confusion_matrix, scores
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.segmentation_model import Unet

SMALL = ["--image-size", "32", "--filters", "4", "--batch-size", "4", "--learning-rate", "0.01", "--epochs", "1"]
WRITTEN = {
    "metrics.json", "per_class.csv", "per_image.csv", "confusion_matrix.csv", "confusion_matrix.png",
    "cityscapes.json", "worst.png", "best.png", "reliability.png",
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


@pytest.mark.plain
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


@pytest.mark.plain
def test_what_the_check_noted_of_each_photo_is_let_go_before_they_are_scored(run, monkeypatch):
    noted, judge = [], cli_evaluate.evaluate_to_files

    def look_at(*arguments):
        found = looking.look_at(*arguments)
        noted.append(weakref.ref(found[0]))
        return found

    def judge_alone(*arguments, **options):
        assert noted[0]() is None
        return judge(*arguments, **options)

    monkeypatch.setattr(cli_evaluate, "look_at", look_at)
    monkeypatch.setattr(cli_evaluate, "evaluate_to_files", judge_alone)
    assert evaluate(run / "out", "--output", run / "lean") == 0 and len(noted) == 1


@pytest.mark.plain
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
    rows = table(run / "figures" / "confusion_matrix.csv")
    assert [[int(row[f"as {name}"]) for name in dataset.palette.names] for row in rows] == sum(matrices).tolist()
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


def make_run(folder, data, **options):
    """What a run on `data` leaves that `evaluate` reads, with an untrained model."""
    dataset = open_dataset(data)
    folder.mkdir()
    model = Unet((32, 32, 3), dataset.num_logits, filters=4, depth=1)
    model.save(folder / "unet_model.keras")
    (folder / "classes.json").write_text(json.dumps(dataset.palette.to_dict()))
    Run(folder).write_splits(splits_of(dataset))
    Run(folder).write_config(RunConfig(data=str(data), image_size=(32, 32), **options), {}, {})
    return dataset


@pytest.mark.plain
def test_a_run_opens_in_python_with_its_network_and_its_own_splits(tmp_path):
    trained_on = make_run(tmp_path / "run", make_folder(tmp_path / "data"), split_seed=5)  # draws others than 0
    segmenter, dataset = open_run(tmp_path / "run")
    assert splits_of(dataset) == splits_of(trained_on)
    assert segmenter.palette.to_dict()["classes"] == dataset.palette.to_dict()["classes"]
    photo, _ = dataset.load(dataset.splits["val"][0])
    model = keras.saving.load_model(tmp_path / "run" / "unet_model.keras")
    (ids,) = predict_ids(predictor(model), [photo], image_size=(32, 32))
    np.testing.assert_array_equal(segmenter.probabilities(photo).argmax(axis=-1), ids)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(SemsegError, match=r"holds no config\.json that says on which data"):
        open_run(tmp_path / "run")


def judged(folder):
    return json.loads((folder / "metrics.json").read_text()), {row["photo"] for row in table(folder / "per_image.csv")}


@pytest.mark.plain
class TestOtherData:
    """Which photos are judged, and what is said of them."""

    @pytest.fixture()
    def drawn(self, tmp_path):
        """A run on a folder without splits, and the names of the photos that it drew for validation."""
        dataset = make_run(tmp_path / "run", make_folder(tmp_path / "data", 10))
        return tmp_path, {f"images/{sample.photo.name}" for sample in dataset.splits["val"]}

    def test_a_copy_of_the_runs_data_is_known_and_keeps_the_split_that_was_drawn(self, drawn):
        folder, val = drawn
        shutil.copytree(folder / "data", folder / "copy")
        assert evaluate(folder / "run", "--data", folder / "copy", "--output", folder / "found") == 0
        found, photos = judged(folder / "found")
        assert photos == val and found["note"] == "the same split chose the best epoch"

    def test_photos_that_were_added_are_new_and_another_seed_draws_nothing_anew(self, drawn):
        folder, val = drawn
        make_folder(folder / "more", 3, first=7000)
        for part in ("images", "masks"):
            for path in (folder / "more" / part).iterdir():
                shutil.copy(path, folder / "data" / part / f"added{path.name}")
        assert evaluate(folder / "run", "--split-seed", 5, "--output", folder / "found") == 0
        assert judged(folder / "found")[1] == val
        assert evaluate(folder / "run", "--test-split", "new", "--output", folder / "new") == 0
        found, photos = judged(folder / "new")
        assert found["note"] == "none of the photos was in its run"
        assert {name[:12] for name in photos} == {"images/added"} and len(photos) == 3

    def test_photos_that_were_trained_on_are_counted(self, drawn, capsys):
        folder, val = drawn
        assert evaluate(folder / "run", "--test-split", "all", "--output", folder / "found") == 0
        assert judged(folder / "found")[0]["note"] == f"{10 - len(val)} of 10 photos were trained on"
        assert f"Scores on all ({10 - len(val)} of 10 photos were trained on)" in capsys.readouterr().out

    def test_others_without_splits_are_judged_whole(self, drawn):
        folder, _ = drawn
        make_folder(folder / "others", 3, first=7000)
        assert evaluate(folder / "run", "--data", folder / "others", "--output", folder / "found") == 0
        found, photos = judged(folder / "found")
        assert found["split"] == "all" and len(photos) == 3
        assert found["note"] == "none of the photos was in its run"

    def test_without_the_list_of_photos_nothing_is_claimed(self, drawn):
        folder, val = drawn
        (folder / "run" / "splits.csv").unlink()
        assert evaluate(folder / "run", "--output", folder / "found") == 0
        found, photos = judged(folder / "found")
        assert photos == val and found["note"] == "whether it was trained on them is not known"

    def test_numbers_that_mean_something_else_are_refused(self, tmp_path, capsys):
        for name, values in (("ones", (0, 1)), ("bright", (0, 255))):
            make_folder(tmp_path / name, 6)
            for path in (tmp_path / name / "masks").iterdir():
                ids = np.asarray(Image.open(path))
                Image.fromarray(np.where(ids == 3, *np.uint8(values[::-1]))).save(path)
        make_run(tmp_path / "run", tmp_path / "ones")
        assert evaluate(tmp_path / "run", "--data", tmp_path / "bright", "--output", tmp_path / "found") == 5
        error = capsys.readouterr().err
        assert "bright: 255 in its masks seems to be foreground, and is no class to the model" in error
        assert not (tmp_path / "found").exists()

    def test_masks_most_of_which_are_no_class_are_refused(self, tmp_path, capsys):
        make_run(tmp_path / "run", make_folder(tmp_path / "data", 6))
        make_folder(tmp_path / "void", 3, first=7000)
        for path in (tmp_path / "void" / "masks").iterdir():
            ids = np.array(Image.open(path))
            ids[:, :24] = 255
            Image.fromarray(ids).save(path)
        assert evaluate(tmp_path / "run", "--data", tmp_path / "void", "--output", tmp_path / "found") == 5
        assert "of the pixels are no class to" in capsys.readouterr().err


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

    def test_a_size_that_the_network_does_not_take(self, fails, run, tmp_path):
        Unet((None, None, 3), 19, filters=4, depth=2).save(tmp_path / "x.keras")
        arguments = [tmp_path / "x.keras", "--data", run / "data", "--image-size"]
        fails(2, "--image-size:", "does not take 30x30 pixels", arguments=[*arguments, "30"])

    def test_a_network_that_gives_probabilities(self, fails, run, tmp_path):
        Unet((32, 32, 3), 19, filters=4, depth=1, output_activation="softmax").save(tmp_path / "x.keras")
        arguments = [tmp_path / "x.keras", "--data", run / "data"]
        fails(5, "x.keras: ends in a softmax or sigmoid; expected logits", arguments=arguments)

    def test_the_folder_of_the_run_itself(self, run, capsys):
        before = (run / "out" / "metrics.json").read_bytes()
        assert evaluate(run / "out", "--output", run / "out") == 4
        assert "holds a run, whose files would be replaced" in capsys.readouterr().err
        assert (run / "out" / "metrics.json").read_bytes() == before

    def test_a_configuration_that_is_none(self, fails, run, tmp_path):
        shutil.copy(run / "out" / "unet_model.keras", tmp_path / "unet_model.keras")
        (tmp_path / "config.json").write_text("[]")
        fails(4, "config.json: cannot be read", "what a run writes", arguments=[tmp_path])


@pytest.mark.plain
class TestDataThatChangedSinceTheRun:
    """The names of the files stay as they were."""

    @pytest.fixture()
    def changed(self, tmp_path, capsys):
        """Takes what is done to the data of a finished check; gives what `evaluate` says and notes."""
        data = make_folder(tmp_path / "data")
        config = RunConfig(data=str(data), image_size=(32, 32))
        dataset = open_data(config)
        check_data(config, dataset)
        make_run(tmp_path / "run", data)
        Run(tmp_path / "run").write_splits(splits_of(dataset))
        val = sorted(int(sample.photo.stem) for sample in dataset.splits["val"])

        def judge(change):
            change(data, val[0])
            assert evaluate(tmp_path / "run") == 0
            note = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())["note"]
            return " ".join(capsys.readouterr().out.split()), note, val[0]

        return judge

    def test_nothing_is_said_where_nothing_changed(self, changed):
        text, note, _ = changed(lambda data, number: (data / "images" / f"{number}.jpg").touch())
        assert "since the run" not in text and note == "the same split chose the best epoch"

    def test_a_mask_with_other_bytes_is_named(self, changed):
        def turn(data, number):
            path = data / "masks" / f"{number}.png"
            size = path.stat().st_size
            ids = np.asarray(Image.open(path)).copy()
            ids[0, 0] = 1 - min(ids[0, 0], 1)
            Image.fromarray(ids).save(path)
            path.write_bytes(path.read_bytes().ljust(size, b"\0"))

        text, note, number = changed(turn)
        assert f"changed {number}.jpg or its masks changed since the run; the scores are not those" in text.replace(
            "images/", ""
        )
        assert note.endswith("or its masks changed since the run")

    def test_a_photo_that_is_gone_is_named(self, changed):
        def remove(data, number):
            for path in (data / "images" / f"{number}.jpg", data / "masks" / f"{number}.png"):
                path.unlink()

        text, note, number = changed(remove)
        assert f"{number}.jpg is gone since the run" in text and "is gone" in note
