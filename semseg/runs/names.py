"""Every name in a run folder, once.

Light, so that the command line can name files without loading anything.
"""

import os
from collections.abc import Collection
from fnmatch import fnmatchcase

CONFIG = "config.json"  # what was asked for, what was decided, and what it ran on
CLASSES = "classes.json"  # id, name, colour or value, and share of each class
SPLITS = "splits.csv"  # which photo was in which split
HISTORY = "results.csv"  # a row for each epoch
CURVES = "acc.png"
FIRST_BATCH = "train_batch.png"
ARCHITECTURE = "model_arch.png"
ARCHITECTURE_LAYERS = "model_arch_layers.png"
PREDICTION = "pred_{number}.png"
PICTURES = "report"  # the folder of the page's pictures
PICTURES_INDEX = "pictures.json"  # in that folder
REPORT = "report.html"
EVENTS = "tensorboard"  # the folder of event files
EVALUATION = "evaluation"  # the folder of `evaluate`
EXPORTS = "export.json"  # what the exported files beside it are
CALIBRATION = "calibration.json"  # temperature and threshold, chosen on validation photos
LEARNT_PHOTOS = "photos.npz"  # what the training photos were like
MODEL = "{name}_model.keras"
LAST_MODEL = "{name}_last.keras"  # the weights of the last epoch, when asked for
EPOCH_MODEL = "{name}_epoch_{epoch:03}.keras"  # and of every epoch
CHECKPOINTS = "checkpoints"  # the folder of states that a run that was cut short goes on from
STATE = "state-{epoch:05}-{batch:08}"  # with .npz, and .json for its manifest
STATE_BEST = "best-{epoch:05}.keras"  # the best weights that states know
STATE_PATTERN = r"state-\d{5,}-\d{8,}\.(npz|json)|best-\d{5,}\.keras"
FOLD = "fold_{number}"  # the folder of one run of a cross-validation
LOCK = ".semseg.lock"  # who writes there now
SUPERVISOR = f"{LOCK}.supervisor"  # who has others write there, each a part
LOG, FAILED_LOG = "log.txt", "log-failed.txt"  # of a run in a process of its own

METRICS = "metrics.json"  # every score, with intervals of the headline ones
PER_CLASS = "per_class.csv"
PER_IMAGE = "per_image.csv"
MATRIX = "confusion_matrix.csv"
MATRIX_PICTURE = "confusion_matrix.png"
CITYSCAPES = "cityscapes.json"  # in the form of cityscapesScripts
WORST, BEST = "worst.png", "best.png"
RELIABILITY = "reliability.png"

SUGGESTIONS_FOLDER = "suggestions"
SUGGESTIONS, SUGGESTIONS_PICTURE = "suggestions.csv", "suggestions.png"  # which photos to label next
DOUBTFUL, DOUBTFUL_PICTURE = "doubtful.csv", "doubtful.png"  # which labels to look at again

SCORE_FILES = (METRICS, PER_CLASS, PER_IMAGE, MATRIX, MATRIX_PICTURE, CITYSCAPES)
EVALUATION_FILES = (*SCORE_FILES, WORST, BEST, RELIABILITY)

# Files by which a folder shows that it holds results, and no data: those of a run, an evaluation, a page's pictures, a
# prediction, a check, a comparison and the labelling desk.
_OF_RESULTS = (
    {CONFIG, CLASSES, SPLITS}, {CONFIG, CLASSES, HISTORY}, {METRICS, PER_IMAGE}, {PICTURES_INDEX},
    {"predictions.json", "shares.csv"}, {"data.json", "data.png"}, {"comparison.json", "comparison.csv"},
    {SUGGESTIONS, SUGGESTIONS_PICTURE}, {DOUBTFUL, DOUBTFUL_PICTURE},
    {"corrections.json", CLASSES},
)  # fmt: skip


def holds_results(files: Collection[str]) -> bool:
    """Whether a folder with files of these names is one that semseg wrote results into.

    Args:
        files: Their names.

    Example:
        >>> holds_results(["config.json", "classes.json", "splits.csv", "pred_1.png"]), holds_results(["config.json"])
        (True, False)
    """
    return any(of_results <= set(files) for of_results in _OF_RESULTS)


def are_results_in(folder: str) -> bool:
    """Whether a folder, of however many files, is one that semseg wrote results into."""
    return any(all(os.path.exists(os.path.join(folder, name)) for name in of_results) for of_results in _OF_RESULTS)  # noqa: PTH110, PTH118


# What is made of a training when it is over, and what a run writes beside that and the model's own file.
OF_FINISHED = (
    *SCORE_FILES, PREDICTION.format(number="[0-9]"), CURVES, REPORT, f"{PICTURES}/*", f"{EVALUATION}/*", EXPORTS,
    CALIBRATION, LEARNT_PHOTOS,
)  # fmt: skip
RUN_FILES = (
    *OF_FINISHED, FIRST_BATCH, ARCHITECTURE, ARCHITECTURE_LAYERS, HISTORY, CLASSES, CONFIG, SPLITS, f"{EVENTS}/*",
    f"{CHECKPOINTS}/*",
)  # fmt: skip
OTHER_MODEL_ENDINGS = ("_last.keras", "_epoch_*.keras")
_COMPARED = ("curves.png", "quality_cost.png", "side_by_side.png")


def is_result(name: str) -> bool:
    """Whether a file of this name, in a folder that `holds_results`, is one of them."""
    return any(fnmatchcase(name, pattern) for pattern in (*RUN_FILES, *EVALUATION_FILES, "data.*", *_COMPARED))


# What `export` writes of a model, after the network's name.
EXPORTED_ENDINGS = tuple(
    f"_model{ending}"
    for ending in ("*.onnx", "*.xml", "*.bin", "*.tflite", "*.pt2", "*.h5", "_*.keras", "*_saved_model/**/*")
)
