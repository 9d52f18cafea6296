"""`python -m semseg evaluate`: how good a trained network is, on the data of its run or on others."""

import argparse
import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import IGNORE, __version__
from semseg.cli.console import percent, say, say_about, size_text
from semseg.cli.judging import CITYSCAPES_FILE, JUDGED_FILES, judge, say_scores
from semseg.cli.opening import choose_backend, look_at_data, open_data, open_model, say_what_was_found, seen_size
from semseg.cli.output import check_output
from semseg.cli.splits import NEW, SPLITS_FILE, Known, read_splits, restore_splits, split_note
from semseg.config import RunConfig
from semseg.errors import DataError, ModelFileError, RunFolderError, SemsegError
from semseg.files import archive

if TYPE_CHECKING:  # rooms that load Keras or OpenCV are imported where a command needs them
    import keras

    from semseg.data.base import Dataset
    from semseg.data.check import Findings
    from semseg.evaluate import Evaluation
    from semseg.palettes import Palette
    from semseg.predict import PredictBatch

EVALUATION_FILES = (*JUDGED_FILES, CITYSCAPES_FILE, "worst.png", "best.png", "reliability.png")
SHOWN = 6
_FROM_RUN = ("split_seed", "image_size", "batch_size")  # what a run's config.json says of other data, too
_MORE_IGNORED = 0.3  # of the pixels, beyond the share that the run ignored


@dataclass(frozen=True)
class _Run:
    """What lies beside a model.

    Attributes:
        folder: Where that is.
        config: What the run was asked to do; None for a model alone.
        known: The split of each of its photos.
    """

    folder: Path
    config: RunConfig | None
    known: Known

    @classmethod
    def beside(cls, path: Path) -> "_Run":
        folder = path.parent
        config = RunConfig.read(folder / "config.json") if (folder / "config.json").is_file() else None
        return cls(folder, config, read_splits(folder / SPLITS_FILE))

    @property
    def classes(self) -> Path | None:
        path = self.folder / "classes.json"
        return path if path.is_file() else None


def evaluate(arguments: argparse.Namespace) -> None:
    """Judges a model as the flags say, and writes tables and pictures beside it."""
    choose_backend(arguments.backend)
    path, model = open_model(Path(arguments.model))
    output = Path(arguments.output or path.parent / "evaluation")
    if (output / "config.json").exists():
        raise RunFolderError(f"{output}: holds a run, whose files would be replaced; choose another --output")
    check_output(output)
    run = _Run.beside(path)
    config = replace(_configuration(run, arguments), image_size=seen_size(path, model, arguments.image_size))
    dataset = _open(config, run, by_run=not arguments.classes)
    _check_classes(path, model, dataset)
    split, note = _split(config, dataset, run)
    findings, _ = look_at_data(config, dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    _check_ignored(path, findings, dataset)
    facts = {"model": str(path), "data": config.data, "note": note, "flips": arguments.flips}
    _judge(model, config, dataset, findings, output, split, facts)


def _judge(
    model: "keras.Model",
    config: RunConfig,
    dataset: "Dataset",
    findings: "Findings",
    output: Path,
    split: str,
    facts: dict[str, str | None],
) -> None:
    from semseg.distribute import device_name
    from semseg.predict import Segmenter, predictor, with_flips

    predict_batch, flips = predictor(model, config.batch_size), facts["flips"]
    if flips:
        predict_batch = with_flips(predict_batch, flips)
    say(f"semseg {__version__}: {facts['model']} on {device_name()}")
    say_what_was_found(dataset, findings)
    output.mkdir(parents=True, exist_ok=True)
    archived = archive(output, EVALUATION_FILES)
    if archived:
        say_about("earlier", f"moved the files of the evaluation before to {archived}")
    segmenter = Segmenter(predict_batch, config.image_size, dataset.palette)
    evaluation = judge(segmenter, dataset, split, output, batch_size=config.batch_size, facts=facts)
    _draw(output, dataset, split, predict_batch, evaluation, config.image_size)
    seen = f"seen at {size_text(config.image_size)}" + (", with flips" if flips else "")
    headline = f"Scores on {split} ({facts['note']}), {seen}, at the masks' own size:"
    say_scores(evaluation, dataset.palette.names, headline)
    written = sorted(name for name in EVALUATION_FILES if (output / name).exists())
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")


def _configuration(run: _Run, arguments: argparse.Namespace) -> RunConfig:
    """How to open the data: the run's own as the run did; others with what the flags say.

    The run's classes.json says what the masks of other data mean, too: the ids must be those that the network learnt.
    """
    if arguments.data is None and run.config is None:
        raise SemsegError(f"--data: {run.folder} holds no config.json that says on which data; give a folder")
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in RunConfig.__dataclass_fields__ and name not in ("model", "image_size", "output")
        if value is not None and value is not False
    }
    if run.config is not None and (arguments.data is None or _same_place(arguments.data, run.config.data)):
        config = replace(run.config, **given)
    else:
        base = {name: getattr(run.config, name) for name in _FROM_RUN} if run.config else {}
        config = RunConfig(**{**base, **given})
    if run.classes and not (arguments.classes or arguments.categories):
        config = replace(config, classes=str(run.classes), categories=False)
    return config


def _same_place(one: str, other: str) -> bool:
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))


def _open(config: RunConfig, run: _Run, by_run: bool) -> "Dataset":
    """The data, with the splits that the run drew where they have none of their own.

    Other data without splits stay whole: none of their photos chose anything. `by_run`: the run's classes.json was not
    asked for, so it must fit what the masks seem to mean.
    """
    of_run = run.config is not None and _same_place(config.data, run.config.data)
    dataset = open_data(config, whole=bool(run.known) or not of_run)
    if run.known and "val" not in dataset.splits:
        everything = open_data(replace(config, limit=None), whole=True) if config.limit else dataset
        dataset = everything if restore_splits(everything, run.known) else dataset
    found_by_run = run.config is not None and not isinstance(run.config.classes, str)
    if by_run and found_by_run and run.classes and config.classes == str(run.classes):
        own = replace(config, classes=run.config.classes, categories=run.config.categories)
        with suppress(DataError):  # of which the check will tell
            _check_meaning(dataset, open_data(own, whole=True).palette, run)
    return dataset


def _check_meaning(dataset: "Dataset", own: "Palette", run: _Run) -> None:
    """Refuses masks whose numbers mean one thing to the model and another as they are found without it.

    That is so where a number is a class here and none there, or where both know two names and swap them. Names that
    only one of them knows say nothing.
    """
    learnt, found = _meanings(dataset.palette), _meanings(own)
    for value in sorted(learnt.keys() & found.keys()):
        here, there = learnt[value], found[value]
        if here == there or not (None in (here, there) or (here in own.names and there in dataset.palette.names)):
            continue
        raise ModelFileError(
            f"{dataset.root}: {value} in its masks seems to be {there or 'no class'}, and is {here or 'no class'} to "
            f"the model; use masks with the numbers that it was trained on, or, if they are, give --classes "
            f"{run.classes}"
        )


def _meanings(palette: "Palette") -> dict[int, str | None]:
    """The class of each number in masks, None for what is no class."""
    numbered = [label for label in palette.labels if label.value is not None]
    return {label.value: None if label.id == IGNORE else palette.names[label.id] for label in numbered}


def _check_classes(path: Path, model: "keras.Model", dataset: "Dataset") -> None:
    learnt, there = max(2, model.output_shape[-1]), dataset.palette.num_classes
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


def _split(config: RunConfig, dataset: "Dataset", run: _Run) -> tuple[str, str]:
    """The split to judge, and what its photos have to do with the model; photos that are new otherwise stay out."""
    from semseg.evaluate import ALL, samples_of

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
    from semseg.predict import predict_ids
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
