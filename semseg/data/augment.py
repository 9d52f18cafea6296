"""Photo and mask changed together, from one random draw."""

from dataclasses import dataclass

import cv2
import numpy as np

from semseg import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training sample. The defaults suit street scenes, which are not turned upside down.

    Attributes:
        horizontal_flip: Probability of swapping left and right, 0 to 1.
        vertical_flip: Probability of swapping top and bottom, 0 to 1.
        rotation: Largest angle in degrees, drawn evenly to both sides.
        scale: Range of the zoom factor, drawn evenly in its logarithm; above 1 shows a part of the sample.
        brightness: Largest relative change of the brightness, drawn evenly to both sides.
        contrast: Largest relative change of the contrast around mid-grey, drawn evenly to both sides.
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    rotation: float = 3.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.1
    contrast: float = 0.1

    def __call__(self, photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Changes a sample.

        Args:
            photo: uint8 RGB `(H, W, 3)`.
            mask: uint8 ids `(H, W)`.
            rng: Where the draws come from.

        Returns:
            Photo and mask of the same shapes. Where the sample does not reach, the photo is mirrored and the mask
            ignored (255).
        """
        matrix = self._draw_matrix(mask.shape, rng)
        table = self._draw_light(rng)
        size = mask.shape[::-1]
        photo = cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        mask = cv2.warpAffine(
            mask, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE
        )
        return table[photo], mask

    def _draw_matrix(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """The 2x3 affine map of `(x, y)` around the centre: flips, rotation, zoom and, within the zoom, a shift."""
        height, width = shape
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation))
        zoom = np.exp(rng.uniform(*np.log(self.scale)))
        flips = np.where(rng.random(2) < (self.horizontal_flip, self.vertical_flip), -1.0, 1.0)
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(flips)
        center = np.array([width - 1, height - 1]) / 2
        room = np.abs(zoom - 1) * np.array([width, height]) / 2  # a shift that keeps a zoomed sample filling the frame
        shift = center + rng.uniform(-room, room) - turn @ center
        return np.column_stack([turn, shift])

    def _draw_light(self, rng: np.random.Generator) -> np.ndarray:
        """A table from each level, 0 to 255, to its new one."""
        brightness = 1 + rng.uniform(-self.brightness, self.brightness)
        contrast = 1 + rng.uniform(-self.contrast, self.contrast)
        levels = (np.arange(256) * brightness - 127.5) * contrast + 127.5
        return levels.round().clip(0, 255).astype(np.uint8)
