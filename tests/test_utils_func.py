import os
import socket
import struct

import cv2
import numpy as np
import pytest
from helpers import black_png, draw_ids, draw_pair, save_pair
from PIL import Image

from semseg.errors import DataError, SemsegError
from semseg.images.reading import load_images, read_image, read_mask, read_photo
from semseg.images.resizing import resize_mask, resize_photo
from semseg.labels.known_palettes import CITYSCAPES
from semseg.labels.palettes import Label, Palette, cityscapes_palette
from semseg.labels.quantising import bin_image, get_segmentation_arr, give_color_to_seg_img, quantise

pytestmark = pytest.mark.plain

RGB = Palette.from_colors(
    ("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)), ignored=(("black", (0, 0, 0)),)
)


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
        (tmp_path / "bomb.png").write_bytes(black_png(20000))
        with pytest.raises(DataError, match=r"bomb\.png: larger than"):
            read_image(tmp_path / "bomb.png")

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "1"])
    def test_other_modes_become_rgb(self, tmp_path, mode):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, (6, 4)).save(tmp_path / f"x.{suffix}")
        image = read_image(tmp_path / f"x.{suffix}")
        assert image.shape == (4, 6, 3)
        assert image.dtype == np.uint8

    @pytest.mark.parametrize(("mode", "form"), [("RGB", ""), ("L", "grey"), ("RGBA", "alpha"), ("CMYK", "CMYK")])
    def test_what_was_converted_is_told(self, tmp_path, mode, form):
        Image.new(mode, (6, 4)).save(tmp_path / "x.tif")
        assert read_photo(tmp_path / "x.tif").form == form

    def test_a_large_jpeg_can_be_decoded_smaller_and_still_tells_its_size(self, tmp_path):
        photo = cv2.resize(draw_pair(0)[0], (640, 480))
        Image.fromarray(photo).save(tmp_path / "x.jpg", quality=95)
        picture = read_photo(tmp_path / "x.jpg", at_least=(60, 80))
        assert picture.pixels.shape == (60, 80, 3) and picture.size == (480, 640)
        whole = cv2.resize(read_image(tmp_path / "x.jpg"), (80, 60), interpolation=cv2.INTER_AREA)
        assert np.abs(whole.astype(int) - picture.pixels).mean() < 2

    def test_floats_are_refused_with_or_without_nan(self, tmp_path):
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "x.tif")
        with pytest.raises(DataError, match=r"x\.tif: holds 16-bit, 32-bit or float"):
            read_photo(tmp_path / "x.tif")
        with pytest.raises(DataError, match=r"x\.tif: holds NaN or infinity"):
            read_mask(tmp_path / "x.tif")

    @pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
    def test_what_is_no_file_is_refused_without_being_opened(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(tmp_path)  # a socket's path must be short
            server.bind("socket.png")
            for name, what in (("pipe", "a pipe"), ("folder", "a folder"), ("dangling", "leads nowhere"),
                               ("loop", "leads nowhere"), ("socket", "socket")):  # fmt: skip
                with pytest.raises(DataError, match=rf"{name}\.png: .*{what}"):
                    read_image(tmp_path / f"{name}.png")

    def test_a_tiff_that_lies_about_its_size_is_refused(self, tmp_path):
        Image.new("L", (20, 20)).save(tmp_path / "x.tif")
        data = bytearray((tmp_path / "x.tif").read_bytes())
        with Image.open(tmp_path / "x.tif") as image:
            assert image.tag_v2[256] == 20
        width_tag = struct.pack("<H", 256)
        place = next(i for i in range(len(data)) if data[i : i + 2] == width_tag and data[i + 2] in (3, 4))
        data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 40_000_000)
        (tmp_path / "x.tif").write_bytes(data)
        with pytest.raises(DataError, match=r"x\.tif: (larger than|cannot be read)"):
            read_image(tmp_path / "x.tif")

    def test_a_photo_is_turned_upright_by_its_exif_orientation(self, tmp_path):
        image = Image.new("RGB", (6, 4))
        exif = image.getexif()
        exif[0x0112] = 6  # turn by 90 degrees
        image.save(tmp_path / "turned.jpg", exif=exif)
        assert read_image(tmp_path / "turned.jpg").shape == (6, 4, 3)


class TestMasks:
    def test_palette_images_keep_their_indices_and_tell_their_colours(self, tmp_path):
        ids = np.array([[0, 1, 2, 1]], np.uint8)
        image = Image.new("P", (4, 1))
        image.putdata(ids.ravel().tolist())
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        for suffix in ("png", "gif"):
            image.save(tmp_path / f"x.{suffix}")
            mask = read_mask(tmp_path / f"x.{suffix}")
            shown = mask.colors[mask.pixels]
            assert shown.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90], [40, 50, 60]]]
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png").pixels, ids)

    def test_sixteen_bit_numbers_stay_as_they_are(self, tmp_path):
        Image.fromarray(np.array([[300, 44, 65535]], np.uint16)).save(tmp_path / "x.png")
        assert read_mask(tmp_path / "x.png").pixels.tolist() == [[300, 44, 65535]]

    def test_one_bit_masks_look_like_eight_bit_ones(self, tmp_path):
        Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1").save(tmp_path / "x.png")
        assert read_mask(tmp_path / "x.png").pixels.tolist() == [[0, 255, 255]]

    def test_jpeg_masks_are_colours_even_when_grey(self, tmp_path):
        Image.new("L", (8, 8), 200).save(tmp_path / "x.jpg")
        mask = read_mask(tmp_path / "x.jpg")
        assert mask.pixels.shape == (8, 8, 3) and mask.form == "JPEG"

    def test_sixteen_bits_per_colour_are_refused(self, tmp_path):
        cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4, 3), 300, np.uint16))
        with pytest.raises(DataError, match=r"deep\.png: holds 16-bit"):
            read_mask(tmp_path / "deep.png")


class TestQuantising:
    def test_hand_worked_distances(self):
        mask = np.array([[[255, 0, 0], [230, 10, 5], [0, 0, 0], [0, 250, 3], [128, 128, 128], [0, 39, 0]]], np.uint8)
        assert bin_image(mask, RGB).tolist() == [[0, 0, 255, 1, 255, 255]]

    def test_counts_what_lies_too_far(self):
        mask = np.array([[[255, 0, 0], [128, 128, 128], [0, 0, 0], [0, 42, 0]]], np.uint8)
        ids, unknown = quantise(mask, RGB)
        assert ids.tolist() == [[0, 255, 255, 255]]
        assert unknown.tolist() == [[False, True, False, True]]

    def test_equals_the_plain_search_on_random_colours(self):
        palette = cityscapes_palette()
        mask = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        colors = np.array([label.color for label in palette.labels])
        distance = np.linalg.norm(mask[:, :, None].astype(float) - colors, axis=3)
        expected = np.where(distance.min(2) <= palette.max_distance, distance.argmin(2), 255)
        expected[expected >= palette.num_classes] = 255
        for _ in range(2):  # the second time from the table
            np.testing.assert_array_equal(bin_image(mask, palette), expected)

    def test_official_colours_get_official_train_ids(self):
        entries = [entry for entry in CITYSCAPES if entry[0] not in ("license plate", "polegroup")]  # like car and pole
        mask = np.array([[color for *_, color in entries]], np.uint8)
        assert bin_image(mask, cityscapes_palette()).tolist() == [[train_id for _, _, train_id, _, _ in entries]]

    def test_equal_distance_goes_to_the_lower_id(self):
        palette = Palette.from_colors(("a", "b"), ((100, 0, 0), (110, 0, 0)))
        assert bin_image(np.array([[[105, 0, 0]]], np.uint8), palette).tolist() == [[0]]

    def test_a_wrong_array_is_refused(self):
        with pytest.raises(SemsegError, match=r"float64 \(4, 4, 3\); expected uint8 RGB"):
            bin_image(np.zeros((4, 4, 3)), RGB)
        with pytest.raises(SemsegError, match=r"uint8 \(4, 4\); expected uint8 RGB"):
            bin_image(np.zeros((4, 4), np.uint8), RGB)
        with pytest.raises(SemsegError, match=r"uint8 \(4, 4, 3\); expected integer numbers \(H, W\)"):
            bin_image(np.zeros((4, 4, 3), np.uint8), cityscapes_palette(held="id"))

    def test_numbers_are_looked_up_and_unknown_ones_told(self):
        palette = Palette((Label("a", 0, (0, 0, 0), 7), Label("b", 1, (9, 9, 9), 300), Label("no", 255, (5, 5, 5), 8)))
        mask = np.array([[7, 300, 8, 44, 70000, -1]], np.int32)
        ids, unknown = quantise(mask, palette)
        assert ids.tolist() == [[0, 1, 255, 255, 255, 255]]
        assert unknown.tolist() == [[False, False, False, True, True, True]]

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


class TestResizing:
    def test_masks_keep_their_ids_and_photos_their_mean(self):
        ids = draw_ids(0, 64)
        assert set(np.unique(resize_mask(ids, (24, 40)))) <= set(np.unique(ids))
        photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        assert abs(resize_photo(photo, (16, 16)).mean() - photo.mean()) < 1
