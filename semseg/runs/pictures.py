"""The photos of an evaluation that a run keeps, small, with truth and prediction, so that a page about the run needs
neither its data nor its model.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semseg import IGNORE
from semseg.errors import RunFolderError
from semseg.files import read_json, replacing
from semseg.labels.palettes import Palette
from semseg.runs import names

SPREAD, WORST, BEST, UNSURE = "spread", "worst", "best", "unsure"
GROUPS = {SPREAD: 8, WORST: 6, BEST: 6, UNSURE: 6}  # how many of each are kept


@dataclass(frozen=True)
class Picture:
    """A photo of the split that was judged, small.

    Attributes:
        name: The photo's path in its data set.
        scores: Of this photo, among them `iou`, `accuracy` and `confidence`; None for what does not exist.
        ranks: Its place, from 1, in each of `GROUPS` that it belongs to.
        photo: uint8 RGB `(H, W, 3)`.
        truth: uint8 ids `(H, W)`, 255 is ignored.
        prediction: uint8 ids `(H, W)`.
    """

    name: str
    scores: dict[str, float | None]
    ranks: dict[str, int]
    photo: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def write_pictures(folder: Path, pictures: Iterable[Picture], palette: Palette) -> None:
    """Writes photos as JPEG and ids as PNG of few kilobytes, in the classes' colours, with a list of them.

    The numbers in the PNG files are the class ids, and 255.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, picture in enumerate(pictures, start=1):
        images = {
            "photo": (Image.fromarray(picture.photo), f"{number:02}-photo.jpg"),
            "truth": (ids_image(picture.truth, palette), f"{number:02}-truth.png"),
            "prediction": (ids_image(picture.prediction, palette), f"{number:02}-prediction.png"),
        }
        for image, name in images.values():
            with replacing(folder / name) as temporary:
                image.save(temporary, **({"quality": 88} if name.endswith(".jpg") else {"optimize": True}))
        scores = {name: None if np.isnan(value) else round(float(value), 6) for name, value in picture.scores.items()}
        files = {kind: name for kind, (_, name) in images.items()}
        entries.append({"photo_name": picture.name, "scores": scores, "ranks": picture.ranks, **files})
    with replacing(folder / names.PICTURES_INDEX) as temporary:
        text = json.dumps(entries, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="replace")


def ids_image(ids: np.ndarray, palette: Palette) -> Image.Image:
    """Ids uint8 `(H, W)` as a picture of numbers that shows the classes' colours, and grey for what is ignored."""
    image = Image.fromarray(ids, "P")
    colors = np.full((256, 3), 205, np.uint8)
    colors[: palette.num_classes] = palette.colors
    colors[IGNORE - 1] = 235  # the other grey of the stripes on ignored areas, see `report.page`
    image.putpalette(colors.tobytes())
    return image


def read_pictures(folder: Path) -> list[Picture]:
    """What `write_pictures` wrote; nothing where there is no list of pictures.

    Raises:
        RunFolderError: A file that the list names is missing or cannot be read.
    """
    if not (folder / names.PICTURES_INDEX).is_file():
        return []
    try:
        entries: Sequence[dict] = read_json(folder / names.PICTURES_INDEX)
        return [
            Picture(
                str(entry["photo_name"]),
                {str(name): None if value is None else float(value) for name, value in entry["scores"].items()},
                {group: int(entry["ranks"][group]) for group in GROUPS if group in entry["ranks"]},
                *(_read(folder / Path(entry[kind]).name, kind) for kind in ("photo", "truth", "prediction")),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{folder}: its pictures cannot be read ({error!r}); remove the folder for a page without them"
        ) from None


def _read(path: Path, kind: str) -> np.ndarray:
    """A photo as RGB, a mask as its ids: the colours of a PNG in palette form are left aside."""
    with Image.open(path) as image:
        if kind != "photo" and image.mode != "P":
            raise ValueError(f"{path.name} holds no class ids")
        return np.asarray(image.convert("RGB") if kind == "photo" else image)
