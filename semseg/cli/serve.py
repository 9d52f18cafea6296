"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import functools
import importlib.util
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from semseg import __version__
from semseg.cli.console import say, say_about, size_text
from semseg.data.base import spread
from semseg.errors import SemsegError
from semseg.evaluation.opening import own_data
from semseg.inference.card import ModelCard
from semseg.runs.run import Run

EXAMPLES = 8
_PACKAGES = ("starlette", "uvicorn")


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    _check_packages()
    from semseg.serve.running import listen  # what it stands on is an extra
    from semseg.serve.running import run as run_server

    with listen(arguments.port) as listener:  # before anything takes time
        app = _app(ModelCard.read(arguments.model), arguments.image_size)
        url = "http://{}:{}/".format(*listener.getsockname())
        say_about("page", f"{url} (only on this computer; Ctrl-C ends it)")
        if sys.stdout.isatty() and not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        run_server(app, listener)


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SemsegError(f"serve: needs {' and '.join(missing)}; run pip install 'semseg[serve]'")


def _app(card: ModelCard, image_size: tuple[int, int] | None) -> Callable:
    """The application around a network; says what it is."""
    from semseg.serve.app import make_app  # what it stands on is an extra

    segmenter = card.load(image_size=image_size, batch_size=1)
    examples, note = _examples(Run.of_model(card.path))
    say(f"semseg {__version__}: {card.path} on {card.device()}")
    say_about("classes", f"{segmenter.palette.num_classes}, sees {size_text(segmenter.image_size)} pixels")
    say_about("examples", note or f"{len(examples)} photos of the validation split")
    return make_app(segmenter, title=str(card.path), examples=examples, note=note)


def _examples(model_run: Run) -> tuple[list[Callable], str]:
    """Photos of the validation split of the model's run, or a line that says why there are none."""
    try:
        if model_run.config_or_none is None:
            return [], "No examples: no configuration beside the model tells of its data."
        if not Path(model_run.config.data).exists():
            return [], f"No examples: the data of its run are not at {model_run.config.data} any more."
        dataset = own_data(model_run)
    except SemsegError as error:
        return [], f"No examples: {error}"
    samples = dataset.splits.get("val", [])
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(dataset.load, sample) for sample in spread(samples, EXAMPLES)], note
