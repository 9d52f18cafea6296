"""The commands: the only reader of argv, and the only printer."""

import argparse
import errno
import importlib.util
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from semseg import __version__
from semseg.config import RunConfig
from semseg.errors import ResourceError, RunFolderError, SemsegError
from semseg.files import archive, replacing

if TYPE_CHECKING:  # rooms that load Keras, matplotlib or OpenCV are imported where a command needs them
    import keras

    from semseg.data.base import Dataset
    from semseg.data.check import Findings
    from semseg.evaluate import Evaluation

BACKENDS = ("torch", "tensorflow", "jax")
RUN_FILES = (  # beside the model's own file
    "pred_[0-9].png", "acc.png", "train_batch.png", "model_arch.png", "model_arch_layers.png",
    "confusion_matrix.png", "results.csv", "metrics.json", "classes.json", "config.json",
)  # fmt: skip
PICTURES = 8
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SPACE_NEEDED = 100 * 2**20  # bytes: a model, its successor while it is written, and the pictures


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, as `main.py` does; returns the exit code."""
    parser = _Parser(prog="main.py", description=_DESCRIPTION)
    _add_training_flags(parser)
    return _guarded(_train, parser, argv)


def commands(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m semseg <command>`; returns the exit code."""
    parser = _Parser(prog="semseg", description="Semantic segmentation with U-Nets in Keras 3.")
    parser.add_argument("--version", action="version", version=f"semseg {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    training = subparsers.add_parser("train", help="train a network", description=_DESCRIPTION)
    _add_training_flags(training)
    training.set_defaults(function=_train)
    return _guarded(lambda arguments: arguments.function(arguments), parser, argv)


_DESCRIPTION = """Trains a network to name the class of every pixel, from a folder of photos and masks. Without --data
and without pictures in images/, a small drawn demo set is made there first. Look at outputs/pred_*.png afterwards."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    default = RunConfig()

    def flag(name: str, metavar: str, text: str, **options: Any) -> None:
        options.setdefault("default", getattr(default, name.removeprefix("--").replace("-", "_")))
        parser.add_argument(name, metavar=metavar, help=text, **options)

    flag("--data", "DIR", "folder with train/ and val/: pictures of photo | colour mask (default: %(default)s)")
    flag("--model", "NAME", "network (default: %(default)s)")
    flag("--epochs", "N", "times that every training photo is seen (default: %(default)s)", type=int)
    flag("--batch-size", "N", "photos per step (default: %(default)s)", type=int)
    flag("--learning-rate", "X", "peak of the learning rate (default: %(default)s)", type=float)
    flag("--image-size", "SIZE", f"pixels that the network sees: 192, or height x width such as 192x256 (default: "
         f"{default.image_size[0]})", type=_image_size)  # fmt: skip
    flag("--filters", "N", "channels of the first block, the width of the network (default: %(default)s)", type=int)
    flag("--loss", "NAME", "cross_entropy, binary_cross_entropy, dice, iou, or a sum like cross_entropy+dice "
         "(default: %(default)s)")  # fmt: skip
    flag("--classes", "K", "number of colours in the masks (default: found from the masks)", type=int)
    flag("--limit", "N", "use at most N photos of each split, for a quick try (default: all)", type=int)
    flag("--seed", "N", "the same seed gives the same run (default: %(default)s)", type=int)
    flag("--workers", "N", "threads that load photos ahead (default: %(default)s)", type=int)
    flag("--backend", "NAME", "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)", default=None)
    flag("--output", "DIR", "where the results go (default: %(default)s)")


def _image_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected one number, or height x width such as 192x256")
    return int(sides[0]), int(sides[-1])


def _guarded(
    command: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Runs a command; what the user can mend becomes one line and an exit code, and only bugs leave a traceback."""
    arguments = parser.parse_args(argv)
    try:
        command(arguments)
    except SemsegError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C; what was finished before is in the output folder", 130)
    except MemoryError:
        return _fail("out of memory; use a smaller --batch-size, --image-size or --filters", ResourceError.exit_code)
    except OSError as error:
        if error.errno in _DISK_FULL:
            where = error.filename or getattr(arguments, "output", "disk")
            return _fail(f"{where}: no space left; free some or choose another --output", ResourceError.exit_code)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _fail(
                f"{error.filename}: {error.strerror}; choose a place that can be written", RunFolderError.exit_code
            )
        raise
    return 0


def _fail(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code


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


# ------------------------------------------------------------------------------------------------------- training


def _train(arguments: argparse.Namespace) -> None:
    values = {**vars(arguments), "backend": choose_backend(arguments.backend)}
    config = RunConfig(**{name: value for name, value in values.items() if name in RunConfig.__dataclass_fields__})
    output = Path(config.output)
    _check_output(output)

    import keras

    from semseg.architectures import build_model
    from semseg.data.check import check_dataset
    from semseg.distribute import leave_tensorflow_out
    from semseg.losses import SegmentationLoss
    from semseg.train import make_loss, train_model

    _say(f"semseg {__version__}, Keras {keras.__version__} on {config.backend}")
    leave_tensorflow_out()
    SegmentationLoss(config.loss)  # a wrong name or size is told before any data are drawn or read
    build_model(config.model, (*config.image_size, 3), 1, filters=1)
    dataset = _open(config)
    keras.utils.set_random_seed(config.seed)
    make_loss(config.loss, dataset)
    model = build_model(config.model, (*config.image_size, 3), dataset.num_logits, filters=config.filters)
    with _Progress("checking the files") as progress:
        findings = check_dataset(dataset, workers=config.workers, on_progress=progress.show)
    _say_what_was_found(config, dataset, findings, model)

    output.mkdir(parents=True, exist_ok=True)
    archived = archive(output, _run_files())
    if archived:
        _say_about("earlier", f"moved the files of the run before to {archived}")
    _write_descriptions(output, config, dataset, findings, model)
    _draw_before(output, config, dataset, model)
    start = time.perf_counter()
    with _ctrl_c_noted() as asked_to_stop:
        history = train_model(
            model, dataset, config, model_path=_model_path(config), results_path=output / "results.csv",
            callbacks=[_progress_callback(config.epochs, _size(config.image_size), asked_to_stop)],
        )  # fmt: skip
    _finish(output, config, dataset, model, history, time.perf_counter() - start)


@contextmanager
def _ctrl_c_noted() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C was pressed; pressed twice, it interrupts at once.

    A plain KeyboardInterrupt gets lost in Keras, where a bare `except` surrounds the wait for a step's results.
    """
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _check_output(output: Path) -> None:
    """Tries to write where the results will go, before anything takes time; leaves nothing behind."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise ResourceError(f"{output}: no space left; free some or choose another --output") from None
        raise RunFolderError(f"{output}: cannot be written ({error.strerror}); choose another --output") from None
    free = shutil.disk_usage(existing).free
    if free < SPACE_NEEDED:
        raise ResourceError(
            f"{output}: {free // 2**20} MB left on the disk, {SPACE_NEEDED // 2**20} MB needed; free some or choose "
            "another --output"
        )


def _open(config: RunConfig) -> "Dataset":
    from semseg.data import ensure_demo, open_dataset

    if config.data == RunConfig.data and ensure_demo(Path(config.data)):
        _say_about("demo", f"no pairs in {config.data}/: drew the demo set there; use --data for your own")
    return open_dataset(config.data, num_classes=config.classes, seed=config.seed, limit=config.limit)


def _say_what_was_found(config: RunConfig, dataset: "Dataset", findings: "Findings", model: "keras.Model") -> None:
    from semseg.distribute import device_name

    counts = ", ".join(f"{len(samples)} {name}" for name, samples in dataset.splits.items())
    sizes = ", ".join(_size(size) for size, _ in sorted(findings.sizes.items(), key=lambda item: -item[1])[:3])
    palette = dataset.palette
    how = {
        "cityscapes": "official Cityscapes colours",
        "exact": "the colours that the masks hold",
        "k-means": "colours found by k-means",
    }[palette.source]
    shares = sorted(zip(findings.shares("train"), palette.names, strict=True), reverse=True)
    listed = ", ".join(f"{name} {_percent(share)}" for share, name in shares if share)
    absent = ", ".join(name for share, name in shares if not share)
    _say_about("data", f"{dataset.root}: {counts} photos of {sizes} pixels")
    for note in dataset.notes:
        _say_about("", note)
    _say_about("classes", f"{palette.num_classes}, {dataset.task}, {how}: {listed}")
    if absent:
        _say_about("", f"not in the training masks: {absent}")
    for split in dataset.splits:
        no_class, unknown = findings.ignored_shares(split)
        _say_about("", f"ignored in {split}: {no_class:.1%} of no class, {unknown:.1%} too far from every colour")
    size, parameters = _size(config.image_size), f"{model.count_params():,}"
    _say_about("model", f"{config.model}, {config.filters} filters, {parameters} parameters, input {size}")
    _say_about("device", device_name())


def _write_descriptions(
    output: Path, config: RunConfig, dataset: "Dataset", findings: "Findings", model: "keras.Model"
) -> None:
    import keras

    classes = dataset.palette.to_dict()
    for entry, share in zip(classes["classes"], findings.shares("train"), strict=True):
        entry["share"] = round(float(share), 6)
    _write_json(output / "classes.json", classes)
    config.save(
        output / "config.json",
        task=dataset.task,
        parameters=model.count_params(),
        samples={name: len(samples) for name, samples in dataset.splits.items()},
        versions={"semseg": __version__, "keras": keras.__version__, "python": sys.version.split()[0]},
    )


def _draw_before(output: Path, config: RunConfig, dataset: "Dataset", model: "keras.Model") -> None:
    from semseg.model_arch import get_model_arch
    from semseg.report import save_batch
    from semseg.train import make_batches

    batches, _ = make_batches(dataset, replace(config, workers=0))
    save_batch(*batches[0], dataset.palette, output / "train_batch.png")
    get_model_arch(model, output / "model_arch.png")


def _finish(
    output: Path,
    config: RunConfig,
    dataset: "Dataset",
    model: "keras.Model",
    history: list[dict[str, float]],
    seconds: float,
) -> None:
    """Judges the best weights on the validation split, at the masks' own size, and writes what it found."""
    from semseg.evaluate import evaluate_split
    from semseg.predict import predictor
    from semseg.report import get_acc, save_confusion_matrix

    predict_batch = predictor(model, config.batch_size)
    evaluation = evaluate_split(predict_batch, dataset, image_size=config.image_size, batch_size=config.batch_size)
    best = max(history, key=lambda row: row["val_mean_iou"])
    _write_json(output / "metrics.json", _metrics(evaluation, dataset, best, seconds))
    get_acc(history, output / "acc.png")
    save_confusion_matrix(evaluation.matrix, dataset.palette.names, output / "confusion_matrix.png")
    _draw_predictions(output, config, dataset, predict_batch, evaluation)
    _say_scores(evaluation, dataset, best)
    written = sorted({path.name for pattern in _run_files() for path in output.glob(pattern)})
    _say_about("trained", f"{config.epochs} epochs in {seconds:.0f} s")
    _say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")


def _draw_predictions(
    output: Path, config: RunConfig, dataset: "Dataset", predict_batch: Callable, evaluation: "Evaluation"
) -> None:
    """Pictures of samples spread evenly over the split: neither the best nor the worst."""
    from semseg.data.base import spread
    from semseg.predict import predict_ids
    from semseg.report import show_predictions

    chosen = spread(evaluation.image_scores, PICTURES)
    loaded = [dataset.load(sample) for sample, _, _ in chosen]
    predictions = predict_ids(
        predict_batch, (photo for photo, _ in loaded), image_size=config.image_size, batch_size=config.batch_size
    )
    pictures = (
        (sample.photo.name, photo, truth, prediction)
        for (sample, _, _), (photo, truth), prediction in zip(chosen, loaded, predictions, strict=True)
    )
    show_predictions(pictures, dataset.palette, output, [(accuracy, mean_iou) for _, accuracy, mean_iou in chosen])


def _metrics(evaluation: "Evaluation", dataset: "Dataset", best: dict[str, float], seconds: float) -> dict:
    """Plain values for metrics.json; a score that does not exist becomes null."""
    from semseg.metrics import PER_CLASS_SCORES

    found = evaluation.scores
    return {
        "split": "val",
        "note": "the same split chose the best epoch; figures at the masks' own size",
        "best_epoch": int(best["epoch"]),
        "training_seconds": round(seconds, 1),
        "ignored_share": round(evaluation.ignored, 6),
        **{name: _plain(value) for name, value in found.items() if name not in PER_CLASS_SCORES},
        "per_class": {
            class_name: {name: _plain(found[name][i]) for name in PER_CLASS_SCORES}
            for i, class_name in enumerate(dataset.palette.names)
        },
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _write_json(path: Path, values: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _model_path(config: RunConfig) -> Path:
    return Path(config.output) / f"{config.model}_model.keras"


def _run_files() -> list[str]:
    """Glob patterns of all that a run may write."""
    from semseg.architectures import ARCHITECTURES

    return [*RUN_FILES, *(f"{name}_model.keras" for name in ARCHITECTURES)]


# ------------------------------------------------------------------------------------------------------- printing


def _say(line: str) -> None:
    print(line, flush=True)


def _say_about(topic: str, text: str) -> None:
    """Prints a paragraph with its topic in the margin."""
    lines = textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)
    _say(f"{topic:10}" + f"\n{'':10}".join(lines))


def _size(size: tuple[int, int]) -> str:
    """Width x height, as people write the size of a picture."""
    return f"{size[1]}x{size[0]}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%" if share else "none"


def _say_scores(evaluation: "Evaluation", dataset: "Dataset", best: dict[str, float]) -> None:
    from semseg.metrics import PER_CLASS_SCORES

    found = evaluation.scores
    totals = evaluation.matrix.sum(axis=1)
    width = max(len(name) for name in dataset.palette.names)
    _say("")
    _say(f"Validation, weights of epoch {best['epoch']:.0f} (chosen on the same split), at the masks' own size:")
    _say(f"{'class':{width}}  {'pixels':>7}  " + "  ".join(f"{name:>11}" for name in PER_CLASS_SCORES))
    for i, name in enumerate(dataset.palette.names):
        cells = "  ".join(_cell(found[score][i]) for score in PER_CLASS_SCORES)
        _say(f"{name:{width}}  {_percent(totals[i] / max(1, totals.sum())):>7}  {cells}")
    for kind in ("macro", "micro"):
        _say(f"{kind:{width}}  {'':>7}  " + "  ".join(_cell(found[f"{kind}_{score}"]) for score in PER_CLASS_SCORES))
    _say(f"accuracy {found['accuracy']:.4f}, mean IoU {found['macro_iou']:.4f}, mean Dice {found['macro_dice']:.4f}")


def _cell(value: float) -> str:
    return f"{'-' if math.isnan(value) else f'{value:.4f}':>11}"


class _Progress:
    """A bar on a terminal; nothing where the output goes to a file."""

    WIDTH = 24

    def __init__(self, label: str):
        self.label, self.active, self._last = label, sys.stdout.isatty(), 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def show(self, done: int, total: int, text: str = "") -> None:
        """Draws the bar, ten times a second at most."""
        now = time.monotonic()
        if not self.active or (now - self._last < 0.1 and done < total):
            return
        self._last = now
        filled = self.WIDTH * done // total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        print(f"\r\x1b[K{self.label} [{bar}] {done}/{total} {text}", end="", flush=True)

    def clear(self) -> None:
        """Removes the bar."""
        if self.active:
            print("\r\x1b[K", end="", flush=True)


def _progress_callback(epochs: int, size: str, asked_to_stop: Callable[[], bool]) -> "keras.callbacks.Callback":
    """A bar with loss and mean IoU within an epoch, a line after each, and an end between steps when asked to stop."""
    import keras

    class ShowProgress(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.best = -math.inf
            _say(f"\n{'':>7}  {'training':<17}   validation at {size}")
            _say(f"{'epoch':>7}  {'loss':>7} {'mean IoU':>9}   {'loss':>8} {'accuracy':>9} {'mean IoU':>9}  seconds")

        def on_epoch_begin(self, epoch, logs=None):
            self.start, self.bar = time.perf_counter(), _Progress(f"epoch {epoch + 1}/{epochs}")

        def on_test_batch_end(self, batch, logs=None):
            self.stop_if_asked()

        def stop_if_asked(self):
            if asked_to_stop():
                self.bar.clear()
                raise KeyboardInterrupt

        def on_train_batch_end(self, batch, logs=None):
            self.stop_if_asked()
            self.bar.show(batch + 1, self.params["steps"], f"loss {logs['loss']:.3f}  mean IoU {logs['mean_iou']:.3f}")

        def on_epoch_end(self, epoch, logs=None):
            self.bar.clear()
            better = logs["val_mean_iou"] > self.best
            self.best = max(self.best, logs["val_mean_iou"])
            seconds = time.perf_counter() - self.start
            _say(
                f"{epoch + 1:>4}/{epochs:<2}  {logs['loss']:7.4f} {logs['mean_iou']:9.4f}   {logs['val_loss']:8.4f} "
                f"{logs['val_accuracy']:9.4f} {logs['val_mean_iou']:9.4f}  {seconds:7.1f}"
                + ("  best so far" if better else "")
            )

    return ShowProgress()
