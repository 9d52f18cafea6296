"""Serving many: batches of what waits, several processes, a token for other computers, and what monitoring asks."""

import base64
import functools
import hmac
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import REPOSITORY
from test_serve import IDS, PALETTE, PHOTO, SIZE, Network, ask, ids_in, png, running

from semseg.cli import commands
from semseg.cli.workers import app_of_worker
from semseg.errors import ResourceError
from semseg.inference.segmenter import Segmenter
from semseg.serve import guarding
from semseg.serve.app import make_app
from semseg.serve.metrics import Meter
from semseg.serve.running import listen, run_workers

TOKEN = "0123456789abcdef-token"


def segmenter_of(network):
    return Segmenter(network, (SIZE, SIZE), PALETTE)


@pytest.mark.plain
class TestBatches:
    def test_what_waits_is_computed_together_and_each_gets_its_own_answer(self):
        network = Network()
        turned = [np.rot90(PHOTO, i) for i in range(4)]
        with running(make_app(segmenter_of(network))) as port, ThreadPoolExecutor(9) as pool:
            ask(port, "POST", "/mask", png(PHOTO))  # the decoder has started
            network.free.clear()
            answers = [pool.submit(ask, port, "POST", "/mask", png(turned[i % 4])) for i in range(9)]
            deadline = time.monotonic() + 100
            while "waiting 9" not in ask(port, "GET", "/metrics")[2].decode() and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.5)  # all are decoded
            network.free.set()
            for i, answer in enumerate(answers):
                status, _, body = answer.result()
                assert status == 200
                np.testing.assert_array_equal(ids_in(body), np.rot90(IDS, i % 4))
        assert sum(network.batches) == 10 and set(network.batches) <= {1, 2, 4, 8} and max(network.batches) > 1

    def test_an_error_of_the_network_is_told_to_all_who_wait_and_to_nobody_else(self):
        class Failing(Network):
            def __call__(self, photos):
                super().__call__(photos)
                if len(self.batches) == 2:
                    raise MemoryError
                return photos.astype(np.float32)

        with running(make_app(segmenter_of(Failing()))) as port:
            assert [ask(port, "POST", "/mask", png(PHOTO))[0] for _ in range(3)] == [200, 500, 200]


@pytest.fixture(scope="module")
def port():
    """Of a server that wants a token."""
    with running(make_app(segmenter_of(Network()), token=TOKEN)) as found:
        yield found


@pytest.mark.plain
class TestToken:
    def basic(self, password):
        return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()

    @pytest.mark.parametrize("path", ["/", "/mask", "/metrics", "/model", "/page.js", "/nothing", "/healthz/"])
    def test_nobody_asks_without_it(self, port, path):
        for header in ("", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Digest {TOKEN}", self.basic("wrong"),
                       "Basic ???", "Basic " + base64.b64encode(b"\xff\xfe").decode(), TOKEN):  # fmt: skip
            status, headers, body = ask(port, "GET", path, headers={"Authorization": header} if header else {})
            assert status == 401 and headers["www-authenticate"].startswith("Basic realm=")
            assert TOKEN.encode() not in body

    def test_whoever_has_it_asks_under_any_name(self, port):
        for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}", self.basic(TOKEN)):
            headers = {"Authorization": header, "Host": "segment.example"}
            assert ask(port, "POST", "/mask", png(PHOTO), headers)[0] == 200
            assert ask(port, "POST", "/mask", png(PHOTO), {**headers, "Origin": "https://segment.example"})[0] == 200
            for origin in ("https://evil.example", "null", "https://segment.example.evil", ""):
                assert ask(port, "POST", "/mask", png(PHOTO), {**headers, "Origin": origin})[0] == 403

    def test_it_is_compared_in_constant_time(self, port, monkeypatch):
        compared = []

        def compare(one, other):
            compared.append((one, other))
            return hmac.compare_digest(one, other)

        monkeypatch.setattr(guarding, "hmac", type("hmac", (), {"compare_digest": staticmethod(compare)}))
        ask(port, "GET", "/model", headers={"Authorization": "Bearer x"})
        assert compared == [(b"x", TOKEN.encode())]

    def test_health_is_for_anybody(self, port):
        status, _, body = ask(port, "GET", "/healthz", headers={"Host": "10.0.0.7:8000"})
        assert status == 200 and body == b'{"status":"ok"}'


@pytest.mark.plain
class TestMetrics:
    def test_they_count_what_was_asked(self):
        with running(make_app(segmenter_of(Network()))) as port:
            for body in (png(PHOTO), png(PHOTO), b"x"):
                ask(port, "POST", "/mask", body)
            ask(port, "GET", "/nothing")
            ask(port, "GET", "/", headers={"Host": "evil.example"})
            status, headers, body = ask(port, "GET", "/metrics")
        assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        values = parse(body.decode())
        statuses = {name: count for name, count in values.items() if name.startswith("semseg_requests_total")}
        assert statuses == {f'semseg_requests_total{{status="{status}"}}': count for status, count in
                            ((200, 2), (403, 1), (404, 1), (422, 1))}  # fmt: skip
        assert values["semseg_photos_total"] == values["semseg_batches_total"] == 2
        assert values["semseg_photo_seconds_count"] == values['semseg_photo_seconds_bucket{le="+Inf"}'] == 2
        assert values["semseg_photos_waiting"] == 0 and values["semseg_processes"] == 1

    def test_processes_count_together_and_the_dead_wait_no_more(self, tmp_path):
        code = f"""from pathlib import Path
from semseg.serve.metrics import Meter
meter = Meter(Path({str(tmp_path)!r}))
meter.add_request("/mask", 200, 0.3)
meter.add_request("/mask", 418, 0.3)
meter.add_batch(4)
meter.set_waiting(3)"""
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
        meter = Meter(tmp_path)
        meter.add_request("/segment", 200, 99.0)
        meter.set_waiting(2)
        values = parse(meter.text())
        assert values['semseg_requests_total{status="200"}'] == 2
        assert values['semseg_requests_total{status="other"}'] == 1
        assert [values[f'semseg_photo_seconds_bucket{{le="{edge}"}}'] for edge in ("0.25", "0.5", "10", "+Inf")] == [
            0, 1, 1, 2,
        ]  # fmt: skip
        assert values["semseg_photo_seconds_sum"] == pytest.approx(99.3)
        assert values["semseg_photos_total"] == 4 and values["semseg_photos_waiting"] == 2
        assert values["semseg_processes"] == 1


def parse(text):
    """Values by name and label, as the format says: a help and a type in front of each metric, and a line's end."""
    assert text.endswith("\n")
    values, kind = {}, None
    for line in text.splitlines():
        if line.startswith("#"):
            kind = re.fullmatch(r"# (HELP|TYPE) (semseg_[a-z_]+) (.+)", line)[2]
            continue
        name, value = re.fullmatch(r"([a-z_]+(?:\{[a-z]+=\"[^\"]+\"\})?) (\S+)", line).groups()
        assert name.startswith(kind)
        values[name] = float(value)
    return values


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file whose network takes each pixel's strongest channel for its class; it runs without Keras."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    kinds, shape = onnx.TensorProto, ["n", SIZE, SIZE, 3]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Cast", ["photos"], ["logits"], to=kinds.FLOAT)], "channels",
        [onnx.helper.make_tensor_value_info("photos", kinds.UINT8, shape)],
        [onnx.helper.make_tensor_value_info("logits", kinds.FLOAT, shape)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "channels.onnx"
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def ask_with_token(port, method, path, body=None, token=TOKEN):
    return ask(port, method, path, body, {"Authorization": f"Bearer {token}"})


def processes_at(port):
    try:
        return parse(ask_with_token(port, "GET", "/metrics")[2].decode())["semseg_processes"]
    except OSError:
        return 0


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """The command with two processes, on all interfaces; yields it and its port."""
    secret, log = tmp_path_factory.mktemp("secret") / "token", tmp_path_factory.mktemp("log") / "log"
    secret.write_text(TOKEN + "\n")
    arguments = ["serve", str(model), "--workers", "2", "--host", "0.0.0.0", "--token-file", str(secret), "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "semseg", *arguments], cwd=REPOSITORY, stdout=file, stderr=file
        )
    try:
        deadline, found = time.monotonic() + 200, None
        while not (found and processes_at(int(found[1])) == 2):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            found = re.search(r"http://0\.0\.0\.0:(\d+)/", log.read_text())
            time.sleep(0.2)
        yield process, int(found[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert TOKEN not in log.read_text() and "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def worker_of(pid):
    """A process that answers, of a server."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return next(int(row[0]) for row in rows if int(row[1]) == pid and "spawn_main" in row[2])


@pytest.mark.plain
class TestWorkers:
    def test_every_process_keeps_the_rules_and_a_dead_one_is_replaced(self, server):
        process, port = server
        photo = png(PHOTO.repeat(8, 0).repeat(8, 1))
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda _: ask_with_token(port, "POST", "/mask", photo), range(48)))
            refused = list(
                pool.map(lambda _: ask_with_token(port, "POST", "/mask", photo, token="wrong")[0], range(24))
            )
        assert {status for status, _, _ in found} <= {200, 503} and refused == [401] * 24
        answers = {body for status, _, body in found if status == 200}
        assert len(answers) == 1  # each process has the same network
        assert all(headers["retry-after"] for status, headers, _ in found if status == 503)
        counted = parse(ask_with_token(port, "GET", "/metrics")[2].decode())
        os.kill(worker_of(process.pid), signal.SIGKILL)
        deadline = time.monotonic() + 200
        while processes_at(port) == 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        while processes_at(port) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert processes_at(port) == 2 and ask_with_token(port, "POST", "/mask", photo)[2] in answers
        after = parse(ask_with_token(port, "GET", "/metrics")[2].decode())
        assert after["semseg_photos_total"] == counted["semseg_photos_total"] + 1  # what the dead one did counts

    def test_other_interfaces_answer_whoever_has_the_token(self, server):
        _, port = server
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:  # nothing is sent: the system says which it is
            try:
                other.connect(("198.51.100.7", 9))
            except OSError:
                pytest.skip("this computer has no other interface")
            address = other.getsockname()[0]
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"http://{address}:{port}/model", timeout=60)
        refused.value.close()
        request = urllib.request.Request(f"http://{address}:{port}/model", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200

    def test_a_process_that_cannot_start_ends_all(self, tmp_path, capfd, monkeypatch):
        monkeypatch.setattr("semseg.serve.running._MAX_SILENCE", 8)
        missing = {"model": str(tmp_path / "gone.keras"), "image_size": None, "show": None, "runtime": None}
        app = functools.partial(app_of_worker, None, None, tmp_path, missing)
        with listen(0) as listener, pytest.raises(ResourceError, match="could not start"):
            kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
            try:
                run_workers(app, listener, 1)
            finally:
                for number, handler in kept.items():
                    signal.signal(number, handler)
        assert "gone.keras" in capfd.readouterr().err


@pytest.mark.plain
class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--host", "0.0.0.0"], ["--host: got 0.0.0.0", "no token", "SEMSEG_TOKEN"]),
            (["--workers", "0"], ["--workers: got 0"]),
            (["--corrections", "x"], ["--corrections", "--edit"]),
            (["--edit", ".", "--workers", "2"], ["--workers: got 2", "one process"]),
            (["--edit", "nowhere"], ["--edit: nowhere is no folder"]),
            (["--token-file", "nowhere"], ["--token-file: nowhere cannot be read"]),
        ],
        ids=lambda value: " ".join(value),
    )
    def test_flags_that_make_no_sense(self, capsys, tmp_path, arguments, parts):
        assert commands(["serve", str(tmp_path), "--port", "0", *arguments]) in (2, 3)
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and all(part in error for part in parts), error

    def test_a_token_that_is_guessed_soon(self, capsys, tmp_path, monkeypatch):
        (tmp_path / "token").write_text("short\n")
        assert commands(["serve", str(tmp_path), "--token-file", str(tmp_path / "token")]) == 2
        assert "no token of 16 or more" in capsys.readouterr().err
        monkeypatch.setenv("SEMSEG_TOKEN", "")
        assert commands(["serve", str(tmp_path)]) == 2
        assert "error: SEMSEG_TOKEN holds no token" in capsys.readouterr().err

    def test_a_host_that_is_none(self, capsys, tmp_path, monkeypatch):
        for host, code, part in (("localhost", 2, "expected an address"), ("198.51.100.7", 6, "is no address of this")):
            monkeypatch.setenv("SEMSEG_TOKEN", TOKEN)
            assert commands(["serve", str(tmp_path), "--port", "0", "--host", host]) == code
            assert part in capsys.readouterr().err
