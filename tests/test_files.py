import pytest

from semseg.files import archive, replacing


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
