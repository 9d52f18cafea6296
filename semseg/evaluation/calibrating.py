"""Temperature and threshold of a trained network, chosen on validation photos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset
from semseg.errors import SemsegError
from semseg.files import in_hand
from semseg.inference.logits import confidence_of_logits, ids_of_logits, probabilities_of_logits
from semseg.inference.segmenter import Segmenter
from semseg.metrics.calibration import (
    best_threshold,
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
    threshold_counts,
)
from semseg.runs.calibration import AS_LEARNT, Calibration

SPLIT = "val"
_MAX_PIXELS = 1_000_000  # that are looked at, spread over all photos
_PIXELS_OF_PHOTO = 20_000


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` chose, and what it was chosen by.

    Attributes:
        calibration: The temperature and the threshold.
        photos: How many it was chosen on.
        pixels: How many of their pixels, drawn by chance.
        errors: The expected calibration error of these before and after.
    """

    calibration: Calibration
    photos: int
    pixels: int
    errors: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """What it was chosen by, as plain values."""
        before, after = (round(error, 6) for error in self.errors)
        return {"split": SPLIT, "photos": self.photos, "pixels": self.pixels, "calibration_error": [before, after]}


def calibrate(
    segmenter: Segmenter, dataset: Dataset, on_progress: Callable[[int, int], None] | None = None
) -> Calibrated:
    """Chooses a temperature and, for two classes, a threshold, on the validation photos at the masks' own size.

    Args:
        segmenter: The network, not calibrated yet.
        dataset: With a split `"val"`.
        on_progress: Called with (photos done, photos in all).

    Raises:
        SemsegError: There is no such split, or none of its pixels counts.
    """
    samples = dataset.splits.get(SPLIT, [])
    if not samples:
        raise SemsegError(f"`calibrate`: {dataset.root} has no validation photos ({SPLIT}) to choose by; leave it out")
    share = min(_PIXELS_OF_PHOTO, -(-_MAX_PIXELS // len(samples)))
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    for number, sample in enumerate(samples, start=1):
        with in_hand(sample.photo):
            photo, truth = dataset.load(sample)
        places = np.flatnonzero(truth != IGNORE)
        if len(places) > share:
            places = np.random.default_rng(number).choice(places, share, replace=False)
        logits = segmenter.logits(photo)
        if len(places):
            drawn.append((logits.reshape(-1, logits.shape[-1])[places], truth.ravel()[places]))
        if on_progress:
            on_progress(number, len(samples))
    if not drawn:
        raise SemsegError(f"`calibrate`: no pixel of the validation photos of {dataset.root} has a class; leave it out")
    calibration = choose(drawn)
    logits, truth = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    errors = _error(logits, truth, AS_LEARNT), _error(logits, truth, calibration)
    return Calibrated(calibration, len(samples), len(truth), errors)


def choose(photos: Sequence[tuple[np.ndarray, np.ndarray]]) -> Calibration:
    """The temperature of least negative log likelihood and, for two classes, the threshold of highest Dice.

    Args:
        photos: Of each photo logits, float `(N, K)` or `(N, 1)` of two classes, and integer class ids `(N,)`.
    """
    logits, truth = (np.concatenate(parts) for parts in zip(*photos, strict=True))
    temperature = fit_temperature(logits, truth)
    if logits.shape[-1] > 2:
        return Calibration(temperature)
    counts = [threshold_counts(probabilities_of_logits(z / temperature)[..., 1], ids) for z, ids in photos]
    return Calibration(temperature, best_threshold(np.stack(counts)))


def _error(logits: np.ndarray, truth: np.ndarray, calibration: Calibration) -> float:
    divided = logits / calibration.temperature
    ids, confidence = (of(divided, calibration.threshold) for of in (ids_of_logits, confidence_of_logits))
    return expected_calibration_error(calibration_bins(truth, ids, confidence))
