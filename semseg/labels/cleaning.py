"""Masks made cleaner: holes filled, objects that touch parted, small objects left out."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from semseg import IGNORE
from semseg.labels.pieces import Pieces, find_pieces

_BAND_BYTES = 1 << 24
_LARGEST_BOX = 1 << 22  # pixels of the box around an object that may be parted
_LEAST_NECK, _NECK = 1.5, 0.35  # pixels, and share of the smaller half width, by which a neck is narrower


def clean_mask(
    mask: np.ndarray,
    classes: Sequence[int],
    *,
    min_area: int = 0,
    fill_holes: bool = False,
    watershed: bool = False,
) -> np.ndarray:
    """Cleans the objects of a mask: connected pieces of some classes, whose pixels share edges.

    Args:
        mask: uint8 ids `(H, W)`; stays as it is.
        classes: Ids of the objects' classes.
        min_area: Objects of fewer pixels become what they share the longest border with.
        fill_holes: Whether what an object encloses becomes part of it, unless that holds another of the classes, or
            pixels of 255.
        watershed: Whether objects that touch are parted, by a line of pixels of the class around them. They are parted
            where the half width along their middle has a neck: a third less than on both sides, and 1.5 pixels at
            least. Objects in boxes of more than 4 million pixels stay as they are.

    Returns:
        uint8 `(H, W)`: filled first, then parted, then without small objects.

    Example:
        >>> mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]], np.uint8)
        >>> clean_mask(mask, [1], min_area=2, fill_holes=True)
        array([[1, 1, 1, 0, 0],
               [1, 1, 1, 0, 0],
               [1, 1, 1, 0, 0]], dtype=uint8)
    """
    mask = mask.copy()
    clean_in_place(mask, classes, min_area, fill_holes, watershed)
    return mask


def clean_in_place(mask: np.ndarray, classes: Sequence[int], min_area: int, fill_holes: bool, watershed: bool) -> None:
    """As `clean_mask`, for masks so large that a copy takes too much memory."""
    if fill_holes:
        _fill_holes(mask, classes)
    if watershed:
        _part(mask, classes)
    if min_area > 1:
        _remove_small(mask, classes, min_area)


def bands_of(mask: np.ndarray) -> Iterator[np.ndarray]:
    """A mask from top to bottom, in parts of some megabytes."""
    step = max(1, _BAND_BYTES // mask.shape[1])
    for row in range(0, len(mask), step):
        yield mask[row : row + step]


def _fill_holes(mask: np.ndarray, classes: Sequence[int]) -> None:
    for i in classes:
        others = [other for other in (*classes, IGNORE) if other != i]
        kept = (np.isin(band, others) for band in bands_of(mask))
        pieces = find_pieces(((band == i).view(np.uint8) for band in bands_of(mask)), mask.shape[1], kept)
        holes = (pieces.classes == 0) & ~pieces.touch_border & (pieces.mean_weights == 0)
        if holes.any():
            _change(mask, pieces, holes, np.full(len(pieces), i, np.uint8))


def _change(mask: np.ndarray, pieces: Pieces, changed: np.ndarray, ids: np.ndarray) -> None:
    """Gives pieces of a mask, those that are `changed`, bool `(P,)`, other ids, uint8 `(P,)`."""
    row = 0
    for where, band in zip(pieces.bands(changed), pieces.bands(ids), strict=True):
        part = mask[row : row + len(band)]
        part[where] = band[where]
        row += len(band)


# -------------------------------------------------------------------------------------------------- objects that touch


def _part(mask: np.ndarray, classes: Sequence[int]) -> None:
    pieces = find_pieces(bands_of(mask), mask.shape[1])
    _, firsts = np.unique(pieces.of_run, return_index=True)
    for piece in np.flatnonzero(np.isin(pieces.classes, classes)).tolist():
        left, top, right, bottom = pieces.boxes[piece].tolist()
        if (right - left) * (bottom - top) > _LARGEST_BOX:
            continue
        crop = mask[top:bottom, left:right]
        _, labels = cv2.connectedComponents((crop == pieces.classes[piece]).view(np.uint8), connectivity=4)
        row, column = divmod(int(pieces.starts[firsts[piece]]), mask.shape[1])
        inside = labels == labels[row - top, column - left]
        line = watershed_line(inside)
        if line.any():
            around = mask[max(top - 1, 0) : bottom + 1, max(left - 1, 0) : right + 1]
            crop[line] = _class_around(around, int(pieces.classes[piece]))


def _class_around(crop: np.ndarray, own: int) -> int:
    """The most frequent other class; 255 where there is none."""
    counts = np.bincount(crop.ravel(), minlength=256)
    counts[[own, IGNORE]] = 0
    return int(counts.argmax()) if counts.any() else IGNORE


def watershed_line(inside: np.ndarray) -> np.ndarray:
    """Where an object is to be parted at its necks.

    The distance of each pixel to the outside rises to the middle of each part. From each pixel one gets to a summit by
    always going to the highest pixel beside (as in a watershed by steepest descent: Bieniek and Moga, Pattern
    Recognition 33, 2000). Summits stay apart where the pass between them lies deep enough below the lower one, as in
    the h-maxima of Soille's Morphological Image Analysis.

    Args:
        inside: bool `(h, w)`.

    Returns:
        bool `(h, w)`: pixels of the object, one beside the other, without which its parts are not connected.
    """
    height = cv2.distanceTransform(np.pad(inside, 1).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    basins = _basins(height)
    parts = _merged(basins, height)[basins]
    line = np.zeros(parts.shape, bool)
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        line[one] |= (parts[one] != parts[other]) & (parts[one] > 0) & (parts[other] > 0)
    return line[1:-1, 1:-1]


def _basins(height: np.ndarray) -> np.ndarray:
    """The number of the summit, from 1 on, above each pixel, 0 outside; int64 `(h, w)`."""
    numbers = np.arange(height.size).reshape(height.shape)
    best, above, outside = height.copy(), numbers.copy(), np.pad(height, 1)
    rows, columns = height.shape
    for y in range(3):
        for x in range(3):
            beside = outside[y : y + rows, x : x + columns]
            higher = beside > best
            best[higher] = beside[higher]
            above[higher] = numbers[higher] + (y - 1) * columns + x - 1
    _, summits = cv2.connectedComponents(((above == numbers) & (height > 0)).view(np.uint8), connectivity=8)
    to = above.ravel()
    while not np.array_equal(farther := to[to], to):
        to = farther
    return summits.ravel()[to].reshape(height.shape).astype(np.int64)


def _merged(basins: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The part that each basin belongs to, int64 by its number: basins are one where no neck lies between."""
    count = int(basins.max()) + 1
    peaks = np.zeros(count, height.dtype)
    np.maximum.at(peaks, basins.ravel(), height.ravel())
    low, high, passes = _passes(basins, height, count)
    parts = list(range(count))

    def part_of(basin: int) -> int:
        while parts[basin] != basin:
            basin = parts[basin]
        return basin

    for i in np.argsort(-passes, kind="stable").tolist():
        one, other = sorted((part_of(low[i]), part_of(high[i])), key=lambda part: peaks[part])
        if one != other and peaks[one] - passes[i] < max(_LEAST_NECK, _NECK * peaks[one]):
            parts[one] = other
    return np.array([part_of(basin) for basin in range(count)])


def _passes(basins: np.ndarray, height: np.ndarray, count: int) -> tuple[list[int], list[int], np.ndarray]:
    """Which basins lie beside each other, and the height of the pass between them."""
    pairs, heights = [], []
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:]),
                       (np.s_[:-1, :-1], np.s_[1:, 1:]), (np.s_[:-1, 1:], np.s_[1:, :-1])):  # fmt: skip
        apart = (basins[one] != basins[other]) & (basins[one] > 0) & (basins[other] > 0)
        a, b = basins[one][apart], basins[other][apart]
        pairs.append(np.minimum(a, b) * count + np.maximum(a, b))
        heights.append(np.minimum(height[one][apart], height[other][apart]))
    pair, index = np.unique(np.concatenate(pairs), return_inverse=True)
    passes = np.zeros(len(pair))
    np.maximum.at(passes, index, np.concatenate(heights))
    return (pair // count).tolist(), (pair % count).tolist(), passes


# ------------------------------------------------------------------------------------------------------ small objects


def _remove_small(mask: np.ndarray, classes: Sequence[int], min_area: int) -> None:
    """Small objects join their neighbours, until none is left that has one which is larger."""
    while True:
        pieces = find_pieces(bands_of(mask), mask.shape[1])
        small = np.isin(pieces.classes, classes) & (pieces.areas < min_area)
        one, other, edges = pieces.borders()
        piece, beside, edges = np.concatenate([one, other]), np.concatenate([other, one]), np.tile(edges, 2)
        larger = (pieces.areas[beside] > pieces.areas[piece]) | ~small[beside]
        larger |= (pieces.areas[beside] == pieces.areas[piece]) & (beside < piece)
        joins = small[piece] & larger
        piece, beside, edges = piece[joins], beside[joins], edges[joins]
        if not len(piece):
            return
        order = np.lexsort((edges, ~small[beside], piece))  # the last of each piece is the one that it joins
        ids, changed = pieces.classes.copy(), np.zeros(len(pieces), bool)
        ids[piece[order]] = pieces.classes[beside[order]]
        changed[piece] = True
        _change(mask, pieces, changed, ids)
