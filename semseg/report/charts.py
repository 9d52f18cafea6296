"""Line charts as SVG inside a page: their colours are the page's own, in light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 460, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 30  # of the plot inside
MAX_MARKED_POINTS = 25  # points up to which each is marked


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: Read out with each of its points.
        values: One per epoch; those that are not finite leave a gap.
        style: CSS class: `"a"`, `"b"`, ... take the page's colours of series.
    """

    name: str
    values: Sequence[float]
    style: str


def line_chart(lines: Sequence[Line], title: str, best: int | None = None) -> Markup:
    """Draws values over epochs, from 0 up.

    Args:
        lines: At least one, of any lengths.
        title: For those who do not see it.
        best: The epoch to mark, from 1.

    Returns:
        An `<svg>` element.

    Example:
        >>> chart = line_chart([Line("loss", [1.0, 0.5], "a")], "Loss")
        >>> chart.count("<circle")
        2
    """
    epochs = max(len(line.values) for line in lines)
    ticks = _round_ticks(max((value for line in lines for value in line.values if math.isfinite(value)), default=1.0))
    scale = _Scale(epochs, ticks[-1])
    parts = [_grid(scale, ticks, epochs)]
    if best is not None:
        parts.append(Markup('<line class="best" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            scale.x(best), TOP, HEIGHT - BOTTOM))  # fmt: skip
    parts += [_curve(scale, line) for line in lines]
    told = "; ".join(f"{line.name}: {_number(line.values[-1])} in the last epoch" for line in lines)
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        WIDTH, HEIGHT, f"{title} over {epochs} epochs. {told}"
    )
    return head + Markup("").join(parts) + Markup("</svg>")


@dataclass(frozen=True)
class _Scale:
    epochs: int
    top: float

    def x(self, epoch: float) -> str:
        share = (epoch - 1) / (self.epochs - 1) if self.epochs > 1 else 0.5
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def y(self, value: float) -> str:
        return f"{TOP + (1 - value / self.top) * (HEIGHT - TOP - BOTTOM):.1f}"


def _grid(scale: _Scale, ticks: Sequence[float], epochs: int) -> Markup:
    parts = []
    for tick in ticks:
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
            LEFT, WIDTH - RIGHT, y=scale.y(tick)))  # fmt: skip
        parts.append(Markup('<text x="{}" y="{}" dy=".35em" text-anchor="end">{}</text>').format(
            LEFT - 8, scale.y(tick), _number(tick)))  # fmt: skip
    step = max(1, round(_round_step((epochs - 1) / 6)))
    for epoch in [1, *(i for i in range(step, epochs + 1, step) if i - 1 > step / 2)]:
        parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            scale.x(epoch), HEIGHT - BOTTOM + 20, f"epoch {epoch}" if epoch == 1 else epoch))  # fmt: skip
    return Markup("").join(parts)


def _curve(scale: _Scale, line: Line) -> Markup:
    points = [(i, value) for i, value in enumerate(line.values, start=1) if math.isfinite(value)]
    path, previous = "", None
    for i, value in points:
        path += f"{'L' if previous == i - 1 else 'M'}{scale.x(i)} {scale.y(value)}"
        previous = i
    marks = Markup("").join(
        Markup('<circle cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            scale.x(i), scale.y(value), 3.2 if len(line.values) <= MAX_MARKED_POINTS else 1.2,
            f"{line.name}, epoch {i}: {_number(value)}",
        )
        for i, value in points
    )  # fmt: skip
    return Markup('<g class="line {}"><path d="{}"/>{}</g>').format(line.style, path, marks)


def _round_ticks(top: float) -> list[float]:
    """Round numbers from 0 to at least `top`, four to six of them."""
    step = _round_step(top / 5 if top > 0 else 0.25)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)] if top > 0 else [0, step]


def _round_step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(times * power for times in (1, 2, 5, 10) if times * power >= 0.999 * least)


def _number(value: float) -> str:
    return f"{value:.3g}"
