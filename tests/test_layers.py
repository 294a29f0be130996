"""Our dropout, which draws random bytes, and our global max pool, compared with torch's."""

import pytest
import torch
from torch import nn

from cifar.layers import Dropout, GlobalMaxPool

torch.set_num_threads(1)


def dropped(p, shape=(1000, 1000), seed=0, **options):
    """Ones that have passed through dropout."""
    torch.manual_seed(seed)
    return Dropout(p).train()(torch.ones(shape, **options))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_keeps_its_fraction_and_the_mean(p):
    """A fraction p of a million elements becomes zero, the others 1 / (1 - p): the mean is kept."""
    y = dropped(p)
    zeros = (y == 0).double().mean().item()
    assert abs(zeros - p) < 5 * (p * (1 - p) / 1e6) ** 0.5
    kept = y[y != 0].unique()
    assert len(kept) == 1
    assert kept.item() == pytest.approx(1 / (1 - p), rel=1e-4)
    assert y.double().mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / 1e6) ** 0.5)


def test_dropout_equals_torchs_in_distribution():
    """Zeros per row, per column and among neighbours are as frequent as with torch's dropout."""
    ours = dropped(0.3) == 0
    torch.manual_seed(1)
    torchs = nn.Dropout(0.3)(torch.ones(1000, 1000)) == 0
    for zeros in (ours, torchs):
        for dim in (0, 1):  # binomial: 300, give or take 14.5
            counts = zeros.sum(dim).double()
            assert 295 < counts.mean() < 305
            assert 13 < counts.std() < 16
        for step in (1, 2, 3, 4):  # neighbours are independent, within a draw of four and across
            pairs = (zeros[:, :-step] & zeros[:, step:]).double().mean()
            assert 0.088 < pairs < 0.092


def test_dropout_draws_again_and_repeats_with_the_seed():
    """Two calls drop different elements; the same seed drops the same ones."""
    torch.manual_seed(0)
    layer = Dropout(0.5)
    first, second = layer(torch.ones(1000)), layer(torch.ones(1000))
    assert 400 < (first != second).sum() < 600
    assert torch.equal(first, dropped(0.5, 1000))


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 5, 5), (1, 1, 1, 1), (4, 6), (0, 3)])
def test_dropout_takes_any_number_of_elements(shape):
    """Sizes that are not multiples of four work, and every element is sometimes dropped."""
    zeros = torch.stack([dropped(0.5, shape, seed=seed) == 0 for seed in range(40)])
    assert zeros.shape[1:] == shape
    assert zeros.any(0).all()
    assert not zeros.all(0).any()


def test_dropout_keeps_the_memory_format():
    """Channels-last tensors stay so; slices and expanded tensors are dropped by element."""
    last = dropped(0.5, (4, 8, 5, 5)).to(memory_format=torch.channels_last)
    assert Dropout(0.5)(last).is_contiguous(memory_format=torch.channels_last)
    whole = torch.ones(64, 64)
    for x in (whole[:, ::2], whole[::2, 1:], whole.T, whole[:1].expand(64, 64), whole[5]):
        y = Dropout(0.5)(x)
        assert y.shape == x.shape
        assert 0.25 < (y == 0).double().mean() < 0.75
        assert set(y.unique().tolist()) == {0, 2}
    columns = Dropout(0.5)(whole[:1].expand(64, 64)).sum(0)
    # Each element for itself, although they share one place in memory.
    assert 0 < columns.min() < columns.max() < 128


def test_dropout_passes_the_gradient_through_what_it_keeps():
    """The gradient is the mask: zero where dropped, the scale elsewhere."""
    x = torch.ones(100, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_off_is_the_identity():
    """At probability 0 and in evaluation nothing changes; near 1 almost all is dropped."""
    x = torch.randn(1000)
    assert Dropout(0.0).train()(x) is x
    assert torch.equal(Dropout(0.7).eval()(x), x)
    assert dropped(1 - 1e-9).count_nonzero() < 60  # one of 65536 is kept


@pytest.mark.parametrize("size", [(3, 3), (2, 2), (1, 1), (4, 7)])
def test_the_pool_over_whole_images_equals_torchs(size):
    """Values and gradients equal torch's to the bit, also if the largest value occurs twice."""
    x = torch.randn(5, 6, *size, generator=torch.Generator().manual_seed(0))
    x = x.round().contiguous(memory_format=torch.channels_last)
    results = []
    for layer in (GlobalMaxPool(), nn.AdaptiveMaxPool2d(1)):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        (y.flatten(1) * torch.arange(6.0)).sum().backward()
        results.append((y, leaf.grad))
    (ours, our_gradient), (torchs, their_gradient) = results
    assert torch.equal(ours, torchs)
    assert torch.equal(our_gradient, their_gradient)
