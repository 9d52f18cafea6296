"""`python -m semseg compare`: networks trained under equal conditions, or finished runs, and which one is better."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import keras

from semseg.cli.console import Progress, say, say_about
from semseg.cli.flags import COMPARE_OUTPUT, SEEDS, given_settings, to_flags
from semseg.comparison.costs import costs_of, how_measured, open_models, same_photos
from semseg.comparison.networks import Network, group_runs
from semseg.comparison.tables import summarise, table, to_csv_rows, to_markdown
from semseg.comparison.trainings import Trainings, check_models, epochs_in, planned_runs, train_all
from semseg.errors import SemsegError, StopRequest
from semseg.files import archive, check_output, last_lines, replacing, write_csv, write_json
from semseg.report import save_learning_curves, save_quality_cost, save_side_by_side
from semseg.runs.config import RunConfig
from semseg.runs.lock import one_writer
from semseg.runs.run import Run
from semseg.runs.stopping import SAVING_PATIENCE, STOPPED, Stopping

TABLES = ("comparison.json", "comparison.csv", "comparison.md")
CURVES, QUALITY_COST, SIDE_BY_SIDE = "curves.png", "quality_cost.png", "side_by_side.png"
COMPARISON_FILES = (*TABLES, CURVES, QUALITY_COST, SIDE_BY_SIDE)
WIDTH = 110  # columns of a terminal


def run(arguments: argparse.Namespace) -> None:
    """Compares as the flags say, and writes tables and pictures to the output folder."""
    given = given_settings(arguments)
    _check_flags(arguments, given)
    output = Path(given.get("output", COMPARE_OUTPUT))
    check_output(output)
    with one_writer(output):
        _compare(arguments, given, output)


def _compare(arguments: argparse.Namespace, given: dict, output: Path) -> None:
    if arguments.runs:
        trainings = Trainings([Run.finished(folder) for folder in arguments.runs], [])
    else:
        trainings = _train_all(arguments, given, output)
    networks = group_runs(trainings.runs)
    models = open_models(networks, say_about)
    summary = summarise(networks, costs_of(networks, models), [str(error) for error in trainings.errors])
    _write_all(output, networks, models, summary)
    _say(summary)
    written = sorted(name for name in COMPARISON_FILES if (output / name).exists())
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")
    if trainings.errors:
        raise _all_failed(trainings.errors, "the others were compared")


def _check_flags(arguments: argparse.Namespace, given: dict) -> None:
    """Raises a `SemsegError` for flags that would be of no effect."""
    if bool(arguments.runs) == bool(arguments.models):
        raise SemsegError("compare: give either --models unet,r2unet,... to train, or the folders of finished runs")
    values = {**given, "seeds": arguments.seeds}
    training = [name for name, value in values.items() if value is not None and name not in ("backend", "output")]
    if arguments.runs and training:
        raise SemsegError(
            f"`{training[0]}`: finished runs are compared as they were trained; leave it out, or give --models"
        )
    if not arguments.runs:
        _check_training_flags(arguments, given)


def _check_training_flags(arguments: argparse.Namespace, given: dict) -> None:
    encoder = [name for name in ("encoder", "encoder_weights") if name in given]
    if encoder and "encoder_unet" not in _names(arguments.models):
        raise SemsegError(
            f"`{encoder[0]}`: got {given[encoder[0]]}, but --models {arguments.models}; add encoder_unet, which alone "
            "takes it, or leave it out"
        )


def _names(models: str) -> list[str]:
    return [name.strip() for name in models.split(",")]


# ------------------------------------------------------------------------------------------------------- training


def _train_all(arguments: argparse.Namespace, given: dict, output: Path) -> Trainings:
    """Trains what is not finished yet; the runs come network by network."""
    models = _names(arguments.models)
    check_models(models)
    seeds = SEEDS if arguments.seeds is None else arguments.seeds
    if seeds < 1:
        raise SemsegError(f"`seeds`: got {seeds}; expected a whole number of at least 1, better {SEEDS}")
    minutes = given.get("minutes")
    common = RunConfig(**{**given, "minutes": None, "output": str(output)})
    epochs = {} if minutes is None else epochs_in(minutes, common, models, output, say_about)
    train = partial(_train_one, stopping=arguments.stopping)
    trainings = train_all(planned_runs(common, models, seeds, output, epochs), train, say_about)
    if trainings.errors and len({run.config.model for run in trainings.runs}) < 2:
        raise _all_failed(trainings.errors, "less than two networks are left to compare")
    return Trainings([run for model in models for run in trainings.runs if run.config.model == model], trainings.errors)


def _all_failed(errors: Sequence[SemsegError], others: str) -> SemsegError:
    """What to end with, after the first of the failures."""
    error = SemsegError(f"{len(errors)} of the runs failed, {others}; {errors[0]}")
    error.exit_code = errors[0].exit_code
    return error


def _train_one(config: RunConfig, label: str, stopping: Stopping | None = None) -> None:
    """Trains, or goes on with what was stopped, in a process of its own: each starts alike, its peak of memory its own.

    Raises:
        SemsegError: The run failed; with its message and exit code.
        StopRequest: It was stopped.
    """
    folder = Run(Path(config.output))
    folder.folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (
        folder.log_path.open("wb") as log,
        Progress(f"{label} {config.model}, seed {config.seed}") as progress,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "semseg", "train", *to_flags(config)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # a terminal's Ctrl-C would reach it twice, and twice means at once
        )  # fmt: skip
        _wait(child, folder.log_path, progress, config.epochs, stopping)
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    if code in STOPPED:
        raise StopRequest(STOPPED[code], code)
    if code:
        raise _failure(folder, child.returncode)


def _failure(folder: Run, code: int) -> SemsegError:
    """What a run that failed said, with its exit code."""
    kept = folder.log_path.replace(folder.failed_log_path)
    lines = last_lines(kept) or ["it said nothing"]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = (errors or lines)[-1]
    how = f"ended with code {code}" if code > 0 else f"was killed ({-code})"
    error = SemsegError(f"{folder.folder}: {how}: {last}; see {kept.name} there; the same command tries again")
    error.exit_code = code if code > 0 else 128 - code
    return error


def _wait(
    child: subprocess.Popen, log: Path, progress: Progress, epochs: int, stopping: Stopping | None = None
) -> None:
    """Shows how far the child is until it ends; whatever interrupts that ends the child, too."""
    try:
        while child.poll() is None:
            try:
                child.wait(0.5)
            except subprocess.TimeoutExpired:
                last = (last_lines(log) or ["starting"])[-1]
                done = last.split("/")[0].strip()
                progress.show(int(done) if done.isdecimal() else 0, epochs, " ".join(last.split())[:50])
    except BaseException as error:
        _ = stopping and stopping.request  # who reads it has the time that the child needs to save its state
        number = error.exit_code - 128 if isinstance(error, StopRequest) else signal.SIGINT
        child.terminate() if os.name == "nt" else child.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(SAVING_PATIENCE)
        raise
    finally:
        if child.poll() is None:
            child.kill()


# -------------------------------------------------------------------------------------------------------- results


def _write_all(output: Path, networks: Sequence[Network], models: Mapping[str, keras.Model], summary: dict) -> None:
    """Writes tables and pictures aside, and puts them in the place of an earlier comparison once all of them exist."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".new-") as folder:
        new = Path(folder)
        _write_tables(new, summary, how_measured(networks, models))
        _draw(new, networks, summary)
        try:
            _draw_side_by_side(new, networks, models)
        except SemsegError as error:  # the data of finished runs may have gone
            say_about("note", f"no {SIDE_BY_SIDE}: {error}")
        archived = archive(output, COMPARISON_FILES)
        for path in new.iterdir():
            path.replace(output / path.name)
    if archived:
        say_about("earlier", f"moved the files of the comparison before to {archived}")


def _write_tables(output: Path, summary: dict, how: list[str]) -> None:
    values, rows, page = (output / name for name in TABLES)
    write_json(values, {**summary, "how": how})
    write_csv(rows, to_csv_rows(summary))
    with replacing(page) as temporary:
        temporary.write_text(to_markdown(summary, how), encoding="utf-8")


def _draw(output: Path, networks: Sequence[Network], summary: dict) -> None:
    histories = {network.name: [run.history for run in network.runs] for network in networks}
    save_learning_curves(histories, output / CURVES)
    rows = {row["name"]: row for row in summary["networks"]}
    costs = ("name", "parameters", "gflops", "milliseconds", "memory_mb")
    points = []
    for network in networks:
        point = {cost: rows[network.name][cost] for cost in costs}
        points.append({**point, "miou": network.values("macro_iou").tolist()})
    save_quality_cost(points, output / QUALITY_COST)


def _draw_side_by_side(output: Path, networks: Sequence[Network], models: Mapping[str, keras.Model]) -> None:
    photos = same_photos(networks, models)
    seeds = " or ".join(map(str, sorted({network.runs[0].config.seed for network in networks})))
    title = f"The same photos by each network, seed {seeds}; above a prediction its mean IoU over the photo's classes"
    save_side_by_side(photos.rows, photos.palette, output / SIDE_BY_SIDE, scores=photos.scores, title=title)


def _say(summary: dict) -> None:
    """Prints the table and the verdicts on the first network."""
    rows = table(summary)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = min(widths[0], max(12, WIDTH - sum(widths[1:]) - len(widths) + 1))
    say("")
    for name, *cells in rows:
        if len(name) > widths[0]:  # a line of its own: long names often differ at their end only
            say(name)
            name = ""
        numbers = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        say(f"{name:{widths[0]}} {numbers}")
    say(f"{summary['photos']} photos of {summary['split']}; after ± the standard deviation over the seeds\n")
    for pair in summary["pairs"]:
        if pair["baseline"] == summary["baseline"]:
            say_about(pair["verdict"].split()[0], pair["text"])
    for topic in ("unequal", "failed"):
        for line in summary[topic]:
            say_about(topic, line)
