"""Everything that a run decides by itself, each with its reason; made once, printed, saved, and passed on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from semseg.backend.devices import device_name, keras_compiles, on_gpu, usable_precision
from semseg.backend.processes import here
from semseg.data.augment import Augmentation, parse_augmentation, suited_augmentation
from semseg.data.base import Dataset
from semseg.data.batches import CENTRED, rare_class_weights
from semseg.data.check import Findings
from semseg.data.crops import crops_of_epoch, crops_per_photo
from semseg.data.exchanges import Move, find_exchanges, words_of_exchanges
from semseg.data.splits import samples_of
from semseg.errors import SemsegError
from semseg.images.resizing import scaled_size
from semseg.losses import LOSSES, SegmentationLoss
from semseg.runs.config import RunConfig
from semseg.segmentation_model import BATCH_NORM_MOMENTUM
from semseg.training.network import Network, choose_network
from semseg.training.recipe import AVERAGED_SHARE, Recipe
from semseg.training.view import View, choose_view
from semseg.training.weighting import idle_class_weights, make_class_weights

MIN_STEPS = {4: 300, 2: 200, 1: 0}  # by batch size: a shorter run learns more from smaller batches
LEAST_FOR_ENCODER = 2  # photos of a batch: a step of one costs an encoder nearly as much
LONG_RUN = 30  # epochs from which photos are also turned and recoloured; sooner, none is known by heart
FEW_PHOTOS = 200  # below, they are turned, zoomed and recoloured more, in runs of any length
STRONG_CHANGES = {"rotation": 3.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.4, "scale": (0.8, 1.25)}
FLIPS_ALONE = {"rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
_DEFAULT, _ASKED = "the default", "as asked"


@dataclass(frozen=True)
class Decision:
    """One thing that was decided.

    Args:
        value: A plain value, as it is saved.
        text: The value in words.
        reason: Why.
    """

    value: Any
    text: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Args:
        config: The run with network, view, batch size, precision, compilation and final split decided.
        batch_size: Photos, or crops of them, per step.
        view: How the network sees photos.
        class_names: Of the K classes.
        augmentation: Of the training photos.
        recipe: How the run learns.
        class_shares: Share of each class among the counted training pixels, `(K,)`; None before they were counted.
        class_weights: Weight of each class in the loss, `(K,)`; None where all weigh the same.
        sample_weights: How often each training photo is drawn, `(samples,)`; None for each once per epoch.
        centres: Of each training photo, where it shows rare classes, if crops are drawn around them; else None.
        sections: All decisions by section and name, in the order in which they are printed.
    """

    config: RunConfig
    batch_size: int
    view: View
    class_names: tuple[str, ...]
    augmentation: Augmentation
    recipe: Recipe
    class_shares: np.ndarray | None
    class_weights: np.ndarray | None
    sample_weights: np.ndarray | None
    centres: list[list[np.ndarray]] | None
    sections: Mapping[str, Mapping[str, Decision]]

    def require_findings(self) -> None:
        """Refuses a plan that was made before the files were looked at, where what was asked for depends on them."""
        depends = {"class_weights": self.config.class_weights != "none", "sample_rare": self.config.sample_rare}
        for name, asked in depends.items():
            if asked and self.class_shares is None:
                raise SemsegError(f"`{name}`: needs the findings of check_dataset, to know which classes are rare")

    def grown_to(self, epochs: int) -> "Plan":
        """The same decisions for another number of epochs: only the learning rate falls over other steps."""
        per_epoch = self.recipe.steps // self.config.epochs
        return replace(
            self,
            config=replace(self.config, epochs=epochs),
            recipe=replace(self.recipe, steps=epochs * per_epoch),
        )

    def loss(self) -> SegmentationLoss:
        """The loss that the run minimises."""
        return SegmentationLoss(self.config.loss, self.class_weights, self.config.label_smoothing)

    def to_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Value, words and reason of every decision as plain values, to be saved."""
        return {
            section: {name: asdict(decision) for name, decision in decisions.items()}
            for section, decisions in self.sections.items()
        }

    def lines(self) -> Iterator[tuple[str, str, str, str]]:
        """Section, name, value in words and reason of every decision, for people."""
        for section, decisions in self.sections.items():
            for name, one in decisions.items():
                yield section, name.replace("_", " "), one.text, one.reason


def plan_run(config: RunConfig, dataset: Dataset, findings: Findings | None = None) -> Plan:
    """Decides everything that a run leaves open, and refuses what does not fit the data.

    Args:
        config: What was asked for.
        dataset: From `open_data`.
        findings: From `check_dataset`. None for a plan before the files were looked at: augmentation is then that of
            street scenes, and nothing is known of the classes' shares.

    Returns:
        The plan; nothing downstream decides again.

    Raises:
        SemsegError: A loss that does not fit the number of classes, senseless weights or augmentation, no such split,
            or more batches for a step than there are.
    """
    _check_loss(config, dataset)
    split, split_reason = _final_split(config, dataset)
    view = choose_view(config, dataset, on_gpu())
    config = view.decided(config)
    network = choose_network(config, dataset, view)
    config = network.decided(config)
    photos = _samples_of_epoch(dataset, view)
    batch_size, batch_reason = _batch_size(config, photos)
    precision, precision_note = usable_precision(config.precision)
    compiled, compile_reason = _compile(config)
    decided = replace(config, batch_size=batch_size, test_split=split, precision=precision, compile=compiled)
    steps_per_epoch = -(-photos // batch_size)
    _check_accumulation(decided, steps_per_epoch)
    _check_processes(decided, batch_size)
    augmentation, augmentation_reason = _augmentation(config, dataset, findings)
    recipe = Recipe.suited(decided, steps_per_epoch)
    weights, sample_weights = _weights(config, dataset, view, findings)
    sections = {
        "data": {"final_split": Decision(split, split, split_reason)},
        "network": {"network": _network(network)},
        "view": {**_view(view, dataset.palette.names, findings), **_bands_decision(dataset)},
        "batches": {
            "batch_size": Decision(batch_size, str(batch_size), batch_reason),
            "steps": _steps(decided, recipe, photos, view),
            "sampling": _sampling(config, view),
        },
        "augment": {"changes": Decision(asdict(augmentation), str(augmentation), augmentation_reason)},
        "loss": _loss_decisions(config, dataset, findings, weights),
        "recipe": _recipe_decisions(config, recipe, findings),
        "speed": _speed_decisions(decided, precision_note or _default_or_asked(config, "precision"), compile_reason),
    }
    return Plan(
        config=decided,
        batch_size=batch_size,
        view=view,
        class_names=tuple(dataset.palette.names),
        augmentation=augmentation,
        recipe=recipe,
        class_shares=None if findings is None else findings.shares("train"),
        class_weights=weights,
        sample_weights=sample_weights,
        centres=findings.centres("train") if config.sample_rare and view.scale and findings else None,
        sections=sections,
    )


def _default_or_asked(config: RunConfig, name: str) -> str:
    return _DEFAULT if getattr(config, name) == getattr(RunConfig, name) else _ASKED


# ------------------------------------------------------------------------------------------------- data and view


def _final_split(config: RunConfig, dataset: Dataset) -> tuple[str, str]:
    """The split that gives the final scores: what is asked for, else one that chose nothing, else `"val"`."""
    split = config.test_split or ("test" if "test" in dataset.splits else "val")
    samples_of(dataset, split)
    if config.test_split:
        return split, _ASKED
    if split == "test":
        return split, "held out; val chooses the best epoch"
    return split, "there is no test split; val also chooses the best epoch, which makes its scores a little too good"


def _network(network: Network) -> Decision:
    return Decision(network.settings, network.text, network.reason)


def _view(view: View, names: Sequence[str], findings: Findings | None) -> dict[str, Decision]:
    """What the network sees, and what that makes of the photos."""
    height, width = view.image_size
    reason, crop_reason = view.reason, "context for the network at a bounded cost"
    if findings is not None and findings.sizes:
        photo = next(iter(findings.sizes))
        seen = view.image_size if view.scale is None else scaled_size(photo, view.scale)
        reason += f"; {_scale_words(photo, seen)}"
        crop_reason = _crop_words(seen, view.image_size) or crop_reason
        if not view.names_width:
            reason += _thinness_words(names, findings)
    text = f"{width}x{height} pixels"
    if view.scale is None:
        return {"image_size": Decision([height, width], text, reason)}
    of_size = "the photos' own size" if view.scale == 1 else f"{view.scale:.3g} of the photos' size"
    return {
        "crops": Decision(view.scale, f"at {of_size}", reason),
        "image_size": Decision([height, width], f"{text} of a crop", crop_reason),
    }


def _crop_words(seen: tuple[int, int], crop: tuple[int, int]) -> str:
    """What a crop shows beside smaller photos; empty where they fill it, up to the next multiple of 32."""
    height, width = (min(side, -(-photo // 32) * 32) for photo, side in zip(seen, crop, strict=True))
    if (height, width) == crop:
        return ""
    photo = f"{seen[1]}x{seen[0]}"
    return f"larger than photos of {photo}: mirror images around them count nowhere, {width}x{height} is enough"


def _samples_of_epoch(dataset: Dataset, view: View) -> int:
    """Photos of an epoch, or crops; an estimate before the check, which tells all photos' sizes."""
    samples = dataset.splits["train"]
    if view.scale is None:
        return len(samples)
    usual = dataset.survey.size if dataset.survey else (1, 1)
    sizes = [scaled_size(dataset.sizes.get(sample, usual), view.scale) for sample in samples]
    one_pass = int(crops_per_photo(sizes, view.image_size).sum())
    return one_pass if view.most_crops is None else crops_of_epoch(one_pass, view.most_crops)


def _bands_decision(dataset: Dataset) -> dict[str, Decision]:
    """The bands and what the network makes of them; nothing for 8-bit RGB."""
    bands = dataset.bands
    if bands.are_rgb:
        return {}
    reason = "percentiles of the training photos, which clouds and dead pixels do not move; nothing is cut off"
    return {"bands": Decision(bands.to_dict(), f"{bands}, their 1st to 99th percentile to -1 to 1", reason)}


def _scale_words(photo: tuple[int, int], seen: tuple[int, int]) -> str:
    """What resizing does to photos of the most frequent size."""
    down, across = photo[0] / seen[0], photo[1] / seen[1]
    name = f"photos of {photo[1]}x{photo[0]}"
    if down == across == 1:
        return f"{name} are seen as they are"
    if max(down, across) <= 1:
        return f"{name} are enlarged"
    if abs(down / across - 1) < 0.02:
        words = f"{name} are shrunk {across:.3g} times"
    else:
        words = f"{name} are shrunk {across:.3g} times across and {down:.3g} times down, so shapes are squeezed"
    return words


def _thinness_words(names: Sequence[str], findings: Findings) -> str:
    """Which classes become too thin for the network; nothing where that was not measured."""
    if not findings.class_widths:
        return ""
    torn = [
        f"{name} ({width.width:.2g} pixels wide, {width.seen_width:.2g} there)"
        for name, width in zip(names, findings.class_widths, strict=True)
        if width.is_torn
    ]
    if torn:
        return f"; torn or lost: {', '.join(torn)}; a larger `image_size` keeps what is thin"
    return "; no class becomes too thin for that"


# -------------------------------------------------------------------------------------------------------- batches


def _batch_size(config: RunConfig, photos: int) -> tuple[int, str]:
    """Samples per step for a run on so many training photos, at least one for each process or device."""
    if config.batch_size:
        return config.batch_size, _ASKED
    size, reason = _batch_size_of_one(config, photos)
    if size < here().parts:
        return here().parts, f"a photo for each of the {here().in_words[0]}; one alone would take batches of {size}"
    return size, reason


def _batch_size_of_one(config: RunConfig, photos: int) -> tuple[int, str]:
    """What a run takes that has one process and one device."""
    usual = max(MIN_STEPS)
    steps = {size: config.epochs * -(-photos // size) for size in MIN_STEPS}
    size = next(size for size, least in MIN_STEPS.items() if steps[size] >= least)
    if config.encoder_is_learnt and size < LEAST_FOR_ENCODER:
        return LEAST_FOR_ENCODER, "few steps ask for small batches, and one photo costs an encoder as much as two"
    if size == usual:
        return size, f"{_DEFAULT}; runs of fewer than {MIN_STEPS[usual]} steps take smaller batches"
    return size, f"batches of {usual} would give only {steps[usual]} steps, and short runs learn more from more steps"


def _steps(config: RunConfig, recipe: Recipe, photos: int, view: View) -> Decision:
    what = "photos" if view.scale is None else "crops"
    text = f"{recipe.steps} in {config.epochs} epoch{'s' * (config.epochs > 1)} of {photos} {what}"
    if config.accumulate > 1:
        return Decision(recipe.steps, text, f"the gradients of {config.accumulate} batches make one change, as asked")
    return Decision(recipe.steps, text, _default_or_asked(config, "epochs"))


def _check_accumulation(config: RunConfig, steps_per_epoch: int) -> None:
    count = config.epochs * steps_per_epoch
    if config.accumulate > count:
        raise SemsegError(
            f"`accumulate`: got {config.accumulate}, and the run has {count} batches in all; expected at most as many, "
            "or nothing would be learned"
        )


def _check_processes(config: RunConfig, batch_size: int) -> None:
    """Refuses what several processes or devices cannot do as one does."""
    several, one = here().in_words
    if here().parts > batch_size:
        raise SemsegError(f"`batch_size`: got {batch_size} for {several}; expected at least as many photos, or fewer "
                          f"{several.split()[-1]}")  # fmt: skip
    not_done = {"minutes": config.minutes and here().parts > 1, "average": config.average and here().count > 1}
    for name in (name for name, asked in not_done.items() if asked):
        raise SemsegError(f"`{name}`: cannot be done by {several}; leave it out, or use {one}")
    if not here().sees_all and "lovasz" in SegmentationLoss(config.loss).names.split("+"):
        raise SemsegError(
            f"`loss`: got {config.loss} for {here().count} processes; lovasz sorts the pixels of a whole batch: use "
            "dice, iou or tversky, or one process"
        )


def _sampling(config: RunConfig, view: View) -> Decision:
    if config.sample_rare and view.scale is not None:
        text = f"photos with rare classes are drawn more often, and {CENTRED:.0%} of the crops around pixels of these"
        return Decision("rare classes more often", text, _ASKED)
    if config.sample_rare:
        return Decision("rare classes more often", "photos with rare classes are drawn more often", _ASKED)
    if view.scale is not None:
        return Decision("by area", "each photo as often as makes a pass over its area, cut anew each time", _DEFAULT)
    return Decision("each once", "each photo once per epoch, in a new order", _DEFAULT)


# --------------------------------------------------------------------------------------------------- augmentation


def _augmentation(config: RunConfig, dataset: Dataset, findings: Findings | None) -> tuple[Augmentation, str]:
    """What suits data and run, with the changes that were asked for."""
    suited, reasons = _suited_to_data(config, findings)
    exchanges = {} if findings is None else find_exchanges(findings.poses("train"))
    suited, kept = _keeping_meaning(suited, exchanges, dataset.palette.names)
    changes, strength = _strength(config.epochs, len(dataset.splits["train"]))
    if not dataset.bands.are_rgb:
        changes = {**changes, "saturation": 0.0, "hue": 0.0}
    suited = replace(suited, **changes)
    if not config.augment:
        return suited, "; ".join(part for part in (*reasons, *kept, strength) if part)
    asked = _asked_changes(config.augment, suited, dataset.bands.are_rgb)
    exchanged = words_of_exchanges(exchanges, asked.moves(), dataset.palette.names)
    doubts = [f"but {exchanged}, and cannot be learnt so"] if exchanged else kept
    rest = [] if config.augment.strip() == "none" else ["what was not named suits the data", *doubts]
    return asked, "; ".join([f"{_ASKED} ({config.augment})", *rest])


def _asked_changes(text: str, suited: Augmentation, are_rgb: bool) -> Augmentation:
    asked = parse_augmentation(text, suited)
    if not are_rgb and (asked.saturation or asked.hue):
        raise SemsegError("`augment`: saturation and hue are for 8-bit RGB photos; leave them out for other bands")
    return asked


def _suited_to_data(config: RunConfig, findings: Findings | None) -> tuple[Augmentation, list[str]]:
    """Flips and turns, by whether the masks show an up and a down; quarter turns need a square to turn in."""
    if findings is None:
        return Augmentation(), []
    tops = findings.tops("train")
    suited = suited_augmentation(tops, findings.counts("train")[:, :-1] - tops)
    if not suited.vertical_flip:
        return suited, ["the masks do not show that up and down are alike, so nothing is turned upside down"]
    reasons = ["the masks show no up and down"]
    if config.seen_size[0] != config.seen_size[1]:
        return replace(suited, quarter_turns=False), [
            *reasons,
            "no quarter turns, as what the network sees is no square",
        ]
    return suited, reasons


def _keeping_meaning(
    suited: Augmentation, exchanges: Mapping[Move, Sequence[tuple[int, int]]], names: Sequence[str]
) -> tuple[Augmentation, list[str]]:
    """Without the flips and turns that make one class look like another one."""
    exchanged = words_of_exchanges(exchanges, suited.moves(), names)
    if not exchanged:
        return suited, []
    return suited.without({move for move, pairs in exchanges.items() if pairs}), [f"{exchanged}, so no photo is"]


def _strength(epochs: int, photos: int) -> tuple[dict[str, Any], str]:
    """What a run of so many epochs on so many photos changes of the default augmentation."""
    if photos < FEW_PHOTOS:
        return STRONG_CHANGES, f"turned, zoomed and recoloured as there are fewer than {FEW_PHOTOS} photos to learn"
    if epochs < LONG_RUN:
        return FLIPS_ALONE, f"neither turned nor recoloured in runs below {LONG_RUN} epochs, which learn less with it"
    return {}, f"turned and recoloured a little in runs of {LONG_RUN} epochs or more, which know their photos by heart"


# ----------------------------------------------------------------------------------------------- loss and weights


def _check_loss(config: RunConfig, dataset: Dataset) -> None:
    loss = SegmentationLoss(config.loss, label_smoothing=config.label_smoothing)
    if "binary_cross_entropy" in loss.names.split("+") and dataset.task != "binary":
        fitting = ", ".join(name for name in LOSSES if name != "binary_cross_entropy")
        raise SemsegError(
            f"`loss`: binary_cross_entropy is for 2 classes, and these data have {dataset.palette.num_classes}; "
            f"use one of {fitting}"
        )


def _weights(
    config: RunConfig, dataset: Dataset, view: View, findings: Findings | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Of the classes in the loss, and of the photos when they are drawn."""
    if findings is None:
        return None, None
    class_weights = make_class_weights(config.class_weights, findings, dataset.palette.names)
    SegmentationLoss(config.loss, class_weights, config.label_smoothing)  # refuses weights that it has no use for
    if not config.sample_rare:
        return class_weights, None
    weights = rare_class_weights(findings.counts("train")[:, :-1])
    return class_weights, None if view.scale is not None and np.ptp(weights) == 0 else weights


def _loss_decisions(
    config: RunConfig, dataset: Dataset, findings: Findings | None, weights: np.ndarray | None
) -> dict[str, Decision]:
    smoothing = f", smoothed by {config.label_smoothing:g}" if config.label_smoothing else ""
    decisions = {"loss": Decision(config.loss, config.loss + smoothing, _default_or_asked(config, "loss"))}
    if weights is None:
        text = "all classes weigh the same" if config.class_weights == "none" else "not known before the files are"
        decisions["class_weights"] = Decision(config.class_weights, text, _default_or_asked(config, "class_weights"))
        return decisions
    ranked = sorted(zip(dataset.palette.names, weights.tolist(), strict=True), key=lambda entry: -entry[1])
    text = ", ".join(f"{name} {weight:.3g}" for name, weight in ranked)
    reason = f"{_ASKED} ({config.class_weights})"
    if findings is not None and (idle := idle_class_weights(config.class_weights, findings, dataset.palette.names)):
        reason += f"; no training photo holds {', '.join(idle)}: the weight is idle"
    decisions["class_weights"] = Decision([round(float(weight), 6) for weight in weights], text, reason)
    return decisions


# ------------------------------------------------------------------------------------------------ recipe and speed


def _recipe_decisions(config: RunConfig, recipe: Recipe, findings: Findings | None) -> dict[str, Decision]:
    rate, decay, momentum = recipe.learning_rate, recipe.weight_decay, recipe.batch_norm_momentum
    usual = momentum == BATCH_NORM_MOMENTUM
    forgets = _DEFAULT if usual else "few steps per epoch: the averages must forget where they began within one"
    decisions = {
        "optimizer": Decision("muon", "Muon", "steps of equal length in every direction; beats AdamW in equal time"),
        "learning_rate": Decision(
            rate, f"{rate:g}, falling along a cosine", _default_or_asked(config, "learning_rate")
        ),
        "weight_decay": Decision(decay, f"{decay:g} of the kernels", _DEFAULT),
        "batch_norm_momentum": Decision(momentum, f"{momentum:.2f}", forgets),
    }
    if config.encoder_is_learnt and config.freeze != "encoder":
        decisions |= _encoder_decisions(recipe)
    if config.early_stop:
        text = f"after {config.early_stop} epochs without a better validation"
        decisions["early_stop"] = Decision(config.early_stop, text, _ASKED)
    if config.average:
        reason = f"{_ASKED}; they are kept if they are better on validation than those of any epoch"
        decisions["averaged_weights"] = Decision(True, f"over about the last {AVERAGED_SHARE:.0%} of the steps", reason)
    if findings is not None:
        decisions["first_bias"] = Decision(
            "class shares", "the classes' shares", "so that the first steps need not learn which classes are frequent"
        )
    return decisions


def _encoder_decisions(recipe: Recipe) -> dict[str, Decision]:
    """How an encoder that has learnt before is kept from forgetting it."""
    rate = recipe.encoder_rate
    return {
        "encoder_rate": Decision(rate, f"{rate:g} of the learning rate", "what its weights have learnt is to last"),
        "encoder_norms": Decision(
            "fixed",
            "averages, scale and shift as they were learnt",
            "in small batches, trained ones may fail validation",
        ),
    }


def _compile(config: RunConfig) -> tuple[bool, str]:
    """Whether the network is compiled: PyTorch's compiler falls apart at each piece that is computed twice."""
    if keras_compiles(False):
        return config.compile, "JAX always compiles"
    if config.compile and here().devices > 1:
        return False, "compiling does not go with several devices on TensorFlow"
    if config.compile and config.remat and not keras_compiles(True):
        return False, "compiling does not go with `remat` on PyTorch"
    return config.compile, _default_or_asked(config, "compile")


def _speed_decisions(config: RunConfig, precision_reason: str, compile_reason: str) -> dict[str, Decision]:
    compiled = config.compile or keras_compiles(False)
    return {
        "device": Decision(device_name(), device_name(), f"what {config.backend} finds"),
        **_processes_decision(config.batch_size or 1),
        "precision": Decision(config.precision, config.precision, precision_reason),
        "compile": Decision(compiled, "yes" if compiled else "no", compile_reason),
        "remat": Decision(config.remat, "yes" if config.remat else "no", _default_or_asked(config, "remat")),
    }


def _processes_decision(batch_size: int) -> dict[str, Decision]:
    """Of processes and devices, where there are several."""
    count, devices, decisions = here().count, here().devices, {}
    least, more = divmod(batch_size, here().parts)
    each = f"{least} or {least + 1}" if more else str(least)
    seen = f"; each sees {each} of the {batch_size} photos of a step"
    if count > 1:
        how = "as they were started" if here().engine == "JAX" else "as torchrun started them"
        decisions["processes"] = Decision(count, f"{here()}{seen if devices == 1 else ''}", how)
    if devices > 1:
        text = f"{devices}{' in each process' if count > 1 else ''}{seen}"
        decisions["devices"] = Decision(devices, text, _ASKED)
    return decisions
