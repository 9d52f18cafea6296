"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import functools
import importlib.util
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import say, say_about, size_text
from semseg.cli.opening import choose_backend, open_data, open_segmenter
from semseg.cli.splits import SPLITS_FILE, read_splits, restore_splits
from semseg.config import RunConfig
from semseg.errors import SemsegError

if TYPE_CHECKING:  # loads OpenCV
    from semseg.data.base import Sample
    from semseg.predict import Segmenter
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
    from semseg.distribute import device_name
    from semseg.serve.app import make_app

    examples, note = _examples(path)
    say(f"semseg {__version__}: {path} on {device_name()}")
    say_about("classes", f"{segmenter.palette.num_classes}, sees {size_text(segmenter.image_size)} pixels")
    say_about("examples", note or f"{len(examples)} photos of the validation split")
    return make_app(segmenter, title=str(path), examples=examples, note=note)


def _examples(path: Path) -> tuple[list["Example"], str]:
    """Photos of the validation split of the model's run, or a line that says why there are none."""
    from semseg.data.base import spread

    if not (path.parent / "config.json").is_file():
        return [], "No examples: no config.json beside the model tells of its data."
    try:
        config = RunConfig.read(path.parent / "config.json")
        if not Path(config.data).exists():
            return [], f"No examples: the data of its run are not at {config.data} any more."
        samples, load = _validation(config, path.parent)
    except SemsegError as error:
        return [], f"No examples: {error}"
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(load, sample) for sample in spread(samples, EXAMPLES)], note


def _validation(config: RunConfig, folder: Path) -> tuple[Sequence["Sample"], Callable]:
    """The samples of the split that the run validated on, and what loads one."""
    classes = folder / "classes.json"
    if classes.is_file():
        config = replace(config, classes=str(classes), categories=False)
    known = read_splits(folder / SPLITS_FILE)
    dataset = open_data(replace(config, limit=None) if known else config, whole=bool(known))
    if known:
        restore_splits(dataset, known)
    return dataset.splits.get("val", []), dataset.load
