"""Optimizers compared with torch's and with a decomposition, learning rates with formulas."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn

from cifar.training import optim

torch.set_num_threads(1)
LR = 0.4
SCHEDULES = ["constant", "step", "cosine", "linear", "onecycle", "plateau"]


def small_net():
    """A filter, a normalisation, a matrix and a frozen matrix."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2)
    )
    net[4].weight.requires_grad = False
    return net


def make(name, net, **changes):
    options = {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "batch_size": 10}
    return optim.make_optimizer(net, optimizer=name, **options | changes)


def set_gradients(net, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def rates(name, epochs=6, steps=4, warmup=0, validation=(), **changes):
    """The learning rate of every step, with the schedule stepping after each as in training."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    options = {"drop": 0.5, "drop_epochs": 2} | changes
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = optim.make_schedule(
            optimizer, schedule=name, epochs=epochs, steps=steps, warmup=warmup, **options
        )
        for epoch in range(epochs):
            for _ in range(steps):
                found.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                if name != "plateau":
                    schedule.step()
            if name == "plateau":
                schedule.step(validation[epoch] if validation else 1.0)
    return found


def formula(name, t, total, steps):
    """The rate of step `t` of `total` after the warmup, with a drop of 0.5 every two epochs."""
    if name == "step":
        return LR * 0.5 ** (t // (2 * steps))
    if name == "cosine":
        return LR * (1 + math.cos(math.pi * t / total)) / 2
    if name == "linear":
        return LR * (1 - t / total)
    if (
        name == "onecycle"
    ):  # up from a 25th in three tenths of the steps, down to a 250,000th, both as half cosines
        top = 0.3 * (total + 1) - 1
        start, end, progress = (
            (LR / 25, LR, t / top) if t <= top else (LR, LR / 25e4, (t - top) / (total - top))
        )
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    return LR


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("name", ["constant", "step", "cosine", "linear", "onecycle"])
def test_rates_follow_the_formula(name, warmup):
    """Every step's rate is that of the formula, after a linear rise from a thousandth of its first
    value."""
    total, before = 6 * 4, warmup * 4
    first = formula(name, 0, total - before, 4)
    rise = [first * (0.001 + 0.999 * t / before) for t in range(before)]
    rest = [formula(name, t, total - before, 4) for t in range(total - before)]
    assert rates(name, warmup=warmup) == pytest.approx(rise + rest)


def test_linear_and_cosine_end_at_zero():
    """The step after the last one would have a rate of zero, even in a training of one step."""
    for name in ("linear", "cosine"):
        for epochs, steps in ((1, 1), (3, 5)):
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
            schedule = optim.make_schedule(
                optimizer,
                schedule=name,
                epochs=epochs,
                steps=steps,
                warmup=0,
                drop=0.5,
                drop_epochs=1,
            )
            for _ in range(epochs * steps):
                assert optimizer.param_groups[0]["lr"] > 0
                optimizer.step()
                schedule.step()
            assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_schedule_fails_at_its_end(name):
    """A schedule steps after every step, including the last, without error or warning."""
    for epochs, steps, warmup in ((1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 1, 1), (5, 3, 4), (4, 7, 0)):
        if not (warmup and name == "plateau"):
            found = rates(name, epochs=epochs, steps=steps, warmup=warmup)
            assert len(found) == epochs * steps
            assert all(0 < rate <= LR for rate in found)


def test_plateau_drops_after_epochs_without_progress():
    """Two epochs without improvement halve the rate of the next one, and the count restarts."""
    numbers = [1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.89999, 0.9, 0.89, 0.88]
    found = rates("plateau", epochs=10, steps=1, validation=numbers)
    drops = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert found == pytest.approx([LR * 0.5**n for n in drops])


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_of_different_rates_keep_their_ratios(name):
    """Every schedule scales all rates alike, so those of muon keep their published ratios."""
    optimizer = make("muon", small_net())
    before = [group["lr"] for group in optimizer.param_groups]
    schedule = optim.make_schedule(
        optimizer, schedule=name, epochs=3, steps=2, warmup=0, drop=0.5, drop_epochs=1
    )
    shares = set()
    for _ in range(6):
        found = [
            group["lr"] / rate for group, rate in zip(optimizer.param_groups, before, strict=True)
        ]
        assert found == pytest.approx([found[0]] * 3)
        shares.add(round(found[0], 6))
        optimizer.step()
        schedule.step(*([1.0] if name == "plateau" else []))
    assert len(before) == 3
    assert (len(shares) == 1) == (name == "constant")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer_name", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize(
    ("name", "warmup"),
    [*((name, 0) for name in SCHEDULES), *((name, 1) for name in SCHEDULES[:-1])],
)
def test_a_restored_schedule_gives_the_same_rates(optimizer_name, name, warmup):
    """An optimizer and a schedule restored at any step give the same rates as before, in all
    groups."""

    def start():
        optimizer = make(optimizer_name, small_net(), weight_decay=0.1)
        options = {"epochs": 4, "steps": 3, "warmup": warmup, "drop": 0.5, "drop_epochs": 1}
        return optimizer, optim.make_schedule(optimizer, schedule=name, **options)

    def advance(optimizer, schedule):
        optimizer.step()
        schedule.step(*([1.0] if name == "plateau" else []))
        return [group["lr"] for group in optimizer.param_groups]

    first = start()
    states, expected = [], []
    for _ in range(12):
        states.append([copy.deepcopy(part.state_dict()) for part in first])
        expected.append(advance(*first))
    for step, state in enumerate(states):
        second = start()
        for part, own in zip(second, state, strict=True):
            part.load_state_dict(own)
        assert [advance(*second) for _ in range(step, 12)] == expected[step:]


def test_sgd_adam_and_adamw_are_those_of_torch():
    """The three names stand for torch's classes, with the given rate and momentum."""
    sgd = make("sgd", small_net(), lr=0.3, momentum=0.9, nesterov=True)
    assert type(sgd) is torch.optim.SGD
    assert all(
        (g["lr"], g["momentum"], g["nesterov"], g["dampening"]) == (0.3, 0.9, True, 0)
        for g in sgd.param_groups
    )
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = make(name, small_net(), lr=0.3)
        assert type(optimizer) is kind
        assert all((g["lr"], g["betas"]) == (0.3, (0.9, 0.999)) for g in optimizer.param_groups)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_shrinks_weights_only(name):
    """Without a gradient, a step shrinks filters and matrices by lr * decay, but not biases and
    norms."""
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make(name, net, lr=0.1, weight_decay=0.2).step()
    for key, parameter in net.named_parameters():
        factor = 0.98 if key in ("0.weight", "3.weight") else 1.0
        assert torch.allclose(parameter, factor * before[key]), key


def test_decay_of_adam_is_part_of_the_gradient():
    """Adam's decay is a penalty: without another gradient, the first step moves every weight by the
    rate."""
    net = small_net()
    before = net[3].weight.clone()
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make("adam", net, lr=0.01, weight_decay=0.2).step()
    assert torch.allclose(net[3].weight, before - 0.01 * before.sign(), atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_trainable_parameter_is_in_one_group(name):
    """Each trainable parameter is in exactly one group, and the frozen one in none."""
    net = small_net()
    found = [id(p) for group in make(name, net).param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (24, 24)])
def test_orthogonalize_is_the_polynomial_of_the_singular_values(shape):
    """U S V^T becomes U p(p(p(S / |S|))) V^T; singular values above a twentieth of the norm land in
    0.6 to 1.25."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    large = int((s > 0.05).sum())
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    result = optim.orthogonalize(matrix)
    assert torch.allclose(result, u @ torch.diag(s) @ v, atol=1e-6)
    found = torch.linalg.svdvals(result)
    assert large >= 16
    assert 0.6 < found[large - 1] <= found[0] < 1.25


def test_orthogonalize_survives_a_zero_gradient():
    """The zero matrix stays zero instead of becoming NaN."""
    assert not optim.orthogonalize(torch.zeros(4, 6)).any()


def test_the_sgd_groups_of_muon_are_torchs_sgd_bit_for_bit():
    """Matrices and vectors move as with torch's SGD and Nesterov momentum, at rates in the
    published ratios."""
    net, other = small_net(), small_net()
    muon = make("muon", net, lr=0.01, momentum=0.6, weight_decay=0.02, batch_size=250)
    groups = [  # rates in units of lr * batch size; decay of 0.02 per 500 images at that rate
        {
            "params": [other[3].weight],
            "lr": 2.8 * 0.01 * 250,
            "weight_decay": 0.02 * 250 / 500 / (2.8 * 0.01 * 250),
        },
        {
            "params": [other[0].bias, *other[1].parameters(), other[3].bias, other[4].bias],
            "lr": 0.22 * 0.01 * 250,
            "weight_decay": 0.02 * 250 / 500 / (0.22 * 0.01 * 250),
        },
    ]
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    for step in range(5):
        for one, optimizer in ((net, muon), (other, sgd)):
            set_gradients(one, step)
            optimizer.step()
    assert all(
        torch.equal(p, q)
        for p, q in zip(list(net.parameters())[1:], list(other.parameters())[1:], strict=True)
    )
    assert not torch.equal(net[3].weight, small_net()[3].weight)


def test_filters_keep_their_norm_under_muon():
    """A step scales the filters to the norm sqrt(filters), then subtracts lr times an orthogonal
    step."""
    net = small_net()
    muon = make("muon", net, lr=0.05, momentum=0.6)
    buffer = torch.zeros(4, 27)
    for step in range(3):
        before = net[0].weight.detach().clone()
        set_gradients(net, step)
        gradient = net[0].weight.grad.flatten(1)
        muon.step()
        buffer = 0.6 * buffer + gradient
        update = optim.orthogonalize(gradient + 0.6 * buffer).view(4, 3, 3, 3)
        assert torch.allclose(net[0].weight, before * 2 / before.norm() - 0.05 * update, atol=1e-6)


def test_muon_trains_single_numbers_too():
    """A parameter without dimensions, such as a learned scale, is in a group."""
    net = nn.Linear(3, 2)
    net.scale = nn.Parameter(torch.tensor(1.0))
    groups = make("muon", net).param_groups
    assert sum(len(group["params"]) for group in groups) == 3


def test_muon_serves_networks_without_filters():
    """Muon leaves out groups without parameters."""
    net = nn.Linear(3, 2, bias=False)
    assert [len(group["params"]) for group in make("muon", net).param_groups] == [1]
