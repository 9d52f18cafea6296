"""The built-in demo set: the form of Kaggle's pairs, the same on every run, all or nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import REPOSITORY
from PIL import Image, JpegImagePlugin

from semseg.data import demo
from semseg.data.demo import draw_scene, make_demo
from semseg.data.demo.canvas import COLOURS, Label
from semseg.errors import DataError

pytestmark = pytest.mark.plain


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def distances(mask: np.ndarray) -> np.ndarray:
    """Squared distance of every pixel to every official colour, `(pixels, 20)`."""
    return ((mask.reshape(-1, 1, 3).astype(int) - COLOURS.astype(int)) ** 2).sum(-1)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "images"
    make_demo(folder, num_train=4, num_val=2)
    return folder


def test_same_seed_gives_the_same_files_whatever_the_count(made, tmp_path):
    make_demo(tmp_path, num_train=3, num_val=2)
    again = contents(tmp_path)
    assert list(again) == ["train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg", "val/2.jpg"]
    assert again == {name: data for name, data in contents(made).items() if name in again}


def test_every_scene_is_another(made):
    assert len(set(contents(made).values())) == 6


def test_another_seed_gives_other_streets(made, tmp_path):
    make_demo(tmp_path, num_train=1, num_val=0, seed=1)
    assert contents(tmp_path)["train/1.jpg"] != contents(made)["train/1.jpg"]


def test_files_have_the_form_of_kaggles_pairs(made):
    for path in made.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (512, 256), "RGB")
            assert JpegImagePlugin.get_sampling(image) == 2  # 4:2:0


def test_mask_lies_in_the_right_half_in_official_colours(made):
    with Image.open(made / "train" / "1.jpg") as image:
        pair = np.asarray(image)
    nearest = distances(pair[:, 256:]).min(1)
    assert (nearest < 300).mean() > 0.85
    assert (distances(pair[:, :256]).min(1) < 300).mean() < 0.5


@pytest.mark.parametrize("size", [64, 512])
def test_scene_has_the_size_asked_for(size):
    photo, mask = draw_scene([7, 0, 1], size=size)
    assert photo.shape == mask.shape == (size, size, 3)
    assert photo.dtype == mask.dtype == np.uint8
    assert photo.std() > 20


def test_mask_is_exact_at_full_size_and_blended_below():
    full, small = (draw_scene(5, size=size)[1] for size in (512, 256))
    assert distances(full).min(1).max() == 0
    assert np.array_equal(cv2.resize(full, (256, 256), interpolation=cv2.INTER_AREA), small)
    assert 0 < (distances(small).min(1) > 0).mean() < 0.15


def test_every_class_occurs_in_sixty_scenes():
    seen = np.zeros((60, len(COLOURS)), bool)
    for index in range(60):
        exact = draw_scene([0, 0, index], size=128)[1].reshape(-1, 3)
        seen[index] = (exact[:, None] == COLOURS).all(-1).any(0)
    assert seen.sum(0).min() >= 2, dict(zip(Label, seen.sum(0).tolist(), strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_refuses_to_overwrite(tmp_path, split):
    (tmp_path / split).mkdir()
    with pytest.raises(DataError, match=rf"{split}: exists already; remove it"):
        make_demo(tmp_path, num_train=1, num_val=1)
    assert [path.name for path in tmp_path.iterdir()] == [split]


def test_foreign_files_stay(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    make_demo(tmp_path, num_train=1, num_val=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "train", "val"]
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_run_killed_half_way_leaves_nothing(tmp_path, monkeypatch, error):
    def failing(pair):
        path, _ = pair
        if path.name == "2.jpg":
            raise error("killed")
        Image.new("RGB", (8, 8)).save(path)

    monkeypatch.setattr(demo, "_write_pair", failing)
    with pytest.raises(error, match="killed"):
        make_demo(tmp_path / "images", num_train=3, num_val=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="on Windows nobody can ask whether a process is alive without ending it")
def test_what_a_killed_run_left_goes_with_the_next_run(tmp_path):
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from semseg.data import demo
        demo._write_pair = lambda pair: os.kill(os.getpid(), signal.SIGKILL)
        demo.make_demo(Path(sys.argv[1]))
    """
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "images")], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".images.") and left.name.endswith(".tmp")
    others = [f".images.{os.getppid()}.tmp", left.name.replace("images", "masks"), ".images.tmp", f"{left.name}.txt"]
    for name in others:  # of a live process, of another set, of somebody else
        (tmp_path / name).mkdir()
    (tmp_path / f".images.{10**30}.tmp").mkdir()
    make_demo(tmp_path / "images", num_train=1, num_val=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["images", *others])
