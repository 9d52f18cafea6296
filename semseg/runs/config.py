"""What a run was asked to do: written beside its results, so that the run can be understood and repeated."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

from semseg.errors import RunFolderError, SemsegError
from semseg.files import read_json

CLASS_WEIGHTINGS = ("none", "inverse", "effective")  # beside weights given as numbers
KEEPS = ("best", "last", "every")
AUTO = "auto"  # a network that the plan chooses
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
USUAL_SIZE = (128, 128)  # (height, width) that networks see where nothing asks for more
MAX_SCALE = 16
MAX_FILTERS = 8192  # channels of the first block; a network of 256 is large
FORMAT = 2  # of the file; 1 had no sections
MAX_CLASSES = 253  # ids are uint8, 255 is ignored, and two more numbers have a meaning while masks are read


def _setting(section: str, default: Any) -> Any:
    return field(default=default, metadata={"section": section})


@dataclass(frozen=True)
class RunConfig:
    """One training run, as it was asked for. What is None is decided by `plan_run`.

    Args:
        data: Folder or archive of the data set, an address of one, or `kaggle:owner/name`.
        dataset: Its form; None to look.
        photos: The folder of the photos in it, or a pattern of their paths; None to look.
        masks: The same for the masks.
        ignore_outside: The folder of pictures that are black where the photo shows nothing, such as a microscope's
            field of view: pixels there count nowhere; None for all pixels.
        corrections: A folder of masks from the labelling desk: they take the place of those of their photos, and photos
            that had none are trained on; None for the masks as they are.
        instances: The numbers or colours of the masks count objects: all but the background are one class.
        show: The bands that pictures show as red, green and blue, such as `"4,3,2"`, or one for grey; None for those
            that suit.
        classes: The number of classes, 2 to 253, or a file that describes them; None to find them from the masks.
        categories: The 7 categories of Cityscapes in place of its 19 classes.
        test_split: The split that gives the final scores; None for `"test"` where the data have one, else `"val"`.
        split_seed: Seed of the validation split, where the data have none of their own, and of folds.
        fold: `"2/5"` to validate on the second of five parts of the photos, and train on the others; None for one
            validation split.
        limit: At most this many samples of each split; None for all.
        skip_bad: Files that cannot be used are left out.
        allow_leaks: A photo may be in two splits.
        cache: Folder of decoded photos; `"none"` for no cache, None for the user's cache folder.
        model: Name of the network, `module:function` of a builder of one's own, or `"auto"` for what suits the data.
        encoder: Of `encoder_unet`: a network of `keras.applications`; None for its default.
        encoder_weights: Of `encoder_unet`: `"imagenet"`, `"none"`, or a file; None for `"imagenet"`.
        image_size: (height, width) in pixels that the network sees; None for what suits the data.
        view: `"whole"` to resize each photo to `image_size`, `"crops"` to cut pieces of that size out of it; None for
            what suits the data.
        scale: At which photos are cropped: pixels that the network sees for one of theirs; None for what suits the
            data.
        filters: Channels of the first block.
        init: The folder of a run, or a model's file, whose weights the network starts from; None for new ones.
        freeze: What keeps its weights: `"none"`, `"encoder"`, or the number of the encoder's levels from the input on;
            None for what suits the network.
        epochs: Times that every training sample is seen.
        minutes: Time for the training, which then has as many whole epochs as fit; None for `epochs` as they are.
        batch_size: Samples per step; None for as many as suit the length of the run.
        accumulate: Steps whose gradients are averaged for one change of the weights.
        learning_rate: At the start; it falls to 0.
        loss: Names of losses joined by `+`.
        class_weights: Weights of the classes in the loss: `"none"`; `"inverse"` or `"effective"`, by which rare classes
            weigh more; or numbers, see `parse_class_weights`.
        label_smoothing: Share of the truth that cross-entropy spreads over all classes, from 0 to below 1.
        augment: `"none"`, or the changes that differ from what suits the data; None for what suits them.
        sample_rare: Photos with rare classes are shown more often.
        early_stop: Epochs without a better validation after which the training ends; None for all epochs.
        average: The weights are averaged over the last tenth of the steps or so, and kept if they are better than those
            of the best epoch.
        calibrate: A temperature and, for two classes, a threshold are chosen on the validation photos at the end.
        seed: Seed of the initial weights, the order and the augmentation.
        backend: Keras backend: `"torch"`, `"tensorflow"` or `"jax"`.
        precision: What the network computes in while it is trained: `"float32"`, `"mixed_bfloat16"` or
            `"mixed_float16"`; weights and results are float32 in any case.
        compile: PyTorch: the network is compiled first; TensorFlow: by XLA. JAX always compiles.
        remat: Less memory for more time: what lies within a block is computed again for the gradients.
        devices: Of this computer, that one process trains on: JAX and TensorFlow; None for one.
        workers: Threads that load data.
        output: Folder for the results.
        keep: Which weights stay beside the best epoch's: `"best"` for no others, `"last"` for the last epoch's and the
            state of the training, `"every"` for each epoch's, too.
        checkpoint_minutes: Between two states of the training, beside those after each epoch; None for as often as
            costs 1 % of the time.

    Raises:
        SemsegError: A value makes no sense.
    """

    data: str = _setting("data", "images")
    dataset: str | None = _setting("data", None)
    photos: str | None = _setting("data", None)
    masks: str | None = _setting("data", None)
    ignore_outside: str | None = _setting("data", None)
    corrections: str | None = _setting("data", None)
    instances: bool = _setting("data", False)
    show: str | None = _setting("data", None)
    classes: int | str | None = _setting("data", None)
    categories: bool = _setting("data", False)
    test_split: str | None = _setting("data", None)
    split_seed: int = _setting("data", 0)
    fold: str | None = _setting("data", None)
    limit: int | None = _setting("data", None)
    skip_bad: bool = _setting("data", False)
    allow_leaks: bool = _setting("data", False)
    cache: str | None = _setting("data", None)
    model: str = _setting("network", AUTO)
    encoder: str | None = _setting("network", None)
    encoder_weights: str | None = _setting("network", None)
    image_size: tuple[int, int] | None = _setting("network", None)
    view: str | None = _setting("network", None)
    scale: float | None = _setting("network", None)
    filters: int = _setting("network", 16)
    init: str | None = _setting("network", None)
    freeze: str | None = _setting("network", None)
    epochs: int = _setting("training", 10)
    minutes: float | None = _setting("training", None)
    batch_size: int | None = _setting("training", None)
    accumulate: int = _setting("training", 1)
    learning_rate: float = _setting("training", 5e-3)
    loss: str = _setting("training", "cross_entropy+dice")
    class_weights: str = _setting("training", "none")
    label_smoothing: float = _setting("training", 0.0)
    augment: str | None = _setting("training", None)
    sample_rare: bool = _setting("training", False)
    early_stop: int | None = _setting("training", None)
    average: bool = _setting("training", False)
    calibrate: bool = _setting("training", False)
    seed: int = _setting("training", 0)
    backend: str = _setting("speed", "torch")
    precision: str = _setting("speed", "float32")
    compile: bool = _setting("speed", False)
    remat: bool = _setting("speed", False)
    devices: int | None = _setting("speed", None)
    workers: int = _setting("speed", 2)
    output: str = _setting("output", "outputs")
    keep: str = _setting("output", "best")
    checkpoint_minutes: float | None = _setting("output", None)

    def __post_init__(self) -> None:
        """Raises a `SemsegError` for values that make no sense."""
        for name, smallest in _SMALLEST.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < smallest:
                raise SemsegError(f"`{name}`: got {value}; expected a whole number of at least {smallest}")
        for name, (makes_sense, expected) in _EXPECTED.items():
            value = getattr(self, name)
            if not makes_sense(value):
                raise SemsegError(f"`{name}`: got {value!r}; expected {expected}")
        if self.view == "whole" and self.scale is not None:
            raise SemsegError("`scale`: is for crops, and `view` whole was asked for; leave one of them out")
        if self.class_weights not in CLASS_WEIGHTINGS:
            parse_class_weights(self.class_weights)

    @property
    def seen_size(self) -> tuple[int, int]:
        """(height, width) that the network sees; a usual size where that is not decided yet."""
        return self.image_size or USUAL_SIZE

    @property
    def crop_scale(self) -> float | None:
        """At which scale photos are cropped; None where they are seen whole, or that is not decided yet."""
        return self.scale if self.view == "crops" else None

    @property
    def encoder_is_learnt(self) -> bool:
        """Whether the encoder starts from weights of its own, rather than random ones or another run's."""
        named = self.encoder_weights is not None or self.init is None
        return self.model == "encoder_unet" and named and self.encoder_weights != "none"

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, ignore_unknown: bool = False) -> "RunConfig":
        """The run that the content of a configuration file describes.

        Args:
            values: What `to_dict` gave, by section, or the names and values without sections that earlier versions
                wrote. The plan and the facts of a run are left aside.
            ignore_unknown: Leave aside settings and sections that this version does not know, in place of an error.

        Raises:
            SemsegError: The file is of a later form, a setting is not known, or a value makes no sense.
            ValueError: It is no configuration.
        """
        settings = _settings_in(values, ignore_unknown)
        known = {setting.name for setting in fields(cls)}
        unknown = sorted(settings.keys() - known)
        if unknown and not ignore_unknown:
            raise SemsegError(
                f"there is no setting {', '.join(map(repr, unknown))}; expected {', '.join(sorted(known))}"
            )
        chosen = {name: value for name, value in settings.items() if name in known}
        if isinstance(chosen.get("image_size"), list):  # JSON has no tuples
            chosen["image_size"] = tuple(chosen["image_size"])
        _check_types(chosen)
        return cls(**chosen)

    def to_dict(self) -> dict[str, Any]:
        """The settings by section, as plain values for JSON, readable by `from_dict` and by people."""
        sections: dict[str, Any] = {"format": FORMAT}
        for setting in fields(self):
            sections.setdefault(setting.metadata["section"], {})[setting.name] = getattr(self, setting.name)
        return sections


def parse_fold(text: str) -> tuple[int, int]:
    """Which fold, from 1 on, and of how many.

    Args:
        text: The setting `fold`.

    Example:
        >>> parse_fold("2/5")
        (2, 5)
    """
    number, count = map(int, text.split("/"))
    return number, count


def _is_fold(value: str) -> bool:
    if not re.fullmatch(r"[1-9]\d{0,3}/[1-9]\d{0,3}", value):
        return False
    number, count = parse_fold(value)
    return number <= count >= 2


def _can_be_frozen(value: str | None) -> bool:
    return value in (None, "none", "encoder") or (str(value).isdecimal() and int(str(value)) > 0)


_SMALLEST = {
    "epochs": 1, "batch_size": 1, "filters": 1, "limit": 2, "classes": 2, "accumulate": 1, "workers": 0, "seed": 0,
    "split_seed": 0, "early_stop": 1, "devices": 1,
}  # fmt: skip
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "classes": (lambda value: not isinstance(value, int) or value <= MAX_CLASSES, f"at most {MAX_CLASSES}"),
    "filters": (lambda value: value <= MAX_FILTERS, f"at most {MAX_FILTERS}"),
    "fold": (lambda value: value is None or _is_fold(value), "one of at least two folds, such as 2/5"),
    "freeze": (_can_be_frozen, "none, encoder, or a number of its levels from 1 on"),
    "minutes": (lambda value: value is None or 0 < value < float("inf"), "a number above 0"),
    "seed": (lambda value: value < 2**32, "a whole number below 2 to the power of 32"),
    "learning_rate": (lambda value: 0 < value < float("inf"), "a number above 0, such as 0.005"),
    "precision": (lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "keep": (lambda value: value in KEEPS, f"one of {', '.join(KEEPS)}"),
    "checkpoint_minutes": (
        lambda value: value is None or 0 <= value < float("inf"),
        "a number of minutes, 0 for after every batch",
    ),
    "label_smoothing": (lambda value: 0 <= value < 1, "0 to below 1, such as 0.1"),
    "image_size": (lambda value: value is None or min(value) >= 1, "sides of at least 1 pixel"),
    "view": (lambda value: value in (None, "whole", "crops"), "whole or crops"),
    "scale": (
        lambda value: value is None or 1 / MAX_SCALE <= value <= MAX_SCALE,
        f"a number from {1 / MAX_SCALE:g} to {MAX_SCALE:g}, such as 0.5 for half the photos' size",
    ),
}
SECTIONS = tuple(dict.fromkeys(setting.metadata["section"] for setting in fields(RunConfig)))


def section_of(name: str) -> str:
    """The section that a setting belongs to.

    Example:
        >>> section_of("learning_rate")
        'training'
    """
    return RunConfig.__dataclass_fields__[name].metadata["section"]


def _settings_in(values: Any, ignore_unknown: bool) -> dict[str, Any]:
    """Names and values of all settings in the content of a configuration file, of either form."""
    if not isinstance(values, dict):
        raise ValueError("expected an object with settings")
    version = values.get("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise SemsegError(f"is of form {version}, and this version of semseg reads up to {FORMAT}; use a later semseg")
    return _settings_of_form_1(values) if version == 1 else _settings_of_sections(values, ignore_unknown)


def _settings_of_form_1(values: dict[str, Any]) -> dict[str, Any]:
    if not {"data", "image_size"} <= values.keys():
        raise ValueError("it holds no settings of a run")
    return {name: value for name, value in values.items() if name not in _NOTES_OF_FORM_1}


def _settings_of_sections(values: dict[str, Any], ignore_unknown: bool) -> dict[str, Any]:
    unknown = sorted(values.keys() - {"format", "plan", "facts", *SECTIONS})
    if unknown and not ignore_unknown:
        raise SemsegError(f"there is no section {', '.join(map(repr, unknown))}; expected {', '.join(SECTIONS)}")
    settings: dict[str, Any] = {}
    for name in SECTIONS:
        section = values.get(name, {})
        if not isinstance(section, dict):
            raise ValueError(f"its section {name!r} holds no settings")
        settings |= section
    if not settings:
        raise ValueError("its sections hold no settings of a run")
    return settings


_NOTES_OF_FORM_1 = {
    "task", "recipe", "augmentation", "parameters", "samples", "found", "device", "system", "versions",
}  # fmt: skip


def _check_types(settings: dict[str, Any]) -> None:
    """Refuses values that no flag could have given: a file may hold anything."""
    for name, value in settings.items():
        kinds = _kinds_of(RunConfig.__dataclass_fields__[name].type)
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if name == "image_size" and value is not None:
            fits = fits and [type(side) for side in value] == [int, int]
        if not fits:
            raise SemsegError(f"`{name}`: got {value!r}; expected {' or '.join(_KINDS[kind] for kind in kinds)}")


_KINDS = {
    str: "a text", bool: "true or false", int: "a whole number", float: "a number", tuple: "two whole numbers",
    type(None): "null",
}  # fmt: skip


def _kinds_of(annotation: Any) -> tuple[type, ...]:
    kinds = tuple(get_origin(kind) or kind for kind in getattr(annotation, "__args__", (annotation,)))
    return (*kinds, int) if float in kinds else kinds


def read_config(path: Path, *, ignore_unknown: bool = False) -> tuple[RunConfig, dict[str, Any]]:
    """Reads a configuration file.

    Args:
        path: The file.
        ignore_unknown: Leave aside settings that this version does not know, in place of an error.

    Returns:
        The run that it describes, and all that the file holds.

    Raises:
        RunFolderError: The file is not there, cannot be read, is of a later form, or holds what makes no sense.
    """
    try:
        values = read_json(path)
        return RunConfig.from_dict(values, ignore_unknown=ignore_unknown), values
    except FileNotFoundError:
        raise RunFolderError(f"{path.parent}: holds no {path.name}; expected the folder of a run") from None
    except SemsegError as error:
        raise RunFolderError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); expected what a run writes there") from None


def differing_settings(one: RunConfig, other: RunConfig, apart_from: tuple[str, ...] = ()) -> list[str]:
    """The names of the settings in which two runs differ, those of `apart_from` left aside."""
    both = asdict(one), asdict(other)
    return [name for name in both[0] if name not in apart_from and both[0][name] != both[1][name]]


def parse_class_weights(text: str) -> list[float] | dict[str, float]:
    """Reads class weights: one number of at least 0 for each class, or some by name.

    Args:
        text: Numbers joined by commas, or `name=number` joined by commas.

    Returns:
        The numbers in the order of the classes, or by name.

    Raises:
        SemsegError: They are neither.

    Example:
        >>> parse_class_weights("1,2,.5"), parse_class_weights("pole=3,traffic light=2")
        ([1.0, 2.0, 0.5], {'pole': 3.0, 'traffic light': 2.0})
    """
    entries = [entry.rpartition("=") for entry in text.split(",")]
    names = [name.strip() for name, sign, _ in entries if sign]
    named_and_plain = bool(names) and len(set(names)) < len(entries)
    try:
        numbers = [float(number) for _, _, number in entries]
    except ValueError:
        numbers = [-1.0]
    if named_and_plain or not all(0 <= number < float("inf") for number in numbers):
        raise SemsegError(
            f"`class_weights`: got {text!r}; expected none, inverse, effective, a number of at least 0 for each class "
            "such as 1,2,0.5, or some by name such as pole=3,car=2"
        )
    return dict(zip(names, numbers, strict=True)) if names else numbers
