"""Every picture and page of a run. Takes arrays and plain values; the only room that imports matplotlib."""

from semseg.report.comparison import save_learning_curves, save_quality_cost
from semseg.report.data_page import save_data_page
from semseg.report.page import RunFacts, save_run_page, save_runs_page
from semseg.report.predictions import (
    save_doubtful,
    save_panels,
    save_ranked,
    save_side_by_side,
    save_suggestions,
    show_predictions,
)
from semseg.report.scores import save_confusion_matrix, save_reliability
from semseg.report.training import get_acc, save_batch

__all__ = [
    "RunFacts",
    "get_acc",
    "save_batch",
    "save_confusion_matrix",
    "save_data_page",
    "save_doubtful",
    "save_learning_curves",
    "save_panels",
    "save_quality_cost",
    "save_ranked",
    "save_reliability",
    "save_run_page",
    "save_runs_page",
    "save_side_by_side",
    "save_suggestions",
    "show_predictions",
]
