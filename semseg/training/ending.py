"""How a training came to its end: which weights are kept, and why there were no more epochs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from semseg.runs.config import RunConfig
from semseg.runs.spent import Spent
from semseg.training.averaging import Averaged
from semseg.training.callbacks import BEST_BY


@dataclass(frozen=True)
class Ending:
    """A training that is over.

    Args:
        history: From `train_model`.
        config: What was asked for, its epochs decided.
        seconds: That it took.
        averaged: What became of the averaged weights.
        spent: What it took; None where nobody measured it.
    """

    history: Sequence[dict[str, float]]
    config: RunConfig
    seconds: float
    averaged: Averaged = field(default_factory=Averaged)
    spent: Spent | None = None

    @property
    def best_epoch(self) -> int:
        """From 1; the first of several that are as good."""
        return int(max(self.history, key=lambda row: row[BEST_BY])["epoch"])

    @property
    def is_early(self) -> bool:
        """Whether it ended before its last epoch."""
        return len(self.history) < self.config.epochs

    @property
    def weights(self) -> str:
        """Which weights are kept, in words."""
        return "averaged weights" if self.averaged.is_kept else f"weights of epoch {self.best_epoch}"

    @property
    def length(self) -> str:
        """Epochs and seconds, in words."""
        epochs = f"{len(self.history)} of {self.config.epochs}" if self.is_early else str(self.config.epochs)
        asked = "" if self.config.minutes is None else f" of {60 * self.config.minutes:.0f}"
        return f"{epochs} epochs in {self.seconds:.0f}{asked} s"

    @property
    def waiting(self) -> str:
        """How much of the time went by waiting for data, in words; empty after one epoch."""
        if len(self.history) < 2:
            return ""
        waiting, all_time = (sum(row[name] for row in self.history[1:]) for name in ("waiting", "seconds"))
        return f"; after the first, {waiting / all_time:.1%} of the time went by waiting for data"

    def lines(self) -> Iterator[tuple[str, str]]:
        """Topics, and what is to be said of them."""
        if self.is_early:
            yield "early stop", self._early
        if self.averaged.score is not None:
            yield "averaged", str(self.averaged)

    @property
    def _early(self) -> str:
        patience = f"{self.config.early_stop} epochs without a better validation than that of epoch {self.best_epoch}"
        return f"after epoch {len(self.history)} of {self.config.epochs}: {patience}"

    def facts(self) -> dict[str, Any]:
        """What the run's record says of it, as plain values."""
        facts: dict[str, Any] = {"best_epoch": self.best_epoch, "training_seconds": round(self.seconds, 1)}
        if self.is_early:
            facts["early_stop"] = self._early
        if self.averaged.score is not None:
            facts["averaged"] = str(self.averaged)
        if self.spent:
            facts["spent"] = self.spent.to_dict()
        if self.averaged.is_kept:
            facts["weights"] = self.weights
        return facts
