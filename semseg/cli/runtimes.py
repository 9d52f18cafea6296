"""`--runtime`: a network in the runtime that is asked for, exported first if need be."""

from semseg.inference.card import ModelCard, needs_keras
from semseg.inference.segmenter import Segmenter


def open_network(
    card: ModelCard, runtime: str | None, image_size: tuple[int, int] | None, batch_size: int | None
) -> tuple[ModelCard, Segmenter]:
    """The card, which then names the runtime, and the network."""
    if runtime not in (None, "keras") and needs_keras(card.path, runtime, image_size):
        from semseg.cli.export import open_by_keras  # only where there is something to export

        return open_by_keras(card, runtime, image_size, batch_size)
    card = card.computed_by(None if runtime == "auto" else runtime)
    return card, card.load(image_size=image_size, batch_size=batch_size)
