"""Trains small networks on several devices and on one, on the same batches, and says how far they differ.

`python several_devices.py BACKEND DEVICES NAMES OUTPUT` is one process, or one of those that the environment's
JAX_NUM_PROCESSES speaks of. The first writes OUTPUT, JSON: see `several`. `run` starts them.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import several

ARCHITECTURES = (*several.NETWORKS, "encoder_unet")
EVERY = "ce+dice+focal+tversky"  # in one step that is compiled once
SMALL, FEW = "several_devices:small", (5, 1, 5, 1, 5)  # photos of the steps that are to be quick: two sizes to compile
EAGER = {"eager": True, "batches": (3,)}  # nothing is compiled; Keras' sum stumbles over an empty part there
CASES = {
    **{network: {"model": network, "loss": EVERY} for network in ARCHITECTURES},
    **{f"{network}, few": {"model": network, "loss": EVERY, "batches": FEW} for network in ARCHITECTURES},
    **{f"{network}, eager": {"model": network, "loss": EVERY, "filters": 2, **EAGER} for network in ARCHITECTURES},
    "small": {"model": SMALL, "loss": EVERY},
    "small, few": {"model": SMALL, "loss": EVERY, "batches": FEW},
    **{f"small {loss}": {"model": SMALL, "loss": loss, "batches": FEW} for loss in (*several.LOSSES, "lovasz")},
    "small accumulated": {"model": SMALL, "accumulate": 2, "batches": (*FEW, 5)},
    "small remat": {"model": SMALL, "remat": True, "batches": FEW},
    "small weighted": {"model": SMALL, "class_weights": [1.0, 0.5, 2.0, 1.5], "label_smoothing": 0.1, "batches": FEW},
    "small half": {"model": SMALL, "precision": "bfloat16", "floatx": "float32", "batches": FEW},
    "small binary": {"model": SMALL, "loss": "bce+dice", "num_logits": 1, "batches": FEW},
}
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
LIMIT = 600  # seconds


def small(input_shape, num_logits, filters):
    """A network with one of each layer that networks are made of."""
    import keras
    from keras import layers

    inputs = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255)(inputs)
    x = skip = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)))
    x = layers.Conv2D(2 * filters, 3, padding="same", use_bias=False)(layers.MaxPooling2D()(x))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
    x = layers.Concatenate()([x, layers.UpSampling2D()(layers.AveragePooling2D(2)(skip))])
    return keras.Model(inputs, layers.Conv2D(num_logits, 1)(x))


def run(backend: str, devices: int, names: list[str], output: Path, processes: int = 1) -> dict:
    """Starts the processes and returns what the first of them wrote, by case."""
    command = [sys.executable, __file__, backend, str(devices), json.dumps(names), str(output)]
    common = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    common["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} {QUICK}"
    if processes > 1:
        common |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{several.free_port()}", "JAX_NUM_PROCESSES": str(processes)}
    of_ranks = [{"JAX_PROCESS_ID": str(rank)} if processes > 1 else {} for rank in range(processes)]
    started = [subprocess.Popen(command, env={**os.environ, **common, **of_rank}) for of_rank in of_ranks]
    codes = [process.wait(LIMIT) for process in started]
    if any(codes):
        raise RuntimeError(f"processes ended with {codes}")
    return json.loads(output.read_text())


def outcome(
    model="unet", loss="ce+dice", num_logits=4, floatx="float64", accumulate=1, class_weights=None,
    label_smoothing=0.0, permuted=False, filters=4, batches=several.BATCHES, eager=False,
    **options,
) -> dict:  # fmt: skip
    """First gradient, weights, loss and confusion matrix after the batches, as `here()` divides them."""
    import keras
    import numpy as np

    from semseg.architectures import build_model
    from semseg.backend.devices import keras_compiles
    from semseg.backend.optimizer import build_optimizer
    from semseg.backend.processes import here, train_apart, train_together
    from semseg.losses import SegmentationLoss
    from semseg.training.loop import TrainingModel
    from semseg.training.muon import Muon

    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    keras.utils.set_random_seed(3)
    if model == SMALL:
        network = small((32, 32, 3), num_logits, filters)
    else:
        of_encoder = {"encoder": "MobileNetV3Small", "encoder_weights": "none"} if model == "encoder_unet" else {}
        network = build_model(model, (32, 32, 3), num_logits, filters=filters, **of_encoder)
    k = max(2, num_logits)
    outputs = network.outputs if len(network.outputs) > 1 else network.outputs[0]
    trained = TrainingModel(
        network.inputs[0], outputs, SegmentationLoss(loss, class_weights, label_smoothing), k, **options
    )
    optimizer = Muon(0.01, precision=floatx, gradient_accumulation_steps=accumulate if accumulate > 1 else None)
    trained.compile(optimizer, jit_compile=keras_compiles(False), run_eagerly=eager)
    build_optimizer(trained)
    train_together(trained)
    gradient, logs = np.empty(0), {}
    for seed, photos in enumerate(batches):
        x, y = several.batch(photos, k, seed)
        if permuted:
            x, y = x[::-1].copy(), y[::-1].copy()
        logs = trained.train_on_batch(*several.own_part(x, y, here()), return_dict=True)
        gradient = gradient if seed else _first_gradient(optimizer)
    trained.reset_metrics()
    x, y = several.batch(7, k, 99)
    trained.test_on_batch(*several.own_part(x, y, here()))
    train_apart(trained)
    return {
        "gradient": gradient,
        "weights": np.concatenate([np.asarray(keras.ops.convert_to_numpy(v)).ravel() for v in trained.variables]),
        "loss": float(logs["loss"]),
        "counts": trained.confusion_matrix.matrix(),
    }


def _first_gradient(optimizer):
    """What the optimiser remembers of the first batch: no backend shows a gradient inside a compiled step."""
    import keras
    import numpy as np

    found = []
    for place, variable in enumerate(optimizer._trainable_variables):
        if optimizer.gradient_accumulation_steps:
            value, share = optimizer._accumulated_gradients[place], 1.0
        else:
            value, share = optimizer._momentums[place], 1.0 if optimizer.takes(variable) else 1 - optimizer.beta_1
        found.append(np.asarray(keras.ops.convert_to_numpy(value), np.float64).ravel() / share)
    return np.concatenate(found)


def main() -> None:
    """One of the processes."""
    backend, devices, names, output = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from semseg.backend.importing import import_keras

    import_keras(backend)
    if backend == "tensorflow":
        import tensorflow as tf

        several_cpus = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], several_cpus)
    from semseg.backend.devices import leave_tensorflow_out
    from semseg.backend.processes import join, leave, refuse_differing

    leave_tensorflow_out()
    processes, found = join(devices), {}
    together = {name: outcome(**CASES[name]) for name in names}
    prints = {name: hashlib.sha256(each["weights"].tobytes()).hexdigest() for name, each in together.items()}
    refuse_differing(prints)
    leave()
    if not processes.is_first:
        return
    for name in names:
        alone = outcome(**CASES[name])
        apart = found[name] = several.differences(alone, together[name])
        if apart["gradient"] > several.FIRST_GRADIENT or apart["weights"] > several.WEIGHTS:
            apart["permuted"] = several.differences(alone, outcome(**CASES[name], permuted=True))
    output.write_text(json.dumps({"parts": processes.parts, "cases": found}))


if __name__ == "__main__":
    main()
