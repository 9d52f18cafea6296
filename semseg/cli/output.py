"""The folder for results: can it be written to?"""

import errno
import shutil
import tempfile
from pathlib import Path

from semseg.errors import ResourceError, RunFolderError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SPACE_NEEDED = 100 * 2**20  # bytes: a model, its successor while it is written, and the pictures


def check_output(output: Path) -> None:
    """Tries to write where the results will go, before anything takes time; leaves nothing behind."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(f"{output}: no space left; free some or choose another --output") from None
        raise RunFolderError(f"{output}: cannot be written ({error.strerror}); choose another --output") from None
    free = shutil.disk_usage(existing).free
    if free < SPACE_NEEDED:
        raise ResourceError(
            f"{output}: {free // 2**20} MB left on the disk, {SPACE_NEEDED // 2**20} MB needed; free some or choose "
            "another --output"
        )
