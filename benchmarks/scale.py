"""What several processes cost and bring: measured here with 1 and 2, predicted for 1 to 256 GPUs.

`python benchmarks/scale.py` trains the U-Net by 1 and by 2 processes of one thread each, every one on as many photos as
the other, and compares photos per second: `efficiency2` is 1 where the exchange costs nothing. `difference` is how far
the first gradient of two processes is from that of one on the same photos, relative to its length. `--quick` takes
fewer and smaller steps.

The model behind the table: a step takes what it takes alone, and then, one after the other,

- the mean of the gradients, a ring over n processes: 2 (n - 1) / n times their bytes over the slowest link's bandwidth;
- the small sums of losses, batch normalisation and scores: as many as were counted here, each with a latency for every
  doubling of n, that of the network beyond one computer of 8 GPUs.

Nothing overlaps, as in semseg itself, and nobody waits for slower ones or for data. Bandwidths are the published ones,
of one direction, and latencies those of NCCL's tests: NVLink 450 GB/s, 100 Gb/s and 400 Gb/s a computer, 10 and 20
microseconds. A GPU's step time is yours to give: `--step-ms`, with `--gradient-mb` of the network that you train.

Here, for two processes, all of it is measured: bandwidth, what a small sum takes in the midst of work, where a process
has to be woken up and waits for the slower one, and a step of two processes that exchange nothing. This one is slower
than that of one alone: they share caches and memory, and batch normalisation that can be shared costs more arithmetic.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PER_COMPUTER = 8  # GPUs
NVLINK, NVLINK_LATENCY, NETWORK_LATENCY = 450e9, 10e-6, 20e-6  # bytes a second, seconds
NETWORKS = {"100 Gb/s": 12.5e9, "400 Gb/s": 50e9}  # bytes a second of a computer
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PAUSE = 3  # steps that are not timed


def predicted_seconds(step: float, processes: int, size: float, sums: float, bandwidth: float, latency: float) -> float:
    """A step of several processes.

    Args:
        step: Seconds that it takes alone.
        processes: How many there are.
        size: Bytes of the gradients.
        sums: Small sums in a step.
        bandwidth: Bytes a second of the slowest link.
        latency: Seconds for each doubling of the processes.

    Example:
        >>> predicted_seconds(0.1, 2, 1e9, 0, 1e10, 0)  # a tenth of a second for 1 GB over 10 GB/s
        0.2
    """
    ring = 2 * (processes - 1) / processes * size / bandwidth
    return step + ring + sums * latency * (processes - 1).bit_length()


def main() -> None:
    """Starts the processes and prints what they measured, and what follows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--step-ms", type=float, default=100.0, help="of one GPU (default: %(default)s)")
    parser.add_argument("--gradient-mb", type=float, default=124.0, help="4 bytes a weight (default: the U-Net's of 64 "
                        "filters, %(default)s)")  # fmt: skip
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        work(json.loads(os.environ["SCALE"]))
        return
    settings = {"size": 64, "filters": 8, "photos": 4, "steps": 8} if arguments.quick else {
        "size": 128, "filters": 16, "photos": 4, "steps": 30}  # fmt: skip
    one, two = (measured(count, settings) for count in (1, 2))
    efficiency = one["step"] / two["step"]
    predicted = predicted_seconds(two["apart"], 2, two["bytes"], two["sums"], two["bandwidth"], two["latency"])
    print(f"{settings['photos']} photos of {settings['size']} pixels and one thread in each process, {os.cpu_count()} "
          "cores")  # fmt: skip
    print(f"1 process    {1e3 * one['step']:8.1f} ms a step")
    sums = f"{two['sums']} small sums of {1e6 * two['latency']:.0f} us"
    size = f"{two['bytes'] / 1e6:.1f} MB of gradients at {two['bandwidth'] / 1e9:.2f} GB/s"
    print(f"2 processes  {1e3 * two['step']:8.1f} ms a step, predicted {1e3 * predicted:.1f} ms: "
          f"{1e3 * two['apart']:.1f} ms without exchange, {sums}, {size}")  # fmt: skip
    say_prediction(arguments.step_ms / 1e3, 1e6 * arguments.gradient_mb, two["sums"])
    print(f"RESULT efficiency2={efficiency:.3f} predicted2={one['step'] / predicted:.3f} "
          f"difference={two['difference']:.1e}")  # fmt: skip


def say_prediction(step: float, size: float, sums: int) -> None:
    """Prints the efficiency of GPUs on one computer and on several."""
    print(f"\npredicted: GPUs of {1e3 * step:.0f} ms a step, {size / 1e6:.0f} MB of gradients, {sums} small sums")
    print(f"{'GPUs':>5}" + "".join(f"{name:>12}" for name in NETWORKS))
    for count in COUNTS:
        cells = []
        for bandwidth in NETWORKS.values():
            near = count <= PER_COMPUTER
            link, latency = (NVLINK, NVLINK_LATENCY) if near else (bandwidth, NETWORK_LATENCY)
            cells.append(f"{step / predicted_seconds(step, count, size, sums, link, latency):>12.1%}")
        print(f"{count:>5}" + "".join(cells))


def measured(processes: int, settings: dict) -> dict:
    """What the first of so many processes found."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        common = {"WORLD_SIZE": processes, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": 1,
                  "SCALE": json.dumps({**settings, "output": str(output)}), "KERAS_BACKEND": "torch"}  # fmt: skip
        started = []
        for rank in range(processes):
            of_rank = {name: str(value) for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
            started.append(subprocess.Popen([sys.executable, __file__], env={**os.environ, **of_rank}))
        if any(process.wait() for process in started):
            raise SystemExit(f"{processes} processes: one of them failed")
        return json.loads(output.read_text(encoding="utf-8"))


def work(settings: dict) -> None:
    """One process: trains on its own part of each batch, and measures."""
    sys.path.insert(0, str(ROOT))
    import numpy as np
    import torch

    from semseg.backend.devices import leave_tensorflow_out
    from semseg.backend.processes import join, leave

    leave_tensorflow_out()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    photos, size = settings["photos"], settings["size"]
    x = rng.integers(0, 256, (2 * photos, size, size, 3)).astype("uint8")
    y = rng.integers(0, 8, (2 * photos, size, size)).astype("uint8")
    first = os.environ["RANK"] == "0"
    several = os.environ["WORLD_SIZE"] != "1"
    alone = first_gradient(settings, x, y) if several and first else None
    here = join()
    own = slice(here.rank * photos, (here.rank + 1) * photos)
    here.own_photos, here.photos = photos, photos * here.count
    trained, _ = network(settings)
    found = {"step": timed_steps(settings, trained, x[own], y[own])}
    if several:
        together = first_gradient(settings, x[own], y[own])
        sums = counted_sums()
        found |= {"sums": sums, **links(together.nbytes // 2, found["step"], sums, settings["steps"])}  # it is float64
        with exchanging(lambda x, how="SUM": x):
            found["apart"] = timed_steps(settings, trained, x[own], y[own])
        if alone is not None:
            found["difference"] = float(np.linalg.norm(together - alone) / np.linalg.norm(alone))
    leave()
    if first:
        Path(settings["output"]).write_text(json.dumps(found), encoding="utf-8")


def network(settings: dict, dtype: str = "float32"):
    """The U-Net, compiled, with what spies on its gradients."""
    import keras
    import numpy as np

    from semseg.backend.processes import train_together
    from semseg.losses import SegmentationLoss
    from semseg.segmentation_model import Unet
    from semseg.training.loop import TrainingModel
    from semseg.training.muon import Muon

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    plain = Unet((settings["size"], settings["size"], 3), 8, filters=settings["filters"])
    keras.config.set_dtype_policy("float32")
    trained = TrainingModel(plain.inputs[0], plain.outputs[0], SegmentationLoss("ce+dice"), 8)
    trained.compile(Muon(0.001), jit_compile=False)
    seen: list = []
    apply = trained.optimizer.apply

    def spy(gradients, variables):
        if not seen:
            seen.append(np.concatenate([gradient.double().numpy().ravel() for gradient in gradients]))
        apply(gradients, variables)

    trained.optimizer.apply = spy
    train_together(trained)
    return trained, seen


def first_gradient(settings: dict, x, y):
    """The gradient of a new network on a batch, float64 `(weights,)`: in float32 a rounding may make it jump."""
    trained, seen = network(settings, "float64")
    trained.train_on_batch(x, y)
    return seen[0]


def timed_steps(settings: dict, trained, x, y) -> float:
    """The least seconds of a step, as others may be at work on this computer."""
    seconds = []
    for _ in range(settings["steps"] + PAUSE):
        began = time.perf_counter()
        trained.train_on_batch(x, y)
        seconds.append(time.perf_counter() - began)
    return min(seconds[PAUSE:])


def links(size: int, step: float, sums: int, tries: int) -> dict:
    """What a small sum adds to the work of a step with so many, and the bandwidth for gradients of so many bytes."""
    import torch
    import torch.distributed as dist

    from semseg.backend.processes import first

    small, large = torch.ones(64), torch.ones(size // 4)
    x, weight = torch.ones(1, 8, 64, 64), torch.ones(8, 8, 3, 3)

    def busy() -> None:
        for _ in range(rounds):
            torch.conv2d(x, weight)

    rounds = 100
    rounds = first(lambda: max(1, round(rounds * step / sums / least(busy, tries))))
    with_sums = least(lambda: (busy(), dist.all_reduce(small)), tries, sums)
    bandwidth = size / max(least(lambda: dist.all_reduce(large), 2 * tries), 1e-9)
    return {"bytes": size, "latency": with_sums - least(busy, tries, sums), "bandwidth": bandwidth}


def least(do, tries: int, repeats: int = 1) -> float:
    """Seconds of one call, the least mean of some in a row."""
    means = []
    for _ in range(tries):
        began = time.perf_counter()
        for _ in range(repeats):
            do()
        means.append((time.perf_counter() - began) / repeats)
    return min(means)


@contextmanager
def exchanging(reduce):
    """Within, processes exchange by another function."""
    from semseg.backend import processes

    before, processes._reduce = processes._reduce, reduce
    yield before
    processes._reduce = before


def counted_sums() -> int:
    """Sums over processes in one step besides that of the gradients."""
    import numpy as np

    from semseg.backend.processes import here

    trained, _ = network({"size": 32, "filters": 4})
    count, photos = [], here().own_photos
    with exchanging(lambda *arguments: count.append(0) or reduce(*arguments)) as reduce:
        trained.train_on_batch(np.zeros((photos, 32, 32, 3), "uint8"), np.zeros((photos, 32, 32), "uint8"))
    return len(count) - 1


if __name__ == "__main__":
    main()
