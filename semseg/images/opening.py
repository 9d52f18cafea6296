"""Opens image files by Pillow, and refuses what would not be read as it is."""

import json
import struct
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from threading import RLock

from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from semseg.errors import DataError, SemsegError, TooManyPixelsError
from semseg.images.mirrors import present
from semseg.images.tiff_headers import (
    BANDS,
    COMPRESSION,
    count_channels,
    count_unknown_bands,
    describe_bands,
    full_pictures,
    images_in_one_page,
    is_plain,
    max_bits,
    read_directories,
)

_DECODING = RLock()
_MAX_PIXELS = 89_478_485  # Pillow's own limit for what may be an attack
MAX_PIXELS_TO_LEARN = 1 << 29  # of a photo, read whole once
MAX_PIXELS_PER_BYTE = 1000  # of a file; photos have less than 100, and more is a picture of nothing, or an attack
LARGE_FORMATS: tuple[tuple[bytes, str, Callable[[Path], ImageFile]], ...] = (
    # how a file starts, GDAL's name for it, and Pillow's reader, without Pillow's limit on its pixels
    (b"\xff\xd8", "JPEG", JpegImagePlugin.jpeg_factory),
    (b"\x89PNG", "PNG", PngImagePlugin.PngImageFile),
    (b"II*\0", "GTiff", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", "GTiff", TiffImagePlugin.TiffImageFile),
    (b"II+\0", "GTiff", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", "GTiff", TiffImagePlugin.TiffImageFile),
    (b"RIFF", "WEBP", WebPImagePlugin.WebPImageFile),
    (b"BM", "BMP", BmpImagePlugin.BmpImageFile),
)


@contextmanager
def open_image(
    path: Path, numbers: bool = False, page: int | None = None, *, max_pixels: int = 0
) -> Iterator[Image.Image]:
    """Opens the picture of a file; whatever is wrong with it becomes an error that names it.

    Args:
        path: The file.
        numbers: Whether 16 and 32 bits and floats are wanted, as in masks.
        page: Which picture of a TIFF stack; None refuses a stack.
        max_pixels: How many it may have, if more than 89 million may be: JPEG, PNG, TIFF, WebP or BMP, and a photo
            only where its file is as large as one of so many pixels.

    Yields:
        The picture, closed afterwards.

    Raises:
        DataError: There is no such picture, or it is none that can be read without loss.
        TooManyPixelsError: It has more pixels than it may have.
    """
    try:
        with ExitStack() as stack:
            stack.enter_context(present(path))
            if not path.is_file():
                raise DataError(f"{path}: {_kind_of_non_file(path)}; replace or remove it")
            image = stack.enter_context(open_header(path))
            _refuse_too_large(path, image, numbers, max(max_pixels, _MAX_PIXELS))
            if image.width * image.height > _MAX_PIXELS:
                stack.enter_context(_without_pillows_limit())
            _select_page(path, image, page)
            _refuse_unsuitable(path, image, numbers)
            yield image
    except SemsegError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, _MAX_PIXELS) from None
    except Image.UnidentifiedImageError:
        raise DataError(f"{path}: {_describe_unknown(path, numbers)}") from None
    except Exception as error:  # damaged files make decoders raise SyntaxError, TypeError and more
        raise DataError(f"{path}: cannot be read ({error}); replace or remove it") from None


def open_header(path: Path) -> Image.Image:
    """Opens a picture of any size, of which only the header is read.

    By the format's own reader where there is one: Pillow takes many pixels alone for an attack.
    """
    with present(path):
        with path.open("rb") as file:
            start = file.read(4)
        for signature, _, reader in LARGE_FORMATS:
            if start.startswith(signature):
                with suppress(SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error):
                    return reader(path)
        return Image.open(_source_of(path))  # which also says what is wrong


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """While a large picture is decoded: one at a time, as each takes much memory."""
    with _DECODING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _refuse_too_large(path: Path, image: Image.Image, numbers: bool, max_pixels: int) -> None:
    pixels, stored = image.width * image.height, path.stat().st_size
    if pixels > max_pixels:
        raise _too_large(path, max_pixels)
    if pixels > max(_MAX_PIXELS, MAX_PIXELS_PER_BYTE * stored) and not numbers:
        raise DataError(no_photo(path, image.width, image.height, stored))


def _too_large(path: Path, max_pixels: int) -> TooManyPixelsError:
    return TooManyPixelsError(
        f"{path}: larger than {max_pixels / 1e6:.0f} million pixels; scale it down or leave it out"
    )


def no_photo(path: Path, width: int, height: int, stored: int) -> str:
    """What is said of a file of so many bytes that holds too little for its size."""
    return f"{path}: {width}x{height} pixels in {stored} bytes, which is no photo; replace or remove it"


def _source_of(path: Path) -> Path | BytesIO:
    """The file, or the picture that labelme's JSON holds in base64."""
    if path.suffix.lower() != ".json":
        return path
    return BytesIO(b64decode(json.loads(path.read_bytes())["imageData"]))


_MENDS = {
    False: "semseg reads 1 or 3 bands of 8 bits: save red, green and blue alone, with 8 bits each",
    True: "a mask needs one band of numbers of 8 or 16 bits, or three of colours of 8: save it so",
}  # by whether a mask is read


def _describe_unknown(path: Path, numbers: bool) -> str:
    """What a file holds that Pillow does not know, and how to mend it."""
    if path.stat().st_size == 0:
        return "an empty file; replace or remove it"
    try:
        tags = read_directories(path)[0]
    except Exception:  # no TIFF, or damaged
        return "not a picture that can be read; replace or remove it"
    if is_plain(tags):
        return f"a TIFF of a kind that cannot be read (compression {tags.get(COMPRESSION, 1)}); save it as PNG"
    return f"{describe_bands(tags)}; {_MENDS[numbers]}"


def _kind_of_non_file(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if not path.exists():
        return "no such file"
    return "a folder, not a file" if path.is_dir() else "a pipe, socket or device, not a file"


def _select_page(path: Path, image: Image.Image, page: int | None) -> None:
    """Turns to a page of a stack; raises a `DataError` where there is more than one picture and none was asked for."""
    count, frames = _find_pictures(path, image)
    if page is None and count > 1:
        raise DataError(_refuse_stack(path, image, count))
    place = page or 0
    if not 0 <= place < len(frames):
        raise DataError(f"{path}: holds {count} picture{'s' if count > 1 else ''}, and page {page} cannot be read")
    if frames[place]:
        image.seek(frames[place])


def _find_pictures(path: Path, image: Image.Image) -> tuple[int, list[int]]:
    """How many pictures there are, and the pages of a TIFF that can be read."""
    if image.format == "MPO":  # a phone's JPEG with a second view
        return 1, [0]
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1), [0]
    directories = read_directories(path) if image.tag_v2.next else [image.tag_v2]
    frames = full_pictures(directories)
    return max(len(frames), images_in_one_page(directories)), frames


def _refuse_stack(path: Path, image: Image.Image, count: int) -> str:
    if image.format == "TIFF" and count_channels(image.tag_v2) == count:
        return f"{path}: holds {count} channels as {count} pages; save them as one RGB picture"
    return f"{path}: holds {count} pictures; save the right one alone, or each in a file of its own"


def _refuse_unsuitable(path: Path, image: Image.Image, numbers: bool) -> None:
    """Raises a `DataError` for what the header shows to be too deep, or more bands than can be read."""
    deep = image.mode.startswith(("I", "F"))  # 16 or 32 bits in one channel
    if not (numbers if deep else bits_per_channel(image) <= 8):
        raise DataError(f"{path}: holds 16-bit, 32-bit or float pixels; save it with 8 bits per channel")
    _refuse_unknown_bands(path, image, numbers)


def _refuse_unknown_bands(path: Path, image: Image.Image, numbers: bool) -> None:
    """Raises a `DataError` for bands that Pillow would drop or take for alpha, unless they are the same everywhere."""
    if image.format == "TIFF":
        unknown = count_unknown_bands(image.tag_v2)
        bands = image.tag_v2.get(BANDS, 1)
    else:
        bands = len(image.getbands())
        unknown = image.format == "JPEG2000" and "A" in image.getbands() and not _jpeg2000_tells_alpha(path)
    if not unknown or ("A" in image.getbands() and len(set(image.getchannel("A").getextrema())) == 1):
        return
    which = {2: " (the second is not said to be alpha)", 4: " (the fourth is not said to be alpha)"}.get(bands, "")
    mend = "semseg reads 3: save red, green and blue alone"
    if bands == 2:
        mend = "semseg reads 1 or 3: save the grey one alone"
    raise DataError(f"{path}: has {bands} bands{which}; {_MENDS[True] if numbers else mend}")


def _jpeg2000_tells_alpha(path: Path) -> bool:
    """Whether the header defines what the channels are, which Pillow does not read."""
    with path.open("rb") as file:
        return b"cdef" in file.read(4096)


def bits_per_channel(image: Image.Image) -> int:
    """Tells how many bits the file has for each value: Pillow opens 16-bit RGB as RGB and drops the lower half.

    Args:
        image: Opened by `open_image`, not decoded yet.
    """
    if image.format == "PNG":
        return int(image.tile[0].args.partition(";")[2].rstrip("B") or 8)  # such as RGB;16B, which is not decoded yet
    if image.format == "TIFF":
        return max_bits(image.tag_v2)
    if image.format == "PPM" and image.tile:
        arguments = image.tile[0].args
        return arguments[-1].bit_length() if isinstance(arguments, tuple) and image.mode == "RGB" else 8
    return 8
