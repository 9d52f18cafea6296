"""A run folder: what lies in it, read and written with types. Training, evaluation, reports and comparison ask it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from semseg.errors import RunFolderError, SemsegError
from semseg.files import archive, read_json, write_json
from semseg.labels.palettes import Palette
from semseg.runs import names
from semseg.runs.calibration import Calibration, read_calibration, write_calibration
from semseg.runs.checkpoints import Checkpoints
from semseg.runs.classes import read_classes, write_classes
from semseg.runs.config import RunConfig, read_config
from semseg.runs.lock import writer_of
from semseg.runs.pictures import Picture, read_pictures, write_pictures
from semseg.runs.scores import ScoreFolder, read_rows
from semseg.runs.splits import Splits, read_splits, write_splits

SPLIT_WORDS = {"train": "training", "val": "validation"}  # "test" is a word already
_FINISHED = (names.METRICS, names.PER_IMAGE, names.HISTORY, names.CLASSES)
_HISTORY_NEEDED = ("epoch", "loss", "val_loss", "val_mean_iou", "seconds")
_MODELS = names.MODEL.format(name="*")


@dataclass(frozen=True)
class Run:
    """A folder that a run writes, or has written. What is read is read once, when it is first asked for.

    Args:
        folder: Where it lies; need not exist yet.
    """

    folder: Path

    @classmethod
    def finished(cls, folder: str | Path, with_model: bool = True) -> "Run":
        """A run that ended well, with all that a comparison reads already read.

        Args:
            folder: Where it lies.
            with_model: Whether the model must be there, too.

        Raises:
            RunFolderError: It is no folder of a run, the run did not finish, another process writes there, or a file of
                it cannot be read or lacks what a comparison needs.
        """
        folder = Path(folder)
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "no such folder"
            raise RunFolderError(f"{folder}: {what}; expected the folder of a finished run")
        run = cls(folder)
        _ = run.config
        if writer := writer_of(folder):
            raise RunFolderError(f"{folder}: {writer} is writing there; wait for its end")
        if missing := run.missing_files(with_model):
            raise RunFolderError(f"{folder}: the run did not finish, {', '.join(missing)} is missing; train it again")
        run._read_all()
        return run

    def _read_all(self) -> None:
        try:
            _ = self.facts, self.history, self.image_ious, self.split_digests, self.metrics
        except SemsegError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{self.folder}: cannot be read as a run ({error!r}); train it again") from None

    @classmethod
    def of_model(cls, model: Path) -> "Run":
        """The folder that a model's file lies in, whether or not a run wrote it."""
        return cls(model.parent)

    # ------------------------------------------------------------------------------------------------ configuration

    @property
    def config_path(self) -> Path:
        """What was asked for, what was decided, and what it ran on."""
        return self.folder / names.CONFIG

    @cached_property
    def config(self) -> RunConfig:
        """What the run was asked to do.

        Raises:
            RunFolderError: There is no such file, or it cannot be read.
        """
        return self._config_file[0]

    @cached_property
    def config_or_none(self) -> RunConfig | None:
        """What the run was asked to do; None for a model that lies alone."""
        return self.config if self.config_path.is_file() else None

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What the run decided by itself, by section: see `Plan.to_dict`. Earlier versions wrote less."""
        values = self._config_file[1]
        return values.get("plan") or {name: values[name] for name in ("recipe", "augmentation") if name in values}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What else is known of it, such as `task`, `parameters`, `device`, `versions`, `samples` and `found`."""
        values = self._config_file[1]
        return values.get("facts", {}) if "format" in values else values

    @property
    def model(self) -> str:
        """Name of its network."""
        return self.facts.get("model") or self.config.model

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that its network sees."""
        height, width = self.facts.get("image_size") or self.config.seen_size
        return height, width

    @cached_property
    def _config_file(self) -> tuple[RunConfig, dict[str, Any]]:
        return read_config(self.config_path, ignore_unknown=True)

    def write_config(self, config: RunConfig, plan: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Writes what was asked for, what was decided, and what else is worth knowing, as JSON in sections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.config_path, {**config.to_dict(), "plan": dict(plan), "facts": dict(facts)})

    # ---------------------------------------------------------------------------------------------- classes, splits

    @property
    def classes_path(self) -> Path | None:
        """The file that describes its classes; None where there is none."""
        path = self.folder / names.CLASSES
        return path if path.is_file() else None

    @cached_property
    def palette(self) -> Palette:
        """Its classes.

        Raises:
            SemsegError: The file is missing or describes none.
        """
        return read_classes(self.folder / names.CLASSES)

    def write_classes(self, palette: Palette, shares: Sequence[float] | None = None) -> None:
        """Writes its classes, with each one's share of the training pixels, 0 to 1, `(K,)`."""
        write_classes(self.folder / names.CLASSES, palette, shares)

    @cached_property
    def splits(self) -> Splits:
        """The split of each of its photos; nothing where it did not note them."""
        return read_splits(self.folder / names.SPLITS)

    def write_splits(self, splits: Splits) -> None:
        """Writes the split of each photo, and what tells its bytes and its mask's from others."""
        write_splits(self.folder / names.SPLITS, splits)

    @cached_property
    def split_digests(self) -> dict[str, tuple[int, str]]:
        """Of each split the number of photos, and a digest of their names and sizes, `"unknown"` in older runs."""
        path = self.folder / names.SPLITS
        if not path.is_file():
            return {split: (int(count), "unknown") for split, count in self.facts.get("samples", {}).items()}
        photos: dict[str, list[tuple[str, str]]] = {}
        for row in read_rows(path, ("split", "photo", "bytes")):
            photos.setdefault(row["split"], []).append((row["photo"], row["bytes"]))
        return {
            split: (len(of_split), hashlib.sha256(repr(sorted(of_split)).encode("utf-8")).hexdigest()[:8])
            for split, of_split in photos.items()
        }

    # ------------------------------------------------------------------------------------------- training, pictures

    def model_path(self, name: str | None = None) -> Path:
        """The file of the weights of the best epoch.

        Args:
            name: What the network is called in names of files; None for the one model that is there.

        Raises:
            RunFolderError: No name was given, and there is no model, or more than one.
        """
        if name is not None:
            return self.folder / names.MODEL.format(name=name)
        models = sorted(self.folder.glob(_MODELS))
        if len(models) != 1:
            held = ", ".join(model.name for model in models) or f"no {_MODELS}"
            raise RunFolderError(
                f"{self.folder}: holds {held}; give the model's file, or the folder of one finished run"
            )
        return models[0]

    def file_of_weights(self, name: str, epoch: int | None = None) -> Path:
        """The file of the weights of an epoch, from 1, or of the last one: kept when asked for.

        Args:
            name: What the network is called in names of files.
            epoch: None for the last.
        """
        return self.folder / (names.LAST_MODEL if epoch is None else names.EPOCH_MODEL).format(name=name, epoch=epoch)

    def model_names(self) -> list[str]:
        """What the networks are called whose weights of the best epoch are there."""
        return [path.name.removesuffix(names.MODEL.format(name="")) for path in sorted(self.folder.glob(_MODELS))]

    def calibration_of(self, model: Path) -> Calibration:
        """What was chosen for a model's file in it on validation photos: see `read_calibration`."""
        return read_calibration(self.folder / names.CALIBRATION, model)

    @cached_property
    def calibration_note(self) -> str:
        """What was chosen on validation photos, and what it did there, in words; empty where nothing was."""
        path = self.folder / names.CALIBRATION
        if not path.is_file():
            return ""
        values = read_json(path)
        before, after = values["calibration_error"]
        calibration = Calibration.from_dict(values)
        return f"{calibration}; on {values['split']} a calibration error of {before:.3f} before, {after:.3f} after"

    def write_calibration(self, model: Path, calibration: Calibration, measured: Mapping[str, Any]) -> None:
        """Notes what was chosen for a model's file in it, and what it was chosen by."""
        write_calibration(self.folder / names.CALIBRATION, model, calibration, measured)

    @property
    def history_path(self) -> Path:
        """A row for each epoch."""
        return self.folder / names.HISTORY

    @cached_property
    def history(self) -> list[dict[str, float]]:
        """A row for each epoch: `epoch` (from 1), `loss`, `val_mean_iou`, `seconds` and more."""
        rows = read_rows(self.history_path, _HISTORY_NEEDED)
        return [{name: float(value) for name, value in row.items()} for row in rows]

    @property
    def checkpoints(self) -> Checkpoints:
        """The states that it goes on from when it was cut short."""
        return Checkpoints(self.folder / names.CHECKPOINTS)

    @property
    def learnt_photos_path(self) -> Path:
        """What its training photos were like."""
        return self.folder / names.LEARNT_PHOTOS

    @property
    def first_batch_picture(self) -> Path:
        """What the network sees first: a batch, augmented, and its masks."""
        return self.folder / names.FIRST_BATCH

    @property
    def architecture_picture(self) -> Path:
        """The network, drawn."""
        return self.folder / names.ARCHITECTURE

    @property
    def curves_picture(self) -> Path:
        """Loss, accuracy and mean IoU over the epochs."""
        return self.folder / names.CURVES

    @property
    def events_folder(self) -> Path:
        """What TensorBoard reads."""
        return self.folder / names.EVENTS

    @property
    def report_path(self) -> Path:
        """The page about the run."""
        return self.folder / names.REPORT

    @property
    def pictures_folder(self) -> Path:
        """The page's photos."""
        return self.folder / names.PICTURES

    @cached_property
    def pictures(self) -> list[Picture]:
        """Photos with truth and prediction that were kept; none where there is no list of them."""
        return read_pictures(self.pictures_folder)

    def write_pictures(self, pictures: Iterable[Picture], palette: Palette) -> None:
        """Keeps photos with truth and prediction, small."""
        write_pictures(self.pictures_folder, pictures, palette)

    @property
    def log_path(self) -> Path:
        """What a run in a process of its own printed."""
        return self.folder / names.LOG

    @property
    def failed_log_path(self) -> Path:
        """What it printed when it failed; the next attempt writes a log of its own."""
        return self.folder / names.FAILED_LOG

    # ------------------------------------------------------------------------------------------------------- scores

    @property
    def scores(self) -> ScoreFolder:
        """The scores of its best epoch."""
        return ScoreFolder(self.folder)

    @property
    def evaluation(self) -> ScoreFolder:
        """The scores of a later evaluation."""
        return ScoreFolder(self.folder / names.EVALUATION)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Every score of its best epoch: see `ScoreFolder.read_metrics`."""
        return self.scores.read_metrics()

    @cached_property
    def image_ious(self) -> dict[str, float]:
        """The mean IoU of each photo by name; NaN for a photo without a counted pixel."""
        return self.scores.read_image_ious()

    # ----------------------------------------------------------------------------------------------- the whole folder

    def missing_files(self, with_model: bool = True) -> list[str]:
        """What a finished run would have written and this folder does not hold."""
        missing = [name for name in (names.CONFIG, *_FINISHED) if not (self.folder / name).is_file()]
        return missing + ([_MODELS] if with_model and not any(self.folder.glob(_MODELS)) else [])

    @property
    def is_finished(self) -> bool:
        """Whether a run ended well here: its page is the last that it writes."""
        return not self.missing_files() and self.report_path.is_file()

    def archive(self, model_names: Iterable[str]) -> Path | None:
        """Moves the files of the run before, its evaluations and exports to `archive/<date-time>/` inside.

        Args:
            model_names: Names of networks whose files may be there.

        Returns:
            The new folder, or None when there was nothing to move.
        """
        return archive(self.folder, self._patterns(model_names))

    def archive_results(self, model_names: Iterable[str]) -> Path | None:
        """Moves what was made of a finished training that now goes on: its scores, pages and exports; see `archive`."""
        return archive(self.folder, [*names.OF_FINISHED, *_files_of(model_names, names.EXPORTED_ENDINGS)])

    def written(self, model_names: Iterable[str]) -> list[str]:
        """The names of files and folders of a run that are there."""
        files = (path for pattern in self._patterns(model_names) for path in self.folder.glob(pattern))
        return sorted({path.relative_to(self.folder).parts[0] for path in files if path.is_file()})

    def _patterns(self, model_names: Iterable[str]) -> list[str]:
        endings = (names.MODEL.format(name=""), *names.OTHER_MODEL_ENDINGS, *names.EXPORTED_ENDINGS)
        return [*names.RUN_FILES, *_files_of(model_names, endings)]


def _files_of(model_names: Iterable[str], endings: Sequence[str]) -> list[str]:
    return [f"{name}{ending}" for name in sorted(set(model_names)) for ending in endings]


def check_same_data(first: Run, other: Run) -> None:
    """Compares the photos of all splits and the classes of two runs, as far as they noted them.

    Raises:
        RunFolderError: The data changed between them.
    """
    if _same_photos(first, other) and list(first.metrics["per_class"]) == list(other.metrics["per_class"]):
        return
    has, had = _content(other), _content(first)
    differing = " of other names or content" if has == had else ""
    raise RunFolderError(
        f"{other.folder}: has {has}{differing}; {first.folder} has {had}; the data changed; use another `output`"
    )


def _same_photos(first: Run, other: Run) -> bool:
    """Whether all splits that both noted hold the same photos, as far as can be told."""
    if not first.split_digests or not other.split_digests:
        return True
    if first.config.fold and other.config.fold:  # each holds out others of the same photos
        return first.splits.keys() == other.splits.keys() and not changed_photos(first, other)
    for split in {*first.split_digests, *other.split_digests}:
        (count, digest), (other_count, other_digest) = (
            run.split_digests.get(split, (0, "none")) for run in (first, other)
        )
        if count != other_count or (digest != other_digest and "unknown" not in (digest, other_digest)):
            return False
    return not changed_photos(first, other)


def changed_photos(first: Run, other: Run) -> list[str]:
    """The photos that two runs noted with other bytes, their own or those of their masks, though names and sizes agree.

    Args:
        first: A run; earlier versions noted no bytes, which says nothing.
        other: Another one.
    """
    both = ((name, entry.digest, other.splits.get((name, size))) for (name, size), entry in first.splits.items())
    return [name for name, digest, entry in both if entry and digest and entry.digest not in ("", digest)]


def _content(run: Run) -> str:
    photos = [f"{count} {SPLIT_WORDS.get(split, split)} photos" for split, (count, _) in run.split_digests.items()]
    return ", ".join([*photos, f"{len(run.metrics['per_class'])} classes"])
