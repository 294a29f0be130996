"""Features of a frozen backbone, computed once and used for training in place of the images.

Without augmentation, a frozen backbone gives the same features in every epoch. They are stored as
images of one pixel with a channel for each feature, so that the training loop needs no change.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifar import inference


def trained_layer(net: nn.Module, images: Tensor) -> nn.Linear | None:
    """The layer that can be trained on features: the network's only trained one, its linear head.

    Returns None if another layer is trained, drops out or normalises by the batch, or if a layer
    follows this one.

    Args:
        images: (N, C, H, W) network input to try.
    """
    net.train()
    layers = [layer for layer in net.modules() if not list(layer.children())]
    trained = [layer for layer in layers if any(p.requires_grad for p in layer.parameters())]
    if len(trained) != 1 or any(other.training for other in layers if other is not trained[0]):
        return None
    layer = trained[0]
    if not isinstance(layer, nn.Linear):
        return None
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda *args: outputs.append(args[2]))
    try:
        logits = net(images)
    finally:
        hook.remove()
    return layer if logits is outputs[-1] else None


def compute(
    net: nn.Module, layer: nn.Linear, images: Tensor, normalize: Callable[[Tensor], Tensor]
) -> Tensor:
    """The input of `layer` for images (N, H, W, C): (N, 1, 1, features) float32 on the device."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        inference.predict(net, images, normalize)
    finally:
        hook.remove()
    return torch.cat(inputs).float()[:, None, None]


def flatten(features: Tensor) -> Tensor:
    """Turn (N, 1, 1, features) into layer input (N, features), as `normalize` does for images."""
    return features.flatten(1)
