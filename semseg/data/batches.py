"""Batches for training: shuffled, augmented and loaded in the background, the same for the same seed."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from semseg.data.augment import Augmentation
from semseg.data.base import Dataset, Sample
from semseg.errors import SemsegError
from semseg.utils_func import resize_mask, resize_photo


def data_generator(
    dataset: Dataset,
    split: str = "train",
    *,
    batch_size: int = 8,
    image_size: tuple[int, int] = (128, 128),
    augmentation: Augmentation | None = None,
    seed: int = 0,
    workers: int = 2,
) -> "Batches":
    """Batches of one split, for `model.fit` or a `for` loop.

    Args:
        dataset: From `open_dataset`.
        split: `"train"` is shuffled anew in every epoch; other splits keep their order.
        batch_size: N; the last batch of an epoch holds what is left.
        image_size: (height, width) that photos and masks are resized to.
        augmentation: Changes photo and mask together; None leaves them as they are.
        seed: Order and changes follow from (seed, epoch, index), whatever the number of workers.
        workers: Threads that load ahead; 0 loads when a batch is asked for.

    Returns:
        A `keras.utils.PyDataset` of photos uint8 `(N, H, W, 3)` and masks uint8 `(N, H, W)`; a `for` loop over it runs
        through one epoch, the next one through the next.

    Raises:
        SemsegError: `batch_size` or `workers` out of range, or no such split.
    """
    if split not in dataset.splits:
        raise SemsegError(f"split: got {split!r}; expected one of {', '.join(dataset.splits)}")
    if batch_size < 1 or workers < 0:
        raise SemsegError(f"data_generator: got {batch_size=} and {workers=}; expected at least 1 and at least 0")
    return Batches(dataset, split, batch_size, image_size, augmentation, seed, workers)


class Batches(keras.utils.PyDataset):
    """See `data_generator`, which makes them.

    Keras' own loading is bypassed: its `workers=1` loads in the training thread, and its process pool can hang. Here a
    batch is a pure function of (seed, epoch, index), and threads compute the next ones ahead; OpenCV and Pillow release
    the interpreter while they decode and resize.
    """

    def __init__(self, dataset, split, batch_size, image_size, augmentation, seed, workers):
        super().__init__(workers=0)
        self.dataset, self.samples = dataset, dataset.splits[split]
        self.batch_size, self.image_size = batch_size, image_size
        self.augmentation, self.shuffled = augmentation, split == "train"
        self.seed, self.epoch, self._finished = seed, 0, False
        self.error: SemsegError | None = None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="semseg-load") if workers else None
        self._ahead = 2 * workers
        self._futures: dict[tuple[int, int], Future] = {}

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in range(len(self)):
            yield self[index]
        self.on_epoch_end()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns photos uint8 `(N, H, W, 3)` and masks uint8 `(N, H, W)` of the current epoch's batch `index`."""
        self._finished = index == len(self) - 1
        try:
            return self._get(index)
        except SemsegError as error:
            self.error = error  # TensorFlow puts an error of its own in its place
            raise

    def _get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._pool is None:
            return self._compute(self.epoch, index)
        for position in range(index, index + self._ahead + 1):
            key = (self.epoch + position // len(self), position % len(self))
            if key not in self._futures:
                self._futures[key] = self._pool.submit(self._compute, *key)
        return self._futures.pop((self.epoch, index)).result()

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch once this one's last batch was given; Keras calls this before the first, too."""
        if self._finished:
            self.start_epoch(self.epoch + 1)

    def start_epoch(self, epoch: int) -> None:
        """Makes `epoch`, counted from 0, the current one."""
        self.epoch, self._finished = epoch, False
        for key in [key for key in self._futures if key[0] < self.epoch]:
            self._futures.pop(key).cancel()

    def close(self) -> None:
        """Ends the loading threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _compute(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        pairs = [self._load(self.samples[i], np.random.default_rng([self.seed, epoch, i])) for i in chosen]
        photos, masks = zip(*pairs, strict=True)
        return np.stack(photos), np.stack(masks)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffled:
            return np.arange(len(self.samples))
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.samples))

    def _load(self, sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        photo, mask = self.dataset.load(sample)
        photo, mask = resize_photo(photo, self.image_size), resize_mask(mask, self.image_size)
        return (photo, mask) if self.augmentation is None else self.augmentation(photo, mask, rng)
