"""A run's network computed by another runtime: exported and compared once, kept, and found again by its weights."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import numpy as np

from semseg.backend.devices import device_name, on_gpu
from semseg.errors import ExportError, ModelFileError, RunFolderError, SemsegError, is_installed, pip_install, require
from semseg.export.formats import check_format
from semseg.export.gate import write_and_compare
from semseg.files import MAX_AGE, move_into_place
from semseg.inference.card import KEPT, ModelCard
from semseg.inference.runtimes import RUNTIMES
from semseg.inference.segmenter import Segmenter
from semseg.runs.calibration import AS_LEARNT

MIN_SPEEDUP = 1.2  # below it, another runtime is not worth answers whose last digits differ
_SECONDS, _ROUNDS = 2.0, 9  # of measuring; the networks' first batches come on top


@dataclass(frozen=True)
class Seen:
    """Photos that a network and its file are shown.

    Attributes:
        photos: `(H, W, C)` of any sizes, at least one, in the files' numbers.
        truths: Class ids `(H, W)` of each; None where nobody knows them.
        source: Where they come from, for people.
    """

    photos: Sequence[np.ndarray]
    truths: Sequence[np.ndarray] | None
    source: str


SeenBy = Callable[[ModelCard, ModelCard], Seen]  # by the card of a Keras file, and of the file that is made of it
Tell = Callable[[str, str], None]  # takes a topic and a sentence


def open_by(
    card: ModelCard,
    runtime: str | None,
    seen_by: SeenBy,
    tell: Tell,
    *,
    image_size: tuple[int, int] | None = None,
    batch_size: int | None = None,
) -> tuple[ModelCard, Segmenter]:
    """A network in the runtime that is asked for; what that needs is exported, if nobody did before.

    Args:
        card: From `ModelCard.read`.
        runtime: As of `ModelCard.computed_by`, or `"auto"` for the fastest one here.
        seen_by: Gives the photos by which an exported file is compared, see `photos_to_compare`.
        tell: Called with what is exported, and which runtime is the fastest.
        image_size: As of `ModelCard.load`.
        batch_size: As of `ModelCard.load`.

    Returns:
        The card, which names the runtime, and the network.

    Raises:
        SemsegError: As of `ModelCard.load`, or the runtime is not installed, or none that can express the network.
        ExportError: The exported file does not give the network's answers.
    """
    if runtime == "auto" and not card.exported:
        return _fastest(card, seen_by, tell, image_size, batch_size)
    card = card.computed_by(runtime)
    if card.runtime:
        keep(card, seen_by, tell, image_size)
    return card, card.load(image_size=image_size, batch_size=batch_size)


def keep(card: ModelCard, seen_by: SeenBy, tell: Tell, image_size: tuple[int, int] | None = None) -> None:
    """Exports a network, or those of several runs, for `card.runtime`; what is kept already stays.

    Args and errors: As of `open_by`.
    """
    require(f"`runtime` {card.runtime}", RUNTIMES[card.runtime or ""].extra, RUNTIMES[card.runtime or ""].module)
    for member in card.members or (card,):
        if not member.is_kept(image_size):
            _export(member, seen_by, tell, image_size)


def _export(card: ModelCard, seen_by: SeenBy, tell: Tell, image_size: tuple[int, int] | None) -> None:
    """The file appears, with its place, once it has passed as those of `export` must."""
    model, wanted = _card_of_kept(card, image_size)
    seen, place = seen_by(card, wanted), wanted.path.parent
    try:
        _remove_unused(place.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as folder:
            written = replace(wanted, path=Path(folder) / place.name / wanted.path.name)
            written.path.parent.mkdir()
            agreement = write_and_compare(model, written, seen.photos, seen.truths)
            if shortfalls := agreement.shortfalls("float32"):
                raise ExportError(
                    f"`runtime`: {card.runtime} does not give the answers of {card.path} ({'; '.join(shortfalls)}); "
                    "leave it out, or try another"
                )
            written.write_beside(model=card.path.name, compared=asdict(agreement))
            try:
                move_into_place(written.path.parent, place)
            except OSError:
                if not card.is_kept(image_size):  # by another process that was faster
                    raise
    except OSError as error:
        raise RunFolderError(
            f"{place.parent}: cannot be written ({error.strerror or error}), and `runtime` {card.runtime} needs "
            "a place to keep a file; leave it out, or name another folder for caches, such as by XDG_CACHE_HOME"
        ) from error
    tell(
        "exported",
        f"{card.path} for {card.runtime}, kept in {place.parent}; on {agreement.photos} photos ({seen.source}) "
        f"{agreement.equal_ids:.3%} of the pixels have the same class as by {keras.backend.backend()}, and no "
        f"probability differs by more than {agreement.difference:.1e}",
    )


def _card_of_kept(card: ModelCard, image_size: tuple[int, int] | None) -> tuple[keras.Model, ModelCard]:
    """The network, and what its file is to be: as it learnt, so that it can still be calibrated."""
    if card.gives not in (None, "logits"):
        raise ModelFileError(
            f"`runtime`: {card.path} gives {card.gives}, and not logits; give the run that it was exported from"
        )
    path = card.kept_file(image_size)
    wanted = replace(
        card, path=path, format=card.runtime or "", gives="logits", calibration=AS_LEARNT, learnt=None, runtime=None
    )
    check_format(wanted)
    model = card.keras_model()
    if card.kept_file(image_size) != path:  # a training may go on there
        raise ModelFileError(f"{card.path}: was replaced while it was read; run the same command again")
    palette, size = card.palette_of(max(2, model.output_shape[-1])), card.seen_size(model, image_size)
    bands, scale = card.bands_of(model), card.scale_of(model)
    return model, replace(wanted, palette=palette, image_size=size, bands=bands, scale=scale)


def _remove_unused(folder: Path) -> None:
    for path in folder.glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > MAX_AGE:
                shutil.rmtree(path)


def _fastest(
    card: ModelCard, seen_by: SeenBy, tell: Tell, image_size: tuple[int, int] | None, batch_size: int | None
) -> tuple[ModelCard, Segmenter]:
    """The network in the runtime that computes a batch of it in the least time, of those that can."""
    options = {"image_size": image_size, "batch_size": batch_size}
    cards, segmenters, missing = [card], [card.load(**options)], []
    if on_gpu():
        tell("runtime", f"keras, on {device_name()}; the others compute on the CPU")
        return card, segmenters[0]
    for runtime in KEPT:
        if not is_installed(RUNTIMES[runtime].module):
            missing.append(f"; {runtime} is not installed ({pip_install(RUNTIMES[runtime].extra)})")
            continue
        try:
            other = card.computed_by(runtime)
            keep(other, seen_by, tell, image_size)
            segmenters.append(other.load(**options))
            cards.append(other)
        except SemsegError as error:
            tell("note", f"{runtime} is not tried: {error}")
    best, reason = 0, "no other can be tried"
    if len(cards) > 1:
        best, reason = _choice([one.runtime or "keras" for one in cards], segmenters)
    tell("runtime", f"{cards[best].runtime or 'keras'}, {reason}{''.join(missing)}")
    return cards[best], segmenters[best]


def _choice(runtimes: Sequence[str], segmenters: Sequence[Segmenter]) -> tuple[int, str]:
    """Which of them is to compute, the first unless another is clearly faster, and why."""
    seconds = _seconds_per_batch(segmenters)
    best = min(range(len(seconds)), key=seconds.__getitem__)
    how = f"{seconds[0] / seconds[best]:.2f} times as fast as {keras.backend.backend()} here"
    if seconds[0] < MIN_SPEEDUP * seconds[best]:
        best, how = 0, f"none is {MIN_SPEEDUP} times as fast here"
    measured = ", ".join(f"{name} {1000 * each:.1f} ms" for name, each in zip(runtimes, seconds, strict=True))
    height, width = segmenters[0].image_size
    return best, f"{how}: {segmenters[0].batch_size} photos of {width}x{height} take {measured}"


def _seconds_per_batch(segmenters: Sequence[Segmenter]) -> list[float]:
    """The median of each, in turns, so that a machine that slows down slows all of them alike."""
    first = segmenters[0]
    shape = (first.batch_size, *first.image_size, first.bands.count)
    photos = np.random.default_rng(0).integers(0, 256, shape).astype(first.bands.array_dtype)
    for segmenter in segmenters:
        segmenter.predict_batch(photos)
    rounds: list[list[float]] = []
    end = time.perf_counter() + _SECONDS
    while not rounds or (len(rounds) < _ROUNDS and time.perf_counter() < end):
        rounds.append([_seconds(segmenter, photos) for segmenter in segmenters])
    return np.median(rounds, axis=0).tolist()


def _seconds(segmenter: Segmenter, photos: np.ndarray) -> float:
    start = time.perf_counter()
    segmenter.predict_batch(photos)
    return time.perf_counter() - start
