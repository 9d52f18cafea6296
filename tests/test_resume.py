"""A training that is cut short and goes on ends as if nothing had happened."""

import itertools
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from semseg.backend import state
from semseg.runs import stalling
from semseg.runs.checkpoints import Checkpoints, Position
from semseg.runs.config import RunConfig
from semseg.runs.stalling import StalledError
from semseg.training import plan as planning
from semseg.training.loop import make_batches, train_model
from semseg.training.plan import plan_run
from semseg.training.saving import Saving

BACKEND = keras.backend.backend()
CONFIG = RunConfig(epochs=3, batch_size=4, image_size=(32, 32), filters=4, learning_rate=1e-2, seed=1, accumulate=2,
                   average=True)  # fmt: skip
STEPS = 3  # of an epoch: 12 photos in batches of 4
TIMES = ("seconds", "waiting")
SAVED = ("weights", "optimizer", "random.numpy", "random.keras")  # what a run's future depends on


class Cut(BaseException):
    """Stands for a signal."""


def network(dataset, seed):
    """Small, as compilers take their time; with kernels for both optimisers, moving averages and a random generator."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="down1_first")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.2)(keras.layers.Conv2D(8, 3, padding="same", name="between")(x))
    return keras.Model(inputs, keras.layers.Conv2D(dataset.num_logits, 1, name="logits")(x))


def train(dataset, folder, config=CONFIG, asked=10**9, callbacks=()):
    """Trains or goes on; is asked to stop at the `asked`-th look, counted over training and validation batches."""
    looks = iter(range(1, 10**6))
    checkpoints = Checkpoints(folder / "checkpoints")
    start = checkpoints.newest(pytest.fail, folder / "model.keras")
    saving = Saving(checkpoints, start=start, stop=lambda: Cut() if next(looks) >= asked else None)
    model = network(dataset, config.seed if start is None else 99)  # what goes on takes nothing from its own start
    plan, final = plan_run(config, dataset), {}
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: final.update(_arrays(note.model)))
    history = train_model(
        model, make_batches(dataset, plan), plan, model_path=folder / "model.keras",
        results_path=folder / "results.csv", callbacks=[*callbacks, note], saving=saving,
    )  # fmt: skip
    final = final or {name: start.arrays[name] for name in start.arrays if name.startswith(SAVED)}
    best = {f"best.{i}": value for i, value in enumerate(model.get_weights())}
    return {**final, **best}, [{name: row[name] for name in row if name not in TIMES} for row in history]


def _arrays(model):
    generators = {f"random.{name}": array for name, array in state.random_state().items()}
    drawn = {name: array for name, array in generators.items() if name.startswith(SAVED)}
    return {
        **state.arrays_of(model.variables, "weights"),
        **state.arrays_of(model.optimizer.variables, "optimizer"),
        **drawn,
    }


def assert_same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, array in one[0].items():
        np.testing.assert_array_equal(array, other[0][name], err_msg=str(name))


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    """What JAX compiled for one training serves the next ones."""
    if BACKEND != "jax":
        yield
        return
    import jax

    options = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
               "jax_persistent_cache_min_compile_time_secs": 0}  # fmt: skip
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    return train(dataset, tmp_path_factory.mktemp("whole"))


# Looks: batches 1 to 3 of an epoch, its one batch of validation, and its end.
@pytest.mark.parametrize(("asked", "position"), [
    (2, Position(0, 2)), (9, Position(1, 3)),
    *([(3, Position(0, 3)), (5, Position(1)), (6, Position(1, 1)), (13, Position(2, 3)),
      (14, Position(2, 3)), (15, Position(3))] if BACKEND == "torch" else []),
])  # fmt: skip
def test_a_run_that_was_cut_ends_as_the_whole_one(dataset, whole, tmp_path, asked, position):
    with pytest.raises(Cut):
        train(dataset, tmp_path, asked=asked)
    assert Checkpoints(tmp_path / "checkpoints").newest(pytest.fail).position == position
    workers = replace(CONFIG, workers=0 if asked % 2 else 3)
    assert_same(train(dataset, tmp_path, workers), whole)


@pytest.mark.parametrize("settings", [
    {"precision": "mixed_bfloat16", "remat": True, "workers": 0},
    {"precision": "mixed_float16", "accumulate": 1},
    {"model": "encoder_unet"},  # its first convolution has a learning rate of its own
    *([{"compile": True}] if BACKEND == "torch" else []),  # JAX always compiles; TensorFlow takes half a minute
    *([{"view": "crops", "scale": 2.0}] if BACKEND == "torch" else []),  # 4 of each photo; alike on all
], ids="+".join)  # fmt: skip
def test_so_does_one_in_another_precision_or_compiled_or_of_crops(dataset, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(planning, "usable_precision", lambda precision: (precision, ""))  # slow here, and right
    config = replace(CONFIG, epochs=2, **settings)
    whole = train(dataset, tmp_path / "whole", config)
    with pytest.raises(Cut):
        train(dataset, tmp_path, config, asked=2)
    assert_same(train(dataset, tmp_path, replace(config, workers=1)), whole)


def test_a_clock_that_jumps_changes_nothing(dataset, whole, tmp_path, monkeypatch):
    jumps = itertools.cycle((1.7e9, 1e9, 2e9))
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    assert_same(train(dataset, tmp_path), whole)


def test_a_loader_that_stalls_ends_a_run_with_its_state_and_the_file_named(dataset, whole, tmp_path, monkeypatch):
    load, count, ended = type(dataset).load, itertools.count(1), threading.Event()

    def stall(self, *arguments):
        if next(count) == 20:  # in epoch 2, as one takes 12 photos to train on and 4 for validation
            ended.wait()
        return load(self, *arguments)

    monkeypatch.setattr(type(dataset), "load", stall)
    monkeypatch.setattr(stalling, "_TICK", 0.1)
    monkeypatch.setattr(stalling, "GRACE", 600)
    with (
        stalling.Watch(pytest.fail, 1.0),
        pytest.raises(StalledError, match=r"\.png: not read or .*: the same command"),
    ):
        train(dataset, tmp_path)
    ended.set()
    assert Checkpoints(tmp_path / "checkpoints").last() > Position(0)
    assert_same(train(dataset, tmp_path), whole)


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends keep their generators in variables")
def test_what_pytorch_draws_depends_on_seed_epoch_batch_and_rank_alone(monkeypatch):
    import torch

    def draw(*numbers, rank=0):
        monkeypatch.setattr(state, "here", lambda: SimpleNamespace(rank=rank))
        state.seed_batch(*numbers)
        return float(torch.rand(()))

    first = draw(1, 2, 3)
    torch.rand(5)  # as a loader may
    assert draw(1, 2, 3) == first
    others = {draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(1, 2, 3, rank=1)}
    assert len(others | {first}) == 5
