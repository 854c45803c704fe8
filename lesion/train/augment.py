"""The paper's augmentation on the device: pure functions of a key, equal to Pillow where Pillow has the operation.

"Four of {contrast, brightness, sharpness, rotation, vertical flip, horizontal flip} drawn at random give four copies"
(section 1.1): read as four different operations drawn for each slice, one for each copy. The paper gives no strengths;
those below are guesses that leave a lesion recognisable.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

NUM_COPIES = 4
FACTORS = (0.7, 1.3)  # range of the enhancement factor of contrast, brightness and sharpness; 1 changes nothing
MAX_ANGLE_DEG = 15.0


def _blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends two images as Pillow's `Image.blend` does, in float32: the result is clipped, then truncated to uint8."""
    degenerate, pixels = degenerate.astype(jnp.float32), image.astype(jnp.float32)
    # The clip keeps the compiler from fusing product and sum into one multiply-add, which rounds once where Pillow's C
    # code rounds twice: a value that should be an integer could be truncated to the integer below.
    change = jnp.clip(factor * (pixels - degenerate), -1e9, 1e9)
    return jnp.clip(degenerate + change, 0.0, 255.0).astype(jnp.uint8)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Changes the contrast as Pillow's `ImageEnhance.Contrast`: uint8 [H, W] and factor float32 [] to uint8 [H, W]."""
    total = jnp.sum(image, dtype=jnp.int32)  # exact: at most 255 · 2^22 pixels
    mean = (2 * total + image.size) // (2 * image.size)
    return _blend(jnp.full_like(image, mean.astype(jnp.uint8)), image, factor)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Changes the brightness as Pillow's `ImageEnhance.Brightness`; arguments and result as of `contrast`."""
    return _blend(jnp.zeros_like(image), image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Changes the sharpness as Pillow's `ImageEnhance.Sharpness`; arguments and result as of `contrast`."""
    pixels = image.astype(jnp.int32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * pixels[1:-1, 1:-1]
    smooth = image.at[1:-1, 1:-1].set(((2 * total + 13) // 26).astype(jnp.uint8))  # rounded half up, border kept
    return _blend(smooth, image, factor)


def rotate(image: jax.Array, angle_deg: jax.Array) -> jax.Array:
    """Rotates counter-clockwise about the centre as Pillow's `Image.rotate(angle, resample=BILINEAR)`; 0 outside.

    Args:
        image: uint8 [H, W].
        angle_deg: angle in degrees, float32 [].

    Returns:
        uint8 [H, W]; within one grey level of Pillow, which computes coordinates in float64.
    """
    height, width = image.shape
    angle = jnp.deg2rad(angle_deg)
    y, x = jnp.mgrid[0:height, 0:width].astype(jnp.float32)
    y, x = y + 0.5 - height / 2, x + 0.5 - width / 2
    source_x = jnp.cos(angle) * x - jnp.sin(angle) * y + width / 2
    source_y = jnp.sin(angle) * x + jnp.cos(angle) * y + height / 2
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    left, top = jnp.floor(source_x - 0.5), jnp.floor(source_y - 0.5)
    dx, dy = source_x - 0.5 - left, source_y - 0.5 - top
    columns = [jnp.clip(left.astype(jnp.int32) + k, 0, width - 1) for k in (0, 1)]
    rows = [jnp.clip(top.astype(jnp.int32) + k, 0, height - 1) for k in (0, 1)]
    pixels = image.astype(jnp.float32)
    upper, lower = (pixels[row, columns[0]] * (1 - dx) + pixels[row, columns[1]] * dx for row in rows)
    return jnp.where(inside, upper * (1 - dy) + lower * dy, 0.0).astype(jnp.uint8)


def _operations(image: jax.Array, factor: jax.Array, angle_deg: jax.Array) -> list:
    return [
        lambda: contrast(image, factor),
        lambda: brightness(image, factor),
        lambda: sharpness(image, factor),
        lambda: rotate(image, angle_deg),
        lambda: image[::-1],
        lambda: image[:, ::-1],
    ]


def augment(key: jax.Array, image: jax.Array, copy: jax.Array) -> jax.Array:
    """Returns one augmented copy of a slice, uint8 [H, W].

    Args:
        key: the slice's key, see `slice_keys`.
        image: the slice's picture, uint8 [H, W].
        copy: index of the copy, int32 []: 0 gives the slice itself, 1 to 4 the paper's copies.
    """
    assert image.ndim == 2 and image.dtype == jnp.uint8, (image.shape, image.dtype)
    key_choice, key_factor, key_angle = (jax.random.fold_in(key, purpose) for purpose in range(3))
    chosen = jax.random.permutation(key_choice, 6)[jnp.maximum(copy - 1, 0)]
    factor = jax.random.uniform(jax.random.fold_in(key_factor, copy), (), jnp.float32, *FACTORS)
    angle = jax.random.uniform(jax.random.fold_in(key_angle, copy), (), jnp.float32, -MAX_ANGLE_DEG, MAX_ANGLE_DEG)
    branches = [lambda: image, *_operations(image, factor, angle)]
    return jax.lax.switch(jnp.where(copy == 0, 0, chosen + 1), branches)


def id_hashes(slice_id: np.ndarray) -> np.ndarray:
    """Returns hashes of the slices' ids, uint32 [N], from str [N]."""
    hashes = [int.from_bytes(hashlib.sha256(str(i).encode()).digest()[:4], "big") for i in slice_id]
    return np.array(hashes, np.uint32)


def slice_keys(key: jax.Array, slice_id: np.ndarray) -> jax.Array:
    """Returns a key for each slice, [N], which depends on the slice's id and not on its position in the dataset."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(id_hashes(slice_id)))
