"""Draws a street data set from a seed, so that a newcomer without data has something to train on at once.

The set has exactly the form of Kaggle's "Cityscapes image pairs": JPEGs of 512x256, the photo left, the mask in the
official label colours right, borders blurred. A scene is a small three-dimensional world: a street that may bend and
climb, plots and traffic at random places in metres, one sun (`street`). One pinhole camera projects it, and it is
painted from back to front (`objects`, with `textures`) on a `Canvas` that fills photo and labels in the same call, so
the mask is right by construction. Colours, weather and lens vary on purpose: colour alone must not tell the class.
"""

import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from semseg.data.demo.street import Scene, paint_street
from semseg.data.workers import Workers
from semseg.errors import DataError

SPLITS = ("train", "val")
_MIN_PAIRS_OF_PROCESS = 20


def draw_scene(seed: int | Sequence[int], *, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street scene.

    Args:
        seed: Decides everything in the scene; a sequence of integers will do.
        size: Height and width of the result in pixels, at most 512.

    Returns:
        The photo, uint8 RGB `(size, size, 3)`, and the mask in the official Cityscapes colours, uint8 RGB
        `(size, size, 3)`, blended where classes meet.

    Example:
        >>> photo, mask = draw_scene(3)
        >>> photo.shape, mask.dtype
        ((256, 256, 3), dtype('uint8'))
    """
    scene = Scene(np.random.default_rng(seed))
    paint_street(scene)
    return scene.canvas.develop(scene.rng, size)


def make_demo(folder: str | Path, *, num_train: int = 200, num_val: int = 50, seed: int = 0) -> None:
    """Writes the demo data set: `folder/train/<n>.jpg` and `folder/val/<n>.jpg`, n = 1, 2, 3 ...

    Each file is a JPEG of 512x256 (width x height): the photo left, the colour mask right. A scene depends on the seed,
    the split and its number only. The pairs are written to `.<name>.<process id>.tmp` beside the folder and renamed at
    the end, so that a killed run leaves no half of a set. A run that is killed outright (SIGKILL) cannot tidy up: the
    next one for the same folder removes what it left, if that process is no longer alive (not on Windows).

    Args:
        folder: Where `train` and `val` go; other files in it stay.
        num_train: How many pairs to train on.
        num_val: How many pairs to validate on.
        seed: Another seed gives other streets.

    Raises:
        DataError: `folder` already has a `train` or a `val`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> make_demo(folder, num_train=2, num_val=1)
        >>> sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))
        ['train/1.jpg', 'train/2.jpg', 'val/1.jpg']
    """
    folder = Path(folder)
    for split in SPLITS:
        if (folder / split).exists():
            raise DataError(f"{folder / split}: exists already; remove it, or give another folder for the demo data")
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    _remove_stale(folder.absolute())
    try:
        for split in SPLITS:
            (temporary / split).mkdir(parents=True)
        counts = enumerate(zip(SPLITS, (num_train, num_val), strict=True))
        _write_pairs([
            (temporary / split / f"{n}.jpg", (seed, number, n))
            for number, (split, count) in counts for n in range(1, count + 1)
        ])  # fmt: skip
        if not folder.exists():
            temporary.rename(folder)
            return
        for split in SPLITS:
            (temporary / split).rename(folder / split)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_pairs(pairs: Sequence[tuple[Path, Sequence[int]]]) -> None:
    """In processes: threads would not help, as most of the time is Python's own."""
    count = min(os.cpu_count() or 1, len(pairs) // _MIN_PAIRS_OF_PROCESS)
    processes, pool = Workers(_write_pair, count if count > 1 else 0), ThreadPoolExecutor(max(1, count))

    def write(pair: tuple[Path, Sequence[int]]) -> None:
        try:
            processes.run(pair)
        except ChildProcessError:
            _write_pair(pair)

    try:
        list(pool.map(write, pairs))
    finally:
        pool.shutdown(cancel_futures=True)
        processes.close()


def _write_pair(pair: tuple[Path, Sequence[int]]) -> None:
    path, seed = pair
    picture = np.concatenate(draw_scene(seed), axis=1)
    Image.fromarray(picture).save(path, quality=95, subsampling="4:2:0")


def _remove_stale(folder: Path) -> None:
    """Removes the temporary folders beside `folder` whose process is gone."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.(\d+)\.tmp")
    for path in folder.parent.glob(".*.tmp"):
        if (match := pattern.fullmatch(path.name)) and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    """Whether a process may still be running: on Windows, where asking would end it, always."""
    try:
        if os.name != "nt":
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
