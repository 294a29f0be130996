"""Compares confidence with accuracy: of predictions at 80 % confidence, 80 % should be right.

Guo et al., On Calibration of Modern Neural Networks (2017).
"""

from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    low: float  # confidences above this (the lowest bin includes it)
    high: float  # up to and including this
    images: int
    confidence: float  # mean
    accuracy: float  # fraction of right predictions


def bins(confidences: np.ndarray, right: np.ndarray, count: int = 10) -> list[Bin]:
    """Sort predictions into `count` bins of equal width; empty bins are left out.

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
    """The mean distance between confidence and accuracy, weighted by the predictions of a bin."""
    total = sum(b.images for b in filled)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in filled) / total


def confident_mistakes(confidences: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` most confident wrong predictions; of equal ones, the first."""
    wrong = np.flatnonzero(~right)
    return wrong[np.argsort(-confidences[wrong], kind="stable")][:count]
