import numpy as np
import pytest
from helpers import draw_ids

from semseg.backend.predictor import predictor
from semseg.errors import SemsegError
from semseg.evaluation.evaluate import evaluate_split
from semseg.inference.logits import confidence_of_logits, ids_of_logits
from semseg.inference.segmenter import Segmenter, predict_ids, with_flips
from semseg.labels.palettes import Palette
from semseg.metrics.confusion import confusion_matrix
from semseg.segmentation_model import Unet


def logits_from_red(photos):
    """A network without weights: class 1 where red is above 127."""
    red = photos[..., 0].astype("float32") - 127.5
    return np.stack([-red, red], axis=-1)


def test_a_photo_at_the_networks_size_gives_the_argmax():
    photo = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    (ids,) = predict_ids(logits_from_red, [photo], image_size=(16, 24))
    np.testing.assert_array_equal(ids, photo[..., 0] > 127)
    assert ids.dtype == np.uint8


@pytest.mark.parametrize("classes", [1, 2, 19])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (15, 17), (65, 64), (191, 128)])
def test_every_photo_gets_a_mask_of_its_own_size(size, classes):
    photo = np.zeros((*size, 3), np.uint8)
    photo[:, size[1] // 2 :] = 255

    def predict_batch(photos):
        two = logits_from_red(photos)
        if classes == 1:
            return two[..., 1:]
        return np.concatenate([two, np.full((*two.shape[:3], classes - 2), -1e3, "float32")], axis=-1)

    (ids,) = predict_ids(predict_batch, [photo], image_size=(32, 32))
    assert ids.shape == size
    assert (ids == (photo[..., 0] > 0)).mean() > 0.9


def test_photos_of_mixed_sizes_keep_their_order_over_batches():
    photos = [np.full((8 + i, 8, 3), 255 * (i % 2), np.uint8) for i in range(7)]
    calls = []

    def count(batch):
        calls.append(len(batch))
        return logits_from_red(batch)

    results = list(predict_ids(count, iter(photos), image_size=(8, 8), batch_size=3))
    assert calls == [3, 3, 1]
    assert [ids.shape[0] for ids in results] == [8 + i for i in range(7)]
    assert [ids.max() for ids in results] == [i % 2 for i in range(7)]


def test_a_single_logit_is_cut_at_zero():
    assert ids_of_logits(np.array([[[-0.1], [0.1]]])).tolist() == [[0, 1]]


@pytest.mark.parametrize("single", [True, False], ids=["one logit", "two logits"])
def test_a_segmenter_gives_the_probability_of_each_class_at_the_photos_own_size(single):
    def predict_batch(photos):
        second = photos[..., :1] / np.float32(255)
        return second if single else np.concatenate([0 * second, second], axis=-1)

    segmenter = Segmenter(predict_batch, (8, 8), Palette.numbered(2))
    found = segmenter.probabilities(np.full((5, 7, 3), 255, np.uint8))
    sigmoid = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found, np.full((5, 7, 2), [1 - sigmoid, sigmoid]), atol=1e-6)
    assert found.dtype == np.float32


def test_a_keras_model_gives_the_same_logits_for_a_part_of_a_batch():
    model = Unet((16, 16, 3), 3, filters=4, depth=1)
    photos = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    predict_batch = predictor(model, batch_size=4)
    np.testing.assert_allclose(predict_batch(photos)[:3], predict_batch(photos[:3]), atol=1e-5)


def test_evaluation_of_the_truth_itself_is_perfect_and_of_one_class_is_counted_by_hand(dataset):
    truth = iter(range(1000, 1004))

    def perfect(photos):
        ids = np.stack([draw_ids(next(truth)) for _ in photos])
        return 9.0 * (ids[..., None] == np.arange(19))

    result = evaluate_split(perfect, dataset, image_size=(32, 32), batch_size=3)
    assert result.scores["accuracy"] == result.scores["macro_iou"] == 1
    assert [image.sample.photo.name for image in result.images] == ["1.png", "2.png", "3.png", "4.png"]
    for image in result.images:
        assert image.scores["iou"] == image.scores["boundary_iou"] == image.scores["boundary_f"] == 1
    assert result.scores["calibration_error"] == pytest.approx(1 - np.exp(9) / (np.exp(9) + 18), abs=1e-6)
    assert result.intervals["macro_iou"] == (1, 1)

    always_road = evaluate_split(
        lambda photos: np.broadcast_to(np.eye(19)[0], (*photos.shape[:3], 19)), dataset, image_size=(32, 32)
    )
    ids = np.stack([draw_ids(1000 + i) for i in range(4)])
    np.testing.assert_array_equal(always_road.matrix, confusion_matrix(ids, np.zeros_like(ids), 19))
    assert always_road.ignored == (ids == 255).mean()
    expected = [(image == 0).sum() / (image != 255).sum() for image in ids]
    np.testing.assert_allclose([image.scores["accuracy"] for image in always_road.images], expected)
    ious = [image.scores["iou"] for image in always_road.ranked]
    assert ious == sorted(ious) and len(ious) == 4
    low, high = always_road.intervals["accuracy"]
    assert low <= always_road.scores["accuracy"] <= high and high - low > 0.01


def test_the_splits_can_be_judged_together_and_an_unknown_one_lists_the_known(dataset):
    always_road = lambda photos: np.broadcast_to(np.eye(19)[0], (*photos.shape[:3], 19))  # noqa: E731
    assert len(evaluate_split(always_road, dataset, "all", image_size=(32, 32)).images) == 16
    with pytest.raises(SemsegError, match="has no split 'test'; choose one of train, val, all"):
        evaluate_split(always_road, dataset, "test", image_size=(32, 32))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(("flips", "views"), [("horizontal", 2), ("both", 4)])
def test_flips_give_the_mean_of_the_probabilities_of_the_flipped_views(classes, flips, views):
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 3, (6, 5, 3, classes))

    def predict_batch(photos):  # sees where a pixel lies, so that each view is judged differently
        return (photos[..., None] / 255 * weights).sum(axis=3)

    def probabilities(logits):
        both = np.concatenate([np.zeros_like(logits), logits], axis=-1) if classes == 1 else logits
        return np.exp(both) / np.exp(both).sum(axis=-1, keepdims=True)

    photos = rng.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    seen = [
        probabilities(predict_batch(photos)),
        probabilities(predict_batch(photos[:, :, ::-1]))[:, :, ::-1],
        probabilities(predict_batch(photos[:, ::-1]))[:, ::-1],
        probabilities(predict_batch(photos[:, ::-1, ::-1]))[:, ::-1, ::-1],
    ]
    found = with_flips(predict_batch, flips)(photos)
    assert found.shape == (2, 6, 5, classes)
    np.testing.assert_allclose(probabilities(found), np.mean(seen[:views], axis=0), atol=1e-9)


def test_flips_stay_finite_where_a_probability_is_0():
    sure = with_flips(lambda photos: np.full((*photos.shape[:3], 2), [3e4, -3e4], np.float32), "both")
    assert np.isfinite(sure(np.zeros((1, 2, 2, 3), np.uint8))).all()
    with pytest.raises(SemsegError, match="`flips`: got 'up'; expected one of horizontal, both"):
        with_flips(sure, "up")


@pytest.mark.parametrize(("logits", "expected"), [([0.0, 0.0], 0.5), ([0.0, np.log(3)], 0.75), ([-np.log(3)], 0.75)])
def test_the_confidence_is_the_probability_of_the_predicted_class(logits, expected):
    assert confidence_of_logits(np.array([[logits]]))[0, 0] == pytest.approx(expected)
