"""PNG files written from top to bottom, so that pictures larger than the memory can be written.

Our own, because Pillow, OpenCV and imagecodecs want the whole picture, and libvips is LGPL. pypng is as fast, but takes
rows from an iterator, where several files are written side by side here, and files of masks get 1.3 to 1.9 times as
large, as it knows no filters.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

_LEVEL = 1  # of zlib; with differences between rows, masks get hardly smaller by more
_GREY, _RGB, _PALETTE = 0, 2, 3
_UP = 2  # the filter: every byte as its difference from the one above


class PngWriter:
    """Writes a PNG row by row.

    Args:
        path: The file.
        size: (height, width).
        dtype: What the rows hold: uint8, or uint16 for grey pictures of 16 bits.
        channels: 1 for grey or a palette, 3 for RGB.
        colors: uint8 `(n, 3)`, n at most 256: makes the numbers those of a palette, which viewers show in these.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mask.png"
        >>> with PngWriter(path, (2, 3)) as png:
        ...     png.write(np.uint8([[0, 1, 2]]))
        ...     png.write(np.uint8([[3, 4, 5]]))
        >>> from PIL import Image
        >>> np.asarray(Image.open(path)).tolist()
        [[0, 1, 2], [3, 4, 5]]
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        *,
        dtype: type = np.uint8,
        channels: int = 1,
        colors: np.ndarray | None = None,
    ):
        self._file, self._deflate = path.open("wb"), zlib.compressobj(_LEVEL)
        self._dtype = np.dtype(dtype).newbyteorder(">")
        self._above = np.zeros((1, size[1] * channels * self._dtype.itemsize), np.uint8)
        kind = _RGB if channels == 3 else _GREY if colors is None else _PALETTE
        self._file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8 * self._dtype.itemsize, kind, 0, 0, 0))
        if colors is not None:
            self._chunk(b"PLTE", np.asarray(colors, np.uint8).tobytes())

    def write(self, rows: np.ndarray) -> None:
        """Adds rows below those that were written before.

        Args:
            rows: `(n, width)`, or `(n, width, 3)` for RGB, of the writer's dtype. All calls together give
                `height` rows.
        """
        stored = np.ascontiguousarray(rows, self._dtype).view(np.uint8).reshape(len(rows), -1)
        filtered = np.empty((len(rows), 1 + stored.shape[1]), np.uint8)
        filtered[:, 0] = _UP
        np.subtract(stored, np.concatenate([self._above, stored[:-1]]), out=filtered[:, 1:])
        self._above = stored[-1:].copy()
        self._chunk(b"IDAT", self._deflate.compress(filtered))

    def __enter__(self) -> "PngWriter":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        """Ends the file; after an error it is only closed."""
        with self._file:
            if kind is None:
                self._chunk(b"IDAT", self._deflate.flush())
                self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, data: bytes) -> None:
        if data or name == b"IEND":
            self._file.write(struct.pack(">I", len(data)) + name + data)
            self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))
