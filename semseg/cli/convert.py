"""`python -m semseg convert`: masks of a data set, or of predictions, in the form of an annotation tool."""

import argparse
from pathlib import Path

from semseg.cli.console import Progress, say_about
from semseg.cli.flags import CONVERT_OUTPUT, given_settings
from semseg.data.convert import convert, of_dataset, of_predictions
from semseg.data.opening import open_data
from semseg.errors import DataError
from semseg.files import check_output
from semseg.runs.config import RunConfig


def run(arguments: argparse.Namespace) -> None:
    """Reads all masks and writes them anew."""
    config = RunConfig(**{"output": CONVERT_OUTPUT, **given_settings(arguments)})
    check_output(Path(config.output))
    predictions = of_predictions(Path(config.data))
    if predictions is None:
        dataset = open_data(config, whole=True, tell=say_about)
        for note in dataset.notes:
            say_about("", note)
        if dataset.problems and not config.skip_bad:
            raise DataError(f"{dataset.problems[0]}; or go on without such files by `skip_bad`")
        predictions = of_dataset(dataset), dataset.palette
    with Progress("converting") as progress:
        notes = convert(
            *predictions, arguments.to, Path(config.output), skip_bad=config.skip_bad, on_progress=progress.show
        )
    for note in notes:
        say_about("note", note)
    say_about("wrote", f"{len(predictions[0])} photos with {arguments.to} labels to {config.output}/")
