"""`python -m semseg suggest`: which photos to label next, and which labels to look at again."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg.cli.console import Progress, percent, say_about
from semseg.data.splits import samples_of
from semseg.errors import DataError, SemsegError
from semseg.evaluation.opening import own_data
from semseg.files import archive, check_output, write_csv
from semseg.images.reading import read_photo
from semseg.images.resizing import enough_for, resize_photo, size_within
from semseg.inference.answers import Answers, finish, wanted_answers
from semseg.inference.card import ModelCard
from semseg.inference.ensemble import mean_of_networks
from semseg.inference.files import KINDS, Job, predict_files
from semseg.inference.listing import Photos, join_bands, photos_of
from semseg.inference.predictions import jobs_of
from semseg.inference.segmenter import Segmenter
from semseg.labelling.doubts import Doubt, HeldOut, find_doubts, show
from semseg.labelling.suggesting import Answer, answers_to, choose
from semseg.report import save_doubtful, save_suggestions
from semseg.runs import names
from semseg.runs.lock import one_writer
from semseg.runs.members import are_folds

_DRAWN = 256  # pixels of a drawn photo's longer side


def run(arguments: argparse.Namespace) -> None:
    """Suggests what the flags ask for, and writes table, picture and pre-labels to the output folder."""
    if bool(arguments.what) == arguments.labels:
        raise SemsegError("suggest: give either photos, to hear which to label next, or --labels, to hear which of the "
                          "run's labels to look at again")  # fmt: skip
    if arguments.count < 1:
        raise SemsegError(f"`count`: got {arguments.count}; expected at least 1")
    output = Path(arguments.output)
    check_output(output)
    card = ModelCard.read(arguments.model)
    with one_writer(output):
        (_look_at_labels if arguments.labels else _suggest_photos)(card, output, arguments)


def _make_room(output: Path, files: Sequence[str]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if archived := archive(output, files):
        say_about("earlier", f"moved the suggestions of before to {archived}")


# ------------------------------------------------------------------------------------------------- photos to label


def _suggest_photos(card: ModelCard, output: Path, arguments: argparse.Namespace) -> None:
    photos = _unlabelled(photos_of(arguments.what, output, KINDS), card)
    segmenters = [one.load(image_size=arguments.image_size) for one in card.members or (card,)]
    whole = replace(segmenters[0], predict_batch=mean_of_networks([one.predict_batch for one in segmenters]))
    answers = wanted_answers(whole.palette.names, polygons=arguments.polygons)
    sources = dict(join_bands(photos, whole.bands).in_order())
    found = _answers(segmenters, sources)
    if not found:
        raise DataError(f"{arguments.what}: none of its photos can be read")
    scores = [score for _, score, _ in found]
    chosen = [found[place] for place in choose(scores, np.stack([one for *_, one in found]), arguments.count)]
    _make_room(output, [names.SUGGESTIONS, names.SUGGESTIONS_PICTURE, *(f"{kind}/**/*" for kind in KINDS)])
    kinds = ["masks", *(answers.kinds if answers else [])]
    jobs = jobs_of({name: sources[name] for name, *_ in chosen}, output, kinds, arguments.polygons)
    _write_pre_labels(whole, jobs, answers, output)
    _draw(segmenters, sources, chosen, output, total=len(found))
    order = np.argsort(-np.array(scores), kind="stable")
    rank = {found[place][0]: number for number, place in enumerate(order.tolist(), start=1)}
    rows = [
        {"rank": number, "photo": name, "uncertainty": round(score, 6), "uncertainty_rank": rank[name],
         "mask": jobs[name].files["masks"].relative_to(output).as_posix()}
        for number, (name, score, _) in enumerate(chosen, start=1)
    ]  # fmt: skip
    write_csv(output / names.SUGGESTIONS, rows)
    how = f"what {len(segmenters)} networks disagree by" if card.members else "the entropy of its answers"
    say_about("suggested", f"{len(chosen)} of {len(found)} photos, by {how} and by how unlike they are; first "
              f"{chosen[0][0]}")  # fmt: skip
    written = [names.SUGGESTIONS, names.SUGGESTIONS_PICTURE, *(f"{kind}{os.sep}" for kind in kinds)]
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")


def _unlabelled(photos: Photos, card: ModelCard) -> Photos:
    """The photos that were in none of the runs, which have labels."""
    runs = [member.run for member in card.members] or [card.run]
    known = {
        (Path(run.config.data) / name).resolve()
        for run in runs
        if run.config_or_none is not None
        for name, _ in run.splits
    }
    left = [path for _, (path,) in photos.in_order() if path.resolve() not in known]
    if len(left) < len(photos):
        say_about("photos", f"{len(photos) - len(left)} of {len(photos)} are left out: the run knows them with labels")
    if not left:
        raise DataError(f"all {len(photos)} photos have labels in the run; give others, or --labels to check these")
    return photos.only(left)


def _answers(
    segmenters: Sequence[Segmenter], sources: Mapping[str, tuple[Path, ...]]
) -> list[tuple[str, float, np.ndarray]]:
    """Name, uncertainty and features of each photo that can be read."""
    found = []
    with Progress("looking at photos") as progress:
        for number, (name, files) in enumerate(sources.items(), start=1):
            try:
                answer, _ = _answer(segmenters, files)
                found.append((name, answer.score, answer.features))
            except DataError as error:
                progress.clear()
                say_about("skipped", str(error))
            progress.show(number, len(sources))
    return found


def _answer(segmenters: Sequence[Segmenter], files: tuple[Path, ...]) -> tuple[Answer, np.ndarray]:
    """What the networks make of a photo, and the photo."""
    first = segmenters[0]
    enough = None if first.scale is not None else enough_for(first.image_size)
    photo = read_photo(files[0], enough, bands=first.bands, files=files if len(files) > 1 else ()).pixels
    return answers_to(segmenters, photo), photo


def _write_pre_labels(segmenter: Segmenter, jobs: Mapping[str, Job], answers: Answers | None, output: Path) -> None:
    with Progress("pre-labels") as progress, closing(predict_files(segmenter, jobs.values(), answers=answers)) as done:
        for number, (_, result) in enumerate(done, start=1):
            if isinstance(result, DataError):
                raise result
            progress.show(number, len(jobs))
    if answers:
        finish(lambda: ((name, job.files) for name, job in jobs.items()), answers, output)


def _draw(
    segmenters: Sequence[Segmenter],
    sources: Mapping[str, tuple[Path, ...]],
    chosen: Sequence[tuple[str, float, np.ndarray]],
    output: Path,
    total: int,
) -> None:
    """The contact sheet."""
    rows = []
    for number, (name, score, _) in enumerate(chosen, start=1):
        answer, photo = _answer(segmenters, sources[name])
        shown = resize_photo(segmenters[0].bands.view(photo), size_within(photo.shape[:2], _DRAWN))
        rows.append((f"{number}. {Path(name).name}: {score:.3f}", shown, *answer.at(shown.shape[:2])))
    title = f"The {len(rows)} of {total} photos to label next; after the name its uncertainty, 0 to 1"
    save_suggestions(rows, segmenters[0].palette, output / names.SUGGESTIONS_PICTURE, title=title)


# ------------------------------------------------------------------------------------------- labels to look at again


def _look_at_labels(card: ModelCard, output: Path, arguments: argparse.Namespace) -> None:
    if arguments.polygons:
        raise SemsegError("`polygons`: is for pre-labels of photos without labels; leave it out, or --labels")
    held_out = list(_held_out(card, arguments))
    with Progress("looking at labels") as progress:
        doubts, thresholds = find_doubts(held_out, progress.show)
    _make_room(output, [names.DOUBTFUL, names.DOUBTFUL_PICTURE])
    class_names = held_out[0].dataset.palette.names
    write_csv(output / names.DOUBTFUL, [_row(number, doubt, class_names) for number, doubt in enumerate(doubts, 1)])
    drawn = [doubt for doubt in doubts if doubt.share][: arguments.count]
    if drawn:
        rows = []
        for number, doubt in enumerate(drawn, start=1):
            one = show(doubt, thresholds)
            rows.append((f"{number}. {_words(doubt, class_names)}", one.photo, one.label, one.prediction, one.better))
        title = (
            f"Labels to look at again: the {len(rows)} of {len(doubts)} that agree least with a network that was not "
        )
        title += "trained on them"
        save_doubtful(rows, held_out[0].dataset.palette, output / names.DOUBTFUL_PICTURE, title=title)
    by = f"{len(held_out)} folds, each of the photos that it held out" if len(held_out) > 1 else "the run, of its val"
    say_about("labels", f"{len(doubts)} photos, judged by {by}; those to look at first:")
    for doubt in doubts[:5]:
        say_about("", _words(doubt, class_names))
    written = [name for name in (names.DOUBTFUL, names.DOUBTFUL_PICTURE) if (output / name).exists()]
    say_about("wrote", f"in {output}{os.sep}: {', '.join(written)}")


def _held_out(card: ModelCard, arguments: argparse.Namespace) -> Iterator[HeldOut]:
    """The labelled photos that no network learnt which judges them: each fold's, or the validation split's."""
    cards = card.members or (card,)
    if card.members and not are_folds([member.run for member in cards]):
        raise SemsegError(f"{card.path}: holds runs that are no folds of one another; give one of them, or folds")
    for one in cards:
        segmenter = one.load(image_size=arguments.image_size)
        dataset = own_data(one.run, segmenter.bands)
        if "val" not in dataset.splits:
            raise DataError(
                f"{dataset.root}: nothing tells which of its photos {one.path} did not learn; train it again"
            )
        yield HeldOut(segmenter, dataset, samples_of(dataset, "val"), one.run.folder.name)


def _row(number: int, doubt: Doubt, class_names: Sequence[str]) -> dict[str, Any]:
    agreement = None if np.isnan(doubt.agreement) else round(doubt.agreement, 6)
    return {
        "rank": number,
        "photo": doubt.photo,
        "agreement": agreement,
        "doubtful_share": round(doubt.share, 6),
        "labelled": "" if doubt.labelled is None else class_names[doubt.labelled],
        "suggested": "" if doubt.suggested is None else class_names[doubt.suggested],
        "judged_by": doubt.held_out.name,
    }


def _words(doubt: Doubt, class_names: Sequence[str]) -> str:
    what = f"agreement {doubt.agreement:.2f}, {percent(doubt.share)} doubtful"
    if doubt.labelled is None:
        return f"{doubt.photo}: {what}"
    return f"{doubt.photo}: {what}, most {class_names[doubt.labelled]} that may be {class_names[doubt.suggested]}"
