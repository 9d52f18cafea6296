"""Whether an evaluation may average over mirrored photos."""

from semseg.data.base import Dataset
from semseg.data.check import Findings
from semseg.data.exchanges import HALF_TURN, LEFT_RIGHT, UP_DOWN, find_exchanges, words_of_exchanges

_MOVES = {"horizontal": {LEFT_RIGHT}, "both": {LEFT_RIGHT, UP_DOWN, HALF_TURN}}


def doubts_of_flips(dataset: Dataset, findings: Findings, flips: str) -> list[str]:
    """What speaks against averaging over mirrored photos, as far as the masks show it.

    Args:
        dataset: The data to be judged on.
        findings: From `check_dataset`.
        flips: `"horizontal"` or `"both"`.

    Returns:
        A sentence, if classes become each other by these flips; else nothing.
    """
    exchanges = find_exchanges([pose for split in findings.records for pose in findings.poses(split)])
    exchanged = words_of_exchanges(exchanges, _MOVES[flips], dataset.palette.names)
    return [f"{exchanged}: the mean over such views takes one for the other; leave `flips` out"] if exchanged else []
