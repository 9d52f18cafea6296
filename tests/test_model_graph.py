"""The reader of the graph: what it finds in small models, worked out by hand."""

import subprocess
import sys

import keras
import pytest
from helpers import IMPORT_KERAS, REPOSITORY
from keras import layers

from semseg.architectures.graph import read_architecture
from semseg.segmentation_model import down_block, up_block

pytestmark = pytest.mark.plain  # Keras builds the same graph on every backend


def block(x, filters, residual=False):
    start = x
    for _ in range(2):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return layers.Add()([x, layers.Conv2D(filters, 1)(start)]) if residual else x


def gated(skip, signal, filters):
    weight = layers.Add()([layers.Conv2D(filters, 1)(skip), layers.Conv2D(filters, 1)(signal)])
    weight = layers.Conv2D(1, 1, activation="sigmoid")(layers.ReLU()(weight))
    return layers.Multiply()([skip, weight])


def unet(shape=(32, 48, 3), classes=5, depth=2, filters=4, residual=False, attention=False):
    inputs = keras.Input(shape)
    x, skips = layers.Rescaling(1 / 255)(inputs), []
    for level in range(depth):
        x = block(x, filters * 2**level, residual)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, filters * 2**depth, residual)
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(filters * 2**level, 2, strides=2)(x)
        skip = gated(skips[level], x, filters) if attention else skips[level]
        x = block(layers.Concatenate()([skip, x]), filters * 2**level, residual)
    return keras.Model(inputs, layers.Conv2D(classes, 1)(x), name="unet")


def links(model):
    return [(link.source, link.target, link.kind, link.label) for link in read_architecture(model).links]


CONV = "Conv 3x3 + BN + ReLU"


def test_reads_a_small_unet_as_worked_out_by_hand():
    arch = read_architecture(unet())
    assert [(m.channels, m.size, int(m.scale), m.label) for m in arch.maps] == [
        (3, (32, 48), 1, "Input + Rescaling"),
        (4, (32, 48), 1, CONV),
        (4, (32, 48), 1, CONV),
        (4, (16, 24), 2, "Max pool 2x2"),
        (8, (16, 24), 2, CONV),
        (8, (16, 24), 2, CONV),
        (8, (8, 12), 4, "Max pool 2x2"),
        (16, (8, 12), 4, CONV),
        (16, (8, 12), 4, CONV),
        (16, (16, 24), 2, "Transposed conv 2x2"),
        (8, (16, 24), 2, CONV),
        (8, (16, 24), 2, CONV),
        (8, (32, 48), 1, "Transposed conv 2x2"),
        (4, (32, 48), 1, CONV),
        (4, (32, 48), 1, CONV),
        (5, (32, 48), 1, "Conv 1x1"),
    ]
    assert arch.stages == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14, 15]]
    assert [m.parts for m in arch.maps if m.parts] == [(8, 8), (4, 4)]
    assert (arch.name, arch.parameters, arch.hidden) == ("unet", unet().count_params(), 0)


def test_skip_connections_join_equal_resolutions_across_the_bottom():
    label = "Skip connection: concatenate"
    assert links(unet()) == [(5, 9, "skip", label), (2, 12, "skip", label)]


def test_residual_blocks_are_shortcuts():
    found = [link for link in links(unet(depth=1, residual=True)) if link[2] == "shortcut"]
    assert found == [(a, b, "shortcut", "Shortcut: conv 1x1, add") for a, b in ((0, 2), (3, 5), (6, 8))]


def test_attention_gates_lie_on_the_skip_connections():
    assert len(read_architecture(unet(attention=True)).maps) == len(read_architecture(unet()).maps)
    label = "Skip connection: attention gate, concatenate"
    assert links(unet(attention=True)) == [(5, 9, "skip", label), (2, 12, "skip", label)]


def test_labels_have_the_real_numbers():
    stack = [
        layers.Conv2D(4, 5, strides=2, padding="same"),
        layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
        layers.GroupNormalization(2),
        layers.Activation("gelu"),
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.UpSampling2D(4, interpolation="bilinear"),
        layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
    ]
    maps = read_architecture(keras.Sequential([keras.Input((32, 32, 3)), *stack])).maps
    assert [(m.label, m.kind) for m in maps[1:]] == [
        ("Conv 5x5, stride 2", "down"),
        ("Conv 3x3, dilation 2 + GN + GELU", "dilated"),
        ("Average pool 3x3, stride 2", "down"),
        ("Upsampling 4x4 (bilinear)", "up"),
        ("Transposed conv 3x3, stride 2", "up"),
    ]


def test_parallel_branches_do_not_hide_the_main_path():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    pooled = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    branches = [layers.Conv2D(4, 3, dilation_rate=d, padding="same")(x) for d in (2, 4)]
    x = layers.Concatenate()([layers.UpSampling2D(16)(pooled), *branches])
    arch = read_architecture(keras.Model(inputs, x))
    assert [(m.channels, m.size) for m in arch.maps] == [(3, (16, 16)), (4, (16, 16)), (12, (16, 16))]
    assert [(link.source, link.target, link.label) for link in arch.links] == [(1, 2, "2 more branches: concatenate")]


def test_squeeze_and_excite_is_a_gate_on_its_own_map():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3)(inputs)
    weight = layers.Dense(4, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    arch = read_architecture(keras.Model(inputs, layers.Multiply()([x, weight])))
    assert [m.label for m in arch.maps] == ["Input", "Conv 3x3 + gate"]
    assert arch.links == []


def test_nested_models_are_read_through():
    inputs = keras.Input((32, 48, 3))
    nested = read_architecture(keras.Model(inputs, unet()(inputs)))
    assert nested.maps == read_architecture(unet()).maps
    assert nested.links == read_architecture(unet()).links


def test_free_height_and_width_have_known_scales():
    maps = read_architecture(unet((None, None, 3))).maps
    assert {m.size for m in maps} == {(None, None)}
    assert [m.scale for m in maps] == [m.scale for m in read_architecture(unet()).maps]


def test_a_recurrent_block_has_a_map_for_every_use_of_its_shared_layer():
    inputs = keras.Input((16, 16, 4))
    conv = layers.Conv2D(4, 3, padding="same", activation="relu")
    x = conv(inputs)
    for _ in range(2):
        x = conv(layers.Add()([inputs, x]))
    model = keras.Model(inputs, x)
    assert [m.label for m in read_architecture(model).maps] == ["Input", *["Conv 3x3 + ReLU"] * 3]
    assert links(model) == [(0, 1, "shortcut", "Shortcut: add"), (0, 2, "shortcut", "Shortcut: add")]


def test_what_follows_an_addition_is_named_after_it():
    inputs = keras.Input((16, 16, 4))
    x = layers.Add()([inputs, layers.Conv2D(4, 3, padding="same")(inputs)])
    model = keras.Model(inputs, layers.Activation("relu")(layers.Dropout(0.5)(x)))
    assert [m.label for m in read_architecture(model).maps] == ["Input", "Conv 3x3"]
    assert links(model) == [(0, 1, "shortcut", "Shortcut: add + Dropout + ReLU")]


def nested_unet(several=False):
    """U-Net++ of depth 2; `several` gives it one output for each of its U-Nets."""
    inputs = keras.Input((16, 16, 3))
    x00 = block(inputs, 4)
    x10 = block(layers.MaxPooling2D()(x00), 8)
    x20 = block(layers.MaxPooling2D()(x10), 16)
    x01 = block(layers.Concatenate()([x00, layers.UpSampling2D()(x10)]), 4)
    x11 = block(layers.Concatenate()([x10, layers.UpSampling2D()(x20)]), 8)
    x02 = block(layers.Concatenate()([x00, x01, layers.UpSampling2D()(x11)]), 4)
    heads = [layers.Conv2D(2, 1)(x) for x in (x02, x01)]
    return keras.Model(inputs, heads if several else heads[0])


@pytest.mark.parametrize("several", [False, True])
def test_unet_plus_plus_is_its_outer_u(several):
    arch = read_architecture(nested_unet(several))
    assert [[int(m.scale) for m in arch.maps][stage[0]] for stage in arch.stages] == [1, 2, 4, 2, 1]
    assert [(link.source, link.target, link.label) for link in arch.links] == [
        (5, 9, "Skip connection: concatenate"),
        (2, 12, "2 skip connections: concatenate"),
    ]
    assert arch.hidden == 8 + several  # the inner block of seven layers with its upsampling, and its head


def test_full_scale_skip_connections_say_what_lies_on_them():
    inputs = keras.Input((16, 16, 3))
    x1 = layers.Conv2D(4, 3, padding="same")(inputs)
    x2 = layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D()(x1))
    x3 = layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D()(x2))
    up = layers.UpSampling2D(interpolation="bilinear")(x3)
    full = layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D()(x1))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(layers.Concatenate()([full, x2, up])))
    assert links(model) == [
        (1, 6, "skip", "Skip connection: max pool 2x2, conv 3x3, concatenate"),
        (3, 6, "skip", "Skip connection: concatenate"),
    ]


def test_cropped_skip_connections_of_valid_convolutions():
    inputs = keras.Input((32, 32, 3))
    skip, x = down_block(inputs, 4, padding="valid")
    arch = read_architecture(keras.Model(inputs, up_block(x, skip, 4, padding="valid")))
    assert [m.size[0] for m in arch.maps] == [32, 30, 28, 14, 28, 26, 24]
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3)(layers.UpSampling2D()(layers.MaxPooling2D()(skip := layers.Conv2D(4, 3)(inputs))))
    model = keras.Model(inputs, layers.Concatenate()([layers.Cropping2D(1)(skip), x]))
    assert links(model) == [(1, 4, "skip", "Skip connection: concatenate")]
    assert [m.scale for m in read_architecture(model).maps] == [1, 1, 2, 1, 1]


def test_an_encoder_of_keras_applications():
    encoder = keras.applications.MobileNetV3Small((64, 64, 3), include_top=False, weights=None)
    arch = read_architecture(encoder)
    assert [arch.maps[stage[0]].scale for stage in arch.stages] == [1, 2, 4, 8, 16, 32]
    assert arch.maps[0].label == "Input + Rescaling"
    assert arch.maps[2].label == "Depthwise conv 3x3, stride 2 + BN + ReLU + gate"
    assert {link.label for link in arch.links} == {"Shortcut: add"}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_activation_at_the_end(activation):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Activation(activation)(layers.Conv2D(2, 1)(inputs)))
    assert read_architecture(model).maps[-1].label == f"Conv 1x1 + {activation}"


def test_a_classifier_ends_in_vectors():
    stack = [layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(10, activation="softmax")]
    maps = read_architecture(keras.Sequential([keras.Input((16, 16, 3)), *stack])).maps
    assert [(m.channels, m.size, m.scale) for m in maps[1:]] == [(8, (14, 14), 1), (1568, (), None), (10, (), None)]


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(("model", "name"), [(Subclassed(), "Subclassed"), (keras.Sequential(), "Sequential")])
def test_a_model_without_a_graph_is_refused(model, name):
    with pytest.raises(ValueError, match=rf"got {name} '.*which has no graph.*expected a functional.*keras\.Model\("):
        read_architecture(model)


def test_channels_first_are_refused():
    inputs = keras.Input((3, 16, 24))
    model = keras.Model(inputs, layers.Conv2D(4, 3, data_format="channels_first")(inputs))
    with pytest.raises(ValueError, match="expected channels last"):
        read_architecture(model)


def test_drawing_needs_no_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None\n" + IMPORT_KERAS + "import semseg.architectures.drawing"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
