"""`train --folds N`: a cross-validation, each fold a run of its own, and the scores of all of them together."""

import argparse
import os
from functools import partial
from pathlib import Path

from semseg import report
from semseg.backend.placing import Device
from semseg.cli.backends import refuse_processes
from semseg.cli.console import Progress, cell, percent, say, say_about, show_trainings
from semseg.cli.flags import to_flags
from semseg.cli.report import command, write_folds_page
from semseg.comparison.apart import train_apart
from semseg.comparison.folds import OutOfFold, train_folds
from semseg.comparison.spread import OUT_OF_FOLD, with_spread
from semseg.errors import RunFolderError, SemsegError, StopRequest
from semseg.files import archive, check_output
from semseg.metrics.confusion import PER_CLASS_SCORES
from semseg.runs import names
from semseg.runs.config import RunConfig, parse_fold
from semseg.runs.lock import one_writer, writer_of
from semseg.runs.run import Run
from semseg.runs.scores import ScoreFolder


def run_folds(config: RunConfig, arguments: argparse.Namespace) -> None:
    """Trains the folds that are not finished, and writes their scores to the output folder."""
    refuse_processes("train --folds")
    _check_flags(config, arguments)
    output = Path(config.output)
    check_output(output)
    try:
        with one_writer(output):
            _train_and_judge(output, config, arguments)
    except StopRequest as request:
        request.kept = f"the same command goes on with the folds in {output}"
        raise


def _train_and_judge(output: Path, config: RunConfig, arguments: argparse.Namespace) -> None:
    _make_room(output, arguments)
    say_about("folds", f"{arguments.folds} runs in {output}{os.sep}; what each says is in its {names.LOG}")
    with Progress("") as progress:
        train = partial(train_apart, flags=to_flags, devices=[Device()], show=partial(show_trainings, progress),
                        stopping=arguments.stopping)  # fmt: skip
        trainings = train_folds(config, arguments.folds, train, say_about)
    if trainings.errors:
        error = SemsegError(f"{len(trainings.errors)} of the folds failed, the same command tries again; "
                            f"{trainings.errors[0]}")  # fmt: skip
        error.exit_code = trainings.errors[0].exit_code
        raise error
    _finish(output, OutOfFold(trainings.runs))


def _check_flags(config: RunConfig, arguments: argparse.Namespace) -> None:
    """Raises a `SemsegError` for flags that do not go together."""
    if arguments.folds < 2:
        raise SemsegError(f"--folds: got {arguments.folds}; expected at least 2, such as 5")
    for name, value in (("fold", config.fold), ("test_split", config.test_split)):
        if value:
            raise SemsegError(f"`{name}`: got {value}, but every fold is judged on the photos that it holds out; leave "
                              "it out, or --folds")  # fmt: skip


def _make_room(output: Path, arguments: argparse.Namespace) -> None:
    """Refuses a folder with another run, or with other folds; moves what is there to its archive, if asked to."""
    if Run(output).config_path.is_file():
        raise RunFolderError(f"{output}: holds a run that is no fold; choose another `output`")
    folders = sorted(output.glob(names.FOLD.format(number="*")))
    for folder in folders:
        if writer := writer_of(folder):
            raise RunFolderError(f"{folder}: {writer} is writing there; wait for its end")
    if arguments.restart:
        archived = archive(output, [f"{folder.name}/**/*" for folder in folders] + _written())
        if archived:
            say_about("earlier", f"moved the folds of before to {archived}")
    there = [Run(folder).config.fold for folder in folders if Run(folder).config_path.is_file()]
    for fold in there:
        if fold is None or parse_fold(fold)[1] != arguments.folds:
            what = f"fold {fold}, not of {arguments.folds}" if fold else "no fold"
            raise RunFolderError(f"{output}: holds a run that is {what}; choose another `output`, or `restart`")


def _written() -> list[str]:
    return [*names.SCORE_FILES, names.REPORT]


def _finish(output: Path, folds: OutOfFold) -> None:
    """Writes tables, picture and page, and says the scores."""
    scores = ScoreFolder(output)
    folds.write(scores)
    report.save_confusion_matrix(folds.matrix, folds.runs[0].palette.names, scores.matrix_picture)
    page = write_folds_page(folds.runs, scores)
    _say_scores(folds)
    if tested := folds.tested:
        judge = command("evaluate", str(output))
        say_about("note", f"{tested} photos of test take part in no fold: {judge} judges all networks together there")
    if folds.never_held_out:
        say_about("note", f"{folds.never_held_out} photos are copies of others, and were held out by no fold")
    written = [name for name in _written() if (output / name).exists()]
    say_about("wrote", f"in {output}{os.sep}: {', '.join([*folds.metrics['folds'], *written])}")
    say_about("next", f"open {page} in a browser; {command('predict', str(output), 'PHOTOS')} averages the networks")


def _say_scores(folds: OutOfFold) -> None:
    """Prints the scores of every class over all photos, and the spread over the folds."""
    metrics, palette = folds.metrics, folds.runs[0].palette
    pixels = folds.matrix.sum(axis=1)
    width = max(map(len, (*palette.names, "macro")))
    say(f"\nScores {OUT_OF_FOLD} on {metrics['images']} photos, at the masks' own size:")
    say(f"{'class':{width}}  {'pixels':>7}  " + " ".join(f"{name:>12}" for name in PER_CLASS_SCORES)
        + "  IoU over folds")  # fmt: skip
    for i, (name, of_class) in enumerate(metrics["per_class"].items()):
        cells = " ".join(f" {cell(_number(of_class[score]))}" for score in PER_CLASS_SCORES)
        share = percent(pixels[i] / max(1, pixels.sum()))
        say(f"{name:{width}}  {share:>7}  {cells}  {with_spread(metrics['iou_over_folds'][name]):>14}")
    cells = " ".join(f" {cell(_number(metrics[f'macro_{score}']))}" for score in PER_CLASS_SCORES)
    say(f"{'macro':{width}}  {'':>7}  {cells}  {with_spread(metrics['over_folds']['macro_iou']):>14}")
    accuracy, iou, dice = (_number(metrics[name]) for name in ("accuracy", "macro_iou", "macro_dice"))
    say(f"accuracy {accuracy:.4f}, mean IoU {iou:.4f}, mean Dice {dice:.4f}; after ± the standard deviation over the "
        "folds")  # fmt: skip
    say_about("note", metrics["note"])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
