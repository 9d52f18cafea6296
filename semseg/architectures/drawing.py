"""The drawing of a network: its feature maps as boxes, in a U where it comes back up, made with Pillow alone."""

import importlib.util
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import keras
from PIL import Image, ImageColor, ImageDraw, ImageFont

from semseg.architectures.graph import Architecture, FeatureMap, Link, read_architecture
from semseg.files import replacing

_SHADES = {
    "conv": ("#3f72af", "#2a9db0", "#27496d", "#7aa5d8"),
    "dilated": ("#5b54c9", "#8a7fe0", "#3a2f8f"),
    "point": ("#8e4fa8", "#b57cc9", "#c2588f"),
    "down": ("#d2603a", "#e39a4b", "#a8452f", "#c78a86"),
    "up": ("#3c9a6b", "#7cb860", "#2f7561"),
    "skip": ("#7d8899", "#a9a186", "#5d6b80", "#99a9bd", "#8c6f5a", "#6f8f86", "#b09ab5", "#4a4a55"),
    "shortcut": ("#b8912f", "#8f7a4a", "#d1b45c"),
    "other": ("#59616d", "#8b6f5c", "#a3a3a3"),
}
_FACES = {"input": "#e4e6ea", "down": "#c4d8ef", "bottom": "#a9c1e6", "up": "#c9e6d5", "output": "#dccfe8"}
_INK, _SOFT, _SCALE, _MARGIN = "#1f2933", "#66727f", 3, 56

_Points = list[tuple[float, float]]


class _Canvas:
    """A white picture that is drawn three times as large and then reduced; all lengths are final pixels."""

    def __init__(self, width: float, height: float):
        self.size = math.ceil(width), math.ceil(height)
        self.image = Image.new("RGB", (self.size[0] * _SCALE, self.size[1] * _SCALE), "white")
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: _Points, color: str, width: float = 1.0) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, color, round(width * _SCALE), joint="curve")

    def polygon(self, points: _Points, color: str, outline: str = "") -> None:
        self.draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], color)
        if outline:
            self.line([*points, points[0]], outline)

    def arrow(self, points: _Points, color: str, width: float = 3.0) -> None:
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        head = min(5 + 2 * width, length)
        bx, by, half = x1 - head * dx, y1 - head * dy, 0.55 * head
        self.line([*points[:-1], (bx + dx, by + dy)], color, width)
        self.polygon([(x1, y1), (bx - half * dy, by + half * dx), (bx + half * dy, by - half * dx)], color)

    def cross(self, x: float, y: float, arm: float, color: str, width: float) -> None:
        for sign in (1, -1):
            self.line([(x - arm, y - sign * arm), (x + arm, y + sign * arm)], color, width)

    def gate(self, x: float, y: float, color: str) -> None:
        self.draw.ellipse([v * _SCALE for v in (x - 9, y - 9, x + 9, y + 9)], "white", color, 2 * _SCALE)
        self.cross(x, y, 3.5, color, 2)

    def text(self, x: float, y: float, text: str, size: float, color: str = _INK, anchor: str = "m") -> None:
        """Writes one line around height `y`; `x` is its left end, middle or right end ("l", "m", "r")."""
        x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor] * _width(text, size)
        for piece, width in _pieces(text, size):
            if piece == "x":
                self.cross(x + width / 2, y, 0.19 * size, color, 0.08 * size)
            else:
                self.draw.text((x * _SCALE, y * _SCALE), piece, color, _font(size), "lm")
            x += width

    def save(self, path: Path) -> None:
        self.image.reduce(_SCALE).save(path, format="PNG")


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size * _SCALE)


def _pieces(text: str, size: float) -> list[tuple[str, float]]:
    """The text with the widths of its parts; an "x" between numbers is one, as Pillow's font has no times sign."""
    plain = re.sub("[^ -~\u00b7\u2026]", "?", text)
    pieces = re.split("(?<=[0-9HW?])(x)(?=[0-9HW?])", plain)
    return [(piece, 0.66 * size if piece == "x" else _font(size).getlength(piece) / _SCALE) for piece in pieces]


def _width(text: str, size: float) -> float:
    return sum(width for _, width in _pieces(text, size))


@dataclass
class _Box:
    """Where a map is drawn: column and row of the layout, then the middle of its front face and its extents."""

    column: int
    row: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def depth(self) -> tuple[float, float]:
        return 4 + 0.11 * self.height, 3 + 0.075 * self.height

    @property
    def top(self) -> float:
        return self.y - self.height / 2 - self.depth[1]

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2 + self.depth[0]


@dataclass
class _Layout:
    """The boxes by position in `maps` (those left out of long stages are missing), and the size of the picture.

    `below` is the space that shortcuts take under a row of boxes, `legend` the rows of labels.
    """

    arch: Architecture
    is_u: bool
    boxes: dict[int, _Box]
    colors: dict[str, str]
    below: int
    legend: list[list[str]]
    width: float = 1600.0
    height: float = 0.0

    @property
    def stages(self) -> list[list[int]]:
        """The stages of the network, without the maps that are left out."""
        return [[index for index in stage if index in self.boxes] for stage in self.arch.stages]


def _layout(arch: Architecture) -> _Layout:
    scales = [arch.maps[stage[0]].scale for stage in arch.stages]
    is_u = any(a and b and b < a for a, b in pairwise(scales))  # some stage is finer than the one before
    below = 9 * any(link.kind == "shortcut" for link in arch.links)
    layout = _Layout(arch, is_u, _grid(arch, is_u), _colors(arch), below, [[]])
    # Left and right of the boxes stand the words for the input and for the output, and their sizes.
    words = ((arch.maps[0], arch.maps[0].label), (arch.maps[-1], "Output"))
    left, right = (24 + max(_width(text, 16) for text in (_size_text(each, True), word)) for each, word in words)
    columns = _place_columns(layout, 1800 - 2 * _MARGIN - left - right)
    layout.width = max(layout.width, columns + left + right + 2 * _MARGIN)
    for box in layout.boxes.values():
        box.x += (layout.width - columns + left - right) / 2
    layout.legend = _legend_rows(layout.colors, layout.width - 2 * _MARGIN)
    layout.height = _place_rows(layout) + 34 * len(layout.legend) + 84
    return layout


def _legend_rows(labels: Iterable[str], room: float) -> list[list[str]]:
    """The labels in order, in rows no wider than `room`."""
    rows: list[list[str]] = [[]]
    for label in labels:
        if rows[-1] and _legend_width([*rows[-1], label]) > room:
            rows.append([])
        rows[-1].append(label)
    return rows


def _legend_width(labels: list[str]) -> float:
    return sum(_width(label, 16) + 84 for label in labels)


def _colors(arch: Architecture) -> dict[str, str]:
    """The legend: the label of every arrow, in order of occurrence, and its colour."""
    colors: dict[str, str] = {}
    used: Counter[str] = Counter()
    for each in (*arch.maps[1:], *arch.links):
        if each.label not in colors:
            shades = _SHADES[each.kind]
            colors[each.label] = shades[used[each.kind] % len(shades)]
            used[each.kind] += 1
    return colors


def _grid(arch: Architecture, is_u: bool) -> dict[int, _Box]:
    """A column and a row for every map; in a U a stage begins below (or above) the end of the one before."""
    rows = sorted({each.scale for each in arch.maps}, key=lambda scale: (scale is None, scale))
    most = 3 if is_u and len(arch.maps) <= 40 else 2  # maps shown at each end of a long stage
    boxes: dict[int, _Box] = {}
    column = -1
    for before, stage in zip([[], *arch.stages], arch.stages, strict=False):
        shown = stage if len(stage) <= 2 * most + 1 else [*stage[:most], *stage[-most:]]
        column += 0 if is_u and len(before) > 1 else 1
        for last, index in zip([stage[0], *shown], shown, strict=False):
            column += min(index - last, 2)  # an empty column where maps are left out
            row = rows.index(arch.maps[index].scale) if is_u else 0
            boxes[index] = _Box(column, row, *_extents(arch.maps[index], rows[0]))
    return boxes


def _extents(each: FeatureMap, finest: Fraction | None) -> tuple[float, float]:
    """Width and height of a map's box: it grows with the logarithm of the channels, and with the resolution."""
    width = max(10.0, 4 * math.log2(1 + (each.channels or 1)) ** 1.22)
    height = 20.0 if each.scale is None else max(20.0, 215 * float(finest / each.scale) ** 0.62)
    return width, height


def _place_columns(layout: _Layout, room: float) -> float:
    """Sets every `x`, the gaps as wide as `room` allows; returns the width of all columns."""
    count = 1 + max(box.column for box in layout.boxes.values())
    widest, before, after = [0.0] * count, [19.0] * count, [19.0] * count
    for box in layout.boxes.values():
        widest[box.column] = max(widest[box.column], box.width + box.depth[0])
    # Where the boxes do not fit, their widths shrink, at most to half; the picture gets wider if that is not enough.
    shrink = min(1.0, max(0.5, (room - 26 * (count - 1)) / sum(widest)))
    for index, box in layout.boxes.items():
        box.width = max(9.0, shrink * box.width)
        # Without a U the sizes stand below the boxes, and need room there.
        words = 0.0 if layout.is_u else _width(_size_text(layout.arch.maps[index]), 15) / 2 - 8
        before[box.column] = max(before[box.column], box.width / 2, words)
        after[box.column] = max(after[box.column], box.width / 2 + box.depth[0], words)
    gap = min(72.0, max(24.0, (room - sum(before) - sum(after)) / max(1, count - 1)))
    for box in layout.boxes.values():
        box.x = gap * box.column + sum(before[: box.column + 1]) + sum(after[: box.column])
    return gap * (count - 1) + sum(before) + sum(after)


def _place_rows(layout: _Layout) -> float:
    """Sets every `y`; returns the lowest point of the drawing."""
    top = 128.0
    for row in range(1 + max(box.row for box in layout.boxes.values())):
        boxes = [box for box in layout.boxes.values() if box.row == row]
        height, rise = max(box.height for box in boxes), max(box.depth[1] for box in boxes)
        for box in boxes:
            box.y = top + 22 + rise + height / 2
        top += 22 + rise + height + 48 + layout.below
    return top


def _size_text(each: FeatureMap, channels: bool = False) -> str:
    """Height and width, as "128x128" (or "H/2xW/2" where they are free), with the channels also "128x128x3"."""
    scale = each.scale or 1
    factor = f"/{scale}" if scale > 1 else f"*{1 / scale}" if scale < 1 else ""
    letters = "HW" if len(each.size) == 2 else "?" * len(each.size)
    axes = [str(length or letter + factor) for length, letter in zip(each.size, letters, strict=True)]
    return "x".join([*axes, str(each.channels or "?")] if channels else axes)


def _draw(arch: Architecture) -> _Canvas:
    layout = _layout(arch)
    canvas = _Canvas(layout.width, layout.height)
    _draw_links(canvas, layout)
    for index, face in _faces(arch).items():
        if index in layout.boxes:
            box, each = layout.boxes[index], arch.maps[index]
            _draw_box(canvas, box, face, each.parts)
            canvas.text(box.x + box.depth[0] / 2, box.top - 10, str(each.channels or "?"), 15)
    for before, after in pairwise(layout.boxes):
        color = layout.colors[arch.maps[after].label]
        _draw_step(canvas, layout.boxes[before], layout.boxes[after], color, after - before - 1)
    _draw_sizes(canvas, layout)
    _draw_words(canvas, layout)
    return canvas


def _faces(arch: Architecture) -> dict[int, str]:
    """The colour of every map: the way down, the turning point, the way up, input and output."""
    scales = [0, *(arch.maps[stage[0]].scale or math.inf for stage in arch.stages), math.inf]
    faces = {}
    # A stage is on the way up if it is finer than the one before; the bottom is coarser than both its neighbours.
    for stage, before, own, after in zip(arch.stages, scales, scales[1:], scales[2:], strict=False):
        faces |= dict.fromkeys(stage, _FACES["up" if own < before else "bottom" if after < own else "down"])
    return {**faces, len(arch.maps) - 1: _FACES["output"], 0: _FACES["input"]}


def _shade(color: str, toward: int, share: float) -> tuple[int, ...]:
    return tuple(round(c + (toward - c) * share) for c in ImageColor.getrgb(color))


def _draw_box(canvas: _Canvas, box: _Box, face: str, parts: tuple[int, ...]) -> None:
    """A box in oblique view; after a concatenation its left part has the colour of the encoder, whence it came."""
    (dx, dy), y0, y1 = box.depth, box.y - box.height / 2, box.bottom
    right = box.left + box.width
    # The channels that joined take their share of the width.
    cut = box.left + box.width * (parts[0] / sum(parts) if parts else 0)
    edge = _shade(face, 0, 0.42)
    for x0, x1, color in ((box.left, cut, _FACES["down"]), (cut, right, face)):
        if x1 > x0:
            canvas.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, edge)
            canvas.polygon([(x0, y0), (x1, y0), (x1 + dx, y0 - dy), (x0 + dx, y0 - dy)], _shade(color, 255, 0.5), edge)
    side = [(right, y0), (right + dx, y0 - dy), (right + dx, y1 - dy), (right, y1)]
    canvas.polygon(side, _shade(face, 0, 0.12), edge)


def _route(source: _Box, target: _Box, dx: float = 0.0, dy: float = 0.0) -> _Points:
    """From the right side of a box straight to one in its row, or round a corner to one in another row."""
    y, x = source.y + dy, target.x + dx
    if source.row == target.row:
        return [(source.right + 3, y), (target.left - 2, y)]
    return [(source.right + 3, y), (x, y), (x, target.top - 22 if target.row > source.row else target.bottom + 4)]


def _draw_step(canvas: _Canvas, before: _Box, after: _Box, color: str, left_out: int) -> None:
    """The arrow from one map to the next, or an ellipsis for the maps between them that are left out."""
    points = _route(before, after)
    if left_out:
        x = (before.right + 3 + after.left) / 2
        canvas.text(x, before.y - 10, "\u2026", 26, _SOFT)
        canvas.text(x, before.y + 14, f"{left_out} more", 13, _SOFT)
    elif before.column == after.column:
        start = before.bottom + 4 if before.row < after.row else before.top - 22
        canvas.arrow([(before.x, start), points[-1]], color)
    else:
        canvas.arrow(points, color)


def _draw_links(canvas: _Canvas, layout: _Layout) -> None:
    # A link may end in the part of a long stage that is left out.
    shown = [link for link in layout.arch.links if link.source in layout.boxes and link.target in layout.boxes]
    for number, link in enumerate(shown):
        lane = sum(_run_side_by_side(layout, other, link) for other in shown[:number])
        points = _link_route(layout, link, lane)
        color = layout.colors[link.label]
        canvas.arrow(points, color, 4.0 if link.kind == "skip" else 2.0)
        if "gate" in link.label and len(points) == 2:
            canvas.gate(points[-1][0] - 26, points[-1][1], color)


def _run_side_by_side(layout: _Layout, one: Link, other: Link) -> bool:
    """Whether two links, drawn in one lane, would lie on each other."""
    overlap = one.source < other.target and other.source < one.target
    return overlap and one.kind == other.kind and layout.boxes[one.source].row == layout.boxes[other.source].row


def _link_route(layout: _Layout, link: Link, lane: int) -> _Points:
    source, target = layout.boxes[link.source], layout.boxes[link.target]
    if source.row != target.row:
        return _route(source, target, 8, -source.height / 4)
    if link.kind == "skip" and layout.is_u:
        return _route(source, target, dy=-12 * lane)
    # Under the row: down from the source, below all boxes between, and up to the target.
    y = max(box.bottom for i, box in layout.boxes.items() if link.source <= i <= link.target) + 13 + 8 * lane
    x0, x1 = source.x + max(8, source.width / 4), target.x - max(8, target.width / 4)
    return [(x0, source.bottom), (x0, y), (x1, y), (x1, target.bottom + 2)]


def _draw_sizes(canvas: _Canvas, layout: _Layout) -> None:
    """The resolution of every stage: outside the arms of a U, else below; the input and output have theirs in words."""
    stages = layout.stages
    rows = [layout.boxes[stage[0]].row for stage in stages]
    rows = [rows[0], *rows, rows[-1]]
    for stage, before, row, after in zip(stages, rows, rows[1:], rows[2:], strict=False):
        first, last = layout.boxes[stage[0]], layout.boxes[stage[-1]]
        text = " to ".join(dict.fromkeys(_size_text(layout.arch.maps[i]) for i in (stage[0], stage[-1])))
        at_an_end = stage in (stages[0], stages[-1])
        if before < row < after:
            canvas.text(first.left - 14, first.y, text, 15, _SOFT, "r")
        elif before > row > after:
            canvas.text(last.right + 13, last.y + 20 * (len(stage) == 1), text, 15, _SOFT, "l")
        elif not at_an_end or (len(stage) > 1 and not layout.is_u):
            _draw_size_below(canvas, layout, stage, text)


def _draw_size_below(canvas: _Canvas, layout: _Layout, stage: list[int], text: str) -> None:
    boxes = [layout.boxes[index] for index in stage]
    lowest = max(box.bottom for box in boxes)
    canvas.text((boxes[0].x + boxes[-1].x) / 2, lowest + 22 + 2 * layout.below, text, 15, _SOFT)


def _draw_words(canvas: _Canvas, layout: _Layout) -> None:
    """Title, labels of the input and output, legend and notes."""
    arch, first, last = layout.arch, layout.boxes[0], layout.boxes[len(layout.arch.maps) - 1]
    shapes = [_size_text(arch.maps[i], True) for i in (0, -1)]
    facts = f"{arch.parameters:,} parameters \u00b7 input {shapes[0]} \u00b7 output {shapes[1]}"
    canvas.text(_MARGIN, 46, arch.name, 30, _INK, "l")
    canvas.text(_MARGIN, 80, facts, 17, _SOFT, "l")
    ends = ((first.left - 14, first.y, arch.maps[0].label, "r"), (last.right + 13, last.y, "Output", "l"))
    for (x, y, words, anchor), shape in zip(ends, shapes, strict=True):
        canvas.text(x, y - 10, words, 16, _INK, anchor)
        canvas.text(x, y + 11, shape, 16, _SOFT, anchor)
    y = layout.height - 34 * len(layout.legend) - 50
    for row in layout.legend:
        x = (layout.width - _legend_width(row) + 34) / 2
        for label in row:
            canvas.arrow([(x, y), (x + 38, y)], layout.colors[label])
            canvas.text(x + 48, y, label, 16, _INK, "l")
            x += _legend_width([label])
        y += 34
    note = "Height of a box: resolution; width: logarithm of its channels."
    note += f"  {arch.hidden} of {arch.operations} operations lie beside the main path." if arch.hidden else ""
    canvas.text(layout.width / 2, layout.height - 30, note, 13, _SOFT)


def get_model_arch(model: keras.Model, path: str | Path) -> list[Path]:
    """Draws the architecture of `model` as a picture, without any system package.

    The drawing is made from the model's own graph, whatever its depth and widths. Where graphviz is at hand (`dot` on
    the PATH and pydot), Keras' diagram of every layer goes to `<stem>_layers.png` beside it.

    Args:
        model: A functional model or a built Sequential, with any height and width, also (None, None).
        path: The PNG file to write; its folder is made where it is missing.

    Returns:
        The files written: the drawing, then Keras' diagram if there is one.

    Raises:
        ValueError: If the model has no graph to read: a subclassed model, or one that was not built.

    Example:
        >>> import keras, pathlib, tempfile
        >>> model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(8, 3), keras.layers.MaxPooling2D()])
        >>> get_model_arch(model, pathlib.Path(tempfile.mkdtemp()) / "arch.png")[0].name
        'arch.png'

    Reference:
        Ronneberger et al., U-Net (2015), https://arxiv.org/abs/1505.04597, figure 1.
    """
    path = Path(path)
    canvas = _draw(read_architecture(model))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        canvas.save(temporary)
    layers = path.with_name(f"{path.stem}_layers.png")
    return [path, layers] if _plot_layers(model, layers) else [path]


def _plot_layers(model: keras.Model, path: Path) -> bool:
    """Writes Keras' diagram of the layers to `path`; returns whether that could be done."""
    if shutil.which("dot") is None or importlib.util.find_spec("pydot") is None:
        return False
    try:
        with replacing(path) as temporary:
            keras.utils.plot_model(model, to_file=str(temporary), show_shapes=True)
            return temporary.exists()
    except (ImportError, FileNotFoundError):  # a `dot` that does not run; in a notebook Keras then only prints
        return False
