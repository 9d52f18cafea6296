"""A run's network computed by another runtime: exported once, kept by its weights, and the fastest one."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers import REPOSITORY, draw_pair, make_folder, save_rgb_network
from PIL import Image

from semseg.cli import commands
from semseg.errors import SemsegError
from semseg.export import keeping
from semseg.export.formats import FORMATS
from semseg.inference.card import ModelCard, needs_keras
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette
from semseg.runs.config import RunConfig
from semseg.runs.run import Run

BACKEND = keras.backend.backend()
WRITES_ONNX = pytest.mark.skipif(BACKEND not in FORMATS["onnx"].packages, reason=f"{BACKEND} writes no ONNX")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of what is kept, empty at first; files are compared on two drawn scenes."""
    monkeypatch.setattr("semseg.evaluation.photos.DRAWN", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "semseg" / "runtimes"


@pytest.fixture
def model(tmp_path):
    """A folder with a network that answers with the strongest of red, green and blue."""
    (tmp_path / "model").mkdir()
    return save_rgb_network(tmp_path / "model")


@pytest.fixture
def photos(tmp_path):
    """Three photos of 20 pixels."""
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        Image.fromarray(draw_pair(seed, 20)[0]).save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


def predict(model, photos, output, *flags):
    return commands(["predict", str(model), str(photos), "--output", str(output), *flags])


def masks(output):
    return {path.name: path.read_bytes() for path in sorted((output / "masks").iterdir())}


def change_weights(folder):
    """Red and blue change places."""
    network = keras.saving.load_model(folder / "rgb_model.keras", compile=False)
    network.layers[-1].set_weights([np.eye(3, dtype=np.float32)[::-1][None, None]])
    network.save(folder / "rgb_model.keras")


# ------------------------------------------------------------------------------------------------ where it is kept


def test_a_kept_file_is_bound_to_the_weights_the_size_and_the_runtime(model, cache):
    card = ModelCard.read(model)
    onnx, openvino = card.computed_by("onnx"), card.computed_by("openvino")
    names = [onnx.kept_file(None), onnx.kept_file((8, 8)), openvino.kept_file(None)]
    change_weights(model)
    names.append(onnx.kept_file(None))
    assert len(set(names)) == 4 and {path.parents[1] for path in names} == {cache}
    assert [path.suffix for path in names] == [".onnx", ".onnx", ".xml", ".onnx"]
    assert not onnx.is_kept(None) and needs_keras(model, "onnx")


def test_the_runtime_of_a_file_and_of_a_run_is_said(model):
    assert ModelCard.read(model).computed_by("onnx").device() == "the CPU, by onnx"
    assert ModelCard.read(model).computed_by("keras") == ModelCard.read(model)
    exported = ModelCard(model / "x.onnx", "onnx")
    assert exported.computed_by(None) == exported.computed_by("onnx") == exported
    with pytest.raises(SemsegError, match=r"`runtime`: .*x.onnx is an exported file, which onnx alone computes"):
        exported.computed_by("keras")


# ------------------------------------------------------------------------------------------------- from end to end


@WRITES_ONNX
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_same_masks_from_a_file_that_is_made_once(runtime, model, photos, tmp_path, capsys):
    assert predict(model, photos, tmp_path / "keras") == 0
    assert predict(model, photos, tmp_path / "other", "--runtime", runtime) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"for {runtime}, kept in" in said and "100.000% of the pixels" in said
    assert f"on the CPU, by {runtime}" in said
    assert masks(tmp_path / "other") == masks(tmp_path / "keras")
    assert not needs_keras(model, runtime)
    assert predict(model, photos, tmp_path / "again", "--runtime", runtime, "--tile", "8") == 0
    assert "exported" not in capsys.readouterr().out


@WRITES_ONNX
def test_once_it_is_kept_nothing_of_keras_is_loaded(model, photos, tmp_path):
    assert predict(model, photos, tmp_path / "first", "--runtime", "onnx") == 0
    arguments = ["predict", str(model), str(photos), "--output", str(tmp_path / "second"), "--runtime", "onnx"]
    code = f"import sys; from semseg.cli import commands\nassert commands({arguments!r}) == 0; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"keras", "torch", "tensorflow", "jax"} & set(done.stdout.splitlines()[-1].split())
    assert masks(tmp_path / "second") == masks(tmp_path / "first")


@WRITES_ONNX
def test_a_damaged_file_is_made_again_and_newer_weights_have_their_own(
    model, photos, tmp_path, cache, monkeypatch, capsys
):
    assert predict(model, photos, tmp_path / "first", "--runtime", "onnx") == 0
    (file,) = cache.glob("*/network.onnx")
    file.write_bytes(file.read_bytes()[:-1])
    capsys.readouterr()
    assert predict(model, photos, tmp_path / "second", "--runtime", "onnx") == 0
    assert "exported" in capsys.readouterr().out and masks(tmp_path / "second") == masks(tmp_path / "first")
    change_weights(model)
    monkeypatch.setattr(keeping, "MAX_AGE", -1)  # what nobody uses goes
    assert predict(model, photos, tmp_path / "newer", "--runtime", "onnx") == 0
    assert predict(model, photos, tmp_path / "expected") == 0
    assert masks(tmp_path / "newer") == masks(tmp_path / "expected") != masks(tmp_path / "first")
    assert len(list(cache.iterdir())) == 1 and not file.exists()


@WRITES_ONNX
def test_a_prediction_goes_on_in_the_runtime_that_began_it(model, photos, tmp_path, capsys):
    assert predict(model, photos, tmp_path / "out", "--runtime", "onnx") == 0
    for flags in ((), ("--runtime", "keras"), ("--runtime", "openvino")):
        assert predict(model, photos, tmp_path / "out", *flags) == 4
        assert "holds predictions with another setting (runtime)" in capsys.readouterr().err
    assert predict(model, photos, tmp_path / "out", "--runtime", "auto") == 0  # any will do: that of before
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of them are done" in said and "by onnx" in said and "times as fast" not in said
    assert predict(model, photos, tmp_path / "other") == 0
    settings = json.loads((tmp_path / "other" / "predictions.json").read_text())
    del settings["runtime"]  # as earlier versions wrote it
    (tmp_path / "other" / "predictions.json").write_text(json.dumps(settings))
    assert predict(model, photos, tmp_path / "other", "--runtime", "keras") == 0
    assert predict(model, photos, tmp_path / "other", "--runtime", "onnx") == 4


@WRITES_ONNX
def test_a_calibration_after_the_export_counts(tmp_path, photos):
    """The file is of the network as it learnt: temperature and threshold are applied outside."""
    folder = tmp_path / "two"
    folder.mkdir()
    network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(1, 1)])
    network.save(folder / "two_model.keras")
    assert predict(folder, photos, tmp_path / "first", "--runtime", "onnx", "--probabilities") == 0
    card = ModelCard.read(folder)
    chosen = dataclasses.replace(card.calibration, temperature=2.0, threshold=0.3)
    Run(folder).write_calibration(card.path, chosen, chosen.to_dict())
    assert predict(folder, photos, tmp_path / "second", "--runtime", "onnx", "--probabilities") == 0
    assert predict(folder, photos, tmp_path / "expected", "--probabilities") == 0
    before, after, expected = (
        np.load(tmp_path / name / "probabilities" / "0.npy") for name in ("first", "second", "expected")
    )
    np.testing.assert_allclose(after, expected, atol=2e-3)
    assert np.abs(before.astype(float) - after).max() > 0.01
    assert masks(tmp_path / "second") == masks(tmp_path / "expected")


@WRITES_ONNX
def test_several_runs_answer_together_by_another_runtime(model, photos, tmp_path):
    for number in (1, 2):
        run = tmp_path / "runs" / str(number)
        shutil.copytree(model, run)
        (run / "rgb_model.keras").rename(run / "unet_model.keras")
        Run(run).write_config(RunConfig(image_size=(16, 16)), {}, {"image_size": (16, 16), "task": "multiclass"})
        for name in Run(run).missing_files():
            (run / name).write_text("")
    card = ModelCard.read(tmp_path / "runs")
    assert len(card.members) == 2
    assert predict(tmp_path / "runs", photos, tmp_path / "keras") == 0
    assert predict(tmp_path / "runs", photos, tmp_path / "onnx", "--runtime", "onnx") == 0
    assert masks(tmp_path / "onnx") == masks(tmp_path / "keras")


@WRITES_ONNX
def test_evaluate_judges_by_another_runtime(tmp_path, capsys):
    data = make_folder(tmp_path / "data", 3)
    (tmp_path / "four").mkdir()
    keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 1)]).save(tmp_path / "four" / "four_model.keras")
    options = ["--data", str(data), "--output", str(tmp_path / "out"), "--runtime", "onnx"]
    assert commands(["evaluate", str(tmp_path / "four"), *options]) == 0
    assert "on the CPU, by onnx" in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["runtime"] == "onnx"


# ------------------------------------------------------------------------------------------------------- bad input


class TestBadInput:
    @WRITES_ONNX
    def test_a_file_that_does_not_pass_is_not_kept(self, model, photos, tmp_path, cache, monkeypatch, capsys):
        written = keeping.write_and_compare
        monkeypatch.setattr(
            keeping, "write_and_compare", lambda *each: dataclasses.replace(written(*each), difference=0.5)
        )
        assert predict(model, photos, tmp_path / "out", "--runtime", "onnx") == 1
        error = capsys.readouterr().err
        assert re.match(r"error: --runtime: onnx does not give the answers of .*a probability differs by 0.5", error)
        assert list(cache.iterdir()) == [] and not (tmp_path / "out").exists()

    def test_a_runtime_that_is_not_there_names_its_extra(self, model, photos, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("semseg.errors.is_installed", lambda module: module != "openvino")
        assert predict(model, photos, tmp_path / "out", "--runtime", "openvino") == 2
        assert re.match(
            r"error: --runtime openvino: needs openvino; run pip install .*\[openvino\]'", capsys.readouterr().err
        )

    @pytest.mark.skipif(BACKEND != "jax", reason="the others write it")
    def test_a_backend_that_cannot_export_says_which_can(self, model, photos, tmp_path, capsys):
        assert predict(model, photos, tmp_path / "out", "--runtime", "onnx") == 2
        error = capsys.readouterr().err
        assert (
            error.startswith("error: --runtime: jax cannot write onnx, torch or tensorflow can")
            and "--backend" in error
        )

    @WRITES_ONNX
    def test_a_network_that_onnx_cannot_express(self, model, photos, tmp_path, monkeypatch, capsys):
        def fail(*args, **kwargs):
            raise NotImplementedError("no operator for this")

        monkeypatch.setattr(keras.Model, "export", fail)
        assert predict(model, photos, tmp_path / "out", "--runtime", "onnx") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --runtime: {BACKEND} could not write this network as onnx (no operator")

    @pytest.mark.plain
    def test_a_network_of_probabilities(self, model):
        card = dataclasses.replace(ModelCard.read(model), gives="probabilities").computed_by("onnx")
        with pytest.raises(SemsegError, match="gives probabilities, and not logits; give the run"):
            keeping.keep(card, None, None)

    def test_weights_that_change_meanwhile(self, model, monkeypatch):
        card = ModelCard.read(model).computed_by("onnx")
        with pytest.raises(SemsegError, match="was replaced since it was exported; run the same command again"):
            card.load()
        opened = ModelCard.keras_model
        monkeypatch.setattr(keeping, "check_format", lambda card: None)
        monkeypatch.setattr(ModelCard, "keras_model", lambda card: (opened(card), change_weights(model))[0])
        with pytest.raises(SemsegError, match="was replaced while it was read; run the same command again"):
            keeping.keep(card, None, None)

    @pytest.mark.plain
    @pytest.mark.parametrize("flags", [("--shard", "1/2"), ("--ray",)])
    def test_parts_must_agree(self, flags, model, photos, tmp_path, capsys):
        assert predict(model, photos, tmp_path / "out", "--runtime", "auto", *flags) == 2
        assert "--runtime: got auto, which may choose otherwise for each part" in capsys.readouterr().err

    @pytest.mark.plain
    def test_a_cache_that_cannot_be_written(self, model, photos, tmp_path, cache, capsys):
        cache.parent.parent.mkdir()
        cache.parent.write_text("a file in its place")
        if BACKEND == "jax":
            pytest.skip("jax writes no ONNX")
        assert predict(model, photos, tmp_path / "out", "--runtime", "onnx") == 4
        assert re.search(r"error: .*runtimes: cannot be written .*XDG_CACHE_HOME", capsys.readouterr().err)


# ----------------------------------------------------------------------------------------------------- the fastest


class TestAuto:
    @pytest.fixture
    def choose(self, monkeypatch):
        """Which of three runtimes that take so many seconds is taken, and what is said; None cannot be exported."""
        clock = [0.0]
        monkeypatch.setattr(keeping, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

        def choose(missing=(), **seconds):
            def load(card, **options):
                def predict_batch(photos):
                    assert photos.shape == (3, 4, 6, 3) and photos.dtype == np.uint8
                    clock[0] += seconds[card.runtime or "keras"]

                return Segmenter(predict_batch, (4, 6), Palette.numbered(2), batch_size=3)

            def keep(card, *rest):
                if seconds[card.runtime] is None:
                    raise SemsegError("no operator for this")

            monkeypatch.setattr(ModelCard, "load", load)
            monkeypatch.setattr(keeping, "keep", keep)
            monkeypatch.setattr(keeping, "is_installed", lambda module: module not in missing)
            lines = []
            card, _ = keeping.open_by(ModelCard("x.keras", "keras"), "auto", None, lambda *line: lines.append(line))
            return card.runtime, lines

        choose.clock = clock
        return choose

    def test_the_fastest_is_taken(self, choose):
        runtime, [(topic, line)] = choose(keras=0.02, onnx=0.01, openvino=0.004)
        assert (runtime, topic) == ("openvino", "runtime")
        assert line == (
            f"openvino, 5.00 times as fast as {BACKEND} here: 3 photos of 6x4 take keras 20.0 ms, onnx 10.0 ms, "
            "openvino 4.0 ms"
        )

    def test_slow_networks_are_measured_once(self, choose):
        assert choose(keras=2.0, onnx=1.0, openvino=1.5)[0] == "onnx"
        assert choose.clock == [9.0]  # two rounds, the first of which warms up
        assert choose(keras=0.3, onnx=0.3, openvino=0.3)[0] is None
        assert choose.clock[0] - 9.0 == pytest.approx(0.9 * 4)  # it ends after two seconds

    def test_keras_stays_where_none_is_fast_enough(self, choose):
        runtime, [(_, line)] = choose(keras=0.0119, onnx=0.010, openvino=0.012)
        assert runtime is None and line.startswith("keras, none is 1.2 times as fast here: 3 photos")

    def test_what_is_missing_or_cannot_be_exported_is_said(self, choose):
        runtime, lines = choose(missing=["openvino"], keras=0.01, onnx=None)
        assert runtime is None and lines[0] == ("note", "onnx is not tried: no operator for this")
        assert re.fullmatch(
            r"keras, no other can be tried; openvino is not installed \(pip install .*openvino.*\)", lines[1][1]
        )

    def test_on_a_gpu_nothing_is_tried(self, choose, monkeypatch):
        monkeypatch.setattr(keeping, "on_gpu", lambda: True)
        monkeypatch.setattr(keeping, "device_name", lambda: "a GPU")
        assert choose(keras=0.0) == (None, [("runtime", "keras, on a GPU; the others compute on the CPU")])
