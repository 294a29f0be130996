"""Mixup and CutMix: combine two images of a batch, and their labels.

Zhang et al., mixup: Beyond Empirical Risk Minimization (2018); Yun et al., CutMix (2019). Each
image is mixed with the next one of its batch, whose order is random.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class MixDraws:
    """The draws of an epoch or a batch, one per image.

    Attributes:
        weight: (N,) weight of the image itself, from 0 to 1; 1: unmixed.
        centre: (N, 2) centre of the box for CutMix, as fractions of height and width.
    """

    weight: Tensor
    centre: Tensor

    def take(self, index: Tensor, device: torch.device) -> "MixDraws":
        """The draws of the images `index`, on the device."""
        index = index.cpu()
        return MixDraws(self.weight[index].to(device), self.centre[index].to(device))


def draw(count: int, alpha: float, seed: int) -> MixDraws:
    """Draw weights from the beta distribution B(alpha, alpha), and uniform centres.

    Args:
        seed: the epoch's seed.
    """
    rng = np.random.default_rng(seed)
    weight = torch.from_numpy(rng.beta(alpha, alpha, count).astype(np.float32))
    centre = torch.from_numpy(rng.random((count, 2), dtype=np.float32))
    return MixDraws(weight, centre)


def mixup(x: Tensor, draws: MixDraws) -> tuple[Tensor, Tensor]:
    """Blend each input (B, C, H, W) with the next one; returns them and their own weights (B,)."""
    weight = draws.weight[:, None, None, None]
    return weight * x + (1 - weight) * x.roll(-1, 0), draws.weight


def cutmix(x: Tensor, draws: MixDraws) -> tuple[Tensor, Tensor]:
    """Paste a box of the next input into each (B, C, H, W); returns them and their weights (B,).

    The box is clipped at the borders, and the weight is the fraction of the area that is left.
    """
    side = (1 - draws.weight).sqrt()
    rows = inside(x.shape[2], draws.centre[:, 0], side)
    columns = inside(x.shape[3], draws.centre[:, 1], side)
    box = rows[:, :, None] & columns[:, None, :]
    mixed = torch.where(box[:, None], x.roll(-1, 0), x)
    return mixed, 1 - box.float().mean((1, 2))


def inside(length: int, centre: Tensor, side: Tensor) -> Tensor:
    """Which positions lie in a box of `side` times the length: (B, length) bool."""
    positions = torch.arange(length, device=centre.device) + 0.5
    distance = (positions - centre[:, None] * length).abs()
    return distance < side[:, None] * length / 2


def mix_labels(labels: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """The target probabilities (B, classes) of mixed images.

    Args:
        labels: (B,) labels of the images before mixing.
        weight: (B,) as from `mixup` or `cutmix`.
    """
    targets = F.one_hot(labels, num_classes).to(weight.dtype)
    return weight[:, None] * targets + (1 - weight[:, None]) * targets.roll(-1, 0)
