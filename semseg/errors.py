"""Errors that are the user's to mend: one clear line each, and the exit code that the command ends with.

A message reads `<where>: <what>; <how to mend>`. Anything that is not a `SemsegError` is our own bug and keeps its
traceback. All of them are `ValueError`s, so code that imports the package needs no knowledge of this module.
"""


class SemsegError(ValueError):
    """A wrong argument or option (exit code 2)."""

    exit_code = 2


class ExportError(SemsegError):
    """An exported file that does not compute what its model computes (exit code 1)."""

    exit_code = 1


class DataError(SemsegError):
    """Photos or masks that cannot be trained on (exit code 3)."""

    exit_code = 3


class TooManyPixelsError(DataError):
    """A picture too large to be held in memory (exit code 3)."""


class RunFolderError(SemsegError):
    """A checkpoint or run folder that cannot be used (exit code 4)."""

    exit_code = 4


class ModelFileError(SemsegError):
    """A file that is no model, or not one for these data (exit code 5)."""

    exit_code = 5


class ResourceError(SemsegError):
    """No disk or memory left, or a port that is taken (exit code 6)."""

    exit_code = 6


class NonFiniteLossError(SemsegError):
    """The loss became NaN or infinite (exit code 7)."""

    exit_code = 7


def first_line(error: Exception) -> str:
    """What somebody else's error says, short enough for a line of ours: its first line, or its kind.

    Args:
        error: Any exception.

    Returns:
        At most 200 characters.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
