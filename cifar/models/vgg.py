"""Blocks of two 3x3 convolutions and a pool, then one dense layer: a small VGG.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition (2015),
in the small form of the well-known CIFAR-10 tutorial: 32, 64, 128 filters, dense 128, He uniform
weights.
"""

from torch import nn

from cifar import UserError
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.model import NetworkOptions

USES = ("depth", "width", "dropout", "dropout_step", "batch_norm")
DENSE = 128


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Options:
        depth: blocks; each halves the image. 0: three.
        width: filters of the first block, doubled in each following one. 0: 32.
        dropout: probability after the first pool.
        dropout_step: increase of dropout at each following pool and at the dense layer.
        batch_norm: whether to normalise after every ReLU.

    Raises:
        UserError: images are too small for this many blocks, or dropout rises to 1 or more.
    """
    depth = options.depth or 3
    width = options.width or 32
    side = shape.image_size >> depth
    if side < 1:
        raise UserError(
            f"{depth} blocks halve {shape.image_size}x{shape.image_size} images to nothing "
            f"(params.yaml, train.depth): use at most {shape.image_size.bit_length() - 1}, "
            "or raise preprocess.image_size"
        )
    highest = options.dropout + depth * options.dropout_step
    if highest >= 1:
        raise UserError(
            f"dropout rises to {highest:g} (params.yaml, train.dropout_step): keep it below 1"
        )
    layers: list[nn.Module] = []
    channels = shape.channels
    for block in range(depth):
        filters = width << block
        layers += [nn.Conv2d(channels, filters, 3, padding=1)]
        layers += activation(filters, options.batch_norm, pool=False)
        layers += [nn.Conv2d(filters, filters, 3, padding=1)]
        layers += activation(filters, options.batch_norm, pool=True)
        layers += [Dropout(options.dropout + block * options.dropout_step)]
        channels = filters
    layers += [nn.Flatten(), nn.Linear(channels * side * side, DENSE), nn.ReLU()]
    layers += [nn.BatchNorm1d(DENSE)] if options.batch_norm else []
    layers += [Dropout(highest), nn.Linear(DENSE, shape.num_classes)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


def activation(filters: int, batch_norm: bool, pool: bool) -> list[nn.Module]:
    """ReLU, normalisation and pool.

    Without normalisation the pool comes first, which gives the same numbers and is a third faster.
    """
    pools: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    if batch_norm:
        return [nn.ReLU(), nn.BatchNorm2d(filters), *pools]
    return [*pools, nn.ReLU()]
