"""PNG files as other programs read them."""

import cv2
import numpy as np
import pytest
from PIL import Image

from semseg.images.png_writer import PngWriter

pytestmark = pytest.mark.plain


def write(path, pixels, step, **options):
    with PngWriter(path, pixels.shape[:2], dtype=pixels.dtype, **options) as png:
        for row in range(0, len(pixels), step):
            png.write(pixels[row : row + step])


@pytest.mark.parametrize("step", [1, 4, 100])
@pytest.mark.parametrize(("shape", "dtype"), [((13, 7), "u1"), ((13, 7, 3), "u1"), ((13, 7), "u2"), ((1, 1), "u1")])
def test_others_read_what_was_written(tmp_path, shape, dtype, step):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    write(tmp_path / "x.png", pixels, step, channels=3 if len(shape) == 3 else 1)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), pixels)
    by_opencv = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_opencv if by_opencv.ndim == 2 else by_opencv[..., ::-1], pixels)


def test_a_palette_shows_colours_and_keeps_ids(tmp_path):
    colors = np.uint8([[1, 2, 3], [200, 100, 50]])
    write(tmp_path / "x.png", np.uint8([[0, 1], [1, 0]]), 1, colors=colors)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P" and np.asarray(image).tolist() == [[0, 1], [1, 0]]
        np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[0], colors)
