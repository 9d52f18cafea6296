"""Where on Earth the pixels of a picture lie: from the tags of a GeoTIFF, or from a world file beside any picture."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import DataError, pip_install
from semseg.images.opening import open_header
from semseg.images.tiff_headers import read_tags

_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # tags of TIFF, and of GeoTIFF (OGC 19-008r4):
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _NUMBERS, _TEXTS = 34735, 34736, 34737
_TAGS = (_WIDTH, _HEIGHT, _ORIENTATION, _PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS, _NUMBERS, _TEXTS)
_RASTER_TYPE, _POINT = 1025, 2  # the key that says whether places are those of corners or of centres, and the latter
_SYSTEMS = (3072, 2048)  # the keys of a projected and of a geographic system
_USER_DEFINED = 32767
_SAME = 0.5  # pixels that corners may be apart in grids that are the same
_ROWS = 256  # of a grid that are computed at a time
_WORLD_FILE = re.compile(r"[-+\d.eE]+")


@dataclass(frozen=True)
class Georeference:
    """Where on Earth the pixels of a picture lie.

    Attributes:
        transform: (a, b, c, d, e, f): the point `column, row` of the picture, 0, 0 at its upper left corner, lies at
            x = a * column + b * row + c and y = d * column + e * row + f.
        system: The coordinates' system, such as `"EPSG:32633"`, or a text that tells it from others; empty where
            nothing says it.
        size: (H, W) of the picture; None from a world file.
    """

    transform: tuple[float, float, float, float, float, float]
    system: str = ""
    size: tuple[int, int] | None = None

    def matrix(self) -> np.ndarray:
        """The transform as a matrix `(3, 3)` for columns (column, row, 1)."""
        return np.array([self.transform[:3], self.transform[3:], (0, 0, 1)], float)


def read_georeference(path: Path) -> Georeference | None:
    """Reads where a picture lies.

    Args:
        path: A picture.

    Returns:
        What its own tags say, else a world file beside it (`.tfw`, `.pgw`, `.jgw`, `.wld` ...); None where neither
        does, or where it is placed by ground control points.
    """
    return georeference_of_tags(path) or _of_world_file(path)


def georeference_of_tags(path: Path) -> Georeference | None:
    """Reads where a GeoTIFF lies, by its own tags.

    Args:
        path: A picture.

    Returns:
        None for what is no GeoTIFF, or is placed by ground control points.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        tags = read_tags(path, _TAGS)
        transform = _transform(tags)
    except Exception:  # reading the picture will say what is wrong
        return None
    if transform is None or tags.get(_ORIENTATION, 1) != 1:
        return None
    return Georeference(transform, _system(tags), (tags[_HEIGHT], tags[_WIDTH]))


def _transform(tags: Mapping[int, Any]) -> tuple[float, float, float, float, float, float] | None:
    """The transform for corners of pixels."""
    if len(tags.get(_TRANSFORMATION, ())) == 16:
        a, b, _, c, d, e, _, f = map(float, tags[_TRANSFORMATION][:8])
    elif _PIXEL_SCALE in tags and len(tags.get(_TIE_POINTS, ())) == 6:
        width, height, *_ = map(float, tags[_PIXEL_SCALE])
        column, row, _, x, y, _ = map(float, tags[_TIE_POINTS])
        a, b, c, d, e, f = width, 0.0, x - column * width, 0.0, -height, y + row * height
    else:
        return None
    if _keys(tags).get(_RASTER_TYPE) == _POINT:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return a, b, c, d, e, f


def _keys(tags: Mapping[int, Any]) -> dict[int, int]:
    """The keys that hold a number themselves."""
    rows = np.array(tags.get(_KEYS, ()), np.int64)
    rows = rows[: len(rows) // 4 * 4].reshape(-1, 4)[1:]
    return {int(key): int(value) for key, place, _, value in rows if place == 0}


def _system(tags: Mapping[int, Any]) -> str:
    keys = _keys(tags)
    code = next((keys[key] for key in _SYSTEMS if keys.get(key, 0) > 0), None)
    if code is not None and code != _USER_DEFINED:
        return f"EPSG:{code}"
    described = (tags.get(_KEYS, ())[4:], tags.get(_NUMBERS, ()), tags.get(_TEXTS, ""))
    return f"described by {described}" if any(described) else ""


def _of_world_file(path: Path) -> Georeference | None:
    suffix = path.suffix
    names = {f"{suffix[:2]}{suffix[-1:]}w", f"{suffix}w", ".wld"}
    for file in (path.with_suffix(name) for name in sorted(names) if suffix):
        if os.path.isfile(file):  # noqa: PTH113  Path.is_file raises on names that are too long
            numbers = _WORLD_FILE.findall(file.read_text(encoding="ascii", errors="replace"))
            try:
                a, d, b, e, x, y = map(float, numbers)
            except ValueError:
                raise DataError(
                    f"{file}: holds {len(numbers)} numbers; a world file holds 6: mend or remove it"
                ) from None
            return None if _is_turned(path) else Georeference((a, b, x - (a + b) / 2, d, e, y - (d + e) / 2))
    return None


def _is_turned(path: Path) -> bool:
    """Whether it is read in another orientation than it is stored, for which its world file does not hold."""
    try:
        with open_header(path) as image:
            return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # reading the picture will say what is wrong
        return True


def write_world_file(picture: Path, georeference: Georeference) -> Path:
    """Writes the world file of a picture beside it.

    Args:
        picture: Its path; it need not be there yet.
        georeference: Of the picture.

    Returns:
        The file, `.pgw` for `.png`.
    """
    a, b, c, d, e, f = georeference.transform
    suffix = picture.suffix
    path = picture.with_suffix(f"{suffix[:2]}{suffix[-1:]}w")
    numbers = (a, d, b, e, c + (a + b) / 2, f + (d + e) / 2)
    path.write_text("".join(f"{number!r}\n" for number in numbers), encoding="ascii")
    return path


# ------------------------------------------------------------------------------------ one picture on another's pixels


def is_same_grid(one: Georeference, other: Georeference) -> bool:
    """Whether the pixels of two pictures lie on each other.

    Args:
        one: With a size.
        other: With a size.
    """
    if one.size != other.size or not _same_system(one, other):
        return False
    height, width = one.size or (0, 0)
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    apart = np.linalg.inv(one.matrix()) @ other.matrix() @ corners - corners
    return bool(np.abs(apart).max() < _SAME)


def _same_system(one: Georeference, other: Georeference) -> bool:
    return one.system == other.system or not one.system or not other.system


def lay_on(pixels: np.ndarray, source: Georeference, target: Georeference, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Lays a mask on the pixels of another picture, by where both lie on Earth.

    Args:
        pixels: `(h, w)` or `(h, w, 3)`; each pixel of the result takes the one that its centre falls into.
        source: Of the mask.
        target: Of the other picture, with its size (H, W).
        path: The mask's file, for messages.

    Returns:
        `(H, W)` or `(H, W, 3)`, 0 outside of the mask; and where that is, bool `(H, W)`.

    Raises:
        DataError: Both are in different systems, and rasterio is not installed or cannot tell one from the other; or
            they show nothing in common.
    """
    height, width = target.size or (0, 0)
    laid = np.zeros((height, width, *pixels.shape[2:]), pixels.dtype)
    outside = np.ones((height, width), bool)
    to_pixels = np.linalg.inv(source.matrix())
    for top in range(0, height, _ROWS):
        rows, columns = np.mgrid[top : min(top + _ROWS, height), :width] + 0.5
        points = target.matrix() @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
        if not _same_system(source, target):
            points[:2] = to_system(points[:2], target.system, source.system, path)
        column, row = np.floor((to_pixels @ points)[:2] + 1e-6).reshape(2, *rows.shape)
        inside = (column >= 0) & (column < pixels.shape[1]) & (row >= 0) & (row < pixels.shape[0])
        laid[top : top + _ROWS][inside] = pixels[row[inside].astype(int), column[inside].astype(int)]
        outside[top : top + _ROWS] = ~inside
    if outside.all():
        raise DataError(
            f"{path}: shows none of the ground that its photo shows; give the mask of that photo, or mend the "
            "georeference of one of them"
        )
    return laid, outside


def to_system(points: np.ndarray, system: str, other: str, path: Path) -> np.ndarray:
    """The coordinates of points in another system.

    Args:
        points: x and y, `(2, M)`.
        system: Theirs.
        other: The one that is wanted.
        path: The file, for messages.

    Returns:
        `(2, M)`.

    Raises:
        DataError: rasterio is not installed, or cannot tell one from the other.
    """
    try:
        from rasterio.errors import CRSError
        from rasterio.warp import transform
    except ImportError:
        raise DataError(
            f"{path}: is in another coordinate system than its photo, {system} and {other}; run {pip_install('geo')}, "
            "to lay it on the photo"
        ) from None
    try:
        return np.array(transform(system, other, *points))
    except CRSError:
        raise DataError(
            f"{path}: is in another coordinate system than its photo, and one of them is not known; save both in one"
        ) from None
