"""Whole photos against crops, at equal minutes of training: which view does each data set want, and does the plan know?

    SEMSEG_DATA=shared/data python benchmarks/views.py

Each contender is the command as users give it, with `--minutes`, on the folders of `SEMSEG_DATA`: vessels (drive), cell
membranes (em), streets (camvid) and cars (carvana); minutes are meant for one core (`OMP_NUM_THREADS=1`). Scores are
those of the run itself, at the masks' own size: Dice of vessels and of cars, mean IoU of the others. The plan is right
where its score is the best, or within the spread of the seeds of it. Trainings that are done are kept in `--results`,
not repeated, nor is one that the plan has chosen. `--quick` trains two epochs on drawn lines.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Set:
    """A data set.

    Attributes:
        folder: Below `SEMSEG_DATA`.
        flags: To read it.
        minutes: Of training.
        score: From the run's metrics: `"dice"` of the last class, or `"iou"`, the mean.
        views: Flags of the contenders by name; the plan decides in the one without any.
    """

    folder: str
    minutes: float
    score: str
    flags: tuple[str, ...] = ()
    views: tuple[tuple[str, ...], ...] = ((), ("--image-size", "128"), ("--image-size", "256"), ("--view", "crops"))


SETS = {
    "drive": Set("drive/training", 5, "dice", ("--ignore-outside", "mask")),
    "em": Set("em", 8, "iou"),
    "camvid": Set("camvid", 5, "iou"),
    "carvana": Set("carvana", 5, "dice"),
}


def draw_lines(folder: Path) -> None:
    """Thin lines on an uneven ground, in six photos of 200x300 pixels."""
    rng = np.random.default_rng(0)
    for i in range(6):
        ids = np.zeros((200, 300), np.uint8)
        for _ in range(9):
            ends = [tuple(map(int, rng.integers(0, (300, 200)))) for _ in range(2)]
            cv2.line(ids, *ends, 1, 2)
        ground = cv2.resize(rng.normal(110, 30, (8, 12)), (300, 200)) + rng.normal(0, 8, ids.shape)
        photo = (ground + 70 * ids).clip(0, 255).astype(np.uint8)
        for name, picture in (("images", photo), ("masks", ids)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / name / f"{i}.png")


def trained(data: Path, flags: tuple[str, ...], score: str, output: Path) -> dict:
    """The score of one training, and how it saw photos; what was done before is read."""
    if not (output / "metrics.json").is_file():
        command = [sys.executable, str(ROOT / "main.py"), "--data", str(data), *flags, "--output", str(output)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads((output / "metrics.json").read_text())
    facts = json.loads((output / "config.json").read_text())["facts"]
    dice = list(metrics["per_class"].values())[-1]["dice"]
    return {
        "score": dice if score == "dice" else metrics["macro_iou"],
        "view": [*facts["image_size"], facts["scale"]],
    }


def is_chosen(flags: tuple[str, ...], plan: dict) -> bool:
    """Whether these flags ask for what the plan has chosen by itself, so that the trainings would be the same."""
    height, width, scale = plan["view"]
    if flags == ("--view", "crops"):
        return scale is not None
    return scale is None and flags == ("--image-size", str(height)) and height == width


def compare(name: str, one: Set, data: Path, seeds: int, results: Path) -> tuple[dict[str, list[float]], bool]:
    """Scores by view, and whether the plan's is the best, or within the seeds' spread of it; prints a table."""
    scores: dict[str, list[float]] = {}
    plans: list[dict] = []
    for flags in one.views:
        view = " ".join(flags) or "plan"
        runs = []
        for seed in range(seeds):
            output = results / f"{name}{'_'.join(flags) or '_plan'}_{seed}"
            every = (*one.flags, *flags, "--minutes", f"{one.minutes:g}", "--seed", str(seed))
            chosen = flags and is_chosen(flags, plans[seed])
            runs.append(plans[seed] if chosen else trained(data, every, one.score, output))
        plans = plans or runs
        scores[view] = [run["score"] for run in runs]
        height, width, scale = runs[0]["view"]
        seen = f"{width}x{height} " + ("whole" if scale is None else f"of {scale:.3g} of the size")
        listed = " ".join(f"{score:.4f}" for score in scores[view])
        print(f"{name:9} {view:18} {seen:24} {statistics.mean(scores[view]):.4f}  ({listed})", flush=True)
    means = {view: statistics.mean(values) for view, values in scores.items()}
    best = max(means, key=lambda view: means[view])
    spread = max(max(scores[view]) - min(scores[view]) for view in ("plan", best))
    return scores, means["plan"] >= means[best] - spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="drawn lines, one seed, a few seconds each")
    parser.add_argument("--sets", default=",".join(SETS), help="joined by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("outputs_views"))
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as folder:
            draw_lines(Path(folder) / "lines")
            views = (("--image-size", "32"), ("--image-size", "96", "--view", "crops"))
            quick = Set("", 0, "dice", ("--filters", "4", "--epochs", "2", "--batch-size", "2"), views)
            scores = {}
            for flags in views:
                output = Path(folder) / "_".join(flags)
                found = trained(Path(folder) / "lines", (*quick.flags, *flags), "dice", output)
                scores[" ".join(flags)] = found["score"]
                print(f"lines     {' '.join(flags):34} {found['score']:.4f}")
            whole, crops = scores.values()
            print(f"RESULT lines_dice={crops:.4f} lines_whole_dice={whole:.4f}")
        return
    if "SEMSEG_DATA" not in os.environ:
        raise SystemExit("SEMSEG_DATA: names the folder of the data sets; it is not set")
    means, right = {}, []
    for name in options.sets.split(","):
        one = SETS[name]
        scores, is_right = compare(
            name, one, Path(os.environ["SEMSEG_DATA"]) / one.folder, options.seeds, options.results
        )
        right.append(is_right)
        kind = "dice" if one.score == "dice" else "miou"
        means[f"{name}_{kind}"] = statistics.mean(scores["plan"])
        means[f"{name}_whole_{kind}"] = statistics.mean(scores["--image-size 128"])
    listed = " ".join(f"{name}={value:.4f}" for name, value in means.items())
    print(f"RESULT {listed} plan_right={sum(right)}/{len(right)}")


if __name__ == "__main__":
    main()
