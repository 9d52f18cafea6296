"""Event files, read back by TensorBoard itself."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from semseg.tensorboard import EventLog


@pytest.fixture()
def read(monkeypatch):
    """From a folder to what TensorBoard sees in it; without TensorFlow, as TensorBoard's own switch has it."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def accumulate(folder):
        return reader.EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()

    return accumulate


@pytest.mark.plain
def test_tensorboard_reads_scalars_and_pictures(tmp_path, read):
    image = np.zeros((30, 50, 3), np.uint8)
    image[:, 25:] = 255, 0, 0
    with EventLog(tmp_path) as log:
        for step in (1, 2, 300):
            log.scalars({"loss/training": 1 / step, "größe": -2.5}, step)
        log.image("first batch", image, step=0)
    found = read(tmp_path)
    assert found.Tags()["scalars"] == ["loss/training", "größe"]
    assert [(of.step, of.value) for of in found.Scalars("loss/training")] == [
        (1, 1), (2, 0.5), (300, pytest.approx(1 / 300))
    ]  # fmt: skip
    assert [of.value for of in found.Scalars("größe")] == [-2.5] * 3
    (picture,) = found.Images("first batch")
    assert (picture.step, picture.width, picture.height) == (0, 50, 30)
    decoded = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)), int)
    assert np.abs(decoded - image)[:, [5, 45]].max() < 8


@pytest.mark.plain
def test_a_file_that_was_cut_is_read_up_to_the_cut(tmp_path, read):
    with EventLog(tmp_path) as log:
        log.scalars({"loss": 1.0}, 1)
        log.scalars({"loss": 2.0}, 2)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert [of.value for of in read(tmp_path).Scalars("loss")] == [1.0]


def test_a_run_logs_what_its_results_hold(tmp_path, pairs, read):
    import csv
    import json

    from semseg.cli import main

    small = ["--image-size", "16", "--filters", "2", "--epochs", "2", "--limit", "4", "--workers", "0"]
    assert main(["--data", str(pairs), "--output", str(tmp_path), *small]) == 0
    found = read(tmp_path / "tensorboard")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves = {"loss/training": "loss", "mean_iou/validation": "val_mean_iou", "learning_rate": "learning_rate"}
    for name, column in curves.items():
        expected = [(i, pytest.approx(float(row[column]), rel=1e-6)) for i, row in enumerate(rows, start=1)]
        assert [(of.step, of.value) for of in found.Scalars(name)] == expected
    scored = json.loads((tmp_path / "metrics.json").read_text())["per_class"]
    for name, scores in scored.items():
        if scores["iou"] is not None:
            assert found.Scalars(f"iou/{name}")[0].value == pytest.approx(scores["iou"], abs=1e-6)
    assert found.Tags()["images"][0] == "first batch" and len(found.Tags()["images"]) == 4
