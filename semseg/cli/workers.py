"""What a process of `serve` begins with: its backend first, and then all that imports Keras."""

import sys
import traceback
from pathlib import Path
from typing import Any

from semseg.cli.console import say_error
from semseg.errors import SemsegError


def app_of_worker(backend: str | None, token: str | None, counts: Path, options: dict[str, Any]) -> Any:
    """The application in a process of its own; ends it where that cannot be made, as it could not the next time.

    Args:
        backend: Of Keras; None for a file that runs without.
        token: As of `make_app`.
        counts: As of `make_app`.
        options: What the command was asked for: `model`, `image_size` and `show`.
    """
    try:
        if backend:
            from semseg.backend.importing import import_keras

            import_keras(backend)
        from semseg.cli.serve import make_worker
        from semseg.serve.running import START_FAILURE

        return make_worker(**options, token=token, counts=counts)
    except SemsegError as error:
        say_error(str(error))
    except Exception:
        traceback.print_exc()
    sys.exit(START_FAILURE)
