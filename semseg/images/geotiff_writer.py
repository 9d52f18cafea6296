"""GeoTIFF files written from top to bottom, at the place of the photo that they belong to."""

import warnings
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np


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

        self._row = 0
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            place = stack.enter_context(rasterio.open(photo))
            self._file = rasterio.open(
                path, "w", driver="GTiff", height=size[0], width=size[1], count=channels, dtype=np.dtype(dtype).name,
                crs=place.crs, transform=place.transform, nodata=nodata, compress="deflate", bigtiff="if_safer",
            )  # fmt: skip
        if colors is not None:
            self._file.write_colormap(1, {number: tuple(color) for number, color in enumerate(colors.tolist())})

    def write(self, rows: np.ndarray) -> None:
        """Adds rows below those that were written before.

        Args:
            rows: `(n, width)`, or `(n, width, 3)` for RGB, of the writer's dtype. All calls together give
                `height` rows.
        """
        bands = rows[None] if rows.ndim == 2 else np.moveaxis(rows, 2, 0)
        self._file.write(bands, window=((self._row, self._row + len(rows)), (0, rows.shape[1])))
        self._row += len(rows)

    def __enter__(self) -> "GeoTiffWriter":
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the file."""
        self._file.close()
