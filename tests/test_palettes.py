import io
import json

import cv2
import numpy as np
import pytest
from helpers import draw_ids, draw_pair
from PIL import Image

from semseg.errors import DataError, SemsegError
from semseg.images.reading import load_images
from semseg.labels.known_palettes import CAMVID_11, VOC
from semseg.labels.numbers import palette_of_folder, palette_of_values
from semseg.labels.palettes import (
    Label,
    Palette,
    cityscapes_palette,
    distinct_color,
    find_palette,
)
from semseg.labels.quantising import bin_image

pytestmark = pytest.mark.plain


def as_kaggle_saves_it(mask, size):
    """Shrunk with smoothing, then JPEG with halved chroma."""
    memory = io.BytesIO()
    Image.fromarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)).save(
        memory, "JPEG", quality=95, subsampling="4:2:0"
    )
    return np.asarray(Image.open(memory))


class TestPalette:
    def test_cityscapes_is_recognised_through_smoothing_and_jpeg(self):
        masks = [as_kaggle_saves_it(draw_pair(seed, 256)[1], 128) for seed in range(6)]
        palette = find_palette(masks)
        assert palette.labels == cityscapes_palette().labels and palette.blended
        assert palette.names[13] == "car"
        kept = bin_image(masks[0], palette)
        truth = cv2.resize(draw_ids(0, 256), (128, 128), interpolation=cv2.INTER_NEAREST)
        assert (kept == truth).mean() > 0.97

    def test_other_colours_are_found_by_k_means_with_their_number(self):
        colors = np.array([(10, 200, 30), (250, 250, 0), (40, 40, 200), (255, 255, 255)], np.uint8)
        rng = np.random.default_rng(0)
        masks = [
            cv2.resize(colors[rng.choice(4, (4, 4), p=(0.4, 0.3, 0.2, 0.1))], (64, 64), interpolation=0)
            for _ in range(8)
        ]
        palette = find_palette([as_kaggle_saves_it(cv2.resize(m, (128, 128), interpolation=0), 64) for m in masks])
        assert palette.source == "k-means"
        assert palette.max_distance <= 40
        assert palette.names == ("class_0", "class_1", "class_2", "class_3")
        assert np.abs(np.array(palette.colors) - colors).max() <= 4  # by falling share

    def test_masks_of_few_colours_are_taken_at_their_word(self):
        colors = [(200, 52, 46), (200, 40, 40), (0, 0, 0), (1, 1, 1)]
        mask = np.array([[colors[0]] * 9 + [colors[1]] * 5 + [colors[2]] * 2 + [colors[3]]], np.uint8)
        palette = find_palette([mask])
        assert palette.source == "exact"
        assert palette.colors == tuple(colors)
        assert bin_image(mask, palette).tolist() == [[0] * 9 + [1] * 5 + [2] * 2 + [3]]
        assert bin_image(np.array([[[3, 3, 3]]], np.uint8), palette).tolist() == [[255]]

    def test_grey_class_ids_stay_apart(self):
        ids = np.repeat(np.arange(34, dtype=np.uint8), 90).reshape(102, 30, 1)
        assert find_palette([np.repeat(ids, 3, axis=2)]).num_classes == 34

    def test_a_single_colour_is_no_set_of_classes(self):
        with pytest.raises(DataError, match="hold a single colour"):
            find_palette([np.zeros((8, 8, 3), np.uint8)])

    def test_the_number_of_classes_can_be_given(self):
        masks = [draw_pair(seed)[1] for seed in range(4)]
        palette = find_palette(masks, num_classes=5)
        assert palette.num_classes == 5
        assert set(palette.colors) == {(128, 64, 128), (70, 70, 70), (70, 130, 180), (0, 0, 142), (0, 0, 0)}

    def test_is_the_same_every_time(self):
        masks = [as_kaggle_saves_it(draw_pair(seed, 128)[1], 64) for seed in range(4)]
        assert find_palette(masks, 4) == find_palette(masks, 4)

    @pytest.mark.parametrize("count", [1, 255])
    def test_a_senseless_number_is_refused(self, count):
        with pytest.raises(SemsegError, match=f"got {count}; expected 2 to 253"):
            find_palette([draw_pair(0)[1]], count)

    def test_more_classes_than_colours_are_refused(self):
        with pytest.raises(DataError, match="hold 5 clearly different colours, fewer than the 9"):
            find_palette([draw_pair(0)[1]], 9)

    def test_noise_is_no_mask(self):
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        with pytest.raises(DataError, match="are these colour masks"):
            find_palette([noise])

    def test_survives_json(self):
        values = json.loads(json.dumps(cityscapes_palette().to_dict()))
        assert Palette.from_dict(values) == cityscapes_palette()

    def test_the_real_pairs_are_cityscapes(self, real_data):
        files = sorted((real_data / "cityscapes_pairs" / "train").iterdir())[::20]
        masks = [load_images(path)[1] for path in files]
        palette = find_palette(masks)
        assert palette.labels == cityscapes_palette().labels and palette.blended
        ids = np.stack([bin_image(mask, palette) for mask in masks])
        assert 0.05 < (ids == 255).mean() < 0.25
        assert set(np.unique(ids)) == {*range(19), 255}

    def test_an_edited_file_can_merge_and_ignore_classes(self):
        values = Palette.from_colors(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3))).to_dict()
        values["classes"][2]["id"] = 0
        palette = Palette.from_dict(values, source="file")
        assert palette.names == ("a", "b") and palette.source == "file"
        assert bin_image(np.array([[[1, 1, 1], [2, 2, 2], [3, 3, 3]]], np.uint8), palette).tolist() == [[0, 1, 0]]

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda v: v.pop("classes"), "cannot be understood"),
            (lambda v: v["classes"][0].update(color=[2, 2, 2]), "stands for more than one entry"),
            (lambda v: [entry.update(value=-1) for entry in v["classes"]], "cannot be understood"),
            (lambda v: v.update(max_distance="1e"), "cannot be understood"),
            (
                lambda v: v["classes"][0].update(id="x"),
                r"classes\[0\]\.id cannot be understood \(got 'x'\); expected a",
            ),
            (lambda v: v["classes"][1].update(id=1.5), r"classes\[1\]\.id cannot be understood \(got 1\.5\)"),
            (lambda v: v["classes"][1].update(id=True), r"classes\[1\]\.id cannot be understood"),
            (lambda v: v["classes"][1].update(id=-1), r"classes\[1\]\.id cannot be understood"),
            (lambda v: v["classes"][1].update(id=10**400), r"classes\[1\]\.id cannot be understood"),
            (lambda v: v["classes"][1].pop("id"), r"classes\[1\]\.id cannot be understood \(got None\)"),
            (lambda v: v["classes"][1].update(id=0), r"got the ids 0; expected .* 2 to 253 of them"),
            (lambda v: v["classes"].extend({"id": i, "name": i} for i in range(2, 300)), "got the ids 0.*2 to 253"),
            (lambda v: v["classes"].append(7), r"classes\[2\] cannot be understood \(got 7\)"),
            (lambda v: v["classes"][0].update(name=None), r"classes\[0\]\.name cannot be understood"),
            (lambda v: v["classes"][0].update(color=[1, 2.5, 3]), r"classes\[0\]\.color cannot be understood"),
            (lambda v: v.update(ignored={}), "ignored cannot be understood"),
            (lambda v: v.update(blended="no"), r"blended cannot be understood \(got 'no'\); expected true or false"),
            (lambda v: v.update(transparent=[[[]]]), "transparent cannot be understood"),
            (lambda v: v.update(classes=[nested(500)] * 2), r"classes\[0\] cannot be understood"),
            (lambda v: v["classes"][0].update(color=[1, 2]), "cannot be understood"),
            (lambda v: v["classes"][0].update(color=[1, 2, 256]), "cannot be understood"),
            (lambda v: v["classes"][0].update(value=3), "some labels have a value and some do not"),
            (lambda v: v["classes"].pop(), "2 to 253 of them"),
        ],
    )
    def test_a_file_that_makes_no_sense_is_refused(self, change, what):
        values = Palette.from_colors(("a", "b"), ((1, 1, 1), (2, 2, 2))).to_dict()
        change(values)
        with pytest.raises(SemsegError, match=what):
            Palette.from_dict(values, source="file")

    def test_a_class_that_is_taken_out_leaves_no_gap(self):
        values = Palette.from_colors(("a", "b", "c"), ((1, 1, 1), (2, 2, 2), (3, 3, 3))).to_dict()
        values["ignored"].append(values["classes"].pop(1))
        palette = Palette.from_dict(values, source="file")
        assert palette.names == ("a", "c")
        assert bin_image(np.array([[[1, 1, 1], [2, 2, 2], [3, 3, 3]]], np.uint8), palette).tolist() == [[0, 255, 1]]


def nested(depth):
    """Lists in lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


class TestKnownCodes:
    @pytest.mark.parametrize("held", ["color", "id", "train_id"])
    def test_cityscapes_has_nineteen_classes_or_seven_categories(self, held):
        assert cityscapes_palette(held=held).num_classes == 19
        categories = cityscapes_palette(categories=True, held=held)
        assert categories.names == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")

    def test_label_ids_of_the_official_table(self):
        mask = np.array([[7, 8, 11, 33, 0, 4, 255, 29]], np.uint8)
        assert bin_image(mask, cityscapes_palette(held="id")).tolist() == [[0, 1, 2, 18, 255, 255, 255, 255]]
        assert bin_image(mask, cityscapes_palette(categories=True, held="id")).tolist() == [
            [0, 0, 1, 6, 255, 255, 255, 255]
        ]

    def test_camvid_ids_are_known_by_folder_and_range(self):
        palette = palette_of_folder("data/CamVid", range(12))
        assert palette.names[:3] == ("sky", "building", "pole") and palette.num_classes == 11
        assert bin_image(np.array([[0, 10, 11]], np.uint8), palette).tolist() == [[0, 10, 255]]
        assert palette_of_folder("data/camvid", range(13)) is None
        assert palette_of_folder("data/streets", range(12)) is None

    def test_ade20k_counts_from_one_and_its_zero_is_void(self):
        palette = palette_of_folder("ADEChallengeData2016", [0, 1, 150])
        assert palette.num_classes == 150 and palette.names[0] == "wall"
        assert bin_image(np.array([[0, 1, 150]], np.uint8), palette).tolist() == [[255, 0, 149]]

    @pytest.mark.parametrize(("table", "source"), [(CAMVID_11, "camvid"), (VOC, "voc")])
    def test_exact_masks_in_known_colours_get_their_names(self, table, source):
        colors = np.array([color for _, color in table[:4]], np.uint8)
        palette = find_palette([np.repeat(colors[None], 5, axis=0)])
        assert palette.source == source and palette.names[:3] == tuple(name for name, _ in table[:3])
        assert not palette.blended

    @pytest.mark.parametrize(
        "colors", [((0, 0, 0), (128, 0, 0), (128, 128, 0)), ((255, 0, 0), (0, 0, 255), (255, 255, 0))]
    )
    def test_a_few_colours_that_a_large_code_happens_to_hold_are_taken_at_their_word(self, colors):
        palette = find_palette([np.repeat(np.array([colors], np.uint8), 5, axis=0)])
        assert palette.source == "exact" and palette.num_classes == 3

    def test_black_and_white_is_background_and_foreground_also_after_jpeg(self):
        mask = np.zeros((64, 64, 3), np.uint8)
        mask[20:40, 10:50] = 255
        assert find_palette([mask]).names == ("background", "foreground")
        memory = io.BytesIO()
        Image.fromarray(cv2.resize(mask, (40, 40), interpolation=cv2.INTER_AREA)).save(memory, "JPEG", quality=70)
        palette = find_palette([np.asarray(Image.open(memory))])
        assert palette.names == ("background", "foreground") and palette.blended

    def test_classes_without_colours_get_distinct_ones(self):
        assert len({distinct_color(i) for i in range(253)}) > 240
        first = np.array([distinct_color(i) for i in range(12)])
        apart = np.linalg.norm(first[:, None] - first[None], axis=2)[~np.eye(12, dtype=bool)]
        assert apart.min() > 35


class TestNumbers:
    @pytest.mark.parametrize(
        ("held", "values"),
        [
            ([0, 1], [0, 1]),
            ([0, 255], [0, 255]),
            ([0, 1, 2, 255], [0, 1, 2]),
            ([0, 128, 255], [0, 128, 255]),
            ([1, 2, 3], [1, 2, 3]),
            ([7, 8, 26], [7, 8, 26]),
            ([0, 300, 40000], [0, 300, 40000]),
        ],
    )
    def test_which_numbers_are_classes(self, held, values):
        palette = palette_of_values(held)
        assert [label.value for label in palette.labels if label.id != 255] == values
        assert bin_image(np.array([values]), palette).tolist() == [list(range(len(values)))]

    def test_a_given_number_reserves_ids_or_must_fit(self):
        assert palette_of_values([0, 1, 2], num_classes=5).num_classes == 5
        assert palette_of_values([0, 100, 200], num_classes=3).num_classes == 3
        with pytest.raises(DataError, match="hold 0, 100, 200; these are not the 4 classes"):
            palette_of_values([0, 100, 200], num_classes=4)

    def test_one_number_or_too_many_are_refused(self):
        with pytest.raises(DataError, match="hold 5 only"):
            palette_of_values([5])
        with pytest.raises(DataError, match=r"hold 300 different numbers, 0, 1, 2.*pass `instances`"):
            palette_of_values(range(300))

    def test_well_known_colours_of_a_palette_image_name_its_numbers(self):
        colors = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 255: (224, 224, 192)}
        palette = palette_of_values(colors, colors)
        assert palette.names == ("background", "aeroplane", "bicycle", "bird")
        assert palette.colors[1] == (128, 0, 0)

    def test_labels_are_checked(self):
        with pytest.raises(SemsegError, match="got the ids 0, 2; expected 0, 1, 2"):
            Palette((Label("a", 0, (0, 0, 0)), Label("b", 2, (1, 1, 1))))
