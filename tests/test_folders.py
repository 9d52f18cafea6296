"""Folders as people have them: each layout with the pairs, splits and classes that a person would see in it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from semseg.data import open_dataset
from semseg.data.finding.contents import list_contents
from semseg.data.finding.names import best_stripping, place_of, role_of, split_of
from semseg.errors import DataError, SemsegError

pytestmark = pytest.mark.plain

SIZE = 48
BINARY = np.array([0, 255, 255], np.uint8)
COLORS = np.array([(0, 0, 0), (200, 30, 30), (30, 30, 200)], np.uint8)


def draw(seed):
    """A noisy photo, uint8 RGB, and the ids of what it shows: 1 a disc, 2 a bar, which is not always there."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((SIZE, SIZE), np.uint8)
    cv2.circle(ids, rng.integers(8, 20, 2).tolist(), int(rng.integers(5, 8)), 1, -1)
    x, y = rng.integers(26, 36, 2).tolist()
    if seed % 3:
        cv2.rectangle(ids, (x, y), (x + 9, y + 4), 2, -1)
    photo = (
        0.6 * COLORS[ids]
        + cv2.resize(rng.uniform(20, 110, (4, 4, 3)), (SIZE, SIZE))
        + rng.normal(0, 8, (SIZE, SIZE, 3))
    )
    return photo.clip(0, 255).astype(np.uint8), ids


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_pairs(root, photo, mask, numbers=range(1, 11), form=lambda ids: ids):
    """Photos and masks under names with {} for the number."""
    for number in numbers:
        picture, ids = draw(number)
        write(root / photo.format(number), picture)
        write(root / mask.format(number), form(ids))


def pairs_of(dataset):
    """The names of photo and mask of each sample."""
    return {(sample.photo.name, sample.mask.name) for sample in dataset.samples}


def check_ids(dataset, number_of, expected=lambda ids: ids):
    """Every photo has the ids that were drawn for it."""
    for sample in dataset.samples:
        _, ids = dataset.load(sample)
        np.testing.assert_array_equal(ids, expected(draw(number_of(sample.photo))[1]), err_msg=str(sample.photo))


def number_in(path):
    return int("".join(letter for letter in path.stem if letter.isdigit()))


# layouts that give ten pairs of numbers 1 to 10: where photos and masks lie, {} for the number
LAYOUTS = {
    "one folder, an ending on either side": ("{}_sat.png", "{}_mask.png"),
    "one folder, an ending on one side": ("scans/{}.png", "scans/{}_segmentation.png"),
    "one folder, beginnings": ("image_{:03d}.png", "mask_{:03d}.png"),
    "one folder, beginnings without a separator": ("img{}.png", "lab{}.png"),
    "one folder, suffixes": ("train/{}.bmp", "train/{}.png"),
    "two folders, beginnings": ("images/image_{:03d}.png", "masks/mask_{:03d}.png"),
    "two folders, an ending of numbers (nnU-Net)": ("imagesTr/case_{:03d}_0000.png", "labelsTr/case_{:03d}.png"),
    "two folders, both with endings": ("2_Ortho_RGB/top_2_{}_RGB.png", "5_Labels_all/top_2_{}_label.png"),
    "folders named by a task (ISIC)": ("T1_Training_Input/I_{:05d}.png", "T1_Training_GroundTruth/I_{:05d}_segm.png"),
    "folders that tell nothing": ("aaa/{}.png", "bbb/{}.png"),
    "one folder that tells nothing": ("images/p{}.png", "lesions/p{}_lesion.png"),
    "masks one folder deeper": ("images/{}.png", "annotations/trimaps/{}.png"),
    "both deeper, in different depths": ("set/v1/img/{}.png", "set/v1/masks/final/{}.png"),
    "beside and beyond": ("data/701/{:04d}.png", "data/701_labels/{:04d}_L.png"),
    "DRIVE's names": ("training/images/{}_training.png", "training/1st_manual/{}_manual1.gif"),
    "spaces and brackets": ("Tissue Images/slide ({}).png", "Binary Masks/slide ({}).png"),
    "numbers with and without zeros": ("images/img{}.png", "masks/img{:03d}.png"),
    "capitals": ("Images/A{}.PNG", "Masks/a{}.png"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_photos_find_their_masks(tmp_path, layout):
    write_pairs(tmp_path, *LAYOUTS[layout])
    dataset = open_dataset(tmp_path)
    assert len(dataset.samples) == 10 and not dataset.problems and dataset.drawn
    pattern = re.escape(LAYOUTS[layout][0].rpartition("/")[2]).replace(r"\{:03d\}", r"(\d+)")
    pattern = re.sub(r"\\\{.*?\\\}", r"(\\d+)", pattern)
    check_ids(dataset, lambda path: int(re.fullmatch(pattern, path.name)[1]))


class TestSeveralFoldersOfOneForm:
    def test_tiles_with_the_same_names_are_kept_apart(self, tmp_path):
        for tile in (1, 2, 3):
            write_pairs(
                tmp_path,
                f"Tile {tile}/images/part_{{}}.png",
                f"Tile {tile}/masks/part_{{}}.png",
                range(10 * tile, 10 * tile + 4),
            )
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 12
        check_ids(dataset, number_in)

    @pytest.mark.parametrize(
        "layout",
        ["{split}/{area}/images_png/{{}}.png {split}/{area}/masks_png/{{}}.png",
         "{area}/{split}_img/{{}}.png {area}/{split}_lab/{{}}_gt.png",
         "images/{split}/{area}/{{}}_rgb.png labels/{split}/{area}/{{}}_ids.png"],
    )  # fmt: skip
    def test_splits_and_areas_at_any_depth(self, tmp_path, layout):
        first = 1
        for split, count in (("Train", 4), ("Val", 3), ("Test", 2)):
            for area in ("Rural", "Urban"):
                photo, mask = layout.format(split=split, area=area).split()
                write_pairs(tmp_path, photo, mask, range(first, first + count))
                first += count
        dataset = open_dataset(tmp_path)
        assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 8, "val": 6, "test": 4}
        check_ids(dataset, number_in)

    @pytest.mark.parametrize("ending", ["_mask", "_seg"])
    def test_patients_stay_on_one_side(self, tmp_path, ending):
        for patient in range(6):
            folder = f"scans/TCGA_{1000 + patient}"
            write_pairs(
                tmp_path,
                f"{folder}/TCGA_{1000 + patient}_{{}}.png",
                f"{folder}/TCGA_{1000 + patient}_{{}}{ending}.png",
                range(1, 5),
            )
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 24
        train, val = ({sample.photo.parent.name for sample in dataset.splits[split]} for split in ("train", "val"))
        assert len(train) == 5 and len(val) == 1 and not train & val

    @pytest.mark.parametrize("name", ["scene{group}_frame{number}", "IMG_{group}_jpg.rf.{number:032x}"])
    def test_frames_of_a_scene_and_copies_of_a_photo_stay_on_one_side(self, tmp_path, name):
        for group in range(6):
            for number in (1, 2, 3):
                picture, ids = draw(10 * group + number)
                stem = name.format(group=group, number=number)
                write(tmp_path / "images" / f"{stem}.png", picture)
                write(tmp_path / "masks" / f"{stem}.png", ids)
        dataset = open_dataset(tmp_path)
        of = {sample: sample.photo.stem.replace("IMG_", "scene")[:6] for sample in dataset.samples}
        train, val = ({of[sample] for sample in dataset.splits[split]} for split in ("train", "val"))
        assert len(train) == 5 and len(val) == 1

    def test_photos_of_a_split_without_any_mask_are_left_out_and_counted(self, tmp_path):
        write_pairs(tmp_path, "train/images/{}.png", "train/masks/{}.png")
        for number in range(20, 24):
            write(tmp_path / "test" / "images" / f"{number}.png", draw(number)[0])
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 10 and not dataset.problems
        assert "left out: 4 photos of test, as they have no masks" in dataset.notes
        assert not [note for note in dataset.notes if note.startswith("pictures that were left out")]


class TestFoldersWithTheSameNames:
    @pytest.mark.parametrize(
        ("photo", "mask"),
        [("s{}/photo.png", "s{}/mask.png"), ("IMG_{}_json/img.png", "IMG_{}_json/label.png"),
         ("{}/1.png", "{}/2.png"), ("train/{}/x.png", "train/{}/y.png"), ("a/{}/im.png", "a/{}/gt.png"),
         ("{}/images/im.png", "{}/labels/lab.png")],
    )  # fmt: skip
    def test_the_folder_tells_the_picture(self, tmp_path, photo, mask):
        write_pairs(tmp_path, photo, mask)
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 10 and not dataset.problems
        check_ids(dataset, lambda path: int("".join(re.findall(r"\d", str(path.relative_to(tmp_path).parent)))))

    def test_rivals_are_settled_by_the_name_of_the_file(self, tmp_path):
        write_pairs(tmp_path, "s{}/photo.png", "s{}/mask.png")
        write_pairs(tmp_path, "s{}/photo.png", "s{}/mask2.png", form=lambda ids: np.roll(ids, 1, 0))
        with pytest.raises(
            DataError, match=r"both fit as the masks of photo\.png of each folder; say which by `masks`"
        ):
            open_dataset(tmp_path)
        dataset = open_dataset(tmp_path, masks="mask.png")
        check_ids(dataset, lambda path: int(path.parent.name[1:]))
        assert any("10 in 10 folders" in note for note in dataset.notes)

    def test_what_is_drawn_for_looking_is_left_out(self, tmp_path):
        write_pairs(tmp_path, "{}_json/img.png", "{}_json/label.png")
        write_pairs(tmp_path, "{}_json/img.png", "{}_json/label_viz.png", form=lambda ids: COLORS[ids])
        assert {sample.mask.name for sample in open_dataset(tmp_path).samples} == {"label.png"}

    @pytest.mark.parametrize("names", [(1, 2), (1, 2, 3)])
    def test_pairs_that_are_numbered_anew_in_each_folder_stay_pairs(self, tmp_path, names):
        for number in range(1, 19):
            photo, ids = draw(number)
            folder, name = divmod(number - 1, len(names))
            write(tmp_path / f"city{folder}" / f"{names[name]}.png", np.concatenate([photo, COLORS[ids]], axis=1))
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 18 and "side by side in each picture" in dataset.notes[0]

    def test_files_of_bands(self, tmp_path):
        for number in range(1, 11):
            photo, ids = draw(number)
            for band, name in enumerate(("red", "green", "nir")):
                write(tmp_path / f"tile_{number}" / f"{name}.tif", photo[..., band])
            write(tmp_path / f"tile_{number}" / "mask.tif", ids)
        dataset = open_dataset(tmp_path)
        assert dataset.bands.names == ("red", "green", "nir")
        check_ids(dataset, lambda path: int(path.parent.name[5:]))


def test_visits_of_a_patient_stay_together(tmp_path):
    for patient in range(12):
        for visit in range(2):
            write_pairs(tmp_path, f"p{patient}/v{visit}/{{}}.png", f"p{patient}/v{visit}/{{}}_mask.png", range(1, 3))
    dataset = open_dataset(tmp_path)
    sides = [{sample.photo.parent.parent.name for sample in samples} for samples in dataset.splits.values()]
    assert len(sides) == 2 and not sides[0] & sides[1]


class TestSeveralMasksOfAPhoto:
    @pytest.mark.parametrize(
        "layout",
        [("train/{0}/images/{0}.png", "train/{0}/masks/{1}f.png"), ("images/{0}.png", "masks/{0}/{1}.png"),
         ("us ({0}).png", "us ({0})_mask_{1}.png"), ("images/{0}.png", "masks/{0}_{1}.png")],
        ids=["a folder per photo", "a folder of masks per photo", "counted", "counted without a word"],
    )  # fmt: skip
    def test_masks_of_objects_are_united(self, tmp_path, layout):
        for number in range(1, 11):
            photo, ids = draw(number)
            write(tmp_path / layout[0].format(number), photo)
            for part in (1, 2):
                write(tmp_path / layout[1].format(number, part), 255 * (ids == part).astype(np.uint8))
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 10 and dataset.palette.names == ("background", "foreground")
        check_ids(dataset, number_in, lambda ids: ids > 0)
        assert "united" in dataset.notes[0]

    @pytest.mark.parametrize(
        "layout",
        ["masks/{1}/{0}.png", "masks/{0}_{1}.png", "Groundtruths/1. {1}/{0}_{2}.png"],
        ids=["a folder per class", "an ending per class", "folder and ending"],
    )
    def test_a_mask_per_class(self, tmp_path, layout):
        for number in range(1, 11):
            photo, ids = draw(number)
            write(tmp_path / "images" / f"{number}.png", photo)
            for class_id, name in ((1, "crack"), (2, "rust")):
                write(
                    tmp_path / layout.format(number, name, name[:2].upper()), 255 * (ids == class_id).astype(np.uint8)
                )
        dataset = open_dataset(tmp_path)
        assert dataset.palette.names == ("background", "crack", "rust")
        check_ids(dataset, number_in)

    def test_a_class_that_is_never_drawn_shifts_no_name(self, tmp_path):
        for number in range(1, 11):
            photo, ids = draw(number)
            write(tmp_path / f"c{number}" / "image.png", photo)
            for class_id, name in ((1, "a"), (9, "x"), (2, "b")):
                shown = ids == class_id
                write(tmp_path / f"c{number}" / f"mask_{name}.png", 255 * shown.astype(np.uint8))
        assert open_dataset(tmp_path).palette.names == ("background", "a", "b")

    def test_two_drawings_of_one_photo_are_not_united(self, tmp_path):
        write_pairs(tmp_path, "images/{}.png", "masks/{}_1.png", form=lambda ids: BINARY[ids])
        write_pairs(tmp_path, "images/{}.png", "masks/{}_2.png", form=lambda ids: np.roll(BINARY[ids], 1, 0))
        with pytest.raises(DataError, match=r"2 masks of one photo \(1_1\.png, 1_2\.png\) show nearly the same"):
            open_dataset(tmp_path)
        assert len(open_dataset(tmp_path, masks="*_1.png").samples) == 10


class TestRivals:
    @pytest.mark.parametrize(
        "masks",
        [("labels_a/{}.png", "labels_b/{}.png"), ("x/{}_1stHO.png", "x/{}_2ndHO.png")],
        ids=["folders", "endings"],
    )
    def test_two_that_fit_are_refused_by_name_and_settled_by_masks(self, tmp_path, masks):
        for pattern, shift in zip(masks, (0, 1), strict=True):
            write_pairs(tmp_path, "x/{}.png", pattern, form=lambda ids, shift=shift: np.roll(BINARY[ids], shift, 0))
        with pytest.raises(DataError, match="both fit as the masks of x/; say which by `masks`"):
            open_dataset(tmp_path)
        chosen = masks[0].format("*") if "x/" in masks[0] else "labels_a"
        check_ids(open_dataset(tmp_path, masks=chosen), number_in, lambda ids: ids > 0)

    @pytest.mark.parametrize("pattern", ["masks_color/{}.png", "masks/{}_color.png", "SegmentationObject/{}.png"])
    def test_what_is_made_of_masks_is_second_choice(self, tmp_path, pattern):
        write_pairs(tmp_path, "images/{}.png", pattern, form=lambda ids: COLORS[ids])
        write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
        dataset = open_dataset(tmp_path)
        assert pairs_of(dataset) == {(f"{i}.png", f"{i}.png") for i in range(1, 11)}
        check_ids(dataset, number_in)

    @pytest.mark.parametrize("names", [("mask", "1st_manual"), ("fov_masks", "vessels")])
    def test_a_field_of_view_is_no_truth(self, tmp_path, names):
        y, x = np.mgrid[:SIZE, :SIZE]
        view = np.where(np.hypot(y - 24, x - 24) < 22, 255, 0).astype(np.uint8)
        write_pairs(tmp_path, "images/{}.png", names[0] + "/{}_mask.png", form=lambda ids: view)
        with pytest.raises(DataError, match=f"{names[0]}/ shows nearly the same shape for every photo"):
            open_dataset(tmp_path)
        write_pairs(tmp_path, "images/{}.png", names[1] + "/{}.png", form=lambda ids: BINARY[ids])
        check_ids(open_dataset(tmp_path), number_in, lambda ids: ids > 0)
        assert (
            open_dataset(tmp_path, masks=names[0]).load(open_dataset(tmp_path, masks=names[0]).samples[0])[1].sum()
            == (view > 0).sum()
        )
        outside = open_dataset(tmp_path, ignore_outside=names[0])
        check_ids(outside, number_in, lambda ids: np.where(view, ids > 0, 255))
        assert f"pixels outside of what {names[0]} shows count nowhere" in outside.notes

    def test_a_field_of_view_that_is_missing_is_told(self, tmp_path):
        write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
        write_pairs(tmp_path, "images/{}.png", "fov/{}.png", range(1, 5), form=lambda ids: np.full_like(ids, 255))
        with pytest.raises(DataError, match=r"images/10\.png: has no picture in fov .* as 6 of 10 photos"):
            open_dataset(tmp_path, masks="masks", ignore_outside="fov")


class TestWhatIsNoMask:
    @pytest.mark.parametrize("number", [2, 9])
    def test_photos_are_never_cut_in_half(self, tmp_path, number):
        for i in range(number):
            write(tmp_path / "train" / f"{i}.png", np.hstack([draw(i)[0], draw(i + 50)[0]]))
        with pytest.raises(DataError, match="holds no photos with masks"):
            open_dataset(tmp_path)

    def test_photos_among_the_masks_are_named(self, tmp_path):
        write_pairs(tmp_path, "images/{}.png", "masks/{}.png", range(1, 13))
        for number in (3, 6, 9, 12):
            write(tmp_path / "masks" / f"{number}.png", draw(number + 40)[0])
        with pytest.raises(DataError, match=r"some files in masks/ look like photos, the others like masks: .*3\.png"):
            open_dataset(tmp_path)

    def test_one_mask_for_many_photos_is_told(self, tmp_path):
        write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
        for path in list((tmp_path / "masks").iterdir())[1:]:
            path.unlink()
        dataset = open_dataset(tmp_path, whole=True)
        assert len(dataset.samples) == 1 and len(dataset.problems) == 9
        assert all("has no mask" in problem for problem in dataset.problems)
        with pytest.raises(DataError, match=r"one photo only has its mask; .*: has no mask, and 8 more like it"):
            open_dataset(tmp_path)

    def test_leftovers_of_systems_count_nowhere(self, tmp_path):
        write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
        for path in ("images/._1.png", "__MACOSX/images/1.png", "masks/Thumbs.db", ".git/1.png"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(b"Mac OS X")
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 10 and not dataset.problems


class TestStacks:
    def write_stack(self, path, arrays):
        path.parent.mkdir(exist_ok=True)
        first, *others = map(Image.fromarray, arrays)
        first.save(path, save_all=True, append_images=others)

    def test_pages_are_pictures(self, tmp_path):
        drawn = [draw(i) for i in range(6)]
        self.write_stack(tmp_path / "train-volume.tif", [photo for photo, _ in drawn])
        self.write_stack(tmp_path / "train-labels.tif", [BINARY[ids] for _, ids in drawn])
        dataset = open_dataset(tmp_path, whole=True)
        assert [sample.page for sample in dataset.samples] == list(range(6))
        for sample, (photo, ids) in zip(dataset.samples, drawn, strict=True):
            loaded, found = dataset.load(sample)
            np.testing.assert_array_equal(loaded, photo)
            np.testing.assert_array_equal(found, ids > 0)

    def test_neighbouring_pages_stay_on_one_side_of_a_drawn_split(self, tmp_path):
        drawn = [draw(i) for i in range(20)]
        self.write_stack(tmp_path / "train-volume.tif", [photo for photo, _ in drawn])
        self.write_stack(tmp_path / "train-labels.tif", [BINARY[ids] for _, ids in drawn])
        held_out = [sample.page for sample in open_dataset(tmp_path).splits["val"]]
        assert held_out == list(range(held_out[0], held_out[0] + 4)) and held_out[0] % 4 == 0

    def test_of_many_stacks_whole_ones_are_held_out(self, tmp_path):
        for patient in range(5):
            drawn = [draw(10 * patient + i) for i in range(3)]
            self.write_stack(tmp_path / f"p{patient}" / "volume.tif", [photo for photo, _ in drawn])
            self.write_stack(tmp_path / f"p{patient}" / "volume_mask.tif", [BINARY[ids] for _, ids in drawn])
        held_out = open_dataset(tmp_path).splits["val"]
        assert [sample.page for sample in held_out] == [0, 1, 2] and len({sample.photo for sample in held_out}) == 1


class TestFlags:
    def test_a_folder_or_pattern_without_pictures_lists_those_that_have_some(self, tmp_path):
        write_pairs(tmp_path, "images/{}.png", "masks/{}.png")
        with pytest.raises(SemsegError, match=r"`masks`: .* is in truth; pictures are in images/, masks/"):
            open_dataset(tmp_path, masks="truth")

    @pytest.mark.parametrize("given", ["b", "set/b", "set/b/", "*/b/*.png", "*_y.png"])
    def test_masks_may_be_a_folder_or_a_pattern(self, tmp_path, given):
        write_pairs(tmp_path, "set/a/{}_x.png", "set/b/{}_y.png")
        write_pairs(tmp_path, "set/a/{}_x.png", "set/c/{}_z.png")
        check_ids(open_dataset(tmp_path, masks=given), number_in)

    def test_objects_are_one_class_where_the_user_says_so(self, tmp_path):
        for number in range(1, 11):
            photo, ids = draw(number)
            write(tmp_path / "images" / f"{number}.png", photo)
            write(
                tmp_path / "masks" / f"{number}.png",
                np.where(ids, 1000 + 7 * number + ids.astype(np.uint16), 0).astype(np.uint16),
            )
        check_ids(open_dataset(tmp_path, instances=True), number_in, lambda ids: ids > 0)


def test_names_by_hand(tmp_path):
    assert [role_of(name) for name in ("1st_manual", "leftImg8bit", "gtFine", "Tile 1")] == [
        "mask",
        "photo",
        "mask",
        None,
    ]
    assert [split_of(name) for name in ("labelsTs", "stage1_train", "b. Testing Set", "attest")] == [
        "test",
        "train",
        "test",
        None,
    ]
    assert place_of(("VOC", "train_masks", "ulm")).others == ("VOC", "ulm")
    assert best_stripping(["x_1_0000", "x_2_0000"], ["x_1", "x_2"]).describe() == "*_0000 = *"
    write_pairs(tmp_path, "street_{}.png", "street_{}_red.png", range(1, 4))
    assert [path.name for path in list_contents(tmp_path).pictures][:2] == ["street_1.png", "street_1_red.png"]


@pytest.fixture(scope="session")
def cases(real_data):
    """Scripts that write data as people have them; without them, tests that need them are skipped and say so."""
    folder = real_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip("no cases lie beside the real data")
    return folder


REFUSED = {"cell_instances": "`instances`"}  # what waits for the user's word
OUTLINES = ("labelme_json", "coco_polygons_only")  # which may be filled to a pixel more or less
READ = (
    *OUTLINES, "roboflow_masks", "mri_by_patient", "pet_trimaps", "drive_vessels", "tiles_of_a_city",
    "one_mask_per_nucleus", "voc_lists", "cvat_masks", "corrections_with_alpha", "thin_roads", "geotiff_predict",
)  # fmt: skip


@pytest.mark.parametrize("name", [*READ, *REFUSED])
def test_data_as_people_have_them(cases, tmp_path, name):
    subprocess.run([sys.executable, cases / f"{name}.py", tmp_path], check=True)
    if name in REFUSED:
        with pytest.raises(DataError, match=REFUSED[name]):
            open_dataset(tmp_path / "data")
    expected = json.loads((tmp_path / "expected" / "expected.json").read_text())
    dataset = open_dataset(tmp_path / "data", instances=name == "cell_instances")
    truth = [(pair, *read_truth(tmp_path, pair["number"])) for pair in expected["pairs"]]
    assert len(dataset.samples) == len(truth)
    names = {label.lower() for label in dataset.palette.names}
    if name in (
        *OUTLINES,
        "roboflow_masks",
        "tiles_of_a_city",
        "cvat_masks",
        "thin_roads",
    ):  # files beside the masks name them
        assert names == {label.lower() for label in expected["classes"]}
    meanings = set()
    for split, samples in dataset.splits.items():
        for sample in samples:
            photo, ids = dataset.load(sample)
            pair, _, wanted = closest(photo, truth)
            assert pair["split"] in ("any", split) or (pair["split"] == "trainval" and split in ("train", "val"))
            counted = ~borders_of(wanted) if name in OUTLINES else np.ones(wanted.shape, bool)
            meanings |= set(zip(ids[counted].tolist(), wanted[counted].tolist(), strict=True))
    assert len(meanings) == len(dict(meanings)) == len({truth for _, truth in meanings})  # one to one
    assert dict(meanings).get(255, 255) == 255


def borders_of(ids):
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(ids, kernel) != cv2.erode(ids, kernel)


def read_truth(folder: Path, number):
    return [np.asarray(Image.open(folder / "expected" / f"{number}_{kind}.png")) for kind in ("photo", "ids")]


def closest(photo, truth):
    same_size = [entry for entry in truth if entry[1].shape == photo.shape]
    return min(same_size, key=lambda entry: np.abs(entry[1].astype(int) - photo).mean())
