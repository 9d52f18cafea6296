"""What a network looks like, read from the graph of its Keras model; nothing is drawn here.

The main path runs from the input to the output. Where tensors merge it follows the one that comes from the coarsest
resolution (in a U-Net: the way up, not the skip connection), and among equals the longest. What else comes into a
merge is a link: a skip connection from an earlier stage, or a shortcut inside one.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

import keras

from semseg.backend.keras_graph import functional_graph, nodes_in_order

_NAMES = {
    "InputLayer": "Input",
    "ConvTranspose": "Transposed conv",
    "DepthwiseConv": "Depthwise conv",
    "MaxPooling": "Max pool",
    "AveragePooling": "Average pool",
    "GlobalAveragePooling": "Global average pool",
    "UpSampling": "Upsampling",
    "BatchNormalization": "BN",
    "GroupNormalization": "GN",
    "LayerNormalization": "LN",
    "SpatialDropout": "Dropout",
    "Multiply": "gate",
}
_ACTIVATIONS = {name.lower(): name for name in ("ReLU", "GELU", "ELU", "SELU", "SiLU", "LeakyReLU")}
_SKIP = ("skip", "Skip connection", "skip connections")
_SHORTCUT = ("shortcut", "Shortcut", "more branches")
_PADS = ("Cropping", "ZeroPadding")


@dataclass(frozen=True)
class FeatureMap:
    """A feature map on the main path, and the operations that made it.

    Attributes:
        channels: Number of channels (None when the model does not say).
        size: Height and width (None where free; empty for a vector).
        scale: How many times coarser than the input (1, 2, 4, ...); None for what has no resolution, as a vector.
        label: The operation, with what follows it, as "Conv 3x3 + BN + ReLU".
        kind: Its family: input, conv, point (1x1), dilated, down, up or other.
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
    """All that is known of a model here; `hidden` of its `operations` lie beside the main path."""

    name: str
    parameters: int
    maps: list[FeatureMap]
    links: list[Link]
    operations: int
    hidden: int

    @property
    def stages(self) -> list[list[int]]:
        """The positions of consecutive maps that have one resolution."""
        return [list(run) for _, run in groupby(range(len(self.maps)), key=lambda index: self.maps[index].scale)]


def read_architecture(model: keras.Model) -> Architecture:
    """Reads the main path of a model, and what joins it, from the graph of its layers.

    Nested functional models are read as if their layers stood in `model` itself. Of several outputs the one with the
    longest path is followed.

    Args:
        model: A functional model or a built Sequential, channels last, of any number of dimensions.

    Returns:
        The feature maps of the main path and the links beside it.

    Raises:
        ValueError: If the model has no graph to read (a subclassed model, or one that was not built), or if it has
            channels first.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.MaxPooling2D()])
        >>> [(m.label, m.size, m.channels) for m in read_architecture(model).maps]
        [('Input', (8, 8), 3), ('Conv 3x3', (6, 6), 4), ('Max pool 2x2', (3, 3), 4)]
    """
    graph = functional_graph(model)
    if graph is None:
        raise ValueError(
            f"get_model_arch: got {type(model).__name__} {getattr(model, 'name', '')!r}, which has no graph of layers; "
            "expected a functional model or a built Sequential. Make it with keras.Model(inputs, outputs), or give the "
            "Sequential a keras.Input as its first layer."
        )
    ops: list[_Op] = []
    ends = _read_operations(graph, {}, ops)
    if any(getattr(op.layer, "data_format", None) == "channels_first" for op in ops):
        raise ValueError(f"get_model_arch: {model.name!r} has its channels first; expected channels last")
    path = [max(ends, key=lambda end: end.distance)]
    while path[-1].main is not None:
        path.append(path[-1].main)
    maps, links = _fold(path[::-1])
    return Architecture(model.name, model.count_params(), maps, links, len(ops), len(ops) - len(path))


@dataclass(eq=False)
class _Op:
    """One use of a layer (a shared one has several); `class_name` is the layer's class name without 1D, 2D or 3D.

    `depth` is the coarsest scale its values come from, `distance` the number of operations before it, and `main` the
    input through which the main path runs, if it runs here.
    """

    layer: Any
    class_name: str
    inputs: "list[_Op]"
    channels: int | None
    size: tuple[int | None, ...]
    scale: Fraction | None = None
    depth: Fraction = Fraction(1)
    distance: int = 0
    main: "_Op | None" = None


_Runs = list[list[_Op]]  # operations that follow each other, several times


def _read_operations(graph: Any, known: dict[int, _Op], ops: list[_Op]) -> list[_Op]:
    """Appends the graph's operations to `ops`, inputs first; `known` says which one made the tensor with an id."""
    for node in nodes_in_order(graph):
        if all(id(tensor) in known for tensor in node.outputs):
            continue  # the input of a nested model
        inputs = [known[id(tensor)] for tensor in node.input_tensors]
        inner = functional_graph(node.operation)
        if inner is not None:
            made = {id(tensor): op for tensor, op in zip(inner.inputs, inputs, strict=True)}
            ends = _read_operations(inner, made, ops)
        else:
            ops.append(_new_operation(node.operation, list(dict.fromkeys(inputs)), node.outputs[0].shape[1:]))
            ends = ops[-1:] * len(node.outputs)
        known.update((id(tensor), end) for tensor, end in zip(node.outputs, ends, strict=True))
    return [known[id(tensor)] for tensor in graph.outputs]


def _new_operation(layer: Any, inputs: list[_Op], shape: tuple[int | None, ...]) -> _Op:
    """The operation with its place in the network: scale, depth, distance, and its input on the main path."""
    class_name = re.sub("[123]D", "", type(layer).__name__)
    op = _Op(layer, class_name, inputs, shape[-1] if shape else None, tuple(shape[:-1]))
    op.scale = _scale(op)
    if not inputs:
        return op
    op.main = _main_input(op)
    op.distance = 1 + max(each.distance for each in inputs)
    deepest = max if op.class_name == "Concatenate" else min  # a skip that is gated by the way up remains a skip
    op.depth = deepest(each.depth for each in inputs)
    if op.scale is not None:
        op.depth = max(op.depth, op.scale)
    return op


def _scale(op: _Op) -> Fraction | None:
    """How many times coarser than the network's input; None of what has no resolution, as a vector."""
    if not op.inputs:
        return Fraction(1) if op.size else None
    scales = [each.scale for each in op.inputs if each.scale is not None]
    if not scales or not op.size or op.class_name.startswith("Global"):
        return None
    return min(scales) * _reduction(op)


def _main_input(op: _Op) -> _Op:
    """The input through which the main path runs: the deepest, then the farthest, of those that look most like `op`."""
    spatial = [each for each in op.inputs if each.scale is not None]
    alike = [each for each in spatial if (each.channels, each.size) == (op.channels, op.size)]
    return max(alike or spatial or op.inputs, key=lambda each: (each.depth, each.distance))


def _reduction(op: _Op) -> Fraction:
    """How many times coarser `op` makes its input; the layer's own numbers say so where sizes are free."""
    if op.class_name in ("ConvTranspose", "UpSampling"):
        return Fraction(1, _numbers(op, "strides", "size")[0])
    stride = _numbers(op, "strides", "pool_size")
    if stride:
        return Fraction(stride[0])
    before, after = op.inputs[0].size, op.size
    if len(op.inputs) > 1 or len(before) != len(after) or not before[0] or not after[0] or op.class_name in _PADS:
        return Fraction(1)
    return Fraction(round(before[0] / after[0])) if before[0] > after[0] else Fraction(1, round(after[0] / before[0]))


def _numbers(op: _Op, *names: str) -> tuple[int, ...]:
    """The first of these attributes that the layer has, as a tuple: () for none."""
    value = next((found for name in names if (found := getattr(op.layer, name, None)) is not None), ())
    return (value,) if isinstance(value, int) else tuple(value)


def _makes_no_map(op: _Op) -> bool:
    """Whether `op` makes no new map: it keeps the shape (or pads, crops) and is no convolution, pooling or the like."""
    source = op.main or op
    same = (op.channels, len(op.size), op.scale) == (source.channels, len(source.size), source.scale)
    weighted = bool(getattr(op.layer, "weights", ())) and not op.class_name.endswith(("Normalization", "PReLU"))
    return op.class_name in _PADS or (same and not weighted and not hasattr(op.layer, "pool_size"))


def _join(*names: str) -> str:
    return " + ".join(name for name in names if name)


def _activation(op: _Op) -> str:
    function = getattr(op.layer, "activation", None)
    name = getattr(function, "__name__", type(function).__name__)
    return "" if name in ("linear", "NoneType") else _ACTIVATIONS.get(name.lower().replace("_", ""), name)


def _name(op: _Op) -> str:
    """The operation without its numbers: "BN", "ReLU", "Dropout"; empty for padding, cropping and linear."""
    if op.class_name == "Activation":
        return _activation(op)
    if op.class_name in _PADS:
        return ""
    return _NAMES.get(op.class_name) or _ACTIVATIONS.get(op.class_name.lower(), op.class_name)


def _label(op: _Op) -> str:
    """The operation with its numbers and its own activation: "Conv 3x3, dilation 2 + ReLU"."""
    window = _numbers(op, "kernel_size", "pool_size", "size")
    text = f"{_name(op)} {'x'.join(map(str, window))}".rstrip()
    usual = max(window) if op.class_name == "ConvTranspose" or hasattr(op.layer, "pool_size") else 1
    stride, dilation = max(_numbers(op, "strides"), default=usual), max(_numbers(op, "dilation_rate"), default=1)
    if stride != usual:
        text += f", stride {stride}"
    if dilation > 1:
        text += f", dilation {dilation}"
    if getattr(op.layer, "interpolation", "nearest") != "nearest":
        text += f" ({op.layer.interpolation})"
    return _join(text, _activation(op))


def _kind(op: _Op) -> str:
    if op.main is None:
        return "input"
    if op.scale != op.main.scale:
        return "up" if op.scale is not None and op.scale < op.main.scale else "down"
    if not hasattr(op.layer, "kernel_size"):
        return "other"
    if max(_numbers(op, "dilation_rate"), default=1) > 1:
        return "dilated"
    return "point" if set(op.layer.kernel_size) == {1} else "conv"


def _fold(path: list[_Op]) -> tuple[list[FeatureMap], list[Link]]:
    """Folds the operations of the main path, first to last, into maps, and finds the links between these.

    The runs of a map: the operation that made it, then every merge with a link, each with what follows it at once.
    """
    maps: list[_Runs] = []
    position: dict[_Op, int] = {}
    side_paths: dict[_Op, dict[int, _Runs]] = {}
    for op in path:
        # A map begins with what changes the shape or has weights of its own; what merges belongs to the map before.
        if not maps or (len(op.inputs) == 1 and not _makes_no_map(op)):
            maps.append([[]])
        position[op] = len(maps) - 1
        side_paths[op] = _side_paths(op, position)
        if side_paths[op]:
            maps[-1].append([])
        maps[-1][-1].append(op)
    return [_feature_map(runs) for runs in maps], _links(maps, side_paths)


def _links(maps: list[_Runs], side_paths: dict[_Op, dict[int, _Runs]]) -> list[Link]:
    """The links into every merge: skips, between which and the merge the resolution changes twice, and shortcuts."""
    scales = [runs[0][0].scale for runs in maps]
    links = []
    for target, (_, *merges) in enumerate(maps):
        for run in merges:
            for source, passed in side_paths[run[0]].items():
                changes = sum(a != b for a, b in pairwise(scales[source : target + 1]))
                links.append(Link(source, target, *_link_kind_and_label(run, passed, is_skip=changes > 1)))
    return links


def _feature_map(runs: _Runs) -> FeatureMap:
    ops = [op for run in runs for op in run]
    first = ops[0]
    size = next(op.size for op in reversed(ops) if op.class_name != "ZeroPadding") if first.inputs else first.size
    label = _join(_label(first), *map(_name, runs[0][1:]))
    return FeatureMap(ops[-1].channels, size, first.scale, label, _kind(first), _joined_parts(ops))


def _joined_parts(ops: list[_Op]) -> tuple[int, ...]:
    """Of the last concatenation: the channels that joined and those that were there; () without one."""
    for op in reversed(ops):
        if op.class_name == "Concatenate" and op.channels and op.main and op.main.channels:
            return op.channels - op.main.channels, op.main.channels
    return ()


def _side_paths(merge: _Op, position: dict[_Op, int]) -> dict[int, _Runs]:
    """The maps from which links lead into `merge`, with the operations that lie on each; none to a map's own gate."""
    found: dict[int, _Runs] = {}
    for start in merge.inputs:
        if start is not merge.main:
            reached, passed = _trace(start, position)
            nearest = [op for op in reached if op.scale == merge.scale] or reached
            source = min((position[op] for op in nearest), default=position[merge])
            if source != position[merge]:
                found.setdefault(source, []).append(passed)
    return found


def _trace(start: _Op, position: dict[_Op, int]) -> tuple[list[_Op], list[_Op]]:
    """Walks back from `start` to the main path: the operations reached there, and those passed, first to last."""
    reached, passed, queue = [], [], [start]
    while queue:
        op = queue.pop()
        if op in position:
            reached.append(op)
        elif op not in passed:
            passed.append(op)
            queue += op.inputs
    return reached, sorted(passed, key=lambda op: op.distance)


def _link_kind_and_label(run: list[_Op], side_paths: _Runs, is_skip: bool) -> tuple[str, str]:
    """The kind and the label of a link that ends in the merge at the head of `run`."""
    kind, one, several = _SKIP if is_skip else _SHORTCUT
    merge = _join(run[0].class_name.lower(), *map(_name, run[1:]))
    if len(side_paths) > 1:
        return kind, f"{len(side_paths)} {several}: {merge}"
    return kind, f"{one}: {', '.join([*_side_path_text(side_paths[0]), merge])}"


def _side_path_text(passed: list[_Op]) -> list[str]:
    """What lies on a link, in words."""
    if any(op.class_name == "Multiply" for op in passed):
        return ["attention gate"]
    labels = list(dict.fromkeys(_label(op) for op in passed if not _makes_no_map(op)))
    return [label[0].lower() + label[1:] for label in labels] if len(labels) < 3 else [f"{len(passed)} layers"]
