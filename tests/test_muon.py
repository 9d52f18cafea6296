import keras
import numpy as np
import pytest
from keras import ops
from keras.optimizers.schedules import CosineDecay

from semseg.training.muon import POLYNOMIALS, STEP, Muon, is_between_features, orthogonal, orthogonal_all

RNG = np.random.default_rng(0)


def by_svd(matrix):
    """The iteration on the singular values alone, in float64."""
    u, s, v = np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False)
    s /= np.sqrt((s**2).sum())
    for a, b, c in POLYNOMIALS:
        s = a * s + b * s**3 + c * s**5
    return u, s, v


@pytest.mark.parametrize("shape", [(144, 16), (16, 64), (48, 48), (6, 1)], ids=str)
def test_orthogonal_keeps_the_directions_and_evens_out_the_lengths(shape):
    matrix = RNG.normal(size=shape).astype("float32")
    u, s, v = by_svd(matrix)
    found = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix)))
    np.testing.assert_allclose(found, (u * s) @ v, atol=2e-4)
    if shape != (48, 48):  # a square one has singular values near 0
        assert s.min() > 0.35 and s.max() < 1.66


def test_half_the_digits_give_about_the_same_step():
    matrix = RNG.normal(size=(144, 16)).astype("float32")
    u, s, v = by_svd(matrix)
    found = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix), "bfloat16"))
    assert found.dtype == np.float32
    assert np.linalg.norm(found - (u * s) @ v) < 0.2 * np.linalg.norm(s)


def test_no_other_polynomials_bring_the_lengths_nearer_to_one():
    """The best odd polynomial is the one whose error is as large, with changing sign, at four places (Chebyshev)."""
    low, high = 0.003, 1.0
    for a, b, c in POLYNOMIALS:
        x = np.linspace(low, high, 100_001)
        error = a * x + b * x**3 + c * x**5 - 1
        turns = [0, *(np.flatnonzero(np.diff(np.sign(np.diff(error)))) + 1), -1]
        np.testing.assert_allclose(error[turns], np.abs(error).max() * np.array([-1, 1, -1, 1]), atol=2e-3)
        low, high = 1 - np.abs(error).max(), 1 + np.abs(error).max()


def test_a_direction_a_thousand_times_as_weak_gets_its_share():
    u, _ = np.linalg.qr(RNG.normal(size=(64, 2)))
    v, _ = np.linalg.qr(RNG.normal(size=(16, 2)))
    matrix = u @ np.diag([1.0, 1e-3]) @ v.T
    found = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix.astype("float32"))))
    lengths = np.diag(u.T @ found @ v)
    assert lengths[1] > 70 * 1e-3 * lengths[0]


def test_no_gradient_gives_no_step():
    assert not ops.convert_to_numpy(orthogonal(ops.zeros((8, 5)))).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 3, 16, 32), True),
        ((2, 2, 16, 32), True),
        ((3, 3, 3, 16), False),
        ((1, 1, 16, 1), False),
        ((3, 3, 32, 1), False),
        ((16, 32), False),
        ((16,), False),
    ],
    ids=str,
)
def test_only_kernels_from_features_to_features_are_its_own(shape, expected):
    assert is_between_features(keras.Variable(np.zeros(shape, "float32"))) == expected


def steps_of(optimizer, variables, gradients):
    optimizer.build(variables)
    for step in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient) for gradient in step])
    return [ops.convert_to_numpy(variable.value) for variable in variables]


def test_two_steps_are_those_of_the_papers():
    kernel = RNG.normal(size=(3, 3, 5, 6)).astype("float32")
    gradients = RNG.normal(size=(2, *kernel.shape)).astype("float32")
    (found,) = steps_of(
        Muon(0.1, momentum=0.9, weight_decay=0.5), [keras.Variable(kernel)], [[gradient] for gradient in gradients]
    )
    expected, gathered = kernel.astype(float), 0
    for gradient in gradients:
        gathered = 0.9 * gathered + gradient
        u, s, v = by_svd((gradient + 0.9 * gathered).reshape(45, 6))
        expected = (1 - 0.1 * 0.5) * expected - 0.1 * STEP * np.sqrt(45) * ((u * s) @ v).reshape(kernel.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_step_is_as_long_as_one_of_adamw():
    kernel = keras.Variable(np.zeros((3, 3, 32, 64), "float32"))
    (found,) = steps_of(Muon(0.01, weight_decay=0.0), [kernel], [[RNG.normal(size=(3, 3, 32, 64)).astype("float32")]])
    assert np.sqrt((found**2).mean()) == pytest.approx(0.01 * STEP, rel=0.2)


def test_all_else_goes_as_with_adamw():
    values = [RNG.normal(size=shape).astype("float32") for shape in [(3, 3, 3, 8), (8,), (3, 3, 8, 8)]]
    gradients = [[RNG.normal(size=value.shape).astype("float32") for value in values] for _ in range(3)]
    found, expected = (
        steps_of(kind(0.01, weight_decay=0.1), [keras.Variable(value) for value in values], gradients)
        for kind in (Muon, keras.optimizers.AdamW)
    )
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.abs(found[2] - expected[2]).max() > 1e-3


def test_what_is_excluded_from_decay_keeps_its_length():
    kernel = keras.Variable(np.ones((3, 3, 8, 8), "float32"), name="kernel")
    optimizer = Muon(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    (found,) = steps_of(optimizer, [kernel], [[np.zeros((3, 3, 8, 8), "float32")]])
    assert (found == 1).all()


def test_gathered_gradients_make_one_step_of_their_mean():
    kernel, parts = RNG.normal(size=(3, 3, 8, 8)).astype("float32"), RNG.normal(size=(2, 3, 3, 8, 8)).astype("float32")
    gathered = steps_of(Muon(0.1, gradient_accumulation_steps=2), [keras.Variable(kernel)], [[part] for part in parts])
    at_once = steps_of(Muon(0.1), [keras.Variable(kernel)], [[parts.mean(axis=0)]])
    np.testing.assert_allclose(gathered, at_once, atol=1e-4)


def test_a_saved_model_goes_on_where_it_was(tmp_path):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(6, 3)(keras.layers.Conv2D(8, 3)(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(Muon(CosineDecay(0.01, 10), momentum=0.8), loss="mse")
    photos, truth = RNG.normal(size=(4, 8, 8, 3)), RNG.normal(size=(4, 4, 4, 6))
    model.train_on_batch(photos, truth)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.momentum == 0.8
    losses = [one.train_on_batch(photos, truth) for one in (model, loaded) for _ in range(2)]
    np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-5)


def test_many_matrices_together_give_what_each_gives_alone():
    shapes = [(144, 16), (16, 64), (32, 16), (48, 48), (64, 16)]
    matrices = [ops.convert_to_tensor(RNG.normal(size=shape).astype("float32")) for shape in shapes]
    for together, matrix in zip(orthogonal_all(matrices), matrices, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(together), ops.convert_to_numpy(orthogonal(matrix)), atol=2e-4)
