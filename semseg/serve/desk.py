"""The labelling desk: photos with the network's masks over them, to be mended by hand and saved beside the data."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from semseg.data.base import read_mask_of_ids
from semseg.data.corrections import Corrections
from semseg.errors import DataError
from semseg.images.bands import Bands
from semseg.images.png_writer import PngWriter
from semseg.labels.palettes import Palette
from semseg.serve.decoding import jpeg
from semseg.serve.guarding import receive_body

_SHOWN = 8192  # pixels of a photo's longer side, at most: people zoom in to label
_FROM = "x-semseg-from"
_PNG = b"\x89PNG\r\n\x1a\n"
Predict = Callable[[np.ndarray], Awaitable[bytes]]  # a photo to the PNG file of its ids


@dataclass(frozen=True)
class DeskPhoto:
    """A photo that can be labelled.

    Attributes:
        name: Its path inside the folder of photos.
        load: Gives the photo `(H, W, C)`, as the network takes it, and the ids of its own mask, uint8 `(H, W)`, 255
            for what is no class; None where it has no mask.
        has_mask: Whether it has one.
    """

    name: str
    load: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    has_mask: bool


@dataclass(frozen=True)
class Desk:
    """What is labelled, and where the masks go.

    Attributes:
        photos: In the order in which they are offered.
        corrections: Where masks are saved; the files of the photos and their own masks are only read.
    """

    photos: Sequence[DeskPhoto]
    corrections: Corrections


class DeskAddresses:
    """The addresses that the desk's page asks.

    `GET /desk` lists the photos. Of the photo `N`, `GET /desk/N/photo` gives a JPEG, `/desk/N/prediction` the PNG of
    the network's ids, and `/desk/N/mask` that of the saved ids, with their version as ETag, else of its own mask, else
    the status 204. `PUT /desk/N/mask` saves a PNG of ids; it must name, as If-Match, the version that it began with, or
    say by `If-None-Match: *` that there was none: what somebody else saved meanwhile is never lost.

    Args:
        desk: The photos.
        palette: The classes.
        bands: What the photos hold.
        predict: Asks the network.
    """

    def __init__(self, desk: Desk, palette: Palette, bands: Bands, predict: Predict):
        self._desk, self._palette, self._bands, self._predict = desk, palette, bands, predict
        self._one_at_a_time = ThreadPoolExecutor(1)  # so that nobody saves between a look at the version and a save
        self._last: tuple[int, np.ndarray, np.ndarray | None] | None = None  # the photo that is looked at

    @property
    def routes(self) -> list[Route]:
        """For a Starlette application."""
        return [
            Route("/desk", self._overview),
            Route("/desk/{number}/photo", self._photo),
            Route("/desk/{number}/prediction", self._prediction),
            Route("/desk/{number}/mask", self._mask, methods=["GET"]),
            Route("/desk/{number}/mask", self._put, methods=["PUT"]),
        ]

    def close(self) -> None:
        """Ends the thread that reads and saves, when it is ready."""
        self._one_at_a_time.shutdown()

    async def _in_turn(self, function: Callable, *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._one_at_a_time, function, *arguments)

    async def _overview(self, _: Request) -> Response:
        done = set(await self._in_turn(self._desk.corrections.names))
        photos = [{"name": each.name, "done": each.name in done, "mask": each.has_mask} for each in self._desk.photos]
        return JSONResponse({"photos": photos, "folder": str(self._desk.corrections.folder)})

    async def _photo(self, request: Request) -> Response:
        number = self._number_in(request)
        data = await self._in_turn(lambda: jpeg(self._bands.view(self._load(number)[0]), _SHOWN))
        return Response(data, media_type="image/jpeg")

    async def _prediction(self, request: Request) -> Response:
        photo, _ = await self._in_turn(self._load, self._number_in(request))
        return Response(await self._predict(photo), media_type="image/png")

    async def _mask(self, request: Request) -> Response:
        found = await self._in_turn(self._saved_or_own, self._number_in(request))
        if found is None:
            return Response(status_code=204, headers={_FROM: "prediction"})
        data, headers = found
        return Response(data, media_type="image/png", headers=headers)

    async def _put(self, request: Request) -> Response:
        number, begun_with = self._number_in(request), _begun_with(request)
        with tempfile.TemporaryDirectory(prefix="semseg-") as folder:
            path = Path(folder) / "mask.png"
            await receive_body(request, path)
            version = await self._in_turn(self._save, number, path, begun_with)
        file = self._desk.corrections.path(self._desk.photos[number].name)
        return JSONResponse({"file": str(file)}, headers={"etag": f'"{version}"'})

    def _number_in(self, request: Request) -> int:
        text = request.path_params["number"]
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(self._desk.photos)):
            raise HTTPException(404, "there is no such photo")
        return int(text)

    def _load(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        if self._last is None or self._last[0] != number:
            self._last = number, *self._desk.photos[number].load()
        return self._last[1:]

    def _saved_or_own(self, number: int) -> tuple[bytes, dict[str, str]] | None:
        name, corrections = self._desk.photos[number].name, self._desk.corrections
        if version := corrections.version(name):
            return corrections.path(name).read_bytes(), {"etag": f'"{version}"', _FROM: "correction"}
        ids = self._load(number)[1]
        return None if ids is None else (_png_of(ids), {_FROM: "mask"})

    def _save(self, number: int, path: Path, begun_with: str | None) -> str:
        """Saves a mask that was sent, unless another one was saved since it was begun; returns its version."""
        name, corrections = self._desk.photos[number].name, self._desk.corrections
        if corrections.version(name) != begun_with:
            raise HTTPException(412, f"{name} was saved by another page meanwhile; load its mask, or save over it")
        ids, size = self._ids_in(path, name), self._load(number)[0].shape[:2]
        if ids.shape != size:
            raise DataError(
                f"{name}: the mask is {ids.shape[1]}x{ids.shape[0]} pixels, its photo {size[1]}x{size[0]}; both must "
                "be of one size"
            )
        corrections.save(name, ids, self._palette)
        return corrections.version(name) or ""

    def _ids_in(self, path: Path, name: str) -> np.ndarray:
        with path.open("rb") as file:
            if file.read(len(_PNG)) != _PNG:
                raise DataError(f"{name}: the mask is no PNG file; send the ids of its pixels as one")
        try:
            return read_mask_of_ids(path, self._palette.num_classes)
        except DataError as error:
            raise DataError(f"{name}: the mask {str(error).removeprefix(f'{path}: ')}") from None


def _begun_with(request: Request) -> str | None:
    """The version that a mask was begun with; None for none."""
    if request.headers.get("if-none-match") == "*":
        return None
    version = request.headers.get("if-match", "").strip('"')
    if not version:
        raise HTTPException(428, "say by If-Match which version the mask began with, or by If-None-Match: * none")
    return version


def _png_of(ids: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory(prefix="semseg-") as folder:
        path = Path(folder) / "mask.png"
        with PngWriter(path, ids.shape) as png:
            png.write(ids)
        return path.read_bytes()
