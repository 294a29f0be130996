"""From arrays on disk to what a network takes, on the device."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, place: torch.device) -> Tensor:
    """A copy of a memory-mapped array as a tensor."""
    return torch.from_numpy(np.array(array)).to(place)


def from_disk(array: np.ndarray) -> Tensor:
    """A memory-mapped array as a tensor of the CPU, read from the disk where it is looked at; not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def normalizer(
    mean: list[float], std: list[float], place: torch.device
) -> Callable[[Tensor], Tensor]:
    """A function from (N, H, W, C) uint8 to (N, C, H, W) float32 in channels-last memory, (x / 255 - mean) / std.

    The images may be on another device.
    """
    stds = torch.tensor(std, dtype=torch.float64)
    scale = (1 / (255 * stds)).float().to(place)
    shift = (-torch.tensor(mean, dtype=torch.float64) / stds).float().to(place)
    return lambda images: images.to(place).float().mul_(scale).add_(shift).permute(0, 3, 1, 2)
