import json
from dataclasses import replace
from pathlib import Path

import pytest

from semseg import IGNORE
from semseg.data.base import Sample
from semseg.data.finding.class_files import ClassFile, NamedClass, read_class_file
from semseg.data.finding.class_names import apply_names
from semseg.data.finding.contents import list_contents
from semseg.data.finding.side_files import read_side_files
from semseg.data.finding.split_lists import apply_lists
from semseg.errors import DataError
from semseg.labels.numbers import palette_of_values
from semseg.labels.palettes import Palette, cityscapes_palette

pytestmark = pytest.mark.plain

RED, GREEN, BLACK, WHITE = (200, 10, 10), (10, 200, 10), (0, 0, 0), (255, 255, 255)


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def read(tmp_path, name, text, encoding="utf-8"):
    """The classes in a file, as (name, value, color)."""
    file = read_class_file(write(tmp_path / name, text, encoding))
    return file and [(entry.name, entry.value, entry.color) for entry in file.classes]


class TestClassFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("_classes.csv", "Pixel Value, Class\n0, sky\n1, Road\n"),
            ("_classes.csv", "Pixel Value;Class\r\n0;sky\r\n1;Road\r\n"),
            ("my_class_dict.csv", "Class,ID\nsky,0\nRoad,1\n"),
            ("dataset.json", '{"labels": {"0": "sky", "1": "Road"}, "numTraining": 2}'),
            ("dataset.json", '{"labels": {"sky": 0, "Road": 1}}'),
            ("classes.txt", "0 sky\n1 Road\n"),
            ("labels.txt", "0: sky\n1: Road\n"),
            ("class_names.txt", "sky 0\nRoad 1\n"),
            ("labels.txt", "id name\n0 sky\n1 Road"),
            ("id2label.json", '{"0": "sky", "1": "Road"}'),
            ("label2id.json", '{"sky": 0, "Road": 1}'),
            ("classes.json", '[{"id": 0, "name": "sky"}, {"id": 1, "name": "Road"}]'),
        ],
    )
    def test_names_with_numbers(self, tmp_path, name, text):
        assert read(tmp_path, name, text) == [("sky", 0, None), ("Road", 1, None)]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("labelmap.txt", "# label:color_rgb:parts:actions\nDent:200,10,10::\nbig hole:10,200,10:a,b:c\n"),
            ("class_dict.csv", "name,r,g,b\nDent,200,10,10\nbig hole,10, 200,10\n"),
            ("label_class_dict.csv", "R,G,B,Name,rank\n200,10,10,Dent,\n10,200,10,big hole,3\n"),
            ("class_dict_seg.csv", "Dent,200,10,10\nbig hole,10,200,10\n"),
            ("class_dict.csv", "class,hex\nDent,#C80A0A\nbig hole,0AC80A\n"),
            ("class_colors.csv", 'name;rgb\nDent;(200, 10, 10)\nbig hole;"10 200 10"\n'),
            ("label_colors.txt", "200 10 10\tDent\n10 200 10\t\tbig hole\n"),
            ("label_colors.txt", "Dent: 200, 10, 10\nbig hole: 10, 200, 10\n"),
            ("classes.txt", "#C80A0A Dent\n#0ac80a big hole\n"),
            ("meta.json", '{"classes": [{"title": "Dent", "id": 7, "color": "#C80A0A"}, {"title": "big hole", '
             '"color": "#0AC80A"}], "tags": []}'),
            ("classes.json", '{"classes": [{"title": "Dent", "color": "#C80A0A", "shape": "polygon"}, '
             '{"title": "big hole", "color": [10, 200, 10]}]}'),
            ("obj_class_to_machine_color.json", '{"Dent": [200, 10, 10], "big hole": [10, 200, 10]}'),
        ],
    )  # fmt: skip
    def test_names_with_colours(self, tmp_path, name, text):
        assert read(tmp_path, name, text) == [("Dent", None, RED), ("big hole", None, GREEN)]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("label_names.txt", "bolt\r\n\r\n rust \r\n"),
            ("obj.names", "bolt\nrust"),
            ("codes.txt", "\"bolt\"\n'rust'\n"),
            ("classes.txt", "\ufeffbolt\nrust\n"),
            ("labelmap.txt", "bolt\nrust\n"),
            ("classes.json", '["bolt", "rust"]'),
            ("data.yaml", "train: ../train/images\nnc: 2\nnames: ['bolt', 'rust']\n"),
            ("data.yaml", "names:\n  0: bolt\n  1: rust\n"),
            ("notes.json", '{"categories": [{"id": 1, "name": "rust"}, {"id": 0, "name": "bolt"}], "info": {}}'),
        ],
    )
    def test_names_alone(self, tmp_path, name, text):
        assert read(tmp_path, name, text) == [("bolt", None, None), ("rust", None, None)]

    def test_numbers_and_colours_together(self, tmp_path):
        expected = [("sky", 0, RED), ("road", 7, GREEN)]
        assert read(tmp_path, "class_dict.csv", "id,name,r,g,b\n0,sky,200,10,10\n7,road,10,200,10\n") == expected
        assert read(tmp_path, "labels.txt", "0 sky 200 10 10\n7 road 10 200 10\n") == expected

    @pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
    def test_other_encodings(self, tmp_path, encoding):
        assert read(tmp_path, "classes.txt", "Straße\nHäuser\n", encoding)[0] == ("Straße", None, None)

    @pytest.mark.parametrize("name", ["class 1\nclass 2\n", "lane 1\nroad\nlane 2\n"])
    def test_numbers_that_are_parts_of_names(self, tmp_path, name):
        assert [entry[0] for entry in read(tmp_path, "classes.txt", name)] == name.splitlines()

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("classes.txt", "This folder holds all the classes that we use.\nAsk Ann.\n"),
            ("classes.txt", "a/1.jpg\na/2.jpg\n"),
            ("labels.txt", "cat\ndog\ncat\ncat\n"),
            ("labels.txt", "img_1.png 0\nimg_2.png 1\n"),
            ("label_colors.txt", "48.8 10.7 5.7\thead\n"),
            ("classes.txt", ""),
            ("classes.txt", "a\0b"),
            ("_classes.csv", "filename, cat, dog\na.jpg, 0, 1\nb.jpg, 1, 0\n"),
            ("meta.json", '{"name": "x", "version": 2}'),
            ("meta.json", "{broken"),
            ("notes.json", '[{"title": "Shopping", "body": "milk"}]'),
            ("dataset.json", '{"labels": {"background": 0, "whole tumor": [1, 2, 3]}}'),
            ("dataset.json", '[{"question": 1}]'),
            ("data.yaml", "names: [broken"),
            ("data.yaml", "just text"),
            ("classes.json", json.dumps(Palette.numbered(2).to_dict())),
        ],
    )
    def test_files_of_something_else_are_passed_over(self, tmp_path, name, text):
        assert read(tmp_path, name, text) is None

    @pytest.mark.parametrize(
        ("name", "text", "match"),
        [
            ("labelmap.txt", "# label:color_rgb:parts:actions\na:0,0,0::\nb:300,1,1::\n", "line 3 has the colour 300"),
            ("labelmap.txt", "# label:color_rgb\na:0,0::\n", r"line 2 has the colour 0, 0; expected three numbers"),
            ("labelmap.txt", "# label:color_rgb:parts:actions\n:0,0,0::\n", "line 2 is ':0,0,0::'; expected label"),
            ("class_dict.csv", "name,r,g,b\na,0,x,0\n", "line 2 has the colour 0, x, 0"),
            ("class_dict.csv", "name,r,g,b\na,1,2\n", "line 2 has 3 cells; expected 4"),
            ("_classes.csv", "Pixel Value, Class\n0, a\none, b\n", "line 3 has the number 'one'; expected a whole"),
            ("_classes.csv", "Pixel Value, Class\n0, a\n1,\n", "line 3 has no name"),
            ("_classes.csv", "Pixel Value, Class\n0, a\n0, b\n", "has the number 0 more than once"),
            ("_classes.csv", "Pixel Value, Class\n0, a\n1, a\n", "has the name 'a' more than once"),
            ("label_colors.txt", "1 2 3 a\n4 5 6 b\n7 8 c\n", "line 3 is '7 8 c'; expected a name and a colour"),
            ("classes.txt", "road\nsky\nroad\n", "has the name 'road' more than once; expected each class once; mend"),
            ("meta.json", '{"classes": [{"title": "a", "color": "#12"}]}', "'a' has the colour #12; expected three"),
        ],
    )  # fmt: skip
    def test_a_slip_is_named_with_its_line(self, tmp_path, name, text, match):
        with pytest.raises(DataError, match=match) as error:
            read(tmp_path, name, text)
        assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)

    def test_names_that_say_so_are_ignored(self, tmp_path):
        text = '{"labels": {"background": 0, "x": 1, "ignore": 2}}'
        file = read_class_file(write(tmp_path / "dataset.json", text))
        assert [entry.ignored for entry in file.classes] == [False, False, True]
        file = read_class_file(write(tmp_path / "codes.txt", "Void\nignore_region\nUnlabeled\nAvoid\n"))
        assert [entry.ignored for entry in file.classes] == [True, True, False, False]


class TestReadingAFolder:
    def test_copies_that_agree_are_one(self, tmp_path):
        for split in ("train", "valid", "test"):
            write(tmp_path / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, bolt\n")
        side = read_side_files(list_contents(tmp_path))
        assert [[entry.name for entry in file.classes] for file in side.class_files] == [["background", "bolt"]]

    def test_copies_that_complete_each_other_are_united(self, tmp_path):
        write(tmp_path / "a" / "labels.txt", "0 background\n1 bolt\n")
        write(tmp_path / "b" / "labels.txt", "0 background\n2 rust\n")
        (file,) = read_side_files(list_contents(tmp_path)).class_files
        assert [(entry.value, entry.name) for entry in file.classes] == [(0, "background"), (1, "bolt"), (2, "rust")]

    @pytest.mark.parametrize(
        ("one", "other", "match"),
        [
            ("0 sky\n1 bolt\n", "0 sky\n1 nut\n", r"labels.txt: has 1 bolt, and .*b.labels.txt has 1 nut; both must"),
            ("0 sky\n1 bolt\n", "0 sky\n2 bolt\n", "has 1 bolt, and .* has 2 bolt"),
            ("_background_\ncat\n", "_background_\ndog\n", "has cat, and .* has dog"),
            ("sky\ncat\n", "sky\n", "has cat, and .* has no further name"),
            ("1 2 3 sky\n4 5 6 sea\n", "1 2 3 sky\n4 5 6 lake\n", r"has sea \(4, 5, 6\), and .* has lake \(4, 5, 6\)"),
        ],
    )
    def test_copies_that_contradict_each_other_are_refused(self, tmp_path, one, other, match):
        write(tmp_path / "a" / "labels.txt", one)
        write(tmp_path / "b" / "labels.txt", other)
        with pytest.raises(DataError, match=match):
            read_side_files(list_contents(tmp_path))

    def test_hidden_files_and_what_lies_too_deep_count_nowhere(self, tmp_path):
        for place in (".git", "__MACOSX", "a/b/c/d/e"):
            write(tmp_path / place / "classes.txt", "road\nsky\n")
        write(tmp_path / "._classes.txt", "road\nsky\n")
        (tmp_path / "labels.txt").symlink_to(tmp_path / "nowhere")
        write(tmp_path / "requirements.txt", "numpy\n")
        assert read_side_files(list_contents(tmp_path)).class_files == ()
        write(tmp_path / "a/b/c/d/classes.txt", "road\nsky\n")
        assert len(read_side_files(list_contents(tmp_path)).class_files) == 1


def numbers(*values, colors=None):
    return palette_of_values(values, colors)


def colors(*levels, **options):
    return Palette.from_colors([f"class_{i}" for i in range(len(levels))], levels, max_distance=0, **options)


def names_in(tmp_path, name, text):
    return read_class_file(write(tmp_path / name, text))


def by_stored(palette):
    """Name and id by what masks hold."""
    return {label.color if label.value is None else label.value: (label.name, label.id) for label in palette.labels}


class TestNamesByColour:
    def test_the_background_comes_first_and_what_no_mask_holds_stays_out(self, tmp_path):
        text = (
            "# label:color_rgb:parts:actions\nDent:200,10,10::\nStain:8,8,200::\nbackground:0,0,0::\nHole:10,200,10::\n"
        )
        palette, notes = apply_names(colors(BLACK, GREEN, RED), [names_in(tmp_path, "labelmap.txt", text)])
        assert by_stored(palette) == {BLACK: ("background", 0), RED: ("Dent", 1), GREEN: ("Hole", 2)}
        assert notes == ["class names from labelmap.txt: background, Dent, Hole; Stain is in no mask"]
        assert palette.source == "exact" and palette.max_distance == 0

    def test_a_colour_that_is_not_listed_is_refused(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nsky,0,0,0\nDent,200,10,10\n")
        with pytest.raises(DataError, match=r"dict.csv: lists sky, Dent, and not the colour \(1,2,3\) that .*list it"):
            apply_names(colors(BLACK, RED, (1, 2, 3)), [file])

    def test_swapped_channels_are_recognised(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nsky,9,8,7\nDent,200,10,20\n")
        with pytest.raises(DataError, match=r"\(7,8,9\), \(20,10,200\) that .* \(they fit with red and blue swapped\)"):
            apply_names(colors((7, 8, 9), (20, 10, 200)), [file])

    def test_black_and_the_border_of_voc_need_no_line(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nDent,200,10,10\n")
        palette, notes = apply_names(colors(BLACK, RED, (224, 224, 192)), [file])
        assert by_stored(palette) == {
            BLACK: ("background", 0), RED: ("Dent", 1), (224, 224, 192): ("border", IGNORE)
        }  # fmt: skip
        assert "the colour (0,0,0), not listed there, is background" in notes[0] and "border is ignored" in notes[0]

    def test_black_is_no_background_where_another_colour_is(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nBackground,255,255,255\nDent,200,10,10\n")
        with pytest.raises(DataError, match=r"not the colour \(0,0,0\)"):
            apply_names(colors(BLACK, RED, WHITE), [file])
        palette, _ = apply_names(colors(RED, WHITE), [file])
        assert by_stored(palette) == {WHITE: ("Background", 0), RED: ("Dent", 1)}

    def test_blended_masks_go_by_the_nearest_colour_and_take_the_exact_one(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nDent,200,10,10\nsky,0,0,0\n")
        palette, _ = apply_names(colors((2, 1, 0), (197, 12, 10), (203, 9, 12), blended=True), [file])
        assert by_stored(palette) == {BLACK: ("sky", 0), RED: ("Dent", 1)} and palette.blended
        with pytest.raises(DataError, match=r"\(100,100,100\)"):
            apply_names(colors((2, 1, 0), (197, 12, 10), (100, 100, 100), blended=True), [file])

    def test_void_is_ignored_unless_it_is_one_of_two(self, tmp_path):
        file = names_in(tmp_path, "label_colors.txt", "0 0 0 Void\n200 10 10 Dent\n10 200 10 Hole\n")
        palette, notes = apply_names(colors(BLACK, RED, GREEN), [file])
        assert by_stored(palette) == {BLACK: ("Void", IGNORE), RED: ("Dent", 0), GREEN: ("Hole", 1)}
        assert notes == ["class names from label_colors.txt: Dent, Hole; Void is ignored"]
        palette, _ = apply_names(colors(BLACK, RED), [file])
        assert palette.names == ("Void", "Dent")

    def test_a_well_known_code_gives_way_to_the_file(self, tmp_path):
        text = "name,r,g,b\nWeg,128,64,128\nHimmel,70,130,180\nAuto,0,0,142\n"
        palette, _ = apply_names(cityscapes_palette(), [names_in(tmp_path, "class_dict.csv", text)])
        assert palette.names == ("Weg", "Himmel", "Auto") and palette.source == "exact"
        assert by_stored(palette)[(111, 74, 0)] == ("dynamic", IGNORE)

    def test_a_file_without_colours_is_not_used(self, tmp_path):
        before = colors(BLACK, RED)
        palette, notes = apply_names(before, [names_in(tmp_path, "classes.txt", "background\nDent\n")])
        assert palette is before and "not used for names: it tells no colours" in notes[0]

    def test_two_names_of_a_colour_are_refused_where_masks_hold_it(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nsky,0,0,0\nDent,200,10,10\nHole,200,10,10\n")
        with pytest.raises(DataError, match=r"Dent and Hole have one colour, \(200, 10, 10\); give each its own"):
            apply_names(colors(BLACK, RED), [file])


class TestNamesByNumber:
    def test_numbers_that_are_listed(self, tmp_path):
        text = '{"labels": {"background": 0, "bolt": 1, "rust": 2, "ignore": 3, "edge": 255}}'
        palette, notes = apply_names(numbers(0, 2, 3, 255), [names_in(tmp_path, "dataset.json", text)])
        expected = {0: ("background", 0), 2: ("rust", 1), 3: ("ignore", IGNORE), 255: ("edge", IGNORE)}
        assert by_stored(palette) == expected
        assert notes == [
            "class names from dataset.json: 0 background, 2 rust; ignore, edge are ignored; bolt is in no mask"
        ]

    def test_a_number_that_is_not_listed_is_refused_and_0_is_the_background(self, tmp_path):
        file = names_in(tmp_path, "labels.txt", "1 bolt\n2 rust\n")
        palette, _ = apply_names(numbers(0, 1, 2), [file])
        assert palette.names == ("background", "bolt", "rust")
        with pytest.raises(DataError, match=r"labels.txt: lists bolt, rust, and not the numbers 3, 4 that .*list them"):
            apply_names(numbers(0, 1, 2, 3, 4), [file])

    @pytest.mark.parametrize("text", ["0 sky\n1 road\n", "0 sky\n255 road\n"])
    @pytest.mark.parametrize("high", [1, 255])
    def test_1_and_255_are_the_same_beside_0(self, tmp_path, text, high):
        palette, _ = apply_names(numbers(0, high), [names_in(tmp_path, "labels.txt", text)])
        assert by_stored(palette)[high] == ("road", 1)

    def test_three_names_for_0_and_255_are_no_names(self, tmp_path):
        file = names_in(tmp_path, "labels.txt", "0 sky\n1 road\n2 car\n")
        with pytest.raises(DataError, match="not the number 255"):
            apply_names(numbers(0, 255), [file])

    @pytest.mark.parametrize("name", ["obj.names", "classes.txt"])
    @pytest.mark.parametrize(
        ("held", "text", "expected"),
        [
            ((0, 1, 2), "background\nbolt\nrust\n", ("background", "bolt", "rust")),
            ((0, 2), "_background_\nbolt\nrust\n", ("_background_", "rust")),
            ((0, 1, 2), "bolt\nrust\n", ("background", "bolt", "rust")),
            ((1, 2, 3), "bolt\nrust\nnut\n", ("bolt", "rust", "nut")),
            ((0, 255), "road\n", ("background", "road")),
            ((0, 1), "non-road\nroad\n", ("non-road", "road")),
        ],
    )
    def test_bare_names_count_from_0_or_1(self, tmp_path, name, held, text, expected):
        assert apply_names(numbers(*held), [names_in(tmp_path, name, text)])[0].names == expected

    @pytest.mark.parametrize(
        ("name", "held", "text"),
        [
            ("obj.names", (0, 1, 2), "bolt\nrust\nnut\n"),  # 0 may be the background, and no nut drawn
            ("classes.txt", (0, 2), "bolt\nrust\nnut\n"),
            ("classes.txt", (0, 1), "cat\ndog\n"),
            ("classes.txt", (0, 1), "Dent\nbackground\n"),  # by the alphabet
            ("classes.txt", (0, 128, 255), "sky\nroad\ncar\n"),
        ],
    )
    def test_bare_names_that_are_not_clear_are_not_used(self, tmp_path, name, held, text):
        before = numbers(*held)
        palette, notes = apply_names(before, [names_in(tmp_path, name, text)])
        assert palette is before and "which is which is not clear" in notes[0]

    def test_all_numbers_of_a_list_without_background(self, tmp_path):
        palette, notes = apply_names(numbers(0, 1, 2), [names_in(tmp_path, "classes.txt", "sea\nsand\nrock\n")])
        assert palette.names == ("sea", "sand", "rock")
        assert notes == ["class names from classes.txt: 0 sea, 1 sand, 2 rock"]

    def test_fewer_bare_names_than_numbers_are_refused(self, tmp_path):
        file = names_in(tmp_path, "classes.txt", "background\nbolt\n")
        with pytest.raises(
            DataError, match=r"lists background, bolt, and the masks hold the numbers 0, 1, 2; list all"
        ):
            apply_names(numbers(0, 1, 2), [file])

    def test_palette_images_go_by_the_colours_that_they_show(self, tmp_path):
        file = names_in(tmp_path, "labelmap.txt", "# label:color\nDent:200,10,10::\nHole:10,200,10::\nbg:0,0,0::\n")
        palette, _ = apply_names(numbers(0, 1, 2, colors={0: BLACK, 1: GREEN, 2: RED}), [file])
        assert by_stored(palette) | {255: 0} == {0: ("bg", 0), 1: ("Hole", 1), 2: ("Dent", 2), 255: 0}

    def test_grey_colours_are_numbers(self, tmp_path):
        machine = names_in(tmp_path, "obj_class_to_machine_color.json", '{"a": [1, 1, 1], "b": [2, 2, 2]}')
        assert apply_names(numbers(0, 1, 2), [machine])[0].names == ("background", "a", "b")
        white = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nland,0,0,0\nroad,255,255,255\n")
        assert apply_names(numbers(0, 255), [white])[0].names == ("land", "road")
        assert apply_names(numbers(0, 1), [white])[0].names == ("land", "road")

    def test_colours_say_nothing_of_numbers_without_a_palette(self, tmp_path):
        file = names_in(tmp_path, "class_dict.csv", "name,r,g,b\nDent,200,10,10\nHole,10,200,10\n")
        before = numbers(0, 1, 2)
        palette, notes = apply_names(before, [file])
        assert palette is before and "it tells colours only, and the masks hold numbers" in notes[0]

    def test_several_files(self, tmp_path):
        numbered = names_in(tmp_path, "labels.txt", "0 sky\n1 road\n2 car\n")
        bare = names_in(tmp_path, "classes.txt", "x\ny\nz\n")
        other = names_in(tmp_path, "dataset.json", '{"labels": {"sky": 0, "road": 1, "bus": 2}}')
        short = names_in(tmp_path, "id2label.json", '{"0": "sky", "1": "road"}')
        palette, _ = apply_names(numbers(0, 1, 2), [bare, numbered])
        assert palette.names == ("sky", "road", "car")
        with pytest.raises(DataError, match=r"labels.txt: calls the number 2 car, and .*dataset.json calls it bus"):
            apply_names(numbers(0, 1, 2), [numbered, other])
        palette, notes = apply_names(numbers(0, 1, 2), [short, numbered])
        assert palette.names == ("sky", "road", "car") and "id2label.json: lists sky, road, and not" in notes[1]

    def test_objects_of_one_class_go_by_the_class(self):
        background, cell, _ = numbers(0, 1).labels
        united = Palette((background, cell, replace(cell, value=2)), "values")
        file = ClassFile(Path("classes.txt"), (NamedClass("cell"),))
        palette, _ = apply_names(united, [file])
        assert by_stored(palette) == {0: ("background", 0), 1: ("cell", 1), 2: ("cell", 1)}


@pytest.fixture
def samples(tmp_path):
    """Six samples in photos/ and masks/, and a photo without a mask."""
    pairs = [Sample(tmp_path / "photos" / f"p{i}.jpg", tmp_path / "masks" / f"p{i}.png") for i in range(6)]
    for path in [*(pair.photo for pair in pairs), *(pair.mask for pair in pairs), tmp_path / "photos" / "p9.jpg"]:
        write(path, "")
    return pairs


def divide(root, splits, unpaired=()):
    """The names of photos by split, and the sentences."""
    divided, notes = apply_lists(splits, read_side_files(list_contents(root)).split_lists, root, unpaired)
    return divided and {split: [s.photo.stem for s in samples] for split, samples in divided.items()}, notes


class TestSplitLists:
    def test_voc_with_photos_that_no_list_names(self, tmp_path, samples):
        folder = tmp_path / "VOC2012" / "ImageSets" / "Segmentation"
        write(folder / "train.txt", "p0\np2\np1\n")
        write(folder / "val.txt", "p4\n")
        write(folder / "trainval.txt", "p0\np1\np2\np4\n")
        write(folder / "default.txt", "p0\np1\np2\np3\np4\np5\n")
        write(folder / "aeroplane_train.txt", "p4 -1\n")
        write(folder.parent / "Main" / "train.txt", "p4\np9\n")
        divided, notes = divide(tmp_path, {"train": samples}, [tmp_path / "photos" / "p9.jpg"])
        assert divided == {"train": ["p0", "p1", "p2"], "val": ["p4"]}
        assert notes == [
            "splits from VOC2012/ImageSets/Segmentation: 3 train, 1 val; 2 photos with a mask in no list, left out; "
            "1 photo without a mask in no list"
        ]

    @pytest.mark.parametrize(
        "lines",
        [
            "p0.jpg\np1.jpg\n",
            "photos/p0.jpg\nphotos/p1.jpg\n",
            "/SegNet/train/p0.png /SegNet/trainannot/p0.png\n/SegNet/train/p1.png /SegNet/trainannot/p1.png\n",
            "C:\\data\\p0.jpg\r\nC:\\data\\p1.jpg\r\n",
            "p0 1 1 1\np1 2 1 1\n",
            "photos/p0.jpg,masks/p0.png\nphotos/p1.jpg,masks/p1.png\n",
            "image,mask\np0.jpg,p0.png\np1.jpg,p1.png\n",
            "\ufeffp0\n\np1",
        ],
    )
    def test_lines_of_all_forms(self, tmp_path, samples, lines):
        write(tmp_path / "train.txt", lines)
        write(tmp_path / "valid.txt", "p2\n")
        assert divide(tmp_path, {"train": samples})[0] == {"train": ["p0", "p1"], "val": ["p2"]}

    @pytest.mark.parametrize("name", ["train_list.txt", "list_train.txt", "train_ids.txt", "Training.txt", "train.lst"])
    def test_names_of_lists(self, tmp_path, samples, name):
        write(tmp_path / "splits" / name, "p0\np1\n")
        assert divide(tmp_path, {"train": samples})[0] == {"train": ["p0", "p1"]}

    def test_affixes_and_numbers_of_channels(self, tmp_path):
        pairs = [Sample(tmp_path / f"{i}_sat.jpg", tmp_path / f"{i}_mask.png") for i in (1, 2)]
        pairs.append(Sample(tmp_path / "case_0000.png", tmp_path / "labels" / "case.png"))
        write(tmp_path / "train.txt", "1\ncase\n")
        write(tmp_path / "val.txt", "2_mask.png\n")
        assert divide(tmp_path, {"train": pairs})[0] == {"train": ["1_sat", "case_0000"], "val": ["2_sat"]}

    def test_nnunet_takes_the_first_fold_and_says_so(self, tmp_path, samples):
        folds = [{"train": ["p0", "p1", "p2", "p3"], "val": ["p4", "p5"]}, {"train": ["p4"], "val": ["p0"]}]
        write(tmp_path / "splits_final.json", json.dumps(folds))
        divided, notes = divide(tmp_path, {"train": samples})
        assert divided == {"train": ["p0", "p1", "p2", "p3"], "val": ["p4", "p5"]}
        assert notes == ["splits from splits_final.json (fold 0 of 2): 4 train, 2 val"]

    def test_trainval_without_its_parts_is_for_training_and_leaves_test_alone(self, tmp_path, samples):
        write(tmp_path / "annotations" / "trainval.txt", "".join(f"p{i} 1 1 1\n" for i in range(6)))
        write(tmp_path / "annotations" / "test.txt", "p5 1 1 1\n")
        divided, notes = divide(tmp_path, {"train": samples})
        assert divided == {"train": ["p0", "p1", "p2", "p3", "p4"], "test": ["p5"]}
        assert "trainval.txt: names 1 photo (p5.jpg) that test.txt names too; kept for test only" in notes[1]

    def test_trainval_less_train_is_val(self, tmp_path, samples):
        write(tmp_path / "trainval.txt", "p0\np1\np2\n")
        write(tmp_path / "train.txt", "p0\np1\n")
        assert divide(tmp_path, {"train": samples})[0] == {"train": ["p0", "p1"], "val": ["p2"]}

    def test_without_a_list_for_training_the_rest_is_for_training(self, tmp_path, samples):
        write(tmp_path / "test.txt", "p0\np1\n")
        assert divide(tmp_path, {"train": samples})[0] == {"train": ["p2", "p3", "p4", "p5"], "test": ["p0", "p1"]}

    def test_a_list_may_name_photos_without_a_mask_and_a_test_list_only_such(self, tmp_path, samples):
        write(tmp_path / "train.txt", "p0\np1\np9\n")
        write(tmp_path / "test.txt", "p9\n")
        divided, notes = divide(tmp_path, {"train": samples[:2]}, [tmp_path / "photos" / "p9.jpg"])
        assert divided == {"train": ["p0", "p1"]}
        assert notes[0] == "splits from train.txt: 2 train; 1 photo without a mask in a list"
        assert notes[1].endswith("test.txt: no photo that it names has a mask; left out")

    @pytest.mark.parametrize("text", ["apples\npears\nplums\n", "Some prose about tests.\n", "x1\nx2\n"])
    def test_lists_of_something_else_are_passed_over(self, tmp_path, samples, text):
        write(tmp_path / "test.txt", text)
        write(tmp_path / "requirements.txt", "p0\n")
        divided, notes = divide(tmp_path, {"train": samples})
        assert divided is None
        assert len(notes) == 1 and "test.txt: names no photo that has a mask; not read as a list" in notes[0]

    @pytest.mark.parametrize(
        ("lists", "match"),
        [
            ({"train": "p0\np1\n", "val": "p2\nq7\nq8\n"}, r"val.txt: names 2 photos \(q7, q8\) that cannot be found"),
            ({"train": "p0\np1\n", "val": "q7\n"}, r"val.txt: names 1 photo \(q7\) that cannot be found; add them"),
            ({"train": "p0\np1\np0\n"}, r"train.txt: names 1 photo \(p0.jpg\) more than once; expected each once"),
            ({"train": "p0\np0.jpg\n"}, r"more than once"),
            ({"train": "p0\np1\n", "val": "p1\np2\n"}, r"val.txt: names 1 photo \(p1.jpg\) that .*train.txt names too"),
            ({"train": "p0\np1\n", "test": "p1\n"}, r"names 1 photo \(p1.jpg\) that .* names too; expected"),
            ({"train": "p0\n", "val": "p1\n", "trainval": "p0\np1\np2\n"}, r"trainval.txt: 1 photo \(p2.jpg\) in it"),
            ({"train": "p0\n", "val": "p1\n", "trainval": "p0\n"}, r"trainval.txt: 1 photo \(p1.jpg\) in train or val"),
            ({"val": "p0\n", "valid": "p1\n"}, r"val.txt: lists other photos for val than valid.txt beside it"),
            ({"train": "p0.jpg p1.png\n"}, r"names 1 photo \(p0.jpg p1.png\) with the masks of other photos"),
            ({"train": "p9\n", "val": "p0\n"}, r"the lists leave no photo with a mask for training"),
        ],
    )  # fmt: skip
    def test_lists_that_make_no_sense_are_refused(self, tmp_path, samples, lists, match):
        for name, text in lists.items():
            write(tmp_path / f"{name}.txt", text)
        with pytest.raises(DataError, match=match) as error:
            divide(tmp_path, {"train": samples})
        assert "\n" not in str(error.value)

    def test_folders_and_lists_agree_or_are_refused(self, tmp_path, samples):
        write(tmp_path / "train.txt", "p0\np1\n")
        write(tmp_path / "val.txt", "p4\n")
        by_folder = {"train": samples[:3], "val": samples[4:5], "test": samples[5:]}
        assert divide(tmp_path, by_folder)[0] == {"train": ["p0", "p1"], "val": ["p4"], "test": ["p5"]}
        with pytest.raises(DataError, match=r"val.txt: names 1 photo \(.*p4.jpg\) in the folder of train; expected"):
            divide(tmp_path, {"train": samples[:5], "val": samples[5:]})

    def test_a_list_may_divide_the_folder_for_training(self, tmp_path, samples):
        write(tmp_path / "val.txt", "p1\n")
        divided = divide(tmp_path, {"train": samples[:3], "test": samples[3:]})[0]
        assert divided == {"train": ["p0", "p2"], "val": ["p1"], "test": ["p3", "p4", "p5"]}

    def test_the_same_name_in_several_folders(self, tmp_path):
        tiles = [Sample(tmp_path / f"Tile {i}" / "images" / "a.jpg", tmp_path / f"Tile {i}" / "a.png") for i in (1, 2)]
        write(tmp_path / "train.txt", "Tile 1/a.jpg\n")
        write(tmp_path / "val.txt", "Tile 2/a.jpg\n")
        divided, _ = apply_lists({"train": tiles}, read_side_files(list_contents(tmp_path)).split_lists, tmp_path)
        assert divided == {"train": tiles[:1], "val": tiles[1:]}
        write(tmp_path / "val.txt", "a.jpg\n")
        with pytest.raises(DataError, match=r"names 1 photo \(a.jpg\) of which there are several; write their folders"):
            divide(tmp_path, {"train": tiles})

    def test_a_list_in_the_folder_of_its_split_means_that_folder(self, tmp_path):
        pairs = {s: [Sample(tmp_path / s / "a.jpg", tmp_path / s / "m" / "a.png")] for s in ("train", "val")}
        for split in pairs:
            write(tmp_path / split / f"{split}.txt", "a\n")
        assert apply_lists(pairs, read_side_files(list_contents(tmp_path)).split_lists, tmp_path)[0] == pairs
