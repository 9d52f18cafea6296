"""Files at addresses: buckets of S3, Google Cloud Storage and Azure, and servers, through fsspec."""

import errno
import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from semseg.errors import DataError, ResourceError, SemsegError, require
from semseg.files import DISK_FULL, in_hand, renew_in_hand

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_MODULES = {"s3": ("s3fs",), "gs": ("gcsfs",), "az": ("adlfs",), "https": ("aiohttp",), "memory": ()}
_KNOWN = "s3://, gs://, az:// or https://"
_OPTIONS: dict[str, dict[str, Any]] = {  # faults are tried again here, once for all kinds, and not in two more layers
    "s3": {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}},
}


def is_address(text: object) -> bool:
    """Whether a text is an address, of any kind, and no path.

    Example:
        >>> is_address("s3://bucket/photos"), is_address("photos"), is_address("kaggle:owner/name")
        (True, False, False)
    """
    return _ADDRESS.match(str(text)) is not None


def checked_address(address: str) -> str:
    """The address as it is used and noted: a small scheme, and no slash at the end.

    Raises:
        DataError: It is of a kind that is not read, or holds a secret, which the message does not repeat.

    Example:
        >>> checked_address("S3://bucket/photos/")
        's3://bucket/photos'
    """
    match = _ADDRESS.fullmatch(address)
    scheme, rest = (match[1].lower(), match[2]) if match else ("", address)
    if scheme not in _MODULES:
        raise DataError(f"{scheme}://: addresses of this kind are not read; give one that begins with {_KNOWN}")
    host, _, path = rest.partition("/")
    if "@" in host or (":" in host and not re.fullmatch(r"[^:]*:\d+", host)):
        raise DataError(
            f"{scheme}://…: the address holds a user or a password, which would stand in every file of the run; leave "
            "it out, and give it as the provider's own tools take it, in the environment or their files"
        )
    if "?" in rest:
        raise DataError(
            f"{scheme}://{host.partition('?')[0]}/…: the address holds a query (`?`), often a key, which would stand "
            "in every file of the run; give the plain address, and the key in the environment"
        )
    if not host or any(ord(letter) < 32 for letter in rest):
        raise DataError(f"{scheme}://: names no {'server' if scheme == 'https' else 'bucket'}; give one")
    path = path.rstrip("/")
    if path and ".." in PurePosixPath(path).parts:
        raise DataError(f"{scheme}://{host}/{path}: holds `..`; give the plain address")
    return f"{scheme}://{host}/{path}" if path else f"{scheme}://{host}"


def open_address(address: str) -> tuple[Any, str]:
    """What reads and writes the files at an address, and its path there.

    Credentials are those that the provider's own tools use, from the environment or their files; fsspec's variables
    work, too, such as `FSSPEC_S3_ANON=true` for a public bucket and `AWS_ENDPOINT_URL` for another server.

    Args:
        address: Such as `s3://bucket/photos`; `gs`, `az`, `https`, and `memory` in tests.

    Returns:
        A file system of fsspec that keeps no listings, and the path as it takes it. Nothing is asked of the server yet.

    Raises:
        DataError: See `checked_address`.
        MissingPackageError: The extra `cloud` is not installed.
        ResourceError: Nothing says as whom to ask, where the provider wants to know that first.

    Example:
        >>> from semseg.errors import is_installed
        >>> open_address("memory://photos/a.png")[1] if is_installed("fsspec") else "/photos/a.png"
        '/photos/a.png'
    """
    address = checked_address(address)
    scheme = address.partition("://")[0]
    require(f"{scheme}://", "cloud", "fsspec", *_MODULES[scheme])
    try:
        system = _fsspec().filesystem(scheme, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    except Exception as error:  # each provider has its own, such as of an account that nobody named
        raise explained(error, address) from None
    if scheme == "s3":
        system.retries = 1
    return system, system._strip_protocol(address)


def _fsspec() -> Any:
    import fsspec

    return fsspec


def moving_file() -> Any:
    """For the `callback` of a file system: notes for whoever watches this thread that the file in its hand moves."""
    thread = threading.get_ident()
    return _fsspec().Callback(hooks={"moves": lambda *_, **__: renew_in_hand(thread)})


# ---------------------------------------------------------------------------------------------------------- asking

WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds between tries of what failed for a moment, give or take a quarter
_GONE, _FORBIDDEN, _BUSY = (404, 410), (401, 403, 407), (408, 425, 429, 500, 502, 503, 504)
_WITHOUT_RIGHTS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "UnauthorizedSSOTokenError", "SSOTokenLoadError", "ClientAuthenticationError", "CredentialUnavailableError",
    "DefaultCredentialsError", "RefreshError", "ProfileNotFound",
}  # fmt: skip
_UNREACHED = {
    "EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ServiceRequestError", "gaierror",
    "ConnectionRefusedError", "ServerTimeoutError",
}  # fmt: skip
_PASSING = {
    *_UNREACHED, "ConnectionError", "TimeoutError", "FSTimeoutError", "HTTPClientError", "ConnectionClosedError",
    "ReadTimeoutError", "ResponseStreamingError", "IncompleteReadError", "ClientConnectionError", "ClientPayloadError",
    "ServiceResponseError", "TransportError",
}  # fmt: skip
_PASSING_ERRNO = (errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO), errno.ECONNRESET, errno.EPIPE)


def ask(address: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls a function of a file system; what fails for a moment is tried again, five times in all, ever later.

    Args:
        address: What it is about, for messages.
        function: Raises what the provider's package does.
        *arguments: Its own.
        **options: Its own.

    Returns:
        What the function does.

    Raises:
        DataError: Nothing is there.
        ResourceError: No right to it, a token that has ended, a server out of reach or one that does not recover.
        OSError: As the function does: of a file that is there, or a full disk.
    """
    waits = iter(WAITS)
    while True:
        try:
            with in_hand(Path(address)):
                return function(*arguments, **options)
        except (SemsegError, FileExistsError):
            raise
        except Exception as error:
            if getattr(error, "errno", None) in DISK_FULL:
                raise
            wait = next(waits, None) if _is_passing(error) else None
            if wait is None:
                raise explained(error, address) from None
        time.sleep(wait * random.uniform(0.75, 1.25))


def explained(error: Exception, address: str) -> SemsegError:
    """What went wrong at an address, in one line; of the provider's own words only their kind, as they may hold keys.

    Args:
        error: Of a file system.
        address: What it was about.
    """
    names, status = _names(error), _status(error)
    said = f"{type(error).__name__}, HTTP {status}" if status else type(error).__name__
    is_gone = isinstance(error, FileNotFoundError) and not names & _UNREACHED  # of https, anything is "not found"
    if is_gone or status in _GONE:
        return DataError(f"{address}: nothing is there, or not any more; look after the name and the bucket")
    if any("Token" in code for code in _codes(error)):
        what = f"the token has ended, or is none ({said}); renew it and run the same again"
    elif isinstance(error, PermissionError) or status in _FORBIDDEN or names & _WITHOUT_RIGHTS:
        what = (
            f"no right to it: no credentials were found, or they do not suffice, or their token has ended ({said}); "
            "log in with the provider's own tools; for a public bucket of S3 set FSSPEC_S3_ANON=true"
        )
    elif names & _UNREACHED:
        what = f"its server cannot be reached ({said}); look after the network"
    elif _is_passing(error):
        what = f"its server fails again and again ({said}); run the same again later"
    elif str(error).startswith("unable to connect to account"):  # of adlfs, a plain ValueError
        what = "nothing says of which account it is; set AZURE_STORAGE_ACCOUNT_NAME"
    else:
        what = f"its server refuses it ({said}), as when a token has ended; look after the address and the token"
    return ResourceError(f"{address}: {what}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}


def _response(error: BaseException) -> dict[str, Any]:
    found = getattr(error, "response", None)  # botocore's is a dict
    return found if isinstance(found, dict) else {}


def _codes(error: Exception) -> list[str]:
    return [str(_response(one).get("Error", {}).get("Code", "")) for one in _chain(error)]


def _status(error: Exception) -> int:
    """The status of HTTP that an error tells of; 0 for none."""
    for one in _chain(error):
        told = [_response(one).get("ResponseMetadata", {}).get("HTTPStatusCode")]
        told += [getattr(one, name, None) for name in ("status", "status_code", "code")]
        for value in told:
            if str(value).isdecimal() and 100 <= int(value) < 600:
                return int(value)
    return 0


def _is_passing(error: Exception) -> bool:
    if isinstance(error, (FileNotFoundError, PermissionError)) or _names(error) & _WITHOUT_RIGHTS:
        return False
    if status := _status(error):
        return status in _BUSY
    return bool(_names(error) & _PASSING) or getattr(error, "errno", None) in _PASSING_ERRNO


# --------------------------------------------------------------------------------------------------------- listing


class Entry(NamedTuple):
    """A file at an address, as its server tells of it.

    Attributes:
        size: In bytes.
        version: Another number for other bytes: made of the tag that the server gives them, or of their date. It lies
            in a file's range of dates, in whole microseconds, so that a copy can bear it as its own.
    """

    size: int
    version: int


_TAGS, _DATES = (
    ("ETag", "etag", "Content-MD5"),
    ("LastModified", "last_modified", "updated", "Last-Modified", "created"),
)
_FIRST_DATE, _DATE_RANGE = 10**15, 7 * 10**14  # microseconds: from 2001 on, 22 years


def entry_of(info: dict[str, Any], address: str) -> Entry:
    """What a listing says of a file.

    Raises:
        DataError: It does not say how large it is, so that nobody could tell a part of it from all.
    """
    if info.get("size") is None:
        raise DataError(f"{address}: its server does not say how large it is; copy it to a bucket or a disk")
    tag = next((str(info[key]).strip('"') for key in _TAGS if info.get(key)), "")
    date = next((_whole_seconds(info[key]) for key in _DATES if info.get(key)), "")
    digest = hashlib.blake2b(f"{info['size']} {tag or date}".encode(), digest_size=8).digest()
    return Entry(int(info["size"]), (_FIRST_DATE + int.from_bytes(digest, "big") % _DATE_RANGE) * 1000)


def _whole_seconds(date: Any) -> str:
    """A date in the same text, whether it is one, seconds since 1970, or the text of a header."""
    seconds = date.timestamp() if hasattr(date, "timestamp") else date
    return str(int(seconds)) if isinstance(seconds, float) else str(date)


def look_at(address: str) -> Entry | None:
    """The file at an address; None for a folder.

    Raises:
        DataError, ResourceError: See `ask`.
    """
    system, path = open_address(address)
    info = ask(address, system.info, path)
    is_page = info.get("mimetype") == "text/html"  # of links, as a server's folder is
    return None if info["type"] == "directory" or is_page else entry_of(info, address)


def walk(
    address: str, leave_out: Callable[[str, set[str]], bool] = lambda _folder, _names: False, *, is_deep: bool = True
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The files of a folder and of those in it, folder by folder; hidden ones are left out.

    Args:
        address: Of the folder.
        leave_out: Takes a folder below it, relative, and the names in it; whether it is not looked into.
        is_deep: Whether folders in it are looked into at all.

    Yields:
        The path below the folder with `/` between names, and what the server says of it.

    Raises:
        DataError: A name that no disk of ours takes for a name.
        ResourceError: See `ask`.
    """
    system, path = open_address(address)
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        place = f"{path}/{inside}" if inside else path
        place += "/" if address.startswith("https:") else ""  # which is how its servers tell folders
        where = f"{address}/{inside}" if inside else address
        found = {_name(info): info for info in ask(where, system.ls, place, detail=True) if _is_inside(info, place)}
        if inside and leave_out(inside, set(found)):
            continue
        for name, info in found.items():
            if name in (".", "..") or "\0" in name or (os.sep != "/" and os.sep in name):
                raise DataError(f"{where}: holds the name {name!r}, which no disk takes; rename or remove it")
            if name.startswith("."):
                continue
            below = f"{inside}/{name}" if inside else name
            if info["type"] == "directory":
                waiting += [below] if is_deep else []
            else:
                yield below, info


def _name(info: dict[str, Any]) -> str:
    return info["name"].rstrip("/").rpartition("/")[2]


def _is_inside(info: dict[str, Any], place: str) -> bool:
    """Whether it lies right inside the folder; stores list the folder itself, too, and pages whatever they link to."""
    folder, _, name = info["name"].rstrip("/").rpartition("/")
    return bool(name) and folder.strip("/") == place.strip("/") and "?" not in name and "#" not in name


def exists(address: str) -> bool:
    """Whether something is there."""
    system, path = open_address(address)
    with suppress(DataError):
        ask(address, system.info, path)
        return True
    return False
