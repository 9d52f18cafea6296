"""What the compared networks cost, and how they segment the same photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from semseg.architectures.cost import count_flops, count_parameters, time_per_image
from semseg.backend.crop_scale import scale_of
from semseg.backend.devices import device_name
from semseg.backend.predictor import predictor
from semseg.comparison.networks import Network
from semseg.data.base import Dataset, spread
from semseg.data.opening import Tell, open_data
from semseg.data.splits import photo_name
from semseg.errors import SemsegError
from semseg.inference.card import open_model
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.runs.run import Run

SHOWN = 6  # photos side by side


def open_models(networks: Sequence[Network], tell: Tell) -> dict[str, keras.Model]:
    """The network of each first run by name, without those that cannot be opened: with layers of one's own, say.

    Args:
        networks: From `group_runs`.
        tell: Called with a topic and a sentence for each that cannot be opened.
    """
    models = {}
    for network in networks:
        try:
            models[network.name] = open_model(network.runs[0].folder)
        except SemsegError as error:
            tell("note", f"{network.name}: its costs are unknown, and it is not in side_by_side.png; {error}")
    return models


def costs_of(networks: Sequence[Network], models: Mapping[str, keras.Model]) -> dict[str, dict[str, float | None]]:
    """Parameters, GFLOPs and milliseconds per photo of each network; of one that is not open, what its run noted."""
    costs = {
        network.name: {"parameters": network.runs[0].facts.get("parameters"), "gflops": None, "milliseconds": None}
        for network in networks
    }
    for (name, model), milliseconds in zip(models.items(), time_per_image(list(models.values())), strict=True):
        flops = count_flops(model)
        costs[name] = {
            "parameters": count_parameters(model),
            "gflops": flops and flops / 1e9,
            "milliseconds": milliseconds,
        }
    return costs


def how_measured(networks: Sequence[Network], models: Mapping[str, keras.Model]) -> list[str]:
    """What the tables do not say of the measurement, a sentence each."""
    metrics = networks[0].runs[0].metrics
    lines = [
        f"Scores: on {metrics['split']} ({metrics.get('note', '')}), with the weights of each run's best epoch.",
        "GFLOPs: of convolutions and dense layers for one photo, a multiply-add counted as two.",
    ]
    if unopened := [network.name for network in networks if network.name not in models]:
        lines.insert(0, f"Without costs, since the model cannot be opened: {', '.join(unopened)}.")
    if models:
        shapes = sorted({model.input_shape[1:3] for model in models.values()})
        sizes = ", ".join(f"{width}x{height}" for height, width in shapes)
        lines.append(
            f"ms: one photo of {sizes} at a time, from uint8 to logits, on {device_name()} with Keras "
            f"{keras.__version__} on {keras.backend.backend()}; median of rounds in which the networks take turns."
        )
    return [
        *lines,
        "MB: the most memory that a training had (the highest of its seeds), on the GPU or, without one, in all.",
        "min: minutes that a training took, mean over the seeds.",
    ]


@dataclass(frozen=True)
class SamePhotos:
    """Photos with their truth and what each network makes of them.

    Args:
        rows: Name, photo uint8 RGB `(H, W, 3)`, true ids `(H, W)`, and predicted ids `(H, W)` by network, of each.
        scores: Mean IoU of each photo by network.
        palette: Names and colours of the classes.
    """

    rows: list[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]]
    scores: list[dict[str, float]]
    palette: Palette


def same_photos(networks: Sequence[Network], models: Mapping[str, keras.Model]) -> SamePhotos:
    """Photos spread evenly over the split, by each network's first seed.

    Raises:
        SemsegError: No model is open, or the data hold none of the photos any more.
    """
    if not models:
        raise SemsegError("compare: no model can be opened")
    first = networks[0].runs[0]
    dataset = open_data(first.config)
    samples = {photo_name(sample, dataset.root): sample for sample in dataset.samples}
    judged = [network.runs[0].image_ious for network in networks]  # first folds may have held out others
    shared = [name for name in sorted(first.image_ious) if name in samples and all(name in ious for ious in judged)]
    chosen = spread(shared, SHOWN)
    if not chosen:
        raise SemsegError(f"{first.config.data}: holds none of the photos that the runs were judged on")
    loaded = [dataset.load(samples[name]) for name in chosen]
    photos = [photo for photo, _ in loaded]
    predictions = {}
    for network in networks:
        if network.name in models:
            segmenter = _segmenter(network.runs[0], models[network.name], dataset)
            predictions[network.name] = [segmenter.ids(photo) for photo in photos]
    rows = [
        (name, photo, truth, {network: ids[i] for network, ids in predictions.items()})
        for i, (name, (photo, truth)) in enumerate(zip(chosen, loaded, strict=True))
    ]
    scores = [{network.name: network.runs[0].image_ious[name] for network in networks} for name in chosen]
    return SamePhotos(rows, scores, dataset.palette)


def _segmenter(run: Run, model: keras.Model, dataset: Dataset) -> Segmenter:
    """The network as sure and deciding as its run chose."""
    segmenter = Segmenter(
        predictor(model), model.input_shape[1:3], dataset.palette, bands=dataset.bands, scale=scale_of(model)
    )
    return segmenter.calibrated(run.calibration_of(run.model_path()))
