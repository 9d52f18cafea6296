"""How much each class counts in the loss."""

from collections.abc import Sequence

import numpy as np

from semseg.data.check import Findings
from semseg.errors import SemsegError
from semseg.losses import effective_number_weights, inverse_frequency_weights
from semseg.runs.config import CLASS_WEIGHTINGS, parse_class_weights


def make_class_weights(how: str, findings: Findings, class_names: Sequence[str]) -> np.ndarray | None:
    """The weight of each class in the loss.

    Args:
        how: `"none"`, `"inverse"`, `"effective"`, or numbers as `parse_class_weights` reads them; classes that are not
            named weigh 1.
        findings: From `check_dataset`.
        class_names: Of the K classes.

    Returns:
        float `(K,)`, or None where all classes weigh the same.

    Raises:
        SemsegError: As many weights as classes were expected, there is no class of that name, or no class that the
            training photos hold has a weight.
    """
    if how == "none":
        return None
    if how == "inverse":
        return inverse_frequency_weights(findings.shares("train"))
    if how == "effective":
        return effective_number_weights(findings.pixels("train")[:-1])
    weights = _given_weights(parse_class_weights(how), class_names)
    present = findings.shares("train") > 0
    if not weights[present].any():
        raise SemsegError(
            f"`class_weights`: got {how}, and nothing would be learned: the classes in the training photos all weigh "
            f"0; expected a weight above 0 for one of {', '.join(np.array(class_names)[present])}"
        )
    return weights


def idle_class_weights(how: str, findings: Findings, class_names: Sequence[str]) -> list[str]:
    """The classes that were given a weight by name, and that no training photo holds; arguments as above."""
    given = {} if how in CLASS_WEIGHTINGS else parse_class_weights(how)
    if not isinstance(given, dict):
        return []
    shares = dict(zip(class_names, findings.shares("train"), strict=True))
    return [name for name in given if shares[name] == 0]


def _given_weights(given: list[float] | dict[str, float], class_names: Sequence[str]) -> np.ndarray:
    if isinstance(given, dict):
        unknown = [name for name in given if name not in class_names]
        if unknown:
            known = ", ".join(class_names)
            raise SemsegError(f"`class_weights`: there is no class {unknown[0]!r}; choose from {known}")
        given = [given.get(name, 1.0) for name in class_names]
    if len(given) != len(class_names):
        raise SemsegError(
            f"`class_weights`: got {len(given)} of them; expected {len(class_names)}, for {', '.join(class_names)}"
        )
    return np.array(given)
