"""Convolutions and pooling in the form each machine runs fastest; the numbers are the same either way.

On CPU a 1x1 convolution runs as a matrix product and a depthwise one as shifted multiply-adds (1.4-5 and 4-14 times
faster than XLA's convolution there, forward and backward); on GPU the library's convolution is best.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Form = Literal["auto", "lax", "products"]
Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))
# Where the CPU forms change hands, measured on two AVX-512 cores at batch 32.
SMALL_AREA = 64  # cells of the output up to which one product of patches beats XLA's convolution
NARROW = 64  # input channels up to which the kernel's gradient is one product of patches
ROW_PARTS = 8  # of its rows
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


def _uses_products(form: Form) -> bool:
    return form == "products" or (form == "auto" and jax.default_backend() == "cpu")


def _windows(x: jax.Array, kernel: tuple[int, int], stride: int) -> list[jax.Array]:
    """The kh·kw shifted pictures [B, H', W', C] that a window sees, row by row."""
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel, strict=True))
    rows = (slice(i, i + (height - 1) * stride + 1, stride) for i in range(kernel[0]))
    columns = [slice(j, j + (width - 1) * stride + 1, stride) for j in range(kernel[1])]
    return [x[:, r, c] for r in rows for c in columns]


def _depthwise_sum(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """[B,H,W,C] with [kh,kw,1,C] as kh·kw shifted multiply-adds."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    shifted = _windows(x, (kernel.shape[0], kernel.shape[1]), stride)
    total = jnp.zeros_like(shifted[0])
    for picture, weight in zip(shifted, kernel.reshape(-1, kernel.shape[3]), strict=True):
        total = total + picture * weight
    return total


def _lax_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def _patches(x: jax.Array, kernel: tuple[int, int], stride: int, padding: Padding) -> jax.Array:
    """Every window as a row: [B, H', W', kh·kw·C]."""
    return jnp.concatenate(_windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel, stride), -1)


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., I] with [I, O]. Of two dimensions, because the gradient of a product of four is transposed first."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _by_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """One product of all windows with the kernel."""
    kh, kw, _, features = kernel.shape
    return _pointwise(_patches(x, (kh, kw), stride, padding), kernel.reshape(-1, features))


def _by_shifts(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """kh·kw products of shifted pictures, summed."""
    kh, kw, inputs, features = kernel.shape
    shifted = _windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (kh, kw), stride)
    return sum(map(_pointwise, shifted, kernel.reshape(-1, inputs, features)))  # type: ignore[return-value]


def _kernel_gradient(x: jax.Array, g: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Gradient by the kernel, [kh, kw, I, O], from the output's g [B, H', W', O]."""
    kh, kw, inputs, features = kernel.shape
    rows = g.reshape(-1, features)
    if inputs > NARROW:
        shifted = _windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (kh, kw), stride)
        return jnp.stack([s.reshape(-1, inputs).T @ rows for s in shifted]).reshape(kernel.shape)
    # Few columns and very many rows: a batch of shorter products keeps all cores busy.
    patches = _patches(x, (kh, kw), stride, padding).reshape(-1, kh * kw * inputs)
    parts = math.gcd(len(rows), ROW_PARTS)
    split = (a.reshape(parts, -1, a.shape[-1]) for a in (rows, patches))
    return jnp.einsum("npo,npi->noi", *split).sum(0).T.reshape(kernel.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cpu_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's convolution forward where it is fast, and gradients as products, where it is 2-13 times slower."""
    area = [(n + sum(p) - k) // stride + 1 for n, p, k in zip(x.shape[1:3], padding, kernel.shape[:2], strict=True)]
    return (_by_patches if math.prod(area) <= SMALL_AREA else _lax_conv)(x, kernel, stride, padding)


def _cpu_conv_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding):
    return _cpu_conv(x, kernel, stride, padding), (x, kernel)


def _cpu_conv_backward(stride: int, padding: Padding, held: tuple[jax.Array, jax.Array], g: jax.Array):
    x, kernel = held
    small = math.prod(g.shape[1:3]) <= SMALL_AREA
    form = _by_shifts if small or stride > 1 else _lax_conv
    _, vjp = jax.vjp(lambda x: form(x, kernel, stride, padding), x)
    return vjp(g)[0], _kernel_gradient(x, g, kernel, stride, padding)


_cpu_conv.defvjp(_cpu_conv_forward, _cpu_conv_backward)


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding, groups: int = 1, form: Form = "auto"
) -> jax.Array:
    """A 2-D convolution (cross-correlation, as in every deep-learning library).

    Args:
        x: [B, H, W, I].
        kernel: [kh, kw, I / groups, O].
        stride: of both axes.
        padding: ((top, bottom), (left, right)).
        groups: number of channel groups.
        form: `lax` is XLA's convolution; `products` is the CPU form where there is one; `auto` chooses by backend.

    Returns:
        [B, H', W', O].
    """
    assert x.ndim == 4 and kernel.ndim == 4 and x.shape[3] == kernel.shape[2] * groups, (x.shape, kernel.shape)
    depthwise = groups == x.shape[3] == kernel.shape[3]
    if _uses_products(form) and depthwise and groups > 1:
        return _depthwise_sum(x, kernel, stride, padding)
    if _uses_products(form) and groups == 1 and kernel.shape[:2] == (1, 1) and padding == NO_PADDING:
        return _pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    if _uses_products(form) and groups == 1:
        return _cpu_conv(x, kernel, stride, padding)
    return _lax_conv(x, kernel, stride, padding, groups)


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
    if not _uses_products(form):
        return nn.max_pool(x, (size, size), (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    first, *others = _windows(x, (size, size), stride)
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
    if _uses_products(form):
        total = sum(_windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (size, size), stride))
    else:
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        zero = jnp.zeros((), x.dtype)
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
