"""How good a network is on a split: one confusion matrix over all of it, at the masks' own size."""

from dataclasses import dataclass

import numpy as np

from semseg.data.base import Dataset, Sample
from semseg.metrics import confusion_matrix, scores
from semseg.predict import PredictBatch, predict_ids


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_split` found.

    Attributes:
        matrix: int64 `(K, K)` over the whole split, rows truth, columns prediction.
        ignored: Share of the pixels that were left out, 0 to 1.
        image_scores: Accuracy and mean IoU of every sample on its own, in order.
    """

    matrix: np.ndarray
    ignored: float
    image_scores: list[tuple[Sample, float, float]]

    @property
    def scores(self) -> dict[str, float | np.ndarray]:
        """All scores of the matrix: see `metrics.scores`."""
        return scores(self.matrix)


def evaluate_split(
    predict_batch: PredictBatch,
    dataset: Dataset,
    split: str = "val",
    *,
    image_size: tuple[int, int],
    batch_size: int = 8,
) -> Evaluation:
    """Predicts every sample of a split and compares it with the truth.

    Args:
        predict_batch: From photos uint8 `(N, h, w, 3)` to logits: `predictor(model)`, or any other runtime.
        dataset: From `open_dataset`.
        split: A split of it.
        image_size: (h, w) that the network sees; the logits are resized to the mask's own size.
        batch_size: Photos per call.
    """
    k = dataset.palette.num_classes
    total, ignored, image_scores = np.zeros((k, k), np.int64), 0, []
    samples = dataset.splits[split]
    for start in range(0, len(samples), batch_size):
        chunk = samples[start : start + batch_size]
        photos, truths = zip(*(dataset.load(sample) for sample in chunk), strict=True)
        predictions = predict_ids(predict_batch, photos, image_size=image_size, batch_size=batch_size)
        for sample, truth, prediction in zip(chunk, truths, predictions, strict=True):
            matrix = confusion_matrix(truth, prediction, k)
            total += matrix
            ignored += truth.size - int(matrix.sum())
            image = scores(matrix)
            image_scores.append((sample, image["accuracy"], image["macro_iou"]))
    return Evaluation(total, ignored / max(1, ignored + int(total.sum())), image_scores)
