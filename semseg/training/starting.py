"""What a training starts from: the weights of another network, as far as they fit, and which layers keep them."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from semseg.architectures.levels import encoder_levels
from semseg.backend.keras_graph import all_layers, producer
from semseg.errors import SemsegError

MAX_NAMED = 3  # layers that a line lists

Key = tuple[str, int]  # name and place among those of that name
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Taken:
    """What a network took over from another one.

    Args:
        layers: The names of those that took something.
        text: The same in words, and what did not fit.
    """

    layers: frozenset[str]
    text: str


def take_weights(
    model: keras.Model, source: keras.Model, classes: list[str], source_classes: list[str] | None
) -> Taken:
    """Gives a network the weights of another one, layer by layer, where name and shape agree.

    Layers that Keras named by itself are counted instead, if both networks have as many. Of the last layer the rows of
    classes of the same name are taken. A convolution that sees photos with another number of bands takes the mean over
    the bands, so that it answers to a grey photo as before.

    Args:
        model: What is to be trained, from `build_model`.
        source: Another one; nothing is changed in it.
        classes: Names of the K classes.
        source_classes: Those of the source; None where nobody knows them: its last layer is then taken if it has as
            many.

    Raises:
        SemsegError: Nothing fits.
    """
    ours, theirs = _with_weights(model), _with_weights(source)
    heads = _heads(model)
    taken: list[str] = []
    partly: list[str] = []
    missing: list[str] = []
    for key, layer in ours.items():
        before, after = theirs.get(key), _variables(layer)
        if before is None or type(before) is not type(layer):
            missing.append(f"{layer.name} (not there)")
            continue
        new, how = (
            _head_rows(_variables(before), after, classes, source_classes)
            if layer in heads
            else _fitted(_variables(before), after, _bands(source), _bands(model))
        )
        if new is None:
            missing.append(f"{layer.name} ({how})")
            continue
        layer.load_own_variables(new)
        taken.append(layer.name)
        if how:
            partly.append(f"of {layer.name} {how}")
    if not taken:
        raise SemsegError(
            f"`init`: no layer of that {source.name} fits this {model.name}: {_listed(missing)}; expected a network of "
            "the same kind and `filters`"
        )
    return Taken(frozenset(taken), _in_words(len(taken), len(ours), partly, missing))


def _in_words(taken: int, count: int, partly: list[str], missing: list[str]) -> str:
    text = f"took {taken} of {count} layers"
    if partly:
        text += f", {_listed(partly)}"
    return f"{text}; not: {_listed(missing)}" if missing else text


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _with_weights(model: keras.Model) -> dict[Key, keras.Layer]:
    """The layers that hold variables of their own."""
    counts: Counter[str] = Counter()
    found: dict[Key, keras.Layer] = {}
    for layer in all_layers(model):
        if _variables(layer):
            name = _plain_name(layer)
            found[name, counts[name]] = layer
            counts[name] += 1
    # Layers without a name of their own mean the same only in networks with as many of them.
    return {(f"{name}*{counts[name]}" if counts[name] > 1 else name, place): each
            for (name, place), each in found.items()}  # fmt: skip


def _plain_name(layer: keras.Layer) -> str:
    """The name; of a layer that Keras named and numbered by itself without the number."""
    stem = re.sub(r"_\d+$", "", layer.name)
    return stem if stem.replace("_", "") == type(layer).__name__.lower() else layer.name


def _variables(layer: keras.Layer) -> Arrays:
    store: Arrays = {}
    layer.save_own_variables(store)
    return {name: np.array(keras.ops.convert_to_numpy(value)) for name, value in store.items()}


def _heads(model: keras.Model) -> set[Any]:
    """The layers that give logits."""
    return {producer(output) for output in model.outputs}


def _bands(model: keras.Model) -> int:
    return model.inputs[0].shape[-1]


def _fitted(before: Arrays, after: Arrays, bands_before: int, bands: int) -> tuple[Arrays | None, str]:
    """Arrays of the shapes of `after`, with a word about them; None and the reason where they do not fit."""
    shapes, wanted = _shapes(before), _shapes(after)
    if shapes == wanted:
        return before, ""
    kernel = next(iter(before.values()))
    wider = [(*shapes[0][:2], bands, *shapes[0][3:]), *shapes[1:]]
    if kernel.ndim == 4 and kernel.shape[2] == bands_before and wanted == wider:
        mean = np.repeat(kernel.mean(axis=2, keepdims=True), bands, axis=2) * (bands_before / bands)
        return {**before, next(iter(before)): mean.astype(kernel.dtype)}, f"the mean over {bands_before} bands"
    there, here = ("x".join(map(str, shape[0])) for shape in (shapes, wanted))
    return None, f"{there} there, {here} here"


def _head_rows(
    before: Arrays, after: Arrays, classes: list[str], source_classes: list[str] | None
) -> tuple[Arrays | None, str]:
    """As `_fitted`, for the layer that gives logits: the rows of the classes that both know."""
    if _shapes(before) == _shapes(after) and source_classes in (None, classes):
        return before, ""
    shared = _places_of_shared(classes, source_classes or [])
    (*inputs, rows), (*inputs_after, rows_after) = _shapes(before)[0], _shapes(after)[0]
    if not shared or inputs != inputs_after or min(rows, rows_after) == 1:
        return None, f"{len(source_classes or []) or max(2, rows)} classes there, {len(classes)} here"
    return _with_rows(after, before, shared), f"the rows of {_listed([classes[here] for here, _ in shared])}"


def _places_of_shared(classes: list[str], source_classes: list[str]) -> list[tuple[int, int]]:
    """The ids of each class that both know, here and there."""
    return [(here, source_classes.index(name)) for here, name in enumerate(classes) if name in source_classes]


def _with_rows(after: Arrays, before: Arrays, places: list[tuple[int, int]]) -> Arrays:
    """`after` with some of its classes from the other network."""
    for name, array in after.items():
        for here, there in places:
            array[..., here] = before[name][..., there]
    return after


def _shapes(arrays: Arrays) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays.values()]


def freeze(model: keras.Model, what: str) -> list[keras.Layer]:
    """Lets layers keep their weights, moving averages among them, while the others are trained.

    Args:
        model: From `build_model`; changed in place.
        what: `"none"`, `"encoder"`, or a number of levels of the encoder, see `encoder_levels`.

    Returns:
        The layers that are frozen.

    Raises:
        SemsegError: The network has no encoder that is known, or one with fewer levels.
    """
    if what == "none":
        return []
    levels = encoder_levels(model)
    if not levels:
        raise SemsegError(
            f"`freeze`: got {what}, and nothing tells the encoder of {model.name}; expected layers that are called "
            "down1_..., down2_... and bottleneck_..., or `freeze` none"
        )
    count = len(levels) if what == "encoder" else int(what)
    if count > len(levels):
        raise SemsegError(
            f"`freeze`: got {what}, and the encoder of {model.name} has {len(levels)} levels; expected at most so many"
        )
    frozen = [layer for level in levels[:count] for layer in level]
    for layer in frozen:
        layer.trainable = False
    return frozen


def refuse_unlearnt(frozen: Sequence[keras.Layer], learnt: Collection[str]) -> None:
    """Refuses to freeze weights that nobody has learnt.

    Args:
        frozen: From `freeze`.
        learnt: The names of the layers that hold more than their first, random weights.

    Raises:
        SemsegError: There are others among those that are frozen.
    """
    if unlearnt := [layer.name for layer in frozen if layer.name not in learnt]:
        raise SemsegError(
            f"`freeze`: {_listed(unlearnt)} would keep their random weights for ever; expected `init` with a network "
            "that holds them, `encoder_weights`, or `freeze` none"
        )
