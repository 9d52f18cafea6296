"""What image files may hold beside colours and numbers: transparency, bands, pages, several masks of one photo."""

import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from semseg.data import open_dataset
from semseg.data.base import Dataset, Sample, read_mask_of
from semseg.data.united import count_contested, unite_masks
from semseg.errors import DataError
from semseg.images.reading import list_images, read_image, read_mask, read_photo
from semseg.images.tiff_headers import count_pages
from semseg.labels.palettes import Label, Palette

pytestmark = pytest.mark.plain

RED, GREEN, CLEAR = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 0, 0)
RED_GREEN = Palette.from_colors(("red", "green"), ((255, 0, 0), (0, 255, 0)))


def save(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    path.parent.mkdir(exist_ok=True)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def save_palette(path, indices, colors, **options):
    image = Image.fromarray(np.asarray(indices, np.uint8))
    image.putpalette(np.ravel(colors).tolist())
    return save(path, image, **options)


def tiff(path, bands, *, bits=8, photometric=2, extra=(), kind=1, planar=1, dtype=np.uint8):
    """A TIFF of one strip, 6x4 pixels, written byte by byte: band b holds b at all pixels but the first."""
    pixels = np.tile(np.arange(bands, dtype=dtype), (4, 6, 1))
    pixels[0, 0] = 99
    data = (np.moveaxis(pixels, -1, 0) if planar == 2 else pixels).tobytes()
    strip = len(data) // (bands if planar == 2 else 1)
    offsets = tuple(8 + i * strip for i in range(bands if planar == 2 else 1))
    tags = {
        256: (6,), 257: (4,), 258: (bits,) * bands, 259: (1,), 262: (photometric,), 273: offsets, 277: (bands,),
        278: (4,), 279: (strip,) * len(offsets), 284: (planar,), 338: extra, 339: (kind,) * bands,
    }  # fmt: skip
    entries, outside = b"", b""
    tags = {tag: values for tag, values in tags.items() if values}
    place = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, values in tags.items():
        content = struct.pack(f"<{len(values)}I", *values)
        if len(content) > 4:
            entries += struct.pack("<HHII", tag, 4, len(values), place + len(outside))
            outside += content
        else:
            entries += struct.pack("<HHI", tag, 4, 1) + content
    directory = struct.pack("<H", len(tags)) + entries + bytes(4) + outside
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    return path


class TestTransparentMasks:
    def test_transparent_pixels_are_told_and_blank_in_every_format(self, tmp_path):
        rgba = np.array([[RED, GREEN, (9, 9, 9, 0)]] * 2, np.uint8)
        for name in ("x.png", "x.tif", "x.webp", "x.tga"):
            mask = read_mask(save(tmp_path / name, rgba, **({"lossless": True} if name == "x.webp" else {})))
            assert mask.transparent.tolist() == [[False, False, True]] * 2, name
            assert mask.pixels.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 0]]] * 2, name

    def test_grey_with_alpha_stays_numbers(self, tmp_path):
        mask = read_mask(save(tmp_path / "x.png", Image.merge("LA", [
            Image.fromarray(np.array([[7, 3, 9]], np.uint8)), Image.fromarray(np.array([[255, 255, 0]], np.uint8))
        ])))  # fmt: skip
        assert mask.pixels.tolist() == [[7, 3, 0]] and mask.transparent.tolist() == [[False, False, True]]

    @pytest.mark.parametrize(("name", "key"), [("x.png", 2), ("x.png", b"\xff\xff\x00"), ("x.gif", 2)])
    def test_a_palette_with_a_transparent_entry(self, tmp_path, name, key):
        colors = ((10, 10, 10), (20, 20, 20), (30, 30, 30))
        mask = read_mask(save_palette(tmp_path / name, [[0, 1, 2, 1]], colors, transparency=key))
        assert mask.transparent.tolist() == [[False, False, True, False]]
        assert mask.colors[mask.pixels][0, [0, 1, 3]].tolist() == [list(colors[0]), list(colors[1]), list(colors[1])]

    @pytest.mark.parametrize(
        ("pixels", "key"),
        [(np.array([[5, 6]], np.uint8), 6), (np.array([[5, 600]], np.uint16), 600),
         (np.array([[(1, 2, 3), (4, 5, 6)]], np.uint8), (4, 5, 6))],
    )  # fmt: skip
    def test_one_number_or_colour_that_is_transparent(self, tmp_path, pixels, key):
        mask = read_mask(save(tmp_path / "x.png", pixels, transparency=key))
        assert mask.transparent.tolist() == [[False, True]] and not mask.pixels[0, 1].any()

    def test_opaque_masks_have_no_transparent_pixels(self, tmp_path):
        assert read_mask(save(tmp_path / "x.png", np.full((2, 2, 4), 255, np.uint8))).transparent is None
        unused = save_palette(tmp_path / "y.png", [[0, 1]], ((0, 0, 0), (9, 9, 9), (5, 5, 5)), transparency=2)
        assert read_mask(unused).transparent is None

    def test_soft_edges_end_at_half_and_layers_that_are_half_transparent_count(self, tmp_path):
        pixels = np.zeros((5, 12, 4), np.uint8)
        pixels[:, :4], pixels[:, 4:8] = (255, 0, 0, 100), (0, 255, 0, 200)
        pixels[:, 8:10] = [(0, 255, 0, 51), (0, 255, 0, 49)]
        mask = read_mask(save(tmp_path / "x.png", pixels))
        assert mask.transparent[0].tolist() == [False] * 9 + [True] * 3

    def test_a_forgotten_alpha_channel_hides_nothing(self, tmp_path):
        pixels = np.zeros((2, 2, 4), np.uint8)
        pixels[0, 0, 0] = 255
        mask = read_mask(save(tmp_path / "x.png", pixels))
        assert mask.transparent is None and mask.pixels[0, 0].tolist() == [255, 0, 0]

    def test_a_mask_on_which_nobody_drew_is_transparent_everywhere(self, tmp_path):
        assert read_mask(save(tmp_path / "x.png", np.zeros((2, 2, 4), np.uint8))).transparent.all()

    def test_numbers_in_the_alpha_channel_are_refused(self, tmp_path):
        pixels = np.zeros((9, 9, 4), np.uint8)
        pixels[:3, :, 3], pixels[3:6, :, 3] = 1, 2
        with pytest.raises(DataError, match=r"x\.png: holds one colour in 2 opacities; .*grey picture"):
            read_mask(save(tmp_path / "x.png", pixels))

    def test_a_sample_ignores_what_is_transparent_and_knows_it(self, tmp_path):
        save(tmp_path / "photo.png", np.zeros((1, 3, 3), np.uint8))
        save(tmp_path / "mask.png", np.array([[RED, CLEAR, GREEN]], np.uint8))
        look = inspect(Sample(tmp_path / "photo.png", tmp_path / "mask.png"), RED_GREEN)
        assert look.ids.tolist() == [[0, 255, 1]] and not look.unknown.any() and look.transparent == 1

    @pytest.mark.parametrize("drawn", [RED, (0, 0, 0, 255), (255, 255, 255, 255)])
    def test_around_drawings_of_one_colour_transparent_is_background(self, tmp_path, drawn):
        for number in range(4):
            mask = np.zeros((12, 12, 4), np.uint8)
            mask[2 : 4 + number, 3:9] = drawn
            save(tmp_path / "images" / f"{number}.png", np.zeros((12, 12, 3), np.uint8))
            save(tmp_path / "masks" / f"{number}.png", mask)
        dataset = open_dataset(tmp_path)
        assert any("transparent is read as background" in note for note in dataset.notes)
        assert Palette.from_dict(dataset.palette.to_dict()) == dataset.palette
        for sample in dataset.samples:
            ids = np.zeros((12, 12), np.uint8)
            ids[2 : 4 + int(sample.photo.stem), 3:9] = 1
            np.testing.assert_array_equal(dataset.load(sample)[1], ids)

    def test_transparent_pixels_turn_with_the_mask(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # stored 3 wide and 1 high, shown 1 wide and 3 high
        save(tmp_path / "photo.jpg", np.zeros((1, 3, 3), np.uint8), exif=exif)
        save(tmp_path / "mask.png", np.array([[RED, GREEN, CLEAR]], np.uint8))
        look = inspect(Sample(tmp_path / "photo.jpg", tmp_path / "mask.png"), RED_GREEN)
        assert look.turned and look.ids.tolist() == [[0], [1], [255]]


def inspect(sample, palette):
    return Dataset(sample.photo.parent, {"train": [sample]}, palette).inspect(sample)


class TestBands:
    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"bands": 4}, r"has 4 bands \(the fourth is not said to be alpha\); semseg reads 3: save red, green and"),
            ({"bands": 4, "extra": (0,)}, r"has 4 bands \(the fourth is not said to be alpha\)"),
            (
                {"bands": 4, "extra": (0,), "planar": 2},
                "has 4 bands of 8-bit whole numbers; semseg reads 1 or 3 bands of 8",
            ),
            ({"bands": 5, "extra": (2, 0)}, r"has 5 bands; semseg reads 3"),
            ({"bands": 2, "photometric": 1, "extra": (0,)}, r"has 2 bands .*save the grey one alone"),
            ({"bands": 4, "photometric": 1, "extra": (0, 0, 0), "planar": 2}, "has 4 bands"),
            ({"bands": 2, "photometric": 1}, r"has 2 bands of 8-bit whole numbers; semseg reads 1 or 3"),
            ({"bands": 8, "photometric": 1}, r"has 8 bands of 8-bit whole numbers"),
            ({"bands": 13, "photometric": 1, "bits": 16, "dtype": np.uint16}, r"has 13 bands of 16-bit whole numbers"),
            (
                {"bands": 1, "photometric": 1, "bits": 64, "kind": 3, "dtype": np.float64},
                "has 1 band of 64-bit fractions",
            ),
        ],
    )
    def test_bands_that_would_be_dropped_are_refused_by_their_number(self, tmp_path, options, what):
        path = tiff(tmp_path / "x.tif", **options)
        with pytest.raises(DataError, match=rf"x\.tif: {what}"):
            read_photo(path)
        with pytest.raises(DataError, match="a mask needs one band of numbers"):
            read_mask(path)

    @pytest.mark.parametrize("extra", [(1,), (2,)])
    def test_a_band_that_is_said_to_be_alpha_is_alpha(self, tmp_path, extra):
        assert read_photo(tiff(tmp_path / "x.tif", 4, extra=extra)).form.startswith("a picture with transparent places")

    def test_a_fourth_band_that_is_the_same_everywhere_holds_nothing(self, tmp_path):
        path = tiff(tmp_path / "x.tif", 4)
        path.write_bytes(path.read_bytes().replace(bytes([99] * 4), bytes([99, 99, 99, 3])))
        assert read_photo(path).pixels[0, :2].tolist() == [[99, 99, 99], [0, 1, 2]]

    def test_four_inks_are_no_further_band(self, tmp_path):
        assert read_photo(tiff(tmp_path / "x.tif", 4, photometric=5)).form == "CMYK"

    def test_a_jpeg_2000_of_four_bands(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
        path = save(tmp_path / "x.jp2", pixels)
        path.write_bytes(path.read_bytes().replace(b"cdef", b"free"))
        with pytest.raises(DataError, match=r"x\.jp2: has 4 bands \(the fourth is not said to be alpha\)"):
            read_photo(path)

    def test_what_the_alpha_of_a_photo_does_is_told(self, tmp_path):
        photo = np.full((40, 40, 4), 255, np.uint8)
        assert read_photo(save(tmp_path / "opaque.png", photo)).form == "alpha"
        photo[:9, :, 3] = 0
        assert "transparent places" in read_photo(save(tmp_path / "hole.png", photo)).form
        photo[..., 3] = np.arange(1600).reshape(40, 40) // 7
        assert "a further band, called alpha, that varies" in read_photo(save(tmp_path / "nir.png", photo)).form
        key = save_palette(tmp_path / "key.png", [[0, 1]], ((0, 0, 0), (9, 9, 9)), transparency=0)
        assert "transparent places" in read_photo(key).form


def save_stack(path, pages, **options):
    images = [Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


class TestPages:
    PAGES = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 6, 8), np.uint8)

    @pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
    def test_each_page_of_a_stack_can_be_read(self, tmp_path, options):
        path = save_stack(tmp_path / "stack.tif", self.PAGES, **options)
        assert count_pages(path) == 5
        for page in (4, 0, 2):
            assert np.unique(read_photo(path, page=page).pixels).tolist() == [page]
            assert np.unique(read_mask(path, page=page).pixels).tolist() == [page]

    def test_a_stack_is_refused_where_one_picture_is_wanted(self, tmp_path):
        path = save_stack(tmp_path / "stack.tif", self.PAGES)
        for read in (read_image, read_photo, read_mask):
            with pytest.raises(DataError, match=r"stack\.tif: holds 5 pictures; save the right one alone"):
                read(path)
        with pytest.raises(DataError, match=r"holds 5 pictures, and page 5 cannot be read"):
            read_photo(path, page=5)

    def test_other_pages_are_not_decoded(self, tmp_path):
        path = save_stack(tmp_path / "stack.tif", self.PAGES, compression="tiff_adobe_deflate")
        with Image.open(path) as image:
            image.seek(3)
            place = image.tag_v2[273][0]
        data = bytearray(path.read_bytes())
        data[place : place + 8] = b"damaged!"
        path.write_bytes(data)
        assert np.unique(read_photo(path, page=4).pixels).tolist() == [4]
        with pytest.raises(DataError, match="cannot be read"):
            read_photo(path, page=3)

    def test_overviews_masks_and_smaller_copies_are_no_pages(self, tmp_path):
        full, small = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (16, 12), "blue")
        flagged = Image.new("L", (64, 48))
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[254] = 4
        flagged.encoderinfo = {"tiffinfo": tags}
        path = tmp_path / "x.tif"
        full.save(path, save_all=True, append_images=[small, flagged])
        assert count_pages(path) == 1
        assert read_photo(path).pixels[0, 0].tolist() == [255, 0, 0]
        small.save(path, save_all=True, append_images=[full])  # the thumbnail first
        assert count_pages(path) == 1 and read_photo(path).size == (48, 64)
        Image.new("RGB", (64, 20)).save(path, save_all=True, append_images=[full])
        assert count_pages(path) == 2

    def test_one_page_of_anything_else(self, tmp_path):
        assert count_pages(save(tmp_path / "x.png", self.PAGES[0])) == 1
        assert count_pages(save(tmp_path / "x.tif", self.PAGES[0])) == 1
        (tmp_path / "damaged.tif").write_bytes(b"II*\0\x08\0\0\0\xff")
        assert count_pages(tmp_path / "damaged.tif") == count_pages(tmp_path / "gone.tif") == 1

    def test_imagej_puts_many_pictures_behind_one_page(self, tmp_path):
        text = "ImageJ=1.54f\nimages=30\nslices=30\n"
        path = save(tmp_path / "x.tif", self.PAGES[0], description=text)
        assert count_pages(path) == 30
        with pytest.raises(DataError, match="holds 30 pictures"):
            read_photo(path)
        assert read_photo(path, page=0).size == (6, 8)
        with pytest.raises(DataError, match="page 1 cannot be read"):
            read_photo(path, page=1)

    def test_channels_as_pages_are_named(self, tmp_path):
        text = "ImageJ=1.54f\nimages=3\nchannels=3\nmode=composite\n"
        path = save_stack(tmp_path / "x.tif", self.PAGES[:3], description=text)
        with pytest.raises(DataError, match="holds 3 channels as 3 pages; save them as one RGB picture"):
            read_photo(path)

    def test_a_sample_is_one_page_of_both_stacks(self, tmp_path):
        photos = save_stack(tmp_path / "volume.tif", self.PAGES * 9)
        labels = save_stack(tmp_path / "labels.tif", (self.PAGES % 2) * 255)
        palette = Palette((Label("cell", 0, (0, 0, 0), 0), Label("membrane", 1, (255, 255, 255), 255)), "values")
        look = inspect(Sample(photos, labels, page=3), palette)
        assert np.unique(look.photo).tolist() == [27] and np.unique(look.ids).tolist() == [1]


class TestNumbers:
    @pytest.mark.parametrize(("dtype", "kept"), [(np.float32, np.uint16), (np.int32, np.uint16), (">u2", np.uint16)])
    def test_labels_as_floats_or_wide_integers(self, tmp_path, dtype, kept):
        mask = read_mask(save(tmp_path / "x.tif", np.array([[0, 300, 65535]]).astype(dtype)))
        assert mask.pixels.tolist() == [[0, 300, 65535]] and mask.pixels.dtype == kept

    def test_negative_numbers_stay_negative(self, tmp_path):
        assert read_mask(save(tmp_path / "x.tif", np.array([[-1, 70000]], np.int32))).pixels.tolist() == [[-1, 70000]]

    @pytest.mark.parametrize(
        ("values", "what"),
        [([0, 0.37], r"holds fractions, such as 0\.37;"), ([0, -1], "holds the numbers -1 to 0;"),
         ([0, np.nan], "holds NaN"), ([0, 1e6], "holds the numbers 0 to 1000000;")],
    )  # fmt: skip
    def test_floats_that_are_no_labels_are_refused(self, tmp_path, values, what):
        with pytest.raises(DataError, match=rf"x\.tif: {what}"):
            read_mask(save(tmp_path / "x.tif", np.array([values], np.float32)))

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_palettes_of_few_bits_keep_their_indices(self, tmp_path, bits):
        indices = [[0, 1, 1, 0]] if bits == 1 else [[0, 1, 3, 2]]
        path = save_palette(tmp_path / "x.png", indices, ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)), bits=bits)
        assert read_mask(path).pixels.tolist() == indices

    def test_a_tiff_in_which_0_is_white_keeps_its_numbers(self, tmp_path):
        path = tiff(tmp_path / "x.tif", 1, photometric=0)
        assert np.unique(read_mask(path).pixels).tolist() == [0, 99]

    def test_a_greymap_with_another_maximum_keeps_its_numbers(self, tmp_path):
        (tmp_path / "plain.pgm").write_text("P2\n4 1\n20\n0 1 7 20\n")
        (tmp_path / "raw.pgm").write_bytes(b"P5\n4 1\n20\n" + bytes([0, 1, 7, 20]))
        (tmp_path / "deep.pgm").write_bytes(b"P5\n2 1\n1000\n" + struct.pack(">HH", 3, 999))
        assert read_mask(tmp_path / "plain.pgm").pixels.tolist() == [[0, 1, 7, 20]]
        assert read_mask(tmp_path / "raw.pgm").pixels.tolist() == [[0, 1, 7, 20]]
        assert read_mask(tmp_path / "deep.pgm").pixels.tolist() == [[3, 999]]

    def test_a_deep_pixmap_is_refused(self, tmp_path):
        (tmp_path / "x.ppm").write_bytes(b"P6\n1 1\n65535\n" + bytes(6))
        with pytest.raises(DataError, match=r"x\.ppm: holds 16-bit"):
            read_photo(tmp_path / "x.ppm")

    @pytest.mark.parametrize("suffix", ["jfif", "JPE", "jp2", "tga", "ppm", "pgm", "pnm", "pbm", "avif"])
    def test_further_suffixes_are_listed_and_read(self, tmp_path, suffix):
        if suffix == "avif":
            pytest.importorskip("PIL._avif")
        save(tmp_path / f"x.{suffix}", np.full((8, 8, 3), 255, np.uint8), {"pgm": "L", "pbm": "1"}.get(suffix))
        assert [path.name for path in list_images(tmp_path)] == [f"x.{suffix}"]
        assert read_image(tmp_path / f"x.{suffix}").min() > 250


class TestSeveralMasks:
    def draw(self, path, *columns, value=255, height=4, width=8, **options):
        pixels = np.zeros((height, width), np.uint8)
        pixels[:, list(columns)] = value
        return save(path, pixels, **options)

    def test_objects_of_one_class_are_united(self, tmp_path):
        parts = [self.draw(tmp_path / f"{i}.png", i, i + 1, value=value) for i, value in enumerate((255, 1, 7))]
        parts.append(self.draw(tmp_path / "empty.png"))
        united = unite_masks(parts)
        assert united.pixels.tolist() == [[255] * 4 + [0] * 4] * 4 and united.size == (4, 8)

    def test_grey_colours_palettes_and_transparent_parts(self, tmp_path):
        parts = [self.draw(tmp_path / "rgb.png", 0, mode="RGB"), self.draw(tmp_path / "one.png", 1, mode="1")]
        clear = np.zeros((4, 8, 4), np.uint8)
        clear[:, 2] = 0, 0, 0, 255
        opaque = np.zeros((4, 8, 4), np.uint8) + np.uint8([0, 0, 0, 255])
        opaque[:, 3] = 200, 0, 0, 255
        parts += [save(tmp_path / "clear.png", clear), save(tmp_path / "opaque.png", opaque)]
        indices = np.ones((4, 8), np.uint8)
        indices[:, 4] = 0
        parts.append(save_palette(tmp_path / "index.gif", indices, ((255, 255, 255), (0, 0, 0))))
        assert unite_masks(parts).pixels[0].tolist() == [255] * 5 + [0] * 3

    def test_jpeg_and_smoothed_parts_are_parted_at_half(self, tmp_path):
        square = np.zeros((64, 64), np.uint8)
        square[16:48, 16:48] = 255
        jpeg = save(tmp_path / "a.jpg", square, quality=60)
        small = Image.fromarray(square).resize((61, 61), Image.Resampling.BICUBIC).resize((64, 64))
        for path in (jpeg, save(tmp_path / "b.png", small)):
            wrong = (unite_masks([path]).pixels > 0) != (square > 0)
            assert wrong.mean() < 0.02, path
        assert not unite_masks([save(tmp_path / "c.jpg", np.zeros_like(square))]).pixels.any()

    def test_one_file_per_class_and_255_where_they_overlap(self, tmp_path):
        parts = (self.draw(tmp_path / "a.png", 0, 1), self.draw(tmp_path / "b.png", 1, 2),
                 self.draw(tmp_path / "c.png", 1, 3))  # fmt: skip
        sample = Sample(tmp_path / "photo.png", parts[0], parts, part_numbers=(1, 2, 1))
        assert read_mask_of(sample).pixels[0].tolist() == [1, 255, 2, 1, 0, 0, 0, 0]
        assert count_contested(parts, sample.part_numbers) == {1: 4, 2: 4}
        assert count_contested((parts[0], parts[2]), (1, 1)) == {}

        save(tmp_path / "photo.png", np.zeros((4, 8, 3), np.uint8))
        labels = [Label(name, i, (i, i, i), i) for i, name in enumerate(("background", "lens", "retina"))]
        look = inspect(sample, Palette(tuple(labels), "values"))
        assert look.ids[0].tolist() == [1, 255, 2, 1, 0, 0, 0, 0]
        assert look.overlapping == 4 and not look.unknown.any()

    def test_a_second_value_that_fills_an_area_is_another_class(self, tmp_path):
        pixels = np.zeros((8, 8), np.uint8)
        pixels[:4], pixels[4:, :4] = 255, 250
        with pytest.raises(DataError, match="holds 3 numbers"):
            unite_masks([save(tmp_path / "x.png", pixels)])

    def test_a_part_with_more_values_is_refused(self, tmp_path):
        path = save(tmp_path / "x.png", np.array([[0, 1, 2, 3]], np.uint8))
        with pytest.raises(
            DataError, match=r"x\.png: holds 4 numbers; the several masks of one photo must each be one"
        ):
            unite_masks([path])
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        for name in ("photo.jpg", "photo.png"):
            with pytest.raises(DataError, match=r"photo\....: holds \d+ colours; the several masks"):
                unite_masks([save(tmp_path / name, noise)])

    def test_parts_of_two_sizes_are_refused(self, tmp_path):
        parts = [self.draw(tmp_path / "a.png", 0), self.draw(tmp_path / "b.png", 0, width=9)]
        with pytest.raises(DataError, match=r"b\.png: is 9x4 pixels, .*a\.png 8x4; the masks of one photo must be"):
            unite_masks(parts)

    def test_a_sample_without_parts_is_one_file(self, tmp_path):
        path = self.draw(tmp_path / "a.png", 0, value=3)
        assert read_mask_of(Sample(path, path)).pixels[0, 0] == 3
