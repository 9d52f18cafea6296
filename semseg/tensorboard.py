"""Logs for TensorBoard: curves and pictures in an event file, on every backend.

The format is small: records of length, checksum and a protocol buffer of five fields. Writing it here takes no package;
those that write it load TensorFlow or PyTorch in runs on other backends.

Reference: https://github.com/tensorflow/tensorboard, `compat/proto/event.proto` and `compat/proto/summary.proto`;
the checksum is CRC-32C, RFC 3720, appendix B.4.
"""

import io
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from PIL import Image

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types of protocol buffers
_IMAGE_SIDE = 1024  # pixels at most


class EventLog:
    """An event file in a folder, open for appending; each record is on disk before the next one.

    Args:
        folder: Where the file goes; made where it is missing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with EventLog(folder) as log:
        ...     log.scalars({"loss/training": 0.5}, step=1)
        >>> [path.name[:19] for path in folder.iterdir()]
        ['events.out.tfevents']
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("ab", buffering=0)
        self._write(_field(3, _BYTES, b"brain.Event:2"))

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Appends a value to each of the curves named `group/curve`."""
        found = (_field(1, _BYTES, name.encode()) + _field(2, _FLOAT, value) for name, value in values.items())
        self._summary(b"".join(_field(1, _BYTES, value) for value in found), step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Appends a picture, uint8 RGB `(H, W, 3)`."""
        picture, data = Image.fromarray(image), io.BytesIO()
        picture.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
        picture.save(data, "JPEG", quality=90)
        shape = _field(1, _VARINT, picture.height) + _field(2, _VARINT, picture.width) + _field(3, _VARINT, 3)
        value = _field(1, _BYTES, name.encode()) + _field(4, _BYTES, shape + _field(4, _BYTES, data.getvalue()))
        self._summary(_field(1, _BYTES, value), step)

    def _summary(self, summary: bytes, step: int) -> None:
        self._write(_field(2, _VARINT, step) + _field(5, _BYTES, summary))

    def _write(self, event: bytes) -> None:
        event = _field(1, _DOUBLE, time.time()) + event
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked_crc(length) + event + _masked_crc(event))


class LogEpochs(keras.callbacks.Callback):
    """Appends loss, accuracy, mean IoU and learning rate after every epoch."""

    def __init__(self, log: EventLog):
        super().__init__()
        self.log = log

    def on_epoch_end(self, epoch, logs=None):
        """Appends the epoch's values, training and validation to one chart."""
        kinds = {name: "validation" if name.startswith("val_") else "training" for name in logs}
        values = {f"{name.removeprefix('val_')}/{kinds[name]}": float(value) for name, value in logs.items()}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.log.scalars({**values, "learning_rate": rate}, epoch + 1)


def _field(number: int, wire_type: int, value: float | int | bytes) -> bytes:
    """A field of a protocol buffer."""
    key = _varint(number << 3 | wire_type)
    if wire_type == _BYTES:
        return key + _varint(len(value)) + value
    if wire_type == _VARINT:
        return key + _varint(value)
    return key + struct.pack("<d" if wire_type == _DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; all but the last byte have their highest bit set."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def _masked_crc(data: bytes) -> bytes:
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
