"""Where the time of the first command goes, from its start to its last file, beside the same job in plain PyTorch.

Commands take turns, each in a process of its own with an empty cache: `main.py` of this checkout; that of another one,
if `--against` names it; and `by_hand/training.py`, which an expert would write for the same photos. Network, size,
batches and epochs are the same. Stages:

    start    until the program has said its first line: imports
    look     until the first step may begin: the data found, read and checked, the network built
    first    the first epoch, with its validation
    later    each further epoch, the median
    end      from the last epoch to the end of the process: final scores, pictures, report

    python benchmarks/whole.py --against ../semseg-before --epochs 10 --rounds 3

RESULT: our seconds over plain PyTorch's for the whole (`over_plain`) and for a later epoch (`epoch_over_plain`), ours
over the other checkout's (`over_before`), and the medians of our own stages in seconds.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from semseg.data.demo import make_demo

HERE = Path(__file__).parents[1]
SIZE, BATCH, FILTERS = 128, 2, 16
STAGES = ("start", "look", "first", "later", "end", "all")


def timed(command: list[str], environment: dict[str, str], marks: tuple[str, ...]) -> dict[str, float]:
    """Seconds of each stage; a line that fits the first of the marks ends the first stage, and so on."""
    begun, times, epochs = time.perf_counter(), [], []
    process = subprocess.Popen(
        command, env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        now = time.perf_counter() - begun
        said.append(line)
        if len(times) < 2:
            if re.match(marks[len(times)], line):
                times.append(now)
        elif re.match(marks[2], line):
            epochs.append(now)
    if process.wait():
        sys.exit("".join(said))
    end = time.perf_counter() - begun
    lengths = [after - before for before, after in zip([times[1], *epochs[:-1]], epochs, strict=True)]
    later = statistics.median(lengths[1:]) if lengths[1:] else float("nan")
    values = (times[0], times[1] - times[0], lengths[0], later, end - epochs[-1], end)
    return dict(zip(STAGES, values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="DIR", type=Path, help="another checkout of semseg")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few photos, two epochs, one round")
    arguments = parser.parse_args()
    epochs, rounds = (2, 1) if arguments.quick else (arguments.epochs, arguments.rounds)
    checkouts = {"ours": HERE} | ({"before": arguments.against.resolve()} if arguments.against else {})
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in (*checkouts, "plain PyTorch")}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_demo(folder / "data", **({"num_train": 20, "num_val": 6} if arguments.quick else {}))
        for turn in range(rounds):
            for name, checkout in checkouts.items():
                command = [
                    sys.executable, str(checkout / "main.py"), "--data", str(folder / "data"), "--epochs", str(epochs),
                    "--batch-size", str(BATCH), "--model", "unet", "--filters", str(FILTERS),
                    "--image-size", str(SIZE), "--output", str(folder / f"{name}_{turn}"),
                ]  # fmt: skip
                paths = {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(folder / f"cache_{name}_{turn}")}
                row = timed(command, paths, ("semseg ", r" +epoch +loss", rf" +\d+/{epochs} "))
                measured[name].append(row)
            script = Path(__file__).parent / "by_hand" / "training.py"
            command = [sys.executable, str(script), str(folder / "data"), str(folder / f"plain_{turn}"), str(epochs)]
            row = timed(command, {}, ("imported", "ready", "epoch"))
            measured["plain PyTorch"].append(row)
    medians = {
        name: {stage: statistics.median(row[stage] for row in rows) for stage in STAGES}
        for name, rows in measured.items()
    }
    print(f"{'seconds':<16}" + "".join(f"{stage:>8}" for stage in STAGES))
    for name, row in medians.items():
        print(f"{name:<16}" + "".join(f"{row[stage]:8.2f}" for stage in STAGES))

    def ratio(other: str, stage: str) -> float:
        return statistics.median(a[stage] / b[stage] for a, b in zip(measured["ours"], measured[other], strict=True))

    before = f" over_before={ratio('before', 'all'):.3f}" if arguments.against else ""
    stages = " ".join(f"{stage}={medians['ours'][stage]:.2f}" for stage in STAGES)
    print(
        f"RESULT over_plain={ratio('plain PyTorch', 'all'):.3f} "
        f"epoch_over_plain={ratio('plain PyTorch', 'later'):.3f}{before} {stages}"
    )


if __name__ == "__main__":
    main()
