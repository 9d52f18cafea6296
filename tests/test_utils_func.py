import io
import json

import cv2
import numpy as np
import pytest
from helpers import draw_ids, draw_pair, save_pair
from PIL import Image

from semseg.errors import DataError, SemsegError
from semseg.utils_func import (
    CITYSCAPES,
    Palette,
    bin_image,
    cityscapes_palette,
    find_palette,
    get_segmentation_arr,
    give_color_to_seg_img,
    load_images,
    quantise,
    read_image,
    resize_mask,
    resize_photo,
)

RGB = Palette(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)), ignored=(("black", (0, 0, 0)),))


def as_kaggle_saves_it(mask, size):
    """Shrunk with smoothing, then JPEG with halved chroma."""
    memory = io.BytesIO()
    Image.fromarray(cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)).save(
        memory, "JPEG", quality=95, subsampling="4:2:0"
    )
    return np.asarray(Image.open(memory))


class TestReading:
    def test_a_pair_is_split_in_the_middle_and_stays_rgb(self, tmp_path):
        save_pair(tmp_path / "1.png", seed=3)
        photo, mask = load_images(tmp_path / "1.png")
        expected_photo, expected_mask = draw_pair(3)
        np.testing.assert_array_equal(photo, expected_photo)
        np.testing.assert_array_equal(mask, expected_mask)

    def test_an_odd_width_names_file_and_size(self, tmp_path):
        Image.new("RGB", (63, 32)).save(tmp_path / "odd.png")
        with pytest.raises(DataError, match=r"odd\.png: is 63x32 pixels, an odd width"):
            load_images(tmp_path / "odd.png")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_cut_jpeg_is_refused(self, tmp_path, share):
        save_pair(tmp_path / "whole.jpg", seed=1, size=128)
        data = (tmp_path / "whole.jpg").read_bytes()
        (tmp_path / "cut.jpg").write_bytes(data[: int(share * len(data))])
        with pytest.raises(DataError, match=r"cut\.jpg: .*replace or remove"):
            read_image(tmp_path / "cut.jpg")

    @pytest.mark.parametrize(
        ("content", "what"), [(b"", "an empty file"), (b"hello", "not a picture"), (b"\x89PNG\r\n\x1a\nxx", "picture")]
    )
    def test_what_is_no_picture_is_refused(self, tmp_path, content, what):
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(DataError, match=what):
            read_image(tmp_path / "x.jpg")

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"gone\.png: no such file"):
            read_image(tmp_path / "gone.png")

    def test_sixteen_bits_are_refused_rather_than_clipped(self, tmp_path):
        Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "deep.png")
        with pytest.raises(DataError, match=r"deep\.png: holds 16-bit"):
            read_image(tmp_path / "deep.png")

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits_per_colour_are_refused_too(self, tmp_path, suffix):
        cv2.imwrite(str(tmp_path / f"deep.{suffix}"), np.full((4, 4, 3), 300, np.uint16))
        with pytest.raises(DataError, match=rf"deep\.{suffix}: (holds 16-bit|not a picture)"):
            read_image(tmp_path / f"deep.{suffix}")

    def test_a_damaged_tiff_is_refused(self, tmp_path):
        Image.new("RGB", (20, 20)).save(tmp_path / "x.tif")
        data = (tmp_path / "x.tif").read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(60):
            damaged = bytearray(data)
            for position in rng.integers(8, len(data), 40):
                damaged[position] = rng.integers(0, 256)
            (tmp_path / "x.tif").write_bytes(damaged)
            try:
                read_image(tmp_path / "x.tif")
            except DataError as error:
                assert "x.tif" in str(error)

    def test_an_animation_is_refused(self, tmp_path):
        frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
        frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="holds 2 pictures"):
            read_image(tmp_path / "moving.gif")

    def test_an_image_bomb_is_refused_from_its_header(self, tmp_path):
        Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
        with pytest.raises(DataError, match=r"bomb\.png: larger than"):
            read_image(tmp_path / "bomb.png")

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "1"])
    def test_other_modes_become_rgb(self, tmp_path, mode):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (6, 4)).save(tmp_path / f"x.{suffix}")
        image = read_image(tmp_path / f"x.{suffix}")
        assert image.shape == (4, 6, 3)
        assert image.dtype == np.uint8

    def test_a_photo_is_turned_upright_by_its_exif_orientation(self, tmp_path):
        image = Image.new("RGB", (6, 4))
        exif = image.getexif()
        exif[0x0112] = 6  # turn by 90 degrees
        image.save(tmp_path / "turned.jpg", exif=exif)
        assert read_image(tmp_path / "turned.jpg").shape == (6, 4, 3)


class TestQuantising:
    def test_hand_worked_distances(self):
        mask = np.array([[[255, 0, 0], [230, 10, 5], [0, 0, 0], [0, 250, 3], [128, 128, 128], [0, 39, 0]]], np.uint8)
        assert bin_image(mask, RGB).tolist() == [[0, 0, 255, 1, 255, 255]]

    def test_counts_what_lies_too_far(self):
        mask = np.array([[[255, 0, 0], [128, 128, 128], [0, 0, 0], [0, 42, 0]]], np.uint8)
        ids, far = quantise(mask, RGB)
        assert ids.tolist() == [[0, 255, 255, 255]]
        assert far == 2

    def test_equals_the_plain_search_on_random_colours(self):
        palette = cityscapes_palette()
        mask = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        colors = np.array(palette.colors + tuple(color for _, color in palette.ignored))
        distance = np.linalg.norm(mask[:, :, None].astype(float) - colors, axis=3)
        expected = np.where(distance.min(2) <= palette.max_distance, distance.argmin(2), 255)
        expected[expected >= palette.num_classes] = 255
        for _ in range(2):  # the second time from the table
            np.testing.assert_array_equal(bin_image(mask, palette), expected)

    def test_official_colours_get_official_train_ids(self):
        mask = np.array([[color for _, _, color in CITYSCAPES]], np.uint8)
        assert bin_image(mask, cityscapes_palette()).tolist() == [[train_id for _, train_id, _ in CITYSCAPES]]

    def test_equal_distance_goes_to_the_lower_id(self):
        palette = Palette(("a", "b"), ((100, 0, 0), (110, 0, 0)))
        assert bin_image(np.array([[[105, 0, 0]]], np.uint8), palette).tolist() == [[0]]

    def test_a_wrong_array_is_refused(self):
        with pytest.raises(SemsegError, match=r"float64 \(4, 4, 3\); expected uint8 RGB"):
            bin_image(np.zeros((4, 4, 3)), RGB)
        with pytest.raises(SemsegError, match=r"uint8 \(4, 4\); expected uint8 RGB"):
            bin_image(np.zeros((4, 4), np.uint8), RGB)

    def test_colouring_and_quantising_are_inverse(self):
        ids = draw_ids(5)
        np.testing.assert_array_equal(
            bin_image(give_color_to_seg_img(ids, cityscapes_palette()), cityscapes_palette()), ids
        )

    def test_one_hot_is_inverse_of_argmax_and_empty_where_ignored(self):
        ids = draw_ids(6)
        one_hot = get_segmentation_arr(ids, 19)
        assert one_hot.dtype == np.uint8
        np.testing.assert_array_equal(one_hot.sum(2), ids != 255)
        np.testing.assert_array_equal(one_hot.argmax(2)[ids != 255], ids[ids != 255])

    def test_one_hot_refuses_ids_out_of_range(self):
        with pytest.raises(SemsegError, match="got id 19 at 2 pixels; expected 0 to 18"):
            get_segmentation_arr(np.array([[0, 19, 19]]), 19)


class TestPalette:
    def test_cityscapes_is_recognised_through_smoothing_and_jpeg(self):
        masks = [as_kaggle_saves_it(draw_pair(seed, 256)[1], 128) for seed in range(6)]
        palette = find_palette(masks)
        assert palette == cityscapes_palette()
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
        ids = np.repeat(np.arange(34, dtype=np.uint8), 30).reshape(34, 30, 1)
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
        assert find_palette(masks) == cityscapes_palette()
        ids = bin_image(np.stack(masks), cityscapes_palette())
        assert 0.05 < (ids == 255).mean() < 0.25
        assert set(np.unique(ids)) == {*range(19), 255}


class TestResizing:
    def test_masks_keep_their_ids_and_photos_their_mean(self):
        ids = draw_ids(0, 64)
        assert set(np.unique(resize_mask(ids, (24, 40)))) <= set(np.unique(ids))
        photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        assert abs(resize_photo(photo, (16, 16)).mean() - photo.mean()) < 1
