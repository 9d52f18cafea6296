import keras
import numpy as np
import pytest

from semseg.runs.config import RunConfig
from semseg.segmentation_model import Unet
from semseg.training.recipe import Recipe, prepare

SIZES = [(20, 4), (659, 4), (20_000, 8)]  # photos, batch size


@pytest.mark.parametrize("epochs", [1, 10, 200])
@pytest.mark.parametrize(("photos", "batch"), SIZES)
def test_the_rate_of_every_size_of_run_falls_from_its_peak_to_0_along_a_cosine(photos, batch, epochs):
    per_epoch = -(-photos // batch)
    recipe = Recipe.suited(RunConfig(epochs=epochs, batch_size=batch), per_epoch)
    schedule = recipe.schedule()
    done = np.linspace(0, 1, 101)
    found = [float(schedule(int(share * recipe.steps))) for share in done]
    assert recipe.steps == epochs * per_epoch
    reached = (done * recipe.steps).astype(int) / recipe.steps
    np.testing.assert_allclose(found, recipe.learning_rate * (1 + np.cos(np.pi * reached)) / 2, atol=1e-8)


def test_a_run_of_a_single_step_takes_it_at_full_rate():
    recipe = Recipe.suited(RunConfig(epochs=1, learning_rate=0.01), 1)
    assert float(recipe.optimizer(Unet((16, 16, 3), 2, filters=2, depth=1)).learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.01), (5, 0.3981), (43, 0.8985), (44, 0.9), (5000, 0.9)])
def test_after_an_epoch_the_moving_averages_hold_at_most_a_hundredth_of_where_they_began(steps, momentum):
    recipe = Recipe.suited(RunConfig(), steps)
    assert recipe.batch_norm_momentum == pytest.approx(momentum, abs=1e-4)
    assert recipe.batch_norm_momentum**steps <= 0.01 * (1 + 1e-9)


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
