"""What decodes, predicts and serves loads neither what draws charts and pages nor, for exported files, Keras."""

import subprocess
import sys

import onnx
import pytest
from helpers import REPOSITORY

pytestmark = pytest.mark.plain


def modules_after(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_predicting_and_serving_load_neither_matplotlib_nor_jinja2():
    loaded = modules_after("import semseg.inference.files, semseg.inference.video, semseg.serve.app")
    assert "semseg.labels.legend" in loaded
    assert not {"matplotlib", "jinja2", "keras", "torch", "tensorflow", "jax"} & loaded


def test_an_onnx_file_predicts_without_keras(tmp_path):
    photos = onnx.helper.make_tensor_value_info("photos", onnx.TensorProto.FLOAT, ["N", 8, 8, 3])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 8, 8, 3])
    node = onnx.helper.make_node("Identity", ["photos"], ["logits"])
    graph = onnx.helper.make_graph([node], "plain", [photos], [logits])
    version = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=version, ir_version=8), tmp_path / "x.onnx")
    loaded = modules_after(
        "import numpy as np\n"
        "from semseg.inference.card import ModelCard\n"
        "segmenter = ModelCard.read(sys.argv[1]).load()\n"
        "assert segmenter.image_size == (8, 8) and segmenter.palette.num_classes == 3\n"
        "assert segmenter.probabilities(np.zeros((8, 8, 3), np.uint8)).shape == (8, 8, 3)",
        tmp_path / "x.onnx",
    )
    assert "onnxruntime" in loaded
    assert not {"keras", "torch", "tensorflow", "jax", "matplotlib", "jinja2", "h5py"} & loaded
