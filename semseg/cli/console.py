"""What the commands print: lines with a topic in the margin, numbers for people, a bar."""

import math
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from semseg.images.mirrors import readable

if TYPE_CHECKING:
    from semseg.comparison.apart import Training

MAX_NAMED = 5  # photos of which something is said, each in a line
_flag_of: dict[str, str] = {}  # the running command's flag of each parameter
_notes: list[tuple[str, str]] | None = None  # of what would be printed


def open_closed_streams() -> None:
    """Gives a process that was started without them an empty input and outputs that go nowhere.

    The next files to be opened would get their numbers otherwise, and what a library prints would go into these.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def name_flags(flags: dict[str, str]) -> None:
    """From now on, parameters that the library names in backquotes are printed as these flags."""
    _flag_of.clear()
    _flag_of.update(flags)


def in_flags(text: str) -> str:
    """What the library says of parameters and of copies of files at addresses, in words of the command line.

    Example:
        >>> name_flags({"batch_size": "--batch-size"})
        >>> in_flags("`batch_size`: got 0; see `plan_run`")
        '--batch-size: got 0; see plan_run'
    """
    # Backquotes inside a path are the path's own.
    text = readable(text)
    return re.sub(r"(?<![\w/\\.-])`(\w+)`(?![\w/\\.-])", lambda match: _flag_of.get(match[1], match[1]), text)


def be_silent() -> None:
    """From now on, nothing but errors is printed: another process speaks."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


@contextmanager
def noting(notes: list[tuple[str, str]]) -> Iterator[None]:
    """Within, topics and paragraphs become notes and are not printed: another process speaks."""
    global _notes
    _notes = notes
    try:
        yield
    finally:
        _notes = None


def say(line: str) -> None:
    """Prints a line at once; the work goes on when whoever read it has gone."""
    try:
        print(printable(line, sys.stdout.encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_error(message: str) -> None:
    """Prints the one line that a command ends with."""
    print("error: " + printable(in_flags(message), sys.stderr.encoding), file=sys.stderr)


def printable(text: str, encoding: str | None) -> str:
    """The text with what the stream cannot show, such as bytes of a file's name, written as escapes."""
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def say_about(topic: str, text: str) -> None:
    """Prints a paragraph with its topic in the margin."""
    if _notes is not None:
        _notes.append((topic, text))
        return
    lines = textwrap.wrap(in_flags(text), 110, break_long_words=False, break_on_hyphens=False)
    say(f"{topic:10}" + f"\n{'':10}".join(lines))


def size_text(size: tuple[int, int]) -> str:
    """Width x height, as people write the size of a picture."""
    return f"{size[1]}x{size[0]}"


def view_text(image_size: tuple[int, int], scale: float | None) -> str:
    """How a network sees photos: whole at (height, width), or in tiles of it at a scale; None for the first.

    Example:
        >>> view_text((128, 192), None), view_text((256, 256), 0.5), view_text((256, 256), 1.0)
        ('at 192x128', 'in tiles of 256x256 at 0.5 of their size', 'in tiles of 256x256 at their own size')
    """
    if scale is None:
        return f"at {size_text(image_size)}"
    of_size = "their own size" if scale == 1 else f"{scale:.3g} of their size"
    return f"in tiles of {size_text(image_size)} at {of_size}"


def percent(share: float) -> str:
    """A share, with one digit after the point."""
    return f"{share:.1%}" if share >= 0.001 else "<0.1%" if share else "none"


def cell(value: float | None) -> str:
    """A score in a column of eleven; a dash where there is none."""
    return f"{'-' if value is None or math.isnan(value) else f'{value:.4f}':>11}"


def say_unlike(doubts: Mapping[str, str], total: int, count: int | None = None, what: str = "photos") -> None:
    """Warns of photos that are unlike those that a network learnt from: how many, and the first of them by name.

    Args:
        doubts: By the photo's name what is unlike in it.
        total: Of how many photos.
        count: How many are unlike, where not all of them are named.
        what: What they are.
    """
    if not doubts:
        return
    count = count or len(doubts)
    those = "those" if what == "photos" else "the photos"
    say_about("unlike", f"{count} of {total} {what} are unlike {those} that the network learnt from; look at their "
              "masks before you trust them:")  # fmt: skip
    for name, doubt in list(doubts.items())[:MAX_NAMED]:
        say_about("", f"{name}: {doubt}")
    if count > MAX_NAMED:
        say_about("", f"and {count - MAX_NAMED} others")


class Progress:
    """A bar on a terminal; nothing where the output goes to a file."""

    WIDTH = 24

    def __init__(self, label: str):
        self.label, self.active, self._last = label, sys.stdout.isatty(), 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def show(self, done: int, total: int, text: str = "") -> None:
        """Draws the bar, ten times a second at most."""
        now = time.monotonic()
        if not self.active or (now - self._last < 0.1 and done < total):
            return
        self._last = now
        filled = self.WIDTH * done // total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        print(f"\r\x1b[K{self.label} [{bar}] {done}/{total} {text}", end="", flush=True)

    def clear(self) -> None:
        """Removes the bar."""
        if self.active:
            print("\r\x1b[K", end="", flush=True)


def show_trainings(progress: Progress, running: "Sequence[Training]") -> None:
    """How far runs in processes of their own are, side by side."""
    if running:
        first, *others = running
        progress.label = f"{first.label} {first.config.model}, seed {first.config.seed}"
        text = first.last_line[:50]
        if others:
            progress.label = ", ".join(training.label for training in running)
            text = "epochs"
        progress.show(sum(each.epochs for each in running), sum(each.config.epochs for each in running), text)
