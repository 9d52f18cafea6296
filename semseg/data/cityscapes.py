"""Original Cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_*.png`."""

from pathlib import Path

from semseg.data.base import SPLITS, Found, Sample, subfolder
from semseg.images.reading import list_images
from semseg.labels.palettes import cityscapes_palette

_HELD = {"labelTrainIds": "train_id", "labelIds": "id", "color": "color"}  # the first that is there is used


def find_cityscapes(folder: Path) -> Found | None:
    """None if it is not so. The labels of its test part are withheld, so that this part is left out."""
    photos, truth = subfolder(folder, ("leftImg8bit",)), subfolder(folder, ("gtFine", "gtCoarse"))
    if photos is None or truth is None:
        return None
    kind = next((kind for kind in _HELD if next(truth.glob(f"*/*/*_{kind}.png"), None)), None)
    if kind is None:
        return None
    splits, problems = {}, []
    for split in ("train", "val"):
        inside = subfolder(photos, SPLITS[split])
        found = [_sample(path, truth, kind) for path in list_images(inside)] if inside else []
        splits[split] = [sample for sample in found if sample.mask.exists()]
        problems += [f"{sample.photo}: has no mask {sample.mask.name}" for sample in found if not sample.mask.exists()]
    splits = {split: samples for split, samples in splits.items() if samples}
    if "train" not in splits:
        return None
    return Found(folder, splits, cityscapes_palette(held=_HELD[kind]), problems=problems)


def _sample(photo: Path, truth: Path, kind: str) -> Sample:
    stem = photo.stem.removesuffix("_leftImg8bit")
    return Sample(photo, truth / photo.parent.parent.name / photo.parent.name / f"{stem}_{truth.name}_{kind}.png")
