"""What a run changed: the network that it started from, judged on the photos and masks that it was judged on itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from semseg.data.base import Dataset
from semseg.errors import ModelFileError
from semseg.evaluation.evaluate import evaluate_split
from semseg.evaluation.tables import metrics_of
from semseg.inference.card import ModelCard


def judge_before(
    model: str | Path, dataset: Dataset, split: str, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Scores of the network that a run started from.

    Its own scores will not do where masks were corrected since: they may have been those of the photos judged on.

    Args:
        model: Its file, or the folder of its run.
        dataset: The data of the run.
        split: Which the run is judged on.
        on_progress: As in `evaluate_split`.

    Returns:
        `model`, `macro_iou`, and by the names of the classes `iou`; None where a class has none.

    Raises:
        SemsegError: The model is not there any more, or cannot be opened.
        ModelFileError: It knows other classes.
    """
    segmenter = ModelCard.read(model).load()
    if segmenter.palette.names != dataset.palette.names:
        raise ModelFileError(f"{model}: knows other classes, so that nothing can be said of what changed")
    evaluation = evaluate_split(
        segmenter.predict_batch, dataset, split, image_size=segmenter.image_size, batch_size=segmenter.batch_size,
        scale=segmenter.scale, calibration=segmenter.calibration, on_progress=on_progress,
    )  # fmt: skip
    scores = metrics_of(evaluation, dataset.palette.names)
    ious = {name: of_class["iou"] for name, of_class in scores["per_class"].items()}
    return {"model": str(model), "macro_iou": scores["macro_iou"], "iou": ious}


def changes(metrics: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """What became of the IoU of each class, the largest gain first.

    Args:
        metrics: Of a run, with `before` as from `judge_before`.

    Returns:
        The class, its IoU before and after; None where there is none.

    Example:
        >>> before = {"iou": {"road": 0.9, "car": 0.25}}
        >>> changes({"before": before, "per_class": {"road": {"iou": 0.875}, "car": {"iou": 0.5}}})
        [('car', 0.25, 0.5), ('road', 0.9, 0.875)]
    """
    rows = [(name, before, metrics["per_class"][name]["iou"]) for name, before in metrics["before"]["iou"].items()]
    return sorted(rows, key=lambda row: (row[1] or 0) - (row[2] or 0))
