"""Where a picture is transparent, and whether its alpha channel means it."""

import cv2
import numpy as np
from PIL import Image

from semseg.errors import DataError

_OPAQUE = 255
_MAX_CODES = 16  # opacities that may be numbers of classes; soft brushes have more
_GREY_SHARE = 0.5  # of the pixels: half-transparent in so many, an alpha channel looks like a picture


def read_alpha(image: Image.Image, stored: np.ndarray) -> np.ndarray | None:
    """Reads how opaque each pixel is: from an alpha channel, a palette with opacities, or the one transparent colour.

    Args:
        image: A picture, upright.
        stored: Its pixels as the file has them: indices or numbers `(H, W)`, or colours `(H, W, 3)`.

    Returns:
        uint8 `(H, W)`, 0 transparent to 255 opaque; None where the file holds nothing of the kind.
    """
    if image.mode in ("LA", "PA", "RGBA"):
        return np.asarray(image.getchannel("A"))
    key = image.info.get("transparency")
    if key is None:
        return None
    if isinstance(key, bytes):
        opacities = np.full(256, _OPAQUE, np.uint8)
        opacities[: len(key)] = np.frombuffer(key, np.uint8)
        return opacities[stored]
    same = stored == np.asarray(key)
    return np.where(same if stored.ndim == 2 else same.all(axis=2), 0, _OPAQUE).astype(np.uint8)


def find_transparent(alpha: np.ndarray, pixels: np.ndarray, where: str) -> np.ndarray | None:
    """Finds the pixels of a mask that were left transparent.

    A brush's soft edge is transparent from half of its opacity down; layers that are half-transparent all over are
    not. Where every pixel is transparent and the colours differ, alpha is a leftover and means nothing.

    Args:
        alpha: uint8 `(H, W)`, from `read_alpha`.
        pixels: The mask's numbers `(H, W)` or colours `(H, W, 3)`.
        where: The file, for the message.

    Returns:
        bool `(H, W)`; None where no pixel is transparent.

    Raises:
        DataError: One colour in several opacities: what was drawn is in the alpha channel alone.
    """
    levels = np.flatnonzero(np.bincount(alpha.ravel(), minlength=256))
    if len(levels) == 1:
        return alpha == 0 if levels[0] == 0 and _is_one_color(pixels) else None
    opacities = levels[1:] if tuple(levels) == (0, _OPAQUE) else _flat_levels(alpha)
    if len(opacities) > 1 and len(levels) <= _MAX_CODES and _is_one_color(pixels):
        raise DataError(
            f"{where}: holds one colour in {len(opacities)} opacities; save what is drawn in its alpha channel as a "
            "grey picture"
        )
    least = int([*opacities, levels[-1]][0])
    transparent = alpha < (least + 1) // 2
    return transparent if transparent.any() else None


def _is_one_color(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[0, 0]).all())


def _flat_levels(alpha: np.ndarray) -> np.ndarray:
    """The opacities above 0 that fill a 3x3 square somewhere, rising: those of whole strokes, not of their edges."""
    kernel = np.ones((3, 3), np.uint8)
    flat = alpha[cv2.erode(alpha, kernel) == cv2.dilate(alpha, kernel)]
    counts = np.bincount(flat, minlength=256)
    counts[0] = 0
    return np.flatnonzero(counts)


def describe_alpha(alpha: np.ndarray) -> str:
    """What the alpha channel of a photo does, in words that fit "stored as ...".

    Args:
        alpha: uint8 `(H, W)`, from `read_alpha`.
    """
    counts = np.bincount(alpha.ravel(), minlength=256)
    if np.count_nonzero(counts) == 1:
        return "alpha"  # that hides nothing
    if np.count_nonzero(counts) > _MAX_CODES and counts[1:_OPAQUE].sum() > _GREY_SHARE * alpha.size:
        return "RGB with a further band, called alpha, that varies as a picture does (dropped)"
    return "a picture with transparent places (whatever colours lie there are kept)"
