"""A shallow, wide network for the most accuracy per second of training.

After Keller Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (2024), with Page's How to Train Your
ResNet (2018) behind it: a first convolution that whitens 2x2 patches, computed from the data and frozen;
blocks of convolution, pool, batch normalisation without scale, GELU; convolutions that start as the
identity; logits scaled down.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError

WIDTHS = (1, 4, 4)  # channels of the three blocks, in units of `width`
PATCH = 2  # pixels, side of the whitened patches
SMALLEST = 5e-4  # added to the eigenvalues, so that noise is not blown up


class Head(nn.Linear):
    """The last layer, its logits scaled down by the number of its inputs: weights of order 1, first steps small."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.in_features


def build(
    num_classes: int, in_channels: int, image_size: int, *, depth: int, width: int, dropout: float
) -> nn.Sequential:
    """(N, in_channels, image_size, image_size) float to (N, num_classes) logits.

    Args:
        depth: convolutions in each of the three blocks. 0: two.
        width: channels of the first block; the others have four times as many. 0: 32.
        dropout: probability before the last layer.

    Raises:
        UserError: images below 9x9 pixels.
    """
    depth, width = depth or 2, width or 32
    side = (image_size - 1) // 8
    if side < 1:
        few = f"{image_size}x{image_size} pixels are too few for fast"
        raise UserError(f"{few} (params.yaml, preprocess.image_size): 9 or more")
    whiten = nn.Conv2d(
        in_channels, 2 * in_channels * PATCH**2, PATCH, bias=False
    )  # its bias gained nothing and cost time
    whiten.weight.requires_grad = False
    layers: list[nn.Module] = [whiten, nn.GELU()]
    channels = whiten.out_channels
    for factor in WIDTHS:
        for number in range(depth):
            conv = nn.Conv2d(channels, factor * width, 3, padding=1, bias=False)
            nn.init.dirac_(conv.weight[: min(channels, factor * width)])
            layers += [
                conv,
                *([nn.MaxPool2d(2)] if number == 0 else []),
                norm(factor * width),
                nn.GELU(),
            ]
            channels = factor * width
    return nn.Sequential(
        *layers,
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        head(channels, num_classes),
    )


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation that trains its bias only, and forgets quickly."""
    layer = nn.BatchNorm2d(channels, momentum=0.4, eps=1e-12)
    layer.weight.requires_grad = False
    return layer


def head(channels: int, num_classes: int) -> Head:
    layer = Head(channels, num_classes, bias=False)
    nn.init.normal_(layer.weight, std=1.0)
    return layer


def prepare(net: nn.Sequential, images: Tensor) -> None:
    """Set the first convolution to the whitening of `images` (N, C, H, W): both signs of each eigenvector.

    The eigenvectors are computed in double precision on the CPU, so that every device starts alike.
    """
    whiten = net[0]
    assert isinstance(whiten, nn.Conv2d)
    patches = (
        F.unfold(images.double().cpu(), PATCH).transpose(1, 2).flatten(0, 1)
    )  # (patches, C * 4)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    uneven = torch.arange(
        1, len(vectors) + 1, dtype=vectors.dtype
    ).sqrt()  # no eigenvector of patches is orthogonal
    vectors = vectors * torch.where(uneven @ vectors < 0, -1.0, 1.0)  # LAPACK leaves the signs open
    filters = (
        (vectors / (values + SMALLEST).sqrt()).T.flip(0).reshape(-1, images.shape[1], PATCH, PATCH)
    )
    with torch.no_grad():
        whiten.weight.copy_(torch.cat([filters, -filters]))
