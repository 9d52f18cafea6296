"""Class ids from colour masks that were resized with smoothing and saved as JPEG.

Along a border such a mask holds blends of two classes, and many a blend looks like a third class. So a pixel outside
the pure areas is taken for a blend of two classes that are surely near it, and goes to the one with the larger share.
How a blend comes out of the file is known: brightness (luma) is kept for every pixel, colour (chroma) only for every
second one in both directions. The blends found first are put through that loss, what then differs from the file is
added to the colours, and the blends are found again (a projected Landweber iteration).

Levels are those of 8-bit luma, costs are squared levels. All were chosen by random search for the best mean IoU on
CamVid masks in Cityscapes' and in random colours and on drawn scenes; `benchmarks/labels.py` measures on other masks.
"""

from functools import lru_cache, reduce

import cv2
import numpy as np

from semseg import IGNORE
from semseg.errors import SemsegError
from semseg.labels.palettes import color_codes, colors_of_codes, squared_distances

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32)  # JPEG's
_WEIGHTS = np.diag(np.float32([1, 0.5, 0.5])) @ _TO_YCC  # luma is kept better than chroma
_FLAT = 6  # levels from a colour: an area of 3x3 pixels no farther away is surely of its class
_SETTLED = 20  # levels: beside such an area, a pixel no farther away is of the same class
_LINE = 5  # pixels: what is narrower than this is a thin thing, such as a pole
_RIDGE = 50  # levels by which a thin thing stands out from both sides; blends lie between the two
_THIN = 4  # levels from a colour: a pixel of a thin thing no farther away is surely of its class,
_FAINT = 20  # and even one no farther than this if it lies in a straight line of such pixels
_FEW = 16  # pixels of thin things that make a class exist where it has no area
_NEAR, _NEAR_LINE, _WIDER = 2, 4, 7  # pixels from an area, from a thin thing, from an area: how far a class is expected
_COSTS = np.float32([200, 80, 0])  # of a class that is nowhere near, that is within the wider distance, that is near
_ABSENT = 320  # cost of a class for which there is no evidence in the mask but the pixel itself
_CANDIDATES = 5  # classes that are tried at each pixel
_LOOK = 0.01  # weight of a pixel's own colour when these are chosen
_SUPPORT = 60  # what each of up to two neighbours of the same class takes off the cost
_BLUR = 0.25  # pixels: smoothing of the resize beyond that of plain averaging
_DOUBT = 80  # two classes whose costs are closer than this leave a pixel in doubt
_FOREIGN = 25  # levels from every colour
_SURE_SHARE = 0.3  # of the pixels; measured: at least .6 in masks down to 32 pixels, .18 in the median of photos
_UNSEEN = 65535


def repair_mask(mask: np.ndarray, colors: np.ndarray, ids: np.ndarray, *, ignore_doubt: bool = True) -> np.ndarray:
    """Turns a colour mask with blended borders into class ids, of classes that really meet there.

    Args:
        mask: uint8 RGB `(H, W, 3)`. A mask cut from a JPEG should begin at an even row and column of it.
        colors: uint8 RGB `(M, 3)`: all colours that may occur, at most 255.
        ids: uint8 `(M,)`: the class of each colour, 255 for one that is no class; several colours may share one.
        ignore_doubt: Whether pixels for which two classes are almost as likely become 255, and all pixels of what does
            not look like a mask: a photo, or noise.

    Returns:
        uint8 ids `(H, W)`.

    Raises:
        SemsegError: The mask is not uint8 RGB, or colours and ids do not match.

    Example:
        >>> colors, ids = np.array([[0, 0, 90], [0, 0, 230], [0, 0, 110]], np.uint8), np.array([0, 1, 2], np.uint8)
        >>> row = colors[[0, 0, 0, 0, 1, 1, 1, 1]]
        >>> row[3] = (0, 0, 112)  # a blend of the first two that looks like the third
        >>> repair_mask(np.stack([row] * 4), colors, ids)[0]
        array([0, 0, 0, 0, 1, 1, 1, 1], dtype=uint8)

    Reference: Landweber 1951, An iteration formula for Fredholm integral equations of the first kind.
    """
    _check(mask, colors, ids)
    nearest, distance = _nearest(mask, colors)
    flat, thin, settled = _sure_pixels(mask, nearest, distance)
    areas, lines = (np.bincount(nearest[sure], minlength=len(colors)) for sure in (flat, thin))
    present, blended = np.flatnonzero((areas > 0) | (lines >= _FEW)), np.flatnonzero(~settled)
    if distance.any() and ignore_doubt and settled.mean() < _SURE_SHARE:
        return np.full(nearest.shape, IGNORE, np.uint8)
    if not len(present) or not len(blended) or not distance.any():  # pure colours are taken at their word
        return ids[nearest]
    seen, known = cv2.transform(mask.astype(np.float32), _WEIGHTS), colors.astype(np.float32) @ _WEIGHTS.T
    costs = _costs_by_place(nearest, flat, thin, present, blended)
    candidates, costs = _candidates(seen, known, nearest, present, blended, costs)
    labels, margins = _solve(seen, known, ids, nearest, blended, candidates, costs)
    found = ids[labels]
    if ignore_doubt:
        found.ravel()[blended[margins < _DOUBT]] = IGNORE
        even = cv2.subtract(cv2.dilate(mask, _square(1)), cv2.erode(mask, _square(1))).max(axis=2) <= _FLAT
        found[even & (distance > _FOREIGN)] = IGNORE  # an area of one colour is no blend
        inside = (
            cv2.copyMakeBorder(found[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_REPLICATE) if min(found.shape) > 2 else found
        )
        found[~settled & (found != inside)] = IGNORE  # on the rim: what it is blended with may lie outside
    return found


def _check(mask: np.ndarray, colors: np.ndarray, ids: np.ndarray) -> None:
    if mask.dtype != np.uint8 or mask.ndim != 3 or mask.shape[2] != 3 or not mask.size:
        got = f"a mask of {mask.dtype} {mask.shape}"
        raise SemsegError(f"repair_mask: got {got}; expected uint8 RGB of shape (H, W, 3)")
    if not 0 < len(colors) == len(ids) < 256:
        got = f"{len(colors)} colours and {len(ids)} ids"
        raise SemsegError(f"repair_mask: got {got}; expected 1 to 255 colours and an id for each")


def _nearest(mask: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest colour and its distance in levels, both uint8 `(H, W)`."""
    table = _table_of_colors(colors.astype(np.uint8).tobytes())
    codes = color_codes(mask)
    found = table.take(codes)
    if (unseen := found == _UNSEEN).any():
        new = np.unique(codes[unseen])
        squared = squared_distances(colors @ _WEIGHTS.T, colors_of_codes(new) @ _WEIGHTS.T)
        table[new] = squared.argmin(axis=0) | (np.sqrt(squared.min(axis=0)).clip(0, 254).round().astype(np.uint16) << 8)
        found = table.take(codes)
    return (found & 255).astype(np.uint8), (found >> 8).astype(np.uint8)


@lru_cache(maxsize=2)
def _table_of_colors(palette: bytes) -> np.ndarray:
    """Distance and index of what is nearest to each of the 2^24 colours, filled as colours turn up.

    Threads may share it: two that fill the same entry write the same value.
    """
    return np.full(1 << 24, _UNSEEN, np.uint16)


def _square(radius: int) -> np.ndarray:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _sure_pixels(mask: np.ndarray, nearest: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pixels inside areas, pixels of thin things, and those inside or beside an area that need no second look."""
    flat = (cv2.dilate(nearest, _square(1)) == cv2.erode(nearest, _square(1))) & (distance <= _FLAT)
    beside = cv2.erode(np.where(flat, nearest, np.uint8(255)), _square(1)) == nearest
    lines = [np.ones(shape, np.uint8) for shape in ((1, _LINE), (_LINE, 1))]
    kinds = (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    ridges = reduce(cv2.max, [cv2.morphologyEx(mask, kind, line) for kind in kinds for line in lines])
    ridge = (reduce(cv2.max, cv2.split(ridges)) > _RIDGE) & (distance <= _FAINT)
    faint, thin = np.where(ridge, nearest, np.uint8(255)), distance <= _THIN
    for line in lines:
        alike = (cv2.erode(faint, line) == cv2.dilate(faint, line)) & ridge
        thin |= cv2.dilate(alike.astype(np.uint8), line) > 0
    return flat, ridge & thin, flat | (beside & (distance <= _SETTLED))


def _costs_by_place(nearest, flat, thin, present, blended) -> np.ndarray:
    """What it costs `(K, N)` to meet each of the present colours at each blended pixel."""
    levels = np.empty((len(present), len(blended)), np.uint8)
    for row, color in zip(levels, present, strict=True):
        here = nearest == color
        area, line = (here & flat).view(np.uint8), (here & thin).view(np.uint8)
        wide = cv2.max(cv2.dilate(area, _square(_WIDER)), cv2.dilate(line, _square(_NEAR_LINE)))
        row[:] = cv2.add(wide, cv2.dilate(area, _square(_NEAR))).take(blended)
    return _COSTS.take(levels)


def _candidates(seen, known, nearest, present, blended, costs) -> tuple[np.ndarray, np.ndarray]:
    """Indices and costs `(k, N)` of the colours to try: the likeliest by place and look, and the nearest."""
    count = min(_CANDIDATES, len(present))
    rank = costs + _LOOK * squared_distances(known[present], seen.reshape(-1, 3)[blended])
    likely = np.argpartition(rank, count - 1, axis=0)[:count]
    costs = np.take_along_axis(costs, likely, axis=0)
    own = np.full((1, len(blended)), _ABSENT, np.float32)
    return np.concatenate([present[likely], nearest.ravel()[None, blended]]), np.concatenate([costs, own])


def _solve(seen, known, ids, nearest, blended, candidates, costs) -> tuple[np.ndarray, np.ndarray]:
    """The colour of every pixel `(H, W)`, and by how much that of each blended one beats another class's."""
    labels, each, bonus = nearest.copy(), np.arange(len(blended)), np.float32(0)
    guess, stored = known.take(labels, axis=0), seen.reshape(-1, 3).take(blended, axis=0)
    values = stored
    apart = np.maximum(squared_distances(known, known), 1e-3)  # a colour is no blend of itself
    rows = candidates * len(known)
    pairs = [apart.take(rows + one) for one in candidates]
    for last in (False, True):
        away = sum((known[:, i].take(candidates) - values[:, i]) ** 2 for i in range(3))
        saved = [_blend(one, away, pair, costs)[0].min(axis=0) for one, pair in zip(away, pairs, strict=True)]
        total = away + costs + np.minimum(saved, 0)
        labels.ravel()[blended] = candidates[_argmin(total - bonus), each]
        bonus = _support(labels, candidates, blended)
        chosen = _argmin(total - bonus)
        labels.ravel()[blended] = best = candidates[chosen, each]
        if not last:
            blend = _blend(away[chosen, each], away, apart[candidates, best], costs)
            guess.reshape(-1, 3)[blended] = blends = _blended_colors(known, best, candidates, *blend)
            values = blends + stored - _compressed(guess).reshape(-1, 3).take(blended, axis=0)
    others = np.where(ids[candidates] == ids[best], np.inf, total - bonus).min(axis=0)
    return labels, others - (total - bonus)[chosen, each]


def _blend(one, other, apart, costs) -> tuple[np.ndarray, np.ndarray]:
    """What it saves to add up to one half of an `other` colour to `one`, and that share.

    Given the squared distances of the pixel from both and between them, and the costs of the other.
    """
    along = one - other
    along += apart
    share = along / apart
    share *= 0.5
    np.clip(share, 0, 0.5, out=share)
    saved = share * apart
    saved -= along
    saved *= share
    saved += costs
    return saved, share


def _blended_colors(known, best, candidates, saved, shares) -> np.ndarray:
    """The best colours `(N, 3)`, each blended with the candidate that saves most, if any."""
    other, each = _argmin(saved), np.arange(len(best))
    share = np.where(saved[other, each] < 0, shares[other, each], 0)[:, None]
    return (1 - share) * known[best] + share * known[candidates[other, each]]


def _argmin(costs: np.ndarray) -> np.ndarray:
    """As `costs.argmin(axis=0)`, several times as fast for few rows."""
    lowest, chosen = costs[0].copy(), np.zeros(costs.shape[1], np.intp)
    for i in range(1, len(costs)):
        chosen[costs[i] < lowest] = i
        np.minimum(lowest, costs[i], out=lowest)
    return chosen


def _support(labels: np.ndarray, candidates: np.ndarray, blended: np.ndarray) -> np.ndarray:
    """What the eight neighbours' labels take off the cost of each candidate `(k, N)`."""
    width = labels.shape[1]
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255).ravel()
    at = blended // width * (width + 2) + blended % width + width + 3
    names, votes = candidates.astype(np.uint8), np.zeros(candidates.shape, np.uint8)
    for step in (-width - 3, -width - 2, -width - 1, -1, 1, width + 1, width + 2, width + 3):
        votes += padded[at + step] == names
    return np.minimum(votes, 2) * np.float32(_SUPPORT)


def _compressed(picture: np.ndarray) -> np.ndarray:
    """What resize and JPEG leave of a picture of luma and chroma, rounding apart."""
    height, width = picture.shape[:2]
    result = cv2.GaussianBlur(picture, (3, 3), _BLUR)
    odd = height % 2 or width % 2
    even = cv2.copyMakeBorder(result, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE) if odd else result
    half = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    chroma = cv2.resize(half, even.shape[1::-1], interpolation=cv2.INTER_LINEAR)[:height, :width, 1:]
    result[..., 1:] = chroma
    return result
