"""Files from other hands: what Keras must never get to load, and what it must."""

import json
import re
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from helpers import REPOSITORY
from keras.src.saving.serialization_lib import SafeModeScope

from semseg.architectures import ARCHITECTURES, build_model
from semseg.errors import ModelFileError
from semseg.inference.card import open_model
from semseg.inference.model_file import _check_config, check_model_file
from semseg.segmentation_model import Unet

pytestmark = pytest.mark.plain  # files are looked at before any backend


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "x.keras"
    Unet((8, 8, 3), 3, filters=2, depth=1).save(path)
    return path


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_layer(saved, path, **layer):
    """The saved network with one layer put in place of its scaling."""
    members = members_of(saved)
    config = json.loads(members["config.json"])
    (place,) = [i for i, entry in enumerate(config["config"]["layers"]) if entry["class_name"] == "Rescaling"]
    config["config"]["layers"][place].update(layer)
    return write(path, {**members, "config.json": json.dumps(config)})


EVIL = {
    "lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "evil", "function": {
        "class_name": "__lambda__", "config": {"code": "4wAA", "defaults": None, "closure": None}}}},
    "lambda alone": {"config": {"name": "x", "scale": {"class_name": "__lambda__", "config": {"code": "4wAA"}}}},
    "saved model": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "elsewhere"}},
    "foreign module": {"module": "os", "class_name": "system", "config": {}},
    "foreign class": {"module": "my_package.layers", "class_name": "Conv2D", "registered_name": "my_package>Conv2D"},
    "registered": {"registered_name": "Custom>Rescaling"},
    "download": {"module": "keras.utils", "class_name": "get_file", "config": {}},
    "function": {"config": {"name": "x", "activation": {
        "module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"}}},
    "in a wrapper": {"module": "keras.layers", "class_name": "TimeDistributed", "config": {"name": "x", "layer": {
        "module": "keras.layers", "class_name": "Lambda", "config": {"name": "inner"}}}},
    "reads a file": {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "secrets.txt"}},
    "another framework": {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}},
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL)
def test_layers_that_could_do_harm_are_refused_and_named(saved, tmp_path, name):
    path = with_layer(saved, tmp_path / "x.keras", **EVIL[name])
    with pytest.raises(ModelFileError, match=r"x\.keras: holds the layer .* not loaded"):
        check_model_file(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_does_not_run_even_with_the_safe_mode_off(tmp_path, suffix):
    marker, path = tmp_path / "marker", tmp_path / f"x{suffix}"
    inputs = keras.Input((8, 8, 3))
    evil = eval(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]")
    keras.Model(inputs, keras.layers.Lambda(evil, output_shape=(8, 8, 3), name="evil")(inputs)).save(path)
    marker.unlink(missing_ok=True)
    with SafeModeScope(None):  # puts back what was there
        keras.config.enable_unsafe_deserialization()
        with pytest.raises(ModelFileError, match=r"holds the layer .*Lambda evil"):
            open_model(path)
        assert not marker.exists()
        keras.saving.load_model(path, compile=False, safe_mode=False)(np.zeros((1, 8, 8, 3)))
        assert marker.exists()  # the file was a true danger


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_our_own_networks_are_let_in(name):
    options = {"encoder_weights": "none"} if name == "encoder_unet" else {}
    model = build_model(name, (32, 32, 3), 3, filters=2, **options)
    _check_config(name, json.loads(model.to_json()))


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ResNet50V2"])
def test_networks_of_keras_are_let_in(name):
    model = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(32, 32, 3))
    _check_config(name, json.loads(model.to_json()))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_network_is_opened(tmp_path, suffix):
    Unet((8, 8, 3), 3, filters=2, depth=1).save(tmp_path / f"x{suffix}")
    assert open_model(tmp_path / f"x{suffix}").output_shape == (None, 8, 8, 3)


class TestSizesAndLinks:
    def refused(self, path, said):
        with pytest.raises(ModelFileError, match=said):
            check_model_file(path)

    def test_archives(self, saved, tmp_path):
        members = members_of(saved)
        bomb = {**members, "model.weights.h5": bytes(20_000_000)}
        self.refused(write(tmp_path / "a.keras", bomb, zipfile.ZIP_DEFLATED), "20 MB packed into 0.0")
        self.refused(write(tmp_path / "b.keras", {**members, "../x": b""}), r"holds \.\./x in its archive")
        self.refused(write(tmp_path / "c.keras", {**members, "model.weights.npz": b""}), "npz in its archive")
        self.refused(write(tmp_path / "d.keras", {**members, "config.json": b"[" * 200_000}), "cannot be opened")
        self.refused(write(tmp_path / "e.keras", {"config.json": b"{}"}), "cannot be opened")

    @pytest.mark.parametrize(
        ("said", "fill"),
        [
            ("4000 MB of arrays", lambda file: file.create_dataset("x", (10**9,), "f4", chunks=True)),
            ("the link x", lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/"))),
            ("another file", lambda file: file.create_dataset("x", (4,), "f4", external=[("y.bin", 0, 16)])),
            ("the array /x of object", lambda file: file.create_dataset("x", (4,), h5py.string_dtype())),
        ],
    )
    def test_hdf5_files(self, tmp_path, said, fill):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            fill(file)
        self.refused(tmp_path / "x.h5", said)

    def test_a_layer_of_terabytes(self, saved, tmp_path):
        members = members_of(saved)
        config = json.loads(members["config.json"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Conv2D":
                layer["config"]["filters"] = 10**6
        path = write(tmp_path / "x.keras", {**members, "config.json": json.dumps(config)})
        with pytest.raises(ModelFileError, match=r"x\.keras: cannot be opened"):
            open_model(path)

    def test_pickles_and_weights_alone(self, tmp_path):
        (tmp_path / "x.keras").write_bytes(b"\x80\x04\x95")
        self.refused(tmp_path / "x.keras", "neither an archive nor HDF5")
        Unet((8, 8, 3), 3, filters=2, depth=1).save_weights(tmp_path / "x.weights.h5")
        self.refused(tmp_path / "x.weights.h5", "weights without a network")

    def test_a_configuration_of_45_mb_is_refused_before_it_is_read(self, saved, tmp_path):
        config = json.dumps({"class_name": "Functional", "config": {"layers": [{"a": 1}] * 5_000_000}})
        path = write(tmp_path / "x.keras", {**members_of(saved), "config.json": config})
        code = (
            "import resource, sys; from pathlib import Path; from semseg.inference.model_file import check_model_file\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "try: check_model_file(Path(sys.argv[1]))\n"
            "except ValueError as error: print(error)\n"
            "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, path], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        said, megabytes = done.stdout.splitlines()
        assert re.search(r"holds a configuration of \d\d MB", said) and int(megabytes) < 50

    def test_an_hdf5_file_with_a_huge_configuration(self, tmp_path):
        path = tmp_path / "x.h5"
        Unet((8, 8, 3), 3, filters=2, depth=1).save(path)
        with h5py.File(path, "r+") as file:
            file.attrs["more"] = "x" * 30_000_000
        self.refused(path, r"holds \d\d MB that are no weights")

    @pytest.mark.parametrize("member", ["model.weights.h5", "config.json"])
    def test_a_flipped_bit_is_found(self, saved, tmp_path, member):
        data = bytearray(saved.read_bytes())
        with zipfile.ZipFile(saved) as archive:
            info = archive.getinfo(member)
        place = info.header_offset + 30 + len(member) + info.file_size * 3 // 4
        data[place] ^= 1
        (tmp_path / "x.keras").write_bytes(data)
        self.refused(tmp_path / "x.keras", "x.keras: cannot be opened .*expected a model that Keras saved")


HUGE = {
    "upsampling": lambda x: keras.layers.UpSampling2D(20_000)(x),
    "padding": lambda x: keras.layers.ZeroPadding2D(40_000)(x),
    "resizing": lambda x: keras.layers.Resizing(60_000, 60_000)(x),
    "tile": lambda x: keras.ops.tile(x, (1, 20_000, 20_000, 1)),
    "repeat": lambda x: keras.ops.repeat(x, 10**9, axis=1),
    "broadcast": lambda x: keras.ops.broadcast_to(x[..., :1], (1, 8, 8, 10**9)),
    "padding operation": lambda x: keras.ops.pad(x, ((0, 0), (0, 10**6), (0, 10**4), (0, 0))),
    "step by step": lambda x: keras.layers.UpSampling2D(200)(keras.layers.UpSampling2D(200)(x)),
    "in a network": lambda x: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.UpSampling2D(20_000),
                                                keras.layers.GlobalMaxPooling2D(keepdims=True)])(x),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGE)
def test_layers_that_make_gigabytes_of_a_photo_are_refused_before_they_compute(tmp_path, name):
    photos = keras.Input((8, 8, 3))
    made = keras.layers.GlobalMaxPooling2D(keepdims=True)(HUGE[name](photos))
    logits = keras.layers.Conv2D(3, 1)(photos) + made[..., :1]
    keras.Model(photos, logits).save(tmp_path / "x.keras")
    with pytest.raises(
        ModelFileError, match=r"x\.keras: (the layer .* makes .* billion numbers|holds the|cannot be op)"
    ):
        open_model(tmp_path / "x.keras")


@pytest.mark.parametrize("size", [(None, None), (512, 1024)], ids=["any", "large"])
def test_wide_networks_for_large_photos_are_let_in(tmp_path, size):
    Unet((*size, 3), 19, filters=64, depth=2).save(tmp_path / "x.keras")
    assert open_model(tmp_path / "x.keras").output_shape == (None, *size, 19)
