"""Class ids for photos of any size, from a function `predict_batch` that gives logits."""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from semseg.utils_func import resize_photo

PredictBatch = Callable[[np.ndarray], np.ndarray]


def predictor(model, batch_size: int = 8) -> PredictBatch:
    """The `predict_batch` of a Keras model.

    Args:
        model: A Keras model from photos `(N, H, W, 3)` to logits `(N, H, W, K)`.
        batch_size: Smaller batches are filled up, so that compiled backends see one shape only.

    Returns:
        A function from photos uint8 `(N, H, W, 3)`, N at most `batch_size`, to logits float32 `(N, H, W, K)`.
    """

    def predict_batch(photos: np.ndarray) -> np.ndarray:
        missing = batch_size - len(photos)
        filled = np.concatenate([photos, np.repeat(photos[-1:], missing, axis=0)]) if missing > 0 else photos
        return np.asarray(model.predict_on_batch(filled))[: len(photos)]

    return predict_batch


def predict_ids(
    predict_batch: PredictBatch, photos: Iterable[np.ndarray], *, image_size: tuple[int, int], batch_size: int = 8
) -> Iterator[np.ndarray]:
    """Class ids at each photo's own size.

    Photos are resized to `image_size` for the network; its logits are resized back to the photo's size before the
    class is chosen, which gives smoother borders than resized ids.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits `(N, h, w, K)`, or `(N, h, w, 1)`.
        photos: uint8 RGB `(H, W, 3)` of any sizes.
        image_size: (h, w) that the network sees.
        batch_size: Photos per call.

    Yields:
        uint8 `(H, W)` for each photo, in order: 0 to K-1.
    """
    for batch in _in_batches(photos, batch_size):
        resized = np.stack([resize_photo(photo, image_size) for photo in batch])
        for photo, logits in zip(batch, predict_batch(resized), strict=True):
            yield ids_of_logits(_resize_logits(logits, photo.shape[:2]))


def ids_of_logits(logits: np.ndarray) -> np.ndarray:
    """`(..., K)` to uint8 `(...)`: the largest logit, or whether the single one is above 0."""
    ids = logits[..., 0] > 0 if logits.shape[-1] == 1 else logits.argmax(axis=-1)
    return ids.astype(np.uint8)


def _resize_logits(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if logits.shape[:2] == tuple(size):
        return logits
    resized = cv2.resize(logits.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*size, logits.shape[2])  # OpenCV drops an axis of one channel


def _in_batches(items: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
