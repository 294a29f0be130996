"""Augmentation in two steps: draw random changes for a whole epoch, then apply them to each batch.

Every image has its own draw. Images are channels-last, (N, H, W, C), and stored as uint8; only a
batch becomes floats, on its way to the network.
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

CHUNK = 4096  # images resized at a time: as floats they take four times the memory of uint8


@dataclass(frozen=True)
class Draws:
    """The draws of an epoch or a batch, one per image.

    Attributes:
        top: (N,) int64, rows to skip in the padded image, 0 to 2 * shift.
        left: (N,) int64, columns to skip, likewise.
        mirror: (N,) bool, whether to mirror the image.
        hole: (N, 2) float in [0, 1), the hole's centre as fractions of height and width.
    """

    top: Tensor
    left: Tensor
    mirror: Tensor
    hole: Tensor

    def take(self, index: Tensor) -> "Draws":
        """The draws of the images `index`."""
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
    """Draw uniform offsets for `count` images.

    Switching one option off does not change what is drawn for the others.

    Args:
        shift: largest shift in pixels.
        flip: none; random: each image with probability 1/2; alternating: a random half in odd
            epochs and the other half in even ones, so that every two epochs show each image both
            ways (Jordan, 2024).
        epoch: counted from 1.
        flip_generator: chooses the half for alternating; seeded alike in every epoch.
        epoch_generator: draws everything else; seeded differently in each epoch.
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
    """Pad (N, H, W, C) to (N, H + 2 * shift, W + 2 * shift, C) with reflected borders.

    Images no larger than the shift cannot be reflected: their border pixels are repeated instead.
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
    """Resize (N, H, W, C) uint8 to (N, size, size, C), bilinearly with antialiasing."""
    chunks = []
    for chunk in images.split(CHUNK):
        pixels = chunk.permute(0, 3, 1, 2).float()
        small = F.interpolate(
            pixels, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
        chunks.append(small.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())
    return torch.cat(chunks)


def apply(padded: Tensor, index: Tensor, draws: Draws, shift: int) -> Tensor:
    """Crop and mirror the images `index` of the padded set as drawn: (B, H, W, C) uint8."""
    count, height, width, channels = padded.shape
    offsets = 2 * shift + 1
    crops = (count, offsets, offsets, height - 2 * shift, width - 2 * shift, channels)
    n, y, x, c = padded.stride()
    windows = padded.as_strided(crops, (n, y, x, y, x, c))  # a view of every possible crop
    images = windows[index, draws.top, draws.left]
    return torch.where(draws.mirror[:, None, None, None], images.flip(2), images)


def cut_out(x: Tensor, draws: Draws, cutout: int) -> Tensor:
    """Set a square of side `cutout` to 0 in each network input (B, C, H, W), clipped at borders.

    0 is the mean of centred or standardized images, black in [0, 1] and grey in [-1, 1].

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (2017).
    """
    if cutout == 0:
        return x
    rows = inside_hole(x.shape[2], draws.hole[:, :1], cutout)
    columns = inside_hole(x.shape[3], draws.hole[:, 1:], cutout)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def inside_hole(length: int, centre: Tensor, cutout: int) -> Tensor:
    """Which positions lie in the hole: (B, length) bool for centres (B, 1) in [0, 1)."""
    positions = torch.arange(length, device=centre.device)
    return (positions - (centre * length).floor() + cutout // 2) // cutout == 0


@dataclass(frozen=True)
class Augmentation:
    """The options of augmentation; the defaults switch everything off.

    Attributes:
        shift: largest shift in each direction, in pixels; 0: off.
        flip: none, random or alternating.
        cutout: side of a square hole, in pixels; 0: off.
        small_epochs: number of epochs at the start that show smaller images; 0: off. At first a
            network learns as much from them, in half the time (progressive resizing, Howard 2018).
        small_size: height and width of the smaller images, in pixels.
        photo: rotation, zoom, vertical flips and colours, applied in a separate step.
        mixup: alpha of the beta distribution for blending images; 0: off.
        cutmix: alpha of the beta distribution for pasting boxes; 0: off.
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
        """Whether an image may look different from one epoch to another."""
        return replace(self, small_size=0) != Augmentation()


class Images(Protocol):
    """The training images, in memory or on disk."""

    def batches(self, indices: list[Tensor], small: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for each batch of indices, padded images and the batch's rows among them.

        Args:
            indices: for each batch the indices (B,) of its images.
            small: whether to yield the smaller images of the first epochs.

        Yields:
            Padded uint8 images on the device; (B,) rows.
        """


class AugmentedImages:
    """The training images, augmented for each epoch.

    Args:
        labels: (N,), on the device.
        normalize: turns (B, H, W, C) pixels into network input (B, C, H, W).
        num_classes: number of classes, for the labels of mixed images.
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
        """Yield this process's part of each batch, augmented.

        Args:
            epoch: counted from 1; the first ones show smaller images.
            seed: the network's seed.
            batches: the indices of each batch, for all processes together.
            part: selects this process's indices from those of a batch.

        Yields:
            Network input (B, C, H, W), float; targets: (B,) labels, or (B, classes) probabilities
            of mixed images; the size of the batch over all processes.
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
        """Mix each network input with the next one; returns the inputs and their probabilities."""
        mixed, weight = (mix.mixup if self.options.mixup else mix.cutmix)(x, draws)
        return mixed, mix.mix_labels(labels, weight, self.num_classes)
