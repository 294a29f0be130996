"""What a model file says about its weights: one record, enough to rebuild the network and use it.

The record knows no torch, so that charts and cards can be made without it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from safetensors import SafetensorError, deserialize

from cifar import UserError, files
from cifar.dataset import STRICT, Dataset

FORMAT = 2  # raised when this record changes; an older file is refused in one line


@dataclass(frozen=True)
class NetworkOptions:
    """The options of `train` that shape a network. A network's file names those that it uses.

    Attributes:
        depth: blocks, or convolutions per block; 0: the network's default.
        width: channels of the first block; 0: the network's default.
        dropout: probability, from 0 up to but not including 1.
        dropout_step: increase of the probability at each following dropout layer.
        batch_norm: batch normalisation after every activation.
        backbone: the name of a network of torchvision.
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
    """One layer in order of use.

    Attributes:
        name: as in the weights.
        kind: its class.
        shape: of its output for one image.
        parameters: how many it has that no earlier layer has.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Parameters:
    """What params.yaml said.

    Attributes:
        seed: of everything that is random.
        train: the section of that name, without the keys that change no bytes.
    """

    __pydantic_config__: ClassVar = STRICT

    seed: int
    train: dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Provenance:
    """What the bytes of the weights depend on. No time, path, host or commit is in it.

    Attributes:
        parameters: of params.yaml.
        data: the sha256 sum of each file of data.
        network_file: Git's name for the content of the network's file.
        device: processor, and the instruction set of the CPU.
        threads: CPU threads of all processes.
        processes: that shared each batch.
        versions: of Python and the libraries that compute.
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
    """All that using the weights needs, and what made them.

    Attributes:
        format: of this record.
        network: a file of cifar/models.
        dataset: class names, image shape and normalisation.
        options: that the network was built with.
        layers: of one network.
        ensemble: how many networks are evaluated together.
        epochs: for each of them the epoch whose weights were kept, from 1.
        temperature: that the logits are divided by before they become probabilities.
        provenance: what made the weights.
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
            raise ValueError(f"{self.network!r} is no name of a network")
        if len(self.epochs) != self.ensemble:
            raise ValueError(f"{len(self.epochs)} epochs for {self.ensemble} networks")

    @property
    def parameters(self) -> int:
        """Of one network, each tensor counted once."""
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
        UserError: there is none.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        advice = "`dvc repro` makes it, `dvc pull` fetches it"
        raise UserError(f"no model file ({path}): {advice}") from None


def parse(content: bytes, path: Path) -> tuple[Model, str]:
    """The record in the content of a model file, and the checksum of record and weights.

    Raises:
        UserError: no safetensors file, no record in it, one of another format, or an invalid one.
    """
    metadata = read_metadata(content, path)
    if "description" in metadata:  # where format 1 had its record
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
    """The metadata in the header of a safetensors file: eight bytes of length, then JSON."""
    try:
        deserialize(content)  # checks that the header and the length fit
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return header.get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        problem = " ".join(str(error).split())[:160]
        advice = "`dvc checkout` or `dvc repro` restores it"
        raise UserError(f"no safetensors file, {problem} ({path}): {advice}") from None
