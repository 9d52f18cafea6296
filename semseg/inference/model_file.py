"""Is there anything in a `.keras` or `.h5` file that could do harm? Looked at before Keras loads anything of it.

Keras has a safe mode, but other code in the process can have switched it off, and it lets in layers that load files or
other modules. Here only known parts of networks are let in, whatever the mode; and only files that unpack to what their
size suggests.
"""

import json
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from semseg.errors import ModelFileError

_MAX_BYTES = 2_000_000_000
_MAX_CONFIG_BYTES = 5_000_000  # Python takes 25 times as much for it; Keras' largest network needs a third
_MAX_HEADERS = 20_000_000  # bytes of an HDF5 file that are no arrays: groups, names and the configuration
_MAX_RATIO = 100
_SPARE_WEIGHTS = 10_000  # states of random layers, which not every format keeps
_MAX_OBJECTS = 200_000  # groups and arrays in an HDF5 file
_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PARTS = {  # what stands for a value, a shape or a part of the graph, not for a class
    "__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__", "__bytes__", "__tuple__", "slice",
}  # fmt: skip
_NETWORKS = {"Functional", "Sequential", "Model"}
_NETWORK_MODULES = {"keras", "keras.models", "keras.src.models.functional", "keras.src.models.sequential",
                    "keras.src.models.model"}  # fmt: skip
_LAYERS = {
    "Activation", "ActivityRegularization", "Add", "AlphaDropout", "Attention", "Average", "AveragePooling2D",
    "BatchNormalization", "CenterCrop", "Concatenate", "Conv1D", "Conv2D", "Conv2DTranspose", "Cropping2D", "Dense",
    "DepthwiseConv2D", "Dot", "Dropout", "ELU", "Embedding", "Flatten", "GaussianDropout", "GaussianNoise",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "GroupNormalization", "Identity", "InputLayer",
    "LayerNormalization", "LeakyReLU", "MaxPooling2D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply",
    "Normalization", "PReLU", "Permute", "RMSNormalization", "ReLU", "RepeatVector", "Rescaling", "Reshape",
    "Resizing", "SeparableConv2D", "Softmax", "SpatialDropout2D", "SpectralNormalization", "Subtract",
    "TimeDistributed", "UnitNormalization", "UpSampling2D", "ZeroPadding2D",
}  # fmt: skip
_LAYER_MODULE = re.compile(r"keras\.(src\.)?layers(\.[a-z_0-9]+)*")
_HELPER_MODULE = re.compile(r"keras\.(src\.)?(initializers|regularizers|constraints)(\.[a-z_0-9]+)*")
_HELPER = re.compile(r"[A-Z]\w*")
_OPERATION_MODULE = re.compile(r"keras\.src\.ops\.(numpy|nn|math|image|operation)|keras\.src\.ops\.core")
_OPERATIONS_OF_CORE = {"Cast", "Shape", "StopGradient", "Unstack", "Slice"}
_POLICIES = {"DTypePolicy", "FloatDTypePolicy", "Policy"}
_HELPERS = {  # which HDF5 files name without their module
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "L1", "L1L2", "L2", "LecunNormal",
    "LecunUniform", "MaxNorm", "MinMaxNorm", "NonNeg", "Ones", "Orthogonal", "RandomNormal", "RandomUniform",
    "TruncatedNormal", "UnitNorm", "VarianceScaling", "Zeros",
}  # fmt: skip


def check_model_file(path: Path) -> int:
    """Refuses a model's file that holds more than a network of known layers and its weights.

    Args:
        path: A `.keras` or `.h5` file; what it really is shows in its content.

    Returns:
        How many weights it holds, for `weights_limited`.

    Raises:
        ModelFileError: It is neither, or not let in; the message names the layer, or what else it is.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == _HDF5:
                config, weights = _in_hdf5(path, file)
            elif zipfile.is_zipfile(file):
                config, weights = _in_archive(path, file)
            else:
                raise ModelFileError(
                    f"{path}: cannot be opened (neither an archive nor HDF5); expected a model that Keras saved"
                )
    except (zipfile.BadZipFile, OSError, KeyError, RuntimeError, NotImplementedError) as error:
        raise _damaged(path, error) from None
    _check_config(path, config)
    return weights


@contextmanager
def weights_limited(path: Path, max_weights: int) -> Iterator[None]:
    """Within it, Keras cannot build a network with more weights than its file holds.

    A file of a few numbers could ask for terabytes otherwise.

    Args:
        path: For the message.
        max_weights: How many weights its file holds.

    Raises:
        ModelFileError: From where Keras builds the layer that is too much.
    """
    from keras import Layer  # not at the top: exported files are opened without Keras

    add_weight, built = Layer.add_weight, 0

    def counted(layer: Layer, shape: Any = None, *arguments: Any, **options: Any) -> Any:
        nonlocal built
        built += math.prod(shape or ())
        if built > max_weights + _SPARE_WEIGHTS:
            raise ModelFileError(f"the layer {layer.name} is larger than what {path.name} holds")
        return add_weight(layer, shape, *arguments, **options)

    Layer.add_weight = counted
    try:
        yield
    finally:
        Layer.add_weight = add_weight


def _in_archive(path: Path, file: BinaryIO) -> tuple[Any, int]:
    """The configuration, and how many weights there are."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        foreign = next((name for name in names if name not in _MEMBERS), None)
        if foreign or len(set(names)) < len(names):
            raise _refused(path, f"{foreign or 'a part twice'} in its archive")
        packed = max(1, sum(member.compress_size for member in members))
        unpacked = sum(member.file_size for member in members)
        if unpacked > min(_MAX_BYTES, _MAX_RATIO * packed):
            raise _refused(path, f"{unpacked / 1e6:.0f} MB packed into {packed / 1e6:.3f} MB")
        if archive.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
            raise _refused(path, f"a configuration of {archive.getinfo('config.json').file_size / 1e6:.0f} MB")
        config = _json(path, archive.read("config.json"))
        with archive.open("model.weights.h5") as weights:
            count = _check_hdf5(path, weights, archive.getinfo("model.weights.h5").file_size)
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the bytes of {damaged} are not those that were written")
        return config, count


def _in_hdf5(path: Path, file: BinaryIO) -> tuple[Any, int]:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise _refused(path, f"{size / 1e6:.0f} MB")
    count = _check_hdf5(path, file, size)
    with h5py.File(file, "r") as opened:
        config = opened.attrs.get("model_config")
    if config is None:
        raise ModelFileError(f"{path}: holds weights without a network; give the .keras file of the run")
    return _json(path, config), count


def _json(path: Path, text: str | bytes) -> Any:
    if len(text) > _MAX_CONFIG_BYTES:
        raise _refused(path, f"a configuration of {len(text) / 1e6:.0f} MB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from None


def _check_hdf5(path: Path, file: BinaryIO, size: int) -> int:
    """Refuses links to elsewhere, arrays of objects, and arrays that are far larger than the file; counts numbers."""
    seen: set[Any] = set()
    total = count = stored = 0
    with h5py.File(file, "r") as opened:
        waiting: list[h5py.Group] = [opened]
        while waiting:
            group = waiting.pop()
            for name in group:
                if isinstance(group.get(name, getlink=True), h5py.ExternalLink | h5py.SoftLink):
                    raise _refused(path, f"the link {name}")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                else:
                    numbers = _numbers_in(path, item)
                    count, total = count + numbers, total + numbers * item.dtype.itemsize
                    stored += item.id.get_storage_size()
                if len(seen) > _MAX_OBJECTS or total > min(_MAX_BYTES, _MAX_RATIO * size):
                    raise _refused(path, f"{total / 1e6:.0f} MB of arrays in {size / 1e6:.3f} MB")
    if size - stored > _MAX_HEADERS:
        raise _refused(path, f"{(size - stored) / 1e6:.0f} MB that are no weights")
    return count


def _numbers_in(path: Path, item: Any) -> int:
    """How many an array has once it is read."""
    if not isinstance(item, h5py.Dataset):
        raise _refused(path, f"the HDF5 type {item.name}")
    if item.dtype.kind not in "fiubSV" or item.dtype.hasobject or (item.dtype.kind == "V" and item.dtype.itemsize > 2):
        raise _refused(path, f"the array {item.name} of {item.dtype}")
    if item.is_virtual or item.external:
        raise _refused(path, f"the array {item.name} that lies in another file")
    return math.prod(item.shape or ())


def _check_config(path: Path, config: Any) -> None:
    if not isinstance(config, dict) or config.get("class_name") not in _NETWORKS:
        raise _refused(path, f"{_name(config) if isinstance(config, dict) else 'no network'} as its network")
    for entry in _objects({name: value for name, value in config.items() if name != "compile_config"}):
        if not _is_known(entry):
            raise _refused(path, f"the layer {_name(entry)}")


def _is_known(entry: dict[str, Any]) -> bool:
    """Whether a part of a configuration is a network, a layer, an operation, or a helper of one, of Keras' own."""
    name, module, registered = entry.get("class_name"), entry.get("module"), entry.get("registered_name")
    if not isinstance(name, str) or registered not in (None, name):
        return False
    if name in _PARTS:
        return True
    if module is None:  # HDF5 files name only the class
        return name in _NETWORKS | _LAYERS | _POLICIES | _HELPERS
    return isinstance(module, str) and _is_known_in(module, name)


def _is_known_in(module: str, name: str) -> bool:
    return bool(
        (name in _NETWORKS and module in _NETWORK_MODULES)
        or (name in _LAYERS and _LAYER_MODULE.fullmatch(module))
        or (name in _POLICIES and module in ("keras", "keras.mixed_precision", "keras.dtype_policies"))
        or (_HELPER.fullmatch(name) and _HELPER_MODULE.fullmatch(module))
        or _is_operation(module, name)
    )


def _is_operation(module: str, name: str) -> bool:
    if not _OPERATION_MODULE.fullmatch(module) or not _HELPER.fullmatch(name):
        return False
    return name in _OPERATIONS_OF_CORE if module.endswith(".core") else True


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Everything in a configuration that Keras would build something from, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _name(entry: dict[str, Any]) -> str:
    config = entry.get("config")
    called = f" {config['name']}" if isinstance(config, dict) and isinstance(config.get("name"), str) else ""
    module = f"{entry['module']}." if entry.get("module") else ""  # h5 files name none
    return f"{module}{entry.get('class_name')}{called}"


def _refused(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: holds {what[:150]}, which networks for photos do not need, and which could do harm; it is not loaded"
    )


def _damaged(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(f"{path}: cannot be opened ({str(error)[:100]}); expected a model that Keras saved")
