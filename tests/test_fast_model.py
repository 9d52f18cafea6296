import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers, ops
from twins import assert_alike, assert_close, fill, only, photos_of, predicted, train, twin_of

from semseg.architectures import ARCHITECTURES
from semseg.backend.fast_model import FastModel
from semseg.errors import SemsegError
from semseg.segmentation_model import Unet, bottleneck, down_block, up_block

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module", autouse=True)
def _compiled_in_haste():
    """XLA takes longer to compile these than to run them."""
    if BACKEND != "jax":
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def fast_of(model, **options):
    return FastModel(only(model.inputs), only(model.outputs), **options)


def unit(x, filters=4, order="channels_last", relu=True, **options):
    """Convolution, normalisation and, unless told otherwise, ReLU."""
    x = layers.Conv2D(filters, 3, padding="same", data_format=order, **options)(x)
    x = layers.BatchNormalization(axis=-1 if order == "channels_last" else 1, momentum=0.7)(x)
    return layers.ReLU()(x) if relu else x


def sequential(x):
    parts = [layers.Conv2D(x.shape[-1], 1), layers.BatchNormalization(), layers.Activation("relu")]
    return keras.Sequential([keras.Input(x.shape[1:]), *parts])


def channels_last(x):
    y = unit(x)
    y = layers.MaxPooling2D()(y)
    y = layers.UpSampling2D(interpolation="bilinear")(unit(y, 6))
    y = layers.Concatenate()([y, layers.Conv2DTranspose(2, 2, 2)(layers.AveragePooling2D(2)(x))])
    return layers.Conv2D(3, 1)(y)


def channels_first(x):
    order = "channels_first"
    y = unit(x, order=order)
    y = layers.Conv2DTranspose(4, 2, 2, data_format=order)(layers.MaxPooling2D(data_format=order)(y))
    y = layers.UpSampling2D(data_format=order)(layers.AveragePooling2D(2, data_format=order)(y))
    return layers.Conv2D(3, 1, data_format=order)(unit(layers.Concatenate(axis=1)([y, x]), order=order))


def both_orders(x):
    y = layers.Permute((3, 1, 2))(unit(x))
    y = layers.Permute((2, 3, 1))(unit(y, order="channels_first"))
    return layers.Add()([y, layers.Conv2D(4, 1)(x)])


def odd_sizes(x):
    y = layers.MaxPooling2D((2, 3))(layers.Conv2D(4, (2, 4))(x))  # of 15 x 13
    return layers.Conv2DTranspose(2, (2, 3), strides=(2, 3), activation="relu")(y)


def one_pixel_inside(x):
    y = layers.MaxPooling2D(16)(unit(x))
    y = layers.UpSampling2D(16)(unit(y))
    return unit(layers.Concatenate()([x, y]))


def shared_layers(x):
    convolution, norm, relu = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()
    return relu(norm(convolution(relu(norm(convolution(x))))))


def nested_models(x):
    photo = keras.Input(x.shape[1:])
    inner = keras.Model(photo, [unit(photo, 3), sequential(unit(photo, 3))(photo)])
    first, second = inner(x)
    part = sequential(x)
    return part(part(layers.Add()([*inner(first), second])))


def nodes_of_operations(x):
    y = ops.relu(unit(x, relu=False)) * 2.0 + ops.mean(x, axis=(1, 2, 3), keepdims=True)
    first, second = ops.split(y, 2, axis=-1)
    return ops.concatenate([first, ops.sigmoid(layers.Conv2D(2, 1)(second))], axis=-1)


def several_outputs(x):
    y = unit(x)
    return [layers.Conv2D(2, 1)(y), y, layers.GlobalAveragePooling2D()(unit(y))]


def norm_told_not_to_train(x):
    y = layers.BatchNormalization()(layers.Conv2D(4, 3)(x), training=False)
    return layers.Conv2D(2, 1)(layers.ReLU()(y))


def norm_told_to_train(x):
    return layers.Conv2D(2, 1)(layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(x), training=True)))


def model_told_not_to_train(x):
    return layers.Conv2D(2, 1)(sequential(x)(x, training=False))


def norm_used_by_two(x):
    y = unit(x, relu=False)
    return layers.Concatenate()([layers.Conv2D(2, 1)(layers.ReLU()(y)), layers.Conv2D(2, 1)(y)])


def norm_used_twice_by_one(x):
    y = unit(x, relu=False)
    return layers.Multiply()([layers.ReLU()(y), layers.Activation("tanh")(y)])


def view_and_relu(x):
    y = unit(x, 2, relu=False)  # the layer in between may hand on a view of y
    other = layers.Activation("linear")(y)
    return layers.Subtract()([layers.ReLU()(y), layers.Reshape(y.shape[1:])(other)])


def outputs_before_a_relu(x):
    y, z = unit(x, relu=False), layers.Conv2D(3, 1)(x)
    return [y, z, layers.ReLU()(y), layers.ReLU()(z), layers.ReLU()(layers.Add()([x, z]))]


def input_into_relu(x):
    return layers.Add()([layers.ReLU()(x), layers.Conv2D(3, 1)(layers.Activation("relu")(x)), x])


def relu_of_a_relu(x):
    y = layers.ReLU()(layers.Activation("relu")(layers.Conv2D(3, 1)(x)))
    return layers.Conv2D(2, 1)(layers.ReLU()(layers.Add()([y, y])))


def activations_of_ones_own(x):
    def relu(x):
        return ops.clip(x, 0, 0.5)

    y = layers.Conv2D(4, 1, activation=layers.LeakyReLU())(layers.Activation(relu)(x))
    return layers.Conv2D(2, 1, activation=relu)(y)


def regularised(x):
    return layers.Conv2D(2, 1)(layers.Conv2D(4, 1, activity_regularizer="l2")(unit(x)))


def relu_at_both_ends(x):
    relu = layers.ReLU()
    return relu(layers.Conv2D(2, 1)(unit(relu(x))))


def dropouts(x):
    y = unit(layers.Dropout(0.3, seed=2)(unit(x)))
    return layers.Conv2D(2, 1)(layers.SpatialDropout2D(0.5, seed=1)(y))


def layers_without_a_kernel(x):
    y = layers.SeparableConv2D(4, 3, strides=2, padding="same")(layers.ZeroPadding2D()(x))
    y = layers.GroupNormalization(2)(layers.DepthwiseConv2D(3)(layers.LeakyReLU()(y)))
    return layers.Softmax()(layers.Dense(5, activation="gelu")(layers.Cropping2D(1)(y)))


def norm_and_relu_apart(x):
    return [unit(x), sequential(x)(x)]


def unet(x):
    return Unet(x.shape[1:], 3, filters=2, depth=2)(layers.Rescaling(50, 128)(x))


GRAPHS = [
    channels_last, channels_first, both_orders, odd_sizes, one_pixel_inside, shared_layers, nested_models,
    nodes_of_operations, several_outputs, norm_told_not_to_train, norm_told_to_train, model_told_not_to_train,
    norm_used_by_two, norm_used_twice_by_one, view_and_relu,
    outputs_before_a_relu, input_into_relu, relu_of_a_relu, regularised, relu_at_both_ends,
    layers_without_a_kernel, norm_and_relu_apart, unet,
]  # fmt: skip
named = {"ids": lambda value: getattr(value, "__name__", None)}
remat_and_not = pytest.mark.parametrize("remat", [False, True], ids=["", "remat"])


def model_of(graph):
    if BACKEND == "tensorflow" and graph in (channels_first, both_orders):
        pytest.skip("TensorFlow has no convolution for channels first on a CPU")
    keras.utils.set_random_seed(0)
    x = keras.Input((3, 16, 16) if graph is channels_first else (16, 16, 3))
    return fill(keras.Model(x, graph(x)))


@remat_and_not
@pytest.mark.parametrize("graph", GRAPHS, **named)
def test_outputs_gradients_and_averages_are_those_of_keras(graph, remat):
    if remat and BACKEND == "jax" and graph not in (channels_last, nested_models, unet):
        pytest.skip("compiling takes too long: three graphs must do")
    model = model_of(graph)
    assert_alike(fast_of(model, remat=remat), twin_of(model), photos_of(model))


@remat_and_not
@pytest.mark.parametrize("graph", [channels_last, one_pixel_inside], **named)
def test_a_batch_of_one_trains_as_in_keras(graph, remat):
    model = model_of(graph)
    assert_alike(fast_of(model, remat=remat), twin_of(model), photos_of(model, 1))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_trains_as_in_keras(name):
    if BACKEND != "torch" and name != "unet":
        pytest.skip("compiling takes too long, and torch has the most kernels: one architecture must do")
    keras.utils.set_random_seed(0)
    options = {"encoder": "VGG16", "weights": None} if name == "encoder_unet" else {}
    filters = 8 if name == "resunet" else 2  # Keras' own strided 1x1 convolutions: see _MIN_STRIDED_CHANNELS
    model = ARCHITECTURES[name]((None, None, 3), 3, filters=filters, depth=2, **options)
    photos = [100 * photo + 128 for photo in photos_of(model)]
    assert_alike(fast_of(model), twin_of(model), photos, rate=0.1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_frozen_layers_stay_as_they_are_and_the_others_learn(when):
    model = model_of(channels_last)
    other = twin_of(model)
    fast = fast_of(model) if when == "after" else None
    for layer in (*model.layers[:4], *other.layers[:4]):
        layer.trainable = False
    before = model.layers[2].get_weights()
    assert_alike(fast or fast_of(model), other, photos_of(model))
    assert before and all((now == old).all() for now, old in zip(model.layers[2].get_weights(), before, strict=True))


@remat_and_not
def test_dropout_is_off_in_inference_and_draws_the_same_from_the_same_seed(remat):
    model = model_of(dropouts)
    other, photos = twin_of(model), photos_of(model)
    assert_close(predicted(fast_of(model), photos), predicted(other, photos))
    assert_alike(fast_of(model, remat=remat), fast_of(other), photos)


def test_fit_reaches_the_weights_that_keras_reaches():
    model = model_of(channels_last)
    other, photos = twin_of(model), photos_of(model, 4)[0]
    for trained in (fast_of(model), other):
        trained.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND == "jax")
        trained.fit(photos, photos, batch_size=2, epochs=2, shuffle=False, verbose=0, validation_data=(photos, photos))
    assert_close(model.get_weights(), other.get_weights())


@pytest.mark.skipif(BACKEND != "torch", reason="the other backends run a layer when they trace it, not at each step")
@pytest.mark.parametrize(("remat", "calls"), [(False, 1), (True, 2)])
def test_remat_computes_again_what_it_did_not_keep(remat, calls):
    class Counted(layers.Layer):
        count = 0

        def call(self, x):
            self.count += 1
            return x * 1.0

    keras.utils.set_random_seed(0)
    layer, photo = Counted(), keras.Input((16, 16, 3))
    model = keras.Model(photo, unit(layer(unit(photo))))
    steps = train(fast_of(model, remat=remat), photos_of(model))
    next(steps), next(steps)
    layer.count = 0
    next(steps)
    assert layer.count == calls


# Relative to the spread of the outputs. Measured on these graphs: at most 1.2e-2, and 8e-3 (TensorFlow).
LOW = [("bfloat16", 2e-2), ("float16", 1e-2)]


@remat_and_not
@pytest.mark.parametrize(("precision", "tolerance"), LOW)
@pytest.mark.parametrize("graph", [channels_last, nested_models, layers_without_a_kernel, unet], **named)
def test_low_precision_changes_little_and_only_what_is_inside(graph, precision, tolerance, remat, tmp_path):
    if BACKEND == "jax" and (remat or precision == "float16") and graph is not channels_last:
        pytest.skip("compiling takes too long: one graph must do")
    model = model_of(graph)
    policies = lambda: [layer.dtype_policy.name for layer in model._flatten_layers()]  # noqa: E731
    photos, before = photos_of(model), policies()
    (exact,), (found,) = predicted(model, photos), predicted(fast_of(model, precision=precision), photos)
    assert found.dtype == np.float32
    error = np.abs(found - exact).max() / np.ptp(exact)
    assert 0 < error < tolerance
    trained = [*train(fast_of(model, precision=precision, remat=remat), photos, rate=0.1)]
    assert all(np.isfinite(weight).all() and weight.dtype == np.float32 for weight in trained[-1])
    assert policies() == before == ["float32"] * len(before)
    model.save(tmp_path / "model.keras")
    assert "float16" not in zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()


def test_low_precision_puts_policies_back_after_an_error():
    class Slip(layers.Layer):
        fails = False

        def call(self, x):
            if self.fails:
                raise RuntimeError("slip")
            return x

    layer, photo = Slip(), keras.Input((4, 4, 3))
    fast = FastModel(photo, layers.Conv2D(2, 1)(layer(photo)), precision="bfloat16")
    layer.fails = True
    with pytest.raises(RuntimeError, match="slip"):
        fast(np.zeros((1, 4, 4, 3)))
    assert layer.dtype_policy.name == "float32"


def test_activations_of_ones_own_are_known_by_what_they_are_not_by_their_name():
    model = model_of(activations_of_ones_own)
    photos = photos_of(model)
    assert_close(predicted(fast_of(model), photos), predicted(model, photos))


def test_inputs_by_name_go_where_their_name_says():
    first, second = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    fast = FastModel([first, second], layers.Subtract()([first, second]))
    values = {"z": np.full((1, 4), 5.0, "float32"), "a": np.ones((1, 4), "float32")}
    np.testing.assert_array_equal(predicted(fast, [values])[0], 4)


def test_an_unknown_precision_lists_the_known():
    model = model_of(input_into_relu)
    with pytest.raises(SemsegError, match="`precision`: got 'half'; expected one of float32, bfloat16, float16"):
        fast_of(model, precision="half")


def test_what_was_trained_is_saved_cloned_and_loaded_as_plain_keras(tmp_path):
    model = model_of(unet)
    first, photos = model.get_weights(), photos_of(model)
    fast = fast_of(model)
    (_, _, trained) = train(fast, photos)
    expected = predicted(fast, photos)
    model.save(tmp_path / "model.keras")
    fast.save(tmp_path / "fast.keras")
    loaded, of_fast = (
        keras.saving.load_model(tmp_path / f"{name}.keras", safe_mode=True) for name in ("model", "fast")
    )
    for plain in (model, loaded, of_fast, twin_of(model)):
        assert_close(predicted(plain, photos), expected, 1e-5)
        assert type(plain).__name__ == "Functional" and "semseg" not in json.dumps(plain.get_config())

    model.set_weights(first)
    assert_close(model.get_weights(), first, 0)
    assert np.abs(predicted(fast, photos)[0] - expected[0]).max() > 1e-3
    twin = twin_of(loaded)
    twin.save_weights(tmp_path / "file.weights.h5")
    for reader in (model, fast_of(model)):
        model.set_weights(first)
        reader.load_weights(tmp_path / "file.weights.h5")
        assert_close(model.get_weights(), trained, 0)
        assert_close(predicted(fast, photos), expected, 1e-5)


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def net_of_blocks(x):
    skip, y = down_block(x, 4, normalization="group")
    return layers.Conv2D(2, 1, dtype="float32")(up_block(bottleneck(y, 4, dropout=0.1), skip, 4))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        photo, below, skip = keras.Input((16, 16, 3)), keras.Input((8, 8, 4)), keras.Input((16, 16, 4))
        self.down = keras.Model(photo, down_block(photo, 4))
        self.bottom = keras.Model(below, bottleneck(below, 4))
        self.up = keras.Model([below, skip], up_block(below, skip, 2))

    def call(self, x, training=None):
        skip, y = self.down(x, training=training)
        return self.up([self.bottom(y, training=training), skip], training=training)


def as_functional():
    photo = keras.Input((16, 16, 3))
    return keras.Model(photo, net_of_blocks(photo))


def as_sequential():
    photo, other = keras.Input((16, 16, 3)), keras.Input((16, 16, 2))
    parts = [keras.Model(photo, net_of_blocks(photo)), keras.Model(other, bottleneck(other, 2))]
    return keras.Sequential([keras.Input((16, 16, 3)), *parts])


def as_clone():
    return keras.models.clone_model(as_functional())


FUNCTIONAL = [as_functional, as_sequential, as_clone]


@pytest.mark.parametrize("trained", ["keras", "fast"])
@pytest.mark.parametrize("build", [*FUNCTIONAL, Subclassed], **named)
def test_blocks_learn_in_any_kind_of_model_under_any_policy(build, trained, policy):
    if trained == "fast" and build is Subclassed:
        pytest.skip("a subclassed model has no graph")
    keras.utils.set_random_seed(0)
    model = build()
    learner = fast_of(model) if trained == "fast" else model
    learner.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND == "jax")
    photos = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    model(photos)
    before = model.get_weights()
    learner.fit(photos, photos[..., :2], epochs=1, verbose=0)
    for weight, now, old in zip(model.weights, model.get_weights(), before, strict=True):
        assert weight.dtype == "float32" and np.isfinite(now).all() and (now != old).any(), weight.path


@pytest.mark.parametrize("build", FUNCTIONAL, **named)
def test_blocks_of_mixed_precision_give_what_keras_gives(build, policy):
    keras.utils.set_random_seed(0)
    model = build()
    photos = photos_of(model)
    tolerance = 1e-4 if policy == "float32" else 5e-2
    found, expected = predicted(fast_of(model), photos), predicted(model, photos)
    assert_close(found, expected, tolerance)
