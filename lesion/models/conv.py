"""The convolution in the form each machine runs fastest; the numbers are the same either way.

On CPU a 1x1 convolution runs as a matrix product, a depthwise one as shifted multiply-adds and a strided one's gradient
by the picture as products (1.4-5, 4-14 and 1.2-1.7 times faster than XLA's convolution there); on GPU the library's
convolution is best. The others are XLA's own on CPU too, which is fast where launch/setup.sh chose its library.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp

Form = Literal["auto", "lax", "products"]
Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))
PART_ROWS, MOST_PARTS = 4096, 8  # of a sum over rows, measured on two AVX-512 cores: parts of 4096 or more, at most 8


def uses_products(form: Form) -> bool:
    """Whether the CPU forms are asked for."""
    return form == "products" or (form == "auto" and jax.default_backend() == "cpu")


def windows(x: jax.Array, kernel: tuple[int, int], stride: int) -> list[jax.Array]:
    """The kh·kw shifted pictures [B, H', W', C] that a window sees, row by row."""
    height, width = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel, strict=True))
    rows = (slice(i, i + (height - 1) * stride + 1, stride) for i in range(kernel[0]))
    columns = [slice(j, j + (width - 1) * stride + 1, stride) for j in range(kernel[1])]
    return [x[:, r, c] for r in rows for c in columns]


def _depthwise_sum(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """[B,H,W,C] with [kh,kw,1,C] as kh·kw shifted multiply-adds."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    shifted = windows(x, (kernel.shape[0], kernel.shape[1]), stride)
    total = jnp.zeros_like(shifted[0])
    for picture, weight in zip(shifted, kernel.reshape(-1, kernel.shape[3]), strict=True):
        total = total + picture * weight
    return total


def _lax_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


@jax.custom_vjp
def _product(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """[N, I] with [I, O]. The gradient by the kernel, of few cells and very long sums, is a sum of shorter products."""
    return rows @ kernel


def _product_forward(rows: jax.Array, kernel: jax.Array):
    return rows @ kernel, (rows, kernel)


def _product_backward(held: tuple[jax.Array, jax.Array], g: jax.Array):
    rows, kernel = held
    most = max(1, min(MOST_PARTS, len(rows) // PART_ROWS))
    parts = math.gcd(len(rows), 1 << (most.bit_length() - 1))
    x, y = (a.reshape(parts, -1, a.shape[-1]) for a in (rows, g))
    if kernel.shape[0] > kernel.shape[1]:  # the narrower side first is up to twice as fast
        by_kernel = jnp.einsum("pno,pni->poi", y, x).sum(0).T
    else:
        by_kernel = jnp.einsum("pni,pno->pio", x, y).sum(0)
    return g @ kernel.T, by_kernel


_product.defvjp(_product_forward, _product_backward)


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., I] with [I, O]. Of two dimensions, because the gradient of a product of four is transposed first."""
    return _product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _by_shifts(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """kh·kw products of shifted pictures, summed."""
    kh, kw, inputs, features = kernel.shape
    shifted = windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (kh, kw), stride)
    return sum(map(_pointwise, shifted, kernel.reshape(-1, inputs, features)))  # type: ignore[return-value]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's convolution, but for the gradient by x, where it would multiply mostly zeros."""
    return _lax_conv(x, kernel, stride, padding)


def _strided_conv_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding):
    return _lax_conv(x, kernel, stride, padding), (x, kernel)


def _strided_conv_backward(stride: int, padding: Padding, held: tuple[jax.Array, jax.Array], g: jax.Array):
    x, kernel = held
    _, by_x = jax.vjp(lambda x: _by_shifts(x, kernel, stride, padding), x)
    _, by_kernel = jax.vjp(lambda kernel: _lax_conv(x, kernel, stride, padding), kernel)
    return *by_x(g), *by_kernel(g)


_strided_conv.defvjp(_strided_conv_forward, _strided_conv_backward)


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
    if uses_products(form) and depthwise and groups > 1:
        return _depthwise_sum(x, kernel, stride, padding)
    if uses_products(form) and groups == 1 and kernel.shape[:2] == (1, 1) and padding == NO_PADDING:
        return _pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    if uses_products(form) and groups == 1 and stride > 1:
        return _strided_conv(x, kernel, stride, padding)
    return _lax_conv(x, kernel, stride, padding, groups)
