"""The training command, from the flags to the last line."""

import argparse
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import Progress, say, say_about, size_text, write_json
from semseg.cli.judging import CITYSCAPES_FILE, JUDGED_FILES, judge, say_scores
from semseg.cli.opening import (
    choose_backend,
    classes_json,
    final_split,
    look_at_data,
    open_data,
    say_what_was_found,
)
from semseg.cli.output import check_output
from semseg.cli.reporting import ALBUM, EVENTS, REPORT_FILE, write_report
from semseg.cli.splits import SPLITS_FILE, photo_name, split_note, splits_of, write_splits
from semseg.errors import RunFolderError
from semseg.files import archive
from semseg.runs.config import RunConfig

if TYPE_CHECKING:  # rooms that load Keras, matplotlib or OpenCV are imported where a command needs them
    import keras
    import numpy as np
    from tensorboardX import SummaryWriter

    from semseg.data.base import Dataset
    from semseg.data.batches import Batches
    from semseg.data.cache import Cache
    from semseg.data.check import Findings
    from semseg.evaluation.evaluate import Evaluation
    from semseg.labels.palettes import Palette
    from semseg.runs.pictures import Picture

RUN_FILES = (  # beside the model's own file
    *JUDGED_FILES, CITYSCAPES_FILE, "pred_[0-9].png", "acc.png", "train_batch.png", "model_arch.png",
    "model_arch_layers.png", "results.csv", "classes.json", "config.json", SPLITS_FILE, REPORT_FILE,
    f"{ALBUM}/*", f"{EVENTS}/*", "evaluation/*", "export.json",
)  # fmt: skip
_EXPORTED = ("*.onnx", "*.xml", "*.bin", "*.tflite", "*.pt2", "*.h5", "_*.keras", "*_saved_model/**/*")  # of its name
LOGGED = 3  # predictions among the pictures for TensorBoard


def train(arguments: argparse.Namespace) -> None:
    """Trains a network as the flags say, and writes everything about it to the output folder."""
    values = {**vars(arguments), "backend": choose_backend(arguments.backend)}
    config = RunConfig(**{name: value for name, value in values.items() if name in RunConfig.__dataclass_fields__})
    output = Path(config.output)
    check_output(output)

    import keras
    from tensorboardX import SummaryWriter

    from semseg.backend.devices import leave_tensorflow_out
    from semseg.training.loop import make_batches, plain_model, train_model
    from semseg.training.recipe import Recipe, prepare, suited_batch_size
    from semseg.training.tensorboard import LogEpochs

    say(f"semseg {__version__}, Keras {keras.__version__} on {config.backend}")
    leave_tensorflow_out()
    config = _with_usable_precision(config)
    _check_flags(config)
    asked = config
    config, dataset, model = _open(asked)
    findings, cache, class_weights = _look(config, dataset)
    batches = make_batches(dataset, config, findings, cache)
    recipe = Recipe.suited(config, len(batches[0]))
    prepare(model, recipe, findings.shares("train"))
    why = suited_batch_size(asked, len(batches[0].samples))[1]
    in_words = f"{recipe}{'; ' * bool(why)}{why}"
    _say_what_is_trained(config, model, batches[0], in_words)

    output.mkdir(parents=True, exist_ok=True)
    archived = archive(output, _run_files(config))
    if archived:
        say_about("earlier", f"moved the files of the run before to {archived}")
    how = {
        "recipe": {"in_words": in_words, "batch_size": config.batch_size, **asdict(recipe)},
        "augmentation": asdict(batches[0].augmentation),
    }
    _write_descriptions(output, asked, dataset, findings, model, how)
    _draw_before(output, dataset, batches[0], model)
    with SummaryWriter(str(output / EVENTS), flush_secs=10) as log:
        _log_batch(log, *batches[0][0], dataset.palette)
        start = time.perf_counter()
        with _ctrl_c_noted() as asked_to_stop:
            history = train_model(
                model, batches, config, model_path=_model_path(config), results_path=output / "results.csv",
                recipe=recipe, class_weights=class_weights, tell=lambda line: say_about("compile", line),
                callbacks=[
                    LogEpochs(log), _progress_callback(config.epochs, size_text(config.image_size), asked_to_stop)
                ],
            )  # fmt: skip
            if asked_to_stop():  # after the last batch, when no callback saw it any more
                raise KeyboardInterrupt
        _finish(output, config, dataset, plain_model(model), history, time.perf_counter() - start, log)


def _with_usable_precision(config: RunConfig) -> RunConfig:
    """The run, in float32 where the device cannot compute in what was asked for."""
    from semseg.backend.devices import usable_precision

    precision, why = usable_precision(config.precision)
    if why:
        say_about("note", why)
    return replace(config, precision=precision)


def _check_flags(config: RunConfig) -> None:
    """Tells of a wrong name or size before any data are drawn or read."""
    from semseg.data.augment import Augmentation, parse_augmentation
    from semseg.losses import SegmentationLoss

    SegmentationLoss(config.loss, label_smoothing=config.label_smoothing)
    without_weights = "none" if config.model == "encoder_unet" else config.encoder_weights
    new_model(replace(config, encoder_weights=without_weights), num_logits=1)
    if config.augment:
        parse_augmentation(config.augment, Augmentation())


def _open(config: RunConfig) -> tuple[RunConfig, "Dataset", "keras.Model"]:
    """The run with its batch size, data and network, before the files are read: what does not fit is told at once."""
    import keras

    from semseg.training.loop import check_memory, make_loss
    from semseg.training.recipe import suited_batch_size

    dataset = open_data(config, demo=True)
    make_loss(config.loss, dataset)
    final_split(config, dataset)
    config = replace(config, batch_size=suited_batch_size(config, len(dataset.splits["train"]))[0])
    keras.utils.set_random_seed(config.seed)
    model = new_model(config, dataset.num_logits)
    check_memory(model, config)
    return config, dataset, model


def _look(config: RunConfig, dataset: "Dataset") -> tuple["Findings", "Cache", "np.ndarray | None"]:
    """What is in the files, said aloud, and the weight of each class in the loss."""
    from semseg.training.loop import idle_class_weights, make_class_weights, make_loss

    findings, cache = look_at_data(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    class_weights = make_class_weights(config, findings, dataset.palette.names)
    make_loss(config.loss, dataset, class_weights)
    say_what_was_found(dataset, findings)
    if cache.note:
        say_about("note", cache.note)
    if idle := idle_class_weights(config, findings, dataset.palette.names):
        say_about("note", f"no training photo holds {', '.join(idle)}: the weight given by --class-weights is idle")
    return findings, cache, class_weights


def new_model(config: RunConfig, num_logits: int) -> "keras.Model":
    """The network that a run asks for."""
    from semseg.architectures import build_model

    return build_model(
        config.model, (*config.image_size, 3), num_logits, filters=config.filters, encoder=config.encoder,
        encoder_weights=config.encoder_weights,
    )  # fmt: skip


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


def _write_descriptions(
    output: Path, config: RunConfig, dataset: "Dataset", findings: "Findings", model: "keras.Model", how: dict
) -> None:
    import keras

    from semseg.backend.devices import device_name

    write_json(output / "classes.json", classes_json(dataset, findings))
    write_splits(output / SPLITS_FILE, splits_of(dataset))
    config.save(
        output / "config.json",
        task=dataset.task,
        **how,
        parameters=model.count_params(),
        samples={name: len(samples) for name, samples in dataset.splits.items()},
        found={
            "sizes": [size_text(size) for size in findings.sizes],
            "notes": [*dataset.notes, *findings.warnings],
        },
        device=device_name(),
        system=f"{platform.platform()}, {os.cpu_count()} CPU cores",
        versions={
            "semseg": __version__,
            "keras": keras.__version__,
            config.backend: version(config.backend),
            "python": sys.version.split()[0],
        },
    )


def _say_what_is_trained(config: RunConfig, model: "keras.Model", batches: "Batches", recipe: str) -> None:
    from semseg.backend.devices import device_name
    from semseg.training.loop import augmentation_strength

    size, parameters = size_text(config.image_size), f"{model.count_params():,}"
    say_about("model", f"{config.model}, {config.filters} filters, {parameters} parameters, input {size}")
    say_about("recipe", recipe)
    why = "" if config.augment else augmentation_strength(config.epochs, len(batches.samples))[1]
    say_about("augment", f"{batches.augmentation}{'; ' * bool(why)}{why}")
    say_about("device", device_name())


def _draw_before(output: Path, dataset: "Dataset", batches: "Batches", model: "keras.Model") -> None:
    from semseg.architectures.drawing import get_model_arch
    from semseg.report import save_batch

    save_batch(*batches[0], dataset.palette, output / "train_batch.png")
    get_model_arch(model, output / "model_arch.png")


def _finish(
    output: Path,
    config: RunConfig,
    dataset: "Dataset",
    model: "keras.Model",
    history: list[dict[str, float]],
    seconds: float,
    log: "SummaryWriter",
) -> None:
    """Judges the best weights at the masks' own size, on a split of its own if there is one."""
    from semseg.architectures.cost import peak_memory_mb
    from semseg.evaluation.evaluate import samples_of
    from semseg.report import get_acc

    best = max(history, key=lambda row: row["val_mean_iou"])
    split = final_split(config, dataset)
    note = split_note(samples_of(dataset, split), dataset.root, splits_of(dataset))
    facts = {
        "note": f"{note}; figures at the masks' own size",
        "best_epoch": int(best["epoch"]),
        "training_seconds": round(seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
    }
    evaluation, pictures = _judge(output, config, dataset, model, split, facts)
    get_acc(history, output / "acc.png")
    _keep_pictures(output, pictures, dataset.palette)
    _log_scores(log, evaluation, pictures, dataset.palette, config.epochs)
    write_report(output)
    headline = f"Scores on {split} ({note}), weights of epoch {best['epoch']:.0f}, at the masks' own size:"
    say_scores(evaluation, dataset.palette.names, headline)
    found = (path for pattern in _run_files(config) for path in output.glob(pattern) if path.is_file())
    written = sorted({path.relative_to(output).parts[0] for path in found})
    say_about("trained", f"{config.epochs} epochs in {seconds:.0f} s{_waiting(history)}")
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")
    say_about("next", f"open {output / REPORT_FILE} in a browser; it ends with the commands to go on with")


def _waiting(history: list[dict[str, float]]) -> str:
    if len(history) < 2:
        return ""
    waiting, all_time = (sum(row[name] for row in history[1:]) for name in ("waiting", "seconds"))
    return f"; after the first, {waiting / all_time:.1%} of the time went by waiting for data"


def _judge(
    output: Path, config: RunConfig, dataset: "Dataset", model: "keras.Model", split: str, facts: dict
) -> tuple["Evaluation", list["Picture"]]:
    """Scores of a split, and the pictures of it that are worth keeping: no photo is predicted twice."""
    from semseg.backend.predictor import predictor
    from semseg.evaluation.album import Album
    from semseg.evaluation.evaluate import samples_of
    from semseg.inference.segmenter import Segmenter

    segmenter = Segmenter(
        predictor(model, config.batch_size), config.image_size, dataset.palette, batch_size=config.batch_size
    )
    album = Album(len(samples_of(dataset, split)))
    evaluation = judge(
        segmenter, dataset, split, output, facts=facts,
        on_image=lambda image, *arrays: album.add(photo_name(image.sample, dataset.root), image.scores, *arrays),
    )  # fmt: skip
    return evaluation, album.pictures


def _keep_pictures(output: Path, pictures: Sequence["Picture"], palette: "Palette") -> None:
    """Writes the album, and draws those spread evenly over the split: neither the best nor the worst."""
    from semseg.report import show_predictions
    from semseg.runs.pictures import SPREAD, write_pictures

    write_pictures(output / ALBUM, pictures, palette)
    chosen = [picture for picture in pictures if SPREAD in picture.ranks]
    samples = ((Path(of.name).name, of.photo, of.truth, of.prediction) for of in chosen)
    show_predictions(samples, palette, output, [(of.scores["accuracy"], of.scores["iou"]) for of in chosen])


def _log_batch(log: "SummaryWriter", photos: "np.ndarray", masks: "np.ndarray", palette: "Palette") -> None:
    """What the network sees first, for TensorBoard: photos, and below them the same with their masks."""
    import numpy as np

    from semseg.labels.painting import overlay

    shown = list(zip(photos[:4], masks, strict=False))
    rows = [[photo for photo, _ in shown], [overlay(photo, mask, palette) for photo, mask in shown]]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    log.add_image("first_batch", picture, 0, dataformats="HWC")


def _log_scores(
    log: "SummaryWriter", evaluation: "Evaluation", pictures: Sequence["Picture"], palette: "Palette", epoch: int
) -> None:
    """IoU of every class, and some predictions: photo, truth, prediction, errors."""
    import numpy as np

    from semseg.labels.painting import paint, paint_errors
    from semseg.runs.pictures import SPREAD

    ious = dict(zip(palette.names, evaluation.scores["iou"], strict=True))
    for name, iou in ious.items():
        if not math.isnan(iou):
            log.add_scalar(f"iou/{name}", float(iou), epoch)
    for of in [picture for picture in pictures if SPREAD in picture.ranks][:LOGGED]:
        masks = (paint(of.truth, palette), paint(of.prediction, palette))
        row = (of.photo, *masks, paint_errors(of.photo, of.truth, of.prediction))
        log.add_image(f"prediction/{of.name}", np.concatenate(row, axis=1), epoch, dataformats="HWC")


def _model_path(config: RunConfig) -> Path:
    from semseg.architectures import model_name

    return Path(config.output) / f"{model_name(config.model)}_model.keras"


def _run_files(config: RunConfig) -> list[str]:
    """Glob patterns of all that this run may write, and the one before it in the same folder."""
    from semseg.architectures import ARCHITECTURES, model_name

    models = {*ARCHITECTURES, model_name(config.model)}
    with suppress(RunFolderError):
        models.add(model_name(RunConfig.read(Path(config.output) / "config.json").model))
    return [*RUN_FILES, *(f"{name}_model{ending}" for name in sorted(models) for ending in (".keras", *_EXPORTED))]


def _progress_callback(epochs: int, size: str, asked_to_stop: Callable[[], bool]) -> "keras.callbacks.Callback":
    """A bar with loss and mean IoU within an epoch, a line after each, and an end between steps when asked to stop."""
    import keras

    class ShowProgress(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.best = -math.inf
            say(f"\n{'':>7}  {'training':<17}   validation at {size}")
            say(f"{'epoch':>7}  {'loss':>7} {'mean IoU':>9}   {'loss':>8} {'accuracy':>9} {'mean IoU':>9}  seconds")

        def on_epoch_begin(self, epoch, logs=None):
            self.start, self.bar = time.perf_counter(), Progress(f"epoch {epoch + 1}/{epochs}")

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
            say(
                f"{epoch + 1:>4}/{epochs:<2}  {logs['loss']:7.4f} {logs['mean_iou']:9.4f}   {logs['val_loss']:8.4f} "
                f"{logs['val_accuracy']:9.4f} {logs['val_mean_iou']:9.4f}  {seconds:7.1f}"
                + ("  best so far" if better else "")
            )

    return ShowProgress()
