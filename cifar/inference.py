"""Logits and probabilities of images, computed the same way in training, evaluation and use."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError

MAX_BATCH = 1000  # images
PIXELS = MAX_BATCH * 32 * 32  # per batch; layers compute dozens of numbers for each


@torch.inference_mode()
def predict(net: nn.Module, images: Tensor, normalize: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the logits (N, classes), on the device, of the images (N, H, W, C) uint8.

    The batch size follows from the image size. It is not a parameter, because it affects the memory
    needed and the last bits of the logits.
    """
    net.eval()
    batches = images.split(batch_size(net, images.shape[1]))
    return torch.cat([net(normalize(batch)).float() for batch in batches])


def batch_size(net: nn.Module, image_size: int) -> int:
    """The number of images that a network gets at once.

    Args:
        net: a network that resizes images has the new size as its attribute `resized_to`.
        image_size: height and width in pixels.
    """
    largest = max(image_size, getattr(net, "resized_to", 0))
    return max(1, min(MAX_BATCH, PIXELS // largest**2))


def average(members: list[Tensor]) -> Tensor:
    """The logits of the members' mean probabilities; a single member's are returned unchanged."""
    if len(members) == 1:
        return members[0]
    logs = torch.stack([logits.cpu().double().log_softmax(1) for logits in members])
    return logs.logsumexp(0) - math.log(len(members))


def check_finite(logits: Tensor, path: Path) -> None:
    """Check that all logits are finite; weights that are too large make them overflow.

    Args:
        path: the model file, for the message.

    Raises:
        UserError: a logit is NaN or infinite.
    """
    if not logits.isfinite().all():
        raise UserError(
            f"the network's outputs are not finite ({path}): train again at a lower learning rate"
        )


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Calibrated probabilities (N, classes). The temperature does not change any prediction."""
    return (logits / temperature).softmax(1)


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The mean cross-entropy and the fraction of correct predictions.

    They are computed on the CPU in double precision, which some devices lack.
    """
    logits = logits.cpu()
    labels = labels.cpu()
    right = (logits.argmax(1) == labels).double().mean()
    return F.cross_entropy(logits.double(), labels).item(), right.item()


def top5_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction of images whose class is among the five most likely ones."""
    hits = logits.cpu().topk(5).indices == labels.cpu()[:, None]
    return hits.any(1).double().mean().item()
