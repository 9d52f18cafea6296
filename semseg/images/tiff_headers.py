"""What the header of a TIFF says of its pages and bands; no pixel is decoded."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from semseg.images.mirrors import present

Tags = Mapping[int, Any]  # of one page, by TIFF's own numbers

COMPRESSION, BANDS = 259, 277
_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS = 254, 255, 256, 257, 258
_PHOTOMETRIC, _DESCRIPTION, _EXTRA, _FORMAT = 262, 270, 338, 339
_GDAL_METADATA, _GDAL_NODATA = 42112, 42113
_KEPT = (
    COMPRESSION, BANDS, _SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _DESCRIPTION, _EXTRA, _FORMAT,
    _GDAL_METADATA, _GDAL_NODATA,
)  # fmt: skip
_REDUCED_OR_MASK = 0b101  # bits of the tag 254
_COLOR_BANDS = {2: 3, 5: 4, 6: 3, 8: 3}  # RGB, CMYK, YCbCr, Lab; one band in all others
_ALPHA = (1, 2, 999)  # values of the tag 338: premultiplied, not premultiplied, and Corel's own
_KINDS = {1: "whole numbers", 2: "signed whole numbers", 3: "fractions"}


def read_directories(path: Path) -> list[dict[int, Any]]:
    """Reads the tags of each page that this module needs.

    Args:
        path: The file.

    Returns:
        Tags of each page, in the order of the file.

    Raises:
        OSError, SyntaxError: The file cannot be read, or is no TIFF; damaged ones may raise others.
    """
    return list(_directories(path, _KEPT))


def read_tags(path: Path, tags: Sequence[int]) -> dict[int, Any]:
    """Reads some tags of the first page.

    Args:
        path: The file.
        tags: By TIFF's own numbers.

    Returns:
        Those that are there.

    Raises:
        OSError, SyntaxError: As `read_directories`.
    """
    return next(_directories(path, tags), {})


def _directories(path: Path, kept: Sequence[int]) -> Iterator[dict[int, Any]]:
    places = set()
    with present(path), path.open("rb") as file:
        header = file.read(8)
        if 43 in header[2:4]:  # a BigTIFF
            header += file.read(8)
        directory = ImageFileDirectory_v2(header)
        while directory.next and directory.next not in places:
            places.add(directory.next)
            file.seek(directory.next)
            directory.load(file)
            yield {tag: directory[tag] for tag in kept if tag in directory}


def count_pages(path: Path) -> int:
    """Counts the pictures of a TIFF stack, from its header.

    Overviews, thumbnails and transparency masks are no pictures of their own.

    Args:
        path: Any file.

    Returns:
        The number of pictures; 1 for what is not named `.tif` or `.tiff`, and for what cannot be read.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1
    try:
        directories = read_directories(path)
    except Exception:  # reading the picture will say what is wrong
        return 1
    return max(1, len(full_pictures(directories)), images_in_one_page(directories))


def full_pictures(directories: Sequence[Tags]) -> list[int]:
    """Finds the pages that are pictures, not smaller copies or masks of another one.

    Args:
        directories: From `read_directories`.

    Returns:
        Their places, rising.
    """
    flagged = {i for i, tags in enumerate(directories) if _is_flagged(tags)}
    pages = [i for i in range(len(directories)) if i not in flagged] or list(range(len(directories)))[:1]
    sizes = {i: (directories[i].get(_HEIGHT, 0), directories[i].get(_WIDTH, 0)) for i in pages}
    largest = max(sizes.values(), key=lambda size: size[0] * size[1], default=(0, 0))
    return [i for i in pages if not _is_smaller_copy(sizes[i], largest)]


def _is_flagged(tags: Tags) -> bool:
    return bool(tags.get(_SUBFILE, 0) & _REDUCED_OR_MASK) or tags.get(_OLD_SUBFILE) == 2


def _is_smaller_copy(size: tuple[int, int], largest: tuple[int, int]) -> bool:
    """Whether a page has the shape of the largest one, but for rounding, and fewer pixels."""
    (height, width), (full_height, full_width) = size, largest
    return height < full_height and abs(width * full_height - height * full_width) <= full_height + full_width


def images_in_one_page(directories: Sequence[Tags]) -> int:
    """How many pictures ImageJ has put behind a single page, as it does in stacks of more than 4 GB; 0 for none.

    Args:
        directories: From `read_directories`.
    """
    return _imagej_number(directories[0], "images") if len(directories) == 1 else 0


def count_channels(tags: Tags) -> int:
    """How many pages are the channels of one picture, as ImageJ says; 0 where it says nothing.

    Args:
        tags: Of the first page.
    """
    return _imagej_number(tags, "channels")


def _imagej_number(tags: Tags, name: str) -> int:
    text = tags.get(_DESCRIPTION, "")
    match = re.search(rf"^{name}=(\d+)", text, re.MULTILINE) if str(text).startswith("ImageJ=") else None
    return int(match[1]) if match else 0


def count_unknown_bands(tags: Tags) -> int:
    """How many bands are neither a colour nor said to be alpha.

    Args:
        tags: Of the page.

    Example:
        >>> count_unknown_bands({262: 2, 277: 4}), count_unknown_bands({262: 2, 277: 4, 338: (2,)})
        (1, 0)
    """
    extra = tags.get(BANDS, 1) - _COLOR_BANDS.get(tags.get(_PHOTOMETRIC, 0), 1)
    return max(0, extra - sum(kind in _ALPHA for kind in tags.get(_EXTRA, ())))


def has_extra_band(tags: Tags) -> bool:
    """Whether there is one band beyond grey or the colours, whatever it is said to be.

    Args:
        tags: Of the page.
    """
    return tags.get(BANDS, 1) == 1 + _COLOR_BANDS.get(tags.get(_PHOTOMETRIC, 0), 1)


def area(tags: Tags) -> int:
    """How many pixels a page has.

    Args:
        tags: Of the page.
    """
    return int(tags.get(_WIDTH, 0)) * int(tags.get(_HEIGHT, 0))


def number_type(tags: Tags) -> str:
    """NumPy's name of the type that holds the numbers of a page; fractions of any length are `"float32"`.

    Args:
        tags: Of the page.

    Example:
        >>> number_type({258: (12, 12)}), number_type({258: (64,), 339: (3,)})
        ('uint16', 'float32')
    """
    kind = max(tags.get(_FORMAT, (1,)))
    if kind == 3:
        return "float32"
    bits = next((bits for bits in (8, 16, 32) if max_bits(tags) <= bits), 64)
    return f"{'int' if kind == 2 else 'uint'}{bits}"


def band_names(tags: Tags) -> tuple[str, ...]:
    """What GDAL notes as the bands' descriptions; empty unless each has one.

    Args:
        tags: Of the page.

    Example:
        >>> text = '<Item name="DESCRIPTION" sample="0" role="description">VV</Item>'
        >>> band_names({42112: text})
        ('VV',)
    """
    text = str(tags.get(_GDAL_METADATA, ""))
    found = re.findall(r'<Item name="DESCRIPTION" sample="(\d+)" role="description">([^<]*)</Item>', text)
    names = [name.strip() for _, name in sorted((int(sample), name) for sample, name in found)]
    return tuple(names) if len(names) == tags.get(BANDS, 1) and all(names) else ()


def nodata_number(tags: Tags) -> float | None:
    """The number that GDAL notes for pixels without data; None where it notes none.

    Args:
        tags: Of the page.

    Example:
        >>> nodata_number({42113: "-9999 "}), nodata_number({42113: "nan"})
        (-9999.0, None)
    """
    try:
        number = float(str(tags.get(_GDAL_NODATA, "")).strip(" \0"))
    except ValueError:
        return None
    return None if number != number else number


def is_inverted(tags: Tags) -> bool:
    """Whether the number 0 stands for white.

    Args:
        tags: Of the page.
    """
    return tags.get(_PHOTOMETRIC) == 0


def max_bits(tags: Tags) -> int:
    """Bits per channel, the most of all channels.

    Args:
        tags: Of the page.
    """
    return max(tags.get(_BITS, (1,)))


def describe_bands(tags: Tags) -> str:
    """Bands, bits and kind of a page that is no usual picture, in words.

    Args:
        tags: Of the page.

    Example:
        >>> describe_bands({258: (32,), 277: 5, 339: (3,)})
        'has 5 bands of 32-bit fractions'
    """
    bands, kind = tags.get(BANDS, 1), _KINDS.get(max(tags.get(_FORMAT, (1,))), "numbers of an unknown kind")
    return f"has {bands} band{'s' if bands > 1 else ''} of {max_bits(tags)}-bit {kind}"


def is_plain(tags: Tags) -> bool:
    """Whether bands and bits are those of an 8-bit grey or RGB picture.

    Args:
        tags: Of the page.
    """
    return max_bits(tags) <= 8 and tags.get(BANDS, 1) in (1, 3) and max(tags.get(_FORMAT, (1,))) == 1
