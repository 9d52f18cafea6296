"""Finished runs grouped by network, and whether they were made under equal conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from semseg.errors import RunFolderError
from semseg.runs.config import RunConfig, parse_fold
from semseg.runs.run import SPLIT_WORDS, Run, changed_photos

UNEQUAL_ANYWAY = {"model", "seed", "fold", "output", "workers", "cache", "encoder", "encoder_weights"}


@dataclass(frozen=True)
class Network:
    """The runs of one network, which differ by their seed only, or are the folds of a cross-validation.

    Attributes:
        name: The architecture, with the settings by which it differs from others of the same architecture.
        runs: In the order of their seeds, and of each seed in that of its folds.
    """

    name: str
    runs: list[Run]

    def values(self, score: str, of_class: str | None = None) -> np.ndarray:
        """A score of metrics.json for each run, float `(R,)`; NaN where it does not exist."""
        tables = [run.metrics if of_class is None else run.metrics["per_class"][of_class] for run in self.runs]
        return np.array([table.get(score) for table in tables], dtype=float)

    @property
    def image_ious(self) -> list[dict[str, float]]:
        """For each seed the mean IoU of each photo by name, of folds by the one that held it out."""
        by_seed: dict[int, dict[str, float]] = {}
        for run in self.runs:
            by_seed.setdefault(run.config.seed, {}).update(run.image_ious)
        return list(by_seed.values())

    def per_photo(self) -> np.ndarray:
        """The mean IoU of each photo, in the order of their names: float `(S, N)`."""
        return np.array([[ious[name] for name in sorted(ious)] for ious in self.image_ious])


def group_runs(runs: Sequence[Run]) -> list[Network]:
    """Sorts runs by network, in the order in which the networks first appear.

    Runs belong to one network if they were asked for the same but for the seed, the fold, the data's place, the output,
    the workers and the cache. The first of several folds decides for the others, which then are asked for the same.

    Raises:
        RunFolderError: The runs were judged on different photos or classes, a run is given twice, or all are of one
            network.
    """
    groups: dict[RunConfig, list[Run]] = {}
    for run in runs:
        key = _asked(run, runs)
        for other in groups.setdefault(key, []):
            if (other.config.seed, other.config.fold) == (run.config.seed, run.config.fold):
                raise RunFolderError(
                    f"{run.folder}: the same network and seed as {other.folder}; give each run once, with other seeds"
                )
        groups[key].append(run)
    if len(groups) < 2:
        raise RunFolderError(
            f"{runs[0].folder}: got runs of one network only ({runs[0].model}); expected at least two to compare"
        )
    networks = [Network(_name(key, list(groups)), sorted(members, key=_order)) for key, members in groups.items()]
    first = networks[0]
    for network in networks:
        for photos in network.image_ious:
            _check_same_truth(first, network, photos)
    return networks


def _asked(run: Run, runs: Sequence[Run]) -> RunConfig:
    """What tells a run's network from others; of a fold what the first one of its folder was asked for."""
    config = run.config
    if config.fold:
        beside = [other for other in runs if other.folder.parent == run.folder.parent and other.config.fold]
        config = min(beside, key=_order).config
    return replace(config, model=run.model, seed=0, fold=None, data="", output="", workers=0, cache=None)


def _order(run: Run) -> tuple[int, tuple[int, int]]:
    return run.config.seed, parse_fold(run.config.fold) if run.config.fold else (1, 1)


def _name(config: RunConfig, others: Sequence[RunConfig]) -> str:
    """The architecture, and by what it differs from others of the same."""
    same = [other for other in others if other.model == config.model]
    differing = [field for field in asdict(config) if len({getattr(other, field) for other in same}) > 1]
    return " ".join([config.model, *(f"{field}={_shown(getattr(config, field))}" for field in differing)])


def _shown(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_same_truth(first_network: Network, network: Network, photos: Mapping[str, float]) -> None:
    first = first_network.runs[0]
    for other in network.runs:
        _check_alike(first, other, first_network.image_ious[0], photos)


def _check_alike(first: Run, other: Run, photos_of_first: Mapping[str, float], photos: Mapping[str, float]) -> None:
    aspects = [
        ("split", first.metrics["split"], other.metrics["split"]),
        ("classes", list(first.metrics["per_class"]), list(other.metrics["per_class"])),
        ("photos", sorted(photos_of_first), sorted(photos)),
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
    conditions = [[_conditions(run, network.runs[0]) for run in network.runs] for network in networks]
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


def _conditions(run: Run, first: Run) -> dict[str, str]:
    """The conditions of a run as texts; folds are asked for what the first one was asked for or decided."""
    config = first.config if run.config.fold else run.config
    asked = {name: _shown(value) for name, value in asdict(config).items() if name not in UNEQUAL_ANYWAY}
    noted = {name: str(run.facts[name]) for name in ("task", "parameters", "device") if name in run.facts}
    photos = {
        f"{SPLIT_WORDS.get(split, split)} photos": f"{count} (list {digest})"
        for split, (count, digest) in run.split_digests.items()
        if not run.config.fold  # which each trains on others, and which are compared photo by photo
    }
    seen = {"image_size": _shown(run.image_size), "scale": str(run.facts.get("scale"))}  # what was decided
    return {**asked, **seen, "seed": str(run.config.seed), **noted, **photos, **run.facts.get("versions", {})}
