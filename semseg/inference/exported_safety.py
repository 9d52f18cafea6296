"""Can an exported file do more than compute? Looked at before PyTorch or TensorFlow loads anything of it.

ONNX, OpenVINO and LiteRT files hold nothing but a graph of the runtime's own operations. PyTorch's and TensorFlow's can
run code when they are loaded, so only what exports of networks hold is let in.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semseg.errors import ModelFileError

_MAX_BYTES = 2_000_000_000
_PT2_MEMBERS = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|models/model\.json|extra/[\w.]+|archive_format|archive_version|byteorder|\.data/\w+|\.format_version)"
)
_PT2_CALLS = re.compile(r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|eq|ge|le|gt|lt)")
_PT2_SIZE = re.compile(r"(Symbol\('[su]\d+', (positive=True, )?integer=True\)|[su]\d+|\d+|[ +*-])+")
_TF_OPERATIONS = {
    "Add", "AddV2", "ArgMax", "AssignVariableOp", "AvgPool", "BatchMatMulV2", "BiasAdd", "Cast", "ConcatV2", "Const",
    "Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative", "DisableCopyOnRead", "Einsum", "Elu", "Erf", "Exp",
    "ExpandDims", "Fill", "FusedBatchNormV3", "GatherV2", "Greater", "GreaterEqual", "Identity", "IdentityN",
    "LeakyRelu", "Less", "Log", "MatMul", "Max", "MaxPool", "Maximum", "Mean", "Min", "Minimum", "MirrorPad", "Mul",
    "Neg", "NoOp", "Pack", "Pad", "PadV2", "PartitionedCall", "Placeholder", "Pow", "Prod", "Range",
    "ReadVariableOp", "RealDiv", "Relu", "Relu6", "Reshape", "ResizeBilinear", "ResizeNearestNeighbor", "RestoreV2",
    "Rsqrt", "Select", "SelectV2", "Selu", "Shape", "ShardedFilename", "Sigmoid", "Slice", "Softmax", "Softplus",
    "SpaceToBatchND", "BatchToSpaceND", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference", "Squeeze",
    "StatefulPartitionedCall", "StaticRegexFullMatch", "StridedSlice", "StringJoin", "Sub", "Sum", "Tanh", "Tile",
    "Transpose", "Unpack", "VarHandleOp", "VarIsInitializedOp", "XlaCallModule",
}  # fmt: skip
_TF_SAVING = {"SaveV2", "MergeV2Checkpoints"}  # in the function that writes a checkpoint, which nothing here calls
_TF_SAVER = re.compile(r"__inference__traced_save_\d+")
_TF_OBJECTS = {"user_object", "variable", "function", "bare_concrete_function", "constant", "captured_tensor"}


def check_pt2(path: Path) -> None:
    """Refuses a `.pt2` archive that holds pickled objects, or calls anything but PyTorch's own arithmetic.

    PyTorch would load pickles, run guards that are written as Python, evaluate formulas of free sizes, and call
    whatever name of its module a graph holds.

    Args:
        path: The archive; nothing in it is run.

    Raises:
        ModelFileError: It does, or is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise _refused(path, "more than 2 GB unpacked")
            parts = [_pt2_part(path, archive, member) for member in archive.infolist()]
    except (zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelFileError(f"{path}: is no program that PyTorch exported ({error}); export it again") from None
    for part in parts:
        for key, value in _entries(part):
            _check_pt2_entry(path, key, value)


def _check_pt2_entry(path: Path, key: str, value: Any) -> None:
    if key == "target" and not _PT2_CALLS.fullmatch(str(value)):
        raise _refused(path, f"a call of {value}")
    if key == "expr_str" and not _PT2_SIZE.fullmatch(str(value)):
        raise _refused(path, f"the formula {value}")
    if (key == "use_pickle" and value is not False) or (key in ("guards_code", "as_operator") and value):
        raise _refused(path, f"{key}: {value}")


def _pt2_part(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """What a member describes as JSON; None of weights."""
    name = member.filename
    if not _PT2_MEMBERS.fullmatch(name) and not (
        name.endswith("/data/sample_inputs/model.pt") and not member.file_size
    ):
        raise _refused(path, name)
    described = name.endswith(".json") and "/extra/" not in name
    return json.loads(archive.read(name)) if described else None


def check_saved_model(path: Path) -> None:
    """Refuses a SavedModel with operations that read, write or call something outside of it.

    Args:
        path: Its folder; nothing in it is run.

    Raises:
        ModelFileError: It has such operations, or is no SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file, model = path / "saved_model.pb", saved_model_pb2.SavedModel()
    if file.stat().st_size > _MAX_BYTES:
        raise _refused(path, "a graph of more than 2 GB")
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ModelFileError(f"{path}: is no SavedModel ({error}); export it again") from None
    for graph in model.meta_graphs:
        _check_nodes(path, graph.graph_def.node, calls_savers=True)
        for function in graph.graph_def.library.function:
            name = function.signature.name
            _check_nodes(path, function.node_def, saves=bool(_TF_SAVER.fullmatch(name)))
        for node in graph.object_graph_def.nodes:
            if node.WhichOneof("kind") not in _TF_OBJECTS:
                raise _refused(path, f"a {node.WhichOneof('kind')}")


def _check_nodes(path: Path, nodes: Any, *, saves: bool = False, calls_savers: bool = False) -> None:
    for node in nodes:
        if node.op not in _TF_OPERATIONS and not (saves and node.op in _TF_SAVING):
            raise _refused(path, f"the operation {node.op}")
        called = [value.func.name for value in node.attr.values() if value.HasField("func")]
        if not calls_savers and any(_TF_SAVER.fullmatch(name) for name in called):
            raise _refused(path, "a call that writes files")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON value, at any depth, with what stands there."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _refused(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: holds {what[:100]}, which an export of a network does not need, and which could run code when it is "
        "loaded; it is not opened: use an ONNX file"
    )
