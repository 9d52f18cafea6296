"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import functools
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg import __version__
from semseg.cli.console import say, say_about, view_text
from semseg.cli.runtimes import open_network
from semseg.cli.workers import app_of_worker
from semseg.data import open_dataset
from semseg.data.base import Dataset, spread
from semseg.data.corrections import Corrections
from semseg.data.opening import Tell, open_data, say_nothing
from semseg.data.splits import photo_name
from semseg.errors import DataError, SemsegError
from semseg.evaluation.opening import data_settings, is_own_data, own_data
from semseg.files import check_output, stamp_of
from semseg.images.addresses import is_address
from semseg.images.bands import Bands
from semseg.images.reading import list_images, natural_key, read_photo
from semseg.inference.card import ModelCard
from semseg.inference.segmenter import Segmenter
from semseg.runs import names
from semseg.runs.calibration import AS_LEARNT
from semseg.runs.lock import one_writer
from semseg.runs.run import Run
from semseg.runs.suggestions import suggested_among
from semseg.serve.app import make_app
from semseg.serve.desk import Desk, DeskPhoto
from semseg.serve.guarding import TOKEN, read_token
from semseg.serve.running import ADDRESS, listen, run_workers
from semseg.serve.running import run as run_server

EXAMPLES = 8


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    token = read_token(arguments.token_file)
    _check_flags(arguments, token)
    with listen(arguments.port, arguments.host) as listener, ExitStack() as stack:  # before anything takes time
        folder = None
        if arguments.edit is not None:
            folder = _folder_of_corrections(arguments.edit, arguments.corrections)
            check_output(folder)
            stack.enter_context(one_writer(folder))
        card = ModelCard.read(arguments.model)
        file = stamp_of(card.path)  # before it is read
        card, segmenter = open_network(card, arguments.runtime, arguments.image_size, 1)
        segmenter = _showing(segmenter, arguments.show)
        desk = folder and _desk(Path(arguments.edit), folder, card.run, segmenter)
        say(f"semseg {__version__}: {card.path} on {card.device()}")
        seen = view_text(segmenter.image_size, segmenter.scale)
        say_about("classes", f"{segmenter.palette.num_classes}, sees photos {seen}")
        if segmenter.calibration != AS_LEARNT:
            say_about("certainty", str(segmenter.calibration))
        if desk:
            masks = sum(photo.has_mask for photo in desk.photos)
            say_about("desk", f"{len(desk.photos)} photos, {masks} of them with masks; saves to {folder}")
        url = _say_address(listener, arguments.workers, token)
        if sys.stdout.isatty() and not arguments.no_browser and token is None:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        if arguments.workers == 1:
            run_server(_app(card, file, segmenter, desk=desk, token=token, tell=say_about), listener)
            return
        del segmenter  # it can be opened; from here on each process has its own
        counts = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="semseg-counts-")))
        backend = os.environ.get("KERAS_BACKEND") if "keras" in sys.modules else None
        options = {name: getattr(arguments, name) for name in ("model", "image_size", "show")}
        options["runtime"] = card.runtime
        run_workers(functools.partial(app_of_worker, backend, token, counts, options), listener, arguments.workers)


def _check_flags(arguments: argparse.Namespace, token: str | None) -> None:
    """Raises a `SemsegError` for flags that do not go together."""
    if arguments.corrections is not None and arguments.edit is None:
        raise SemsegError("`corrections`: is where `edit` saves masks; give both, or neither")
    if arguments.workers < 1:
        raise SemsegError(f"`workers`: got {arguments.workers}; expected a whole number of at least 1")
    if arguments.workers > 1 and arguments.edit is not None:
        raise SemsegError(f"`workers`: got {arguments.workers}, but the labelling desk is of one process; leave it out")
    if token is None and arguments.host != ADDRESS:
        raise SemsegError(
            f"`host`: got {arguments.host}, where others can ask, but no token; put one into `token_file`, or into "
            f"the environment as {TOKEN}"
        )


def _say_address(listener: socket.socket, workers: int, token: str | None) -> str:
    """Says where the page is, and whose; returns its address."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    whose = "only on this computer" if token is None else "for whoever has the token; let a proxy add TLS"
    processes = f"{workers} processes, " if workers > 1 else ""
    say_about("page", f"{url} ({processes}{whose}; Ctrl-C ends it)")
    return url


def _showing(segmenter: Segmenter, show: str | None) -> Segmenter:
    return replace(segmenter, bands=segmenter.bands.showing(show)) if show else segmenter


def make_worker(
    model: str, image_size: tuple[int, int] | None, show: str | None, runtime: str | None, token: str | None,
    counts: Path,
) -> Callable:  # fmt: skip
    """The application of one of several processes."""
    card = ModelCard.read(model).computed_by(runtime)
    file = stamp_of(card.path)
    segmenter = _showing(card.load(image_size=image_size, batch_size=1), show)
    return _app(card, file, segmenter, token=token, counts=counts)


def _app(
    card: ModelCard,
    file: tuple[int, ...] | None,
    segmenter: Segmenter,
    *,
    tell: Tell = say_nothing,
    desk: Desk | None = None,
    **options: Any,
) -> Callable:
    """The application around a network."""
    examples, note = ([], "") if desk else _examples(card.run, segmenter.bands)
    if not desk:
        tell("examples", note or f"{len(examples)} photos of the validation split")
    return make_app(
        segmenter,
        title=str(card.path),
        examples=examples,
        note=note,
        warning=functools.partial(_replaced, card.path, file),
        desk=desk,
        **options,
    )


def _folder_of_corrections(photos: str, given: str | None) -> Path:
    """Where the masks go: beside the photos, where nobody says it."""
    root = Path(photos).absolute()
    if not root.is_dir():
        raise DataError(f"`edit`: {photos} is no folder; expected one of photos, with or without their masks")
    return Path(given) if given is not None else root.with_name(f"{root.name}_corrections")


def _desk(root: Path, corrections: Path, model_run: Run, segmenter: Segmenter) -> Desk:
    """The photos in a folder, with their masks where it is a data set."""
    root = root.absolute()
    try:
        dataset = _dataset_in(root, model_run, segmenter)
        photos = [
            DeskPhoto(photo_name(sample, root), functools.partial(dataset.load, sample), True)
            for sample in dataset.samples
        ]
        unlabelled = dataset.unlabelled
    except DataError as error:
        photos, unlabelled = [], list_images(root)
        say_about("note", f"read as photos without masks: {error}")
    photos += [
        DeskPhoto(path.relative_to(root).as_posix(), functools.partial(_load_photo, path, segmenter.bands), False)
        for path in unlabelled
    ]
    if not photos:
        raise DataError(f"`edit`: {root} holds no photos")
    suggestions = model_run.folder / names.SUGGESTIONS_FOLDER
    first = suggested_among([photo.name for photo in photos], suggestions)
    if first:
        say_about("order", f"first {len(first)} photos that {suggestions}{os.sep} names, in its order")
    place = {name: number for number, name in enumerate(first)}
    photos.sort(key=lambda photo: (place.get(photo.name, len(place)), natural_key(Path(photo.name))))
    return Desk(photos, Corrections.start(corrections, root, segmenter.palette))


def _dataset_in(root: Path, model_run: Run, segmenter: Segmenter) -> Dataset:
    if is_own_data(model_run, str(root)):
        return open_data(
            replace(data_settings(model_run, {}), data=str(root), corrections=None, limit=None), bands=segmenter.bands
        )
    return open_dataset(root, palette=segmenter.palette, whole=True, bands=segmenter.bands)


def _load_photo(path: Path, bands: Bands) -> tuple[np.ndarray, None]:
    return read_photo(path, bands=bands).pixels, None


def _replaced(path: Path, file: tuple[int, ...] | None) -> str:
    """A line where the model's file is not the one any more that was loaded."""
    return "" if stamp_of(path) == file else f"{path.name} was replaced or removed; this page keeps to the one before"


def _examples(model_run: Run, bands: Bands) -> tuple[list[Callable], str]:
    """Photos of the validation split of the model's run, or a line that says why there are none."""
    try:
        if model_run.config_or_none is None:
            return [], "No examples: no configuration beside the model tells of its data."
        data = model_run.config.data
        if not (is_address(data) or Path(data).exists()):
            return [], f"No examples: the data of its run are not at {data} any more."
        dataset = own_data(model_run, bands)
    except SemsegError as error:
        return [], f"No examples: {error}"
    samples = dataset.splits.get("val", [])
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(dataset.load, sample) for sample in spread(samples, EXAMPLES)], note
