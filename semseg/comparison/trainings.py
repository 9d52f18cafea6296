"""Training several networks with several seeds under equal conditions: which runs, and what is finished already."""

import json
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from semseg.architectures import ARCHITECTURES
from semseg.data.opening import Tell, open_data, read_digests
from semseg.data.splits import changes_since
from semseg.errors import NonFiniteLossError, ResourceError, RunFolderError, SemsegError
from semseg.files import read_json, write_json
from semseg.runs.config import RunConfig, differing_settings
from semseg.runs.run import Run, check_same_data
from semseg.training import timing
from semseg.training.timing import measured_apart, with_network

RUNS_FOLDER = "runs"
SETTINGS_FILE = "settings.json"  # how long an epoch of each network takes, and under which conditions that was measured
KILLED = 128 + 9  # the exit code of a process that was killed, most often for its memory
OF_ONE_RUN = (NonFiniteLossError.exit_code, ResourceError.exit_code, KILLED)  # these keep no other run from its turn
_MAY_DIFFER = ("output", "workers", "cache", "keep", "checkpoint_minutes")  # between equal runs

Outcome = tuple[str, RunConfig, SemsegError | None]  # what to call a run, itself, and what it failed with
Train = Callable[[Sequence[tuple[str, RunConfig]]], Generator[Outcome]]  # trains runs, and gives each as it ends


@dataclass(frozen=True)
class Trainings:
    """What became of all runs.

    Args:
        runs: Those that are finished.
        errors: What those that failed ended with.
    """

    runs: list[Run]
    errors: list[SemsegError]


def check_models(models: Sequence[str]) -> None:
    """Refuses names of networks that cannot be compared.

    Raises:
        SemsegError: There is no such network, one is named twice, or fewer than two are named.
    """
    known = f"choose from {', '.join(ARCHITECTURES)}, or module:function"
    if unknown := [name for name in models if name not in ARCHITECTURES and ":" not in name]:
        raise SemsegError(f"`models`: there is no network {', '.join(map(repr, unknown))}; {known}")
    if len({_folder_name(name) for name in models}) < max(2, len(models)):
        raise SemsegError(
            f"`models`: got {','.join(models)}; expected at least two different networks, each named once; {known}"
        )


def planned_runs(
    common: RunConfig, models: Sequence[str], seeds: int, output: Path, epochs: dict[str, int]
) -> list[RunConfig]:
    """All runs, seed by seed, so that an early stop leaves whole rounds.

    Args:
        common: What all of them share; its seed is the first.
        models: Names of the networks.
        seeds: Runs of each network.
        output: Folder that the folders of the runs go into.
        epochs: Of the networks that train for another number of epochs than `common` says.
    """
    return [
        _of_model(replace(common, epochs=epochs.get(model, common.epochs), seed=common.seed + seed), model, output)
        for seed in range(seeds)
        for model in models
    ]


def of_part(configs: Sequence[RunConfig], part: str | None) -> list[RunConfig]:
    """Every N-th run, from the K-th on: what one of N commands trains that share them, on other computers perhaps.

    Args:
        configs: From `planned_runs`.
        part: `"K/N"`, K from 0 or from 1 on; None for all runs.

    Raises:
        SemsegError: It is no such part.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part or "1/1")
    number, count = map(int, match.groups()) if match else (1, 0)
    if number > count or not count:
        raise SemsegError(f"`part`: got {part!r}; expected one of N parts of the runs, such as 2/8")
    return [config for place, config in enumerate(configs) if (place + 1 - number) % count == 0]


def train_all(configs: Sequence[RunConfig], train: Train, tell: Tell, labels: Sequence[str] | None = None) -> Trainings:
    """Trains what is not finished yet; one that diverges or finds no memory does not keep the others from it.

    Args:
        configs: From `planned_runs`.
        train: Trains runs, several at a time if it can.
        tell: Called with a topic and a sentence after each run.
        labels: What to call each run; None for its number.

    Raises:
        RunFolderError: A run with other settings, or on other data, lies in a folder.
        SemsegError: What a failed run ended with, if the others would fail alike.
    """
    trainings = Trainings([], [])
    labels = labels or [f"run {number}/{len(configs)}" for number in range(1, len(configs) + 1)]
    label_of = {config.output: label for config, label in zip(configs, labels, strict=True)}
    done, left = _done_and_left(configs)
    if done and left:
        _refuse_changed_data(done[0])
    for config in done:
        _note(trainings, label_of[config.output], config, "finished before", tell)
    with closing(train([(label_of[config.output], config) for config in left])) as outcomes:
        for label, config, error in outcomes:
            if error is None:
                _note(trainings, label, config, f"{config.epochs} epochs", tell)
            else:
                _note_failed(trainings, label, config, error, tell)
    return trainings


def _done_and_left(configs: Sequence[RunConfig]) -> tuple[list[RunConfig], list[RunConfig]]:
    finished = [is_finished(config) for config in configs]
    both = list(zip(configs, finished, strict=True))
    return [config for config, is_done in both if is_done], [config for config, is_done in both if not is_done]


def _name(config: RunConfig) -> str:
    return f"{config.model}, seed {config.seed}"


def _note(trainings: Trainings, label: str, config: RunConfig, how: str, tell: Tell) -> None:
    """Adds a finished run to the others, on the same data."""
    run = Run.finished(config.output)
    trainings.runs.append(run)
    check_same_data(trainings.runs[0], run)
    minutes = run.metrics["training_seconds"] / 60
    name = _name(replace(config, model=run.model))
    tell(label, f"{name}: mean IoU {run.metrics['macro_iou'] or 0:.4f}, {how} in {minutes:.1f} min")


def _note_failed(trainings: Trainings, label: str, config: RunConfig, error: SemsegError, tell: Tell) -> None:
    """Adds what a run failed with, or raises it if the others would fail alike."""
    if error.exit_code not in OF_ONE_RUN:
        raise error
    tell(label, f"{_name(config)}: failed; {error}")
    trainings.errors.append(error)


def _refuse_changed_data(config: RunConfig) -> None:
    """Raises a `RunFolderError` where a finished run had other data than the next one would have."""
    run = Run(Path(config.output))
    if not run.splits:
        return
    dataset = open_data(config)
    read_digests(config, dataset)
    if changes := changes_since(dataset, run.splits):
        raise RunFolderError(f"{config.data}: {changes} {run.folder}; use another `output`, or the data as they were")


def is_finished(config: RunConfig) -> bool:
    """Whether the run lies in its folder already.

    Raises:
        RunFolderError: A run with other settings lies there.
    """
    run = Run(Path(config.output))
    if run.missing_files():
        return False
    may_differ = _MAY_DIFFER if config.minutes is None else (*_MAY_DIFFER, "epochs")
    if differing := differing_settings(run.config, config, may_differ):
        both = ((name, getattr(run.config, name), getattr(config, name)) for name in differing)
        settings = ", ".join(f"`{name}` {before} (now {now})" for name, before, now in both)
        raise RunFolderError(
            f"{run.folder}: was trained with {settings}; choose another `output`, or the same settings as then"
        )
    return True


def epochs_in(minutes: float, config: RunConfig, models: Sequence[str], output: Path, tell: Tell) -> dict[str, int]:
    """How many epochs of each network fit into the time, at least one; measured once for an output folder.

    Args:
        minutes: For each run.
        config: What all runs share.
        models: Names of the networks.
        output: Folder that keeps what was measured.
        tell: Called with a topic and a sentence.

    Raises:
        SemsegError: No time.
        RunFolderError: What was measured there holds for another configuration.
    """
    if not 0 < minutes < float("inf"):
        raise SemsegError(f"`minutes`: got {minutes}; expected a number above 0")
    path = output / SETTINGS_FILE
    shared = replace(config, model="", seed=0)
    conditions = json.loads(json.dumps({**asdict(shared), "minutes": minutes}))
    measured, seconds = _read_settings(path) if path.is_file() else (conditions, {})
    compared = [name for name in conditions if name not in _MAY_DIFFER]
    differing = [name for name in compared if measured.get(name) != conditions[name]]
    if differing:
        raise RunFolderError(f"{path}: epochs were measured for another `{differing[0]}`; choose another `output`")
    if missing := [model for model in models if model not in seconds]:
        tell("measuring", f"how many epochs of {', '.join(missing)} fit into {minutes:g} minutes")
        seconds.update(measured_apart(config, missing))
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, {"conditions": conditions, "seconds_per_epoch": seconds})
    epochs = {model: timing.epochs_in(minutes, seconds[model]) for model in models}
    tell("epochs", ", ".join(f"{epochs[model]} of {model} ({seconds[model]:.1f} s each)" for model in models))
    return epochs


def _read_settings(path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The conditions under which the seconds of an epoch were measured, and these by network."""
    try:
        settings = read_json(path)
        seconds = {str(model): float(value) for model, value in settings["seconds_per_epoch"].items()}
        if not all(0 < value < float("inf") for value in seconds.values()):
            raise ValueError("seconds that are no positive number")
        return dict(settings["conditions"]), seconds
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({error!r}); remove it, and the epochs are measured anew"
        ) from None


def _of_model(config: RunConfig, model: str, output: Path) -> RunConfig:
    """The same run with another network, in a folder of its own."""
    folder = output / RUNS_FOLDER / f"{_folder_name(model)}-seed{config.seed}"
    return replace(with_network(config, model), output=str(folder))


def _folder_name(model: str) -> str:
    return model.replace(":", "-")
