"""Every picture and page of a run. Takes arrays and plain values; the only room that imports matplotlib.

Names are loaded when first used: who has pictures drawn by another process need not wait for matplotlib.
"""

from importlib import import_module
from typing import Any

_MODULE_OF_NAME = {
    "RunFacts": "page",
    "get_acc": "training",
    "save_batch": "training",
    "save_confusion_matrix": "scores",
    "save_data_page": "data_page",
    "save_doubtful": "predictions",
    "save_learning_curves": "comparison",
    "save_panels": "predictions",
    "save_quality_cost": "comparison",
    "save_ranked": "predictions",
    "save_reliability": "scores",
    "save_run_page": "page",
    "save_runs_page": "page",
    "save_side_by_side": "predictions",
    "save_suggestions": "predictions",
    "show_predictions": "predictions",
}

__all__ = list(_MODULE_OF_NAME)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module 'semseg.report' has no attribute {name!r}")
    return getattr(import_module(f"semseg.report.{_MODULE_OF_NAME[name]}"), name)
