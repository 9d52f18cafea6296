"""Intervals of scores over a split: how far they may be off because it holds these photos and not others."""

import numpy as np

from semseg.errors import SemsegError
from semseg.metrics.confusion import divide, mean_of_numbers


def bootstrap_intervals(
    counts: np.ndarray, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """How far the headline scores of a split may be off because it holds these images and not others.

    The percentile bootstrap: as many images as there are are drawn with replacement, their counts summed and scored,
    `draws` times; the interval runs between the quantiles that leave out (1 - level) / 2 on either side. Images count
    as independent draws, so frames of one video make it too narrow, and it says nothing of another training run.

    Args:
        counts: int `(N, 3, K)`, `class_counts` of every image.
        draws: How often to draw.
        level: Share of the draws inside the interval, above 0 and below 1.
        seed: Of the draws: the same seed gives the same intervals.

    Returns:
        For `accuracy`, `macro_iou`, `macro_dice` and `weighted_iou`, as in `scores`, the ends (low, high); NaN where
        no pixel counts. A single image gives its own score twice.

    Raises:
        SemsegError: No images, another shape, or draws or a level out of range.

    Example:
        >>> from semseg.metrics.confusion import class_counts
        >>> images = np.array([class_counts(np.array(m)) for m in ([[9, 1], [0, 4]], [[3, 3], [1, 2]])])
        >>> low, high = bootstrap_intervals(images)["accuracy"]
        >>> round(low, 3), round(high, 3)  # the worse image twice, the better one twice
        (0.556, 0.929)

    Reference: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    if counts.ndim != 3 or counts.shape[1] != 3 or not len(counts):
        raise SemsegError(f"bootstrap_intervals: got counts of shape {counts.shape}; expected (images, 3, classes)")
    if draws < 1 or not 0 < level < 1:
        raise SemsegError(f"bootstrap_intervals: got {draws=}, {level=}; expected at least 1, and between 0 and 1")
    rng = np.random.default_rng(seed)
    per_image = counts.reshape(len(counts), -1).astype(np.float64)  # sums are exact to 2^53
    probabilities = np.full(len(counts), 1 / len(counts))
    # How often each image is drawn, times its counts, is the sum over the images drawn.
    resampled = np.stack([rng.multinomial(len(counts), probabilities) @ per_image for _ in range(draws)])
    tails = ((1 - level) / 2, (1 + level) / 2)
    intervals = {}
    for name, values in _headline_scores(resampled.reshape(draws, 3, -1)).items():
        low, high = _quantiles(values, tails)
        intervals[name] = float(low), float(high)
    return intervals


def _headline_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores `(draws,)` of counts `(draws, 3, K)`."""
    hits, truth, predicted = np.moveaxis(counts, 1, 0)
    iou = divide(hits, truth + predicted - hits)
    return {
        "accuracy": divide(hits.sum(axis=-1), truth.sum(axis=-1)),
        "macro_iou": mean_of_numbers(iou),
        "macro_dice": mean_of_numbers(divide(2 * hits, truth + predicted)),
        "weighted_iou": mean_of_numbers(iou, truth),
    }


def _quantiles(values: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    numbers = values[~np.isnan(values)]
    return np.quantile(numbers, shares) if numbers.size else np.full(len(shares), np.nan)
