"""Photo and mask changed together, from one random draw."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np

from semseg import IGNORE
from semseg.data.exchanges import HALF_TURN, LEFT_RIGHT, QUARTER_TURNS, UP_DOWN, Move
from semseg.errors import SemsegError
from semseg.images.bands import RGB, Bands

_Range = tuple[Callable[[Any], bool], str]  # what fits, and that in words
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample. The defaults suit street scenes, which are not turned upside down.

    Attributes:
        horizontal_flip: Probability of swapping left and right, 0 to 1.
        vertical_flip: Probability of swapping top and bottom, 0 to 1.
        quarter_turns: Whether to turn by 0, 90, 180 or 270 degrees, each as likely.
        half_turns: Whether to turn by 0 or 180 degrees, each as likely; quarter turns hold these.
        rotation: Largest angle in degrees, 0 to 180, drawn evenly to both sides.
        scale: Range of the zoom factor, drawn evenly in its logarithm; above 1 shows a part of the sample.
        brightness: Largest relative change of the brightness, 0 to below 1, drawn evenly to both sides.
        contrast: Largest relative change of the contrast around mid-grey, 0 to below 1, drawn likewise.
        saturation: Largest relative change of the distance from grey, 0 to below 1, drawn likewise.
        hue: Largest turn of the colours around the grey axis in degrees, 0 to 180, drawn likewise. 0 by default: the
            colours of lights and signs mean something.

    Raises:
        SemsegError: A value out of its range.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    quarter_turns: bool = False
    half_turns: bool = False
    rotation: float = 3.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.0

    def __post_init__(self) -> None:
        """Refuses senseless values."""
        for name, (fits, expected) in _RANGES.items():
            value = getattr(self, name)
            if not fits(value):
                raise SemsegError(f"augmentation: got {name}={value}; expected {expected}")

    def __str__(self) -> str:
        """What is not switched off, for people."""
        parts = [  # whether it is switched on, and how it is told
            (self.horizontal_flip, f"flipped left-right ({self.horizontal_flip:.0%})"),
            (self.vertical_flip, f"flipped up-down ({self.vertical_flip:.0%})"),
            (self.quarter_turns, "turned by 0, 90, 180 or 270 degrees"),
            (self.half_turns and not self.quarter_turns, "turned by 0 or 180 degrees"),
            (self.rotation, f"rotated by up to {self.rotation:g} degrees"),
            (self.scale != (1, 1), f"zoomed by {self.scale[0]:g} to {self.scale[1]:g}"),
            (self.brightness, f"brightness +-{self.brightness:.0%}"),
            (self.contrast, f"contrast +-{self.contrast:.0%}"),
            (self.saturation, f"saturation +-{self.saturation:.0%}"),
            (self.hue, f"hue +-{self.hue:g} degrees"),
        ]
        return ", ".join(text for is_on, text in parts if is_on) or "nothing is changed"

    def __call__(
        self, photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator, bands: Bands = RGB
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changes a sample.

        Args:
            photo: uint8 RGB `(H, W, 3)`, or `(H, W, C)` as the bands say.
            mask: uint8 ids `(H, W)`.
            rng: Where the draws come from, as many for every sample.
            bands: What the photo holds. Of other bands than 8-bit RGB brightness and contrast are changed, each as if
                `low` were black and `high` white; there is no saturation and no hue.

        Returns:
            Photo and mask of the same shapes. Where the sample does not reach, the photo is mirrored and the mask
            ignored (255).
        """
        return change(photo, mask, *self.draw(mask.shape, rng), mask.shape, bands)

    def draw(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """All that is left to chance in one sample: the map of its pixels, 2x3, and that of its colours, 3x4.

        Args:
            shape: (height, width).
            rng: As in a call.
        """
        return self._draw_matrix(shape, rng), self._draw_colors(rng)

    def moves(self) -> set[Move]:
        """The flips and turns that may happen, alone or one after the other."""
        single = [
            (self.horizontal_flip, LEFT_RIGHT),
            (self.vertical_flip, UP_DOWN),
            (self.half_turns, HALF_TURN),
            (self.quarter_turns, QUARTER_TURNS[0]),
        ]
        switched_on = [move for is_on, move in single if is_on]
        found: set[Move] = {_STAY}
        while more := {_after(move, earlier) for move in switched_on for earlier in found} - found:
            found |= more
        return found - {_STAY}

    def without(self, harmful: Iterable[Move]) -> "Augmentation":
        """The same with as many of its flips and turns as can be kept without any of some.

        Args:
            harmful: None of these may happen, nor come of two that do.
        """
        for changes in _FEWER_MOVES:
            fewer = replace(self, **changes)
            if fewer.moves() <= self.moves() - set(harmful):
                return fewer
        return replace(self, **_NO_MOVES)

    def _draw_matrix(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """The 2x3 affine map of `(x, y)` around the centre: flips, turns, zoom and, within the zoom, a shift."""
        height, width = shape
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        flips = np.where(rng.random(2) < (self.horizontal_flip, self.vertical_flip), -1.0, 1.0)
        quarters = rng.integers(4)
        if not self.quarter_turns:
            quarters = quarters // 2 * 2 * self.half_turns
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = zoom * rotation @ _QUARTERS[quarters] * flips
        center = np.array([width - 1, height - 1]) / 2
        room = np.abs(zoom - 1) * np.array([width, height]) / 2  # a shift that keeps a zoomed sample filling the frame
        shift = center + rng.uniform(-room, room) - turn @ center
        return np.column_stack([turn, shift])

    def _draw_colors(self, rng: np.random.Generator) -> np.ndarray:
        """The 3x4 affine map of `(red, green, blue, 1)`."""
        brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * (
            self.brightness,
            self.contrast,
            self.saturation,
            np.deg2rad(self.hue),
        )
        colorful = _GREY + (1 + saturation) * (np.eye(3) - _GREY)
        matrix = (1 + contrast) * (1 + brightness) * colorful @ _turn_of_colors(hue)
        return np.column_stack([matrix, np.full(3, -127.5 * contrast)])


def change(
    photo: np.ndarray,
    mask: np.ndarray,
    matrix: np.ndarray,
    colors: np.ndarray,
    size: tuple[int, int],
    bands: Bands = RGB,
) -> tuple[np.ndarray, np.ndarray]:
    """Changes a sample as it was drawn.

    Args:
        photo: `(H, W, C)`, as the bands say.
        mask: uint8 ids `(H, W)`.
        matrix: From (x, y) in both to (x, y) in the result, 2x3.
        colors: From `Augmentation.draw`.
        size: (height, width) of the result.
        bands: What the photo holds.

    Returns:
        Photo and mask of that size. Where the sample does not reach, the photo is mirrored and the mask ignored (255).
    """
    shape, across = photo.shape, size[::-1]
    photo = cv2.warpAffine(photo, matrix, across, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = cv2.warpAffine(
        mask, matrix, across, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE
    )
    if bands.are_rgb:
        return cv2.transform(photo, colors), mask
    return _relit(photo.reshape(*size, shape[2]), colors, bands), mask  # OpenCV drops an axis of one band


_STAY: Move = (0, False)
_NO_MOVES: dict[str, Any] = {"horizontal_flip": 0.0, "vertical_flip": 0.0, "quarter_turns": False, "half_turns": False}
_FEWER_MOVES: list[dict[str, Any]] = [  # the more that stay, the earlier
    {},
    {"quarter_turns": False},
    {"horizontal_flip": 0.0, "vertical_flip": 0.0},
    {"vertical_flip": 0.0, "quarter_turns": False, "half_turns": False},
    {"horizontal_flip": 0.0, "quarter_turns": False, "half_turns": False},
    {**_NO_MOVES, "half_turns": True},
]


def _after(second: Move, first: Move) -> Move:
    """The move that two make: a mirror image turns the other way."""
    quarters = second[0] + (-first[0] if second[1] else first[0])
    return quarters % 4, second[1] != first[1]


_QUARTERS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]])
_GREY = np.tile(_LUMA, (3, 1))  # a colour to the grey of its luma
_CROSS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)  # cross product with the grey axis


def _turn_of_colors(angle: float) -> np.ndarray:
    """3x3 rotation around the grey axis, by Rodrigues' formula."""
    return np.eye(3) + np.sin(angle) * _CROSS + (1 - np.cos(angle)) * _CROSS @ _CROSS


def _relit(photo: np.ndarray, colors: np.ndarray, bands: Bands) -> np.ndarray:
    """Brightness and contrast of an affine map of colours, 0 to 255, applied to bands between `low` and `high`."""
    gain, shift = colors[0, :3].sum(), colors[0, 3] / 255  # of grey, whatever becomes of colours
    low, high = np.array(bands.low, np.float32), np.array(bands.high, np.float32)
    changed = gain * (photo - low) + low + shift * (high - low)
    if photo.dtype.kind == "u":
        changed = np.rint(changed).clip(0, np.iinfo(photo.dtype).max)
    return changed.astype(photo.dtype)


_PROBABILITY: _Range = (lambda value: 0 <= value <= 1, "a probability, 0 to 1")
_CHANGE: _Range = (lambda value: 0 <= value < 1, "a relative change, 0 to below 1")
_SWITCH: _Range = (lambda value: value in (False, True), "0 or 1")
_ANGLE: _Range = (lambda value: 0 <= value <= 180, "degrees, 0 to 180")
_RANGES: dict[str, _Range] = {
    "horizontal_flip": _PROBABILITY,
    "vertical_flip": _PROBABILITY,
    "quarter_turns": _SWITCH,
    "half_turns": _SWITCH,
    "rotation": _ANGLE,
    "scale": (
        lambda value: len(value) == 2 and 0 < value[0] <= value[1] < np.inf,
        "the smaller factor before the larger, both above 0, such as 0.8:1.25",
    ),
    "brightness": _CHANGE,
    "contrast": _CHANGE,
    "saturation": _CHANGE,
    "hue": _ANGLE,
}
NO_AUGMENTATION = Augmentation(
    horizontal_flip=0.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0
)  # changes nothing


def parse_augmentation(text: str, default: Augmentation) -> Augmentation:
    """Reads what a user asks for.

    Args:
        text: `none` to switch everything off, or settings joined by commas: `rotation=10,scale=0.8:1.25`.
        default: What holds for everything that `text` does not name.

    Raises:
        SemsegError: An unknown name, or a value that is no number or out of its range.

    Example:
        >>> parse_augmentation("rotation=10,scale=0.8:1.25", NO_AUGMENTATION).scale
        (0.8, 1.25)
    """
    if text.strip() == "none":
        return NO_AUGMENTATION
    settings: dict[str, Any] = dict(_parse_setting(part) for part in text.split(","))
    return replace(default, **settings)


def _parse_setting(part: str) -> tuple[str, float | bool | tuple[float, ...]]:
    name, _, value = (piece.strip() for piece in part.partition("="))
    if name not in _RANGES:
        known = ", ".join(field.name for field in fields(Augmentation))
        raise SemsegError(f"augmentation: got {part.strip()!r}; expected none, or name=value with a name of {known}")
    try:
        numbers = tuple(float(piece) for piece in value.split(":"))
        if len(numbers) != 1 + (name == "scale"):
            raise ValueError
    except ValueError:
        raise SemsegError(f"augmentation: got {part.strip()!r}; expected {name}={_RANGES[name][1]}") from None
    if _RANGES[name] is _SWITCH and numbers[0] in (0, 1):
        return name, bool(numbers[0])
    return name, numbers if name == "scale" else numbers[0]


_MIN_SAMPLES = 20  # with a class, from which on its imbalance is known well enough to be asked
_MIN_IMBALANCE = 0.1  # in the mean: above it, and above 3 standard errors, a class has an up; measured: Carvana .16
_MAX_IMBALANCE = 0.2  # mean and 2 standard errors that a class without an up stays below; measured: nuclei .15


def suited_augmentation(tops: np.ndarray, bottoms: np.ndarray) -> Augmentation:
    """The default that suits the data: where the labels show no up and down, samples are turned every way.

    A class shows none when its imbalance, (top - bottom) / (top + bottom) in the mean over the samples that hold it, is
    small and known well enough: below .1 or 3 standard errors, and below .2 with 2 standard errors added. Street scenes
    have .5 to 1.

    Args:
        tops: Integer `(samples, K)`: pixels of each class in the upper half of each mask.
        bottoms: The same of the lower half.

    Returns:
        The default for street scenes; with flips to both sides and quarter turns when there are classes that 20 samples
        or more hold, and none of them shows an up.
    """
    frequent = ((tops + bottoms) > 0).sum(axis=0) >= _MIN_SAMPLES
    if not frequent.any():
        return Augmentation()
    halves = zip(tops.T[frequent], bottoms.T[frequent], strict=True)
    if any(_has_an_up(top, bottom) for top, bottom in halves):
        return Augmentation()
    return Augmentation(vertical_flip=0.5, quarter_turns=True)


def _has_an_up(top: np.ndarray, bottom: np.ndarray) -> bool:
    """Whether a class lies mostly above or mostly below, or might: by its pixels `(samples,)` in either half."""
    present = top + bottom > 0
    top, bottom = top[present].astype(float), bottom[present].astype(float)
    imbalance = (top - bottom) / (top + bottom)
    mean, standard_error = abs(imbalance.mean()), imbalance.std(ddof=1) / np.sqrt(len(imbalance))
    return mean > max(_MIN_IMBALANCE, 3 * standard_error) or mean + 2 * standard_error > _MAX_IMBALANCE
