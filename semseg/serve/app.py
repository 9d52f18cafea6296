"""The web application: the page, what it asks for, and the same for scripts."""

import base64
import errno
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from semseg.errors import SemsegError
from semseg.images.bands import Bands
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.serve.answering import Answer, Answerer
from semseg.serve.decoding import jpeg
from semseg.serve.desk import Desk, DeskAddresses
from semseg.serve.guarding import HEALTH, MAX_BYTES, Guard, receive_body, refusal
from semseg.serve.metrics import TEXT, Measured, Meter

Example = Callable[[], tuple[np.ndarray, np.ndarray]]

MAX_WAITING = 8  # photos that wait while one is computed
_RETRY_SECONDS = "2"
_WARNING, _UNLIKE = "x-semseg-warning", "x-semseg-unlike"
_THUMBNAIL = 320
_FILES = ("page.css", "page.js", "png.js", "desk.css", "desk.js")
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def make_app(
    segmenter: Segmenter,
    *,
    title: str = "",
    examples: Sequence[Example] = (),
    note: str = "",
    warning: Callable[[], str] = str,
    desk: Desk | None = None,
    token: str | None = None,
    counts: Path | None = None,
) -> Starlette:
    """The web application around a network: a page for people, and addresses for scripts.

    Args:
        segmenter: The network; it computes one photo at a time.
        title: What it is called on the page.
        examples: Each gives a photo `(H, W, C)`, as the network takes it, and its true ids, uint8 `(H, W)`, 255 for
            what is no class.
        note: A line about the examples.
        warning: Gives a line about the network that goes with each answer; empty where there is nothing to tell.
        desk: Photos to be labelled: the page becomes a labelling desk.
        token: What whoever asks must know, see `Guard`; None to answer this computer alone.
        counts: The folder in which processes that serve together count, see `Meter`; None for one alone.

    Returns:
        An ASGI application. `POST /segment` takes an image file as its body and gives JSON: `width`, `height`, the
        `classes` that were found with `id`, `name`, `color`, `pixels` and `share` (0 to 1), the largest first, and
        `mask`, the PNG file of the ids in base64; `warning`, where there is one, and `unlike`, a list of what is
        unlike in it to the photos that the network learnt from, where anything is. `POST /mask` takes the same and
        gives the PNG file. What cannot be answered has a status of 400 or more and a JSON object with `error`.
        `GET /healthz` says that the server lives, `GET /metrics` what it does, for Prometheus.

    Example:
        >>> segmenter = Segmenter(lambda photos: photos[..., :1] - 100.0, (16, 16), Palette.numbered(2))
        >>> app = make_app(segmenter, title="bright or dark")
        >>> sorted({route.path for route in app.routes})[-3:]
        ['/page.js', '/png.js', '/segment']
    """
    meter = Meter(counts)
    queue = _Queue(segmenter, meter)
    addresses = DeskAddresses(desk, segmenter.palette, segmenter.bands, queue.predict) if desk else None
    about = {
        "title": title,
        "image_size": list(segmenter.image_size),
        "scale": segmenter.scale,
        "classes": [_class_entry(segmenter.palette, i) for i in range(segmenter.palette.num_classes)],
        "examples": len(examples),
        "note": note,
        "photo_form": "photo.png" if segmenter.bands.are_rgb else "photo.npy",
    }

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        queue.close()
        if addresses:
            addresses.close()

    async def model(_: Request) -> Response:
        return JSONResponse(about)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(meter.text(), headers={"content-type": TEXT})

    async def segment(request: Request) -> Response:
        answer = await queue.answer(request)
        values = _as_json(answer, segmenter.palette, with_photo="photo" in request.query_params)
        line = warning()
        return JSONResponse({**values, "warning": line} if line else values)

    async def mask(request: Request) -> Response:
        answer, line = await queue.answer(request), warning()
        headers = {_WARNING: line, _UNLIKE: "; ".join(answer.unlike)}
        return Response(
            answer.mask, media_type="image/png", headers={name: text for name, text in headers.items() if text}
        )

    routes = [
        Route("/", _file("desk.html" if desk else "page.html")),
        *(Route(f"/{name}", _file(name)) for name in _FILES),
        *(addresses.routes if addresses else ()),
        Route(HEALTH, health),
        Route("/metrics", metrics),
        Route("/model", model),
        Route("/segment", segment, methods=["POST"]),
        Route("/mask", mask, methods=["POST"]),
        Route("/examples/{number}/{form}", _example_route(examples, segmenter.bands)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Measured, meter=meter), Middleware(Guard, token=token)],
        exception_handlers={
            HTTPException: _refuse,
            SemsegError: _refuse_photo,
            ClientDisconnect: _answer_nobody,
            OSError: _refuse_full_disk,
        },
        lifespan=lifespan,
    )


class _Queue:
    """Answers photos, lets `MAX_WAITING` others wait, and sends the rest away."""

    def __init__(self, segmenter: Segmenter, meter: Meter):
        self._answerer, self._meter = Answerer(segmenter, meter.add_batch), meter
        self._waiting = 0  # photos, the one that is computed among them

    async def answer(self, request: Request) -> Answer:
        """The answer for the photo that is the request's body.

        Raises:
            HTTPException: Too many are waiting, or the body is too large or too slow.
            SemsegError: It is no photo that can be used.
        """
        with self._place(), tempfile.TemporaryDirectory(prefix="semseg-") as folder:
            path = Path(folder) / "photo"
            await receive_body(request, path)
            return await self._answerer.answer(path)

    async def predict(self, photo: np.ndarray) -> bytes:
        """The PNG file of a photo's ids; photo and errors as of `answer`, but for those of a body."""
        with self._place(), tempfile.TemporaryDirectory(prefix="semseg-") as folder:
            return await self._answerer.predict(photo, Path(folder) / "mask.png")

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Counts a photo among those that wait, as long as it does."""
        if self._waiting > MAX_WAITING:
            raise HTTPException(503, "too many photos are waiting; try again soon", {"retry-after": _RETRY_SECONDS})
        self._set_waiting(self._waiting + 1)
        try:
            yield
        finally:
            self._set_waiting(self._waiting - 1)

    def _set_waiting(self, photos: int) -> None:
        self._waiting = photos
        self._meter.set_waiting(photos)

    def close(self) -> None:
        self._answerer.close()


def _as_json(answer: Answer, palette: Palette, with_photo: bool) -> dict[str, Any]:
    total = int(answer.counts.sum())
    order = [int(i) for i in np.argsort(-answer.counts, kind="stable") if answer.counts[i]]
    seen = [
        {**_class_entry(palette, i), "pixels": int(answer.counts[i]), "share": int(answer.counts[i]) / total}
        for i in order
    ]
    values = {"width": answer.size[1], "height": answer.size[0], "classes": seen, "mask": _in_base64(answer.mask)}
    values |= {"unlike": list(answer.unlike)} if answer.unlike else {}
    return {**values, "photo": _in_base64(answer.shown)} if with_photo else values


def _in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _class_entry(palette: Palette, class_id: int) -> dict[str, Any]:
    red, green, blue = palette.colors[class_id]
    return {"id": class_id, "name": palette.names[class_id], "color": f"#{red:02x}{green:02x}{blue:02x}"}


def _file(name: str) -> Callable:
    path = Path(__file__).with_name(name)
    data = path.read_bytes()

    async def give(_: Request) -> Response:
        return Response(data, media_type=_KINDS[path.suffix])

    return give


_FORMS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray, Bands], bytes]]] = {
    "photo.png": ("image/png", lambda photo, _, bands: _png(cv2.cvtColor(bands.view(photo), cv2.COLOR_RGB2BGR))),
    "photo.npy": ("application/octet-stream", lambda photo, _, __: _npy(photo)),
    "truth.png": ("image/png", lambda _, truth, __: _png(truth)),
    "small.jpg": ("image/jpeg", lambda photo, _, bands: jpeg(bands.view(photo), _THUMBNAIL)),
}


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def _npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def _example_route(examples: Sequence[Example], bands: Bands) -> Callable:
    by_number = {str(i): example for i, example in enumerate(examples)}

    async def give(request: Request) -> Response:
        number, form = request.path_params["number"], request.path_params["form"]
        if number not in by_number or form not in _FORMS:
            raise HTTPException(404, "there is no such example")
        kind, encode = _FORMS[form]
        data = await run_in_threadpool(lambda: encode(*by_number[number](), bands))
        return Response(data, media_type=kind)

    return give


async def _refuse(request: Request, error: HTTPException) -> Response:
    """Closes the connection, unless what is still to come is little: a browser shows an answer only after sending."""
    response = refusal(error.status_code, str(error.detail), **(error.headers or {}))
    length = request.headers.get("content-length")
    if error.status_code == 503 and length is not None and int(length) <= MAX_BYTES:
        del response.headers["connection"]
    return response


async def _refuse_photo(_: Request, error: SemsegError) -> Response:
    return JSONResponse({"error": " ".join(str(error).split())}, 422)


async def _refuse_full_disk(_: Request, error: OSError) -> Response:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    return refusal(507, "no space left on the server's disk; free some and try again: nothing was lost")


async def _answer_nobody(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=400)
