"""Three unpadded convolutions with pools, then two dense layers.

The dense-head tutorial (recipes dense-head and dense-head-100). Weights are Glorot uniform and
biases zero, the defaults of the library it was written in.
"""

from torch import nn

from cifar import UserError
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.model import NetworkOptions

USES = ("dropout",)
FILTERS = (32, 64, 128)
DENSE = (256, 128)


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Options:
        dropout: probability after each of the two dense layers; the tutorial has none.

    Raises:
        UserError: images below 22x22 pixels.
    """
    side = shape.image_size
    channels = shape.channels
    layers: list[nn.Module] = []
    for filters in FILTERS:
        layers += [nn.Conv2d(channels, filters, 3), nn.MaxPool2d(2), nn.ReLU()]
        channels = filters
        side = (side - 2) // 2
    if side < 1:
        size = f"{shape.image_size}x{shape.image_size}"
        raise UserError(
            f"images of {size} pixels are too small for dense_head "
            "(params.yaml, preprocess.image_size): use 22 or more"
        )
    layers += [nn.Flatten()]
    inputs = channels * side * side
    for outputs in DENSE:
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), Dropout(options.dropout)]
        inputs = outputs
    layers += [nn.Linear(inputs, shape.num_classes)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
