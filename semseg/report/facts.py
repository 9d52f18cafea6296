"""What the page says about a run, gathered from what lies in its folder; neither data nor model are opened."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semseg.errors import RunFolderError, SemsegError
from semseg.labels.palettes import Palette
from semseg.report.page import RunFacts
from semseg.runs import names
from semseg.runs.run import Run
from semseg.runs.spent import Spent

_SPLIT_NAMES = {"train": "Training photos", "val": "Validation photos", "test": "Test photos"}
_SIZES_LISTED = 3


def facts_of(folder: Path, name: str = "", commands: Sequence[tuple[str, str]] = ()) -> RunFacts:
    """All that a page says about a finished run.

    Args:
        folder: The run's.
        name: What to call it; empty for its network and data.
        commands: What can be done next, in words, and the command that does it.

    Raises:
        RunFolderError: It is no folder of a finished run, or a file of it cannot be read.
    """
    run = Run.finished(folder, with_model=False)
    try:
        return _facts(run, name or f"{run.model} on {Path(run.config.data).name or run.config.data}", commands)
    except SemsegError as error:
        raise RunFolderError(f"{folder}: {str(error).removeprefix(f'{folder}: ')}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{folder}: cannot be read as a run ({error!r}); train it again") from None


def short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of those above as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(of_folder[-length:]) for of_folder in parts]
        if len(set(short)) == len(short):
            break
    return short


def _facts(run: Run, name: str, commands: Sequence[tuple[str, str]]) -> RunFacts:
    matrix = run.scores.read_matrix(run.palette.num_classes)
    shares = run.scores.read_truth_shares()
    drawings = {"architecture": run.architecture_picture, "batch": run.first_batch_picture}
    missing = [f"a drawing ({path.name})" for path in drawings.values() if not path.is_file()]
    if not run.pictures:
        missing.insert(0, f"photos with predictions ({names.PICTURES}/)")
    if matrix is None:
        missing.insert(0, f"the confusion matrix ({names.MATRIX})")
    return RunFacts(
        name=name,
        photos=len(run.image_ious),
        metrics=run.metrics,
        history=run.history,
        settings=_settings(run),
        environment=_environment(run),
        data=_data(run, run.palette),
        palette=run.palette,
        class_shares=[shares.get(name, 0.0) for name in run.palette.names],
        matrix=matrix,
        pictures=run.pictures,
        drawings={kind: path for kind, path in drawings.items() if path.is_file()},
        notes=run.facts.get("found", {}).get("notes", []),
        commands=commands,
        missing=missing,
    )


def _data(run: Run, palette: Palette) -> dict[str, str]:
    """What the data were, in words."""
    sizes = run.facts.get("found", {}).get("sizes", [])
    task = run.facts.get("task", "segmentation")
    facts = {"Folder": run.config.data, "Task": f"{task}, {palette.num_classes} classes"}
    for split, (count, _) in run.split_digests.items():
        facts[_SPLIT_NAMES.get(split, f"Photos of {split}")] = f"{count:,}"
    if sizes:
        facts["Pixels of a photo"] = ", ".join(sizes[:_SIZES_LISTED]) + (" ..." if len(sizes) > _SIZES_LISTED else "")
    facts["Pixels that the network sees"] = _size(run.image_size)
    if "ignored_share" in run.metrics:
        facts["Ignored pixels"] = f"{_percent(run.metrics['ignored_share'])} of {run.metrics['split']}"
    return facts


def _settings(run: Run) -> dict[str, str]:
    """What was asked for, under the settings' names, and what was decided."""
    given = {name: value for name, value in asdict(run.config).items() if value is not None and value is not False}
    values = {name.replace("_", " "): value for name, value in given.items()}
    values["image size"] = _size(run.image_size)
    for section, decisions in run.plan.items():
        for name, decision in decisions.items():
            values[f"{section}: {name.replace('_', ' ')}"] = _decision_in_words(decision)
    return {name: _in_words(value) for name, value in values.items()}


def _decision_in_words(decision: Any) -> Any:
    """The words and the reason of a decision; a value alone, as earlier versions noted it, stays."""
    if not isinstance(decision, dict) or "text" not in decision:
        return decision
    return f"{decision['text']} ({decision['reason']})".replace("`", "")


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple) and len(value) == 2:  # a range
        return " to ".join(map(_in_words, value))
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _environment(run: Run) -> dict[str, str]:
    facts = {name: str(run.facts[name]) for name in ("device", "system") if name in run.facts}
    facts |= run.facts.get("versions", {})
    if "parameters" in run.facts:
        facts["parameters"] = f"{run.facts['parameters']:,}"
    if "init" in run.facts:
        facts["first weights"] = "{taken} of {path}".format(**run.facts["init"])
    facts["training time"] = f"{run.metrics['training_seconds'] / 60:.1f} minutes"
    if "spent" in run.metrics:
        facts["learnt from"] = str(Spent(**run.metrics["spent"]))
    facts |= {name.replace("_", " "): run.metrics[name] for name in ("early_stop", "averaged") if name in run.metrics}
    if chosen := run.calibration_note:
        facts["calibration"] = chosen
    if run.metrics.get("peak_memory_mb"):
        facts["peak memory"] = f"{run.metrics['peak_memory_mb']:,.0f} MB"
    return facts


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "<0.1%" if share else "none"
