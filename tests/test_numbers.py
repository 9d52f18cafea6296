"""What the numbers and colours of masks are taken for: sets as various programs save them, with their truth."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from semseg.data.base import Sample
from semseg.data.masks import find_meaning
from semseg.errors import DataError, SemsegError
from semseg.images.reading import Picture, read_mask
from semseg.labels.colormaps import find_colormap
from semseg.labels.contents import contents_of, count_values, lies_in_pieces
from semseg.labels.known_palettes import VOC
from semseg.labels.numbers import numbers_in
from semseg.labels.palettes import Palette, palette_of_object_colors
from semseg.labels.quantising import bin_image, quantise
from semseg.labels.signs import nearly_the_same

pytestmark = pytest.mark.plain

VOC_COLORS = np.array([color for _, color in VOC], np.uint8)


def scene(seed, present=(1, 2), size=96):
    """Ids, uint8: 0 with a disc of 1, a bar of 2 and a frame of 3, where these are present, each at its own place."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for kind in present:
        row, column = rng.integers(size // 4, 3 * size // 4, 2)
        far = np.maximum(abs(y - row), abs(x - column))
        disc, bar, frame = np.hypot(y - row, x - column) < 12, (abs(y - row) < 5) & (far < 20), (far < 14) & (far > 6)
        ids[(disc, bar, frame)[kind - 1]] = kind
    return ids


def cells(seed, count, size=96):
    """One disc for each number from 1 to `count`, in a grid whose order is drawn: uint16."""
    places = np.random.default_rng(seed).permutation(36)[:count]
    numbers = np.zeros((size, size), np.uint16)
    y, x = np.mgrid[:size, :size]
    for number, place in enumerate(places.tolist(), start=1):
        numbers[np.hypot(y - 16 * (place // 6) - 8, x - 16 * (place % 6) - 8) < 6] = number
    return numbers


COUNTS = (3, 8, 5, 12, 7, 4, 9, 6)


def stored(folder, splits, suffix=".png"):
    """Samples of masks that are written to a folder; each is an array, or a picture of Pillow."""
    samples = {}
    for split, masks in splits.items():
        samples[split] = []
        for i, mask in enumerate(masks):
            path = folder / split / f"{i}{suffix}"
            path.parent.mkdir(exist_ok=True)
            (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
            samples[split].append(Sample(Path(f"{i}.jpg"), path))
    return samples


def meaning(folder, masks, num_classes=None, *, suffix=".png", **options):
    """Palette and notes of masks: a list for training, or lists by split."""
    splits = masks if isinstance(masks, dict) else {"train": masks}
    return find_meaning(stored(folder, splits, suffix), num_classes, folder, **options)


def values(palette):
    return [label.value for label in palette.labels if label.id != 255]


def in_colors(ids, colors):
    return np.asarray(colors, np.uint8)[ids]


def palette_image(ids):
    image = Image.fromarray(ids.astype(np.uint8), "P")
    image.putpalette(VOC_COLORS.ravel().tolist())
    return image


def random_colors(numbers, seed):
    table = np.random.default_rng(seed).integers(30, 250, (numbers.max() + 1, 3))
    table[0] = 0
    return in_colors(numbers, table)


# ------------------------------------------------------------------------------------------------------------ objects


class TestObjects:
    @pytest.mark.parametrize(
        ("save", "suffix"),
        [
            (lambda numbers, seed: numbers, ".tif"),  # 16 bits: Cellpose, ImageJ
            (lambda numbers, seed: numbers.astype(np.int32), ".tif"),  # 32 bits: StarDist
            (lambda numbers, seed: numbers.astype(np.uint8), ".png"),
            (lambda numbers, seed: palette_image(numbers), ".png"),  # Pascal VOC's SegmentationObject
        ],
    )
    def test_numbers_that_count_objects_are_refused_with_the_offer(self, tmp_path, save, suffix):
        masks = [save(cells(seed, count), seed) for seed, count in enumerate(COUNTS)]
        with pytest.raises(DataError, match=r"3 to 12 in a mask, 12 in all.*most in .*3\.\w+\); pass `instances`"):
            meaning(tmp_path, masks, suffix=suffix)

    def test_numbers_of_a_whole_film_are_objects_too(self, tmp_path):
        masks = [np.where(numbers := cells(seed, count), numbers + 20 * seed, 0).astype(np.uint16)
                 for seed, count in enumerate(COUNTS)]  # fmt: skip
        with pytest.raises(DataError, match="their numbers count objects"):
            meaning(tmp_path, masks)

    @pytest.mark.parametrize(
        "save",
        [
            lambda numbers, seed: random_colors(numbers, seed),  # COCO's panoptic ids look like this, too
            lambda numbers, seed: in_colors(numbers, VOC_COLORS),  # CVAT's SegmentationObject
            lambda numbers, seed: np.stack([numbers, seed + numbers * 0, numbers * 0], axis=2).astype(np.uint8),
        ],
    )
    def test_a_colour_per_object_is_refused_with_the_offer(self, tmp_path, save):
        masks = [save(cells(seed, count), seed) for seed, count in enumerate(COUNTS)]
        with pytest.raises(
            DataError, match=r"colours count objects, they are no classes.*pass `instances` to read all but"
        ):
            meaning(tmp_path, masks)

    def test_class_and_object_in_one_number_are_refused_whatever_is_asked_for(self, tmp_path):
        """Cityscapes' instanceIds: 7 is road, 26000 the first car."""
        masks = []
        for seed, count in enumerate(COUNTS):
            numbers = cells(seed, count).astype(np.int32)
            numbers = np.where(numbers > 2, 26000 + numbers - 3, np.where(numbers > 0, 24000 + numbers - 1, 7))
            numbers[:10] = 23
            masks.append(numbers.astype(np.uint16))
        for options in ({}, {"instances": True}):
            with pytest.raises(DataError, match=r"7, 23, 24000.*a class times 1000.*_labelIds"):
                meaning(tmp_path, masks, **options)

    def test_instances_make_every_number_one_class_also_such_as_the_survey_never_saw(self, tmp_path):
        palette, notes = meaning(tmp_path, [cells(seed, count) for seed, count in enumerate(COUNTS)], instances=True)
        assert palette.names == ("background", "object") and palette.instances and not notes
        ids, unknown = quantise(np.array([[0, 1, 12, 255, 256, 70000, -1]]), palette)
        assert ids.tolist() == [[0, 1, 1, 1, 1, 1, 255]] and unknown.tolist() == [[False] * 6 + [True]]
        assert bin_image(np.array([[0, 1, 77, 255]], np.uint8), palette).tolist() == [[0, 1, 1, 1]]

    def test_the_border_of_voc_objects_stays_ignored(self, tmp_path):
        masks = []
        for seed, count in enumerate(COUNTS):
            numbers = cells(seed, count).astype(np.uint8)
            numbers[(cv2.dilate(numbers, np.ones((3, 3))) > 0) & (numbers == 0)] = 255
            masks.append(palette_image(numbers))
        with pytest.raises(DataError, match="3 to 12 in a mask"):
            meaning(tmp_path, masks)
        palette, _ = meaning(tmp_path, masks, instances=True)
        assert bin_image(np.array([[0, 1, 99, 255]], np.uint8), palette).tolist() == [[0, 1, 1, 255]]

    def test_instances_make_every_colour_but_the_background_one_class(self, tmp_path):
        masks = [random_colors(cells(seed, count), seed) for seed, count in enumerate(COUNTS)]
        palette, _ = meaning(tmp_path, masks, instances=True)
        assert palette.colors[0] == (0, 0, 0)
        mask = np.array([[[0, 0, 0], [1, 0, 0], [9, 99, 3], [224, 224, 192]]], np.uint8)
        assert bin_image(mask, palette).tolist() == [[0, 1, 1, 255]]

    def test_the_background_of_coloured_objects_need_not_be_black(self, tmp_path):
        masks = [random_colors(cells(seed, count), seed) for seed, count in enumerate(COUNTS)]
        for mask in masks:
            mask[(mask == 0).all(axis=2)] = (255, 255, 255)
        palette, _ = meaning(tmp_path, masks, instances=True)
        assert palette.colors[0] == (255, 255, 255)
        with pytest.raises(DataError, match="colours count objects"):
            meaning(tmp_path, masks)

    def test_instances_of_blended_colours_or_without_background_or_with_many_classes_are_refused(self, tmp_path):
        masks = [random_colors(cells(seed, count), seed) for seed, count in enumerate(COUNTS)]
        with pytest.raises(DataError, match="`instances`: the colours of the masks are blended"):
            meaning(tmp_path, masks, suffix=".jpg", instances=True)
        with pytest.raises(DataError, match="hold 1, 2; `instances` expects 0"):
            meaning(tmp_path, [scene(i, (1,)) + 1 for i in range(4)], instances=True)
        with pytest.raises(SemsegError, match="got `num_classes` 5"):
            meaning(tmp_path, masks, 5, instances=True)

    def test_a_known_number_of_classes_settles_it(self, tmp_path):
        palette, notes = meaning(tmp_path, [cells(seed, count) for seed, count in enumerate(COUNTS)], 13)
        assert palette.num_classes == 13 and not notes

    def test_up_to_five_in_a_chain_are_read_and_mentioned(self, tmp_path):
        counts = (1, 3, 2, 4, 2, 3, 1, 4)
        palette, notes = meaning(tmp_path, [cells(seed, count) for seed, count in enumerate(counts)])
        assert palette.num_classes == 5
        assert (
            len(notes) == 1 and "1 to 4 in a mask" in notes[0] and "if they count objects, pass `instances`" in notes[0]
        )

    def test_objects_in_well_known_colours_are_mentioned_too(self, tmp_path):
        masks = [in_colors(cells(seed, 1 + seed % 3), VOC_COLORS) for seed in range(12)]  # CVAT paints objects so
        palette, notes = meaning(tmp_path, masks)
        assert palette.source == "voc" and len(notes) == 1 and "the colours of the masks (1 to 3 in a mask" in notes[0]

    @pytest.mark.parametrize("present", [[(1, 2, 3)], [(1, 2), (2, 3), (3,), ()], [(1,), (1, 2)], [(2,), (1, 2)]])
    def test_classes_with_one_piece_each_are_classes(self, tmp_path, present):
        palette, notes = meaning(tmp_path, [scene(i, present[i % len(present)]) for i in range(16)])
        assert values(palette) == list(range(1 + max(map(max, filter(None, present))))) and not notes

    def test_many_classes_in_several_pieces_are_classes(self, tmp_path):
        rng = np.random.default_rng(0)
        masks = [np.kron(rng.integers(0, 3 + i, (12, 12)), np.ones((8, 8))).astype(np.uint8) for i in range(8)]
        palette, notes = meaning(tmp_path, masks)
        assert palette.num_classes == 10 and not notes

    def test_a_palette_with_instances_survives_json_and_has_two_classes(self):
        palette = palette_of_object_colors(0xFFFFFF)
        assert Palette.from_dict(palette.to_dict()) == palette and palette.to_dict()["instances"] is True
        assert "instances" not in Palette.numbered(2).to_dict()
        with pytest.raises(SemsegError, match="got 3 with `instances`; expected 2"):
            Palette(Palette.numbered(3).labels, instances=True)


# ----------------------------------------------------------------------------------------------------- scales


def imsave(ids):
    """Stretched to 0 to 255 in each file, as matplotlib's grey map, or `cv2.normalize`, does."""
    return (255 * (ids / max(ids.max(), 1))).astype(np.uint8)


def viridis(ids):
    table = np.array([(68, 1, 84), (49, 104, 142), (32, 145, 140), (53, 183, 121), (253, 231, 37)], np.uint8)
    places = {1: [0, 4], 2: [0, 2, 4], 3: [0, 1, 3, 4]}[len(np.unique(ids)) - 1]
    return table[np.array(places)[np.unique(ids, return_inverse=True)[1].reshape(ids.shape)]]


def tab20(ids):
    table = np.frombuffer(bytes.fromhex("1f77b4d62728bcbd22c5b0d59edae5"), np.uint8).reshape(-1, 3)  # 0, 6, 16, 9, 19
    table = {1: table[[0, 4]], 2: np.array([table[0], (140, 86, 75), table[4]], np.uint8)}[len(np.unique(ids)) - 1]
    return table[np.unique(ids, return_inverse=True)[1].reshape(ids.shape)]


PRESENT = [(1, 2, 3), (1, 2), (1,), (1, 2, 3), (1, 2), ()]


class TestScales:
    @pytest.mark.parametrize(
        "save",
        [
            imsave,
            lambda ids: np.repeat(imsave(ids)[..., None], 3, axis=2),
            lambda ids: Image.fromarray(np.dstack([*[imsave(ids)] * 3, np.full(ids.shape, 255, np.uint8)])),
            lambda ids: np.rint(255 * (ids / max(ids.max(), 1))).astype(np.uint8),
        ],
    )
    def test_ids_stretched_in_each_file_are_refused(self, tmp_path, save):
        masks = [save(scene(i, PRESENT[i % len(PRESENT)])) for i in range(12)]
        with pytest.raises(DataError, match=r"grey levels that were stretched .*: 2 of them, .*: 4\).*`num_classes`"):
            meaning(tmp_path, masks)

    def test_two_counts_are_enough_to_tell(self, tmp_path):
        masks = [imsave(scene(i, (1, 2) if i % 3 else (1,))) for i in range(12)]
        with pytest.raises(DataError, match="stretched to each file's own numbers"):
            meaning(tmp_path, masks)
        assert values(meaning(tmp_path, masks, 3)[0]) == [0, 127, 255]

    @pytest.mark.parametrize("present", [[(1, 2)], [(1,), (1, 2)], [(1, 2), (2,), ()]])
    def test_grey_levels_that_mean_the_same_everywhere_are_classes(self, tmp_path, present):
        levels = np.array([0, 128, 255], np.uint8)
        masks = [levels[scene(i, present[i % len(present)])] for i in range(12)]
        if present == [(1, 2), (2,), ()]:
            masks[0][masks[0] == 255] = 0  # a mask with 128 alone
        palette, _ = meaning(tmp_path, masks)
        assert values(palette) == [0, 128, 255]

    def test_a_border_of_128_is_no_sign_of_stretching(self, tmp_path):
        masks = []
        for i in range(10):
            mask = 255 * scene(i, (1,))
            if i % 3:
                mask[(cv2.dilate(mask, np.ones((5, 5))) > 0) & (mask == 0)] = 128
            masks.append(mask)
        palette, notes = meaning(tmp_path, masks)
        assert values(palette) == [0, 128, 255]
        assert notes == [
            "class_128 looks like a border, always thin and between class_0 and class_255; it stays a class unless you "
            "move it to ignored in a classes.json and give that as `palette`"
        ]

    @pytest.mark.parametrize("save", [viridis, tab20])
    def test_a_colour_map_stretched_in_each_file_is_refused(self, tmp_path, save):
        present = PRESENT if save is viridis else [(1, 2), (1,)]
        masks = [save(scene(i, present[i % len(present) % 5])) for i in range(12)]
        with pytest.raises(DataError, match=f"colours of the map {save.__name__} that were stretched"):
            meaning(tmp_path, masks)

    def test_a_colour_map_that_may_be_right_is_read_and_mentioned(self, tmp_path):
        palette, notes = meaning(tmp_path, [viridis(scene(i)) for i in range(8)])
        assert palette.colors == ((68, 1, 84), (32, 145, 140), (253, 231, 37)) or palette.num_classes == 3
        assert len(notes) == 1 and "colours of the map viridis" in notes[0]

    @pytest.mark.parametrize(
        ("colors", "name"),
        [
            ([(0, 0, 128), (128, 255, 126), (128, 0, 0)], "jet"),
            ([(13, 8, 135), (204, 71, 120), (240, 249, 33)], "plasma"),
            ([(31, 119, 180), (255, 127, 14), (23, 190, 207)], "tab10"),
            ([(0, 0, 0), (255, 255, 255)], None),
            ([(68, 1, 84), (200, 0, 0), (253, 231, 37)], None),
            ([(128, 0, 0), (0, 128, 0), (0, 0, 128)], None),
        ],
    )
    def test_colour_maps_are_known_by_their_ends_and_all_between(self, colors, name):
        found = find_colormap(np.array(colors))
        assert (found and found[0]) == name
        if name in ("jet", "plasma"):
            assert abs(found[1] - [0, 127, 255]).max() <= found[2]

    @pytest.mark.parametrize(
        ("low", "high"), [([0, 1], [0, 255]), ([0, 1, 2], [0, 127, 255]), ([0, 1, 2, 3], [0, 85, 170, 255])]
    )
    def test_two_scales_in_two_splits_are_refused_by_name(self, tmp_path, low, high):
        present = tuple(range(1, len(low)))
        splits = {
            "train": [np.array(low, np.uint8)[scene(i, present)] for i in range(6)],
            "val": [np.array(high, np.uint8)[scene(i, present)] for i in range(3)],
        }
        with pytest.raises(
            DataError, match=rf"some hold 0.* and {low[-1]}, others 0.* and 255, such as .*train.* and .*val"
        ):
            meaning(tmp_path, splits)

    def test_255_beside_ids_is_ignored_and_no_second_scale(self, tmp_path):
        masks = [scene(i) for i in range(8)]
        for mask in masks[:4]:
            mask[:4] = 255
        masks[4][mask > 0] = 255
        palette, notes = meaning(tmp_path, masks)
        assert values(palette) == [0, 1, 2] and not notes

    def test_levels_to_255_are_nine_classes(self, tmp_path):
        levels = np.array([0, 32, 64, 96, 128, 159, 191, 223, 255], np.uint8)
        rng = np.random.default_rng(1)
        masks = [levels[np.kron(rng.integers(0, 9, (8, 8)), np.ones((8, 8), int))] for _ in range(5)]
        palette, notes = meaning(tmp_path, masks)
        assert values(palette) == levels.tolist() and not notes

    def test_255_above_a_long_row_of_ids_is_ignored(self, tmp_path):
        ids = np.kron(np.arange(100).reshape(10, 10), np.ones((4, 4))).astype(np.uint8)
        masks = [np.rot90(ids, i).copy() for i in range(4)]
        for mask in masks:
            mask[:4, :4] = 255
        assert meaning(tmp_path, masks)[0].labels[-1].value == 255
        assert 255 not in values(meaning(tmp_path, masks)[0])


# ------------------------------------------------------------------------------------- encodings, slips, few photos


class TestEncodings:
    @pytest.mark.parametrize("channel", [0, 2])
    @pytest.mark.parametrize("alpha", [False, True])
    def test_ids_in_one_channel_are_numbers(self, tmp_path, channel, alpha):
        """CARLA's raw pictures hold the tag in red; in BGR order it lands in blue."""
        tags = np.array([0, 7, 10], np.uint8)
        masks = []
        for i in range(6):
            mask = np.zeros((96, 96, 4 if alpha else 3), np.uint8)
            mask[..., channel] = tags[scene(i)]
            mask[..., 3:] = 255
            masks.append(mask)
        palette, notes = meaning(tmp_path, masks)
        assert values(palette) == [0, 7, 10] and palette.names == ("class_0", "class_7", "class_10") and not notes
        np.testing.assert_array_equal(bin_image(numbers_in(masks[0][..., :3]), palette), scene(0))

    def test_dark_colours_in_two_channels_and_bright_ones_are_colours(self):
        mask = np.zeros((2, 2, 3), np.uint8)
        mask[0, 0], mask[1, 1] = (7, 0, 0), (0, 7, 0)
        assert numbers_in(mask) is None
        assert numbers_in(in_colors(np.array([[0, 1]]), [(0, 0, 0), (255, 0, 0)])) is None
        assert numbers_in(np.full((1, 2, 3), 9, np.uint8)).tolist() == [[9, 9]]

    def test_channels_that_differ_between_masks_are_colours(self, tmp_path):
        colors = [(0, 0, 0), (40, 0, 0), (0, 50, 0)]
        masks = [in_colors(scene(i, (1,) if i % 2 else (2,)), colors) for i in range(8)]
        palette, _ = meaning(tmp_path, masks)
        assert not palette.holds_values and set(palette.colors) == set(colors)

    def test_pets_counted_from_one_have_a_border_that_is_named(self, tmp_path):
        masks = []
        for i in range(8):
            pet = scene(i, (1,))
            near = cv2.dilate(pet, np.ones((5, 5))) > 0
            masks.append(np.where(pet > 0, 1, np.where(near, 3, 2)).astype(np.uint8))
        palette, notes = meaning(tmp_path, masks)
        assert values(palette) == [1, 2, 3]
        assert len(notes) == 1 and notes[0].startswith(
            "class_3 looks like a border, always thin and between class_1 and"
        )

    def test_transparent_pixels_hold_nothing(self, tmp_path):
        mask = np.array([[0, 1, 1], [2, 0, 1]], np.uint8)
        hidden = np.array([[True, False, False], [False, True, False]])
        contents = contents_of(Picture(mask, mask.shape, "PNG", transparent=hidden), tmp_path)
        assert contents.pixels == {1: 3, 2: 1}

    @pytest.mark.parametrize(
        ("save", "count"),
        [(lambda ids: ids, 4), (palette_image, 4), (lambda ids: in_colors(ids, VOC_COLORS), 21)],
        ids=["numbers", "palette image", "colours"],
    )
    def test_every_class_is_found_however_it_is_stored(self, tmp_path, save, count):
        palette, notes = meaning(tmp_path, [save(scene(i, (1, 2, 3))) for i in range(6)])
        assert palette.num_classes == count and not notes


class TestSlips:
    @pytest.mark.parametrize("as_colors", [False, True])
    @pytest.mark.parametrize("where", ["block", "specks"])
    def test_a_thousandth_of_strange_pixels_is_no_class(self, tmp_path, as_colors, where):
        masks = [scene(i) for i in range(18)]
        if where == "block":
            masks[4][40:45, 50:54] = 7
        else:
            masks[4][np.random.default_rng(0).integers(0, 96, 20), np.random.default_rng(1).integers(0, 96, 20)] = 7
        table = np.random.default_rng(5).integers(0, 256, (8, 3))
        palette, _ = meaning(tmp_path, [in_colors(mask, table) if as_colors else mask for mask in masks])
        assert palette.num_classes == 3
        strange = in_colors(masks[4], table) if as_colors else masks[4]
        np.testing.assert_array_equal(quantise(strange, palette)[1], masks[4] == 7)

    @pytest.mark.parametrize("as_colors", [False, True])
    def test_a_rare_class_with_an_area_is_kept(self, tmp_path, as_colors):
        masks = [scene(i, size=480) for i in range(20)]
        masks[11][100:110, 200:220] = 7  # a traffic sign, 200 of 230,400 pixels
        table = np.random.default_rng(5).integers(0, 256, (8, 3))
        palette, _ = meaning(tmp_path, [in_colors(mask, table) if as_colors else mask for mask in masks])
        assert palette.num_classes == 4

    def test_a_small_piece_of_the_next_id_is_a_rare_class(self, tmp_path):
        masks = [scene(i) for i in range(12)]
        masks[3][10:14, 10:15] = 3
        assert values(meaning(tmp_path, masks)[0]) == [0, 1, 2, 3]

    def test_a_number_in_many_masks_is_a_class_however_thin(self, tmp_path):
        masks = [scene(i) for i in range(12)]
        for mask in masks[:5]:
            mask[:, 48] = 7
        assert values(meaning(tmp_path, masks)[0]) == [0, 1, 2, 7]

    def test_one_smoothed_mask_of_many_does_not_make_a_smoothed_set(self, tmp_path):
        white = [255 * scene(i, (1,)) for i in range(12)]
        white[5] = cv2.GaussianBlur(white[5], (7, 7), 2)
        palette, _ = meaning(tmp_path, white)
        assert values(palette) == [0, 255] and not palette.blended
        assert quantise(white[5], palette)[1].any()

    def test_a_few_blends_in_a_small_mask_are_no_classes(self, tmp_path):
        masks = [255 * scene(i, (1,), size=48) for i in range(12)]
        masks[2] = cv2.resize(255 * scene(2, (1,)), (48, 48), interpolation=cv2.INTER_AREA)
        assert set(np.unique(masks[2])) > {0, 64, 191, 255}
        assert values(meaning(tmp_path, masks)[0]) == [0, 255]

    def test_with_two_masks_nothing_is_a_slip(self, tmp_path):
        masks = [scene(0), scene(1)]
        masks[1][40:44, 50:54] = 7
        assert values(meaning(tmp_path, masks)[0]) == [0, 1, 2, 7]


class TestSplits:
    @pytest.mark.parametrize("as_colors", [False, True])
    def test_a_class_that_only_val_holds_is_kept(self, tmp_path, as_colors):
        table = np.random.default_rng(5).integers(0, 256, (4, 3))
        splits = {"train": [scene(i) for i in range(8)], "val": [scene(i, (1, 3)) for i in range(20, 24)]}
        if as_colors:
            splits = {split: [in_colors(mask, table) for mask in masks] for split, masks in splits.items()}
        palette, notes = meaning(tmp_path, splits)
        assert palette.num_classes == 4 and not notes  # the check names it

    @pytest.mark.parametrize("as_colors", [False, True])
    def test_a_split_in_other_numbers_or_colours_is_left_to_the_check(self, tmp_path, as_colors):
        table = np.random.default_rng(5).integers(0, 256, (16, 3))
        splits = {"train": [scene(i) for i in range(8)], "val": [10 + scene(i) for i in range(20, 24)]}
        if as_colors:
            splits = {split: [in_colors(mask, table) for mask in masks] for split, masks in splits.items()}
        palette, notes = meaning(tmp_path, splits)
        assert palette.num_classes == 3 and not notes
        strange = in_colors(10 + scene(1), table) if as_colors else 10 + scene(1)
        assert quantise(strange, palette)[1].all()

    def test_round_numbers_are_no_objects(self, tmp_path):
        palette, notes = meaning(tmp_path, [1000 * scene(i, (1, 2, 3)).astype(np.uint16) for i in range(6)])
        assert values(palette) == [0, 1000, 2000, 3000] and not notes

    def test_a_slip_in_a_corner_of_masks_in_well_known_colours_is_no_class(self, tmp_path):
        masks = [in_colors(scene(i, (1, 2, 3)), VOC_COLORS) for i in range(6)]
        masks[5][:2, :3] = (0, 255, 255)
        palette, _ = meaning(tmp_path, {"train": masks[:4], "val": masks[4:]})
        assert palette.source == "voc" and quantise(masks[5], palette)[1].sum() == 6

    def test_unreadable_masks_are_left_to_the_check_unless_there_are_no_others(self, tmp_path):
        samples = stored(tmp_path, {"train": [scene(i) for i in range(4)]})
        samples["train"][2].mask.write_bytes(b"no picture")
        assert values(find_meaning(samples, None, tmp_path)[0]) == [0, 1, 2]
        for sample in samples["train"]:
            sample.mask.write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"none of 4 masks can be used; the first: .*not a picture"):
            find_meaning(samples, None, tmp_path)


class TestSmallThings:
    def test_values_are_counted_in_arrays_of_any_type(self):
        numbers = np.array([[5, 5, 0], [70000, 5, 0]])
        assert count_values(numbers) == {0: 2, 5: 3, 70000: 1}
        assert count_values(numbers[:1].astype(np.uint8)) == {0: 1, 5: 2}
        assert count_values(np.zeros(0, np.int32)) == {}

    def test_pieces_touch_by_their_sides(self):
        thumb = np.array([[1, 0, 2], [0, 1, 2], [3, 3, 3]])
        assert lies_in_pieces(thumb) == {0: True, 1: True, 2: False, 3: False}

    def test_masks_of_one_shape_are_nearly_the_same(self):
        y, x = np.mgrid[:96, :96]
        views = [255 * (np.hypot(y - 48 - i % 2, x - 48) < 40).astype(np.uint8) for i in range(5)]
        assert nearly_the_same(views)
        assert nearly_the_same([*views[:4], cv2.resize(views[4], (50, 50), interpolation=cv2.INTER_NEAREST)])
        assert nearly_the_same([np.repeat(view[..., None], 3, axis=2) for view in views])
        assert not nearly_the_same(views[:3])
        assert not nearly_the_same([*views[:4], np.zeros_like(views[0])])
        assert not nearly_the_same([scene(i, (1,)) for i in range(6)])

    def test_a_stored_mask_gives_its_numbers(self, tmp_path):
        sample = stored(tmp_path, {"train": [cells(0, 5)]}, ".tif")["train"][0]
        contents = contents_of(read_mask(sample.mask), sample.mask, with_thumb=True)
        assert contents.keys == {0, 1, 2, 3, 4, 5} and contents.solid == contents.keys and contents.rim == 0
        assert contents.thumb.shape == (96, 96)
