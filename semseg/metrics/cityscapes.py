"""Scores in the form of cityscapesScripts' result file, so that its readers, and tables beside others', take ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semseg.errors import SemsegError
from semseg.labels.known_palettes import CITYSCAPES
from semseg.metrics.confusion import merge_classes, scores

_NOT_TRAINED = 255
_LABELS = {name: (label, train, category) for name, label, train, category, _ in CITYSCAPES if label >= 0}
_EVALUATED = {name: category for name, (_, train, category) in _LABELS.items() if train != _NOT_TRAINED}
_CATEGORIES = tuple(dict.fromkeys(category for _, _, category in _LABELS.values()))


def cityscapes_results(matrix: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What `csEvalPixelLevelSemanticLabeling` writes as JSON, from a confusion matrix.

    Its rules hold: pixels whose true label is not evaluated count neither as hit nor as false positive; IoU is
    TP / (TP + FP + FN); within a category confusion counts as right; averages are over the scores that exist. Three
    things differ, because a matrix of the evaluated classes does not hold more: `confMatrix` and `priors` leave ignored
    pixels out, which the program counts in rows of their own; the instance scores are None, as they need each object's
    outline; and what does not exist is None, null in JSON, where the program writes NaN, which is no JSON.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction, at full size.
        names: The K classes, each one of the 19 that Cityscapes evaluates, in any order.

    Returns:
        `confMatrix` (34 rows of 34, by label id), `labels` (name to id), `priors`, `classScores`, `classInstScores` by
        name, `categoryScores`, `categoryInstScores` by category, and `averageScoreClasses`, `averageScoreInstClasses`,
        `averageScoreCategories`, `averageScoreInstCategories`. Labels beyond `names` score None.

    Raises:
        SemsegError: Not one name per class, a name twice, or one that Cityscapes does not evaluate.

    Example:
        >>> results = cityscapes_results(np.array([[6, 2], [0, 2]]), ["road", "sidewalk"])
        >>> results["classScores"]["road"], results["categoryScores"]["flat"], results["averageScoreClasses"]
        (0.75, 1.0, 0.625)

    Reference: https://github.com/mcordts/cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py; Cordts et al.
        2016, https://arxiv.org/abs/1604.01685, section 4.
    """
    _check_names(matrix, names)
    ids = [_LABELS[name][0] for name in names]
    by_id = np.zeros((len(_LABELS), len(_LABELS)), np.int64)  # rows and columns by label id
    by_id[np.ix_(ids, ids)] = matrix
    groups = [_CATEGORIES.index(_EVALUATED[name]) for name in names]
    classes = dict.fromkeys(_LABELS) | _named(names, np.asarray(scores(matrix)["iou"]))
    merged = np.asarray(scores(merge_classes(matrix, groups))["iou"])
    categories = dict.fromkeys(_CATEGORIES) | _named(_CATEGORIES[: len(merged)], merged)
    pixels = max(1, int(matrix.sum()))
    return {
        "confMatrix": by_id.tolist(),
        "priors": {name: float(by_id[label].sum() / pixels) for name, (label, _, _) in _LABELS.items()},
        "labels": {name: label for name, (label, _, _) in _LABELS.items()},
        "classScores": classes,
        "classInstScores": dict.fromkeys(_LABELS),
        "categoryScores": categories,
        "categoryInstScores": dict.fromkeys(_CATEGORIES),
        "averageScoreClasses": _average(classes),
        "averageScoreInstClasses": None,
        "averageScoreCategories": _average(categories),
        "averageScoreInstCategories": None,
    }


def _check_names(matrix: np.ndarray, names: Sequence[str]) -> None:
    if len(names) != len(matrix) or len(set(names)) != len(names):
        raise SemsegError(f"cityscapes_results: got {list(names)}; expected {len(matrix)} names, each once")
    for name in names:
        if name not in _EVALUATED:
            raise SemsegError(
                f"cityscapes_results: Cityscapes does not evaluate {name!r}; expected some of {', '.join(_EVALUATED)}"
            )


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def _average(by_name: Mapping[str, float | None]) -> float | None:
    existing = [score for score in by_name.values() if score is not None]
    return float(np.mean(existing)) if existing else None
