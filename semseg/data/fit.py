"""Two questions that no file answers alone: is a photo here twice, and does a mask lie on its own photo?"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from semseg import IGNORE

TURNS = {"left-right": (1,), "upside down": (0,), "half turn": (0, 1)}  # the axes that are reversed

_GRID = 20  # cells a side of a fingerprint: with fewer, frames of a video that follow each other look the same
_MIN_ASYMMETRY = 4  # tolerances between a picture and its own mirror image; below it these are taken as equal
_AREA = 128**2  # pixels that photo and mask are shrunk to before a misfit is looked for
_MIN_SHIFT = 4  # of these pixels; right masks seem shifted by fewer, too
_MIN_TURN_GAIN, _MIN_SHIFT_GAIN = 0.15, 0.25  # the most among 3131 right masks: .07 and .21
_MIN_MEDIAN_GAIN, _MIN_MASKS = 0.05, 8  # of a set that is turned or shifted as a whole; masks needed to tell


def fingerprint(photo: np.ndarray) -> np.ndarray:
    """Shrinks a photo to what JPEG and resizing leave alone.

    Args:
        photo: uint8 RGB `(H, W, 3)`.

    Returns:
        float32 `(401,)`: grey levels of 20x20 cells less 128, and how far a copy may be from them (root mean square).
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) - 128
    for size in ((_GRID, grey.shape[0]), (_GRID, _GRID)):  # OpenCV averages areas only where no side grows
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).round(3)  # a blank stays blank
    contrast = float(grey.std())  # JPEG of quality 40 moves cells by 1 to 3 levels at 64 pixels a side, up to 8 at 32
    tolerance = min(0.6 + 150 / min(photo.shape[:2]) + 0.012 * contrast, 0.35 * contrast)
    return np.append(grey, np.float32(tolerance))


def duplicates(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Finds pictures of one set in another, also re-encoded or resized, by their fingerprints.

    Args:
        first: float32 `(N, 401)`, a `fingerprint` a row.
        second: float32 `(M, 401)`.

    Returns:
        (index in `first`, index in `second`), at most one for each of `second`: its closest.

    Example:
        >>> photo = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        >>> duplicates(np.stack([fingerprint(photo[::-1]), fingerprint(photo)]), fingerprint(photo)[None])
        [(1, 0)]
    """
    if not len(first):
        return []
    pairs: list[tuple[int, int]] = []
    cells, tolerance = first[:, :-1], first[:, -1]
    # |a - b|^2 = |a|^2 - 2 a b + |b|^2, where |b|^2 is the same for every a: the closest has the largest 2 a b - |a|^2,
    # and what a fingerprint tolerates lets it be that much farther away.
    slack = tolerance**2 * _GRID**2 - (cells**2).sum(axis=1)
    for start in range(0, len(second), 256):  # blocks: 20,000 by 256 distances are 20 MB
        block = second[start : start + 256]
        closest = (2 * cells @ block[:, :-1].T + slack[:, None]).argmax(axis=0)
        block = block.astype(np.float64)
        mean_square = ((cells[closest] - block[:, :-1]) ** 2).mean(axis=1)
        excess = mean_square - tolerance[closest] ** 2 - block[:, -1] ** 2
        pairs += [(int(closest[i]), start + int(i)) for i in np.flatnonzero(excess <= 0)]
    return pairs


def turned_duplicates(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Finds pictures of one set in another that were mirrored, turned by quarters, or both, by their fingerprints.

    Args:
        first: float32 `(N, 401)`, a `fingerprint` a row.
        second: float32 `(M, 401)`.

    Returns:
        As `duplicates`. Pictures that are themselves nearly symmetric are left out, as they prove nothing.

    Example:
        >>> photo = np.zeros((64, 64, 3), np.uint8)
        >>> photo[:30, :20] = 200
        >>> turned_duplicates(fingerprint(photo[:, ::-1])[None], fingerprint(photo)[None])
        [(0, 0)]
    """
    tolerance = second[:, -1:]
    grids = second[:, :-1].reshape(-1, _GRID, _GRID)
    found: dict[int, int] = {}
    for turned in _turns_of(grids):
        unlike = np.sqrt(((turned - grids) ** 2).mean(axis=(1, 2))) > _MIN_ASYMMETRY * tolerance[:, 0]
        prints = np.concatenate([turned.reshape(-1, _GRID**2), tolerance], axis=1)
        for i, j in duplicates(first, prints[unlike]):
            found.setdefault(int(np.flatnonzero(unlike)[j]), i)
    return [(i, j) for j, i in sorted(found.items())]


def _turns_of(grids: np.ndarray) -> Iterator[np.ndarray]:
    """The seven other ways in which pictures, `(N, h, h)`, can lie."""
    for quarters in range(4):
        turned = np.rot90(grids, quarters, (1, 2))
        yield turned[:, :, ::-1]
        if quarters:
            yield turned


def misfit(photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measures how much better a mask would fit its photo if it were turned or shifted.

    Args:
        photo: uint8 RGB `(h, w, 3)`, of the mask's shape but not necessarily of its size.
        mask: uint8 ids `(H, W)`.

    Returns:
        For each of `TURNS` and for `"shift"` the gain, below 0 where the mask fits better as it is; `"right"` and
        `"down"`: how far that shift moves the mask, as shares of width and height. A mask of one class gains 0.
    """
    features = _features(photo)
    ids, outline = _shrink(mask, features)
    # A turned mask fits the photo as the mask fits the turned photo, and so it is looked up only once.
    turned = [features] + [np.flip(features, [axis + 1 for axis in axes]) for axes in TURNS.values()]
    unchanged, *fits = _fits(np.stack(turned, axis=1), ids, outline)
    gains = dict(zip(TURNS, fits - unchanged, strict=True))
    shifted, right, down = _best_shift(features, ids, outline)
    gains |= {"shift": shifted - unchanged, "right": right / ids.shape[1], "down": down / ids.shape[0]}
    return {name: round(float(value), 4) for name, value in gains.items()}


def judge_misfits(evidence: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Says which masks are clearly turned or shifted, and whether most of them are so in the same way.

    Args:
        evidence: What `misfit` measured, for each mask.

    Returns:
        `"all"`: the fault of most masks, or None; `"files"`: faults of single masks, with their `"index"`. A fault has
        a `"fault"`, one of `TURNS` or `"shift"`; a shift has `"right"` and `"down"`, the move that mends it, too.
    """
    files = []
    for index, gains in enumerate(evidence):
        fault = _clear_fault(gains)
        if fault:
            files.append({"index": index} | fault)
    informative = [gains for gains in evidence if any(gains[name] for name in (*TURNS, "shift"))]
    return {"all": _common_fault(informative) if len(informative) >= _MIN_MASKS else None, "files": files}


def better_turn(photo: np.ndarray, masks: Sequence[np.ndarray]) -> int:
    """Which of several masks fits the photo best.

    Args:
        photo: uint8 RGB `(h, w, 3)`.
        masks: uint8 ids `(H, W)` each, of the photo's shape.

    Returns:
        Its index; 0 unless another one is clearly better than the first.
    """
    features = _features(photo)
    fits = [_fits(features[:, None], *_shrink(mask, features))[0] for mask in masks]
    return int(np.argmax(fits)) if max(fits) > fits[0] + _MIN_TURN_GAIN else 0


def _clear_fault(gains: dict[str, float]) -> dict[str, Any] | None:
    """The fault of one mask, where mending it would gain more than right masks ever do."""
    turn = max(TURNS, key=gains.__getitem__)
    is_turned = gains[turn] > _MIN_TURN_GAIN
    if gains["shift"] > max(_MIN_SHIFT_GAIN, is_turned * (gains[turn] + 0.2)):  # turned masks seem shifted, too
        return {"fault": "shift", "right": gains["right"], "down": gains["down"]}
    return {"fault": turn} if is_turned else None


def _common_fault(evidence: Sequence[dict[str, float]]) -> dict[str, Any] | None:
    """The fault that most masks share; each may gain less than it takes to tell of a single one."""
    medians = {name: float(np.median([gains[name] for gains in evidence])) for name in evidence[0]}
    shift = {name: medians[name] for name in ("right", "down")}
    count = 0
    for gains in evidence:
        same_way = all(abs(gains[name] - shift[name]) < 0.02 for name in shift)
        count += gains["shift"] > _MIN_MEDIAN_GAIN and same_way
    if count > len(evidence) / 2:
        return {"fault": "shift"} | shift
    turn = max(TURNS, key=medians.__getitem__)
    return {"fault": turn} if medians[turn] > _MIN_MEDIAN_GAIN else None


def _features(photo: np.ndarray) -> np.ndarray:
    """Colour and texture of the small photo, five decorrelated planes, and its sharp edges above 0: `(6, h, w)`."""
    scale, step = (_AREA / photo[..., 0].size) ** 0.5, max(1, min(photo.shape[:2]) // 256)
    size = [max(1, round(n * scale)) for n in photo.shape[1::-1]]
    small = cv2.resize(photo[::step, ::step], size, interpolation=cv2.INTER_AREA).astype(np.float32)
    lab = cv2.cvtColor(small / 255, cv2.COLOR_RGB2LAB)
    slopes = [cv2.Sobel(lab[..., 0], -1, *axes) for axes in ((1, 0), (0, 1))]
    steep = cv2.magnitude(*slopes)
    texture, across, down = (cv2.log(cv2.blur(np.abs(slope), (7, 7)) + 1) for slope in (steep, *slopes))
    planes = np.stack([*cv2.split(cv2.blur(lab, (3, 3))), texture, across - down])
    colors = planes.reshape(5, -1)
    colors -= colors.mean(axis=1, keepdims=True)
    # Whitening: along the eigenvectors of their covariance the features are uncorrelated and of variance 1.
    values, vectors = np.linalg.eigh(colors @ colors.T / colors.shape[1] + 1e-3 * np.eye(5, dtype=np.float32))
    edges = cv2.log(steep / 4 + 1)
    mean, deviation = (value.item() for value in cv2.meanStdDev(edges))
    edges = (edges - mean) / (deviation + 1e-3)
    white = (vectors / np.sqrt(values)).T @ colors
    return np.concatenate([white.reshape(planes.shape), (edges - 0.8 * cv2.blur(edges, (11, 11)))[None]])


def _shrink(mask: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask in the size of the features, and float32 1 where it differs from its neighbour, 0 elsewhere."""
    ids = cv2.resize(mask, features.shape[:0:-1], interpolation=cv2.INTER_NEAREST_EXACT)
    gradient = cv2.morphologyEx(ids, cv2.MORPH_GRADIENT, np.uint8([[0, 1], [1, 1]]))  # 255 has outlines, too
    return ids, gradient.clip(0, 1).astype(np.float32)


def _fits(features: np.ndarray, ids: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """How sharp photos are along the outlines, and how much of their variance the classes explain (eta squared).

    Args:
        features: From `_features` of each of V photos, `(6, V, h, w)`.
        ids: The mask, `(h, w)`.
        outline: Its outlines, float32 `(h, w)`.

    Returns:
        Float `(V,)`: the better the mask fits the photo, the more.
    """
    colors, edges = features[:5].reshape(-1, ids.size), features[5].reshape(-1, ids.size)  # (5 * V, h * w), (V, h * w)
    counts = np.bincount(ids.ravel(), minlength=256)[:IGNORE]
    classes, counts = np.flatnonzero(counts).astype(np.uint8), counts[counts > 0]
    sums = (ids.ravel() == classes[:, None]).astype(np.float32) @ colors.T  # (K, 5 * V)
    # Sums of squares as in an analysis of variance: in all, and between the classes.
    correction = sums.sum(axis=0) ** 2 / max(counts.sum(), 1)
    total = colors**2 @ (ids.ravel() != IGNORE).astype(np.float32) - correction
    between = (sums**2 / counts[:, None]).sum(axis=0) - correction
    unexplained = np.maximum((total - between + 1) / (total + 1), 1e-3).reshape(5, -1)
    return edges @ outline.ravel() / (outline.sum() + 30) - np.log(unexplained).mean(axis=0)


def _best_shift(features: np.ndarray, ids: np.ndarray, outline: np.ndarray) -> tuple[float, int, int]:
    """How well the mask fits where its outlines lie best on edges, and how many pixels right and down that is."""
    y, x = (n // 6 for n in ids.shape)  # the largest shift that is tried
    edges = cv2.copyMakeBorder(features[5], y, y, x, x, cv2.BORDER_CONSTANT)
    match = cv2.matchTemplate(edges, outline, cv2.TM_CCORR)
    match[max(0, y - _MIN_SHIFT + 1) : y + _MIN_SHIFT, max(0, x - _MIN_SHIFT + 1) : x + _MIN_SHIFT] = -np.inf
    down, right = np.subtract(np.unravel_index(match.argmax(), match.shape), (y, x))
    matrix, size = np.float32([[1, 0, right], [0, 1, down]]), ids.shape[::-1]
    ids = cv2.warpAffine(ids, matrix, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE)
    outline = cv2.warpAffine(outline, matrix, size, flags=cv2.INTER_NEAREST)
    return _fits(features[:, None], ids, outline)[0], right, down
