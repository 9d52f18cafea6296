"""Trainings side by side: which device each gets, who waits for whom, and what ends them."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from test_compare import SMALL, make_run

from semseg.backend import placing
from semseg.backend.placing import GPUS, Device, chosen_devices
from semseg.cli import commands
from semseg.cli import compare as comparing
from semseg.comparison import apart, trainings
from semseg.comparison.apart import train_apart
from semseg.comparison.trainings import of_part
from semseg.errors import SemsegError, StopRequest
from semseg.runs.config import RunConfig
from semseg.runs.run import Run

pytestmark = pytest.mark.plain

# Notes what it sees and when it began and ended; its name says what it does.
FAKE = """
import json, os, signal, sys, time
folder, note = sys.argv[1], {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": time.time()}
def end(number, frame):
    print("ended by", number, flush=True)
    sys.exit(128 + number if "signalled" in folder else 0)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
print("semseg", flush=True)
time.sleep(0.3 if "reads" in folder else 0)
note["read"] = time.time()
print("model     unet", flush=True)
if "diverges" in folder:
    sys.exit("error: the loss became NaN")
if "signalled" in folder:
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60 if "long" in folder else 0.2)
json.dump({**note, "ended": time.time()}, open(folder + "/note.json", "w"))
"""


@pytest.fixture()
def gpus(monkeypatch):
    """Sets how many GPUs there are, and cores."""

    def have(count, cores=8, visible=None):
        monkeypatch.setattr(placing, "count_gpus", lambda: count)
        monkeypatch.setattr(placing, "cores", lambda: cores)
        for name in (GPUS, *placing._THREADS):
            monkeypatch.delenv(name, raising=False)
        if visible:
            monkeypatch.setenv(GPUS, visible)

    return have


@pytest.mark.parametrize(("asked", "numbers"), [
    ("all", ["0", "1", "2", "3"]), ("2", ["0", "1"]), ("0,1,3", ["0", "1", "3"]), ("2,", ["2"]), ("3,0", ["3", "0"]),
])  # fmt: skip
def test_gpus_are_chosen_by_number_or_count(asked, numbers, gpus):
    gpus(4)
    devices = chosen_devices(asked)
    assert [device.environment[GPUS] for device in devices] == numbers
    assert [device.name for device in devices] == [f"GPU {number}" for number in numbers]


def test_gpus_are_those_that_a_scheduler_left(gpus):
    gpus(3, visible="4, 6,GPU-7f")
    assert [device.environment[GPUS] for device in chosen_devices("all")] == ["4", "6", "GPU-7f"]
    assert chosen_devices("1,")[0].environment == {GPUS: "6"}


def test_processes_share_the_cores_unless_the_user_said_how(gpus, monkeypatch):
    gpus(0)
    assert chosen_devices(None) == chosen_devices("all") == chosen_devices("1") == [Device()]
    two, three = chosen_devices("2"), chosen_devices("3")
    assert {device.environment["OMP_NUM_THREADS"] for device in two} == {"4"}
    assert {device.environment["OMP_NUM_THREADS"] for device in three} == {"2"}
    assert len({device.name for device in three}) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "OMP_NUM_THREADS" not in chosen_devices("2")[0].environment


@pytest.mark.parametrize(("count", "asked", "said"), [
    (2, "8", "got 8; this computer has 2 GPUs, numbers 0 to 1: expected all, 1 to 2 of them"),
    (2, "0,5", "got 0,5; this computer has 2 GPUs"),
    (2, "1,1", "got 1,1; .* each once"),
    (2, "0", "got 0; this computer has 2 GPUs"),
    (1, "1,", "got 1,; this computer has one GPU, number 0"),
    (2, "first", "got 'first'; expected all, how many, or the numbers of GPUs such as 0,1,3"),
    (2, "-1", "got '-1'; expected all"),
    (0, "0,1", "got 0,1; torch sees no GPU here: expected a number of trainings side by side on the CPU, 1 to 8"),
    (0, "9", "got 9; .* 1 to 8 for as many cores"),
    (0, "0", "got 0; .* 1 to 8"),
])  # fmt: skip
def test_devices_that_are_not_there_are_refused(count, asked, said, gpus):
    gpus(count)
    with pytest.raises(SemsegError, match=f"`devices`: {said}"):
        chosen_devices(asked)


# ------------------------------------------------------------------------------------------------ side by side


@pytest.fixture()
def fake(tmp_path, monkeypatch):
    """Trains runs of such names by `FAKE`; gives what `train_apart` gives."""
    monkeypatch.setattr(apart, "COMMAND", (sys.executable, "-c", FAKE))
    monkeypatch.setattr(apart, "_PAUSE", 0.01)
    devices = [Device(f"GPU {number}", {GPUS: str(number)}) for number in (0, 3)]

    def train(*names, devices=devices, **options):
        runs = [(name, RunConfig(output=str(tmp_path / name))) for name in names]
        return train_apart(runs, lambda config: [config.output], devices, **options)

    return train


def notes(folder, *names):
    return [json.loads((folder / name / "note.json").read_text(encoding="utf-8")) for name in names]


def test_each_device_trains_one_run_at_a_time_and_sees_no_other(fake, tmp_path):
    names = ["a", "b", "c", "d"]
    assert sorted(label for label, _, error in fake(*names) if error is None) == names
    found = notes(tmp_path, *names)
    assert {note["gpu"] for note in found} == {"0", "3"}
    for gpu in ("0", "3"):
        first, *others = sorted((note for note in found if note["gpu"] == gpu), key=lambda note: note["began"])
        for other in others:
            assert other["began"] >= first["ended"]
            first = other
    assert min(found[0]["ended"], found[1]["ended"]) > max(found[0]["began"], found[1]["began"])  # side by side


def test_a_run_begins_once_the_one_before_has_read_its_data(fake, tmp_path):
    list(fake("reads", "next"))
    first, second = notes(tmp_path, "reads", "next")
    assert first["read"] <= second["began"] < first["ended"]


def test_one_that_fails_is_told_and_the_others_go_on(fake, tmp_path):
    outcomes = {label: error for label, _, error in fake("diverges", "b", "c")}
    assert outcomes["b"] is outcomes["c"] is None
    assert "diverges: ended with code 1: the loss became NaN; see log-failed.txt there" in str(outcomes["diverges"])
    assert outcomes["diverges"].exit_code == 1


def test_whoever_stops_listening_ends_the_others_with_their_state(fake, tmp_path):
    began, outcomes = time.monotonic(), fake("a", "long")
    assert next(outcomes)[0] == "a"
    outcomes.close()
    assert time.monotonic() - began < 20
    assert f"ended by {signal.SIGINT.value}" in Run(tmp_path / "long").log_path.read_text(encoding="utf-8")


def test_a_signal_is_passed_on_to_all(fake, tmp_path):
    def stop(running):
        if len(running) == 2 and all(each.is_under_way for each in running):
            raise StopRequest("SIGTERM", 143)

    with pytest.raises(StopRequest):
        list(fake("long1", "long2", show=stop))
    for name in ("long1", "long2"):
        assert f"ended by {signal.SIGTERM.value}" in Run(tmp_path / name).log_path.read_text(encoding="utf-8")


def test_a_run_that_was_stopped_from_outside_stops_all(fake, tmp_path):
    with pytest.raises(StopRequest) as caught:
        list(fake("long", "signalled"))
    assert caught.value.exit_code == 143
    assert "ended by" in Run(tmp_path / "long").log_path.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------- the command


def test_parts_are_disjoint_and_make_up_all_runs_whether_counted_from_0_or_from_1():
    runs = [RunConfig(seed=seed) for seed in range(7)]
    assert of_part(runs, None) == runs
    assert [run.seed for run in of_part(runs, "2/3")] == [1, 4]
    assert of_part(runs, "0/3") == of_part(runs, "3/3")
    assert sorted(run.seed for number in range(3) for run in of_part(runs, f"{number}/3")) == list(range(7))


@pytest.mark.parametrize("part", ["4/3", "0/0", "x", "1", "-1/3", "1/2/3"])
def test_what_is_no_part_is_refused(part):
    with pytest.raises(SemsegError, match=f"`part`: got '{part}'; expected one of N parts of the runs, such as 2/8"):
        of_part([], part)


def test_parts_train_their_runs_and_the_last_one_compares(tmp_path, monkeypatch, capsys):
    def train(runs, **options):
        for label, config in runs:
            trained.append(Path(config.output).name)
            make_run(Path(config.output), [0.5] * 8, splits={"train": "ab"}, model=config.model, seed=config.seed,
                     backend=config.backend)  # fmt: skip
            yield label, config, None

    trained = []
    monkeypatch.setattr(comparing, "train_apart", train)
    monkeypatch.setattr(trainings, "_refuse_changed_data", lambda config: None)  # there are no data
    arguments = ["compare", "--models", "unet,resunet", "--seeds", "2", "--output", str(tmp_path)]
    assert commands([*arguments, "--part", "1/2"]) == 0
    assert trained == ["unet-seed0", "unet-seed1"]
    assert "1/2 is over; 2 of 4 runs are left to the others" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "comparison.json").exists()
    assert commands([*arguments, "--part", "2/2"]) == 0
    assert trained[2:] == ["resunet-seed0", "resunet-seed1"]
    assert "unet" in json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))["baseline"]


def test_costs_are_measured_on_the_first_of_the_gpus(tmp_path, monkeypatch, gpus):
    def train(runs, devices, **options):
        seen.append([os.environ[GPUS], *(device.environment[GPUS] for device in devices)])
        raise SemsegError("enough")

    seen = []
    monkeypatch.setattr(comparing, "train_apart", train)
    gpus(4, visible="4,5,6,7")
    assert commands(["compare", "--models", "unet,resunet", "--devices", "2,3", "--output", str(tmp_path / "out")]) == 2
    assert seen == [["6", "6", "7"]]


@pytest.mark.parametrize("flags", [["--devices", "2"], ["--part", "1/2"]])
def test_minutes_are_not_measured_for_runs_that_share_a_cpu_or_run_elsewhere(flags, tmp_path, capsys, gpus):
    gpus(0)
    asked = ["--models", "unet,resunet", "--minutes", "5", "--output", str(tmp_path / "out"), *flags]
    assert commands(["compare", *asked]) == 2
    assert f"error: {flags[0]}: runs of unlike computers, or that share one" in capsys.readouterr().err


@pytest.mark.skipif(placing.cores() < 2, reason="one core")
def test_two_networks_are_trained_side_by_side_on_the_cpu(pairs, tmp_path, capsys):
    output = tmp_path / "out"
    asked = ["--data", str(pairs), "--models", "unet,resunet", "--seeds", "1", *SMALL, "--output", str(output)]
    assert commands(["compare", *asked, "--devices", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "CPU, share 1, CPU, share 2: one run at a time on each" in said
    assert "run 1/2 unet, seed 0: mean IoU" in said and "run 2/2 resunet, seed 0: mean IoU" in said
    logs = [Run(folder).log_path.stat() for folder in (output / "runs").iterdir()]
    configs = [folder / "config.json" for folder in (output / "runs").iterdir()]
    assert max(path.stat().st_mtime for path in configs) < min(log.st_mtime for log in logs)
