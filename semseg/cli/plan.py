"""`python -m semseg plan`: what a run would do, and why, without training."""

import argparse
from dataclasses import replace

import keras

from semseg.backend.devices import leave_tensorflow_out
from semseg.cli.console import say_about
from semseg.cli.flags import asked_run
from semseg.cli.looking import look_at, say_what_was_found
from semseg.data.augment import Augmentation, parse_augmentation
from semseg.data.base import Dataset
from semseg.data.opening import open_data
from semseg.losses import SegmentationLoss
from semseg.runs.config import RunConfig
from semseg.training.loop import new_model
from semseg.training.memory import check_memory
from semseg.training.plan import Plan, plan_run


def run(arguments: argparse.Namespace) -> None:
    """Checks the data and says what a run on them would decide."""
    config = asked_run(arguments)
    dataset, _ = open_data_and_network(config)
    findings, _ = look_at(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    say_what_was_found(dataset, findings)
    say_plan(plan_run(config, dataset, findings))


def open_data_and_network(config: RunConfig, new: bool = True) -> tuple[Dataset, keras.Model]:
    """Both, before the files are read; what does not fit is told at once, and a wrong name before data are drawn.

    A run that is not new has its data, and gets its weights from its state.
    """
    leave_tensorflow_out()
    SegmentationLoss(config.loss, label_smoothing=config.label_smoothing)
    without_weights = replace(config, encoder_weights="none") if config.model == "encoder_unet" else config
    new_model(without_weights, num_logits=1)
    if config.augment:
        parse_augmentation(config.augment, Augmentation())
    dataset = open_data(config, demo=new, tell=say_about)
    plan = plan_run(config, dataset)
    keras.utils.set_random_seed(config.seed)
    model = new_model(config if new else without_weights, dataset.num_logits, dataset.bands)
    check_memory(model, plan.config)
    return dataset, model


def say_plan(plan: Plan) -> None:
    """Prints every decision with its reason, section by section."""
    last = ""
    for section, name, text, reason in plan.lines():
        say_about("" if section == last else section, f"{name}: {text} - {reason}")
        last = section
