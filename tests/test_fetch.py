"""Archives that lie: every fault is planted, and nothing may appear outside the folder or look whole."""

import bz2
import io
import os
import stat
import struct
import sys
import tarfile
import types
import zipfile

import pytest

from semseg.data import fetch
from semseg.data.fetch import local_folder
from semseg.errors import DataError, SemsegError

pytestmark = pytest.mark.plain

FILES = {"set/train/1.png": b"photo 1" * 99, "set/train/straße 街.png": b"photo 2", "set/val/1.png": b""}
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
OUTSIDE = [
    "../evil",
    "a/../../evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "/evil",
    "\\evil",
    "C:\\evil",
    "a/c:evil",
    "a/.. /evil",
]


def make_zip(path, files=FILES, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make_tar(path, files=FILES, mode="w", **header):
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return path


def make(path, files=FILES):
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files, TAR_MODES["".join(path.suffixes)])


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path):
    """A cache that, after the test, holds whole folders only, and around it nothing but what the test has put there."""
    yield tmp_path / "inner" / "cache"
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name and path.suffix not in (".zip", ".tar")]
    archives = tmp_path / "inner" / "cache" / "archives"
    assert not archives.exists() or not [path for path in archives.iterdir() if path.name.startswith(".")]


def refused(path, cache, match):
    with pytest.raises(DataError, match=match) as caught:
        local_folder(str(path), cache)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert not (cache / "archives").exists() or not list((cache / "archives").iterdir())


class TestArchives:
    @pytest.mark.parametrize("suffix", [".zip", *TAR_MODES])
    def test_every_kind_is_unpacked_once_by_its_bytes(self, tmp_path, cache, suffix):
        archive, said = make(tmp_path / f"pairs{suffix}"), []
        folder = local_folder(str(archive), cache, said.append)
        assert contents(folder) == FILES  # the one wrapping folder stays
        assert folder.parent == cache / "archives" and folder.name.startswith("pairs-")
        (folder / "mark").touch()
        assert local_folder(str(archive), cache, said.append) == folder and (folder / "mark").exists()
        assert len(said) == 1 and str(archive) in said[0]
        make(archive, {"other": b"bytes"})
        assert contents(local_folder(str(archive), cache)) == {"other": b"bytes"}

    def test_a_folder_is_returned_as_it_is(self, tmp_path, cache):
        assert local_folder(str(tmp_path), cache) == tmp_path
        assert not cache.exists()

    def test_the_content_decides_not_the_name(self, tmp_path, cache):
        assert contents(local_folder(str(make_zip(tmp_path / "download")), cache)) == FILES
        assert contents(local_folder(str(make_tar(tmp_path / "wrong.zip", mode="w:gz")), cache)) == FILES

    def test_a_tar_that_ends_with_a_zip_is_a_tar(self, tmp_path, cache):
        inner = make_zip(tmp_path / "inner.zip", {"a": b"a"}).read_bytes()
        folder = local_folder(str(make_tar(tmp_path / "outer.tar", {"b": b"b", "inner.zip": inner})), cache)
        assert contents(folder) == {"b": b"b", "inner.zip": inner}

    def test_a_zip_in_a_zip_stays_packed(self, tmp_path, cache):
        inner = make_zip(tmp_path / "inner.zip").read_bytes()
        assert contents(local_folder(str(make_zip(tmp_path / "a.zip", {"inner.zip": inner})), cache)) == {
            "inner.zip": inner
        }

    def test_junk_is_left_out_and_backslashes_are_folders(self, tmp_path, cache):
        junk = ["__MACOSX/set/._1.png", "set/.DS_Store", "set/._1.png", "set/Thumbs.db"]
        archive = make_zip(
            tmp_path / "a.zip", {"set\\": b"", "set\\1.png": b"1", "set/.hidden": b"2", **dict.fromkeys(junk, b"junk")}
        )
        assert contents(local_folder(str(archive), cache)) == {"set/1.png": b"1", "set/.hidden": b"2"}

    @pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
    def test_an_interrupted_run_leaves_nothing_and_the_next_one_works(self, tmp_path, cache, suffix, monkeypatch):
        archive, calls = make(tmp_path / f"pairs{suffix}"), []

        def interrupted(*arguments):
            calls.append(write(*arguments))
            if len(calls) == 2:
                raise KeyboardInterrupt

        write = fetch._write
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(fetch, "_write", interrupted)
            local_folder(str(archive), cache)
        assert list((cache / "archives").iterdir()) == []
        assert contents(local_folder(str(archive), cache)) == FILES

    def test_what_a_killed_run_left_is_not_taken_for_whole(self, tmp_path, cache):
        left = cache / "archives" / ".unpacking-1" / "whole"
        left.mkdir(parents=True)
        assert contents(local_folder(str(make_zip(tmp_path / "a.zip")), cache)) == FILES
        os.removedirs(left)

    def test_what_is_no_archive_is_refused(self, tmp_path, cache):
        text = tmp_path / "notes.zip"
        text.write_text("not a zip")
        refused(text, cache, "neither a folder nor a whole zip or tar")
        text.write_bytes(b"")
        refused(text, cache, "neither a folder nor a whole zip or tar")
        refused(tmp_path / "none", cache, "none: no such file or folder; give `data`")

    def test_a_cache_that_cannot_be_written_is_one_line(self, tmp_path):
        (tmp_path / "file").touch()
        refused(make_zip(tmp_path / "a.zip"), tmp_path / "file" / "cache", "Not a directory")


class TestUnsafeMembers:
    @pytest.mark.parametrize("name", OUTSIDE)
    @pytest.mark.parametrize("maker", [make_zip, make_tar])
    def test_paths_that_leave_the_folder(self, tmp_path, cache, maker, name):
        archive = maker(tmp_path / "evil.zip", {"good": b"", name: b"evil"})
        with zipfile.ZipFile(archive) if maker is make_zip else tarfile.open(archive) as file:
            names = file.namelist() if maker is make_zip else file.getnames()
        assert name in names  # neither library has mended it
        refused(archive, cache, r"evil' \(it would lie outside the folder\)")

    @pytest.mark.parametrize("name", ["../evil/", "/evil/"])
    def test_folders_that_leave_the_folder(self, tmp_path, cache, name):
        refused(make_zip(tmp_path / "evil.zip", {name: b""}), cache, "it would lie outside")
        refused(make_tar(tmp_path / "evil.tar", {name: b""}, type=tarfile.DIRTYPE), cache, "it would lie outside")

    @pytest.mark.parametrize("name", ["...a", "a..b", "1.2/c", "./a", "a/./b", ":y", "12:30"])
    def test_harmless_dots(self, tmp_path, cache, name):
        folder = local_folder(str(make_tar(tmp_path / "a.tar", {name: b"1"})), cache)
        assert list(contents(folder).values()) == [b"1"]

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    )
    def test_links_and_devices_in_a_tar(self, tmp_path, cache, kind):
        archive = make_tar(tmp_path / "a.tar", {"passwords": b""}, type=kind, linkname="../../evil")
        refused(archive, cache, r"'passwords' \(it is a link or a device\)")

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
    def test_links_and_devices_in_a_zip(self, tmp_path, cache, kind):
        info = zipfile.ZipInfo("set")
        info.external_attr = (kind | 0o777) << 16
        refused(make_zip(tmp_path / "a.zip", {info: "../../evil"}), cache, r"'set' \(it is a link or a device\)")

    def test_an_encrypted_zip(self, tmp_path, cache):
        archive = make_zip(tmp_path / "a.zip", {"1.png": b"secret"})
        content = bytearray(archive.read_bytes())
        for at in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
            content[at] |= 1
        archive.write_bytes(content)
        refused(archive, cache, r"'1.png' \(it is encrypted\)")

    def test_a_name_twice_and_a_file_that_is_a_folder(self, tmp_path, cache):
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("a", "1")
            file.writestr("a", "2")
        refused(tmp_path / "a.zip", cache, r"'a' \(File exists\)")
        refused(make_tar(tmp_path / "a.tar", {"a": b"", "a/b": b""}), cache, r"'a/b' \((File exists|Not a directory)\)")

    def test_a_name_with_a_line_break_stays_one_line(self, tmp_path, cache):
        refused(make_tar(tmp_path / "a.tar", {"../a\nb\x1b[31m": b""}), cache, r"'\.\./a\\nb\\x1b\[31m'")


class TestBombs:
    @pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
    def test_more_than_the_disk_holds(self, tmp_path, cache, suffix, monkeypatch):
        usage = types.SimpleNamespace(free=fetch.SPARE_BYTES + 700)
        monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
        archive = make(tmp_path / f"a{suffix}")  # 693 bytes, then 7
        folder = local_folder(str(archive), cache)
        usage.free -= 1
        fetch.shutil.rmtree(folder)
        refused(archive, cache, "街.png' .more than the disk, or an archive of this size, should hold")

    @pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
    def test_an_absurd_ratio(self, tmp_path, cache, suffix, monkeypatch):
        archive = make(tmp_path / f"a{suffix}", {f"{i}.png": bytes(1_000_000) for i in range(4)})
        monkeypatch.setattr(fetch, "SMALL_BYTES", 1000)
        refused(archive, cache, "more than the disk, or an archive of this size")

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    def test_a_member_that_yields_more_than_its_header_says(self, tmp_path, cache, compression):
        archive = make_zip(tmp_path / "a.zip", {"1.png": bytes(1_000_000)}, compression)
        content = archive.read_bytes()
        assert content.count(struct.pack("<L", 1_000_000)) >= 2
        central = content.index(b"PK\1\2") + 24  # the uncompressed size
        archive.write_bytes(content[:central] + struct.pack("<L", 10) + content[central + 4 :])
        refused(archive, cache, r"'1\.png' \(")

    @pytest.mark.parametrize("said", [10, 1000])
    def test_the_writer_counts_for_itself(self, tmp_path, said):
        with pytest.raises(EOFError, match=f"does not hold the {said} bytes"):
            fetch._write(lambda: io.BytesIO(bytes(100_000 if said == 10 else 999)), said, tmp_path / "file")
        assert (tmp_path / "file").stat().st_size <= said + fetch._CHUNK

    @pytest.mark.parametrize("suffix", [".zip", ".tar"])
    def test_too_many_members(self, tmp_path, cache, suffix, monkeypatch):
        monkeypatch.setattr(fetch, "MAX_MEMBERS", 2)
        refused(make(tmp_path / f"a{suffix}"), cache, r"'set/val/1\.png' \(more than")


class TestDamage:
    def test_a_zip_with_a_flipped_byte(self, tmp_path, cache):
        archive = make_zip(tmp_path / "a.zip", {"1.png": b"photo" * 9}, zipfile.ZIP_STORED)
        archive.write_bytes(archive.read_bytes().replace(b"photo", b"phOto", 1))
        refused(archive, cache, r"'1\.png' \(Bad CRC-32.*download it again")

    @pytest.mark.parametrize("suffix", [".zip", *TAR_MODES])
    def test_an_archive_that_is_cut_anywhere(self, tmp_path, cache, suffix):
        archive = make(tmp_path / f"a{suffix}", {f"{i}.png": os.urandom(700) for i in range(3)})
        content = archive.read_bytes()
        end = 3 * (512 + 1024) if suffix == ".tar" else len(content)  # a tar is padded with empty blocks
        for length in [*range(0, end, 64), end - 1]:  # between the members of a tar, too
            archive.write_bytes(content[:length])
            refused(archive, cache, "stopped at|Compressed file ended|neither a folder nor a whole zip or tar")

    @pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
    def test_flipped_bytes_raise_one_line_or_nothing(self, tmp_path, cache, suffix):
        archive = make(tmp_path / f"a{suffix}")
        content = archive.read_bytes()
        for at in range(0, len(content), max(1, len(content) // 200)):
            archive.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
            try:
                folder = local_folder(str(archive), cache)
            except DataError as error:
                assert len(str(error).splitlines()) == 1
            else:
                assert folder.parent == cache / "archives"

    def test_a_damaged_header_is_not_the_end_of_a_tar(self, tmp_path, cache):
        archive = make_tar(tmp_path / "a.tar", {"1": b"1", "2": b"2"})
        content = bytearray(archive.read_bytes())
        content[1024] ^= 1
        archive.write_bytes(content)
        refused(archive, cache, r"'1' \(bad checksum")

    def test_a_checksum_behind_the_last_member(self, tmp_path, cache):
        archive = make_tar(tmp_path / "a.tar.gz", mode="w:gz")
        content = bytearray(archive.read_bytes())
        content[-6] ^= 1
        archive.write_bytes(content)
        refused(archive, cache, "CRC check failed")

    def test_a_single_packed_file_is_no_archive(self, tmp_path, cache):
        (tmp_path / "1.png.bz2").write_bytes(bz2.compress(b"photo"))
        refused(tmp_path / "1.png.bz2", cache, "neither a folder")


class TestKaggle:
    def test_the_folder_of_kagglehub_is_returned(self, tmp_path, monkeypatch):
        asked, said = [], []
        fake = types.SimpleNamespace(dataset_download=lambda handle: asked.append(handle) or str(tmp_path))
        monkeypatch.setitem(sys.modules, "kagglehub", fake)
        assert local_folder("kaggle:some-one/city_pairs2", tmp_path, said.append) == tmp_path
        assert asked == ["some-one/city_pairs2"] and len(said) == 1

    @pytest.mark.parametrize("harm", ["gone", "cut", "new"])
    def test_a_download_that_is_not_what_it_was_is_refused(self, tmp_path, cache, monkeypatch, harm):
        folder = tmp_path / "versions" / "1"
        (folder / "masks").mkdir(parents=True)
        for name in ("1.png", "masks/1.png"):
            (folder / name).write_bytes(b"whole")
        fake = types.SimpleNamespace(dataset_download=lambda handle: str(folder))
        monkeypatch.setitem(sys.modules, "kagglehub", fake)
        for _ in range(2):
            assert local_folder("kaggle:a/b", cache) == folder
        mask = folder / "masks" / "1.png"
        mask.unlink()
        if harm != "gone":
            (mask if harm == "cut" else folder / "masks" / "1.jpg").write_bytes(b"who")
        expected = r"1: \d files are not as they were when downloaded, such as 'masks/1\....'; remove the folder to d"
        with pytest.raises(DataError, match=expected):
            local_folder("kaggle:a/b", cache)

    @pytest.mark.parametrize("error", [ConnectionError("no\n\nnetwork"), ValueError(), RuntimeError("403 " * 999)])
    def test_its_errors_say_what_to_do_instead(self, tmp_path, monkeypatch, error):
        def fail(handle):
            raise error

        monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=fail))
        with pytest.raises(DataError, match=r"download https://www\.kaggle\.com/datasets/a/b in the browser") as caught:
            local_folder("kaggle:a/b", tmp_path)
        assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400

    def test_without_kagglehub_it_names_the_package_and_the_browser(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        with pytest.raises(
            SemsegError, match=r"run pip install .*\[kaggle\]', or download https://.*/datasets/a/b "
        ) as caught:
            local_folder("kaggle:a/b", tmp_path)
        assert caught.value.exit_code == 2

    def test_ctrl_c_stays_ctrl_c(self, tmp_path, monkeypatch):
        def interrupt(handle):
            raise KeyboardInterrupt

        monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=interrupt))
        with pytest.raises(KeyboardInterrupt):
            local_folder("kaggle:a/b", tmp_path)

    @pytest.mark.parametrize("handle", ["", "a", "a/", "/b", "a/b/c", "a b/c", "../b", "a/b?x", "a/b\n", "https://a/b"])
    def test_a_malformed_handle_is_refused(self, tmp_path, handle):
        with pytest.raises(DataError, match="expected kaggle:owner/name"):
            local_folder(f"kaggle:{handle}", tmp_path)
