"""Labels that a network which never learnt them is sure are wrong: confident learning, pixel by pixel.

Reference: Northcutt, Jiang and Chuang 2021, https://doi.org/10.1613/jair.1.12125.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from semseg import IGNORE
from semseg.data.base import Dataset, Sample
from semseg.data.splits import photo_name
from semseg.files import in_hand
from semseg.inference.logits import ids_of_logits, probabilities_of_logits
from semseg.inference.segmenter import Segmenter, predict_logits
from semseg.metrics.confusion import confusion_matrix, scores


@dataclass(frozen=True)
class HeldOut:
    """Labelled photos, and a network that was not trained on them.

    Args:
        segmenter: The network.
        dataset: From `own_data`.
        samples: Some of its samples.
        name: Of the run, for the table.
    """

    segmenter: Segmenter
    dataset: Dataset
    samples: Sequence[Sample]
    name: str


@dataclass(frozen=True)
class Doubt:
    """What is to be said of the label of one photo.

    Attributes:
        held_out: Where it comes from.
        sample: The photo.
        agreement: Mean IoU, 0 to 1, of the label and of itself with every doubtful pixel as the network has it; NaN for
            a photo without a counted pixel.
        share: Of the counted pixels, those that are doubtful.
        labelled: Id of the class of most doubtful pixels as they are labelled; None where none is doubtful.
        suggested: Id that the network is sure of for most of these.
    """

    held_out: HeldOut
    sample: Sample
    agreement: float
    share: float
    labelled: int | None
    suggested: int | None

    @property
    def photo(self) -> str:
        """Its path in the data set."""
        return photo_name(self.sample, self.held_out.dataset.root)


def find_doubts(
    held_out: Sequence[HeldOut], on_progress: Callable[[int, int], None] | None = None
) -> tuple[list[Doubt], np.ndarray]:
    """Looks for doubtful labels; every photo is predicted twice, so that nothing of it need be kept.

    Args:
        held_out: Photos with the networks that judge them; the classes are the same for all.
        on_progress: Called with (photos done, photos to do).

    Returns:
        Each photo, the one whose label agrees least first; and the probability from which on the networks count as sure
        of each class, float64 `(K,)`.
    """
    k, total = held_out[0].segmenter.palette.num_classes, 2 * sum(len(one.samples) for one in held_out)
    done = 0
    sums, counts = np.zeros(k), np.zeros(k, np.int64)
    found: list[Doubt] = []

    def step() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, total)

    for one in held_out:
        for _, label, probabilities in _predicted(one):
            of_photo = self_confidence(probabilities, label)
            sums, counts = sums + of_photo[0], counts + of_photo[1]
            step()
    thresholds = np.divide(sums, counts, out=np.full(k, np.inf), where=counts > 0)
    for one in held_out:
        for sample, label, probabilities in _predicted(one):
            found.append(_doubt(one, sample, label, better_label(probabilities, label, thresholds), k))
            step()
    return sorted(found, key=lambda doubt: np.nan_to_num(doubt.agreement, nan=2.0)), thresholds


def self_confidence(probabilities: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How probable the labelled classes are to a network.

    Args:
        probabilities: float `(H, W, K)`.
        label: Class ids `(H, W)`, 255 where a pixel counts nowhere.

    Returns:
        Of each class the sum of its probability over the pixels that are labelled as it, float64 `(K,)`, and their
        number, int64 `(K,)`.

    Example:
        >>> self_confidence(np.array([[[0.9, 0.1], [0.4, 0.6]]]), np.array([[0, 0]]))
        (array([1.3, 0. ]), array([2, 0]))
    """
    k, counted = probabilities.shape[-1], label != IGNORE
    ids = label[counted].astype(np.int64)
    own = np.take_along_axis(probabilities[counted], ids[:, None], axis=1)[:, 0]
    return np.bincount(ids, own, k), np.bincount(ids, minlength=k)


def better_label(probabilities: np.ndarray, label: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The label, with the class that the network is sure of where that is another one.

    It is sure of a class whose probability is at least the mean that pixels labelled as that class have; of several, of
    the most probable one.

    Args:
        probabilities: float `(H, W, K)`.
        label: Class ids `(H, W)`, 255 where a pixel counts nowhere, which stays.
        thresholds: float `(K,)`, infinite for a class that no pixel is labelled as.

    Returns:
        uint8 ids `(H, W)`.

    Example:
        >>> better_label(np.array([[[0.1, 0.9], [0.4, 0.6]]]), np.array([[0, 0]]), np.array([0.7, 0.8])).tolist()
        [[1, 0]]
    """
    sure = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = sure.argmax(axis=-1)
    is_sure = (np.take_along_axis(sure, best[..., None], axis=-1)[..., 0] >= 0) & (label != IGNORE)
    return np.where(is_sure, best, label).astype(np.uint8)


def _predicted(held_out: HeldOut) -> Iterator[tuple[Sample, np.ndarray, np.ndarray]]:
    """Each sample with its label and the network's probabilities, at the label's own size."""
    for sample, label, logits in _with_logits(held_out):
        yield sample, label, probabilities_of_logits(logits)


def _with_logits(held_out: HeldOut) -> Iterator[tuple[Sample, np.ndarray, np.ndarray]]:
    segmenter, size = held_out.segmenter, max(1, held_out.segmenter.batch_size)
    for start in range(0, len(held_out.samples), size):
        chunk = held_out.samples[start : start + size]
        photos, labels = zip(*(_load(held_out.dataset, sample) for sample in chunk), strict=True)
        logits = predict_logits(
            segmenter.predict_batch, photos, image_size=segmenter.image_size, batch_size=size, scale=segmenter.scale
        )
        yield from zip(chunk, labels, logits, strict=True)


def _load(dataset: Dataset, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    with in_hand(sample.photo):
        return dataset.load(sample)


def _doubt(held_out: HeldOut, sample: Sample, label: np.ndarray, better: np.ndarray, k: int) -> Doubt:
    matrix = confusion_matrix(label, better, k)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    labelled, suggested = (None, None) if not wrong.any() else divmod(int(wrong.argmax()), k)
    return Doubt(
        held_out, sample, float(scores(matrix)["macro_iou"]), float(wrong.sum() / max(1, matrix.sum())), labelled,
        suggested,
    )  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A doubtful label to be drawn.

    Attributes:
        photo: uint8 RGB `(H, W, 3)`.
        label: uint8 ids `(H, W)`.
        prediction: The same.
        better: The same, from `better_label`.
    """

    photo: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    better: np.ndarray


def show(doubt: Doubt, thresholds: np.ndarray) -> Shown:
    """What there is to see of a doubt.

    Args:
        doubt: From `find_doubts`.
        thresholds: From the same.
    """
    held_out = doubt.held_out
    photo, label = held_out.dataset.load(doubt.sample)
    logits = held_out.segmenter.logits(photo)
    better = better_label(probabilities_of_logits(logits), label, thresholds)
    prediction = ids_of_logits(logits, held_out.segmenter.calibration.threshold)
    return Shown(held_out.dataset.bands.view(photo), label, prediction, better)
