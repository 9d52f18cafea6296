import keras
import numpy as np
import pytest
from keras import layers, ops
from twins import assert_alike, fill, photos_of, twin_of

from semseg.backend.fast_model import FastModel
from semseg.backend.kernels import ADAMW, kernel_of, softmax_statistics

BACKEND = keras.backend.backend()
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="a kernel that only torch has")
described = {"ids": lambda value: value.name if isinstance(value, layers.Layer) else None}


def conv(*arguments, **options):
    return layers.Conv2D(3, *arguments, **{"bias_initializer": "ones", **options})


FIRST = {"data_format": "channels_first"}
TAKEN = [
    conv(3), conv(3, padding="same"), conv((1, 5), padding="same", use_bias=False), conv(2), conv((2, 4), 2),
    conv(3, strides=2), conv(1, strides=2, padding="same"), conv((3, 2), strides=(2, 1)),
    conv(3, dilation_rate=2), conv(3, dilation_rate=(1, 3), padding="same"), conv(2, dilation_rate=2, padding="same"),
    layers.Conv2D(8, 3, groups=2), layers.Conv2D(4, 3, groups=4, padding="same", strides=1),
    conv(3, activation="relu"), conv(3, activation="sigmoid"), conv(3, activation="tanh"),
    conv(3, padding="same", **FIRST),
    conv(3, strides=2, padding="same"), conv(2, padding="same"), conv((3, 4), padding="same"),
    conv((2, 5), strides=(4, 3), padding="same"), conv(1, strides=5, padding="same", **FIRST),
    layers.DepthwiseConv2D(3), layers.DepthwiseConv2D(3, padding="same", use_bias=False),
    layers.DepthwiseConv2D(5, 2, padding="same", activation="relu"), layers.DepthwiseConv2D((2, 3), depth_multiplier=3),
    layers.DepthwiseConv2D(2, 2, padding="same", depth_multiplier=2), layers.DepthwiseConv2D(3, dilation_rate=2),
    layers.DepthwiseConv2D(4, 3, padding="same", **FIRST),
    layers.Conv2DTranspose(3, 2, 2), layers.Conv2DTranspose(3, (2, 3), (2, 3), padding="same", activation="relu"),
    layers.Conv2DTranspose(3, 2, 2, **FIRST),
    layers.BatchNormalization(), layers.BatchNormalization(center=False, epsilon=0.1, momentum=0.5),
    layers.BatchNormalization(scale=False), layers.BatchNormalization(axis=1), layers.BatchNormalization(axis=3),
    layers.ReLU(), layers.ReLU(max_value=0.5), layers.Activation("relu"), layers.Activation("sigmoid"),
    layers.Activation("tanh"), layers.Activation("linear"), layers.Rescaling(0.5, offset=-1.0),
    layers.MaxPooling2D(2), layers.MaxPooling2D(3, strides=2), layers.MaxPooling2D((1, 2), **FIRST),
    layers.AveragePooling2D(2), layers.AveragePooling2D((3, 2), strides=1), layers.AveragePooling2D(2, **FIRST),
    layers.UpSampling2D(2), layers.UpSampling2D((3, 1)), layers.UpSampling2D((2, 3), interpolation="bilinear"),
    layers.UpSampling2D(2, **FIRST),
]  # fmt: skip
LEFT = [
    conv(3, activation="softmax"), conv(3, activation="elu"), conv(3, lora_rank=2),
    layers.Conv2DTranspose(3, 3, 2), layers.Conv2DTranspose(3, 3, 2, padding="same"),
    layers.Conv2DTranspose(3, 2, 2, output_padding=1), layers.Conv2DTranspose(3, 2, 2, activation="softplus"),
    layers.BatchNormalization(axis=2),
    layers.DepthwiseConv2D(3, activation="elu"), layers.ReLU(max_value=1.0, negative_slope=0.1),
    layers.ReLU(negative_slope=0.1), layers.ReLU(threshold=0.2),
    layers.Activation("softmax"), layers.Activation("gelu"), layers.Rescaling([0.5, 1.0, 2.0, 3.0]),
    layers.MaxPooling2D(3, strides=2, padding="same"), layers.AveragePooling2D(3, strides=1, padding="same"),
    layers.UpSampling2D(2, interpolation="bicubic"),
]  # fmt: skip


def assert_a_layer_is_right(layer, taken):
    """Between weights that learn, so that gradients come in from one side and leave on the other."""
    keras.utils.set_random_seed(0)
    layer = type(layer).from_config(layer.get_config())  # without the weights of an earlier model
    photo = keras.Input((7, 9, 4))
    y = layer(layers.Conv2D(4, 1)(photo))
    model = fill(keras.Model(photo, layers.Dense(2)(y)))
    assert (kernel_of(layer, "float32") is not None) == taken
    assert_alike(FastModel(photo, model.output), twin_of(model), photos_of(model))


@torch_only
@pytest.mark.parametrize("layer", TAKEN, **described)
def test_a_kernel_does_what_its_layer_does(layer):
    assert_a_layer_is_right(layer, taken=True)


@torch_only
@pytest.mark.parametrize("layer", LEFT, **described)
def test_a_layer_beyond_its_kernel_is_called_as_it_is(layer):
    assert_a_layer_is_right(layer, taken=False)


NORMS = [
    {},
    {"center": False, "epsilon": 0.1},
    {"scale": False, "momentum": 0.5},
    {"axis": 1},
    {"axis": 3},
    {"axis": 2},
]


@pytest.mark.skipif(BACKEND == "torch", reason="stands among the other kernels of torch")
@pytest.mark.parametrize("options", NORMS, ids=str)
def test_the_kernel_of_normalisation_does_what_the_layer_does(options):
    layer = layers.BatchNormalization(**options)
    assert_a_layer_is_right(layer, taken=BACKEND == "jax" or options.get("axis", -1) in (-1, 3))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_kernel_of_normalisation_takes_float16_and_keeps_float32_averages(momentum):
    layer = layers.BatchNormalization(momentum=momentum)
    layer.build((None, 4, 4, 3))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    axes = (0, 3, 1, 2) if BACKEND == "torch" else (0, 1, 2, 3)
    y, updates = kernel_of(layer, "float16").run(ops.transpose(ops.convert_to_tensor(x), axes), training=True)
    found, expected = ops.convert_to_numpy(y).astype("float32"), (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    np.testing.assert_allclose(found, expected.transpose(axes), atol=1e-2)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert [keras.backend.standardize_dtype(value.dtype) for _, value, _ in updates] == ["float32"] * 2
    assert [share for *_, share in updates] == [pytest.approx(1 - momentum)] * 2
    np.testing.assert_allclose(ops.convert_to_numpy(updates[1][1]), x.var((0, 1, 2)), atol=2e-3)


IMAGE, ROW, POINTS = (4, 6, 3), (6, 3), (3,)
INPUTS = [  # a layer, the shapes of its inputs, whether there is a kernel where it matters
    (layers.Concatenate(), [IMAGE, (4, 6, 2), IMAGE], True),
    (layers.Concatenate(axis=3), [IMAGE, (4, 6, 2)], True),
    (layers.Concatenate(axis=1), [IMAGE, (2, 6, 3)], True),
    (layers.Concatenate(axis=-3), [IMAGE, (2, 6, 3)], True),
    (layers.Concatenate(axis=2), [IMAGE, (4, 5, 3)], False),
    (layers.Concatenate(), [POINTS, (2,)], None),
    (layers.Concatenate(axis=1), [ROW, (2, 3)], None),
    (layers.Average(), [IMAGE] * 2, False),
]
for kind in (layers.Add, layers.Multiply):
    several = ([IMAGE] * 2, [IMAGE] * 3, [IMAGE, (1, 1, 3)], [(1, 1, 3), IMAGE, (4, 6, 1)], [POINTS] * 2, [ROW, IMAGE])
    INPUTS += [(kind(), shapes, None) for shapes in several]


@torch_only
@pytest.mark.parametrize(("layer", "shapes", "taken"), INPUTS, **described)
def test_several_inputs_are_joined_as_their_layer_does(layer, shapes, taken):
    keras.utils.set_random_seed(0)
    photos = [keras.Input(shape) for shape in shapes]
    layer = type(layer).from_config(layer.get_config())
    parts = [layers.Dense(photo.shape[-1])(photo) for photo in photos]
    parts[0] = layers.ReLU()(layers.Conv2D(parts[0].shape[-1], 1)(parts[0])) if shapes[0] == IMAGE else parts[0]
    model = fill(keras.Model(photos, layers.Dense(2)(layers.ReLU()(layer(parts)))))
    assert taken is None or (kernel_of(layer, "float32") is not None) == taken
    assert_alike(FastModel(photos, model.output), twin_of(model), photos_of(model))


@torch_only
@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_softmax_statistics_and_their_gradient_are_those_of_float64(scale, classes):
    import torch

    draw = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 5, classes), generator=draw) * scale
    truth = torch.randint(classes, (2, 3, 5), generator=draw).to(torch.uint8)
    counted = (torch.rand((2, 3, 5), generator=draw) > 0.3).float()
    by_pixel, by_class = torch.randn((2, 3, 5), generator=draw) * counted, torch.randn(classes, generator=draw)
    drawn = (logits, truth, counted, by_pixel, by_class)
    logits, truth, counted, by_pixel, by_class = map(ops.convert_to_tensor, drawn)  # to the GPU where there is one

    def gradient(statistics, dtype):
        z = logits.clone().to(dtype).requires_grad_()
        surprise, sums = statistics(z, truth, counted.to(dtype))
        ((surprise * by_pixel).sum() + (sums * by_class).sum()).backward()
        return surprise.detach().double(), sums.detach().double(), z.grad.double()

    def plain(z, truth, counted):
        log_p = torch.log_softmax(z, -1)
        return -log_p.gather(-1, truth.long()[..., None])[..., 0], (log_p.exp() * counted[..., None]).sum((0, 1, 2))

    found, expected = gradient(softmax_statistics, torch.float32), gradient(plain, torch.float64)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * scale, rtol=1e-6)
    assert not found[2][counted == 0].any()


@pytest.mark.skipif(BACKEND == "torch", reason="torch has a kernel")
def test_without_a_kernel_there_are_no_softmax_statistics():
    x = np.zeros((1, 2, 2, 3), "float32")
    assert softmax_statistics(x, x[..., 0], x[..., 0]) is None


def in_another_order(variable):
    """As FastModel leaves the kernels of convolutions on torch."""
    if BACKEND == "torch" and len(variable.shape) == 4:
        data = variable.value.data.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
        variable.value.data = data


def descend(kind, *, excluded=(), reload_at=None, reordered_at=None, rate=0.01, **options):
    """Weights after six steps on drawn gradients, which become smaller."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 4, 2), "bias": (4,), "dense": (5, 3)}
    variables = [keras.Variable(rng.normal(size=shape).astype("float32"), name=name) for name, shape in shapes.items()]

    def new_optimizer():
        new = kind(rate, **options)
        new.exclude_from_weight_decay(var_names=list(excluded)) if excluded else None
        new.build(variables)
        return new

    optimizer = new_optimizer()
    for step in range(6):
        if step == reordered_at:
            in_another_order(variables[0])
        if step == reload_at:
            store = {}
            optimizer.save_own_variables(store)
            optimizer = new_optimizer()
            optimizer.load_own_variables({key: np.array(value) for key, value in store.items()})
        gradients = [rng.normal(0, 1 / (1 + step), variable.shape).astype("float32") for variable in variables]
        optimizer.apply([ops.convert_to_tensor(gradient) for gradient in gradients], variables)
    return [ops.convert_to_numpy(variable) for variable in variables]


OPTIONS = [
    {}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "excluded": ("bias", "dense")}, {"weight_decay": 0.0},
    {"clipnorm": 0.5}, {"clipvalue": 0.2}, {"global_clipnorm": 0.5}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2},
    {"gradient_accumulation_steps": 2, "weight_decay": 0.3}, {"use_ema": True, "ema_overwrite_frequency": 2},
    {"rate": keras.optimizers.schedules.PolynomialDecay(0.01, 5)}, {"amsgrad": True},
    {"reload_at": 3, "weight_decay": 0.3, "epsilon": 1e-2}, {"reload_at": 4, "gradient_accumulation_steps": 2},
    {"reordered_at": 0}, {"reordered_at": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "default")
def test_adamw_takes_the_steps_of_keras(options):
    plain = {name: value for name, value in options.items() if name not in ("reload_at", "reordered_at")}
    for found, expected in zip(descend(ADAMW, **options), descend(keras.optimizers.AdamW, **plain), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
