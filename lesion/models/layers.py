"""Convolutions in the form each machine runs fastest; the numbers are the same either way.

On CPU a 1x1 convolution runs as a matrix product and a depthwise one as shifted multiply-adds (1.4-5 and 4-14 times
faster than XLA's convolution there, forward and backward); on GPU the library's convolution is best.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

Form = Literal["auto", "lax", "products"]
Padding = tuple[tuple[int, int], tuple[int, int]]


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


def _depthwise_sum(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """[B,H,W,C] with [kh,kw,1,C] as kh·kw shifted multiply-adds."""
    kh, kw = kernel.shape[:2]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height = (x.shape[1] - kh) // stride + 1
    width = (x.shape[2] - kw) // stride + 1
    total = jnp.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            total = total + x[:, rows, columns] * kernel[i, j, 0]
    return total


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
    products = form == "products" or (form == "auto" and jax.default_backend() == "cpu")
    depthwise = groups == x.shape[3] == kernel.shape[3]
    if products and depthwise and groups > 1:
        return _depthwise_sum(x, kernel, stride, padding)
    if products and groups == 1 and kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


class Conv(nn.Module):
    """A convolution without bias and with TensorFlow's SAME padding; see `conv2d`.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: of both axes.
        depthwise: one kernel a channel; `features` must then equal the input's channels.
        form: see `conv2d`.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    depthwise: bool = False
    form: Form = "auto"
    kernel_init: Callable = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, I] to [B, ceil(H / stride), ceil(W / stride), features]."""
        groups = x.shape[-1] if self.depthwise else 1
        shape = (*self.kernel_size, x.shape[-1] // groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        padding = same_padding((x.shape[1], x.shape[2]), self.kernel_size, self.stride)
        return conv2d(x, kernel, stride=self.stride, padding=padding, groups=groups, form=self.form)
