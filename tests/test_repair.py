import io
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from semseg.data.demo import draw_scene
from semseg.errors import SemsegError
from semseg.labels.palettes import cityscapes_palette
from semseg.labels.quantising import quantise
from semseg.labels.repair import repair_mask

pytestmark = pytest.mark.plain

LABELS = cityscapes_palette().labels
COLORS = np.array([label.color for label in LABELS], np.uint8)
IDS = np.array([label.id for label in LABELS], np.uint8)
ROAD, BUILDING, POLE, SKY, CAR = 0, 2, 5, 10, 13


def paint(ids):
    return COLORS[[int(np.flatnonzero(id_ == IDS)[0]) for id_ in range(19)]][ids]


def as_kaggle_saves_it(mask, size):
    """Shrunk with smoothing, then JPEG with halved chroma."""
    memory = io.BytesIO()
    small = Image.fromarray(mask).resize((size, size), Image.Resampling.BICUBIC)
    small.save(memory, "JPEG", quality=95, subsampling="4:2:0")
    return np.asarray(Image.open(memory))


def nearest_color(mask):
    return ((mask[..., None, :].astype(int) - COLORS) ** 2).sum(axis=-1).argmin(axis=-1)


@pytest.fixture(scope="module")
def scene():
    """A drawn scene as Kaggle would have saved it, and the class that covers most of each pixel."""
    exact = quantise(draw_scene(5, size=512)[1], cityscapes_palette())[0]
    colors = np.where((exact == 255)[..., None], np.uint8(0), paint(np.where(exact == 255, 0, exact)))
    shares = [cv2.resize(np.float32(exact == i), (256, 256), interpolation=cv2.INTER_AREA) for i in range(256)]
    return as_kaggle_saves_it(colors, 256), np.argmax(shares, axis=0)


class TestBorders:
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.55, 0.7, 0.9])
    @pytest.mark.parametrize("pair", [(ROAD, BUILDING), (SKY, BUILDING), (CAR, ROAD), (SKY, 8)])
    def test_a_blend_gets_the_larger_of_the_two_classes_that_meet(self, pair, share):
        ids = np.full((16, 16), pair[0], np.uint8)
        ids[:, 8:] = pair[1]
        mask = paint(ids).astype(np.float64)
        mask[:, 7] = share * mask[:, 8] + (1 - share) * mask[:, 6]
        ids[:, 7] = pair[share > 0.5]
        np.testing.assert_array_equal(repair_mask(mask.round().astype(np.uint8), COLORS, IDS, ignore_doubt=False), ids)

    def test_a_jpeg_of_two_classes_holds_no_third(self):
        ids = np.full((256, 256), SKY, np.uint8)
        cv2.circle(ids, (128, 128), 90, CAR, -1)
        mask = as_kaggle_saves_it(paint(ids), 64)
        assert len(np.unique(nearest_color(mask))) > 3
        assert set(np.unique(repair_mask(mask, COLORS, IDS, ignore_doubt=False))) == {SKY, CAR}
        assert set(np.unique(repair_mask(mask, COLORS, IDS))) <= {SKY, CAR, 255}

    @pytest.mark.parametrize(("behind", "width"), [(SKY, 1), (BUILDING, 1), (ROAD, 2)])
    def test_a_thin_pole_survives(self, behind, width):
        ids = np.full((64, 64), behind, np.uint8)
        ids[8:56, 32 : 32 + width] = POLE
        found = repair_mask(as_kaggle_saves_it(paint(ids), 64), COLORS, IDS, ignore_doubt=False)
        assert set(np.unique(found)) == {behind, POLE}
        assert (found[10:54, 32 : 32 + width] == POLE).mean() > 0.9
        assert (found[:, 35:] == behind).all()

    def test_a_scene_comes_out_better_than_by_the_nearest_color(self, scene):
        mask, truth = scene
        nearest = IDS[nearest_color(mask)]
        wrong = np.mean(repair_mask(mask, COLORS, IDS, ignore_doubt=False) != truth)
        assert wrong < 0.6 * np.mean(nearest != truth)
        kept = (found := repair_mask(mask, COLORS, IDS)) != 255
        assert np.mean(kept) > 0.9 * np.mean(truth != 255)
        assert np.mean(found[kept] != truth[kept]) < wrong


@pytest.mark.parametrize("share", [0.3, 0.4, 0.5, 0.6])
def test_a_rim_blended_with_a_black_frame_is_no_dark_class(share):
    sky = COLORS[[label.name for label in LABELS].index("sky")]
    mask = np.tile(sky, (32, 32, 1))
    mask[0] = share * sky  # close to the colour of trucks
    found = repair_mask(mask, COLORS, IDS)
    assert set(np.unique(found[0])) <= {255, SKY} and (found[1:] == SKY).all()


def test_what_is_no_mask_is_all_in_doubt():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for picture in (noise, draw_scene(3)[0]):
        assert (repair_mask(picture, COLORS, IDS) == 255).all()
        assert (repair_mask(picture, COLORS, IDS, ignore_doubt=False) != 255).any()


class TestPalettes:
    def test_exact_colors_come_back_exactly(self):
        rng = np.random.default_rng(0)
        rows = np.repeat(np.repeat(rng.integers(0, len(COLORS), (8, 8)), 8, axis=0), 8, axis=1)
        np.testing.assert_array_equal(repair_mask(COLORS[rows], COLORS, IDS), IDS[rows])
        mask = COLORS[rows]
        mask[:4, :4] = (128, 64, 140)  # no longer pure, so that the pixels are looked at
        np.testing.assert_array_equal(repair_mask(mask, COLORS, IDS, ignore_doubt=False)[12:], IDS[rows][12:])

    def test_pure_colors_are_taken_at_their_word_pixel_by_pixel(self):
        rows = np.random.default_rng(0).integers(0, len(COLORS), (20, 20))
        np.testing.assert_array_equal(repair_mask(COLORS[rows], COLORS, IDS), IDS[rows])

    def test_an_ignored_color_becomes_255(self):
        ids = np.full((32, 32), ROAD, np.uint8)
        mask = paint(ids)
        mask[:, 16:] = COLORS[[label.name for label in LABELS].index("tunnel")]
        found = repair_mask(mask, COLORS, IDS)
        assert (found[:, :16] == ROAD).all()
        assert (found[:, 16:] == 255).all()

    def test_colors_of_one_class_raise_no_doubt_between_them(self):
        colors, ids = np.array([[200, 0, 0], [0, 0, 200], [0, 200, 0]], np.uint8), np.array([4, 4, 7], np.uint8)
        mask = np.repeat(colors[:2], 8, axis=0)[None].repeat(16, axis=0)
        mask[:, 8] = (100, 0, 100)
        assert (repair_mask(mask, colors, ids) == 4).all()

    def test_two_colors_are_enough(self):
        colors, ids = np.array([[0, 0, 0], [255, 255, 255]], np.uint8), np.array([0, 1], np.uint8)
        exact = np.zeros((64, 64), np.uint8)
        cv2.circle(exact, (30, 30), 20, 1, -1)
        found = repair_mask(as_kaggle_saves_it(colors[exact], 32), colors, ids, ignore_doubt=False)
        np.testing.assert_allclose(found.mean(), exact.mean(), atol=0.01)


class TestAnyInput:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (17, 31), (5, 64)])
    def test_any_size_and_any_content(self, shape):
        rng = np.random.default_rng(1)
        mask = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        before = mask.copy()
        found = repair_mask(mask, COLORS, IDS)
        assert (found.shape, found.dtype) == (shape, np.uint8)
        np.testing.assert_array_equal(mask, before)
        assert np.isin(found, IDS).all()

    @pytest.mark.parametrize("count", [1, 2, 255])
    def test_any_number_of_colors(self, count):
        rng = np.random.default_rng(2)
        colors = rng.integers(0, 256, (count, 3), dtype=np.uint8)
        rows = cv2.resize(rng.integers(0, count, (5, 5)).astype(np.uint8), (40, 40), interpolation=cv2.INTER_NEAREST)
        mask = cv2.blur(colors[rows], (3, 3))
        found = repair_mask(mask, colors, np.arange(count).astype(np.uint8), ignore_doubt=False)
        assert np.mean(found == rows) > 0.8

    def test_a_slice_of_a_picture_will_do(self, scene):
        pair = np.concatenate([scene[0], scene[0]], axis=1)
        np.testing.assert_array_equal(repair_mask(pair[:, 256:], COLORS, IDS), repair_mask(scene[0], COLORS, IDS))

    def test_it_repeats_itself_in_many_threads(self, scene):
        first = repair_mask(scene[0], COLORS, IDS)
        with ThreadPoolExecutor(4) as pool:
            for other in pool.map(lambda _: repair_mask(scene[0], COLORS, IDS), range(8)):
                np.testing.assert_array_equal(other, first)

    def test_doubt_only_turns_ids_to_255(self, scene):
        sure, every = repair_mask(scene[0], COLORS, IDS), repair_mask(scene[0], COLORS, IDS, ignore_doubt=False)
        changed = sure != every
        assert 0 < changed.mean() < 0.05
        assert (sure[changed] == 255).all()

    @pytest.mark.parametrize("mask", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
    def test_other_arrays_are_refused(self, mask):
        with pytest.raises(SemsegError, match=r"expected uint8 RGB of shape \(H, W, 3\)"):
            repair_mask(mask, COLORS, IDS)

    def test_colors_without_ids_are_refused(self):
        with pytest.raises(SemsegError, match="got 29 colours and 3 ids"):
            repair_mask(np.zeros((4, 4, 3), np.uint8), COLORS, IDS[:3])
