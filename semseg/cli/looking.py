"""What the commands that open data have in common: open them, look at every file, and say what was found."""

import numpy as np

from semseg.cli.console import Progress, percent, say_about, size_text
from semseg.data.base import Dataset
from semseg.data.cache import Cache
from semseg.data.check import Findings
from semseg.data.opening import check_data
from semseg.runs.config import RunConfig

_FOUND_HOW = {
    "exact": "the colours that the masks hold",
    "values": "the numbers that the masks hold",
    "k-means": "colours found by k-means",
    "file": "as the file says",
    "outlines": "as the outlines are called",
    "binary": "black and white",
    "camvid": "CamVid's",
    "cityscapes": "official Cityscapes labels",
    "voc": "Pascal VOC's",
    "ade20k": "ADE20K's",
}
_SIZES_LISTED = 3


def look_at(config: RunConfig, dataset: Dataset) -> tuple[Findings, Cache]:
    """Checks every file, with a bar; refuses nothing yet."""
    with Progress("checking the files") as progress:
        return check_data(config, dataset, progress.show)


def say_what_was_found(dataset: Dataset, findings: Findings) -> None:
    """Prints data, task, classes and split, and what should be known about them."""
    counts = ", ".join(f"{len(samples)} {name}" for name, samples in dataset.splits.items())
    sizes = ", ".join(size_text(size) for size in list(findings.sizes)[:_SIZES_LISTED])
    more = " ..." if len(findings.sizes) > _SIZES_LISTED else ""
    say_about("data", f"{dataset.root}: {counts} photos of {sizes}{more} pixels")
    for note in dataset.notes:
        say_about("", note)
    _say_classes(dataset, findings.shares("train"))
    for split in dataset.splits:
        no_class, unknown = findings.ignored_shares(split)
        if no_class or unknown:
            say_about("", f"ignored in {split}: {percent(no_class)} labelled as no class, {percent(unknown)} in doubt")
    for warning in findings.warnings:
        say_about("note", warning)


def _say_classes(dataset: Dataset, shares: np.ndarray) -> None:
    palette = dataset.palette
    ranked = sorted(zip(shares, palette.names, strict=True), reverse=True)
    present = ", ".join(f"{name} {percent(share)}" for share, name in ranked if share)
    absent = ", ".join(name for share, name in ranked if not share)
    how = _FOUND_HOW[palette.source] + (", blended borders repaired" if palette.blended else "")
    say_about("classes", f"{palette.num_classes}, {dataset.task}, {how}: {present}")
    if absent:
        say_about("", f"not in the training masks: {absent}")
