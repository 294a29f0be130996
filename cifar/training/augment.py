"""Augmentation in two steps: draw the offsets of an epoch, then apply those of a batch.

Each image has its own draw. Images stay uint8 and channels-last in memory, (N, H, W, C), until the
network gets them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cifar.training import mix, photo, seeds
from cifar.training.mix import MixDraws
from cifar.training.photo import PhotoOptions

CHUNK = 4096  # images at a time where a step works on floats, four times as large


@dataclass(frozen=True)
class Draws:
    """One value per image.

    Attributes:
        top: (N,) int64, rows to skip in the padded image, 0 to 2 * shift.
        left: (N,) int64, columns to skip, likewise.
        mirror: (N,) bool, whether to mirror it.
        hole: (N, 2) float in [0, 1), the hole's centre as fractions of height and width.
    """

    top: Tensor
    left: Tensor
    mirror: Tensor
    hole: Tensor

    def take(self, index: Tensor) -> "Draws":
        """Those of the images `index`, on its device."""
        return Draws(self.top[index], self.left[index], self.mirror[index], self.hole[index])

    def to(self, device: torch.device) -> "Draws":
        return Draws(
            self.top.to(device),
            self.left.to(device),
            self.mirror.to(device),
            self.hole.to(device),
        )


def draw(
    count: int,
    shift: int,
    flip: str,
    epoch: int,
    flip_generator: torch.Generator,
    epoch_generator: torch.Generator,
) -> Draws:
    """Uniform offsets for `count` images. The same numbers are drawn whatever is switched off.

    Args:
        flip: none; random: half of the images; alternating: half of them, chosen once, in odd
            epochs and the other half in even ones, so that two epochs show both sides of every
            image (Jordan, 2024).
        epoch: from 1.
        flip_generator: of the choice for alternating, the same in every epoch.
        epoch_generator: of everything else, another in each epoch.
    """
    top, left = torch.randint(2 * shift + 1, (2, count), generator=epoch_generator)
    mirror = torch.rand(count, generator=epoch_generator) < 0.5
    hole = torch.rand(count, 2, generator=epoch_generator)
    if flip == "alternating":
        mirror = (torch.rand(count, generator=flip_generator) < 0.5) ^ (epoch % 2 == 0)
    if flip == "none":
        mirror = torch.zeros_like(mirror)
    return Draws(top, left, mirror, hole)


def pad(images: Tensor, shift: int) -> Tensor:
    """(N, H, W, C) to (N, H + 2 * shift, W + 2 * shift, C), with reflected borders.

    An image smaller than the shift cannot be reflected and repeats its border pixels instead.
    """
    if shift == 0:
        return images
    reflected = shift < min(images.shape[1:3])
    for axis in (1, 2):
        last = images.shape[axis] - 1
        positions = torch.arange(-shift, last + 1 + shift, device=images.device)
        inside = last - (last - positions.abs()).abs() if reflected else positions.clamp(0, last)
        images = images.index_select(axis, inside)
    return images


def resize(images: Tensor, size: int) -> Tensor:
    """(N, H, W, C) uint8 to (N, size, size, C), each pixel the weighted mean of those it covers."""
    chunks = []
    for chunk in images.split(CHUNK):
        pixels = chunk.permute(0, 3, 1, 2).float()
        small = F.interpolate(
            pixels, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
        chunks.append(small.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    return torch.cat(chunks)


def apply(padded: Tensor, index: Tensor, draws: Draws, shift: int) -> Tensor:
    """The images `index` of the padded set, cropped and mirrored as drawn: (B, H, W, C) uint8."""
    count, height, width, channels = padded.shape
    offsets = 2 * shift + 1
    crops = (count, offsets, offsets, height - 2 * shift, width - 2 * shift, channels)
    n, y, x, c = padded.stride()
    windows = padded.as_strided(crops, (n, y, x, y, x, c))  # every crop of every image, no copy
    images = windows[index, draws.top, draws.left]
    return torch.where(draws.mirror[:, None, None, None], images.flip(2), images)


def cut_out(x: Tensor, draws: Draws, cutout: int) -> Tensor:
    """A square hole of side `cutout` in each network input (B, C, H, W), clipped at the borders.

    Holes are 0: the mean of centred or standardized images, black in [0, 1], grey in [-1, 1].

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (2017).
    """
    if cutout == 0:
        return x
    rows = inside_hole(x.shape[2], draws.hole[:, :1], cutout)
    columns = inside_hole(x.shape[3], draws.hole[:, 1:], cutout)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def inside_hole(length: int, centre: Tensor, cutout: int) -> Tensor:
    """(B, length) bool for centres (B, 1) in [0, 1)."""
    positions = torch.arange(length, device=centre.device)
    return (positions - (centre * length).floor() + cutout // 2) // cutout == 0


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image; with its defaults, nothing.

    Attributes:
        shift: pixels, at most, in each direction; 0: off.
        flip: none, random or alternating.
        cutout: pixels, side of a square hole; 0: off.
        small_epochs: how many epochs, the first ones, show smaller images. A network learns as much
            from them at first, in half the time (progressive resizing, Howard 2018).
        small_size: pixels, height and width of the smaller images.
        photo: rotation, zoom, colours, in one more step.
        mixup: alpha of the beta distribution of blended images; 0: off.
        cutmix: alpha of the beta distribution of pasted boxes; 0: off.
    """

    shift: int = 0
    flip: str = "none"
    cutout: int = 0
    small_epochs: int = 0
    small_size: int = 0
    photo: PhotoOptions = field(default_factory=PhotoOptions)
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def active(self) -> bool:
        """Whether an image may look different in another epoch."""
        return replace(self, small_size=0) != Augmentation()


class Images(Protocol):
    """The training images, wherever they are."""

    def batches(self, indices: list[Tensor], small: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """For each index (B,) padded uint8 images on the device, and which of them it means.

        Args:
            small: whether they are the smaller images of the first epochs.
        """


class AugmentedImages:
    """The training images as each epoch shows them.

    Args:
        labels: (N,), on the device.
        normalize: from (B, H, W, C) pixels to the network's input (B, C, H, W).
        num_classes: of mixed labels.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        normalize: Callable[[Tensor], Tensor],
        options: Augmentation,
        *,
        num_classes: int,
    ) -> None:
        self.images = images
        self.labels = labels
        self.normalize = normalize
        self.options = options
        self.num_classes = num_classes

    def epoch(
        self, epoch: int, seed: int, batches: Iterable[Tensor], part: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, int]]:
        """For a part of each batch of indices its network input, its targets, the batch's size.

        Args:
            epoch: from 1; it chooses the size of the images.
            seed: of the network.
            part: which of a batch's indices are this process's.

        Yields:
            (B, C, H, W) float; (B,) labels, or (B, classes) probabilities of mixed images; the
            images of the batch over all processes.
        """
        options = self.options
        count = len(self.labels)
        device = self.labels.device
        flip_generator = seeds.generator(seed, "flip")
        epoch_generator = seeds.generator(seed, "augmentation", epoch)
        draws = draw(count, options.shift, options.flip, epoch, flip_generator, epoch_generator)
        draws = draws.to(device)
        photo_draws = photo.draw(count, options.photo, seeds.generator(seed, "photo", epoch))
        alpha = options.mixup or options.cutmix
        mix_draws = mix.draw(count, alpha, seeds.derive(seed, "mix", epoch)) if alpha else None
        batches = list(batches)
        indices = [part(batch) for batch in batches]
        padded_batches = self.images.batches(indices, small=epoch <= options.small_epochs)
        for batch, index, (padded, rows) in zip(batches, indices, padded_batches, strict=True):
            batch_draws = draws.take(index)
            images = apply(padded, rows, batch_draws, options.shift)
            if options.photo.active:
                images = photo.apply(images, photo_draws.take(index, device), options.photo)
            x = cut_out(self.normalize(images), batch_draws, options.cutout)
            targets = self.labels[index]
            if mix_draws:
                x, targets = self.mix(x, targets, mix_draws.take(index, device))
            yield x, targets, len(batch)

    def mix(self, x: Tensor, labels: Tensor, draws: MixDraws) -> tuple[Tensor, Tensor]:
        """Each network input mixed with the next one, and the probabilities to train for."""
        mixed, weight = (mix.mixup if self.options.mixup else mix.cutmix)(x, draws)
        return mixed, mix.mix_labels(labels, weight, self.num_classes)
