"""What all pictures have in common: the look, the legend of classes, the writing of the file."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from semseg import IGNORE
from semseg.files import replacing
from semseg.palettes import Palette

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
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
LEGEND_SHARE = 3e-4  # of the pixels: 20 of 65,536 can just be seen


def show_image(axis: Axes, image: np.ndarray, smooth: bool) -> None:
    """A picture without ticks or frame."""
    axis.imshow(image, interpolation="lanczos" if smooth else "auto")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def class_legend(figure: Figure, palette: Palette, *masks: np.ndarray) -> None:
    """Colours and names of the classes that can be seen in the masks, the largest first, below the figure."""
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    least = LEGEND_SHARE * counts.sum()
    present = [i for i in np.argsort(-counts[: palette.num_classes], kind="stable") if counts[i] > least]
    handles = [
        Patch(facecolor=np.array(palette.colors[i]) / 255, edgecolor=FAINT, linewidth=0.5, label=palette.names[i])
        for i in present
    ]
    if counts[IGNORE]:
        handles.append(Patch(facecolor="#ebebeb", edgecolor="#b0b0b0", hatch="////", linewidth=0.5, label="ignored"))
    figure.legend(
        handles=handles, loc="outside lower left", ncols=int(figure.get_figwidth() / 1.4), fontsize=10,
        handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip


def shortened(text: str, most: int = 38) -> str:
    """A file's name, drawable, with its middle left out where it is long."""
    text = drawable(text)
    return text if len(text) <= most else f"{text[: most - 14]} ... {text[-9:]}"


def drawable(name: str) -> str:
    """A file's name without line ends and without bytes that are no text."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Writes the figure whole or not at all."""
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a file name may hold letters that the font lacks
        figure.savefig(temporary)
    return Path(path)
