"""Masks as PNG files of ids, with a table of their names: what most programs read."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from semseg import IGNORE
from semseg.labels.palettes import distinct_color


def write(folder: Path, split: str, masks: Iterable[tuple[str, np.ndarray]], classes: Mapping[int, str]) -> None:
    """Writes the masks of a split into `masks/SPLIT/`, and `_classes.csv`.

    Args:
        folder: Where to; the photos lie in `images/SPLIT/`.
        split: Its name.
        masks: The name of each photo and its mask, uint8 `(H, W)`: ids, and 255 for what counts nowhere.
        classes: Names of all ids.
    """
    place = folder / "masks" / split
    place.mkdir(parents=True)
    colors = [distinct_color(i) for i in range(IGNORE)] + [(0, 0, 0)]
    for name, ids in masks:
        image = Image.fromarray(ids)
        image.putpalette([level for color in colors for level in color])  # the ids stay as they are
        image.save(place / Path(name).with_suffix(".png"))
    with (folder / "_classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Pixel Value", "Class"])
        writer.writerows(classes.items())
