"""Camera, light, canvas and lens: every shape is painted into photo and labels by the same call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import cv2
import numpy as np

SIDE = 512  # scenes are painted at this size and shrunk, which smooths edges
HALF = SIDE // 2  # light falling on the ground is kept at half that size
FX, FY = 600.0, 900.0  # focal lengths in pixels: like Kaggle's pairs, the 2:1 photo is squeezed into a square
NEAR, FAR = 2.2, 140.0  # metres in front of the camera
LOW = 5.0  # things below this height in metres darken the ground that they stand on

Rng = np.random.Generator
Point = tuple[float, float, float]  # metres: right, up, forward
Points = Sequence[Point]
Colour = Sequence[float]  # RGB, 0 to 255
Light = tuple[float, float, float]  # factor for each channel


class Label(IntEnum):
    """The 19 classes that Cityscapes judges, in its order, after the void."""

    VOID, ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION = range(10)
    TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 20)


# fmt: off
COLOURS = np.array([  # of the labels, in the official mask
    (0, 0, 0), (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
    (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
    (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
], np.uint8)
# fmt: on


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


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above x = 0 that looks along the street; bend and hill shift the world with distance squared."""

    height: float
    horizon: float
    centre: float
    bend: float
    hill: float

    def pixels(self, points: Points) -> list[tuple[float, float]]:
        """Projects metres to (column, row) on the canvas; what lies behind the camera is held at `NEAR`.

        Args:
            points: Places in metres (right, up, forward).

        Returns:
            (column, row) of each.
        """
        projected = []
        for x, y, z in points:
            z = z if z > NEAR else NEAR  # max() would cost twice the time, and this runs 5000 times a scene
            row = self.horizon + FY * ((self.height - y) / z - self.hill * z)
            projected.append((self.centre + FX * (x / z + self.bend * z), row))
        return projected

    def fixed(self, points: Points, scale: int = 16) -> np.ndarray:
        """The pixels as OpenCV's fixed-point numbers, int32 `(1, points, 2)`.

        Args:
            points: Places in metres.
            scale: Steps to the pixel: 16 for OpenCV's `shift=4`.
        """
        return (np.array(self.pixels(points)) * scale).astype(np.int32)[None]

    def sees(self, points: Points) -> bool:
        """Whether the box around the points touches the photo.

        Args:
            points: Places in metres.
        """
        columns, rows = zip(*self.pixels(points), strict=True)
        return max(columns) > 0 and min(columns) < SIDE and max(rows) > 0 and min(rows) < SIDE


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
        self.sunlight, self.openness = np.full((2, HALF, HALF), 255, np.uint8)

    def light(self, normal: Point, sunlit: float = 1.0) -> Light:
        """Light on a face: from the sky (more from above) and from the sun.

        Args:
            normal: Of the face, length 1.
            sunlit: Share of the sun's light that arrives, 0 to 1.

        Returns:
            Factor for each channel.
        """
        (nx, ny, nz), (x, y, z), (r, g, b), (sr, sg, sb) = normal, self.sun, self.weather.ambient, self.weather.sun
        sky, facing = 0.86 + 0.14 * ny, max(0.0, nx * x + ny * y + nz * z) * sunlit
        return r * sky + sr * facing, g * sky + sg * facing, b * sky + sb * facing

    def transmittance(self, depth: float) -> float:
        """Share of an object's own colour that is left by the haze.

        Args:
            depth: Distance in metres.

        Returns:
            0 to 1.
        """
        return math.exp(-max(depth, 0.0) / self.weather.sight)

    def shade(self, colour: Colour, light: Light, depth: float) -> list[int]:
        """The colour that reaches the camera.

        Args:
            colour: RGB, 0 to 255.
            light: Factor for each channel.
            depth: Distance in metres.

        Returns:
            RGB, 0 to 255.
        """
        keep, haze = self.transmittance(depth), self.weather.horizon
        channels = zip(colour, light, haze, strict=True)
        return [min(255, int(c * gain * keep + h * (1 - keep))) for c, gain, h in channels]

    def fill(self, points: Points, colour: Colour, label: Label, sunlit: float = 1.0, cull: bool = False) -> None:
        """Fills a flat polygon, lit by sun and sky.

        Args:
            points: Corners in metres, in order.
            colour: RGB, 0 to 255.
            label: The class of the pixels.
            sunlit: Share of the sun's light that arrives, 0 to 1.
            cull: Whether to leave out a face whose outer side (anticlockwise normal) is turned away from the camera.
        """
        normal, (x, y, z) = _normal(points), points[0]
        if normal[0] * x + normal[1] * (y - self.camera.height) + normal[2] * z > 0:  # it points away from the camera
            if cull:
                return
            normal = (-normal[0], -normal[1], -normal[2])
        self.fill_unlit(points, self.shade(colour, self.light(normal, sunlit), z), label)

    def fill_unlit(self, points: Points, colour: Colour | None, label: Label) -> None:
        """Fills a polygon with a finished colour.

        Args:
            points: Corners in metres, in order.
            colour: RGB, 0 to 255; None to fill the labels only.
            label: The class of the pixels.
        """
        corners = self.camera.fixed(points)
        if colour is not None:
            cv2.fillPoly(self.photo, corners, colour, shift=4)
        cv2.fillPoly(self.labels, corners, int(label), shift=4)

    def line(self, points: Points, width: float, colour: Colour, label: Label, sunlit: float = 1.0) -> None:
        """Draws a bar along a path, at least one pixel thick.

        Args:
            points: Corners of the path in metres.
            width: In metres.
            colour: RGB, 0 to 255.
            label: The class of the pixels.
            sunlit: Share of the sun's light that arrives, 0 to 1.
        """
        depth, path = max(points[0][2], NEAR), self.camera.fixed(points)
        thickness = max(1, round(width * FX / depth))
        tone = self.shade(colour, self.light((-0.3, 0.2, -0.6), sunlit), depth)
        cv2.polylines(self.photo, path, False, tone, thickness, shift=4)
        cv2.polylines(self.labels, path, False, int(label), thickness, shift=4)

    def disc(self, centre: Point, radius: float, colour: Colour, label: Label, light: Light | None = None) -> None:
        """Draws an upright disc that faces the camera.

        Args:
            centre: In metres (right, up, forward).
            radius: In metres.
            colour: RGB, 0 to 255.
            label: The class of the pixels.
            light: Of something that glows by itself; None for the light of the scene.
        """
        middle, depth = self.camera.fixed([centre])[0, 0].tolist(), max(centre[2], NEAR)
        axes = (max(8, int(16 * radius * FX / depth)), max(8, int(16 * radius * FY / depth)))
        tone = self.shade(colour, light or self.light((-0.3, 0.2, -0.6)), depth)
        for image, value in ((self.photo, tone), (self.labels, int(label))):
            cv2.ellipse(image, middle, axes, 0, 0, 360, value, cv2.FILLED, shift=4)

    def paste(self, image: np.ndarray, corners: Points, label: Label, light: Light) -> None:
        """Maps an image onto a quad.

        RGB covers the quad; RGBA leaves the pixels below half alpha as they were, in photo and labels.

        Args:
            image: uint8 `(h, w, 3)` or `(h, w, 4)`.
            corners: In metres: left top, right top, right bottom, left bottom.
            label: The class of the pixels.
            light: Factor for each channel.
        """
        if not self.camera.sees(corners):
            return
        quad = np.array(self.camera.pixels(corners), np.float32)
        x0, y0 = np.clip(np.floor(quad.min(0)), 0, SIDE).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(quad.max(0)), 0, SIDE).astype(int).tolist()
        image = self._shade_image(
            _shrink(image, *np.ptp(quad, axis=0).tolist()), light, min(point[2] for point in corners)
        )
        height, width, channels = image.shape
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        homography = cv2.getPerspectiveTransform(source, quad - np.float32([x0, y0]))
        part, size = self.photo[y0:y1, x0:x1], (x1 - x0, y1 - y0)  # a view: what is written there is in the photo
        if channels == 3:
            cv2.warpPerspective(image, homography, size, part, borderMode=cv2.BORDER_TRANSPARENT)
            self.fill_unlit(corners, None, label)
            return
        warped = cv2.warpPerspective(image, homography, size)
        inside = warped[..., 3] > 127
        cv2.copyTo(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), inside.view(np.uint8), part)
        np.copyto(self.labels[y0:y1, x0:x1], np.uint8(label), where=inside)

    def _shade_image(self, image: np.ndarray, light: Light, depth: float) -> np.ndarray:
        """An image in this light, seen through the haze."""
        keep, channels = self.transmittance(depth), image.shape[2]
        # One affine map of (r, g, b, 1), or (r, g, b, a, 1): light and haze for the colours, alpha as it is.
        matrix = np.zeros((channels, channels + 1), np.float32)
        np.fill_diagonal(matrix, [*(k * keep for k in light), 1])
        matrix[:3, channels] = [h * (1 - keep) for h in self.weather.horizon]
        return cv2.transform(image, matrix)

    def shadow(self, footprint: Sequence[tuple[float, float]], height: float, touching: bool = True) -> None:
        """Takes light from the ground: the sun's behind an upright body of this footprint, the sky's below it.

        Args:
            footprint: Corners on the ground as (right, forward) in metres.
            height: Of the body in metres.
            touching: Whether the body stands on the ground; else it hangs above it, as a crown does.
        """
        # The body's top throws its shadow this far from its foot.
        dx, dz = -height * self.sun[0] / self.sun[1], -height * self.sun[2] / self.sun[1]
        ground = [(x, 0.0, z) for x, z in footprint] if touching else []
        pixels = self.camera.fixed([*ground, *((x + dx, 0.0, z + dz) for x, z in footprint)], 8)[0]
        cv2.fillConvexPoly(self.sunlight, cv2.convexHull(pixels), 0, shift=4)
        if touching and height < LOW:
            cv2.fillConvexPoly(self.openness, cv2.convexHull(pixels[: len(ground)]), 60, shift=4)

    def sunlit(self, x: float, z: float) -> float:
        """Whether the sun reaches a place on the ground, 0 or 1.

        Args:
            x: Metres to the right.
            z: Metres forward.
        """
        [(column, row)] = self.camera.pixels([(x, 0.0, z)])
        return float(self.sunlight[min(max(int(row / 2), 0), HALF - 1), min(max(int(column / 2), 0), HALF - 1)] > 0)

    def paint_sky(self, rng: Rng) -> None:
        """Paints a gradient with clouds.

        Args:
            rng: Where the draws come from.
        """
        weather, bottom, size = self.weather, int(self.camera.horizon) + 20, (HALF // 2, HALF // 4)
        rise = np.linspace(1, 0, size[1], dtype=np.float32)[:, None, None] ** 0.8
        sky = np.float32(weather.zenith) * rise + np.float32(weather.horizon) * (1 - rise)
        # Clouds are a random piece of fractal noise, cut off where it is low: the more clouds, the lower.
        x, y = rng.integers(0, 200, 2)
        cover = cv2.resize(noise(7)[y : y + 200, x : x + 260], size).astype(np.float32)[..., None] / 255
        cloud = np.clip((cover - 0.75 + 0.5 * weather.clouds) * 4, 0, 1) * min(1, 2 * weather.clouds)
        white = np.float32(mix((246, 246, 246), weather.horizon, 0.45))
        sky = sky + cloud * (white * (1.12 - 0.3 * cover) - sky)
        self.photo[:bottom] = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (SIDE, bottom))
        self.labels[:bottom] = Label.SKY

    def light_ground(self) -> None:
        """Gives all of the ground its grain, light, shadows and haze; the rest is painted over it later."""
        camera, weather = self.camera, self.weather
        top = int(min(row for _, row in camera.pixels([(0, 0, FAR / 2), (0, 0, FAR)]))) // 2 * 2
        ground, rows, size = self.photo[top:], (SIDE - top) // 2, (SIDE, SIDE - top)
        sun = cv2.blur(self.sunlight[-rows:], (3, 3)).astype(np.float32)[..., None] / 255
        sky = cv2.blur(self.openness[-rows:], (5, 5)).astype(np.float32)[..., None] / 255
        depth = camera.height * FY / np.maximum(np.arange(top, SIDE, 2) - camera.horizon, 0.01 * FY)
        keep = np.exp(-depth / weather.sight).astype(np.float32)[:, None, None]
        light = keep * sky * (np.float32(weather.ambient) + sun * np.float32(weather.sun) * self.sun[1])
        haze = np.broadcast_to((1 - keep) * np.float32(weather.horizon), (rows, HALF, 3))
        # The grain is a tile of 40 m x 40 m that lies on the ground, mirrored beyond its edges.
        corners = camera.pixels([(-20, 0, 44), (20, 0, 44), (20, 0, 4), (-20, 0, 4)])
        tile = np.float32([(0, 0), (1024, 0), (1024, 1024), (0, 1024)])
        plane = cv2.getPerspectiveTransform(tile, np.float32(corners) - np.float32([0, top]))
        grain = cv2.warpPerspective(_grain(), plane, size, borderMode=cv2.BORDER_REFLECT_101)
        cv2.multiply(ground, cv2.cvtColor(grain, cv2.COLOR_GRAY2RGB), ground, scale=1 / 128)
        cv2.multiply(ground, cv2.resize((128 * light).clip(0, 255).astype(np.uint8), size), ground, scale=1 / 128)
        cv2.add(ground, cv2.resize(haze.astype(np.uint8), size), ground)

    def develop(self, rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Puts the photo through lens and sensor (blur, vignetting, exposure, noise), and colours the labels.

        Args:
            rng: Where the draws come from.
            size: Height and width of the result in pixels, at most 512.

        Returns:
            Photo and mask in the official colours, both uint8 RGB `(size, size, 3)`.
        """
        table = np.zeros((256, 1, 3), np.uint8)
        table[: len(COLOURS), 0] = COLOURS
        images = self.photo, cv2.applyColorMap(self.labels, table)
        photo, mask = (cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images)
        if rng.random() < 0.5:
            photo = cv2.GaussianBlur(photo, (3, 3), rng.uniform(0.3, 0.7))
        offset = np.linspace(-1, 1, size, dtype=np.float32) ** 2
        vignette = 1 - rng.uniform(0.05, 0.22) * 0.5 * (offset[:, None] + offset)
        exposure = (rng.uniform(85, 125) / photo.mean()) ** 0.7
        image = photo * (vignette[..., None] * np.float32(exposure * rng.normal(1, 0.025, 3)))
        y, x = rng.integers(0, _sensor_noise().shape[0] - size, 2)
        image += rng.uniform(1.5, 5) * _sensor_noise()[y : y + size, x : x + size]
        return np.clip(image, 0, 255).astype(np.uint8), mask


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """A colour between two others.

    Args:
        a: RGB, 0 to 255.
        b: RGB, 0 to 255.
        share: Of `b`, 0 to 1.
    """
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))


def _normal(points: Points) -> Point:
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


def _shrink(image: np.ndarray, width: float, height: float) -> np.ndarray:
    """An image no larger than twice the place that it goes to; a larger one would give moire patterns."""
    size = (max(2, min(image.shape[1], int(width))), max(2, min(image.shape[0], int(height))))
    if image.shape[1] < 2 * size[0] and image.shape[0] < 2 * size[1]:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=4)
def noise(seed: int, size: int = 512, roughness: float = 0.6) -> np.ndarray:
    """Fractal noise, uint8 `(size, size)`, mean about 128.

    Args:
        seed: Another seed gives other noise.
        size: Height and width in pixels.
        roughness: Weight of each octave relative to the one twice as coarse, 0 to 1.
    """
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
    return noise(5, 1024, 0.85) // 4 + 96


@lru_cache(maxsize=1)
def _sensor_noise() -> np.ndarray:
    """Standard normal noise, float32 `(768, 768, 3)`, from which every photo takes a piece."""
    return np.random.default_rng(11).standard_normal((768, 768, 3), np.float32)
