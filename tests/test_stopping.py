"""Signals and time limits: noted at once, obeyed between two batches, and never without an end."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import REPOSITORY

from semseg.errors import SemsegError, StopRequest
from semseg.runs.stopping import Stopping, seconds_of

pytestmark = [
    pytest.mark.plain,
    pytest.mark.skipif(os.name == "nt", reason="no such signals there"),
]

START = """
import hashlib, signal, sys, time
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may have started the tests
from semseg.errors import StopRequest
from semseg.runs import stopping
stopping.PATIENCE = stopping.SAVING_PATIENCE = 0.5

def batches(look):
    while not look():
        time.sleep(0.01)

def compute():  # in C, where Python hears nothing
    hashlib.pbkdf2_hmac("sha256", b"", b"", 50_000_000)

def say(text):
    print(text, flush=True)

limit = float(sys.argv[1]) if len(sys.argv) > 1 else None
try:
    with stopping.Stopping(say, limit) as stop:
        say("ready")
        {work}
        say("over")
except StopRequest as request:
    say(request.text)
    sys.exit(request.exit_code)
"""
PATIENT = "with stop.between_batches(): "


def started(work, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", START.replace("{work}", work), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def outcome(work, *signals, limit=None, pause=0.2):
    """What a process that does `work` says and returns, and the seconds that it took after the first signal."""
    with started(work, *([str(limit)] if limit else [])) as process:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for number in signals:
            time.sleep(pause)
            process.send_signal(number)
        said = process.communicate(timeout=60)[0].strip()
        return said, process.returncode, time.monotonic() - began - pause


@pytest.mark.parametrize(("number", "word", "code"), [
    (signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "SIGHUP", 129),
])  # fmt: skip
def test_a_signal_ends_at_once_what_has_nothing_to_save(number, word, code):
    assert outcome("time.sleep(60)", number)[:2] == (f"stopped by {word}", code)


def test_between_batches_the_work_itself_looks_and_may_save():
    work = PATIENT + "batches(lambda: stop.request); time.sleep(0.2); say('saved'); raise stop.request"
    assert outcome(work, signal.SIGTERM)[:2] == ("saved\nstopped by SIGTERM", 143)


def test_one_that_comes_after_the_last_look_is_not_lost():
    work = PATIENT + "batches(lambda: stop._request)"
    assert outcome(work, signal.SIGTERM)[:2] == ("stopped by SIGTERM", 143)


def test_a_second_signal_ends_at_once_what_is_saving():
    work = PATIENT + "batches(lambda: stop.request); time.sleep(60)"
    assert outcome(work, signal.SIGINT, signal.SIGINT)[:2] == ("stopped by Ctrl-C", 130)


@pytest.mark.parametrize(("signals", "why"), [
    ((signal.SIGTERM,), "it was busy"), ((signal.SIGTERM, signal.SIGTERM), "asked twice"),
])  # fmt: skip
def test_a_batch_that_does_not_end_is_ended(signals, why):
    said, code, seconds = outcome(PATIENT + "compute()", *signals, pause=0.1)
    assert (said, code) == (f"stopped by SIGTERM; {why}, so nothing more was saved", 143)
    assert seconds < 5


@pytest.mark.parametrize("work", ["time.sleep(60)", PATIENT + "batches(lambda: stop.request); raise stop.request"])
def test_the_end_of_a_time_limit_says_go_on(work):
    said, code, seconds = outcome(work, limit=1)
    assert (said, code) == ("stopped by the time limit", 75)
    assert seconds < 3  # three quarters of the limit, and then some for a machine that is busy


def test_nothing_stays_behind():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Stopping(pytest.fail, 60.0) as stop:
        assert signal.getsignal(signal.SIGTERM) not in before
    assert stop.request is None
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_was_started_by_nohup_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping(pytest.fail):
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(StopRequest):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_times_are_read():
    texts = ("45s", "90m", "2h", "1h30m", "1:30:00", "0:00:07")
    assert [seconds_of(text) for text in texts] == [45, 5400, 7200, 5400, 5400, 7]
    assert seconds_of(None) is None


@pytest.mark.parametrize("text", ["0", "0m", "", "2", "h", "-1h", "1:30", "1.5h", "nan"])
def test_times_that_are_none_are_refused(text):
    with pytest.raises(SemsegError, match=f"`time_limit`: got '{text}'; expected a time above 0, such as 90m, 2h"):
        seconds_of(text)
