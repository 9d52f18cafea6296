"""Corrected masks: a folder of their own, read in place of the data's masks, and never in silence where they misfit."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers import draw_numbers, make_folder, make_pairs
from PIL import Image

from semseg.cli import commands
from semseg.data.corrections import Corrections
from semseg.data.opening import open_data
from semseg.errors import DataError, SemsegError
from semseg.labels.palettes import Palette
from semseg.runs.config import RunConfig

pytestmark = pytest.mark.plain

SIZE = 32
IDS = np.full((SIZE, SIZE), 2, np.uint8)
IDS[:4] = 255


@pytest.fixture()
def data(tmp_path):
    """Six photos, of which one has no mask."""
    folder = make_folder(tmp_path / "data", 6)
    (folder / "masks" / "3.png").unlink()
    return folder


def opened(data, corrections=None):
    return open_data(RunConfig(data=str(data), cache="none", corrections=corrections and str(corrections)))


def start(data, **options):
    return Corrections.start(data.with_name("mended"), data, options.get("palette") or opened(data).palette)


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


def test_a_mask_is_read_as_it_was_saved_and_the_data_stay_as_they_were(data):
    before, palette = digests(data), opened(data).palette
    corrections = start(data)
    corrections.save("images/1.jpg", IDS, palette)
    dataset = opened(data, corrections.folder)
    (sample,) = (sample for sample in dataset.samples if sample.photo.name == "1.jpg")
    np.testing.assert_array_equal(dataset.load(sample)[1], IDS)
    assert sample.files == (sample.photo, corrections.path("images/1.jpg")) and digests(data) == before
    with Image.open(corrections.path("images/1.jpg")) as image:
        assert image.mode == "P" and image.size == (SIZE, SIZE)
        np.testing.assert_array_equal(image, IDS)
        assert image.getpalette()[6:9] == list(palette.colors[2])


def test_photos_without_a_mask_are_trained_on(data):
    corrections = start(data)
    plain = opened(data)
    assert plain.problems == [f"{data / 'images' / '3.jpg'}: has no mask"]
    corrections.save("images/3.jpg", IDS, plain.palette)
    corrections.save("images/0.jpg", IDS, plain.palette)
    dataset = opened(data, corrections.folder)
    assert dataset.problems == [] and "3.jpg" in [sample.photo.name for sample in dataset.splits["train"]]
    assert [sample.photo.name for sample in dataset.splits["val"]] == [s.photo.name for s in plain.splits["val"]]
    assert "take the place of 1 (" in dataset.notes[-1] and "1 photos that had none" in dataset.notes[-1]


def test_photos_of_another_folder_are_added_and_those_beyond_a_limit_are_not(data, tmp_path):
    other = make_folder(tmp_path / "other", 2, first=50)
    palette = opened(data).palette
    new = Corrections.start(tmp_path / "new", other, palette)
    new.save("images/1.jpg", IDS, palette)
    train = opened(data, new.folder).splits["train"]
    assert train[-1].photo.resolve() == other / "images" / "1.jpg" and train[-1].mask == new.path("images/1.jpg")
    corrections = start(data)
    for i in (0, 1, 2, 4, 5):
        corrections.save(f"images/{i}.jpg", IDS, palette)
    few = open_data(RunConfig(data=str(data), cache="none", limit=2, corrections=str(corrections.folder)))
    assert len(few.samples) == 3 and all(sample.correction for sample in few.samples)
    assert few.notes[-1].endswith("; 2 of photos that are not used are left out")


def test_a_pair_in_one_picture_keeps_its_photo(tmp_path):
    data = make_pairs(tmp_path / "data", train=3, val=2)
    plain = opened(data)
    corrections = start(data)
    corrections.save("train/2.png", np.zeros((SIZE, SIZE), np.uint8), plain.palette)
    dataset = opened(data, corrections.folder)
    for before, after in zip(plain.samples, dataset.samples, strict=True):
        (photo, ids), (same_photo, new_ids) = plain.load(before), dataset.load(after)
        np.testing.assert_array_equal(photo, same_photo)
        assert (new_ids == 0).all() if after.correction else (new_ids == ids).all()


def test_the_folders_may_move_together(data, tmp_path):
    start(data).save("images/1.jpg", IDS, opened(data).palette)
    (tmp_path / "elsewhere").mkdir()
    for name in ("data", "mended"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    there = tmp_path / "elsewhere"
    assert sum(bool(sample.correction) for sample in opened(there / "data", there / "mended").samples) == 1


def test_versions_change_with_the_mask(data):
    corrections, palette = start(data), opened(data).palette
    versions = [corrections.version("images/1.jpg")]
    for ids in (IDS, IDS[::-1], IDS):
        corrections.save("images/1.jpg", ids, palette)
        versions.append(corrections.version("images/1.jpg"))
    assert versions[0] is None and versions[1] == versions[3] != versions[2]
    assert corrections.names() == ["images/1.jpg"]


class TestBadInput:
    def test_another_size_is_told_by_the_check(self, data, capsys, tmp_path):
        start(data).save("images/1.jpg", np.zeros((5, 7), np.uint8), opened(data).palette)
        arguments = ["check", str(data), "--corrections", str(tmp_path / "mended"), "--output", str(tmp_path / "out")]
        assert commands(arguments) == DataError.exit_code
        said = " ".join(capsys.readouterr().out.split())
        assert "1.jpg: is 32x32 pixels, its mask" in said and "7x5; both must be of one size" in said

    def test_ids_that_are_no_class(self, data):
        corrections = start(data)
        corrections.save("images/1.jpg", np.full((SIZE, SIZE), 9, np.uint8), opened(data).palette)
        dataset = opened(data, corrections.folder)
        (sample,) = (sample for sample in dataset.samples if sample.correction)
        with pytest.raises(DataError, match=r"images/1.jpg.png: holds 9 at 1024 pixels; expected the ids .* 0 to 3"):
            dataset.load(sample)

    def test_other_classes(self, data):
        corrections = start(data, palette=Palette.numbered(4))
        corrections.save("images/1.jpg", IDS, Palette.numbered(4))
        with pytest.raises(SemsegError, match=r"the classes class 0, .* hold class_0, .* must be the same"):
            opened(data, corrections.folder)

    def test_photos_that_are_gone(self, data):
        corrections = start(data)
        corrections.save("images/77.jpg", IDS, opened(data).palette)
        with pytest.raises(SemsegError, match=r"is of images/77.jpg, which is not in .* any more"):
            opened(data, corrections.folder)

    def test_folders_that_are_no_corrections(self, data, tmp_path):
        with pytest.raises(SemsegError, match=r"`corrections`: .*nowhere holds no corrections.json"):
            opened(data, tmp_path / "nowhere")
        corrections = start(data)
        (corrections.folder / "corrections.json").write_text(json.dumps({"format": 99}))
        with pytest.raises(SemsegError, match="is of form 99"):
            opened(data, corrections.folder)
        (corrections.folder / "corrections.json").write_text("[]")
        with pytest.raises(SemsegError, match="cannot be read"):
            opened(data, corrections.folder)

    def test_a_folder_of_something_else_is_left_alone(self, data):
        with pytest.raises(SemsegError, match="holds other files"):
            Corrections.start(data, data, Palette.numbered(2))
        start(data)
        with pytest.raises(SemsegError, match="holds those of the photos in"):
            Corrections.start(data.with_name("mended"), data / "images", opened(data).palette)


def test_masks_among_the_data_are_not_taken_for_data(data):
    inside = Corrections.start(data / "mended", data, opened(data).palette)
    inside.save("images/1.jpg", draw_numbers(1), opened(data).palette)
    dataset = opened(data)
    assert len(dataset.samples) == 5 and any("holds results of semseg" in note for note in dataset.notes)
