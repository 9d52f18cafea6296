"""The classes of a run as a file: names, colours or numbers, and shares; users edit it and pass it back."""

from collections.abc import Sequence
from pathlib import Path

from semseg.errors import SemsegError
from semseg.files import read_json, write_json
from semseg.labels.palettes import Palette


def write_classes(path: Path, palette: Palette, shares: Sequence[float] | None = None) -> None:
    """Writes a palette as JSON.

    Args:
        path: The file.
        palette: The classes, and what is ignored.
        shares: Share of each class among the counted pixels, 0 to 1, `(K,)`; None to leave them out.
    """
    values = palette.to_dict()
    if shares is not None:
        for entry in values["classes"]:
            entry["share"] = round(float(shares[entry["id"]]), 6)
    write_json(path, values)


def read_classes(path: Path) -> Palette:
    """Reads what `write_classes` wrote, also after a user changed it.

    Raises:
        SemsegError: The file is not there, is no JSON, or describes no classes.
    """
    try:
        return Palette.from_dict(read_json(path), source="file")
    except FileNotFoundError:
        raise SemsegError(f"`classes`: got {str(path)!r}; expected a number, or a classes.json that is there") from None
    except SemsegError as error:
        raise SemsegError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise SemsegError(f"{path}: cannot be read ({error}); expected JSON as semseg writes classes.json") from None
