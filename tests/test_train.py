import csv
from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest
from helpers import make_pairs

from semseg.architectures import build_model
from semseg.data import open_dataset
from semseg.data.batches import Batches
from semseg.data.cache import Cache
from semseg.data.check import check_dataset
from semseg.errors import DataError, NonFiniteLossError, ResourceError, SemsegError
from semseg.inference.logits import ids_of_logits
from semseg.losses import SegmentationLoss
from semseg.metrics.confusion import confusion_matrix, scores
from semseg.runs.config import RunConfig
from semseg.segmentation_model import Unet
from semseg.training import loop, memory
from semseg.training.callbacks import KeepBest
from semseg.training.loop import (
    TrainingModel,
    make_batches,
    train_model,
    training_model,
)
from semseg.training.memory import check_memory
from semseg.training.plan import plan_run
from semseg.training.recipe import prepare

CONFIG = RunConfig(epochs=3, batch_size=4, image_size=(32, 32), filters=4, learning_rate=1e-2, seed=1)
DEPTH = 1  # of the networks: compilers take their time for each layer


def run(dataset, folder, config=CONFIG, callbacks=(), cache=None):
    keras.utils.set_random_seed(config.seed)
    model = Unet((*config.image_size, 3), dataset.num_logits, filters=config.filters, depth=DEPTH)
    plan = plan_run(config, dataset)
    batches = make_batches(dataset, plan, cache)
    history = train_model(
        model, batches, plan, model_path=folder / "model.keras", results_path=folder / "results.csv",
        callbacks=callbacks,
    )  # fmt: skip
    return model, history


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A run: the model, the history, the folder, and which batches were asked for."""
    folder, asked, get = tmp_path_factory.mktemp("trained"), [], Batches._get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "_get", lambda self, i: (asked.append((self.shuffled, self.epoch, i)), get(self, i))[1])
        return (*run(dataset, folder), folder, asked)


@pytest.fixture(scope="module")
def again(dataset, tmp_path_factory):
    """The same run with a cache: the model, the history, and which samples were loaded."""
    folder, loaded, load = tmp_path_factory.mktemp("again"), [], type(dataset).load
    config = replace(CONFIG, workers=1)  # two threads may both load a sample: one for this epoch, one for the next
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(dataset), "load", lambda self, sample, size: loaded.append(sample) or load(self, sample, size)
        )
        return (*run(dataset, folder, config, cache=Cache(dataset.samples, CONFIG.image_size, "", folder)), loaded)


def test_the_loss_falls_and_every_epoch_has_its_row(trained):
    _, history, folder, _ = trained
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_mean_iou"]) for row in rows] == [row["val_mean_iou"] for row in history]
    assert set(rows[0]) == {
        "epoch", "loss", "accuracy", "mean_iou", "val_loss", "val_accuracy", "val_mean_iou", "learning_rate", "seconds",
        "waiting",
    }  # fmt: skip


def test_the_learning_rate_has_come_down_at_the_end(trained):
    rates = [row["learning_rate"] for row in trained[1]]
    assert max(rates) <= CONFIG.learning_rate
    assert rates[-1] < 0.01 * CONFIG.learning_rate


def test_the_reported_validation_scores_are_those_of_one_confusion_matrix_over_the_split(dataset, trained):
    model, history, *_ = trained
    batches = make_batches(dataset, plan_run(CONFIG, dataset))[1]
    matrix = sum(
        confusion_matrix(masks, ids_of_logits(np.asarray(model.predict_on_batch(photos))), 19)
        for photos, masks in batches
    )
    batches.close()
    best = max(history, key=lambda row: row["val_mean_iou"])
    assert scores(matrix)["macro_iou"] == pytest.approx(best["val_mean_iou"], abs=1e-4)
    assert scores(matrix)["accuracy"] == pytest.approx(best["val_accuracy"], abs=1e-4)


def test_the_saved_model_is_plain_keras_with_the_best_weights(trained):
    model, _, folder, _ = trained
    loaded = keras.saving.load_model(folder / "model.keras", safe_mode=True)
    assert type(loaded).__name__ == "Functional"
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_a_better_epoch_replaces_the_saved_weights(tmp_path):
    model = Unet((16, 16, 3), 2, filters=2, depth=1)
    keep = KeepBest(model, tmp_path / "model.keras")
    kernel = model.get_layer("logits").kernel
    saved = []
    for epoch, val_mean_iou in enumerate((0.5, 0.4, 0.5, 0.6)):
        kernel.assign(np.full(kernel.shape, epoch, "float32"))
        keep.on_epoch_end(epoch, {"val_mean_iou": val_mean_iou})
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        saved.append(float(np.array(loaded.get_layer("logits").get_weights()[0]).max()))
    assert saved == [0, 0, 0, 3]


def test_the_same_seed_gives_the_same_run_with_and_without_a_cache(trained, again):
    assert [row["loss"] for row in again[1]] == [row["loss"] for row in trained[1]]
    for ours, theirs in zip(again[0].get_weights(), trained[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_cache_loads_each_sample_once(dataset, again):
    assert sorted(again[2], key=str) == sorted(dataset.samples, key=str)


def test_the_first_step_gets_the_first_batch_and_every_epoch_its_own(trained):
    for_training = [(epoch, index) for shuffled, epoch, index in trained[3] if shuffled]
    expected = [(epoch, index) for epoch in range(3) for index in range(3)]
    assert for_training[-len(expected) :] == expected
    assert {epoch for epoch, _ in for_training[: -len(expected)]} <= {0}  # a look at the shapes beforehand


def test_a_file_that_breaks_during_training_is_named(tmp_path):
    make_pairs(tmp_path / "data", train=8, val=2)
    dataset = open_dataset(tmp_path / "data")
    for path in (tmp_path / "data" / "train").iterdir():
        path.write_text("broken meanwhile")
    with pytest.raises(DataError, match=r"train/\d\.png: not a picture"):
        run(dataset, tmp_path)


def test_any_error_in_loading_names_the_file_and_keeps_its_cause(dataset, tmp_path, monkeypatch):
    def fail(*_):
        raise IndexError("out of bounds")

    monkeypatch.setattr("semseg.data.augment.Augmentation.__call__", fail)
    with pytest.raises(DataError, match=r"train/\d+\.png: cannot be made ready .*out of bounds") as caught:
        run(dataset, tmp_path)
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_binary_task_trains_with_a_single_logit(pairs, tmp_path):
    binary = open_dataset(pairs, num_classes=2)
    config = RunConfig(epochs=2, batch_size=4, image_size=(32, 32), filters=4, loss="binary_cross_entropy+dice")
    model, history = run(binary, tmp_path, config)
    assert model.output_shape[-1] == 1
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_loss_that_is_no_number_stops_the_run(dataset, tmp_path):
    config = RunConfig(epochs=3, batch_size=4, image_size=(32, 32), filters=4, learning_rate=1e30)
    with pytest.raises(
        NonFiniteLossError, match=r"epoch \d, step \d: the loss is (nan|inf), at a learning rate"
    ) as caught:
        run(dataset, tmp_path, config)
    named = str(caught.value).partition("for the photos ")[2].partition(";")[0].split(", ")
    assert len(named) == 4 and {*named} <= {str(sample.photo) for sample in dataset.splits["train"]}


@pytest.mark.parametrize(
    "changes",
    [{"precision": "mixed_bfloat16"}, {"precision": "mixed_float16"}, {"remat": True}],
    ids=str,
)
def test_the_ways_to_save_memory_learn_and_leave_a_plain_model(dataset, trained, tmp_path, changes):
    if keras.backend.backend() == "jax" and not {"mixed_bfloat16", True} & set(changes.values()):
        pytest.skip("compiling takes too long: two ways must do")
    _, history = run(dataset, tmp_path, replace(CONFIG, **changes))
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["loss"] == pytest.approx(trained[1][-1]["loss"], rel=0.1)
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert {layer.dtype_policy.name for layer in saved.layers} == {"float32"}


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX keeps the weights to itself within an epoch")
def test_gradients_are_gathered_over_as_many_batches_as_asked_for(dataset, tmp_path):
    seen = []
    kernel = lambda model: keras.ops.convert_to_numpy(model.get_layer("logits").kernel).copy()  # noqa: E731
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(kernel(note.model)))
    _, history = run(dataset, tmp_path, replace(CONFIG, epochs=2, accumulate=2), callbacks=[note])
    changed = [(before != after).any() for before, after in pairwise(seen)]
    assert changed == [True, False, True, False, True]
    assert history[-1]["loss"] < history[0]["loss"]
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert {layer.dtype_policy.name for layer in saved.layers} == {"float32"}


def test_more_batches_for_a_step_than_there_are_is_refused(dataset, tmp_path):
    with pytest.raises(SemsegError, match="`accumulate`: got 10, and the run has 9 batches in all; expected at most"):
        run(dataset, tmp_path, replace(CONFIG, accumulate=10))


def test_a_compiler_that_fails_is_told_and_done_without(dataset, trained, tmp_path, monkeypatch):
    def fail(self, inputs):
        raise RuntimeError("no compiler\nand much more")

    monkeypatch.setattr(TrainingModel, "compile_graph", fail)
    keras.utils.set_random_seed(CONFIG.seed)
    model = Unet((32, 32, 3), dataset.num_logits, filters=CONFIG.filters, depth=DEPTH)
    lines = []
    plan = plan_run(replace(CONFIG, compile=True), dataset)
    history = train_model(
        model, make_batches(dataset, plan), plan, model_path=tmp_path / "model.keras",
        results_path=tmp_path / "results.csv", tell=lines.append,
    )  # fmt: skip
    told = ["does not work here (no compiler); training without"]
    assert lines == ([] if keras.backend.backend() == "jax" else told)  # JAX always compiles
    assert history[-1]["loss"] == pytest.approx(trained[1][-1]["loss"], rel=0.05)


@pytest.mark.plain
@pytest.mark.parametrize(("photos", "epochs", "accuracy"), [(12, 1, 0.4), (1, 60, 0.95)])
def test_the_shortest_run_learns_something_and_the_longest_all_there_is(pairs, tmp_path, photos, epochs, accuracy):
    dataset = open_dataset(pairs)
    dataset.splits = {"train": dataset.splits["train"][:photos], "val": dataset.splits["train"][:1]}
    config = replace(CONFIG, epochs=epochs, filters=8, augment="none")
    keras.utils.set_random_seed(0)
    model = Unet((32, 32, 3), dataset.num_logits, filters=8, depth=2)
    plan = plan_run(config, dataset, check_dataset(dataset))
    prepare(model, plan.recipe, plan.class_shares)
    paths = {"model_path": tmp_path / "model.keras", "results_path": tmp_path / "results.csv"}
    history = train_model(model, make_batches(dataset, plan), plan, **paths)
    assert history[-1]["val_accuracy"] > accuracy
    assert all(np.isfinite(list(row.values())).all() for row in history)


class TestMemory:
    def check(self, monkeypatch, free, **changes):
        monkeypatch.setattr(memory, "free_bytes", lambda: free)
        model = build_model("unet", (32, 32, 3), 19, filters=4)
        check_memory(model, replace(CONFIG, **{"batch_size": 64, **changes}))

    def test_a_run_that_fits_or_cannot_be_judged_begins(self, monkeypatch):
        for free in (None, 10**9):
            self.check(monkeypatch, free)
        self.check(monkeypatch, 10**6, remat=True)

    @pytest.mark.parametrize("accumulate", [1, 3])
    def test_one_that_cannot_fit_is_refused_with_what_would(self, monkeypatch, accumulate):
        message = (
            r"`batch_size` 64 with photos of 32x32 needs about 0.0 GB, and 0.0 GB were free; use `batch_size` \d+ "
        )
        with pytest.raises(ResourceError, match=message + r"and `accumulate` \d+ for as many") as caught:
            self.check(monkeypatch, 12_000_000, accumulate=accumulate)
        fitting, steps = (int(word) for word in str(caught.value).split() if word.isdecimal() and word != "64")
        assert 8 <= fitting < 64 and fitting * (steps - 1) < 64 * accumulate <= fitting * steps

    def test_where_no_photo_fits_only_other_ways_are_named(self, monkeypatch):
        with pytest.raises(ResourceError, match="not even one photo fits: use `remat`"):
            self.check(monkeypatch, 1000)
        with pytest.raises(ResourceError, match="`batch_size` 1 with photos of 32x32; use `remat`, a smaller"):
            self.check(monkeypatch, 1000, batch_size=1)

    def test_an_error_of_the_backend_becomes_that_line(self, dataset, tmp_path, monkeypatch):
        def fail(self, *_, **__):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr(TrainingModel, "fit", fail)
        monkeypatch.setattr(loop, "free_bytes", lambda: None)
        message = (
            "`batch_size` 4 with photos of 32x32; use `batch_size` 2 and `accumulate` 2 for as many photos per step"
        )
        with pytest.raises(ResourceError, match=message):
            run(dataset, tmp_path)


def test_every_output_learns_and_the_first_alone_is_judged_and_saved(dataset, tmp_path):
    keras.utils.set_random_seed(0)
    one = Unet((32, 32, 3), 19, filters=4, depth=DEPTH)
    side = keras.layers.Conv2D(19, 1, name="side")(one.get_layer("bottleneck_relu2").output)
    side = keras.layers.UpSampling2D(2, interpolation="bilinear")(side)
    model = keras.Model(one.input, [one.output, side])
    before = keras.ops.convert_to_numpy(model.get_layer("side").kernel).copy()
    plan = plan_run(CONFIG, dataset)
    paths = {"model_path": tmp_path / "m.keras", "results_path": tmp_path / "r.csv"}
    history = train_model(model, make_batches(dataset, plan), plan, **paths)
    assert history[-1]["loss"] < history[0]["loss"]
    assert np.abs(keras.ops.convert_to_numpy(model.get_layer("side").kernel) - before).max() > 1e-3
    saved = keras.saving.load_model(tmp_path / "m.keras")
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    np.testing.assert_allclose(saved.predict_on_batch(photos), one.predict_on_batch(photos), atol=1e-5)
    assert len(saved.outputs) == 1 and "side" not in {layer.name for layer in saved.layers}


def test_the_loss_of_several_outputs_is_their_mean():
    loss = SegmentationLoss("cross_entropy")
    inputs = keras.Input((4, 4, 3))
    outputs = [keras.layers.Conv2D(2, 1)(inputs) for _ in range(2)]
    truth = np.random.default_rng(0).integers(0, 2, (1, 4, 4))
    values = [np.random.default_rng(i).normal(size=(1, 4, 4, 2)).astype("float32") for i in (1, 2)]
    found = TrainingModel(inputs, outputs, loss, 2).compute_loss(y=truth, y_pred=values)
    assert float(found) == pytest.approx(np.mean([float(loss(truth, logits)) for logits in values]), rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch copies each number on its own")
def test_a_step_makes_no_tensors_of_numbers(dataset, monkeypatch):
    """On a GPU the host waits, for each of them, until all is done that was asked for before."""
    import torch

    model = build_model("unet", (32, 32, 3), dataset.num_logits, filters=4)
    plan = plan_run(CONFIG, dataset)
    trained = training_model(model, plan)
    trained.compile(plan.recipe.optimizer(model))
    photos, masks = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32), np.uint8)
    trained.train_on_batch(photos, masks)
    assert trained.optimizer.learning_rate > 0  # computed on the CPU, once a step
    made, as_tensor = [], torch.as_tensor
    monkeypatch.setattr(torch, "as_tensor", lambda x, *a, **o: (made.append(x), as_tensor(x, *a, **o))[1])
    trained.train_step((photos, masks))
    numbers = [x for x in made if isinstance(x, int | float) and not isinstance(x, bool)]
    assert len(numbers) <= 1  # Keras' own mean of the losses makes one, of the number of photos
