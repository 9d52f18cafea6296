"""Which photos were suggested to be labelled next, or looked at again."""

from collections.abc import Sequence
from pathlib import Path

from semseg.errors import DataError
from semseg.files import read_csv
from semseg.runs import names


def suggested_among(photos: Sequence[str], folder: Path) -> list[str]:
    """The photos to label next, then those whose labels to look at again, in the order in which they were suggested.

    Args:
        photos: Names below the folder that holds them.
        folder: Holds what `suggest` wrote; it may be missing, and name photos below a folder further down.

    Returns:
        Some of `photos`, none twice; empty where nothing was suggested.

    Raises:
        DataError: A table cannot be read.
    """
    by_name: dict[str, str | None] = {}
    for photo in photos:
        parts = photo.split("/")
        for first in range(len(parts)):
            name = "/".join(parts[first:])
            by_name[name] = photo if name not in by_name else None  # two photos could be meant
    by_name |= {photo: photo for photo in photos}
    found = (by_name.get(name) for name in _suggested(folder))
    return list(dict.fromkeys(photo for photo in found if photo is not None))


def _suggested(folder: Path) -> list[str]:
    suggested = []
    for table in (names.SUGGESTIONS, names.DOUBTFUL):
        try:
            with (folder / table).open(encoding="utf-8", newline="") as file:
                rows = read_csv(file)[1]
            suggested += [row["photo"] for row in rows if float(row.get("doubtful_share", 1)) > 0]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError) as error:
            problem = f"{folder / table}: cannot be read ({error}); make it anew by suggest, or remove it"
            raise DataError(problem) from error
    return suggested
