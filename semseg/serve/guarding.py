"""Who may ask, and how much: this computer alone, or whoever has the token; no foreign pages, and no endless bodies."""

import asyncio
import base64
import binascii
import hmac
import os
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semseg.errors import SemsegError

MAX_BYTES = 64 * 2**20  # of a photo's file
TIMEOUT_SECONDS = 20  # that a body may take, and more by its length:
MIN_BYTES_PER_SECOND = 100_000

TOKEN = "SEMSEG_TOKEN"  # in the environment
_LEAST_TOKEN = 16  # characters

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


HEALTH = "/healthz"  # anybody may ask it where a token is needed: it says that the server lives, and no more
_CHALLENGE = {"www-authenticate": 'Basic realm="semseg", charset="UTF-8"'}


def read_token(file: str | None) -> str | None:
    """The secret of whoever may ask, from a file or the environment, where it does not stay; None without one.

    Args:
        file: Its path; None to look into the environment alone.

    Raises:
        SemsegError: The file cannot be read, or it is no token.
    """
    given, where = os.environ.pop(TOKEN, None), TOKEN  # the processes that decode strangers' photos know nothing of it
    if file is not None:
        where = f"`token_file`: {file}"
        try:
            given = Path(file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise SemsegError(f"{where} cannot be read ({error}); expected a text file with a token in it") from None
    if given is not None and not (len(given) >= _LEAST_TOKEN and given.isascii() and given.isprintable()):
        raise SemsegError(
            f"{where} holds no token of {_LEAST_TOKEN} or more plain characters; make one by: openssl rand -hex 32"
        )
    return given


class Guard:
    """Refuses requests under foreign names, from foreign pages, and without the token where there is one.

    A page of another site can make the browser ask this server, and can give its own name this computer's address: the
    first shows in Origin, the second in Host. Behind a token the server may have any name; a page under another name
    has no token, and Origin must be the name itself.

    Args:
        app: What is guarded.
        token: What everybody must know; None to answer only under this computer's own names.
    """

    def __init__(self, app: ASGIApp, token: str | None = None):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and adds to its answer what browsers should refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._judged(scope)(scope, receive, send_guarded)

    def _judged(self, scope: Scope) -> ASGIApp:
        """The application, or a refusal."""
        if self._token is None:
            error = _refusal_reason(scope)
            return self._app if error is None else refusal(403, error)
        headers = Headers(scope=scope)
        if scope["path"] != HEALTH and not _knows(headers.get("authorization", ""), self._token):
            return refusal(401, "this server wants its token: as a password, or as Authorization: Bearer", **_CHALLENGE)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return refusal(403, "Origin: pages of other sites may not ask this server")
        return self._app


def _knows(authorization: str, token: str) -> bool:
    """Whether a header holds the token, as that of a bearer or as anybody's password."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())


def _refusal_reason(scope: Scope) -> str | None:
    """Why a request is refused by the names that it was sent under and from; None if it is not."""
    headers, port = Headers(scope=scope), scope["server"][1]
    names = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    if headers.get("host") not in names:
        return f"Host: this server answers only as {' or '.join(names)}; open http://{names[0]}/"
    if headers.get("origin", f"http://{names[0]}") not in [f"http://{name}" for name in names]:
        return f"Origin: pages of other sites may not ask this server; open http://{names[0]}/"
    return None


def refusal(status: int, error: str, **headers: str) -> JSONResponse:
    """An error in one line; the connection is closed, because the request may be under way.

    Args:
        status: Of HTTP, 400 or more.
        error: What is wrong and how to mend it.
        headers: Further ones of the answer.
    """
    return JSONResponse({"error": error}, status, {"connection": "close", **headers})


async def receive_body(request: Request, path: Path) -> None:
    """Writes a request's body to a file while it comes.

    Args:
        request: Its body is read.
        path: The file.

    Raises:
        HTTPException: It is too large, or comes too slowly.
        starlette.requests.ClientDisconnect: It ends too early.
    """
    too_large = HTTPException(413, f"the photo's file is larger than {MAX_BYTES >> 20} MB; save it smaller")
    if int(request.headers.get("content-length", 0)) > MAX_BYTES:
        raise too_large
    start, received = asyncio.get_running_loop().time(), 0
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS) as limit:
            with path.open("wb") as file:
                async for chunk in request.stream():
                    received += len(chunk)
                    if received > MAX_BYTES:
                        raise too_large
                    file.write(chunk)
                    limit.reschedule(start + TIMEOUT_SECONDS + received / MIN_BYTES_PER_SECOND)
    except TimeoutError:
        raise HTTPException(408, f"the photo came too slowly: {received} bytes; send it again") from None
