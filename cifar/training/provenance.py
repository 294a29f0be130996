"""What made a model: everything that its bytes depend on, and nothing else.

No time, path, host or commit is in it, so the same run in another folder, tomorrow or after a commit gives
the same lines. The code is known by Git's own names of the files' contents, which committing does not
change: `git log --find-object=<id>` lists the commits.
"""

import hashlib
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]  # of the program; the data are in the current folder


def facts(
    parameters: dict[str, Any], place: torch.device, threads: int, data: Iterable[Path]
) -> dict[str, Any]:
    """Of the running program: its parameters, device, CPU threads, versions, loaded code, and the files `data`."""
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
    return {
        "parameters": parameters,
        "device": f"{name}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": threads,
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("numpy", "torch", "torchvision")},
        "code": {path.as_posix(): blob((ROOT / path).read_bytes()) for path in loaded_code()},
        "data": {path.as_posix(): sha256(path) for path in data},
    }


def loaded_code() -> list[Path]:
    """The files of this program that are loaded, from its folder: the stage's script and the library's modules.

    Not the sections of params.yaml: all are loaded to be checked, and what they say is in the parameters.
    """
    names = [name for name in sys.modules if name == "__main__" or name.split(".")[0] == "cifar"]
    modules = [sys.modules[name] for name in names if not name.startswith("cifar.params.")]
    found = {Path(file).resolve() for m in modules if (file := getattr(m, "__file__", None))}
    return sorted(path.relative_to(ROOT) for path in found if path.is_relative_to(ROOT))


def check_network(model: Path, description: dict[str, Any]) -> None:
    """Say on stderr when the file of the network is not the one that the model was trained with.

    A changed comment does no harm, so it is no error; but other layers of the same shapes would predict otherwise.
    """
    path = f"cifar/models/{description['model']}.py"
    try:
        trained_with = str(description["made_by"]["code"][path])
    except (LookupError, TypeError):  # a model file of somebody else's making
        return
    if trained_with != blob((ROOT / path).read_bytes()):
        print(
            f"note: {model} was trained with another {path} (Git's object {trained_with[:12]})",
            file=sys.stderr,
        )


def blob(content: bytes) -> str:
    """Git's name for a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
