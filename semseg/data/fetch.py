"""Turns a folder, an archive or a name on Kaggle into a folder of data.

Archives come from strangers: each member is judged before it is written, and nothing but plain files is written.
"""

import hashlib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from semseg.errors import DataError, MissingPackageError, is_installed, pip_install
from semseg.files import read_json, write_json
from semseg.images.addresses import is_address
from semseg.images.mirrors import mirrored, present
from semseg.images.reading import IMAGE_SUFFIXES

MAX_MEMBERS, SPARE_BYTES = 2_000_000, 500_000_000  # these bytes stay free on the disk
MAX_RATIO, SMALL_BYTES = 200, 1_000_000_000  # n bytes may unpack to 200 n and a GB
_OUTSIDE = re.compile(r"^[/\\]|(^|[/\\])([A-Za-z]:|\.[. ]+([/\\]|$))")  # Windows takes `.. ` and `...` for `..`
_JUNK = re.compile(r"(^|[/\\])(__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/\\]*)([/\\]|$)")
_CHUNK = 1 << 14  # some readers take as many packed bytes at once, which can mean 300 MB
_Member = tuple[str, int, str, Callable]  # name, size, what is wrong with its kind, how to open it


def local_folder(data: str, cache: Path, say: Callable[[str], None] = lambda _: None) -> Path:
    """Turns a folder, an archive (zip; tar, also gz, bz2 or xz), either at an address, or `kaggle:owner/name` into one.

    Args:
        data: What the user gave. A folder is returned as it is; one at an address is mirrored, see `mirrored`.
        cache: Archives are unpacked below `cache / "archives"`, each into a folder named after it and its bytes.
        say: Is told what takes time.

    Raises:
        DataError: Nothing that can be used, or an archive that is damaged, encrypted, too large or unsafe.
        ResourceError: An address cannot be reached or read.
        MissingPackageError: kagglehub is not installed, and `data` begins with `kaggle:`.
    """
    if data.startswith("kaggle:"):
        return _from_kaggle(data.removeprefix("kaggle:"), cache, say)
    path = mirrored(data, cache, _is_picture, say) if is_address(data) else Path(data)
    if path.is_dir():
        return path
    with present(path):
        return _from_archive(path, cache, say)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _from_archive(path: Path, cache: Path, say: Callable[[str], None]) -> Path:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file or folder; give `data` a folder, an archive, an address or kaggle:owner/name"
        )
    try:
        (cache / "archives").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{cache}: {path} cannot be unpacked there ({error.strerror}); choose another `cache`"
        ) from None
    try:
        return _unpack_once(path, cache / "archives", say)
    except Exception as error:  # damaged bytes make the readers raise anything
        raise DataError(f"{path}: {_in_one_line(error)}; download it again, or unpack it by hand with care") from None


def _from_kaggle(handle: str, cache: Path, say: Callable[[str], None]) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9_-]*", handle):
        raise DataError(f"kaggle: got {handle!r}; expected kaggle:owner/name, the end of the data set's address")
    by_hand = f"download https://www.kaggle.com/datasets/{handle} in the browser and give the zip or folder as `data`"
    if not is_installed("kagglehub"):
        raise MissingPackageError(f"kaggle:{handle}: needs kagglehub; run {pip_install('kaggle')}, or {by_hand}")
    try:
        import kagglehub

        say(f"downloading {handle} from Kaggle")
        folder = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # whatever it is, the browser helps
        raise DataError(f"kaggle:{handle}: {_in_one_line(error)}; {by_hand}") from None
    _refuse_changed_download(folder, cache)
    return folder


def _refuse_changed_download(folder: Path, cache: Path) -> None:
    """Compares a download's files with those that were there when it came: kagglehub looks at none of them again.

    It compares what comes with Kaggle's checksum, and unpacks it whole; but files may go from its folder later.

    Raises:
        DataError: Files are gone, new, or of another size.
    """
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    noted, before = cache / "downloads" / f"{digest}.json", None
    with suppress(OSError, ValueError):
        before = read_json(noted)
    if not isinstance(before, dict):
        with suppress(OSError, UnicodeError):
            noted.parent.mkdir(parents=True, exist_ok=True)
            write_json(noted, sizes)
    elif changed := sorted(name for name in {*before, *sizes} if before.get(name) != sizes.get(name)):
        raise DataError(
            f"{folder}: {len(changed)} files are not as they were when downloaded, such as {changed[0]!r}; remove the "
            "folder to download it again, or give it as `data` to use it as it is"
        )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:250] or type(error).__name__


def _unpack_once(archive: Path, cache: Path, say: Callable[[str], None]) -> Path:
    is_tar = tarfile.is_tarfile(archive)  # asked first: a tar that ends with a zip passes for a zip
    if not is_tar and not zipfile.is_zipfile(archive):
        raise ValueError("neither a folder nor a whole zip or tar")
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=6)).hexdigest()
    target = cache / "-".join([re.sub(r"(\.tar)?\.[^.]*$", "", archive.name)[:50], digest])
    if not target.is_dir():
        say(f"unpacking {archive} into {target}")
        with tempfile.TemporaryDirectory(dir=cache, prefix=".unpacking-") as temporary:
            _unpack(archive, _tar_members(archive) if is_tar else _zip_members(archive), Path(temporary, "whole"))
            try:
                Path(temporary, "whole").rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
    return target


def _unpack(archive: Path, members: Iterator[_Member], folder: Path) -> None:
    folder.mkdir()
    left = min(shutil.disk_usage(folder).free - SPARE_BYTES, SMALL_BYTES + MAX_RATIO * archive.stat().st_size)
    name = "its beginning"
    try:
        for count, (name, size, fault, open_member) in enumerate(members):
            _refuse_unsafe(name, size, fault, count, left)
            is_folder = name.endswith(("/", "\\"))  # folders come with their files
            if not is_folder and not _JUNK.search(name):
                _write(open_member, size, folder / name.replace("\\", "/"))
                left -= size
    except Exception as error:
        raise ValueError(f"stopped at {name[:99]!r} ({getattr(error, 'strerror', None) or error})") from None


def _refuse_unsafe(name: str, size: int, fault: str, count: int, left: int) -> None:
    """Raises a `ValueError` for a member that must not be written: `count` are before it, `left` bytes remain."""
    if _OUTSIDE.search(name):
        raise ValueError("it would lie outside the folder")
    if fault:
        raise ValueError(fault)
    if count >= MAX_MEMBERS or not 0 <= size <= left:
        raise ValueError("more than the disk, or an archive of this size, should hold")


def _write(open_member: Callable, size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_member() as source, path.open("xb") as target:
        while target.tell() <= size and (chunk := source.read(_CHUNK)):
            target.write(chunk)
        if target.tell() != size:
            raise EOFError(f"it does not hold the {size} bytes that its header says")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
            fault = "it is encrypted" if info.flag_bits & 1 else "" if plain else "it is a link or a device"
            yield info.filename, info.file_size, fault, partial(file.open, info)


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, tarinfo=_StrictInfo) as file:
        for info in file:
            fault = "" if info.isreg() or info.isdir() else "it is a link or a device"
            yield info.name + "/" * info.isdir(), info.size, fault, partial(file.extractfile, info)
        while file.fileobj.read(_CHUNK):  # up to the checksum at the very end
            pass


class _StrictInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, *block: object) -> tarfile.TarInfo:
        """Reads a header; raises where one is damaged or missing, which tarfile itself takes for the end."""
        try:
            return super().frombuf(*block)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:
            raise tarfile.ReadError(str(error)) from None
