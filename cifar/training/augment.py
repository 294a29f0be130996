"""Augmentation in two steps: draw the offsets of an epoch, then apply those of a batch, each image its own.

Images stay uint8 and channels-last in memory, (N, H, W, C), until the network gets them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Draws:
    """One value per image: rows and columns to skip in the padded image, whether to mirror it, the hole's centre."""

    top: Tensor  # (N,) int64, 0 to 2 * shift
    left: Tensor  # (N,) int64, 0 to 2 * shift
    mirror: Tensor  # (N,) bool
    hole: Tensor  # (N, 2) float in [0, 1), row and column as shares of the image's side

    def take(self, index: Tensor) -> "Draws":
        """Those of the images `index`, on its device."""
        return Draws(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, place: torch.device) -> "Draws":
        return Draws(*(getattr(self, field.name).to(place) for field in fields(self)))


def draw(
    count: int,
    shift: int,
    flip: str,
    epoch: int,
    first: torch.Generator,
    generator: torch.Generator,
) -> Draws:
    """Uniform offsets for `count` images. The same numbers are drawn whatever is switched off.

    Args:
        flip: "none"; "random" for half of the images; "alternating" for half of them, chosen once, in odd
            epochs and the other half in even ones, so that two epochs show both sides of every image
            (Jordan, 2024).
        epoch: from 1.
        first: the generator of the first epoch's choice for "alternating", the same in every epoch.
        generator: that of this epoch.
    """
    top, left = torch.randint(2 * shift + 1, (2, count), generator=generator)
    mirror = torch.rand(count, generator=generator) < 0.5
    hole = torch.rand(count, 2, generator=generator)
    if flip == "alternating":
        mirror = (torch.rand(count, generator=first) < 0.5) ^ (epoch % 2 == 0)
    return Draws(top, left, torch.zeros_like(mirror) if flip == "none" else mirror, hole)


def pad(images: Tensor, shift: int) -> Tensor:
    """(N, H, W, C) to (N, H + 2 * shift, W + 2 * shift, C): the borders reflected, done once for all epochs.

    An image smaller than the shift cannot be reflected and repeats its border pixels instead.
    """
    if shift == 0:
        return images
    mode = "reflect" if shift < min(images.shape[1:3]) else "replicate"
    parts = [  # in parts, because padding works on floats, four times as large
        F.pad(part.permute(0, 3, 1, 2).float(), [shift] * 4, mode=mode)
        .to(torch.uint8)
        .permute(0, 2, 3, 1)
        for part in images.split(4096)
    ]
    return torch.cat([part.contiguous() for part in parts])


def resize(images: Tensor, side: int) -> Tensor:
    """(N, H, W, C) uint8 to (N, side, side, C), each pixel the weighted mean of those that it covers."""
    parts = [
        F.interpolate(
            part.permute(0, 3, 1, 2).float(),
            (side, side),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        for part in images.split(4096)
    ]
    return torch.cat(
        [part.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous() for part in parts]
    )


def apply(padded: Tensor, index: Tensor, draws: Draws, shift: int) -> Tensor:
    """The images `index` of the padded set, cropped to their size and mirrored as drawn: (B, H, W, C) uint8."""
    count, height, width, channels = padded.shape
    sizes = (count, 2 * shift + 1, 2 * shift + 1, height - 2 * shift, width - 2 * shift, channels)
    n, y, x, c = padded.stride()
    windows = padded.as_strided(
        sizes, (n, y, x, y, x, c)
    )  # every crop of every image, without a copy
    images = windows[index, draws.top, draws.left]
    return torch.where(draws.mirror[:, None, None, None], images.flip(2), images)


def cut_out(x: Tensor, draws: Draws, size: int) -> Tensor:
    """A square hole of side `size` in each network input (B, C, H, W), cut at the borders; holes are 0: the mean of
    centred or standardized images, black in [0, 1], grey in [-1, 1].

    DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (2017).
    """
    if size == 0:
        return x
    height, width = x.shape[2:]
    rows = (
        torch.arange(height, device=x.device) - (draws.hole[:, :1] * height).floor() + size // 2
    ) // size == 0
    columns = (
        torch.arange(width, device=x.device) - (draws.hole[:, 1:] * width).floor() + size // 2
    ) // size == 0
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


class Augmented:
    """The training images as each epoch shows them: every one cropped, mirrored and cut out by its own draw.

    They are resized and padded once for all epochs, or with `stream` in each batch: slower, but then nothing of them
    stays in memory. The pixels are the same.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,), on the device.
        normalize: from (B, H, W, C) uint8 to the network's input (B, C, H, W).
        small_epochs: how many of the first epochs show them smaller, `small_side` pixels high and wide: a
            network learns as much from them at first, in half the time (progressive resizing, Howard 2018).
    """

    def __init__(
        self, images: Tensor, labels: Tensor, normalize: Callable[[Tensor], Tensor], shift: int, flip: str, cutout: int,
        small_epochs: int, small_side: int, stream: bool,
    ) -> None:  # fmt: skip
        self.labels, self.normalize, self.stream = labels, normalize, stream
        self.shift, self.flip, self.cutout = shift, flip, cutout
        self.small_epochs, self.small_side = small_epochs, small_side
        self.images = images if stream else pad(images, shift)
        self.small = None if stream or not small_epochs else pad(resize(images, small_side), shift)

    def padded(self, index: Tensor, small: bool) -> tuple[Tensor, Tensor]:
        """Padded images, and where in them those of `index` are."""
        if not self.stream:
            return (self.small if small else self.images), index  # type: ignore[return-value]
        images = self.images[index.cpu()].to(self.labels.device)
        images = resize(images, self.small_side) if small else images
        return pad(images, self.shift), torch.arange(len(index), device=index.device)

    def epoch(
        self, number: int, batches: Iterable[Tensor], part: Callable[[Tensor], Tensor],
        first: torch.Generator, now: torch.Generator,
    ) -> Iterator[tuple[Tensor, Tensor, int]]:  # fmt: skip
        """For `part` of each batch of indices the network's input and labels, and the size of the whole batch.

        Args:
            number: of the epoch, from 1; it chooses the size of the pictures, and `draw` gets it with the generators.
        """
        draws = draw(len(self.labels), self.shift, self.flip, number, first, now).to(
            self.labels.device
        )
        for batch in batches:
            index = part(batch)
            own = draws.take(index)
            padded, places = self.padded(index, number <= self.small_epochs)
            x = self.normalize(apply(padded, places, own, self.shift))
            yield cut_out(x, own, self.cutout), self.labels[index], len(batch)
