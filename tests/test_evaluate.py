import numpy as np
import pytest
from helpers import draw_ids

from semseg.evaluate import evaluate_split
from semseg.metrics import confusion_matrix
from semseg.predict import ids_of_logits, predict_ids, predictor
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
    assert [sample.photo.name for sample, *_ in result.image_scores] == ["1.png", "2.png", "3.png", "4.png"]

    always_road = evaluate_split(
        lambda photos: np.broadcast_to(np.eye(19)[0], (*photos.shape[:3], 19)), dataset, image_size=(32, 32)
    )
    ids = np.stack([draw_ids(1000 + i) for i in range(4)])
    np.testing.assert_array_equal(always_road.matrix, confusion_matrix(ids, np.zeros_like(ids), 19))
    assert always_road.ignored == (ids == 255).mean()
    expected = [(image == 0).sum() / (image != 255).sum() for image in ids]
    np.testing.assert_allclose([accuracy for _, accuracy, _ in always_road.image_scores], expected)
