import cv2
import numpy as np
import pytest
from helpers import draw_ids

from semseg.data import open_dataset
from semseg.data.augment import NO_AUGMENTATION, Augmentation, parse_augmentation, suited_augmentation
from semseg.data.exchanges import DIAGONAL_FLIPS, HALF_TURN, LEFT_RIGHT, MOVES, QUARTER_TURNS, UP_DOWN
from semseg.errors import SemsegError
from semseg.images.reading import read_image

pytestmark = pytest.mark.plain


def only(**settings):
    return Augmentation(**{**vars(NO_AUGMENTATION), **settings})


def test_photo_and_mask_move_together():
    ids = draw_ids(1, 64)
    photo = np.repeat(ids[..., None], 3, axis=2)  # a photo of the ids themselves
    augmentation = only(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True, rotation=20, scale=(0.8, 1.5))
    for seed in range(10):
        moved, mask = augmentation(photo, ids, np.random.default_rng(seed))
        inside = mask != 255
        assert inside.mean() > 0.3
        agree = np.abs(moved[..., 0].astype(int) - mask) <= 1
        assert agree[inside].mean() > 0.9  # but for blended borders of the photo


@pytest.mark.parametrize("shape", [(32, 32), (33, 57), (600, 800)])
def test_nothing_asked_changes_nothing(shape):
    rng = np.random.default_rng(0)
    photo, ids = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 256, shape, np.uint8)
    same, mask = NO_AUGMENTATION(photo, ids, rng)
    np.testing.assert_array_equal(same, photo)
    np.testing.assert_array_equal(mask, ids)


@pytest.mark.parametrize("shape", [(32, 32), (33, 57), (600, 800)])
@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 1), ("vertical_flip", 0)])
def test_flips_are_exact(name, axis, shape):
    rng = np.random.default_rng(0)
    photo, ids = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 256, shape, np.uint8)
    flipped, mask = only(**{name: 1.0})(photo, ids, rng)
    np.testing.assert_array_equal(flipped, np.flip(photo, axis))
    np.testing.assert_array_equal(mask, np.flip(ids, axis))


@pytest.mark.parametrize("size", [32, 33, 700])
def test_quarter_turns_of_a_square_are_exact_and_each_as_likely(size):
    rng = np.random.default_rng(0)
    photo, ids = rng.integers(0, 256, (size, size, 3), np.uint8), rng.integers(0, 256, (size, size), np.uint8)
    turns = [np.rot90(ids, k).tobytes() for k in range(4)]
    seen = []
    for _ in range(80):
        turned, mask = only(quarter_turns=True)(photo, ids, rng)
        seen.append(turns.index(mask.tobytes()))
        np.testing.assert_array_equal(turned, np.rot90(photo, seen[-1]))
    assert np.bincount(seen, minlength=4).min() >= 10


@pytest.mark.parametrize("shape", [(32, 32), (33, 57)])
def test_half_turns_are_exact_and_as_likely_as_none(shape):
    rng = np.random.default_rng(0)
    photo, ids = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 256, shape, np.uint8)
    turned = 0
    for _ in range(60):
        moved, mask = only(half_turns=True)(photo, ids, rng)
        is_turned = not (mask == ids).all()
        np.testing.assert_array_equal(mask, np.rot90(ids, 2 * is_turned))
        np.testing.assert_array_equal(moved, np.rot90(photo, 2 * is_turned))
        turned += is_turned
    assert 20 <= turned <= 40


def test_quarter_turns_of_an_oblong_frame_ignore_what_comes_from_outside():
    turned = set()
    for seed in range(20):
        _, mask = only(quarter_turns=True)(
            np.zeros((40, 60, 3), np.uint8), np.full((40, 60), 3, np.uint8), np.random.default_rng(seed)
        )
        turned.add((mask == 3).mean().round(3))
    assert turned == {1.0, 0.667}


def test_ignore_fills_what_comes_from_outside_and_no_class_is_invented():
    ids = np.full((40, 60), 3, np.uint8)
    _, mask = only(scale=(0.5, 0.5))(np.zeros((40, 60, 3), np.uint8), ids, np.random.default_rng(0))
    assert set(np.unique(mask)) == {3, 255}
    assert (mask == 3).mean() == pytest.approx(0.25, abs=0.03)


def test_a_zoomed_sample_fills_the_frame():
    zoom = Augmentation(rotation=0, scale=(1.5, 1.5))
    for seed in range(20):
        _, mask = zoom(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8), np.random.default_rng(seed))
        assert (mask == 0).all()


class Fixed:
    """A generator whose even draws always lie at the upper end."""

    def uniform(self, low, high, size=None):
        return np.full(size, high) if size else high

    def random(self, size):
        return np.ones(size)

    def integers(self, _):
        return 0


def recolored(color, **settings):
    photo, _ = only(**settings)(np.full((2, 2, 3), color, np.uint8), np.zeros((2, 2), np.uint8), Fixed())
    assert (photo == photo[0, 0]).all()
    return photo[0, 0].tolist()


def test_hand_worked_colours():
    assert recolored((100, 200, 50), brightness=0.2) == [120, 240, 60]
    assert recolored((100, 250, 5), brightness=0.2) == [120, 255, 6]
    assert recolored((100, 200, 0), contrast=0.5) == [86, 236, 0]  # 127.5 + 1.5 (100 - 127.5) = 86.25
    assert recolored((100, 200, 60), saturation=0.5) == [73, 223, 13]  # luma 154.1: 154.1 + 1.5 (100 - 154.1) = 72.9


def test_saturation_and_hue_leave_grey_alone():
    for grey in (0, 77, 255):
        assert recolored((grey,) * 3, saturation=0.5, hue=90) == [grey] * 3


def test_a_third_of_a_turn_makes_red_green_and_green_blue():
    assert recolored((200, 10, 40), hue=120) == [40, 200, 10]


def test_a_hue_agrees_with_hsv_in_its_direction():
    turned = np.uint8([[recolored((200, 100, 100), hue=30)]])
    assert cv2.cvtColor(turned, cv2.COLOR_RGB2HSV)[0, 0, 0] == pytest.approx(15, abs=2)  # OpenCV counts in 2 degrees


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizontal_flip": 1.5}, r"got horizontal_flip=1\.5; expected a probability, 0 to 1"),
        ({"vertical_flip": float("nan")}, "got vertical_flip=nan"),
        ({"rotation": 181}, "got rotation=181; expected degrees, 0 to 180"),
        ({"brightness": 1.0}, r"got brightness=1\.0; expected a relative change, 0 to below 1"),
        ({"contrast": -0.1}, r"got contrast=-0\.1"),
        ({"saturation": 2}, "got saturation=2"),
        ({"hue": -1}, "got hue=-1"),
        ({"quarter_turns": 2}, "got quarter_turns=2; expected 0 or 1"),
        ({"half_turns": 0.5}, r"got half_turns=0\.5; expected 0 or 1"),
        ({"scale": (1.2, 0.8)}, r"got scale=\(1\.2, 0\.8\); expected the smaller factor before the larger"),
        ({"scale": (0.0, 1.0)}, "both above 0"),
        ({"scale": (1.0, float("inf"))}, "scale"),
    ],
)
def test_senseless_values_are_refused(settings, message):
    with pytest.raises(SemsegError, match=message):
        Augmentation(**settings)


class TestParsing:
    def test_none_switches_everything_off(self):
        assert parse_augmentation("none", Augmentation()) is NO_AUGMENTATION

    def test_settings_change_the_default(self):
        parsed = parse_augmentation(
            "rotation=10, vertical_flip=0.5,scale=0.8:1.25,quarter_turns=1", Augmentation(hue=5)
        )
        assert parsed == Augmentation(rotation=10, vertical_flip=0.5, scale=(0.8, 1.25), quarter_turns=True, hue=5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "rotate=10",
                "got 'rotate=10'; expected none, or name=value with a name of horizontal_flip, vert",
            ),
            ("", "got ''; expected none, or name=value"),
            ("rotation=10,", "got ''"),
            ("rotation", "got 'rotation'; expected rotation=degrees, 0 to 180"),
            ("rotation=ten", "got 'rotation=ten'"),
            ("rotation=200", r"got rotation=200\.0; expected degrees"),
            ("rotation=1:2", "got 'rotation=1:2'; expected rotation=degrees"),
            ("scale=2", "got 'scale=2'; expected scale=the smaller factor before the larger"),
            ("scale=2:1", r"got scale=\(2\.0, 1\.0\); expected the smaller"),
            ("hue=nan", "got hue=nan"),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_one_line(self, text, message):
        with pytest.raises(SemsegError, match=message) as caught:
            parse_augmentation(text, Augmentation())
        assert "\n" not in str(caught.value)


EVERY_WAY = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True}


class TestMoves:
    @pytest.mark.parametrize(
        ("settings", "moves"),
        [
            ({}, set()),
            ({"rotation": 30, "hue": 5}, set()),
            ({"horizontal_flip": 0.1}, {LEFT_RIGHT}),
            ({"half_turns": True}, {HALF_TURN}),
            ({"horizontal_flip": 0.5, "vertical_flip": 1.0}, {LEFT_RIGHT, UP_DOWN, HALF_TURN}),
            ({"horizontal_flip": 0.5, "half_turns": True}, {LEFT_RIGHT, UP_DOWN, HALF_TURN}),
            ({"quarter_turns": True}, {HALF_TURN, *QUARTER_TURNS}),
            ({"quarter_turns": True, "vertical_flip": 0.5}, set(MOVES)),
        ],
    )
    def test_of_two_that_may_happen_so_may_both(self, settings, moves):
        assert only(**settings).moves() == moves

    def test_they_are_what_is_done_to_a_sample(self):
        corner = np.zeros((8, 8), np.uint8)
        corner[1, 0] = 1  # at -3.5 - 2.5i from the centre
        seen = set()
        for seed in range(200):
            _, mask = only(**EVERY_WAY)(np.zeros((8, 8, 3), np.uint8), corner, np.random.default_rng(seed))
            row, column = np.argwhere(mask)[0]
            seen.add(complex(column, row) - (3.5 + 3.5j))
        z = -3.5 - 2.5j
        expected = {(z.conjugate() if mirrored else z) * 1j**quarters for quarters, mirrored in MOVES}
        assert seen == expected | {z}

    @pytest.mark.parametrize(
        ("settings", "harmful", "left"),
        [
            ({"horizontal_flip": 0.5}, {UP_DOWN, HALF_TURN}, {"horizontal_flip": 0.5}),
            ({"horizontal_flip": 0.5}, {LEFT_RIGHT}, {}),
            (EVERY_WAY, {LEFT_RIGHT, UP_DOWN, *QUARTER_TURNS}, {"half_turns": True}),  # lines that lean
            (EVERY_WAY, {*QUARTER_TURNS, *DIAGONAL_FLIPS}, {"horizontal_flip": 0.5, "vertical_flip": 0.5}),  # upright
            (EVERY_WAY, {LEFT_RIGHT, HALF_TURN}, {"vertical_flip": 0.5}),  # left and right organs
            (EVERY_WAY, {UP_DOWN, HALF_TURN}, {"horizontal_flip": 0.5}),
            (EVERY_WAY, {HALF_TURN}, {"horizontal_flip": 0.5}),  # two flips would turn it
            (EVERY_WAY, {LEFT_RIGHT, UP_DOWN, *DIAGONAL_FLIPS}, {"quarter_turns": True}),
            (EVERY_WAY, MOVES, {}),
            (EVERY_WAY, (), EVERY_WAY),
        ],
    )
    def test_as_many_are_kept_as_can_be(self, settings, harmful, left):
        assert only(**settings, hue=9).without(harmful) == only(**left, hue=9)


TURNED = Augmentation(vertical_flip=0.5, quarter_turns=True)


class TestSuiting:
    def halves(self, means, count=40, spread=0.3):
        """Counts of as many samples as asked for, whose imbalances scatter around a mean per class."""
        noise = np.random.default_rng(0).uniform(-spread, spread, (count, len(means)))
        imbalance = np.array(means) + noise - noise.mean(axis=0)
        return (500 * (1 + imbalance)).astype(int), (500 * (1 - imbalance)).astype(int)

    def test_labels_without_an_up_are_turned_every_way(self):
        assert suited_augmentation(*self.halves([0, 0])) == TURNED

    def test_one_class_with_an_up_is_enough_to_keep_upright(self):
        assert suited_augmentation(*self.halves([0, -0.3])) == Augmentation()

    def test_a_small_imbalance_is_no_up_however_certain(self):
        assert suited_augmentation(*self.halves([0.04, -0.04], count=4000)) == TURNED

    def test_few_samples_prove_nothing(self):
        assert suited_augmentation(*self.halves([0, 0], count=19)) == Augmentation()
        assert suited_augmentation(*self.halves([0, 0], count=30, spread=1)) == Augmentation()

    def test_a_class_in_few_samples_is_not_heard(self):
        tops, bottoms = self.halves([0, 0, 0])
        tops[:, 2], bottoms[:, 2] = 0, 0
        tops[:5, 2] = 100
        assert suited_augmentation(tops, bottoms) == TURNED

    def test_real_data_sets(self, real_data):
        def measured(masks, num_classes):
            counts = []
            for mask in masks:
                middle = len(mask) // 2
                halves = (mask[:middle], mask[-middle:])
                counts.append([np.bincount(half.ravel(), minlength=256)[:num_classes] for half in halves])
            return suited_augmentation(*np.array(counts).swapaxes(0, 1))

        def read(folder):
            return [read_image(path)[..., 0] for path in sorted(folder.iterdir())]

        camvid = read(real_data / "camvid" / "val" / "masks")
        assert measured(camvid, 11) == Augmentation()
        pairs = open_dataset(real_data / "cityscapes_pairs", limit=40)
        assert measured([pairs.load(sample)[1] for sample in pairs.splits["train"]], 19) == Augmentation()
        cars = [mask // 255 for mask in read(real_data / "carvana" / "train_masks")]
        assert measured(cars, 2) == Augmentation()
        assert measured([mask // 255 for mask in read(real_data / "nuclei" / "masks")], 2) == TURNED


def test_says_in_words_what_it_does():
    asked = parse_augmentation("quarter_turns=1,rotation=0,hue=5,scale=0.5:2", Augmentation(vertical_flip=0.25))
    assert str(asked) == (
        "flipped left-right (50%), flipped up-down (25%), turned by 0, 90, 180 or 270 degrees, zoomed by 0.5 to 2, "
        "brightness +-10%, contrast +-10%, saturation +-10%, hue +-5 degrees"
    )
    assert str(NO_AUGMENTATION) == "nothing is changed"
    photo, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    assert asked(photo, mask, np.random.default_rng(0))[0].shape == (8, 8, 3)
