"""A network by the name of its file in cifar/models: built, and tried before a training."""

import contextlib
import importlib
import json
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from cifar import UserError, inference
from cifar.dataset import Shape
from cifar.model import Layer, NetworkOptions

ROOT = Path(__file__).resolve().parents[1]  # of the code; the data are in the current folder
NARROW = 16  # channels that fill a block of the CPU's convolution kernels
CONTRACT = (
    "build(shape, options) returns a module from (N, {0}, {1}, {1}) floats to (N, {2}) logits"
)


def path_of(network: str) -> str:
    """The network's file, relative to the repository."""
    return f"cifar/models/{network}.py"


def load_file(network: str) -> ModuleType:
    """The module with the network's `build`.

    Raises:
        UserError: its name is none for Python, or it cannot be imported.
    """
    if not network.isidentifier():
        raise UserError(
            f"{network} is no name of a Python module ({path_of(network)}): "
            "rename the file, with letters, digits and underscores"
        )
    with one_line(network, "fix this file"):
        return importlib.import_module(f"cifar.models.{network}")


@contextlib.contextmanager
def one_line(network: str, advice: str, when: str = "") -> Iterator[None]:
    """Turn an error of the network's file, which may raise anything, into a UserError."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001
        problem = f"{when}{describe(error, network)}"
        if "view size is not compatible" in str(error):
            advice = "write x.flatten(1) for x.view(...): images are channels last in memory"
        raise UserError(f"{problem} ({path_of(network)}): {advice}") from None


def describe(error: BaseException, network: str) -> str:
    """The error in one line, with the last line of the network's file that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename.endswith(path_of(network))]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {' '.join(str(error).split())[:200]}"


def check_options(network: str, options: NetworkOptions) -> None:
    """Reject options that would have no effect.

    Raises:
        UserError: an option is set that the network does not use, or USES names no options.
    """
    uses = getattr(load_file(network), "USES", ())
    off = asdict(NetworkOptions())
    if not isinstance(uses, tuple) or not set(map(str, uses)) <= off.keys():
        raise UserError(
            f"USES = {uses!r} ({path_of(network)}): it is a tuple of options, such as "
            f'("width",); there are {", ".join(off)}'
        )
    for name, value in asdict(options).items():
        if name not in uses and value != off[name]:
            raise UserError(
                f"train.{name} = {value} has no effect in {network} (params.yaml): "
                f"set it to {json.dumps(off[name])}"
            )


def check_muon(network: str) -> None:
    """Reject the optimizer Muon for a network whose layers it was not made for.

    Raises:
        UserError: with values that work.
    """
    if not getattr(load_file(network), "MUON", False):
        values = "-S train.optimizer=sgd -S train.lr=0.01 -S train.small_epochs=0"
        raise UserError(
            f"train.optimizer: muon needs a network made for it, such as fast, not {network} "
            f"(params.yaml): try {values}"
        )


def inspect(
    network: str,
    shape: Shape,
    options: NetworkOptions,
    optimizer: str,
    small_size: int | None,
    batch_size: int = 2,
) -> tuple[Layer, ...]:
    """Try everything about a network that can be tried before training; returns its layers.

    Args:
        optimizer: as in `train.optimizer`.
        small_size: pixels of the smaller images that it will be trained on, if any.
        batch_size: images that it will be trained on at once.

    Raises:
        UserError: it would not work.
    """
    check_options(network, options)
    if optimizer == "muon":
        check_muon(network)
    net = build(network, shape, options, seed=0)
    check_kernels(network, net)
    check_state(network, net)
    with one_line(network, "training keeps images and filters channels last in memory"):
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = sizes(net)
    check(network, net, shape)
    check_sizes(network, before, sizes(net))
    check_training(network, net, shape)
    check_copy(network, net, shape, options)
    if small_size is not None:
        check_small(net, shape, small_size)
    with one_line(network, contract_for(shape)):
        layers = summarize(net, shape)
    counts = batch_size, inference.batch_size(net, shape.image_size)
    check_batches(network, net.to("meta"), shape, counts)
    return layers


def build(network: str, shape: Shape, options: NetworkOptions, seed: int) -> nn.Module:
    """The network with fresh weights that depend on `seed` alone.

    The caller's random numbers are left as they were.

    Raises:
        UserError: the network's file breaks its contract, or refuses the shape or the options.
    """
    file = load_file(network)
    contract = contract_for(shape)
    with one_line(network, contract), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = file.build(shape, options)
    if not isinstance(net, nn.Module):
        problem = f"build returned {type(net).__name__}"
        raise UserError(f"{problem} ({path_of(network)}): {contract}")
    if any(isinstance(parameter, UninitializedParameter) for parameter in net.parameters()):
        problem = "a lazy layer does not know its number of inputs"
        raise UserError(f"{problem} ({path_of(network)}): state it in the layer")
    return net


def contract_for(shape: Shape) -> str:
    """What the network's file must do, for this shape."""
    return CONTRACT.format(shape.channels, shape.image_size, shape.num_classes)


def check(network: str, net: nn.Module, shape: Shape, counts: tuple[int, ...] = (2, 1)) -> None:
    """Run the network on so many images of the real shape, before hours of training.

    Raises:
        UserError: it fails, or returns something else than one logit per image and class.
    """
    for count in counts:
        with one_line(network, contract_for(shape)):
            logits = run_once(net, black(shape, count))
        check_logits(network, logits, shape, count)


def check_batches(network: str, net: nn.Module, shape: Shape, counts: tuple[int, ...]) -> None:
    """Run the network on batches of the real size, without computing anything.

    Args:
        net: on the device meta, which has no numbers.

    Raises:
        UserError: as in `check`. Not for a network that looks at its numbers.
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
        UserError: there is one; it says which.
    """
    for name, layer in net.named_modules():
        strided = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) != layer.stride
        if strided and layer.in_channels // layer.groups < NARROW:
            raise UserError(
                f"layer {name} is a strided 1x1 convolution of fewer than {NARROW} channels, whose "
                f"CPU kernel damages memory ({path_of(network)}): leave pixels out before it, "
                "as resnet18.py does, or raise its width"
            )


def check_state(network: str, net: nn.Module) -> None:
    """Reject what a model file cannot hold: it has dense tensors of the usual types.

    Raises:
        UserError: something else is in the state; it says what.
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
            f"{name} is a {kind}, which no model file can hold ({path_of(network)}): "
            "make it a dense tensor of another type, or keep it out of the state"
        )


def sizes(net: nn.Module) -> dict[str, list[int]]:
    """Of all tensors in the state, by name."""
    return {name: list(value.shape) for name, value in net.state_dict().items()}


def check_sizes(network: str, before: dict[str, list[int]], after: dict[str, list[int]]) -> None:
    """Reject layers that are made while the network runs: the optimizer would not know them.

    Raises:
        UserError: there is one; it says which.
    """
    for name in after:
        if before.get(name) != after[name]:
            raise UserError(
                f"{name} appears or grows while the network runs ({path_of(network)}): "
                "make it in __init__, with its size"
            )


def check_copy(network: str, net: nn.Module, shape: Shape, options: NetworkOptions) -> None:
    """Try whether a second network with the same state predicts the same, as after loading.

    Raises:
        UserError: it does not, or one network predicts otherwise each time.
    """
    other = build(network, shape, options, seed=1)
    with one_line(network, contract_for(shape)), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = black(shape, 2).uniform_(-1, 1)
        other.load_state_dict(net.state_dict())
        # Copies of the images, because a network may write into its input.
        first, again, copied = (run_once(one, images.clone()).float() for one in (net, net, other))
    if not torch.allclose(first, again, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise UserError(
            f"it predicts otherwise each time ({path_of(network)}): "
            "F.dropout needs training=self.training"
        )
    if not torch.allclose(first, copied, rtol=1e-3, atol=1e-3, equal_nan=True):
        raise UserError(
            f"another network with its weights predicts otherwise ({path_of(network)}): "
            "make lists of layers nn.ModuleList, and random numbers parameters or buffers"
        )


def check_logits(network: str, logits: Any, shape: Shape, count: int, when: str = "") -> None:
    """Raise UserError if this is not one logit per image and class."""
    expected = [count, shape.num_classes]
    actual = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if isinstance(logits, Tensor) and not logits.is_floating_point():
        actual = str(logits.dtype)
    if actual != expected:
        images = {1: "one image", 2: "two images"}.get(count, f"{count} images")
        problem = f"{when}for {images} it returns {actual} instead of {expected}"
        raise UserError(f"{problem} ({path_of(network)}): {contract_for(shape)}")


def check_training(network: str, net: nn.Module, shape: Shape) -> None:
    """Try two steps: what a network returns while it trains may differ, and it must have gradients.

    Its weights keep their values, its running statistics do not.

    Raises:
        UserError: its logits are wrong, there is no loss, or it has no gradient.
    """
    when = "in training, "
    with one_line(network, contract_for(shape), when), torch.random.fork_rng(devices=[]):
        for _ in range(2):
            logits = net.train()(black(shape, 2))
            check_logits(network, logits, shape, 2, when)
            F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()


def check_small(net: nn.Module, shape: Shape, size: int) -> None:
    """Try whether the network also takes images of `size` pixels.

    Raises:
        UserError: it does not. A dense layer expects a fixed number of inputs, or the images
            vanish in the pools.
    """
    small = replace(shape, image_size=size)
    try:
        check_logits("", run_once(net, black(small, 1)), small, 1)
    except Exception:  # noqa: BLE001  a network may raise anything
        raise UserError(
            f"the network takes no images of {size}x{size} pixels "
            "(params.yaml, train.small_epochs): set it to 0"
        ) from None


def run_once(net: nn.Module, images: Tensor) -> Any:
    """What the network returns for (N, C, H, W) images; it is left in the mode that it had."""
    training = net.training
    try:
        with torch.inference_mode():
            return net.eval()(images)
    finally:
        net.train(training)


def black(shape: Shape, count: int) -> Tensor:
    """(count, C, H, W) network input, in the memory layout of training."""
    images = torch.zeros(count, shape.image_size, shape.image_size, shape.channels)
    return images.permute(0, 3, 1, 2)


def prepare(network: str, net: nn.Module, images: Tensor) -> None:
    """What a network does once before training: weights from the data, or pre-trained ones.

    Args:
        images: (N, C, H, W) training images as the network gets them, without augmentation.

    Raises:
        UserError: it fails.
    """
    file = load_file(network)
    if hasattr(file, "prepare"):
        with one_line(network, "fix prepare(net, images)", "prepare: "):
            file.prepare(net, images)


def summarize(net: nn.Module, shape: Shape) -> tuple[Layer, ...]:
    """The layers in order of use. Each tensor counts once, in the first layer that has it."""
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
    # What belongs to no such layer, as in an attention, comes in a last row.
    total = sum(parameter.numel() for parameter in net.parameters())
    rest = total - sum(layer.parameters for layer in layers)
    return (*layers, Layer("(others)", "", (), rest)) if rest else tuple(layers)


def table(layers: Iterable[Layer]) -> str:
    """A summary as text, one line for each layer."""
    return "\n".join(
        f"  {layer.name:<24}{layer.kind:<20}{'x'.join(map(str, layer.shape)):>12}"
        f"{layer.parameters:>12,}"
        for layer in layers
    )
