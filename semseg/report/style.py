"""What all pictures have in common: the look, the legend of classes, the writing of the file."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from semseg import IGNORE
from semseg.files import replacing
from semseg.labels.legend import FAINT, INK, LEGEND_SHARE, shorten
from semseg.labels.palettes import Palette

GRID = "#e4e7eb"
STYLE = {
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "savefig.dpi": 120,
    "text.parse_math": False,  # a file name may hold dollar signs
    "savefig.facecolor": "white",
}


def show_image(axis: Axes, image: np.ndarray, smooth: bool) -> None:
    """Draws a picture without ticks or frame.

    Args:
        axis: Where.
        image: uint8 RGB `(H, W, 3)`.
        smooth: Whether it is a photo, and not classes, whose borders are sharp.
    """
    axis.imshow(image, interpolation="lanczos" if smooth else "auto")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def class_legend(figure: Figure, palette: Palette, *masks: np.ndarray) -> None:
    """Colours and names of the classes that can be seen in any of the masks, the largest first, below the figure.

    Args:
        figure: What shows the masks.
        palette: Names and colours of the classes.
        masks: Class ids, uint8 `(H, W)` or `(N, H, W)`, 255 for what is ignored.
    """
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    least = LEGEND_SHARE * counts.sum() / len(masks)
    present = [i for i in np.argsort(-counts[: palette.num_classes], kind="stable") if counts[i] > least]
    handles = [
        Patch(
            facecolor=np.array(palette.colors[i]) / 255,
            edgecolor=FAINT,
            linewidth=0.5,
            label=shorten(palette.names[i], 28),
        )
        for i in present
    ]
    if counts[IGNORE]:
        handles.append(Patch(facecolor="#ebebeb", edgecolor="#b0b0b0", hatch="////", linewidth=0.5, label="ignored"))
    longest = max(len(handle.get_label()) for handle in handles)
    most = max(1, int(figure.get_figwidth() / max(1.4, 0.5 + 0.085 * longest)))
    columns = -(-len(handles) // -(-len(handles) // most))  # rows of about the same length
    place = (
        {"loc": "outside lower left"} if figure.get_layout_engine() else {"loc": "upper left", "bbox_to_anchor": (0, 0)}
    )
    figure.legend(handles=handles, ncols=columns, fontsize=10, handlelength=1.2, columnspacing=1.4, **place)


def short(value: float) -> str:
    """A number in three or four signs.

    Example:
        >>> [short(value) for value in (0, 0.25, 7, 999, 1234, 56_789, 999_999, 2.5e9)]
        ['0', '0.25', '7', '999', '1.2k', '57k', '1M', '2.5G']
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.2g}{unit}" if value < 99.5 * size else f"{value / size:.0f}{unit}"
    return f"{value:.3g}"


@contextmanager
def any_letters() -> Iterator[None]:
    """No warning about letters that the font lacks: a file's or a network's name may hold any."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        yield


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG, whole or not at all; one without a layout of its own is cut to what is drawn.

    Args:
        figure: What is drawn.
        path: Where the file goes; its folder is made where it is missing.

    Returns:
        The path.
    """
    box = {} if figure.get_layout_engine() else {"bbox_inches": "tight", "pad_inches": 0.12}
    with replacing(path) as temporary, any_letters():
        figure.savefig(temporary, pil_kwargs={"compress_level": 3}, **box)  # a third of the time, a tenth more bytes
    return Path(path)
