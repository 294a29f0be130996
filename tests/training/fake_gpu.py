"""Runs cases on a device that computes nothing: `python fake_gpu.py CASES`, a JSON object.

Prints a JSON object with, for each case, the number of times it read from the device, or its error.

Tensors in FakeTensorMode have shapes and devices, but no values. An operation on tensors of two
devices raises an error, and so does reading a value from the device. A case that succeeds therefore
leaves nothing on the CPU by mistake, and waits for the device only where expected.
"""

import json
import sys

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from cifar import inference, networks, params, tensors
from cifar.dataset import Shape
from cifar.params.train import Train
from cifar.training import fit, loading, trainer
from cifar.training.augment import AugmentedImages
from cifar.training.distributed import World
from cifar.training.loading import InMemory, OnDisk
from cifar.training.splits import augmentation

_setup_privateuseone_for_python_backend("fakegpu")
DEVICE = torch.device("fakegpu:0")
COUNT = 80  # images
SIZE = 32


class Numbers:
    """Stands for the sums that an epoch reads, on which `tolist` would raise an error."""

    reads = 0

    def __init__(self, sums):
        assert sums.device == DEVICE

    def tolist(self):
        Numbers.reads += 1
        return [1.0, 1.0]


loading.ahead = map  # FakeTensorMode does not reach other threads


class File(OnDisk):
    """Images on disk, without a disk."""

    def read(self, index):
        return torch.zeros(len(index), SIZE, SIZE, 3, dtype=torch.uint8)


def move(net):
    """Move the parameters and buffers of a network to the device."""
    for module in net.modules():
        for name, value in module._parameters.items():
            if value is not None:
                moved = value.detach().to(DEVICE)
                module._parameters[name] = nn.Parameter(moved, requires_grad=value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = torch.zeros_like(value).to(DEVICE)
    return net


def main():
    results = {}
    for name, case in json.loads(sys.argv[1]).items():
        Numbers.reads = 0
        try:
            run(case)
            results[name] = Numbers.reads
        except Exception as error:  # noqa: BLE001  the test shows it
            results[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    print(json.dumps(results))


def run(case):
    values = params.read("params.yaml")["train"] | {"batch_size": 8, "epochs": 2} | case
    p = Train.model_validate(values)
    options = fit.network_options(p)
    shape = Shape(10, 3, SIZE, (0.5,) * 3, (0.2,) * 3)
    net = networks.build(p.model, shape, options, seed=0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        train(p, move(net), shape)


def train(p, net, shape):
    images = torch.zeros(COUNT, SIZE, SIZE, 3, dtype=torch.uint8)
    labels = torch.zeros(COUNT, dtype=torch.long).to(DEVICE)
    normalize = tensors.normalizer(shape.mean, shape.std, DEVICE)
    options = augmentation(p, SIZE)
    placed = images if p.load == "disk" else images.to(DEVICE)
    source = File(None, options, DEVICE) if p.load == "disk" else InMemory(placed, options)
    augmented = AugmentedImages(source, labels, normalize, options, num_classes=10)
    fitting = fit.make_trainer(p, net, [COUNT // 10] * 10, World())
    fitting.all_reduce = Numbers
    for epoch in range(1, p.epochs + 1):
        order = torch.zeros(COUNT, dtype=torch.long).to(DEVICE)
        batches = augmented.epoch(epoch, 0, trainer.split_order(order, 40), World().part)
        fitting.epoch(batches, lambda net: (1.0, 1.0), lambda *_: None)
    fitting.finish()
    evaluate(fitting.net, placed, normalize)


def evaluate(net, images, normalize):
    """Use a network like stages/evaluate.py: for logits, also of mirrored images, and gradients."""
    for transform in (normalize, lambda batch: normalize(batch.flip(2))):
        logits = inference.predict(net, images, transform)
        assert logits.device == DEVICE and logits.shape == (COUNT, 10)
    x = normalize(images[:3]).detach().requires_grad_()
    net.eval()(x).float().max(1).values.sum().backward()
    assert x.grad.device == DEVICE


if __name__ == "__main__":
    main()
