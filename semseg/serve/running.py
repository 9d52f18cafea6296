"""The port: taken on this computer's own address only, and served from."""

import errno
import socket

import uvicorn
from starlette.types import ASGIApp

from semseg.errors import ResourceError, SemsegError

ADDRESS = "127.0.0.1"  # nobody else's computer can ask
_MAX_CONNECTIONS = 100
_SHUTDOWN_SECONDS = 5  # for what is under way when the server ends


def listen(port: int) -> socket.socket:
    """Takes a port, so that it is there when the server needs it.

    Args:
        port: 1 to 65535, or 0 for any that is free.

    Raises:
        SemsegError: It is no port.
        ResourceError: Another program has it, or it may not be used.

    Example:
        >>> with listen(0) as listener:
        ...     listener.getsockname()[0]
        '127.0.0.1'
    """
    if not 0 <= port < 65536:
        raise SemsegError(f"`port`: got {port}; expected 0 to 65535, such as 8000")
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        reasons = {errno.EADDRINUSE: "is in use by another program", errno.EACCES: "is reserved for the system"}
        what = reasons.get(error.errno, f"cannot be used ({error.strerror})")
        raise ResourceError(f"`port`: {port} {what}; give another, or `port` 0 for any that is free") from None


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Serves an app until Ctrl-C or SIGTERM.

    Args:
        app: An ASGI application, see `semseg.serve.app.make_app`.
        listener: From `listen`.
    """
    config = uvicorn.Config(
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
    )
    uvicorn.Server(config).run(sockets=[listener])
