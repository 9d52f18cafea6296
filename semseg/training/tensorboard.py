"""What TensorBoard shows of a run while it learns."""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from tensorboardX import SummaryWriter

from semseg.labels.painting import overlay, paint, paint_errors
from semseg.labels.palettes import Palette
from semseg.runs.pictures import Picture

PHOTOS_OF_A_BATCH = 4


class LogEpochs(keras.callbacks.Callback):
    """Adds loss, accuracy, mean IoU and learning rate after every epoch, training and validation in one chart."""

    def __init__(self, log: SummaryWriter):
        super().__init__()
        self.log = log

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's values."""
        for name, value in logs.items():
            kind = "validation" if name.startswith("val_") else "training"
            self.log.add_scalar(f"{name.removeprefix('val_')}/{kind}", float(value), epoch + 1)
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        self.log.add_scalar("learning_rate", float(rate), epoch + 1)


def log_batch(log: SummaryWriter, photos: np.ndarray, masks: np.ndarray, palette: Palette) -> None:
    """Adds what the network sees first: photos, and below them the same with their masks.

    Args:
        log: Where it goes.
        photos: uint8 RGB `(N, H, W, 3)`.
        masks: uint8 ids `(N, H, W)`.
        palette: Names and colours of the classes.
    """
    shown = list(zip(photos[:PHOTOS_OF_A_BATCH], masks, strict=False))
    rows = [[photo for photo, _ in shown], [overlay(photo, mask, palette) for photo, mask in shown]]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    log.add_image("first_batch", picture, 0, dataformats="HWC")


def log_scores(
    log: SummaryWriter, ious: Mapping[str, float], pictures: Sequence[Picture], palette: Palette, epoch: int
) -> None:
    """Adds the IoU of every class, and some predictions: photo, truth, prediction, errors.

    Args:
        log: Where it goes.
        ious: By class; NaN for a class without a score.
        pictures: Photos with truth and prediction.
        palette: Names and colours of the classes.
        epoch: From 1.
    """
    for name, iou in ious.items():
        if not math.isnan(iou):
            log.add_scalar(f"iou/{name}", float(iou), epoch)
    for picture in pictures:
        masks = (paint(picture.truth, palette), paint(picture.prediction, palette))
        row = (picture.photo, *masks, paint_errors(picture.photo, picture.truth, picture.prediction))
        log.add_image(f"prediction/{picture.name}", np.concatenate(row, axis=1), epoch, dataformats="HWC")
