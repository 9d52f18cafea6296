"""Seconds per epoch of main.py's training, on the demo data or on any others, split into where they go.

Steps: from the start of a training step to its end. Loading: from the end of a step to the start of the next, while
the loop waits for data. Evaluation: over the whole validation split. The rest: saving, logging and all else. The first
epoch, in which backends compile and caches fill, is shown but not counted; medians are over the others.

    KERAS_BACKEND=torch python benchmarks/epoch.py
    KERAS_BACKEND=torch python benchmarks/epoch.py --data my_data --epochs 3

RESULT's `overhead` is the epoch without evaluation over its number of steps times the time of a bare step, measured
afterwards with nothing beside it: 1.00 means that loading, augmentation, metrics and logging cost nothing. `first_step`
are the seconds from the start of the process to the end of the first step, all imports included (Linux only).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np

from semseg.architectures import build_model
from semseg.backend.devices import device_name, leave_tensorflow_out
from semseg.data import open_dataset
from semseg.data.cache import Cache
from semseg.data.demo import make_demo
from semseg.runs.config import RunConfig
from semseg.training.loop import make_batches, train_model
from semseg.training.plan import plan_run

PARTS = ("steps", "loading", "evaluation", "rest")
SIZE = (128, 128)


def seconds_of_process() -> float:
    """Since its start, as Linux counts."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


class Stopwatch(keras.callbacks.Callback):
    """Seconds of each epoch by part; an epoch lasts until the next one begins."""

    def __init__(self):
        super().__init__()
        self.epochs = []
        self.running = self.first_step = self.bare_step = None

    def on_epoch_begin(self, epoch, logs=None):
        self._finish_epoch()
        self.running = dict.fromkeys(PARTS, 0.0)
        self.began = self.mark = time.perf_counter()

    def on_train_batch_begin(self, batch, logs=None):
        self._add("loading")

    def on_train_batch_end(self, batch, logs=None):
        self._add("steps")
        self.first_step = self.first_step or seconds_of_process()

    def on_test_begin(self, logs=None):
        self.mark = time.perf_counter()

    def on_test_end(self, logs=None):
        self._add("evaluation")

    def on_train_end(self, logs=None):
        self._finish_epoch()

    def _add(self, part):
        now = time.perf_counter()
        self.running[part] += now - self.mark
        self.mark = now

    def _finish_epoch(self):
        if self.running:
            self.running["rest"] = time.perf_counter() - self.began - sum(self.running.values())
            self.epochs.append(self.running)


def bare_step(model: keras.Model, photos: np.ndarray, masks: np.ndarray) -> float:
    """Median seconds of a training step on one and the same batch."""
    seconds = []
    for _ in range(25):
        start = time.perf_counter()
        model.train_on_batch(photos, masks)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[5:])


def measure(data: str | None, epochs: int, quick: bool) -> Stopwatch:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        leave_tensorflow_out()
        if data is None:
            make_demo(root / "images", num_train=40 if quick else 200, num_val=10 if quick else 50)
        config = RunConfig(model="unet", epochs=epochs, batch_size=4, image_size=SIZE)
        dataset = open_dataset(data or root / "images")
        plan = plan_run(config, dataset)
        keras.utils.set_random_seed(config.seed)
        model = build_model(config.model, (*SIZE, 3), dataset.num_logits, filters=config.filters)
        watch = Stopwatch()
        cache = Cache(dataset.samples, SIZE, "benchmark", root)
        train_model(
            model,
            make_batches(dataset, plan, cache),
            plan,
            model_path=root / "model.keras",
            results_path=root / "results.csv",
            callbacks=[watch],
        )
        watch.bare_step = bare_step(watch.model, *make_batches(dataset, plan, cache)[0][0])
        photos = ", ".join(f"{len(samples)} {name}" for name, samples in dataset.splits.items())
        print(f"{keras.backend.backend()} on {device_name()}: {photos} photos, {SIZE[0]} pixels, "
              f"{config.filters} filters, batches of {config.batch_size}")  # fmt: skip
    return watch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40 training photos and 3 epochs")
    parser.add_argument("--data", help="a folder of photos and masks in place of the demo data")
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    watch = measure(arguments.data, 3 if arguments.quick else arguments.epochs, arguments.quick)
    epochs = watch.epochs
    print("epoch " + "".join(f"{part:>12}" for part in (*PARTS, "all")))
    for number, epoch in enumerate(epochs, start=1):
        print(f"{number:5} " + "".join(f"{seconds:12.3f}" for seconds in (*epoch.values(), sum(epoch.values()))))
    medians = {part: statistics.median(epoch[part] for epoch in epochs[1:]) for part in PARTS}
    total = statistics.median(sum(epoch.values()) for epoch in epochs[1:])
    steps = watch.params["steps"]
    overhead = (total - medians["evaluation"]) / (steps * watch.bare_step)
    print("share " + "".join(f"{medians[part] / total:12.1%}" for part in PARTS))
    print(
        f"RESULT epoch={total:.3f} "
        + " ".join(f"{part}={seconds:.3f}" for part, seconds in medians.items())
        + f" bare_step={watch.bare_step:.4f} overhead={overhead:.3f} first_step={watch.first_step:.1f}"
    )


if __name__ == "__main__":
    main()
