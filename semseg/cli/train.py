"""`main.py` and `python -m semseg train`: the order of a training run, from the flags to the last line."""

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tensorboardX import SummaryWriter

from semseg import __version__
from semseg.architectures import ARCHITECTURES, model_name
from semseg.architectures.cost import peak_memory_mb
from semseg.architectures.drawing import get_model_arch
from semseg.backend.devices import device_name, sparing_a_core
from semseg.backend.predictor import predictor
from semseg.backend.processes import (
    LostError,
    agreed,
    first,
    here,
    join,
    leave,
    one_per_host_before_others,
    refuse_differing,
    versions,
)
from semseg.cli.backends import refuse_devices
from semseg.cli.calibrating import calibrate_model
from semseg.cli.console import Progress, be_silent, cell, say, say_about, say_error, size_text, view_text
from semseg.cli.drawing import Drawing
from semseg.cli.flags import asked_run
from semseg.cli.folds import run_folds
from semseg.cli.looking import look_at, say_what_was_found
from semseg.cli.plan import open_data_and_network, say_plan
from semseg.cli.report import write_report
from semseg.cli.scores import say_scores
from semseg.data.base import Dataset, Sample
from semseg.data.batches import Batches
from semseg.data.cache import Cache
from semseg.data.check import Findings
from semseg.data.splits import photo_name, samples_of, split_note, splits_of
from semseg.errors import RunFolderError, SemsegError, StopRequest
from semseg.evaluation.album import Album
from semseg.evaluation.change import changes, judge_before
from semseg.evaluation.evaluate import Evaluation, ImageResult
from semseg.evaluation.learnt import ValidationLooks, learnt_photos
from semseg.evaluation.tables import evaluate_to_files
from semseg.files import check_output, clear_temporaries
from semseg.inference.learnt import Look
from semseg.inference.runtimes import digest_of
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.runs.checkpoints import Checkpoint, Position
from semseg.runs.config import RunConfig
from semseg.runs.lock import one_writer
from semseg.runs.pictures import SPREAD, Picture
from semseg.runs.run import Run
from semseg.runs.stopping import Stopping
from semseg.training.averaging import Averaged
from semseg.training.callbacks import KeepEpochs, Meter
from semseg.training.ending import Ending
from semseg.training.loop import make_batches, plain_model, train_model
from semseg.training.plan import Plan, plan_run
from semseg.training.recipe import prepare
from semseg.training.resuming import (
    as_planned,
    as_seen,
    can_grow,
    identity_of,
    refuse_other_data,
    settings_of_run,
    state_to_go_on_from,
)
from semseg.training.saving import Saving
from semseg.training.tensorboard import LogEpochs, log_batch, log_scores
from semseg.training.timing import epochs_of_run

LOGGED = 3  # predictions among the pictures for TensorBoard


def run(arguments: argparse.Namespace) -> None:
    """Trains a network as the flags say, and writes everything about it to the output folder."""
    config, stopping = asked_run(arguments), arguments.stopping
    if arguments.folds is not None:
        run_folds(config, arguments)
        return
    refuse_devices(config.devices, sys.argv)
    join(config.devices, say_error)
    refuse_differing({**versions(), **settings_of_run(config)})
    if not here().is_first:
        be_silent()
    output = Path(config.output)
    if first(lambda: arguments.resume and Run(output).is_finished and not can_grow(Run(output), config)):
        say_about("finished", f"the run in {output} is over: nothing is left to do")
        return
    with _folder_of_the_first(output):
        try:
            _train(config, Run(output), arguments, stopping)
        except StopRequest as request:
            request.kept = Run(output).checkpoints.note()
            raise
        except LostError as error:
            raise LostError(f"{error}; {Run(output).checkpoints.note()}") from error


def _train(config: RunConfig, folder: Run, arguments: argparse.Namespace, stopping: Stopping) -> None:
    """Trains from the beginning, or from the state that an earlier start left."""
    note = partial(say_about, "note")
    state = first(lambda: None if arguments.restart else state_to_go_on_from(folder, config, note, arguments.resume))
    _greet(config, folder, state)
    asked, config = config, as_seen(config, state) if state else config
    with one_per_host_before_others():
        dataset, model, source, view = open_data_and_network(config, new=state is None)
        findings, cache = _look(view.decided(config), dataset)
    config = _with_epochs(config, state, dataset, cache)
    planned_epochs = state.facts["identity"]["planned_epochs"] if state else config.epochs
    plan = plan_run(replace(config, epochs=planned_epochs), dataset, findings)
    asked = replace(asked, epochs=config.epochs)
    identity = identity_of(asked, plan, planned_epochs, dataset)
    plan = plan.grown_to(config.epochs)
    batches = make_batches(dataset, plan, cache)
    prepare(model, plan.recipe, plan.class_shares)
    _say_model(plan.config, model)
    say_plan(plan)
    refuse_differing({name: identity[name] for name in ("photos", "classes", "data")} | identity["plan"])
    saving = Saving(None, identity, state, config.checkpoint_minutes, lambda: agreed(stopping.request))
    train = partial(
        train_model, model, batches, plan, model_path=folder.model_path(model_name(asked.model)),
        results_path=folder.history_path, tell=lambda line: say_about("compile", line),
    )  # fmt: skip
    if not here().is_first:
        with stopping.between_batches():
            train(saving=saving)
            leave()
        return
    if state:
        refuse_other_data(folder, state, identity, splits_of(dataset), note)
        source = folder.facts.get("init")
        _make_room(folder, config)
    else:
        folder = _take_folder(folder, asked, source)
    _describe(folder, asked, plan, dataset, findings, model, source)
    saving = replace(saving, checkpoints=folder.checkpoints)
    purge_step = saving.position.epoch + 1 if state else None
    with SummaryWriter(str(folder.events_folder), flush_secs=10, purge_step=purge_step) as log:
        if state is None:
            log_batch(log, *_visible(dataset, batches[0][0]), dataset.palette)
        start = time.perf_counter() - (state.facts["elapsed"] if state else 0)
        progress = _ShowProgress(plan.config, saving.position)
        model_file = partial(folder.file_of_weights, model_name(asked.model))
        averaged: list[Averaged] = []
        keep = [KeepEpochs(plain_model(model), model_file, config.keep)] if config.keep != "best" else []
        with stopping.between_batches(), progress, Drawing() as drawing:
            _draw_before(drawing, folder, dataset, batches[0], model)
            shown = [LogEpochs(log), progress, _EndDrawing(drawing), meter := Meter(here(), state is not None), *keep]
            history = train(on_average=averaged.append, callbacks=shown, saving=saving)
            leave()
        ending = Ending(history, config, time.perf_counter() - start, *averaged, spent=meter.spent)
        for topic, line in ending.lines():
            say_about(topic, line)
        _finish(folder, plan, dataset, plain_model(model), ending, log)


@contextmanager
def _folder_of_the_first(output: Path) -> Iterator[None]:
    """The folder that the first process writes, and no other does."""
    if not here().is_first:
        yield
        return
    check_output(output)
    with one_writer(output):
        clear_temporaries(output)
        yield


# --------------------------------------------------------------------------------------------- before the training


def _greet(config: RunConfig, folder: Run, state: Checkpoint | None) -> None:
    say(f"semseg {__version__}, Keras {keras.__version__} on {config.backend}")
    if state:
        say_about("goes on", f"from {state.position}, as left in {folder.checkpoints.folder}")


def _say_model(config: RunConfig, model: keras.Model) -> None:
    parameters, size = f"{model.count_params():,}", size_text(config.seen_size)
    say_about("model", f"{config.model}, {config.filters} filters, {parameters} parameters, input {size}")


def _look(config: RunConfig, dataset: Dataset) -> tuple[Findings, Cache]:
    """What is in the files, said aloud."""
    findings, cache = look_at(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    say_what_was_found(dataset, findings)
    if cache.note:
        say_about("note", cache.note)
    return findings, cache


def _with_epochs(config: RunConfig, state: Checkpoint | None, dataset: Dataset, cache: Cache) -> RunConfig:
    """The run with as many epochs as fit into its minutes, if it has some; those that once did stay."""
    if config.minutes is None:
        return config
    if state:
        return as_planned(config, state, partial(say_about, "note"))
    return replace(config, epochs=epochs_of_run(config.minutes, config, dataset, cache, say_about))


def _take_folder(folder: Run, config: RunConfig, source: dict[str, str] | None) -> Run:
    """The run's folder; what an earlier run left there moves to its archive, perhaps the source of the weights, too."""
    archived = folder.archive(_model_names(folder, config))
    if archived and source and Path(source["path"]).resolve().parent == folder.folder.resolve():
        source["path"] = str(archived / Path(source["path"]).name)
    _say_moved(archived)
    return Run(folder.folder)  # knows nothing of the earlier one


def _make_room(folder: Run, config: RunConfig) -> None:
    """Moves the results of a finished run that grows."""
    if folder.is_finished:
        _say_moved(folder.archive_results(_model_names(folder, config)))


def _say_moved(archived: Path | None) -> None:
    if archived:
        say_about("earlier", f"moved the files of the run before to {archived}")


def _model_names(folder: Run, config: RunConfig) -> set[str]:
    """Names of networks that this run may write, or the one before it in the same folder."""
    names = {*ARCHITECTURES, model_name(config.model)}
    with suppress(RunFolderError):
        names.add(model_name(folder.config.model))
    return names


def _describe(
    folder: Run, config: RunConfig, plan: Plan, dataset: Dataset, findings: Findings, model: keras.Model,
    source: dict[str, str] | None,
) -> None:  # fmt: skip
    folder.write_classes(dataset.palette, findings.shares("train"))
    folder.write_splits(splits_of(dataset))
    facts = {
        "task": dataset.task,
        "parameters": model.count_params(),
        "samples": {name: len(samples) for name, samples in dataset.splits.items()},
        "found": {
            "sizes": [size_text(size) for size in findings.sizes],
            "notes": [*dataset.notes, *findings.warnings],
        },
        "device": device_name(),
        "system": f"{platform.platform()}, {os.cpu_count()} CPU cores",
        "versions": {
            "semseg": __version__,
            "keras": keras.__version__,
            config.backend: sys.modules[config.backend].__version__,
            "python": sys.version.split()[0],
        },
    }
    facts["image_size"], facts["scale"] = plan.view.image_size, plan.view.scale
    facts["model"], facts["encoder"] = plan.config.model, plan.config.encoder
    if not dataset.bands.are_rgb:
        facts["bands"] = dataset.bands.to_dict()
    if source:
        facts["init"] = source
    folder.write_config(config, plan.to_dict(), facts)


def _draw_before(drawing: Drawing, folder: Run, dataset: Dataset, batches: Batches, model: keras.Model) -> None:
    drawing.draw("save_batch", *_visible(dataset, batches[0]), dataset.palette, folder.first_batch_picture)
    get_model_arch(model, folder.architecture_picture)


def _visible(dataset: Dataset, batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Photos as people see them, and their masks."""
    return dataset.bands.view(batch[0]), batch[1]


# ---------------------------------------------------------------------------------------------- during the training


class _EndDrawing(keras.callbacks.Callback):
    """Waits for the pictures that were begun before the first step, at the end of the first epoch."""

    def __init__(self, drawing: Drawing):
        super().__init__()
        self.drawing = drawing

    def on_epoch_end(self, epoch, logs=None):
        """Raises what went wrong with a picture."""
        self.drawing.finish()


class _ShowProgress(keras.callbacks.Callback):
    """A bar with loss and mean IoU within an epoch, and a line after each."""

    def __init__(self, config: RunConfig, start: Position):
        super().__init__()
        self.epochs, self.first = config.epochs, start
        self.size = view_text(config.seen_size, config.crop_scale)
        self.best, self.bar = -math.inf, Progress("")

    def __enter__(self) -> None:
        """Prints the head of the table."""
        say(f"\n{'':>7}  {'training':<17}   validation {self.size}")
        say(f"{'epoch':>7}  {'loss':>7} {'mean IoU':>9}   {'loss':>8} {'accuracy':>9} {'mean IoU':>9}  seconds")

    def __exit__(self, *exception: object) -> None:
        """Removes what is left of the bar."""
        self.bar.clear()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts clock and bar."""
        self.start, self.bar = time.perf_counter(), Progress(f"epoch {epoch + 1}/{self.epochs}")
        self.done = self.first.batch if epoch == self.first.epoch else 0

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        steps = self.done + self.params["steps"]
        self.bar.show(self.done + batch + 1, steps, f"loss {logs['loss']:.3f}  mean IoU {logs['mean_iou']:.3f}")

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's row."""
        self.bar.clear()
        better = logs["val_mean_iou"] > self.best
        self.best = max(self.best, logs["val_mean_iou"])
        seconds = time.perf_counter() - self.start
        say(
            f"{epoch + 1:>4}/{self.epochs:<2}  {logs['loss']:7.4f} {logs['mean_iou']:9.4f}   {logs['val_loss']:8.4f} "
            f"{logs['val_accuracy']:9.4f} {logs['val_mean_iou']:9.4f}  {seconds:7.1f}"
            + ("  best so far" if better else "")
        )


# ----------------------------------------------------------------------------------------------- after the training


def _finish(
    folder: Run,
    plan: Plan,
    dataset: Dataset,
    model: keras.Model,
    ending: Ending,
    log: SummaryWriter,
) -> None:
    """Judges the best weights at the masks' own size, on a split of its own if there is one."""
    split = plan.config.test_split
    note = split_note(samples_of(dataset, split), dataset.root, splits_of(dataset))
    facts = {
        "note": f"{note}; figures at the masks' own size",
        **ending.facts(),
        "peak_memory_mb": peak_memory_mb(),
        **_judge_before(folder, plan.config, dataset),
    }
    names = dataset.palette.names
    with Drawing() as drawing:
        segmenter = _segmenter_of(plan.config, dataset, model)
        evaluation, pictures, looks = _judge(folder, plan.config, dataset, segmenter, facts)
        headline = f"Scores on {split} ({note}), {ending.weights}, at the masks' own size:"
        say_scores(evaluation, names, headline)
        _say_changes(folder.metrics)
        drawing.draw("get_acc", ending.history, folder.curves_picture)
        drawing.draw("save_confusion_matrix", evaluation.matrix, names, folder.scores.matrix_picture)
        folder.write_pictures(pictures, dataset.palette)
        spread = [picture for picture in pictures if SPREAD in picture.ranks]  # neither the best nor the worst
        _draw_predictions(drawing, folder, spread, dataset.palette)
        with sparing_a_core():
            learnt = learnt_photos(segmenter, dataset, looks)
        if learnt:
            learnt.write(folder.learnt_photos_path, digest_of(_model_path(folder)))
        ious = dict(zip(names, evaluation.scores["iou"], strict=True))
        log_scores(log, ious, spread[:LOGGED], dataset.palette, len(ending.history))
        drawing.finish()
    write_report(folder)  # the last that is written: with it a run is finished
    if plan.config.keep == "best":
        folder.checkpoints.remove()
    say_about("trained", f"{ending.length}{ending.waiting}")
    if ending.spent:
        say_about("learnt", str(ending.spent))
    written = folder.written(_model_names(folder, plan.config))
    say_about("wrote", f"in {folder.folder}{os.sep}: {', '.join(written)}")
    say_about("next", f"open {folder.report_path} in a browser; it ends with the commands to go on with")


def _judge_before(folder: Run, config: RunConfig, dataset: Dataset) -> dict:
    """Scores of the network that a run on corrected masks started from, on the same photos and masks."""
    if not (config.corrections and "init" in folder.facts):
        return {}
    try:
        with Progress("evaluating the network before") as progress:
            return {"before": judge_before(folder.facts["init"]["path"], dataset, config.test_split, progress.show)}
    except SemsegError as error:
        say_about("note", f"nothing is said of what changed: {error}")
        return {}


def _say_changes(metrics: dict) -> None:
    """Prints what became of the scores since the network that the run started from."""
    if "before" not in metrics:
        return
    classes = [f"{name} {cell(before).strip()} to {cell(after).strip()}" for name, before, after in changes(metrics)]
    before, after = cell(metrics["before"]["macro_iou"]).strip(), cell(metrics["macro_iou"]).strip()
    say_about("changed", f"mean IoU {before} to {after} on the same {metrics['images']} photos and masks, since "
              f"{metrics['before']['model']}: {', '.join(classes)}")  # fmt: skip


def _segmenter_of(config: RunConfig, dataset: Dataset, model: keras.Model) -> Segmenter:
    predict_batch = predictor(model, config.batch_size)
    return Segmenter(
        predict_batch, config.seen_size, dataset.palette, config.batch_size, dataset.bands, config.crop_scale,
        features=predict_batch.features,
    )  # fmt: skip


def _model_path(folder: Run) -> Path:
    return folder.model_path(model_name(folder.config.model))


def _judge(
    folder: Run, config: RunConfig, dataset: Dataset, segmenter: Segmenter, facts: dict
) -> tuple[Evaluation, list[Picture], Mapping[Sample, Look]]:
    """Scores of the final split, the pictures of it that are worth keeping, and what its photos are like."""
    split = config.test_split
    if config.calibrate:
        segmenter = calibrate_model(segmenter, dataset, _model_path(folder))
    album, looks = Album(len(samples_of(dataset, split))), ValidationLooks(segmenter, dataset, split)

    def keep(image: ImageResult, photo: np.ndarray, *masks: np.ndarray) -> None:
        album.add(photo_name(image.sample, dataset.root), image.scores, photo, *masks)
        looks.note(image.sample, photo.shape[:2])

    with Progress(f"evaluating {split}") as progress:
        evaluation = evaluate_to_files(
            looks.segmenter, dataset, split, folder.scores, facts=facts, on_progress=progress.show, on_image=keep
        )
    return evaluation, album.pictures, looks.found


def _draw_predictions(drawing: Drawing, folder: Run, pictures: Sequence[Picture], palette: Palette) -> None:
    samples = [(Path(each.name).name, each.photo, each.truth, each.prediction) for each in pictures]
    scores = [(each.scores["accuracy"], each.scores["iou"]) for each in pictures]
    drawing.draw("show_predictions", samples, palette, folder.folder, scores)
