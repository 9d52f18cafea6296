"""What `predict` says of objects: outlines, tables and masks, with networks whose answer is known."""

import csv
import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform, transform_geom

from semseg.data.base import IGNORE
from semseg.errors import SemsegError
from semseg.images import ground as ground_module
from semseg.images.ground import ground_of
from semseg.inference import answers as answers_module
from semseg.inference import object_files
from semseg.inference.answers import Answers, finish, wanted_answers
from semseg.inference.files import KINDS, predict_files, write_masks
from semseg.inference.listing import join_bands, photos_of
from semseg.inference.predictions import jobs_of, note_on_ground
from semseg.inference.segmenter import Segmenter
from semseg.labels.drawings import rasterise
from semseg.labels.formats import FORMATS
from semseg.labels.palettes import Palette

pytestmark = [pytest.mark.plain, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

SIZE = (40, 60)
NAMES = ("background", "cell", "=debris")
UTM = Affine(0.5, 0, 399000.25, 0, -0.5, 5820000.75)
SYSTEMS = {
    "projected": (UTM, "EPSG:32633"),
    "degrees": (Affine(1e-5, 0, 13.5, 0, -1e-5, 52.5), "EPSG:4326"),
    "turned": (Affine.translation(399000, 5820000) @ Affine.rotation(30) @ Affine.scale(2, -3), "EPSG:32633"),
    "south up": (Affine(0.5, 0, 399000.25, 0, 0.5, 5820000.75), "EPSG:32633"),
    "feet": (Affine(2, 0, 6500000, 0, -2, 1900000), "EPSG:2229"),
    "no number": (UTM, "+proj=laea +lat_0=50 +lon_0=10 +x_0=399000 +y_0=5820000"),
}


def draw_ids():
    ids = np.zeros(SIZE, np.uint8)
    ids[5:20, 5:30], ids[10:14, 10:16] = 1, 0
    ids[25:35, 30:50], ids[2, 40] = 2, 1
    ids[38:, :10] = 1
    return ids


def photo_of(ids):
    return np.repeat((ids * 100)[..., None], 3, axis=2)


@pytest.fixture
def segmenter():
    palette = Palette.numbered(3)
    labels = [label.__class__(NAMES[i], *list(vars(label).values())[1:]) for i, label in enumerate(palette.labels)]

    def predict_batch(photos):
        ids = photos[..., :1].astype(float) / 100
        return (-3 * np.abs(ids - np.arange(3))).astype(np.float32)

    return Segmenter(predict_batch, SIZE, Palette(tuple(labels), palette.source), batch_size=1)


def predict(segmenter, folder, output, answers, kinds=("masks",)):
    jobs = jobs_of(
        dict(join_bands(photos_of(str(folder), output, KINDS), segmenter.bands).in_order()),
        output,
        [*kinds, *answers.kinds],
        answers.polygons,
    )
    results = [result for _, result in predict_files(segmenter, jobs.values(), answers=answers)]
    finish(lambda: ((name, job.files) for name, job in jobs.items()), answers, output)
    return jobs, results


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def geotiff(path, ids, place, crs):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=ids.shape[0], width=ids.shape[1], count=3, dtype="uint8", transform=place,
        crs=crs,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(photo_of(ids), 2, 0))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(photo_of(draw_ids())).save(folder / "a.png")
    Image.fromarray(photo_of(np.zeros(SIZE, np.uint8))).save(folder / "empty.png")
    return folder


def test_a_table_of_objects_and_their_counts(segmenter, photos, tmp_path):
    answers = wanted_answers(NAMES, objects="all")
    predict(segmenter, photos, tmp_path / "out", answers)
    rows = rows_of(tmp_path / "out" / "objects.csv")
    assert [(row["photo"], row["object"], row["class"], row["area"]) for row in rows] == [
        ("a.png", "1", "cell", "1"), ("a.png", "2", "cell", str(15 * 25 - 24)), ("a.png", "3", "'=debris", "200"),
        ("a.png", "4", "cell", "20"),
    ]  # fmt: skip
    debris = rows[2]
    assert [debris[name] for name in ("left", "top", "width", "height", "x", "y")] == [
        "30", "25", "20", "10", "40.00", "30.00",
    ]  # fmt: skip
    assert debris["area_m2"] == "" and [row["touches_border"] for row in rows] == ["no", "no", "no", "yes"]
    expected = 1 / (1 + np.exp(-3) + np.exp(-6))
    assert float(debris["probability"]) == pytest.approx(expected, abs=0.003)
    assert rows_of(tmp_path / "out" / "counts.csv") == [
        {"photo": "a.png", "cell": "3", "'=debris": "1"}, {"photo": "empty.png", "cell": "0", "'=debris": "0"},
    ]  # fmt: skip


def test_masks_tables_and_outlines_say_the_same_of_cleaned_objects(segmenter, photos, tmp_path):
    answers = wanted_answers(NAMES, objects="cell", polygons="geojson", min_area=5, fill_holes=True, tolerance=0)
    _, results = predict(segmenter, photos, tmp_path / "out", answers)
    ids = draw_ids()
    ids[10:14, 10:16], ids[2, 40] = 1, 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "masks" / "a.png")), ids)
    assert results[0].counts.tolist() == np.bincount(ids.ravel()).tolist()
    assert [row["area"] for row in rows_of(tmp_path / "out" / "objects.csv")] == ["375", "20"]
    features = json.loads((tmp_path / "out" / "polygons" / "a.geojson").read_text())["features"]
    assert [feature["properties"]["area"] for feature in features] == [375, 20]
    assert [feature["properties"]["class"] for feature in features] == ["cell", "cell"]


@pytest.mark.parametrize("polygons", object_files.SUFFIXES)
def test_outlines_read_back_give_the_mask(photos, tmp_path, polygons):
    ids = draw_ids()
    ids[:3, :3] = IGNORE
    answers = Answers(NAMES, [1, 2], polygons, tolerance=0)
    path = photos / f"a{object_files.SUFFIXES[polygons]}"
    bands = [(ids[:7], np.ones((7, 60))), (ids[7:], np.ones((33, 60)))]
    seen = np.concatenate(list(answers.apply(bands, SIZE, {"polygons": path}, photos / "a.png")))
    np.testing.assert_array_equal(seen, ids)
    if polygons == "yolo":
        (photos / "data.yaml").write_text("names: [cell, '=debris']")
    [drawing] = FORMATS[polygons].read(path, photos).drawings.values()
    keeps_ignored = polygons in ("coco", "labelme")
    back = rasterise(drawing, SIZE, {name: i for i, name in enumerate(NAMES)})
    np.testing.assert_array_equal(back, ids if keeps_ignored else np.where(ids == IGNORE, 0, ids))


def test_one_coco_file_of_all_photos(segmenter, photos, tmp_path):
    predict(segmenter, photos, tmp_path / "out", wanted_answers(NAMES, polygons="coco"))
    values = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [image["file_name"] for image in values["images"]] == ["a.png", "empty.png"]
    assert [entry["image_id"] for entry in values["annotations"]] == [1, 1, 1, 1]
    assert [entry["id"] for entry in values["annotations"]] == [1, 2, 3, 4]
    assert values["annotations"][2]["bbox"] == pytest.approx([30, 25, 20, 10], abs=0.5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_geojson_lies_on_the_geotiff(segmenter, tmp_path, system):
    place, crs = SYSTEMS[system]
    geotiff(tmp_path / "photos" / "a.tif", draw_ids(), place, crs)
    answers = wanted_answers(NAMES, objects="all", polygons="geojson", tolerance=0)
    jobs, _ = predict(segmenter, tmp_path / "photos", tmp_path / "out", answers)
    values = json.loads((tmp_path / "out" / "polygons" / "a.geojson").read_text())
    assert "crs" not in values
    with rasterio.open(tmp_path / "out" / "masks" / "a.tif") as file:
        mask, crs, place = file.read(1), file.crs, file.transform
        assert file.colormap(1)[1] is not None and file.profile["tiled"]
    shapes = [
        (transform_geom("EPSG:4326", crs, feature["geometry"]), NAMES.index(feature["properties"]["class"]))
        for feature in values["features"]
    ]
    np.testing.assert_array_equal(rasterize(shapes, SIZE, transform=place, dtype="uint8"), mask)
    for feature in values["features"]:  # outer rings anticlockwise, as RFC 7946 has them
        x, y = np.array(feature["geometry"]["coordinates"][0]).T
        assert np.dot(x[:-1], y[1:]) > np.dot(x[1:], y[:-1])
    metres = {"projected": 0.25, "degrees": None, "turned": 6, "south up": 0.25, "feet": 4 * 0.3048006096**2,
              "no number": 0.25}[system]  # fmt: skip
    [row] = [row for row in rows_of(tmp_path / "out" / "objects.csv") if row["class"] == "'=debris"]
    assert row["area_m2"] == ("" if metres is None else f"{200 * metres:.10g}")
    assert "RFC 7946" in note_on_ground(next(iter(jobs.values())))


def test_long_straight_borders_bend_with_the_earth(tmp_path):
    geotiff(tmp_path / "a.tif", draw_ids(), Affine(1000, 0, 300000, 0, -1000, 7000000), "EPSG:32633")
    ground = ground_of(tmp_path / "a.tif")
    found = ground.on_ground(np.array([[0.0, 0], [600, 0], [600, 600], [0, 600]]))
    x, y = transform("EPSG:4326", "EPSG:32633", *found.T)
    column, row = (np.array(x) - 300000) / 1000, (7000000 - np.array(y)) / 1000
    assert len(found) == 4 * 19
    off = [np.abs(side - edge) for side in (column, row) for edge in (0, 600)]
    assert np.min(off, axis=0).max() < 0.01


def test_metres_of_mercator_are_no_metres(tmp_path):
    geotiff(tmp_path / "a.tif", draw_ids(), Affine(1, 0, 1500000, 0, -1, 6900000), "EPSG:3857")
    assert ground_of(tmp_path / "a.tif").square_metres is None


def test_a_place_without_a_system_keeps_its_own_coordinates(segmenter, tmp_path):
    Image.fromarray(photo_of(draw_ids())).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text("2\n0\n0\n-2\n101\n199\n")
    jobs, _ = predict(segmenter, tmp_path / "a.png", tmp_path / "out", Answers(NAMES, [2], "geojson", tolerance=0))
    [feature] = json.loads((tmp_path / "out" / "polygons" / "a.geojson").read_text())["features"]
    x, y = np.array(feature["geometry"]["coordinates"][0]).T
    assert (x.min(), x.max(), y.min(), y.max()) == (160, 200, 130, 150)
    assert "nothing tells the system" in note_on_ground(next(iter(jobs.values())))


def test_without_rasterio_coordinates_are_the_photos_own(segmenter, tmp_path, monkeypatch):
    geotiff(tmp_path / "photos" / "a.tif", draw_ids(), UTM, "EPSG:32633")
    monkeypatch.setattr(ground_module, "_crs_of", lambda photo: None)
    jobs, _ = predict(segmenter, tmp_path / "photos", tmp_path / "out", Answers(NAMES, [2], "geojson", tolerance=0))
    values = json.loads((tmp_path / "out" / "polygons" / "a.geojson").read_text())
    assert values["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    assert values["features"][0]["geometry"]["coordinates"][0][0][0] == pytest.approx(399000.25 + 15, abs=10)
    assert "EPSG:32633" in note_on_ground(next(iter(jobs.values())))


def test_scratch_files_give_the_same_as_memory(monkeypatch, tmp_path):
    ids = draw_ids()
    answers = Answers(NAMES, [1, 2], "geojson", True)
    texts = []
    for place, in_memory in (("memory", 1 << 20), ("disk", 16)):
        monkeypatch.setattr(answers_module, "_IN_MEMORY", in_memory)
        monkeypatch.setattr(answers_module, "_BAND_BYTES", 7 * 60)
        files = {"polygons": tmp_path / place / "a.geojson", "objects": tmp_path / place / "a.csv"}
        list(answers.apply([(ids, np.ones(SIZE))], SIZE, files, None))
        texts.append([path.read_text() for path in files.values()])
        assert sorted(path.name for path in (tmp_path / place).iterdir()) == ["a.csv", "a.geojson"]
    assert texts[0] == texts[1]


def test_an_error_leaves_no_file(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(object_files.geojson, "write_photo", fail)
    files = {"masks": tmp_path / "a.png", "polygons": tmp_path / "a.geojson"}
    logits = np.zeros((*SIZE, 3), np.float32)
    with pytest.raises(OSError, match="No space left"):
        write_masks([logits], SIZE, files, Palette.numbered(3), answers=Answers(NAMES, [1], "geojson"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"polygons": "shp"}, "`polygons`: got 'shp'; expected one of geojson, coco, yolo, labelme"),
        ({"objects": "cell,car"}, "`objects`: 'car' is no class; expected some of background, cell, =debris, or all"),
        ({"min_area": -1}, "`min_area`: got -1; expected pixels"),
        ({"polygons": "coco", "tolerance": -1}, "`tolerance`: got -1; expected pixels"),
        ({"polygons": "coco", "tolerance": float("nan")}, "`tolerance`: got nan; expected pixels"),
        ({"tolerance": 1}, "`tolerance`: simplifies outlines, and none are asked for"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(asked, message):
    with pytest.raises(SemsegError) as error:
        wanted_answers(NAMES, **asked)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_nothing_asked_is_nothing_done():
    assert wanted_answers(NAMES) is None
    assert wanted_answers(NAMES, min_area=0) is None
