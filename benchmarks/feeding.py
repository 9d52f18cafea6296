"""Images per second that reach the training loop: ours, first epoch and later ones, beside PyTorch's own way.

The peer is a `torch.utils.data.DataLoader` with as many workers, over a data set as an engineer writes it: Pillow
decodes, NumPy takes the nearest palette colour at the size of the file (too far from all: ignored), Pillow resizes
(photo bilinear, mask nearest), half of the samples are flipped. Ours does the same job; its first epoch starts with an
empty cache. Epochs take turns in one process; medians count. `wait` is the share of the epochs after the first, in a
training of a small U-Net on torch, that its loop waited for data. `crops` says how many crops of a large photo the
cache gives while the photo is decoded whole once.

    python benchmarks/feeding.py --data DIR     # DIR/cityscapes_pairs and DIR/carvana; without DIR, the demo set
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import torch
from PIL import Image

from semseg.architectures import build_model
from semseg.backend.devices import leave_tensorflow_out
from semseg.data import open_dataset
from semseg.data.augment import NO_AUGMENTATION, Augmentation
from semseg.data.base import Dataset, Sample
from semseg.data.batches import data_generator
from semseg.data.cache import Cache
from semseg.data.demo import make_demo
from semseg.errors import DataError
from semseg.labels.palettes import Palette
from semseg.runs.config import RunConfig
from semseg.training.loop import make_batches, train_model
from semseg.training.plan import plan_run

Image.MAX_IMAGE_PIXELS = None
SIZE = (160, 240)
WORKERS = 2
BATCH_SIZE = 8
FLIP = Augmentation(**{**vars(NO_AUGMENTATION), "horizontal_flip": 0.5})
LIMITS = {"cityscapes_pairs": (200, 40), "carvana": (48, 8), "demo": (80, 40)}  # samples, in full and quick


class Peer(torch.utils.data.Dataset):
    """Samples as an engineer without this package loads them."""

    def __init__(self, dataset: Dataset):
        palette = dataset.palette
        if palette.holds_values:  # Pillow turns Carvana's masks into black and white
            palette = Palette.from_colors(palette.names, [(0, 0, 0), (255, 255, 255)])
        self.samples = dataset.splits["train"]
        self.colors = np.array([label.color for label in palette.labels])
        self.ids = np.array([label.id for label in palette.labels], np.uint8)
        self.farthest = palette.max_distance**2

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        photo, mask = open_sample(self.samples[index])
        distances = ((np.asarray(mask)[:, :, None, :].astype(np.int32) - self.colors) ** 2).sum(axis=-1)
        ids = self.ids[distances.argmin(axis=-1)]
        ids[distances.min(axis=-1) > self.farthest] = 255
        photo = np.asarray(photo.resize(SIZE[::-1], Image.Resampling.BILINEAR))
        ids = np.asarray(Image.fromarray(ids).resize(SIZE[::-1], Image.Resampling.NEAREST))
        if torch.rand(()) < 0.5:
            photo, ids = np.flip(photo, 1), np.flip(ids, 1)
        return photo.copy(), ids.copy()


def open_sample(sample: Sample) -> tuple[Image.Image, Image.Image]:
    photo = Image.open(sample.photo).convert("RGB")
    if sample.mask != sample.photo:
        return photo, Image.open(sample.mask).convert("RGB")
    width, height = photo.size
    return photo.crop((0, 0, width // 2, height)), photo.crop((width // 2, 0, width, height))


def rate(batches: Iterable, epochs: int = 1) -> float:
    """Images per second over whole epochs."""
    began, images = time.perf_counter(), 0
    for _ in range(epochs):
        images += sum(len(photos) for photos, _ in batches)
    return images / (time.perf_counter() - began)


def new_cache(dataset: Dataset, folder: str) -> Cache:
    return Cache(dataset.samples, SIZE, "benchmark", Path(folder))


def measure_ours(dataset: Dataset) -> tuple[float, float]:
    """Rates of the first epoch, from an empty cache, and of ten later ones."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"batch_size": BATCH_SIZE, "image_size": SIZE, "workers": WORKERS, "augmentation": FLIP}
        batches = data_generator(dataset, cache=new_cache(dataset, folder), **options)
        rates = rate(batches), rate(batches, epochs=10)
        batches.close()
    return rates


def compare(name: str, dataset: Dataset, rounds: int) -> tuple[float, float]:
    """Prints a line and returns our rates, first and later, over the peer's."""
    peer = torch.utils.data.DataLoader(
        Peer(dataset), batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    rate(peer)  # starts the workers and fills the system's cache of files
    measured = [(rate(peer), *measure_ours(dataset)) for _ in range(rounds)]
    theirs, first, later = (statistics.median(column) for column in zip(*measured, strict=True))
    count = len(dataset.splits["train"])
    print(f"{name:18}{count:8}{theirs:12.1f}{first:12.1f}{later:12.1f}{first / theirs:9.1f}{later / theirs:9.1f}")
    return first / theirs, later / theirs


def measure_waiting(dataset: Dataset, epochs: int) -> float:
    """Share of the time after the first epoch that a training waits for its batches."""
    config = RunConfig(model="unet", epochs=epochs, batch_size=BATCH_SIZE, image_size=SIZE, filters=8, workers=WORKERS)
    model = build_model(config.model, (*SIZE, 3), dataset.num_logits, filters=config.filters)
    plan = plan_run(config, dataset)
    with tempfile.TemporaryDirectory() as folder:
        history = train_model(
            model,
            make_batches(dataset, plan, new_cache(dataset, folder)),
            plan,
            model_path=Path(folder, "model.keras"),
            results_path=Path(folder, "results.csv"),
        )
    waiting, seconds = (sum(row[name] for row in history[1:]) for name in ("waiting", "seconds"))
    return waiting / seconds


def measure_crops(side: int, crops: int = 200) -> float:
    """Prints the time of a crop out of a photo of `side` pixels; returns how many of them one decoding is worth."""
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(0, 255, (side // 8, side // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        for kind, picture in (("images", photo), ("masks", photo[..., 0] // 128)):
            Path(folder, kind).mkdir()
            for name in ("a", "b"):
                path = Path(folder, kind, f"{name}.{'jpg' if kind == 'images' else 'png'}")
                Image.fromarray(picture).save(path)
        dataset = open_dataset(folder)
        sizes = {sample: dataset.size_of(sample) for sample in dataset.samples}
        cache = Cache(dataset.samples, SIZE, "benchmark", Path(folder), scale=1.0, sizes=sizes)
        batches = data_generator(
            dataset, batch_size=1, image_size=(256, 256), workers=0, cache=cache, scale=1.0, most_crops=crops
        )
        first, later = (1 / rate(batches), statistics.median(1 / rate(batches) for _ in range(3)))
        batches.close()
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            for picture in open_sample(dataset.splits["train"][0]):
                picture.crop((0, 0, 256, 256)).load()
            seconds.append(time.perf_counter() - began)
    decoding = statistics.median(seconds)
    print(
        f"crops of 256x256 of {side}x{side}: {1000 * first:.1f} ms each in the first epoch of {crops}, "
        f"{1000 * later:.2f} ms later; decoding photo and mask {1000 * decoding:.0f} ms"
    )
    return decoding / later


def open_sets(data: str | None, quick: bool, folder: str) -> dict[str, Dataset]:
    if data is None:
        count = LIMITS["demo"][quick]
        make_demo(Path(folder), num_train=count, num_val=10)
        return {"demo": open_dataset(folder)}
    found = {}
    for name in ("cityscapes_pairs", "carvana"):
        try:
            found[name] = open_dataset(Path(data, name), limit=LIMITS[name][quick])
        except DataError as error:
            print(f"{name}: left out: {error}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("SEMSEG_DATA"), help="folder of real data sets")
    parser.add_argument("--quick", action="store_true", help="fewer samples and one round")
    flags = parser.parse_args()
    leave_tensorflow_out()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        sets = open_sets(flags.data, flags.quick, folder)
        print(f"images per second, {WORKERS} workers, {SIZE[0]}x{SIZE[1]}")
        print(f"{'':18}{'images':>8}{'peer':>12}{'first':>12}{'later':>12}{'first x':>9}{'later x':>9}")
        ratios = [compare(name, dataset, 1 if flags.quick else 3) for name, dataset in sets.items()]
        wait = measure_waiting(next(iter(sets.values())), 2 if flags.quick else 3)
    crops = measure_crops(2000 if flags.quick else 10_000)
    first, later = (min(column) for column in zip(*ratios, strict=True))
    print(f"RESULT first={first:.2f} later={later:.2f} wait={wait:.4f} crops={crops:.0f}")


if __name__ == "__main__":
    main()
