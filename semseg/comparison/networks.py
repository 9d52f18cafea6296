"""Finished runs grouped by network, and whether they were made under equal conditions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from semseg.errors import RunFolderError
from semseg.runs.config import RunConfig
from semseg.runs.run import SPLIT_WORDS, Run, changed_photos

UNEQUAL_ANYWAY = {"model", "seed", "output", "workers", "cache", "encoder", "encoder_weights"}


@dataclass(frozen=True)
class Network:
    """The runs of one network, which differ by their seed only.

    Attributes:
        name: The architecture, with the settings by which it differs from others of the same architecture.
        runs: In the order of their seeds.
    """

    name: str
    runs: list[Run]

    def values(self, score: str, of_class: str | None = None) -> np.ndarray:
        """A score of metrics.json for each seed, float `(S,)`; NaN where it does not exist."""
        tables = [run.metrics if of_class is None else run.metrics["per_class"][of_class] for run in self.runs]
        return np.array([table.get(score) for table in tables], dtype=float)

    def per_photo(self) -> np.ndarray:
        """The mean IoU of each photo, in the order of their names: float `(S, N)`."""
        return np.array([[run.image_ious[name] for name in sorted(run.image_ious)] for run in self.runs])


def group_runs(runs: Sequence[Run]) -> list[Network]:
    """Sorts runs by network, in the order in which the networks first appear.

    Runs belong to one network if they were asked for the same but for the seed, the data's place, the output, the
    workers and the cache.

    Raises:
        RunFolderError: The runs were judged on different photos or classes, a run is given twice, or all are of one
            network.
    """
    for run in runs[1:]:
        _check_same_truth(runs[0], run)
    groups: dict[RunConfig, list[Run]] = {}
    for run in runs:
        key = replace(run.config, model=run.model, seed=0, data="", output="", workers=0, cache=None)
        for other in groups.setdefault(key, []):
            if other.config.seed == run.config.seed:
                raise RunFolderError(
                    f"{run.folder}: the same network and seed as {other.folder}; give each run once, with other seeds"
                )
        groups[key].append(run)
    if len(groups) < 2:
        raise RunFolderError(
            f"{runs[0].folder}: got runs of one network only ({runs[0].model}); expected at least two to compare"
        )
    return [
        Network(_name(key, list(groups)), sorted(members, key=lambda run: run.config.seed))
        for key, members in groups.items()
    ]


def _name(config: RunConfig, others: Sequence[RunConfig]) -> str:
    """The architecture, and by what it differs from others of the same."""
    same = [other for other in others if other.model == config.model]
    differing = [field for field in asdict(config) if len({getattr(other, field) for other in same}) > 1]
    return " ".join([config.model, *(f"{field}={_shown(getattr(config, field))}" for field in differing)])


def _shown(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_same_truth(first: Run, other: Run) -> None:
    aspects = [
        ("split", first.metrics["split"], other.metrics["split"]),
        ("classes", list(first.metrics["per_class"]), list(other.metrics["per_class"])),
        ("photos", sorted(first.image_ious), sorted(other.image_ious)),
    ]
    for aspect, had, has in aspects:
        if had != has:
            raise RunFolderError(
                f"{other.folder}: was judged on other {aspect} than {first.folder}; compare runs on the same data, "
                "with the same `split_seed`, `classes` and `limit`"
            )
    if changed := changed_photos(first, other):
        named = changed[0] + (f" and {len(changed) - 1} more" if changed[1:] else "")
        raise RunFolderError(
            f"{other.folder}: {named} had another content, or other masks, than for {first.folder}; the data changed "
            "between them: train one of them again"
        )


def unequal_conditions(networks: Sequence[Network]) -> list[str]:
    """In what the runs differ beside network and place, a line each; seeds only if the networks have different ones.

    Args:
        networks: From `group_runs`.
    """
    conditions = [[_conditions(run) for run in network.runs] for network in networks]
    lines = []
    for name in dict.fromkeys(name for runs in conditions for run in runs for name in run):
        values = [sorted({run.get(name, "unknown") for run in runs}) for runs in conditions]
        if _differs_between(name, values) or _differs_within(name, values):
            by_network = [f"{network.name} {' '.join(held)}" for network, held in zip(networks, values, strict=True)]
            lines.append(f"{name}: {', '.join(by_network)}")
    return lines


def _differs_between(name: str, values: Sequence[Sequence[str]]) -> bool:
    """Whether networks have other values of a condition than the first; their sizes always differ."""
    return name != "parameters" and any(held != values[0] for held in values)


def _differs_within(name: str, values: Sequence[Sequence[str]]) -> bool:
    """Whether the runs of one network differ in a condition; their seeds always do."""
    return name != "seed" and any(len(held) > 1 for held in values)


def _conditions(run: Run) -> dict[str, str]:
    """The conditions of a run as texts."""
    asked = {name: _shown(value) for name, value in asdict(run.config).items() if name not in UNEQUAL_ANYWAY}
    noted = {name: str(run.facts[name]) for name in ("task", "parameters", "device") if name in run.facts}
    photos = {
        f"{SPLIT_WORDS.get(split, split)} photos": f"{count} (list {digest})"
        for split, (count, digest) in run.split_digests.items()
    }
    seen = {"image_size": _shown(run.image_size), "scale": str(run.facts.get("scale"))}  # what was decided
    return {**asked, **seen, "seed": str(run.config.seed), **noted, **photos, **run.facts.get("versions", {})}
