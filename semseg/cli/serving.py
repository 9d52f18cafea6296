"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import errno
import functools
import importlib.util
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import say, say_about, size_text
from semseg.cli.opening import choose_backend, open_data, open_segmenter
from semseg.cli.splits import SPLITS_FILE, read_splits, restore_splits
from semseg.config import RunConfig
from semseg.errors import ResourceError, SemsegError

if TYPE_CHECKING:  # loads OpenCV
    from semseg.serve.app import Example

ADDRESS, PORT = "127.0.0.1", 8000  # nobody else's computer may ask
EXAMPLES = 8
_PACKAGES = ("starlette", "uvicorn")
_MOST_CONNECTIONS = 100
_LAST_SECONDS = 5  # for what is under way when the server ends


def serve(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    _check_packages()
    choose_backend(arguments.backend)
    with _bound(arguments.port) as listener:
        path, segmenter = open_segmenter(Path(arguments.model), image_size=arguments.image_size, batch_size=1)
        examples, note = _examples(path)
        _run(path, segmenter, examples, note, listener, browser=not arguments.no_browser and sys.stdout.isatty())


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SemsegError(f"serve: needs {' and '.join(missing)}; run 'pip install {' '.join(missing)}'")


def _bound(port: int) -> socket.socket:
    """A socket at the port, taken before anything takes time."""
    if not 0 <= port < 65536:
        raise SemsegError(f"--port: got {port}; expected 0 to 65535, such as {PORT}")
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        reasons = {errno.EADDRINUSE: "is in use by another program", errno.EACCES: "is not for everybody"}
        what = reasons.get(error.errno, f"cannot be used ({error.strerror})")
        raise ResourceError(f"--port: {port} {what}; give another, or --port 0 for any that is free") from None


def _examples(path: Path) -> tuple[list["Example"], str]:
    """Photos of the validation split of the model's run, or a line that says why there are none."""
    from semseg.data.base import spread

    if not (path.parent / "config.json").is_file():
        return [], "No examples: no config.json beside the model tells of its data."
    config = RunConfig.read(path.parent / "config.json")
    if not Path(config.data).exists():
        return [], f"No examples: the data of its run are not at {config.data} any more."
    try:
        samples, load = _validation(config, path.parent)
    except SemsegError as error:
        return [], f"No examples: {error}"
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(load, sample) for sample in spread(samples, EXAMPLES)], note


def _validation(config: RunConfig, folder: Path) -> tuple[Sequence, "functools.partial"]:
    """The samples of the split that the run validated on, and what loads them."""
    classes = folder / "classes.json"
    if classes.is_file():
        config = replace(config, classes=str(classes), categories=False)
    known = read_splits(folder / SPLITS_FILE)
    dataset = open_data(replace(config, limit=None) if known else config, whole=bool(known))
    if known:
        restore_splits(dataset, known)
    return dataset.splits.get("val", []), dataset.load


def _run(path, segmenter, examples: list["Example"], note: str, listener: socket.socket, *, browser: bool) -> None:
    import uvicorn

    from semseg.distribute import device_name
    from semseg.serve.app import make_app

    app = make_app(segmenter, title=str(path), examples=examples, note=note)
    url = f"http://{ADDRESS}:{listener.getsockname()[1]}/"
    say(f"semseg {__version__}: {path} on {device_name()}")
    say_about("classes", f"{segmenter.palette.num_classes}, sees {size_text(segmenter.image_size)} pixels")
    say_about("examples", note or f"{len(examples)} photos of the validation split")
    say_about("page", f"{url} (only on this computer; Ctrl-C ends it)")
    if browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", log_config=None, log_level="error", access_log=False,
        server_header=False, proxy_headers=False, limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])
