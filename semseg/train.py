"""Training: one `fit` over a split, an evaluation after every epoch, and the best weights kept on disk."""

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from semseg.config import RunConfig
from semseg.data.augment import Augmentation
from semseg.data.base import Dataset
from semseg.data.batches import Batches, data_generator
from semseg.errors import NonFiniteLossError, SemsegError
from semseg.files import replacing
from semseg.losses import LOSSES, SegmentationLoss
from semseg.metrics import ConfusionMatrix

WARM_UP = 0.1  # share of all steps in which the learning rate rises
WEIGHT_DECAY = 1e-4
BEST_BY = "val_mean_iou"


class TrainingModel(keras.Model):
    """A network while it is trained: it shares the layers of the plain model, which is what gets saved.

    One confusion matrix gives all the metrics, which Keras' `compile(metrics=...)` cannot express.
    """

    def __init__(self, inputs, outputs, num_classes: int):
        super().__init__(inputs, outputs)
        self.confusion_matrix = ConfusionMatrix(num_classes)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Adds the batch to the confusion matrix and returns loss, accuracy and mean IoU so far."""
        self.confusion_matrix.update_state(y, y_pred)
        return self.get_metrics_result()


class CountEpochs(keras.callbacks.Callback):
    """Tells the batches which epoch it is: adapters of some backends look at batches before the first one."""

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        """Passes the number on."""
        self.batches.start_epoch(epoch)


class Recorder(keras.callbacks.Callback):
    """Keeps one row per epoch in `history` and writes all of them to a CSV file."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.history = path, []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's row."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.perf_counter() - self._start
        self.history.append(row)
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(self.history)


class KeepBest(keras.callbacks.Callback):
    """Saves the plain model whenever the validation's mean IoU is higher than ever before."""

    def __init__(self, plain_model: keras.Model, path: Path):
        super().__init__()
        self.plain_model, self.path, self.best = plain_model, path, -math.inf

    def on_epoch_end(self, epoch, logs=None):
        """Saves if this epoch is the best."""
        if logs[BEST_BY] > self.best:
            self.best = logs[BEST_BY]
            with replacing(self.path) as temporary:
                self.plain_model.save(temporary)


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run when the loss is no number any more, instead of training on garbage."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Raises a `NonFiniteLossError` if the mean loss so far is not finite."""
        if not math.isfinite(logs["loss"]):
            raise NonFiniteLossError(
                f"epoch {self.epoch + 1}, step {batch + 1}: the loss is {float(logs['loss'])}; "
                "use a smaller --learning-rate"
            )


def make_loss(names: str, dataset: Dataset) -> SegmentationLoss:
    """The loss called `names`, checked against the task.

    Raises:
        SemsegError: No such loss, or one that does not fit the number of classes.
    """
    loss = SegmentationLoss(names)
    if "binary_cross_entropy" in names.split("+") and dataset.task != "binary":
        fitting = ", ".join(name for name in LOSSES if name != "binary_cross_entropy")
        raise SemsegError(
            f"--loss: binary_cross_entropy is for 2 classes, and these data have {dataset.palette.num_classes}; "
            f"use one of {fitting}"
        )
    return loss


def make_batches(dataset: Dataset, config: RunConfig) -> tuple[Batches, Batches]:
    """The batches for training, shuffled and augmented, and for validation, as they are."""
    common = {
        "batch_size": config.batch_size,
        "image_size": config.image_size,
        "seed": config.seed,
        "workers": config.workers,
    }
    return (
        data_generator(dataset, "train", augmentation=Augmentation(), **common),
        data_generator(dataset, "val", **common),
    )


def train_model(
    model: keras.Model,
    dataset: Dataset,
    config: RunConfig,
    *,
    model_path: Path,
    results_path: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """Trains `model` and leaves it with the weights of its best epoch.

    AdamW with a learning rate that rises over the first tenth of the steps and falls along a cosine to 0.

    Args:
        model: From `build_model`: photos `(N, H, W, 3)`, 0 to 255, to logits `(N, H, W, K)`.
        dataset: From `open_dataset`.
        config: Epochs, batch size, learning rate, image size, loss, seed and workers are read.
        model_path: `.keras` file for the best weights so far; written after each epoch that beats the earlier ones.
        results_path: CSV file for one row per epoch.
        callbacks: More Keras callbacks, to show progress for example.

    Returns:
        One row per epoch: `epoch` (from 1), `loss`, `accuracy`, `mean_iou`, the same with `val_`, `learning_rate` at
        its end, `seconds`.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite; the best weights before that are on disk.
        DataError: A file cannot be read any more.
    """
    train_batches, val_batches = make_batches(dataset, config)
    trained = TrainingModel(model.inputs, model.outputs[0], dataset.palette.num_classes)
    trained.compile(
        optimizer=_optimizer(config.learning_rate, steps=config.epochs * len(train_batches)),
        loss=make_loss(config.loss, dataset),
    )
    recorder = Recorder(results_path)
    try:
        trained.fit(
            train_batches,
            validation_data=val_batches,
            epochs=config.epochs,
            shuffle=False,  # the batches come shuffled
            verbose=0,
            callbacks=[
                CountEpochs(train_batches),
                StopOnNonFiniteLoss(),
                recorder,
                KeepBest(model, model_path),
                *callbacks,
            ],
        )
    except Exception:
        if error := train_batches.error or val_batches.error:
            raise error from None
        raise
    finally:
        train_batches.close()
        val_batches.close()
    model.load_weights(model_path)
    return recorder.history


def _optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    warm_up = max(1, round(WARM_UP * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 25, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
