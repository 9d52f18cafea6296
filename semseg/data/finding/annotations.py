"""Photos with outlines or run lengths in annotation files, in place of masks."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np

from semseg.data.base import Found, Sample, spread
from semseg.data.finding.contents import Contents
from semseg.data.finding.folder import groups_by_name, root_of
from semseg.data.finding.names import place_of, split_of
from semseg.errors import DataError, first_line
from semseg.images.opening import MAX_PIXELS_TO_LEARN
from semseg.images.reading import read_photo
from semseg.labels.drawings import Drawing, rasterise
from semseg.labels.formats import FORMATS, format_of
from semseg.labels.formats.common import Annotations
from semseg.labels.palettes import Color, Palette, distinct_color, listed

_LOOKED_AT = 20  # files of each suffix that are looked at to see which formats there are
_DRAWN_FIRST = 8  # photos whose masks are drawn to see whether anything is left uncovered
_MAX_BORDER_RATIO = 0.5  # between areas that are whole and the same torn into stripes
_MAX_UNCOVERED = 0.01  # share of the pixels of each of them, where all of the photo is meant to be covered
_FIRST = "instances"  # what begins the name of the file that counts, where others tell of the same photos
_MISREAD = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)  # at values of a kind nobody expects
_MAX_SHOWN = 3  # names of files in a sentence


@dataclass(frozen=True, eq=False)
class _Entry:
    """A photo and what is drawn on it.

    Attributes:
        photo: Its file.
        drawing: What is drawn.
        file: The annotation file.
        split: The split that this file, or its name, tells; else empty.
    """

    photo: Path
    drawing: Drawing
    file: Path
    split: str


def formats_in(contents: Contents) -> dict[str, list[Path]]:
    """The formats of annotation files that are there, each with files of it, by a look at some.

    Args:
        contents: Of the data set's folder.
    """
    suffixes = {suffix for kind in FORMATS.values() for suffix in kind.suffixes}
    found: dict[str, list[Path]] = defaultdict(list)
    for suffix in sorted(suffixes):
        files = [path for path in contents.others if path.suffix.lower() == suffix]
        for path in spread(files, _LOOKED_AT):
            kind = format_of(path)
            if kind:
                found[kind].append(path)
    return {kind: found[kind] for kind in FORMATS if kind in found}


def find_annotated(contents: Contents, kind: str, *, asked: bool = False) -> Found | None:
    """Reads all annotation files of a format and looks for their photos.

    Args:
        contents: Of the data set's folder.
        kind: One of `FORMATS`.
        asked: The user named the format, so that plain rectangles are areas, not boxes around objects.

    Returns:
        The samples; None if no file is of this format.

    Raises:
        DataError: No file can be read or none of the photos is there, only boxes are, or files contradict each other.
    """
    files, problems = _read_all(contents, kind)
    if not files:
        if problems:
            raise DataError(problems[0])
        return None
    _refuse_boxes(files, kind, asked)
    entries, missing = _pair(contents, files)
    problems += missing
    if not entries:
        raise DataError(problems[0] if problems else f"{files[0].path}: tells of no photo")
    bare = _without_file(contents, entries) if kind == "yolo" else []
    entries, turned = _in_right_order(entries)
    palette, ground = _palette(files, entries)
    notes = _notes(kind, files, entries, palette, ground) + _note_on_bare(bare) + turned
    entries = sorted([*entries, *bare], key=lambda entry: contents.order.get(entry.photo, len(contents.order)))
    places = {entry.photo: place_of(entry.photo.parent.relative_to(contents.root).parts) for entry in entries}
    splits: dict[str, list[Sample]] = defaultdict(list)
    for entry in entries:
        drawing = replace(entry.drawing, ground=ground)
        split = places[entry.photo].split or entry.split or "train"
        splits[split].append(Sample(entry.photo, entry.file, drawing=drawing))
    if "train" not in splits:
        splits = {"train": [sample for samples in splits.values() for sample in samples]}
    return Found(
        root_of(contents.root, places),
        dict(splits),
        palette=palette,
        problems=problems,
        group=groups_by_name(places),
        notes=notes,
    )


def _without_file(contents: Contents, entries: Sequence[_Entry]) -> list[_Entry]:
    """The photos without objects, for which YOLO writes no file; none where these are most, and not labelled yet."""
    known = {entry.photo: entry for entry in entries}
    folders = {photo.parent: entry for photo, entry in known.items()}
    bare = [path for path in contents.pictures if path.parent in folders and path not in known]
    if len(bare) > len(known):
        return []
    return [
        _Entry(path, Drawing((), place=str(path)), folders[path.parent].file, folders[path.parent].split)
        for path in bare
    ]


def _note_on_bare(bare: Sequence[_Entry]) -> list[str]:
    return [f"photos without a text file, all background as YOLO has it: {len(bare)}"] if bare else []


def _read_all(contents: Contents, kind: str) -> tuple[list[Annotations], list[str]]:
    """What all files of a format say, and what is wrong with those that cannot be read."""
    files, problems = [], []
    for path in contents.others:
        if not _is_of(path, kind):
            continue
        try:
            annotations = FORMATS[kind].read(path, contents.root)
        except DataError as error:
            problems.append(str(error))
            continue
        except _MISREAD as error:
            problems.append(f"{path}: is not as {kind} files are ({first_line(error)}); export it again")
            continue
        if annotations is not None and (annotations.drawings or annotations.boxes):
            files.append(annotations)
    return files, problems


def _is_of(path: Path, kind: str) -> bool:
    """Whether a file is of a format; an empty text file is one of YOLO's, of a photo without objects."""
    if path.suffix.lower() not in FORMATS[kind].suffixes:
        return False
    return format_of(path) == kind or (kind == "yolo" and not path.stat().st_size)


def _refuse_boxes(files: Sequence[Annotations], kind: str, asked: bool) -> None:
    """Raises a `DataError` where there are boxes around objects, and nothing that says which pixels are theirs."""
    if any(file.outlines for file in files) or not any(file.boxes or file.rectangles for file in files):
        return
    boxed = next(file for file in files if file.boxes or file.rectangles)
    if any(file.boxes for file in files):
        raise DataError(
            f"{boxed.path}: holds boxes around objects, no outlines; boxes say nothing about the pixels in them: draw "
            "outlines, or let a program such as Segment Anything make masks of the boxes"
        )
    if not asked:
        raise DataError(
            f"{boxed.path}: holds rectangles only, as for detection; if they are the areas themselves, say so by "
            f"`dataset` {kind}; else draw outlines"
        )


# ----------------------------------------------------------------------------------------- which photo is meant


class _Photos:
    """The pictures of a data set by the names that annotation files may give them."""

    def __init__(self, contents: Contents):
        self._root, self._pictures = contents.root, set(contents.pictures)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in contents.pictures:
            for name in dict.fromkeys((path.name.lower(), path.stem.lower())):
                self._by_name[name].append(path)

    def find(self, name: str, file: Path, split: str) -> Path | None:
        """The picture that an annotation file means.

        Args:
            name: What the file calls it: a path, a name, or a name without suffix.
            file: The annotation file.
            split: The split that this file tells; else empty.

        Raises:
            DataError: Several pictures may be meant.
        """
        wanted = PurePosixPath(unquote(name).replace("\\", "/"))
        for folder in (file.parent, self._root):
            path = Path(os.path.normpath(folder / wanted))
            if path in self._pictures:
                return path
        names = (wanted.name, _without_hash(wanted.name), wanted.stem, _without_hash(wanted.stem))
        found = next((self._by_name[key.lower()] for key in names if key.lower() in self._by_name), [])
        scores = [self._score(path, wanted, file, split) for path in found]
        best = [path for path, score in zip(found, scores, strict=True) if score == max(scores)]
        if len(best) > 1:
            listed_paths = " and ".join(str(path) for path in best[:2])
            raise DataError(f"{file}: names {name!r}, which may be {listed_paths}; give one of them another name")
        return best[0] if best else None

    def _score(self, path: Path, wanted: PurePosixPath, file: Path, split: str) -> tuple[int, ...]:
        """How well the folders of a picture agree with a name and with the place of its annotation file."""
        folders, other = path.parent.relative_to(self._root).parts, wanted.parent.parts
        shared = list(takewhile(lambda pair: pair[0] == pair[1], zip(folders[::-1], other[::-1], strict=False)))
        own_split = place_of(folders).split
        agrees = not split or own_split is None or own_split == split
        return len(shared), agrees, len(set(folders) & set(file.parent.parts)), path.name.lower() == wanted.name.lower()


def _without_hash(name: str) -> str:
    """A name without the eight letters that Label Studio puts before those of uploaded files."""
    start, dash, rest = name.partition("-")
    return rest if dash and len(start) == 8 and all(letter in "0123456789abcdef" for letter in start) else name


def _pair(contents: Contents, files: Sequence[Annotations]) -> tuple[list[_Entry], list[str]]:
    """The photos of all files, and a line for each that is not there."""
    photos = _Photos(contents)
    entries: dict[Path, _Entry] = {}
    missing: list[str] = []
    for file in sorted(files, key=lambda file: not file.path.stem.startswith(_FIRST)):
        folder_split = (
            place_of(file.path.parent.relative_to(contents.root).parts).split or split_of(file.path.stem) or ""
        )
        lost = []
        for name, drawing in file.drawings.items():
            split = file.splits.get(name) or folder_split
            photo = photos.find(name, file.path, split)
            if photo is None and len(file.drawings) == 1:
                photo = photos.find(file.path.stem, file.path, split)
            if photo is None and file.holds_photo:
                photo = file.path
            if photo is None:
                lost.append(f"{file.path}: names the photo {name!r}, which is not there; add it, or remove its entry")
            elif not _is_repeated(entries.get(photo), photo, drawing, file):
                entries[photo] = _Entry(photo, drawing, file.path, split)
        missing += lost
    return list(entries.values()), missing


def _is_repeated(earlier: _Entry | None, photo: Path, drawing: Drawing, file: Annotations) -> bool:
    """Whether an earlier file has said it all of a photo.

    Raises:
        DataError: It said something else.
    """
    if earlier is None:
        return False
    if earlier.drawing.digest == drawing.digest or earlier.file.stem.startswith(_FIRST) > file.path.stem.startswith(
        _FIRST
    ):
        return True
    raise DataError(
        f"{earlier.file} and {file.path} both tell of {photo.name}, and not the same; say by `masks` which counts"
    )


# ------------------------------------------------------------------------------------------------- what is made of it


def _in_right_order(entries: list[_Entry]) -> tuple[list[_Entry], list[str]]:
    """Run lengths without a size, along the lines in which they make areas and not stripes; and a sentence on that.

    In square photos both ways make areas; the check looks whether they fit the photos.
    """
    unsized = [entry for entry in entries if any(s.runs and s.runs.size is None for s in entry.drawing.shapes)]
    ratios = [ratio for entry in spread(unsized, _DRAWN_FIRST) if (ratio := _border_ratio(entry)) is not None]
    if not ratios or sorted(ratios)[len(ratios) // 2] > _MAX_BORDER_RATIO:
        return entries, []
    turned = [replace(entry, drawing=_with_other_lines(entry.drawing)) for entry in entries]
    by_rows = any(shape.runs and shape.runs.by_rows for entry in turned for shape in entry.drawing.shapes)
    return turned, [
        f"run lengths go {'along the rows' if by_rows else 'down the columns'}: else they would make stripes"
    ]


def _with_other_lines(drawing: Drawing) -> Drawing:
    """Run lengths along the rows as down the columns, and the other way round."""
    shapes = [
        replace(shape, runs=shape.runs and replace(shape.runs, by_rows=not shape.runs.by_rows))
        for shape in drawing.shapes
    ]
    return replace(drawing, shapes=tuple(shapes))


def _border_ratio(entry: _Entry) -> float | None:
    """How much shorter the borders of areas are with the other lines; None where that cannot be told."""
    lengths = []
    try:
        size = read_photo(entry.photo, (1, 1), max_pixels=MAX_PIXELS_TO_LEARN).size
        for drawing in (entry.drawing, _with_other_lines(entry.drawing)):
            ids = {name: i for i, name in enumerate(sorted(drawing.labels))}
            mask = rasterise(drawing, size, ids)
            lengths.append(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))
    except DataError:  # of which the check will tell
        return None
    return lengths[1] / max(lengths[0], 1)


def _palette(files: Sequence[Annotations], entries: Sequence[_Entry]) -> tuple[Palette, str | None]:
    """The classes that are drawn somewhere, in the order of the files; and that of pixels where nothing is drawn.

    Raises:
        DataError: Nothing is drawn on any photo.
    """
    declared: dict[str, Color | None] = {}
    for file in files:
        for name, color in file.classes.items():
            declared[name] = declared.get(name) or color
    drawn = set().union(*(replace(entry.drawing, ground=None).labels for entry in entries))
    if not drawn:
        raise DataError(f"{entries[0].file}: holds no outline of any class; draw some, or give masks")
    names = [name for name in declared if name in drawn] + sorted(drawn - declared.keys())
    ground = None if len(names) > 1 and _cover_everything(entries, names) else "background"
    if ground:
        names = [ground, *(name for name in names if name != ground)]
    colors = [declared.get(name) or distinct_color(i) for i, name in enumerate(names)]
    if len(set(colors)) < len(colors):
        colors = [distinct_color(i) for i in range(len(names))]
    return Palette.from_colors(names, colors, source="outlines", max_distance=0.0), ground


def _cover_everything(entries: Sequence[_Entry], names: Sequence[str]) -> bool:
    """Whether next to nothing is left uncovered on each of a few photos."""
    ids = {"background": 0} | {name: 1 for name in names if name != "background"}
    for entry in spread(list(entries), _DRAWN_FIRST):
        if not entry.drawing.shapes:
            return False
        try:
            size = entry.drawing.size or read_photo(entry.photo, (1, 1), max_pixels=MAX_PIXELS_TO_LEARN).size
            bare = rasterise(replace(entry.drawing, ground="background"), size, ids) == 0
        except DataError:  # of which the check will tell
            continue
        if bare.mean() > _MAX_UNCOVERED:
            return False
    return True


def _notes(
    kind: str, files: Sequence[Annotations], entries: Sequence[_Entry], palette: Palette, ground: str | None
) -> list[str]:
    """How it was read, and what was left out or is unusual, a sentence each."""
    paths = [str(path.name) for path in dict.fromkeys(entry.file for entry in entries)]
    where = f" ({', '.join(paths)})" if len(paths) <= _MAX_SHOWN else f", {len(paths)} files"
    notes = [f"{FORMATS[kind].described}{where}"]
    if ground is None:
        notes.append("the outlines cover the photos: there is no background, and the rest counts nowhere")
    empty = sum(not entry.drawing.shapes for entry in entries)
    if empty:
        notes.append(f"photos without any outline, all background: {empty}")
    held = sum(entry.photo == entry.file for entry in entries)
    if held:
        notes.append(f"photos that lie nowhere else and are read from the annotation files: {held}")
    rectangles = sum(file.rectangles for file in files)
    if rectangles:
        notes.append(f"rectangles, read as areas: {rectangles}")
    counts: Counter[str] = Counter()
    for file in files:
        counts.update(file.left_out)
    notes += [f"{what}: {count}, first in {_first(files, what)}" for what, count in counts.items()]
    unused = [name for file in files for name in file.classes if name not in palette.names and name != "background"]
    if unused:
        notes.append(f"never drawn, so no class: {listed(list(dict.fromkeys(unused)))}")
    return notes


def _first(files: Sequence[Annotations], what: str) -> Path:
    return next(file.path for file in files if what in file.left_out)
