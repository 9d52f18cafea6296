"""Files that do not come: what counts as a halt, what does not, and what is saved."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from helpers import REPOSITORY

from semseg.files import FILES_IN_HAND, in_hand
from semseg.runs import stalling
from semseg.runs.stalling import DaemonPool, StalledError, Watch, result_of

pytestmark = pytest.mark.plain
SHARE = Path("share") / "a.png"


@pytest.fixture()
def watch(monkeypatch, capfd):
    """Waits for a fifth of a second, and would end the process after a minute more."""
    monkeypatch.setattr(stalling, "_TICK", 0.05)
    monkeypatch.setattr(stalling, "GRACE", 60)
    with Watch(pytest.fail, 0.2) as watch:
        yield watch


@pytest.fixture()
def pool():
    pool, ended = DaemonPool(1, "test"), threading.Event()
    yield pool, ended
    ended.set()
    pool.close()


def hold(ended, move=lambda: None):
    """Waits for a file that does not come, in a thread."""
    with in_hand(SHARE):
        while not ended.wait(0.02):
            move()
    return "it came"


def test_a_file_that_does_not_come_ends_the_wait_with_its_name_and_the_stacks(watch, pool, capfd):
    pool, ended = pool
    with pytest.raises(StalledError, match=r"a\.png: not read or written in 0\.2 s; look after its disk or network"):
        result_of(pool.submit(hold, ended))
    assert "test_stalling.py" in (stacks := capfd.readouterr().err) and " in hold\n" in stacks


def test_one_that_comes_late_is_no_halt(watch, pool):
    pool, ended = pool
    future = pool.submit(hold, ended)
    while watch.error is None:
        time.sleep(0.01)
    ended.set()
    while watch.error is not None:  # nobody asked while nothing moved
        time.sleep(0.01)
    assert result_of(future) == "it came"


def test_other_files_that_move_are_no_halt(watch, pool):
    def move():
        with in_hand(SHARE):
            time.sleep(0.001)

    pool, ended = pool
    future = pool.submit(hold, ended)
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        move()
        assert watch.error is None
    ended.set()
    assert result_of(future) == "it came"


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="the system does not count bytes")
def test_a_slow_file_of_which_bytes_come_is_no_halt(watch, pool, tmp_path):
    (tmp_path / "large").write_bytes(bytes(100_000))
    pool, ended = pool
    future = pool.submit(hold, ended, (tmp_path / "large").read_bytes)
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        assert watch.error is None
        time.sleep(0.01)
    ended.set()
    assert result_of(future) == "it came"


def test_where_no_file_is_in_hand_nothing_is_counted(watch, pool):
    pool, ended = pool
    future = pool.submit(ended.wait)  # compiles, or computes
    time.sleep(0.6)
    assert watch.error is None
    ended.set()
    assert result_of(future) is True


def test_what_a_thread_raises_comes_out_be_it_a_timeout():
    future = Future()
    future.set_exception(TimeoutError("of its own"))
    with pytest.raises(TimeoutError, match="of its own"):
        result_of(future)


def test_blocks_within_blocks_are_told_apart():
    with in_hand(Path("a")):
        with in_hand(Path("b")):
            assert FILES_IN_HAND[threading.get_ident()][1] == Path("b")
        assert FILES_IN_HAND[threading.get_ident()][1] == Path("a")
    assert threading.get_ident() not in FILES_IN_HAND


@pytest.mark.parametrize("work", ["hold()", "pool.submit(hold); time.sleep(60)"], ids=["main", "other"])
def test_a_process_that_cannot_end_by_itself_is_ended_with_the_line_and_code_6(work):
    code = f"""
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from semseg.files import in_hand
from semseg.runs import stalling
stalling._TICK = stalling.GRACE = 0.1

def hold():
    with in_hand(Path("a.png")):
        time.sleep(60)

pool = ThreadPoolExecutor(1)
with stalling.Watch(lambda line: print(line, flush=True), 0.3):
    {work}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout == "a.png: not read or written in 0.3 s; look after its disk or network share\n"
    assert done.returncode == 6
    assert "in hold" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_a_process_that_was_stopped_for_long_goes_on():
    """As a computer that slept: the clock went on, the process did not."""
    code = """
import time
from pathlib import Path
from semseg.files import in_hand
from semseg.runs import stalling
stalling._TICK = 0.1
with stalling.Watch(print, 1.0), in_hand(Path("a.png")):
    print("ready", flush=True)
    time.sleep(0.3)
print("over")
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "over\n" and process.returncode == 0
