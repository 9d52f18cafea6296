"""Data and photos from addresses, and predictions to them: a server of S3 on this machine, and fsspec's memory."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import keras
import numpy as np
import pytest
import tifffile
from buckets import s3_server, upload, variables
from helpers import IMPORT_KERAS, REPOSITORY, make_pairs, save_rgb_network
from PIL import Image

from semseg.cli import commands
from semseg.data import open_dataset
from semseg.data.fetch import local_folder
from semseg.errors import DataError, MissingPackageError, ResourceError, SemsegError
from semseg.images import addresses, mirrors
from semseg.images.addresses import checked_address, is_address, open_address, walk
from semseg.images.mirrors import mirrored, path_of, present
from semseg.images.reading import read_image
from semseg.inference.sending import place_of

COUNT = 9
FLAGS = ("--objects", "all", "--polygons", "coco")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Copies lie in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(addresses, "WAITS", (0.01, 0.01, 0.01, 0.01))
        yield


@pytest.fixture(scope="module")
def server():
    """What requests are made, and a function that may answer them in the server's place."""
    state = {"requests": [], "bytes": 0, "answer": None}

    def counting(application):
        def answer(environment, start):
            state["requests"].append((environment["REQUEST_METHOD"], environment["PATH_INFO"]))
            instead = state["answer"] and state["answer"](environment)
            if instead:
                start(instead, [("Content-Length", "0")])
                return []
            parts = list(application(environment, start))
            state["bytes"] += sum(map(len, parts))
            return parts

        return answer

    with s3_server(counting) as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in variables(endpoint).items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        open_address("s3://bucket")[0].mkdir("bucket")
        yield state


@pytest.fixture(autouse=True)
def quiet_server(request):
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server")["answer"] = None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_rgb_network(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(5, axis=0).repeat(6, axis=1)
        (folder / "inside").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / ("inside" if number % 2 else "") / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def whole(model, photos, tmp_path_factory):
    """What one process writes from a folder to a folder."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert predict(model, photos, output) == 0
    return files_of(output)


@pytest.fixture(scope="module")
def bucket(server, photos):
    upload(open_address("s3://bucket")[0], photos, "s3://bucket/photos")
    return "s3://bucket/photos"


def predict(model, what, output, *flags):
    return commands(["predict", str(model), str(what), "--output", str(output), *FLAGS, *map(str, flags)])


def files_of(folder):
    """Files by their names, but for what names the folder of photos."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("predictions.json")
    return found


def files_at(address):
    system, path = open_address(address)
    found = {name: system.cat_file(f"{path}/{name}") for name, _ in walk(address)}
    found.pop("predictions.json")
    return found


# -------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("s3://key:secret@bucket/photos", "s3://…: the address holds a user or a password"),
        ("s3://key:sec/ret@bucket", "s3://…: the address holds a user or a password"),
        ("https://host/photos?sig=secret", "https://host/…: the address holds a query"),
        ("s3://bucket?key=secret", "s3://bucket/…: the address holds a query"),
        ("ftp://host/secret", "ftp://: addresses of this kind are not read; give one that begins with s3://"),
        ("s3:///secret", "s3://: names no bucket"),
        ("s3://bucket/a/../b", r"s3://bucket/a/../b: holds `..`"),
    ],
)
def test_addresses_that_hold_secrets_or_lead_nowhere_are_refused_and_not_repeated(address, text):
    assert is_address(address)
    with pytest.raises(DataError) as caught:
        checked_address(address)
    assert str(caught.value).startswith(text)
    assert "ret" not in str(caught.value) or "secret" not in address


def test_the_extra_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("semseg.errors.is_installed", lambda module: module != "gcsfs")
    with pytest.raises(MissingPackageError, match=r"gs://: needs gcsfs; run pip install .*\[cloud\]"):
        open_address("gs://bucket/photos")


def test_a_name_that_is_gone_is_told(server, model, tmp_path, capsys):
    for address in ("s3://bucket/nowhere", "s3://no-such-bucket/photos"):
        assert predict(model, address, tmp_path / "out") == 3
        assert commands(["check", address, "--cache", str(tmp_path)]) == 3
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2 and all(line.startswith(f"error: {address}: nothing is there") for line in said)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("403 Forbidden", "no right to it"),
        ("400 Bad Request", "refuses it"),
        ("503 Slow Down", "fails again and again"),
    ],
)
def test_a_server_that_refuses_is_told_in_one_line(server, bucket, model, tmp_path, capsys, status, text):
    server["answer"] = lambda environment: status
    server["requests"].clear()
    assert predict(model, bucket, tmp_path / "out") == 6
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"error: {bucket}: ") and text in said[0]
    assert len(server["requests"]) <= (10 if "503" in status else 3)


def test_no_network_is_told(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        assert predict(model, "s3://bucket/photos", tmp_path / "out") == 6
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "cannot be reached" in capsys.readouterr().err


def test_what_fails_for_a_moment_is_tried_again(server, bucket, photos, tmp_path):
    fails = [2]

    def answer(environment):
        if environment["REQUEST_METHOD"] == "GET" and environment["PATH_INFO"].endswith("0.png") and fails[0]:
            fails[0] -= 1
            return "503 Slow Down"
        return None

    server["answer"] = answer
    path = path_of(f"{bucket}/0.png", tmp_path)
    assert not path.exists()
    with present(path):
        assert path.read_bytes() == (photos / "0.png").read_bytes()
    assert fails == [0]


# ------------------------------------------------------------------------------------------------------------ mirrors


def test_placeholders_have_the_true_size_and_become_files_when_they_are_read(tmp_path, monkeypatch):
    system = fsspec.filesystem("memory")
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png").read_bytes()
    for name in ("a.png", "b.png"):
        system.pipe_file(f"/mirrored/{name}", raw)
    system.pipe_file("/mirrored/classes.csv", b"name,value\n")
    said = []
    monkeypatch.setenv(mirrors.ROOM, str((len(raw) + 20) / 1e9))
    root = mirrored("memory://mirrored", tmp_path, lambda name: name.endswith(".png"), said.append)
    assert (root / "classes.csv").read_bytes() == b"name,value\n"
    assert (root / "a.png").stat().st_size == len(raw) and not any((root / "a.png").read_bytes())
    assert "are fetched anew each time" in said[-1] and mirrors.ROOM in said[-1]
    for name in ("a.png", "b.png"):
        assert np.array_equal(read_image(root / name), pixels)
    mirrors._let_all_go()
    assert (root / "a.png").read_bytes() == raw  # there was room for one
    assert not any((root / "b.png").read_bytes())
    system.pipe_file("/mirrored/b.png", raw + b"more")
    with pytest.raises(DataError, match=r"memory://mirrored/b.png: changed after it was listed"):
        read_image(root / "b.png")
    assert not any((root / "b.png").read_bytes())
    system.rm_file("/mirrored/b.png")
    with pytest.raises(DataError, match=r"memory://mirrored/b.png: nothing is there, or not any more"):
        read_image(root / "b.png")
    assert mirrored("memory://mirrored", tmp_path, lambda name: name.endswith(".png")) == root
    assert sorted(path.name for path in root.iterdir()) == ["a.png", "classes.csv"]


@pytest.mark.parametrize("room", ["", "-1", "nan", "much"])
def test_a_room_that_is_none_is_refused(room, tmp_path, monkeypatch):
    fsspec.filesystem("memory").pipe_file("/room/a.png", b"1")
    monkeypatch.setenv(mirrors.ROOM, room)
    with pytest.raises(SemsegError, match="expected how many GB"):
        local_folder("memory://room", tmp_path)


def test_all_kinds_of_files_are_read_through_placeholders(tmp_path, monkeypatch):
    """Photos and masks as arrays, TIFF files of bands and drawings: nothing stays, and all is as in the folder."""
    rng = np.random.default_rng(0)
    for kind in ("arrays", "bands", "drawn"):
        for part in ("images", "masks"):
            (tmp_path / kind / part).mkdir(parents=True)
    for number in range(4):
        mask = np.zeros((16, 16), np.uint8)
        mask[number : number + 6, 2 * number : 2 * number + 5] = 1
        photo = rng.integers(0, 255, (16, 16, 3), np.uint8)
        np.save(tmp_path / f"arrays/images/{number}.npy", photo)
        np.save(tmp_path / f"arrays/masks/{number}.npy", mask)
        bands = rng.integers(0, 9999, (16, 16, 4), np.uint16)
        tifffile.imwrite(
            tmp_path / f"bands/images/{number}.tif", bands, photometric="minisblack", planarconfig="contig"
        )
        Image.fromarray(mask).save(tmp_path / f"bands/masks/{number}.png")
        (tmp_path / "drawn/masks").rmdir() if number == 0 else None
        Image.fromarray(photo).save(tmp_path / f"drawn/images/{number}.jpg")
        shape = {"label": "thing", "points": [[2, 2], [12, 2], [12, 12]], "shape_type": "polygon"}
        drawing = {"shapes": [shape], "imagePath": f"{number}.jpg", "imageHeight": 16, "imageWidth": 16, "version": "5"}
        (tmp_path / f"drawn/images/{number}.json").write_text(json.dumps({**drawing, "flags": {}, "imageData": None}))
    system = fsspec.filesystem("memory")
    monkeypatch.setenv(mirrors.ROOM, "0")
    for kind in ("arrays", "bands", "drawn"):
        for path in (tmp_path / kind).rglob("*.*"):
            system.pipe_file(f"/{path.relative_to(tmp_path)}", path.read_bytes())
        near = open_dataset(tmp_path / kind)
        far = open_dataset(local_folder(f"memory://{kind}", tmp_path / "cache"))
        assert len(far.samples) == len(near.samples) == 4
        for one, other in zip(near.samples, far.samples, strict=True):
            for array, same in zip(near.load(one), far.load(other), strict=True):
                assert np.array_equal(array, same)
        assert np.any(array)
    mirrors._let_all_go()
    pictures = [path for kind in ("npy", "tif", "png", "jpg") for path in (tmp_path / "cache").rglob(f"*.{kind}")]
    assert len(pictures) == 20 and not any(any(path.read_bytes()) for path in pictures)


def test_a_world_file_beside_a_photo_at_an_address_counts(model, tmp_path, capsys):
    system = fsspec.filesystem("memory")
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "a.png")
    system.pipe_file("/placed/a.png", (tmp_path / "a.png").read_bytes())
    system.pipe_file("/placed/a.pgw", b"2\n0\n0\n-2\n100\n200\n")
    assert predict(model, "memory://placed", "memory://placed_out") == 0
    assert "know where on Earth they lie" in capsys.readouterr().out
    assert any(name in files_at("memory://placed_out") for name in ("masks/a.tif", "masks/a.pgw"))


def test_threads_and_processes_that_read_the_same_files_take_none_away(server, bucket, photos, tmp_path):
    code = f"""
import sys, threading
from pathlib import Path
from semseg.images.mirrors import path_of, present
from semseg.images import mirrors
mirrors._LINGERING = 0
wrong = []
def read():
    for turn in range(6):
        for name in ("0.png", "2.png"):
            path = path_of(f"{bucket}/{{name}}", Path({str(tmp_path)!r}))
            with present(path):
                if path.read_bytes() != Path({str(photos)!r}, name).read_bytes():
                    wrong.append(name)
threads = [threading.Thread(target=read) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(len(wrong))
"""
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert not list(tmp_path.rglob("*.png"))


def test_photos_come_from_a_server_of_https(photos, tmp_path):
    from werkzeug.serving import make_ssl_devcert

    certificate, key = make_ssl_devcert(str(tmp_path / "own"), host="localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    code = """
import sys
from pathlib import Path
from semseg.images.mirrors import present
from semseg.inference.listing import photos_of
photos = photos_of(sys.argv[1], "out", ())
for name, (path,) in photos.in_order():
    with present(path):
        assert path.read_bytes() == Path(sys.argv[2], name).read_bytes()
print(len(photos))
"""
    with ThreadingHTTPServer(("localhost", 0), partial(Quiet, directory=photos.parent)) as web:
        web.socket = context.wrap_socket(web.socket, server_side=True)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"https://localhost:{web.server_port}/{photos.name}"
        done = subprocess.run(
            [sys.executable, "-c", code, address, str(photos)], cwd=REPOSITORY, capture_output=True, text=True,
            env={**os.environ, "SSL_CERT_FILE": certificate, "XDG_CACHE_HOME": str(tmp_path)}, check=False,
        )  # fmt: skip
        web.shutdown()
    assert done.stdout == f"{COUNT}\n", done.stderr


def test_an_archive_at_an_address_is_unpacked(tmp_path):
    make_pairs(tmp_path / "data", 2, 1)
    raw = Path(shutil.make_archive(str(tmp_path / "pairs"), "zip", tmp_path / "data")).read_bytes()
    fsspec.filesystem("memory").pipe_file("/archives/pairs.zip", raw)
    folder = local_folder("memory://archives/pairs.zip", tmp_path / "cache")
    assert len(list(folder.rglob("*.png"))) == 3


# ---------------------------------------------------------------------------------------------------------- prediction


def test_from_a_bucket_to_a_bucket_gives_what_a_folder_does(server, bucket, model, whole, capsys):
    assert predict(model, bucket, "s3://bucket/out") == 0
    assert files_at("s3://bucket/out") == whole
    assert "in s3://bucket/out/" in capsys.readouterr().out
    server["requests"].clear()
    assert predict(model, bucket, "s3://bucket/out") == 0  # all is done
    assert f"{COUNT} of them are done" in capsys.readouterr().out
    assert not [path for method, path in server["requests"] if method == "PUT" and path.endswith(".png")]
    assert predict(model, bucket, "s3://bucket/out", "--values") == 4
    assert files_at("s3://bucket/out") == whole


def test_photos_and_results_take_no_room_when_they_are_done(bucket, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mirrors._root.cache_clear()
    assert predict(model, bucket, "s3://bucket/no_room") == 0
    mirrors._let_all_go()
    mirrors._root.cache_clear()
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.jpg"))


def test_three_shards_one_of_which_is_killed_give_the_same(server, bucket, model, whole, capsys):
    output = "s3://bucket/parts"
    assert predict(model, bucket, output, "--shard", "1/3") == 0
    code = f"""{IMPORT_KERAS}
import os
from semseg.cli import commands, predict
from semseg.inference import sending
sending._PAUSE, sending._TIMES = 0, 0
note = predict._note
def dying(*arguments, **options):
    note(*arguments, **options)
    dying.count += 1
    if dying.count == 3:
        os._exit(9)
dying.count = 0
predict._note = dying
commands({["predict", str(model), bucket, "--output", output, *FLAGS, "--shard", "2/3"]!r})
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 9
    table = open_address(output)[0].cat_file("bucket/parts/shares.2-of-3.unfinished.csv").decode()
    done = [line.split(",")[0].removesuffix(".png") for line in table.splitlines()[1:]]
    assert predict(model, bucket, output, "--shard", "3/3") == 0
    server["requests"].clear()
    assert predict(model, bucket, output, "--shard", "2/3") == 0
    sent = [path for method, path in server["requests"] if method == "PUT" and "/masks/" in path]
    assert len(done) == 2 and sent and not any(f"/masks/{name}.png" in path for name in done for path in sent)
    assert files_at(output) == whole
    assert "merged" in capsys.readouterr().out


def test_lists_of_addresses_and_at_addresses(bucket, model, whole, photos, tmp_path):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    open_address(bucket)[0].pipe_file("bucket/photos/all.txt", "\n".join([*names, f"{bucket}/0.png"]).encode())
    assert predict(model, f"{bucket}/all.txt", tmp_path / "from_list") == 0
    assert files_of(tmp_path / "from_list")["masks/inside/1.png"] == whole["masks/inside/1.png"]
    assert len(list((tmp_path / "from_list" / "masks").rglob("*.png"))) == COUNT
    (tmp_path / "local.txt").write_text(f"{bucket}/0.png\n{photos}/2.png\n")
    assert predict(model, tmp_path / "local.txt", tmp_path / "from_both") == 0
    assert (tmp_path / "from_both" / "masks/bucket/photos/0.png").read_bytes() == whole["masks/0.png"]
    assert predict(model, f"{bucket}/2.png", tmp_path / "one") == 0
    assert (tmp_path / "one" / "masks" / "2.png").read_bytes() == whole["masks/2.png"]


def test_a_photo_that_vanishes_is_named_and_the_others_are_predicted(server, bucket, model, whole, tmp_path, capsys):
    server["answer"] = lambda environment: (
        "404 Not Found"
        if environment["REQUEST_METHOD"] != "PUT" and environment["PATH_INFO"].endswith("/3.png")
        else None
    )
    assert predict(model, bucket, tmp_path / "out") == 3
    said = capsys.readouterr()
    assert f"{bucket}/inside/3.png: nothing is there" in " ".join(said.out.split())
    assert "1 of 9 photos cannot be used" in said.err
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == COUNT - 1


def test_a_token_that_ends_in_the_middle_ends_the_command_and_the_next_goes_on(server, bucket, model, whole, capsys):
    seen = [0]

    def answer(environment):
        seen[0] += environment["PATH_INFO"].endswith(".png")
        return "403 Forbidden" if seen[0] > 12 else None

    server["answer"] = answer
    assert predict(model, bucket, "s3://bucket/token") == 6
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "token has ended" in said[0]
    server["answer"] = None
    assert predict(model, bucket, "s3://bucket/token") == 0
    assert files_at("s3://bucket/token") == whole


def test_what_cannot_be_an_output_is_refused(bucket, model, capsys):
    assert predict(model, bucket, "https://host/out") == 3
    assert "is read, and not written to" in capsys.readouterr().err
    with closing(place_of("s3://bucket/taken", None)):
        assert predict(model, bucket, "s3://bucket/taken") == 4
        assert "another process of this machine is writing there" in capsys.readouterr().err
    assert predict(model, "s3://bucket/film.mp4", "s3://bucket/film") == 2
    assert "videos are read from a disk" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ training


def train(data, output, cache, *flags):
    words = ["train", "--data", str(data), "--output", str(output), "--cache", str(cache), *flags]
    return commands([*words, "--image-size", "32", "--filters", "4", "--epochs", "1", "--batch-size", "4"])


def weights_in(folder):
    (file,) = folder.glob("*_model.keras")
    return keras.saving.load_model(file, compile=False).get_weights()


def test_training_from_a_bucket_gives_the_weights_of_the_folder(server, tmp_path, monkeypatch, capsys):
    """The cache has room for half of the photos."""
    make_pairs(tmp_path / "pairs", 6, 2)
    upload(open_address("s3://bucket")[0], tmp_path / "pairs", "s3://bucket/pairs")
    size = sum(path.stat().st_size for path in (tmp_path / "pairs").rglob("*.png"))
    monkeypatch.setenv(mirrors.ROOM, str(size / 2 / 1e9))
    assert train(tmp_path / "pairs", tmp_path / "near", tmp_path / "cache1") == 0
    assert train("s3://bucket/pairs", tmp_path / "far", tmp_path / "cache2") == 0
    assert "are fetched anew each time" in " ".join(capsys.readouterr().out.split())
    mirrors._let_all_go()
    kept = [path for path in (tmp_path / "cache2" / "addresses").rglob("*.png") if any(path.read_bytes())]
    assert 0 < sum(path.stat().st_size for path in kept) <= size / 2
    for one, other in zip(weights_in(tmp_path / "near"), weights_in(tmp_path / "far"), strict=True):
        assert np.array_equal(one, other)
    server["requests"].clear()
    assert commands(["evaluate", str(tmp_path / "far"), "--output", str(tmp_path / "scores")]) == 0
    assert "s3://bucket/pairs" in (tmp_path / "scores" / "metrics.json").read_text()
    fetched = {path for _, path in server["requests"] if path.endswith(".png")}
    assert fetched and not [path for path in kept if f"/bucket/pairs/{path.parent.name}/{path.name}" in fetched]
    server["answer"] = lambda environment: "403 Forbidden"
    with pytest.raises(ResourceError, match="s3://bucket/pairs: no right to it"):
        local_folder("s3://bucket/pairs", tmp_path / "cache3")
