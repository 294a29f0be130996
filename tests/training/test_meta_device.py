"""Every network and optimizer on torch's meta device, whose tensors have shapes but no values.

A tensor left on the CPU by mistake raises an error, and so does reading a value during a step.
test_fake_gpu.py finds more, but needs private parts of torch.
"""

from itertools import repeat
from pathlib import Path
from typing import get_args

import pytest
import torch

from cifar import networks, params
from cifar.dataset import Shape
from cifar.params.train import Train
from cifar.training import fit
from cifar.training.distributed import World

ROOT = Path(__file__).parents[2]
SHAPE = Shape(10, 3, 32, (0.5,) * 3, (0.2,) * 3)
OFF = {"small_epochs": 0, "momentum": 0.0, "lr": 0.01, "schedule": "constant"}
NETWORKS = sorted(path.stem for path in (ROOT / "cifar/models").glob("[a-z]*.py"))
OPTIMIZERS = get_args(Train.model_fields["optimizer"].annotation)
NUMBERS = torch.ones(2)  # stands for the sums that an epoch reads from the device


def trainer(**changes):
    """A trainer around a network on the meta device."""
    values = params.read(ROOT / "params.yaml")["train"] | OFF | changes
    p = Train.model_validate(values)
    net = networks.build(p.model, SHAPE, fit.network_options(p), seed=0).to("meta")
    fitting = fit.make_trainer(p, net, [10] * 10, World())
    fitting.all_reduce = lambda sums: NUMBERS
    return fitting


def take_steps(fitting):
    x = torch.zeros(8, 3, 32, 32, device="meta").contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(8, dtype=torch.long, device="meta")
    logits = []
    fitting.steps(repeat((x, targets, 8), 2), lambda seen, *sums: logits.extend(sums))
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_trains_without_numbers(network):
    """Two steps leave a gradient of the right shape on the device for each trainable parameter."""
    backbone = {"backbone": "resnet18"} if network == "pretrained" else {}
    fitting = trainer(model=network, optimizer="sgd", **backbone)
    assert all(value.device.type == "meta" for value in take_steps(fitting))
    trained = [p for p in fitting.net.parameters() if p.requires_grad]
    assert trained and all(p.grad.is_meta and p.grad.shape == p.shape for p in trained)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_steps_without_numbers(optimizer):
    """After two steps, all of its state except counters is on the device."""
    fitting = trainer(
        model="fast", optimizer=optimizer, momentum=0.0 if "adam" in optimizer else 0.9
    )
    take_steps(fitting)
    states = [value for state in fitting.optimizer.state.values() for value in state.values()]
    tensors = [value for value in states if isinstance(value, torch.Tensor) and value.ndim]
    assert tensors and all(value.is_meta for value in tensors)


def test_averaged_weights_stay_on_the_device():
    """Averaged weights, which the fake GPU cannot copy, follow two steps and can be loaded."""
    fitting = trainer(model="vgg", optimizer="sgd", ema=0.9)
    take_steps(fitting)
    assert all(value.is_meta for value in fitting.current.parameters())
    fitting.net.load_state_dict(fitting.current.state_dict())


def test_a_tensor_on_the_cpu_is_noticed():
    """A parameter left on the CPU raises an error, so these tests can fail."""
    fitting = trainer(model="vgg", optimizer="sgd")
    layer = next(m for m in fitting.net.modules() if isinstance(m, torch.nn.Conv2d))
    layer.bias = torch.nn.Parameter(torch.zeros(len(layer.weight)))
    with pytest.raises((RuntimeError, NotImplementedError)):
        take_steps(fitting)
