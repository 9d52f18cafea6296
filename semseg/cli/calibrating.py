"""How sure a network may be: chosen on validation photos, noted beside its file, and said."""

from pathlib import Path

from semseg.cli.console import Progress, say_about
from semseg.data.base import Dataset
from semseg.evaluation.calibrating import SPLIT, calibrate
from semseg.inference.segmenter import Segmenter
from semseg.runs import names
from semseg.runs.run import Run


def calibrate_model(segmenter: Segmenter, dataset: Dataset, model: Path) -> Segmenter:
    """The network calibrated, which is noted for the model's file."""
    with Progress("calibrating") as progress:
        chosen = calibrate(segmenter, dataset, progress.show)
    run = Run.of_model(model)
    run.write_calibration(model, chosen.calibration, chosen.to_dict())
    before, after = chosen.errors
    say_about("certainty", f"{chosen.calibration}, chosen on {chosen.photos} photos of {SPLIT}: calibration error "
              f"{before:.4f} before, {after:.4f} after")  # fmt: skip
    if (run.folder / names.EXPORTS).is_file():
        say_about("note", "files that were exported before know nothing of it: export them again")
    return segmenter.calibrated(chosen.calibration)
