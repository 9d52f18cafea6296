"""Photos and masks that know where on Earth they lie, against rasterio."""

from collections import Counter

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from semseg.data import open_dataset
from semseg.data.base import Dataset, Sample
from semseg.errors import DataError
from semseg.images import georeference
from semseg.images.georeference import (
    Georeference,
    georeference_of_tags,
    is_same_grid,
    lay_on,
    read_georeference,
    write_world_file,
)
from semseg.images.reading import read_mask
from semseg.inference import predictions
from semseg.inference.files import predict_files
from semseg.inference.predictions import jobs_of, lies, notes_on_places
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette


def notes_of(jobs):
    return notes_on_places(Counter(job.files["masks"].suffix for job in jobs.values() if lies(job)), len(jobs))


pytestmark = [pytest.mark.plain, pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")]

UTM = Affine(0.5, 0, 399000.25, 0, -0.5, 5820000.75)
TURNED = Affine.translation(1000, 2000) @ Affine.rotation(30) @ Affine.scale(2, -3)


def geotiff(path, pixels, transform=UTM, crs="EPSG:32633", **options):
    bands = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    count, height, width = bands.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=bands.dtype, transform=transform,
        crs=crs, **options,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def picture(height=30, width=40):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


class TestReading:
    @pytest.mark.parametrize("transform", [UTM, TURNED], ids=["upright", "turned"])
    @pytest.mark.parametrize("point", [False, True], ids=["corners", "centres"])
    def test_a_geotiff(self, tmp_path, transform, point):
        path = geotiff(tmp_path / "x.tif", picture(), transform)
        if point:
            with rasterio.open(path, "r+") as file:
                file.update_tags(AREA_OR_POINT="Point")
        with rasterio.open(path) as file:
            expected = tuple(file.transform)[:6]
        found = read_georeference(path)
        np.testing.assert_allclose(found.transform, expected, rtol=0, atol=1e-6)
        assert found.system == "EPSG:32633" and found.size == (30, 40)

    def test_systems_without_a_code_are_told_apart(self, tmp_path):
        systems = [
            georeference_of_tags(
                geotiff(tmp_path / f"{center}.tif", picture(), crs=f"+proj=laea +lat_0={center}")
            ).system
            for center in (10, 20)
        ]
        assert all(systems) and systems[0] != systems[1]

    @pytest.mark.parametrize("name", ["x.pgw", "x.pngw", "x.wld"])
    def test_a_world_file_as_rasterio_reads_it(self, tmp_path, name):
        Image.fromarray(picture()).save(tmp_path / "x.png")
        (tmp_path / name).write_text("2\n0.5\n0.25\n-3\n1000\n2000\n")
        found = read_georeference(tmp_path / "x.png")
        with rasterio.open(tmp_path / "x.png") as file:
            assert found.transform == tuple(file.transform)[:6]

    def test_what_knows_no_place(self, tmp_path):
        Image.fromarray(picture()).save(tmp_path / "x.tif")
        Image.fromarray(picture()).save(tmp_path / "x.png")
        (tmp_path / "y.tif").write_bytes(b"II*\0")
        assert [read_georeference(tmp_path / name) for name in ("x.tif", "x.png", "y.tif", "none.tif")] == [None] * 4

    def test_a_world_file_that_is_none(self, tmp_path):
        Image.fromarray(picture()).save(tmp_path / "x.png")
        (tmp_path / "x.pgw").write_text("1 2 3")
        with pytest.raises(DataError, match=r"x\.pgw: holds 3 numbers; a world file holds 6"):
            read_georeference(tmp_path / "x.png")

    def test_it_does_not_hold_for_a_photo_that_is_turned(self, tmp_path):
        image = Image.fromarray(picture())
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(tmp_path / "x.jpg", exif=exif)
        (tmp_path / "x.jgw").write_text("2\n0\n0\n-3\n1000\n2000\n")
        assert read_georeference(tmp_path / "x.jpg") is None

    def test_a_world_file_is_written_as_it_is_read(self, tmp_path):
        Image.fromarray(picture()).save(tmp_path / "x.png")
        place = Georeference((2.0, 0.25, 1000.5, 0.5, -3.0, 2000.125))
        assert write_world_file(tmp_path / "x.png", place) == tmp_path / "x.pgw"
        assert read_georeference(tmp_path / "x.png") == place


class TestLayingOn:
    @pytest.mark.parametrize(
        ("transform", "crs"),
        [
            (Affine(0.25, 0, 399003, 0, -0.25, 5819999), "EPSG:32633"),
            (Affine(1.3, 0, 398999.1, 0, -1.3, 5820002.2), "EPSG:32633"),
            (UTM @ Affine.rotation(20), "EPSG:32633"),
            (Affine(1e-5, 0, 13.51135, 0, -6e-6, 52.52078), "EPSG:4326"),
        ],
        ids=["finer and elsewhere", "coarser", "turned", "another system"],
    )
    def test_as_rasterio_does(self, tmp_path, transform, crs):
        numbers = np.random.default_rng(1).integers(1, 9, (40, 50)).astype(np.uint8)
        mask = georeference_of_tags(geotiff(tmp_path / "mask.tif", numbers, transform, crs))
        photo = georeference_of_tags(geotiff(tmp_path / "photo.tif", picture()))
        laid, outside = lay_on(numbers, mask, photo, tmp_path / "mask.tif")
        expected = np.zeros((30, 40), np.uint8)
        reproject(
            numbers, expected, src_transform=transform, src_crs=crs, dst_transform=UTM, dst_crs="EPSG:32633",
            resampling=Resampling.nearest, tolerance=0,
        )  # fmt: skip
        assert (expected > 0).mean() > 0.2
        assert (laid == expected).mean() > 0.99  # centres that lie on a border fall to either side
        assert ((expected == 0) == outside).mean() > 0.99

    def test_places_that_have_nothing_in_common(self, tmp_path):
        mask = Georeference(tuple(UTM @ Affine.translation(500, 0))[:6], size=(30, 40))
        with pytest.raises(DataError, match=r"m\.tif: shows none of the ground that its photo shows"):
            lay_on(np.ones((30, 40)), mask, Georeference(tuple(UTM)[:6], size=(30, 40)), tmp_path / "m.tif")

    def test_without_rasterio_another_system_says_what_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "rasterio.warp", None)
        mask, photo = (Georeference(tuple(UTM)[:6], system, (30, 40)) for system in ("EPSG:4326", "EPSG:32633"))
        with pytest.raises(
            DataError,
            match=r"m\.tif: is in another coordinate system .*EPSG:32633 and EPSG:4326; run pip",
        ):
            lay_on(np.ones((30, 40)), mask, photo, tmp_path / "m.tif")

    @pytest.mark.parametrize(
        ("other", "same"),
        [
            (UTM, True),
            (UTM @ Affine.translation(0.3, 0.3), True),
            (UTM @ Affine.translation(1, 0), False),
            (UTM @ Affine.scale(1.1), False),
        ],
    )
    def test_grids_are_the_same_to_half_a_pixel(self, other, same):
        one, two = (Georeference(tuple(transform)[:6], size=(30, 40)) for transform in (UTM, other))
        assert is_same_grid(one, two) is same


class TestDataset:
    def test_masks_of_a_larger_extent_are_laid_on_their_photos(self, tmp_path):
        numbers = np.random.default_rng(2).integers(0, 3, (60, 80)).astype(np.uint8)
        for i in range(6):
            geotiff(tmp_path / "images" / f"{i}.tif", picture(), UTM @ Affine.translation(2 * i + 30, 4 * i))
            geotiff(tmp_path / "masks" / f"{i}.tif", numbers)
        dataset = open_dataset(tmp_path)
        assert any("laid on them by their georeference" in note for note in dataset.notes)
        for sample in dataset.samples:
            i = int(sample.photo.stem)
            expected = np.full((30, 40), 255)
            cut = numbers[4 * i : 4 * i + 30, 2 * i + 30 : 2 * i + 70]
            expected[: len(cut), : cut.shape[1]] = cut
            np.testing.assert_array_equal(dataset.load(sample)[1], expected)

    def lay_tiles(self, root, tiles, masks):
        """Photos of 30x40 pixels, each `(row, column)` of a grid, and rasters of labels, with what they hold."""
        for name, numbers in masks.items():
            geotiff(root / name, numbers)
        for row, column in tiles:
            place = UTM @ Affine.translation(40 * column, 30 * row)
            geotiff(root / "tiles" / f"{row}_{column}.tif", picture(), place)

    @pytest.mark.parametrize("name", ["labels.tif", "map.tif", "truth/area.tif"])
    def test_one_raster_of_labels_covers_many_photos(self, tmp_path, name):
        numbers = np.kron(np.random.default_rng(2).integers(0, 3, (30, 40)), np.ones((3, 4))).astype(np.uint8)
        tiles = [(row, column) for row in range(3) for column in range(4)]
        self.lay_tiles(tmp_path, [*tiles, (9, 9)], {name: numbers})
        dataset = open_dataset(tmp_path)
        assert len(dataset.samples) == 12 and any("within the labels of" in note for note in dataset.notes)
        assert any("9_9.tif: has no mask" in problem for problem in dataset.problems)
        for sample in dataset.samples:
            row, column = map(int, sample.photo.stem.split("_"))
            expected = numbers[30 * row : 30 * row + 30, 40 * column : 40 * column + 40]
            np.testing.assert_array_equal(dataset.load(sample)[1], expected)

    def test_two_rasters_over_one_photo_are_settled_by_masks(self, tmp_path):
        numbers = np.kron(np.random.default_rng(2).integers(0, 3, (30, 40)), np.ones((2, 2))).astype(np.uint8)
        tiles = [(row, column) for row in range(2) for column in range(2)]
        self.lay_tiles(tmp_path, tiles, {"labels_a.tif": numbers, "labels_b.tif": 2 - numbers})
        with pytest.raises(DataError, match=r"labels_a\.tif and labels_b\.tif both cover it; say by `masks`"):
            open_dataset(tmp_path)
        dataset = open_dataset(tmp_path, masks="labels_b.tif")
        assert {sample.mask.name for sample in dataset.samples} == {"labels_b.tif"} and len(dataset.samples) == 4

    def test_no_data_of_a_mask_has_no_class(self, tmp_path):
        numbers = np.array([[0, 1, 9], [1, 0, 9]], np.uint8)
        path = geotiff(tmp_path / "mask.tif", numbers, nodata=9)
        assert read_mask(path).transparent.tolist() == [[False, False, True]] * 2
        photo = geotiff(tmp_path / "photo.tif", picture(2, 3))
        sample = Sample(photo, path)
        ids = Dataset(tmp_path, {"train": [sample]}, Palette.numbered(2)).load(sample)[1]
        assert ids.tolist() == [[0, 1, 255], [1, 0, 255]]


class TestPrediction:
    def predict(self, tmp_path, photos):
        palette = Palette.numbered(3)
        segmenter = Segmenter(lambda batch: np.float32(batch), (16, 16), palette)
        jobs = jobs_of({path.name: (path,) for path in photos}, tmp_path / "out", ["masks", "values", "colors"])
        assert all(not isinstance(result, Exception) for _, result in predict_files(segmenter, jobs.values()))
        return jobs

    @pytest.mark.parametrize("transform", [UTM, TURNED], ids=["upright", "turned"])
    def test_masks_lie_where_their_photos_do(self, tmp_path, transform):
        photo = geotiff(tmp_path / "x.tif", picture(), transform)
        Image.fromarray(picture()).save(tmp_path / "x.png")
        jobs = self.predict(tmp_path, [photo, tmp_path / "x.png"])
        with Image.open(jobs["x.png"].files["masks"]) as plain:
            expected = np.asarray(plain)
        with rasterio.open(photo) as place, rasterio.open(jobs["x.tif"].files["masks"]) as mask:
            assert mask.transform.almost_equals(place.transform) and mask.crs == place.crs
            assert mask.nodata == 255 and mask.colormap(1)[0][:3] == Palette.numbered(3).colors[0]
            np.testing.assert_array_equal(mask.read(1), expected)
        with rasterio.open(jobs["x.tif"].files["values"]) as mask:
            np.testing.assert_array_equal(mask.read(1), expected)
            assert mask.nodata is None
        with rasterio.open(jobs["x.tif"].files["colors"]) as mask:
            np.testing.assert_array_equal(
                np.moveaxis(mask.read(), 0, 2), np.uint8(Palette.numbered(3).colors)[expected]
            )
        assert notes_of(jobs) == [
            "1 of 2 photos know where on Earth they lie; their masks are GeoTIFF files at the same place"
        ]

    def test_without_rasterio_a_world_file_and_a_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(predictions, "can_write_geotiff", lambda: False)
        photo = geotiff(tmp_path / "x.tif", picture())
        jobs = self.predict(tmp_path, [photo])
        mask = jobs["x.tif"].files["masks"]
        assert mask.suffix == ".png" and georeference.read_georeference(mask).transform == tuple(UTM)[:6]
        (note,) = notes_of(jobs)
        assert "world file each, without the coordinate system: run pip install" in note
