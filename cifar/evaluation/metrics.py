"""From logits to the numbers that are compared."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMAL_975 = (
    1.959963984540054  # 97.5 % of a normal distribution lie below so many standard deviations
)


@torch.inference_mode()
def predict(
    net: nn.Module, images: Tensor, prepare: Callable[[Tensor], Tensor], batch_size: int
) -> Tensor:
    """Logits (N, classes) on the device for (N, H, W, C) uint8 images; `prepare` makes a batch the net's input."""
    net.eval()
    return torch.cat([net(prepare(batch)).float() for batch in images.split(batch_size)])


def average(members: list[Tensor]) -> Tensor:
    """Logits of the mean of the members' probabilities; those of a single member as they are."""
    if len(members) == 1:
        return members[0]
    logs = torch.stack([logits.cpu().double().log_softmax(1) for logits in members])
    return logs.logsumexp(0) - math.log(len(members))


def sensitivity(
    nets: list[nn.Module], images: Tensor, prepare: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """(N, H, W) uint8: how much the logit of the predicted class changes with each pixel; 255 is the most in an image.

    The size of the gradient at the input, summed over the channels (Simonyan et al., 2014).

    Args:
        images: (N, H, W, C) uint8; `prepare` makes them the nets' input.
    """
    x = prepare(images).detach().requires_grad_()
    average([net.eval()(x).float() for net in nets]).max(1).values.sum().backward()
    assert x.grad is not None
    sizes = x.grad.abs().sum(1).cpu()
    return (
        (255 * sizes / sizes.amax((1, 2), keepdim=True).clamp_min(1e-30))
        .round()
        .to(torch.uint8)
        .numpy()
    )


def loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and share of right first choices, in double precision, which not every device has."""
    logits, labels = logits.cpu(), labels.cpu()
    right = (logits.argmax(1) == labels).double().mean()
    return F.cross_entropy(logits.double(), labels).item(), right.item()


def summary(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The field's numbers for one split, rounded to what the count of images can carry.

    `accuracy_low` and `accuracy_high` are the 95 % interval. Top-5 accuracy is there from eleven classes on.
    """
    loss, accuracy = loss_and_accuracy(logits, labels)
    low, high = wilson(accuracy, len(labels))
    numbers = {"loss": loss, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    if logits.shape[1] > 10:
        top5 = logits.cpu().topk(5).indices == labels.cpu()[:, None]
        numbers["top5_accuracy"] = top5.any(1).double().mean().item()
    return {name: round(value, 5) for name, value in numbers.items()}


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` images, by Wilson (1927).

    Of samples of so many images, nineteen in twenty give an interval with the true share in it.
    """
    extra = NORMAL_975**2 / count
    middle = share + extra / 2
    half = math.sqrt(extra * (share * (1 - share) + extra / 4))
    return (middle - half) / (1 + extra), (middle + half) / (1 + extra)


def per_class(predicted: np.ndarray, labels: np.ndarray, classes: int) -> list[tuple[int, int]]:
    """For each class how many of its images were recognised, and how many there are."""
    return [
        (int((predicted[labels == c] == c).sum()), int((labels == c).sum())) for c in range(classes)
    ]
