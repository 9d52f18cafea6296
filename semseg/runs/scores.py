"""The scores of a network on a split as files: in the folder of its run, and in that of a later evaluation."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import RunFolderError
from semseg.files import read_csv, read_json, write_csv, write_json
from semseg.runs import names

NEEDED_METRICS = ("split", "macro_iou", "per_class", "training_seconds")


@dataclass(frozen=True)
class ScoreFolder:
    """A folder with the scores of one evaluation.

    Args:
        folder: Where it lies.
    """

    folder: Path

    @property
    def metrics_path(self) -> Path:
        """Every score, with the intervals of the headline ones."""
        return self.folder / names.METRICS

    @property
    def matrix_picture(self) -> Path:
        """The confusion matrix, drawn."""
        return self.folder / names.MATRIX_PICTURE

    @property
    def worst_picture(self) -> Path:
        """The photos with the lowest mean IoU."""
        return self.folder / names.WORST

    @property
    def best_picture(self) -> Path:
        """The photos with the highest mean IoU."""
        return self.folder / names.BEST

    @property
    def reliability_picture(self) -> Path:
        """The reliability diagram."""
        return self.folder / names.RELIABILITY

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Writes every score; plain values, None for a score that does not exist."""
        write_json(self.metrics_path, dict(metrics))

    def read_metrics(self) -> dict[str, Any]:
        """Reads every score of a run's final evaluation.

        Raises:
            RunFolderError: A score that a comparison needs is missing.
            OSError, ValueError, TypeError, AttributeError: The file is not one of `write_metrics`.
        """
        metrics = read_json(self.metrics_path)
        if missing := [name for name in NEEDED_METRICS if name not in metrics]:
            raise RunFolderError(f"{self.folder}: {names.METRICS} holds no {', '.join(missing)}; train it again")
        ious = [metrics["macro_iou"], *(scores.get("iou") for scores in metrics["per_class"].values())]
        np.array([metrics["training_seconds"], *ious], float)  # raises unless they are numbers or None
        return metrics

    def read_ignored_share(self) -> float:
        """The share of pixels, 0 to 1, that were left out when the scores were made; 0 where nobody noted it."""
        try:
            return float(read_json(self.metrics_path)["ignored_share"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0

    def write_per_class(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a row of scores per class: `class`, `truth_share`, and a column per score."""
        write_csv(self.folder / names.PER_CLASS, rows)

    def read_truth_shares(self) -> dict[str, float]:
        """Each class's share of the true pixels, 0 to 1, by name; nothing where the file is missing."""
        if not (self.folder / names.PER_CLASS).is_file():
            return {}
        rows = read_rows(self.folder / names.PER_CLASS, ("class", "truth_share"))
        return {row["class"]: float(row["truth_share"] or 0) for row in rows}

    def write_per_image(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a row of scores per photo: `photo`, `pixels`, `ignored`, and a column per score."""
        write_csv(self.folder / names.PER_IMAGE, rows)

    def read_image_ious(self) -> dict[str, float]:
        """The mean IoU of each photo by name; NaN for a photo without a counted pixel."""
        rows = read_rows(self.folder / names.PER_IMAGE, ("photo", "iou"))
        return {row["photo"]: float(row["iou"] or "nan") for row in rows}

    def write_matrix(self, matrix: np.ndarray, class_names: Sequence[str]) -> None:
        """Writes a confusion matrix, int64 `(K, K)`: a row per true class, a column per predicted one."""
        columns = [f"as {name}" for name in class_names]
        rows = [
            {"truth": name, **dict(zip(columns, row, strict=True))}
            for name, row in zip(class_names, matrix.tolist(), strict=True)
        ]
        write_csv(self.folder / names.MATRIX, rows)

    def read_matrix(self, num_classes: int) -> np.ndarray | None:
        """The confusion matrix, int64 `(K, K)`; None where the file is missing.

        Raises:
            ValueError: It is not of so many classes.
        """
        path = self.folder / names.MATRIX
        if not path.is_file():
            return None
        with path.open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        matrix = np.array([[int(pixels) for pixels in row[1:]] for row in rows], np.int64)
        if matrix.shape != (num_classes, num_classes):
            raise ValueError(f"{names.MATRIX} is not of {num_classes} classes")
        return matrix

    def write_cityscapes(self, results: Mapping[str, Any]) -> None:
        """Writes scores in the form of cityscapesScripts' result file."""
        write_json(self.folder / names.CITYSCAPES, dict(results))

    def written(self) -> list[str]:
        """The names of the files of an evaluation that are there."""
        return sorted(name for name in names.EVALUATION_FILES if (self.folder / name).exists())


def read_rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that must hold at least one, with these columns among others.

    Raises:
        RunFolderError: A column is missing, or there is no row.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        columns, rows = read_csv(file)
    missing = [name for name in needed if name not in columns]
    if missing or not rows:
        lacks = f"column {', '.join(missing)}" if missing else "row"
        raise RunFolderError(f"{path.parent}: {path.name} holds no {lacks}; train it again")
    return rows
