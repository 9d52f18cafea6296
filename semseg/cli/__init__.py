"""The commands: the only reader of argv, and the only printer."""

import argparse
import errno
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from semseg import __version__
from semseg.cli.checking import check
from semseg.cli.comparing import SEEDS, compare
from semseg.cli.console import printable
from semseg.cli.evaluating import evaluate
from semseg.cli.exporting import export
from semseg.cli.output import DISK_FULL
from semseg.cli.predicting import predict
from semseg.cli.reporting import REPORT_FILE, SEVERAL, report
from semseg.cli.serving import serve
from semseg.cli.training import train
from semseg.config import RunConfig
from semseg.errors import ResourceError, RunFolderError, SemsegError


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, as `main.py` does; returns the exit code."""
    parser = _Parser(prog="main.py", description=_DESCRIPTION)
    _add_training_flags(parser)
    return _guarded(train, parser, argv)


def commands(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m semseg <command>`; returns the exit code."""
    parser = _Parser(prog="semseg", description="Semantic segmentation with U-Nets in Keras 3.")
    parser.add_argument("--version", action="version", version=f"semseg {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    training = subparsers.add_parser("train", help="train a network", description=_DESCRIPTION)
    _add_training_flags(training)
    training.set_defaults(function=train)
    checking = subparsers.add_parser("check", help="look at photos and masks before training", description=_CHECKS)
    checking.add_argument("data", metavar="DIR", help="folder, archive, or kaggle:owner/name")
    _add_data_flags(checking)
    checking.set_defaults(output=f"{RunConfig.output}/check")
    checking.set_defaults(function=check)
    evaluating = subparsers.add_parser("evaluate", help="judge a trained network", description=_EVALUATES)
    _add_evaluation_flags(evaluating)
    evaluating.set_defaults(function=evaluate)
    comparing = subparsers.add_parser("compare", help="which network is better", description=_COMPARES)
    _add_comparison_flags(comparing)
    comparing.set_defaults(function=compare, output=f"{RunConfig.output}/compare")
    reporting = subparsers.add_parser("report", help="one page about a run, or several", description=_REPORTS)
    reporting.add_argument("runs", metavar="RUN", nargs="+", help="folders of finished runs")
    reporting.add_argument("--output", metavar="FILE", help=f"the page (default: RUN/{REPORT_FILE}; for several runs "
                           f"{SEVERAL})")  # fmt: skip
    reporting.set_defaults(function=report)
    exporting = subparsers.add_parser("export", help="a file that runs without Keras", description=_EXPORTS)
    _add_export_flags(exporting)
    exporting.set_defaults(function=export)
    predicting = subparsers.add_parser("predict", help="masks for photos and videos", description=_PREDICTS)
    _add_prediction_flags(predicting)
    predicting.set_defaults(function=predict)
    serving = subparsers.add_parser("serve", help="try a network in the browser", description=_SERVES)
    _add_serving_flags(serving)
    serving.set_defaults(function=serve)
    return _guarded(lambda arguments: arguments.function(arguments), parser, argv)


_DESCRIPTION = """Trains a network to name the class of every pixel, from a folder of photos and masks. Without --data
and without pictures in images/, a small drawn demo set is made there first. Open outputs/report.html afterwards."""
_CHECKS = """Looks at every file of a data set; says what is in there and what is wrong. Writes data.png, data.json and
a classes.json that can be edited and given to --classes."""
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


_REPORTS = """Writes one HTML file that opens offline in any browser: scores, curves, classes, confusion matrix, photos
with a slider between truth, prediction and errors, settings, and the commands to go on with. Several runs give one page
side by side. It is made from what lies in the run's folder: neither data nor model are needed."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def _flag(parser: argparse.ArgumentParser, name: str, metavar: str, text: str, **options: Any) -> None:
    if "default" not in options:
        options["default"] = getattr(RunConfig, name.removeprefix("--").replace("-", "_"))
    if options["default"] is None:
        text = text.replace("%(default)s", "as in its run")
    parser.add_argument(name, metavar=metavar, help=text, **options)


def _add_training_flags(parser: argparse.ArgumentParser, one_network: bool = True) -> None:
    flag = functools.partial(_flag, parser)
    flag("--data", "DIR", "folder of photos and masks, an archive of it, or kaggle:owner/name (default: %(default)s)")
    _add_data_flags(parser)
    if one_network:
        flag("--model", "NAME", "network, or module:function of a builder of your own (default: %(default)s)")
    flag("--encoder", "NAME", "of encoder_unet: a network of keras.applications, such as ResNet50")
    flag("--encoder-weights", "WHICH", "of encoder_unet: imagenet, none, or a file (default: imagenet)")
    flag("--seed", "N", "the same seed gives the same run (default: %(default)s)", type=int)
    flag("--epochs", "N", "times that every training photo is seen (default: %(default)s)", type=int)
    flag("--batch-size", "N", "photos per step (default: 4, fewer in short runs)", type=int)
    flag("--learning-rate", "X", "learning rate at the start (default: %(default)s)", type=float)
    flag("--image-size", "SIZE", f"pixels that the network sees: 192, or height x width such as 192x256 (default: "
         f"{RunConfig.image_size[0]})", type=_image_size)  # fmt: skip
    flag("--filters", "N", "channels of the first block, the width of the network (default: %(default)s)", type=int)
    flag("--loss", "NAME", "ce (cross_entropy), bce (binary_cross_entropy), dice, iou (jaccard), tversky, focal, "
         "focal_tversky, lovasz, or a sum like ce+dice (default: %(default)s)")  # fmt: skip
    flag("--class-weights", "HOW", "none; inverse or effective: rare classes weigh more in the loss; or numbers: "
         "1,2,.5 for all classes, pole=3,car=2 for some (default: %(default)s)")  # fmt: skip
    flag("--label-smoothing", "X", "share of the truth that cross_entropy spreads over all classes, such as 0.1 "
         "(default: %(default)s)", type=float)  # fmt: skip
    flag("--augment", "CHANGES", "none, or what differs from the default: rotation=10,vertical_flip=0.5 (default: "
         "suits the data)")  # fmt: skip
    flag("--test-split", "NAME", "split that gives the final scores (default: test where the data have one, else val)")
    flag("--precision", "NAME", "compute in float32, mixed_bfloat16 (half the memory, fast on new GPUs and CPUs) or "
         "mixed_float16 (older GPUs); files stay float32 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="compile the network first: a minute, then faster steps")
    flag("--accumulate", "N", "batches whose gradients make one step, for more photos per step than fit into memory "
         "(default: %(default)s)", type=int)  # fmt: skip
    parser.add_argument("--remat", action="store_true", help="less memory for more time, for big photos")
    parser.add_argument("--sample-rare", action="store_true", help="show photos with rare classes more often")
    flag("--backend", "NAME", "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)", default=None)


def _add_comparison_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="*", help="folders of finished runs, the first as the baseline")
    parser.add_argument("--models", metavar="A,B", help="networks to train, the first as the baseline")
    parser.add_argument(
        "--seeds", metavar="N", type=int, default=SEEDS, help="runs of each network (default: %(default)s)"
    )
    parser.add_argument("--minutes", metavar="M", type=float,
                        help="time for each run in place of --epochs: as many whole epochs as fit")  # fmt: skip
    _add_training_flags(parser, one_network=False)
    for action in parser._actions:  # compare fills the defaults in: it must know what was given
        if action.dest not in ("help", "runs", "output"):
            action.help, action.default = action.help.replace("%(default)s", str(action.default)), None


def _add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or the folder of a run")
    flag = functools.partial(_flag, parser, default=None)
    flag("--data", "DIR", "photos with masks (default: those of the model's run)")
    _add_data_flags(parser, of_run=True)
    flag("--test-split", "NAME", "split to judge, or all (default: test where the data have one, else val)")
    flag("--flips", "HOW", "horizontal, or both: average over mirrored photos, too (default: as they are)")
    flag("--image-size", "SIZE", "pixels that the network sees, if it takes any size", type=_image_size)
    flag("--batch-size", "N", "photos per step (default: by what the network sees)", type=int)
    flag("--backend", "NAME", "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)")


def _add_export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or the folder of a run")
    flag = functools.partial(_flag, parser, default=None)
    flag("--format", "NAME", "onnx, openvino, litert, tf_saved_model, torch, keras or h5", required=True)
    parser.add_argument(
        "--gives", choices=("logits", "probabilities", "ids"), default="logits",
        help="what comes out of the file: the network's own logits, probabilities, or ids (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="8-bit arithmetic, calibrated on training photos")
    flag("--data", "DIR", "photos with masks to compare on (default: those of the model's run)")
    flag("--image-size", "SIZE", "pixels that the network sees, if it takes any size", type=_image_size)
    flag("--output", "FILE", "where the file goes (default: beside the model)")
    flag("--backend", "NAME", "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)")


def _add_prediction_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or the folder of a run")
    parser.add_argument("what", metavar="WHAT", help="a photo, a folder, a pattern such as 'photos/*.jpg', a video, "
                        "or a camera's number")  # fmt: skip
    flag = functools.partial(_flag, parser, default=None)
    flag("--output", "DIR", "where the results go (default: %(default)s)", default=f"{RunConfig.output}/predictions")
    flag("--tile", "SIZE", "see photos in overlapping tiles of so many of their pixels, such as 512 or 384x512, in "
         "place of whole", type=_image_size)  # fmt: skip
    flag("--flips", "HOW", "horizontal, or both: average over mirrored photos, too (default: as they are)")
    flag("--scales", "A,B", "average over photos at several sizes, such as 0.75,1,1.25 (default: as they are)")
    parser.add_argument("--values", action="store_true", help="also masks of the numbers that your own masks hold")
    parser.add_argument("--colors", action="store_true", help="also masks in the classes' colours")
    parser.add_argument("--probabilities", action="store_true", help="also the probability of every class (.npy)")
    parser.add_argument("--no-overlays", action="store_true", help="no pictures of the classes over the photo")
    flag("--image-size", "SIZE", "pixels that the network sees, if it takes any size", type=_image_size)
    flag("--batch-size", "N", "photos or tiles per step (default: by what the network sees)", type=int)
    flag("--workers", "N", "threads that load photos, and as many that write (default: %(default)s)", type=int,
         default=RunConfig.workers)  # fmt: skip
    flag("--backend", "NAME", "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)")


def _add_serving_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a .keras file, or the folder of a run")
    flag = functools.partial(_flag, parser, default=None)
    flag("--port", "N", "of the page's address; 0 for any that is free (default: %(default)s)", type=int, default=8000)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    flag("--image-size", "SIZE", "pixels that the network sees, if it takes any size", type=_image_size)
    flag("--backend", "NAME", "torch, tensorflow or jax (default: KERAS_BACKEND, else what is installed)")


def _add_data_flags(parser: argparse.ArgumentParser, of_run: bool = False) -> None:
    """The flags of all commands that open data; `of_run`: without defaults, those of a model's run are to be taken."""
    flag = functools.partial(_flag, parser, **({"default": None} if of_run else {}))
    flag("--dataset", "NAME", "cityscapes, carvana, folder or pairs (default: what the folder looks like)")
    flag("--classes", "K", "number of classes, or an edited classes.json (default: found in the masks)", type=_classes)
    parser.add_argument("--categories", action="store_true", help="Cityscapes: its 7 categories, not its 19 classes")
    flag("--limit", "N", "use at most N photos of each split, for a quick try (default: all)", type=int)
    parser.add_argument("--skip-bad", action="store_true", help="go on without files that cannot be used")
    parser.add_argument("--allow-leaks", action="store_true", help="go on when a photo is in two splits")
    flag("--split-seed", "N", "draws the validation split where the data have none (default: %(default)s)", type=int)
    flag("--workers", "N", "threads that load photos ahead (default: %(default)s)", type=int)
    flag("--cache", "DIR", "where decoded photos are kept for the next run, or none (default: the user's cache folder)")
    flag("--output", "DIR", "where the results go (default: %(default)s)")


def _classes(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


def _image_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected one number, or height x width such as 192x256")
    return int(sides[0]), int(sides[-1])


def _guarded(
    command: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Runs a command; what the user can mend becomes one line and an exit code, and only bugs leave a traceback."""
    arguments = parser.parse_args(argv)
    try:
        command(arguments)
    except SemsegError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        trained = "; what was finished before is in the output folder" if hasattr(arguments, "epochs") else ""
        return _fail(f"stopped by Ctrl-C{trained}", 130)
    except OSError as error:
        if error.errno in DISK_FULL:
            where = error.filename or getattr(arguments, "output", "disk")
            return _fail(f"{where}: no space left; free some or choose another --output", ResourceError.exit_code)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _fail(
                f"{error.filename}: {error.strerror}; choose a place that can be written", RunFolderError.exit_code
            )
        raise
    except Exception as error:
        if not _out_of_memory(error):
            raise
        return _fail("out of memory; use a smaller --batch-size, --image-size or --filters", ResourceError.exit_code)
    return 0


def _out_of_memory(error: Exception) -> bool:
    """Also where a backend says so in words of its own, which is known where one was loaded."""
    if isinstance(error, MemoryError) or "keras" not in sys.modules:
        return isinstance(error, MemoryError)
    from semseg.distribute import out_of_memory

    return out_of_memory(error)


def _fail(message: str, code: int) -> int:
    print("error: " + printable(" ".join(message.split()), sys.stderr.encoding), file=sys.stderr)
    return code
