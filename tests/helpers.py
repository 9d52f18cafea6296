"""Small, exact pairs, drawn in a few lines."""

import asyncio
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from semseg.labels.palettes import Label, Palette, cityscapes_palette

REPOSITORY = Path(__file__).parents[1]
SIZE = 32
IMPORT_KERAS = """import os
from semseg.backend.importing import import_keras
import_keras(os.environ["KERAS_BACKEND"])
"""  # in front of the code of a process: half the time of `import keras`


def draw_ids(seed: int, size: int = SIZE) -> np.ndarray:
    """Sky above building above road, a car on it, and a strip of void: uint8 ids `(size, size)` of Cityscapes."""
    rng = np.random.default_rng(seed)
    ids = np.full((size, size), 2, np.uint8)
    ids[: size // 4] = 10
    ids[size // 2 + rng.integers(-2, 3) :] = 0
    column = rng.integers(0, size - size // 3)
    ids[size // 2 : size // 2 + size // 4, column : column + size // 3] = 13
    ids[-size // 8 :] = 255
    return ids


def draw_pair(seed: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A photo that shows its classes through noise, and the colour mask: uint8 RGB `(size, size, 3)` each."""
    palette = cityscapes_palette()
    table = np.zeros((256, 3), np.uint8)
    table[: palette.num_classes] = palette.colors
    mask = table[draw_ids(seed, size)]
    rng = np.random.default_rng(seed)  # with light and shade, so that no two look alike
    noise = rng.normal(0, 10, mask.shape) + cv2.resize(rng.normal(0, 15, (5, 5, 3)), mask.shape[:2])
    photo = (255 - 0.7 * mask + noise).clip(0, 255).astype(np.uint8)
    return cv2.GaussianBlur(photo, (3, 3), 0), mask


def save_pair(path: Path, seed: int, size: int = SIZE, **options: object) -> None:
    """Writes one pair, as PNG or, like Kaggle's, as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(draw_pair(seed, size), axis=1)).save(path, **options)


def save_rgb_network(folder: Path) -> Path:
    """The file of a network that answers with the strongest of red, green and blue, and its classes, in a folder."""
    import keras

    network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 1, use_bias=False)])
    network.layers[-1].set_weights([np.eye(3, dtype=np.float32)[None, None]])
    network.save(folder / "rgb_model.keras")
    labels = [Label(f"c{i}", i, (80 * i, 0, 0), i) for i in range(3)]
    (folder / "classes.json").write_text(json.dumps(Palette(tuple(labels), "values").to_dict()))
    return folder


def make_pairs(root: Path, train: int = 12, val: int = 4, size: int = SIZE) -> Path:
    """A folder of pairs in Kaggle's form, as PNG so that every id is exact."""
    for split, count, first in (("train", train, 0), ("val", val, 1000)):
        for i in range(count):
            save_pair(root / split / f"{i + 1}.png", first + i, size)
    return root


def draw_numbers(seed: int, size: int = SIZE) -> np.ndarray:
    """`draw_ids` in four classes: 0 road, 1 building, 2 sky, 3 car, and 255; uint8 `(size, size)`."""
    table = np.full(256, 255, np.uint8)
    table[[0, 2, 10, 13]] = 0, 1, 2, 3
    return table[draw_ids(seed, size)]


def make_folder(root: Path, count: int = 10, first: int = 0, size: int = SIZE) -> Path:
    """A plain folder: `images/` of JPEG photos and `masks/` of PNG numbers, of the same names."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(draw_pair(first + i, size)[0]).save(root / "images" / f"{i}.jpg", quality=95)
        Image.fromarray(draw_numbers(first + i, size)).save(root / "masks" / f"{i}.png")
    return root


@cache
def black_png(side: int) -> bytes:
    """A whole PNG file of `side` x `side` black pixels of 1 bit; they are never in memory together."""
    row, deflate = bytes(1 + (side + 7) // 8), zlib.compressobj(1)
    pixels = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    size = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [b"IHDR" + size, b"IDAT" + pixels, b"IEND"]
    parts = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def run_async(coroutine):
    """What a coroutine returns, in a thread of its own: a browser's event loop may run in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
