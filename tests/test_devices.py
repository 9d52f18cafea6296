import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest
from helpers import IMPORT_KERAS, REPOSITORY, make_pairs

from semseg.backend import devices
from semseg.backend.devices import device_name, free_bytes, keras_compiles, out_of_memory, usable_precision

SAVE = """
import sys
import keras
from semseg.backend.devices import leave_tensorflow_out
leave_tensorflow_out()
keras.Sequential([keras.Input((3,)), keras.layers.Rescaling(2.0), keras.layers.Dense(2)]).save(sys.argv[1])
print("tensorflow" in sys.modules)
"""
PLAN = """
import sys
from semseg.cli import commands
commands(["plan", sys.argv[1], "--cache", "none"])
unused = {"tensorflow", "sklearn", "jax", "torch._dynamo"}
print(sorted(unused & set(sys.modules)))
import jax, sklearn, torch._dynamo  # what was left out can be had afterwards
from keras.src.backend.torch import image, random
from semseg.backend.importing import mark_uncompiled
mark_uncompiled()
print(all(function._torchdynamo_disable for function in (image._torch_seed_generator, random.torch_seed_generator)))
"""


def test_the_device_has_a_name():
    assert any(word in device_name() for word in ("CPU", "GPU", "NVIDIA", "AMD"))


@pytest.mark.plain  # starts both itself
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_saving_a_model_does_not_load_tensorflow_beside_another_backend(backend, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_KERAS + SAVE, str(tmp_path / "model.keras")],
        cwd=REPOSITORY,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False"]
    assert keras.saving.load_model(tmp_path / "model.keras").count_params() == 8


@pytest.mark.plain
def test_a_plan_loads_nothing_beside_torch_that_it_does_not_use(tmp_path):
    make_pairs(tmp_path, train=2, val=1)
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("\n[]\nTrue\n") and done.stderr == ""


BACKEND = keras.backend.backend()


def test_who_compiles_the_step():
    assert keras_compiles(True) == (BACKEND != "torch")
    assert keras_compiles(False) == (BACKEND == "jax")


def test_a_cpu_trains_in_float32_in_place_of_float16():
    assert usable_precision("float32") == ("float32", "")
    if "CPU" in device_name():
        assert usable_precision("mixed_float16") == ("float32", "mixed_float16 needs a GPU; training in float32")


def test_bfloat16_is_used_where_the_device_has_it_and_only_there(monkeypatch):
    for has, precision in ((True, "mixed_bfloat16"), (False, "float32")):
        monkeypatch.setitem(devices._BFLOAT16_OF_BACKEND, BACKEND, lambda has=has: has)
        found, why = usable_precision("mixed_bfloat16")
        assert found == precision
        assert ("has no arithmetic for bfloat16; training in float32" in why) != has


def test_a_cpu_is_asked_for_bfloat16_by_its_own_flags(monkeypatch):
    for flags, has in (("fpu avx512_bf16 amx_tile", True), ("fpu avx2", False)):
        monkeypatch.setattr(devices.Path, "read_text", lambda *_, flags=flags, **__: f"flags : {flags}")
        assert devices._cpu_bfloat16() == has


def test_out_of_memory_is_known_by_what_each_backend_says():
    class ResourceExhaustedError(Exception):
        pass

    short = [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        ResourceExhaustedError("OOM when allocating tensor with shape[8,8]"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"),
    ]
    assert all(out_of_memory(error) for error in short)
    assert not any(
        out_of_memory(error) for error in (RuntimeError("shapes differ"), KeyError("room"), OSError(28, "full"))
    )


def test_free_memory_is_some_of_the_machine():
    free = free_bytes()
    assert free is None or 2**26 < free < 2**45


@pytest.fixture
def driver(monkeypatch):
    """An NVIDIA driver with two GPUs, whose meters stand at 7.2 and 1 kJ; which one was asked for is noted."""

    def energy(name):
        asked.append(name)
        return {0: 7_200_000, "GPU-b1": 1_000_000}[name]

    asked = []
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(devices, "on_gpu", lambda: True)
    if keras.backend.backend() == "torch":
        monkeypatch.setattr(devices.torch.cuda, "current_device", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake, asked


def test_the_energy_is_that_of_the_gpu_that_is_used(driver, monkeypatch):
    _, asked = driver
    assert devices.gpu_joules() == 7200
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b1, GPU-a0")
    assert devices.gpu_joules() == 1000
    assert asked == [0, "GPU-b1"]


def test_without_a_meter_nothing_is_said_of_energy(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # whose driver raises
    assert devices.gpu_joules() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # is not installed
    assert devices.gpu_joules() is None
    monkeypatch.setattr(devices, "on_gpu", lambda: False)
    assert devices.gpu_joules() is None
