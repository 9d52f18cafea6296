"""Crops of photos at a scale: where they lie, and how they are cut out, turned and mirrored in one step."""

from collections.abc import Callable, Sequence

import numpy as np

from semseg.data.augment import change
from semseg.images.bands import RGB, Bands

Read = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]  # (top, left, bottom, right) to photo and mask
_MOST_PASSES = 4  # over few photos in an epoch
_IDENTITY = np.eye(2, 3)
_SAME_COLORS = np.eye(3, 4)


def crops_per_photo(sizes: Sequence[tuple[int, int]], crop: tuple[int, int]) -> np.ndarray:
    """How many crops of each photo make a pass over its area.

    Args:
        sizes: (H, W) of each photo, at the scale at which it is cropped.
        crop: (height, width) of a crop.

    Returns:
        Integers of at least 1, one for each photo.

    Example:
        >>> crops_per_photo([(512, 512), (300, 280), (10, 10)], (256, 256)).tolist()
        [4, 1, 1]
    """
    areas = np.prod(np.reshape(sizes, (-1, 2)), axis=1, dtype=float)
    return np.maximum(1, np.rint(areas / np.prod(crop))).astype(int)


def crops_of_epoch(one_pass: int, most: int) -> int:
    """How many crops an epoch of training shows: whole passes over few photos, a part of one over many.

    Args:
        one_pass: Crops that make a pass over all photos, at least 1.
        most: In an epoch; few photos are passed over as often as keeps below it, up to 4 times.

    Example:
        >>> [crops_of_epoch(one_pass, 180) for one_pass in (10, 80, 170, 5000)]
        [40, 160, 170, 180]
    """
    return most if one_pass >= most else one_pass * min(_MOST_PASSES, most // one_pass)


def places_of_tiles(size: tuple[int, int], crop: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners (top, left) of crops that cover a photo, each pixel once; the last ones may reach beyond it.

    Args:
        size: (H, W) of the photo, at the scale at which it is cropped.
        crop: (height, width) of a crop.

    Example:
        >>> places_of_tiles((300, 256), (256, 256))
        [(0, 0), (256, 0)]
    """
    return [(top, left) for top in range(0, size[0], crop[0]) for left in range(0, size[1], crop[1])]


def draw_place(size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Draws the corner (top, left) of a crop, each as likely; a smaller photo lies anywhere within the crop.

    Args:
        size: (H, W) of the photo, at the scale at which it is cropped.
        crop: (height, width) of a crop.
        rng: Where the draws come from, two in any case.
    """
    slacks = (have - want for have, want in zip(size, crop, strict=True))
    top, left = (int(rng.integers(min(0, slack), max(0, slack) + 1)) for slack in slacks)
    return top, left


def draw_place_around(
    centre: np.ndarray, size: tuple[int, int], crop: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Draws the corner (top, left) of a crop whose middle half shows a pixel, as far as the photo reaches.

    Args:
        centre: (row, column) of the pixel, as shares of the photo's height and width.
        size: (H, W) of the photo, at the scale at which it is cropped.
        crop: (height, width) of a crop.
        rng: Where the draws come from, two in any case.
    """
    corner = []
    for share, have, want in zip(centre.tolist(), size, crop, strict=True):
        first = int(share * have) - int(rng.integers(want // 4, want - want // 4))
        corner.append(min(max(first, min(0, have - want)), max(0, have - want)))
    return corner[0], corner[1]


def cut(
    read: Read,
    size: tuple[int, int],
    place: tuple[int, int],
    crop: tuple[int, int],
    bands: Bands = RGB,
    drawn: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a crop out of a photo and its mask, and changes it on the way: what is turned in comes from the photo.

    Args:
        read: Gives a part of both, which lies within the photo.
        size: (H, W) of the photo, at the scale at which it is cropped.
        place: Corner (top, left) of the crop, which may lie outside.
        crop: (height, width) of the crop.
        bands: What the photo holds.
        drawn: From `Augmentation.draw` for `crop`; None for no change.

    Returns:
        Photo `(height, width, C)` and ids uint8 `(height, width)`. Beyond the photo lies its mirror image, ignored.
    """
    matrix, colors = drawn or (_IDENTITY, _SAME_COLORS)
    inverse = np.linalg.inv(matrix[:, :2])
    height, width = crop
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    sources = (corners - matrix[:, 2]) @ inverse.T + place[::-1]  # (x, y) in the photo
    low, high = np.floor(sources.min(axis=0)).astype(int) - 1, np.ceil(sources.max(axis=0)).astype(int) + 2
    left, top = (int(np.clip(value, 0, length - 1)) for value, length in zip(low, size[::-1], strict=True))
    right, bottom = (int(np.clip(value, 1, length)) for value, length in zip(high, size[::-1], strict=True))
    photo, mask = read(top, left, max(bottom, top + 1), max(right, left + 1))
    shift = matrix[:, :2] @ (np.array([left, top]) - place[::-1]) + matrix[:, 2]
    return change(photo, mask, np.column_stack([matrix[:, :2], shift]), colors, crop, bands)
