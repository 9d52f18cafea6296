import keras
import numpy as np
import pytest
from keras import layers, ops
from twins import assert_alike, fill, only, photos_of, twin_of

from semseg.fast_model import FastModel
from semseg.kernels import adamw, kernel_of, softmax_statistics

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
    conv(3, activation="relu"), conv(3, activation="sigmoid"), conv(3, activation="tanh"), conv(3, padding="same", **FIRST),
    layers.Conv2DTranspose(3, 2, 2), layers.Conv2DTranspose(3, (2, 3), (2, 3), padding="same", activation="relu"),
    layers.Conv2DTranspose(3, 2, 2, **FIRST),
    layers.BatchNormalization(), layers.BatchNormalization(center=False, epsilon=0.1, momentum=0.5),
    layers.BatchNormalization(scale=False), layers.BatchNormalization(axis=1), layers.BatchNormalization(axis=3),
    layers.ReLU(), layers.Activation("relu"), layers.Activation("sigmoid"), layers.Activation("tanh"),
    layers.Activation("linear"), layers.Rescaling(0.5, offset=-1.0),
    layers.MaxPooling2D(2), layers.MaxPooling2D(3, strides=2), layers.MaxPooling2D((1, 2), **FIRST),
    layers.AveragePooling2D(2), layers.AveragePooling2D((3, 2), strides=1), layers.AveragePooling2D(2, **FIRST),
    layers.UpSampling2D(2), layers.UpSampling2D((3, 1)), layers.UpSampling2D((2, 3), interpolation="bilinear"),
    layers.UpSampling2D(2, **FIRST),
]  # fmt: skip
LEFT = [
    conv(3, strides=2, padding="same"), conv(2, padding="same"), conv((3, 4), padding="same"),
    conv(3, activation="softmax"), conv(3, activation="elu"), conv(3, lora_rank=2),
    layers.Conv2DTranspose(3, 3, 2), layers.Conv2DTranspose(3, 3, 2, padding="same"),
    layers.Conv2DTranspose(3, 2, 2, output_padding=1), layers.Conv2DTranspose(3, 2, 2, activation="softplus"),
    layers.BatchNormalization(axis=2), layers.BatchNormalization(renorm=True),
    layers.ReLU(max_value=0.5), layers.ReLU(negative_slope=0.1), layers.ReLU(threshold=0.2),
    layers.Activation("softmax"), layers.Activation("gelu"), layers.Rescaling([0.5, 1.0, 2.0, 3.0]),
    layers.MaxPooling2D(3, strides=2, padding="same"), layers.AveragePooling2D(3, strides=1, padding="same"),
    layers.UpSampling2D(2, interpolation="bicubic"), layers.UpSampling2D(2, interpolation="lanczos3"),
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


NORMS = [{}, {"center": False, "epsilon": 0.1}, {"scale": False, "momentum": 0.5}, {"axis": 1}, {"axis": 3}, {"axis": 2}]


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


SHAPES = [
    (layers.Concatenate, {}, [(4, 6, 3), (4, 6, 2), (4, 6, 3)], True),
    (layers.Concatenate, {"axis": 3}, [(4, 6, 3), (4, 6, 2)], True),
    (layers.Concatenate, {"axis": 1}, [(4, 6, 3), (2, 6, 3)], True),
    (layers.Concatenate, {"axis": -3}, [(4, 6, 3), (2, 6, 3)], True),
    (layers.Concatenate, {"axis": 2}, [(4, 6, 3), (4, 5, 3)], False),
    (layers.Concatenate, {}, [(3,), (2,)], None),
    (layers.Concatenate, {"axis": 1}, [(5, 3), (2, 3)], None),
    *[
        (kind, {}, shapes, None)
        for kind in (layers.Add, layers.Multiply)
        for shapes in (
            [(4, 6, 3)] * 2,
            [(4, 6, 3)] * 3,
            [(4, 6, 3), (1, 1, 3)],
            [(1, 1, 3), (4, 6, 3), (4, 6, 1)],
            [(3,)] * 2,
            [(6, 3), (4, 6, 3)],
        )
    ],
    (layers.Average, {}, [(4, 6, 3)] * 2, False),
]


@torch_only
@pytest.mark.parametrize(("kind", "options", "shapes", "taken"), SHAPES)
@pytest.mark.parametrize("swapped", [False, True], ids=["", "swapped"])
def test_several_inputs_are_joined_as_their_layer_does(kind, options, shapes, taken, swapped):
    keras.utils.set_random_seed(0)
    photos, layer = [keras.Input(shape) for shape in shapes], kind(**options)
    grid = lambda x: swapped and len(x.shape) == 4  # noqa: E731
    parts = [layers.Conv2D(x.shape[-1], 1)(x) if grid(x) else layers.Dense(x.shape[-1])(x) for x in photos]
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

    def gradient(statistics, dtype):
        z = logits.to(dtype).requires_grad_()
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


def descend(make, *, steps=6, excluded=(), reload_at=None, late=False, **options):
    """Weights after some steps on drawn gradients."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 4, 2), "bias": (4,), "dense": (5, 3)}
    variables = [keras.Variable(rng.normal(size=shape).astype("float32"), name=name) for name, shape in shapes.items()]

    def optimizer():
        new = make(0.01, **options)
        if excluded:
            new.exclude_from_weight_decay(var_names=excluded)
        new.build(variables)
        return new

    current = optimizer()
    for step in range(steps):
        if step == 1 and late:
            in_another_order(variables[0])
        if step == reload_at:
            store = {}
            current.save_own_variables(store)
            current = optimizer()
            current.load_own_variables({key: np.array(ops.convert_to_numpy(value)) for key, value in store.items()})
        gradients = [rng.normal(size=variable.shape).astype("float32") for variable in variables]
        current.apply([ops.convert_to_tensor(gradient) for gradient in gradients], variables)
    return [ops.convert_to_numpy(variable) for variable in variables]


def schedule():
    return keras.optimizers.schedules.PolynomialDecay(0.05, 5)


OPTIONS = [
    {}, {"weight_decay": 0.3}, {"weight_decay": 0.3, "excluded": ["bias", "dense"]}, {"weight_decay": None},
    {"clipnorm": 0.5}, {"clipvalue": 0.2}, {"global_clipnorm": 0.5}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2},
    {"gradient_accumulation_steps": 2, "weight_decay": 0.3}, {"use_ema": True, "ema_overwrite_frequency": 2},
    {"amsgrad": True}, {"reload_at": 3, "weight_decay": 0.3}, {"reload_at": 3, "gradient_accumulation_steps": 2},
    {"late": True, "weight_decay": 0.3}, {"late": True, "reload_at": 3}, {"epsilon": 1e-3, "reload_at": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_adamw_takes_the_steps_of_keras(options):
    plain = {name: value for name, value in options.items() if name not in ("reload_at", "late")}
    for found, expected in zip(descend(adamw, **options), descend(keras.optimizers.AdamW, **plain), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_adamw_follows_a_schedule_and_weights_that_freeze_as_keras_does():
    def make(_, **options):
        return (adamw if ours else keras.optimizers.AdamW)(keras.optimizers.schedules.PolynomialDecay(0.05, 5))

    ours = True
    found = descend(make)
    ours = False
    for one, other in zip(found, descend(make), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)
