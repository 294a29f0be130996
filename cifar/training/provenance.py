"""What made a model: everything that its bytes depend on, and nothing else.

No time, path, host or commit is in it, so that the same run in another folder, tomorrow or after
a commit gives the same record. Code is known by Git's own names of the files' contents, which
committing does not change.
"""

import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import torch

from cifar import UserError, files
from cifar.model import Parameters, Provenance

ROOT = Path(__file__).resolve().parents[2]  # of the code; the data are in the current folder
TEST_RESULTS = ("metrics/test.json", "plots/classes.csv", "plots/predictions.csv")


def record(
    parameters: Parameters,
    data: Iterable[Path],
    network_file: str,
    device: torch.device,
    threads: int,
    processes: int,
) -> Provenance:
    """The record of the running program.

    Args:
        parameters: of params.yaml.
        data: the files that are read.
        network_file: relative to the repository.
        threads: of all processes.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    versions = {library: metadata.version(library) for library in ("numpy", "torch", "torchvision")}
    return Provenance(
        parameters=parameters,
        data={path.as_posix(): files.sha256(path) for path in data},
        network_file=files.git_name((ROOT / network_file).read_bytes()),
        device=f"{name}, {torch.backends.cpu.get_cpu_capability()}",
        threads=threads,
        processes=processes,
        versions={"python": platform.python_version()} | versions,
    )


def code() -> dict[str, str]:
    """Git's name of each file of this repository that is loaded: the stage and the library.

    Not the sections of params.yaml: all are loaded to be checked, and what they say is in the
    parameters.
    """
    names = [name for name in sys.modules if name == "__main__" or name.split(".")[0] == "cifar"]
    modules = [sys.modules[name] for name in names if not name.startswith("cifar.params.")]
    loaded = {Path(file).resolve() for m in modules if (file := getattr(m, "__file__", None))}
    paths = sorted(path for path in loaded if path.is_relative_to(ROOT))
    return {p.relative_to(ROOT).as_posix(): files.git_name(p.read_bytes()) for p in paths}


def discard_results_of_another(checksum: str) -> None:
    """Remove test results of another model: DVC would commit them into an experiment of this one.

    `dvc exp run train` does not run evaluate, and commits what lies there.

    Args:
        checksum: of this model, as in its metrics.
    """
    metrics = Path(TEST_RESULTS[0])
    if not metrics.exists():
        return
    try:
        current = files.read_json(metrics)["model"] == checksum
    except (UserError, LookupError, TypeError):  # damaged or half-merged
        current = False
    if not current:
        for path in TEST_RESULTS:
            Path(path).unlink(missing_ok=True)
