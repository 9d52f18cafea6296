"""What a run was asked to do: written beside its results, so that the run can be understood and repeated."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from semseg.errors import SemsegError
from semseg.files import replacing


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        data: Folder of the data set.
        model: Name of the network.
        epochs: Times that every training sample is seen.
        batch_size: Samples per step.
        learning_rate: Peak of the learning rate.
        image_size: (height, width) that the network sees.
        filters: Channels of the first block.
        loss: Names of losses joined by `+`.
        seed: Seed of the split, the initial weights, the order and the augmentation.
        backend: Keras backend.
        output: Folder for the results.
        workers: Threads that load data.
        limit: At most this many samples of each split; None for all.
        classes: The number of classes; None to find it from the masks.
    """

    data: str = "images"
    model: str = "unet"
    epochs: int = 10
    batch_size: int = 4
    learning_rate: float = 5e-3
    image_size: tuple[int, int] = (128, 128)
    filters: int = 16
    loss: str = "cross_entropy+dice"
    seed: int = 0
    backend: str = "torch"
    output: str = "outputs"
    workers: int = 2
    limit: int | None = None
    classes: int | None = None

    def __post_init__(self):
        """Raises a `SemsegError` for values that make no sense."""
        least = {"epochs": 1, "batch_size": 1, "filters": 1, "workers": 0, "seed": 0, "limit": 2, "classes": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                flag = "--" + name.replace("_", "-")
                raise SemsegError(f"{flag}: got {value}; expected a whole number of at least {smallest}")
        if self.seed >= 2**32:
            raise SemsegError(f"--seed: got {self.seed}; expected a whole number below 2 to the power of 32")
        if not 0 < self.learning_rate < float("inf"):
            raise SemsegError(f"--learning-rate: got {self.learning_rate}; expected a number above 0, such as 0.005")
        if min(self.image_size) < 1:
            raise SemsegError(f"--image-size: got {self.image_size}; expected sides of at least 1 pixel")

    def save(self, path: Path, **extra: object) -> None:
        """Writes the run, and what else is worth knowing of it, as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({**asdict(self), **extra}, indent=2) + "\n", encoding="utf-8")
