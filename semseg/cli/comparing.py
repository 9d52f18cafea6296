"""`python -m semseg compare`: networks trained under equal conditions, or finished runs, and which one is better."""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from semseg.cli.console import Progress, say, say_about, size_text, write_json
from semseg.cli.opening import choose_backend, model_path, open_data, open_model
from semseg.cli.output import check_output
from semseg.cli.splits import photo_name
from semseg.cli.training import new_model
from semseg.errors import NonFiniteLossError, ResourceError, RunFolderError, SemsegError
from semseg.files import archive, replacing
from semseg.runs.config import RunConfig, to_flags

if TYPE_CHECKING:  # rooms that load Keras or SciPy are imported where a command needs them
    import keras

    from semseg.comparison.statistics import Network, Run

PICTURES = ("curves.png", "quality_cost.png", "side_by_side.png")
COMPARISON_FILES = ("comparison.json", "comparison.csv", "comparison.md", *PICTURES)
SHOWN = 6
RESERVE = 0.1  # of the time: loading, saving and logging, which steps alone do not show
SEEDS = 3
OF_ONE_RUN = (NonFiniteLossError.exit_code, ResourceError.exit_code, 128 + 9)  # 9: killed, most often for its memory
_ANY = {"output": "", "workers": 0, "cache": None}  # what may differ between equal runs


def compare(arguments: argparse.Namespace) -> None:
    """Compares as the flags say, and writes tables and pictures to the output folder."""
    _check_flags(arguments)
    backend = choose_backend(arguments.backend)
    output = Path(arguments.output)
    check_output(output)

    from semseg.comparison.statistics import group_runs, read_run, summarise

    runs, failed = [read_run(run) for run in arguments.runs], []
    if not runs:
        runs, failed = _train_all(arguments, backend, output)
    networks = group_runs(runs)
    models = _open_models(networks)
    summary = summarise(networks, _costs(networks, models), [str(error) for error in failed])
    _write_all(output, networks, models, summary)
    _say(summary)
    written = sorted(name for name in COMPARISON_FILES if (output / name).exists())
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")
    if failed:
        raise _all_failed(failed, "the others were compared")


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raises a `SemsegError` for flags that would be of no effect."""
    if bool(arguments.runs) == bool(arguments.models):
        raise SemsegError("compare: give either --models unet,r2unet,... to train, or the folders of finished runs")
    values = {name: value for name, value in vars(arguments).items() if value is not None}
    training = [name for name in values if name in {*RunConfig.__dataclass_fields__, "seeds", "minutes"}]
    training = [name for name in training if name not in ("backend", "output")]
    if arguments.runs and training:
        raise SemsegError(
            f"{_flag(training[0])}: finished runs are compared as they were trained; leave it out, or give --models"
        )
    if arguments.runs:
        return
    encoder = [name for name in ("encoder", "encoder_weights") if name in values]
    if encoder and "encoder_unet" not in _names(arguments.models):
        raise SemsegError(
            f"{_flag(encoder[0])}: got {values[encoder[0]]}, but --models {arguments.models}; add encoder_unet, which "
            "alone takes it, or leave it out"
        )
    if {"minutes", "epochs"} <= values.keys():
        raise SemsegError(
            f"--minutes: got {values['minutes']:g} and --epochs {values['epochs']}; give only one of them"
        )


def _train_all(arguments: argparse.Namespace, backend: str, output: Path) -> tuple[list["Run"], list[SemsegError]]:
    """Trains what is not finished yet, seed by seed; returns the runs, network by network, and what failed."""
    models = _known_models(arguments.models)
    seeds = SEEDS if arguments.seeds is None else arguments.seeds
    if seeds < 1:
        raise SemsegError(f"--seeds: got {seeds}; expected a whole number of at least 1, better {SEEDS}")
    given = {name: value for name, value in vars(arguments).items() if name in RunConfig.__dataclass_fields__}
    given = {name: value for name, value in given.items() if value is not None}
    common = RunConfig(**{**given, "backend": backend})
    epochs = _epochs_in(arguments.minutes, common, models, output) if arguments.minutes is not None else {}
    plan = [
        _of_model(replace(common, epochs=epochs.get(model, common.epochs), seed=common.seed + seed), model, output)
        for seed in range(seeds)
        for model in models
    ]
    runs, failed = _run_all(plan)
    if failed and len({run.config.model for run in runs}) < 2:
        raise _all_failed(failed, "less than two networks are left to compare")
    return [run for model in models for run in runs if run.config.model == model], failed


def _run_all(plan: Sequence[RunConfig]) -> tuple[list["Run"], list[SemsegError]]:
    """Trains what is not finished yet; one that diverges or finds no memory does not keep the others from it."""
    from semseg.comparison.statistics import check_same_data, read_run

    runs, failed = [], []
    finished = [_is_finished(config) for config in plan]
    for number, (config, done) in enumerate(zip(plan, finished, strict=True), start=1):
        label = f"run {number}/{len(plan)}"
        try:
            if not done:
                _train_one(config, label)
        except SemsegError as error:
            if error.exit_code not in OF_ONE_RUN:
                raise
            say_about(label, f"{config.model}, seed {config.seed}: failed; {error}")
            failed.append(error)
            continue
        runs.append(read_run(config.output))
        check_same_data(runs[0], runs[-1])
        metrics = runs[-1].metrics
        how = "finished before" if done else f"{config.epochs} epochs in {metrics['training_seconds'] / 60:.1f} min"
        say_about(label, f"{config.model}, seed {config.seed}: mean IoU {metrics['macro_iou'] or 0:.4f}, {how}")
    return runs, failed


def _all_failed(failed: Sequence[SemsegError], others: str) -> SemsegError:
    """What to end with, after the first of the failures."""
    error = SemsegError(f"{len(failed)} of the runs failed, {others}; {failed[0]}")
    error.exit_code = failed[0].exit_code
    return error


def _names(models: str) -> list[str]:
    return [name.strip() for name in models.split(",")]


def _known_models(text: str) -> list[str]:
    from semseg.architectures import ARCHITECTURES

    models = _names(text)
    known = f"choose from {', '.join(ARCHITECTURES)}, or module:function"
    if unknown := [name for name in models if name not in ARCHITECTURES and ":" not in name]:
        raise SemsegError(f"--models: there is no network {', '.join(map(repr, unknown))}; {known}")
    if len(set(map(_slug, models))) < max(2, len(models)):
        raise SemsegError(f"--models: got {text}; expected at least two different networks, each named once; {known}")
    return models


def _slug(model: str) -> str:
    return model.replace(":", "-")


def _of_model(config: RunConfig, model: str, output: Path) -> RunConfig:
    """The same run with another network; only `encoder_unet` has an encoder to choose."""
    folder = output / "runs" / f"{_slug(model)}-seed{config.seed}"
    encoder = {} if model == "encoder_unet" else {"encoder": None, "encoder_weights": None}
    return replace(config, model=model, output=str(folder), **encoder)


def _is_finished(config: RunConfig) -> bool:
    """Whether the run lies in its folder already.

    Raises:
        RunFolderError: A run with other settings lies there.
    """
    from semseg.comparison.statistics import missing_files

    folder = Path(config.output)
    if missing_files(folder):
        return False
    there, asked = (asdict(replace(run, **_ANY)) for run in (RunConfig.read(folder / "config.json"), config))
    if there != asked:
        flags = ", ".join(
            f"{_flag(name)} {there[name]} (now {asked[name]})" for name in asked if there[name] != asked[name]
        )
        raise RunFolderError(f"{folder}: was trained with {flags}; choose another --output, or the same flags as then")
    return True


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _train_one(config: RunConfig, label: str) -> None:
    """Trains in a process of its own: each starts alike, and its peak of memory is its own.

    Raises:
        SemsegError: The run failed; with its message and exit code.
        KeyboardInterrupt: It was stopped.
    """
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            (folder / "log.txt").open("wb") as log,
            Progress(f"{label} {config.model}, seed {config.seed}") as progress,
        ):
            with _ctrl_c_for_children():
                child = subprocess.Popen(
                    [sys.executable, "-m", "semseg", "train", *to_flags(config)], stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
                )  # fmt: skip
            _wait(child, folder / "log.txt", progress, config.epochs)
    finally:
        signal.signal(signal.SIGTERM, before)
    if child.returncode in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    if child.returncode:
        kept = (folder / "log.txt").replace(folder / "log-failed.txt")  # the next attempt writes a log.txt of its own
        lines = _lines(kept) or ["it said nothing"]
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
        how = f"ended with code {child.returncode}" if child.returncode > 0 else f"was killed ({-child.returncode})"
        error = SemsegError(f"{folder}: {how}: {told[-1]}; see {kept.name} there; the same command tries again")
        error.exit_code = child.returncode if child.returncode > 0 else 128 - child.returncode
        raise error


@contextmanager
def _ctrl_c_for_children() -> Iterator[None]:
    """A process started within hears SIGINT, which stops it, even where a shell has this one ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _wait(child: subprocess.Popen, log: Path, progress: Progress, epochs: int) -> None:
    """Shows how far the child is until it ends; whatever interrupts that ends the child, too."""
    try:
        while child.poll() is None:
            try:
                child.wait(0.5)
            except subprocess.TimeoutExpired:
                last = (_lines(log) or ["starting"])[-1]
                done = last.split("/")[0].strip()
                progress.show(int(done) if done.isdecimal() else 0, epochs, " ".join(last.split())[:50])
    finally:
        if child.poll() is None:
            child.terminate() if os.name == "nt" else child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(20)
            child.kill()


def _lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
        text = file.read().decode("utf-8", "replace")
    return [line for line in text.splitlines() if line.strip()]


def _epochs_in(minutes: float, config: RunConfig, models: Sequence[str], output: Path) -> dict[str, int]:
    """How many epochs of each network fit into the time, at least one; measured once for an output folder."""
    if not 0 < minutes < float("inf"):
        raise SemsegError(f"--minutes: got {minutes}; expected a number above 0")
    path = output / "settings.json"
    conditions = json.loads(json.dumps({**asdict(replace(config, model="", seed=0, **_ANY)), "minutes": minutes}))
    measured, seconds = _read_settings(path) if path.is_file() else (conditions, {})
    differing = [name for name in conditions if measured.get(name) != conditions[name]]
    if differing:
        raise RunFolderError(f"{path}: epochs were measured for another {_flag(differing[0])}; choose another --output")
    missing = [model for model in models if model not in seconds]
    if missing:
        say_about("measuring", f"how many epochs of {', '.join(missing)} fit into {minutes:g} minutes")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # leaves no memory taken on a GPU
            seconds.update(pool.submit(seconds_per_epoch, config, missing).result())
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, {"conditions": conditions, "seconds_per_epoch": seconds})
    epochs = {model: max(1, int(60 * minutes * (1 - RESERVE) / seconds[model])) for model in models}
    say_about("epochs", ", ".join(f"{epochs[model]} of {model} ({seconds[model]:.1f} s each)" for model in models))
    return epochs


def _read_settings(path: Path) -> tuple[dict, dict[str, float]]:
    """The conditions under which the seconds of an epoch were measured, and these by network."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        seconds = {str(model): float(value) for model, value in settings["seconds_per_epoch"].items()}
        if not all(0 < value < float("inf") for value in seconds.values()):
            raise ValueError("seconds that are no positive number")
        return dict(settings["conditions"]), seconds
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error!r}); remove it, and the epochs are measured anew"
        ) from None


def seconds_per_epoch(config: RunConfig, models: Sequence[str]) -> dict[str, float]:
    """The time that the steps of one epoch and its validation take, measured in turns on random photos."""
    import numpy as np

    from semseg.architectures.cost import interleaved_medians
    from semseg.backend.devices import keras_compiles, usable_precision
    from semseg.training.loop import training_model
    from semseg.training.muon import Muon
    from semseg.training.recipe import suited_batch_size

    dataset = open_data(config, demo=True)
    batch_size, _ = suited_batch_size(config, len(dataset.splits["train"]))
    config = replace(config, precision=usable_precision(config.precision)[0], batch_size=batch_size)
    classes, size = dataset.palette.num_classes, (config.batch_size, *config.image_size)
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (*size, 3)).astype(np.uint8), rng.integers(0, classes, size).astype(np.uint8)
    functions = []
    for name in models:
        model = new_model(_of_model(config, name, Path()), dataset.num_logits)
        trained = training_model(model, config, dataset)
        trained.compile(Muon(1e-4), jit_compile=keras_compiles(config.compile))
        if config.compile:
            with suppress(Exception):  # the run itself tells
                trained.compile_graph(batch[0])
        functions += [lambda m=trained: m.train_on_batch(*batch), lambda m=trained: m.test_on_batch(*batch)]
    measured = interleaved_medians(functions, rounds=7)
    steps = [-(-len(dataset.splits[split]) // config.batch_size) for split in ("train", "val")]
    return {name: steps[0] * measured[2 * i] + steps[1] * measured[2 * i + 1] for i, name in enumerate(models)}


def _open_models(networks: Sequence["Network"]) -> dict[str, "keras.Model"]:
    """The network of each first run by name, without those that cannot be opened: with layers of one's own, say."""
    models = {}
    for network in networks:
        try:
            models[network.name] = open_model(model_path(network.runs[0].folder))
        except SemsegError as error:
            say_about("note", f"{network.name}: its costs are unknown, and it is not in side_by_side.png; {error}")
    return models


def _costs(networks: Sequence["Network"], models: Mapping[str, "keras.Model"]) -> dict[str, dict[str, float | None]]:
    """Of each network; of one that could not be opened, what its run noted."""
    from semseg.architectures.cost import count_flops, count_parameters, time_per_image

    costs = {
        network.name: {"parameters": network.runs[0].noted.get("parameters"), "gflops": None, "milliseconds": None}
        for network in networks
    }
    for (name, model), milliseconds in zip(models.items(), time_per_image(list(models.values())), strict=True):
        flops = count_flops(model)
        costs[name] = {
            "parameters": count_parameters(model),
            "gflops": flops and flops / 1e9,
            "milliseconds": milliseconds,
        }
    return costs


def _how(networks: Sequence["Network"], models: Mapping[str, "keras.Model"]) -> list[str]:
    """What the tables do not say of the measurement."""
    import keras

    from semseg.backend.devices import device_name

    sizes = sorted({size_text(model.input_shape[1:3]) for model in models.values()})
    metrics = networks[0].runs[0].metrics
    unopened = [network.name for network in networks if network.name not in models]
    note = f"Without costs, since the model cannot be opened: {', '.join(unopened)}."
    milliseconds = (
        f"ms: one photo of {', '.join(sizes)} at a time, from uint8 to logits, on {device_name()} with Keras "
        f"{keras.__version__} on {keras.backend.backend()}; median of rounds in which the networks take turns."
    )
    return [
        *([note] if unopened else []),
        f"Scores: on {metrics['split']} ({metrics.get('note', '')}), with the weights of each run's best epoch.",
        "GFLOPs: of convolutions and dense layers for one photo, a multiply-add counted as two.",
        *([milliseconds] if models else []),
        "MB: the most memory that a training had (the highest of its seeds), on the GPU or, without one, in all.",
        "min: minutes that a training took, mean over the seeds.",
    ]


def _write_all(output: Path, networks: Sequence["Network"], models: Mapping[str, "keras.Model"], summary: dict) -> None:
    """Writes tables and pictures aside, and puts them in the place of an earlier comparison once all of them exist."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".new-") as folder:
        new = Path(folder)
        _write(new, summary, _how(networks, models))
        _draw(new, networks, summary)
        try:
            _draw_side_by_side(new, networks, models)
        except SemsegError as error:  # the data of finished runs may have gone
            say_about("note", f"no side_by_side.png: {error}")
        archived = archive(output, COMPARISON_FILES)
        for path in new.iterdir():
            path.replace(output / path.name)
    if archived:
        say_about("earlier", f"moved the files of the comparison before to {archived}")


def _write(output: Path, summary: dict, how: list[str]) -> None:
    from semseg.comparison.statistics import to_csv_rows, to_markdown

    write_json(output / "comparison.json", {**summary, "how": how})
    with replacing(output / "comparison.md") as temporary:
        temporary.write_text(to_markdown(summary, how), encoding="utf-8")
    rows = to_csv_rows(summary)
    with replacing(output / "comparison.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def _draw(output: Path, networks: Sequence["Network"], summary: dict) -> None:
    from semseg.report import save_learning_curves, save_quality_cost

    save_learning_curves(
        {network.name: [run.history for run in network.runs] for network in networks}, output / "curves.png"
    )
    rows = {row["name"]: row for row in summary["networks"]}
    costs = ("name", "parameters", "gflops", "milliseconds", "memory_mb")
    points = [
        {**{cost: rows[network.name][cost] for cost in costs}, "miou": network.values("macro_iou").tolist()}
        for network in networks
    ]
    save_quality_cost(points, output / "quality_cost.png")


def _draw_side_by_side(output: Path, networks: Sequence["Network"], models: Mapping[str, "keras.Model"]) -> None:
    """Photos spread evenly over the split, by each network's first seed."""
    from semseg.backend.predictor import predictor
    from semseg.data.base import spread
    from semseg.inference.segmenter import predict_ids
    from semseg.report import save_side_by_side

    if not models:
        raise SemsegError("compare: no model can be opened")
    first = networks[0].runs[0]
    dataset = open_data(first.config)
    samples = {photo_name(sample, dataset.root): sample for sample in dataset.samples}
    chosen = spread([name for name in sorted(first.photos) if name in samples], SHOWN)
    if not chosen:
        raise SemsegError(f"{first.config.data}: holds none of the photos that the runs were judged on")
    loaded = [dataset.load(samples[name]) for name in chosen]
    predictions = {
        name: list(predict_ids(predictor(model), (photo for photo, _ in loaded), image_size=model.input_shape[1:3]))
        for name, model in models.items()
    }
    rows = [
        (name, photo, truth, {network: ids[i] for network, ids in predictions.items()})
        for i, (name, (photo, truth)) in enumerate(zip(chosen, loaded, strict=True))
    ]
    scores = [{network.name: network.runs[0].photos[name] for network in networks} for name in chosen]
    seeds = " or ".join(map(str, sorted({network.runs[0].config.seed for network in networks})))
    title = f"The same photos by each network, seed {seeds}; above a prediction its mean IoU over the photo's classes"
    save_side_by_side(rows, dataset.palette, output / "side_by_side.png", scores=scores, title=title)


def _say(summary: dict) -> None:
    """Prints the table, at most 110 columns wide, and the verdicts on the first network."""
    from semseg.comparison.statistics import table

    rows = table(summary)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = min(widths[0], max(12, 110 - sum(widths[1:]) - len(widths) + 1))
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
    for line in summary["unequal"]:
        say_about("unequal", line)
    for line in summary["failed"]:
        say_about("failed", line)
