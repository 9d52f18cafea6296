"""What was chosen on validation photos after the training: how sure a network may be, and from where on it decides."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semseg.errors import ModelFileError
from semseg.files import read_json, sha256_of, write_json


@dataclass(frozen=True)
class Calibration:
    """How probabilities and classes follow from a network's logits; by default as the network learnt them.

    Args:
        temperature: What logits are divided by, above 0; above 1 where the network was surer than it was right.
        threshold: Of two classes, the probability above which a pixel is of the second one, between 0 and 1.

    Raises:
        ValueError: A number makes no sense.

    Reference: Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.
    """

    temperature: float = 1.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"a temperature of {self.temperature}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"a threshold of {self.threshold}")

    def __str__(self) -> str:
        """In words.

        Example:
            >>> str(Calibration(1.25, 0.4)), str(Calibration(1.25))
            ('temperature 1.25, threshold 0.40', 'temperature 1.25')
        """
        threshold = "" if self.threshold == 0.5 else f", threshold {self.threshold:.2f}"
        return f"temperature {self.temperature:.3g}{threshold}"

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON, readable by `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """What `to_dict` described.

        Raises:
            ValueError: Something is missing or makes no sense.
        """
        try:
            return cls(float(values["temperature"]), float(values["threshold"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"its calibration misses {error}") from None


AS_LEARNT = Calibration()


def write_calibration(path: Path, model: Path, calibration: Calibration, measured: Mapping[str, Any]) -> None:
    """Notes what was chosen for a model, and what it was chosen by.

    Args:
        path: The file of notes.
        model: The model's file; the note holds for its bytes alone.
        calibration: What was chosen.
        measured: Plain values that tell what it was chosen by.
    """
    values = {"model": model.name, "sha256": sha256_of(model), **calibration.to_dict(), **measured}
    write_json(path, values)


def read_calibration(path: Path, model: Path) -> Calibration:
    """What was chosen for a model; `AS_LEARNT` where nothing was.

    Args:
        path: The file of notes.
        model: The model's file.

    Raises:
        ModelFileError: The notes cannot be read, or are of other weights.
    """
    if not path.is_file():
        return AS_LEARNT
    try:
        values = read_json(path)
        if values["model"] != model.name:
            return AS_LEARNT  # of other weights of the run
        calibration, digest = Calibration.from_dict(values), values["sha256"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{path}: cannot be understood ({error}); remove it, and calibrate again") from None
    if digest != sha256_of(model):
        raise ModelFileError(f"{path}: is of other weights than {model.name} holds; remove it, and calibrate again")
    return calibration
