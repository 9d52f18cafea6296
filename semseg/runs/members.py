"""A folder of runs that belong together: the folds of a cross-validation, or any runs of the same classes."""

import re
from collections.abc import Sequence
from pathlib import Path

from semseg.errors import RunFolderError
from semseg.runs.config import parse_fold
from semseg.runs.run import Run
from semseg.runs.splits import Splits

_SPLIT_ORDER = ("train", "val", "test")  # what a photo was to any of the runs counts before what follows


def runs_in(folder: Path) -> list[Run]:
    """The runs whose folders lie in a folder, by name, 2 before 10; none where the folder is a run itself.

    Args:
        folder: Any path.

    Raises:
        RunFolderError: One of them did not finish, or a fold is missing.
    """
    if not folder.is_dir() or Run(folder).config_path.is_file():
        return []
    runs = [Run(inner) for inner in sorted(folder.iterdir(), key=_number_aware) if Run(inner).config_path.is_file()]
    for run in runs:
        if missing := run.missing_files():
            raise RunFolderError(f"{run.folder}: the run did not finish, {', '.join(missing)} is missing; train it on")
    folds = [parse_fold(run.config.fold) for run in runs if run.config.fold]
    if folds and len(folds) == len(runs) and len(set(folds)) < folds[0][1]:
        raise RunFolderError(f"{folder}: holds {len(set(folds))} of {folds[0][1]} folds; train the others first")
    return runs


def are_folds(runs: Sequence[Run]) -> bool:
    """Whether runs held out other photos each, as the folds of a cross-validation do."""
    return len(runs) > 1 and all(run.config.fold for run in runs)


def joined_splits(runs: Sequence[Run]) -> Splits:
    """What photos were to runs that work together: trained on by any of them, else used to choose an epoch by any.

    Args:
        runs: From `runs_in`.
    """
    joined: Splits = {}
    for split in reversed(_SPLIT_ORDER):
        for run in runs:
            joined |= {key: entry for key, entry in run.splits.items() if entry.split == split}
    return joined


def _number_aware(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
