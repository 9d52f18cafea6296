"""A comparison as plain values, as a page and as tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from semseg.comparison.networks import Network, unequal_conditions
from semseg.comparison.spread import OUT_OF_FOLD, plain, spread_of, with_spread
from semseg.comparison.statistics import RULE, compare_networks


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
        "split": OUT_OF_FOLD if first.config.fold else first.metrics["split"],
        "note": first.metrics.get("note", ""),
        "photos": len(networks[0].image_ious[0]),
        "baseline": networks[0].name,
        "networks": rows,
        "pairs": [{**plain(asdict(pair)), "text": pair.text} for pair in compare_networks(networks)],
        "unequal": unequal_conditions(networks),
        "failed": list(failed),
        "rule": " ".join(RULE.split()),
    }


SCORE_KINDS = ("accuracy", "calibration_error", "macro_", "micro_", "weighted_")  # how names of scores begin


def _row(network: Network, costs: Mapping[str, float | None]) -> dict:
    """One network: who, what it costs, and mean, standard deviation and values of every score."""
    runs = network.runs
    memory = [run.metrics.get("peak_memory_mb") for run in runs]
    scores = dict.fromkeys(name for run in runs for name in run.metrics if name.startswith(SCORE_KINDS))
    minutes = float(np.mean([run.metrics["training_seconds"] for run in runs])) / 60
    classes = runs[0].metrics["per_class"]
    return {
        "name": network.name,
        "seeds": list(dict.fromkeys(run.config.seed for run in runs)),
        **({"folds": len(runs)} if runs[0].config.fold else {}),
        "folders": [str(run.folder) for run in runs],
        **costs,
        "memory_mb": None if None in memory else max(memory),
        "epochs": runs[0].config.epochs,
        "minutes": minutes,
        "scores": {name: spread_of(network.values(name)) for name in scores},
        "per_class": {name: spread_of(network.values("iou", name)) for name in classes},
    }


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


def to_markdown(summary: dict, how: Iterable[str]) -> str:
    """The comparison as a page: table, verdicts, IoU per class, and how it was measured.

    Args:
        summary: From `summarise`.
        how: Sentences about the measurement that the summary does not know.
    """
    title = f"# Comparison on {summary['photos']} photos of {summary['split']}"
    sections = [
        (title, _markdown_table(table(summary))),
        (f"By mean IoU. Scores: mean and, after ±, standard deviation over the {repeats_of(summary)}.", []),
        ("## Are the differences real?", [*_bullets(pair["text"] for pair in summary["pairs"]), "", summary["rule"]]),
        ("## Conditions were not equal", _bullets(summary["unequal"])),
        ("## Runs that failed", _bullets(summary["failed"])),
        ("## IoU per class", _markdown_table(_class_table(summary["networks"]))),
        ("## How it was measured", _bullets(how)),
    ]
    optional = ("## Conditions were not equal", "## Runs that failed")
    lines = []
    for heading, content in sections:
        if content or heading not in optional:
            lines += [heading, "", *content, ""]
    return "\n".join(lines)


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]


def _class_table(rows: Sequence[Mapping]) -> list[list[str]]:
    """IoU with spread: a row per class, a column per network."""
    header = ["class", *(row["name"] for row in rows)]
    return [header, *([name, *(with_spread(row["per_class"][name]) for row in rows)] for name in rows[0]["per_class"])]


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def repeats_of(summary: dict) -> str:
    """What the trainings of a network differ in, in words."""
    return "folds" if any("folds" in row for row in summary["networks"]) else "seeds"


def to_csv_rows(summary: dict) -> list[dict[str, object]]:
    """One row per network: costs, then mean and standard deviation of every score and of the IoU of every class."""
    rows = []
    for row in summary["networks"]:
        plain = {name: value for name, value in row.items() if not isinstance(value, list | dict)}
        spreads = {**row["scores"], **{f"iou {name}": value for name, value in row["per_class"].items()}}
        both = {f"{name}_{part}": spread[part] for name, spread in spreads.items() for part in ("mean", "sd")}
        rows.append({**plain, "seeds": len(row["seeds"]), **both})
    return rows
