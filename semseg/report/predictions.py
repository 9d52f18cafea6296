"""Photos with truth and prediction, one by one or on a page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semseg.labels.legend import FAINT, INK, drawable, shorten
from semseg.labels.painting import paint, paint_errors
from semseg.labels.palettes import Palette
from semseg.report.style import STYLE, class_legend, save_figure, show_image
from semseg.runs import names

PANEL = 3.6  # inches, the side of a panel
PAGE = 22.0  # inches, the width of a page: one with many columns gets smaller panels
LINE, GAP = 0.3, 0.1  # inches: a line of text above a panel, the space between panels


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
        _save_prediction(*sample, palette, score, Path(folder) / names.PREDICTION.format(number=number))
        for number, (sample, score) in enumerate(zip(samples, scores, strict=True), start=1)
    ]


def _save_prediction(
    name: str,
    photo: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    palette: Palette,
    scores: tuple[float, float],
    path: Path,
) -> Path:
    errors = paint_errors(photo, truth, prediction)
    panels = {"Photo": photo, "Truth": truth, "Prediction": prediction, "Errors in red": errors}
    title = f"{name}     accuracy {scores[0]:.3f}     mean IoU {scores[1]:.3f} over the classes of this photo"
    return save_panels(panels, palette, path, title=title)


def save_panels(panels: Mapping[str, np.ndarray], palette: Palette, path: str | Path, *, title: str = "") -> Path:
    """Draws pictures of one size side by side, and below them the classes that can be seen.

    Args:
        panels: By what is written above them: pictures, uint8 RGB `(H, W, 3)`; class ids, integer `(H, W)`, drawn in
            their colours, ignored pixels striped; or shares, float `(H, W)`, from 0 (dark) to 1 (light). The one called
            "Photo" is enlarged smoothly.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        title: Of them all.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> panels = {"Photo": np.full((48, 64, 3), 128, np.uint8), "Prediction": np.zeros((48, 64), np.uint8)}
        >>> save_panels(panels, Palette.numbered(2), Path(tempfile.mkdtemp()) / "panels.png").name
        'panels.png'
    """
    height, width = next(iter(panels.values())).shape[:2]
    ids = [panel.astype(np.uint8) for panel in panels.values() if panel.ndim == 2 and panel.dtype.kind in "iu"]
    with matplotlib.rc_context(STYLE):
        size = len(panels) * PANEL + 0.4, PANEL * height / width + 0.6 + 0.3 * bool(title) + 0.6 * bool(ids)
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.1)
        if title:
            figure.suptitle(drawable(title), x=0.008, ha="left", fontsize=12)
        for axis, (name, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            axis.set_title(name)
            show_image(axis, _as_picture(panel, palette), smooth=name == "Photo")
        if ids:
            class_legend(figure, palette, *ids)
        return save_figure(figure, path)


def _as_picture(panel: np.ndarray, palette: Palette) -> np.ndarray:
    if panel.ndim == 3:
        return panel
    if panel.dtype.kind in "iu":
        return paint(panel, palette)
    return (255 * matplotlib.colormaps["viridis"](panel)[..., :3]).astype(np.uint8)


def save_ranked(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    palette: Palette,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draws the worst or the best of a split on one page: photo, truth, prediction and errors, a row per sample.

    Args:
        samples: Caption (name and scores), photo uint8 RGB `(H, W, 3)`, true ids and predicted ids `(H, W)`.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        title: What the page shows.

    Returns:
        The path.
    """
    headings = ("Photo", "Truth", "Prediction", "Errors in red")
    return _save_rows([(*sample, sample[-1]) for sample in samples], headings, palette, path, title)


def save_doubtful(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    palette: Palette,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draws labels that are in doubt on one page: photo, label, prediction and the doubtful pixels, a row per sample.

    Args:
        samples: Caption, photo uint8 RGB `(H, W, 3)`, labelled ids, predicted ids, and the label with every doubtful
            pixel changed, each `(H, W)`.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        title: What the page shows.

    Returns:
        The path.
    """
    return _save_rows(samples, ("Photo", "Label", "Prediction", "Doubtful in red"), palette, path, title)


def _save_rows(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    headings: Sequence[str],
    palette: Palette,
    path: str | Path,
    title: str,
) -> Path:
    """A row for each sample: photo, two masks, and where a third one differs from the first."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _page(title, headings, [photo.shape[:2] for _, photo, *_ in samples])
        for row, (caption, photo, truth, prediction, other) in zip(axes, samples, strict=True):
            row[0].set_title(shorten(caption, _letters(row[0], 4, 0.09)), fontsize=10, fontweight="normal", pad=4)
            show_image(row[0], photo, smooth=True)
            images = paint(truth, palette), paint(prediction, palette), paint_errors(photo, truth, other)
            for axis, image in zip(row[1:], images, strict=True):
                show_image(axis, image, smooth=False)
        class_legend(figure, palette, *(mask for sample in samples for mask in sample[2:4]))
        return save_figure(figure, path)


def save_suggestions(
    samples: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    palette: Palette,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draws photos to label next on one page, two a row: photo, pre-label and uncertainty of each.

    Args:
        samples: Caption, photo uint8 RGB `(H, W, 3)`, pre-label ids `(H, W)`, and uncertainty float `(H, W)`, at
            least 0.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        title: What the page shows.

    Returns:
        The path.
    """
    beside = 2 if len(samples) > 1 else 1
    rows = [samples[start : start + beside] for start in range(0, len(samples), beside)]
    brightest = max(max(float(uncertainty.max()) for *_, uncertainty in samples), 1e-9)
    headings = ("Photo", "Pre-label", "Uncertain in yellow") * beside
    with matplotlib.rc_context(STYLE):
        figure, axes = _page(title, headings, [row[0][1].shape[:2] for row in rows])
        for of_row, row in zip(axes, rows, strict=True):
            for axis in of_row[3 * len(row) :]:
                axis.remove()
            for place, (caption, photo, ids, uncertainty) in enumerate(row):
                first, *others = of_row[3 * place : 3 * place + 3]
                first.set_title(shorten(caption, _letters(first, 3, 0.09)), fontsize=9, fontweight="normal", pad=4)
                show_image(first, photo, smooth=True)
                images = paint(ids, palette), _as_picture(uncertainty / brightest, palette)
                for axis, image in zip(others, images, strict=True):
                    show_image(axis, image, smooth=False)
        class_legend(figure, palette, *(sample[2] for sample in samples))
        return save_figure(figure, path)


def save_side_by_side(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, Mapping[str, np.ndarray]]],
    palette: Palette,
    path: str | Path,
    *,
    scores: Sequence[Mapping[str, float]],
    title: str,
) -> Path:
    """Draws the same photos as several networks see them, a row per photo, the truth in the second column.

    Args:
        rows: Caption, photo uint8 RGB `(H, W, 3)`, true ids `(H, W)`, and by network the predicted ids `(H, W)`.
        palette: Names and colours of the classes.
        path: Where the PNG goes.
        scores: For each row by network the mean IoU of this photo, 0 to 1, or NaN.
        title: What the page shows.

    Returns:
        The path.
    """
    networks = list(rows[0][3])
    with matplotlib.rc_context(STYLE):
        figure, axes = _page(title, ("Photo", "Truth", *networks), [photo.shape[:2] for _, photo, _, _ in rows])
        for row, (caption, photo, truth, predictions), found in zip(axes, rows, scores, strict=True):
            row[0].set_title(shorten(caption, _letters(row[0], 2, 0.08)), fontsize=9, fontweight="normal", pad=4)
            show_image(row[0], photo, smooth=True)
            show_image(row[1], paint(truth, palette), smooth=False)
            known = [found[network] for network in networks if np.isfinite(found[network])]
            for axis, network in zip(row[2:], networks, strict=True):
                show_image(axis, paint(predictions[network], palette), smooth=False)
                _score_title(axis, found[network], known and min(known) < max(known) == found[network])
        class_legend(figure, palette, *(mask for _, _, truth, by in rows for mask in (truth, *by.values())))
        return save_figure(figure, path)


def _score_title(axis: Axes, score: float, best: bool) -> None:
    text = "no score" if np.isnan(score) else f"{score:.3f}" + (" best" if best else "")
    axis.set_title(text, fontsize=9, fontweight="bold" if best else "normal", color=INK if best else FAINT, pad=4)


def _page(title: str, headings: Sequence[str], shapes: Sequence[tuple[int, int]]) -> tuple[Figure, np.ndarray]:
    """A figure with a row of panels per shape, each as high as its photo: the figure, and the axes as an array."""
    widest = min(PANEL, PAGE / len(headings))
    heights = [min(widest, widest * height / width) for height, width in shapes]
    width = max(height * shape[1] / shape[0] for height, shape in zip(heights, shapes, strict=True))
    size = len(headings) * (width + GAP) - GAP, sum(heights) + LINE * len(shapes)
    figure = Figure(figsize=size)
    axes = np.empty((len(shapes), len(headings)), object)
    bottom = size[1]
    for row, height in enumerate(heights):
        bottom -= height + LINE
        for column in range(len(headings)):
            box = column * (width + GAP) / size[0], bottom / size[1], width / size[0], height / size[1]
            axes[row, column] = figure.add_axes(box, anchor="W")
    for axis, heading in zip(axes[0], headings, strict=True):
        text = shorten(heading, _letters(axis, 1))
        figure.text(axis.get_position(original=True).x0, 1 + 0.02 / size[1], text, fontsize=12, fontweight="bold")
    lines = wrap(shorten(title, 200), max(24, int(size[0] / 0.135)))
    figure.text(0, 1 + (LINE + 0.1) / size[1], "\n".join(lines), fontsize=14, fontweight="bold")
    return figure, axes


def _letters(axis: Axes, panels: int, letter_width: float = 0.12) -> int:
    """How many letters, so many inches wide, fit above so many panels."""
    return max(14, int(axis.get_position(original=True).width * axis.figure.get_figwidth() * panels / letter_width))
