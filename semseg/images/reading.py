"""Image files to arrays: photos as uint8 RGB, masks as they are stored, pairs in one picture, files of a folder.

Pillow reads them, because OpenCV returns a full picture for a file that was cut in the middle.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from semseg.errors import DataError, SemsegError, TooManyPixelsError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}

_MAX_PIXELS = 89_478_485  # Pillow's own limit for what may be an attack
_TOO_LARGE = "larger than 89 million pixels; scale it down or leave it out"
_ORIENTATION = 0x0112  # the EXIF tag
_JPEG = ("JPEG", "MPO")
_MODES_OF_NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes of one channel


@dataclass(frozen=True)
class Picture:
    """What an image file holds.

    Attributes:
        pixels: A photo: uint8 RGB `(h, w, 3)`. A mask: colours, uint8 `(H, W, 3)`, or numbers, `(H, W)`, as stored.
        size: (H, W) of the whole picture, upright.
        form: Of a photo what had to be converted, `"grey"`, `"alpha"`, `"CMYK"` ..., else empty; of a mask its format.
        orientation: The EXIF orientation that was undone, 1 to 8; 1 is upright.
        colors: What the numbers of a palette image look like, uint8 `(256, 3)`; None for other files.
        transparent: Where a mask's alpha is 0, bool `(H, W)`; None if nowhere.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    form: str = ""
    orientation: int = 1
    colors: np.ndarray | None = None
    transparent: np.ndarray | None = None


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB, upright (EXIF orientation applied).

    Pillow reads it, because OpenCV returns a full picture for a file that was cut in the middle.

    Args:
        path: A file of any of `IMAGE_SUFFIXES`; its content tells the format, not its name.

    Returns:
        uint8 `(H, W, 3)`, 0 to 255.

    Raises:
        DataError: The file is missing, empty, cut, no picture, 16-bit, float, animated or absurdly large.
    """
    return read_photo(path).pixels


_FORMS = {"L": "grey", "LA": "alpha", "RGBA": "alpha", "PA": "alpha", "P": "palette", "1": "1-bit"}


def read_photo(path: str | Path, at_least: tuple[int, int] | None = None) -> Picture:
    """Reads a photo; its pixels are uint8 RGB.

    Args:
        path: The file.
        at_least: (height, width) that are enough: a large JPEG is then decoded at 1/2, 1/4 or 1/8, which is faster.

    Raises:
        DataError: As `read_image`.
    """
    with _open_image(path) as image:
        orientation = _orientation(image)
        size = image.size[::-1] if orientation < 5 or image.format == "TIFF" else image.size  # TIFFs tell it turned
        form = "" if image.mode == "RGB" else _FORMS.get(image.mode, image.mode)
        if at_least and image.format in _JPEG:
            image.draft(None, at_least[::-1] if orientation < 5 else at_least)
        upright = image if orientation == 1 else ImageOps.exif_transpose(image)
        return Picture(np.asarray(upright.convert("RGB")), size, form, orientation)


def read_mask(path: str | Path) -> Picture:
    """Reads a mask as it is stored: indices of a palette image, numbers of a grey one (16 bits too), or colours.

    JPEG changes numbers, so that grey JPEG masks are given as colours, for a palette to be found.

    Args:
        path: The file.

    Returns:
        Its picture; `pixels` are integers `(H, W)`, or uint8 RGB `(H, W, 3)`.

    Raises:
        DataError: As `read_image`; 16 bits per channel are refused in colour masks only.
    """
    with _open_image(path, numbers=True) as image:
        orientation = _orientation(image)
        upright = image if orientation == 1 else ImageOps.exif_transpose(image)
        holds_numbers = image.format not in _JPEG and image.mode in _MODES_OF_NUMBERS
        pixels = _stored_numbers(Path(path), image, upright) if holds_numbers else np.asarray(upright.convert("RGB"))
        colors = _color_table(image) if image.mode == "P" else None
        return Picture(pixels, pixels.shape[:2], image.format, orientation, colors)


def _stored_numbers(path: Path, image: Image.Image, upright: Image.Image) -> np.ndarray:
    """The numbers `(H, W)` of a picture with one channel; Pillow scales some of them."""
    pixels = np.asarray(upright)
    if image.mode == "1":
        return 255 * pixels.astype(np.uint8)  # as 8-bit masks have it
    bits = _bits_per_channel(path, image)
    if image.mode == "L" and bits in (2, 4):
        return pixels // (255 // (2**bits - 1))  # Pillow has spread 0 to 3, or 0 to 15, over 0 to 255
    return pixels


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is missing or makes no sense."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _color_table(image: Image.Image) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    stored = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    table[: len(stored)] = stored
    return table


@contextmanager
def _open_image(path: str | Path, numbers: bool = False) -> Iterator[Image.Image]:
    """The picture of a file; whatever is wrong with it becomes a `DataError` that names it."""
    path = Path(path)
    try:
        if not path.is_file():
            raise DataError(f"{path}: {_kind_of_non_file(path)}; replace or remove it")
        with Image.open(path) as image:
            _refuse_unsuitable(path, image, numbers)
            yield image
    except SemsegError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixelsError(f"{path}: {_TOO_LARGE}") from None
    except Image.UnidentifiedImageError:
        what = "an empty file" if path.stat().st_size == 0 else "not a picture that can be read"
        raise DataError(f"{path}: {what}; replace or remove it") from None
    except Exception as error:  # damaged files make decoders raise SyntaxError, TypeError and more
        raise DataError(f"{path}: cannot be read ({error}); replace or remove it") from None


def _kind_of_non_file(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if not path.exists():
        return "no such file"
    return "a folder, not a file" if path.is_dir() else "a pipe, socket or device, not a file"


def _refuse_unsuitable(path: Path, image: Image.Image, numbers: bool) -> None:
    """Raises a `DataError` for what the header shows to be too large, too deep or more than one picture."""
    if image.width * image.height > _MAX_PIXELS:
        raise TooManyPixelsError(f"{path}: {_TOO_LARGE}")
    if image.mode.startswith("I"):  # 16 or 32 bits in one channel
        fits = numbers
    else:
        fits = not image.mode.startswith("F") and _bits_per_channel(path, image) <= 8
    if not fits:
        raise DataError(f"{path}: holds 16-bit, 32-bit or float pixels; save it with 8 bits per channel")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a phone's JPEG with a second view
        raise DataError(f"{path}: holds {image.n_frames} pictures; save the right one alone")


def _bits_per_channel(path: Path, image: Image.Image) -> int:
    """From the header: Pillow opens 16-bit RGB as RGB and drops the lower half of each value."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))
    return 8


def load_images(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a pair as Kaggle's "Cityscapes image pairs" has them: photo on the left, colour mask on the right.

    Args:
        path: An image file of even width.

    Returns:
        Photo and colour mask, each uint8 RGB `(H, W / 2, 3)`, 0 to 255.

    Raises:
        DataError: The file cannot be read, or its width is odd.
    """
    return split_pair(read_image(path), path)


def split_pair(pair: np.ndarray, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Splits a picture into its left and its right half.

    Args:
        pair: `(H, W, 3)`.
        path: The file, for the message.

    Returns:
        Both halves, `(H, W / 2, 3)`, as views.

    Raises:
        DataError: The width is odd.
    """
    height, width = pair.shape[:2]
    if width % 2:
        raise DataError(
            f"{path}: is {width}x{height} pixels, an odd width; a pair holds photo and mask side by side, each of half "
            "the width: mend or remove it"
        )
    return pair[:, : width // 2], pair[:, width // 2 :]


def list_images(folder: Path) -> list[Path]:
    """Lists what is named like an image in a folder and below, in natural order (2.jpg before 10.jpg).

    Hidden files and folders are left out, and links to folders are not followed.

    Args:
        folder: An existing folder.

    Returns:
        Paths whose suffix is one of `IMAGE_SUFFIXES`; they need not be pictures.
    """
    images: list[Path] = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(path)
        elif path.is_dir() and not path.is_symlink():
            images += list_images(path)
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Digits by their value, other text as it stands; the path itself breaks ties such as 1 and 01."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], str(path)
