"""`python -m semseg serve`: a trained network on a page in the browser."""

import argparse
import functools
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from semseg import __version__
from semseg.cli.console import say, say_about, view_text
from semseg.data import open_dataset
from semseg.data.base import Dataset, spread
from semseg.data.corrections import Corrections
from semseg.data.opening import open_data
from semseg.data.splits import photo_name
from semseg.errors import DataError, SemsegError
from semseg.evaluation.opening import data_settings, is_own_data, own_data
from semseg.files import check_output, stamp_of
from semseg.images.bands import Bands
from semseg.images.reading import list_images, natural_key, read_photo
from semseg.inference.card import ModelCard
from semseg.inference.segmenter import Segmenter
from semseg.runs.lock import one_writer
from semseg.runs.run import Run
from semseg.serve.app import make_app
from semseg.serve.desk import Desk, DeskPhoto
from semseg.serve.running import listen
from semseg.serve.running import run as run_server

EXAMPLES = 8


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    with listen(arguments.port) as listener, ExitStack() as stack:  # before anything takes time
        desk = None
        if arguments.edit is not None:
            folder = _folder_of_corrections(arguments.edit, arguments.corrections)
            check_output(folder)
            stack.enter_context(one_writer(folder))
            desk = functools.partial(_desk, Path(arguments.edit), folder)
        elif arguments.corrections is not None:
            raise SemsegError("`corrections`: is where `edit` saves masks; give both, or neither")
        app = _app(ModelCard.read(arguments.model), arguments.image_size, arguments.show, desk)
        url = "http://{}:{}/".format(*listener.getsockname())
        say_about("page", f"{url} (only on this computer; Ctrl-C ends it)")
        if sys.stdout.isatty() and not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        run_server(app, listener)


def _app(
    card: ModelCard, image_size: tuple[int, int] | None, show: str | None, open_desk: Callable[..., Desk] | None = None
) -> Callable:
    """The application around a network; says what it is."""
    file = stamp_of(card.path)
    segmenter = card.load(image_size=image_size, batch_size=1)
    if show:
        segmenter = replace(segmenter, bands=segmenter.bands.showing(show))
    model_run = Run.of_model(card.path)
    desk = open_desk(model_run, segmenter) if open_desk else None
    examples, note = ([], "") if desk else _examples(model_run, segmenter.bands)
    say(f"semseg {__version__}: {card.path} on {card.device()}")
    seen = view_text(segmenter.image_size, segmenter.scale)
    say_about("classes", f"{segmenter.palette.num_classes}, sees photos {seen}")
    if desk:
        masks = sum(photo.has_mask for photo in desk.photos)
        say_about("desk", f"{len(desk.photos)} photos, {masks} of them with masks; saves to {desk.corrections.folder}")
    else:
        say_about("examples", note or f"{len(examples)} photos of the validation split")
    return make_app(
        segmenter,
        title=str(card.path),
        examples=examples,
        note=note,
        warning=functools.partial(_replaced, card.path, file),
        desk=desk,
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
    except DataError:
        photos, unlabelled = [], list_images(root)
    photos += [
        DeskPhoto(path.relative_to(root).as_posix(), functools.partial(_load_photo, path, segmenter.bands), False)
        for path in unlabelled
    ]
    if not photos:
        raise DataError(f"`edit`: {root} holds no photos")
    photos.sort(key=lambda photo: natural_key(Path(photo.name)))
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
        if not Path(model_run.config.data).exists():
            return [], f"No examples: the data of its run are not at {model_run.config.data} any more."
        dataset = own_data(model_run, bands)
    except SemsegError as error:
        return [], f"No examples: {error}"
    samples = dataset.splits.get("val", [])
    note = "" if samples else "No examples: its run had no validation split."
    return [functools.partial(dataset.load, sample) for sample in spread(samples, EXAMPLES)], note
