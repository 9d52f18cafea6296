"""Tiles against the whole photo at once, on a network whose field of view is known."""

import cv2
import numpy as np
import pytest

from semseg.errors import SemsegError
from semseg.inference.logits import probabilities_of_logits
from semseg.inference.tiling import OVERLAP, OVERLAP_OF_CROPS, resize_bands, tile_count, tiled_logits, with_scales

pytestmark = pytest.mark.plain
REACH = 11  # pixels that the network below looks to each side, and beyond the photo it sees zeros


def blur(photos):
    """A network with the weights of a Gaussian."""
    side = 2 * REACH + 1
    blurred = [cv2.GaussianBlur(x.astype(np.float32), (side, side), 4, borderType=cv2.BORDER_CONSTANT) for x in photos]
    return np.stack(blurred) / 16


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("height", [211, 5, 64], ids="bands of {}".format)
def test_tiles_give_what_the_whole_photo_gives_where_their_overlap_covers_the_field_of_view(height):
    photo = noise(211, 301, 3)
    bands = [photo[row : row + height] for row in range(0, 211, height)]
    tiled = np.concatenate(
        list(tiled_logits(blur, bands, (211, 301), image_size=(64, 80), tile=(64, 80), batch_size=3))
    )
    inside = slice(REACH, -REACH)
    np.testing.assert_allclose(tiled[inside, inside], blur(photo[None])[0][inside, inside], atol=1e-3)
    assert tiled.shape == photo.shape and np.isfinite(tiled).all()


def pool(photos, stride):
    """A network that pools: of each square on a grid its brightest pixel, at all of its pixels."""
    n, height, width, _ = photos.shape
    squares = photos[..., :1].reshape(n, height // stride, stride, width // stride, stride, 1).max(axis=(2, 4))
    return squares.repeat(stride, axis=1).repeat(stride, axis=2).astype(np.float32)


@pytest.mark.parametrize(
    ("tile", "overlap", "stride"),
    [(128, OVERLAP, 16), (96, OVERLAP, 16), (256, OVERLAP_OF_CROPS, 16), (192, OVERLAP_OF_CROPS, 16), (32, OVERLAP, 4)],
)
def test_tiles_lie_on_the_grid_of_a_network_that_pools(tile, overlap, stride):
    photo = noise(304, 560, 3)
    bands = tiled_logits(
        lambda photos: pool(photos, stride), [photo], (304, 560), image_size=(tile, tile), tile=(tile, tile),
        overlap=overlap,
    )  # fmt: skip
    np.testing.assert_allclose(np.concatenate(list(bands)), pool(photo[None], stride)[0], atol=1e-3)


def test_tiles_that_disagree_leave_no_seam():
    number = iter(range(100))

    def disagreeing(photos):
        return np.stack([np.full((64, 64, 1), next(number) % 2, np.float32) for _ in photos])

    tiled = np.concatenate(
        list(tiled_logits(disagreeing, [noise(64, 300, 3)], (64, 300), image_size=(64, 64), tile=(64, 64)))
    )
    steps = np.abs(np.diff(tiled[:, :, 0], axis=1))
    assert tiled.min() == 0 and tiled.max() == 1 and steps.max() < 0.3


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (15, 17), (65, 64), (200, 3)])
@pytest.mark.parametrize("tile", [(64, 64), (30, 100), (7, 9)], ids=str)
def test_any_size_in_any_tiles(size, tile):
    def network(photos):
        return photos / np.float32(16)

    flat = tiled_logits(network, [np.full((*size, 3), 160, np.uint8)], size, image_size=(64, 64), tile=tile)
    flat = np.concatenate(list(flat))
    assert flat.shape == (*size, 3)
    np.testing.assert_allclose(flat, 10, atol=1e-3)


def test_tiles_are_resized_to_what_the_network_sees():
    sizes = set()

    def network(photos):
        sizes.add(photos.shape[1:])
        return photos[..., :1] / np.float32(255)

    ramp = np.repeat(np.linspace(0, 255, 400).round().astype(np.uint8)[None, :, None], 300, axis=0).repeat(3, axis=2)
    found = np.concatenate(list(tiled_logits(network, [ramp], (300, 400), image_size=(32, 32), tile=(128, 128))))
    assert sizes == {(32, 32, 3)}
    np.testing.assert_allclose(found[:, 8:-8, 0], ramp[:, 8:-8, 0] / 255, atol=0.005)


def test_the_number_of_tiles():
    assert tile_count((64, 64), (32, 32), (64, 64)) == 1
    assert tile_count((64, 65), (32, 32), (64, 64)) == 2
    calls = []
    list(tiled_logits(lambda x: calls.append(len(x)) or blur(x), [noise(100, 300, 3)], (100, 300), image_size=(64, 64),
                      tile=(64, 64), batch_size=4))  # fmt: skip
    assert sum(calls) == tile_count((100, 300), (64, 64), (64, 64)) and max(calls) == 4


@pytest.mark.parametrize("size", [(77, 100), (20, 10), (1, 1), (32, 48), (500, 3)])
def test_enlarging_in_bands_is_opencvs_linear_interpolation(size):
    logits = np.random.default_rng(1).normal(size=(32, 48, 5)).astype(np.float32)
    expected = cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, 5)
    for blocks in ([logits], [logits[:5], logits[5:6], logits[6:]]):
        np.testing.assert_allclose(np.concatenate(list(resize_bands(blocks, size, (32, 48)))), expected, atol=1e-4)


def test_logits_at_a_photos_size_are_never_all_in_memory():
    bands = list(resize_bands([noise(64, 64, 11).astype(np.float32)], (1000, 1200), (64, 64)))
    assert sum(map(len, bands)) == 1000 and max(band.nbytes for band in bands) <= 1 << 20


def test_scales_average_probabilities():
    def by_brightness(photos):  # of the zeroth pixel's neighbourhood, so that all scales agree
        return np.repeat(photos[..., :1], 3, axis=-1) * np.float32([0.01, 0, -0.01])

    flat = np.full((2, 32, 32, 3), 90, np.uint8)
    found = with_scales(by_brightness, [0.5, 1, 1.5])(flat)
    np.testing.assert_allclose(probabilities_of_logits(found), probabilities_of_logits(by_brightness(flat)), atol=1e-5)


def test_each_scale_counts_as_much_as_another():
    def by_size_of_a_square(photos):  # two classes by a single logit: where it is bright
        return np.where(photos[..., :1] > 127, np.float32(3), np.float32(-3))

    photo = np.zeros((1, 64, 64, 3), np.uint8)
    photo[:, 16:48, 16:48] = 255
    found = probabilities_of_logits(with_scales(by_size_of_a_square, [0.5, 1, 1.25])(photo))
    assert found.shape == (1, 64, 64, 2)
    np.testing.assert_allclose(found[0, 32, 32, 1], 1 / (1 + np.exp(-3)), atol=1e-3)
    np.testing.assert_allclose(found[0, 4, 4, 1], 1 / (1 + np.exp(3)), atol=1e-3)


@pytest.mark.parametrize("scales", [[], [0], [1, 9], [float("nan")]])
def test_scales_that_make_no_sense(scales):
    with pytest.raises(SemsegError, match="`scales`: got"):
        with_scales(blur, scales)
