"""Is a network that is 80 % sure right in 80 % of the cases?

Guo et al., On Calibration of Modern Neural Networks (2017).
"""

from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    low: float  # confidences above this one (the lowest bin: from it on)
    high: float  # up to this one
    images: int
    confidence: float  # their mean
    accuracy: float  # the fraction that was right


def bins(confidences: np.ndarray, right: np.ndarray, count: int = 10) -> list[Bin]:
    """The predictions in `count` bins of equal width, without empty ones.

    Args:
        confidences: (N,) probabilities of the predicted classes.
        right: (N,) bool, whether the prediction was right.
    """
    numbers = np.clip(np.ceil(confidences * count).astype(int) - 1, 0, count - 1)
    filled = []
    for number in np.unique(numbers).tolist():
        inside = numbers == number
        mean = float(confidences[inside].mean())
        accuracy = float(right[inside].mean())
        low, high = number / count, (number + 1) / count
        filled.append(Bin(low, high, int(inside.sum()), mean, accuracy))
    return filled


def expected_error(filled: list[Bin]) -> float:
    """Mean distance between confidence and accuracy, each bin weighted by its predictions."""
    total = sum(b.images for b in filled)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in filled) / total


def confident_mistakes(confidences: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` most confident wrong predictions, of equal ones the first."""
    wrong = np.flatnonzero(~right)
    return wrong[np.argsort(-confidences[wrong], kind="stable")][:count]
