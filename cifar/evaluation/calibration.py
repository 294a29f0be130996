"""Does a network that is 80 % sure turn out right in 80 % of the cases? Guo et al., On Calibration (2017)."""

from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    low: float  # confidences above this one (the lowest bin: from it on)
    high: float  # up to this one
    images: int
    confidence: float  # their mean
    accuracy: float  # the share that was right


def bins(confidences: np.ndarray, right: np.ndarray, count: int = 10) -> list[Bin]:
    """The predictions in `count` bins of equal width, without empty ones.

    Args:
        confidences: (N,) probabilities of the predicted classes.
        right: (N,) bool, whether the prediction was right.
    """
    number = np.clip(np.ceil(confidences * count).astype(int) - 1, 0, count - 1)
    return [
        Bin(
            b / count,
            (b + 1) / count,
            int(own.sum()),
            float(confidences[own].mean()),
            float(right[own].mean()),
        )
        for b in range(count)
        if (own := number == b).any()
    ]


def expected_error(found: list[Bin]) -> float:
    """Mean distance between confidence and accuracy, each bin with the weight of its predictions."""
    total = sum(b.images for b in found)
    return sum(b.images * abs(b.accuracy - b.confidence) for b in found) / total


def surest_mistakes(confidences: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` wrong predictions of the highest confidence, of equal ones the first ones first."""
    wrong = np.flatnonzero(~right)
    return wrong[np.argsort(-confidences[wrong], kind="stable")][:count]
