"""What single masks hold: their numbers or colours with pixels, areas and pieces, and which of these are slips."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from semseg.images.reading import Picture
from semseg.labels.numbers import channel_of_numbers
from semseg.labels.palettes import MAX_UNSMOOTHED, Color, color_codes

_THUMB_SIZE = 256  # pixels of the longer side, of which single ones are taken
_MIN_SPECK = 64  # pixels: a number in one mask that holds fewer than these,
_MIN_SPECK_SHARE = 0.005  # or than this share of its pixels, may be a slip,
_MAX_THIN_SHARE = 0.01  # and so may one with up to this share that fills no 3x3 square
_MAX_SLIPPED_SHARE = 0.02  # of the masks that may hold a slip
_MIN_NOISE = 3  # slips in one mask, of which none is a rare class
_MIN_MASKS = 3  # with fewer masks, nothing says what is a slip
_TRANSPARENT = -(1 << 40)  # stands for a key; no file holds such a number
_GREY = 0x010101  # times a number: the code of a grey


@dataclass(frozen=True)
class MaskContents:
    """What one mask holds; keys are numbers, or colours by their codes (see `color_codes`).

    Attributes:
        path: The file.
        split: The split that it belongs to.
        kind: `"grey"` and `"index"` (a palette image) hold numbers, `"red"`, `"green"` and `"blue"` small numbers in
            that channel, `"color"` holds colours, and `"JPEG"` those that compression changed.
        pixels: How many pixels hold each key; transparent ones are left out.
        solid: Keys that fill a 3x3 square somewhere.
        rim: The most frequent key along the border of the picture.
        shown: What a palette image shows for its numbers.
        thumb: Keys of single pixels, evenly spread, int64 `(h, w)`, below any number where
            transparent; None if not asked for.
        transparent: How many pixels are transparent.
    """

    path: Path
    split: str
    kind: str
    pixels: dict[int, int]
    solid: frozenset[int]
    rim: int
    shown: dict[int, Color] = field(default_factory=dict)
    thumb: np.ndarray | None = None
    transparent: int = 0

    @property
    def smoothed(self) -> bool:
        """Whether most keys are blends of others: the mask was resized, drawn with soft edges, or compressed."""
        return len(self.pixels) > MAX_UNSMOOTHED and 2 * len(self.solid) < len(self.pixels)

    @cached_property
    def keys(self) -> frozenset[int]:
        """What it holds."""
        return frozenset(self.pixels)


_CHANNELS = ("red", "green", "blue")


def contents_of(mask: Picture, path: Path, split: str = "train", *, with_thumb: bool = False) -> MaskContents:
    """Looks at what a mask holds.

    Args:
        mask: As `read_mask` returns it.
        path: Its file.
        split: The split that it belongs to.
        with_thumb: Keep some of its pixels, for a look at pieces and borders.
    """
    kind, keys = _keys(mask)
    if mask.transparent is not None:
        keys = np.where(mask.transparent, _TRANSPARENT, keys.astype(np.int64))
    pixels = count_values(keys)
    transparent = pixels.pop(_TRANSPARENT, 0)
    shown = {}
    if mask.colors is not None:
        shown = {value: tuple(mask.colors[value].tolist()) for value in pixels}
    step = -(-max(keys.shape) // _THUMB_SIZE)
    return MaskContents(
        path, split, kind, pixels, frozenset(_solid_keys(keys)) & pixels.keys(), _rim(keys), shown,
        keys[::step, ::step].astype(np.int64) if with_thumb else None, transparent,
    )  # fmt: skip


def _keys(mask: Picture) -> tuple[str, np.ndarray]:
    """The kind of a mask and its keys `(H, W)`."""
    if mask.colors is not None:
        return "index", mask.pixels
    if mask.pixels.ndim == 2:
        return "grey", mask.pixels
    if mask.form in ("JPEG", "MPO"):
        return "JPEG", color_codes(mask.pixels)
    if (mask.pixels == mask.pixels[..., :1]).all():
        return "grey", mask.pixels[..., 0]
    channel = channel_of_numbers(mask.pixels)
    if channel is None:
        return "color", color_codes(mask.pixels)
    return _CHANNELS[channel], mask.pixels[..., channel]


def hold_numbers(masks: Sequence[MaskContents]) -> bool:
    """Whether what a set of masks stores are numbers: not colours, nor indices of palettes that differ.

    Args:
        masks: The set.
    """
    kinds = {mask.kind for mask in masks}
    if not kinds <= {"grey", "index", *_CHANNELS} or not _show_alike(masks):
        return False
    channels = kinds & set(_CHANNELS)
    others = [mask for mask in masks if mask.kind not in _CHANNELS]
    return not channels or (len(channels) == 1 and all(mask.keys <= {0} for mask in others))


def _show_alike(masks: Sequence[MaskContents]) -> bool:
    """Whether palette images show a number in one colour, in all of them."""
    shown: dict[int, Color] = {}
    return all(shown.setdefault(value, color) == color for mask in masks for value, color in mask.shown.items())


def with_color_keys(mask: MaskContents) -> MaskContents:
    """The same contents by colour, whatever the mask stores.

    Args:
        mask: Of any kind.
    """
    if mask.kind in ("color", "JPEG"):
        return mask
    unit = 1 << 8 * (2 - _CHANNELS.index(mask.kind)) if mask.kind in _CHANNELS else _GREY
    codes = {key: key * unit for key in mask.pixels}
    codes |= {key: (red << 16) + (green << 8) + blue for key, (red, green, blue) in mask.shown.items()}
    pixels: Counter[int] = Counter()
    for key, count in mask.pixels.items():
        pixels[codes[key]] += count
    thumb = mask.thumb
    if thumb is not None:
        held, places = np.unique(thumb, return_inverse=True)
        thumb = np.array([codes.get(int(key), _TRANSPARENT) for key in held])[places].reshape(thumb.shape)
    return replace(
        mask, kind="color", pixels=dict(pixels), solid=frozenset(codes[key] for key in mask.solid), shown={},
        rim=codes.get(mask.rim, _TRANSPARENT), thumb=thumb,
    )  # fmt: skip


def count_values(numbers: np.ndarray) -> dict[int, int]:
    """How many elements of an integer array hold each number, by rising number.

    Args:
        numbers: Integers of any shape.

    Example:
        >>> count_values(np.array([[3, 3], [0, 3]]))
        {0: 1, 3: 3}
    """
    flat = numbers.ravel()
    if numbers.dtype in (np.uint8, np.uint16):  # much faster than sorting
        counts = np.bincount(flat)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    if not flat.size:
        return {}
    starts = np.concatenate([[0], 1 + np.flatnonzero(flat[1:] != flat[:-1])])  # of runs, which are few in masks
    lengths = np.diff(starts, append=len(flat))
    values, places = np.unique(flat[starts], return_inverse=True)
    return dict(zip(values.tolist(), np.bincount(places, lengths).astype(int).tolist(), strict=True))


def _solid_keys(keys: np.ndarray) -> Iterable[int]:
    """The keys that fill a 3x3 square somewhere."""
    plain = keys if keys.dtype in (np.uint8, np.uint16) else keys.astype(np.float32)  # OpenCV has no int32
    kernel = np.ones((3, 3), np.uint8)
    even = cv2.dilate(plain, kernel) == cv2.erode(plain, kernel)
    return count_values(keys[1:-1, 1:-1][even[1:-1, 1:-1]])  # OpenCV knows nothing beyond the rim


def _rim(keys: np.ndarray) -> int:
    counts = count_values(np.concatenate([keys[0], keys[-1], keys[:, 0], keys[:, -1]]))
    return max(counts, key=lambda key: counts[key])


def are_smoothed(masks: Sequence[MaskContents]) -> bool:
    """Whether most of what a set of masks holds are blends, slips left out.

    Args:
        masks: The set.
    """
    held, solid = set().union(*(mask.keys for mask in masks)), set().union(*(mask.solid for mask in masks))
    return len(held) > MAX_UNSMOOTHED and 2 * len(solid) < len(held)


def without_slips(masks: Sequence[MaskContents], numbers: bool) -> list[MaskContents]:
    """The contents of masks without what is a slip in one of them: specks of a number that no other mask holds.

    Args:
        masks: Contents of all masks of a set.
        numbers: Whether the keys are numbers; one in the row of ids, or next to it, may then be a rare class.

    Returns:
        The same masks; where there are few of them, or such keys are everywhere, with all that they hold.
    """
    slips = _slips(masks, numbers)
    return [
        replace(mask, pixels={key: count for key, count in mask.pixels.items() if key not in slips},
                solid=mask.solid - slips)
        for mask in masks
    ]  # fmt: skip


def _slips(masks: Sequence[MaskContents], numbers: bool) -> set[int]:
    specks = _specks(masks)
    by_mask = list(filter(None, (specks & mask.keys for mask in masks)))
    are_blends = len(specks) > MAX_UNSMOOTHED and len(by_mask) > max(1, len(masks) // 10)
    if len(masks) < _MIN_MASKS or are_blends:
        return set()
    others = set().union(*(mask.keys for mask in masks)) - specks
    in_row = _in_row(specks, others) if numbers else set()
    noise = set().union(*(keys for keys in by_mask if len(keys) >= _MIN_NOISE))
    return specks - (in_row - noise)


def _specks(masks: Sequence[MaskContents]) -> set[int]:
    """Keys that are in few masks, and in each of these no more than a speck."""
    holders = Counter(key for mask in masks for key in mask.keys)
    small = Counter(key for mask in masks for key in mask.keys if _is_speck(mask, key))
    max_holders = max(1, int(_MAX_SLIPPED_SHARE * len(masks)))
    return {key for key, count in holders.items() if small[key] == count <= max_holders}


def _is_speck(mask: MaskContents, key: int) -> bool:
    """Whether a key fills so little of a mask that a slip of the pen, or a blend of colours, may have left it."""
    count, total = mask.pixels[key], sum(mask.pixels.values())
    if count < min(_MIN_SPECK, _MIN_SPECK_SHARE * total):
        return True
    return key not in mask.solid and count < _MAX_THIN_SHARE * total


def _in_row(numbers: set[int], others: set[int]) -> set[int]:
    """The numbers that have ids on both sides, or come next after, or before, all of them."""
    row = others - {255}
    beyond = {min(row, default=-1) - 1, max(row, default=-1) + 1}
    return {number for number in numbers if number in beyond or {number - 1, number + 1} <= row}


def lies_in_pieces(thumb: np.ndarray) -> dict[int, bool]:
    """For each key of a mask whether it lies in several pieces, the largest of which holds less than nine tenths.

    Args:
        thumb: Keys, int `(h, w)`.

    Example:
        >>> lies_in_pieces(np.array([[1, 0, 1], [0, 0, 0], [2, 2, 2]]))
        {0: False, 1: True, 2: False}
    """
    height, width = thumb.shape
    cells = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)  # pixels, and between them whether both are equal
    cells[::2, ::2] = 1
    cells[1::2, ::2], cells[::2, 1::2] = thumb[1:] == thumb[:-1], thumb[:, 1:] == thumb[:, :-1]
    pieces = cv2.connectedComponents(cells, connectivity=4)[1][::2, ::2].ravel()
    _, first, sizes = np.unique(pieces, return_index=True, return_counts=True)
    largest: dict[int, int] = defaultdict(int)
    for key, size in zip(thumb.ravel()[first].tolist(), sizes.tolist(), strict=True):
        largest[key] = max(largest[key], size)
    return {key: largest[key] < 0.9 * count for key, count in count_values(thumb).items() if key != _TRANSPARENT}
