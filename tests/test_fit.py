"""Photos that are there twice, and masks that are off their photo: planted in drawn scenes and in real data."""

import io
import json
import time

import cv2
import numpy as np
import pytest
from helpers import draw_pair
from PIL import Image

from semseg import IGNORE
from semseg.data.base import spread
from semseg.data.demo import draw_scene
from semseg.data.fit import TURNS, better_turn, duplicates, fingerprint, judge_misfits, misfit, turned_duplicates
from semseg.images.reading import load_images
from semseg.labels.palettes import cityscapes_palette
from semseg.labels.quantising import bin_image

pytestmark = pytest.mark.plain

SETS = ("cityscapes_pairs", "camvid", "carvana", "nuclei")


@pytest.fixture(scope="module")
def scenes():
    """24 street scenes: photos and class ids."""
    drawn = [draw_scene(seed) for seed in range(24)]
    return [(photo, bin_image(mask, cityscapes_palette())) for photo, mask in drawn]


@pytest.fixture(scope="module", params=SETS)
def real(request, real_data):
    """Some 40 real samples of one set: photos and class ids."""
    return read_samples(real_data, request.param)


def read_samples(root, name):
    folder = root / name
    if name == "cityscapes_pairs":
        pairs = [load_images(path) for path in spread(sorted((folder / "val").iterdir()), 40)]
        return [(photo, bin_image(mask, cityscapes_palette())) for photo, mask in pairs]
    photos, masks, ending = {
        "camvid": (folder / "val" / "images", folder / "val" / "masks", ".png"),
        "carvana": (folder / "train", folder / "train_masks", "_mask.gif"),
        "nuclei": (folder / "images", folder / "masks", ".png"),
    }[name]
    files = spread(sorted(photos.iterdir()), 24 if name == "carvana" else 40)
    return [(read(path), read_ids(masks / f"{path.stem}{ending}", name)) for path in files]


def read(path):
    with Image.open(path) as image:
        image.draft("RGB", (640, 640))  # decodes a large JPEG at half its size
        return np.asarray(image.convert("RGB"))


def read_ids(path, name):
    with Image.open(path) as image:
        ids = np.asarray(image if name == "camvid" else image.convert("L"))
    return np.where(ids == 11, IGNORE, ids).astype(np.uint8) if name == "camvid" else (ids > 127).astype(np.uint8)


def reencode(photo, quality, scale=1.0):
    image = Image.fromarray(photo)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def prints(photos):
    return np.stack([fingerprint(photo) for photo in photos])


def shift(mask, right, down):
    """Moves a mask by shares of its size; what is left behind repeats the margin."""
    height, width = mask.shape
    matrix = np.float32([[1, 0, round(right * width)], [0, 1, round(down * height)]])
    return cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


FAULTS = {name: (lambda mask, axes=axes: np.flip(mask, axes)) for name, axes in TURNS.items()} | {
    "shift": lambda mask: shift(mask, 0.1, 0)
}


class TestDuplicates:
    def test_a_fingerprint_has_one_size_for_all_photos(self):
        for height, width in ((1, 1), (1, 300), (300, 1), (7, 11), (19, 640), (256, 256)):
            found = fingerprint(np.full((height, width, 3), 200, np.uint8))
            assert found.shape == (401,) and found.dtype == np.float32
            assert np.allclose(found[:-1], 72) and found[-1] == 0

    @pytest.mark.parametrize("quality", [40, 60, 95])
    @pytest.mark.parametrize("scale", [0.5, 0.75, 1.0])
    def test_every_copy_is_found_and_nothing_else(self, scenes, quality, scale):
        photos = [photo for photo, _ in scenes]
        copies = [reencode(photo, quality, scale) for photo in photos[::2]]
        assert duplicates(prints(photos), prints(copies)) == [(2 * i, i) for i in range(len(copies))]
        assert duplicates(prints(photos[1::2]), prints(copies)) == []

    def test_small_noise_pictures_are_told_apart(self):
        rng = np.random.default_rng(0)
        photos = rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
        assert duplicates(prints(photos[:20]), prints(photos[20:])) == []
        assert duplicates(prints(photos), prints(photos[7:9])) == [(7, 0), (8, 1)]

    def test_blank_photos_equal_only_the_same_blank(self):
        black, dark = np.zeros((64, 64, 3), np.uint8), np.full((32, 32, 3), 3, np.uint8)
        nearly = [black.copy() for _ in range(2)]
        nearly[0][10:14, 10:14] = 20
        nearly[1][40:44, 50:54] = 20
        assert duplicates(prints([black]), prints([np.zeros((9, 5, 3), np.uint8), dark])) == [(0, 0)]
        assert duplicates(prints([black, nearly[0]]), prints([nearly[1]])) == []
        assert duplicates(prints([nearly[1]]), prints([black])) == []
        assert duplicates(prints([black, nearly[0]]), prints([nearly[0]])) == [(1, 0)]

    @pytest.mark.parametrize("level", [1, 77, 255])
    def test_blanks_of_one_level_are_copies_at_any_size(self, level):
        blanks = prints([np.full((height, width, 3), level, np.uint8) for height, width in ((640, 481), (33, 7))])
        assert duplicates(blanks[:1], blanks[1:]) == [(0, 0)]

    def test_the_closest_is_named(self, scenes):
        photo = scenes[0][0]
        assert duplicates(prints([reencode(photo, 60), photo]), prints([photo])) == [(1, 0)]

    def test_nothing_to_compare(self):
        none, one = np.zeros((0, 401), np.float32), fingerprint(np.zeros((2, 2, 3), np.uint8))[None]
        assert duplicates(none, one) == duplicates(one, none) == duplicates(none, none) == []

    def test_many_are_compared_in_seconds(self):
        rng = np.random.default_rng(0)
        first = rng.normal(0, 50, (20_000, 401)).astype(np.float32)
        second = rng.normal(0, 50, (1_000, 401)).astype(np.float32)
        first[:, -1] = second[:, -1] = 2
        second[::100] = first[::2000]
        start = time.perf_counter()
        assert duplicates(first, second) == [(2000 * i, 100 * i) for i in range(10)]
        assert time.perf_counter() - start < 10

    def test_real_copies_are_found_and_no_two_real_photos_are_copies(self, real):
        photos = [photo for photo, _ in real]
        found = prints(photos)
        for one in range(1, len(found)):
            assert duplicates(found[:one], found[one : one + 1]) == []
            assert turned_duplicates(found[:one], found[one : one + 1]) == []
        for quality, scale in ((40, 0.5), (60, 0.75), (95, 1.0)):
            copies = prints([reencode(photo, quality, scale) for photo in photos])
            assert duplicates(found, copies) == [(i, i) for i in range(len(copies))]

    @pytest.mark.parametrize("quarters", range(4))
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_turned_and_mirrored_copies_are_told_from_plain_ones(self, scenes, quarters, mirrored):
        photos = [photo for photo, _ in scenes]
        copies = [np.rot90(reencode(photo, 60)[:, :: -1 if mirrored else 1], quarters) for photo in photos[::2]]
        expected = [(2 * i, i) for i in range(len(copies))]
        assert turned_duplicates(prints(photos), prints(copies)) == (expected if quarters or mirrored else [])
        assert turned_duplicates(prints(photos[1::2]), prints(copies)) == []

    def test_symmetric_pictures_prove_nothing(self):
        y, x = np.mgrid[-1:1:64j, -1:1:64j]
        disc = np.repeat((np.uint8(x**2 + y**2 < 0.5) * 200)[..., None], 3, axis=2)
        noisy = (disc + np.random.default_rng(0).integers(0, 9, disc.shape)).astype(np.uint8)
        assert turned_duplicates(prints([disc]), prints([noisy[:, ::-1]])) == []
        none = np.zeros((0, 401), np.float32)
        assert turned_duplicates(none, prints([disc])) == turned_duplicates(prints([disc]), none) == []

    @pytest.mark.parametrize(("name", "inside"), [("cityscapes_pairs", ""), ("camvid", "images")])
    def test_no_real_photo_is_in_train_and_val(self, real_data, name, inside):
        halves = []
        for split in ("train", "val"):
            photos = (read(path) for path in spread(sorted((real_data / name / split / inside).iterdir()), 100))
            halves.append(prints([p[:, : p.shape[1] // 2] if name == "cityscapes_pairs" else p for p in photos]))
        assert duplicates(*halves) == turned_duplicates(*halves) == []


class TestMisfits:
    def test_scenes_as_they_are_raise_no_alarm(self, scenes):
        evidence = [misfit(*scene) for scene in scenes]
        assert judge_misfits(evidence) == {"all": None, "files": []}
        assert json.loads(json.dumps(evidence)) == evidence

    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_set_that_is_off_as_a_whole_is_found(self, scenes, fault):
        found = judge_misfits([misfit(photo, FAULTS[fault](mask)) for photo, mask in scenes[:12]])
        assert found["all"]["fault"] == fault
        assert [file["fault"] for file in found["files"]] == [fault] * 12

    @pytest.mark.parametrize("fault", FAULTS)
    def test_single_masks_that_are_off_are_named(self, scenes, fault):
        evidence = [misfit(p, FAULTS[fault](mask) if i % 3 == 1 else mask) for i, (p, mask) in enumerate(scenes)]
        found = judge_misfits(evidence)
        assert found["all"] is None
        assert [(file["index"], file["fault"]) for file in found["files"]] == [(i, fault) for i in range(1, 24, 3)]

    @pytest.mark.parametrize(("right", "down"), [(0.05, 0), (-0.1, 0), (0, 0.05), (0.08, -0.06)])
    def test_a_shift_is_measured(self, scenes, right, down):
        found = judge_misfits([misfit(photo, shift(mask, right, down)) for photo, mask in scenes[:10]])["all"]
        assert found["fault"] == "shift"
        assert (found["right"], found["down"]) == pytest.approx((-right, -down), abs=0.012)

    def test_drawn_rectangles_are_enough(self):
        photo, ids = np.full((90, 120, 3), 90, np.uint8), np.zeros((90, 120), np.uint8)
        for left, top, side in ((10, 8, 30), (70, 15, 20), (20, 60, 14)):
            photo[top : top + side, left : left + side] = 200
            ids[top : top + side, left : left + side] = 1
        for fault, plant in FAULTS.items():
            assert judge_misfits([misfit(photo, plant(ids))])["files"][0]["fault"] == fault
        assert judge_misfits([misfit(photo, ids)])["files"] == []

    @pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (5, 9), (2000, 30)])
    def test_what_cannot_tell_is_no_fault(self, size):
        rng = np.random.default_rng(0)
        photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for mask in (np.zeros(size, np.uint8), np.full(size, IGNORE, np.uint8), np.full(size, 254, np.uint8)):
            gains = misfit(photo, mask)
            assert all(gains[name] == 0 for name in (*TURNS, "shift"))
        assert judge_misfits([gains] * 20) == {"all": None, "files": []} == judge_misfits([])
        assert all(np.isfinite(list(misfit(photo, rng.integers(0, 2, size, dtype=np.uint8)).values())))

    def test_blank_photos_and_symmetric_masks_are_no_fault(self):
        ids = np.zeros((64, 64), np.uint8)
        ids[16:48, 16:48] = 1
        blank = np.full((64, 64, 3), 40, np.uint8)
        assert judge_misfits([misfit(blank, np.triu(np.ones_like(ids)))] * 9) == {"all": None, "files": []}
        assert judge_misfits([misfit(np.dstack([ids * 100] * 3), ids)] * 9) == {"all": None, "files": []}

    def test_masks_without_evidence_do_not_outvote_the_others(self, scenes):
        empty = misfit(scenes[0][0], np.zeros((256, 256), np.uint8))
        turned = [misfit(photo, mask[::-1]) for photo, mask in scenes[:8]]
        assert judge_misfits(turned + 30 * [empty])["all"] == {"fault": "upside down"}

    def test_real_masks_as_they_are_raise_no_alarm(self, real):
        assert judge_misfits([misfit(*sample) for sample in real]) == {"all": None, "files": []}

    @pytest.mark.parametrize("fault", FAULTS)
    def test_planted_faults_are_found_in_real_masks(self, real, fault):
        found = judge_misfits([misfit(photo, FAULTS[fault](mask)) for photo, mask in real])
        assert found["all"]["fault"] == fault
        assert np.mean([file["fault"] == fault for file in found["files"]]) > 0.9
        assert len(found["files"]) > 0.8 * len(real)


class TestBetterTurn:
    def test_the_fitting_turn_is_chosen(self, scenes):
        for photo, ids in scenes[:8]:
            turns = [np.rot90(ids, k) for k in (2, 0, 1, 3)]
            assert better_turn(photo, turns) == 1
            assert better_turn(photo, turns[1:]) == 0
            assert better_turn(np.rot90(photo), turns) == 2

    def test_the_first_stays_where_nothing_tells(self):
        photo, mask = draw_pair(0)[0], np.zeros((32, 32), np.uint8)
        assert better_turn(photo, [mask, mask[::-1]]) == 0
        assert better_turn(np.zeros_like(photo), [mask, mask]) == 0

    def test_real_masks_stored_by_half_a_turn(self, real):
        right = [better_turn(photo, [mask[::-1, ::-1], mask]) for photo, mask in real]
        wrong = [better_turn(photo, [mask, mask[::-1, ::-1]]) for photo, mask in real]
        assert np.mean(right) > 0.95 and sum(wrong) == 0
