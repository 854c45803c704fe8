"""The convolution in the form each machine runs fastest; the numbers are the same either way.

On CPU a 1x1 convolution runs as a matrix product, a depthwise one as shifted multiply-adds, and the others' gradients
as products (1.4-5, 4-14 and 2-13 times faster than XLA's convolution there); on GPU the library's convolution is best.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp

Form = Literal["auto", "lax", "products"]
Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))
# Where the CPU forms change hands, measured on two AVX-512 cores at batch 32.
SMALL_AREA = 64  # cells of the output up to which one product of patches beats XLA's convolution
NARROW = 64  # input channels up to which the kernel's gradient is one product of patches
ROW_PARTS = 8  # of its rows


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


def _patches(x: jax.Array, kernel: tuple[int, int], stride: int, padding: Padding) -> jax.Array:
    """Every window as a row: [B, H', W', kh·kw·C]."""
    return jnp.concatenate(windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel, stride), -1)


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
    shifted = windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (kh, kw), stride)
    return sum(map(_pointwise, shifted, kernel.reshape(-1, inputs, features)))  # type: ignore[return-value]


def _kernel_gradient(x: jax.Array, g: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Gradient by the kernel, [kh, kw, I, O], from the output's g [B, H', W', O]."""
    kh, kw, inputs, features = kernel.shape
    rows = g.reshape(-1, features)
    if inputs > NARROW:
        shifted = windows(jnp.pad(x, ((0, 0), *padding, (0, 0))), (kh, kw), stride)
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
    if uses_products(form) and depthwise and groups > 1:
        return _depthwise_sum(x, kernel, stride, padding)
    if uses_products(form) and groups == 1 and kernel.shape[:2] == (1, 1) and padding == NO_PADDING:
        return _pointwise(x[:, ::stride, ::stride], kernel[0, 0])
    if uses_products(form) and groups == 1:
        return _cpu_conv(x, kernel, stride, padding)
    return _lax_conv(x, kernel, stride, padding, groups)
