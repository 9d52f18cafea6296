"""`python -m semseg predict`: masks, overlays and shares of classes for photos, videos and cameras."""

import argparse
import csv
import glob
import hashlib
import io
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semseg.cli.console import Progress, percent, say_about, size_text, write_json
from semseg.cli.opening import choose_backend, open_segmenter
from semseg.cli.output import check_output
from semseg.errors import DataError, RunFolderError, SemsegError
from semseg.files import remove_older, replacing

if TYPE_CHECKING:  # rooms that load Keras or OpenCV are imported where a command needs them
    import numpy as np

    from semseg.inference.files import Job, Result
    from semseg.inference.segmenter import Segmenter
    from semseg.inference.video import Frame, Video
    from semseg.labels.palettes import Palette

SETTINGS_FILE, SHARES_FILE = "predictions.json", "shares.csv"
_UNFINISHED = 60  # seconds without a change, after which a file is nobody's work any more
_PHOTO_COLUMNS, _FRAME_COLUMNS = ("photo", "width", "height"), ("frame", "seconds")


def predict(arguments: argparse.Namespace) -> None:
    """Predicts what the flags name, and writes it to the output folder."""
    choose_backend(arguments.backend)
    from semseg.backend.devices import leave_tensorflow_out

    _check_flags(arguments)
    output = Path(arguments.output)
    source, frames = _video(arguments)
    photos = {} if frames else _photos(arguments.what, output)
    check_output(output)
    leave_tensorflow_out()
    path, segmenter = open_segmenter(
        Path(arguments.model), image_size=arguments.image_size, batch_size=arguments.batch_size
    )
    kinds = _kinds(arguments, segmenter.palette)
    settings = _settings(arguments, path, segmenter, kinds)
    say_about(
        "model", f"{path}: {segmenter.palette.num_classes} classes, sees {size_text(segmenter.image_size)} pixels"
    )
    segmenter = _with_views(segmenter, arguments)
    _go_on(output, settings)
    if frames:
        _predict_frames(segmenter, frames, source, output, kinds, workers=arguments.workers)
    else:
        _predict_photos(segmenter, photos, output, kinds, arguments)


def _video(arguments: argparse.Namespace) -> tuple[Path | int, "Video | None"]:
    """What is named, a path or a camera's number, and its frames if it has some."""
    from semseg.inference.video import SUFFIXES, Video

    what = arguments.what
    path = Path(what)
    camera = what.isdecimal() and not path.exists()
    if not camera and (path.suffix.lower() not in SUFFIXES or glob.has_magic(what) or path.is_dir()):
        return path, None
    if arguments.tile:
        raise SemsegError("--tile: the frames of a video are seen whole; leave it out")
    source = int(what) if camera else path
    return source, Video(source)


def _check_flags(arguments: argparse.Namespace) -> None:
    for name, least in (("batch_size", 1), ("workers", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise SemsegError(f"--{name.replace('_', '-')}: got {value}; expected a whole number of at least {least}")
    if arguments.tile and min(arguments.tile) < 1:
        raise SemsegError(f"--tile: got {size_text(arguments.tile)}; expected sides of at least 1 pixel")


def _photos(what: str, output: Path) -> dict[str, Path]:
    """The photos by the name that they go by: their path below the folder that was named.

    Raises:
        DataError: There are none.
    """
    from semseg.images.reading import list_images
    from semseg.inference.files import KINDS

    place = Path(what)
    if place.is_dir():
        root, found = place, list_images(place)
    elif glob.has_magic(what) and not place.exists():
        root = _fixed_part(place)
        found = [path for path in sorted(root.glob(str(place.relative_to(root)))) if path.is_file()]
    elif place.exists():
        return {place.name: place}
    else:
        raise DataError(f"{what}: no such file; give a photo, a folder, a pattern, a video or a camera's number")
    own = {(output / kind).resolve() for kind in KINDS}
    found = [path for path in found if own.isdisjoint(Path(os.path.realpath(path)).parents)]  # resolve() fails on loops
    if not found:
        raise DataError(f"{what}: holds no photos; give a photo, a folder, a pattern, a video or a camera's number")
    return {path.relative_to(root).as_posix(): path for path in found}


def _fixed_part(pattern: Path) -> Path:
    """The folder that all matches lie in."""
    parts = pattern.parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _kinds(arguments: argparse.Namespace, palette: "Palette") -> list[str]:
    """The kinds of files that are wanted."""
    from semseg.inference.files import mask_values

    if arguments.values:
        mask_values(palette)
    wanted = {
        "masks": True,
        "values": arguments.values,
        "colors": arguments.colors,
        "overlays": not arguments.no_overlays,
        "probabilities": arguments.probabilities,
    }
    return [kind for kind, asked in wanted.items() if asked]


def _with_views(segmenter: "Segmenter", arguments: argparse.Namespace) -> "Segmenter":
    """The network that also sees photos mirrored and at other scales, where that is asked for."""
    from semseg.inference.segmenter import with_flips
    from semseg.inference.tiling import with_scales

    predict_batch = segmenter.predict_batch
    if arguments.flips:
        predict_batch = with_flips(predict_batch, arguments.flips)
    if arguments.scales:
        predict_batch = with_scales(predict_batch, _scales(arguments.scales))
    return replace(segmenter, predict_batch=predict_batch)


def _scales(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise SemsegError(f"--scales: got {text!r}; expected factors such as 0.75,1,1.25") from None


def _settings(arguments: argparse.Namespace, path: Path, segmenter: "Segmenter", kinds: list[str]) -> dict[str, Any]:
    """All that the files depend on."""
    return {
        "model": _digest(path),
        "classes": segmenter.palette.to_dict()["classes"],
        "what": arguments.what if arguments.what.isdecimal() else str(Path(arguments.what).absolute()),
        "image_size": list(segmenter.image_size),
        "tile": arguments.tile and list(arguments.tile),
        "flips": arguments.flips,
        "scales": arguments.scales,
        "files": kinds,
    }


def _digest(path: Path) -> str:
    """SHA-256 of all that a model's file consists of."""
    from semseg.inference.exported import files_of

    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _go_on(output: Path, settings: dict[str, Any]) -> None:
    """Takes the folder: a new one, or one where the same command was stopped.

    Raises:
        RunFolderError: It holds something else.
    """
    from semseg.inference.files import KINDS

    file = output / SETTINGS_FILE
    if file.exists():
        before: Any = None
        with suppress(OSError, ValueError):
            before = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise RunFolderError(f"{file}: cannot be read; remove it, or choose another --output")
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            raise RunFolderError(
                f"{output}: holds predictions with another setting ({', '.join(other)}); choose another --output"
            )
        remove_older((path for kind in KINDS for path in (output / kind).rglob(".*.tmp*")), _UNFINISHED)
        return
    held = [name for name in (*KINDS, SHARES_FILE) if (output / name).exists()]
    if held:
        raise RunFolderError(f"{output}: holds {', '.join(held)} that no prediction wrote; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


class _Table:
    """shares.csv: a row for each photo or frame, added when all of its files are there."""

    def __init__(self, path: Path, columns: Sequence[str], names: Sequence[str]):
        self._path, self._header = path, [*columns, *names]
        self.rows = self._before()
        self._write()
        self._file = path.open("a", newline="", **_ANY_NAME)

    def _before(self) -> dict[str, list[str]]:
        """What an earlier call wrote, without a row that it did not finish."""
        if not self._path.exists():
            return {}
        text = self._path.read_text(**_ANY_NAME)
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
        return {row[0]: row for row in rows[1:] if len(row) == len(self._header)}

    def add(self, row: Sequence[Any], counts: "np.ndarray") -> None:
        """Adds a row of these first cells and the shares of the classes."""
        row = [*map(_any_name, row), *(f"{share:.6f}" for share in counts / counts.sum())]
        self.rows[row[0]] = row
        csv.writer(self._file).writerow(row)
        self._file.flush()

    def finish(self, order: Iterable[str]) -> None:
        """Puts the rows into order, and leaves out those of photos that are gone."""
        self._file.close()
        self.rows = {name: self.rows[name] for name in map(_any_name, order) if name in self.rows}
        self._write()

    def close(self) -> None:
        self._file.close()

    def _write(self) -> None:
        with replacing(self._path) as temporary, temporary.open("w", newline="", **_ANY_NAME) as file:
            csv.writer(file).writerows([self._header, *self.rows.values()])


_ANY_NAME = {"encoding": "utf-8", "errors": "backslashreplace"}  # the name of a file may be no text


def _any_name(cell: Any) -> str:
    return str(cell).encode(**_ANY_NAME).decode("utf-8")


# ------------------------------------------------------------------------------------------------------- photos


def _predict_photos(
    segmenter: "Segmenter", photos: dict[str, Path], output: Path, kinds: list[str], arguments: argparse.Namespace
) -> None:
    from semseg.backend.devices import device_name

    jobs = _jobs(photos, output, kinds)
    table = _Table(output / SHARES_FILE, _PHOTO_COLUMNS, segmenter.palette.names)
    waiting = {name: job for name, job in jobs.items() if not _is_done(_any_name(name), job, table)}
    say_about("photos", f"{len(photos)} in {arguments.what}, on {device_name()}")
    if len(waiting) < len(jobs):
        say_about("", f"{len(jobs) - len(waiting)} of them are done")
    with closing(table):
        skipped, seconds = _run(segmenter, waiting, table, arguments)
        table.finish(photos)
    done = len(waiting) - skipped
    if table.rows:
        say_about("shares", _shares_text(table, segmenter.palette))
    speed = f", {done / seconds:.1f} photos per second" if done else ""
    written = [f"{kind}{os.sep}" for kind in kinds if (output / kind).exists()]
    say_about("wrote", f"in {output}{os.sep}: {', '.join([*written, SHARES_FILE])}{speed}")
    if skipped:
        raise DataError(
            f"{arguments.what}: {skipped} of {len(photos)} photos cannot be used and were skipped; replace or remove "
            "them and run the same command again"
        )


def _jobs(photos: dict[str, Path], output: Path, kinds: list[str]) -> dict[str, "Job"]:
    """What to do for each photo; files go by its name without the suffix, unless another's would be the same."""
    from semseg.inference.files import KINDS, Job

    times = Counter(_stem(name).lower() for name in photos)
    stems = {name: name if times[_stem(name).lower()] > 1 else _stem(name) for name in photos}
    if len({stem.lower() for stem in stems.values()}) < len(stems):
        stems = {name: name for name in photos}
    return {
        name: Job(path, {kind: output / kind / (stems[name] + KINDS[kind]) for kind in kinds})
        for name, path in photos.items()
    }


def _stem(name: str) -> str:
    return name.removesuffix(Path(name).suffix)


def _is_done(name: str, job: "Job", table: _Table) -> bool:
    """Whether a photo has its row and all of its files, and has not changed since."""
    with suppress(OSError):
        changed = job.photo.stat().st_mtime
        return name in table.rows and all(file.stat().st_mtime >= changed for file in job.files.values())
    return False


def _run(
    segmenter: "Segmenter", jobs: dict[str, "Job"], table: _Table, arguments: argparse.Namespace
) -> tuple[int, float]:
    """Predicts; returns how many photos were skipped, and the seconds."""
    from semseg.inference.files import predict_files

    start, skipped = time.monotonic(), 0
    results = predict_files(segmenter, jobs.values(), tile=arguments.tile, workers=arguments.workers)
    try:
        with Progress("predicting") as progress, closing(results):
            for number, (name, (_, result)) in enumerate(zip(jobs, results, strict=True), start=1):
                if isinstance(result, DataError):
                    skipped += 1
                    progress.clear()
                    say_about("skipped", str(result))
                else:
                    _note(name, result, table, progress, asked=arguments.tile)
                speed = (number - skipped) / (time.monotonic() - start)
                progress.show(number, len(jobs), f"{speed:.1f} photos per second")
    except KeyboardInterrupt:
        say_about("stopped", "the same command goes on from here")
        raise
    return skipped, time.monotonic() - start


def _note(name: str, result: "Result", table: _Table, progress: Progress, *, asked: tuple[int, int] | None) -> None:
    table.add((name, result.size[1], result.size[0]), result.counts)
    if result.tile and not asked:
        progress.clear()
        say_about("tiles", f"{name}: {size_text(result.size)} pixels, too many to be seen whole; seen in tiles of "
                  f"{size_text(result.tile)} (--tile)")  # fmt: skip


def _shares_text(table: _Table, palette: "Palette") -> str:
    """The classes' shares of all pixels, the largest first."""
    pixels, totals = 0, [0.0] * palette.num_classes
    for _, width, height, *shares in table.rows.values():
        size = int(width) * int(height)
        pixels += size
        totals = [total + size * float(share) for total, share in zip(totals, shares, strict=True)]
    ranked = sorted(zip(totals, palette.names, strict=True), reverse=True)
    return ", ".join(f"{name} {percent(total / pixels)}" for total, name in ranked if total)


# ------------------------------------------------------------------------------------------------------- videos


def _predict_frames(
    segmenter: "Segmenter", video: "Video", source: Path | int, output: Path, kinds: list[str], *, workers: int
) -> None:
    from semseg.inference.files import KINDS
    from semseg.inference.video import predict_video

    shares, name = output / SHARES_FILE, f"camera {source}" if video.live else source.stem
    if shares.exists() and video.live:
        raise RunFolderError(f"{output}: holds what a camera showed before; choose another --output")
    if shares.exists():
        say_about("video", f"{source}: is done, see {output}{os.sep}")
        return

    def files(number: int) -> dict[str, Path]:
        return {kind: output / kind / name / f"{number:06}{KINDS[kind]}" for kind in kinds if kind != "overlays"}

    say_about("video", f"{source}: {video.rate:g} frames per second" + (", until Ctrl-C" if video.live else ""))
    film = output / "overlays" / f"{name}.mp4" if "overlays" in kinds else None
    segmenter = replace(segmenter, batch_size=1) if video.live else segmenter
    frames = predict_video(segmenter, video, files=files, overlays=film, workers=workers)
    start = time.monotonic()
    count = _write_frames(frames, video, shares, segmenter.palette.names)
    if count < video.frames:
        say_about("note", f"{source}: {video.frames} frames announced, {count} could be read")
    say_about("wrote", f"in {output}{os.sep}: {count} frames, {', '.join(f'{kind}{os.sep}' for kind in kinds)}, "
              f"{SHARES_FILE}, {count / (time.monotonic() - start):.1f} frames per second")  # fmt: skip


def _write_frames(frames: Iterator["Frame"], video: "Video", shares: Path, names: Sequence[str]) -> int:
    """Goes through the frames, writes shares.csv, which is there when all else is, and counts them."""
    count, start = 0, time.monotonic()
    ended_by_hand = (KeyboardInterrupt,) if video.live else ()
    with (
        replacing(shares) as unfinished,
        closing(_Table(unfinished, _FRAME_COLUMNS, names)) as table,
        suppress(*ended_by_hand),
        Progress("predicting") as progress,
        closing(frames),
    ):
        for frame in frames:
            seconds = time.monotonic() - start
            when = seconds if video.live else frame.number / video.rate
            table.add((frame.number, f"{when:.3f}"), frame.counts)
            count += 1
            progress.show(count, max(count, video.frames), f"{count / seconds:.1f} frames per second")
    return count
