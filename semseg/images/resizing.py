"""Photos and masks at other sizes: photos by area or linearly, masks by nearest neighbour alone."""

import cv2
import numpy as np


def resize_photo(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a photo: by area where both sides shrink, so that nothing is aliased, else linearly.

    Args:
        photo: uint8, uint16 or float32 `(H, W)` or `(H, W, C)`.
        size: (height, width) of the result.

    Returns:
        The same type in that size; `photo` itself where it has that size already.
    """
    if photo.shape[:2] == tuple(size):
        return photo
    shrinks = photo.shape[0] > size[0] and photo.shape[1] > size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if photo.ndim == 2 or photo.shape[2] in (3, 4):
        return cv2.resize(photo, size[::-1], interpolation=interpolation)
    planes = [cv2.resize(photo[..., i], size[::-1], interpolation=interpolation) for i in range(photo.shape[2])]
    return np.stack(planes, axis=2)  # OpenCV averages areas of 4 channels at most, and drops an axis of one


def size_within(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """(height, width) of a picture as it is, or shrunk until no side is longer than that; at least 1x1.

    Args:
        size: (height, width), or an array's shape that begins with them.
        longest: The most pixels that a side of the result has.

    Example:
        >>> size_within((300, 600), 512), size_within((30, 60), 512)
        ((256, 512), (30, 60))
    """
    factor = min(1.0, longest / max(size[:2]))
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def scaled_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """(height, width) of a picture at another scale; at least 1x1.

    Args:
        size: (height, width), or an array's shape that begins with them.
        scale: Pixels of the result for one of the picture's, along each side.

    Example:
        >>> scaled_size((301, 600), 0.5)
        (150, 300)
    """
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes class ids by nearest neighbour, so that no class is invented.

    Args:
        mask: uint8 ids `(H, W)`.
        size: (height, width) of the result.

    Returns:
        uint8 of that size; `mask` itself where it has that size already.
    """
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def enough_for(image_size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a photo that gives the same when it is resized to `image_size` as the whole one.

    Twice the size: JPEGs decoded at 1/2 or less then differ from whole ones by .08 levels, with the size itself by .6.

    Args:
        image_size: (height, width) of what is wanted in the end.
    """
    return 2 * image_size[0], 2 * image_size[1]
