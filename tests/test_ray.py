"""Prediction by the workers of a Ray cluster, and what these do when something is missing."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, save_rgb_network
from PIL import Image

from semseg.cli import commands, workers
from semseg.cli.flags import build_parser
from semseg.errors import SemsegError
from semseg.images.png_writer import PngWriter
from semseg.inference.predictions import supervise

pytestmark = pytest.mark.plain  # which backend computes is of no matter here

COUNT = 30
FLAGS = ("--objects", "all", "--polygons", "coco", "--workers", "1", "--batch-size", "1")
ON_TWO_CORES = """
import sys
from semseg.backend import ray_cluster
from semseg.cli import commands, on_ray
start = ray_cluster.ray.init
def init(address, **options):
    if address != "local":
        raise ConnectionError("nobody else's cluster")
    start(address, num_cpus=2, **options)
ray_cluster.ray.init = init
on_ray._PER_WORKER = 1
sys.exit(commands(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_rgb_network(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def whole(model, photos, tmp_path_factory):
    """What one process writes."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert commands(words(model, photos, output)) == 0
    return files_of(output)


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    workers._opened.clear()


def words(model, photos, output, *flags):
    return ["predict", str(model), str(photos), "--output", str(output), *FLAGS, *flags]


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def worker_in_the_middle(output):
    """The process of a part that has some rows of its table, but not all."""
    for table in output.glob("shares.*.unfinished.csv"):
        number = table.name.split(".")[1]
        with contextlib.suppress(OSError, ValueError):
            if 2 < len(table.read_text().splitlines()) < COUNT // 4:
                return json.loads((output / f".semseg.lock.{number}").read_text())["pid"]
    return None


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_two_workers_of_which_one_is_killed_give_what_one_process_gives(model, photos, whole, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "HOME": str(home)}
    output, killed = tmp_path / "out", None
    command = [sys.executable, "-c", ON_TWO_CORES, *words(model, photos, output, "--ray")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as process:
        while not killed and process.poll() is None:
            time.sleep(0.002)
            killed = worker_in_the_middle(output)
        if killed:
            os.kill(killed, signal.SIGKILL)
        said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "") and killed
    assert "a cluster of this computer alone, 2 CPU cores: 2 parts, 2 at once" in " ".join(said.split())
    assert "all 2 parts into shares.csv" in said and "failed" not in said
    assert files_of(output) == whole
    assert not (home / ".ray").exists()  # where Ray keeps tokens


def part(model, photos, output, token, number=1):
    """What a worker makes of a part, in this process."""
    options = vars(build_parser().parse_args(words(model, photos, output)))
    return workers.part_of_worker({**options, "parser": None}, f"{number}/2", token, 1)


def test_a_worker_on_another_disk_says_so_and_writes_nothing(model, photos, tmp_path):
    output = tmp_path / "out"
    with supervise(output) as (token, begun):
        assert begun == 0
        elsewhere = part(model, photos, tmp_path / "elsewhere", token)
        assert elsewhere.code == 4 and "`output`: this worker does not see" in elsewhere.message
        without = part(tmp_path / "gone", photos, output, token)
        assert without.code == 4 and f"`model`: this worker does not see {tmp_path / 'gone'}" in without.message
        assert not (tmp_path / "elsewhere").exists()
        assert part(model, tmp_path / "gone", output, token).code == 3
    assert not output.exists()


def test_a_full_disk_under_one_part_leaves_the_others_and_the_same_command_goes_on(
    model, photos, whole, tmp_path, monkeypatch
):
    write, calls = PngWriter.write, []

    def failing(self, rows):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rows)

    output = tmp_path / "out"
    with supervise(output) as (token, _):
        with monkeypatch.context() as patch:
            patch.setattr(PngWriter, "write", failing)
            full = part(model, photos, output, token)
        assert full.code == 6 and f"{output}: no space left; free some or choose another" in full.message
        for path in output.rglob("*.png"):
            Image.open(path).load()
        assert part(model, photos, output, token, 2).code == 0
        assert not (output / "shares.csv").exists() and (output / "shares.2-of-2.csv").exists()
    with supervise(output) as (token, begun):
        assert begun == 2
        rest = part(model, photos, output, token)
    assert rest.code == 0 and "merged" in [topic for topic, _ in rest.lines]
    assert files_of(output) == whole


def test_two_commands_for_one_folder_are_refused(model, photos, tmp_path, capsys):
    code = "import sys\nfrom pathlib import Path\nfrom semseg.inference.predictions import supervise\n"
    code += f"with supervise(Path({str(tmp_path / 'out')!r})):\n    print(flush=True)\n    sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, **pipes) as process:
        process.stdout.readline()
        assert commands(words(model, photos, tmp_path / "out")) == 4  # all of it, by one process
        process.stdin.close()
    assert "is writing there" in capsys.readouterr().err


class FakeCluster:
    """Gives what it is told to, in place of workers."""

    def __init__(self, *parts):
        self.parts = dict(enumerate(parts, start=1))

    def num_cpus(self, threads):
        return threads

    def at_once(self, threads):
        return len(self.parts)

    def results(self, function, tasks, threads):
        assert list(tasks) == list(self.parts)
        yield from self.parts.items()


@pytest.fixture
def on_ray(monkeypatch):
    pytest.importorskip("ray", reason="ray is not installed")
    from semseg.cli import on_ray

    monkeypatch.setattr(on_ray, "_PER_WORKER", 1)
    return on_ray


FULL = workers.Part("node7", [], "out: no space left; free some or choose another `output`", 6)
SKIPPED = workers.Part("node8", [("model", "m"), ("skipped", "3.png: cut")], "1 of 9 photos cannot be used", 3)
REFUSED = workers.Part("node9", [], "`model`: this worker does not see m", 4)


@pytest.mark.parametrize(
    ("parts", "code", "said"),
    [
        ((FULL, SKIPPED), 6, "1 of 2 parts failed; the same command goes on with them"),
        ((SKIPPED, workers.Part("", [])), 3, f"1 of {COUNT} photos cannot be used and were skipped; replace or remove"),
        ((REFUSED, FULL), 4, "error: on node9: model: this worker does not see m"),
    ],
)
def test_exit_codes_are_those_of_one_process(model, photos, tmp_path, capsys, on_ray, monkeypatch, parts, code, said):
    monkeypatch.setattr(on_ray, "ray_cluster", lambda address: contextlib.nullcontext(FakeCluster(*parts)))
    assert commands(words(model, photos, tmp_path / "out", "--ray")) == code
    output = capsys.readouterr()
    assert said in output.err and output.err.count("\n") == 1
    assert ("skipped   3.png: cut" in output.out) == (SKIPPED in parts)
    assert ("failed    part 1/2: on node7: out: no space left; free some or choose another --output" in output.out) == (
        parts[0] is FULL
    )


def test_a_worker_that_dies_again_is_told(on_ray):
    from semseg.backend import ray_cluster

    error = ray_cluster._DEATHS[0]()
    with pytest.MonkeyPatch.context() as patch:

        def die(task):
            raise error

        patch.setattr(ray_cluster.ray, "get", die)
        assert str(ray_cluster._result_of(None)).startswith("its worker died again; see the logs of Ray")


def test_a_cluster_without_semseg_is_told(on_ray, monkeypatch):
    from semseg.backend import ray_cluster

    def lack(task):
        raise ray_cluster.ray.exceptions.RayTaskError("f", "...ModuleNotFoundError: No module named 'semseg'", None)

    monkeypatch.setattr(ray_cluster.ray, "get", lack)
    with pytest.raises(SemsegError, match="the cluster has no semseg; install semseg and a backend on all"):
        ray_cluster._result_of(None)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--ray", "127.0.0.1:1"), 6, "error: --ray: no cluster at 127.0.0.1:1 ("),
        (("--ray", "nonsense"), 2, "error: --ray: got 'nonsense'; expected auto, host:6379, or ray://host:10001"),
        (("--ray", "--shard", "1/2"), 2, "error: --ray: makes the parts itself; leave out --shard 1/2"),
    ],
)
def test_what_cannot_be(model, photos, tmp_path, capsys, on_ray, flags, code, said):
    assert commands(words(model, photos, tmp_path / "out", *flags)) == code
    assert capsys.readouterr().err.startswith(said) and not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(model, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("semseg.errors.is_installed", lambda module: module != "ray")
    assert commands(words(model, photos, tmp_path / "out", "--ray")) == 2
    assert "error: predict: needs ray; run pip install" in (said := capsys.readouterr().err) and "[ray]'" in said


def test_few_photos_make_few_parts(on_ray):
    assert [on_ray.parts_of(photos, 8) for photos in (1, 5, 100_000, 10**7)] == [1, 5, 100, 256]


def test_paths_that_are_sent_begin_at_the_root(on_ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [on_ray._everywhere(path) for path in ("a/b", "s3://a/b")] == [str(Path(tmp_path, "a", "b")), "s3://a/b"]
