import keras
import numpy as np
import pytest

from semseg.config import RunConfig
from semseg.recipe import OneCycle, Recipe, prepare
from semseg.segmentation_model import Unet

SIZES = [(20, 4), (659, 4), (20_000, 8)]  # photos, batch size


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_the_learning_rate_rises_in_a_line_to_its_peak_and_falls_along_a_cosine():
    found = rates(OneCycle(0.4, steps=7, warm_up=3), range(9))
    cosine = [0.2 * (1 + np.cos(np.pi * done / 4)) for done in range(4)]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, *cosine, 0, 0], atol=1e-7)


@pytest.mark.parametrize("warm_up", [-1, 5])
def test_a_warm_up_longer_than_the_run_is_refused(warm_up):
    with pytest.raises(ValueError, match=f"warm_up={warm_up} of steps=5; expected at least 0, and below"):
        OneCycle(0.1, 5, warm_up)


@pytest.mark.parametrize("epochs", [1, 10, 200])
@pytest.mark.parametrize(("photos", "batch"), SIZES)
def test_every_size_of_run_learns_in_each_step_and_reaches_the_peak(photos, batch, epochs):
    per_epoch = -(-photos // batch)
    recipe = Recipe.suited(RunConfig(epochs=epochs, batch_size=batch), per_epoch)
    schedule = recipe.schedule()
    found = rates(schedule, np.unique(np.linspace(0, recipe.steps - 1, 500).astype(int)))
    assert recipe.steps == epochs * per_epoch and 0 <= recipe.warm_up <= 0.1 * recipe.steps
    assert found.min() > 0 and found.max() <= recipe.learning_rate * (1 + 1e-6)
    assert float(schedule(recipe.warm_up)) == pytest.approx(recipe.learning_rate)
    assert found.argmin() in (0, len(found) - 1)


def test_a_run_of_a_single_step_takes_it_at_full_rate():
    recipe = Recipe.suited(RunConfig(epochs=1, learning_rate=0.01), 1)
    assert float(recipe.optimizer().learning_rate) == pytest.approx(0.01)
    assert str(recipe).startswith("Muon, learning rate 0.01, falling along a cosine; starts from")


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.01), (5, 0.3981), (43, 0.8985), (44, 0.9), (5000, 0.9)])
def test_after_an_epoch_the_moving_averages_hold_at_most_a_hundredth_of_where_they_began(steps, momentum):
    recipe = Recipe.suited(RunConfig(), steps)
    assert recipe.batch_norm_momentum == pytest.approx(momentum, abs=1e-4)
    assert recipe.batch_norm_momentum**steps <= 0.01 * (1 + 1e-9)
    assert ("batch norm" in str(recipe)) == (steps < 44)


class TestPrepare:
    def prepared(self, num_logits, shares, **options):
        model = Unet((16, 16, 3), num_logits, filters=4, depth=1, **options)
        prepare(model, Recipe.suited(RunConfig(), 5), shares)
        return model

    def test_a_network_that_sees_nothing_gives_the_shares_of_the_classes(self):
        shares = np.array([0.7, 0.2, 0.1, 0.0])
        model = self.prepared(4, shares)
        bias = keras.ops.softmax(model.get_layer("logits").bias)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(bias), [0.7, 0.2, 0.1, 1e-4], atol=1e-4)

    def test_of_two_classes_the_single_logit_gives_that_of_the_second(self):
        model = self.prepared(1, np.array([0.8, 0.2]))
        bias = keras.ops.convert_to_numpy(model.get_layer("logits").bias)
        assert 1 / (1 + np.exp(-bias)) == pytest.approx([0.2])

    def test_moving_averages_of_short_epochs_move_faster_and_none_slower(self):
        momenta = {x.momentum for x in self.prepared(3, None).layers if hasattr(x, "momentum")}
        assert momenta == {Recipe.suited(RunConfig(), 5).batch_norm_momentum}

    def test_a_bias_that_was_learnt_stays(self):
        model = Unet((16, 16, 3), 3, filters=4, depth=1)
        model.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
        prepare(model, Recipe.suited(RunConfig(), 5), np.array([0.5, 0.3, 0.2]))
        assert keras.ops.convert_to_numpy(model.get_layer("logits").bias).tolist() == [1, 2, 3]

    def test_a_head_of_another_kind_is_left_as_it_is(self):
        inputs = keras.Input((8, 8, 3))
        outputs = keras.layers.UpSampling2D(2)(keras.layers.Conv2D(3, 1, strides=2, bias_initializer="ones")(inputs))
        model = keras.Model(inputs, outputs)
        prepare(model, Recipe.suited(RunConfig(), 5), np.array([0.5, 0.3, 0.2]))
        assert keras.ops.convert_to_numpy(model.layers[1].bias).tolist() == [1, 1, 1]
