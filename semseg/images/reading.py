"""Image files to arrays: photos as RGB or as bands, masks as they are stored, pairs in one picture, files of a folder.

Pillow reads them, because OpenCV returns a full picture for a file that was cut in the middle.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from semseg.errors import DataError
from semseg.images.band_reading import ARRAY_SUFFIXES, read_array, read_bands
from semseg.images.bands import RGB, Bands
from semseg.images.opening import bits_per_channel, open_image
from semseg.images.tiff_headers import is_inverted
from semseg.images.transparency import describe_alpha, find_transparent, read_alpha

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif", ".jp2", ".tga",
    ".ppm", ".pgm", ".pbm", ".pnm", *ARRAY_SUFFIXES,
}  # fmt: skip

_ORIENTATION = 0x0112  # the EXIF tag
_NODATA = 42113  # GDAL's tag
_JPEG = ("JPEG", "MPO")
_MODES_OF_NUMBERS = ("1", "L", "LA", "P", "PA", "I", "I;16", "I;16B", "F")  # Pillow's modes of one channel, and alpha
_MAX_NUMBER = 65535  # in a mask


@dataclass(frozen=True)
class Picture:
    """What an image file holds.

    Attributes:
        pixels: A photo: uint8 RGB `(h, w, 3)`, or bands `(h, w, C)` in the file's own numbers. A mask: colours, uint8
            `(H, W, 3)`, or numbers, `(H, W)`, as stored.
        size: (H, W) of the whole picture, upright.
        form: Of a photo what had to be converted, `"grey"`, `"alpha"`, `"CMYK"` ..., else empty; of a mask its format.
        orientation: The EXIF orientation that was undone, 1 to 8; 1 is upright.
        colors: What the numbers of a palette image look like, uint8 `(256, 3)`; None for other files.
        transparent: Of a mask the pixels that were left transparent, or hold no data by GDAL's tag, bool `(H, W)`;
            `pixels` are 0 there. None where there are none, and for photos.
        without_data: Of a photo the pixels that hold nodata or NaN in a band, bool `(H, W)`; `pixels` are the bands'
            means there. None where there are none, and for masks.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    form: str = ""
    orientation: int = 1
    colors: np.ndarray | None = None
    transparent: np.ndarray | None = None
    without_data: np.ndarray | None = None


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB, upright (EXIF orientation applied).

    Pillow reads it, because OpenCV returns a full picture for a file that was cut in the middle.

    Args:
        path: A file of any of `IMAGE_SUFFIXES`; its content tells the format, not its name.

    Returns:
        uint8 `(H, W, 3)`, 0 to 255.

    Raises:
        DataError: The file is missing, empty, cut, no picture, 16-bit, float or absurdly large; or it holds more than
            one picture, or bands that are neither a colour nor said to be alpha.
    """
    return read_photo(path).pixels


_FORMS = {"L": "grey", "LA": "alpha", "RGBA": "alpha", "PA": "alpha", "P": "palette", "1": "1-bit"}


def read_photo(
    path: str | Path,
    at_least: tuple[int, int] | None = None,
    *,
    page: int | None = None,
    bands: Bands = RGB,
    files: Sequence[Path] = (),
    max_pixels: int = 0,
) -> Picture:
    """Reads a photo; its pixels are uint8 RGB, or the bands that are wanted.

    Args:
        path: The file; of a photo with a file for each band the first.
        at_least: (height, width) that are enough: a large JPEG is then decoded at 1/2, 1/4 or 1/8, which is faster.
        page: Which picture of a TIFF stack, 0 to `count_pages(path) - 1`; None refuses a stack.
        bands: What the photo must hold.
        files: All files of the photo, where each band has its own.
        max_pixels: As in `open_image`, of an RGB photo.

    Raises:
        DataError: As `read_image`; or it holds other bands, or no data at all.
    """
    if not bands.are_rgb:
        pixels, without_data = read_bands(files or [Path(path)], bands, page)
        return Picture(pixels, pixels.shape[:2], without_data=without_data)
    if Path(path).suffix.lower() in ARRAY_SUFFIXES:
        return _photo_of_array(Path(path))
    with open_image(Path(path), page=page, max_pixels=max_pixels) as image:
        orientation = _orientation(image)
        size = image.size[::-1] if orientation < 5 or image.format == "TIFF" else image.size  # TIFFs tell it turned
        if at_least and image.format in _JPEG:
            image.draft(None, at_least[::-1] if orientation < 5 else at_least)
        upright = _turn_upright(image, orientation)
        pixels = np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
        return Picture(pixels, size, _photo_form(image.mode, upright), orientation)


def _photo_of_array(path: Path) -> Picture:
    pixels = read_array(path)
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        raise DataError(f"{path}: holds {pixels.dtype} of {pixels.shape}; expected uint8, grey or RGB")
    return Picture(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), pixels.shape[:2], "NumPy")


def _photo_form(mode: str, upright: Image.Image) -> str:
    if upright.has_transparency_data:
        alpha = read_alpha(upright, np.asarray(upright))
        if alpha is not None:
            return describe_alpha(alpha)
    return "" if mode == "RGB" else _FORMS.get(mode, mode)


def read_mask(path: str | Path, *, page: int | None = None, max_pixels: int = 0) -> Picture:
    """Reads a mask as it is stored: indices of a palette image, numbers of a grey one (16 bits too), or colours.

    JPEG changes numbers, so that grey JPEG masks are given as colours, for a palette to be found.

    Args:
        path: The file.
        page: As in `read_photo`.
        max_pixels: As in `open_image`.

    Returns:
        Its picture; `pixels` are integers `(H, W)`, or uint8 RGB `(H, W, 3)`, and 0 where it is transparent.

    Raises:
        DataError: As `read_image`, but 16 and 32 bits are refused in colour masks only, and floats only where they are
            no whole numbers from 0 to 65535.
    """
    if Path(path).suffix.lower() in ARRAY_SUFFIXES:
        return _mask_of_array(Path(path))
    with open_image(Path(path), numbers=True, page=page, max_pixels=max_pixels) as image:
        scale = _number_scale(image)  # before the orientation, for which a PNG is decoded
        orientation = _orientation(image)
        upright = _turn_upright(image, orientation)
        holds_numbers = image.format not in _JPEG and image.mode in _MODES_OF_NUMBERS
        pixels = _stored_numbers(Path(path), upright, scale) if holds_numbers else np.asarray(upright.convert("RGB"))
        pixels, transparent = _blank_transparent(Path(path), upright, pixels, _nodata(image))
        colors = _color_table(image) if image.mode in ("P", "PA") else None
        form = "JPEG" if image.format in _JPEG else image.format
        return Picture(pixels, pixels.shape[:2], form, orientation, colors, transparent)


def _mask_of_array(path: Path) -> Picture:
    """A mask in NumPy's own form: numbers `(H, W)`, or colours, uint8 `(H, W, 3)`."""
    pixels = read_array(path)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.ndim == 3 and (pixels.shape[2] != 3 or pixels.dtype != np.uint8):
        raise DataError(f"{path}: holds {pixels.dtype} of {pixels.shape}; a mask needs (H, W), or uint8 (H, W, 3)")
    if pixels.ndim == 2:
        pixels = _whole_numbers(path, pixels) if pixels.dtype.kind == "f" else _smallest_type(pixels)
    return Picture(pixels, pixels.shape[:2], "NumPy")


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    return upright.convert("LA") if upright.mode == "La" else upright  # premultiplied: nothing else can be made of it


def _number_scale(image: Image.Image) -> tuple[int, bool]:
    """The number that is stored for what Pillow gives as its largest, and whether Pillow has inverted the numbers."""
    if image.format == "PPM":
        arguments = image.tile[0].args
        return (arguments[-1] if isinstance(arguments, tuple) else 0), False
    bits = bits_per_channel(image)
    inverted = image.format == "TIFF" and image.mode == "L" and is_inverted(image.tag_v2)
    return (2**bits - 1 if image.mode == "L" and bits in (2, 4) else 0), inverted


def _stored_numbers(path: Path, upright: Image.Image, scale: tuple[int, bool]) -> np.ndarray:
    """The numbers `(H, W)` of a picture with one channel; Pillow scales or inverts some of them."""
    pixels = np.asarray(upright.getchannel(0) if upright.mode in ("LA", "PA") else upright)
    if upright.mode == "1":
        return 255 * pixels.astype(np.uint8)  # as 8-bit masks have it
    if upright.mode == "F":
        return _whole_numbers(path, pixels)
    stored_most, inverted = scale
    if inverted:
        pixels = 255 - pixels
    if stored_most:
        pixels = np.rint(pixels * (stored_most / (255 if upright.mode == "L" else _MAX_NUMBER))).astype(np.uint16)
    return pixels if pixels.dtype == np.uint8 else _smallest_type(pixels)


def _whole_numbers(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Integers from floats that hold nothing else, as ImageJ and others save labels."""
    if not np.isfinite(pixels).all():
        raise DataError(f"{path}: holds NaN or infinity; a mask needs whole numbers from 0 to {_MAX_NUMBER}: mend it")
    fractions = pixels[pixels != np.rint(pixels)]
    if len(fractions):
        raise DataError(
            f"{path}: holds fractions, such as {fractions[0]:.3g}; a mask needs whole numbers from 0 to {_MAX_NUMBER}: "
            "save the numbers of the classes"
        )
    if pixels.min() < 0 or pixels.max() > _MAX_NUMBER:
        raise DataError(
            f"{path}: holds the numbers {pixels.min():.0f} to {pixels.max():.0f}; a mask needs whole numbers from 0 to "
            f"{_MAX_NUMBER}: mend it"
        )
    return _smallest_type(pixels)


def _smallest_type(pixels: np.ndarray) -> np.ndarray:
    """Whole numbers as uint8 or uint16, in the machine's own order of bytes; others as int32."""
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > _MAX_NUMBER:
        return pixels.astype(np.int32)
    return pixels.astype(np.uint8 if high <= 255 else np.uint16)


def _blank_transparent(
    path: Path, upright: Image.Image, pixels: np.ndarray, nodata: float | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The pixels of a mask, 0 where it is transparent or holds no data, and where that is."""
    alpha = read_alpha(upright, pixels) if upright.has_transparency_data else None
    transparent = None if alpha is None else find_transparent(alpha, pixels, str(path))
    if nodata is not None and pixels.ndim == 2:
        without = pixels == nodata
        transparent = without if transparent is None else transparent | without
    if transparent is None or not transparent.any():
        return pixels, None
    pixels = pixels.copy()
    pixels[transparent] = 0
    return pixels, transparent


def _nodata(image: Image.Image) -> float | None:
    """The number that stands for no data, as GDAL writes it into a TIFF."""
    text = image.tag_v2.get(_NODATA) if image.format == "TIFF" else None
    try:
        return float(str(text).rstrip("\0"))
    except ValueError:
        return None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is missing or makes no sense."""
    orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def _color_table(image: Image.Image) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    stored = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    table[: len(stored)] = stored
    return table


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
    return sorted(map(Path, find_images(folder)), key=natural_key)


def find_images(folder: Path | str, leave_out: Callable[[str], bool] | None = None) -> Iterator[str]:
    """Finds the files of `list_images` one by one, in no order.

    Args:
        folder: An existing folder.
        leave_out: Tells folders inside that are not looked into.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122
                yield entry.path
            elif entry.is_dir(follow_symlinks=False) and not (leave_out and leave_out(entry.path)):
                yield from find_images(entry.path, leave_out)


def natural_key(path: Path | str) -> tuple[list[tuple[int, str]], str]:
    """Digits by their value, other text as it stands; the path itself breaks ties such as 1 and 01."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts], str(path)
