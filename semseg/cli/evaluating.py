"""`python -m semseg evaluate`: how good a trained network is, on the data of its run or on others."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from semseg import __version__
from semseg.cli.console import say, say_about, size_text
from semseg.cli.judging import CITYSCAPES_FILE, JUDGED_FILES, judge, say_scores, split_note
from semseg.cli.opening import choose_backend, final_split, look_at_data, open_data, open_model, say_what_was_found
from semseg.cli.output import check_output
from semseg.config import RunConfig
from semseg.errors import ModelFileError, SemsegError
from semseg.files import archive

if TYPE_CHECKING:  # rooms that load Keras or OpenCV are imported where a command needs them
    import keras

    from semseg.data.base import Dataset
    from semseg.evaluate import Evaluation
    from semseg.predict import PredictBatch

EVALUATION_FILES = (*JUDGED_FILES, CITYSCAPES_FILE, "worst.png", "best.png", "reliability.png")
SHOWN = 6
_FROM_RUN = ("split_seed", "image_size", "batch_size")  # what a run's config.json says of other data, too


def evaluate(arguments: argparse.Namespace) -> None:
    """Judges a model as the flags say, and writes tables and pictures beside it."""
    choose_backend(arguments.backend)
    path, model = open_model(Path(arguments.model))
    config, of_run = _configuration(path.parent, arguments)
    output = Path(arguments.output or path.parent / "evaluation")
    check_output(output)
    image_size = _image_size(path, model, arguments.image_size)

    from semseg.distribute import device_name
    from semseg.predict import predictor, with_flips

    predict_batch = predictor(model, config.batch_size)
    if arguments.flips:
        predict_batch = with_flips(predict_batch, arguments.flips)
    dataset = open_data(replace(config, image_size=image_size))
    _check_classes(path, model, dataset)
    split = _split(config, dataset, of_run)
    findings, _ = look_at_data(replace(config, image_size=image_size), dataset)
    findings.refuse(f"python -m semseg check {config.data}")
    say(f"semseg {__version__}: {path} on {device_name()}")
    say_what_was_found(dataset, findings)

    output.mkdir(parents=True, exist_ok=True)
    archived = archive(output, EVALUATION_FILES)
    if archived:
        say_about("earlier", f"moved the files of the evaluation before to {archived}")
    note = split_note(split) if of_run else "not the data that it was trained on"
    facts = {"model": str(path), "data": config.data, "note": note, "flips": arguments.flips}
    evaluation = judge(
        predict_batch, dataset, split, output, image_size=image_size, batch_size=config.batch_size, facts=facts
    )
    _draw(output, dataset, split, predict_batch, evaluation, image_size)
    seen = f"seen at {size_text(image_size)}" + (", with flips" if arguments.flips else "")
    say_scores(evaluation, dataset.palette.names, f"Scores on {split} ({note}), {seen}, at the masks' own size:")
    written = sorted(name for name in EVALUATION_FILES if (output / name).exists())
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")


def _configuration(folder: Path, arguments: argparse.Namespace) -> tuple[RunConfig, bool]:
    """How to open the data, and whether they are those of the model's run.

    The run's own data are opened as the run did. Its classes.json says what the masks of other data mean, too: the ids
    must be those that the network learnt.
    """
    run = RunConfig.read(folder / "config.json") if (folder / "config.json").is_file() else None
    if arguments.data is None and run is None:
        raise SemsegError(f"--data: {folder} holds no config.json that says on which data; give a folder")
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in RunConfig.__dataclass_fields__ and name not in ("model", "image_size", "output")
        if value is not None and value is not False
    }
    of_run = run is not None and (arguments.data is None or _same_place(arguments.data, run.data))
    base = {name: getattr(run, name) for name in _FROM_RUN} if run else {}
    config = replace(run if of_run else RunConfig(**base), **given)
    classes = folder / "classes.json"
    if classes.is_file() and not (arguments.classes or arguments.categories):
        config = replace(config, classes=str(classes), categories=False)
    return config, of_run


def _same_place(one: str, other: str) -> bool:
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))


def _image_size(path: Path, model: "keras.Model", wanted: tuple[int, int] | None) -> tuple[int, int]:
    """What the network sees: the size it was built for; by flag only where it takes any."""
    built = model.input_shape[1:3]
    if None not in built:
        if wanted not in (None, built):
            raise SemsegError(f"--image-size: {path} was built for {size_text(built)} pixels, and takes nothing else")
        return built
    if wanted is None:
        raise SemsegError(f"--image-size: {path} takes photos of any size; say at which size it should see them")
    return wanted


def _check_classes(path: Path, model: "keras.Model", dataset: "Dataset") -> None:
    logits = model.output_shape[-1]
    if logits != dataset.num_logits:
        names = ", ".join(dataset.palette.names[:12]) + (" ..." if dataset.palette.num_classes > 12 else "")
        raise ModelFileError(
            f"{path}: tells {max(2, logits)} classes apart, and the masks of {dataset.root} hold "
            f"{dataset.palette.num_classes} ({names}); evaluate it on data with the classes that it was trained on"
        )


def _split(config: RunConfig, dataset: "Dataset", of_run: bool) -> str:
    """Other data without splits are judged whole: none of their photos has been seen."""
    if config.test_split is None and dataset.drawn and not of_run:
        return "all"
    return final_split(config, dataset)


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
