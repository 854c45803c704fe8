"""Preprocessing: turns pixel values 0-255 into what a network's weights were trained on.

A row of the registry names one of these functions; converted weights and cached features record the function's name.
"""

import jax
import numpy as np

MEAN_RGB = (123.68, 116.779, 103.939)  # ImageNet's mean, of values 0-255
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's mean and deviation, of values 0-1


def lite(x: jax.Array) -> jax.Array:
    """Scales as EfficientNet-Lite does: (x − 127) / 128."""
    return (x - 127.0) / 128.0


def torchvision_mean_std(x: jax.Array) -> jax.Array:
    """Scales as torchvision does: each channel's ImageNet mean to 0 and deviation to 1."""
    return (x / 255.0 - np.array(TORCH_MEAN, np.float32)) / np.array(TORCH_STD, np.float32)


def keras_tf(x: jax.Array) -> jax.Array:
    """Scales to [-1, 1], Keras' "tf" mode."""
    return x / 127.5 - 1.0


def keras_caffe(x: jax.Array) -> jax.Array:
    """Puts blue first and subtracts ImageNet's mean, Keras' "caffe" mode."""
    return x[..., ::-1] - np.array(MEAN_RGB[::-1], np.float32)


def bvlc(x: jax.Array) -> jax.Array:
    """Puts blue first and subtracts the average of Caffe's mean image."""
    return x[..., ::-1] - np.array([104.00699, 116.66877, 122.67892], np.float32)


def minus_mean(x: jax.Array) -> jax.Array:
    """Subtracts ImageNet's mean, red first; conversion moves the difference from a file's own mean into conv1."""
    return x - np.array(MEAN_RGB, np.float32)


def unit(x: jax.Array) -> jax.Array:
    """Scales to [0, 1]."""
    return x / 255.0
