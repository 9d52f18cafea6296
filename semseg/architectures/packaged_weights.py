"""Weights that lie in Python packages: found without running the package, known by their checksum, read without torch.

PyTorch's files up to version 1.5 are pickles, which can run any code where they are read as such. Here they may name
four things, none of which does anything, and every number that they give is checked.
"""

import hashlib
import importlib.util
import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from semseg.errors import MissingPackageError, SemsegError, first_line, pip_install

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

Storage = tuple[str, str, int]  # key, dtype and length
View = tuple[Storage, int, tuple[int, ...], tuple[int, ...]]  # of a storage: offset, sizes and strides in elements


@dataclass(frozen=True)
class WeightsPackage:
    """Where weights lie.

    Args:
        name: Of the distribution, as pip knows it.
        version: The one that holds them.
        file: Path inside of the package, which is called as the distribution, with `_` for `-`.
        sha256: Of the file.
    """

    name: str
    version: str
    file: str
    sha256: str

    def read(self) -> dict[str, np.ndarray]:
        """The tensors of the file by name.

        Raises:
            MissingPackageError: The package is not installed.
            SemsegError: It is of another version, or its file is not the one that is meant.
        """
        path = self._path()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SemsegError(f"`encoder_weights`: {path} cannot be read ({error.strerror}); {self._again()}") from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise SemsegError(f"`encoder_weights`: {path} is not the file of {self.name} {self.version}, whose SHA-256 "
                              f"begins with {self.sha256[:8]}; it was changed or cut: {self._again()}")  # fmt: skip
        try:
            return read_tensors(content)
        except ValueError as error:
            raise SemsegError(f"`encoder_weights`: {path}: {error}; {self._again()}") from None

    @property
    def is_installed(self) -> bool:
        """Whether the package is there, in the version that is meant."""
        return self._folder() is not None and self._installed_version() == self.version

    def _folder(self) -> str | None:
        spec = importlib.util.find_spec(self.name.replace("-", "_"))
        return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None

    def _installed_version(self) -> str:
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return "unknown"

    def _path(self) -> Path:
        folder, version = self._folder(), self._installed_version()
        if folder is None:
            raise MissingPackageError(
                f"`encoder_weights`: the package {self.name}, which holds them, is not installed; run "
                f"{pip_install('pretrained')}, or use `encoder_weights` none"
            )
        if version != self.version:
            raise SemsegError(
                f"`encoder_weights`: {self.name} is installed in version {version}, and the weights of {self.version} "
                f"are meant; {self._again()}"
            )
        return Path(folder, self.file)

    def _again(self) -> str:
        return f"run pip uninstall -y {self.name}, then pip install {self.name}=={self.version}"


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Reads a dictionary of tensors that PyTorch up to 1.5 saved, without PyTorch and without running what it says.

    Args:
        content: Of the whole file.

    Returns:
        Arrays of float32 or int64 by name, in memory of their own.

    Raises:
        ValueError: It is no such file, asks for anything else than float32 and int64 tensors, or is cut.
    """
    stream = io.BytesIO(content)
    try:
        if (_Numbers(stream).load(), _Numbers(stream).load()) != (_MAGIC, _PROTOCOL):
            raise ValueError("another format")
        if _Numbers(stream).load().get("little_endian") is not True:
            raise ValueError("numbers of another byte order")
        views, keys = _Views(stream).load(), _Numbers(stream).load()
        storages = _read_storages(stream, keys, views)
        return {name: _array(view, storages) for name, view in views.items()}
    except Exception as error:  # damaged pickles raise errors of many kinds
        raise ValueError(f"is no dictionary of tensors of PyTorch up to 1.5 ({first_line(error)})") from None


def _rebuilt(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> View:
    return storage, offset, size, stride


class _Numbers(pickle.Unpickler):
    """Reads plain numbers, texts, lists and dictionaries, and refuses everything that has to be looked up."""

    known: ClassVar[Mapping[str, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Gives what stands for a name in the file."""
        if f"{module}.{name}" not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[f"{module}.{name}"]


class _Views(_Numbers):
    """Reads which parts of which storages the tensors are."""

    known: ClassVar[Mapping[str, Any]] = {
        "collections.OrderedDict": OrderedDict,
        "torch._utils._rebuild_tensor_v2": _rebuilt,
        "torch.FloatStorage": "<f4",
        "torch.LongStorage": "<i8",
    }

    def persistent_load(self, pid: Any) -> Storage:
        """Gives the storage that a tensor lies in."""
        kind, dtype, key, _, length, part = pid
        if kind != "storage" or dtype not in ("<f4", "<i8") or part is not None:
            raise pickle.UnpicklingError(f"it asks for a storage {kind!r}")
        return key, dtype, length


def _read_storages(stream: io.BytesIO, keys: list[str], views: Mapping[str, View]) -> dict[str, np.ndarray]:
    """The numbers behind the pickles, by key."""
    declared = {storage[0]: storage for storage, *_ in views.values()}
    storages = {}
    for key in keys:
        _, dtype, length = declared[key]
        content = stream.read(8 + length * np.dtype(dtype).itemsize)
        if int.from_bytes(content[:8], "little") != length:
            raise ValueError(f"storage {key} has another length")
        storages[key] = np.frombuffer(content, dtype, length, offset=8)
    return storages


def _array(view: View, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    (key, dtype, _), offset, size, stride = view
    numbers = storages[key]
    if not all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride)):
        raise ValueError("a tensor lies at no whole numbers")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if numbers.dtype != dtype or last >= len(numbers) or not 0 < math.prod(size) <= len(numbers):
        raise ValueError("a tensor lies beyond its storage")
    steps = [step * numbers.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps, writeable=False).copy()
