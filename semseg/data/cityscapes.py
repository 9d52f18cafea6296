"""Original Cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_*.png`."""

from pathlib import Path

from semseg.data.base import SPLITS, Found, Sample, subfolder
from semseg.images.reading import list_images
from semseg.labels.palettes import cityscapes_palette

_KINDS = {"labelTrainIds": "train_id", "labelIds": "id", "color": "color"}  # the first that is there is used


def find_cityscapes(folder: Path) -> Found | None:
    """Looks for the original layout of Cityscapes.

    The labels of its test part are withheld, so that this part is left out.

    Args:
        folder: Where `leftImg8bit/` and `gtFine/` or `gtCoarse/` may lie.

    Returns:
        Samples and palette; None if the folder is not laid out so.
    """
    photos, truth = subfolder(folder, ("leftImg8bit",)), subfolder(folder, ("gtFine", "gtCoarse"))
    if photos is None or truth is None:
        return None
    kind = _first_kind(truth)
    if kind is None:
        return None
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    for split in ("train", "val"):
        inside = subfolder(photos, SPLITS[split])
        for path in list_images(inside) if inside else ():
            sample = _sample(path, truth, kind)
            if sample.mask.exists():
                splits.setdefault(split, []).append(sample)
            else:
                problems.append(f"{sample.photo}: has no mask {sample.mask.name}")
    if "train" not in splits:
        return None
    return Found(folder, splits, cityscapes_palette(held=_KINDS[kind]), problems=problems)


def _first_kind(truth: Path) -> str | None:
    """The first of `_KINDS` of which there is a file; None if there is none."""
    for kind in _KINDS:
        if any(True for _ in truth.glob(f"*/*/*_{kind}.png")):
            return kind
    return None


def _sample(photo: Path, truth: Path, kind: str) -> Sample:
    stem = photo.stem.removesuffix("_leftImg8bit")
    return Sample(photo, truth / photo.parent.parent.name / photo.parent.name / f"{stem}_{truth.name}_{kind}.png")
