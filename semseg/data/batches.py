"""Batches for training: shuffled, augmented and loaded in the background, the same for the same seed."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import keras
import numpy as np

from semseg import IGNORE
from semseg.data.augment import Augmentation
from semseg.data.base import Dataset, Sample, spread
from semseg.data.cache import Cache
from semseg.data.crops import (
    crops_of_epoch,
    crops_per_photo,
    cut,
    draw_place,
    draw_place_around,
    places_of_tiles,
)
from semseg.errors import DataError, SemsegError
from semseg.files import in_hand
from semseg.images.resizing import scaled_size
from semseg.runs.stalling import DaemonPool, result_of

CENTRED = 1 / 3  # of the crops, where they are drawn around rare classes


def data_generator(
    dataset: Dataset,
    split: str = "train",
    *,
    batch_size: int = 8,
    image_size: tuple[int, int] = (128, 128),
    augmentation: Augmentation | None = None,
    seed: int = 0,
    workers: int = 2,
    cache: Cache | None = None,
    sample_weights: np.ndarray | None = None,
    share: tuple[int, ...] = (0, 1),
    scale: float | None = None,
    most_crops: int | None = None,
    centres: Sequence[Sequence[np.ndarray]] | None = None,
    centred: float = CENTRED,
) -> "Batches":
    """Batches of one split, for `model.fit` or a `for` loop.

    Args:
        dataset: From `open_dataset`.
        split: `"train"` is shuffled anew in every epoch; other splits keep their order.
        batch_size: N; the last batch of an epoch holds what is left.
        image_size: (height, width) that photos and masks are resized to, or of the crops of them: see `scale`.
        augmentation: Changes photo and mask together; None leaves them as they are.
        seed: Order and changes follow from (seed, epoch, index of the batch), whatever the number of workers.
        workers: Threads that load ahead; 0 loads when a batch is asked for.
        cache: Keeps what was loaded and resized; made for the same `image_size`.
        sample_weights: Float `(samples of the split,)`, at least 0: each epoch draws as many samples as there are, with
            replacement, each in proportion to its weight. See `rare_class_weights`.
        share: Process r of R, (r, R), gets its part of each batch, the r-th of R; together they get what one process
            would. The part of a batch of fewer photos than processes may be empty: it then holds one photo of which
            every pixel is ignored.
        scale: None to see each sample whole. A number to see crops of it at that scale, in pixels of the crop for one
            of the files': of a training sample as many in an epoch, each drawn anew, as make a pass over its area, of
            others those that cover it.
        most_crops: In an epoch; in training chosen anew in each, of other splits spread evenly. Few training samples
            are passed over several times: see `crops_of_epoch`. None for one pass over all.
        centres: Where each sample shows rare classes, a list of arrays from `centres_of` for each, which may be empty:
            a share of its crops is drawn around them, each class as likely, then each of its pixels. None for no such.
        centred: That share, 0 to 1.

    Returns:
        A `keras.utils.PyDataset` of photos uint8 `(N, H, W, 3)`, or float32 `(N, H, W, C)` where they hold other bands,
        and masks uint8 `(N, H, W)`; a `for` loop over it runs through one epoch, the next one through the next.

    Raises:
        SemsegError: `batch_size`, `workers` or `sample_weights` out of range, no such split, or a cache of other size.
    """
    if split not in dataset.splits:
        raise SemsegError(f"split: got {split!r}; expected one of {', '.join(dataset.splits)}")
    if batch_size < 1 or workers < 0:
        raise SemsegError(f"data_generator: got {batch_size=} and {workers=}; expected at least 1 and at least 0")
    if cache is not None and (cache.scale != scale or (scale is None and cache.image_size != tuple(image_size))):
        made = f"images of {cache.image_size}" if cache.scale is None else f"crops at a scale of {cache.scale}"
        raise SemsegError(f"cache: made for {made}; expected {tuple(image_size)} and {scale=}, as of the batches")
    probabilities = None
    if sample_weights is not None:
        probabilities = _probabilities(np.asarray(sample_weights, float), len(dataset.splits[split]))
    return Batches(
        dataset, split, batch_size, image_size, augmentation, seed, workers, cache, probabilities, share, scale,
        most_crops, centres, centred,
    )  # fmt: skip


def rare_class_weights(counts: np.ndarray, often: float = 0.5) -> np.ndarray:
    """How often to draw each sample so that rare classes are seen more: repeat-factor sampling.

    A class that a share f of the samples shows asks for sqrt(often / f), at least 1; a sample is drawn as often as the
    rarest of its classes asks. The square root keeps it mild: a class in 5 % of the samples gets a factor of 3.2.

    Args:
        counts: Integer `(samples, K)`: pixels of each class in each sample.
        often: Share of the samples from which on a class is not rare. The paper's .001 is for 1203 classes in 100 000
            photos; in street scenes, with .5, trains, buses and riders are rare, and cars are not.

    Returns:
        Float `(samples,)`, at least 1, for `data_generator(sample_weights=...)`.

    Example:
        >>> rare_class_weights(np.array([[9, 0], [9, 0], [9, 0], [9, 0], [9, 0], [9, 0], [9, 0], [5, 4]])).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]

    Reference: Gupta et al. 2019, LVIS, https://arxiv.org/abs/1908.03195.
    """
    present = np.asarray(counts) > 0
    share = np.maximum(present.mean(axis=0), 1 / len(present))  # a class that no sample shows asks for nothing
    return np.maximum(1.0, np.where(present, np.sqrt(often / share), 1.0).max(axis=1))


def _probabilities(weights: np.ndarray, count: int) -> np.ndarray:
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
        raise SemsegError(
            f"sample_weights: got shape {weights.shape} from {weights.min(initial=0):g} to {weights.max(initial=0):g}; "
            f"expected ({count},) finite numbers of at least 0, not all of them 0"
        )
    return weights / weights.sum()


def own_places(count: int, share: tuple[int, ...]) -> range:
    """The places of a process' photos in a batch.

    Args:
        count: Photos of the batch.
        share: (r, R) for process r of R; those of lower numbers have as many as the others, or one more. With a third
            number, the parts are of one size, a multiple of it, as far as the photos go.

    Example:
        >>> [list(own_places(5, (rank, 4))) for rank in range(4)]
        [[0, 1], [2], [3], [4]]
        >>> [list(own_places(5, (rank, 4, 1))) for rank in range(4)]
        [[0, 1], [2, 3], [4], []]
    """
    rank, processes, *multiple = share
    if multiple:
        size = -(-count // (processes * multiple[0])) * multiple[0]
        return range(min(count, rank * size), min(count, (rank + 1) * size))
    return range(-(-rank * count // processes), -(-(rank + 1) * count // processes))


class Batches(keras.utils.PyDataset):
    """See `data_generator`, which makes them.

    Keras' own loading is bypassed: its `workers=1` loads in the training thread, and its process pool can hang. Here a
    batch is a pure function of (seed, epoch, index), and threads compute the next ones ahead; OpenCV and Pillow release
    the interpreter while they decode and resize.

    Attributes:
        first: Batches of the current epoch that are over: what comes is the rest of it.
        waited: Seconds that the loop has waited for batches, by epoch.
        error: The last error that loading raised.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        image_size: tuple[int, int],
        augmentation: Augmentation | None,
        seed: int,
        workers: int,
        cache: Cache | None,
        probabilities: np.ndarray | None,
        share: tuple[int, ...] = (0, 1),
        scale: float | None = None,
        most_crops: int | None = None,
        centres: Sequence[Sequence[np.ndarray]] | None = None,
        centred: float = CENTRED,
    ) -> None:
        super().__init__(workers=0)
        self.dataset, self.samples = dataset, dataset.splits[split]
        self.batch_size, self.image_size = batch_size, image_size
        self.augmentation, self.shuffled = augmentation, split == "train"
        self.cache, self.probabilities, self.share, self.scale = cache, probabilities, share, scale
        self._times, self._places = self._crops(most_crops)
        self._centres, self._centred = centres, centred
        self.seed, self.epoch, self.first, self._finished = seed, 0, 0, False
        self.waited: dict[int, float] = {}
        self.error: SemsegError | None = None
        self._cause: BaseException | None = None
        self._loaders = DaemonPool(workers, "semseg-load") if workers else None
        self._ahead = 2 * workers
        self._futures: dict[tuple[int, int], Future] = {}
        self._last_order = (-1, np.empty(0, int))

    def __len__(self) -> int:
        return self.per_epoch - self.first

    def _crops(self, most: int | None) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """How often each sample is seen in an epoch, and where; no places where each is seen whole, or they are drawn.

        An epoch of drawn crops takes the first of as many passes as it needs.
        """
        if self.scale is None:
            times = np.ones(len(self.samples), int)
            self.count = len(self.samples)
            return times, []
        self._sizes = [scaled_size(self.dataset.size_of(sample), self.scale) for sample in self.samples]
        if self.shuffled:
            times = crops_per_photo(self._sizes, self.image_size)
            one_pass = int(times.sum())
            self.count = crops_of_epoch(one_pass, most) if most else one_pass
            return times * -(-self.count // one_pass), []
        tiles = [(i, place) for i, size in enumerate(self._sizes) for place in places_of_tiles(size, self.image_size)]
        chosen = spread(tiles, most) if most else tiles
        self.count = len(chosen)
        return np.bincount([i for i, _ in chosen], minlength=len(self.samples)), [place for _, place in chosen]

    @property
    def per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in range(len(self)):
            yield self[index]
        self.on_epoch_end()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the photos `(N, H, W, C)` and masks uint8 `(N, H, W)` of batch `index` of what is left."""
        self._finished = index == len(self) - 1
        began = time.perf_counter()
        try:
            return self._get(self.first + index)
        except SemsegError as error:
            self.error, self._cause = error, error.__cause__
            raise
        finally:
            self.waited[self.epoch] = self.waited.get(self.epoch, 0.0) + time.perf_counter() - began

    def _get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._loaders is None:
            return self._compute(self.epoch, index)
        for position in range(index, index + self._ahead + 1):
            key = (self.epoch + position // self.per_epoch, position % self.per_epoch)
            if key not in self._futures:
                self._futures[key] = self._loaders.submit(self._compute, *key)
        return result_of(self._futures.pop((self.epoch, index)))

    def photos(self, index: int) -> list[Path]:
        """The files of the photos in batch `index` of what is left of the current epoch.

        Args:
            index: From 0 to below the number of batches.
        """
        return [self.samples[i].photo for i in self._indices(self.epoch, self.first + index)]

    def photo_counts(self, index: int) -> tuple[int, int]:
        """How many photos of batch `index` of what is left are in this process' part, and how many in all."""
        count = len(self._indices(self.epoch, self.first + index))
        return len(own_places(count, self.share)), count

    def raise_error(self) -> None:
        """Raises the last error of loading, if any: Keras drops its cause, TensorFlow puts another in its place."""
        if self.error is not None:
            raise self.error from self._cause

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch once this one's last batch was given; Keras calls this before the first, too."""
        if self._finished:
            self.start_epoch(self.epoch + 1)

    def start_epoch(self, epoch: int, first: int = 0) -> None:
        """Makes an epoch the current one.

        Args:
            epoch: Counted from 0; batches that were loaded ahead for earlier ones are dropped.
            first: Batches of it that are over, fewer than it has.
        """
        self.epoch, self.first, self._finished = epoch, first, False
        for key in [key for key in self._futures if key[0] < epoch]:
            self._futures.pop(key).cancel()

    def close(self) -> None:
        """Ends the loading threads; batches are then computed when they are asked for."""
        if self._loaders is not None:
            self._loaders.close()
            self._loaders = None
            self._futures.clear()

    def _compute(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        indices = self._indices(epoch, index)
        bands = self.dataset.bands  # backends know bytes and floats well, uint16 hardly
        dtype = np.uint8 if bands.dtype == "uint8" else np.float32
        own = own_places(len(indices), self.share)
        photos = np.zeros((max(1, len(own)), *self.image_size, bands.count), dtype)
        masks = np.full((max(1, len(own)), *self.image_size), IGNORE, np.uint8)
        for place, i in enumerate(own):
            photos[place], masks[place] = self._load(indices[i], epoch, index * self.batch_size + i)
        return photos, masks

    def _indices(self, epoch: int, index: int) -> np.ndarray:
        """Which samples of the split make up a batch."""
        return self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        epoch_of_order, order = self._last_order  # one attribute, because threads replace it
        if epoch_of_order != epoch:
            order = self._draw_order(np.random.default_rng([self.seed, epoch]))
            self._last_order = (epoch, order)
        return order

    def _draw_order(self, rng: np.random.Generator) -> np.ndarray:
        if self.probabilities is not None:
            chances = self.probabilities * self._times
            return rng.choice(len(self.samples), self.count, p=chances / chances.sum())
        every = np.repeat(np.arange(len(self.samples)), self._times)
        return rng.permutation(every)[: self.count] if self.shuffled else every

    def _load(self, i: int, epoch: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        """What an epoch shows of sample `i` at a position; all that is drawn follows from seed, epoch and position."""
        sample = self.samples[i]
        try:
            with in_hand(sample.photo):
                rng = np.random.default_rng([self.seed, epoch, position])
                return self._whole(sample, rng) if self.scale is None else self._crop(i, position, rng)
        except SemsegError:
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            raise DataError(f"{sample.photo}: cannot be made ready for training ({problem}); leave it out") from error

    def _whole(self, sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        cached = None if self.cache is None else self.cache.find(sample)
        photo, mask = cached or self._read(sample, self.image_size)
        if self.augmentation is None:
            return photo, mask
        bands = self.dataset.bands
        return self.augmentation(photo, mask, rng, *(() if bands.are_rgb else (bands,)))

    def _crop(self, i: int, position: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sample, size = self.samples[i], self._sizes[i]
        place = self._places[position] if self._places else self._draw_place(i, rng)
        drawn = None if self.augmentation is None else self.augmentation.draw(self.image_size, rng)

        def read(top: int, left: int, bottom: int, right: int) -> tuple[np.ndarray, np.ndarray]:
            found = None if self.cache is None else self.cache.find_part(sample, top, left, bottom, right)
            if found:
                return found
            photo, mask = self._read(sample, size)
            return photo[top:bottom, left:right], mask[top:bottom, left:right]

        return cut(read, size, place, self.image_size, self.dataset.bands, drawn)

    def _draw_place(self, i: int, rng: np.random.Generator) -> tuple[int, int]:
        size, centres = self._sizes[i], self._centres[i] if self._centres else ()
        if not centres or rng.random() >= self._centred:
            return draw_place(size, self.image_size, rng)
        places = centres[int(rng.integers(len(centres)))]
        return draw_place_around(places[rng.integers(len(places))], size, self.image_size, rng)

    def _read(self, sample: Sample, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        photo, mask = self.dataset.load(sample, size)
        if self.cache is not None:
            self.cache.store(sample, photo, mask)
        return photo, mask
