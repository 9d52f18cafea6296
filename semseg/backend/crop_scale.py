"""The scale at which a network learned crops, written into the model: a `.keras` file that lies alone tells it, too."""

import re

import keras

_MARK = "_crops_at_"  # in the model's name, before the scale
_PATTERN = re.compile(re.escape(_MARK) + r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)$")


def with_scale(model: keras.Model, scale: float) -> keras.Model:
    """The same model, which says at which scale it sees photos; it shares the layers.

    Args:
        model: A functional model.
        scale: Pixels that it sees for one of the photo's, along each side.

    Example:
        >>> inputs = keras.Input((32, 32, 3))
        >>> scale_of(with_scale(keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs)), 0.5))
        0.5
    """
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    return keras.Model(model.inputs[0], outputs, name=f"{_PATTERN.sub('', model.name)}{_MARK}{float(scale)!r}")


def scale_of(model: keras.Model) -> float | None:
    """The scale at which a model learned crops; None where it learned whole photos, or does not say."""
    found = _PATTERN.search(model.name)
    return float(found[1]) if found else None
