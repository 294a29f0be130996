"""The choice of the device, and of the number of threads."""

import os

import pytest
import torch

from cifar import UserError, hardware


@pytest.fixture
def machine(monkeypatch):
    """A function that makes torch report so many CUDA devices, and MPS or not."""

    def pretend(cuda, mps):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, False, "auto", "cuda:0"),
        (1, True, "auto", "cuda:0"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (2, True, "mps", "mps"),
        (2, True, "cpu", "cpu"),
    ],
)
def test_the_device_of_that_name(machine, cuda, mps, name, expected):
    """auto is the first of CUDA, MPS and CPU; a name is that device; cuda is the first one."""
    machine(cuda, mps)
    assert hardware.pick(name, "train.device") == torch.device(expected)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "there"),
    [
        (0, False, "cuda:0", "cpu"),
        (0, False, "mps", "cpu"),
        (2, False, "cuda:2", "cuda:0, cuda:1, cpu"),
        (1, True, "cuda:1", "cuda:0, mps, cpu"),
    ],
)
def test_an_absent_device_is_an_error_that_lists_what_there_is(machine, cuda, mps, name, there):
    """A device that is not there is one line with its name, what there is instead, and the key."""
    machine(cuda, mps)
    with pytest.raises(
        UserError, match=rf"^no device {name} here, only {there} \(params\.yaml, evaluate\.device\)"
    ):
        hardware.pick(name, "evaluate.device")


def test_threads():
    """So many threads as asked for are used, and for 0 as many as the process has cores."""
    before = torch.get_num_threads()
    try:
        assert hardware.set_threads(3) == torch.get_num_threads() == 3
        assert hardware.set_threads(0) == torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("place", "precision", "mode", "cast"),
    [
        ("cpu", "auto", "none", False),
        ("cuda", "auto", "none", True),
        ("mps", "auto", "none", False),
        ("cuda", "fp32", "reduce-overhead", False),
        ("cpu", "fp32", "default", False),
        ("cpu", "bf16", "reduce-overhead", True),
    ],
)
def test_how_training_calls_the_network(monkeypatch, place, precision, mode, cast):
    """auto is bf16 on CUDA only; a name is that, wherever; it is compiled in the mode asked for."""
    modes = []
    monkeypatch.setattr(torch, "compile", lambda net, mode, dynamic: modes.append(mode) or net)
    net = torch.nn.Linear(2, 2)
    call = hardware.forward(net, torch.device(place), precision, mode)
    assert modes == ([] if mode == "none" else [mode])
    assert (call is not net) == cast


def test_bf16_gives_float32_logits_and_gradients():
    """In bf16 the logits are rounded but come as float32, and the float32 weights get their gradients."""
    net = torch.nn.Linear(64, 3)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    logits = hardware.forward(net, torch.device("cpu"), "bf16", "none")(x)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, net(x))
    assert torch.allclose(logits, net(x), atol=0.05)
    logits.sum().backward()
    assert net.weight.grad.dtype == torch.float32
