"""Pooling, normalisation and the modules that the backbones are built of, and how a network runs by stages."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lesion.models.conv import NO_PADDING, Form, Padding, conv2d, uses_products, windows

KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def same_padding(size: tuple[int, int], kernel: tuple[int, int], stride: int) -> Padding:
    """TensorFlow's SAME as numbers: the odd pixel goes to the bottom and right.

    Args:
        size: height and width of the input.
        kernel: height and width of the kernel.
        stride: of both axes.

    Returns:
        ((top, bottom), (left, right)).
    """

    def one(n: int, k: int) -> tuple[int, int]:
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        return total // 2, total - total // 2

    return one(size[0], kernel[0]), one(size[1], kernel[1])


def even_padding(height: int, width: int | None = None) -> Padding:
    """Torch's `padding=`: as much on either side."""
    width = height if width is None else width
    return (height, height), (width, width)


def max_pool(x: jax.Array, size: int, stride: int, padding: Padding = NO_PADDING, form: Form = "auto") -> jax.Array:
    """The largest value of each window, the border padded with -inf.

    On CPU a maximum over shifted pictures, whose gradient costs a quarter of XLA's select-and-scatter. Where several
    values of a window are the largest, the forms divide the gradient differently between them.

    Args:
        x: [B, H, W, C].
        size: side of the window.
        stride: of both axes.
        padding: ((top, bottom), (left, right)).
        form: see `conv2d`.

    Returns:
        [B, H', W', C].
    """
    assert x.ndim == 4, x.shape
    if not uses_products(form):
        return nn.max_pool(x, (size, size), (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    first, *others = windows(x, (size, size), stride)
    for other in others:
        first = jnp.maximum(first, other)
    return first


def mean_pool(
    x: jax.Array, size: int, stride: int, padding: Padding, count_padding: bool, form: Form = "auto"
) -> jax.Array:
    """The mean of each window: [B, H, W, C] to [B, H', W', C].

    Args:
        x: the pictures.
        size: side of the window.
        stride: of both axes.
        padding: ((top, bottom), (left, right)), zeros.
        count_padding: whether they count as pixels: torch yes, Keras no.
        form: see `conv2d`.
    """
    assert x.ndim == 4, x.shape
    if uses_products(form):
        total = sum(windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (size, size), stride))
    else:
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        zero = np.zeros((), x.dtype)  # a number and no tracer: with those it has no gradient
        total = jax.lax.reduce_window(x, zero, jax.lax.add, window, strides, ((0, 0), *padding, (0, 0)))
    inside = [
        np.pad(np.ones(n), pad, constant_values=count_padding) for n, pad in zip(x.shape[1:3], padding, strict=True)
    ]
    rows, columns = (np.convolve(line, np.ones(size), "valid")[::stride] for line in inside)
    return total * jnp.asarray(1.0 / np.outer(rows, columns)[None, :, :, None], x.dtype)


def adaptive_mean_pool(x: jax.Array, side: int) -> jax.Array:
    """Torch's AdaptiveAvgPool2d, [B, H, W, C] to [B, side, side, C]: cell i averages ⌊iH/side⌋ to ⌈(i+1)H/side⌉."""
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
        size: odd number of channels of the sum.
        alpha: its factor, divided by `size` as in Caffe, ONNX and torch.
        beta: exponent.
        k: constant; Caffe's 1 (Krizhevsky 2012, section 3.3: 2, and alpha not divided).

    Returns:
        The same shape.
    """
    assert x.ndim == 4 and size % 2 == 1, (x.shape, size)
    reach = size // 2
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (reach, reach)))
    total = sum(squares[..., i : i + x.shape[3]] for i in range(size))
    return x * (k + alpha / size * total) ** -beta


class Conv(nn.Module):
    """A convolution; see `conv2d`.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: of both axes.
        padding: in numbers, or `same` as in TensorFlow.
        groups: of channels.
        use_bias: whether a bias is added.
        form: see `conv2d`.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: Padding | Literal["same"] = "same"
    groups: int = 1
    use_bias: bool = False
    form: Form = "auto"
    kernel_init: Callable = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] to [B, H', W', features]."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        padding = self.padding
        if padding == "same":
            padding = same_padding((x.shape[1], x.shape[2]), self.kernel_size, self.stride)
        y = conv2d(x, kernel.astype(x.dtype), stride=self.stride, padding=padding, groups=self.groups, form=self.form)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(x.dtype)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, statistics: tuple, mask: jax.Array | None, axis_name: str | None
) -> jax.Array:
    """x [B, ..., C] normalised by its own statistics: mean [C], 1 / deviation [C], count of the masked examples' cells.

    The gradient by x includes what goes through the statistics. It holds only x and reads it twice, once for the sums;
    XLA's own of the same formula is slower.
    """
    mean, inverse, _ = statistics
    return ((x.astype(jnp.float32) - mean) * (inverse * scale) + bias).astype(x.dtype)


def _normalise_forward(x, scale, bias, statistics, mask, axis_name):
    return _normalise(x, scale, bias, statistics, mask, axis_name), (x, scale, statistics, mask)


def _normalise_backward(axis_name: str | None, held: tuple, g: jax.Array):
    x, scale, (mean, inverse, count), mask = held
    axes = tuple(range(x.ndim - 1))
    held_x, wide = jax.lax.optimization_barrier(x).astype(jnp.float32), g.astype(jnp.float32)
    by_bias = wide.sum(axes)
    by_scale = ((wide * held_x).sum(axes) - mean * by_bias) * inverse
    # Every device's outputs depend on the statistics.
    sums = (by_bias, by_scale) if axis_name is None else jax.lax.psum((by_bias, by_scale), axis_name)
    through_mean, through_var = (total / jnp.maximum(count, 1.0) for total in sums)
    through = through_mean + (held_x - mean) * (inverse * through_var)
    if mask is not None:
        through = jnp.where(_along(mask, x), through, 0.0)
    return ((wide - through) * (inverse * scale)).astype(x.dtype), by_scale, by_bias, None, None


_normalise.defvjp(_normalise_forward, _normalise_backward)


def _along(mask: jax.Array, x: jax.Array) -> jax.Array:
    """mask [B] with as many dimensions as x [B, ...]."""
    return mask.reshape(-1, *[1] * (x.ndim - 1))


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, ICML 2015) whose statistics are those of the examples that count.

    Of all devices' examples together where `axis_name` is given, and without padding where a mask is: unlike Flax's
    own, which averages the devices' means, it is exact when their counts differ. Statistics are float32.

    Attributes:
        use_running_average: normalise by the running statistics instead of the batch's.
        momentum: what is kept of the running statistics at each step.
        epsilon: added to the variance.
        use_scale: whether there is a scale.
        axis_name: of the devices, None on one.
    """

    use_running_average: bool
    momentum: float
    epsilon: float
    use_scale: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """[B, ..., C] to the same shape and type; mask [B] bool, all true if None."""
        assert mask is None or mask.shape == x.shape[:1], (x.shape, mask)
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32) if self.use_scale else jnp.ones(shape)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if self.use_running_average:
            factor = jax.lax.rsqrt(var.value + self.epsilon) * scale
            return ((x.astype(jnp.float32) - mean.value) * factor + bias).astype(x.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        # No gradient here: `_normalise` has what goes through the statistics.
        now = jax.lax.stop_gradient(self._statistics(x.astype(jnp.float32), mask, axis_name))
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * now[0]
            var.value = self.momentum * var.value + (1 - self.momentum) * now[1]
        used = now[0], jax.lax.rsqrt(now[1] + self.epsilon), now[2]
        return _normalise(x, scale, bias, used, mask, axis_name)

    @staticmethod
    def _statistics(x: jax.Array, mask: jax.Array | None, axis_name: str | None) -> tuple[jax.Array, ...]:
        """Mean and variance [C] over the masked examples of all devices, and how many values each is of."""
        axes = tuple(range(x.ndim - 1))
        cells = x.size // (x.shape[0] * x.shape[-1])
        if mask is None:
            kept, count = x, jnp.float32(x.shape[0] * cells)
        else:
            kept, count = jnp.where(_along(mask, x), x, 0.0), jnp.sum(mask, dtype=jnp.float32) * cells
        sums = kept.sum(axes), jnp.square(kept).sum(axes)
        if axis_name is not None:
            sums, count = jax.lax.psum((sums, count), axis_name)
        mean, square = (total / jnp.maximum(count, 1.0) for total in sums)
        return mean, jnp.maximum(square - jnp.square(mean), 0.0), count  # rounding may leave it below 0


Stage = tuple[str, Callable[[Any], Any]]


def run_stages(stages: list[Stage], x: Any, start: str | None, stop: str | None) -> tuple[Any, bool]:
    """Runs a network's stages, or those between two of them.

    A name stands for itself and for everything it begins: `layer3` is `layer3_0` to `layer3_5`.

    Args:
        stages: (name, function), in order.
        x: the input, or what stage `start` gave.
        start: the stage whose output `x` is; None runs from the beginning.
        stop: the last stage to run; None runs all.

    Returns:
        The output, and whether the last stage was run.

    Raises:
        ValueError: for a name that no stage has, or that comes too early.
    """

    def last(asked: str) -> int:
        found = [i for i, (name, _) in enumerate(stages) if name == asked or name.startswith(f"{asked}_")]
        if not found:
            raise ValueError(f"no stage {asked!r}: choose one of {', '.join(name for name, _ in stages)}")
        return found[-1]

    begin = 0 if start is None else last(start) + 1
    end = len(stages) if stop is None else last(stop) + 1
    if end < begin:
        raise ValueError(f"stage {stop!r} comes before {start!r}")
    for _, stage in stages[begin:end]:
        x = stage(x)
    return x, end == len(stages)
