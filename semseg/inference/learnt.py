"""What photos a network learnt from, and what is unlike them in a new one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semseg.files import replacing
from semseg.images.bands import Bands
from semseg.images.resizing import resize_photo
from semseg.inference.segmenter import Segmenter
from semseg.inference.tiling import OVERLAP_OF_CROPS, tiled_logits

_MARGIN = 0.5  # of the range that training photos have, beyond it, which is not unlike yet
_LEAST_MARGIN = 0.02  # of all brightnesses
_TIMES = 2  # longer or shorter sides, or less light, than any photo has, by more than this
_SPARE = 1.1  # times the distance that the farthest validation photos have


@dataclass(frozen=True)
class Look:
    """What a network was shown of a photo, and what it made of that.

    Attributes:
        size: (H, W) of the photo.
        means: Of each band, `(C,)`, from 0 for black to 1 for white.
        contrast: Mean of the bands' standard deviations, in the same unit.
        features: Float `(F,)`, see `Predictor.features`; None where the runtime gives none.
    """

    size: tuple[int, int]
    means: np.ndarray
    contrast: float
    features: np.ndarray | None


class Watch:
    """Looks over a network's shoulder: its `predict_batch`, which notes what each photo is like on the way.

    Args:
        segmenter: The network.
        with_features: Whether it sees photos as it did in training, so that its features can be compared.
    """

    def __init__(self, segmenter: Segmenter, with_features: bool = True):
        self._segmenter, self._with_features = segmenter, with_features
        self._seen: list[tuple[np.ndarray, float, np.ndarray | None]] = []

    def predict_batch(self, photos: np.ndarray) -> np.ndarray:
        """As that of the segmenter."""
        logits = self._segmenter.predict_batch(photos)
        features = self._segmenter.features() if self._with_features else None
        for i, (means, contrast) in enumerate(_light_of(photos, self._segmenter.bands)):
            self._seen.append((means, contrast, None if features is None else features[i]))
        return logits

    def next(self, size: tuple[int, int], tiles: int | None = 1) -> Look:
        """What the next photo, (H, W) pixels, is like: the mean over its tiles.

        Args:
            size: Of the photo.
            tiles: How many of what was seen belong to it; None for all.
        """
        of_photo = self._seen[:tiles]
        del self._seen[:tiles]
        means, contrasts, features = zip(*of_photo, strict=True)
        known = None if any(one is None for one in features) else np.mean(features, axis=0)
        return Look(size, np.mean(means, axis=0), float(np.mean(contrasts)), known)


def _light_of(photos: np.ndarray, bands: Bands) -> Iterable[tuple[np.ndarray, float]]:
    """Mean of each band and contrast of photos `(N, h, w, C)`, by every second pixel, black as 0 and white as 1."""
    pixels = photos[:, ::2, ::2].astype(np.float32)
    low = np.zeros(1, np.float32) if bands.are_rgb else np.float32(bands.low)
    high = np.full(1, 255, np.float32) if bands.are_rgb else np.float32(bands.high)
    means, spreads = pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))
    return zip((means - low) / (high - low), (spreads / (high - low)).mean(axis=-1).tolist(), strict=True)


def look_at(segmenter: Segmenter, photos: Iterable[np.ndarray]) -> list[Look]:
    """What a network makes of photos that it sees as it learnt to.

    Args:
        segmenter: The network.
        photos: `(H, W, C)` of any sizes.
    """
    watch = Watch(segmenter)
    if segmenter.tile is None:
        return list(_look_at_whole(watch, segmenter, photos))
    looks = []
    for photo in photos:
        bands = tiled_logits(
            watch.predict_batch, [photo], photo.shape[:2], image_size=segmenter.image_size, tile=segmenter.tile,
            batch_size=segmenter.batch_size, overlap=OVERLAP_OF_CROPS,
        )  # fmt: skip
        for _ in bands:
            pass
        looks.append(watch.next(photo.shape[:2], tiles=None))
    return looks


def _look_at_whole(watch: Watch, segmenter: Segmenter, photos: Iterable[np.ndarray]) -> Iterator[Look]:
    """In full batches, as some backends fill up others."""
    photos = iter(photos)
    while batch := list(islice(photos, segmenter.batch_size)):
        watch.predict_batch(np.stack([resize_photo(photo, segmenter.image_size) for photo in batch]))
        for photo in batch:
            yield watch.next(photo.shape[:2])


@dataclass(frozen=True, eq=False)
class LearntPhotos:
    """What the photos were like that a network learnt from: the least and the most of each measure.

    Attributes:
        sides: Of the shorter and the longer side, in pixels, `(2, 2)`: least and most of each.
        means: Of each band, `(2, C)`, see `Look`.
        brightness: Of the mean over the bands, `(2,)`.
        contrast: `(2,)`.
        features: Of the photos, float `(n, F)` of length 1; None where nothing tells them.
        limit: Of the distance to the nearest of these, beyond which a photo is unlike all; held-out photos set it.
    """

    sides: np.ndarray
    means: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    features: np.ndarray | None = None
    limit: float = 0.0

    @classmethod
    def of(
        cls, train: Sequence[Look], held_out: Sequence[Look], sizes: Iterable[tuple[int, int]] = ()
    ) -> "LearntPhotos":
        """What training photos were like, and how far from them photos may be that others took at the same time.

        The distance is that to the nearest training photo, of features of length 1: Sun et al. 2022, Out-of-
        Distribution Detection with Deep Nearest Neighbors, https://arxiv.org/abs/2204.06507.

        Args:
            train: Training photos, at least one.
            held_out: Photos of the same kind that the network did not learn from.
            sizes: (H, W) of further training photos.
        """
        sides = np.sort([*(look.size for look in train), *sizes], axis=1)
        means, contrast = np.array([look.means for look in train]), np.array([look.contrast for look in train])
        features, limit = _unit([look.features for look in train]), 0.0
        others = _unit([look.features for look in held_out])
        if features is not None and others is not None:
            limit = _SPARE * float(np.quantile([_distance(one, features) for one in others], 0.99))
        return cls(
            _range(sides).T, _range(means), _range(means.mean(axis=1)), _range(contrast),
            features if limit else None, limit,
        )  # fmt: skip

    def doubts(self, look: Look, bands: Bands) -> list[str]:
        """What is unlike in a photo, in words; nothing where it is like those learnt from.

        Args:
            look: The photo.
            bands: What the network takes.
        """
        return [*self._doubts_of_size(look.size), *self._doubts_of_light(look, bands), *self._doubts_of_features(look)]

    def _doubts_of_size(self, size: tuple[int, int]) -> list[str]:
        shorter, longer = sorted(size)
        (least, _), (_, most) = self.sides
        if longer > _TIMES * most:
            return [f"larger than any photo learnt from (their sides are {most:.0f} at most)"]
        if shorter * _TIMES < least:
            return [f"smaller than any photo learnt from (their sides are {least:.0f} at least)"]
        return []

    def _doubts_of_light(self, look: Look, bands: Bands) -> list[str]:
        doubts = _beyond(float(look.means.mean()), self.brightness, "darker", "brighter")
        if not doubts and 1 < len(look.means) == self.means.shape[1]:
            names = bands.names or (("red", "green", "blue") if bands.are_rgb else range(1, 1 + bands.count))
            for name, value, limits in zip(names, look.means, self.means.T, strict=True):
                doubts += _beyond(float(value), limits, f"with less of band {name}", f"with more of band {name}")
        return doubts + _beyond(look.contrast, self.contrast, "flatter", "of more contrast")

    def _doubts_of_features(self, look: Look) -> list[str]:
        own = _unit([look.features])
        if self.features is None or own is None or own.shape[1] != self.features.shape[1]:
            return []
        return ["unlike in what the network sees"] if _distance(own[0], self.features) > self.limit else []

    def to_dict(self) -> dict[str, Any]:
        """All but the features as plain values for JSON, readable by `from_dict`."""
        return {name: np.round(getattr(self, name), 4).tolist() for name in _MEASURES}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LearntPhotos":
        """What `to_dict` described.

        Raises:
            ValueError: Something is missing or makes no sense.
        """
        return cls(**_checked({name: values.get(name) for name in _MEASURES}))

    def write(self, path: Path, model: str) -> None:
        """Writes all of it to a file of NumPy's form.

        Args:
            path: The file, which ends in `.npz`.
            model: SHA-256 of the model whose features these are.
        """
        arrays = {name: getattr(self, name) for name in _MEASURES}
        if self.features is not None:
            arrays |= {"features": self.features.astype(np.float16), "limit": np.float64(self.limit)}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, model=np.array(model), **arrays)

    @classmethod
    def read(cls, path: Path, model: str) -> "LearntPhotos | None":
        """What `write` wrote; without features where they are of another model, and None where it cannot be read.

        Args:
            path: The file.
            model: SHA-256 of the model.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            known = _checked({name: arrays.get(name) for name in _MEASURES})
            if "features" not in arrays or str(arrays["model"]) != model:
                return cls(**known)
            return cls(**known, features=arrays["features"].astype(np.float32), limit=float(arrays["limit"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None  # a prediction does without


_MEASURES = {"sides": (2, 2), "means": (2, None), "brightness": (2,), "contrast": (2,)}


def _checked(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of the shapes of `_MEASURES`.

    Raises:
        ValueError: One is missing, of another shape, or holds what is no number.
    """
    found = {name: np.asarray(values, np.float64) for name, values in arrays.items()}
    for name, shape in _MEASURES.items():
        of_shape = found[name].ndim == len(shape) and found[name].shape[0] == 2
        if not of_shape or not np.isfinite(found[name]).all():
            raise ValueError(f"its description of photos holds {arrays[name]!r} as {name}")
    return found


def _range(values: np.ndarray) -> np.ndarray:
    return np.stack([values.min(axis=0), values.max(axis=0)])


def _beyond(value: float, limits: np.ndarray, less: str, more: str) -> list[str]:
    """Says where a measure lies outside what training photos had, by more than the margin."""
    low, high = limits
    margin = max(_LEAST_MARGIN, _MARGIN * (high - low))
    least = max(low - margin, low / _TIMES) if low > 0 else low - margin
    word = less if value < least else more if value > high + margin else ""
    return [f"{word} than any photo learnt from"] if word else []


def _unit(features: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Features of length 1, `(n, F)`; None where one is missing, or there are none."""
    if not features or any(one is None for one in features):
        return None
    rows = np.array(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _distance(one: np.ndarray, others: np.ndarray) -> float:
    """To the nearest of others."""
    return float(np.sqrt(((others - one) ** 2).sum(axis=1).min()))
