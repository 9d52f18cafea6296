"""Photos too large to be held in memory, read from top to bottom."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from semseg.errors import DataError, first_line, pip_install
from semseg.images.mirrors import present
from semseg.images.opening import LARGE_FORMATS, MAX_PIXELS_PER_BYTE, no_photo

_BAND_BYTES = 1 << 24  # that are read at once
_CACHE_MB = 64  # that GDAL may keep
_ORIENTATION = 0x0112  # the EXIF tag


class BigPicture:
    """A photo of any size on disk, read upright.

    Baseline JPEG, PNG and TIFF are decoded while they are read, in some 50 MB; progressive JPEG and interlaced PNG take
    what their decoder takes. One that its EXIF orientation turns is first copied, upright, to a scratch file.

    Args:
        path: The file.
        scratch: Folder for the scratch file, 3 bytes a pixel.

    Attributes:
        size: (H, W), upright.

    Raises:
        DataError: The file cannot be read as a photo of 8 bits per channel, or rasterio is not installed.
    """

    def __init__(self, path: Path, scratch: Path):
        self.path, self._scratch = path, scratch
        with present(path), path.open("rb") as file:
            start = file.read(4)
        matches = [(driver, reader) for signature, driver, reader in LARGE_FORMATS if start.startswith(signature)]
        if not matches:
            raise DataError(f"{path}: neither JPEG, PNG, TIFF, WebP nor BMP; save it as one of these")
        self._driver, reader = matches[0]
        with self._open() as source:
            size = source.height, source.width
        with present(path), reader(path) as image:
            orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)  # that of PNG would read all of the file
        self._orientation = orientation if orientation in range(1, 9) else 1
        self.size = size if self._orientation < 5 else size[::-1]

    def bands(self) -> Iterator[np.ndarray]:
        """The photo from top to bottom: uint8 RGB `(n, W, 3)`.

        Raises:
            DataError: The file is cut or damaged.
        """
        if self._orientation == 1:
            yield from self._stored_bands()
            return
        with tempfile.TemporaryFile(dir=self._scratch) as upright:
            self._copy_upright(upright)
            upright.seek(0)
            row_bytes = 3 * self.size[1]
            step = max(1, _BAND_BYTES // row_bytes)
            for row in range(0, self.size[0], step):
                rows = np.frombuffer(upright.read(min(step, self.size[0] - row) * row_bytes), np.uint8)
                yield rows.reshape(-1, self.size[1], 3)

    def _stored_bands(self) -> Iterator[np.ndarray]:
        with self._open() as source:
            step = max(1, _BAND_BYTES // (3 * source.width))
            for row in range(0, source.height, step):
                rows = min(step, source.height - row)
                yield _rgb(source, ((row, row + rows), (0, source.width)))

    def _copy_upright(self, upright: IO[bytes]) -> None:
        """Writes the turned picture; a band of rows may become one of columns."""
        transposed, row = self._orientation >= 5, 0
        flip_rows, flip_columns = self._orientation in (3, 4, 7, 8), self._orientation in (2, 3, 6, 7)
        # Bands follow each other along the columns of the result where it is transposed, else along its rows.
        from_the_end, length = (flip_columns, self.size[1]) if transposed else (flip_rows, self.size[0])
        for band in self._stored_bands():
            turned = band.swapaxes(0, 1) if transposed else band
            turned = turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
            offset = length - row - len(band) if from_the_end else row
            top, left = (0, offset) if transposed else (offset, 0)
            for i, pixels in enumerate(turned):
                upright.seek(3 * ((top + i) * self.size[1] + left))
                upright.write(pixels.tobytes())
            row += len(band)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        """The file in rasterio; whatever is wrong with it becomes an error that names it."""
        try:
            import rasterio
        except ImportError:
            raise DataError(
                f"{self.path}: larger than 89 million pixels; run {pip_install('geo')}, to read it piece by piece"
            ) from None
        options = {"GDAL_CACHEMAX": _CACHE_MB, "GDAL_ERROR_ON_LIBJPEG_WARNING": True}
        try:
            with present(self.path), warnings.catch_warnings(), rasterio.Env(**options):
                warnings.simplefilter("ignore")  # that it is no map
                with rasterio.open(self.path, driver=self._driver) as source:
                    self._refuse_unsuitable(source)
                    yield source
        except rasterio.errors.RasterioError as error:
            reason = first_line(error.__cause__ or error)
            raise DataError(f"{self.path}: cannot be read ({reason}); replace or remove it") from None

    def _refuse_unsuitable(self, source: Any) -> None:
        if set(source.dtypes) != {"uint8"} or source.colorinterp[0].name == "cyan":
            raise DataError(f"{self.path}: holds {source.dtypes[0]} pixels or CMYK; save it as RGB with 8 bits")
        colors = 3 if source.count >= 3 else 1
        if any(kind.name != "alpha" for kind in source.colorinterp[colors:]):
            raise DataError(
                f"{self.path}: has {source.count} bands, and what is in those after {colors} is not said to be alpha; "
                f"save the first {colors} alone"
            )
        stored = self.path.stat().st_size
        if source.width * source.height > MAX_PIXELS_PER_BYTE * stored:
            raise DataError(no_photo(self.path, source.width, source.height, stored))


def _rgb(source: Any, window: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Rows as RGB: grey three times, colours of a palette, without alpha."""
    if source.count >= 3:
        return np.ascontiguousarray(np.moveaxis(source.read((1, 2, 3), window=window), 0, -1))
    grey = source.read(1, window=window)
    if source.colorinterp[0].name != "palette":
        return np.repeat(grey[..., None], 3, axis=2)
    table = np.zeros((256, 3), np.uint8)
    for number, color in source.colormap(1).items():
        table[number] = color[:3]
    return table[grey]
