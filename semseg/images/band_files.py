"""Photos whose bands lie in files of their own: `x_B02.tif` to `x_B08.tif`, `case_0000.png` and `case_0001.png`."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

_WORDS = (  # that name a band in the order in which people list them
    "red", "green", "blue", "rgb_red", "rededge", "nir", "swir", "swir1", "swir2", "thermal", "tir", "pan", "vv", "vh",
    "hh", "hv", "flair", "t1", "t1n", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "adc", "dwi", "dapi", "hoechst",
    "gfp", "fitc", "rfp", "tritc", "cy3", "cy5", "yfp", "cfp",
)  # fmt: skip
_NUMBERED = r"b\d{1,2}a?|band\d{1,2}|ch\d{1,2}|channel\d{1,2}"  # B02, B8A, band4, ch0
_WORD = re.compile(rf"(?<![a-z0-9])(?:{_NUMBERED}|{'|'.join(_WORDS)})(?![a-z0-9])", re.IGNORECASE)
_CHANNEL = re.compile(r"(?<=_)\d{4}$")  # nnU-Net's
_MIN_SHARE = 0.5  # of the photos that have all bands which any has

Group = Mapping[str, Path]  # the files of one photo by the names of their bands, in the order of the bands


def group_band_files(
    paths: Sequence[Path], root: Path, names: Collection[str] | None = None
) -> tuple[dict[Path, tuple[Path, ...]], tuple[str, ...]]:
    """Finds the files that are bands of one photo, by their names.

    Args:
        paths: Pictures.
        root: The folder that they lie in, at any depth; names of folders inside may tell the band, too.
        names: Of the bands, where they are known; None to look for the usual ones.

    Returns:
        The files of each photo in the order of the bands, by the first of them; and the names of the bands. Nothing
        where most photos have one file.

    Example:
        >>> groups, names = group_band_files([Path("a_B03.tif"), Path("a_B02.tif"), Path("a.png")], Path())
        >>> names, [path.name for path in groups[Path("a_B02.tif")]]
        (('B02', 'B03'), ['a_B02.tif', 'a_B03.tif'])
    """
    for pattern in _patterns(names):
        groups = _groups_by(pattern, paths, root)
        band_names = _common_names(groups)
        if band_names and (names is not None or _have_masks(groups, paths, numbered=pattern is _CHANNEL)):
            files = [[group[name] for name in band_names if name in group] for group in groups.values()]
            return {group[0]: tuple(group) for group in files if group}, band_names
    return {}, ()


def _patterns(names: Collection[str] | None) -> list[re.Pattern[str]]:
    if names is None:
        return [_WORD, _CHANNEL]
    if all(_CHANNEL.search(f"_{name}") for name in names):
        return [_CHANNEL]
    return [re.compile(rf"(?<![a-z0-9])(?:{'|'.join(map(re.escape, names))})(?![a-z0-9])", re.IGNORECASE)]


def _groups_by(pattern: re.Pattern[str], paths: Sequence[Path], root: Path) -> dict[str, dict[str, Path]]:
    """Files by what their paths have in common apart from the band's name, and by that name."""
    groups: dict[str, dict[str, Path]] = {}
    for path in paths:
        text = path.relative_to(root).with_suffix("").as_posix()
        found = pattern.findall(text)
        if found:
            name = found[-1]
            common = re.sub(rf"(?<![a-zA-Z0-9]){re.escape(name)}(?![a-zA-Z0-9])", "*", text, flags=re.IGNORECASE)
            groups.setdefault(common + path.suffix, {})[name] = path
    return groups


def _common_names(groups: Mapping[str, Group]) -> tuple[str, ...]:
    """The bands' names where most photos have the same, two at least; else nothing."""
    if not groups:
        return ()
    names, count = Counter(frozenset(group) for group in groups.values()).most_common(1)[0]
    if len(names) < 2 or count < _MIN_SHARE * len(groups):
        return ()
    return tuple(sorted(names, key=_order))


def _order(name: str) -> tuple[int, int, str]:
    """Known words in their order, numbers by value: B8A behind B08."""
    number = re.search(r"\d+", name)
    plain = name.lower()
    return (_WORDS.index(plain) if plain in _WORDS else len(_WORDS)), int(number[0]) if number else 0, plain


def _have_masks(groups: Mapping[str, Group], paths: Sequence[Path], numbered: bool) -> bool:
    """Whether most photos share a mask among their files; where each file has its own, they are frames, not bands."""
    used = {path for group in groups.values() for path in group.values()}
    others = [path.stem.lower() for path in paths if path not in used]
    if not numbered:
        return len(others) >= _MIN_SHARE * len(groups)
    photos = [Path(common).stem.removesuffix("_*").lower() for common in groups]
    return sum(stem in set(others) for stem in photos) >= _MIN_SHARE * len(photos)
