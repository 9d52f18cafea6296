import csv
import json
import os
import time
from pathlib import Path

import pytest

from semseg.errors import RunFolderError
from semseg.files import (
    archive,
    check_output,
    last_lines,
    read_csv,
    read_json,
    remove_older,
    replacing,
    reserve,
    write_csv,
    write_json,
)

pytestmark = pytest.mark.plain


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), replacing(target) as temporary:
        temporary.write_text("new but not whole")
        raise RuntimeError("half way")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_keeps_the_suffix_and_the_folder(tmp_path):
    with replacing(tmp_path / "a.keras") as temporary:
        assert temporary.suffix == ".keras"
        assert temporary.parent == tmp_path
        temporary.touch()
    assert (tmp_path / "a.keras").exists()


def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path):
    for first in "ab":
        with replacing(tmp_path / (first + "ü" * 125 + ".png")) as temporary:
            temporary.write_text(first)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["a", "b"]


def test_archive_moves_a_run_and_leaves_what_is_not_its_own(tmp_path):
    for name in ("acc.png", "pred_1.png", "thesis.docx"):
        (tmp_path / name).write_text(name)
    first = archive(tmp_path, ("acc.png", "pred_*.png", "results.csv"))
    assert sorted(path.name for path in first.iterdir()) == ["acc.png", "pred_1.png"]
    assert (tmp_path / "thesis.docx").read_text() == "thesis.docx"

    (tmp_path / "acc.png").write_text("second run")
    second = archive(tmp_path, ("acc.png",))
    assert second != first
    assert (first / "acc.png").read_text() == "acc.png"


def test_archive_of_nothing_makes_no_folder(tmp_path):
    assert archive(tmp_path, ("acc.png",)) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fallocate", [True, False])
def test_reserved_space_is_zeros_and_taken(tmp_path, monkeypatch, fallocate):
    if not fallocate:
        monkeypatch.delattr("os.posix_fallocate", raising=False)
    size = (1 << 20) + 5
    reserve(tmp_path / "space", size)
    assert (tmp_path / "space").read_bytes() == bytes(size)
    assert (tmp_path / "space").stat().st_blocks * 512 >= size


def test_more_than_the_disk_has_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match=r"GB of disk space are needed, .* GB are free"):
        reserve(tmp_path / "space", 1 << 60)
    assert not list(tmp_path.iterdir())


def test_only_old_files_are_removed_and_a_stubborn_one_stays(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    for name in ("old", "folder"):
        os.utime(tmp_path / name, (time.time() - 100,) * 2)
    remove_older([*tmp_path.iterdir(), tmp_path / "gone"], 60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new"]


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "scores.json", {"ü": [1, None]})
    text = (tmp_path / "scores.json").read_text(encoding="utf-8")
    assert text.endswith("]\n}\n")
    assert "\n  " in text
    assert json.loads(text) == {"ü": [1, None]}


@pytest.mark.parametrize(("values", "error"), [({"loss": float("nan")}, ValueError), ({1, 2}, TypeError)])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path, values, error):
    write_json(tmp_path / "scores.json", {})
    with pytest.raises(error, match="not JSON"):
        write_json(tmp_path / "scores.json", values)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["{}\n"]


def test_csv_comes_back_with_commas_quotes_and_lines_in_its_values(tmp_path):
    rows = [{"name": 'a "b", c', "note": "two\nlines"}, {"name": "Öl", "note": ""}]
    write_csv(tmp_path / "rows.csv", iter(rows))
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == rows


def test_a_csv_column_that_only_some_rows_have_is_empty_in_the_others(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"a": 1}, {"a": 2, "b": 3}])
    assert (tmp_path / "rows.csv").read_text().splitlines() == ["a,b", "1,", "2,3"]


def test_names_of_files_that_are_not_utf_8_do_not_stop_a_csv(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"photo": "caf\udce9.png"}])
    assert (tmp_path / "rows.csv").read_text().splitlines() == ["photo", "caf?.png"]


def test_a_csv_without_rows_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"rows\.csv: got no rows to write; expected at least one"):
        write_csv(tmp_path / "rows.csv", [])
    assert not list(tmp_path.iterdir())


def test_the_last_lines_of_a_log_are_those_that_hold_something(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"first\n" + b"x" * 50 + b"\n\n  \nlast \xff\n")
    assert last_lines(path) == ["first", "x" * 50, "last \N{REPLACEMENT CHARACTER}"]
    assert last_lines(path, size=20) == ["x" * 8, "last \N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "Expecting value: line 1"),
        ("[" * 100_000, "nests too deeply"),
        ('{"a": ' * 100_000, "nests too deeply"),
        ('{"NaN": 1,\n "b": NaN}', "NaN in line 2 is no number"),
        ("[-Infinity]", "-Infinity in line 1 is no number"),
        ("[" + "9" * 5000 + "]", "Exceeds the limit"),
        ('{"id": 1, "id": 2}', "'id' is there twice"),
        ('"\xff"', "can't decode byte"),
    ],
)
def test_json_that_nobody_can_use_is_one_line(tmp_path, text, what):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=what) as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_a_json_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(3_000_000_000)
    with pytest.raises(ValueError, match="3000 MB of JSON"):
        read_json(tmp_path / "x.json")


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "x.json").write_text("[1]", encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json") == [1]


@pytest.mark.skipif(os.name == "nt", reason="Windows makes no links without rights")
class TestWhereNoOutputCanBe:
    @pytest.mark.parametrize(
        ("make", "what"),
        [
            (lambda path: path, "File name too long"),
            (lambda path: path / "deep", "File name too long"),
        ],
    )
    def test_names_of_300_letters(self, tmp_path, make, what):
        with pytest.raises(RunFolderError, match=rf"x{{300}}.*: cannot be written \({what}\); choose another `output`"):
            check_output(make(tmp_path / ("x" * 300)))

    def test_a_link_to_nowhere_a_link_loop_and_a_file(self, tmp_path):
        (tmp_path / "link").symlink_to("nowhere")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "file").touch()
        for name, what in (
            ("link", "a link to nothing"),
            ("loop", "(a link to nothing|Too many levels)"),
            ("file", "a file is in its"),
        ):
            for path in (tmp_path / name, tmp_path / name / "in" / "it"):
                with pytest.raises(RunFolderError, match=rf"cannot be written \({what}.*\); choose another `output`"):
                    check_output(path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "loop"]

    def test_a_folder_that_is_there_a_link_to_it_and_one_that_is_to_be_made(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path)
        for path in (tmp_path, tmp_path / "link", tmp_path / "new" / "deep", Path("relative")):
            check_output(path)
        assert [path.name for path in tmp_path.iterdir()] == ["link"]


NAMES = ["=HYPERLINK(1)", "+1", "-road", "@sum", "\ttab", "'=quoted", "'tis", "road", "two\nlines", "\r", "\uff1d1"]


def test_text_in_a_csv_file_is_never_a_formula_and_is_read_back(tmp_path):
    rows = [{"class": name, "=share": -0.5, "count": 3} for name in NAMES]
    write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        header, *cells = csv.reader(file)
    assert header == ["class", "'=share", "count"]
    assert not [row[0] for row in cells if row[0][0] in "=+-@\t\r\n\uff1d"]
    assert {tuple(row[1:]) for row in cells} == {("-0.5", "3")}  # numbers stay numbers
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        columns, read = read_csv(file)
    assert columns == ["class", "=share", "count"] and [row["class"] for row in read] == NAMES
