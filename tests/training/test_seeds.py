"""Derived seeds depend only on seed, purpose and number."""

import hashlib

import torch

from cifar.training import seeds


def test_a_seed_is_pinned():
    """A derived seed is the first four bytes of the sha256 sum of `seed/purpose/number`: it must
    never change."""
    expected = int.from_bytes(hashlib.sha256(b"7/order/3").digest()[:4], "big")
    assert seeds.derive(7, "order", 3) == expected == 432871040


def test_every_purpose_number_and_seed_has_its_own():
    """Ten seeds, four purposes and fifty epochs give 2000 different seeds of 32 bits."""
    purposes = ("order", "augmentation", "dropout", "weights")
    found = {
        seeds.derive(seed, p, epoch) for seed in range(10) for p in purposes for epoch in range(50)
    }
    assert len(found) == 2000
    assert all(0 <= value < 2**32 for value in found)


def test_a_generator_repeats_and_leaves_the_global_state_alone():
    """A generator repeats its numbers, and neither depends on the global one nor changes it."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = torch.rand(5, generator=seeds.generator(1, "order", 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(torch.rand(5, generator=seeds.generator(1, "order", 2)), first)
    assert not torch.equal(torch.rand(5, generator=seeds.generator(1, "order", 3)), first)
