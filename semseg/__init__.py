"""Semantic segmentation with U-Nets in Keras 3, on torch, TensorFlow or JAX.

Conventions that hold everywhere:

- N batch, H W height and width, C channels, K classes. Sizes are (height, width), coordinates (row, column).
- A photo is uint8 RGB `(H, W, 3)`, 0 to 255; the model scales its input itself.
- A mask is class ids `(H, W)`, 0 to K-1, and `IGNORE` (255) where a pixel counts nowhere.
- A model gives logits, `(N, H, W, K)`, or `(N, H, W, 1)` for the binary task.

`import semseg` loads neither Keras nor a backend; each public name loads its room when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

IGNORE = 255

_ROOM_OF_NAME = {
    "Unet": "segmentation_model",
    "bottleneck": "segmentation_model",
    "down_block": "segmentation_model",
    "up_block": "segmentation_model",
    "ARCHITECTURES": "architectures",
    "build_model": "architectures",
    "FastModel": "backend.fast_model",
    "Muon": "training.muon",
    "Recipe": "training.recipe",
    "prepare": "training.recipe",
    "get_model_arch": "model_arch",
    "Label": "labels.palettes",
    "Palette": "labels.palettes",
    "cityscapes_palette": "labels.palettes",
    "find_palette": "labels.palettes",
    "bin_image": "utils_func",
    "get_segmentation_arr": "utils_func",
    "give_color_to_seg_img": "utils_func",
    "load_images": "utils_func",
    "read_image": "utils_func",
    "LOSSES": "losses",
    "SegmentationLoss": "losses",
    "effective_number_weights": "losses",
    "inverse_frequency_weights": "losses",
    "ConfusionMatrix": "metrics.keras_metric",
    "confusion_matrix": "metrics.confusion",
    "class_counts": "metrics.confusion",
    "scores": "metrics.confusion",
    "bootstrap_intervals": "metrics.bootstrap",
    "expected_calibration_error": "metrics.calibration",
    "boundary_counts": "metrics.boundaries",
    "boundary_scores": "metrics.boundaries",
    "cityscapes_results": "metrics.cityscapes",
    "Augmentation": "data.augment",
    "Cache": "data.cache",
    "check_dataset": "data.check",
    "DATASETS": "data.finding.choosing",
    "data_generator": "data.batches",
    "ensure_demo": "data",
    "make_demo": "data.demo",
    "open_dataset": "data",
    "count_flops": "architectures.cost",
    "count_parameters": "architectures.cost",
    "compare_networks": "comparison.statistics",
    "Plan": "training.plan",
    "plan_run": "training.plan",
    "Run": "runs.run",
    "open_data": "data.opening",
    "open_model": "inference.card",
    "ModelCard": "inference.card",
    "group_runs": "comparison.networks",
    "evaluate_split": "evaluation.evaluate",
    "Segmenter": "inference.segmenter",
    "predict_ids": "inference.segmenter",
    "predictor": "backend.predictor",
    "get_acc": "report",
    "Object": "labels.objects",
    "clean_mask": "labels.cleaning",
    "find_objects": "labels.objects",
    "paint_errors": "labels.painting",
    "save_batch": "report",
    "save_confusion_matrix": "report",
    "save_data_page": "report",
    "save_panels": "report",
    "save_ranked": "report",
    "save_reliability": "report",
    "show_predictions": "report",
    "RunConfig": "runs.config",
    "make_batches": "training.loop",
    "train_model": "training.loop",
    "main": "cli",
    "open_run": "evaluation.opening",
}

__all__ = ["IGNORE", *sorted(_ROOM_OF_NAME)]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF_NAME:
        raise AttributeError(f"module 'semseg' has no attribute {name!r}")
    return getattr(import_module(f"semseg.{_ROOM_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOM_OF_NAME])
