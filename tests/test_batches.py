import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import IMPORT_KERAS, REPOSITORY, draw_ids, make_folder, make_pairs
from PIL import Image

from semseg.data import open_dataset
from semseg.data.augment import Augmentation
from semseg.data.batches import data_generator, rare_class_weights
from semseg.data.cache import Cache
from semseg.data.opening import check_data, open_data
from semseg.errors import DataError, SemsegError
from semseg.runs.config import RunConfig

SIZE = (24, 40)


def make_cache(dataset, folder, size=SIZE):
    samples = [sample for split in dataset.splits.values() for sample in split]
    return Cache(samples, size, "meaning", folder)


def epochs_of(dataset, count, **options):
    """What `count` epochs hold: the batches, each as photos and masks."""
    options = {"batch_size": 5, "image_size": SIZE, "augmentation": Augmentation(), "seed": 3, **options}
    batches = data_generator(dataset, **options)
    result = [list(batches) for _ in range(count)]
    batches.close()
    return result


def assert_equal(ours, theirs):
    for our_epoch, their_epoch in zip(ours, theirs, strict=True):
        for our_batch, their_batch in zip(our_epoch, their_epoch, strict=True):
            for our_array, their_array in zip(our_batch, their_batch, strict=True):
                np.testing.assert_array_equal(our_array, their_array)


def test_shapes_types_and_the_last_batch(dataset):
    batches = data_generator(dataset, batch_size=5, image_size=(16, 24))
    sizes = [(photos.shape, masks.shape) for photos, masks in batches]
    assert sizes == [((n, 16, 24, 3), (n, 16, 24)) for n in (5, 5, 2)]
    photos, masks = batches[0]
    assert photos.dtype == masks.dtype == np.uint8
    batches.close()


def test_an_epoch_holds_every_sample_once_and_the_next_in_another_order(dataset):
    batches = data_generator(dataset, batch_size=5, image_size=(32, 32))
    epochs = [np.concatenate([photos for photos, _ in batches]) for _ in range(2)]
    batches.close()
    photos = {dataset.load(sample)[0].tobytes() for sample in dataset.splits["train"]}
    for epoch in epochs:
        assert {photo.tobytes() for photo in epoch} == photos and len(epoch) == 12
    assert not np.array_equal(*epochs)


def test_validation_keeps_its_order(dataset):
    batches = data_generator(dataset, "val", batch_size=3, image_size=(32, 32))
    masks = np.concatenate([masks for _, masks in batches])
    batches.close()
    np.testing.assert_array_equal(masks, [draw_ids(1000 + i) for i in range(4)])


def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(dataset, tmp_path):
    expected = epochs_of(dataset, 2, workers=0)
    for workers in (1, 4):
        assert_equal(epochs_of(dataset, 2, workers=workers), expected)
        cache = make_cache(dataset, tmp_path / str(workers))
        assert_equal(epochs_of(dataset, 2, workers=workers, cache=cache), expected)
    with pytest.raises(AssertionError):
        assert_equal(epochs_of(dataset, 2, workers=0, seed=4), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restart_in_the_middle_of_an_epoch_gives_the_same_batches(dataset, workers):
    expected = epochs_of(dataset, 3)
    batches = data_generator(
        dataset, batch_size=5, image_size=SIZE, augmentation=Augmentation(), seed=3, workers=workers
    )
    batches.start_epoch(1)
    assert_equal([[batches[1], batches[2]]], [expected[1][1:]])
    batches.on_epoch_end()
    assert_equal([list(batches)], [expected[2]])
    batches.start_epoch(0)  # and back
    assert_equal([list(batches)], [expected[0]])
    batches.close()
    assert_equal([[batches[0]]], [[expected[1][0]]])


class TestCached:
    def test_later_epochs_and_runs_load_nothing(self, dataset, tmp_path, monkeypatch):
        expected = epochs_of(dataset, 3)
        cache = make_cache(dataset, tmp_path)
        first = epochs_of(dataset, 1, cache=cache)
        with monkeypatch.context() as patch:
            patch.setattr(type(dataset), "load", None)
            patch.setattr("pathlib.Path.read_bytes", None)
            assert_equal([first[0], *epochs_of(dataset, 3, cache=cache)[1:]], expected)
        monkeypatch.setattr(type(dataset), "load", None)
        assert_equal(epochs_of(dataset, 3, cache=make_cache(dataset, tmp_path)), expected)

    def test_a_cache_that_cannot_be_had_costs_time_only(self, dataset, tmp_path):
        (tmp_path / "file").touch()
        cache = make_cache(dataset, tmp_path / "file")
        assert cache.note
        assert_equal(epochs_of(dataset, 2, cache=cache), epochs_of(dataset, 2))

    def test_a_cache_of_another_size_is_refused(self, dataset, tmp_path):
        with pytest.raises(SemsegError, match=r"cache: made for images of \(8, 9\); expected \(24, 40\)"):
            data_generator(dataset, image_size=SIZE, cache=make_cache(dataset, tmp_path, (8, 9)))

    def test_a_file_that_vanished_is_named(self, tmp_path):
        make_pairs(tmp_path / "data", train=4, val=1)
        dataset = open_dataset(tmp_path / "data")
        (tmp_path / "data" / "train" / "3.png").unlink()
        with pytest.raises(DataError, match=r"3\.png: no such file"):
            epochs_of(dataset, 1, cache=make_cache(dataset, tmp_path / "cache"))


class TestSampleWeights:
    def test_samples_are_drawn_in_proportion_anew_in_each_epoch(self, pairs):
        dataset = open_dataset(pairs, limit=4)
        numbers = {dataset.load(sample)[0].tobytes(): i for i, sample in enumerate(dataset.splits["train"])}
        epochs = epochs_of(
            dataset, 300, sample_weights=[0, 1, 2, 5], augmentation=None, image_size=(32, 32), batch_size=4
        )
        drawn = [[numbers[photo.tobytes()] for photo in photos] for ((photos, _),) in epochs]
        shares = np.bincount(np.ravel(drawn), minlength=4) / np.size(drawn)
        np.testing.assert_allclose(shares, [0, 1 / 8, 2 / 8, 5 / 8], atol=0.05)
        assert drawn[0] != drawn[1]

    def test_they_repeat_with_any_number_of_workers(self, dataset):
        weights = np.arange(12.0)
        expected = epochs_of(dataset, 2, workers=0, sample_weights=weights)
        assert_equal(epochs_of(dataset, 2, workers=4, sample_weights=weights), expected)

    @pytest.mark.parametrize("weights", [[1.0] * 11, [-1.0] + [1.0] * 11, [0.0] * 12, [np.nan] * 12, []])
    def test_senseless_weights_are_refused(self, dataset, weights):
        with pytest.raises(SemsegError, match=r"sample_weights: got shape .* expected \(12,\) finite numbers"):
            data_generator(dataset, sample_weights=np.array(weights))

    def test_rare_classes_by_hand(self):
        # Class 0 in all 8 samples, class 1 in half of them, class 2 in one (sqrt(.5 / .125) = 2), class 3 in none.
        counts = np.zeros((8, 4), int)
        counts[:, 0] = 7
        counts[:4, 1] = 1
        counts[3, 2] = 90
        np.testing.assert_allclose(rare_class_weights(counts), [1, 1, 1, 2, 1, 1, 1, 1])
        np.testing.assert_allclose(rare_class_weights(counts, often=1)[:4], [2**0.5] * 3 + [8**0.5])

    def test_a_sample_without_any_class_is_drawn_like_a_common_one(self):
        np.testing.assert_array_equal(rare_class_weights(np.array([[1], [1], [0]])), [1, 1, 1])


def test_any_error_in_loading_names_the_file(dataset):
    def fail(photo, mask, rng):
        raise IndexError("out of bounds")

    for workers in (0, 2):
        with pytest.raises(DataError, match=r"\d+\.png: cannot be made ready .*IndexError: out of bounds") as caught:
            epochs_of(dataset, 1, augmentation=fail, workers=workers)
        assert isinstance(caught.value.__cause__, IndexError)


def test_the_loop_goes_on_after_an_error(dataset):
    failing = iter([True, *[False] * 100])

    def fail_once(photo, mask, rng):
        if next(failing):
            raise IndexError
        return photo, mask

    batches = data_generator(dataset, "val", batch_size=2, image_size=(32, 32), augmentation=fail_once, workers=1)
    with pytest.raises(DataError, match=r"val/1\.png"):
        batches[0]
    np.testing.assert_array_equal(batches[0][1], [draw_ids(1000), draw_ids(1001)])
    batches.close()


def test_waiting_is_measured_by_epoch(dataset):
    def slow(photo, mask, rng):
        threading.Event().wait(0.02)
        return photo, mask

    batches = data_generator(dataset, batch_size=6, image_size=(8, 8), augmentation=slow, workers=0)
    for _ in range(2):
        list(batches)
    assert list(batches.waited) == [0, 1]
    assert all(0.24 <= seconds < 2 for seconds in batches.waited.values())


HANGING = """
import sys, threading
sys.path.insert(0, "tests")
from pathlib import Path
from semseg.data import open_dataset
from semseg.data.batches import data_generator
dataset = open_dataset(Path(sys.argv[1]))
started = threading.Event()
dataset.load = lambda sample, size: started.set() or threading.Event().wait()
batches = data_generator(dataset)
threading.Thread(target=lambda: batches[0], daemon=True).start()
started.wait()
print("ended")
"""
UNCLOSED = HANGING.replace("threading.Event().wait()", "load(sample, size)").replace(
    "started =", "load = dataset.load;started ="
)


@pytest.mark.plain
@pytest.mark.parametrize("code", [HANGING, UNCLOSED], ids=["hanging", "unclosed"])
def test_threads_hold_up_no_end_of_the_program(pairs, code):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_KERAS + code, str(pairs)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_a_broken_file_raises_in_the_loop_with_its_name(tmp_path):
    make_pairs(tmp_path, train=4, val=1)
    dataset = open_dataset(tmp_path)
    (tmp_path / "train" / "3.png").write_text("broken meanwhile")
    batches = data_generator(dataset, batch_size=2)
    with pytest.raises(DataError, match=r"3\.png: not a picture"):
        list(batches)
    batches.close()


def test_senseless_arguments_are_refused(dataset):
    with pytest.raises(SemsegError, match="got 'test'; expected one of train, val"):
        data_generator(dataset, "test")
    with pytest.raises(SemsegError, match="batch_size=0"):
        data_generator(dataset, batch_size=0)


class TestFilesThatChangeAfterTheCheck:
    """Without a cache each epoch reads them anew."""

    @pytest.fixture()
    def checked(self, tmp_path):
        config = RunConfig(data=str(make_folder(tmp_path / "data")), image_size=SIZE, cache="none")
        dataset = open_data(config)
        findings, cache = check_data(config, dataset)
        assert not findings.errors
        batches = data_generator(dataset, image_size=SIZE, workers=0, cache=cache)
        list(batches)
        return batches, dataset.splits["train"][0]

    def test_a_value_that_is_no_class_is_named_with_its_mask_and_count(self, checked):
        batches, sample = checked
        ids = np.asarray(Image.open(sample.mask)).copy()
        ids[3, 4:11] = 77
        Image.fromarray(ids).save(sample.mask)
        with pytest.raises(
            DataError, match=rf"{sample.mask.name}: changed .* holds 77 at 7 pixels, which is no class;"
        ):
            list(batches)

    def test_another_photo_in_its_place_is_named(self, checked):
        batches, sample = checked
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(sample.photo)
        with pytest.raises(DataError, match=rf"{sample.photo.name}: changed since it was checked, or its mask .*; put"):
            list(batches)

    @pytest.mark.parametrize("harm", ["delete", "cut"])
    def test_a_mask_that_is_gone_or_cut_is_named(self, checked, harm):
        batches, sample = checked
        data = sample.mask.read_bytes()
        sample.mask.unlink()
        if harm == "cut":
            sample.mask.write_bytes(data[: len(data) // 2])
        with pytest.raises(DataError, match=sample.mask.name):
            list(batches)

    def test_the_same_bytes_with_another_date_are_no_change(self, checked):
        batches, sample = checked
        os.utime(sample.mask, (1e9, 1e9))
        assert len(list(batches)) == len(batches)
