from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from semseg.palettes import Palette
from semseg.report.painting import paint, paint_errors
from semseg.report.style import STYLE, class_legend, drawable, save_figure, show_image

PANEL = 3.6  # inches


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
        save_figure(_prediction_figure(*sample, palette, *score), Path(folder) / f"pred_{number}.png")
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
            f"{drawable(name)}     accuracy {accuracy:.3f}     mean IoU {mean_iou:.3f} over the classes of this photo",
            x=0.008, ha="left", fontsize=12,
        )  # fmt: skip
        for axis, (title, image) in zip(figure.subplots(1, 4), panels.items(), strict=True):
            axis.set_title(title)
            show_image(axis, image, smooth=title == "Photo")
        class_legend(figure, palette, truth, prediction)
    return figure
