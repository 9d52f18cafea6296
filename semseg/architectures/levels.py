"""The encoder of a network, level by level: which layers work on the way down, from the photo on."""

import re
from collections.abc import Iterable

import keras

from semseg.backend.keras_graph import Node, all_layers, functional_graph, nodes_in_order

_DOWN = re.compile(r"(?:down(\d+)|(bottleneck))_.*")
_UP = re.compile(r"up(\d+)_(concatenate|up)")


def encoder_levels(model: keras.Model) -> list[list[keras.Layer]]:
    """The layers with weights of the encoder, by the size at which they work, the photo's own first.

    The levels of the networks here are `down1`, `down2` ... and `bottleneck`, which networks of one's own may have,
    too; those of `encoder_unet` are the stages of its image network, as far as they have something to learn.

    Args:
        model: From `build_model`.

    Returns:
        A list of layers for each level; none where the names of the layers do not tell.

    Example:
        >>> from semseg import Unet
        >>> levels = encoder_levels(Unet((32, 32, 3), 2, filters=2, depth=2))
        >>> [level[0].name for level in levels]
        ['down1_conv1', 'down2_conv1', 'bottleneck_conv1']
    """
    return _by_name(model) or _by_skips(model)


def _by_name(model: keras.Model) -> list[list[keras.Layer]]:
    levels: dict[float, list[keras.Layer]] = {}
    for layer in all_layers(model):
        match = _DOWN.fullmatch(layer.name)
        if match and layer.weights:
            levels.setdefault(int(match[1]) if match[1] else float("inf"), []).append(layer)
    return [levels[number] for number in sorted(levels)]


def _by_skips(model: keras.Model) -> list[list[keras.Layer]]:
    """What leads to the skip connection of each step up, and to the first of these steps."""
    graph = functional_graph(model)
    nodes = nodes_in_order(graph) if graph is not None else []
    steps = {(int(match[1]), match[2]): node for node in nodes if (match := _UP.fullmatch(node.operation.name))}
    if not steps:
        return []
    last = max(number for number, _ in steps)
    concatenations = sorted(key for key in steps if key[1] == "concatenate")
    ends = [steps[key].input_tensors[0] for key in concatenations]
    ends.append(steps[last, "up"].input_tensors[0])
    levels: list[list[keras.Layer]] = [[]]
    for end in ends:
        before = {layer for level in levels for layer in level}
        if _learns(levels[-1]):
            levels.append([])
        levels[-1] += [layer for layer in _leading_to(end, nodes) if layer.weights and layer not in before]
    return levels if _learns(levels[-1]) else levels[:-1]


def _learns(level: Iterable[keras.Layer]) -> bool:
    return any(layer.trainable_weights for layer in level)


def _leading_to(end: keras.KerasTensor, nodes: list[Node]) -> list[keras.Layer]:
    """The layers that a tensor is computed by, in the order of work."""
    needed, found = {id(end)}, []
    for node in reversed(nodes):
        if needed.intersection(map(id, node.outputs)):
            needed.update(map(id, node.input_tensors))
            found.append(node.operation)
    return [operation for operation in reversed(found) if isinstance(operation, keras.Layer)]
