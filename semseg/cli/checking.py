"""`python -m semseg check`: what is in a folder, as text, as a page of pictures and as JSON."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from semseg.cli.console import say, say_about, write_json
from semseg.cli.opening import classes_json, look_at_data, open_data, say_what_was_found
from semseg.cli.output import check_output
from semseg.errors import DataError
from semseg.files import archive
from semseg.runs.config import RunConfig

if TYPE_CHECKING:
    from semseg.data.base import Dataset
    from semseg.data.check import Findings

CHECK_FILES = ("data.png", "data.json", "classes.json")
PICTURES = 8


def check(arguments: argparse.Namespace) -> None:
    """Looks at every file; says all that is wrong, and raises a `DataError` if something must be mended."""
    names = RunConfig.__dataclass_fields__
    config = RunConfig(**{name: value for name, value in vars(arguments).items() if name in names})
    output = Path(config.output)
    check_output(output)
    dataset = open_data(config, demo=True)
    findings, cache = look_at_data(config, dataset)
    output.mkdir(parents=True, exist_ok=True)
    archived = archive(output, CHECK_FILES)
    if archived:
        say_about("earlier", f"moved the files of the check before to {archived}")
    written = _write(output, dataset, findings)
    if all(findings.records.values()):
        say_what_was_found(dataset, findings)
    if cache.note:
        say_about("", cache.note)
    for number, error in enumerate(findings.errors, start=1):
        say_about(f"problem {number}", error)
    say_about("wrote", f"in {output}/: {', '.join(written)}")
    if findings.errors:
        count = len(findings.errors)
        raise DataError(f"{config.data}: {count} problem{'s' if count > 1 else ''}, listed above; mend before training")
    say("These data can be trained on.")


def _write(output: Path, dataset: "Dataset", findings: "Findings") -> list[str]:
    from semseg.data.base import spread
    from semseg.data.check import to_json
    from semseg.report import save_data_page

    write_json(output / "data.json", to_json(dataset, findings))
    if not all(findings.records.values()):
        return ["data.json"]
    write_json(output / "classes.json", classes_json(dataset, findings))
    shown = []
    for split, entries in findings.records.items():
        count = PICTURES if len(findings.records) == 1 else PICTURES // 2
        shown += [(split, sample, *dataset.load(sample)) for sample, _ in spread(entries, count)]
    save_data_page(
        [(f"{split}: {sample.photo.name}", photo, ids) for split, sample, photo, ids in shown],
        dataset.palette,
        {split: findings.counts(split).sum(axis=0) for split in findings.records},
        _headline(dataset, findings),
        output / "data.png",
    )
    return sorted(CHECK_FILES)


def _headline(dataset: "Dataset", findings: "Findings") -> str:
    counts = ", ".join(f"{len(entries)} {split}" for split, entries in findings.records.items())
    (height, width), _ = next(iter(findings.sizes.items()))
    others = f" and {len(findings.sizes) - 1} more sizes" if len(findings.sizes) > 1 else ""
    classes = f"{dataset.palette.num_classes} classes ({dataset.task})"
    return f"{dataset.root.name}: {counts}, {width}x{height} pixels{others}, {classes}"
