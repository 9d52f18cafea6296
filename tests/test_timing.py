"""How many epochs fit into a time."""

import sys

import keras
import pytest

from semseg.backend.processes import Processes
from semseg.cli import main, train
from semseg.cli.flags import asked_run, to_flags, training_parser
from semseg.data.cache import Cache
from semseg.files import write_json
from semseg.runs.config import RunConfig
from semseg.runs.spent import Spent
from semseg.training import callbacks, plan, timing
from semseg.training.network import Network

pytestmark = pytest.mark.plain


def epochs(monkeypatch, dataset, minutes, seconds, **settings):
    """The epochs of a run on 12 training photos, and the batch sizes that were measured."""
    measured = []

    def steps(config, models):
        measured.append(config.batch_size)
        return {models[0]: seconds[config.batch_size]}

    monkeypatch.setattr(timing, "measured_apart", steps)
    monkeypatch.setattr(timing, "_loading_seconds", lambda batches: batches.close() or 0.0)
    config, said = RunConfig(model="unet", image_size=(32, 32), **settings), []
    cache = Cache(dataset.samples, (32, 32), "", None)
    found = timing.epochs_of_run(minutes, config, dataset, cache, lambda *line: said.append(line))
    return found, measured, said[-1][1]


def test_a_tenth_of_the_time_is_kept_back():
    assert timing.epochs_in(2, 10.0) == 10  # 108 of 120 seconds
    assert timing.epochs_in(2, 400.0) == 1


@pytest.mark.parametrize(("minutes", "seconds", "expected", "sizes"), [
    (5, {1: 2.0, 4: 1.0}, 270, [1, 4]),  # ten epochs take batches of 1, and 135 are enough for those of 4
    (1, {1: 2.0}, 27, [1]),  # 27 epochs of 6 batches of 2 are fewer than 200 steps
    (1, {1: 1.0, 2: 2.0}, 27, [1, 2]),  # 54 of them would take batches of 2, of which 27 fit
])  # fmt: skip
def test_batch_size_and_epochs_suit_each_other(monkeypatch, dataset, minutes, seconds, expected, sizes):
    found, measured, said = epochs(monkeypatch, dataset, minutes, seconds)
    assert (found, measured) == (expected, sizes)
    assert said.startswith(f"{expected} in {minutes} minutes (")


def test_one_epoch_is_trained_in_any_case(monkeypatch, dataset):
    assert epochs(monkeypatch, dataset, 0.01, {4: 9.0}, batch_size=4)[::2] == (
        1, "1 in 0.01 minutes (9.0 s each), though it takes longer",
    )  # fmt: skip


def test_loading_takes_its_time(monkeypatch, dataset):
    monkeypatch.setattr(timing, "measured_apart", lambda config, models: {"unet": 2.0})
    monkeypatch.setattr(timing, "_loading_seconds", lambda batches: batches.close() or 1.5)  # training, validation
    config = RunConfig(model="unet", image_size=(32, 32), batch_size=4)
    cache = Cache(dataset.samples, (32, 32), "", None)
    for on_gpu, expected in ((False, 10), (True, 18)):  # in 54 seconds: beside the steps, or while a GPU computes
        monkeypatch.setattr(timing, "on_gpu", lambda found=on_gpu: found)
        assert timing.epochs_of_run(1, config, dataset, cache, lambda *_: None) == expected


def test_a_run_of_minutes_notes_its_epochs_and_goes_on_with_them(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "_finish", lambda *_: None)
    monkeypatch.setattr(train, "_draw_before", lambda *_: None)
    monkeypatch.setattr(timing, "measured_apart", lambda config, models: {"unet": 30.0})
    flags = ["--data", str(pairs), "--image-size", "32", "--filters", "2", "--cache", "none", "--batch-size", "4",
             "--minutes", "1.5", "--keep", "last", "--output", str(tmp_path)]  # fmt: skip
    assert main(flags) == 0
    assert "2 in 1.5 minutes (30." in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "semseg.training.timing", None)  # nothing is measured again
    assert main(flags) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "goes on from the end of epoch 2" in said and "minutes are left, for the 0 of 2 epochs that are" in said
    assert main(["--resume", str(tmp_path), "--minutes", "9"]) == 4
    assert "with --minutes 1.5 (now 9.0)" in capsys.readouterr().err
    assert main(["--resume", str(tmp_path), "--epochs", "3"]) == 0
    assert "--epochs grows from 2 to 3" in capsys.readouterr().out


def test_minutes_and_epochs_take_each_other_s_place(tmp_path):
    file = tmp_path / "config.json"
    for noted, flags, expected in (
        (RunConfig(minutes=5.0, epochs=7), ["--epochs", "9"], (None, 9)),
        (RunConfig(epochs=7), ["--minutes", "2"], (2.0, 7)),  # to be measured
        (RunConfig(minutes=5.0, epochs=7), ["--seed", "1"], (5.0, 7)),
    ):
        write_json(file, noted.to_dict())
        asked = asked_run(training_parser().parse_args(["--config", str(file), *flags]))
        assert (asked.minutes, asked.epochs) == expected
    assert to_flags(RunConfig(minutes=5.0, epochs=7), without_defaults=True) == ["--minutes", "5.0"]


def test_a_network_that_the_plan_chose_keeps_its_file_when_the_run_goes_on(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_finish", lambda *_: None)
    monkeypatch.setattr(train, "_draw_before", lambda *_: None)
    monkeypatch.setattr(plan, "choose_network", lambda config, *_: Network("resunet", "", freeze="none"))
    flags = ["--data", str(pairs), "--image-size", "32", "--filters", "2", "--cache", "none", "--batch-size", "4",
             "--keep", "last", "--output", str(tmp_path)]  # fmt: skip
    for epochs in ("1", "2"):
        assert main([*flags, "--epochs", epochs]) == 0
        assert [path.name for path in tmp_path.glob("*_model*.keras") if "last" not in path.name] == [
            "unet_model.keras"
        ]
    assert keras.saving.load_model(tmp_path / "unet_model.keras").name == "resunet"


def test_a_training_is_metered_from_its_first_batch_to_its_last_epoch(monkeypatch):
    """A training that goes on within an epoch is two of Keras', of which the second starts nothing."""
    readings = iter([(0.0, 0.0, 0.0), (10.0, 2.0, 3600.0), (15.0, 9.0, 7200.0), (30.0, 22.0, 18_000.0)])
    monkeypatch.setattr(callbacks.Meter, "_read", staticmethod(lambda: next(readings)))
    processes = Processes()
    meter = callbacks.Meter(processes, goes_on=True)
    assert meter.spent is None
    for batches in ([4, 4], [4, 4, 2]):
        meter.on_train_begin()
        for batch, processes.photos in enumerate(batches):
            meter.on_train_batch_end(batch)
        meter.on_epoch_end(0)
    assert meter.spent == Spent(18, 20.0, 20.0, 4.0, goes_on=True)
    assert str(meter.spent) == "18 photos in 20 s since it went on, 0.9 a second; 20 s of the CPU, 4 Wh of the GPU"


def test_energy_that_was_not_read_at_both_ends_is_unknown(monkeypatch):
    readings = iter([(0.0, 0.0, None), (0.0, 0.0, None), (1.0, 1.0, 5.0)])
    monkeypatch.setattr(callbacks.Meter, "_read", staticmethod(lambda: next(readings)))
    processes = Processes()
    meter = callbacks.Meter(processes, goes_on=False)
    meter.on_train_begin()
    processes.photos = 3
    meter.on_train_batch_end(0)
    meter.on_epoch_end(0)
    assert meter.spent == Spent(3, 1.0, 1.0)
