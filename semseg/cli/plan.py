"""`python -m semseg plan`: what a run would do, and why, without training."""

import argparse

from semseg.cli.console import say_about
from semseg.cli.flags import given_settings
from semseg.cli.looking import asked_run, look_at, say_what_was_found
from semseg.data.opening import open_data
from semseg.training.plan import Plan, plan_run


def run(arguments: argparse.Namespace) -> None:
    """Checks the data and says what a run on them would decide."""
    config = asked_run(given_settings(arguments), arguments.config)
    dataset = open_data(config, demo=True, tell=say_about)
    plan_run(config, dataset)  # what does not fit is told before the files are read
    findings, _ = look_at(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    say_what_was_found(dataset, findings)
    say_plan(plan_run(config, dataset, findings))


def say_plan(plan: Plan) -> None:
    """Prints every decision with its reason, section by section."""
    last = ""
    for section, name, text, reason in plan.lines():
        say_about("" if section == last else section, f"{name}: {text} - {reason}")
        last = section
