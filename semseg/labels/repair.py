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
_THIN_IN_LINE = 20  # and even one no farther than this if it lies in a straight line of such pixels
_MIN_THIN_PIXELS = 16  # of thin things, which make a class exist where it has no area
_NEAR, _NEAR_LINE, _WIDER = 2, 4, 7  # pixels from an area, from a thin thing, from an area: how far a class is expected
_COSTS = np.zeros(256, np.float32)  # by nearness: of a class that is near,
_COSTS[:2] = 200, 80  # that is nowhere near, and that is within the wider distance
_ABSENT_COST = 320  # cost of a class for which there is no evidence in the mask but the pixel itself
_BITS = 32  # colours whose areas are dilated at once, a bit of a word each
_MAX_CANDIDATES = 5  # classes that are tried at each pixel
_COLOR_WEIGHT = 0.01  # of a pixel's own colour when these are chosen
_SUPPORT = 60  # what each of up to two neighbours of the same class takes off the cost
_BLUR = 0.25  # pixels: smoothing of the resize beyond that of plain averaging
_MIN_MARGIN = 80  # two classes whose costs are closer than this leave a pixel in doubt
_MAX_DISTANCE = 25  # levels: an even area farther than this from every colour is of none of the classes
_MIN_SETTLED_SHARE = 0.3  # of the pixels; measured: at least .6 in masks down to 32 pixels, .18 in the median of photos
_NOT_COMPUTED = 65535  # entry of the table of nearest colours: the distance above 8 bits, the index below


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
    area_pixels, thin_pixels = (np.bincount(nearest[sure], minlength=len(colors)) for sure in (flat, thin))
    present = np.flatnonzero((area_pixels > 0) | (thin_pixels >= _MIN_THIN_PIXELS))  # indices of colours
    blended = np.flatnonzero(~settled)  # indices of pixels
    if distance.any() and ignore_doubt and settled.mean() < _MIN_SETTLED_SHARE:
        return np.full(nearest.shape, IGNORE, np.uint8)
    if not len(present) or not len(blended) or not distance.any():  # pure colours are taken at their word
        return ids[nearest]
    picture, palette = cv2.transform(mask.astype(np.float32), _WEIGHTS), colors.astype(np.float32) @ _WEIGHTS.T
    costs = _costs_by_place(nearest, flat, thin, present, blended)
    candidates, costs = _candidates(picture, palette, nearest, present, blended, costs)
    labels, margins = _solve(picture, palette, ids, nearest, blended, candidates, costs)
    repaired = ids[labels]
    if ignore_doubt:
        repaired.ravel()[blended[margins < _MIN_MARGIN]] = IGNORE
        repaired[_is_even(mask) & (distance > _MAX_DISTANCE)] = IGNORE  # an area of one colour is no blend
        repaired[~settled & _differs_on_rim(repaired)] = IGNORE  # what a pixel is blended with may lie outside
    return repaired


def _is_even(mask: np.ndarray) -> np.ndarray:
    """Bool `(H, W)`: whether the 3x3 pixels around a pixel are nearly of one colour."""
    spread = cv2.subtract(cv2.dilate(mask, _square(1)), cv2.erode(mask, _square(1)))
    return cv2.inRange(spread, (0, 0, 0), (_FLAT, _FLAT, _FLAT)) > 0


def _differs_on_rim(ids: np.ndarray) -> np.ndarray:
    """Bool `(H, W)`: pixels on the rim of the picture whose neighbour further inside has another id."""
    if min(ids.shape) <= 2:
        return np.zeros(ids.shape, bool)
    return ids != cv2.copyMakeBorder(ids[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_REPLICATE)


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
    entries = table.take(codes)
    missing = entries == _NOT_COMPUTED
    if missing.any():
        new = np.unique(codes[missing])
        squared = squared_distances(colors @ _WEIGHTS.T, colors_of_codes(new) @ _WEIGHTS.T)  # (colours, new)
        distance = np.sqrt(squared.min(axis=0)).clip(0, 254).round().astype(np.uint16)
        table[new] = squared.argmin(axis=0) | (distance << 8)
        entries = table.take(codes)
    return (entries & 255).astype(np.uint8), (entries >> 8).astype(np.uint8)


@lru_cache(maxsize=2)
def _table_of_colors(palette: bytes) -> np.ndarray:
    """Distance and index of what is nearest to each of the 2^24 colours, filled as colours turn up.

    Threads may share it: two that fill the same entry write the same value.
    """
    return np.full(1 << 24, _NOT_COMPUTED, np.uint16)


def _square(radius: int) -> np.ndarray:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _sure_pixels(mask: np.ndarray, nearest: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pixels inside areas, pixels of thin things, and those inside or beside an area that need no second look."""
    flat = (cv2.dilate(nearest, _square(1)) == cv2.erode(nearest, _square(1))) & (distance <= _FLAT)
    beside = cv2.erode(np.where(flat, nearest, np.uint8(255)), _square(1)) == nearest
    lines = [np.ones(shape, np.uint8) for shape in ((1, _LINE), (_LINE, 1))]
    # Top hat and black hat leave what is brighter or darker than its surroundings and narrower than the line.
    hats = (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    heights = reduce(cv2.max, [cv2.morphologyEx(mask, hat, line) for hat in hats for line in lines])
    ridge = (reduce(cv2.max, cv2.split(heights)) > _RIDGE) & (distance <= _THIN_IN_LINE)
    ridge_colors, thin = np.where(ridge, nearest, np.uint8(255)), distance <= _THIN
    for line in lines:
        one_color = (cv2.erode(ridge_colors, line) == cv2.dilate(ridge_colors, line)) & ridge
        thin |= cv2.dilate(one_color.astype(np.uint8), line) > 0
    return flat, ridge & thin, flat | (beside & (distance <= _SETTLED))


def _costs_by_place(nearest, flat, thin, present, blended) -> np.ndarray:
    """What it costs `(K, N)` to meet each of the present colours at each blended pixel."""
    nearness = np.empty((len(present), len(blended)), np.uint8)  # 0 nowhere near, 1 within the wider distance, 2 near
    for start in range(0, len(present), _BITS):
        chosen = present[start : start + _BITS]
        bit_of_color = np.zeros(256, "<u4")
        bit_of_color[chosen] = 1 << np.arange(len(chosen))
        bits = bit_of_color.take(nearest)
        near = _dilate_bits(bits * flat, _NEAR)
        wide = _dilate_bits(_dilate_bits(near, _WIDER - _NEAR - _NEAR_LINE) | bits * thin, _NEAR_LINE)
        both = _unpack_bits(near.take(blended)) + _unpack_bits(wide.take(blended))
        nearness[start : start + _BITS] = both.T[: len(chosen)]
    return cv2.LUT(nearness, _COSTS)


def _unpack_bits(words: np.ndarray) -> np.ndarray:
    """The bits of 32-bit words `(N,)`, the lowest first: uint8 `(N, 32)`."""
    return np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")


def _dilate_bits(bits: np.ndarray, radius: int) -> np.ndarray:
    """The bits set in any pixel at most `radius` rows and columns away: a dilation of many sets at once."""
    bits = np.pad(bits, radius)
    for _ in range(2):
        width = 1
        while width < 2 * radius + 1:  # what covers `width` rows covers up to twice as many beside its shifted self
            step = min(width, 2 * radius + 1 - width)
            bits = bits[:-step] | bits[step:]
            width += step
        bits = bits.T
    return bits


def _candidates(picture, palette, nearest, present, blended, costs) -> tuple[np.ndarray, np.ndarray]:
    """Indices and costs `(k, N)` of the colours to try: the likeliest by place and colour, and the nearest."""
    count = min(_MAX_CANDIDATES, len(present))
    colors = picture.reshape(-1, 3).take(blended, axis=0)
    rank = costs + _COLOR_WEIGHT * squared_distances(palette[present], colors)
    likely = _smallest(rank, count)
    costs = np.stack([_pick(costs, row) for row in likely])
    own_cost = np.full((1, len(blended)), _ABSENT_COST, np.float32)
    return np.concatenate([present.take(likely), nearest.take(blended)[None]]), np.concatenate([costs, own_cost])


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The rows `(count, N)` of the smallest values of each column of `(K, N)` from 0 on, the smallest first.

    The bits of such float32, read as whole numbers, rise with them; with the row as the last digits, one minimum finds
    both. Several times as fast as `argpartition` for few rows.
    """
    keys = list((values.view(np.int32).astype(np.int64) << 8) | np.arange(len(values))[:, None])
    for i in range(count):  # the smallest key that is left bubbles up
        for j in range(len(keys) - 1, i, -1):
            keys[j - 1], keys[j] = np.minimum(keys[j - 1], keys[j]), np.maximum(keys[j - 1], keys[j])
    return np.stack(keys[:count]).astype(np.intp) & 255


def _solve(picture, palette, ids, nearest, blended, candidates, costs) -> tuple[np.ndarray, np.ndarray]:
    """Chooses a colour for every blended pixel, twice: the second time from values that compression is undone in.

    Args:
        picture: The mask in weighted luma and chroma, float32 `(H, W, 3)`.
        palette: All colours in the same levels, float32 `(M, 3)`.
        ids: The class of each colour, `(M,)`.
        nearest: Index of the nearest colour, `(H, W)`.
        blended: Indices `(N,)` of the pixels to solve in the flat picture.
        candidates: Indices `(k, N)` of the colours to try at each of them.
        costs: What each of these costs, `(k, N)`.

    Returns:
        The index of the colour of every pixel, `(H, W)`, and by how much the choice at each blended one beats the best
        candidate of another class, `(N,)`.
    """
    labels, bonus = nearest.copy(), np.float32(0)
    model = cv2.merge([cv2.LUT(labels, np.resize(column, 256)) for column in palette.T])
    stored = picture.reshape(-1, 3).take(blended, axis=0)
    values = stored  # what the blended pixels are taken to have been before the compression
    between = np.maximum(squared_distances(palette, palette), 1e-3)  # a colour is no blend of itself
    rows = candidates * len(palette)
    pairs = [between.take(rows + candidate) for candidate in candidates]  # k arrays (k, N)
    channels = [column.take(candidates) for column in palette.T]  # 3 arrays (k, N)
    for last in (False, True):
        squared = sum((channel - value) ** 2 for channel, value in zip(channels, values.T, strict=True))  # (k, N)
        savings = [_blend(one, squared, pair, costs)[0].min(axis=0) for one, pair in zip(squared, pairs, strict=True)]
        total = squared + costs + np.minimum(savings, 0)
        labels.ravel()[blended] = _pick(candidates, _argmin(total - bonus))
        bonus = _support(labels, candidates, blended)
        chosen = _argmin(total - bonus)
        labels.ravel()[blended] = best = _pick(candidates, chosen)
        if not last:  # Landweber's step: what compression does to the model is taken off what is stored
            blend = _blend(_pick(squared, chosen), squared, between.take(rows + best), costs)
            model.reshape(-1, 3)[blended] = blends = _blended_colors(palette, best, candidates, *blend)
            values = blends + stored - _compressed(model, blended)
    of_other_classes = np.where(ids.take(candidates) == ids.take(best), np.inf, total - bonus).min(axis=0)
    return labels, of_other_classes - _pick(total - bonus, chosen)


def _blend(one, other, between, costs) -> tuple[np.ndarray, np.ndarray]:
    """What it saves to add up to one half of an `other` colour to `one`, and that share.

    With d1 and d2 the squared distances of the pixel from both and d that between them, a share s of the other changes
    the squared distance by s (s d - (d1 - d2 + d)), least at s = (d1 - d2 + d) / 2d. In place, as these arrays are
    large.

    Args:
        one: d1.
        other: d2.
        between: d.
        costs: Of the other.

    Returns:
        The change in squared levels with the cost, below 0 where it pays, and the share, 0 to 1/2.
    """
    projection = one - other
    projection += between
    share = projection / between
    share *= 0.5
    np.clip(share, 0, 0.5, out=share)
    change = share * between
    change -= projection
    change *= share
    change += costs
    return change, share


def _blended_colors(palette, best, candidates, changes, shares) -> np.ndarray:
    """The best colours `(N, 3)`, each blended with the candidate that saves most, if any."""
    other = _argmin(changes)
    share = np.where(_pick(changes, other) < 0, _pick(shares, other), 0)[:, None]
    return (1 - share) * palette.take(best, axis=0) + share * palette.take(_pick(candidates, other), axis=0)


def _argmin(costs: np.ndarray) -> np.ndarray:
    """As `costs.argmin(axis=0)`, several times as fast for few rows."""
    lowest, chosen = costs[0], np.zeros(costs.shape[1], np.uint8)
    for i in range(1, len(costs)):
        chosen = np.where(costs[i] < lowest, np.uint8(i), chosen)
        lowest = np.minimum(lowest, costs[i])
    return chosen.astype(np.intp)


def _pick(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Of each column of `(k, N)` the value in the chosen row, `(N,)`."""
    return rows.take(chosen * rows.shape[1] + np.arange(rows.shape[1]))


def _support(labels: np.ndarray, candidates: np.ndarray, blended: np.ndarray) -> np.ndarray:
    """What the eight neighbours' labels take off the cost of each candidate `(k, N)`."""
    width = labels.shape[1]
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    centers = blended // width * (width + 2) + blended % width + width + 3  # the pixels' indices in the padded picture
    colors, votes = candidates.astype(np.uint8), np.zeros(candidates.shape, np.uint8)
    for step in (-width - 3, -width - 2, -width - 1, -1, 1, width + 1, width + 2, width + 3):
        votes += padded.take(centers + step) == colors
    return np.minimum(votes, 2) * np.float32(_SUPPORT)


def _compressed(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What resize and JPEG leave of a picture of luma and chroma at these pixels, `(N, 3)`, rounding apart."""
    height, width = picture.shape[:2]
    blurred = cv2.GaussianBlur(picture, (3, 3), _BLUR)
    odd = height % 2 or width % 2
    even = cv2.copyMakeBorder(blurred, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE) if odd else blurred
    half = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    result = cv2.resize(half, even.shape[1::-1], interpolation=cv2.INTER_LINEAR)[:height, :width]
    result = result.reshape(-1, 3).take(places, axis=0)
    result[:, 0] = blurred[..., 0].take(places)
    return result
