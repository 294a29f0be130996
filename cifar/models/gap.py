"""Convolutions only: the last one has a filter per class, and its maps are averaged over the image.

The global-average-pooling tutorial (recipe gap), after Lin, Chen and Yan, Network In Network
(2014). Weights are Glorot uniform and biases zero, the defaults of the library it was written in.
"""

from torch import nn

from cifar import UserError
from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.model import NetworkOptions

USES = ("width", "dropout")


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Options:
        width: filters of every layer but the last. 0: 48.
        dropout: probability after each of the two pools.

    Raises:
        UserError: images below 18x18 pixels.
    """
    if ((shape.image_size - 2) // 2 - 2) // 2 < 3:
        size = f"{shape.image_size}x{shape.image_size}"
        raise UserError(
            f"images of {size} pixels are too small for gap "
            "(params.yaml, preprocess.image_size): use 18 or more"
        )
    width = options.width or 48
    layers: list[nn.Module] = []
    for channels in (shape.channels, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3), nn.MaxPool2d(2), nn.ReLU(), Dropout(options.dropout)]
    layers += [nn.Conv2d(width, shape.num_classes, 3), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
