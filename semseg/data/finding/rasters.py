"""Label rasters that each cover several georeferenced photos, as maps come: `tiles/*.tif` and `labels.tif`."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from semseg.data.base import Found, Sample
from semseg.data.finding.contents import Contents
from semseg.data.finding.families import Family
from semseg.data.finding.folder import groups_by_name, root_of
from semseg.data.finding.names import MASK, Item, place_of, role_of
from semseg.errors import DataError
from semseg.images.georeference import Georeference, georeference_of_tags

_MIN_TILES = 2  # that a label raster covers


def find_rasters(contents: Contents, masks: str | None = None) -> Found | None:
    """Looks for GeoTIFF photos that lie within GeoTIFF masks of larger areas.

    Args:
        contents: Of the data set's folder.
        masks: The folder of the rasters, or a pattern of their paths, where the user says it.

    Returns:
        A sample for each photo whose middle a raster covers; None if there are no such rasters.

    Raises:
        DataError: Several rasters cover one photo.
        SemsegError: Nothing is where the user says.
    """
    found = {path: georeference_of_tags(path) for path in contents.pictures}
    places = {path: place for path, place in found.items() if place and _area(place)}
    given = set(contents.select(masks, "masks")) if masks else set()
    larger = given & places.keys() | _larger_ones(places)
    rasters = [path for path in places if path in (given or larger)]
    samples: list[Sample] = []
    unpaired: list[Path] = []
    for photo in contents.pictures:
        if photo in larger:
            continue
        covering = [raster for raster in rasters if photo in places and _covers(places[raster], places[photo])]
        if len(covering) > 1:
            named = " and ".join(str(path.relative_to(contents.root)) for path in covering[:2])
            raise DataError(f"{photo}: {named} both cover it; say by `masks` which holds the labels")
        if covering:
            samples.append(Sample(photo, covering[0]))
        else:
            unpaired.append(photo)
    if not samples:
        return None
    folders = {sample.photo: place_of(sample.photo.parent.relative_to(contents.root).parts) for sample in samples}
    splits: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        splits[folders[sample.photo].split or "train"].append(sample)
    if "train" not in splits:
        return None
    names = ", ".join(path.name for path in dict.fromkeys(sample.mask for sample in samples))
    note = f"photos that lie, by their georeference, within the labels of {names}"
    root = root_of(contents.root, folders)
    return Found(root, dict(splits), unpaired=unpaired, group=groups_by_name(folders), notes=[note])


def _larger_ones(places: dict[Path, Georeference]) -> set[Path]:
    """Those that cover several of the others, and are called like labels or look like them."""
    middles = np.array([_middle(place) for place in places.values()]).reshape(-1, 3)
    areas = np.array([_area(place) for place in places.values()])
    systems = np.array([place.system for place in places.values()])
    larger = set()
    for path, place in places.items():
        smaller = (areas < _area(place)) & (systems == place.system)
        if np.count_nonzero(_contains(place, middles[smaller])) >= _MIN_TILES and _are_labels(path):
            larger.add(path)
    return larger


def _are_labels(path: Path) -> bool:
    if MASK in (role_of(path.stem), role_of(path.parent.name)):
        return True
    appearance = Family(path.name, [Item(path, place_of(()), path.stem)], None, second_choice=False).appearance
    return bool(appearance and appearance.few_colors)


def _covers(raster: Georeference, photo: Georeference) -> bool:
    """Whether the middle of a photo lies within a larger raster of the same coordinate system."""
    is_larger = raster.system == photo.system and _area(raster) > _area(photo)
    return is_larger and bool(_contains(raster, _middle(photo)[None])[0])


def _middle(place: Georeference) -> np.ndarray:
    height, width = place.size or (0, 0)
    return place.matrix() @ (width / 2, height / 2, 1)


def _contains(raster: Georeference, points: np.ndarray) -> np.ndarray:
    """Whether points `(N, 3)` of (x, y, 1) lie within a raster, bool `(N,)`."""
    height, width = raster.size or (0, 0)
    column, row, _ = np.linalg.inv(raster.matrix()) @ points.T
    return (column >= 0) & (column < width) & (row >= 0) & (row < height)


def _area(place: Georeference) -> float:
    height, width = place.size or (0, 0)
    return abs(float(np.linalg.det(place.matrix()))) * height * width
