"""Convolutions only: the last one has a filter per class, and its maps are averaged over the image.

The global-average-pooling tutorial (recipe gap), after Lin, Chen and Yan, Network In Network (2014).
Weights are Glorot uniform and biases zero, the defaults of the library it was written in.
"""

from torch import nn

from cifar import UserError


def build(
    num_classes: int, in_channels: int, image_size: int, *, width: int, dropout: float
) -> nn.Sequential:
    """(N, in_channels, image_size, image_size) float to (N, num_classes) logits.

    Args:
        width: filters of every layer but the last. 0: 48.
        dropout: probability after each of the two pools.

    Raises:
        UserError: images below 18x18 pixels.
    """
    width = width or 48
    if ((image_size - 2) // 2 - 2) // 2 < 3:
        few = f"{image_size}x{image_size} pixels are too few for gap"
        raise UserError(f"{few} (params.yaml, preprocess.image_size): 18 or more")
    layers: list[nn.Module] = []
    for channels in (in_channels, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout(dropout)]
    layers += [nn.Conv2d(width, num_classes, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
