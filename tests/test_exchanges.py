from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from semseg.data import open_dataset
from semseg.data.check import Findings
from semseg.data.exchanges import (
    DIAGONAL_FLIPS,
    HALF_TURN,
    LEFT_RIGHT,
    MOVES,
    QUARTER_TURNS,
    UP_DOWN,
    find_exchanges,
    measure_poses,
    words_of_exchanges,
)
from semseg.evaluation.flips import doubts_of_flips

pytestmark = pytest.mark.plain
NAMES = ("ground", "left", "right", "heart")

SIDE = 96
ARROW = np.array([[-1, -0.25], [0.2, -0.25], [0.2, -0.7], [1, 0], [0.2, 0.7], [0.2, 0.25], [-1, 0.25]])  # to the right


def places(rng, count=1):
    return rng.uniform(0.12 * SIDE, 0.88 * SIDE, (count, 2))


def blob(ids, center, value, rng):
    axes = [int(SIDE * share) for share in rng.uniform(0.06, 0.12, 2)]
    cv2.ellipse(ids, np.int32(center).tolist(), axes, rng.uniform(0, 180), 0, 360, value, -1)


def organs(ids, rng):
    """A left one and a right one, in a frame that wanders."""
    frame = rng.normal(0, 0.1 * SIDE, 2)
    for value, x in ((1, 0.25), (2, 0.75)):
        blob(ids, frame + rng.normal(SIDE * np.array([x, 0.5]), 2), value, rng)


def single_organs(ids, rng):
    """A left one or a right one."""
    value = int(rng.integers(1, 3))
    blob(ids, rng.normal(SIDE * np.array([value / 2 - 0.25, 0.5]), 3), value, rng)


def blobs(ids, rng, num_classes=3):
    """Of each class one, anywhere."""
    for value in range(1, num_classes):
        blob(ids, places(rng)[0], value, rng)


def strokes(*angles, scatter=12):
    """Draws five of each class anywhere, at about its angle."""

    def draw(ids, rng):
        for center in places(rng, 5):
            for value, angle in enumerate(angles, start=1):
                turned = np.deg2rad(angle + rng.uniform(-scatter, scatter))
                half = 0.12 * SIDE * np.array([np.cos(turned), np.sin(turned)])
                start, end = center + rng.normal(0, SIDE / 4, 2) + np.array([-half, half])
                cv2.line(ids, np.int32(start).tolist(), np.int32(end).tolist(), value, 2)

    return draw


def arrows(*angles):
    """Draws three of each class anywhere."""

    def draw(ids, rng):
        for value, angle in enumerate(angles, start=1):
            cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
            for center in places(rng, 3):
                corners = ARROW @ np.array([[cosine, sine], [-sine, cosine]]) * SIDE * 0.09 + center
                cv2.fillPoly(ids, [np.int32(corners.round())], value)

    return draw


def heart(ids, rng):
    """One class that always lies left, among others that lie anywhere."""
    blobs(ids, rng)
    cv2.circle(ids, np.int32(SIDE * np.array([0.25, 0.5]) + rng.normal(0, 3, 2)).tolist(), SIDE // 9, 3, -1)


def poses(draw, count, shades=(60, 140, 140, 140), seed=0, side=SIDE):
    """Of masks and photos, in which each class has its grey level, noise, and the light of the photo."""
    rng = np.random.default_rng([seed, count])
    measured = []
    for _ in range(count):
        ids = np.zeros((SIDE, SIDE), np.uint8)
        draw(ids, rng)
        grey = np.array(shades)[ids] + rng.normal(0, 12, ids.shape) + rng.normal(0, 10)
        photo = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        ids = cv2.resize(ids, (side, side), interpolation=cv2.INTER_NEAREST)
        measured.append(measure_poses(ids, photo, len(shades)))
    return measured


def found(draw, count, **options):
    """The moves that exchange classes 1 and 2; no others may be exchanged."""
    exchanges = find_exchanges(poses(draw, count, **options))
    assert all(pairs in ([], [(1, 2)]) for pairs in exchanges.values())
    return {move for move, pairs in exchanges.items() if pairs}


class TestPoses:
    def test_hand_worked_places_and_sizes(self):
        ids = np.zeros((8, 16), np.uint8)
        ids[0:2, 12:16] = 1  # its middle: x = 13.5 of -.5 to 15.5, y = .5 of -.5 to 7.5
        pose = measure_poses(ids, np.full((8, 16, 3), 7, np.uint8), 3)
        assert pose[1][:2] == [0.75, -0.75]
        assert pose[1][9:11] == [round(np.log(8 / 128), 4)] * 2  # one piece
        assert pose[1][11:] == [7, 7, 7, 0, 0, 0]
        assert pose[2] == []

    def test_the_axis_of_a_line_turns_twice_as_fast(self):
        for angle, axis in ((0, (1, 0)), (45, (0, 1)), (90, (-1, 0)), (135, (0, -1))):
            ids = np.zeros((64, 64), np.uint8)
            step = 20 * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
            cv2.line(ids, np.int32(32 - step).tolist(), np.int32(32 + step).tolist(), 1)
            pose = measure_poses(ids, np.zeros((64, 64, 3), np.uint8), 2)[1]
            np.testing.assert_allclose(pose[2:4], axis, atol=0.03)

    def test_pieces_that_point_right_and_left_differ_in_sign(self):
        ids = np.zeros((64, 64), np.uint8)
        cv2.fillPoly(ids, [np.int32(20 * ARROW + 32)], 1)
        right, left = (measure_poses(ids[:, ::way], np.zeros((64, 64, 3), np.uint8), 2)[1] for way in (1, -1))
        assert abs(right[4]) > 0.1
        np.testing.assert_allclose(np.array(right)[[4, 6]], -np.array(left)[[4, 6]], atol=0.01)
        np.testing.assert_allclose(np.array(right)[[5, 7]], np.array(left)[[5, 7]], atol=0.01)

    def test_what_is_thin_stays_whole_in_large_masks(self):
        ids = cv2.line(np.zeros((2000, 1500), np.uint8), (100, 100), (1300, 1300), 1, 1)
        pose = measure_poses(ids, np.zeros((200, 150, 3), np.uint8), 2)[1]
        np.testing.assert_allclose(pose[2:4], (0, 1), atol=0.02)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1)])
    def test_masks_of_a_pixel_or_a_line(self, shape):
        pose = measure_poses(np.zeros(shape, np.uint8), np.zeros((*shape, 3), np.uint8), 2)
        assert np.isfinite(pose[0]).all() and pose[1] == []

    def test_masks_without_any_class(self):
        assert measure_poses(np.full((9, 9), 255, np.uint8), np.zeros((9, 9, 3), np.uint8), 2) == [[], []]


LEANING = {LEFT_RIGHT, UP_DOWN, *QUARTER_TURNS}


class TestFinding:
    @pytest.mark.parametrize(
        ("draw", "count", "expected"),
        [
            (organs, 4, {LEFT_RIGHT, HALF_TURN}),
            (organs, 30, {LEFT_RIGHT, HALF_TURN}),
            (single_organs, 24, {LEFT_RIGHT, HALF_TURN}),
            (strokes(45, -45), 4, LEANING),
            (strokes(45, -45), 24, LEANING),
            (strokes(60, -60), 20, {LEFT_RIGHT, UP_DOWN}),
            (strokes(0, 90), 6, {*QUARTER_TURNS, *DIAGONAL_FLIPS}),
            (arrows(0, 180), 20, {LEFT_RIGHT, HALF_TURN}),
            (arrows(90, -90), 20, {UP_DOWN, HALF_TURN}),
        ],
    )
    def test_classes_that_become_each_other(self, draw, count, expected):
        assert found(draw, count) == expected

    @pytest.mark.parametrize("count", [2, 8, 30])
    @pytest.mark.parametrize(
        "draw", [blobs, heart, strokes(45, 45), strokes(0, 0, scatter=180), strokes(45, 90), arrows(0, 0)]
    )
    def test_classes_that_lie_alike_or_are_no_mirror_images(self, draw, count):
        assert found(draw, count) == set()

    def test_many_classes_that_lie_anywhere(self):
        for seed in range(3):
            measured = poses(lambda ids, rng: blobs(ids, rng, 9), 12, shades=(60, *[140] * 8), seed=seed)
            assert not any(find_exchanges(measured).values())

    @pytest.mark.parametrize("draw", [organs, strokes(45, -45)])
    def test_colours_that_tell_classes_apart_are_no_exchange(self, draw):
        assert found(draw, 12, shades=(60, 110, 180)) == set()

    def test_sizes_that_tell_classes_apart_are_no_exchange(self):
        def draw(ids, rng):
            y = SIDE * rng.uniform(0.3, 0.7)
            cv2.circle(ids, (SIDE // 5, int(y)), SIDE // 7, 1, -1)
            cv2.circle(ids, (4 * SIDE // 5, int(y)), SIDE // 30, 2, -1)

        assert found(draw, 12) == set()

    def test_the_size_of_the_masks_does_not_matter(self):
        assert found(strokes(45, -45), 8, side=5 * SIDE) == LEANING

    def test_nothing_to_compare(self):
        assert find_exchanges([]) == find_exchanges([[[], []]]) == {move: [] for move in MOVES}

    def test_real_data_sets(self, real_data):
        def of(folder, **options):
            dataset = open_dataset(real_data / folder, **options)
            loaded = (dataset.load(sample) for sample in dataset.splits["train"])
            exchanges = find_exchanges([measure_poses(ids, photo, len(dataset.palette.names)) for photo, ids in loaded])
            return {move: [tuple(dataset.palette.names[k] for k in pair) for pair in exchanges[move]] for move in MOVES}

        membranes, level = ("class_32", "class_96"), ("class_0", "class_64")
        found = of("em")
        assert found[LEFT_RIGHT] == found[UP_DOWN] == [membranes] and found[HALF_TURN] == []
        assert found[QUARTER_TURNS[0]] == found[QUARTER_TURNS[1]] == [level, membranes]
        for folder, options in {"camvid": {"limit": 20}, "cityscapes_pairs": {"limit": 12}, "nuclei": {}}.items():
            assert not any(of(folder, **options).values())


def test_words_name_classes_and_ways():
    names = ["level", "upright", "rising", "falling"]
    exchanges = {LEFT_RIGHT: [(2, 3)], HALF_TURN: [], QUARTER_TURNS[0]: [(0, 1), (2, 3)], QUARTER_TURNS[1]: [(0, 1)]}
    assert words_of_exchanges(exchanges, {LEFT_RIGHT, HALF_TURN}, names) == (
        "rising and falling become each other when flipped left-right"
    )
    assert words_of_exchanges(exchanges, MOVES, names) == (
        "rising and falling become each other when flipped left-right or turned by 90 degrees, "
        "level and upright become each other when turned by 90 degrees"
    )
    assert words_of_exchanges(exchanges, {UP_DOWN}, names) == ""
    many = {LEFT_RIGHT: [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]}
    assert words_of_exchanges(many, MOVES, names).endswith("flipped left-right, and 2 more pairs likewise")


@pytest.mark.parametrize(
    ("draw", "flips", "expected"),
    [
        (organs, "horizontal", ["left and right become each other when flipped left-right: "]),
        (organs, "both", ["left and right become each other when flipped left-right or turned by 180 degrees: "]),
        (arrows(90, -90), "horizontal", []),
        (blobs, "both", []),
    ],
)
def test_an_evaluation_by_mirrored_photos_says_what_they_exchange(draw, flips, expected):
    dataset = SimpleNamespace(palette=SimpleNamespace(names=NAMES))
    measured = [(None, SimpleNamespace(poses=of_mask)) for of_mask in poses(draw, 16)]
    findings = Findings({"train": measured[:12], "val": [*measured[12:], (None, SimpleNamespace(poses=[]))]})
    doubts = doubts_of_flips(dataset, findings, flips)
    reason = "the mean over such views takes one for the other; leave `flips` out"
    assert doubts == [text + reason for text in expected]
