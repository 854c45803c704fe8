"""Pooling, normalisation, activations and the modules that the networks are made of."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lesion.models.conv import NO_PADDING, ConvImpl, Padding, conv2d, same_padding, shifted_views, uses_matmul

# By fan_in, which counts a group's own channels only: activations keep their scale (He et al., ICCV 2015, eq. 10).
KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
PRELU_INIT = nn.initializers.constant(0.25)  # He et al., ICCV 2015


def max_pool(x: jax.Array, size: int, stride: int, padding: Padding = NO_PADDING, impl: ConvImpl = "auto") -> jax.Array:
    """Returns the largest value of each window, the border padded with -inf.

    On CPU this is a maximum over shifted images, whose gradient costs a quarter of XLA's select-and-scatter. Where
    several values of a window are equally large, the two ways divide the gradient between them differently.

    Args:
        x: [B, H, W, C].
        size: side of the window.
        stride: step of the window along both axes.
        padding: ((top, bottom), (left, right)).
        impl: how it is computed, see `conv2d`.

    Returns:
        [B, H', W', C].
    """
    assert x.ndim == 4, x.shape
    if not uses_matmul(impl):
        return nn.max_pool(x, (size, size), (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(jnp.maximum, shifted_views(x, (size, size), stride))


def avg_pool(
    x: jax.Array, size: int, stride: int, padding: Padding, count_padding: bool, impl: ConvImpl = "auto"
) -> jax.Array:
    """Returns the mean of each window, [B, H', W', C].

    Args:
        x: [B, H, W, C].
        size: side of the window.
        stride: step of the window along both axes.
        padding: ((top, bottom), (left, right)), of zeros.
        count_padding: whether the padding counts as pixels, as in torch; in Keras it does not.
        impl: how it is computed, see `conv2d`.
    """
    assert x.ndim == 4, x.shape
    dtype, x = x.dtype, x.astype(jnp.float32)
    if uses_matmul(impl):
        total = sum(shifted_views(jnp.pad(x, ((0, 0), *padding, (0, 0))), (size, size), stride))
    else:
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        zero = np.zeros((), x.dtype)  # a NumPy scalar: with a tracer there is no gradient
        total = jax.lax.reduce_window(x, zero, jax.lax.add, window, strides, ((0, 0), *padding, (0, 0)))
    counted = [
        np.pad(np.ones(n), pad, constant_values=count_padding) for n, pad in zip(x.shape[1:3], padding, strict=True)
    ]
    rows, columns = (np.convolve(line, np.ones(size), "valid")[::stride] for line in counted)
    return (total * jnp.asarray(1.0 / np.outer(rows, columns)[None, :, :, None], x.dtype)).astype(dtype)


def adaptive_avg_pool(x: jax.Array, side: int) -> jax.Array:
    """Pools [B, H, W, C] to [B, side, side, C] as torch does: row i averages rows ⌊iH/side⌋ to ⌈(i+1)H/side⌉ − 1."""
    assert x.ndim == 4, x.shape
    for axis in (1, 2):
        n = x.shape[axis]
        if n != side:
            cells = [
                jnp.mean(jax.lax.slice_in_dim(x, i * n // side, -(-(i + 1) * n // side), axis=axis), axis)
                for i in range(side)
            ]
            x = jnp.stack(cells, axis)
    return x


def local_response_norm(x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
    """Divides every value by (k + alpha / size · sum of squares over `size` neighbouring channels) ** beta.

    Args:
        x: [B, H, W, C].
        size: number of channels in the sum, odd.
        alpha: factor of the sum, divided by `size` as in Caffe, ONNX and torch.
        beta: exponent.
        k: constant; 1 as in Caffe (Krizhevsky 2012, section 3.3: 2, and alpha not divided).

    Returns:
        [B, H, W, C].
    """
    assert x.ndim == 4 and size % 2 == 1, (x.shape, size)
    reach, dtype, x = size // 2, x.dtype, x.astype(jnp.float32)
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (reach, reach)))
    total = sum(squares[..., i : i + x.shape[3]] for i in range(size))
    return (x * (k + alpha / size * total) ** -beta).astype(dtype)


class PReLU(nn.Module):
    """The parametric ReLU: x if positive, else x times a trained slope of its channel (He et al., ICCV 2015)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the activations of x [..., C] in its shape."""
        slope = self.param("slope", PRELU_INIT, x.shape[-1:], jnp.float32)
        # The slope's gradient is a sum over batch and place, which runs in float32.
        return jnp.where(x > 0, x, (x.astype(jnp.float32) * slope).astype(x.dtype))


def activation(kind: str, name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation `relu`, `leaky` (slope .01) or `prelu`, a module called `name`."""
    if kind == "prelu":
        return lambda x: PReLU(name=name)(x)
    return {"relu": nn.relu, "leaky": nn.leaky_relu}[kind]


class Conv(nn.Module):
    """A convolution; see `conv2d`.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: step of the window along both axes.
        padding: ((top, bottom), (left, right)), or `same` as in TensorFlow.
        groups: number of channel groups.
        use_bias: whether a bias is added.
        impl: how it is computed, see `conv2d`.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: Padding | Literal["same"] = "same"
    groups: int = 1
    use_bias: bool = False
    impl: ConvImpl = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, H', W', features] for [B, H, W, I]."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", KERNEL_INIT, shape, jnp.float32)
        padding = self.padding
        if padding == "same":
            padding = same_padding((x.shape[1], x.shape[2]), self.kernel_size, self.stride)
        y = conv2d(x, kernel.astype(x.dtype), stride=self.stride, padding=padding, groups=self.groups, impl=self.impl)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = (y.astype(jnp.float32) + bias).astype(x.dtype)  # and so does its gradient's sum over batch and place
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, statistics: tuple, mask: jax.Array | None, axis_name: str | None
) -> jax.Array:
    """Normalises x [B, ..., C] by its own statistics: mean [C], 1 / standard deviation [C], number of values.

    The gradient by x includes the part through the statistics. It keeps only x and reads it twice, once for the sums;
    XLA's own gradient of the same formula is slower.
    """
    mean, inverse, _ = statistics
    return ((x.astype(jnp.float32) - mean) * (inverse * scale) + bias).astype(x.dtype)


def _normalise_forward(x, scale, bias, statistics, mask, axis_name):
    return _normalise(x, scale, bias, statistics, mask, axis_name), (x, scale, statistics, mask)


def _normalise_backward(axis_name: str | None, residuals: tuple, g: jax.Array):
    x, scale, (mean, inverse, count), mask = residuals
    axes = tuple(range(x.ndim - 1))
    x32, g32 = jax.lax.optimization_barrier(x).astype(jnp.float32), g.astype(jnp.float32)
    bias_grad = g32.sum(axes)
    scale_grad = ((g32 * x32).sum(axes) - mean * bias_grad) * inverse
    # Every device's outputs depend on the statistics.
    sums = (bias_grad, scale_grad) if axis_name is None else jax.lax.psum((bias_grad, scale_grad), axis_name)
    through_mean, through_var = (total / jnp.maximum(count, 1.0) for total in sums)
    through = through_mean + (x32 - mean) * (inverse * through_var)
    if mask is not None:
        through = jnp.where(_expand(mask, x), through, 0.0)
    return ((g32 - through) * (inverse * scale)).astype(x.dtype), scale_grad, bias_grad, None, None


_normalise.defvjp(_normalise_forward, _normalise_backward)


def _expand(mask: jax.Array, x: jax.Array) -> jax.Array:
    """Returns mask [B] with as many dimensions as x [B, ...]."""
    return mask.reshape(-1, *[1] * (x.ndim - 1))


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, ICML 2015) that leaves padding out and is exact over several devices.

    With `axis_name` the statistics are those of all devices' examples together, and with a mask only of those where it
    is true: unlike Flax's own, which averages the devices' means, they are exact when counts differ. They are float32.

    Attributes:
        use_running_average: whether to normalise by the running statistics instead of the batch's.
        momentum: share of the running statistics that is kept at each step.
        epsilon: constant added to the variance.
        use_scale: whether there is a scale.
        initial_scale: initial value of the scale; a network of d residual blocks whose branches begin at d ** -0.5
            keeps the scale of its input (De & Smith, NeurIPS 2020).
        axis_name: name of the `pmap` axis of devices, None on one device.
    """

    use_running_average: bool
    momentum: float
    epsilon: float
    use_scale: bool = True
    initial_scale: float = 1.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns x [B, ..., C] normalised, in its type; `mask` is bool [B], true for examples that count, or None."""
        assert mask is None or mask.shape == x.shape[:1], (x.shape, mask)
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = jnp.ones(shape)
        if self.use_scale:
            scale = self.param("scale", nn.initializers.constant(self.initial_scale), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.use_running_average:
            factor = jax.lax.rsqrt(var.value + self.epsilon) * scale
            return ((x.astype(jnp.float32) - mean.value) * factor + bias).astype(x.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        # No gradient here: that of `_normalise` includes the part through the statistics.
        batch_mean, batch_var, count = jax.lax.stop_gradient(self._statistics(x.astype(jnp.float32), mask, axis_name))
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * batch_var
        statistics = batch_mean, jax.lax.rsqrt(batch_var + self.epsilon), count
        return _normalise(x, scale, bias, statistics, mask, axis_name)

    @staticmethod
    def _statistics(x: jax.Array, mask: jax.Array | None, axis_name: str | None) -> tuple[jax.Array, ...]:
        """Returns mean and variance [C] over all devices' masked examples, and the number of values they average."""
        axes = tuple(range(x.ndim - 1))
        cells = x.size // (x.shape[0] * x.shape[-1])
        if mask is None:
            counted, count = x, jnp.float32(x.shape[0] * cells)
        else:
            counted, count = jnp.where(_expand(mask, x), x, 0.0), jnp.sum(mask, dtype=jnp.float32) * cells
        sums = counted.sum(axes), jnp.square(counted).sum(axes)
        if axis_name is not None:
            sums, count = jax.lax.psum((sums, count), axis_name)
        mean, square = (total / jnp.maximum(count, 1.0) for total in sums)
        return mean, jnp.maximum(square - jnp.square(mean), 0.0), count  # rounding may leave it below 0
