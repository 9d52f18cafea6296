"""Files at addresses: buckets of S3, Google Cloud Storage and Azure, and servers, through fsspec."""

import re
from pathlib import PurePosixPath
from typing import Any

from semseg.errors import DataError, require

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
            f"{scheme}://{host}/…: the address holds a query (`?`), often a key, which would stand in every file of "
            "the run; give the plain address, and the key in the environment"
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

    Example:
        >>> from semseg.errors import is_installed
        >>> open_address("memory://photos/a.png")[1] if is_installed("fsspec") else "/photos/a.png"
        '/photos/a.png'
    """
    address = checked_address(address)
    scheme = address.partition("://")[0]
    require(f"{scheme}://", "cloud", "fsspec", *_MODULES[scheme])
    import fsspec

    system = fsspec.filesystem(scheme, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    if scheme == "s3":
        system.retries = 1
    return system, system._strip_protocol(address)
