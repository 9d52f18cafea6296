"""Does `suggest --labels` find labels that are wrong?

    SEMSEG_DATA=shared/data python benchmarks/doubtful.py

In a copy of a set a tenth of the masks are spoilt, in one of three ways at a time: two classes swapped, a region
missing (the largest class but the background is gone from one half of the photo), or the mask of another photo. Folds
are trained on the copy and asked which labels to look at first. Of the first tenth of the photos, precision is the
share that was spoilt, recall the share of the spoilt that are among them. `--quick` does so with drawn shapes for one
epoch.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from few import draw_shapes
from PIL import Image

KINDS = ("swapped", "missing", "another")
SHARE = 0.1
ROOT = Path(__file__).parents[1]


def spoil(ids: np.ndarray, kind: str, other: np.ndarray) -> np.ndarray:
    """A mask with an error in it."""
    numbers, counts = np.unique(ids, return_counts=True)
    first, second = numbers[np.argsort(-counts, kind="stable")[:2]]
    if kind == "another":
        return other
    spoilt = ids.copy()
    if kind == "swapped":
        spoilt[ids == first], spoilt[ids == second] = second, first
        return spoilt
    halves = ids.shape[1] // 2
    left, right = (int((ids[:, part] == second).sum()) for part in (slice(halves), slice(halves, None)))
    half = spoilt[:, :halves] if left > right else spoilt[:, halves:]
    half[half == second] = first
    return spoilt


def spoilt_copy(source: Path, folder: Path, kind: str, limit: int | None) -> set[str]:
    """Copies a set with a tenth of its masks spoilt; the names of these photos, without endings."""
    photos, masks = (sorted((source / name).iterdir())[:limit] for name in ("images", "masks"))
    rng = np.random.default_rng(0)
    chosen = set(rng.choice(len(masks), max(1, round(SHARE * len(masks))), replace=False).tolist())
    for name in ("images", "masks"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    arrays = [np.array(Image.open(path)) for path in masks]
    for i, (photo, mask) in enumerate(zip(photos, masks, strict=True)):
        shutil.copy(photo, folder / "images" / photo.name)
        other = arrays[(i + 1 + int(rng.integers(len(masks) - 1))) % len(masks)]
        ids = spoil(arrays[i], kind, other) if i in chosen else arrays[i]
        Image.fromarray(ids).save(folder / "masks" / mask.name)
    return {photos[i].stem for i in chosen}


def found(data: Path, spoilt: set[str], flags: list[str], results: Path) -> tuple[float, float]:
    """Precision and recall at a tenth of the photos."""
    command = [sys.executable, "-m", "semseg"]
    options = {"check": True, "stdout": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    subprocess.run([*command, "train", "--data", str(data), "--output", str(results / "folds"), *flags], **options)
    doubts = results / "doubts"
    subprocess.run([*command, "suggest", str(results / "folds"), "--labels", "--output", str(doubts)], **options)
    with (doubts / "doubtful.csv").open(newline="", encoding="utf-8") as file:
        ranked = [Path(row["photo"]).stem for row in csv.DictReader(file)]
    first = ranked[: max(1, round(SHARE * len(ranked)))]
    hits = len(spoilt & set(first))
    return hits / len(first), hits / len(spoilt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="drawn shapes, two folds, one way to spoil")
    parser.add_argument("--set", default="nuclei", help="with images/ and masks/, below SEMSEG_DATA")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=128, help="pixels that the network sees")
    parser.add_argument("--limit", type=int, help="photos, at most")
    parser.add_argument("--results", type=Path, default=Path("outputs_doubtful"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) if options.quick else options.results.resolve()
        if options.quick:
            draw_shapes(Path(name) / "shapes")
            source, options.folds, options.epochs, options.size = Path(name) / "shapes", 2, 1, 32
        else:
            source = Path(os.environ["SEMSEG_DATA"]) / options.set
        flags = ["--folds", str(options.folds), "--epochs", str(options.epochs), "--image-size", str(options.size)]
        flags += ["--model", "unet", "--filters", "4" if options.quick else "8"]
        recalls = []
        for kind in KINDS[-1:] if options.quick else KINDS:
            spoilt = spoilt_copy(source, results / kind / "data", kind, options.limit)
            precision, recall = found(results / kind / "data", spoilt, flags, results / kind)
            recalls.append(f"{kind}={recall:.2f}")
            print(f"{kind:8} {len(spoilt)} spoilt: precision {precision:.2f}, recall {recall:.2f}", flush=True)
    print("RESULT " + " ".join(recalls))


if __name__ == "__main__":
    main()
