"""Every picture of a run. Takes arrays and plain values; the only room that imports matplotlib."""

from semseg.report.data_page import save_data_page
from semseg.report.painting import WRONG, overlay, paint, paint_errors
from semseg.report.predictions import show_predictions
from semseg.report.scores import save_confusion_matrix
from semseg.report.training import get_acc, save_batch

__all__ = [
    "WRONG",
    "get_acc",
    "overlay",
    "paint",
    "paint_errors",
    "save_batch",
    "save_confusion_matrix",
    "save_data_page",
    "show_predictions",
]
