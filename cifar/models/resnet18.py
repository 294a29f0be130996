"""ResNet-18 for small images: a 3x3 first convolution and no first pool.

He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition (2016), with the first layer
that CIFAR-10 experiments use in place of the 7x7 convolution and pool for 224x224 images.
"""

from torch import Tensor, nn

from cifar.dataset import Shape
from cifar.layers import Dropout
from cifar.model import NetworkOptions

USES = ("width", "dropout")
STAGES = 4  # of two blocks each; the first keeps the image's size, the others halve it


class Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut around them."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU()
        self.stride = stride
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != filters:
            conv = nn.Conv2d(channels, filters, 1, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        # Pixels are skipped before the shortcut's convolution: see inspection.check_kernels.
        return self.relu(y + self.shortcut(x[:, :, :: self.stride, :: self.stride]))


def build(shape: Shape, options: NetworkOptions) -> nn.Sequential:
    """Build the network: (N, channels, image_size, image_size) float to (N, num_classes) logits.

    Images may have any size.

    Options:
        width: channels of the first stage, doubled in each following one. 0: 64.
        dropout: probability before the last layer; the paper has none.
    """
    width = options.width or 64
    conv = nn.Conv2d(shape.channels, width, 3, padding=1, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for number in range(STAGES):
        filters = width << number
        layers += [Block(channels, filters, 2 if number else 1), Block(filters, filters, 1)]
        channels = filters
    head = nn.Linear(channels, shape.num_classes)
    pool = nn.AdaptiveAvgPool2d(1)
    net = nn.Sequential(*layers, pool, nn.Flatten(), Dropout(options.dropout), head)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net
