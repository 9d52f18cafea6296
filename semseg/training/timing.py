"""How many epochs fit into a time: what an epoch of a network takes, measured before it is trained."""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context

import numpy as np

from semseg.architectures.cost import interleaved_medians
from semseg.backend.devices import keras_compiles, on_gpu
from semseg.data.base import Dataset
from semseg.data.batches import Batches
from semseg.data.cache import Cache
from semseg.data.opening import Tell, open_data
from semseg.runs.config import RunConfig
from semseg.training.loop import make_batches, new_model, training_model
from semseg.training.plan import Plan, plan_run
from semseg.training.recipe import fix_norms
from semseg.training.starting import freeze

RESERVE = 0.1  # of the time: loading, saving and logging, which steps alone do not show
_LOADED = 16  # batches of which the loading is measured


def epochs_in(minutes: float, seconds: float) -> int:
    """How many epochs of so many seconds fit into the minutes, at least one; a tenth of the time is kept back."""
    return max(1, int(60 * minutes * (1 - RESERVE) / seconds))


def epochs_of_run(minutes: float, config: RunConfig, dataset: Dataset, cache: Cache, tell: Tell) -> int:
    """How many epochs of a run fit into the time, at least one; its batch size may follow from their number.

    Args:
        minutes: For the training.
        config: What was asked for.
        dataset: From `open_data`, checked.
        cache: Of its samples.
        tell: Called with a topic and a sentence.
    """
    tell("measuring", f"how many epochs fit into {minutes:g} minutes")
    seconds: dict[int, float] = {}  # by batch size
    epochs, plan = config.epochs, _plan(config, config.epochs, dataset)
    while plan.batch_size not in seconds:
        seconds[plan.batch_size] = _seconds_of_epoch(plan, dataset, cache)
        epochs = epochs_in(minutes, seconds[plan.batch_size])
        plan = _plan(config, epochs, dataset)
    epochs = min(epochs, epochs_in(minutes, seconds[plan.batch_size]))  # two sizes may each ask for the other
    each = seconds[_plan(config, epochs, dataset).batch_size]
    longer = ", though it takes longer" if each > 60 * minutes else ""
    tell("epochs", f"{epochs} in {minutes:g} minutes ({each:.1f} s each){longer}")
    return epochs


def _plan(config: RunConfig, epochs: int, dataset: Dataset) -> Plan:
    return plan_run(replace(_without_weighting(config), epochs=epochs), dataset)


def _seconds_of_epoch(plan: Plan, dataset: Dataset, cache: Cache) -> float:
    """With the loading, which on a CPU takes time from the steps."""
    model = plan.config.model
    steps = measured_apart(plan.config, [model])[model]
    loading = sum(map(_loading_seconds, make_batches(dataset, plan, cache)))
    return max(steps, loading) if on_gpu() else steps + loading


def _loading_seconds(batches: Batches) -> float:
    """What it takes to load all batches of an epoch, estimated from the first."""
    count = min(len(batches), _LOADED)
    began = time.perf_counter()
    try:
        for index in range(count):
            _ = batches[index]
    finally:
        batches.close()
    return (time.perf_counter() - began) / count * len(batches)


def measured_apart(config: RunConfig, models: Sequence[str]) -> dict[str, float]:
    """`seconds_per_epoch` in a process of its own, which leaves no memory taken on a GPU and no generator moved."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(seconds_per_epoch, config, models).result()
        except KeyboardInterrupt:
            for process in active_children():  # the pool would wait for it
                process.kill()
            raise


def seconds_per_epoch(config: RunConfig, models: Sequence[str]) -> dict[str, float]:
    """The time that the steps of one epoch and its validation take, measured in turns on random photos.

    Args:
        config: What all runs share.
        models: Names of the networks.

    Returns:
        Seconds by network.
    """
    dataset = open_data(config, demo=True)
    functions: list[Callable[[], object]] = []
    steps = []
    for name in models:
        plan = plan_run(with_network(_without_weighting(config), name), dataset)
        batch = _random_batch(plan.config, dataset)
        per_epoch = plan.recipe.steps // plan.config.epochs
        steps.append((per_epoch, math.ceil(per_epoch * len(dataset.splits["val"]) / len(dataset.splits["train"]))))
        model = new_model(plan.config, dataset.num_logits, dataset.bands)
        freeze(model, plan.config.freeze or "none")
        fix_norms(model, plan.recipe)
        trained = training_model(model, plan)
        trained.compile(plan.recipe.optimizer(model), jit_compile=keras_compiles(config.compile))
        if config.compile:
            with suppress(Exception):  # the run itself tells
                trained.compile_graph(batch[0])
        functions += [partial(trained.train_on_batch, *batch), partial(trained.test_on_batch, *batch)]
    measured = iter(interleaved_medians(functions, rounds=7))
    return {
        name: train * next(measured) + val * next(measured) for name, (train, val) in zip(models, steps, strict=True)
    }


def _random_batch(config: RunConfig, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Photos and masks of a run."""
    size = (config.batch_size, *config.seen_size)
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (*size, dataset.bands.count)).astype(np.uint8)
    return photos, rng.integers(0, dataset.palette.num_classes, size).astype(np.uint8)


def with_network(config: RunConfig, model: str) -> RunConfig:
    """The same run with another network; only `encoder_unet` has an encoder to choose."""
    encoder = {} if model == "encoder_unet" else {"encoder": None, "encoder_weights": None}
    return replace(config, model=model, **encoder)


def _without_weighting(config: RunConfig) -> RunConfig:
    """What takes as long, and can be planned before the files are looked at."""
    return replace(config, class_weights="none", sample_rare=False, accumulate=1)
