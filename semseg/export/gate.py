"""Does an exported file compute what its model computes? Both see the same photos."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from semseg.backend.predictor import predictor
from semseg.export.formats import export_model
from semseg.images.resizing import resize_photo
from semseg.inference.card import ModelCard
from semseg.inference.logits import ids_of_logits
from semseg.inference.segmenter import Segmenter, predict_ids
from semseg.metrics.confusion import confusion_matrix, scores
from semseg.runs import names

MAX_DIFFERENCE = 1e-3  # of a probability, in float32
MIN_EQUAL_IDS = 0.999  # of the pixels, in float32
MAX_IOU_LOSS = 0.01  # in int8
MIN_EQUAL_IDS_INT8 = 0.98  # of the pixels, where there is no truth to measure IoU with


@dataclass(frozen=True)
class Agreement:
    """How near an exported file's results come to those of its model.

    Attributes:
        photos: How many both saw.
        difference: The largest, of the probability of any class at any pixel, 0 to 1, or infinite where one of them is
            no number; None of a file that gives ids.
        equal_ids: Share of the pixels that get the same class, 0 to 1.
        iou: Mean IoU of the model and of the file, 0 to 1; None without truth.
        milliseconds: Per photo, one at a time, the median; of the model and of the file.
    """

    photos: int
    difference: float | None
    equal_ids: float
    iou: tuple[float, float] | None
    milliseconds: tuple[float, float]

    def shortfalls(self, precision: str) -> list[str]:
        """Why the file must not be used in the model's place, in words; nothing if it may.

        Args:
            precision: The file's, `"float32"` or `"int8"`.
        """
        if precision == "int8":
            return self._int8_shortfalls()
        shortfalls = []
        if self.difference is not None and not self.difference <= MAX_DIFFERENCE:
            shortfalls.append(f"a probability differs by {self.difference:.2g}, {MAX_DIFFERENCE:.0e} may be")
        if self.equal_ids < MIN_EQUAL_IDS:
            shortfalls.append(_too_few_equal(self.equal_ids, MIN_EQUAL_IDS))
        return shortfalls

    def _int8_shortfalls(self) -> list[str]:
        """Probabilities differ in int8: what counts is the score or, without truth, how many pixels stay the same."""
        if self.iou is None:
            enough = self.equal_ids >= MIN_EQUAL_IDS_INT8
            return [] if enough else [_too_few_equal(self.equal_ids, MIN_EQUAL_IDS_INT8)]
        loss = self.iou[0] - self.iou[1]
        return [] if loss <= MAX_IOU_LOSS else [f"mean IoU falls by {loss:.4f}, {MAX_IOU_LOSS} may be"]


def _too_few_equal(share: float, min_share: float) -> str:
    return f"{share:.2%} of the pixels get the same class, {min_share:.1%} must"


def write_and_compare(
    model: keras.Model,
    card: ModelCard,
    photos: Sequence[np.ndarray],
    truths: Sequence[np.ndarray] | None,
    calibrating: Sequence[np.ndarray] = (),
) -> Agreement:
    """Writes a model's file, opens it as any user would, and shows both the same photos.

    Args:
        model: As of `export_model`.
        card: Of the file, in a folder of its own.
        photos: `(H, W, C)` of any sizes, at least one, in the files' numbers.
        truths: Class ids `(H, W)` of each; None where nobody knows them.
        calibrating: Photos for int8.

    Returns:
        What they have in common; `shortfalls` judges it.

    Raises:
        SemsegError: As of `export_model`.
    """
    seen = [resize_photo(photo, card.image_size) for photo in calibrating]
    export_model(model, card, _stacked(seen) if seen else None)
    card.write_beside()
    exported = ModelCard.read(card.path).load(batch_size=1)
    card.path.with_name(names.EXPORTS).unlink()
    segmenter = Segmenter(predictor(model, 1), card.image_size, card.palette).calibrated(card.calibration)
    return compare_files(segmenter, exported, photos, truths, with_probabilities=card.gives != "ids")


def _stacked(photos: list[np.ndarray]) -> np.ndarray:
    """Photos as the file takes them: bytes, or floats of more."""
    return np.stack(photos) if photos[0].dtype == np.uint8 else np.stack(photos).astype(np.float32)


def compare_files(
    model: Segmenter,
    exported: Segmenter,
    photos: Sequence[np.ndarray],
    truths: Sequence[np.ndarray] | None,
    *,
    with_probabilities: bool = True,
) -> Agreement:
    """Shows the same photos to a model and to its exported file.

    Args:
        model: As Keras computes it, calibrated as the file is to be.
        exported: The same, from the file.
        photos: uint8 RGB `(H, W, 3)` of any sizes, at least one.
        truths: Class ids `(H, W)` of each; None where nobody knows them.
        with_probabilities: Whether the file gives more than ids.

    Returns:
        What they have in common; `shortfalls` judges it.

    Example:
        >>> from semseg.labels.palettes import Palette
        >>> model = Segmenter(lambda photos: photos[..., :1] - 100.0, (4, 4), Palette.numbered(2))
        >>> agreement = compare_files(model, model, [np.zeros((4, 4, 3), np.uint8)], None)
        >>> agreement.difference, agreement.equal_ids, agreement.shortfalls("float32")
        (0.0, 1.0, [])
    """
    expected, expected_iou, model_time = _run(model, photos, truths)
    given, given_iou, file_time = _run(exported, photos, truths)
    difference = None
    if with_probabilities:
        difference = float(np.abs(_probabilities(given) - _probabilities(expected)).max())
        difference = math.inf if math.isnan(difference) else difference
    ids = (ids_of_logits(logits, of.calibration.threshold) for logits, of in ((given, exported), (expected, model)))
    equal = float(np.equal(*ids).mean())
    iou = (expected_iou, given_iou) if truths is not None else None
    return Agreement(len(photos), difference, equal, iou, (model_time, file_time))


def _run(
    segmenter: Segmenter, photos: Sequence[np.ndarray], truths: Sequence[np.ndarray] | None
) -> tuple[np.ndarray, float, float]:
    """All logits as the network gives them, mean IoU at the photos' own sizes, milliseconds per photo."""
    outputs, seconds = [], []
    image_size, num_classes = segmenter.image_size, segmenter.palette.num_classes

    def timed(batch: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        outputs.append(segmenter.predict_batch(batch))
        seconds.append(time.perf_counter() - start)
        return outputs[-1]

    segmenter.predict_batch(resize_photo(photos[0], image_size)[None])  # compiles, or warms up
    matrix = np.zeros((num_classes, num_classes), np.int64)
    predictions = predict_ids(
        timed, photos, image_size=image_size, batch_size=1, threshold=segmenter.calibration.threshold
    )
    for i, ids in enumerate(predictions):
        if truths is not None:
            matrix += confusion_matrix(truths[i], ids, num_classes)
    iou = float(scores(matrix)["macro_iou"]) if truths is not None else math.nan
    return np.concatenate(outputs), iou, 1000 * float(np.median(seconds))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
