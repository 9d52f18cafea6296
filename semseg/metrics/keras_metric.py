"""The confusion matrix as a Keras metric, gathered on the device during `fit`."""

import keras
import numpy as np
from keras import KerasTensor, ops

from semseg.backend.kernels import counts, total


class ConfusionMatrix(keras.metrics.Metric):
    """Gathers the confusion matrix on the device during `fit`; its results are accuracy and mean IoU.

    `update_state` takes class ids `(N, H, W)`, 255 ignored, and logits `(N, H, W, K)`, or `(N, H, W, 1)` for the binary
    task. Ids out of range would vanish silently on some backends: the data are checked before training.

    Args:
        num_classes: K; 2 for the binary task.
        name: Name of the metric.
    """

    # float32 stops counting at 2^24, int32 at 2^31, and JAX has no int64: two int32 halves count exactly to 2^61.
    _HALF = 30

    def __init__(self, num_classes: int, name: str = "confusion_matrix"):
        super().__init__(name=name)
        self.num_classes = num_classes
        shape = (num_classes, num_classes)
        self.low = self.add_weight(shape=shape, initializer="zeros", dtype="int32", name="low")
        self.high = self.add_weight(shape=shape, initializer="zeros", dtype="int32", name="high")

    def update_state(self, y_true: KerasTensor, y_pred: KerasTensor, sample_weight: None = None) -> None:
        """Adds one batch; of several processes that train together, all of it.

        Args:
            y_true: Integer class ids `(N, H, W)`, 0 to K-1, or 255 to leave a pixel out.
            y_pred: Logits, float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
            sample_weight: Not used.
        """
        k = self.num_classes
        truth = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        prediction = ops.reshape(class_ids(y_pred), (-1,))
        cells = total(counts(truth * k + prediction, k * k))  # IGNORE is above all ids: ignored pixels count nowhere
        low = self.low + ops.reshape(cells, (k, k))
        carry = ops.right_shift(low, self._HALF)
        self.high.assign(self.high + carry)
        self.low.assign(low - ops.left_shift(carry, self._HALF))

    def result(self) -> dict[str, KerasTensor]:
        """Returns accuracy and mean IoU (over the classes present) so far, 0 to 1; NaN before any pixel counted."""
        matrix = ops.cast(self.high, "float32") * 2.0**self._HALF + ops.cast(self.low, "float32")
        hits = ops.diagonal(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - hits
        absent = ops.cast(union == 0, "float32")
        iou = hits / (union + absent)  # 0 of absent classes
        return {"accuracy": ops.sum(hits) / ops.sum(matrix), "mean_iou": ops.sum(iou) / ops.sum(1 - absent)}

    def matrix(self) -> np.ndarray:
        """Returns the matrix itself, int64 `(K, K)`."""
        low, high = (ops.convert_to_numpy(half).astype(np.int64) for half in (self.low, self.high))
        return (high << self._HALF) + low


def class_ids(logits: KerasTensor) -> KerasTensor:
    """Class ids, int32 `(N, H, W)`: the largest of K logits, or whether the single logit is above 0.

    Args:
        logits: Float `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.
    """
    if logits.shape[-1] == 1:
        return ops.cast(logits[..., 0] > 0, "int32")
    return ops.cast(ops.argmax(logits, axis=-1), "int32")
