"""Mixup and CutMix, by hand-computed values."""

import pytest
import torch
from torch.nn import functional as F

from cifar.training import mix
from cifar.training.mix import MixDraws


def draws(weights, centre=(0.5, 0.5)):
    return MixDraws(torch.tensor(weights), torch.tensor([centre] * len(weights)))


def test_mixup_blends_an_image_with_the_next_one():
    """A weight of 0.75 keeps three quarters of the image, and of its label."""
    x = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    mixed, weight = mix.mixup(x, draws([0.75, 1.0, 0.0]))
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 1.0, 0.0]
    targets = mix.mix_labels(torch.tensor([2, 1, 0]), weight, 3)
    assert targets.tolist() == [[0.0, 0.25, 0.75], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def test_cutmix_replaces_a_box_and_weighs_what_is_left():
    """A box in the middle has the drawn area; the pixels are those of one image or the other."""
    x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    mixed, weight = mix.cutmix(x, draws([0.75, 1.0]))
    assert weight.tolist() == [0.75, 1.0]
    assert mixed[0, 0, 2:6, 2:6].eq(1).all() and mixed[0].sum() == 16
    assert mixed[1].eq(1).all()


def test_a_box_is_clipped_at_the_border():
    """A box around a corner leaves more of the image, and its label weighs more."""
    x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    mixed, weight = mix.cutmix(x, draws([0.75, 0.75], centre=(0.0, 0.0)))
    assert mixed[0].sum() == 4 and weight[0] == 1 - 4 / 64


def test_draws_are_of_the_beta_distribution_and_of_their_seed():
    """Weights have the mean and the variance of B(alpha, alpha), and repeat with the seed."""
    found = mix.draw(20_000, 0.4, seed=3)
    assert torch.equal(found.weight, mix.draw(20_000, 0.4, seed=3).weight)
    assert found.weight.mean().item() == pytest.approx(0.5, abs=0.01)
    assert found.weight.var().item() == pytest.approx(0.25 / (2 * 0.4 + 1), rel=0.03)
    assert not torch.equal(found.weight, mix.draw(20_000, 0.4, seed=4).weight)


def test_the_loss_of_mixed_labels_is_the_weighted_sum_of_two_losses():
    """Cross-entropy with mixed labels is w loss(own) + (1 - w) loss(next)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=generator)
    labels = torch.tensor([0, 3, 1, 4])
    weight = torch.rand(4, generator=generator)
    found = F.cross_entropy(logits, mix.mix_labels(labels, weight, 5))
    parts = [F.cross_entropy(logits, y, reduction="none") for y in (labels, labels.roll(-1))]
    expected = (weight * parts[0] + (1 - weight) * parts[1]).mean()
    assert torch.allclose(found, expected)
