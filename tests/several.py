"""Trains small networks in one process and in several, on the same batches, and says how far they differ.

`python several.py NAMES OUTPUT` is one of the processes that the environment's RANK and WORLD_SIZE speak of. The first
of them also computes everything alone, before it joins the others, and writes OUTPUT, JSON. `run` starts them all.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

NETWORKS = ("unet", "attention_unet", "unetpp", "unet3plus", "resunet", "r2unet", "ddunet", "hybrid_unet")
LOSSES = ("ce", "focal", "tversky", "focal_tversky", "cl_dice")
# What is trained, by name: what differs from the defaults of `outcome`. In float32 a rounding may decide which of two
# equal pixels a pooling takes, and the gradient jumps: float64 shows whether the sums are right.
CASES = {
    **{network: {"model": network} for network in NETWORKS},
    "encoder_unet": {  # its last levels see a pixel of each photo: longer steps make 1e-3 of a rounding
        "model": "encoder_unet",
        "encoder": "MobileNetV3Small",
        "encoder_weights": "none",
        "learning_rate": 1e-4,
    },
    **{f"loss {loss}": {"loss": loss} for loss in LOSSES},
    "binary": {"loss": "bce+dice", "num_logits": 1},
    "class weights, smoothed": {"loss": "ce+tversky", "class_weights": [1.0, 0.5, 2.0, 1.5], "label_smoothing": 0.1},
    "accumulated": {"accumulate": 2},
    "remat": {"remat": True},
    "half": {"precision": "bfloat16", "floatx": "float32"},
    "float16": {"precision": "float16", "floatx": "float32"},
}
BATCHES = (8, 5, 3, 1, 8)  # photos in each of the steps
FIRST_GRADIENT, WEIGHTS = 1e-5, 1e-6  # that they may differ by, or by what another order of the photos makes
LIMIT = 240  # seconds that they may take


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run(processes: int, names: list[str], output: Path) -> dict:
    """Starts the processes and returns what the first of them wrote, by case: see `differences`."""
    port = str(free_port())
    started = []
    for rank in range(processes):
        of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        address = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        address["KERAS_BACKEND"] = "torch"
        command = [sys.executable, __file__, json.dumps(names), str(output)]
        started.append(subprocess.Popen(command, env={**os.environ, **of_rank, **address}))
    try:
        for process in started:
            if process.wait(LIMIT):
                break
    finally:
        for process in started:  # those that are over do not mind, and the others would wait
            process.kill()
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError(f"processes ended with {codes}")
    return json.loads(output.read_text())


def batch(photos: int, num_classes: int, seed: int):
    """Photos uint8 `(N, 32, 32, 3)` and ids `(N, 32, 32)`, some ignored, one photo wholly."""
    import numpy as np

    rng = np.random.default_rng([photos, seed])
    x = rng.integers(0, 256, (photos, 32, 32, 3)).astype("uint8")
    y = rng.integers(0, num_classes, (photos, 32, 32)).astype("uint8")
    y[rng.random(y.shape) < 0.1] = 255
    if photos > 3:
        y[1] = 255
    return x, y


def outcome(
    model="unet", loss="ce+dice", num_logits=4, floatx="float64", accumulate=1, class_weights=None,
    label_smoothing=0.0, permuted=False, filters=4, encoder=None, encoder_weights=None, compiles=False,
    learning_rate=0.01, **options,
) -> dict:  # fmt: skip
    """First gradient, weights, loss and confusion matrix after `BATCHES`, on this process' part of each."""
    import keras
    import numpy as np

    from semseg.architectures import build_model
    from semseg.backend.processes import here, train_together
    from semseg.losses import SegmentationLoss
    from semseg.training.loop import TrainingModel
    from semseg.training.muon import Muon

    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    keras.utils.set_random_seed(3)
    of_encoder = {"encoder": encoder, "encoder_weights": encoder_weights}
    network = build_model(model, (32, 32, 3), num_logits, filters=filters, **of_encoder)
    k = max(2, num_logits)
    outputs = network.outputs if len(network.outputs) > 1 else network.outputs[0]
    function = SegmentationLoss(loss, class_weights, label_smoothing)
    trained = TrainingModel(network.inputs[0], outputs, function, k, **options)
    optimizer = Muon(
        learning_rate, precision=floatx, gradient_accumulation_steps=accumulate if accumulate > 1 else None
    )
    trained.compile(optimizer, jit_compile=False)
    gradients: list = []
    apply = optimizer.apply

    def spy(values, trainable_variables):
        gradients.append(np.concatenate([value.detach().double().numpy().ravel() for value in values]))
        return apply(values, trainable_variables)

    optimizer.apply = spy
    if compiles:
        x, y = own_part(*batch(BATCHES[0], k, 0), here())
        trained.compile_graph(x)
    train_together(trained)
    logs: dict = {}
    for seed, photos in enumerate(BATCHES):
        x, y = batch(photos, k, seed)
        if permuted:
            x, y = x[::-1].copy(), y[::-1].copy()
        logs = trained.train_on_batch(*own_part(x, y, here()), return_dict=True)
    trained.reset_metrics()
    x, y = batch(7, k, 99)
    trained.test_on_batch(*own_part(x, y, here()))
    return {
        "gradient": gradients[0],
        "weights": np.concatenate([np.asarray(keras.ops.convert_to_numpy(v)).ravel() for v in trained.variables]),
        "loss": float(logs["loss"]),
        "counts": trained.confusion_matrix.matrix(),
    }


def own_part(x, y, processes):
    """A process' part of a batch, cut as `Batches` cuts it."""
    from semseg.data.batches import own_places

    places = own_places(len(x), processes.share)
    processes.own_photos, processes.photos = len(places), len(x)
    if not len(places):
        return x[:1], y[:1] * 0 + 255
    return x[places.start : places.stop], y[places.start : places.stop]


def differences(first: dict, second: dict) -> dict:
    """How far two outcomes are apart: the gradients relative to their length, the weights at most."""
    import numpy as np

    return {
        "gradient": float(np.linalg.norm(first["gradient"] - second["gradient"]) / np.linalg.norm(second["gradient"])),
        "weights": float(abs(first["weights"] - second["weights"]).max()),
        "loss": abs(first["loss"] - second["loss"]),
        "counts": int(abs(first["counts"] - second["counts"]).sum()),
    }


def main() -> None:
    """One of the processes."""
    names, output = json.loads(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from semseg.backend.importing import import_keras

    import_keras("torch")
    import torch.distributed as dist

    from semseg.backend.devices import leave_tensorflow_out
    from semseg.backend.processes import join, leave

    leave_tensorflow_out()
    first = os.environ["RANK"] == "0"
    alone = {name: outcome(**CASES[name]) for name in names if first}
    processes = join()
    found, prints = {}, {}
    for name in names:
        together = outcome(**CASES[name])
        prints[name] = hashlib.sha256(together["weights"].tobytes()).hexdigest()
        if first:
            found[name] = differences(alone[name], together)
    everyones: list = [None] * processes.count
    dist.all_gather_object(everyones, prints)
    leave()
    for name, apart in found.items():
        if apart["gradient"] > FIRST_GRADIENT or apart["weights"] > WEIGHTS:
            apart["permuted"] = differences(alone[name], outcome(**CASES[name], permuted=True))
    if first:
        equal = all(prints == each for each in everyones)
        output.write_text(json.dumps({"equal": equal, "cases": found}))


if __name__ == "__main__":
    main()
