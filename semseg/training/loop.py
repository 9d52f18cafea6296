"""Training: one `fit` over a split, an evaluation after every epoch, and the best weights kept on disk."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from semseg.architectures import build_model
from semseg.architectures.band_scaling import scale_bands
from semseg.backend.crop_scale import with_scale
from semseg.backend.devices import free_bytes, keras_compiles, leave_tensorflow_out, out_of_memory
from semseg.backend.fast_model import FastModel
from semseg.backend.optimizer import build_optimizer
from semseg.backend.processes import here, raise_if_lost, train_apart, train_together
from semseg.data.base import Dataset
from semseg.data.batches import Batches, data_generator
from semseg.data.cache import Cache
from semseg.errors import ResourceError, first_line
from semseg.images.bands import RGB, Bands
from semseg.losses import SegmentationLoss
from semseg.metrics.keras_metric import ConfusionMatrix
from semseg.runs.checkpoints import Position
from semseg.runs.config import RunConfig
from semseg.runs.stalling import StalledError
from semseg.training.averaging import Averaged, try_average
from semseg.training.callbacks import CountEpochs, CountPhotos, KeepBest, Recorder, StopEarly, StopOnNonFiniteLoss
from semseg.training.memory import memory_advice
from semseg.training.plan import Plan
from semseg.training.saving import NOT_WRITABLE, SaveState, Saving


class TrainingModel(FastModel):
    """A network while it is trained: it shares the layers of the plain model, which is what gets saved.

    One confusion matrix gives all the metrics, which Keras' `compile(metrics=...)` cannot express, and the same truth
    serves every output of a network with several (deep supervision): the loss is their mean, the metrics are the
    first's.

    Args:
        inputs: As for `keras.Model`.
        outputs: As for `keras.Model`; logits.
        loss: What is minimised.
        num_classes: K.
        options: Of `FastModel`.
    """

    def __init__(self, inputs: Any, outputs: Any, loss: SegmentationLoss, num_classes: int, **options: Any):
        super().__init__(inputs, outputs, **options)
        self.segmentation_loss, self.confusion_matrix = loss, ConfusionMatrix(num_classes)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: None = None, training: bool = True
    ) -> Any:
        """Returns the mean loss of the outputs, and what layers add to it."""
        outputs = y_pred if isinstance(y_pred, list) else [y_pred]
        loss = sum(self.segmentation_loss(y, logits) for logits in outputs) / len(outputs)
        return sum(self.losses, loss)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: None = None) -> dict[str, Any]:
        """Adds the batch to the confusion matrix and returns loss, accuracy and mean IoU so far."""
        self.confusion_matrix.update_state(y, y_pred[0] if isinstance(y_pred, list) else y_pred)
        return self.get_metrics_result()


def new_model(config: RunConfig, num_logits: int, bands: Bands = RGB) -> keras.Model:
    """The network that a run asks for.

    Args:
        config: The settings of its section `network` are read.
        num_logits: Channels of the output: K, or 1 for two classes.
        bands: What the photos hold.

    Returns:
        A model from photos `(N, H, W, C)`, in the files' own numbers, to logits `(N, H, W, K)`.

    Raises:
        SemsegError: See `build_model`.
    """
    model = build_model(
        config.model, (*config.seen_size, bands.count), num_logits, filters=config.filters, encoder=config.encoder,
        encoder_weights=config.encoder_weights,
    )  # fmt: skip
    if not bands.are_rgb:
        model = scale_bands(model, bands.low, bands.high, bands.dtype)
    return model if config.crop_scale is None else with_scale(model, config.crop_scale)


def training_model(model: keras.Model, plan: Plan) -> TrainingModel:
    """What is trained in place of `model`, with the same layers; not compiled yet.

    Args:
        model: From `new_model`.
        plan: Loss, precision and remat are read.
    """
    plan.require_findings()
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    return TrainingModel(
        model.inputs[0], outputs, plan.loss(), len(plan.class_names),
        precision=plan.config.precision.removeprefix("mixed_"), remat=plan.config.remat,
    )  # fmt: skip


def plain_model(model: keras.Model) -> keras.Model:
    """The network without the outputs that only training needs: its first output alone."""
    return model if len(model.outputs) == 1 else keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def make_batches(dataset: Dataset, plan: Plan, cache: Cache | None = None) -> tuple[Batches, Batches]:
    """The batches for training, shuffled and augmented, and for validation, as they are: this process' part of them.

    Args:
        dataset: From `open_data`.
        plan: From `plan_run`: batch size, image size, augmentation, sampling, seed and workers are read.
        cache: Of all samples, at the same image size.

    Returns:
        Batches of the splits `"train"` and `"val"`.

    Raises:
        SemsegError: The plan was made without findings, and rare classes were asked for.
    """
    plan.require_findings()
    config = plan.config

    def batches_of(split: str, **of_training: Any) -> Batches:
        return data_generator(
            dataset, split, batch_size=plan.batch_size, image_size=config.seen_size, seed=config.seed,
            workers=config.workers, cache=cache, share=here().share, scale=config.crop_scale,
            most_crops=plan.view.most_crops, **of_training,
        )  # fmt: skip

    training = batches_of(
        "train", augmentation=plan.augmentation, sample_weights=plan.sample_weights, centres=plan.centres
    )
    return training, batches_of("val")


def train_model(
    model: keras.Model,
    batches: tuple[Batches, Batches],
    plan: Plan,
    *,
    model_path: Path,
    results_path: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda line: None,
    on_average: Callable[[Averaged], None] = lambda averaged: None,
    saving: Saving | None = None,
) -> list[dict[str, float]]:
    """Trains `model` and leaves it with the weights of its best epoch.

    Processes that have joined (see `backend.processes`) train it together; the first of them writes the files, and it
    alone then has those weights.

    Args:
        model: From `build_model`: photos `(N, H, W, 3)`, 0 to 255, to logits `(N, H, W, K)`; of several outputs the
            first is what gets judged and saved, and all of them learn.
        batches: From `make_batches`; their loading threads are ended.
        plan: From `plan_run`.
        model_path: `.keras` file for the best weights so far; written after each epoch that beats the earlier ones.
        results_path: CSV file for one row per epoch.
        callbacks: More Keras callbacks, to show progress for example.
        tell: Called with a line about the compiler, if one was asked for.
        on_average: Called with what became of the averaged weights, if they were asked for.
        saving: Where to save the state of the training, and the one to go on from; None to save none.

    Returns:
        One row per epoch: `epoch` (from 1), `loss`, `accuracy`, `mean_iou`, the same with `val_`, `learning_rate` at
        its end, `seconds`, and of these `waiting` for data.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite; the best weights before that are on disk.
        DataError: A file cannot be read any more.
        ResourceError: Out of memory, or no space left on the disk.
        RunFolderError: The state to go on from is that of another network.
    """
    leave_tensorflow_out()
    train_batches, val_batches = batches
    config, plain, trained = plan.config, plain_model(model), training_model(model, plan)
    writes, free = here().is_first, free_bytes()
    recorder, keeper = Recorder(results_path, batches, writes), KeepBest(plain, model_path, writes)
    saver = SaveState(saving or Saving(), recorder, keeper)
    start = saver.position
    photos = CountPhotos(batches, here())
    here().own_photos, here().photos = train_batches.photo_counts(0)
    try:
        works = config.compile and not keras_compiles(False) and _compiles(trained, train_batches, tell)
        trained.compile(plan.recipe.optimizer(model), jit_compile=keras_compiles(works))
        build_optimizer(trained)
        count, stop = CountEpochs(train_batches, config.seed, start), StopOnNonFiniteLoss(train_batches, keeper)
        saver.restore(trained)
        train_together(trained)
        early = StopEarly(keeper, config.early_stop)
        every = [count, photos, stop, recorder, keeper, *callbacks, early, saver]
        _fit(trained, batches, start, config.epochs, early, every)
        saver.wait()
        train_apart(trained)
        if config.average:
            on_average(try_average(trained, keeper, batches, len(recorder.history), saver.stop_if_asked))
    except Exception as error:
        raise_if_lost(error)
        for stalled in (error, train_batches.error, val_batches.error):
            if isinstance(stalled, StalledError):
                raise saver.save_if_possible(stalled) from None
        train_batches.raise_error()
        val_batches.raise_error()
        if out_of_memory(error):
            raise ResourceError(memory_advice(model, config, free)) from error
        if isinstance(error, OSError) and error.errno in NOT_WRITABLE:
            raise saver.in_words(error) from error
        raise
    finally:
        saver.close()
        train_batches.close()
        val_batches.close()
    keeper.load()
    return recorder.history


def _fit(
    trained: TrainingModel,
    batches: tuple[Batches, Batches],
    start: Position,
    epochs: int,
    early: StopEarly,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Fits from a position on: the rest of an epoch that was begun before is a fit of its own."""
    train_batches, val_batches = batches

    def fit(first: int, last: int) -> None:
        trained.fit(
            train_batches,
            validation_data=val_batches,
            initial_epoch=first,
            epochs=last,
            shuffle=False,  # the batches come shuffled
            verbose=0,
            callbacks=callbacks,
        )

    epoch = start.epoch
    if start.batch == train_batches.per_epoch:
        _validate(trained, val_batches, epoch, callbacks)
        epoch += 1
    elif start.batch:
        train_batches.start_epoch(epoch, start.batch)
        fit(epoch, epoch + 1)
        epoch += 1
    if epoch < epochs and not early.ends_after(epoch):
        train_batches.start_epoch(epoch)
        fit(epoch, epochs)


def _validate(
    trained: TrainingModel, val_batches: Batches, epoch: int, callbacks: list[keras.callbacks.Callback]
) -> None:
    """Ends an epoch whose batches are all over."""
    every = keras.callbacks.CallbackList(callbacks, model=trained)
    every.on_epoch_begin(epoch)
    logs = dict(trained.get_metrics_result())
    validation = trained.evaluate(val_batches, callbacks=every, return_dict=True, verbose=0)
    every.on_epoch_end(epoch, {**logs, **{f"val_{name}": value for name, value in validation.items()}})


def _compiles(trained: TrainingModel, batches: Batches, tell: Callable[[str], None]) -> bool:
    """Tries the compiler; whether it worked."""
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
