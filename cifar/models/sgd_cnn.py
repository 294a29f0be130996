"""Three padded convolutions with pools, then one dense layer.

The sgd-cnn tutorial (recipe sgd-cnn). It does not state the size of its dense layer (128 here), nor its
initial weights (Glorot uniform, biases zero: the defaults of the library it was written in).
"""

from torch import nn

from cifar import UserError

FILTERS, DENSE = (32, 64, 128), 128


def build(num_classes: int, in_channels: int, image_size: int, *, dropout: float) -> nn.Sequential:
    """(N, in_channels, image_size, image_size) float to (N, num_classes) logits.

    Args:
        dropout: probability after the dense layer.

    Raises:
        UserError: images below 8x8 pixels.
    """
    side = image_size // 8
    if side < 1:
        few = f"{image_size}x{image_size} pixels are too few for sgd_cnn"
        raise UserError(f"{few} (params.yaml, preprocess.image_size): 8 or more")
    layers: list[nn.Module] = []
    for channels, filters in zip((in_channels, *FILTERS), FILTERS, strict=False):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
    layers += [
        nn.Flatten(),
        nn.Linear(FILTERS[-1] * side * side, DENSE),
        nn.ReLU(),
        nn.Dropout(dropout),
    ]
    layers += [nn.Linear(DENSE, num_classes)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
