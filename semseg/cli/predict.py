"""`python -m semseg predict`: masks, overlays and shares of classes for photos, videos and cameras."""

import argparse
import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from semseg.backend.launchers import place_among
from semseg.cli.console import MAX_NAMED, Progress, percent, say_about, say_unlike, size_text, view_text
from semseg.cli.runtimes import open_network
from semseg.errors import DataError, RunFolderError, SemsegError
from semseg.files import check_output, replacing
from semseg.images.addresses import checked_address, is_address
from semseg.images.mirrors import present
from semseg.inference.answers import Answers, finish, wanted_answers
from semseg.inference.card import ModelCard
from semseg.inference.files import KINDS, Result, mask_values, predict_files
from semseg.inference.listing import Photos, Shard, join_bands, photos_of
from semseg.inference.object_files import SUFFIXES as POLYGON_SUFFIXES
from semseg.inference.predictions import (
    FRAME_COLUMNS,
    PHOTO_COLUMNS,
    RUNTIME,
    SHARES_FILE,
    UNLIKE,
    UNSURE,
    Jobs,
    SharesTable,
    Work,
    begin_shard,
    end_shard,
    gather,
    read_settings,
    table_of,
    take_folder,
    unfinished_shards,
)
from semseg.inference.segmenter import Segmenter, with_views
from semseg.inference.sending import Place, place_of
from semseg.inference.video import SUFFIXES, Frame, Video, predict_video
from semseg.labels.palettes import Palette
from semseg.runs.calibration import AS_LEARNT


class Opened(NamedTuple):
    """A model, and the photos or frames that it is to see."""

    photos: Photos | None
    video: Video | None
    card: ModelCard
    segmenter: Segmenter


def open_all(arguments: argparse.Namespace, folder: Path | None = None) -> Opened:
    """Finds the photos, and loads the network; in the runtime by which a folder was begun, where any will do."""
    photos, video = photos_and_video(arguments)
    card, runtime = ModelCard.read(arguments.model), arguments.runtime
    if runtime == "auto" and folder and (begun := read_settings(folder)):
        runtime = begun.get(RUNTIME)
    card, segmenter = open_network(card, runtime, arguments.image_size, arguments.batch_size)
    return Opened(photos, video, card, segmenter)


def run(arguments: argparse.Namespace, opened: Opened | None = None) -> None:
    """Predicts what the flags name, and writes it to the output folder.

    Args:
        arguments: Of the command.
        opened: From `open_all`, for another part of the same photos; None to open them here.
    """
    check_flags(arguments)
    shard = _shard(arguments)
    with closing(place_of(arguments.output, shard)) as place:
        check_output(place.folder)
        _predict(arguments, opened or open_all(arguments, place.folder), shard, place)


def _predict(arguments: argparse.Namespace, opened: Opened, shard: Shard | None, place: Place) -> None:
    (photos, video, card, segmenter), output = opened, place.folder
    segmenter = _deciding(segmenter, card.path, arguments)
    if arguments.show:
        segmenter = replace(segmenter, bands=segmenter.bands.showing(arguments.show))
    if arguments.tile and segmenter.scale is not None:
        raise SemsegError(f"`tile`: {card.path} learned crops, and sees photos in tiles of its own; leave it out")
    if video and not segmenter.bands.are_rgb:
        raise SemsegError(f"{video.source}: videos are 8-bit RGB; {card.path} was trained on {segmenter.bands}")
    palette, seen = segmenter.palette, view_text(segmenter.image_size, segmenter.scale)
    answers = _answers(arguments, palette.names)
    kinds = [*_kinds(arguments, palette), *(answers.kinds if answers else [])]
    settings = {**_settings(arguments, card, segmenter, kinds), **_settings_of_answers(arguments)}
    members = f" ({len(card.members)} networks, their mean)" if card.members else ""
    say_about("model", f"{card.path}{members}: {palette.num_classes} classes, sees photos {seen}, on {card.device()}")
    if segmenter.calibration != AS_LEARNT:
        say_about("certainty", str(segmenter.calibration))
    segmenter = with_views(segmenter, arguments.flips, arguments.scales)
    if photos is None:
        with take_folder(output, settings):
            _predict_frames(segmenter, video, output, kinds, answers, arguments)
        return
    with take_folder(output, settings, shard):
        place.claim()
        skipped = _predict_photos(segmenter, photos, place, kinds, answers, shard, arguments)
        place.send_tables(ends=True)
    if shard:
        place.bring_tables()
        _merge(segmenter, photos, place, kinds, answers, shard, arguments)
    if skipped:
        raise DataError(f"{arguments.what}: {skipped}; replace or remove them and run the same command again")


def _shard(arguments: argparse.Namespace) -> Shard | None:
    """The part of the photos that is asked for."""
    if arguments.shard is None:
        return None
    if arguments.shard == "auto":
        number, count = place_among()
        return Shard(number + 1, count)
    return Shard.parse(arguments.shard)


def check_flags(arguments: argparse.Namespace) -> None:
    """Refuses values that make no sense, before anything takes time."""
    for name in ("batch_size", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise SemsegError(f"`{name}`: got {value}; expected a whole number of at least 1")
    if arguments.runtime == "auto" and (arguments.shard is not None or getattr(arguments, "ray", None) is not None):
        raise SemsegError("`runtime`: got auto, which may choose otherwise for each part; name one, such as openvino")
    for name in ("threshold", "unsure"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < 1:
            raise SemsegError(f"`{name}`: got {value}; expected a probability between 0 and 1, such as 0.8")
    if arguments.tile and min(arguments.tile) < 1:
        raise SemsegError(f"`tile`: got {size_text(arguments.tile)}; expected sides of at least 1 pixel")


def _deciding(segmenter: Segmenter, path: Path, arguments: argparse.Namespace) -> Segmenter:
    """The network with the threshold that is asked for."""
    asked = next((name for name in ("threshold", "unsure", "certainty") if getattr(arguments, name)), None)
    if asked and segmenter.gives_ids:
        raise SemsegError(f"`{asked}`: {path} gives classes, and not how sure it is; export it with logits")
    threshold, classes = arguments.threshold, segmenter.palette.num_classes
    if threshold is None:
        return segmenter
    if classes > 2:
        raise SemsegError(f"`threshold`: is for two classes, and {path} tells {classes} apart; leave it out")
    return replace(segmenter, calibration=replace(segmenter.calibration, threshold=threshold))


def photos_and_video(arguments: argparse.Namespace) -> tuple[Photos | None, Video | None]:
    """What is named: photos, or a video or camera."""
    what = arguments.what
    path = Path(what)
    if is_address(what):
        if path.suffix.lower() in SUFFIXES:
            raise SemsegError(f"{what}: videos are read from a disk, and not from an address; copy it")
        return photos_of(what, arguments.output, KINDS), None
    camera = what.isdecimal() and not path.exists()
    if not camera and (path.suffix.lower() not in SUFFIXES or glob.has_magic(what) or path.is_dir()):
        return photos_of(what, arguments.output, KINDS), None
    for name in ("shard", "ray"):
        if getattr(arguments, name, None) is not None:
            raise SemsegError(f"`{name}`: is for photos, and {what} is a video or a camera; leave it out")
    if is_address(arguments.output):
        raise SemsegError("`output`: the frames of a video are written to a folder, and not to an address")
    if arguments.tile:
        raise SemsegError("`tile`: the frames of a video are seen whole; leave it out")
    return None, Video(int(what) if camera else path)


def _kinds(arguments: argparse.Namespace, palette: Palette) -> list[str]:
    """The kinds of files that are wanted."""
    if arguments.values:
        mask_values(palette)
    wanted = {
        "masks": True,
        "values": arguments.values,
        "colors": arguments.colors,
        "overlays": not arguments.no_overlays,
        "probabilities": arguments.probabilities,
        "certainty": arguments.certainty,
    }
    return [kind for kind, asked in wanted.items() if asked]


_OF_OBJECTS = ("polygons", "tolerance", "objects", "min_area", "fill_holes", "watershed")


def _answers(arguments: argparse.Namespace, names: Sequence[str]) -> Answers | None:
    """What is asked of the objects in masks."""
    return wanted_answers(names, **{name: getattr(arguments, name) for name in _OF_OBJECTS})


def _settings_of_answers(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(arguments, name) for name in _OF_OBJECTS}
    return {name: value for name, value in given.items() if value}


def _settings(arguments: argparse.Namespace, card: ModelCard, segmenter: Segmenter, kinds: list[str]) -> dict[str, Any]:
    """All that the files depend on."""
    return {
        "model": card.digest,
        RUNTIME: card.runtime,
        "classes": segmenter.palette.to_dict()["classes"],
        "what": _what(arguments.what),
        "image_size": list(segmenter.image_size),
        "tile": arguments.tile and list(arguments.tile),
        **({} if segmenter.scale is None else {"scale": segmenter.scale}),
        **({} if segmenter.calibration == AS_LEARNT else {"calibration": segmenter.calibration.to_dict()}),
        "flips": arguments.flips,
        "scales": arguments.scales,
        **({} if arguments.unsure is None else {"unsure": arguments.unsure}),
        **({"unlike": True} if segmenter.learnt else {}),
        "files": kinds,
        **({"show": arguments.show} if arguments.show else {}),
    }


def _what(what: str) -> str:
    if is_address(what):
        return checked_address(what)
    return what if what.isdecimal() else str(Path(what).absolute())


# --------------------------------------------------------------------------------------------------------- photos


def _predict_photos(
    segmenter: Segmenter, photos: Photos, place: Place, kinds: list[str], answers: Answers | None,
    shard: Shard | None, arguments: argparse.Namespace,
) -> str | int:  # fmt: skip
    """Predicts; says what could not be used, if anything."""
    photos, output = join_bands(photos, segmenter.bands), place.folder
    jobs = Jobs(photos.stem_of, output, kinds, arguments.polygons)
    of_part = f", of which this is part {shard}" if shard else ""
    say_about("photos", f"{len(photos)} in {arguments.what}{of_part}")
    with closing(_table(segmenter, output, shard, arguments)) as table:
        start = time.monotonic()
        work = Work(photos, jobs, table, shard, arguments.polygons, place.has)
        _predict_jobs(segmenter, work, table, answers, place, arguments)
        seconds = time.monotonic() - start
        for topic, note in work.notes():
            say_about(topic, note)
        table.finish(name for name, _ in photos.in_order() if not shard or shard.holds(name))
        _say_table(segmenter, table, arguments)
        speed = f", {work.predicted / seconds:.1f} photos per second" if work.predicted else ""
        written = [f"{kind}{os.sep}" for kind in kinds if (output / kind).exists()]
        written += _finish_answers(photos, jobs, table, answers, output) if not shard else []
    if shard:
        end_shard(output, shard)
    name = table_of(shard, finished=True) if shard else SHARES_FILE
    say_about("wrote", f"in {place.name}{os.sep}: {', '.join([*written, name])}{speed}")
    return work.skipped and f"{work.skipped} of {work.number} photos cannot be used and were skipped"


def _table(segmenter: Segmenter, output: Path, shard: Shard | None, arguments: argparse.Namespace) -> SharesTable:
    columns = (*PHOTO_COLUMNS, *_more_columns(segmenter, arguments))
    if shard is None:
        gather(output)
        return SharesTable(output / SHARES_FILE, columns, segmenter.palette.names)
    table = begin_shard(output, shard)
    return SharesTable(table, columns, segmenter.palette.names, earlier=output / SHARES_FILE)


def _more_columns(segmenter: Segmenter, arguments: argparse.Namespace) -> list[str]:
    return [*([UNSURE] if arguments.unsure else []), *([UNLIKE] if segmenter.learnt else [])]


def _merge(
    segmenter: Segmenter, photos: Photos, place: Place, kinds: list[str], answers: Answers | None, shard: Shard,
    arguments: argparse.Namespace,
) -> None:  # fmt: skip
    """Makes one table of those of all parts, where nobody else does."""
    output = place.folder
    missing = unfinished_shards(output, shard.count)
    if missing:
        say_about("parts", f"{len(missing)} of {shard.count} are not finished; whoever finishes last merges the tables")
        return
    try:
        with take_folder(output, {}, merges=True):
            if unfinished_shards(output, shard.count):
                return
            photos = join_bands(photos, segmenter.bands)
            with closing(_table(segmenter, output, None, arguments)) as table:
                table.finish(name for name, _ in photos.in_order())
                jobs = Jobs(photos.stem_of, output, kinds, arguments.polygons)
                written = [SHARES_FILE, *_finish_answers(photos, jobs, table, answers, output)]
                place.send_tables(ends=True)
                say_about("merged", f"all {shard.count} parts into {', '.join(written)}")
                _say_table(segmenter, table, arguments)
    except RunFolderError:
        say_about("parts", "another process merges the tables")


def _say_table(segmenter: Segmenter, table: SharesTable, arguments: argparse.Namespace) -> None:
    if len(table):
        ranked = sorted(zip(table.total_shares(), segmenter.palette.names, strict=True), reverse=True)
        say_about("shares", ", ".join(f"{name} {percent(share)}" for share, name in ranked if share))
        if arguments.unsure:
            say_about("unsure", _unsure_text(table.total_unsure(), arguments.unsure))
    say_unlike(table.unlike, len(table), table.num_unlike)


def _finish_answers(
    photos: Photos, jobs: Jobs, table: SharesTable, answers: Answers | None, output: Path
) -> list[str]:  # fmt: skip
    if not answers:
        return []

    def parts() -> Iterator[tuple[str, dict[str, Path]]]:
        for name, _ in photos.in_order():
            if name in table:
                files = jobs.files_of(name)
                with present(*(files[kind] for kind in answers.kinds if kind in files)):
                    yield name, files

    return finish(parts, answers, output)


def _predict_jobs(
    segmenter: Segmenter, work: Work, table: SharesTable, answers: Answers | None, place: Place,
    arguments: argparse.Namespace,
) -> None:  # fmt: skip
    start = time.monotonic()
    results = predict_files(
        segmenter, work, tile=arguments.tile, workers=arguments.workers, unsure=arguments.unsure or 0, answers=answers
    )
    try:
        with Progress("predicting") as progress, closing(results):
            for job, result in place.as_done(results):
                try:
                    cells = work.cells_of(job, result)
                    _note(cells, result, table, progress, asked=arguments.tile or segmenter.tile)
                except DataError as error:
                    work.skipped += 1
                    progress.clear()
                    say_about("skipped", str(error))
                speed = work.predicted / (time.monotonic() - start)
                progress.show(work.number, max(work.number, work.expected), f"{speed:.1f} photos per second")
    except KeyboardInterrupt:
        say_about("stopped", "the same command goes on from here")
        raise
    if work.done:
        say_about("", f"{work.done} of them are done")


def _note(
    cells: dict[str, Any], result: Result, table: SharesTable, progress: Progress, *, asked: tuple[int, int] | None
) -> None:
    table.add(cells, result.counts, result.unsure)
    if result.tile and not asked:
        progress.clear()
        say_about("tiles", f"{cells['photo']}: {size_text(result.size)} pixels, too many to be seen whole; seen in "
                  f"tiles of {size_text(result.tile)} (--tile)")  # fmt: skip


# --------------------------------------------------------------------------------------------------------- videos


def _predict_frames(
    segmenter: Segmenter, video: Video, output: Path, kinds: list[str], answers: Answers | None,
    arguments: argparse.Namespace,
) -> None:  # fmt: skip
    source = video.source
    shares, name = output / SHARES_FILE, f"camera {source}" if video.live else source.stem
    if shares.exists() and video.live:
        raise RunFolderError(f"{output}: holds what a camera showed before; choose another `output`")
    if shares.exists():
        say_about("video", f"{source}: is done, see {output}{os.sep}")
        return

    suffixes = {**KINDS, "polygons": POLYGON_SUFFIXES[answers.polygons] if answers and answers.polygons else ""}

    def files(number: int) -> dict[str, Path]:
        return {kind: output / kind / name / f"{number:06}{suffixes[kind]}" for kind in kinds if kind != "overlays"}

    say_about("video", f"{source}: {video.rate:g} frames per second" + (", until Ctrl-C" if video.live else ""))
    film = output / "overlays" / f"{name}.mp4" if "overlays" in kinds else None
    segmenter = replace(segmenter, batch_size=1) if video.live else segmenter
    frames = predict_video(
        segmenter, video, files=files, overlays=film, workers=arguments.workers, unsure=arguments.unsure or 0,
        answers=answers,
    )  # fmt: skip
    start = time.monotonic()

    def finish_frames(count: int) -> None:
        if answers:
            finish(lambda: ((str(number), files(number)) for number in range(count)), answers, output, first="frame")

    columns = (*FRAME_COLUMNS, *_more_columns(segmenter, arguments))
    count, unsure, unlike = _write_frames(frames, video, shares, columns, segmenter.palette.names, finish_frames)
    if arguments.unsure:
        say_about("unsure", _unsure_text(unsure, arguments.unsure))
    say_unlike(unlike.named, count, unlike.count, what="frames")
    if count < video.frames:
        say_about("note", f"{source}: {video.frames} frames announced, {count} could be read")
    say_about("wrote", f"in {output}{os.sep}: {count} frames, {', '.join(f'{kind}{os.sep}' for kind in kinds)}, "
              f"{SHARES_FILE}, {count / (time.monotonic() - start):.1f} frames per second")  # fmt: skip


class _Unlike:
    """Frames that are unlike the photos learnt from: how many, and of the first few what is unlike in them."""

    def __init__(self) -> None:
        self.count, self.named = 0, dict[str, str]()

    def note(self, frame: Frame) -> str:
        text = "; ".join(frame.unlike)
        self.count += bool(text)
        if text and len(self.named) < MAX_NAMED:
            self.named[f"frame {frame.number}"] = text
        return text


def _write_frames(
    frames: Iterator[Frame], video: Video, shares: Path, columns: Sequence[str], class_names: Sequence[str],
    finish_frames: Callable[[int], Any],
) -> tuple[int, float, _Unlike]:  # fmt: skip
    """Writes the table, which is there when all else is; counts frames, unlike ones, and the share without a class."""
    count, start, unsure, pixels, unlike = 0, time.monotonic(), 0, 0, _Unlike()
    ended_by_hand = (KeyboardInterrupt,) if video.live else ()
    with replacing(shares) as unfinished:
        with (
            closing(SharesTable(unfinished, columns, class_names)) as table,
            suppress(*ended_by_hand),
            Progress("predicting") as progress,
            closing(frames),
        ):
            for frame in frames:
                seconds = time.monotonic() - start
                when = seconds if video.live else frame.number / video.rate
                cells = {"frame": frame.number, "seconds": f"{when:.3f}", UNLIKE: unlike.note(frame)}
                table.add(cells, frame.counts, frame.unsure)
                count, unsure = count + 1, unsure + frame.unsure
                pixels += int(frame.counts.sum()) + frame.unsure
                progress.show(count, max(count, video.frames), f"{count / seconds:.1f} frames per second")
        finish_frames(count)
    return count, unsure / max(1, pixels), unlike


def _unsure_text(share: float, probability: float) -> str:
    return f"{percent(share)} of the pixels have no class in masks (255): their probability is below {probability:g}"
