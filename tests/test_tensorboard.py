"""Event files, read back by TensorBoard itself."""

import sys
import types

import pytest


@pytest.fixture()
def read(monkeypatch):
    """From a folder to what TensorBoard sees in it; without TensorFlow, as TensorBoard's own switch has it."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def accumulate(folder):
        return reader.EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()

    return accumulate


@pytest.mark.plain
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
            assert found.Scalars(f"iou/{name.replace(' ', '_')}")[0].value == pytest.approx(scores["iou"], abs=1e-6)
    assert found.Tags()["images"][0] == "first_batch" and len(found.Tags()["images"]) == 4
