"""How a network sees photos: whole, or crops of them at a scale; decided by a few of the masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semseg.data.base import Dataset
from semseg.data.survey import Survey, survey_of
from semseg.runs.config import USUAL_SIZE, RunConfig

KEPT = 2.5  # pixels that the thinnest class should keep
CROP = {False: 256, True: 512}  # pixels of a crop's side, on a CPU and on a GPU
PIXELS_OF_EPOCH = {False: 12e6, True: 300e6}  # that an epoch shows at most, about: ten take minutes
USUAL_MINUTES = 20  # that ten such epochs take, about
_STEP = 32  # networks take sides that are multiples of it
_WHOLE = 1.5  # crops' areas up to which a photo is seen whole


@dataclass(frozen=True)
class View:
    """What was decided.

    Args:
        image_size: (height, width) that the network sees.
        scale: Of the photos that crops are cut from; None where they are seen whole.
        most_crops: In an epoch; None where photos are seen whole.
        reason: Why.
        names_width: Whether the reason tells how thin the thinnest class is, and what becomes of it.
    """

    image_size: tuple[int, int]
    scale: float | None
    most_crops: int | None
    reason: str
    names_width: bool = False

    def decided(self, config: RunConfig) -> RunConfig:
        """A run with this view."""
        view = "whole" if self.scale is None else "crops"
        return replace(config, image_size=self.image_size, view=view, scale=self.scale)


def choose_view(config: RunConfig, dataset: Dataset, on_gpu: bool) -> View:
    """Decides what the run leaves open.

    Where resizing whole photos to the usual size would make a class thinner than 2.5 pixels, photos are seen at the
    smallest scale that keeps it so: whole where they are small, else in crops. That is so where each of ten epochs in
    the time can show them all, and of large photos also where half of the classes would be lost. Otherwise crops see
    too little in the same time: on CamVid's 367 photos (3 of 11 classes lost) mean IoU is .57 after 8 minutes whole and
    .33 in crops, and 20 of them give .19 in crops after 3 minutes, where DRIVE and sections of neurons gain .03 and .2
    over photos at 512 whole.

    Args:
        config: What was asked for.
        dataset: From `open_data`; a few of its samples are looked at, where that matters.
        on_gpu: Whether a GPU computes.
    """
    names = dataset.palette.names
    if config.view == "crops" or config.scale is not None:
        survey = survey_of(dataset)
        size = config.image_size or (CROP[on_gpu], CROP[on_gpu])
        scale = config.scale or (max(_scale_for_thin(survey), _scale_that_fills(size, survey)) if survey else 1.0)
        asked = config.scale is not None or survey is None or survey.thinnest is None
        reason = "as asked" if asked else f"as asked; {_thin_words(survey, names)}"
        return _crops(size, scale, reason, on_gpu, names_width=not asked)
    if config.view == "whole" or config.image_size is not None:
        return View(config.seen_size, None, None, "as asked")
    survey = survey_of(dataset)
    minutes = USUAL_MINUTES if config.minutes is None else config.minutes
    return _suited(survey, names, on_gpu, minutes) if survey else View(USUAL_SIZE, None, None, "the default")


def _suited(survey: Survey, names: Sequence[str], on_gpu: bool, minutes: float) -> View:
    usual = min(1.0, *(new / old for new, old in zip(USUAL_SIZE, survey.size, strict=True)))
    thinnest, text = survey.thinnest, f"{USUAL_SIZE[1]}x{USUAL_SIZE[0]}"
    if thinnest is None or usual * survey.widths[thinnest] >= KEPT or usual == 1:
        return View(USUAL_SIZE, None, None, "the default, as no class becomes too thin for it")
    scale, crop = _scale_for_thin(survey), CROP[on_gpu]
    reason = f"{_thin_words(survey, names)}, and would be {usual * survey.widths[thinnest]:.2g} in {text} whole"
    pixels, most = scale**2 * survey.pixels, PIXELS_OF_EPOCH[on_gpu] * min(1.0, minutes / USUAL_MINUTES)
    is_small, is_short = pixels <= _WHOLE * crop**2, pixels * survey.samples <= most
    if not is_small and (is_short or survey.loses_most(KEPT / usual)):
        return _crops((crop, crop), scale, reason, on_gpu, names_width=True)
    if is_small and is_short:
        size = (_multiple(scale * survey.size[0]), _multiple(scale * survey.size[1]))
        return View(size, None, None, reason, names_width=True)
    way = "a larger `image_size` shows" if is_small else "`view` crops or a larger `image_size` show"
    reason = f"the default for so many photos; {reason}: {way} it"
    return View(USUAL_SIZE, None, None, reason, names_width=True)


def _crops(size: tuple[int, int], scale: float, reason: str, on_gpu: bool, *, names_width: bool) -> View:
    most_crops = max(1, round(PIXELS_OF_EPOCH[on_gpu] / math.prod(size)))
    return View(size, scale, most_crops, reason, names_width)


def _scale_for_thin(survey: Survey) -> float:
    """1 over a whole number, at which the thinnest class keeps its pixels; 1 where it has no more, as enlarged."""
    thinnest = survey.thinnest
    return 1.0 if thinnest is None else 1 / max(1, math.floor(survey.widths[thinnest] / KEPT))


def _scale_that_fills(crop: tuple[int, int], survey: Survey) -> float:
    """1 over a whole number, at which the photos still fill a crop; 1 where they are smaller."""
    return 1 / max(1, min(photo // side for photo, side in zip(survey.size, crop, strict=True)))


def _thin_words(survey: Survey, names: Sequence[str]) -> str:
    return f"{names[survey.thinnest]} is {survey.widths[survey.thinnest]:.2g} pixels wide"


def _multiple(side: float) -> int:
    return max(_STEP, _STEP * round(side / _STEP))
