"""GeoJSON: areas on the ground, and photos that know where they lie; or areas in pixels, as QuPath writes them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import DataError
from semseg.images.georeference import Georeference, read_georeference, to_system
from semseg.images.ground import Ground
from semseg.images.reading import list_images
from semseg.labels.drawings import Shape
from semseg.labels.formats.common import Annotations, as_dict, as_list, as_points, attribute_of_class, get, load_json

_DEGREES = "EPSG:4326"  # longitude and latitude, where a file does not say it
_SYSTEM = re.compile(r"EPSG:+(?:[\d.]*:)?(\d+)")


def read(path: Path, root: Path) -> Annotations | None:
    """Reads the polygons of all photos that they lie on; later ones lie on earlier ones.

    They belong to the photo of the file's own name, or, where there is none, to every photo that they touch. On photos
    that do not know where they lie, coordinates are pixels. The class is what the only property of the areas says, or
    that of several which is called class, label, type, category or name. Points and lines are left out.

    Args:
        path: The file.
        root: Of the data set.

    Returns:
        What it says; None for JSON of another kind.

    Raises:
        DataError: It is cut or damaged, or in another coordinate system than its photos, and rasterio is missing.
    """
    data = load_json(path)
    if not isinstance(data, dict) or data.get("type") != "FeatureCollection":
        return None
    annotations = Annotations(path)
    features = [as_dict(entry, f"{path}: features") for entry in as_list(get(data, "features", str(path)), str(path))]
    properties = [as_dict(entry.get("properties") or {}, f"{path}: properties") for entry in features]
    attribute = attribute_of_class(properties, path)
    areas = [area for i, entry in enumerate(features, start=1) for area in _areas(annotations, entry, attribute, i)]
    system = _system(data)
    for photo in _photos(path, root):
        place = read_georeference(photo)
        shapes = [Shape(label, _in_pixels(rings, system, place, path)) for label, rings in areas]
        if place is not None:
            shapes = [shape for shape in shapes if _touches(shape, place)]
        if shapes or photo.stem == path.stem:
            annotations.add(photo.relative_to(root).as_posix(), shapes, None)
    if areas and not any(drawing.shapes for drawing in annotations.drawings.values()):
        raise DataError(
            f"{path}: none of its areas lies on a photo; expected photos that know where they lie (GeoTIFF, or a world "
            "file beside them), in the coordinate system that the file names"
        )
    return annotations


def write_photo(
    path: Path, areas: Iterable[tuple[Sequence[np.ndarray], Mapping[str, Any]]], ground: Ground | None
) -> None:
    """Writes the areas of one photo, as RFC 7946 has it: longitude and latitude, outer rings anticlockwise.

    Args:
        path: The file.
        areas: The rings of each, float64 `(M, 2)` of (x, y) in pixels, the outer one first; and its properties.
        ground: Where the photo lies; None for coordinates in pixels. Where it does not give longitude and latitude,
            coordinates are the photo's own, and a member `crs` names their system, if it has a number: older than RFC
            7946, and known to QGIS and GDAL.
    """
    system = _SYSTEM.search(ground.system if ground else "")
    crs = {"crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{system[1]}"}}} if system else {}
    head = json.dumps({"type": "FeatureCollection", **({} if ground and ground.system == _DEGREES else crs)})
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{head[:-1]}, "features": [')
        for number, (rings, properties) in enumerate(areas, start=1):
            lines = [_closed(ring if ground is None else ground.on_ground(ring), i > 0) for i, ring in enumerate(rings)]
            feature = {"type": "Feature", "id": number, "properties": dict(properties),
                       "geometry": {"type": "Polygon", "coordinates": lines}}  # fmt: skip
            file.write(f"{',' if number > 1 else ''}\n{json.dumps(feature, ensure_ascii=False)}")
        file.write("\n]}\n")


def _closed(ring: np.ndarray, is_hole: bool) -> list[list[float]]:
    """The ring back to its first point; anticlockwise with y upwards, holes clockwise."""
    x, y = (ring - ring.mean(axis=0)).T
    is_anticlockwise = np.dot(x, np.roll(y, -1)) > np.dot(y, np.roll(x, -1))
    ring = ring[::-1] if is_anticlockwise == is_hole else ring
    return np.concatenate([ring, ring[:1]]).tolist()


@lru_cache(maxsize=4)
def _pictures(root: Path) -> tuple[Path, ...]:
    return tuple(list_images(root))


def _photos(path: Path, root: Path) -> list[Path]:
    """The photo of the same name, or all that know where they lie."""
    same = [photo for photo in _pictures(root) if photo.stem == path.stem]
    return same or [photo for photo in _pictures(root) if read_georeference(photo) is not None]


def _system(data: Mapping[str, Any]) -> str:
    match = _SYSTEM.search(str(data.get("crs") or "").replace("::", ":"))
    return f"EPSG:{match[1]}" if match else _DEGREES


def _areas(
    annotations: Annotations, entry: dict[str, Any], attribute: str | None, number: int
) -> Iterator[tuple[str | None, list[np.ndarray]]]:
    """The label and the rings of each polygon of a feature."""
    place = f"{annotations.path}: feature {number}"
    geometry = as_dict(entry.get("geometry") or {}, place)
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        annotations.left_out[f"features without an area ({kind}), left out"] += 1
        return
    label = annotations.label_or_none(_name((entry.get("properties") or {}).get(attribute), attribute), place)
    polygons = as_list(get(geometry, "coordinates", place), place)
    for polygon in [polygons] if kind == "Polygon" else polygons:
        rings = [as_points([point[:2] for point in as_list(ring, place)], place) for ring in as_list(polygon, place)]
        if len(rings) and len(rings[0]) > 2:
            annotations.outlines += 1
            yield label, rings


def _name(value: Any, attribute: str | None) -> Any:
    if attribute is None:
        return "foreground"
    if isinstance(value, Mapping):
        value = value.get("name")  # QuPath's classification
    return f"class_{value}" if isinstance(value, int) else value


def _in_pixels(
    rings: Iterable[np.ndarray], system: str, place: Georeference | None, path: Path
) -> tuple[np.ndarray, ...]:
    """Rings on the ground as rings on a photo; as they are where nobody knows where it lies."""
    if place is None:
        return tuple(rings)
    to_pixels = np.linalg.inv(place.matrix())
    found = []
    for ring in rings:
        points = ring.T
        if place.system and place.system != system:
            points = to_system(points, system, place.system, path)
        found.append((to_pixels @ np.concatenate([points, np.ones((1, points.shape[1]))]))[:2].T)
    return tuple(found)


def _touches(shape: Shape, place: Georeference) -> bool:
    """Whether the rectangles around an area and its photo overlap."""
    if place.size is None:
        return True
    low, high = shape.rings[0].min(axis=0), shape.rings[0].max(axis=0)
    return bool((high > 0).all() and (low < place.size[::-1]).all())
