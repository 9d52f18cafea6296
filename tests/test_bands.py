"""Photos of 16 bits, of floats and of other bands than RGB: read, measured, cached, changed and checked."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from semseg.data import open_dataset
from semseg.data.augment import NO_AUGMENTATION, Augmentation
from semseg.data.batches import data_generator
from semseg.data.cache import Cache
from semseg.data.check import check_dataset
from semseg.errors import DataError, SemsegError
from semseg.images.bands import RGB, Bands, suited_view
from semseg.images.reading import read_mask, read_photo
from semseg.images.resizing import resize_photo
from semseg.inference.files import write_masks
from semseg.inference.listing import join_bands, photos_of
from semseg.labels.palettes import Label, Palette

pytestmark = pytest.mark.plain
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed: no TIFF of several bands")

FOUR = Bands(4, "uint16", low=(0.0,) * 4, high=(1000.0,) * 4, mean=(500.0,) * 4)
SIZE = 16


def numbers(count=4, seed=0, dtype=np.uint16):
    return np.random.default_rng(seed).integers(100, 900, (SIZE, SIZE, count)).astype(dtype)


def mask(seed=0):
    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[4 + seed % 5 : 12, 3 + seed % 7 : 12] = 1
    return ids


def make_set(root, write, count=6, suffix=".tif"):
    """`images/` by `write(path, seed)`, and `masks/` of PNG numbers."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        write(root / "images" / f"{i}{suffix}", i)
        Image.fromarray(mask(i)).save(root / "masks" / f"{i}.png")
    return root


def write_tiff(path, seed=0, count=4, dtype=np.uint16, **options):
    tifffile.imwrite(path, numbers(count, seed, dtype), photometric="minisblack", planarconfig="contig", **options)


def write_huge(path):
    """A TIFF whose header promises 100000 x 10000 pixels of 4 bands."""
    write_tiff(path)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageWidth"].overwrite(100_000)
        file.pages[0].tags["ImageLength"].overwrite(10_000)


# ------------------------------------------------------------------------------------------------------- one photo


@pytest.mark.parametrize(
    "write",
    [
        lambda path, pixels: tifffile.imwrite(path, pixels),  # which says that the fourth is alpha
        lambda path, pixels: tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig"),
        lambda path, pixels: tifffile.imwrite(path, np.moveaxis(pixels, 2, 0), photometric="minisblack"),
        lambda path, pixels: tifffile.imwrite(
            path, np.moveaxis(pixels, 2, 0), photometric="minisblack", planarconfig="separate", compression="zlib"
        ),
        lambda path, pixels: tifffile.imwrite(path, np.moveaxis(pixels, 2, 0), imagej=True, metadata={"axes": "CYX"}),
    ],
    ids=["alpha", "by pixel", "by page", "by plane", "ImageJ"],
)
def test_a_tiff_gives_its_own_numbers_however_its_bands_lie(tmp_path, write):
    path = tmp_path / "photo.tif"
    write(path, numbers())
    photo = read_photo(path, bands=FOUR)
    assert photo.pixels.dtype == np.uint16 and photo.without_data is None
    np.testing.assert_array_equal(photo.pixels, numbers())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_an_array_has_its_bands_on_its_shortest_side(tmp_path, order):
    path = tmp_path / "photo.npy"
    np.save(path, np.transpose(numbers(), order))
    np.testing.assert_array_equal(read_photo(path, bands=FOUR).pixels, numbers())
    np.savez(tmp_path / "photo.npz", image=numbers(), other=np.zeros(3))
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.npz", bands=FOUR).pixels, numbers())


def test_a_png_of_16_bits_keeps_the_lower_half(tmp_path):
    import cv2

    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), numbers(3)[..., ::-1])
    three = Bands(3, "uint16", low=(0.0,) * 3, high=(1.0,) * 3, mean=(0.0,) * 3)
    np.testing.assert_array_equal(read_photo(path, bands=three).pixels, numbers(3))


def test_pixels_without_data_get_the_mean_and_are_told(tmp_path):
    path = tmp_path / "photo.tif"
    pixels = numbers(4, dtype=np.float32)
    pixels[0, 0, 2], pixels[5, 6] = np.nan, -9999
    tifffile.imwrite(
        path, pixels, photometric="minisblack", planarconfig="contig", extratags=[(42113, "s", 0, "-9999", True)]
    )
    bands = Bands(4, "float32", low=(0.0,) * 4, high=(1000.0,) * 4, mean=(1.0, 2.0, 3.5, 4.0))
    photo = read_photo(path, bands=bands)
    assert np.argwhere(photo.without_data).tolist() == [[0, 0], [5, 6]]
    assert photo.pixels[5, 6].tolist() == [1, 2, 3.5, 4]
    assert photo.pixels[0, 0].tolist() == [*pixels[0, 0, :2].tolist(), 3.5, pixels[0, 0, 3]]
    tifffile.imwrite(path, np.full_like(pixels, np.nan), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=r"photo.tif: holds no data anywhere"):
        read_photo(path, bands=bands)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: write_tiff(path, count=5), r"has 5 bands of 16 bits; expected 4 bands of 16 bits"),
        (lambda path: write_tiff(path, dtype=np.float32), r"has 4 bands of floats; expected 4 bands of 16 bits"),
        (lambda path: Image.new("RGB", (8, 8)).save(path), r"has 3 bands of 8 bits; expected 4 bands of 16 bits"),
        (lambda path: path.write_bytes(b"II*\0broken"), r"photo.tif: cannot be read"),
        (lambda path: write_huge(path), r"photo.tif: has 4 bands of 1000000000 pixels; cut it into parts"),
        (
            lambda path: tifffile.imwrite(path, np.zeros((4, 8, 8), np.uint16), imagej=True, metadata={"axes": "ZYX"}),
            r"holds a stack of slices \(axes ZYX\); semseg segments pictures, not volumes",
        ),
    ],
)
def test_another_photo_is_refused_with_what_was_seen_and_expected(tmp_path, write, match):
    write(tmp_path / "photo.tif")
    with pytest.raises(DataError, match=match):
        read_photo(tmp_path / "photo.tif", bands=FOUR)


def test_a_cut_tiff_is_no_picture(tmp_path):
    path = tmp_path / "photo.tif"
    write_tiff(path)
    data = path.read_bytes()
    for length in (len(data) - 100, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"photo.tif: cannot be read"):
            read_photo(path, bands=FOUR)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (100, 5, 100), (7,)])
def test_arrays_of_other_shapes_are_no_photos(tmp_path, shape):
    np.save(tmp_path / "photo.npy", np.zeros(shape, np.uint16))
    with pytest.raises(DataError, match=r"photo.npy: holds an array of .*; expected \(H, W\)"):
        read_photo(tmp_path / "photo.npy", bands=FOUR)


def test_arrays_are_read_as_masks_and_as_8_bit_photos(tmp_path):
    np.save(tmp_path / "mask.npy", mask().astype(np.int64))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.npy").pixels, mask())
    np.save(tmp_path / "photo.npy", numbers(3).astype(np.uint8))
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.npy").pixels, numbers(3).astype(np.uint8))


# --------------------------------------------------------------------------------------------------- how they look


def test_the_view_stretches_the_shown_bands():
    bands = Bands(2, "uint16", low=(100.0, 0.0), high=(355.0, 1.0), mean=(0.0, 0.0), shown=(0,))
    pixels = np.uint16([[[50, 0], [100, 9], [101, 9], [355, 9], [9999, 0]]])
    assert bands.view(pixels)[0, :, 0].tolist() == [0, 0, 1, 255, 255]
    assert bands.view(pixels).shape == (1, 5, 3)
    photo = np.uint8([[[1, 2, 3]]])
    assert RGB.view(photo) is photo


def test_natural_colours_are_found_by_name():
    assert suited_view(4, ("Blue", "Green", "Red", "NIR")) == (2, 1, 0)
    assert suited_view(6, ("B2", "B3", "B4", "B8", "B11", "B12")) == (2, 1, 0)
    assert suited_view(4, ("B1", "B2", "B3", "B4")) == (0, 1, 2)
    assert suited_view(1, ()) == (0,)


@pytest.mark.parametrize("text", ["5,1,1", "0", "1,2", "a", "1,,2", ""])
def test_senseless_bands_to_show_are_refused(text):
    with pytest.raises(SemsegError, match=r"`show`: got .*; expected one or three numbers from 1 to 4"):
        FOUR.showing(text)


def test_bands_survive_json():
    bands = Bands(2, "int16", ("VV", "VH"), (0.0, -1.5), (1.0, 2.0), (0.5, 0.25), (1,), file_per_band=True)
    assert Bands.from_dict(bands.to_dict()) == bands
    with pytest.raises(ValueError, match=r"its bands make no sense"):
        Bands.from_dict({**bands.to_dict(), "low": [0]})


# ------------------------------------------------------------------------------------------------------ a data set


def test_a_set_of_bands_is_measured_on_its_training_photos(tmp_path):
    def write(path, seed):
        pixels = np.zeros((SIZE, SIZE, 4), np.uint16)
        pixels[..., :3] = 100 * np.arange(1, 4)
        pixels[..., 3] = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)  # 0 to 255
        pixels[0, 0] = 60000 + seed  # a dead pixel, below the 99th percentile
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")

    dataset = open_dataset(make_set(tmp_path, write))
    bands = dataset.bands
    assert (bands.count, bands.dtype, bands.shown) == (4, "uint16", (0, 1, 2))
    assert bands.low[3] == pytest.approx(np.percentile(np.r_[np.arange(1, 256), 60000], 1), abs=1)
    assert bands.high[3] == pytest.approx(np.percentile(np.r_[np.arange(1, 256), 60000], 99), abs=1)
    assert bands.low[0] == 100 and bands.high[0] > 60000 - 1  # one number but for the dead pixel
    assert any("photos hold 4 bands of 16 bits" in note for note in dataset.notes)


def test_8_bit_photos_stay_rgb(tmp_path):
    dataset = open_dataset(make_set(tmp_path, lambda path, seed: Image.new("L", (SIZE, SIZE), seed).save(path)))
    assert dataset.bands is RGB


@pytest.mark.parametrize("opaque", [True, False])
def test_a_fourth_band_of_8_bits_counts_where_it_varies_as_a_picture_does(tmp_path, opaque):
    def write(path, seed):
        pixels = numbers(4, seed).astype(np.uint8)
        pixels[..., 3] = 255 if opaque else pixels[..., 3]
        Image.fromarray(pixels, "RGBA").save(path)

    dataset = open_dataset(make_set(tmp_path, write, suffix=".png"))
    assert dataset.bands.are_rgb == opaque
    assert dataset.load(dataset.samples[0])[0].shape == (SIZE, SIZE, 3 if opaque else 4)


def errors_of(folder):
    return " ".join(check_dataset(open_dataset(folder), image_size=(SIZE, SIZE), workers=0).errors)


def test_photos_of_other_bands_are_named(tmp_path):
    make_set(tmp_path, lambda path, seed: write_tiff(path, seed, count=3 if seed == 4 else 4))
    assert "4.tif: has 3 bands of 16 bits; expected 4 bands of 16 bits, as the other photos have" in errors_of(tmp_path)


def test_bands_in_files_of_their_own_are_one_photo(tmp_path):
    def write(path, seed):
        for place, name in enumerate(("B04", "B02", "B8A")):
            tifffile.imwrite(path.with_name(f"{path.stem}_{name}.tif"), numbers(3, seed)[..., place])

    dataset = open_dataset(make_set(tmp_path, write, suffix=""))
    assert dataset.bands.names == ("B02", "B04", "B8A") and dataset.bands.file_per_band
    sample = dataset.samples[0]
    assert len(dataset.samples) == 6 and [path.name[-7:-4] for path in sample.bands] == ["B02", "B04", "B8A"]
    assert set(sample.bands) < set(sample.files)
    photo = dataset.load(sample)[0]
    np.testing.assert_array_equal(photo, numbers(3, int(sample.photo.name[0]))[..., [1, 0, 2]])
    (tmp_path / "images" / "3_B04.tif").unlink()
    assert "3_B02.tif: lacks the bands B04; add a file for each, as the other photos have" in errors_of(tmp_path)


def test_a_network_of_other_files_refuses_bands_in_files_of_their_own(tmp_path):
    def write(path, seed):
        for name in ("B02", "B03"):
            Image.fromarray(numbers(1, seed)[..., 0].astype(np.uint8)).save(path.with_name(f"{path.stem}_{name}.png"))

    make_set(tmp_path, write, suffix="")
    with pytest.raises(DataError, match=r"has a file for each band, B02, B03; the network was trained on .* one file"):
        open_dataset(tmp_path, bands=RGB)


def test_numbered_channels_share_a_mask_and_frames_do_not(tmp_path):
    for folder in ("imagesTr", "labelsTr", "images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        for channel in range(2):
            grey = Image.fromarray(numbers(1, 10 * i + channel)[..., 0].astype(np.uint8))
            grey.save(tmp_path / "imagesTr" / f"case{i}_{channel:04}.png")
        Image.fromarray(mask(i)).save(tmp_path / "labelsTr" / f"case{i}.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.bands.count, dataset.bands.names, len(dataset.samples)) == (2, ("0000", "0001"), 4)
    frames = tmp_path / "frames"
    for i in range(4):
        for folder, picture in (("images", numbers(3, i).astype(np.uint8)), ("masks", mask(i))):
            (frames / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(frames / folder / f"film_{i:04}.png")
    assert len(open_dataset(frames).samples) == 4


def test_volumes_are_named(tmp_path):
    (tmp_path / "case.nii.gz").write_bytes(b"volume")
    with pytest.raises(DataError, match=r"case.nii.gz: is a volume .* not volumes \(3D\); save each slice"):
        open_dataset(tmp_path)


# -------------------------------------------------------------------------------------------- on the way to training


def with_nodata(path, seed):
    pixels = numbers(4, seed)
    pixels[:2] = 0
    tifffile.imwrite(
        path, pixels, photometric="minisblack", planarconfig="contig", extratags=[(42113, "s", 0, "0", True)]
    )


def test_the_cache_gives_back_bands_of_16_bits(tmp_path):
    dataset = open_dataset(make_set(tmp_path / "data", with_nodata))
    size = (7, 9)  # whose slots need filling up
    cache = Cache(dataset.samples, size, "meaning", tmp_path / "cache", dataset.bands)
    for sample in dataset.samples:
        cache.digest(sample)
        cache.store(sample, *dataset.load(sample, size))
    for sample in dataset.samples:
        for stored, loaded in zip(cache.find(sample), dataset.load(sample, size), strict=True):
            assert stored.dtype == loaded.dtype
            np.testing.assert_array_equal(stored, loaded)


def test_batches_are_floats_in_the_files_own_numbers_and_ignore_what_has_no_data(tmp_path):
    dataset = open_dataset(make_set(tmp_path, with_nodata))
    photos, masks = data_generator(dataset, "val", batch_size=2, image_size=(SIZE, SIZE), workers=0)[0]
    assert photos.dtype == np.float32 and photos.shape[1:] == (SIZE, SIZE, 4)
    assert (masks[:, :2] == 255).all() and (masks[:, 2:] != 255).all()
    assert photos[:, 2:].min() >= 100 and photos[0, 0, 0].tolist() == np.rint(dataset.bands.mean).tolist()


def test_augmentation_moves_all_bands_alike_and_lights_each_within_its_range():
    photo, ids = numbers(5), mask()
    bands = Bands(5, "uint16", low=(100.0,) * 5, high=(900.0,) * 5, mean=(0.0,) * 5)
    flip = Augmentation(1.0, 0.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.9)
    flipped, _ = flip(photo, ids, np.random.default_rng(0), bands)
    np.testing.assert_array_equal(flipped, photo[:, ::-1])
    light = Augmentation(0.0, rotation=0.0, brightness=0.5, contrast=0.0, saturation=0.0)
    lit, _ = light(photo, ids, np.random.default_rng(3), bands)
    gain = (lit.astype(float) - 100).sum() / (photo.astype(float) - 100).sum()
    assert 0.5 <= gain <= 1.5 and abs(gain - 1) > 0.01
    np.testing.assert_allclose(lit, 100 + gain * (photo - 100.0), atol=1)
    one = NO_AUGMENTATION(photo[..., :1], ids, np.random.default_rng(0), Bands(1, "uint16", (), (0.0,), (1.0,)))[0]
    np.testing.assert_array_equal(one, photo[..., :1])


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("size", [(4, 4), (32, 32)])
def test_resizing_treats_each_band_by_itself(count, size):
    photo = numbers(count, dtype=np.float32)
    resized = resize_photo(photo, size)
    assert resized.shape == (*size, count)
    for place in range(count):
        np.testing.assert_array_equal(resized[..., place], resize_photo(photo[..., place], size))


def test_the_check_tells_of_flat_bands_other_scales_nodata_and_copies(tmp_path):
    def write(path, seed):
        pixels = numbers(3, min(seed, 6), np.float32)
        pixels[..., 2] = 7
        if seed == 2:
            pixels[..., :2] /= 10000
        pixels[0, 0] = np.nan
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")

    dataset = open_dataset(make_set(tmp_path, write, count=8))  # the last two are copies
    findings = check_dataset(dataset, image_size=(SIZE, SIZE), workers=0, allow_leaks=True)
    text = "\n".join(findings.warnings)
    assert "band 3 holds the same number at every pixel" in text
    assert "as on another scale" in text and "2.tif" in text
    assert f"without data (nodata or NaN), and ignored: {1 / SIZE**2:.2%} of the pixels" in text


def test_a_grey_tiff_of_16_bits_needs_no_other_package(tmp_path, monkeypatch):
    monkeypatch.setattr("semseg.images.band_reading.is_installed", lambda module: False)
    path = tmp_path / "photo.tif"
    image, tags = Image.fromarray(numbers(1)[..., 0]), TiffImagePlugin.ImageFileDirectory_v2()
    image.save(path, tiffinfo=tags)
    one = Bands(1, "uint16", (), (0.0,), (1.0,), (0.0,))
    np.testing.assert_array_equal(read_photo(path, bands=one).pixels, numbers(1))
    write_tiff(path)
    with pytest.raises(DataError, match=r"run pip install .*\[bands\]"):
        read_photo(path, bands=FOUR)


# ------------------------------------------------------------------------------------------------------ predictions


def test_files_of_one_photo_are_predicted_together(tmp_path):
    for photo in ("a", "b"):
        for name in ("B02", "B03"):
            tifffile.imwrite(tmp_path / f"{photo}_{name}.tif", numbers(1)[..., 0])
    (tmp_path / "notes_B9.tif").write_bytes(b"no band of these")
    bands = Bands(2, "uint16", ("B02", "B03"), file_per_band=True)
    found = dict(join_bands(photos_of(str(tmp_path), tmp_path / "out", []), bands))
    assert {name: [path.name for path in files] for name, files in found.items()} == {
        "a_B02.tif": ["a_B02.tif", "a_B03.tif"],
        "b_B02.tif": ["b_B02.tif", "b_B03.tif"],
    }
    single = dict(join_bands(photos_of(str(tmp_path / "b_B03.tif"), tmp_path / "out", []), bands))
    assert [[path.name for path in files] for files in single.values()] == [["b_B02.tif", "b_B03.tif"]]
    with pytest.raises(DataError, match=r"takes a file for each band \(B02, B03\); give them all"):
        join_bands(photos_of(str(tmp_path / "notes_B9.tif"), tmp_path / "out", []), bands)


def test_masks_are_255_where_there_is_no_data_and_values_what_stands_for_no_class(tmp_path):
    labels = tuple(Label(f"class_{i}", i, (i, 0, 0), value) for i, value in enumerate((0, 255)))
    absent = np.zeros((3, 4), bool)
    absent[1, 2] = absent[2, 0] = True
    logits = np.where(np.arange(4) < 2, -1.0, 1.0)[None, :, None].repeat(3, axis=0)
    files = {kind: tmp_path / f"{kind}.png" for kind in ("masks", "values", "colors")}
    bands = (logits[:2], logits[2:])
    counts, _, ids = write_masks(bands, (3, 4), files, Palette(labels, "values"), shown=(3, 4), without_data=absent)
    assert counts.tolist() == [5, 5]
    expected = np.array([[0, 0, 1, 1], [0, 0, 255, 1], [255, 0, 1, 1]])
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(np.asarray(Image.open(files["masks"])), expected)
    values = np.asarray(Image.open(files["values"]))
    assert values[0].tolist() == [0, 0, 255, 255] and values[absent].tolist() == [254, 254]
    assert np.asarray(Image.open(files["colors"]))[1, 2].tolist() == [0, 0, 0]


def test_a_compression_that_needs_another_package_names_it(tmp_path, monkeypatch):
    path = tmp_path / "photo.tif"
    write_tiff(path, compression="zlib")

    def refuse(page):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    monkeypatch.setattr("semseg.images.band_reading.is_installed", lambda module: module == "tifffile")
    with pytest.raises(DataError, match=r"photo.tif: is compressed by ADOBE_DEFLATE; run pip install .*\[bands\]"):
        read_photo(path, bands=FOUR)
