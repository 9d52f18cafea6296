"""What lies in a folder: one walk, of which every finder asks."""

import fnmatch
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from semseg.errors import DataError, SemsegError
from semseg.images.reading import IMAGE_SUFFIXES, natural_key
from semseg.runs.names import holds_results, is_result

_LEFTOVERS = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}  # what systems leave in folders and archives


@dataclass(frozen=True)
class Contents:
    """The files of a folder and of all folders below.

    Attributes:
        root: The folder.
        pictures: What is named like a picture, in natural order (2.jpg before 10.jpg); need not be one.
        others: The other files, likewise.
        results: Folders that semseg wrote results into, whose files are left out.
    """

    root: Path
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]
    results: tuple[Path, ...] = ()

    @cached_property
    def order(self) -> dict[Path, int]:
        """The place of each picture in the natural order."""
        return {path: place for place, path in enumerate(self.pictures)}

    def select(self, pattern: str, parameter: str) -> list[Path]:
        """The pictures that a user names.

        Args:
            pattern: A folder, by its path from the root or by its name alone, or a pattern of paths such as
                `"*/img/*_sat.png"`.
            parameter: What the user gave it as, for the message.

        Raises:
            SemsegError: No picture is in such a folder or fits the pattern.
        """
        wanted = pattern.strip("/").removeprefix("./")
        chosen = [path for path in self.pictures if _is_meant(path.relative_to(self.root), wanted)]
        if not chosen:
            folders = sorted({f"{path.parent.relative_to(self.root).as_posix()}/" for path in self.pictures})
            there = ", ".join(folders[:8]) + (" ..." if len(folders) > 8 else "")
            raise SemsegError(f"`{parameter}`: no picture in {self.root} is in {pattern}; pictures are in {there}")
        return chosen

    def others_like(self, pattern: str) -> list[Path]:
        """The files that are no pictures and whose paths fit a pattern; there may be none."""
        return [path for path in self.others if fnmatch.fnmatch(path.relative_to(self.root).as_posix(), pattern)]


def _is_meant(path: Path, wanted: str) -> bool:
    """Whether a path lies in the folder that is wanted, or fits the pattern."""
    text, folders = path.as_posix(), path.parent.as_posix()
    inside = folders == wanted or folders.startswith(f"{wanted}/") or f"/{wanted}/" in f"/{folders}/"
    return inside or fnmatch.fnmatch(text, wanted) or fnmatch.fnmatch(path.name, wanted)


def list_contents(root: Path) -> Contents:
    """Lists all files in a folder and below.

    Hidden files and folders, what systems leave behind, and folders with results of semseg are left out, as are its
    files where results lie in the root itself; links to folders are not followed.

    Args:
        root: An existing folder.

    Raises:
        DataError: A folder inside may not be read.
    """
    pictures, others, results = [], [], []
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = [name for name in folders if _counts(name)]
        if holds_results(files):
            results.append(Path(folder))
            files = [name for name in files if Path(folder) == root and not is_result(name)]
            folders[:] = folders if Path(folder) == root else []
        for name in files:
            if _counts(name):
                is_picture = Path(name).suffix.lower() in IMAGE_SUFFIXES
                (pictures if is_picture else others).append(Path(folder, name))
    ordered = (tuple(sorted(paths, key=natural_key)) for paths in (pictures, others, results))
    return Contents(root, *ordered)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LEFTOVERS


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); change its permissions")
