"""What the photos of a data set hold, decided once: 8-bit RGB, or bands, whose ranges are measured."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semseg.data.base import Found, Sample, spread
from semseg.errors import DataError
from semseg.images.band_reading import Stored, look_at_header, read_numbers, varies_as_a_picture
from semseg.images.bands import MAX_BANDS, RGB, Bands, suited_view

_FEW = 32  # photos, evenly spread, whose headers are looked at first
_MEASURED = 64  # training photos, evenly spread, whose ranges are measured
_PIXELS_OF_EACH = 1 << 14  # at most, on a grid
_BLACK, _WHITE = 1, 99  # percentiles: a few clouds or dead pixels move the extremes, and the spread, but not these
_MIN_RANGE = 1e-4  # of numbers in a band; Keras' Normalization takes less than 1e-7 for a spread of 0
_MAX_NAMED = 3
_OTHER_SCALE = 50  # times the usual largest number, or so much less: 8 bits among 16 are 257 times less
_VOLUMES = (".nii", ".nii.gz", ".dcm", ".mha", ".mhd", ".nrrd", ".czi", ".nd2", ".lif")


def join_band_files(found: Found, groups: Mapping[Path, tuple[Path, ...]]) -> None:
    """Gives the samples all files of their photos, where each band has its own.

    Args:
        found: Its samples are replaced.
        groups: From `group_band_files`.
    """
    for split, samples in found.splits.items():
        found.splits[split] = [replace(sample, bands=groups.get(sample.photo, ())) for sample in samples]


def name_volumes(files: Iterable[Path]) -> str:
    """What to do with medical volumes and microscope containers; empty where there are none.

    Args:
        files: Of a folder.
    """
    named = next((path for path in files if path.name.lower().endswith(_VOLUMES)), None)
    if named is None:
        return ""
    return (
        f"{named}: is a volume or a container of several pictures, which semseg does not read, as it segments pictures "
        "and not volumes (3D); save each slice as 16-bit TIFF, PNG or .npy, with a mask of the same name"
    )


def find_bands(
    splits: Mapping[str, Sequence[Sample]], names: tuple[str, ...], given: Bands | None = None
) -> tuple[Bands, list[str]]:
    """Looks what the photos hold.

    Args:
        splits: Samples by the name of their split, one of which is `"train"`.
        names: Of the bands, where each lies in a file of its own.
        given: What a network was trained on: nothing is looked at then, as reading refuses what does not fit.

    Returns:
        The bands of most photos, with the range of each over the training photos; and what was decided, a sentence
        each. Reading refuses the photos that hold others.

    Raises:
        DataError: There are more than 64 bands, or no training photo has any data, or the bands lie in files of their
            own and those of the network did not, or had other names.
    """
    samples = [sample for of_split in splits.values() for sample in of_split]
    if given is not None:
        _refuse_other_files(samples[0], names, given)
        return given, []
    few = _headers(spread(samples, _FEW))
    if not names and all(header.is_plain and not header.may_be_alpha for header in few.values()):
        return RGB, []
    headers = _headers(samples)
    count, dtype = _usual(headers, names)
    if (count, dtype) == (3, "uint8") and not names:
        return RGB, []
    if count > MAX_BANDS:
        raise DataError(f"{samples[0].photo}: has {count} bands; semseg reads up to {MAX_BANDS}: choose some")
    said = names or next((header.names for header in headers.values() if len(header.names) == count), ())
    bands = Bands(count, dtype, said, shown=suited_view(count, said), file_per_band=bool(names))
    bands = _measured(splits["train"], bands)
    return bands, [_describe(bands)]


def _refuse_other_files(sample: Sample, names: tuple[str, ...], given: Bands) -> None:
    """Raises a `DataError` where files for each band are there and not wanted, or wanted and not there."""
    wanted = given.names if given.file_per_band else ()
    if names != wanted:
        seen, expected = (f"a file for each band, {', '.join(of)}" if of else "one file" for of in (names, wanted))
        raise DataError(f"{sample.photo}: has {seen}; the network was trained on photos of {expected}")


def _headers(samples: Sequence[Sample]) -> dict[Sample, Stored]:
    """What the first files of photos hold; those that cannot be read are left out, as the check will name them."""
    headers = {}
    for sample in samples:
        with suppress(DataError):
            headers[sample] = look_at_header(sample.photo, sample.page)
    return headers


def _usual(headers: Mapping[Sample, Stored], names: tuple[str, ...]) -> tuple[int, str]:
    """Number and depth of the bands that most photos have."""
    if names:
        return len(names), _most_frequent(header.dtype for header in headers.values())
    drops_alpha = _is_alpha_dropped(headers)
    kinds = (
        (3 if header.is_plain and (drops_alpha or not header.may_be_alpha) else header.count, header.dtype)
        for header in headers.values()
    )
    count, dtype = _most_frequent(kinds)
    fourth = [header for header in headers.values() if header.count == count and _has_fourth(header)]
    return (count - 1 if drops_alpha and fourth else count), dtype


def _is_alpha_dropped(headers: Mapping[Sample, Stored]) -> bool:
    """Whether what may be alpha is alpha: not all photos have it, or in few of them it varies as a picture does."""
    with_alpha = [(sample.photo, header) for sample, header in headers.items() if _has_fourth(header)]
    if len(with_alpha) < len(headers):
        return True
    few = spread(with_alpha, _FEW)
    return 2 * sum(varies_as_a_picture(path, header) for path, header in few) <= len(few)


def _has_fourth(header: Stored) -> bool:
    """Whether the last band may be alpha, by what is said of it, or by the number of bands of 8 bits."""
    return header.may_be_alpha or (header.count == 4 and header.dtype == "uint8")


def _most_frequent(items: Iterable[Any]) -> Any:
    return Counter(items).most_common(1)[0][0]


# ----------------------------------------------------------------------------------------------------------- ranges


def _measured(samples: Sequence[Sample], bands: Bands) -> Bands:
    """The bands with their ranges over some of the training photos."""
    parts = []
    for sample in spread(list(samples), _MEASURED):
        with suppress(DataError):  # the check will name it
            parts.append(_present_numbers(*read_numbers(sample.bands or (sample.photo,), bands, sample.page)))
    if not any(map(len, parts)):
        _explain(samples[0], bands)
    values = np.concatenate(parts)
    low, high = np.percentile(values, (_BLACK, _WHITE), axis=0)
    flat = high <= low  # of nearly all pixels one number: from the lowest to the highest then
    low, high = np.where(flat, values.min(axis=0), low), np.where(flat, values.max(axis=0), high)
    high = np.where(high <= low, low + 1, high)
    if (high - low).min() < _MIN_RANGE:
        raise DataError(
            f"{samples[0].photo}: the photos' numbers span {(high - low).min():.1g} in a band, too little for float32; "
            "multiply them by some power of ten"
        )
    limits = (tuple(map(float, np.float32(row))) for row in (low, high, values.mean(axis=0)))
    return replace(bands, **dict(zip(("low", "high", "mean"), limits, strict=True)))


def _present_numbers(pixels: np.ndarray, absent: np.ndarray | None) -> np.ndarray:
    """Numbers `(M, C)`, float64, of some pixels that have data in all bands."""
    step = max(1, int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / _PIXELS_OF_EACH))))
    some = pixels[::step, ::step].astype(np.float64)
    return some.reshape(-1, some.shape[2]) if absent is None else some[~absent[::step, ::step].any(axis=2)]


def _explain(sample: Sample, bands: Bands) -> None:
    """Raises the `DataError` that says why no training photo could be measured."""
    read_numbers(sample.bands or (sample.photo,), bands, sample.page)
    raise DataError(f"{sample.photo}: holds no data anywhere (nodata or NaN in every pixel), as all training photos")


def _describe(bands: Bands) -> str:
    """What the photos hold, in a sentence."""
    names = bands.names or tuple(str(1 + place) for place in range(bands.count))
    ranges = ", ".join(
        f"{name} {low:.5g} to {high:.5g}" for name, low, high in zip(names, bands.low, bands.high, strict=True)
    )
    shown = ", ".join(names[place] for place in bands.shown)
    where = ", in a file each" if bands.file_per_band else ""
    return f"photos hold {bands}{where}, seen from their 1st to their 99th percentile: {ranges}; pictures show {shown}"


# ------------------------------------------------------------------------------------------ what a check says of them


def remarks_on_bands(bands: Bands, entries: Sequence[tuple[Sample, Any]]) -> list[str]:
    """What is unusual about the numbers in the bands, a line each.

    Args:
        bands: What the photos hold.
        entries: Samples, each with its `Record`.
    """
    if not entries:
        return []
    ranges = np.array([record.ranges for _, record in entries])  # (samples, C, 2)
    return [*_flat_bands(bands, ranges, entries), *_other_scales(ranges, entries), *_without_data(entries)]


def _flat_bands(bands: Bands, ranges: np.ndarray, entries: Sequence[tuple[Sample, Any]]) -> Iterator[str]:
    flat = ranges[..., 0] == ranges[..., 1]
    for place in np.flatnonzero(flat.any(axis=0)):
        name = bands.names[place] if bands.names else f"band {place + 1}"
        if flat[:, place].all():
            yield f"{name} holds the same number at every pixel of each photo, and tells nothing"
        else:
            photos = [
                str(sample.photo) for (sample, _), is_flat in zip(entries, flat[:, place], strict=True) if is_flat
            ]
            yield f"{name} holds one number alone in {_named(photos)}"


def _other_scales(ranges: np.ndarray, entries: Sequence[tuple[Sample, Any]]) -> Iterator[str]:
    """Photos that lie far outside of what most hold: reflectances of 0 to 1 among those of 0 to 10000."""
    largest = np.abs(ranges).max(axis=2)  # (samples, C)
    usual = np.maximum(np.median(largest, axis=0), np.finfo(np.float32).tiny)
    varies = (ranges[..., 0] < ranges[..., 1]).any(axis=0)  # what is one number throughout tells nothing
    times = largest[:, varies] / usual[varies]
    strange = varies.any() & ((times < 1 / _OTHER_SCALE) | (times > _OTHER_SCALE)).all(axis=1)
    photos = [str(entries[i][0].photo) for i in np.flatnonzero(strange)]
    if photos:
        yield f"far from the numbers of the other photos, as on another scale: {_named(photos)}"


def _without_data(entries: Sequence[tuple[Sample, Any]]) -> Iterator[str]:
    missing = sum(record.without_data for _, record in entries)
    if missing:
        total = sum(record.size[0] * record.size[1] for _, record in entries)
        photos = [str(sample.photo) for sample, record in entries if record.without_data]
        yield f"without data (nodata or NaN), and ignored: {missing / total:.2%} of the pixels, in {_named(photos)}"


def _named(photos: Sequence[str]) -> str:
    more = f" and {len(photos) - _MAX_NAMED} more" if len(photos) > _MAX_NAMED else ""
    return ", ".join(photos[:_MAX_NAMED]) + more
