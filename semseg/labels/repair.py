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
    area_pixels, thin_pixels = _count_colors(nearest, flat), _count_colors(nearest, thin)
    present = np.flatnonzero((area_pixels > 0) | (thin_pixels >= _MIN_THIN_PIXELS))  # indices of colours
    blended = np.flatnonzero(~settled)  # indices of pixels
    if distance.any() and ignore_doubt and len(blended) > (1 - _MIN_SETTLED_SHARE) * settled.size:
        return np.full(nearest.shape, IGNORE, np.uint8)
    if not len(present) or not len(blended) or not distance.any():  # pure colours are taken at their word
        return ids[nearest]
    picture = cv2.transform(mask.astype(np.float32), _WEIGHTS).reshape(-1, 3).take(blended, axis=0)
    palette = colors.astype(np.float32) @ _WEIGHTS.T
    costs = _costs_by_place(nearest, flat, thin, present, blended)
    candidates, costs = _candidates(picture, palette, nearest, present, blended, costs)
    labels, margins = _solve(picture, palette, ids, nearest, blended, candidates, costs)
    repaired = cv2.LUT(labels, np.resize(ids, 256))
    if ignore_doubt:
        repaired.ravel()[blended[margins < _MIN_MARGIN]] = IGNORE
        repaired[_is_even(mask) & (distance > _MAX_DISTANCE)] = IGNORE  # an area of one colour is no blend
        repaired[~settled & _differs_on_rim(repaired)] = IGNORE  # what a pixel is blended with may lie outside
    return repaired


def _count_colors(nearest: np.ndarray, places: np.ndarray) -> np.ndarray:
    """How many of the pixels at these places, bool `(H, W)`, hold each index, `(256,)`."""
    return cv2.calcHist([nearest], [0], places.view(np.uint8), [256], [0, 256]).ravel()


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
    bits = cv2.copyMakeBorder(bits.view(np.int32), *[radius] * 4, cv2.BORDER_CONSTANT).view(bits.dtype)
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
    rank = squared_distances(palette[present], picture)
    rank *= _COLOR_WEIGHT
    rank += costs
    likely = _smallest(rank, min(_MAX_CANDIDATES, len(present)))
    own_cost = np.full((1, len(blended)), _ABSENT_COST, np.float32)
    costs = np.concatenate([costs.take(likely * len(blended) + np.arange(len(blended))), own_cost])
    return np.concatenate([present.astype(np.uint8).take(likely), nearest.take(blended)[None]]), costs


def _smallest(values: np.ndarray, count: int) -> np.ndarray:
    """The rows `(count, N)` of the smallest values of each column of `(K, N)` from 0 on, the smallest first.

    The bits of such float32, read as whole numbers, rise with them; with the row as the last digits, one minimum finds
    both. Several times as fast as `argpartition` for few rows.
    """
    numbers = values.view(np.int32).astype(np.int64)
    numbers <<= 8
    numbers |= np.arange(len(values))[:, None]
    keys = list(numbers)
    for i in range(count):  # the smallest key that is left bubbles up
        for j in range(len(keys) - 1, i, -1):
            keys[j - 1], keys[j] = np.minimum(keys[j - 1], keys[j]), np.maximum(keys[j - 1], keys[j])
    return np.stack(keys[:count]) & 255


def _solve(picture, palette, ids, nearest, blended, candidates, costs) -> tuple[np.ndarray, np.ndarray]:
    """Chooses a colour for every blended pixel, twice: the second time from values that compression is undone in.

    Args:
        picture: The blended pixels in weighted luma and chroma, float32 `(N, 3)`.
        palette: All colours in the same levels, float32 `(M, 3)`.
        ids: The class of each colour, `(M,)`.
        nearest: Index of the nearest colour, `(H, W)`.
        blended: Indices `(N,)` of the pixels to solve in the flat picture.
        candidates: Indices `(k, N)` of the colours to try at each of them, uint8.
        costs: What each of these costs, `(k, N)`.

    Returns:
        The index of the colour of every pixel, `(H, W)`, and by how much the choice at each blended one beats the best
        candidate of another class, `(N,)`.
    """
    labels, bonus, neighbours = nearest.copy(), np.float32(0), _neighbours(blended, nearest.shape[1])
    tables = [np.resize(column, 256) for column in palette.T]
    model = [cv2.LUT(labels, table) for table in tables]
    channels = [cv2.LUT(candidates, table) for table in tables]  # 3 arrays (k, N)
    stored = values = np.ascontiguousarray(picture.T)  # what the pixels are taken to have been before the compression
    between = np.maximum(squared_distances(palette, palette), 1e-3)  # a colour is no blend of itself
    rows = candidates.astype(np.uint16) * np.uint16(len(palette))
    pairs = [between.take(rows + candidate) for candidate in candidates]  # k arrays (k, N)
    for last in (False, True):
        squared = _sum_of_squares([channel - value for channel, value in zip(channels, values, strict=True)])  # (k, N)
        total = squared + costs
        for i, pair in enumerate(pairs):
            total[i] += _blend(squared[i], squared, pair, costs)[0].min(axis=0, initial=0)
        labels.ravel()[blended] = candidates.take(_lowest(total - bonus)[0])
        bonus = _support(labels, candidates, neighbours)
        scores = total - bonus
        chosen, lowest = _lowest(scores)
        labels.ravel()[blended] = best = candidates.take(chosen)
        if not last:  # Landweber's step: what compression does to the model is taken off what is stored
            changes, shares = _blend(squared.take(chosen), squared, between.take(rows + best), costs)
            blends = _blended_colors(tables, best, candidates, changes, shares)
            for plane, blend in zip(model, blends, strict=True):
                plane.ravel()[blended] = blend
            values = blends + stored - _compressed(model, blended)
    classes = np.resize(ids, 256)
    scores[cv2.LUT(candidates, classes) == classes.take(best)] = np.inf
    return labels, scores.min(axis=0) - lowest


def _sum_of_squares(arrays: list[np.ndarray]) -> np.ndarray:
    """The sum of the squares of arrays, which are overwritten."""
    for array in arrays:
        array *= array
    for array in arrays[1:]:
        arrays[0] += array
    return arrays[0]


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


def _blended_colors(tables, best, candidates, changes, shares) -> np.ndarray:
    """The best colours `(3, N)`, each blended with the candidate that saves most, if any."""
    chosen, lowest = _lowest(changes)
    other, share = candidates.take(chosen), shares.take(chosen)
    share[lowest >= 0] = 0
    rest = 1 - share
    return np.stack([rest * table.take(best) + share * table.take(other) for table in tables])


def _lowest(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flat index of the first of the lowest costs of each column of `(k, N)`, k at most 8, and these costs.

    Several times as fast as `argmin` for few rows.
    """
    lowest = costs.min(axis=0)
    bits = ((costs == lowest) * _BIT_OF_ROW[: len(costs)]).sum(axis=0, dtype=np.uint8)
    return _FIRST_BIT.take(bits) * costs.shape[1] + np.arange(costs.shape[1]), lowest


_BIT_OF_ROW = 1 << np.arange(8, dtype=np.uint8)[:, None]
_FIRST_BIT = np.argmax(np.arange(256) & _BIT_OF_ROW > 0, axis=0)  # place of the lowest bit that is set


def _neighbours(places: np.ndarray, width: int) -> np.ndarray:
    """Indices `(8, N)` of the pixels around these in the picture with a rim of one pixel added."""
    centers = places // width * (width + 2) + places % width + width + 3
    return centers + np.array(
        [[-width - 3], [-width - 2], [-width - 1], [-1], [1], [width + 1], [width + 2], [width + 3]]
    )


def _support(labels: np.ndarray, candidates: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """What the eight neighbours' labels take off the cost of each candidate `(k, N)`."""
    padded = cv2.copyMakeBorder(labels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=255)
    votes = np.zeros(candidates.shape, np.uint8)
    for colors in padded.take(neighbours):
        votes += (colors == candidates).view(np.uint8)
    return cv2.LUT(votes, _BONUS)


_BONUS = _SUPPORT * np.minimum(np.arange(256), 2).astype(np.float32)  # by the number of neighbours that agree


def _compressed(picture: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    """What resize and JPEG leave of luma and chroma `(H, W)` each at these pixels, `(3, N)`, rounding apart."""
    height, width = picture[0].shape
    luma, *chroma = (cv2.GaussianBlur(plane, (3, 3), _BLUR) for plane in picture)
    if height % 2 or width % 2:
        chroma = [cv2.copyMakeBorder(plane, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE) for plane in chroma]
    halves = cv2.split(cv2.resize(cv2.merge(chroma), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    chroma = [cv2.resize(half, chroma[0].shape[::-1], interpolation=cv2.INTER_LINEAR) for half in halves]
    return np.stack([plane[:height, :width].take(places) for plane in (luma, *chroma)])
