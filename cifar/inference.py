"""From images to logits and probabilities, the same way in training, evaluation and use."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError

MAX_BATCH = 1000  # images
PIXELS = MAX_BATCH * 32 * 32  # of one batch: layers make dozens of numbers of each


@torch.inference_mode()
def predict(net: nn.Module, images: Tensor, normalize: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits (N, classes) on the device for (N, H, W, C) uint8 images.

    The size of a batch follows from the images' size: it decides memory, and the last bits of the
    logits, so it is no parameter.
    """
    net.eval()
    batches = images.split(batch_size(net, images.shape[1]))
    return torch.cat([net(normalize(batch)).float() for batch in batches])


def batch_size(net: nn.Module, image_size: int) -> int:
    """How many images a network gets at once.

    Args:
        net: if it resizes them, its attribute `resized_to` is the size to which it does.
        image_size: height and width in pixels.
    """
    largest = max(image_size, getattr(net, "resized_to", 0))
    return max(1, min(MAX_BATCH, PIXELS // largest**2))


def average(members: list[Tensor]) -> Tensor:
    """Logits of the mean of the members' probabilities; those of a single member unchanged."""
    if len(members) == 1:
        return members[0]
    logs = torch.stack([logits.cpu().double().log_softmax(1) for logits in members])
    return logs.logsumexp(0) - math.log(len(members))


def check_finite(logits: Tensor, path: Path) -> None:
    """Refuse what a network with overflowing weights returns.

    Args:
        path: of the model file, for the message.

    Raises:
        UserError: NaN or infinity among the logits.
    """
    if not logits.isfinite().all():
        raise UserError(
            f"the network's outputs are not finite ({path}): train again at a lower learning rate"
        )


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Calibrated probabilities (N, classes); a temperature changes no prediction."""
    return (logits / temperature).softmax(1)


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and the fraction of right predictions.

    In double precision on the CPU, because not every device has it.
    """
    logits = logits.cpu()
    labels = labels.cpu()
    right = (logits.argmax(1) == labels).double().mean()
    return F.cross_entropy(logits.double(), labels).item(), right.item()


def top5_accuracy(logits: Tensor, labels: Tensor) -> float:
    """The fraction of images whose class is among the five most likely ones."""
    hits = logits.cpu().topk(5).indices == labels.cpu()[:, None]
    return hits.any(1).double().mean().item()
