"""What surfaces look like: palettes, foliage, and the fronts of buildings and walls as images."""

from collections.abc import Sequence
from functools import lru_cache
from math import tau

import cv2
import numpy as np

from semseg.data.demo.canvas import Colour, Light, Rng, Weather, mix, noise

CROWN = 192  # pixels of a drawn crown

# fmt: off
WALLS = ((205, 196, 175), (188, 170, 140), (170, 110, 84), (140, 88, 70), (196, 196, 194), (150, 152, 156),
         (214, 186, 128), (178, 150, 132), (120, 116, 112), (222, 214, 204), (150, 160, 146), (164, 178, 190))
CLOTHES = ((30, 32, 38), (46, 56, 90), (120, 122, 126), (150, 40, 42), (200, 196, 186), (60, 84, 60), (90, 66, 50),
           (206, 160, 60), (70, 120, 160), (170, 110, 130), (24, 40, 66), (236, 236, 232))
PAINTS = ((28, 29, 32), (52, 54, 58), (96, 99, 103), (150, 153, 156), (188, 190, 192), (226, 228, 228), (36, 52, 96),
          (124, 26, 30), (60, 70, 66), (120, 100, 80), (90, 120, 150), (44, 46, 50), (168, 36, 30))
LIVERIES = ((214, 210, 200), (190, 150, 40), (160, 40, 36), (60, 96, 140), (90, 120, 90))
RIMS = ((120, 122, 126), (66, 68, 72), (176, 178, 180))
SKINS = ((224, 182, 154), (198, 150, 120), (150, 104, 78), (96, 66, 50))
HAIRS = ((40, 30, 24), (80, 60, 40), (150, 120, 80), (60, 60, 64), (30, 26, 26))
LEAVES = ((104, 134, 62), (84, 118, 54), (120, 140, 70), (92, 112, 66), (130, 134, 60), (70, 100, 56), (170, 130, 52))
ROOFS = ((140, 74, 56), (84, 80, 82), (112, 84, 70), (70, 72, 80))
FRAMES = ((232, 232, 228), (90, 80, 70), (60, 62, 66), (210, 200, 180))
ASPHALTS = ((104, 104, 106), (92, 94, 98), (124, 122, 118), (112, 106, 104), (84, 86, 92))
PAVINGS = ((150, 146, 140), (134, 130, 128), (160, 146, 132), (122, 122, 124))
GRASSES = ((112, 132, 66), (126, 132, 78), (98, 120, 60), (140, 134, 92))
METALS = ((120, 124, 126), (70, 76, 74), (150, 150, 146))
FENCES = ((52, 60, 56), (140, 120, 90), (170, 172, 174))
BINS = ((70, 74, 76), (60, 90, 64), (150, 110, 60))
# fmt: on
WHITE, RED, BLUE, INK, TYRE = (236, 237, 234), (188, 30, 34), (36, 80, 168), (40, 42, 46), (24, 24, 26)


def pick(rng: Rng, options: Sequence):
    """One of the options.

    Args:
        rng: Where the draws come from.
        options: All equally likely.
    """
    return options[int(rng.integers(len(options)))]


def vary(rng: Rng, colour: Colour, amount: float = 0.15) -> Colour:
    """The colour, a little brighter or darker.

    Args:
        rng: Where the draws come from.
        colour: RGB, 0 to 255.
        amount: The largest relative change.
    """
    gain = 1 + rng.uniform(-amount, amount)
    return tuple(c * gain for c in colour)


def tone(rng: Rng, palette: Sequence[Colour], amount: float = 0.15) -> Colour:
    """One of the palette's colours, a little brighter or darker.

    Args:
        rng: Where the draws come from.
        palette: RGB colours, all equally likely.
        amount: The largest relative change.
    """
    return vary(rng, pick(rng, palette), amount)


def foliage(light: Light, colour: Colour, gain: float) -> Light:
    """The light that gives nearly grey leaves their colour.

    Args:
        light: Factor for each channel.
        colour: Of the leaves, RGB, 0 to 255.
        gain: Factor for all channels.
    """
    return tuple(gain * k * c / 100 for k, c in zip(light, colour, strict=True))


@lru_cache(maxsize=4)
def crowns(halvings: int = 0) -> tuple[np.ndarray, ...]:
    """Eight nearly grey crowns, uint8 RGBA `(CROWN, CROWN, 4)`, halved in size for far trees 0 to 3 times.

    Args:
        halvings: 0 to 3.
    """
    if halvings:
        return tuple(cv2.resize(c, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for c in crowns(halvings - 1))
    return tuple(_crown(np.random.default_rng(kind), 0.55 if kind % 4 == 3 else 1) for kind in range(8))


def _crown(rng: Rng, squeeze: float) -> np.ndarray:
    """A crown is clumps of clumps of leaves; leaves on the upper side of their clump are brighter."""
    clumps = np.full((1, 2), CROWN / 2)
    for reach, children in ((0.25, 16), (0.13, 12), (0.07, 16)):
        angle = rng.uniform(0, tau, (len(clumps), children))
        radius = reach * CROWN * np.sqrt(rng.uniform(0.02, 1, angle.shape))
        offsets = np.stack([radius * np.cos(angle) * squeeze, radius * np.sin(angle)], -1)
        parents, clumps = clumps, (clumps[:, None] + offsets).reshape(-1, 2)
    rise = (clumps - np.repeat(parents, children, 0)) @ (-0.4, -0.9)
    shade = 96 + 2.4 * rise + 0.42 * (CROWN / 2 - clumps[:, 1]) + rng.normal(0, 14, len(clumps))
    order = np.argsort(shade + rng.normal(0, 14, len(clumps)))
    hues = shade[order, None].clip(30, 215) + rng.uniform((-6, 0, -8), (8, 1, 4), (len(order), 3))
    image = np.zeros((CROWN, CROWN, 4), np.uint8)
    for centre, hue in zip(clumps[order].astype(int).tolist(), hues.tolist(), strict=True):
        cv2.circle(image, centre, 2 + centre[0] % 2, (*hue, 255), cv2.FILLED)
    return image


@lru_cache(maxsize=1)
def hedge() -> np.ndarray:
    """Nearly grey foliage with a ragged top, uint8 RGBA `(96, 384, 4)`."""
    rng = np.random.default_rng(99)
    image = np.zeros((96, 384, 4), np.uint8)
    image[14:] = (70, 70, 66, 255)
    for _ in range(3000):
        x, y = int(rng.integers(384)), int(rng.integers(8, 96))
        shade = 125 - 0.7 * y + rng.normal(0, 22)
        cv2.circle(image, (x, y), int(rng.integers(2, 5)), (shade + 4, shade, shade - 6, 255), cv2.FILLED)
    return image


class Style:
    """How a building looks, by chance; lengths in metres, window as a share of its bay."""

    def __init__(self, rng: Rng, weather: Weather):
        self.glass, self.frame = mix(weather.horizon, (40, 48, 56), rng.uniform(0.5, 0.95)), pick(rng, FRAMES)
        self.bay, self.storey = rng.uniform(2.2, 4.0), rng.uniform(2.9, 3.7)
        self.window = rng.uniform(0.35, 0.75), rng.uniform(0.45, 0.68)
        self.shop, self.wall = pick(rng, CLOTHES + WALLS), tone(rng, WALLS)
        self.brick, self.balcony = rng.random() < 0.35, rng.random() < 0.25
        self.lit = weather.lamps * 0.6  # share of windows

    def pane(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of the window in a bay of that many pixels.

        Args:
            width: Of the bay in pixels.
            height: Of the bay in pixels.
        """
        w, h = int(self.window[0] * width), int(self.window[1] * height)
        return (width - w) // 2, int(0.16 * height), w, h


def facade(rng: Rng, style: Style, size: tuple[float, float], scale: tuple[float, float]) -> np.ndarray:
    """The front of a building, uint8 RGB: ground floor, storeys of windows, cornice.

    Args:
        rng: Where the draws come from.
        style: How the building looks.
        size: (across, up) in metres.
        scale: (across, up) in pixels to the metre.
    """
    (width, height), (across, up) = size, scale
    bays, storeys = max(1, round(width / style.bay)), max(1, round((height - 3.6) / style.storey))
    upper = np.tile(_bay(style, max(6, int(style.bay * across)), max(6, int(style.storey * up))), (storeys, bays, 1))
    _live_in(rng, upper, style, bays, storeys)
    street = _ground_floor(rng, style, upper.shape[1], max(8, int(3.6 * up)), across / up)
    image, cornice = np.concatenate([upper, street]), max(1, int(0.35 * up))
    image[:cornice] = np.clip(np.multiply(style.wall, 1.12), 0, 255)
    image[cornice : cornice + max(1, cornice // 2)] = np.multiply(style.wall, 0.6)
    return _stain(rng, image)


def wall(rng: Rng, width: float, height: float) -> np.ndarray:
    """Bricks or render with a coping, uint8 RGB.

    Args:
        rng: Where the draws come from.
        width: In metres.
        height: In metres.
    """
    h, w, colour = int(36 * height), int(18 * width), tone(rng, WALLS)
    image = np.full((h, w, 3), colour, np.uint8)
    if rng.random() < 0.6:
        joint = np.multiply(colour, 0.8)
        for row in range(0, h, 7):
            image[row] = joint
            image[row : row + 7, row % 2 * 6 :: 12] = joint
    image[:5] = np.multiply(colour, 1.1).clip(0, 255)
    return _stain(rng, image)


def _stain(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Weathers a wall a little, whatever its size."""
    x, y = rng.integers(0, 200, 2)
    stains = cv2.resize(noise(3)[y : y + 300, x : x + 300], image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return cv2.multiply(image, cv2.cvtColor(stains // 3 + 90, cv2.COLOR_GRAY2RGB), scale=1 / 128)


def _bay(style: Style, width: int, height: int) -> np.ndarray:
    """One window in its piece of wall, uint8 RGB `(height, width, 3)`."""
    cell = np.full((height, width, 3), style.wall, np.uint8)
    rim, (x, y, w, h) = max(1, width // 28), style.pane(width, height)
    if style.brick and height > 40:
        cell[:: max(3, height // 28)] = np.multiply(style.wall, 0.84)
    cv2.rectangle(cell, (x - rim, y - rim), (x + w + rim, y + h + rim), style.frame, cv2.FILLED)
    cv2.rectangle(cell, (x, y), (x + w, y + h), style.glass, cv2.FILLED)
    cv2.rectangle(cell, (x, y), (x + w, y + h // 5), [0.55 * c for c in style.glass], cv2.FILLED)
    cv2.line(cell, (x + w // 2, y), (x + w // 2, y + h), style.frame, rim)
    cv2.rectangle(cell, (x - 2 * rim, y + h + rim), (x + w + 2 * rim, y + h + 2 * rim), (205, 203, 198), cv2.FILLED)
    if style.balcony:
        top, foot = int(0.62 * height), int(0.93 * height)
        cv2.rectangle(cell, (x - 3 * rim, top), (x + w + 3 * rim, int(0.92 * height)), (96, 98, 100), cv2.FILLED)
        cell[top + rim : int(0.9 * height), x - 2 * rim : x + w + 2 * rim : 3] = np.multiply(style.wall, 0.8)
        cv2.line(cell, (x - 4 * rim, foot), (x + w + 4 * rim, foot), (190, 188, 184), rim)
    return cell


def _live_in(rng: Rng, image: np.ndarray, style: Style, bays: int, storeys: int) -> None:
    """Gives some windows a blind, a curtain or a lamp, in place."""
    height, width = image.shape[0] // storeys, image.shape[1] // bays
    left, top, w, h = style.pane(width, height)
    for storey, bay in np.ndindex(storeys, bays):
        chance = rng.random()
        if chance > 0.5 + style.lit:
            continue
        x, y = bay * width + left, storey * height + top
        drop = int(h * rng.uniform(0.2, 1.0)) if chance < 0.3 else h
        colour = (255, 214, 140) if chance > 0.5 else mix(style.glass, (205, 200, 190), rng.uniform(0, 0.5))
        cv2.rectangle(image, (x, y), (x + w, y + drop), colour, cv2.FILLED)


def _ground_floor(rng: Rng, style: Style, width: int, height: int, squeeze: float) -> np.ndarray:
    """Shop windows below a sign, or a plinth with doors, uint8 RGB `(height, width, 3)`."""
    strip = np.full((height, width, 3), np.multiply(style.wall, 0.86), np.uint8)
    shop = rng.random() < 0.6
    units = max(1, round(width / height / squeeze / (1.1 if shop else 0.9)))
    for unit in range(units):
        x0, x1 = width * unit // units + width // units // 12, width * (unit + 1) // units - width // units // 12
        middle = (x0 + x1) // 2
        if shop:
            glass = vary(rng, mix(style.glass, (20, 22, 24), 0.45), 0.3)
            sign = vary(rng, style.shop if unit % 2 else pick(rng, CLOTHES))
            for top, bottom, colour in ((0.3, 0.9, glass), (0.6, 0.9, [0.7 * c for c in glass]), (0.1, 0.27, sign)):
                cv2.rectangle(strip, (x0, int(top * height)), (x1, int(bottom * height)), colour, cv2.FILLED)
            cv2.line(strip, (middle, int(0.3 * height)), (middle, height), style.frame, 1)
        else:
            door = rng.random() < 0.3
            top, bottom, share = (0.3, 1.0, 0.15) if door else (0.25, 0.68, 0.17)
            half, colour = max(1, int(height * squeeze * share)), vary(rng, (88, 62, 44)) if door else style.glass
            place = (middle - half, int(top * height)), (middle + half, int(bottom * height))
            cv2.rectangle(strip, *place, colour, cv2.FILLED)
            cv2.rectangle(strip, *place, style.frame, 1)
    return strip
