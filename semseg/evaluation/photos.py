"""Photos on which a model is compared with a file that was made of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semseg.data.base import Dataset, Sample, spread
from semseg.data.demo import draw_scene
from semseg.data.opening import Tell
from semseg.errors import DataError, SemsegError
from semseg.evaluation.opening import check_classes, data_settings, open_as_run
from semseg.images.bands import Bands
from semseg.labels.palettes import Palette
from semseg.runs.run import Run

COMPARED, CALIBRATED, DRAWN = 32, 64, 8  # photos


@dataclass(frozen=True)
class PhotosToCompare:
    """What the file and the model are shown.

    Args:
        compared: `(H, W, C)` each, in the files' numbers.
        truths: Class ids `(H, W)` of each; None where nobody knows them.
        calibrating: Photos to calibrate int8 with.
        source: Where they come from, for people.
    """

    compared: Sequence[np.ndarray]
    truths: Sequence[np.ndarray] | None
    calibrating: Sequence[np.ndarray]
    source: str


def photos_to_compare(
    run: Run,
    given: dict[str, Any],
    palette: Palette,
    image_size: tuple[int, int],
    bands: Bands,
    *,
    tile: tuple[int, int] | None = None,
    calibrate: bool,
    tell: Tell,
) -> PhotosToCompare:
    """Photos of the run's validation split, or of other data; drawn scenes where there are none.

    Args:
        run: The model's.
        given: Settings of the data that were asked for, by name.
        palette: What the model learnt.
        image_size: (height, width) that it sees.
        bands: What photos it takes.
        tile: (height, width) of what it sees of a photo at once, which is cut out of the middle; None for whole photos.
        calibrate: Load training photos, too.
        tell: Called with a topic and a sentence where scenes are drawn.

    Raises:
        DataError: No photo of the data that were asked for can be read.
        ModelFileError: These data have other classes.
    """
    other_data = given.get("data")
    if other_data is None and run.config_or_none is None:
        return _drawn("the model's run is not known", bands, tell)
    try:
        config = replace(data_settings(run, given), image_size=image_size)
        dataset = open_as_run(config, run, bands, check_meaning=other_data is not None, tell=tell)
    except SemsegError as error:
        if other_data is not None:
            raise
        return _drawn(str(error), bands, tell)
    check_classes(run.folder, palette, dataset)
    return _of_dataset(dataset, calibrate, tile)


def _of_dataset(dataset: Dataset, calibrate: bool, tile: tuple[int, int] | None) -> PhotosToCompare:
    split = next((name for name in ("val", "test") if name in dataset.splits), next(iter(dataset.splits)))
    pairs = _load(dataset, dataset.splits[split], COMPARED, tile)
    if not pairs:
        raise DataError(f"{dataset.root}: no photo of {split} can be read; see python -m semseg check")
    calibrating = _load(dataset, dataset.splits.get("train", ()), CALIBRATED, tile) if calibrate else []
    photos, truths = zip(*pairs, strict=True)
    return PhotosToCompare(photos, truths, [photo for photo, _ in calibrating], f"{split} of {dataset.root}")


def _load(
    dataset: Dataset, samples: Sequence[Sample], count: int, tile: tuple[int, int] | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Photos and masks, spread evenly; those that cannot be read are left out."""
    pairs = []
    for sample in spread(list(samples), count):
        with suppress(DataError):
            photo, mask = dataset.load(sample)
            pairs.append((photo, mask) if tile is None else (_middle(photo, tile), _middle(mask, tile)))
    return pairs


def _middle(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """At most (height, width) pixels out of the middle."""
    top, left = ((have - want) // 2 if have > want else 0 for have, want in zip(array.shape, size, strict=False))
    return array[top : top + size[0], left : left + size[1]]


def _drawn(why: str, bands: Bands, tell: Tell) -> PhotosToCompare:
    tell("note", f"compared on drawn street scenes ({why}); `data` gives your own photos")
    scenes = [_as_bands(draw_scene(seed)[0], bands) for seed in range(DRAWN)]
    return PhotosToCompare(scenes, None, [], "drawn scenes")


def _as_bands(photo: np.ndarray, bands: Bands) -> np.ndarray:
    """A photo, uint8 RGB, in the range of other bands: red, green, blue, red ... `(H, W, C)`."""
    if bands.are_rgb:
        return photo
    low, high = np.array(bands.low), np.array(bands.high)
    pixels = low + photo[..., np.arange(bands.count) % 3] / 255 * (high - low)
    return pixels.astype(bands.array_dtype)
