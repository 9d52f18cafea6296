"""The pictures that an evaluation keeps."""

import numpy as np
import pytest
from PIL import Image

from semseg.errors import RunFolderError
from semseg.evaluation.album import LONGEST, Album
from semseg.labels.palettes import Palette
from semseg.runs.pictures import BEST, GROUPS, SPREAD, UNSURE, WORST, read_pictures, write_pictures

pytestmark = pytest.mark.plain

PALETTE = Palette.from_colors(("road", "car"), ((128, 64, 128), (0, 0, 142)))


def draw(shape=(8, 12), seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 255], shape).astype(np.uint8)
    return rng.integers(0, 256, (*shape, 3), np.uint8), truth, rng.integers(0, 2, shape, np.uint8)


def fill(scores, **options):
    album = Album(len(scores))
    for i, (iou, confidence) in enumerate(scores):
        album.add(f"val/{i}.png", {"iou": iou, "confidence": confidence}, *draw(seed=i, **options))
    return album.pictures


def test_the_groups_are_what_sorting_all_photos_gives():
    rng = np.random.default_rng(0)
    scores = rng.permutation(np.linspace(0, 1, 40)), rng.permutation(np.linspace(0.3, 1, 40))
    pictures = fill(list(zip(*scores, strict=True)))
    expected = {
        SPREAD: range(0, 40, 5),
        WORST: np.argsort(scores[0])[:6],
        BEST: np.argsort(-scores[0])[:6],
        UNSURE: np.argsort(scores[1])[:6],
    }
    for group, numbers in expected.items():
        found = sorted((of for of in pictures if group in of.ranks), key=lambda of: of.ranks[group])
        assert [of.name for of in found] == [f"val/{i}.png" for i in numbers], group
        assert [of.ranks[group] for of in found] == list(range(1, GROUPS[group] + 1))
    assert all(of.ranks for of in pictures)


def test_photos_without_a_score_are_neither_best_nor_worst():
    (picture,) = fill([(np.nan, np.nan)])
    assert picture.ranks == {SPREAD: 1}


def test_what_is_written_is_read_back_with_every_id(tmp_path):
    pictures = fill([(0.5, 0.75), (np.nan, 0.5)])
    write_pictures(tmp_path / "album", pictures, PALETTE)
    for before, after in zip(pictures, read_pictures(tmp_path / "album"), strict=True):
        np.testing.assert_array_equal(after.truth, before.truth)
        np.testing.assert_array_equal(after.prediction, before.prediction)
        assert after.photo.shape == before.photo.shape
        assert (after.name, after.ranks) == (before.name, before.ranks)
    assert read_pictures(tmp_path / "album")[1].scores == {"iou": None, "confidence": 0.5}
    shown = np.asarray(Image.open(tmp_path / "album" / "01-truth.png").convert("RGB"))
    np.testing.assert_array_equal(shown[pictures[0].truth == 1], [[0, 0, 142]] * (pictures[0].truth == 1).sum())


def test_large_photos_are_kept_small(tmp_path):
    (picture,) = fill([(0.5, 0.5)], shape=(700, 1400))
    assert picture.photo.shape == (256, LONGEST, 3)
    assert picture.truth.shape == picture.prediction.shape == (256, LONGEST)
    assert set(np.unique(picture.truth)) <= {0, 1, 255}


def test_a_folder_without_album_has_no_pictures_and_a_damaged_one_is_named(tmp_path):
    assert read_pictures(tmp_path) == []
    write_pictures(tmp_path, fill([(0.5, 0.5)]), PALETTE)
    (tmp_path / "01-truth.png").write_bytes(b"no picture")
    with pytest.raises(RunFolderError, match=r"its pictures cannot be read .*; remove the folder"):
        read_pictures(tmp_path)
