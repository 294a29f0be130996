"""Augmentation for photographs: rotation, zoom, vertical flips, brightness, contrast, saturation.

As in cifar/training/augment.py, one function draws for a whole epoch, and another applies the draws
to a batch. An image is resampled once for all geometric changes together.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey, ITU-R 601, as in Pillow


@dataclass(frozen=True)
class PhotoOptions:
    """The largest changes; 0 or False: off.

    Attributes:
        rotate: degrees, to either side.
        zoom: fraction; 0.2 scales by 0.8 to 1.2.
        flip_vertical: whether half of the images are turned upside down.
        brightness: fraction; 0.2 multiplies the pixels by 0.8 to 1.2.
        contrast: fraction, likewise for the distance to the image's mean grey.
        saturation: fraction, likewise for the distance to the pixel's grey.
    """

    rotate: float = 0.0
    zoom: float = 0.0
    flip_vertical: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    @property
    def active(self) -> bool:
        return self.geometric or self.colour

    @property
    def geometric(self) -> bool:
        return bool(self.rotate or self.zoom or self.flip_vertical)

    @property
    def colour(self) -> bool:
        return bool(self.brightness or self.contrast or self.saturation)


@dataclass(frozen=True)
class PhotoDraws:
    """The draws of an epoch or a batch, one per image.

    Attributes:
        angle: (N,) degrees, counter-clockwise.
        scale: (N,) factor of the size.
        upside_down: (N,) bool.
        brightness: (N,) factor.
        contrast: (N,) factor.
        saturation: (N,) factor.
    """

    angle: Tensor
    scale: Tensor
    upside_down: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor

    def take(self, index: Tensor, device: torch.device) -> "PhotoDraws":
        """The draws of the images `index`, on the device."""
        index = index.cpu()
        return PhotoDraws(
            self.angle[index].to(device),
            self.scale[index].to(device),
            self.upside_down[index].to(device),
            self.brightness[index].to(device),
            self.contrast[index].to(device),
            self.saturation[index].to(device),
        )


def draw(count: int, options: PhotoOptions, generator: torch.Generator) -> PhotoDraws:
    """Draw uniform changes for `count` images; an option does not affect the draws of others."""
    numbers = torch.rand(6, count, generator=generator)
    symmetric = 2 * numbers - 1
    flips = numbers[2] < 0.5
    return PhotoDraws(
        angle=options.rotate * symmetric[0],
        scale=1 + options.zoom * symmetric[1],
        upside_down=flips if options.flip_vertical else torch.zeros_like(flips),
        brightness=1 + options.brightness * symmetric[3],
        contrast=1 + options.contrast * symmetric[4],
        saturation=1 + options.saturation * symmetric[5],
    )


def apply(images: Tensor, draws: PhotoDraws, options: PhotoOptions) -> Tensor:
    """Change images as drawn.

    Args:
        images: (B, H, W, C) uint8.

    Returns:
        (B, H, W, C) float from 0 to 255.
    """
    x = images.permute(0, 3, 1, 2).float()
    if options.geometric:
        x = transform(x, draws)
    if options.colour:
        x = recolour(x, draws)
    return x.permute(0, 2, 3, 1)


def transform(x: Tensor, draws: PhotoDraws) -> Tensor:
    """Rotate, scale and turn images (B, C, H, W) about their centres, with reflected borders."""
    radians = draws.angle * (math.pi / 180)
    cos = radians.cos() / draws.scale
    sin = radians.sin() / draws.scale
    sign = 1 - 2 * draws.upside_down.float()
    aspect = x.shape[2] / x.shape[3]  # the grid runs from -1 to 1 on both axes
    zero = torch.zeros_like(cos)
    to_x = torch.stack([cos, -sin * aspect, zero], 1)
    to_y = torch.stack([sin / aspect * sign, cos * sign, zero], 1)
    grid = F.affine_grid(torch.stack([to_x, to_y], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)


def recolour(x: Tensor, draws: PhotoDraws) -> Tensor:
    """Change brightness, contrast and saturation of images (B, C, H, W) from 0 to 255, in turn."""
    x = (x * factor(draws.brightness)).clamp(0, 255)
    mean = grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + (x - mean) * factor(draws.contrast)).clamp(0, 255)
    base = grey(x)
    return (base + (x - base) * factor(draws.saturation)).clamp(0, 255)


def factor(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1)."""
    return values[:, None, None, None]


def grey(x: Tensor) -> Tensor:
    """Turn images (B, C, H, W) into grey ones (B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
