"""Objects of masks: pieces, outlines and cleaning, against values worked out by hand and pixel by pixel."""

from itertools import combinations

import cv2
import numpy as np
import pytest

from semseg.labels.borders import outlines_of, signed_area
from semseg.labels.cleaning import clean_mask, watershed_line
from semseg.labels.drawings import fill_rings
from semseg.labels.objects import find_objects
from semseg.labels.outlines import with_bridges
from semseg.labels.pieces import find_pieces
from semseg.labels.simplifying import simplify_chains

pytestmark = pytest.mark.plain


def mask_of(text):
    return np.array([[int(letter) for letter in line] for line in text.split()], np.uint8)


def noise(seed, size, sigma=1.0, levels=(-0.1, 0.2)):
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=size).astype(np.float32), (0, 0), sigma)
    return np.digitize(smooth / smooth.std(), levels).astype(np.uint8)


def discs(size, *circles):
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return np.any([(x - a) ** 2 + (y - b) ** 2 <= r**2 for a, b, r in circles], axis=0).astype(np.uint8)


class TestPieces:
    def test_pixels_that_touch_at_a_corner_are_two_pieces(self):
        pieces = find_pieces([mask_of("110 001 101")], 3)
        assert pieces.classes.tolist() == [1, 0, 0, 1, 1]
        assert pieces.areas.tolist() == [2, 1, 3, 2, 1]
        assert pieces.boxes[3].tolist() == [2, 1, 3, 3]
        assert pieces.centroids[3].tolist() == [2.5, 2.0]

    @pytest.mark.parametrize("cut", [0, 1, 7, 20])
    def test_bands_change_nothing(self, cut):
        mask = noise(cut, (20, 30))
        weights = np.random.default_rng(0).random(mask.shape)
        whole = find_pieces([mask], 30, [weights])
        parts = find_pieces([mask[:cut], mask[cut:]], 30, [weights[:cut], weights[cut:]])
        np.testing.assert_array_equal(whole.of_run, parts.of_run)
        np.testing.assert_allclose(whole.mean_weights, parts.mean_weights)

    def test_they_are_those_of_opencv(self):
        mask = noise(3, (60, 50))
        pieces = find_pieces([mask], 50)
        labels = np.concatenate(list(pieces.bands(np.arange(len(pieces)))))
        for i in range(3):
            count, expected = cv2.connectedComponents((mask == i).view(np.uint8), connectivity=4)
            pairs = set(zip(labels[mask == i].tolist(), expected[mask == i].tolist(), strict=True))
            assert len(pairs) == count - 1 == (pieces.classes == i).sum()

    def test_borders_count_the_edges_between_pieces(self):
        one, other, edges = find_pieces([mask_of("011 001")], 3).borders()
        assert (one.tolist(), other.tolist(), edges.tolist()) == ([0], [1], [3])

    def test_a_mask_of_one_pixel(self):
        [found] = find_objects(np.ones((1, 1), np.uint8))
        assert found.area == 1 and found.box == (0, 0, 1, 1) and found.touches_border
        assert found.circumference == 4


def crossings(rings):
    """Pairs of segments that meet at another point than a common end, by brute force."""
    segments = [(a, b) for ring in rings for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True)]

    def side(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    def meet(a, b, c, d):
        if {tuple(a), tuple(b)} & {tuple(c), tuple(d)}:
            return False
        boxes = (np.minimum(a, b) <= np.maximum(c, d)).all() and (np.minimum(c, d) <= np.maximum(a, b)).all()
        return boxes and side(a, b, c) * side(a, b, d) <= 0 and side(c, d, a) * side(c, d, b) <= 0

    return sum(meet(*one, *other) for one, other in combinations(segments, 2))


class TestOutlines:
    @pytest.mark.parametrize("tolerance", [0, 0.2])
    @pytest.mark.parametrize("seed", range(5))
    def test_filling_them_gives_back_each_pixel(self, seed, tolerance):
        mask = noise(seed, (24, 31), sigma=0.7)
        pieces = find_pieces([mask], 31)
        labels = np.concatenate(list(pieces.bands(np.arange(len(pieces)))))
        filled = np.full(mask.shape, -1)
        for number, rings in enumerate(outlines_of(pieces, np.ones(len(pieces), bool), tolerance)):
            (top, left), inside, _ = fill_rings(rings, mask.shape)
            part = filled[top : top + inside.shape[0], left : left + inside.shape[1]]
            assert (part[inside] == -1).all()
            part[inside] = number
        np.testing.assert_array_equal(filled, labels)

    @pytest.mark.parametrize("tolerance", [0, 0.5, 1, 3])
    @pytest.mark.parametrize("seed", range(3))
    def test_they_neither_cross_nor_touch_themselves(self, seed, tolerance):
        for found in find_objects(noise(seed, (20, 20), sigma=0.8), tolerance=tolerance):
            assert crossings(found.rings) == 0
            assert signed_area(found.rings[0]) > 0 > max((signed_area(hole) for hole in found.rings[1:]), default=-1)
            for ring in found.rings:
                assert len(np.unique(ring, axis=0)) == len(ring) >= 3

    def test_two_objects_share_their_border(self):
        mask = mask_of("111111222222 111111222222 111111222222 111112222222 111112222222 111112222222")
        left, right = find_objects(mask, [1, 2], tolerance=2)
        shared = {tuple(point) for point in left.rings[0]} & {tuple(point) for point in right.rings[0]}
        assert shared == {(6.0, 0.0), (5.0, 6.0)}
        assert signed_area(left.rings[0]) + signed_area(right.rings[0]) == 72

    def test_together_they_cover_the_same_at_any_tolerance(self):
        mask = noise(4, (30, 30), sigma=0.8)  # all but the corners where an object touches itself
        exact, *simplified = (
            sum(
                signed_area(ring) for found in find_objects(mask, range(3), tolerance=tolerance) for ring in found.rings
            )
            for tolerance in (0, 0.4, 1, 3)
        )
        assert mask.size - 4 < exact <= mask.size and simplified == pytest.approx([exact] * 3)

    def test_an_object_of_few_pixels_keeps_its_outline(self):
        mask = np.zeros((40, 40), np.uint8)
        mask[:, 20:] = 1
        mask[10:13, 19:22] = 2  # on the border of two large ones
        mask[30, 5] = 2
        large, at_border, alone = find_objects(mask, tolerance=5)
        assert sorted(alone.rings[0].tolist()) == [[5.0, 30.0], [5.0, 31.0], [6.0, 30.0], [6.0, 31.0]]
        assert signed_area(at_border.rings[0]) == 9
        assert signed_area(large.rings[0]) == (mask == 1).sum()

    def test_within_a_pixel_of_the_border_at_the_usual_tolerance(self):
        mask = noise(5, (120, 120), sigma=3, levels=(0.2,))
        back = np.zeros_like(mask)
        for found in find_objects(mask):
            (top, left), inside, _ = fill_rings(found.rings, mask.shape)
            back[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = 1
        at_border = cv2.dilate(mask, np.ones((3, 3))) != cv2.erode(mask, np.ones((3, 3)))
        assert not (back != mask)[~at_border].any()
        assert (back & mask).sum() / (back | mask).sum() > 0.97

    def test_a_bridge_to_a_hole_encloses_nothing(self):
        mask = mask_of("11111 10101 11111")
        [found] = find_objects(mask, tolerance=0)
        assert len(found.rings) == 3
        (_, inside, _) = fill_rings([with_bridges(found.rings)], mask.shape)
        np.testing.assert_array_equal(inside, mask == 1)

    def test_lines_that_would_cross_keep_their_points(self):
        bay = np.array([[0, 0], [10, 0], [10, -8], [20, -8], [20, 0], [30, 0]])
        boat = np.array([[14, -6], [16, -6], [16, 6], [14, 6], [14, -6]])
        simple, _ = simplify_chains([bay, boat], [10, 10])
        np.testing.assert_array_equal(simple, bay)
        assert len(simplify_chains([bay], [10])[0]) == 2


class TestMeasures:
    def test_of_a_rectangle(self):
        mask = np.zeros((20, 30), np.uint8)
        mask[5:15, 8:28] = 1
        certainty = np.full(mask.shape, 0.5)
        certainty[5:15, 8:18] = 0.9
        [found] = find_objects(mask, certainty=certainty)
        assert (found.class_id, found.area, found.box) == (1, 200, (8, 5, 20, 10))
        assert found.centroid == (18.0, 10.0) and not found.touches_border
        assert found.circumference == pytest.approx(60, rel=0.04)
        assert found.probability == pytest.approx(0.7)

    def test_of_classes_that_are_not_there(self):
        assert find_objects(np.zeros((4, 4), np.uint8)) == []
        assert find_objects(np.full((4, 4), 255, np.uint8)) == []


class TestCleaning:
    def test_holes_are_filled_but_for_other_objects_and_missing_data(self):
        mask = np.ones((5, 14), np.uint8)
        mask[2, 2], mask[2, 5], mask[2, 8], mask[0, 11] = 0, 2, 255, 0
        cleaned = clean_mask(mask, [1, 2], fill_holes=True)
        assert (cleaned != mask).sum() == 1 and cleaned[2, 2] == 1

    def test_small_objects_become_what_is_around_them(self):
        mask = mask_of("000222 010222 000212 000222")
        np.testing.assert_array_equal(clean_mask(mask, [1], min_area=2), mask_of("000222 000222 000222 000222"))

    def test_small_objects_side_by_side_are_all_gone(self):
        mask = np.zeros((6, 6), np.uint8)
        mask[2:4, 2:4] = [[1, 2], [2, 1]]
        assert not clean_mask(mask, [1, 2], min_area=6).any()

    def test_a_mask_of_small_objects_alone_ends(self):
        assert clean_mask(mask_of("12 21"), [1, 2], min_area=100).shape == (2, 2)

    def test_discs_that_touch_are_parted_at_the_neck(self):
        mask = discs((60, 100), (30, 30, 20), (62, 30, 16))
        cleaned = clean_mask(mask, [1], watershed=True)
        one, other = find_objects(cleaned)
        assert one.centroid == pytest.approx((30, 30), abs=0.7) and other.centroid == pytest.approx((62, 30), abs=1)
        line = cleaned != mask
        assert 0 < line.sum() < 25 and set(cleaned[line]) == {0}
        assert abs(np.nonzero(line)[1] - 48).max() <= 2

    @pytest.mark.parametrize("shape", ["disc", "ellipse", "bar"])
    def test_shapes_without_a_neck_stay_whole(self, shape):
        mask = np.zeros((70, 100), np.uint8)
        if shape == "disc":
            mask |= discs(mask.shape, (50, 35, 30))
        elif shape == "ellipse":
            cv2.ellipse(mask, (50, 35), (40, 15), 25, 0, 360, 1, -1)
        else:
            mask[30:40, 5:95] = 1
        np.testing.assert_array_equal(clean_mask(mask, [1], watershed=True), mask)

    def test_a_line_parts_whatever_the_angle(self):
        for angle in range(0, 180, 20):
            x, y = 15 * np.cos(np.radians(angle)), 15 * np.sin(np.radians(angle))
            inside = discs((80, 80), (40 - x, 40 - y, 17), (40 + x, 40 + y, 17)) == 1
            rest = inside & ~watershed_line(inside)
            assert cv2.connectedComponents(rest.view(np.uint8), connectivity=4)[0] == 3
