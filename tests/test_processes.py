"""Several processes on this computer: the result of one, one writer, one line when something is wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import several
from helpers import REPOSITORY, make_pairs

from semseg.data import open_dataset
from semseg.data.augment import Augmentation
from semseg.data.batches import data_generator, own_places

pytestmark = pytest.mark.plain

IN_FLOAT64 = [name for name, case in several.CASES.items() if "floatx" not in case]
OF_THREE = ["unet", "binary", "class weights, smoothed", "accumulated", "remat", "half"]
SETTINGS = ["--batch-size", "4", "--filters", "4", "--image-size", "32", "--seed", "1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What two and three processes came to, by case; most cases are tried with two."""
    folder = tmp_path_factory.mktemp("several")
    of_two = several.run(2, [name for name in several.CASES if name not in OF_THREE[1:]], folder / "2.json")
    of_three = several.run(3, OF_THREE, folder / "3.json")
    return {2: of_two, 3: of_three}


def cases(outcomes):
    return [(count, name, apart) for count, found in outcomes.items() for name, apart in found["cases"].items()]


def floor(apart, what):
    """What another order of the photos alone makes; it was measured where it matters."""
    return apart.get("permuted", {}).get(what, 0.0)


def test_every_network_loss_and_option_was_tried(outcomes):
    assert {name for _, name, _ in cases(outcomes)} == set(several.CASES)


def test_the_first_gradient_is_that_of_one_process(outcomes):
    for count, name, apart in cases(outcomes):
        limit = 0.05 if name == "half" else max(several.FIRST_GRADIENT, 2 * floor(apart, "gradient"))
        assert apart["gradient"] <= limit, (count, name, apart)


def test_weights_after_five_batches_of_8_5_3_1_and_8_photos_are_those_of_one_process(outcomes):
    for count, name, apart in cases(outcomes):
        if name in IN_FLOAT64:
            assert apart["weights"] <= max(several.WEIGHTS, 3 * floor(apart, "weights")), (count, name, apart)


def test_the_loss_and_the_confusion_matrix_are_those_of_all_photos(outcomes):
    for count, name, apart in cases(outcomes):
        if name in IN_FLOAT64:
            assert apart["counts"] <= 3 * floor(apart, "counts"), (count, name, apart)
            assert apart["loss"] < 1e-5, (count, name, apart)


def test_all_processes_hold_the_same_bits(outcomes):
    assert [found["equal"] for found in outcomes.values()] == [True, True]


@pytest.mark.parametrize("count", [8, 5, 3, 1])
@pytest.mark.parametrize("processes", [2, 3])
def test_parts_of_a_batch_are_disjoint_in_order_and_even(count, processes):
    parts = [own_places(count, (rank, processes)) for rank in range(processes)]
    assert [place for part in parts for place in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts[0]) >= 1


def test_parts_together_are_the_batches_of_one_process_whatever_is_drawn(pairs):
    dataset = open_dataset(pairs)
    options = {"batch_size": 5, "image_size": (32, 32), "augmentation": Augmentation(), "workers": 0, "seed": 2}
    whole = data_generator(dataset, **options)
    parts = [data_generator(dataset, **options, share=(rank, 3)) for rank in range(3)]
    for index in range(len(whole)):
        counts = [part.photo_counts(index) for part in parts]
        photos, masks = (
            np.concatenate([part[index][k][:own] for part, (own, _) in zip(parts, counts, strict=True)]) for k in (0, 1)
        )
        assert {count for _, count in counts} == {len(photos)}
        np.testing.assert_array_equal(photos, whole[index][0])
        np.testing.assert_array_equal(masks, whole[index][1])


def test_an_empty_part_holds_one_photo_that_counts_nowhere(pairs):
    dataset = open_dataset(pairs)
    part = data_generator(dataset, batch_size=1, image_size=(32, 32), workers=0, share=(1, 2))
    assert part.photo_counts(0) == (0, 1)
    assert part[0][0].shape == (1, 32, 32, 3)
    assert (part[0][1] == 255).all()


# ------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def thirteen(tmp_path_factory):
    """13 training photos, so that the last batch of 4 holds one, and 5 for validation."""
    return make_pairs(tmp_path_factory.mktemp("thirteen"), 13, 5)


def start(command, *flags, **environment):
    """Starts `train` by a launcher in a folder of its own, as a user does."""
    every = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [*command, "-m", "semseg", "train", *SETTINGS, *map(str, flags)],
        cwd=REPOSITORY, env=every, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip


def ended(process):
    """Exit code, output and our own lines of errors."""
    output, errors = process.communicate(timeout=200)
    return process.returncode, output, [line for line in errors.splitlines() if line.startswith("error: ")]


def rows(folder):
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return [
            {k: float(v) for k, v in row.items() if k not in ("seconds", "waiting")} for row in csv.DictReader(file)
        ]


def process_of_rank(rank, parent):
    """The process of a rank that torchrun started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    for pid in map(int, children.stdout.split()):
        if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0"):
            return pid
    raise AssertionError(f"no rank {rank} below {parent}")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_two_processes_train_as_one_and_go_on_as_one_after_a_kill(thirteen, tmp_path):
    flags = ("--data", thirteen, "--epochs", 3)
    alone, together = tmp_path / "alone", tmp_path / "together"
    first = start([sys.executable], *flags, "--output", alone)
    killed = start(TORCHRUN, *flags, "--output", together)
    while " 1/3 " not in (line := killed.stdout.readline()):
        assert line, killed.stderr.read()
    victim = process_of_rank(1, killed.pid)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    code, _, errors = ended(killed)
    assert time.monotonic() - began < 30  # 3 s on a computer that is not busy
    assert code == 1
    assert len(errors) == 1, errors
    assert "rank 1 of 2 on " in errors[0]
    assert "the same command goes on" in errors[0]
    assert ended(first)[0] == 0

    code, output, errors = ended(start(TORCHRUN, *flags, "--output", together))
    assert (code, errors) == (0, [])
    assert "goes on" in output
    assert "2 on " in output  # processes
    assert "each sees 2 of the 4 photos" in output
    assert sorted(path.name for path in together.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert json.loads((together / "config.json").read_text())["plan"]["speed"]["processes"]["value"] == 2
    for ours, theirs in zip(rows(together), rows(alone), strict=True):
        assert ours == pytest.approx(theirs, abs=2e-2)


def test_processes_with_other_flags_are_refused_by_one_line_that_names_them(thirteen, tmp_path):
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(several.free_port())}
    flags = ("--data", thirteen, "--output", tmp_path / "run")
    started = [
        start([sys.executable], *flags, "--epochs", 2 + rank, RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in (0, 1)
    ]
    (code, _, errors), (other_code, _, other_errors) = map(ended, started)
    assert (code, other_code) == (2, 2)
    assert len(errors + other_errors) == 1
    assert "rank 1 of 2" in (errors + other_errors)[0]
    assert "epochs 3 (rank 0: 2)" in (errors + other_errors)[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flags", "said"), [
    (("--batch-size", 1), "--batch-size: got 1 for 2 processes; expected at least as many photos"),
    (("--loss", "ce+lovasz"), "--loss: got ce+lovasz for 2 processes"),
])  # fmt: skip
def test_what_two_processes_cannot_do_is_refused_by_one_line(flags, said, thirteen, tmp_path):
    code, _, errors = ended(start(TORCHRUN, "--data", thirteen, "--output", tmp_path / "run", *flags))
    assert code == 1
    assert len(errors) == 1
    assert said in errors[0]


def test_other_commands_and_backends_are_refused():
    from semseg.cli.backends import refuse_processes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "0")
        with pytest.raises(ValueError, match=r"evaluate: got 2 processes; only train"):
            refuse_processes("evaluate")


def test_of_long_values_the_place_where_they_part_is_told():
    from semseg.backend.processes import _told

    assert _told("epochs", "3", "2") == "epochs 3 (rank 0: 2)"
    start = 50 * "a"
    assert _told("classes", f"{start}XY", f"{start}Z") == "classes ...aaaaaaaaXY (rank 0: ...aaaaaaaaZ)"
    assert _told("data", "0" + start, "1" + start) == f"data 0{39 * 'a'}... (rank 0: 1{39 * 'a'}...)"


def test_an_address_that_nobody_has_is_told_soon(monkeypatch):
    import socket

    from semseg.backend import processes

    def unknown(name, port):
        asked.append(name)
        if len(asked) < 3:
            raise socket.gaierror(-2, "Name or service not known")

    asked = []
    monkeypatch.setattr(processes.socket, "getaddrinfo", unknown)
    monkeypatch.setattr(processes.time, "sleep", lambda seconds: None)
    processes._find_host("node1")
    assert asked == ["node1"] * 3  # it came up meanwhile
    monkeypatch.setattr(processes, "PATIENCE_FOR_NAMES", -1)
    asked.clear()
    with pytest.raises(OSError, match="not known"):
        processes._find_host("node1")
