import numpy as np
import pytest
from helpers import draw_ids, draw_pair
from PIL import Image

from semseg.palettes import cityscapes_palette
from semseg.report import get_acc, overlay, paint, paint_errors, save_batch, save_confusion_matrix, show_predictions
from semseg.utils_func import read_image

PALETTE = cityscapes_palette()


def row(epoch, val_mean_iou):
    return {
        "epoch": epoch, "loss": 1 / epoch, "accuracy": 0.5, "mean_iou": 0.3, "val_loss": 1.2 / epoch,
        "val_accuracy": 0.4, "val_mean_iou": val_mean_iou, "learning_rate": 1e-3, "seconds": 1.0,
    }  # fmt: skip


def size_of(path):
    with Image.open(path) as image:
        return image.size


def colors_in(path, tolerance=6):
    """Whether a colour occurs in a picture."""
    pixels = read_image(path).astype(np.int16)
    return lambda color: (np.abs(pixels - np.array(color, np.int16)).max(axis=2) <= tolerance).any()


def test_truth_is_painted_in_class_colours_and_ignored_pixels_in_stripes():
    ids = draw_ids(0)
    image = paint(ids, PALETTE)
    for k in (0, 2, 10, 13):
        assert (image[ids == k] == PALETTE.colors[k]).all()
    assert {tuple(color) for color in image[ids == 255]} == {(205, 205, 205), (235, 235, 235)}


def test_errors_are_red_only_where_prediction_and_counted_truth_differ():
    photo, truth = draw_pair(0)[0], draw_ids(0)
    prediction = np.where(truth == 255, 0, truth)
    right = paint_errors(photo, truth, prediction)
    prediction[:4] = 3
    wrong = paint_errors(photo, truth, prediction)
    np.testing.assert_array_equal(wrong[4:], right[4:])
    assert (wrong[:4, :, 0] > wrong[:4, :, 1] + 60).all()
    assert (right[..., 0] == right[..., 1]).all()


def test_an_overlay_lies_between_photo_and_mask():
    photo, ids = draw_pair(0)[0], draw_ids(0)
    mixed = overlay(photo, ids, PALETTE, opacity=0.5).astype(int)
    np.testing.assert_allclose(mixed, (photo.astype(int) + paint(ids, PALETTE)) / 2, atol=1)


def test_predictions_show_the_classes_they_hold(tmp_path):
    truth = draw_ids(0)
    samples = [("a.png", draw_pair(0)[0], truth, np.full_like(truth, 8))] * 2
    paths = show_predictions(samples, PALETTE, tmp_path, [(0.5, 0.1), (0.25, 0.2)])
    assert [path.name for path in paths] == ["pred_1.png", "pred_2.png"]
    has = colors_in(paths[0])
    for k in (0, 2, 8, 10, 13):
        assert has(PALETTE.colors[k]), PALETTE.names[k]
    assert not has(PALETTE.colors[12])
    width, height = size_of(paths[0])
    assert width > 1200 and height > 400


def test_a_large_photo_and_one_of_another_shape_are_drawn(tmp_path):
    truth = np.zeros((300, 700), np.uint8)
    (path,) = show_predictions(
        [("wide.png", np.zeros((300, 700, 3), np.uint8), truth, truth)], PALETTE, tmp_path, [(1.0, 1.0)]
    )
    assert size_of(path)[0] > 1200


def test_a_file_name_with_dollars_and_rare_letters_is_drawn(tmp_path):
    truth = draw_ids(0)
    (path,) = show_predictions([("a_$5_$^_街.png", draw_pair(0)[0], truth, truth)], PALETTE, tmp_path, [(1.0, 1.0)])
    assert path.exists()


def test_curves_of_one_epoch_and_of_many(tmp_path):
    one = get_acc([row(1, 0.2)], tmp_path / "one.png")
    many = get_acc([row(e, 0.1 + 0.01 * (e % 7)) for e in range(1, 41)], tmp_path / "many.png")
    for path in (one, many):
        assert colors_in(path)((214, 69, 69))  # the best epoch's mark
    assert one.read_bytes() != many.read_bytes()


@pytest.mark.parametrize("count", [1, 3, 12])
def test_a_batch_of_any_size_is_drawn(tmp_path, count):
    photos = np.stack([draw_pair(seed)[0] for seed in range(count)])
    masks = np.stack([draw_ids(seed) for seed in range(count)])
    path = save_batch(photos, masks, PALETTE, tmp_path / "batch.png")
    assert size_of(path)[0] > 300


@pytest.mark.parametrize("classes", [2, 19, 40])
def test_a_confusion_matrix_with_an_absent_class_is_drawn(tmp_path, classes):
    matrix = np.diag(np.arange(classes)) + np.eye(classes, k=1, dtype=np.int64)
    matrix[1] = 0
    path = save_confusion_matrix(matrix, [f"class {i}" for i in range(classes)], tmp_path / "matrix.png")
    assert colors_in(path)((244, 244, 244))  # the empty row


def test_a_picture_that_cannot_be_drawn_leaves_no_file(tmp_path):
    with pytest.raises(ValueError):
        save_confusion_matrix(np.zeros((3, 3), np.int64), ["one name too few"], tmp_path / "matrix.png")
    assert not list(tmp_path.iterdir())
