"""From the file of a photo to what is known of it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg.images.resizing import resize_photo
from semseg.inference.files import SHOWN, enough_to_show, write_masks
from semseg.inference.segmenter import Segmenter
from semseg.inference.tiling import resize_bands
from semseg.serve.batching import Batches
from semseg.serve.decoding import Decoder

_WRITERS = 2


@dataclass(frozen=True)
class Answer:
    """What is known of a photo.

    Attributes:
        size: (H, W) of the photo, upright.
        counts: int64 `(K,)`: pixels of each class.
        mask: The PNG file of the ids `(H, W)`, the same bytes that `predict` writes.
        shown: The photo as a JPEG file, see `Decoded`.
        unlike: What is unlike in it to the photos that the network learnt from, in words.
    """

    size: tuple[int, int]
    counts: np.ndarray
    mask: bytes
    shown: bytes
    unlike: tuple[str, ...] = ()


class Answerer:
    """Asks the network: one photo is decoded, others are computed, and others written, at the same time.

    Args:
        segmenter: The network.
        on_batch: As of `Batches`.
    """

    def __init__(self, segmenter: Segmenter, on_batch: Callable[[int], None]):
        self._segmenter, self._batches = segmenter, Batches(segmenter, on_batch)
        size = None if segmenter.tile else segmenter.image_size
        self._decoder = Decoder(size, size and enough_to_show(size), SHOWN, segmenter.bands)
        self._decoding, self._writing = ThreadPoolExecutor(1), ThreadPoolExecutor(_WRITERS)

    async def answer(self, path: Path) -> Answer:
        """The answer for a photo's file; its folder is used for temporary files.

        Raises:
            DataError: It is no picture that can be used.
        """
        decoded = await _in(self._decoding, self._decoder.decode, path)
        mask = path.with_name("mask.png")
        counts, unlike = await self._write(decoded.seen, decoded.size, mask, decoded.without_data)
        return Answer(decoded.size, counts, mask.read_bytes(), decoded.shown, unlike)

    async def predict(self, photo: np.ndarray, mask: Path) -> bytes:
        """The PNG file of a photo's ids.

        Args:
            photo: `(H, W, C)`, as the network's bands say.
            mask: A path for the file while it is written.
        """
        seen = photo if self._segmenter.tile else resize_photo(photo, self._segmenter.image_size)
        await self._write(seen, photo.shape[:2], mask, None)
        return mask.read_bytes()

    async def _write(
        self, seen: np.ndarray, size: tuple[int, int], mask: Path, without_data: np.ndarray | None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Computes a photo and writes its mask; returns the pixels of each class, and what is unlike in it."""
        logits, look = await self._batches.logits(seen)

        def write() -> np.ndarray:
            bands = resize_bands([logits], size, logits.shape[:2])
            files = {"masks": mask}
            threshold = self._segmenter.calibration.threshold
            return write_masks(
                bands, size, files, self._segmenter.palette, threshold=threshold, without_data=without_data
            ).counts

        learnt = self._segmenter.learnt
        doubts = learnt.doubts(replace(look, size=size), self._segmenter.bands) if learnt else ()
        return await _in(self._writing, write), tuple(doubts)

    def close(self) -> None:
        """Ends the process that decodes."""
        self._decoder.close()
        self._batches.close()
        for pool in (self._decoding, self._writing):
            pool.shutdown(cancel_futures=True)


async def _in(pool: ThreadPoolExecutor, function: Callable, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
