"""What the masks of a data set mean, remembered until one of its files changes."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from semseg.data.base import Sample
from semseg.data.cache import key_of
from semseg.data.masks import find_meaning
from semseg.errors import SemsegError
from semseg.files import MAX_AGE, remove_older, replacing
from semseg.labels.palettes import Palette

_SUFFIX = ".semsegmeaning"

Meaning = tuple[Palette, list[str]]


def recall_meaning(
    splits: Mapping[str, Sequence[Sample]],
    num_classes: int | None,
    root: Path,
    *,
    instances: bool = False,
    cache: Path | None = None,
) -> Meaning:
    """Finds out what the masks of all splits hold, or recalls what it found for the same files in the same state.

    Args:
        splits: As for `find_meaning`, like the next three.
        num_classes: The number of classes, when it is known.
        root: The data set's folder.
        instances: The masks number or colour single objects, which are to be read as one class.
        cache: The folder in which it is kept; None to look anew and keep nothing.

    Returns:
        As `find_meaning`.

    Raises:
        DataError: As `find_meaning`, like the next.
        SemsegError: `instances` with another number of classes than two.
    """

    def key() -> str | None:
        return key_of(splits, f"{root} {num_classes} {instances}")

    known = key() if cache else None
    if cache is None or known is None:
        return find_meaning(splits, num_classes, root, instances=instances)
    path = cache / f"{known}{_SUFFIX}"
    recalled = _read(path)
    if recalled is not None:
        return recalled
    found = find_meaning(splits, num_classes, root, instances=instances)
    if key() == known:  # no file changed meanwhile
        _write(path, found)
    return found


def _read(path: Path) -> Meaning | None:
    with suppress(OSError, ValueError, TypeError, KeyError, SemsegError):  # a damaged file is a missing one
        stored = json.loads(path.read_text(encoding="utf-8"))
        os.utime(path)
        return Palette.from_dict(stored["palette"]), [str(note) for note in stored["notes"]]
    return None


def _write(path: Path, found: Meaning) -> None:
    """Keeps what was found; without room or rights for it, the next run looks anew."""
    palette, notes = found
    values = {"palette": palette.to_dict(), "notes": notes}
    if Palette.from_dict(values["palette"]) != palette:
        return  # a palette that JSON does not hold
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values), encoding="utf-8")
        remove_older(path.parent.glob(f"*{_SUFFIX}"), MAX_AGE)
