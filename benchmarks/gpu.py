"""What only a GPU can show: does it compute what the CPU computes, and what does a training step wait for?

    KERAS_BACKEND=torch python benchmarks/gpu.py agreement     # also on jax
    KERAS_BACKEND=torch python benchmarks/gpu.py step
    KERAS_BACKEND=torch python benchmarks/gpu.py feeding --data my_data
    KERAS_BACKEND=torch python benchmarks/gpu.py memory

`agreement`: logits of every network, and the gradients of all its weights, against the same weights in float32 on the
CPU, as norm(difference) / norm(reference); without TF32, but for one row of the U-Net. `step`: milliseconds of a step
in `fit`, with its callbacks and without; how often the host waits for the GPU, and where; the share of the time in
which the GPU computes, and its longest kernels. `feeding`: photos per second that the loader gives and that a step
takes. `memory`: does a run without enough of it end in one line? `benchmarks/gpu.sh` runs all of it, and more.

RESULT's `failed` counts the rows beyond their limits. Without a GPU nothing is measured; `--tiny` shows on a CPU that
the script runs.
"""

import argparse
import collections
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # it would take most of the GPU from its neighbours
sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np

from semseg.architectures import ARCHITECTURES, build_model
from semseg.backend.devices import device_name, leave_tensorflow_out
from semseg.backend.fast_model import FastModel
from semseg.data import open_dataset
from semseg.data.batches import data_generator
from semseg.data.cache import Cache
from semseg.losses import SegmentationLoss
from semseg.runs.config import RunConfig
from semseg.training.callbacks import StopOnNonFiniteLoss
from semseg.training.loop import TrainingModel, make_batches, train_model
from semseg.training.plan import plan_run
from semseg.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
BACKEND = keras.backend.backend()
CLASSES, BATCH = 19, 8
EXACT = {"NVIDIA_TF32_OVERRIDE": "0", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # float32 as float32
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
LIMITS = {"float32": (1e-3, 1e-3), "tf32": (1e-2, 1.0), "bfloat16": (2e-2, np.inf)}  # of logits and gradients


def new_model(name: str, size: int, filters: int) -> keras.Model:
    """With weights that any process draws alike, and averages of batch normalisation that are not the first ones."""
    weights = "none" if name == "encoder_unet" else None
    model = build_model(name, (size, size, 3), CLASSES, filters=filters, encoder_weights=weights)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if variable.name == "seed_generator_state":
            continue
        if len(shape) > 1:
            fan_in = np.prod(shape[:-1])
            variable.assign(rng.normal(0, np.sqrt(2 / fan_in), shape).astype("float32"))
        elif "variance" in variable.name or "gamma" in variable.name:
            variable.assign(rng.uniform(0.8, 1.2, shape).astype("float32"))
        else:
            variable.assign(rng.normal(0, 0.1, shape).astype("float32"))
    return model


def batch_of(size: int, count: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
    truth = rng.integers(0, CLASSES, (count, size, size)).astype(np.uint8)
    truth[:, : size // 16] = 255
    return photos, truth


def gradients(model: FastModel, photos: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Of the usual loss, by every weight that learns."""
    loss = SegmentationLoss("cross_entropy+dice")

    def total(outputs: object) -> object:
        return loss(truth, outputs[0] if isinstance(outputs, list) else outputs)

    if BACKEND == "torch":
        total(model(photos, training=True)).backward()
        found = [variable.value.grad for variable in model.trainable_variables]
    else:
        import jax

        def value(trained: list, fixed: list) -> object:
            return total(model.stateless_call(trained, fixed, photos, training=True)[0])

        trained, fixed = (
            [v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)
        )
        found = jax.jit(jax.grad(value))(trained, fixed)
    return [keras.ops.convert_to_numpy(x) for x in found]


def computed(name: str, precision: str, size: int, filters: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and all gradients in a row."""
    model = new_model(name, size, filters)
    outputs = model.outputs if len(model.outputs) > 1 else model.outputs[0]
    fast = FastModel(model.inputs[0], outputs, precision=precision)
    photos, truth = batch_of(size, 4)
    logits = fast.predict_on_batch(photos)
    first = logits[0] if isinstance(logits, list) else logits
    return first, np.concatenate([x.ravel() for x in gradients(fast, photos, truth)])


def write_reference(path: str, names: list[str], size: int, filters: int) -> None:
    found = {name: computed(name, "float32", size, filters) for name in names}
    np.savez(path, **{f"{name}.{i}": values[i] for name, values in found.items() for i in (0, 1)})


def distance(ours: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(ours.astype(np.float64) - reference) / np.linalg.norm(reference))


def agreement(arguments: argparse.Namespace) -> dict[str, object]:
    size, filters = (32, 4) if arguments.tiny else (64, 8)
    names = list(ARCHITECTURES) if BACKEND == "torch" and not arguments.tiny else ["unet"]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "reference.npz"))
        again([*arguments.own, "--reference", path, *names], ON_CPU)
        reference = dict(np.load(path))
    failed, worst = [], 0.0
    print(f"{'network':16}{'precision':12}{'logits':>12}{'gradients':>12}")
    for name in names:
        for precision in ("float32", "tf32", "bfloat16"):
            if precision == "tf32" and (name != "unet" or BACKEND != "torch"):
                continue
            allow_tf32(precision == "tf32")
            found = computed(name, "bfloat16" if precision == "bfloat16" else "float32", size, filters)
            far = [distance(values, reference[f"{name}.{i}"]) for i, values in enumerate(found)]
            right = all(value <= limit for value, limit in zip(far, LIMITS[precision], strict=True))  # not so for NaN
            print(f"{name:16}{precision:12}{far[0]:12.2e}{far[1]:12.2e}{'' if right else '   FAILED'}", flush=True)
            failed += [] if right else [name]
            worst = max(worst, far[0]) if precision == "float32" else worst
    return {"networks": len(names), "worst_float32": f"{worst:.1e}", "failed": len(failed)}


def allow_tf32(allowed: bool) -> None:
    if BACKEND == "torch":
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


class Repeated(keras.utils.PyDataset):
    """An epoch of one and the same batch."""

    def __init__(self, batch: tuple[np.ndarray, np.ndarray], steps: int):
        super().__init__(workers=0)
        self.batch, self.steps, self.epoch = batch, steps, 0

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.batch


def training_step(filters: int, size: int, precision: str, steps: int) -> TrainingModel:
    """As `train_model` makes it."""
    network = build_model("unet", (size, size, 3), CLASSES, filters=filters)
    loss = SegmentationLoss("cross_entropy+dice")
    model = TrainingModel(network.inputs[0], network.outputs[0], loss, CLASSES, precision=precision)
    config = RunConfig(precision="float32" if precision == "float32" else f"mixed_{precision}", epochs=1)
    model.compile(Recipe.suited(config, steps).optimizer(network), jit_compile=BACKEND == "jax")
    return model


def milliseconds_of_fit(model: TrainingModel, batch: tuple, steps: int, callbacks: list) -> float:
    """Of a step within an epoch: the median of three epochs, after one to warm up."""
    seconds = []
    for _ in range(4):
        batches = Repeated(batch, steps)
        start = time.perf_counter()
        model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:]) / steps


@contextmanager
def noted_waits() -> Iterator[collections.Counter]:
    """Counts where the host waits for the GPU: the line of ours or of Keras that asks for it (PyTorch only)."""
    import torch

    found: collections.Counter = collections.Counter()

    def note(message: object, *arguments: object, **options: object) -> None:
        if "synchroniz" in str(message):
            frames = traceback.extract_stack()[:-1]
            lines = [
                f for f in frames if any(part in f.filename for part in ("/semseg/", "/keras/")) and f.name != "note"
            ]
            shown = [f"{Path(*Path(f.filename).parts[-2:])}:{f.lineno} {f.name}" for f in lines[-4:]]
            found[" > ".join(shown)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


def profile(model: TrainingModel, batches: Repeated, callbacks: list) -> tuple[float, float]:
    """Milliseconds per step in which the GPU computes, and kernels per step; prints the longest."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        model.fit(batches, verbose=0, shuffle=False, callbacks=callbacks)
        torch.cuda.synchronize()
    steps = len(batches)
    rows = [row for row in profiled.key_averages() if row.self_device_time_total > 0]
    rows.sort(key=lambda row: -row.self_device_time_total)
    for row in rows[:14]:
        print(f"    {row.self_device_time_total / 1000 / steps:8.3f} ms {row.count / steps:7.1f} x  {row.key[:90]}")
    return sum(row.self_device_time_total for row in rows) / 1000 / steps, sum(row.count for row in rows) / steps


def step(arguments: argparse.Namespace) -> dict[str, object]:
    cases, steps = [(16, 256), (64, 512)], 40
    if arguments.tiny:
        cases, steps = [(4, 32)], 3
    result: dict[str, object] = {}
    for filters, size in cases:
        batch = batch_of(size)
        model = training_step(filters, size, "bfloat16", 6 * steps)
        alone = milliseconds_of_fit(model, batch, steps, [])
        stop = StopOnNonFiniteLoss(Repeated(batch, steps), None)
        watched = milliseconds_of_fit(model, batch, steps, [stop])
        print(f"\n{filters} filters, {BATCH} photos of {size} x {size}, bfloat16, Muon: {alone:.2f} ms a step in fit, "
              f"{watched:.2f} with the loss read after each")  # fmt: skip
        result[f"ms_{filters}x{size}"] = f"{watched:.2f}"
        if BACKEND != "torch" or arguments.tiny:
            continue
        few = Repeated(batch, 5)
        with noted_waits() as waits:
            model.fit(few, epochs=1, verbose=0, shuffle=False, callbacks=[stop])
        print(f"  the host waits {waits.total() / 5:.1f} times a step:")
        for place, count in waits.most_common(25):
            print(f"    {count / 5:5.1f}  {place}")
        busy, kernels = profile(model, few, [stop])
        print(f"  the GPU computes {busy:.2f} ms of a step, in {kernels:.0f} kernels: {busy / watched:.0%}")
        result[f"busy_{filters}x{size}"], result[f"waits_{filters}x{size}"] = f"{busy / watched:.2f}", waits.total() / 5
    return result


def feeding(arguments: argparse.Namespace) -> dict[str, object]:
    size, result = (32 if arguments.tiny else 256), {}
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            from semseg.data.demo import make_demo

            make_demo(Path(folder, "images"), num_train=24, num_val=8)
            data = str(Path(folder, "images"))
        dataset = open_dataset(data, limit=24 if arguments.tiny else None)
        config = RunConfig(model="unet", epochs=3, batch_size=BATCH, image_size=(size, size), filters=16,
                           precision="mixed_bfloat16")  # fmt: skip
        cache = Cache(dataset.samples, config.image_size, "benchmark", Path(folder))
        plan = plan_run(config, dataset)
        augmentation = plan.augmentation
        for workers in (2, 4, 8):
            batches = data_generator(dataset, batch_size=BATCH, image_size=(size, size), augmentation=augmentation,
                                     workers=workers, cache=cache)  # fmt: skip
            for epoch in ("first", "later") if workers == 2 else ("later",):
                start, photos = time.perf_counter(), 0
                for _ in range(1 if epoch == "first" else 4):
                    photos += sum(len(x) for x, _ in batches)
                result[f"{epoch}_{workers}"] = round(photos / (time.perf_counter() - start))
            batches.close()
        model = build_model("unet", (size, size, 3), dataset.num_logits, filters=config.filters)
        rows = train_model(
            model, make_batches(dataset, plan, cache), plan, model_path=Path(folder, "model.keras"),
            results_path=Path(folder, "results.csv"),
        )[1:]  # fmt: skip
        waiting, seconds = (statistics.fmean(row[name] for row in rows) for name in ("waiting", "seconds"))
        result["run"] = round(sum(map(len, dataset.splits.values())) / seconds)
        result["waiting"] = f"{waiting / seconds:.3f}"
    step_model = training_step(16, size, "bfloat16", 200)
    result["step"] = round(
        1000 * BATCH / milliseconds_of_fit(step_model, batch_of(size), 3 if arguments.tiny else 40, [])
    )
    print(f"photos per second of {size} x {size}, {len(dataset.splits['train'])} photos: {result}")
    return result


SHORT_OF_MEMORY = """
import sys
import torch
torch.cuda.set_per_process_memory_fraction(float(sys.argv[1]))
from semseg.cli import commands
sys.exit(commands(sys.argv[2:]))
"""


def memory(arguments: argparse.Namespace) -> dict[str, object]:
    """A run that is refused, one whose memory turns out short, and an evaluation and a prediction whose memory does."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        data, run = arguments.data, f"{folder}/run"
        if data is None:
            from semseg.data.demo import make_demo

            make_demo(Path(folder, "images"), num_train=16, num_val=4)
            data = f"{folder}/images"
        common = ["--data", data, "--cache", folder, "--epochs", "1"]
        small = ["--image-size", "64", "--limit", "8", "--workers", "0", "--output", run]
        done = command("main.py", *common, *small)
        print(f"a small run: exit code {done.returncode} {done.stderr[-1500:]}")
        failed += done.returncode != 0
        huge = ["--image-size", "2048", "--filters", "64", "--batch-size", "512", "--output", f"{folder}/a"]
        large = [
            "--image-size",
            "512",
            "--filters",
            "64",
            "--batch-size",
            "8",
            "--limit",
            "16",
            "--output",
            f"{folder}/b",
        ]
        cases = {
            "refused": ["main.py", *common, *huge],
            "while training": ["-c", SHORT_OF_MEMORY, "0.03", "train", *common, *large],
            "while evaluating": ["-c", SHORT_OF_MEMORY, "0.0001", "evaluate", run, "--output", f"{folder}/c"],
            "while predicting": ["-c", SHORT_OF_MEMORY, "0.0001", "predict", run, data, "--output", f"{folder}/d"],
        }
        for name, case in {} if arguments.tiny else cases.items():
            done = command(*case)
            right = done.returncode == 6 and "Traceback" not in done.stderr and "--batch-size" in done.stderr
            said = "\n".join(done.stderr.strip().splitlines()[-(1 if right else 12) :])
            print(f"{name}: exit code {done.returncode}{'' if right else ' FAILED'}: {said}", flush=True)
            failed += not right
    return {"failed": failed}


def command(*words: str) -> subprocess.CompletedProcess:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )


def again(own: list[str], environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, __file__, *own], env=os.environ | environment, check=True)


def on_gpu() -> bool:
    return not device_name().startswith("CPU")


SECTIONS = {"agreement": agreement, "step": step, "feeding": feeding, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section", nargs="?", choices=SECTIONS, default="agreement")
    parser.add_argument("--quick", action="store_true", help="the U-Net alone")
    parser.add_argument("--tiny", action="store_true", help="also without a GPU: shows that the script runs")
    parser.add_argument("--data", help="a folder of photos and masks in place of the demo data")
    parser.add_argument("--reference", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.own = ["--tiny"] * arguments.tiny
    leave_tensorflow_out()
    if arguments.reference:
        size, filters = (32, 4) if arguments.tiny else (64, 8)
        write_reference(arguments.reference[0], arguments.reference[1:], size, filters)
    elif not on_gpu() and not arguments.tiny:
        print("there is no GPU here: nothing to measure\nRESULT gpu=none")
    else:
        print(f"{BACKEND}, Keras {keras.__version__}, {device_name()}", flush=True)
        result = SECTIONS[arguments.section](arguments)
        print("RESULT " + " ".join(f"{name}={value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
