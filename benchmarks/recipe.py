"""What ten epochs buy: the recipe of main.py beside those of two projects that users come from, and without each part.

    python benchmarks/recipe.py --data cityscapes_pairs
    python benchmarks/recipe.py --data cityscapes_pairs --ablation

Every contender trains the same U-Net on the same photos, with the same step (`semseg.training.loop.TrainingModel`), so
that minutes compare recipes and nothing else. A floor goes on until it has had both as many epochs and as many minutes
of training as ours; minutes count training, not judging. Scores are of the validation split at the network's size, of
the last epoch for ours and of the best one for the floors. Trainings that are done are kept in `--results`, not
repeated.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import matplotlib.pyplot as plt
from keras.optimizers.schedules import CosineDecay

from semseg.backend.devices import device_name, leave_tensorflow_out
from semseg.backend.kernels import ADAMW
from semseg.data import open_dataset
from semseg.data.base import Dataset
from semseg.data.cache import Cache
from semseg.data.check import Findings, check_dataset
from semseg.data.demo import make_demo
from semseg.runs.checkpoints import Position
from semseg.runs.config import RunConfig
from semseg.segmentation_model import Unet
from semseg.training.callbacks import CountEpochs
from semseg.training.loop import make_batches, training_model
from semseg.training.plan import plan_run
from semseg.training.recipe import Recipe, prepare

OURS = "semseg"


class Constant(Recipe):
    """A learning rate that stays at its peak."""

    def schedule(self) -> float:
        return self.learning_rate


class WarmingUp(Recipe):
    """A learning rate that rises in the first tenth of the run."""

    def schedule(self) -> keras.optimizers.schedules.LearningRateSchedule:
        rising = self.steps // 10
        return CosineDecay(0.0, self.steps - rising, warmup_target=self.learning_rate, warmup_steps=rising)


class WithAdamW(Recipe):
    """AdamW for all weights."""

    def optimizer(self, model: keras.Model) -> keras.optimizers.Optimizer:
        optimizer = ADAMW(self.schedule(), weight_decay=self.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer


@dataclass(frozen=True)
class Contender:
    """A way to train, as it differs from ours.

    Attributes:
        config: Fields of `RunConfig`.
        recipe: Fields of `Recipe`.
        kind: Of recipe.
        momentum: Of batch normalisation; None for ours.
        bias: Whether the last bias starts from the classes' shares.
        normalization: Of the U-Net.
        optimizer: In place of the recipe's.
        averaged: Whether the weights that are judged in the end are an average over the last steps.
    """

    config: dict = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    kind: type[Recipe] = Recipe
    momentum: float | None = None
    bias: bool = True
    normalization: str = "batch"
    optimizer: Callable[[], keras.optimizers.Optimizer] | None = None
    averaged: bool = False


def floor(rate: float, batch_size: int, normalization: str) -> Contender:
    return Contender(
        config={"loss": "cross_entropy", "augment": "none", "batch_size": batch_size},
        momentum=0.99,
        bias=False,
        normalization=normalization,
        optimizer=lambda: keras.optimizers.Adam(rate),
    )


FLOORS = {
    "B: batch norm, Adam 1e-4": floor(1e-4, 8, "batch"),
    "E: no batch norm, Adam 1e-3": floor(1e-3, 10, "none"),
}
CHANGED = {
    "AdamW": Contender(kind=WithAdamW),
    "cross-entropy alone": Contender(config={"loss": "cross_entropy"}),
    "no flips": Contender(config={"augment": "none"}),
    "constant learning rate": Contender(kind=Constant),
    "no weight decay": Contender(recipe={"weight_decay": 0.0}),
    "batch norm momentum .99": Contender(momentum=0.99),
    "last bias from 0": Contender(bias=False),
    "turned and recoloured, too": Contender(
        config={"augment": "rotation=3,brightness=0.1,contrast=0.1,saturation=0.1"}
    ),
    "warm-up, too": Contender(kind=WarmingUp),
    "classes weighted, too": Contender(config={"class_weights": "effective"}),
    "weights averaged, too": Contender(averaged=True),
}


@dataclass(frozen=True)
class Task:
    """Data and size that all contenders share."""

    dataset: Dataset
    findings: Findings
    cache: Cache
    config: RunConfig


class Judge(keras.callbacks.Callback):
    """Scores after each epoch, with the minutes of training until then; ends when both budgets are spent."""

    def __init__(self, batches, epochs: int, minutes: float):
        super().__init__()
        self.batches, self.epochs, self.minutes = batches, epochs, minutes
        self.rows, self.trained = [], 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.trained += (time.perf_counter() - self.began) / 60
        self.rows.append({"minutes": round(self.trained, 3), **self.scores()})
        if epoch + 1 >= self.epochs and self.trained >= self.minutes:
            self.model.stop_training = True

    def scores(self) -> dict[str, float]:
        found = self.model.evaluate(self.batches, verbose=0, return_dict=True)
        return {name: round(float(found[name]), 4) for name in ("accuracy", "mean_iou", "loss")}


class Average(keras.callbacks.Callback):
    """Averages the weights over the last 100 steps or so; in the end they are used, batch norm measured anew."""

    DECAY, BATCHES = 0.99, 100

    def __init__(self, network: keras.Model, batches):
        super().__init__()
        self.network, self.batches, self.steps = network, batches, 0

    def on_train_begin(self, logs=None):
        self.averages = [keras.ops.copy(weight.value) for weight in self.network.trainable_variables]

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        kept = min(self.DECAY, self.steps / (self.steps + 10))
        self.averages = [
            kept * average + (1 - kept) * keras.ops.stop_gradient(weight.value)
            for average, weight in zip(self.averages, self.network.trainable_variables, strict=True)
        ]

    def on_train_end(self, logs=None):
        for average, weight in zip(self.averages, self.network.trainable_variables, strict=True):
            weight.assign(average)
        norms = [layer for layer in self.network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for step in range(self.BATCHES):
            for layer in norms:
                layer.momentum = step / (step + 1)
            photos, _ = self.batches[step % len(self.batches)]
            self.network(photos, training=True)


def learn(task: Task, contender: Contender, seed: int, minutes: float = 0.0) -> dict:
    """Trains once; returns a row per epoch and the IoU of each class at the end."""
    config = replace(task.config, seed=seed, **contender.config)
    keras.utils.set_random_seed(seed)
    shape = (*config.image_size, 3)
    model = Unet(shape, task.dataset.num_logits, filters=config.filters, normalization=contender.normalization)
    plan = plan_run(config, task.dataset, task.findings)
    train, val = make_batches(task.dataset, plan, task.cache)
    recipe = replace(contender.kind(**asdict(plan.recipe)), **contender.recipe)
    prepare(model, recipe, plan.class_shares if contender.bias else None)
    for layer in model.layers:
        if contender.momentum and isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = contender.momentum
    trained = training_model(model, plan)
    optimizer = contender.optimizer() if contender.optimizer else recipe.optimizer(model)
    trained.compile(optimizer, jit_compile=keras.backend.backend() == "jax")
    judge = Judge(val, config.epochs, minutes)
    most = config.epochs if contender.optimizer is None else 100 * config.epochs
    callbacks = [CountEpochs(train, seed, Position(0)), judge, *([Average(model, train)] if contender.averaged else [])]
    try:
        trained.fit(train, epochs=most, shuffle=False, verbose=0, callbacks=callbacks)
        if contender.averaged:
            judge.rows[-1] |= judge.scores()
    finally:
        train.close()
        val.close()
    matrix = trained.confusion_matrix.matrix()
    hits = matrix.diagonal()
    iou = hits / (matrix.sum(axis=0) + matrix.sum(axis=1) - hits).clip(1)
    return {"rows": judge.rows, "iou": dict(zip(task.dataset.palette.names, iou.round(4).tolist(), strict=True))}


class Results:
    """Trainings by contender and seed, kept in a file of JSON lines; those of another setting do not count."""

    def __init__(self, path: Path | None, setting: dict):
        self.path, self.setting, self.found = path, setting, {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                if row["setting"] == setting:
                    self.found[row["name"], row["seed"]] = row

    def get(self, name: str, seed: int, train: Callable[[], dict]) -> dict:
        if (name, seed) not in self.found:
            row = {"name": name, "seed": seed, "setting": self.setting, **train()}
            self.found[name, seed] = row
            last = row["rows"][-1]
            print(f"{name}, seed {seed}: accuracy {last['accuracy']:.3f}, mean IoU {last['mean_iou']:.3f} after "
                  f"{len(row['rows'])} epochs, {last['minutes']:.1f} minutes", flush=True)  # fmt: skip
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        return self.found[name, seed]


def make_task(arguments: argparse.Namespace, root: Path) -> Task:
    data = arguments.data
    if data is None:
        make_demo(root / "images", num_train=24, num_val=8)
        data = root / "images"
    config = RunConfig(
        data=str(data), model="unet", epochs=arguments.epochs, image_size=(arguments.size, arguments.size),
        filters=arguments.filters, precision=arguments.precision,
    )  # fmt: skip
    dataset = open_dataset(data)
    dataset.splits["train"] = dataset.splits["train"][:: arguments.every]
    cache = Cache(dataset.samples, config.image_size, "benchmark", root)
    findings = check_dataset(dataset, cache=cache, image_size=config.image_size)
    return Task(dataset, findings, cache, config)


def at_minutes(rows: list[dict], minutes: float) -> list[dict]:
    return [row for row in rows if row["minutes"] <= minutes] or rows[:1]


def best(rows: list[dict], score: str) -> float:
    return max(row[score] for row in rows)


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} +-{statistics.stdev(values):.3f}"


def against_floors(task: Task, results: Results, seeds: range, plot: Path | None) -> str:
    runs, minutes = {name: [] for name in (OURS, *FLOORS)}, []
    for seed in seeds:
        ours = results.get(OURS, seed, partial(learn, task, Contender(), seed))
        minutes.append(ours["rows"][-1]["minutes"])
        runs[OURS].append(ours)
        for name, contender in FLOORS.items():
            runs[name].append(results.get(name, seed, partial(learn, task, contender, seed, minutes[-1])))
    epochs, median = task.config.epochs, statistics.median(minutes)
    print(f"\n| recipe | accuracy | mean IoU | minutes | accuracy in {median:.1f} minutes | mean IoU | epochs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, trainings in runs.items():
        cells = [name]
        by_epochs = [run["rows"][:epochs] for run in trainings]
        by_minutes = [at_minutes(run["rows"], budget) for run, budget in zip(trainings, minutes, strict=True)]
        for kept in (by_epochs, by_minutes):
            for score in ("accuracy", "mean_iou"):
                cells.append(spread([rows[-1][score] if name == OURS else best(rows, score) for rows in kept]))
            if kept is by_epochs:
                cells.append(f"{statistics.median(rows[-1]['minutes'] for rows in kept):.1f}")
        cells.append(f"{statistics.median(len(rows) for rows in by_minutes):.0f}")
        print("| " + " | ".join(cells) + " |")
    if plot is not None:
        draw(runs, plot)
    final = {score: statistics.mean(run["rows"][-1][score] for run in runs[OURS]) for score in ("accuracy", "mean_iou")}
    floors = max(
        statistics.mean(best(run["rows"], "mean_iou") for run in trainings)
        for name, trainings in runs.items()
        if name != OURS
    )
    return f"RESULT accuracy={final['accuracy']:.3f} miou={final['mean_iou']:.3f} floor_miou={floors:.3f}"


def ablation(task: Task, results: Results, seeds: range) -> None:
    print("\n| recipe | accuracy | mean IoU | difference to ours, by seed |\n| --- | --- | --- | --- |")
    ours = [results.get(OURS, seed, partial(learn, task, Contender(), seed))["rows"][-1] for seed in seeds]
    for name, contender in {OURS: Contender(), **CHANGED}.items():
        last = [results.get(name, seed, partial(learn, task, contender, seed))["rows"][-1] for seed in seeds]
        gaps = [f"{a['mean_iou'] - b['mean_iou']:+.3f}" for a, b in zip(last, ours, strict=True)]
        scores = [spread([row[score] for row in last]) for score in ("accuracy", "mean_iou")]
        print(f"| {name} | {' | '.join(scores)} | {'' if name == OURS else ' '.join(gaps)} |")


def draw(runs: dict[str, list[dict]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, (name, trainings) in enumerate(runs.items()):
        for k, run in enumerate(trainings):
            minutes, scores = ([row[key] for row in run["rows"]] for key in ("minutes", "mean_iou"))
            axes.plot(minutes, scores, color=f"C{number}", label=None if k else name, marker="o", ms=3, lw=1)
    axes.set(xlabel="minutes of training", ylabel="mean IoU on validation", ylim=(0, None), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="demo data, 2 epochs, one seed")
    parser.add_argument("--data", help="a folder of photos and masks in place of the demo data")
    parser.add_argument("--every", type=int, default=3, help="train on every n-th photo")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--ablation", action="store_true", help="our recipe changed in one part at a time, too")
    parser.add_argument("--results", type=Path, help="file of trainings, kept and not repeated")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    arguments = parser.parse_args()
    if arguments.quick:
        small = {"epochs": 2, "seeds": 1, "every": 1, "size": 64, "filters": 4}
        arguments = argparse.Namespace(**{**vars(arguments), **small})
    leave_tensorflow_out()
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(arguments, Path(folder))
        photos = ", ".join(f"{len(samples)} {name}" for name, samples in task.dataset.splits.items())
        print(f"{keras.backend.backend()} on {device_name()}, {arguments.precision}: {photos} photos, {arguments.size} "
              f"pixels, {arguments.filters} filters, {arguments.epochs} epochs\n")  # fmt: skip
        same = ("data", "every", "epochs", "size", "filters", "precision")
        results = Results(arguments.results, {name: getattr(arguments, name) for name in same})
        seeds = range(arguments.seeds)
        if arguments.ablation:
            ablation(task, results, seeds)
        print(against_floors(task, results, seeds, arguments.plot))


if __name__ == "__main__":
    main()
