"""The scores of a split as a table on the terminal."""

from collections.abc import Sequence

from semseg.cli.console import cell, percent, say, say_about
from semseg.evaluation.evaluate import Evaluation
from semseg.metrics.confusion import PER_CLASS_SCORES

COLUMNS = (*PER_CLASS_SCORES, "boundary_iou")
NO_CELL = " " * 12


def say_scores(evaluation: Evaluation, names: Sequence[str], headline: str) -> None:
    """Prints the scores of every class, their means, and the headline scores with their intervals."""
    scores, intervals = evaluation.scores, evaluation.intervals
    pixels = evaluation.matrix.sum(axis=1)
    width = max(map(len, (*names, "weighted")))
    say(f"\n{headline}")
    say(f"{'class':{width}}  {'pixels':>7}  " + " ".join(f"{name.replace('_', ' '):>12}" for name in COLUMNS))
    for i, name in enumerate(names):
        share = percent(pixels[i] / max(1, pixels.sum()))
        say(f"{name:{width}}  {share:>7}  " + " ".join(f" {cell(scores[score][i])}" for score in COLUMNS))
    for kind in ("macro", "micro", "weighted"):
        values = [scores.get(f"{kind}_{score}") for score in COLUMNS]
        cells = " ".join(NO_CELL if value is None else f" {cell(value)}" for value in values)
        say(f"{kind:{width}}  {'':>7}  {cells}")
    ranges = {name: f"{low:.3f} to {high:.3f}" for name, (low, high) in intervals.items()}
    say(f"accuracy {scores['accuracy']:.4f} ({ranges['accuracy']}), mean IoU {scores['macro_iou']:.4f} "
        f"({ranges['macro_iou']}), mean Dice {scores['macro_dice']:.4f} ({ranges['macro_dice']})")  # fmt: skip
    say_about("", "in brackets: 95 % intervals, by drawing the photos anew")
    distance, before = evaluation.median_distance, evaluation.scores_as_learnt
    say(f"borders within {distance} pixel{'s' if distance > 1 else ''}: boundary IoU "
        f"{scores['macro_boundary_iou']:.4f}, boundary F {scores['macro_boundary_f']:.4f}; "
        f"calibration error {scores['calibration_error']:.4f}")  # fmt: skip
    if before is not None:
        say(f"without calibration: accuracy {before['accuracy']:.4f}, mean IoU {before['macro_iou']:.4f}, mean Dice "
            f"{before['macro_dice']:.4f}, calibration error {before['calibration_error']:.4f}")  # fmt: skip
