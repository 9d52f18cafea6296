"""How a network sees photos: whole, or crops of them at a scale; decided by a few of the masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semseg.data.survey import Survey
from semseg.runs.config import USUAL_SIZE, RunConfig

CROP = 256  # pixels of a crop's side
KEPT = 2.5  # pixels that the thinnest class should keep
PIXELS_OF_EPOCH = {"cpu": 10_000_000, "gpu": 300_000_000}  # that an epoch shows, about: minutes for ten epochs
_STEP = 32  # networks take sides that are multiples of it
_WHOLE = 1.5  # crops' areas up to which a photo is seen whole


@dataclass(frozen=True)
class View:
    """What was decided.

    Args:
        image_size: (height, width) that the network sees.
        scale: Of the photos that crops are cut from; None where they are seen whole.
        most_crops: In an epoch; None for all, or where photos are seen whole.
        reason: Why.
    """

    image_size: tuple[int, int]
    scale: float | None
    most_crops: int | None
    reason: str

    def decided(self, config: RunConfig) -> RunConfig:
        """A run with this view."""
        view = "whole" if self.scale is None else "crops"
        return replace(config, image_size=self.image_size, view=view, scale=self.scale)


def choose_view(config: RunConfig, survey: Survey | None, names: Sequence[str], on_gpu: bool) -> View:
    """Decides what the run leaves open.

    Args:
        config: What was asked for.
        survey: From `survey_of`; None where no sample could be read.
        names: Of the classes.
        on_gpu: Whether a GPU computes.
    """
    most_pixels = PIXELS_OF_EPOCH["gpu" if on_gpu else "cpu"]
    if config.view == "crops" or config.scale is not None:
        return _asked_crops(config, survey, names, most_pixels)
    if config.view == "whole" or config.image_size is not None or survey is None:
        size = config.seen_size
        return View(size, None, None, "as asked" if config.image_size or config.view else "the default")
    return _suited(survey, names, most_pixels)


def _asked_crops(config: RunConfig, survey: Survey | None, names: Sequence[str], most_pixels: int) -> View:
    size = config.image_size or (CROP, CROP)
    if config.scale is not None or survey is None:
        scale, reason = config.scale or 1.0, "as asked"
    else:
        scale, reason = _scale_for_thin(survey), f"crops as asked; {_thin_words(survey, names)}"
    return View(size, scale, _most_crops(size, most_pixels, survey), reason)


def _suited(survey: Survey, names: Sequence[str], most_pixels: int) -> View:
    usual = min(new / old for new, old in zip(USUAL_SIZE, survey.size, strict=True))
    thinnest = survey.thinnest
    if thinnest is None or usual * survey.widths[thinnest] >= KEPT or usual >= 1:
        return View(USUAL_SIZE, None, None, "the default; no class becomes too thin for that")
    scale = _scale_for_thin(survey)
    seen = scale * survey.size[0], scale * survey.size[1]
    whole = f"{USUAL_SIZE[1]}x{USUAL_SIZE[0]}"
    lost = f"{_thin_words(survey, names)}; at {whole} whole it would be {usual * survey.widths[thinnest]:.2g}"
    if math.prod(seen) <= _WHOLE * CROP**2:
        size = _multiple(seen[0]), _multiple(seen[1])
        return View(size, None, None, lost)
    return View((CROP, CROP), scale, _most_crops((CROP, CROP), most_pixels, survey), lost)


def _scale_for_thin(survey: Survey) -> float:
    """At which the thinnest class keeps its pixels: 1, or one of whole numbers, as nothing is gained by enlarging."""
    thinnest = survey.thinnest
    if thinnest is None:
        return 1.0
    return 1 / max(1, math.floor(survey.widths[thinnest] / KEPT))


def _most_crops(size: tuple[int, int], most_pixels: int, survey: Survey | None) -> int:
    return max(1, round(most_pixels / math.prod(size)))


def _thin_words(survey: Survey, names: Sequence[str]) -> str:
    thinnest = survey.thinnest
    return f"{names[thinnest]} is {survey.widths[thinnest]:.2g} pixels wide" if thinnest is not None else ""


def _multiple(side: float) -> int:
    return max(_STEP, _STEP * round(side / _STEP))
