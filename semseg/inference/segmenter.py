"""Class ids for photos of any size, from a function `predict_batch` that gives logits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

from semseg.backend import PredictBatch
from semseg.errors import SemsegError
from semseg.images.bands import RGB, Bands
from semseg.images.resizing import resize_photo
from semseg.inference.logits import ids_of_logits, mean_of_views, probabilities_of_logits
from semseg.inference.tiling import OVERLAP_OF_CROPS, tile_of_crops, tiled_logits, with_scales
from semseg.labels.palettes import Palette
from semseg.runs.calibration import AS_LEARNT, Calibration

if TYPE_CHECKING:
    from semseg.inference.learnt import LearntPhotos

Item = TypeVar("Item")
FLIPS: dict[str, Sequence[tuple[int, ...]]] = {  # the axes of (N, H, W, C) that each view is flipped along
    "horizontal": ((2,), ()),  # the photo as it is comes last, so that the network's features are of that
    "both": ((1, 2), (1,), (2,), ()),
}


def no_features() -> None:
    """The features of a network that gives none."""


@dataclass(frozen=True)
class Segmenter:
    """A trained network, whichever runtime computes it.

    Attributes:
        predict_batch: From photos `(N, h, w, C)`, uint8 RGB or as `bands` say, N at least 1, to logits float32
            `(N, h, w, K)` or, for two classes, `(N, h, w, 1)`.
        image_size: (h, w) that it sees; photos of other sizes are resized to it, or seen in tiles of it: see `scale`.
        palette: Names and colours of the classes.
        batch_size: Photos per call, at most.
        bands: What photos must hold.
        scale: Of a network that learned crops: pixels that it sees for one of the photo's, along each side. None: it
            sees photos whole.
        calibration: What was chosen on validation photos. The logits are divided by its temperature already; whoever
            makes ids of them uses its threshold.
        gives_ids: Whether it gives classes alone: its logits say nothing of how sure it is.
        features: Gives what the network made of the photos of the last call of `predict_batch`, float32 `(N, F)`, or
            None where nothing tells it; see `Predictor.features`.
        learnt: What the photos were like that it learnt from; None where nothing tells it.
    """

    predict_batch: PredictBatch
    image_size: tuple[int, int]
    palette: Palette
    batch_size: int = 8
    bands: Bands = RGB
    scale: float | None = None
    calibration: Calibration = AS_LEARNT
    gives_ids: bool = False
    features: Callable[[], np.ndarray | None] = no_features
    learnt: "LearntPhotos | None" = None

    def calibrated(self, calibration: Calibration) -> "Segmenter":
        """The same network, as sure and deciding as was chosen on validation photos.

        Args:
            calibration: For this network as it is, which must not be calibrated yet.
        """
        predict_batch, temperature = self.predict_batch, np.float32(calibration.temperature)
        if temperature == 1:
            return replace(self, calibration=calibration)
        return replace(self, predict_batch=lambda photos: predict_batch(photos) / temperature, calibration=calibration)

    @property
    def tile(self) -> tuple[int, int] | None:
        """(height, width) in a photo's pixels of what it sees at once; None for the whole photo."""
        return None if self.scale is None else tile_of_crops(self.image_size, self.scale)

    def logits(self, photo: np.ndarray) -> np.ndarray:
        """Of every class at each pixel of one photo, `(H, W, C)` of any size: float32 `(H, W, K)` or `(H, W, 1)`."""
        (logits,) = predict_logits(
            self.predict_batch, [photo], image_size=self.image_size, batch_size=self.batch_size, scale=self.scale
        )
        return logits

    def probabilities(self, photo: np.ndarray) -> np.ndarray:
        """Of every class at each pixel of one photo.

        Args:
            photo: uint8 RGB `(H, W, 3)` of any size.

        Returns:
            float32 `(H, W, K)`, also for two classes; the sum over K is 1. The argmax is the prediction, the largest
            value how certain it is; of a network with a threshold of its own, see `ids`.
        """
        return probabilities_of_logits(self.logits(photo))

    def ids(self, photo: np.ndarray) -> np.ndarray:
        """The class of each pixel of one photo, `(H, W, C)` of any size: uint8 `(H, W)`, 0 to K-1."""
        return ids_of_logits(self.logits(photo), self.calibration.threshold)


def with_flips(predict_batch: PredictBatch, flips: str) -> PredictBatch:
    """A `predict_batch` that sees each photo also mirrored, and gives the mean of the probabilities.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits `(N, h, w, K)`, or `(N, h, w, 1)`.
        flips: `"horizontal"` for the photo and its mirror image; `"both"` for these two upside down as well.

    Returns:
        A function that gives logits whose softmax, or sigmoid, is the mean over the views.

    Raises:
        SemsegError: `flips` is none of these.
    """
    if flips not in FLIPS:
        raise SemsegError(f"`flips`: got {flips!r}; expected one of {', '.join(FLIPS)}")

    def predict_all(photos: np.ndarray) -> np.ndarray:
        views = [np.flip(predict_batch(np.ascontiguousarray(np.flip(photos, axes))), axes) for axes in FLIPS[flips]]
        return mean_of_views(views)

    return predict_all


def with_views(segmenter: Segmenter, flips: str | None, scales: str | None) -> Segmenter:
    """The network that also sees photos mirrored and at other sizes, where that is asked for.

    Args:
        segmenter: The network.
        flips: As of `with_flips`; None for photos as they are.
        scales: Factors of a photo's size, such as `"0.75,1,1.25"`; None for its own.

    Raises:
        SemsegError: One of them makes no sense.
    """
    predict_batch, features = segmenter.predict_batch, segmenter.features
    if flips:
        predict_batch = with_flips(predict_batch, flips)
    if scales:
        try:
            factors = [float(number) for number in scales.split(",")]
        except ValueError:
            raise SemsegError(f"`scales`: got {scales!r}; expected factors such as 0.75,1,1.25") from None
        predict_batch = with_scales(predict_batch, factors)
        features = no_features  # of several sizes, others than it learnt
    return replace(segmenter, predict_batch=predict_batch, features=features)


def predict_logits(
    predict_batch: PredictBatch,
    photos: Iterable[np.ndarray],
    *,
    image_size: tuple[int, int],
    batch_size: int = 8,
    scale: float | None = None,
) -> Iterator[np.ndarray]:
    """Logits at each photo's own size.

    A photo that is seen whole is resized to `image_size` for the network, and its logits back to the photo's size:
    borders get smoother than by resizing ids.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits `(N, h, w, K)`, or `(N, h, w, 1)`.
        photos: uint8 RGB `(H, W, 3)` of any sizes.
        image_size: (h, w) that the network sees.
        batch_size: Photos, or tiles of one, per call.
        scale: Of a network that learned crops: pixels that it sees for one of the photo's; each photo is then seen in
            overlapping tiles. None: it sees photos whole.

    Yields:
        float `(H, W, K)`, or `(H, W, 1)`, for each photo, in order.
    """
    if scale is not None:
        tile = tile_of_crops(image_size, scale)
        for photo in photos:
            bands = tiled_logits(
                predict_batch, [photo], photo.shape[:2], image_size=image_size, tile=tile, batch_size=batch_size,
                overlap=OVERLAP_OF_CROPS,
            )  # fmt: skip
            yield np.concatenate(list(bands))
        return
    computed = in_batches(predict_batch, photos, lambda photo: resize_photo(photo, image_size), batch_size)
    for photo, logits in computed:
        if logits is not None:  # as of every photo: nothing is left out here
            yield _resize_logits(logits, photo.shape[:2])


def in_batches(
    predict_batch: PredictBatch,
    items: Iterable[Item],
    seen: Callable[[Item], np.ndarray | None],
    batch_size: int,
) -> Iterator[tuple[Item, np.ndarray | None]]:
    """Each item with its logits, in order.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits `(N, h, w, K)`, or `(N, h, w, 1)`.
        items: Whatever photos can be had from.
        seen: From an item to its photo as the network sees it, uint8 `(h, w, 3)`; None where there is nothing to see.
        batch_size: Photos per call.

    Yields:
        An item and its logits `(h, w, K)`, or None. What there is nothing to see of ends a batch, so that it waits for
        none.

    Example:
        >>> photo_of = {"a": 1, "b": 2, "broken": None}
        >>> list(in_batches(lambda photos: (2 * photos).tolist(), photo_of, photo_of.get, batch_size=8))
        [('a', 2), ('b', 4), ('broken', None)]
    """
    waiting: list[tuple[Item, np.ndarray]] = []

    def computed() -> Iterator[tuple[Item, np.ndarray]]:
        if waiting:
            batch, photos = zip(*waiting, strict=True)
            waiting.clear()
            yield from zip(batch, predict_batch(np.stack(photos)), strict=True)

    for item in items:
        photo = seen(item)
        if photo is None:
            yield from computed()
            yield item, None
            continue
        waiting.append((item, photo))
        if len(waiting) == batch_size:
            yield from computed()
    yield from computed()


def predict_ids(
    predict_batch: PredictBatch,
    photos: Iterable[np.ndarray],
    *,
    image_size: tuple[int, int],
    batch_size: int = 8,
    scale: float | None = None,
    threshold: float = 0.5,
) -> Iterator[np.ndarray]:
    """Class ids at each photo's own size, uint8 `(H, W)`, 0 to K-1: `ids_of_logits` of `predict_logits`."""
    for logits in predict_logits(predict_batch, photos, image_size=image_size, batch_size=batch_size, scale=scale):
        yield ids_of_logits(logits, threshold)


def _resize_logits(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if logits.shape[:2] == tuple(size):
        return logits
    resized = cv2.resize(logits.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*size, logits.shape[2])  # OpenCV drops an axis of one channel
