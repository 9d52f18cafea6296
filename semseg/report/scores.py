"""Scores as pictures: which classes are taken for which, and whether the network knows how sure it may be."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter

from semseg.labels.legend import FAINT, INK, shorten
from semseg.report.style import GRID, STYLE, save_figure, short

EMPTY_COLOR = "#f4f4f4"
MAX_NUMBERED_CLASSES = 36  # classes whose cells are large enough for numbers
ACCURACY_COLOR, GAP_COLOR = "#1d6fb8", "#d64545"


def save_confusion_matrix(matrix: np.ndarray, names: Sequence[str], path: str | Path) -> Path:
    """Draws a confusion matrix twice: each row as shares of its true class, and the pixels themselves.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction, in pixels.
        names: K class names.
        path: Where the PNG goes; its folder is made where it is missing.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "confusion_matrix.png"
        >>> save_confusion_matrix(np.array([[90, 10], [5, 45]]), ["road", "car"], path).name
        'confusion_matrix.png'
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    counts = np.where((matrix > 0) & (totals > 0), matrix, np.nan)
    names = [shorten(name, 28) for name in names]
    percent = [f"{name}  {share:.1%}" for name, share in zip(names, _shares(totals), strict=True)]
    pixels = [f"{short(total)}  {name}" for name, total in zip(names, totals[:, 0].tolist(), strict=True)]
    side, longest = float(np.clip(0.5 * len(names), 3.4, 12)), max(len(name) for name in names)
    scale = 0.8 if len(names) > MAX_NUMBERED_CLASSES else 0
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(2 * side + 2.6 + 0.18 * longest, side + 1.3 + 0.08 * longest + scale), layout="constrained"
        )
        figure.get_layout_engine().set(wspace=0.04)
        left, right = figure.subplots(1, 2)
        left.set_title("Of each true class, % predicted as ...")
        _matrix(left, shares, Normalize(0, 1), lambda share: f"{100 * share:.0f}" if share >= 0.005 else "")
        _class_ticks(left, percent, names, 72 * side / len(names))
        left.set_ylabel("truth, with its share of the pixels", labelpad=12)
        right.set_title("Pixels, in logarithmic shades")
        least = matrix[matrix > 0].min(initial=matrix.max())
        _matrix(right, counts, LogNorm(max(1, least), max(10 * least, matrix.max(), 10)), short)
        right.yaxis.tick_right()
        _class_ticks(right, pixels, names, 72 * side / len(names))
        right.yaxis.set_label_position("right")
        right.set_ylabel("truth, with its pixels", labelpad=12)
        return save_figure(figure, path)


def _matrix(axis: Axes, values: np.ndarray, norm: Normalize, text: Callable[[float], str]) -> None:
    """Cells in shades of blue, with their numbers, or a scale of the shades where there are too many for numbers."""
    colors = matplotlib.colormaps["Blues"].with_extremes(bad=EMPTY_COLOR)
    image = axis.imshow(np.ma.masked_invalid(values), cmap=colors, norm=norm, interpolation="nearest")
    axis.spines[:].set_visible(False)
    if len(values) > MAX_NUMBERED_CLASSES:
        form = PercentFormatter(1) if norm.vmax == 1 else FuncFormatter(lambda value, _: short(value))
        axis.figure.colorbar(image, ax=axis, location="bottom", shrink=0.5, aspect=40, format=form)
        return
    size = 12 if len(values) < 5 else 8.5
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axis.text(
                column, row, text(value), ha="center", va="center", fontsize=size,
                color="white" if norm(value) > 0.55 else INK, in_layout=False,
            )  # fmt: skip


def _class_ticks(axis: Axes, rows: Sequence[str], columns: Sequence[str], cell: float) -> None:
    """Names at the cells, of so many points, and only at every second, third ... where they would touch."""
    size = float(np.clip(0.8 * cell, 6.5, 10))
    shown = range(0, len(rows), int(np.ceil(1.1 * size / cell)))
    axis.set_xticks(shown, [columns[i] for i in shown], rotation=60, ha="right", rotation_mode="anchor")
    axis.set_yticks(shown, [rows[i] for i in shown])
    axis.tick_params(length=0, labelcolor=INK, labelsize=size)
    axis.set_xlabel("prediction")


def _shares(totals: np.ndarray) -> list[float]:
    return (totals[:, 0] / max(1, totals.sum())).tolist()


def save_reliability(bins: np.ndarray, error: float, path: str | Path) -> Path:
    """Draws how often the network is right when it is so sure, and how many pixels that concerns.

    Args:
        bins: float64 `(3, B)`: pixels, hits and sum of confidence in B equal steps of confidence from 0 to 1.
        error: The expected calibration error, 0 to 1; NaN without pixels.
        path: Where the PNG goes.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> bins = np.array([[20.0, 80.0], [12.0, 72.0], [6.0, 68.0]])  # in two steps of confidence
        >>> save_reliability(bins, error=0.1, path=Path(tempfile.mkdtemp()) / "reliability.png").name
        'reliability.png'

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, https://arxiv.org/abs/1706.04599.
    """
    pixels, hits, confidence = np.asarray(bins, np.float64)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 8.2), layout="constrained")
        figure.suptitle(_verdict(pixels, hits, confidence, error), x=0.02, ha="left", fontsize=11)
        upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        _accuracy_bars(upper, pixels, hits, confidence)
        shares = pixels / max(1, pixels.sum())
        middles = (np.arange(len(pixels)) + 0.5) / len(pixels)
        lower.bar(middles, shares, 0.92 / len(pixels), color=FAINT)
        for middle, share in zip(middles, shares, strict=True):
            if share >= 0.0005:
                lower.text(middle, share, f"{share:.1%}", ha="center", va="bottom", fontsize=6.5, color=INK)
        lower.set_title("Share of the pixels")
        lower.set_ylim(0, 1.15 * (shares.max() or 1))
        lower.set_xlabel("confidence: probability of the predicted class")
        for axis in (upper, lower):
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return save_figure(figure, path)


def _verdict(pixels: np.ndarray, hits: np.ndarray, confidence: np.ndarray, error: float) -> str:
    total = pixels.sum()
    if not total:
        return "No pixel has a truth to compare with: nothing to say about confidence"
    sure, right = confidence.sum() / total, hits.sum() / total
    word = "too sure on the whole" if sure > right else "not sure enough on the whole"
    verdict = "as sure as it may be" if error < 0.01 else word
    return (
        f"Expected calibration error {error:.3f}: confidence and\n"
        f"accuracy lie {100 * error:.1f} points apart on average.\n"
        f"Mean confidence {sure:.1%}, accuracy {right:.1%}: {verdict}."
    )


def _accuracy_bars(axis: Axes, pixels: np.ndarray, hits: np.ndarray, confidence: np.ndarray) -> None:
    seen = np.flatnonzero(pixels)
    accuracy, sure = hits[seen] / pixels[seen], confidence[seen] / pixels[seen]
    places, width = (seen + 0.5) / len(pixels), 0.92 / len(pixels)
    axis.set_axisbelow(True)
    axis.grid(True, color=GRID)
    axis.bar(places, accuracy, width, color=ACCURACY_COLOR)
    axis.bar(
        places, np.abs(sure - accuracy), width, np.minimum(sure, accuracy), facecolor=(GAP_COLOR, 0.35),
        edgecolor=GAP_COLOR, hatch="////", linewidth=1,
    )  # fmt: skip
    axis.plot([0, 1], [0, 1], color=INK, linestyle=(0, (4, 3)), linewidth=1)
    axis.set(xlim=(0, 1), ylim=(0, 1), title="Accuracy at each confidence")
    handles = [
        Patch(color=ACCURACY_COLOR, label="accuracy"),
        Patch(fc=(GAP_COLOR, 0.35), ec=GAP_COLOR, hatch="////", label="gap to confidence"),
    ]
    axis.legend(handles=handles, loc="upper left")
