import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage
from sklearn.metrics import log_loss

from semseg.errors import SemsegError
from semseg.losses import (
    LOSSES,
    SegmentationLoss,
    binary_cross_entropy,
    cl_dice,
    cross_entropy,
    dice,
    effective_number_weights,
    focal,
    focal_tversky,
    inverse_frequency_weights,
    iou,
    lovasz,
    tversky,
)

CHANNELS = [1, 4]
CASES = [
    (name, channels) for name in LOSSES for channels in CHANNELS if (name, channels) != ("binary_cross_entropy", 4)
]
every_loss = pytest.mark.parametrize(("name", "channels"), CASES)


def random_case(channels, seed=0, shape=(2, 3, 5)):  # one shape nearly everywhere: JAX compiles for each
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, max(channels, 2), shape).astype("uint8")
    truth[rng.random(shape) < 0.2] = 255
    return truth, rng.normal(0, 2, (*shape, channels)).astype("float32")


def random_weights(channels):
    return [0.3, 2.0, 0.0, 1.1][: max(channels, 2)]


def value(loss, truth, logits, **options):
    return float(ops.convert_to_numpy(loss(truth, logits, **options)))


def gradient(loss, truth, logits, **options):
    """By the backend's own differentiation; float32, or the logits' dtype."""
    if keras.backend.backend() == "torch":
        import torch

        logits = ops.convert_to_tensor(logits).detach().requires_grad_()
        (found,) = torch.autograd.grad(loss(truth, logits, **options), logits)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        logits = ops.convert_to_tensor(logits)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            result = loss(truth, logits, **options)
        found = tape.gradient(result, logits)
    else:
        import jax

        found = jax.grad(lambda x: loss(truth, x, **options))(ops.convert_to_tensor(logits))
    return ops.convert_to_numpy(ops.cast(found, "float32"))


# The losses a second time, in float64 and pixel by pixel, from their papers.


def probabilities(logits):
    z = np.asarray(logits, float)
    if z.shape[-1] == 1:
        z = np.concatenate([0 * z, z], axis=-1)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected_pixel_loss(truth, logits, weights=None, gamma=0.0, smoothing=0.0):
    total = weight_sum = 0.0
    for t, p in zip(truth.ravel(), probabilities(logits).reshape(truth.size, -1), strict=True):
        if t == 255:
            continue
        target = np.full(len(p), smoothing / len(p))
        target[t] += 1 - smoothing
        weight = 1.0 if weights is None else weights[t]
        total += weight * (1 - p[t]) ** gamma * -(target * np.log(p)).sum()
        weight_sum += weight
    return total / weight_sum if weight_sum else 0.0


def mean_over_present(truth, logits, weights, loss_of_class):
    """Weighted mean of loss_of_class(is it of the class, error, probability) over the classes that the truth holds."""
    counted, binary = truth != 255, logits.shape[-1] == 1
    values, p = [], probabilities(logits)
    for k in [1] if binary else range(logits.shape[-1]):
        y = truth[counted] == k
        weight = 1.0 if binary or weights is None else weights[k]
        if y.any() and weight:
            values.append((weight, loss_of_class(y, p[counted][:, k])))
    return sum(w * v for w, v in values) / sum(w for w, _ in values) if values else 0.0


def expected_tversky(truth, logits, weights=None, alpha=0.3, beta=0.7, power=1.0):
    def of_class(y, p):
        tp, fp, fn = p[y].sum(), p[~y].sum(), (1 - p[y]).sum()
        return (1 - tp / (tp + alpha * fp + beta * fn)) ** power

    return mean_over_present(truth, logits, weights, of_class)


def lovasz_by_levels(y, errors):
    """The integral over all levels of 1 - IoU when the pixels with at least that error are wrong, by sets."""
    truth, total, below = set(np.flatnonzero(y)), 0.0, 0.0
    for level in sorted(set(errors[errors > 0])):
        wrong = set(np.flatnonzero(errors >= level))
        predicted = (truth - wrong) | (wrong - truth)
        total += (level - below) * (1 - len(truth & predicted) / len(truth | predicted))
        below = level
    return total


def expected_lovasz(truth, logits, weights=None):
    if logits.shape[-1] > 1:
        of_class = lambda y, p: lovasz_by_levels(y, np.where(y, 1 - p, p))  # noqa: E731
        return mean_over_present(truth, logits, weights, of_class)
    z, y = np.asarray(logits, float)[truth != 255, 0], truth[truth != 255] == 1
    return lovasz_by_levels(y, np.where(y, 1 - z, 1 + z)) if y.any() else 0.0


def skeleton_of(image, iterations):
    """Of one map, by scipy's morphology."""
    cross, found = ndimage.generate_binary_structure(2, 1), np.zeros(image.shape)
    for _ in range(iterations):
        smaller = ndimage.grey_erosion(image, footprint=cross, mode="constant", cval=np.inf)
        opened = ndimage.grey_dilation(smaller, size=(3, 3), mode="constant", cval=-np.inf)
        found += (1 - found) * np.maximum(image - opened, 0)
        image = smaller
    return found + (1 - found) * image


def expected_cl_dice(truth, logits, weights=None, iterations=5):
    counted, binary, values = truth != 255, logits.shape[-1] == 1, []
    for k in [1] if binary else range(logits.shape[-1]):
        y, p = counted * (truth == k), counted * probabilities(logits)[..., k]
        weight = 1.0 if binary or weights is None else weights[k]
        if y.any() and weight:
            lines = [np.array([skeleton_of(image.astype(float), iterations) for image in maps]) for maps in (p, y)]
            precision = (lines[0] * y).sum() / lines[0].sum()
            sensitivity = (lines[1] * p).sum() / lines[1].sum()
            values.append((weight, 1 - 2 * precision * sensitivity / (precision + sensitivity)))
    return sum(w * v for w, v in values) / sum(w for w, _ in values) if values else 0.0


EXPECTED = {
    "cross_entropy": expected_pixel_loss,
    "binary_cross_entropy": expected_pixel_loss,
    "dice": lambda *case: expected_tversky(*case, alpha=0.5, beta=0.5),
    "iou": lambda *case: expected_tversky(*case, alpha=1, beta=1),
    "tversky": expected_tversky,
    "focal": lambda *case: expected_pixel_loss(*case, gamma=2),
    "focal_tversky": lambda *case: expected_tversky(*case, power=0.75),
    "lovasz": expected_lovasz,
    "cl_dice": expected_cl_dice,
}


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_equal_a_float64_reference_and_its_finite_differences(name, channels, weighted):
    truth, logits = random_case(channels)
    weights = random_weights(channels) if weighted else None
    assert value(LOSSES[name], truth, logits, class_weights=weights) == pytest.approx(
        EXPECTED[name](truth, logits, weights), abs=1e-5
    )
    differences, step = np.zeros(logits.size), 1e-5
    for i in range(logits.size):
        moved = np.zeros(logits.size)
        moved[i] = step
        up, down = (logits + sign * moved.reshape(logits.shape) for sign in (1, -1))
        differences[i] = (EXPECTED[name](truth, up, weights) - EXPECTED[name](truth, down, weights)) / (2 * step)
    found = gradient(LOSSES[name], truth, logits, class_weights=weights)
    np.testing.assert_allclose(found.ravel(), differences, atol=1e-5)
    assert not found[truth == 255].any()


@pytest.mark.parametrize("channels", CHANNELS)
def test_parameters_do_what_the_formulas_say(channels):
    truth, logits = random_case(channels)
    for alpha, beta in ((0.2, 1.5), (1, 0), (0, 1)):
        given = value(tversky, truth, logits, alpha=alpha, beta=beta)
        assert given == pytest.approx(expected_tversky(truth, logits, alpha=alpha, beta=beta), abs=1e-5)
        given = value(focal_tversky, truth, logits, alpha=alpha, beta=beta, gamma=2)
        assert given == pytest.approx(expected_tversky(truth, logits, None, alpha, beta, 0.5), abs=1e-5)
    for gamma in (0, 0.5, 5):
        given = value(focal, truth, logits, gamma=gamma)
        assert given == pytest.approx(expected_pixel_loss(truth, logits, gamma=gamma), abs=1e-5)
        assert np.isfinite(gradient(focal, truth, 50 * logits, gamma=gamma)).all()
    for smoothing in (0.1, 0.5):
        given = value(cross_entropy, truth, logits, label_smoothing=smoothing)
        assert given == pytest.approx(expected_pixel_loss(truth, logits, smoothing=smoothing), abs=1e-5)


class TestByHand:
    def test_cross_entropy(self):
        logits = np.log(np.array([[[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]]], "float32"))
        truth = np.array([[[0, 2, 255]]])
        assert value(cross_entropy, truth, logits) == pytest.approx((-np.log(0.7) - np.log(0.8)) / 2, abs=1e-6)
        expected = (0.5 * -np.log(0.7) + 3 * -np.log(0.8)) / 3.5
        assert value(cross_entropy, truth, logits, class_weights=[0.5, 9, 3]) == pytest.approx(expected, abs=1e-6)
        assert value(cross_entropy, truth[..., :1], logits[..., :1, :], label_smoothing=0.3) == pytest.approx(
            -0.8 * np.log(0.7) - 0.1 * np.log(0.2) - 0.1 * np.log(0.1), abs=1e-6
        )

    def test_binary_cross_entropy(self):
        logits = np.log(np.array([0.9 / 0.1, 0.2 / 0.8, 1], "float32")).reshape(1, 1, 3, 1)
        expected = (0.1 * -np.log(0.9) + 0.3 * -np.log(0.8)) / 0.4
        for loss in (binary_cross_entropy, cross_entropy):
            given = value(loss, np.array([[[1, 0, 255]]]), logits, class_weights=[0.3, 0.1])
            assert given == pytest.approx(expected, abs=1e-6)
        given = value(binary_cross_entropy, np.array([[[1, 255, 255]]]), logits, label_smoothing=0.2)
        assert given == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1), abs=1e-6)

    def test_focal(self):
        logits = np.log(np.array([[[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]]], "float32"))
        expected = (0.3**2 * -np.log(0.7) + 0.2**2 * -np.log(0.8)) / 2
        assert value(focal, np.array([[[0, 2]]]), logits) == pytest.approx(expected, abs=1e-6)

    def test_overlap(self):
        # Class 0: truth 1 pixel with p .8, predicted mass .8 + .3; class 1: truth 1 pixel with p .7, mass .2 + .7.
        logits = np.log(np.array([[[[0.8, 0.2], [0.3, 0.7]]]], "float32"))
        truth = np.array([[[0, 1]]])
        assert value(dice, truth, logits) == pytest.approx(1 - (1.6 / 2.1 + 1.4 / 1.9) / 2, abs=1e-6)
        assert value(iou, truth, logits) == pytest.approx(1 - (0.8 / 1.3 + 0.7 / 1.2) / 2, abs=1e-6)
        expected = 1 - (3 * 1.6 / 2.1 + 1.4 / 1.9) / 4
        assert value(dice, truth, logits, class_weights=[3, 1]) == pytest.approx(expected, abs=1e-6)
        first, second = 1 - 0.8 / (0.8 + 2 * 0.3 + 5 * 0.2), 1 - 0.7 / (0.7 + 2 * 0.2 + 5 * 0.3)
        given = value(tversky, truth, logits, alpha=2, beta=5)
        assert given == pytest.approx((first + second) / 2, abs=1e-6)
        given = value(focal_tversky, truth, logits, alpha=2, beta=5, gamma=2)
        assert given == pytest.approx((first**0.5 + second**0.5) / 2, abs=1e-6)

    def test_overlap_of_a_single_logit_counts_class_1_only(self):
        logits = np.log(np.array([0.9 / 0.1, 0.2 / 0.8], "float32")).reshape(1, 1, 2, 1)
        truth = np.array([[[1, 0]]])
        assert value(dice, truth, logits) == pytest.approx(1 - 1.8 / 2.1, abs=1e-6)
        assert value(iou, truth, logits) == pytest.approx(1 - 0.9 / 1.2, abs=1e-6)
        assert value(tversky, truth, logits) == pytest.approx(1 - 0.9 / (0.9 + 0.3 * 0.2 + 0.7 * 0.1), abs=1e-6)
        for loss in (dice, iou, tversky, focal_tversky, lovasz):
            assert value(loss, truth, logits, class_weights=[0.2, 7]) == value(loss, truth, logits)

    def test_lovasz(self):
        # Class 0 has one of three pixels. Errors .9 .6 .2, the second one its own: IoU 1/2, then 0 of 2, then 0 of 3.
        logits = np.log(np.array([[[[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]]], "float32"))
        truth = np.array([[[1, 0, 1]]])
        first = 0.9 * 1 / 2 + 0.6 * 1 / 2
        second = 0.9 * 1 / 2 + 0.6 * 1 / 6 + 0.2 * 1 / 3  # two of three: IoU 1/2, 1/3, 0
        assert value(lovasz, truth, logits) == pytest.approx((first + second) / 2, abs=1e-6)

    def test_lovasz_hinge(self):
        logits = np.array([0.5, 1.5, -3, 2], "float32").reshape(1, 1, 4, 1)  # errors 2.5 (not there), .5, none
        given = value(lovasz, np.array([[[1, 0, 0, 1]]]), logits)
        assert given == pytest.approx(2.5 * 1 / 3 + 0.5 * 1 / 3, abs=1e-6)  # IoU 2/3, then 1/3

    def test_a_gap_in_a_thin_line_costs_as_much_as_one_in_a_thick_line(self):
        for width in (1, 3, 5):
            truth = np.zeros((1, 15, 30), np.uint8)
            truth[:, 5 : 5 + width] = 1
            logits = np.where(truth == 1, 30, -30)[..., None].astype("float32")
            logits[:, :, 10:16] = -30  # a fifth of the line
            skeleton = skeleton_of((logits[0, ..., 0] > 0).astype(float), 5)
            assert not skeleton[truth[0] == 0].any()  # all that is predicted is right
            expected = 1 - 2 * 0.8 / 1.8
            assert value(cl_dice, truth, logits) == pytest.approx(expected, abs=0.03)
            thicker = np.where(ndimage.binary_dilation(truth[0])[None, ..., None], 30, -30).astype("float32")
            assert value(cl_dice, truth, thicker) < 0.1 < value(dice, truth, thicker)  # that it is a line is right

    def test_more_iterations_find_the_middle_of_thicker_lines(self):
        truth, logits = random_case(4, shape=(1, 9, 11))
        for iterations in (1, 2, 7):
            given = value(cl_dice, truth, logits, iterations=iterations)
            assert given == pytest.approx(expected_cl_dice(truth, logits, None, iterations), abs=1e-5)
        with pytest.raises(SemsegError, match="cl_dice: got iterations=0; expected a finite number of at least 1"):
            cl_dice(truth, logits, iterations=0)


def test_cross_entropy_equals_scikit_learn_on_the_counted_pixels():
    truth, logits = random_case(4)
    counted = truth != 255
    expected = log_loss(truth[counted], probabilities(logits)[counted])
    assert value(cross_entropy, truth, logits) == pytest.approx(expected, abs=1e-5)


def test_a_large_batch_loses_no_digits():
    truth, logits = random_case(3, shape=(2, 256, 256))
    assert value(dice, truth, logits) == pytest.approx(expected_tversky(truth, logits, None, 0.5, 0.5), abs=1e-6)


@every_loss
def test_a_perfect_prediction_costs_nothing(name, channels):
    truth, _ = random_case(channels)
    ids = np.where(truth == 255, 0, truth)[..., None]
    logits = 60.0 * (ids == np.arange(channels)) if channels > 1 else 60.0 * (2 * ids - 1.0)
    assert value(LOSSES[name], truth, logits.astype("float32")) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradient(LOSSES[name], truth, logits.astype("float32")), 0, atol=1e-6)
    one = np.where(truth == 255, 255, 1)  # the other classes are absent, and nowhere predicted
    logits = np.full_like(logits, -60 if channels > 1 else 60, "float32")
    logits[..., min(1, channels - 1)] = 60
    assert value(LOSSES[name], one, logits) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
def test_with_label_smoothing_a_perfect_prediction_costs_the_entropy_of_the_blurred_truth(channels):
    truth, k = np.ones((2, 3, 5), int), max(channels, 2)
    blurred = np.full(k, 0.1 / k)
    blurred[1] += 0.9
    logits = np.log(blurred / blurred[0])[-channels:] if channels > 1 else np.log(blurred[1:] / blurred[0])
    logits = np.broadcast_to(logits, (*truth.shape, channels)).astype("float32")
    entropy = -(blurred * np.log(blurred)).sum()
    assert value(cross_entropy, truth, logits, label_smoothing=0.1) == pytest.approx(entropy, abs=1e-6)
    np.testing.assert_allclose(gradient(cross_entropy, truth, logits, label_smoothing=0.1), 0, atol=1e-6)


@every_loss
def test_ignored_pixels_change_neither_value_nor_gradient(name, channels):
    truth, logits = random_case(channels)
    other = logits.copy()
    other[truth == 255] = 1e4
    for weights in (None, random_weights(channels)):
        options = {"class_weights": weights}
        given, changed = (value(LOSSES[name], truth, z, **options) for z in (logits, other))
        assert changed == pytest.approx(given, abs=1e-6)
        found = gradient(LOSSES[name], truth, other, **options)
        np.testing.assert_allclose(found, gradient(LOSSES[name], truth, logits, **options), atol=1e-7)
        assert not found[truth == 255].any()


@every_loss
@pytest.mark.parametrize("ids", [255, 0])
def test_a_batch_without_a_weighted_pixel_costs_nothing(name, channels, ids):
    _, logits = random_case(channels)
    truth, weights = np.full(logits.shape[:3], ids, "uint8"), [0.0] + [2.0] * (max(channels, 2) - 1)
    assert value(LOSSES[name], truth, logits, class_weights=weights) == 0
    assert not gradient(LOSSES[name], truth, logits, class_weights=weights).any()


@every_loss
@pytest.mark.parametrize(("dtype", "size"), [("float16", 60000.0), ("bfloat16", 1e38)])
def test_half_precision_stays_finite_with_the_largest_logits(name, channels, dtype, size):
    truth, logits = random_case(channels)
    logits = ops.cast(size * np.sign(logits), dtype)
    alone = np.full_like(truth, 255)
    alone[0, 0, 0] = 1
    weights = random_weights(channels)
    for ids, w in ((truth, None), (truth, weights), (np.ones_like(truth), None), (alone, None), (alone, weights)):
        assert np.isfinite(value(LOSSES[name], ids, logits, class_weights=w))
        assert np.isfinite(gradient(LOSSES[name], ids, logits, class_weights=w)).all()


@every_loss
def test_descending_a_loss_reaches_the_truth(name, channels):
    truth, logits = random_case(channels)
    loss, start = SegmentationLoss(name), logits
    for _ in range(4):
        logits = logits - 0.5 * gradient(loss, truth, logits)
    assert value(loss, truth, logits) < value(loss, truth, start)


class TestSegmentationLoss:
    def test_a_sum_is_the_sum_and_survives_its_configuration(self):
        truth, logits = random_case(4)
        weights = np.array([1, 2, 3, 0.5])
        loss = SegmentationLoss("ce+dice+lovasz+jaccard+focal", weights, label_smoothing=0.1)
        smooth = value(cross_entropy, truth, logits, class_weights=weights, label_smoothing=0.1)
        others = [value(part, truth, logits, class_weights=weights) for part in (dice, lovasz, iou, focal)]
        assert value(loss, truth, logits) == pytest.approx(smooth + sum(others), abs=1e-5)
        again = SegmentationLoss.from_config(loss.get_config())
        assert value(again, truth, logits) == value(loss, truth, logits)
        assert again.get_config() == loss.get_config()
        assert loss.get_config()["names"] == "cross_entropy+dice+lovasz+iou+focal"
        assert loss.get_config()["class_weights"] == [1, 2, 3, 0.5]

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_it_trains_photos_of_any_size(self, channels):
        model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(channels, 1)])
        model.compile(keras.optimizers.SGD(0.1), SegmentationLoss("ce+tversky+lovasz", label_smoothing=0.1))
        truth, _ = random_case(channels)
        photos = np.random.default_rng(0).normal(size=(*truth.shape, 3))
        results = [float(model.train_on_batch(photos, truth)) for _ in range(4)]
        assert np.all(np.diff(results) < 0)

    def test_an_unknown_name_lists_the_known(self):
        known = r"cross_entropy \(ce\), binary_cross_entropy \(bce\), dice, iou \(jaccard\), .*, cl_dice \(cldice\), "
        with pytest.raises(SemsegError, match=f"no loss 'dicee'; choose from {known}joined by"):
            SegmentationLoss("ce+dicee")

    def test_label_smoothing_without_a_use_is_refused(self):
        with pytest.raises(
            SemsegError, match=r"got 0.1 with the loss dice.focal, .* one of cross_entropy, binary_cross"
        ):
            SegmentationLoss("dice+focal", label_smoothing=0.1)
        for smoothing in (1.0, -0.1, np.nan):
            with pytest.raises(SemsegError, match=f"`label_smoothing`: got {smoothing}; expected at least 0 and below"):
                SegmentationLoss("ce", label_smoothing=smoothing)

    @pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1, np.nan], [], [np.inf, 1]])
    def test_senseless_weights_are_refused(self, weights):
        with pytest.raises(SemsegError, match=r"class weights: got \[.*expected a finite number"):
            SegmentationLoss("dice", weights)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_weight_per_class_is_expected(channels):
    with pytest.raises(SemsegError, match=f"got 3 of them; expected {max(channels, 2)}, one per class"):
        cross_entropy(*random_case(channels), class_weights=[1, 1, 1])


def test_wrong_parameters_and_logits_are_refused():
    case = random_case(4)
    with pytest.raises(SemsegError, match="got 4 logits per pixel; expected 1"):
        binary_cross_entropy(*case)
    with pytest.raises(SemsegError, match=r"^tversky: got alpha=-1; expected a finite number of at least 0"):
        tversky(*case, alpha=-1)
    with pytest.raises(SemsegError, match=r"focal_tversky: got gamma=0.5; expected a finite number of at least 1"):
        focal_tversky(*case, gamma=0.5)
    with pytest.raises(SemsegError, match=r"^focal: got gamma=nan; expected"):
        focal(*case, gamma=np.nan)


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


class TestEffectiveNumberWeights:
    def test_by_hand(self):
        weights = effective_number_weights([1, 0, 2], beta=0.9)  # 1 / 1 and 1 / (1 + .9)
        np.testing.assert_allclose(weights, np.array([1, 0, 1 / 1.9]) * 2 / (1 + 1 / 1.9))

    def test_beta_goes_from_equal_weights_to_the_inverse(self):
        np.testing.assert_allclose(effective_number_weights([7, 1, 3], beta=0), 1)
        weights = effective_number_weights([100, 1, 10], beta=1 - 1e-9)
        np.testing.assert_allclose(weights / weights[0], [1, 100, 10], rtol=1e-6)

    @pytest.mark.parametrize("size", [1, 1000])
    def test_by_default_only_rare_classes_are_lifted_whatever_the_size_of_the_masks(self, size):
        weights = effective_number_weights(np.array([800_000, 189_000, 10_000, 1000, 1, 0]) * size)
        expected = 1 / (1 - np.exp([-80, -18.9, -1, -0.1, -0.1]))
        np.testing.assert_allclose(weights[:5] / weights[0], expected, rtol=1e-3)
        assert weights[:5].mean() == pytest.approx(1) and weights[5] == 0

    def test_a_handful_of_pixels_is_no_trouble(self):
        np.testing.assert_allclose(effective_number_weights([3, 1]), 1)

    def test_what_makes_no_sense_is_refused(self):
        with pytest.raises(SemsegError, match=r"got beta=1.0; expected at least 0 and below 1"):
            effective_number_weights([1, 2], beta=1.0)
        with pytest.raises(SemsegError, match="one of them above 0"):
            effective_number_weights([0, 0])


@pytest.mark.parametrize("channels", CHANNELS)
def test_truth_with_an_axis_of_one_is_taken_as_without_and_other_shapes_are_refused(channels):
    truth, logits = random_case(channels)
    loss = SegmentationLoss("ce+dice")
    assert float(loss(truth[..., None], logits)) == pytest.approx(float(loss(truth, logits)), rel=1e-6)
    with pytest.raises(SemsegError, match=r"got truth \(3, 5\) for logits .*expected class ids \(N, H, W\)"):
        loss.call(truth[0], logits)
    with pytest.raises(SemsegError, match=r"got truth \(2, 3, 4\) for logits \(2, 3, 5, \d\)"):
        loss.call(truth[..., :4], logits)
