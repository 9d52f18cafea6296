"""A first run of an exported file from other hands, in a process of its own: a loop without an end holds up nobody."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from semseg.errors import ModelFileError
from semseg.inference.runtimes import RUNTIMES, runtime_of

MAX_SECONDS = 120  # for loading the file and two photos
_ANY_SIZE = 64  # pixels, where the file takes photos of any size and nobody says of which
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from pathlib import Path; from semseg.inference.trial import run; "
    "run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))"
)


def try_apart(path: Path, size: tuple[int, int] | None) -> None:
    """Refuses a file that does not come to an end, or that ends the process it runs in.

    What else is wrong with it shows when it is opened.

    Args:
        path: The file, whose format has a runtime that is installed.
        size: (height, width) of the photos, where somebody said it.

    Raises:
        ModelFileError: It is such a file.
    """
    program = _PROGRAM.format(path=sys.path)
    command = [sys.executable, "-c", program, str(path), *map(str, size or (_ANY_SIZE, _ANY_SIZE))]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MAX_SECONDS, env=os.environ, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(
            f"{path}: does not come to an end with two photos in {MAX_SECONDS} seconds; use a file that you exported"
        ) from None
    if done.returncode < 0:
        raise ModelFileError(f"{path}: ends the process that runs it (signal {-done.returncode}); export it again")


def run(path: Path, height: int, width: int) -> None:
    """What the process does: opens the file, and shows it two black photos of its own size, else of this one."""
    opened = RUNTIMES[runtime_of(path) or ""].open(path)
    sides = [given or asked for given, asked in zip(opened.shape[1:3], (height, width), strict=True)]
    opened.compute(np.zeros((2, *sides, 3), opened.dtype))
