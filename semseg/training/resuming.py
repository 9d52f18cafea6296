"""Whether a run may go on from a state: the same settings, decisions and data; what differs is named."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import keras

from semseg import __version__
from semseg.backend.devices import device_name
from semseg.backend.processes import here
from semseg.data.base import Dataset
from semseg.data.splits import splits_of
from semseg.errors import RunFolderError, SemsegError
from semseg.runs.checkpoints import Checkpoint
from semseg.runs.config import FORMAT, RunConfig, differing_settings
from semseg.runs.run import Run
from semseg.runs.splits import Splits
from semseg.training.plan import Plan

# Data and classes are compared by what they hold.
MAY_CHANGE = ("data", "cache", "classes", "workers", "output", "keep", "checkpoint_minutes", "epochs", "devices")
MAX_NAMED = 5  # photos that a message lists
_WAY_OUT = "take them back, give `restart` to train from the beginning, or choose another `output`"


def identity_of(config: RunConfig, plan: Plan, planned_epochs: int, dataset: Dataset) -> dict[str, Any]:
    """What the states of a run belong to, as plain values.

    Args:
        config: What was asked for.
        plan: From `plan_run`, for `planned_epochs`.
        planned_epochs: Epochs that were asked for at first: what the run decided for them stays.
        dataset: From `open_data`, checked.
    """
    splits, palette = splits_of(dataset), dataset.palette.to_dict()
    identity = {
        "config": asdict(config),
        "planned_epochs": planned_epochs,
        "plan": {
            f"{section}: {name.replace('_', ' ')}": decision.value
            for section, decisions in plan.sections.items()
            for name, decision in decisions.items()
            if name not in ("device", "processes", "devices")
        },
        "classes": [palette["classes"], palette["ignored"]],
        "photos": len(splits),
        "data": _digest(sorted([*key, *entry] for key, entry in splits.items())),
        "made_with": {
            "semseg": __version__,
            "Keras": keras.__version__,
            "device": device_name(),
            "processes": here().count,
            "devices": here().devices,
        },
    }
    return json.loads(json.dumps(identity))


def settings_of_run(config: RunConfig) -> dict[str, Any]:
    """What makes a run what it is, and not where it reads and writes, or how long."""
    return {name: value for name, value in asdict(config).items() if name == "epochs" or name not in MAY_CHANGE}


def state_to_go_on_from(
    run: Run, config: RunConfig, tell: Callable[[str], None], asked: bool = False
) -> Checkpoint | None:
    """The newest whole state in a run's folder, if the run was cut short.

    Args:
        run: The folder.
        config: What is asked for now.
        tell: Called with a sentence about what is damaged, or changes.
        asked: Go on after the end of a finished run, too, if there are epochs left.

    Returns:
        None where there is nothing to go on from: no run, one that is finished, or one that saved nothing yet.

    Raises:
        RunFolderError: It was another run's, or nothing in there is whole.
    """
    if not run.config_path.is_file() or (run.is_finished and not (asked and can_grow(run, config))):
        return None
    models = [path for path in (run.model_path(name) for name in run.model_names()) if path.is_file()]
    state = run.checkpoints.newest(tell, models[0] if len(models) == 1 else None)
    if state is not None:
        _refuse_other_settings(run, config, state, tell)
    return state


def as_planned(config: RunConfig, state: Checkpoint, tell: Callable[[str], None]) -> RunConfig:
    """The run with the epochs that were found to fit into its minutes when it began.

    Args:
        config: What is asked for now, with minutes.
        state: From `state_to_go_on_from`.
        tell: Called with a sentence about the time that is left.
    """
    epochs, done = state.facts["identity"]["config"]["epochs"], state.position.epoch
    minutes = config.minutes or 0.0
    left = max(0.0, minutes - state.facts["elapsed"] / 60)
    tell(f"{left:.3g} of {minutes:g} minutes are left, for the {epochs - done} of {epochs} epochs that are not "
         "over: as many as fitted when the run began")  # fmt: skip
    return replace(config, epochs=epochs)


def as_seen(config: RunConfig, state: Checkpoint) -> RunConfig:
    """The run with the network, the view and the batches that were decided when it began: here others might be.

    Args:
        config: What is asked for now.
        state: From `state_to_go_on_from`.
    """
    decided = state.facts["identity"]["plan"]
    scale = decided.get("view: crops")
    height, width = decided["view: image size"]
    view = "whole" if scale is None else "crops"
    return replace(
        config, **decided.get("network: network", {}), image_size=(height, width), view=view, scale=scale,
        batch_size=decided["batches: batch size"],
    )  # fmt: skip


def can_grow(run: Run, config: RunConfig) -> bool:
    """Whether a finished run was asked for more epochs, and kept the state to train them from."""
    return run.checkpoints.last() is not None and config.epochs > run.config.epochs


def _refuse_other_settings(run: Run, config: RunConfig, state: Checkpoint, tell: Callable[[str], None]) -> None:
    saved = _saved_config(run, state)
    grows = config.minutes is None and config.epochs > saved.epochs
    # Epochs that grow take the place of minutes.
    differing = differing_settings(saved, config, (*MAY_CHANGE, "minutes") if grows else MAY_CHANGE)
    if config.minutes is None and config.epochs < max(saved.epochs, state.position.epoch):
        differing.append("epochs")
    if differing:
        both = ((name, getattr(saved, name), getattr(config, name)) for name in differing)
        settings = ", ".join(f"`{name}` {before} (now {now})" for name, before, now in both)
        raise RunFolderError(
            f"{run.folder}: holds a training that was cut short at {state.position}, with {settings}; {_WAY_OUT}"
        )
    if grows:
        tell(
            f"`epochs` grows from {saved.epochs} to {config.epochs}: the learning rate now falls to 0 there, so "
            "that the rest is not what one run of so many epochs would have been"
        )


def _saved_config(run: Run, state: Checkpoint) -> RunConfig:
    try:
        values = dict(state.facts["identity"]["config"])
        return RunConfig.from_dict({"format": FORMAT, "training": values})
    except (SemsegError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{run.checkpoints.folder}: its settings cannot be read ({error}); `restart` to train from the beginning"
        ) from None


def refuse_other_data(
    run: Run, state: Checkpoint, identity: Mapping[str, Any], splits: Splits, tell: Callable[[str], None]
) -> None:
    """Compares data and decisions with those that a state belongs to.

    Args:
        run: The folder, with the list of photos as the run left it.
        state: From `state_to_go_on_from`.
        identity: From `identity_of`, now.
        splits: From `splits_of`, now.
        tell: Called with a sentence about another version or device, on which numbers may differ by rounding.

    Raises:
        RunFolderError: They differ; it says how.
    """
    saved = state.facts["identity"]
    where = f"{run.folder}: cannot go on from {state.position}"
    if saved["classes"] != identity["classes"]:
        raise RunFolderError(f"{where}: the masks hold other classes than then; {_WAY_OUT}")
    if saved["data"] != identity["data"]:
        raise RunFolderError(f"{where}: {_changed_photos(run.splits, splits)}; {_WAY_OUT}")
    plan, now = saved["plan"], identity["plan"]
    differing = [f"{name} {plan.get(name)} (now {now.get(name)})" for name in now if plan.get(name) != now[name]]
    if differing:
        raise RunFolderError(f"{where}: the run decided {', '.join(differing)}; {_WAY_OUT}")
    for name, before in saved["made_with"].items():
        if before != identity["made_with"].get(name):
            tell(f"the state is from {name} {before}, this is {identity['made_with'].get(name)}: numbers may differ by "
                 "rounding from those of a run that was not cut short")  # fmt: skip


def _changed_photos(*splits: Splits) -> str:
    """Which photos or masks are others than those of the run, in words."""
    before, now = ({name: (size, entry) for (name, size), entry in each.items()} for each in splits)
    kinds = {
        "changed, or its mask did": [name for name in now if name in before and before[name] != now[name]],
        "was not there": [name for name in now if name not in before],
        "is gone": [name for name in before if name not in now],
    }
    named = [
        f"{', '.join(names[:MAX_NAMED])}{f' and {len(names) - MAX_NAMED} more' * (len(names) > MAX_NAMED)} {what}"
        for what, names in kinds.items()
        if names
    ]
    return f"the data are not those of the run: {'; '.join(named) or 'the splits differ'}"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode("utf-8", "surrogatepass")).hexdigest()
