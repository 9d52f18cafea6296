"""Which photos are meant: those of a folder, a pattern or a list, a million of them without holding their names."""

import glob
import heapq
import os
import re
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import DataError, SemsegError
from semseg.files import default_folder
from semseg.images.addresses import checked_address, is_address, look_at, walk
from semseg.images.band_files import group_band_files
from semseg.images.bands import Bands
from semseg.images.mirrors import bring, is_mirrored, name_of, path_of, present
from semseg.images.reading import IMAGE_SUFFIXES, find_images, list_images, natural_key
from semseg.runs import names

LIST_SUFFIX = ".txt"
_IN_ORDER = 100_000  # photos that are sorted at once; more of a folder are predicted as they are found
_IN_MEMORY = 1 << 20  # bytes of names; more lie in a file that nobody sees
_EXPECTED = "give a photo, a folder, a pattern, a list (.txt), a video or a camera's number"


@dataclass(frozen=True)
class Shard:
    """One of several parts of the photos, by their names alone: other photos that come or go move none of them.

    Attributes:
        number: From 1 on.
        count: How many parts there are.

    Raises:
        SemsegError: There is no such part.

    Example:
        >>> [shard.holds("a.jpg") for shard in (Shard(1, 2), Shard(2, 2))]
        [True, False]
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SemsegError(f"`shard`: got {self}; expected a part from 1/{self.count} to {self.count}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The part that a text such as `"2/3"` names.

        Raises:
            SemsegError: It names none.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(count)):
            raise SemsegError(f"`shard`: got {text!r}; expected a part and how many there are, such as 1/3, or auto")
        return cls(int(number), int(count))

    def holds(self, name: str) -> bool:
        """Whether a photo of this name belongs to this part."""
        return self.count == 1 or zlib.crc32(os.fsencode(name)) % self.count == self.number - 1


class Photos:
    """Photos with the names that they go by, read anew from a scratch file each time that they are gone through.

    Args:
        root: The folder that paths are relative to.
        paths: Of photos, below the root with `/` between folders, or absolute; none holds a zero byte.
        key: Of the order in which tables name photos; None where that is the order of `paths`.
        groups: All files of a photo by its name, where each of its bands has its own.
    """

    def __init__(
        self, root: Path, paths: Iterable[str], key: Callable[[str], Any] | None = None,
        groups: Mapping[str, Sequence[Path]] | None = None,
    ):  # fmt: skip
        self.root, self._key, self._groups = root, key, groups or {}
        paths = iter(paths)
        first = sorted(islice(paths, _IN_ORDER), key=key) if key else ()
        self._paths = _Spool(first, paths)
        self._is_sorted = key is None or len(self._paths) <= _IN_ORDER
        self._naming = Naming(lambda: (name for name, _ in self._pairs()))

    def __len__(self) -> int:
        return len(self._paths) - self._naming.repetitions

    def __iter__(self) -> Iterator[tuple[str, tuple[Path, ...]]]:
        """Each photo once, its name and its files, in an order to work in."""
        seen: dict[str, str] = {}
        for name, path in self._pairs():
            if self._naming.repetitions and self._naming.may_repeat(name):
                before = seen.setdefault(name, path)
                if before != path:
                    raise DataError(f"{path}: goes by the name of {self.root / before}; predict them apart")
                if before is not path:
                    continue
            yield name, tuple(self._groups.get(name) or (self.root / path,))

    def in_order(self) -> Iterator[tuple[str, tuple[Path, ...]]]:
        """The same in the order of tables."""
        if not self._is_sorted:
            found, runs = iter(self._paths), []
            while run := sorted(islice(found, _IN_ORDER), key=self._key):
                runs.append(_Spool(run))
            self._paths = _Spool(heapq.merge(*runs, key=self._key))
            self._is_sorted = True
        return iter(self)

    def only(self, wanted: Iterable[Path]) -> "Photos":
        """Some of these photos, by their paths."""
        start = os.path.join(self.root, "")  # noqa: PTH118
        return Photos(self.root, [str(path).removeprefix(start).replace(os.sep, "/") for path in wanted])

    def stem_of(self, name: str) -> str:
        """The name that a photo's files go by: without the suffix, unless another's would be the same."""
        return self._naming.stem_of(name)

    def _pairs(self) -> Iterator[tuple[str, str]]:
        """The names and paths: what lies elsewhere goes by its whole path."""
        for path in self._paths:
            if os.path.isabs(path):  # noqa: PTH117
                yield (name_of(path) if is_mirrored(path) else os.path.splitdrive(path)[1].lstrip("/\\")), path
            else:
                yield path, path


class Naming:
    """What files of results are called, so that no two photos get the same.

    Args:
        names: Gives the names of all photos, each time anew.

    Attributes:
        repetitions: How many names stood there before.
    """

    def __init__(self, names: Callable[[], Iterable[str]]):
        likely = _repeated(_stem(name).lower() for name in names())
        stems: dict[str, set[str]] = {}
        self.repetitions = 0
        for name in names() if likely else ():
            stem = _stem(name).lower()
            if hash(stem) in likely:
                whole = stems.setdefault(stem, set())
                self.repetitions += name in whole
                whole.add(name)
        self._stems = frozenset(stems)
        self._ambiguous = frozenset(stem for stem, whole in stems.items() if len(whole) > 1)
        self._always_whole = False
        if self._ambiguous:
            final = {name: self.stem_of(name).lower() for whole in stems.values() for name in whole}
            taken = set(final.values())
            clash = len(taken) < len(final) or any(
                _stem(name).lower() in taken and name not in final for name in names()
            )
            self._always_whole = clash

    def stem_of(self, name: str) -> str:
        """The name of a photo's files, without their suffix."""
        stem = _stem(name)
        return name if self._always_whole or stem.lower() in self._ambiguous else stem

    def may_repeat(self, name: str) -> bool:
        """Whether another photo shares the name up to its suffix, or all of it."""
        return _stem(name).lower() in self._stems


def _repeated(texts: Iterable[str]) -> frozenset[int]:
    """Hashes that several texts have: 8 bytes each, of a million."""
    hashes = np.frombuffer(array("q", map(hash, texts)), np.int64)
    hashes.sort()
    return frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    stem, point, suffix = file.rpartition(".")
    return f"{folder}{slash}{stem}" if stem and point and suffix else name


class _Spool:
    """Texts one after the other, in memory while they are few, else in a file that nobody sees."""

    def __init__(self, *parts: Iterable[str]):
        self._file, self._count = tempfile.SpooledTemporaryFile(_IN_MEMORY), 0  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        texts = chain.from_iterable(parts)
        while some := list(islice(texts, 1000)):
            self._file.write(b"".join([os.fsencode(text) + b"\0" for text in some]))
            self._count += len(some)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        offset, rest = 0, b""
        while True:
            self._file.seek(offset)
            data = self._file.read(1 << 17)
            if not data:
                return
            offset += len(data)
            *whole, rest = (rest + data).split(b"\0")
            yield from map(os.fsdecode, whole)


# ------------------------------------------------------------------------------------------------- what a user names


def photos_of(what: str, output: Path | str, kinds: Iterable[str]) -> Photos:
    """The photos by the name that they go by: their path below the folder that was named, or that a list lies in.

    Args:
        what: A photo, a folder, a pattern, or a list: a text file with a path in each line, relative to its folder, or
            an address. A photo that stands in it twice counts once. All but a pattern may be an address; the files of
            such photos are there only inside of `present`.
        output: The folder of predictions, or its address, whose own files are no photos; nor are other results of
            semseg.
        kinds: The folders in it.

    Raises:
        DataError: There are none, or a list is none.
        ResourceError: An address cannot be read.
    """
    place, output = Path(what), str(output)
    if is_address(what):
        photos = _at_address(checked_address(what), output, kinds)
    elif place.is_dir():
        results = _Results(place, Path(output), kinds)
        photos = Photos(place, _below(place, find_images(place, results.hold), results), natural_key)
    elif glob.has_magic(what) and not place.exists():
        root = _fixed_part(place)
        results = _Results(root, Path(output), kinds)
        matches = (str(path) for path in root.glob(str(place.relative_to(root))) if path.is_file())
        wanted = (path for path in matches if not results.hold(os.path.dirname(path)))  # noqa: PTH120
        photos = Photos(root, _below(root, wanted, results), lambda path: path.split("/"))
    elif place.suffix.lower() == LIST_SUFFIX and place.is_file():
        photos = Photos(place.parent, _lines(place))
    elif place.exists():
        photos = Photos(place.parent, [place.name])
    else:
        raise DataError(f"{what}: no such file; {_EXPECTED}")
    if not len(photos):
        raise DataError(f"{what}: holds no photos; {_EXPECTED}")
    return photos


def _at_address(address: str, output: str, kinds: Iterable[str]) -> Photos:
    path = path_of(address, default_folder())
    if look_at(address) is None:
        place = checked_address(output) if is_address(output) else output
        own = {f"{place}/{kind}" for kind in kinds}
        files = walk(address, lambda folder, files: f"{address}/{folder}" in own or names.holds_results(files))
        return Photos(path, _pictures_among((name for name, _ in files), path), natural_key)
    if path.suffix.lower() != LIST_SUFFIX:
        return Photos(path.parent, [path.name])
    with present(path):
        return Photos(path.parent, _lines(path))


def _pictures_among(files: Iterable[str], root: Path) -> Iterator[str]:
    """Names of photos; what tells their places is fetched on the way, as nothing else would ask for it."""
    for name in files:
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if suffix in IMAGE_SUFFIXES:
            yield name
        elif re.fullmatch(r"\.(\w{1,4}w|wld|prj)", suffix) or name.lower().endswith(".aux.xml"):
            bring(root / name)


def _below(root: Path, paths: Iterable[str], results: "_Results") -> Iterator[str]:
    """Paths relative to the root; without links to our own results."""
    start = os.path.join(root, "")  # noqa: PTH118
    for path in () if results.hold(str(root)) else paths:
        if not os.path.islink(path) or not results.hold_target(path):  # noqa: PTH114
            yield path.removeprefix(start).replace(os.sep, "/")


def _lines(path: Path) -> Iterator[str]:
    """The paths of a list, as plain as they can be, so that one photo has one."""
    folder = path.absolute().parent
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            if "\0" in text:
                raise DataError(
                    f"{path}: line {number} holds a zero byte; expected a text file with a path in each line"
                )
            if "://" in text and is_address(text):
                whole = str(path_of(text.strip(), default_folder()))
                text = whole.removeprefix(os.path.join(folder, ""))  # noqa: PTH118
            elif text[0] in "./\\~" or "/." in text or "//" in text or os.sep != "/":
                text = _plain(text, folder)
            if is_mirrored(path) and os.path.isabs(text) and not is_mirrored(text):  # noqa: PTH117
                raise DataError(f"{path}: line {number} leads out of the bucket; give a path below it, or an address")
            yield text


def _plain(text: str, folder: Path) -> str:
    whole = os.path.normpath(folder / text)
    inside = os.path.join(folder, "")  # noqa: PTH118
    return (whole[len(inside) :] if whole.startswith(inside) else whole).replace(os.sep, "/")


class _Results:
    """Tells folders that hold results of semseg, below a root."""

    def __init__(self, root: Path, output: Path, kinds: Iterable[str]):
        self._own = {os.path.realpath(output / kind) for kind in kinds}
        self._real_root = os.path.realpath(root)
        roots = [str(root), "" if str(root) == "." else str(root), self._real_root]
        self._known = dict.fromkeys(roots, self.own(self._real_root))
        self._real_folders: dict[str, str] = {}

    def own(self, real: str) -> bool:
        """Whether a real path is a folder of ours, or lies in one."""
        return any(real == own or real.startswith(own + os.sep) for own in self._own)

    def hold_target(self, link: str) -> bool:
        """Whether what a link leads to lies in results, of our own or of others below the root."""
        target = os.path.join(os.path.dirname(link), os.readlink(link))  # noqa: PTH115, PTH118, PTH120
        if os.path.islink(target):  # noqa: PTH114
            target = os.path.realpath(target)
        folder = os.path.dirname(target)  # noqa: PTH120
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        real = self._real_folders[folder]
        inside = real == self._real_root or real.startswith(os.path.join(self._real_root, ""))  # noqa: PTH118
        return self.own(real) or (inside and self.hold(real))

    def hold(self, folder: str) -> bool:
        """Whether a folder, or one that it lies in below the root, holds results."""
        if folder not in self._known:
            above = os.path.dirname(folder)  # noqa: PTH120
            is_above = len(above) < len(folder) and self.hold(above)
            self._known[folder] = is_above or self.own(os.path.realpath(folder)) or names.are_results_in(folder)
        return self._known[folder]


def _fixed_part(pattern: Path) -> Path:
    """The folder that all matches lie in."""
    parts = pattern.parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def join_bands(photos: Photos, bands: Bands) -> Photos:
    """The files of each photo: one, or where the network's photos have a file for each band, all of them.

    Args:
        photos: From `photos_of`; of a single file those beside it count, too. Where bands have files of their own, all
            of their names are held in memory.
        bands: What the network takes.

    Raises:
        DataError: There is no photo with such files.
    """
    if not bands.file_per_band:
        return photos
    listed = {files[0]: name for name, files in photos.in_order()}
    root = Path(os.path.commonpath([path.parent for path in listed]))
    alone = len(listed) == 1 and root.is_dir() and not is_mirrored(root)
    groups, _ = group_band_files(list_images(root) if alone else list(listed), root, bands.names)
    wanted = {first: files for first, files in groups.items() if not listed.keys().isdisjoint(files)}
    if not wanted:
        first = next(iter(listed))
        raise DataError(f"{first}: the network takes a file for each band ({', '.join(bands.names)}); give them all")
    by_name = {listed.get(first, first.name): files for first, files in wanted.items()}
    return Photos(photos.root, list(by_name), groups=by_name)
