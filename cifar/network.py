"""A network by the name of its file in cifar/models: built, written and read."""

import hashlib
import importlib
import inspect
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
        kept = (words.view(torch.int16)[: x.numel()] >= dropped - 32768).to(x.dtype).mul_(65536 / (65536 - dropped))
        return x * kept.as_strided(x.shape, torch.empty_like(x).stride())  # in the memory format of x


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
            raise UserError(f"train.{option} = {value} has no effect in {name} (params.yaml): set it to {off}")
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


def weights(nets: list[nn.Module]) -> bytes:
    """All parameters and buffers as a safetensors file with their sha256 sum in it; equal weights give equal bytes.

    The names are those of the network, or for an ensemble those with the network's number before them.
    """
    state = {key: value.cpu().contiguous() for key, value in together(nets).state_dict().items()}
    return safetensors.torch.save(state, {"sha256": checksum(safetensors.torch.save(state))})


def checksum(content: bytes) -> str:
    """The sha256 sum of what follows the header of a safetensors file, whose length its first eight bytes tell."""
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def load(nets: list[nn.Module], path: Path) -> None:
    """Read what `weights` wrote into `nets`.

    Raises:
        UserError: not a safetensors file, one with a changed bit, or the weights of other networks.
    """
    content = path.read_bytes()
    try:
        state = safetensors.torch.load(content)
        if f'"sha256":"{checksum(content)}"'.encode() not in content[: 8 + int.from_bytes(content[:8], "little")]:
            raise ValueError("they do not fit their checksum")
        together(nets).load_state_dict(state)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"no readable weights, {error} ({path}): `dvc checkout` or `dvc repro` mends it") from None
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:160]
        raise UserError(f"weights of another network, {problem} ({path}): run `dvc repro`") from None


def together(nets: list[nn.Module]) -> nn.Module:
    return nets[0] if len(nets) == 1 else nn.ModuleList(nets)


def summary(net: nn.Module, channels: int, size: int) -> list[tuple[str, str, str, int]]:
    """For each layer in order of use its name, type, output shape for one image, and number of parameters.

    What belongs to no such layer, as in an attention, comes together in a last row.
    """
    rows = []

    def note(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        count = sum(parameter.numel() for parameter in layer.parameters())
        rows.append((names[layer], type(layer).__name__, "x".join(map(str, output.shape[1:])), count))

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
    lines = [f"  {layer:<24}{kind:<20}{shape:>12}{count:>12,}" for layer, kind, shape, count in layers]
    return "\n".join([*lines, f"  {sum(row[3] for row in layers):>68,} parameters"])
