"""Which mirror images and turns make one class look like another, as left kidneys become right ones."""

import math
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

Move = tuple[int, bool]  # quarter turns, 0 to 3, after y was mirrored or not: one of the eight ways to lay a square

LEFT_RIGHT: Move = (2, True)
UP_DOWN: Move = (0, True)
HALF_TURN: Move = (2, False)
QUARTER_TURNS: tuple[Move, Move] = ((1, False), (3, False))
DIAGONAL_FLIPS: tuple[Move, Move] = ((1, True), (3, True))
MOVES = (LEFT_RIGHT, UP_DOWN, HALF_TURN, *QUARTER_TURNS, *DIAGONAL_FLIPS)
_WORDS = {
    LEFT_RIGHT: "flipped left-right",
    UP_DOWN: "flipped up-down",
    HALF_TURN: "turned by 180 degrees",
    **dict.fromkeys(QUARTER_TURNS, "turned by 90 degrees"),
    **dict.fromkeys(DIAGONAL_FLIPS, "flipped along a diagonal"),
}
_MAX_NAMED = 3  # pairs in a message; the others are counted

_SIDE = 256  # pixels: larger masks are measured at as many, or fewer, a side
_MAX_PIXELS = 1024  # of a class that are looked at, evenly spread
_MIN_PIECE = 8  # pixels: smaller pieces have no shape
_ORDERS = np.array([1, 2, 3, 1])  # a turn by an angle turns place, axis, corners and weight by so many times as much
_NUMBERS = 17  # of a class in a mask: four vectors of two, the place's scatter, two sizes, and six of colours
_VECTORS = 8  # of these numbers

_MIN_SAMPLES = 3  # that hold a class
_NOISE = 0.02  # standard deviation of what is drawn by hand, at least
_CHANCE = 0.05  # of finding any pair among classes that lie by chance
_DOUBT = 0.1  # that classes are alike which seem to differ
_MIN_DISTANCE = 1.5  # sums of both standard deviations of the samples: 93 % of them lie on their side of the middle
_MAX_WANDERING = 4.0  # times as much as the other class: a heart lies left of what may lie anywhere, and is none of it
# Measured between classes that look alike. Membranes that lean to either side are 4.6 standard deviations apart, and 14
# times as far as after a flip left-right; upright and level ones 4.8, and 36 times as far as after a quarter turn. What
# is clear in 220 photos of Cityscapes and 367 of CamVid gains 1.0 by a flip left-right and up to 2.3 by a quarter turn;
# upside down cars lie where trees do, but classes that have an up are not turned so. Carvana's two, DRIVE's and those
# of the nuclei do not look alike.
_MIN_GAP = 2.0  # standard deviations between vectors of classes that these tell apart
_MIN_GAIN = 4.0  # how many times as far apart they are as after the move
_FLOORS, _MAX_GAPS = np.repeat(  # the least that a network goes by, and standard deviations between classes alike
    [(0.05, 2.0), (0.2, 2.0), (0.1, 2.0), (np.inf, 1.0), (0.4, 1.0), (5.0, 0.5)], [2, 2, 4, 1, 2, 6], axis=0
).T  # (17,) each: place, axis, corners and weight, scatter, sizes, colours
# Pixels scatter within a sample: where the number lies that says by how much, and whether it does.
_SCATTER = np.array([8, 8, *[0] * 9, 14, 15, 16, 14, 15, 16])
_SCATTERS = _SCATTER > 0


def measure_poses(ids: np.ndarray, photo: np.ndarray, num_classes: int) -> list[list[float]]:
    """Measures where each class lies, which way its pieces lean and point, and how it looks.

    Args:
        ids: uint8 `(H, W)`, 0 to K-1 or 255.
        photo: uint8 RGB `(h, w, 3)`, of the mask's shape but not necessarily of its size.
        num_classes: K.

    Returns:
        For each class 17 numbers, or none where it is absent. Eight are four vectors in the plane: the mean `x + iy`,
        -1 to 1 from left to right and from top to bottom; and with `w`, a pixel's place in its piece over the root mean
        square radius of that, the means of `w^2`, the axis of its pieces, `w^3` and `|w|^2 w`, which way they point.
        Then the standard deviation of the places, the same to all sides; the logarithms of the class's share of the
        mask and of that of its pieces; and mean and standard deviation of red, green and blue.

    Example:
        >>> ids = np.eye(64, dtype=np.uint8)  # from the upper left to the lower right
        >>> pose = measure_poses(ids, np.zeros((64, 64, 3), np.uint8), 2)[1]
        >>> pose[:4]  # in the middle, and along x = y: w^2 = i
        [0.0, 0.0, 0.0, 1.0]
    """
    step = -(-max(ids.shape) // _SIDE)
    height, width = ids[::step, ::step].shape
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_NEAREST)
    poses: list[list[float]] = [[] for _ in range(num_classes)]
    for k in np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[:num_classes]):
        members = cv2.inRange(ids, int(k), int(k))
        if step > 1:  # what is thin stays whole
            members = cv2.dilate(members, np.ones((step, step), np.uint8), anchor=(0, 0))[::step, ::step].copy()
        colors = np.concatenate(cv2.meanStdDev(small, mask=members))[:, 0]
        poses[k] = np.concatenate([_geometry(members), colors]).round(4).tolist()
    return poses


def _geometry(members: np.ndarray) -> np.ndarray:
    """Vectors, spread and sizes of the pixels that are not 0 in uint8 `(h, w)`, as `measure_poses` says: `(11,)`."""
    _, pieces, stats, centroids = cv2.connectedComponentsWithStatsWithAlgorithm(members, 8, cv2.CV_32S, cv2.CCL_GRANA)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    places = np.flatnonzero(members)
    count = len(places)
    places = places[:: -(-count // _MAX_PIXELS)]
    rows, columns = np.divmod(places, members.shape[1])
    piece = pieces.ravel()[places]
    w = columns + 1j * rows - centroids.astype(float).view(complex)[piece, 0]
    square = np.bincount(piece, np.abs(w) ** 2) / np.bincount(piece).clip(1)
    w = np.where(areas[piece] < _MIN_PIECE, 0, w / np.sqrt(np.maximum(square[piece], 1e-9)))
    z = (2 * columns + 1) / members.shape[1] - 1 + 1j * ((2 * rows + 1) / members.shape[0] - 1)
    vectors = np.array([z.mean(), (w**2).mean(), (w**3).mean(), (np.abs(w) ** 2 * w).mean()])
    piece_area = (areas[1:] ** 2).sum() / count  # of the piece that a pixel lies in
    sizes = np.log([count / members.size, piece_area / members.size])
    return np.concatenate([vectors.view(float), [z.std() / math.sqrt(2)], sizes])


def find_exchanges(poses: Sequence[Sequence[Sequence[float]]]) -> dict[Move, list[tuple[int, int]]]:
    """Finds classes that a mirror image or a turn makes look like another one.

    These look alike, in colours and in sizes, but lie, lean or point differently, and only until one of them is moved.
    Where a mask holds both, what counts is how they lie to each other.

    Args:
        poses: From `measure_poses`, of each mask.

    Returns:
        For each of `MOVES` the pairs of classes, (j, k) with j < k, of which it makes one look like the other.
    """
    exchanges: dict[Move, list[tuple[int, int]]] = {move: [] for move in MOVES}
    if not poses:
        return exchanges
    absent = [math.nan] * _NUMBERS
    values = np.array([[pose or absent for pose in of_mask] for of_mask in poses]).swapaxes(0, 1)  # (K, samples, 17)
    pairs = _pairs_that_look_alike(values)
    for j, k in pairs:
        one, other = _relative(values[j], values[k]), _relative(values[k], values[j])
        for move in _exchanging_moves(one, other, _CHANCE / (_VECTORS * len(pairs))):
            exchanges[move].append((j, k))
    return exchanges


def words_of_exchanges(
    exchanges: Mapping[Move, Sequence[tuple[int, int]]], moves: Container[Move], names: Sequence[str]
) -> str:
    """Which classes become each other and how, in one sentence without its end; empty where none does.

    Args:
        exchanges: From `find_exchanges`.
        moves: Those that matter.
        names: Of the K classes.

    Example:
        >>> words_of_exchanges({LEFT_RIGHT: [(0, 1)], UP_DOWN: []}, MOVES, ["left kidney", "right kidney"])
        'left kidney and right kidney become each other when flipped left-right'
    """
    ways: dict[tuple[int, int], dict[str, None]] = {}
    for move, pairs in exchanges.items():
        for pair in pairs if move in moves else ():
            ways.setdefault(pair, {})[_WORDS[move]] = None
    texts = [f"{names[j]} and {names[k]} become each other when {' or '.join(how)}" for (j, k), how in ways.items()]
    more = f", and {len(texts) - _MAX_NAMED} more pairs likewise" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more


class _Summary(NamedTuple):
    """Samples that hold a class, `(...)`, with mean and variance of the numbers that were measured, `(..., 17)`."""

    count: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _summary(values: np.ndarray) -> _Summary:
    """Of numbers `(..., samples, 17)`, NaN in samples without the class."""
    count = (~np.isnan(values[..., 0])).sum(axis=-1)
    return _Summary(count, np.nanmean(values, axis=-2), np.nanvar(values, axis=-2, ddof=1))


def _pairs_that_look_alike(values: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of frequent classes of about the same sizes and colours, which wander about as much."""
    classes = np.flatnonzero((~np.isnan(values[..., 0])).sum(axis=1) >= _MIN_SAMPLES)
    summary = _summary(values[classes])
    differ = _differ(_Summary(*(part[:, None] for part in summary)), summary)[..., _VECTORS:].any(axis=-1)  # (K', K')
    wandering = np.sqrt((summary.variance[:, :2] + _FLOORS[:2] ** 2).sum(axis=1))
    differ |= wandering[:, None] > _MAX_WANDERING * wandering
    differ |= differ.T
    return [(int(classes[i]), int(classes[j])) for i, j in np.argwhere(np.triu(~differ, 1))]


def _relative(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The numbers of a class, `(samples, 17)`; its places from the middle between it and another one."""
    values = values.copy()
    values[:, :2] -= np.where(np.isnan(others[:, :2]), 0, (values[:, :2] + others[:, :2]) / 2)
    return values


def _exchanging_moves(one: np.ndarray, other: np.ndarray, chance: float) -> list[Move]:
    """The moves that make one of two classes look like the other; none where these lie alike, or might by chance."""
    summaries = _summary(one), _summary(other)
    is_clear = (_chances(*summaries) < chance) & (_distances(*summaries) >= _MIN_DISTANCE)
    gaps = _by_vector(np.where(is_clear, _gaps(*summaries), 0))
    if gaps.max() < _MIN_GAP:
        return []
    ways = (one, other), (other, one)
    return [move for move in MOVES if any(_brings_together(move, gaps, *way) for way in ways)]


def _moved(values: np.ndarray, move: Move) -> np.ndarray:
    """The numbers after a move."""
    quarters, mirrored = move
    vectors = np.ascontiguousarray(values[:, :_VECTORS]).view(complex)
    vectors = (vectors.conj() if mirrored else vectors) * 1j ** (quarters * _ORDERS)
    return np.concatenate([vectors.view(float), values[:, _VECTORS:]], axis=1)


def _brings_together(move: Move, gaps: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a class looks like another one after a move, where clear gaps, `(4,)`, tell them apart before it."""
    moved, there = _summary(_moved(one, move)), _summary(other)
    is_mended = (gaps >= _MIN_GAP) & (_by_vector(_gaps(moved, there)) * _MIN_GAIN <= gaps)
    is_other = _by_vector(_differ(moved, there)) & ~is_mended
    return bool(is_mended.any() and not is_other.any())


def _by_vector(values: np.ndarray) -> np.ndarray:
    """The larger value of the two parts of each vector, `(17,)` to `(4,)`."""
    return values[:_VECTORS].reshape(-1, 2).max(axis=1)


def _differ(one: _Summary, other: _Summary) -> np.ndarray:
    """Which of the numbers of two classes differ by more than a little, and not by chance: `(..., 17)`."""
    return (_gaps(one, other) > _MAX_GAPS) & (_chances(one, other) < _DOUBT)


def _gaps(one: _Summary, other: _Summary) -> np.ndarray:
    """Distances between the means of two classes in standard deviations, of samples and pixels: `(..., 17)`."""
    scatter = (one.mean[..., _SCATTER] ** 2 + other.mean[..., _SCATTER] ** 2) / 2 * _SCATTERS
    variance = (one.variance + other.variance) / 2
    return np.abs(one.mean - other.mean) / np.sqrt(variance + scatter + _FLOORS**2)


def _chances(one: _Summary, other: _Summary) -> np.ndarray:
    """Upper bounds of the chance that the numbers of classes alike lie so far apart: `(..., 17)`.

    Of Student's t with v degrees of freedom: P(|T| > t) <= (1 + t^2 / v)^(-v/2). Both classes may vary together.
    """
    count = np.minimum(one.count, other.count)[..., None]
    t = _distances(one, other) * np.sqrt(count)
    return (1 + t**2 / (count - 1)) ** (-(count - 1) / 2)


def _distances(one: _Summary, other: _Summary) -> np.ndarray:
    """Distances between the means of two classes in sums of their standard deviations, of samples: `(..., 17)`."""
    deviations = np.sqrt(one.variance + _NOISE**2) + np.sqrt(other.variance + _NOISE**2)
    return np.abs(one.mean - other.mean) / deviations
