"""`python -m semseg export`: a trained network as a file that other runtimes run, once it computes the same."""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import say, say_about, size_text, write_json
from semseg.cli.opening import choose_backend, model_path, open_model, open_segmenter, palette_beside, seen_size
from semseg.cli.output import check_output
from semseg.cli.runs import Run, configuration_for, open_as_run
from semseg.errors import DataError, ExportError, ModelFileError, SemsegError
from semseg.files import move_into_place

if TYPE_CHECKING:  # rooms that load Keras or OpenCV are imported where a command needs them
    import keras
    import numpy as np

    from semseg.data.base import Dataset, Sample
    from semseg.export.gate import Agreement
    from semseg.inference.exported import Description
    from semseg.labels.palettes import Palette

COMPARED, CALIBRATED, DRAWN = 32, 64, 8  # photos


@dataclass(frozen=True)
class _Photos:
    """What the file and the model are shown.

    Attributes:
        compared: uint8 RGB `(H, W, 3)` each.
        truths: Class ids `(H, W)` of each; None where nobody knows them.
        calibrating: Photos to calibrate int8 with.
        source: Where they come from, for people.
    """

    compared: "Sequence[np.ndarray]"
    truths: "Sequence[np.ndarray] | None"
    calibrating: "Sequence[np.ndarray]"
    source: str


def export(arguments: argparse.Namespace) -> None:
    """Writes a model in another format as the flags say; the file appears once it has passed."""
    backend = choose_backend(arguments.backend)
    from semseg.backend.devices import leave_tensorflow_out

    if backend == "torch":
        leave_tensorflow_out()
    path = model_path(Path(arguments.model))
    target, description, model, palette = _plan(path, arguments)
    run = Run.beside(path)
    photos = _photos(run, arguments, palette, description.image_size)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}.") as folder:
        written = Path(folder) / target.name
        say(f"semseg {__version__}: {path} to {description.format} ({description.precision}), by {backend}")
        agreement = _write_and_compare(path, model, written, description, photos)
        _say_table(agreement, description, photos.source)
        shortfalls = agreement.shortfalls(description.precision)
        if shortfalls:
            raise ExportError(f"{target}: {'; '.join(shortfalls)}; it was removed: try another --format or --backend")
        parts = sorted(Path(folder).iterdir())
        for part in parts:
            move_into_place(part, target.with_name(part.name))
    _describe(target, path, description, palette, agreement)
    others = "".join(f" with {part.name}" for part in parts if part.name != target.name)
    say_about("wrote", f"{target}{others}, and what it is in {target.with_name('export.json')}")


def _plan(path: Path, arguments: argparse.Namespace) -> tuple[Path, "Description", "keras.Model", "Palette"]:
    """Where the file goes and what it is to be, with all that can be refused before anything is written."""
    from semseg.export.formats import FORMATS, check_format
    from semseg.inference.exported import Description, runtime_of

    if runtime_of(path):
        raise ModelFileError(f"{path}: is an exported file; give the .keras file that it came from")
    precision = "int8" if arguments.int8 else "float32"
    check_format(Description(arguments.format, arguments.gives, (1, 1), {}, precision))
    model = open_model(path)
    palette = palette_beside(path, max(2, model.output_shape[-1]))
    size = seen_size(path, model, arguments.image_size)
    description = Description(arguments.format, arguments.gives, size, palette.to_dict(), precision)
    target = _target(path, arguments, FORMATS[arguments.format].suffix)
    if target.parent != path.parent and target.with_name("classes.json").is_file():
        palette_beside(target, palette.num_classes)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_output(target.parent)
    return target, description, model, palette


def _target(path: Path, arguments: argparse.Namespace, suffix: str) -> Path:
    """What the flags say, else a name beside the model that tells what the file gives."""
    tail = (f"_{arguments.gives}" if arguments.gives != "logits" else "") + "_int8" * arguments.int8
    target = Path(arguments.output or path.with_name(f"{path.stem}{tail}{suffix}"))
    if target == path:
        target = path.with_name(f"{path.stem}_logits{suffix}")
    if not target.name.endswith(suffix):
        raise SemsegError(f"--output: {target} is no name for {arguments.format}; let it end in {suffix}")
    return target


def _photos(run: Run, arguments: argparse.Namespace, palette: "Palette", image_size: tuple[int, int]) -> _Photos:
    """Those of the run's validation split, or of other data; drawn scenes where there are none."""
    if arguments.data is None and run.config is None:
        return _drawn("the model's run is not known")
    try:
        config = replace(configuration_for(run, arguments), image_size=image_size)
        dataset = open_as_run(config, run, by_run=arguments.data is not None)
    except SemsegError as error:
        if arguments.data is not None:
            raise
        return _drawn(str(error))
    if dataset.palette.num_classes != palette.num_classes:
        raise ModelFileError(
            f"{dataset.root}: its masks hold {dataset.palette.num_classes} classes, the model tells "
            f"{palette.num_classes} apart; give the data that it was trained on"
        )
    split = next((name for name in ("val", "test") if name in dataset.splits), next(iter(dataset.splits)))
    pairs = _load(dataset, dataset.splits[split], COMPARED)
    if not pairs:
        raise DataError(f"{dataset.root}: no photo of {split} can be read; see python -m semseg check")
    calibrating = _load(dataset, dataset.splits.get("train", ()), CALIBRATED) if arguments.int8 else []
    photos, truths = zip(*pairs, strict=True)
    return _Photos(photos, truths, [photo for photo, _ in calibrating], f"{split} of {dataset.root}")


def _load(dataset: "Dataset", samples: "Sequence[Sample]", count: int) -> "list[tuple[np.ndarray, np.ndarray]]":
    """Photos and masks, spread evenly; those that cannot be read are left out."""
    from semseg.data.base import spread

    pairs = []
    for sample in spread(list(samples), count):
        with suppress(DataError):
            pairs.append(dataset.load(sample))
    return pairs


def _drawn(why: str) -> _Photos:
    from semseg.data.demo import draw_scene

    say_about("note", f"compared on drawn street scenes ({why}); --data gives your own photos")
    return _Photos([draw_scene(seed)[0] for seed in range(DRAWN)], None, [], "drawn scenes")


def _write_and_compare(
    path: Path, model: "keras.Model", written: Path, description: "Description", photos: _Photos
) -> "Agreement":
    import numpy as np

    from semseg.backend.predictor import predictor
    from semseg.export.formats import export_model
    from semseg.export.gate import compare_files
    from semseg.images.resizing import resize_photo
    from semseg.inference.exported import DESCRIPTIONS

    size = description.image_size
    calibrating = [resize_photo(photo, size) for photo in photos.calibrating]
    export_model(model, written, description, np.stack(calibrating) if calibrating else None)
    write_json(written.with_name(DESCRIPTIONS), {written.name: description.to_dict()})
    _, segmenter = open_segmenter(written, batch_size=1)
    written.with_name(DESCRIPTIONS).unlink()
    return compare_files(
        predictor(model, 1), segmenter.predict_batch, photos.compared, photos.truths, image_size=size,
        num_classes=segmenter.palette.num_classes, with_probabilities=description.gives != "ids",
    )  # fmt: skip


def _say_table(agreement: "Agreement", description: "Description", source: str) -> None:
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
    seen = size_text(description.image_size)
    say(f"\nThe model and the file on {agreement.photos} photos ({source}), seen at {seen}:")
    for name, value in rows:
        say(f"{name:40} {value}")
    say("")


def _describe(target: Path, path: Path, description: "Description", palette: "Palette", agreement: "Agreement") -> None:
    """Adds the file to export.json beside it, and the classes where they are not described there."""
    from semseg.inference.exported import DESCRIPTIONS

    beside, entries = target.with_name(DESCRIPTIONS), {}
    with suppress(OSError, ValueError, TypeError):
        entries = dict(json.loads(beside.read_text(encoding="utf-8")))
    entries[target.name] = {
        **description.to_dict(), "model": path.name, "semseg": __version__, "compared": asdict(agreement),
    }  # fmt: skip
    write_json(beside, entries)
    if not target.with_name("classes.json").exists():
        write_json(target.with_name("classes.json"), palette.to_dict())
