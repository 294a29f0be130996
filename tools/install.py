"""Create .venv from a lock file, and check every package against its hash there.

    python3 tools/install.py requirements.lock

`make` runs this. It needs nothing but Python itself. If the variable TORCH_INDEX is set, torch and
torchvision come from that index instead, without hashes, because no lock file has its builds; their
CUDA packages are left out.
"""

from __future__ import annotations  # an older Python can then read on to the error about it

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(".venv")
OLDEST = (3, 11)
TORCH = ("torch", "torchvision")
# Packages that only a CUDA build of torch needs.
CUDA = re.compile("triton|cuda-.*|nvidia-.*")


def main() -> None:
    if sys.version_info < OLDEST:
        version = ".".join(map(str, OLDEST))
        sys.exit(f"error: Python {version} or later is needed (python3): use `make PYTHON=…`")
    pins = read_lock(Path(sys.argv[1]))
    run(sys.executable, "-m", "venv", str(FOLDER))
    # One dependency is published as source only. Its build takes the locked setuptools, because
    # an isolated build would fetch another one, unchecked.
    install_locked(pins["setuptools"])
    if index := os.environ.get("TORCH_INDEX"):
        install_torch(index, [pins.pop(name) for name in TORCH])
        pins = {name: pin for name, pin in pins.items() if not CUDA.fullmatch(name)}
    install_locked("".join(pins.values()))


def read_lock(path: Path) -> dict[str, str]:
    """Maps the name of each requirement to its lines."""
    lines = re.sub("^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pins = re.split(r"^(?=[a-z])", lines, flags=re.MULTILINE)
    return {re.split(r"[\[=]", pin)[0]: pin for pin in pins if pin}


def install_locked(pins: str) -> None:
    """Install exactly these pinned requirements, each with one of its hashes."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder, "requirements.lock")
        lock.write_text(pins, encoding="utf-8")
        pip("--require-hashes", "--no-build-isolation", "-r", str(lock))


def install_torch(index: str, pins: Iterable[str]) -> None:
    """Install the builds of the locked versions that the index has, such as 2.15.0+cpu."""
    pip("--index-url", index, *(pin.split()[0] for pin in pins))


def pip(*arguments: str) -> None:
    """Run `pip install` in the environment, without dependencies."""
    python = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    options = ("--quiet", "--disable-pip-version-check", "--no-deps")
    run(str(python), "-m", "pip", "install", *options, *arguments)


def run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        sys.exit("error: the environment is not complete (.venv): see above, then run make again")


if __name__ == "__main__":
    main()
