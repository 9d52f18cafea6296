"""Two questions that no file answers alone: is a photo here twice, and does a mask lie on its own photo?"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from semseg import IGNORE

TURNS = {"left-right": (1,), "upside down": (0,), "half turn": (0, 1)}  # the axes that are reversed

_GRID = 20  # cells a side of a fingerprint: with fewer, frames of a video that follow each other look the same
_AREA, _NEAR = 128**2, 4  # pixels that are looked at for misfits; by less than 4 right masks seem shifted, too
_CLEAR_TURN, _CLEAR_SHIFT = 0.15, 0.25  # gains; the most among 3131 right masks: .07 and .21
_COMMON, _ENOUGH = 0.05, 8  # median gain of a set that is turned or shifted as a whole; masks needed to tell


def fingerprint(photo: np.ndarray) -> np.ndarray:
    """Shrinks a photo, uint8 RGB `(H, W, 3)`, to what JPEG and resizing leave alone.

    Returns:
        float32 `(401,)`: grey levels of 20x20 cells less 128, and how far a copy may be from them (root mean square).
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) - 128
    for size in ((_GRID, grey.shape[0]), (_GRID, _GRID)):  # OpenCV averages areas only where no side grows
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).round(3)  # a blank stays blank
    contrast = float(grey.std())  # JPEG of quality 40 moves cells by 1 to 3 levels at 64 pixels a side, up to 8 at 32
    return np.append(grey, np.float32(min(0.6 + 150 / min(photo.shape[:2]) + 0.012 * contrast, 0.35 * contrast)))


def duplicates(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Finds pictures of one set in another, also re-encoded or resized, by their fingerprints `(N, 401)`, `(M, 401)`.

    Returns:
        (index in `first`, index in `second`), at most one for each of `second`: its closest.

    Example:
        >>> photo = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        >>> duplicates(np.stack([fingerprint(photo[::-1]), fingerprint(photo)]), fingerprint(photo)[None])
        [(1, 0)]
    """
    found: list[tuple[int, int]] = []
    slack = first[:, -1] ** 2 * _GRID**2 - (first[:, :-1] ** 2).sum(axis=1)
    for start in range(0, len(second) if len(first) else 0, 256):  # blocks: 20,000 by 256 distances are 20 MB
        block = second[start : start + 256].astype(np.float64)
        closest = (2 * first[:, :-1] @ second[start : start + 256, :-1].T + slack[:, None]).argmax(axis=0)
        apart = ((first[closest, :-1] - block[:, :-1]) ** 2).mean(axis=1) - first[closest, -1] ** 2 - block[:, -1] ** 2
        found += [(int(closest[i]), start + int(i)) for i in np.flatnonzero(apart <= 0)]
    return found


def misfit(photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measures how much better a mask, uint8 ids `(H, W)`, would fit its photo if it were turned or shifted.

    Returns:
        For each of `TURNS` and for `"shift"` the gain, below 0 where the mask fits better as it is; `"right"` and
        `"down"`: how far that shift moves the mask, as shares of width and height. A mask of one class gains 0.
    """
    look = _look(photo)
    ids, outline = _shrink(mask, look)
    stands = _fit(look, ids, outline)
    found = {name: _fit(look, np.flip(ids, axes), np.flip(outline, axes)) - stands for name, axes in TURNS.items()}
    shifted, right, down = _best_shift(look, ids, outline)
    found |= {"shift": shifted - stands, "right": right / ids.shape[1], "down": down / ids.shape[0]}
    return {name: round(float(value), 4) for name, value in found.items()}


def judge_misfits(evidence: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Says which masks are clearly turned or shifted, and whether most of them are so in the same way.

    Returns:
        `"all"`: the fault of most masks, or None; `"files"`: faults of single masks, with their `"index"`. A fault has
        a `"fault"`, one of `TURNS` or `"shift"`; a shift has `"right"` and `"down"`, the move that mends it, too.
    """
    files = [{"index": index} | fault for index, found in enumerate(evidence) if (fault := _clear_fault(found))]
    telling = [found for found in evidence if any(found[name] for name in (*TURNS, "shift"))]
    return {"all": _common_fault(telling) if len(telling) >= _ENOUGH else None, "files": files}


def better_turn(photo: np.ndarray, masks: Sequence[np.ndarray]) -> int:
    """Returns which of several masks fits the photo best; 0, the first, unless another one is clearly better."""
    look = _look(photo)
    fits = [_fit(look, *_shrink(mask, look)) for mask in masks]
    return int(np.argmax(fits)) if max(fits) > fits[0] + _CLEAR_TURN else 0


def _clear_fault(found: dict[str, float]) -> dict[str, Any] | None:
    turn = max(TURNS, key=found.__getitem__)
    turned = found[turn] > _CLEAR_TURN
    if found["shift"] > max(_CLEAR_SHIFT, turned * (found[turn] + 0.2)):  # turned masks seem shifted, too
        return {"fault": "shift", "right": found["right"], "down": found["down"]}
    return {"fault": turn} if turned else None


def _common_fault(evidence: Sequence[dict[str, float]]) -> dict[str, Any] | None:
    middle = {name: float(np.median([found[name] for found in evidence])) for name in evidence[0]}
    shift = {name: middle[name] for name in ("right", "down")}
    alike = [found["shift"] > _COMMON and all(abs(found[k] - shift[k]) < 0.02 for k in shift) for found in evidence]
    if sum(alike) > len(alike) / 2:
        return {"fault": "shift"} | shift
    turn = max(TURNS, key=middle.__getitem__)
    return {"fault": turn} if middle[turn] > _COMMON else None


def _look(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and texture of the small photo, decorrelated, `(h * w, 5)`; its sharp edges above 0, `(h, w)`."""
    scale, step = (_AREA / photo[..., 0].size) ** 0.5, max(1, min(photo.shape[:2]) // 256)
    size = [max(1, round(n * scale)) for n in photo.shape[1::-1]]
    small = cv2.resize(photo[::step, ::step], size, interpolation=cv2.INTER_AREA).astype(np.float32)
    lab = cv2.cvtColor(small / 255, cv2.COLOR_RGB2LAB)
    slopes = [cv2.Sobel(lab[..., 0], -1, *axes) for axes in ((1, 0), (0, 1))]
    steep = cv2.magnitude(*slopes)
    busy, across, down = (np.log1p(cv2.blur(np.abs(each), (7, 7))) for each in (steep, *slopes))
    features = np.dstack([cv2.blur(lab, (3, 3)), busy, across - down]).reshape(-1, 5)
    features -= features.mean(axis=0)
    values, vectors = np.linalg.eigh(features.T @ features / len(features) + 1e-3 * np.eye(5, dtype=np.float32))
    edges = np.log1p(steep / 4)
    edges = (edges - edges.mean()) / (edges.std() + 1e-3)
    return features @ (vectors / np.sqrt(values)), edges - 0.8 * cv2.blur(edges, (11, 11))


def _shrink(mask: np.ndarray, look: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mask in the size of the look, and float32 1 where it differs from its neighbour; 255 has outlines, too."""
    ids = cv2.resize(mask, look[1].shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return ids, cv2.morphologyEx(ids, cv2.MORPH_GRADIENT, np.uint8([[0, 1], [1, 1]])).clip(0, 1).astype(np.float32)


def _fit(look: tuple[np.ndarray, np.ndarray], ids: np.ndarray, outline: np.ndarray) -> float:
    """How sharp the photo is along the outlines, and how much of its variance the classes explain (eta squared)."""
    features, edges = look
    classes = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[:IGNORE])
    members = (ids.ravel() == classes[:, None]).astype(np.float32)  # (K, h * w)
    counts, sums = members.sum(axis=1), members @ features
    common = sums.sum(axis=0) ** 2 / max(counts.sum(), 1)
    total = members.sum(axis=0) @ features**2 - common
    between = (sums**2 / counts[:, None]).sum(axis=0) - common
    unexplained = np.maximum((total - between + 1) / (total + 1), 1e-3)
    return float((outline * edges).sum() / (outline.sum() + 30) - np.log(unexplained).mean())


def _best_shift(look: tuple[np.ndarray, np.ndarray], ids: np.ndarray, outline: np.ndarray) -> tuple[float, int, int]:
    """How well the mask fits where its outlines lie best on edges, and how many pixels right and down that is."""
    y, x = (n // 6 for n in ids.shape)
    match = cv2.matchTemplate(cv2.copyMakeBorder(look[1], y, y, x, x, cv2.BORDER_CONSTANT), outline, cv2.TM_CCORR)
    match[max(0, y - _NEAR + 1) : y + _NEAR, max(0, x - _NEAR + 1) : x + _NEAR] = -np.inf
    down, right = np.subtract(np.unravel_index(match.argmax(), match.shape), (y, x))
    matrix, size = np.float32([[1, 0, right], [0, 1, down]]), ids.shape[::-1]
    ids = cv2.warpAffine(ids, matrix, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE)
    return _fit(look, ids, cv2.warpAffine(outline, matrix, size, flags=cv2.INTER_NEAREST)), right, down
