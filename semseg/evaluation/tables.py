"""The scores of a split as plain values and as files."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from semseg.data.base import Dataset
from semseg.data.splits import photo_name
from semseg.evaluation.evaluate import CLASS_SCORES, Evaluation, OnImage, evaluate_split
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import cityscapes_palette
from semseg.metrics.cityscapes import cityscapes_results
from semseg.runs.scores import ScoreFolder

COMPARED_WITH = ("calibration_error", "accuracy", "macro_iou", "macro_dice")  # of a network without its calibration


def evaluate_to_files(
    segmenter: Segmenter,
    dataset: Dataset,
    split: str,
    folder: ScoreFolder,
    *,
    facts: dict[str, Any],
    on_progress: Callable[[int, int], None] | None = None,
    on_image: OnImage | None = None,
) -> Evaluation:
    """Evaluates a split at the masks' own size and writes its scores.

    Args:
        segmenter: The network.
        dataset: From `open_data`.
        split: A split of it, or `"all"`.
        folder: Where the tables go.
        facts: What else the metrics should hold; they open the file.
        on_progress: As in `evaluate_split`.
        on_image: As in `evaluate_split`.
    """
    evaluation = evaluate_split(
        segmenter.predict_batch, dataset, split, image_size=segmenter.image_size, batch_size=segmenter.batch_size,
        scale=segmenter.scale, calibration=segmenter.calibration, on_progress=on_progress, on_image=on_image,
    )  # fmt: skip
    class_names = dataset.palette.names
    if evaluation.as_learnt:
        facts = {**facts, "calibration": segmenter.calibration.to_dict()}
    folder.write_metrics({"split": split, **facts, **metrics_of(evaluation, class_names)})
    folder.write_per_class(list(_class_rows(evaluation, class_names)))
    folder.write_per_image(list(_image_rows(evaluation, dataset)))
    folder.write_matrix(evaluation.matrix, class_names)
    if tuple(class_names) == tuple(cityscapes_palette().names):
        folder.write_cityscapes(cityscapes_results(evaluation.matrix, class_names))
    return evaluation


def metrics_of(evaluation: Evaluation, class_names: Iterable[str]) -> dict[str, Any]:
    """All scores of an evaluation as plain values; a score that does not exist is None.

    Args:
        evaluation: From `evaluate_split`.
        class_names: In the order of the ids.
    """
    scores, before = evaluation.scores, evaluation.scores_as_learnt
    as_learnt = {} if before is None else {"as_learnt": {name: _plain(before[name]) for name in COMPARED_WITH}}
    return {
        "images": len(evaluation.images),
        "ignored_share": round(evaluation.ignored, 6),
        **{name: _plain(value) for name, value in scores.items() if name not in CLASS_SCORES},
        **as_learnt,
        "boundary_distance": evaluation.median_distance,
        "intervals": {name: [_plain(low), _plain(high)] for name, (low, high) in evaluation.intervals.items()},
        "per_class": {
            class_name: {name: _plain(scores[name][i]) for name in CLASS_SCORES}
            for i, class_name in enumerate(class_names)
        },
    }


def _class_rows(evaluation: Evaluation, class_names: Iterable[str]) -> Iterable[dict[str, Any]]:
    pixels = evaluation.matrix.sum(axis=1)
    for i, name in enumerate(class_names):
        values = {score: _plain(evaluation.scores[score][i]) for score in CLASS_SCORES}
        yield {"class": name, "truth_share": _plain(pixels[i] / max(1, pixels.sum())), **values}


def _image_rows(evaluation: Evaluation, dataset: Dataset) -> Iterable[dict[str, Any]]:
    for image in evaluation.images:
        yield {
            "photo": photo_name(image.sample, dataset.root),
            "pixels": int(image.counts[1].sum()),
            "ignored": image.ignored,
            **{name: _plain(value) for name, value in image.scores.items()},
        }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
