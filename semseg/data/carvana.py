"""Carvana: photos of cars on a turntable, `train/*.jpg`, with masks `train_masks/*_mask.gif`."""

import re
from pathlib import Path

from semseg.data.base import Found, Sample, subfolder
from semseg.data.folder import pair_up
from semseg.images.reading import list_images

_NAME = re.compile(r"(?P<car>.+)_\d\d(_mask)?\.(jpg|gif|png)", re.IGNORECASE)


def find_carvana(folder: Path) -> Found | None:
    """Looks for Carvana's layout. A validation split is drawn by car, so that no car is on both sides.

    Args:
        folder: Where `train/` and `train_masks/` may lie.

    Returns:
        The samples; None if the folder is not laid out so.
    """
    photos, masks = subfolder(folder, ("train",)), subfolder(folder, ("train_masks",))
    if photos is None or masks is None or not all(_NAME.fullmatch(path.name) for path in list_images(masks)):
        return None
    samples, problems = pair_up(photos, masks)
    if not samples:
        return None
    return Found(folder, {"train": samples}, class_names=("background", "car"), problems=problems, group=_car)


def _car(sample: Sample) -> str:
    return _NAME.fullmatch(sample.mask.name)["car"]
