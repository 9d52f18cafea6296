"""What a training took: time of the clock and of the CPU, and a GPU's energy, for so many photos."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spent:
    """What it took to learn from photos, validation included.

    Args:
        photos: Learnt from, as often as they were seen.
        seconds: Of the clock.
        cpu_seconds: Of all cores, by this process alone.
        gpu_watt_hours: Of the GPU in all, whoever used it meanwhile; None where nothing tells.
        goes_on: Whether the training was begun before, and this is what came since.

    Example:
        >>> print(Spent(2400, 60.0, 96.0))
        2,400 photos in 60 s, 40.0 a second; 96 s of the CPU
        >>> print(Spent(2400, 60.0, 96.0, 4.21, goes_on=True))
        2,400 photos in 60 s since it went on, 40.0 a second; 96 s of the CPU, 4.21 Wh of the GPU
    """

    photos: int
    seconds: float
    cpu_seconds: float
    gpu_watt_hours: float | None = None
    goes_on: bool = False

    def __str__(self) -> str:
        since = " since it went on" if self.goes_on else ""
        speed = self.photos / max(self.seconds, 1e-9)
        energy = "" if self.gpu_watt_hours is None else f", {self.gpu_watt_hours:.3g} Wh of the GPU"
        return (
            f"{self.photos:,} photos in {self.seconds:.0f} s{since}, {speed:.1f} a second; "
            f"{self.cpu_seconds:.0f} s of the CPU{energy}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, from which `Spent(**values)` is the same again."""
        return asdict(self)
