"""`python -m semseg evaluate`: how good a trained network is, on the data of its run or on others."""

import argparse
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg import __version__
from semseg.cli.calibrating import calibrate_model
from semseg.cli.console import Progress, say, say_about, say_unlike, view_text
from semseg.cli.flags import given_settings
from semseg.cli.looking import look_at, say_what_was_found
from semseg.cli.runtimes import open_network
from semseg.cli.scores import say_scores
from semseg.data.base import Dataset
from semseg.data.splits import changes_since, photo_name
from semseg.errors import RunFolderError, SemsegError
from semseg.evaluation.calibrating import SPLIT as CALIBRATED_ON
from semseg.evaluation.evaluate import Evaluation, ImageResult
from semseg.evaluation.flips import doubts_of_flips
from semseg.evaluation.opening import (
    check_classes,
    check_ignored,
    data_settings,
    is_own_data,
    open_as_run,
    split_to_judge,
)
from semseg.evaluation.tables import evaluate_to_files
from semseg.files import archive, check_output
from semseg.inference.card import ModelCard
from semseg.inference.learnt import Watch
from semseg.inference.segmenter import Segmenter, predict_ids, with_flips
from semseg.report import save_confusion_matrix, save_ranked, save_reliability
from semseg.runs import names
from semseg.runs.calibration import AS_LEARNT
from semseg.runs.lock import one_writer, writer_of
from semseg.runs.run import Run
from semseg.runs.scores import ScoreFolder

SHOWN = 6


def run(arguments: argparse.Namespace) -> None:
    """Judges a model as the flags say, and writes tables and pictures beside it."""
    given = given_settings(arguments)
    card = ModelCard.read(arguments.model)
    if arguments.calibrate and card.members:
        raise SemsegError(f"`calibrate`: {card.path} holds several runs, and the mean of them is none that can be "
                          "calibrated; give one of them")  # fmt: skip
    if arguments.calibrate and card.exported:
        raise SemsegError(f"`calibrate`: {card.path} is an exported file; calibrate its run, and export it again")
    model_run = Run(card.path) if card.members else card.run
    folder = ScoreFolder(Path(given.get("output") or model_run.evaluation.folder))
    if Run(folder.folder).config_path.exists():
        raise RunFolderError(f"{folder.folder}: holds a run, whose files would be replaced; choose another `output`")
    check_output(folder.folder)
    own_place = folder.folder.resolve() == model_run.evaluation.folder.resolve()
    if not own_place and (writer := writer_of(model_run.folder)):
        say_about("note", f"{writer} is training there: judged are the best weights until now")
    with ExitStack() as stack:
        if own_place or arguments.calibrate:
            stack.enter_context(one_writer(model_run.folder))
        if not own_place:
            stack.enter_context(one_writer(folder.folder))
        _judge(*_opened(arguments, given, card), folder)


def _opened(
    arguments: argparse.Namespace, given: dict[str, Any], card: ModelCard
) -> tuple[Segmenter, Dataset, str, dict[str, Any]]:
    """Network, checked data, split, and what else the scores should say.

    What the check noted of each photo, some 4 kB, is let go here: their scores find room in its place.
    """
    model_run = card.run
    card = replace(card, calibration=AS_LEARNT) if arguments.calibrate else card
    card, segmenter = open_network(card, arguments.runtime, given.get("image_size"), given.get("batch_size"))
    view = "whole" if segmenter.scale is None else "crops"
    config = replace(data_settings(model_run, given), image_size=segmenter.image_size, view=view, scale=segmenter.scale)
    dataset = open_as_run(config, model_run, segmenter.bands, check_meaning=not given.get("classes"), tell=say_about)
    check_classes(card.path, segmenter.palette, dataset)
    split, note = split_to_judge(config, dataset, card, given.get("test_split"))
    findings, _ = look_at(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    check_ignored(card.run, findings, dataset)
    say(f"semseg {__version__}: {card.path} on {card.device()}")
    say_what_was_found(dataset, findings)
    if is_own_data(model_run, config.data) and (changes := changes_since(dataset, model_run.splits)):
        say_about("changed", f"{changes}; the scores are not those of its data")
        note = f"{note}; {changes}"
    if arguments.calibrate:
        segmenter = calibrate_model(segmenter, dataset, card.path)
    elif segmenter.calibration != AS_LEARNT:
        say_about("certainty", str(segmenter.calibration))
    if segmenter.calibration != AS_LEARNT and split == CALIBRATED_ON:
        note = f"{note}; temperature and threshold were chosen on this split"
    facts = {"model": str(card.path), "data": config.data, "note": note, "flips": arguments.flips}
    facts |= {"runtime": card.runtime} if card.runtime else {}
    if arguments.flips:
        segmenter = replace(segmenter, predict_batch=with_flips(segmenter.predict_batch, arguments.flips))
        for doubt in doubts_of_flips(dataset, findings, arguments.flips):
            say_about("note", doubt)
    return replace(segmenter, palette=dataset.palette), dataset, split, facts


def _judge(segmenter: Segmenter, dataset: Dataset, split: str, facts: dict[str, Any], folder: ScoreFolder) -> None:
    folder.folder.mkdir(parents=True, exist_ok=True)
    archived = archive(folder.folder, names.EVALUATION_FILES)
    if archived:
        say_about("earlier", f"moved the files of the evaluation before to {archived}")
    watch, unlike = Watch(segmenter), {}

    def look(image: ImageResult, photo: np.ndarray, *masks: np.ndarray) -> None:
        seen = watch.next(photo.shape[:2], tiles=None if segmenter.tile else 1)
        if segmenter.learnt and (doubts := segmenter.learnt.doubts(seen, segmenter.bands)):
            unlike[photo_name(image.sample, dataset.root)] = "; ".join(doubts)

    watched = replace(segmenter, predict_batch=watch.predict_batch)
    with Progress(f"evaluating {split}") as progress:
        evaluation = evaluate_to_files(
            watched, dataset, split, folder, facts=facts, on_progress=progress.show, on_image=look
        )
    save_confusion_matrix(evaluation.matrix, dataset.palette.names, folder.matrix_picture)
    _draw(folder, dataset, split, segmenter, evaluation)
    seen = f"seen {view_text(segmenter.image_size, segmenter.scale)}" + (", with flips" if facts["flips"] else "")
    headline = f"Scores on {split} ({facts['note']}), {seen}, at the masks' own size:"
    say_scores(evaluation, dataset.palette.names, headline)
    say_unlike(unlike, len(evaluation.images))
    say_about("wrote", f"in {folder.folder}{os.sep}: {', '.join(folder.written())}")


def _draw(
    folder: ScoreFolder,
    dataset: Dataset,
    split: str,
    segmenter: Segmenter,
    evaluation: Evaluation,
) -> None:
    """The worst and the best photos, and the reliability diagram."""
    ranked = evaluation.ranked
    worst, best = ranked[:SHOWN], ranked[: -SHOWN - 1 : -1]
    for kind, chosen, path in (("worst", worst, folder.worst_picture), ("best", best, folder.best_picture)):
        loaded = [dataset.load(image.sample) for image in chosen]
        predictions = predict_ids(
            segmenter.predict_batch, (photo for photo, _ in loaded), image_size=segmenter.image_size,
            scale=segmenter.scale, threshold=segmenter.calibration.threshold,
        )  # fmt: skip
        rows = []
        for image, (photo, truth), prediction in zip(chosen, loaded, predictions, strict=True):
            scores = image.scores
            caption = f"{image.sample.photo.name}: mean IoU {scores['iou']:.3f}, accuracy {scores['accuracy']:.3f}"
            rows.append((caption, dataset.bands.view(photo), truth, prediction))
        title = f"The {kind} {len(rows)} of {len(ranked)} photos of {split}, by mean IoU"
        save_ranked(rows, dataset.palette, path, title=title)
    save_reliability(evaluation.bins, evaluation.scores["calibration_error"], folder.reliability_picture)
