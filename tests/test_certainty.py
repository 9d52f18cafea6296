"""`predict --certainty`, `--threshold` and `--unsure`, with networks whose probabilities are known."""

import csv

import cv2
import keras
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from semseg.cli import commands
from semseg.images import opening
from semseg.inference.answers import Answers
from semseg.inference.files import Job, predict_files, write_masks
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.runs.run import Run

pytestmark = [pytest.mark.plain, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

SIZE = 16


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, float)))


def logits_of(red):
    return red / 32.0 - 4


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Networks of one and of three logits, whose first is `logits_of` of the photo's red."""
    found = {}
    for logits in (1, 3):
        folder = tmp_path_factory.mktemp("run")
        inputs = keras.Input((SIZE, SIZE, 3))
        last = keras.layers.Conv2D(logits, 1)
        model = keras.Model(inputs, last(keras.layers.Rescaling(1 / 32)(inputs)))
        weights = np.zeros((1, 1, 3, logits))
        weights[0, 0, 0, 0] = 1
        last.set_weights([weights, np.array([-4.0, 0, 0][:logits])])
        model.save(folder / "unet_model.keras")
        Run(folder).write_classes(Palette.numbered(max(2, logits)))
        found[logits] = folder
    return found


def ramp(height=SIZE, width=SIZE):
    red = np.linspace(0, 255, width).round().astype(np.uint8)[None].repeat(height, axis=0)
    return np.stack([red, red, red], axis=-1)


def predict(model, what, output, *flags):
    return commands(["predict", str(model), str(what), "--output", str(output), *map(str, flags)])


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def certainty_of(red, threshold=0.5):
    probability = sigmoid(logits_of(red))
    return np.where(probability > threshold, probability, 1 - probability)


def test_a_picture_of_the_certainty_and_a_threshold(models, tmp_path):
    photo = ramp()
    Image.fromarray(photo).save(tmp_path / "a.png")
    for threshold in (0.5, 0.2):
        output = tmp_path / str(threshold)
        assert predict(models[1], tmp_path / "a.png", output, "--certainty", "--threshold", threshold) == 0
        np.testing.assert_array_equal(read(output / "masks" / "a.png"), sigmoid(logits_of(photo[..., 0])) > threshold)
        with Image.open(output / "certainty" / "a.png") as picture:
            assert picture.mode == "L"
            expected = 255 * certainty_of(photo[..., 0], threshold)
            np.testing.assert_allclose(np.asarray(picture), expected, atol=0.51)


def test_pixels_that_it_is_unsure_of_get_no_class_and_their_share_is_told(models, tmp_path, capsys):
    photo = ramp()
    for name, height in (("a.png", 16), ("b.png", 48)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo if height == 16 else np.zeros((48, 16, 3), np.uint8)).save(tmp_path / "photos" / name)
    flags = ("--unsure", 0.9, "--colors", "--values", "--certainty")
    assert predict(models[1], tmp_path / "photos", tmp_path / "out", *flags) == 0
    unsure = certainty_of(photo[..., 0]) < 0.9
    mask = read(tmp_path / "out" / "masks" / "a.png")
    np.testing.assert_array_equal(mask, np.where(unsure, 255, photo[..., 0] > 128))
    assert not read(tmp_path / "out" / "colors" / "a.png")[unsure].any()
    assert (read(tmp_path / "out" / "values" / "a.png")[unsure] == 255).all()
    np.testing.assert_allclose(
        read(tmp_path / "out" / "certainty" / "a.png"), 255 * certainty_of(photo[..., 0]), atol=1
    )
    first, second = rows_of(tmp_path / "out" / "shares.csv")
    assert float(first["unsure"]) == pytest.approx(unsure.mean(), abs=1e-6) and second["unsure"] == "0.000000"
    assert list(first)[4] == "unsure" and sum(map(float, list(first.values())[4:])) == pytest.approx(1, abs=1e-5)
    text = " ".join(capsys.readouterr().out.split())
    assert f"unsure {unsure.mean() / 4:.1%} of the pixels have no class in masks (255)" in text
    assert predict(models[1], tmp_path / "photos", tmp_path / "out", *flags) == 0
    assert "2 of them are done" in capsys.readouterr().out
    assert predict(models[1], tmp_path / "photos", tmp_path / "out", "--unsure", 0.8) == 4


def test_a_photo_that_it_is_unsure_of_everywhere(models, tmp_path):
    Image.fromarray(np.full((SIZE, SIZE, 3), 128, np.uint8)).save(tmp_path / "a.png")
    assert predict(models[1], tmp_path / "a.png", tmp_path / "out", "--unsure", 0.9) == 0
    (row,) = rows_of(tmp_path / "out" / "shares.csv")
    assert row["unsure"] == "1.000000" and (read(tmp_path / "out" / "masks" / "a.png") == 255).all()
    assert (tmp_path / "out" / "overlays" / "a.jpg").stat().st_size


def test_objects_leave_out_what_it_is_unsure_of(tmp_path):
    logits = np.full((8, 8, 1), 3.0, np.float32)
    logits[:, 3:5] = 0.1
    files = {"masks": tmp_path / "m.png", "objects": tmp_path / "o.csv"}
    answers = Answers(("background", "cell"), (1,), table=True)
    written = write_masks([logits], (8, 8), files, Palette.numbered(2), unsure=0.7, answers=answers)
    assert written.unsure == 16 and written.counts.tolist() == [0, 48]
    assert [row["area"] for row in rows_of(tmp_path / "o.csv")] == ["24", "24"]


def test_tiles_of_a_raster_give_geotiff_at_its_place_and_0_without_data(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_MAX_PIXELS", 1000)
    photo, place = ramp(40, 64), Affine(0.5, 0, 399000, 0, -0.5, 5820000)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=40, width=64, count=3, dtype="uint8", crs="EPSG:32633",
        transform=place, tiled=True, blockxsize=16, blockysize=16,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(photo, 2, 0))
    segmenter = Segmenter(lambda photos: logits_of(photos[..., :1].astype(float)), (32, 32), Palette.numbered(2))
    files = {kind: tmp_path / f"{kind}.tif" for kind in ("masks", "certainty")}
    job = Job(tmp_path / "a.tif", files)
    [(_, result)] = predict_files(segmenter, [job], tile=(32, 32), unsure=0.8)
    assert result.tile == (32, 32)
    with rasterio.open(files["certainty"]) as found, rasterio.open(files["masks"]) as mask:
        assert found.transform == mask.transform == place and found.crs == "EPSG:32633" and found.nodata == 0
        expected = certainty_of(photo[..., 0])
        np.testing.assert_allclose(found.read(1), 255 * expected, atol=1)
        np.testing.assert_array_equal(mask.read(1) == 255, expected < 0.8)
        assert result.unsure == (expected < 0.8).sum()
    absent = np.zeros((4, 4), bool)
    absent[0] = True
    write_masks(
        [np.full((4, 4, 1), 0.1)], (4, 4), {"certainty": tmp_path / "c.png"}, Palette.numbered(2), unsure=0.9,
        without_data=absent,
    )  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "c.png"), np.where(absent, 0, np.rint(255 * sigmoid(0.1))))


def test_frames_of_a_video_get_the_same(models, tmp_path, capsys):
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), 128, np.uint8))
    writer.release()
    assert predict(models[1], tmp_path / "v.mp4", tmp_path / "out", "--certainty", "--unsure", 0.9) == 0
    assert [row["unsure"] for row in rows_of(tmp_path / "out" / "shares.csv")] == ["1.000000"] * 3
    np.testing.assert_allclose(read(tmp_path / "out" / "certainty" / "v" / "000002.png"), 128, atol=10)
    assert "unsure 100.0% of the pixels" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("logits", "flags", "part"),
    [
        (1, ("--threshold", "1"), "--threshold: got 1.0; expected a probability between 0 and 1"),
        (1, ("--unsure", "90"), "--unsure: got 90.0; expected a probability"),
        (3, ("--threshold", "0.4"), "--threshold: is for two classes, and"),
    ],
)
def test_flags_that_make_no_sense(models, tmp_path, capsys, logits, flags, part):
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    assert predict(models[logits], tmp_path / "a.png", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_file_that_gives_ids_knows_no_certainty(models, tmp_path, capsys):
    target = tmp_path / "x.keras"
    assert commands(["export", str(models[1]), "--format", "keras", "--gives", "ids", "--output", str(target)]) == 0
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    for flags in (("--certainty",), ("--unsure", 0.8), ("--threshold", 0.4)):
        assert predict(target, tmp_path / "a.png", tmp_path / "out", *flags) == 2
        assert "gives classes, and not how sure it is; export it with logits" in capsys.readouterr().err
