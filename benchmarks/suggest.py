"""Does `suggest` choose photos that teach more than photos drawn by chance?

    SEMSEG_DATA=shared/data python benchmarks/suggest.py

A network learns from a few labelled training photos of a set, then chooses from the others which to label next, and is
trained anew on all that are labelled by then, round by round. Chance chooses as many. Scores are mean IoU on the
validation photos, at the masks' own size; both begin with the same photos. `suggested` and `random` are means over
rounds after the first and over seeds; `suggest.png` in `--results` shows them. Trainings that are done are kept there.
`--quick` takes one round with drawn shapes.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from few import draw_shapes
from views import trained

ROOT = Path(__file__).parents[1]
METHODS = ("random", "suggested")


def link(photos: list[Path], folder: Path, *, with_masks: bool) -> Path:
    """A folder with links to photos, and to their masks."""
    for photo in photos:
        mask = next((photo.parent.parent / "masks").glob(f"{photo.stem}.*"))
        for file, kind in ((photo, "images"), *(((mask, "masks"),) if with_masks else ())):
            place = folder / kind / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(file.resolve())
    return folder


def suggested(run: Path, pool: list[Path], count: int, folder: Path) -> list[Path]:
    """What the command chooses."""
    link(pool, folder / "pool", with_masks=False)
    words = ["suggest", str(run), str(folder / "pool" / "images"), "--count", str(count), "--output", str(folder / "s")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "semseg", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    with (folder / "s" / "suggestions.csv").open(newline="", encoding="utf-8") as file:
        names = [row["photo"] for row in csv.DictReader(file)]
    by_name = {path.name: path for path in pool}
    return [by_name[name] for name in names]


def curve(
    method: str, train: list[Path], val: list[Path], flags: tuple[str, ...], options: argparse.Namespace, seed: int,
    results: Path,
) -> list[float]:  # fmt: skip
    """Mean IoU after each round."""
    rng = np.random.default_rng(seed)
    labelled = [train[i] for i in rng.choice(len(train), options.start, replace=False)]
    scores = []
    for number in range(options.rounds):
        place = results / ("start" if number == 0 else method) / f"{seed}_{number}"
        link(labelled, place / "data" / "train", with_masks=True)
        link(val, place / "data" / "val", with_masks=True)
        run = trained(place / "data", (*flags, "--seed", str(seed)), "iou", place / "run")
        scores.append(run["score"])
        print(f"{method:9} seed {seed}, {len(labelled)} photos: {scores[-1]:.4f}", flush=True)
        pool = [path for path in train if path not in labelled]
        if number + 1 == options.rounds:
            break
        if method == "random":
            labelled = labelled + [pool[i] for i in rng.choice(len(pool), options.add, replace=False)]
        else:
            labelled = labelled + suggested(place / "run", pool, options.add, results / "chosen" / f"{seed}_{number}")
    return scores


def draw(curves: dict[str, list[list[float]]], options: argparse.Namespace, path: Path) -> None:
    """The mean of each method over its seeds, and the seeds as dots."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    counts = [options.start + i * options.add for i in range(options.rounds)]
    for method, of_seeds in curves.items():
        (line,) = axes.plot(counts, np.mean(of_seeds, axis=0), label=method)
        for scores in of_seeds:
            axes.plot(counts, scores, ".", color=line.get_color())
    axes.set_xticks(counts)
    axes.set_xlabel("labelled photos")
    axes.set_ylabel("mean IoU")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def photos_in(folder: Path) -> list[Path]:
    return sorted((folder / "images").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="drawn shapes, two rounds")
    parser.add_argument(
        "--set", default="camvid", help="below SEMSEG_DATA, with train/ and val/ or with images/ and masks/"
    )
    parser.add_argument("--start", type=int, default=20)
    parser.add_argument("--add", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", default="128x160", help="pixels that the network sees")
    parser.add_argument("--results", type=Path, default=Path("outputs_suggest"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) if options.quick else options.results.resolve()
        if options.quick:
            draw_shapes(Path(name) / "shapes")
            every = photos_in(Path(name) / "shapes")
            train, val = every[:8], every[8:]
            quick = {"start": 3, "add": 2, "rounds": 2, "seeds": 1, "epochs": 1, "size": "32"}
            vars(options).update(quick)
        else:
            source = Path(os.environ["SEMSEG_DATA"]) / options.set
            if (source / "val").is_dir():
                train, val = photos_in(source / "train"), photos_in(source / "val")
            else:
                every = photos_in(source)
                val = every[::3]
                train = [path for path in every if path not in val]
        flags = ("--epochs", str(options.epochs), "--image-size", options.size, "--model", "unet")
        flags += ("--filters", "4" if options.quick else "8")
        curves = {
            method: [curve(method, train, val, flags, options, seed, results) for seed in range(options.seeds)]
            for method in METHODS
        }
        draw(curves, options, results / "suggest.png")
    means = {method: statistics.mean(score for scores in curves[method] for score in scores[1:]) for method in METHODS}
    print("RESULT " + " ".join(f"{method}={mean:.4f}" for method, mean in means.items()))


if __name__ == "__main__":
    main()
