"""`python -m semseg export`: files of other runtimes, each against the Keras model that it came from."""

import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from hashlib import sha256
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from helpers import REPOSITORY, draw_pair, make_folder, make_pairs

from semseg.architectures.encoder_unet import EncoderUnet
from semseg.cli import commands
from semseg.data import open_dataset
from semseg.errors import ModelFileError
from semseg.export import formats as export
from semseg.export.gate import Agreement
from semseg.images.reading import read_mask
from semseg.inference import trial
from semseg.inference.card import ModelCard, open_model
from semseg.inference.logits import as_logits, ids_of_logits
from semseg.inference.runtimes import RUNTIMES, files_of
from semseg.labels.palettes import Palette
from semseg.runs.config import RunConfig
from semseg.runs.run import Run
from semseg.segmentation_model import Unet

BACKEND = keras.backend.backend()


def load(path):
    return ModelCard.read(path).load()


SIZE = 16
SMALL_UNET = partial(Unet, filters=2, depth=1)
NOT_WRITTEN = pytest.mark.skipif(BACKEND not in export.FORMATS["onnx"].packages, reason=f"{BACKEND} writes no ONNX")


def make_run(folder, data, size=SIZE, build=SMALL_UNET):
    dataset = open_dataset(data)
    folder.mkdir()
    keras.utils.set_random_seed(1)
    build((size, size, 3), dataset.num_logits).save(folder / "unet_model.keras")
    (folder / "classes.json").write_text(json.dumps(dataset.palette.to_dict()))
    Run(folder).write_config(RunConfig(data=str(data), image_size=(size, size)), {}, {})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with an untrained network of 19 classes."""
    folder = tmp_path_factory.mktemp("exported")
    return make_run(folder / "run", make_pairs(folder / "data", train=4, val=3))


@pytest.fixture(scope="module")
def photos():
    return np.stack([draw_pair(seed, SIZE)[0] for seed in range(3)])


@pytest.fixture(scope="module")
def logits(run, photos):
    model = keras.saving.load_model(run / "unet_model.keras", compile=False)
    return np.asarray(keras.ops.convert_to_numpy(model(photos.astype("float32"), training=False)))


def softmax(values):
    exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def export_to(run, *flags):
    return commands(["export", str(run), *map(str, flags)])


def needs(name):
    """Skips a format that this backend cannot write, or whose packages are not installed."""
    packages = export.FORMATS[name].packages
    if BACKEND not in packages:
        pytest.skip(f"{BACKEND} cannot write {name}")
    runtime = [(RUNTIMES[name].module, "")] if name in RUNTIMES else []
    for module, _ in [*packages[BACKEND], *runtime]:
        pytest.importorskip(module, reason=f"{name} needs {module}")


@pytest.mark.parametrize("name", list(export.FORMATS))
def test_a_file_passes_its_gate_and_gives_the_models_answers(name, run, photos, logits, tmp_path, capsys):
    needs(name)
    target = tmp_path / f"x{export.FORMATS[name].suffix}"
    assert export_to(run, "--format", name, "--output", target) == 0
    assert "pixels of the same class" in capsys.readouterr().out
    described = json.loads((tmp_path / "export.json").read_text())[target.name]
    assert described["compared"]["photos"] == 3 and described["compared"]["difference"] < 1e-3
    segmenter = load(target)
    assert segmenter.image_size == (SIZE, SIZE)
    for count in (1, 3):  # any number at once
        found = segmenter.predict_batch(photos[:count])
        np.testing.assert_allclose(softmax(found), softmax(logits[:count]), atol=1e-4)
    expected = {target.name, "export.json", "classes.json"} | ({"x.bin"} if name == "openvino" else set())
    assert {path.name for path in tmp_path.iterdir()} == expected
    keras.utils.save_img(tmp_path / "photo.png", photos[0], scale=False)
    for _ in range(2):  # the second call goes on with what the first one did
        assert commands(["predict", str(target), str(tmp_path / "photo.png"), "--output", str(tmp_path / "out")]) == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "photo.png").pixels, logits[0].argmax(axis=-1))
    if name in ("onnx", "openvino", "torch", "tf_saved_model"):  # which have a place for names and colours
        for beside in ("export.json", "classes.json"):
            (tmp_path / beside).unlink()
        assert load(target).palette.names[:2] == ("road", "sidewalk")


@NOT_WRITTEN
def test_an_encoder_for_phones_passes_the_gate(run, tmp_path):
    """Depthwise convolutions, strides with "same" padding, and ReLU6."""
    needs("onnx")
    build = partial(EncoderUnet, filters=2, encoder="EfficientNetLite0", weights=None)
    folder = make_run(tmp_path / "run", Run(run).config.data, 32, build)
    assert export_to(folder, "--format", "onnx", "--output", tmp_path / "x.onnx") == 0
    assert json.loads((tmp_path / "export.json").read_text())["x.onnx"]["compared"]["difference"] < 1e-3


@pytest.mark.plain
def test_a_network_consists_of_all_of_its_files(tmp_path):
    inside = ["x_saved_model/saved_model.pb", "x_saved_model/variables/variables.index"]
    for name in ("x.onnx", "x.bin", "x.xml", *inside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name, held in (("x.onnx", ["x.onnx"]), ("x.xml", ["x.xml", "x.bin"]), ("x_saved_model", inside)):
        assert files_of(tmp_path / name) == [tmp_path / path for path in held]


@NOT_WRITTEN
def test_another_runtime_needs_nothing_of_ours(run, photos, logits, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    for gives, expected in (("probabilities", softmax(logits)), ("ids", logits.argmax(axis=-1))):
        assert export_to(run, "--format", "onnx", "--gives", gives, "--output", tmp_path / f"{gives}.onnx") == 0
        session = onnxruntime.InferenceSession(tmp_path / f"{gives}.onnx")
        (found,) = session.run([gives], {"photos": photos})
        np.testing.assert_allclose(found, expected, atol=1e-4)
        segmenter = load(tmp_path / f"{gives}.onnx")
        np.testing.assert_array_equal(ids_of_logits(segmenter.predict_batch(photos)), logits.argmax(axis=-1))


@NOT_WRITTEN
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_computes_in_8_bits_and_is_judged_by_mean_iou(name, run, tmp_path, capsys):
    needs(name)
    assert export_to(run, "--format", name, "--int8", "--output", tmp_path / f"x{export.FORMATS[name].suffix}") == 0
    assert "change of mean IoU" in capsys.readouterr().out
    content = b"".join(path.read_bytes() for path in tmp_path.glob("x.*"))
    assert (b"QuantizeLinear" if name == "onnx" else b"FakeQuantize") in content


@NOT_WRITTEN
def test_a_file_that_was_tampered_with_does_not_appear(run, tmp_path, monkeypatch, capsys):
    written = export.FORMATS["onnx"]

    def tampered(model, *arguments):
        other = keras.models.clone_model(model)
        other.set_weights([weight + 0.05 for weight in model.get_weights()])
        written.write(other, *arguments)

    monkeypatch.setitem(export.FORMATS, "onnx", dataclasses.replace(written, write=tampered))
    assert export_to(run, "--format", "onnx", "--output", tmp_path / "x.onnx") == 1
    error = capsys.readouterr().err
    assert "x.onnx: " in error and "differs by" in error and "it was removed" in error
    assert not list(tmp_path.iterdir())


@NOT_WRITTEN
def test_evaluate_takes_an_exported_file_with_its_runs_data(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    assert export_to(folder, "--format", "onnx") == 0
    assert commands(["evaluate", str(folder / "unet_model.onnx"), "--output", str(tmp_path / "judged")]) == 0
    found = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    expected, _ = json.loads((folder / "export.json").read_text())["unet_model.onnx"]["compared"]["iou"]
    assert found["macro_iou"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.plain
def test_a_keras_file_that_gives_probabilities_is_not_exported_as_if_they_were_logits(run, tmp_path, capsys):
    target = tmp_path / "unet_model_probabilities.keras"
    assert export_to(run, "--format", "keras", "--gives", "probabilities", "--output", target) == 0
    capsys.readouterr()
    assert export_to(target, "--format", "keras", "--output", tmp_path / "again.keras") == 5
    assert "ends in a softmax or sigmoid; expected logits" in capsys.readouterr().err
    with pytest.raises(ModelFileError, match="ends in a softmax"):
        open_model(target)
    assert load(target).palette.names[0] == "road"  # evaluate and predict know what it gives


@pytest.mark.plain
def test_a_damaged_list_of_exports_is_written_anew(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    (folder / "export.json").write_text("{broken")
    assert export_to(folder, "--format", "h5") == 0
    assert set(json.loads((folder / "export.json").read_text())) == {"unet_model.h5"}


@NOT_WRITTEN
def test_an_onnx_file_is_opened_without_keras(run, tmp_path):
    assert export_to(run, "--format", "onnx", "--output", tmp_path / "x.onnx") == 0
    code = (
        "import sys; from semseg.inference.card import ModelCard\n"
        f"ModelCard.read({str(tmp_path / 'x.onnx')!r}).load(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {"keras", "torch", "tensorflow", "jax"} & set(done.stdout.split())


def write_onnx(path, nodes):
    """A file from photos to logits of 3 classes: the photos, after these nodes turned `photos` into `y`."""
    photos, answer = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 8, 8, 3]) for name in ("photos", "y")
    )
    graph = onnx.helper.make_graph(nodes, "x", [photos], [answer])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def endless_loop():
    """An ONNX loop whose condition stays true."""
    condition_in, condition = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in ("before", "after")
    )
    count = onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("v", "w")]
    steps = [onnx.helper.make_node("Identity", ["before"], ["after"]), onnx.helper.make_node("Sin", ["v"], ["w"])]
    body = onnx.helper.make_graph(steps, "body", [count, condition_in, values[0]], [condition, values[1]])
    true = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    return [
        onnx.helper.make_node("Constant", [], ["go"], value=true),
        onnx.helper.make_node("Loop", ["", "go", "photos"], ["y"], body=body),
    ]


@pytest.mark.plain
class TestFilesThatNobodyVouchesFor:
    def test_a_flipped_bit_and_an_exchanged_file_are_found_before_they_run(self, run, tmp_path, monkeypatch):
        target = tmp_path / "x.h5"
        assert export_to(run, "--format", "h5", "--output", target) == 0
        good = target.read_bytes()
        assert json.loads((tmp_path / "export.json").read_text())["x.h5"]["sha256"] == sha256(good).hexdigest()
        load(target)
        monkeypatch.setattr(keras.saving, "load_model", None)  # nothing gets that far
        for bad in (good[:5000] + bytes([good[5000] ^ 4]) + good[5001:], b"another file"):
            target.write_bytes(bad)
            with pytest.raises(ModelFileError, match=r"x\.h5: has other bytes than when it was exported, says export"):
                load(target)

    def test_an_endless_loop_is_refused_in_time_and_other_files_run(self, tmp_path, monkeypatch):
        assert load(write_onnx(tmp_path / "x.onnx", [onnx.helper.make_node("Identity", ["photos"], ["y"])]))
        monkeypatch.setattr(trial, "MAX_SECONDS", 4)
        with pytest.raises(ModelFileError, match=r"y\.onnx: does not come to an end with two photos in 4 seconds"):
            load(write_onnx(tmp_path / "y.onnx", endless_loop()))

    def test_a_file_that_ends_its_process_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(trial, "_PROGRAM", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
        with pytest.raises(ModelFileError, match=r"x\.onnx: ends the process that runs it \(signal 11\)"):
            load(write_onnx(tmp_path / "x.onnx", [onnx.helper.make_node("Identity", ["photos"], ["y"])]))


def test_two_classes_of_one_logit(tmp_path):
    folder = make_folder(tmp_path / "data", 6)
    for path in (folder / "masks").iterdir():
        keras.utils.array_to_img((keras.utils.img_to_array(keras.utils.load_img(path))[..., :1] > 1) * 255.0,
                                 scale=False).save(path)  # fmt: skip
    run = make_run(tmp_path / "run", folder)
    gives = "probabilities" if BACKEND == "jax" else "ids"
    name = "h5" if BACKEND == "jax" else "onnx"
    assert export_to(run, "--format", name, "--gives", gives) == 0
    model = keras.saving.load_model(run / "unet_model.keras", compile=False)
    photo = draw_pair(0, SIZE)[0][None]
    segmenter = load(run / f"unet_model_{gives}{export.FORMATS[name].suffix}")
    expected = np.asarray(model.predict_on_batch(photo))[..., 0] > 0
    np.testing.assert_array_equal(ids_of_logits(segmenter.predict_batch(photo)), expected)


@pytest.mark.plain
class TestNumbers:
    def test_logits_of_what_a_file_gives(self):
        probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], np.float32)
        np.testing.assert_allclose(softmax(as_logits(probabilities, "probabilities", 3)), probabilities, atol=1e-6)
        one = as_logits(np.array([[0.0], [0.25], [1.0]]), "probabilities", 2)
        assert np.isfinite(one).all()
        np.testing.assert_allclose(1 / (1 + np.exp(-one[1])), 0.25, rtol=1e-6)
        assert ids_of_logits(as_logits(np.array([[2, 0]]), "ids", 3)).tolist() == [[2, 0]]

    @pytest.mark.parametrize(
        ("precision", "changes", "said"),
        [
            ("float32", {}, ""),
            ("float32", {"difference": 2e-3}, "differs by 0.002"),
            ("float32", {"difference": float("inf")}, "differs by inf"),
            ("float32", {"equal_ids": 0.99}, "99.00% of the pixels"),
            ("int8", {"difference": 0.4, "equal_ids": 0.9, "iou": (0.6, 0.595)}, ""),
            ("int8", {"iou": (0.6, 0.58)}, "falls by 0.0200"),
            ("int8", {"equal_ids": 0.97, "iou": None}, "97.00% of the pixels"),
        ],
    )
    def test_the_gate(self, precision, changes, said):
        values = {"photos": 4, "difference": 1e-6, "equal_ids": 1.0, "iou": (0.6, 0.6), "milliseconds": (2.0, 1.0)}
        found = "; ".join(Agreement(**{**values, **changes}).shortfalls(precision))
        assert (said in found) and bool(said) == bool(found)


class TestBadInput:
    @pytest.fixture()
    def fails(self, capsys, tmp_path):
        def check(code, *parts, arguments):
            assert commands(["export", *map(str, arguments)]) == code
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1, error
            for part in parts:
                assert part in error, error

        return check

    def test_no_model(self, fails, tmp_path):
        (tmp_path / "x.keras").write_bytes(b"\x80\x04]\x94.")
        fails(5, "x.keras: cannot be opened", arguments=[tmp_path / "x.keras", "--format", "h5"])
        fails(4, "no such file", arguments=[tmp_path / "y.keras", "--format", "h5"])

    def test_no_such_format_and_none_of_this_backend(self, fails, run):
        fails(2, "there is no 'onxx'", "openvino", arguments=[run, "--format", "onxx"])
        foreign, able = ("torch", "torch") if BACKEND != "torch" else ("tf_saved_model", "tensorflow or jax")
        fails(2, f"{BACKEND} cannot write {foreign}, {able} can", "backend", arguments=[run, "--format", foreign])
        fails(2, "int8", "not for h5; only onnx and openvino", arguments=[run, "--format", "h5", "--int8"])
        fails(2, "gives", "h5 holds layers only", arguments=[run, "--format", "h5", "--gives", "ids"])

    @NOT_WRITTEN
    def test_a_package_that_is_missing(self, fails, run, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else 1)
        fails(2, "needs onnx; run pip install -e '.[onnx]'", arguments=[run, "--format", "onnx"])

    def test_a_name_that_hides_the_format(self, fails, run, tmp_path):
        fails(2, "let it end in .h5", arguments=[run, "--format", "h5", "--output", tmp_path / "x.bin"])

    @NOT_WRITTEN
    def test_int8_without_photos(self, fails, run, tmp_path):
        shutil.copy(run / "unet_model.keras", tmp_path / "alone.keras")
        arguments = [tmp_path / "alone.keras", "--format", "onnx", "--int8"]
        fails(2, "int8", "needs training photos", arguments=arguments)

    @pytest.mark.plain
    def test_files_that_are_no_exports(self, tmp_path):
        for suffix, module in ((".onnx", "onnxruntime"), (".xml", "openvino"), (".pt2", "torch")):
            pytest.importorskip(module)
            (tmp_path / f"x{suffix}").write_bytes(b"\x80\x04]\x94.")
            with pytest.raises(ModelFileError, match=f"x{suffix}: "):
                load(tmp_path / f"x{suffix}")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A `.pt2` file of ours."""
    path = tmp_path_factory.mktemp("program") / "x.pt2"
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.ReLU()(keras.layers.Conv2D(3, 1)(inputs)))
    export.export_model(model, ModelCard(path, "torch", "logits", (8, 8), Palette.numbered(3)))
    return path


@pytest.mark.skipif(BACKEND != "torch", reason="torch writes them")
class TestProgramsOfOthers:
    """`.pt2` files that would run code when they are loaded."""

    def altered(self, program, path, change):
        with zipfile.ZipFile(program) as source, zipfile.ZipFile(path, "w") as target:
            members = change({name: source.read(name) for name in source.namelist()})
            for name, content in members.items():
                target.writestr(name, content)
        return path

    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            ("torch.ops.aten.relu.default", "torch.hub.load", "a call of torch.hub.load"),
            ("torch.ops.aten.relu.default", "torch.serialization.os.system", "a call of torch.serial"),
            ('"guards_code": []', '"guards_code": ["print(1)"]', "guards_code"),
            ("Symbol(", "__import__('os').system('touch x') or Symbol(", "the formula __import__"),
        ],
    )
    def test_calls_and_formulas_are_refused(self, program, tmp_path, before, after, said):
        def change(members):
            (name,) = [name for name in members if name.endswith("models/model.json")]
            text = members[name].decode()
            assert before in text
            return {**members, name: text.replace(before, after).encode()}

        with pytest.raises(ModelFileError, match=f"holds {said}"):
            load(self.altered(program, tmp_path / "x.pt2", change))

    def test_pickles_are_refused(self, program, tmp_path):
        changed = self.altered(
            program, tmp_path / "x.pt2", lambda members: {**members, "x/data/sample_inputs/model.pt": b"\x80"}
        )
        with pytest.raises(ModelFileError, match="sample_inputs"):
            load(changed)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow writes them")
def test_a_saved_model_that_writes_files_is_refused(tmp_path):
    import tensorflow as tf

    class Evil(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.uint8)])
        def serve(self, photos):
            tf.io.write_file(str(tmp_path / "marker"), "x")
            return tf.cast(photos, tf.float32)

    evil = Evil()
    tf.saved_model.save(evil, str(tmp_path / "x_saved_model"), signatures={"serving_default": evil.serve})
    with pytest.raises(ModelFileError, match="the operation WriteFile"):
        load(Path(tmp_path / "x_saved_model"))
    assert not (tmp_path / "marker").exists()
