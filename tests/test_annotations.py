"""Outlines and run lengths in place of masks: every format read by hand-worked values, and what is refused."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from semseg.data import open_dataset
from semseg.data.cache import Cache
from semseg.data.check import check_dataset
from semseg.data.convert import convert, of_dataset
from semseg.errors import DataError
from semseg.labels.drawings import Drawing, Runs, Shape, rasterise
from semseg.labels.formats.coco import decode_counts, encode_counts
from semseg.labels.outlines import ellipse_ring, line_rings, pieces_of, runs_of_mask

pytestmark = pytest.mark.plain

# Every format draws this on a photo of 8x6 pixels: a car, a sign on top of its corner, and background.
TRUTH = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 2, 2, 2, 0, 0],
        [0, 0, 0, 2, 2, 2, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)
SIZE = TRUTH.shape
CAR, SIGN = [[1, 1], [5, 1], [5, 4], [1, 4]], [[3, 3], [6, 3], [6, 5], [3, 5]]
NAMES = ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def save_photos(folder, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 255, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(values if isinstance(values, str) else json.dumps(values))


def flat(points):
    return [[float(v) for point in points for v in point]]


def coco(names=NAMES, car=None, sign=None):
    images = [{"id": i, "file_name": name, "height": 6, "width": 8} for i, name in enumerate(names)]
    both = ((7, car or flat(CAR)), (2, sign or flat(SIGN)))
    annotations = [
        {"id": 10 * i + category, "image_id": i, "category_id": category, "segmentation": drawn, "iscrowd": 0}
        for i in range(len(names))
        for category, drawn in both
    ]
    categories = [{"id": 9, "name": "things"}, {"id": 7, "name": "car"}, {"id": 2, "name": "sign"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(root):
    save_photos(root / "images")
    save(root / "annotations.json", coco())


def write_coco_runs(root):
    """Run lengths as a list and as text; the car without what the sign covers."""
    save_photos(root / "train2017")
    counts = runs_of_mask(TRUTH == 1).counts
    counts = np.append(counts, TRUTH.size - counts.sum())
    text = encode_counts(runs_of_mask(TRUTH == 2).counts)
    runs = {"size": [6, 8], "counts": counts.tolist()}, {"size": [6, 8], "counts": text}
    save(root / "annotations" / "instances_train2017.json", coco(NAMES, *runs))


def write_yolo(root):
    save_photos(root / "train" / "images")
    lines = [
        f"{kind} " + " ".join(f"{x / 8:.6f} {y / 6:.6f}" for x, y in points) for kind, points in ((1, CAR), (0, SIGN))
    ]
    for name in NAMES:
        save(root / "train" / "labels" / f"{name[0]}.txt", "\n".join(lines))
    save(root / "data.yaml", "train: ../train/images\nnc: 2\nnames: [sign, car]\n")


def labelme(name, shapes=None, **more):
    shapes = shapes or [("car", "polygon", CAR), ("sign", "rectangle", [SIGN[2], SIGN[0]])]
    entries = [{"label": label, "shape_type": kind, "points": points} for label, kind, points in shapes]
    return {"version": "5.4.1", "shapes": entries, "imagePath": name, "imageHeight": 6, "imageWidth": 8, **more}


def write_labelme(root):
    save_photos(root)
    for name in NAMES:
        save(root / f"{name[0]}.json", labelme(f"..\\somewhere\\{name}"))


def cvat_image(i, name, shapes):
    return f'<image id="{i}" name="{name}" width="8" height="6">{shapes}</image>'


def cvat(images):
    labels = "".join(f"<label><name>{name}</name><color>{color}</color></label>" for name, color in CVAT_COLORS)
    return (
        f'<?xml version="1.0"?><annotations><meta><task><labels>{labels}</labels></task></meta>{images}</annotations>'
    )


CVAT_COLORS = (("sign", "#ff0000"), ("car", "#0000ff"))


def write_cvat(root):
    save_photos(root / "images")
    points = ";".join(f"{x},{y}" for x, y in CAR)
    shapes = (
        '<mask label="sign" rle="0, 6" left="3" top="3" width="3" height="2" z_order="2"/>'
        f'<polygon label="car" points="{points}" z_order="1"/>'
    )
    save(root / "annotations.xml", cvat("".join(cvat_image(i, name, shapes) for i, name in enumerate(NAMES))))


def write_run_lengths(root):
    """Down the columns, from 1: the car without what the sign covers."""
    save_photos(root / "train_images")
    car, sign = "8 3 14 3 20 2 26 2", "22 2 28 2 34 2"
    rows = [f"{name},{runs},{label}" for name in NAMES for runs, label in ((car, 1), (sign, 2))]
    save(root / "train.csv", "\n".join(["ImageId,EncodedPixels,ClassId", *rows]))


def via_regions():
    x, y = zip(*CAR, strict=True)
    car = {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)}
    return [(car, "car"), ({"name": "rect", "x": 3, "y": 3, "width": 3, "height": 2}, "sign")]


def write_via(root):
    save_photos(root)
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": name}} for shape, name in via_regions()]
    photos = {f"{name}12": {"filename": name, "size": 12, "regions": regions} for name in NAMES}
    save(root / "via.json", {"_via_settings": {}, "_via_img_metadata": photos, "_via_attributes": {}})


def write_via_csv(root):
    save_photos(root)
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    quoted = [(json.dumps(shape), json.dumps({"kind": name})) for shape, name in via_regions()]
    rows = [
        f'{name},1,"{{}}",2,{i},' + ",".join('"' + text.replace('"', '""') + '"' for text in texts)
        for name in NAMES
        for i, texts in enumerate(quoted)
    ]
    save(root / "via_export_csv.csv", "\n".join([header, *rows]))


def png_of(inside):
    stream = io.BytesIO()
    Image.fromarray(inside).save(stream, "PNG")
    return stream.getvalue()


def write_supervisely(root):
    """The sign as a bitmap; the car as a rectangle, whose last row and column belong to it."""
    save_photos(root / "ds0" / "img")
    data = base64.b64encode(zlib.compress(png_of(np.ones((2, 3), bool)))).decode()
    objects = [
        {"classTitle": "car", "geometryType": "rectangle", "points": {"exterior": [[1, 1], [4, 3]], "interior": []}},
        {"classTitle": "sign", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [3, 3]}},
    ]
    for name in NAMES:
        save(root / "ds0" / "ann" / f"{name}.json", {"size": {"height": 6, "width": 8}, "objects": objects})
    save(root / "meta.json", {"classes": [{"title": "sign", "color": "#FF0000"}, {"title": "car", "color": "#0000FF"}]})


def brush_of(inside):
    """Packs a mask as Label Studio does: a head, then runs of single values and stretches of one value."""
    values = np.zeros((inside.size, 4), np.uint8)
    values[inside.ravel()] = 255
    bits = f"{values.size:032b}" + f"{7:05b}" + f"{3:04b}{3:04b}{3:04b}{7:04b}"
    for value in values.ravel()[:8]:  # as they are
        bits += "0" + "00" + "0000" + f"{value:08b}"
    rest, at = values.ravel()[8:], 0
    while at < len(rest):
        stop = at + 1
        while stop < len(rest) and rest[stop] == rest[at] and stop - at < 256:
            stop += 1
        bits += "1" + "11" + f"{stop - at - 1:08b}" + f"{rest[at]:08b}"
        at = stop
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def write_label_studio(root):
    save_photos(root / "images")
    size = {"original_height": 6, "original_width": 8, "image_rotation": 0}
    car = {"points": [[100 * x / 8, 100 * y / 6] for x, y in CAR], "polygonlabels": ["car"], "closed": True}
    sign = {"format": "rle", "rle": brush_of(TRUTH == 2), "brushlabels": ["sign"]}
    result = [{"id": "a", "value": car, **size}, {"id": "b", "value": sign, **size}]
    tasks = [
        {"id": i, "data": {"image": f"/data/upload/3/0a1b2c3d-{name}"}, "annotations": [{"result": result}]}
        for i, name in enumerate(NAMES)
    ]
    skipped = {"id": 9, "data": {"image": "/data/upload/3/later.jpg"}, "annotations": [{"was_cancelled": True}]}
    save(root / "project.json", [*tasks, skipped])


def write_labelme_xml(root):
    save_photos(root / "Images")
    objects = "".join(
        f"<object><name>{name}</name><deleted>0</deleted><polygon>"
        + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points)
        + "</polygon></object>"
        for name, points in (("car", CAR), ("sign", SIGN))
    )
    for name in NAMES:
        save(root / "Annotations" / f"{name[0]}.xml", f"<annotation><filename>{name}</filename>{objects}</annotation>")


WRITERS = {
    "coco": write_coco, "coco, runs": write_coco_runs, "yolo": write_yolo, "labelme": write_labelme, "cvat": write_cvat,
    "run-lengths": write_run_lengths, "via": write_via, "via, csv": write_via_csv, "supervisely": write_supervisely,
    "label-studio": write_label_studio, "voc, LabelMe": write_labelme_xml,
}  # fmt: skip


class TestFormats:
    @pytest.mark.parametrize("kind", WRITERS)
    def test_what_is_drawn_is_the_mask(self, tmp_path, kind):
        WRITERS[kind](tmp_path)
        dataset = open_dataset(tmp_path, whole=True)
        assert [sample.photo.name for sample in dataset.samples] == NAMES and not dataset.problems
        car, sign = ("class_1", "class_2") if kind == "run-lengths" else ("car", "sign")
        assert set(dataset.palette.names) == {"background", car, sign} and dataset.palette.names[0] == "background"
        ids = [dataset.palette.names.index(name) for name in ("background", car, sign)]
        for sample in dataset.samples:
            photo, mask = dataset.load(sample)
            np.testing.assert_array_equal(mask, np.array(ids)[TRUTH])
            assert photo.shape == (*SIZE, 3)
        assert f"read as {kind.split(',')[0]}: " in dataset.notes[0]

    @pytest.mark.parametrize("kind", WRITERS)
    def test_the_check_finds_nothing_wrong(self, tmp_path, kind):
        WRITERS[kind](tmp_path)
        findings = check_dataset(open_dataset(tmp_path), image_size=SIZE)
        assert findings.errors == [] and findings.counts("train").sum(axis=1).tolist() == [TRUTH.size] * 3

    @pytest.mark.parametrize("kind", WRITERS)
    def test_a_file_that_was_cut_is_named(self, tmp_path, kind):
        WRITERS[kind](tmp_path)
        files = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".xml", ".csv", ".txt")]
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * 0.7)])
        names = "|".join(path.name for path in files)
        with pytest.raises(DataError, match=rf"({names})"):
            check_dataset(open_dataset(tmp_path, whole=True), image_size=SIZE).refuse("check")

    def test_the_order_of_classes_and_their_colours_are_those_of_the_format(self, tmp_path):
        write_cvat(tmp_path)
        palette = open_dataset(tmp_path, whole=True).palette
        assert palette.names == ("background", "sign", "car") and palette.colors[1:] == ((255, 0, 0), (0, 0, 255))

    def test_classes_that_are_never_drawn_are_left_out_and_named(self, tmp_path):
        write_coco(tmp_path)
        dataset = open_dataset(tmp_path, whole=True)
        assert dataset.palette.names == ("background", "car", "sign")
        assert "never drawn, so no class: things" in dataset.notes


def drawn(shapes, size=SIZE, ids=None, **options):
    return rasterise(Drawing(tuple(shapes), **options), size, ids or {"background": 0, "car": 1, "sign": 2})


def ring(points):
    return (np.array(points, float),)


class TestRasterising:
    def test_a_pixel_belongs_to_an_outline_if_its_centre_does(self):
        mask = drawn([Shape("car", ring([[0.6, 0], [2.6, 0], [2.6, 1.4], [0.6, 1.4]]))], (2, 4))
        assert mask.tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]

    @pytest.mark.parametrize(
        ("size", "points", "text"),
        [((7, 9), [3.3, -2.1, 9.7, 5.2, 1.4, 8.8, -3.0, 2.2, 7.9, 1.1], "2520000000O82F2OL"),  # beyond the photo
         ((5, 6), [0.2, 0.3, 5.9, 4.6, 5.7, 4.9], "g0150"),  # thinner than a pixel
         ((6, 8), [1.5, 0.5, 6.5, 5.5, 6.1, 0.3, 1.2, 5.4], "83202N10O22N1")],  # crosses itself
    )  # fmt: skip
    def test_equals_pycocotools(self, size, points, text):
        """The texts are those of its `frPyObjects`."""
        mask = drawn([Shape("car", ring(np.reshape(points, (-1, 2))))], size)
        np.testing.assert_array_equal(mask, drawn([Shape("car", runs=Runs(decode_counts(text), size))], size))

    def test_equals_pycocotools_for_a_star_of_many_edges(self):
        i = np.arange(23)
        x = 24.3 + (10 + 9 * (i * 7 % 3)) * np.cos(2 * np.pi * i * 5 / 23)
        y = 19.3 + (9 + 8 * (i * 5 % 4)) * np.sin(2 * np.pi * i * 5 / 23)
        mask = drawn([Shape("car", ring(np.stack([x, y], axis=1)))], (40, 48))
        text = (
            r"j04R12N2N2ZOH;9CI;O@73K:LD117ON;JF03?5CF26MK77KH41L243LK50H10073KN4OLO0O53L11N1OMO41M5OL7NI166IK;NE25:8JF1"
            r"LJ`00A320OL`01_O220OMb00_O1010Na00E0T21fN2QOMh04WOMd0O\O4OOd0N]O2O0e0M]O2M2f0MYOO22N3e0M[ON38?M^OO03`00@"
            r"N0K05<4FJON206;IH1NON3524L1;0E72KN9OF191GO61LO30O0O031KN72GN<2BM`03^OMd03[OLg05VOKl05^O"
        )
        np.testing.assert_array_equal(mask, drawn([Shape("car", runs=Runs(decode_counts(text)))], (40, 48)))

    def test_a_second_ring_is_a_hole_and_later_shapes_lie_on_earlier_ones(self):
        hole = Shape("car", (*ring([[0, 0], [4, 0], [4, 4], [0, 4]]), *ring([[1, 1], [3, 1], [3, 3], [1, 3]])))
        top = Shape("sign", ring([[0, 0], [4, 0], [4, 1], [0, 1]]))
        assert drawn([hole, top], (4, 4)).tolist() == [[2, 2, 2, 2], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]

    def test_what_counts_nowhere_is_255(self):
        assert drawn([Shape(None, ring([[0, 0], [1, 0], [1, 1], [0, 1]]))], (1, 2)).tolist() == [[255, 0]]
        assert drawn([], (1, 2), ground=None).tolist() == [[255, 255]]

    def test_shares_are_those_of_width_and_height(self):
        half = Shape("car", ring([[0, 0], [0.5, 0], [0.5, 1], [0, 1]]))
        assert drawn([half], (2, 4), in_shares=True).tolist() == [[1, 1, 0, 0]] * 2

    @pytest.mark.parametrize(
        ("runs", "expected"),
        [(Runs(np.array([1, 2])), [[0, 1, 0], [1, 0, 0]]),
         (Runs(np.array([1, 2]), by_rows=True), [[0, 1, 1], [0, 0, 0]]),
         (Runs(np.array([0, 4]), (2, 2), (1, 2)), [[0, 0, 0], [0, 0, 1]]),  # all but a pixel lie outside
         (Runs(np.array([0, 4]), (2, 2), (-1, -1)), [[1, 0, 0], [0, 0, 0]]),
         (Runs(np.array([0, 4]), (2, 2), (5, 5)), [[0, 0, 0], [0, 0, 0]])],
    )  # fmt: skip
    def test_run_lengths(self, runs, expected):
        assert drawn([Shape("car", runs=runs)], (2, 3)).tolist() == expected

    def test_run_lengths_that_overrun_are_refused(self):
        with pytest.raises(DataError, match=r"a\.csv: has run lengths for 7 pixels, in 3x2 pixels; expected 6"):
            drawn([Shape("car", runs=Runs(np.array([1, 6])))], (2, 3), place="a.csv")

    def test_an_unknown_class_is_refused(self):
        with pytest.raises(DataError, match="shows 'bus', which is none of the classes background, car, sign"):
            drawn([Shape("bus", ring(CAR))])

    def test_far_coordinates_and_many_points_take_little(self):
        far = Shape("car", ring([[-1e9, -1e9], [1e9, -1e9], [1e9, 1e9], [-1e9, 1e9]]))
        assert (drawn([far], (30, 20)) == 1).all()
        angles = np.linspace(0, 2 * np.pi, 400_000)
        circle = Shape("car", (np.stack([20 + 10 * np.cos(angles), 15 + 10 * np.sin(angles)], axis=1),))
        assert np.count_nonzero(drawn([circle], (30, 40))) == pytest.approx(100 * np.pi, abs=6)

    def test_endless_zigzags_are_refused(self):
        zigzag = np.tile([[0.0, 0], [4000, 3]], (40_000, 1))
        with pytest.raises(DataError, match="x: has an outline that crosses the photo too often to be meant"):
            drawn([Shape("car", (zigzag,))], (10, 4000), place="x")


class TestOutlines:
    @pytest.mark.parametrize("seed", range(8))
    def test_outlines_and_run_lengths_give_back_the_mask(self, seed):
        rng = np.random.default_rng(seed)
        inside = rng.random((23, 17)) < (0.2, 0.5, 0.8, 0.95)[seed % 4]
        if seed > 3:
            inside = inside.repeat(3, axis=0).repeat(2, axis=1)
        pieces = [Shape("car", (piece,)) for piece in pieces_of(inside)]
        np.testing.assert_array_equal(drawn(pieces, inside.shape) == 1, inside)
        runs = runs_of_mask(inside)
        np.testing.assert_array_equal(drawn([Shape("car", runs=runs)], inside.shape) == 1, inside)
        np.testing.assert_array_equal(decode_counts(encode_counts(runs.counts)), runs.counts)

    def test_the_outline_of_a_square_has_its_corners(self):
        inside = np.zeros((4, 5), bool)
        inside[1:3, 2:5] = True
        (piece,) = pieces_of(inside)
        assert sorted(map(tuple, piece.tolist())) == [(2, 1), (2, 3), (5, 1), (5, 3)]

    def test_circles_and_lines_cover_what_they_should(self):
        y, x = np.mgrid[:30, :40] + 0.5
        circle = drawn([Shape("car", (ellipse_ring((20.3, 14.1), (9.7, 9.7)),))], (30, 40))
        assert np.count_nonzero((circle == 1) != (np.hypot(x - 20.3, y - 14.1) < 9.7)) < 8
        line = drawn([Shape("car", (part,)) for part in line_rings(np.array([[5.0, 15], [35, 15]]), 10)], (30, 40))
        assert np.count_nonzero(line) == pytest.approx(30 * 10 + 25 * np.pi, abs=8)


class TestRules:
    def test_crowds_and_boxes_count_nowhere_in_coco(self, tmp_path):
        save_photos(tmp_path)
        values = coco()
        values["annotations"][0]["iscrowd"] = 1
        values["annotations"][2]["segmentation"], values["annotations"][2]["bbox"] = [], [1, 1, 4, 3]
        save(tmp_path / "a.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        for sample in dataset.samples[:2]:
            mask = dataset.load(sample)[1]
            np.testing.assert_array_equal(mask, np.where(TRUTH == 1, 255, TRUTH))
        assert f"crowds (iscrowd) count nowhere: 1, first in {tmp_path / 'a.json'}" in dataset.notes
        assert f"boxes without an outline count nowhere: 1, first in {tmp_path / 'a.json'}" in dataset.notes

    def test_where_all_are_crowds_the_flag_stands_for_run_lengths(self, tmp_path):
        save_photos(tmp_path)
        values = coco()
        for entry in values["annotations"]:
            entry["iscrowd"] = 1
        save(tmp_path / "a.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], TRUTH)

    def test_photos_without_outlines_are_background_and_others_not_labelled_yet(self, tmp_path):
        save_photos(tmp_path / "images", [*NAMES, "new.jpg"])
        values = coco()
        values["annotations"] = values["annotations"][:-2]
        save(tmp_path / "a.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        assert len(dataset.samples) == 4 and not dataset.load(dataset.samples[3])[1].any()
        assert "photos without any outline, all background: 1" in dataset.notes
        assert "pictures that no annotation file names, so not labelled yet: 1 in images/" in dataset.notes

    def test_outlines_that_cover_everything_leave_no_background(self, tmp_path):
        save_photos(tmp_path)
        values = coco(car=[[0, 0, 8, 0, 8, 6, 0, 6]])
        save(tmp_path / "a.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        assert dataset.palette.names == ("car", "sign")
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], TRUTH == 2)

    def test_labelme_draws_lines_points_circles_and_bitmaps(self, tmp_path):
        save_photos(tmp_path)
        mask = base64.b64encode(png_of(np.eye(2, dtype=bool))).decode()
        shapes = [("car", "line", [[0, 3], [8, 3]]), ("sign", "circle", [[4, 3], [6, 3]]),
                  ("dot", "mask", [[6, 0], [7, 1]])]  # fmt: skip
        values = labelme("0.jpg", shapes)
        values["shapes"][2]["mask"] = mask
        save(tmp_path / "0.json", values)
        save(tmp_path / "1.json", labelme("1.jpg"))
        dataset = open_dataset(tmp_path, whole=True)
        names = ["background", "car", "dot", "sign"]
        mask = np.array(names)[dataset.load(dataset.samples[0])[1]]
        assert dataset.palette.names == tuple(names)
        assert mask[0, 6] == mask[1, 7] == "dot" and mask[0, 7] == "car"
        y, x = np.mgrid[:6, :8] + 0.5
        np.testing.assert_array_equal(mask == "sign", np.hypot(x - 4, y - 3) < 2)

    def test_attributes_of_via_that_say_the_same_and_regions_without_any(self, tmp_path):
        write_via(tmp_path)
        values = json.loads((tmp_path / "via.json").read_text())
        for entry in values["_via_img_metadata"].values():
            entry["regions"][0]["region_attributes"] = {"kind": "car", "kind_pt": "car"}
            entry["regions"][1]["region_attributes"] = {}
        save(tmp_path / "via.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], np.where(TRUTH == 2, 255, TRUTH))
        assert any(note.startswith("areas without a class count nowhere: 4") for note in dataset.notes)
        values["_via_img_metadata"]["0.jpg12"]["regions"][0]["region_attributes"]["kind_pt"] = "carro"
        save(tmp_path / "via.json", values)
        with pytest.raises(DataError, match="gives its regions the attributes kind, kind_pt; call the one that is the"):
            open_dataset(tmp_path)

    def test_run_lengths_along_the_rows_are_known_by_the_stripes_that_they_would_make(self, tmp_path):
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (40, 64, 3), np.uint8)
            save_mask(tmp_path / "images" / f"{i}.png", pixels)
        truth = np.zeros((40, 64), bool)
        truth[5:30, 10:33] = True
        starts = np.flatnonzero(np.diff(truth.ravel().astype(int), prepend=0) == 1) + 1
        runs = " ".join(f"{start} 23" for start in starts)
        save(tmp_path / "train.csv", "id,rle\n" + "\n".join(f"{i},{runs}" for i in range(3)))
        dataset = open_dataset(tmp_path, whole=True)
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], truth)
        assert "run lengths go along the rows: else they would make stripes" in dataset.notes

    def test_photos_inside_the_json_of_labelme(self, tmp_path):
        save_photos(tmp_path)
        photos = []
        for name in NAMES:
            data = (tmp_path / name).read_bytes()
            photos.append(np.asarray(Image.open(io.BytesIO(data))))
            save(tmp_path / f"{name[0]}.json", labelme(name, imageData=base64.b64encode(data).decode()))
            (tmp_path / name).unlink()
        dataset = open_dataset(tmp_path)
        assert "photos that lie nowhere else and are read from the annotation files: 4" in dataset.notes
        findings = check_dataset(dataset, image_size=SIZE)
        assert findings.errors == []
        sample = next(sample for sample in dataset.samples if sample.photo.name == "2.json")
        photo, mask = dataset.load(sample)
        np.testing.assert_array_equal(photo, photos[2])
        np.testing.assert_array_equal(mask, TRUTH)
        convert(of_dataset(dataset), dataset.palette, "yolo", tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out" / "images").rglob("*.*")) == [
            f"{i}.png" for i in range(4)
        ]

    def test_names_of_what_counts_nowhere(self, tmp_path):
        save_photos(tmp_path)
        for name in NAMES:
            shapes = [
                ("_background_", "polygon", CAR),
                ("__ignore__", "polygon", SIGN),
                ("dot", "rectangle", [[0, 0], [1, 1]]),
            ]
            save(tmp_path / f"{name[0]}.json", labelme(name, shapes))
        dataset = open_dataset(tmp_path, whole=True)
        mask = dataset.load(dataset.samples[0])[1]
        assert dataset.palette.names == ("background", "dot") and mask[0, 0] == 1
        np.testing.assert_array_equal(mask == 255, TRUTH == 2)

    def test_holes_of_supervisely(self, tmp_path):
        write_supervisely(tmp_path)
        points = {"exterior": [[0, 0], [6, 0], [6, 5], [0, 5]], "interior": [[[2, 2], [4, 2], [4, 4], [2, 4]]]}
        entry = {"classTitle": "car", "geometryType": "polygon", "points": points}
        save(tmp_path / "ds0" / "ann" / "0.jpg.json", {"size": {"height": 6, "width": 8}, "objects": [entry]})
        dataset = open_dataset(tmp_path, whole=True)
        mask = dataset.load(dataset.samples[0])[1]
        assert mask[3, 3] == 0 and mask[1, 3] == dataset.palette.names.index("car") and not mask[:, 7].any()

    def test_yolo_photos_without_a_text_file_are_background(self, tmp_path):
        write_yolo(tmp_path)
        (tmp_path / "train" / "labels" / "3.txt").unlink()
        (tmp_path / "train" / "labels" / "2.txt").write_text("")
        dataset = open_dataset(tmp_path, whole=True)
        assert len(dataset.samples) == 4
        assert not dataset.load(dataset.samples[2])[1].any() and not dataset.load(dataset.samples[3])[1].any()
        assert "photos without a text file, all background as YOLO has it: 1" in dataset.notes

    def test_splits_are_those_of_folders_and_names(self, tmp_path):
        for split in ("train", "val"):
            save_photos(tmp_path / f"{split}2017")
            save(tmp_path / "annotations" / f"instances_{split}2017.json", coco())
            save(tmp_path / "annotations" / f"person_keypoints_{split}2017.json", coco(sign=flat(CAR)))
        dataset = open_dataset(tmp_path)
        assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 4, "val": 4}
        np.testing.assert_array_equal(dataset.load(dataset.splits["val"][0])[1], TRUTH)

    def test_masks_are_preferred_unless_far_more_photos_have_outlines(self, tmp_path):
        write_coco(tmp_path)
        for name in NAMES:
            save_mask(tmp_path / "masks" / f"{name[0]}.png", TRUTH * 100)
        dataset = open_dataset(tmp_path, whole=True)
        assert dataset.samples[0].drawing is None and any("could be read as coco" in note for note in dataset.notes)
        assert open_dataset(tmp_path, whole=True, name="coco").samples[0].drawing is not None
        for name in NAMES[2:]:
            (tmp_path / "masks" / f"{name[0]}.png").unlink()
        assert open_dataset(tmp_path, whole=True).samples[0].drawing is not None

    def test_a_photo_and_its_outlines_are_kept_in_the_cache(self, tmp_path):
        write_coco(tmp_path)
        dataset = open_dataset(tmp_path, whole=True)
        sample = dataset.samples[0]
        assert sample.files == (sample.photo,)
        digests = []
        for car in (None, flat(SIGN)):
            save(tmp_path / "annotations.json", coco(car=car))
            sample = open_dataset(tmp_path, whole=True).samples[0]
            digests.append(Cache([sample], SIZE, "", tmp_path / "cache").digest(sample))
        assert digests[0] != digests[1]


def save_mask(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def change_coco(change):
    def write(root):
        save_photos(root)
        values = coco()
        change(values)
        save(root / "a.json", values)

    return write


def first_annotation(**values):
    return change_coco(lambda data: data["annotations"][0].update(values))


def write_yolo_line(line):
    def write(root):
        write_yolo(root)
        save(root / "train" / "labels" / "0.txt", line)

    return write


def write_labelme_shape(**values):
    def write(root):
        save_photos(root)
        for name in NAMES:
            save(root / f"{name[0]}.json", labelme(name))
        data = labelme(NAMES[0])
        data["shapes"][0].update(values)
        save(root / "0.json", data)

    return write


def write_rows(*rows, header="ImageId,EncodedPixels"):
    def write(root):
        save_photos(root)
        save(root / "train.csv", "\n".join([header, *rows]))

    return write


def write_text(name, text):
    def write(root):
        save_photos(root)
        save(root / name, text)

    return write


def repeat_category(data):
    data["categories"].append({"id": 7, "name": "bus"})


def repeat_photo(data):
    data["images"].append(dict(data["images"][0], id=99))


def name_another_photo(data):
    data["images"][1]["file_name"] = "gone.jpg"


def make_shares(data):
    for entry in data["annotations"]:
        entry["segmentation"] = [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]


def leave_boxes(data):
    for entry in data["annotations"]:
        entry["segmentation"], entry["bbox"] = [], [1, 1, 2, 2]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotations><image name="0.jpg"/>&b;</annotations>'
BAD = {
    "category twice": (change_coco(repeat_category), r"a\.json: categories: give the id 7 twice"),
    "no categories": (change_coco(lambda data: data.pop("categories")), r"a\.json: has annotations, and no categories"),
    "photo twice": (change_coco(repeat_photo), r"a\.json: names '0\.jpg' twice"),
    "photo that is not there": (change_coco(name_another_photo), r"names the photo 'gone\.jpg', which"),
    "unknown category": (first_annotation(category_id=5), r"annotation 7 of 0\.jpg: is of the category 5, which"),
    "unknown image": (first_annotation(image_id=50), r"annotates the image 50, which it does not list"),
    "odd coordinates": (first_annotation(segmentation=[[1, 1, 5, 1, 5]]), r"has 5 coordinates; expected x and y"),
    "text": (first_annotation(segmentation=[["a", 1, 5, 1, 5, 3]]), r"of 0\.jpg: segmentation: got .*expected coord"),
    "far away": (first_annotation(segmentation=[[1, 1, 1e12, 1, 5, 3]]), r"no finite number, or beyond any photo"),
    "not a number": (first_annotation(segmentation=[[1, 1, float("nan"), 1, 5, 3]]), r"a\.json: holds NaN"),
    "shares for pixels": (change_coco(make_shares), r"a\.json \(0\.jpg\): all coordinates lie from 0 to 1"),
    "overrun": (first_annotation(segmentation={"size": [6, 8], "counts": [40, 9]}), r"run lengths for 49 pixels; exp"),
    "wrong size": (first_annotation(segmentation={"size": [8, 6], "counts": [48]}), r"of the size \[8, 6\]; expected"),
    "cut runs": (first_annotation(segmentation={"size": [6, 8], "counts": "h~"}), r"compressed run lengths with '~'"),
    "only boxes, coco": (change_coco(leave_boxes), r"a\.json: holds boxes around objects, no outlines"),
    "only boxes, yolo": (write_text("labels/0.txt", "0 0.5 0.5 0.2 0.2\n"), r"0\.txt: holds boxes around objects"),
    "only boxes, voc": (
        write_text("0.xml", "<annotation><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
                   "<ymax>2</ymax></bndbox></object></annotation>"), r"0\.xml: holds boxes around objects"),
    "pixels for shares": (write_yolo_line("0 1 1 5 1 5 4 1 4"), r"line 1: has coordinates from 1 to 5; expected"),
    "a confidence": (write_yolo_line("0 .1 .1 .5 .1 .5 .4 .9"), r"0\.txt: line 1: has 8 numbers; expected a class"),
    "class out of range": (write_yolo_line("7 .1 .1 .5 .1 .5 .4"), r"0\.txt: line 1: is of class 7; expected one of 0"),
    "unknown shape": (write_labelme_shape(shape_type="cube"), r"shape 1: is a 'cube'; expected one of polygon"),
    "short circle": (write_labelme_shape(shape_type="circle", points=[[1, 1]]), r"is a circle of 1 points; expected 2"),
    "no name": (write_labelme_shape(label=""), r"0\.json: shape 1: got '' as the name of a class"),
    "odd runs": (write_rows("0.jpg,1 2 3"), r"train\.csv: line 2: has 3 numbers; expected a start and a length"),
    "from 0": (write_rows("0.jpg,0 2"), r"train\.csv: line 2: has runs that overlap, or start before 1"),
    "beyond": (write_rows("0.jpg,40 20", "1.jpg,1 2"), r"train\.csv \(0\.jpg\): has run lengths for 59 pixels, in 8x6"),
    "depth": (write_text("a.json", '{"imagePath": "0.jpg", "shapes": ' + "[" * 100_000), r"a\.json: nests lists or o"),
    "entities": (write_text("a.xml", BOMB), r"a\.xml: defines a document type or entities"),
    "deep xml": (
        write_text("a.xml", "<annotations><image>" + "<a>" * 9999), r"a\.xml: nests elements deeper than any"),
    "no utf-8": (
        lambda root: [save_photos(root), (root / "a.json").write_bytes(b'{"shapes": [], "imagePath": "\xff"}')],
        r"a\.json: is no text in UTF-8 \(byte 29\)"),
}  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize("kind", BAD)
    def test_is_told_in_one_line_with_its_place(self, tmp_path, kind):
        write, message = BAD[kind]
        write(tmp_path)
        with pytest.raises(DataError, match=message) as caught:
            check_dataset(open_dataset(tmp_path, whole=True), image_size=SIZE).refuse("check")
        assert "\n" not in str(caught.value) and str(caught.value).count("; ") >= 1

    def test_outlines_of_two_points_are_counted(self, tmp_path):
        first_annotation(segmentation=[[1, 1, 5, 4]])(tmp_path)
        dataset = open_dataset(tmp_path, whole=True)
        assert f"outlines of fewer than 3 points, left out: 1, first in {tmp_path / 'a.json'}" in dataset.notes
        assert not (dataset.load(dataset.samples[0])[1] == 1).any()

    def test_rectangles_alone_are_areas_only_where_the_user_says_so(self, tmp_path):
        save_photos(tmp_path)
        for name in NAMES:
            save(tmp_path / f"{name[0]}.json", labelme(name, [("car", "rectangle", [CAR[0], CAR[2]])]))
        with pytest.raises(DataError, match=r"0\.json: holds rectangles only, as for detection; .* `dataset` labelme"):
            open_dataset(tmp_path)
        dataset = open_dataset(tmp_path, name="labelme", whole=True)
        assert np.count_nonzero(dataset.load(dataset.samples[0])[1]) == 12
        assert "rectangles, read as areas: 4" in dataset.notes

    def test_a_mask_of_another_size_is_never_resized(self, tmp_path):
        write_coco(tmp_path)
        values = coco()
        for image in values["images"]:
            image["width"], image["height"] = 16, 12
        save(tmp_path / "annotations.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        with pytest.raises(DataError, match=r"0\.jpg: is 8x6 pixels, its mask .*annotations\.json \(0\.jpg\) 16x12"):
            dataset.load(dataset.samples[0])

    def test_a_list_of_hundreds_of_megabytes_is_refused_before_it_is_read(self, tmp_path):
        save_photos(tmp_path)
        with (tmp_path / "a.json").open("wb") as file:
            file.write(b'{"imagePath": "0.jpg", "shapes": [{"label": "a", "points": [')
            for _ in range(100):
                file.write(b"[1,2]," * 200_000)
        with pytest.raises(DataError, match=r"a\.json: line 1: holds an outline of millions of points"):
            open_dataset(tmp_path)

    def test_two_files_that_contradict_each_other_are_named(self, tmp_path):
        save_photos(tmp_path / "images")
        save(tmp_path / "a.json", coco())
        save(tmp_path / "b.json", coco(car=flat(SIGN)))
        with pytest.raises(DataError, match=r"a\.json and .*b\.json both tell of 0\.jpg, and not the same; .* `masks`"):
            open_dataset(tmp_path)
        dataset = open_dataset(tmp_path, masks="a.json", whole=True)
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], TRUTH)


def save_geotiff(path, left=500_000, top=4_000_000):
    """A GeoTIFF of 8x6 pixels of 10 metres in UTM zone 33."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = {33550: (10.0, 10.0, 0.0), 33922: (0.0, 0.0, 0.0, float(left), float(top), 0.0),
            34735: (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)}  # fmt: skip
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, values in tags.items():
        info.tagtype[tag] = 3 if tag == 34735 else 12
        info[tag] = values
    pixels = np.random.default_rng(left).integers(0, 255, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(path, tiffinfo=info)


def geojson(areas, system="urn:ogc:def:crs:EPSG::32633"):
    """Areas in pixels of the first photo, as features on the ground."""
    features = [
        {
            "type": "Feature",
            "properties": {"id": i, "kind": name, "area": 2.5},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[500_000 + 10 * x, 4_000_000 - 10 * y] for x, y in ring] for ring in rings],
            },
        }
        for i, (name, rings) in enumerate(areas)
    ]
    crs = {"crs": {"type": "name", "properties": {"name": system}}} if system else {}
    return {"type": "FeatureCollection", **crs, "features": features}


class TestGeojson:
    def test_areas_on_the_ground_lie_on_every_photo_that_they_touch(self, tmp_path):
        for i in range(3):
            save_geotiff(tmp_path / f"{i}.tif", 500_000 + 80 * i)
        wide = [[6, 0], [10, 0], [10, 6], [6, 6]]  # over the border of the first two photos
        values = geojson([("car", [CAR, [[2, 2], [3, 2], [3, 3], [2, 3]]]), ("sign", [wide])])
        save(tmp_path / "areas.geojson", values)
        dataset = open_dataset(tmp_path, whole=True)
        assert [sample.photo.name for sample in dataset.samples] == ["0.tif", "1.tif"]
        car, sign = (dataset.palette.names.index(name) for name in ("car", "sign"))
        first = np.zeros(SIZE, int)
        first[1:4, 1:5], first[2, 2], first[:, 6:] = car, 0, sign
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], first)
        assert (dataset.load(dataset.samples[1])[1] == sign).sum() == 12
        assert "pictures that no annotation file names, so not labelled yet: 1 in ./" in dataset.notes

    def test_degrees_are_laid_on_photos_in_metres(self, tmp_path):
        warp = pytest.importorskip("rasterio.warp")
        save_geotiff(tmp_path / "0.tif")
        values = geojson([("car", [CAR])], "")
        (ring,) = values["features"][0]["geometry"]["coordinates"]
        x, y = zip(*ring, strict=True)
        longitude, latitude = warp.transform("EPSG:32633", "EPSG:4326", x, y)
        values["features"][0]["geometry"]["coordinates"] = [[list(p) for p in zip(longitude, latitude, strict=True)]]
        save(tmp_path / "0.geojson", values)
        dataset = open_dataset(tmp_path, whole=True)
        mask = dataset.load(dataset.samples[0])[1]
        assert np.count_nonzero(mask[1:4, 1:5]) == np.count_nonzero(mask) == 12

    def test_areas_elsewhere_are_refused(self, tmp_path):
        save_geotiff(tmp_path / "0.tif", left=900_000)
        save(tmp_path / "areas.geojson", geojson([("car", [CAR])]))
        with pytest.raises(DataError, match=r"areas\.geojson: none of its areas lies on a photo; expected photos that"):
            open_dataset(tmp_path)

    def test_coordinates_are_pixels_where_photos_lie_nowhere(self, tmp_path):
        save_photos(tmp_path)
        for name in NAMES:
            feature = {"type": "Feature", "properties": {"classification": {"name": "Tumor"}, "isLocked": False},
                       "geometry": {"type": "MultiPolygon", "coordinates": [[CAR], [SIGN]]}}  # fmt: skip
            save(tmp_path / f"{name[0]}.geojson", {"type": "FeatureCollection", "features": [feature]})
        dataset = open_dataset(tmp_path, whole=True)
        np.testing.assert_array_equal(dataset.load(dataset.samples[0])[1], TRUTH > 0)
        assert dataset.palette.names == ("background", "Tumor")


class TestOutside:
    def test_outlines_of_a_larger_photo_are_refused(self, tmp_path):
        write_via(tmp_path)
        values = json.loads((tmp_path / "via.json").read_text())
        for entry in values["_via_img_metadata"].values():
            shape = entry["regions"][0]["shape_attributes"]
            shape["all_points_x"] = [10 * x for x in shape["all_points_x"]]
        save(tmp_path / "via.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        with pytest.raises(DataError, match=r"via\.json \(0\.jpg\): 1 of 2 areas lie outside of the photo's 8x6"):
            dataset.load(dataset.samples[0])

    def test_a_stray_area_is_counted(self, tmp_path):
        save_photos(tmp_path)
        values = coco()
        for i in range(4):
            far = {
                "id": 90 + i,
                "image_id": i,
                "category_id": 7,
                "segmentation": [[50, 50, 60, 50, 60, 60]],
                "iscrowd": 0,
            }
            values["annotations"] += [far] * (i == 0) + [dict(values["annotations"][0], image_id=i, id=70 + i)] * 2
        save(tmp_path / "a.json", values)
        dataset = open_dataset(tmp_path, whole=True)
        assert f"areas outside of their photo, left out: 1, first in {tmp_path / 'a.json'}" in dataset.notes
        assert dataset.load(dataset.samples[0])[1].any()
