"""Every picture of a run. Takes arrays and plain values; the only room that imports matplotlib."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from semseg import IGNORE
from semseg.files import replacing
from semseg.palettes import Palette
from semseg.utils_func import give_color_to_seg_img

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
TRAIN, VAL, BEST, WRONG = "#7b8794", "#1d6fb8", "#d64545", (214, 48, 49)
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
PANEL = 3.6  # inches
LEGEND_SHARE = 3e-4  # of the pixels: 20 of 65,536 can just be seen
MOST_BARS = 32  # classes in the chart of shares
STRIPE = 6  # pixels of a 256-pixel image: width of the hatching over ignored areas


def get_acc(history: Sequence[dict[str, float]], path: str | Path, best_epoch: int | None = None) -> Path:
    """Draws the course of training: loss, pixel accuracy, mean IoU and learning rate over the epochs.

    Args:
        history: Rows as `train_model` returns them.
        path: Where the PNG goes.
        best_epoch: The epoch to mark, counted from 1; None for the one with the highest `val_mean_iou`.

    Returns:
        The path.
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
        axes[0, 0].legend(loc="upper right")
        return _save(figure, path)


def _curves(axis: Axes, epochs: list[float], history: Sequence[dict[str, float]], name: str) -> None:
    style = {"marker": "o", "markersize": 4, "linewidth": 2}
    if f"val_{name}" not in history[0]:
        axis.plot(epochs, [row[name] for row in history], color=INK, **style)
        return
    axis.plot(epochs, [row[name] for row in history], color=TRAIN, label="training (augmented)", **style)
    axis.plot(epochs, [row[f"val_{name}"] for row in history], color=VAL, label="validation", **style)


def _mark_best(axis: Axes, epoch: int, value: float) -> None:
    axis.plot([epoch], [value], "o", markersize=10, markerfacecolor="none", markeredgecolor=BEST, markeredgewidth=1.6)
    axis.text(
        0.985, 0.04, f"best: {value:.3f} in epoch {epoch}", transform=axis.transAxes, color=BEST, ha="right",
        fontweight="bold", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
    )  # fmt: skip


def show_predictions(
    samples: Iterable[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    palette: Palette,
    folder: str | Path,
    scores: Iterable[tuple[float, float]],
) -> list[Path]:
    """Draws photo, truth, prediction and errors of each sample to `pred_1.png`, `pred_2.png`, ...

    Args:
        samples: Name, photo uint8 RGB `(H, W, 3)`, true ids and predicted ids `(H, W)`. Ignored pixels are striped.
        palette: Names and colours of the classes.
        folder: Where the PNG files go.
        scores: Pixel accuracy and mean IoU of each sample, 0 to 1.

    Returns:
        The paths.
    """
    return [
        _save(_prediction_figure(*sample, palette, *score), Path(folder) / f"pred_{number}.png")
        for number, (sample, score) in enumerate(zip(samples, scores, strict=True), start=1)
    ]


def _prediction_figure(
    name: str,
    photo: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    palette: Palette,
    accuracy: float,
    mean_iou: float,
) -> Figure:
    panels = {
        "Photo": photo,
        "Truth": paint(truth, palette),
        "Prediction": paint(prediction, palette),
        "Errors in red": paint_errors(photo, truth, prediction),
    }
    aspect = photo.shape[0] / photo.shape[1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * PANEL + 0.4, PANEL * aspect + 1.35), layout="constrained")
        figure.suptitle(
            f"{_drawable(name)}     accuracy {accuracy:.3f}     mean IoU {mean_iou:.3f} over the classes of this photo",
            x=0.008, ha="left", fontsize=12,
        )  # fmt: skip
        for axis, (title, image) in zip(figure.subplots(1, 4), panels.items(), strict=True):
            axis.set_title(title)
            _show_image(axis, image, smooth=title == "Photo")
        _class_legend(figure, palette, truth, prediction)
    return figure


def paint(ids: np.ndarray, palette: Palette) -> np.ndarray:
    """Class ids in their colours, ignored pixels in grey stripes: uint8 RGB `(H, W, 3)`."""
    image = give_color_to_seg_img(ids, palette)
    ignored = ids == IGNORE
    image[ignored] = _stripes(ids.shape)[ignored]
    return image


def paint_errors(photo: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The photo, pale and grey, with wrong pixels in red and ignored ones striped: uint8 RGB `(H, W, 3)`."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    image = np.repeat((110 + grey * (145 / 255)).astype(np.uint8)[..., None], 3, axis=2)
    ignored = truth == IGNORE
    wrong = (truth != prediction) & ~ignored
    image[ignored] = _stripes(truth.shape)[ignored]
    image[wrong] = (0.25 * image[wrong] + 0.75 * np.array(WRONG)).astype(np.uint8)
    return image


def _stripes(shape: tuple[int, int]) -> np.ndarray:
    width = max(1, round(STRIPE * max(shape) / 256))
    rows, columns = np.indices(shape)
    dark = ((rows + columns) // width) % 2 == 1
    return np.where(dark[..., None], np.uint8(205), np.uint8(235)).repeat(3, axis=2)


def _show_image(axis: Axes, image: np.ndarray, smooth: bool) -> None:
    axis.imshow(image, interpolation="lanczos" if smooth else "auto")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _class_legend(figure: Figure, palette: Palette, *masks: np.ndarray) -> None:
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


def save_batch(photos: np.ndarray, masks: np.ndarray, palette: Palette, path: str | Path, shown: int = 8) -> Path:
    """Draws what the network sees: augmented photos, and below each the same with its mask over it.

    Args:
        photos: uint8 RGB `(N, H, W, 3)`.
        masks: uint8 ids `(N, H, W)`.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        shown: At most this many of the batch.

    Returns:
        The path.
    """
    photos, masks = photos[:shown], masks[:shown]
    columns = min(4, len(photos))
    rows = 2 * -(-len(photos) // columns)
    height, width = masks.shape[1:]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(8, columns * 2.7), rows * 2.7 * height / width + 1.2), layout="constrained")
        title = f"What the network sees in its first step: {width}x{height} pixels, augmented"
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for i, (photo, mask) in enumerate(zip(photos, masks, strict=True)):
            row, column = 2 * (i // columns), i % columns
            _show_image(axes[row, column], photo, smooth=True)
            _show_image(axes[row + 1, column], overlay(photo, mask, palette), smooth=False)
        _class_legend(figure, palette, masks)
        return _save(figure, path)


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
    classes = min(palette.num_classes, MOST_BARS)
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
            axes[row, column].set_title(_shortened(title), fontsize=9, fontweight="normal")
            _show_image(axes[row, column], photo, smooth=True)
            _show_image(axes[row + 1, column], overlay(photo, ids, palette), smooth=False)
        _share_bars(lower.subplots(), palette, pixels, classes)
        return _save(figure, path)


def _shortened(text: str, most: int = 38) -> str:
    text = _drawable(text)
    return text if len(text) <= most else f"{text[: most - 14]} ... {text[-9:]}"


def _drawable(name: str) -> str:
    """A file's name without line ends and without bytes that are no text."""
    return " ".join(name.encode("utf-8", "replace").decode().split())


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


def overlay(photo: np.ndarray, mask: np.ndarray, palette: Palette, opacity: float = 0.6) -> np.ndarray:
    """The mask's colours over the photo, ignored pixels striped: uint8 RGB `(H, W, 3)`."""
    return cv2.addWeighted(photo, 1 - opacity, paint(mask, palette), opacity, 0)


def save_confusion_matrix(matrix: np.ndarray, names: Sequence[str], path: str | Path) -> Path:
    """Draws a confusion matrix with each row as shares of its true class.

    Args:
        matrix: int64 `(K, K)`, rows truth, columns prediction.
        names: K class names.
        path: Where the PNG goes.

    Returns:
        The path.
    """
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    k = len(names)
    side = max(5.0, 2.4 + 0.5 * k)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side + 0.8, side), layout="constrained")
        axis = figure.subplots()
        axis.set_title("Confusion matrix: of each true class, % predicted as ...")
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#f4f4f4")
        axis.imshow(np.ma.masked_invalid(shares), cmap=colors, vmin=0, vmax=1)
        axis.set_xticks(range(k), names, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(k), [f"{name}  {share:.1%}" for name, share in zip(names, _shares(totals), strict=True)])
        axis.tick_params(length=0, labelcolor=INK)
        axis.set_xlabel("prediction")
        axis.set_ylabel("truth, with its share of the pixels")
        axis.spines[:].set_visible(False)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                axis.text(
                    column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9,
                    color="white" if share > 0.55 else INK, in_layout=False,
                )  # fmt: skip
        return _save(figure, path)


def _shares(totals: np.ndarray) -> list[float]:
    return (totals[:, 0] / max(1, totals.sum())).tolist()


def _save(figure: Figure, path: str | Path) -> Path:
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a file name may hold letters that the font lacks
        figure.savefig(temporary)
    return Path(path)
