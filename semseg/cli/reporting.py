"""`python -m semseg report`: one page about a run, or about several side by side."""

import argparse
import csv
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from semseg.cli.console import percent, say_about, size_text
from semseg.cli.judging import MATRIX_FILE
from semseg.cli.output import check_output
from semseg.errors import RunFolderError, SemsegError
from semseg.runs.config import RunConfig, to_flags

if TYPE_CHECKING:  # rooms that load OpenCV, matplotlib or SciPy are imported where a command needs them
    import numpy as np

    from semseg.comparison.statistics import Run
    from semseg.labels.palettes import Palette
    from semseg.report import RunFacts

REPORT_FILE = "report.html"
ALBUM = "report"  # the folder of the page's pictures
EVENTS = "tensorboard"  # the folder of the event files
SEVERAL = f"{RunConfig.output}/runs.html"
_DRAWINGS = {"architecture": "model_arch.png", "batch": "train_batch.png"}
_SPLIT_NAMES = {"train": "Training photos", "val": "Validation photos", "test": "Test photos"}


def report(arguments: argparse.Namespace) -> None:
    """Makes the page that the flags ask for."""
    folders = [Path(folder) for folder in arguments.runs]
    default = folders[0] / REPORT_FILE if len(folders) == 1 else SEVERAL
    path = Path(arguments.output or default)
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise SemsegError(f"--output: got {str(path)!r}; expected a file to write, such as {REPORT_FILE}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise SemsegError("report: got the same run twice; give each once")
    check_output(path.parent)
    if len(folders) == 1:
        write_report(folders[0], path)
    else:
        _write_several(folders, path)
    say_about("wrote", f"{path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser")


def write_report(folder: Path, path: Path | None = None) -> Path:
    """Writes the page about a finished run from what lies in its folder; neither data nor model are opened.

    Raises:
        RunFolderError: It is no folder of a finished run, or a file of it cannot be read.
    """
    from semseg.report import save_run_page

    facts = _facts(folder, name="")
    path = path or folder / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_run_page(facts, path)


def _write_several(folders: list[Path], path: Path) -> None:
    from semseg.report import save_runs_page

    runs = [_facts(folder, name) for folder, name in zip(folders, _short_names(folders), strict=True)]
    commands = [
        ("Is the difference more than chance?", _command("compare", *map(str, folders))),
        ("Make this page again", _command("report", *map(str, folders), "--output", str(path))),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_runs_page(runs, path, commands)


def _short_names(folders: list[Path]) -> list[str]:
    """The folders' names, with as many of those above as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of[-length:]) for of in parts]
        if len(set(names)) == len(names):
            break
    return names


def _facts(folder: Path, name: str) -> "RunFacts":
    """All that a page says about a run."""
    from semseg.comparison.statistics import read_run
    from semseg.report import RunFacts
    from semseg.runs.pictures import read_pictures

    run = read_run(folder, with_model=False)
    try:
        palette, pictures = _palette(folder), read_pictures(folder / ALBUM)
        matrix = _matrix(folder, palette.num_classes)
        return RunFacts(
            name=name or f"{run.config.model} on {Path(run.config.data).name or run.config.data}",
            photos=len(run.photos),
            metrics=run.metrics,
            history=run.history,
            settings=_settings(run),
            environment=_environment(run),
            data=_data(run, palette),
            palette=palette,
            class_shares=_class_shares(run, palette),
            matrix=matrix,
            pictures=pictures,
            drawings={kind: folder / name for kind, name in _DRAWINGS.items() if (folder / name).is_file()},
            notes=run.noted.get("found", {}).get("notes", []),
            commands=_commands(run, folder),
            missing=_missing(matrix, pictures, folder),
        )
    except SemsegError as error:
        raise RunFolderError(f"{folder}: {str(error).removeprefix(f'{folder}: ')}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder}: cannot be read as a run ({error!r}); train it again") from None


def _palette(folder: Path) -> "Palette":
    from semseg.labels.palettes import Palette

    return Palette.from_dict(json.loads((folder / "classes.json").read_text(encoding="utf-8")), source="file")


def _matrix(folder: Path, num_classes: int) -> "np.ndarray | None":
    import numpy as np

    if not (folder / MATRIX_FILE).is_file():
        return None
    with (folder / MATRIX_FILE).open(newline="", encoding="utf-8") as file:
        matrix = np.array([[int(pixels) for pixels in row[1:]] for row in list(csv.reader(file))[1:]], np.int64)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"{MATRIX_FILE} is not of {num_classes} classes")
    return matrix


def _class_shares(run: "Run", palette: "Palette") -> list[float]:
    """Each class's share of the true pixels, from per_class.csv; 0 where that is missing."""
    shares: dict[str, float] = {}
    with suppress(OSError), (run.folder / "per_class.csv").open(newline="", encoding="utf-8") as file:
        shares = {row["class"]: float(row["truth_share"] or 0) for row in csv.DictReader(file)}
    return [shares.get(name, 0.0) for name in palette.names]


def _missing(matrix: "np.ndarray | None", pictures: list, folder: Path) -> list[str]:
    found = {
        f"the confusion matrix ({MATRIX_FILE})": matrix is not None,
        f"photos with predictions ({ALBUM}/)": bool(pictures),
        **{f"a drawing ({name})": (folder / name).is_file() for name in _DRAWINGS.values()},
    }
    return [what for what, there in found.items() if not there]


def _data(run: "Run", palette: "Palette") -> dict[str, str]:
    """What the data were, in words."""
    found = run.noted.get("found", {})
    task = run.noted.get("task", "segmentation")
    facts = {"Folder": run.config.data, "Task": f"{task}, {palette.num_classes} classes"}
    facts |= {_SPLIT_NAMES.get(split, f"Photos of {split}"): f"{count:,}" for split, (count, _) in run.splits.items()}
    if found.get("sizes"):
        facts["Pixels of a photo"] = ", ".join(found["sizes"][:3]) + (" ..." if len(found["sizes"]) > 3 else "")
    facts["Pixels that the network sees"] = size_text(run.config.image_size)
    if "ignored_share" in run.metrics:
        facts["Ignored pixels"] = f"{percent(run.metrics['ignored_share'])} of {run.metrics['split']}"
    return facts


def _settings(run: "Run") -> dict[str, str]:
    """What was asked for, under the flags' names, and how it learned and was augmented."""
    asked = vars(run.config).items()
    values = {name.replace("_", " "): value for name, value in asked if value is not None and value is not False}
    values["image size"] = size_text(run.config.image_size)
    for part in ("recipe", "augmentation"):
        values |= {f"{part}: {name.replace('_', ' ')}": of for name, of in run.noted.get(part, {}).items()}
    return {name: _in_words(value) for name, value in values.items()}


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):  # a range
        return " to ".join(map(_in_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _environment(run: "Run") -> dict[str, str]:
    facts = {name: str(run.noted[name]) for name in ("device", "system") if name in run.noted}
    facts |= run.noted.get("versions", {})
    if "parameters" in run.noted:
        facts["parameters"] = f"{run.noted['parameters']:,}"
    facts["training time"] = f"{run.metrics['training_seconds'] / 60:.1f} minutes"
    if run.metrics.get("peak_memory_mb"):
        facts["peak memory"] = f"{run.metrics['peak_memory_mb']:,.0f} MB"
    return facts


def _commands(run: "Run", folder: Path) -> list[tuple[str, str]]:
    """What can be done with a run, and how."""
    place, asked = str(folder), to_flags(run.config, without_defaults=True)
    if "--backend" not in asked:
        asked += ["--backend", run.config.backend]
    logs = shlex.join(["tensorboard", "--logdir", str(folder / EVENTS)])
    return [
        ("Judge it again: worst and best photos, and how far to trust its confidence", _command("evaluate", place)),
        ("Judge it on other photos with masks", _command("evaluate", place, "--data", "DIR")),
        ("Masks for new photos: a folder, a photo or a video", _command("predict", place, "WHAT")),
        ("Try it in the browser", _command("serve", place)),
        ("A file that runs without Keras, on phones and servers", _command("export", place, "--format", "onnx")),
        ("Compare it with another run", _command("compare", place, "OTHER_RUN")),
        ("See its curves and pictures in TensorBoard (pip install tensorboard)", logs),
        ("Train it again, in the same way", _command("train", *asked)),
        ("Make this page again", _command("report", place)),
    ]


def _command(*words: str) -> str:
    return shlex.join(["python", "-m", "semseg", *words])
