"""GeoTIFF files written from top to bottom, at the place of the photo that they belong to.

They are stored in tiles, with smaller copies of the picture (overviews), so that viewers open large ones at once.
"""

import warnings
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from semseg.images.mirrors import present

_TILE = 512  # side of the squares that a file is stored in, in pixels
_CACHE_MB = 64  # that GDAL may keep


def can_write_geotiff() -> bool:
    """Whether rasterio, of the extra `geo`, is installed."""
    return find_spec("rasterio") is not None


class GeoTiffWriter:
    """Writes a GeoTIFF row by row, with the transform and the coordinate system of a photo.

    Args:
        path: The file.
        size: (height, width).
        photo: A picture that rasterio can place: a GeoTIFF, or one with a world file.
        dtype: What the rows hold: uint8, or uint16.
        channels: 1, or 3 for RGB.
        colors: uint8 `(n, 3)`, n at most 256: what viewers show for the numbers.
        nodata: The number that stands for nothing; None where all stand for something.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        photo: Path,
        *,
        dtype: type = np.uint8,
        channels: int = 1,
        colors: np.ndarray | None = None,
        nodata: int | None = None,
    ):
        import rasterio

        self._path, self._size, self._row = path, size, 0
        self._waiting: list[np.ndarray] = []  # rows that do not yet fill tiles
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            stack.enter_context(present(photo))
            place = stack.enter_context(rasterio.open(photo))
            self._file = rasterio.open(
                path, "w", driver="GTiff", height=size[0], width=size[1], count=channels, dtype=np.dtype(dtype).name,
                crs=place.crs, transform=place.transform, nodata=nodata, compress="deflate", bigtiff="if_safer",
                tiled=True, blockxsize=_TILE, blockysize=_TILE,
            )  # fmt: skip
        if colors is not None:
            self._file.write_colormap(1, {number: tuple(color) for number, color in enumerate(colors.tolist())})

    def write(self, rows: np.ndarray) -> None:
        """Adds rows below those that were written before.

        Args:
            rows: `(n, width)`, or `(n, width, 3)` for RGB, of the writer's dtype. All calls together give
                `height` rows.
        """
        self._waiting.append(rows)
        whole = sum(map(len, self._waiting)) // _TILE * _TILE
        if whole:
            rows = np.concatenate(self._waiting)
            self._write(rows[:whole])
            self._waiting = [rows[whole:].copy()]

    def _write(self, rows: np.ndarray) -> None:
        bands = rows[None] if rows.ndim == 2 else np.moveaxis(rows, 2, 0)
        self._file.write(bands, window=((self._row, self._row + len(rows)), (0, rows.shape[1])))
        self._row += len(rows)

    def __enter__(self) -> "GeoTiffWriter":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Ends the file; after an error it is only closed."""
        import rasterio

        with self._file:
            rows = np.concatenate(self._waiting) if self._waiting else ()
            if kind is None and len(rows):
                self._write(rows)
        factors = [2**i for i in range(1, 16) if max(self._size) > _TILE << (i - 1)]
        if kind is None and factors:
            with (
                rasterio.Env(COMPRESS_OVERVIEW="DEFLATE", GDAL_CACHEMAX=_CACHE_MB),
                rasterio.open(self._path, "r+") as file,
            ):
                file.build_overviews(factors, rasterio.enums.Resampling.nearest)
