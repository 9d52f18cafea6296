"""Two questions that no file answers alone: is a photo here twice, and does a mask lie on its own photo?"""

from collections.abc import Sequence

import cv2
import numpy as np

from semseg import IGNORE

_GRID = 20  # cells a side of a fingerprint: with fewer, frames of a video that follow each other look the same
_BLOCK = 256  # fingerprints compared at once


def fingerprint(photo: np.ndarray) -> np.ndarray:
    """Shrinks a photo to what JPEG and resizing leave alone.

    Args:
        photo: uint8 RGB `(H, W, 3)`, from 1x1 on.

    Returns:
        float32 `(401,)`: grey levels of 20x20 cells less 128, and how far a copy may be from them (root mean square).
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    side = min(grey.shape)
    for size in ((_GRID, grey.shape[0]), (_GRID, _GRID)):  # OpenCV averages areas only where both sides shrink
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    contrast = float(grey.std())
    # JPEG of quality 40 moves the cells by 1.1 levels (95 % of copies) at 128 pixels a side, by 4.5 at 32; of a photo
    # with little contrast, a third of that contrast tells it from any other.
    noise = min(0.6 + 150 / side + 0.012 * contrast, 0.35 * contrast)
    return np.append(grey.ravel() - 128, np.float32(noise))


def duplicates(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Finds pictures of one set in another, also re-encoded or resized.

    Args:
        first: Fingerprints `(N, 401)`.
        second: Fingerprints `(M, 401)`.

    Returns:
        (index in `first`, index in `second`), at most one for each of `second`: its closest.

    Example:
        >>> photo = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        >>> prints = np.stack([fingerprint(photo[::-1]), fingerprint(photo)])
        >>> duplicates(prints, prints[1:])
        [(1, 0)]
    """
    found: list[tuple[int, int]] = []
    if not len(first):
        return found
    slack = _slack(first)
    for start in range(0, len(second), _BLOCK):
        block = second[start : start + _BLOCK]
        margins = 2 * (first[:, :-1] @ block[:, :-1].T) + slack[:, None]  # (N, block), and the same for each row
        closest = margins.argmax(axis=0)
        apart = ((first[closest, :-1].astype(np.float64) - block[:, :-1]) ** 2).mean(axis=1)
        same = apart <= first[closest, -1].astype(np.float64) ** 2 + block[:, -1].astype(np.float64) ** 2
        found += [(int(closest[i]), start + int(i)) for i in np.flatnonzero(same)]
    return found


def _slack(prints: np.ndarray) -> np.ndarray:
    """What a photo adds to the margin between allowed and real distance, squared and summed over the cells."""
    return _GRID**2 * prints[:, -1] ** 2 - (prints[:, :-1] ** 2).sum(axis=1)


# ------------------------------------------------------------------------------------------- masks on their photos

_AREA = 128**2  # pixels
_REACH = 20  # pixels: shifts looked for, to all sides
_NEAR = 3  # pixels: smaller shifts are none

TURNS = {"left-right": (1,), "upside down": (0,), "half turn": (0, 1)}  # axes that are reversed


def misfit(photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Measures whether a mask would fit its photo better if it were turned or shifted.

    Args:
        photo: uint8 RGB `(H, W, 3)`.
        mask: uint8 ids of the same size; 255 counts nowhere.

    Returns:
        For each of `TURNS` and for `"shift"` how much better the changed mask fits (below 0: worse); `"right"` and
        `"down"`: how far that shift moves the mask's content, as shares of width and height.
    """
    look = _look(photo)
    ids = _shrink(mask, look[1].shape)
    border = _border(ids)
    stands = _fit(look, ids, border)
    gains = {name: _fit(look, np.flip(ids, axes), np.flip(border, axes)) - stands for name, axes in TURNS.items()}
    right, down = _best_shift(look[1], border)
    gains["shift"] = _fit(look, _moved(ids, right, down, IGNORE), _moved(border, right, down, 0)) - stands
    gains |= {"right": right / ids.shape[1], "down": down / ids.shape[0]}
    return {name: round(float(value), 4) for name, value in gains.items()}


def better_turn(photo: np.ndarray, masks: Sequence[np.ndarray]) -> int:
    look = _look(photo)
    small = [_shrink(mask, look[1].shape) for mask in masks]
    fits = [_fit(look, ids, _border(ids)) for ids in small]
    best = int(np.argmax(fits))
    return best if fits[best] > fits[0] + 0.15 else 0


def _look(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of a small photo, decorrelated, `(pixels, 5)`; and where it has sharp edges, `(h, w)`."""
    scale = (_AREA / (photo.shape[0] * photo.shape[1])) ** 0.5
    size = tuple(max(1, round(n * scale)) for n in photo.shape[1::-1])
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    across, along = (cv2.Sobel(lab[..., 0], -1, *axes) for axes in ((1, 0), (0, 1)))
    steep = cv2.magnitude(across, along)
    busy, *ways = (np.log1p(cv2.blur(each, (7, 7))) for each in (steep, np.abs(across), np.abs(along)))
    features = np.dstack([cv2.blur(lab, (3, 3)), busy, ways[0] - ways[1]]).reshape(-1, 5)
    features -= features.mean(axis=0)
    values, vectors = np.linalg.eigh(features.T @ features / len(features) + 1e-3 * np.eye(5, dtype=np.float32))
    edges = np.log1p(steep / 4)
    edges = (edges - edges.mean()) / (edges.std() + 1e-3)
    return features @ (vectors / np.sqrt(values)), edges - 0.8 * cv2.blur(edges, (11, 11))


def _shrink(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _fit(look: tuple[np.ndarray, np.ndarray], ids: np.ndarray, border: np.ndarray) -> float:
    """How well classes explain the features, and borders the edges."""
    features, edges = look
    classes = np.flatnonzero(np.bincount(ids.ravel(), minlength=256)[:IGNORE])
    members = (ids.ravel() == classes[:, None]).astype(np.float32)  # (K, pixels)
    counts, sums, counted = members.sum(axis=1), members @ features, members.sum(axis=0)
    mean = sums.sum(axis=0) / max(counts.sum(), 1)
    total = counted @ features**2 - counts.sum() * mean**2
    between = (sums**2 / counts[:, None]).sum(axis=0) - counts.sum() * mean**2
    unexplained = (total - between + 1) / (total + 1)
    return float((border * edges).sum() / (border.sum() + 30) - np.log(unexplained + 1e-3).mean())


def _border(ids: np.ndarray) -> np.ndarray:
    """1 on both sides... of a border between two classes."""
    border = np.zeros(ids.shape, np.float32)
    for part, before, after in ((border[:, 1:], ids[:, :-1], ids[:, 1:]), (border[1:], ids[:-1], ids[1:])):
        part[before != after] = 1
    return border


def _best_shift(edges: np.ndarray, border: np.ndarray) -> tuple[int, int]:
    padded = cv2.copyMakeBorder(edges, *[_REACH] * 4, cv2.BORDER_CONSTANT)
    match = cv2.matchTemplate(padded, border, cv2.TM_CCORR)
    match[_REACH - _NEAR + 1 : _REACH + _NEAR, _REACH - _NEAR + 1 : _REACH + _NEAR] = -np.inf
    down, right = np.unravel_index(match.argmax(), match.shape)
    return int(right) - _REACH, int(down) - _REACH


def _moved(plane: np.ndarray, right: int, down: int, fill: int) -> np.ndarray:
    matrix = np.float32([[1, 0, right], [0, 1, down]])
    return cv2.warpAffine(plane, matrix, plane.shape[::-1], flags=cv2.INTER_NEAREST, borderValue=fill)


def judge_misfits(evidence):
    return {}
