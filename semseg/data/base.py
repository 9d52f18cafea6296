"""What every data set is: samples in splits, a palette, and a way to load a sample."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semseg import IGNORE
from semseg.data.fit import better_turn
from semseg.data.united import OVERLAP, foreground, unite_masks
from semseg.errors import DataError, TooManyPixelsError
from semseg.images.bands import RGB, Bands
from semseg.images.georeference import Georeference, georeference_of_tags, is_same_grid, lay_on
from semseg.images.opening import MAX_PIXELS_TO_LEARN, open_image
from semseg.images.reading import Picture, read_mask, read_photo, split_pair
from semseg.images.resizing import enough_for, resize_mask, resize_photo
from semseg.labels.drawings import Drawing, rasterise
from semseg.labels.numbers import numbers_in
from semseg.labels.palettes import Palette
from semseg.labels.quantising import quantise
from semseg.runs.config import parse_fold

if TYPE_CHECKING:
    from semseg.data.survey import Survey

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
VAL_SHARE = 0.2


@dataclass(frozen=True)
class Sample:
    """One photo with its mask.

    Attributes:
        photo: The photo's file.
        mask: The mask's, the same file where a pair lies in one picture; the first of several.
        parts: All files of the mask, where there is one per object or per class; else empty.
        part_numbers: The number of the class, from 1 on, that each of `parts` shows; empty where all show objects of
            one class.
        page: Which picture of their files, where photos and masks are stacks.
        view: A picture that is black where the photo shows nothing that counts; None where all pixels count.
        drawing: What an annotation file says of the photo, in place of a mask; `mask` is that file then, which is not
            read again.
        bands: All files of the photo, where each of its bands has its own; else empty.
        correction: A mask of class ids that is read in place of the others, see `semseg.data.corrections`.
    """

    photo: Path
    mask: Path
    parts: tuple[Path, ...] = ()
    part_numbers: tuple[int, ...] = ()
    page: int | None = None
    view: Path | None = None
    drawing: Drawing | None = field(default=None, compare=False, repr=False)
    bands: tuple[Path, ...] = ()
    correction: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from, each once."""
        masks = () if self.drawing else (self.mask, *self.parts)
        masks = (self.correction,) if self.correction else masks
        view = (self.view,) if self.view else ()
        return tuple(dict.fromkeys((self.photo, *self.bands, *masks, *view)))

    @property
    def mask_place(self) -> str:
        """Where its mask comes from, for messages: a file, and the photo where one file is of many."""
        if self.correction:
            return str(self.correction)
        return self.drawing.place if self.drawing else str(self.mask)


@dataclass
class Found:
    """What a finder saw in a folder: see `semseg.data.DATASETS`.

    Attributes:
        root: The folder that holds the splits.
        splits: Samples of `"train"`, and of `"val"` and `"test"` where the folder has them.
        palette: What the masks hold, where the form of the data set says it.
        class_names: Names for classes that are found in the masks, when there are as many.
        problems: Files that cannot be made samples of, a line each.
        unpaired: Photos without a mask: as much a problem, unless lists name those that count.
        left_out: Pictures that are no part of the data set and that `notes` tell of.
        group: Samples of one group stay on one side when a validation split is drawn; None: each for itself.
        notes: How the folder was read and what was left out, a sentence each.
    """

    root: Path
    splits: dict[str, list[Sample]]
    palette: Palette | None = None
    class_names: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    unpaired: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    group: Callable[[Sample], str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """A sample as `Dataset.inspect` sees it.

    Attributes:
        photo: uint8 RGB `(h, w, 3)`, or bands `(h, w, C)`; smaller than `size` where a reduced size was enough.
        ids: uint8 `(H, W)`, 0 to K-1 or 255.
        unknown: bool `(H, W)`: ignored because the mask could not be understood there.
        mask: What the file holds: numbers `(H, W)` or colours `(H, W, 3)`.
        picture: Size, form and orientation of the photo's file.
        turned: Whether the mask had to be turned with its photo.
        transparent: How many pixels the mask leaves transparent; they are ignored unless the palette says more.
        overlapping: How many pixels are ignored because several files of the mask give them different classes.
        without_data: How many pixels are ignored because the photo has no data there.
    """

    photo: np.ndarray
    ids: np.ndarray
    unknown: np.ndarray
    mask: np.ndarray
    picture: Picture
    turned: bool
    transparent: int = 0
    overlapping: int = 0
    without_data: int = 0


class Dataset:
    """Photos and masks of one folder.

    Attributes:
        root: The folder that holds the splits.
        splits: Samples of `"train"`, `"val"` and, where the folder has one, `"test"`.
        palette: Classes, their colours, and what stands for them in the masks.
        notes: What was decided while opening, a sentence each, to be said aloud.
        problems: Files that could not be made samples of, a line each.
        unlabelled: Photos without a mask.
        drawn: Whether the validation split was drawn by seed, not given by the folder.
        group: Samples of one group stay on one side when they are moved between drawn splits; None: each for itself.
        bands: What the photos hold at each pixel.
        digests: Of the bytes of each sample's files, hexadecimal, once a check has read them.
        sizes: (H, W) of each sample, once a check has looked at it.
        survey: What a first look at a few samples showed, see `survey_of`; None before it.
        has_changed: Tells whether a sample's files have other bytes than the check read; None before a check.
    """

    def __init__(
        self,
        root: Path,
        splits: dict[str, list[Sample]],
        palette: Palette,
        *,
        notes: Sequence[str] = (),
        problems: Sequence[str] = (),
        unlabelled: Sequence[Path] = (),
        drawn: bool = False,
        group: Callable[[Sample], str] | None = None,
        bands: Bands = RGB,
    ):
        self.root, self.splits, self.palette, self.drawn, self.group = root, splits, palette, drawn, group
        self.notes, self.problems, self.bands = list(notes), list(problems), bands
        self.unlabelled = list(unlabelled)
        self.digests: dict[Sample, str] = {}
        self.sizes: dict[Sample, tuple[int, int]] = {}
        self.survey: Survey | None = None
        self.has_changed: Callable[[Sample], bool] | None = None

    @property
    def task(self) -> str:
        """`"binary"` for two classes, `"multiclass"` for more."""
        return "binary" if self.palette.num_classes == 2 else "multiclass"

    @property
    def num_logits(self) -> int:
        """Channels of the model's output: 1 for the binary task, K otherwise."""
        return 1 if self.task == "binary" else self.palette.num_classes

    @property
    def samples(self) -> list[Sample]:
        """The samples of all splits, one split after the other."""
        return [sample for samples in self.splits.values() for sample in samples]

    def size_of(self, sample: Sample) -> tuple[int, int]:
        """(H, W) of a sample, as a check saw it; without one its files are read for that.

        Args:
            sample: One of this data set.

        Raises:
            DataError: The file cannot be used; the message names it.
        """
        if sample not in self.sizes:
            height, width = self.inspect(sample).ids.shape
            self.sizes[sample] = (height, width)
        return self.sizes[sample]

    def load(self, sample: Sample, image_size: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns photo, uint8 RGB `(H, W, 3)` or as `bands` say, and class ids, uint8 `(H, W)`.

        Args:
            sample: One of this data set.
            image_size: (H, W) to resize to; None for the size of the files.

        Raises:
            DataError: The file cannot be used, or changed since it was checked; the message names it.
        """
        look = self.inspect(sample, None if image_size is None else enough_for(image_size))
        if self.has_changed is not None and self.has_changed(sample):
            raise _changed(sample, look)
        if image_size is None:
            return look.photo, look.ids
        return resize_photo(look.photo, image_size), resize_mask(look.ids, image_size)

    def load_photo(self, sample: Sample) -> np.ndarray:
        """The photo alone, as `load` returns it; whatever is wrong with the mask is not noticed.

        Args:
            sample: One of this data set.

        Raises:
            DataError: The file cannot be used; the message names it.
        """
        pixels = self._read_photo(sample).pixels
        return split_pair(pixels, sample.photo)[0] if _is_pair(sample) else pixels

    def _read_photo(self, sample: Sample, at_least: tuple[int, int] | None = None) -> Picture:
        """The picture with the photo; of a pair it holds the mask, too, and is read at its own size."""
        return read_photo(
            sample.photo, None if _is_pair(sample) else at_least, page=sample.page, bands=self.bands,
            files=sample.bands, max_pixels=MAX_PIXELS_TO_LEARN,
        )  # fmt: skip

    def inspect(self, sample: Sample, at_least: tuple[int, int] | None = None) -> Look:
        """Loads a sample with all that a check wants to know.

        Args:
            sample: One of this data set.
            at_least: (height, width) of the photo that are enough, as in `read_photo`; None for its own size.

        Raises:
            DataError: The file cannot be used; the message names it.
        """
        picture = self._read_photo(sample, at_least)
        if _is_pair(sample):
            photo, mask = split_pair(picture.pixels, sample.photo)
            if sample.correction:
                return self._look_at_correction(sample, replace(picture, pixels=photo, size=photo.shape[:2]))
            return Look(photo, *quantise(mask, self.palette), mask, picture, turned=False)
        if sample.correction:
            look = self._look_at_correction(sample, picture)
        else:
            look = (self._look_at_drawing if sample.drawing else self._look_at_mask)(sample, picture)
        if sample.view:
            _ignore(look, ~_view_of(sample, look))
        if picture.without_data is not None:
            look = replace(look, without_data=_ignore(look, picture.without_data))
        return look

    def _look_at_mask(self, sample: Sample, picture: Picture) -> Look:
        """What `inspect` returns for a photo with a mask."""
        stored = read_mask_of(sample)
        mask = raw_mask(stored, self.palette.holds_values, sample.mask)
        mask, turned = _upright(sample, picture, stored, mask)
        look = Look(picture.pixels, *quantise(mask, self.palette), mask, picture, turned)
        if stored.transparent is not None:
            places = _turned(stored.transparent, picture.orientation) if turned else stored.transparent
            look = replace(look, transparent=_ignore(look, places))
            look.ids[places] = self.palette.transparent
        if sample.part_numbers:
            look = replace(look, overlapping=_ignore(look, mask == OVERLAP))
        return look

    def _look_at_correction(self, sample: Sample, picture: Picture) -> Look:
        """What `inspect` returns for a photo whose mask was corrected: ids, on the upright photo."""
        ids = read_mask_of_ids(sample.correction, self.palette.num_classes)
        if ids.shape != picture.size:
            raise DataError(_other_size(sample, picture.size, ids.shape))
        return Look(picture.pixels, ids, np.zeros(ids.shape, bool), ids.copy(), picture, turned=False)

    def _look_at_drawing(self, sample: Sample, picture: Picture) -> Look:
        """What `inspect` returns for a photo whose mask is drawn: names of classes tell the ids."""
        drawing = sample.drawing
        size = drawing.size or picture.size
        if size != picture.size and (picture.orientation == 1 or size != picture.size[::-1]):
            raise DataError(_other_size(sample, picture.size, size))
        ids = {label.name: label.id for label in reversed(self.palette.labels)}
        drawn = rasterise(drawing, size, ids)
        mask, turned = _upright(sample, picture, Picture(drawn, drawn.shape), drawn)
        return Look(picture.pixels, mask.copy(), np.zeros(mask.shape, bool), mask, picture, turned)


def _changed(sample: Sample, look: Look) -> DataError:
    """Says that files of a sample changed after their check, and what is no class in its mask now."""
    mend = "put it back, or start again, which checks all files anew"
    values, counts = np.unique(look.mask[look.unknown], axis=0, return_counts=True)
    if not len(values):
        return DataError(f"{sample.photo}: changed since it was checked, or its mask {sample.mask} did; {mend}")
    most = counts.argmax()
    value = values[most].item() if values.ndim == 1 else tuple(values[most].tolist())
    return DataError(
        f"{sample.mask}: changed since it was checked, and holds {value} at {counts[most]} pixels, which is no class; "
        f"{mend}"
    )


def _view_of(sample: Sample, look: Look) -> np.ndarray:
    """Where a sample's pixels count, bool `(H, W)`."""
    view = foreground(sample.view)
    if view.shape != look.ids.shape:
        raise DataError(
            f"{sample.view}: is {_size(view.shape)} pixels, its photo {sample.photo} {_size(look.ids.shape)}; both "
            "must be of one size: mend or remove them"
        )
    return view


def _ignore(look: Look, places: np.ndarray) -> int:
    """Takes the class from pixels, bool `(H, W)`, that are known to have none; returns how many these are."""
    look.ids[places], look.unknown[places] = IGNORE, False
    return int(np.count_nonzero(places))


def _is_pair(sample: Sample) -> bool:
    """Whether one picture holds photo and mask."""
    return sample.photo == sample.mask and not sample.drawing


def read_mask_of(sample: Sample) -> Picture:
    """Reads a sample's mask as its file, or its files, hold it, on the pixels of its photo.

    GeoTIFF masks of another extent, resolution or coordinate system than their photo are laid on it.

    Args:
        sample: Any, but no pair in one picture.

    Returns:
        As `read_mask` or, for several files, `unite_masks`.

    Raises:
        DataError: As these.
    """
    if sample.parts:
        return unite_masks(sample.parts, sample.part_numbers)
    places = places_that_differ(sample)
    if places is None:
        try:
            return read_mask(sample.mask, page=sample.page)
        except TooManyPixelsError:  # than any picture may have, but its photo may be as large
            return read_mask(sample.mask, page=sample.page, max_pixels=_count_pixels(sample.photo))
    state = sample.mask.stat()
    return _laid_on_photo(_read_raster(sample.mask, state.st_mtime_ns, state.st_size), *places, sample.mask)


def _count_pixels(photo: Path) -> int:
    with open_image(photo, page=0, max_pixels=MAX_PIXELS_TO_LEARN) as image:
        return image.width * image.height


@lru_cache(maxsize=1)
def _read_raster(path: Path, changed: int, size: int) -> Picture:
    """The last mask that was laid on a photo: it may be of many photos."""
    return read_mask(path)


def read_mask_of_ids(path: Path, num_classes: int) -> np.ndarray:
    """Class ids in a file, uint8 `(H, W)`.

    Args:
        path: A picture of numbers.
        num_classes: K.

    Raises:
        DataError: It cannot be read, or holds colours, or numbers that are neither ids, 0 to K-1, nor 255.
    """
    ids = read_mask(path).pixels
    expected = f"expected the ids of classes, 0 to {num_classes - 1}, or {IGNORE} for no class: mend it"
    if ids.ndim != 2:
        raise DataError(f"{path}: holds colours; {expected}")
    strange = ids[(ids >= num_classes) & (ids != IGNORE)]
    if len(strange):
        raise DataError(f"{path}: holds {strange[0]} at {len(strange)} pixels; {expected}")
    return ids.astype(np.uint8)


def places_that_differ(sample: Sample) -> tuple[Georeference, Georeference] | None:
    """Where mask and photo lie on Earth.

    Args:
        sample: Any.

    Returns:
        Both places; None unless both files are GeoTIFF and their pixels do not lie on each other.
    """
    mask = georeference_of_tags(sample.mask)
    photo = georeference_of_tags(sample.photo) if mask else None
    return None if mask is None or photo is None or is_same_grid(mask, photo) else (mask, photo)


def _laid_on_photo(stored: Picture, place: Georeference, photo: Georeference, path: Path) -> Picture:
    """The mask on the pixels of its photo; transparent where it does not reach."""
    pixels, outside = lay_on(stored.pixels, place, photo, path)
    if stored.transparent is not None:
        outside |= lay_on(stored.transparent, place, photo, path)[0]
    return replace(stored, pixels=pixels, size=pixels.shape[:2], transparent=outside if outside.any() else None)


def raw_mask(stored: Picture, as_numbers: bool, path: Path) -> np.ndarray:
    """A mask as numbers or as colours, whatever its file holds.

    Args:
        stored: The file's picture, from `read_mask`.
        as_numbers: Whether the data set's masks hold numbers, not colours.
        path: The file, for messages.

    Returns:
        Integers `(H, W)`, or colours uint8 RGB `(H, W, 3)`.

    Raises:
        DataError: The file holds the other kind, and no way leads from one to the other.
    """
    pixels = stored.pixels
    if as_numbers:
        if pixels.ndim == 2:
            return pixels
        numbers = numbers_in(pixels)
        if numbers is not None:
            return numbers
        raise DataError(f"{path}: holds colours, the other masks hold numbers; save it as they are")
    if pixels.ndim == 3:
        return pixels
    if stored.colors is not None:
        return stored.colors[pixels]
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: holds 16-bit numbers, the other masks hold colours; save it as they are")
    return np.repeat(pixels[..., None], 3, axis=2)


def _upright(sample: Sample, photo: Picture, stored: Picture, mask: np.ndarray) -> tuple[np.ndarray, bool]:
    """Gives the mask the photo's orientation: one rule for both.

    A mask without an EXIF orientation of its own was drawn either on the upright photo or on the pixels as they are
    stored. Its size tells which; where both are possible, the one that fits the photo's content better.
    """
    candidates = [mask]
    if photo.orientation != 1 and stored.orientation == 1:
        candidates.append(np.ascontiguousarray(_turned(mask, photo.orientation)))
    fitting = [candidate for candidate in candidates if candidate.shape[:2] == photo.size]
    if not fitting:
        raise DataError(_other_size(sample, photo.size, mask.shape))
    best = 0
    if len(fitting) == 2:
        best = better_turn(
            read_photo(sample.photo, page=sample.page, max_pixels=MAX_PIXELS_TO_LEARN).pixels,
            [_provisional_ids(candidate) for candidate in fitting],
        )
    return fitting[best], fitting[best] is not mask


def _other_size(sample: Sample, photo: Sequence[int], mask: Sequence[int]) -> str:
    return (
        f"{sample.photo}: is {_size(photo)} pixels, its mask {sample.mask_place} {_size(mask)}; both must be of one "
        "size: mend or remove them"
    )


def _provisional_ids(mask: np.ndarray) -> np.ndarray:
    """Ids uint8 `(H, W)` that tell a mask's numbers or colours apart, before anybody knows what they mean."""
    codes = mask if mask.ndim == 2 else mask.astype(np.int32) @ (65536, 256, 1)
    ids = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
    return ids.clip(max=254).astype(np.uint8)


def _turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation, 2 to 8, as it is undone in the photo."""
    if orientation >= 5:
        mask = mask.swapaxes(0, 1)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return mask[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def _size(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


# --------------------------------------------------------------------------------------------- files and splits


def spread(samples: list, count: int | None) -> list:
    """At most `count` of the samples, evenly spread over the list, in their order.

    Args:
        samples: Any list.
        count: At most so many; None for all.

    Example:
        >>> spread([0, 1, 2, 3, 4, 5], 3)
        [0, 2, 4]
    """
    if count is None or count >= len(samples):
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def seeded_split(
    samples: list[Sample], share: float, seed: int, group: Callable[[Sample], str] | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Splits off a share of the samples, or of their groups, drawn by seed.

    Args:
        samples: At least two, or at least two groups.
        share: How much to split off, 0 to 1, at least one sample or group.
        seed: The same seed gives the same split.
        group: Names the group of a sample, which stays on one side; None: each sample for itself.

    Returns:
        What is left, and what was split off, both in the order of `samples`.

    Raises:
        DataError: Fewer than two samples or groups.
    """
    group_of = group or (lambda sample: sample)
    groups = list(dict.fromkeys(map(group_of, samples)))
    if len(groups) < 2:
        raise DataError(
            f"{samples[0].photo.parent}: holds one {'group' if len(samples) > 1 else 'pair'} only; training and "
            "validation need one each"
        )
    count = max(1, round(share * len(groups)))
    drawn = {groups[i] for i in np.random.default_rng(seed).choice(len(groups), count, replace=False)}
    kept = [sample for sample in samples if group_of(sample) not in drawn]
    held_out = [sample for sample in samples if group_of(sample) in drawn]
    return kept, held_out


def fold_split(
    samples: list[Sample], fold: str, seed: int, group: Callable[[Sample], str] | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Splits off one of several parts of about equal size, so that each sample is in one of them.

    The groups, in an order drawn by seed and the largest first, go one by one to the part that has the fewest samples.

    Args:
        samples: At least as many, or groups of them, as there are parts.
        fold: Which part, such as `"2/5"`.
        seed: The same seed gives the same parts.
        group: Names the group of a sample, all of which are in one part; None: each sample for itself.

    Returns:
        The other parts, and the one that was split off, both in the order of `samples`.

    Raises:
        DataError: Fewer samples or groups than parts.

    Example:
        >>> [fold_split(["a", "b", "c", "d"], f"{k}/2", 0)[1] for k in (1, 2)]
        [['b', 'c'], ['a', 'd']]
    """
    number, count = parse_fold(fold)
    group_of = group or (lambda sample: sample)
    sizes = Counter(map(group_of, samples))
    if len(sizes) < count:
        what = "photos" if group is None else "groups of photos that belong together"
        raise DataError(
            f"{samples[0].photo.parent}: holds {len(sizes)} {what}, and each of {count} folds needs one; ask for fewer"
        )
    names = list(sizes)
    drawn = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    parts = np.zeros(count, np.int64)
    part_of = {}
    for name in sorted(drawn, key=lambda name: -sizes[name]):
        part_of[name] = int(parts.argmin())
        parts[part_of[name]] += sizes[name]
    kept = [sample for sample in samples if part_of[group_of(sample)] != number - 1]
    held_out = [sample for sample in samples if part_of[group_of(sample)] == number - 1]
    return kept, held_out
