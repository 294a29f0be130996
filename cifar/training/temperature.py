"""Fits the temperature that calibrates confidences.

Guo et al., On Calibration of Modern Neural Networks (2017): logits are divided by one number, which
is fitted on the validation images. No prediction changes.
"""

import math

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

LOWEST = 0.01
HIGHEST = 100.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the lowest cross-entropy on these images.

    Each label counts as right with a probability of (n + 1) / (n + 2), by Laplace's rule of
    succession: otherwise the best temperature of a network without mistakes would be 0.

    Args:
        logits: (n, classes).
        labels: (n,).
    """
    logits = logits.cpu().double()
    labels = labels.cpu()
    doubt = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return F.cross_entropy(scaled, labels, label_smoothing=doubt).item()

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    minimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return round(math.exp(minimum.x), 4)
