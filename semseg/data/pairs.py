"""Photo and colour mask side by side in one picture, as Kaggle's "Cityscapes image pairs" comes."""

from pathlib import Path

from PIL import Image

from semseg.data.base import SPLITS, Found, Sample, list_images, subfolder


def find_pairs(folder: Path) -> Found | None:
    """`train/` (and `val/`, `test/`) with one picture per pair, or the pairs themselves; None if it is not so."""
    splits = {}
    for split, names in SPLITS.items():
        inside = subfolder(folder, names)
        splits[split] = _samples(inside) if inside else []
    splits["train"] = splits["train"] or _samples(folder, below=False)
    splits = {split: samples for split, samples in splits.items() if samples}
    return Found(folder, splits) if "train" in splits and _look_like_pairs(splits["train"]) else None


def _samples(folder: Path, below: bool = True) -> list[Sample]:
    return [Sample(path, path) for path in list_images(folder) if below or path.parent == folder]


def _look_like_pairs(samples: list[Sample]) -> bool:
    """Whether there is a picture at least as wide as high among the first: a photo alone often is, but never higher."""
    for sample in samples[:10]:
        try:
            with Image.open(sample.photo) as image:
                if image.width >= image.height:
                    return True
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue
    return False
