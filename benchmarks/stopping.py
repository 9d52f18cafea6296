"""How long does a run take to end when the system asks it to, and is anything lost?

`python benchmarks/stopping.py` sends SIGTERM to real trainings at moments drawn from all of their life: while libraries
and data are loaded, in a step, in the validation, within a save, and while the scores and the page are made. Each must
end with exit code 143 and keep its last state; the same command then goes on. Every run that was stopped is trained to
its end, and must be equal to one that nobody stopped. `--quick` sends three signals.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from resume import CHAIN, Bench, difference

MARKS = """
import os, sys
import keras
from semseg.cli import train
from semseg.runs.checkpoints import Checkpoints

def mark(name):
    with open("moment", "w") as file:
        file.write(name)

class Marks(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        mark("step")

    def on_test_begin(self, logs=None):
        mark("validation")

def train_model(*arguments, callbacks=(), before=train.train_model, **options):
    return before(*arguments, callbacks=[*callbacks, Marks()], **options)

def write(self, *arguments, before=Checkpoints.write):
    mark("save")
    before(self, *arguments)

def finish(*arguments, before=train._finish):
    mark("report")
    before(*arguments)

train.train_model, Checkpoints.write, train._finish = train_model, write, finish
"""
MOMENTS = ("loading", "step", "validation", "save", "report")
ALLOWED = 5.0  # seconds
QUICK = 3  # signals


def reach(bench: Bench, process: subprocess.Popen, moment: str) -> None:
    """Waits until a training is there, and then a little."""
    if moment == "loading":
        time.sleep(bench.rng.uniform(0.5, 3))
        return
    begun = bench.rng.randint(1, 8) if moment == "step" else 0
    path = bench.folder / "moment"
    while process.poll() is None:
        if path.exists() and path.read_text() == moment and bench.done() >= begun:
            break
        time.sleep(0.002)
    time.sleep(bench.rng.uniform(0, 0.05))


def stop(bench: Bench, output: str, moment: str) -> tuple[float, bool] | None:
    """Seconds until the end, and whether all was well; None where the training was over before."""
    (bench.folder / "moment").unlink(missing_ok=True)
    before = bench.saved(output)
    process = bench.start(output)
    reach(bench, process, moment)
    if process.poll() is not None:
        return None
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    text = process.communicate()[0]
    seconds = time.monotonic() - began
    if process.returncode == 0:  # it ended just then
        return None
    started = "semseg" in text  # before that nobody listens yet
    well = process.returncode == 143 or (process.returncode == -signal.SIGTERM and not started)
    if not well or bench.saved(output) < before:
        print(f"{output}, {moment}: ended with {process.returncode}\n{text[-2000:]}", flush=True)
    return seconds, well and bench.saved(output) >= before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three signals")
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = QUICK if options.quick else options.signals
    backend = os.environ.get("KERAS_BACKEND", "torch")
    seconds, lost, unequal, output = defaultdict(list), 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), backend, random.Random(options.seed))
        bench.prepare(MARKS)
        whole, sent = bench.result("whole"), 0
        while sent < count:
            for _ in range(CHAIN):
                moment = MOMENTS[sent % len(MOMENTS)]
                if sent == count or (stopped := stop(bench, f"stopped{output}", moment)) is None:
                    break
                sent += 1
                seconds[moment].append(stopped[0])
                lost += not stopped[1]
            bench.finish(f"stopped{output}")
            unequal += difference(bench.result(f"stopped{output}"), whole) != 0
            output += 1
    for moment in MOMENTS:
        print(f"{moment:10} {len(seconds[moment])} signals, at most {max(seconds[moment], default=0):.2f} s")
    every = [value for values in seconds.values() for value in values]
    times = f"p95={np.percentile(every, 95):.2f} slowest={max(every):.2f} late={sum(one > ALLOWED for one in every)}"
    print(f"RESULT signals={len(every)} {times} lost={lost} unequal={unequal}/{output}")


if __name__ == "__main__":
    main()
