"""The constants of the normalisation, (pixel / 255 - mean) / std per channel."""

import math

import numpy as np
from PIL import Image

CACHED = 1 << 16  # pixels that fit into the cache of a processor


def histogram(images: np.ndarray) -> np.ndarray:
    """Count how often each of the 256 values occurs in each channel: (C, 256) int64.

    Args:
        images: (N, H, W, C) uint8; the histograms of several batches can be added.
    """
    _, height, width, channels = images.shape
    counts = np.zeros((channels, 256), np.int64)
    step = max(1, CACHED // (height * width))
    for start in range(0, len(images), step):
        pixels = images[start : start + step].reshape(-1, width, channels)  # one tall image
        image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
        counts += np.reshape(image.histogram(), (channels, 256))  # several times as fast as NumPy
    return counts


def statistics(counts: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels, in units of [0, 1].

    The sums are integers, so the result is the same to the last bit on any machine. (The constants
    in wide use for CIFAR-10 average the standard deviations of single images.)

    Args:
        counts: the histogram of the training images only, (C, 256).
    """
    means = []
    stds = []
    values = np.arange(256)
    for row in counts:
        n = int(row.sum())
        total = int(row @ values)
        squares = int(row @ values**2)
        means.append(total / (255 * n))
        stds.append(math.sqrt(n * squares - total**2) / (255 * n))
    return means, stds


def constants(normalize: str, histogram: np.ndarray) -> tuple[list[float], list[float]]:
    """The mean to subtract and the std to divide by, for a value of `preprocess.normalize`."""
    channels = len(histogram)
    if normalize == "unit":
        return [0.0] * channels, [1.0] * channels
    if normalize == "symmetric":
        return [0.5] * channels, [0.5] * channels
    means, stds = statistics(histogram)
    if normalize == "center":
        return means, [1.0] * channels
    return means, [std or 1.0 for std in stds]  # a constant channel has std 0
