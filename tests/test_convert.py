"""Masks to the forms of annotation tools and back: pixel by pixel the same."""

import json

import cv2
import numpy as np
import pytest
from helpers import draw_pair, make_folder
from PIL import Image

from semseg import cli
from semseg.data import open_dataset
from semseg.data.convert import FORMS, convert, of_dataset, of_predictions
from semseg.errors import DataError, RunFolderError, SemsegError

pytestmark = pytest.mark.plain

COUNT = 5


def draw_ids(seed, size=(37, 41)):
    """Blobs with holes and with pixels that touch at corners: ids 0 to 2, and 255."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (5, 5), 1.2)
    ids = np.digitize(smooth, (0.1, 0.35)).astype(np.uint8)
    ids[-3:] = 255
    return ids


@pytest.fixture
def made(tmp_path):
    for i in range(COUNT):
        for folder, pixels in (("images", draw_pair(i, 41)[0][:37]), ("masks", draw_ids(i))):
            path = tmp_path / "data" / folder / ("train" if i < 3 else "val") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "data" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, car\n2, sign\n")
    return open_dataset(tmp_path / "data")


@pytest.mark.parametrize("form", FORMS)
def test_a_round_trip_changes_no_pixel(made, tmp_path, form):
    seen = []
    notes = convert(of_dataset(made), made.palette, form, tmp_path / "out", on_progress=lambda *step: seen.append(step))
    back = open_dataset(tmp_path / "out")
    assert back.palette.names == ("background", "car", "sign") and not back.problems
    assert {split: len(samples) for split, samples in back.splits.items()} == {"train": 3, "val": 2}
    for old, new in zip(made.samples, back.samples, strict=True):
        (photo, ids), (other_photo, other_ids) = made.load(old), back.load(new)
        np.testing.assert_array_equal(photo, other_photo)
        np.testing.assert_array_equal(np.where(ids == 255, 0, ids) if form == "yolo" else ids, other_ids)
    assert seen == [(i + 1, COUNT) for i in range(COUNT)]
    ignored = f"{COUNT * 3 * 41} pixels that count nowhere become background: YOLO has nothing for them"
    assert notes == ([ignored] if form == "yolo" else [])


def test_masks_without_a_background_are_drawn_in_full(tmp_path):
    dataset = open_dataset(make_folder(tmp_path / "data", count=4), whole=True)
    convert(of_dataset(dataset), dataset.palette, "coco", tmp_path / "out")
    back = open_dataset(tmp_path / "out", whole=True)
    assert back.palette.names == dataset.palette.names
    np.testing.assert_array_equal(back.load(back.samples[0])[1], dataset.load(dataset.samples[0])[1])


def test_photos_of_one_name_in_two_folders_keep_both(tmp_path):
    for i, site in enumerate(("a", "b", "c")):
        for folder, pixels in (("images", draw_pair(i)[0]), ("masks", draw_ids(i, (32, 32)))):
            (tmp_path / "data" / site / folder).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / "data" / site / folder / "1.png")
    dataset = open_dataset(tmp_path / "data", whole=True)
    convert(of_dataset(dataset), dataset.palette, "masks", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "masks" / "train").iterdir())
    assert names == ["a_images_1_png.png", "b_images_1_png.png", "c_images_1_png.png"]


def test_a_folder_that_is_there_is_not_touched(made, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunFolderError, match=r"out: is there already; choose another `output`"):
        convert(of_dataset(made), made.palette, "coco", tmp_path / "out")
    with pytest.raises(SemsegError, match=r"`to`: got 'vott'; expected one of coco, yolo, labelme, masks"):
        convert(of_dataset(made), made.palette, "vott", tmp_path / "new")


def test_all_is_written_or_nothing(made, tmp_path):
    made.samples[4].mask.write_bytes(b"")
    with pytest.raises(DataError, match=r"4\.png"):
        convert(of_dataset(made), made.palette, "coco", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    notes = convert(of_dataset(made), made.palette, "coco", tmp_path / "out", skip_bad=True)
    assert notes[0].startswith("1 files are left out: ") and len(open_dataset(tmp_path / "out").samples) == 4


def write_predictions(folder, photos):
    (folder / "masks").mkdir(parents=True)
    for i, path in enumerate(sorted(photos.iterdir())):
        Image.fromarray(np.where(draw_ids(i) == 255, 0, draw_ids(i))).save(folder / "masks" / f"{path.stem}.png")
    classes = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(("background", "car", "sign"))]
    (folder / "predictions.json").write_text(json.dumps({"classes": classes, "what": str(photos)}))


def test_predictions_become_outlines(made, tmp_path):
    photos = tmp_path / "data" / "images" / "train"
    write_predictions(tmp_path / "predictions", photos)
    arguments = ["convert", str(tmp_path / "predictions"), "--to", "labelme", "--output", str(tmp_path / "out")]
    assert cli.commands(arguments) == 0
    back = open_dataset(tmp_path / "out", whole=True)
    np.testing.assert_array_equal(back.load(back.samples[1])[1], np.where(draw_ids(1) == 255, 0, draw_ids(1)))
    assert of_predictions(tmp_path) is None
    (photos / "1.png").unlink()
    with pytest.raises(DataError, match=r"masks/1\.png: its photo is not in .*train; put it back, or predict anew"):
        of_predictions(tmp_path / "predictions")


def test_the_command_converts_a_data_set(made, tmp_path, capsys):
    arguments = ["convert", str(tmp_path / "data"), "--to", "coco", "--output", str(tmp_path / "out")]
    assert cli.commands(arguments) == 0
    assert f"5 photos with coco labels to {tmp_path / 'out'}/" in capsys.readouterr().out
    assert cli.commands(arguments) == RunFolderError.exit_code
