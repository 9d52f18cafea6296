"""What TensorBoard shows of a run while it learns."""

import keras
from tensorboardX import SummaryWriter


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
