"""Original Cityscapes: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and `gtFine/<split>/<city>/*_gtFine_*.png`."""

from pathlib import Path

from semseg.data.base import Found, Sample
from semseg.data.finding.contents import Contents
from semseg.data.finding.names import split_of
from semseg.labels.palettes import cityscapes_palette

_KINDS = {"labelTrainIds": "train_id", "labelIds": "id", "color": "color"}  # the first that is there is used


def find_cityscapes(contents: Contents) -> Found | None:
    """Looks for the original layout of Cityscapes.

    The labels of its test part are withheld, so that this part is left out.

    Args:
        contents: Of the folder in which, at any depth, `leftImg8bit/` and `gtFine/` or `gtCoarse/` may lie.

    Returns:
        Samples and palette; None if the folder is not laid out so.
    """
    photos = [path for path in contents.pictures if _folder_above_city(path) == "leftImg8bit"]
    truth = _truth(contents)
    kind = next((kind for kind in _KINDS if any(path.stem.endswith(f"_{kind}") for path in truth)), None)
    if not photos or kind is None:
        return None
    folder, there = truth[0].parents[2], set(truth)
    splits: dict[str, list[Sample]] = {}
    problems: list[str] = []
    for path in photos:
        sample, split = _sample(path, folder, kind), split_of(path.parents[1].name)
        if sample.mask in there and split in ("train", "val"):
            splits.setdefault(split, []).append(sample)
        elif split in ("train", "val"):
            problems.append(f"{sample.photo}: has no mask {sample.mask.name}")
    if "train" not in splits:
        return None
    root = photos[0].parents[3]
    return Found(root, splits, cityscapes_palette(held=_KINDS[kind]), problems=problems)


def _folder_above_city(path: Path) -> str:
    """The name of the folder that holds the splits: `gtFine` of `gtFine/train/ulm/x.png`."""
    return path.parts[-4] if len(path.parts) > 3 else ""


def _truth(contents: Contents) -> list[Path]:
    """The pictures in `gtFine/`; where there are none, in `gtCoarse/`."""
    by_name: dict[str, list[Path]] = {"gtFine": [], "gtCoarse": []}
    for path in contents.pictures:
        by_name.get(_folder_above_city(path), []).append(path)
    return by_name["gtFine"] or by_name["gtCoarse"]


def _sample(photo: Path, truth: Path, kind: str) -> Sample:
    stem = photo.stem.removesuffix("_leftImg8bit")
    return Sample(photo, truth / photo.parent.parent.name / photo.parent.name / f"{stem}_{truth.name}_{kind}.png")
