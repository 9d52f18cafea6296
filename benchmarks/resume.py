"""Kills real trainings at random moments and goes on: does each end as the one that nobody killed?

`python benchmarks/resume.py` trains a small network on drawn pairs, first in peace, then with kills: SIGKILL at any
moment, or in the middle of a save, and the same command again. The last state (weights, moving
averages, optimiser, generators), the history and the scores of the best weights are compared bit for bit. At the end it
trains the usual network and says which share of the time saving takes. `--quick` kills three times and leaves that out.

`--ranks 2` trains by torchrun and kills one of its processes, drawn anew each time: `slowest_end` is how long the
others took to end at most, in seconds, and each time one line must name the rank that has gone.
"""

import argparse
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIZE, PHOTOS, EPOCHS = 32, 24, 3
STEPS = PHOTOS // 4  # of an epoch
FLAGS = ("--data", "data", "--cache", "cache", "--image-size", str(SIZE), "--batch-size", "4", "--accumulate", "2",
         "--epochs", str(EPOCHS), "--model", "small:build", "--keep", "last",
         "--checkpoint-minutes", "0.01")  # fmt: skip
TIMES = ("seconds", "waiting")
CHAIN = 6  # kills of one run
# A network that compilers are soon done with; with dropout, moving averages and kernels for both optimisers. Beside it,
# what the bench needs to know of the training: a byte for every batch, and a mark within a save, which then lasts.
NETWORK = """
import os, time
import keras, numpy as np
from semseg.training.saving import SaveState

def build(input_shape, num_classes, *, filters=4):
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.2)(keras.layers.Conv2D(8, 3, padding="same")(x))
    return keras.Model(inputs, keras.layers.Conv2D(num_classes, 1)(x))

def count(self, batch, logs=None, after=SaveState.on_train_batch_end):
    if os.environ.get("RANK", "0") == "0":
        with open("batches", "ab") as file:
            file.write(b"x")
    time.sleep(0.05)
    after(self, batch, logs)

def save(file, _savez=np.savez, **arrays):
    _savez(file, **arrays)
    if "SLOW" in os.environ:
        open("saving", "w").close()
        time.sleep(1)

SaveState.on_train_batch_end, np.savez = count, save
"""


def draw_pairs(folder: Path) -> None:
    """Photos of two classes with their masks, half of them for validation."""
    rng = np.random.default_rng(0)
    for split, count in (("train", PHOTOS), ("val", PHOTOS // 2)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            mask = np.zeros((SIZE, SIZE), np.uint8)
            top, left = rng.integers(2, SIZE - 14, 2)
            mask[top : top + 12, left : left + 12] = 1
            photo = np.clip(90 + 80 * mask[..., None] + rng.normal(0, 30, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(photo).save(folder / split / "images" / f"{i}.png")
            Image.fromarray(mask).save(folder / split / "masks" / f"{i}.png")


@dataclass
class Bench:
    """Trainings on one backend, in a folder of their own."""

    folder: Path
    backend: str
    rng: random.Random
    ranks: int = 1
    ends: list[float] = field(default_factory=list)  # seconds from the kill of a rank to the end of all

    def prepare(self, more: str = "") -> None:
        """Draws the data, and trains once in peace; `more` is code that every training runs at its start."""
        (self.folder / "small.py").write_text(NETWORK + more)
        draw_pairs(self.folder / "data")
        self.finish("whole")

    def start(self, output: str, **environment: str) -> subprocess.Popen:
        """Begins a training, or goes on with it: the same command."""
        for name in ("batches", "saving"):
            (self.folder / name).unlink(missing_ok=True)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
        return subprocess.Popen(
            [sys.executable, *(launcher if self.ranks > 1 else []), str(ROOT / "main.py"), *FLAGS, "--output", output],
            env={**os.environ, "KERAS_BACKEND": self.backend, "OMP_NUM_THREADS": "1", **environment},
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def finish(self, output: str) -> None:
        """Trains to the end."""
        process = self.start(output)
        text = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"{self.backend}, {output}: ended with {process.returncode}\n{text[-2000:]}")

    def kill_between(self, output: str) -> int | None:
        """Kills a training at a moment drawn from what it has left; returns the batches that were lost."""
        begun = self.saved(output)
        process = self.start(output)
        left = EPOCHS * STEPS - begun
        self._wait(process, lambda: self.done() >= self.rng.randint(1, max(1, left // 2)))
        time.sleep(self.rng.uniform(0, 0.2))
        return self._kill(process, output, begun)

    def kill_in_save(self, output: str) -> int | None:
        """Kills a training when the arrays of a state are written, and its manifest is not."""
        begun = self.saved(output)
        process = self.start(output, SLOW="1")
        self._wait(process, (self.folder / "saving").exists)
        return self._kill(process, output, begun)

    def _wait(self, process: subprocess.Popen, happened: Callable[[], bool]) -> None:
        while process.poll() is None and not happened():
            time.sleep(0.005)

    def _kill(self, process: subprocess.Popen, output: str, begun: int) -> int | None:
        """None where there was no process any more."""
        alive = process.poll() is None
        if self.ranks == 1:
            process.kill()
            text = process.communicate()[0]
            as_expected = process.returncode in (0, -9)
        else:
            text, as_expected = self._kill_rank(process)
        if not as_expected:
            raise SystemExit(f"{self.backend}, {output}: ended with {process.returncode}\n{text[-2000:]}")
        return begun + self.done() - self.saved(output) if alive else None

    def _kill_rank(self, process: subprocess.Popen) -> tuple[str, bool]:
        """Kills one rank; returns what all said, and whether they ended with one line that names it."""
        rank = self.rng.randrange(self.ranks)
        victim = process_of_rank(rank, process.pid)
        began = time.monotonic()
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
        text = process.communicate()[0]
        if process.returncode == 0:
            return text, True
        self.ends.append(time.monotonic() - began)
        lines = re.findall("^error: .*", text, re.MULTILINE)
        return text, process.returncode == 1 and len(lines) == 1 and f"rank {rank} of {self.ranks}" in lines[0]

    def done(self) -> int:
        """Batches that the process in hand has trained on."""
        path = self.folder / "batches"
        return path.stat().st_size if path.exists() else 0

    def saved(self, output: str) -> int:
        """Batches until the newest state."""
        states = sorted((self.folder / output / "checkpoints").glob("state-*.json"))
        epoch, batch = map(int, states[-1].stem.split("-")[1:]) if states else (0, 0)
        return epoch * STEPS + batch

    def result(self, output: str) -> dict[str, np.ndarray]:
        """Everything that must be equal: the last state, the best weights' scores, and the history."""
        folder = self.folder / output
        with np.load(max((folder / "checkpoints").glob("state-*.npz"))) as file:
            # What Python itself draws goes into no training; other libraries draw from it as they like.
            found = {name: file[name] for name in file.files if name not in ("history", "random.python")}
        with (folder / "results.csv").open() as file:
            for row in csv.DictReader(file):
                found |= {f"{row['epoch']} {name}": np.float64(row[name]) for name in row if name not in TIMES}
        metrics = json.loads((folder / "metrics.json").read_text())
        return found | {name: np.float64(metrics[name]) for name in ("best_epoch", "macro_iou", "accuracy")}


def process_of_rank(rank: int, parent: int) -> int | None:
    """The process of a rank that torchrun started; None where there is none."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    for child in children.stdout.split():
        try:
            variables = Path(f"/proc/{child}/environ").read_text(encoding="utf-8").split("\0")
        except OSError:  # it ended meanwhile
            continue
        if f"RANK={rank}" in variables:
            return int(child)
    return None


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest, printed where there is one; infinite where arrays are missing."""
    if one.keys() != other.keys():
        print("not in both:", sorted(one.keys() ^ other.keys()))
        return float("inf")
    largest = 0.0
    for name, array in one.items():
        both = (np.nan_to_num(each.astype(np.float64)) for each in (array, other[name]))
        apart = float(np.max(np.abs(np.subtract(*both)), initial=0.0))
        if apart:
            print(f"{name}: differs by {apart:g}")
        largest = max(largest, apart)
    return largest


def overhead(folder: Path, backend: str) -> float:
    """Share of the time that saving takes, by default, of a U-Net on the demo set."""
    command = [sys.executable, str(ROOT / "main.py"), "--epochs", "2", "--keep", "last", "--output", "usual"]
    subprocess.run(command, cwd=folder, env={**os.environ, "KERAS_BACKEND": backend}, check=True, capture_output=True)
    newest = max((folder / "usual" / "checkpoints").glob("state-*.json"))
    facts = json.loads(newest.read_text())["content"]["facts"]
    return facts["saving"] / facts["elapsed"]


@dataclass
class Tally:
    """What became of the kills, on one backend or on several."""

    lost: list[int]  # batches, by kill
    equal: int = 0
    runs: int = 0
    difference: float = 0.0
    in_saves: int = 0

    def add(self, other: "Tally") -> None:
        """Adds another backend's."""
        self.lost += other.lost
        self.equal, self.runs = self.equal + other.equal, self.runs + other.runs
        self.difference, self.in_saves = max(self.difference, other.difference), self.in_saves + other.in_saves

    def __str__(self) -> str:
        p95 = np.percentile(self.lost, 95) if self.lost else 0
        return (
            f"kills={len(self.lost)} in_saves={self.in_saves} equal={self.equal}/{self.runs} lost_batches_p95={p95:g} "
            f"difference={self.difference:g}"
        )


def kill_often(bench: Bench, kills: int) -> Tally:
    """Kills trainings so many times, several times each, and compares what they end with."""
    whole, tally = bench.result("whole"), Tally([])
    while len(tally.lost) < kills:
        output = f"cut{tally.runs}"
        tally.runs += 1
        for number in range(min(CHAIN, kills - len(tally.lost))):
            in_save = number % 3 == 2
            batches = bench.kill_in_save(output) if in_save else bench.kill_between(output)
            if batches is None:  # it was over before
                break
            tally.lost.append(batches)
            tally.in_saves += in_save
        bench.finish(output)
        found = difference(bench.result(output), whole)
        tally.equal, tally.difference = tally.equal + (found == 0), max(tally.difference, found)
        print(f"{bench.backend} {output}: difference {found:g}, lost so far {tally.lost}", flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three kills on one backend")
    parser.add_argument(
        "--backends", help="joined by commas, such as torch,tensorflow,jax; default: KERAS_BACKEND, else torch"
    )
    parser.add_argument("--kills", type=int, default=36, help="on each backend, one in three within a save")
    parser.add_argument("--ranks", type=int, default=1, help="processes of one training, on torch alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total, shares, ends = Tally([]), [], []
    for backend in (options.backends or os.environ.get("KERAS_BACKEND", "torch")).split(","):
        with tempfile.TemporaryDirectory() as name:
            bench = Bench(Path(name), backend, random.Random(options.seed), options.ranks)
            bench.prepare()
            tally = kill_often(bench, 3 if options.quick else options.kills)
            ends += bench.ends
            if not (options.quick or options.ranks > 1):
                shares.append(overhead(bench.folder, backend))
            print(f"{backend}: {tally}", flush=True)
            total.add(tally)
    slowest = f" slowest_end={max(ends):.1f}" if ends else ""
    print(f"RESULT {total} overhead={f'{max(shares):.4f}' if shares else '-'}{slowest}")


if __name__ == "__main__":
    main()
