"""One process per device, on one machine or several.

torchrun starts the processes, DistributedDataParallel joins them. Every process keeps all images
and the same weights, and computes its part of each batch. The first one (rank 0) prints, validates
and writes; the others follow its numbers.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from cifar import UserError, hardware, waiting

# The others wait while the first waits for another training of the same experiment.
WAITING = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number on this machine.
        local_size: how many are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def part(self, batch: Tensor) -> Tensor:
        """This process's part of a batch, (B,) to about (B / size,)."""
        return batch.tensor_split(self.size)[self.rank]

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as training calls it: gradients are then the mean over all processes."""
        if self.size == 1:
            return net
        return nn.parallel.DistributedDataParallel(net)

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def broadcast(self, numbers: tuple[float, ...], device: torch.device) -> tuple[float, ...]:
        """The first process's numbers in every process: decisions are then the same everywhere."""
        if self.size == 1:
            return numbers
        sent = torch.tensor(numbers, dtype=torch.float64, device=device)
        distributed.broadcast(sent, src=0)
        return tuple(sent.tolist())

    def broadcast_object(self, value: Any) -> Any:
        """The first process's object, on the CPU, in every process: a checkpoint, say."""
        sent = [value]
        if self.size > 1:
            distributed.broadcast_object_list(sent, src=0)
        return sent[0]


def start(
    module: str, *, device: str, processes: int, threads: int, batch_size: int
) -> tuple[World, torch.device, int] | None:
    """Join the processes that share each batch; with one process there is nobody to join.

    Args:
        module: to run in each process, if they must be started first.
        device: as in `train.device`.
        threads: of each process; 0: its share of the cores.

    Returns:
        This process's place in the world, its device and its threads. Nothing if it only started
        the others, which are done then.

    Raises:
        UserError: no such device, not enough of them, or a batch too small for so many processes.
    """
    world = started() or World()
    if batch_size < 2 * world.size:
        raise UserError(
            f"{batch_size} images are too few for {world.size} processes "
            "(params.yaml, train.batch_size): at least 2 for each"
        )
    if processes > 1 and not started():
        check_devices(device, processes)
        launch(module, processes)
        return None
    chosen = hardware.pick(device, "train.device", world.local_rank)
    count = hardware.set_threads(threads, world.local_size)
    waiting.watch(chosen)
    join(world, chosen)
    return world, chosen, count


def check_devices(device: str, processes: int) -> None:
    """Each process needs a GPU of its own.

    Raises:
        UserError: there are fewer.
    """
    picked = hardware.pick(device, "train.device")
    if picked.type == "mps":
        raise UserError(
            "one GPU of Apple's serves one process (params.yaml, train.processes): "
            "set it to 1, or train.device to cpu"
        )
    if picked.type == "cuda" and torch.cuda.device_count() < processes:
        raise UserError(
            f"{processes} processes need as many GPUs, and {torch.cuda.device_count()} is here "
            "(params.yaml, train.processes): lower it, or set train.device to cpu"
        )


def started() -> World | None:
    """What torchrun says of this process; nothing if it was not torchrun that started it.

    Raises:
        UserError: something else has set some of its variables.
    """
    if "RANK" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, "") for name in names]
    for name, value in zip(names, values, strict=True):
        if not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"no number, {value[:40]!a} ({name}): unset RANK, or use torchrun")
    return World(*map(int, values))


def rank() -> int:
    """The number of this process among those that share each batch; 0 for the first or only one."""
    return (started() or World()).rank


def join(world: World, device: torch.device) -> None:
    """Meet the other processes, if any; from here on only the first one prints."""
    if world.size == 1:
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=WAITING)
    if world.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the process ends


def launch(module: str, processes: int) -> None:
    """Run `module` in so many processes on this machine and wait for them.

    Raises:
        UserError: one of them failed; with its own message, if that is one line. A traceback is
            passed on.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *torchrun, "-m", module]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:  # noqa: S603
        try:
            assert launcher.stderr
            errors = launcher.stderr.read()
        except BaseException:  # Ctrl-C reaches all of them, SIGTERM this one only
            launcher.terminate()
            raise
    if launcher.returncode:
        signals = re.findall(r"Signal \d+ \((\w+)\)", errors)
        signals.sort(key="SIGTERM".__eq__)  # with that, torchrun ends the others
        killed = signals and signals[0] != "SIGTERM"  # the others then fail to reach that process
        if not killed and (message := re.search(r"^error: (.*)$", errors, re.MULTILINE)):
            raise UserError(message[1])
        raised = re.search(r"^\[rank\d+\]: \w+: ", errors, re.MULTILINE)
        if killed or (signals and not raised):
            raise UserError(
                f"a training process ended by {signals[0]} (train.processes): "
                "run the same command again; training resumes after its last whole epoch"
            )
        sys.stderr.write(errors)
        sys.exit(launcher.returncode)
