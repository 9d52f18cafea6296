"""The tables against their sources, and against each other."""

import pytest

from semseg.labels import known_palettes
from semseg.labels.known_palettes import ADE20K, CAMVID_11, CAMVID_32, CITYSCAPES, VOC

pytestmark = pytest.mark.plain

COLORS = {
    "CITYSCAPES": [color for *_, color in CITYSCAPES],
    **{
        name: [color for _, color in getattr(known_palettes, name)]
        for name in ("CAMVID_32", "CAMVID_11", "VOC", "ADE20K")
    },
}
SHARED = {"ADE20K": ["road", "skyscraper"]}  # (140, 140, 140) for both, in the official table too


@pytest.mark.parametrize("name", COLORS)
def test_every_color_is_rgb(name):
    assert all(len(color) == 3 and all(0 <= value <= 255 for value in color) for color in COLORS[name])


@pytest.mark.parametrize(("name", "count"), [("CAMVID_32", 32), ("CAMVID_11", 12), ("VOC", 22), ("ADE20K", 150)])
def test_names_and_colors_are_unique_and_void_stands_last(name, count):
    table = getattr(known_palettes, name)
    names, colors = zip(*table, strict=True)
    assert len(set(names)) == len(table) == count
    assert [label for label, color in table if colors.count(color) > 1] == SHARED.get(name, [])
    assert [label.lower() for label in names].count("void") == names.count("void") == (name != "ADE20K")
    assert all(label == label.strip() for label in names)
    assert name == "ADE20K" or names[-1] == "void"


def test_cityscapes_has_the_ids_of_its_files():
    assert [row[1] for row in CITYSCAPES] == [*range(34), -1]
    assert len({row[0] for row in CITYSCAPES}) == 35


def test_cityscapes_trains_on_19_classes_in_7_categories():
    trained = [row for row in CITYSCAPES if row[2] != 255]
    assert [row[2] for row in trained] == list(range(19))
    assert list(dict.fromkeys(row[3] for row in trained)) == [
        "flat", "construction", "object", "nature", "sky", "human", "vehicle",
    ]  # fmt: skip
    assert len({row[4] for row in trained}) == 19
    assert {row[3] for row in CITYSCAPES} - {row[3] for row in trained} == {"void"}


def test_voc_follows_its_formula():
    def color(index):
        """Bit 3j + c of the index is bit 7 - j of channel c."""
        return tuple(sum((index >> 3 * j + channel & 1) << 7 - j for j in range(8)) for channel in range(3))

    assert [row[1] for row in VOC[:-1]] == [color(index) for index in range(21)]
    assert VOC[-1][1] == color(255) == (224, 224, 192)
    assert [VOC[i][0] for i in (0, 1, 15, 20)] == ["background", "aeroplane", "person", "tvmonitor"]


@pytest.mark.parametrize(
    ("table", "index", "row"),
    [
        (CAMVID_32, 0, ("Animal", (64, 128, 64))),
        (CAMVID_32, 10, ("LaneMkgsDriv", (128, 0, 192))),
        (CAMVID_32, 22, ("SUVPickupTruck", (64, 128, 192))),
        (CAMVID_32, 30, ("Wall", (64, 192, 0))),
        (CAMVID_11, 0, ("sky", (128, 128, 128))),
        (CAMVID_11, 4, ("pavement", (60, 40, 222))),
        (CAMVID_11, 10, ("bicyclist", (0, 128, 192))),
        (ADE20K, 0, ("wall", (120, 120, 120))),
        (ADE20K, 20, ("car", (0, 102, 200))),
        (ADE20K, 74, ("computer", (0, 255, 173))),
        (ADE20K, 127, ("bicycle", (255, 245, 0))),
        (ADE20K, 149, ("flag", (92, 0, 255))),
    ],
)
def test_single_rows_against_their_sources(table, index, row):
    assert table[index] == row


def test_camvid_keeps_its_colors_when_classes_are_merged():
    shared = {color for _, color in CAMVID_11} - {color for _, color in CAMVID_32}
    assert shared == {(60, 40, 222)}  # SegNet paints the pavement anew
