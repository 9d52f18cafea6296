"""`python -m semseg evaluate`: how good a trained network is, on the data of its run or on others."""

import argparse
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import percent, say, say_about, size_text
from semseg.cli.judging import CITYSCAPES_FILE, JUDGED_FILES, judge, say_scores
from semseg.cli.opening import choose_backend, look_at_data, model_path, open_segmenter, say_what_was_found
from semseg.cli.output import check_output
from semseg.cli.runs import Run, configuration_for, open_as_run
from semseg.cli.splits import NEW, split_note
from semseg.errors import ModelFileError, RunFolderError
from semseg.files import archive
from semseg.runs.config import RunConfig

if TYPE_CHECKING:  # rooms that load Keras or OpenCV are imported where a command needs them
    from semseg.backend import PredictBatch
    from semseg.data.base import Dataset
    from semseg.data.check import Findings
    from semseg.evaluation.evaluate import Evaluation
    from semseg.inference.segmenter import Segmenter
    from semseg.labels.palettes import Palette

EVALUATION_FILES = (*JUDGED_FILES, CITYSCAPES_FILE, "worst.png", "best.png", "reliability.png")
SHOWN = 6
_MORE_IGNORED = 0.3  # of the pixels, beyond the share that the run ignored


def evaluate(arguments: argparse.Namespace) -> None:
    """Judges a model as the flags say, and writes tables and pictures beside it."""
    choose_backend(arguments.backend)  # the scores need Keras, whatever runs the network
    path = model_path(Path(arguments.model))
    output = Path(arguments.output or path.parent / "evaluation")
    if (output / "config.json").exists():
        raise RunFolderError(f"{output}: holds a run, whose files would be replaced; choose another --output")
    check_output(output)
    run = Run.beside(path)
    _, segmenter = open_segmenter(path, image_size=arguments.image_size, batch_size=arguments.batch_size)
    config = replace(configuration_for(run, arguments), image_size=segmenter.image_size)
    dataset = open_as_run(config, run, by_run=not arguments.classes)
    _check_classes(path, segmenter.palette, dataset)
    split, note = _split(config, dataset, run)
    findings, _ = look_at_data(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    _check_ignored(path, findings, dataset)
    facts = {"model": str(path), "data": config.data, "note": note, "flips": arguments.flips}
    _judge(segmenter, config, dataset, findings, output, split, facts)


def _judge(
    segmenter: "Segmenter",
    config: RunConfig,
    dataset: "Dataset",
    findings: "Findings",
    output: Path,
    split: str,
    facts: dict[str, str | None],
) -> None:
    from semseg.backend.devices import device_name
    from semseg.inference.exported import runtime_of
    from semseg.inference.segmenter import with_flips

    flips, runtime = facts["flips"], runtime_of(Path(facts["model"]))
    if flips:
        segmenter = replace(segmenter, predict_batch=with_flips(segmenter.predict_batch, flips))
    say(f"semseg {__version__}: {facts['model']} on {f'the CPU, by {runtime}' if runtime else device_name()}")
    say_what_was_found(dataset, findings)
    output.mkdir(parents=True, exist_ok=True)
    archived = archive(output, EVALUATION_FILES)
    if archived:
        say_about("earlier", f"moved the files of the evaluation before to {archived}")
    segmenter = replace(segmenter, palette=dataset.palette)
    evaluation = judge(segmenter, dataset, split, output, facts=facts)
    _draw(output, dataset, split, segmenter.predict_batch, evaluation, config.image_size)
    seen = f"seen at {size_text(config.image_size)}" + (", with flips" if flips else "")
    headline = f"Scores on {split} ({facts['note']}), {seen}, at the masks' own size:"
    say_scores(evaluation, dataset.palette.names, headline)
    written = sorted(name for name in EVALUATION_FILES if (output / name).exists())
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")


def _check_classes(path: Path, palette: "Palette", dataset: "Dataset") -> None:
    learnt, there = palette.num_classes, dataset.palette.num_classes
    if learnt != there:
        names = ", ".join(dataset.palette.names[:12]) + (" ..." if there > 12 else "")
        raise ModelFileError(
            f"{path}: tells {learnt} classes apart, and the masks of {dataset.root} hold {there} ({names}); evaluate "
            "it on data with the classes that it was trained on"
        )


def _check_ignored(path: Path, findings: "Findings", dataset: "Dataset") -> None:
    """Refuses masks most of which are no class to the model: they must mean something else."""
    usual = 0.0
    with suppress(OSError, ValueError, KeyError, TypeError):
        usual = float(json.loads((path.parent / "metrics.json").read_text(encoding="utf-8"))["ignored_share"])
    pixels = sum(findings.pixels(split) for split in findings.records)
    ignored = pixels[-1] / pixels.sum()
    if ignored > usual + _MORE_IGNORED:
        raise ModelFileError(
            f"{dataset.root}: {percent(ignored)} of the pixels are no class to {path} ({percent(usual)} in its run); "
            "the masks seem to mean something else, see --classes"
        )


def _split(config: RunConfig, dataset: "Dataset", run: Run) -> tuple[str, str]:
    """The split to judge, and what its photos have to do with the model; photos that are new otherwise stay out."""
    from semseg.evaluation.evaluate import ALL, samples_of

    split = config.test_split or next((name for name in ("test", "val") if name in dataset.splits), ALL)
    note = split_note(samples_of(dataset, split), dataset.root, run.known)
    if split not in (NEW, ALL):
        dataset.splits.pop(NEW, None)
    return split, note


def _draw(
    output: Path,
    dataset: "Dataset",
    split: str,
    predict_batch: "PredictBatch",
    evaluation: "Evaluation",
    image_size: tuple[int, int],
) -> None:
    """The worst and the best photos, and the reliability diagram."""
    from semseg.inference.segmenter import predict_ids
    from semseg.report import save_ranked, save_reliability

    ranked = evaluation.ranked
    for name, chosen in (("worst", ranked[:SHOWN]), ("best", ranked[: -SHOWN - 1 : -1])):
        loaded = [dataset.load(image.sample) for image in chosen]
        predictions = predict_ids(predict_batch, (photo for photo, _ in loaded), image_size=image_size)
        rows = []
        for image, (photo, truth), prediction in zip(chosen, loaded, predictions, strict=True):
            scores = image.scores
            caption = f"{image.sample.photo.name}: mean IoU {scores['iou']:.3f}, accuracy {scores['accuracy']:.3f}"
            rows.append((caption, photo, truth, prediction))
        title = f"The {name} {len(rows)} of {len(ranked)} photos of {split}, by mean IoU"
        save_ranked(rows, dataset.palette, output / f"{name}.png", title=title)
    save_reliability(evaluation.bins, evaluation.scores["calibration_error"], output / "reliability.png")
