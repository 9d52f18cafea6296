"""Faults planted in data sets, each of which the check must find and name: R numbers are those of the fault list."""

import json
import operator
import os
import resource
import shutil
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
from helpers import REPOSITORY, black_png, draw_ids, draw_numbers, draw_pair, make_folder, make_pairs
from PIL import Image

from semseg.cli import commands, main
from semseg.data import open_dataset, records
from semseg.data.base import Dataset, Sample
from semseg.data.cache import Cache
from semseg.data.check import check_dataset, to_json
from semseg.data.demo import draw_scene
from semseg.data.masks import rename_classes
from semseg.data.thinness import measure_thinness
from semseg.data.workers import Workers
from semseg.errors import DataError
from semseg.labels.numbers import palette_of_values
from semseg.labels.palettes import Palette
from semseg.labels.quantising import bin_image

pytestmark = pytest.mark.plain


def check(root, **options):
    given = {name: options.pop(name) for name in ("seed", "palette", "num_classes", "limit") if name in options}
    dataset = open_dataset(root, **given)
    return dataset, check_dataset(dataset, **options)


def has(lines, *parts):
    """Whether one line holds all the parts."""
    return any(all(part in line for part in parts) for line in lines)


@pytest.fixture()
def folder(tmp_path):
    """Train and val of a plain folder."""
    make_folder(tmp_path / "train", 8)
    make_folder(tmp_path / "val", 4, first=100)
    return tmp_path


class TestCounts:
    def test_equal_a_count_by_hand(self, dataset):
        findings = check_dataset(dataset)
        ids = np.stack([draw_ids(seed) for seed in range(12)])
        for k in range(19):
            assert findings.pixels("train")[k] == (ids == k).sum()
            assert findings.tops("train")[:, k].sum() == (ids[:, :16] == k).sum()
        assert findings.ignored_shares("train") == ((ids == 255).mean(), 0)
        assert findings.shares("train").sum() == pytest.approx(1)
        assert findings.sizes == {(32, 32): 16}
        assert not findings.errors

    def test_progress_is_told_for_every_file(self, dataset):
        told = []
        check_dataset(dataset, workers=0, on_progress=lambda done, total: told.append((done, total)))
        assert told == [(i, 16) for i in range(1, 17)]

    def test_all_of_it_is_plain_json(self, dataset):
        values = json.loads(json.dumps(to_json(dataset, check_dataset(dataset)), allow_nan=False))
        assert values["splits"]["train"]["masks_with_class"]["car"] == 12
        assert values["splits"]["val"]["samples"] == 4 and len(values["files"]) == 16

    def test_a_good_folder_raises_no_alarm(self, folder):
        _, findings = check(folder)
        assert not findings.errors and not findings.warnings


class TestFilesThatCannotBeUsed:
    def plant(self, folder):
        """One of each kind: R05 R08 R22 R38 R49 R50 R55."""
        images, masks = folder / "train" / "images", folder / "train" / "masks"
        data = (images / "0.jpg").read_bytes()
        (images / "0.jpg").write_bytes(data[: len(data) // 2])
        Image.fromarray(draw_numbers(1)[:20]).save(masks / "1.png")
        (masks / "2.png").write_bytes(black_png(20000))
        Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(images / "3.tif")
        (images / "3.jpg").unlink()
        (images / "4.jpg").unlink(), os.mkfifo(images / "4.jpg")
        (images / "5.jpg").write_bytes(b"")
        frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
        frames[0].save(images / "6.gif", save_all=True, append_images=frames[1:])
        (images / "6.jpg").unlink()
        return {
            "0.jpg": "cannot be read", "1.jpg": "is 32x32 pixels, its mask", "2.png": "larger than 89 million",
            "3.tif": "float", "4.jpg": "a pipe", "5.jpg": "an empty file", "6.gif": "holds 2 pictures",
        }  # fmt: skip

    @pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
    def test_all_are_told_at_once_with_their_number(self, folder):
        self.plant(folder)
        dataset, findings = check(folder)
        assert len(findings.errors) == 1
        assert findings.errors[0].startswith("7 of 12 files cannot be used: ")
        assert findings.errors[0].endswith("and 4 more; or train without them by `skip_bad`")
        assert len(dataset.splits["train"]) == 1

    @pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
    @pytest.mark.parametrize("alone", range(7))
    def test_each_is_named_with_what_is_wrong(self, folder, tmp_path_factory, alone):
        spare = tmp_path_factory.mktemp("spare") / "data"
        shutil.copytree(folder, spare)
        name, what = list(self.plant(folder).items())[alone]
        number = name.split(".")[0]
        for i in range(8):
            if str(i) != number:
                for kind, suffix in (("images", "jpg"), ("masks", "png")):
                    for path in (folder / "train" / kind).glob(f"{i}.*"):
                        path.unlink()
                    shutil.copy(spare / "train" / kind / f"{i}.{suffix}", folder / "train" / kind)
        _, findings = check(folder)
        assert len(findings.errors) == 1 and name in findings.errors[0] and what in findings.errors[0]

    @pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
    def test_they_can_be_left_out_and_that_is_said(self, folder):
        self.plant(folder)
        dataset, findings = check(folder, skip_bad=True)
        assert not findings.errors
        assert has(findings.warnings, "7 of 12 files are left out", "0.jpg")
        assert [sample.photo.name for sample in dataset.splits["train"]] == ["7.jpg"]

    def test_a_split_with_nothing_left_is_refused(self, folder):
        for path in (folder / "val" / "images").iterdir():
            path.write_text("text")
        _, findings = check(folder, skip_bad=True)
        assert has(findings.errors, "no file of the val split can be used")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_r05_cut_jpegs(self, folder, share):
        path = folder / "val" / "images" / "0.jpg"
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        assert has(check(folder)[1].errors, "val/images/0.jpg")

    def test_r22_a_bomb_costs_neither_time_nor_memory(self, folder):
        for size in (20000, 40000):
            (folder / "train" / "masks" / "0.png").write_bytes(black_png(size))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            _, findings = check(folder)
            assert has(findings.errors, "train/masks/0.png: larger than 89 million pixels")
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB

    def test_r37_missing_and_ambiguous_partners_are_all_listed(self, folder):
        images, masks = folder / "train" / "images", folder / "train" / "masks"
        (masks / "0.png").unlink()
        (images / "1.jpg").unlink()
        shutil.copy(masks / "2.png", masks / "2_mask.png")
        Image.fromarray(draw_pair(3)[0]).save(images / "3.png")
        dataset, findings = check(folder)
        assert sorted(problem.split(": ")[1].split(" in ")[0] for problem in dataset.problems) == [
            *["has no mask"] * 3, *["has no photo"] * 2, "may be the mask of several photos"
        ]  # fmt: skip
        assert len(findings.errors) == 1 and "6 of 15 files cannot be used" in findings.errors[0]
        dataset, findings = check(folder, skip_bad=True)
        assert not findings.errors and len(dataset.splits["train"]) == 5

    def test_r50_text_named_jpg(self, folder):
        (folder / "val" / "images" / "2.jpg").write_text("not a picture")
        assert has(check(folder)[1].errors, "val/images/2.jpg: not a picture")

    def test_r54_strange_names_are_found(self, tmp_path):
        names = ["ä ö ü", "日本語", "two  spaces", "new\nline", "x" * 251, "semi;colon", "$dollar$"]
        make_folder(tmp_path, len(names))
        for i, name in enumerate(names):
            (tmp_path / "images" / f"{i}.jpg").rename(tmp_path / "images" / f"{name}.JPG")
            (tmp_path / "masks" / f"{i}.png").rename(tmp_path / "masks" / f"{name}.PNG")
        dataset, findings = check(tmp_path)
        assert {sample.photo.stem for sample in dataset.samples} == set(names)
        assert not findings.errors

    def test_the_message_stays_one_line_whatever_a_file_is_called(self, folder, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (folder / "train" / "images" / "new\nline.jpg").write_text("x")
        shutil.copy(folder / "train" / "masks" / "0.png", folder / "train" / "masks" / "new\nline.png")
        assert main(["--data", str(folder), "--cache", "none"]) == 3
        assert capsys.readouterr().err.count("\n") == 1


class TestPhotos:
    def test_r38_other_forms_are_converted_and_counted(self, folder):
        images = folder / "train" / "images"
        for i, mode in enumerate(("RGBA", "CMYK", "L", "RGBA")):
            Image.fromarray(draw_pair(i)[0]).convert(mode).save(images / f"{i}.tif")
            (images / f"{i}.jpg").unlink()
        _, findings = check(folder)
        assert not findings.errors
        for form, count in (("alpha", 2), ("CMYK", 1), ("grey", 1)):
            assert has(findings.warnings, f"stored as {form} and read as RGB: {count} photo")

    @pytest.mark.parametrize("orientation", range(2, 9))
    @pytest.mark.parametrize("drawn_on", ["upright", "stored"])
    def test_r06_exif_turns_photo_and_mask_by_one_rule(self, tmp_path, orientation, drawn_on):
        """Photos stored turned, with a tag; masks without a tag, drawn on the upright or on the stored pixels."""
        undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
                7: "TRANSVERSE", 8: "ROTATE_270"}[orientation]  # fmt: skip
        (tmp_path / "images").mkdir(), (tmp_path / "masks").mkdir()
        truth = {}
        for i in range(4):
            photo, mask = (image[:100] for image in draw_scene(i, size=128))
            truth[str(i)] = photo, mask
            stored = Image.fromarray(photo).transpose(Image.Transpose[undo])
            exif = stored.getexif()
            exif[0x0112] = orientation
            stored.save(tmp_path / "images" / f"{i}.jpg", exif=exif, quality=95, subsampling=0)
            drawn = Image.fromarray(mask)
            if drawn_on == "stored":
                drawn = drawn.transpose(Image.Transpose[undo])
            drawn.save(tmp_path / "masks" / f"{i}.png")
        dataset, findings = check(tmp_path)
        assert not findings.errors
        turned = 4 if drawn_on == "stored" else 0
        assert has(findings.warnings, f"EXIF orientation: 4 photos, and with them {turned} masks")
        for sample in dataset.samples:
            photo, ids = dataset.load(sample)
            expected_photo, mask = truth[sample.photo.stem]
            assert np.abs(photo.astype(int) - expected_photo).mean() < 6
            np.testing.assert_array_equal(ids, bin_image(mask, dataset.palette))

    def test_a_tiff_with_an_orientation_lies_on_its_mask(self, folder):
        photo = Image.fromarray(draw_pair(0)[0][:20])
        photo.save(folder / "train" / "images" / "0.tif", exif=bytes(self.tag(6)))
        (folder / "train" / "images" / "0.jpg").unlink()
        mask = Image.fromarray(draw_numbers(0)[:20]).transpose(Image.Transpose.ROTATE_270)
        mask.save(folder / "train" / "masks" / "0.png")
        dataset, findings = check(folder)
        assert not findings.errors
        photo, ids = dataset.load(next(s for s in dataset.samples if s.photo.suffix == ".tif"))
        assert photo.shape[:2] == ids.shape == (32, 20)

    def test_an_orientation_that_makes_no_sense_is_none(self, folder):
        Image.fromarray(draw_pair(0)[0]).save(folder / "train" / "images" / "0.jpg", exif=bytes(self.tag(9)))
        _, findings = check(folder)
        assert not findings.errors and not has(findings.warnings, "EXIF")

    def tag(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        return exif.tobytes()

    def test_different_shapes_are_told(self, folder):
        for i in range(4):
            for kind, suffix in (("images", "jpg"), ("masks", "png")):
                path = folder / "train" / kind / f"{i}.{suffix}"
                Image.open(path).crop((0, 0, 32, 16)).save(path)
        assert has(check(folder)[1].warnings, "photos of 2 sizes and 2 shapes")


class TestLabels:
    def test_r07_a_number_that_is_no_class_is_named_with_file_and_count(self, folder):
        mask = draw_numbers(100)
        mask[0, :5] = 77
        Image.fromarray(mask).save(folder / "val" / "masks" / "0.png")
        _, findings = check(folder)
        assert has(findings.errors, "numbers that are no class in 1 mask: ", "val/masks/0.png: 77 at 5 pixels")
        dataset, findings = check(folder, skip_bad=True)
        assert not findings.errors and has(findings.warnings, "77 at 5 pixels; these pixels are ignored")
        assert (dataset.load(dataset.splits["val"][0])[1][0, :5] == 255).all()

    def test_r07_a_stray_number_in_training_is_no_class_either(self, tmp_path):
        make_folder(tmp_path, 12, size=64)
        mask = draw_numbers(3, 64)
        mask[0, 0] = 77
        Image.fromarray(mask).save(tmp_path / "masks" / "3.png")
        dataset, findings = check(tmp_path)
        assert dataset.palette.num_classes == 4
        assert has(findings.errors, "masks/3.png: 77 at 1 pixels")

    def test_r07_a_colour_that_is_no_class(self, tmp_path):
        make_pairs(tmp_path, train=4, val=2)
        photo, mask = draw_pair(1)
        mask = mask.copy()
        mask[:2, :3] = (0, 255, 255)
        Image.fromarray(np.concatenate([photo, mask], axis=1)).save(tmp_path / "val" / "1.png")
        assert has(check(tmp_path)[1].errors, "val/1.png: (0, 255, 255) at 6 pixels")

    def test_r07_255_is_ignore(self, folder):
        _, findings = check(folder)
        assert not findings.errors and 0 < findings.ignored_shares("train")[0] < 0.2

    def test_r07_an_area_in_a_colour_of_no_class_is_in_doubt_also_in_blended_masks(self, tmp_path):
        for i in range(6):
            photo, mask = draw_scene(i, size=128)
            mask = mask.copy()
            mask[40:80, 40:80] = (0, 255, 0)
            (tmp_path / "train").mkdir(exist_ok=True)
            pair = np.concatenate([photo, mask if i == 5 else draw_scene(i, size=128)[1]], axis=1)
            Image.fromarray(pair).save(tmp_path / "train" / f"{i}.jpg", quality=95)
        dataset = open_dataset(tmp_path)
        sample = next(sample for sample in dataset.samples if sample.photo.stem == "5")
        assert dataset.palette.blended and (dataset.load(sample)[1][45:75, 45:75] == 255).mean() > 0.95

    def test_r25_sixteen_bit_numbers_do_not_wrap(self, folder):
        for split, count, first in (("train", 8, 0), ("val", 4, 100)):
            for i in range(count):
                numbers = draw_numbers(first + i).astype(np.uint16)
                Image.fromarray(np.where(numbers == 1, 300, numbers)).save(folder / split / "masks" / f"{i}.png")
        dataset, findings = check(folder)
        assert not findings.errors
        assert dataset.palette.names == ("class_0", "class_2", "class_3", "class_255", "class_300")
        ids = dataset.load(dataset.splits["train"][0])[1]
        np.testing.assert_array_equal(ids == 4, draw_numbers(0) == 1)

    def test_r26_masks_of_one_class_and_empty_ones_are_counted(self, folder):
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(folder / "train" / "masks" / "0.png")
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "train" / "masks" / "1.png")
        _, findings = check(folder)
        assert not findings.errors
        assert has(findings.warnings, "without any class: 1 mask of train", "train/masks/0.png")

    def test_classes_missing_from_a_split_are_named(self, folder):
        for i in range(4):
            mask = draw_numbers(100 + i)
            Image.fromarray(np.where(mask == 3, 0, mask)).save(folder / "val" / "masks" / f"{i}.png")
        assert has(check(folder)[1].warnings, "not in the val masks, so not scored there: class_3")

    def test_classes_only_in_val_are_named(self, folder):
        for i in range(8):
            mask = draw_numbers(i)
            Image.fromarray(np.where(mask == 3, 0, mask)).save(folder / "train" / "masks" / f"{i}.png")
        dataset, findings = check(folder)
        assert dataset.palette.num_classes == 4
        assert has(findings.warnings, "in the val masks but not in training, so never learnt: class_3")
        assert not has(dataset.notes, "class_3")  # once is enough

    def test_masks_of_other_colours_in_val_are_refused(self, tmp_path):
        make_pairs(tmp_path, train=6, val=2)
        for number in (1, 2):
            photo, mask = draw_pair(number)
            strange = np.concatenate([photo, 255 - mask // 3], axis=1)
            Image.fromarray(strange).save(tmp_path / "val" / f"{number}.png")
        _, findings = check(tmp_path)
        assert has(findings.errors, "100% of the pixels in the val masks", "none of the 19 classes (cityscapes)")

    def test_many_unknown_colours_in_training_masks_are_refused(self, tmp_path):
        make_pairs(tmp_path, train=8, val=1)
        photo, mask = draw_pair(0)
        mask = np.random.default_rng(0).integers(0, 256, mask.shape, dtype=np.uint8)
        for number in (2, 3, 4):
            Image.fromarray(np.concatenate([photo, mask], axis=1)).save(tmp_path / "train" / f"{number}.png")
        assert has(check(tmp_path)[1].errors, "are these masks? If they are, `num_classes`")

    def test_photos_in_place_of_masks_are_refused(self, tmp_path):
        for number in range(12):
            photo, mask = draw_scene(number)
            path = tmp_path / ("train" if number < 10 else "val") / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.concatenate([mask, photo], axis=1)).save(path)  # the halves swapped
        with pytest.raises(DataError, match=r"only \d+% of their pixels .* as in photos; are these the masks"):
            open_dataset(tmp_path)

    def test_a_split_without_any_labelled_pixel_is_refused(self, folder):
        for path in (folder / "val" / "masks").iterdir():
            Image.fromarray(np.full((32, 32), 255, np.uint8)).save(path)
        assert has(check(folder)[1].errors, "no pixel of the val masks belongs to a class")


class TestPixelsWithoutAClass:
    """Ten photos of 20x20, and masks of which some leave pixels open, or claim them twice."""

    @staticmethod
    def save(path, pixels):
        Image.fromarray(pixels).save(path)
        return path

    def photo(self, folder, i):
        return self.save(folder / f"{i}.png", np.random.default_rng(i).integers(0, 256, (20, 20, 3), np.uint8))

    def found(self, folder, samples, palette):
        dataset = Dataset(folder, {"train": samples[:8], "val": samples[8:]}, palette)
        return check_dataset(dataset, image_size=(16, 16))

    def of_two_files(self, folder, i, rows):
        """A mask of a file for `lens`, the upper rows, and one for `retina`, these rows."""
        lens, retina = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
        lens[:10], retina[rows] = 255, 255
        parts = self.save(folder / f"{i}_lens.png", lens), self.save(folder / f"{i}_retina.png", retina)
        return Sample(self.photo(folder, i), parts[0], parts, part_numbers=(1, 2))

    def test_that_two_files_claim_are_counted_by_class_and_photo(self, tmp_path):
        palette = palette_of_values({0, 1, 2}, {}, None)
        palette = rename_classes(palette, ("background", "lens", "retina"))
        samples = [self.of_two_files(tmp_path, i, slice(8 if i == 3 else 10, 15)) for i in range(10)]
        findings = self.found(tmp_path, samples, palette)
        assert [line for line in findings.warnings if "claim" in line] == [
            "pixels that files of different classes claim (lens, retina) are ignored, in the masks of 1 photo: "
            f"{tmp_path / '3.png'}: lens at 40, retina at 40"
        ]

    @pytest.mark.parametrize("transparent_class", [255, 0])
    def test_that_masks_leave_transparent_are_counted_unless_they_have_a_class(self, tmp_path, transparent_class):
        samples = []
        for i in range(10):
            mask = np.full((20, 20, 4), 255, np.uint8)
            mask[:10, :, :3] = 0
            if i in (2, 9):
                mask[:4, :, 3] = 0
            samples.append(Sample(self.photo(tmp_path, i), self.save(tmp_path / f"{i}_mask.png", mask)))
        palette = Palette.from_colors(("sky", "ground"), ((0, 0, 0), (255, 255, 255)), transparent=transparent_class)
        warnings = self.found(tmp_path, samples, palette).warnings
        expected = (
            "left transparent or without data, so ignored: 4.00% of the pixels, in 2 masks: "
            f"{tmp_path / '2_mask.png'}: 80 pixels; {tmp_path / '9_mask.png'}: 80 pixels"
        )
        assert (expected in warnings) == (transparent_class == 255)
        assert any("transparent" in line for line in warnings) == (transparent_class == 255)


class TestSwappedClasses:
    """Photos of a bright disc on a dark ground, and masks of black and white of which some are inverted."""

    def found(self, folder, inverted, *, bright=range(20), covered=()):
        make = partial(np.full, (48, 48, 3))
        samples = []
        for i in range(20):
            disc = np.hypot(*np.mgrid[-24:24, -24:24]) < (60 if i in covered else 10 + i % 5)
            disc[20:28, 20:28] &= i not in covered
            levels = (60, 160) if i in bright else (160, 60)
            noise = np.random.default_rng(i).integers(0, 30, (48, 48, 3))
            photo = np.where(disc[..., None], make(levels[1]), make(levels[0])) + noise
            mask = 255 * (disc ^ (i in inverted)).astype(np.uint8)
            Image.fromarray(photo.astype(np.uint8)).save(folder / f"{i}.png")
            Image.fromarray(mask).save(folder / f"{i}_mask.png")
            samples.append(Sample(folder / f"{i}.png", folder / f"{i}_mask.png"))
        palette = palette_of_values({0, 255}, {}, None)
        findings = check_dataset(Dataset(folder, {"train": samples[:16], "val": samples[16:]}, palette))
        return [line for line in findings.warnings if "swapped" in line]

    def test_are_named_and_counted(self, tmp_path):
        (line,) = self.found(tmp_path, range(0, 20, 3))
        assert line.startswith(
            "the two classes seem swapped in 7 of 20 masks, where foreground looks like background in"
        )
        assert f"{tmp_path / '0_mask.png'}; {tmp_path / '3_mask.png'}" in line and "and 4 more" in line

    def test_one_sign_alone_is_no_proof(self, tmp_path):
        assert not self.found(tmp_path, ())
        assert not self.found(tmp_path, (), bright=range(10))  # dark discs, too
        assert not self.found(tmp_path, (), covered=range(8))  # what reaches the rim

    def test_a_few_may_be_anything(self, tmp_path):
        assert not self.found(tmp_path, range(4))


class TestLeaks:
    @pytest.mark.parametrize("how", ["copied", "jpeg", "halved"])
    def test_r04_a_photo_in_two_splits_is_named_and_refused_unless_allowed(self, tmp_path, how):
        for split, seeds in (("train", range(6)), ("val", range(10, 13))):
            (tmp_path / split / "images").mkdir(parents=True), (tmp_path / split / "masks").mkdir()
            for i in seeds:
                photo, mask = draw_scene(i, size=128)
                Image.fromarray(photo).save(tmp_path / split / "images" / f"{i}.png")
                Image.fromarray(mask).save(tmp_path / split / "masks" / f"{i}.png")
        photo, mask = (Image.open(tmp_path / "train" / kind / "2.png") for kind in ("images", "masks"))
        if how == "halved":
            photo, mask = photo.resize((64, 64)), mask.resize((64, 64), Image.Resampling.NEAREST)
        photo.save(tmp_path / "val" / "images" / f"again.{'jpg' if how == 'jpeg' else 'png'}", quality=60)
        mask.save(tmp_path / "val" / "masks" / "again.png")
        _, findings = check(tmp_path)
        (error,) = findings.errors
        assert error.startswith("1 photo of the val split, also in the train split")
        assert "train/images/2.png = " in error and "val/images/again" in error and "`allow_leaks`" in error
        _, findings = check(tmp_path, allow_leaks=True)
        assert not findings.errors and has(findings.warnings, "1 photo of the val split")

    def test_a_mirrored_copy_in_another_split_is_told(self, tmp_path):
        for split, seeds in (("train", range(6)), ("val", range(10, 13))):
            make_folder(tmp_path / split, 0)
            for i in seeds:
                photo, mask = draw_scene(i, size=128)
                Image.fromarray(photo).save(tmp_path / split / "images" / f"{i}.png")
                Image.fromarray(mask).save(tmp_path / split / "masks" / f"{i}.png")
        for kind in ("images", "masks"):
            turned = Image.open(tmp_path / "train" / kind / "2.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            turned.save(tmp_path / "val" / kind / "9.png")
        _, findings = check(tmp_path)
        assert not findings.errors
        assert has(
            findings.warnings, "1 photo of the val split", "train/images/2.png = ", "val/images/9.png", "mirrored"
        )

    def test_copies_stay_on_one_side_of_a_drawn_split(self, tmp_path):
        make_folder(tmp_path, 10)
        for i in range(10):
            for kind, suffix in (("images", "jpg"), ("masks", "png")):
                shutil.copy(tmp_path / kind / f"{i}.{suffix}", tmp_path / kind / f"copy_{i}.{suffix}")
        found = 0
        for seed in range(4):
            dataset, findings = check(tmp_path, seed=seed)
            sides = [{s.photo.stem.removeprefix("copy_") for s in samples} for samples in dataset.splits.values()]
            if not findings.errors:
                assert not sides[0] & sides[1] or not has(findings.warnings, "moved to training")
                found += has(findings.warnings, "moved to training, because they are copies")
        assert found

    def test_an_empty_photo_is_no_copy_of_another_scene(self, folder):
        Image.new("RGB", (32, 32)).save(folder / "train" / "images" / "0.jpg")
        assert not check(folder)[1].errors


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Drawn street scenes in a plain folder, which no test changes."""
    root = tmp_path_factory.mktemp("scenes")
    for split, seeds in (("train", range(24)), ("val", range(100, 112))):
        (root / split / "images").mkdir(parents=True), (root / split / "masks").mkdir()
        for i in seeds:
            photo, mask = draw_scene(i, size=128)
            Image.fromarray(photo).save(root / split / "images" / f"{i}.jpg", quality=95)
            Image.fromarray(mask).save(root / split / "masks" / f"{i}.png")
    return root


class TestMasksOffTheirPhotos:
    def test_none_is_suspected_where_nothing_is_wrong(self, scenes):
        assert not has(check(scenes)[1].warnings, "photo")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda mask: mask[::-1], "turned (upside down)"),
            (lambda mask: mask[:, ::-1], "turned (left-right)"),
            (lambda mask: np.roll(mask, 13, axis=1), "shifted (10% too far right)"),
        ],
    )
    def test_all_masks_of_a_split_turned_or_shifted(self, scenes, tmp_path, change, words):
        shutil.copytree(scenes, tmp_path / "set")
        for path in (tmp_path / "set" / "train" / "masks").iterdir():
            Image.fromarray(np.ascontiguousarray(change(np.asarray(Image.open(path))))).save(path)
        assert has(check(tmp_path / "set")[1].warnings, f"most masks of train seem {words}")

    def test_one_mask_upside_down_is_named(self, scenes, tmp_path):
        shutil.copytree(scenes, tmp_path / "set")
        path = tmp_path / "set" / "train" / "masks" / "7.png"
        Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)
        assert has(check(tmp_path / "set")[1].warnings, "train/masks/7.png (turned (upside down))")


class TestSmallSets:
    """R51."""

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(DataError, match="holds no photos with masks"):
            open_dataset(tmp_path)

    def test_one_sample_only(self, tmp_path):
        with pytest.raises(DataError, match="holds one pair only"):
            open_dataset(make_folder(tmp_path, 1))

    def test_an_empty_validation_split_is_drawn_and_said(self, folder):
        shutil.rmtree(folder / "val")
        (folder / "val" / "images").mkdir(parents=True), (folder / "val" / "masks").mkdir()
        dataset, findings = check(folder)
        assert [len(dataset.splits[name]) for name in ("train", "val")] == [6, 2] and not findings.errors
        assert any("no val/ in" in note for note in dataset.notes)

    def test_two_samples_and_a_batch_larger_than_the_data_train(self, tmp_path):
        make_folder(tmp_path / "data", 2)
        arguments = ["--epochs", "1", "--image-size", "32", "--filters", "4", "--batch-size", "16", "--cache", "none"]
        assert main(["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *arguments]) == 0


class TestCachedChecks:
    """R36: what was seen of a file counts while its bytes are the same, and no longer."""

    def looks(self, root, folder, monkeypatch):
        dataset = open_dataset(root)
        seen, inspect = [], dataset.inspect
        monkeypatch.setattr(dataset, "inspect", lambda sample, *rest: seen.append(sample) or inspect(sample, *rest))
        cache = Cache(dataset.samples, (32, 32), json.dumps(dataset.palette.to_dict()), folder)
        return seen, check_dataset(dataset, cache=cache, image_size=(32, 32))

    def test_a_second_check_decodes_nothing_and_finds_the_same(self, folder, tmp_path, monkeypatch):
        seen, first = self.looks(folder, tmp_path / "cache", monkeypatch)
        again, second = self.looks(folder, tmp_path / "cache", monkeypatch)
        assert len(seen) == 12 and not again
        assert to_json(open_dataset(folder), first) == to_json(open_dataset(folder), second)

    def test_a_file_that_changed_in_secret_is_looked_at_again(self, folder, tmp_path, monkeypatch):
        self.looks(folder, tmp_path / "cache", monkeypatch)
        path = folder / "train" / "masks" / "0.png"
        before, size = path.stat(), path.stat().st_size
        ids = draw_numbers(0)
        Image.fromarray(np.where(ids == 3, 0, ids)).save(path)
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen, findings = self.looks(folder, tmp_path / "cache", monkeypatch)
        assert [sample.mask for sample in seen] == [path]
        assert dict(findings.all)[seen[0]].counts[3] == 0

    @pytest.mark.parametrize("damage", ["", "{", '{"meaning": 1}', '{"meaning": "x", "records": {}}', "null"])
    def test_damaged_records_are_made_again(self, folder, tmp_path, monkeypatch, damage):
        self.looks(folder, tmp_path / "cache", monkeypatch)
        (records,) = (tmp_path / "cache").glob("*.semsegrecords")
        records.write_text(damage)
        seen, findings = self.looks(folder, tmp_path / "cache", monkeypatch)
        assert len(seen) == 12 and not findings.errors

    @pytest.mark.parametrize(
        ("before", "after"), [('"unknown": 0', '"unknown": null'), ('"size": [32,', '"size": [33,')]
    )
    def test_records_with_another_value_are_made_again(self, folder, tmp_path, monkeypatch, before, after):
        self.looks(folder, tmp_path / "cache", monkeypatch)
        (records,) = (tmp_path / "cache").glob("*.semsegrecords")
        text = records.read_text()
        assert before in text
        records.write_text(text.replace(before, after, 1))
        seen, findings = self.looks(folder, tmp_path / "cache", monkeypatch)
        assert len(seen) == 12 and not findings.errors


def parity(number):
    """What a worker of the tests does: dies at 3, prints at 4, and says where it works."""
    if number == 3:
        os._exit(5)
    if number == 4:
        os.write(1, b"a library that prints")
    return number % 2, os.getpid()


class TestWorkers:
    @pytest.fixture()
    def make(self):
        made = []
        yield lambda task, count: made.append(Workers(task, count)) or made[-1]
        for workers in made:
            workers.close()

    def test_work_in_processes_of_their_own(self, make):
        workers = make(operator.methodcaller("upper"), 2)
        assert [workers.run(text) for text in ("a", "b", "c")] == ["A", "B", "C"]
        assert len(workers._started) == 2
        parities = make(parity, 1)
        assert parities.run(5) == (1, parities._started[0].pid)

    def test_without_processes_the_task_is_done_here(self, make):
        assert make(parity, 0).run(5) == (1, os.getpid())

    def test_what_cannot_be_sent_is_done_here(self, make):
        assert make(lambda number: number + 1, 2).run(1) == 2

    def test_no_room_for_processes(self, make, monkeypatch):
        def fail(*_, **__):
            raise OSError("Resource temporarily unavailable")

        monkeypatch.setattr("subprocess.Popen", fail)
        assert make(parity, 1).run(5) == (1, os.getpid())

    def test_one_that_dies_says_how_and_the_next_call_starts_another(self, make):
        workers = make(parity, 1)
        with pytest.raises(ChildProcessError, match="exit code 5"):
            workers.run(3)
        assert workers.run(4)[0] == 0
        workers._started[-1].kill()
        with pytest.raises(ChildProcessError, match="SIGKILL"):
            workers.run(1)

    def test_what_the_task_raises_is_raised_here(self, make):
        for count in (0, 1):
            with pytest.raises(ValueError, match="invalid literal"):
                make(int, count).run("x")

    def test_closed_ones_are_gone_and_start_no_more(self, make):
        workers = make(parity, 1)
        workers.run(1)
        workers.close()
        assert workers._started[0].returncode is not None
        with pytest.raises(ChildProcessError):
            workers.run(2)

    def test_load_no_backend(self):
        code = "import sys, semseg.data.records; print({'torch', 'keras', 'tensorflow', 'jax'} & sys.modules.keys())"
        assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True) == "set()\n"


def die_at_one_file(dataset, *rest):
    """What a process does whose decoder crashes at one file."""
    sample, _ = rest[-1]
    if sample.photo.stem == "5":
        os.kill(os.getpid(), 11)
    return records._look(dataset, *rest)


class TestProcesses:
    @pytest.fixture()
    def started(self, monkeypatch):
        """Lets few samples be enough for processes, and keeps those that are started."""
        made = []
        monkeypatch.setattr(records, "_MIN_SAMPLES_OF_PROCESS", 1)
        monkeypatch.setattr(records, "Workers", lambda *given: made.append(Workers(*given)) or made[-1])
        return lambda: [process for workers in made for process in workers._started]

    def test_find_what_threads_find(self, folder, tmp_path, started):
        (folder / "val" / "masks" / "2.png").write_text("no picture")
        pages = []
        for workers in (1, 2):
            dataset = open_dataset(folder)
            cache = Cache(dataset.samples, (16, 16), "", tmp_path / f"cache{workers}")
            findings = check_dataset(dataset, cache=cache, image_size=(16, 16), workers=workers, skip_bad=True)
            stored = [cache.find(sample) for sample in dataset.samples]
            pages.append((to_json(dataset, findings), [record for _, record in findings.all], str(stored)))
            assert len(stored) == 11 and None not in stored
        assert pages[0] == pages[1] and len(started()) == 2

    def test_are_not_started_for_what_is_known(self, folder, tmp_path, started):
        for count in (2, 2):
            dataset = open_dataset(folder)
            check_dataset(dataset, cache=Cache(dataset.samples, (16, 16), "", tmp_path / "cache"), image_size=(16, 16))
            assert len(started()) == count

    def test_a_file_that_kills_them_is_named(self, folder, monkeypatch, started):
        monkeypatch.setattr(records, "partial", lambda function, *given: partial(
            die_at_one_file if function is records._look else function, *given))  # fmt: skip
        _, findings = check(folder)
        (error,) = findings.errors
        assert "train/images/5.jpg: ends the process that reads it (SIGSEGV); replace or leave it out" in error
        assert all(process.returncode is not None for process in started())

    def test_end_when_nobody_asks_any_more(self, folder, started):
        looks = records.look_at_all(open_dataset(folder), Cache((), (16, 16), "", None), (16, 16), 2)
        next(looks)
        looks.close()
        assert started() and all(process.returncode is not None for process in started())


class TestThinClasses:
    def lines(self, root, width, size=64, count=3):
        """Masks with one line from top to bottom, so wide and at other places."""
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        for i in range(count):
            ids = np.zeros((size, size), np.uint8)
            ids[:, 5 + 8 * i : 5 + 8 * i + width] = 1
            noise = np.random.default_rng(i).integers(0, 99, (size, size, 1), np.uint8)
            Image.fromarray(np.repeat(noise + 99 * ids[..., None], 3, axis=2)).save(root / "images" / f"{i}.png")
            Image.fromarray(255 * ids).save(root / "masks" / f"{i}.png")
        return root

    def test_widths_of_strips_and_discs(self):
        y, x = np.mgrid[:200, :200]
        for ids, width in (
            (abs(x - 100) < 3, 5),
            (abs(x - y) < 5, 9 / 2**0.5),
            (abs(x - y / 2) < 3, 5.5 / 1.25**0.5),
            ((x - 100) ** 2 + (y - 100) ** 2 < 60**2, 60),
        ):
            measured = measure_thinness(ids.astype(np.uint8), 3, (200, 200))["widths"]
            assert measured[1] == pytest.approx(width, rel=0.08) and measured[2] == 0

    def test_pieces_are_counted_before_and_after(self):
        ids = np.zeros((12, 12), np.uint8)
        ids[np.arange(12), np.arange(12)] = 1  # one diagonal line
        ids[0, 6:9] = ids[11, 2:5] = 2  # two short ones
        thinness = measure_thinness(ids, 4, (4, 4))
        assert thinness["pieces"] == [1, 1, 2, 0]
        assert thinness["seen_pieces"][1] == 1 and thinness["seen_pieces"][2] == 0  # rows 1, 4, 7 and 10 are left

    def test_a_torn_class_is_named_with_the_size_that_keeps_it(self, tmp_path):
        root = self.lines(tmp_path / "data", 2, size=200)
        _, findings = check(root, image_size=(64, 64))
        (warning,) = findings.warnings
        assert "too thin for 64x64 pixels, torn or lost there: foreground (2.1 pixels wide" in warning
        assert "0.68 there; 3 pieces become 1;" in warning and "`image_size` 192 keeps it)" in warning
        assert not check(root, image_size=(192, 192))[1].warnings

    def test_the_command_names_the_flag(self, tmp_path, capsys):
        root = str(self.lines(tmp_path / "data", 2, size=200))
        assert (
            commands(["check", root, "--cache", "none", "--output", str(tmp_path / "out"), "--image-size", "64"]) == 0
        )
        assert "--image-size 192 keeps it)" in " ".join(capsys.readouterr().out.split())

    def test_where_no_smaller_size_keeps_it_the_photos_own_is_named(self, tmp_path):
        _, findings = check(self.lines(tmp_path / "data", 1), image_size=(32, 32))
        assert has(findings.warnings, "foreground (1.1 pixels wide", "only the photos' own 64x64 keep it")

    def test_what_stays_wide_or_is_enlarged_is_not_named(self, tmp_path):
        assert not check(self.lines(tmp_path / "wide", 6), image_size=(32, 32))[1].warnings
        assert not check(self.lines(tmp_path / "own", 1), image_size=(64, 64))[1].warnings

    def test_outlines_in_place_of_areas_are_told(self, tmp_path):
        for i in range(6):
            mask = np.zeros((64, 64), np.uint8)
            for j, center in enumerate([(16, 16), (46, 18), (30, 46)]):
                cv2.circle(mask, center, 7 + (i + j) % 4, 1, 2)
            filled = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((23, 23), np.uint8))
            grid = np.zeros((64, 64), np.uint8)
            grid[8 + i :: 20], grid[:, 8::20] = 1, 1  # a net encloses, too, but is one piece
            for name, drawn in (("lines", mask), ("areas", filled), ("net", grid)):
                for kind, picture in (("images", draw_pair(i, 64)[0]), ("masks", 255 * drawn)):
                    (tmp_path / name / kind).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(tmp_path / name / kind / f"{i}.png")
        (warning,) = [text for text in check(tmp_path / "lines")[1].warnings if "drawn round things" in text]
        assert "foreground (18 of 18 pieces are closed lines, 3.1 pixels wide)" in warning
        assert not any(has(check(tmp_path / name)[1].warnings, "drawn round") for name in ("areas", "net"))

    def test_the_figures_are_json(self, tmp_path):
        dataset, findings = check(self.lines(tmp_path / "data", 1), image_size=(32, 32))
        widths = json.loads(json.dumps(to_json(dataset, findings)))["widths"]
        assert widths["foreground"]["is_torn"] and not widths["background"]["is_torn"]
        assert widths["foreground"]["seen_width"] == pytest.approx(widths["foreground"]["width"] / 2, abs=0.01)


class TestTheCommand:
    @pytest.fixture()
    def run(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)

        def run(*arguments):
            code = commands(["check", *map(str, arguments), "--cache", "none"])
            printed = capsys.readouterr()
            return code, printed.out, printed.err

        return run

    def test_says_task_classes_and_split_and_writes_the_page(self, run, folder, tmp_path):
        code, text, errors = run(folder, "--output", "out")
        assert code == 0 and errors == ""
        for part in ("8 train, 4 val photos of 32x32", "4, multiclass", "can be trained on"):
            assert part in text
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"data.png", "data.json", "classes.json"}
        assert np.asarray(Image.open(tmp_path / "out" / "data.png")).std() > 20
        assert json.loads((tmp_path / "out" / "data.json").read_text())["errors"] == []

    def test_lists_every_kind_of_problem_and_ends_with_3(self, run, folder, tmp_path):
        (folder / "train" / "images" / "0.jpg").write_text("x")
        shutil.copy(folder / "train" / "images" / "1.jpg", folder / "val" / "images" / "0.jpg")
        mask = draw_numbers(5)
        mask[0, 0] = 9
        Image.fromarray(mask).save(folder / "val" / "masks" / "1.png")
        code, text, errors = run(folder)
        assert code == 3 and errors.endswith("3 problems, listed above; mend before training\n")
        assert "problem 1" in text and "problem 3" in text
        assert len(json.loads((tmp_path / "outputs" / "check" / "data.json").read_text())["errors"]) == 3

    def test_its_classes_file_can_be_edited_and_given_back(self, run, folder, tmp_path):
        assert run(folder)[0] == 0
        values = json.loads((tmp_path / "outputs" / "check" / "classes.json").read_text())
        values["classes"][1]["name"] = "house"
        values["ignored"].append(values["classes"].pop())
        (tmp_path / "mine.json").write_text(json.dumps(values))
        code, text, _ = run(folder, "--classes", "mine.json", "--output", "two")
        assert code == 0 and "3, multiclass, as the file says" in text and "house" in text
        written = json.loads((tmp_path / "two" / "classes.json").read_text())
        assert sum(entry["share"] for entry in written["classes"]) == pytest.approx(1, abs=1e-4)

    @pytest.mark.parametrize(("text", "what"), [(None, "expected a number, or a classes.json"), ("{", "cannot be read"),
                                                ("{}", "cannot be understood")])  # fmt: skip
    def test_a_wrong_classes_file(self, run, folder, tmp_path, text, what):
        if text is not None:
            (tmp_path / "mine.json").write_text(text)
        code, _, errors = run(folder, "--classes", "mine.json")
        assert code == 2 and what in errors and "mine.json" in errors

    def test_categories_of_masks_that_are_not_cityscapes(self, run, folder):
        code, _, errors = run(folder, "--categories")
        assert code == 2 and "categories" in errors and "is for Cityscapes' labels" in errors

    def test_draws_nothing_again_until_something_changes(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        out = tmp_path / "outputs" / "check"
        make_folder(tmp_path / "data" / "train", 8)
        make_folder(tmp_path / "data" / "val", 4, first=100)

        def check():
            assert commands(["check", "data", "--cache", "cache"]) == 0
            return capsys.readouterr().out, (out / "data.png").stat().st_mtime_ns

        (first, drawn), (second, unchanged) = check(), check()
        assert "wrote  " in first and "unchanged in" in second and unchanged == drawn
        assert "8 train, 4 val" in second and not (out / "archive").exists()
        photo = tmp_path / "data" / "train" / "images" / "0.jpg"
        Image.open(photo).rotate(90).save(photo, quality=95)
        third, anew = check()
        assert "wrote  " in third and anew != drawn and len(list((out / "archive").iterdir())) == 1

    def test_an_archive_is_read_as_it_is(self, folder, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        shutil.make_archive(str(tmp_path / "data"), "zip", folder)
        assert commands(["check", "data.zip", "--cache", "cache"]) == 0
        assert "8 train, 4 val" in capsys.readouterr().out


def test_r52_an_exception_in_loading_names_the_file(folder, monkeypatch):
    dataset = open_dataset(folder)
    monkeypatch.setattr("semseg.data.records.fingerprint", lambda photo: 1 / 0)
    findings = check_dataset(dataset)
    assert has(findings.errors, "12 of 12 files", "train/images/0.jpg", "division by zero")


@pytest.mark.parametrize("name", ["cityscapes_pairs", "carvana", "camvid", "nuclei"])
def test_no_false_alarm_on_the_real_sets(real_data, name):
    _, findings = check(real_data / name, limit=120)
    assert not findings.errors
    torn = {"camvid": "pole", "cityscapes_pairs": "pole"}
    for warning in findings.warnings:
        is_thin = warning.startswith(f"too thin for 128x128 pixels, torn or lost there: {torn.get(name)} (")
        assert is_thin or warning.startswith("not in the val masks") or "never learnt" in warning, warning


def test_a_training_run_refuses_what_the_check_refuses(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "train" / "images" / "1.jpg", folder / "val" / "images" / "0.jpg")
    assert main(["--data", str(folder), "--cache", "none"]) == 3
    assert "1 photo of the val split, also in the train split" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()
