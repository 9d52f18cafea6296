"""Which network is better: finished runs read from their folders, grouped by network, and compared with care.

`RULE` says in words when a difference counts as real; `compare_pair` says it in formulas.
"""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

from semseg.errors import RunFolderError
from semseg.runs.config import RunConfig

FINISHED_FILES = ("metrics.json", "per_image.csv", "results.csv", "classes.json")
HISTORY = ("epoch", "loss", "val_loss", "val_mean_iou", "seconds")  # of the columns of results.csv
SPLITS = {"train": "training", "val": "validation"}
UNEQUAL_ANYWAY = {"model", "seed", "output", "workers", "cache", "encoder", "encoder_weights"}
LEVEL = 0.05
FEWEST = 6  # photos: the signed-rank test's smallest p is 2 / 2 ** photos
RULE = """Networks are compared by their mean IoU per photo, averaged over the seeds. A difference counts as real only
if three things hold. (1) The photos agree: a two-sided Wilcoxon signed-rank test over them (differences of zero are
ranked and split between both sides). (2) It is larger than new photos and new trainings would give by chance: a
t-test whose variance is that between the photos' differences plus that between the seeds of each network
(Satterthwaite's degrees of freedom). The first test alone knows these trainings only, and would find differences
between equal networks whose seeds differ. (3) Mean IoU over the whole split points the same way. Both p are corrected
for all pairs of networks by Holm's method and must be below 0.05. With one seed the spread between trainings is
unknown, and nothing counts as real. Photos are taken as independent; frames of one video are not, and p is then too
small."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it lies.
        config: What it was asked to do.
        noted: What else its config.json holds: `task`, `parameters`, `device`, `versions`, `samples`; {} in older runs.
        splits: How many photos each split had, and a digest of their names and sizes, `"unknown"` in older runs.
        metrics: All of its metrics.json.
        history: The rows of results.csv.
        photos: The mean IoU of each photo by name; NaN for a photo without a counted pixel.
    """

    folder: Path
    config: RunConfig
    noted: dict
    splits: dict[str, tuple[int, str]]
    metrics: dict
    history: list[dict[str, float]]
    photos: dict[str, float]


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
        return np.array([[run.photos[name] for name in sorted(run.photos)] for run in self.runs])


@dataclass(frozen=True)
class Difference:
    """What two networks' runs say about them; see `RULE`.

    Attributes:
        network: The one of which `verdict` speaks.
        baseline: The one that it is compared with.
        difference: Network minus baseline, mean IoU per photo.
        low: Lower end of its 95 % interval over new photos and, with several seeds each, new trainings; at least -1.
        high: Its upper end.
        split_difference: The same in mean IoU over the whole split.
        photos: How many photos were compared.
        ahead: On how many of them the network is ahead.
        p_photos: Of the test over photos.
        p_trainings: Of the test over photos and seeds; NaN with a single seed.
        verdict: `"better"`, `"worse"` or `"cannot be told apart"`.
        reason: Why.
    """

    network: str
    baseline: str
    difference: float
    low: float
    high: float
    split_difference: float
    photos: int
    ahead: int
    p_photos: float
    p_trainings: float
    verdict: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """One sentence for people."""
        trainings = "" if math.isfinite(self.p_trainings) else " over photos alone"
        return (
            f"{self.network} against {self.baseline}: {self.verdict}. {self.difference:+.4f} mean IoU per photo (95 %"
            f"{trainings}: {self.low:+.4f} to {self.high:+.4f}), ahead on {self.ahead} of {self.photos} photos; "
            f"{self.reason}."
        )


def missing_files(folder: Path, with_model: bool = True) -> list[str]:
    """What a finished run would have written and this folder does not hold."""
    missing = [name for name in ("config.json", *FINISHED_FILES) if not (folder / name).is_file()]
    return missing + (["*_model.keras"] if with_model and not any(folder.glob("*_model.keras")) else [])


def read_run(folder: str | Path, with_model: bool = True) -> Run:
    """Reads what `train` left in a folder.

    Args:
        folder: Where it lies.
        with_model: Whether the model must be there, too.

    Raises:
        RunFolderError: It is no folder of a run, the run did not finish, or a file of it cannot be read or lacks what
            a comparison needs.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise RunFolderError(f"{folder}: {what}; expected the folder of a finished run")
    config = RunConfig.read(folder / "config.json")
    if missing := missing_files(folder, with_model):
        raise RunFolderError(f"{folder}: the run did not finish, {', '.join(missing)} is missing; train it again")
    try:
        noted = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rows = _rows(folder / "results.csv", HISTORY)
        history = [{name: float(value) for name, value in row.items()} for row in rows]
        photos = {row["photo"]: float(row["iou"] or "nan") for row in _rows(folder / "per_image.csv", ("photo", "iou"))}
        return Run(folder, config, noted, _splits(folder, noted), _metrics(folder), history, photos)
    except RunFolderError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder}: cannot be read as a run ({error!r}); train it again") from None


def _metrics(folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if missing := [name for name in ("split", "macro_iou", "per_class", "training_seconds") if name not in metrics]:
        raise RunFolderError(f"{folder}: metrics.json holds no {', '.join(missing)}; train it again")
    scores = [metrics["macro_iou"], *(scores.get("iou") for scores in metrics["per_class"].values())]
    np.array([metrics["training_seconds"], *scores], float)  # numbers, or None
    return metrics


def _rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that must hold at least one, with these columns among others."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        missing, rows = [name for name in needed if name not in (reader.fieldnames or ())], list(reader)
    if missing or not rows:
        lacks = f"column {', '.join(missing)}" if missing else "row"
        raise RunFolderError(f"{path.parent}: {path.name} holds no {lacks}; train it again")
    return rows


def _splits(folder: Path, noted: Mapping) -> dict[str, tuple[int, str]]:
    """How many photos each split had, and a digest of their names and sizes; older runs noted the number at most."""
    if not (folder / "splits.csv").is_file():
        return {split: (int(count), "unknown") for split, count in noted.get("samples", {}).items()}
    rows: dict[str, list[tuple[str, str]]] = {}
    for row in _rows(folder / "splits.csv", ("split", "photo", "bytes")):
        rows.setdefault(row["split"], []).append((row["photo"], row["bytes"]))
    return {
        split: (len(of), hashlib.sha256(repr(sorted(of)).encode("utf-8")).hexdigest()[:8]) for split, of in rows.items()
    }


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
        key = replace(run.config, seed=0, data="", output="", workers=0, cache=None)
        for other in groups.setdefault(key, []):
            if other.config.seed == run.config.seed:
                raise RunFolderError(
                    f"{run.folder}: the same network and seed as {other.folder}; give each run once, with other seeds"
                )
        groups[key].append(run)
    if len(groups) < 2:
        raise RunFolderError(
            f"{runs[0].folder}: got runs of one network only ({runs[0].config.model}); expected at least two to compare"
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
    aspects = {
        "split": lambda run: run.metrics["split"],
        "classes": lambda run: list(run.metrics["per_class"]),
        "photos": lambda run: sorted(run.photos),
    }
    for aspect, value in aspects.items():
        if value(first) != value(other):
            raise RunFolderError(
                f"{other.folder}: was judged on other {aspect} than {first.folder}; compare runs on the same data, "
                "with the same --split-seed, --classes and --limit"
            )


def check_same_data(first: Run, other: Run) -> None:
    """Compares the photos of all splits and the classes of two runs, as far as they noted them.

    Raises:
        RunFolderError: The data changed between them.
    """
    splits = dict.fromkeys([*first.splits, *other.splits] if first.splits and other.splits else [])
    both = {split: [run.splits.get(split, (0, "none")) for run in (first, other)] for split in splits}
    changed = any(
        one[0] != two[0] or (one[1] != two[1] and "unknown" not in (one[1], two[1])) for one, two in both.values()
    )
    if changed or list(first.metrics["per_class"]) != list(other.metrics["per_class"]):
        has, had = _counts(other), _counts(first)
        names = " of other names or sizes" if has == had else ""
        raise RunFolderError(
            f"{other.folder}: has {has}{names}; {first.folder} has {had}; the data changed; use another --output"
        )


def _counts(run: Run) -> str:
    photos = [f"{count} {SPLITS.get(split, split)} photos" for split, (count, _) in run.splits.items()]
    return ", ".join([*photos, f"{len(run.metrics['per_class'])} classes"])


def unequal_conditions(networks: Sequence[Network]) -> list[str]:
    """In what the runs differ beside network and place, a line each; seeds only if the networks have different ones."""
    found = []
    facts = [[_facts(run) for run in network.runs] for network in networks]
    for name in dict.fromkeys(name for runs in facts for run in runs for name in run):
        values = [sorted({run.get(name, "unknown") for run in runs}) for runs in facts]
        between = name != "parameters" and any(of != values[0] for of in values)
        if between or (name != "seed" and any(len(of) > 1 for of in values)):
            by_network = (f"{network.name} {' '.join(of)}" for network, of in zip(networks, values, strict=True))
            found.append(f"{name}: {', '.join(by_network)}")
    return found


def _facts(run: Run) -> dict[str, str]:
    """The conditions of a run as texts."""
    asked = {name: _shown(value) for name, value in asdict(run.config).items() if name not in UNEQUAL_ANYWAY}
    noted = {name: str(run.noted[name]) for name in ("task", "parameters", "device") if name in run.noted}
    photos = {
        f"{SPLITS.get(split, split)} photos": f"{count} (list {digest})"
        for split, (count, digest) in run.splits.items()
    }
    return {**asked, "seed": str(run.config.seed), **noted, **photos, **run.noted.get("versions", {})}


def compare_networks(networks: Sequence[Network]) -> list[Difference]:
    """Compares all pairs, those with the first network, the baseline, first; see `RULE`."""
    found = [compare_pair(network, baseline) for baseline, network in combinations(networks, 2)]
    photos, trainings = holm([pair.p_photos for pair in found]), holm([pair.p_trainings for pair in found])
    return [
        judged(replace(pair, p_photos=p, p_trainings=q)) for pair, p, q in zip(found, photos, trainings, strict=True)
    ]


def compare_pair(network: Network, baseline: Network) -> Difference:
    """Both tests on one pair, not yet corrected for the number of pairs.

    With `d_i` the difference on photo i of the means over seeds, N photos, and `m_s` a seed's mean over photos, the
    difference D is the mean of `d_i`, its variance `var(d)/N + var(m of one)/S + var(m of the other)/S`.

    References: Wilcoxon 1945, https://doi.org/10.2307/3001968; photos and trainings as two sources of chance, after the
        studies of many readers and many cases in radiology: Obuchowski and Rockette 1995,
        https://doi.org/10.1080/03610919508813243; Satterthwaite 1946, https://doi.org/10.2307/3002019.
    """
    scores = [network.per_photo(), baseline.per_photo()]
    counted = np.isfinite(np.concatenate(scores)).all(axis=0)
    scores = [values[:, counted] for values in scores]
    d = np.round(scores[0].mean(axis=0) - scores[1].mean(axis=0), 9)  # or zeros and ties drown in rounding
    n = len(d)
    parts = [(d.var(ddof=1) / n, n - 1)] if n > 1 else []
    several = min(len(values) for values in scores) > 1
    if several:
        parts += [(values.mean(axis=1).var(ddof=1) / len(values), len(values) - 1) for values in scores]
    difference = float(d.mean()) if n else math.nan
    p, margin = _t_test(difference, parts)
    return Difference(
        network.name, baseline.name, difference, max(-1.0, difference - margin), min(1.0, difference + margin),
        float(np.mean(network.values("macro_iou")) - np.mean(baseline.values("macro_iou"))), n, int((d > 0).sum()),
        _wilcoxon(d), p if several else math.nan,
    )  # fmt: skip


def _t_test(difference: float, parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The p of a difference, and half the width of its interval, from its (variance, degrees of freedom) by source."""
    variance = sum(part for part, _ in parts)
    if not parts or variance == 0:
        return (1.0 if difference == 0 or not parts else 0.0), (0.0 if parts else math.inf)
    freedom = variance**2 / sum(part**2 / of for part, of in parts)
    error = math.sqrt(variance)
    return float(2 * stats.t.sf(abs(difference) / error, freedom)), float(stats.t.isf(LEVEL / 2, freedom) * error)


def _wilcoxon(d: np.ndarray) -> float:
    return float(stats.wilcoxon(d, zero_method="zsplit").pvalue) if d.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """The p corrected for the number of tests, those that are no number left out.

    Example:
        >>> [round(p, 2) for p in holm([0.04, 0.01, 0.03])]
        [0.06, 0.03, 0.06]

    Reference: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    corrected, highest = list(p_values), 0.0
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for done, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - done) * p))
        corrected[i] = highest
    return corrected


def judged(pair: Difference) -> Difference:
    """The pair with its verdict and the reason for it."""
    agree = f"the photos agree ({_p(pair.p_photos)})"
    verdict = "cannot be told apart"
    if pair.photos < FEWEST:
        reason = f"{pair.photos} photos are too few for a test, which needs {FEWEST}"
    elif not pair.p_photos < LEVEL:
        reason = f"the photos do not agree ({_p(pair.p_photos)})"
    elif math.isnan(pair.p_trainings):
        reason = f"{agree}, but with one seed the spread between trainings is unknown: train more seeds"
    elif not pair.p_trainings < LEVEL:
        reason = f"{agree}, but other photos and seeds could turn it ({_p(pair.p_trainings)})"
    elif not pair.difference * pair.split_difference > 0:
        reason = f"{agree}, but mean IoU over the whole split does not ({pair.split_difference:+.4f})"
    else:
        verdict = "better" if pair.difference > 0 else "worse"
        reason = f"{agree}, and it is beyond the spread of photos and seeds ({_p(pair.p_trainings)})"
    return replace(pair, verdict=verdict, reason=reason)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def summarise(
    networks: Sequence[Network], costs: Mapping[str, Mapping[str, float | None]], failed: Sequence[str] = ()
) -> dict:
    """All of a comparison as plain values, for comparison.json: networks by mean IoU, pairs, conditions, rule.

    Args:
        networks: From `group_runs`, the baseline first.
        costs: By network `parameters`, `gflops` and `milliseconds`.
        failed: What became of the runs that failed, a line each.
    """
    rows = [_row(network, costs[network.name]) for network in networks]
    rows.sort(key=lambda row: -math.inf if (iou := row["scores"]["macro_iou"]["mean"]) is None else iou, reverse=True)
    first = networks[0].runs[0]
    return {
        "split": first.metrics["split"],
        "note": first.metrics.get("note", ""),
        "photos": len(first.photos),
        "baseline": networks[0].name,
        "networks": rows,
        "pairs": [{**_plain(asdict(pair)), "text": pair.text} for pair in compare_networks(networks)],
        "unequal": unequal_conditions(networks),
        "failed": list(failed),
        "rule": " ".join(RULE.split()),
    }


def _row(network: Network, costs: Mapping[str, float | None]) -> dict:
    """One network: who, what it costs, and mean, standard deviation and values of every score."""
    runs = network.runs
    memory = [run.metrics.get("peak_memory_mb") for run in runs]
    kinds = ("accuracy", "calibration_error", "macro_", "micro_", "weighted_")
    scores = dict.fromkeys(name for run in runs for name in run.metrics if name.startswith(kinds))
    return {
        "name": network.name,
        "seeds": [run.config.seed for run in runs],
        "folders": [str(run.folder) for run in runs],
        **costs,
        "memory_mb": None if None in memory else max(memory),
        "epochs": runs[0].config.epochs,
        "minutes": float(np.mean([run.metrics["training_seconds"] for run in runs])) / 60,
        "scores": {name: _spread(network.values(name)) for name in scores},
        "per_class": {name: _spread(network.values("iou", name)) for name in runs[0].metrics["per_class"]},
    }


def _spread(values: np.ndarray) -> dict:
    """Mean and standard deviation (of the sample) of the seeds that have the score."""
    there = values[np.isfinite(values)]
    mean = float(there.mean()) if there.size else None
    sd = float(there.std(ddof=1)) if there.size > 1 else None
    return {"mean": mean, "sd": sd, "values": [_plain(value) for value in values.tolist()]}


def _plain(value: object) -> object:
    """With None for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(summary: dict) -> list[list[str]]:
    """The headline of a summary as texts: a row of titles, then one per network."""
    scores = {
        "mean IoU": "macro_iou",
        "mean Dice": "macro_dice",
        "bound. IoU": "macro_boundary_iou",
        "accuracy": "accuracy",
    }
    rows = [["network", "params", "GFLOPs", "ms", "MB", "epochs", "min", *scores]]
    for row in summary["networks"]:
        costs = [_short(row[name]) for name in ("parameters", "gflops", "milliseconds", "memory_mb")]
        spreads = [with_spread(row["scores"].get(name)) for name in scores.values()]
        rows.append([row["name"], *costs, str(row["epochs"]), f"{row['minutes']:.1f}", *spreads])
    return rows


def _short(value: float | None) -> str:
    """Three digits, with M or k."""
    if value is None:
        return "-"
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}" if value < 1000 * unit else f"{value / unit:.0f}{letter}"
    return f"{value:.3g}"


def with_spread(spread: Mapping | None) -> str:
    """Mean and standard deviation of a score, such as .431 ±.012."""
    if spread is None or spread["mean"] is None:
        return "-"
    mean, sd = (
        value if value is None else f"{value:.3f}".removeprefix("0") for value in (spread["mean"], spread["sd"])
    )
    return mean if sd is None else f"{mean} ±{sd}"


def to_markdown(summary: dict, how: Iterable[str]) -> str:
    """The comparison as a page: table, verdicts, IoU per class, and how it was measured.

    Args:
        summary: From `summarise`.
        how: Sentences about the measurement that the summary does not know.
    """
    rows = summary["networks"]
    classes = [["class", *(row["name"] for row in rows)]]
    classes += [[name, *(with_spread(row["per_class"][name]) for row in rows)] for name in rows[0]["per_class"]]
    sections = {
        f"# Comparison on {summary['photos']} photos of {summary['split']}": _markdown_table(table(summary)),
        "By mean IoU. Scores: mean and, after ±, standard deviation over the seeds.": [],
        "## Are the differences real?": [*(f"- {pair['text']}" for pair in summary["pairs"]), "", summary["rule"]],
        "## Conditions were not equal": [f"- {line}" for line in summary["unequal"]],
        "## Runs that failed": [f"- {line}" for line in summary["failed"]],
        "## IoU per class": _markdown_table(classes),
        "## How it was measured": [f"- {line}" for line in how],
    }
    for title in ("## Conditions were not equal", "## Runs that failed"):
        if not sections[title]:
            del sections[title]
    return "\n".join(line for title, lines in sections.items() for line in (title, "", *lines, ""))


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def to_csv_rows(summary: dict) -> list[dict[str, object]]:
    """One row per network: costs, then mean and standard deviation of every score and of the IoU of every class."""
    rows = []
    for row in summary["networks"]:
        plain = {name: value for name, value in row.items() if not isinstance(value, list | dict)}
        spreads = {**row["scores"], **{f"iou {name}": value for name, value in row["per_class"].items()}}
        both = {f"{name}_{part}": spread[part] for name, spread in spreads.items() for part in ("mean", "sd")}
        rows.append({**plain, "seeds": len(row["seeds"]), **both})
    return rows
