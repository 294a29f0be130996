"""One process per device, on one machine or several.

torchrun starts the processes, and DistributedDataParallel averages their gradients. Every process
has all images and the same weights, and computes its part of each batch. The first one (rank 0)
prints, validates and writes; the others receive its numbers.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from cifar import UserError, hardware, waiting

CPU = torch.device("cpu")
WAITING = timedelta(days=7)  # longer than any other training of the same experiment


@dataclass(frozen=True)
class World:
    """This process among those that share each batch.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on this machine, from 0.
        local_size: number of processes on this machine.
        device: where this process computes.
        threads: CPU threads of this process.
        patient: the group of processes for `broadcast_object`, if there are several.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = CPU
    threads: int = 1
    patient: Any = None

    def part(self, batch: Tensor) -> Tensor:
        """This process's part of a batch, (B,) to about (B / size,)."""
        return batch.tensor_split(self.size)[self.rank]

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as training calls it, with gradients averaged over all processes."""
        if self.size == 1:
            return net
        return nn.parallel.DistributedDataParallel(net)

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def broadcast(self, numbers: tuple[float, ...]) -> tuple[float, ...]:
        """Give every process the first one's numbers, so that all make the same decisions."""
        if self.size == 1:
            return numbers
        sent = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.broadcast(sent, src=0)
        return tuple(sent.tolist())

    def broadcast_object(self, value: Any) -> Any:
        """Give every process the first one's object, such as a checkpoint, through CPU memory.

        The first may take long: it may be waiting for another training of the same experiment.
        """
        sent = [value]
        if self.size > 1:
            distributed.broadcast_object_list(sent, src=0, group=self.patient)
        return sent[0]


def start(
    module: str, *, device: str, processes: int, threads: int, batch_size: int
) -> World | None:
    """Start the processes that share each batch, or join them if this is one of them.

    Args:
        module: module to run in each process, if they are yet to be started.
        device: as in `train.device`.
        processes: as in `train.processes`.
        threads: CPU threads of each process; 0 divides the cores among those on this machine.
        batch_size: images of a batch over all processes.

    Returns:
        This process among all; None if it started the others, which have finished by then.

    Raises:
        UserError: the device does not exist, there are too few devices, or a batch is too small.
    """
    world = started() or World()
    if batch_size < 2 * world.size:
        raise UserError(
            f"a batch of {batch_size} images is too small for {world.size} processes "
            f"(params.yaml, train.batch_size): use {2 * world.size} or more"
        )
    if processes > 1 and not started():
        check_devices(device, processes)
        launch(module, processes)
        return None
    world = replace(
        world,
        device=hardware.pick(device, "train.device", world.local_rank),
        threads=hardware.set_threads(threads, world.local_size),
    )
    waiting.watch(world.device)
    return replace(world, patient=join(world))


def check_devices(device: str, processes: int) -> None:
    """Check that each process can have its own GPU, unless training runs on the CPU.

    Raises:
        UserError: there are fewer GPUs.
    """
    picked = hardware.pick(device, "train.device")
    gpus, _ = hardware.find_gpus()
    if picked.type == "mps":
        raise UserError(
            "an Apple GPU can serve only one process (params.yaml, train.processes): "
            "set it to 1, or set train.device to cpu"
        )
    if picked.type == "cuda" and len(gpus) < processes:
        verb = "is" if len(gpus) == 1 else "are"
        raise UserError(
            f"{processes} processes need {processes} GPUs, but only {len(gpus)} {verb} "
            f"available (params.yaml, train.processes): lower it, or set train.device to cpu"
        )


def started() -> World | None:
    """The rank of this process, as set by torchrun; None if torchrun did not start it.

    Raises:
        UserError: a variable of torchrun is missing or not a number.
    """
    if "RANK" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, "") for name in names]
    for name, value in zip(names, values, strict=True):
        if not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"{value[:40]!a} is not a number ({name}): unset RANK, or use torchrun")
    rank, size, local_rank, local_size = map(int, values)
    return World(rank, size, local_rank, local_size)


def rank() -> int:
    """The rank of this process among those that share each batch; 0 for the first or only one."""
    return (started() or World()).rank


def join(world: World) -> Any:
    """Connect to the other processes, if any; from then on only the first one prints.

    Returns:
        The group of all processes that waits long, for `World.patient`.
    """
    if world.size == 1:
        return None
    backend = "gloo"
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
        backend = "nccl"
    distributed.init_process_group(backend)
    if world.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
    return distributed.new_group(backend="gloo", timeout=WAITING)


def launch(module: str, processes: int) -> None:
    """Run `module` in this many processes on this machine and wait for them.

    If one fails with a traceback, prints it and exits with torchrun's code.

    Raises:
        UserError: one failed with a message of one line, which is passed on, or was killed.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *torchrun, "-m", module]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:  # noqa: S603
        try:
            assert launcher.stderr
            errors = launcher.stderr.read()
        except BaseException:  # Ctrl-C reaches all processes, SIGTERM only this one
            launcher.terminate()
            raise
    if launcher.returncode:
        signals = re.findall(r"Signal \d+ \((\w+)\)", errors)
        signals.sort(key="SIGTERM".__eq__)  # torchrun ends the remaining processes with it
        killed = signals and signals[0] != "SIGTERM"  # the others only report losing it
        if not killed and (message := re.search(r"^error: (.*)$", errors, re.MULTILINE)):
            raise UserError(message[1])
        raised = re.search(r"^\[rank\d+\]: \w+: ", errors, re.MULTILINE)
        if killed or (signals and not raised):
            raise UserError(
                f"a training process was ended by {signals[0]} (train.processes): "
                "run the same command again; training resumes after its last whole epoch"
            )
        sys.stderr.write(errors)
        sys.exit(launcher.returncode)
