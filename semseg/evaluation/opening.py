"""A finished run, opened again: its network, and its data with its classes and splits."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset
from semseg.data.check import Findings
from semseg.data.opening import Tell, open_data, say_nothing
from semseg.data.splits import ALL, NEW, restore_splits, samples_of, split_note
from semseg.errors import DataError, ModelFileError, SemsegError
from semseg.images.addresses import checked_address, is_address
from semseg.images.bands import Bands
from semseg.inference.card import ModelCard
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.runs import names
from semseg.runs.config import RunConfig
from semseg.runs.members import are_folds, joined_splits
from semseg.runs.run import Run
from semseg.runs.scores import ScoreFolder

MAX_MORE_IGNORED = 0.3  # of the pixels, beyond the share that the run ignored
_FROM_RUN = ("split_seed", "image_size")  # what a run says of other data, too
_NOT_OF_DATA = ("model", "image_size", "output")


def open_run(folder: str | Path) -> tuple[Segmenter, Dataset]:
    """A finished run, to go on with in Python.

    Args:
        folder: Of the run, or a model's file in it.

    Returns:
        Its network, and its data with its classes and splits.

    Raises:
        RunFolderError: There is no finished run.
        ModelFileError: The model cannot be opened, or could do harm.
        DataError: The data are not where they were, or changed.
        SemsegError: Nothing says which data they were.
    """
    card = ModelCard.read(folder)
    segmenter = card.load()
    return segmenter, own_data(card.run, segmenter.bands)


def own_data(run: Run, bands: Bands) -> Dataset:
    """The data that a run was made with, with its classes and splits, read as `bands`; errors as of `open_run`."""
    return open_as_run(data_settings(run, {}), run, bands, check_meaning=False)


def data_settings(run: Run, given: dict[str, Any]) -> RunConfig:
    """How to open data: a run's own as the run did; others as is said.

    The run's classes say what the masks of other data mean, too: the ids must be those that the network learnt.

    Args:
        run: The run.
        given: Settings that were asked for, by name; `data` names other data.

    Raises:
        SemsegError: No data are named, and the run does not say which they were.
    """
    if given.get("data") is None and run.config_or_none is None:
        raise SemsegError(f"`data`: {run.folder} holds no {names.CONFIG} that says on which data; give a folder")
    given = {name: value for name, value in given.items() if name not in _NOT_OF_DATA and value is not None}
    if is_own_data(run, given.get("data")):
        config = replace(run.config, **given)
    else:
        base = {name: getattr(run.config, name) for name in _FROM_RUN} if run.config_or_none else {}
        config = RunConfig(**{**base, **given})
    if run.classes_path and not (given.get("classes") or given.get("categories")):
        config = replace(config, classes=str(run.classes_path), categories=False)
    return config


def is_own_data(run: Run, data: str | None) -> bool:
    """Whether these are the data that the run was made with; None stands for them."""
    if run.config_or_none is None:
        return False
    own = run.config.data
    if data is None or data == own:
        return True
    if is_address(data) and is_address(own):
        return checked_address(data) == checked_address(own)
    return Path(data).exists() and Path(own).exists() and Path(data).samefile(own)


def open_as_run(config: RunConfig, run: Run, bands: Bands, *, check_meaning: bool, tell: Tell = say_nothing) -> Dataset:
    """The data, with the splits that the run drew where they have none of their own.

    Other data without splits stay whole: none of their photos chose anything.

    Args:
        config: From `data_settings`.
        run: The run.
        bands: What its network takes; photos that hold others are refused when they are read.
        check_meaning: Refuse masks whose numbers seem to mean something else than they do to the run.
        tell: As in `open_data`.

    Raises:
        DataError: There are no such data.
        ModelFileError: The masks mean something else to the model.
    """
    dataset = open_data(config, whole=bool(run.splits) or not is_own_data(run, config.data), bands=bands, tell=tell)
    if run.splits and "val" not in dataset.splits:
        everything = open_data(replace(config, limit=None), whole=True, bands=bands) if config.limit else dataset
        dataset = everything if restore_splits(everything, run.splits) else dataset
    if check_meaning and _classes_found_by(run) and config.classes == str(run.classes_path):
        own = replace(config, classes=run.config.classes, categories=run.config.categories)
        with suppress(DataError):  # of which the check will tell
            _check_meaning(dataset, open_data(own, whole=True, bands=bands).palette, run)
    return dataset


def _classes_found_by(run: Run) -> bool:
    """Whether the run found its classes in its masks, and nobody described them."""
    asked = run.config_or_none
    return asked is not None and run.classes_path is not None and not isinstance(asked.classes, str)


def _check_meaning(dataset: Dataset, own: Palette, run: Run) -> None:
    """Refuses masks whose numbers mean one thing to the model and another as they are found without it.

    That is so where a number is a class here and none there, or where both know two names and swap them. Names that
    only one of them knows say nothing.
    """
    learnt, found = _meanings(dataset.palette), _meanings(own)
    for value in sorted(learnt.keys() & found.keys()):
        here, there = learnt[value], found[value]
        class_for_one_only = None in (here, there)
        swapped = here in own.names and there in dataset.palette.names
        if here != there and (class_for_one_only or swapped):
            raise ModelFileError(
                f"{dataset.root}: {value} in its masks seems to be {there or 'no class'}, and is {here or 'no class'} "
                f"to the model; use masks with the numbers that it was trained on, or, if they are, give `classes` "
                f"{run.classes_path}"
            )


def _meanings(palette: Palette) -> dict[int, str | None]:
    """The class of each number in masks, None for what is no class."""
    return {
        label.value: None if label.id == IGNORE else palette.names[label.id]
        for label in palette.labels
        if label.value is not None
    }


def split_to_judge(config: RunConfig, dataset: Dataset, card: ModelCard, asked: str | None) -> tuple[str, str]:
    """The split to judge, and what its photos have to do with the model; photos that are new otherwise stay out.

    Args:
        config: From `data_settings`.
        dataset: From `open_as_run`; loses the photos that are new, unless they are judged.
        card: Of the model.
        asked: The name of a split; None for what suits.

    Raises:
        SemsegError: It is of several runs that trained on all of the photos.
    """
    runs = [member.run for member in card.members] or [card.run]
    if are_folds(runs) and is_own_data(card.run, config.data):
        split = asked or "test"
        if split != "test" or split not in dataset.splits:
            raise SemsegError(
                f"{card.path}: each photo of {config.data} was trained on by some of these networks; their scores "
                f"out-of-fold are in {ScoreFolder(card.path).metrics_path}; give `data` with other photos"
            )
    else:
        split = config.test_split or next((name for name in ("test", "val") if name in dataset.splits), ALL)
    note = split_note(samples_of(dataset, split), dataset.root, joined_splits(runs))
    if split not in (NEW, ALL):
        dataset.splits.pop(NEW, None)
    return split, note


def check_classes(model: Path, palette: Palette, dataset: Dataset) -> None:
    """Refuses data with another number of classes than a model tells apart.

    Args:
        model: Its file or the folder of its run, for the message.
        palette: What it learnt.
        dataset: From `open_as_run`.

    Raises:
        ModelFileError: The numbers differ.
    """
    learnt, there = palette.num_classes, dataset.palette.num_classes
    if learnt != there:
        listed = ", ".join(dataset.palette.names[:12]) + (" ..." if there > 12 else "")
        raise ModelFileError(
            f"{model}: tells {learnt} classes apart, and the masks of {dataset.root} hold {there} ({listed}); use data "
            "with the classes that it was trained on"
        )


def check_ignored(run: Run, findings: Findings, dataset: Dataset) -> None:
    """Refuses masks most of which are no class to a model: they must mean something else.

    Args:
        run: The model's.
        findings: Of the data.
        dataset: From `open_as_run`.

    Raises:
        ModelFileError: Far more pixels are ignored than in its run.
    """
    usual = run.scores.read_ignored_share()
    pixels = np.sum([findings.pixels(split) for split in findings.records], axis=0)
    ignored = pixels[-1] / pixels.sum()
    if ignored > usual + MAX_MORE_IGNORED:
        raise ModelFileError(
            f"{dataset.root}: {ignored:.1%} of the pixels are no class to the model of {run.folder} ({usual:.1%} in "
            "its run); the masks seem to mean something else, see `classes`"
        )
