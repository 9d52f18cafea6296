"""`python -m semseg report`: one page about a run, or about several side by side."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from semseg.cli.console import say_about
from semseg.cli.flags import RUNS_PAGE, to_flags
from semseg.errors import RunFolderError, SemsegError
from semseg.files import check_output
from semseg.report.facts import facts_of, short_names
from semseg.report.page import save_folds_page, save_run_page, save_runs_page
from semseg.runs import names
from semseg.runs.members import are_folds, runs_in
from semseg.runs.run import Run
from semseg.runs.scores import ScoreFolder


def run(arguments: argparse.Namespace) -> None:
    """Makes the page that the flags ask for."""
    folders = [Path(folder) for folder in arguments.runs]
    default = Run(folders[0]).report_path if len(folders) == 1 else RUNS_PAGE
    path = Path(arguments.output or default)
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise SemsegError(f"`output`: got {str(path)!r}; expected a file to write, such as {names.REPORT}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise SemsegError("report: got the same run twice; give each once")
    check_output(path.parent)
    if len(folders) == 1 and are_folds(runs := runs_in(folders[0])):
        write_folds_page(runs, ScoreFolder(folders[0]), path)
    elif len(folders) == 1:
        write_report(Run(folders[0]), path)
    else:
        _write_several(folders, path)
    say_about("wrote", f"{path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser")


def write_report(folder: Run, path: Path | None = None) -> Path:
    """Writes the page about a finished run, into its folder unless another path is given.

    Raises:
        RunFolderError: It is no folder of a finished run, or a file of it cannot be read.
    """
    facts = facts_of(folder.folder, commands=_commands(Run(folder.folder)))
    path = path or folder.report_path
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_run_page(facts, path)


def write_folds_page(runs: Sequence[Run], scores: ScoreFolder, path: Path | None = None) -> Path:
    """The page about the folds of a cross-validation, with a link to that of each.

    Args:
        runs: Of the folds, in order.
        scores: Their scores out-of-fold, in the folder that holds those of the folds.
        path: The page; None for the usual place.

    Raises:
        RunFolderError: A fold's files cannot be read, or the scores are not there.
    """
    place, path = str(scores.folder), path or Run(scores.folder).report_path
    if not scores.metrics_path.is_file():
        raise RunFolderError(f"{place}: holds folds without their scores; the command that trained them writes these")
    facts = [facts_of(run.folder, run.folder.name) for run in runs]
    links = {run.folder.name: os.path.relpath(run.report_path, path.parent) for run in runs}
    commands = [
        ("Masks for new photos, by the mean of all networks", command("predict", place, "WHAT")),
        ("Judge the mean of all networks on other photos with masks", command("evaluate", place, "--data", "DIR")),
        ("All networks in one file that runs without Keras", command("export", place, "--format", "onnx")),
        ("Which photos to label next", command("suggest", place, "PHOTOS")),
        ("Which labels to look at again", command("suggest", place, "--labels")),
        ("Compare with another network's folds", command("compare", place, "OTHER_FOLDS")),
        ("Make this page again", command("report", place)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_folds_page(facts, scores.read_metrics(), path, links=links, commands=commands)


def _write_several(folders: list[Path], path: Path) -> None:
    runs = [facts_of(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]
    commands = [
        ("Is the difference more than chance?", command("compare", *map(str, folders))),
        ("Make this page again", command("report", *map(str, folders), "--output", str(path))),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_runs_page(runs, path, commands)


def _commands(folder: Run) -> list[tuple[str, str]]:
    """What can be done with a run, and how."""
    place, config = str(folder.folder), folder.config_or_none
    again = to_flags(config, without_defaults=True) if config else []
    if config and "--backend" not in again:
        again += ["--backend", config.backend]
    logs = shlex.join(["tensorboard", "--logdir", str(folder.events_folder)])
    return [
        ("Judge it again: worst and best photos, and how far to trust its confidence", command("evaluate", place)),
        ("Judge it on other photos with masks", command("evaluate", place, "--data", "DIR")),
        ("Masks for new photos: a folder, a photo or a video", command("predict", place, "WHAT")),
        ("Try it in the browser", command("serve", place)),
        ("A file that runs without Keras, on phones and servers", command("export", place, "--format", "onnx")),
        ("Compare it with another run", command("compare", place, "OTHER_RUN")),
        ("See its curves and pictures in TensorBoard (pip install tensorboard)", logs),
        ("Train it again, in the same way", command("train", *again)),
        ("Make this page again", command("report", place)),
    ]


def command(*words: str) -> str:
    """A command of the program, as one types it."""
    return shlex.join(["python", "-m", "semseg", *words])
