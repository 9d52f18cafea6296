"""The page as another computer sees it: over a cable between two network namespaces, which nothing else is in."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import REPOSITORY

pytestmark = pytest.mark.plain

UNSHARE = ("unshare", "--map-root-user", "--net")


def why_not():
    """Why this system gives no namespaces; empty where it does."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return "unshare and ip of Linux are not here"
    cable = "ip link add here type veth peer name there && unshare --net true"
    done = subprocess.run([*UNSHARE, "sh", "-c", cable], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"this system gives no network namespace: {done.stderr.strip()}"


def test_every_process_keeps_others_out_and_answers_whoever_has_the_token():
    if reason := why_not():
        pytest.skip(reason)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))}
    done = subprocess.run(
        [*UNSHARE, sys.executable, str(REPOSITORY / "tests" / "other_computer.py")],
        env=environment, capture_output=True, text=True, check=False, timeout=150,
    )  # fmt: skip
    assert done.stdout.strip(), done.stderr
    told = json.loads(done.stdout)
    assert {name: set(codes) for name, codes in told.items()} == {
        "nothing": {401},
        "a wrong token": {401},
        "the page": {401},
        "metrics": {401},
        "health": {200},
        "the token": {200},
        "a password": {200},
        "another site": {403},
        "a long body": {413},
        "no photo": {422},
        "a path": {404},
    }
