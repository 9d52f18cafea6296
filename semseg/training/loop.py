"""Training: one `fit` over a split, an evaluation after every epoch, and the best weights kept on disk."""

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from semseg.architectures.cost import training_bytes
from semseg.backend.devices import free_bytes, keras_compiles, leave_tensorflow_out, out_of_memory
from semseg.backend.fast_model import FastModel
from semseg.data.augment import Augmentation, parse_augmentation, suited_augmentation
from semseg.data.base import Dataset
from semseg.data.batches import Batches, data_generator, rare_class_weights
from semseg.data.cache import Cache
from semseg.data.check import Findings
from semseg.errors import NonFiniteLossError, ResourceError, SemsegError, first_line
from semseg.files import replacing
from semseg.losses import LOSSES, SegmentationLoss, effective_number_weights, inverse_frequency_weights
from semseg.metrics.keras_metric import ConfusionMatrix
from semseg.runs.config import CLASS_WEIGHTINGS, RunConfig, parse_class_weights
from semseg.training.recipe import Recipe, suited_batch_size

BEST_BY = "val_mean_iou"
LONG = 30  # epochs from which photos are also turned and recoloured; sooner, none is known by heart
FEW = 200  # photos below which they are turned, zoomed and recoloured more, in runs of any length
MORE = {"rotation": 3.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.4, "scale": (0.8, 1.25)}
FLIPS_ALONE = {"rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
NAMED = 8  # photos that a message lists


class TrainingModel(FastModel):
    """A network while it is trained: it shares the layers of the plain model, which is what gets saved.

    One confusion matrix gives all the metrics, which Keras' `compile(metrics=...)` cannot express, and the same truth
    serves every output of a network with several (deep supervision): the loss is their mean, the metrics are the
    first's.
    """

    def __init__(self, inputs, outputs, loss: SegmentationLoss, num_classes: int, **options: Any):
        super().__init__(inputs, outputs, **options)
        self.segmentation_loss, self.confusion_matrix = loss, ConfusionMatrix(num_classes)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the mean loss of the outputs, and what layers add to it."""
        outputs = y_pred if isinstance(y_pred, list) else [y_pred]
        loss = sum(self.segmentation_loss(y, logits) for logits in outputs) / len(outputs)
        return sum(self.losses, loss)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Adds the batch to the confusion matrix and returns loss, accuracy and mean IoU so far."""
        self.confusion_matrix.update_state(y, y_pred[0] if isinstance(y_pred, list) else y_pred)
        return self.get_metrics_result()


def training_model(
    model: keras.Model, config: RunConfig, dataset: Dataset, class_weights: np.ndarray | None = None
) -> TrainingModel:
    """What `fit` trains in place of `model`, with the same layers; not compiled yet."""
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    loss = make_loss(config.loss, dataset, class_weights, config.label_smoothing)
    precision = config.precision.removeprefix("mixed_")
    return TrainingModel(
        model.inputs[0], outputs, loss, dataset.palette.num_classes, precision=precision, remat=config.remat
    )


def plain_model(model: keras.Model) -> keras.Model:
    """The network without the outputs that only training needs: its first output alone."""
    return model if len(model.outputs) == 1 else keras.Model(model.inputs[0], model.outputs[0], name=model.name)


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

    def __init__(self, path: Path, batches: Sequence[Batches]):
        super().__init__()
        self.path, self.batches, self.history = path, batches, []

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start, self._waited = time.perf_counter(), self._waiting()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's row."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = time.perf_counter() - self._start
        row["waiting"] = self._waiting() - self._waited
        self.history.append(row)
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(self.history)

    def _waiting(self) -> float:
        return sum(sum(batches.waited.values()) for batches in self.batches)


class KeepBest(keras.callbacks.Callback):
    """Saves the plain model whenever the validation's mean IoU is higher than ever before."""

    def __init__(self, plain_model: keras.Model, path: Path):
        super().__init__()
        self.plain_model, self.path = plain_model, path
        self.best, self.epoch = -math.inf, 0  # the epoch counts from 1; 0 before the first

    def on_epoch_end(self, epoch, logs=None):
        """Saves if this epoch is the best."""
        if logs[BEST_BY] > self.best:
            self.best, self.epoch = logs[BEST_BY], epoch + 1
            with replacing(self.path) as temporary:
                self.plain_model.save(temporary)


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the run when the loss is no number any more, instead of training on garbage."""

    def __init__(self, batches: Batches, keeper: KeepBest):
        super().__init__()
        self.batches, self.keeper = batches, keeper

    def on_train_batch_end(self, batch, logs=None):
        """Raises a `NonFiniteLossError` if the mean loss so far is not finite."""
        if math.isfinite(logs["loss"]):
            return
        photos = self.batches.photos(batch)
        listed = ", ".join(map(str, photos[:NAMED])) + (f" and {len(photos) - NAMED} more" * (len(photos) > NAMED))
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        kept = f"the best weights until then, of epoch {self.keeper.epoch}, are in {self.keeper.path}"
        raise NonFiniteLossError(
            f"epoch {self.batches.epoch + 1}, step {batch + 1}: the loss is {float(logs['loss'])}, at a learning rate "
            f"of {rate:.2g}, for the photos {listed}; {kept if self.keeper.epoch else 'no epoch was over yet'}. "
            "Use a smaller --learning-rate; if these photos come up again, look at them"
        )


def make_loss(
    names: str, dataset: Dataset, class_weights: np.ndarray | None = None, label_smoothing: float = 0.0
) -> SegmentationLoss:
    """The loss called `names`, checked against the task.

    Raises:
        SemsegError: No such loss, one that does not fit the number of classes, or senseless weights or smoothing.
    """
    loss = SegmentationLoss(names, class_weights, label_smoothing)
    if "binary_cross_entropy" in loss.names.split("+") and dataset.task != "binary":
        fitting = ", ".join(name for name in LOSSES if name != "binary_cross_entropy")
        raise SemsegError(
            f"--loss: binary_cross_entropy is for 2 classes, and these data have {dataset.palette.num_classes}; "
            f"use one of {fitting}"
        )
    return loss


def make_batches(
    dataset: Dataset, config: RunConfig, findings: Findings | None = None, cache: Cache | None = None
) -> tuple[Batches, Batches]:
    """The batches for training, shuffled and augmented, and for validation, as they are.

    Args:
        dataset: From `open_dataset`.
        config: Batch size, image size, augmentation, sampling, seed and workers are read.
        findings: From `check_dataset`; without them the augmentation is that of street scenes.
        cache: Of all samples, at the same image size.

    Raises:
        SemsegError: An augmentation that makes no sense, or rare classes asked for without findings.
    """
    if config.sample_rare and findings is None:
        raise SemsegError("sample_rare: needs the findings of check_dataset, to know which classes are rare")
    photos = len(dataset.splits["train"])
    common = {
        "batch_size": suited_batch_size(config, photos)[0],
        "image_size": config.image_size,
        "seed": config.seed,
        "workers": config.workers,
        "cache": cache,
    }
    weights = rare_class_weights(findings.counts("train")[:, :-1]) if config.sample_rare else None
    augmentation = _augmentation(config, findings, photos)
    return (
        data_generator(dataset, "train", augmentation=augmentation, sample_weights=weights, **common),
        data_generator(dataset, "val", **common),
    )


def augmentation_strength(epochs: int, photos: int) -> tuple[dict[str, Any], str]:
    """What a run of so many epochs on so many photos changes of the default augmentation, and why, for people."""
    if photos < FEW:
        return MORE, f"so much because there are fewer than {FEW} photos"
    if epochs < LONG:
        return FLIPS_ALONE, f"no more below {LONG} epochs"
    return {}, ""


def _augmentation(config: RunConfig, findings: Findings | None, photos: int) -> Augmentation:
    """What suits data and run, with the changes that were asked for; quarter turns need a square to turn in."""
    default = Augmentation()
    if findings is not None:
        tops = findings.tops("train")
        default = suited_augmentation(tops, findings.counts("train")[:, :-1] - tops)
        if config.image_size[0] != config.image_size[1]:
            default = replace(default, quarter_turns=False)
    default = replace(default, **augmentation_strength(config.epochs, photos)[0])
    return parse_augmentation(config.augment, default) if config.augment else default


def make_class_weights(config: RunConfig, findings: Findings, class_names: Sequence[str]) -> np.ndarray | None:
    """One weight per class for the loss, float `(K,)`, or None; given by name, the classes not named weigh 1.

    Raises:
        SemsegError: As many weights as classes were expected, there is no class of that name, or no class that the
            training photos hold has a weight.
    """
    if config.class_weights == "none":
        return None
    if config.class_weights == "inverse":
        return inverse_frequency_weights(findings.shares("train"))
    if config.class_weights == "effective":
        return effective_number_weights(findings.pixels("train")[:-1])
    weights = _given_weights(parse_class_weights(config.class_weights), class_names)
    if not weights[findings.shares("train") > 0].any():
        held = ", ".join(np.array(class_names)[findings.shares("train") > 0])
        raise SemsegError(
            f"--class-weights: got {config.class_weights}, and nothing would be learned: the classes in the training "
            f"photos all weigh 0; expected a weight above 0 for one of {held}"
        )
    return weights


def idle_class_weights(config: RunConfig, findings: Findings, class_names: Sequence[str]) -> list[str]:
    """The classes that were given a weight by name, and that no training photo holds."""
    if config.class_weights in CLASS_WEIGHTINGS:
        return []
    given = parse_class_weights(config.class_weights)
    shares = dict(zip(class_names, findings.shares("train"), strict=True))
    return [name for name in given if shares[name] == 0] if isinstance(given, dict) else []


def _given_weights(given: list[float] | dict[str, float], class_names: Sequence[str]) -> np.ndarray:
    if isinstance(given, dict):
        unknown = [name for name in given if name not in class_names]
        if unknown:
            known = ", ".join(class_names)
            raise SemsegError(f"--class-weights: there is no class {unknown[0]!r}; choose from {known}")
        given = [given.get(name, 1.0) for name in class_names]
    if len(given) != len(class_names):
        raise SemsegError(
            f"--class-weights: got {len(given)} of them; expected {len(class_names)}, for {', '.join(class_names)}"
        )
    return np.array(given)


def train_model(
    model: keras.Model,
    batches: tuple[Batches, Batches],
    config: RunConfig,
    *,
    model_path: Path,
    results_path: Path,
    recipe: Recipe | None = None,
    class_weights: np.ndarray | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, float]]:
    """Trains `model` and leaves it with the weights of its best epoch.

    Args:
        model: From `build_model`: photos `(N, H, W, 3)`, 0 to 255, to logits `(N, H, W, K)`; of several outputs the
            first is what gets judged and saved, and all of them learn.
        batches: From `make_batches`; their loading threads are ended.
        config: Epochs, loss, label smoothing, precision, compile, accumulate and remat are read.
        model_path: `.keras` file for the best weights so far; written after each epoch that beats the earlier ones.
        results_path: CSV file for one row per epoch.
        recipe: How it learns; None for what suits a run of this size.
        class_weights: One weight per class for the loss.
        callbacks: More Keras callbacks, to show progress for example.
        tell: Called with a line about the compiler, if one was asked for.

    Returns:
        One row per epoch: `epoch` (from 1), `loss`, `accuracy`, `mean_iou`, the same with `val_`, `learning_rate` at
        its end, `seconds`, and of these `waiting` for data.

    Raises:
        SemsegError: More batches are to be accumulated than there are.
        NonFiniteLossError: The loss became NaN or infinite; the best weights before that are on disk.
        DataError: A file cannot be read any more.
        ResourceError: Out of memory.
    """
    leave_tensorflow_out()
    train_batches, val_batches = batches
    dataset, config = train_batches.dataset, replace(config, batch_size=train_batches.batch_size)
    plain, trained = plain_model(model), training_model(model, config, dataset, class_weights)
    recorder, keeper, free = Recorder(results_path, batches), KeepBest(plain, model_path), free_bytes()
    try:
        if config.accumulate > (count := config.epochs * len(train_batches)):
            raise SemsegError(
                f"--accumulate: got {config.accumulate}, and the run has {count} batches in all; expected at most as "
                "many, or nothing would be learned"
            )
        works = config.compile and not keras_compiles(False) and _compiles(trained, config, train_batches, tell)
        optimizer = (recipe or Recipe.suited(config, len(train_batches))).optimizer()
        trained.compile(optimizer, jit_compile=keras_compiles(works))
        trained.fit(
            train_batches,
            validation_data=val_batches,
            epochs=config.epochs,
            shuffle=False,  # the batches come shuffled
            verbose=0,
            callbacks=[
                CountEpochs(train_batches),
                StopOnNonFiniteLoss(train_batches, keeper),
                recorder,
                keeper,
                *callbacks,
            ],
        )
    except Exception as error:
        train_batches.raise_error()
        val_batches.raise_error()
        if out_of_memory(error):
            raise ResourceError(_memory_advice(model, config, free)) from error
        raise
    finally:
        train_batches.close()
        val_batches.close()
    plain.load_weights(model_path)
    return recorder.history


def _compiles(trained: TrainingModel, config: RunConfig, batches: Batches, tell: Callable[[str], None]) -> bool:
    if config.remat and not keras_compiles(True):  # PyTorch's compiler falls apart at each piece computed twice
        tell("does not go with --remat on PyTorch; training without")
        return False
    start = time.perf_counter()
    try:
        trained.compile_graph(batches[0][0])
    except Exception as error:
        if out_of_memory(error):
            raise
        tell(f"does not work here ({first_line(error)}); training without")
        return False
    tell(f"took {time.perf_counter() - start:.0f} s")
    return True


MEMORY_MARGIN = 1.3  # what runs take at most of what `training_bytes` gives, on PyTorch
REFUSED_FROM = 0.6  # what they take at the very least


def check_memory(model: keras.Model, config: RunConfig) -> None:
    """Refuses a run that cannot fit; Linux would kill it without a word.

    Raises:
        ResourceError: There is less memory than a step needs.
    """
    free, need = free_bytes(), _needed(model, config, config.batch_size)
    if free and need and not config.remat and need * REFUSED_FROM > free:
        raise ResourceError(_memory_advice(model, config, free))


def _needed(model: keras.Model, config: RunConfig, batch_size: int) -> float | None:
    need = training_bytes(model, batch_size, config.image_size)
    return need if need is None or config.precision == "float32" else need / 2


def _memory_advice(model: keras.Model, config: RunConfig, free: int | None) -> str:
    """What went wrong in words of the flags, and which batch size would fit into what was free before."""
    height, width = config.image_size
    message = f"out of memory: --batch-size {config.batch_size} with photos of {height}x{width}"
    ways_out = ("" if config.remat else "--remat, ") + "a smaller --image-size or --filters"
    if config.batch_size == 1:
        return f"{message}; use {ways_out}"
    one, need = (_needed(model, config, size) for size in (1, config.batch_size))
    fitting = config.batch_size // 2
    if free and one and need and MEMORY_MARGIN * need > free:
        message += f" needs about {MEMORY_MARGIN * need / 1e9:.1f} GB, and {free / 1e9:.1f} GB were free"
        each = (need - one) / (config.batch_size - 1)
        fitting = min(fitting, int(1 + (free / MEMORY_MARGIN - one) / each))
    if fitting < 1:
        return f"{message}; not even one photo fits: use {ways_out}"
    steps = -(-config.batch_size * config.accumulate // fitting)
    return f"{message}; use --batch-size {fitting} --accumulate {steps} for as many photos per step, or {ways_out}"
