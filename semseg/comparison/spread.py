"""A score over several trainings: its mean and its standard deviation, as plain values and in words."""

import math
from collections.abc import Mapping

import numpy as np

OUT_OF_FOLD = "out-of-fold"  # in place of a split: each photo was judged by the fold that held it out


def spread_of(values: np.ndarray) -> dict:
    """Mean, standard deviation (of the sample) and values of a score; NaN of those runs that do not have it.

    Example:
        >>> spread_of(np.array([0.5, 0.75, np.nan]))["mean"]
        0.625
    """
    there = values[np.isfinite(values)]
    mean = float(there.mean()) if there.size else None
    sd = float(there.std(ddof=1)) if there.size > 1 else None
    return {"mean": mean, "sd": sd, "values": [plain(value) for value in values.tolist()]}


def plain(value: object) -> object:
    """With None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_spread(spread: Mapping | None) -> str:
    """Mean and standard deviation of a score, such as .431 ±.012."""
    if spread is None or spread["mean"] is None:
        return "-"
    mean, sd = (
        value if value is None else f"{value:.3f}".removeprefix("0") for value in (spread["mean"], spread["sd"])
    )
    return mean if sd is None else f"{mean} ±{sd}"
