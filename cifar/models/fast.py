"""A shallow, wide network for the most accuracy per second of training.

After Keller Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (2024), which builds on Page's
How to Train Your ResNet (2018). A first convolution whitens 2x2 patches; it is computed from the
data and frozen. Blocks of convolution, pool, batch normalisation without scale, and GELU follow.
Convolutions start as the identity, and logits are scaled down.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError
from cifar.dataset import Shape
from cifar.layers import Dropout, GlobalMaxPool
from cifar.model import NetworkOptions

USES = ("depth", "width", "dropout")
MUON = True  # its layers have the scales that Muon's learning rates are made for
WIDTHS = (1, 4, 4)  # channels of the three blocks, in units of `width`
PATCH = 2  # pixels, side of the whitened patches
CHUNK = 1 << 18  # pixels whose patches are in memory at a time
SMALLEST = 5e-4  # added to the eigenvalues, so that noise is not amplified


class Head(nn.Linear):
    """The last layer, which divides its logits by the number of its inputs.

    Its weights are therefore of order 1, and the first steps are small.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.in_features


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Options:
        depth: convolutions in each of the three blocks. 0: two.
        width: channels of the first block; the others have four times as many. 0: 32.
        dropout: probability before the last layer.

    Raises:
        UserError: images below 9x9 pixels.
    """
    if (shape.image_size - 1) // 8 < 1:
        size = f"{shape.image_size}x{shape.image_size}"
        raise UserError(
            f"images of {size} pixels are too small for fast "
            "(params.yaml, preprocess.image_size): use 9 or more"
        )
    depth = options.depth or 2
    width = options.width or 32
    # No bias: it gained nothing and cost time.
    whiten = nn.Conv2d(shape.channels, 2 * shape.channels * PATCH**2, PATCH, bias=False)
    whiten.weight.requires_grad = False
    layers: list[nn.Module] = [whiten, nn.GELU()]
    channels = whiten.out_channels
    for factor in WIDTHS:
        filters = factor * width
        for number in range(depth):
            conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            nn.init.dirac_(conv.weight[: min(channels, filters)])
            pools = [nn.MaxPool2d(2)] if number == 0 else []
            layers += [conv, *pools, norm(filters), nn.GELU()]
            channels = filters
    layers += [GlobalMaxPool(), nn.Flatten(), Dropout(options.dropout)]
    return nn.Sequential(*layers, head(channels, shape.num_classes))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation that trains only its bias, with statistics of the last few batches."""
    layer = nn.BatchNorm2d(channels, momentum=0.4, eps=1e-12)
    layer.weight.requires_grad = False
    return layer


def head(channels: int, num_classes: int) -> Head:
    layer = Head(channels, num_classes, bias=False)
    nn.init.normal_(layer.weight, std=1.0)
    return layer


def prepare(net: nn.Sequential, images: Tensor) -> None:
    """Set the first convolution to the whitening of `images` (N, C, H, W).

    Its filters are the eigenvectors of the covariance of 2x2 patches, each with both signs. They
    are computed in double precision on the CPU, so that every device starts from the same weights.
    """
    whiten = net[0]
    assert isinstance(whiten, nn.Conv2d)
    values, vectors = torch.linalg.eigh(covariance(images))
    # LAPACK may return either sign. Fix it by a direction that no eigenvector is orthogonal to.
    direction = torch.arange(1, len(vectors) + 1, dtype=vectors.dtype).sqrt()
    vectors = vectors * torch.where(direction @ vectors < 0, -1.0, 1.0)
    scaled = vectors / (values + SMALLEST).sqrt()
    filters = scaled.T.flip(0).reshape(-1, images.shape[1], PATCH, PATCH)
    with torch.no_grad():
        whiten.weight.copy_(torch.cat([filters, -filters]))


def covariance(images: Tensor) -> Tensor:
    """The covariance of all 2x2 patches of (N, C, H, W): (4 C, 4 C) in double precision."""
    size = images.shape[1] * PATCH**2
    count = 0
    sums = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    for chunk in images.split(max(1, CHUNK // images[0, 0].numel())):
        patches = F.unfold(chunk.double().cpu(), PATCH)  # (N, 4 C, patches of an image)
        count += patches.shape[0] * patches.shape[2]
        sums += patches.sum((0, 2))
        products += (patches @ patches.mT).sum(0)
    return (products - sums.outer(sums) / count) / (count - 1)
