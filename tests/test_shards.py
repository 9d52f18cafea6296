"""Prediction by several processes that know nothing of each other, and lists of photos."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import IMPORT_KERAS, REPOSITORY, save_rgb_network
from PIL import Image

from semseg.backend.launchers import place_among
from semseg.cli import commands
from semseg.errors import DataError, SemsegError
from semseg.inference import listing
from semseg.inference.listing import Photos, Shard, photos_of
from semseg.inference.predictions import SharesTable

COUNT = 9
FLAGS = ("--objects", "all", "--polygons", "coco", "--no-overlays")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_rgb_network(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(5, axis=0).repeat(6, axis=1)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.fromarray(pixels).save(folder / "8.bmp")  # so that some files keep the suffix in their name
    return folder


@pytest.fixture(scope="module")
def whole(model, photos, tmp_path_factory):
    """What one process writes."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert predict(model, photos, output) == 0
    return files_of(output)


def predict(model, what, output, *flags):
    return commands(["predict", str(model), str(what), "--output", str(output), *FLAGS, *map(str, flags)])


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def names_in(output, table="shares.csv"):
    with (output / table).open(newline="") as file:
        return [row["photo"] for row in csv.DictReader(file)]


def test_three_shards_of_which_one_is_killed_give_what_one_process_gives(model, photos, whole, tmp_path, capsys):
    output = tmp_path / "out"
    slow = f"""{IMPORT_KERAS}
import time
from semseg.cli import commands
from semseg.inference.predictions import SharesTable
add = SharesTable.add
def add_slowly(*values):
    add(*values)
    print("row", flush=True)
    time.sleep(60)
SharesTable.add = add_slowly
commands({["predict", str(model), str(photos), "--output", str(output), *FLAGS, "--shard", "2/3"]!r})
"""
    with subprocess.Popen([sys.executable, "-c", slow], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() != "row\n":
            assert process.poll() is None
        assert predict(model, photos, output, "--shard", "2/3") == 4  # the same part twice
        assert predict(model, photos, output) == 4  # all, while a part is at work
        assert predict(model, photos, output, "--shard", "1/4") == 4
        said = capsys.readouterr().err
        assert said.count("is writing there") == 2 and "is predicted in 3 parts, and got --shard 1/4" in said
        assert predict(model, photos, output, "--shard", "1/3") == 0
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    with (output / "shares.2-of-3.unfinished.csv").open("a") as file:
        file.write("7.png,30")  # a row that was cut
    (output / "masks" / ".7.1234.tmp.png").touch()  # and a file that was not finished
    assert predict(model, photos, output, "--shard", "3/3") == 0
    assert not (output / "shares.csv").exists() and "1 of 3 are not finished" in capsys.readouterr().out
    assert predict(model, photos, output, "--shard", "2/3") == 0
    assert "1 of them are done" in (said := capsys.readouterr().out)
    assert "all 3 parts into shares.csv, objects.csv, counts.csv, coco.json" in " ".join(said.split())
    assert files_of(output) == whole


def test_the_command_without_a_shard_takes_over(model, photos, whole, tmp_path):
    output = tmp_path / "out"
    assert predict(model, photos, output, "--shard", "3/3") == 0
    assert set(names_in(output, "shares.3-of-3.csv")) < set(map(str, (path.name for path in photos.iterdir())))
    assert predict(model, photos, output) == 0
    assert files_of(output) == whole
    assert predict(model, photos, output, "--shard", "1/2") == 0  # has nothing to do, and is no other command


def test_other_flags_are_refused(model, photos, tmp_path, capsys):
    assert predict(model, photos, tmp_path / "out", "--shard", "1/2") == 0
    assert predict(model, photos, tmp_path / "out", "--shard", "2/2", "--values") == 4
    assert "another setting (files)" in capsys.readouterr().err


def test_parts_wait_for_whoever_predicts_all(model, photos, tmp_path, capsys):
    code = "import sys\nfrom pathlib import Path\nfrom semseg.runs.lock import one_writer\n"
    code += f"with one_writer(Path({str(tmp_path / 'out')!r})):\n    print(flush=True)\n    sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, **pipes) as process:
        process.stdout.readline()
        assert predict(model, photos, tmp_path / "out", "--shard", "1/2") == 4
        process.stdin.close()
    assert "is writing there" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["4/3", "0/3", "1/0", "3", "a/b", "-1/3", "1/3/5", ""])
def test_what_is_no_part(model, photos, tmp_path, capsys, text):
    assert predict(model, photos, tmp_path / "out", f"--shard={text}") == 2
    assert capsys.readouterr().err.startswith("error: --shard: got ")
    assert not (tmp_path / "out").exists()


def test_each_photo_is_in_one_part_whatever_the_others():
    names = [f"{number}.jpg" for number in range(300)]
    parts = [[name for name in names if Shard(number, 3).holds(name)] for number in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(70 < len(part) < 130 for part in parts)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "3"}, (2, 3)),
        ({"JOB_COMPLETION_INDEX": "7", "JOB_COMPLETIONS": "8"}, (7, 8)),
        (dict.fromkeys(("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID"), "1")
         | {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, (3, 4)),
    ],
)  # fmt: skip
def test_launchers_say_which_part(environment, expected):
    assert place_among(environment) == expected


@pytest.mark.parametrize(
    ("environment", "match"),
    [
        ({}, "no launcher"),
        ({"JOB_COMPLETION_INDEX": "7"}, "JOB_COMPLETIONS: got ''"),
        ({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}, "has gaps"),
    ],
)
def test_launchers_that_say_too_little(environment, match):
    with pytest.raises(SemsegError, match=match):
        place_among(environment)


def test_a_list_is_relative_to_its_folder_and_names_a_photo_once(model, photos, tmp_path, capsys):
    place = tmp_path / "work"
    place.mkdir()
    (place / "3.png").write_bytes((photos / "3.png").read_bytes())
    lines = ["3.png", "", str(photos / "1.png"), "./3.png", "gone.png"]
    (place / "list.txt").write_text("\r\n".join(lines), encoding="utf-8-sig")
    assert predict(model, place / "list.txt", tmp_path / "out") == 3
    assert "1 of 3 photos cannot be used" in capsys.readouterr().err
    outside = (photos / "1.png").as_posix().lstrip("/")
    assert names_in(tmp_path / "out") == ["3.png", outside]
    assert (tmp_path / "out" / "masks" / outside).is_file()


def test_lists_that_are_none(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a.png\n\x00\n")
    with pytest.raises(DataError, match="line 2 holds a zero byte"):
        photos_of(str(tmp_path / "list.txt"), tmp_path / "out", [])
    (tmp_path / "list.txt").write_bytes(b"\n")
    with pytest.raises(DataError, match="holds no photos"):
        photos_of(str(tmp_path / "list.txt"), tmp_path / "out", [])


MEASURE = """
import sys, tracemalloc
from semseg.inference.listing import photos_of
len(photos_of(sys.argv[1], "out", []))  # what is imported does not count
tracemalloc.start()
names = sum(1 for _ in photos_of(sys.argv[2], "out", []))
print(names, tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.plain
def test_names_of_a_long_list_are_not_held(tmp_path):
    """In a process of its own, as what other tests left behind allocates, too."""
    count = 20_000
    text = "".join(f"{number:05}{'x' * 240}.png\n" for number in range(count))
    (tmp_path / "list.txt").write_text(text)
    (tmp_path / "short.txt").write_text("a.png\nb.png\n")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "short.txt"), str(tmp_path / "list.txt")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names, peak = map(int, done.stdout.split())
    assert names == count and peak < len(text) / 2


def test_two_photos_of_one_name_in_a_list_are_refused(tmp_path):
    photos = Photos(tmp_path, ["data/a.png", "/data/a.png"])
    with pytest.raises(DataError, match="goes by the name of"):
        list(photos)


def test_more_photos_than_are_sorted_at_once_end_in_natural_order(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_IN_ORDER", 4)
    for number in range(11):
        (tmp_path / f"{number}.png").touch()
    photos = photos_of(str(tmp_path), tmp_path / "out", [])
    assert sorted(name for name, _ in photos) == sorted(f"{number}.png" for number in range(11))
    assert [name for name, _ in photos.in_order()] == [f"{number}.png" for number in range(11)]


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "A.jpg", "b.png"], ["a.png", "A.jpg", "b"]),
        (["a.png", "a.jpg", "a.png.png"], ["a.png", "a.jpg", "a.png.png"]),  # `a.png` would be taken
        (["x.y/a", ".hidden", "a."], ["x.y/a", ".hidden", "a."]),
    ],
)
def test_files_of_two_photos_never_have_one_name(names, stems):
    photos = Photos(Path("root"), names)
    assert [photos.stem_of(name) for name in names] == stems


def test_rows_are_found_by_name_and_the_last_counts(tmp_path):
    columns = ("photo", "width", "height", "sha256")
    table = SharesTable(tmp_path / "shares.csv", columns, ["a", "b"])
    for name, digest in (("x\ny.png", "1"), ("b.png", "2"), ("x\ny.png", "3"), ("gone.png", "4")):
        table.add(dict(zip(columns, (name, 2, 1, digest), strict=True)), np.array([1, 1]), 0)
    table.close()
    table = SharesTable(tmp_path / "shares.csv", columns, ["a", "b"])
    assert table.row_of("x\ny.png") == ["x\ny.png", "2", "1", "3", "0.500000", "0.500000"]
    assert table.row_of("c.png") is None
    table.finish(["b.png", "c.png", "x\ny.png"])
    assert names_in(tmp_path) == ["b.png", "x\ny.png"] and len(table) == 2 and "gone.png" not in table
    assert table.total_shares().tolist() == [0.5, 0.5]
    table.close()


def test_all_parts_may_start_at_once(model, photos, whole, tmp_path):
    code = f"{IMPORT_KERAS}\nimport sys\nfrom semseg.cli import commands\nsys.exit(commands(sys.argv[1:]))"
    words = ["predict", str(model), str(photos), "--output", str(tmp_path / "out"), *FLAGS, "--shard"]
    started = [
        subprocess.Popen([sys.executable, "-c", code, *words, f"{number}/2"], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        for number in (1, 2)
    ]
    start = time.monotonic()
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert time.monotonic() - start < 120 and files_of(tmp_path / "out") == whole


def test_links_to_results_are_no_photos(tmp_path):
    for folder in ("photos", "photos/earlier/masks", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").touch()
    for name in ("predictions.json", "shares.csv"):
        (tmp_path / "photos" / "earlier" / name).touch()
    root = tmp_path / "photos"
    (root / "mask.png").symlink_to(Path("earlier") / "masks" / "a.png")
    (root / "twice.png").symlink_to(root / "mask.png")
    (root / "other.png").symlink_to(Path("..") / "elsewhere" / "a.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    found = photos_of(str(root), tmp_path / "out", [])
    assert [name for name, _ in found.in_order()] == ["a.png", "loop.png", "other.png"]
