"""Pixels of a photo as places on the ground: longitude and latitude, and square metres."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semseg.images.georeference import Georeference, read_georeference, to_system
from semseg.images.mirrors import present

_LONGITUDE_LATITUDE = "EPSG:4326"
_UNTRUE_METRES = {"merc", "webmerc"}  # Mercator's metres are those of the ground at the equator alone
_STEP = 32  # pixels after which a straight line gets a point more, before it is bent


@dataclass(frozen=True, eq=False)
class Ground:
    """Where the pixels of a photo lie on the ground.

    Attributes:
        photo: Its file.
        place: Of the photo, in its own coordinate system.
        system: That of the coordinates that `on_ground` gives: `"EPSG:4326"` for longitude and latitude (WGS 84); else
            the photo's own, where rasterio is not installed or cannot tell it from another; empty where nothing says
            it.
        crs: The photo's own system as well-known text; None where `on_ground` gives the photo's own coordinates.
        square_metres: Of a pixel; None where the photo's coordinates are no true metres, or where that is not known.
    """

    photo: Path
    place: Georeference
    system: str
    crs: str | None
    square_metres: float | None

    def on_ground(self, ring: np.ndarray) -> np.ndarray:
        """The coordinates of a closed line, `(M, 2)` of (x, y) in pixels: float64 `(m, 2)`, m at least M."""
        bent = self.crs is not None
        points = with_more_points(ring, _STEP) if bent else ring
        columns = np.concatenate([points.T, np.ones((1, len(points)))])
        x, y = (self.place.matrix() @ columns)[:2]
        if not bent:
            return np.stack([x, y], axis=1).round(self._digits())
        x, y = to_system(np.stack([x, y]), self.crs, _LONGITUDE_LATITUDE, self.photo)
        # A photo across the 180th meridian stays in one piece.
        x = x[0] + (x - x[0] + 180) % 360 - 180
        return np.stack([x, y], axis=1).round(9)

    def _digits(self) -> int:
        """Behind the point: some ten thousandths of a pixel."""
        a, b, _, d, e, _ = self.place.transform
        return max(0, 4 - math.floor(math.log10(math.sqrt(abs(a * e - b * d)) or 1)))


def ground_of(photo: Path) -> Ground | None:
    """Where a photo lies on the ground; None where nothing says it."""
    place = read_georeference(photo)
    if place is None:
        return None
    a, b, _, d, e, _ = place.transform
    crs = _crs_of(photo)
    if crs is None:
        return Ground(photo, place, place.system, None, None)
    metres = None
    if crs.is_projected and crs.to_dict().get("proj") not in _UNTRUE_METRES:
        metres = abs(a * e - b * d) * crs.linear_units_factor[1] ** 2
    if not (crs.is_projected or crs.is_geographic):
        return Ground(photo, place, place.system, None, metres)
    return Ground(photo, place, _LONGITUDE_LATITUDE, crs.to_wkt(), metres)


def _crs_of(photo: Path) -> Any:
    """The coordinate system that rasterio finds; None where it finds none, or is not installed."""
    try:
        import rasterio
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with present(photo), rasterio.open(photo) as source:
            return source.crs


def with_more_points(ring: np.ndarray, step: float) -> np.ndarray:
    """A closed line, `(M, 2)`, with points on its long straight parts, so that none is longer than `step`.

    Example:
        >>> with_more_points(np.array([[0.0, 0], [4, 0], [0, 1]]), 2).tolist()[:3]
        [[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]
    """
    way = np.roll(ring, -1, axis=0) - ring
    times = np.maximum(1, np.ceil(np.hypot(*way.T) / step)).astype(np.int64)
    part = np.repeat(np.arange(len(ring)), times)
    share = (np.arange(len(part)) - np.repeat(np.cumsum(times) - times, times)) / times[part]
    return ring[part] + share[:, None] * way[part]
