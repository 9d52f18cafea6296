"""Exported files -> class ids: networks that ONNX Runtime, OpenVINO, LiteRT, TensorFlow or PyTorch run, without Keras.

Each runtime is imported when a file of its format is opened. A file is opened only if its content can do nothing but
compute: see `semseg.inference.exported_safety`.
"""

import importlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semseg.errors import ModelFileError, SemsegError, first_line
from semseg.inference.exported_safety import check_pt2, check_saved_model
from semseg.inference.segmenter import Segmenter
from semseg.labels.palettes import Palette

GIVES = ("logits", "probabilities", "ids")
KEY = "semseg"  # what the description is called inside a file
DESCRIPTIONS = "export.json"  # what it is called beside
_ID_LOGIT = 20.0  # the logit of a class that a file of ids names


@dataclass(frozen=True)
class Description:
    """What an exported file is; written into it where its format has a place, and beside it.

    Attributes:
        format: One of the formats.
        gives: One of `GIVES`.
        image_size: (height, width) that it sees.
        classes: Names and colours, as `Palette.to_dict` writes them.
        precision: `"float32"` or `"int8"`.
    """

    format: str
    gives: str
    image_size: tuple[int, int]
    classes: dict[str, Any]
    precision: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Description":
        """Returns what `to_dict` described.

        Raises:
            ValueError: Something is missing or of a wrong kind.
        """
        try:
            height, width = map(int, values["image_size"])
            known = {name: values[name] for name in ("format", "gives", "classes")}
            found = cls(**known, image_size=(height, width), precision=str(values.get("precision", "float32")))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its description misses {error}") from None
        if found.gives not in GIVES:
            raise ValueError(f"its description says that it gives {found.gives!r}")
        return found


@dataclass(frozen=True)
class Opened:
    """A file that a runtime has loaded.

    Attributes:
        compute: From `(N, h, w, 3)` of `dtype`, 0 to 255, to what the file gives.
        shape: Of its input, `(N, h, w, 3)`; None where it takes any number.
        dtype: NumPy's name of its input's type.
        description: That inside it, as JSON of `Description.to_dict`; None where there is none.
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
        package: What pip calls that.
        open: Loads a file.
    """

    suffix: str
    module: str
    package: str
    open: Callable[[Path], Opened]


def need(module: str, package: str, purpose: str) -> None:
    """Checks that a package is installed, without importing it.

    Args:
        module: What Python imports, such as `"ai_edge_litert"`.
        package: What pip calls it, such as `"ai-edge-litert"`.
        purpose: What wants it, for the message.

    Raises:
        SemsegError: It is not; the message names the pip command.
    """
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        found = False
    if not found:
        raise SemsegError(f"{purpose}: needs {package}, which is not installed; run 'pip install {package}'")


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
    "onnx": Runtime(".onnx", "onnxruntime", "onnxruntime", _open_onnx),
    "openvino": Runtime(".xml", "openvino", "openvino", _open_openvino),
    "litert": Runtime(".tflite", "ai_edge_litert", "ai-edge-litert", _open_litert),
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


def described_beside(path: Path) -> Description | None:
    """What export.json beside a file says of it.

    Args:
        path: The exported file.

    Returns:
        None where it says nothing, or where there is no export.json.

    Raises:
        ModelFileError: It cannot be understood.
    """
    text = _text_of(path.parent / DESCRIPTIONS)
    try:
        values = json.loads(text)[path.name] if text and path.name in json.loads(text) else None
        return Description.from_dict(values) if values is not None else None
    except (ValueError, TypeError) as error:
        where = path.parent / DESCRIPTIONS
        raise ModelFileError(f"{where}: cannot be understood ({first_line(error)}); export {path.name} again") from None


def open_exported(
    path: Path, *, palette: Palette | None = None, image_size: tuple[int, int] | None = None
) -> Segmenter:
    """A network in an exported file, ready for photos.

    Args:
        path: An .onnx, .xml (OpenVINO), .tflite or .pt2 file, or the folder of a SavedModel.
        palette: Names and colours of its classes, where neither the file nor export.json beside it says them.
        image_size: (height, width) that it should see, where it takes any.

    Returns:
        Whatever the file gives, `predict_batch` gives logits: of probabilities their logarithm, of ids a high logit
        for the class that is named. It is for one thread at a time.

    Raises:
        SemsegError: The package that runs it is not installed, or `image_size` is none that it takes.
        ModelFileError: It is no network from photos to classes, or could do more than compute.
    """
    name = runtime_of(path)
    if name is None:
        raise ModelFileError(f"{path}: is no exported network; expected one of {', '.join(_suffixes())}")
    runtime = RUNTIMES[name]
    need(runtime.module, runtime.package, str(path))
    try:
        opened = runtime.open(path)
        description = Description.from_dict(json.loads(opened.description)) if opened.description else None
    except SemsegError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise ModelFileError(f"{path}: cannot be opened ({first_line(error)}); export it again") from error
    return _segmenter(path, opened, description or described_beside(path), palette, image_size)


def _segmenter(
    path: Path,
    opened: Opened,
    description: Description | None,
    palette: Palette | None,
    image_size: tuple[int, int] | None,
) -> Segmenter:
    _check_input(path, opened)
    size = _input_size(path, opened, description, image_size)
    try:
        sample = opened.compute(np.zeros((2, *size, 3), opened.dtype))
    except Exception as error:  # each runtime has errors of its own
        raise ModelFileError(f"{path}: cannot be run ({first_line(error)}); export it again") from error
    gives = description.gives if description else _seems_to_give(sample)
    if sample.shape[:3] != (2, *size) or sample.ndim != (3 if gives == "ids" else 4):
        raise ModelFileError(
            f"{path}: goes from (N, {size[0]}, {size[1]}, 3) to {sample.shape}; expected {gives} for every pixel"
        )
    palette = Palette.from_dict(description.classes) if description else palette
    palette = _checked_palette(path, palette, None if gives == "ids" else sample.shape[-1])

    def predict_batch(photos: np.ndarray) -> np.ndarray:
        return as_logits(opened.compute(photos.astype(opened.dtype)), gives, palette.num_classes)

    return Segmenter(predict_batch, size, palette)


def _checked_palette(path: Path, palette: Palette | None, channels: int | None) -> Palette:
    """The palette, or one of numbers, if it has as many classes as the output's channels tell apart (None: unknown)."""
    if channels is None:
        return palette or Palette.numbered(2)
    num_classes = max(2, channels)  # one channel is the logit of the second of two classes
    palette = palette or Palette.numbered(num_classes)
    if num_classes != palette.num_classes:
        raise ModelFileError(f"{path}: tells {num_classes} classes apart, and {palette.num_classes} are described")
    return palette


def _seems_to_give(sample: np.ndarray) -> str:
    if sample.dtype.kind in "iu":
        return "ids"
    sums_to_one = sample.ndim == 4 and sample.shape[3] > 1 and np.allclose(sample.sum(axis=3), 1, atol=1e-3)
    return "probabilities" if sums_to_one and sample.min() >= 0 else "logits"


def _check_input(path: Path, opened: Opened) -> None:
    if len(opened.shape) != 4 or opened.shape[3] not in (3, None) or opened.dtype not in ("uint8", "float32"):
        raise ModelFileError(
            f"{path}: takes {opened.dtype} {opened.shape}; expected photos (N, H, W, 3), uint8 or float32"
        )


def _input_size(
    path: Path, opened: Opened, description: Description | None, wanted: tuple[int, int] | None
) -> tuple[int, int]:
    """(height, width) that the network sees: what it was built for, or where it takes any what is wanted."""
    built = opened.shape[1:3] if None not in opened.shape[1:3] else description and description.image_size
    if built is None and wanted is None:
        raise SemsegError(f"`image_size`: {path} takes photos of any size; say at which size it should see them")
    if built and wanted not in (None, built):
        raise SemsegError(f"`image_size`: {path} was built for {built[1]}x{built[0]} pixels, and takes nothing else")
    return built or wanted


def as_logits(values: np.ndarray, gives: str, num_classes: int) -> np.ndarray:
    """Logits with the same argmax, and of probabilities the same softmax or sigmoid.

    Args:
        values: `(..., K)` or `(..., 1)` logits or probabilities, or ids `(...)`.
        gives: Which of `GIVES` they are.
        num_classes: K.

    Returns:
        float32 `(..., K)`, or `(..., 1)` for two classes that came so.

    Example:
        >>> as_logits(np.array([[0.5], [0.9]]), "probabilities", 2).round(2).tolist()
        [[0.0], [2.200000047683716]]
    """
    if gives == "logits":
        return np.asarray(values, np.float32)
    if gives == "ids":  # one hot, with a logit that is as good as certain
        return (_ID_LOGIT * (values[..., None] == np.arange(num_classes))).astype(np.float32)
    probabilities = np.clip(np.asarray(values, np.float32), np.finfo(np.float32).tiny, 1)
    if probabilities.shape[-1] > 1:
        return np.log(probabilities)
    # log(p / (1 - p)), p at most the largest float32 below 1
    return np.log(probabilities) - np.log1p(-np.minimum(probabilities, np.float32(1 - 2**-24)))


def _suffixes() -> list[str]:
    return [runtime.suffix for runtime in RUNTIMES.values()]


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
