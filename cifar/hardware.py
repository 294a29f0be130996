"""The device and the number of threads to compute with, and the precision of a network."""

import ctypes
import os
import re
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar import UserError

M_TRIM_THRESHOLD = -1  # the numbers of these options in glibc's malloc.h
M_MMAP_THRESHOLD = -3


def pick(device: str, key: str, gpu: int = 0) -> torch.device:
    """Return the device with this name; auto is CUDA, else Apple's MPS, else the CPU.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        key: the parameter or option that sets it, for the message.
        gpu: which of the usable GPUs auto and cuda mean, from 0.

    Raises:
        UserError: the device is not available; the message lists those that are.
    """
    if device == "cpu":  # a broken GPU does not matter then
        return torch.device("cpu")
    gpus, reason = find_gpus()
    present = [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
    wanted = device
    if device == "cuda" or (device == "auto" and gpus):
        wanted = gpus[gpu] if gpu < len(gpus) else f"cuda:{gpu}" if not gpus else f"GPU {gpu + 1}"
    elif device == "auto":
        wanted = present[0]
    if wanted not in present:
        where = "command line" if key.startswith("-") else "params.yaml"
        cause = f" ({reason})" if reason and wanted != "mps" else ""
        raise UserError(
            f"device {wanted} is not available{cause}, only {', '.join(present)} "
            f"({where}, {key}): choose one of them"
        )
    if reason and device == "auto":
        print(f"note: {reason}: computing on {wanted}", file=sys.stderr)
    make_deterministic(wanted)
    return torch.device(wanted)


def find_gpus() -> tuple[list[str], str]:
    """The GPUs that PyTorch can use, and the reason if it cannot use one that is present."""
    with warnings.catch_warnings(record=True) as caught:  # torch's warnings take several lines
        warnings.simplefilter("always")
        if not torch.cuda.is_available():
            text = " ".join(str(warning.message) for warning in caught)
            return [], why_not_started(text) if torch.cuda.device_count() else ""
        reasons = {f"cuda:{i}": why_too_old(i) for i in range(torch.cuda.device_count())}
    if not any(reasons.values()):
        for warning in caught:  # such as of a GPU that is too new
            print(f"note: {' '.join(str(warning.message).split())[:300]}", file=sys.stderr)
    gpus = [name for name, reason in reasons.items() if not reason]
    return gpus, next(filter(None, reasons.values()), "")


def why_not_started(text: str) -> str:
    """Shorten torch's warnings about a failed start of CUDA."""
    if "driver" in text and "too old" in text:
        return f"the NVIDIA driver is too old for CUDA {torch.version.cuda}"
    error = re.search(r"Error \d+: [^(]*\w", text)
    return f"CUDA does not start{f', {error[0]}' if error else ''}"


def why_too_old(gpu: int) -> str:
    """Why this build of PyTorch cannot use a GPU; empty if it can."""
    major, minor = torch.cuda.get_device_capability(gpu)
    architectures = [re.match(r"sm_(\d+)", name) for name in torch.cuda.get_arch_list()]
    built_for = [int(match[1]) for match in architectures if match]  # empty for AMD's GPUs
    if built_for and 10 * major + minor < min(built_for):
        return f"{torch.cuda.get_device_name(gpu)} is too old for this build of PyTorch"
    return ""


def make_deterministic(device: str) -> None:
    """Choose algorithms that give the same bits every time. Those of the CPU do so anyway."""
    if device == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def set_threads(threads: int, processes: int = 1) -> int:
    """Set the number of CPU threads; 0 divides the cores among the processes on this machine.

    Returns:
        The number of threads.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores // processes))
    keep_memory()
    return torch.get_num_threads()


def forward(
    net: nn.Module,
    device: torch.device,
    precision: str,
    compile: str,  # noqa: A002  the name of the parameter
) -> Callable[[Tensor], Tensor]:
    """Return the function with which training calls the network; its logits are float32.

    Args:
        precision: bf16 (autocast: the weights stay float32), fp32, or auto: bf16 on CUDA only,
            because it slows down a CPU without matrix units.
        compile: the mode of torch.compile, or none.
    """
    call = net if compile == "none" else torch.compile(net, mode=compile, dynamic=False)
    if precision == "fp32" or (precision == "auto" and device.type != "cuda"):
        return call

    def autocast(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return call(x).float()

    return autocast


def total_memory(device: torch.device) -> int:
    """The device's memory in bytes, free or not; for the CPU, as much as this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *container_limits()]
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min(sizes + [limit for limit in limits if limit != resource.RLIM_INFINITY])


def container_limits(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """The memory limits, in bytes, of this process's control groups (Linux, cgroup version 2)."""
    try:
        folder = root / groups.read_text().rpartition("0::/")[2].strip()
        paths = [path / "memory.max" for path in (folder, *folder.parents)]
        texts = [path.read_text().strip() for path in paths if path.exists()]
    except OSError:
        return []
    return [int(text) for text in texts if text != "max"]


def keep_memory() -> None:
    """Make glibc keep freed memory between steps; page faults take a fifth of a small step."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or Windows
        return
    if not mallopt(M_MMAP_THRESHOLD, 1 << 30):
        mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the maximum before glibc 2.35
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
