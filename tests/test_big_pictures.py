"""Photos read piece by piece, against Pillow, and read whole although they are large."""

import sys

import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps

from semseg.data import base, open_dataset
from semseg.errors import DataError
from semseg.images import large as big_pictures
from semseg.images import opening
from semseg.images.large import BigPicture

pytestmark = pytest.mark.plain


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch):
    monkeypatch.setattr(big_pictures, "_BAND_BYTES", 3 * 40 * 7)


def photo(height=50, width=40):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))


def read(path):
    picture = BigPicture(path, path.parent)
    bands = list(picture.bands())
    assert len(bands) > 1
    pixels = np.concatenate(bands)
    assert pixels.dtype == np.uint8 and pixels.shape == (*picture.size, 3)
    return pixels


@pytest.mark.parametrize("form", ["png", "tif", "bmp", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_all_forms_are_rgb(tmp_path, form, mode):
    if (form, mode) in (("bmp", "RGBA"), ("webp", "P"), ("webp", "L")):
        pytest.skip("Pillow writes no such file")
    path = tmp_path / f"x.{form}"
    photo().convert(mode).save(path, **({"lossless": True} if form == "webp" else {}))
    with Image.open(path) as image:
        np.testing.assert_array_equal(read(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["png", "jpg", "tif"])
def test_upright(tmp_path, form, orientation):
    image, path = photo(), tmp_path / f"x.{form}"
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **({"quality": 95, "subsampling": 0} if form == "jpg" else {}))
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"), np.int16)
    np.testing.assert_allclose(read(path), expected, atol=3 if form == "jpg" else 0)
    assert list(tmp_path.iterdir()) == [path]


def fails(path, kind, text):
    with pytest.raises(kind, match=text):
        read(path)


@pytest.mark.parametrize("form", ["png", "jpg", "tif"])
def test_a_file_that_was_cut(tmp_path, form):
    path = tmp_path / f"x.{form}"
    photo(400, 300).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails(path, DataError, rf"x.{form}: cannot be read \(")


def test_what_is_no_photo(tmp_path):
    Image.fromarray(np.zeros((30, 30), np.uint16)).save(tmp_path / "deep.png")
    fails(tmp_path / "deep.png", DataError, "deep.png: holds uint16 pixels")
    (tmp_path / "text.jpg").write_text("text")
    fails(tmp_path / "text.jpg", DataError, "text.jpg: neither JPEG, PNG")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("count", [2, 4])
def test_bands_beyond_the_colours_are_not_dropped(tmp_path, count):
    path = tmp_path / "x.tif"
    profile = {"driver": "GTiff", "height": 50, "width": 40, "count": count, "dtype": "uint8", "ALPHA": "NO"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.zeros((count, 50, 40), np.uint8))
    fails(path, DataError, f"has {count} bands, and what is in those after {1 if count == 2 else 3} is not said to be")


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (9000, 9000)).save(path, compress_level=9)
    fails(path, DataError, "9000x9000 pixels in [0-9]+ bytes, which is no photo")


def test_without_rasterio_its_pip_command_is_named(tmp_path, monkeypatch):
    photo().save(tmp_path / "x.png")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    fails(
        tmp_path / "x.png",
        DataError,
        r"x.png: larger than 89 million pixels; run pip install .*\[geo\]', to read",
    )


class TestToLearnFrom:
    """Photos of more pixels than Pillow opens, whose masks are as large."""

    @pytest.fixture()
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setattr(opening, "_MAX_PIXELS", 500)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow refuses twice as many
        for split in ("train", "val"):
            for name in ("a.png", "b.tif"):
                for kind, picture in (("images", photo()), ("masks", Image.fromarray(ids()))):
                    (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
                    picture.save(tmp_path / split / kind / name)
        return tmp_path

    def test_they_are_read_whole(self, folder):
        dataset = open_dataset(folder)
        for sample in dataset.samples:
            pixels, mask = dataset.load(sample)
            np.testing.assert_array_equal(pixels, np.asarray(photo()))
            np.testing.assert_array_equal(mask, ids())

    def test_more_than_may_be_learned_from_are_refused(self, folder, monkeypatch):
        dataset = open_dataset(folder)
        monkeypatch.setattr(base, "MAX_PIXELS_TO_LEARN", 1999)
        with pytest.raises(DataError, match=r"a.png: larger than 0 million pixels; scale it down"):
            dataset.load(dataset.splits["train"][0])

    def test_one_of_few_bytes_is_no_photo(self, folder, monkeypatch):
        dataset = open_dataset(folder)
        monkeypatch.setattr(opening, "MAX_PIXELS_PER_BYTE", 0.1)
        with pytest.raises(DataError, match=r"a.png: 40x50 pixels in [0-9]+ bytes, which is no photo"):
            dataset.load(dataset.splits["train"][0])

    def test_a_mask_larger_than_its_photo_is_refused_by_its_header(self, folder):
        dataset = open_dataset(folder)
        Image.fromarray(np.tile(ids(), (2, 1))).save(folder / "train" / "masks" / "a.png")
        with pytest.raises(DataError, match=r"a.png: larger than 0 million pixels"):
            dataset.load(dataset.splits["train"][0])


def ids():
    mask = np.zeros((50, 40), np.uint8)
    mask[10:20, 5:30] = 1
    return mask
