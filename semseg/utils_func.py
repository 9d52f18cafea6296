"""Image files and arrays: read photos and masks, split a pair, turn masks into class ids and ids into colours.

This room knows arrays and image files only. Photos and colour masks are uint8 RGB `(H, W, 3)`; class ids are uint8
`(H, W)`, 0 to K-1, and `IGNORE` (255) where a pixel counts nowhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from semseg import IGNORE
from semseg.errors import DataError, SemsegError, TooManyPixelsError
from semseg.palettes import Color, Palette, color_codes, colors_of_codes, squared_distances
from semseg.repair import repair_mask

_UNSEEN, _UNKNOWN = 254, 253
_MAX_PIXELS = 89_478_485  # Pillow's own limit for what may be an attack
_TOO_LARGE = "larger than 89 million pixels; scale it down or leave it out"
_ORIENTATION = 0x0112  # the EXIF tag
_JPEG = ("JPEG", "MPO")


@dataclass(frozen=True)
class Picture:
    """What an image file holds.

    Attributes:
        pixels: A photo: uint8 RGB `(h, w, 3)`. A mask: colours, uint8 `(H, W, 3)`, or numbers, `(H, W)`, as stored.
        size: (H, W) of the whole picture, upright.
        form: Of a photo what had to be converted, `"grey"`, `"alpha"`, `"CMYK"` ..., else empty; of a mask its format.
        orientation: The EXIF orientation that was undone, 1 to 8; 1 is upright.
        colors: What the numbers of a palette image look like, uint8 `(256, 3)`; None for other files.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    form: str = ""
    orientation: int = 1
    colors: np.ndarray | None = None


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB, upright (EXIF orientation applied).

    Pillow reads it, because OpenCV returns a full picture for a file that was cut in the middle.

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
    with _opened(path) as image:
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

    Raises:
        DataError: As `read_image`; 16 bits per channel are refused in colour masks only.
    """
    with _opened(path, numbers=True) as image:
        orientation = _orientation(image)
        upright = image if orientation == 1 else ImageOps.exif_transpose(image)
        colors = None
        if image.format in _JPEG or image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            pixels = np.asarray(upright.convert("RGB"))
        else:
            pixels = np.asarray(upright)
            pixels = 255 * pixels.astype(np.uint8) if image.mode == "1" else pixels  # as 8-bit masks have it
            bits = _bits_per_channel(Path(path), image)
            pixels = (
                pixels // (255 // (2**bits - 1)) if image.mode == "L" and bits in (2, 4) else pixels
            )  # Pillow scaled
            colors = _color_table(image) if image.mode == "P" else None
        return Picture(pixels, pixels.shape[:2], image.format, orientation, colors)


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
def _opened(path: str | Path, numbers: bool = False) -> Iterator[Image.Image]:
    """The picture of a file; whatever is wrong with it becomes a `DataError` that names it."""
    path = Path(path)
    try:
        if not path.is_file():
            raise DataError(f"{path}: {_what_it_is(path)}; replace or remove it")
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


def _what_it_is(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if not path.exists():
        return "no such file"
    return "a folder, not a file" if path.is_dir() else "a pipe, socket or device, not a file"


def _refuse_unsuitable(path: Path, image: Image.Image, numbers: bool) -> None:
    """Raises a `DataError` for what the header shows to be too large, too deep or more than one picture."""
    if image.width * image.height > _MAX_PIXELS:
        raise TooManyPixelsError(f"{path}: {_TOO_LARGE}")
    deep = image.mode.startswith("I")
    if image.mode.startswith("F") or (deep and not numbers) or (not deep and _bits_per_channel(path, image) > 8):
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
    """The left and the right half of a picture `(H, W, 3)`; `path` is for the message when its width is odd."""
    height, width = pair.shape[:2]
    if width % 2:
        raise DataError(
            f"{path}: is {width}x{height} pixels, an odd width; a pair holds photo and mask side by side, each of half "
            "the width: mend or remove it"
        )
    return pair[:, : width // 2], pair[:, width // 2 :]


def bin_image(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """Turns a mask into class ids.

    Args:
        mask: Colours, uint8 RGB `(H, W, 3)`: each pixel gets the class of the nearest colour in the palette or, where
            the palette says that the colours are blended along borders, the class that what lies around it speaks for.
            Or numbers, integer `(H, W)`, for a palette with values.
        palette: What the colours or numbers mean.

    Returns:
        uint8 ids `(H, W)`: 0 to K-1, or 255 (`IGNORE`) for what is no class, unknown or in doubt. Equal distances go to
        the label that comes first.

    Raises:
        SemsegError: `mask` is of another kind.

    Example:
        >>> palette = Palette.of(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
        >>> bin_image(np.array([[[127, 66, 128], [70, 130, 180], [0, 255, 0]]], np.uint8), palette)
        array([[  0,   1, 255]], dtype=uint8)
    """
    return quantise(mask, palette)[0]


def quantise(mask: np.ndarray, palette: Palette) -> tuple[np.ndarray, np.ndarray]:
    """Does what `bin_image` does, and tells the unknown from what is known to be no class.

    Returns:
        uint8 ids, and where the mask could not be understood, bool; both `(H, W)`.
    """
    kind = np.integer if palette.holds_values else np.uint8
    if (
        not np.issubdtype(mask.dtype, kind)
        or mask.ndim != (2 if palette.holds_values else 3)
        or (mask.ndim == 3 and mask.shape[2] != 3)
    ):
        expected = "integer numbers (H, W)" if palette.holds_values else "uint8 RGB of shape (H, W, 3)"
        raise SemsegError(f"bin_image: got a mask of {mask.dtype} {mask.shape}; expected {expected}")
    if palette.holds_values:
        ids = _ids_of_values(mask, palette)
    elif palette.blended:
        colors, labels = _known_colors(palette)
        ids = repair_mask(mask, colors, np.where(labels == IGNORE, _UNSEEN, labels))
        ids = _NO_CLASS_OR_DOUBT.take(ids)
    else:
        ids = _ids_of_colors(mask, palette)
    unknown = ids == _UNKNOWN
    ids[unknown] = IGNORE
    return ids, unknown


_NO_CLASS_OR_DOUBT = np.arange(256, dtype=np.uint8)  # repair_mask gives 255 for doubt, and back what it was given
_NO_CLASS_OR_DOUBT[[_UNSEEN, IGNORE]] = IGNORE, _UNKNOWN


def _ids_of_values(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 ids, `_UNKNOWN` for numbers that no label has."""
    table = _id_of_value(palette)
    if mask.dtype == np.uint8:
        return table[:256].take(mask)
    outside = (mask < 0) | (mask >= len(table))
    ids = table.take(np.where(outside, 0, mask))
    ids[outside] = _UNKNOWN
    return ids


@lru_cache(maxsize=4)
def _id_of_value(palette: Palette) -> np.ndarray:
    table = np.full(max(256, 1 + max(label.value for label in palette.labels)), _UNKNOWN, np.uint8)
    for label in palette.labels:
        table[label.value] = label.id
    return table


def _known_colors(palette: Palette) -> tuple[np.ndarray, np.ndarray]:
    """Colours uint8 `(M, 3)` and ids uint8 `(M,)` of all labels."""
    return (
        np.array([label.color for label in palette.labels], np.uint8),
        np.array([label.id for label in palette.labels], np.uint8),
    )


def _ids_of_colors(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 ids of the nearest colours, `_UNKNOWN` for those too far from all."""
    table = _id_of_color(palette)
    codes = color_codes(mask)
    ids = table.take(codes)
    unseen = ids == _UNSEEN
    if unseen.any():
        new = np.unique(codes[unseen])
        table[new] = _nearest_ids(colors_of_codes(new), palette)
        ids = table.take(codes)
    return ids


@lru_cache(maxsize=4)
def _id_of_color(palette: Palette) -> np.ndarray:
    """A table from each of the 2^24 colours to its id, filled as colours turn up: a full fill would take seconds.

    Threads may share it: two that fill the same entry write the same value.
    """
    return np.full(1 << 24, _UNSEEN, np.uint8)


def _nearest_ids(colors: np.ndarray, palette: Palette) -> np.ndarray:
    known, ids = _known_colors(palette)
    squared = squared_distances(colors, known)
    nearest = squared.argmin(axis=1)
    far = squared[np.arange(len(colors)), nearest] > palette.max_distance**2
    return np.where(far, np.uint8(_UNKNOWN), ids[nearest])


def get_segmentation_arr(ids: np.ndarray, num_classes: int) -> np.ndarray:
    """Turns class ids into one-hot vectors.

    Args:
        ids: Integer `(H, W)`, 0 to K-1 or 255.
        num_classes: K.

    Returns:
        uint8 `(H, W, K)`: a single 1 per pixel, none where the pixel is ignored.

    Raises:
        SemsegError: An id is neither a class nor 255.

    Example:
        >>> get_segmentation_arr(np.array([[0, 1, 255]]), 2).tolist()
        [[[1, 0], [0, 1], [0, 0]]]
    """
    wrong = (ids != IGNORE) & ((ids < 0) | (ids >= num_classes))
    if wrong.any():
        raise SemsegError(
            f"get_segmentation_arr: got id {ids[wrong].flat[0]} at {int(wrong.sum())} pixels; "
            f"expected 0 to {num_classes - 1}, or {IGNORE} to ignore"
        )
    return (ids[..., None] == np.arange(num_classes)).astype(np.uint8)


def give_color_to_seg_img(ids: np.ndarray, palette: Palette, ignore_color: Color = (0, 0, 0)) -> np.ndarray:
    """Paints class ids in the colours of their classes.

    Args:
        ids: Integer `(H, W)`, 0 to K-1 or 255.
        palette: The palette whose ids these are.
        ignore_color: RGB colour of ignored pixels.

    Returns:
        uint8 RGB `(H, W, 3)`.

    Example:
        >>> palette = Palette.of(("road", "sky"), ((128, 64, 128), (70, 130, 180)))
        >>> give_color_to_seg_img(np.array([[0, 255]]), palette).tolist()
        [[[128, 64, 128], [0, 0, 0]]]
    """
    table = np.empty((256, 3), np.uint8)
    table[:] = ignore_color
    table[: palette.num_classes] = palette.colors
    return table[ids]


def resize_photo(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 RGB to (height, width): by area where both sides shrink, so that nothing is aliased."""
    if photo.shape[:2] == tuple(size):
        return photo
    shrinks = photo.shape[0] > size[0] and photo.shape[1] > size[1]
    return cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def size_within(size: tuple[int, ...], longest: int) -> tuple[int, int]:
    """(height, width) of a picture as it is, or shrunk until no side is longer than that; at least 1x1.

    Example:
        >>> size_within((300, 600), 512), size_within((30, 60), 512)
        ((256, 512), (30, 60))
    """
    factor = min(1.0, longest / max(size[:2]))
    return max(1, round(factor * size[0])), max(1, round(factor * size[1]))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 ids `(H, W)` to (height, width) by nearest neighbour, so that no class is invented."""
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
