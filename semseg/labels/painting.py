"""Class ids as pictures: alone, over their photo, and where they are wrong."""

import cv2
import numpy as np

from semseg import IGNORE
from semseg.labels.palettes import Palette
from semseg.labels.quantising import give_color_to_seg_img

WRONG = (214, 48, 49)
STRIPE = 6  # pixels of a 256-pixel image: width of the hatching over ignored areas


def paint(ids: np.ndarray, palette: Palette) -> np.ndarray:
    """Paints class ids in their colours, and ignored pixels in grey stripes.

    Args:
        ids: uint8 class ids `(H, W)`, 0 to K-1 or 255.
        palette: The palette whose ids these are.

    Returns:
        uint8 RGB `(H, W, 3)`.
    """
    image = give_color_to_seg_img(ids, palette)
    ignored = ids == IGNORE
    image[ignored] = _striped(ids.shape)[ignored]
    return image


def overlay(photo: np.ndarray, mask: np.ndarray, palette: Palette, opacity: float = 0.6) -> np.ndarray:
    """Lays a mask's colours over its photo, with ignored pixels striped.

    Args:
        photo: uint8 RGB `(H, W, 3)`.
        mask: uint8 class ids `(H, W)`, 0 to K-1 or 255.
        palette: The palette whose ids these are.
        opacity: Of the colours, 0 to 1.

    Returns:
        uint8 RGB `(H, W, 3)`.
    """
    return cv2.addWeighted(photo, 1 - opacity, paint(mask, palette), opacity, 0)


def paint_errors(photo: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Paints the photo pale and grey, wrong pixels in red and ignored ones striped.

    Args:
        photo: uint8 RGB `(H, W, 3)`.
        truth: uint8 class ids `(H, W)`, 0 to K-1 or 255.
        prediction: uint8 class ids `(H, W)`, 0 to K-1.

    Returns:
        uint8 RGB `(H, W, 3)`.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    image = np.repeat((110 + grey * (145 / 255)).astype(np.uint8)[..., None], 3, axis=2)
    ignored = truth == IGNORE
    wrong = (truth != prediction) & ~ignored
    image[ignored] = _striped(truth.shape)[ignored]
    image[wrong] = (0.25 * image[wrong] + 0.75 * np.array(WRONG)).astype(np.uint8)
    return image


def stripes(shape: tuple[int, int]) -> np.ndarray:
    """Where the light ones of the stripes over ignored areas lie: bool `(H, W)`.

    Args:
        shape: (height, width) in pixels.
    """
    width = max(1, round(STRIPE * max(shape) / 256))
    rows, columns = np.indices(shape)
    return ((rows + columns) // width) % 2 == 0


def _striped(shape: tuple[int, int]) -> np.ndarray:
    return np.where(stripes(shape)[..., None], np.uint8(235), np.uint8(205)).repeat(3, axis=2)
