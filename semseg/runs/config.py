"""What a run was asked to do: written beside its results, so that the run can be understood and repeated."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from semseg.errors import RunFolderError, SemsegError
from semseg.files import replacing

CLASS_WEIGHTINGS = ("none", "inverse", "effective")  # beside weights given as numbers
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        data: Folder or archive of the data set, or `kaggle:owner/name`.
        dataset: Its form; None to look.
        model: Name of the network, or `module:function` of a builder of one's own.
        epochs: Times that every training sample is seen.
        batch_size: Samples per step; None for as many as suit the length of the run, see `recipe.suited_batch_size`.
        learning_rate: At the start; it falls to 0.
        image_size: (height, width) that the network sees.
        filters: Channels of the first block.
        encoder: Of `encoder_unet`: a network of `keras.applications`; None for its default.
        encoder_weights: Of `encoder_unet`: `"imagenet"`, `"none"`, or a file; None for `"imagenet"`.
        loss: Names of losses joined by `+`.
        seed: Seed of the initial weights, the order and the augmentation.
        split_seed: Seed of the validation split, where the data have none of their own.
        backend: Keras backend.
        output: Folder for the results.
        workers: Threads that load data.
        limit: At most this many samples of each split; None for all.
        classes: The number of classes, or a file that describes them; None to find them from the masks.
        categories: The 7 categories of Cityscapes in place of its 19 classes.
        augment: `"none"`, or the changes that differ from what suits the data; None for none.
        class_weights: Weights of the classes in the loss: `"none"`; `"inverse"` or `"effective"`, by which rare classes
            weigh more; or numbers, see `parse_class_weights`.
        label_smoothing: Share of the truth that cross-entropy spreads over all classes, from 0 to below 1.
        sample_rare: Photos with rare classes are shown more often.
        skip_bad: Files that cannot be used are left out.
        allow_leaks: A photo may be in two splits.
        precision: What the network computes in while it is trained: `"float32"`, `"mixed_bfloat16"` or
            `"mixed_float16"`; weights and results are float32 in any case.
        compile: PyTorch: the network is compiled first; TensorFlow: by XLA. JAX always compiles.
        accumulate: Steps whose gradients are averaged for one change of the weights.
        remat: Less memory for more time: what lies within a block is computed again for the gradients.
        test_split: The split that gives the final scores; None for `"test"` where the data have one, else `"val"`.
        cache: Folder of decoded photos; `"none"` for no cache, None for the user's cache folder.
    """

    data: str = "images"
    dataset: str | None = None
    model: str = "unet"
    epochs: int = 10
    batch_size: int | None = None
    learning_rate: float = 5e-3
    image_size: tuple[int, int] = (128, 128)
    filters: int = 16
    encoder: str | None = None
    encoder_weights: str | None = None
    loss: str = "cross_entropy+dice"
    seed: int = 0
    split_seed: int = 0
    backend: str = "torch"
    output: str = "outputs"
    workers: int = 2
    limit: int | None = None
    classes: int | str | None = None
    categories: bool = False
    augment: str | None = None
    class_weights: str = "none"
    label_smoothing: float = 0.0
    sample_rare: bool = False
    skip_bad: bool = False
    allow_leaks: bool = False
    precision: str = "float32"
    compile: bool = False
    accumulate: int = 1
    remat: bool = False
    test_split: str | None = None
    cache: str | None = None

    def __post_init__(self):
        """Raises a `SemsegError` for values that make no sense."""
        least = {"epochs": 1, "batch_size": 1, "filters": 1, "limit": 2, "classes": 2, "accumulate": 1}
        least |= dict.fromkeys(("workers", "seed", "split_seed"), 0)
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < smallest:
                flag = "--" + name.replace("_", "-")
                raise SemsegError(f"{flag}: got {value}; expected a whole number of at least {smallest}")
        if isinstance(self.classes, int) and self.classes > 253:
            raise SemsegError(f"--classes: got {self.classes}; expected at most 253")
        if self.seed >= 2**32:
            raise SemsegError(f"--seed: got {self.seed}; expected a whole number below 2 to the power of 32")
        if not 0 < self.learning_rate < float("inf"):
            raise SemsegError(f"--learning-rate: got {self.learning_rate}; expected a number above 0, such as 0.005")
        if self.precision not in PRECISIONS:
            raise SemsegError(f"--precision: got {self.precision!r}; expected one of {', '.join(PRECISIONS)}")
        if self.class_weights not in CLASS_WEIGHTINGS:
            parse_class_weights(self.class_weights)
        if not 0 <= self.label_smoothing < 1:
            raise SemsegError(f"--label-smoothing: got {self.label_smoothing}; expected 0 to below 1, such as 0.1")
        if min(self.image_size) < 1:
            raise SemsegError(f"--image-size: got {self.image_size}; expected sides of at least 1 pixel")

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """The run that a config.json describes; what this version does not know is left out.

        Raises:
            RunFolderError: The file is not there, or is none of `save`.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
            return cls(**{**known, "image_size": tuple(known["image_size"])})
        except FileNotFoundError:
            raise RunFolderError(f"{path.parent}: holds no {path.name}; expected the folder of a run") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); expected what a run writes there") from None

    def save(self, path: Path, **extra: object) -> None:
        """Writes the run, and what else is worth knowing of it, as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({**asdict(self), **extra}, indent=2) + "\n", encoding="utf-8")


def to_flags(config: RunConfig, without_defaults: bool = False) -> list[str]:
    """The flags of `train` that ask for this run.

    Args:
        config: The run.
        without_defaults: Leave those out that have their default.

    Example:
        >>> to_flags(RunConfig(image_size=(64, 96), remat=True), without_defaults=True)
        ['--image-size', '64x96', '--remat']
    """
    flags, defaults = [], RunConfig()
    for name, value in asdict(config).items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False or (without_defaults and value == getattr(defaults, name)):
            continue
        flags.append(flag)
        if value is not True:
            flags.append("x".join(map(str, value)) if name == "image_size" else str(value))
    return flags


def parse_class_weights(text: str) -> list[float] | dict[str, float]:
    """Reads class weights: one number of at least 0 for each class, or some by name.

    Raises:
        SemsegError: They are neither.

    Example:
        >>> parse_class_weights("1,2,.5"), parse_class_weights("pole=3,traffic light=2")
        ([1.0, 2.0, 0.5], {'pole': 3.0, 'traffic light': 2.0})
    """
    entries = [entry.rpartition("=") for entry in text.split(",")]
    names = [name.strip() for name, sign, _ in entries if sign]
    try:
        numbers = [float(number) for _, _, number in entries]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number < float("inf") for number in numbers) or (names and len(set(names)) < len(entries)):
        raise SemsegError(
            f"--class-weights: got {text!r}; expected none, inverse, effective, a number of at least 0 for each class "
            "such as 1,2,0.5, or some by name such as pole=3,car=2"
        )
    return dict(zip(names, numbers, strict=True)) if names else numbers
