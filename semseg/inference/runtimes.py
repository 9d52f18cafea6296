"""Runtimes that compute exported files without Keras: ONNX Runtime, OpenVINO, LiteRT, TensorFlow and PyTorch.

Each runtime is imported when a file of its format is opened. A file is opened only if its content can do nothing but
compute: see `semseg.inference.exported_safety`.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semseg.inference.exported_safety import check_pt2, check_saved_model

KEY = "semseg"  # what the description is called inside a file


@dataclass(frozen=True)
class Opened:
    """A file that a runtime has loaded.

    Attributes:
        compute: From `(N, h, w, 3)` of `dtype`, 0 to 255, to what the file gives.
        shape: Of its input, `(N, h, w, 3)`; None where it takes any number.
        dtype: NumPy's name of its input's type.
        description: That inside it, as JSON of `ModelCard.to_dict`; None where there is none.
    """

    compute: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int | None, ...]
    dtype: str
    description: str | None = None


@dataclass(frozen=True)
class Runtime:
    """One kind of exported file.

    Attributes:
        suffix: What its files end with.
        module: What Python imports to run it.
        extra: The extra of this package that brings it.
        open: Loads a file.
    """

    suffix: str
    module: str
    extra: str
    open: Callable[[Path], Opened]


def _threads() -> int:
    """The threads that a runtime may use: as many as PyTorch would take, `OMP_NUM_THREADS` or one per core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else os.cpu_count() or 1


def _open_onnx(path: Path) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = _threads(), 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    network_input = session.get_inputs()[0]
    shape = tuple(side if isinstance(side, int) else None for side in network_input.shape)
    dtype = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}.get(network_input.type, network_input.type)
    description = session.get_modelmeta().custom_metadata_map.get(KEY)
    return Opened(lambda photos: session.run(None, {network_input.name: photos})[0], shape, dtype, description)


def _open_openvino(path: Path) -> Opened:
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": _threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(network, "CPU", exact)  # without the hint, CPUs with bfloat16 use it
    network_input = network.input(0)
    shape = tuple(side.get_length() if side.is_static else None for side in network_input.partial_shape)
    description = network.get_rt_info([KEY]).astype(str) if network.has_rt_info([KEY]) else None
    dtype = np.dtype(network_input.element_type.to_dtype()).name
    return Opened(lambda photos: compiled(photos)[0], shape, dtype, description)


def _open_litert(path: Path) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=_threads())
    (network_input, *_), (network_output, *_) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = tuple(None if side < 0 else int(side) for side in network_input["shape_signature"])

    def compute(photos: np.ndarray) -> np.ndarray:
        if shape[0] == 1 and len(photos) > 1:
            return np.concatenate([compute(photos[i : i + 1]) for i in range(len(photos))])
        interpreter.resize_tensor_input(network_input["index"], photos.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(network_input["index"], photos)
        interpreter.invoke()
        return interpreter.get_tensor(network_output["index"])

    return Opened(compute, (None, *shape[1:]), np.dtype(network_input["dtype"]).name)


def _open_saved_model(path: Path) -> Opened:
    check_saved_model(path)
    import tensorflow

    loaded = tensorflow.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (network_input,) = serve.structured_input_signature[1].values()
    return Opened(
        lambda photos: next(iter(serve(tensorflow.constant(photos)).values())).numpy(),
        tuple(network_input.shape),
        network_input.dtype.name,
        _text_of(path / "assets.extra" / f"{KEY}.json"),
    )


def _open_pt2(path: Path) -> Opened:
    check_pt2(path)
    import torch

    extra = {f"{KEY}.json": ""}
    program = torch.export.load(path, extra_files=extra)
    network = program.module()
    names = program.graph_signature.user_inputs  # the graph's other inputs are its weights
    network_input = next(node for node in program.graph.nodes if node.name in names).meta["val"]
    shape = tuple(side if isinstance(side, int) else None for side in network_input.shape)

    def compute(photos: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(photos)).numpy()

    return Opened(compute, shape, str(network_input.dtype).removeprefix("torch."), extra[f"{KEY}.json"] or None)


RUNTIMES = {
    "onnx": Runtime(".onnx", "onnxruntime", "onnx", _open_onnx),
    "openvino": Runtime(".xml", "openvino", "openvino", _open_openvino),
    "litert": Runtime(".tflite", "ai_edge_litert", "litert", _open_litert),
    "tf_saved_model": Runtime("_saved_model", "tensorflow", "tensorflow", _open_saved_model),
    "torch": Runtime(".pt2", "torch", "torch", _open_pt2),
}


def runtime_of(path: Path) -> str | None:
    """The format of an exported file, by its name; None for Keras' own files and whatever else it is.

    Example:
        >>> runtime_of(Path("unet.onnx")), runtime_of(Path("unet.keras"))
        ('onnx', None)
    """
    if (path / "saved_model.pb").is_file():
        return "tf_saved_model"
    return next((name for name, runtime in RUNTIMES.items() if path.suffix == runtime.suffix), None)


def files_of(path: Path) -> list[Path]:
    """All files that an exported model consists of.

    Args:
        path: The file, or the folder of a SavedModel.

    Returns:
        The files of a SavedModel's folder; with OpenVINO's the weights beside it; else the file alone.
    """
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    weights = path.with_suffix(".bin")
    return [path, weights] if runtime_of(path) == "openvino" and weights.is_file() else [path]


def digest_of(path: Path) -> str:
    """SHA-256 of all that a model's file consists of, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
