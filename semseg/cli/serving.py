"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import functools
import importlib.util
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import say, say_about, size_text
from semseg.cli.opening import choose_backend, open_segmenter
from semseg.cli.runs import Run, own_data
from semseg.errors import SemsegError

if TYPE_CHECKING:  # loads OpenCV
    from semseg.inference.segmenter import Segmenter
    from semseg.serve.app import Example

EXAMPLES = 8
_PACKAGES = ("starlette", "uvicorn")


def serve(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    _check_packages()
    choose_backend(arguments.backend)
    from semseg.serve.running import listen, run

    with listen(arguments.port) as listener:  # before anything takes time
        path, segmenter = open_segmenter(Path(arguments.model), image_size=arguments.image_size, batch_size=1)
        app = _app(path, segmenter)
        url = "http://{}:{}/".format(*listener.getsockname())
        say_about("page", f"{url} (only on this computer; Ctrl-C ends it)")
        if sys.stdout.isatty() and not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        run(app, listener)


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SemsegError(f"serve: needs {' and '.join(missing)}; run 'pip install {' '.join(missing)}'")


def _app(path: Path, segmenter: "Segmenter") -> Callable:
    """The application around a network; says what it is."""
    from semseg.backend.devices import device_name
    from semseg.serve.app import make_app

    examples, note = _examples(path)
    say(f"semseg {__version__}: {path} on {device_name()}")
    say_about("classes", f"{segmenter.palette.num_classes}, sees {size_text(segmenter.image_size)} pixels")
    say_about("examples", note or f"{len(examples)} photos of the validation split")
    return make_app(segmenter, title=str(path), examples=examples, note=note)


def _examples(path: Path) -> tuple[list["Example"], str]:
    """Photos of the validation split of the model's run, or a line that says why there are none."""
    from semseg.data.base import spread

    try:
        run = Run.beside(path)
        if run.config is None:
            return [], "No examples: no config.json beside the model tells of its data."
        if not Path(run.config.data).exists():
            return [], f"No examples: the data of its run are not at {run.config.data} any more."
        dataset = own_data(run)
    except SemsegError as error:
        return [], f"No examples: {error}"
    samples = dataset.splits.get("val", [])
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(dataset.load, sample) for sample in spread(samples, EXAMPLES)], note
