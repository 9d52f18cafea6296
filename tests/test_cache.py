import errno
import os
import sys
import tempfile
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers import make_folder
from PIL import Image

from semseg.data import cache as caches
from semseg.data import meanings, open_dataset
from semseg.data.base import Sample
from semseg.data.cache import Cache
from semseg.files import default_folder

pytestmark = pytest.mark.plain

SIZE = (6, 10)
SLOT = 6 * 10 * 4
RECORD = 36


@pytest.fixture
def samples(tmp_path):
    """Five samples whose files hold a few bytes; the cache need not understand them."""
    made = []
    for i in range(5):
        photo, mask = tmp_path / f"{i}.jpg", tmp_path / f"{i}_mask.gif"
        photo.write_bytes(b"photo %d" % i)
        mask.write_bytes(b"mask %d" % i)
        made.append(Sample(photo, mask))
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "caches"


def content(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*SIZE, 3), np.uint8), rng.integers(0, 256, SIZE, np.uint8)


def open_cache(samples, folder, size=SIZE, meaning="palette"):
    return Cache(samples, size, meaning, folder)


def fill(samples, folder):
    cache = open_cache(samples, folder)
    for i, sample in enumerate(samples):
        assert cache.find(sample) is None
        cache.store(sample, *content(i))
    return cache


def file_in(folder):
    (path,) = folder.iterdir()
    return path


def found(cache, samples):
    """The numbers of the samples that are found; each must be the one that was stored."""
    numbers = []
    for i, sample in enumerate(samples):
        pair = cache.find(sample)
        if pair is not None:
            for ours, stored in zip(pair, content(i), strict=True):
                np.testing.assert_array_equal(ours, stored)
                assert ours.dtype == np.uint8 and not ours.flags.writeable
            numbers.append(i)
    return numbers


def overwrite(path, position, data):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


ALL = [0, 1, 2, 3, 4]


def test_what_is_stored_is_found_at_once_and_by_the_next_run(samples, folder):
    cache = fill(samples, folder)
    assert cache.note == ""
    assert found(cache, samples) == ALL
    assert found(open_cache(samples, folder), samples) == ALL
    assert file_in(folder).stat().st_size == 5 * (SLOT + RECORD)


def test_the_order_of_the_samples_does_not_matter_and_duplicates_are_one(samples, folder):
    fill(samples, folder)
    assert found(open_cache([*reversed(samples), samples[0]], folder), samples) == ALL


def test_a_relative_path_names_the_same_file(samples, folder, tmp_path, monkeypatch):
    fill(samples, folder)
    monkeypatch.chdir(tmp_path)
    relative = [Sample(Path(s.photo.name), Path(s.mask.name)) for s in samples]
    assert found(open_cache(relative, folder), relative) == ALL


def test_other_sizes_meanings_and_samples_have_files_of_their_own(samples, folder):
    fill(samples, folder)
    assert found(open_cache(samples, folder, meaning="other"), samples) == []
    assert found(open_cache(samples, folder, size=(10, 6)), samples) == []
    assert found(open_cache(samples[:4], folder), samples) == []
    assert len(list(folder.iterdir())) == 4
    assert found(open_cache(samples, folder), samples) == ALL


def test_without_a_folder_nothing_is_found(samples):
    cache = fill(samples, None)
    assert cache.note == ""
    assert found(cache, samples) == []


def test_a_sample_of_another_data_set_is_neither_found_nor_stored(samples, folder, tmp_path):
    cache = fill(samples, folder)
    stranger = Sample(tmp_path / "other", tmp_path / "other")
    assert cache.find(stranger) is None
    cache.store(stranger, *content(9))
    assert cache.find(stranger) is None
    assert found(cache, samples) == ALL


@pytest.mark.parametrize("which", ["photo", "mask"])
def test_changed_bytes_are_noticed_even_with_the_same_size_and_time(samples, folder, which):
    fill(samples, folder)
    path = getattr(samples[2], which)
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    cache = open_cache(samples, folder)
    assert found(cache, samples) == [0, 1, 3, 4]
    cache.store(samples[2], *content(2))
    assert found(cache, samples) == ALL
    assert found(open_cache(samples, folder), samples) == ALL


@pytest.fixture
def reads(monkeypatch):
    """The files that are read whole, while the system's word for their state is taken at once."""
    monkeypatch.setattr("semseg.data.cache._MIN_AGE", -1)
    names, read = [], caches._digest_of_file
    monkeypatch.setattr(caches, "_digest_of_file", lambda path: names.append(path.name) or read(path))
    return names


@pytest.mark.skipif(os.name == "nt", reason="Windows notes no change but a date that programs set")
class TestFilesThatTheSystemVouchesFor:
    def test_are_read_once_in_all_runs(self, samples, folder, reads):
        fill(samples, folder)
        assert sorted(reads) == sorted(path.name for s in samples for path in (s.photo, s.mask))
        reads.clear()
        assert found(open_cache(samples, folder), samples) == ALL
        assert reads == []

    @pytest.mark.parametrize("which", ["photo", "mask"])
    def test_are_read_again_when_they_changed_even_with_the_same_size_and_date(self, samples, folder, reads, which):
        fill(samples, folder)
        path = getattr(samples[2], which)
        before = path.stat()
        time.sleep(0.02)  # the tick of the system's clock
        path.write_bytes(b"x" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        reads.clear()
        assert found(open_cache(samples, folder), samples) == [0, 1, 3, 4]
        assert sorted(reads) == ["2.jpg", "2_mask.gif"]

    def test_are_read_once_more_when_they_were_only_touched(self, samples, folder, reads):
        fill(samples, folder)
        os.utime(samples[1].photo, (1, 1))
        for expected in (["1.jpg", "1_mask.gif"], []):
            reads.clear()
            assert found(open_cache(samples, folder), samples) == ALL
            assert sorted(reads) == expected

    def test_are_read_while_they_are_new(self, samples, folder, reads, monkeypatch):
        monkeypatch.setattr("semseg.data.cache._MIN_AGE", 3600)
        fill(samples, folder)
        reads.clear()
        assert found(open_cache(samples, folder), samples) == ALL
        assert len(reads) == 10

    def test_do_not_vouch_for_a_damaged_slot(self, samples, folder, reads):
        fill(samples, folder)
        overwrite(file_in(folder), 5 * RECORD + 3 * SLOT, b"\0\1\2\3\4\5\6\7")
        assert found(open_cache(samples, folder), samples) == [0, 1, 2, 4]


def test_bytes_that_move_from_photo_to_mask_are_a_change(samples, folder):
    fill(samples, folder)
    samples[1].photo.write_bytes(b"photo 1m")
    samples[1].mask.write_bytes(b"ask 1")
    assert found(open_cache(samples, folder), samples) == [0, 2, 3, 4]


def test_a_file_that_changes_while_it_is_decoded_is_not_believed_later(samples, folder):
    cache = open_cache(samples, folder)
    cache.find(samples[0])
    samples[0].photo.write_bytes(b"newer")
    cache.store(samples[0], *content(0))
    assert found(open_cache(samples, folder), samples) == []


def test_a_missing_source_is_not_found(samples, folder):
    fill(samples, folder)
    samples[3].photo.unlink()
    assert found(open_cache(samples, folder), samples) == [0, 1, 2, 4]


def test_a_slot_is_verified_once_and_then_no_file_is_touched(samples, folder):
    fill(samples, folder)
    cache = open_cache(samples, folder)
    found(cache, samples)
    for sample in samples:
        sample.photo.unlink()
    assert found(cache, samples) == ALL


@pytest.mark.parametrize("position", [0, 17, SLOT - 1])
def test_a_flipped_byte_is_noticed(samples, folder, position):
    fill(samples, folder)
    start = 5 * RECORD + 3 * SLOT
    byte = file_in(folder).read_bytes()[start + position]
    overwrite(file_in(folder), start + position, bytes([byte ^ 1]))
    cache = open_cache(samples, folder)
    assert found(cache, samples) == [0, 1, 2, 4]
    cache.store(samples[3], *content(3))
    assert found(open_cache(samples, folder), samples) == ALL


def test_garbage_in_the_records_is_noticed(samples, folder):
    fill(samples, folder)
    overwrite(file_in(folder), RECORD, b"\xff" * 2 * RECORD)
    assert found(open_cache(samples, folder), samples) == [0, 3, 4]


@pytest.mark.parametrize("size", [0, 7, 5 * RECORD, 5 * (SLOT + RECORD) - 1, 5 * (SLOT + RECORD) + 1])
def test_a_file_that_was_cut_or_has_grown_is_made_anew(samples, folder, size):
    fill(samples, folder)
    os.truncate(file_in(folder), size)
    assert found(open_cache(samples, folder), samples) == []
    assert found(fill(samples, folder), samples) == ALL


def test_pixels_without_their_record_are_not_believed(samples, folder, monkeypatch):
    cache = fill(samples, folder)
    records = file_in(folder).read_bytes()[: 5 * RECORD]
    overwrite(file_in(folder), 4 * RECORD, bytes(RECORD))  # killed between pixels and record, at first
    assert found(open_cache(samples, folder), samples) == [0, 1, 2, 3]
    overwrite(file_in(folder), 0, records)
    overwrite(file_in(folder), 5 * RECORD, content(9)[0].tobytes())  # killed while pixels were written anew
    assert found(open_cache(samples, folder), samples) == [1, 2, 3, 4]
    assert cache.note == ""


def test_a_slot_that_cannot_be_written_is_left_out(samples, folder, monkeypatch):
    cache = open_cache(samples, folder)
    assert cache.find(samples[0]) is None
    with file_in(folder).open("rb", buffering=0) as unwritable:
        cache._file = unwritable
        cache.store(samples[0], *content(0))
    assert found(cache, samples) == []


def test_two_caches_share_a_file_at_once(samples, folder):
    first, second = open_cache(samples, folder), open_cache(samples, folder)
    for cache, numbers in ((first, (0, 1, 2)), (second, (2, 3, 4))):
        for i in numbers:
            if cache.find(samples[i]) is None:
                cache.store(samples[i], *content(i))
    assert found(first, samples) == found(second, samples) == ALL


def test_threads_share_a_cache(samples, folder):
    cache = open_cache(samples, folder)

    def use(k):
        if cache.find(samples[k % 5]) is None:
            cache.store(samples[k % 5], *content(k % 5))
        photo, mask = cache.find(samples[k % 5])
        return np.array_equal(photo, content(k % 5)[0]) and np.array_equal(mask, content(k % 5)[1])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(400)))
    assert found(open_cache(samples, folder), samples) == ALL


class TestNoSpace:
    def check(self, samples, folder, message):
        cache = fill(samples, folder)
        assert cache.note.startswith(f"no cache of decoded samples in {folder}: ")
        assert message in cache.note and cache.note.endswith("; every epoch decodes anew")
        assert found(cache, samples) == []

    def test_half_a_gigabyte_is_left_to_others(self, samples, folder, monkeypatch):
        usage = namedtuple("usage", "free")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(500_000_000 + 5 * (SLOT + RECORD) - 1))
        self.check(samples, folder, "0.5 GB of disk space are needed, 0.5 GB are free")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(500_000_000 + 5 * (SLOT + RECORD)))
        assert open_cache(samples, folder).note == ""

    def test_a_disk_that_fills_while_space_is_reserved(self, samples, folder, monkeypatch):
        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.posix_fallocate", fail, raising=False)
        self.check(samples, folder, "No space left on device")
        assert list(folder.iterdir()) == []

    def test_a_folder_that_may_not_be_written(self, samples, folder, monkeypatch):
        folder.mkdir()

        def fail(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("semseg.data.cache.reserve", fail)
        self.check(samples, folder, "Permission denied")

    def test_a_folder_that_is_a_file(self, samples, folder):
        folder.touch()
        self.check(samples, folder, "File exists")
        self.check(samples, folder / "in", "Not a directory")


def test_space_is_reserved_by_zeros_where_nothing_else_can(samples, folder, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    fill(samples, folder)
    assert found(open_cache(samples, folder), samples) == ALL


def test_reserved_space_is_taken(samples, folder):
    open_cache(samples, folder, size=(300, 500))
    usage = file_in(folder).stat()
    assert usage.st_blocks * 512 >= usage.st_size == 5 * (300 * 500 * 4 + RECORD)


def test_caches_that_nobody_used_for_a_month_go_and_nothing_else(samples, folder):
    fill(samples, folder)
    old, other = file_in(folder), folder / "notes.txt"
    other.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    assert found(open_cache(samples, folder), samples) == ALL  # used now
    open_cache(samples, folder, meaning="new")
    assert old.exists()
    os.utime(old, (0, 0))
    open_cache(samples, folder, meaning="newer")
    assert not old.exists() and other.exists()
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/semseg"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/semseg"),
        ("linux", {}, "/home/me/.cache/semseg"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/semseg"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/semseg"),
        ("win32", {}, "/home/me/AppData/Local/semseg"),
    ],
)
def test_the_default_folder_follows_the_system(platform, environment, expected, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert default_folder() == Path(expected)


def test_a_user_without_a_home_has_a_folder_too(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert default_folder().is_relative_to(tempfile.gettempdir())


def test_large_files_are_read_whole_only_when_asked_for_and_changes_of_them_are_told(samples, folder, monkeypatch):
    whole = open_cache(samples, None).digest(samples[0])
    monkeypatch.setattr(caches, "_MAX_FILE_BYTES", 7)
    cache = open_cache(samples, folder)
    assert cache.digest(samples[0]) is None and cache.find(samples[0]) is None
    assert cache.digest(samples[0], of_any_size=True) == whole
    assert not cache.has_changed(samples[0])
    samples[0].photo.write_bytes(b"photo X")  # of the same size
    assert cache.has_changed(samples[0])


@pytest.mark.parametrize("folder_name", ["caches", None], ids=["kept", "no cache"])
def test_files_that_changed_since_the_first_look_are_told(samples, tmp_path, folder_name):
    cache = open_cache(samples, folder_name and tmp_path / folder_name)
    assert not cache.has_changed(samples[0])  # nobody looked
    for sample in samples:
        assert cache.digest(sample)
    os.utime(samples[0].photo, (1e9, 1e9))
    samples[1].mask.write_bytes(b"mask X")  # of the same size
    samples[2].photo.unlink()
    assert [cache.has_changed(sample) for sample in samples] == [False, True, True, False, False]
    samples[1].mask.write_bytes(b"mask 1")
    assert not cache.has_changed(samples[1])


@pytest.mark.parametrize(("size", "left"), [(0, []), (5 * RECORD + 2 * SLOT + 9, [0, 1])])
def test_a_file_that_is_cut_during_a_run_gives_what_is_left(samples, folder, size, left):
    cache = fill(samples, folder)
    assert found(cache, samples) == ALL
    os.truncate(file_in(folder), size)
    assert found(cache, samples) == left  # a mapped file would end the process
    for i, sample in enumerate(samples):
        cache.store(sample, *content(i))
    assert found(cache, samples) == ALL


def test_what_somebody_else_writes_into_the_file_during_a_run_is_not_believed(samples, folder):
    cache = fill(samples, folder)
    overwrite(file_in(folder), 5 * RECORD + 3 * SLOT + 40, b"\xff\0\xff\0")
    assert found(cache, samples) == [0, 1, 2, 4]


def test_a_file_that_is_deleted_during_a_run_serves_it_to_its_end(samples, folder):
    cache = fill(samples, folder)
    file_in(folder).unlink()
    assert found(cache, samples) == ALL


def test_without_pread_the_same_is_read(samples, folder, monkeypatch):
    monkeypatch.delattr("os.pread", raising=False)
    fill(samples, folder)
    assert found(open_cache(samples, folder), samples) == ALL


@pytest.mark.skipif(os.name == "nt", reason="Windows notes no change but a date that programs set")
class TestMeanings:
    @pytest.fixture
    def looks(self, monkeypatch):
        """A 1 for each look at the masks, while the system's word for their state is taken at once."""
        monkeypatch.setattr("semseg.data.cache._MIN_AGE", -1)
        counted, find_meaning = [], meanings.find_meaning
        monkeypatch.setattr(meanings, "find_meaning", lambda *a, **k: counted.append(1) or find_meaning(*a, **k))
        return counted

    @pytest.fixture
    def data(self, tmp_path):
        return make_folder(tmp_path / "data", 10)

    def opened(self, data, folder, **options):
        dataset = open_dataset(data, cache=folder, **options)
        return dataset.palette, dataset.notes

    def test_are_found_once_and_recalled_with_what_was_said(self, data, folder, looks):
        first = self.opened(data, folder)
        assert self.opened(data, folder) == first == self.opened(data, None)
        assert len(looks) == 2  # the second without a folder

    @pytest.mark.parametrize("option", [{"num_classes": 5}, {"instances": True}, {"seed": 1}, {"limit": 3}])
    def test_are_found_anew_for_other_settings(self, data, folder, looks, option):
        self.opened(data, folder)
        assert self.opened(data, folder, **option) == self.opened(data, None, **option)
        assert len(looks) == 3

    def test_are_found_anew_when_a_mask_changed_with_the_same_size_and_date(self, data, folder, looks):
        path = data / "masks" / "3.bmp"
        mask = np.zeros((32, 32), np.uint8)
        (data / "masks" / "3.png").unlink()
        Image.fromarray(mask).save(path)
        assert 77 not in {label.value for label in self.opened(data, folder)[0].labels}
        before = path.stat()
        time.sleep(0.02)  # the tick of the system's clock
        mask[:16] = 77
        Image.fromarray(mask).save(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        assert 77 in {label.value for label in self.opened(data, folder)[0].labels}

    def test_are_found_anew_while_files_are_new_or_the_record_is_damaged(self, data, folder, looks, monkeypatch):
        first = self.opened(data, folder)
        file_in(folder).write_text('{"palette": {}}')
        assert self.opened(data, folder) == first and len(looks) == 2
        monkeypatch.setattr("semseg.data.cache._MIN_AGE", 3600)
        assert self.opened(data, folder) == first and len(looks) == 3

    def test_are_not_kept_when_a_file_changes_meanwhile(self, data, folder, monkeypatch):
        monkeypatch.setattr("semseg.data.cache._MIN_AGE", -1)
        find_meaning = meanings.find_meaning

        def slow(*arguments, **options):
            found = find_meaning(*arguments, **options)
            os.utime(data / "masks" / "3.png", (1, 1))
            return found

        monkeypatch.setattr(meanings, "find_meaning", slow)
        self.opened(data, folder)
        assert not folder.exists()

    def test_are_found_where_nothing_can_be_written(self, data, tmp_path, looks):
        (tmp_path / "file").write_text("no folder")
        assert self.opened(data, tmp_path / "file" / "x") == self.opened(data, None)
