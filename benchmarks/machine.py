"""Describe this machine, for the tables."""

import os
import platform
from importlib import metadata
from pathlib import Path


def processor() -> str:
    """The name of the processor and the number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor()])[0]}, {os.cpu_count()} cores"


def torch() -> str:
    """The version of torch, without importing it."""
    return metadata.version("torch")


def describe() -> str:
    """Processor, instruction set, cores, GPU, and the versions that the speed depends on."""
    from torch import backends, cuda  # takes a second to import, and the runner does not need it

    gpu = cuda.get_device_name() if cuda.is_available() else "no GPU"
    versions = f"Python {platform.python_version()}, torch {torch()}"
    return f"{processor()}, {backends.cpu.get_cpu_capability()}, {gpu}; {versions}"
