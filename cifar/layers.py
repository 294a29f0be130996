"""Layers that several networks use."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 1 << 16  # of the probability in `Dropout`


class Dropout(nn.Dropout):
    """nn.Dropout, but several times faster on a CPU; on other devices it is torch's own.

    The mask takes 16 random bits per element, four elements from each draw. The probability is
    rounded to a multiple of 1/65536, and the scale is that of the rounded probability.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.p:
            return x
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()]
        mask = (bits >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
        return x * mask.as_strided(x.shape, torch.empty_like(x).stride())  # x's memory format


class GlobalMaxPool(nn.Module):
    """The largest value of each channel: (N, C, H, W) to (N, C, 1, 1).

    nn.AdaptiveMaxPool2d(1) computes the same, but on a GPU its gradient differs from run to run.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, x.shape[2:])
