"""Three convolution-and-pool layers, a sigmoid layer, a softmax layer that starts at zero.

The ConvPoolLayer tutorial (recipe convpool), after the network3 of Nielsen's Neural Networks and
Deep Learning, with the same initial weights, including the large normal biases.
"""

import math

from torch import nn

from cifar import UserError
from cifar.dataset import Shape
from cifar.model import NetworkOptions

USES = ()
FILTERS = (32, 80, 128)
DENSE = 100


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Raises:
        UserError: images below 8x8 pixels.
    """
    side = shape.image_size // 8
    if side < 1:
        size = f"{shape.image_size}x{shape.image_size}"
        raise UserError(
            f"images of {size} pixels are too small for convpool "
            "(params.yaml, preprocess.image_size): use 8 or more"
        )
    layers: list[nn.Module] = []
    channels = shape.channels
    for filters in FILTERS:
        conv = nn.Conv2d(channels, filters, 3, padding=1)
        init_normal(conv, 1 / (channels * 9))
        layers += [conv, nn.MaxPool2d(2), nn.ReLU()]
        channels = filters
    dense = nn.Linear(channels * side * side, DENSE)
    softmax = nn.Linear(DENSE, shape.num_classes)
    init_normal(dense, 1 / DENSE)
    nn.init.zeros_(softmax.weight)
    nn.init.zeros_(softmax.bias)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.Sigmoid(), softmax)


def init_normal(layer: nn.Conv2d | nn.Linear, variance: float) -> None:
    """Initialise weights as normal with the given variance, and biases with variance 1."""
    nn.init.normal_(layer.weight, std=math.sqrt(variance))
    nn.init.normal_(layer.bias, std=1.0)  # type: ignore[arg-type]
