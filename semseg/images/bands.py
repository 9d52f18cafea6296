"""What photos hold at each pixel: red, green and blue of 8 bits, or any number of bands of any depth."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semseg.errors import SemsegError

MAX_BANDS = 64  # more are a spectrometer's, or slices
_DEPTHS = {
    "uint8": "8 bits", "uint16": "16 bits", "int8": "8 bits with a sign", "int16": "16 bits with a sign",
    "uint32": "32 bits", "int32": "32 bits with a sign", "float32": "floats",
}  # fmt: skip
_COLORS = (  # words and numbers that name red, green and blue: of cameras, and of Sentinel-2 and Landsat 8 and 9
    ({"red", "green", "blue"}, ("red", "green", "blue")),
    ({"r", "g", "b"}, ("r", "g", "b")),
    ({"b2", "b3", "b4", "b8"}, ("b4", "b3", "b2")),
    ({"b2", "b3", "b4", "b5"}, ("b4", "b3", "b2")),
)


@dataclass(frozen=True)
class Bands:
    """What the photos of a data set hold, and what a network was trained on. The default is 8-bit RGB.

    Attributes:
        count: C, the number of bands.
        dtype: NumPy's name of the numbers in the files; fractions of any length are `"float32"`.
        names: Of the bands, where files say them; else empty.
        low: Of each band what the network and pictures take for black: the 1st percentile over the training photos.
        high: The same for white, the 99th percentile.
        mean: Of each band over the training photos; stands in where a photo has no data.
        shown: The places, from 0, of the bands that pictures show as red, green and blue; a single one is shown grey.
        file_per_band: Whether each band of a photo lies in a file of its own, which is called after one of `names`.
    """

    count: int = 3
    dtype: str = "uint8"
    names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    shown: tuple[int, ...] = (0, 1, 2)
    file_per_band: bool = False

    @property
    def are_rgb(self) -> bool:
        """Whether these are the red, green and blue of 8 bits that networks take as they are."""
        return not self.low

    @property
    def array_dtype(self) -> np.dtype:
        """Of the arrays that photos are read into: that of the files where it is uint8 or uint16, else float32."""
        return np.dtype(self.dtype if self.dtype in ("uint8", "uint16") else "float32")

    def __str__(self) -> str:
        """Number and depth in words, such as "4 bands of 16 bits"."""
        return describe(self.count, self.dtype)

    def view(self, photo: np.ndarray) -> np.ndarray:
        """A photo as people see it: the shown bands, stretched from `low` to `high`.

        Args:
            photo: `(..., C)`, in the files' numbers.

        Returns:
            uint8 RGB `(..., 3)`; a photo of 8-bit RGB itself.

        Example:
            >>> bands = Bands(2, "uint16", low=(0.0, 0.0), high=(100.0, 1000.0), shown=(1,))
            >>> bands.view(np.uint16([[[7, 500]]])).tolist()
            [[[128, 128, 128]]]
        """
        places = list(self.shown if len(self.shown) == 3 else self.shown[:1] * 3)
        if self.are_rgb:
            return photo if self.shown == (0, 1, 2) else np.ascontiguousarray(photo[..., places])
        low, high = (np.float32(limits)[places] for limits in (self.low, self.high))
        shares = (photo[..., places].astype(np.float32) - low) * (255 / (high - low))
        return np.rint(shares.clip(0, 255)).astype(np.uint8)

    def showing(self, text: str) -> "Bands":
        """These bands, with others in pictures.

        Args:
            text: Three numbers from 1 on joined by commas, as red, green and blue; or one, for grey.

        Raises:
            SemsegError: It is neither, or there is no such band.

        Example:
            >>> Bands(4, "uint16").showing("4,3,2").shown
            (3, 2, 1)
        """
        numbers = [int(part) for part in text.split(",") if part.strip().isdecimal()]
        fits = len(numbers) == text.count(",") + 1 and len(numbers) in (1, 3)
        if not fits or not all(1 <= number <= self.count for number in numbers):
            raise SemsegError(
                f"`show`: got {text!r}; expected one or three numbers from 1 to {self.count}, such as "
                f"{','.join(str(1 + place) for place in self.shown)}"
            )
        return replace(self, shown=tuple(number - 1 for number in numbers))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, readable by `from_dict`."""
        return {
            "count": self.count, "dtype": self.dtype, "names": list(self.names), "low": list(self.low),
            "high": list(self.high), "mean": list(self.mean), "shown": list(self.shown),
            "file_per_band": self.file_per_band,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Bands":
        """The bands that `to_dict` described.

        Raises:
            ValueError: Something is missing or makes no sense.
        """
        try:
            count, limits = int(values["count"]), {name: _floats(values[name]) for name in ("low", "high", "mean")}
            shown = tuple(map(int, values["shown"]))
            bands = cls(
                count, str(values["dtype"]), tuple(map(str, values["names"])), **limits, shown=shown,
                file_per_band=bool(values["file_per_band"]),
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise ValueError(f"its bands miss {error}") from None
        if bands.dtype not in _DEPTHS or {*map(len, limits.values())} != {count} or not set(shown) <= set(range(count)):
            raise ValueError(f"its bands make no sense: {dict(values)}")
        return bands


RGB = Bands()


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def describe(count: int, dtype: str) -> str:
    """Number and depth of bands in words.

    Example:
        >>> describe(4, "uint16"), describe(1, "float32")
        ('4 bands of 16 bits', '1 band of floats')
    """
    return f"{count} band{'s' if count != 1 else ''} of {_DEPTHS.get(dtype, dtype)}"


def suited_view(count: int, names: Sequence[str]) -> tuple[int, ...]:
    """The places of the bands that look natural as red, green and blue: by their names, else the first three.

    Args:
        count: Of the bands.
        names: Of the bands; empty where nothing says them.

    Returns:
        Three places from 0, or one where there are fewer than three bands.

    Example:
        >>> suited_view(4, ("B02", "B03", "B04", "B08")), suited_view(5, ()), suited_view(2, ("VV", "VH"))
        ((2, 1, 0), (0, 1, 2), (0,))
    """
    if count < 3:
        return (0,)
    plain = [re.sub(r"^(b|band)[ _-]?0*(?=\d)", "b", name.strip().lower()) for name in names]
    for known, wanted in _COLORS:
        if known <= set(plain):
            return tuple(plain.index(name) for name in wanted)
    return (0, 1, 2)
