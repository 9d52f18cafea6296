import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from helpers import IMPORT_KERAS, REPOSITORY
from keras import layers

from semseg.architectures import cost
from semseg.architectures.cost import (
    count_flops,
    count_parameters,
    interleaved_medians,
    peak_memory_mb,
    time_per_image,
    training_bytes,
)
from semseg.segmentation_model import Unet


def all_kinds():
    """Shared, strided, dilated, grouped, depthwise, separable, transposed and dense layers, and a model in a model."""
    inputs = keras.Input((32, 48, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    shared = layers.Conv2D(8, 3, padding="same")
    x = shared(shared(x))
    x = layers.Conv2D(12, 5, strides=2, padding="same")(x)
    x = layers.Conv2D(12, 3, dilation_rate=2, groups=3)(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2)(x)
    x = layers.SeparableConv2D(10, 3)(x)
    within = keras.Input((None, None, 10))
    inner = keras.Model(within, layers.Conv2D(10, 1)(within))
    x = keras.Sequential([layers.Conv2D(10, 2)])(inner(inner(x, training=False)))
    x = layers.Conv2DTranspose(6, 3, strides=2)(x)
    x = layers.Dense(5)(layers.BatchNormalization()(keras.ops.relu(x) + 1))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def torch_flops(model):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(keras.ops.zeros((1, *model.input_shape[1:])))  # on a GPU where there is one
    return counter.get_total_flops()


class TestFlops:
    @pytest.mark.skipif(keras.backend.backend() != "torch", reason="counts what torch does")
    @pytest.mark.parametrize("build", [lambda: Unet((64, 96, 3), 5, filters=4), all_kinds], ids=["unet", "all_kinds"])
    def test_equal_to_torch_own_count(self, build):
        model = build()
        assert count_flops(model) == torch_flops(model)

    def test_a_convolution_by_hand_on_every_backend(self):
        inputs = keras.Input((8, 6, 3))
        x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 4 x 3 places, 3 * 3 * 3 * 4 weights
        x = layers.Conv2DTranspose(2, 2, strides=2)(x)  # 4 x 3 places, 2 * 2 * 4 * 2 weights
        assert count_flops(keras.Model(inputs, x)) == 2 * 12 * (108 + 32)

    def test_counting_leaves_the_model_as_it_was(self):
        model = Unet((32, 32, 3), 2, filters=2)
        count_flops(model)
        assert model.get_layer("down1_conv1").output.shape == (None, 32, 32, 2)  # raises for a layer called twice

    def test_a_size_may_be_given_and_must_be_known(self):
        model = Unet((None, None, 3), 2, filters=2)
        assert count_flops(model) is None
        assert count_flops(model, (32, 64)) == count_flops(Unet((32, 64, 3), 2, filters=2))

    def test_a_model_without_a_graph_has_no_count(self):
        class Own(keras.Model):
            @property
            def inputs(self):
                return [keras.KerasTensor((None, 8, 8, 3))]

        assert count_flops(Own()) is None


def test_parameters_are_all_weights():
    model = Unet((32, 32, 3), 2, filters=2)
    assert count_parameters(model) == sum(int(np.prod(weight.shape)) for weight in model.weights)


class TestTime:
    @pytest.mark.plain
    def test_functions_take_turns_and_the_median_leaves_a_slow_round_out(self):
        called = []

        def slow():
            called.append("slow")
            time.sleep(0.2 if len(called) < 5 else 0.02)  # warm-up and one more round

        seconds = interleaved_medians([slow, lambda: called.append("fast")], rounds=5)
        assert called == ["slow", "fast"] * 6
        assert 0.02 <= seconds[0] < 0.15 and seconds[1] < 0.02

    def test_each_model_gets_milliseconds(self):
        times = time_per_image(
            [Unet((32, 32, 3), 2, filters=2), Unet((None, None, 1), 2, filters=2, depth=1)], rounds=2
        )
        assert len(times) == 2 and all(0 < value < 60_000 for value in times)


PEAK = """
import subprocess, sys
block = b"x" * 1_500_000_000
code = sys.argv[1] + "from semseg.architectures.cost import _peak_resident_bytes as peak; print(peak())"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
"""


class TestMemory:
    def test_the_peak_is_that_of_what_was_allocated(self, monkeypatch):
        monkeypatch.setattr(cost, "peak_device_bytes", lambda: None)  # on a GPU that of the GPU would count
        if sys.platform == "win32":
            assert peak_memory_mb() is None or peak_memory_mb() > 0
            return
        before = peak_memory_mb()
        assert np.ones(25_000_000).sum() == 25_000_000  # 200 MB
        assert 50 < before <= peak_memory_mb() and peak_memory_mb() > 200

    @pytest.mark.plain
    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux hands the parent's peak down")
    def test_the_parents_peak_does_not_count(self):
        command = [sys.executable, "-c", PEAK, IMPORT_KERAS]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert int(done.stdout) < 1_400_000_000


def test_memory_of_training_counts_what_layers_give_and_weights_three_times():
    photo = keras.Input((8, 8, 3))
    model = keras.Model(photo, layers.Conv2D(5, 1)(layers.ReLU()(layers.Conv2D(4, 3, padding="same")(photo))))
    outputs, weights = 2 * 8 * 8 * (4 + 5), (3 * 3 * 3 * 4 + 4) + (4 * 5 + 5)
    assert training_bytes(model, 2, (8, 8)) == 4 * (outputs + 3 * weights)
    any_size = keras.Model(x := keras.Input((None, None, 3)), layers.Conv2D(4, 1)(x))
    assert training_bytes(any_size, 2, (8, 8)) == 4 * (2 * 8 * 8 * 4 + 3 * 16)
