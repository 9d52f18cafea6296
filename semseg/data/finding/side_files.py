"""What lies beside photos and masks: text files that tell names of classes and splits."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from semseg.data.finding.class_files import ClassFile, NamedClass, names_classes, read_class_file, same_name
from semseg.data.finding.contents import Contents
from semseg.data.finding.split_lists import SplitList, names_split, read_split_lists
from semseg.errors import DataError

_MAX_DEPTH = 4  # folders below the data folder, as in VOCdevkit/VOC2012/ImageSets/Segmentation


@dataclass(frozen=True)
class SideFiles:
    """What the text files in a data folder tell.

    Attributes:
        root: The data folder.
        class_files: Files that name classes, one for each file name; copies of one name agree.
        split_lists: Files that list the photos of a split.
    """

    root: Path
    class_files: tuple[ClassFile, ...] = ()
    split_lists: tuple[SplitList, ...] = ()


def read_side_files(contents: Contents) -> SideFiles:
    """Reads the text files in a data folder, and up to four folders deep, that are called like class files or lists.

    Args:
        contents: Of the data folder.

    Returns:
        What they tell. Files that are called so and hold something else are passed over.

    Raises:
        DataError: A file that is meant to name classes has a slip, or copies of one contradict each other.
    """
    copies: dict[str, list[ClassFile]] = defaultdict(list)
    lists: list[SplitList] = []
    for path in _files(contents):
        if names_split(path):
            lists += read_split_lists(path)
        elif names_classes(path):
            file = read_class_file(path)
            if file is not None:
                copies[path.name.lower()].append(file)
    return SideFiles(contents.root, tuple(map(_merged, copies.values())), tuple(lists))


def _files(contents: Contents) -> list[Path]:
    """The files that are not too deep, those higher up first."""
    depth_of_root = len(contents.root.parts) + 1
    depths = {path: len(path.parts) - depth_of_root for path in contents.others}
    return sorted((path for path, depth in depths.items() if depth <= _MAX_DEPTH), key=depths.__getitem__)


def _merged(copies: Sequence[ClassFile]) -> ClassFile:
    """One file of several copies, such as those of `train/` and `valid/`.

    Raises:
        DataError: They contradict each other.
    """
    first = copies[0]
    for other in copies[1:]:
        conflict = _conflict(first, other)
        if conflict is not None:
            raise DataError(
                f"{first.path}: has {_described(conflict[0])}, and {other.path} has {_described(conflict[1])}; both "
                "must say the same: mend or remove one, or read their folders apart"
            )
        known = set(first.classes)
        first = replace(first, classes=(*first.classes, *(entry for entry in other.classes if entry not in known)))
    return first


def _conflict(file: ClassFile, other: ClassFile) -> tuple[NamedClass | None, NamedClass | None] | None:
    """The entries that contradict each other; of bare names, whose order counts, any that differ."""
    pairs: Iterable[tuple[NamedClass | None, NamedClass | None]]
    if file.tells_values or file.tells_colors:
        pairs = ((entry, one) for entry in file.classes for one in other.classes if _share_something(entry, one))
    else:
        pairs = zip(_padded(file, other), _padded(other, file), strict=True)
    return next((pair for pair in pairs if pair[0] != pair[1]), None)


def _share_something(entry: NamedClass, other: NamedClass) -> bool:
    """Whether two entries have a name, number or colour in common, so that all must be equal."""
    if same_name(entry.name, other.name):
        return True
    return other.value == entry.value is not None or other.color == entry.color is not None


def _padded(file: ClassFile, other: ClassFile) -> list[NamedClass | None]:
    return [*file.classes, *[None] * (len(other.classes) - len(file.classes))]


def _described(entry: NamedClass | None) -> str:
    if entry is None:
        return "no further name"
    parts = (entry.value, entry.name, entry.color)
    return " ".join(str(part) for part in parts if part is not None)
