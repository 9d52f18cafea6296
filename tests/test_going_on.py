"""`--resume`, the same command again, and `--restart`: what goes on, and what is refused."""

import csv
import errno
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import REPOSITORY, make_pairs

from semseg.cli import commands, main, train
from semseg.runs.checkpoints import Checkpoints
from semseg.runs.spent import Spent
from semseg.training.saving import SaveState

pytestmark = pytest.mark.plain
SMALL = ("--image-size", "32", "--filters", "2", "--epochs", "2", "--batch-size", "4", "--cache", "none",
         "--augment", "none", "--keep", "last")  # fmt: skip


class Power(BaseException):
    """Fails."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("data") / "data", train=8, val=2)


def cut_at(monkeypatch, batches):
    """The power fails after so many batches, when the state of the last one is on disk."""
    left = iter(range(batches - 1, -1, -1))
    after = SaveState.on_train_batch_end

    def end(self, batch, logs=None):
        after(self, batch, logs)
        if next(left) == 0:
            self.wait()
            raise Power

    monkeypatch.setattr(SaveState, "on_train_batch_end", end)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A run, and one that was cut after batch 1 of epoch 2."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["--data", str(data), *SMALL, "--output", str(folder / "whole")]) == 0
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Power):
        cut_at(patch, 3)
        main(["--data", str(data), *SMALL, "--checkpoint-minutes", "0", "--output", str(folder / "cut")])
    return folder


@pytest.fixture()
def quick(monkeypatch):
    """Scores and pages are made in one test; the others look at what was trained."""
    monkeypatch.setattr(train, "_finish", lambda *_: None)
    monkeypatch.setattr(train, "_draw_before", lambda *_: None)


@pytest.fixture()
def cut(runs, tmp_path):
    return Path(shutil.copytree(runs / "cut", tmp_path / "cut"))


def figures(folder):
    with (folder / "results.csv").open() as file:
        return [{name: row[name] for name in row if name not in ("seconds", "waiting")} for row in csv.DictReader(file)]


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_ends_as(folder, whole):
    assert figures(folder) == figures(whole)
    one, other = (keras.saving.load_model(each / "unet_last.keras").get_weights() for each in (folder, whole))
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("quick")
def test_the_same_command_goes_on_and_says_so(data, runs, cut, capsys):
    assert main(["--data", str(data), *SMALL, "--output", str(cut), "--workers", "1"]) == 0
    assert "goes on from batch 1 of epoch 2, as left in " in said(capsys)
    assert_ends_as(cut, runs / "whole")


def test_a_copy_elsewhere_goes_on_with_a_copy_of_the_data(data, runs, cut, tmp_path, capsys):
    moved = shutil.copytree(data, tmp_path / "moved")
    assert main(["--resume", str(cut), "--data", str(moved)]) == 0
    assert_ends_as(cut, runs / "whole")
    ours, theirs = (json.loads((each / "metrics.json").read_text()) for each in (cut, runs / "whole"))
    assert ours["per_class"] == theirs["per_class"] and ours["best_epoch"] == theirs["best_epoch"]
    spent, before = Spent(**ours["spent"]), Spent(**theirs["spent"])  # after three of four batches, each of 4 photos
    assert (spent.photos, spent.goes_on, before.photos, before.goes_on) == (4, True, 16, False)
    assert f"learnt 4 photos in {spent.seconds:.0f} s since it went on, " in said(capsys)
    assert str(spent) in (cut / "report.html").read_text(encoding="utf-8")


def test_one_that_is_over_is_not_touched(runs, capsys):
    before = content(runs / "whole")
    assert main(["--resume", str(runs / "whole")]) == 0
    assert "is over: nothing is left to do" in said(capsys)
    assert content(runs / "whole") == before


@pytest.mark.parametrize(("flags", "code", "expected"), [
    (["--learning-rate", "0.1", "--seed", "3"], 4,
     r"cut short at batch 1 of epoch 2, with --learning-rate 0.005 \(now 0.1\), --seed 0 \(now 3\); take them back, "
     "give --restart to"),
    (["--epochs", "1"], 4, r"with --epochs 2 \(now 1\)"),
    (["--config", "a.json"], 2, "and --config; give only one of them"),
    (["--restart"], 2, "and --restart; give only one of them"),
    (["--time-limit", "0"], 2, "--time-limit: got '0'; expected a time above 0"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(cut, capsys, flags, code, expected):
    before = content(cut)
    assert main(["--resume", str(cut), *flags]) == code
    error = capsys.readouterr().err
    assert re.search(expected, error), error
    assert content(cut) == before


def test_other_flags_without_resume_are_refused_as_well(data, cut, capsys):
    assert main(["--data", str(data), *SMALL, "--output", str(cut), "--filters", "4"]) == 4
    assert "--filters 2 (now 4)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["mask", "photo"])
def test_data_that_changed_are_refused_by_name(data, cut, tmp_path, capsys, kind):
    changed = shutil.copytree(data, tmp_path / "changed")
    make_pairs(tmp_path / "others", train=9, val=1)
    if kind == "photo":
        shutil.copy(tmp_path / "others" / "train" / "9.png", changed / "train")
        (changed / "train" / "2.png").unlink()
    else:
        shutil.copy(tmp_path / "others" / "train" / "9.png", changed / "train" / "3.png")
    before = content(cut)
    assert main(["--resume", str(cut), "--data", str(changed)]) == 4
    error = capsys.readouterr().err
    assert "cut: cannot go on from batch 1 of epoch 2: the data are not those of the run: " in error
    expected = "train/9.png was not there; train/2.png is gone" if kind == "photo" else "train/3.png changed, or its"
    assert expected in error
    assert content(cut) == before


@pytest.mark.usefixtures("quick")
def test_a_damaged_state_is_told_and_the_one_before_gives_the_same(runs, cut, capsys):
    (newest,) = (cut / "checkpoints").glob("state-00001-00000001.npz")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert main(["--resume", str(cut)]) == 0
    text = said(capsys)
    assert "was changed or damaged" in text and "goes on from the end of epoch 1" in text
    assert_ends_as(cut, runs / "whole")


@pytest.mark.usefixtures("quick")
def test_restart_begins_again_and_keeps_the_files_from_before(data, runs, cut):
    assert main(["--data", str(data), *SMALL, "--output", str(cut), "--restart"]) == 0
    assert_ends_as(cut, runs / "whole")
    (archived,) = (cut / "archive").iterdir()
    assert list((archived / "checkpoints").glob("*.npz"))


@pytest.mark.usefixtures("quick")
def test_epochs_may_grow_and_it_is_said(runs, cut, tmp_path, capsys):
    assert main(["--resume", str(cut), "--epochs", "3"]) == 0
    assert "--epochs grows from 2 to 3: the learning rate now falls to 0 there" in said(capsys)
    rows = figures(cut)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[0] == figures(runs / "whole")[0] and float(rows[2]["learning_rate"]) < 1e-4
    finished = Path(shutil.copytree(runs / "whole", tmp_path / "whole"))
    assert main(["--resume", str(finished), "--epochs", "3"]) == 0  # its last state was kept
    assert figures(finished)[:2] == figures(runs / "whole") and len(figures(finished)) == 3


@pytest.mark.usefixtures("quick")
def test_a_finished_run_that_grows_and_is_cut_is_not_taken_for_finished(runs, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(runs / "whole", tmp_path / "whole"))
    with monkeypatch.context() as patch, pytest.raises(Power):
        cut_at(patch, 1)
        main(["--resume", str(folder), "--epochs", "3", "--checkpoint-minutes", "0"])
    (archived,) = (folder / "archive").iterdir()
    assert {"metrics.json", "report.html", "pred_1.png"} <= {path.name for path in archived.iterdir()}
    assert not (folder / "metrics.json").exists() and (folder / "unet_model.keras").exists()
    capsys.readouterr()
    assert main(["--resume", str(folder)]) == 0
    assert "goes on from batch 1 of epoch 3" in said(capsys)
    assert figures(folder)[:2] == figures(runs / "whole") and len(figures(folder)) == 3


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("number", "code", "way_out"), [
    (errno.EDQUOT, 6, "make room there"), (errno.EROFS, 4, "see that it can be written again"),
])  # fmt: skip
def test_a_disk_that_fails_in_the_middle_leaves_a_state_and_the_run_says_which(
    data, runs, tmp_path, monkeypatch, capsys, number, code, way_out
):
    command = ["--data", str(data), *SMALL, "--checkpoint-minutes", "0", "--output", str(tmp_path / "out")]
    savez, calls = np.savez, itertools.count(1)

    def fail(file, **arrays):
        if next(calls) == 3:
            raise OSError(number, "something with the disk", str(file))
        savez(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fail)
        assert main(command) == code
    assert f"something with the disk; {way_out}; the state at batch 2 of epoch 1 is in" in capsys.readouterr().err
    assert main(command) == 0
    assert_ends_as(tmp_path / "out", runs / "whole")


def test_a_run_that_is_being_written_is_neither_reported_on_nor_judged_in_its_place(runs, capsys):
    """The lock is of a process of its own, as a second one of this process would be."""
    folder = runs / "whole"
    code = "import sys; from pathlib import Path; from semseg.runs.lock import one_writer\n"
    code += "with one_writer(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout.readline() == b"locked\n"
        before = content(folder)
        for command in ("report", "evaluate"):
            assert commands([command, str(folder)]) == 4
            error = capsys.readouterr().err
            assert f"whole: process {writer.pid} on " in error and ", is writing there; wait for its end" in error
        assert content(folder) == before
        assert commands(["evaluate", str(folder), "--output", str(folder.parent / "elsewhere")]) == 0
        assert f"process {writer.pid} on " in (text := said(capsys)) and "the best weights until now" in text
        writer.stdin.close()
    assert commands(["report", str(folder), "--output", str(folder.parent / "page.html")]) == 0


def test_no_run_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder, expected in (("none", "expected the folder of a run"), ("empty", "holds no config.json")):
        assert main(["--resume", str(tmp_path / folder)]) == 4
        assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not list((tmp_path / "empty").iterdir())


@pytest.mark.usefixtures("quick")
def test_a_run_that_saved_nothing_yet_begins(data, runs, cut):
    Checkpoints(cut / "checkpoints").remove()
    assert main(["--resume", str(cut)]) == 0
    assert_ends_as(cut, runs / "whole")


@pytest.mark.usefixtures("quick")
def test_every_epoch_s_weights_are_kept_when_asked_for(data, tmp_path):
    flags = [*SMALL, "--keep", "every", "--output", str(tmp_path / "out")]
    assert main(["--data", str(data), *flags]) == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.keras"))
    assert names == ["unet_epoch_001.keras", "unet_epoch_002.keras", "unet_model.keras"]
