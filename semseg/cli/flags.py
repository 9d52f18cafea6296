"""The flags of all commands. Light: nothing heavy is loaded to read them, or to show their help."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from semseg import __version__
from semseg.errors import RunFolderError, SemsegError
from semseg.runs import names
from semseg.runs.config import SECTIONS, RunConfig, read_config, section_of

SEEDS = 3  # runs of each network that `compare` trains
CHECK_OUTPUT = f"{RunConfig.output}/check"
COMPARE_OUTPUT = f"{RunConfig.output}/compare"
CONVERT_OUTPUT = f"{RunConfig.output}/converted"
PREDICTIONS_OUTPUT = f"{RunConfig.output}/predictions"
SUGGESTIONS_OUTPUT = f"{RunConfig.output}/{names.SUGGESTIONS_FOLDER}"
SUGGESTED = 20  # photos that `suggest` names
RUNS_PAGE = f"{RunConfig.output}/runs.html"

_TITLES = {"speed": "speed and memory"}  # of sections whose name does not say all
_TRAINS = f"""Trains a network to name the class of every pixel, from a folder of photos and masks. Without --data and
without pictures in images/, a small drawn demo set is made there first. Open {RunConfig.output}/{names.REPORT}
afterwards."""
_PLANS = """Says what a run would do, without training: what the check finds in the data, and everything that the run
would decide by itself, each with its reason. Takes the flags of train."""
_CHECKS = """Looks at every file of a data set; says what is in there and what is wrong. Writes data.png, data.json and
a classes.json that can be edited and given to --classes."""
_CONVERTS = (
    """Writes the masks of a data set, or of predictions, in the form of an annotation tool, with their photos."""
)
_EVALUATES = """Judges a trained network on the masks of a data set: every score with its interval, per class and per
photo, the worst and the best photos, and how sure it may be believed. Writes to evaluation/ beside the model."""
_EXPORTS = """Writes a trained network as a file that other runtimes run without Keras: photos in, scaling inside. The
file and the network are shown the same photos, and it appears only if it gives the same answers."""
_COMPARES = """Trains several networks with several seeds under equal conditions, or takes the folders of finished runs,
and says which is better and whether that is more than chance. The same command goes on after it was stopped."""
_PREDICTS = """Gives every pixel of photos, of a video or of a camera its class: masks of ids, overlays with a legend,
and a table of the classes' shares. The same command goes on where it was stopped."""
_SERVES = """Opens a page, on this computer and for it alone, where one drops photos and sees what the network makes
of them. Scripts can POST an image file to /segment (JSON) or /mask (PNG). Ctrl-C ends it."""
_SUGGESTS = """Says which unlabelled photos to label next: those that a network is unsure of, or several disagree on,
and that are unlike each other; with pre-labels to mend. With --labels it says which labels to look at again: those that
a network which was not trained on them is sure are wrong."""
_REPORTS = """Writes one HTML file that opens offline in any browser: scores, curves, classes, confusion matrix, photos
with a slider between truth, prediction and errors, settings, and the commands to go on with. Several runs give one page
side by side. It is made from what lies in the run's folder: neither data nor model are needed."""
_BACKEND = "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)"
_CALIBRATES = (
    "on the validation photos how sure the network may be and, of two classes, from where on a pixel is of the second; "
    "all commands keep to it"
)
_MODEL = "a model's file, the folder of a run, or one of several runs that answer together"
_FLIPS = "horizontal, or both: average over mirrored photos, too (default: as they are)"
_RUNTIME = "what computes the network: keras, onnx, openvino, or auto for the fastest of them here (default: keras)"
_SEEN_SIZE = "pixels that the network sees, if it takes any size"


_OTHER_NAMES = {"num_classes": "classes", "palette": "classes", "format": "runtime"}  # parameters that share a flag


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all flags; takes no flag for one that it begins like."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args=None, namespace=None):
        """Ends the program where an argument is unknown, as the command knows what is meant, and no other parser."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._doubts_of(unknown))
        return known, unknown

    def _doubts_of(self, unknown: list[str]) -> str:
        if unknown[0] in _COMMANDS:
            return f"{self.prog} has no commands; run python -m semseg {' '.join(unknown)}"
        flag, flags = unknown[0].partition("=")[0], list(self._option_string_actions)
        message = f"unrecognized arguments: {' '.join(unknown)}"
        for action in self._actions:
            if not action.option_strings and f"--{action.dest}" == flag:
                return f"{message}; {action.metavar} is given by itself here, without {flag}"
        alike = [other for other in flags if other.startswith(flag)] or get_close_matches(flag, flags, 2)
        return f"{message}; did you mean {' or '.join(alike)}?" if flag.startswith("--") and alike else message

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"error: {message}; see --help\n".replace("?; see", "? See"))

    @property
    def flags(self) -> dict[str, str]:
        """The flag, or the name of the argument, by which each parameter of the library is given."""
        flags = {action.dest: (*action.option_strings, action.dest)[0] for action in self._actions}
        return flags | {name: flags[other] for name, other in _OTHER_NAMES.items() if other in flags}


def training_parser() -> Parser:
    """The parser of `main.py`, which trains."""
    parser = Parser(prog="main.py", description=_TRAINS)
    _add_training_flags(parser)
    parser.set_defaults(command="train", parser=parser)
    return parser


def build_parser() -> Parser:
    """The parser of `python -m semseg <command>`."""
    parser = Parser(prog="semseg", description="Semantic segmentation with U-Nets in Keras 3.")
    parser.add_argument("--version", action="version", version=f"semseg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (summary, description, add_flags) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=description)
        add_flags(command)
        command.set_defaults(parser=command)
    return parser


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run that flags gave a value; both epochs and minutes are a `SemsegError`."""
    given = {name: value for name, value in vars(arguments).items() if name in RunConfig.__dataclass_fields__}
    if "epochs" not in given:
        return given
    if "minutes" in given:
        raise SemsegError(f"--minutes: got {given['minutes']:g} and --epochs {given['epochs']}; give only one of them")
    return {**given, "minutes": None}  # in place of those in a file


def asked_run(arguments: argparse.Namespace) -> RunConfig:
    """The run that flags ask for, on top of the settings in the file that `--config` names.

    Raises:
        RunFolderError: The file is not there, of a later form, or holds settings that are not known.
        SemsegError: A setting makes no sense.
    """
    if getattr(arguments, "resume", None):
        return _resumed_run(arguments)
    if arguments.config is None:
        return RunConfig(**given_settings(arguments))
    file = Path(arguments.config)
    if not file.is_file():
        raise RunFolderError(f"--config: got {arguments.config!r}; expected a file such as outputs/{names.CONFIG}")
    return replace(read_config(file)[0], **given_settings(arguments))


def _resumed_run(arguments: argparse.Namespace) -> RunConfig:
    """The run in the folder that `--resume` names, wherever it lies now, with what flags change."""
    clashing = [name for name in ("config", "restart", "folds") if getattr(arguments, name)]
    given = given_settings(arguments)
    if "init" in given:
        clashing.append("init")
    if Path(given.pop("output", arguments.resume)).resolve() != Path(arguments.resume).resolve():
        clashing.append("output")
    if clashing:
        raise SemsegError(f"--resume: got {arguments.resume!r} and --{clashing[0]}; give only one of them")
    folder = Path(arguments.resume)
    if not folder.is_dir():
        raise RunFolderError(f"--resume: got {arguments.resume!r}; expected the folder of a run that was cut short")
    return replace(read_config(folder / names.CONFIG)[0], **given, output=arguments.resume)


def to_flags(config: RunConfig, without_defaults: bool = False) -> list[str]:
    """The flags of `train` that ask for a run.

    Args:
        config: The run.
        without_defaults: Leave those out that have their default.

    Example:
        >>> to_flags(RunConfig(image_size=(64, 96), remat=True), without_defaults=True)
        ['--image-size', '64x96', '--remat']
    """
    flags = []
    for name, value in asdict(config).items():
        if value is None or value is False or (without_defaults and value == getattr(RunConfig, name)):
            continue
        if name == "epochs" and config.minutes is not None:
            continue
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags.append("x".join(map(str, value)) if name == "image_size" else str(value))
    return flags


# -------------------------------------------------------------------------------------------- settings of a run

_SHOW = "bands that pictures show as red, green and blue, from 1 on (default: what looks natural)"
# In the order of their sections; in the help text %(default)s is the default of `RunConfig`.
_SETTINGS: dict[str, tuple[str, str]] = {
    "data": ("DIR", "folder of photos and masks, archive, address or kaggle:owner/name (default: %(default)s)"),
    "dataset": ("NAME", "form of the data, as folder, coco or yolo (default: what the folder looks like)"),
    "photos": ("WHERE", "folder of the photos in it, or a pattern such as '*/*_sat.png' (default: found by looking)"),
    "masks": ("WHERE", "the same for the masks"),
    "ignore_outside": ("WHERE", "the same for pictures that are black where pixels count nowhere: fields of view"),
    "corrections": ("DIR", "masks from the labelling desk (serve --edit) in place of the data's own"),
    "instances": ("", "numbers or colours in the masks count objects, all of one class"),
    "show": ("A,B,C", _SHOW),
    "classes": ("K", "number of classes, or an edited classes.json (default: found in the masks)"),
    "categories": ("", "Cityscapes: its 7 categories, not its 19 classes"),
    "test_split": ("NAME", "split that gives the final scores (default: test where the data have one, else val)"),
    "split_seed": ("N", "draws the validation split where the data have none (default: %(default)s)"),
    "fold": ("K/N", "validate on the K-th of N parts of the photos, as one of the runs of --folds N does"),
    "limit": ("N", "use at most N photos of each split, for a quick try (default: all)"),
    "skip_bad": ("", "go on without files that cannot be used"),
    "allow_leaks": ("", "go on when a photo is in two splits"),
    "cache": ("DIR", "where decoded photos are kept for the next run, or none (default: the user's cache folder)"),
    "model": ("NAME", "network, or module:function of a builder of your own "
              "(default: %(default)s, what suits the data)"),
    "encoder": ("NAME", "of encoder_unet: EfficientNetLite0 or 2, or a network of keras.applications such as ResNet50"),
    "encoder_weights": ("WHICH", "of encoder_unet: imagenet, none, or a file (default: imagenet)"),
    "image_size": ("SIZE", "pixels that the network sees: 192, or height x width such as 192x256 (default: what keeps "
                   "thin classes, at least 128)"),
    "view": ("HOW", "whole: photos resized to --image-size; crops: pieces of that size (default: crops where whole "
             "photos would lose thin classes)"),
    "scale": ("X", "of photos that crops are cut from, 0.5 for half their size (default: what keeps thin classes)"),
    "filters": ("N", "channels of the first block, the width of the network (default: %(default)s)"),
    "init": ("RUN", "start from the weights of a run, or of a model's file: other classes, bands and sizes will do"),
    "freeze": ("WHAT", "weights that stay as they are: none, encoder, or N of its levels, from the photo on (default: "
               "what suits the network)"),
    "epochs": ("N", "times that every training photo is seen (default: %(default)s)"),
    "minutes": ("M", "time for the training in place of --epochs: as many whole epochs as fit"),
    "batch_size": ("N", "photos per step (default: 4, fewer in short runs)"),
    "accumulate": ("N", "batches that make one step, for more photos than fit into memory (default: %(default)s)"),
    "learning_rate": ("X", "learning rate at the start (default: %(default)s)"),
    "loss": (
        "NAME", "ce (cross_entropy), bce (binary_cross_entropy), dice, iou (jaccard), tversky, focal, focal_tversky, "
        "lovasz, cl_dice (cldice, for lines), or a sum like ce+dice (default: %(default)s)",
    ),
    "class_weights": (
        "HOW", "none; inverse or effective: rare classes weigh more in the loss; or numbers: 1,2,.5 for all classes, "
        "pole=3,car=2 for some (default: %(default)s)",
    ),
    "label_smoothing": ("X", "share of the truth that is spread over all classes, as 0.1 (default: %(default)s)"),
    "augment": (
        "CHANGES", "none, or what differs from the default: rotation=10,vertical_flip=0.5 (default: suits the data)",
    ),
    "sample_rare": ("", "show photos with rare classes more often"),
    "early_stop": ("N", "end after N epochs without a better validation (default: train them all)"),
    "calibrate": ("", f"choose at the end {_CALIBRATES}"),
    "average": ("", "try the average of the last weights at the end, and keep it if no epoch was as good"),
    "seed": ("N", "the same seed gives the same run (default: %(default)s)"),
    "backend": ("NAME", _BACKEND),
    "precision": (
        "NAME", "compute in float32, mixed_bfloat16 (half the memory, fast on new GPUs and CPUs) or mixed_float16 "
        "(older GPUs); files stay float32 (default: %(default)s)",
    ),
    "compile": ("", "compile the network first: a minute, then faster steps"),
    "remat": ("", "less memory for more time, for big photos"),
    "devices": ("N", "GPUs of this computer that train together, with JAX or TensorFlow (default: one)"),
    "workers": ("N", "threads that load photos ahead (default: %(default)s)"),
    "output": ("DIR", "where the results go (default: %(default)s)"),
    "keep": ("WHICH", "weights that stay: best; last: also the last epoch's, and the state to train on; every: of each "
             "epoch (default: %(default)s)"),
    "checkpoint_minutes": ("M", "between two states to go on from (default: as often as costs 1 %% of the time)"),
}  # fmt: skip
_OF_DATA = (
    "dataset", "photos", "masks", "ignore_outside", "corrections", "instances", "show", "classes", "categories",
    "split_seed", "limit", "skip_bad", "allow_leaks", "cache", "workers", "output",
)  # fmt: skip


def _add_settings(parser: argparse.ArgumentParser, settings: Sequence[str], **texts: str) -> None:
    """Flags of settings, grouped by section; those that are not given leave no trace among the arguments.

    `texts` of the help take the place of the usual ones where a command understands a setting in another way.
    """
    for section in SECTIONS:
        of_section = [name for name in settings if section_of(name) == section]
        if not of_section:
            continue
        group = parser.add_argument_group(_TITLES.get(section, section))
        for name in of_section:
            metavar, usual = _SETTINGS[name]
            text = texts.get(name, usual).replace("%(default)s", str(getattr(RunConfig, name)))
            flag, options = "--" + name.replace("_", "-"), {"default": argparse.SUPPRESS, "help": text}
            if metavar:
                group.add_argument(flag, metavar=metavar, type=_type_of(name), **options)
            else:
                group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)


def _type_of(name: str) -> Any:
    special = {"classes": _classes, "image_size": size}
    annotation = RunConfig.__dataclass_fields__[name].type
    kinds = getattr(annotation, "__args__", (annotation,))
    return special.get(name) or next(kind for kind in (int, float, str) if kind in kinds)


def _classes(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def size(text: str) -> tuple[int, int]:
    """(height, width) from one number, or from `192x256`."""
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected one number, or height x width such as 192x256")
    return int(sides[0]), int(sides[-1])


# ------------------------------------------------------------------------------------------------------- commands


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help=f"settings of an earlier run, {RunConfig.output}/{names.CONFIG} for example; "
        "flags beside it change them",
    )  # fmt: skip
    add = parser.add_argument
    add("--resume", metavar="DIR", nargs="?", const=RunConfig.output,
        help=f"go on with the run in a folder that was cut short (default: {RunConfig.output})")  # fmt: skip
    add("--restart", action="store_true", help="begin again where a run was cut short")
    add("--folds", metavar="N", type=int, help="cross-validation: N runs, each of which holds out another part of the "
        "photos")  # fmt: skip
    add("--time-limit", metavar="TIME", help="end in time, such as 90m, 2h or 1:30:00, with the state "
        "saved and exit code 75: go on")  # fmt: skip
    _add_settings(parser, list(_SETTINGS))


def _add_plan_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DIR", nargs="?", default=argparse.SUPPRESS,
                        help="folder, archive, address, or kaggle:owner/name (default: images)")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="settings of an earlier run; flags beside it change them")
    _add_settings(parser, [name for name in _SETTINGS if name not in ("data", "output", "devices")])


def _add_check_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DIR", help="folder, archive, address, or kaggle:owner/name")
    _add_settings(parser, (*_OF_DATA, "image_size"), output=f"where the results go (default: {CHECK_OUTPUT})")


def _add_convert_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DIR", help="folder of photos with masks or outlines, or of predictions")
    parser.add_argument("--to", metavar="FORM", required=True, help="coco, yolo, labelme or masks")
    _add_settings(parser, [name for name in _OF_DATA if name not in ("split_seed", "allow_leaks", "cache", "workers")],
                  output=f"a folder that is not there yet (default: {CONVERT_OUTPUT})")  # fmt: skip


def _add_compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="*", help="folders of finished runs, the first as the baseline")
    parser.add_argument("--models", metavar="A,B", help="networks to train, the first as the baseline")
    parser.add_argument("--seeds", metavar="N", type=int, help=f"runs of each network (default: {SEEDS})")
    parser.add_argument("--devices", metavar="WHICH", help="one run at a time on each: all GPUs, how many, or their "
                        "numbers as 0,1,3; without a GPU, how many runs side by side (default: 1)")  # fmt: skip
    parser.add_argument("--part", metavar="K/N", help="train every N-th run alone, from the K-th on: so do several "
                        "commands, as of a Slurm array, share them")  # fmt: skip
    _add_settings(parser, [name for name in _SETTINGS if name not in ("model", "devices", "fold")],
                  minutes="time for each run in place of --epochs: as many whole epochs as fit",
                  output=f"where the results go (default: {COMPARE_OUTPUT})")  # fmt: skip


def _add_evaluate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--flips", metavar="HOW", help=_FLIPS)
    parser.add_argument("--calibrate", action="store_true", help=f"choose {_CALIBRATES}")
    _add_runtime(parser)
    _add_settings(
        parser, ("data", *_OF_DATA, "test_split", "image_size", "batch_size", "backend"),
        data="photos with masks (default: those of the model's run)",
        dataset="form of the data (default: as in its run; of other data what they look like)",
        classes="number of classes, or a classes.json (default: that of the model's run)",
        split_seed="draws the validation split where the data have none (default: as in its run)",
        output="where the results go (default: evaluation/ beside the model)", image_size=_SEEN_SIZE,
        test_split="split to judge, or all (default: test where the data have one, else val)",
        batch_size="photos per step (default: by what the network sees)",
    )  # fmt: skip


def _add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--format", metavar="NAME", required=True,
                        help="onnx, openvino, litert, tf_saved_model, torch, keras or h5")  # fmt: skip
    parser.add_argument(
        "--gives", choices=("logits", "probabilities", "ids"), default="logits",
        help="what comes out of the file: the network's own logits, probabilities, or ids (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="8-bit arithmetic, calibrated on training photos")
    parser.add_argument("--data", metavar="DIR", default=argparse.SUPPRESS,
                        help="photos with masks to compare on (default: those of the model's run)")  # fmt: skip
    parser.add_argument("--output", metavar="FILE", help="where the file goes (default: beside the model)")
    _add_seen_size_and_backend(parser)


def _add_predict_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("what", metavar="WHAT", help="a photo, a folder, a pattern such as 'photos/*.jpg', a list "
                        "(.txt, a photo in each line), an address of these, a video, or a camera's number")  # fmt: skip
    add = parser.add_argument
    add("--output", metavar="DIR", default=PREDICTIONS_OUTPUT,
        help="where the results go, a folder or its address (default: %(default)s)")  # fmt: skip
    add("--tile", metavar="SIZE", type=size, help="see photos in overlapping tiles of so many of their pixels, such as "
        "512 or 384x512, in place of whole")  # fmt: skip
    add("--flips", metavar="HOW", help=_FLIPS)
    add("--scales", metavar="A,B", help="average over photos at several sizes, such as 0.75,1,1.25 (default: as they "
        "are)")  # fmt: skip
    add("--values", action="store_true", help="also masks of the numbers that your own masks hold")
    add("--colors", action="store_true", help="also masks in the classes' colours")
    add("--probabilities", action="store_true", help="also the probability of every class (.npy)")
    add("--certainty", action="store_true", help="also pictures of how sure it is of each pixel's class, 0 to 255 for "
        "0 to 100 %%")  # fmt: skip
    add("--threshold", metavar="T", type=float, help="of two classes: the probability above which a pixel is of the "
        "second (default: 0.5, or as calibrated)")  # fmt: skip
    add("--unsure", metavar="P", type=float, help="pixels whose class has a lower probability get none: 255 in masks")
    add("--no-overlays", action="store_true", help="no pictures of the classes over the photo")
    add("--polygons", metavar="FORMAT", help="also outlines: geojson, coco, yolo or labelme")
    add("--tolerance", metavar="PX", type=float, help="simplify outlines by so many pixels, 0 for the borders of "
        "pixels (default: 0.4)")  # fmt: skip
    add("--objects", metavar="A,B", help="also a table of the connected objects of these classes (all: of all but the "
        "background), and how many each photo has")  # fmt: skip
    add("--min-area", metavar="N", type=int, help="objects of fewer pixels become what is around them")
    add("--fill-holes", action="store_true", help="holes in objects become part of them")
    add("--watershed", action="store_true", help="part objects that touch, such as cells")
    add("--show", metavar="A,B,C", help=_SHOW)
    add("--shard", metavar="K/N", help="predict part K of N, beside other processes that predict the others into the "
        "same folder; auto: as the launcher says")  # fmt: skip
    add("--ray", metavar="ADDRESS", nargs="?", const="auto", help="predict on the workers of a Ray cluster, such as "
        "host:6379 (default: the one that is here, else one of this computer alone)")  # fmt: skip
    add("--batch-size", metavar="N", type=int, help="photos or tiles per step (default: by what the network sees)")
    _add_runtime(parser)
    add("--workers", metavar="N", type=int, default=RunConfig.workers,
        help="threads that load photos, and as many that write (default: %(default)s)")  # fmt: skip
    _add_seen_size_and_backend(parser)


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of finished runs")
    parser.add_argument("--output", metavar="FILE",
                        help=f"the page (default: RUN/{names.REPORT}; for several runs {RUNS_PAGE})")  # fmt: skip


def _add_serve_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--port", metavar="N", type=int, default=8000,
                        help="of the page's address; 0 for any that is free (default: %(default)s)")  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="of the interface, 0.0.0.0 for all: "
                        "others need the token then (default: %(default)s, this computer alone)")  # fmt: skip
    parser.add_argument("--token-file", metavar="FILE", help="a file with the secret that whoever asks must know "
                        "(default: SEMSEG_TOKEN in the environment)")  # fmt: skip
    parser.add_argument("--workers", metavar="N", type=int, default=1,
                        help="processes that answer, each with its own network (default: %(default)s)")  # fmt: skip
    parser.add_argument("--edit", metavar="PHOTOS", help="a folder of photos, with or without masks: the page becomes "
                        "a labelling desk")  # fmt: skip
    parser.add_argument("--corrections", metavar="DIR", help="where the desk saves masks, for train --corrections "
                        "(default: PHOTOS_corrections)")  # fmt: skip
    parser.add_argument("--show", metavar="A,B,C", help=_SHOW)
    _add_runtime(parser)
    _add_seen_size_and_backend(parser)


def _add_seen_size_and_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image-size", metavar="SIZE", type=size, help=_SEEN_SIZE)
    parser.add_argument("--backend", metavar="NAME", help=_BACKEND)


def _add_runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime", choices=("keras", "onnx", "openvino", "auto"), help=_RUNTIME)


def _add_suggest_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("what", metavar="PHOTOS", nargs="?", help="a folder of photos, or a pattern such as "
                        "'photos/*.jpg'; those that the run knows are left out")  # fmt: skip
    add = parser.add_argument
    add("--labels", action="store_true", help="in place of photos: which labels of the run's own data to look at again")
    add("--count", metavar="N", type=int, default=SUGGESTED, help="photos to suggest, or labels to draw (default: "
        "%(default)s)")  # fmt: skip
    add("--polygons", metavar="FORMAT", help="also outlines of the pre-labels: coco, labelme, geojson or yolo")
    add("--output", metavar="DIR", default=SUGGESTIONS_OUTPUT, help="where the results go (default: %(default)s)")
    _add_seen_size_and_backend(parser)


_COMMANDS = {
    "train": ("train a network", _TRAINS, _add_training_flags),
    "check": ("look at photos and masks before training", _CHECKS, _add_check_flags),
    "convert": ("masks to outlines, and back", _CONVERTS, _add_convert_flags),
    "plan": ("what a run would do, and why", _PLANS, _add_plan_flags),
    "evaluate": ("judge a trained network", _EVALUATES, _add_evaluate_flags),
    "compare": ("which network is better", _COMPARES, _add_compare_flags),
    "report": ("one page about a run, or several", _REPORTS, _add_report_flags),
    "export": ("a file that runs without Keras", _EXPORTS, _add_export_flags),
    "predict": ("masks for photos and videos", _PREDICTS, _add_predict_flags),
    "suggest": ("what to label next, or to look at again", _SUGGESTS, _add_suggest_flags),
    "serve": ("try a network in the browser", _SERVES, _add_serve_flags),
}
