"""Data sets: opened from a folder, with their samples, splits and classes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from semseg.data.bands import find_bands, join_band_files
from semseg.data.base import (
    SPLITS,
    VAL_SHARE,
    Dataset,
    Found,
    Sample,
    fold_split,
    places_that_differ,
    seeded_split,
    spread,
)
from semseg.data.demo import make_demo
from semseg.data.finding.choosing import DATASETS, EXPECTED, choose_reading
from semseg.data.finding.class_names import apply_names
from semseg.data.finding.contents import Contents, list_contents
from semseg.data.finding.folder import add_views
from semseg.data.finding.side_files import SideFiles, read_side_files
from semseg.data.finding.split_lists import apply_lists
from semseg.data.masks import check_meaning, rename_classes
from semseg.data.meanings import recall_meaning
from semseg.errors import DataError, SemsegError
from semseg.images.band_files import group_band_files
from semseg.images.bands import Bands
from semseg.images.reading import list_images
from semseg.labels.palettes import Palette, cityscapes_palette

_MAX_PLACES = 50  # samples whose georeference is looked at, to be told
_MAX_FOLDERS_NAMED = 4  # in the note on what was left out; of more, those above them


def open_dataset(
    root: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    palette: Palette | None = None,
    categories: bool = False,
    seed: int = 0,
    fold: str | None = None,
    limit: int | None = None,
    whole: bool = False,
    photos: str | None = None,
    masks: str | None = None,
    ignore_outside: str | None = None,
    instances: bool = False,
    show: str | None = None,
    bands: Bands | None = None,
    cache: Path | None = None,
) -> Dataset:
    """Finds the samples and the classes in a folder.

    Args:
        root: The folder; the data may lie at any depth in it.
        name: One of `DATASETS`; None to look which it is.
        num_classes: The number of classes, when it should not be found from the masks.
        palette: What the masks hold, when it should not be found at all.
        categories: The 7 categories of Cityscapes in place of its 19 classes.
        seed: Draws the validation split where the folder has none, and folds.
        fold: Which of several parts of the photos is the validation split, such as `"2/5"`. One that the folder has
            then becomes the test split or, where there is that one already, takes part. None for no parts.
        limit: At most this many samples of each split, evenly spread.
        whole: Draw no validation split; its samples are then in `"train"`.
        photos: The folder of the photos inside `root`, or a pattern of their paths such as `"*/img/*_sat.png"`, where
            it should not be found by looking.
        masks: The same for the masks.
        ignore_outside: The same for pictures that are black where the pixels of their photos count nowhere, as outside
            of a field of view; None for all pixels.
        instances: The numbers or colours of the masks count objects; all but the background are one class.
        show: The bands that pictures show, such as `"4,3,2"`; None for those that suit.
        bands: What the photos must hold, as a network was trained on; None to look.
        cache: The folder in which it is kept what the masks mean, until a file changes; None to look each time.

    Raises:
        DataError: No such folder, nothing in it that can be trained on, or two readings of it that fit equally well.
        SemsegError: No data set of this name, nothing where `photos`, `masks` or `ignore_outside` say, categories of
            masks that are not Cityscapes', or `instances` where it is known already what the masks hold.
    """
    root = Path(root)
    if name is not None and name not in DATASETS:
        raise SemsegError(f"there is no data set {name!r}; choose one of {', '.join(DATASETS)}")
    _refuse_unless_folder(root)
    try:
        contents, groups, names = _one_file_per_photo(list_contents(root))
        kind, found = choose_reading(contents, name, photos, masks)
        join_band_files(found, groups)
        if ignore_outside:
            add_views(found, contents, ignore_outside)
        notes = [f"read as {kind}: {(found.notes or [EXPECTED[kind]])[0]}", *found.notes[1:]]
        notes += [f"{folder}: holds results of semseg, which are no data" for folder in contents.results]
        notes += _left_out(found, contents)
        unlabelled = [*found.unpaired, *(_rest(found, contents) if _is_annotated(found) else ())]
        side_files = read_side_files(contents)
        notes += _divide_by_lists(found, side_files, root)
        if fold:
            notes += _set_apart_from_folds(found)
        drawn = "val" not in found.splits and not whole
        if drawn and not fold:
            notes.append(_draw_validation(found, seed))
        splits = {split: spread(found.splits[split], limit) for split in SPLITS if split in found.splits}
        notes += _notes_on_places(splits["train"])
        held, said = find_bands(splits, names if groups else (), bands)
        notes += said
        palette, said = _palette_of(found, splits, palette, num_classes, instances, side_files, cache)
        notes += said
        if drawn and fold:  # bands and classes are those of all photos, the same in each fold
            notes.append(_draw_fold(splits, found, fold, seed))
    except PermissionError as error:
        raise DataError(f"{error.filename}: may not be read; change its permissions") from None
    if categories:
        palette = _in_categories(palette)
    return Dataset(
        found.root, splits, palette, notes=notes, problems=found.problems, unlabelled=unlabelled, drawn=drawn,
        group=found.group, bands=held.showing(show) if show else held,
    )  # fmt: skip


def _one_file_per_photo(contents: Contents) -> tuple[Contents, dict[Path, tuple[Path, ...]], tuple[str, ...]]:
    """The contents without the further files of photos whose bands lie in files of their own; these; their names."""
    groups, names = group_band_files(contents.pictures, contents.root)
    further = {path for files in groups.values() for path in files[1:]}
    pictures = tuple(path for path in contents.pictures if path not in further)
    return replace(contents, pictures=pictures) if further else contents, groups, names


def _refuse_unless_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; expected a folder with photos and masks in it")


def _left_out(found: Found, contents: Contents) -> list[str]:
    """A sentence that counts the pictures that are no part of the data set, by folder; nothing where all are."""
    rest = _rest(found, contents)
    what = "that no annotation file names, so not labelled yet" if _is_annotated(found) else "that were left out"
    folders = Counter(path.parent.relative_to(contents.root) for path in rest)
    if len(folders) > _MAX_FOLDERS_NAMED:
        folders = Counter(Path(*path.relative_to(contents.root).parts[:-1][:1]) for path in rest)
    counted = [f"{count} in {folder.as_posix()}/" for folder, count in folders.most_common(_MAX_FOLDERS_NAMED)]
    if len(folders) > _MAX_FOLDERS_NAMED:
        counted = [f"{len(rest)} in {len(folders)} folders such as {rest[0].parent.relative_to(contents.root)}/"]
    return [f"pictures {what}: {', '.join(counted)}"] if counted else []


def _rest(found: Found, contents: Contents) -> list[Path]:
    """The pictures that are no part of the data set, and of which nothing was said yet."""
    told = {problem.partition(": ")[0] for problem in found.problems}
    used = {path for samples in found.splits.values() for sample in samples for path in sample.files}
    used |= {*found.unpaired, *found.left_out}
    return [path for path in contents.pictures if path not in used and str(path) not in told]


def _is_annotated(found: Found) -> bool:
    return any(sample.drawing for samples in found.splits.values() for sample in samples)


def _divide_by_lists(found: Found, side_files: SideFiles, root: Path) -> list[str]:
    """Gives the samples the splits that lists beside them name; returns sentences that say so."""
    splits, notes = apply_lists(found.splits, side_files.split_lists, root, found.unpaired)
    if splits is None:
        found.problems += [f"{path}: has no mask" for path in found.unpaired]
    else:
        found.splits = splits
    return notes


def _notes_on_places(samples: list[Sample]) -> list[str]:
    looked_at = spread(samples, _MAX_PLACES)
    count = sum(places_that_differ(sample) is not None for sample in looked_at)
    if not count:
        return []
    return [
        f"masks that lie elsewhere than their photos ({count} of {len(looked_at)} looked at) are laid on them by their "
        "georeference; what they do not cover is ignored"
    ]


def _palette_of(
    found: Found,
    splits: dict[str, list[Sample]],
    given: Palette | None,
    num_classes: int | None,
    instances: bool,
    side_files: SideFiles,
    cache: Path | None,
) -> tuple[Palette, list[str]]:
    """The palette that the user gives, else the one that the layout fixes, else the one that the masks show."""
    if instances and (given is not None or found.palette is not None):
        what = "a file of classes" if given is not None else "the layout of the data set"
        raise SemsegError(f"`instances`: {what} says already what the masks hold; leave one of both away")
    if given is not None:
        check_meaning(splits["train"], given)
        return given, []
    if found.palette is not None:
        return found.palette, []
    palette, notes = recall_meaning(splits, num_classes, found.root, instances=instances, cache=cache)
    palette = rename_classes(palette, found.class_names)
    if instances:
        return palette, notes
    palette, named = apply_names(palette, side_files.class_files)
    return palette, [*notes, *named]


def _draw_validation(found: Found, seed: int) -> str:
    """Sets a share of the training samples apart; returns the sentence that says so."""
    if len(found.splits["train"]) == 1 and found.problems:
        raise DataError(
            f"{found.root}: one photo only has its mask; {found.problems[0]}, and {len(found.problems) - 1} more like "
            "it: add the masks, or say by `masks` where they are"
        )
    train, val = seeded_split(found.splits["train"], VAL_SHARE, seed, found.group)
    total = len(train) + len(val)
    found.splits["train"], found.splits["val"] = train, val
    text = f"no val/ in {found.root}: {len(val)} of {total} pairs are set apart for validation (seed {seed})"
    if found.group is None:
        return text
    groups = sorted({found.group(sample) for sample in val})
    rest = " ..." if len(groups) > 5 else ""
    return f"{text}, by group, so that none is on both sides: {', '.join(groups[:5])}{rest}"


def _set_apart_from_folds(found: Found) -> list[str]:
    """Leaves the photos that take part in folds as `"train"`; returns sentences on the others."""
    own = found.splits.pop("val", None)
    if own is None:
        return ["test/ takes part in no fold"] if "test" in found.splits else []
    if "test" in found.splits:
        found.splits["train"] = [*found.splits["train"], *own]
        return ["val/ takes part in the folds, test/ in none"]
    found.splits["test"] = own
    return ["val/ takes part in no fold: it is the test split"]


def _draw_fold(splits: dict[str, list[Sample]], found: Found, fold: str, seed: int) -> str:
    """Makes one of the folds the validation split; returns the sentence that says so."""
    total = len(splits["train"])
    train, val = fold_split(splits["train"], fold, seed, found.group)
    test = splits.pop("test", None)
    splits |= {"train": train, "val": val, **({"test": test} if test else {})}
    by_group = "" if found.group is None else ", by group, so that none is on both sides"
    return f"fold {fold}: {len(val)} of {total} photos are held out for validation (seed {seed}){by_group}"


def _in_categories(palette: Palette) -> Palette:
    if palette.source != "cityscapes":
        raise SemsegError(f"`categories`: is for Cityscapes' labels; these masks hold others ({palette.source})")
    if palette.holds_values:
        held = "id" if any(label.value == 33 for label in palette.labels) else "train_id"
        return cityscapes_palette(categories=True, held=held)
    return Palette(cityscapes_palette(categories=True).labels, "cityscapes", palette.blended)


def ensure_demo(root: str | Path, seed: int = 0) -> bool:
    """Makes the built-in demo set in `root` unless pictures are there already.

    Args:
        root: The folder of the demo set.
        seed: Another seed gives other streets.

    Returns:
        Whether it was made.
    """
    root = Path(root)
    if root.is_dir() and list_images(root):
        return False
    make_demo(root, seed=seed)
    return True
