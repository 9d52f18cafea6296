import numpy as np
import pytest
from scipy import ndimage

from semseg.errors import SemsegError
from semseg.metrics.boundaries import boundary_counts, boundary_distance, boundary_scores

pytestmark = pytest.mark.plain


def random_masks(seed, size=(11, 14), classes=4, ignored=0.15):
    """Blobs of a few pixels, and single pixels of noise on the prediction."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (size[0] // 3 + 1, size[1] // 3 + 1))
    truth = np.kron(coarse, np.ones((3, 3), int))[: size[0], : size[1]].astype("uint8")
    prediction = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    prediction = np.where(rng.random(size) < 0.1, rng.integers(0, classes, size), prediction)
    truth[rng.random(size) < ignored] = 255
    return truth, prediction


def within(pixel, distance, size):
    """All pixels at most `distance` rows and columns away."""
    for row in range(max(0, pixel[0] - distance), min(size[0], pixel[0] + distance + 1)):
        for column in range(max(0, pixel[1] - distance), min(size[1], pixel[1] + distance + 1)):
            yield row, column


def slow_band(ids, counted, k, distance):
    """The pixels of class k with a counted pixel of another class within the distance."""
    return {
        pixel
        for pixel in np.ndindex(ids.shape)
        if counted[pixel] and ids[pixel] == k
        and any(counted[other] and ids[other] != k for other in within(pixel, distance, ids.shape))
    }  # fmt: skip


def slow_counts(truth, prediction, num_classes, distance):
    counted, rows = truth != 255, []
    for k in range(num_classes):
        bands = [slow_band(ids, counted, k, distance) for ids in (truth, prediction)]
        lines = [slow_band(ids, counted, k, 1) for ids in (truth, prediction)]
        met = [sum(not other.isdisjoint(within(pixel, distance, truth.shape)) for pixel in line)
               for line, other in (lines, lines[::-1])]  # fmt: skip
        rows.append([len(bands[0] & bands[1]), len(bands[0] | bands[1]), met[0], len(lines[0]), met[1], len(lines[1])])
    return np.array(rows).T


class TestCounts:
    @pytest.mark.parametrize("distance", [1, 2, 4])
    @pytest.mark.parametrize("seed", range(4))
    def test_equal_brute_force_on_random_masks_with_ignored_pixels(self, seed, distance):
        truth, prediction = random_masks(seed)
        expected = slow_counts(truth, prediction, 5, distance)
        np.testing.assert_array_equal(boundary_counts(truth, prediction, 5, distance), expected)

    @pytest.mark.parametrize("distance", [1, 3])
    def test_bands_are_those_of_boundary_iou_away_from_the_edge_of_the_image(self, distance):
        truth, prediction = random_masks(7, size=(40, 60), ignored=0)
        counts = boundary_counts(truth, prediction, 4, distance)
        for k in range(4):
            # As published: the mask without what is left after d erosions. Beyond the edge the class goes on.
            bands = [mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), distance, border_value=1)
                     for mask in (truth == k, prediction == k)]  # fmt: skip
            assert counts[:2, k].tolist() == [(bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()]

    def test_the_edge_of_the_image_and_of_an_ignored_region_are_no_borders(self):
        truth = np.full((6, 6), 1)
        truth[:, 3] = 255
        assert not boundary_counts(truth, np.full((6, 6), 1), 2, 2).any()

    def test_a_predicted_border_within_an_ignored_region_counts_nowhere(self):
        truth, prediction = np.zeros((4, 6), int), np.zeros((4, 6), int)
        truth[:, 3:], prediction[:, 4:] = 255, 1
        assert not boundary_counts(truth, prediction, 2, 1).any()

    def test_a_border_is_seen_across_ignored_pixels_that_are_fewer_than_the_distance(self):
        truth = np.array([[0, 0, 255, 255, 1, 1]])
        prediction = np.array([[0, 0, 0, 1, 1, 1]])
        assert boundary_counts(truth, prediction, 2, 2)[:2].tolist() == [[0, 0], [0, 0]]
        assert boundary_counts(truth, prediction, 2, 3)[:2].tolist() == [[1, 1], [1, 1]]

    def test_the_distance_in_every_direction_is_that_of_the_king(self):
        truth, prediction = np.zeros((9, 9), int), np.zeros((9, 9), int)
        truth[2, 2] = prediction[4, 4] = 1
        assert boundary_counts(truth, prediction, 2, 2)[2:, 1].tolist() == [1, 1, 1, 1]
        assert boundary_counts(truth, prediction, 2, 1)[2:, 1].tolist() == [0, 1, 0, 1]

    @pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
    def test_any_integer_type_and_memory_order_gives_the_same(self, dtype):
        truth, prediction = random_masks(3)
        expected = boundary_counts(truth, prediction, 4, 2)
        found = boundary_counts(np.asfortranarray(truth.astype(dtype)), prediction.astype(dtype), 4, 2)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)

    def test_a_blank_image_and_one_pixel_give_zeros(self):
        assert not boundary_counts(np.full((3, 3), 255), np.zeros((3, 3), int), 2, 1).any()
        assert not boundary_counts(np.zeros((1, 1), int), np.zeros((1, 1), int), 2, 5).any()

    @pytest.mark.parametrize(
        ("truth", "prediction", "distance", "message"),
        [
            ([[0, 1]], [[0]], 1, r"got \(1, 2\) and \(1, 1\); expected \(H, W\) twice"),
            ([0, 1], [0, 1], 1, r"got \(2,\) and \(2,\)"),
            ([[0, 3]], [[0, 1]], 1, "the truth holds the id 3; expected 0 to 2"),
            ([[0, 1]], [[-1, 1]], 1, "the prediction holds the id -1; expected 0 to 2"),
            ([[0, 1]], [[0, 255]], 1, "the prediction holds the id 255; expected 0 to 2"),
            ([[0, 1]], [[0, 1]], 0, "got distance=0, num_classes=3; expected at least 1"),
        ],
    )
    def test_other_shapes_ids_and_distances_are_refused(self, truth, prediction, distance, message):
        with pytest.raises(SemsegError, match=message):
            boundary_counts(np.array(truth), np.array(prediction), 3, distance)


class TestScores:
    def test_hand_worked(self):
        # Two halves, the border predicted one column too far right: class 0 fills columns 0-2, predicted 0-3.
        truth, prediction = np.zeros((5, 8), int), np.zeros((5, 8), int)
        truth[:, 3:], prediction[:, 4:] = 1, 1
        exact = boundary_scores(boundary_counts(truth, prediction, 2, 1))
        assert exact["boundary_iou"].tolist() == [0, 0]
        assert exact["boundary_f"].tolist() == [1, 1]  # met within 1 pixel
        wider = boundary_scores(boundary_counts(truth, prediction, 2, 2))
        np.testing.assert_allclose(wider["boundary_iou"], [1 / 3, 1 / 3])  # columns 1-2 against 2-3; 3-4 against 4-5
        assert wider["macro_boundary_iou"] == pytest.approx(1 / 3)

    def test_a_perfect_prediction_scores_one(self):
        truth, _ = random_masks(1)
        result = boundary_scores(boundary_counts(truth, np.where(truth == 255, 0, truth), 4, 2))
        assert result["boundary_iou"].tolist() == result["boundary_f"].tolist() == [1, 1, 1, 1]
        assert result["macro_boundary_iou"] == result["macro_boundary_f"] == 1

    def test_a_border_in_only_one_of_the_two_scores_zero(self):
        truth = np.zeros((6, 6), int)
        truth[2:4, 2:4] = 1
        for pair in ((truth, np.zeros_like(truth)), (np.zeros_like(truth), truth)):
            result = boundary_scores(boundary_counts(*pair, 3, 1))
            np.testing.assert_array_equal(result["boundary_iou"], [0, 0, np.nan])
            np.testing.assert_array_equal(result["boundary_f"], [0, 0, np.nan])
            assert result["macro_boundary_f"] == 0

    def test_no_border_anywhere_is_no_score(self):
        result = boundary_scores(np.zeros((6, 3), int))
        assert np.isnan([*result["boundary_iou"], *result["boundary_f"]]).all()
        assert np.isnan([result["macro_boundary_iou"], result["macro_boundary_f"]]).all()

    def test_f_is_the_harmonic_mean_of_the_shares_met(self):
        assert boundary_scores(np.array([[0], [1], [6], [8], [1], [4]]))["macro_boundary_f"] == pytest.approx(
            2 * 0.75 * 0.25 / (0.75 + 0.25)
        )


def test_the_default_distance_is_three_quarters_of_a_percent_of_the_diagonal():
    assert [boundary_distance(size) for size in ((1024, 2048), (360, 480), (1, 1))] == [17, 4, 1]
