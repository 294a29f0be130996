"""The model file: the weights of one or more networks, and their record."""

import contextlib
import hashlib
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cifar import UserError, files, networks
from cifar.model import Model, parse, read_bytes

LARGE = 256  # pixels; above, the layers are first checked without memory, which takes seconds


def dump(nets: list[nn.Module], model: Model) -> bytes:
    """Return a safetensors file of all weights and their record.

    The same content gives the same bytes. Tensors have the same names as in the network; in an
    ensemble, the network's number precedes them. The record is JSON, with a checksum of everything.
    It is the file's only metadata key, because several keys would be written in random order.
    """
    # Copies, because safetensors rejects tensors that two layers share.
    state = {
        key: value.cpu().contiguous().clone() for key, value in join(nets).state_dict().items()
    }
    record = {"model": asdict(model), "sha256": checksum(state, asdict(model))}
    text = json.dumps(record, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return safetensors.torch.save(state, {"model": text})


def read(path: Path) -> tuple[Model, dict[str, Tensor]]:
    """Read the record and the weights that `dump` wrote.

    Raises:
        UserError: as in `cifar.model.parse`; or the checksum differs.
    """
    content = read_bytes(path)
    model, expected = parse(content, path)
    try:
        state = safetensors.torch.load(content)
    except (KeyError, AttributeError) as error:  # a type that torch does not have
        raise other_network(f"with numbers of type {error}", path) from None
    if checksum(state, asdict(model)) != expected:
        advice = "`dvc checkout` or `dvc repro` restores it"
        raise UserError(f"damaged, its checksum differs ({path}): {advice}")
    return model, state


def load(path: Path) -> tuple[list[nn.Module], Model]:
    """Load the networks in a model file, ready to predict, and their record.

    A note on stderr warns if the network's file has changed since the training.

    Raises:
        UserError: as in `read`; or the weights are not finite, or are of another network.
    """
    model, state = read(path)
    network, shape = model.network, model.dataset.shape
    file = networks.path_of(network)
    if not (networks.ROOT / file).exists():
        raise UserError(f"network {network} not found ({path}): add {file}")
    networks.load_file(network)
    check_without_memory(model, state, path)
    nets = [build(model, path) for _ in range(model.ensemble)]
    load_weights(join(nets), state, path)
    networks.check(network, nets[0], shape)
    check_layers(nets[0], model, path)
    warn_of_changes(path, model)
    return [net.eval() for net in nets], model


def build(model: Model, path: Path) -> nn.Module:
    """Build the network that the record describes, with fresh weights.

    Raises:
        UserError: it cannot be built; the message blames the model file instead of params.yaml.
    """
    try:
        return networks.build(model.network, model.dataset.shape, model.options, seed=0)
    except UserError as error:
        problem = re.sub(r" \((params\.yaml|cifar/models)\b.*", "", str(error))
        file = networks.path_of(model.network)
        raise UserError(
            f"its record does not fit {file}, {problem} ({path}): run `dvc repro`"
        ) from None


def check_without_memory(model: Model, state: dict[str, Tensor], path: Path) -> None:
    """Compare the weights with the network in the record, without allocating that network.

    Otherwise a small file whose record has a large width or large images could fill the memory.

    Raises:
        UserError: the weights are of another network.
    """
    try:
        with torch.device("meta"), WithoutNormal():
            net = build(model, path)
    except UserError:
        return  # the caller builds it in memory next: that works, or raises the error
    check_sizes(net, model, state, path)
    if model.dataset.image_size > LARGE:
        cannot = (RuntimeError, TypeError, ValueError)  # if the network reads its own tensors
        with torch.device("meta"), contextlib.suppress(*cannot):
            check_layers(net, model, path)


def check_sizes(net: nn.Module, model: Model, state: dict[str, Tensor], path: Path) -> None:
    """Compare the sizes of the weights with those in the network.

    Raises:
        UserError: they differ.
    """
    expected = join([net] * model.ensemble).state_dict()
    for name in sorted(expected.keys() | state.keys()):
        sizes = [
            list(tensors[name].shape) if name in tensors else None for tensors in (state, expected)
        ]
        if sizes[0] != sizes[1]:
            problem = f"{name[:80]} is {sizes[0] or 'missing'} instead of {sizes[1] or 'missing'}"
            raise other_network(problem, path)


def check_layers(net: nn.Module, model: Model, path: Path) -> None:
    """Compare the layers in the record, which charts and cards use, with those of the network.

    Raises:
        UserError: they differ.
    """
    if networks.summarize(net, model.dataset.shape) != model.layers:
        file = networks.path_of(model.network)
        raise other_network(f"the layers in its record are not those of {file}", path)


class WithoutNormal(TorchFunctionMode):
    """Skip the initialisation of weights from a normal distribution.

    On the meta device it needs PyTorch's compiler, which takes two seconds to import.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if "normal_" in func.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def other_network(problem: str, path: Path) -> UserError:
    return UserError(f"weights of another network, {problem} ({path}): run `dvc repro`")


def load_weights(net: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load the weights into the network.

    Raises:
        UserError: they are not finite, or are of another network.
    """
    types = {name: value.dtype for name, value in net.state_dict().items()}
    try:
        if odd := [name for name in types.keys() & state if state[name].dtype != types[name]]:
            raise RuntimeError(f"{min(odd)} is {state[min(odd)].dtype}")
        net.load_state_dict(state)
    except RuntimeError as error:
        raise other_network(" ".join(str(error).split())[:160], path) from None
    finite = all(parameter.isfinite().all() for parameter in net.parameters())
    if not finite or any(value.isnan().any() for value in state.values()):  # masks may be infinite
        raise UserError(
            f"weights that are not finite ({path}): train again at a lower learning rate"
        )


def warn_of_changes(path: Path, model: Model) -> None:
    """Print a note if the network's file has changed since the training.

    A changed comment is harmless; other layers of the same shapes would change the predictions.
    """
    file = networks.path_of(model.network)
    trained_with = model.provenance.network_file
    if trained_with != files.git_name((networks.ROOT / file).read_bytes()):
        version = f"another version of {file} (Git's object {trained_with[:12]})"
        print(f"note: {path} was trained with {version}", file=sys.stderr)


def checksum(state: dict[str, Tensor], model: Any) -> str:
    """The sha256 of the record and of the names, types, shapes and values of all tensors."""
    total = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
    for name, value in sorted(state.items()):
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def join(nets: list[nn.Module]) -> nn.Module:
    """One module that contains all networks."""
    return nets[0] if len(nets) == 1 else nn.ModuleList(nets)
