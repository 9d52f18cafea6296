"""Errors that are the user's to mend: one clear line each, and the exit code that the command ends with.

A message reads `<where>: <what>; <how to mend>`. Anything that is not a `SemsegError` is our own bug and keeps its
traceback. All of them are `ValueError`s, so code that imports the package needs no knowledge of this module.
"""

import importlib.util
from pathlib import Path

_IN_CHECKOUT = (Path(__file__).parents[1] / "pyproject.toml").is_file()


class SemsegError(ValueError):
    """A wrong argument or option (exit code 2)."""

    exit_code = 2


class MissingPackageError(SemsegError):
    """A package that only some users need, and that is not installed (exit code 2)."""


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


class FolderInUseError(RunFolderError):
    """A folder that another process writes into (exit code 4)."""


class ModelFileError(SemsegError):
    """A file that is no model, or not one for these data (exit code 5)."""

    exit_code = 5


class ResourceError(SemsegError):
    """No disk or memory left, a port that is taken, or a server that cannot be reached or refuses (exit code 6)."""

    exit_code = 6


class NonFiniteLossError(SemsegError):
    """The loss became NaN or infinite (exit code 7)."""

    exit_code = 7


class StopRequest(KeyboardInterrupt):
    """Somebody asked the program to end.

    Args:
        by: What asked, in words.
        exit_code: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 75 for the end of a time limit.
        kept: What stands of the work, in words.
    """

    def __init__(self, by: str, exit_code: int, kept: str = ""):
        super().__init__(by)
        self.exit_code, self.kept = exit_code, kept

    @property
    def text(self) -> str:
        """For the last line."""
        return f"stopped by {self.args[0]}{self.kept and '; '}{self.kept}"


def first_line(error: BaseException) -> str:
    """What somebody else's error says, short enough for a line of ours: its first line, or its kind.

    Args:
        error: Any exception.

    Returns:
        At most 200 characters.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return line.replace("`", "'")  # in ours, backquotes stand around parameters


def is_installed(module: str) -> bool:
    """Whether Python finds a module, `"starlette"` or `"package.module"`; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
    except ValueError:  # it is loaded, and nothing says from where
        return True


def pip_install(extra: str) -> str:
    """The command that installs an extra of pyproject.toml, such as `"serve"`."""
    return f"pip install -e '.[{extra}]'" if _IN_CHECKOUT else f"pip install 'semseg[{extra}]'"


def require(purpose: str, extra: str | None, *modules: str) -> None:
    """Asks for packages that only some users need, before anything takes time.

    Args:
        purpose: What needs them; the message begins with it.
        extra: The extra of pyproject.toml that brings them; None where none does.
        *modules: What Python imports.

    Raises:
        MissingPackageError: One of them is not installed; the message names the pip command.
    """
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        command = pip_install(extra) if extra else f"pip install {' '.join(missing)}"
        raise MissingPackageError(f"{purpose}: needs {' and '.join(missing)}; run {command}")
