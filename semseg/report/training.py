"""Pictures of a training: its first batch, and how it went."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semseg.labels.legend import INK
from semseg.labels.painting import overlay
from semseg.labels.palettes import Palette
from semseg.report.style import STYLE, class_legend, save_figure, show_image

TRAIN, VAL, BEST = "#7b8794", "#1d6fb8", "#d64545"


def get_acc(history: Sequence[dict[str, float]], path: str | Path, best_epoch: int | None = None) -> Path:
    """Draws the course of training: loss, pixel accuracy, mean IoU and learning rate over the epochs.

    Args:
        history: Rows as `train_model` returns them.
        path: Where the PNG goes.
        best_epoch: The epoch to mark, counted from 1; None for the one with the highest `val_mean_iou`.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> scores = {"loss": 0.9, "accuracy": 0.7, "mean_iou": 0.4}
        >>> row = {"epoch": 1, "learning_rate": 0.005, **scores, **{f"val_{name}": scores[name] for name in scores}}
        >>> get_acc([row, {**row, "epoch": 2}], Path(tempfile.mkdtemp()) / "curves.png").name
        'curves.png'
    """
    epochs = [row["epoch"] for row in history]
    if best_epoch is None:
        best_epoch = int(max(history, key=lambda row: row["val_mean_iou"])["epoch"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7), layout="constrained")
        axes = figure.subplots(2, 2)
        for axis, name, title in zip(
            axes.flat,
            ("loss", "accuracy", "mean_iou", "learning_rate"),
            ("Loss", "Pixel accuracy", "Mean IoU", "Learning rate at the end of the epoch"),
            strict=True,
        ):
            axis.set_title(title)
            axis.grid(True, axis="y")
            axis.axvline(best_epoch, color=BEST, linewidth=1, linestyle=(0, (4, 3)))
            _curves(axis, epochs, history, name)
            if name in ("accuracy", "mean_iou"):
                _mark_best(axis, best_epoch, next(row for row in history if row["epoch"] == best_epoch)[f"val_{name}"])
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
        axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0, columnspacing=1)
        return save_figure(figure, path)


def _curves(axis: Axes, epochs: list[float], history: Sequence[dict[str, float]], name: str) -> None:
    style = {"marker": "o", "markersize": 4, "linewidth": 2}
    if f"val_{name}" not in history[0]:
        axis.plot(epochs, [row[name] for row in history], color=INK, **style)
        return
    axis.plot(epochs, [row[name] for row in history], color=TRAIN, label="training (augmented)", **style)
    axis.plot(epochs, [row[f"val_{name}"] for row in history], color=VAL, label="validation", **style)


def _mark_best(axis: Axes, epoch: int, value: float) -> None:
    axis.plot([epoch], [value], "o", markersize=10, markerfacecolor="none", markeredgecolor=BEST, markeredgewidth=1.6)
    axis.set_title(f"best: {value:.3f} in epoch {epoch}", loc="right", color=BEST, fontsize=11)


def save_batch(
    photos: np.ndarray, masks: np.ndarray, palette: Palette, path: str | Path, *, shown: int = 8, title: str = ""
) -> Path:
    """Draws what the network sees: augmented photos, and below each the same with its mask over it.

    Args:
        photos: uint8 RGB `(N, H, W, 3)`.
        masks: uint8 ids `(N, H, W)`.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        shown: At most this many of the batch.
        title: What they are, where it is not the first batch of a run.

    Returns:
        The path.
    """
    photos, masks = photos[:shown], masks[:shown]
    columns = min(4, len(photos))
    rows = 2 * -(-len(photos) // columns)
    height, width = masks.shape[1:]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(8, columns * 2.7), rows * 2.7 * height / width + 1.2), layout="constrained")
        title = title or f"What the network sees in its first step: {width}x{height} pixels, augmented"
        figure.suptitle("\n".join(wrap(title, int(figure.get_figwidth() / 0.11))), x=0.01, ha="left", fontsize=12)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for i, (photo, mask) in enumerate(zip(photos, masks, strict=True)):
            row, column = 2 * (i // columns), i % columns
            show_image(axes[row, column], photo, smooth=True)
            show_image(axes[row + 1, column], overlay(photo, mask, palette), smooth=False)
        class_legend(figure, palette, masks)
        return save_figure(figure, path)
