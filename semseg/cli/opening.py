"""What every command does first: choose the backend, open the data, look at all of it, and say what was found."""

import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg.cli.console import Progress, percent, say_about, size_text
from semseg.errors import ModelFileError, RunFolderError, SemsegError, first_line
from semseg.runs.config import RunConfig

if TYPE_CHECKING:  # rooms that load OpenCV are imported where a command needs them
    import keras
    import numpy as np

    from semseg.data.base import Dataset
    from semseg.data.cache import Cache
    from semseg.data.check import Findings
    from semseg.inference.segmenter import Segmenter
    from semseg.labels.palettes import Palette

BACKENDS = ("torch", "tensorflow", "jax")
_PIXELS_AT_ONCE = 1 << 18  # twice as many are slower on a CPU by a fifth, and take memory


def choose_backend(name: str | None) -> str:
    """Decides the Keras backend before Keras is imported: the argument, else KERAS_BACKEND, else what is installed.

    Raises:
        SemsegError: The name is unknown, the backend is not installed, or Keras runs on another one already.
    """
    installed = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    wanted = name or os.environ.get("KERAS_BACKEND") or next(iter(installed), BACKENDS[0])
    source = "--backend" if name else "KERAS_BACKEND"
    if wanted not in BACKENDS:
        raise SemsegError(f"{source}: there is no backend {wanted!r}; choose one of {', '.join(BACKENDS)}")
    if wanted not in installed:
        others = f", or use {' or '.join(installed)}" if installed else ""
        raise SemsegError(f"{source}: {wanted} is not installed; run 'pip install {wanted}'{others}")
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if running != wanted:
            raise SemsegError(f"{source}: Keras runs on {running} already; choose {wanted} before Keras is imported")
    os.environ["KERAS_BACKEND"] = wanted
    return wanted


def open_data(config: RunConfig, *, demo: bool = False, whole: bool = False) -> "Dataset":
    """The data set that the flags ask for.

    Args:
        config: What asks for it.
        demo: Draw the demo set where no data are given and none are there.
        whole: Set nothing apart for validation where the data have no splits.
    """
    from semseg.data import ensure_demo, open_dataset
    from semseg.data.fetch import local_folder

    if demo and config.data == RunConfig.data and ensure_demo(Path(config.data)):
        say_about("demo", f"no pictures in {config.data}/: drew the demo set there; use --data for your own")
    given = config.classes
    return open_dataset(
        local_folder(config.data, _cache_folder(config), say=lambda text: say_about("fetch", text)),
        name=config.dataset,
        num_classes=given if isinstance(given, int) else None,
        palette=_read_classes(Path(given)) if isinstance(given, str) else None,
        categories=config.categories,
        seed=config.split_seed,
        limit=config.limit,
        whole=whole,
    )


def _cache_folder(config: RunConfig) -> Path:
    from semseg.data.cache import default_folder

    return default_folder() if config.cache in (None, "none") else Path(config.cache)


def _read_classes(path: Path) -> "Palette":
    """The palette in a classes.json."""
    from semseg.labels.palettes import Palette

    try:
        return Palette.from_dict(json.loads(path.read_text(encoding="utf-8")), source="file")
    except FileNotFoundError:
        raise SemsegError(f"--classes: got {str(path)!r}; expected a number, or a classes.json that is there") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SemsegError(f"{path}: cannot be read ({error}); expected JSON as semseg writes classes.json") from None
    except SemsegError as error:
        raise SemsegError(f"{path}: {error}") from None


def model_path(path: Path) -> Path:
    """The model's file that is meant by itself, or by the folder of its run.

    Raises:
        RunFolderError: Nothing is there.
    """
    from semseg.inference.exported import runtime_of

    if path.is_dir() and not runtime_of(path):
        models = sorted(path.glob("*_model.keras"))
        if len(models) != 1:
            held = ", ".join(model.name for model in models) or "no *_model.keras"
            raise RunFolderError(f"{path}: holds {held}; give the model's file, or the folder of one finished run")
        path = models[0]
    if not path.exists():
        raise RunFolderError(f"{path}: no such file; give a model's file, or the folder of a finished run")
    return path


def open_model(path: Path, gives: str = "logits") -> "keras.Model":
    """The model in a `.keras` or `.h5` file, which is looked through before Keras loads it.

    Args:
        path: From `model_path`.
        gives: What is known of its output: logits, probabilities or ids.

    Raises:
        ModelFileError: The file is no model from photos to logits of the same size, or could do harm.
    """
    from semseg.inference.model_file import check_model_file, weights_limited

    weights = check_model_file(path)
    import keras

    from semseg.backend.keras_graph import gives_probabilities

    try:
        with weights_limited(path, weights):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the file makes it meet
        raise ModelFileError(
            f"{path}: cannot be opened ({first_line(error)}); expected a model that Keras saved"
        ) from error
    tensors = (*(getattr(model, "inputs", None) or ()), *(getattr(model, "outputs", None) or ()))
    shapes = [tuple(tensor.shape) for tensor in tensors]
    ranks = [4, 3 if gives == "ids" else 4]
    if [len(shape) for shape in shapes] != ranks or shapes[0][1:3] != shapes[1][1:3] or shapes[0][3] != 3:
        listed = " to ".join(map(str, shapes))
        raise ModelFileError(f"{path}: goes from {listed}; expected photos (N, H, W, 3) to logits (N, H, W, K)")
    if gives == "logits" and gives_probabilities(model):
        raise ModelFileError(f"{path}: ends in a softmax or sigmoid; expected logits, as the networks here give them")
    return model


def open_segmenter(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    batch_size: int | None = None,
    backend: str | None = None,
) -> tuple[Path, "Segmenter"]:
    """A trained network ready for photos, and where it lies.

    Names and colours of its classes are those that an exported file holds, else those of the classes.json beside it;
    without one they are numbered. A backend of Keras is chosen and loaded only for `.keras` and `.h5` files.

    Args:
        path: A model's file, an exported one, too, or the folder of a run.
        image_size: (height, width) that it should see, where it takes any.
        batch_size: Photos that it sees at once; None for as many as make a quarter of a million pixels.
        backend: For Keras; None for KERAS_BACKEND, else what is installed.

    Raises:
        SemsegError: `image_size` is missing, or is none that it takes.
        RunFolderError: Nothing is there.
        ModelFileError: The file is no model from photos to logits of the same size, has other classes than the
            classes.json beside it, or could do harm.
    """
    from semseg.inference.exported import open_exported, runtime_of

    path = model_path(path)
    if runtime_of(path):
        beside = path.parent / "classes.json"
        palette = _read_classes(beside) if beside.is_file() else None
        segmenter = open_exported(path, palette=palette, image_size=image_size)
        return path, replace(segmenter, batch_size=batch_size or _batch_size(segmenter.image_size))
    choose_backend(backend)
    return path, _keras_segmenter(path, image_size, batch_size)


def _keras_segmenter(path: Path, image_size: tuple[int, int] | None, batch_size: int | None) -> "Segmenter":
    from semseg.backend.predictor import predictor
    from semseg.inference.exported import as_logits, described_beside
    from semseg.inference.segmenter import Segmenter
    from semseg.labels.palettes import Palette

    described = described_beside(path)
    gives = described.gives if described else "logits"
    model = open_model(path, gives)
    size = seen_size(path, model, image_size)
    batch_size = batch_size or _batch_size(size)
    compute = predictor(model, batch_size)
    if described:
        palette = Palette.from_dict(described.classes)
    else:
        palette = palette_beside(path, max(2, model.output_shape[-1]))

    def predict_batch(photos: "np.ndarray") -> "np.ndarray":
        return as_logits(compute(photos), gives, palette.num_classes)

    return Segmenter(predict_batch, size, palette, batch_size)


def _batch_size(image_size: tuple[int, int]) -> int:
    return max(1, min(16, _PIXELS_AT_ONCE // (image_size[0] * image_size[1])))


def palette_beside(path: Path, num_classes: int) -> "Palette":
    """Names and colours in the classes.json beside a model; without one the classes are numbered.

    Raises:
        ModelFileError: It describes another number of classes.
    """
    from semseg.labels.palettes import Palette

    described = path.parent / "classes.json"
    palette = _read_classes(described) if described.is_file() else Palette.numbered(num_classes)
    if palette.num_classes != num_classes:
        raise ModelFileError(
            f"{path}: tells {num_classes} classes apart, and {described} describes {palette.num_classes}; put its own "
            "there"
        )
    return palette


def seen_size(path: Path, model: "keras.Model", wanted: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) that the network sees: what it was built for; by flag only where it takes any.

    Raises:
        SemsegError: The flag asks for what it does not take, or for nothing where it takes any.
    """
    import numpy as np

    built = model.input_shape[1:3]
    if None not in built:
        if wanted not in (None, built):
            raise SemsegError(f"--image-size: {path} was built for {size_text(built)} pixels, and takes nothing else")
        return built
    if wanted is None:
        raise SemsegError(f"--image-size: {path} takes photos of any size; say at which size it should see them")
    try:
        model.predict_on_batch(np.zeros((1, *wanted, 3), np.uint8))
    except Exception as error:  # Keras raises whatever a layer does
        raise SemsegError(
            f"--image-size: {path} does not take {size_text(wanted)} pixels ({first_line(error)}); try a multiple of 32"
        ) from error
    return wanted


def final_split(config: RunConfig, dataset: "Dataset") -> str:
    """The split that gives the final scores: what is asked for, else one that chose nothing, else `"val"`.

    Raises:
        SemsegError: There is no such split.
    """
    from semseg.evaluation.evaluate import samples_of

    split = config.test_split or ("test" if "test" in dataset.splits else "val")
    samples_of(dataset, split)
    return split


def look_at_data(config: RunConfig, dataset: "Dataset") -> tuple["Findings", "Cache"]:
    """Checks every file, through the cache; refuses nothing yet."""
    from semseg.data.cache import Cache
    from semseg.data.check import check_dataset

    meaning = json.dumps(dataset.palette.to_dict())
    folder = None if config.cache == "none" else _cache_folder(config)
    cache = Cache(dataset.samples, config.image_size, meaning, folder)
    with Progress("checking the files") as progress:
        findings = check_dataset(
            dataset, cache=cache, image_size=config.image_size, workers=config.workers, skip_bad=config.skip_bad,
            allow_leaks=config.allow_leaks, on_progress=progress.show,
        )  # fmt: skip
    return findings, cache


_FOUND_HOW = {
    "exact": "the colours that the masks hold",
    "values": "the numbers that the masks hold",
    "k-means": "colours found by k-means",
    "file": "as the file says",
    "binary": "black and white",
    "camvid": "CamVid's",
    "cityscapes": "official Cityscapes labels",
    "voc": "Pascal VOC's",
    "ade20k": "ADE20K's",
}


def say_what_was_found(dataset: "Dataset", findings: "Findings") -> None:
    """Prints data, task, classes and split, and what should be known about them."""
    counts = ", ".join(f"{len(samples)} {name}" for name, samples in dataset.splits.items())
    sizes = ", ".join(size_text(size) for size in list(findings.sizes)[:3]) + (
        " ..." if len(findings.sizes) > 3 else ""
    )
    say_about("data", f"{dataset.root}: {counts} photos of {sizes} pixels")
    for note in dataset.notes:
        say_about("", note)
    palette = dataset.palette
    shares = sorted(zip(findings.shares("train"), palette.names, strict=True), reverse=True)
    listed = ", ".join(f"{name} {percent(share)}" for share, name in shares if share)
    absent = ", ".join(name for share, name in shares if not share)
    how = _FOUND_HOW[palette.source] + (", blended borders repaired" if palette.blended else "")
    say_about("classes", f"{palette.num_classes}, {dataset.task}, {how}: {listed}")
    if absent:
        say_about("", f"not in the training masks: {absent}")
    for split in dataset.splits:
        no_class, unknown = findings.ignored_shares(split)
        if no_class or unknown:
            say_about("", f"ignored in {split}: {percent(no_class)} labelled as no class, {percent(unknown)} in doubt")
    for warning in findings.warnings:
        say_about("note", warning)


def classes_json(dataset: "Dataset", findings: "Findings") -> dict:
    """The palette with the share of each class in the training masks, for classes.json."""
    values = dataset.palette.to_dict()
    for entry in values["classes"]:
        entry["share"] = round(float(findings.shares("train")[entry["id"]]), 6)
    return values
