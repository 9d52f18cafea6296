"""Image files, colour masks and class ids: read, split a pair, find a palette, quantise, colour.

This room knows arrays and image files only. Photos and colour masks are uint8 RGB `(H, W, 3)`; class ids are uint8
`(H, W)`, 0 to K-1, and `IGNORE` (255) where a pixel counts nowhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from semseg import IGNORE
from semseg.errors import DataError, SemsegError

MAX_CLASSES = 253  # ids are uint8: 255 is IGNORE, and two more values have a meaning in the table of colours
_UNSEEN, _FAR = 254, 253

# Name, train id (255: not trained on) and colour of every label, in the order of the official table:
# cityscapesScripts, helpers/labels.py.
CITYSCAPES = (
    ("unlabeled", 255, (0, 0, 0)),
    ("dynamic", 255, (111, 74, 0)),
    ("ground", 255, (81, 0, 81)),
    ("road", 0, (128, 64, 128)),
    ("sidewalk", 1, (244, 35, 232)),
    ("parking", 255, (250, 170, 160)),
    ("rail track", 255, (230, 150, 140)),
    ("building", 2, (70, 70, 70)),
    ("wall", 3, (102, 102, 156)),
    ("fence", 4, (190, 153, 153)),
    ("guard rail", 255, (180, 165, 180)),
    ("bridge", 255, (150, 100, 100)),
    ("tunnel", 255, (150, 120, 90)),
    ("pole", 5, (153, 153, 153)),
    ("traffic light", 6, (250, 170, 30)),
    ("traffic sign", 7, (220, 220, 0)),
    ("vegetation", 8, (107, 142, 35)),
    ("terrain", 9, (152, 251, 152)),
    ("sky", 10, (70, 130, 180)),
    ("person", 11, (220, 20, 60)),
    ("rider", 12, (255, 0, 0)),
    ("car", 13, (0, 0, 142)),
    ("truck", 14, (0, 0, 70)),
    ("bus", 15, (0, 60, 100)),
    ("caravan", 255, (0, 0, 90)),
    ("trailer", 255, (0, 0, 110)),
    ("train", 16, (0, 80, 100)),
    ("motorcycle", 17, (0, 0, 230)),
    ("bicycle", 18, (119, 11, 32)),
)

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """What the colours of a mask mean.

    Attributes:
        names: One name per class, in the order of the class ids.
        colors: One RGB colour per class, 0 to 255.
        ignored: Names and colours that are no class and become `IGNORE`.
        source: How the palette was found: `"cityscapes"`, `"exact"` (the masks hold few colours) or `"k-means"`.
        max_distance: A pixel farther than this from every colour (Euclidean, in RGB levels) becomes `IGNORE`. 40 was
            measured on exact masks that were coloured, halved with smoothing and compressed like Kaggle's: it ignores
            3.3 % of the pixels and lifts the mean IoU of the remaining labels from .915 to .966.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: tuple[tuple[str, Color], ...] = ()
    source: str = "k-means"
    max_distance: float = 40.0

    @property
    def num_classes(self) -> int:
        """The number of classes K, ignored colours not counted."""
        return len(self.colors)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON, readable by `from_dict` and by people."""
        return {
            "source": self.source,
            "ignore_index": IGNORE,
            "max_distance": self.max_distance,
            "classes": [
                {"id": i, "name": name, "color": list(color)}
                for i, (name, color) in enumerate(zip(self.names, self.colors, strict=True))
            ],
            "ignored": [{"name": name, "color": list(color)} for name, color in self.ignored],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Palette":
        """Returns the palette that `to_dict` described."""
        classes = sorted(values["classes"], key=lambda entry: entry["id"])
        return cls(
            names=tuple(entry["name"] for entry in classes),
            colors=tuple(tuple(entry["color"]) for entry in classes),
            ignored=tuple((entry["name"], tuple(entry["color"])) for entry in values["ignored"]),
            source=values["source"],
            max_distance=values["max_distance"],
        )


def cityscapes_palette() -> Palette:
    """Returns the official Cityscapes palette: 19 train ids; the other labels are ignored.

    Example:
        >>> cityscapes_palette().names[:3]
        ('road', 'sidewalk', 'building')

    Reference: Cordts et al. 2016, The Cityscapes Dataset; the label table of cityscapesScripts.
    """
    trained = sorted((train_id, name, color) for name, train_id, color in CITYSCAPES if train_id != IGNORE)
    return Palette(
        names=tuple(name for _, name, _ in trained),
        colors=tuple(color for _, _, color in trained),
        ignored=tuple((name, color) for name, train_id, color in CITYSCAPES if train_id == IGNORE),
        source="cityscapes",
    )


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image file as RGB, upright (EXIF orientation applied).

    Pillow reads it, because OpenCV returns a full picture for a file that was cut in the middle.

    Returns:
        uint8 `(H, W, 3)`, 0 to 255.

    Raises:
        DataError: The file is missing, empty, cut, no picture, 16-bit, float, animated or absurdly large.
    """
    try:
        with Image.open(path) as image:
            _refuse_unsuitable(path, image)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except SemsegError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{path}: {_TOO_LARGE}") from None
    except Image.UnidentifiedImageError:
        what = "an empty file" if Path(path).stat().st_size == 0 else "not a picture that can be read"
        raise DataError(f"{path}: {what}; replace or remove it") from None
    except Exception as error:  # damaged files make decoders raise SyntaxError, TypeError and more
        raise DataError(f"{path}: cannot be read ({error}); replace or remove it") from None


_MAX_PIXELS = 89_478_485  # Pillow's own limit for what may be an attack
_TOO_LARGE = "larger than 89 million pixels; scale it down or leave it out"


def _refuse_unsuitable(path: str | Path, image: Image.Image) -> None:
    """Raises a `DataError` for what the header shows to be too large, too deep or more than one picture."""
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(f"{path}: {_TOO_LARGE}")
    if image.mode.startswith(("I", "F")) or _bits_per_channel(path, image) > 8:
        raise DataError(f"{path}: holds 16-bit, 32-bit or float pixels; save it with 8 bits per channel")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: holds {image.n_frames} pictures; save the right one alone")


def _bits_per_channel(path: str | Path, image: Image.Image) -> int:
    """From the header: Pillow opens 16-bit RGB as RGB and drops the lower half of each value."""
    if image.format == "PNG":
        with Path(path).open("rb") as file:
            return file.read(25)[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))
    return 8


def load_images(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a pair as Kaggle's "Cityscapes image pairs" has them: photo on the left, colour mask on the right.

    Args:
        path: An image file of even width.

    Returns:
        Photo and colour mask, each uint8 RGB `(H, W / 2, 3)`, 0 to 255.

    Raises:
        DataError: The file cannot be read, or its width is odd.
    """
    pair = read_image(path)
    height, width = pair.shape[:2]
    if width % 2:
        raise DataError(
            f"{path}: is {width}x{height} pixels, an odd width; a pair holds photo and mask side by side, each of half "
            "the width: mend or remove it"
        )
    return pair[:, : width // 2], pair[:, width // 2 :]


def bin_image(mask: np.ndarray, palette: Palette) -> np.ndarray:
    """Turns a colour mask into class ids: each pixel gets the class of the nearest colour in the palette.

    Args:
        mask: uint8 RGB `(..., 3)`, usually `(H, W, 3)`.
        palette: Colours of the classes and of what is ignored.

    Returns:
        uint8 ids of the shape `mask.shape[:-1]`: 0 to K-1, or 255 (`IGNORE`) where the nearest colour is an ignored one
        or lies farther away than `palette.max_distance`. Equal distances go to the class with the lower id.

    Raises:
        SemsegError: `mask` is not uint8 RGB.

    Example:
        >>> palette = Palette(names=("road", "sky"), colors=((128, 64, 128), (70, 130, 180)))
        >>> bin_image(np.array([[[127, 66, 128], [70, 130, 180], [0, 255, 0]]], np.uint8), palette)
        array([[  0,   1, 255]], dtype=uint8)
    """
    return quantise(mask, palette)[0]


def quantise(mask: np.ndarray, palette: Palette) -> tuple[np.ndarray, int]:
    """Does what `bin_image` does, and counts the pixels that lie too far from every colour.

    Returns:
        uint8 ids, and how many of the ignored pixels are farther than `palette.max_distance` from all colours.
    """
    if mask.dtype != np.uint8 or mask.shape[-1:] != (3,):
        raise SemsegError(f"bin_image: got a mask of {mask.dtype} {mask.shape}; expected uint8 RGB of shape (..., 3)")
    table = _id_of_color(palette)
    codes = _color_codes(mask)
    ids = table.take(codes)
    unseen = ids == _UNSEEN
    if unseen.any():
        new = np.unique(codes[unseen])
        table[new] = _nearest_ids(_colors_of_codes(new), palette)
        ids = table.take(codes)
    far = ids == _FAR
    ids[far] = IGNORE
    return ids, int(np.count_nonzero(far))


@lru_cache(maxsize=4)
def _id_of_color(palette: Palette) -> np.ndarray:
    """A table from each of the 2^24 colours to its id, filled as colours turn up: a full fill would take seconds.

    Threads may share it: two that fill the same entry write the same value.
    """
    return np.full(1 << 24, _UNSEEN, np.uint8)


def _color_codes(mask: np.ndarray) -> np.ndarray:
    codes = mask[..., 0].astype(np.int32)
    for channel in (1, 2):
        codes <<= 8
        codes |= mask[..., channel]
    return codes


def _colors_of_codes(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=-1)


def _nearest_ids(colors: np.ndarray, palette: Palette) -> np.ndarray:
    known = np.array(palette.colors + tuple(color for _, color in palette.ignored))
    ids = np.array([*range(palette.num_classes), *[IGNORE] * len(palette.ignored)], np.uint8)
    squared = _squared_distances(colors, known)
    nearest = squared.argmin(axis=1)
    far = squared[np.arange(len(colors)), nearest] > palette.max_distance**2
    return np.where(far, np.uint8(_FAR), ids[nearest])


def _squared_distances(colors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`(M, 3)` and `(K, 3)` levels to `(M, K)`; exact for whole levels, whose squares float32 holds."""
    colors, others = colors.astype(np.float32), others.astype(np.float32)
    squared = (colors**2).sum(axis=1)[:, None] - 2 * (colors @ others.T) + (others**2).sum(axis=1)
    return np.maximum(squared, 0)


def get_segmentation_arr(ids: np.ndarray, num_classes: int) -> np.ndarray:
    """Turns class ids into one-hot vectors.

    Args:
        ids: Integer `(H, W)`, 0 to K-1 or 255.
        num_classes: K.

    Returns:
        uint8 `(H, W, K)`: a single 1 per pixel, none where the pixel is ignored.

    Raises:
        SemsegError: An id is neither a class nor 255.

    Example:
        >>> get_segmentation_arr(np.array([[0, 1, 255]]), 2).tolist()
        [[[1, 0], [0, 1], [0, 0]]]
    """
    wrong = (ids != IGNORE) & ((ids < 0) | (ids >= num_classes))
    if wrong.any():
        raise SemsegError(
            f"get_segmentation_arr: got id {ids[wrong].flat[0]} at {int(wrong.sum())} pixels; "
            f"expected 0 to {num_classes - 1}, or {IGNORE} to ignore"
        )
    return (ids[..., None] == np.arange(num_classes)).astype(np.uint8)


def give_color_to_seg_img(ids: np.ndarray, palette: Palette, ignore_color: Color = (0, 0, 0)) -> np.ndarray:
    """Paints class ids in the colours of their classes.

    Args:
        ids: Integer `(H, W)`, 0 to K-1 or 255.
        palette: The palette whose ids these are.
        ignore_color: RGB colour of ignored pixels.

    Returns:
        uint8 RGB `(H, W, 3)`.

    Example:
        >>> give_color_to_seg_img(np.array([[0, 255]]), cityscapes_palette()).tolist()
        [[[128, 64, 128], [0, 0, 0]]]
    """
    table = np.empty((256, 3), np.uint8)
    table[:] = ignore_color
    table[: palette.num_classes] = palette.colors
    return table[ids]


def resize_photo(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 RGB to (height, width): by area where both sides shrink, so that nothing is aliased."""
    if photo.shape[:2] == tuple(size):
        return photo
    shrinks = photo.shape[0] > size[0] and photo.shape[1] > size[1]
    return cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 ids `(H, W)` to (height, width) by nearest neighbour, so that no class is invented."""
    if mask.shape == tuple(size):
        return mask
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


# ---------------------------------------------------------------------------------------------- finding a palette

_FEW_COLORS = 64  # masks with no more colours than these were neither resized nor compressed
_PURE_DISTANCE = 4.0  # levels from a flat area's colour to the centre of its cluster
_PURE_SHARE = 0.25  # of all pixels; measured: .33 to .73 on masks down to 64 pixels, .06 to .16 on street photos
_FLAT_RANGE = 8  # levels: a 3x3 neighbourhood that varies less lies inside an area, away from blended borders
_CELL = 8  # levels: colours are counted in cubes of this size
_SEED_DISTANCE = 18.0  # levels: official colours lie at least 20 apart (caravan and trailer)
_SEED_SHARE = 2e-4  # of the flat pixels: a smaller heap of colour is noise, not a class
_MATCH_DISTANCE = 12.0  # levels, centre of a cluster to an official colour
_MATCH_SHARE = 0.95  # of the flat pixels that must lie in clusters with an official colour


def find_palette(masks: Iterable[np.ndarray], num_classes: int | None = None) -> Palette:
    """Finds the colours of a set of colour masks by k-means, the same in every run.

    Masks with few colours are taken at their word. Else only flat areas are looked at, so blended borders and JPEG
    noise suggest no colours. Without `num_classes` the number of clusters follows from the colours: each heap that is
    well apart from the others starts one. When the colours are Cityscapes', the official palette with its names and its
    ignored labels is returned.

    Args:
        masks: Colour masks of the training split, uint8 RGB `(H, W, 3)`.
        num_classes: The number of classes, when it is known. Then no official palette is looked for, and black is a
            class like any other.

    Returns:
        The official Cityscapes palette, or one with classes named `class_0`, `class_1`, ... by falling share.

    Raises:
        DataError: The masks look like photos, or hold fewer colours than classes were asked for.
        SemsegError: `num_classes` is below 2 or above 253.
    """
    if num_classes is not None and not 2 <= num_classes <= MAX_CLASSES:
        raise SemsegError(f"number of classes: got {num_classes}; expected 2 to {MAX_CLASSES}")
    heaps = _gather_colors(masks)
    exact = heaps.exact is not None and num_classes in (None, len(heaps.exact))
    if exact:
        centers, weights = _colors_of_codes(np.array(list(heaps.exact))), np.array(list(heaps.exact.values()))
    else:
        centers, weights = _k_means(heaps.colors, heaps.counts, _seed_colors(heaps.colors, heaps.counts, num_classes))
    if num_classes is None:
        if not exact:
            _refuse_photos(heaps, centers)
        if _are_cityscapes(centers, weights):
            return cityscapes_palette()
    if len(centers) < 2:
        raise DataError("masks: hold a single colour; two classes or more are needed: check the masks")
    order = np.argsort(-weights, kind="stable")
    apart = _smallest_distance(centers) if exact or num_classes is None else np.inf  # a given number may merge colours
    return Palette(
        names=tuple(f"class_{i}" for i in range(len(order))),
        colors=tuple(tuple(int(v) for v in centers[i].round()) for i in order),
        source="exact" if exact else "k-means",
        max_distance=min(Palette.max_distance, apart / 2),
    )


@dataclass
class _Heaps:
    """Colours of a set of masks.

    Attributes:
        colors: Mean colour `(M, 3)` of every cube that flat areas fall into.
        counts: Number of pixels `(M,)` in each of these.
        total: Number of all pixels, flat or not.
        exact: Number of pixels by colour code, or None where there are more than `_FEW_COLORS`.
    """

    colors: np.ndarray
    counts: np.ndarray
    total: int
    exact: dict[int, int] | None


def _gather_colors(masks: Iterable[np.ndarray]) -> _Heaps:
    per_axis = 256 // _CELL
    sums, total, exact = np.zeros((per_axis**3, 4)), 0, {}
    kernel = np.ones((3, 3), np.uint8)
    for mask in masks:
        total += mask[..., 0].size
        exact = _count_colors(mask, exact)
        varies = cv2.subtract(cv2.dilate(mask, kernel), cv2.erode(mask, kernel)).max(axis=2)
        pixels = mask[varies <= _FLAT_RANGE]
        cells = np.ravel_multi_index((pixels // _CELL).T.astype(np.int64), (per_axis,) * 3)
        for column, weights in enumerate([None, *pixels.T]):
            sums[:, column] += np.bincount(cells, weights, minlength=per_axis**3)
    filled = sums[:, 0] > 0
    if not filled.any() and not exact:
        raise DataError("masks: no area of even colour found in them; are these colour masks?")
    return _Heaps(sums[filled, 1:] / sums[filled, :1], sums[filled, 0], total, exact)


def _count_colors(mask: np.ndarray, counted: dict[int, int] | None) -> dict[int, int] | None:
    """Adds a mask's colours to those counted so far; None, from then on, once they are more than a few."""
    if counted is None:
        return None
    for code, count in zip(*np.unique(_color_codes(mask), return_counts=True), strict=True):
        counted[int(code)] = counted.get(int(code), 0) + int(count)
        if len(counted) > _FEW_COLORS:
            return None
    return counted


def _refuse_photos(heaps: _Heaps, centers: np.ndarray) -> None:
    pure = _squared_distances(heaps.colors, centers).min(axis=1) <= _PURE_DISTANCE**2
    share = heaps.counts[pure].sum() / heaps.total
    if share < _PURE_SHARE:
        raise DataError(
            f"masks: only {share:.0%} of their pixels lie in areas of one pure colour, as in photos; are the masks the "
            "right halves of the pairs? If they are, give their number of colours by --classes"
        )


def _smallest_distance(centers: np.ndarray) -> float:
    squared = _squared_distances(centers.round(), centers.round())
    return float(np.sqrt(squared[~np.eye(len(centers), dtype=bool)].min()))


def _seed_colors(colors: np.ndarray, counts: np.ndarray, num_classes: int | None) -> np.ndarray:
    """The fullest cubes that keep their distance from each other: where the clusters start."""
    wanted = num_classes or MAX_CLASSES
    least = 0 if num_classes else _SEED_SHARE * counts.sum()
    seeds: list[np.ndarray] = []
    for index in np.argsort(-counts, kind="stable"):
        if len(seeds) == wanted or counts[index] < least:
            break
        if not seeds or _squared_distances(colors[None, index], np.array(seeds)).min() >= _SEED_DISTANCE**2:
            seeds.append(colors[index])
    if len(seeds) < (num_classes or 2):
        raise DataError(
            f"masks: hold {len(seeds)} clearly different colours, fewer than the {num_classes or 2} classes expected; "
            "check the masks or --classes"
        )
    return np.array(seeds)


def _k_means(colors: np.ndarray, counts: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres `(K, 3)` and pixel counts `(K,)` of the clusters that start at `seeds`.

    OpenCV's k-means knows no weights, so cubes are repeated; the square root keeps small classes in sight.
    """
    repeats = np.ceil(np.sqrt(counts)).astype(np.int64)
    samples = np.repeat(colors, repeats, axis=0).astype(np.float32)
    labels = _squared_distances(samples, seeds).argmin(axis=1).astype(np.int32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 0.1)
    _, labels, centers = cv2.kmeans(samples, len(seeds), labels, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    first = np.cumsum(repeats) - repeats
    weights = np.bincount(labels.ravel()[first], counts, minlength=len(seeds))
    return centers, weights


def _are_cityscapes(centers: np.ndarray, weights: np.ndarray) -> bool:
    official = np.array([color for _, _, color in CITYSCAPES])
    near = _squared_distances(np.round(centers), official).min(axis=1) <= _MATCH_DISTANCE**2
    return bool(near.sum() >= 3 and weights[near].sum() >= _MATCH_SHARE * weights.sum())
