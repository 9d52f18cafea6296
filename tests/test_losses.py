import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import log_loss

from semseg.errors import SemsegError
from semseg.losses import (
    LOSSES,
    SegmentationLoss,
    binary_cross_entropy,
    cross_entropy,
    dice,
    inverse_frequency_weights,
    iou,
)

CHANNELS = [1, 4]


def random_case(channels, seed=0, shape=(2, 5, 6)):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, max(channels, 2), shape).astype("uint8")
    truth[rng.random(shape) < 0.2] = 255
    return truth, rng.normal(0, 2, (*shape, channels)).astype("float32")


def value(loss, truth, logits, **options):
    return float(ops.convert_to_numpy(loss(truth, logits, **options)))


def losses_for(channels):
    return [loss for name, loss in LOSSES.items() if channels == 1 or name != "binary_cross_entropy"]


def probabilities(logits):
    if logits.shape[-1] == 1:
        p = 1 / (1 + np.exp(-logits.astype(float)))
        return np.concatenate([1 - p, p], axis=-1)
    e = np.exp(logits.astype(float))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("channels", CHANNELS)
def test_cross_entropy_equals_scikit_learn_on_the_counted_pixels(channels):
    truth, logits = random_case(channels)
    counted = truth != 255
    expected = log_loss(truth[counted], probabilities(logits)[counted])
    assert value(cross_entropy, truth, logits) == pytest.approx(expected, abs=1e-5)


def test_hand_worked_cross_entropy():
    logits = np.log(np.array([[[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]], "float32"))
    assert value(cross_entropy, np.array([[[0, 2]]]), logits) == pytest.approx(
        (-np.log(0.7) - np.log(0.8)) / 2, abs=1e-6
    )
    assert value(cross_entropy, np.array([[[0, 255]]]), logits) == pytest.approx(-np.log(0.7), abs=1e-6)


def test_hand_worked_overlap_losses():
    # Class 0: truth 1 pixel with p .8, predicted mass .8 + .3; class 1: truth 1 pixel with p .7, mass .2 + .7.
    logits = np.log(np.array([[[[0.8, 0.2], [0.3, 0.7]]]], "float32"))
    truth = np.array([[[0, 1]]])
    assert value(dice, truth, logits) == pytest.approx(1 - (1.6 / 2.1 + 1.4 / 1.9) / 2, abs=1e-6)
    assert value(iou, truth, logits) == pytest.approx(1 - (0.8 / 1.3 + 0.7 / 1.2) / 2, abs=1e-6)


def test_hand_worked_binary_overlap_counts_class_1_only():
    logits = np.log(np.array([0.9 / 0.1, 0.2 / 0.8], "float32")).reshape(1, 1, 2, 1)
    truth = np.array([[[1, 0]]])
    assert value(dice, truth, logits) == pytest.approx(1 - 1.8 / 2.1, abs=1e-6)
    assert value(iou, truth, logits) == pytest.approx(1 - 0.9 / 1.2, abs=1e-6)


def test_classes_absent_from_the_truth_do_not_dilute_the_overlap():
    logits = np.full((1, 2, 2, 5), -20.0, "float32")
    logits[..., 3] = 20
    truth = np.full((1, 2, 2), 3, "uint8")
    assert value(dice, truth, logits) == pytest.approx(0, abs=1e-6)
    assert value(iou, truth, logits) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_perfect_prediction_costs_nothing(channels):
    truth, _ = random_case(channels)
    ids = np.where(truth == 255, 0, truth)
    logits = 60.0 * (ids[..., None] == np.arange(channels)) if channels > 1 else 60.0 * (2 * ids[..., None] - 1.0)
    for loss in losses_for(channels):
        assert value(loss, truth, logits.astype("float32")) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
def test_ignored_pixels_change_the_value_of_no_loss(channels):
    truth, logits = random_case(channels)
    other = logits.copy()
    other[truth == 255] = 1e4
    for loss in losses_for(channels):
        assert value(loss, truth, other) == pytest.approx(value(loss, truth, logits), abs=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_batch_of_ignored_pixels_costs_nothing(channels):
    _, logits = random_case(channels)
    for loss in losses_for(channels):
        assert value(loss, np.full(logits.shape[:3], 255, "uint8"), logits) == 0


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite_with_large_logits(channels, dtype):
    truth, logits = random_case(channels)
    for loss in losses_for(channels):
        assert np.isfinite(value(loss, truth, ops.cast(1000 * logits, dtype)))


@pytest.mark.parametrize(
    ("name", "channels"), [(name, c) for name in LOSSES for c in CHANNELS if c == 1 or name != "binary_cross_entropy"]
)
def test_descending_a_loss_reaches_the_truth_and_leaves_ignored_logits_alone(name, channels):
    truth, logits = random_case(channels, shape=(1, 4, 4))
    layer = keras.layers.Dense(16 * channels, use_bias=False, kernel_initializer=keras.initializers.Zeros())
    model = keras.Sequential([keras.Input((1,)), layer, keras.layers.Reshape((4, 4, channels))])
    layer.kernel.assign(logits.reshape(1, -1))
    model.compile(keras.optimizers.SGD(0.5), SegmentationLoss(name))
    first = value(LOSSES[name], truth, logits)
    for _ in range(20):
        model.train_on_batch(np.ones((1, 1), "float32"), truth)
    after = ops.convert_to_numpy(layer.kernel).reshape(logits.shape)
    assert value(LOSSES[name], truth, after) < first
    ignored = truth == 255
    assert ignored.any()
    np.testing.assert_array_equal(after[ignored], logits[ignored])
    assert not np.allclose(after[~ignored], logits[~ignored])


def test_a_sum_of_losses_is_their_sum_and_survives_its_configuration():
    truth, logits = random_case(4)
    both = SegmentationLoss("cross_entropy+dice")
    expected = value(cross_entropy, truth, logits) + value(dice, truth, logits)
    assert value(both, truth, logits) == pytest.approx(expected, abs=1e-6)
    again = SegmentationLoss.from_config(both.get_config())
    assert value(again, truth, logits) == pytest.approx(expected, abs=1e-6)


def test_an_unknown_loss_lists_the_known():
    with pytest.raises(
        SemsegError, match="no loss 'dicee'; choose from cross_entropy, binary_cross_entropy, dice, iou"
    ):
        SegmentationLoss("cross_entropy+dicee")


def test_binary_cross_entropy_refuses_many_logits():
    with pytest.raises(SemsegError, match="got 4 logits per pixel; expected 1"):
        binary_cross_entropy(*random_case(4))


class TestClassWeights:
    def test_hand_worked_cross_entropy(self):
        logits = np.log(np.array([[[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]]], "float32"))
        truth = np.array([[[0, 2, 255]]])
        expected = (0.5 * -np.log(0.7) + 3 * -np.log(0.8)) / 3.5
        assert value(cross_entropy, truth, logits, class_weights=[0.5, 9, 3]) == pytest.approx(expected, abs=1e-6)

    def test_hand_worked_binary_cross_entropy(self):
        logits = np.log(np.array([0.9 / 0.1, 0.2 / 0.8, 1], "float32")).reshape(1, 1, 3, 1)
        expected = (0.1 * -np.log(0.9) + 0.3 * -np.log(0.8)) / 0.4
        for loss in (binary_cross_entropy, cross_entropy):
            given = value(loss, np.array([[[1, 0, 255]]]), logits, class_weights=[0.3, 0.1])
            assert given == pytest.approx(expected, abs=1e-6)

    def test_hand_worked_overlap_losses(self):
        logits = np.log(np.array([[[[0.8, 0.2], [0.3, 0.7]]]], "float32"))
        truth = np.array([[[0, 1]]])
        expected = 1 - (3 * 1.6 / 2.1 + 1.4 / 1.9) / 4
        assert value(dice, truth, logits, class_weights=[3, 1]) == pytest.approx(expected, abs=1e-6)
        expected = 1 - (3 * 0.8 / 1.3 + 0.7 / 1.2) / 4
        assert value(iou, truth, logits, class_weights=[3, 1]) == pytest.approx(expected, abs=1e-6)

    def test_a_single_logit_leaves_the_overlap_as_it_is(self):
        truth, logits = random_case(1)
        for loss in (dice, iou):
            assert value(loss, truth, logits, class_weights=[0.2, 7]) == value(loss, truth, logits)

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_equal_weights_of_any_size_change_nothing(self, channels):
        truth, logits = random_case(channels)
        for loss in losses_for(channels):
            for size in (1e-4, 1.0, 50.0):
                given = value(loss, truth, logits, class_weights=[size] * max(channels, 2))
                assert given == pytest.approx(value(loss, truth, logits), rel=1e-5)

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_ignored_pixels_and_classes_of_weight_0_count_nowhere(self, channels):
        truth, logits = random_case(channels)
        weights = [0.0] + [1.0] * (max(channels, 2) - 1)
        other = logits.copy()
        other[truth == 255] = 1e4
        for loss in losses_for(channels):
            given = value(loss, truth, logits, class_weights=weights)
            assert value(loss, truth, other, class_weights=weights) == pytest.approx(given, abs=1e-6)
        other = logits.copy()
        other[truth == 0] = 50
        given = value(cross_entropy, truth, logits, class_weights=weights)
        assert value(cross_entropy, truth, other, class_weights=weights) == pytest.approx(given, abs=1e-6)

    @pytest.mark.parametrize("channels", CHANNELS)
    @pytest.mark.parametrize("ids", [255, 0])
    def test_a_batch_without_a_weighted_pixel_costs_nothing(self, channels, ids):
        _, logits = random_case(channels)
        weights = [0.0] + [2.0] * (max(channels, 2) - 1)
        for loss in losses_for(channels):
            given = value(loss, np.full(logits.shape[:3], ids, "uint8"), logits, class_weights=weights)
            assert given == 0

    def test_a_weighted_sum_survives_its_configuration_and_trains(self):
        truth, logits = random_case(4, shape=(1, 4, 4))
        loss = SegmentationLoss("cross_entropy+dice", np.array([1, 2, 3, 0.5]))
        again = SegmentationLoss.from_config(loss.get_config())
        parts = [value(part, truth, logits, class_weights=[1, 2, 3, 0.5]) for part in (cross_entropy, dice)]
        assert value(again, truth, logits) == pytest.approx(sum(parts), abs=1e-6)
        assert loss.get_config()["class_weights"] == [1, 2, 3, 0.5]
        layer = keras.layers.Dense(64, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), layer, keras.layers.Reshape((4, 4, 4))])
        model.compile(keras.optimizers.SGD(0.5), again)
        results = [float(model.train_on_batch(np.ones((1, 1), "float32"), truth)) for _ in range(5)]
        assert np.all(np.diff(results) < 0)

    @pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1, np.nan], [], [np.inf, 1]])
    def test_senseless_weights_are_refused(self, weights):
        with pytest.raises(SemsegError, match=r"class weights: got \[.*expected a finite number"):
            SegmentationLoss("dice", weights)

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_a_weight_per_class_is_expected(self, channels):
        truth, logits = random_case(channels)
        with pytest.raises(SemsegError, match=f"got 3 of them; expected {max(channels, 2)}, one per class"):
            cross_entropy(truth, logits, class_weights=[1, 1, 1])


class TestInverseFrequencyWeights:
    def test_by_hand(self):
        expected = np.array([1 / 0.8, 0, 1 / 0.6]) * 2 / (1 / 0.8 + 1 / 0.6)
        np.testing.assert_allclose(inverse_frequency_weights([0.64, 0, 0.36]), expected)

    def test_a_tiny_class_does_not_blow_up(self):
        weights = inverse_frequency_weights([0.9, 0.09999, 1e-5, 0])
        assert weights[:3].mean() == pytest.approx(1) and weights[3] == 0
        assert weights[2] / weights[0] == pytest.approx(np.sqrt(0.9 / 1e-3))

    def test_shares_without_a_class_are_refused(self):
        with pytest.raises(SemsegError, match="one of them above 0"):
            inverse_frequency_weights([0, 0])
