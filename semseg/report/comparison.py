"""Several networks in one picture: how they learned, and what their quality costs."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from semseg.labels.legend import shorten
from semseg.report.style import STYLE, any_letters, save_figure

COLORS = (  # lie 29 or more apart in CIE Lab for normal, red-blind and green-blind eyes
    "#329ffd", "#a55f14", "#077960", "#471287", "#f691b7", "#cdae16", "#1f2933", "#725691", "#413400",
)  # fmt: skip
MARKERS = "osD^vPX<>"
COSTS = {
    "parameters": "Parameters",
    "gflops": "GFLOPs per photo",
    "milliseconds": "Milliseconds per photo",
    "memory_mb": "Memory, MB",
}
LABEL_DISTANCES = (12, 20, 32, 48, 66, 90)  # pixels between a network's point and its name
LABEL_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
LOG_AXIS_RATIO = 3  # times the smallest cost: from here on a logarithmic axis
DECADE_TICKS_RATIO = 300  # times the smallest cost: from here on a tick only at powers of ten


class _LargeInUnits(EngFormatter):
    """`1.5M` and `20k`, but `0.001`, not `1m`."""

    ENG_PREFIXES = {power: unit for power, unit in EngFormatter.ENG_PREFIXES.items() if power >= 0}  # noqa: RUF012


def save_learning_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], path: str | Path) -> Path:
    """Draws how each network learned: the mean over its seeds, and a band from the lowest to the highest of them.

    Args:
        histories: By network, for each seed, rows as `train_model` returns them. Epochs that not every seed of a
            network reached are left out.
        path: Where the PNG goes.

    Returns:
        The path.
    """
    most = max(len(runs) for runs in histories.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(14, 9), layout="constrained")
        if most > 1:
            title = f"Lines: mean over up to {most} seeds. Bands: from the lowest to the highest seed."
            figure.suptitle(title, x=0.008, ha="left", fontsize=11)
        panels = (
            ("Validation mean IoU", "val_mean_iou", "epoch"),
            ("Validation mean IoU against time", "val_mean_iou", "minutes of training"),
            ("Validation loss", "val_loss", "epoch"),
            ("Training loss", "loss", "epoch"),
        )
        for axis, (title, name, against) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            axis.set(title=title, xlabel=against)
            axis.grid(True, axis="y")
            curves = [_mean_curve(runs, name, against) for runs in histories.values()]
            _draw_curves(axis, list(histories), curves, name.endswith("loss"))
            if against == "epoch":
                axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        return save_figure(figure, path)


def _mean_curve(
    runs: Sequence[Sequence[Mapping[str, float]]], name: str, against: str
) -> tuple[np.ndarray, np.ndarray]:
    """Where the points lie, `(E,)`, and the values of each seed there, `(S, E)`."""
    epochs = min(len(rows) for rows in runs)
    values = np.array([[row[name] for row in rows[:epochs]] for rows in runs], np.float64)
    if against == "epoch":
        return np.array([row["epoch"] for row in runs[0][:epochs]], np.float64), values
    seconds = np.array([[row["seconds"] for row in rows[:epochs]] for rows in runs], np.float64)
    return seconds.mean(axis=0).cumsum() / 60, values


def _draw_curves(
    axis: Axes, names: Sequence[str], curves: Sequence[tuple[np.ndarray, np.ndarray]], is_loss: bool
) -> None:
    ends, tops = {}, [1e-9]
    for number, (places, values) in enumerate(curves):
        color, means = COLORS[number % len(COLORS)], values.mean(axis=0)
        mark = MARKERS[number % len(MARKERS)] if len(places) < 20 else ""
        axis.plot(places, means, color=color, linewidth=1.8, marker=mark, markersize=5)
        axis.fill_between(places, values.min(axis=0), values.max(axis=0), color=color, alpha=0.13, linewidth=0)
        finite = np.flatnonzero(np.isfinite(means))  # a network whose loss is no number has no end there
        if len(finite):
            ends[number] = places[finite[-1]], means[finite[-1]]
            usual, top = np.quantile(means[finite], 0.9), values[:, finite].max()
            tops.append(1.1 * (min(top, 2 * usual) if is_loss else top))  # the first losses may be far off
    axis.set_ylim(0, max(tops))
    _label_ends(axis, names, ends)


def _label_ends(axis: Axes, names: Sequence[str], ends: Mapping[int, tuple[float, float]]) -> None:
    """Each network's name right of the axis at the height of its last point, moved so that none touch."""
    order = sorted(ends, key=lambda i: ends[i][1])
    heights = np.array([ends[i][1] for i in order]) / axis.get_ylim()[1]
    for height, i in zip(_spread_apart(heights.clip(0, 1), 0.052), order, strict=True):
        color = COLORS[i % len(COLORS)]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "alpha": 0.5, "relpos": (0, 0.5)}
        axis.annotate(
            shorten(names[i], 22), ends[i], (1.04, height), textcoords="axes fraction", color=color, fontsize=9.5,
            va="center", fontweight="bold", arrowprops=line,
        )  # fmt: skip


def _spread_apart(places: np.ndarray, least: float) -> np.ndarray:
    """Rising places from 0 to 1, moved a little so that neighbours lie `least` apart where there is room."""
    places = places.copy()
    for _ in range(200):  # each pair that is too close moves half of what is missing; neighbours then move on
        push = np.maximum(0, least - np.diff(places)) / 2
        places[:-1] -= push
        places[1:] += push
        places = places.clip(0, 1)
    return places


def save_quality_cost(points: Sequence[Mapping[str, object]], path: str | Path) -> Path:
    """Draws the mean IoU of each network against each of its costs: small dots are seeds, the large one their mean.

    Args:
        points: For each network `name`, `parameters`, `gflops`, `milliseconds`, `memory_mb` (None where unknown), and
            `miou`, a value per seed.
        path: Where the PNG goes.

    Returns:
        The path.
    """
    panels = _points_by_cost(points)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 9.5 if len(panels) > 2 else 5), layout="constrained")
        figure.suptitle(_cost_title(points), x=0.008, ha="left", fontweight="bold")
        grid = figure.subplots(-(-len(panels) // 2) or 1, min(2, len(panels)) or 1, squeeze=False, sharey=True)
        for axis in grid.flat[len(panels) :]:
            axis.remove()
        for axis, (cost, shown) in zip(grid.flat, panels.items(), strict=False):
            _cost_panel(axis, cost, shown)
        for axis in grid[:, 0]:
            axis.set_ylabel("mean IoU")
        with any_letters():
            figure.draw_without_rendering()  # fixes the layout, so that free places can be found
            for axis, (cost, shown) in zip(grid.flat, panels.items(), strict=False):
                _label_points(axis, cost, shown)
        return save_figure(figure, path)


def _points_by_cost(points: Sequence[Mapping[str, object]]) -> dict[str, list[tuple[int, Mapping[str, object]]]]:
    """For each cost that is known of any network: the networks with a score and this cost, and their numbers."""
    scored = [(i, point) for i, point in enumerate(points) if np.isfinite(point["miou"]).any()]
    found = {cost: [(i, point) for i, point in scored if np.isfinite(point.get(cost) or np.nan)] for cost in COSTS}
    return {cost: shown for cost, shown in found.items() if shown}


def _cost_title(points: Sequence[Mapping[str, object]]) -> str:
    title = "Mean IoU against cost; large: the mean, small: each seed"
    lost = ", ".join(str(point["name"]) for point in points if not np.isfinite(point["miou"]).any())
    return f"{title} (without a score: {lost})" if lost else title


def _cost_panel(axis: Axes, cost: str, shown: Sequence[tuple[int, Mapping[str, object]]]) -> None:
    axis.grid(True)
    axis.set_axisbelow(True)
    axis.margins(0.14, 0.1)
    axis.set_title(COSTS[cost])
    for i, point in shown:
        color = COLORS[i % len(COLORS)]
        scores = np.array(point["miou"], np.float64)
        if len(scores) > 1:
            axis.vlines(point[cost], np.nanmin(scores), np.nanmax(scores), color=color, linewidth=1, alpha=0.6)
            axis.scatter([point[cost]] * len(scores), scores, 14, alpha=0.6, linewidth=0, color=color)
        axis.scatter(
            point[cost], np.nanmean(scores), 90, color=color, marker=MARKERS[i % len(MARKERS)], edgecolor="white",
            linewidth=0.8, zorder=3,
        )  # fmt: skip
    values = [point[cost] for _, point in shown]
    if max(values) > LOG_AXIS_RATIO * min(values):
        axis.set_xscale("log")
        between_decades = max(values) < DECADE_TICKS_RATIO * min(values)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if between_decades else (1,)))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(_LargeInUnits(sep=""))


def _label_points(axis: Axes, cost: str, shown: Sequence[tuple[int, Mapping[str, object]]]) -> None:
    """Each network's name near its point, where it covers the fewest points and other names."""
    places, taken = [], []
    for _, point in shown:
        heights = [f(point["miou"]) for f in (np.nanmean, np.nanmin, np.nanmax)]
        place, low, high = axis.transData.transform([(point[cost], height) for height in heights])
        places.append(place)
        taken += [Bbox([place - 9, place + 9]), Bbox([low - 3, high + 3])]
    for place, (i, point) in zip(places, shown, strict=True):
        color, style = COLORS[i % len(COLORS)], {"fontsize": 9.5, "fontweight": "bold"}
        name = axis.text(0, 0, shorten(str(point["name"]), 22), **style)
        size = name.get_window_extent().size + 2
        name.remove()
        box = _free_box(place, size, taken, axis.get_window_extent())
        nearest = ((place - box.min) / size).clip(0, 1)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkB": 6, "relpos": nearest}
        far = np.hypot(*(box.min + nearest * size - place)) > 1.5 * LABEL_DISTANCES[0]
        axis.annotate(
            name.get_text(), (point[cost], np.nanmean(point["miou"])), (box.min + 1 - place) * 72 / axis.figure.dpi,
            textcoords="offset points", in_layout=False, zorder=4, color=color, va="baseline", **style,
            arrowprops=line if far else None,
        )  # fmt: skip
        taken.append(box)


def _free_box(place: np.ndarray, size: np.ndarray, taken: Sequence[Bbox], room: Bbox) -> Bbox:
    """The nearest box of this size around a place that lies in the room and on the fewest taken ones."""
    found = []
    for radius, side in product(LABEL_DISTANCES, LABEL_DIRECTIONS):
        corner = place + radius * np.array(side) / np.hypot(*side) + size * (np.array(side) - 1) / 2
        box = Bbox([corner, corner + size])
        inside = (box.min >= room.min).all() and (box.max <= room.max).all()
        found.append((box.count_overlaps(taken) + (0 if inside else 10), len(found), box))
    return min(found)[2]
