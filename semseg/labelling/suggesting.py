"""Which unlabelled photos would teach a network most: those it is unsure of, and unlike each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from semseg.errors import SemsegError
from semseg.images.resizing import resize_photo
from semseg.inference.logits import probabilities_of_logits
from semseg.inference.segmenter import Segmenter

_GRID = 4  # cells a side, over which a photo's answers are pooled to tell it from others


@dataclass(frozen=True)
class Answer:
    """What one or several networks make of a photo, seen by all of them alike.

    Attributes:
        probabilities: Their mean, float32 `(h, w, K)`.
        uncertainty: Of each pixel, float32 `(h, w)`, 0 to 1: of one network the entropy of its probabilities; of
            several what they disagree by, the mutual information between a pixel's class and the network (BALD).
    """

    probabilities: np.ndarray
    uncertainty: np.ndarray

    @property
    def score(self) -> float:
        """The mean uncertainty of its pixels."""
        return float(self.uncertainty.mean())

    def at(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Class ids, uint8 `(H, W)`, and uncertainty, float32 `(H, W)`, at another size."""
        probabilities, uncertainty = (
            cv2.resize(each, size[::-1], interpolation=cv2.INTER_LINEAR)
            for each in (self.probabilities, self.uncertainty)
        )
        return probabilities.argmax(axis=-1).astype(np.uint8), uncertainty

    @property
    def features(self) -> np.ndarray:
        """What tells the photo from others, float32 `(16 K,)` of length 1: shares of classes in 4x4 cells."""
        cells = cv2.resize(self.probabilities, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
        cells = np.sqrt(cells.reshape(_GRID * _GRID, -1))  # so that distances are Hellinger's: rare classes count, too
        return (cells / _GRID).ravel().astype(np.float32)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """How unsure probabilities are, as a share of what is possible.

    Args:
        probabilities: float `(..., K)`, the sum over K is 1.

    Returns:
        float `(...)`, 0 where one class is certain, 1 where all are alike.

    Example:
        >>> entropy(np.array([[0.9, 0.1], [0.5, 0.5]])).round(3).tolist()
        [0.469, 1.0]
    """
    logs = np.log(np.maximum(probabilities, 1e-12))
    return np.clip(-(probabilities * logs).sum(axis=-1) / np.log(probabilities.shape[-1]), 0, 1)


def answer_of(members: Sequence[np.ndarray]) -> Answer:
    """One answer of what each network gives.

    Args:
        members: Probabilities float `(h, w, K)` of each network, one or more.

    Returns:
        Their mean and its uncertainty. Reference for several: Houlsby et al. 2011, https://arxiv.org/abs/1112.5745.
    """
    mean = np.mean(members, axis=0)
    unsure = entropy(mean)
    if len(members) > 1:
        unsure = np.maximum(0, unsure - np.mean([entropy(member) for member in members], axis=0))
    return Answer(mean.astype(np.float32), unsure.astype(np.float32))


def answers_to(segmenters: Sequence[Segmenter], photo: np.ndarray) -> Answer:
    """What networks that see photos alike make of one.

    Args:
        segmenters: One, or the members of an ensemble.
        photo: uint8 RGB `(H, W, 3)` of any size, or as their bands say.
    """
    first = segmenters[0]
    if first.scale is not None:
        return answer_of([segmenter.probabilities(photo) for segmenter in segmenters])
    seen = resize_photo(photo, first.image_size)[None]
    return answer_of([probabilities_of_logits(segmenter.predict_batch(seen)[0]) for segmenter in segmenters])


def choose(scores: Sequence[float], features: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """Draws photos that a network is unsure of and that are unlike each other.

    The first is the least certain. Each further one is drawn with a probability that grows with its uncertainty and
    with the square of its distance from the nearest of those drawn before: k-means++ with weights, in the spirit of
    BADGE.

    Args:
        scores: The uncertainty of each photo, at least 0.
        features: float `(N, D)`, a row per photo; alike photos lie near each other.
        count: How many, at most.
        seed: Draws.

    Returns:
        Their places, in the order in which they were drawn, each once.

    References: Arthur and Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494; Ash et al. 2020,
        https://arxiv.org/abs/1906.03671.

    Example:
        >>> choose([0.9, 0.8, 0.1], np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), 2)
        [0, 2]
    """
    weights, rng = np.asarray(scores, np.float64), np.random.default_rng(seed)
    if count < 1:
        raise SemsegError(f"`count`: got {count}; expected at least 1")
    if not len(weights):
        return []
    features = np.asarray(features, np.float64)
    chosen = [int(weights.argmax())]
    nearest = np.full(len(weights), np.inf)
    while len(chosen) < min(count, len(weights)):
        nearest = np.minimum(nearest, ((features - features[chosen[-1]]) ** 2).sum(axis=1))
        nearest[chosen] = 0
        chances = weights * nearest
        left = np.setdiff1d(np.arange(len(weights)), chosen)
        if chances[left].sum() > 0:
            chosen.append(int(rng.choice(len(weights), p=chances / chances.sum())))
        else:  # copies of what was drawn, or of no uncertainty: the least certain first
            chosen.append(int(left[weights[left].argmax()]))
    return chosen
