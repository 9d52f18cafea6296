import numpy as np
import pytest
from keras import ops
from sklearn import metrics as sk

from semseg.errors import SemsegError
from semseg.metrics.bootstrap import bootstrap_intervals
from semseg.metrics.calibration import calibration_bins, expected_calibration_error
from semseg.metrics.confusion import PER_CLASS_SCORES, class_counts, confusion_matrix, merge_classes, scores
from semseg.metrics.keras_metric import ConfusionMatrix, class_ids


def random_ids(seed=0, classes=6, size=5000):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, size).astype("uint8")
    prediction = np.where(rng.random(size) < 0.6, truth, rng.integers(0, classes, size)).astype("uint8")
    truth[rng.random(size) < 0.1] = 255
    return truth, prediction


class TestConfusionMatrix:
    def test_hand_worked(self):
        truth = np.array([[0, 0, 1], [2, 255, 1]])
        prediction = np.array([[0, 1, 1], [0, 2, 1]])
        assert confusion_matrix(truth, prediction, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]

    def test_equals_scikit_learn(self):
        truth, prediction = random_ids()
        counted = truth != 255
        expected = sk.confusion_matrix(truth[counted], prediction[counted], labels=range(6))
        np.testing.assert_array_equal(confusion_matrix(truth, prediction, 6), expected)

    def test_a_blank_image_gives_zeros(self):
        assert confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2), int), 2).tolist() == [[0, 0], [0, 0]]

    @pytest.mark.parametrize(
        ("truth", "prediction", "message"),
        [
            ([0, 3], [0, 0], "the truth holds ids 0 to 3; expected 0 to 2"),
            ([0, 0], [0, 255], "the prediction holds ids 0 to 255; expected 0 to 2"),
            ([0, 0], [0], r"got \(2,\) and \(1,\)"),
        ],
    )
    def test_ids_out_of_range_and_other_shapes_are_refused(self, truth, prediction, message):
        with pytest.raises(SemsegError, match=message):
            confusion_matrix(np.array(truth), np.array(prediction), 3)


class TestScores:
    def test_hand_worked(self):
        #                    predicted 0  1  2
        matrix = np.array([[50, 10, 0], [5, 20, 0], [5, 0, 10]])
        result = scores(matrix)
        assert result["accuracy"] == pytest.approx(80 / 100)
        np.testing.assert_allclose(result["sensitivity"], [50 / 60, 20 / 25, 10 / 15])
        np.testing.assert_allclose(result["specificity"], [30 / 40, 65 / 75, 85 / 85])
        np.testing.assert_allclose(result["precision"], [50 / 60, 20 / 30, 10 / 10])
        np.testing.assert_allclose(result["dice"], [100 / 120, 40 / 55, 20 / 25])
        np.testing.assert_allclose(result["iou"], [50 / 70, 20 / 35, 10 / 15])
        assert result["macro_iou"] == pytest.approx((50 / 70 + 20 / 35 + 10 / 15) / 3)
        assert result["micro_sensitivity"] == pytest.approx(0.8)
        assert result["micro_specificity"] == pytest.approx(180 / 200)
        assert result["micro_precision"] == pytest.approx(0.8)
        assert result["weighted_iou"] == pytest.approx(0.60 * 50 / 70 + 0.25 * 20 / 35 + 0.15 * 10 / 15)
        assert result["weighted_sensitivity"] == pytest.approx(0.8)
        assert result["micro_dice"] == pytest.approx(160 / 200)
        assert result["micro_iou"] == pytest.approx(80 / 120)

    def test_equal_scikit_learn_on_random_data_with_ignored_pixels(self):
        truth, prediction = random_ids(seed=3)
        counted = truth != 255
        result = scores(confusion_matrix(truth, prediction, 6))
        t, p = truth[counted], prediction[counted]
        assert result["accuracy"] == pytest.approx(sk.accuracy_score(t, p))
        same = {"sensitivity": sk.recall_score, "precision": sk.precision_score, "dice": sk.f1_score,
                "iou": sk.jaccard_score}  # fmt: skip
        for ours, theirs in same.items():
            np.testing.assert_allclose(result[ours], theirs(t, p, average=None))
            for average in ("macro", "micro", "weighted"):
                assert result[f"{average}_{ours}"] == pytest.approx(theirs(t, p, average=average))
        specificity = [sk.recall_score(t != k, p != k) for k in range(6)]
        np.testing.assert_allclose(result["specificity"], specificity)

    def test_a_class_absent_from_truth_and_prediction_has_no_score_and_leaves_the_mean_alone(self):
        result = scores(np.array([[4, 0, 0], [0, 6, 0], [0, 0, 0]]))
        assert np.isnan(result["iou"][2]) and np.isnan(result["dice"][2]) and np.isnan(result["sensitivity"][2])
        assert result["macro_iou"] == 1

    def test_a_class_only_predicted_scores_zero_and_weighs_nothing(self):
        result = scores(np.array([[4, 2], [0, 0]]))
        assert result["iou"][1] == result["precision"][1] == 0
        assert np.isnan(result["sensitivity"][1])
        assert result["macro_iou"] == pytest.approx(1 / 3)
        assert result["weighted_iou"] == pytest.approx(2 / 3)

    def test_a_class_never_predicted_has_no_precision_and_leaves_its_means_alone(self):
        result = scores(np.array([[4, 0], [1, 0]]))
        assert np.isnan(result["precision"][1])
        assert result["macro_precision"] == result["weighted_precision"] == 0.8
        assert result["macro_sensitivity"] == 0.5

    def test_nothing_counted_gives_nan_without_a_warning(self):
        result = scores(np.zeros((3, 3), np.int64))
        assert np.isnan([result["accuracy"], result["macro_iou"], result["micro_dice"], result["weighted_iou"]]).all()

    def test_every_name_stands_in_the_result(self):
        kinds = ("", "macro_", "micro_", "weighted_")
        assert set(scores(np.eye(2, dtype=int))) == {"accuracy"} | {
            k + name for k in kinds for name in PER_CLASS_SCORES
        }


@pytest.mark.plain
class TestMergeClasses:
    def test_equals_merging_the_ids_first(self):
        truth, prediction = random_ids(seed=1)
        groups = np.array([0, 2, 1, 2, 0, 2])
        coarse = np.where(truth == 255, 255, groups[truth % 6])
        merged = merge_classes(confusion_matrix(truth, prediction, 6), groups)
        np.testing.assert_array_equal(merged, confusion_matrix(coarse, groups[prediction], 3))

    @pytest.mark.parametrize("groups", [[0, 1], [0, -1, 1]])
    def test_anything_but_a_group_per_class_is_refused(self, groups):
        with pytest.raises(SemsegError, match=rf"got groups \[{groups[0]}, {groups[1]}.*expected 3 numbers"):
            merge_classes(np.eye(3, dtype=int), groups)


def counts_of_images(seed, images=40, classes=4):
    """Counts of images of different difficulty, `(N, 3, K)`, and their matrices."""
    rng = np.random.default_rng(seed)
    matrices = [rng.integers(0, 30, (classes, classes)) + np.diag(rng.integers(0, 300, classes)) for _ in range(images)]
    return np.stack([class_counts(matrix) for matrix in matrices]), matrices


@pytest.mark.plain
class TestBootstrapIntervals:
    def test_equal_drawing_the_images_one_by_one(self):
        counts, matrices = counts_of_images(0, images=12)
        found = bootstrap_intervals(counts, draws=4000, seed=3)
        rng = np.random.default_rng(99)
        drawn = [scores(sum(matrices[i] for i in rng.integers(0, 12, 12))) for _ in range(4000)]
        for name, interval in found.items():
            values = [score[name] for score in drawn]
            np.testing.assert_allclose(interval, np.quantile(values, [0.025, 0.975]), atol=0.1 * np.ptp(values))

    def test_hold_the_score_itself_and_narrow_with_more_images(self):
        counts, matrices = counts_of_images(1, images=20)
        whole, few, many = (scores(sum(matrices)), bootstrap_intervals(counts),
                            bootstrap_intervals(np.concatenate([counts] * 16)))  # fmt: skip
        for name in ("accuracy", "macro_iou", "macro_dice", "weighted_iou"):
            assert few[name][0] < many[name][0] < whole[name] < many[name][1] < few[name][1]
            assert np.ptp(many[name]) == pytest.approx(np.ptp(few[name]) / 4, rel=0.15)

    def test_cover_the_truth_as_often_as_they_say(self):
        rng, hits = np.random.default_rng(5), 0
        for trial in range(200):
            right = rng.binomial(100, rng.beta(8, 2, 60))  # images of 100 pixels, accuracy .8 in the mean
            counts = np.stack([np.stack([right, right * 0], 1), np.tile([100, 0], (60, 1)),
                               np.stack([right, 100 - right], 1)], axis=1)  # fmt: skip
            low, high = bootstrap_intervals(counts, draws=200, level=0.9, seed=trial)["accuracy"]
            hits += low <= 0.8 <= high
        assert 0.83 <= hits / 200 <= 0.96

    def test_one_image_gives_its_own_scores(self):
        counts, matrices = counts_of_images(2, images=1)
        for name, (low, high) in bootstrap_intervals(counts, draws=7).items():
            assert low == high == pytest.approx(scores(matrices[0])[name])

    def test_the_seed_decides(self):
        counts, _ = counts_of_images(3)
        assert bootstrap_intervals(counts, seed=1) == bootstrap_intervals(counts, seed=1)
        assert bootstrap_intervals(counts, seed=1) != bootstrap_intervals(counts, seed=2)

    def test_images_and_classes_without_pixels_are_no_matter(self):
        counts = np.zeros((3, 3, 2), int)
        assert np.isnan(bootstrap_intervals(counts)["macro_iou"]).all()
        counts[0] = [[8, 0], [10, 0], [8, 2]]
        low, high = bootstrap_intervals(counts)["accuracy"]  # a draw without the first image has no accuracy
        assert low == high == 0.8

    @pytest.mark.parametrize(
        ("shape", "arguments", "message"),
        [
            ((0, 3, 2), {}, r"got counts of shape \(0, 3, 2\); expected \(images, 3, classes\)"),
            ((4, 2, 2), {}, r"\(4, 2, 2\)"),
            ((4, 3, 2), {"draws": 0}, "got draws=0"),
            ((4, 3, 2), {"level": 95}, "level=95"),
        ],
    )
    def test_nonsense_is_refused(self, shape, arguments, message):
        with pytest.raises(SemsegError, match=message):
            bootstrap_intervals(np.ones(shape, int), **arguments)


@pytest.mark.plain
class TestCalibration:
    def test_equals_the_definition_bin_by_bin(self):
        rng = np.random.default_rng(0)
        truth, prediction = (ids.reshape(50, 100) for ids in random_ids())
        confidence = rng.random((50, 100))
        bins = calibration_bins(truth, prediction, confidence, bins=10)
        error = 0
        for b in range(10):
            chosen = (truth != 255) & (confidence > b / 10) & (confidence <= (b + 1) / 10)
            hits = (truth == prediction)[chosen]
            assert bins[:2, b].tolist() == [chosen.sum(), hits.sum()]
            assert bins[2, b] == pytest.approx(confidence[chosen].sum())
            error += chosen.sum() * abs(hits.mean() - confidence[chosen].mean())
        assert expected_calibration_error(bins) == pytest.approx(error / (truth != 255).sum())

    def test_edges_belong_to_the_bin_below_and_zero_to_the_first(self):
        confidence = np.array([0.0, 0.25, 0.5, 0.5000001, 1.0, 1.0000001])
        assert calibration_bins(np.zeros(6, int), np.zeros(6, int), confidence, bins=4)[0].tolist() == [2, 1, 1, 2]

    def test_images_add_up(self):
        truth, prediction = random_ids()
        confidence = np.random.default_rng(1).random(truth.shape).astype("float32")
        parts = [calibration_bins(truth[part], prediction[part], confidence[part]) for part in np.s_[:99, 99:]]
        np.testing.assert_allclose(sum(parts), calibration_bins(truth, prediction, confidence))

    def test_certain_and_right_is_no_error_and_certain_and_wrong_all_of_it(self):
        truth, sure = np.array([0, 1]), np.ones(2)
        assert expected_calibration_error(calibration_bins(truth, truth, sure)) == 0
        assert expected_calibration_error(calibration_bins(truth, 1 - truth, sure)) == 1

    def test_nothing_counted_is_no_score(self):
        bins = calibration_bins(np.array([255]), np.array([0]), np.array([0.5]))
        assert bins.shape == (3, 15)
        assert np.isnan(expected_calibration_error(bins))

    @pytest.mark.parametrize(
        ("confidence", "bins", "message"),
        [
            ([0.5, 3.0], 15, "got confidences 0.5 to 3; expected 0 to 1: give probabilities"),
            ([0.5, np.nan], 15, "confidences nan to nan"),
            ([0.5], 15, r"got \(2,\), \(2,\), \(1,\)"),
            ([0.5, 0.5], 0, "and 0 bins"),
        ],
    )
    def test_nonsense_is_refused(self, confidence, bins, message):
        with pytest.raises(SemsegError, match=message):
            calibration_bins(np.array([0, 1]), np.array([0, 1]), np.array(confidence), bins)


class TestKerasMetric:
    @pytest.mark.parametrize("channels", [1, 6])
    def test_equals_the_matrix_in_numpy_over_several_batches(self, channels):
        classes = max(channels, 2)
        metric = ConfusionMatrix(classes)
        rng = np.random.default_rng(0)
        expected = np.zeros((classes, classes), np.int64)
        for size in (4, 4, 1):
            logits = rng.normal(size=(size, 8, 8, channels)).astype("float32")
            truth = rng.integers(0, classes, (size, 8, 8)).astype("uint8")
            truth[rng.random(truth.shape) < 0.2] = 255
            metric.update_state(truth, logits)
            ids = logits.argmax(-1) if channels > 1 else (logits[..., 0] > 0).astype(int)
            expected += confusion_matrix(truth, ids, classes)
        np.testing.assert_array_equal(metric.matrix(), expected)
        result = {name: float(value) for name, value in metric.result().items()}
        assert result["accuracy"] == pytest.approx(scores(expected)["accuracy"], abs=1e-6)
        assert result["mean_iou"] == pytest.approx(scores(expected)["macro_iou"], abs=1e-6)
        metric.reset_state()
        assert metric.matrix().sum() == 0

    def test_counts_exactly_beyond_the_reach_of_float32_and_int32(self):
        metric = ConfusionMatrix(2)
        metric.low.assign(np.array([[2**30 - 1, 0], [0, 7]], "int32"))
        metric.high.assign(np.array([[5, 0], [0, 0]], "int32"))
        metric.update_state(np.zeros((1, 2, 2), "uint8"), np.full((1, 2, 2, 1), -1.0, "float32"))
        assert metric.matrix().tolist() == [[5 * 2**30 + 2**30 - 1 + 4, 0], [0, 7]]

    def test_a_batch_counts_exactly_beyond_the_reach_of_float32(self):
        pixels = 2**24 + 3
        metric = ConfusionMatrix(2)
        metric.update_state(np.zeros((1, 1, pixels), "uint8"), np.full((1, 1, pixels, 1), -1, "float16"))
        assert metric.matrix()[0, 0] == pixels

    def test_of_equal_logits_the_first_counts_and_nan_does_no_harm(self):
        metric = ConfusionMatrix(3)
        metric.update_state(np.array([[[2, 255, 1]]]), np.array([[[[0, 1, 1], [np.nan] * 3, [4, 4, 4]]]], "float32"))
        assert metric.matrix().tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]

    def test_nothing_counted_is_no_score(self):
        metric = ConfusionMatrix(3)
        metric.update_state(np.full((1, 2, 2), 255, "uint8"), np.zeros((1, 2, 2, 3), "float32"))
        assert all(np.isnan(float(value)) for value in metric.result().values())

    def test_absent_classes_leave_the_mean_alone(self):
        metric = ConfusionMatrix(5)
        logits = np.zeros((1, 1, 4, 5), "float32")
        logits[..., 2] = 1
        metric.update_state(np.array([[[2, 2, 2, 255]]]), logits)
        assert float(metric.result()["mean_iou"]) == 1


def test_class_ids_of_logits():
    assert ops.convert_to_numpy(class_ids(np.array([[[[-1.0], [0.1]]]]))).tolist() == [[[0, 1]]]
    assert ops.convert_to_numpy(class_ids(np.array([[[[0.0, 3.0, 1.0]]]]))).tolist() == [[[1]]]
