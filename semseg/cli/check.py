"""`python -m semseg check`: what is in a folder, as text, as a page of pictures and as JSON."""

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from semseg.cli.console import say, say_about
from semseg.cli.flags import CHECK_OUTPUT, given_settings
from semseg.cli.looking import look_at, say_what_was_found
from semseg.data.base import Dataset, spread
from semseg.data.check import Findings, to_json
from semseg.data.opening import open_data
from semseg.errors import DataError
from semseg.evaluation.album import LONGEST
from semseg.files import archive, check_output, read_json, write_json
from semseg.images.resizing import resize_mask, resize_photo, size_within
from semseg.runs import names
from semseg.runs.classes import write_classes
from semseg.runs.config import RunConfig
from semseg.training.view import choose_view

PAGE, FINDINGS = "data.png", "data.json"
CHECK_FILES = (PAGE, FINDINGS, names.CLASSES)
PICTURES = 8


def run(arguments: argparse.Namespace) -> None:
    """Looks at every file; says all that is wrong, and raises a `DataError` if something must be mended."""
    config = RunConfig(**{"output": CHECK_OUTPUT, **given_settings(arguments)})
    output = Path(config.output)
    check_output(output)
    dataset = open_data(config, demo=True, tell=say_about)
    view = choose_view(config, dataset, on_gpu=False)
    findings, cache = look_at(view.decided(config), dataset)
    output.mkdir(parents=True, exist_ok=True)
    found = to_json(dataset, findings)
    unchanged = _holds(output, found)
    if not unchanged and (archived := archive(output, CHECK_FILES)):
        say_about("earlier", f"moved the files of the check before to {archived}")
    written = sorted(CHECK_FILES) if unchanged else _write(output, dataset, findings, found)
    if all(findings.records.values()):
        say_what_was_found(dataset, findings)
    if cache.note:
        say_about("", cache.note)
    for number, error in enumerate(findings.errors, start=1):
        say_about(f"problem {number}", error)
    say_about("unchanged" if unchanged else "wrote", f"in {output}/: {', '.join(written)}")
    if findings.errors:
        count = len(findings.errors)
        raise DataError(f"{config.data}: {count} problem{'s' if count > 1 else ''}, listed above; mend before training")
    say("These data can be trained on.")


def _holds(output: Path, found: dict[str, Any]) -> bool:
    """Whether a check of the same files, of which nothing has changed, left its files there."""
    if not all((output / name).is_file() for name in CHECK_FILES) or not all(file["digest"] for file in found["files"]):
        return False
    with suppress(ValueError, OSError):
        return read_json(output / FINDINGS) == json.loads(json.dumps(found))
    return False


def _write(output: Path, dataset: Dataset, findings: Findings, found: dict[str, Any]) -> list[str]:
    from semseg.report import save_data_page  # loads matplotlib, for which a check that finds nothing new need not wait

    write_json(output / FINDINGS, found)
    if not all(findings.records.values()):
        return [FINDINGS]
    write_classes(output / names.CLASSES, dataset.palette, findings.shares("train"))
    shown = []
    for split, entries in findings.records.items():
        count = PICTURES if len(findings.records) == 1 else PICTURES // 2
        for sample, _ in spread(entries, count):
            photo, ids = dataset.load(sample)
            size = size_within(ids.shape, LONGEST)
            photo, ids = dataset.bands.view(resize_photo(photo, size)), resize_mask(ids, size)
            shown.append((f"{split}: {sample.photo.name}", photo, ids))
    save_data_page(
        shown,
        dataset.palette,
        {split: findings.counts(split).sum(axis=0) for split in findings.records},
        _headline(dataset, findings),
        output / PAGE,
    )
    return sorted(CHECK_FILES)


def _headline(dataset: Dataset, findings: Findings) -> str:
    counts = ", ".join(f"{len(entries)} {split}" for split, entries in findings.records.items())
    (height, width), _ = next(iter(findings.sizes.items()))
    others = f" and {len(findings.sizes) - 1} more sizes" if len(findings.sizes) > 1 else ""
    classes = f"{dataset.palette.num_classes} classes ({dataset.task})"
    return f"{dataset.root.name}: {counts}, {width}x{height} pixels{others}, {classes}"
