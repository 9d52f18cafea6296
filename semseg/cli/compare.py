"""`python -m semseg compare`: networks trained under equal conditions, or finished runs, and which one is better."""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import keras

from semseg.backend.placing import chosen_devices
from semseg.cli.console import Progress, say, say_about, show_trainings
from semseg.cli.flags import COMPARE_OUTPUT, SEEDS, given_settings, to_flags
from semseg.comparison.apart import train_apart
from semseg.comparison.costs import costs_of, how_measured, open_models, same_photos
from semseg.comparison.networks import Network, group_runs
from semseg.comparison.tables import repeats_of, summarise, table, to_csv_rows, to_markdown
from semseg.comparison.trainings import (
    Trainings,
    check_models,
    epochs_in,
    is_finished,
    of_part,
    planned_runs,
    train_all,
)
from semseg.errors import SemsegError
from semseg.files import archive, check_output, replacing, write_csv, write_json
from semseg.report import save_learning_curves, save_quality_cost, save_side_by_side
from semseg.runs.config import RunConfig
from semseg.runs.lock import one_writer, writer_of
from semseg.runs.members import are_folds, runs_in
from semseg.runs.run import Run

TABLES = ("comparison.json", "comparison.csv", "comparison.md")
CURVES, QUALITY_COST, SIDE_BY_SIDE = "curves.png", "quality_cost.png", "side_by_side.png"
COMPARISON_FILES = (*TABLES, CURVES, QUALITY_COST, SIDE_BY_SIDE)
WIDTH = 110  # columns of a terminal


def run(arguments: argparse.Namespace) -> None:
    """Compares as the flags say, and writes tables and pictures to the output folder."""
    given = given_settings(arguments)
    given.pop("devices", None)  # here it says how many runs go side by side
    _check_flags(arguments, given)
    output = Path(given.get("output", COMPARE_OUTPUT))
    check_output(output)
    arguments.devices = chosen_devices(arguments.devices)
    os.environ.update(arguments.devices[0].gpu)  # costs are measured on the first
    if arguments.part and not _train_part(arguments, given, output):
        return
    with one_writer(output):
        _compare(arguments, given, output)


def _train_part(arguments: argparse.Namespace, given: dict, output: Path) -> bool:
    """Trains its part of the runs, beside other commands with theirs; whether all are over and nobody compares them."""
    planned = _planned_runs(arguments, given, output)
    trainings = _train(of_part(planned, arguments.part), arguments)
    left = sum(not is_finished(config) for config in planned)
    if trainings.errors:
        raise _all_failed(trainings.errors, "the same command without --part tries again, and compares")
    if left:
        say_about("part", f"{arguments.part} is over; {left} of {len(planned)} runs are left to the others: the one "
                  "that ends last compares all, or the same command without --part")  # fmt: skip
        return False
    if who := writer_of(output):
        say_about("part", f"{arguments.part} is over, as are all; {who} compares them")
    return not who


def _compare(arguments: argparse.Namespace, given: dict, output: Path) -> None:
    if arguments.runs:
        folders = [path for folder in arguments.runs for path in _with_folds(Path(folder))]
        trainings = Trainings([Run.finished(folder) for folder in folders], [])
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


def _with_folds(folder: Path) -> list[Path]:
    """The folder of a run, or those of the folds in it."""
    runs = runs_in(folder)
    return [run.folder for run in runs] if are_folds(runs) else [folder]


def _check_flags(arguments: argparse.Namespace, given: dict) -> None:
    """Raises a `SemsegError` for flags that would be of no effect."""
    if bool(arguments.runs) == bool(arguments.models):
        raise SemsegError("compare: give either --models unet,r2unet,... to train, or the folders of finished runs")
    values = {**given, **{name: getattr(arguments, name) for name in ("seeds", "devices", "part")}}
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
    planned = _planned_runs(arguments, given, output)
    trainings = _train(planned, arguments)
    if trainings.errors and len({run.config.model for run in trainings.runs}) < 2:
        raise _all_failed(trainings.errors, "less than two networks are left to compare")
    models = _names(arguments.models)
    return Trainings([run for model in models for run in trainings.runs if run.config.model == model], trainings.errors)


def _planned_runs(arguments: argparse.Namespace, given: dict, output: Path) -> list[RunConfig]:
    models = _names(arguments.models)
    check_models(models)
    seeds = SEEDS if arguments.seeds is None else arguments.seeds
    if seeds < 1:
        raise SemsegError(f"`seeds`: got {seeds}; expected a whole number of at least 1, better {SEEDS}")
    minutes = given.get("minutes")
    common = RunConfig(**{**given, "minutes": None, "output": str(output)})
    if minutes is not None:
        _refuse_unlike(arguments)
    epochs = {} if minutes is None else epochs_in(minutes, common, models, output, say_about)
    return planned_runs(common, models, seeds, output, epochs)


def _refuse_unlike(arguments: argparse.Namespace) -> None:
    """Raises a `SemsegError` where an epoch would take another time than is measured."""
    first, *others = arguments.devices
    if arguments.part or (others and not first.gpu):
        name = "part" if arguments.part else "devices"
        raise SemsegError(f"`{name}`: runs of unlike computers, or that share one, take other times than are measured "
                          "for `minutes`; give `epochs`")  # fmt: skip


def _train(planned: Sequence[RunConfig], arguments: argparse.Namespace) -> Trainings:
    devices = arguments.devices
    if devices[1:]:
        say_about("devices", f"{', '.join(device.name for device in devices)}: one run at a time on each")
    with Progress("") as progress:
        train = partial(train_apart, flags=to_flags, devices=devices, show=partial(show_trainings, progress),
                        stopping=arguments.stopping)  # fmt: skip
        return train_all(planned, train, say_about)


def _all_failed(errors: Sequence[SemsegError], others: str) -> SemsegError:
    """What to end with, after the first of the failures."""
    error = SemsegError(f"{len(errors)} of the runs failed, {others}; {errors[0]}")
    error.exit_code = errors[0].exit_code
    return error


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
    say(
        f"{summary['photos']} photos of {summary['split']}; after ± the standard deviation over the "
        f"{repeats_of(summary)}\n"
    )
    for pair in summary["pairs"]:
        if pair["baseline"] == summary["baseline"]:
            say_about(pair["verdict"].split()[0], pair["text"])
    for topic in ("unequal", "failed"):
        for line in summary[topic]:
            say_about(topic, line)
