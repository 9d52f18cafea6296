"""Names and colours of classes as a strip of pixels: fast enough to be drawn for every photo and every frame."""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semseg.labels.palettes import Palette

INK, FAINT = "#1f2933", "#7b8794"  # of all text in pictures, and of its lines
LEGEND_SHARE = 3e-4  # of the pixels: 20 of 65,536 can just be seen


def visible_classes(counts: np.ndarray) -> list[int]:
    """The classes that can be seen, the largest first.

    Args:
        counts: Integer `(K,)`: pixels of each class.

    Example:
        >>> visible_classes(np.array([500, 0, 2000, 0]))
        [2, 0]
    """
    order = np.argsort(-counts, kind="stable")
    return [int(i) for i in order if counts[i] > LEGEND_SHARE * counts.sum()]


def legend(classes: Sequence[int], palette: Palette, width: int, shares: np.ndarray | None = None) -> np.ndarray:
    """A strip with a patch of colour and the name for each class, in rows as long as the width allows.

    Args:
        classes: Ids, in the order in which they are drawn.
        palette: Names and colours.
        width: Of the strip in pixels; wider if a single name needs it.
        shares: Float `(K,)`, 0 to 1: written behind the names.

    Returns:
        uint8 RGB `(height, width, 3)` on white.
    """
    font_size = min(28, max(11, width // 56))
    font, pad = _font(font_size), font_size // 2
    names = [shorten(palette.names[i], 28) for i in classes]
    if shares is not None:
        names = [f"{name} {_percent(shares[i])}" for i, name in zip(classes, names, strict=True)]
    widths = [round(font.getlength(name)) + font_size + 3 * pad for name in names]
    width = max([width, *(pad + entry for entry in widths)])
    places, num_rows = _places_in_rows(widths, width, pad)
    row_height = font_size + pad
    image = Image.new("RGB", (width, pad + num_rows * row_height), "white")
    draw = ImageDraw.Draw(image)
    for i, name, (left, row) in zip(classes, names, places, strict=True):
        top = pad + row * row_height
        draw.rectangle((left, top, left + font_size - 1, top + font_size - 1), palette.colors[i], FAINT)
        draw.text((left + font_size + pad // 2, top + font_size / 2), name, INK, font, anchor="lm")
    return np.asarray(image)


def _places_in_rows(widths: Sequence[int], width: int, pad: int) -> tuple[list[tuple[int, int]], int]:
    """(left, row) of each entry, in rows that are filled one after the other, and the number of rows."""
    places, left, row = [], pad, 0
    for entry in widths:
        if left > pad and left + entry > width:
            left, row = pad, row + 1
        places.append((left, row))
        left += entry
    return places, row + 1


def add_strip_below(picture: np.ndarray, strip: np.ndarray) -> np.ndarray:
    """Puts a strip below a picture, the narrower one filled up with white.

    Args:
        picture: uint8 RGB `(H, W, 3)`.
        strip: uint8 RGB `(h, w, 3)`, such as a `legend`.

    Returns:
        uint8 RGB `(H + h, max(W, w), 3)`.
    """
    width = max(picture.shape[1], strip.shape[1])
    parts = [
        np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in (picture, strip)
    ]
    return np.concatenate(parts)


def lay_strip_over(picture: np.ndarray, strip: np.ndarray, opacity: float = 0.8) -> np.ndarray:
    """Lays a strip over the lower left of a picture, on a third of its height at most.

    Args:
        picture: uint8 RGB `(H, W, 3)`.
        strip: uint8 RGB `(h, w, 3)`, such as a `legend`; what does not fit is cut off below and at the right.
        opacity: Of the strip, 0 to 1.

    Returns:
        uint8 RGB `(H, W, 3)`.
    """
    height, width = min(picture.shape[0] // 3, strip.shape[0]), min(picture.shape[1], strip.shape[1])
    if not height:
        return picture
    result = picture.copy()
    corner = result[-height:, :width]
    corner[:] = (1 - opacity) * corner + opacity * strip[:height, :width]
    return result


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def shorten(text: str, max_length: int = 38) -> str:
    """A name, drawable, with its middle left out where it is long.

    Args:
        text: The name.
        max_length: The most characters of the result, at least 5.

    Example:
        >>> shorten("frankfurt_000001_leftImg8bit.png", 20)
        'frankfurt...8bit.png'
    """
    text = drawable(text)
    if len(text) <= max_length:
        return text
    tail = (max_length - 3) // 2
    return f"{text[: max_length - 3 - tail]}...{text[-tail:]}"


def drawable(name: str) -> str:
    """A file's name without line ends and without bytes that are no text.

    Args:
        name: As the file system gives it.
    """
    return " ".join(name.encode("utf-8", "replace").decode().split())


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, so that all pictures look alike; found without importing it, which takes a second."""
    matplotlib = importlib.util.find_spec("matplotlib")
    folders = matplotlib.submodule_search_locations if matplotlib else None
    for folder in folders or ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)
