"""Which device computes, and with how many threads."""

import ctypes
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cifar import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the numbers of these options in malloc.h


def pick(name: str, key: str, number: int = 0) -> torch.device:
    """The device of that name; auto is CUDA, else Apple's MPS, else the CPU. Of several GPUs, that `number`.

    Raises:
        UserError: this machine has no such device; it says what there is.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    present = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + present
    gpu = f"cuda:{number}"
    wanted = {"auto": gpu if torch.cuda.device_count() else present[0], "cuda": gpu}.get(name, name)
    if wanted not in present:
        where, there = "command line" if key.startswith("-") else "params.yaml", ", ".join(present)
        raise UserError(
            f"no device {wanted} here, only {there} ({where}, {key}): name one or take auto"
        )
    torch.backends.cudnn.deterministic = True  # cuDNN's fastest sums come in any order
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    return torch.device(wanted)


def set_threads(count: int, processes: int = 1) -> int:
    """Let the CPU kernels use `count` threads, or this process's share of the cores for 0; return how many."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    torch.set_num_threads(count or max(1, cores // processes))
    keep_memory()
    return torch.get_num_threads()


def forward(
    net: nn.Module, place: torch.device, precision: str, mode: str
) -> Callable[[Tensor], Tensor]:
    """How training calls `net`: from its input to float32 logits, in the given precision, compiled or as it is.

    Args:
        precision: "bf16" (autocast: the weights stay float32), "fp32" or "auto": bf16 on CUDA only. A CPU
            without matrix units is slower with it.
        mode: of torch.compile, or "none".
    """
    call = net if mode == "none" else torch.compile(net, mode=mode, dynamic=False)
    if precision == "fp32" or (precision == "auto" and place.type != "cuda"):
        return call

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast(place.type, torch.bfloat16):
            return call(x).float()

    return autocast


def keep_memory() -> None:
    """Let glibc keep freed memory instead of returning it at every step: a fifth of a small step is page faults."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library: nothing to gain, nothing to lose
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
        mallopt(M_MMAP_THRESHOLD, 1 << 25)  # glibc before 2.35 takes no more
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
