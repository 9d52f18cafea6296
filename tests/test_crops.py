"""Crops: cut where they were drawn, of what the cache holds or the files, and every pixel of validation once."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from semseg import IGNORE
from semseg.data import open_dataset
from semseg.data.augment import NO_AUGMENTATION, Augmentation
from semseg.data.batches import data_generator
from semseg.data.cache import Cache
from semseg.data.centres import some_pixels
from semseg.data.check import check_dataset
from semseg.data.crops import crops_per_photo, cut, draw_place, draw_place_around, places_of_tiles
from semseg.data.survey import survey_of
from semseg.errors import SemsegError
from semseg.images.resizing import resize_mask, resize_photo, scaled_size
from semseg.runs.config import RunConfig
from semseg.training.plan import plan_run
from semseg.training.view import choose_view

pytestmark = pytest.mark.plain

SIZES = [(150, 210), (64, 64), (300, 180), (20, 30), (130, 128), (96, 200)]
CROP = (64, 64)


def numbered(height, width):
    """A photo that tells its places, rows in red and columns in green, and ids that tell them roughly."""
    rows, columns = np.mgrid[:height, :width]
    photo = np.stack([rows % 256, columns % 256, (rows // 256 + 16 * (columns // 256)) % 256], axis=2).astype(np.uint8)
    return photo, ((rows // 10 + columns // 10) % 3).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Numbered photos of six sizes, two of them for validation."""
    root = tmp_path_factory.mktemp("photos")
    for i, size in enumerate(SIZES):
        split = "val" if i in (2, 3) else "train"
        photo, ids = numbered(*size)
        photo[..., 2] += np.uint8(20 * i)
        for folder, picture in (("images", photo), ("masks", ids)):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / split / folder / f"{i}.png")
    return open_dataset(root)


def cache_of(dataset, folder, scale=1.0, **options):
    sizes = {sample: dataset.size_of(sample) for sample in dataset.samples}
    return Cache(dataset.samples, CROP, "meaning", folder, scale=scale, sizes=sizes, **options)


def epoch(dataset, split="train", **options):
    """The batches of one epoch; threads are ended."""
    batches = data_generator(dataset, split, batch_size=3, image_size=CROP, seed=5, **{"scale": 1.0, **options})
    found = list(batches)
    batches.close()
    return found


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for array, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, expected)


class TestCut:
    photo, ids = numbered(150, 210)
    size = (150, 210)

    def read(self, top, left, bottom, right):
        assert 0 <= top < bottom <= 150 and 0 <= left < right <= 210
        return self.photo[top:bottom, left:right], self.ids[top:bottom, left:right]

    def test_a_crop_is_the_piece_at_its_place(self):
        photo, ids = cut(self.read, self.size, (70, 31), (40, 50))
        np.testing.assert_array_equal(photo, self.photo[70:110, 31:81])
        np.testing.assert_array_equal(ids, self.ids[70:110, 31:81])

    def test_beyond_the_photo_lies_its_mirror_image_which_counts_nowhere(self):
        photo, ids = cut(self.read, self.size, (-8, 190), (32, 40))
        np.testing.assert_array_equal(photo[8:, :20], self.photo[:24, 190:])
        np.testing.assert_array_equal(photo[:8, :20], self.photo[8:0:-1, 190:])
        np.testing.assert_array_equal(ids[8:, :20], self.ids[:24, 190:])
        assert (ids[:8] == IGNORE).all() and (ids[:, 20:] == IGNORE).all()

    def test_a_mirrored_crop_is_the_mirror_image_of_the_piece(self):
        drawn = Augmentation(horizontal_flip=1.0, rotation=0, brightness=0, contrast=0, saturation=0)
        drawn = drawn.draw((40, 50), np.random.default_rng(0))
        photo, ids = cut(self.read, self.size, (70, 31), (40, 50), drawn=drawn)
        np.testing.assert_array_equal(photo, self.photo[70:110, 31:81][:, ::-1])
        np.testing.assert_array_equal(ids, self.ids[70:110, 31:81][:, ::-1])

    def test_what_is_turned_in_comes_from_the_photo(self):
        turn = Augmentation(horizontal_flip=0, rotation=30.0, brightness=0, contrast=0, saturation=0)
        drawn = turn.draw((40, 50), np.random.default_rng(0))
        assert abs(np.degrees(np.arcsin(drawn[0][1, 0]))) > 5
        photo, ids = cut(self.read, self.size, (50, 80), (40, 50), drawn=drawn)
        shift = drawn[0][:, 2] - drawn[0][:, :2] @ (80, 50)
        matrix = np.column_stack([drawn[0][:, :2], shift])
        whole = cv2.warpAffine(self.photo, matrix, (50, 40), flags=cv2.INTER_LINEAR)
        assert (ids != IGNORE).all()
        assert np.abs(photo.astype(int) - whole).max() <= 1


def test_places_are_drawn_within_the_photo_and_smaller_photos_lie_within_the_crop():
    rng = np.random.default_rng(0)
    places = np.array([draw_place((70, 40), (64, 64), rng) for _ in range(500)])
    assert (places.min(axis=0), places.max(axis=0))[0].tolist() == [0, -24]
    assert places.max(axis=0).tolist() == [6, 0]


@pytest.mark.parametrize(
    ("centre", "rows", "columns"),
    [
        ((0.5, 0.5), (53, 84), (68, 99)),  # the pixel (100, 115) in rows and columns 16 to 47 of the crop
        ((0.0, 0.999), (0, 0), (166, 166)),  # a corner of the photo
    ],
)
def test_crops_around_a_pixel_show_it_in_their_middle_half(centre, rows, columns):
    rng = np.random.default_rng(0)
    places = np.array([draw_place_around(np.array(centre), (200, 230), (64, 64), rng) for _ in range(500)])
    assert (places.min(axis=0), places.max(axis=0))[0].tolist() == [rows[0], columns[0]]
    assert places.max(axis=0).tolist() == [rows[1], columns[1]]


def test_a_photo_smaller_than_the_crop_lies_within_it_whatever_pixel_is_its_centre():
    rng = np.random.default_rng(0)
    places = np.array([draw_place_around(rng.random(2), (20, 70), (64, 64), rng) for _ in range(500)])
    assert places.min(axis=0).tolist() == [-44, 0] and places.max(axis=0).tolist() == [0, 6]


class TestRareClasses:
    """A class in one small place of large photos, and not in all of them."""

    CENTRES = ([np.array([[0.9, 0.1]])], [], [np.array([[0.5, 0.5]]), np.array([[0.1, 0.2], [0.1, 0.8]])], [])

    def test_pixels_of_every_class_are_kept_from_all_over_the_mask(self):
        ids = np.zeros((1500, 1000), np.uint8)
        ids[:, 500:], ids[7, 5:8], ids[1200:1210, :30] = 1, 2, 4
        found = some_pixels(ids, np.bincount(ids.ravel(), minlength=6).tolist())
        assert [len(pixels) for pixels in found] == [22, 22, 3, 0, 22, 0]
        for i, pixels in enumerate(found):
            assert len(set(pixels)) == len(pixels) and (ids.ravel()[pixels] == i).all()
        rows = np.array(found[0]) // 1000
        assert rows.min() < 400 and rows.max() > 1100

    def drawn(self, dataset, centred, **options):
        """Photo and place of each crop of an epoch."""
        batches = data_generator(
            dataset, batch_size=1, image_size=CROP, scale=1.0, workers=0, centres=self.CENTRES, centred=centred, seed=3
        )
        files = [batches.photos(index)[0].stem for index in range(len(batches))]
        return files, [(int(photos[0, 0, 0, 0]), int(photos[0, 0, 0, 1])) for photos, _ in batches]

    def test_crops_are_drawn_around_them_where_a_photo_has_some(self, dataset):
        assert [sample.photo.stem for sample in dataset.splits["train"]] == ["0", "1", "4", "5"]
        places = {name: set() for name in "0145"}
        for name, place in zip(*self.drawn(dataset, 1.0), strict=True):
            places[name].add(place)
        assert all(top == 86 and left <= 5 for top, left in places["0"])  # (135, 21) of 150x210
        near = [{(top, left) for top, left in places["4"] if low <= top <= high} for low, high in ((17, 49), (0, 0))]
        assert near[0] | near[1] == places["4"] and min(map(len, near)) > 0  # either class
        assert len(places["5"]) == 5  # as without

    def test_a_share_of_them(self, dataset):
        files, places = self.drawn(dataset, 1 / 3)
        around = [top == 86 and left <= 5 for name, (top, left) in zip(files, places, strict=True) if name == "0"]
        assert 0 < sum(around) < len(around) == 8

    def test_a_plan_has_them_where_they_are_asked_for(self, dataset):
        findings = check_dataset(dataset, image_size=CROP, scale=1.0)
        config = RunConfig(view="crops", scale=1.0, image_size=CROP)
        assert plan_run(config, dataset, findings).centres is None
        findings.records["train"][2][1].counts[:] = [990, 9, 1, 0]
        findings.records["train"][2][1].pixels[:] = [[0], [], [64]]
        for i in (0, 1, 3):
            findings.records["train"][i][1].counts[:] = [1000, 1000, 0, 0]
            findings.records["train"][i][1].pixels[:] = [[0], [1], []]
        plan = plan_run(replace(config, sample_rare=True), dataset, findings)
        assert [len(classes) for classes in plan.centres] == [0, 0, 1, 0]
        height, width = dataset.size_of(dataset.splits["train"][2])
        row, column = divmod(64, width)
        np.testing.assert_allclose(plan.centres[2][0], [[(row + 0.5) / height, (column + 0.5) / width]])
        sampling = plan.sections["batches"]["sampling"]
        assert "33% of the crops around pixels of these" in sampling.text and sampling.reason == "as asked"

    def test_a_check_of_whole_photos_keeps_no_pixels_and_tells_that_they_are_stretched(self, dataset):
        findings = check_dataset(dataset, image_size=CROP)
        assert any("are stretched to what the network sees" in warning for warning in findings.warnings)
        in_crops = check_dataset(dataset, image_size=CROP, scale=1.0).warnings
        assert not any("stretched" in warning for warning in in_crops)
        with pytest.raises(SemsegError, match="saw photos whole; crops around rare classes need it with `scale`"):
            findings.centres("train")

    def test_the_check_finds_them_and_remembers_them(self, tmp_path):
        for i in range(4):
            photo, ids = numbered(400, 300)
            ids[:] = 0
            if i % 2:
                ids[300:310, 20:30] = 1
            for folder, picture in (("images", photo), ("masks", ids)):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(picture).save(tmp_path / folder / f"{i}.png")
        dataset = open_dataset(tmp_path, seed=1)
        for _ in range(2):
            cache = Cache(dataset.samples, CROP, "meaning", tmp_path / "cache")
            findings = check_dataset(dataset, cache=cache, image_size=CROP, scale=1.0)
            for sample, centres in zip(dataset.splits["train"], findings.centres("train"), strict=True):
                assert len(centres) == int(sample.photo.stem) % 2
                for rows, columns in (places.T * [[400], [300]] for places in centres):
                    assert len(rows) == 16
                    assert rows.min() > 300 and rows.max() < 310 and columns.min() > 20 and columns.max() < 30


class TestBatches:
    def test_an_epoch_is_a_pass_over_the_area_of_every_photo(self, dataset):
        times = crops_per_photo([dataset.size_of(sample) for sample in dataset.splits["train"]], CROP)
        assert times.tolist() == [8, 1, 4, 5]
        batches = data_generator(dataset, batch_size=3, image_size=CROP, scale=1.0, workers=0)
        seen = [file.stem for index in range(len(batches)) for file in batches.photos(index)]
        assert [seen.count(sample.photo.stem) for sample in dataset.splits["train"]] == [8, 1, 4, 5]

    def test_crops_are_pieces_of_their_photos_at_new_places(self, dataset):
        places = []
        batches = data_generator(dataset, batch_size=3, image_size=CROP, scale=1.0, workers=0)
        for _ in range(2):
            for photos, masks in batches:
                for photo, ids in zip(photos, masks, strict=True):
                    top, left = (int(photo[0, 0, axis]) for axis in (0, 1))
                    truth = numbered(top + 64, left + 64)
                    np.testing.assert_array_equal(photo[..., :2], truth[0][top:, left:, :2])
                    np.testing.assert_array_equal(ids, truth[1][top:, left:])
                    places.append((top, left))
        assert len(set(places)) > 25

    def test_an_epoch_may_have_fewer_crops_but_of_other_photos_in_each(self, dataset):
        batches = data_generator(dataset, batch_size=3, image_size=CROP, scale=1.0, most_crops=5, workers=0)
        assert len(batches) == 2 and len(batches[1][0]) == 2
        first = [batches.photos(0), batches.photos(1)]
        batches.start_epoch(1)
        assert first != [batches.photos(0), batches.photos(1)]

    def test_few_photos_are_passed_over_several_times_with_other_crops_in_each(self, dataset):
        one_pass = data_generator(dataset, batch_size=1, image_size=CROP, scale=1.0, workers=0)
        batches = data_generator(
            dataset, batch_size=1, image_size=CROP, scale=1.0, most_crops=3 * len(one_pass) + 1, workers=0
        )
        assert len(batches) == 3 * len(one_pass)
        seen = [batches.photos(index)[0] for index in range(len(batches))]
        once = [one_pass.photos(index)[0] for index in range(len(one_pass))]
        assert Counter(seen) == {photo: 3 * count for photo, count in Counter(once).items()}
        assert len({photos.tobytes() for photos, _ in batches}) > len(one_pass)

    @pytest.mark.parametrize("scale", [1.0, 0.5])
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_the_same_with_and_without_cache_and_workers(self, dataset, tmp_path, split, scale):
        options = {"augmentation": Augmentation(rotation=20.0) if split == "train" else None, "scale": scale}
        options["centres"] = TestRareClasses.CENTRES if split == "train" else None
        expected = epoch(dataset, split, workers=0, **options)
        for workers in (0, 2):
            cache = cache_of(dataset, tmp_path, scale)
            assert_same(epoch(dataset, split, workers=workers, cache=cache, **options), expected)
            assert cache.find_part(dataset.splits[split][0], 0, 0, 9, 9) is not None

    def test_validation_shows_every_pixel_once(self, dataset):
        found = epoch(dataset, "val")
        counted = sum(int((masks != IGNORE).sum()) for _, masks in found)
        assert counted == 300 * 180 + 20 * 30
        photo, ids = numbered(300, 180)
        first = found[0]
        np.testing.assert_array_equal(first[1][1][:64, :64], ids[:64, 64:128])
        np.testing.assert_array_equal(first[0][1][:64, :64, :2], photo[:64, 64:128, :2])

    def test_part_of_the_validation_is_spread_over_it(self, dataset):
        batches = data_generator(dataset, "val", batch_size=3, image_size=CROP, scale=1.0, most_crops=4, workers=0)
        assert len(batches) == 2
        assert {file.stem for index in range(2) for file in batches.photos(index)} == {"2"}
        assert places_of_tiles((300, 180), CROP)[::4][1] == (64, 64)

    def test_crops_are_cut_from_photos_at_the_scale(self, dataset):
        sample = dataset.splits["val"][0]
        photo, ids = dataset.load(sample)
        size = scaled_size(ids.shape, 0.5)
        ((photos, masks),) = epoch(dataset, "val", scale=0.5, most_crops=1)
        np.testing.assert_array_equal(photos[0], resize_photo(photo, size)[:64, :64])
        np.testing.assert_array_equal(masks[0], resize_mask(ids, size)[:64, :64])

    @pytest.mark.parametrize("count", [(2,), (3,), (2, 2)], ids=["2 processes", "3 processes", "2 of 2 devices"])
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_parts_of_several_processes_are_the_batches_of_one(self, dataset, split, count):
        options = {"batch_size": 5, "image_size": CROP, "scale": 1.0, "workers": 0}
        options["augmentation"] = Augmentation() if split == "train" else None
        options["centres"] = TestRareClasses.CENTRES if split == "train" else None
        whole = data_generator(dataset, split, **options)
        parts = [data_generator(dataset, split, **options, share=(rank, *count)) for rank in range(count[0])]
        for index in range(len(whole)):
            own = [part.photo_counts(index)[0] for part in parts]
            for k in (0, 1):  # photos, masks
                pieces = [part[index][k][:photos] for part, photos in zip(parts, own, strict=True)]
                np.testing.assert_array_equal(np.concatenate(pieces), whole[index][k])

    def test_the_middle_of_an_epoch_is_as_if_it_had_begun_before(self, dataset):
        options = {"workers": 0, "augmentation": NO_AUGMENTATION, "centres": TestRareClasses.CENTRES}
        every = epoch(dataset, **options)
        batches = data_generator(dataset, batch_size=3, image_size=CROP, seed=5, scale=1.0, **options)
        batches.start_epoch(0, 2)
        assert_same([batches[index] for index in range(len(batches))], every[2:])

    def test_a_cache_of_another_scale_is_refused(self, dataset, tmp_path):
        with pytest.raises(SemsegError, match=r"made for crops at a scale of 0.5; expected \(64, 64\) and scale=1.0"):
            data_generator(dataset, image_size=CROP, scale=1.0, cache=cache_of(dataset, tmp_path, 0.5))
        with pytest.raises(SemsegError, match="made for images of"):
            data_generator(dataset, image_size=CROP, scale=1.0, cache=Cache(dataset.samples, CROP, "", tmp_path))


class TestCacheOfTiles:
    def fill(self, dataset, folder):
        cache = cache_of(dataset, folder)
        for sample in dataset.samples:
            assert cache.find_part(sample, 0, 0, 1, 1) is None
            cache.store(sample, *dataset.load(sample))
        return cache

    def test_any_part_is_what_the_files_hold(self, dataset, tmp_path):
        self.fill(dataset, tmp_path)
        cache, rng = cache_of(dataset, tmp_path), np.random.default_rng(0)
        for sample in dataset.samples:
            photo, ids = dataset.load(sample)
            for _ in range(5):
                (top, bottom), (left, right) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in ids.shape)
                part = cache.find_part(sample, top, left, bottom, right)
                np.testing.assert_array_equal(part[0], photo[top:bottom, left:right])
                np.testing.assert_array_equal(part[1], ids[top:bottom, left:right])

    def test_a_damaged_tile_is_not_believed(self, dataset, tmp_path):
        path = self.fill(dataset, tmp_path).path
        content = bytearray(path.read_bytes())
        content[-128 * 128 * 4 - 128 * 128 - 5] ^= 1  # in the photo of the last tile but one
        path.write_bytes(content)
        cache, damaged = cache_of(dataset, tmp_path), sorted(dataset.samples, key=str)[-2]
        height, width = dataset.size_of(damaged)
        assert cache.find_part(damaged, 0, 0, height, width) is None
        assert cache.find_part(damaged, 0, 0, 128, 128) is not None

    def test_photos_of_other_sizes_move_no_tile_of_the_others(self, tmp_path):
        """As many tiles in all: the second photo's begin one later."""

        def draw(*widths):
            for i, width in enumerate(widths):
                photo, ids = numbered(100, width)
                for name, picture in (("images", photo), ("masks", ids)):
                    (tmp_path / name).mkdir(exist_ok=True)
                    Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
            return open_dataset(tmp_path, whole=True)

        self.fill(draw(90, 300, 200), tmp_path / "cache")
        dataset = draw(200, 300, 90)
        second = sorted(dataset.samples, key=str)[1]
        found = cache_of(dataset, tmp_path / "cache").find_part(second, 0, 0, 100, 128)
        assert found is None or np.array_equal(found[0], dataset.load(second)[0][:, :128])

    def test_photos_without_room_are_left_out_and_said(self, dataset, tmp_path):
        tile = 36 + 128 * 128 * 4
        cache = cache_of(dataset, tmp_path, most_bytes=6 * tile)
        assert cache.size <= 6 * tile
        assert "holds 2 of 6 photos" in cache.note
        expected = epoch(dataset, workers=0)
        assert_same(epoch(dataset, workers=0, cache=cache), expected)
        again = cache_of(dataset, tmp_path, most_bytes=5 * tile)  # as much as there was room for
        assert again.size == cache.size


# ------------------------------------------------------------------------------------------------------ the view


def draw_set(root, thickness, size=(400, 600), count=4):
    """Lines of a thickness on an empty ground."""
    rng = np.random.default_rng(0)
    for i in range(count):
        ids = np.zeros(size, np.uint8)
        for _ in range(6):
            ends = [tuple(map(int, rng.integers(0, min(size), 2))) for _ in range(2)]
            cv2.line(ids, *ends, 1, thickness)
        for folder, picture in (("images", 200 * ids), ("masks", ids)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / folder / f"{i}.png")
    return open_dataset(root)


def view_of(dataset, **settings):
    return choose_view(RunConfig(**settings), dataset, on_gpu=False)


class TestView:
    def test_thin_lines_are_seen_in_crops_at_a_scale_that_keeps_them(self, tmp_path):
        view = view_of(draw_set(tmp_path / "thin", 3))
        assert (view.image_size, view.scale) == ((256, 256), 1.0)
        assert "pixels wide" in view.reason and "128x128 whole" in view.reason
        dataset = draw_set(tmp_path / "thicker", 9, size=(1200, 1800))
        scale = view_of(dataset).scale
        assert 1 / scale == round(1 / scale) > 1
        assert 2.5 <= scale * survey_of(dataset).widths[1] < 3.5

    def test_what_stays_wide_is_seen_whole(self, tmp_path):
        view = view_of(draw_set(tmp_path, 60))
        assert (view.image_size, view.scale) == ((128, 128), None)

    def test_one_thin_class_of_several_is_worth_crops_only_where_an_epoch_shows_all_photos(self, tmp_path):
        for i in range(2):
            ids = np.zeros((400, 600), np.uint8)
            ids[200:], ids[100:200, 300:], ids[:, 50:53] = 1, 2, 3
            for folder, picture in (("images", 60 * ids), ("masks", ids)):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(picture).save(tmp_path / folder / f"{i}.png")
        dataset = open_dataset(tmp_path)
        assert view_of(dataset).scale == view_of(dataset, minutes=20).scale == 1.0
        assert view_of(dataset, minutes=0.3).scale is None  # ten epochs show 180,000 pixels each in so short a time
        dataset.survey = replace(survey_of(dataset), samples=1000)
        view = view_of(dataset)
        assert (view.image_size, view.scale) == ((128, 128), None)
        assert "for so many photos" in view.reason and "`view` crops" in view.reason
        lines = draw_set(tmp_path / "lines", 3)
        lines.survey = replace(survey_of(lines), samples=1000)
        assert view_of(lines).scale == 1.0

    def test_thin_lines_of_small_photos_are_seen_whole_at_their_size(self, tmp_path):
        view = view_of(draw_set(tmp_path, 3, size=(250, 310)))
        assert (view.image_size, view.scale) == ((256, 320), None)

    def test_what_is_asked_for_wins(self, tmp_path):
        dataset = draw_set(tmp_path, 3)
        assert view_of(dataset, image_size=(64, 64)).scale is None
        assert view_of(dataset, view="whole").image_size == (128, 128)
        view = view_of(dataset, scale=0.5)
        assert (view.image_size, view.scale) == ((256, 256), 0.5)
        view = view_of(dataset, view="crops", image_size=(96, 64))
        assert (view.image_size, view.scale) == ((96, 64), 1.0)

    def test_crops_that_are_asked_for_shrink_no_photo_below_a_crop(self, tmp_path):
        dataset = draw_set(tmp_path, 30, size=(600, 900))
        assert view_of(dataset, view="crops").scale == 1 / 2
        assert view_of(dataset, view="crops", image_size=(1024, 1024)).scale == 1.0

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"scale": 0.0}, "`scale`: got 0.0; expected a number from 0.0625 to 16"),
            ({"scale": 100.0}, "`scale`: got 100.0"),
            ({"view": "half"}, "`view`: got 'half'; expected whole or crops"),
            ({"view": "whole", "scale": 1.0}, "`scale`: is for crops"),
        ],
    )
    def test_senseless_settings_are_refused(self, settings, words):
        with pytest.raises(SemsegError, match=words):
            RunConfig(**settings)
