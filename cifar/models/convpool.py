"""Three convolution-and-pool layers, a sigmoid layer, a softmax layer that starts at zero.

The ConvPoolLayer tutorial (recipe convpool), after the network3 of Nielsen's Neural Networks and Deep
Learning. Its initial weights are kept, the large normal biases included.
"""

import math

from torch import nn

from cifar import UserError

FILTERS, DENSE = (32, 80, 128), 100


def build(num_classes: int, in_channels: int, image_size: int) -> nn.Sequential:
    """(N, in_channels, image_size, image_size) float to (N, num_classes) logits.

    Raises:
        UserError: images below 8x8 pixels.
    """
    side = image_size // 8
    if side < 1:
        few = f"{image_size}x{image_size} pixels are too few for convpool"
        raise UserError(f"{few} (params.yaml, preprocess.image_size): 8 or more")
    layers: list[nn.Module] = []
    for channels, filters in zip((in_channels, *FILTERS), FILTERS, strict=False):
        conv = nn.Conv2d(channels, filters, 3, padding=1)
        normal(conv, 1 / (channels * 9))
        layers += [conv, nn.MaxPool2d(2), nn.ReLU()]
    dense, softmax = nn.Linear(FILTERS[-1] * side * side, DENSE), nn.Linear(DENSE, num_classes)
    normal(dense, 1 / DENSE)
    nn.init.zeros_(softmax.weight)
    nn.init.zeros_(softmax.bias)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.Sigmoid(), softmax)


def normal(layer: nn.Conv2d | nn.Linear, variance: float) -> None:
    nn.init.normal_(layer.weight, std=math.sqrt(variance))
    nn.init.normal_(layer.bias, std=1.0)  # type: ignore[arg-type]
