"""Several devices of one process, and several processes, on JAX and TensorFlow: the result of one device."""

import os
import signal
import subprocess
import sys
import time

import pytest
import several
import several_devices
from helpers import REPOSITORY, make_pairs

from semseg.backend.launchers import Launch, launched
from semseg.cli.backends import refuse_devices, refuse_processes

pytestmark = pytest.mark.plain

SETTINGS = ["--batch-size", "4", "--filters", "2", "--image-size", "32"]
ENGINES = {
    "JAX, 4 devices": ("jax", 4, 1),
    "JAX, 2 processes": ("jax", 1, 2),
    "TensorFlow, 2 devices": ("tensorflow", 2, 1),
}
# Networks with all kinds of layers; the others have cases, too, for a run by hand: a minute more.
OF_MANY_KINDS = ("unetpp", "attention_unet", "hybrid_unet", "encoder_unet")
TRIED = {
    "JAX, 4 devices": ["small"],
    "JAX, 2 processes": ["small, few"],
    "TensorFlow, 2 devices": ["small", "small accumulated", "small remat",
                              *(f"{network}, eager" for network in OF_MANY_KINDS)],
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_gradient_weights_loss_and_counts_are_those_of_one_device(engine, tmp_path):
    backend, devices, processes = ENGINES[engine]
    found = several_devices.run(backend, devices, TRIED[engine], tmp_path / "found.json", processes)
    assert found["parts"] == devices * processes
    assert list(found["cases"]) == TRIED[engine]
    for name, apart in found["cases"].items():
        assert apart["gradient"] <= several.FIRST_GRADIENT, (name, apart)
        assert apart["weights"] <= several.WEIGHTS, (name, apart)
        assert apart["loss"] < several.WEIGHTS, (name, apart)
        assert apart["counts"] == 0, (name, apart)


# ------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def thirteen(tmp_path_factory):
    """13 training photos, so that the last batch of 4 holds one, and 5 for validation."""
    return make_pairs(tmp_path_factory.mktemp("thirteen"), 13, 5)


def start(*flags, cpus=1, **environment):
    """Starts `train` on JAX, as a user does; the network's module lies beside the tests."""
    every = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"tests{os.pathsep}.",
        **environment,
    }
    every["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={cpus} {several_devices.QUICK}"
    command = [sys.executable, "-m", "semseg", "train", "--model", "several_devices:small", *SETTINGS, *map(str, flags)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=every, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def start_two(*flags, own=((), ())):
    """Two processes that JAX connects."""
    common = {"JAX_COORDINATOR_ADDRESS": f"localhost:{several.free_port()}", "JAX_NUM_PROCESSES": "2"}
    return [start(*flags, *own[rank], JAX_PROCESS_ID=str(rank), **common) for rank in (0, 1)]


def until(sign, process):
    """What a process prints, up to a line with the sign."""
    lines = [process.stdout.readline()]
    while sign not in lines[-1]:
        assert lines[-1], process.stderr.read()
        lines.append(process.stdout.readline())
    return "".join(lines)


def ended(process):
    """Exit code, output and our own lines of errors."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, [line for line in errors.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_by_one_line_and_two_devices_go_on(victim, thirteen, tmp_path):
    flags = ("--data", thirteen, "--output", tmp_path / "run", "--epochs", 90)
    both = start_two(*flags)
    output = until("1/90", both[0])
    assert "2 on " in output  # processes
    assert "each sees 2 of the 4 photos" in output
    began = time.monotonic()
    both[victim].kill()
    code, _, errors = ended(both[1 - victim])
    assert time.monotonic() - began < 30
    assert code == 6
    assert len(errors) == 1, errors
    assert f"rank {victim} of 2 on " in errors[0]
    assert "has gone without a word" in errors[0]
    assert "the same command goes on from" in errors[0]
    both[victim].communicate()
    if victim:
        alone = start(*flags, "--devices", 2, cpus=2)
        output = until("/90", alone)
        assert "goes on" in output
        assert "devices: 2; each sees 2 of the 4 photos of a step" in output
        alone.send_signal(signal.SIGTERM)
        code, _, errors = ended(alone)
        assert (code, len(errors)) == (143, 1)


def test_processes_with_other_flags_are_refused_by_one_line_that_names_them(thirteen, tmp_path):
    both = start_two("--data", thirteen, "--output", tmp_path / "run", own=((), ("--seed", "5")))
    (code, _, errors), (other_code, _, other_errors) = map(ended, both)
    assert (code, other_code) == (2, 2)
    assert len(errors + other_errors) == 1
    assert "rank 1 of 2" in (errors + other_errors)[0]
    assert "seed 5 (rank 0: 0)" in (errors + other_errors)[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flags", "said"), [
    (("--devices", 8), "--devices: got 8; jax finds 2 CPUs here: expected at most 2"),
    (("--devices", 0), "--devices: got 0; expected a whole number of at least 1"),
    (("--devices", 2, "--batch-size", 1), "--batch-size: got 1 for 2 devices; expected at least as many photos"),
    (("--devices", 2, "--minutes", 1), "--minutes: cannot be done by 2 devices"),
])  # fmt: skip
def test_what_devices_cannot_do_is_refused_by_one_line(flags, said, thirteen, tmp_path):
    code, _, errors = ended(start("--data", thirteen, "--output", tmp_path / "run", *flags, cpus=2))
    assert code == 2
    assert len(errors) == 1
    assert said in errors[0]
    assert not (tmp_path / "run" / "config.json").exists()


def test_pytorch_is_told_the_command_that_starts_its_launcher(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    words = ["/somewhere/semseg/__main__.py", "train", "--devices", "4", "--data", "my photos", "--epochs", "3"]
    said = "torchrun --standalone --nproc-per-node 4 -m semseg train --data 'my photos' --epochs 3$"
    with pytest.raises(ValueError, match=said):
        refuse_devices(4, words)
    with pytest.raises(ValueError, match=r"--nproc-per-node 2 main\.py --config c\.json --devices 1$"):
        refuse_devices(2, ["main.py", "--config", "c.json"])
    refuse_devices(1, words)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    refuse_devices(4, words)


# ------------------------------------------------------------------------------------------------- launchers

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
BY_HAND = {"JAX_COORDINATOR_ADDRESS": "node1:29400", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


@pytest.mark.parametrize(("environment", "launch"), [
    ({}, Launch()),
    ({"RANK": "1", "WORLD_SIZE": "4"}, Launch("torchrun", 1, 4)),
    (SLURM, Launch("srun", 3, 4)),
    ({**SLURM, "SLURM_NTASKS": "1"}, Launch()),
    (BY_HAND, Launch("JAX", 2, 3)),
    ({**BY_HAND, **SLURM}, Launch("JAX", 2, 3)),
    ({**BY_HAND, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, Launch()),
])  # fmt: skip
def test_the_environment_says_who_started_the_process(environment, launch):
    assert launched(environment) == launch


@pytest.mark.parametrize("wrong", [
    {"JAX_PROCESS_ID": "3"}, {"JAX_PROCESS_ID": ""}, {"JAX_NUM_PROCESSES": "many"},
    {"JAX_COORDINATOR_ADDRESS": "node1"},
])  # fmt: skip
def test_variables_of_jax_that_make_no_sense_are_named(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        launched({**BY_HAND, **wrong})


def test_other_commands_are_refused(monkeypatch):
    for name, value in BY_HAND.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="evaluate: got 3 processes; only train"):
        refuse_processes("evaluate")
