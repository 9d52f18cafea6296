"""The drawing of a network: its real graph is read into a few plain values, and those are drawn with Pillow alone.

The main path runs from the input to the output; where tensors merge it follows the one that comes from the coarsest
resolution (in a U-Net: the way up, not the skip connection), and among equals the longest. What else comes into a
merge is a link: a skip connection from an earlier stage, or a shortcut inside one.
"""

import importlib.util
import math
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from semseg.files import replacing

if TYPE_CHECKING:
    import keras

_BASES = {
    "InputLayer": "Input",
    "Conv": "Conv",
    "ConvTranspose": "Transposed conv",
    "DepthwiseConv": "Depthwise conv",
    "SeparableConv": "Separable conv",
    "MaxPooling": "Max pool",
    "MaxPool": "Max pool",
    "AveragePooling": "Average pool",
    "AveragePool": "Average pool",
    "GlobalAveragePooling": "Global average pool",
    "GlobalMaxPooling": "Global max pool",
    "UpSampling": "Upsampling",
    "BatchNormalization": "BN",
    "GroupNormalization": "GN",
    "LayerNormalization": "LN",
    "SpatialDropout": "Dropout",
}
_ACTIVATIONS = {
    "relu": "ReLU",
    "gelu": "GELU",
    "elu": "ELU",
    "selu": "SELU",
    "silu": "SiLU",
    "leaky_relu": "LeakyReLU",
    "leakyrelu": "LeakyReLU",
}


# ------------------------------------------------------------------------------------------------- reading the graph


@dataclass(frozen=True)
class FeatureMap:
    """One box of the drawing: a feature map on the main path, and the operation that made it.

    Attributes:
        channels: Number of channels (None when the model does not say).
        size: Height and width (any number of spatial axes; None where free; empty for a vector).
        scale: How many times coarser than the input (1, 2, 4, ...); None for what has no resolution, as a vector.
        label: The operation, with what follows it, as "Conv 3x3 + BN + ReLU".
        kind: Its family, which gives the colour: input, conv, point, dilated, down, up or other.
        parts: After a concatenation: the channels that joined and those that were there; else empty.
    """

    channels: int | None
    size: tuple[int | None, ...]
    scale: Fraction | None
    label: str
    kind: str
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Link:
    """A connection beside the main path, from map `source` to the merge in map `target` (positions in `maps`).

    `kind` is "skip" (from another stage) or "shortcut" (within one); `label` says what lies on it and how it merges.
    """

    source: int
    target: int
    kind: str
    label: str


@dataclass(frozen=True)
class Architecture:
    """All that is drawn of a model; `hidden` of its `operations` lie beside the main path."""

    name: str
    parameters: int
    maps: list[FeatureMap]
    links: list[Link]
    operations: int
    hidden: int
    outputs: int = 1

    @property
    def stages(self) -> list[list[int]]:
        """The positions of consecutive maps that have one resolution."""
        return [list(run) for _, run in groupby(range(len(self.maps)), key=lambda index: self.maps[index].scale)]


@dataclass
class _Op:
    """One operation of the graph. `depth` is the coarsest scale its values come from (see `_measure`)."""

    layer: Any
    inputs: list[int]
    channels: int | None
    size: tuple[int | None, ...]
    scale: Fraction | None = None
    depth: Fraction = Fraction(1)
    distance: int = 0

    @property
    def stem(self) -> str:
        """The layer's class name, of the nearest ancestor known here, without 1D, 2D or 3D."""
        stems = [re.sub("[123]D", "", kind.__name__) for kind in type(self.layer).__mro__]
        return next((stem for stem in stems if stem in _BASES), stems[0])


def read_architecture(model: "keras.Model") -> Architecture:
    """Reads the main path of a functional or built Sequential `model`, and what joins it, from its layers.

    Nested functional models are read as if their layers stood in `model` itself.

    Raises:
        ValueError: If the model has no graph to read: a subclassed model, or one that was not built.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.MaxPooling2D()])
        >>> [(m.label, m.size, m.channels) for m in read_architecture(model).maps]
        [('Input', (8, 8), 3), ('Conv 3x3', (6, 6), 4), ('Max pool 2x2', (3, 3), 4)]
    """
    graph = _graph(model)
    if graph is None:
        raise ValueError(
            f"get_model_arch: got {type(model).__name__} {getattr(model, 'name', '')!r}, which has no graph of layers; "
            "expected a functional model or a built Sequential. Make it with keras.Model(inputs, outputs), or give the "
            "Sequential a keras.Input as its first layer."
        )
    ops: list[_Op] = []
    ends = _collect(graph, {}, ops)
    channels_first = any(getattr(op.layer, "data_format", None) == "channels_first" for op in ops)
    for op in ops:
        _measure(op, ops, channels_first)
    path = _main_path(ops, max(ends, key=lambda end: ops[end].distance))
    maps, links = _fold(ops, path)
    return Architecture(model.name, model.count_params(), maps, links, len(ops), len(ops) - len(path), len(ends))


def _graph(model: Any) -> Any:
    model = getattr(model, "_functional", None) or model  # a Sequential keeps its functional twin there
    return model if hasattr(model, "_nodes_by_depth") else None


def _collect(graph: Any, known: dict[int, int], ops: list[_Op]) -> list[int]:
    """Appends the graph's operations to `ops`, inputs first; `known` maps id(tensor) to positions in `ops`."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if all(id(tensor) in known for tensor in node.output_tensors):
                continue  # the input of a nested model
            inputs = list(dict.fromkeys(known[id(tensor)] for tensor in node.input_tensors if id(tensor) in known))
            inner = _graph(node.operation)
            if inner is not None:
                outer = [known[id(tensor)] for tensor in node.input_tensors]
                ends = _collect(inner, dict(zip(map(id, inner.inputs), outer, strict=False)), ops)
            else:
                ops.append(_Op(node.operation, inputs, None, tuple(node.output_tensors[0].shape[1:])))
                ends = [len(ops) - 1] * len(node.output_tensors)
            known.update(zip(map(id, node.output_tensors), ends, strict=False))
    return [known[id(tensor)] for tensor in graph.outputs]


def _measure(op: _Op, ops: list[_Op], channels_first: bool) -> None:
    """Fills in the channels, size, scale, depth and distance of `op`, whose inputs have theirs."""
    if op.size:
        op.channels, op.size = (op.size[0], op.size[1:]) if channels_first else (op.size[-1], op.size[:-1])
    sources = [ops[index] for index in op.inputs]
    scales = [source.scale for source in sources if source.scale is not None]
    if not op.size or op.stem.startswith("Global"):
        op.scale = None
    elif scales:
        op.scale = min(scales) * _step(op, sources[0])
    elif not (sources and set(op.size) == {1}):  # an input, or a vector that is spread out again
        op.scale = _ratio(ops[0].size, op.size)
    pooled = op.scale is None and bool(scales)  # no rival of the path that keeps its resolution
    op.distance = 0 if pooled else 1 + max((source.distance for source in sources), default=0)
    deepest = max if op.stem == "Concatenate" else min  # a skip that is gated by the way up remains a skip
    op.depth = deepest((source.depth for source in sources), default=Fraction(1))
    if op.scale is not None:
        op.depth = max(op.depth, op.scale)


def _step(op: _Op, source: _Op) -> Fraction:
    """How many times coarser the output of `op` is than its input."""
    stride = getattr(op.layer, "strides", None) or getattr(op.layer, "pool_size", None)
    if op.stem == "ConvTranspose":
        return Fraction(1, _first(stride))
    if op.stem == "UpSampling":
        return Fraction(1, _first(op.layer.size))
    if stride is not None:
        return Fraction(_first(stride))
    if op.stem in ("Cropping", "ZeroPadding") or len(op.inputs) > 1:
        return Fraction(1)
    return _ratio(source.size, op.size)


def _first(value: Any) -> int:
    return value[0] if isinstance(value, Iterable) else value


def _ratio(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> Fraction:
    if len(before) != len(after) or not before[0] or not after[0]:
        return Fraction(1)
    coarser = Fraction(round(before[0] / after[0]) or 1)
    return coarser if before[0] >= after[0] else 1 / Fraction(round(after[0] / before[0]))


def _main_input(op: _Op, ops: list[_Op]) -> int:
    """The input of `op` on the main path; a merge other than a concatenation has the shape of that input."""
    alike = [i for i in op.inputs if (ops[i].channels, ops[i].size) == (op.channels, op.size)]
    spatial = [i for i in op.inputs if ops[i].scale is not None]
    return max(alike or spatial or op.inputs, key=lambda index: (ops[index].depth, ops[index].distance))


def _main_path(ops: list[_Op], end: int) -> list[int]:
    path = [end]
    while ops[path[-1]].inputs:
        path.append(_main_input(ops[path[-1]], ops))
    return path[::-1]


def _fold(ops: list[_Op], path: list[int]) -> tuple[list[FeatureMap], list[Link]]:
    """Folds the operations on the path into maps: what keeps the shape and the merges belong to the map before."""
    maps: list[FeatureMap] = []
    position: dict[int, int] = {}
    merges: dict[int, list[str]] = {}  # merging operation -> the names of what follows it at once
    names: list[str] = []  # where the name of the next operation without a map of its own goes
    tails: list[list[str]] = []
    for index in path:
        op = ops[index]
        if not maps or (len(op.inputs) == 1 and not _is_tail(op, ops[op.inputs[0]])):
            source = ops[_main_input(op, ops)] if op.inputs else op
            maps.append(FeatureMap(op.channels, op.size, op.scale, _label(op), _kind(op, source)))
            tails.append(names := [])
        elif len(op.inputs) > 1:
            parts = _parts(op, ops) or maps[-1].parts
            maps[-1] = replace(maps[-1], channels=op.channels, size=op.size, parts=parts)
            merges[index] = names = []
        else:
            if maps[-1].kind != "input" and op.stem != "ZeroPadding":
                maps[-1] = replace(maps[-1], size=op.size)
            names.append(_name(op))
        position[index] = len(maps) - 1
    links = [link for index, after in merges.items() for link in _links(ops, index, position, maps, tails, after)]
    maps = [replace(each, label=_join(each.label, *names)) for each, names in zip(maps, tails, strict=True)]
    return maps, links


def _join(*names: str) -> str:
    return " + ".join(name for name in names if name)


def _parts(op: _Op, ops: list[_Op]) -> tuple[int, ...]:
    main = ops[_main_input(op, ops)].channels
    joined = sum(ops[index].channels or 0 for index in op.inputs)
    return (joined - main, main) if op.stem == "Concatenate" and main and joined == op.channels else ()


def _is_tail(op: _Op, source: _Op) -> bool:
    """Whether `op` makes no new map: it keeps the shape (or pads, crops) and is no convolution, pooling or the like."""
    if op.stem in ("Cropping", "ZeroPadding"):
        return True
    same = (op.channels, len(op.size), op.scale) == (source.channels, len(source.size), source.scale)
    weighted = bool(getattr(op.layer, "weights", ())) and not op.stem.endswith(("Normalization", "PReLU"))
    return same and not weighted and not hasattr(op.layer, "pool_size")


def _name(op: _Op) -> str:
    """The operation without its numbers: "BN", "ReLU", "Dropout"; empty for padding, cropping and linear."""
    name = _BASES.get(op.stem, op.stem)
    if name == "Activation":
        name = getattr(op.layer.activation, "__name__", type(op.layer.activation).__name__)
    if name in ("Cropping", "ZeroPadding", "linear"):
        return ""
    return _ACTIVATIONS.get(name.lower(), name)


def _label(op: _Op) -> str:
    """The operation with its numbers and its own activation: "Conv 3x3, dilation 2 + ReLU"."""
    window = next((getattr(op.layer, n) for n in ("kernel_size", "pool_size", "size") if hasattr(op.layer, n)), None)
    text = _name(op) or op.stem
    if window is not None:
        window = (window,) * len(op.size) if isinstance(window, int) else window
        text += " " + "x".join(str(length) for length in window)
    stride, dilation = (_first(getattr(op.layer, n, None) or 1) for n in ("strides", "dilation_rate"))
    usual = _first(window) if op.stem == "ConvTranspose" or hasattr(op.layer, "pool_size") else 1
    if stride != usual:
        text += f", stride {stride}"
    if dilation != 1:
        text += f", dilation {dilation}"
    if getattr(op.layer, "interpolation", "nearest") != "nearest":
        text += f" ({op.layer.interpolation})"
    activation = getattr(getattr(op.layer, "activation", None), "__name__", "linear")
    return text if activation == "linear" else _join(text, _ACTIVATIONS.get(activation, activation))


def _kind(op: _Op, source: _Op) -> str:
    if not op.inputs:
        return "input"
    if op.scale != source.scale:
        return "up" if op.scale is not None and op.scale < (source.scale or math.inf) else "down"
    if not hasattr(op.layer, "kernel_size"):
        return "other"
    if _first(getattr(op.layer, "dilation_rate", 1)) > 1:
        return "dilated"
    return "point" if set(op.layer.kernel_size) == {1} else "conv"


def _links(
    ops: list[_Op],
    index: int,
    position: dict[int, int],
    maps: list[FeatureMap],
    tails: list[list[str]],
    after: list[str],
) -> list[Link]:
    """The links into the merge `index`, one per map they come from; a map that gates itself gets it as a tail."""
    target, merge, found = position[index], ops[index].stem.lower(), {}
    for start in ops[index].inputs:
        if start != _main_input(ops[index], ops):
            reached, aside = _trace(ops, start, position)
            sources = sorted({position[i] for i in reached})
            alike = [source for source in sources if maps[source].scale == maps[target].scale]
            for source in (alike or sources)[:1]:
                found.setdefault(source, []).append(aside)
    links = []
    for source, ways in found.items():
        if source == target:
            tails[target].append("gate" if merge == "multiply" else merge)
            continue
        changes = sum(a.scale != b.scale for a, b in pairwise(maps[source : target + 1]))
        kind = "skip" if changes > 1 else "shortcut"
        links.append(Link(source, target, kind, _link_label(ops, kind, ways, _join(merge, *after))))
    return links


def _trace(ops: list[_Op], start: int, position: dict[int, int]) -> tuple[list[int], list[int]]:
    """Walks back from `start` to the main path: the operations reached there, and those passed on the way."""
    reached, aside, queue = [], [], [start]
    while queue:
        index = queue.pop()
        if index in position:
            reached.append(index)
        elif index not in aside:
            aside.append(index)
            queue += ops[index].inputs
    return reached, sorted(aside)


def _way(ops: list[_Op], aside: list[int]) -> str:
    """What lies on a link, in words."""
    if any(ops[index].stem == "Multiply" for index in aside):
        return "attention gate"
    labels = list(dict.fromkeys(_label(ops[i]) for i in aside if not _is_tail(ops[i], ops[(ops[i].inputs or [i])[0]])))
    return ", ".join(label[0].lower() + label[1:] for label in labels) if len(labels) < 3 else f"{len(aside)} layers"


def _link_label(ops: list[_Op], kind: str, ways: list[list[int]], merge: str) -> str:
    if len(ways) > 1:
        return f"{len(ways)} {'skip connections' if kind == 'skip' else 'more branches'}: {merge}"
    way = _way(ops, ways[0])
    return f"{'Skip connection' if kind == 'skip' else 'Shortcut'}: " + (f"{way}, {merge}" if way else merge)


# ------------------------------------------------------------------------------------------------------- drawing it

_SHADES = {
    "conv": ("#3f72af", "#2a9db0", "#27496d", "#7aa5d8"),
    "dilated": ("#5b54c9", "#8a7fe0", "#3a2f8f"),
    "point": ("#8e4fa8", "#b57cc9", "#c2588f"),
    "down": ("#d2603a", "#e39a4b", "#a8452f", "#c78a86"),
    "up": ("#3c9a6b", "#7cb860", "#2f7561"),
    "skip": ("#7d8899", "#a9a186", "#5d6b80", "#99a9bd"),
    "shortcut": ("#b8912f", "#8f7a4a", "#d1b45c"),
    "other": ("#59616d", "#8b6f5c", "#a3a3a3"),
}
_FACES = {
    "input": "#e4e6ea",
    "down": "#c4d8ef",
    "bottom": "#a9c1e6",
    "up": "#c9e6d5",
    "copy": "#c4d8ef",
    "output": "#dccfe8",
}
_INK, _SOFT, _SCALE, _MARGIN = "#1f2933", "#66727f", 3, 56
_CROSS = re.compile(r"(?<=[0-9HWDL])x(?=[0-9HWDL])")


class _Canvas:
    """A white picture that is drawn three times as large and then reduced; all lengths are final pixels."""

    def __init__(self, width: float, height: float):
        self.size = math.ceil(width), math.ceil(height)
        self.image = Image.new("RGB", (self.size[0] * _SCALE, self.size[1] * _SCALE), "white")
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: list[tuple[float, float]], color: str, width: float = 1.0) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, color, round(width * _SCALE), joint="curve")

    def polygon(self, points: list[tuple[float, float]], color: str, outline: str = "") -> None:
        self.draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], color)
        if outline:
            self.line([*points, points[0]], outline)

    def arrow(self, points: list[tuple[float, float]], color: str, width: float = 3.0) -> None:
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        head = min(5 + 2 * width, length)
        bx, by, half = x1 - head * dx, y1 - head * dy, 0.55 * head
        self.line([*points[:-1], (bx + dx, by + dy)], color, width)
        self.polygon([(x1, y1), (bx - half * dy, by + half * dx), (bx + half * dy, by - half * dx)], color)

    def mark(self, x: float, y: float, sign: str, color: str) -> None:
        """A circle with a plus or a cross in it, where something is added or multiplied."""
        self.draw.ellipse([v * _SCALE for v in (x - 9, y - 9, x + 9, y + 9)], "white", color, round(2 * _SCALE))
        for dx, dy in ((1, 0), (0, 1)) if sign == "+" else ((0.7, 0.7), (0.7, -0.7)):
            self.line([(x - 5 * dx, y - 5 * dy), (x + 5 * dx, y + 5 * dy)], color, 2)

    def text(self, x: float, y: float, text: str, size: float = 14, color: str = _INK, anchor: str = "mm") -> None:
        """Writes one line; "x" between numbers becomes a multiplication sign, which Pillow's font lacks."""
        x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * _width(text, size)
        x, y = x * _SCALE, y * _SCALE
        font, arm = _font(size), 0.19 * size * _SCALE
        for index, piece in enumerate(_CROSS.split(_plain(text))):
            if index:
                middle, mid_y = x + 0.33 * size * _SCALE, y + (0 if anchor[1] == "m" else -0.34 * size * _SCALE)
                for sign in (1, -1):
                    ends = (middle - arm, mid_y - sign * arm, middle + arm, mid_y + sign * arm)
                    self.draw.line(ends, color, max(1, round(0.08 * size * _SCALE)))
                x += 0.66 * size * _SCALE
            self.draw.text((x, y), piece, color, font, "l" + anchor[1])
            x += font.getlength(piece)

    def save(self, path: Path) -> None:
        self.image.resize(self.size, Image.Resampling.LANCZOS).save(path, format="PNG", optimize=True)


@cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size * _SCALE)


def _plain(text: str) -> str:
    return "".join(c if " " <= c <= "~" or c in "\u00b7\u2026" else "?" for c in text)


def _width(text: str, size: float) -> float:
    pieces = _CROSS.split(_plain(text))
    return sum(_font(size).getlength(piece) for piece in pieces) / _SCALE + 0.66 * size * (len(pieces) - 1)


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


@dataclass
class _Layout:
    """The boxes by position in `maps` (those left out of long stages are missing), and the size of the picture."""

    boxes: dict[int, _Box]
    is_u: bool
    width: float
    height: float
    legend: list[list[tuple[str, str]]]


def _layout(arch: Architecture) -> _Layout:
    scales = [arch.maps[stage[0]].scale for stage in arch.stages]
    is_u = any(a is not None and b is not None and b < a for a, b in pairwise(scales))
    layout = _Layout(_grid(arch, is_u), is_u, 0.0, 0.0, [])
    words = [(arch.maps[0], arch.maps[0].label), (arch.maps[-1], "Output")]
    left, right = (max(_width(text, 16) for text in (_size_text(each, True), word)) + 24 for each, word in words)
    columns = _place_columns(arch, layout, 1800 - 2 * _MARGIN - left - right)
    layout.width = max(1600.0, columns + left + right + 2 * _MARGIN)
    shift = (layout.width - columns - left - right) / 2 + left
    for box in layout.boxes.values():
        box.x += shift
    bottom = _place_rows(arch, layout)
    layout.legend = _wrap(_entries(arch), layout.width - 2 * _MARGIN)
    layout.height = bottom + 34 * len(layout.legend) + 84
    return layout


def _grid(arch: Architecture, is_u: bool) -> dict[int, _Box]:
    """A column and a row for every map; in a U a stage begins below (or above) the end of the one before."""
    finest = min((m.scale for m in arch.maps if m.scale is not None), default=None)
    rows = sorted({m.scale for m in arch.maps}, key=lambda scale: (scale is None, scale))
    boxes: dict[int, _Box] = {}
    column = -1
    for number, stage in enumerate(arch.stages):
        most = 3 if is_u and len(arch.maps) <= 40 else 2
        shown = stage if len(stage) <= 2 * most + 1 else [*stage[:most], *stage[-most:]]
        column += 0 if is_u and number and len(arch.stages[number - 1]) > 1 else 1
        for last, index in zip([stage[0], *shown], shown, strict=False):
            column += min(index - last, 2)  # an empty column where maps are left out
            scale = arch.maps[index].scale
            height = max(20.0, 215 * float(finest / scale) ** 0.62) if scale is not None else 20.0
            width = max(10.0, 4 * math.log2(1 + (arch.maps[index].channels or 1)) ** 1.22)
            boxes[index] = _Box(column, rows.index(scale) if is_u else 0, width, height)
    return boxes


def _place_columns(arch: Architecture, layout: _Layout, room: float) -> float:
    """Sets every `x`, the gaps as wide as `room` allows; returns the width of all columns."""
    count = 1 + max(box.column for box in layout.boxes.values())
    widest = [0.0] * count
    for box in layout.boxes.values():
        widest[box.column] = max(widest[box.column], box.width + box.depth[0])
    shrink = min(1.0, max(0.5, (room - 26 * (count - 1)) / sum(widest)))
    for box in layout.boxes.values():
        box.width = max(9.0, shrink * box.width)
    before, after = [19.0] * count, [19.0] * count
    for index, box in layout.boxes.items():
        label = 0.0 if layout.is_u else _width(_size_text(arch.maps[index]), 15) / 2 - 8
        before[box.column] = max(before[box.column], box.width / 2, label)
        after[box.column] = max(after[box.column], box.width / 2 + box.depth[0], label)
    gap = min(72.0, max(24.0, (room - sum(before) - sum(after)) / max(1, count - 1)))
    starts = [gap * c + sum(before[: c + 1]) + sum(after[:c]) for c in range(count)]
    for box in layout.boxes.values():
        box.x = starts[box.column]
    return starts[-1] + after[-1]


def _place_rows(arch: Architecture, layout: _Layout) -> float:
    """Sets every `y`; returns the lowest point of the drawing."""
    top = 128.0
    for row in range(1 + max(box.row for box in layout.boxes.values())):
        boxes = [box for box in layout.boxes.values() if box.row == row]
        height, rise = max(box.height for box in boxes), max(box.depth[1] for box in boxes)
        for box in boxes:
            box.y = top + 22 + rise + height / 2
        top += 22 + rise + height + 48 + 9 * any(link.kind == "shortcut" for link in arch.links)
    return top


def _entries(arch: Architecture) -> list[tuple[str, str]]:
    """The legend: (label, colour) of every arrow in the drawing, in order of occurrence."""
    pairs = [(m.label, m.kind) for m in arch.maps[1:]] + [(link.label, link.kind) for link in arch.links]
    used: dict[str, int] = {}
    entries = []
    for label, kind in dict.fromkeys(pairs):
        shades = _SHADES.get(kind, _SHADES["other"])
        entries.append((label, shades[used.get(kind, 0) % len(shades)]))
        used[kind] = used.get(kind, 0) + 1
    return entries


def _wrap(entries: list[tuple[str, str]], width: float) -> list[list[tuple[str, str]]]:
    rows: list[list[tuple[str, str]]] = [[]]
    for entry in entries:
        if rows[-1] and sum(_width(label, 16) + 84 for label, _ in [*rows[-1], entry]) > width:
            rows.append([])
        rows[-1].append(entry)
    return rows


def _size_text(each: FeatureMap, channels: bool = False) -> str:
    """Height and width, as "128x128" (or "H/2xW/2" where they are free), with the channels also "128x128x3"."""
    letters = {1: "L", 2: "HW", 3: "DHW"}.get(len(each.size), "L" * len(each.size))
    scale = each.scale or Fraction(1)
    multiple = "" if scale >= 1 else str(1 / scale)
    divisor = "" if scale <= 1 else f"/{scale}"
    axes = [str(size or f"{multiple}{letter}{divisor}") for size, letter in zip(each.size, letters, strict=True)]
    return "x".join([*axes, str(each.channels or "?")] if channels else axes)


def _draw(arch: Architecture) -> _Canvas:
    layout = _layout(arch)
    canvas = _Canvas(layout.width, layout.height)
    colors = dict(_entries(arch))
    _draw_links(canvas, arch, layout, colors)
    faces = _face_colors(arch, layout.is_u)
    for index, box in layout.boxes.items():
        _draw_box(canvas, box, faces[index], arch.maps[index].parts)
        canvas.text(box.x + box.depth[0] / 2, box.top - 10, str(arch.maps[index].channels or "?"), 15)
    for before, after in pairwise(layout.boxes):
        _draw_step(canvas, layout.boxes[before], layout.boxes[after], colors[arch.maps[after].label], after - before)
    _draw_sizes(canvas, arch, layout)
    _draw_words(canvas, arch, layout)
    return canvas


def _face_colors(arch: Architecture, is_u: bool) -> dict[int, str]:
    scales = [arch.maps[stage[0]].scale or math.inf for stage in arch.stages]
    faces = {}
    for number, stage in enumerate(arch.stages):
        face = "up" if number and scales[number] < scales[number - 1] else "down"
        if is_u and face == "down" and [*scales, math.inf][number + 1] < scales[number]:
            face = "bottom"
        faces.update(dict.fromkeys(stage, _FACES[face]))
    faces[len(arch.maps) - 1] = _FACES["output"]
    return {**faces, 0: _FACES["input"]}


def _shade(color: str, toward: int, share: float) -> str:
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (toward - c) * share):02x}" for c in channels)


def _draw_box(canvas: _Canvas, box: _Box, face: str, parts: tuple[int, ...]) -> None:
    """A box in oblique view; after a concatenation its left part has the colour of the encoder, whence it came."""
    (dx, dy), y0, y1 = box.depth, box.y - box.height / 2, box.bottom
    left, right = box.x - box.width / 2, box.x + box.width / 2
    cut = left + box.width * (parts[0] / sum(parts) if parts else 0)
    edge = _shade(face, 0, 0.42)
    for x0, x1, color in ((left, cut, _FACES["copy"]), (cut, right, face)):
        if x1 > x0:
            canvas.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, edge)
            canvas.polygon([(x0, y0), (x1, y0), (x1 + dx, y0 - dy), (x0 + dx, y0 - dy)], _shade(color, 255, 0.5), edge)
    side = [(right, y0), (right + dx, y0 - dy), (right + dx, y1 - dy), (right, y1)]
    canvas.polygon(side, _shade(face, 0, 0.12), edge)


def _right(box: _Box) -> float:
    return box.x + box.width / 2 + box.depth[0] + 3


def _draw_step(canvas: _Canvas, before: _Box, after: _Box, color: str, jump: int) -> None:
    """The arrow from one map to the next, or an ellipsis where `jump - 1` maps are left out between them."""
    if jump > 1:
        x = (_right(before) + after.x - after.width / 2) / 2
        canvas.text(x, before.y - 10, "\u2026", 26, _SOFT)
        canvas.text(x, before.y + 14, f"{jump - 1} more", 13, _SOFT)
        return
    if before.row == after.row:
        canvas.arrow([(_right(before), before.y), (after.x - after.width / 2 - 2, before.y)], color)
        return
    end = after.top - 22 if after.row > before.row else after.bottom + 4
    if before.column == after.column:
        canvas.arrow(
            [(before.x, before.bottom + 4 if after.row > before.row else before.top - 22), (after.x, end)], color
        )
    else:
        canvas.arrow([(_right(before), before.y), (after.x, before.y), (after.x, end)], color)


def _draw_links(canvas: _Canvas, arch: Architecture, layout: _Layout, colors: dict[str, str]) -> None:
    drawn: list[Link] = []
    for link in arch.links:
        if link.source not in layout.boxes or link.target not in layout.boxes:
            continue  # in the part of a long stage that is left out
        source, target = layout.boxes[link.source], layout.boxes[link.target]
        others = [o for o in drawn if o.kind == link.kind and o.source < link.target and link.source < o.target]
        lane = sum(layout.boxes[o.source].row == source.row for o in others)
        if source.row != target.row:
            y = source.y - source.height / 4
            end = target.top - 22 if target.row > source.row else target.bottom + 4
            points = [(_right(source), y), (target.x + 8, y), (target.x + 8, end)]
        elif link.kind == "skip" and layout.is_u:
            y = source.y - 12 * lane
            points = [(_right(source), y), (target.x - target.width / 2 - 2, y)]
        else:
            between = (layout.boxes[i] for i in range(link.source, link.target + 1) if i in layout.boxes)
            y = max(box.bottom for box in between) + 13 + 8 * lane
            x0, x1 = source.x + max(8, source.width / 4), target.x - max(8, target.width / 4)
            points = [(x0, source.bottom), (x0, y), (x1, y), (x1, target.bottom + 2)]
        _draw_link(canvas, points, link, colors[link.label])
        drawn.append(link)


def _draw_link(canvas: _Canvas, points: list[tuple[float, float]], link: Link, color: str) -> None:
    canvas.arrow(points, color, 4.0 if link.kind == "skip" else 2.0)
    sign = "x" if "gate" in link.label else "+" if re.search(r"\badd\b", link.label) else ""
    if sign and len(points) == 2:
        canvas.mark(points[-1][0] - 26, points[-1][1], sign, color)


def _draw_sizes(canvas: _Canvas, arch: Architecture, layout: _Layout) -> None:
    """The resolution of every stage: outside the arms of a U, else below; the whole shape at both ends."""
    stages = [[index for index in stage if index in layout.boxes] for stage in arch.stages]
    rows = [layout.boxes[stage[0]].row for stage in stages]
    for number, stage in enumerate(stages):
        first, last = layout.boxes[stage[0]], layout.boxes[stage[-1]]
        sizes = list(dict.fromkeys(_size_text(arch.maps[i]) for i in (stage[0], stage[-1])))
        before, after = (rows[i] if 0 <= i < len(rows) else rows[number] for i in (number - 1, number + 1))
        for line, text in enumerate([sizes[0], *(f"to {size}" for size in sizes[1:])]):
            shift = 17 * (line - (len(sizes) - 1) / 2)
            if before < rows[number] < after:
                canvas.text(first.x - first.width / 2 - 14, first.y + shift, text, 15, _SOFT, "rm")
            elif before > rows[number] > after:
                shift += 20 if len(stage) == 1 else 0  # below the arrow that then leaves to the right
                canvas.text(_right(last) + 10, last.y + shift, text, 15, _SOFT, "lm")
            elif 0 < number < len(stages) - 1 or (len(stage) > 1 and not layout.is_u):
                lowest = max(layout.boxes[index].bottom for index in stage)
                drop = 22 if not any(link.kind == "shortcut" for link in arch.links) else 40
                canvas.text((first.x + last.x) / 2, lowest + drop + 17 * line, text, 15, _SOFT)


def _draw_words(canvas: _Canvas, arch: Architecture, layout: _Layout) -> None:
    """Title, labels of the input and output, legend and notes."""
    first, last = layout.boxes[0], layout.boxes[len(arch.maps) - 1]
    ends = [_size_text(arch.maps[i], True) for i in (0, -1)]
    canvas.text(_MARGIN, 46, arch.name, 30, _INK, "lm")
    facts = f"{arch.parameters:,} parameters \u00b7 input {ends[0]} \u00b7 output {ends[1]}"
    canvas.text(_MARGIN, 80, facts, 17, _SOFT, "lm")
    for x, y, words, shape, anchor in (
        (first.x - first.width / 2 - 14, first.y, arch.maps[0].label, ends[0], "rm"),
        (_right(last) + 10, last.y, "Output", ends[1], "lm"),
    ):
        canvas.text(x, y - 10, words, 16, _INK, anchor)
        canvas.text(x, y + 11, shape, 16, _SOFT, anchor)
    y = layout.height - 34 * len(layout.legend) - 50
    for row in layout.legend:
        x = (layout.width - sum(_width(label, 16) + 84 for label, _ in row) + 34) / 2
        for label, color in row:
            canvas.arrow([(x, y), (x + 38, y)], color)
            canvas.text(x + 48, y, label, 16, _INK, "lm")
            x += _width(label, 16) + 84
        y += 34
    canvas.text(layout.width / 2, layout.height - 30, _note(arch), 13, _SOFT)


def _note(arch: Architecture) -> str:
    notes = ["Height of a box: resolution; width: logarithm of its channels."]
    if arch.hidden:
        notes.append(f"{arch.hidden} of {arch.operations} operations lie beside the main path.")
    if arch.outputs > 1:
        notes.append(f"Drawn: the way to one of {arch.outputs} outputs.")
    return "  ".join(notes)


def get_model_arch(model: "keras.Model", path: str | Path) -> list[Path]:
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


def _plot_layers(model: "keras.Model", path: Path) -> bool:
    """Writes Keras' diagram of the layers to `path`; returns whether that could be done."""
    if shutil.which("dot") is None or importlib.util.find_spec("pydot") is None:
        return False
    import keras

    try:
        with replacing(path) as temporary:
            keras.utils.plot_model(model, to_file=str(temporary), show_shapes=True)
            return temporary.exists()
    except (ImportError, FileNotFoundError):  # a `dot` that does not run; in a notebook Keras then only prints
        return False
