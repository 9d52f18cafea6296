"""A model and its copy in plain Keras, trained side by side: what they end in must be the same."""

import keras
import numpy as np
from keras import ops

POSITIVE = ("gamma", "moving_variance")


def twin_of(model):
    """The same network of plain Keras layers of its own, with the same weights."""
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def fill(model):
    """Gives each weight of a normalisation a value of its own, and each bias; returns the model."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(
                rng.uniform(0.5, 1.5, weight.shape) if weight.name in POSITIVE else rng.normal(0, 0.3, weight.shape)
            )
    return model


def only(values):
    """What Keras wants for one input or output, and for several."""
    return values[0] if len(values) == 1 else values


def photos_of(model, count=2):
    """Noise for all inputs of `model`, whose open sizes become 16: a list of float32 arrays."""
    rng = np.random.default_rng(0)
    shapes = [[length or 16 for length in symbol.shape[1:]] for symbol in model.inputs]
    return [rng.normal(size=(count, *shape)).astype("float32") for shape in shapes]


def predicted(model, photos):
    """The outputs, a list of arrays."""
    if keras.backend.backend() == "jax":  # which would compile every operation on its own
        return keras.tree.flatten(model.predict_on_batch(only(photos)))
    return [ops.convert_to_numpy(output) for output in keras.tree.flatten(model(only(photos), training=False))]


def train(model, photos, rate=1.0):
    """Yields the weights before and after each of two steps; with the rate 1 a step takes the gradients away."""
    model.compile(
        keras.optimizers.SGD(rate),
        only(["mse"] * len(model.outputs)),
        jit_compile=keras.backend.backend() == "jax",
    )
    targets = [np.full((len(photos[0]), *[n or 16 for n in y.shape[1:]]), 0.5, "float32") for y in model.outputs]
    yield model.get_weights()
    for _ in range(2):
        model.train_on_batch(only(photos), only(targets))
        yield model.get_weights()


def assert_close(found, expected, tolerance=1e-4):
    """Both are lists of arrays; the tolerance is relative where an array exceeds 1."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1, np.abs(other).max()))


def assert_alike(fast, other, photos, rate=1.0):
    """The same outputs, and after each of two steps the same weights and averages."""
    assert_close(predicted(fast, photos), predicted(other, photos))
    (start, *steps), (_, *expected) = ([*train(model, photos, rate)] for model in (fast, other))
    for found, wanted in zip(steps, expected, strict=True):
        assert_close(found, wanted)
    assert any((now != old).any() for now, old in zip(steps[-1], start, strict=True)), "nothing was learned"
