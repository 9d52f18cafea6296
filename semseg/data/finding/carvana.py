"""Carvana: photos of cars on a turntable, `train/*.jpg`, with masks `train_masks/*_mask.gif`."""

import re

from semseg.data.base import Found, Sample
from semseg.data.finding.contents import Contents

_MASK_NAME = re.compile(r"(?P<car>[0-9a-f]{12})_\d\d_mask\.(gif|png)", re.IGNORECASE)


def find_carvana(contents: Contents) -> Found | None:
    """Looks for Carvana's layout. A validation split is drawn by car, so that no car is on both sides.

    Args:
        contents: Of the folder in which, at any depth, `train/` and `train_masks/` may lie.

    Returns:
        The samples; None if the folder is not laid out so.
    """
    masks = [path for path in contents.pictures if path.parent.name == "train_masks"]
    if not masks or not all(_MASK_NAME.fullmatch(path.name) for path in masks):
        return None
    folder = masks[0].parent.with_name("train")
    photos = {path.stem: path for path in contents.pictures if path.parent == folder}
    masks_by_name = {path.stem.removesuffix("_mask"): path for path in masks}
    samples = [Sample(photo, masks_by_name[name]) for name, photo in photos.items() if name in masks_by_name]
    problems = [
        f"{path}: has no mask in {masks[0].parent}" for name, path in photos.items() if name not in masks_by_name
    ]
    problems += [f"{path}: has no photo in {folder}" for name, path in masks_by_name.items() if name not in photos]
    if not samples:
        return None
    return Found(folder.parent, {"train": samples}, class_names=("background", "car"), problems=problems, group=_car)


def _car(sample: Sample) -> str:
    return sample.mask.name[:12]
