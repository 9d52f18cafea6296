"""The page of `python -m semseg serve` and what scripts may ask it."""

import base64
import functools
import http.client
import importlib.util
import io
import json
import os
import re
import signal
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from helpers import draw_pair, make_pairs
from PIL import Image

from semseg.cli import commands
from semseg.cli import serve as serving
from semseg.errors import pip_install
from semseg.files import stamp_of
from semseg.images.bands import RGB
from semseg.inference.learnt import LearntPhotos, Look
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.serve import app as serve_app
from semseg.serve import decoding, guarding
from semseg.serve.app import MAX_WAITING, make_app

PALETTE = Palette.from_colors(("red", "green", "blue"), ((200, 0, 0), (0, 200, 0), (0, 0, 200)))
SIZE = 8
IDS = np.repeat(np.uint8([[0, 1], [0, 2]]), SIZE // 2, axis=0).repeat(SIZE // 2, axis=1)
PHOTO = (255 * np.eye(3)).astype(np.uint8)[IDS]  # the strongest channel is the class


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


def ids_in(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@contextmanager
def running(app):
    """A server for an app; yields its port."""
    config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", log_config=None, timeout_graceful_shutdown=2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(120)


class Network:
    """Takes each pixel's strongest channel for its class, and can be held up; notes how many photos came at once."""

    def __init__(self):
        self.free, self.batches = threading.Event(), []
        self.free.set()

    @property
    def asked(self):
        return sum(self.batches)

    def __call__(self, photos):
        self.batches.append(len(photos))
        assert self.free.wait(300)
        return photos.astype(np.float32)


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.fixture(scope="module")
def network():
    return Network()


@pytest.fixture(scope="module")
def port(network, patch):
    segmenter = Segmenter(network, (SIZE, SIZE), PALETTE)
    patch.setattr(decoding, "DECODE_SECONDS", 300)  # for machines that are busy
    patch.setattr(guarding, "TIMEOUT_SECONDS", 300)
    with running(make_app(segmenter, title="a network", examples=[lambda: (PHOTO, IDS)], note="")) as found:
        ask(found, "POST", "/mask", png(PHOTO))  # the decoder has started
        yield found


def ask(port, method, path, body=None, headers=None):
    """Status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def lives(port):
    return ask(port, "POST", "/mask", png(PHOTO))[0] == 200


@pytest.mark.plain
class TestScripts:
    def test_the_answer_names_the_classes_with_their_shares(self, port):
        status, _, body = ask(port, "POST", "/segment", png(PHOTO))
        found = json.loads(body)
        mask = base64.b64decode(found.pop("mask"))
        assert status == 200 and found == {
            "width": 8,
            "height": 8,
            "classes": [
                {"id": 0, "name": "red", "color": "#c80000", "pixels": 32, "share": 0.5},
                {"id": 1, "name": "green", "color": "#00c800", "pixels": 16, "share": 0.25},
                {"id": 2, "name": "blue", "color": "#0000c8", "pixels": 16, "share": 0.25},
            ],
        }
        np.testing.assert_array_equal(ids_in(mask), IDS)
        assert ask(port, "POST", "/mask", png(PHOTO))[2] == mask

    def test_a_model_whose_file_is_replaced_is_told_with_each_answer(self, network, tmp_path):
        path, later = tmp_path / "a.keras", tmp_path / "later"
        path.write_bytes(b"one")
        later.write_bytes(b"two")
        warning = functools.partial(serving._replaced, path, stamp_of(path))
        with running(make_app(Segmenter(network, (SIZE, SIZE), PALETTE), warning=warning)) as port:
            assert "warning" not in json.loads(ask(port, "POST", "/segment", png(PHOTO))[2])
            later.replace(path)
            line = "a.keras was replaced or removed; this page keeps to the one before"
            assert json.loads(ask(port, "POST", "/segment", png(PHOTO))[2])["warning"] == line
            assert ask(port, "POST", "/mask", png(PHOTO))[1]["x-semseg-warning"] == line

    def test_a_photo_unlike_those_learnt_from_is_told(self, network):
        look = Look((8, 8), np.full(3, 0.6), 0.2, None)
        segmenter = Segmenter(network, (SIZE, SIZE), PALETTE, learnt=LearntPhotos.of([look], []))
        expected = ["darker than any photo learnt from", "flatter than any photo learnt from"]
        with running(make_app(segmenter)) as port:
            dark = png(np.full_like(PHOTO, 9))
            assert json.loads(ask(port, "POST", "/segment", dark)[2])["unlike"] == expected
            assert ask(port, "POST", "/mask", dark)[1]["x-semseg-unlike"] == "; ".join(expected)
            tall = png(np.tile(np.uint8([[[90, 150, 200]], [[170, 150, 110]]]), (20, 8, 1)))
            larger = json.loads(ask(port, "POST", "/segment", tall)[2])["unlike"]
            assert "larger than any photo learnt from (their sides are 8 at most)" in larger

    @pytest.mark.parametrize("size", [(1, 1), (15, 17), (130, 40)])
    def test_the_mask_has_the_photos_own_size(self, port, size):
        status, headers, body = ask(port, "POST", "/mask", png(np.full((*size, 3), (0, 0, 9), np.uint8)))
        assert status == 200 and headers["content-type"] == "image/png"
        np.testing.assert_array_equal(ids_in(body), np.full(size, 2))

    def test_photos_are_turned_upright(self, port):
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: rows of the file are columns, from the right
        photo = PHOTO[:4]
        _, _, body = ask(port, "POST", "/mask", png(photo.repeat(2, 0).repeat(2, 1), exif=exif))
        np.testing.assert_array_equal(ids_in(body), np.rot90(IDS[:4], -1).repeat(2, 0).repeat(2, 1))

    def test_examples_are_exact(self, port):
        for form, expected in (("photo", PHOTO), ("truth", IDS)):
            status, _, body = ask(port, "GET", f"/examples/0/{form}.png")
            assert status == 200
            np.testing.assert_array_equal(ids_in(body), expected)

    @pytest.mark.parametrize("path", ["1/photo.png", "-1/photo.png", "0/x", "0/..%2f..%2fapp.py", "9" * 5000 + "/x"])
    def test_other_examples_are_not_there(self, port, path):
        assert ask(port, "GET", f"/examples/{path}")[0] == 404

    @pytest.mark.parametrize("path", ["/app.py", "/..%2fapp.py", "/page.html", "//etc/passwd"])
    def test_other_files_are_not_there(self, port, path):
        assert ask(port, "GET", path)[0] == 404


def bomb(side):
    """A small PNG file that says that its picture is large."""
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


NO_PHOTOS = {
    "empty": (b"", "an empty file"),
    "text": (b"<svg onload=alert(1)>" * 9, "not a picture that can be read"),
    "cut": (png(draw_pair(0)[0])[:900], "cannot be read"),
    "deep": (png(np.zeros((4, 4), np.uint16)), "16-bit"),
    "bomb": (bomb(20000), "larger than 89 million pixels"),
}


@pytest.mark.plain
class TestStrangers:
    """R22 and R41 to R45 of what must hold: nobody else, nothing endless, and the server lives."""

    @pytest.mark.parametrize("name", NO_PHOTOS)
    def test_what_is_no_photo_is_told_in_one_line(self, port, name):
        body, expected = NO_PHOTOS[name]
        status, _, answer = ask(port, "POST", "/segment", body)
        error = json.loads(answer)["error"]
        assert status == 422 and expected in error and "\n" not in error and "tmp" not in error
        assert lives(port)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "evil.example"},
            {"Host": "evil.example:{port}"},
            {"Host": "127.0.0.1"},
            {"Host": "0.0.0.0:{port}"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "https://127.0.0.1:{port}"},
            {"Origin": "http://127.0.0.1:1"},
        ],
        ids=str,
    )
    def test_foreign_names_and_pages_are_refused(self, port, network, headers):
        headers, asked = {name: value.format(port=port) for name, value in headers.items()}, network.asked
        for method, path, body in (("GET", "/", None), ("GET", "/examples/0/photo.png", None), ("POST", "/mask", b"x")):
            status, found, _ = ask(port, method, path, body, headers)
            assert status == 403 and "access-control-allow-origin" not in found
        assert network.asked == asked

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
    def test_the_page_itself_may_ask(self, port, name):
        headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        status, found, _ = ask(port, "POST", "/mask", png(PHOTO), headers)
        assert status == 200 and "frame-ancestors 'none'" in found["content-security-policy"]

    def test_a_long_body_is_refused_by_its_length(self, port):
        with socket.create_connection(("127.0.0.1", port), timeout=200) as client:
            client.sendall(b"POST /mask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 1000000000\r\n\r\n" % port)
            answer = received(client)
        assert answer.startswith(b"HTTP/1.1 413") and b"larger than 64 MB" in answer

    def test_an_endless_body_is_cut_off(self, port, monkeypatch):
        monkeypatch.setattr(guarding, "MAX_BYTES", 5000)
        with socket.create_connection(("127.0.0.1", port), timeout=200) as client:
            client.sendall(b"POST /mask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nTransfer-Encoding: chunked\r\n\r\n" % port)
            client.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
            client.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
            assert received(client).startswith(b"HTTP/1.1 413")

    def test_a_slow_body_is_cut_off(self, port, monkeypatch):
        monkeypatch.setattr(guarding, "TIMEOUT_SECONDS", 0.3)
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=200) as client:
            client.sendall(b"POST /mask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 1000\r\n\r\nabc" % port)
            assert received(client).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - start < 100
        assert lives(port)

    def test_somebody_who_leaves_harms_nobody(self, port):
        with socket.create_connection(("127.0.0.1", port), timeout=200) as client:
            client.sendall(b"POST /mask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 1000\r\n\r\nabc" % port)
        assert lives(port)

    def test_of_many_at_once_some_wait_and_the_others_are_sent_away(self, port, network):
        asked = network.asked
        network.free.clear()
        with ThreadPoolExecutor(16) as pool:
            answers = [pool.submit(ask, port, "POST", "/mask", png(PHOTO)) for _ in range(16)]
            deadline = time.monotonic() + 200
            while sum(answer.done() for answer in answers) < 15 - MAX_WAITING and time.monotonic() < deadline:
                time.sleep(0.02)
            network.free.set()
            found = [answer.result() for answer in answers]
        assert [status for status, _, _ in found].count(200) == 1 + MAX_WAITING == network.asked - asked
        for status, headers, body in found:
            assert status == 200 or (status == 503 and headers["retry-after"] and b"try again" in body)
        assert lives(port)

    def test_a_decoder_that_crashes_is_replaced(self, port, monkeypatch):
        killed = []
        receive = decoding.Decoder._receive

        def crash(decoder, seconds):
            if seconds == decoding.DECODE_SECONDS and not killed:
                killed.append(decoder._process.pid)
                os.kill(killed[0], signal.SIGKILL)
                decoder._process.join()
                while decoder._connection.poll():  # its answer, if it was faster
                    decoder._connection.recv()
            return receive(decoder, seconds)

        monkeypatch.setattr(decoding.Decoder, "_receive", crash)
        status, _, body = ask(port, "POST", "/mask", png(PHOTO))
        assert status == 422 and b"crashes the program that decodes it" in body
        assert lives(port)

    def test_a_picture_that_takes_forever_is_given_up(self, port, monkeypatch):
        with monkeypatch.context() as hurry:
            hurry.setattr(decoding, "DECODE_SECONDS", 0)
            status, _, body = ask(port, "POST", "/mask", png(np.zeros((3000, 3000, 3), np.uint8)))
        assert status == 422 and b"seconds to decode" in body
        assert lives(port)

    def test_a_full_disk_is_told(self, port, monkeypatch):
        def full(**_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(serve_app.tempfile, "TemporaryDirectory", full)
        status, _, body = ask(port, "POST", "/mask", png(PHOTO))
        assert status == 507 and b"no space left" in body


def received(client):
    """What comes until the server closes the connection."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an untrained network, as far as `serve` and `predict` read it."""
    import keras

    from semseg.data import open_dataset
    from semseg.data.splits import splits_of
    from semseg.segmentation_model import Unet

    folder = tmp_path_factory.mktemp("served")
    dataset = open_dataset(make_pairs(folder / "data", train=2, val=3))
    out = folder / "out"
    out.mkdir()
    keras.utils.set_random_seed(0)
    Unet((32, 32, 3), dataset.num_logits, filters=2, depth=1).save(out / "unet_model.keras")
    (out / "classes.json").write_text(json.dumps(dataset.palette.to_dict()))
    Run(out).write_splits(splits_of(dataset))
    Run(out).write_config(RunConfig(data=str(folder / "data"), image_size=(32, 32)), {}, {})
    photo = draw_pair(77, 96)[0]
    looks = [Look((77, 96), photo.mean((0, 1)) / 255 * times, photo.std() / 255 * times, None) for times in (0.6, 1.4)]
    LearntPhotos.of(looks, []).write(Run(out).learnt_photos_path, "")
    Image.fromarray(photo).save(folder / "a photo.jpg", quality=95)
    assert commands(["predict", str(out), str(folder / "a photo.jpg"), "--output", str(folder / "predicted")]) == 0
    return folder


@pytest.fixture(scope="module")
def command(run, patch):
    """The address of the page that the command serves."""
    servers = []

    class Kept(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    patch.setattr(uvicorn, "Server", Kept)
    thread = threading.Thread(target=commands, args=(["serve", str(run / "out"), "--port", "0", "--no-browser"],))
    thread.start()
    while thread.is_alive() and not (servers and servers[0].started):
        time.sleep(0.05)
    address, port = servers[0].servers[0].sockets[0].getsockname()
    yield f"http://{address}:{port}/"
    servers[0].should_exit = True
    thread.join(120)


def mask_of_predict(run):
    (path,) = (run / "predicted" / "masks").rglob("*.png")
    return path.read_bytes()


def palette_of(run):
    return Palette.from_dict(json.loads((run / "out" / "classes.json").read_text()))


def test_the_mask_is_the_file_that_predict_writes(run, command):
    port = int(command.rstrip("/").rpartition(":")[2])
    assert command.startswith("http://127.0.0.1:")
    assert ask(port, "POST", "/mask", (run / "a photo.jpg").read_bytes())[2] == mask_of_predict(run)


@pytest.mark.plain
class TestPage:
    """In a real browser, with a pointer and a keyboard."""

    @pytest.fixture()
    def page(self, browser_page, command):
        browser_page.goto(command)
        browser_page.wait_for_selector("#example-list li")
        return browser_page

    @pytest.fixture()
    def shown(self, page, run):
        """The page with the photo of the run in it."""
        page.set_input_files("#files", run / "a photo.jpg")
        page.wait_for_selector("#photos li.done")
        page.wait_for_selector("#legend button")
        page.evaluate("document.getElementById('stage').scrollIntoView({block: 'center'})")
        return page

    def downloaded(self, page, selector):
        with page.expect_download() as download:
            page.click(selector)
        return download.value.suggested_filename, download.value.path().read_bytes()

    def test_a_photo_unlike_those_learnt_from_has_a_line_above_it(self, shown, run):
        assert shown.is_hidden("#warning")
        dark = run / "dark.png"
        Image.new("RGB", (32, 32)).save(dark)
        shown.set_input_files("#files", dark)
        shown.wait_for_selector("#photos li.done:nth-child(2)")
        shown.wait_for_selector("#warning:not([hidden])")
        assert re.match(r"Unlike the photos .* learnt from: .*darker than any photo", shown.text_content("#warning"))
        shown.click("#photos li:nth-child(1) button")
        shown.wait_for_selector("#warning", state="hidden")

    def test_the_downloaded_mask_is_the_file_that_predict_writes(self, shown, run):
        name, data = self.downloaded(shown, "#get-mask")
        assert name == "a photo_mask.png" and data == mask_of_predict(run)

    def test_pointer_and_keyboard_read_the_ids_of_the_mask(self, shown, run):
        ids = ids_in(mask_of_predict(run))
        names = palette_of(run).names
        box = shown.locator("#stage").bounding_box()
        for column, row in ((3, 90), (60, 20), (95, 0)):
            shown.mouse.move(box["x"] + (column + 0.5) / 96 * box["width"], box["y"] + (row + 0.5) / 96 * box["height"])
            expected = f"{ids[row, column]} {names[ids[row, column]]} at column {column}, row {row}"
            assert shown.inner_text("#pointer") == expected
        shown.focus("#stage")
        shown.keyboard.press("Shift+ArrowRight")
        assert shown.inner_text("#pointer").endswith("at column 49, row 48")

    def test_the_slider_follows_pointer_and_keyboard(self, shown):
        stage, handle = shown.locator("#stage").bounding_box(), shown.locator("#handle").bounding_box()
        middle = handle["y"] + handle["height"] / 2
        shown.mouse.move(handle["x"] + handle["width"] / 2, middle)
        shown.mouse.down()
        shown.mouse.move(stage["x"] + 0.25 * stage["width"], middle)
        shown.mouse.up()
        assert shown.get_attribute("#handle", "aria-valuenow") == "25"
        clipped = shown.evaluate("getComputedStyle(document.getElementById('classes')).clipPath")
        assert float(re.search(r"([\d.]+)%", clipped)[1]) == pytest.approx(25, abs=0.3)
        shown.focus("#handle")
        shown.keyboard.press("End")
        assert shown.get_attribute("#handle", "aria-valuenow") == "100"

    def test_a_class_that_is_switched_off_leaves_the_overlay(self, shown, run):
        ids = ids_in(mask_of_predict(run))
        shown.evaluate("document.getElementById('opacity').value = 100")
        shown.click("#legend li:first-child button")
        first = int(shown.get_attribute("#legend li:first-child button", "data-id"))
        assert shown.get_attribute("#legend li:first-child button", "aria-pressed") == "false"
        name, data = self.downloaded(shown, "#get-overlay")
        colors = np.array(palette_of(run).colors)
        painted = (ids_in(data)[..., :3] == colors[ids]).all(axis=-1)
        assert name == "a photo_overlay.png" and first == np.bincount(ids.ravel()).argmax()
        assert painted[ids != first].all() and painted[ids == first].mean() < 0.1

    def test_an_example_comes_with_its_truth(self, page):
        page.click("#example-list li:nth-child(2) button")
        page.wait_for_selector("#which")
        page.check("input[value=truth]")
        assert "right" in page.inner_text("#facts") and "road" in page.inner_text("#legend")

    def test_what_is_no_photo_is_said_where_it_happened(self, page, tmp_path):
        (tmp_path / "<b>evil.jpg").write_bytes(b"x")
        page.set_input_files("#files", tmp_path / "<b>evil.jpg")
        page.wait_for_selector("#photos li.failed")
        assert page.inner_text("#view-error") == "<b>evil.jpg: not a picture that can be read; replace or remove it"
        page.problems[:] = [problem for problem in page.problems if "422" not in problem]  # the browser says it, too


@pytest.mark.plain
class TestBadInput:
    def fails(self, capsys, code, *parts, arguments):
        assert commands(["serve", *map(str, arguments)]) == code
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        for part in parts:
            assert part in error, error

    def test_a_port_in_use(self, capsys, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.fails(capsys, 6, f"{port} is in use", "0 for any that is free", arguments=[tmp_path, "--port", port])

    def test_a_port_that_is_none(self, capsys, tmp_path):
        self.fails(capsys, 2, "got 70000", arguments=[tmp_path, "--port", 70000])

    def test_no_model(self, capsys, tmp_path):
        self.fails(capsys, 4, "holds no *_model.keras", arguments=[tmp_path, "--port", 0])
        (tmp_path / "x.keras").write_text("x")
        self.fails(capsys, 5, "cannot be opened", arguments=[tmp_path / "x.keras", "--port", 0])

    def test_a_package_that_is_missing(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
        self.fails(capsys, 2, f"needs uvicorn; run {pip_install('serve')}", arguments=[tmp_path])

    def test_data_that_are_gone_are_told_on_the_page(self, tmp_path):
        Run(tmp_path).write_config(RunConfig(data=str(tmp_path / "gone")), {}, {})
        examples, note = serving._examples(Run(tmp_path), RGB)
        assert examples == [] and note.startswith("No examples: the data of its run are not at ")
