"""Photos that are no 8-bit RGB: what their files hold, and their numbers as they are stored."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from semseg.errors import DataError, SemsegError, is_installed, pip_install
from semseg.images.bands import MAX_BANDS, Bands, describe
from semseg.images.mirrors import is_mirrored, present
from semseg.images.opening import bits_per_channel, open_header, open_image
from semseg.images.tiff_headers import BANDS as BAND_COUNT
from semseg.images.tiff_headers import (
    Tags,
    area,
    band_names,
    count_channels,
    count_unknown_bands,
    full_pictures,
    has_extra_band,
    images_in_one_page,
    is_plain,
    nodata_number,
    number_type,
    read_directories,
)  # fmt: skip

ARRAY_SUFFIXES = {".npy", ".npz"}
_STARTS = {  # of files, whatever they are called
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF", b"\x93NUM": "array", b"PK\3\4": "array",
}  # fmt: skip
_ARRAY_NAMES = ("image", "photo", "img", "x", "data", "arr_0")  # of the photo among the arrays of an .npz file
_READ_BY_PILLOW = ("uint8", "uint16", "int16", "float32")  # of a single band
_MAX_NUMBERS = 1 << 31  # of a photo: 4 GB of 16 bits
_ALPHA_LEVELS, _MAX_AT_ENDS = 16, 0.5  # of alpha: few levels, or most pixels wholly opaque or transparent


@dataclass(frozen=True)
class Stored:
    """What the header of a photo's file says.

    Attributes:
        count: Of its bands.
        dtype: NumPy's name of its numbers; fractions of any length are `"float32"`.
        may_be_alpha: Whether the last band is said to be alpha; programs say so of infrared, too.
        is_plain: Whether it can be read as 8-bit RGB without loss.
        names: Of the bands; empty where nothing says them.
        nodata: The number for pixels without data, or None.
    """

    count: int
    dtype: str
    may_be_alpha: bool = False
    is_plain: bool = False
    names: tuple[str, ...] = ()
    nodata: float | None = None

    def fits(self, bands: Bands) -> bool:
        """Whether a photo can be read as these bands, its alpha dropped if need be."""
        fitting = self.count == bands.count or (self.may_be_alpha and self.count == bands.count + 1)
        return self.dtype == bands.dtype and fitting

    def __str__(self) -> str:
        """Number and depth in words."""
        return describe(self.count, self.dtype)


def look_at_header(path: Path, page: int | None = None) -> Stored:
    """What a file holds, by its header; no pixel is decoded.

    Args:
        path: A TIFF, PNG, NumPy or any other picture file.
        page: Which picture of a TIFF stack; None for one whose pages are its bands.

    Raises:
        DataError: It cannot be read, or holds no picture.
    """
    with _refusing(path):
        kind = _kind_of_file(path)
    if kind == "array":
        with _refusing(path):
            array = _open_array(path)
            count, dtype = _layout(path, array.shape)[1], _type_name(path, array.dtype)
            return Stored(count, dtype, is_plain=dtype == "uint8" and count in (1, 3))
    if kind == "TIFF":
        with _refusing(path):
            directories = read_directories(path)
            stored = _stored_in_tiff(directories, page)
            if stored.count * area(directories[0]) > _MAX_NUMBERS:
                raise DataError(f"{path}: has {stored.count} bands of {area(directories[0])} pixels; cut it into parts")
            return stored
    with _refusing(path), open_header(path) as image:
        return _stored_in_picture(image)


def _stored_in_tiff(directories: Sequence[Tags], page: int | None) -> Stored:
    tags, pages = directories[0], _pages_of_bands(directories, page)
    alpha = len(pages) == 1 and has_extra_band(tags) and not count_unknown_bands(tags)
    plain = number_type(tags) == "uint8" and len(pages) == 1 and (is_plain(tags) or alpha)
    count = tags.get(BAND_COUNT, 1) * len(pages)
    return Stored(count, number_type(tags), alpha, plain, band_names(tags), nodata_number(tags))


def _pages_of_bands(directories: Sequence[Tags], page: int | None) -> list[int]:
    """The pages that together are one picture: all full ones of a deep file, or of one whose pages are channels."""
    pages, tags = full_pictures(directories), directories[0]
    if page is not None:
        return pages[page : page + 1]
    if len(pages) > 1 and number_type(tags) == "uint8" and count_channels(tags) != len(pages):
        return pages[:1]  # reading it will refuse the stack
    return pages


def _stored_in_picture(image: Image.Image) -> Stored:
    bits, mode = bits_per_channel(image), image.mode
    if mode.startswith(("I", "F")):
        return Stored(1, "float32" if mode == "F" else "uint16")
    alpha = mode in ("LA", "RGBA")
    if bits > 8:
        return Stored(len(image.getbands()), "uint16", alpha)
    return Stored(4 if mode == "RGBA" else 1 if mode == "L" else 3, "uint8", mode == "RGBA", is_plain=True)


# --------------------------------------------------------------------------------------------------------- pixels


def read_bands(files: Sequence[Path], bands: Bands, page: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a photo as the bands that are wanted; where it has no data, the bands' means stand in.

    Args:
        files: Of the photo: one, or one for each band.
        bands: What it must hold.
        page: Which picture of a TIFF stack.

    Returns:
        The photo `(H, W, C)` of `bands.array_dtype`; and where one of its bands has no data, bool `(H, W)`, or None.

    Raises:
        DataError: It cannot be read, holds something else, or has no data anywhere.
    """
    pixels, absent = read_numbers(files, bands, page)
    if absent is None:
        return np.ascontiguousarray(pixels, bands.array_dtype), None
    without_data = absent.any(axis=2)
    if without_data.all():
        raise DataError(f"{files[0]}: holds no data anywhere (nodata or NaN in every pixel); leave it out")
    means = np.array(bands.mean)
    filled = np.where(absent, np.rint(means) if bands.array_dtype.kind == "u" else means, pixels)
    return filled.astype(bands.array_dtype), without_data


def read_numbers(files: Sequence[Path], bands: Bands, page: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a photo as it is stored.

    Args:
        files: Of the photo.
        bands: Number and depth that it must have.
        page: Which picture of a TIFF stack.

    Returns:
        The numbers `(H, W, C)`; and where there are none, nodata or NaN, bool `(H, W, C)`, or None.

    Raises:
        DataError: It cannot be read, or holds something else.
    """
    headers = [look_at_header(path, page) for path in files]
    _refuse_others(files, headers, bands)
    count = bands.count if len(files) == 1 else 1
    parts = [_read_one(path, header, count, page) for path, header in zip(files, headers, strict=True)]
    for path, part in zip(files, parts, strict=True):
        if part.shape[:2] != parts[0].shape[:2]:
            raise DataError(
                f"{path}: is {_size(part)} pixels, {files[0]} {_size(parts[0])}; the bands of a photo must be of one "
                "size: resample them"
            )
    absent = [_absent(part, header.nodata) for part, header in zip(parts, headers, strict=True)]
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    if all(one is None for one in absent):
        return pixels, None
    filled = [np.zeros(part.shape, bool) if one is None else one for part, one in zip(parts, absent, strict=True)]
    return pixels, np.concatenate(filled, axis=2)


def _refuse_others(files: Sequence[Path], headers: Sequence[Stored], bands: Bands) -> None:
    """Raises a `DataError` for a photo of other bands than are wanted."""
    if not bands.file_per_band:
        if headers[0].fits(bands) or (headers[0].is_plain and bands.count == 3 and bands.dtype == "uint8"):
            return
        raise DataError(f"{files[0]}: has {headers[0]}; expected {bands}, as the other photos have")
    for path, header in zip(files, headers, strict=True):
        if (header.count, header.dtype) != (1, bands.dtype):
            raise DataError(f"{path}: has {header}; expected {describe(1, bands.dtype)}, as the other files of bands")
    if len(files) != bands.count:
        there = {name for name in bands.names for path in files if name.lower() in str(path).lower()}
        missing = ", ".join(name for name in bands.names if name not in there)
        raise DataError(f"{files[0]}: lacks the bands {missing}; add a file for each, as the other photos have")


def _read_one(path: Path, header: Stored, count: int, page: int | None = None) -> np.ndarray:
    """One file as it is stored, `(H, W, count)`, without an alpha that is not wanted."""
    with _refusing(path):
        kind = _kind_of_file(path)
        if kind == "array":
            pixels = _array(path, count)
        elif kind == "TIFF" and not (header.count == 1 and header.dtype in _READ_BY_PILLOW):
            pixels = _read_tiff(path, page)
        else:
            pixels = _read_picture(path, header, page)
    if pixels.shape[2] != count and _varies(pixels[..., -1]):
        raise DataError(
            f"{path}: has {header}, of which the last is called alpha and varies as a picture does; expected "
            f"{describe(count, header.dtype)}"
        )
    return pixels[..., :count]


def _read_picture(path: Path, header: Stored, page: int | None) -> np.ndarray:
    if header.dtype == "uint16" and header.count > 1:
        return _read_deep_colors(path)
    with open_image(path, numbers=True, page=page) as image:
        mode = {1: image.mode if image.mode != "1" else "L", 4: "RGBA"}.get(header.count, "RGB")
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return pixels.astype(header.dtype, copy=False)


def _read_deep_colors(path: Path) -> np.ndarray:
    """A PNG of 16 bits and several bands: Pillow would drop the lower half, and OpenCV read one that is cut."""
    with Image.open(path) as image:
        image.load()
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise DataError(f"{path}: cannot be read with 16 bits; save it as TIFF")
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels[..., None]


def _read_tiff(path: Path, page: int | None) -> np.ndarray:
    if not is_installed("tifffile"):
        raise DataError(f"{path}: is a TIFF of several bands or great depth; run {pip_install('bands')}, to read it")
    import tifffile

    directories = read_directories(path)
    if images_in_one_page(directories) > 1:
        raise DataError(f"{path}: holds a stack of slices; {_NO_STACKS}")
    with tifffile.TiffFile(path) as file:
        pages = [file.pages[number] for number in _pages_of_bands(directories, page)]
        axes = file.series[0].axes if len(pages) > 1 else pages[0].axes
        if set(axes) & set("ZTD"):
            raise DataError(f"{path}: holds a stack of slices (axes {axes}); {_NO_STACKS}")
        _refuse_cut(path, pages)
        return np.concatenate([_decode(path, page) for page in pages], axis=2)


def _decode(path: Path, page: Any) -> np.ndarray:
    """The numbers of a page, `(H, W, C)`."""
    try:
        return _bands_last(page.asarray(), page.axes)
    except (ValueError, ImportError):
        if is_installed("imagecodecs"):
            raise
        raise DataError(f"{path}: is compressed by {page.compression.name}; run {pip_install('bands')}") from None


def _refuse_cut(path: Path, pages: Sequence[Any]) -> None:
    """Raises a `DataError` where the file ends before its pixels do."""
    ends = [
        offset + count for page in pages for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if max(ends) > path.stat().st_size:
        raise DataError(f"{path}: cannot be read (the file is cut); replace or remove it")


def _bands_last(pixels: np.ndarray, axes: str) -> np.ndarray:
    """`(H, W, C)` from the axes of a TIFF's page: `"YX"`, `"YXS"` or `"SYX"`."""
    if axes == "YX":
        return pixels[..., None]
    return np.moveaxis(pixels, 0, 2) if axes == "SYX" else pixels


_NO_STACKS = "semseg segments pictures, not volumes: save each slice as a picture with its mask"


# ---------------------------------------------------------------------------------------------------------- arrays


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy or .npz file: `(H, W, C)`, as it is stored; bool becomes uint8.

    Raises:
        DataError: It cannot be read, or has another shape.
    """
    with _refusing(path):
        return _array(path)


def _array(path: Path, count: int | None = None) -> np.ndarray:
    array = _open_array(path)
    order, _ = _layout(path, array.shape, count)
    pixels = np.transpose(array[..., None] if array.ndim == 2 else array, order)
    return np.asarray(pixels.astype(np.uint8) if pixels.dtype == bool else pixels)


def _open_array(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped into memory, or the photo of an .npz file."""
    arrays = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(arrays, np.ndarray):
        return arrays
    with arrays:
        names = list(arrays)
        name = next((name for name in _ARRAY_NAMES if name in names), names[0] if len(names) == 1 else None)
        if name is None:
            raise DataError(f"{path}: holds the arrays {', '.join(names)}; call the photo's image, or save it alone")
        return arrays[name]


def _layout(path: Path, shape: tuple[int, ...], count: int | None = None) -> tuple[tuple[int, int, int], int]:
    """How to turn an array into `(H, W, C)`, and C: the bands lie on its shortest side, the first or the last.

    Args:
        path: The file, for messages.
        shape: Of the array.
        count: C where it is known.
    """
    if len(shape) == 2:
        return (0, 1, 2), 1
    if len(shape) == 3 and min(shape) > 0:
        first, last = shape[0], shape[2]
        at_the_end = last == count if (first == count) != (last == count) else last <= first
        bands = last if at_the_end else first
        if bands <= MAX_BANDS and bands <= shape[1]:
            return ((0, 1, 2), bands) if at_the_end else ((1, 2, 0), bands)
    raise DataError(
        f"{path}: holds an array of {'x'.join(map(str, shape)) or 'one number'}; expected (H, W), (H, W, bands) or "
        f"(bands, H, W); {_NO_STACKS}"
    )


def _type_name(path: Path, dtype: np.dtype) -> str:
    if dtype.kind == "f":
        return "float32"
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind in "iu" and dtype.itemsize <= 4:
        return dtype.name
    raise DataError(f"{path}: holds numbers of the type {dtype.name}; save whole numbers of up to 32 bits, or floats")


# --------------------------------------------------------------------------------------------------------- helpers


def _absent(pixels: np.ndarray, nodata: float | None) -> np.ndarray | None:
    """Where a file has no data, bool `(H, W, C)`; None where it has data everywhere."""
    absent = ~np.isfinite(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)
    if nodata is not None:
        absent |= pixels == np.asarray(nodata).astype(pixels.dtype) if pixels.dtype.kind == "f" else pixels == nodata
    return absent if absent.any() else None


def varies_as_a_picture(path: Path, header: Stored) -> bool:
    """Whether the last band of a photo is more than alpha: it has many levels, and few pixels at the two ends.

    Args:
        path: The file.
        header: Of it.

    Raises:
        DataError: It cannot be read.
    """
    return _varies(_read_one(path, header, header.count)[..., -1])


def _varies(band: np.ndarray) -> bool:
    at_the_ends = np.mean((band == band.min()) | (band == band.max()))
    return bool(len(np.unique(band)) > _ALPHA_LEVELS and at_the_ends < _MAX_AT_ENDS)


def _kind_of_file(path: Path) -> str:
    """`"TIFF"`, `"array"` for NumPy's own forms, or empty for other pictures, by the file's first bytes."""
    with path.open("rb") as file:
        return _STARTS.get(file.read(4), "")


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turns whatever is wrong with a file into an error that names it."""
    if not path.is_file() and not is_mirrored(path):
        raise DataError(f"{path}: no such file; replace or remove it")
    try:
        with present(path):
            yield
    except SemsegError:
        raise
    except (zipfile.BadZipFile, EOFError):
        raise DataError(f"{path}: cannot be read (the file is damaged or cut); replace or remove it") from None
    except Exception as error:  # damaged files make decoders raise whatever they like
        raise DataError(f"{path}: cannot be read ({str(error) or type(error).__name__}); replace it") from None
