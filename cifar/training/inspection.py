"""Tries a network before training, to find in seconds what would fail after hours."""

import contextlib
from dataclasses import replace

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar import UserError, inference, memory, networks
from cifar.dataset import Shape
from cifar.model import Layer, NetworkOptions
from cifar.networks import black, check, check_logits, contract_for, one_line, path_of, run_once
from cifar.params.train import Train
from cifar.training.distributed import World
from cifar.training.fit import make_trainer
from cifar.training.splits import small_size

NARROW = 16  # channels that fill a block of the CPU's convolution kernels


def inspect(p: Train, shape: Shape, options: NetworkOptions) -> tuple[Layer, ...]:
    """Try everything that can be tried before training; returns the network's layers.

    Raises:
        UserError: the training would fail.
    """
    layers = inspect_network(
        network=p.model,
        shape=shape,
        options=options,
        optimizer=p.optimizer,
        small_size=small_size(p, shape.image_size) if p.small_epochs else None,
        batch_size=p.batch_size,
    )
    rehearse(p, shape, options)
    return layers


def rehearse(p: Train, shape: Shape, options: NetworkOptions) -> None:
    """Train on two black images as the real training does: with its steps, averages and copies.

    Compiling, which takes long, is left out, and so is Muon, which takes long for many filters.

    Raises:
        UserError: it fails, or processes would wait for the gradient of an unused parameter.
    """
    net = networks.build(network=p.model, shape=shape, options=options, seed=0)
    batch = black(shape, 2), torch.zeros(2, dtype=torch.int64), 2
    contract = contract_for(shape)
    copies = "train.ema copies the network: set it to 0, or leave out what cannot be copied"
    quick = p.model_copy(update={"compile": "none"})
    if p.optimizer == "muon":
        quick = quick.model_copy(update={"optimizer": "sgd"})
    with torch.random.fork_rng(devices=[]):
        with one_line(network=p.model, advice=copies if p.ema else contract):
            networks.to_device(net, torch.device("cpu"))
            fitting = make_trainer(quick, net, [1] * shape.num_classes, World())
        with one_line(network=p.model, advice=contract, when="in training, "):
            fitting.steps([batch, batch], lambda *_: None)
            fitting.restore(fitting.state())
    unused = [name for name, w in net.named_parameters() if w.requires_grad and w.grad is None]
    if unused and p.processes > 1:
        raise UserError(
            f"{unused[0]} has no gradient, and several processes would wait for it "
            f"({path_of(network=p.model)}): use it, or set train.processes to 1"
        )


def inspect_network(
    network: str,
    shape: Shape,
    options: NetworkOptions,
    optimizer: str,
    small_size: int | None,
    batch_size: int = 2,
) -> tuple[Layer, ...]:
    """Check everything about a network itself; returns its layers.

    Args:
        optimizer: as in `train.optimizer`.
        small_size: size in pixels of the smaller images of the first epochs, if any.
        batch_size: images in a batch of the training.

    Raises:
        UserError: the network would not work.
    """
    networks.check_options(network, options)
    if optimizer == "muon":
        networks.check_muon(network)
    net = networks.build(network, shape, options, seed=0)
    check_kernels(network, net)
    check_state(network, net)
    with one_line(network, "training keeps images and filters channels last in memory"):
        networks.to_device(net, torch.device("cpu"))
    before = sizes(net)
    check(network, net, shape)
    check_growth(network, before, sizes(net))
    check_training(network, net, shape)
    check_copy(network, net, shape, options)
    if small_size is not None:
        check_small(net, shape, small_size)
    with one_line(network, contract_for(shape)):
        layers = networks.summarize(net, shape)
        counts = batch_size, inference.batch_size(net, shape.image_size)
        net.to("meta")
    check_batches(network, net, shape, counts)
    return layers


def check_batches(network: str, net: nn.Module, shape: Shape, counts: tuple[int, ...]) -> None:
    """Run the network on batches of the real size, without computing anything.

    Args:
        net: the network on the device meta, whose tensors have shapes but no values.

    Raises:
        UserError: as in `check`; never for a network that reads values of its tensors.
    """
    with torch.device("meta"):
        try:
            check(network, net, shape)
        except UserError:
            return
        check(network, net, shape, counts)


def check_kernels(network: str, net: nn.Module) -> None:
    """Reject layers whose training on a CPU writes outside its memory (oneDNN issue 6035).

    They are strided 1x1 convolutions of fewer than 16 channels, in the layout channels_last.

    Raises:
        UserError: the network has such a layer, which the message names.
    """
    for name, layer in net.named_modules():
        strided = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) != layer.stride
        if strided and layer.in_channels // layer.groups < NARROW:
            raise UserError(
                f"layer {name} is a strided 1x1 convolution of fewer than {NARROW} channels, whose "
                f"CPU kernel damages memory ({path_of(network)}): skip pixels before it, "
                "as resnet18.py does, or raise its width"
            )


def check_state(network: str, net: nn.Module) -> None:
    """Reject a state that a model file, made for dense tensors of the usual types, cannot hold.

    Raises:
        UserError: the state has something else, which the message names.
    """
    for name, value in net.state_dict().items():
        kind = type(value).__name__
        if type(value) is Tensor:
            kind = f"{value.layout} {value.dtype}".replace("torch.", "")
            with contextlib.suppress(KeyError, RuntimeError):
                safetensors.torch.save({"x": torch.empty(0, dtype=value.dtype)})
                if value.layout == torch.strided:
                    continue
        raise UserError(
            f"{name} is a {kind}, which a model file cannot hold ({path_of(network)}): "
            "make it a dense tensor of another type, or keep it out of the state"
        )


def sizes(net: nn.Module) -> dict[str, list[int]]:
    """Map the name of each tensor in the state to its shape."""
    return {name: list(value.shape) for name, value in net.state_dict().items()}


def check_growth(network: str, before: dict[str, list[int]], after: dict[str, list[int]]) -> None:
    """Reject layers that are created while the network runs: the optimizer would not know them.

    Raises:
        UserError: a tensor has appeared or grown, which the message names.
    """
    for name in after:
        if before.get(name) != after[name]:
            raise UserError(
                f"{name} appears or grows while the network runs ({path_of(network)}): "
                "create it in __init__, with its final size"
            )


def check_copy(network: str, net: nn.Module, shape: Shape, options: NetworkOptions) -> None:
    """Check that a second network with the same state gives the same predictions, as after loading.

    Raises:
        UserError: it does not, or a network's predictions for the same images vary.
    """
    other = networks.build(network, shape, options, seed=1)
    with one_line(network, contract_for(shape)), networks.seeded(0):
        images = black(shape, 2).uniform_(-1, 1)
        other.load_state_dict(net.state_dict())
        # Copies of the images, because a network may write into its input.
        first, again, copied = (run_once(one, images.clone()).float() for one in (net, net, other))
    if not torch.allclose(first, again, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise UserError(
            f"it gives different predictions for the same images ({path_of(network)}): "
            "F.dropout needs training=self.training"
        )
    if not torch.allclose(first, copied, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise UserError(
            f"a second network with its weights gives other predictions ({path_of(network)}): "
            "put layers in nn.ModuleList, not in a list, and random tensors in buffers"
        )


def check_training(network: str, net: nn.Module, shape: Shape) -> None:
    """Try two forward and backward passes in training mode, in which a network may act differently.

    Its weights keep their values, but its running statistics change.

    Raises:
        UserError: the logits are wrong, or the loss or its gradient cannot be computed.
    """
    when = "in training, "
    with one_line(network, contract_for(shape), when), torch.random.fork_rng(devices=[]):
        for _ in range(2):
            logits = net.train()(black(shape, 2))
            check_logits(network, logits, shape, 2, when)
            F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()
        net.zero_grad()  # gradients are as large as the network


def check_small(net: nn.Module, shape: Shape, size: int) -> None:
    """Check that the network also accepts images of `size` pixels.

    Raises:
        UserError: it does not: a dense layer needs a fixed number of inputs, or the pools leave
            nothing of the images.
    """
    small = replace(shape, image_size=size)
    try:
        check_logits("", run_once(net, black(small, 1)), small, 1)
    except Exception as error:
        if memory.ran_out(error):
            raise
        raise UserError(
            f"the network does not accept images of {size}x{size} pixels "
            "(params.yaml, train.small_epochs): set it to 0"
        ) from None
