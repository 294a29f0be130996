"""The temperature minimises the loss, is bounded, and changes no prediction."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cifar import inference
from cifar.training.temperature import HIGHEST, LOWEST, fit_temperature


def sample(count=500, classes=5, scale=3.0, seed=0):
    """Logits, and labels drawn from their probabilities at another scale."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def loss(logits, labels, temperature):
    doubt = 1 / (len(labels) + 2)
    scaled = logits.double() / temperature
    return F.cross_entropy(scaled, labels, label_smoothing=doubt).item()


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_it_is_the_minimum_of_the_loss(scale):
    """No temperature on a fine grid within the bounds has a lower loss."""
    logits, labels = sample(scale=scale)
    fitted = fit_temperature(logits, labels)
    grid = np.geomspace(LOWEST, HIGHEST, 2000)
    losses = [loss(logits, labels, temperature) for temperature in grid]
    assert loss(logits, labels, fitted) <= min(losses) + 1e-9
    assert fitted == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)


def test_it_undoes_the_scale_of_the_logits():
    """Logits that are three times too large for their labels get a temperature of about three."""
    logits, labels = sample(count=20_000)
    assert fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_scaled_logits_scale_it(factor):
    """Scaled logits get a temperature scaled alike, so the probabilities do not change."""
    logits, labels = sample()
    expected = factor * fit_temperature(logits, labels)
    assert fit_temperature(factor * logits, labels) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("margin", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("count", [10, 1000])
def test_all_right_does_not_go_to_the_bound(margin, count):
    """If all validation images are right, the confidence is that of the rule of succession."""
    labels = torch.arange(count) % 3
    logits = margin * F.one_hot(labels, 3).float()
    fitted = fit_temperature(logits, labels)
    assert LOWEST * 1.5 < fitted < HIGHEST / 1.5
    confidence = inference.probabilities(logits, fitted).max().item()
    doubt = 1 / (count + 2)
    assert confidence == pytest.approx(1 - doubt + doubt / 3, abs=1e-4)


def test_logits_that_say_nothing_stay_within_the_bounds():
    """Equal logits and logits that are always wrong give a temperature within the bounds."""
    for logits in (torch.zeros(20, 3), -9.0 * F.one_hot(torch.arange(20) % 3, 3)):
        assert LOWEST <= fit_temperature(logits, torch.arange(20) % 3) <= HIGHEST


def test_no_prediction_changes():
    """The most likely class is the same at every temperature."""
    logits, _ = sample()
    for temperature in (LOWEST, 0.5, 2.0, HIGHEST):
        choices = inference.probabilities(logits.double(), temperature).argmax(1)
        assert torch.equal(choices, logits.argmax(1))
