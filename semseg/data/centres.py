"""Where crops are centred so that rare classes are seen more often: some pixels of every class, kept by the check."""

from collections.abc import Sequence

import numpy as np

_AREA = 1 << 16  # pixels of a mask for each pixel that is kept of a class: about a crop
_FEWEST, _MOST = 16, 256  # pixels that are kept of a class
_DRAWS = 1 << 16  # pixels among which those of frequent classes are found
_RARE = 0.5  # of an even share


def some_pixels(ids: np.ndarray, counts: Sequence[int]) -> list[list[int]]:
    """Some pixels of each class, drawn from all over a mask, the same for the same mask.

    Args:
        ids: uint8 `(H, W)`.
        counts: Pixels of each class, of K.

    Returns:
        For each class its pixels' places, row * W + column, all different: all it has, or one for each 65,536 pixels of
        the mask, from 16 to 256.

    Example:
        >>> some_pixels(np.array([[0, 0, 2], [255, 2, 0]], np.uint8), [3, 0, 2])
        [[0, 1, 5], [], [2, 4]]
    """
    flat, rng = ids.ravel(), np.random.default_rng(0)
    most = int(np.clip(flat.size // _AREA, _FEWEST, _MOST))
    drawn = np.unique(rng.integers(flat.size, size=_DRAWS))
    classes = flat[drawn]
    chosen = []
    for i, count in enumerate(counts):
        places = drawn[classes == i]
        if len(places) < min(most, count):  # a small class, whose pixels are soon found
            places = np.flatnonzero(flat == i)
        if len(places) > most:
            places = np.sort(rng.choice(places, most, replace=False))
        chosen.append(places.tolist())
    return chosen


def rare_classes(shares: np.ndarray) -> list[int]:
    """The classes with less than half of an even share of the pixels.

    Args:
        shares: Of each class among the counted pixels, float `(K,)`.

    Example:
        >>> rare_classes(np.array([0.6, 0.1, 0.3, 0.0]))
        [1]
    """
    return np.flatnonzero((shares > 0) & (shares < _RARE / len(shares))).tolist()


def centres_of(pixels: Sequence[Sequence[int]], size: tuple[int, int], classes: Sequence[int]) -> list[np.ndarray]:
    """Where some classes lie in a photo.

    Args:
        pixels: From `some_pixels`.
        size: (H, W) of the mask.
        classes: Ids.

    Returns:
        For each of the classes that the mask holds, (row, column) of its pixels' centres as shares of H and W: float
        `(pixels, 2)`, above 0 and below 1.

    Example:
        >>> centres_of([[0], [], [1, 7]], (2, 4), [1, 2])[0].tolist()
        [[0.25, 0.375], [0.75, 0.875]]
    """
    held = [np.array(np.unravel_index(pixels[i], size)).T for i in classes if pixels[i]]
    return [(places + 0.5) / size for places in held]
