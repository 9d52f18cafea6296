"""What it costs to count a batch during training: our metric beside Keras' and torchmetrics', and a training step.

All take the same logits (N, H, W, 19), as a Keras model on torch gives them, and masks with 255 where pixels are
ignored; keras.metrics.MeanIoU as `sparse_y_pred=False, ignore_class=255`, torchmetrics' MulticlassJaccardIndex as
`ignore_index=255`, with a view of the logits in its axis order and int64 masks made beforehand, which favours it. The
training step is a U-Net's of 16 filters at the same size: forward, loss, backward, optimizer and our metric. They take
turns; medians, and ratios of those. A bare argmax over the classes, which all three need, is shown beside them: on a
CPU it is a third of torchmetrics' update or more, and so bounds what can be gained over that.

    KERAS_BACKEND=torch python benchmarks/metrics.py
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
from keras import ops
from torchmetrics.classification import MulticlassJaccardIndex

from semseg import IGNORE
from semseg.losses import SegmentationLoss
from semseg.metrics.keras_metric import ConfusionMatrix
from semseg.segmentation_model import Unet
from semseg.training.loop import TrainingModel

CLASSES = 19
SLOW = ("MeanIoU", "training step")  # seconds each: timed in every fourth round


def make_batch(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photos, masks with a tenth ignored, and logits that are right in most pixels."""
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (*shape, 3)).astype("uint8")
    truth = np.kron(rng.integers(0, CLASSES, (shape[0], shape[1] // 16, shape[2] // 16)), np.ones((1, 16, 16)))
    logits = (
        rng.normal(size=(*shape, CLASSES)).astype("float32") + 3 * np.eye(CLASSES, dtype="float32")[truth.astype(int)]
    )
    truth[rng.random(shape) < 0.1] = IGNORE
    return photos, truth.astype("uint8"), logits


def contenders(shape: tuple[int, int, int]) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """What to time, and the mean IoU that each has found."""
    photos, truth, logits = make_batch(shape)
    y_true, y_pred = ops.convert_to_tensor(truth), ops.convert_to_tensor(logits)
    ours, theirs = ConfusionMatrix(CLASSES), MulticlassJaccardIndex(CLASSES, ignore_index=IGNORE)
    keras_own = keras.metrics.MeanIoU(CLASSES, ignore_class=IGNORE, sparse_y_pred=False)
    classes_first, ids = ops.transpose(y_pred, (0, 3, 1, 2)), ops.cast(y_true, "int64")

    network = Unet((*shape[1:], 3), num_classes=CLASSES, filters=16)
    trained = TrainingModel(network.inputs[0], network.outputs[0], SegmentationLoss("cross_entropy"), CLASSES)
    trained.compile(keras.optimizers.AdamW())
    updates = {
        "semseg": lambda: ours.update_state(y_true, y_pred),
        "torchmetrics": lambda: theirs.update(classes_first, ids),
        "MeanIoU": lambda: keras_own.update_state(y_true, y_pred),
        "argmax": lambda: ops.argmax(y_pred, axis=-1),
        "training step": lambda: trained.train_on_batch(photos, truth),
    }
    results = {
        "semseg": lambda: float(ours.result()["mean_iou"]),
        "torchmetrics": lambda: float(theirs.compute()),
        "MeanIoU": lambda: float(keras_own.result()),
    }
    return updates, results


def measure(updates: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each; the first round, in which caches fill, is not counted."""
    seconds = {name: [] for name in updates}
    for turn in range(rounds + 1):
        for name, update in updates.items():
            if name in SLOW and turn % 4:
                continue
            start = time.perf_counter()
            update()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 images of 64 pixels, 8 rounds")
    quick = parser.parse_args().quick
    shape, rounds = ((2, 64, 64), 8) if quick else ((8, 256, 256), 16)
    updates, results = contenders(shape)
    seconds = measure(updates, rounds)
    found = {name: result() for name, result in results.items()}
    if np.ptp(list(found.values())) > 1e-5:
        raise SystemExit(f"the metrics disagree on the mean IoU: {found}")
    print(f"logits {(*shape, CLASSES)} on {keras.backend.backend()}, mean IoU {found['semseg']:.4f} from all three")
    print(f"{'':14}{'median ms':>12}{'fastest':>12}{'semseg is':>12}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        ratio = f"{medians[name] / medians['semseg']:11.2f}x"
        print(f"{name:14}{1000 * medians[name]:12.2f}{1000 * min(values):12.2f}{ratio}")
    ratios = {name: medians[name] / medians["semseg"] for name in ("MeanIoU", "torchmetrics")}
    print(
        f"RESULT meaniou={ratios['MeanIoU']:.1f} torchmetrics={ratios['torchmetrics']:.2f} "
        f"step_share={medians['semseg'] / medians['training step']:.4f}"
    )


if __name__ == "__main__":
    main()
