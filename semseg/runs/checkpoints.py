"""States of a training on disk: pieces with checksums, a manifest written last, and the two newest kept."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import RunFolderError
from semseg.files import remove_temporaries, replacing, sha256_of
from semseg.runs import names

FORMAT = 1  # of the manifest
KEPT = 2  # the newest, and the one before in case a disk damages that
_MODEL = Path(names.MODEL).suffix
_OURS = re.compile(names.STATE_PATTERN)
_OF_MANIFEST = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, order=True)
class Position:
    """How far a training has come.

    Args:
        epoch: Epochs that are over, with their validation.
        batch: Batches that are over in the epoch after these; all of them where only the validation is left.
    """

    epoch: int
    batch: int = 0

    def __str__(self) -> str:
        """In words, epochs counted from 1."""
        if self.batch:
            return f"batch {self.batch} of epoch {self.epoch + 1}"
        return f"the end of epoch {self.epoch}" if self.epoch else "the start"


@dataclass(frozen=True)
class Checkpoint:
    """A state that was read back whole.

    Args:
        position: How far the training had come.
        arrays: By name.
        facts: What else was noted, plain values.
        best_model: The file of the best weights until then; None before the first epoch was over.
    """

    position: Position
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    best_model: Path | None


class Checkpoints:
    """The states of one run, in a folder of their own.

    A state is an `.npz` file of plain arrays, the file of the best weights that it knows, and a JSON manifest with the
    SHA-256 of both and of itself. A state without a whole manifest does not count, so a crash leaves the one before.

    Args:
        folder: Where they lie; made when the first one is written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def write(
        self, position: Position, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], best: Path | None
    ) -> None:
        """Writes a state, and removes those before the last two.

        Args:
            position: How far the training has come.
            arrays: By name, of any dtype but `object`.
            facts: What JSON can hold, `"best_epoch"` among it: from 1, 0 for none.
            best: The model of the best epoch; None before the first is over.

        Raises:
            OSError: It cannot be written; earlier states are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = names.STATE.format(epoch=position.epoch, batch=position.batch)
        pieces = [self._keep_best(best, facts["best_epoch"])] if best else []
        state = self.folder / f"{stem}.npz"
        with replacing(state) as temporary:
            np.savez(temporary, **arrays)
        pieces.append(state)
        content = {
            "format": FORMAT,
            "position": [position.epoch, position.batch],
            "pieces": {piece.name: sha256_of(piece) for piece in pieces},
            "facts": dict(facts),
        }
        with replacing(self.folder / f"{stem}.json") as temporary:
            manifest = {"sha256": _digest(content), "content": content}
            temporary.write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        self._remove_all_but(KEPT, up_to=stem)

    def _keep_best(self, model: Path, epoch: int) -> Path:
        """A copy of the best weights, as the file beside the run's results may be newer than a state."""
        kept = self.folder / names.STATE_BEST.format(epoch=epoch)
        if not kept.is_file():
            with replacing(kept) as temporary:
                shutil.copyfile(model, temporary)
        return kept

    def newest(self, tell: Callable[[str], None], model: Path | None = None) -> Checkpoint | None:
        """The newest state that is whole.

        Args:
            tell: Called with a sentence about each newer one that is damaged.
            model: The run's own file of the best weights: stands in for a damaged copy of the same bytes.

        Returns:
            None where no state was ever written.

        Raises:
            RunFolderError: All are damaged, or of a later version.
        """
        manifests = self._manifests()
        for manifest in manifests:
            try:
                return self._read(manifest, model)
            except _OF_MANIFEST as error:
                if isinstance(error, RunFolderError):
                    raise
                tell(f"{manifest}: {error or type(error).__name__}; going on from the state before")
        if manifests or self._has_pieces():
            raise RunFolderError(f"{self.folder}: no state in there is whole; `restart` to train from the beginning")
        return None

    def last(self) -> Position | None:
        """How far the newest state had come, by its name; None where there is none."""
        for manifest in self._manifests():
            return Position(*map(int, manifest.stem.split("-")[1:]))
        return None

    def note(self) -> str:
        """What stands of the training, in words."""
        last = self.last()
        if last is None:
            return "no state was saved yet"
        return f"the state at {last} is in {self.folder}: the same command goes on from there"

    def remove(self) -> None:
        """Removes all states."""
        for path in self._ours():
            path.unlink(missing_ok=True)
        remove_temporaries(self.folder)
        with suppress(OSError):
            self.folder.rmdir()

    def _read(self, path: Path, model: Path | None) -> Checkpoint:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        content = manifest["content"]
        if manifest["sha256"] != _digest(content):
            raise ValueError("was changed or damaged, by its checksum")
        if isinstance(content["format"], int) and content["format"] > FORMAT:
            raise RunFolderError(f"{path}: is of form {content['format']}, and this version of semseg reads {FORMAT}; "
                                 "use a later semseg")  # fmt: skip
        pieces = [self._whole_piece(name, digest, model) for name, digest in content["pieces"].items()]
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        best_model = next((piece for piece in pieces if piece.suffix == _MODEL), None)
        return Checkpoint(Position(*content["position"]), arrays, content["facts"], best_model)

    def _whole_piece(self, name: str, digest: str, model: Path | None) -> Path:
        """A file of the state; the run's own file may stand in for the best weights."""
        piece = self.folder / Path(name).name
        if _is(piece, digest):
            return piece
        if piece.suffix == _MODEL and model is not None and _is(model, digest):
            return model
        raise ValueError(f"{name} {'was changed or damaged, by its checksum' if piece.is_file() else 'is missing'}")

    def _ours(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return [path for path in found if _OURS.fullmatch(path.name)]

    def _manifests(self) -> list[Path]:
        """Newest first."""
        return sorted((path for path in self._ours() if path.suffix == ".json"), reverse=True)

    def _has_pieces(self) -> bool:
        """States without a manifest: the first save may have been cut short, but no save leaves two."""
        return len({path.stem for path in self._ours() if path.suffix == ".npz"}) > 1

    def _remove_all_but(self, count: int, up_to: str) -> None:
        """Keeps so many states; one that would come later was damaged, or a run went on from before it."""
        kept: set[str] = set()
        for manifest in [path for path in self._manifests() if path.stem <= up_to][:count]:
            kept.add(manifest.name)
            with suppress(*_OF_MANIFEST):
                kept.update(json.loads(manifest.read_text(encoding="utf-8"))["content"]["pieces"])
        for path in self._ours():
            if path.name not in kept:
                path.unlink(missing_ok=True)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest
