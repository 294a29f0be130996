"""Records the provenance of a model: everything that its bytes depend on, and nothing else.

The record has no time, path, host or commit, so that the same run gives the same record in another
folder, on another day, or after a commit. Code is identified by Git's hashes of the files'
contents, which committing does not change.
"""

import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import torch

from cifar import UserError, files
from cifar.model import Parameters, Provenance

ROOT = Path(__file__).resolve().parents[2]  # of the code; the data is in the current folder
TEST_RESULTS = ("metrics/test.json", "plots/classes.csv", "plots/predictions.csv")


def record(
    parameters: Parameters,
    data: Iterable[Path],
    network_file: str,
    device: torch.device,
    threads: int,
    processes: int,
) -> Provenance:
    """The provenance of the model that the running program trains.

    Args:
        parameters: the values of params.yaml.
        data: the files that the training reads.
        network_file: path of the network's file, relative to the repository.
        threads: number of CPU threads in all processes.
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
    """Map each loaded file of this repository (stage and library) to Git's hash of its content.

    The modules of cifar.params are left out: all of them are loaded to check params.yaml, and the
    record has its values.
    """
    names = [name for name in sys.modules if name == "__main__" or name.split(".")[0] == "cifar"]
    modules = [sys.modules[name] for name in names if not name.startswith("cifar.params.")]
    loaded = {Path(file).resolve() for m in modules if (file := getattr(m, "__file__", None))}
    paths = sorted(path for path in loaded if path.is_relative_to(ROOT))
    return {p.relative_to(ROOT).as_posix(): files.git_name(p.read_bytes()) for p in paths}


def discard_results_of_another(checksum: str) -> None:
    """Remove test results of another model: DVC would commit them into an experiment of this one.

    `dvc exp run train` does not run evaluate, but commits whatever results exist.

    Args:
        checksum: checksum of this model, as in its metrics.
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
