"""Draws a street data set from a seed, so that a newcomer without data has something to train on at once.

The set has exactly the form of Kaggle's "Cityscapes image pairs": JPEGs of 512x256, the photo left, the mask in the
official label colours right, borders blurred. A scene is a small three-dimensional world: a street that may bend and
climb, plots and traffic at random places in metres, one sun. One pinhole camera projects it, and it is painted from
back to front on a `Canvas` that fills photo and labels in the same call, so the mask is right by construction.
Colours, weather and lens vary on purpose: colour alone must not tell the class.
"""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property, lru_cache, partial
from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from semseg.errors import DataError

SIDE = 512  # scenes are painted at this size and shrunk, which smooths edges
HALF = SIDE // 2  # light falling on the ground is kept at half that size
FX, FY = 600.0, 900.0  # focal lengths in pixels: like Kaggle's pairs, the 2:1 photo is squeezed into a square
NEAR, FAR = 2.2, 140.0  # metres in front of the camera
DETAILED = 55.0  # vehicles beyond have no lamps and hubs
LANE, PARKING = 3.3, 2.2  # widths in metres
FACELESS = 0.5  # whose heading has a larger cosine is seen from behind
CROWN = 192  # pixels of a drawn tree
KERB = 0.13  # height in metres
LOW = 5.0  # things below this height darken the ground that they stand on
LEFT, RIGHT = 0, 1
OUT = (-1, 1)  # the direction away from the road on either side
SPLITS = ("train", "val")

Point = tuple[float, float, float]  # metres: right, up, forward
Colour = tuple[float, float, float]  # RGB, 0 to 255
Light = tuple[float, float, float]  # factor for each channel


class Label(IntEnum):
    """The 19 classes that Cityscapes judges, in its order, after the void."""

    VOID, ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION = range(10)
    TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 20)


COLOURS = np.array(
    [
        *[(0, 0, 0), (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153)],
        *[(250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0)],
        *[(0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)],
    ],
    np.uint8,
)


@dataclass(frozen=True)
class Weather:
    """What the light is like: sky colours, light from the sky and from the sun, sight in metres, clouds 0 to 1."""

    zenith: Colour
    horizon: Colour
    ambient: Light
    sun: Light
    elevation: tuple[float, float]
    sight: float
    clouds: float
    lamps: float = 0.0


# fmt: off
WEATHERS = (  # sunny, fair, overcast, dusk, mist
    Weather((70, 125, 200), (185, 210, 230), (0.52, 0.55, 0.62), (0.95, 0.88, 0.74), (0.6, 1.1), 420, 0.35),
    Weather((105, 150, 205), (215, 222, 225), (0.56, 0.58, 0.62), (0.75, 0.70, 0.60), (0.4, 0.8), 300, 0.65),
    Weather((190, 196, 202), (222, 225, 226), (0.86, 0.88, 0.90), (0.06, 0.06, 0.06), (0.8, 1.0), 220, 0.9),
    Weather((80, 92, 140), (242, 176, 118), (0.50, 0.46, 0.50), (0.55, 0.36, 0.20), (0.25, 0.4), 260, 0.5, 0.5),
    Weather((188, 192, 194), (206, 208, 208), (0.80, 0.81, 0.82), (0.04, 0.04, 0.04), (0.8, 1.0), 65, 0.1, 0.15),
)
# fmt: on
WEATHER_ODDS = (0.34, 0.52, 0.76, 0.89, 1.0)  # cumulative


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above x = 0 that looks along the street; bend and hill shift the world with distance squared."""

    height: float
    horizon: float
    centre: float
    bend: float
    hill: float

    def pixel(self, point: Point) -> tuple[float, float]:
        """Projects metres to (column, row) on the canvas; what lies behind the camera is held at `NEAR`."""
        x, y, z = point
        z = z if z > NEAR else NEAR  # max() would cost twice the time, and this runs 5000 times a scene
        column = self.centre + FX * (x / z + self.bend * z)
        return column, self.horizon + FY * ((self.height - y) / z - self.hill * z)


def _normal(points: Sequence[Point]) -> Point:
    """Newell's normal of a polygon, length 1."""
    nx = ny = nz = 0.0
    ax, ay, az = points[-1]
    for bx, by, bz in points:
        nx += ay * bz - az * by
        ny += az * bx - ax * bz
        nz += ax * by - ay * bx
        ax, ay, az = bx, by, bz
    length = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    return nx / length, ny / length, nz / length


def _mix(a: Sequence[float], b: Sequence[float], share: float) -> Colour:
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))


class Canvas:
    """Photo and labels, painted together: every shape goes to both.

    Attributes:
        photo: uint8 RGB `(SIDE, SIDE, 3)`.
        labels: uint8 `Label` ids `(SIDE, SIDE)`.
        sunlight: uint8 `(HALF, HALF)`, 255 where the sun reaches the ground.
        openness: uint8 `(HALF, HALF)`, 255 where the sky reaches the ground, less under a car.
    """

    def __init__(self, camera: Camera, weather: Weather, sun: Point):
        self.camera, self.weather, self.sun = camera, weather, sun
        self.photo = np.zeros((SIDE, SIDE, 3), np.uint8)
        self.labels = np.zeros((SIDE, SIDE), np.uint8)
        self.sunlight = np.full((HALF, HALF), 255, np.uint8)
        self.openness = np.full((HALF, HALF), 255, np.uint8)

    def light(self, normal: Point, sunlit: float = 1.0) -> Light:
        """Light on a face: from the sky (more from above) and from the sun."""
        (nx, ny, nz), (x, y, z), (r, g, b), (sr, sg, sb) = normal, self.sun, self.weather.ambient, self.weather.sun
        sky, facing = 0.86 + 0.14 * ny, max(0.0, nx * x + ny * y + nz * z) * sunlit
        return r * sky + sr * facing, g * sky + sg * facing, b * sky + sb * facing

    def clear(self, depth: float) -> float:
        """Share of an object's own colour that is left by the haze."""
        return math.exp(-max(depth, 0.0) / self.weather.sight)

    def seen(self, colour: Colour, light: Light, depth: float) -> tuple[int, int, int]:
        """The colour that reaches the camera."""
        keep = self.clear(depth)
        haze = self.weather.horizon
        r, g, b = (min(255, int(c * k * keep + h * (1 - keep))) for c, k, h in zip(colour, light, haze, strict=True))
        return r, g, b

    def fill(
        self, points: Sequence[Point], colour: Colour, label: Label, sunlit: float = 1.0, cull: bool = False
    ) -> None:
        """Fills a flat polygon; with `cull` only when its outer side (anticlockwise normal) faces the camera."""
        normal, (x, y, z) = _normal(points), points[0]
        if normal[0] * x + normal[1] * (y - self.camera.height) + normal[2] * z > 0:
            if cull:
                return
            normal = (-normal[0], -normal[1], -normal[2])
        self.flat(points, self.seen(colour, self.light(normal, sunlit), z), label)

    def flat(self, points: Sequence[Point], colour: Colour | None, label: Label) -> None:
        """Fills a polygon with a finished colour, or in the labels only when the colour is None."""
        corners = np.array([[int(16 * p) for p in self.camera.pixel(point)] for point in points], np.int32)[None]
        if colour is not None:
            cv2.fillPoly(self.photo, corners, colour, shift=4)
        cv2.fillPoly(self.labels, corners, int(label), shift=4)

    def line(self, points: Sequence[Point], width: float, colour: Colour, label: Label, sunlit: float = 1.0) -> None:
        """Draws a bar of `width` metres along the points, at least one pixel thick."""
        depth = max(points[0][2], NEAR)
        path = np.array([[int(16 * p) for p in self.camera.pixel(point)] for point in points], np.int32)[None]
        thickness = max(1, round(width * FX / depth))
        tone = self.seen(colour, self.light((-0.3, 0.2, -0.6), sunlit), depth)
        cv2.polylines(self.photo, path, False, tone, thickness, shift=4)
        cv2.polylines(self.labels, path, False, int(label), thickness, shift=4)

    def disc(self, centre: Point, radius: float, colour: Colour, label: Label, light: Light | None = None) -> None:
        """Draws an upright disc that faces the camera; with `light` given it glows by itself."""
        x, y = self.camera.pixel(centre)
        depth = max(centre[2], NEAR)
        axes = (max(8, int(16 * radius * FX / depth)), max(8, int(16 * radius * FY / depth)))
        tone = self.seen(colour, light or self.light((-0.3, 0.2, -0.6)), depth)
        for image, value in ((self.photo, tone), (self.labels, int(label))):
            cv2.ellipse(image, (int(16 * x), int(16 * y)), axes, 0, 0, 360, value, cv2.FILLED, shift=4)

    def visible(self, points: Sequence[Point]) -> bool:
        """Whether the box around the points touches the photo."""
        columns, rows = zip(*map(self.camera.pixel, points), strict=True)
        return max(columns) > 0 and min(columns) < SIDE and max(rows) > 0 and min(rows) < SIDE

    def paste(self, image: np.ndarray, corners: Sequence[Point], label: Label, light: Light) -> None:
        """Maps an image onto a quad: left top, right top, right bottom, left bottom.

        RGB covers the quad; RGBA leaves the pixels below half alpha as they were, in photo and labels.
        """
        if not self.visible(corners):
            return
        quad = np.array([self.camera.pixel(point) for point in corners], np.float32)
        x0, y0 = np.clip(np.floor(quad.min(0)), 0, SIDE).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(quad.max(0)), 0, SIDE).astype(int).tolist()
        image = self._lit(_shrunk(image, *np.ptp(quad, axis=0).tolist()), light, min(point[2] for point in corners))
        height, width, channels = image.shape
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        homography = cv2.getPerspectiveTransform(source, quad - np.float32([x0, y0]))
        part, size = self.photo[y0:y1, x0:x1], (x1 - x0, y1 - y0)
        if channels == 3:
            cv2.warpPerspective(image, homography, size, part, borderMode=cv2.BORDER_TRANSPARENT)
            self.flat(corners, None, label)
            return
        warped = cv2.warpPerspective(image, homography, size)
        inside = cv2.inRange(warped[..., 3], 128, 255)
        cv2.copyTo(np.ascontiguousarray(warped[..., :3]), inside, part)
        self.labels[y0:y1, x0:x1][inside > 0] = label

    def _lit(self, image: np.ndarray, light: Light, depth: float) -> np.ndarray:
        """An image in this light, seen through the haze."""
        keep, channels = self.clear(depth), image.shape[2]
        matrix = np.zeros((channels, channels + 1), np.float32)
        np.fill_diagonal(matrix, [*(k * keep for k in light), 1])
        matrix[:3, channels] = [h * (1 - keep) for h in self.weather.horizon]
        return cv2.transform(image, matrix)

    def shadow(self, footprint: Sequence[tuple[float, float]], height: float, touching: bool = True) -> None:
        """Takes light from the ground: the sun's behind an upright body of this footprint, the sky's below it."""
        dx, dz = -height * self.sun[0] / self.sun[1], -height * self.sun[2] / self.sun[1]
        ground = [(x, 0.0, z) for x, z in footprint] if touching else []
        cast = [(x + dx, 0.0, z + dz) for x, z in footprint]
        pixels = [[int(8 * p) for p in self.camera.pixel(point)] for point in [*ground, *cast]]
        cv2.fillConvexPoly(self.sunlight, cv2.convexHull(np.array(pixels, np.int32)), 0, shift=4)
        if touching and height < LOW:
            cv2.fillConvexPoly(self.openness, cv2.convexHull(np.array(pixels[: len(ground)], np.int32)), 60, shift=4)

    def sunlit(self, x: float, z: float) -> float:
        """Whether the sun reaches a place on the ground, 0 or 1."""
        column, row = self.camera.pixel((x, 0.0, z))
        return float(self.sunlight[min(max(int(row / 2), 0), HALF - 1), min(max(int(column / 2), 0), HALF - 1)] > 0)


def _shrunk(image: np.ndarray, width: float, height: float) -> np.ndarray:
    """An image no larger than twice the place that it goes to; a larger one would give moire patterns."""
    size = (max(2, min(image.shape[1], int(width))), max(2, min(image.shape[0], int(height))))
    if image.shape[1] < 2 * size[0] and image.shape[0] < 2 * size[1]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _upright(x: tuple[float, float], z: tuple[float, float], bottom: float, top: float) -> list[Point]:
    """Corners of an upright rectangle for `Canvas.paste`: left top, right top, right bottom, left bottom."""
    return [(x[0], top, z[0]), (x[1], top, z[1]), (x[1], bottom, z[1]), (x[0], bottom, z[0])]


# --- textures ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _noise(seed: int, size: int = 512, roughness: float = 0.6) -> np.ndarray:
    """Fractal noise, uint8 `(size, size)`, mean about 128."""
    rng = np.random.default_rng(seed)
    total, cells, weight = np.zeros((size, size), np.float32), 4, 1.0
    while cells <= size:
        octave = rng.standard_normal((cells, cells), np.float32)
        total += weight * cv2.resize(octave, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * roughness
    return np.clip(128 + 36 * total / total.std(), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """What the ground is multiplied by, 128 for 1: 40 m x 40 m, uint8 `(1024, 1024)`."""
    return _noise(5, 1024, 0.85) // 4 + 96


@lru_cache(maxsize=1)
def _sensor_noise() -> np.ndarray:
    """Standard normal noise, float32 `(768, 768, 3)`, from which every photo takes a piece."""
    return np.random.default_rng(11).standard_normal((768, 768, 3), np.float32)


@lru_cache(maxsize=4)
def _crowns(halvings: int = 0) -> tuple[np.ndarray, ...]:
    """Eight crowns of foliage, uint8 RGBA `(CROWN, CROWN, 4)`, nearly grey: the tree's own colour comes as light.

    Halved in size for far trees, 0 to 3 times.
    """
    if halvings:
        return tuple(cv2.resize(c, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for c in _crowns(halvings - 1))
    return tuple(_crown(np.random.default_rng(kind), slender=kind % 4 == 3) for kind in range(8))


def _crown(rng: np.random.Generator, slender: bool) -> np.ndarray:
    """A crown is clumps of clumps of leaves; leaves on the upper side of their clump are brighter."""
    clumps = np.full((1, 2), CROWN / 2)
    for reach, children in ((0.25, 16), (0.13, 12), (0.07, 16)):
        angle = rng.uniform(0, math.tau, (len(clumps), children))
        radius = reach * CROWN * np.sqrt(rng.uniform(0.02, 1, angle.shape))
        offsets = np.stack([radius * np.cos(angle) * (0.55 if slender else 1), radius * np.sin(angle)], -1)
        parents, clumps = clumps, (clumps[:, None] + offsets).reshape(-1, 2)
    rise = (clumps - np.repeat(parents, children, 0)) @ (-0.4, -0.9)
    tone = 96 + 2.4 * rise + 0.42 * (CROWN / 2 - clumps[:, 1]) + rng.normal(0, 14, len(clumps))
    order = np.argsort(tone + rng.normal(0, 14, len(clumps)))
    hues = tone[order, None].clip(30, 215) + rng.uniform((-6, 0, -8), (8, 1, 4), (len(order), 3))
    image = np.zeros((CROWN, CROWN, 4), np.uint8)
    for centre, hue in zip(clumps[order].astype(int).tolist(), hues.tolist(), strict=True):
        cv2.circle(image, centre, 2 + centre[0] % 2, (*hue, 255), cv2.FILLED)
    return image


@lru_cache(maxsize=1)
def _leaves() -> np.ndarray:
    """A hedge of foliage with a ragged top, uint8 RGBA `(96, 384, 4)`."""
    rng = np.random.default_rng(99)
    image = np.zeros((96, 384, 4), np.uint8)
    image[14:] = (70, 70, 66, 255)
    for _ in range(3000):
        x, y = int(rng.integers(384)), int(rng.integers(8, 96))
        shade = 125 - 0.7 * y + rng.normal(0, 22)
        cv2.circle(image, (x, y), int(rng.integers(2, 5)), (shade + 4, shade, shade - 6, 255), cv2.FILLED)
    return image


@dataclass(frozen=True)
class Style:
    """How a building looks; lengths in metres, window as a share of its bay."""

    wall: Colour
    frame: Colour
    glass: Colour
    shop: Colour
    bay: float
    storey: float
    window: tuple[float, float]
    brick: bool
    balcony: bool
    lit: float


# fmt: off
WALLS = ((205, 196, 175), (188, 170, 140), (170, 110, 84), (140, 88, 70), (196, 196, 194), (150, 152, 156),
         (214, 186, 128), (178, 150, 132), (120, 116, 112), (222, 214, 204), (150, 160, 146), (164, 178, 190))
CLOTHES = ((30, 32, 38), (46, 56, 90), (120, 122, 126), (150, 40, 42), (200, 196, 186), (60, 84, 60), (90, 66, 50),
           (206, 160, 60), (70, 120, 160), (170, 110, 130), (24, 40, 66), (236, 236, 232))
PAINTS = ((28, 29, 32), (52, 54, 58), (96, 99, 103), (150, 153, 156), (188, 190, 192), (226, 228, 228), (36, 52, 96),
          (124, 26, 30), (60, 70, 66), (120, 100, 80), (90, 120, 150), (44, 46, 50), (168, 36, 30))
LIVERIES = ((214, 210, 200), (190, 150, 40), (160, 40, 36), (60, 96, 140), (90, 120, 90))
SKINS = ((224, 182, 154), (198, 150, 120), (150, 104, 78), (96, 66, 50))
HAIRS = ((40, 30, 24), (80, 60, 40), (150, 120, 80), (60, 60, 64), (30, 26, 26))
LEAVES = ((104, 134, 62), (84, 118, 54), (120, 140, 70), (92, 112, 66), (130, 134, 60), (70, 100, 56), (170, 130, 52))
ROOFS = ((140, 74, 56), (84, 80, 82), (112, 84, 70), (70, 72, 80))
ASPHALTS = ((104, 104, 106), (92, 94, 98), (124, 122, 118), (112, 106, 104), (84, 86, 92))
PAVINGS = ((150, 146, 140), (134, 130, 128), (160, 146, 132), (122, 122, 124))
GRASSES = ((112, 132, 66), (126, 132, 78), (98, 120, 60), (140, 134, 92))
METALS = ((120, 124, 126), (70, 76, 74), (150, 150, 146))
FENCES = ((52, 60, 56), (140, 120, 90), (170, 172, 174))
BINS = ((70, 74, 76), (60, 90, 64), (150, 110, 60))
BOARDS = ((36, 96, 60), (214, 176, 40), (40, 80, 150), (230, 230, 226))
SIGNS = (0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7)  # kinds of `_draw_sign`, by how often they occur
# fmt: on
WHITE, RED, BLUE, INK, TYRE = (236, 237, 234), (188, 30, 34), (36, 80, 168), (40, 42, 46), (24, 24, 26)
FRONTAL: Point = (-0.3, 0.2, -0.9)  # the normal of round things that face the camera


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def _varied(rng: np.random.Generator, colour: Colour, amount: float = 0.15) -> Colour:
    gain = 1 + rng.uniform(-amount, amount)
    return tuple(c * gain for c in colour)


def _style(rng: np.random.Generator, weather: Weather) -> Style:
    sky = _mix(weather.horizon, (40, 48, 56), rng.uniform(0.5, 0.95))
    frame = _pick(rng, ((232, 232, 228), (90, 80, 70), (60, 62, 66), (210, 200, 180)))
    bay, storey = rng.uniform(2.2, 4.0), rng.uniform(2.9, 3.7)
    window = (rng.uniform(0.35, 0.75), rng.uniform(0.45, 0.68))
    shop = _pick(rng, (*CLOTHES, *WALLS))
    wall = _varied(rng, _pick(rng, WALLS))
    return Style(
        wall, frame, sky, shop, bay, storey, window, rng.random() < 0.35, rng.random() < 0.25, weather.lamps * 0.6
    )


def _facade(
    rng: np.random.Generator, style: Style, size: tuple[float, float], scale: tuple[float, float]
) -> np.ndarray:
    """The front of a building, uint8 RGB: ground floor, storeys of windows, cornice.

    Size in metres and scale in pixels to the metre, both as (across, up).
    """
    (width, height), (across, up) = size, scale
    bays, storeys = max(1, round(width / style.bay)), max(1, round((height - 3.6) / style.storey))
    cell = _bay(style, max(6, int(style.bay * across)), max(6, int(style.storey * up)))
    upper = np.tile(cell, (storeys, bays, 1))
    _live_in(rng, upper, style, bays, storeys)
    street = _ground_floor(rng, style, upper.shape[1], max(8, int(3.6 * up)), across / up)
    image = np.concatenate([upper, street])
    cornice = max(1, int(0.35 * up))
    image[:cornice] = np.clip(np.multiply(style.wall, 1.12), 0, 255)
    image[cornice : cornice + max(1, cornice // 2)] = np.multiply(style.wall, 0.6)
    return _stained(rng, image)


def _stained(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Weathers a wall a little, whatever its size."""
    x, y = rng.integers(0, 200, 2)
    stains = cv2.resize(_noise(3)[y : y + 300, x : x + 300], image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.multiply(image, cv2.cvtColor(stains // 3 + 90, cv2.COLOR_GRAY2RGB), scale=1 / 128)


def _bay(style: Style, width: int, height: int) -> np.ndarray:
    """One window in its piece of wall, uint8 RGB `(height, width, 3)`."""
    cell = np.full((height, width, 3), style.wall, np.uint8)
    if style.brick and height > 40:
        cell[:: max(3, height // 28)] = np.multiply(style.wall, 0.84)
    w, h = int(style.window[0] * width), int(style.window[1] * height)
    x, y = (width - w) // 2, int(0.16 * height)
    rim = max(1, width // 28)
    cv2.rectangle(cell, (x - rim, y - rim), (x + w + rim, y + h + rim), style.frame, cv2.FILLED)
    cv2.rectangle(cell, (x, y), (x + w, y + h), style.glass, cv2.FILLED)
    cv2.rectangle(cell, (x, y), (x + w, y + h // 5), [0.55 * c for c in style.glass], cv2.FILLED)
    cv2.line(cell, (x + w // 2, y), (x + w // 2, y + h), style.frame, rim)
    cv2.rectangle(cell, (x - 2 * rim, y + h + rim), (x + w + 2 * rim, y + h + 2 * rim), (205, 203, 198), cv2.FILLED)
    if style.balcony:
        top = int(0.62 * height)
        cv2.rectangle(cell, (x - 3 * rim, top), (x + w + 3 * rim, int(0.92 * height)), (96, 98, 100), cv2.FILLED)
        cell[top + rim : int(0.9 * height) : 1, x - 2 * rim : x + w + 2 * rim : 3] = np.multiply(style.wall, 0.8)
        cv2.line(cell, (x - 4 * rim, int(0.93 * height)), (x + w + 4 * rim, int(0.93 * height)), (190, 188, 184), rim)
    return cell


def _live_in(rng: np.random.Generator, wall: np.ndarray, style: Style, bays: int, storeys: int) -> None:
    """Gives some windows a blind, a curtain or a lamp, in place."""
    height, width = wall.shape[0] // storeys, wall.shape[1] // bays
    w, h = int(style.window[0] * width), int(style.window[1] * height)
    for storey, bay in np.ndindex(storeys, bays):
        chance = rng.random()
        if chance > 0.5 + style.lit:
            continue
        x, y = bay * width + (width - w) // 2, storey * height + int(0.16 * height)
        drop = int(h * rng.uniform(0.2, 1.0)) if chance < 0.3 else h
        colour = (255, 214, 140) if chance > 0.5 else _mix(style.glass, (205, 200, 190), rng.uniform(0, 0.5))
        cv2.rectangle(wall, (x, y), (x + w, y + drop), colour, cv2.FILLED)


def _ground_floor(rng: np.random.Generator, style: Style, width: int, height: int, squeeze: float) -> np.ndarray:
    """Shop windows below a sign, or a plinth with doors, uint8 RGB `(height, width, 3)`."""
    strip = np.full((height, width, 3), np.multiply(style.wall, 0.86), np.uint8)
    shop = rng.random() < 0.6
    units = max(1, round(width / height / squeeze / (1.1 if shop else 0.9)))
    for unit in range(units):
        x0, x1 = width * unit // units + width // units // 12, width * (unit + 1) // units - width // units // 12
        if shop:
            glass = _varied(rng, _mix(style.glass, (20, 22, 24), 0.45), 0.3)
            sign = _varied(rng, style.shop if unit % 2 else _pick(rng, CLOTHES))
            cv2.rectangle(strip, (x0, int(0.3 * height)), (x1, int(0.9 * height)), glass, cv2.FILLED)
            cv2.rectangle(strip, (x0, int(0.6 * height)), (x1, int(0.9 * height)), [0.7 * c for c in glass], cv2.FILLED)
            cv2.rectangle(strip, (x0, int(0.1 * height)), (x1, int(0.27 * height)), sign, cv2.FILLED)
            cv2.line(strip, ((x0 + x1) // 2, int(0.3 * height)), ((x0 + x1) // 2, height), style.frame, 1)
        else:
            door = rng.random() < 0.3
            top, bottom = (0.3, 1.0) if door else (0.25, 0.68)
            middle, half = (x0 + x1) // 2, max(1, int(height * squeeze * (0.15 if door else 0.17)))
            colour = _varied(rng, (88, 62, 44)) if door else style.glass
            place = (middle - half, int(top * height)), (middle + half, int(bottom * height))
            cv2.rectangle(strip, *place, colour, cv2.FILLED)
            cv2.rectangle(strip, *place, style.frame, 1)
    return strip


def _wall(rng: np.random.Generator, width: float, height: float) -> np.ndarray:
    """Bricks or render with a coping, uint8 RGB."""
    h, w, colour = int(36 * height), int(18 * width), _varied(rng, _pick(rng, WALLS))
    image = np.full((h, w, 3), colour, np.uint8)
    if rng.random() < 0.6:
        joint = np.multiply(colour, 0.8)
        for row in range(0, h, 7):
            image[row] = joint
            image[row : row + 7, row % 2 * 6 :: 12] = joint
    image[:5] = np.multiply(colour, 1.1).clip(0, 255)
    return _stained(rng, image)


# --- things that stand in the street ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pose:
    """A place on the ground and a heading (0 away from the camera, in radians, clockwise seen from above)."""

    x: float
    z: float
    heading: float = 0.0
    sunlit: float = 1.0
    ground: float = 0.0

    @cached_property
    def axis(self) -> tuple[float, float]:
        """Cosine and sine of the heading."""
        return math.cos(self.heading), math.sin(self.heading)

    def at(self, right: float, up: float, forward: float = 0.0) -> Point:
        """Takes an object's own metres to the world's."""
        c, s = self.axis
        return self.x + right * c + forward * s, self.ground + up, self.z - right * s + forward * c

    def all(self, *points: tuple[float, ...]) -> list[Point]:
        """Takes many points to the world."""
        return [self.at(*point) for point in points]

    def plate(self, x0: float, x1: float, bottom: float, top: float, forward: float = 0.0) -> list[Point]:
        """An upright rectangle across the heading."""
        return self.all((x0, bottom, forward), (x1, bottom, forward), (x1, top, forward), (x0, top, forward))

    def footprint(self, half_width: float, rear: float, front: float) -> list[tuple[float, float]]:
        """Corners of a rectangle on the ground, as (x, z)."""
        return [
            (x, z)
            for w, f in ((-1, rear), (1, rear), (1, front), (-1, front))
            for x, _, z in [self.at(w * half_width, 0, f)]
        ]


@dataclass(frozen=True)
class Body:
    """A vehicle as an extruded side view.

    The profile runs from the rear bumper over the roof to the front bumper: (forward, up, half width, material of the
    panel up to the next point). Patches are painted on both sides: (material, forward and up of each corner).
    """

    label: Label
    profile: tuple[tuple[float, float, float, str], ...]
    patches: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    wheels: tuple[float, ...]
    radius: float = 0.32

    @cached_property
    def size(self) -> tuple[float, float, float]:
        """Length, half width and height in metres."""
        return self.profile[-1][0], max(point[2] for point in self.profile), max(point[1] for point in self.profile)

    def half_width_at(self, up: float) -> float:
        """Half the width at a height: the cabin leans inwards."""
        _, width, height = self.size
        roof = min(point[2] for point in self.profile if point[1] > 0.95 * height)
        lean = max(0.0, (up / height - 0.62) / 0.38)
        return width + lean * (roof - width) + 0.005


def _windows(first: float, last: float, count: int, low: float, high: float) -> tuple:
    """A row of equal side windows."""
    step = (last - first) / count
    corners = ((0.04, low), (0.04, high), (0.96, high), (0.96, low))
    return tuple(("glass", tuple((first + (i + f) * step, up) for f, up in corners)) for i in range(count))


def _band(material: str, first: float, last: float, low: float, high: float) -> tuple:
    """A rectangle on the side of a vehicle."""
    return material, ((first, low), (first, high), (last, high), (last, low))


# fmt: off
HATCHBACK = Body(
    Label.CAR,
    ((0.04, 0.2, 0.78, "dark"), (0, 0.36, 0.84, "body"), (0, 0.6, 0.86, "body"), (0.06, 0.92, 0.85, "glass"),
     (0.4, 1.38, 0.68, "body"), (0.8, 1.47, 0.66, "body"), (2.0, 1.47, 0.66, "glass"), (2.95, 0.98, 0.8, "body"),
     (3.75, 0.8, 0.8, "body"), (3.95, 0.55, 0.84, "dark"), (3.9, 0.2, 0.78, "dark")),
    (("glass", ((0.45, 0.98), (0.72, 1.36), (1.45, 1.4), (1.45, 0.98))),
     ("glass", ((1.55, 0.98), (1.55, 1.4), (2.02, 1.4), (2.75, 0.98))), _band("dark", 0.1, 3.9, 0.2, 0.3)),
    (0.72, 3.2),
)
SEDAN = Body(
    Label.CAR,
    ((0.04, 0.2, 0.8, "dark"), (0, 0.36, 0.86, "body"), (0, 0.6, 0.88, "body"), (0.05, 0.9, 0.86, "body"),
     (0.75, 0.98, 0.82, "glass"), (1.45, 1.4, 0.66, "body"), (2.5, 1.43, 0.66, "glass"), (3.35, 0.95, 0.82, "body"),
     (4.4, 0.76, 0.8, "body"), (4.55, 0.52, 0.86, "dark"), (4.5, 0.2, 0.8, "dark")),
    (("glass", ((0.95, 0.97), (1.5, 1.33), (1.9, 1.36), (1.9, 0.97))),
     ("glass", ((2.0, 0.97), (2.0, 1.36), (2.5, 1.36), (3.12, 0.97))), _band("dark", 0.1, 4.45, 0.2, 0.3)),
    (0.85, 3.65),
)
ESTATE = Body(
    Label.CAR,
    ((0.04, 0.24, 0.82, "dark"), (0, 0.45, 0.88, "body"), (0.05, 1.02, 0.9, "glass"), (0.3, 1.55, 0.74, "body"),
     (0.7, 1.66, 0.72, "body"), (2.5, 1.66, 0.72, "glass"), (3.3, 1.1, 0.86, "body"), (4.4, 0.96, 0.84, "body"),
     (4.6, 0.62, 0.88, "dark"), (4.55, 0.24, 0.82, "dark")),
    (("glass", ((0.35, 1.1), (0.5, 1.5), (1.1, 1.56), (1.1, 1.1))), _band("glass", 1.18, 1.95, 1.1, 1.57),
     ("glass", ((2.05, 1.1), (2.05, 1.58), (2.5, 1.58), (3.1, 1.1))), _band("dark", 0.1, 4.5, 0.24, 0.38)),
    (0.9, 3.7), 0.36,
)
VAN = Body(
    Label.CAR,
    ((0.03, 0.26, 0.88, "dark"), (0, 0.5, 0.94, "body"), (0.02, 1.25, 0.95, "glass"), (0.08, 1.75, 0.88, "body"),
     (0.15, 1.95, 0.86, "body"), (3.6, 1.97, 0.86, "glass"), (4.3, 1.2, 0.92, "body"), (4.9, 1.0, 0.92, "body"),
     (5.0, 0.6, 0.94, "dark"), (4.95, 0.26, 0.88, "dark")),
    (("glass", ((3.0, 1.25), (3.0, 1.8), (3.6, 1.8), (4.1, 1.25))), *_windows(0.4, 2.8, 2, 1.25, 1.75)),
    (0.95, 4.0), 0.36,
)
TRUCK = Body(
    Label.TRUCK,
    ((0, 0.4, 1.16, "dark"), (0, 0.95, 1.22, "cargo"), (0, 3.3, 1.22, "cargo"), (5.9, 3.3, 1.22, "cargo"),
     (5.9, 2.75, 1.1, "body"), (7.3, 2.75, 1.1, "glass"), (7.6, 1.65, 1.1, "body"), (7.6, 0.7, 1.14, "dark"),
     (7.6, 0.4, 1.1, "dark")),
    (_band("cargo", 0, 5.8, 0.95, 3.3), _band("dark", 0, 5.9, 0.4, 0.92),
     ("glass", ((6.35, 1.65), (6.35, 2.45), (7.2, 2.45), (7.45, 1.65)))),
    (1.3, 2.3, 6.6), 0.48,
)
BUS = Body(
    Label.BUS,
    ((0, 0.3, 1.2, "dark"), (0, 0.5, 1.26, "body"), (0, 1.7, 1.26, "glass"), (0.05, 2.5, 1.24, "body"),
     (0.2, 3.05, 1.18, "body"), (11.6, 3.05, 1.18, "body"), (11.85, 2.7, 1.24, "glass"), (11.95, 1.1, 1.26, "body"),
     (12, 0.3, 1.24, "dark")),
    (*_windows(0.3, 11.7, 8, 1.35, 2.5), _band("cargo", 0, 12, 0.55, 0.9)),
    (2.6, 9.2), 0.48,
)
TRAM = Body(
    Label.TRAIN,
    ((0, 0.12, 1.1, "dark"), (0, 0.5, 1.15, "body"), (0.3, 1.4, 1.18, "glass"), (0.7, 2.9, 1.12, "body"),
     (1.0, 3.3, 1.05, "dark"), (26, 3.3, 1.05, "body"), (26.4, 2.9, 1.12, "glass"), (26.8, 1.4, 1.18, "body"),
     (27, 0.12, 1.1, "dark")),
    (*_windows(1.4, 25.6, 14, 1.4, 2.6), _band("cargo", 0.3, 26.7, 0.35, 1.0), _band("dark", 8.6, 9.1, 0.4, 3.2),
     _band("dark", 17.8, 18.3, 0.4, 3.2)),
    (),
)
CARS = (HATCHBACK, HATCHBACK, SEDAN, SEDAN, ESTATE, ESTATE, VAN)
# fmt: on


def _draw_vehicle(canvas: Canvas, body: Body, pose: Pose, colours: dict[str, Colour], lamps: float) -> None:
    for forward in body.wheels:
        _draw_wheel(canvas, body, pose, forward)
    for sign in (-1, 1):
        _draw_side(canvas, body, pose, colours, sign)
    for (f0, u0, w0, material), (f1, u1, w1, _) in pairwise(body.profile):
        # a pane leaves pillars in the colour of the body at its sides
        for name, share in (("body", 1.0), ("glass", 0.9)) if material == "glass" else ((material, 1.0),):
            a, b = w0 * share, w1 * share
            panel = pose.all((a, u0, f0), (-a, u0, f0), (-b, u1, f1), (b, u1, f1))
            canvas.fill(panel, colours[name], body.label, pose.sunlit, cull=True)
    if pose.z < DETAILED:
        _draw_end(canvas, body, pose, lamps)


def _draw_side(canvas: Canvas, body: Body, pose: Pose, colours: dict[str, Colour], sign: int) -> None:
    """The side view with windows and wheels; `sign` is 1 for the right side."""
    if sign * (pose.x * pose.axis[0] - pose.z * pose.axis[1]) > -body.size[1]:
        return  # this side is turned away
    outline = pose.all(*((sign * width, up, forward) for forward, up, width, _ in body.profile))
    canvas.fill(outline, colours["body"], body.label, pose.sunlit)
    for material, points in body.patches:
        corners = pose.all(*((sign * body.half_width_at(up), up, forward) for forward, up in points))
        canvas.fill(corners, colours[material], body.label, pose.sunlit)
    for forward in body.wheels if pose.z < DETAILED else ():
        for radius, colour in (
            (body.radius * 1.15, (16, 16, 18)),
            (body.radius, TYRE),
            (0.62 * body.radius, colours["rim"]),
        ):
            rim = _ring(pose, forward, radius, sign * (body.size[1] + 0.01), body.radius)
            canvas.fill(rim, colour, body.label, pose.sunlit)


def _draw_wheel(canvas: Canvas, body: Body, pose: Pose, forward: float) -> None:
    """The two tyres of an axle as seen along the vehicle, and the dark below the floor between them."""
    _, width, _ = body.size
    for x0, x1, low in ((-0.95 * width, -0.7 * width, 0.0), (0.7 * width, 0.95 * width, 0.0)):
        canvas.fill(pose.plate(x0, x1, low, 1.4 * body.radius, forward), TYRE, body.label, pose.sunlit)


def _draw_end(canvas: Canvas, body: Body, pose: Pose, lamps: float) -> None:
    """Lights and number plate, at the end that is seen."""
    length, width, height = body.size
    rear = math.cos(pose.heading) > 0
    forward, lamp = (-0.02, RED) if rear else (length + 0.02, WHITE)
    low, high = (0.62, 0.86) if rear and height < 2 else (0.55, 0.72) if height < 2 else (0.62, 0.8)
    glow = _mix(canvas.light((0, 0, -1), pose.sunlit), (1.3, 1.3, 1.3), lamps)
    inner = 0.8 if rear else 0.62
    for sign in (-1, 1):
        quad = pose.plate(sign * inner * width, sign * 0.94 * width, low, high, forward)
        canvas.flat(quad, canvas.seen(lamp, glow, pose.z), body.label)
    canvas.fill(pose.plate(-0.26, 0.26, 0.42, 0.53, forward), WHITE, body.label, pose.sunlit)
    if not rear:
        canvas.fill(pose.plate(-0.45 * width, 0.45 * width, 0.56, 0.68, forward), INK, body.label, pose.sunlit)


def _ring(pose: Pose, forward: float, radius: float, right: float = 0.0, up: float | None = None) -> list[Point]:
    """A circle in the plane of the heading that touches the ground, or with its centre at `up`."""
    angles = [math.tau * i / 14 for i in range(15)]
    up = radius if up is None else up
    return [pose.at(right, up + radius * math.sin(a), forward + radius * math.cos(a)) for a in angles]


def _draw_person(canvas: Canvas, pose: Pose, height: float, colours: Sequence[Colour], stride: float) -> None:
    """Legs, coat, arms, head and hair; colours are trousers, coat, skin, hair."""
    trousers, coat, skin, hair = colours
    label, k, light = Label.PERSON, height / 1.75, canvas.light(FRONTAL, pose.sunlit)

    def limb(width, colour, *points):
        canvas.line(pose.all(*((x * k, y * k, z * k) for x, y, z in points)), width * k, colour, label, pose.sunlit)

    for sign in (-1, 1):
        x, foot = 0.09 * sign, sign * stride
        limb(0.15, trousers, (x, 0.86, 0), (x, 0.46, 0.5 * foot + 0.05), (x, 0.06, foot))
        limb(0.1, INK, (x, 0.04, foot), (x, 0.04, foot + 0.16))
        limb(0.1, coat, (0.21 * sign, 1.4, 0), (0.27 * sign, 1.12, -0.3 * foot), (0.27 * sign, 0.87, -0.8 * foot))
        limb(0.09, skin, (0.27 * sign, 0.87, -0.8 * foot), (0.27 * sign, 0.82, -0.85 * foot))
    outline = ((0.18, 0.8), (0.17, 1.1), (0.23, 1.4), (0.1, 1.5))
    torso = [(x * k, y * k) for x, y in (*outline, *((-x, y) for x, y in reversed(outline)))]
    canvas.flat(pose.all(*torso), canvas.seen(coat, light, pose.z), label)
    limb(0.12, skin, (0, 1.45, 0), (0, 1.56, 0))
    canvas.disc(pose.at(0, 1.64 * k), 0.115 * k, hair, label, light)
    if pose.axis[0] < FACELESS:
        canvas.disc(pose.at(0, 1.61 * k), 0.085 * k, skin, label, light)


def _draw_bicycle(canvas: Canvas, pose: Pose, colours: Sequence[Colour], ridden: bool) -> None:
    """Two thin wheels and a frame; colours are the rider's trousers, coat, skin and helmet."""
    label = Label.BICYCLE
    for forward in (-0.52, 0.52):
        canvas.line(_ring(pose, forward, 0.34), 0.05, (34, 34, 36), label, pose.sunlit)
    frame = (
        (0, 0.34, -0.52),
        (0, 0.3, -0.1),
        (0, 0.85, -0.2),
        (0, 0.82, 0.38),
        (0, 0.3, -0.1),
        (0, 0.85, -0.2),
        (0, 0.34, -0.52),
    )
    canvas.line(pose.all(*frame), 0.05, colours[3], label, pose.sunlit)
    canvas.line(pose.all((0, 0.34, 0.52), (0, 0.82, 0.38), (0, 1.0, 0.34)), 0.05, colours[3], label)
    canvas.line(pose.all((-0.25, 1.02, 0.34), (0.25, 1.02, 0.34)), 0.045, INK, label)
    canvas.line(pose.all((-0.06, 0.93, -0.24), (0.06, 0.93, -0.1)), 0.1, INK, label)
    if ridden:
        _draw_rider(canvas, pose, colours, hips=(0.95, -0.2), hands=(1.04, 0.34), feet=(0.34, -0.02))


def _draw_motorcycle(canvas: Canvas, pose: Pose, colours: Sequence[Colour], ridden: bool) -> None:
    """Two broad wheels, a tank, a lamp and a bar; colours as for the bicycle."""
    label = Label.MOTORCYCLE
    for forward in (-0.65, 0.68):
        canvas.line(_ring(pose, forward, 0.28), 0.14, TYRE, label, pose.sunlit)
    shell = ((0.72, -0.85), (0.84, -0.5), (0.78, 0.0), (1.0, 0.4), (0.7, 0.62), (0.3, 0.3), (0.3, -0.35))
    for side in (-0.14, 0.14):
        canvas.fill(pose.all(*((side, *corner) for corner in shell)), colours[3], label, pose.sunlit)
    forward, lamp = (-0.85, RED) if math.cos(pose.heading) > 0 else (0.6, WHITE)
    canvas.fill(pose.plate(-0.15, 0.15, 0.45, 0.86, forward), INK, label, pose.sunlit)
    canvas.disc(pose.at(0, 0.76, forward), 0.07, lamp, label)
    canvas.line(pose.all((-0.36, 1.06, 0.42), (0.36, 1.06, 0.42)), 0.06, INK, label)
    if ridden:
        _draw_rider(canvas, pose, colours, hips=(0.82, -0.25), hands=(1.06, 0.38), feet=(0.32, 0.05))


def _draw_rider(canvas: Canvas, pose: Pose, colours: Sequence[Colour], **joints: tuple[float, float]) -> None:
    """A seated rider; hips, hands and feet are given as (up, forward)."""
    trousers, coat, skin, helmet = colours
    (hip, seat), (hand, bar), (foot, pedal) = joints["hips"], joints["hands"], joints["feet"]
    label, light = Label.RIDER, canvas.light(FRONTAL, pose.sunlit)
    for sign in (-1, 1):
        knee, ankle = (0.2 * sign, 0.64 + 0.12 * sign, seat + 0.42), (0.13 * sign, foot + 0.14 * sign, pedal)
        canvas.line(pose.all((0.1 * sign, hip, seat), knee, ankle), 0.13, trousers, label, pose.sunlit)
        elbow, wrist = (0.3 * sign, hip + 0.22, bar - 0.2), (0.25 * sign, hand, bar)
        canvas.line(pose.all((0.2 * sign, hip + 0.5, seat + 0.2), elbow, wrist), 0.1, coat, label, pose.sunlit)
    for x in (-0.12, 0.0, 0.12):
        canvas.line(pose.all((x, hip + 0.02, seat), (1.2 * x, hip + 0.5, seat + 0.2)), 0.18, coat, label, pose.sunlit)
    canvas.disc(pose.at(0, hip + 0.76, seat + 0.26), 0.125, helmet, label, light)
    if pose.axis[0] < FACELESS:
        canvas.disc(pose.at(0, hip + 0.72, seat + 0.28), 0.08, skin, label, light)


def _draw_tree(canvas: Canvas, pose: Pose, size: tuple[float, float, float], colour: Colour, kind: int) -> None:
    """A trunk with two boughs and a crown; size is the trunk's height, the crown's width and height."""
    trunk, width, height = size
    bark, label = (86, 74, 62), Label.VEGETATION
    x, bottom = (pose.x - width / 2, pose.x + width / 2), pose.ground + trunk
    corners = _upright(x, (pose.z, pose.z), bottom - 0.12 * height, bottom + height)
    if not canvas.visible(corners):
        return
    canvas.line(pose.all((0, 0), (0.03, trunk + 0.25 * height)), 0.03 * width + 0.08, bark, label, pose.sunlit)
    for sign in (-1, 1):
        canvas.line(pose.all((0, trunk), (0.22 * width * sign, trunk + 0.3 * height)), 0.12, bark, label)
    shine = canvas.light((0.0, 0.5, -0.5), 0.35 + 0.65 * pose.sunlit)
    light = tuple(1.15 * k * c / 100 for k, c in zip(shine, colour, strict=True))
    halvings = min(3, max(0, int(math.log2(0.7 * CROWN * pose.z / (FX * width)))))
    canvas.paste(_crowns(halvings)[kind % 8][:, :: 1 if kind < 8 else -1], corners, label, light)


def _draw_pole(canvas: Canvas, pose: Pose, height: float, width: float, colour: Colour, arm: float = 0.0) -> None:
    """A post; with `arm` a lamp hangs over the road at that reach."""
    canvas.line(pose.all((0, 0), (0, height)), width, colour, Label.POLE, pose.sunlit)
    canvas.line(pose.all((0, 0), (0, 0.5)), 1.7 * width, colour, Label.POLE, pose.sunlit)
    if arm:
        top = ((0, height), (0.5 * arm, height + 0.35), (arm, height + 0.4))
        canvas.line(pose.all(*top), 0.09, colour, Label.POLE)
        canvas.line(pose.all((0.7 * arm, height + 0.38), (1.1 * arm, height + 0.38)), 0.2, WHITE, Label.POLE)


def _draw_traffic_light(canvas: Canvas, pose: Pose, state: int, reach: float) -> None:
    """A signal on a post, with a second one over the road when `reach` is not 0."""
    colour, label = (70, 74, 76), Label.TRAFFIC_LIGHT
    _draw_pole(canvas, pose, 5.4 if reach else 3.4, 0.13, colour)
    canvas.line(pose.all((0, 5.4 if reach else 3.4), (reach, 5.5 if reach else 3.4)), 0.1, colour, Label.POLE)
    for x, y in ((0.0, 2.5), (reach, 4.8)) if reach else ((0.0, 2.5),):
        canvas.fill(pose.plate(x - 0.17, x + 0.17, y, y + 0.98, -0.1), (30, 32, 34), label)
        for place, lamp in enumerate(((40, 220, 120), (250, 190, 40), (240, 40, 36))):
            on = place == state
            tone, glow = (lamp, (1.1, 1.1, 1.1)) if on else (_mix(lamp, INK, 0.85), None)
            canvas.disc(pose.at(x, y + 0.18 + 0.31 * place, -0.15), 0.12, tone, label, glow)


def _draw_sign(canvas: Canvas, pose: Pose, kind: int, height: float) -> None:
    """A sign on a thin post: round (ban, order), triangle, square, or a board with a direction."""
    _draw_pole(canvas, pose, height, 0.075, METALS[2])
    label, y = Label.TRAFFIC_SIGN, height - 0.1

    def plate(x, low, high, colour):
        canvas.fill(pose.plate(-x, x, y + low, y + high, -0.05), colour, label)

    if kind < 2:
        canvas.disc(pose.at(0, y, -0.05), 0.34, (RED, BLUE)[kind], label)
        canvas.disc(pose.at(0, y, -0.06), 0.25, (WHITE, BLUE)[kind], label)
        plate(0.16, -0.05, 0.05, (INK, WHITE)[kind])
    elif kind == 2:
        for grow, colour in ((1.0, RED), (0.6, WHITE)):
            corners = ((-0.42 * grow, -0.3 * grow, -0.05), (0.42 * grow, -0.3 * grow, -0.05), (0, 0.42 * grow, -0.05))
            canvas.fill(pose.all(*((x, y + up, f) for x, up, f in corners)), colour, label)
    elif kind == 3:
        plate(0.32, -0.32, 0.32, BLUE)
        plate(0.14, -0.22, 0.24, WHITE)
    else:
        plate(0.62, -0.24, 0.36, BOARDS[kind % 4])
        for low in (-0.12, 0.14):
            plate(0.45, low, low + 0.09, INK if kind % 2 else WHITE)


def _draw_box(canvas: Canvas, pose: Pose, size: tuple[float, float, float], colour: Colour) -> None:
    """A bin or a switch box, which Cityscapes leaves void."""
    width, height, depth = size
    for x in (-width / 2, width / 2):
        side = ((x, 0, 0), (x, 0, depth), (x, height, depth), (x, height, 0))
        canvas.fill(pose.all(*side), colour, Label.VOID, pose.sunlit)
    canvas.fill(pose.plate(-width / 2, width / 2, 0, height), colour, Label.VOID, pose.sunlit)
    canvas.fill(pose.plate(-0.55 * width, 0.55 * width, 0.9 * height, height), _mix(colour, INK, 0.4), Label.VOID)


def _draw_fence(canvas: Canvas, x: float, z: tuple[float, float], height: float, colour: Colour) -> None:
    """Rails, posts and bars; as in Cityscapes, the labels have no holes between them."""
    start, place = max(z[0], 4.0), z[1]
    canvas.flat(_upright((x, x), (start, z[1]), KERB, height), None, Label.FENCE)
    while place > start:
        canvas.line(
            [(x, KERB, place), (x, height, place)], 0.1 if int(place * 4) % 8 == 0 else 0.035, colour, Label.FENCE
        )
        place -= max(0.22, 0.012 * place)
    for up in (0.15 * height, 0.92 * height):
        for a, b in pairwise(np.geomspace(start, z[1], 4).tolist()):
            canvas.line([(x, up, b), (x, up, a)], 0.06, colour, Label.FENCE)


# --- the street -------------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A street being planned: its layout in metres, and what stands in it with its distance, to be painted later."""

    rng: np.random.Generator
    canvas: Canvas
    edges: tuple[float, float]  # x of the left and the right kerb
    walks: tuple[float, float]  # width of the sidewalks
    verges: tuple[float, float]  # width of the grass between sidewalk and plots
    parking: tuple[bool, bool]
    lanes: int
    crossing: tuple[float, float]  # z at which a side street begins and ends
    density: float  # 0 open country, 1 city
    tram: bool
    items: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def add(self, depth: float, draw: Callable, *args) -> None:
        """Remembers to call `draw(canvas, *args)`; the farthest first."""
        self.items.append((depth, partial(draw, self.canvas, *args)))

    def line_x(self, side: int) -> float:
        """The x at which the plots of a side (0 left, 1 right) begin."""
        return self.edges[side] + OUT[side] * (self.walks[side] + self.verges[side])

    def pose(self, x: float, z: float, heading: float = 0.0) -> Pose:
        """A place on the ground, on the kerb's height beside the road, with the light that falls there."""
        ground = 0.0 if self.edges[0] < x < self.edges[1] else KERB
        return Pose(x, z, heading, self.canvas.sunlit(x, z), ground)

    def free(self, z: float, margin: float = 1.0) -> bool:
        """Whether no side street opens at this distance."""
        return not self.crossing[0] - margin < z < self.crossing[1] + margin

    def strip(
        self, x: tuple[float, float], z: tuple[float, float], colour: Colour, label: Label, up: Sequence[float] = (0, 0)
    ) -> None:
        """Paints a band of ground along the street, unlit: light is added to all of the ground at once."""
        near, far = max(z[0], NEAR), min(z[1], FAR)
        if near >= far:
            return
        count = 1 if far < 1.3 * near else 8
        stops = [near * (far / near) ** (i / count) for i in range(count + 1)]
        points = [(x[0], up[0], stop) for stop in stops] + [(x[1], up[1], stop) for stop in reversed(stops)]
        self.canvas.flat(points, tuple(map(int, colour)), label)


def _plan(rng: np.random.Generator) -> Scene:
    """Draws weather, camera and layout of a street."""
    weather = WEATHERS[int(np.searchsorted(WEATHER_ODDS, rng.random()))]
    bend, hill = rng.normal(0, 0.002) * (rng.random() < 0.6), rng.uniform(-0.00004, 0.00025)
    camera = Camera(rng.uniform(1.3, 1.65), rng.uniform(195, 235), HALF + rng.uniform(-30, 30), bend, hill)
    elevation, azimuth = rng.uniform(*weather.elevation), rng.uniform(0, math.tau)
    level = math.cos(elevation)
    sun = (level * math.sin(azimuth), math.sin(elevation), level * math.cos(azimuth))
    lanes, parking = _pick(rng, (1, 2, 2, 3)), (rng.random() < 0.6, rng.random() < 0.5)
    tram, density = rng.random() < 0.16, _pick(rng, (0.1, 0.35, 0.6, 0.8, 1.0))
    left = -1.9 - LANE * (lanes - 1 + tram) - PARKING * parking[0]
    right = 1.75 + PARKING * parking[1] + LANE * (rng.random() < 0.1)
    start = rng.uniform(14, 50) if rng.random() < 0.5 else 2 * FAR
    walks = tuple(rng.uniform(2.2, 5.0, 2).tolist())
    verges = tuple(rng.uniform(1.2, 4.5) * (rng.random() < 0.9 - 0.55 * density) for _ in walks)
    crossing = (start, start + rng.uniform(7, 11))
    return Scene(
        rng, Canvas(camera, weather, sun), (left, right), walks, verges, parking, lanes, crossing, density, tram
    )


def _draw_ground(scene: Scene) -> None:
    """Road, kerbs, sidewalks and grass."""
    rng, strip, whole, raised = scene.rng, scene.strip, (NEAR, FAR), (KERB, KERB)
    asphalt, paving, grass = (_varied(rng, _pick(rng, tones), 0.1) for tones in (ASPHALTS, PAVINGS, GRASSES))
    city = scene.density > 0.7
    strip((-400, 400), whole, paving if city else grass, Label.SIDEWALK if city else Label.TERRAIN, raised)
    for edge, out, walk, verge in zip(scene.edges, OUT, scene.walks, scene.verges, strict=True):
        border = edge + out * walk
        if verge:
            strip((border, border + out * verge), whole, grass, Label.TERRAIN, raised)
        strip((edge, border), whole, paving, Label.SIDEWALK, raised)
        joint = _mix(paving, (60, 60, 60), 0.25)
        for z in np.geomspace(3, 34, 30).tolist():
            strip((edge, border), (z, z + 0.03 + 0.001 * z), joint, Label.SIDEWALK, raised)
        for x in np.linspace(edge, border, 5)[1:-1].tolist():
            strip((x - 0.02, x + 0.02), (NEAR, 26), joint, Label.SIDEWALK, raised)
    strip((-400, 400), scene.crossing, asphalt, Label.ROAD)
    strip(scene.edges, whole, asphalt, Label.ROAD)
    for (edge, out), z in product(zip(scene.edges, OUT, strict=True), _spans(scene)):
        strip((edge - out * 0.3, edge), z, _mix(asphalt, (60, 60, 60), 0.35), Label.ROAD)
        strip((edge, edge), z, _mix(paving, (60, 60, 60), 0.3), Label.SIDEWALK, (0, KERB))
        strip((edge, edge + out * 0.16), z, _mix(paving, (215, 213, 208), 0.5), Label.SIDEWALK, raised)
    _draw_patches(scene, asphalt)
    _draw_marks(scene, _varied(rng, (205, 205, 200), 0.12))


def _spans(scene: Scene, before: float = 0.0, after: float = 0.0) -> tuple[tuple[float, float], ...]:
    """The stretches of the street before and after the side street."""
    return (NEAR, scene.crossing[0] - before), (scene.crossing[1] + after, FAR)


def _draw_patches(scene: Scene, asphalt: Colour) -> None:
    """Repairs and manhole covers in the road."""
    rng, (left, right) = scene.rng, scene.edges
    for _ in range(int(rng.integers(2, 7))):
        x, z = rng.uniform(left, right - 1), rng.uniform(4, 40)
        size = (rng.uniform(0.5, 2), rng.uniform(1, 9))
        scene.strip((x, min(right, x + size[0])), (z, z + size[1]), _varied(rng, asphalt, 0.14), Label.ROAD)
    for _ in range(int(rng.integers(0, 4))):
        x, z = rng.uniform(left + 0.5, right - 0.5), rng.uniform(5, 25)
        cover = [(x + 0.35 * math.cos(a), 0.0, z + 0.35 * math.sin(a)) for a in range(7)]
        scene.canvas.flat(cover, tuple(int(0.6 * c) for c in asphalt), Label.ROAD)


def _draw_marks(scene: Scene, paint: Colour) -> None:
    """Lane marks, lines along parked cars, a zebra crossing and a stop line, tram rails."""
    rng, (left, right) = scene.rng, scene.edges
    for lane in range(scene.lanes):
        dashes = np.arange(rng.uniform(0, 6), 90, 7.5).tolist() if rng.random() < 0.8 else None
        for near, far in _spans(scene, 5.5, 1.0):
            for z in dashes or [near]:
                if near <= z < far:
                    x = -1.75 - LANE * lane
                    scene.strip((x - 0.07, x + 0.07), (z, min(far, z + 3.5) if dashes else far), paint, Label.ROAD)
    for edge, out, parked in zip(scene.edges, OUT, scene.parking, strict=True):
        x = edge - out * (PARKING * parked + 0.15)
        if rng.random() < 0.5:
            scene.strip((x - 0.06, x + 0.06), (NEAR, scene.crossing[0] - 5), paint, Label.ROAD)
    z, stop = scene.crossing[0] - 4, right - PARKING * scene.parking[1] - 0.2
    for x in np.arange(left + 0.4, right - 0.4, 1.0).tolist() if rng.random() < 0.7 and z < FAR else ():
        scene.strip((x, x + 0.5), (z, z + 3), paint, Label.ROAD)
    scene.strip((-1.6, stop), (z - 1.3, z - 0.9), paint, Label.ROAD)
    if scene.tram:
        for x in (-1.75 - LANE * scene.lanes + 0.9, -1.75 - LANE * scene.lanes + 2.34):
            scene.strip((x - 0.07, x + 0.07), (NEAR, FAR), (66, 62, 60), Label.ROAD)
            scene.strip((x - 0.03, x + 0.04), (NEAR, FAR), (176, 178, 182), Label.ROAD)


def _light_ground(scene: Scene) -> None:
    """Gives all of the ground its grain, light, shadows and haze; the rest is painted over it later."""
    canvas, camera, weather = scene.canvas, scene.canvas.camera, scene.canvas.weather
    top = int(min(camera.pixel((0, 0, z))[1] for z in (FAR / 2, FAR))) // 2 * 2
    ground, rows, size = canvas.photo[top:], (SIDE - top) // 2, (SIDE, SIDE - top)
    sun = cv2.blur(canvas.sunlight[-rows:], (3, 3)).astype(np.float32)[..., None] / 255
    sky = cv2.blur(canvas.openness[-rows:], (5, 5)).astype(np.float32)[..., None] / 255
    depth = camera.height * FY / np.maximum(np.arange(top, SIDE, 2) - camera.horizon, 0.01 * FY)
    keep = np.exp(-depth / weather.sight).astype(np.float32)[:, None, None]
    light = keep * sky * (np.float32(weather.ambient) + sun * np.float32(weather.sun) * canvas.sun[1])
    haze = np.broadcast_to((1 - keep) * np.float32(weather.horizon), (rows, HALF, 3))
    corners = [camera.pixel((x, 0, z)) for x, z in ((-20, 44), (20, 44), (20, 4), (-20, 4))]
    tile = np.float32([(0, 0), (1024, 0), (1024, 1024), (0, 1024)])
    plane = cv2.getPerspectiveTransform(tile, np.float32(corners) - np.float32([0, top]))
    grain = cv2.warpPerspective(_grain(), plane, size, borderMode=cv2.BORDER_REFLECT_101)
    cv2.multiply(ground, cv2.cvtColor(grain, cv2.COLOR_GRAY2RGB), ground, scale=1 / 128)
    cv2.multiply(ground, cv2.resize((128 * light).clip(0, 255).astype(np.uint8), size), ground, scale=1 / 128)
    cv2.add(ground, cv2.resize(haze.astype(np.uint8), size), ground)


def _draw_sky(scene: Scene) -> None:
    """A gradient with clouds."""
    canvas, weather, rng = scene.canvas, scene.canvas.weather, scene.rng
    bottom, size = int(canvas.camera.horizon) + 20, (HALF // 2, HALF // 4)
    rise = np.linspace(1, 0, size[1], dtype=np.float32)[:, None, None] ** 0.8
    sky = np.float32(weather.zenith) * rise + np.float32(weather.horizon) * (1 - rise)
    x, y = rng.integers(0, 200, 2)
    cover = cv2.resize(_noise(7)[y : y + 200, x : x + 260], size).astype(np.float32)[..., None] / 255
    cloud = np.clip((cover - 0.75 + 0.5 * weather.clouds) * 4, 0, 1) * min(1, 2 * weather.clouds)
    white = np.float32(_mix((246, 246, 246), weather.horizon, 0.45))
    sky = sky + cloud * (white * (1.12 - 0.3 * cover) - sky)
    canvas.photo[:bottom] = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (SIDE, bottom))
    canvas.labels[:bottom] = Label.SKY


def _plan_backdrop(scene: Scene) -> None:
    """What closes the view at the end of the street: houses and trees, or a building across it."""
    rng = scene.rng
    style = _style(rng, scene.canvas.weather)
    bushes = _upright((-80, 80), (FAR, FAR), -1, rng.uniform(3, 6))
    green = tuple(0.7 * k * c / 100 for k, c in zip(scene.canvas.light((0, 0, -1)), _pick(rng, LEAVES), strict=True))
    scene.add(FAR + 2, Canvas.paste, _leaves(), bushes, Label.VEGETATION, green)
    for x in np.arange(-64, 64, 8.0).tolist():
        if rng.random() < 0.2 + 0.3 * scene.density:
            _plan_front(scene, (x, x + 12), FAR, rng.uniform(6, 10 + 12 * scene.density), style)
        else:
            _plan_tree(scene, x, FAR - rng.uniform(0, 20), big=True)
    if rng.random() < 0.35:
        _plan_front(scene, (-24, 24), rng.uniform(60, 110), rng.uniform(7, 20), _style(rng, scene.canvas.weather))


def _plan_front(scene: Scene, x: tuple[float, float], z: float, height: float, style: Style) -> None:
    """A front that faces the camera."""
    corners = _upright((min(x), max(x)), (z, z), KERB, height)
    if scene.canvas.visible(corners):
        scale = min(24.0, max(4.0, 600 / z))
        image = _facade(scene.rng, style, (abs(x[1] - x[0]), height), (scale, scale))
        scene.add(z + 0.2, Canvas.paste, image, corners, Label.BUILDING, scene.canvas.light((0, 0, -1)))


def _plan_side(scene: Scene, side: int) -> None:
    """Plot after plot along one side of the street."""
    rng, z, x = scene.rng, 3.0, scene.line_x(side)
    while z < 105:
        if scene.crossing[0] - 5 < z < scene.crossing[1]:
            z = scene.crossing[1] + 0.5
        end = z + rng.uniform(8, 20)
        if z < scene.crossing[0]:
            end = min(end, scene.crossing[0])
        chance = rng.random() - scene.density * 0.85
        if chance < 0:
            _plan_house(scene, side, (x, x + OUT[side] * 11), (z, end), rng.uniform(7, 19))
        elif chance < 0.5 * (1 - scene.density):
            _plan_garden(scene, side, z, end)
        else:
            _plan_park(scene, side, z, end)
        z = end


def _plan_house(scene: Scene, side: int, x: tuple[float, float], z: tuple[float, float], height: float) -> None:
    """A building whose front lies along the street and whose side faces the camera, with a roof or without."""
    rng, canvas, style = scene.rng, scene.canvas, _style(scene.rng, scene.canvas.weather)
    corners = _upright((x[0], x[0]), z, KERB, height)
    if canvas.visible(corners):
        nearest = max(z[0], min(z[1] - 1, FX * abs(x[0]) / HALF))
        up = min(26.0, max(4.0, 700 / nearest))
        across = min(up, max(2.0, 2 * FX * abs(x[0]) / nearest / z[1]))  # it is seen at a flat angle
        image = _facade(rng, style, (z[1] - z[0], height), (across, up))
        scene.add(z[1], Canvas.paste, image, corners, Label.BUILDING, canvas.light((-OUT[side], 0, 0)))
    _plan_front(scene, x, z[0], height, style)
    if rng.random() < 0.55:
        middle, ridge = (x[0] + x[1]) / 2, height + 0.35 * abs(x[1] - x[0])
        roof = [(x[0], height, z[0]), (x[0], height, z[1]), (middle, ridge, z[1]), (middle, ridge, z[0])]
        scene.add(z[1] + 0.1, Canvas.fill, roof, _varied(rng, _pick(rng, ROOFS)), Label.BUILDING)
        gable = [(x[0], height, z[0]), (middle, ridge, z[0]), (x[1], height, z[0])]
        scene.add(z[0] + 0.1, Canvas.fill, gable, style.wall, Label.BUILDING)
    canvas.shadow([(a, b) for a in x for b in z], height)


def _plan_barrier(scene: Scene, side: int, z0: float, z1: float) -> None:
    """A wall, a fence or a hedge along the sidewalk."""
    rng, canvas, x, kind = scene.rng, scene.canvas, scene.line_x(side), scene.rng.random()
    light = canvas.light((-OUT[side], 0.0, 0))
    height = rng.uniform(1.4, 3.4) if kind < 0.35 else rng.uniform(1.0, 1.9)
    corners = _upright((x, x), (z0, z1), KERB, height)
    if kind < 0.35:
        scene.add(z1, Canvas.paste, _wall(rng, z1 - z0, height), corners, Label.WALL, light)
    elif kind < 0.7:
        scene.add(z1, _draw_fence, x, (z0, z1), height, _varied(rng, _pick(rng, FENCES)))
    else:
        tint = tuple(1.2 * k * c / 100 for k, c in zip(light, _pick(rng, LEAVES), strict=True))
        scene.add(z1, Canvas.paste, _leaves(), corners, Label.VEGETATION, tint)
    canvas.shadow([(a, b) for a in (x, x + OUT[side] * 0.4) for b in (z0, z1)], height)


def _plan_garden(scene: Scene, side: int, z0: float, z1: float) -> None:
    """A house behind a barrier, with trees."""
    rng, x = scene.rng, scene.line_x(side)
    _plan_barrier(scene, side, z0, z1)
    front = x + OUT[side] * rng.uniform(3, 6)
    _plan_house(scene, side, (front, front + OUT[side] * 8), (z0 + 1.5, z1 - 1.5), rng.uniform(4, 7.5))
    for z in (z0 + 1, z1 - 1):
        if rng.random() < 0.6:
            _plan_tree(scene, x + OUT[side] * rng.uniform(1.2, 3), z, big=rng.random() < 0.3)


def _plan_park(scene: Scene, side: int, z0: float, z1: float) -> None:
    """Trees on grass, sometimes behind a barrier."""
    rng, x = scene.rng, scene.line_x(side)
    if rng.random() < 0.6:
        _plan_barrier(scene, side, z0, z1)
    for _ in range(int(rng.integers(3, 6))):
        _plan_tree(scene, x + OUT[side] * rng.uniform(1.5, 12), rng.uniform(z0 + 1, z1), big=rng.random() < 0.65)


def _plan_tree(scene: Scene, x: float, z: float, big: bool) -> None:
    rng, grow = scene.rng, 1.0 if big else 0.5
    trunk, width, height = (rng.uniform(a, b) * grow for a, b in ((2.2, 3.8), (5, 8.5), (5.5, 9.5)))
    colour, kind = _varied(rng, _pick(rng, LEAVES)), int(rng.integers(16))
    scene.add(z, _draw_tree, scene.pose(x, z), (trunk, width, height), colour, kind)
    crown = [(x + 0.4 * width * math.cos(a), z + 0.4 * width * math.sin(a)) for a in range(7)]
    scene.canvas.shadow(crown, trunk + 0.4 * height, touching=False)
    scene.canvas.shadow([(x - 0.12, z), (x + 0.12, z)], trunk)


def _plan_vehicle(scene: Scene, body: Body, x: float, z: float, heading: float = 0.0) -> None:
    """A vehicle whose rear is at (x, z), or whose front is when it comes towards us."""
    rng, pose = scene.rng, scene.pose(x, z, heading)
    length, half_width, height = body.size
    if heading == math.pi:
        pose = replace(pose, z=z + length)
    paints = LIVERIES if body.label in (Label.BUS, Label.TRAIN) else PAINTS
    colours = {name: _varied(rng, _pick(rng, tones)) for name, tones in (("body", paints), ("cargo", WALLS + PAINTS))}
    colours |= {"dark": (34, 35, 38), "rim": _pick(rng, ((120, 122, 126), (66, 68, 72), (176, 178, 180)))}
    colours["glass"] = _mix((26, 30, 34), scene.canvas.weather.horizon, rng.uniform(0.05, 0.3))
    scene.add(z, _draw_vehicle, body, pose, colours, min(1.0, scene.canvas.weather.lamps + 0.15))
    scene.canvas.shadow(pose.footprint(half_width + 0.04, -0.05, length + 0.05), 0.8 * min(height, LOW))


def _plan_parking(scene: Scene, side: int) -> None:
    """A row of parked cars with gaps, on our side seen from behind, on the other mostly from the front."""
    rng, z, full = scene.rng, scene.rng.uniform(4, 9), scene.rng.uniform(0.4, 0.95)
    x = scene.edges[side] - OUT[side] * (PARKING / 2 - 0.05)
    while scene.parking[side] and z < 85:
        if rng.random() < full and scene.free(z, 9):
            heading = math.pi if side == 0 and rng.random() < 0.9 else 0.0
            _plan_vehicle(scene, _pick(rng, CARS), x + rng.normal(0, 0.08), z, heading)
        z += rng.uniform(5.6, 6.8)


def _plan_traffic(scene: Scene) -> None:
    """What drives: ahead in our lane, towards us in the others, across at the side street, a tram on its rails."""
    rng = scene.rng
    for lane in range(scene.lanes):
        z = rng.uniform(9, 45)
        x = 0.0 if lane == 0 else -1.75 - LANE * (lane - 0.5)
        while z < 100 and rng.random() < 0.75:
            heading = math.pi if lane and lane == scene.lanes - 1 else 0.0
            _plan_vehicle(scene, _moving(rng), x + rng.normal(0, 0.15), z, heading)
            z += rng.uniform(15, 40)
    if scene.tram and rng.random() < 0.8:
        _plan_vehicle(scene, TRAM, -1.75 - LANE * scene.lanes + 1.62, rng.uniform(12, 40), math.pi)
    if scene.crossing[0] < 60 and rng.random() < 0.4:
        _plan_vehicle(scene, _moving(rng), rng.uniform(-20, -4), sum(scene.crossing) / 2 - 1.6, math.pi / 2)


def _moving(rng: np.random.Generator) -> Body:
    """A vehicle that drives: now and then a truck or a bus."""
    chance = rng.random()
    return TRUCK if chance < 0.08 else BUS if chance < 0.16 else _pick(rng, CARS)


def _plan_people(scene: Scene) -> None:
    """Pedestrians on the sidewalks and the zebra crossing; bicycles and motorcycles ridden and parked."""
    rng = scene.rng
    for _ in range(int(rng.poisson(4 + 9 * scene.density))):
        side = int(rng.integers(2))
        x = scene.edges[side] + OUT[side] * rng.uniform(0.4, scene.walks[side] - 0.2)
        _plan_person(scene, x, 7 + 50 * rng.random() ** 1.9)
    if scene.crossing[0] < 45 and rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            _plan_person(scene, rng.uniform(*scene.edges), scene.crossing[0] - rng.uniform(1.3, 3.5), math.pi / 2)
    ours, theirs = scene.edges[1] - PARKING * scene.parking[1] - 0.6, -1.15 - LANE * (scene.lanes - 1)
    for draw, chance in ((_draw_bicycle, 0.5), (_draw_motorcycle, 0.25)):
        for x, heading in ((ours, 0.0), (theirs, math.pi)):
            if rng.random() < chance:
                pose = scene.pose(x + rng.uniform(-0.2, 0.2), rng.uniform(8, 30), heading + rng.normal(0, 0.2))
                _plan_two_wheeler(scene, draw, pose, True)
        if rng.random() < chance:
            side, z, heading = int(rng.integers(2)), rng.uniform(9, 28), rng.uniform(0.6, 2.2)
            x = scene.edges[side] + OUT[side] * rng.uniform(0.5, 1)
            for step in range(int(rng.integers(1, 4))):
                _plan_two_wheeler(scene, draw, scene.pose(x, z + 0.9 * step, heading), False)


def _person_colours(rng: np.random.Generator) -> tuple[Colour, ...]:
    """Trousers, coat, skin and hair."""
    return (
        _varied(rng, _pick(rng, CLOTHES[:7])),
        _varied(rng, _pick(rng, CLOTHES)),
        _pick(rng, SKINS),
        _pick(rng, HAIRS),
    )


def _plan_person(scene: Scene, x: float, z: float, heading: float | None = None) -> None:
    rng = scene.rng
    heading = _pick(rng, (0.15, -0.2, math.pi, 2.9, 1.4)) if heading is None else heading
    height = rng.normal(1.74, 0.08) if rng.random() < 0.9 else rng.uniform(1.1, 1.4)
    pose = scene.pose(x, z, heading)
    scene.add(z, _draw_person, pose, height, _person_colours(rng), rng.uniform(-0.3, 0.3))
    scene.canvas.shadow(pose.footprint(0.2, -0.15, 0.15), height)


def _plan_two_wheeler(scene: Scene, draw: Callable, pose: Pose, ridden: bool) -> None:
    helmet = _varied(scene.rng, _pick(scene.rng, CLOTHES + PAINTS))
    scene.add(pose.z, draw, pose, (*_person_colours(scene.rng)[:3], helmet), ridden)
    scene.canvas.shadow(pose.footprint(0.18, -0.8, 0.8), 1.5 if ridden else 0.8)


def _plan_furniture(scene: Scene, side: int) -> None:
    """Street trees, lamp posts, signs, traffic lights and bins along the kerb."""
    rng, out = scene.rng, OUT[side]
    kerb, trees, lamps = scene.edges[side] + out * 0.45, rng.random() < 0.6, rng.random() < 0.75
    for z in filter(scene.free, np.arange(rng.uniform(7, 15), 100, rng.uniform(8, 15)).tolist()):
        if trees and rng.random() < 0.85:
            _plan_tree(scene, kerb + out * 0.4, z, big=rng.random() < 0.6)
    for z in filter(scene.free, np.arange(rng.uniform(10, 26), 100, 24).tolist()):
        if lamps:
            colour = _varied(rng, _pick(rng, METALS))
            scene.add(z, _draw_pole, scene.pose(kerb, z), rng.uniform(5, 7.5), 0.14, colour, -out * rng.uniform(1, 2.2))
            scene.canvas.shadow([(kerb - 0.05, z), (kerb + 0.05, z)], 7)
    for z in filter(scene.free, rng.uniform(8, 45, rng.integers(0, 4)).tolist()):
        pose = scene.pose(kerb + out * rng.uniform(0, 0.4), z)
        scene.add(z, _draw_sign, pose, _pick(rng, SIGNS), rng.uniform(2.2, 3.0))
    for z in filter(scene.free, rng.uniform(8, 35, rng.integers(0, 3)).tolist()):
        size = (rng.uniform(0.5, 1.1), rng.uniform(0.8, 1.4), rng.uniform(0.4, 0.6))
        pose = scene.pose(kerb + out * rng.uniform(0.1, 0.8), z)
        scene.add(z, _draw_box, pose, size, _varied(rng, _pick(rng, BINS)))
        scene.canvas.shadow(pose.footprint(size[0] / 2, 0, size[2]), size[1])
    _plan_signals(scene, kerb, -out)


def _plan_signals(scene: Scene, kerb: float, inwards: int) -> None:
    """Traffic lights on both sides of the side street."""
    rng = scene.rng
    if scene.crossing[0] > 70 or rng.random() < 0.2:
        return
    for z in (scene.crossing[0] - 5, scene.crossing[1] + 1):
        reach = inwards * rng.uniform(2.5, 4) * (rng.random() < 0.4)
        scene.add(z, _draw_traffic_light, scene.pose(kerb, z), int(rng.integers(3)), reach)


def _draw_bonnet(scene: Scene) -> None:
    """The bonnet of the car that carries the camera, which is void."""
    rng, canvas = scene.rng, scene.canvas
    rise, tilt, columns = rng.uniform(30, 56), rng.uniform(-6, 6), np.linspace(-20, SIDE + 20, 24)
    paint = canvas.seen(_pick(rng, PAINTS[:6]), canvas.light((0, 0.9, -0.3)), 0)
    across = columns / HALF - 1
    for step, share in enumerate((0.55, 0.8, 0.74, 0.7)):
        rows = SIDE - rise + 7 * step + tilt * across + 0.75 * rise * np.abs(across) ** 2.4
        outline = [*np.stack([columns, rows], -1).tolist(), (SIDE + 20, SIDE + 20), (-20, SIDE + 20)]
        polygon = np.array([outline], np.int32)
        cv2.fillPoly(canvas.photo, polygon, tuple(int(share * c) for c in paint))
        cv2.fillPoly(canvas.labels, polygon, int(Label.VOID))


def _develop(scene: Scene, size: int) -> np.ndarray:
    """Lens and sensor: shrink, blur, vignetting, exposure, noise."""
    rng = scene.rng
    photo = cv2.resize(scene.canvas.photo, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        photo = cv2.GaussianBlur(photo, (3, 3), rng.uniform(0.3, 0.7))
    offset = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    vignette = 1 - rng.uniform(0.05, 0.22) * 0.5 * (offset[:, None] + offset)
    exposure = (rng.uniform(85, 125) / photo.mean()) ** 0.7
    image = photo * (vignette[..., None] * np.float32(exposure * rng.normal(1, 0.025, 3)))
    y, x = rng.integers(0, _sensor_noise().shape[0] - size, 2)
    image += rng.uniform(1.5, 5) * _sensor_noise()[y : y + size, x : x + size]
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_scene(seed: int | Sequence[int], *, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draws one street scene.

    Args:
        seed: Decides everything in the scene; a sequence of integers will do.
        size: Height and width of the result in pixels, at most 512.

    Returns:
        The photo, uint8 RGB `(size, size, 3)`, and the mask in the official Cityscapes colours, uint8 RGB
        `(size, size, 3)`, blended where classes meet.

    Example:
        >>> photo, mask = draw_scene(3)
        >>> photo.shape, mask.dtype
        ((256, 256, 3), dtype('uint8'))
    """
    scene = _plan(np.random.default_rng(seed))
    _draw_sky(scene)
    _draw_ground(scene)
    _plan_backdrop(scene)
    for plan in (_plan_side, _plan_furniture, _plan_parking):
        for side in LEFT, RIGHT:
            plan(scene, side)
    _plan_traffic(scene)
    _plan_people(scene)
    _light_ground(scene)
    for _, draw in sorted(scene.items, key=lambda item: -item[0]):
        draw()
    if scene.rng.random() < 0.92:
        _draw_bonnet(scene)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(COLOURS), 0] = COLOURS
    mask = cv2.applyColorMap(scene.canvas.labels, table)
    return _develop(scene, size), cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)


# --- the data set -----------------------------------------------------------------------------------------------------


def _write_pair(path: Path, seed: Sequence[int]) -> None:
    pair = np.concatenate(draw_scene(seed), axis=1)
    Image.fromarray(pair).save(path, quality=95, subsampling="4:2:0")


def make_demo(folder: str | Path, *, num_train: int = 200, num_val: int = 50, seed: int = 0) -> None:
    """Writes the demo data set: `folder/train/<n>.jpg` and `folder/val/<n>.jpg`, n = 1, 2, 3 ...

    Each file is a JPEG of 512x256 (width x height): the photo left, the colour mask right. A scene depends on the seed,
    the split and its number only. The pairs are written beside the folder and renamed at the end, so that a killed run
    leaves no half of a set.

    Args:
        folder: Where `train` and `val` go; other files in it stay.
        num_train: How many pairs to train on.
        num_val: How many pairs to validate on.
        seed: Another seed gives other streets.

    Raises:
        DataError: `folder` already has a `train` or a `val`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> make_demo(folder, num_train=2, num_val=1)
        >>> sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))
        ['train/1.jpg', 'train/2.jpg', 'val/1.jpg']
    """
    folder = Path(folder)
    for split in SPLITS:
        if (folder / split).exists():
            raise DataError(f"{folder / split}: exists already; remove it, or give another folder for the demo data")
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for number, (split, count) in enumerate(zip(SPLITS, (num_train, num_val), strict=True)):
            (temporary / split).mkdir(parents=True)
            for n in range(1, count + 1):  # threads would not help: most of the time is Python's own
                _write_pair(temporary / split / f"{n}.jpg", [seed, number, n])
        if not folder.exists():
            temporary.rename(folder)
            return
        for split in SPLITS:
            (temporary / split).rename(folder / split)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
