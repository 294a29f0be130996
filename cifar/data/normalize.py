"""Pixels to network inputs: (pixel / 255 - mean) / std per channel, computed once, applied on the device."""

import math

import numpy as np


def statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all pixels, in units of [0, 1].

    The sums are integers, from a histogram of the 256 values: exact, so that the result is the same to the
    last bit on any machine. (The constants in wide use for CIFAR-10 average the deviations of single images.)

    Args:
        images: (N, H, W, C) uint8, the training part only.
    """
    means, stds, values = [], [], np.arange(256)
    for channel in range(images.shape[3]):
        parts = np.array_split(
            images[..., channel], 1 + len(images) // 100
        )  # bincount takes 8 bytes per value
        counts = np.sum([np.bincount(part.ravel(), minlength=256) for part in parts], axis=0)
        n, total, squares = int(counts.sum()), int(counts @ values), int(counts @ values**2)
        means.append(total / (255 * n))
        stds.append(math.sqrt(n * squares - total**2) / (255 * n))
    return means, stds


def constants(kind: str, images: np.ndarray) -> tuple[list[float], list[float]]:
    """The (mean, std) to subtract and divide by: the four ways of `preprocess.normalize`."""
    channels = images.shape[3]
    if kind == "unit":
        return [0.0] * channels, [1.0] * channels
    if kind == "symmetric":
        return [0.5] * channels, [0.5] * channels
    means, stds = statistics(images)
    if kind == "center":
        return means, [1.0] * channels
    return means, [
        std or 1.0 for std in stds
    ]  # a channel of one value has no deviation to divide by
