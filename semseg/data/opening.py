"""The data that a run asks for: fetched, opened, and looked at through the cache."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from semseg.data import ensure_demo, open_dataset
from semseg.data.base import Dataset
from semseg.data.cache import Cache
from semseg.data.check import Findings, check_dataset
from semseg.data.corrections import Corrections, apply_corrections
from semseg.data.fetch import local_folder
from semseg.files import default_folder
from semseg.images.bands import Bands
from semseg.runs.classes import read_classes
from semseg.runs.config import RunConfig

_THUMBNAIL = (8, 8)
_ROOM, _MOST_BYTES = 0.5, 40 << 30  # of the free disk, and bytes, for photos in tiles
Tell = Callable[[str, str], None]  # takes a topic and what is to be said about it


def say_nothing(topic: str, text: str) -> None:
    """The default of `tell`."""


def open_data(
    config: RunConfig,
    *,
    demo: bool = False,
    whole: bool = False,
    bands: Bands | None = None,
    tell: Tell = say_nothing,
) -> Dataset:
    """The data set that a run asks for.

    Args:
        config: The settings of its section `data` are read.
        demo: Draw the demo set where no data are named and none are there.
        whole: Set nothing apart for validation where the data have no splits.
        bands: What the photos must hold, as a network was trained on; None to look.
        tell: Called with a topic and a sentence where something takes time.

    Returns:
        The data set, whose files are not checked yet.

    Raises:
        DataError: There are no such data, or nothing that can be trained on.
        SemsegError: A setting that does not fit the data.
    """
    if demo and config.data == RunConfig.data and ensure_demo(Path(config.data)):
        tell("demo", f"no pictures in {config.data}/: drew the demo set there; use `data` for your own")
    given = config.classes
    dataset = open_dataset(
        local_folder(config.data, _cache_folder(config), lambda text: tell("fetch", text)),
        name=config.dataset,
        photos=config.photos,
        masks=config.masks,
        ignore_outside=config.ignore_outside,
        instances=config.instances,
        num_classes=given if isinstance(given, int) else None,
        palette=read_classes(Path(given)) if isinstance(given, str) else None,
        categories=config.categories,
        seed=config.split_seed,
        fold=config.fold,
        limit=config.limit,
        whole=whole,
        show=config.show,
        bands=bands,
        cache=None if config.cache == "none" else _cache_folder(config),
    )
    if config.corrections:
        apply_corrections(dataset, Corrections.open(config.corrections))
    return dataset


def check_data(
    config: RunConfig, dataset: Dataset, on_progress: Callable[[int, int], None] | None = None
) -> tuple[Findings, Cache]:
    """Checks every file of a data set as a run asks for it; refuses nothing yet.

    Args:
        config: How photos are seen, `cache`, `workers`, `skip_bad` and `allow_leaks` are read.
        dataset: From `open_data`.
        on_progress: Called with (files done, files in all).

    Returns:
        What was found, and the cache that now holds every decoded sample, or one for photos in tiles, where the network
        sees crops; the data set knows the digests of its files.
    """
    cache = _cache(config, dataset)
    findings = check_dataset(
        dataset, cache=cache, image_size=_kept_size(config), scale=config.crop_scale, workers=config.workers,
        skip_bad=config.skip_bad, allow_leaks=config.allow_leaks, on_progress=on_progress,
    )  # fmt: skip
    _note_digests(dataset, cache, of_any_size=not findings.errors)
    return findings, cache if config.crop_scale is None else _cache_of_tiles(config, dataset)


def read_digests(config: RunConfig, dataset: Dataset) -> None:
    """Lets a data set know the digests of its files, without a check; the cache vouches for those that it knows.

    Args:
        config: How photos are seen, and `cache`, are read.
        dataset: From `open_data`.
    """
    _note_digests(dataset, _cache(config, dataset), of_any_size=True)


def _cache(config: RunConfig, dataset: Dataset) -> Cache:
    meaning = _meaning(dataset) + ("" if config.crop_scale is None else f" {config.crop_scale}")
    return Cache(dataset.samples, _kept_size(config), meaning, _place(config), dataset.bands)


def _kept_size(config: RunConfig) -> tuple[int, int]:
    """(height, width) of what a check keeps of samples: what the network sees, or next to nothing beside crops."""
    return config.seen_size if config.crop_scale is None else _THUMBNAIL


def _cache_of_tiles(config: RunConfig, dataset: Dataset) -> Cache:
    """The photos of a checked data set at the scale of the crops, as far as the disk has room for them."""
    place = _place(config)
    room = 0 if place is None else _ROOM * shutil.disk_usage(next(path for path in place.parents if path.is_dir())).free
    return Cache(
        dataset.samples, config.seen_size, _meaning(dataset), place, dataset.bands,
        scale=config.crop_scale, sizes=dataset.sizes, most_bytes=min(room, _MOST_BYTES),
    )  # fmt: skip


def _place(config: RunConfig) -> Path | None:
    return None if config.cache == "none" else _cache_folder(config)


def _meaning(dataset: Dataset) -> str:
    return json.dumps(dataset.palette.to_dict())


def _note_digests(dataset: Dataset, cache: Cache, *, of_any_size: bool) -> None:
    dataset.has_changed = cache.has_changed
    digests = ((sample, cache.digest(sample, of_any_size=of_any_size)) for sample in dataset.samples)
    dataset.digests = {sample: digest.hex() for sample, digest in digests if digest}


def _cache_folder(config: RunConfig) -> Path:
    return default_folder() if config.cache in (None, "none") else Path(config.cache)
