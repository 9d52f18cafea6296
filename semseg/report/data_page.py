"""A data set on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from semseg.labels.legend import FAINT, INK, shorten
from semseg.labels.painting import overlay
from semseg.labels.palettes import Palette
from semseg.report.style import STYLE, save_figure, show_image

MAX_BARS = 32  # classes in the chart of shares


def save_data_page(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    palette: Palette,
    pixels: Mapping[str, np.ndarray],
    headline: str,
    path: str | Path,
) -> Path:
    """Draws a data set: photos, the same with their masks over them, and how much of each class there is.

    Args:
        samples: Title, photo uint8 RGB `(H, W, 3)` and ids `(H, W)` of some samples.
        palette: Names and colours of the classes.
        pixels: For each split the pixels per class, ignored ones last, `(K + 1,)`.
        headline: What the data set is.
        path: Where the PNG goes.

    Returns:
        The path.
    """
    columns = min(4, len(samples))
    rows = 2 * -(-len(samples) // columns)
    heights = [min(1.2, float(np.median([photo.shape[0] / photo.shape[1] for _, photo, _ in samples])))] * rows
    classes = min(palette.num_classes, MAX_BARS)
    bars = 0.8 + 0.11 * (1 + len(pixels)) * (classes + 1)
    with matplotlib.rc_context(STYLE):
        width = max(9.0, columns * 3.4)
        pictures = sum(heights) * width / columns + 0.3 * rows
        figure = Figure(figsize=(width, pictures + bars + 1.0), layout="constrained")
        figure.suptitle(headline, x=0.01, ha="left", fontsize=14, fontweight="bold")
        upper, lower = figure.subfigures(2, 1, height_ratios=(pictures, bars + 0.4))
        axes = upper.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for i, (title, photo, ids) in enumerate(samples):
            row, column = 2 * (i // columns), i % columns
            axes[row, column].set_title(shorten(title), fontsize=9, fontweight="normal")
            show_image(axes[row, column], photo, smooth=True)
            show_image(axes[row + 1, column], overlay(photo, ids, palette), smooth=False)
        _share_bars(lower.subplots(), palette, pixels, classes)
        return save_figure(figure, path)


def _share_bars(axis: Axes, palette: Palette, pixels: Mapping[str, np.ndarray], classes: int) -> None:
    """Bars of each class's share by split, the largest in training first, and of what is ignored."""
    shares = {split: counts / max(1, counts.sum()) for split, counts in pixels.items()}
    order = [*np.argsort(-shares["train"][:-1], kind="stable")[:classes].tolist(), palette.num_classes]
    names = [*palette.names, "ignored"]
    colors = [*(np.array(palette.colors) / 255), np.array([0.85, 0.85, 0.85])]
    high = 0.8 / len(shares)
    for number, (split, values) in enumerate(shares.items()):
        places = np.arange(len(order)) + (number - (len(shares) - 1) / 2) * high
        axis.barh(
            places, values[order], 0.9 * high, color=[colors[i] for i in order], edgecolor=FAINT, linewidth=0.5,
            hatch="" if split == "train" else "////",
        )  # fmt: skip
        for place, i in zip(places, order, strict=True):
            axis.text(values[i], place, f"  {split} {values[i]:.2%}", va="center", fontsize=7.5, color=FAINT)
    axis.set_yticks(range(len(order)), [names[i] for i in order], fontsize=9)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12 * max(values.max() for values in shares.values()))
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    hidden = palette.num_classes - classes
    axis.set_title(
        "Share of all pixels, ignored ones included" + (f" ({hidden} smaller classes not shown)" if hidden else "")
    )
