"""`python -m semseg report`: what the page says, that it stays by itself, and that it works under a pointer."""

import base64
import html.parser
import io
import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from semseg.cli import commands
from semseg.cli.flags import to_flags
from semseg.evaluation.album import Album
from semseg.labels.palettes import Palette
from semseg.report.charts import Line, line_chart
from semseg.runs.config import RunConfig
from semseg.runs.pictures import write_pictures
from semseg.runs.run import Run

pytestmark = pytest.mark.plain

EVIL = "<script>alert(1)</script>\"'&é.png"
SKY, ROAD = (70, 130, 180), (128, 64, 128)
NONE = "\N{EN DASH}"
PHOTO = (230, 200, 40)


def make_run(folder, *, model="unet", iou=0.4321, prediction=1, name="sky", older=False):
    """What a finished run leaves that the page reads: two classes, three photos, truth sky, prediction half road."""
    folder.mkdir(parents=True)
    found = {"notes": [f"odd: {EVIL}"], "sizes": ["60x40"]}
    config = RunConfig(data=f"data/{EVIL}", model=model, image_size=(32, 48), epochs=2, output=str(folder))
    facts = {"task": "binary", "parameters": 1234567, "device": "CPU", "found": found}
    Run(folder).write_config(config, {}, facts)
    per_class = {
        of: {
            "iou": value, "dice": 0.6, "precision": None, "sensitivity": 0.5, "specificity": 0.25, "boundary_iou": 0.1,
            "boundary_f": 0.2,
        }
        for of, value in ((name, iou), ("road", None))
    }  # fmt: skip
    metrics = {
        "split": "val", "note": "held out", "best_epoch": 2, "training_seconds": 90.0, "ignored_share": 0.05,
        "accuracy": 0.8768, "macro_iou": iou, "macro_dice": 0.6034, "macro_boundary_iou": 0.1234,
        "calibration_error": None, "intervals": {"macro_iou": [0.4011, 0.4666], "accuracy": [None, None]},
        "per_class": per_class,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    columns = "epoch,loss,val_loss,mean_iou,val_mean_iou,seconds"
    (folder / "results.csv").write_text(f"{columns}\n1,.5,.6,.2,.25,30\n2,.4,nan,.3,.5,30\n")
    (folder / "per_image.csv").write_text("photo,iou\na,.5\nb,.25\nc,\n")
    palette = Palette.from_colors((name, "road"), (SKY, ROAD))
    (folder / "classes.json").write_text(json.dumps(palette.to_dict()))
    if not older:
        (folder / "per_class.csv").write_text(f"class,truth_share\n{name},0.75\nroad,0.25\n")
        (folder / "confusion_matrix.csv").write_text(f"truth,as {name},as road\n{name},30,10\nroad,0,0\n")
        write_pictures(folder / "report", draw_pictures(prediction), palette)
    return folder


def draw_pictures(prediction):
    """Three photos of one colour: sky with a strip to ignore at the top, predicted as something else on the right."""
    album = Album(3)
    photo, truth, predicted = np.full((40, 60, 3), PHOTO, np.uint8), np.zeros((40, 60), np.uint8), np.zeros((40, 60))
    truth[:8] = 255
    predicted[:, 30:] = prediction
    for i, place in enumerate((EVIL, "val/b.png", "val/c.png")):
        scores = {"iou": 0.5 - 0.1 * i, "accuracy": 0.5, "confidence": 0.6 + 0.1 * i}
        album.add(place, scores, photo, truth, predicted.astype(np.uint8))
    return album.pictures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def page(run):
    """The page about one run."""
    assert commands(["report", str(run)]) == 0
    return run / "report.html"


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    """The page about two runs of one name in different folders."""
    folder = tmp_path_factory.mktemp("other")
    make_run(folder / "run", model="resunet", iou=0.5678, prediction=0)
    assert commands(["report", str(run), str(folder / "run"), "--output", str(folder / "new" / "both.html")]) == 0
    return folder / "new" / "both.html"


class Reader(html.parser.HTMLParser):
    """The tables of a page as rows of texts, all of its visible text, its tags and addresses."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.text, self.tags, self.addresses, self._open = [], "", [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        self._open.append(tag)
        self.text += "\n" * (tag == "code")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._open):
            self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data.strip()


def test_the_figures_are_those_of_the_run(page):
    read = Reader(page)
    for shown in ("0.432", "0.401 to 0.467", "0.877", "0.603", "0.123", "epoch 2 of 2", "1,234,567", "60x40", "48x32"):
        assert shown in read.text, shown
    classes, matrix = read.tables
    assert classes[1:] == [
        ["sky", "75.0%", "0.432", "0.600", NONE, "0.500", "0.250", "0.100", "0.200"],
        ["road", "25.0%", NONE, "0.600", NONE, "0.500", "0.250", "0.100", "0.200"],
    ]
    assert matrix == [["truth, % predicted as", "sky", "road"], ["sky", "75", "25"]]


def test_the_commands_are_such_that_a_shell_understands(page, run):
    (trained,) = [line for line in Reader(page).text.splitlines() if line.startswith("python -m semseg train")]
    config = Run(run).config
    assert shlex.split(trained)[4:-2] == to_flags(config, without_defaults=True)
    assert shlex.split(trained)[-2:] == ["--backend", "torch"]


@pytest.mark.parametrize("which", ["page", "both"])
def test_names_stay_text_and_nothing_is_loaded_from_elsewhere(which, request):
    path = request.getfixturevalue(which)
    read = Reader(path)
    assert EVIL in read.text
    assert read.tags.count("script") == 1
    assert all(address.startswith(("#", "data:")) for address in read.addresses)
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text
    assert "url(" not in text and "@import" not in text
    assert len(text) < 5e6


def test_several_runs_stand_side_by_side(both):
    read = Reader(both)
    scores, classes, settings = read.tables
    assert [row[0].split("/")[-1] for row in scores[1:]] == ["run", "run"]
    assert scores[1][0] != scores[2][0]
    assert [row[1] for row in scores[1:]] == ["0.4320.401 to 0.467", "0.5680.401 to 0.467"]
    assert classes[1] == ["sky", "75.0%", "0.432", "0.568"]
    assert ["model", "unet", "resunet"] in settings and ["seed", "0", "0"] in settings
    assert read.text.count("The same photos by each") == 1


def test_runs_of_other_classes_share_no_photos(run, tmp_path):
    make_run(tmp_path / "other", name="ski")
    assert commands(["report", str(run), str(tmp_path / "other"), "--output", str(tmp_path / "page.html")]) == 0
    text = Reader(tmp_path / "page.html").text
    assert "know different classes" in text and "The same photos" not in text


def test_what_an_older_run_lacks_is_left_out_and_said(tmp_path):
    folder = make_run(tmp_path / "old", older=True)
    assert commands(["report", str(folder)]) == 0
    read = Reader(folder / "report.html")
    assert "Left out, because this run did not keep it: the confusion matrix" in read.text
    assert "0.432" in read.text and "img" not in read.tags


@pytest.mark.parametrize(
    ("code", "said", "break_it", "more"),
    [
        (4, "holds no config.json", lambda folder: (folder / "config.json").unlink(), []),
        (4, "did not finish, metrics.json is missing", lambda folder: (folder / "metrics.json").unlink(), []),
        (4, "pictures cannot be read", lambda folder: (folder / "report" / "01-truth.png").write_bytes(b"x"), []),
        (4, "is not of 2 classes", lambda folder: (folder / "confusion_matrix.csv").write_text("truth\n"), []),
        (4, "classes", lambda folder: (folder / "classes.json").write_text("{}"), []),
        (2, "expected a file to write, such as report.html", lambda folder: None, ["--output", "page.keras"]),
        (2, "the same run twice", lambda folder: None, ["."]),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(tmp_path, capsys, monkeypatch, code, said, break_it, more):
    folder = make_run(tmp_path / "run")
    monkeypatch.chdir(folder)
    break_it(folder)
    assert commands(["report", str(folder), *more]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not (folder / "report.html").exists()


def test_the_networks_drawing_keeps_the_colour_of_a_thin_arrow(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    shades = np.arange(256 * 64).reshape(64, 256)
    drawing = np.uint8(np.stack([255 - shades % 100, 255 - shades // 100 % 100, 0 * shades + 230], axis=-1))
    drawing[30, 48:52] = ROAD
    Image.fromarray(drawing).save(folder / "model_arch.png")
    assert commands(["report", str(folder)]) == 0
    (address,) = re.findall(r'data:image/png;base64,([^"]+)" width="256"', (folder / "report.html").read_text("utf-8"))
    shown = Image.open(io.BytesIO(base64.b64decode(address))).convert("RGB")
    assert close(shown.getpixel((50, 30)), ROAD)


def test_a_chart_marks_each_value_at_its_height_and_leaves_gaps():
    chart = line_chart([Line("loss", [1.0, float("nan"), 0.5, 0.0], "a")], "Loss", best=3)
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', chart)]
    top, bottom = heights[0], heights[2]
    assert heights[1] == pytest.approx((top + bottom) / 2, abs=0.1)
    assert chart.count("M") == 2  # a new stroke after the gap


def shown_colors(stage, places):
    """The colours at (across, down) shares of a stage, as a browser paints them."""
    image = Image.open(io.BytesIO(stage.screenshot())).convert("RGB")
    return [image.getpixel((int(x * image.width), int(y * image.height))) for x, y in places]


def close(color, expected):
    return np.abs(np.subtract(color, expected)).max() < 12


def test_the_slider_follows_a_pointer_and_the_keyboard(page, browser_page):
    browser_page.goto(page.as_uri())
    stage = browser_page.locator(".shot:visible .stage").first
    stage.scroll_into_view_if_needed()
    handle, box = stage.locator(".handle"), stage.bounding_box()
    across, middle = lambda share: box["x"] + share * box["width"], box["y"] + 0.7 * box["height"]
    left, right = shown_colors(stage, [(0.3, 0.7), (0.7, 0.7)])
    assert close(left, PHOTO) and close(right, ROAD)
    browser_page.mouse.move(across(0.5), middle)
    browser_page.mouse.down()
    browser_page.mouse.move(across(0.9), middle, steps=4)
    browser_page.mouse.up()
    assert handle.get_attribute("aria-valuenow") == "90"
    assert close(shown_colors(stage, [(0.7, 0.7)])[0], PHOTO)
    browser_page.mouse.move(across(0.1), middle)  # released: it stays
    assert handle.get_attribute("aria-valuenow") == "90"
    for key, value in (("ArrowLeft", "88"), ("PageDown", "68"), ("End", "100"), ("Home", "0")):
        browser_page.keyboard.press(key)
        assert handle.get_attribute("aria-valuenow") == value
    left, right = shown_colors(stage, [(0.3, 0.7), (0.7, 0.7)])
    assert close(left, SKY) and close(right, ROAD)
    assert handle.get_attribute("aria-valuetext") == "0% Photo, then Prediction"


def test_layers_and_groups_are_chosen_by_a_click(page, browser_page):
    browser_page.goto(page.as_uri())
    shots = browser_page.locator(".shot:visible")
    browser_page.get_by_label("Worst").check(force=True)
    ordered = sorted(shots.all(), key=lambda shot: shot.bounding_box()["x"] + 9999 * shot.bounding_box()["y"])
    assert [shot.get_attribute("data-worst") for shot in ordered] == ["1", "2", "3"]
    browser_page.locator('[data-choice="right"]').get_by_label("Errors").check(force=True)
    red, _, blue = shown_colors(shots.first.locator(".stage"), [(0.8, 0.7)])[0]
    assert red > 170 and blue < 110


def test_tables_are_sorted_by_a_click_and_back(page, browser_page):
    browser_page.goto(page.as_uri())
    table = browser_page.locator("table.sortable").first
    for title, first in (("Share", "sky"), ("Share", "road"), ("Class", "road"), ("Class", "sky"), ("IoU", "sky")):
        table.get_by_role("button", name=title, exact=True).click()
        assert table.locator("tbody th").first.inner_text() == first


@pytest.mark.parametrize("which", ["page", "both"])
def test_a_phone_never_scrolls_sideways(which, request, browser_page):
    browser_page.set_viewport_size({"width": 360, "height": 740})
    browser_page.goto(request.getfixturevalue(which).as_uri())
    assert browser_page.evaluate("document.documentElement.scrollWidth") == 360


def test_without_scripts_and_on_paper_all_four_pictures_stand_side_by_side(page, browser, browser_page):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(page.as_uri())
    browser_page.goto(page.as_uri())
    browser_page.emulate_media(media="print")
    for shown in (plain, browser_page):
        boxes = [image.bounding_box() for image in shown.locator(".shot").first.locator("img").all()]
        assert len({round(box["x"]) for box in boxes}) == 4 and len({round(box["y"]) for box in boxes}) == 1
        assert all(box["width"] > 50 for box in boxes)
    context.close()
