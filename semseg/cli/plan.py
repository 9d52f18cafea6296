"""`python -m semseg plan`: what a run would do, and why, without training."""

import argparse
from dataclasses import replace
from pathlib import Path

import keras

from semseg.backend.devices import leave_tensorflow_out
from semseg.cli.console import say_about
from semseg.cli.flags import asked_run
from semseg.cli.looking import look_at, say_what_was_found
from semseg.data.augment import Augmentation, parse_augmentation
from semseg.data.base import Dataset
from semseg.data.opening import open_data
from semseg.files import sha256_of
from semseg.inference.card import ModelCard, model_file, open_model
from semseg.losses import SegmentationLoss
from semseg.runs.config import RunConfig
from semseg.training.loop import new_model
from semseg.training.memory import check_memory
from semseg.training.network import network_by_flags
from semseg.training.plan import Plan, plan_run
from semseg.training.starting import freeze, refuse_unlearnt, take_weights
from semseg.training.timing import epochs_of_run
from semseg.training.view import View


def run(arguments: argparse.Namespace) -> None:
    """Checks the data and says what a run on them would decide."""
    config = asked_run(arguments)
    dataset, _, _, view = open_data_and_network(config)
    findings, cache = look_at(view.decided(config), dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    say_what_was_found(dataset, findings)
    if config.minutes is not None:
        config = replace(config, epochs=epochs_of_run(config.minutes, config, dataset, cache, say_about))
    say_plan(plan_run(config, dataset, findings))


def open_data_and_network(
    config: RunConfig, new: bool = True
) -> tuple[Dataset, keras.Model, dict[str, str] | None, View]:
    """Both, before the files are read; what does not fit is told at once, and a wrong name before data are drawn.

    A run that is not new has its data, and gets its weights from its state. The third result is for the run's record:
    whose weights the network starts from, None for new ones. The last is how it sees photos.
    """
    leave_tensorflow_out()
    SegmentationLoss(config.loss, label_smoothing=config.label_smoothing)
    new_model(_without_weights(network_by_flags(config)), num_logits=1)
    if config.augment:
        parse_augmentation(config.augment, Augmentation())
    dataset = open_data(config, demo=new, tell=say_about)
    plan = plan_run(config, dataset)
    config = plan.config
    keras.utils.set_random_seed(config.seed)
    bare = not new or (config.init is not None and config.encoder_weights is None)
    model = new_model(_without_weights(config) if bare else config, dataset.num_logits, dataset.bands)
    learnt, source = _start_from(config.init, model, dataset) if new and config.init is not None else (set(), None)
    frozen = freeze(model, config.freeze or "none")
    if new and (bare or config.encoder_weights == "none" or config.model != "encoder_unet"):
        refuse_unlearnt(frozen, learnt)
    check_memory(model, plan.config)
    return dataset, model, source, plan.view


def _without_weights(config: RunConfig) -> RunConfig:
    return replace(config, encoder_weights="none") if config.model == "encoder_unet" else config


def _start_from(init: str, model: keras.Model, dataset: Dataset) -> tuple[frozenset[str], dict[str, str]]:
    """Gives the network what fits of another one's weights; the layers that took some, and a note for the record."""
    path = model_file(Path(init))
    source, palette = open_model(path), ModelCard.undescribed(path).palette
    taken = take_weights(model, source, list(dataset.palette.names), list(palette.names) if palette else None)
    say_about("init", f"{path}: {taken.text}")
    return taken.layers, {"path": str(path), "sha256": sha256_of(path), "taken": taken.text}


def say_plan(plan: Plan) -> None:
    """Prints every decision with its reason, section by section."""
    last = ""
    for section, name, text, reason in plan.lines():
        say_about("" if section == last else section, f"{name}: {text} - {reason}")
        last = section
