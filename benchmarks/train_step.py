"""One training step of the U-Net: semseg, stock Keras layers and hand-written PyTorch, in turn in one process.

A step is all that `fit` does with a batch of 8 uint8 photos and their class ids: cross-entropy and Dice, gradients,
AdamW, the confusion matrix, and the loss as a number. Each way in which a backend can compile is a row of its own.
PyTorch is written as an expert would: channels-last memory, ReLU in place, fused AdamW, and torch.compile of network
and loss where a row says so. Memory is what a process of its own grows by over three steps; with PyTorch on a GPU, the
peak there.

    KERAS_BACKEND=torch python benchmarks/train_step.py

RESULT gives geometric means over the cases of PyTorch's time over ours, each uncompiled (eager) and compiled; of our
peak memory over PyTorch's; and of the best stock setting's time over that of our best.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import torch
from by_hand.unet import TorchUnet, torch_loss

from semseg import IGNORE
from semseg.architectures import build_model
from semseg.architectures.cost import count_flops, peak_memory_mb
from semseg.backend.devices import device_name, leave_tensorflow_out
from semseg.losses import SegmentationLoss
from semseg.metrics.keras_metric import ConfusionMatrix
from semseg.training.loop import TrainingModel

CLASSES, BATCH = 19, 8
PATIENCE = 100  # seconds of a case
BACKEND = keras.backend.backend()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [(16, 128), (16, 256), (64, 128), (64, 256)]
CASES_ON_GPU = [(filters, size) for filters in (16, 32, 64) for size in (256, 512)]
# Of Keras: whether the whole step is compiled by it (jit_compile); on PyTorch ours is compiled otherwise.
MODES = {"torch": (False,), "tensorflow": (False, True), "jax": (True,)}[BACKEND]
Step = Callable[[], float]


def arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (BATCH, size, size, 3), np.uint8)
    truth = rng.integers(0, CLASSES, (BATCH, size, size)).astype(np.uint8)
    truth[:, : size // 16] = IGNORE
    return photos, truth


def pytorch(filters: int, size: int, precision: str, compiled: bool) -> Step:
    photos, truth = arrays(size)
    network = TorchUnet(filters).to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    matrix = torch.zeros(CLASSES * CLASSES, dtype=torch.int64, device=DEVICE)
    low = precision != "float32"

    def logits_and_loss(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=low):
            logits = network(x)
        return logits, torch_loss(logits, y)

    forward = torch.compile(logits_and_loss) if compiled else logits_and_loss

    def step() -> float:
        x = torch.from_numpy(photos).to(DEVICE).permute(0, 3, 1, 2)
        y = torch.from_numpy(truth).to(DEVICE).long()
        logits, loss = forward(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            counted = y != IGNORE
            cells = y[counted] * CLASSES + logits.argmax(1)[counted]
            matrix.add_(torch.bincount(cells, minlength=CLASSES * CLASSES))
        return loss.item()

    return step


class StockModel(keras.Model):
    """Keras as it comes, with the same loss and metric."""

    def __init__(self, inputs, outputs, loss: SegmentationLoss, num_classes: int):
        super().__init__(inputs, outputs)
        self.segmentation_loss, self.confusion_matrix = loss, ConfusionMatrix(num_classes)

    compute_loss, compute_metrics = TrainingModel.compute_loss, TrainingModel.compute_metrics


def with_keras(filters: int, size: int, precision: str, compiled: bool, stock: bool) -> Step:
    photos, truth = arrays(size)
    loss = SegmentationLoss("cross_entropy+dice")
    if stock:
        keras.config.set_dtype_policy(precision)
    network = build_model("unet", (size, size, 3), CLASSES, filters=filters)
    keras.config.set_dtype_policy("float32")
    if stock:
        model = StockModel(network.inputs[0], network.outputs[0], loss, CLASSES)
        optimizer = keras.optimizers.AdamW(1e-3, weight_decay=1e-4)
    else:
        from semseg.backend.kernels import ADAMW

        low = precision.removeprefix("mixed_")
        model = TrainingModel(network.inputs[0], network.outputs[0], loss, CLASSES, precision=low)
        optimizer = ADAMW(1e-3, weight_decay=1e-4)
    model.compile(optimizer, jit_compile=compiled and BACKEND != "torch")
    if compiled and not stock:
        model.compile_graph(photos)
    return lambda: model.train_on_batch(photos, truth)[0]


def contenders(with_compiled: bool) -> dict[str, tuple[Callable[..., Step], dict]]:
    """Name to the function that makes its step, and its options besides filters, size and precision."""
    found = {"PyTorch": (pytorch, {"compiled": False})}
    if with_compiled:
        found["PyTorch compiled"] = (pytorch, {"compiled": True})
    for name, stock in (("stock Keras", True), ("semseg", False)):
        for mode in MODES if stock or BACKEND != "torch" else (False, True):
            if BACKEND != "torch" or not mode or with_compiled:
                label = f"{name} compiled" if mode else name
                found[label] = (with_keras, {"compiled": mode, "stock": stock})
    return found


def median_seconds(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds, after two in which backends compile and caches fill; slow steps get three.

    Each round has its own order: what a contender leaves behind, such as freed memory, slows the one that comes next.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    rng = np.random.default_rng(0)
    for turn in range(rounds + 2):
        if turn >= 5 and sum(map(sum, seconds.values())) > PATIENCE:
            break
        for name in rng.permutation(list(steps)):
            start = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


def grown_memory(name: str, filters: int, size: int, precision: str) -> float:
    """MB (10^6 bytes) that three steps take, in a process of its own."""
    code = [sys.executable, __file__, "--memory-of", json.dumps([name, filters, size, precision])]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_grown_memory(name: str, filters: int, size: int, precision: str) -> None:
    make, options = contenders(with_compiled=True)[name]
    step = make(filters, size, precision, **options)
    before = peak_memory_mb()
    for _ in range(3):
        step()
    print(peak_memory_mb() - before)


def memory_on_gpu(name: str, filters: int, size: int, precision: str) -> float:
    """MB (10^6 bytes) that the network, its optimiser and three steps take on the GPU, of PyTorch's own count."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    make, options = contenders(with_compiled=True)[name]
    step = make(filters, size, precision, **options)
    for _ in range(3):
        step()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def matrix_rate(precision: str) -> float:
    """Multiplications and additions per second of a large matrix product: what the device can do."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    side = 8192 if DEVICE == "cuda" else 2048
    a = torch.ones(side, side, dtype=dtype, device=DEVICE)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[2:])


def measure(filters: int, size: int, precision: str, rounds: int, with_compiled: bool) -> dict[str, dict[str, float]]:
    """Of each contender: `ms` per step, and `mb` of those that are not compiled or cannot be otherwise."""
    ways = contenders(with_compiled)
    on_gpu = DEVICE == "cuda" and BACKEND == "torch"
    mb = {name: memory_on_gpu(name, filters, size, precision) for name in ways if on_gpu and "compiled" not in name}
    steps = {name: make(filters, size, precision, **options) for name, (make, options) in ways.items()}
    rows = {name: {"ms": 1000 * seconds} for name, seconds in median_seconds(steps, rounds).items()}
    for name in rows:
        if f"{name} compiled" in rows or "compiled" not in name or BACKEND == "jax":
            rows[name]["mb"] = mb[name] if mb else grown_memory(name, filters, size, precision)
    return rows


def show(filters: int, size: int, precision: str, rows: dict[str, dict[str, float]]) -> None:
    flops = 3 * BATCH * count_flops(build_model("unet", (size, size, 3), CLASSES, filters=filters))
    rate = matrix_rate(precision)
    print(f"\n{filters} filters, {BATCH} photos of {size} x {size}, {precision}")
    print(f"{'':22}{'ms':>9}{'photos/s':>10}{'of PyTorch':>12}{'matrix rate':>13}{'MB':>8}{'of PyTorch':>12}")
    for name, row in rows.items():
        seconds = row["ms"] / 1000
        speed, share = rows["PyTorch"]["ms"] / row["ms"], flops / seconds / rate
        line = f"{name:22}{row['ms']:9.1f}{BATCH / seconds:10.1f}{speed:12.3f}{share:13.1%}"
        print(line + (f"{row['mb']:8.0f}{row['mb'] / rows['PyTorch']['mb']:12.3f}" if "mb" in row else ""), flush=True)


def result(table: list[dict[str, dict[str, float]]]) -> str:
    def mean_ratio(of: Callable[[dict], float]) -> str:
        return f"{math.exp(statistics.fmean(math.log(of(rows)) for rows in table)):.3f}"

    def best(rows: dict, name: str) -> float:
        return min(row["ms"] for label, row in rows.items() if label in (name, f"{name} compiled"))

    ours = [name for name in ("semseg", "semseg compiled") if name in table[0]]
    uncompiled, compiled = ours[0], ours[-1]
    against = "PyTorch compiled" if "PyTorch compiled" in table[0] else None
    eager = mean_ratio(lambda rows: rows["PyTorch"]["ms"] / rows[uncompiled]["ms"])
    both = mean_ratio(lambda rows: rows[against]["ms"] / rows[compiled]["ms"]) if against else "not_measured"
    memory = mean_ratio(lambda rows: rows[uncompiled]["mb"] / rows["PyTorch"]["mb"])
    stock = mean_ratio(lambda rows: best(rows, "stock Keras") / best(rows, "semseg"))
    return f"RESULT eager={eager} compiled={both} memory={memory} stock={stock}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 filters at 64 pixels, nothing compiled by PyTorch")
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed_bfloat16"))
    parser.add_argument("--cases", help="filters x size, such as 16x128,64x256 (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    leave_tensorflow_out()
    if arguments.memory_of:
        print_grown_memory(*json.loads(arguments.memory_of))
        return
    cases = CASES_ON_GPU if DEVICE == "cuda" else CASES
    if arguments.cases:
        cases = [tuple(int(number) for number in case.split("x")) for case in arguments.cases.split(",")]
    rounds = arguments.rounds
    if arguments.quick:
        cases, rounds = [(4, 64)], 5
    print(f"{BACKEND}, Keras {keras.__version__}, torch {torch.__version__}, {device_name()}")
    table = []
    for filters, size in cases:
        rows = measure(filters, size, arguments.precision, rounds, with_compiled=not arguments.quick)
        show(filters, size, arguments.precision, rows)
        table.append(rows)
        torch.compiler.reset()
    print("\n" + result(table))


if __name__ == "__main__":
    main()
