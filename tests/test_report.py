from itertools import pairwise

import numpy as np
import pytest
from helpers import draw_ids, draw_pair
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from semseg.images.reading import read_image
from semseg.labels.painting import overlay, paint, paint_errors
from semseg.labels.palettes import cityscapes_palette
from semseg.report import (
    get_acc,
    save_batch,
    save_confusion_matrix,
    save_learning_curves,
    save_panels,
    save_quality_cost,
    save_ranked,
    save_reliability,
    save_side_by_side,
    show_predictions,
)

pytestmark = pytest.mark.plain

PALETTE = cityscapes_palette()


@pytest.fixture
def drawn(monkeypatch):
    """The figures in the order in which they were written."""
    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: figures.append(self) or savefig(self, *args, **options)
    )
    return figures


def texts(figure):
    """All that is written in a figure."""
    return {text.get_text() for text in figure.findobj(Text)}


def room_of(text):
    """What a text covers, without the line to its point."""
    text.get_window_extent()  # brings it to its place
    return Text.get_window_extent(text)


def panels(figure):
    """The picture of each axis, in the order of the axes."""
    return [axis.images[0].get_array() for axis in figure.axes]


def predictions_of(*seeds):
    """Caption, photo, truth and a prediction with a wrong corner, for each seed."""
    for seed in seeds:
        truth = draw_ids(seed)
        prediction = np.where(truth == 255, 0, truth)
        prediction[:5, :7] = 8
        yield f"{seed}.png: mean IoU 0.5", draw_pair(seed)[0], truth, prediction


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


def test_panels_show_pictures_ids_and_shares_with_the_classes_that_they_hold(tmp_path, drawn):
    photo, ids, shares = draw_pair(0)[0], draw_ids(0), np.linspace(0, 1, 32 * 32).reshape(32, 32)
    shown = {"Photo": photo, "Ids": ids.astype(np.int64), "Sure": shares}
    save_panels(shown, PALETTE, tmp_path / "panels.png", title="a.png")
    first, second, third = panels(drawn[0])
    np.testing.assert_array_equal(first, photo)
    np.testing.assert_array_equal(second, paint(ids, PALETTE))
    lightness = third.mean(axis=2)
    assert lightness[0, 0] < lightness[16, 0] < lightness[-1, -1]
    assert {*shown, "a.png", "road", "car", "ignored"} <= texts(drawn[0])
    save_panels({"Photo": photo, "Sure": shares}, PALETTE, tmp_path / "panels.png")
    assert not drawn[1].legends


def test_a_long_title_of_a_batch_is_broken_into_lines(tmp_path, drawn):
    photos, masks = np.stack([draw_pair(0)[0]] * 4), np.stack([draw_ids(0)] * 4)
    save_batch(photos, masks, PALETTE, tmp_path / "batch.png", title="one of many words, " * 12)
    title = drawn[0]._suptitle.get_window_extent()
    assert title.width <= drawn[0].bbox.width


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


def test_a_confusion_matrix_says_shares_and_pixels(tmp_path, drawn):
    matrix = np.array([[90, 10, 0], [250, 750_000, 250], [0, 0, 0]])
    save_confusion_matrix(matrix, ["tree", "a" * 60, "car"], tmp_path / "matrix.png")
    left, right = drawn[0].axes
    assert [text.get_text() for text in left.texts] == ["90", "10", "", "", "100", ""]  # the empty row has no shares
    assert [text.get_text() for text in right.texts] == ["90", "10", "250", "750k", "250"]
    rows = [tick.get_text() for tick in right.get_yticklabels()]
    assert rows[0] == "100  tree" and rows[1].startswith("750k  aaa") and len(rows[1]) == 6 + 28
    assert [tick.get_text().split()[-1] for tick in left.get_yticklabels()] == ["0.0%", "100.0%", "0.0%"]


def test_a_confusion_matrix_of_many_classes_leaves_out_numbers_and_some_names(tmp_path, drawn):
    matrix = np.random.default_rng(0).integers(0, 1000, (150, 150))
    path = save_confusion_matrix(matrix, [f"class {i}" for i in range(150)], tmp_path / "matrix.png")
    left, right = drawn[0].axes[:2]
    assert not left.texts and not right.texts
    names = [tick.get_text() for tick in left.get_xticklabels()]
    step = 150 // len(names)
    assert step > 1 and names == [f"class {i}" for i in range(0, 150, step)]
    np.testing.assert_allclose(left.images[0].get_array()[3], matrix[3] / matrix[3].sum())
    assert max(size_of(path)) < 4000


@pytest.mark.parametrize("matrix", [np.zeros((2, 2), np.int64), np.eye(2, dtype=np.int64), 7 * np.ones((2, 2), int)])
def test_a_confusion_matrix_without_or_with_one_count_is_drawn(tmp_path, matrix):
    assert save_confusion_matrix(matrix, ["a", "b"], tmp_path / "matrix.png").exists()


def test_a_ranked_page_holds_a_row_of_four_panels_per_sample(tmp_path, drawn):
    samples = list(predictions_of(0, 1, 2))
    path = save_ranked(samples, PALETTE, tmp_path / "worst.png", title="The worst 3 of 9 by mean IoU")
    images = panels(drawn[0])
    for row, (_, photo, truth, prediction) in enumerate(samples):
        expected = photo, paint(truth, PALETTE), paint(prediction, PALETTE), paint_errors(photo, truth, prediction)
        for image, wanted in zip(images[4 * row : 4 * row + 4], expected, strict=True):
            np.testing.assert_array_equal(image, wanted)
    red = images[3][..., 0].astype(int) - images[3][..., 1] > 60
    assert red[:5, :7].all() and red.sum() == 35
    found = texts(drawn[0])
    assert found >= {"The worst 3 of 9 by mean IoU", "Photo", "Errors in red", *(sample[0] for sample in samples)}
    assert PALETTE.names[8] in found and "ignored" in found and PALETTE.names[12] not in found
    assert colors_in(path)(PALETTE.colors[8])


def test_rows_are_as_high_as_their_photos_and_names_of_any_length_fit(tmp_path, drawn):
    shapes = [(40, 160), (80, 80), (160, 40)]
    samples = [("n" * 300, np.zeros((*s, 3), np.uint8), np.zeros(s, np.uint8), np.zeros(s, np.uint8)) for s in shapes]
    path = save_ranked(samples, PALETTE, tmp_path / "page.png", title="t " * 150)
    boxes = [axis.get_window_extent() for axis in drawn[0].axes[::4]]
    for box, (height, width) in zip(boxes, shapes, strict=True):
        assert box.height / box.width == pytest.approx(height / width, rel=0.02)
    assert size_of(path)[0] < 120 * (4 * 3.6 + 1)


def test_networks_stand_side_by_side_with_their_scores(tmp_path, drawn):
    rows, scores = [], []
    for caption, photo, truth, prediction in predictions_of(0, 1):
        rows.append((caption, photo, truth, {"unet": prediction, "a_network_with_a_very_long_name" * 3: truth}))
        scores.append(dict(zip(rows[0][3], (0.25, 0.5), strict=True)))
    scores[1]["unet"] = float("nan")
    save_side_by_side(rows, PALETTE, tmp_path / "side.png", scores=scores, title="Seed 0")
    images = panels(drawn[0])
    assert len(images) == 8
    np.testing.assert_array_equal(images[5], paint(rows[1][2], PALETTE))
    np.testing.assert_array_equal(images[6], paint(rows[1][3]["unet"], PALETTE))
    titles = [axis.get_title(loc="left") for axis in drawn[0].axes]
    assert titles[2:4] == ["0.250", "0.500 best"] and titles[6:] == ["no score", "0.500"]
    assert {"unet", "Seed 0"} <= set(texts(drawn[0]))


@pytest.mark.parametrize("count", [1, 9])
def test_a_page_of_any_number_of_networks_stays_small(tmp_path, count):
    (row,) = predictions_of(0)
    names = [f"network_{i}" for i in range(count)]
    rows = [(*row[:3], dict.fromkeys(names, row[3]))] * 4
    path = save_side_by_side(
        rows, PALETTE, tmp_path / "side.png", scores=[dict.fromkeys(names, 0.5)] * 4, title="Seed 0"
    )
    assert path.stat().st_size < 4e6 and size_of(path)[0] < 2800


def test_a_reliability_diagram_shows_accuracy_gap_and_shares(tmp_path, drawn):
    bins = np.array([[0, 10, 0, 30], [0, 2, 0, 27], [0, 4.0, 0, 28.5]])
    save_reliability(bins, (2 + 1.5) / 40, tmp_path / "reliability.png")
    upper, lower = drawn[0].axes
    accuracy, gaps = upper.containers
    assert [bar.get_height() for bar in accuracy] == pytest.approx([0.2, 0.9])
    assert [(bar.get_y(), bar.get_height()) for bar in gaps] == [pytest.approx(x) for x in ((0.2, 0.2), (0.9, 0.05))]
    assert [bar.get_x() + bar.get_width() / 2 for bar in accuracy] == pytest.approx([0.375, 0.875])
    assert [text.get_text() for text in lower.texts] == ["25.0%", "75.0%"]
    words = drawn[0].get_suptitle()
    assert "0.087" in words or "0.088" in words
    assert "Mean confidence 81.2%, accuracy 72.5%: too sure" in words


def test_a_reliability_diagram_without_pixels_says_so(tmp_path, drawn):
    save_reliability(np.zeros((3, 15)), float("nan"), tmp_path / "reliability.png")
    assert "No pixel" in drawn[0].get_suptitle()


def test_learning_curves_are_means_over_seeds_in_a_band(tmp_path, drawn):
    runs = {
        "unet": [[row(e, 0.1 * e) for e in (1, 2, 3)], [row(e, 0.2 * e) for e in (1, 2)]],
        "街_$x$_" + "n" * 60: [[{**row(e, float("nan")), "loss": float("nan")} for e in (1, 2)]],
    }
    save_learning_curves(runs, tmp_path / "curves.png")
    by_epoch, by_time, _, loss = drawn[0].axes
    np.testing.assert_allclose(by_epoch.lines[0].get_xydata(), [[1, 0.15], [2, 0.3]])  # as far as both seeds came
    np.testing.assert_allclose(by_time.lines[0].get_xdata(), [1 / 60, 2 / 60])
    band = by_epoch.collections[0].get_datalim(by_epoch.transData)
    assert (band.y0, band.y1) == pytest.approx((0.1, 0.4))
    assert [text.get_text() for text in by_epoch.texts] == ["unet"]  # no end that could be named without a number
    assert [text.get_text() for text in loss.texts] == ["unet"]


def test_the_names_of_nine_equal_networks_do_not_touch(tmp_path, drawn):
    names = [f"network_{i}" for i in range(9)]
    save_learning_curves({name: [[row(e, 0.5) for e in range(1, 4)]] for name in names}, tmp_path / "curves.png")
    drawn[0].set_dpi(120)  # as it was written
    for axis in drawn[0].axes:
        boxes = sorted((room_of(text) for text in axis.texts), key=lambda box: box.y0)
        assert len(boxes) == 9 and all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    colors = {line.get_color() for line in drawn[0].axes[0].lines}
    assert len(colors) == 9


def cost_points(count, **changes):
    return [
        {"name": f"network_{i}", "parameters": 10**6 * (i + 1), "gflops": 5.0 + 0.1 * i, "milliseconds": 9.0,
         "memory_mb": None, "miou": [0.5 + 0.01 * i, 0.54 + 0.01 * i], **changes}
        for i in range(count)
    ]  # fmt: skip


def test_quality_stands_over_each_known_cost_with_a_logarithmic_axis_where_costs_lie_far_apart(tmp_path, drawn):
    save_quality_cost(cost_points(4), tmp_path / "cost.png")
    parameters, gflops, milliseconds = drawn[0].axes  # none for memory, of which nothing is known
    assert (parameters.get_xscale(), gflops.get_xscale(), milliseconds.get_xscale()) == ("log", "linear", "linear")
    dots = [dots for dots in parameters.collections if isinstance(dots, PathCollection)]
    means = [large.get_offsets()[0].tolist() for large in dots[1::2]]
    assert [small.get_offsets()[:, 1].tolist() for small in dots[::2]] == [point["miou"] for point in cost_points(4)]
    assert means == [pytest.approx([1e6 * (i + 1), 0.52 + 0.01 * i]) for i in range(4)]
    assert sorted(text.get_text() for text in gflops.texts) == [f"network_{i}" for i in range(4)]


def test_costs_are_written_in_thousands_and_millions_but_never_in_thousandths(tmp_path, drawn):
    points = [{**point, "gflops": 0.001 * 1000**i} for i, point in enumerate(cost_points(2))]
    save_quality_cost(points, tmp_path / "cost.png")
    parameters, gflops, _ = ([label.get_text() for label in axis.get_xticklabels()] for axis in drawn[0].axes)
    assert {"0.001", "0.1", "1"} <= set(gflops)
    assert {"1.2M", "1.8M"} <= set(parameters)


def test_the_legend_of_the_curves_lies_above_them(tmp_path, drawn):
    get_acc([row(e, 0.1 * e) for e in range(1, 6)], tmp_path / "acc.png")
    axis = drawn[0].axes[0]
    assert all(room_of(text).y0 >= axis.bbox.y1 for text in axis.get_legend().get_texts())


@pytest.mark.parametrize("count", [1, 4, 9])
def test_names_in_the_plot_of_costs_cover_neither_each_other_nor_leave_it(tmp_path, drawn, count):
    save_quality_cost(cost_points(count), tmp_path / "cost.png")
    drawn[0].set_dpi(120)  # as it was written
    for axis in drawn[0].axes:
        boxes, room = [room_of(text) for text in axis.texts], axis.bbox
        assert not any(box.count_overlaps(boxes[i + 1 :]) for i, box in enumerate(boxes))
        assert all(room.x0 - 2 <= box.x0 and box.x1 <= room.x1 + 2 for box in boxes)


def test_a_network_without_a_score_is_named_and_left_out(tmp_path, drawn):
    points = cost_points(3)
    points[0]["miou"] = [float("nan")]
    points[1] |= {"miou": [float("nan"), 0.25], "name": "街_$x$"}
    save_quality_cost(points, tmp_path / "cost.png")
    assert "without a score: network_0" in drawn[0].get_suptitle()
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["街_$x$", "network_2"]
    save_quality_cost(points[:1], tmp_path / "none.png")
    assert not drawn[1].axes


def test_a_picture_that_cannot_be_drawn_leaves_no_file(tmp_path):
    with pytest.raises(ValueError):
        save_confusion_matrix(np.zeros((3, 3), np.int64), ["one name too few"], tmp_path / "matrix.png")
    assert not list(tmp_path.iterdir())
