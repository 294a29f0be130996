"""Arrays on disk as network input on the device."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy a memory-mapped array into a tensor on the device."""
    return torch.from_numpy(np.array(array)).to(device)


def from_disk(array: np.ndarray) -> Tensor:
    """A memory-mapped array as a read-only CPU tensor, which is read from disk as it is used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def normalizer(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return a function from (N, H, W, C) uint8 to (N, C, H, W) float32 in channels-last memory.

    It computes (x / 255 - mean) / std on the device. The images may be on another device and are
    not changed.
    """
    stds = torch.tensor(std, dtype=torch.float64)
    scale = (1 / (255 * stds)).float().to(device)
    shift = (-torch.tensor(mean, dtype=torch.float64) / stds).float().to(device)

    def normalize(images: Tensor) -> Tensor:
        return (images.to(device) * scale).add_(shift).permute(0, 3, 1, 2)

    return normalize
