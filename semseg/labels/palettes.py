"""What the colours or values of masks mean: the well-known codes, and finding the code of masks nobody described."""

import colorsys
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from semseg import IGNORE
from semseg.errors import DataError, SemsegError
from semseg.labels.known_palettes import ADE20K, CAMVID_11, CAMVID_32, CITYSCAPES, VOC

MAX_VALUE = 65536  # numbers in masks lie below
MIN_MATCHES = 3  # numbers, or classes' colours, that make a well-known code,
_MIN_MATCHED_SHARE = 0.15  # and how much of it: any few colours are found in a code of 150
MAX_CLASSES = 253  # ids are uint8: 255 is IGNORE, and two more values have a meaning in the table of colours

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Label:
    """One thing that masks may hold.

    Attributes:
        name: What people call it.
        id: Its class, 0 to K-1; `IGNORE` (255) for what is no class. Labels that share an id are one class.
        color: RGB, 0 to 255: what a colour mask holds, and how pictures show it.
        value: What a mask of ids holds; None for colour masks.
    """

    name: str
    id: int
    color: Color
    value: int | None = None


@dataclass(frozen=True)
class Palette:
    """What the colours or values of masks mean.

    Attributes:
        labels: Everything that is known; the first label of an id names and colours the class.
        source: How it was found: the name of a well-known code, `"exact"` (the masks hold few colours), `"values"`
            (they hold numbers), `"k-means"`, `"outlines"` (annotation files name them), or `"file"` (the user's own
            classes.json).
        blended: Whether the masks were resized or compressed after colouring, so that borders need `repair_mask`.
        max_distance: In colour masks that are not blended, a pixel farther than this from every colour (Euclidean, in
            RGB levels) is unknown.
        instances: The masks number or colour single objects: what no label stands for is of class 1, of which there are
            two. Numbers below 0 stay unknown.
        transparent: The class of pixels that a mask leaves transparent, 0 to K-1; `IGNORE` where they are no class.
    """

    labels: tuple[Label, ...]
    source: str = "exact"
    blended: bool = False
    max_distance: float = 40.0
    instances: bool = False
    transparent: int = IGNORE

    def __post_init__(self) -> None:
        """Raises a `SemsegError` unless the ids are 0 to K-1, K at least 2, and all labels are of one kind."""
        ids = sorted({label.id for label in self.labels} - {IGNORE})
        if ids != list(range(len(ids))) or not 2 <= len(ids) <= MAX_CLASSES:
            raise SemsegError(
                f"classes: got the ids {listed(ids)}; expected 0, 1, 2 ... without a gap, 2 to {MAX_CLASSES} of them"
            )
        duplicate = _first_duplicate(self.names)
        if duplicate is not None:
            raise SemsegError(f"classes: two are called {duplicate!r}; give each its own name, or both one id")
        # Official tables may give two labels one colour; a person's file that does so is a slip.
        duplicate = _first_duplicate([_stored(label) for label in self.labels])
        if self.source == "file" and duplicate is not None:
            raise SemsegError(f"classes: {duplicate} stands for more than one entry; give each colour or value once")
        if len({label.value is None for label in self.labels}) > 1:
            raise SemsegError("classes: some labels have a value and some do not; give one to all or to none")
        _refuse_more_than_objects(self)
        if self.transparent not in (*ids, IGNORE):
            raise SemsegError(f"classes: `transparent` is {self.transparent}, no id of a class: expected {listed(ids)}")

    @classmethod
    def from_colors(
        cls, names: Sequence[str], colors: Sequence[Color], ignored: Sequence[tuple[str, Color]] = (), **options: Any
    ) -> "Palette":
        """A palette of colours, each a class of its own, and of colours that are no class.

        Args:
            names: One per class, in the order of the ids.
            colors: RGB, 0 to 255, one per class.
            ignored: Names and colours of what is no class.
            **options: Further attributes of the palette, such as `blended`.
        """
        classes = [Label(name, i, _color(color)) for i, (name, color) in enumerate(zip(names, colors, strict=True))]
        return cls((*classes, *(Label(name, IGNORE, _color(color)) for name, color in ignored)), **options)

    @classmethod
    def numbered(cls, count: int) -> "Palette":
        """A palette of classes that nobody named.

        Args:
            count: K, 2 to 253.
        """
        return cls(tuple(Label(f"class {i}", i, distinct_color(i), i) for i in range(count)), "values")

    @cached_property
    def _first(self) -> list[Label]:
        firsts: dict[int, Label] = {}
        for label in self.labels:
            firsts.setdefault(label.id, label)
        return [firsts[i] for i in sorted(firsts) if i != IGNORE]

    @property
    def num_classes(self) -> int:
        """The number of classes K, ignored labels not counted."""
        return len(self._first)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per class, in the order of the ids."""
        return tuple(label.name for label in self._first)

    @property
    def colors(self) -> tuple[Color, ...]:
        """One RGB colour per class, in the order of the ids."""
        return tuple(label.color for label in self._first)

    @property
    def holds_values(self) -> bool:
        """Whether the masks hold numbers, not colours."""
        return self.labels[0].value is not None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON, readable by `from_dict` and by people."""
        return {
            "source": self.source,
            "ignore_index": IGNORE,
            "blended": self.blended,
            "max_distance": self.max_distance,
            **({"instances": True} if self.instances else {}),
            **({"transparent": self.transparent} if self.transparent != IGNORE else {}),
            "classes": [_entry(label) for label in self.labels if label.id != IGNORE],
            "ignored": [_entry(label) for label in self.labels if label.id == IGNORE],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str | None = None) -> "Palette":
        """Returns the palette that `to_dict` described, also after a person has edited it.

        Args:
            values: As from `to_dict`, perhaps edited; `classes` with an `id` and a `name` each is what must be there.
            source: Overrides the source that `values` tells.

        Raises:
            SemsegError: Something is missing or of a wrong kind.
        """
        classes = _entries(values, "classes")
        ids = sorted({_number(entry, "id", place) for place, entry in classes})  # one that was taken out leaves a gap
        labels = [_label(place, entry, ids.index(entry["id"])) for place, entry in classes]
        labels.sort(key=lambda label: label.id)
        labels += [_label(place, entry, IGNORE) for place, entry in _entries(values, "ignored")]
        options = {name: values[name] for name in _OPTIONS if name in values}
        for name, value in options.items():
            fits, expected = _OPTIONS[name]
            if not fits(value):
                raise _not_understood(name, value, expected)
        return cls(tuple(labels), source or str(values.get("source", "file")), **options)


def _is_whole(value: Any, end: int = 1 << 31) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "blended": (_is_flag, "true or false"),
    "instances": (_is_flag, "true or false"),
    "transparent": (_is_whole, f"the id of a class, or {IGNORE}"),
    "max_distance": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf,
        "a number of at least 0",
    ),
}


def _not_understood(place: str, value: Any, expected: str) -> SemsegError:
    return SemsegError(
        f"classes: {place} cannot be understood (got {reprlib.repr(value)}); expected {expected}, as in a classes.json "
        "that semseg wrote"
    )


def _entries(values: Any, name: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a list in a classes.json, each with its place for messages."""
    held = values.get(name, [] if name == "ignored" else None) if isinstance(values, dict) else None
    if not isinstance(held, list):
        raise _not_understood(name, held, 'an object with the lists "classes" and, perhaps, "ignored"')
    entries = [(f"{name}[{i}]", entry) for i, entry in enumerate(held)]
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise _not_understood(place, entry, "an object with id, name, and color [r, g, b] or value")
    return entries


def _number(entry: Mapping[str, Any], name: str, place: str, end: int = 1 << 31) -> int:
    value: Any = entry.get(name)
    if not _is_whole(value, end):
        raise _not_understood(f"{place}.{name}", value, f"a whole number, 0 to {end - 1}")
    return int(value)


def _refuse_more_than_objects(palette: Palette) -> None:
    if palette.instances and palette.num_classes != 2:
        raise SemsegError(f"classes: got {palette.num_classes} with `instances`; expected 2, background and object")


def _stored(label: Label) -> Color | int:
    """What a mask holds where it shows the label: its colour or its value."""
    return label.color if label.value is None else label.value


def _first_duplicate(items: Sequence) -> Any | None:
    """The first item that occurs more than once; None if all differ."""
    counts = Counter(items)
    return next((item for item in items if counts[item] > 1), None)


def _entry(label: Label) -> dict[str, Any]:
    entry = {"id": label.id, "name": label.name, "color": list(label.color), "value": label.value}
    return {key: value for key, value in entry.items() if value is not None}


def _label(place: str, entry: Mapping[str, Any], class_id: int) -> Label:
    name, color = entry.get("name"), entry.get("color", distinct_color(class_id))
    if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
        raise _not_understood(f"{place}.name", name, "a text")
    if not isinstance(color, list | tuple) or len(color) != 3 or not all(_is_whole(level, 256) for level in color):
        raise _not_understood(f"{place}.color", color, "[r, g, b], each 0 to 255")
    value = None if entry.get("value") is None else _number(entry, "value", place, MAX_VALUE)
    return Label(str(name), class_id, _color(color), value)


def distinct_color(index: int) -> Color:
    """A colour for the class `index` of masks that have none: dark grey, then hues far apart from their neighbours.

    Args:
        index: At least 0.
    """
    if index == 0:
        return (52, 58, 70)
    hue = (0.11 + 0.618034 * (index - 1)) % 1
    lightness, saturation = ((0.55, 0.85), (0.42, 0.65), (0.72, 0.75))[(index // 5) % 3]
    return _color(round(255 * level) for level in colorsys.hls_to_rgb(hue, lightness, saturation))


def _color(levels: Iterable[int]) -> Color:
    red, green, blue = levels
    return int(red), int(green), int(blue)


def cityscapes_palette(*, categories: bool = False, held: str = "color") -> Palette:
    """Returns the official Cityscapes labels: 19 train ids; the other labels are ignored.

    Args:
        categories: The 7 categories (flat, construction, object, nature, sky, human, vehicle) in place of the 19.
        held: What the masks hold: `"color"`, `"id"` (`_labelIds`) or `"train_id"` (`_labelTrainIds`).

    Example:
        >>> cityscapes_palette().names[:3]
        ('road', 'sidewalk', 'building')
        >>> cityscapes_palette(categories=True).names[0]
        'flat'

    Reference: Cordts et al. 2016, The Cityscapes Dataset; the label table of cityscapesScripts.
    """
    trained = [category for *_, train_id, category, _ in _by_train_id() if train_id != IGNORE]
    category_names = list(dict.fromkeys(trained))
    labels: dict[Color | int, Label] = {}  # some labels share a colour or a number; the first one counts
    for name, label_id, train_id, category, color in _by_train_id():
        value = {"color": None, "id": label_id % 256, "train_id": train_id}[held]
        label = Label(name, train_id, color, value)
        if categories and train_id != IGNORE:
            label = replace(label, name=category, id=category_names.index(category))
        labels.setdefault(_stored(label), label)
    return Palette(tuple(labels.values()), "cityscapes")


def _by_train_id() -> list[tuple[str, int, int, str, Color]]:
    return sorted(CITYSCAPES, key=lambda entry: entry[2])


def known_palettes() -> list[Palette]:
    """The well-known palettes of colours."""
    black_and_white = (("background", (0, 0, 0)), ("foreground", (255, 255, 255)))
    tables = {"camvid": CAMVID_11, "camvid 32": CAMVID_32, "voc": VOC, "ade20k": ADE20K, "binary": black_and_white}
    known = [cityscapes_palette()]
    for source, table in tables.items():
        classes = [entry for entry in table if entry[0] != "void"]
        ignored = [entry for entry in table if entry[0] == "void"]
        names, colors = zip(*classes, strict=True)
        known.append(Palette.from_colors(names, colors, ignored, source=source.split()[0]))
    return known


def suffices(palette: Palette, ids: set[int]) -> bool:
    """Whether so many of its classes were met that a well-known palette is recognised.

    Args:
        palette: The well-known one.
        ids: Classes of it that masks hold; `IGNORE` among them does not count.
    """
    count = palette.num_classes
    required = count if count < MIN_MATCHES else max(MIN_MATCHES, math.ceil(_MIN_MATCHED_SHARE * count))
    return len(ids - {IGNORE}) >= required


def listed(values: Sequence[object], max_shown: int = 8) -> str:
    """The values in words, the first few of them and the last.

    Args:
        values: Any, in their order.
        max_shown: Of more than these the last is named alone.

    Example:
        >>> listed([0, 1, 2, 3], 2), listed([])
        ('0, 1 ... 3', 'nothing')
    """
    shown = ", ".join(str(value) for value in values[:max_shown])
    return f"{shown} ... {values[-1]}" if len(values) > max_shown else shown or "nothing"


# -------------------------------------------------------------------------------------- masks that hold colours

MAX_UNSMOOTHED = 16  # colours or numbers; of more, most of which never fill a 3x3 square, smoothing made the most
MAX_EXACT_COLORS = 64  # masks with no more colours than these were neither resized nor compressed
_PURE_DISTANCE = 4.0  # levels from a flat area's colour to the centre of its cluster
_MIN_PURE_SHARE = 0.19  # of all pixels; measured: .33 to .73 on masks down to 64 pixels, .06 to .16 on street photos
_FLAT_RANGE = 8  # levels: a 3x3 neighbourhood that varies less lies inside an area, away from blended borders
_OBJECT_COLOR = (230, 159, 0)  # by which pictures show objects, whatever colours their masks have
_CELL = 8  # levels: colours are counted in cubes of this size
_SEED_DISTANCE = 18.0  # levels: official colours lie at least 20 apart (caravan and trailer)
_REACH = 27.0  # levels: a cube of colours farther from every start belongs to none, and would drag the centres away
_MIN_SEED_SHARE = 2e-4  # of the flat pixels: a colour with fewer is noise, not a class
_MIN_SEED_PIXELS = 10  # the same for small sets
_MATCH_DISTANCE = 12.0  # levels, centre of a cluster to an official colour
_MIN_MATCH_SHARE = 0.95  # of the flat pixels that must lie in clusters with an official colour
_MIN_BINARY_SHARE = 0.995  # the same for black and white, beside which a third colour is a class, not damage


def find_palette(masks: Iterable[np.ndarray], num_classes: int | None = None, *, lossy: bool = False) -> Palette:
    """Finds the colours of a set of colour masks by k-means, the same in every run.

    Masks with few colours are taken at their word. Else only flat areas are looked at, so blended borders and JPEG
    noise suggest no colours. Without `num_classes` the number of clusters follows from the colours: each frequent
    one that is well apart from the others starts one. When the colours are those of a well-known code (Cityscapes,
    CamVid, Pascal VOC, ADE20K, black and white) that code with its names and its ignored labels is returned.

    Args:
        masks: Colour masks of the training split, uint8 RGB `(H, W, 3)`.
        num_classes: The number of classes, when it is known. Then no well-known palette is looked for, and black is
            a class like any other.
        lossy: The masks were saved as JPEG, so that no colour is taken at its word, however few there are.

    Returns:
        A well-known palette, or one with classes named `class_0`, `class_1`, ... by falling share.

    Raises:
        DataError: The masks look like photos, or hold fewer colours than classes were asked for.
        SemsegError: `num_classes` is below 2 or above 253.
    """
    if num_classes is not None and not 2 <= num_classes <= MAX_CLASSES:
        raise SemsegError(f"`num_classes`: got {num_classes}; expected 2 to {MAX_CLASSES}")
    histogram = _color_histogram(masks)
    exact = None if lossy else histogram.exact
    if exact is not None and num_classes in (None, len(exact)):
        return palette_of_colors(exact, num_classes)
    seeds = _seed_colors(histogram.colors, histogram.counts, num_classes)
    near = squared_distances(histogram.colors, seeds).min(axis=1) <= (np.inf if num_classes else _REACH**2)
    centers, weights = _k_means(histogram.colors[near], histogram.counts[near], seeds)
    max_distance = Palette.max_distance
    if num_classes is None:  # a given number may merge colours, so that distances say nothing then
        _refuse_photos(histogram, centers)
        known = _recognise(centers, weights, exact=False)
        if known is not None:
            return replace(known, blended=True, max_distance=max_distance)
        max_distance = min(max_distance, _smallest_distance(centers) / 2)
    return _palette_by_share(centers, weights, source="k-means", blended=exact is None, max_distance=max_distance)


def palette_of_colors(pixels: Mapping[int, int], num_classes: int | None = None) -> Palette:
    """The palette of masks that hold exact colours.

    Args:
        pixels: How many pixels hold each colour, by its code (see `color_codes`).
        num_classes: The number of classes, when it is known. Then no well-known palette is looked for.

    Returns:
        A well-known palette, or one with classes named `class_0`, `class_1`, ... by falling share.

    Raises:
        DataError: There is a single colour.
    """
    colors, weights = colors_of_codes(np.array(list(pixels))), np.array(list(pixels.values()))
    if num_classes is None:
        known = _recognise(colors, weights, exact=True)
        if known is not None:
            return replace(known, blended=False, max_distance=0.0)
    if len(colors) < 2:
        raise DataError("masks: hold a single colour; two classes or more are needed: check the masks")
    return _palette_by_share(colors, weights, source="exact", blended=False, max_distance=0.0)


def palette_of_object_colors(background: int) -> Palette:
    """The palette of masks in which each object has a colour of its own: two classes.

    Args:
        background: The code of the colour that is no object. The cream of Pascal VOC's borders is ignored.
    """
    color = _color(colors_of_codes(np.array(background)).tolist())
    return Palette.from_colors(
        ("background", "object"), (color, _OBJECT_COLOR), [("border", VOC[-1][1])],
        source="exact", max_distance=0.0, instances=True,
    )  # fmt: skip


def palette_of_drawing(key: int, holds_values: bool) -> Palette:
    """The palette of masks in which one thing is drawn and all else is left transparent: background and object.

    Args:
        key: The number that is drawn, or the code of its colour.
        holds_values: Whether it is a number.
    """
    if holds_values:
        other = 0 if key else 255
        labels = Label("background", 0, distinct_color(0), other), Label("object", 1, _OBJECT_COLOR, key)
        return Palette(labels, "values", transparent=0)
    color = _color(colors_of_codes(np.array(key)).tolist())
    background = (255, 255, 255) if color == (0, 0, 0) else (0, 0, 0)
    return Palette.from_colors(
        ("background", "object"), (background, color), source="exact", max_distance=0.0, transparent=0
    )


def _palette_by_share(centers: np.ndarray, weights: np.ndarray, **options: Any) -> Palette:
    """A palette of nameless classes with these colours `(K, 3)`, the most frequent first."""
    order = np.argsort(-weights, kind="stable")
    names = [f"class_{i}" for i in range(len(order))]
    colors = centers[order].round().astype(int).tolist()
    return Palette.from_colors(names, colors, **options)


@dataclass
class _ColorHistogram:
    """Colours of a set of masks.

    Attributes:
        colors: Mean colour `(M, 3)` of every cube that flat areas fall into.
        counts: Number of pixels `(M,)` in each of these.
        total: Number of all pixels, flat or not.
        exact: Number of pixels by colour code; None where there are more than `MAX_EXACT_COLORS`, or most are blends.
    """

    colors: np.ndarray
    counts: np.ndarray
    total: int
    exact: dict[int, int] | None


def _color_histogram(masks: Iterable[np.ndarray]) -> _ColorHistogram:
    per_axis = 256 // _CELL
    sums, total = np.zeros((4, per_axis**3)), 0
    exact: dict[int, int] | None = {}
    with_area: set[int] = set()
    kernel = np.ones((3, 3), np.uint8)
    for mask in masks:
        total += mask[..., 0].size
        exact = _count_colors(mask, exact)
        varies = cv2.subtract(cv2.dilate(mask, kernel), cv2.erode(mask, kernel))
        if exact is not None:
            with_area.update(np.unique(color_codes(mask[cv2.inRange(varies, (0, 0, 0), (0, 0, 0)) > 0])).tolist())
        flat = np.flatnonzero(cv2.inRange(varies, (0, 0, 0), (_FLAT_RANGE,) * 3))
        pixels = np.stack([channel.take(flat) for channel in cv2.split(mask)])
        red, green, blue = (pixels // _CELL).astype(np.int64)
        cells = (red * per_axis + green) * per_axis + blue
        for row, weights in enumerate([None, *pixels]):
            sums[row] += np.bincount(cells, weights, minlength=per_axis**3)
    if exact and len(exact) > MAX_UNSMOOTHED and 2 * len(with_area) < len(exact):
        exact = None  # most of them are blends: a small mask that was smoothed or compressed
    filled = sums[0] > 0
    if not filled.any() and not exact:
        raise DataError("masks: no area of even colour found in them; are these colour masks?")
    return _ColorHistogram((sums[1:, filled] / sums[0, filled]).T, sums[0, filled], total, exact)


def _count_colors(mask: np.ndarray, counted: dict[int, int] | None) -> dict[int, int] | None:
    """Adds a mask's colours to those counted so far; None, from then on, once they are more than a few."""
    if counted is None:
        return None
    for code, count in zip(*np.unique(color_codes(mask), return_counts=True), strict=True):
        counted[int(code)] = counted.get(int(code), 0) + int(count)
        if len(counted) > MAX_EXACT_COLORS:
            return None
    return counted


def _refuse_photos(histogram: _ColorHistogram, centers: np.ndarray) -> None:
    """Raises a `DataError` where too few pixels lie in pure colours: in photos, shades run into each other."""
    pure = squared_distances(histogram.colors, centers).min(axis=1) <= _PURE_DISTANCE**2
    share = histogram.counts[pure].sum() / histogram.total
    if share < _MIN_PURE_SHARE:
        raise DataError(
            f"masks: only {share:.0%} of their pixels lie in areas of one pure colour, as in photos; are these the "
            "masks (of pairs, the right halves)? If they are, give their number of colours as `num_classes`"
        )


def _smallest_distance(centers: np.ndarray) -> float:
    squared = squared_distances(centers.round(), centers.round())
    return float(np.sqrt(squared[~np.eye(len(centers), dtype=bool)].min()))


def _seed_colors(colors: np.ndarray, counts: np.ndarray, num_classes: int | None) -> np.ndarray:
    """The fullest cubes that keep their distance from each other: where the clusters start."""
    min_seeds, max_seeds = (num_classes, num_classes) if num_classes else (2, MAX_CLASSES)
    min_count = 0 if num_classes else max(_MIN_SEED_PIXELS, _MIN_SEED_SHARE * counts.sum())
    seeds: list[np.ndarray] = []
    for index in np.argsort(-counts, kind="stable"):
        if len(seeds) == max_seeds or counts[index] < min_count:
            break
        if not seeds or squared_distances(colors[None, index], np.array(seeds)).min() >= _SEED_DISTANCE**2:
            seeds.append(colors[index])
    if len(seeds) < min_seeds:
        raise DataError(
            f"masks: hold {len(seeds)} clearly different colours, fewer than the {min_seeds} classes expected; "
            "check the masks or `num_classes`"
        )
    return np.array(seeds)


def _k_means(colors: np.ndarray, counts: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres `(K, 3)` and pixel counts `(K,)` of the clusters that start at `seeds`.

    OpenCV's k-means knows no weights, so cubes are repeated; the square root keeps small classes in sight.
    """
    repeats = np.ceil(np.sqrt(counts)).astype(np.int64)
    samples = np.repeat(colors, repeats, axis=0).astype(np.float32)
    labels = squared_distances(samples, seeds).argmin(axis=1).astype(np.int32)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 0.1)
    _, labels, centers = cv2.kmeans(samples, len(seeds), labels, stop, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    first = np.cumsum(repeats) - repeats
    weights = np.bincount(labels.ravel()[first], counts, minlength=len(seeds))
    return centers, weights


def _recognise(centers: np.ndarray, weights: np.ndarray, exact: bool) -> Palette | None:
    """The well-known palette that holds (nearly) all of these colours, the closest one if several do."""
    best, smallest = None, np.inf
    for palette in known_palettes():
        squared = squared_distances(np.round(centers), np.array([label.color for label in palette.labels]))
        labels, squared = squared.argmin(axis=1), squared.min(axis=1)
        near = squared <= (0 if exact else _MATCH_DISTANCE**2)
        enough_labels = suffices(palette, {palette.labels[i].id for i in labels[near]})
        needed = _MIN_MATCH_SHARE if palette.num_classes > 2 else _MIN_BINARY_SHARE
        enough_pixels = near.all() if exact else weights[near].sum() >= needed * weights.sum()
        mean_square = float((squared[near] * weights[near]).sum() / max(weights[near].sum(), 1))
        if enough_labels and enough_pixels and mean_square < smallest:
            best, smallest = palette, mean_square
    return best


def color_codes(colors: np.ndarray) -> np.ndarray:
    """Each colour as one number, red * 65536 + green * 256 + blue.

    Args:
        colors: uint8 RGB `(..., 3)`.

    Returns:
        uint32 `(...)`.

    Example:
        >>> color_codes(np.array([[0, 1, 2]], np.uint8)).tolist()
        [258]
    """
    if not colors.size:
        return np.zeros(colors.shape[:-1], np.uint32)
    row = np.ascontiguousarray(colors).reshape(1, -1, 3)
    # OpenCV's four bytes a pixel, read as one little-endian number, are the code with the alpha above it.
    return cv2.cvtColor(row, cv2.COLOR_RGB2BGRA).view("<u4").reshape(colors.shape[:-1]) & np.uint32(0xFFFFFF)


def colors_of_codes(codes: np.ndarray) -> np.ndarray:
    """The colours that `color_codes` was given.

    Args:
        codes: Integers `(...)`.

    Returns:
        Colours `(..., 3)` of the codes' dtype.
    """
    return np.stack([codes >> 16, (codes >> 8) & 255, codes & 255], axis=-1)


def squared_distances(colors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of colours from others.

    Args:
        colors: Levels `(M, 3)`.
        others: Levels `(K, 3)`.

    Returns:
        float32 `(M, K)`; exact for whole levels, whose squares float32 holds.
    """
    colors, others = colors.astype(np.float32), others.astype(np.float32)
    squared = colors @ others.T  # in place from here on, as there may be many
    squared *= -2
    squared += (colors**2).sum(axis=1)[:, None]
    squared += (others**2).sum(axis=1)
    return np.maximum(squared, 0, out=squared)
