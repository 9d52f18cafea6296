import numpy as np
import pytest
from keras import ops
from sklearn import metrics as sk

from semseg.errors import SemsegError
from semseg.metrics import ConfusionMatrix, class_ids, confusion_matrix, scores


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
        np.testing.assert_allclose(result["dice"], [100 / 120, 40 / 55, 20 / 25])
        np.testing.assert_allclose(result["iou"], [50 / 70, 20 / 35, 10 / 15])
        assert result["macro_iou"] == pytest.approx((50 / 70 + 20 / 35 + 10 / 15) / 3)
        assert result["micro_sensitivity"] == pytest.approx(0.8)
        assert result["micro_specificity"] == pytest.approx(180 / 200)
        assert result["micro_dice"] == pytest.approx(160 / 200)
        assert result["micro_iou"] == pytest.approx(80 / 120)

    def test_equal_scikit_learn_on_random_data_with_ignored_pixels(self):
        truth, prediction = random_ids(seed=3)
        counted = truth != 255
        result = scores(confusion_matrix(truth, prediction, 6))
        t, p = truth[counted], prediction[counted]
        assert result["accuracy"] == pytest.approx(sk.accuracy_score(t, p))
        for ours, theirs in (("sensitivity", sk.recall_score), ("dice", sk.f1_score), ("iou", sk.jaccard_score)):
            np.testing.assert_allclose(result[ours], theirs(t, p, average=None))
            assert result[f"macro_{ours}"] == pytest.approx(theirs(t, p, average="macro"))
            assert result[f"micro_{ours}"] == pytest.approx(theirs(t, p, average="micro"))
        specificity = [sk.recall_score(t != k, p != k) for k in range(6)]
        np.testing.assert_allclose(result["specificity"], specificity)

    def test_a_class_absent_from_truth_and_prediction_has_no_score_and_leaves_the_mean_alone(self):
        result = scores(np.array([[4, 0, 0], [0, 6, 0], [0, 0, 0]]))
        assert np.isnan(result["iou"][2]) and np.isnan(result["dice"][2]) and np.isnan(result["sensitivity"][2])
        assert result["macro_iou"] == 1

    def test_a_class_only_predicted_scores_zero(self):
        result = scores(np.array([[4, 2], [0, 0]]))
        assert result["iou"][1] == 0
        assert np.isnan(result["sensitivity"][1])

    def test_nothing_counted_gives_nan_without_a_warning(self):
        result = scores(np.zeros((3, 3), np.int64))
        assert np.isnan(result["accuracy"]) and np.isnan(result["macro_iou"]) and np.isnan(result["micro_dice"])


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
