"""Strangers' pictures are decoded in a process of their own, which may crash or hang while the server lives on."""

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semseg.errors import DataError, SemsegError
from semseg.images.bands import RGB, Bands
from semseg.images.reading import read_photo
from semseg.images.resizing import resize_photo, size_within

DECODE_SECONDS = 20  # that a picture may take
_MAX_START_SECONDS = 120  # that the process may take to start on a busy machine
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Decoded:
    """A photo as it is needed.

    Attributes:
        size: (H, W) of the photo, upright.
        seen: `(h, w, C)`, as the network sees it; of the photo's size for one that sees tiles of it.
        shown: JPEG of the photo, upright, as people see it; of the photo's size where that is not too large.
        without_data: Where the photo has no data, bool `(H, W)`; None where it has data everywhere.
    """

    size: tuple[int, int]
    seen: np.ndarray
    shown: bytes
    without_data: np.ndarray | None = None


class Decoder:
    """Decodes one picture at a time.

    Args:
        image_size: (h, w) that the network sees photos at; None for their own size.
        enough: (height, width) in pixels that are decoded at least, see `semseg.images.reading.read_photo`; None for
            all of them.
        shown: Pixels of the longer side of what people see, at most.
        bands: What photos must hold.
    """

    def __init__(
        self,
        image_size: tuple[int, int] | None,
        enough: tuple[int, int] | None,
        shown: int,
        bands: Bands = RGB,
    ):
        self._arguments = image_size, enough, shown, bands
        self._process, self._connection = None, None
        self._start()

    def decode(self, path: Path) -> Decoded:
        """Decodes a file.

        Raises:
            DataError: It is no picture that can be used, or takes too long, or crashes the decoder.
        """
        if self._process is None or not self._process.is_alive():  # it may have been killed while nobody asked
            self.close()
            self._start()
        try:
            self._receive(_MAX_START_SECONDS)  # the process is ready
            self._connection.send(path)
            found = self._receive(DECODE_SECONDS)
        except TimeoutError:
            self.close()
            raise DataError(f"takes more than {DECODE_SECONDS} seconds to decode; save it in another form") from None
        except (EOFError, OSError):
            self.close()
            raise DataError("crashes the program that decodes it; save it in another form") from None
        if isinstance(found, str):
            raise DataError(found)
        return found

    def _receive(self, seconds: float) -> Decoded | str | None:
        if not self._connection.poll(seconds):
            raise TimeoutError
        return self._connection.recv()

    def close(self) -> None:
        """Ends the process, whatever it does; `decode` starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads of the backend half
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()


def _work(connection: Connection, *arguments: Any) -> None:
    """Says when it is ready before each file; ends with the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer
    while True:
        try:
            connection.send(None)
            path = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_decode(path, *arguments))


def _decode(
    path: Path, image_size: tuple[int, int] | None, enough: tuple[int, int] | None, shown: int, bands: Bands
) -> Decoded | str:
    """The photo, or what is wrong with it."""
    try:
        photo = read_photo(path, enough, bands=bands)
    except SemsegError as error:
        return str(error).removeprefix(f"{path}: ")
    except MemoryError:
        return "needs more memory than there is; scale it down"
    visible = jpeg(bands.view(photo.pixels), shown, photo.size)
    seen = photo.pixels if image_size is None else resize_photo(photo.pixels, image_size)
    return Decoded(photo.size, seen, visible, photo.without_data)


def jpeg(photo: np.ndarray, most: int, size: tuple[int, int] | None = None) -> bytes:
    """A JPEG file of a photo.

    Args:
        photo: uint8 RGB `(H, W, 3)`.
        most: Pixels of the longer side; larger photos are shrunk.
        size: (H, W) of the photo where `photo` was decoded at a reduced size.
    """
    small = resize_photo(photo, size_within(size or photo.shape, most))
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)[1].tobytes()
