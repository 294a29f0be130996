"""Which device computes, and with how many threads."""

import ctypes
import os

import torch

from cifar import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the numbers of these options in malloc.h


def pick(name: str, key: str) -> torch.device:
    """The device of that name; auto is CUDA, else Apple's MPS, else the CPU.

    Raises:
        UserError: this machine has no such device; it says what there is.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    present = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + present
    wanted = {"auto": present[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in present:
        where = "command line" if key.startswith("-") else "params.yaml"
        raise UserError(f"no device {name} here, only {', '.join(present)} ({where}, {key}): name one or take auto")
    torch.backends.cudnn.deterministic = True  # cuDNN's fastest sums come in any order
    return torch.device(wanted)


def set_threads(count: int) -> int:
    """Let the CPU kernels use `count` threads, or all cores of this process for 0; return how many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(count or cores)
    keep_memory()
    return torch.get_num_threads()


def keep_memory() -> None:
    """Let glibc keep freed memory instead of returning it at every step: a fifth of a small step is page faults."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library: nothing to gain, nothing to lose
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
