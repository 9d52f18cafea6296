"""What lies beside a model: the run that made it, and the run's data, opened again."""

import argparse
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import IGNORE
from semseg.cli.opening import open_data, open_segmenter
from semseg.cli.splits import SPLITS_FILE, Known, read_splits, restore_splits
from semseg.errors import DataError, ModelFileError, SemsegError
from semseg.runs.config import RunConfig

if TYPE_CHECKING:  # rooms that load OpenCV are imported where a command needs them
    from semseg.data.base import Dataset
    from semseg.inference.segmenter import Segmenter
    from semseg.labels.palettes import Palette

_FROM_RUN = ("split_seed", "image_size")  # what a run's config.json says of other data, too


@dataclass(frozen=True)
class Run:
    """What lies beside a model.

    Attributes:
        folder: Where that is.
        config: What the run was asked to do; None for a model alone.
        known: The split of each of its photos.
    """

    folder: Path
    config: RunConfig | None
    known: Known

    @classmethod
    def beside(cls, path: Path) -> "Run":
        """Reads what lies beside a model's file."""
        folder = path.parent
        config = RunConfig.read(folder / "config.json") if (folder / "config.json").is_file() else None
        return cls(folder, config, read_splits(folder / SPLITS_FILE))

    @property
    def classes(self) -> Path | None:
        """Its classes.json; None where there is none."""
        path = self.folder / "classes.json"
        return path if path.is_file() else None


def open_run(folder: str | Path) -> tuple["Segmenter", "Dataset"]:
    """A finished run, to go on with in Python: its network, and its data with its classes and splits.

    Args:
        folder: Of the run, or a model's file in it.

    Raises:
        RunFolderError: There is no finished run.
        ModelFileError: The model cannot be opened, or could do harm.
        DataError: The data are not where they were, or changed.
        SemsegError: No config.json says which they were.
    """
    path, segmenter = open_segmenter(Path(folder))
    run = Run.beside(path)
    return segmenter, own_data(run)


def own_data(run: Run) -> "Dataset":
    """The data that a run was made with, with its classes and splits; errors as of `open_run`."""
    return open_as_run(configuration_for(run, argparse.Namespace(data=None)), run, by_run=False)


def configuration_for(run: Run, arguments: argparse.Namespace) -> RunConfig:
    """How to open the data: the run's own as the run did; others with what the flags say.

    The run's classes.json says what the masks of other data mean, too: the ids must be those that the network learnt.
    """
    if arguments.data is None and run.config is None:
        raise SemsegError(f"--data: {run.folder} holds no config.json that says on which data; give a folder")
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in RunConfig.__dataclass_fields__ and name not in ("model", "image_size", "output")
        if value is not None and value is not False
    }
    if run.config is not None and (arguments.data is None or _same_place(arguments.data, run.config.data)):
        config = replace(run.config, **given)
    else:
        base = {name: getattr(run.config, name) for name in _FROM_RUN} if run.config else {}
        config = RunConfig(**{**base, **given})
    if run.classes and not (given.get("classes") or given.get("categories")):
        config = replace(config, classes=str(run.classes), categories=False)
    return config


def _same_place(one: str, other: str) -> bool:
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))


def open_as_run(config: RunConfig, run: Run, by_run: bool) -> "Dataset":
    """The data, with the splits that the run drew where they have none of their own.

    Other data without splits stay whole: none of their photos chose anything. `by_run`: the run's classes.json was not
    asked for, so it must fit what the masks seem to mean.
    """
    of_run = run.config is not None and _same_place(config.data, run.config.data)
    dataset = open_data(config, whole=bool(run.known) or not of_run)
    if run.known and "val" not in dataset.splits:
        everything = open_data(replace(config, limit=None), whole=True) if config.limit else dataset
        dataset = everything if restore_splits(everything, run.known) else dataset
    found_by_run = run.config is not None and not isinstance(run.config.classes, str)
    if by_run and found_by_run and run.classes and config.classes == str(run.classes):
        own = replace(config, classes=run.config.classes, categories=run.config.categories)
        with suppress(DataError):  # of which the check will tell
            _check_meaning(dataset, open_data(own, whole=True).palette, run)
    return dataset


def _check_meaning(dataset: "Dataset", own: "Palette", run: Run) -> None:
    """Refuses masks whose numbers mean one thing to the model and another as they are found without it.

    That is so where a number is a class here and none there, or where both know two names and swap them. Names that
    only one of them knows say nothing.
    """
    learnt, found = _meanings(dataset.palette), _meanings(own)
    for value in sorted(learnt.keys() & found.keys()):
        here, there = learnt[value], found[value]
        if here == there or not (None in (here, there) or (here in own.names and there in dataset.palette.names)):
            continue
        raise ModelFileError(
            f"{dataset.root}: {value} in its masks seems to be {there or 'no class'}, and is {here or 'no class'} to "
            f"the model; use masks with the numbers that it was trained on, or, if they are, give --classes "
            f"{run.classes}"
        )


def _meanings(palette: "Palette") -> dict[int, str | None]:
    """The class of each number in masks, None for what is no class."""
    numbered = [label for label in palette.labels if label.value is not None]
    return {label.value: None if label.id == IGNORE else palette.names[label.id] for label in numbered}
