"""`python -m semseg predict`, with a network whose answer is known: the strongest of red, green and blue."""

import csv
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import time

import cv2
import keras
import numpy as np
import pytest
from PIL import Image

from semseg.cli import commands
from semseg.images import opening
from semseg.images.png_writer import PngWriter
from semseg.inference import files as predict_files
from semseg.labels.palettes import Label, Palette
from semseg.runs import stopping
from semseg.runs.lock import one_writer

COLORS = np.uint8([(200, 40, 30), (20, 210, 40), (30, 60, 220)])
VALUES = (7, 300, 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a network that sees 16x16 pixels, and its classes."""
    folder = tmp_path_factory.mktemp("run")
    network = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 16), keras.layers.Conv2D(3, 1, use_bias=False)]
    )
    network.layers[-1].set_weights([np.eye(3, dtype=np.float32)[None, None]])
    network.save(folder / "rgb_model.keras")
    labels = [Label(f"c{i}", i, tuple(map(int, COLORS[i])), VALUES[i]) for i in range(3)]
    (folder / "classes.json").write_text(json.dumps(Palette(tuple(labels), "values").to_dict()))
    return folder


def draw(height=16, width=16):
    """Ids in three stripes, and a photo of them that survives JPEG and scaling."""
    ids = (np.arange(width) * 3 // width).astype(np.uint8)[None].repeat(height, axis=0)
    return ids, COLORS[ids]


def save(path, height=16, width=16, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    ids, photo = draw(height, width)
    Image.fromarray(photo).save(path, **options)
    return ids


def predict(model, what, output, *flags):
    return commands(["predict", str(model), str(what), "--output", str(output), *map(str, flags)])


def table(output):
    with (output / "shares.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_folder_gives_masks_overlays_and_shares(model, tmp_path, capsys):
    ids = save(tmp_path / "photos" / "a.png", 30, 16)
    save(tmp_path / "photos" / "deep" / "b.png", 48, 60)
    assert predict(model, tmp_path / "photos", tmp_path / "out") == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "masks" / "a.png"), ids)
    with Image.open(tmp_path / "out" / "masks" / "deep" / "b.png") as image:
        assert image.mode == "P" and image.size == (60, 48)
        assert image.convert("RGB").getpixel((0, 0)) == tuple(COLORS[0])
    shown = read(tmp_path / "out" / "overlays" / "a.jpg")
    assert shown.shape[0] > 30 and shown.shape[1] >= 16  # with its legend below
    np.testing.assert_allclose(shown[15, 2], COLORS[0], atol=40)
    rows = table(tmp_path / "out")
    assert [row["photo"] for row in rows] == ["a.png", "deep/b.png"]
    digest = hashlib.sha256((tmp_path / "photos" / "a.png").read_bytes()).hexdigest()
    shares = {"c0": "0.375000", "c1": "0.312500", "c2": "0.312500"}
    assert rows[0] == {"photo": "a.png", "width": "16", "height": "30", "sha256": digest, **shares}
    text = " ".join(capsys.readouterr().out.split())
    pixels = np.bincount(ids.ravel()) + np.bincount(read(tmp_path / "out" / "masks" / "deep" / "b.png").ravel())
    largest = pixels.argmax()
    assert "photos per second" in text and f"shares c{largest} {pixels[largest] / pixels.sum():.1%}, c" in text


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (15, 17), (65, 64), (1280, 1918)], ids=str)
@pytest.mark.parametrize("tile", [None, (24, 40)], ids=["whole", "tiles"])
def test_a_mask_of_the_photos_own_size(model, tmp_path, size, tile):
    flags = () if tile is None else ("--tile", "24x40" if max(size) < 100 else "400x600")
    ids = save(tmp_path / "a.png", *size)
    assert predict(model, tmp_path / "a.png", tmp_path / "out", "--no-overlays", *flags) == 0
    found = read(tmp_path / "out" / "masks" / "a.png")
    assert found.shape == size and found.max() <= 2
    assert (found == ids).mean() > 0.75
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"masks", "shares.csv", "predictions.json"}


def test_a_mask_has_the_same_bytes_without_overlays(model, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)
    Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 3)).save(tmp_path / "a.jpg", quality=70)
    masks = []
    for flags in ((), ("--no-overlays",)):
        assert predict(model, tmp_path / "a.jpg", tmp_path / f"out{len(masks)}", *flags) == 0
        masks.append((tmp_path / f"out{len(masks)}" / "masks" / "a.png").read_bytes())
    assert masks[0] == masks[1]


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("flags", [(), ("--tile", "16")], ids=["whole", "tiles"])
def test_a_photo_turned_by_exif_is_predicted_upright(model, tmp_path, orientation, flags):
    exif = Image.Exif()
    exif[0x0112] = orientation
    ids = save(tmp_path / "a.jpg", 48, 96, exif=exif, quality=95)
    upright = {3: np.rot90(ids, 2), 6: np.rot90(ids, -1)}[orientation]
    assert predict(model, tmp_path / "a.jpg", tmp_path / "out", *flags) == 0
    found = read(tmp_path / "out" / "masks" / "a.png")
    assert found.shape == upright.shape and (found == upright).mean() > 0.95


def test_values_colours_and_probabilities_by_flag(model, tmp_path):
    ids = save(tmp_path / "a.png", 16, 16)
    assert predict(model, tmp_path / "a.png", tmp_path / "out", "--values", "--colors", "--probabilities") == 0
    np.testing.assert_array_equal(read(tmp_path / "out" / "values" / "a.png"), np.array(VALUES)[ids])
    np.testing.assert_array_equal(read(tmp_path / "out" / "colors" / "a.png"), COLORS[ids])
    found = np.load(tmp_path / "out" / "probabilities" / "a.npy")
    logits = COLORS[ids].astype(float) / 16
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_flips_and_scales_agree_where_the_network_does(model, tmp_path):
    ids = save(tmp_path / "a.png", 48, 48)
    flags = ("--flips", "both", "--scales", "0.5,1,1.5")
    assert predict(model, tmp_path / "a.png", tmp_path / "out", *flags) == 0
    assert (read(tmp_path / "out" / "masks" / "a.png") == ids).mean() > 0.9


def test_photos_of_one_stem_keep_their_own_files(model, tmp_path):
    save(tmp_path / "photos" / "a.jpg", 16, 20)
    save(tmp_path / "photos" / "a.png", 16, 30)
    save(tmp_path / "photos" / "b.png", 16, 40)
    assert predict(model, tmp_path / "photos", tmp_path / "out", "--no-overlays") == 0
    found = {path.name: read(path).shape[1] for path in (tmp_path / "out" / "masks").iterdir()}
    assert found == {"a.jpg.png": 20, "a.png.png": 30, "b.png": 40}


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such names")
@pytest.mark.parametrize("name", ["with space", "two\nlines", "Straße 街", os.fsdecode(b"no\xfftext"), "n" * 251])
def test_names_of_all_kinds(model, tmp_path, name):
    save(tmp_path / "photos" / "deep" / f"{name}.png")
    for _ in range(2):
        assert predict(model, tmp_path / "photos", tmp_path / "out") == 0
    assert (tmp_path / "out" / "masks" / "deep" / f"{name}.png").is_file()
    assert len(table(tmp_path / "out")) == 1


def test_names_like_formulas_are_text_in_the_table_and_go_on(model, tmp_path, capsys):
    save(tmp_path / "photos" / "=1+1.png")
    save(tmp_path / "photos" / "@a.png")
    for _ in range(2):
        assert predict(model, tmp_path / "photos", tmp_path / "out", "--no-overlays") == 0
    assert [row["photo"] for row in table(tmp_path / "out")] == ["'=1+1.png", "'@a.png"]
    assert "2 of them are done" in capsys.readouterr().out


def test_a_pattern(model, tmp_path):
    for name in ("a1.png", "a2.png", "b.png"):
        save(tmp_path / name)
    assert predict(model, tmp_path / "a*.png", tmp_path / "out", "--no-overlays") == 0
    assert [row["photo"] for row in table(tmp_path / "out")] == ["a1.png", "a2.png"]


def test_results_among_the_photos_are_no_photos(model, tmp_path, capsys):
    save(tmp_path / "a.png")
    for _ in range(2):
        assert predict(model, tmp_path, tmp_path / "out") == 0
    assert "1 of them are done" in capsys.readouterr().out
    assert len(table(tmp_path / "out")) == 1


def test_bad_files_are_named_and_skipped_and_the_end_is_3(model, tmp_path, capsys):
    for name in ("a.png", "c.png"):
        save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes()[:60])
    (tmp_path / "photos" / "d.jpg").write_text("")
    (tmp_path / "photos" / "e.png").symlink_to("e.png")
    assert predict(model, tmp_path / "photos", tmp_path / "out") == 3
    printed = capsys.readouterr()
    assert "b.png: cannot be read" in printed.out and "d.jpg: an empty file" in printed.out
    assert printed.err.startswith("error: ") and "3 of 5 photos cannot be used" in printed.err
    assert [row["photo"] for row in table(tmp_path / "out")] == ["a.png", "c.png"]


class TestGoingOn:
    @pytest.fixture()
    def photos(self, tmp_path):
        for i in range(6):
            save(tmp_path / "photos" / f"{i}.png")
        return tmp_path / "photos"

    def written(self, output):
        return {path.name: path.stat().st_mtime_ns for path in (output / "masks").iterdir()}

    def test_what_is_done_is_not_done_again(self, model, photos, tmp_path, capsys):
        output = tmp_path / "out"
        assert predict(model, photos, output) == 0
        before = self.written(output)
        (output / "masks" / "2.png").unlink()
        os.utime(photos / "3.png", (2e9, 2e9))  # its bytes are the same
        save(photos / "4.png", compress_level=1)
        os.utime(photos / "4.png", (1e9, 1e9))  # other bytes, older than its mask
        killed = output / "masks" / ".0.123.tmp.png"
        killed.touch()
        os.utime(killed, (1e9, 1e9))
        text = (output / "shares.csv").read_text()
        (output / "shares.csv").write_text(text[: text.rindex("5.png") + 9])  # a row that was not finished
        assert predict(model, photos, output) == 0
        after = self.written(output)
        assert {name for name in after if before[name] != after[name]} == {"2.png", "4.png", "5.png"}
        assert "3 of them are done" in capsys.readouterr().out
        again = (output / "shares.csv").read_text()
        digests = [hashlib.sha256((photos / f"{i}.png").read_bytes()).hexdigest() for i in range(6)]
        assert [row["sha256"] for row in table(output)] == digests
        assert again.splitlines()[:5] == text.splitlines()[:5] and again.splitlines()[6] == text.splitlines()[6]

    def test_objects_and_outlines_go_on_too(self, model, photos, tmp_path, capsys):
        flags = ("--objects", "c1", "--polygons", "coco", "--no-overlays")
        assert predict(model, photos, tmp_path / "out", *flags) == 0
        merged = [tmp_path / "out" / name for name in ("objects.csv", "counts.csv", "coco.json")]
        before = [path.read_text() for path in merged]
        assert before[1].splitlines() == ["photo,c1", *(f"{i}.png,1" for i in range(6))]
        for path in (*merged, tmp_path / "out" / "polygons" / "2.json", tmp_path / "out" / "objects" / "3.csv"):
            path.unlink()
        assert predict(model, photos, tmp_path / "out", *flags) == 0
        assert "4 of them are done" in capsys.readouterr().out
        assert [path.read_text() for path in merged] == before
        assert predict(model, photos, tmp_path / "out", "--objects", "c2", *flags[2:]) == 4

    def test_two_predictions_do_not_write_into_one_folder(self, model, photos, tmp_path, capsys):
        output = tmp_path / "out"
        output.mkdir()
        with one_writer(output):
            assert predict(model, photos, output) == 4
        error = capsys.readouterr().err
        assert f"out: process {os.getpid()} on " in error
        assert "is writing there; wait for its end, or choose another --output" in error
        assert not list(output.iterdir())
        assert predict(model, photos, output, "--no-overlays") == 0
        assert {path.name for path in output.iterdir()} == {"masks", "shares.csv", "predictions.json"}

    def test_a_photo_that_changes_while_it_is_predicted_is_skipped_and_done_the_next_time(
        self, model, photos, tmp_path, monkeypatch, capsys
    ):
        write = PngWriter.write

        def changing(self, rows):
            write(self, rows)
            save(tmp_path / "later.png", 48, 16)
            (tmp_path / "later.png").replace(photos / "2.png")  # a half-written one would be refused for that

        monkeypatch.setattr(PngWriter, "write", changing)
        assert predict(model, photos, tmp_path / "out", "--batch-size", "1", "--workers", "1") == 3
        assert "2.png: changed while it was predicted; run the same command again" in " ".join(
            capsys.readouterr().out.split()
        )
        monkeypatch.setattr(PngWriter, "write", write)
        assert predict(model, photos, tmp_path / "out") == 0
        assert read(tmp_path / "out" / "masks" / "2.png").shape == (48, 16)

    def test_other_settings_need_another_folder(self, model, photos, tmp_path, capsys):
        assert predict(model, photos, tmp_path / "out") == 0
        assert predict(model, photos, tmp_path / "out", "--flips", "both") == 4
        assert "holds predictions with another setting (flips); choose another --output" in capsys.readouterr().err

    @pytest.mark.parametrize(("error", "code"), [(OSError(errno.ENOSPC, "full"), 6), (KeyboardInterrupt(), 130)])
    def test_a_full_disk_or_ctrl_c_leaves_whole_files_and_the_rest_for_later(
        self, model, photos, tmp_path, monkeypatch, capsys, error, code
    ):
        write, calls = PngWriter.write, []

        def failing(self, rows):
            calls.append(1)
            if len(calls) > 3:
                raise error
            write(self, rows)

        monkeypatch.setattr(PngWriter, "write", failing)
        assert predict(model, photos, tmp_path / "out", "--batch-size", "1", "--workers", "1") == code
        assert capsys.readouterr().err.count("\n") == 1
        masks = list((tmp_path / "out" / "masks").iterdir())
        assert 0 < len(masks) <= 3 and all(read(path).shape == (16, 16) for path in masks)
        monkeypatch.setattr(PngWriter, "write", write)
        assert predict(model, photos, tmp_path / "out", "--batch-size", "1", "--workers", "1") == 0
        assert len(table(tmp_path / "out")) == 6

    @pytest.mark.skipif(os.name == "nt", reason="no such signals there")
    @pytest.mark.filterwarnings(  # where the signal comes between opening a file and its block, Python closes it
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    )
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
    def test_a_signal_leaves_whole_files_and_the_rest_for_later(
        self, model, photos, tmp_path, monkeypatch, capsys, number, code
    ):
        write, calls = PngWriter.write, itertools.count(1)

        def ask(self, rows):
            if next(calls) == 3:
                os.kill(os.getpid(), number)
                time.sleep(0.5)
            write(self, rows)

        monkeypatch.setattr(stopping, "PATIENCE", 60)
        with monkeypatch.context() as patch:
            patch.setattr(PngWriter, "write", ask)
            assert predict(model, photos, tmp_path / "out", "--batch-size", "1", "--workers", "1") == code
        said = capsys.readouterr()
        assert said.err == f"error: stopped by {'Ctrl-C' if code == 130 else 'SIGTERM'}\n"
        assert "the same command goes on from here" in said.out
        before = self.written(tmp_path / "out")
        assert 2 <= len(before) < 6 and len(table(tmp_path / "out")) >= 1
        assert predict(model, photos, tmp_path / "out") == 0
        assert len(table(tmp_path / "out")) == 6 and len(self.written(tmp_path / "out")) == 6


def test_a_photo_beyond_the_limit_is_seen_in_tiles_and_that_is_said(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(opening, "_MAX_PIXELS", 5000)
    monkeypatch.setattr(predict_files, "_LEAST_TILE", 32)
    monkeypatch.setattr(predict_files, "SHOWN", 50)
    ids = save(tmp_path / "photos" / "a.png", 90, 120, compress_level=0)
    save(tmp_path / "photos" / "b.png", 16, 16)
    assert predict(model, tmp_path / "photos", tmp_path / "out") == 0
    assert (read(tmp_path / "out" / "masks" / "a.png") == ids).mean() > 0.95
    assert read(tmp_path / "out" / "overlays" / "a.jpg").shape[0] > 30
    assert "a.png: 120x90 pixels, too many to be seen whole; seen in tiles of 32x32" in capsys.readouterr().out


class TestVideo:
    @pytest.fixture()
    def video(self, tmp_path):
        writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 12.5, (64, 48))
        for shift in range(9):
            writer.write(np.ascontiguousarray(np.roll(draw(48, 64)[1], shift, axis=1)[..., ::-1]))
        writer.release()
        return tmp_path / "v.mp4"

    def test_it_comes_out_with_the_same_number_of_frames_and_rate(self, model, video, tmp_path):
        assert predict(model, video, tmp_path / "out", "--batch-size", 4) == 0
        shown = cv2.VideoCapture(str(tmp_path / "out" / "overlays" / "v.mp4"))
        assert shown.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
        frames = []
        while (read_frame := shown.read())[0]:
            frames.append(read_frame[1])
        assert len(frames) == 9 and frames[0].shape == (48, 64, 3)
        np.testing.assert_allclose(frames[0][4, 10, ::-1], COLORS[0], atol=40)
        masks = sorted((tmp_path / "out" / "masks" / "v").iterdir())
        assert [path.name for path in masks] == [f"{i:06}.png" for i in range(9)]
        assert (read(masks[0]) == draw(48, 64)[0]).mean() > 0.9
        rows = table(tmp_path / "out")
        assert [row["seconds"] for row in rows[:3]] == ["0.000", "0.080", "0.160"] and len(rows) == 9

    def test_its_objects_are_told_by_frame(self, model, video, tmp_path):
        assert (
            predict(model, video, tmp_path / "out", "--objects", "all", "--polygons", "labelme", "--no-overlays") == 0
        )
        with (tmp_path / "out" / "counts.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["frame"] for row in rows] == [str(i) for i in range(9)] and rows[0]["c1"] == "1"
        assert len(list((tmp_path / "out" / "polygons" / "v").glob("*.json"))) == 9

    def test_a_file_that_is_no_video(self, model, tmp_path, capsys):
        (tmp_path / "x.mp4").write_text("x")
        assert predict(model, tmp_path / "x.mp4", tmp_path / "out") == 3
        assert "x.mp4: cannot be opened; expected a video" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestBadInput:
    @pytest.fixture()
    def fails(self, model, tmp_path, capsys):
        def check(code, *parts, what, run=model, flags=()):
            assert predict(run, what, tmp_path / "out", *flags) == code
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1, error
            for part in parts:
                assert part in error, error
            assert not (tmp_path / "out").exists()

        save(tmp_path / "a.png")
        return check

    def test_nothing_there(self, fails, tmp_path):
        (tmp_path / "empty").mkdir()
        fails(3, "empty: holds no photos", what=tmp_path / "empty")
        fails(3, "*.tif: holds no photos", what=tmp_path / "*.tif")
        fails(3, "nowhere: no such file", what=tmp_path / "nowhere")
        for number in ("93", "99999999999"):
            fails(3, f"camera {number}: cannot be opened", what=number)

    def test_no_model(self, fails, tmp_path):
        (tmp_path / "x.keras").write_text("x")
        fails(5, "x.keras: cannot be opened", what=tmp_path / "a.png", run=tmp_path / "x.keras")
        fails(4, "holds no *_model.keras", what=tmp_path / "a.png", run=tmp_path)

    @pytest.mark.parametrize(
        ("flags", "part"),
        [
            (("--flips", "up"), "--flips: got 'up'"),
            (("--scales", "x"), "--scales: got 'x'"),
            (("--scales", "90"), "--scales: got 90.0"),
            (("--tile", "0"), "--tile: got 0x0"),
            (("--batch-size", "0"), "--batch-size: got 0"),
            (("--workers", "0"), "--workers: got 0"),
            (("--objects", "car"), "--objects: 'car' is no class; expected some of c0, c1, c2, or all"),
            (("--min-area", "-1"), "--min-area: got -1; expected pixels"),
            (("--polygons", "shp"), "--polygons: got 'shp'; expected one of geojson"),
            (("--tolerance", "2"), "--tolerance: simplifies outlines"),
        ],
    )
    def test_flags_that_make_no_sense(self, fails, tmp_path, flags, part):
        fails(2, part, what=tmp_path / "a.png", flags=flags)

    def test_values_of_masks_that_held_colours(self, fails, model, tmp_path):
        (tmp_path / "run").mkdir()
        shutil.copy(model / "rgb_model.keras", tmp_path / "run")
        palette = Palette.from_colors(("x", "y", "z"), [tuple(map(int, color)) for color in COLORS])
        (tmp_path / "run" / "classes.json").write_text(json.dumps(palette.to_dict()))
        fails(
            2, "--values: the masks", "use --colors", what=tmp_path / "a.png", run=tmp_path / "run", flags=["--values"]
        )

    def test_masks_of_somebody_else(self, model, tmp_path, capsys):
        save(tmp_path / "a.png")
        save(tmp_path / "out" / "masks" / "mine.png")
        assert predict(model, tmp_path / "a.png", tmp_path / "out") == 4
        assert "holds masks that no prediction wrote" in capsys.readouterr().err
