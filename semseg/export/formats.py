"""A trained Keras model -> files that other runtimes run without Keras: photos in, scaling inside, classes out.

Converters are imported when their format is written, because each of them may be missing.
"""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from semseg.backend.keras_graph import all_layers
from semseg.errors import SemsegError, first_line, require
from semseg.inference.card import ModelCard
from semseg.inference.runtimes import KEY, RUNTIMES

if TYPE_CHECKING:
    import onnx

INPUT = "photos"  # what files that name their input call it
_QUANTISED = ["Conv", "ConvTranspose", "MaxPool", "Concat", "Relu"]


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        suffix: What its files end with.
        packages: For each backend that can write it, the packages it needs: what Python imports, and the extra of
            this package that brings it; None where none does.
        write: Takes a model, the card of its file and, for int8, photos to calibrate with.
        can_quantise: Whether it can be int8.
        can_give_ids: Whether it can give ids; a format that holds layers alone cannot, as there is no layer for argmax.
    """

    suffix: str
    packages: dict[str, Sequence[tuple[str, str | None]]]
    write: Callable[[keras.Model, ModelCard, np.ndarray | None], None]
    can_quantise: bool = False
    can_give_ids: bool = True


def export_model(model: keras.Model, card: ModelCard, photos: np.ndarray | None = None) -> None:
    """Writes a model as a file of another format.

    The file takes photos uint8 `(N, h, w, 3)`, 0 to 255, N free (float32 in Keras' own formats, and float32
    `(N, h, w, C)` of the files' own numbers where they hold other bands), and gives, of class
    scores, logits float32 `(N, h, w, K)`, or `(N, h, w, 1)` for two classes, probabilities of the same shape, or ids
    `(N, h, w)`.

    Args:
        model: From photos `(N, H, W, 3)`, 0 to 255, to logits.
        card: Where the file goes, which format it has, what it gives, and the size that it sees.
        photos: uint8 `(N, h, w, 3)` of the training split, to calibrate int8 with; else None.

    Raises:
        SemsegError: The backend cannot write the format, a package is missing, or the model holds what the format
            cannot express.

    Example:
        >>> import tempfile
        >>> from semseg.labels.palettes import Palette
        >>> inputs = keras.Input((8, 8, 3))
        >>> model = keras.Model(inputs, keras.layers.Conv2D(5, 1)(inputs))
        >>> path = Path(tempfile.mkdtemp()) / "scores.keras"
        >>> card = ModelCard(path, "keras", "probabilities", (8, 8), Palette.numbered(5))
        >>> export_model(model, card)
        >>> keras.saving.load_model(path).layers[-1].name
        'probabilities'
    """
    check_format(card)
    if card.precision == "int8" and photos is None:
        raise SemsegError("`int8`: needs training photos to calibrate with; give `data`")
    try:
        with _quiet():
            FORMATS[card.format].write(model, card, photos)
    except (SemsegError, OSError, MemoryError):
        raise
    except Exception as error:  # each converter has errors of its own
        raise SemsegError(
            f"`format`: {keras.backend.backend()} could not write this network as {card.format} "
            f"({first_line(error)}); try another format or `backend`"
        ) from error


def check_format(card: ModelCard) -> None:
    """Checks that this backend can write a format with the packages that are installed.

    Args:
        card: Its `format`, `precision` and `gives` are looked at.

    Raises:
        SemsegError: It cannot; the message names what can, or the pip command.
    """
    name, backend = card.format, keras.backend.backend()
    if name not in FORMATS:
        raise SemsegError(f"`format`: there is no {name!r}; choose one of {', '.join(FORMATS)}")
    wanted = FORMATS[name]
    if backend not in wanted.packages:
        able = " or ".join(wanted.packages)
        raise SemsegError(
            f"`format`: {backend} cannot write {name}, {able} can; the model opens with that `backend` too"
        )
    if card.precision == "int8" and not wanted.can_quantise:
        able = " and ".join(other for other, entry in FORMATS.items() if entry.can_quantise)
        raise SemsegError(f"`int8`: not for {name}; only {able} can be int8")
    if card.gives == "ids" and not wanted.can_give_ids:
        raise SemsegError(f"`gives`: {name} holds layers only, and none gives ids; choose another `format`")
    for module, extra in wanted.packages[backend]:
        require(f"`format` {name}", extra, module)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converters' notes to themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)


def _with_output(logits: Any, card: ModelCard) -> Any:
    """The logits of a model, `(N, h, w, K)`, followed by what makes of them what the file is to give."""
    temperature, threshold = card.calibration.temperature, card.calibration.threshold
    if card.gives == "probabilities":
        activation = "softmax" if logits.shape[-1] > 1 else "sigmoid"
        if temperature != 1:
            logits = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
        return keras.layers.Activation(activation, dtype="float32", name=card.gives)(logits)
    if card.gives == "ids":
        if logits.shape[-1] == 1 or threshold != 0.5:
            second = logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]
            return keras.ops.cast(second > temperature * math.log(threshold / (1 - threshold)), "uint8")
        largest = keras.ops.max(logits, axis=-1, keepdims=True)
        hits = keras.ops.cast(logits >= largest, "int32")  # of floats, TensorFlow's argmax here is none that ONNX knows
        return keras.ops.cast(keras.ops.argmax(hits, axis=-1), "uint8")
    return logits


def _serving_model(model: keras.Model, card: ModelCard) -> keras.Model:
    """The model with photos of one size and type in, and what was asked for out."""
    shape, dtype = (*card.image_size, card.bands.count), "uint8" if card.bands.dtype == "uint8" else "float32"
    _hold_numbers(model)
    photos = keras.Input(shape, dtype=dtype, name=INPUT)
    served = keras.Model(photos, _with_output(model(keras.ops.cast(photos, "float32")), card))
    served(np.zeros((1, *shape), dtype))  # exporters refuse a model that was never called
    return served


def _hold_numbers(model: keras.Model) -> None:
    """Gives scalings their numbers as arrays: of tensors, TensorFlow's converters make inputs that nobody fills."""
    for layer in all_layers(model) if keras.backend.backend() == "tensorflow" else ():
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = map(keras.ops.convert_to_numpy, (layer.mean, layer.variance))


def _write_keras(model: keras.Model, card: ModelCard, _: np.ndarray | None) -> None:
    keras.Model(model.inputs[0], _with_output(model.outputs[0], card)).save(card.path)


def _write_onnx(model: keras.Model, card: ModelCard, photos: np.ndarray | None) -> None:
    import onnx

    raw = card.path.with_name(f"raw{card.path.suffix}")  # each step writes a file that the next one reads
    _serving_model(model, card).export(raw, format="onnx", verbose=False)
    _simplify(raw, raw)
    network = onnx.load(raw)
    _add_in_place_of_subtract(network.graph)
    _rename_output(network.graph, card.gives)
    onnx.save(network, raw)
    _simplify(raw, card.path)
    if photos is not None and card.precision == "int8":
        card.path.replace(raw)
        _quantise(raw, card.path, photos)
    network = onnx.load(card.path)
    onnx.helper.set_model_props(network, {KEY: json.dumps(card.to_dict())})
    onnx.save(network, card.path)
    raw.unlink()


def _simplify(source: Path, target: Path) -> None:
    """Folds constants, batch normalisation and layouts into the convolutions, by ONNX Runtime's own rules."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath, options.log_severity_level = str(target), 3
    onnxruntime.InferenceSession(source.read_bytes(), options, providers=["CPUExecutionProvider"])


def _add_in_place_of_subtract(graph: "onnx.GraphProto") -> None:
    """Writes x - c as x + (-c): ONNX Runtime folds only sums into the convolution before. Saves a third of the time."""
    import onnx

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Sub" and node.input[1] in constants:
            negative = f"{node.input[1]}_negative"
            if negative not in constants:
                value = -onnx.numpy_helper.to_array(constants[node.input[1]])
                constants[negative] = onnx.numpy_helper.from_array(value, negative)
                graph.initializer.append(constants[negative])
            node.op_type, node.input[1] = "Add", negative


def _rename_output(graph: "onnx.GraphProto", name: str) -> None:
    before, graph.output[0].name = graph.output[0].name, name
    for node in graph.node:
        for names in (node.input, node.output):
            for i, held in enumerate(names):
                names[i] = name if held == before else held
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def _quantise(source: Path, target: Path, photos: np.ndarray) -> None:
    """Weights and activations to 8 bits, with ranges measured on photos; the last convolution stays in float."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Photos(CalibrationDataReader):
        def __init__(self):
            self.left = iter(photos)

        def get_next(self) -> dict[str, np.ndarray] | None:
            photo = next(self.left, None)
            return None if photo is None else {INPUT: photo[None]}

    convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    quantize_static(
        source, target, Photos(), quant_format=QuantFormat.QDQ, op_types_to_quantize=_QUANTISED, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=convolutions[-1:],
    )  # fmt: skip


def _write_openvino(model: keras.Model, card: ModelCard, photos: np.ndarray | None) -> None:
    """By way of ONNX, so that every backend can and int8 is the same; from there OpenVINO is faster, too."""
    import openvino

    between = card.path.with_suffix(".onnx")
    _write_onnx(model, replace(card, path=between), photos)
    network = openvino.convert_model(between)
    network.set_rt_info(json.dumps(card.to_dict()), KEY)
    openvino.save_model(network, card.path, compress_to_fp16=False)
    between.unlink()


def _write_litert(model: keras.Model, card: ModelCard, _: np.ndarray | None) -> None:
    _serving_model(model, card).export(card.path, format="litert", verbose=False)


def _write_saved_model(model: keras.Model, card: ModelCard, _: np.ndarray | None) -> None:
    _serving_model(model, card).export(card.path, format="tf_saved_model", verbose=False)
    (card.path / "assets.extra").mkdir()  # TensorFlow's place for what it does not load itself
    (card.path / "assets.extra" / f"{KEY}.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")


def _write_pt2(model: keras.Model, card: ModelCard, _: np.ndarray | None) -> None:
    import torch

    free = {0: torch.export.Dim("batch", min=1, max=1024)}
    _serving_model(model, card).export(card.path, format="torch", verbose=False, dynamic_shapes=free)
    program = torch.export.load(card.path)
    program.example_inputs = None  # would be a pickle in the file
    torch.export.save(program, card.path, extra_files={f"{KEY}.json": json.dumps(card.to_dict())})


_ONNX = [("onnx", "onnx"), ("onnxruntime", "onnx")]
_OPENVINO = [*_ONNX, ("openvino", "openvino")]
_TF2ONNX = ("tf2onnx", "onnx")
_LITERT = ("ai_edge_litert", "litert")
_KERAS: dict[str, Sequence[tuple[str, str | None]]] = {"torch": [], "tensorflow": [], "jax": []}
FORMATS = {
    "onnx": Format(".onnx", {"torch": _ONNX, "tensorflow": [*_ONNX, _TF2ONNX]}, _write_onnx, can_quantise=True),
    "openvino": Format(
        ".xml", {"torch": _OPENVINO, "tensorflow": [*_OPENVINO, _TF2ONNX]}, _write_openvino, can_quantise=True
    ),
    "litert": Format(".tflite", {"tensorflow": [_LITERT], "torch": [_LITERT, ("litert_torch", None)]}, _write_litert),
    "tf_saved_model": Format(
        RUNTIMES["tf_saved_model"].suffix, {"tensorflow": [], "jax": [("tensorflow", "tensorflow")]}, _write_saved_model
    ),
    "torch": Format(".pt2", {"torch": []}, _write_pt2),
    "keras": Format(".keras", _KERAS, _write_keras),
    "h5": Format(".h5", _KERAS, _write_keras, can_give_ids=False),
}
