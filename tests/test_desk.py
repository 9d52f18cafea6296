"""The labelling desk: what its page asks, and the page itself in a browser, up to the training that learns from it."""

import json
import threading
import time

import cv2
import numpy as np
import pytest
import uvicorn
from PIL import Image
from test_serve import PALETTE, Network, ask, ids_in, png, running

from semseg.cli import commands
from semseg.data.corrections import Corrections
from semseg.files import write_csv
from semseg.images.png_writer import PngWriter
from semseg.inference.segmenter import Segmenter
from semseg.runs.run import Run
from semseg.serve.app import make_app
from semseg.serve.desk import Desk, DeskPhoto

SIZE = 8
NEW = np.uint8([[0, 1, 2, 255]] * 4).repeat(2, 0).repeat(2, 1)
OWN = np.zeros((SIZE, SIZE), np.uint8)
PHOTO = (255 * np.eye(3)).astype(np.uint8)[np.full((SIZE, SIZE), 1)]


@pytest.fixture()
def corrections(tmp_path):
    (tmp_path / "photos").mkdir()
    return Corrections.start(tmp_path / "corrections", tmp_path / "photos", PALETTE)


@pytest.fixture()
def port(corrections):
    """A desk with a photo that has no mask, and one that has."""
    photos = [DeskPhoto("a.jpg", lambda: (PHOTO, None), False), DeskPhoto("b/c.jpg", lambda: (PHOTO, OWN), True)]
    app = make_app(Segmenter(Network(), (SIZE, SIZE), PALETTE), desk=Desk(photos, corrections))
    with running(app) as found:
        yield found


def put(port, ids, number=0, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(port, "PUT", f"/desk/{number}/mask", png(ids) if body is None else body, headers)


@pytest.mark.plain
class TestAddresses:
    def test_it_begins_with_the_own_mask_and_goes_on_with_the_saved_one(self, port, corrections):
        assert ask(port, "GET", "/desk/0/mask")[0] == 204
        np.testing.assert_array_equal(ids_in(ask(port, "GET", "/desk/0/prediction")[2]), np.ones((SIZE, SIZE)))
        status, headers, body = ask(port, "GET", "/desk/1/mask")
        np.testing.assert_array_equal(ids_in(body), OWN)
        assert status == 200 and headers["etag"] is None and headers["x-semseg-from"] == "mask"
        status, headers, _ = put(port, NEW, 1, If_None_Match="*")
        again = ask(port, "GET", "/desk/1/mask")
        np.testing.assert_array_equal(ids_in(again[2]), NEW)
        assert status == 200 and again[1]["etag"] == headers["etag"] and again[1]["x-semseg-from"] == "correction"
        np.testing.assert_array_equal(ids_in(corrections.path("b/c.jpg").read_bytes()), NEW)
        listed = json.loads(ask(port, "GET", "/desk")[2])
        assert listed["photos"] == [
            {"name": "a.jpg", "done": False, "mask": False}, {"name": "b/c.jpg", "done": True, "mask": True},
        ]  # fmt: skip
        assert ids_in(ask(port, "GET", "/desk/0/photo")[2]).shape == (SIZE, SIZE, 3)

    def test_what_another_page_saved_is_not_lost(self, port, corrections):
        assert put(port, NEW)[0] == 428
        first = put(port, NEW, If_None_Match="*")[1]["etag"]
        status, _, body = put(port, OWN, If_None_Match="*")
        assert status == 412 and b"a.jpg was saved by another page meanwhile" in body
        second = put(port, OWN, If_Match=first)
        assert second[0] == 200 and put(port, NEW, If_Match=first)[0] == 412
        np.testing.assert_array_equal(ids_in(corrections.path("a.jpg").read_bytes()), OWN)
        assert put(port, NEW, If_Match=second[1]["etag"])[0] == 200

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (png(NEW[:5]), "a.jpg: the mask is 8x5 pixels, its photo 8x8; both must be of one size"),
            (png(np.full_like(NEW, 3)), "a.jpg: the mask holds 3 at 64 pixels; expected the ids of classes, 0 to 2"),
            (png(PHOTO), "a.jpg: the mask holds colours"),
            (png(NEW, format="GIF"), "a.jpg: the mask is no PNG file"),
            (b"", "a.jpg: the mask is no PNG file"),
        ],
        ids=["size", "ids", "colours", "form", "empty"],
    )
    def test_what_is_no_mask_of_the_photo_is_refused_in_one_line(self, port, corrections, body, expected):
        status, _, answer = put(port, NEW, body=body, If_None_Match="*")
        error = json.loads(answer)["error"]
        assert status == 422 and error.startswith(expected) and "\n" not in error and "/tmp" not in error
        assert corrections.names() == []

    def test_a_full_disk_loses_nothing(self, port, corrections, monkeypatch):
        version = put(port, NEW, If_None_Match="*")[1]["etag"]

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(PngWriter, "write", full)
            status, _, body = put(port, OWN, If_Match=version)
        assert status == 507 and b"no space left" in body and body.count(b"\n") == 0
        np.testing.assert_array_equal(ids_in(corrections.path("a.jpg").read_bytes()), NEW)
        assert [path.name for path in corrections.path("a.jpg").parent.iterdir()] == ["a.jpg.png"]
        assert put(port, OWN, If_Match=version)[0] == 200

    @pytest.mark.parametrize("number", ["2", "-1", "x", "9" * 5000, "..%2f..%2fetc"])
    def test_other_photos_are_not_there(self, port, number):
        assert ask(port, "GET", f"/desk/{number}/photo")[0] == 404

    def test_pages_of_other_sites_save_nothing(self, port, corrections):
        assert put(port, NEW, If_None_Match="*", Origin="http://evil.example")[0] == 403
        assert corrections.names() == []


# ------------------------------------------------------------------------------------------------------- in a browser

WIDTH, HEIGHT = 64, 48
TRAINED, JUDGED = 6, 4
LIMITS = ["--image-size", "48x64", "--model", "unet", "--filters", "8", "--cache", "none", "--augment", "none"]


def draw_street(seed):
    """A grey street with a red car on it: photo uint8 RGB `(48, 64, 3)`, ids and the car's box."""
    rng = np.random.default_rng(seed)
    photo = rng.normal(110, 12, (HEIGHT, WIDTH, 3))
    left, top = int(rng.integers(4, 36)), int(rng.integers(4, 24))
    box = left, top, left + 22, top + 16
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[box[1] : box[3], box[0] : box[2]] = 1
    photo[ids == 1] += (90, -60, -60)
    return photo.clip(0, 255).astype(np.uint8), ids, box


def write(folder, name, photo, ids):
    for kind, pixels in (("images", photo), ("masks", ids)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / name)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Photos, of which only the first has its car in its mask, and a network that learnt from them."""
    folder = tmp_path_factory.mktemp("street")
    for i in range(TRAINED):
        photo, ids, _ = draw_street(i)
        write(folder / "data" / "train", f"{i}.png", photo, ids if i == 0 else np.zeros_like(ids))
    for i in range(JUDGED):
        write(folder / "data" / "val", f"{i}.png", *draw_street(100 + i)[:2])
    assert train(folder, "first", "--epochs", "3") == 0
    rows = [{"rank": i, "photo": name} for i, name in enumerate(["val/images/2.png", "images/3.png"], start=1)]
    (folder / "first" / "suggestions").mkdir()
    write_csv(folder / "first" / "suggestions" / "suggestions.csv", rows)
    return folder


def train(folder, output, *more):
    return commands(["train", "--data", str(folder / "data"), "--output", str(folder / output), *LIMITS, *more])


@pytest.fixture(scope="module")
def address(street):
    """Of the desk that the command serves."""
    servers = []

    class Kept(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    arguments = ["serve", str(street / "first"), "--edit", str(street / "data"), "--port", "0", "--no-browser"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn, "Server", Kept)
        thread = threading.Thread(target=commands, args=(arguments,))
        thread.start()
        while thread.is_alive() and not (servers and servers[0].started):
            time.sleep(0.05)
        yield "http://{}:{}/".format(*servers[0].servers[0].sockets[0].getsockname())
        servers[0].should_exit = True
        thread.join(120)


class Driver:
    """Somebody at the desk; places are pixels of the photo."""

    def __init__(self, page, address):
        self.page = page
        page.goto(address)
        self.wait()

    def wait(self):
        self.page.wait_for_selector("#list [aria-current=true]")
        self.page.wait_for_selector("#state", state="hidden")

    def open(self, name):
        self.page.click(f"#list button[title='{name}']")
        self.wait()

    def at(self, x, y):
        box = self.page.locator("#stage").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left, top = (box["width"] - scale * WIDTH) / 2, (box["height"] - scale * HEIGHT) / 2
        return box["x"] + left + scale * x, box["y"] + top + scale * y

    def click(self, x, y, **options):
        self.page.mouse.click(*self.at(x, y), **options)

    def drag(self, *places):
        self.page.mouse.move(*self.at(*places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(*place), steps=5)
        self.page.mouse.up()

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def save(self):
        with self.page.expect_response(lambda response: response.request.method == "PUT") as response:
            self.press("Control+s")
        self.page.wait_for_selector("#save:has-text('Save'):not(:has-text('Saving'))")
        return response.value.status


def saved(street, name):
    return ids_in((street / "data_corrections" / "masks" / f"{name}.png").read_bytes())


@pytest.fixture()
def desk(browser_page, address):
    return Driver(browser_page, address)


@pytest.mark.plain
class TestPage:
    def test_it_begins_with_what_was_suggested(self, desk):
        names = desk.page.eval_on_selector_all("#list button", "found => found.map(({ title }) => title)")
        others = [f"train/images/{i}.png" for i in range(TRAINED)] + [f"val/images/{i}.png" for i in (0, 1, 3)]
        assert names == ["val/images/2.png", *others]  # two photos are called images/3.png

    def test_a_stroke_is_undone_and_done_again_and_saved(self, desk, street):
        desk.open("val/images/0.png")
        own = (street / "data" / "val" / "masks" / "0.png").read_bytes()
        before = ids_in(own)
        desk.press("b", "2")
        desk.drag((10, 40), (50, 40))
        desk.press("Control+z")
        assert desk.save() == 200
        np.testing.assert_array_equal(saved(street, "val/images/0.png"), before)
        desk.press("Control+Shift+z")
        assert "not saved yet" in desk.page.inner_text("#facts")
        assert desk.save() == 200
        changed = saved(street, "val/images/0.png")
        assert (changed[40, 10:50] == 1).all() and (changed[:30] == before[:30]).all()
        assert (street / "data" / "val" / "masks" / "0.png").read_bytes() == own
        assert desk.page.inner_text("#facts").endswith("· saved")

    def test_eraser_and_fills(self, desk, street):
        name, number = "val/images/1.png", TRAINED + 1
        left, top, right, bottom = draw_street(101)[2]
        desk.open(name)
        desk.press("f", "1")  # the car becomes street
        desk.click(left + 5, top + 5)
        desk.press("e")
        desk.drag((2.5, 2.5), (2.6, 2.6))
        assert desk.save() == 200
        filled = saved(street, name)
        assert set(np.unique(filled)) == {0, 255} and filled[2, 2] == 255
        assert (filled[top:bottom, left:right] == 0).all()
        desk.press("f", "0")
        desk.click(60.5, 45.5)
        desk.press("s")
        desk.click(60.5, 45.5)
        desk.wait()
        assert desk.save() == 200
        prediction = ids_in(desk.page.request.get(f"{desk.page.url}desk/{number}/prediction").body())
        wanted = prediction[45, 60]
        regions = cv2.connectedComponents((prediction == wanted).astype(np.uint8), connectivity=4)[1]
        expected = np.where(regions == regions[45, 60], wanted, 255)
        np.testing.assert_array_equal(saved(street, name), expected)

    def test_zoom_and_pan_move_what_is_painted(self, desk, street):
        name = "val/images/2.png"
        desk.open(name)
        x, y = desk.at(30, 20)
        desk.page.mouse.move(x, y)
        desk.page.mouse.wheel(0, -800)  # the pixel under the pointer stays there
        desk.press("p", "0")
        desk.page.keyboard.down(" ")
        desk.page.mouse.down()
        desk.page.mouse.move(x + 60, y)
        desk.page.mouse.up()
        desk.page.keyboard.up(" ")
        for dx, dy in ((40, -20), (80, -20), (80, 20), (40, 20)):
            desk.page.mouse.click(x + dx, y + dy)
        desk.press("Enter")
        assert desk.save() == 200
        places = np.argwhere(saved(street, name) == 255)
        assert len(places) and (abs(places - (20, 30)) <= 3).all()

    def test_the_second_of_two_pages_is_told(self, desk, browser_page, address, street):
        name, browser = "val/images/3.png", browser_page.context
        other = Driver(browser.new_page(), address)
        for each in (desk, other):
            each.open(name)
            each.press("b", "2")
            each.drag((3, 3), (20, 3))
        assert desk.save() == 200 and other.save() == 412
        assert "saved from another page meanwhile" in other.page.inner_text("#problem")
        with other.page.expect_response(lambda response: response.request.method == "PUT") as response:
            other.page.click("#mine")
        assert response.value.status == 200
        browser_page.problems.clear()  # the browser says, too, that 412 came
        other.page.close()

    def test_fingers_paint_and_two_of_them_zoom(self, browser, address, street):
        context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        page = context.new_page()
        desk = Driver(page, address)
        session = context.new_cdp_session(page)

        def touch(kind, *places):
            points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        a, b = desk.at(20, 20), desk.at(40, 20)
        touch("touchStart", a)
        touch("touchMove", b)
        page.wait_for_timeout(200)
        touch("touchMove", b)  # it rests: after a fling Chromium takes the next tap for its end
        touch("touchEnd")
        assert page.is_enabled("#undo") and "not saved yet" in page.inner_text("#facts")
        page.tap("#undo")
        page.wait_for_selector("#undo:disabled", timeout=10_000)
        touch("touchStart", a, b)
        touch("touchMove", (a[0] - 60, a[1]), (b[0] + 60, b[1]))
        touch("touchEnd")
        assert page.is_disabled("#undo")
        context.close()


@pytest.mark.plain
def test_what_is_mended_at_the_desk_makes_the_network_better(desk, street, capsys):
    for i in range(1, TRAINED):
        left, top, right, bottom = draw_street(i)[2]
        desk.open(f"train/images/{i}.png")
        desk.press("p", "2")
        for corner in ((left, top), (right, top), (right, bottom)):
            desk.click(*corner)
        desk.click(left, bottom)
        desk.press("Enter")
        assert desk.save() == 200
        np.testing.assert_array_equal(saved(street, f"train/images/{i}.png"), draw_street(i)[1])
        desk.press("ArrowRight")
        desk.wait()
    for name in ("0", "1", "2", "3"):
        (street / "data_corrections" / "masks" / "val" / "images" / f"{name}.png.png").unlink(missing_ok=True)
    corrected = str(street / "data_corrections")
    more = ["--init", str(street / "first"), "--corrections", corrected, "--epochs", "6"]
    assert train(street, "second", *more) == 0
    first, second = (Run(street / name).metrics for name in ("first", "second"))
    assert first["macro_iou"] + 0.1 < second["macro_iou"]
    assert second["before"]["macro_iou"] == pytest.approx(first["macro_iou"], abs=1e-4)  # the same photos and masks
    change = f"mean IoU {first['macro_iou']:.4f} to {second['macro_iou']:.4f} on the same {JUDGED} photos"
    assert change in " ".join(capsys.readouterr().out.split())
    assert "What changed" in (street / "second" / "report.html").read_text(encoding="utf-8")
