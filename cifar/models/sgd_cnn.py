"""Three padded convolutions with pools, then one dense layer.

The sgd-cnn tutorial (recipe sgd-cnn). It does not state the size of its dense layer (128 here),
nor its initial weights (Glorot uniform, biases zero: the defaults of the library it was written
in).
"""

from torch import nn

from cifar import UserError
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.model import NetworkOptions

USES = ("dropout",)
FILTERS = (32, 64, 128)
DENSE = 128


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Options:
        dropout: probability after the dense layer.

    Raises:
        UserError: images below 8x8 pixels.
    """
    side = shape.image_size // 8
    if side < 1:
        size = f"{shape.image_size}x{shape.image_size}"
        raise UserError(
            f"images of {size} pixels are too small for sgd_cnn "
            "(params.yaml, preprocess.image_size): use 8 or more"
        )
    layers: list[nn.Module] = []
    channels = shape.channels
    for filters in FILTERS:
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        channels = filters
    layers += [nn.Flatten(), nn.Linear(channels * side * side, DENSE), nn.ReLU()]
    layers += [Dropout(options.dropout), nn.Linear(DENSE, shape.num_classes)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
