"""Cross-validation: a run for each part of the photos, alike but for the part that it holds out, and their scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semseg.comparison.spread import OUT_OF_FOLD, spread_of
from semseg.comparison.trainings import Train, Trainings, train_all
from semseg.data.opening import Tell
from semseg.errors import RunFolderError
from semseg.metrics.confusion import PER_CLASS_SCORES, scores
from semseg.runs import names
from semseg.runs.config import RunConfig, parse_fold
from semseg.runs.run import Run
from semseg.runs.scores import ScoreFolder, read_rows

NOTE = (
    "each photo judged by the one network that was not trained on it; it also helped to choose that network's best "
    "epoch, which makes the scores a little too good"
)
_OVER_FOLDS = (
    "macro_iou", "macro_dice", "accuracy", "macro_boundary_iou", "macro_boundary_f", "calibration_error",
)  # fmt: skip


def train_folds(asked: RunConfig, count: int, train: Train, tell: Tell) -> Trainings:
    """Trains what is not finished yet of a run for each fold; what the first one decides holds for all.

    Args:
        asked: What was asked for; its output holds a folder for each fold.
        count: Of folds, at least 2.
        train: Trains runs, as for `train_all`.
        tell: Called with a topic and a sentence after each run.

    Raises:
        RunFolderError: A run with other settings, or on other data, lies in a folder.
        SemsegError: What a failed run ended with, if the others would fail alike.
    """
    labels = [f"fold {number}/{count}" for number in range(1, count + 1)]
    first = fold_of(asked, 1, count)
    of_first = train_all([first], train, tell, labels[:1])
    if of_first.errors:
        return of_first
    same = as_decided(asked, of_first.runs[0])
    rest = [fold_of(same, number, count) for number in range(2, count + 1)]
    trainings = train_all([first, *rest], train, lambda *said: None if said[0] == labels[0] else tell(*said), labels)
    trainings.runs.sort(key=lambda run: parse_fold(run.config.fold))
    return trainings


def fold_of(config: RunConfig, number: int, count: int) -> RunConfig:
    """The run that holds out one of several folds, and is judged on it."""
    output = Path(config.output) / names.FOLD.format(number=number)
    return replace(config, fold=f"{number}/{count}", output=str(output), test_split="val")


def as_decided(config: RunConfig, run: Run) -> RunConfig:
    """What was asked for, with what a run decided that was asked for the same: network, view, batches and changes."""
    plan = run.plan
    height, width = plan["view"]["image_size"]["value"]
    scale = plan["view"].get("crops", {}).get("value")
    changes = plan["augment"]["changes"]["value"]
    return replace(
        config,
        **plan["network"]["network"]["value"],
        image_size=(height, width),
        view="whole" if scale is None else "crops",
        scale=scale,
        batch_size=plan["batches"]["batch_size"]["value"],
        augment=",".join(f"{name}={_setting(value)}" for name, value in changes.items()),
        epochs=run.config.epochs,
        minutes=None,
    )


def _setting(value: Any) -> str:
    """A change of photos as it is asked for."""
    return ":".join(f"{number:g}" for number in value) if isinstance(value, list | tuple) else f"{value:g}"


@dataclass(frozen=True)
class OutOfFold:
    """The scores of all folds together.

    Args:
        runs: The finished run of each fold, in order.
    """

    runs: Sequence[Run]

    @cached_property
    def matrix(self) -> np.ndarray:
        """The sum of the folds' confusion matrices, int64 `(K, K)`: rows truth, columns prediction.

        Raises:
            RunFolderError: A fold did not keep its own.
        """
        matrices = []
        for run in self.runs:
            matrix = run.scores.read_matrix(run.palette.num_classes)
            if matrix is None:
                raise RunFolderError(f"{run.folder}: holds no {names.MATRIX}; train it again")
            matrices.append(matrix)
        return np.sum(matrices, axis=0)

    @cached_property
    def photos(self) -> list[dict[str, Any]]:
        """The row of each photo in its fold's table, with the fold."""
        rows = ((run, read_rows(run.folder / names.PER_IMAGE, ("photo", "iou"))) for run in self.runs)
        return [{"photo": row["photo"], "fold": run.folder.name, **row} for run, of_fold in rows for row in of_fold]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Every score as plain values; None for one that does not exist."""
        together = scores(self.matrix)
        class_names = self.runs[0].palette.names
        return {
            "split": OUT_OF_FOLD,
            "note": NOTE,
            "images": len(self.photos),
            "training_seconds": sum(run.metrics["training_seconds"] for run in self.runs),
            **{name: _plain(value) for name, value in together.items() if name not in PER_CLASS_SCORES},
            "per_class": {
                name: {score: _plain(together[score][i]) for score in PER_CLASS_SCORES}
                for i, name in enumerate(class_names)
            },
            "folds": [run.folder.name for run in self.runs],
            "over_folds": {name: self._over_folds(name) for name in _OVER_FOLDS},
            "iou_over_folds": {name: self._over_folds("iou", name) for name in class_names},
        }

    def _over_folds(self, score: str, of_class: str | None = None) -> dict[str, Any]:
        """Mean, standard deviation and values of a score of the folds."""
        tables = [run.metrics if of_class is None else run.metrics["per_class"][of_class] for run in self.runs]
        return spread_of(np.array([table.get(score) for table in tables], float))

    @property
    def tested(self) -> int:
        """Photos of the test split, which took part in no fold."""
        return sum(entry.split == "test" for entry in self.runs[0].splits.values())

    @property
    def never_held_out(self) -> int:
        """Photos of the folds that none of them held out: copies of others, which would make scores too good."""
        return max(0, len(self.runs[0].splits) - self.tested - len(self.photos))

    def write(self, folder: ScoreFolder) -> None:
        """Writes the tables of an evaluation."""
        class_names = self.runs[0].palette.names
        folder.write_metrics(self.metrics)
        folder.write_per_image(self.photos)
        pixels = self.matrix.sum(axis=1)
        shares = pixels / max(1, pixels.sum())
        folder.write_per_class(
            [
                {"class": name, "truth_share": round(float(share), 6), **self.metrics["per_class"][name]}
                for name, share in zip(class_names, shares, strict=True)
            ]
        )
        folder.write_matrix(self.matrix, class_names)


def _plain(value: Any) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
