"""The convolution, computed in the way that is fastest on each backend; all ways give the same numbers.

On CPU a 1x1 convolution runs as a matrix product, a depthwise one as shifted multiply-adds and the input gradient of a
strided one as matrix products (1.4-5, 4-14 and 1.2-1.7 times faster than XLA's convolution there); on GPU XLA's is
fastest. All other convolutions are XLA's on CPU too, which is fast with the library that launch/setup.sh chooses.

Sums run in float32 whatever the input's type: a sum in bfloat16 stops growing once its next term is below 1/256 of it.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp

ConvImpl = Literal["auto", "lax", "matmul"]
Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))
# A kernel gradient's sum over rows is split into at most 8 parts of at least 4096 rows: fastest on two AVX-512 cores.
MIN_PART_ROWS, MAX_PARTS = 4096, 8


def symmetric_padding(height: int, width: int | None = None) -> Padding:
    """Returns torch's `padding=(height, width)`, the same on opposite sides; `width` None stands for `height`."""
    width = height if width is None else width
    return (height, height), (width, width)


def same_padding(size: tuple[int, int], kernel_size: tuple[int, int], stride: int) -> Padding:
    """Returns the padding of TensorFlow's SAME, which puts an odd pixel at the bottom and right.

    Args:
        size: height and width of the input.
        kernel_size: height and width of the kernel.
        stride: step of the window along both axes.

    Returns:
        ((top, bottom), (left, right)).
    """

    def pad(n: int, k: int) -> tuple[int, int]:
        total = max((-(-n // stride) - 1) * stride + k - n, 0)
        return total // 2, total - total // 2

    return pad(size[0], kernel_size[0]), pad(size[1], kernel_size[1])


def uses_matmul(impl: ConvImpl) -> bool:
    """Tells whether to compute in the CPU's way: for `matmul`, and for `auto` where the backend is a CPU."""
    return impl == "matmul" or (impl == "auto" and jax.default_backend() == "cpu")


def shifted_views(x: jax.Array, kernel_size: tuple[int, int], stride: int) -> list[jax.Array]:
    """Returns views [B, H', W', C] of `x` [B, H, W, C], one for each of the window's kh·kw cells, row by row."""
    assert x.ndim == 4, x.shape
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel_size, strict=True))
    rows = (slice(i, i + (height - 1) * stride + 1, stride) for i in range(kernel_size[0]))
    columns = [slice(j, j + (width - 1) * stride + 1, stride) for j in range(kernel_size[1])]
    return [x[:, r, c] for r in rows for c in columns]


def _depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolves [B, H, W, C] with [kh, kw, 1, C] by kh·kw shifted multiply-adds."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    views = shifted_views(x, (kernel.shape[0], kernel.shape[1]), stride)
    total = jnp.zeros_like(views[0])
    for view, weight in zip(views, kernel.reshape(-1, kernel.shape[3]), strict=True):
        total = total + view * weight
    return total


def _lax_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@jax.custom_vjp
def _matmul(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies [N, I] by [I, O]; the kernel's gradient, few cells of very long sums, is summed in parts."""
    return rows @ kernel


def _matmul_forward(rows: jax.Array, kernel: jax.Array):
    return rows @ kernel, (rows, kernel)


def _matmul_backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array):
    rows, kernel = residuals
    max_parts = max(1, min(MAX_PARTS, len(rows) // MIN_PART_ROWS))
    num_parts = math.gcd(len(rows), 1 << (max_parts.bit_length() - 1))
    x, y = (a.reshape(num_parts, -1, a.shape[-1]) for a in (rows, g))
    if kernel.shape[0] > kernel.shape[1]:  # the narrower side first is up to twice as fast
        kernel_grad = jnp.einsum("pno,pni->poi", y, x).sum(0).T
    else:
        kernel_grad = jnp.einsum("pni,pno->pio", x, y).sum(0)
    return g @ kernel.T, kernel_grad


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies [..., I] by [I, O] as two-dimensional arrays, which spares their gradient a transposition."""
    return _matmul(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _shifted_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolves by summing kh·kw matrix products of shifted images."""
    kh, kw, inputs, features = kernel.shape
    views = shifted_views(jnp.pad(x, ((0, 0), *padding, (0, 0))), (kh, kw), stride)
    return sum(map(_pointwise_conv, views, kernel.reshape(-1, inputs, features)))  # type: ignore[return-value]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Convolves as XLA does, except in the gradient by x, where XLA would multiply mostly zeros."""
    return _lax_conv(x, kernel, stride, padding)


def _strided_conv_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding):
    return _lax_conv(x, kernel, stride, padding), (x, kernel)


def _strided_conv_backward(stride: int, padding: Padding, residuals: tuple[jax.Array, jax.Array], g: jax.Array):
    x, kernel = residuals
    _, input_vjp = jax.vjp(lambda x: _shifted_conv(x, kernel, stride, padding), x)
    _, kernel_vjp = jax.vjp(lambda kernel: _lax_conv(x, kernel, stride, padding), kernel)
    return *input_vjp(g), *kernel_vjp(g)


_strided_conv.defvjp(_strided_conv_forward, _strided_conv_backward)


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding, groups: int = 1, impl: ConvImpl = "auto"
) -> jax.Array:
    """Returns a 2-D convolution (cross-correlation, as in every deep-learning library).

    Args:
        x: [B, H, W, I].
        kernel: [kh, kw, I / groups, O].
        stride: step of the window along both axes.
        padding: ((top, bottom), (left, right)).
        groups: number of channel groups.
        impl: `lax` for XLA's convolution, `matmul` for the CPU's way where there is one, `auto` to choose by backend.

    Returns:
        [B, H', W', O].
    """
    assert x.ndim == 4 and kernel.ndim == 4 and x.shape[3] == kernel.shape[2] * groups, (x.shape, kernel.shape)
    if not uses_matmul(impl):
        return _lax_conv(x, kernel, stride, padding, groups)  # cuDNN sums in float32
    if x.dtype == jnp.float32:
        return _conv_on_cpu(x, kernel, stride, padding, groups)

    def widened(x: jax.Array, kernel: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
        return _conv_on_cpu(*wide, stride, padding, groups).astype(x.dtype)

    return jax.checkpoint(widened)(x, kernel)  # what the gradients need is kept narrow


def _conv_on_cpu(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, groups: int) -> jax.Array:
    if groups == x.shape[3] == kernel.shape[3] and groups > 1:
        return _depthwise_conv(x, kernel, stride, padding)
    if groups == 1 and kernel.shape[:2] == (1, 1) and padding == NO_PADDING:
        return _pointwise_conv(x[:, ::stride, ::stride], kernel[0, 0])
    if groups == 1 and stride > 1:
        return _strided_conv(x, kernel, stride, padding)
    return _lax_conv(x, kernel, stride, padding, groups)
