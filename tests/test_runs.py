import json

import numpy as np
import pytest
from helpers import draw_ids

from semseg.errors import RunFolderError, SemsegError
from semseg.files import write_json
from semseg.labels.palettes import Palette, cityscapes_palette
from semseg.runs import names
from semseg.runs.classes import read_classes
from semseg.runs.config import RunConfig
from semseg.runs.pictures import SPREAD, Picture
from semseg.runs.run import Run
from semseg.runs.splits import SplitEntry

pytestmark = pytest.mark.plain

TWO = Palette.from_colors(("road", "sky"), ((128, 64, 128), (70, 130, 180)))


def test_what_is_written_is_read_back_with_types(tmp_path):
    run = Run(tmp_path / "run")
    run.write_config(RunConfig(epochs=3), {"batches": {"steps": {"value": 9, "reason": "x"}}}, {"task": "binary"})
    run.write_classes(TWO, [0.75, 0.25])
    run.write_splits({("a/1.png", 10): SplitEntry("train", "0a"), ("b.png", 20): SplitEntry("val")})
    read = Run(tmp_path / "run")
    assert read.config == RunConfig(epochs=3) and read.facts == {"task": "binary"}
    assert read.plan["batches"]["steps"]["value"] == 9
    assert read.palette.names == ("road", "sky") and read.palette.colors == TWO.colors
    assert read.splits == {("a/1.png", 10): ("train", "0a"), ("b.png", 20): ("val", "")}
    assert {split: count for split, (count, _) in read.split_digests.items()} == {"train": 1, "val": 1}
    assert json.loads(read.classes_path.read_text())["classes"][0]["share"] == 0.75


def test_scores_are_read_back(tmp_path):
    scores = Run(tmp_path).scores
    scores.write_matrix(np.array([[5, 1], [0, 7]]), TWO.names)
    scores.write_per_class([{"class": "road", "truth_share": 0.5}, {"class": "sky", "truth_share": None}])
    scores.write_per_image([{"photo": "a", "iou": 0.5}, {"photo": "b", "iou": None}])
    np.testing.assert_array_equal(scores.read_matrix(2), [[5, 1], [0, 7]])
    assert scores.read_truth_shares() == {"road": 0.5, "sky": 0.0}
    ious = scores.read_image_ious()
    assert ious["a"] == 0.5 and np.isnan(ious["b"])
    with pytest.raises(ValueError, match="is not of 3 classes"):
        scores.read_matrix(3)


def test_names_like_formulas_are_read_back(tmp_path):
    write, names_there = Run(tmp_path), ["=a.png", "-b.png"]
    write.write_splits({(name, 1): SplitEntry("train", "0a") for name in names_there})
    assert [name for name, _ in Run(tmp_path).splits] == names_there
    write.scores.write_per_image([{"photo": name, "iou": 0.5} for name in names_there])
    assert write.scores.read_image_ious() == dict.fromkeys(names_there, 0.5)
    write.scores.write_per_class([{"class": "@x", "truth_share": 0.5}])
    assert write.scores.read_truth_shares() == {"@x": 0.5}
    write.scores.write_matrix(np.eye(2, dtype=int), ["=x", "y"])
    np.testing.assert_array_equal(write.scores.read_matrix(2), np.eye(2))


def test_pictures_are_read_back(tmp_path):
    ids = draw_ids(0)
    photo = np.full((*ids.shape, 3), 90, np.uint8)
    picture = Picture("a.png", {"iou": 0.5, "accuracy": 0.75, "confidence": 0.5}, {SPREAD: 1}, photo, ids, ids)
    Run(tmp_path).write_pictures([picture], cityscapes_palette())
    (read,) = Run(tmp_path).pictures
    assert read.name == "a.png" and read.ranks == {SPREAD: 1} and read.scores == picture.scores
    np.testing.assert_array_equal(read.truth, ids)


def test_a_folder_of_the_earlier_version_opens(tmp_path):
    values = {
        "data": "images", "image_size": [32, 64], "epochs": 5, "task": "binary", "parameters": 7,
        "recipe": {"steps": 9}, "augmentation": {"rotation": 3.0}, "samples": {"train": 4, "val": 2},
    }  # fmt: skip
    write_json(tmp_path / names.CONFIG, values)
    run = Run(tmp_path)
    assert run.config == RunConfig(epochs=5, image_size=(32, 64))
    assert run.facts["parameters"] == 7
    assert run.plan == {"recipe": {"steps": 9}, "augmentation": {"rotation": 3.0}}
    assert run.split_digests == {"train": (4, "unknown"), "val": (2, "unknown")}


def test_settings_of_a_later_version_do_not_keep_a_run_from_being_opened(tmp_path):
    values = RunConfig(epochs=2).to_dict()
    values["training"]["novelty"] = True
    write_json(tmp_path / names.CONFIG, values)
    assert Run(tmp_path).config.epochs == 2 and Run(tmp_path).facts == {}


def test_the_model_is_found_if_there_is_just_one(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no \*_model\.keras; give the model's file"):
        Run(tmp_path).model_path()
    (tmp_path / "unet_model.keras").touch()
    assert Run(tmp_path).model_path() == Run(tmp_path).model_path("unet") == tmp_path / "unet_model.keras"
    (tmp_path / "r2unet_model.keras").touch()
    with pytest.raises(RunFolderError, match=r"holds r2unet_model\.keras, unet_model\.keras; give"):
        Run(tmp_path).model_path()


def test_the_archive_takes_files_of_a_run_and_leaves_others(tmp_path):
    ours = ["metrics.json", "pred_3.png", "unet_model.keras", "unet_model_ids.onnx", "export.json", "report.html"]
    theirs = ["notes.txt", "pred_final.png", "my_model.keras", "unet.onnx"]
    for name in (*ours, *theirs):
        (tmp_path / name).write_text(name)
    for folder in (names.PICTURES, names.EVENTS, names.EVALUATION):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text("x")
    run = Run(tmp_path)
    assert run.written(["unet"]) == sorted([*ours, names.PICTURES, names.EVENTS, names.EVALUATION])
    archived = run.archive(["unet"])
    assert sorted(path.name for path in archived.iterdir() if path.is_file()) == sorted(ours)
    assert (archived / names.EVALUATION / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(theirs)
    assert run.archive(["unet"]) is None


def test_classes_that_cannot_be_read_name_their_file(tmp_path):
    path = tmp_path / "classes.json"
    with pytest.raises(SemsegError, match=r"`classes`: got '.*classes\.json'; expected a number, or a classes\.json"):
        read_classes(path)
    path.write_text("{")
    with pytest.raises(SemsegError, match=r"classes\.json: cannot be read"):
        read_classes(path)
    path.write_text('{"classes": 7}')
    with pytest.raises(SemsegError, match=r"classes\.json: classes: "):
        read_classes(path)
