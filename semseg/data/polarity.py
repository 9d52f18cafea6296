"""Are the two classes of some masks swapped, black for white?"""

from collections.abc import Sequence

import cv2
import numpy as np

from semseg import IGNORE

_MIN_CLEAR_RIM = 0.75  # of the rim of a picture that one class holds: in either group, for each mask of it
_MIN_CLEAR_SHARE = 0.8  # of the masks that must belong to one of both groups
_MIN_SWAPPED, _MIN_SWAPPED_SHARE = 5, 0.2  # masks in the smaller group, and share; fewer may be close-ups
_MIN_AGREEMENT = 0.6  # length of the mean of a group's directions; by chance 5 reach .45
_MAX_COSINE = -0.7  # between the mean directions of both groups


def contrast_of_classes(photo: np.ndarray, ids: np.ndarray) -> list[float]:
    """Measures where the second of two classes lies, and how it differs from the first in colour.

    Args:
        photo: uint8 RGB `(h, w, 3)`, of the mask's shape but not necessarily of its size.
        ids: uint8 `(H, W)`, 0, 1 or 255.

    Returns:
        Its share of the rim of the picture, 0 to 1; then the mean red, green and blue of its pixels less those of the
        first class. Empty where one class is absent, or nothing on the rim is labelled.

    Example:
        >>> photo = np.full((4, 4, 3), 100, np.uint8)
        >>> photo[1:3, 1:3, 0] = 150
        >>> contrast_of_classes(photo, (photo[..., 0] == 150).astype(np.uint8))
        [0.0, 50.0, 0.0, 0.0]
    """
    rim = np.concatenate([ids[0], ids[-1], ids[1:-1, 0], ids[1:-1, -1]])
    rim = rim[rim != IGNORE]
    small = cv2.resize(ids, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    members = [(small == k).astype(np.uint8) for k in (0, 1)]
    if not rim.size or not all(places.any() for places in members):
        return []
    first, second = (np.array(cv2.mean(photo, places)[:3]) for places in members)
    return [round(float(value), 3) for value in (rim.mean(), *(second - first))]


def find_swapped(contrasts: Sequence[Sequence[float]]) -> list[int]:
    """Finds masks whose classes are swapped against those of the others.

    In one group of masks the one class fills the rim, in the other group the other class, and what sets both classes
    apart in colour is turned round with them. One of both signs alone is found in good data: roads reach the rim or do
    not, and stained cells are darker than their ground where glowing ones are brighter.

    Args:
        contrasts: From `contrast_of_classes`, for each mask.

    Returns:
        The places of the masks of the smaller group, with those of an unclear rim that look like it; empty where there
        are no two such groups.
    """
    places = [i for i, contrast in enumerate(contrasts) if contrast]
    if len(places) < 2 * _MIN_SWAPPED:
        return []
    rims, colors = np.split(np.array([contrasts[i] for i in places]), [1], axis=1)
    groups = [(rims <= 1 - _MIN_CLEAR_RIM)[:, 0], (rims >= _MIN_CLEAR_RIM)[:, 0]]
    smaller, larger = sorted(groups, key=np.count_nonzero)
    least = max(_MIN_SWAPPED, _MIN_SWAPPED_SHARE * len(places))
    if smaller.sum() < least or (smaller | larger).sum() < _MIN_CLEAR_SHARE * len(places):
        return []
    directions = colors / np.maximum(np.linalg.norm(colors, axis=1, keepdims=True), 1e-6)
    mean, other = directions[smaller].mean(axis=0), directions[larger].mean(axis=0)
    lengths = np.linalg.norm(mean), np.linalg.norm(other)
    if min(lengths) < _MIN_AGREEMENT or mean @ other > _MAX_COSINE * lengths[0] * lengths[1]:
        return []
    return [places[i] for i in np.flatnonzero(~larger & (directions @ mean > 0))]
