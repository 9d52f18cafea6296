"""Kernels for PyTorch: fused batch normalisation, and a layout in which nothing is ever copied.

Tensors (N, H, W, C) are handed on as views (N, C, H, W), which PyTorch knows as its channels-last memory format and
takes and gives as it is. The weights of convolutions are brought once into that order in memory, unseen by Keras.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from keras import layers
from keras.src.backend.torch.optimizers.torch_adamw import AdamW  # what keras.optimizers.AdamW makes on torch
from torch.nn import functional

from semseg.backend.importing import mark_uncompiled
from semseg.backend.kernels.base import Kernel, Update
from semseg.backend.processes import here, sum_over_processes

LINEAR, RELU = keras.activations.linear, keras.activations.relu
POINTWISE = (LINEAR, RELU, keras.activations.sigmoid, keras.activations.tanh)


def swap(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """See `semseg.backend.kernels.swap`."""
    return x.permute(axes)


def apply_updates(updates: list[Update]) -> None:
    """See `semseg.backend.kernels.apply_updates`: at once, but for those of a layer that is applied several times."""
    groups: list[dict[int, Update]] = []
    for update in updates:
        variable, _, share = update
        fitting = (group for group in groups if id(variable) not in group and next(iter(group.values()))[2] == share)
        group = next(fitting, None)
        if group is None:
            groups.append(group := {})
        group[id(variable)] = update
    with torch.no_grad():
        for group in groups:
            variables, values, shares = zip(*group.values(), strict=True)
            torch._foreach_lerp_([variable.value for variable in variables], list(values), shares[0])


def compiled(graph: Callable, examples: Sequence[torch.Tensor]) -> Callable:
    """See `semseg.backend.kernels.compiled`."""
    mark_uncompiled()
    function = torch.compile(graph, dynamic=False)
    outputs, _ = function(*examples, training=True)
    sum(x.mean() for x in outputs).backward()
    return function


# PyTorch 2.13 writes beyond its memory, and aborts, in the gradient of a strided 1x1 convolution of fewer channels,
# where the CPU has no AVX-512. The pixels that the strides skip are left out before.
_MIN_STRIDED_CHANNELS = 8


def _convolution(layer: layers.Conv2D, dtype: str) -> Kernel | None:
    if layer.padding not in ("same", "valid") or not _simple(layer):
        return None
    if max(layer.kernel_size) == 1 and layer.kernel.shape[2] < _MIN_STRIDED_CHANNELS:
        groups = layer.groups
        rows, columns = (slice(None, None, stride) for stride in layer.strides)

        def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            return functional.conv2d(x[:, :, rows, columns], weight, bias, groups=groups)

        return _with_weights(layer, dtype, convolve)
    return _with_weights(layer, dtype, _padded_convolution(layer, layer.groups))


def _depthwise_convolution(layer: layers.DepthwiseConv2D, dtype: str) -> Kernel | None:
    if layer.padding not in ("same", "valid") or not _simple(layer):
        return None
    channels, each = layer.kernel.shape[2:]
    convolve = _padded_convolution(layer, channels)

    def apply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return convolve(x, weight.transpose(0, 1).reshape(channels * each, 1, *weight.shape[2:]), bias)

    return _with_weights(layer, dtype, apply)


def _padded_convolution(layer: layers.Layer, groups: int) -> Callable[..., torch.Tensor]:
    """With Keras' padding: with strides or kernels of even length it may be a pixel more below and at the right."""
    strides, dilation, sizes, padded = layer.strides, layer.dilation_rate, layer.kernel_size, layer.padding == "same"

    def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        rims = [_rim(*axis) if padded else (0, 0) for axis in zip(x.shape[2:], sizes, strides, dilation, strict=True)]
        if all(before == after for before, after in rims):
            padding = [before for before, _ in rims]
            return functional.conv2d(x, weight, bias, strides, padding, dilation, groups)
        x = functional.pad(x, (*rims[1], *rims[0]))
        return functional.conv2d(x, weight, bias, strides, 0, dilation, groups)

    return convolve


def _rim(length: int, size: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after the pixels of an axis, so that there is a result for each stride that begins in it."""
    missing = max(0, (length - 1) // stride * stride + (size - 1) * dilation + 1 - length)
    return missing // 2, missing - missing // 2


def _transposed_convolution(layer: layers.Conv2DTranspose, dtype: str) -> Kernel | None:
    if layer.kernel_size != layer.strides or layer.output_padding or max(layer.dilation_rate) > 1 or not _simple(layer):
        return None
    strides = layer.strides
    return _with_weights(layer, dtype, lambda x, w, b: functional.conv_transpose2d(x, w, b, strides))


def _simple(layer: layers.Layer) -> bool:
    """Whether a layer with weights is just that: no LoRA, no quantisation, an activation of `POINTWISE`."""
    plain = isinstance(layer.kernel, keras.Variable) and getattr(layer, "quantization_mode", None) is None
    return plain and layer.activation in POINTWISE


def _with_weights(layer: layers.Layer, dtype: str, apply: Callable[..., torch.Tensor]) -> Kernel:
    weight, bias = _in_order(layer.kernel.value), None if layer.bias is None else layer.bias.value
    linear, to = layer.activation is LINEAR, getattr(torch, dtype)

    def run(x: torch.Tensor, *, training: bool | None) -> tuple[torch.Tensor, tuple]:
        y = apply(x.to(to), weight.permute(3, 2, 0, 1).to(to), None if bias is None else bias.to(to))
        return y if linear else layer.activation(y), ()

    return Kernel(run, _channels_first_view(layer), fresh=linear)


def _in_order(kernel: torch.nn.Parameter) -> torch.nn.Parameter:
    """The same parameter, (height, width, in, out) as before, but in memory as (out, height, width, in)."""
    ordered = kernel.data.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    kernel.data = ordered.permute(2, 3, 1, 0)
    return kernel


def _batch_normalization(layer: layers.BatchNormalization, dtype: str) -> Kernel | None:
    if layer.renorm or layer.synchronized or not (isinstance(layer.axis, int) and layer.input_spec.ndim == 4):
        return None
    if layer.axis % 4 not in (1, 3):
        return None
    mean, variance = layer.moving_mean.value, layer.moving_variance.value
    gamma, beta = layer.gamma.value if layer.scale else None, layer.beta.value if layer.center else None
    share, epsilon, to = 1 - layer.momentum, layer.epsilon, getattr(torch, dtype)

    def run(x: torch.Tensor, *, training: bool | None) -> tuple[torch.Tensor, tuple[Update, ...]]:
        x = x.to(to)
        if not (training and layer.trainable):
            return functional.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon), ()
        if here().count > 1:
            y, *statistics = _SharedBatchNormalization.apply(x, gamma, beta, mean, epsilon)
            return y, tuple(zip((layer.moving_mean, layer.moving_variance), statistics, (share, share), strict=True))
        batch_mean, batch_variance = torch.zeros_like(mean), torch.zeros_like(variance)
        use_cudnn = torch.backends.cudnn.enabled
        y = torch.batch_norm(x, gamma, beta, batch_mean, batch_variance, True, 1.0, epsilon, use_cudnn)
        count = x.numel() // x.shape[1]
        # Keras' moving variance averages the biased one; of a single pixel PyTorch's is no number.
        biased = batch_variance * ((count - 1) / count) if count > 1 else torch.zeros_like(variance)
        return y, ((layer.moving_mean, batch_mean, share), (layer.moving_variance, biased, share))

    return Kernel(run, layer.axis % 4 == 3, fresh=True)


class _SharedBatchNormalization(torch.autograd.Function):
    """Batch normalisation over the photos of all processes; also gives their mean and their biased variance."""

    @staticmethod
    def forward(ctx, x, gamma, beta, like, epsilon):
        # Sums of float64 hold mean square and squared mean to more digits than float32 has for their difference.
        local = torch.stack(torch.batch_norm_update_stats(x, torch.zeros_like(like), torch.zeros_like(like), 0.0))
        local = local.double()
        local[1] += local[0].square()
        mean, square = sum_over_processes(local * here().own_photos) / here().photos
        statistics = mean.to(like.dtype), (square - mean.square()).clamp_(min=0).to(like.dtype)
        ctx.save_for_backward(x, gamma, *statistics)
        ctx.epsilon, ctx.pixels = epsilon, here().photos * (x.numel() // len(x) // x.shape[1])
        ctx.counts = here().own_photos > 0
        ctx.mark_non_differentiable(*statistics)
        return functional.batch_norm(x, *statistics, gamma, beta, False, 0.0, epsilon), *statistics

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient, *_):
        x, gamma, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if gamma is None else gamma
        fixed = torch.ops.aten.native_batch_norm_backward(  # as if mean and variance did not depend on x
            gradient, x, scale, mean, variance, None, None, False, ctx.epsilon, [True, True, True]
        )
        of_x, of_gamma, of_beta = fixed
        sums = sum_over_processes(torch.stack([of_gamma, of_beta]))
        if ctx.counts:
            slope, shift = sums * (scale * torch.rsqrt(variance + ctx.epsilon) / ctx.pixels)
            of_x = of_x - functional.batch_norm(x, mean, variance, slope, shift, False, 0.0, ctx.epsilon)
        return of_x, None if gamma is None else of_gamma, of_beta if ctx.needs_input_grad[2] else None, None, None


def _relu(layer: layers.ReLU, dtype: str) -> Kernel | None:
    if layer.negative_slope or layer.threshold:
        return None
    if layer.max_value is not None:
        top = float(layer.max_value)
        return _pointwise(
            lambda x: functional.hardtanh(x, 0.0, top), dtype, overwriting=lambda x: functional.hardtanh_(x, 0.0, top)
        )
    return _pointwise(torch.relu, dtype, overwriting=torch.relu_)


def _activation(layer: layers.Activation, dtype: str) -> Kernel | None:
    if layer.activation is RELU:
        return _pointwise(torch.relu, dtype, overwriting=torch.relu_)
    return _pointwise(layer.activation, dtype) if layer.activation in POINTWISE else None


def _rescaling(layer: layers.Rescaling, dtype: str) -> Kernel | None:
    if not all(isinstance(number, int | float) for number in (layer.scale, layer.offset)):
        return None
    to = getattr(torch, dtype)
    return Kernel(lambda x, training: (x.to(to) * layer.scale + layer.offset, ()))


def _sum(layer: layers.Add, dtype: str) -> Kernel:
    def add(first: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return functools.reduce(torch.add, others, first) if others else first.clone()

    return _pointwise(add, dtype, fresh=True)


def _product(layer: layers.Multiply, dtype: str) -> Kernel:
    return _pointwise(lambda *tensors: functools.reduce(torch.mul, tensors), dtype)


def _pointwise(
    function: Callable[..., torch.Tensor], dtype: str, *, overwriting: Callable | None = None, fresh: bool = False
) -> Kernel:
    to = getattr(torch, dtype)

    def runner(function: Callable[..., torch.Tensor]) -> Callable[..., tuple[torch.Tensor, tuple]]:
        return lambda *tensors, training: (function(*(x.to(to) if x.is_floating_point() else x for x in tensors)), ())

    return Kernel(runner(function), None, fresh, overwriting and runner(overwriting))


def _max_pooling(layer: layers.MaxPooling2D, dtype: str) -> Kernel | None:
    return _pooling(layer, dtype, functional.max_pool2d)


def _average_pooling(layer: layers.AveragePooling2D, dtype: str) -> Kernel | None:
    return _pooling(layer, dtype, functional.avg_pool2d)


def _pooling(layer: layers.Layer, dtype: str, pool: Callable[..., torch.Tensor]) -> Kernel | None:
    if layer.padding != "valid":
        return None
    size, strides, to = layer.pool_size, layer.strides, getattr(torch, dtype)
    return Kernel(lambda x, training: (pool(x.to(to), size, strides), ()), _channels_first_view(layer))


def _upsampling(layer: layers.UpSampling2D, dtype: str) -> Kernel | None:
    if layer.interpolation not in ("nearest", "bilinear"):
        return None
    factors, mode, to = tuple(float(factor) for factor in layer.size), layer.interpolation, getattr(torch, dtype)
    return Kernel(
        lambda x, training: (functional.interpolate(x.to(to), scale_factor=factors, mode=mode), ()),
        _channels_first_view(layer),
    )


def _concatenation(layer: layers.Concatenate, dtype: str) -> Kernel | None:
    if layer.axis not in (-1, 3, 1, -3):
        return None
    to = getattr(torch, dtype)

    def run(*tensors: torch.Tensor, training: bool | None) -> tuple[torch.Tensor, tuple]:
        return torch.cat([x.to(to) if x.is_floating_point() else x for x in tensors], 1), ()

    return Kernel(run, layer.axis in (-1, 3))


def _channels_first_view(layer: layers.Layer) -> bool:
    return layer.data_format == "channels_last"


KERNELS: dict[type, Callable[[layers.Layer, str], Kernel | None]] = {
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise_convolution,
    layers.Conv2DTranspose: _transposed_convolution,
    layers.BatchNormalization: _batch_normalization,
    layers.ReLU: _relu,
    layers.Activation: _activation,
    layers.Rescaling: _rescaling,
    layers.Add: _sum,
    layers.Multiply: _product,
    layers.MaxPooling2D: _max_pooling,
    layers.AveragePooling2D: _average_pooling,
    layers.UpSampling2D: _upsampling,
    layers.Concatenate: _concatenation,
}


class _SoftmaxStatistics(torch.autograd.Function):
    """See `semseg.backend.kernels.softmax_statistics`: one softmax for both results, and one pass back."""

    @staticmethod
    def forward(ctx, logits, truth, counted):
        truth = truth.long()[..., None]
        log_p = torch.log_softmax(logits, -1)
        nll = log_p.gather(-1, truth)[..., 0].neg_()
        p = log_p.exp_()
        row_sums = counted[..., None, :] @ p
        ctx.save_for_backward(p, truth, counted)
        return nll, row_sums.sum((0, 1, 2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, nll_gradient, sums_gradient):
        p, truth, counted = ctx.saved_tensors
        # For class k: p_k (counted (sums_gradient_k - sum_j p_j sums_gradient_j) + nll_gradient); of the true class
        # nll_gradient is taken away once more.
        base = nll_gradient - counted * (p @ sums_gradient)
        gradient = torch.stack((base, counted), -1) @ torch.stack((torch.ones_like(sums_gradient), sums_gradient))
        gradient.mul_(p).scatter_add_(-1, truth, -nll_gradient[..., None])
        return gradient, None, None


def softmax_statistics(
    logits: torch.Tensor, truth: torch.Tensor, counted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """See `semseg.backend.kernels.softmax_statistics`."""
    return None if torch.compiler.is_compiling() else _SoftmaxStatistics.apply(logits, truth, counted)


def counts(numbers: torch.Tensor, length: int) -> torch.Tensor:
    """See `semseg.backend.kernels.counts`: Keras' way takes 44 ms for 2 million pixels on a GPU, this .03 ms."""
    if numbers.is_cuda:  # `bincount` would make the host wait for the largest of them
        return torch.histc(numbers, length, 0, length - 1).int()
    return torch.bincount(numbers.clamp(max=length), minlength=length + 1)[:length].int()


def class_sums(values: torch.Tensor, truth: torch.Tensor, num_classes: int) -> torch.Tensor:
    """See `semseg.backend.kernels.class_sums`."""
    rows = values.new_zeros(*values.shape[:-1], num_classes)
    return rows.scatter_add(-1, truth.long(), values).sum((0, 1))


class _FusedAdamW(AdamW):
    """Keras' AdamW by PyTorch's fused kernel, which reads and writes each weight once; its state is Keras' own.

    How many batches were done, and the learning rate, are numbers of the host. Keras computes them with tensors, and
    makes one of each number on the way, for which the host would wait until the GPU has done all before it.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._counted = (-1, 0)  # PyTorch's version of `_iterations`, and its value
        self._rate = (-1, 0.0)  # how many batches were done, and the scheduled learning rate there
        self._iterations.assign_add = self._count_up

    def _count_up(self, batches: int) -> None:
        """Adds to `_iterations`, as Keras does at the end of `apply`."""
        done, value = self._batches_done(), self._iterations.value
        with torch.no_grad():
            value.add_(batches)
        self._counted = (value._version, done + batches)

    def _batches_done(self) -> int:
        """How often `apply` was called; read from the device only after someone else has set it."""
        value = self._iterations.value
        if self._counted[0] != value._version:
            self._counted = (value._version, int(value))
        return self._counted[1]

    def _get_current_learning_rate(self) -> Any:
        if not isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return super()._get_current_learning_rate()
        if self._rate[0] != (step := self._batches_done()):
            with keras.device("cpu"):
                self._rate = (step, float(self._learning_rate(step)))
        return self._rate[1]

    def _state(self, variable: keras.Variable) -> tuple[torch.Tensor, torch.Tensor]:
        """Momentum and velocity, in memory as the weight is."""
        k, weight = self._get_variable_index(variable), variable.value
        states = self._momentums[k].value, self._velocities[k].value
        for state in states:
            if state.stride() != weight.stride():
                state.data = torch.empty_like(weight.data).copy_(state.data)
        return states

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        """The fused kernel does it; Keras does what that kernel does not know."""
        if self.amsgrad:
            super()._apply_weight_decay(variables)

    def _parallel_update_step(self, grads: list, variables: list[keras.Variable], learning_rate: torch.Tensor) -> None:
        if self.amsgrad:
            super()._parallel_update_step(grads, variables, learning_rate)
            return
        updates = self._batches_done() // (self.gradient_accumulation_steps or 1) + 1
        # Keras adds epsilon before the correction for the first steps' bias, PyTorch after it.
        epsilon = self.epsilon / math.sqrt(1 - self.beta_2**updates)
        for decayed in (True, False):
            group = [(g, v) for g, v in zip(grads, variables, strict=True) if self._use_weight_decay(v) == decayed]
            if group:
                in_memory = [
                    [_as_in_memory(x, variable.value) for x in (variable.value, gradient, *self._state(variable))]
                    for gradient, variable in group
                ]
                weights, gradients, momentums, velocities = zip(*in_memory, strict=True)
                torch._fused_adamw_(
                    weights,
                    gradients,
                    momentums,
                    velocities,
                    [],
                    [torch.full((), float(updates), device=weights[0].device)] * len(group),
                    lr=learning_rate,
                    beta1=self.beta_1,
                    beta2=self.beta_2,
                    weight_decay=(self.weight_decay or 0.0) if decayed else 0.0,
                    eps=epsilon,
                    amsgrad=False,
                    maximize=False,
                )


def _as_in_memory(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A view of `x` with the axes in the order that makes `like` contiguous: the fused kernel copies anything else."""
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    return x.detach().permute(order).contiguous()


class _Total(torch.autograd.Function):
    """See `semseg.backend.kernels.total`."""

    @staticmethod
    def forward(ctx, x):
        return sum_over_processes(x.clone())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * here().count  # the mean over processes divides by it


def total(x: torch.Tensor) -> torch.Tensor:
    """See `semseg.backend.kernels.total`."""
    if here().count == 1:
        return x
    return _Total.apply(x) if x.is_floating_point() else sum_over_processes(x.long())


ADAMW = _FusedAdamW
