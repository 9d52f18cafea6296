import shutil

import numpy as np
import pytest
from helpers import draw_ids, draw_pair, make_pairs, save_pair
from PIL import Image

from semseg.data import DATASETS, ensure_demo, open_dataset
from semseg.data.augment import Augmentation
from semseg.data.base import Sample, list_images, seeded_split, spread
from semseg.data.batches import data_generator
from semseg.data.check import check_dataset
from semseg.data.demo import draw_scene
from semseg.errors import DataError, SemsegError
from semseg.utils_func import cityscapes_palette

STILL = Augmentation(horizontal_flip=0, rotation=0, scale=(1, 1), brightness=0, contrast=0)


class TestFindingPairs:
    def test_train_and_val_are_found_in_natural_order_with_the_official_palette(self, dataset):
        assert {name: len(samples) for name, samples in dataset.splits.items()} == {"train": 12, "val": 4}
        names = [sample.photo.name for sample in dataset.splits["train"]]
        assert names == [f"{i}.png" for i in range(1, 13)]
        assert dataset.palette == cityscapes_palette()
        assert dataset.task == "multiclass" and dataset.num_logits == 19
        assert dataset.notes == []

    def test_a_sample_is_photo_and_ids(self, dataset):
        photo, ids = dataset.load(dataset.splits["train"][3])
        np.testing.assert_array_equal(photo, draw_pair(3)[0])
        np.testing.assert_array_equal(ids, draw_ids(3))

    def test_one_wrapping_folder_is_accepted_as_the_archive_unpacks(self, tmp_path):
        make_pairs(tmp_path / "cityscapes_data", train=3, val=1)
        assert len(open_dataset(tmp_path).splits["train"]) == 3

    @pytest.mark.parametrize("inside", ["train", ""])
    def test_without_val_a_seeded_fifth_is_set_apart_and_said(self, tmp_path, inside):
        make_pairs(tmp_path / "all", train=10, val=0)
        (tmp_path / "all" / "train").rename(tmp_path / "pairs")
        root = tmp_path / "root"
        (root / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(tmp_path / "pairs", root / inside, dirs_exist_ok=True)
        first, again, other = (open_dataset(root, seed=seed) for seed in (1, 1, 2))
        assert [len(first.splits[name]) for name in ("train", "val")] == [8, 2]
        assert first.splits == again.splits != other.splits
        assert not set(first.splits["train"]) & set(first.splits["val"])
        assert "2 of 10 pairs are set apart for validation (seed 1)" in first.notes[0]

    def test_pictures_in_the_folder_itself_go_with_a_val_beside_them(self, tmp_path):
        make_pairs(tmp_path, train=3, val=2)
        for path in (tmp_path / "train").iterdir():
            path.rename(tmp_path / path.name)
        dataset = open_dataset(tmp_path)
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [3, 2]
        assert dataset.notes == []

    def test_a_limit_is_spread_over_the_split(self, pairs):
        names = [sample.photo.stem for sample in open_dataset(pairs, limit=4).splits["train"]]
        assert names == ["1", "4", "7", "10"]

    def test_two_classes_are_a_binary_task(self, pairs):
        dataset = open_dataset(pairs, num_classes=2)
        assert dataset.task == "binary" and dataset.num_logits == 1

    def test_capital_suffixes_spaces_and_unicode_are_found_and_hidden_files_are_not(self, tmp_path):
        for name in ("a b.PNG", "ä.png", "10.Jpeg", "9.jpg", ".hidden.png", "notes.txt"):
            (tmp_path / name).touch()
        assert [path.name for path in list_images(tmp_path)] == ["9.jpg", "10.Jpeg", "a b.PNG", "ä.png"]

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(DataError, match="nowhere: no such folder"):
            open_dataset(tmp_path / "nowhere")

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "data.zip").touch()
        with pytest.raises(DataError, match=r"data\.zip: is a file"):
            open_dataset(tmp_path / "data.zip")

    def test_a_folder_without_pairs_says_what_was_expected(self, tmp_path):
        (tmp_path / "train").mkdir()
        with pytest.raises(DataError, match=r"holds no pairs; expected .*train .*photo on the left"):
            open_dataset(tmp_path)

    def test_one_pair_cannot_be_split(self, tmp_path):
        save_pair(tmp_path / "train" / "1.png", 0)
        with pytest.raises(DataError, match="holds one pair only"):
            open_dataset(tmp_path)

    def test_the_registry_lists_the_pairs(self):
        assert set(DATASETS) == {"pairs"}

    def test_the_demo_is_made_once_and_never_over_pairs(self, tmp_path, monkeypatch):
        made = []
        monkeypatch.setattr("semseg.data.make_demo", lambda root, seed: made.append(root))
        assert ensure_demo(tmp_path / "images") is True
        make_pairs(tmp_path / "images", train=2, val=1)
        assert ensure_demo(tmp_path / "images") is False
        assert made == [tmp_path / "images"]


def test_spread_and_split_by_hand(tmp_path):
    samples = [Sample(tmp_path / str(i), tmp_path / str(i)) for i in range(10)]
    assert [int(sample.photo.name) for sample in spread(samples, 3)] == [0, 3, 6]
    assert spread(samples, 99) == samples
    train, val = seeded_split(samples, 0.3, seed=0)
    assert len(val) == 3 and sorted(train + val, key=lambda s: int(s.photo.name)) == samples


class TestCheck:
    def test_counts_equal_a_count_by_hand(self, dataset):
        findings = check_dataset(dataset)
        ids = np.stack([draw_ids(seed) for seed in range(12)])
        for k in range(19):
            assert findings.pixels["train"][k] == (ids == k).sum()
        assert findings.ignored_shares("train") == ((ids == 255).mean(), 0)
        assert findings.shares("train").sum() == pytest.approx(1)
        assert findings.sizes == {(32, 32): 16}

    def test_progress_is_told_for_every_file(self, dataset):
        told = []
        check_dataset(dataset, workers=0, on_progress=lambda done, total: told.append((done, total)))
        assert told == [(i, 16) for i in range(1, 17)]

    def test_all_bad_files_are_told_at_once(self, tmp_path):
        make_pairs(tmp_path, train=6, val=2)
        (tmp_path / "train" / "2.png").write_text("no picture")
        (tmp_path / "train" / "4.png").write_bytes(b"")
        Image.new("RGB", (63, 32)).save(tmp_path / "val" / "1.png")
        (tmp_path / "val" / "2.png").write_bytes((tmp_path / "train" / "1.png").read_bytes()[:500])
        with pytest.raises(DataError) as caught:
            check_dataset(open_dataset(tmp_path))
        message = str(caught.value)
        assert message.startswith("4 of 8 files cannot be used")
        assert "2.png: not a picture" in message and "4.png: an empty file" in message and "1.png: is 63x32" in message
        assert message.endswith("and 1 more")

    def test_a_folder_of_bad_files_only_is_refused_when_it_is_opened(self, tmp_path):
        make_pairs(tmp_path, train=2, val=1)
        for path in (tmp_path / "train").iterdir():
            path.write_text("text")
        with pytest.raises(DataError, match=r"none of 2 pairs can be used; the first: .*1\.png: not a picture"):
            open_dataset(tmp_path)

    def test_masks_of_other_colours_in_val_are_refused(self, tmp_path):
        make_pairs(tmp_path, train=6, val=2)
        for number in (1, 2):
            photo, mask = draw_pair(number)
            strange = np.concatenate([photo, 255 - mask // 3], axis=1)
            Image.fromarray(strange).save(tmp_path / "val" / f"{number}.png")
        with pytest.raises(
            DataError, match=r"100% of the pixels in the val masks.*each of the 19 colours \(cityscapes\)"
        ):
            check_dataset(open_dataset(tmp_path))

    def test_photos_in_place_of_masks_are_refused(self, tmp_path):
        for number in range(12):
            photo, mask = draw_scene(number)
            path = tmp_path / ("train" if number < 10 else "val") / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.concatenate([mask, photo], axis=1)).save(path)  # the halves swapped
        with pytest.raises(
            DataError, match=r"only \d+% of their pixels .* as in photos; are the masks the right halves"
        ):
            open_dataset(tmp_path)

    def test_many_unknown_colours_in_training_masks_are_refused(self, tmp_path):
        make_pairs(tmp_path, train=4, val=1)
        photo, mask = draw_pair(0)
        mask = np.random.default_rng(0).integers(0, 256, mask.shape, dtype=np.uint8)
        for number in (2, 3):
            Image.fromarray(np.concatenate([photo, mask], axis=1)).save(tmp_path / "train" / f"{number}.png")
        with pytest.raises(DataError, match=r"train/[23]\.png, .*are these colour masks"):
            check_dataset(open_dataset(tmp_path))

    def test_a_split_without_any_labelled_pixel_is_refused(self, tmp_path):
        make_pairs(tmp_path, train=4, val=1)
        photo, mask = draw_pair(0)
        Image.fromarray(np.concatenate([photo, 0 * mask], axis=1)).save(tmp_path / "val" / "1.png")
        with pytest.raises(DataError, match="no pixel of the val masks belongs to a class"):
            check_dataset(open_dataset(tmp_path))

    def test_unknown_colours_are_counted_apart_from_void(self, tmp_path):
        make_pairs(tmp_path, train=4, val=1)
        photo, mask = draw_pair(0)
        mask = mask.copy()
        mask[0, :5] = (0, 255, 255)
        Image.fromarray(np.concatenate([photo, mask], axis=1)).save(tmp_path / "train" / "1.png")
        findings = check_dataset(open_dataset(tmp_path))
        assert findings.unknown == {"train": 5, "val": 0}
        assert findings.ignored_shares("train") == (0.125, 5 / (4 * 32 * 32))


class TestAugmentation:
    def test_photo_and_mask_move_together(self):
        ids = draw_ids(1, 64)
        photo = np.repeat(ids[..., None], 3, axis=2)  # a photo of the ids themselves
        for seed in range(10):
            moved, mask = Augmentation(rotation=20, scale=(0.8, 1.5), brightness=0, contrast=0)(
                photo, ids, np.random.default_rng(seed)
            )
            inside = mask != 255
            assert inside.mean() > 0.3
            agree = np.abs(moved[..., 0].astype(int) - mask) <= 1
            assert agree[inside].mean() > 0.9  # but for blended borders of the photo

    def test_nothing_asked_changes_nothing(self):
        photo, _ = draw_pair(0)
        same, mask = STILL(photo, draw_ids(0), np.random.default_rng(0))
        np.testing.assert_array_equal(same, photo)
        np.testing.assert_array_equal(mask, draw_ids(0))

    @pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 1), ("vertical_flip", 0)])
    def test_flips_are_exact(self, name, axis):
        flip = Augmentation(**{**vars(STILL), name: 1.0})
        photo, _ = draw_pair(2)
        flipped, mask = flip(photo, draw_ids(2), np.random.default_rng(0))
        np.testing.assert_array_equal(flipped, np.flip(photo, axis))
        np.testing.assert_array_equal(mask, np.flip(draw_ids(2), axis))

    def test_ignore_fills_what_comes_from_outside_and_no_class_is_invented(self):
        ids = np.full((40, 60), 3, np.uint8)
        shrink = Augmentation(horizontal_flip=0, rotation=0, scale=(0.5, 0.5))
        _, mask = shrink(np.zeros((40, 60, 3), np.uint8), ids, np.random.default_rng(0))
        assert set(np.unique(mask)) == {3, 255}
        assert (mask == 3).mean() == pytest.approx(0.25, abs=0.03)

    def test_a_zoomed_sample_fills_the_frame(self):
        zoom = Augmentation(rotation=0, scale=(1.5, 1.5))
        for seed in range(20):
            _, mask = zoom(np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8), np.random.default_rng(seed))
            assert (mask == 0).all()


class TestBatches:
    def test_shapes_types_and_the_last_batch(self, dataset):
        batches = data_generator(dataset, batch_size=5, image_size=(16, 24))
        sizes = [(photos.shape, masks.shape) for photos, masks in batches]
        assert sizes == [((n, 16, 24, 3), (n, 16, 24)) for n in (5, 5, 2)]
        photos, masks = batches[0]
        assert photos.dtype == masks.dtype == np.uint8
        batches.close()

    def test_an_epoch_holds_every_sample_once_and_the_next_in_another_order(self, dataset):
        batches = data_generator(dataset, batch_size=5, image_size=(32, 32))
        epochs = [np.concatenate([photos for photos, _ in batches]) for _ in range(2)]
        batches.close()
        photos = {dataset.load(sample)[0].tobytes() for sample in dataset.splits["train"]}
        for epoch in epochs:
            assert {photo.tobytes() for photo in epoch} == photos and len(epoch) == 12
        assert not np.array_equal(*epochs)

    def test_validation_keeps_its_order(self, dataset):
        batches = data_generator(dataset, "val", batch_size=3, image_size=(32, 32))
        masks = np.concatenate([masks for _, masks in batches])
        batches.close()
        np.testing.assert_array_equal(masks, [draw_ids(1000 + i) for i in range(4)])

    def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(self, dataset):
        def all_batches(workers, seed=3):
            batches = data_generator(
                dataset, batch_size=5, image_size=(24, 24), augmentation=Augmentation(), seed=seed, workers=workers
            )
            result = [array for _ in range(2) for batch in batches for array in batch]
            batches.close()
            return result

        expected = all_batches(0)
        for workers in (1, 4):
            for ours, theirs in zip(all_batches(workers), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        assert not all(np.array_equal(a, b) for a, b in zip(all_batches(0, seed=4), expected, strict=True))

    def test_a_broken_file_raises_in_the_loop_with_its_name(self, tmp_path):
        make_pairs(tmp_path, train=4, val=1)
        dataset = open_dataset(tmp_path)
        (tmp_path / "train" / "3.png").write_text("broken meanwhile")
        batches = data_generator(dataset, batch_size=2)
        with pytest.raises(DataError, match=r"3\.png: not a picture"):
            list(batches)
        batches.close()

    def test_senseless_arguments_are_refused(self, dataset):
        with pytest.raises(SemsegError, match="got 'test'; expected one of train, val"):
            data_generator(dataset, "test")
        with pytest.raises(SemsegError, match="batch_size=0"):
            data_generator(dataset, batch_size=0)
