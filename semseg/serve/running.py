"""The port: taken on this computer's own address unless another is asked for, and served from."""

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from semseg.errors import ResourceError, SemsegError

ADDRESS = "127.0.0.1"  # nobody else's computer can ask
START_FAILURE = 3  # the exit code of a process that cannot start, which ends the others
_MAX_CONNECTIONS = 100
_MAX_SILENCE = 30  # seconds without a sign of life after which a process is replaced: compiling takes long
_SHUTDOWN_SECONDS = 5  # for what is under way when the server ends


def listen(port: int, address: str = ADDRESS) -> socket.socket:
    """Takes a port, so that it is there when the server needs it.

    Args:
        port: 1 to 65535, or 0 for any that is free.
        address: Of the interface, IPv4 or IPv6; 0.0.0.0 for all.

    Raises:
        SemsegError: It is no port, or no address.
        ResourceError: Another program has it, or it may not be used.

    Example:
        >>> with listen(0) as listener:
        ...     listener.getsockname()[0]
        '127.0.0.1'
    """
    if not 0 <= port < 65536:
        raise SemsegError(f"`port`: got {port}; expected 0 to 65535, such as 8000")
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        raise SemsegError(f"`host`: got {address!r}; expected an address such as {ADDRESS} or 0.0.0.0") from None
    try:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        return socket.create_server((address, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ResourceError(f"`host`: {address} is no address of this computer; 0.0.0.0 stands for all") from None
        reasons = {errno.EADDRINUSE: "is in use by another program", errno.EACCES: "is reserved for the system"}
        what = reasons.get(error.errno, f"cannot be used ({error.strerror})")
        raise ResourceError(f"`port`: {port} {what}; give another, or `port` 0 for any that is free") from None


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Serves an app until Ctrl-C or SIGTERM.

    Args:
        app: An ASGI application, see `semseg.serve.app.make_app`.
        listener: From `listen`.
    """
    uvicorn.Server(_config(app)).run(sockets=[listener])


def run_workers(make_app: Callable[[], ASGIApp], listener: socket.socket, workers: int) -> None:
    """Serves an app from several processes until Ctrl-C or SIGTERM; one that dies is replaced.

    Args:
        make_app: Makes the application in each process, to which it is sent by pickle; it exits with `START_FAILURE`
            where it cannot.
        listener: From `listen`; the processes share it.
        workers: How many processes.

    Raises:
        ResourceError: A process could not start; it has said why.
    """
    supervisor = Multiprocess(
        _config(make_app, factory=True, workers=workers, timeout_worker_healthcheck=_MAX_SILENCE), [listener]
    )
    supervisor.run()
    if any(process.exitcode == START_FAILURE for process in supervisor.processes):
        raise ResourceError("`workers`: one of them could not start, as it says above")


def _config(app: Any, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        **options,
    )
