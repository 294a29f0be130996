"""The record in a model file: with it and the weights, the network can be rebuilt and used.

This module does not import torch, so that charts and cards can be made without it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from safetensors import SafetensorError, deserialize

from cifar import UserError, files
from cifar.dataset import STRICT, Dataset

FORMAT = 2  # increased when this record changes; files of an older format are rejected


@dataclass(frozen=True)
class NetworkOptions:
    """The options in `train` that shape a network. `USES` in its file lists those that it uses.

    Attributes:
        depth: blocks, or convolutions per block; 0: the network's default.
        width: channels of the first block; 0: the network's default.
        dropout: probability, from 0 up to but not including 1.
        dropout_step: increase of the probability at each following dropout layer.
        batch_norm: batch normalisation after every activation.
        backbone: the name of a torchvision network.
        freeze: train the last layer only.
    """

    __pydantic_config__: ClassVar = STRICT

    depth: Annotated[int, Field(ge=0, le=1000)] = 0
    width: Annotated[int, Field(ge=0, le=100_000)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout_step: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_norm: bool = False
    backbone: str | None = None
    freeze: bool = False


@dataclass(frozen=True)
class Layer:
    """One layer of a network.

    Attributes:
        name: its name in the weights.
        kind: its class.
        shape: the shape of its output for one image.
        parameters: the number of its parameters, except those shared with an earlier layer.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Parameters:
    """The values from params.yaml.

    Attributes:
        seed: the seed of all random numbers.
        train: the section of that name, without load, processes and threads.
    """

    __pydantic_config__: ClassVar = STRICT

    seed: int
    train: dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Provenance:
    """Everything that the bytes of the weights depend on; no time, path, host or commit.

    Attributes:
        parameters: the values from params.yaml.
        data: maps the path of each data file to its sha256 sum.
        network_file: Git's object name of the network's file.
        device: the processor, and the instruction set of the CPU.
        threads: the CPU threads of all processes together.
        processes: the number of processes that shared each batch.
        versions: maps Python and the numerical libraries to their versions.
    """

    __pydantic_config__: ClassVar = STRICT

    parameters: Parameters
    data: dict[str, str]
    network_file: str
    device: str
    threads: Annotated[int, Field(ge=1)]
    processes: Annotated[int, Field(ge=1)]
    versions: dict[str, str]


@dataclass(frozen=True)
class Model:
    """Everything needed to use the weights, and how they were made.

    Attributes:
        format: the version of this record.
        network: the name of a file in cifar/models.
        dataset: class names, image shape and normalisation.
        options: the options that the network was built with.
        layers: the layers of one network, in order of use.
        ensemble: the number of networks, which are evaluated together.
        epochs: for each network, the epoch whose weights were kept, counted from 1.
        temperature: the logits are divided by it before they become probabilities.
        provenance: what the weights were made from.
    """

    __pydantic_config__: ClassVar = STRICT

    format: int
    network: Annotated[str, Field(max_length=100)]
    dataset: Dataset
    options: NetworkOptions
    layers: tuple[Layer, ...]
    ensemble: Annotated[int, Field(ge=1, le=100)]
    epochs: Annotated[tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0.001, le=1000)]
    provenance: Provenance

    def __post_init__(self) -> None:
        if not self.network.isidentifier():
            raise ValueError(f"{self.network!r} is not the name of a network")
        if len(self.epochs) != self.ensemble:
            raise ValueError(f"{len(self.epochs)} epochs for {self.ensemble} networks")

    @property
    def parameters(self) -> int:
        """The number of parameters of one network, each tensor counted once."""
        return sum(layer.parameters for layer in self.layers)


def read(path: Path) -> Model:
    """The record in a model file, without its weights.

    Raises:
        UserError: as in `parse`.
    """
    return parse(read_bytes(path), path)[0]


def read_bytes(path: Path) -> bytes:
    """The content of a model file.

    Raises:
        UserError: the file does not exist.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        advice = "`dvc repro` makes it, `dvc pull` fetches it"
        raise UserError(f"model file not found ({path}): {advice}") from None


def parse(content: bytes, path: Path) -> tuple[Model, str]:
    """Return the record in the content of a model file, and the checksum of record and weights.

    Raises:
        UserError: it is not a safetensors file, or has no valid record of the current format.
    """
    metadata = read_metadata(content, path)
    if "description" in metadata:  # the key of the record in format 1
        raise UserError(
            f"written by version 0.1 of this repository ({path}): use that version, or `dvc repro`"
        )
    try:
        record = json.loads(metadata["model"])
        version = record["model"]["format"]
        checksum = str(record["sha256"])
    except (LookupError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"weights without a record ({path}): `dvc repro` makes them again"
        ) from None
    if version != FORMAT:
        raise UserError(
            f"format {repr(version)[:40]} instead of {FORMAT} ({path}): "
            "use the version that wrote it, or `dvc repro`"
        )
    return files.parse_record(json.dumps(record["model"]), Model, path), checksum


def read_metadata(content: bytes, path: Path) -> dict[str, Any]:
    """The metadata in the header of a safetensors file: its length in eight bytes, then JSON."""
    try:
        deserialize(content)  # checks the header and the file's length
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return header.get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        problem = " ".join(str(error).split())[:160]
        advice = "`dvc checkout` or `dvc repro` restores it"
        raise UserError(f"not a safetensors file, {problem} ({path}): {advice}") from None
