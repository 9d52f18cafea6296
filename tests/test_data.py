import shutil
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from helpers import draw_ids, draw_numbers, draw_pair, make_folder, make_pairs, save_pair
from PIL import Image

from semseg.data import ensure_demo, open_dataset
from semseg.data.base import Sample, seeded_split, spread
from semseg.data.check import check_dataset
from semseg.data.finding.choosing import DATASETS, EXPECTED
from semseg.data.finding.contents import list_contents
from semseg.data.finding.folder import find_folder
from semseg.errors import DataError, SemsegError
from semseg.images.reading import list_images
from semseg.labels.formats import FORMATS
from semseg.labels.known_palettes import CITYSCAPES, VOC
from semseg.labels.palettes import Palette, cityscapes_palette

pytestmark = pytest.mark.plain


class TestFindingPairs:
    def test_train_and_val_are_found_in_natural_order_with_the_official_palette(self, dataset):
        assert {name: len(samples) for name, samples in dataset.splits.items()} == {"train": 12, "val": 4}
        names = [sample.photo.name for sample in dataset.splits["train"]]
        assert names == [f"{i}.png" for i in range(1, 13)]
        assert dataset.palette == replace(cityscapes_palette(), max_distance=0)
        assert dataset.task == "multiclass" and dataset.num_logits == 19
        assert len(dataset.notes) == 1 and dataset.notes[0].startswith("read as pairs: ")

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
        assert "2 of 10 pairs are set apart for validation (seed 1)" in first.notes[1]

    def test_pictures_in_the_folder_itself_go_with_a_val_beside_them(self, tmp_path):
        make_pairs(tmp_path, train=3, val=2)
        for path in (tmp_path / "train").iterdir():
            path.rename(tmp_path / path.name)
        dataset = open_dataset(tmp_path)
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [3, 2]
        assert len(dataset.notes) == 1 and dataset.notes[0].startswith("read as pairs: ")

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
        (tmp_path / "data.txt").touch()
        with pytest.raises(DataError, match=r"data\.txt: is a file"):
            open_dataset(tmp_path / "data.txt")

    def test_a_folder_without_pairs_says_what_was_expected(self, tmp_path):
        (tmp_path / "train").mkdir()
        with pytest.raises(DataError, match=r"holds no photos with masks or outlines; .*leftImg8bit/.*photo \| colour"):
            open_dataset(tmp_path)

    def test_one_pair_cannot_be_split(self, tmp_path):
        save_pair(tmp_path / "train" / "1.png", 0)
        with pytest.raises(DataError, match="holds one pair only"):
            open_dataset(tmp_path)

    def test_the_registry_lists_the_pairs(self):
        assert (
            set(DATASETS)
            == set(EXPECTED)
            == {*("cityscapes", "carvana", "folder", "rasters", "lists", "pairs"), *FORMATS}
        )

    def test_a_data_set_can_be_named_and_a_wrong_name_is_refused(self, pairs):
        assert len(open_dataset(pairs, name="pairs").samples) == 16
        with pytest.raises(
            SemsegError,
            match="no data set 'camvid'; choose one of cityscapes, carvana, lists, folder, rasters, pairs, coco",
        ):
            open_dataset(pairs, name="camvid")
        with pytest.raises(DataError, match=r"expected leftImg8bit/ and gtFine/$"):
            open_dataset(pairs, name="cityscapes")

    def test_categories_of_the_pairs(self, pairs):
        dataset = open_dataset(pairs, categories=True)
        assert dataset.palette.num_classes == 7
        assert set(np.unique(dataset.load(dataset.splits["train"][0])[1])) == {0, 1, 4, 6, 255}

    def test_a_given_palette_is_used(self, pairs):
        palette = Palette.from_colors(("road", "else"), ((128, 64, 128), (70, 70, 70)), [("sky", (70, 130, 180))])
        dataset = open_dataset(pairs, palette=palette)
        assert dataset.task == "binary" and dataset.palette is palette

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


class TestPlainFolder:
    def test_images_and_masks_become_samples_with_a_drawn_split(self, tmp_path):
        dataset = open_dataset(make_folder(tmp_path))
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [8, 2]
        assert dataset.drawn and dataset.palette.source == "values"
        assert dataset.palette.names == ("class_0", "class_1", "class_2", "class_3")
        sample = next(sample for sample in dataset.samples if sample.photo.stem == "3")
        photo, ids = dataset.load(sample)
        np.testing.assert_array_equal(ids, draw_numbers(3))
        assert np.abs(photo.astype(int) - draw_pair(3)[0]).mean() < 5

    @pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}", "data/{split}/{kind}"])
    def test_splits_inside_or_outside_with_other_names(self, tmp_path, layout):
        for split, count in (("training", 3), ("valid", 2), ("testing", 1)):
            made = make_folder(tmp_path / "made" / split, count)
            for kind, name in (("images", "Images"), ("masks", "labels")):
                target = tmp_path / "set" / layout.format(split=split, kind=name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(made / kind, target)
        dataset = open_dataset(tmp_path / "set")
        assert {name: len(samples) for name, samples in dataset.splits.items()} == {"train": 3, "val": 2, "test": 1}
        assert not dataset.drawn

    def test_train_with_its_masks_beside_it(self, tmp_path):
        make_folder(tmp_path / "made", 4)
        for kind, name in (("images", "train"), ("masks", "trainannot")):
            shutil.move(tmp_path / "made" / kind, tmp_path / "set" / name)
        assert len(open_dataset(tmp_path / "set").samples) == 4

    @pytest.mark.parametrize("header", ["image,mask\n", "id,Photo path,Label path\n", ""])
    def test_lists_in_csv_files(self, tmp_path, header):
        make_folder(tmp_path / "files, all", 5)
        first = "7," if header.startswith("id") else ""
        for split, numbers in (("train", (0, 1, 2)), ("val", (3, 4))):
            rows = [f'{first}"files, all/images/{i}.jpg","files, all/masks/{i}.png"\n' for i in numbers]
            (tmp_path / f"{split}.csv").write_text(header + "".join(rows))
        dataset = open_dataset(tmp_path)
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [3, 2]
        assert dataset.splits["val"][0] == Sample(
            tmp_path / "files, all" / "images" / "3.jpg", tmp_path / "files, all" / "masks" / "3.png"
        )

    def test_one_list_with_a_column_for_the_split(self, tmp_path):
        make_folder(tmp_path / "files", 3)
        splits = ("train", "train", "val")
        rows = [f"files/images/{i}.jpg,files/masks/{i}.png,{split}" for i, split in enumerate(splits)]
        (tmp_path / "all.csv").write_text("\n".join(["image,mask,split", *rows]))
        dataset = open_dataset(tmp_path)
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [2, 1]

    @pytest.mark.parametrize(
        ("text", "what"),
        [("image,mask,split\na.png,b.png,holdout\n", "row 2 has the split 'holdout'"),
         ("a,b\n1,2\n", "has the columns a, b; expected one named image"),
         ("image,mask\nx.png\n", "row 2 has 1 cells"),
         ("\n", "is empty")],
    )  # fmt: skip
    def test_a_list_that_makes_no_sense_is_refused(self, tmp_path, text, what):
        (tmp_path / "train.csv").write_text(text)
        with pytest.raises(DataError, match=rf"train\.csv: {what}"):
            open_dataset(tmp_path)

    @pytest.mark.parametrize("ending", ["_mask", "_L", "_gt", ""])
    def test_endings_of_mask_names(self, tmp_path, ending):
        photo, mask = tmp_path / "images" / "a.jpg", tmp_path / "masks" / f"a{ending}.png"
        for path in (photo, mask):
            path.parent.mkdir()
            path.touch()
        assert find_folder(list_contents(tmp_path)).splits == {"train": [Sample(photo, mask)]}

    def test_names_that_do_not_match_are_told_and_masks_are_no_pairs(self, tmp_path):
        make_folder(tmp_path, 3)
        for path in (tmp_path / "masks").iterdir():
            path.rename(path.with_name(f"{'xyz'[int(path.stem)]}.png"))
        with pytest.raises(
            DataError, match=r"names of photos and masks do not match, as images/0\.jpg and masks/x\.png"
        ):
            open_dataset(tmp_path)

    @pytest.mark.parametrize("text", ["name,r,g,b\nSky,128,128,128\n", "id,rle_mask\n0,1 2 3\n"])
    def test_a_table_of_something_else_beside_the_data_does_no_harm(self, tmp_path, text):
        for split in ("train", "val"):
            make_folder(tmp_path / split, 3)
        (tmp_path / "class_dict.csv").write_text(text)
        assert len(open_dataset(tmp_path).samples) == 6

    def test_a_table_of_colours_beside_pairs_does_no_harm(self, pairs):
        (pairs / "train.csv").write_text("name,r,g,b\nSky,128,128,128\n")
        assert len(open_dataset(pairs).samples) == 16

    @pytest.mark.parametrize(
        ("photos", "masks"),
        [("img_dir/{}", "ann_dir/{}"), ("{}_images", "{}_masks"), ("Original Images/{}", "Ground Truth/{}"),
         ("{}/images", "{}/segmentation")],
    )  # fmt: skip
    def test_other_names_of_folders(self, tmp_path, photos, masks):
        for split in ("train", "val"):
            made = make_folder(tmp_path / "made" / split, 3)
            for kind, pattern in (("images", photos), ("masks", masks)):
                target = tmp_path / "set" / pattern.format(split)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(made / kind, target)
        dataset = open_dataset(tmp_path / "set")
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [3, 3]
        assert all(sample.photo.suffix == ".jpg" and sample.mask.suffix == ".png" for sample in dataset.samples)

    def test_masks_alone_are_no_pairs(self, tmp_path):
        for split in ("train", "val"):
            make_folder(tmp_path / "made" / split, 3, size=64)
            for kind, name in (("images", "one"), ("masks", "two")):
                (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
                shutil.move(tmp_path / "made" / split / kind, tmp_path / "set" / name / split)
        shutil.rmtree(tmp_path / "set" / "one")
        with pytest.raises(DataError, match="holds no photos with masks"):
            open_dataset(tmp_path / "set")

    def test_classes_of_the_other_kind_are_refused(self, tmp_path, pairs):
        make_folder(tmp_path, 4)
        with pytest.raises(SemsegError, match="`palette`: describes colours, and the masks hold numbers"):
            open_dataset(tmp_path, palette=cityscapes_palette())
        with pytest.raises(SemsegError, match="`palette`: describes values, and the masks hold colours"):
            open_dataset(pairs, palette=Palette.from_dict(open_numbers()))

    def test_folders_inside_tell_equal_names_apart(self, tmp_path):
        for city in ("ulm", "bonn"):
            make_folder(tmp_path / "made", 2)
            for kind in ("images", "masks"):
                (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
                shutil.move(tmp_path / "made" / kind, tmp_path / "set" / kind / city)
        dataset = open_dataset(tmp_path / "set")
        assert len(dataset.samples) == 4 and not dataset.problems
        assert all(sample.photo.parent.name == sample.mask.parent.name for sample in dataset.samples)


class TestWhatMasksHold:
    """Masks of the same content in another form give the same ids."""

    def palette_image(self, ids, rng=None):
        """With `rng` the colours stand in another order in every file."""
        order = np.arange(4) if rng is None else rng.permutation(4)
        image = Image.new("P", ids.shape[::-1])
        stored = np.argsort(order)[np.where(ids == 255, 0, ids)].astype(np.uint8)
        image.putdata(stored.ravel().tolist())
        image.putpalette(np.array([VOC[i][1] for i in order], np.uint8).ravel().tolist())
        return image

    @pytest.mark.parametrize("form", ["grey", "grey in RGB", "16 bits", "index", "index in any order", "colour", "gif"])
    def test_the_same_ids(self, tmp_path, form):
        make_folder(tmp_path, 6)
        rng = np.random.default_rng(0)
        for i in range(6):
            ids = draw_numbers(i)
            ids[ids == 255] = 0
            colors = np.array([color for _, color in VOC[:4]], np.uint8)[ids]
            image = {
                "grey": lambda ids=ids: Image.fromarray(ids),
                "grey in RGB": lambda ids=ids: Image.fromarray(np.repeat(ids[..., None], 3, axis=2)),
                "16 bits": lambda ids=ids: Image.fromarray(ids.astype(np.uint16) * 1000),
                "index": lambda ids=ids: self.palette_image(ids),
                "index in any order": lambda ids=ids: self.palette_image(ids, rng),
                "colour": lambda colors=colors: Image.fromarray(colors),
                "gif": lambda colors=colors: Image.fromarray(colors).convert("P", palette=Image.Palette.ADAPTIVE),
            }[form]()
            (tmp_path / "masks" / f"{i}.png").unlink()
            image.save(tmp_path / "masks" / f"{i}.{'gif' if form == 'gif' else 'png'}")
        dataset = open_dataset(tmp_path)
        if form in ("index", "index in any order", "colour", "gif"):
            assert dataset.palette.names[:4] == ("background", "aeroplane", "bicycle", "bird")
        for sample in dataset.samples:
            expected = draw_numbers(int(sample.photo.stem))
            np.testing.assert_array_equal(dataset.load(sample)[1], np.where(expected == 255, 0, expected))

    def test_black_and_white_masks_of_any_depth_are_binary(self, tmp_path):
        make_folder(tmp_path, 6)
        for i in range(6):
            mask = Image.fromarray(np.where(draw_numbers(i) == 3, 255, 0).astype(np.uint8))
            (mask if i % 2 else mask.convert("1")).save(tmp_path / "masks" / f"{i}.png")
        dataset = open_dataset(tmp_path)
        assert dataset.task == "binary" and dataset.palette.names == ("background", "foreground")
        for sample in dataset.samples:
            np.testing.assert_array_equal(dataset.load(sample)[1], draw_numbers(int(sample.photo.stem)) == 3)

    def test_grey_jpeg_masks_go_through_a_palette(self, tmp_path):
        make_folder(tmp_path, 6, size=64)
        for i in range(6):
            (tmp_path / "masks" / f"{i}.png").unlink()
            white = np.where(draw_numbers(i, 64) == 3, 255, 0).astype(np.uint8)
            Image.fromarray(white).save(tmp_path / "masks" / f"{i}.jpg", quality=80)
        dataset = open_dataset(tmp_path)
        assert dataset.palette.names == ("background", "foreground")
        for sample in dataset.samples:
            ids, expected = dataset.load(sample)[1], draw_numbers(int(sample.photo.stem), 64) == 3
            assert (ids == expected)[ids != 255].mean() > 0.99 and (ids == 255).mean() < 0.05

    def test_a_third_grey_in_jpeg_masks_is_a_class(self, tmp_path):
        make_folder(tmp_path, 6, size=64)
        for i in range(6):
            (tmp_path / "masks" / f"{i}.png").unlink()
            ids = np.zeros((64, 64), np.uint8)
            ids[8:40, 8:40], ids[50:60, 4 * i : 4 * i + 10] = 2, 1  # the rare class has a fortieth of the pixels
            Image.fromarray(np.array([0, 127, 255], np.uint8)[ids]).save(tmp_path / "masks" / f"{i}.jpg", quality=90)
        assert open_dataset(tmp_path).palette.num_classes == 3

    def test_masks_of_two_scales_are_refused(self, tmp_path):
        make_folder(tmp_path, 6)
        for i in range(6):
            mask = np.where(draw_numbers(i) == 3, 255 if i % 2 else 1, 0).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
        with pytest.raises(DataError, match="some hold 0 and 1, others 0 and 255"):
            open_dataset(tmp_path)

    def test_four_bit_masks_keep_their_numbers(self, tmp_path):
        make_folder(tmp_path, 6)
        header, end = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        for i in range(6):
            ids = np.where(draw_numbers(i) == 255, 0, draw_numbers(i))
            rows = b"".join(b"\x00" + bytes(row[::2] << 4 | row[1::2]) for row in ids)
            size = struct.pack(">IIBBBBB", 32, 32, 4, 0, 0, 0, 0)
            data = header + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows)) + end
            (tmp_path / "masks" / f"{i}.png").write_bytes(data)
        dataset = open_dataset(tmp_path)
        sample = next(sample for sample in dataset.samples if sample.photo.stem == "4")
        np.testing.assert_array_equal(dataset.load(sample)[1], np.where(draw_numbers(4) == 255, 0, draw_numbers(4)))

    def test_mixed_kinds_are_named(self, tmp_path):
        make_folder(tmp_path, 6)
        dataset = open_dataset(tmp_path)
        Image.fromarray(draw_pair(0)[1]).save(tmp_path / "masks" / "0.png")
        sample = next(sample for sample in dataset.samples if sample.photo.stem == "0")
        with pytest.raises(DataError, match=r"masks/0\.png: holds colours, the other masks hold numbers"):
            dataset.load(sample)


def open_numbers():
    return {"classes": [{"id": i, "name": str(i), "value": i} for i in range(4)]}


class TestCarvana:
    @pytest.fixture()
    def cars(self, tmp_path):
        """Five cars in four views each, with one-bit GIF masks as the real ones are."""
        (tmp_path / "train").mkdir(), (tmp_path / "train_masks").mkdir()
        for car in range(5):
            for view in range(1, 5):
                name = f"{car:012x}_{view:02d}"
                Image.fromarray(draw_pair(10 * car + view)[0]).save(tmp_path / "train" / f"{name}.jpg")
                mask = Image.new("P", (32, 32))
                mask.putdata((draw_numbers(10 * car + view) == 3).ravel().astype(int).tolist())
                mask.putpalette([0, 0, 0, 255, 255, 255])
                mask.save(tmp_path / "train_masks" / f"{name}_mask.gif")
        return tmp_path

    def test_no_car_is_on_both_sides(self, cars):
        for seed in range(5):
            dataset = open_dataset(cars, seed=seed)
            train, val = ({sample.photo.name[:12] for sample in dataset.splits[name]} for name in ("train", "val"))
            assert len(train) == 4 and len(val) == 1 and not train & val
            assert f"so that none is on both sides: {val.pop()}" in dataset.notes[1]

    def test_classes_and_ids(self, cars):
        dataset = open_dataset(cars)
        assert dataset.palette.names == ("background", "car") and dataset.task == "binary"
        for sample in dataset.samples[:3]:
            car, view = int(sample.photo.name[:12], 16), int(sample.photo.name[13:15])
            np.testing.assert_array_equal(dataset.load(sample)[1], draw_numbers(10 * car + view) == 3)

    def test_masks_whose_palette_has_white_first_are_not_turned_around(self, cars):
        for path in (cars / "train_masks").iterdir():
            with Image.open(path) as mask:
                turned = Image.new("P", mask.size)
                turned.putdata((1 - np.asarray(mask)).ravel().tolist())
            turned.putpalette([255, 255, 255, 0, 0, 0])
            turned.save(path)
        self.test_classes_and_ids(cars)

    def test_a_file_of_the_system_among_the_masks_changes_nothing(self, cars):
        (cars / "train_masks" / ".DS_Store").touch()
        assert open_dataset(cars).palette.names == ("background", "car")

    def test_a_copy_is_moved_with_all_views_of_its_car(self, cars):
        dataset = open_dataset(cars)
        source, copy = dataset.splits["train"][0], dataset.splits["val"][0]
        shutil.copy(source.photo, copy.photo)
        with pytest.raises(DataError, match="every photo drawn for validation is a copy"):
            check_dataset(dataset).refuse("check")

    def test_one_car_cannot_be_split(self, cars):
        for path in [*cars.rglob("*.jpg"), *cars.rglob("*.gif")]:
            if not path.name.startswith("000000000000"):
                path.unlink()
        with pytest.raises(DataError, match="holds one group only"):
            open_dataset(cars)


class TestCityscapes:
    @pytest.fixture()
    def tree(self, tmp_path):
        """The official layout with all three kinds of labels, and a test part whose labels are withheld."""
        for split, city, count in (("train", "ulm", 3), ("val", "bonn", 2), ("test", "mainz", 1)):
            for i in range(count):
                stem = f"{city}_{i:06d}_000019"
                photo = tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
                photo.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw_pair(i)[0]).save(photo)
                labels = tmp_path / "gtFine" / split / city
                labels.mkdir(parents=True, exist_ok=True)
                train_ids = draw_ids(i) if split != "test" else np.full((32, 32), 255, np.uint8)
                (labels / f"{stem}_gtFine_polygons.json").write_text("{}")
                self.save_labels(labels / f"{stem}_gtFine", train_ids)
        return tmp_path

    def save_labels(self, path, train_ids):
        of_train_id = {train_id: (label_id, color) for _, label_id, train_id, _, color in reversed(CITYSCAPES)}
        label_ids, colors = np.zeros((256,), np.uint8), np.zeros((256, 4), np.uint8)
        for train_id, (label_id, color) in of_train_id.items():
            label_ids[train_id], colors[train_id] = label_id % 256, (*color, 255)
        Image.fromarray(train_ids).save(f"{path}_labelTrainIds.png")
        Image.fromarray(label_ids[train_ids]).save(f"{path}_labelIds.png")
        Image.fromarray(colors[train_ids]).save(f"{path}_color.png")

    @pytest.mark.parametrize("kind", ["labelTrainIds", "labelIds", "color"])
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_each_kind_of_label_gives_the_train_ids(self, tree, tmp_path_factory, kind, wrapped):
        for path in (tree / "gtFine").rglob("*.png"):
            if not path.name.endswith(f"_{kind}.png"):
                path.unlink()
        root = tree
        if wrapped:
            root = tmp_path_factory.mktemp("outer")
            shutil.copytree(tree, root / "cityscapes")
        dataset = open_dataset(root)
        assert {name: len(samples) for name, samples in dataset.splits.items()} == {"train": 3, "val": 2}
        assert dataset.palette.num_classes == 19 and dataset.palette.names[13] == "car"
        for i, sample in enumerate(dataset.splits["train"]):
            np.testing.assert_array_equal(dataset.load(sample)[1], draw_ids(i))

    def test_the_seven_categories(self, tree):
        dataset = open_dataset(tree, categories=True)
        ids = dataset.load(dataset.splits["train"][0])[1]
        category_of = {0: 0, 2: 1, 10: 4, 13: 6, 255: 255}  # road, building, sky, car
        np.testing.assert_array_equal(ids, np.vectorize(category_of.get)(draw_ids(0)))

    def test_a_photo_without_label_is_a_problem(self, tree):
        next((tree / "gtFine" / "train").rglob("*labelTrainIds.png")).unlink()
        dataset = open_dataset(tree)
        assert len(dataset.splits["train"]) == 2
        assert len(dataset.problems) == 1 and "has no mask ulm_" in dataset.problems[0]


def test_the_real_sets_are_understood(real_data):
    expected = {
        "cityscapes_pairs": ((1975, 500), 19, "cityscapes"),
        "camvid": ((367, 101), 11, "camvid"),
        "carvana": ((96, 32), 2, "values"),
        "nuclei": ((48, 12), 2, "values"),
    }
    for name, (counts, num_classes, source) in expected.items():
        dataset = open_dataset(real_data / name)
        assert tuple(len(dataset.splits[split]) for split in ("train", "val")) == counts
        assert dataset.palette.num_classes == num_classes and dataset.palette.source == source
        assert not dataset.problems
    splits = open_dataset(real_data / "carvana").splits.values()
    cars = [{sample.photo.name[:12] for sample in samples} for samples in splits]
    assert not cars[0] & cars[1] and [len(side) for side in cars] == [6, 2]


class TestResultsAmongTheData:
    """Their pictures are never data."""

    FILES = ("config.json", "classes.json", "splits.csv")

    def put(self, folder, *files):
        (folder / "report").mkdir(parents=True)
        for name in files:
            (folder / name).write_text("{}")
        for name in ("pred_1.png", "report/photo_1.png", "train_batch.png"):
            Image.fromarray(draw_numbers(3)).save(folder / name)

    @pytest.mark.parametrize("place", ["outputs", "images/outputs", "a/deep/run"])
    def test_a_folder_of_results_is_left_out_and_named(self, tmp_path, place):
        make_folder(tmp_path)
        before = open_dataset(tmp_path).splits
        self.put(tmp_path / place, *self.FILES)
        dataset = open_dataset(tmp_path)
        assert dataset.splits == before and not dataset.problems
        assert f"{tmp_path / place}: holds results of semseg, which are no data" in dataset.notes

    def test_results_in_the_data_folder_itself_are_told_from_its_pictures(self, tmp_path):
        make_folder(tmp_path)
        before = open_dataset(tmp_path).splits
        self.put(tmp_path, *self.FILES)
        (tmp_path / "report" / "pictures.json").write_text("[]")
        dataset = open_dataset(tmp_path)
        assert dataset.splits == before and not dataset.problems
        assert not any("left out" in note for note in dataset.notes)

    def test_a_folder_called_outputs_may_hold_data(self, tmp_path):
        make_folder(tmp_path / "outputs")
        (tmp_path / "outputs" / "config.json").write_text("{}")
        assert len(open_dataset(tmp_path).samples) == 10
