"""Calibration: bins of confidence, and the expected error."""

import numpy as np
import pytest

from cifar.evaluation import calibration


def test_bins_by_hand():
    """Five predictions in four bins: edges belong to the bin below, empty bins are left out."""
    found = calibration.bins(
        np.array([0.25, 0.26, 0.5, 0.9, 1.0]), np.array([True, False, True, True, False]), 4
    )
    edges = [(b.low, b.high, b.images, b.accuracy) for b in found]
    assert edges == [(0, 0.25, 1, 1), (0.25, 0.5, 2, 0.5), (0.75, 1, 2, 0.5)]
    assert [b.confidence for b in found] == pytest.approx([0.25, 0.38, 0.95])
    assert calibration.expected_error(found) == pytest.approx((0.75 + 2 * 0.12 + 2 * 0.45) / 5)


def test_a_calibrated_network_has_no_error():
    """If each confidence is the probability of being right, the error is close to zero.

    The error of an overconfident network is its excess confidence.
    """
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.1, 1, 200_000)
    right = rng.random(len(confidences)) < confidences
    assert calibration.expected_error(calibration.bins(confidences, right)) < 0.005
    overconfident = calibration.bins(np.ones(10), np.arange(10) < 6)
    assert calibration.expected_error(overconfident) == pytest.approx(0.4)


def test_the_confident_mistakes_come_first():
    """Right predictions are left out, and equally confident mistakes keep their order."""
    confidences, right = (
        np.array([0.5, 0.9, 0.9, 0.99, 0.6]),
        np.array([False, False, False, True, False]),
    )
    assert calibration.confident_mistakes(confidences, right, 3).tolist() == [1, 2, 4]
    assert calibration.confident_mistakes(confidences, right, 9).tolist() == [1, 2, 4, 0]
