"""What a model's file says about its network, read once; `ModelCard.load` makes a `Segmenter` of it.

A model is a `.keras` or `.h5` file, or one that `export` wrote for another runtime. Of exported files some hold their
description inside; of all of them it stands in a file beside, too.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semseg import __version__
from semseg.errors import ModelFileError, RunFolderError, SemsegError, first_line, require
from semseg.files import default_folder, read_json, write_json
from semseg.images.bands import RGB, Bands
from semseg.inference.ensemble import check_alike, mean_of_networks
from semseg.inference.learnt import LearntPhotos
from semseg.inference.logits import as_logits
from semseg.inference.runtimes import RUNTIMES, Opened, digest_of, runtime_of
from semseg.inference.segmenter import Segmenter
from semseg.inference.trial import try_apart
from semseg.labels.palettes import Palette
from semseg.runs import names
from semseg.runs.calibration import AS_LEARNT, Calibration
from semseg.runs.classes import read_classes
from semseg.runs.members import runs_in
from semseg.runs.run import Run

if TYPE_CHECKING:
    import keras

OUTPUTS = ("logits", "probabilities", "ids")
KEPT = ("onnx", "openvino")  # runtimes that compute a run's network by a file that is kept
_PIXELS_AT_ONCE = 1 << 18  # twice as many are slower on a CPU by a fifth, and take memory


@dataclass(frozen=True)
class ModelCard:
    """What is known of a network.

    Args:
        path: The model's file; the folder of a SavedModel.
        format: `"keras"`, `"h5"`, or one of the exported formats such as `"onnx"`.
        gives: What comes out of the file: `"logits"`, `"probabilities"` or `"ids"`; None where nothing says it.
        image_size: (height, width) in pixels that it sees; None where nothing says it, or where it takes any.
        palette: Names and colours of its classes; None where nothing says them.
        precision: What it computes in: `"float32"` or `"int8"`.
        bands: What photos it takes.
        scale: Of a network that learned crops: pixels that it sees for one of the photo's; None: it sees photos whole.
        calibration: What was chosen on validation photos. A file that gives probabilities holds the temperature inside,
            and one that gives ids the threshold, too.
        learnt: What the photos were like that it learnt from; None where nothing says it.
        members: Of a folder of runs, whose networks answer together: the card of each, as it learnt.
        runtime: Of a Keras file that another runtime computes: which, by a file that `semseg.export.keeping` keeps.
    """

    path: Path
    format: str
    gives: str | None = None
    image_size: tuple[int, int] | None = None
    palette: Palette | None = None
    precision: str = "float32"
    bands: Bands = RGB
    scale: float | None = None
    calibration: Calibration = AS_LEARNT
    learnt: LearntPhotos | None = None
    members: "tuple[ModelCard, ...]" = ()
    runtime: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> "ModelCard":
        """What a model's name and the files beside it say; the network itself is not opened.

        Args:
            path: The model's file, the folder of its run, or a folder of several runs.

        Raises:
            RunFolderError: Nothing is there, or a run of several did not finish.
            ModelFileError: A description beside it cannot be understood, a calibration is of other weights, or the
                networks of several runs do not see or tell apart the same.
        """
        if ensemble := cls.of_runs(Path(path)):
            return ensemble
        card = cls.undescribed(model_file(Path(path))).with_notes()
        return card if card.exported else card._described_beside() or card  # most exported files hold their own

    @classmethod
    def of_runs(cls, folder: Path) -> "ModelCard | None":
        """The networks of a folder of runs as one; None where it holds no runs. Errors as of `read`."""
        if not (runs := runs_in(folder)):
            return None
        check_alike(folder, runs)
        members = tuple(replace(cls.read(run.folder), calibration=AS_LEARNT) for run in runs)
        return replace(members[0], path=folder, members=members)

    @classmethod
    def undescribed(cls, path: Path) -> "ModelCard":
        """What a file's name and the classes beside it say, whatever else is said of it; it need not be there yet."""
        run = Run.of_model(path)
        suffix, classes = path.suffix.lower().removeprefix("."), run.classes_path
        palette = read_classes(classes) if classes else None
        kind = runtime_of(path) or suffix
        return cls(path, kind, palette=palette, bands=_bands_of_run(run), scale=_scale_of_run(run))

    def with_notes(self) -> "ModelCard":
        """The card with what its run noted after the training: how sure it may be, and what its photos were like.

        Raises:
            ModelFileError: A calibration is of other weights, or cannot be understood.
        """
        if self.members:
            return self
        run = Run.of_model(self.path)
        learnt, photos = None, run.learnt_photos_path
        if photos.is_file() and not self.exported:
            learnt = LearntPhotos.read(photos, digest_of(self.path))
        return replace(self, calibration=run.calibration_of(self.path), learnt=learnt)

    @property
    def run(self) -> Run:
        """The folder that its file lies in; of several runs the first, which knows the data of all."""
        return self.members[0].run if self.members else Run.of_model(self.path)

    @property
    def digest(self) -> str:
        """SHA-256 of all that its file, or those of several runs, consist of, as 64 hexadecimal digits."""
        if not self.members:
            return digest_of(self.path)
        return hashlib.sha256("".join(member.digest for member in self.members).encode()).hexdigest()

    @property
    def exported(self) -> bool:
        """Whether another runtime than Keras computes it."""
        return self.format in RUNTIMES

    def device(self) -> str:
        """What computes it, in words: a GPU's name, the CPU with its cores, or the CPU and the runtime."""
        if self.exported or self.runtime:
            return f"the CPU, by {self.runtime or self.format}"
        from semseg.backend.devices import device_name  # exported files do without Keras

        return device_name()

    def computed_by(self, runtime: str | None) -> "ModelCard":
        """The same network, computed by a runtime.

        Args:
            runtime: `"keras"`, one of `KEPT`, for which its file must be kept before it is loaded, or None for what the
                format says.

        Raises:
            SemsegError: It is an exported file, which no other runtime can compute.
        """
        if self.exported and runtime not in (None, self.format):
            raise SemsegError(
                f"`runtime`: {self.path} is an exported file, which {self.format} alone computes; give the run that it "
                "came from, or leave it out"
            )
        if self.exported or runtime in (None, "keras"):
            return self
        members = tuple(replace(member, runtime=runtime) for member in self.members)
        return replace(self, members=members, runtime=runtime)

    def kept_file(self, image_size: tuple[int, int] | None) -> Path:
        """Where the network lies for its `runtime`: a place for each content of its file, so that none is ever stale.

        Args:
            image_size: (height, width) that was asked for; None for what the network was built for.
        """
        size = "" if image_size is None else f"-{image_size[0]}x{image_size[1]}"
        folder = f"{self.digest[:32]}{size}-{self.runtime}-{__version__}"
        return default_folder() / "runtimes" / folder / f"network{RUNTIMES[self.runtime or ''].suffix}"

    def is_kept(self, image_size: tuple[int, int] | None) -> bool:
        """Whether the files for its `runtime` are there, with the bytes that were compared."""
        if self.members:
            return all(member.is_kept(image_size) for member in self.members)
        file = self.kept_file(image_size)
        try:
            return file.is_file() and ModelCard.undescribed(file)._is_as_exported()
        except ModelFileError:  # to be made again
            return False

    def described_by(self, values: dict[str, Any]) -> "ModelCard":
        """The card with what `to_dict` wrote about the file.

        Raises:
            ValueError: Something is missing or of a wrong kind.
        """
        try:
            height, width = map(int, values["image_size"])
            gives, precision = values["gives"], str(values.get("precision", "float32"))
            palette = Palette.from_dict(values["classes"])
            bands = Bands.from_dict(values["bands"]) if values.get("bands") else RGB
            scale = None if values.get("scale") is None else float(values["scale"])
            calibration = Calibration.from_dict(values["calibration"]) if "calibration" in values else self.calibration
            learnt = LearntPhotos.from_dict(values["learnt"]) if "learnt" in values else self.learnt
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its description misses {error}") from None
        if gives not in OUTPUTS:
            raise ValueError(f"its description says that it gives {gives!r}")
        if scale is not None and not 0 < scale < np.inf:
            raise ValueError(f"its description says that it sees photos at a scale of {scale}")
        return replace(
            self, gives=gives, image_size=(height, width), palette=palette, precision=precision, bands=bands,
            scale=scale, calibration=calibration, learnt=learnt,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, that are written into the file where its format has a place, and beside it."""
        values = {
            "format": self.format,
            "gives": self.gives,
            "image_size": self.image_size,
            "classes": self.palette.to_dict() if self.palette else None,
            "precision": self.precision,
            **({} if self.scale is None else {"scale": self.scale}),
            **({} if self.calibration == AS_LEARNT else {"calibration": self.calibration.to_dict()}),
            **({} if self.learnt is None else {"learnt": self.learnt.to_dict()}),
        }
        return values if self.bands.are_rgb else {**values, "bands": self.bands.to_dict()}

    def write_beside(self, **more: Any) -> None:
        """Adds the file to the list of exported files beside it, with more that is worth knowing of it."""
        path = self.path.parent / names.EXPORTS
        entries: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError):  # there is none yet, or one that nobody can read
            entries = dict(read_json(path))
        write_json(path, {**entries, self.path.name: {**self.to_dict(), **more, "sha256": digest_of(self.path)}})

    def load(self, *, image_size: tuple[int, int] | None = None, batch_size: int | None = None) -> Segmenter:
        """The network, ready for photos, whatever computes it.

        Args:
            image_size: (height, width) in pixels that it should see, where it takes any.
            batch_size: Photos that it sees at once; None for as many as make a quarter of a million pixels.

        Returns:
            Whatever the file gives, its `predict_batch` gives logits: of probabilities their logarithm, of ids a high
            logit for the class that is named. It is for one thread at a time.

        Raises:
            SemsegError: The package that runs it is not installed, or `image_size` is missing or none that it takes.
            ModelFileError: The file is no network from photos to classes of the same size, has other classes or other
                bytes than the files beside it say, could do more than compute, or does not come to an end.
        """
        if self.members:
            segmenters = [member.load(image_size=image_size, batch_size=batch_size) for member in self.members]
            return replace(segmenters[0], predict_batch=mean_of_networks([one.predict_batch for one in segmenters]))
        if not self._is_as_exported() and self.exported:
            require(str(self.path), RUNTIMES[self.format].extra, RUNTIMES[self.format].module)
            try_apart(self.path, image_size)
        if self.exported:
            segmenter, card = self._load_exported(image_size)
        elif self.runtime:
            segmenter, card = self._load_kept(image_size), self
        else:
            segmenter, card = self._load_keras(image_size, batch_size), self
        segmenter = segmenter.calibrated(card.calibration_outside)
        batch_size = batch_size or fitting_batch_size(segmenter.image_size)
        return replace(segmenter, batch_size=batch_size, learnt=card.learnt)

    @property
    def calibration_outside(self) -> Calibration:
        """What is left to do where the file is used: see `calibration`."""
        if self.gives == "ids":
            return AS_LEARNT
        return replace(self.calibration, temperature=1.0) if self.gives == "probabilities" else self.calibration

    def keras_model(self) -> "keras.Model":
        """The Keras model in a `.keras` or `.h5` file, which is looked through before Keras loads it.

        That of several runs gives the mean of their probabilities, as logits.

        Raises:
            ModelFileError: The file is no model from photos to what the card says, or could do harm.
        """
        from semseg.inference.keras_model import mean_model, open_keras_model  # exported files do without Keras

        if self.members:
            return mean_model([member.keras_model() for member in self.members], "ensemble")
        return open_keras_model(self.path, self.gives or "logits")

    def seen_size(self, model: "keras.Model", wanted: tuple[int, int] | None) -> tuple[int, int]:
        """(height, width) that a Keras model sees: what it was built for; `wanted` only where it takes any.

        Raises:
            SemsegError: `wanted` is what it does not take, or is missing where it takes any.
        """
        built = model.input_shape[1:3]
        size = self._agreed_size(None if None in built else built, wanted)
        if None in built:
            try:
                model.predict_on_batch(np.zeros((1, *size, model.input_shape[3]), np.uint8))
            except Exception as error:  # Keras raises whatever a layer does
                raise SemsegError(
                    f"`image_size`: {self.path} does not take {size[1]}x{size[0]} pixels ({first_line(error)}); try a "
                    "multiple of 32"
                ) from error
        return size

    def bands_of(self, model: "keras.Model") -> Bands:
        """What photos a Keras model takes: as its run noted it, else as its first layers tell.

        Raises:
            ModelFileError: The run noted another number of bands.
        """
        from semseg.inference.keras_model import bands_of_model  # exported files do without Keras

        bands = bands_of_model(model) if self.bands.are_rgb else self.bands
        if bands.count != model.input_shape[3]:
            raise ModelFileError(
                f"{self.path}: takes {model.input_shape[3]} bands, and the configuration of its run describes "
                f"{bands.count}; put its own there"
            )
        return bands

    def scale_of(self, model: "keras.Model") -> float | None:
        """The scale at which a Keras model learned crops: as its name tells, else as its run noted it."""
        from semseg.backend.crop_scale import scale_of  # exported files do without Keras

        return scale_of(model) or self.scale

    def palette_of(self, num_classes: int) -> Palette:
        """Names and colours of so many classes; numbered where nothing says them.

        Raises:
            ModelFileError: Another number of classes is described.
        """
        palette = self.palette or Palette.numbered(num_classes)
        if palette.num_classes != num_classes:
            described = Run.of_model(self.path).classes_path or "its description"
            raise ModelFileError(
                f"{self.path}: tells {num_classes} classes apart, and {described} describes {palette.num_classes}; put "
                "its own there"
            )
        return palette

    def _described_beside(self) -> "ModelCard | None":
        """The card with what the list of exported files beside the model says; None where it says nothing."""
        values = self._entry_beside()
        try:
            return None if values is None else self.described_by(values)
        except ValueError as error:
            raise self._not_understood(error) from None

    def _is_as_exported(self) -> bool:
        """Whether the list beside the file knows its bytes; False where it says nothing of them.

        Raises:
            ModelFileError: It knows others.
        """
        digest = (self._entry_beside() or {}).get("sha256")
        if digest is not None and digest != digest_of(self.path):
            raise ModelFileError(
                f"{self.path}: has other bytes than when it was exported, says {names.EXPORTS} beside it; it was "
                "damaged or exchanged: export it again"
            )
        return digest is not None

    def _entry_beside(self) -> dict[str, Any] | None:
        """What the list of exported files beside the model says of it; None where it says nothing."""
        beside = self.path.parent / names.EXPORTS
        if not beside.is_file():
            return None
        try:
            values = read_json(beside).get(self.path.name)
            return None if values is None else dict(values)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._not_understood(error) from None

    def _not_understood(self, error: Exception) -> ModelFileError:
        problem = f"cannot be understood ({first_line(error)}); export {self.path.name} again"
        return ModelFileError(f"{self.path.parent / names.EXPORTS}: {problem}")

    # ---------------------------------------------------------------------------------------------------- loading

    def _load_keras(self, image_size: tuple[int, int] | None, batch_size: int | None) -> Segmenter:
        from semseg.backend.predictor import predictor  # exported files do without Keras

        model, gives = self.keras_model(), self.gives or "logits"
        size = self.seen_size(model, image_size)
        palette = self.palette if gives == "ids" and self.palette else self.palette_of(max(2, model.output_shape[-1]))
        compute = predictor(model, batch_size or fitting_batch_size(size))
        segmenter = _segmenter(compute, gives, size, palette, self.bands_of(model), self.scale_of(model))
        return replace(segmenter, features=compute.features)

    def _load_kept(self, image_size: tuple[int, int] | None) -> Segmenter:
        """What was compared; names, bands and scale are those of the run, as where Keras computes."""
        file = self.kept_file(image_size)
        if not file.is_file():
            raise ModelFileError(f"{self.path}: was replaced since it was exported; run the same command again")
        with suppress(OSError):
            os.utime(file.parent)  # what nobody uses is removed
        kept = ModelCard.undescribed(file).load()
        palette = self.palette_of(kept.palette.num_classes)
        bands = kept.bands if self.bands.are_rgb else self.bands
        return replace(kept, palette=palette, bands=bands, scale=kept.scale or self.scale)

    def _load_exported(self, image_size: tuple[int, int] | None) -> tuple[Segmenter, "ModelCard"]:
        """The network, and the card with what the file says of itself."""
        card, opened = self._opened()
        count = card.bands.count
        if len(opened.shape) != 4 or opened.shape[3] not in (count, None) or opened.dtype not in ("uint8", "float32"):
            raise ModelFileError(
                f"{self.path}: takes {opened.dtype} {opened.shape}; expected photos (N, H, W, {count}), uint8 or "
                "float32"
            )
        height, width = opened.shape[1:3]
        built = card.image_size if height is None or width is None else (height, width)
        size = self._agreed_size(built, image_size)
        sample = self._tried(opened, (*size, count))
        gives = card.gives or _seems_to_give(sample)
        if sample.shape[:3] != (2, *size) or sample.ndim != (3 if gives == "ids" else 4):
            raise ModelFileError(
                f"{self.path}: goes from (N, {size[0]}, {size[1]}, {count}) to {sample.shape}; expected {gives} for "
                "every pixel"
            )
        classes = sample.shape[-1] if gives != "ids" else card.palette.num_classes if card.palette else 2
        palette = card.palette_of(max(2, classes))

        def compute(photos: np.ndarray) -> np.ndarray:
            return opened.compute(photos.astype(opened.dtype))

        return _segmenter(compute, gives, size, palette, card.bands, card.scale), replace(card, gives=gives)

    def _opened(self) -> tuple["ModelCard", Opened]:
        """The file in its runtime, and the card with what stands inside the file."""
        runtime = RUNTIMES[self.format]
        require(str(self.path), runtime.extra, runtime.module)
        try:
            opened = runtime.open(self.path)
            inside = self.described_by(json.loads(opened.description)) if opened.description else None
        except SemsegError:
            raise
        except Exception as error:  # each runtime has errors of its own
            raise ModelFileError(f"{self.path}: cannot be opened ({first_line(error)}); export it again") from error
        return inside or self._described_beside() or self, opened

    def _tried(self, opened: Opened, shape: tuple[int, int, int]) -> np.ndarray:
        """What the file gives for two black photos."""
        try:
            return opened.compute(np.zeros((2, *shape), opened.dtype))
        except Exception as error:  # each runtime has errors of its own
            raise ModelFileError(f"{self.path}: cannot be run ({first_line(error)}); export it again") from error

    def _agreed_size(self, built: tuple[int, int] | None, wanted: tuple[int, int] | None) -> tuple[int, int]:
        size = built or wanted
        if size is None:
            raise SemsegError(
                f"`image_size`: {self.path} takes photos of any size; say at which size it should see them"
            )
        if wanted not in (None, size):
            raise SemsegError(
                f"`image_size`: {self.path} was built for {size[1]}x{size[0]} pixels, and takes nothing else"
            )
        return size


def model_file(path: Path) -> Path:
    """The model's file that is meant by itself, or by the folder of its run.

    Raises:
        RunFolderError: Nothing is there.
    """
    if path.is_dir() and not runtime_of(path):
        return Run(path).model_path()
    if not path.exists():
        raise RunFolderError(f"{path}: no such file; give a model's file, or the folder of a finished run")
    return path


def needs_keras(path: Path, runtime: str | None = None, image_size: tuple[int, int] | None = None) -> bool:
    """Whether Keras has to open a model, as neither its own file nor one that is kept does without.

    Args:
        path: The model's file, the folder of its run, or one of several runs.
        runtime: As of `ModelCard.computed_by`, or `"auto"`.
        image_size: (height, width) that was asked for.

    Raises:
        SemsegError: As of `ModelCard.read`, where a runtime is named.
    """
    if runtime_of(path) or runtime not in KEPT:
        return runtime_of(path) is None
    return not ModelCard.read(path).computed_by(runtime).is_kept(image_size)


def open_model(path: str | Path) -> "keras.Model":
    """The Keras model of a run, or in a `.keras` or `.h5` file; the file is looked through before Keras loads it.

    Args:
        path: The model's file, or the folder of its run.

    Returns:
        A model from photos `(N, H, W, C)`, in the files' numbers, to logits `(N, H, W, K)`, or `(N, H, W, 1)` for two
        classes.

    Raises:
        RunFolderError: Nothing is there.
        ModelFileError: It is an exported file, no model from photos to logits of the same size, or could do harm.
    """
    card = ModelCard.undescribed(model_file(Path(path)))
    if card.exported:
        raise ModelFileError(f"{card.path}: is an exported file; give the .keras file that it came from")
    return card.keras_model()


def fitting_batch_size(image_size: tuple[int, int]) -> int:
    """Photos of (height, width) at once that make a quarter of a million pixels, 1 to 16."""
    return max(1, min(16, _PIXELS_AT_ONCE // (image_size[0] * image_size[1])))


def _segmenter(
    compute: Callable[[np.ndarray], np.ndarray],
    gives: str,
    size: tuple[int, int],
    palette: Palette,
    bands: Bands,
    scale: float | None,
) -> Segmenter:
    def predict_batch(photos: np.ndarray) -> np.ndarray:
        return as_logits(compute(photos), gives, palette.num_classes)

    return Segmenter(predict_batch, size, palette, bands=bands, scale=scale, gives_ids=gives == "ids")


def _bands_of_run(run: Run) -> Bands:
    """What the photos of a model's run held; RGB where nothing says it.

    Raises:
        ModelFileError: What says it cannot be understood.
    """
    values = run.facts.get("bands") if run.config_path.is_file() else None
    try:
        return Bands.from_dict(values) if values else RGB
    except ValueError as error:
        raise ModelFileError(f"{run.config_path}: cannot be understood ({error}); train it again") from None


def _scale_of_run(run: Run) -> float | None:
    """At which scale a model's run cropped its photos; None where it saw them whole, or nothing says it."""
    scale = run.facts.get("scale") if run.config_path.is_file() else None
    if scale is None or (isinstance(scale, int | float) and 0 < scale < np.inf):
        return scale
    raise ModelFileError(f"{run.config_path}: cannot be understood (a scale of {scale!r}); train it again")


def _seems_to_give(sample: np.ndarray) -> str:
    """What a file gives that nobody described, by its answer to a photo."""
    if sample.dtype.kind in "iu":
        return "ids"
    sums_to_one = sample.ndim == 4 and sample.shape[3] > 1 and np.allclose(sample.sum(axis=3), 1, atol=1e-3)
    return "probabilities" if sums_to_one and sample.min() >= 0 else "logits"
