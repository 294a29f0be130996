"""A network by the name of its file in cifar/models: built, written and read."""

import hashlib
import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from cifar import UserError

# Options of `train` that only some networks have, and the value that says nothing.
OFF = {
    "depth": 0,
    "width": 0,
    "dropout": 0.0,
    "dropout_step": 0.0,
    "batch_norm": False,
    "backbone": None,
    "freeze": False,
}


class FastDropout(nn.Dropout):
    """nn.Dropout with a mask of 16 random bits per element, four from each draw: several times faster on a CPU.

    The probability is rounded to a multiple of 1/65536, and the scale follows it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.p:
            return x
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        dropped = min(round(self.p * 65536), 65535)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = (
            (words.view(torch.int16)[: x.numel()] >= dropped - 32768)
            .to(x.dtype)
            .mul_(65536 / (65536 - dropped))
        )
        return x * kept.as_strided(
            x.shape, torch.empty_like(x).stride()
        )  # in the memory format of x


def module(name: str) -> ModuleType:
    return importlib.import_module(f"cifar.models.{name}")


def arguments(name: str, options: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """What the network's `build` takes: of `facts` about the data and of `options` what it has a parameter for.

    Raises:
        UserError: an option is set that this network does not have.
    """
    parameters = inspect.signature(module(name).build).parameters
    for option, off in OFF.items():
        if option not in parameters and getattr(options, option) != off:
            value = getattr(options, option)
            raise UserError(
                f"train.{option} = {value} has no effect in {name} (params.yaml): set it to {off}"
            )
    return {key: facts[key] if key in facts else getattr(options, key) for key in parameters}


def build(name: str, values: dict[str, Any], seed: int) -> nn.Module:
    """The network with fresh weights that depend on `seed` alone."""
    torch.manual_seed(seed)
    net = module(name).build(**values)
    for layer in net.modules():
        if type(layer) is nn.Dropout:
            layer.__class__ = FastDropout
    return net


def prepare(name: str, net: nn.Module, images: torch.Tensor) -> None:
    """What a network does once before training: weights from the data, or pre-trained ones.

    Args:
        images: (N, C, H, W) training images as the network gets them, without augmentation.
    """
    if hasattr(module(name), "prepare"):
        module(name).prepare(net, images)


def weights(nets: list[nn.Module], description: dict[str, Any]) -> bytes:
    """All parameters and buffers as a safetensors file with its description; the same content gives the same bytes.

    The names are those of the network, or for an ensemble those with the network's number before them. The
    description is JSON with a checksum of everything, in the one metadata key that keeps the order of the bytes.
    """
    state = {key: value.cpu().contiguous() for key, value in together(nets).state_dict().items()}
    whole = description | {"sha256": checksum(state, description)}
    text = json.dumps(whole, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return safetensors.torch.save(state, {"description": text})


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The description and the weights that `weights` wrote.

    Raises:
        UserError: no such file, not a safetensors file, no description in it, or a bit that has changed.
    """
    try:
        content = path.read_bytes()
        state = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        description = json.loads(header["__metadata__"]["description"])
        expected = description.pop("sha256")
    except FileNotFoundError:
        raise UserError(
            f"no model file ({path}): `dvc repro` makes it, `dvc pull` fetches it"
        ) from None
    except (LookupError, TypeError, AttributeError):
        raise UserError(
            f"weights without a description ({path}): `dvc repro` makes the file anew"
        ) from None
    except (SafetensorError, ValueError) as error:
        problem = " ".join(str(error).split())[:160]
        raise UserError(
            f"no safetensors file, {problem} ({path}): `dvc checkout` or `dvc repro` mends it"
        ) from None
    if checksum(state, description) != expected:
        raise UserError(
            f"damaged, its checksum is another ({path}): `dvc checkout` or `dvc repro` mends it"
        )
    return description, state


def load(path: Path) -> tuple[list[nn.Module], dict[str, Any]]:
    """The networks in a model file, ready to predict, and its description, from nothing but the file.

    Raises:
        UserError: as in `read`, or the network of that name in cifar/models is not the one that was trained.
    """
    description, state = read(path)
    try:
        nets = [
            build(description["model"], description["arguments"], 0)
            for _ in range(description["ensemble"])
        ]
        together(nets).load_state_dict(state)
    except (ImportError, LookupError, TypeError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:160]
        raise UserError(
            f"weights of another network, {problem} ({path}): run `dvc repro`"
        ) from None
    return [net.eval() for net in nets], description


def checksum(state: dict[str, torch.Tensor], description: dict[str, Any]) -> str:
    """The sha256 of the names, types, shapes and values of all tensors, and of what describes them."""
    total = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, value in sorted(state.items()):
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def together(nets: list[nn.Module]) -> nn.Module:
    return nets[0] if len(nets) == 1 else nn.ModuleList(nets)


def summary(net: nn.Module, channels: int, size: int) -> list[tuple[str, str, str, int]]:
    """For each layer in order of use its name, type, output shape for one image, and number of parameters.

    What belongs to no such layer, as in an attention, comes together in a last row.
    """
    rows = []

    def note(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        count = sum(parameter.numel() for parameter in layer.parameters())
        rows.append(
            (names[layer], type(layer).__name__, "x".join(map(str, output.shape[1:])), count)
        )

    names = {layer: name for name, layer in net.named_modules() if not list(layer.children())}
    hooks = [layer.register_forward_hook(note) for layer in names]
    training = net.training
    with torch.inference_mode():
        net.eval()(torch.zeros(1, channels, size, size))
    net.train(training)
    for hook in hooks:
        hook.remove()
    rest = sum(parameter.numel() for parameter in net.parameters()) - sum(row[3] for row in rows)
    return [*rows, ("(others)", "", "", rest)] if rest else rows


def table(layers: list[tuple[str, str, str, int]]) -> str:
    """A summary as text, one line a layer and the number of parameters of all."""
    lines = [
        f"  {layer:<24}{kind:<20}{shape:>12}{count:>12,}" for layer, kind, shape, count in layers
    ]
    return "\n".join([*lines, f"  {sum(row[3] for row in layers):>68,} parameters"])


def check_small(net: nn.Module, channels: int, size: int) -> None:
    """Try whether `net` takes pictures of that size too.

    Raises:
        UserError: it does not: a dense layer expects a number of inputs, or the pictures vanish in the pools.
    """
    try:
        summary(net, channels, size)
    except (RuntimeError, ValueError):
        raise UserError(
            f"the network takes no pictures of {size}x{size} pixels (params.yaml, train.small_share): set it to 0"
        ) from None
