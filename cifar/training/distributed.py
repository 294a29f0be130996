"""One process per device, on one machine or several: torchrun starts them, DistributedDataParallel joins them.

Every process keeps all images and the same weights, and computes its part of each batch. The first one
(rank 0) speaks, validates and writes; the others follow its numbers.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from cifar import UserError


@dataclass(frozen=True)
class World:
    """This process among all: its number, how many there are; on this machine its number, and how many are here."""

    rank: int = 0
    size: int = 1
    local: int = 0
    here: int = 1

    def part(self, batch: Tensor) -> Tensor:
        """This process's share of a batch, (B,) to about (B / size,)."""
        return batch.tensor_split(self.size)[self.rank]

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network as training calls it: gradients are then the mean over all processes."""
        if self.size == 1:
            return net
        return nn.parallel.DistributedDataParallel(net)

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(numbers)
        return numbers

    def first(self, numbers: tuple[float, ...], place: torch.device) -> tuple[float, ...]:
        """The numbers of the first process, in every process: decisions are then the same everywhere."""
        if self.size == 1:
            return numbers
        sent = torch.tensor(numbers, dtype=torch.float64, device=place)
        distributed.broadcast(sent, src=0)
        return tuple(sent.tolist())

    def same(self, state: Any) -> Any:
        """What the first process has, on the CPU, in every process: a checkpoint that only it may see."""
        sent = [state]
        if self.size > 1:
            distributed.broadcast_object_list(sent, src=0)
        return sent[0]


def started() -> World | None:
    """What torchrun says of this process, or nothing where it was not torchrun that started it."""
    if "RANK" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return World(*(int(os.environ[name]) for name in names))


def join(world: World, place: torch.device) -> None:
    """Meet the other processes, if there are any; from here on only the first one prints."""
    if world.size == 1:
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    if world.rank:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 it stays open until the process ends


def launch(module: str, processes: int) -> None:
    """Run `module` in so many processes on this machine, each with an equal share of the cores, and wait for them.

    Raises:
        UserError: one of them failed; what it said itself, where that is one line. A traceback is passed on.
    """
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    with subprocess.Popen([*command, "-m", module], stderr=subprocess.PIPE, text=True) as launcher:  # noqa: S603
        try:
            assert launcher.stderr
            said = launcher.stderr.read()
        except BaseException:  # Ctrl-C reaches all of them, SIGTERM this one only
            launcher.terminate()
            raise
    if launcher.returncode:
        own = re.search(r"^error: (.*)$", said, re.MULTILINE)
        died = re.search(r"Signal \d+ \((\w+)\)", said)
        if own:
            raise UserError(own[1])
        if died:
            advice = "run the same command again; training goes on after its last whole epoch"
            raise UserError(f"a training process ended by {died[1]} (train.processes): {advice}")
        sys.stderr.write(said)
        sys.exit(launcher.returncode)
