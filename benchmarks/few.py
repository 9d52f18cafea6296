"""What do weights that have learnt before bring to few photos, and what do they cost many?

    SEMSEG_DATA=shared/data python benchmarks/few.py

Each contender is the command as users give it, for equal minutes, on a part of the training photos of `SEMSEG_DATA` and
on all validation photos: the U-Net, an encoder with ImageNet weights, the same encoder with random ones, and what the
plan chooses. Scores are mean IoU at the masks' own size. `few` are up to 48 photos, `many` more; `few_scratch` and
`many_scratch` are the U-Net's. Trainings that are done are kept in `--results`, not repeated, and `few.png` there shows
them. `--quick` trains two of them for an epoch on drawn shapes. Needs the extra `pretrained`.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from views import trained

ENCODER = ("--model", "encoder_unet", "--encoder", "EfficientNetLite0", "--encoder-weights")
CONTENDERS = {
    "unet": ("--model", "unet"),
    "pretrained": (*ENCODER, "imagenet"),
    "random": (*ENCODER, "none"),
    "plan": (),
}
FEW = 48  # photos, at most


@dataclass(frozen=True)
class Part:
    """A part of a data set.

    Attributes:
        folder: Below `SEMSEG_DATA`.
        photos: To train on.
        minutes: Of training.
    """

    folder: str
    photos: int
    minutes: float


PARTS = (
    Part("nuclei", 12, 2), Part("nuclei", 48, 4), Part("camvid", 20, 4), Part("camvid", 120, 6),
    Part("cityscapes_pairs", 165, 8), Part("cityscapes_pairs", 659, 22), Part("cityscapes_pairs", 1975, 65),
)  # fmt: skip


def draw_shapes(folder: Path) -> None:
    """Discs on an uneven ground, in ten photos of 64x64 pixels and their masks."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(10):
        x, y = rng.integers(12, 52, 2)
        mask = ((across - x) ** 2 + (down - y) ** 2 < 120).astype(np.uint8)
        photo = (100 + 60 * mask[..., None] + rng.normal(0, 20, (64, 64, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")


def link_part(source: Path, photos: int, folder: Path) -> Path:
    """A folder with links to so many training photos, evenly spread in the order of their names, and to all others.

    A set without a validation split gives every fifth photo to it, whatever the number of training photos.
    """
    if (source / "val").is_dir():
        train, val = (_photos(source / split) for split in ("train", "val"))
    else:
        every = _photos(source)
        val = every[::5]
        train = [path for path in every if path not in set(val)]
    chosen = [train[i * len(train) // photos] for i in range(photos)]
    for split, paths in (("train", chosen), ("val", val)):
        for path in paths:
            for file in (path, *_mask_of(path)):
                link = folder / split / (file.parent.name if _mask_of(path) else "") / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
    return folder


def _photos(folder: Path) -> list[Path]:
    """In `images/`, or in the folder itself where each file holds photo and mask."""
    inner = folder / "images"
    return sorted((inner if inner.is_dir() else folder).iterdir())


def _mask_of(photo: Path) -> list[Path]:
    return sorted((photo.parent.parent / "masks").glob(f"{photo.stem}.*")) if photo.parent.name == "images" else []


def scores_of(
    name: str, data: Path, flags: tuple[str, ...], seeds: int, results: Path, contenders: Iterable[str]
) -> dict[str, list[float]]:
    """Mean IoU of each seed by contender; prints a row for each."""
    scores = {}
    for contender in contenders:
        outputs = [results / f"{name}_{contender}_{seed}" for seed in range(seeds)]
        runs = [
            trained(data, (*CONTENDERS[contender], *flags, "--seed", str(seed)), "iou", output)
            for seed, output in enumerate(outputs)
        ]
        scores[contender] = [run["score"] for run in runs]
        listed = " ".join(f"{score:.4f}" for score in scores[contender])
        print(f"{name:22} {contender:10} {statistics.mean(scores[contender]):.4f}  ({listed})", flush=True)
    return scores


def draw(table: dict[str, dict[str, list[float]]], path: Path) -> None:
    """A line for each contender over the parts, with its seeds as dots."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for contender in next(iter(table.values())):
        means = [statistics.mean(scores[contender]) for scores in table.values()]
        (line,) = axes.plot(means, label=contender)
        for place, scores in enumerate(table.values()):
            axes.plot([place] * len(scores[contender]), scores[contender], ".", color=line.get_color())
    axes.set_xticks(range(len(table)), list(table), rotation=20)
    axes.set_ylabel("mean IoU after equal minutes")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def result(table: dict[str, dict[str, list[float]]], photos: dict[str, int]) -> str:
    """The last line: means over the parts with few photos, and over those with many."""
    means = {}
    for size, chosen in (("few", lambda count: count <= FEW), ("many", lambda count: count > FEW)):
        names = [name for name in table if chosen(photos[name])]
        for suffix, contender in (("", "plan"), ("_scratch", "unet")):
            values = [statistics.mean(table[name][contender]) for name in names if contender in table[name]]
            means[size + suffix] = f"{statistics.mean(values):.4f}" if values else "-"
    return "RESULT " + " ".join(f"{name}={value}" for name, value in means.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="drawn shapes, two contenders, one epoch")
    parser.add_argument("--sets", default="", help="some of nuclei, camvid, cityscapes_pairs, joined by commas")
    parser.add_argument("--most", type=int, default=2000, help="leave out the parts of more photos")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("outputs_few"))
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            draw_shapes(folder / "shapes")
            data = link_part(folder / "shapes", 4, folder / "part")
            flags = ("--epochs", "1", "--filters", "4", "--batch-size", "2", "--cache", "none")
            table = {"shapes": scores_of("shapes", data, flags, 1, folder, ("unet", "plan"))}
            draw(table, folder / "few.png")
            print(result(table, {"shapes": 4}))
        return
    if "SEMSEG_DATA" not in os.environ:
        raise SystemExit("SEMSEG_DATA: names the folder of the data sets; it is not set")
    table, photos, results = {}, {}, options.results.resolve()
    for part in PARTS:
        if part.photos > options.most or (options.sets and part.folder not in options.sets.split(",")):
            continue
        name = f"{part.folder} {part.photos}"
        data = link_part(Path(os.environ["SEMSEG_DATA"]) / part.folder, part.photos, results / "data" / name)
        table[name] = scores_of(name, data, ("--minutes", f"{part.minutes:g}"), options.seeds, results, CONTENDERS)
        photos[name] = part.photos
    draw(table, results / "few.png")
    print(result(table, photos))


if __name__ == "__main__":
    main()
