"""What a network is worth on a split: printed, and written as tables and pictures. For `train` and `evaluate`."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semseg.cli.console import Progress, cell, percent, say, say_about, write_json
from semseg.cli.splits import photo_name
from semseg.files import replacing

if TYPE_CHECKING:  # rooms that load OpenCV or Keras are imported where a command needs them
    from semseg.data.base import Dataset
    from semseg.evaluation.evaluate import Evaluation, OnImage
    from semseg.inference.segmenter import Segmenter

MATRIX_FILE = "confusion_matrix.csv"
JUDGED_FILES = ("metrics.json", "per_class.csv", "per_image.csv", MATRIX_FILE, "confusion_matrix.png")
CITYSCAPES_FILE = "cityscapes.json"


def judge(
    segmenter: "Segmenter",
    dataset: "Dataset",
    split: str,
    output: Path,
    *,
    facts: dict[str, Any],
    on_image: "OnImage | None" = None,
) -> "Evaluation":
    """Evaluates a split at the masks' own size and writes `JUDGED_FILES`; `facts` open metrics.json.

    `on_image` is passed on to `evaluate_split`.
    """
    from semseg.evaluation.evaluate import evaluate_split
    from semseg.report import save_confusion_matrix

    with Progress(f"evaluating {split}") as progress:
        evaluation = evaluate_split(
            segmenter.predict_batch, dataset, split, image_size=segmenter.image_size,
            batch_size=segmenter.batch_size, on_progress=progress.show, on_image=on_image,
        )  # fmt: skip
    write_json(output / "metrics.json", {"split": split, **facts, **_metrics(evaluation, dataset)})
    _write_csv(output / "per_class.csv", _class_rows(evaluation, dataset))
    _write_csv(output / "per_image.csv", _image_rows(evaluation, dataset))
    _write_csv(output / MATRIX_FILE, _matrix_rows(evaluation, dataset))
    save_confusion_matrix(evaluation.matrix, dataset.palette.names, output / "confusion_matrix.png")
    if _has_cityscapes_classes(dataset):
        from semseg.metrics.cityscapes import cityscapes_results

        write_json(output / CITYSCAPES_FILE, cityscapes_results(evaluation.matrix, dataset.palette.names))
    return evaluation


def _has_cityscapes_classes(dataset: "Dataset") -> bool:
    from semseg.labels.palettes import cityscapes_palette

    return tuple(dataset.palette.names) == tuple(cityscapes_palette().names)


def _metrics(evaluation: "Evaluation", dataset: "Dataset") -> dict[str, Any]:
    """Plain values; a score that does not exist becomes null."""
    from semseg.evaluation.evaluate import CLASS_SCORES

    found = evaluation.scores
    distances = sorted(image.distance for image in evaluation.images)
    return {
        "images": len(evaluation.images),
        "ignored_share": round(evaluation.ignored, 6),
        **{name: _plain(value) for name, value in found.items() if name not in CLASS_SCORES},
        "boundary_distance": distances[len(distances) // 2],
        "intervals": {name: [_plain(low), _plain(high)] for name, (low, high) in evaluation.intervals.items()},
        "per_class": {
            class_name: {name: _plain(found[name][i]) for name in CLASS_SCORES}
            for i, class_name in enumerate(dataset.palette.names)
        },
    }


def _class_rows(evaluation: "Evaluation", dataset: "Dataset") -> Iterable[dict[str, Any]]:
    from semseg.evaluation.evaluate import CLASS_SCORES

    pixels = evaluation.matrix.sum(axis=1)
    for i, name in enumerate(dataset.palette.names):
        values = {score: _plain(evaluation.scores[score][i]) for score in CLASS_SCORES}
        yield {"class": name, "truth_share": _plain(pixels[i] / max(1, pixels.sum())), **values}


def _image_rows(evaluation: "Evaluation", dataset: "Dataset") -> Iterable[dict[str, Any]]:
    for image in evaluation.images:
        yield {
            "photo": photo_name(image.sample, dataset.root),
            "pixels": int(image.counts[1].sum()),
            "ignored": image.ignored,
            **{name: _plain(value) for name, value in image.scores.items()},
        }


def _matrix_rows(evaluation: "Evaluation", dataset: "Dataset") -> Iterable[dict[str, Any]]:
    """A row per true class: the pixels predicted as each class."""
    names = dataset.palette.names
    for name, row in zip(names, evaluation.matrix.tolist(), strict=True):
        yield {"truth": name, **{f"as {other}": pixels for other, pixels in zip(names, row, strict=True)}}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def say_scores(evaluation: "Evaluation", names: Sequence[str], headline: str) -> None:
    """Prints the scores of every class, their means, and the headline scores with their intervals."""
    from semseg.metrics.confusion import PER_CLASS_SCORES

    found, intervals = evaluation.scores, evaluation.intervals
    totals = evaluation.matrix.sum(axis=1)
    columns = (*PER_CLASS_SCORES, "boundary_iou")
    width = max(map(len, (*names, "weighted")))
    say(f"\n{headline}")
    say(f"{'class':{width}}  {'pixels':>7}  " + " ".join(f"{name.replace('_', ' '):>12}" for name in columns))
    for i, name in enumerate(names):
        share = percent(totals[i] / max(1, totals.sum()))
        say(f"{name:{width}}  {share:>7}  " + " ".join(f" {cell(found[score][i])}" for score in columns))
    for kind in ("macro", "micro", "weighted"):
        values = [found.get(f"{kind}_{score}") for score in columns]
        cells = " ".join(" " * 12 if value is None else f" {cell(value)}" for value in values)
        say(f"{kind:{width}}  {'':>7}  {cells}")
    ranges = {name: f"{low:.3f} to {high:.3f}" for name, (low, high) in intervals.items()}
    say(f"accuracy {found['accuracy']:.4f} ({ranges['accuracy']}), mean IoU {found['macro_iou']:.4f} "
        f"({ranges['macro_iou']}), mean Dice {found['macro_dice']:.4f} ({ranges['macro_dice']})")  # fmt: skip
    say_about("", "in brackets: 95 % intervals, by drawing the photos anew")
    distance = sorted(image.distance for image in evaluation.images)[len(evaluation.images) // 2]
    say(f"borders within {distance} pixel{'s' if distance > 1 else ''}: boundary IoU "
        f"{found['macro_boundary_iou']:.4f}, boundary F {found['macro_boundary_f']:.4f}; "
        f"calibration error {found['calibration_error']:.4f}")  # fmt: skip
