"""The door: reads argv, chooses the backend, imports the command, and turns what the user can mend into one line."""

import argparse
import atexit
import errno
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from semseg.cli.backends import choose_backend, refuse_processes
from semseg.cli.console import name_flags, open_closed_streams, say_error
from semseg.cli.flags import Parser, asked_run, build_parser, training_parser
from semseg.errors import ResourceError, RunFolderError, SemsegError, StopRequest, first_line, require
from semseg.files import DISK_FULL
from semseg.runs.stalling import Watch
from semseg.runs.stopping import Stopping, seconds_of

_speaking = threading.Lock()
_WITHOUT_BACKEND = ("check", "convert", "report")
_IMPORTED = {"compare": ("scipy",), "serve": ("starlette", "uvicorn")}  # by a command, from the extra of its name


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, as `main.py` does.

    Args:
        argv: The flags; None for those of the process.

    Returns:
        The exit code.
    """
    return _run(training_parser(), argv)


def commands(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m semseg <command>`; arguments and result as of `main`."""
    return _run(build_parser(), argv)


def end(code: int) -> NoReturn:
    """Ends the process at once: libraries take seconds to tidy up memory that is given back anyway, and after an error
    wait for threads that hang.
    """
    if not code:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(parser: Parser, argv: Sequence[str] | None) -> int:
    """Runs a command; what the user can mend becomes one line and an exit code, and only bugs leave a traceback."""
    open_closed_streams()
    arguments = parser.parse_args(argv)
    name_flags(arguments.parser.flags)
    try:
        require(arguments.command, arguments.command, *_IMPORTED.get(arguments.command, ()))
        with ExitStack() as stack:
            _watch(arguments, stack)
            with _saying_who_has_gone():
                _import_and_run(arguments)
    except SemsegError as error:
        return _fail(str(error), error.exit_code, own=not _is_lost(error))
    except KeyboardInterrupt as error:
        request = error if isinstance(error, StopRequest) else StopRequest("Ctrl-C", 130)
        request.kept = request.kept or _KEPT * (arguments.command == "compare")
        return _fail(request.text, request.exit_code, own=False)
    except Exception as error:
        message, code = words_of(error, arguments)
        if not code:
            _say_bug(error)
            raise
        return _fail(message, code)
    return 0


def words_of(error: Exception, arguments: argparse.Namespace) -> tuple[str, int]:
    """What to say of an error in place of a traceback, and the exit code; 0 for a bug of ours."""
    if isinstance(error, SemsegError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        message, code = _words_of_system(error, getattr(arguments, "output", "disk"))
        return message + _trained(arguments), code
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"system: no more threads; {_OF_SYSTEM[errno.EAGAIN]}", ResourceError.exit_code
    if _out_of_memory(error):
        return "out of memory; use a smaller --batch-size, --image-size or --filters", ResourceError.exit_code
    return "", 0


def _watch(arguments: argparse.Namespace, stack: ExitStack) -> None:
    """Has signals, a time limit and disks that stall end a command well."""
    if arguments.command == "serve":  # its server listens to signals itself, and may wait for ever
        return
    seconds = seconds_of(getattr(arguments, "time_limit", None))
    stack.enter_context(Watch(lambda text: say_error(text + _trained(arguments))))
    arguments.stopping = stack.enter_context(Stopping(_say_last, seconds))


def _import_and_run(arguments: argparse.Namespace) -> None:
    if arguments.command != "train" and not getattr(arguments, "shard", None):
        refuse_processes(arguments.command)
    on_ray = getattr(arguments, "ray", None) is not None
    with _not_looking_for_garbage():
        if on_ray:  # its workers have the network
            require("predict", "ray", "ray")
        else:
            import_backend(arguments)
        command = importlib.import_module(f"semseg.cli.{'on_ray' if on_ray else arguments.command}")
    command.run(arguments)


@contextmanager
def _not_looking_for_garbage() -> Iterator[None]:
    """Imports make a million objects that stay: Python need not look through them again and again, now or later."""
    is_new = "keras" not in sys.modules
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if is_new:
            gc.freeze()


def import_backend(arguments: argparse.Namespace) -> None:
    """Imports Keras on the backend that is asked for, where the command needs one."""
    if not _computes_without_keras(arguments):
        arguments.backend = choose_backend(_asked_backend(arguments))
        from semseg.backend.importing import import_keras  # it loads NumPy, which --help can do without

        import_keras(arguments.backend)


def _trained(arguments: argparse.Namespace) -> str:
    """Where the work of hours is when a command ends early."""
    return f"; {_KEPT}" if arguments.command in _TRAINING else ""


def _words_of_system(error: OSError, output: str) -> tuple[str, int]:
    """What to say of an error of the system, and the exit code; 0 for one that the user cannot mend."""
    where, reason = error.filename, error.strerror
    if error.errno in DISK_FULL:
        return f"{where or output}: no space left; free some or choose another --output", ResourceError.exit_code
    if error.errno in _OF_PLACE:
        return f"{where}: {reason}; choose a place that can be written", RunFolderError.exit_code
    if error.errno in _OF_SYSTEM:
        return f"{where or 'system'}: {reason}; {_OF_SYSTEM[error.errno]}", ResourceError.exit_code
    return "", 0


_OF_PLACE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
)  # fmt: skip
_OF_SYSTEM = {  # what is exhausted or broken, and how to mend it
    errno.EMFILE: "allow more open files, as by ulimit -n 1024",
    errno.ENFILE: "close other programs",
    errno.EAGAIN: "use fewer --workers, close other programs, or allow more processes, as by ulimit -u 1000",
    errno.EIO: "look after the disk",
    **({errno.ESTALE: "mount the share again"} if hasattr(errno, "ESTALE") else {}),
}
_TRAINING = ("train", "compare")
_KEPT = "what was finished before is in the output folder"


def _computes_without_keras(arguments: argparse.Namespace) -> bool:
    """Whether no backend is needed: by what the command does, or as another runtime computes the model."""
    if arguments.command in ("predict", "evaluate", "serve", "suggest"):
        from semseg.inference.card import needs_keras  # it loads NumPy, which --help can do without

        asked = (getattr(arguments, name, None) for name in ("runtime", "image_size"))
        return not needs_keras(Path(arguments.model), *asked)
    return arguments.command in _WITHOUT_BACKEND


def _asked_backend(arguments: argparse.Namespace) -> str | None:
    """What a flag says, else the configuration that is to be repeated."""
    asked = getattr(arguments, "backend", None)
    repeats = getattr(arguments, "config", None) or getattr(arguments, "resume", None)
    return asked_run(arguments).backend if repeats and not asked else asked


def _out_of_memory(error: Exception) -> bool:
    """Also where a backend says so in words of its own, which is known where one was loaded."""
    if isinstance(error, MemoryError) or "keras" not in sys.modules:
        return isinstance(error, MemoryError)
    from semseg.backend.devices import out_of_memory  # loads Keras, which is here then

    return out_of_memory(error)


def _fail(message: str, code: int, own: bool = True) -> int:
    _say_last(" ".join(message.split()), own)
    return code


def _say_last(message: str, own: bool = False) -> None:
    """Says the one line; of several processes that train together, one says it for all."""
    with _speaking:  # the thread that ends a process that is busy waits for what is being said
        words = _processes().last_words(message, own) if _processes() else message
        if words:
            say_error(words)


@contextmanager
def _saying_who_has_gone() -> Iterator[None]:
    """Says it while signals are still listened to: the launcher of the processes ends those that are left."""
    try:
        yield
    except SemsegError as error:
        if _is_lost(error):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            _say_last(str(error))
        raise


def _is_lost(error: Exception) -> bool:
    """Whether it says that another process has gone."""
    return type(error).__name__ == "LostError"


def _say_bug(error: Exception) -> None:
    """Of several processes it is told where the traceback comes from."""
    if _processes():
        _say_last(f"{type(error).__name__}: {first_line(error)}", own=True)


def _processes() -> Any:
    """What connects several processes, if there are any."""
    module = sys.modules.get("semseg.backend.processes")
    return module if module and module.here().count > 1 else None
