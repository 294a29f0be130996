"""The networks in cifar/models: load, build, check and summarize them."""

import contextlib
import importlib
import json
import random
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from cifar import UserError, memory
from cifar.dataset import Shape
from cifar.model import Layer, NetworkOptions

ROOT = Path(__file__).resolve().parents[1]  # of the code; data are in the current folder
CONTRACT = (
    "build(shape, options) returns a module from (N, {0}, {1}, {1}) floats to (N, {2}) logits"
)


def path_of(network: str) -> str:
    """The network's file, relative to the repository."""
    return f"cifar/models/{network}.py"


def load_file(network: str) -> ModuleType:
    """Import the network's file.

    Raises:
        UserError: its name is not a Python identifier, or it cannot be imported.
    """
    if not network.isidentifier():
        raise UserError(
            f"{network} is not a name for a Python module ({path_of(network)}): "
            "rename the file, with letters, digits and underscores"
        )
    with one_line(network, "fix this file"):
        return importlib.import_module(f"cifar.models.{network}")


@contextlib.contextmanager
def one_line(network: str, advice: str, when: str = "") -> Iterator[None]:
    """Turn any exception from the network's file into a UserError."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if memory.ran_out(error):
            raise
        problem = f"{when}{describe(error, network)}"
        if "view size is not compatible" in str(error):
            advice = "use x.flatten(1) instead of x.view(...): images are channels last in memory"
        raise UserError(f"{problem} ({path_of(network)}): {advice}") from None


def describe(error: BaseException, network: str) -> str:
    """The error as one line of text, with the line number in the network's file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename.endswith(path_of(network))]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:200]}"


def check_options(network: str, options: NetworkOptions) -> None:
    """Reject options that would have no effect.

    Raises:
        UserError: an option is set that the network does not use, or USES is not valid.
    """
    uses = getattr(load_file(network), "USES", ())
    off = asdict(NetworkOptions())
    if not isinstance(uses, tuple) or not set(map(str, uses)) <= off.keys():
        raise UserError(
            f"USES = {uses!r} is not a tuple of options ({path_of(network)}): write for instance "
            f'("width",); the options are {", ".join(off)}'
        )
    for name, value in asdict(options).items():
        if name not in uses and value != off[name]:
            raise UserError(
                f"train.{name} = {value} has no effect in {network} (params.yaml): "
                f"set it to {json.dumps(off[name])}"
            )


def check_muon(network: str) -> None:
    """Reject the optimizer Muon for a network that does not support it.

    Raises:
        UserError: MUON is not set in the network's file; the message suggests values that work.
    """
    if not getattr(load_file(network), "MUON", False):
        values = "-S train.optimizer=sgd -S train.lr=0.01 -S train.small_epochs=0"
        raise UserError(
            f"train.optimizer: muon needs a network made for it, such as fast, not {network} "
            f"(params.yaml): try {values}"
        )


def build(network: str, shape: Shape, options: NetworkOptions, seed: int) -> nn.Module:
    """Build the network with fresh weights that depend only on `seed`.

    The global generators of torch, numpy and Python keep their state.

    Raises:
        UserError: the network's file breaks its contract, or rejects the shape or the options.
    """
    file = load_file(network)
    contract = contract_for(shape)
    with one_line(network, contract), seeded(seed):
        net = file.build(shape, options)
    if not isinstance(net, nn.Module):
        problem = f"build returned {type(net).__name__}"
        raise UserError(f"{problem} ({path_of(network)}): {contract}")
    if any(isinstance(parameter, UninitializedParameter) for parameter in net.parameters()):
        problem = "a lazy layer does not know its number of inputs"
        raise UserError(f"{problem} ({path_of(network)}): state it in the layer")
    return net


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch (CPU only), numpy and Python within the block.

    Afterwards they have their former state. `torch.manual_seed` would seed the GPUs as well.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  layers may draw from it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def contract_for(shape: Shape) -> str:
    """What the network's file must do for this shape, in words."""
    return CONTRACT.format(shape.channels, shape.image_size, shape.num_classes)


def check(network: str, net: nn.Module, shape: Shape, counts: tuple[int, ...] = (2, 1)) -> None:
    """Run the network on a few images of the real shape, before hours of training.

    Args:
        counts: the number of images in each try.

    Raises:
        UserError: it fails, or does not return one logit per image and class.
    """
    for count in counts:
        with one_line(network, contract_for(shape)):
            logits = run_once(net, black(shape, count))
        check_logits(network, logits, shape, count)


def check_logits(network: str, logits: Any, shape: Shape, count: int, when: str = "") -> None:
    """Check what the network returned.

    Raises:
        UserError: it is not one logit per image and class.
    """
    expected = [count, shape.num_classes]
    actual = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if isinstance(logits, Tensor) and not logits.is_floating_point():
        actual = str(logits.dtype)
    if actual != expected:
        images = {1: "one image", 2: "two images"}.get(count, f"{count} images")
        problem = f"{when}for {images} it returns {actual} instead of {expected}"
        raise UserError(f"{problem} ({path_of(network)}): {contract_for(shape)}")


def run_once(net: nn.Module, images: Tensor) -> Any:
    """What the network returns for images (N, C, H, W) in evaluation mode; its mode is restored."""
    training = net.training
    try:
        with torch.no_grad():  # not inference_mode: training may use what it caches
            return net.eval()(images)
    finally:
        net.train(training)


def black(shape: Shape, count: int) -> Tensor:
    """Zeros (count, C, H, W) as network input, in the memory layout of training."""
    images = torch.zeros(count, shape.image_size, shape.image_size, shape.channels)
    return images.permute(0, 3, 1, 2)


def to_device(net: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, with filters channels last in memory, like the images."""
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def prepare(network: str, net: nn.Module, images: Tensor, seed: int) -> None:
    """Call `prepare` in the network's file, if any: weights from the data, or pre-trained ones.

    Args:
        images: training images (N, C, H, W) as network input, without augmentation.

    Raises:
        UserError: it fails.
    """
    file = load_file(network)
    if hasattr(file, "prepare"):
        with one_line(network, "fix prepare(net, images)", "prepare: "), seeded(seed):
            file.prepare(net, images)


def summarize(net: nn.Module, shape: Shape) -> tuple[Layer, ...]:
    """The layers in order of use. A shared tensor counts once, in the first layer that has it."""
    layers: list[Layer] = []
    counted: set[nn.Parameter] = set()

    def note(layer: nn.Module, _: Any, output: Any) -> None:
        fresh = set(layer.parameters()) - counted
        counted.update(fresh)
        size = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        count = sum(parameter.numel() for parameter in fresh)
        layers.append(Layer(names[layer], type(layer).__name__, size, count))

    names = {layer: name for name, layer in net.named_modules() if not list(layer.children())}
    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        run_once(net, black(shape, 1))
    finally:
        for hook in hooks:
            hook.remove()
    # A last row counts parameters outside these layers, as in attention.
    total = sum(parameter.numel() for parameter in net.parameters())
    rest = total - sum(layer.parameters for layer in layers)
    return (*layers, Layer("(others)", "", (), rest)) if rest else tuple(layers)
