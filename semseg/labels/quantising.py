"""Masks to class ids and back: numbers and colours to ids, ids to one-hot vectors and to colours.

Colour masks are uint8 RGB `(H, W, 3)`; class ids are uint8 `(H, W)`, 0 to K-1, and `IGNORE` (255) where a pixel counts
nowhere.
"""

from functools import lru_cache

import cv2
import numpy as np

from semseg import IGNORE
from semseg.errors import SemsegError
from semseg.labels.palettes import Color, Palette, color_codes, colors_of_codes, squared_distances
from semseg.labels.repair import repair_mask

# Ids that stand for something else until `quantise` is done; `MAX_CLASSES` leaves them free.
_NOT_COMPUTED, _UNKNOWN = 254, 253


def bin_image(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """Turns a mask into class ids.

    Args:
        mask: Colours, uint8 RGB `(H, W, 3)`: each pixel gets the class of the nearest colour in the palette or, where
            the palette says that the colours are blended along borders, the class that what lies around it speaks for.
            Or numbers, integer `(H, W)`, for a palette with values.
        palette: What the colours or numbers mean.

    Returns:
        uint8 ids `(H, W)`: 0 to K-1, or 255 (`IGNORE`) for what is no class, unknown or in doubt. Equal distances go to
        the label that comes first.

    Raises:
        SemsegError: `mask` is of another kind.

    Example:
        >>> palette = Palette.from_colors(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
        >>> bin_image(np.array([[[127, 66, 128], [70, 130, 180], [0, 255, 0]]], np.uint8), palette)
        array([[  0,   1, 255]], dtype=uint8)
    """
    return quantise(mask, palette)[0]


def quantise(mask: np.ndarray, palette: Palette) -> tuple[np.ndarray, np.ndarray]:
    """Does what `bin_image` does, and tells the unknown from what is known to be no class.

    Args:
        mask: As in `bin_image`.
        palette: As in `bin_image`.

    Returns:
        uint8 ids, and where the mask could not be understood, bool; both `(H, W)`.

    Raises:
        SemsegError: As `bin_image`.

    Example:
        >>> palette = Palette.from_colors(("road", "sky"), ((128, 64, 128), (70, 130, 180)), [("void", (0, 0, 0))])
        >>> ids, unknown = quantise(np.array([[[0, 0, 0], [0, 255, 0]]], np.uint8), palette)
        >>> ids.tolist(), unknown.tolist()
        ([[255, 255]], [[False, True]])
    """
    _check_mask(mask, palette)
    if palette.holds_values:
        ids = _ids_of_values(mask, palette)
    elif palette.blended:
        colors, labels = _colors_and_ids(palette)
        ids = repair_mask(mask, colors, np.where(labels == IGNORE, _NO_CLASS, labels))
        ids = cv2.LUT(ids, _ID_AFTER_REPAIR)
    else:
        ids = _ids_of_colors(mask, palette)
    unknown = ids == _UNKNOWN
    ids[unknown] = IGNORE
    return ids, unknown


def _check_mask(mask: np.ndarray, palette: Palette) -> None:
    if palette.holds_values:
        fits, expected = np.issubdtype(mask.dtype, np.integer) and mask.ndim == 2, "integer numbers (H, W)"
    else:
        fits, expected = mask.dtype == np.uint8 and mask.shape[2:] == (3,), "uint8 RGB of shape (H, W, 3)"
    if not fits:
        raise SemsegError(f"bin_image: got a mask of {mask.dtype} {mask.shape}; expected {expected}")


_NO_CLASS = 254  # given to `repair_mask` for colours that are no class, because it gives 255 for what is in doubt
_ID_AFTER_REPAIR = np.arange(256, dtype=np.uint8)
_ID_AFTER_REPAIR[[_NO_CLASS, IGNORE]] = IGNORE, _UNKNOWN


def _ids_of_values(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 ids, `_UNKNOWN` for numbers that no label has."""
    table = _id_of_value(palette)
    if mask.dtype == np.uint8:
        return table[:256].take(mask)
    below, above = mask < 0, mask >= len(table)
    ids = table.take(np.where(below | above, 0, mask))
    ids[below], ids[above] = _UNKNOWN, _id_of_others(palette)
    return ids


def _id_of_others(palette: Palette) -> int:
    """The id of numbers and colours that no label stands for."""
    return 1 if palette.instances else _UNKNOWN


@lru_cache(maxsize=4)
def _id_of_value(palette: Palette) -> np.ndarray:
    """The id of every number up to the largest that a label has, uint8; at least 256 of them."""
    table = np.full(max(256, 1 + max(label.value for label in palette.labels)), _id_of_others(palette), np.uint8)
    for label in palette.labels:
        table[label.value] = label.id
    return table


def _colors_and_ids(palette: Palette) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8 `(M, 3)` and ids uint8 `(M,)` of all labels."""
    return (
        np.array([label.color for label in palette.labels], np.uint8),
        np.array([label.id for label in palette.labels], np.uint8),
    )


def _ids_of_colors(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 ids of the nearest colours, `_UNKNOWN` for those too far from all."""
    table = _id_of_color(palette)
    codes = color_codes(mask)
    ids = table.take(codes)
    missing = ids == _NOT_COMPUTED
    if missing.any():
        new = np.unique(codes[missing])
        table[new] = _nearest_ids(colors_of_codes(new), palette)
        ids = table.take(codes)
    return ids


@lru_cache(maxsize=4)
def _id_of_color(palette: Palette) -> np.ndarray:
    """A table from each of the 2^24 colours to its id, filled as colours turn up: a full fill would take seconds.

    Threads may share it: two that fill the same entry write the same value.
    """
    return np.full(1 << 24, _NOT_COMPUTED, np.uint8)


def _nearest_ids(colors: np.ndarray, palette: Palette) -> np.ndarray:
    """The id of the label nearest to each colour `(M, 3)`, uint8 `(M,)`; `_UNKNOWN` for what is too far from all."""
    label_colors, ids = _colors_and_ids(palette)
    squared = squared_distances(colors, label_colors)
    nearest = squared.argmin(axis=1)
    far = squared[np.arange(len(colors)), nearest] > palette.max_distance**2
    return np.where(far, np.uint8(_id_of_others(palette)), ids[nearest])


def get_segmentation_arr(ids: np.ndarray, num_classes: int) -> np.ndarray:
    """Turns class ids into one-hot vectors.

    Args:
        ids: Integer `(H, W)`, 0 to K-1 or 255.
        num_classes: K.

    Returns:
        uint8 `(H, W, K)`: a single 1 per pixel, none where the pixel is ignored.

    Raises:
        SemsegError: An id is neither a class nor 255.

    Example:
        >>> get_segmentation_arr(np.array([[0, 1, 255]]), 2).tolist()
        [[[1, 0], [0, 1], [0, 0]]]
    """
    wrong = (ids != IGNORE) & ((ids < 0) | (ids >= num_classes))
    if wrong.any():
        raise SemsegError(
            f"get_segmentation_arr: got id {ids[wrong].flat[0]} at {int(wrong.sum())} pixels; "
            f"expected 0 to {num_classes - 1}, or {IGNORE} to ignore"
        )
    return (ids[..., None] == np.arange(num_classes)).astype(np.uint8)


def give_color_to_seg_img(ids: np.ndarray, palette: Palette, ignore_color: Color = (0, 0, 0)) -> np.ndarray:
    """Paints class ids in the colours of their classes.

    Args:
        ids: Integer `(H, W)`, 0 to K-1 or 255.
        palette: The palette whose ids these are.
        ignore_color: RGB colour of ignored pixels.

    Returns:
        uint8 RGB `(H, W, 3)`.

    Example:
        >>> palette = Palette.from_colors(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
        >>> give_color_to_seg_img(np.array([[0, 255]]), palette).tolist()
        [[[128, 64, 128], [0, 0, 0]]]
    """
    table = np.empty((256, 3), np.uint8)
    table[:] = ignore_color
    table[: palette.num_classes] = palette.colors
    return table[ids]
