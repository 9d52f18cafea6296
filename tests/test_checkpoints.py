"""States on disk, and one writer at a time."""

import errno
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
from helpers import REPOSITORY

from semseg.errors import RunFolderError
from semseg.files import clear_temporaries, replacing
from semseg.runs import lock, names
from semseg.runs.checkpoints import Checkpoints, Position, _digest
from semseg.runs.lock import one_writer

pytestmark = pytest.mark.plain


@pytest.fixture()
def states(tmp_path):
    """After batch 2 of epoch 1, after epoch 1 and after batch 3 of epoch 2; the first is gone again."""
    states, model = Checkpoints(tmp_path / "checkpoints"), tmp_path / "unet_model.keras"
    model.write_bytes(b"best of epoch 1")
    for epoch, batch in ((0, 2), (1, 0), (1, 3)):
        arrays = {"weights.0000": np.full(3, 10 * epoch + batch, np.float32), "history": np.array([[np.nan]])}
        states.write(Position(epoch, batch), arrays, {"best_epoch": epoch}, model if epoch else None)
    return states


def files_of(states):
    return sorted(path.name for path in states.folder.iterdir())


class TestCheckpoints:
    def test_the_newest_comes_back_as_it_was_and_two_are_kept(self, states):
        found = states.newest(pytest.fail)
        assert (found.position, found.facts) == (Position(1, 3), {"best_epoch": 1})
        assert found.best_model.read_bytes() == b"best of epoch 1"
        assert found.arrays["weights.0000"].tolist() == [13, 13, 13]
        assert found.arrays["weights.0000"].dtype == np.float32
        assert np.isnan(found.arrays["history"]).all()
        assert files_of(states) == [
            "best-00001.keras", "state-00001-00000000.json", "state-00001-00000000.npz", "state-00001-00000003.json",
            "state-00001-00000003.npz",
        ]  # fmt: skip

    @pytest.mark.parametrize("ending", ["json", "npz"])
    @pytest.mark.parametrize("harm", ["flipped", "cut", "emptied", "missing"])
    def test_a_damaged_one_is_told_and_the_one_before_is_taken(self, states, ending, harm):
        if (ending, harm) == ("json", "missing"):
            pytest.skip("a state without a manifest was never whole")
        path, told = states.folder / f"state-00001-00000003.{ending}", []
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"flipped": bytes(content), "cut": content[: len(content) // 2]}.get(harm, b""))
        if harm == "missing":
            path.unlink()
        assert states.newest(told.append).position == Position(1)
        (line,) = told
        assert line.startswith(str(path.with_suffix(".json"))) and line.endswith("; going on from the state before")

    def test_a_flipped_bit_in_any_byte_of_a_manifest_is_found(self, states):
        path = states.folder / "state-00001-00000003.json"
        content = path.read_bytes()
        for place in range(0, len(content), 7):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            told = []
            assert states.newest(told.append).position == Position(1) or content[place : place + 1].isspace()

    def test_none_that_is_whole_is_refused_and_never_the_beginning(self, states):
        for path in states.folder.glob("*.npz"):
            path.write_bytes(b"")
        with pytest.raises(RunFolderError, match="no state in there is whole; `restart` to train from the beginning"):
            states.newest(lambda line: None)

    def test_the_best_weights_count_as_a_piece_and_the_run_s_own_file_may_stand_in(self, states, tmp_path):
        (states.folder / "best-00001.keras").write_bytes(b"best of epoch 2")
        with pytest.raises(RunFolderError, match="no state in there is whole"):
            states.newest(lambda line: None)
        own = tmp_path / "unet_model.keras"
        assert states.newest(pytest.fail, own).best_model == own

    def test_one_without_a_manifest_does_not_count(self, tmp_path):
        states = Checkpoints(tmp_path)
        assert states.newest(pytest.fail) is None and states.note() == "no state was saved yet"
        (tmp_path / "state-00000-00000001.npz").write_bytes(b"the first save was cut short")
        assert states.newest(pytest.fail) is None

    def test_one_of_a_later_version_is_refused(self, states):
        path = states.folder / "state-00001-00000003.json"
        content = {**json.loads(path.read_text())["content"], "format": 2}
        path.write_text(json.dumps({"sha256": _digest(content), "content": content}))
        with pytest.raises(RunFolderError, match="is of form 2, and this version of semseg reads 1; use a later"):
            states.newest(pytest.fail)

    def test_what_lies_after_the_one_that_was_gone_on_from_goes(self, states):
        (states.folder / "state-00001-00000003.npz").write_bytes(b"damaged")
        states.write(Position(1, 1), {"a": np.zeros(1)}, {"best_epoch": 0}, None)
        assert states.newest(pytest.fail).position == Position(1, 1)
        assert [name for name in files_of(states) if name.endswith("json")] == [
            "state-00001-00000000.json", "state-00001-00000001.json",
        ]  # fmt: skip

    def test_a_save_that_fails_leaves_the_ones_before(self, states, monkeypatch):
        def fail(file, **arrays):
            file.write_bytes(b"a part")
            raise OSError(errno.ENOSPC, "No space left on device")

        before = files_of(states)
        monkeypatch.setattr(np, "savez", fail)
        with pytest.raises(OSError, match="No space"):
            states.write(Position(2), {"a": np.zeros(1)}, {"best_epoch": 0}, None)
        assert files_of(states) == before
        assert states.newest(pytest.fail).position == Position(1, 3)

    def test_nothing_of_others_is_removed(self, states):
        for name in ("notes.txt", "best.keras", "state-1.json"):
            (states.folder / name).write_text("mine")
        states.remove()
        assert files_of(states) == ["best.keras", "notes.txt", "state-1.json"]

    def test_positions_in_words(self):
        assert [str(Position(*place)) for place in ((0,), (0, 2), (3,), (3, 1))] == [
            "the start", "batch 2 of epoch 1", "the end of epoch 3", "batch 1 of epoch 4",
        ]  # fmt: skip


HOLD = """
import sys, time
from pathlib import Path
from semseg.errors import RunFolderError
from semseg.runs.lock import one_writer
try:
    with one_writer(Path(sys.argv[1])):
        print("mine", flush=True)
        time.sleep(float(sys.argv[2]))
        sys.stdin.read()
except RunFolderError as error:
    print(error, flush=True)
"""


def holding(folder, seconds):
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class TestLock:
    def test_a_second_writer_is_refused_with_the_first_one_s_name(self, tmp_path):
        with one_writer(tmp_path), holding(tmp_path, 0) as other:
            said = other.communicate()[0]
        assert (
            said.startswith(f"{tmp_path}: process {os.getpid()} on ") and "is writing there; wait for its end" in said
        )
        with holding(tmp_path, 0) as other:
            assert other.communicate()[0] == "mine\n"
        assert list(tmp_path.iterdir()) == []

    def test_of_many_that_start_at_once_one_wins(self, tmp_path):
        started = [holding(tmp_path / "new", 0) for _ in range(8)]
        said = [process.stdout.readline() for process in started]  # the one that wins waits for the end of its input
        for process in started:
            process.communicate()
        assert sum(text == "mine\n" for text in said) == 1
        assert list(tmp_path.glob("new/*")) == []  # nothing was written; a loser may have made the folder first

    def test_a_dead_owner_s_is_taken_over(self, tmp_path):
        with holding(tmp_path, 60) as other:
            assert other.stdout.readline() == "mine\n"
            other.kill()
        assert (tmp_path / names.LOCK).exists()
        with one_writer(tmp_path):
            assert json.loads((tmp_path / names.LOCK).read_text())["pid"] == os.getpid()

    @pytest.mark.parametrize(("age", "taken"), [(10, False), (1000, True)])
    def test_another_host_s_is_taken_over_after_its_silence(self, tmp_path, age, taken):
        path = tmp_path / names.LOCK
        path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "2026-01-01 00:00:00"}))
        os.utime(path, (time.time() - age,) * 2)
        refused = pytest.raises(RunFolderError, match="process 1 on elsewhere, since 2026-01-01 00:00:00, is writing")
        with nullcontext() if taken else refused, one_writer(tmp_path):
            assert json.loads(path.read_text())["pid"] == os.getpid()

    def test_an_owner_shows_that_it_lives(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
        with one_writer(tmp_path):
            os.utime(tmp_path / names.LOCK, (0, 0))
            until = time.monotonic() + 5
            while (tmp_path / names.LOCK).stat().st_mtime == 0 and time.monotonic() < until:
                time.sleep(0.01)
            assert time.time() - (tmp_path / names.LOCK).stat().st_mtime < 60

    def test_where_a_disk_knows_no_locks_processes_are_asked(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lock, "_lock", lambda descriptor: None)
        with one_writer(tmp_path), pytest.raises(RunFolderError, match="is writing there"), one_writer(tmp_path):
            pass


def test_temporary_files_of_dead_processes_are_cleared_and_no_others(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    (tmp_path / "checkpoints").mkdir()
    left = [
        tmp_path / f".unet_model.{gone.pid}.tmp.keras",
        tmp_path / "checkpoints" / f".state-00001.{gone.pid}.tmp.npz",
    ]
    theirs = [tmp_path / ".notes.tmp.txt", tmp_path / ".a.tmp", tmp_path / f"b.{gone.pid}.tmp.keras"]
    for path in (*left, *theirs):
        path.write_text("")
    with replacing(tmp_path / "living.txt") as living:
        living.write_text("")
        clear_temporaries(tmp_path)
        assert living.exists()
    assert not any(path.exists() for path in left) and all(path.exists() for path in theirs)
