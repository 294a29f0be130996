"""Runs a stage in a fork of a process that has loaded the libraries, which saves the start-up time.

No module of the project is loaded before the fork. A fault is a function that is called in the new
process before the stage starts.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIBRARIES = [
    "matplotlib.backends.backend_agg",
    "pandas",
    "pydantic",
    "requests",
    "sklearn.datasets",
    "torch._dynamo",
]
MAC = sys.platform == "darwin"  # there a fork of a process that has loaded torch may crash
FORKS = multiprocessing.get_context("spawn" if MAC else "forkserver")
FORKS.set_forkserver_preload(LIBRARIES)

Fault = Callable[[], None]


class Ended(NamedTuple):
    code: int  # the negative signal number if a signal ended the process
    printed: str
    errors: str


def run(folder: Path, stage: str, fault: Fault | None = None, **environment: str) -> Ended:
    """Run `python -m stages.<stage>` in a folder with the project's code, files and parameters."""
    logs = [folder.with_name(f"{folder.name}.{stream}") for stream in ("stdout", "stderr")]
    process = FORKS.Process(target=work, args=(folder, stage, logs, fault, environment))
    process.start()
    process.join(600)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("it hangs")
    return Ended(process.exitcode, *(log.read_text() for log in logs))


def work(
    folder: Path, stage: str, logs: list[Path], fault: Fault | None, environment: dict[str, str]
) -> None:
    os.chdir(folder)
    sys.dont_write_bytecode = True  # a fault cuts files, or counts them
    for number, log in zip((1, 2), logs, strict=True):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    for name in [name for name in os.environ if name.startswith("DVC_")]:
        del os.environ[name]
    os.environ.update(environment)
    sys.path.insert(0, str(folder))
    sys.argv = [stage]
    if fault:
        fault()
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)


def full_disk(size: int) -> None:
    """Limit files to `size` bytes: a write beyond fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def killed_at(size: int) -> None:
    """Let the system kill the process when a file reaches `size` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it and gets an error instead
    full_disk(size)


def at_write(number: int, action: Fault) -> None:
    """Call `action` just before the process renames its file of this number, counted from 1."""
    count = 0

    def hook(event: str, _: object) -> None:
        nonlocal count
        if event == "os.rename":
            count += 1
            if count == number:
                action()

    sys.addaudithook(hook)


def small_shards(fault: Fault | None = None) -> None:
    """Make a shard of pictures full at 20 kB."""
    from cifar.data import pack

    pack.SHARD_BYTES = 20_480
    if fault:
        fault()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def edit(name: str) -> None:
    """Edit a file, as a user may do while the stage runs."""
    path = Path(name)
    path.write_bytes(
        path.read_bytes().replace(b"lr: 0.05", b"lr: 0.06")
        + (b"" if name == "params.yaml" else b"\n")
    )


def no_memory() -> None:
    """Make the first convolution run out of memory on the device."""
    import torch

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total ..."
        )

    torch.nn.functional.conv2d = fail


def no_disk() -> None:
    """Pretend that the disk has 1,000 bytes left."""
    import shutil
    from types import SimpleNamespace

    shutil.disk_usage = lambda _: SimpleNamespace(free=1000)


def other_version() -> None:
    from importlib import metadata

    metadata.version = lambda name: "0.1"


def hang_up(after: int) -> None:
    """Make the loss NaN after this many steps."""
    import torch
    from torch.nn import CrossEntropyLoss

    steps, plain = 0, CrossEntropyLoss.forward

    def forward(self: CrossEntropyLoss, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return plain(self, x, labels) * (float("nan") if steps > after else 1)

    CrossEntropyLoss.forward = forward
