"""Photos that wait for the network together are computed together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from semseg.inference.card import fitting_batch_size
from semseg.inference.learnt import Look, Watch
from semseg.inference.segmenter import Segmenter

_MOST = 8  # photos at once


class Batches:
    """Computes what waits, those of one size in one batch.

    Nobody waits for a batch to fill: it is made of what came while the one before was computed. It holds 1, 2, 4 or 8
    photos, as backends that compile take minutes to learn every other number.

    Args:
        segmenter: The network; one thread asks it.
        on_batch: Called with the number of photos of each.
    """

    def __init__(self, segmenter: Segmenter, on_batch: Callable[[int], None]):
        self._on_batch = on_batch
        self._segmenter, self._pool = segmenter, ThreadPoolExecutor(1)
        # In tiles each photo fills batches of its own.
        self._most = 1 if segmenter.tile else min(_MOST, fitting_batch_size(segmenter.image_size))
        self._waiting: dict[asyncio.Future[tuple[np.ndarray, Look]], np.ndarray] = {}
        self._running: asyncio.Task | None = None

    async def logits(self, photo: np.ndarray) -> tuple[np.ndarray, Look]:
        """Logits of one photo, float32 `(h, w, K)` or `(h, w, 1)`, and what it is like, of the size that is given.

        Args:
            photo: `(h, w, C)` as the network sees it; of any size for one that sees tiles.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = photo
        if self._running is None:
            self._running = asyncio.create_task(self._compute_all())
        return await future

    async def _compute_all(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            self._on_batch(len(batch))
            try:
                computing = asyncio.get_running_loop().run_in_executor(self._pool, self._compute, [*batch.values()])
                found: list = await computing
            except Exception as error:
                found = [error] * len(batch)
            for future, result in zip(batch, found, strict=True):
                if future.done():  # nobody waits any more
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._running = None

    def _next_batch(self) -> dict[asyncio.Future[tuple[np.ndarray, Look]], np.ndarray]:
        shape = next(iter(self._waiting.values())).shape
        alike = [future for future, photo in self._waiting.items() if photo.shape == shape][: self._most]
        return {future: self._waiting.pop(future) for future in alike[: 1 << (len(alike).bit_length() - 1)]}

    def _compute(self, photos: list[np.ndarray]) -> list[tuple[np.ndarray, Look]]:
        watch = Watch(self._segmenter)
        if self._segmenter.tile:
            watched = replace(self._segmenter, predict_batch=watch.predict_batch)
            return [(watched.logits(photo), watch.next(photo.shape[:2], tiles=None)) for photo in photos]
        return [(logits, watch.next(logits.shape[:2])) for logits in watch.predict_batch(np.stack(photos))]

    def close(self) -> None:
        """Ends the thread when its photos are computed."""
        self._pool.shutdown(cancel_futures=True)
