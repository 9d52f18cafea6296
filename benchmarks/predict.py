"""Prediction: a folder against a plain loop, exported files against their model, the memory of a large photo.

The plain loop is what one writes first: imread, `model.predict`, argmax, imwrite, a photo at a time. Both write masks
of ids only, with networks of 16 filters and 19 classes that see the photos at their own size. They take turns, three
times; the median of each counts, without start and loading of the model. Memory is the peak of the whole process tree
(/proc), for a U-Net that sees 256 x 256 pixels, overlay included.

One photo by our backend, by ONNX Runtime and by OpenVINO, of the same network: at 128 pixels in batches of 16 as a
folder's, and alone as `serve` computes them; at 512 pixels; and at 2048 pixels in tiles of 512, which the network sees
at 256. Each has one thread, and what counts is CPU seconds, the medians of rounds in turns: other programs on the
machine change neither.

A run is exported as ONNX and OpenVINO, in float32 and in int8, and `export` itself compares each file with the model on
the same photos, one at a time, with as many threads. Without `--run` a small network is trained on drawn scenes first.

    KERAS_BACKEND=torch python benchmarks/predict.py --run outputs

RESULT: folder is our photos per second over the plain loop's at each size; runtimes the speed of the faster of ONNX
Runtime and OpenVINO over our backend's, for one photo; export the fastest file's speed over the
model's; int8_miou_loss what the fastest file of 8 bits loses; tiled_mb the peak in 10^6 bytes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
sys.path.insert(0, os.environ["PYTHONPATH"])

import cv2
import keras
import numpy as np
from PIL import Image

from semseg.backend.devices import device_name, leave_tensorflow_out
from semseg.cli import commands
from semseg.data.demo import make_demo
from semseg.export.keeping import Seen, open_by
from semseg.inference.card import KEPT, ModelCard
from semseg.inference.files import Job, predict_files
from semseg.inference.segmenter import Segmenter, predict_ids
from semseg.inference.tiling import tiled_logits
from semseg.segmentation_model import Unet

CLASSES, FILTERS, ROUNDS = 19, 16, 3
SIDE = 20_000
TILE = 512
ONE_PHOTO = (  # what it is called, pixels of the photo, pixels that the network sees, photos in turn, at once, rounds
    ("128", "in batches of 16", 128, 128, 16, 16, 9),
    ("128alone", "alone", 128, 128, 1, 1, 25),
    ("512", "", 512, 512, 1, 1, 9),
    ("2048", "in tiles of 512", 2048, 256, 1, 4, 3),
)
NEEDED = ("onnx", "onnxruntime", "openvino")
EXPORTS = {"onnx": ".onnx", "openvino": ".xml"}


def draw(side: int, seed: int) -> np.ndarray:
    """Smooth colours with some noise, which JPEG treats as it treats a photo: uint8 `(side, side, 3)`."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(4, side // 100), max(4, side // 100), 3)).astype(np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def plain_loop(model: keras.Model, photos: list[Path], output: Path) -> None:
    output.mkdir(exist_ok=True)
    for path in photos:
        photo = cv2.imread(str(path))[..., ::-1]
        logits = model.predict(photo[None], verbose=0)
        cv2.imwrite(str(output / f"{path.stem}.png"), logits[0].argmax(axis=-1).astype(np.uint8))


def ours(model: Path, photos: list[Path], output: Path) -> Callable[[], None]:
    segmenter = ModelCard.read(model).load()
    jobs = [Job(path, {"masks": output / f"{path.stem}.png"}) for path in photos]

    def run() -> None:
        for _, result in predict_files(segmenter, jobs):
            if isinstance(result, Exception):
                raise result

    return run


def compare(folder: Path, side: int, count: int, rounds: int) -> float:
    """Our speed over the plain loop's; the masks must be the same."""
    photos = [folder / f"{side}_{i}.jpg" for i in range(count)]
    for i, path in enumerate(photos):
        cv2.imwrite(str(path), draw(side, i))
    model = Unet((side, side, 3), CLASSES, filters=FILTERS)
    model.save(folder / f"{side}_model.keras")
    plain = lambda: plain_loop(model, photos, folder / "plain")  # noqa: E731
    fast = ours(folder / f"{side}_model.keras", photos, folder / "ours")
    model.predict(np.zeros((1, side, side, 3), np.uint8), verbose=0)
    seconds = [(_seconds(plain), _seconds(fast)) for _ in range(rounds)]
    slow, quick = (statistics.median(times) for times in zip(*seconds, strict=True))
    same = np.mean(
        [_same(folder / "plain" / f"{path.stem}.png", folder / "ours" / f"{path.stem}.png") for path in photos]
    )
    print(f"{side:5} pixels: plain {count / slow:7.2f}, predict {count / quick:7.2f} photos per second, "
          f"{slow / quick:.2f} times; {same:.4%} of the pixels the same", flush=True)  # fmt: skip
    return slow / quick


def _same(one: Path, other: Path) -> float:
    return (np.asarray(Image.open(one)) == np.asarray(Image.open(other))).mean()


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def one_photo_apart(quick: bool) -> str:
    """Runs `one_photo` in a process of one thread; returns its last line."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import predict; predict.one_photo({quick})"
    last = ""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache}
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for last in process.stdout:
            print(last, end="", flush=True)
    if process.wait():
        raise RuntimeError(f"the process of one thread ended with {process.returncode}")
    return last.split()[-1]


def one_photo(quick: bool) -> None:
    """Prints CPU milliseconds of each runtime, and the best factors in a line that ends the process' output."""
    leave_tensorflow_out()
    cv2.setNumThreads(1)
    factors = []
    runtimes = KEPT[:1] if quick else KEPT
    names = "".join(f" {name:>13}" for name in runtimes)
    print(f"{'one photo, one thread':24} {keras.backend.backend():>10}{names}   CPU ms, times as fast", flush=True)
    for name, how, side, seen, count, batch_size, rounds in ONE_PHOTO[:1] if quick else ONE_PHOTO:
        photos, segmenters = (
            [draw(side, seed) for seed in range(count)],
            networks(seen, 4 if quick else FILTERS, batch_size, runtimes),
        )
        run = segment_tiles if seen < side else segment
        seconds = [[_cpu_seconds(run, one, photos) for one in segmenters] for _ in range(2 if quick else 1 + rounds)]
        slow, *others = (1000 * statistics.median(each[1:]) / count for each in zip(*seconds, strict=True))
        shown = "".join(f" {each:8.1f} {slow / each:4.2f}" for each in others)
        print(f"{f'{side} pixels {how}':24} {slow:10.1f}{shown}", flush=True)
        factors.append(f"{name}:{slow / min(others):.2f}")
    print(f"runtimes {','.join(factors)}", flush=True)


def networks(side: int, filters: int, batch_size: int, runtimes: Sequence[str]) -> list[Segmenter]:
    """One network, by our backend and by the others."""
    example = Seen([draw(side, 0)], None, "a drawn photo")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unet_model.keras"
        Unet((side, side, 3), CLASSES, filters=filters).save(path)
        card, options = ModelCard.read(path), {"batch_size": batch_size}
        return [open_by(card, one, lambda *_: example, lambda *_: None, **options)[1] for one in ("keras", *runtimes)]


def segment(segmenter: Segmenter, photos: list[np.ndarray]) -> None:
    options = {"image_size": segmenter.image_size, "batch_size": segmenter.batch_size}
    for _ in predict_ids(segmenter.predict_batch, photos, **options):
        pass


def segment_tiles(segmenter: Segmenter, photos: list[np.ndarray]) -> None:
    options = {"image_size": segmenter.image_size, "tile": (TILE, TILE), "batch_size": segmenter.batch_size}
    for photo in photos:
        for logits in tiled_logits(segmenter.predict_batch, [photo], photo.shape[:2], **options):
            logits.argmax(axis=-1)


def _cpu_seconds(function: Callable[[Segmenter, list[np.ndarray]], None], *arguments: object) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def train(folder: Path, quick: bool) -> Path:
    """A small run on drawn scenes."""
    make_demo(folder / "scenes", num_train=12 if quick else 200, num_val=4 if quick else 50)
    size = ["--image-size", "64", "--filters", "4", "--epochs", "1"] if quick else ["--epochs", "10"]
    output = folder / "run"
    if commands(["train", "--data", str(folder / "scenes"), "--cache", "none", "--output", str(output), *size]):
        raise RuntimeError("the training failed")
    return output


def exports(run: Path, folder: Path) -> tuple[float, float]:
    """Prints a table; returns the best factor in speed, and the loss of mean IoU of the fastest int8 file."""
    failed = []
    for name, suffix in EXPORTS.items():
        for flags in ((), ("--int8",)):
            target = folder / f"{name}{'_int8' * bool(flags)}{suffix}"
            if commands(["export", str(run), "--format", name, "--output", str(target), *flags]):
                failed.append(target.name)
    rows = []
    for name, entry in json.loads((folder / "export.json").read_text()).items():
        found = entry["compared"]
        before, after = found["milliseconds"]
        lost = found["iou"][0] - found["iou"][1]
        rows.append((entry["precision"], before / after, lost, name, before, after, found["equal_ids"]))
    print(f"{'file':20} {'torch ms':>9} {'file ms':>9} {'times':>6} {'equal ids':>10} {'IoU lost':>9}")
    for _, times, lost, name, before, after, equal in rows:
        print(f"{name:20} {before:9.1f} {after:9.1f} {times:6.1f} {equal:10.3%} {lost:9.4f}")
    for name in failed:
        print(f"{name:20} did not pass")
    int8 = [row[:3] for row in rows if row[0] == "int8"]
    return max(row[1] for row in rows), max(int8)[2] if int8 else float("nan")


def tiled_mb(folder: Path) -> float:
    """Peak memory of the command on a photo of `SIDE` x `SIDE`."""
    photo, model = folder / "large.jpg", folder / "large_model.keras"
    drawing = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cv2, predict; "
    drawing += f"cv2.imwrite({str(photo)!r}, predict.draw({SIDE}, 0))"
    subprocess.run([sys.executable, "-c", drawing], check=True)  # in a process of its own, which needs more
    Unet((256, 256, 3), CLASSES, filters=FILTERS).save(model)
    command = ["-m", "semseg", "predict", str(model), str(photo), "--output", str(folder / "tiled")]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command])
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _tree(process.pid))))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"predict ended with {process.returncode}")
    minutes = (time.perf_counter() - start) / 60
    print(f"{SIDE} x {SIDE}: {peak / 1e6:.0f} MB at most, {minutes:.1f} minutes", flush=True)
    return peak / 1e6


def _tree(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def _resident(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer and smaller photos")
    parser.add_argument("--run", type=Path, help="a finished run to export, whose data are still there")
    arguments = parser.parse_args()
    quick = arguments.quick
    needed = NEEDED if quick else (*NEEDED, "rasterio")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        parser.error(f"needs {', '.join(missing)}: pip install -r tests/requirements.txt")
    leave_tensorflow_out()
    print(f"Keras on {keras.backend.backend()}, {device_name()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speeds = {
            side: compare(folder, side, count, 1 if quick else ROUNDS)
            for side, count in (((128, 8), (512, 1)) if quick else ((256, 64), (1024, 8)))
        }
        best = one_photo_apart(quick)
        factor, loss = exports(arguments.run or train(folder, quick), folder)
        memory = None if quick else tiled_mb(folder)
    shown = ",".join(f"{side}:{speed:.2f}" for side, speed in speeds.items())
    peak = "-" if memory is None else f"{memory:.0f}"
    print(f"RESULT folder={shown} runtimes={best} export={factor:.2f} int8_miou_loss={loss:.4f} tiled_mb={peak}")


if __name__ == "__main__":
    main()
