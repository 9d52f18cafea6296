"""How good a network is on a split: one confusion matrix over all of it, at the masks' own size."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from semseg.backend import PredictBatch
from semseg.data.base import Dataset, Sample
from semseg.data.splits import samples_of
from semseg.files import in_hand
from semseg.inference.logits import confidence_of_logits, ids_of_logits
from semseg.inference.segmenter import predict_logits
from semseg.metrics.bootstrap import bootstrap_intervals
from semseg.metrics.boundaries import NUM_BOUNDARY_COUNTS, boundary_counts, boundary_distance, boundary_scores
from semseg.metrics.calibration import NUM_BINS, calibration_bins, expected_calibration_error
from semseg.metrics.confusion import PER_CLASS_SCORES, class_counts, confusion_matrix, scores
from semseg.runs.calibration import AS_LEARNT, Calibration

CLASS_SCORES = (*PER_CLASS_SCORES, "boundary_iou", "boundary_f")
IMAGE_SCORES = ("accuracy", *CLASS_SCORES, "calibration_error", "confidence")


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One photo of a split.

    Attributes:
        sample: The photo.
        counts: int64 `(3, K)`: see `metrics.class_counts`.
        ignored: Pixels left out.
        distance: Of the boundary scores, in pixels.
        scores: A number for each of `IMAGE_SCORES`, those of classes as means over the classes of this photo;
            `confidence` is the mean probability of the predicted class over the counted pixels.
    """

    sample: Sample
    counts: np.ndarray
    ignored: int
    distance: int
    scores: dict[str, float]


OnImage = Callable[[ImageResult, np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_split` found.

    Attributes:
        matrix: int64 `(K, K)` over the whole split, rows truth, columns prediction.
        boundaries: Sum of `boundaries.boundary_counts`.
        bins: Sum of `metrics.calibration_bins`.
        images: Every photo on its own, in order.
        as_learnt: Of a calibrated network the confusion matrix and the bins without its calibration, else None.
    """

    matrix: np.ndarray
    boundaries: np.ndarray
    bins: np.ndarray
    images: list[ImageResult]
    as_learnt: tuple[np.ndarray, np.ndarray] | None = None

    @cached_property
    def scores(self) -> dict[str, float | np.ndarray]:
        """All scores: those of `metrics.scores` and `boundaries.boundary_scores`, and `calibration_error`."""
        return {
            **scores(self.matrix),
            **boundary_scores(self.boundaries),
            "calibration_error": expected_calibration_error(self.bins),
        }

    @cached_property
    def scores_as_learnt(self) -> dict[str, float | np.ndarray] | None:
        """Those of `metrics.scores` and `calibration_error` without calibration; None of a network that has none."""
        if self.as_learnt is None:
            return None
        matrix, bins = self.as_learnt
        return {**scores(matrix), "calibration_error": expected_calibration_error(bins)}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the headline scores over the photos: see `metrics.bootstrap_intervals`."""
        return bootstrap_intervals(np.stack([image.counts for image in self.images]))

    @property
    def ignored(self) -> float:
        """Share of the pixels that were left out, 0 to 1."""
        ignored = sum(image.ignored for image in self.images)
        return ignored / max(1, ignored + int(self.matrix.sum()))

    @property
    def median_distance(self) -> int:
        """The distance of the boundary scores in pixels, the median over the photos."""
        distances = sorted(image.distance for image in self.images)
        return distances[len(distances) // 2]

    @property
    def ranked(self) -> list[ImageResult]:
        """The photos by mean IoU, the worst first; those without any counted pixel are left out."""
        counted = [image for image in self.images if not np.isnan(image.scores["iou"])]
        return sorted(counted, key=lambda image: image.scores["iou"])


def evaluate_split(
    predict_batch: PredictBatch,
    dataset: Dataset,
    split: str = "val",
    *,
    image_size: tuple[int, int],
    batch_size: int = 8,
    scale: float | None = None,
    calibration: Calibration = AS_LEARNT,
    on_progress: Callable[[int, int], None] | None = None,
    on_image: OnImage | None = None,
) -> Evaluation:
    """Predicts every sample of a split and compares it with the truth.

    Args:
        predict_batch: From photos `(N, h, w, C)` to logits: `predictor(model)`, or any other runtime.
        dataset: From `open_dataset`.
        split: A split of it, or `"all"` for all of them.
        image_size: (h, w) that the network sees; the logits are resized to the mask's own size.
        batch_size: Photos, or tiles of one, per call.
        scale: Of a network that learned crops: pixels that it sees for one of the photo's. None: it sees photos whole.
        calibration: Of the network: its temperature, by which `predict_batch` has divided already, and its threshold.
        on_progress: Called with (photos done, photos in all).
        on_image: Called with each photo's result, the photo as people see it, uint8 RGB `(H, W, 3)`, its truth and its
            prediction, uint8 ids `(H, W)`, so that nobody need predict it again for a picture.

    Raises:
        SemsegError: There is no such split.
    """
    samples = samples_of(dataset, split)
    k = dataset.palette.num_classes
    matrix, boundaries = np.zeros((k, k), np.int64), np.zeros((NUM_BOUNDARY_COUNTS, k), np.int64)
    bins = np.zeros((3, NUM_BINS))
    as_learnt = None if calibration == AS_LEARNT else (np.zeros((k, k), np.int64), np.zeros((3, NUM_BINS)))
    images: list[ImageResult] = []
    for start in range(0, len(samples), batch_size):
        chunk = samples[start : start + batch_size]
        photos, truths = zip(*(_load(dataset, sample) for sample in chunk), strict=True)
        predictions = predict_logits(predict_batch, photos, image_size=image_size, batch_size=batch_size, scale=scale)
        for sample, photo, truth, logits in zip(chunk, photos, truths, predictions, strict=True):
            prediction = ids_of_logits(logits, calibration.threshold)
            of_image = _judge(truth, prediction, confidence_of_logits(logits, calibration.threshold), k)
            if as_learnt:
                as_learnt = _with_image(as_learnt, truth, logits * np.float32(calibration.temperature))
            matrix += of_image[0]
            boundaries, bins = boundaries + of_image[1], bins + of_image[2]
            images.append(_result(sample, truth, *of_image))
            if on_image:
                on_image(images[-1], dataset.bands.view(photo), truth, prediction)
        if on_progress:
            on_progress(len(images), len(samples))
    return Evaluation(matrix, boundaries, bins, images, as_learnt)


def _load(dataset: Dataset, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    with in_hand(sample.photo):
        return dataset.load(sample)


def _judge(
    truth: np.ndarray, prediction: np.ndarray, confidence: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confusion matrix, boundary counts and calibration bins of one photo."""
    return (
        confusion_matrix(truth, prediction, k),
        boundary_counts(truth, prediction, k, boundary_distance(truth.shape)),
        calibration_bins(truth, prediction, confidence),
    )


def _with_image(
    so_far: tuple[np.ndarray, np.ndarray], truth: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Confusion matrix and calibration bins, with those of one photo by its logits alone."""
    matrix, bins = so_far
    ids = ids_of_logits(logits)
    return (
        matrix + confusion_matrix(truth, ids, len(matrix)),
        bins + calibration_bins(truth, ids, confidence_of_logits(logits)),
    )


def _result(
    sample: Sample, truth: np.ndarray, matrix: np.ndarray, boundaries: np.ndarray, bins: np.ndarray
) -> ImageResult:
    of_classes, borders = scores(matrix), boundary_scores(boundaries)
    values = {
        "accuracy": float(of_classes["accuracy"]),
        **{name: float(of_classes[f"macro_{name}"]) for name in PER_CLASS_SCORES},
        "boundary_iou": float(borders["macro_boundary_iou"]),
        "boundary_f": float(borders["macro_boundary_f"]),
        "calibration_error": expected_calibration_error(bins),
        "confidence": float(bins[2].sum() / bins[0].sum()) if bins[0].any() else math.nan,
    }
    ignored = truth.size - int(matrix.sum())
    return ImageResult(sample, class_counts(matrix), ignored, boundary_distance(truth.shape), values)
