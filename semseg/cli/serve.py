"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import functools
import sys
import threading
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from semseg import __version__
from semseg.cli.console import say, say_about, view_text
from semseg.data.base import spread
from semseg.errors import SemsegError
from semseg.evaluation.opening import own_data
from semseg.files import stamp_of
from semseg.images.bands import Bands
from semseg.inference.card import ModelCard
from semseg.runs.calibration import AS_LEARNT
from semseg.runs.run import Run
from semseg.serve.app import make_app
from semseg.serve.running import listen
from semseg.serve.running import run as run_server

EXAMPLES = 8


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    with listen(arguments.port) as listener:  # before anything takes time
        app = _app(ModelCard.read(arguments.model), arguments.image_size, arguments.show)
        url = "http://{}:{}/".format(*listener.getsockname())
        say_about("page", f"{url} (only on this computer; Ctrl-C ends it)")
        if sys.stdout.isatty() and not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        run_server(app, listener)


def _app(card: ModelCard, image_size: tuple[int, int] | None, show: str | None) -> Callable:
    """The application around a network; says what it is."""
    file = stamp_of(card.path)
    segmenter = card.load(image_size=image_size, batch_size=1)
    if show:
        segmenter = replace(segmenter, bands=segmenter.bands.showing(show))
    examples, note = _examples(Run.of_model(card.path), segmenter.bands)
    say(f"semseg {__version__}: {card.path} on {card.device()}")
    seen = view_text(segmenter.image_size, segmenter.scale)
    say_about("classes", f"{segmenter.palette.num_classes}, sees photos {seen}")
    if segmenter.calibration != AS_LEARNT:
        say_about("certainty", str(segmenter.calibration))
    say_about("examples", note or f"{len(examples)} photos of the validation split")
    return make_app(
        segmenter,
        title=str(card.path),
        examples=examples,
        note=note,
        warning=functools.partial(_replaced, card.path, file),
    )


def _replaced(path: Path, file: tuple[int, ...] | None) -> str:
    """A line where the model's file is not the one any more that was loaded."""
    return "" if stamp_of(path) == file else f"{path.name} was replaced or removed; this page keeps to the one before"


def _examples(model_run: Run, bands: Bands) -> tuple[list[Callable], str]:
    """Photos of the validation split of the model's run, or a line that says why there are none."""
    try:
        if model_run.config_or_none is None:
            return [], "No examples: no configuration beside the model tells of its data."
        if not Path(model_run.config.data).exists():
            return [], f"No examples: the data of its run are not at {model_run.config.data} any more."
        dataset = own_data(model_run, bands)
    except SemsegError as error:
        return [], f"No examples: {error}"
    samples = dataset.splits.get("val", [])
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(dataset.load, sample) for sample in spread(samples, EXAMPLES)], note
