"""Supplies the training images from memory or from disk.

Both ways give the same pixels in the same order, so the choice does not affect the model.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cifar import hardware
from cifar.reading import ahead, read_rows
from cifar.training.augment import Augmentation, pad, resize

COPIES = 4  # of the images: the originals, padded ones, smaller ones, and temporary arrays


def in_memory(
    size: int, device: torch.device, processes: int, *, load: Literal["auto", "memory", "disk"]
) -> bool:
    """Whether to keep images of `size` bytes on the device.

    auto: if they fit COPIES times into the device's total memory, however much of it is in use.

    Args:
        processes: number of processes on this machine that keep them.
    """
    if load == "auto":
        return COPIES * size * processes <= hardware.total_memory(device)
    return load == "memory"


class InMemory:
    """Images on the device, resized and padded once for all epochs.

    Args:
        images: (N, H, W, C) uint8.
    """

    def __init__(self, images: Tensor, options: Augmentation) -> None:
        self.images = pad(images, options.shift)
        self.small_images: Tensor | None = None
        if options.small_epochs:
            self.small_images = pad(resize(images, options.small_size), options.shift)

    def batches(self, indices: list[Tensor], small: bool) -> Iterator[tuple[Tensor, Tensor]]:
        images = self.images
        if small:
            assert self.small_images is not None
            images = self.small_images
        for index in indices:
            yield images, index


class OnDisk:
    """Images in a file, read ahead of the network, and resized and padded batch by batch.

    Args:
        images: (N, H, W, C) uint8, a memory-mapped .npy file.
        device: of the network.
    """

    def __init__(self, images: np.memmap, options: Augmentation, device: torch.device) -> None:
        self.images = images
        self.options = options
        self.device = device

    def batches(self, indices: list[Tensor], small: bool) -> Iterator[tuple[Tensor, Tensor]]:
        # One copy from the device for all batches, because each copy waits for the network.
        on_cpu = torch.cat(indices).cpu().split([len(index) for index in indices])
        for batch in ahead(self.read, on_cpu):
            images = batch.to(self.device, non_blocking=True)
            images = resize(images, self.options.small_size) if small else images
            yield pad(images, self.options.shift), torch.arange(len(batch), device=self.device)

    def read(self, index: Tensor) -> Tensor:
        """Read images (B, H, W, C) into memory from which a GPU can copy while it computes."""
        shape = (len(index), *self.images.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        read_rows(self.images, index.numpy(), images.numpy())
        return images
