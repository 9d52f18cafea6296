"""From the file of a photo to what is known of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semseg.inference.files import SHOWN, enough_to_show, write_masks
from semseg.inference.segmenter import Segmenter
from semseg.inference.tiling import resize_bands
from semseg.serve.decoding import Decoder


@dataclass(frozen=True)
class Answer:
    """What is known of a photo.

    Attributes:
        size: (H, W) of the photo, upright.
        counts: int64 `(K,)`: pixels of each class.
        mask: The PNG file of the ids `(H, W)`, the same bytes that `predict` writes.
        shown: The photo as a JPEG file, see `Decoded`.
    """

    size: tuple[int, int]
    counts: np.ndarray
    mask: bytes
    shown: bytes


class Answerer:
    """Asks the network, one photo at a time."""

    def __init__(self, segmenter: Segmenter):
        self._segmenter = segmenter
        size = None if segmenter.tile else segmenter.image_size
        self._decoder = Decoder(size, size and enough_to_show(size), SHOWN, segmenter.bands)

    def answer(self, path: Path) -> Answer:
        """The answer for a photo's file; its folder is used for temporary files.

        Raises:
            DataError: It is no picture that can be used.
        """
        decoded = self._decoder.decode(path)
        logits = self._segmenter.logits(decoded.seen)
        bands = resize_bands([logits], decoded.size, logits.shape[:2])
        mask = path.with_name("mask.png")
        written = write_masks(
            bands, decoded.size, {"masks": mask}, self._segmenter.palette,
            threshold=self._segmenter.calibration.threshold, without_data=decoded.without_data,
        )  # fmt: skip
        return Answer(decoded.size, written.counts, mask.read_bytes(), decoded.shown)

    def close(self) -> None:
        """Ends the process that decodes."""
        self._decoder.close()
