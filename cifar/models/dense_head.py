"""Three unpadded convolutions with pools, then two dense layers.

The dense-head tutorial (recipes dense-head and dense-head-100). Weights are Glorot uniform and biases
zero, the defaults of the library it was written in.
"""

from torch import nn

from cifar import UserError

FILTERS, DENSE = (32, 64, 128), (256, 128)


def build(num_classes: int, in_channels: int, image_size: int, *, dropout: float) -> nn.Sequential:
    """(N, in_channels, image_size, image_size) float to (N, num_classes) logits.

    Args:
        dropout: probability after each of the two dense layers; the tutorial has none.

    Raises:
        UserError: images below 22x22 pixels.
    """
    side = image_size
    layers: list[nn.Module] = []
    for channels, filters in zip((in_channels, *FILTERS), FILTERS, strict=False):
        layers += [nn.Conv2d(channels, filters, 3), nn.MaxPool2d(2), nn.ReLU()]
        side = (side - 2) // 2
    if side < 1:
        few = f"{image_size}x{image_size} pixels are too few for dense_head"
        raise UserError(f"{few} (params.yaml, preprocess.image_size): 22 or more")
    layers += [nn.Flatten()]
    inputs = FILTERS[-1] * side * side
    for outputs in DENSE:
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        inputs = outputs
    layers += [nn.Linear(inputs, num_classes)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
