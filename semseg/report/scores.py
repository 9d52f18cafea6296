from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from semseg.report.style import INK, STYLE, save_figure


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
        return save_figure(figure, path)


def _shares(totals: np.ndarray) -> list[float]:
    return (totals[:, 0] / max(1, totals.sum())).tolist()
