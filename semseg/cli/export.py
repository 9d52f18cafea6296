"""`python -m semseg export`: a trained network as a file that other runtimes run, once it computes the same."""

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras

from semseg import __version__
from semseg.backend.devices import leave_tensorflow_out
from semseg.cli.console import say, say_about, size_text
from semseg.cli.flags import given_settings
from semseg.data.opening import Tell, say_nothing
from semseg.errors import ExportError, ModelFileError, SemsegError
from semseg.evaluation.photos import PhotosToCompare, photos_to_compare
from semseg.export.formats import FORMATS, check_format
from semseg.export.gate import Agreement, write_and_compare
from semseg.export.keeping import Seen, open_by
from semseg.files import check_output, move_into_place
from semseg.inference.card import ModelCard, model_file
from semseg.inference.segmenter import Segmenter
from semseg.inference.tiling import tile_of_crops
from semseg.runs import names
from semseg.runs.calibration import AS_LEARNT
from semseg.runs.classes import write_classes
from semseg.runs.run import Run

_INSIDE = {  # where the calibration is, by what a file gives
    "logits": "both in the file's description: divide its logits",
    "probabilities": "its probabilities are calibrated, and the threshold is in its description",
    "ids": "its ids are by both",
}


def run(arguments: argparse.Namespace) -> None:
    """Writes a model in another format as the flags say; the file appears once it has passed."""
    if arguments.backend == "torch":
        leave_tensorflow_out()
    path = Path(arguments.model)
    source = ModelCard.of_runs(path) or ModelCard.undescribed(model_file(path))
    model, card = _card_of_file(source, arguments)
    target = card.path
    photos = _photos(source, card, say_about, given_settings(arguments), calibrate=arguments.int8)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}.") as folder:
        written = replace(card, path=Path(folder) / target.name)
        say(f"semseg {__version__}: {source.path} to {card.format} ({card.precision}), by {arguments.backend}")
        if card.calibration != AS_LEARNT:
            say_about("certainty", f"{card.calibration}; {_INSIDE[card.gives]}")
        agreement = write_and_compare(model, written, photos.compared, photos.truths, photos.calibrating)
        _say_table(agreement, card, photos.source)
        shortfalls = agreement.shortfalls(card.precision)
        if shortfalls:
            raise ExportError(f"{target}: {'; '.join(shortfalls)}; it was removed: try another `format` or `backend`")
        parts = sorted(Path(folder).iterdir())
        for part in parts:
            move_into_place(part, target.with_name(part.name))
    card.write_beside(model=source.path.name, semseg=__version__, compared=asdict(agreement))
    if Run.of_model(target).classes_path is None:
        write_classes(target.with_name(names.CLASSES), card.palette)
    others = "".join(f" with {part.name}" for part in parts if part.name != target.name)
    say_about("wrote", f"{target}{others}, and what it is in {target.with_name(names.EXPORTS)}")


def open_by_keras(
    card: ModelCard, runtime: str | None, image_size: tuple[int, int] | None, batch_size: int | None
) -> tuple[ModelCard, Segmenter]:
    """A network in the runtime that is asked for, for other commands: see `open_by`."""

    def seen_by(source: ModelCard, kept: ModelCard) -> Seen:
        photos = _photos(source, kept, say_nothing)
        return Seen(photos.compared, photos.truths, photos.source)

    return open_by(card, runtime, seen_by, say_about, image_size=image_size, batch_size=batch_size)


def _photos(
    source: ModelCard, card: ModelCard, tell: Tell, given: dict[str, Any] | None = None, *, calibrate: bool = False
) -> PhotosToCompare:
    """What a model and its file are shown."""
    tile = None if card.scale is None else tile_of_crops(card.image_size, card.scale)
    return photos_to_compare(
        source.run, given or {}, card.palette, card.image_size, card.bands, tile=tile, calibrate=calibrate, tell=tell
    )


def _card_of_file(source: ModelCard, arguments: argparse.Namespace) -> tuple[keras.Model, ModelCard]:
    """The model, and what its file is to be, with all that can be refused before anything is written."""
    if source.exported:
        raise ModelFileError(f"{source.path}: is an exported file; give the .keras file that it came from")
    precision = "int8" if arguments.int8 else "float32"
    wanted = replace(source.with_notes(), format=arguments.format, gives=arguments.gives, precision=precision)
    check_format(wanted)
    model = source.keras_model()
    palette = source.palette_of(max(2, model.output_shape[-1]))
    size = source.seen_size(model, arguments.image_size)
    target = _target(source.path, arguments, FORMATS[arguments.format].suffix)
    described = Run.of_model(target).classes_path
    if target.parent != source.path.parent and described:
        ModelCard.undescribed(target).palette_of(palette.num_classes)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_output(target.parent)
    bands, scale = source.bands_of(model), source.scale_of(model)
    return model, replace(wanted, path=target, image_size=size, palette=palette, bands=bands, scale=scale)


def _target(path: Path, arguments: argparse.Namespace, suffix: str) -> Path:
    """What the flags say, else a name beside the model that tells what the file gives."""
    tail = (f"_{arguments.gives}" if arguments.gives != "logits" else "") + "_int8" * arguments.int8
    place = path / "ensemble" if path.is_dir() else path  # of several runs, beside them
    target = Path(arguments.output or place.with_name(f"{place.stem}{tail}{suffix}"))
    if target == path:
        target = path.with_name(f"{path.stem}_logits{suffix}")
    if not target.name.endswith(suffix):
        raise SemsegError(f"`output`: {target} is no name for {arguments.format}; let it end in {suffix}")
    return target


def _say_table(agreement: Agreement, card: ModelCard, source: str) -> None:
    """What was measured, side by side."""
    before, after = agreement.milliseconds
    rows = [("pixels of the same class", f"{agreement.equal_ids:.3%}")]
    if agreement.difference is not None:
        rows.append(("largest difference of a probability", f"{agreement.difference:.1e}"))
    if agreement.iou is not None:
        rows.append(("mean IoU, model and file", f"{agreement.iou[0]:.4f}  {agreement.iou[1]:.4f}"))
        change = round(agreement.iou[1] - agreement.iou[0], 4) + 0.0  # no -0.0000
        rows.append(("change of mean IoU", f"{change:+.4f}"))
    rows.append(("milliseconds per photo, model and file", f"{before:.1f}  {after:.1f}"))
    seen = size_text(card.image_size)
    say(f"\nThe model and the file on {agreement.photos} photos ({source}), seen at {seen}:")
    for name, value in rows:
        say(f"{name:40} {value}")
    say("")
